"""An auditor looks into a record: opens it with its key, compares digests, and has the model give the answer again.

Running a model takes the libraries of `node`, which an auditor need not have: whatever replays is found by name, among
the entry points `candor.audit`, and told about in the nouns below. Everything before that happens here.

LocalFault
└── NoReplayer   the extra is not installed
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final, Protocol, cast

from ledger import canonical
from ledger.audit_open import Contents
from ledger.audit_trace import Origin
from ledger.history import History
from ledger.log.follower import LogReplay
from ledger.log.history import Hosted
from ledger.log.inclusion import LogReport
from ledger.log.reader import LogReader
from ledger.log.receipt import Entry, ReceiptRefused, Record, open_record
from ledger.log.sealing import AuditorKey, NotARecipient, SealInvalid
from ledger.report import Link, Name, Status, failed, missing, not_proven, passed
from proofs.errors import LocalFault, PeerFault, WireFault
from proofs.merkle import InclusionInvalid, check_inclusion, leaf_hash

GROUP: Final = "candor.audit"
NOT_RUN: Final = "not run: the entry names a model that no round made final"
REPLAY: Final = "replay"
TEXTS: Final = "texts"


class NoReplayer(LocalFault):
    """Nothing that replays inferences is installed here."""


@dataclass(frozen=True)
class Asked:
    """What is to be replayed. The model is the bundle that the entry names, made final by a round of `history`, which
    was audited, with its files in `contents`. base: where the base model is."""

    entry: Entry
    record: Record
    history: History
    contents: Contents
    base: Path | None


@dataclass(frozen=True)
class Replayed:
    """PASS: the same answer, or within the bounds that `text` states; FAIL: another; NOT PROVEN: nobody can tell."""

    status: Status
    text: str
    data: dict[str, Any] = field(default_factory=dict)


class Replayer(Protocol):
    """Raises PeerFault for a bundle that breaks a rule, WireFault for what cannot be fetched, LocalFault."""

    def __call__(self, asked: Asked) -> Replayed: ...


class TextsFit(Protocol):
    """Are these the tokens of the record's texts, the first `prompt` of them given? Nothing, or what is wrong."""

    def __call__(self, asked: Asked, tokens: Sequence[int], prompt: int | None) -> str: ...


def installed_replayer() -> Replayer:
    """Loaded only here. Raises NoReplayer."""
    return cast(Replayer, _installed(REPLAY))


def installed_texts() -> TextsFit:
    """Likewise."""
    return cast(TextsFit, _installed(TEXTS))


def _installed(name: str) -> Any:
    for found in entry_points(group=GROUP, name=name):
        try:
            return found.load()
        except ImportError as error:
            raise NoReplayer(f"this takes the libraries that run models: {error.name} is missing") from error
    raise NoReplayer("this takes the libraries that run models: install candor with its room `node`")


@dataclass(frozen=True)
class Place:
    """Where the entry stands."""

    found: LogReplay
    host: Hosted
    reader: LogReader


Whose = Callable[[bytes], Origin]
"""Of a bundle's digest, whose model it is, by an audit of the rounds."""
Run = Callable[[Entry, Record, History], Replayed]


def replay_entry(
    at: Place, sequence: int, expected: Entry | None, key: AuditorKey, whose: Whose, run: Run
) -> tuple[Link, ...]:
    """Links inclusion, record and replay, and those of the model: that a round made it final is not taken from a node.
    expected: the entry of a receipt, if there is one. Raises NotARecipient where nobody said that this key would be
    among those who can read, and LocalFault."""
    entry, inclusion = anchored_entry(at, sequence, expected)
    if entry is None:
        return (inclusion,)
    record, opened = opened_record(at, entry, key)
    origin = whose(entry.bundle)
    if record is None:
        return inclusion, opened, *origin.links
    if origin.number is None:
        return inclusion, opened, not_proven(Name.REPLAY, NOT_RUN), *origin.links
    return inclusion, opened, replay_link(entry, record, origin.history, run), *origin.links


