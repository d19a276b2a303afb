"""Reading an export: a chain and a store that consist of one file, so that the same audit runs on it offline.

Trusted in this order: the file's framing and the hash of every block (CAR), the one directory that its root names, the
headers up to the anchor, the receipts below their roots. What then remains is for the reader to do: compare the anchor
(number and hash of the last header, chain id, contract) with a source that he trusts.

    PeerFault
    └── ExportInvalid   the file is not what an export is
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

from eth_utils.crypto import keccak

from ledger import canonical
from ledger.audit_code import check_account
from ledger.canonical import Fields
from ledger.content import varint
from ledger.content.car import CarReader, encode_header, file_chunks
from ledger.content.cid import CID_BYTES, Block, Cid, Codec
from ledger.content.dagpb import DIRECTORY_DATA, Node, decode_node, encode_node
from ledger.content.errors import Attempt, ContentMissing
from ledger.content.reader import Limits, Reader, read_directory
from ledger.content.store import bounded
from ledger.events import TOPICS, decode_log
from ledger.evidence import MAX_LOGS, MAX_RECEIPTS, ReceiptProof, check_chain, check_receipt
from ledger.export import KIND, LENGTH_BYTES, MAX_MANIFEST_BYTES, MAX_SPAN_BLOCKS, unpack_headers
from ledger.headers import MAX_HEADER_BYTES, Header
from ledger.patricia import MAX_NODES
from ledger.ports import UnknownBlock
from ledger.records import Logged
from ledger.report import Anchor
from proofs.errors import LocalFault, PeerFault

MAX_FILE_BYTES: Final = 1 << 36
MAX_BLOCKS: Final = 1 << 19  # twice what the largest file of whole chunks has: the place of each is in memory
MAX_ROUNDS: Final = 1 << 16
MAX_BUNDLES: Final = 1 << 10
MAX_EVENT_RECEIPTS: Final = 1 << 20
NAMES: Final = ["bundles", "configs", "export.json", "headers.bin"]
CHAIN_LIMITS: Final = Limits(
    max_files=2 + MAX_ROUNDS,
    max_file_bytes=MAX_SPAN_BLOCKS * (MAX_HEADER_BYTES + LENGTH_BYTES),
    max_total_bytes=MAX_SPAN_BLOCKS * (MAX_HEADER_BYTES + LENGTH_BYTES) + MAX_MANIFEST_BYTES,
    max_depth=2,
)


class ExportInvalid(PeerFault):
    """The file is not what an export is."""


class BlockFile:
    """The blocks of a CAR, read where they lie; only their places are in memory. Read only."""

    def __init__(self, path: Path) -> None:
        """Reads the whole file once. Raises CarrierLied for a bad CAR, LocalFault if the file cannot be read."""
        self._path = path
        self._places: dict[Cid, tuple[int, int]] = {}
        try:
            with path.open("rb") as file:
                self.roots = self._scan(file)
        except OSError as error:
            raise LocalFault(f"{path}: cannot be read ({type(error).__name__})") from error

    def _scan(self, file: BinaryIO) -> tuple[Cid, ...]:
        reader = CarReader(file_chunks(file), MAX_FILE_BYTES)
        at = len(encode_header(reader.roots))
        for block in reader:
            size = len(block.data)
            at += len(varint.encode(CID_BYTES + size)) + CID_BYTES
            if block.cid in self._places:
                raise ExportInvalid(f"block {block.cid} comes twice")
            if len(self._places) == MAX_BLOCKS:
                raise ExportInvalid(f"more than {MAX_BLOCKS} blocks")
            self._places[block.cid] = (at, size)
            at += size
        self.size_bytes = at
        return reader.roots

    def get_block(self, cid: Cid) -> bytes:
        place = self._places.get(cid)
        if place is None:
            raise ContentMissing(cid, [Attempt(self._path.name, "not in the file")])
        try:
            with self._path.open("rb") as file:
                file.seek(place[0])
                data = file.read(place[1])
        except OSError as error:
            raise LocalFault(f"{self._path}: cannot be read ({type(error).__name__})") from error
        cid.check(data)
        return data

    def get_directory(self, digest: bytes, limits: Limits) -> dict[str, bytes]:
        return read_directory(Cid.directory(digest), self.get_block, limits)

    def get_raw(self, digest: bytes, max_bytes: int) -> bytes:
        return bounded(self.get_block(Cid.raw(digest)), max_bytes)

    def check_reachable(self) -> None:
        """Every block is below the root. Raises ExportInvalid for one that nothing links."""
        seen: set[Cid] = set()
        waiting = [root for root in self.roots if root in self._places]
        while waiting:
            cid = waiting.pop()
            if cid not in seen and cid in self._places:
                seen.add(cid)
                waiting += self._children(cid)
        extra = self._places.keys() - seen
        if extra:
            raise ExportInvalid(f"{len(extra)} blocks that nothing links, {min(extra)} among them")

    def _children(self, cid: Cid) -> list[Cid]:
        """None of a leaf, and none of a block that is no node: a broken bundle may end in one."""
        if cid.codec is Codec.RAW:
            return []
        try:
            return [link.cid for link in decode_node(self.get_block(cid)).links]
        except PeerFault:
            return []


@dataclass(frozen=True)
class FileChain:
    """What an audit asks of a chain, answered from the file. It has no storage to compare with, and no head but the
    anchor. `tx_hash` of its events only tells transactions apart: a receipt does not name its transaction."""

    chain_id: int
    rounds_address: bytes
    round: int
    headers: tuple[Header, ...]
    logs: tuple[Logged, ...]
    federation_address: bytes
    codes: Mapping[bytes, bytes]

    def code(self, address: bytes) -> bytes | None:
        """Proven against the anchor's state root; None if the file has none."""
        return self.codes.get(address)

    @property
    def anchor(self) -> Anchor:
        last = self.headers[-1]
        return Anchor(self.chain_id, self.rounds_address, last.number, last.hash)

    def head(self) -> Header:
        return self.headers[-1]

    def header(self, number: int) -> Header:
        at = number - self.headers[0].number
        if not 0 <= at < len(self.headers):
            raise UnknownBlock(f"block {number} is not in the file")
        return self.headers[at]

    def events(self, first: int, last: int) -> list[Logged]:
        return [logged for logged in self.logs if first <= logged.block_number <= last]

    def latest_round(self) -> int:
        return self.round

    def round_view(self, number: int) -> None:
        return None


