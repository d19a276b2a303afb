"""Which records an auditor cannot open, and since when: from the chain, the entry, and the head of the sealed record.

A server seals each record to auditors whom it named on the chain, and may name others at any block. So it can keep an
auditor from answers without breaking a rule: by naming others for a moment. What that auditor can no longer read is
told here; that its seed fits, only opening shows (ledger.log.replaying).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum

from ledger import canonical
from ledger.log.history import Hosted, LogHistory
from ledger.log.reader import LogReader
from ledger.log.receipt import Entry
from ledger.log.sealing import recipients
from ledger.log.tree import TileTree
from ledger.report import Link, Name, failed, missing, passed
from proofs.errors import PeerFault, WireFault
from proofs.merkle import check_inclusion, leaf_hash


class Shut(StrEnum):
    """Why an auditor cannot open a record. The last two are the server's fault by the rules, those before are not."""

    NEVER_NAMED = "the auditor was not named while the answer was promised"
    LIST_CHANGED = "the list of auditors was changed while the answer was promised, and it is sealed past this one"
    LEFT_OUT = "the auditor was named all the while, and it is sealed to others"
    OTHER_KEY = "it is sealed to a key that was not the auditor's while the answer was promised"


@dataclass(frozen=True)
class Dropped:
    """An auditor that was named, and then no more. again: the block in which it was named anew, if it was."""

    auditor: bytes
    named: int
    block: int
    again: int | None

    @property
    def text(self) -> str:
        until = f"until block {self.again}" if self.again is not None else "to this day"
        who = f"0x{self.auditor.hex()}, named since block {self.named}"
        return f"in block {self.block} the server dropped the auditor {who}, {until}"


def dropped(host: Hosted, auditors: Collection[bytes] = ()) -> Iterator[Dropped]:
    """Every time that the server left out an auditor whom it had named; only these, if any are given."""
    since: dict[bytes, int] = {}
    for at, (block, named) in enumerate(host.named):
        for auditor in [one for one in since if one not in named]:
            if not auditors or auditor in auditors:
                later = (found for found, names in host.named[at:] if auditor in names)
                yield Dropped(auditor, since[auditor], block, next(later, None))
            del since[auditor]
        for auditor in named:
            since.setdefault(auditor, block)


def why_shut(history: LogHistory, host: Hosted, entry: Entry, sealed: bytes, auditor: bytes) -> Shut | None:
    """None where the auditor can open it, by the head of the record. sealed: of this entry, by its digest. Raises
    SealInvalid, KeyInvalid for a record that is none."""
    keys = [to.key for to in recipients(sealed) if to.address == auditor]
    if history.keys_of(auditor, entry.issued_block, entry.due_block) & set(keys):
        return None
    if keys:
        return Shut.OTHER_KEY
    lists = list(host.lists(entry.issued_block, entry.due_block))
    named = sum(auditor in auditors for auditors in lists)
    if not named:
        return Shut.NEVER_NAMED
    return Shut.LEFT_OUT if named == len(lists) else Shut.LIST_CHANGED


def access_link(history: LogHistory, host: Hosted, entry: Entry, sealed: bytes | None, auditor: bytes) -> Link:
    """Can this auditor open the record of an entry? sealed: None where it could not be had."""
    who = f"the auditor 0x{auditor.hex()}"
    if sealed is None:
        return missing(Name.RECORD, f"whether {who} can open it is not known: the record could not be had")
    try:
        why = why_shut(history, host, entry, sealed, auditor)
    except PeerFault as error:
        return failed(Name.RECORD, f"{who} cannot open it: {error}")
    if why is None:
        return passed(Name.RECORD, f"sealed to a key of {who}; that it opens, only its key shows (replay)")
    changes = "; ".join(one.text for one in dropped(host, [auditor]))
    return failed(Name.RECORD, f"{who} cannot open it: {why}" + (f"; {changes}" if changes else ""), why=why.name)


def read_sealed(reader: LogReader, tree: TileTree, host: Hosted, index: int) -> tuple[Entry, bytes] | None:
    """An entry and its record, both bound to the anchored root; None where this place does not show them so: whoever
    carries the files may have changed them. tree: of the anchored size, from this reader."""
    last = host.points[-1]
    try:
        data, sealed = tree.entry(index), reader.record(index)
        check_inclusion(leaf_hash(data), index, last.size, tree.inclusion(index), last.root)
        entry = Entry.decode(data)
    except (PeerFault, WireFault):
        return None
    if sealed is None or canonical.digest(sealed) != entry.sealed:
        return None
    return entry, sealed


def ranges(numbers: Collection[int], most: int = 20) -> str:
    """As "0-3, 7, 9-10"; the rest counted."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in runs[:most]]
    more = sum(last - first + 1 for first, last in runs[most:])
    return ", ".join(shown) + (f", and {more} more" if more else "")
