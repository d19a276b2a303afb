"""Is a receipt kept? From the receipt alone, then from the chain and the log: NOT YET DUE, INCLUDED or OMITTED.

    offline   the server's key signed it, its promise is one that it may make, the texts are those of the entry
    online    a checkpoint on the chain covers its place, in time; a path from its leaf leads to that checkpoint's root

OMITTED has two shapes, both of which the contract takes as evidence (reportOmission): the block passed and no
checkpoint covers the place, or another leaf is there. Tiles that are withheld prove neither; a report makes the server
show the path on the chain, or be marked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from ledger import canonical
from ledger.audit_blocks import WALK, Walk
from ledger.log.access import access_link
from ledger.log.actions import ReportOmission
from ledger.log.follower import LogReplay, LogSource, settled_log
from ledger.log.history import Hosted, Point
from ledger.log.kept import Kept
from ledger.log.reader import LogReader
from ledger.log.receipt import (
    Owed,
    Receipt,
    ReceiptRefused,
    Record,
    Server,
    check_promise,
    check_texts,
)
from ledger.report import Anchor, Link, Name, Status, failed, missing, not_proven, overall, passed
from proofs.errors import LocalFault, PeerFault, WireFault
from proofs.merkle import InclusionInvalid, check_inclusion

ONLY_RECEIPT: Final = "the texts were not given, so nothing here shows what was asked and answered"


class NothingToReport(LocalFault):
    """The contract would have no evidence: the receipt is kept, not yet due, or not this server's."""


class Standing(StrEnum):
    NOT_YET_DUE = "NOT YET DUE"
    INCLUDED = "INCLUDED"
    OMITTED = "OMITTED"
    UNSETTLED = "NOT PROVEN"


@dataclass(frozen=True)
class LogReport:
    """What a command about a log has to say: links, as of one block, and in `told` what is particular to it."""

    kind: str
    anchor: Anchor
    links: tuple[Link, ...]
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> Status:
        return overall(self.links)

    def find(self, name: Name) -> Link:
        """Raises StopIteration if there is none of this name."""
        return next(link for link in self.links if link.name is name)

    def to_json(self) -> dict[str, Any]:
        links = [link.to_json() for link in self.links]
        return {
            "kind": f"candor/inference/{self.kind}/1",
            "status": self.status.value,
            "anchor": self.anchor.to_json(),
            "links": links,
            **self.told,
        }


@dataclass(frozen=True)
class Verified:
    """A receipt's report, and where it stands."""

    standing: Standing
    report: LogReport
    receipt: Receipt
    head: int

    def omission(self) -> ReportOmission:
        """The evidence, for the contract. Raises NothingToReport."""
        entry = self.receipt.entry
        if self.report.find(Name.RECEIPT).status is not Status.PASS:
            raise NothingToReport("the receipt itself does not hold: the contract would refuse it")
        if self.standing is Standing.INCLUDED:
            raise NothingToReport("the receipt is in the log: there is no omission")
        if self.head <= entry.due_block:
            raise NothingToReport(f"not before block {entry.due_block} has passed; the head is {self.head}")
        return ReportOmission(entry.server, entry.sequence, entry.due_block, entry.leaf, self.receipt.signature)


def verify_receipt(
    source: LogSource,
    kept: Kept,
    reader: LogReader | None,
    *,
    bundle: bytes | None = None,
    first_block: int = 0,
    walk: Walk = WALK,
    auditors: Sequence[bytes] = (),
) -> Verified:
    """bundle: the model that was asked for. reader: None where no place of the log was named. auditors: addresses; for
    each, whether it can open the record. Raises WireFault for a chain that cannot be read."""
    found, chain = settled_log(source, first_block, walk=walk)
    receipt, host = kept.receipt, found.history.servers.get(kept.receipt.entry.server)
    standing, (signed, *placed) = settle(found, host, receipt, reader)
    access = _access(found, host, receipt, reader, auditors)
    links = (signed, texts_link(kept), model_link(receipt, bundle), *placed, *access, *chain)
    entry = receipt.entry
    told = {
        "standing": standing.value,
        "server": "0x" + entry.server.hex(),
        "sequence": entry.sequence,
        "due_block": entry.due_block,
        "bundle": entry.bundle.hex(),
    }
    return Verified(standing, LogReport("verify", found.anchor, links, told), receipt, found.head.number)


def _access(
    found: LogReplay, host: Hosted | None, receipt: Receipt, reader: LogReader | None, auditors: Sequence[bytes]
) -> Iterator[Link]:
    if not auditors or host is None:
        return
    entry = receipt.entry
    try:
        sealed = reader.record(entry.sequence) if reader else None
    except WireFault:
        sealed = None
    if sealed is not None and canonical.digest(sealed) != entry.sealed:
        sealed = None  # whoever carries it may have changed it
    for auditor in auditors:
        yield access_link(found.history, host, entry, sealed, auditor)


# ---- offline, but for what the chain says of the server


