"""What the events of AuditLog amount to, and the law for them: one that the contract would not have written is refused.

A node that invents an event breaks a rule here, a signature or a receipts root (ledger.log.follower); one that hides an
event is found by what comes after it, by the contract's own counters, or by a bloom. What no event holds is the proof
that a checkpoint continues the one before it: that is recomputed from the tiles (ledger.log.check).

PeerFault
└── LogRuleBroken   `.rule` says which rule
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeVar

from ledger.eip712 import Domain, SignatureInvalid
from ledger.log.records import (
    Anchored,
    AuditorRegistered,
    AuditorsNamed,
    Checkpointed,
    Forked,
    LogServer,
    OmissionAnswered,
    OmissionReported,
    Outcome,
    Rewritten,
    ServerRegistered,
    auditors_digest,
)
from ledger.log.sealing import Auditor, KeyInvalid
from ledger.log.statements import Checkpoint, Promise, Statement, signer
from proofs.errors import PeerFault
from proofs.merkle import ConsistencyInvalid, check_consistency

MAX_AUDITORS: Final = 16
NO_DIGEST: Final = bytes(32)


class LogRule(StrEnum):
    """Each value says what an event must be."""

    ORDER = "after the one before it"
    SERVER = "of a server that has registered, once"
    AUDITORS = "about at most 16 auditors that have registered keys"
    GROWS = "a checkpoint of more entries than the last"
    SIGNATURE = "with the server's signature on what it says"
    DUE = "a report of a promise whose block has passed, made once"
    TERMS = "with the lateness and the time to answer that follow from its block"
    ANSWER = "an answer to an open report, in time, of a leaf that is covered"
    FORK = "the first proof of two histories, and a proof"


class LogRuleBroken(PeerFault):
    """An event that the contract would not have written."""

    def __init__(self, rule: LogRule, found: str) -> None:
        self.rule = rule
        super().__init__(f"{rule.name}: it must be {rule.value}; {found}")


@dataclass(frozen=True)
class Point:
    """A checkpoint, and the block from which on it was on the chain."""

    size: int
    root: bytes
    signature: bytes
    block: int

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.size, self.root)


@dataclass
class Report:
    """An omission that somebody reported. answered: in which block, if at all."""

    event: OmissionReported
    block: int
    answered: int | None = None

    def outcome(self, head: int) -> Outcome:
        if self.answered is not None:
            return Outcome.ANSWERED
        return Outcome.OPEN if head <= self.event.answer_by else Outcome.OMITTED


T = TypeVar("T")


def in_force(told: Sequence[tuple[int, T]], first: int, last: int) -> Iterator[T]:
    """What stood at the end of one of these blocks; told: (block, what), ascending, each until the next."""
    for at, (block, found) in enumerate(told):
        ends = told[at + 1][0] if at + 1 < len(told) else last + 1
        if block <= last and ends > max(first, block):
            yield found


@dataclass
class Hosted:
    """One server. named: (block, auditors), each list in force until the next. reports: by the promise's digest."""

    address: bytes
    promise_blocks: int
    registered: int
    points: list[Point] = field(default_factory=list)
    named: list[tuple[int, tuple[bytes, ...]]] = field(default_factory=list)
    reports: dict[bytes, Report] = field(default_factory=dict)
    forked: Anchored | None = None

    @property
    def last(self) -> Point | None:
        return self.points[-1] if self.points else None

    @property
    def size(self) -> int:
        return self.points[-1].size if self.points else 0

    @property
    def roots(self) -> dict[int, bytes]:
        return {point.size: point.root for point in self.points}

    def covering(self, sequence: int) -> Point | None:
        """The first checkpoint that has this entry under it."""
        low, high = 0, len(self.points)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self.points[middle].size <= sequence else (low, middle)
        return self.points[low] if low < len(self.points) else None

    def lists(self, first: int, last: int) -> Iterator[tuple[bytes, ...]]:
        """Every list of auditors that was in force at the end of one of these blocks."""
        return in_force(self.named, first, last)

    def count(self, outcome: Outcome, head: int) -> int:
        return sum(report.outcome(head) is outcome for report in self.reports.values())

    def stored(self) -> LogServer:
        """What the contract must hold of it."""
        answers = sum(report.answered is not None for report in self.reports.values())
        fork_block = self.forked.block_number if self.forked else 0
        root = self.points[-1].root if self.points else NO_DIGEST
        auditors = auditors_digest(self.named[-1][1]) if self.named else NO_DIGEST
        return LogServer(self.size, self.promise_blocks, len(self.reports), answers, fork_block, root, auditors)


