"""A watchtower over one server's log: what was seen anywhere is kept, durably, and compared with all that comes.

Every signed checkpoint counts, wherever it was shown: on the chain, at the server's URL, in the content store, in
somebody's copy. Alarms:

    FORK        two roots signed for one size: evidence (reportFork)
    REWRITE     a root signed that the anchored log contradicts: evidence (reportRewrite)
    DIVERGED    a checkpoint that is signed and does not continue the anchored one: evidence once the log has passed it
    SHRUNK      a place shows fewer entries than it did
    LATE        entries that are promised by a block that has passed, and not anchored
    AUDITORS    an auditor whom the server had named was dropped: it may not be able to open what is answered since
    SHUT        records that an auditor who is watched for cannot open
    OMISSION    a receipt at hand that is not kept: evidence (reportOmission); or one that others reported
    CHAIN       what the node shows of the chain contradicts itself
    DAMAGED     tiles that are not those of the checkpoint beside them
    UNREADABLE  a place that did not answer: nothing is known to be wrong
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from ledger.audit_blocks import WALK, Walk
from ledger.log.access import dropped, ranges, read_sealed, why_shut
from ledger.log.actions import LogAction, ReportFork, ReportRewrite
from ledger.log.check import conduct_link, host_of
from ledger.log.follower import LogReplay, LogSource, settled_log
from ledger.log.history import Hosted, Point
from ledger.log.inclusion import LogReport, Standing, Verified, settle
from ledger.log.kept import Kept
from ledger.log.memory import Memory, Of, Sight
from ledger.log.reader import Blocks, ContentFiles, LogReader
from ledger.log.receipt import Entry
from ledger.log.statements import Checkpoint
from ledger.log.tree import TileTree
from ledger.report import Link, Status
from proofs.errors import PeerFault, WireFault
from proofs.merkle import EMPTY_ROOT, check_consistency, check_inclusion, leaf_hash

MAX_ENTRIES: Final = 1 << 12  # of those not anchored yet, read in one look
MAX_SIGHTS: Final = 1 << 8  # compared with the anchored log in one look; what is settled is compared no more
MAX_RECORDS: Final = 1 << 10  # of anchored entries, looked at for an auditor in one look
MAX_DROPPED: Final = 20  # told one by one
MISSING: Final = "the record could not be had"


class Kind(StrEnum):
    FORK = "FORK"
    REWRITE = "REWRITE"
    DIVERGED = "DIVERGED"
    SHRUNK = "SHRUNK"
    LATE = "LATE"
    AUDITORS = "AUDITORS"
    SHUT = "SHUT"
    OMISSION = "OMISSION"
    CHAIN = "CHAIN"
    DAMAGED = "DAMAGED"
    UNREADABLE = "UNREADABLE"


@dataclass(frozen=True)
class Alarm:
    """action: what makes it evidence on the chain, where that is possible."""

    kind: Kind
    text: str
    action: LogAction | None = None

    @property
    def status(self) -> Status:
        return Status.NOT_PROVEN if self.kind is Kind.UNREADABLE else Status.FAIL

    def to_json(self) -> dict[str, Any]:
        report = type(self.action).__name__ if self.action else None
        return {"alarm": self.kind.value, "status": self.status.value, "text": self.text, "report": report}


@dataclass
class Watchtower:
    """blocks: a content store, where what a server says that it published is looked at too. auditors: addresses, for
    whom every record is looked at; with none, whoever was named is watched for on the chain alone. A look goes on from
    the last one that found nothing wrong with the chain, so that it costs what is new."""

    source: LogSource
    memory: Memory
    server: bytes | None = None
    first_block: int = 0
    blocks: Blocks | None = None
    walk: Walk = WALK
    auditors: tuple[bytes, ...] = ()
    _before: LogReplay | None = None
    _remembered: tuple[Hosted | None, int] = (None, 0)

    def look(self, readers: Sequence[LogReader], receipts: Sequence[Kept] = ()) -> list[Alarm]:
        """One look at everything. readers: the same log from several places. receipts: what users left here to be
        watched over. Raises WireFault for a chain that cannot be read, check.NoSuchServer."""
        found, chain = self._settled()
        host = host_of(found, self.server)
        alarms = [
            Alarm(Kind.CHAIN if link.status is Status.FAIL else Kind.UNREADABLE, f"{link.name}: {link.evidence}")
            for link in chain
            if link.status is Status.FAIL or link.missing
        ]
        of = (str(found.history.domain.chain_id), found.history.domain.contract, host.address)
        self._anchored(of, host)
        for reader in readers:
            alarms += self._at(of, found, host, reader)
            alarms += self._published(of, found, host, reader)
        alarms += forks(host, self.memory.doubled(of, MAX_SIGHTS))
        alarms += self._rewrites(of, host, readers)
        alarms += drops(host, self.auditors)
        for auditor in self.auditors:
            alarms += self._access(of, found, host, readers, auditor)
        alarms += omissions(found, host, readers, receipts)
        return list(dict.fromkeys(alarms))

    def _settled(self) -> tuple[LogReplay, tuple[Link, ...]]:
        before, self._before = self._before, None  # it grows with what follows, so it is used once
        found, chain = settled_log(self.source, self.first_block, walk=self.walk, since=before)
        if not any(link.status is Status.FAIL or link.missing for link in chain):
            self._before = found
        return found, chain

    def _anchored(self, of: Of, host: Hosted) -> None:
        """Remembers checkpoints that are new on the chain; after a reorganisation, the whole history is."""
        before, count = self._remembered
        fresh = host.points[count:] if host is before else host.points
        if fresh or host is not before:
            sights = (Sight(point.checkpoint, point.signature, f"the chain, block {point.block}") for point in fresh)
            self.memory.anchor(of, sights, host.roots)
        self._remembered = host, len(host.points)

    def _at(self, of: Of, found: LogReplay, host: Hosted, reader: LogReader) -> Iterator[Alarm]:
        """What one place shows."""
        try:
            shown = reader.checkpoint()
        except WireFault as error:
            yield Alarm(Kind.UNREADABLE, str(error))
            return
        except PeerFault as error:
            yield Alarm(Kind.DAMAGED, f"{reader.where}: {error}")
            return
        checkpoint = shown[0] if shown else Checkpoint(0, EMPTY_ROOT)
        if shown:
            self.memory.remember(of, [Sight(*shown, reader.where)])
        before = self.memory.longest(of, reader.where, checkpoint.size)
        if checkpoint.size < before:
            yield Alarm(Kind.SHRUNK, f"{reader.where}: {checkpoint.size} entries, it has shown {before} before")
        if checkpoint.size > host.size:
            yield from _beyond(found, host, reader, checkpoint)

    def _published(self, of: Of, found: LogReplay, host: Hosted, reader: LogReader) -> Iterator[Alarm]:
        """The directory that the place names, with the checkpoint in it."""
        if self.blocks is None:
            return
        try:
            told = reader.published()
            if told is None:
                return
            there = LogReader(ContentFiles(told.cid, self.blocks), reader.domain, reader.server)
            shown = there.checkpoint()
        except WireFault as error:
            yield Alarm(Kind.UNREADABLE, str(error))
            return
        except PeerFault as error:
            yield Alarm(Kind.DAMAGED, f"{told.cid if told else reader.where}: {error}")
            return
        if shown is None or shown[0] != Checkpoint(told.size, told.root):
            yield Alarm(Kind.DAMAGED, f"{told.cid}: not the checkpoint of {told.size} entries that is said to be there")
        yield from self._at(of, found, host, there)

    def _rewrites(self, of: Of, host: Hosted, readers: Sequence[LogReader]) -> Iterator[Alarm]:
        """Signed roots of sizes that the anchored log has passed without stopping there, each compared once."""
        passed = self.memory.unsettled(of, host.roots, MAX_SIGHTS)
        if not passed:
            return
        last, trusted = host.points[-1], _anchored_tree(host.points[-1], readers)
        if trusted is None:
            sizes = ", ".join(str(sight.checkpoint.size) for sight in passed[:8])
            text = f"no place shows the anchored log: checkpoints of {sizes} are not compared with it"
            yield Alarm(Kind.UNREADABLE, text)
            return
        true = []
        try:
            for sight in passed:
                alarm = _rewrite(host, last, trusted, sight)
                if alarm is None:
                    true.append(sight.checkpoint)
                else:
                    yield alarm
        except WireFault as error:
            yield Alarm(Kind.UNREADABLE, str(error))
        except PeerFault as error:
            yield Alarm(Kind.DAMAGED, f"the tiles of the anchored log: {error}")
        self.memory.settle(of, true, host.roots)

    def _access(
        self, of: Of, found: LogReplay, host: Hosted, readers: Sequence[LogReader], auditor: bytes
    ) -> Iterator[Alarm]:
        """Which anchored records this auditor cannot open; new ones, and those that could not be had before."""
        if not readers or not host.points:
            return
        known, first = self.memory.shut_entries(of, auditor), self.memory.looked(of, auditor)
        fresh = range(first, max(first, min(host.size, first + MAX_RECORDS)))
        withheld = [index for index, why in known.items() if why == MISSING and index < host.size]
        again = sorted({*withheld[: MAX_RECORDS // 2], *withheld[-MAX_RECORDS // 2 :]})  # what is kept back hides none
        trees = [(reader, reader.tree(host.size)) for reader in readers]
        seen = {index: _why_shut(found, host, trees, index, auditor) for index in (*again, *fresh)}
        changed = {index: why for index, why in seen.items() if why != known.get(index, "")}
        if fresh or changed:
            self.memory.look(of, auditor, fresh.stop, changed)
        told: dict[str, list[int]] = {}
        for index, why in (known | seen).items():
            told.setdefault(why, []).append(index)
        for why, entries in told.items():
            text = f"of {fresh.stop} entries the auditor 0x{auditor.hex()} cannot open {len(entries)}: {why}"
            kind = Kind.UNREADABLE if why == MISSING else Kind.SHUT
            yield from [Alarm(kind, f"{text}: {ranges(entries)}")] if why else []


def _why_shut(
    found: LogReplay, host: Hosted, trees: Sequence[tuple[LogReader, TileTree]], index: int, auditor: bytes
) -> str:
    """Why the auditor cannot open this record; "" if it can."""
    for reader, tree in trees:
        read = read_sealed(reader, tree, host, index)
        if read is not None:
            try:
                return why_shut(found.history, host, *read, auditor) or ""
            except PeerFault as error:
                return f"it is no sealed record ({type(error).__name__})"
    return MISSING


def drops(host: Hosted, auditors: Sequence[bytes]) -> Iterator[Alarm]:
    """Auditors whom the server named, and then no more; of these only, if any are given."""
    found = list(dropped(host, auditors))
    for one in found[:MAX_DROPPED]:
        yield Alarm(Kind.AUDITORS, f"{one.text}: what is answered meanwhile it may not be able to open")
    if len(found) > MAX_DROPPED:
        yield Alarm(Kind.AUDITORS, f"auditors were dropped {len(found)} times, the last in block {found[-1].block}")


def _beyond(found: LogReplay, host: Hosted, reader: LogReader, shown: Checkpoint) -> Iterator[Alarm]:
    """Entries that are signed for and not anchored: do they continue the log, and are they still in time?"""
    tree = reader.tree(shown.size)
    old, old_root = (host.size, host.points[-1].root) if host.points else (0, EMPTY_ROOT)
    try:
        if tree.root() != shown.root:
            yield Alarm(Kind.DAMAGED, f"{reader.where}: its tiles are not those of its checkpoint of {shown.size}")
            return
        there = tree.root(old) if old else EMPTY_ROOT
        check_consistency(old, there, shown.size, shown.root, tree.consistency(old))
        if there != old_root:
            text = f"its checkpoint of {shown.size} does not continue the {old} anchored entries: there the first {old}"
            yield Alarm(Kind.DIVERGED, f"{reader.where}: {text} have the root {there.hex()}")
            return
        yield from _late(found, host, reader, tree, shown)
    except WireFault as error:
        yield Alarm(Kind.UNREADABLE, str(error))
    except PeerFault as error:
        yield Alarm(Kind.DAMAGED, f"{reader.where}: {error}")


def _late(found: LogReplay, host: Hosted, reader: LogReader, tree: TileTree, shown: Checkpoint) -> Iterator[Alarm]:
    """Only what a path binds to the signed root counts: whoever carries the files may have changed an entry. Raises
    InclusionInvalid."""
    head = found.head.number
    last = min(tree.size, host.size + MAX_ENTRIES)
    entries = dict(tree.entries(host.size, last))
    due = {index: Entry.decode(entry).due_block for index, entry in entries.items()}
    late = [index for index, block in due.items() if block < head]
    for index in late:
        check_inclusion(leaf_hash(entries[index]), index, shown.size, tree.inclusion(index), shown.root)
    if late:
        first = late[0]
        text = f"entry {first} was promised by block {due[first]}, the head is {head}, {host.size} are anchored"
        yield Alarm(Kind.LATE, f"{reader.where}: {text}; {len(late)} entries are late")


def forks(host: Hosted, sights: Sequence[Sight]) -> Iterator[Alarm]:
    """Two roots for one size, seen anywhere."""
    for size, group in itertools.groupby(sights, key=lambda sight: sight.checkpoint.size):
        one, *others = group
        for other in others:
            action = ReportFork(
                host.address,
                size,
                one.checkpoint.root,
                one.signature,
                other.checkpoint.root,
                other.signature,
            )
            text = f"{size} entries have the root {one.checkpoint.root.hex()} at {one.place}"
            text += f", and {other.checkpoint.root.hex()} at {other.place}; both are signed"
            yield Alarm(Kind.FORK, text, None if host.forked else action)


def _rewrite(host: Hosted, last: Point, trusted: TileTree, sight: Sight) -> Alarm | None:
    """None where the signed root is the anchored log's. Raises PeerFault for tiles that lead nowhere."""
    size, root = sight.checkpoint.size, sight.checkpoint.root
    true_root, proof = trusted.root(size), tuple(trusted.consistency(size))
    check_consistency(size, true_root, last.size, last.root, proof)
    if root == true_root:
        return None
    action = ReportRewrite(host.address, size, root, sight.signature, true_root, proof)
    text = f"{size} entries had the root {true_root.hex()}; signed, and seen at {sight.place}, is {root.hex()}"
    return Alarm(Kind.REWRITE, text, None if host.forked else action)


