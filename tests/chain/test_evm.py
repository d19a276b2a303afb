"""The real chain's port against a node that lies, stalls or floods: a proxy before anvil that edits its answers."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from devnet.anvil import Anvil, AnvilFault, AnvilOptions, find_anvil
from ledger import rpc
from ledger.actions import Open
from ledger.deploy import DeployFailed, act, created_address, deploy, transfer
from ledger.events import EventInvalid
from ledger.evm import EvmChain
from ledger.headers import HeaderInvalid
from ledger.ports import (
    ChainLies,
    ChainMoved,
    ChainUnavailable,
    ContractRefused,
    SendRefused,
    UnknownBlock,
    WrongChain,
)
from ledger.rpc import Rpc, RpcRefused
from ledger.transactions import Transaction, transaction_hash
from proofs.errors import LocalFault, PeerFault, WireFault

pytestmark = pytest.mark.anvil

Edit = Callable[[str, Any], Any]
BATCH = "many calls in one request"


class Proxy:
    """Forwards JSON-RPC to anvil; `edit` changes results, `raw` replaces whole answers (status, body)."""

    def __init__(self, target: str) -> None:
        self.edit: Edit = lambda method, result: result
        self.raw: Callable[[str], tuple[int, bytes] | None] = lambda method: None
        self.calls: list[str] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                method = request["method"] if isinstance(request, dict) else BATCH
                proxy.calls.append(method)
                status, body = proxy.raw(method) or (200, proxy.forward(target, request, method))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def forward(self, target: str, request: Any, method: str) -> bytes:
        answer = requests.post(target, json=request, timeout=10).json()
        if method == BATCH:
            answer = self.edit(method, answer)
        elif "result" in answer:
            answer["result"] = self.edit(method, answer["result"])
        return json.dumps(answer).encode()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def proxy(anvil_lab: Any) -> Iterator[Proxy]:
    standing = Proxy(anvil_lab.anvil.rpc_url)
    yield standing
    standing.close()


@pytest.fixture
def chain(anvil_lab: Any, proxy: Proxy) -> EvmChain:
    anvil_lab.to_train()
    return EvmChain(proxy.url, anvil_lab.chain.rounds_address)


def on(method: str, change: Callable[[Any], Any]) -> Edit:
    return lambda called, result: change(result) if called == method else result


def test_through_an_honest_wire_everything_is_the_same(anvil_lab: Any, chain: EvmChain) -> None:
    direct, head = anvil_lab.chain, anvil_lab.chain.head()
    assert chain.head() == head
    assert chain.events(0, 10**6) == direct.events(0, head.number)
    assert chain.receipts(head.number) == direct.receipts(head.number)
    assert chain.members() == direct.members()
    assert chain.balance(anvil_lab.cast.stranger.address) > 0
    with pytest.raises(UnknownBlock):
        chain.header(10**6)
    with pytest.raises(ContractRefused, match=r"UnknownRound\(9\)"):
        chain.round_view(9)
    with pytest.raises(ContractRefused, match=r"UnknownMember\(9\)"):
        chain.member(9)


def test_another_chain_or_address_is_refused_at_once(anvil_lab: Any, proxy: Proxy) -> None:
    url, rounds = proxy.url, anvil_lab.chain.rounds_address
    with pytest.raises(WrongChain, match="expected chain 1"):
        EvmChain(url, rounds, chain_id=1)
    with pytest.raises(WrongChain, match="no contract"):
        EvmChain(url, bytes(20))
    with pytest.raises((WrongChain, LocalFault, ChainLies)):
        EvmChain(url, anvil_lab.chain.federation_address)
    with pytest.raises(LocalFault, match="rpc_url"):
        EvmChain("ftp://127.0.0.1", rounds)
    other = deploy(url, anvil_lab.cast.coordinator, anvil_lab.cast.coordinator.address)
    assert other.rounds != rounds
    swapped = "0x" + other.federation.rjust(32, b"\x00").hex()
    proxy.edit = on("eth_call", lambda result: swapped)
    with pytest.raises(WrongChain, match="belongs to"):
        EvmChain(url, rounds)


LIES: list[tuple[str, str, Callable[[Any], Any], type[PeerFault]]] = [
    ("header", "eth_getBlockByNumber", lambda b: {**b, "mixHash": "0x" + "11" * 32}, HeaderInvalid),
    ("header", "eth_getBlockByNumber", lambda b: {**b, "hash": "0x" + "11" * 32}, HeaderInvalid),
    ("header", "eth_getBlockByNumber", lambda b: [b], ChainLies),
    ("other block", "eth_getBlockByNumber", lambda b: b, ChainLies),
    ("logs", "eth_getLogs", lambda logs: [{**logs[0], "address": "0x" + "11" * 20}], ChainLies),
    ("logs", "eth_getLogs", lambda logs: [{**logs[0], "blockNumber": "0xffffff"}], ChainLies),
    ("logs", "eth_getLogs", lambda logs: [{**logs[0], "removed": True}], ChainLies),
    ("logs", "eth_getLogs", lambda logs: [{**logs[0], "topics": ["0x" + "11" * 32]}], EventInvalid),
    ("logs", "eth_getLogs", lambda logs: [{**logs[0], "topics": ["0x11"]}], ChainLies),
    ("logs", "eth_getLogs", lambda logs: [{**logs[0], "topics": logs[0]["topics"] * 3}], ChainLies),
    ("logs", "eth_getLogs", lambda logs: [{**logs[0], "data": logs[0]["data"] + "00" * 32}], EventInvalid),
    ("logs", "eth_getLogs", lambda logs: [{**logs[0], "data": "0x" + "0" * (1 << 20)}], ChainLies),
    ("logs", "eth_getLogs", lambda logs: [{**logs[0], "data": "0xnothex!"}], ChainLies),
    ("logs", "eth_getLogs", lambda logs: [{**logs[0], "logIndex": "one"}], ChainLies),
    ("logs", "eth_getLogs", lambda logs: [logs[0], logs[0]], ChainLies),
    ("logs", "eth_getLogs", lambda logs: logs[::-1], ChainLies),
    ("logs", "eth_getLogs", lambda logs: {"0": logs[0]}, ChainLies),
    ("logs", "eth_getLogs", lambda logs: ["log"], ChainLies),
    ("receipts", "eth_getBlockReceipts", lambda receipts: receipts[1:], ChainLies),
    ("receipts", "eth_getBlockReceipts", lambda receipts: [{**receipts[0], "status": "0x0"}], ChainLies),
    ("receipts", "eth_getBlockReceipts", lambda receipts: [{**receipts[0], "logs": []}], ChainLies),
    ("receipts", "eth_getBlockReceipts", lambda receipts: None, ChainLies),
    ("members", "eth_call", lambda result: "0x" + "ff" * 32, ChainLies),
    ("members", "eth_call", lambda result: "0x", ChainLies),
    ("round", "eth_call", lambda result: "0x" + "63".rjust(64, "0") + result[66:], ChainLies),
    ("nonce", "eth_getTransactionCount", lambda result: "0x" + "f" * 17, ChainLies),
    ("nonce", "eth_getTransactionCount", lambda result: 7, ChainLies),
    ("nonce", "eth_getTransactionCount", lambda result: "0x", ChainLies),
    ("receipt", "eth_getTransactionReceipt", lambda r: {**r, "transactionHash": "0x" + "11" * 32}, ChainLies),
    ("receipt", "eth_getTransactionReceipt", lambda r: {**r, "status": None}, ChainLies),
]


@pytest.mark.parametrize("position", range(len(LIES)))
def test_a_lie_is_named(anvil_lab: Any, proxy: Proxy, chain: EvmChain, position: int) -> None:
    what, method, lie, error = LIES[position]
    head = anvil_lab.chain.head()
    last = anvil_lab.chain.events(0, head.number)[-1]
    ask: dict[str, Callable[[], Any]] = {
        "header": lambda: chain.header(1),
        "other block": lambda: chain.header(1),
        "logs": lambda: chain.events(0, head.number),
        "receipts": lambda: chain.receipts(head.number),
        "members": chain.members,
        "round": lambda: chain.round_view(1),
        "nonce": lambda: chain.nonce(bytes(20)),
        "receipt": lambda: chain.receipt(last.tx_hash),
    }
    if what == "other block":
        honest = anvil_lab.anvil.rpc("eth_getBlockByNumber", "0x2", False)
        proxy.edit = on(method, lambda _: honest)
    else:
        proxy.edit = on(method, lie)
    with pytest.raises(error):
        ask[what]()


def test_a_log_from_a_block_that_is_not_on_the_chain_is_a_reorg_or_a_lie(
    anvil_lab: Any, proxy: Proxy, chain: EvmChain
) -> None:
    proxy.edit = on("eth_getLogs", lambda logs: [{**logs[0], "blockHash": "0x" + "11" * 32}])
    with pytest.raises(ChainMoved):
        chain.events(0, anvil_lab.chain.head().number)


def test_a_receipt_from_a_block_that_is_not_on_the_chain_does_not_count(
    anvil_lab: Any, proxy: Proxy, chain: EvmChain
) -> None:
    logged = anvil_lab.chain.events(0, anvil_lab.chain.head().number)[-1]
    assert chain.receipt(logged.tx_hash) is not None
    for change in ({"blockHash": "0x" + "11" * 32}, {"blockNumber": "0xffffff"}):
        proxy.edit = on("eth_getTransactionReceipt", lambda receipt, change=change: {**receipt, **change})
        assert chain.receipt(logged.tx_hash) is None


@pytest.mark.parametrize(
    "answer",
    [
        (500, b"oops"),
        (302, b""),
        (200, b""),
        (200, b"<html>"),
        (200, b"[]"),
        (200, b"{}"),
        (200, b'{"result": 1, "error": {}}'),
        (200, b"[" * 100_000),
        (200, b'"' + b"x" * 5000 + b'"'),
        (200, b"\xff\xfe"),
    ],
)
def test_an_answer_that_is_none_is_the_wires_fault(
    proxy: Proxy, chain: EvmChain, answer: tuple[int, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "MAX_ANSWER_BYTES", 4096)
    proxy.raw = lambda method: answer
    with pytest.raises(ChainUnavailable):
        chain.nonce(bytes(20))


def test_errors_of_the_node_keep_what_it_said_but_not_for_ever(proxy: Proxy, chain: EvmChain) -> None:
    for error in ({"code": -32000, "message": "rate limited " * 1000}, "no object", {"code": "x", "data": {"data": 7}}):
        proxy.raw = lambda method, error=error: (200, json.dumps({"error": error}).encode())
        with pytest.raises(RpcRefused) as caught:
            chain.head()
        assert len(str(caught.value)) < 500
        assert isinstance(caught.value, WireFault)


def test_a_slow_node_is_given_up(anvil_lab: Any, proxy: Proxy) -> None:
    release = threading.Event()

    def wait(method: str) -> None:
        release.wait(5)

    proxy.raw = wait
    with pytest.raises(ChainUnavailable, match="Timeout"):
        Rpc(proxy.url, read_timeout_s=0.1).call("eth_chainId")
    release.set()


def test_an_answer_that_trickles_is_given_up() -> None:
    """Every byte comes within the time for one read, and the whole would take for ever."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def trickle() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while not stop.wait(0.02):
                    connection.sendall(b"x")

        thread = threading.Thread(target=trickle)
        thread.start()
        with pytest.raises(ChainUnavailable, match="Timeout"):
            Rpc(f"http://127.0.0.1:{server.getsockname()[1]}", read_timeout_s=0.3).call("eth_chainId")
        stop.set()
        thread.join()


