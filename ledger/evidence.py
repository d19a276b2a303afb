"""What a chain leaves behind that needs no chain to be checked: receipts, and what ties them to a header.

A header (ledger.headers) is named by its hash and names its parent, its receipts and its randomness. A receipt is shown
to be in a block by a Merkle–Patricia proof against that root. So whoever trusts one hash, that of the last header, can
trust every event below it. Whether that last header belongs to the chain that he means, no file can say.

    PeerFault
    └── EvidenceInvalid        what is shown does not show it
        ├── ChainBroken        headers that are not each other's children
        └── ReceiptInvalid     bytes that are no receipt, or not one of the block they are said to be in
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import rlp
from eth_utils.crypto import keccak

from ledger.headers import Header
from ledger.patricia import ProofInvalid, decode_rlp, index_key, prove, trie_of, value_in
from proofs.errors import LocalFault, PeerFault

MAX_RECEIPT_BYTES = 1 << 24  # anyone may put a receipt beside ours; 2^24 gas (EIP-7825) buy two MiB, at 8 gas a byte
MAX_LOGS = 1 << 18  # and 45,000 logs, at 375 gas each
MAX_RECEIPTS = 1 << 16
BLOOM_BYTES = 256
HASH_BYTES = 32
ADDRESS_BYTES = 20


class EvidenceInvalid(PeerFault):
    """Evidence that does not show what it is said to show."""


class ChainBroken(EvidenceInvalid):
    """Headers that do not follow each other."""


class ReceiptInvalid(EvidenceInvalid):
    """Bytes that are not a receipt of the block they are said to be in."""


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


def check_chain(headers: Sequence[Header]) -> None:
    """Each header is the child of the one before. Raises ChainBroken, naming the block."""
    for parent, child in pairwise(headers):
        if child.number != parent.number + 1:
            raise ChainBroken(f"block {child.number} follows block {parent.number}")
        if child.parent_hash != parent.hash:
            raise ChainBroken(
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
        status=_integer(parts[0], "status"),
        cumulative_gas=_integer(parts[1], "cumulativeGasUsed"),
        bloom=_exactly(parts[2], BLOOM_BYTES, "logsBloom"),
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
        address=_exactly(item[0], ADDRESS_BYTES, "log.address"),
        topics=tuple(_exactly(topic, HASH_BYTES, "log.topic") for topic in item[1]),
        data=_string(item[2], "log.data"),
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


def prove_receipts(header: Header, receipts: Sequence[bytes], wanted: Sequence[int]) -> tuple[ReceiptProof, ...]:
    """Proofs for the receipts at the `wanted` positions, from all the encoded receipts of the header's block."""
    if len(receipts) > MAX_RECEIPTS:
        raise LocalFault(f"block {header.number} has {len(receipts)} receipts, more than {MAX_RECEIPTS}")
    trie = trie_of(receipts)
    if trie.root_hash != header.receipts_root:
        raise ReceiptInvalid(
            f"block {header.number}: expected receipts root {header.receipts_root.hex()}, found {trie.root_hash.hex()}"
        )
    return tuple(ReceiptProof(header.number, index, prove(trie, index_key(index))) for index in wanted)


def check_receipt(header: Header, evidence: ReceiptProof) -> Receipt:
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
        if not may_hold(header.logs_bloom, log.address, *log.topics):
            raise ReceiptInvalid(f"block {header.number}: its bloom rules out a log of its own receipt")
    return receipt


def log_of(header: Header, evidence: ReceiptProof, position: int, address: bytes) -> RawLog:
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


def _string(value: Any, field: str) -> bytes:
    if not isinstance(value, bytes):
        raise ReceiptInvalid(f"{field}: expected bytes, found a list")
    return value


def _exactly(value: Any, size: int, field: str) -> bytes:
    data = _string(value, field)
    if len(data) != size:
        raise ReceiptInvalid(f"{field}: expected {size} bytes, found {len(data)}")
    return data


def _integer(value: Any, field: str) -> int:
    """RLP integer: big-endian without leading zeros, at most 64 bits."""
    data = _string(value, field)
    if len(data) > 8 or data[:1] == b"\x00":
        raise ReceiptInvalid(f"{field}: expected an integer of at most 64 bits without leading zeros")
    return int.from_bytes(data, "big")