def receipt_link(found: LogReplay, host: Hosted | None, receipt: Receipt) -> Link:
    entry = receipt.entry
    if entry.domain != found.history.domain:
        where = f"chain {entry.chain_id}, contract 0x{entry.contract.hex()}"
        return failed(Name.RECEIPT, f"it is for {where}, and this is another")
    if host is None:
        return failed(Name.RECEIPT, f"0x{entry.server.hex()} never registered as a server")
    try:
        server = Server(found.history.domain, host.address, host.promise_blocks)
        check_promise(receipt, server, found.head.number)
    except ReceiptRefused as error:
        return failed(Name.RECEIPT, str(error))
    text = f"signed by 0x{entry.server.hex()}: entry {entry.sequence}, issued at block {entry.issued_block}"
    text += f", promised by block {entry.due_block}"
    if host.forked is not None:
        text += f"; that server was shown in block {host.forked.block_number} to have signed two histories"
    return passed(Name.RECEIPT, text)


def texts_link(kept: Kept) -> Link:
    if kept.request is None or kept.response is None:
        return not_proven(Name.TEXTS, ONLY_RECEIPT)
    receipt = kept.receipt
    try:
        check_texts(receipt.entry, Record(receipt.decoding, receipt.salt, kept.request, kept.response))
    except ReceiptRefused as error:
        return failed(Name.TEXTS, str(error))
    sizes = f"{len(kept.request)} bytes of request, {len(kept.response)} of response"
    return passed(Name.TEXTS, f"{sizes} and the decoding have the entry's salted digests")


def model_link(receipt: Receipt, bundle: bytes | None) -> Link:
    answered = receipt.entry.bundle
    if bundle is None:
        return not_proven(Name.MODEL, f"answered by {answered.hex()}: compare it with what you asked for (--bundle)")
    if bundle != answered:
        return failed(Name.MODEL, f"expected {bundle.hex()}, answered by {answered.hex()}")
    return passed(Name.MODEL, f"answered by {answered.hex()}")


# ---- online


def settle(
    found: LogReplay, host: Hosted | None, receipt: Receipt, reader: LogReader | None
) -> tuple[Standing, tuple[Link, ...]]:
    """Where the receipt stands, with the links receipt, inclusion and deadline. A bad one accuses nobody."""
    signed = receipt_link(found, host, receipt)
    if host is None or signed.status is not Status.PASS:
        text = "not looked for: the receipt itself does not hold"
        return Standing.UNSETTLED, (signed, not_proven(Name.INCLUSION, text), not_proven(Name.DEADLINE, text))
    standing, links = _place(found, host, receipt, reader)
    return standing, (signed, *links)


def _place(
    found: LogReplay, host: Hosted, receipt: Receipt, reader: LogReader | None
) -> tuple[Standing, tuple[Link, Link]]:
    entry, head = receipt.entry, found.head.number
    covering = host.covering(entry.sequence)
    if covering is None and head <= entry.due_block:
        waiting = f"{host.size} entries are anchored; due by block {entry.due_block}, the head is {head}"
        return Standing.NOT_YET_DUE, (missing(Name.INCLUSION, waiting), missing(Name.DEADLINE, waiting))
    if covering is None:
        text = f"block {entry.due_block} has passed, and of {host.size} anchored entries none is entry {entry.sequence}"
        return Standing.OMITTED, (failed(Name.INCLUSION, text), failed(Name.DEADLINE, text))
    standing, link = _included(host.points[-1], receipt, reader)
    return standing, (link, deadline_link(covering, entry.sequence, entry.due_block))


def _included(last: Point, receipt: Receipt, reader: LogReader | None) -> tuple[Standing, Link]:
    """Under the last checkpoint, as the contract would ask for it."""
    entry = receipt.entry
    if reader is None:
        text = f"{last.size} entries are anchored, and no place of the log was named (--log)"
        return Standing.UNSETTLED, missing(Name.INCLUSION, text)
    try:
        tree = reader.tree(last.size)
        path, leaf = tree.inclusion(entry.sequence), tree.leaf(entry.sequence)
    except (PeerFault, WireFault) as error:
        return Standing.UNSETTLED, missing(Name.INCLUSION, f"{reader.where}: {error}")
    data = {"size": last.size, "root": last.root.hex(), "path": [item.hex() for item in path]}
    try:
        Owed(entry.promise).settle(last.size, last.root, path)
    except ReceiptRefused:
        return _elsewhere(last, receipt, reader, leaf, path)
    text = f"entry {entry.sequence} of {last.size}: its path of {len(path)} hashes leads to the root anchored in block"
    return Standing.INCLUDED, passed(Name.INCLUSION, f"{text} {last.block}", **data)


def _elsewhere(
    last: Point, receipt: Receipt, reader: LogReader, leaf: bytes, path: list[bytes]
) -> tuple[Standing, Link]:
    """Another leaf is there, which its own path shows; or the tiles are not those of the anchored log at all."""
    sequence = receipt.entry.sequence
    try:
        check_inclusion(leaf, sequence, last.size, path, last.root)
    except InclusionInvalid as error:
        text = f"{reader.where}: its tiles are not those of the anchored root ({error}); another copy may do better"
        return Standing.UNSETTLED, missing(Name.INCLUSION, text)
    text = f"at place {sequence} of the anchored log stands the leaf {leaf.hex()}, not {receipt.entry.leaf.hex()}"
    return Standing.OMITTED, failed(Name.INCLUSION, text)


def deadline_link(covering: Point, sequence: int, due_block: int) -> Link:
    text = f"entry {sequence} was promised by block {due_block}, and first covered in block {covering.block}"
    if covering.block > due_block:
        return failed(Name.DEADLINE, f"{text}: {covering.block - due_block} blocks late")
    return passed(Name.DEADLINE, text)
