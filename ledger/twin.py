"""An in-memory chain behind the port of ledger.ports, for tests: it takes the same signed transactions as a real one.

It mines on demand (or at once, with `automine`), can be reorganised, and produces headers and receipts that hash and
verify like Ethereum's. Not simulated: gas (a constant), state roots (zero), and any contract but Candor's three.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import rlp
from eth_utils.crypto import keccak

from ledger.actions import Action, CalldataInvalid, FederationAction, Target, decode_calldata
from ledger.eip712 import Domain
from ledger.events import encode_log
from ledger.evidence import RawLog, bloom_of, encode_receipt, receipts_root
from ledger.evidence import Receipt as ConsensusReceipt
from ledger.headers import Header
from ledger.history import History
from ledger.log.actions import LogAction
from ledger.log.events import encode_log_event
from ledger.log.records import Anchored, LogServer, Omission
from ledger.ports import ChainUnavailable, ContractRefused, Fees, Receipt, SendRefused, UnknownBlock, address_of
from ledger.records import Logged, Member, RoundView
from ledger.round_state import view
from ledger.transactions import Transaction, TransactionInvalid, parse_transaction, transaction_hash
from ledger.twin_federation import FederationState, at, execute
from ledger.twin_log import LogState, omission_at, server_at
from ledger.twin_log import execute as execute_log
from ledger.twin_rounds import Call, Context, World

GAS_USED = 100_000
GAS_LIMIT = 200_000
HASHES_REMEMBERED = 8191  # EIP-2935
GENESIS_TIME = 1_750_000_000
EMPTY_UNCLES = keccak(rlp.encode([]))


@dataclass(frozen=True)
class Pooled:
    """A transaction waiting for its block."""

    raw: bytes
    hash: bytes
    transaction: Transaction
    sender: bytes


@dataclass(frozen=True)
class Ledger:
    """Everything that a transaction can change."""

    world: World
    nonces: Mapping[bytes, int]
    balances: Mapping[bytes, int]


@dataclass(frozen=True)
class Block:
    header: Header
    ledger: Ledger
    receipts: tuple[bytes, ...] = ()
    outcomes: Mapping[bytes, Receipt] = field(default_factory=dict)
    logs: tuple[Logged | Anchored, ...] = ()


class TwinChain:
    """Implements ChainPort; beyond it `mine`, `reorg`, `drop_pool`, and the switches that are its public attributes."""

    def __init__(
        self,
        *,
        admin: bytes,
        coordinator: bytes,
        balances: Mapping[bytes, int],
        chain_id: int = 31337,
        automine: bool = True,
        answer_blocks: int = 20,
    ) -> None:
        self._chain_id = chain_id
        self._rounds = keccak(text=f"twin/rounds/{chain_id}")[-20:]
        self._federation = keccak(text=f"twin/federation/{chain_id}")[-20:]
        self._log = keccak(text=f"twin/log/{chain_id}")[-20:]
        self.automine = automine
        self.available = True
        self.base_fee_wei = 10**9
        self.hashes_remembered = HASHES_REMEMBERED
        self._lock = threading.RLock()
        self._forks = 0
        self._pool: dict[tuple[bytes, int], Pooled] = {}
        federation = FederationState(chain_id, self._federation, admin, coordinator, rounds=self._rounds)
        log = LogState(Domain(chain_id, self._log), answer_blocks)
        world = World(federation, History(Domain(chain_id, self._rounds)), log)
        genesis = self._header(0, bytes(32), (), ())
        self._blocks = [Block(genesis, Ledger(world, {}, dict(balances)))]

    # ---- what only a twin can do

    def mine(self, blocks: int = 1) -> None:
        """Mine this many blocks, the first with all transactions that can be included."""
        with self._lock:
            for _ in range(blocks):
                self._mine_one()

    def reorg(self, depth: int) -> None:
        """Replace the last `depth` blocks by empty ones. As on anvil, their transactions do not return to the pool."""
        with self._lock:
            del self._blocks[-depth:]
            self._forks += 1
            pool, self._pool = self._pool, {}
            self.mine(depth)
            self._pool = pool

    def drop_pool(self) -> None:
        """Forget every transaction that waits for a block."""
        self._pool.clear()

    # ---- the port

    @property
    def chain_id(self) -> int:
        return self._chain_id

    @property
    def rounds_address(self) -> bytes:
        return self._rounds

    @property
    def federation_address(self) -> bytes:
        return self._federation

    @property
    def log_address(self) -> bytes:
        return self._log

    def head(self) -> Header:
        return self._tip().header

    def header(self, number: int) -> Header:
        return self._block(number).header

    def events(self, first: int, last: int) -> list[Logged]:
        self._require_available()
        blocks = self._blocks[max(first, 0) : last + 1]
        return [logged for block in blocks for logged in block.logs if isinstance(logged, Logged)]

    def log_events(self, first: int, last: int) -> list[Anchored]:
        self._require_available()
        blocks = self._blocks[max(first, 0) : last + 1]
        return [logged for block in blocks for logged in block.logs if isinstance(logged, Anchored)]

    def receipts(self, number: int) -> list[bytes]:
        return list(self._block(number).receipts)

    def member(self, number: int) -> Member:
        return at(self._tip().ledger.world.federation, number)

    def members(self) -> list[Member]:
        return list(self._tip().ledger.world.federation.members)

    def aggregators(self) -> list[bytes]:
        return list(self._tip().ledger.world.federation.aggregators)

    def latest_round(self) -> int:
        return self._tip().ledger.world.history.latest

    def global_bundle(self) -> bytes:
        return self._tip().ledger.world.history.global_bundle or bytes(32)

    def round_view(self, number: int) -> RoundView:
        tip = self._tip()
        state = tip.ledger.world.history.rounds.get(number)
        if state is None:
            raise ContractRefused("UnknownRound", (number,))
        return view(state, tip.header.number)

    def log_server(self, address: bytes) -> LogServer:
        return server_at(self._tip().ledger.world.log, address)

    def answer_blocks(self) -> int:
        return self._tip().ledger.world.log.answer_blocks

    def auditor_key(self, address: bytes) -> bytes:
        return self._tip().ledger.world.log.auditor_keys.get(address, bytes(32))

    def omission(self, server: bytes, receipt: bytes) -> Omission:
        tip = self._tip()
        return omission_at(tip.ledger.world.log, server, receipt, tip.header.number)

    def nonce(self, address: bytes, *, pending: bool = False) -> int:
        nonce = self._tip().ledger.nonces.get(address, 0)
        while pending and (address, nonce) in self._pool:
            nonce += 1
        return nonce

    def balance(self, address: bytes) -> int:
        return self._tip().ledger.balances.get(address, 0)

    def estimate(self, sender: bytes, action: Action) -> int:
        tip = self._tip()
        number, ledger, pool = tip.header.number + 1, tip.ledger, dict(self._pool)
        logs = 0
        while (pooled := self._next(ledger, pool)) is not None:
            ledger, fresh, _ = self._execute(ledger, pooled, number, logs)
            logs += len(fresh)
        self._call(ledger.world, sender, action, number, first_log=logs)
        return GAS_LIMIT

    def fees(self) -> Fees:
        self._require_available()
        return Fees(max_fee_wei=2 * self.base_fee_wei + 10**9, priority_fee_wei=10**9)

    def send_raw(self, raw: bytes) -> bytes:
        self._require_available()
        try:
            transaction, sender = parse_transaction(raw)
        except TransactionInvalid as error:
            raise SendRefused(str(error)) from error
        pooled = Pooled(raw, transaction_hash(raw), transaction, sender)
        with self._lock:
            if self.receipt(pooled.hash) is None:
                self._check_pooled(pooled)
                self._pool[sender, transaction.nonce] = pooled
                if self.automine:
                    self.mine()
        return pooled.hash

    def receipt(self, tx_hash: bytes) -> Receipt | None:
        self._require_available()
        found = (block.outcomes[tx_hash] for block in self._blocks if tx_hash in block.outcomes)
        return next(found, None)

    def revert_reason(self, sender: bytes, action: Action, block_number: int) -> ContractRefused:
        try:
            self._call(self._block(block_number).ledger.world, sender, action, block_number)
        except ContractRefused as refused:
            return refused
        return ContractRefused("Unknown")

    # ---- mining

    def _mine_one(self) -> None:
        parent = self._blocks[-1]
        number, ledger = parent.header.number + 1, parent.ledger
        logs: list[Logged | Anchored] = []
        receipts: list[ConsensusReceipt] = []
        included: list[Pooled] = []
        while (pooled := self._next(ledger, self._pool)) is not None:
            ledger, fresh, succeeded = self._execute(ledger, pooled, number, len(logs))
            included.append(pooled)
            receipts.append(self._consensus_receipt(fresh, succeeded, GAS_USED * len(included)))
            logs += fresh
        self._append(number, ledger, logs, receipts, included)

    def _append(
        self,
        number: int,
        ledger: Ledger,
        logs: list[Logged | Anchored],
        receipts: list[ConsensusReceipt],
        included: list[Pooled],
    ) -> None:
        """Now that the block's hash is known, write it into its logs wherever they are kept."""
        raws = tuple(map(encode_receipt, receipts))
        header = self._header(number, self._blocks[-1].header.hash, raws, tuple(logs))
        price = self.base_fee_wei + 10**9
        outcomes = {
            pooled.hash: Receipt(pooled.hash, number, header.hash, receipt.status == 1, GAS_USED, price)
            for pooled, receipt in zip(included, receipts, strict=True)
        }
        stamped = tuple(replace(logged, block_hash=header.hash) for logged in logs)
        ledger = replace(ledger, world=_stamp(ledger.world, number, header.hash))
        self._blocks.append(Block(header, ledger, raws, outcomes, stamped))

    def _next(self, ledger: Ledger, pool: dict[tuple[bytes, int], Pooled]) -> Pooled | None:
        """Take the next transaction out of `pool` that can be included now."""
        for (sender, nonce), pooled in pool.items():
            affordable = pooled.transaction.max_fee_wei >= self.base_fee_wei
            if nonce == ledger.nonces.get(sender, 0) and affordable:
                return pool.pop((sender, nonce))
        return None

    def _execute(
        self, ledger: Ledger, pooled: Pooled, number: int, first_log: int
    ) -> tuple[Ledger, list[Logged | Anchored], bool]:
        sender, transaction = pooled.sender, pooled.transaction
        nonces = {**ledger.nonces, sender: transaction.nonce + 1}
        balances = dict(ledger.balances)
        balances[sender] -= GAS_USED * (self.base_fee_wei + 10**9) + transaction.value_wei
        balances[transaction.to] = balances.get(transaction.to, 0) + transaction.value_wei
        paid = replace(ledger, nonces=nonces, balances=balances)
        action = self._action(transaction)
        if action is None:
            return paid, [], transaction.to not in (self._rounds, self._federation, self._log)
        try:
            world, logs = self._call(ledger.world, sender, action, number, pooled.hash, first_log)
        except ContractRefused:
            return paid, [], False
        return replace(paid, world=world), logs, True

    def _action(self, transaction: Transaction) -> Action | None:
        targets: tuple[Target, ...] = ("rounds", "federation", "log")
        try:
            for target in targets:
                if transaction.to == address_of(self, target):
                    return decode_calldata(target, transaction.data)
        except CalldataInvalid:
            return None
        return None

    def _call(
        self, world: World, sender: bytes, action: Action, number: int, tx_hash: bytes = b"", first_log: int = 0
    ) -> tuple[World, list[Logged | Anchored]]:
        if isinstance(action, FederationAction):
            return replace(world, federation=execute(world.federation, sender, action)), []
        if isinstance(action, LogAction):
            log, event = execute_log(world.log, sender, number, action)
            where = (number, b"", tx_hash, first_log)
            return replace(world, log=log), [] if event is None else [Anchored(event, *where)]
        context = Context(sender, number, b"", tx_hash, first_log, lambda n: self._remembered(n, number))
        call = Call(world, context)
        call.run(action)
        return call.world, list(call.logs)

    def _remembered(self, number: int, now: int) -> bytes | None:
        near = now - self.hashes_remembered <= number < now and number < len(self._blocks)
        return self._blocks[number].header.hash if near else None

    def _header(
        self, number: int, parent: bytes, receipts: tuple[bytes, ...], logs: tuple[Logged | Anchored, ...]
    ) -> Header:
        mix_hash = keccak(parent + number.to_bytes(8) + self._forks.to_bytes(8))
        bloom = bloom_of(map(self._raw_log, logs))
        root, time = receipts_root(receipts), GENESIS_TIME + number
        zero, nonce = bytes(32), bytes(8)
        fields = [parent, EMPTY_UNCLES, bytes(20), zero, zero, root, bloom, 0, number, 30_000_000]
        fields += [GAS_USED * len(receipts), time, b"twin", mix_hash, nonce, self.base_fee_wei]
        return Header.parse(bytes(rlp.encode(fields)))

    def _raw_log(self, logged: Logged | Anchored) -> RawLog:
        if isinstance(logged, Anchored):
            return RawLog(self._log, *encode_log_event(logged.event))
        return RawLog(self._rounds, *encode_log(logged.event))

    def _consensus_receipt(self, logs: list[Logged | Anchored], succeeded: bool, gas: int) -> ConsensusReceipt:
        raw = tuple(map(self._raw_log, logs))
        return ConsensusReceipt(kind=2, status=int(succeeded), cumulative_gas=gas, bloom=bloom_of(raw), logs=raw)

    def _check_pooled(self, pooled: Pooled) -> None:
        """What a node asks before it takes a transaction into its pool."""
        transaction, sender = pooled.transaction, pooled.sender
        if transaction.chain_id != self._chain_id:
            raise SendRefused("invalid chain id for signer")
        if transaction.nonce < self.nonce(sender):
            raise SendRefused("nonce too low")
        cost = transaction.value_wei + transaction.gas_limit * transaction.max_fee_wei
        if self.balance(sender) < cost:
            raise SendRefused("insufficient funds for gas * price + value")
        old = self._pool.get((sender, transaction.nonce))
        if (
            old is not None
            and old.hash != pooled.hash
            and 10 * transaction.max_fee_wei < 11 * old.transaction.max_fee_wei
        ):
            raise SendRefused("replacement transaction underpriced")

    def _require_available(self) -> None:
        if not self.available:
            raise ChainUnavailable("the twin is switched off")

    def _tip(self) -> Block:
        self._require_available()
        return self._blocks[-1]

    def _block(self, number: int) -> Block:
        self._require_available()
        if not 0 <= number < len(self._blocks):
            raise UnknownBlock(f"block {number}: the head is {len(self._blocks) - 1}")
        return self._blocks[number]


def _stamp(world: World, number: int, block_hash: bytes) -> World:
    def stamped(logged: Logged) -> Logged:
        return replace(logged, block_hash=block_hash) if logged.block_number == number else logged

    rounds = {n: replace(state, log=tuple(map(stamped, state.log))) for n, state in world.history.rounds.items()}
    return replace(world, history=replace(world.history, rounds=rounds))