def anchored_entry(at: Place, sequence: int, expected: Entry | None) -> tuple[Entry | None, Link]:
    """The entry of the anchored log at this place; None where it cannot be had, or is another than expected."""
    host, reader = at.host, at.reader
    if sequence >= host.size:
        return None, missing(Name.INCLUSION, f"{host.size} entries are anchored, and this is entry {sequence}")
    last, tree = host.points[-1], reader.tree(host.size)
    try:
        data = tree.entry(sequence)
        check_inclusion(leaf_hash(data), sequence, last.size, tree.inclusion(sequence), last.root)
        entry = Entry.decode(data)
    except InclusionInvalid as error:
        return None, missing(Name.INCLUSION, f"{reader.where}: its entry {sequence} is not the anchored one: {error}")
    except ReceiptRefused as error:
        return None, failed(Name.INCLUSION, f"the anchored entry {sequence}: {error}")
    except (PeerFault, WireFault) as error:
        return None, missing(Name.INCLUSION, f"{reader.where}: {error}")
    if (entry.domain, entry.server, entry.sequence) != (at.found.history.domain, host.address, sequence):
        where = f"{entry.sequence} of 0x{entry.server.hex()} on chain {entry.chain_id}, 0x{entry.contract.hex()}"
        return None, failed(Name.INCLUSION, f"the anchored entry {sequence} calls itself {where}")
    if expected is not None and entry != expected:
        return None, failed(Name.INCLUSION, f"the anchored entry {sequence} is another than that of the receipt")
    return entry, passed(
        Name.INCLUSION, f"entry {sequence} of {last.size}, under the root anchored in block {last.block}"
    )


def opened_record(at: Place, entry: Entry, key: AuditorKey) -> tuple[Record | None, Link]:
    """Raises NotARecipient unless this key was promised the record."""
    try:
        sealed = at.reader.record(entry.sequence)
    except WireFault as error:
        return None, missing(Name.RECORD, str(error))
    if sealed is None:
        return None, missing(Name.RECORD, f"{at.reader.where}: it has no record of entry {entry.sequence}")
    if canonical.digest(sealed) != entry.sealed:
        text = f"{at.reader.where}: its record {entry.sequence} is not the one that the entry names"
        return None, missing(Name.RECORD, f"{text}; another copy may do better")
    try:
        record = open_record(entry, sealed, key)
    except NotARecipient:
        if not _promised(at, entry, key):
            raise
        text = "the server named this auditor, and sealed the record to other keys"
        return None, failed(Name.RECORD, text)
    except (ReceiptRefused, SealInvalid, PeerFault) as error:
        return None, failed(Name.RECORD, f"{type(error).__name__}: {error}")
    sizes = f"{len(record.request)} bytes of request, {len(record.response)} of response"
    return record, passed(Name.RECORD, f"opened: {sizes}, with the digests of the entry")


def _promised(at: Place, entry: Entry, key: AuditorKey) -> bool:
    """Had the server named an auditor whose key this was, in every list that was in force? A key that was replaced
    while the entry was promised binds nobody: which one the server saw is not known."""
    promised, history = (entry.issued_block, entry.due_block), at.found.history
    owners = {address for address in history.keys if history.keys_of(address, *promised) == {key.public}}
    lists = list(at.host.lists(*promised))
    return bool(owners and lists) and all(owners & set(named) for named in lists)


def replay_link(entry: Entry, record: Record, history: History, run: Run) -> Link:
    try:
        found = run(entry, record, history)
    except WireFault as error:
        return missing(Name.REPLAY, str(error))
    except PeerFault as error:
        return failed(Name.REPLAY, f"{type(error).__name__}: {error}")
    if found.status is Status.NOT_PROVEN:
        return missing(Name.REPLAY, found.text, **found.data)
    return Link(Name.REPLAY, found.status, found.text, found.data)


def replay_report(at: Place, links: tuple[Link, ...], chain: tuple[Link, ...], sequence: int) -> LogReport:
    told = {"server": "0x" + at.host.address.hex(), "sequence": sequence}
    return LogReport("replay", at.found.anchor, (*links, *chain), told)
