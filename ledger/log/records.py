"""The nouns of AuditLog, field by field: its events, and what it shows of a server and of an omission."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from eth_abi.abi import encode
from eth_utils.crypto import keccak


class Outcome(IntEnum):
    """What became of a reported omission. The last two are for ever."""

    NONE = 0
    OPEN = 1
    ANSWERED = 2
    OMITTED = 3


@dataclass(frozen=True)
class LogServer:
    """What the chain holds of a server. `auditors` is the hash of the list of those named, zero for none."""

    size: int
    promise_blocks: int
    reports: int
    answers: int
    fork_block: int
    root: bytes
    auditors: bytes


@dataclass(frozen=True)
class Omission:
    """late: no checkpoint covered it when it was reported, so the promise was broken then, whatever came after."""

    outcome: Outcome
    late: bool
    answer_by: int


@dataclass(frozen=True)
class ServerRegistered:
    server: bytes
    promise_blocks: int


@dataclass(frozen=True)
class AuditorRegistered:
    auditor: bytes
    key: bytes


@dataclass(frozen=True)
class AuditorsNamed:
    server: bytes
    auditors: tuple[bytes, ...]


@dataclass(frozen=True)
class Checkpointed:
    server: bytes
    size: int
    root: bytes
    signature: bytes


@dataclass(frozen=True)
class OmissionReported:
    server: bytes
    sequence: int
    due_block: int
    leaf: bytes
    signature: bytes
    late: bool
    answer_by: int


@dataclass(frozen=True)
class OmissionAnswered:
    server: bytes
    sequence: int
    due_block: int
    leaf: bytes


@dataclass(frozen=True)
class Forked:
    """Both roots are signed."""

    server: bytes
    size: int
    root: bytes
    signature: bytes
    other_root: bytes
    other_signature: bytes


@dataclass(frozen=True)
class Rewritten:
    """`root` is signed, and `proof` leads from `true_root` to the anchored one."""

    server: bytes
    size: int
    root: bytes
    signature: bytes
    true_root: bytes
    anchored_size: int
    anchored_root: bytes
    proof: tuple[bytes, ...]


LogEvent = (
    ServerRegistered
    | AuditorRegistered
    | AuditorsNamed
    | Checkpointed
    | OmissionReported
    | OmissionAnswered
    | Forked
    | Rewritten
)


@dataclass(frozen=True)
class Anchored:
    """An event of AuditLog and where the chain keeps it."""

    event: LogEvent
    block_number: int
    block_hash: bytes
    tx_hash: bytes
    log_index: int


def auditors_digest(auditors: Sequence[bytes]) -> bytes:
    """What LogServer.auditors is once these (20 bytes each) have been named: keccak256(abi.encode(address[]))."""
    return keccak(encode(("address[]",), (list(auditors),)))
