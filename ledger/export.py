"""Export: one file with which anybody can audit a round years later, with no chain and no store.

A CAR v1 whose single root is a directory:

    export.json              what the file is: chain id, contract, round, anchor, proofs of receipts and of the code
    headers.bin              the RLP of every header from the first round's opening to the last event of round N
    configs/<digest>.json    the config of every round 1…N
    bundles/<digest>/…       of round N: the global bundle, every submission, the aggregate

A bundle that breaks the format has no valid tree; of it, the blocks on which its refusal rests are taken along, so that
the refusal can be re-run. A bundle that nobody has is left out, and named under `absent`.

    LocalFault
    ├── NotExportable   the round has not ended, or is not there
    └── NotWritable     no such folder, no room, no right
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from ledger import canonical
from ledger.audit_code import ProvesCode, ShowsFederation, check_account
from ledger.content.car import encode_block, encode_header
from ledger.content.cid import Block, Cid
from ledger.content.dagpb import DIRECTORY_DATA, Link, Node, encode_node
from ledger.content.errors import ContentInvalid, ContentMissing
from ledger.content.reader import Fetch, Limits, Reader
from ledger.content.unixfs import Tree, add_bytes, add_directory
from ledger.events import TOPICS
from ledger.evidence import ReceiptInvalid, check_chain, decode_receipt, prove_receipts
from ledger.headers import Header
from ledger.records import Logged
from ledger.report import Anchor
from ledger.rpc import RpcRefused
from proofs.errors import LocalFault, PeerFault

KIND: Final = "candor/export/1"
MAX_SPAN_BLOCKS: Final = 1 << 19
LENGTH_BYTES: Final = 2  # before each header
MAX_MANIFEST_BYTES: Final = 1 << 26


class NotExportable(LocalFault):
    """There is no such round, it has not ended, or the history is too long for one file."""


class NotWritable(LocalFault):
    """The operating system refused to write the file."""


class Receipts(Protocol):
    """What an export needs of a chain; every ChainPort has it."""

    @property
    def chain_id(self) -> int: ...

    @property
    def rounds_address(self) -> bytes: ...

    def header(self, number: int) -> Header: ...

    def receipts(self, number: int) -> list[bytes]: ...


@dataclass(frozen=True)
class Wanted:
    """A bundle to take along, and the limits within which every reader will read it."""

    digest: bytes
    limits: Limits


@dataclass(frozen=True)
class Selection:
    """What goes into the file: the events of rounds 1…`round`, the configs of those rounds, the bundles of the last."""

    round: int
    events: tuple[Logged, ...]
    configs: tuple[bytes, ...]  # canonical bytes
    bundles: tuple[Wanted, ...]


@dataclass(frozen=True)
class Anchored:
    """The root of the file, the header on which its evidence hangs, and the bundles that nobody had."""

    root: Cid
    anchor: Anchor
    absent: tuple[bytes, ...]


def write_export(path: Path, source: Receipts, fetch: Fetch, selection: Selection) -> Anchored:
    """Write the file, whole or not at all. `fetch` gives verified blocks, or raises ContentMissing."""
    taken = _take_bundles(fetch, selection.bundles)
    absent = sorted(wanted.digest for wanted in selection.bundles if wanted.digest not in taken)
    headers, receipts = chain_evidence(source, selection.events)
    anchor = Anchor(source.chain_id, source.rounds_address, headers[-1].number, headers[-1].hash)
    manifest = {
        "kind": KIND,
        "chain_id": source.chain_id,
        "contract": source.rounds_address.hex(),
        "round": selection.round,
        "first_block": headers[0].number,
        "anchor": {"number": anchor.block_number, "hash": anchor.block_hash.hex()},
        "receipts": receipts,
        "accounts": accounts(source, anchor),
        "absent": [digest.hex() for digest in absent],
    }
    blocks: list[Block] = []
    files: Tree = {
        "export.json": _bounded(canonical.encode(manifest)),
        "headers.bin": pack_headers(headers),
        "configs": {f"{canonical.digest(data).hex()}.json": data for data in selection.configs},
    }
    links = [*_links_of(files, blocks.append), _bundles_link(taken, blocks.append)]
    root = _node(sorted(links, key=lambda link: link.name.encode()), blocks.append)
    bundle_cids = dict.fromkeys(cid for _, cids in taken.values() for cid in cids)
    _write(path, root, blocks, (Block(cid, fetch(cid)) for cid in bundle_cids))
    return Anchored(root, anchor, tuple(absent))


def _bounded(manifest: bytes) -> bytes:
    if len(manifest) > MAX_MANIFEST_BYTES:
        raise NotExportable(f"{len(manifest)} bytes of receipts and proofs, at most {MAX_MANIFEST_BYTES} fit an export")
    return manifest


def chain_evidence(source: Receipts, events: Sequence[Logged]) -> tuple[list[Header], list[dict[str, Any]]]:
    """Contiguous headers over the events, and for each transaction with events its receipt's proof, in chain order."""
    if not events:
        raise NotExportable("there are no events to export")
    first, last = events[0].block_number, events[-1].block_number
    if last - first >= MAX_SPAN_BLOCKS:
        raise NotExportable(f"the history spans {last - first + 1} blocks, at most {MAX_SPAN_BLOCKS} fit an export")
    headers = [source.header(number) for number in range(first, last + 1)]
    check_chain(headers)
    shown: list[dict[str, Any]] = []
    for number in sorted({logged.block_number for logged in events}):
        shown += _shown(source, headers[number - first])
    _check_count(shown, len(events))
    return headers, shown