@dataclass(frozen=True)
class Exported:
    """An export whose evidence holds; what it says of the rounds is for the audit to find out."""

    chain: FileChain
    store: BlockFile
    absent: tuple[bytes, ...]


def load(path: Path) -> Exported:
    """Raises PeerFault, of one kind or another, when the file is not an export whose evidence holds."""
    try:
        return _load(BlockFile(path))
    except ContentMissing as error:
        raise ExportInvalid(f"incomplete: {error}") from error


def _load(store: BlockFile) -> Exported:
    if len(store.roots) != 1:
        raise ExportInvalid(f"an export has one root, found {len(store.roots)}")
    entries = _entries(store, store.roots[0])
    if list(entries) != NAMES:
        raise ExportInvalid(f"expected the entries {NAMES}, found {list(entries)[:8]}")
    store.check_reachable()
    _check_bundles(_entries(store, entries["bundles"]))
    _check_configs(_entries(store, entries["configs"]))
    manifest = Fields(canonical.decode(_file(store, entries, "export.json"), max_bytes=MAX_MANIFEST_BYTES), "export")
    chain, absent = _chain(manifest, tuple(unpack_headers(_file(store, entries, "headers.bin"))))
    return Exported(chain, store, absent)


def _entries(store: BlockFile, cid: Cid) -> dict[str, Cid]:
    """Name to CID of a directory's entries, in order."""
    if cid.codec is not Codec.DAG_PB:
        raise ExportInvalid(f"{cid} is not a directory")
    node = decode_node(store.get_block(cid))
    names = [link.name for link in node.links]
    if node.data != DIRECTORY_DATA or names != sorted(set(names)):
        raise ExportInvalid(f"{cid} is not a directory in canonical form")
    return {link.name: link.cid for link in node.links}


def _check_bundles(entries: dict[str, Cid]) -> None:
    if len(entries) > MAX_BUNDLES:
        raise ExportInvalid(f"{len(entries)} bundles, at most {MAX_BUNDLES} are allowed")
    for name, cid in entries.items():
        if cid != Cid.directory(cid.digest) or name != cid.digest.hex():
            raise ExportInvalid(f"bundles/{name[:80]} is another bundle than it says")


def _check_configs(entries: dict[str, Cid]) -> None:
    for name, cid in entries.items():
        if cid != Cid.raw(cid.digest) or name != f"{cid.digest.hex()}.json":
            raise ExportInvalid(f"configs/{name[:80]} is another config than it says")


def _file(store: BlockFile, entries: dict[str, Cid], name: str) -> bytes:
    """One file of the root directory through the strict reader, with no more bytes than the export itself has.

    A chunk linked a thousand times is a bomb here: neither headers nor proofs repeat themselves.
    """
    link = next(link for link in decode_node(store.get_block(store.roots[0])).links if link.name == name)
    alone = Block.of(Codec.DAG_PB, encode_node(Node((link,), DIRECTORY_DATA)))
    limits = replace(CHAIN_LIMITS, max_file_bytes=min(CHAIN_LIMITS.max_file_bytes, store.size_bytes))
    reader = Reader(lambda cid: bytes(alone.data) if cid == alone.cid else store.get_block(cid), limits)
    reader.directory(alone.cid)
    return reader.files[name]


