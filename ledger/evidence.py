"""What a chain leaves behind that needs no chain to be checked: headers, receipts, and proofs between them.

A header is named by the Keccak hash of its RLP and names its parent, its receipts and (as `mixHash`) its randomness. A
receipt is shown to be in a block by a Merkle–Patricia proof against that root. So whoever trusts one hash, that of the
last header, can trust every event below it. Whether that last header belongs to the chain he means, no file can say.

    EvidenceInvalid (PeerFault)     bytes that are not a header or receipt, or that do not belong together
    ├── HeaderInvalid
    └── ReceiptInvalid
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import rlp
from eth_utils.crypto import keccak

from ledger.patricia import ProofInvalid, decode_rlp, index_key, prove, trie_of, value_in
from proofs.errors import LocalFault, PeerFault

MAX_HEADER_BYTES = 2048
MAX_RECEIPT_BYTES = 1 << 20
MAX_LOGS = 4096
MAX_RECEIPTS = 1 << 16
BLOOM_BYTES = 256
HASH_BYTES = 32
ADDRESS_BYTES = 20
HEADER_PARTS = (15, 32)  # Frontier's fields, and room for later forks: they only ever append


class EvidenceInvalid(PeerFault):
    """Evidence that does not show what it is said to show."""


class HeaderInvalid(EvidenceInvalid):
    """Bytes that are not the header they are said to be."""


class ReceiptInvalid(EvidenceInvalid):
    """Bytes that are not a receipt of the block they are said to be in."""


@dataclass(frozen=True)
class BlockHeader:
    """The parts of an execution header that Candor reads; `raw` is the RLP whose Keccak hash is `hash`."""

    number: int
    hash: bytes
    parent_hash: bytes
    state_root: bytes
    receipts_root: bytes
    bloom: bytes
    mix_hash: bytes
    timestamp: int
    raw: bytes


@dataclass(frozen=True)
class RawLog:
    """One log of a receipt, not yet a record: `topics` are 32 bytes each."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes


@dataclass(frozen=True)
class Receipt:
    """EIP-2718 receipt of a transaction of type `kind`; `status` is 1 when it went through."""

    kind: int
    status: int
    cumulative_gas: int
    bloom: bytes
    logs: tuple[RawLog, ...]


@dataclass(frozen=True)
class ReceiptProof:
    """A receipt and the nodes that lead to it from its block's receipts root."""

    block_number: int
    tx_index: int
    proof: tuple[bytes, ...]


def decode_header(raw: bytes) -> BlockHeader:
    """Header from its RLP. Raises HeaderInvalid, naming the field."""
    if len(raw) > MAX_HEADER_BYTES:
        raise HeaderInvalid(f"a header of {len(raw)} bytes where at most {MAX_HEADER_BYTES} are allowed")
    parts = decode_rlp(raw, HeaderInvalid)
    least, most = HEADER_PARTS
    if not isinstance(parts, list) or not least <= len(parts) <= most:
        raise HeaderInvalid(f"a header is a list of {least} to {most} fields")
    if any(not isinstance(part, bytes) for part in parts):
        raise HeaderInvalid("a header's fields are byte strings, not lists")
    return BlockHeader(
        number=_integer(parts[8], "number", HeaderInvalid),
        hash=keccak(raw),
        parent_hash=_exactly(parts[0], HASH_BYTES, "parentHash", HeaderInvalid),
        state_root=_exactly(parts[3], HASH_BYTES, "stateRoot", HeaderInvalid),
        receipts_root=_exactly(parts[5], HASH_BYTES, "receiptsRoot", HeaderInvalid),
        bloom=_exactly(parts[6], BLOOM_BYTES, "logsBloom", HeaderInvalid),
        mix_hash=_exactly(parts[13], HASH_BYTES, "mixHash", HeaderInvalid),
        timestamp=_integer(parts[11], "timestamp", HeaderInvalid),
        raw=bytes(raw),
    )


def check_chain(headers: Sequence[BlockHeader]) -> None:
    """Each header is the child of the one before. Raises HeaderInvalid, naming the block."""
    for parent, child in pairwise(headers):
        if child.number != parent.number + 1:
            raise HeaderInvalid(f"block {child.number} follows block {parent.number}")
        if child.parent_hash != parent.hash:
            raise HeaderInvalid(
                f"block {child.number}: expected parent {parent.hash.hex()}, found {child.parent_hash.hex()}"
            )


def encode_receipt(receipt: Receipt) -> bytes:
    """The bytes that a block's receipts trie holds: EIP-2718's type byte, but for legacy ones, then RLP."""
    logs = [[log.address, list(log.topics), log.data] for log in receipt.logs]
    body = bytes(rlp.encode([receipt.status, receipt.cumulative_gas, receipt.bloom, logs]))
    return (bytes([receipt.kind]) if receipt.kind else b"") + body


def decode_receipt(raw: bytes) -> Receipt:
    """Strict inverse of `encode_receipt`; the bloom must be that of the logs. Raises ReceiptInvalid."""
    if not 0 < len(raw) <= MAX_RECEIPT_BYTES:
        raise ReceiptInvalid(f"a receipt of {len(raw)} bytes where 1 to {MAX_RECEIPT_BYTES} are allowed")
    kind, body = (raw[0], raw[1:]) if raw[0] < 0x80 else (0, raw)
    parts = decode_rlp(body, ReceiptInvalid)
    if not isinstance(parts, list) or len(parts) != 4 or not isinstance(parts[3], list) or len(parts[3]) > MAX_LOGS:
        raise ReceiptInvalid(f"a receipt is status, gas, bloom and at most {MAX_LOGS} logs")
    receipt = Receipt(
        kind=kind,
        status=_integer(parts[0], "status", ReceiptInvalid),
        cumulative_gas=_integer(parts[1], "cumulativeGasUsed", ReceiptInvalid),
        bloom=_exactly(parts[2], BLOOM_BYTES, "logsBloom", ReceiptInvalid),
        logs=tuple(_log(item) for item in parts[3]),
    )
    _check_receipt(receipt, raw)
    return receipt