class LogHistory:
    """Every server's. `take` changes nothing when it refuses."""

    def __init__(self, domain: Domain, answer_blocks: int) -> None:
        self.domain = domain
        self.answer_blocks = answer_blocks
        self.servers: dict[bytes, Hosted] = {}
        self.keys: dict[bytes, list[tuple[int, bytes]]] = {}  # of auditors: (block, X25519 key)
        self._last = (-1, -1)

    def auditor(self, address: bytes) -> Auditor | None:
        """With the key that it registered last; None where there is none, or one that nobody should encrypt to."""
        try:
            return Auditor(address, self.keys[address][-1][1])
        except (KeyError, KeyInvalid):
            return None

    def keys_of(self, auditor: bytes, first: int, last: int) -> set[bytes]:
        """Every key of this auditor that was in force at the end of one of these blocks: one that was replaced before
        opens nothing that comes after."""
        return set(in_force(self.keys.get(auditor, ()), first, last))

    def take(self, at: Anchored) -> None:
        """One more event. Raises LogRuleBroken."""
        place = (at.block_number, at.log_index)
        _require(LogRule.ORDER, place > self._last, f"block {place[0]}, log {place[1]}")
        match at.event:
            case ServerRegistered(server, promise_blocks):
                _require(LogRule.SERVER, server not in self.servers and promise_blocks > 0, f"0x{server.hex()}")
                self.servers[server] = Hosted(server, promise_blocks, at.block_number)
            case AuditorRegistered(auditor, key):
                _require(LogRule.AUDITORS, key != NO_DIGEST, f"the key of 0x{auditor.hex()} is zero")
                self.keys.setdefault(auditor, []).append((at.block_number, key))
            case AuditorsNamed(server, auditors):
                known = len(auditors) <= MAX_AUDITORS and all(auditor in self.keys for auditor in auditors)
                _require(LogRule.AUDITORS, known, f"{len(auditors)} are named")
                self._server(server).named.append((at.block_number, auditors))
            case Checkpointed():
                self._checkpointed(at.event, at.block_number)
            case OmissionReported():
                self._reported(at.event, at.block_number)
            case OmissionAnswered():
                self._answered(at.event, at.block_number)
            case Forked() | Rewritten():
                self._forked(at.event, at)
        self._last = place

    def _server(self, address: bytes) -> Hosted:
        found = self.servers.get(address)
        if found is None:
            raise LogRuleBroken(LogRule.SERVER, f"0x{address.hex()} never registered")
        return found

    def _signed(self, server: bytes, statement: Statement, signature: bytes) -> None:
        try:
            found = signer(self.domain, statement, signature)
        except SignatureInvalid as error:
            raise LogRuleBroken(LogRule.SIGNATURE, str(error)) from error
        _require(LogRule.SIGNATURE, found == server, f"0x{found.hex()} signed for 0x{server.hex()}")

    def _checkpointed(self, event: Checkpointed, block: int) -> None:
        server = self._server(event.server)
        _require(LogRule.GROWS, event.size > server.size, f"{event.size} entries after {server.size}")
        self._signed(event.server, Checkpoint(event.size, event.root), event.signature)
        server.points.append(Point(event.size, event.root, event.signature, block))

    def _reported(self, event: OmissionReported, block: int) -> None:
        server = self._server(event.server)
        promise = Promise(event.sequence, event.due_block, event.leaf)
        digest = promise.digest(self.domain)
        due = block > event.due_block and digest not in server.reports
        _require(LogRule.DUE, due, f"due at {event.due_block}, reported in block {block}")
        expected = (server.size <= event.sequence, block + self.answer_blocks)
        _require(LogRule.TERMS, (event.late, event.answer_by) == expected, f"late: {event.late}, by {event.answer_by}")
        self._signed(event.server, promise, event.signature)
        server.reports[digest] = Report(event, block)

    def _answered(self, event: OmissionAnswered, block: int) -> None:
        server = self._server(event.server)
        report = server.reports.get(Promise(event.sequence, event.due_block, event.leaf).digest(self.domain))
        if report is None or report.outcome(block) is not Outcome.OPEN or event.sequence >= server.size:
            raise LogRuleBroken(LogRule.ANSWER, f"of entry {event.sequence} of {server.size}, in block {block}")
        report.answered = block

    def _forked(self, event: Forked | Rewritten, at: Anchored) -> None:
        server = self._server(event.server)
        _require(LogRule.FORK, server.forked is None, f"0x{event.server.hex()} is marked already")
        self._signed(event.server, Checkpoint(event.size, event.root), event.signature)
        if isinstance(event, Forked):
            _require(LogRule.FORK, event.root != event.other_root, "both roots are the same")
            self._signed(event.server, Checkpoint(event.size, event.other_root), event.other_signature)
        else:
            _check_rewrite(event, server)
        server.forked = at


def _check_rewrite(event: Rewritten, server: Hosted) -> None:
    last = server.last
    anchored = last is not None and (last.size, last.root) == (event.anchored_size, event.anchored_root)
    _require(LogRule.FORK, anchored and event.root != event.true_root, "it is not about the last checkpoint")
    try:
        check_consistency(event.size, event.true_root, event.anchored_size, event.anchored_root, event.proof)
    except ConsistencyInvalid as error:
        raise LogRuleBroken(LogRule.FORK, str(error)) from error
    _require(LogRule.FORK, event.size > 0, "it is about no entry")


def _require(rule: LogRule, holds: bool, found: str) -> None:
    if not holds:
        raise LogRuleBroken(rule, found)
