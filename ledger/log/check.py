"""fsck of a server's log, wherever it is kept: every root rebuilt from the entries, every entry and record looked at.

    tiles         each tile of hashes is that of the entries below it
    checkpoints   each anchored checkpoint has the root of that many entries: so each continues the one before it
    entries       each entry decodes, is of this log and in its place, may promise what it promises, and its record is
                  there, with the digest that the entry names, sealed to the auditors that the server had named
    deadline      each entry was covered by the block that it promises
    conduct       what the chain holds against the server

The records' contents are for the auditors (ledger.log.replaying).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from ledger import canonical
from ledger.log.follower import LogReplay
from ledger.log.history import Hosted
from ledger.log.inclusion import LogReport
from ledger.log.reader import LogReader
from ledger.log.receipt import Entry, ReceiptRefused
from ledger.log.records import Outcome
from ledger.log.sealing import recipients
from ledger.log.tree import fsck
from ledger.report import Link, Name, failed, missing, passed
from proofs.errors import LocalFault, PeerFault, WireFault

MAX_FLAWS: Final = 20  # shown of each kind
PARTS: Final = (Name.TILES, Name.CHECKPOINTS, Name.ENTRIES, Name.DEADLINE)


class NoSuchServer(LocalFault):
    """Nobody with this address registered; or several did, and none was named."""


def host_of(found: LogReplay, server: bytes | None) -> Hosted:
    """The server that was named, or the only one. Raises NoSuchServer."""
    hosts = found.history.servers
    if server is None:
        if len(hosts) != 1:
            raise NoSuchServer(f"{len(hosts)} servers are registered: name one with --server")
        return next(iter(hosts.values()))
    if server not in hosts:
        raise NoSuchServer(f"0x{server.hex()} never registered as a server")
    return hosts[server]


def check_log(found: LogReplay, host: Hosted, chain: tuple[Link, ...], reader: LogReader) -> LogReport:
    """Over the entries that are anchored."""
    told = {"server": "0x" + host.address.hex(), "size": host.size, "checkpoints": len(host.points)}
    entries = _Entries(found, host, reader)
    try:
        for flaw in fsck(reader.tile, host.size, host.roots, each=entries.look):
            entries.add(Name.TILES if flaw.path else Name.CHECKPOINTS, flaw.text)
        links = tuple(entries.link(name, host) for name in PARTS)
    except WireFault as error:
        links = tuple(missing(name, f"{reader.where}: {error}") for name in PARTS)
    return LogReport("fsck", found.anchor, (*links, conduct_link(host, found.head.number), *chain), told)


def conduct_link(host: Hosted, head: int) -> Link:
    """Read with the server's log in hand: what others have proven against it."""
    counts = {outcome.name: host.count(outcome, head) for outcome in (Outcome.OPEN, Outcome.ANSWERED, Outcome.OMITTED)}
    late = sum(report.event.late for report in host.reports.values())
    data = {"reports": len(host.reports), "late": late, **{name.lower(): count for name, count in counts.items()}}
    if host.forked is not None:
        kind = type(host.forked.event).__name__
        return failed(Name.CONDUCT, f"two histories, both signed: {kind} in block {host.forked.block_number}", **data)
    text = f"{len(host.reports)} omissions reported: {counts['ANSWERED']} answered, {counts['OPEN']} open, "
    text += f"{counts['OMITTED']} never answered, {late} of them late"
    if counts["OMITTED"] or late:
        return failed(Name.CONDUCT, text, **data)
    return passed(Name.CONDUCT, text, **data)


@dataclass
class _Entries:
    """What is wrong, by the link that it is for; of each, the first few in words and how many there are."""

    found: LogReplay
    host: Hosted
    reader: LogReader
    flaws: dict[Name, list[str]] = field(default_factory=dict)
    counts: dict[Name, int] = field(default_factory=dict)
    seen: int = 0

    def add(self, name: Name, text: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1
        if self.counts[name] <= MAX_FLAWS:
            self.flaws.setdefault(name, []).append(text)

    def look(self, index: int, data: bytes) -> None:
        """At one entry, as fsck comes by it."""
        self.seen += 1
        try:
            entry = Entry.decode(data)
        except ReceiptRefused as error:
            self.add(Name.ENTRIES, f"entry {index}: {error}")
            return
        for problem in (*self._wrong(index, entry), *self._record(index, entry)):
            self.add(Name.ENTRIES, f"entry {index}: {problem}")
        covering = self.host.covering(index)
        if covering is not None and covering.block > entry.due_block:
            self.add(Name.DEADLINE, f"entry {index}: promised by block {entry.due_block}, covered in {covering.block}")

    def _wrong(self, index: int, entry: Entry) -> Iterator[str]:
        if entry.domain != self.found.history.domain or entry.server != self.host.address:
            yield f"it is of the log of 0x{entry.server.hex()} on chain {entry.chain_id}, 0x{entry.contract.hex()}"
        if entry.sequence != index:
            yield f"it calls itself {entry.sequence}"
        if not entry.issued_block < entry.due_block <= entry.issued_block + self.host.promise_blocks:
            yield f"issued at block {entry.issued_block}, it promises block {entry.due_block}"

    def _record(self, index: int, entry: Entry) -> Iterator[str]:
        sealed = self.reader.record(index)
        if sealed is None:
            yield "its record is not there"
        elif canonical.digest(sealed) != entry.sealed:
            yield f"its record has the digest {canonical.digest(sealed).hex()}, it names {entry.sealed.hex()}"
        else:
            yield from self._sealed(entry, sealed)

    def _sealed(self, entry: Entry, sealed: bytes) -> Iterator[str]:
        """To one of the lists of auditors that were in force while it was promised, each by a key of its own."""
        promised, keys_of = (entry.issued_block, entry.due_block), self.found.history.keys_of
        try:
            to = {to.address for to in recipients(sealed) if to.key in keys_of(to.address, *promised)}
        except PeerFault as error:
            yield f"its record: {error}"
            return
        lists = [set(named) for named in self.host.lists(*promised)]
        if lists and all(not named <= to for named in lists):
            absent = sorted("0x" + address.hex() for address in lists[-1] - to)
            yield f"its record is not sealed to {', '.join(absent)}, whom the server had named"

    def link(self, name: Name, host: Hosted) -> Link:
        shown, count = self.flaws.get(name, []), self.counts.get(name, 0)
        if not count and self.seen < host.size:
            return missing(name, f"{self.seen} of {host.size} entries could be read, and nothing is wrong with them")
        if not count:
            return passed(name, f"{_good(name)}: {host.size} entries, {len(host.points)} checkpoints")
        more = f"; and {count - len(shown)} more" if count > len(shown) else ""
        return failed(name, "; ".join(shown) + more, flaws=shown, count=count)


def _good(name: Name) -> str:
    return {
        Name.TILES: "every hash is rebuilt from the entries",
        Name.CHECKPOINTS: "every anchored root is rebuilt, and each continues the one before it",
        Name.ENTRIES: "each decodes, in its place, its record beside it",
        Name.DEADLINE: "each was covered by the block that it promises",
    }[name]