def test_a_transaction_is_never_sent_twice_by_itself(anvil_lab: Any, proxy: Proxy, chain: EvmChain) -> None:
    """web3's provider would; whether to repeat is the outbox's decision."""
    key = anvil_lab.cast.stranger
    proxy.calls.clear()
    proxy.raw = lambda method: (500, b"") if method == "eth_sendRawTransaction" else None
    with pytest.raises(ChainUnavailable):
        chain.send_raw(key.sign_transaction(Transaction(31337, 0, 1, 1, 21000, bytes(20), 0, b"")))
    assert proxy.calls == ["eth_sendRawTransaction"]


def test_sending_is_decided_by_what_the_node_has(anvil_lab: Any, chain: EvmChain, proxy: Proxy) -> None:
    key = anvil_lab.cast.owners[0]
    nonce = chain.nonce(key.address)
    raw = key.sign_transaction(Transaction(31337, nonce, 10**9, 10**10, 21000, bytes(20), 0, b""))
    assert chain.send_raw(raw) == chain.send_raw(raw) == transaction_hash(raw)
    stale = key.sign_transaction(Transaction(31337, nonce, 10**9, 10**10, 21000, bytes(20), 1, b""))
    with pytest.raises(SendRefused):
        chain.send_raw(stale)
    proxy.edit = on("eth_sendRawTransaction", lambda result: "0x" + "11" * 32)
    with pytest.raises(ChainLies):
        chain.send_raw(key.sign_transaction(Transaction(31337, nonce + 1, 10**9, 10**10, 21000, bytes(20), 0, b"")))


