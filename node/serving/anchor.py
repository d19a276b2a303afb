"""The anchor: what the scribe wrote gets a signed checkpoint, a directory in the content store, and a block.

One turn, again and again:
  1. ask the chain where it stands; tell the scribe (block, auditors' keys)
  2. when it is time, sign a checkpoint of the log as it is (ledger.log.guard), and put it beside the tiles
  3. publish what is signed and not published
  4. post what is signed and not anchored, one checkpoint at a time, through the outbox

Steps that need a chain or a store that is away are left for a later turn; serving does not wait for any of them. Time
is measured by a clock that no one sets, and deadlines in blocks.

LocalFault
└── LogForked   the chain has another history of this log: somebody else writes it with this key. Nothing more is signed
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from ledger.crash import Point, reached
from ledger.log import note
from ledger.log.actions import NameAuditors, PostCheckpoint, Register
from ledger.log.guard import CheckpointGuard
from ledger.log.journal import write_durably
from ledger.log.receipt import Entry
from ledger.log.records import LogServer, auditors_digest
from ledger.log.sealing import Auditor
from ledger.log.statements import Checkpoint
from ledger.log.store import LogStore
from ledger.ports import ChainPort, ContractRefused
from ledger.signing import Key
from node.http import LOG
from node.logs import Log
from node.sender import Sender
from node.serving.meter import Meter
from node.serving.publishing import Publisher
from node.serving.scribe import Identity, Scribe, Standing
from proofs.errors import CandorError, LocalFault, WireFault

URGENT: Final = 4  # a quarter of the promised delay may pass before a checkpoint is signed out of turn


class LogForked(LocalFault):
    """Two logs under one key: one of them is evidence against its owner."""


@dataclass(frozen=True)
class Rhythm:
    """At least so many seconds between two checkpoints, and between two publications."""

    checkpoint_s: float
    publish_s: float


@dataclass
class Anchor:
    """One thread calls `turn`."""

    chain: ChainPort
    key: Key
    identity: Identity
    auditors: tuple[bytes, ...]
    log: LogStore
    guard: CheckpointGuard
    scribe: Scribe
    publisher: Publisher
    sender: Sender
    rhythm: Rhythm
    meter: Meter
    told: Log
    clock: Callable[[], float] = time.monotonic
    _signed_at: float | None = None
    _published_at: float | None = None
    _waiting_since: int | None = None  # block in which entries behind the last checkpoint were first seen
    _last: LogServer | None = None
    _behind_since: float | None = None  # by the clock: when an entry that is not anchored now was first seen waiting
    _noted: int = 0  # size of the checkpoint beside the tiles
    _head: int = 0
    _faults: dict[str, str] = field(default_factory=dict)
    _shown: dict[str, str] = field(default_factory=dict)

    def turn(self, *, now: bool = False) -> int:
        """How many of its parts failed. `now`: sign and publish without waiting. Raises LogForked."""
        failed = [
            not self._part("chain", self._look),
            not self._part("checkpoint", lambda: self._sign(now)),
            not self._part("content", lambda: self._publish(now)),
            not self._part("anchor", self._post),
        ]
        self._part("facts", self._tell)
        return sum(failed)

    def settled(self) -> bool:
        """Is everything that was written anchored and published?"""
        anchored, published = self._last.size if self._last else 0, self.publisher.last
        return anchored == self.log.size == (published.size if published else 0)

    def _part(self, name: str, act: Callable[[], None]) -> bool:
        try:
            act()
        except LogForked as error:
            self.scribe.halt(str(error))
            raise
        except CandorError as error:
            if self._faults.get(name) != str(error):
                tell = self.told.warning if isinstance(error, WireFault) else self.told.error
                tell("not yet", part=name, fault=type(error).__name__, why=error)
            self._faults[name] = str(error)
            self._shown[name] = LOG if isinstance(error, LocalFault) else str(error)  # anybody may read it
            self.meter.failed(type(error).__name__)
            return False
        self._shown.pop(name, None)
        if self._faults.pop(name, None) is not None:
            self.told.info("recovered", part=name)
        return True

    # ---- the chain

    def _look(self) -> None:
        self._head = self.chain.head().number
        self.sender.pump()  # first: a reorg may have taken the registration away
        self._last = self.chain.log_server(self.key.address)
        self.scribe.moved_on(standing(self.chain, self._head, self._last, self.auditors))

    def _post(self) -> None:
        signed = self.guard.last(self.identity.domain, self.key.address)
        server = self.chain.log_server(self.key.address)
        self._last = server
        check_continues(self.log, server)
        busy = any(isinstance(intent.action, PostCheckpoint) for intent in self.sender.outbox.pending())
        if signed is None or signed.size <= server.size or busy:
            return
        proof = tuple(self.log.tree(signed.size).consistency(server.size)) if server.size else ()
        signature = self.guard.sign(self.key, self.identity.domain, signed, ())  # the one that was kept
        action = PostCheckpoint(self.key.address, signed.size, signed.root, proof, signature)
        name = f"checkpoint-{server.size}-{signed.size}"
        self.sender.ensure(name, action, Point.SERVE_CHECKPOINT_INTENT)
        self.sender.pump()
        self._last = self.chain.log_server(self.key.address)

    # ---- checkpoints

    def _sign(self, now: bool) -> None:
        last = self.guard.last(self.identity.domain, self.key.address) or Checkpoint(0, b"")
        size = self.log.size
        if size <= last.size:
            self._waiting_since = None
            self._note(last)
            return
        if self._waiting_since is None:
            self._waiting_since = self._head
        if not (now or self._due(self._signed_at, self.rhythm.checkpoint_s) or self._urgent()):
            return
        tree = self.log.tree(size)
        checkpoint = Checkpoint(size, tree.root())
        self.guard.sign(self.key, self.identity.domain, checkpoint, tree.consistency(last.size) if last.size else ())
        self._signed_at, self._waiting_since = self.clock(), None
        self._note(checkpoint)

    def _urgent(self) -> bool:
        if self._last is None or self._waiting_since is None:
            return False
        return self._head - self._waiting_since >= max(1, self._last.promise_blocks // URGENT)

    def _due(self, last: float | None, every_s: float) -> bool:
        return last is None or self.clock() - last >= every_s

    def _note(self, checkpoint: Checkpoint) -> None:
        """The file beside the tiles, after the tiles."""
        if checkpoint.size in (0, self._noted):
            return
        self.log.publish(checkpoint.size)
        write_durably(self.log.folder / note.PATH, self._signed(checkpoint))
        reached(Point.SERVE_CHECKPOINT)
        self._noted = checkpoint.size

    def _signed(self, checkpoint: Checkpoint) -> bytes:
        signature = self.guard.sign(self.key, self.identity.domain, checkpoint, ())
        return note.encode_note(self.identity.domain, self.key.address, checkpoint, signature)

    def _publish(self, now: bool) -> None:
        signed = self.guard.last(self.identity.domain, self.key.address)
        last = self.publisher.last
        if signed is None or (last is not None and last.size == signed.size):
            return
        if now or self._due(self._published_at, self.rhythm.publish_s):
            published = self.publisher.publish(signed, self._signed(signed))
            self._published_at = self.clock()
            self.told.info("published", size=published.size, cid=published.cid)

    # ---- what it looks like

    def _tell(self) -> None:
        size, anchored = self.log.size, self._last.size if self._last else 0
        published = self.publisher.last
        facts: dict[str, Any] = {"late_blocks": 0, "oldest_due_block": None, "behind_s": 0}
        if anchored == size:
            self._behind_since = None
        else:
            oldest = Entry.decode(self.log.tree(size).entry(anchored))
            self._behind_since = self.clock() if self._behind_since is None else self._behind_since
            facts = {
                "oldest_due_block": oldest.due_block,
                "late_blocks": max(0, self._head - oldest.due_block),
                "behind_s": round(self.clock() - self._behind_since),  # also while nobody says how many blocks it is
            }
        self.meter.anchored(
            head=self._head,
            size=size,
            anchored=anchored,
            published=published.size if published else 0,
            forked=self._last is not None and self._last.fork_block != 0,
            waiting=dict(self._shown),
            **facts,
        )


def standing(chain: ChainPort, head: int, server: LogServer, auditors: tuple[bytes, ...]) -> Standing:
    """What the scribe has to know of the chain. Raises KeyInvalid for an auditor's key that nobody may encrypt to."""
    readers = tuple(Auditor(address, chain.auditor_key(address)) for address in auditors)
    return Standing(head, server.promise_blocks, readers)