def _check_receipt(receipt: Receipt, raw: bytes) -> None:
    if receipt.status > 1:
        raise ReceiptInvalid(f"receipt.status: expected 0 or 1, found {receipt.status}")
    if receipt.bloom != bloom_of(receipt.logs):
        raise ReceiptInvalid("receipt.logsBloom: is not the bloom of the logs")
    if encode_receipt(receipt) != raw:
        raise ReceiptInvalid("the receipt is not in canonical form")


def _log(item: Any) -> RawLog:
    if not isinstance(item, list) or len(item) != 3 or not isinstance(item[1], list) or len(item[1]) > 4:
        raise ReceiptInvalid("a log is an address, at most four topics and data")
    return RawLog(
        address=_exactly(item[0], ADDRESS_BYTES, "log.address", ReceiptInvalid),
        topics=tuple(_exactly(topic, HASH_BYTES, "log.topic", ReceiptInvalid) for topic in item[1]),
        data=_string(item[2], "log.data", ReceiptInvalid),
    )


def bloom_of(logs: Iterable[RawLog]) -> bytes:
    """Yellow Paper section 4.3.1: three bits of 2048 for each address and each topic."""
    bits = 0
    for log in logs:
        for item in (log.address, *log.topics):
            bits |= _bloom_bits(item)
    return bits.to_bytes(BLOOM_BYTES, "big")


def may_hold(bloom: bytes, *items: bytes) -> bool:
    """False when the bloom rules out that a log with these addresses and topics is below it."""
    held = int.from_bytes(bloom, "big")
    return all(held & bits == bits for bits in map(_bloom_bits, items))


def _bloom_bits(item: bytes) -> int:
    digest = keccak(item)
    return sum({1 << (int.from_bytes(digest[at : at + 2], "big") & 2047) for at in (0, 2, 4)})


def receipts_root(receipts: Sequence[bytes]) -> bytes:
    """Root of a block's receipts trie, from all its encoded receipts in order."""
    return bytes(trie_of(receipts).root_hash)


def prove_receipts(header: BlockHeader, receipts: Sequence[bytes], wanted: Sequence[int]) -> tuple[ReceiptProof, ...]:
    """Proofs for the receipts at the `wanted` positions, from all the encoded receipts of the header's block."""
    if len(receipts) > MAX_RECEIPTS:
        raise LocalFault(f"block {header.number} has {len(receipts)} receipts, more than {MAX_RECEIPTS}")
    trie = trie_of(receipts)
    if trie.root_hash != header.receipts_root:
        raise ReceiptInvalid(
            f"block {header.number}: expected receipts root {header.receipts_root.hex()}, found {trie.root_hash.hex()}"
        )
    return tuple(ReceiptProof(header.number, index, prove(trie, index_key(index))) for index in wanted)


def check_receipt(header: BlockHeader, evidence: ReceiptProof) -> Receipt:
    """The receipt that `evidence` shows to be in the header's block.

    Raises ReceiptInvalid when the block, the proof, the receipt or the blooms do not agree.
    """
    if evidence.block_number != header.number:
        raise ReceiptInvalid(f"a receipt of block {evidence.block_number} is not in block {header.number}")
    if not 0 <= evidence.tx_index < MAX_RECEIPTS:
        raise ReceiptInvalid(f"transaction {evidence.tx_index} is not in [0, {MAX_RECEIPTS})")
    try:
        raw = value_in(header.receipts_root, index_key(evidence.tx_index), evidence.proof)
    except ProofInvalid as error:
        raise ReceiptInvalid(f"block {header.number}, transaction {evidence.tx_index}: {error}") from error
    receipt = decode_receipt(raw)
    for log in receipt.logs:
        if not may_hold(header.bloom, log.address, *log.topics):
            raise ReceiptInvalid(f"block {header.number}: its bloom rules out a log of its own receipt")
    return receipt


def log_of(header: BlockHeader, evidence: ReceiptProof, position: int, address: bytes) -> RawLog:
    """The log at `position` within the receipt that `evidence` shows; successful, and of `address`."""
    receipt = check_receipt(header, evidence)
    where = f"block {header.number}, transaction {evidence.tx_index}"
    if receipt.status != 1:
        raise ReceiptInvalid(f"{where}: the transaction was reverted")
    if not 0 <= position < len(receipt.logs):
        raise ReceiptInvalid(f"{where}: there is no log {position} among {len(receipt.logs)}")
    log = receipt.logs[position]
    if log.address != address:
        raise ReceiptInvalid(f"{where}: log {position} is of 0x{log.address.hex()}, expected 0x{address.hex()}")
    return log


def _string(value: Any, field: str, error: type[EvidenceInvalid]) -> bytes:
    if not isinstance(value, bytes):
        raise error(f"{field}: expected bytes, found a list")
    return value


def _exactly(value: Any, size: int, field: str, error: type[EvidenceInvalid]) -> bytes:
    data = _string(value, field, error)
    if len(data) != size:
        raise error(f"{field}: expected {size} bytes, found {len(data)}")
    return data


def _integer(value: Any, field: str, error: type[EvidenceInvalid]) -> int:
    """RLP integer: big-endian without leading zeros, at most 64 bits."""
    data = _string(value, field, error)
    if len(data) > 8 or data[:1] == b"\x00":
        raise error(f"{field}: expected an integer of at most 64 bits without leading zeros")
    return int.from_bytes(data, "big")
