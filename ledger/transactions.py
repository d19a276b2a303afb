"""Signed transactions (EIP-1559, type 2): sign, and read back strictly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import rlp
from eth_account import Account
from eth_keys.exceptions import BadSignature
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError

from ledger.events import fixed_bytes
from proofs.errors import PeerFault

MAX_TRANSACTION_BYTES = 1 << 18
TYPE_2 = 2
PARTS = 12


class TransactionInvalid(PeerFault):
    """Bytes that are not a signed EIP-1559 transaction."""


@dataclass(frozen=True)
class Transaction:
    """Unsigned fields; `to` is 20 bytes, empty to create a contract."""

    chain_id: int
    nonce: int
    priority_fee_wei: int
    max_fee_wei: int
    gas_limit: int
    to: bytes
    value_wei: int
    data: bytes


def sign_transaction(key: bytes, transaction: Transaction) -> bytes:
    """The raw bytes to broadcast; their keccak is the transaction's hash. Deterministic."""
    fields: dict[str, Any] = {
        "type": TYPE_2,
        "chainId": transaction.chain_id,
        "nonce": transaction.nonce,
        "maxPriorityFeePerGas": transaction.priority_fee_wei,
        "maxFeePerGas": transaction.max_fee_wei,
        "gas": transaction.gas_limit,
        "value": transaction.value_wei,
        "data": transaction.data,
    }
    if transaction.to:
        fields["to"] = fixed_bytes(transaction.to, 20, "to")
    return bytes(Account.sign_transaction(fields, key).raw_transaction)


def parse_transaction(raw: bytes) -> tuple[Transaction, bytes]:
    """(fields, sender's address). Raises TransactionInvalid."""
    if not 0 < len(raw) <= MAX_TRANSACTION_BYTES or raw[0] != TYPE_2:
        raise TransactionInvalid("expected an EIP-1559 transaction")
    try:
        parts = rlp.decode(raw[1:])
        if not isinstance(parts, list) or len(parts) != PARTS or any(isinstance(part, list) for part in parts[:8]):
            raise TransactionInvalid(f"an EIP-1559 transaction has {PARTS} parts")
        sender = bytes.fromhex(Account.recover_transaction(raw)[2:])
    except (rlp.exceptions.RLPException, BadSignature, ValidationError, ValueError, TypeError) as error:
        raise TransactionInvalid(f"not a signed transaction: {type(error).__name__}") from error
    chain_id, nonce, priority, most, gas, value = (int.from_bytes(parts[i]) for i in (0, 1, 2, 3, 4, 6))
    return Transaction(chain_id, nonce, priority, most, gas, parts[5], value, parts[7]), sender


def transaction_hash(raw: bytes) -> bytes:
    return keccak(raw)
