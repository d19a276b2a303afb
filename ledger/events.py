"""Event logs ↔ records: the one place that knows how the contract's events are laid out, and how they are hashed.

The table below is contracts/src/interfaces/IRounds.sol in Python; a test compares it with the compiled ABI. Decoding
is strict: a log is accepted only if encoding the record again gives the same topics and the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, Final

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError, EncodingError
from eth_utils.crypto import keccak

from ledger.records import (
    AggregateProposed,
    Committed,
    Dissented,
    Equivocation,
    Finalised,
    Objected,
    Phase,
    Policy,
    Proved,
    RoundEvent,
    RoundOpened,
    Sealed,
    Seat,
    Signed,
    Submitted,
    VerdictsPosted,
    Voided,
    VoidReason,
)
from proofs.errors import LocalFault, PeerFault

POLICY_ABI = "(uint32,uint32,uint32,uint32,uint32,uint32,uint8,bool,uint8)"
SEAT_ABI = "(uint8,address,address,uint64,uint64,bytes32)"
SIGNED_ABI = "(uint256,bytes,bytes)"
MAX_LOG_BYTES = 1 << 17  # 256 seats need 49 KiB, the keys of 256 verifiers 32
NO_TRANSCRIPT = bytes(32)


class EventInvalid(PeerFault):
    """A log that is not the encoding of any event of the contract."""


@dataclass(frozen=True)
class EventAbi:
    """One event: its record, the ABI type of each field in declared order, and how many of the first are indexed."""

    record: type[RoundEvent]
    types: tuple[str, ...]
    indexed: int

    @property
    def signature(self) -> str:
        return f"{self.record.__name__}({','.join(self.types)})"

    @property
    def topic(self) -> bytes:
        return keccak(text=self.signature)


EVENTS: Final[tuple[EventAbi, ...]] = (
    EventAbi(RoundOpened, ("uint64", "bytes32", "bytes32", POLICY_ABI, f"{SEAT_ABI}[]", "bytes32"), 1),
    EventAbi(Committed, ("uint64", "uint8", "bytes32", "bytes32", "bytes32"), 2),
    EventAbi(Sealed, ("uint64", "uint8", "uint64", "bytes32", "bytes32", "bytes32"), 1),
    EventAbi(Submitted, ("uint64", "uint8", "bytes32", "uint64", "bytes", "bytes32"), 2),
    EventAbi(Equivocation, ("uint64", "uint8", "bytes32", "uint64", "bytes", "bytes32"), 2),
    EventAbi(Proved, ("uint64", "uint8", "bytes32", "bytes32"), 2),
    EventAbi(VerdictsPosted, ("uint64", "address", "uint256", "bytes", SIGNED_ABI, "bytes32"), 2),
    EventAbi(Dissented, ("uint64", "uint8", "bytes", "bytes32"), 2),
    EventAbi(AggregateProposed, ("uint64", "address", "bytes32", "bytes32", "bytes32", "bytes32"), 2),
    EventAbi(Objected, ("uint64", "uint8", "bytes32", "bytes32"), 2),
    EventAbi(Finalised, ("uint64", "bytes32", "bytes32"), 1),
    EventAbi(Voided, ("uint64", "uint8", "uint8", "bytes32"), 1),
)
_BY_TOPIC: Final = {abi.topic: abi for abi in EVENTS}
_BY_RECORD: Final = {abi.record: abi for abi in EVENTS}
TOPICS: Final[tuple[bytes, ...]] = tuple(_BY_TOPIC)


def transcript_next(transcript: bytes, event: RoundEvent) -> bytes:
    """The running hash after `event`, as the contract computes it. The event's own `transcript` is not an input."""
    abi = _BY_RECORD[type(event)]
    digest = keccak(encode(abi.types[:-1], _values(event)[:-1]))
    return keccak(encode(("bytes32", "bytes32", "bytes32"), (transcript, abi.topic, digest)))


def encode_log(event: RoundEvent) -> tuple[tuple[bytes, ...], bytes]:
    """(topics, data) of the log that the contract writes for `event`. Raises LocalFault for values out of range."""
    abi, values = _BY_RECORD[type(event)], _values(event)
    try:
        indexed = [encode((kind,), (value,)) for kind, value in zip(abi.types[: abi.indexed], values, strict=False)]
        data = encode(abi.types[abi.indexed :], values[abi.indexed :])
    except EncodingError as error:
        raise LocalFault(f"{type(event).__name__} has a field out of range: {error}") from error
    return (abi.topic, *indexed), data


