"""The scribe: no answer leaves before it stands in the log, and what it has signed is what stands there.

For a group of answers that are ready, in this order, each step durable before the next begins:
  1. their sequence numbers are the next ones of the log; entries and sealed records follow (`draft`, no I/O)
  2. entries and sealed records (LogStore.append: one fsync for all)
  3. the receipts are signed; from here on the answers may leave
A crash after 2 leaves entries that nobody holds a receipt for, which is harmless. A full disk refuses 2: then the whole
group is not answered, and nothing was promised.

`Pen` is the thread that does so for whoever waits: while one group is being fsynced the next one gathers.

LocalFault
├── StorageFault   (ledger.database) the disk takes nothing: none of the group was answered
└── NotWriting     the log was stopped, because of what `halt` was told
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ledger.eip712 import Domain
from ledger.log.receipt import NO_DIGEST, Decoding, Entry, Receipt, Record, enter, fresh_salt, issue
from ledger.log.sealing import Auditor, Envelope
from ledger.log.store import LogStore
from ledger.signing import Key
from proofs.errors import LocalFault

GROUP: Final = 64  # answers that share an fsync
Told = Callable[[Receipt | BaseException], None]


class NotWriting(LocalFault):
    """Nothing is promised any more."""


@dataclass(frozen=True)
class Answer:
    """`request` and `response` are the bytes as they came and as they go."""

    request: bytes
    response: bytes
    decoding: Decoding


@dataclass(frozen=True)
class Standing:
    """What the chain says, as of its block `head`: how late a checkpoint may be, and who reads the records."""

    head: int
    promise_blocks: int
    auditors: tuple[Auditor, ...]


@dataclass(frozen=True)
class Identity:
    """Who answers: the contract of logs, the server's address, the model's digest on the chain."""

    domain: Domain
    server: bytes
    bundle: bytes


@dataclass(frozen=True)
class Draft:
    entry: Entry
    record: Record
    sealed: bytes


def draft(
    identity: Identity, standing: Standing, envelope: Envelope, first: int, time_ms: int, answers: Sequence[Answer]
) -> list[Draft]:
    """Entries at the indices from `first` on, with their records. Deadlines are blocks: the clock binds nobody.
    envelope: to the auditors of `standing`."""
    drafts = []
    for sequence, answer in enumerate(answers, first):
        record = Record(answer.decoding, fresh_salt(), answer.request, answer.response)
        unsealed = Entry(
            chain_id=identity.domain.chain_id,
            contract=identity.domain.contract,
            server=identity.server,
            sequence=sequence,
            time_ms=max(0, time_ms),
            issued_block=standing.head,
            due_block=standing.head + standing.promise_blocks,
            bundle=identity.bundle,
            **record.digests(),
            sealed=NO_DIGEST,
        )
        entry, sealed = enter(unsealed, record, envelope)
        drafts.append(Draft(entry, record, sealed))
    return drafts


class Scribe:
    """Writes groups of answers, one group at a time."""

    def __init__(self, log: LogStore, key: Key, identity: Identity, standing: Standing) -> None:
        self._log, self._key, self._identity = log, key, identity
        self._present = (standing, Envelope.to(standing.auditors))
        self._halted = ""

    def moved_on(self, standing: Standing) -> None:
        """The chain has moved on. A head that went back is not taken: what was promised was promised. From here on
        records are in another envelope."""
        head = max(standing.head, self._present[0].head)
        self._present = (replace(standing, head=head), Envelope.to(standing.auditors))

    def halt(self, why: str) -> None:
        self._halted = why

    def write(self, answers: Sequence[Answer]) -> list[Receipt]:
        """Durable when it returns. Raises StorageFault, NotWriting, and then none of them was promised."""
        if self._halted:
            raise NotWriting(self._halted)
        first, time_ms = self._log.size, int(time.time() * 1000)
        drafts = draft(self._identity, *self._present, first, time_ms, answers)
        placed = self._log.append([each.entry.encode() for each in drafts], [each.sealed for each in drafts])
        if placed != first:
            raise LocalFault("somebody else appends to this log")
        return [issue(self._key.secret, each.entry, each.record) for each in drafts]


class Pen:
    """Gathers answers that are ready and has them written together. `close` writes what waits."""

    def __init__(self, write: Callable[[Sequence[Answer]], list[Receipt]]) -> None:
        self._write = write
        self._waiting: queue.SimpleQueue[tuple[Answer, Told] | None] = queue.SimpleQueue()
        self._mutex = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="pen", daemon=True)
        self._thread.start()

    def submit(self, answer: Answer, told: Told) -> None:
        """`told` is given the receipt once the answer may leave, or why it may not. It is called by the pen's thread,
        and must neither wait nor raise."""
        with self._mutex:
            if not self._closed:
                self._waiting.put((answer, told))
                return
        told(NotWriting("the server is stopping"))

    def close(self) -> None:
        """Idempotent."""
        with self._mutex:
            if not self._closed:
                self._waiting.put(None)
            self._closed = True
        self._thread.join()

    def _run(self) -> None:
        going = True
        while going:
            going = self._group()

    def _group(self) -> bool:
        """One group; False after the last."""
        found = [self._waiting.get()]
        while len(found) < GROUP and found[-1] is not None:
            try:
                found.append(self._waiting.get_nowait())
            except queue.Empty:
                break
        group = [each for each in found if each is not None]
        if group:
            self._settle(group)
        return found[-1] is not None

    def _settle(self, group: Sequence[tuple[Answer, Told]]) -> None:
        found: Sequence[Receipt | BaseException]
        try:
            found = self._write([answer for answer, _ in group])
        except BaseException as error:  # whatever it is: who waits must not wait for ever
            found = [error] * len(group)
        for (_, told), each in zip(group, found, strict=True):
            told(each)
