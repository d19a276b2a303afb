"""What a server signs about its log, in EIP-712: promises (of receipts) and checkpoints. See IAuditLog.sol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from eth_utils.crypto import keccak

from ledger.eip712 import Domain, recover, sign_digest, typed_digest
from ledger.events import fixed_bytes

PROMISE_TYPE: Final = keccak(text="Receipt(uint64 sequence,uint64 dueBlock,bytes32 leaf)")
CHECKPOINT_TYPE: Final = keccak(text="Checkpoint(uint64 size,bytes32 root)")


@dataclass(frozen=True)
class Promise:
    """The leaf hash at index `sequence` of my log is `leaf`, and a checkpoint on the chain covers it by `due_block`."""

    sequence: int
    due_block: int
    leaf: bytes

    def digest(self, domain: Domain) -> bytes:
        """The 32 bytes that are signed, and the name of an omission on the chain."""
        values = (PROMISE_TYPE, _word(self.sequence), _word(self.due_block), fixed_bytes(self.leaf, 32, "leaf"))
        return typed_digest(domain, keccak(b"".join(values)))


@dataclass(frozen=True)
class Checkpoint:
    """The first `size` leaves of my log have this root."""

    size: int
    root: bytes

    def digest(self, domain: Domain) -> bytes:
        values = (CHECKPOINT_TYPE, _word(self.size), fixed_bytes(self.root, 32, "root"))
        return typed_digest(domain, keccak(b"".join(values)))


def _word(number: int) -> bytes:
    """A uint64 as Solidity's ABI has it; OverflowError for another number."""
    return number.to_bytes(8).rjust(32, b"\0")


Statement = Promise | Checkpoint


def sign(secret: bytes, domain: Domain, statement: Statement) -> bytes:
    """Deterministic. Nothing here keeps a server from signing two roots for one size: its log must not fork."""
    return sign_digest(secret, statement.digest(domain))


def signer(domain: Domain, statement: Statement, signature: bytes) -> bytes:
    """Whose signature it is; compare it with the server. Raises eip712.SignatureInvalid."""
    return recover(statement.digest(domain), signature)
