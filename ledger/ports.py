"""The port to a chain: what the rest of Candor may ask of it. Two stand behind it: `ledger.evm` and `ledger.twin`.

WireFault
├── ChainUnavailable   the node did not answer, or not with what was asked for; ask again
└── UnknownBlock       the node has no such block (yet, or any more)
PeerFault
└── ChainLies          the node's answer contradicts itself or a hash; ask another node
LocalFault
├── WrongChain         this is not the chain or the contract that was configured
└── ContractRefused    the contract would revert, or did: `.name` is its error, `.arguments` its fields
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ledger.actions import Action, Target
from ledger.headers import Header, HeaderInvalid
from ledger.log.records import Anchored, LogServer, Omission
from ledger.records import Logged, Member, RoundView
from proofs.errors import LocalFault, PeerFault, WireFault

__all__ = [
    "ChainLies",
    "ChainMoved",
    "ChainPort",
    "ChainUnavailable",
    "ContractRefused",
    "Fees",
    "Header",
    "HeaderInvalid",
    "Receipt",
    "SendRefused",
    "UnknownBlock",
    "WrongChain",
    "address_of",
]


class ChainUnavailable(WireFault):
    """The node did not answer, or answered something else than it was asked; the same call may succeed later."""


class ChainMoved(WireFault):
    """Blocks changed between two answers of the node."""


class UnknownBlock(WireFault):
    """The node does not have this block."""


class SendRefused(WireFault):
    """The node did not take the transaction into its pool. What became of it is decided by nonce and receipt."""


class ChainLies(PeerFault):
    """The node's answer contradicts itself, a hash, or the rules of its encoding."""


class WrongChain(LocalFault):
    """The endpoint serves another chain, or there is no such contract on it."""


class ContractRefused(LocalFault):
    """A call that the contract reverts. `name` is the custom error, `arguments` its fields in declared order."""

    def __init__(self, name: str, arguments: tuple[object, ...] = ()) -> None:
        self.name = name
        self.arguments = arguments
        shown = ", ".join("0x" + a.hex() if isinstance(a, bytes) else str(a) for a in arguments)
        super().__init__(f"the contract refuses: {name}({shown})")


@dataclass(frozen=True)
class Receipt:
    """The outcome of a mined transaction; `succeeded` is False if it reverted."""

    tx_hash: bytes
    block_number: int
    block_hash: bytes
    succeeded: bool
    gas_used: int
    gas_price_wei: int


@dataclass(frozen=True)
class Fees:
    """What EIP-1559 asks for right now, per unit of gas: the most to pay in all, and the tip within it."""

    max_fee_wei: int
    priority_fee_wei: int


class ChainPort(Protocol):
    """Reads are of the latest block unless a number is given. Every method may raise ChainUnavailable or ChainLies."""

    @property
    def chain_id(self) -> int: ...

    @property
    def rounds_address(self) -> bytes:
        """20 bytes: the contract whose events are read and to which Rounds actions go."""
        ...

    @property
    def federation_address(self) -> bytes: ...

    @property
    def log_address(self) -> bytes:
        """The AuditLog contract; empty where none was named."""
        ...

    def head(self) -> Header: ...

    def header(self, number: int) -> Header:
        """The header at this height on the node's present chain; its hash is recomputed. Raises UnknownBlock."""
        ...

    def events(self, first: int, last: int) -> list[Logged]:
        """All events of Rounds in blocks first…last inclusive (clamped to the head), in the order of the chain.

        Nothing proves here that none is missing: ledger.rules does, through the transcript.
        """
        ...

    def log_events(self, first: int, last: int) -> list[Anchored]:
        """Those of AuditLog, likewise. A server's counters tell whether reports are missing, its root has the rest."""
        ...

    def receipts(self, number: int) -> list[bytes]:
        """The block's receipts in their consensus encoding (type byte ‖ RLP), in order: the leaves of receipts_root."""
        ...

    def member(self, number: int) -> Member: ...

    def members(self) -> list[Member]: ...

    def aggregators(self) -> list[bytes]:
        """Addresses in the order of failover, those in force for the latest round."""
        ...

    def latest_round(self) -> int:
        """0 before the first opening."""
        ...

    def global_bundle(self) -> bytes:
        """What the next round must start from; 32 zero bytes before the first opening."""
        ...

    def round_view(self, number: int) -> RoundView: ...

    def log_server(self, address: bytes) -> LogServer:
        """Raises ContractRefused for who never registered."""
        ...

    def answer_blocks(self) -> int:
        """How long a reported server may take to answer: an immutable of the AuditLog, on the node's word."""
        ...

    def auditor_key(self, address: bytes) -> bytes:
        """Zero for who is no auditor."""
        ...

    def omission(self, server: bytes, receipt: bytes) -> Omission:
        """`receipt`: the promise's digest."""
        ...

    def nonce(self, address: bytes, *, pending: bool = False) -> int:
        """Transactions of the address mined so far; with `pending`, and those in the node's pool."""
        ...

    def balance(self, address: bytes) -> int:
        """In wei."""
        ...

    def estimate(self, sender: bytes, action: Action) -> int:
        """Gas limit (with a margin) for the action in the next block. Raises ContractRefused if it would revert."""
        ...

    def fees(self) -> Fees: ...

    def send_raw(self, raw: bytes) -> bytes:
        """Hand in a signed transaction, once, with no retry; returns its hash (keccak of `raw`).

        Raises SendRefused if the pool does not take it. A transaction that it already has, or that is already mined,
        counts as taken.
        """
        ...

    def receipt(self, tx_hash: bytes) -> Receipt | None:
        """None as long as the transaction is in no block of the node's present chain."""
        ...

    def revert_reason(self, sender: bytes, action: Action, block_number: int) -> ContractRefused:
        """Why a mined call failed: it is replayed on the block's state. Named "Unknown" if it would now succeed."""
        ...


def address_of(chain: ChainPort, target: Target) -> bytes:
    """Where an action goes. Raises WrongChain if no AuditLog was named."""
    if target == "log":
        if not chain.log_address:
            raise WrongChain("no AuditLog contract was named for this chain")
        return chain.log_address
    return chain.rounds_address if target == "rounds" else chain.federation_address
