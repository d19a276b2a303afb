"""The chain port on a real node, over JSON-RPC. Nothing that can be recomputed is believed.

Headers are hashed again; events are read strictly, only of our contract, and their blocks must be on the chain;
receipts must hash to the header's root. What cannot be checked without a state proof (nonces, balances, views) is taken
as the node's word and decides nothing that the rules do not check again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from eth_utils.crypto import keccak

from ledger.actions import Action, Target, calldata
from ledger.compiled import UNKNOWN_ERROR, ContractName, function, refusal
from ledger.events import address_bytes, decode_log
from ledger.evidence import MAX_RECEIPT_BYTES, RawLog, bloom_of, encode_receipt, receipts_root
from ledger.evidence import Receipt as ConsensusReceipt
from ledger.headers import Header
from ledger.log.events import decode_log_event
from ledger.log.records import Anchored, LogServer, Omission, Outcome
from ledger.ports import (
    ChainLies,
    ChainMoved,
    ContractRefused,
    Fees,
    Receipt,
    SendRefused,
    UnknownBlock,
    WrongChain,
    address_of,
)
from ledger.records import Logged, Member, MemberStatus, Phase, Policy, RoundView, VoidReason
from ledger.rpc import Rpc, RpcRefused, array, mapping, octets, quantity
from proofs.errors import LocalFault

BLOCKS_PER_QUERY: Final = 2000
MAX_LOGS_PER_QUERY: Final = 1 << 18
MAX_RECEIPTS: Final = 1 << 16
MAX_PROOF_NODES: Final = 64
MAX_MEMBERS: Final = 256
GAS_CAP: Final = 1 << 24  # EIP-7825: more than any transaction may use
REVERTED_CODE: Final = 3


class Place(NamedTuple):
    """Where the chain keeps a log."""

    block_number: int
    block_hash: bytes
    tx_hash: bytes
    log_index: int


class EvmChain:
    """Implements ChainPort for the Rounds contract at `rounds` (20 bytes), and the AuditLog at `log`."""

    def __init__(self, url: str, rounds: bytes, *, chain_id: int | None = None, log: bytes = b"") -> None:
        """Raises ChainUnavailable, or WrongChain if the chain or the contract is not the one that was meant."""
        self._rpc = Rpc(url)
        self._rounds = rounds
        self._log = log
        self._chain_id = quantity(self._rpc.call("eth_chainId"), "chain id")
        if chain_id is not None and chain_id != self._chain_id:
            raise WrongChain(f"expected chain {chain_id}, the endpoint serves chain {self._chain_id}")
        for address in filter(None, (rounds, log)):
            if not octets(self._rpc.call("eth_getCode", _hex(address), "latest"), "code"):
                raise WrongChain(f"there is no contract at {_hex(address)} on chain {self._chain_id}")
        self._federation = address_bytes(self._view("Rounds", "federation")[0])
        back = address_bytes(self._view("Federation", "rounds")[0])
        if back != rounds:
            raise WrongChain(f"the federation of {_hex(rounds)} belongs to {_hex(back)}")

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

    # ---- blocks and events

    def head(self) -> Header:
        return self._header("latest")

    def header(self, number: int) -> Header:
        header = self._header(hex(number))
        if header.number != number:
            raise ChainLies(f"asked for block {number}, got block {header.number}")
        return header

    def headers_between(self, first: int, last: int) -> list[Header]:
        """Blocks first…last in one request, each hashed again. Raises RpcRefused where the node takes no such thing."""
        numbers = range(first, last + 1)
        blocks = self._rpc.call_each("eth_getBlockByNumber", [(hex(number), False) for number in numbers])
        found = [Header.from_rpc(_present(block, number)) for number, block in zip(numbers, blocks, strict=True)]
        for number, header in zip(numbers, found, strict=True):
            if header.number != number:
                raise ChainLies(f"asked for block {number}, got block {header.number}")
        return found

    def events(self, first: int, last: int) -> list[Logged]:
        return [
            Logged(decode_log(raw.topics, raw.data), *place) for raw, place in self._logs(self._rounds, first, last)
        ]

    def log_events(self, first: int, last: int) -> list[Anchored]:
        found = self._logs(self._log, first, last) if self._log else []
        return [Anchored(decode_log_event(raw.topics, raw.data), *place) for raw, place in found]

    def _logs(self, address: bytes, first: int, last: int) -> list[tuple[RawLog, Place]]:
        last, found = min(last, self.head().number), []
        for start in range(max(first, 0), last + 1, BLOCKS_PER_QUERY):
            found += self._query(address, start, min(last, start + BLOCKS_PER_QUERY - 1))
        places = [(place.block_number, place.log_index) for _, place in found]
        if places != sorted(set(places)):
            raise ChainLies("logs are repeated or out of order")
        for number, block_hash in {(place.block_number, place.block_hash) for _, place in found}:
            if self.header(number).hash != block_hash:
                raise ChainMoved(f"a log of block {number} is from a block that is not on the chain")
        return found

    def receipts(self, number: int) -> list[bytes]:
        header = self.header(number)
        answer = array(self._rpc.call("eth_getBlockReceipts", hex(number)), "receipts", MAX_RECEIPTS)
        raws = [_encode_receipt(mapping(item, "receipt")) for item in answer]
        if receipts_root(raws) != header.receipts_root:
            raise ChainLies(f"the receipts of block {number} do not hash to its receipts root")
        return raws

    def code(self, address: bytes) -> bytes:
        """Runtime code at the head, on the node's word: ledger.audit_code compares it with what was compiled."""
        return octets(self._rpc.call("eth_getCode", _hex(address), "latest"), "code")

    def account_proof(self, address: bytes, number: int) -> list[bytes]:
        """EIP-1186: the nodes from the block's state root to the account. Not every node keeps old states."""
        answer = mapping(self._rpc.call("eth_getProof", _hex(address), [], hex(number)), "proof")
        return [octets(node, "node") for node in array(answer.get("accountProof"), "accountProof", MAX_PROOF_NODES)]

    def _header(self, tag: str) -> Header:
        return Header.from_rpc(self._block(tag))

    def _block(self, tag: str) -> Mapping[str, Any]:
        return _present(self._rpc.call("eth_getBlockByNumber", tag, False), tag)

    def _query(self, address: bytes, first: int, last: int) -> list[tuple[RawLog, Place]]:
        """Halves the range when the node finds it too large."""
        wanted = {"address": _hex(address), "fromBlock": hex(first), "toBlock": hex(last)}
        try:
            answer = self._rpc.call("eth_getLogs", wanted)
        except RpcRefused:
            if first == last:
                raise
            middle = (first + last) // 2
            return self._query(address, first, middle) + self._query(address, middle + 1, last)
        logs = array(answer, "logs", MAX_LOGS_PER_QUERY)
        return [_placed(mapping(log, "log"), address, first, last) for log in logs]

    # ---- views

    def member(self, number: int) -> Member:
        owner, status, signer, following, cap, spent, *verifiers = self._view("Federation", "getMember", number)[0]
        try:
            known = MemberStatus(status)
        except ValueError as error:
            raise ChainLies(f"member {number} has the unknown status {status}") from error
        keys = address_bytes(owner), known, address_bytes(signer), address_bytes(following)
        return Member(number, *keys, cap, spent, *verifiers)

    def members(self) -> list[Member]:
        count = self._view("Federation", "memberCount")[0]
        if count > MAX_MEMBERS:
            raise ChainLies(f"{count} members, at most {MAX_MEMBERS} are possible")
        return [self.member(number) for number in range(count)]

    def aggregators(self) -> list[bytes]:
        return [address_bytes(address) for address in self._view("Federation", "aggregators")[0]]

    def latest_round(self) -> int:
        return int(self._view("Rounds", "latestRound")[0])

    def global_bundle(self) -> bytes:
        return bytes(self._view("Rounds", "globalBundle")[0])

    def round_view(self, number: int) -> RoundView:
        phase, void, close, deadline, policy, *rest = self._view("Rounds", "getRound", number)[0]
        try:
            return RoundView(Phase(phase), VoidReason(void), close, deadline, Policy(*policy), *rest)
        except ValueError as error:
            raise ChainLies(f"round {number} is in an unknown phase") from error

    def log_server(self, address: bytes) -> LogServer:
        return LogServer(*self._view("AuditLog", "getServer", _hex(address))[0])

    def answer_blocks(self) -> int:
        return int(self._view("AuditLog", "answerBlocks")[0])

    def auditor_key(self, address: bytes) -> bytes:
        return bytes(self._view("AuditLog", "auditorKey", _hex(address))[0])

    def omission(self, server: bytes, receipt: bytes) -> Omission:
        outcome, late, answer_by = self._view("AuditLog", "omission", _hex(server), receipt)
        try:
            return Omission(Outcome(outcome), late, answer_by)
        except ValueError as error:
            raise ChainLies(f"an omission has the unknown outcome {outcome}") from error

    def _view(self, contract: ContractName, name: str, *arguments: Any) -> tuple[Any, ...]:
        called = function(contract, name)
        targets: dict[ContractName, Target] = {"Rounds": "rounds", "Federation": "federation", "AuditLog": "log"}
        to = address_of(self, targets[contract])
        call = {"to": _hex(to), "data": _hex(called.request(*arguments))}
        return called.answer(octets(self._simulate("eth_call", call, "latest"), name))

    # ---- transactions

    def nonce(self, address: bytes, *, pending: bool = False) -> int:
        tag = "pending" if pending else "latest"
        return quantity(self._rpc.call("eth_getTransactionCount", _hex(address), tag), "nonce")

    def balance(self, address: bytes) -> int:
        return quantity(self._rpc.call("eth_getBalance", _hex(address), "latest"), "balance", 256)

    def estimate(self, sender: bytes, action: Action) -> int:
        """On the pending state: its block number is the one that the action will see. A quarter more, for safety."""
        gas = quantity(self._simulate("eth_estimateGas", self._request(sender, action), "pending"), "gas")
        limit = gas + gas // 4 + 5000
        if limit > GAS_CAP:
            raise LocalFault(f"{type(action).__name__} would take {gas} gas, more than a transaction may use")
        return limit

    def fees(self) -> Fees:
        """Twice the present base fee and the node's suggested tip: enough for six full blocks in a row."""
        tip = quantity(self._rpc.call("eth_maxPriorityFeePerGas"), "tip", 128)
        base = quantity(self._block("latest").get("baseFeePerGas"), "base fee", 128)
        return Fees(2 * base + tip, tip)

    def send_raw(self, raw: bytes) -> bytes:
        """What the node says when it refuses is only shown to people: whether it has the transaction decides."""
        expected = keccak(raw)
        try:
            found = octets(self._rpc.call("eth_sendRawTransaction", _hex(raw)), "transaction hash", 32)
        except RpcRefused as error:
            if self._rpc.call("eth_getTransactionByHash", _hex(expected)) is None:
                raise SendRefused(str(error)) from error
            return expected
        if found != expected:
            raise ChainLies(f"sent transaction {expected.hex()}, the node calls it {found.hex()}")
        return expected

    def receipt(self, tx_hash: bytes) -> Receipt | None:
        answer = self._rpc.call("eth_getTransactionReceipt", _hex(tx_hash))
        if answer is None:
            return None
        receipt = _receipt(mapping(answer, "receipt"))
        if receipt.tx_hash != tx_hash:
            raise ChainLies("the receipt of another transaction than the one asked for")
        return receipt if self._on_chain(receipt) else None

    def revert_reason(self, sender: bytes, action: Action, block_number: int) -> ContractRefused:
        try:
            self._simulate("eth_call", self._request(sender, action), hex(block_number))
        except ContractRefused as refused:
            return refused
        except RpcRefused:  # the node no longer has that state
            pass
        return ContractRefused(UNKNOWN_ERROR)

    def _on_chain(self, receipt: Receipt) -> bool:
        try:
            return self.header(receipt.block_number).hash == receipt.block_hash
        except UnknownBlock:
            return False

    def _request(self, sender: bytes, action: Action) -> dict[str, str]:
        to = address_of(self, action.target)
        return {"from": _hex(sender), "to": _hex(to), "data": _hex(calldata(action))}

    def _simulate(self, method: str, call: dict[str, str], tag: str) -> Any:
        """Raises ContractRefused if the node says that the call reverts, RpcRefused if it says anything else."""
        try:
            return self._rpc.call(method, call, tag)
        except RpcRefused as error:
            if error.data or error.code == REVERTED_CODE:
                raise refusal(error.data) from error
            raise