def test_a_range_that_is_too_large_is_asked_in_halves(anvil_lab: Any, proxy: Proxy, chain: EvmChain) -> None:
    """Nodes limit the range of a query, each in words of its own."""
    head = anvil_lab.chain.head().number
    refusals = [(200, b'{"error": {"code": -32005, "message": "query returned more than 10000 results"}}')] * 3
    proxy.raw = lambda method: refusals.pop() if method == "eth_getLogs" and refusals else None
    assert chain.events(0, head) == anvil_lab.chain.events(0, head)
    assert proxy.calls.count("eth_getLogs") > 4


def test_many_headers_come_in_one_request_and_each_is_hashed_again(
    anvil_lab: Any, proxy: Proxy, chain: EvmChain
) -> None:
    """In whatever order the node answers; one that answers no batches is asked one by one (ledger.audit_blocks)."""
    head = anvil_lab.chain.head().number
    true = [anvil_lab.chain.header(number) for number in range(head + 1)]
    proxy.calls.clear()
    assert chain.headers_between(0, head) == true
    proxy.edit = on(BATCH, lambda answers: answers[::-1])
    assert chain.headers_between(0, head) == true
    assert proxy.calls == [BATCH, BATCH]
    edits: list[tuple[Callable[[Any], Any], type[Exception]]] = [
        (lambda answers: answers[1:], ChainUnavailable),
        (lambda answers: [answers[0], *answers[:-1]], ChainUnavailable),
        (lambda answers: {"error": {"code": -32600, "message": "no batches"}}, RpcRefused),
        (lambda answers: [*answers[:-1], {"id": head, "error": {"code": -32005, "message": "too many"}}], RpcRefused),
        (lambda answers: [*answers[:-1], answers[-1] | {"result": None}], UnknownBlock),
        (lambda answers: [answers[0] | {"result": answers[1]["result"]}, *answers[1:]], ChainLies),
        (lambda answers: [answers[0] | {"result": answers[0]["result"] | {"mixHash": "0x" + "11" * 32}}, *answers[1:]],
         HeaderInvalid),
    ]  # fmt: skip
    for edit, error in edits:
        proxy.edit = on(BATCH, edit)
        with pytest.raises(error):
            chain.headers_between(0, head)


