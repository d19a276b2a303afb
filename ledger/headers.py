"""Block headers: the exact RLP whose keccak is the block's hash, so that nothing a node says about a block is believed.

Field order: Ethereum yellow paper 4.3 plus EIP-1559 (base fee), EIP-4895 (withdrawals), EIP-4844 (blob gas), EIP-4788
(beacon root), EIP-7685 (requests) and EIP-7928 (access list). Later fields only ever follow earlier ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import rlp
from eth_utils.crypto import keccak

from proofs.errors import PeerFault

MAX_HEADER_BYTES = 2048

# (name in JSON-RPC, size in bytes or None for an integer of any length)
FIELDS: Final[tuple[tuple[str, int | None], ...]] = (
    ("parentHash", 32),
    ("sha3Uncles", 32),
    ("miner", 20),
    ("stateRoot", 32),
    ("transactionsRoot", 32),
    ("receiptsRoot", 32),
    ("logsBloom", 256),
    ("difficulty", None),
    ("number", None),
    ("gasLimit", None),
    ("gasUsed", None),
    ("timestamp", None),
    ("extraData", -1),
    ("mixHash", 32),
    ("nonce", 8),
    ("baseFeePerGas", None),
    ("withdrawalsRoot", 32),
    ("blobGasUsed", None),
    ("excessBlobGas", None),
    ("parentBeaconBlockRoot", 32),
    ("requestsHash", 32),
    ("blockAccessListHash", 32),
    ("slotNumber", None),
)
LEAST_FIELDS = 15
ANY_SIZE = -1
MAX_EXTRA_BYTES = 1024


class HeaderInvalid(PeerFault):
    """Bytes that are no block header, or a header that does not hash to what it should."""


@dataclass(frozen=True)
class Header:
    """What Candor reads of a block header. `rlp` is the whole header; `hash` is its keccak, computed here."""

    number: int
    hash: bytes
    parent_hash: bytes
    timestamp: int
    mix_hash: bytes
    receipts_root: bytes
    logs_bloom: bytes
    rlp: bytes

    @classmethod
    def parse(cls, data: bytes) -> Header:
        """From the header's RLP. Raises HeaderInvalid for a wrong number of fields, sizes or encoding."""
        values = dict(zip((name for name, _ in FIELDS), _fields(data), strict=False))
        return cls(
            number=int.from_bytes(values["number"]),
            hash=keccak(data),
            parent_hash=values["parentHash"],
            timestamp=int.from_bytes(values["timestamp"]),
            mix_hash=values["mixHash"],
            receipts_root=values["receiptsRoot"],
            logs_bloom=values["logsBloom"],
            rlp=data,
        )

    @classmethod
    def from_rpc(cls, block: Mapping[str, Any]) -> Header:
        """From a JSON-RPC block. Raises HeaderInvalid when its fields do not hash to the hash that it claims."""
        header = cls.parse(encode_header(block))
        claimed = _rpc_bytes(block, "hash", 32)
        if header.hash != claimed:
            raise HeaderInvalid(f"block {header.number} claims the hash {claimed.hex()}, it has {header.hash.hex()}")
        return header


def encode_header(block: Mapping[str, Any]) -> bytes:
    """RLP of the header fields of a JSON-RPC block: all known fields up to the last one that is there."""
    present = [name for name, _ in FIELDS if block.get(name) is not None]
    names = [name for name, _ in FIELDS[: len(present)]]
    if present != names or len(present) < LEAST_FIELDS:
        raise HeaderInvalid(f"header fields with gaps: {present}")
    values = [
        _rpc_integer(block, name) if size is None else _rpc_bytes(block, name, size)
        for name, size in FIELDS[: len(names)]
    ]
    encoded: bytes = rlp.encode(values)
    return encoded


def _fields(data: bytes) -> list[bytes]:
    if len(data) > MAX_HEADER_BYTES:
        raise HeaderInvalid(f"a header of {len(data)} bytes, at most {MAX_HEADER_BYTES} are allowed")
    try:
        values = rlp.decode(data)
    except rlp.exceptions.RLPException as error:
        raise HeaderInvalid(f"not RLP: {type(error).__name__}") from error
    if not isinstance(values, list) or not LEAST_FIELDS <= len(values) <= len(FIELDS):
        raise HeaderInvalid(f"expected a list of {LEAST_FIELDS} to {len(FIELDS)} header fields")
    for (name, size), value in zip(FIELDS, values, strict=False):
        _check_field(name, size, value)
    return values


def _check_field(name: str, size: int | None, value: Any) -> None:
    if not isinstance(value, bytes):
        raise HeaderInvalid(f"header field {name} is a list")
    if size is None and (len(value) > 32 or value[:1] == b"\x00"):
        raise HeaderInvalid(f"header field {name} is not an integer in shortest form")
    if size == ANY_SIZE and len(value) > MAX_EXTRA_BYTES:
        raise HeaderInvalid(f"header field {name} has {len(value)} bytes")
    if size is not None and size != ANY_SIZE and len(value) != size:
        raise HeaderInvalid(f"header field {name} has {len(value)} bytes, expected {size}")


def _rpc_bytes(block: Mapping[str, Any], name: str, size: int) -> bytes:
    value = block.get(name)
    most = MAX_EXTRA_BYTES if size == ANY_SIZE else size
    if not isinstance(value, str) or not value.startswith("0x") or len(value) > 2 + 2 * most:
        raise HeaderInvalid(f"block field {name}: expected hex data of at most {most} bytes")
    try:
        return bytes.fromhex(value[2:])
    except ValueError as error:
        raise HeaderInvalid(f"block field {name}: not hex data") from error


def _rpc_integer(block: Mapping[str, Any], name: str) -> int:
    value = block.get(name)
    if not isinstance(value, str) or not value.startswith("0x") or len(value) > 66:
        raise HeaderInvalid(f"block field {name}: expected a hex quantity")
    try:
        return int(value, 16)
    except ValueError as error:
        raise HeaderInvalid(f"block field {name}: not a hex quantity") from error