def _chain(fields: Fields, headers: tuple[Header, ...]) -> tuple[FileChain, tuple[bytes, ...]]:
    fields.text("kind", one_of=(KIND,))
    chain_id = fields.integer("chain_id", 1, canonical.MAX_INTEGER)
    contract, number = _hex(fields.text("contract"), 20), fields.integer("round", 1, MAX_ROUNDS)
    first = fields.integer("first_block", 0, canonical.MAX_INTEGER)
    anchor = Fields(fields.take("anchor"), "export.anchor")
    _check_headers(headers, first, anchor.integer("number", 0, canonical.MAX_INTEGER), anchor.hex32("hash"))
    anchor.done()
    logs = _logs(fields.array("receipts", max_items=MAX_EVENT_RECEIPTS), headers, contract, number)
    shown = fields.take("accounts")
    federation, codes = _accounts(Fields(shown, "export.accounts"), headers[-1], contract) if shown != {} else (b"", {})
    absent = tuple(_hex(item, 32) for item in fields.array("absent", max_items=MAX_BUNDLES))
    fields.done()
    if not logs or logs[-1].block_number != headers[-1].number:
        raise ExportInvalid(f"the last event of round {number} is not in the last header's block")
    return FileChain(chain_id, contract, number, headers, logs, federation, codes), absent


def _accounts(fields: Fields, anchor: Header, contract: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """(address of Federation, code by address), each proven below the anchor's state root."""
    codes: dict[bytes, bytes] = {}
    for name in ("rounds", "federation"):
        account = Fields(fields.take(name), f"export.accounts.{name}")
        address, code = _hex(account.text("address"), 20), _bytes(account.take("code"))
        proof = [_bytes(node) for node in account.array("proof", max_items=MAX_NODES)]
        account.done()
        check_account(anchor.rlp, address, code, proof)
        codes[address] = code
    fields.done()
    if contract not in codes or len(codes) != 2:
        raise ExportInvalid("the accounts shown are not those of the contract and its federation")
    return next(address for address in codes if address != contract), codes


def _check_headers(headers: tuple[Header, ...], first: int, last: int, digest: bytes) -> None:
    if not 0 < len(headers) <= MAX_SPAN_BLOCKS or headers[0].number != first:
        raise ExportInvalid(f"expected between 1 and {MAX_SPAN_BLOCKS} headers, from block {first} on")
    check_chain(headers)
    if (headers[-1].number, headers[-1].hash) != (last, digest):
        raise ExportInvalid(f"the last header is block {headers[-1].number}, the anchor is another")


def _logs(entries: list[Any], headers: tuple[Header, ...], contract: bytes, number: int) -> tuple[Logged, ...]:
    """The events that the receipts prove, of rounds up to `number`, in the order of the chain."""
    logs: list[Logged] = []
    before = (-1, -1)
    for entry in entries:
        fields = Fields(entry, "export.receipts")
        block = fields.integer("block", headers[0].number, headers[-1].number)
        transaction = fields.integer("transaction", 0, MAX_RECEIPTS - 1)
        if (block, transaction) <= before:
            raise ExportInvalid(f"block {block}, transaction {transaction} is out of order")
        before = (block, transaction)
        nodes = tuple(_bytes(node) for node in fields.array("proof", max_items=MAX_NODES))
        positions = fields.array("logs", max_items=MAX_LOGS)
        fields.done()
        header = headers[block - headers[0].number]
        logs += _events(header, ReceiptProof(block, transaction, nodes), positions, contract)
    return tuple(logged for logged in logs if logged.event.round <= number)


def _events(header: Header, proof: ReceiptProof, positions: list[Any], contract: bytes) -> Iterable[Logged]:
    """All events of the receipt; the file must name each of them, so that none can be left out of a receipt."""
    receipt = check_receipt(header, proof)
    found = [
        at for at, log in enumerate(receipt.logs) if log.address == contract and log.topics and log.topics[0] in TOPICS
    ]
    if receipt.status != 1 or positions != found or not found:
        raise ExportInvalid(
            f"block {header.number}, transaction {proof.tx_index}: its events are logs {found}, the file says otherwise"
        )
    place = b"candor/export-transaction/1\0" + header.number.to_bytes(8, "big") + proof.tx_index.to_bytes(8, "big")
    for at in found:
        event = decode_log(receipt.logs[at].topics, receipt.logs[at].data)
        yield Logged(event, header.number, header.hash, keccak(place), proof.tx_index * MAX_LOGS + at)


def _hex(value: Any, size: int) -> bytes:
    data = _bytes(value)
    if len(data) != size:
        raise ExportInvalid(f"expected {size} bytes of hex, found {len(data)}")
    return data


def _bytes(value: Any) -> bytes:
    if not isinstance(value, str) or not re.fullmatch(r"(?:[0-9a-f]{2})*", value):
        raise ExportInvalid("expected lower-case hex")
    return bytes.fromhex(value)
