"""What a node may write where a number or bytes belong: one form, and nothing that Python would read generously."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ledger import rpc
from ledger.evm import EvmChain
from ledger.ports import ChainLies, ChainUnavailable
from ledger.rpc import octets, quantity

FORGED_NUMBERS = [
    "0x-1",
    "0x 1",
    "0x1 ",
    "0x1_0",
    "0x",
    "1",
    "0X1",
    "0x1\n",
    "0x" + "f" * 17,
    "0xg",
    "0x\uff11",
    1,
    None,
]
FORGED_BYTES = ["0xab cd", "0xabc", "0x ", "0xab\n", "ab", "0X00", "0x\uff11\uff11", "0xgg", b"\xab", None]


@pytest.mark.parametrize("value", FORGED_NUMBERS)
def test_a_quantity_has_one_form(value: Any) -> None:
    with pytest.raises(ChainLies):
        quantity(value, "number")


@pytest.mark.parametrize("value", FORGED_BYTES)
def test_bytes_have_one_form(value: Any) -> None:
    with pytest.raises(ChainLies):
        octets(value, "data")


@pytest.mark.parametrize("field", ["type", "status", "cumulativeGasUsed"])
def test_a_receipt_with_a_negative_number_is_a_lie_and_no_crash(field: str) -> None:
    receipt = {"type": "0x2", "status": "0x1", "cumulativeGasUsed": "0x5208", "logs": []}

    class Rpc:
        def call(self, method: str, *_: Any) -> Any:
            return [receipt | {field: "0x-1"}]

    chain: Any = EvmChain.__new__(EvmChain)
    chain._rpc = Rpc()
    chain.header = lambda number: None
    with pytest.raises(ChainLies):
        chain.receipts(1)


@pytest.fixture
def trickling_head() -> Iterator[str]:
    """A server that sends one header after the other, each in time, and never comes to the body."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def trickle() -> None:
            client, _ = server.accept()
            with client:
                client.recv(1 << 16)
                client.sendall(b"HTTP/1.1 200 OK\r\n")
                while not over.wait(0.05):
                    try:
                        client.sendall(b"X")
                    except OSError:
                        return

        thread = threading.Thread(target=trickle)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        over.set()
        thread.join()


def test_a_head_that_trickles_is_given_up_too(trickling_head: str) -> None:
    """Python's timeout is for each byte: a head of one byte every 29 seconds would take days to fill its limit."""
    began = time.monotonic()
    with pytest.raises(ChainUnavailable):
        rpc.Rpc(trickling_head, read_timeout_s=0.5).call("eth_chainId")
    assert time.monotonic() - began < 20
