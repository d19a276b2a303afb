"""What can be asked of AuditLog: one frozen dataclass per function, in the order of the Solidity parameters.

They are part of ledger.actions, which turns them into calldata and back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True)
class Register:
    """The sender's key becomes a server, for ever."""

    promise_blocks: int
    target: ClassVar[Literal["log"]] = "log"


@dataclass(frozen=True)
class RegisterAuditor:
    """The sender reads what is encrypted to this X25519 key; check it with ledger.log.sealing before."""

    key: bytes
    target: ClassVar[Literal["log"]] = "log"


@dataclass(frozen=True)
class NameAuditors:
    """A server: to whom its records are encrypted from now on."""

    auditors: tuple[bytes, ...]
    target: ClassVar[Literal["log"]] = "log"


@dataclass(frozen=True)
class PostCheckpoint:
    """Anyone may relay; `proof` leads from the last checkpoint, and is empty for the first."""

    server: bytes
    size: int
    root: bytes
    proof: tuple[bytes, ...]
    signature: bytes
    target: ClassVar[Literal["log"]] = "log"


@dataclass(frozen=True)
class ReportOmission:
    """Anyone with a receipt whose block has passed."""

    server: bytes
    sequence: int
    due_block: int
    leaf: bytes
    signature: bytes
    target: ClassVar[Literal["log"]] = "log"


@dataclass(frozen=True)
class AnswerOmission:
    """Anyone: the leaf is in its place under the last checkpoint."""

    server: bytes
    sequence: int
    due_block: int
    leaf: bytes
    proof: tuple[bytes, ...]
    target: ClassVar[Literal["log"]] = "log"


@dataclass(frozen=True)
class ReportFork:
    """Anyone: two signed roots for one size."""

    server: bytes
    size: int
    root: bytes
    signature: bytes
    other_root: bytes
    other_signature: bytes
    target: ClassVar[Literal["log"]] = "log"


@dataclass(frozen=True)
class ReportRewrite:
    """Anyone: a signed root for a size at which the anchored log had `true_root`."""

    server: bytes
    size: int
    root: bytes
    signature: bytes
    true_root: bytes
    proof: tuple[bytes, ...]
    target: ClassVar[Literal["log"]] = "log"


LogAction = (
    Register
    | RegisterAuditor
    | NameAuditors
    | PostCheckpoint
    | ReportOmission
    | AnswerOmission
    | ReportFork
    | ReportRewrite
)
LOG_CALLS: tuple[tuple[type[LogAction], str, tuple[str, ...]], ...] = (
    (Register, "register", ("uint32",)),
    (RegisterAuditor, "registerAuditor", ("bytes32",)),
    (NameAuditors, "nameAuditors", ("address[]",)),
    (PostCheckpoint, "checkpoint", ("address", "uint64", "bytes32", "bytes32[]", "bytes")),
    (ReportOmission, "reportOmission", ("address", "uint64", "uint64", "bytes32", "bytes")),
    (AnswerOmission, "answerOmission", ("address", "uint64", "uint64", "bytes32", "bytes32[]")),
    (ReportFork, "reportFork", ("address", "uint64", "bytes32", "bytes", "bytes32", "bytes")),
    (ReportRewrite, "reportRewrite", ("address", "uint64", "bytes32", "bytes", "bytes32", "bytes32[]")),
)