def test_an_action_that_takes_too_much_gas_is_our_own_fault(anvil_lab: Any, proxy: Proxy, chain: EvmChain) -> None:
    proxy.edit = on("eth_estimateGas", lambda result: hex(1 << 30))
    with pytest.raises(LocalFault, match="gas"):
        chain.estimate(anvil_lab.cast.signers[0].address, anvil_lab.commitment(1, 0))


def test_a_revert_without_a_known_name_is_called_unknown(anvil_lab: Any, proxy: Proxy, chain: EvmChain) -> None:
    reverted = b'{"error": {"code": 3, "message": "execution reverted", "data": "0xdeadbeef"}}'
    proxy.raw = lambda method: (200, reverted) if method in ("eth_call", "eth_estimateGas") else None
    sender, action = anvil_lab.cast.signers[0].address, anvil_lab.commitment(1, 0)
    with pytest.raises(ContractRefused, match="Unknown"):
        chain.estimate(sender, action)
    assert chain.revert_reason(sender, action, 1).name == "Unknown"
    pruned = b'{"error": {"code": -32000, "message": "missing trie node"}}'
    proxy.raw = lambda method: (200, pruned) if method == "eth_call" else None
    assert chain.revert_reason(sender, action, 1).name == "Unknown"


def test_deploying_twice_gives_two_federations(anvil_lab: Any, policies: Any) -> None:
    lab, key = anvil_lab, anvil_lab.cast.coordinator
    second = deploy(lab.anvil.rpc_url, key, lab.cast.owners[0].address)
    chain = EvmChain(lab.anvil.rpc_url, second.rounds, chain_id=second.chain_id)
    assert chain.federation_address == second.federation != lab.chain.federation_address
    assert (chain.latest_round(), chain.global_bundle(), chain.members()) == (0, bytes(32), [])
    assert chain.events(second.block_number, chain.head().number) == []
    with pytest.raises(ContractRefused, match="AccessControlUnauthorizedAccount"):
        act(chain, key, Open(b"\x01" * 32, b"\x01" * 32, policies["plain"]))
    assert (
        created_address(bytes.fromhex("f39fd6e51aad88f6f4ce6ab8827279cfffb92266"), 0).hex().startswith("5fbdb2315678")
    )


