"""Deploying a federation, and acting once without an outbox: for setting up, where a person or a script is watching.

A daemon uses ledger.outbox instead: what is sent here is lost track of if the process dies.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import rlp
from eth_abi.abi import encode
from eth_utils.crypto import keccak

from ledger.actions import Action, SetRounds, calldata
from ledger.compiled import bytecode
from ledger.ports import ChainPort, ChainUnavailable, Fees, Receipt, address_of
from ledger.rpc import Rpc, mapping, octets, quantity
from ledger.signing import Key
from ledger.transactions import Transaction
from proofs.errors import LocalFault

T = TypeVar("T")

POLL_S = 0.05
TIMEOUT_S = 120.0
DEPLOY_GAS = 12_000_000
TRANSFER_GAS = 21_000


class DeployFailed(LocalFault):
    """A deployment transaction was refused or reverted."""


@dataclass(frozen=True)
class Deployment:
    """Where the contracts are; `block_number` is the first block in which they can have events."""

    chain_id: int
    federation: bytes
    rounds: bytes
    block_number: int


def deploy(url: str, deployer: Key, coordinator: bytes, *, timeout_s: float = TIMEOUT_S) -> Deployment:
    """Federation, then Rounds, then tie them together. The deployer becomes the admin, and may be the coordinator."""
    rpc = Rpc(url)
    chain_id = quantity(rpc.call("eth_chainId"), "chain id")
    head = quantity(rpc.call("eth_blockNumber"), "block number")
    arguments = encode(("address", "address"), (deployer.address, coordinator))
    federation = _create(rpc, deployer, bytecode("Federation") + arguments, timeout_s)
    rounds = _create(rpc, deployer, bytecode("Rounds") + encode(("address",), (federation,)), timeout_s)
    _send(rpc, deployer, federation, calldata(SetRounds(rounds)), DEPLOY_GAS, 0, timeout_s)
    return Deployment(chain_id, federation, rounds, head + 1)


def deploy_log(url: str, deployer: Key, answer_blocks: int, *, timeout_s: float = TIMEOUT_S) -> bytes:
    """AuditLog, which belongs to nobody; its address. answer_blocks: how long a reported server may take to answer."""
    code = bytecode("AuditLog") + encode(("uint32",), (answer_blocks,))
    return _create(Rpc(url), deployer, code, timeout_s)


def transfer(url: str, sender: Key, to: bytes, value_wei: int, *, timeout_s: float = TIMEOUT_S) -> None:
    """Pay, for instance a new daemon's gas."""
    _send(Rpc(url), sender, to, b"", TRANSFER_GAS, value_wei, timeout_s)


def act(chain: ChainPort, key: Key, action: Action, *, timeout_s: float = TIMEOUT_S) -> Receipt:
    """Send one action and wait for it. Raises ContractRefused by name, ChainUnavailable after `timeout_s`."""
    gas_limit = chain.estimate(key.address, action)
    to = address_of(chain, action.target)
    nonce = chain.nonce(key.address, pending=True)
    raw = key.sign_transaction(_transaction(chain.chain_id, nonce, chain.fees(), gas_limit, to, calldata(action), 0))
    tx_hash = chain.send_raw(raw)
    receipt = _wait(lambda: chain.receipt(tx_hash), timeout_s)
    if not receipt.succeeded:
        raise chain.revert_reason(key.address, action, receipt.block_number)
    return receipt


def created_address(sender: bytes, nonce: int) -> bytes:
    """Yellow paper (86): where a contract created by this transaction lands."""
    return keccak(rlp.encode([sender, nonce]))[-20:]


def _create(rpc: Rpc, key: Key, code: bytes, timeout_s: float) -> bytes:
    nonce = _send(rpc, key, b"", code, DEPLOY_GAS, 0, timeout_s)
    return created_address(key.address, nonce)


def _send(rpc: Rpc, key: Key, to: bytes, data: bytes, gas: int, value_wei: int, timeout_s: float) -> int:
    """Returns the nonce that was used. Raises DeployFailed if the transaction reverted."""
    nonce = quantity(rpc.call("eth_getTransactionCount", "0x" + key.address.hex(), "pending"), "nonce")
    tip = quantity(rpc.call("eth_maxPriorityFeePerGas"), "tip", 128)
    block = mapping(rpc.call("eth_getBlockByNumber", "latest", False), "block")
    fees = Fees(2 * quantity(block.get("baseFeePerGas"), "base fee", 128) + tip, tip)
    chain_id = quantity(rpc.call("eth_chainId"), "chain id")
    raw = key.sign_transaction(_transaction(chain_id, nonce, fees, gas, to, data, value_wei))
    tx_hash = octets(rpc.call("eth_sendRawTransaction", "0x" + raw.hex()), "transaction hash", 32)
    answer = _wait(lambda: rpc.call("eth_getTransactionReceipt", "0x" + tx_hash.hex()), timeout_s)
    if quantity(mapping(answer, "receipt").get("status"), "status") != 1:
        raise DeployFailed(f"transaction 0x{tx_hash.hex()} was reverted")
    return nonce


def _transaction(
    chain_id: int, nonce: int, fees: Fees, gas_limit: int, to: bytes, data: bytes, value_wei: int
) -> Transaction:
    return Transaction(chain_id, nonce, fees.priority_fee_wei, fees.max_fee_wei, gas_limit, to, value_wei, data)


def _wait(ask: Callable[[], T | None], timeout_s: float) -> T:
    deadline = time.monotonic() + timeout_s
    while (answer := ask()) is None:
        if time.monotonic() > deadline:
            raise ChainUnavailable(f"the transaction is in no block after {timeout_s} s")
        time.sleep(POLL_S)
    return answer