def _present(block: Any, tag: object) -> Mapping[str, Any]:
    if block is None:
        raise UnknownBlock(f"the node has no block {tag}")
    return mapping(block, "block")


def _placed(log: Mapping[str, Any], address: bytes, first: int, last: int) -> tuple[RawLog, Place]:
    if octets(log.get("address"), "log.address", 20) != address:
        raise ChainLies("a log of another contract than the one asked for")
    number = quantity(log.get("blockNumber"), "log.blockNumber")
    if not first <= number <= last or log.get("removed") is True:
        raise ChainLies(f"a log of block {number}, asked for {first} to {last}")
    topics = tuple(octets(topic, "log.topic", 32) for topic in array(log.get("topics"), "log.topics", 4))
    place = Place(
        block_number=number,
        block_hash=octets(log.get("blockHash"), "log.blockHash", 32),
        tx_hash=octets(log.get("transactionHash"), "log.transactionHash", 32),
        log_index=quantity(log.get("logIndex"), "log.logIndex"),
    )
    return RawLog(address, topics, octets(log.get("data"), "log.data")), place


def _receipt(answer: Mapping[str, Any]) -> Receipt:
    return Receipt(
        tx_hash=octets(answer.get("transactionHash"), "receipt.transactionHash", 32),
        block_number=quantity(answer.get("blockNumber"), "receipt.blockNumber"),
        block_hash=octets(answer.get("blockHash"), "receipt.blockHash", 32),
        succeeded=quantity(answer.get("status"), "receipt.status") == 1,
        gas_used=quantity(answer.get("gasUsed"), "receipt.gasUsed"),
        gas_price_wei=quantity(answer.get("effectiveGasPrice"), "receipt.effectiveGasPrice", 128),
    )


def _encode_receipt(answer: Mapping[str, Any]) -> bytes:
    """The consensus encoding; its bloom is computed here, and the block's receipts root decides whether it is right."""
    logs = tuple(_raw_log(mapping(log, "log")) for log in array(answer.get("logs"), "logs", MAX_LOGS_PER_QUERY))
    return encode_receipt(
        ConsensusReceipt(
            kind=quantity(answer.get("type"), "receipt.type", 8),
            status=quantity(answer.get("status"), "receipt.status", 8),
            cumulative_gas=quantity(answer.get("cumulativeGasUsed"), "receipt.cumulativeGasUsed"),
            bloom=bloom_of(logs),
            logs=logs,
        )
    )


def _raw_log(log: Mapping[str, Any]) -> RawLog:
    topics = tuple(octets(topic, "log.topic", 32) for topic in array(log.get("topics"), "log.topics", 4))
    return RawLog(
        octets(log.get("address"), "log.address", 20),
        topics,
        octets(log.get("data"), "log.data", most=MAX_RECEIPT_BYTES),
    )


def _hex(data: bytes) -> str:
    return "0x" + data.hex()