def decode_log(topics: Sequence[bytes], data: bytes) -> RoundEvent:
    """Inverse of `encode_log`. Raises EventInvalid for an unknown topic, wrong sizes, or anything not canonical."""
    abi = _BY_TOPIC.get(bytes(topics[0]) if topics else b"")
    if abi is None:
        raise EventInvalid("a log with an unknown first topic")
    if len(topics) != 1 + abi.indexed or len(data) > MAX_LOG_BYTES:
        raise EventInvalid(f"{abi.record.__name__}: {len(topics)} topics and {len(data)} bytes of data")
    try:
        indexed = [decode((kind,), topic)[0] for kind, topic in zip(abi.types, topics[1:], strict=False)]
        event = _record(abi.record, [*indexed, *decode(abi.types[abi.indexed :], data)])
        again = encode_log(event)
    except (DecodingError, LocalFault, ValueError, OverflowError) as error:
        raise EventInvalid(f"{abi.record.__name__}: cannot be decoded ({type(error).__name__})") from error
    if again != (tuple(bytes(topic) for topic in topics), bytes(data)):
        raise EventInvalid(f"{abi.record.__name__}: the log is not in canonical form")
    return event


def fixed_bytes(value: bytes, size: int, what: str) -> bytes:
    """`value` itself if it has `size` bytes: eth_abi would pad a shorter one in silence. Raises LocalFault."""
    if len(value) != size:
        raise LocalFault(f"{what}: expected {size} bytes, found {len(value)}")
    return value


def _values(event: RoundEvent) -> list[Any]:
    abi = _BY_RECORD[type(event)]
    pairs = zip(fields(event), abi.types, strict=True)
    return [_to_abi(getattr(event, field.name), kind, field.name) for field, kind in pairs]


def _to_abi(value: Any, kind: str, name: str) -> Any:
    if kind == "bytes32":
        return fixed_bytes(value, 32, name)
    if kind == "address":
        return fixed_bytes(value, 20, name)
    if kind == POLICY_ABI:
        return policy_values(value)
    if kind == SIGNED_ABI:
        return signed_values(value)
    if kind.endswith("[]"):
        return [_seat_values(seat) for seat in value]
    return int(value) if isinstance(value, IntEnum) else value


def policy_values(policy: Policy) -> tuple[int | bool, ...]:
    """The Solidity struct's fields in order."""
    return tuple(getattr(policy, field.name) for field in fields(policy))


def signed_values(signed: Signed) -> tuple[int, bytes, bytes]:
    """The Solidity struct's fields in order."""
    return signed.signers, signed.keys, signed.signature


def _seat_values(seat: Seat) -> tuple[Any, ...]:
    owner, signer = fixed_bytes(seat.owner, 20, "owner"), fixed_bytes(seat.signer, 20, "signer")
    return (seat.member, owner, signer, seat.cap_micro, seat.spent_micro, fixed_bytes(seat.verifier, 32, "verifier"))


def seat_from(values: Iterable[Any]) -> Seat:
    member, owner, signer, cap, spent, verifier = values
    return Seat(member, address_bytes(owner), address_bytes(signer), cap, spent, verifier)


def address_bytes(text: str) -> bytes:
    """20 raw bytes of the "0x…" text that eth_abi and JSON-RPC use."""
    return bytes.fromhex(text.removeprefix("0x"))


def _record(record: type[RoundEvent], values: list[Any]) -> RoundEvent:
    if record is RoundOpened:
        number, config, bundle, policy, seats, transcript = values
        return RoundOpened(number, config, bundle, Policy(*policy), tuple(map(seat_from, seats)), transcript)
    if record is Sealed:
        return Sealed(values[0], Phase(values[1]), *values[2:])
    if record is Voided:
        return Voided(values[0], Phase(values[1]), VoidReason(values[2]), values[3])
    if record is VerdictsPosted:
        values[4] = Signed(*values[4])
    if record in (VerdictsPosted, AggregateProposed):
        values[1] = address_bytes(values[1])
    return record(*values)