def _anchored_tree(last: Point, readers: Sequence[LogReader]) -> TileTree | None:
    for reader in readers:
        tree = reader.tree(last.size)
        try:
            if tree.root() == last.root:
                return tree
        except (PeerFault, WireFault):
            continue
    return None


def omissions(
    found: LogReplay, host: Hosted, readers: Sequence[LogReader], receipts: Sequence[Kept]
) -> Iterator[Alarm]:
    """Receipts at hand, and what others reported."""
    conduct = conduct_link(host, found.head.number)
    if conduct.status is Status.FAIL:
        yield Alarm(Kind.FORK if host.forked else Kind.OMISSION, f"on the chain: {conduct.evidence}")
    if conduct.data["open"]:
        yield Alarm(Kind.OMISSION, f"on the chain: {conduct.data['open']} reported omissions wait for an answer")
    for kept in receipts:
        if kept.receipt.entry.server == host.address:
            yield from _omitted(found, host, readers, kept)


def _omitted(found: LogReplay, host: Hosted, readers: Sequence[LogReader], kept: Kept) -> Iterator[Alarm]:
    receipt = kept.receipt
    for reader in readers or (None,):
        standing, links = settle(found, host, receipt, reader)
        if standing is not Standing.UNSETTLED:
            break
    if standing is Standing.OMITTED:
        verified = Verified(standing, LogReport("verify", found.anchor, links), receipt, found.head.number)
        known = receipt.entry.promise.digest(found.history.domain) in host.reports
        reportable = not known and found.head.number > receipt.entry.due_block
        yield Alarm(Kind.OMISSION, links[1].evidence, verified.omission() if reportable else None)
    elif standing is Standing.UNSETTLED:
        wrong = links[0] if links[0].status is Status.FAIL else links[1]
        yield Alarm(Kind.UNREADABLE, f"receipt of entry {receipt.entry.sequence}: {wrong.evidence}")