def check_continues(log: LogStore, server: LogServer) -> None:
    """Raises LogForked unless what is anchored is the beginning of this log."""
    if server.size > log.size or (server.size and log.tree(server.size).root() != server.root):
        raise LogForked(
            f"the {server.size} entries that are anchored for this key are not the first ones of {log.folder}: another "
            "machine writes with it, or this folder is of another server"
        )


def enrol(chain: ChainPort, key: Key, auditors: tuple[bytes, ...], promise_blocks: int, sender: Sender) -> bool:
    """One step towards being a server whose auditors are named; True when it is done. Raises LocalFault, WireFault."""
    if not auditors:
        raise LocalFault("log.auditors is empty: nobody could look into the records; name at least one")
    for address in auditors:
        if not any(chain.auditor_key(address)):
            raise LocalFault(f"0x{address.hex()} has registered no key as an auditor; ask it to, or take it out")
    try:
        server = chain.log_server(key.address)
    except ContractRefused as refused:
        if refused.name != "UnknownServer":
            raise
        sender.ensure("register", Register(promise_blocks), Point.SERVE_REGISTER_INTENT)
        sender.pump()
        return False
    if server.auditors != auditors_digest(auditors):
        name = f"auditors-{auditors_digest(auditors)[:8].hex()}-{chain.nonce(key.address)}"
        sender.ensure(name, NameAuditors(auditors), Point.SERVE_AUDITORS_INTENT)
        sender.pump()
        return chain.log_server(key.address).auditors == auditors_digest(auditors)
    return True
