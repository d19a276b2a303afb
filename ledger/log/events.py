"""Event logs ↔ records, for AuditLog: IAuditLog.sol in Python; a test compares it with the compiled ABI.

As strict as ledger.events: a log is accepted only if encoding the record again gives the same topics and bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError, EncodingError
from eth_utils.crypto import keccak

from ledger.events import MAX_LOG_BYTES, EventInvalid, address_bytes, fixed_bytes
from ledger.log.records import (
    AuditorRegistered,
    AuditorsNamed,
    Checkpointed,
    Forked,
    LogEvent,
    OmissionAnswered,
    OmissionReported,
    Rewritten,
    ServerRegistered,
)
from proofs.errors import LocalFault


@dataclass(frozen=True)
class LogEventAbi:
    """Its record, and the ABI type of each field in declared order; the first is indexed."""

    record: type[LogEvent]
    types: tuple[str, ...]

    @property
    def topic(self) -> bytes:
        return keccak(text=f"{self.record.__name__}({','.join(self.types)})")


LOG_EVENTS: Final[tuple[LogEventAbi, ...]] = (
    LogEventAbi(ServerRegistered, ("address", "uint32")),
    LogEventAbi(AuditorRegistered, ("address", "bytes32")),
    LogEventAbi(AuditorsNamed, ("address", "address[]")),
    LogEventAbi(Checkpointed, ("address", "uint64", "bytes32", "bytes")),
    LogEventAbi(OmissionReported, ("address", "uint64", "uint64", "bytes32", "bytes", "bool", "uint64")),
    LogEventAbi(OmissionAnswered, ("address", "uint64", "uint64", "bytes32")),
    LogEventAbi(Forked, ("address", "uint64", "bytes32", "bytes", "bytes32", "bytes")),
    LogEventAbi(Rewritten, ("address", "uint64", "bytes32", "bytes", "bytes32", "uint64", "bytes32", "bytes32[]")),
)
_BY_TOPIC: Final = {abi.topic: abi for abi in LOG_EVENTS}
_BY_RECORD: Final = {abi.record: abi for abi in LOG_EVENTS}


def encode_log_event(event: LogEvent) -> tuple[tuple[bytes, ...], bytes]:
    """(topics, data) as the contract writes them. Raises LocalFault for values out of range."""
    abi = _BY_RECORD[type(event)]
    pairs = zip(fields(event), abi.types, strict=True)
    values = [_to_abi(getattr(event, field.name), kind, field.name) for field, kind in pairs]
    try:
        return (abi.topic, encode(abi.types[:1], values[:1])), encode(abi.types[1:], values[1:])
    except EncodingError as error:
        raise LocalFault(f"{type(event).__name__} has a field out of range: {error}") from error


def decode_log_event(topics: Sequence[bytes], data: bytes) -> LogEvent:
    """Inverse of `encode_log_event`. Raises EventInvalid for anything else."""
    abi = _BY_TOPIC.get(bytes(topics[0]) if topics else b"")
    if abi is None:
        raise EventInvalid("a log with an unknown first topic")
    if len(topics) != 2 or len(data) > MAX_LOG_BYTES:
        raise EventInvalid(f"{abi.record.__name__}: {len(topics)} topics and {len(data)} bytes of data")
    try:
        values = [*decode(abi.types[:1], topics[1]), *decode(abi.types[1:], data)]
        event = abi.record(*map(_from_abi, values, abi.types))
        again = encode_log_event(event)
    except (DecodingError, LocalFault, ValueError, OverflowError) as error:
        raise EventInvalid(f"{abi.record.__name__}: cannot be decoded ({type(error).__name__})") from error
    if again != (tuple(bytes(topic) for topic in topics), bytes(data)):
        raise EventInvalid(f"{abi.record.__name__}: the log is not in canonical form")
    return event


def _to_abi(value: Any, kind: str, name: str) -> Any:
    sizes = {"bytes32": 32, "address": 20}
    if kind in sizes:
        return fixed_bytes(value, sizes[kind], name)
    if kind.endswith("[]"):
        return [fixed_bytes(item, sizes[kind[:-2]], name) for item in value]
    return value


def _from_abi(value: Any, kind: str) -> Any:
    if kind == "address":
        return address_bytes(value)
    if kind == "address[]":
        return tuple(map(address_bytes, value))
    return tuple(value) if kind == "bytes32[]" else value