def test_paying_and_failing_to_deploy(anvil_lab: Any, make_key: Any) -> None:
    url, rich, poor = anvil_lab.anvil.rpc_url, anvil_lab.cast.stranger, make_key("poor")
    transfer(url, rich, poor.address, 12345)
    assert anvil_lab.chain.balance(poor.address) == 12345
    with pytest.raises(WireFault):
        deploy(url, poor, poor.address)
    with pytest.raises(DeployFailed):
        deploy(url, rich, bytes(20))  # the constructor wants a coordinator


def test_an_empty_saved_state_does_not_pass_for_a_chain(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.touch()
    with pytest.raises(AnvilFault, match="empty"):
        Anvil(state_file=state)
    state.write_text("0xdeadbeef")
    with pytest.raises(AnvilFault):
        Anvil(state_file=state)


def test_saving_replaces_the_old_state_at_once(tmp_path: Path) -> None:
    with Anvil(AnvilOptions(), tmp_path / "state") as anvil:
        anvil.mine(3)
        anvil.save()
        anvil.mine(2)
        anvil.save()
        assert [path.name for path in tmp_path.iterdir()] == ["state"]
    with Anvil(AnvilOptions(), tmp_path / "state") as again:
        assert int(again.rpc("eth_blockNumber"), 16) == 5
        with pytest.raises(AnvilFault, match="refuses no_such_method"):
            again.rpc("no_such_method")
    again.stop()
    with pytest.raises(AnvilFault, match="does not answer"):
        again.rpc("eth_blockNumber")


def test_a_missing_binary_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_anvil().is_file()
    monkeypatch.setattr("devnet.anvil.PACKAGES", tmp_path)
    with pytest.raises(AnvilFault, match="npm install"):
        find_anvil()
    with pytest.raises(AnvilFault, match="npm install"):
        Anvil()