def accounts(source: Receipts, anchor: Anchor) -> dict[str, Any]:
    """Address, code and account proof of both contracts at the anchor; empty where the node has no proof of it."""
    if not isinstance(source, ProvesCode) or not isinstance(source, ShowsFederation):
        return {}
    shown = {}
    for name, address in (("rounds", source.rounds_address), ("federation", source.federation_address)):
        try:
            proof = source.account_proof(address, anchor.block_number)
            code = source.code(address) or b""
            check_account(source.header(anchor.block_number).rlp, address, code, proof)
        except (RpcRefused, PeerFault):
            return {}
        shown[name] = {"address": address.hex(), "code": code.hex(), "proof": [node.hex() for node in proof]}
    return shown


def _shown(source: Receipts, header: Header) -> list[dict[str, Any]]:
    receipts = source.receipts(header.number)
    positions = {index: event_positions(raw, source.rounds_address) for index, raw in enumerate(receipts)}
    wanted = [index for index, found in positions.items() if found]
    return [
        {
            "block": header.number,
            "transaction": proof.tx_index,
            "logs": positions[proof.tx_index],
            "proof": [node.hex() for node in proof.proof],
        }
        for proof in prove_receipts(header, receipts, wanted)
    ]


def event_positions(raw: bytes, contract: bytes) -> list[int]:
    """Which logs of an encoded receipt are events of rounds."""
    logs = decode_receipt(raw).logs
    return [at for at, log in enumerate(logs) if log.address == contract and log.topics and log.topics[0] in TOPICS]


def _check_count(shown: Sequence[dict[str, Any]], events: int) -> None:
    found = sum(len(entry["logs"]) for entry in shown)
    if found < events:
        raise ReceiptInvalid(f"the blocks' receipts hold {found} events, the chain's log has {events}")


def pack_headers(headers: Iterable[Header]) -> bytes:
    return b"".join(len(header.rlp).to_bytes(LENGTH_BYTES, "big") + header.rlp for header in headers)


def unpack_headers(data: bytes) -> Iterator[Header]:
    """Inverse of `pack_headers`. Raises HeaderInvalid or ReceiptInvalid."""
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + LENGTH_BYTES], "big")
        at += LENGTH_BYTES
        if not 0 < size <= len(data) - at:
            raise ReceiptInvalid("headers.bin ends within a header")
        yield Header.parse(data[at : at + size])
        at += size


Taken = dict[bytes, tuple[int, tuple[Cid, ...]]]  # digest -> bytes of the tree, its blocks


def _take_bundles(fetch: Fetch, bundles: Iterable[Wanted]) -> Taken:
    """The blocks that reading each bundle needs, also when the reading ends in a refusal."""
    taken: Taken = {}
    for wanted in bundles:
        touched: dict[Cid, None] = {}
        root = Cid.directory(wanted.digest)
        try:
            size = Reader(_recording(fetch, touched), wanted.limits, keep=False).directory(root)
        except ContentInvalid:
            size = len(fetch(root))
        except ContentMissing:
            continue
        taken[wanted.digest] = (size, tuple(touched))
    return taken


def _recording(fetch: Fetch, touched: dict[Cid, None]) -> Fetch:
    def recorded(cid: Cid) -> bytes:
        data = fetch(cid)
        touched[cid] = None
        return data

    return recorded


def _links_of(files: Tree, put: Any) -> list[Link]:
    links = []
    for name, entry in files.items():
        link = add_directory(entry, put) if isinstance(entry, dict) else add_bytes(entry, put)
        links.append(Link(link.cid, name, link.tree_bytes))
    return links


def _bundles_link(taken: Taken, put: Any) -> Link:
    links = [Link(Cid.directory(digest), digest.hex(), size) for digest, (size, _) in sorted(taken.items())]
    node = Node(tuple(links), DIRECTORY_DATA)
    cid = _node(links, put)
    return Link(cid, "bundles", len(encode_node(node)) + sum(link.tree_bytes for link in links))


def _node(links: Sequence[Link], put: Any) -> Cid:
    data = encode_node(Node(tuple(links), DIRECTORY_DATA))
    cid = Cid.of(Cid.directory(bytes(32)).codec, data)
    put(Block(cid, data))
    return cid


def _write(path: Path, root: Cid, blocks: Sequence[Block], bundle_blocks: Iterable[Block]) -> None:
    """Root first, then the evidence, then the bundles; fsynced and renamed."""
    incoming = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with incoming.open("xb") as file:
            _write_blocks(file, root, [*reversed(blocks)], bundle_blocks)
            file.flush()
            os.fsync(file.fileno())
        incoming.replace(path)
    except OSError as error:
        with suppress(OSError):
            incoming.unlink()
        raise NotWritable(f"{path}: {error.strerror or type(error).__name__}; nothing was written") from error
    except BaseException:
        with suppress(OSError):
            incoming.unlink()
        raise


def _write_blocks(sink: BinaryIO, root: Cid, first: Sequence[Block], rest: Iterable[Block]) -> None:
    sink.write(encode_header([root]))
    written: set[Cid] = set()
    for group in (first, rest):
        for block in group:
            if block.cid not in written:
                written.add(block.cid)
                sink.write(encode_block(block))
