"""What the client makes of gateways that lie, stall, send for ever, or have not what was asked for."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from threading import Event, Thread

import pytest

from ledger.content import (
    Cid,
    ContentMissing,
    GatewayStore,
    GatewayUrlInvalid,
    LimitExceeded,
    Limits,
    MemoryStore,
    NotCanonicalBlock,
    PeeredStore,
    ReadOnlyStore,
)
from ledger.content.cid import Block, Codec
from ledger.content.dagpb import DIRECTORY_DATA, Link, Node, encode_node
from ledger.content.gateway import CAR_TYPE, RAW_TYPE

Answer = Callable[[BaseHTTPRequestHandler], None]
StartServer = Callable[[Answer], str]
SMALL = {"a": b"first", "d/b": b"second"}


def reply(handler: BaseHTTPRequestHandler, body: bytes, media_type: str, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    for name, value in {"Content-Type": media_type, "Content-Length": str(len(body)), **given}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def car_of(files: dict[str, bytes]) -> bytes:
    store, sink = MemoryStore(), io.BytesIO()
    store.export_car([store.put_directory(files)], sink)
    return sink.getvalue()


def endless(handler: BaseHTTPRequestHandler, media_type: str, chunk: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", media_type)
    handler.end_headers()
    while True:
        handler.wfile.write(chunk)


def _forged(handler: BaseHTTPRequestHandler) -> None:
    reply(handler, car_of(SMALL).replace(b"second", b"forged"), CAR_TYPE)


LIES: dict[str, tuple[Answer, str]] = {
    "wrong bytes": (_forged, "do not hash"),
    "another directory": (lambda handler: reply(handler, car_of({"a": b"other"}), CAR_TYPE), "was asked for"),
    "a truncated CAR": (lambda handler: reply(handler, car_of(SMALL)[:-9], CAR_TYPE), "truncated"),
    "a CAR without a block": (lambda handler: reply(handler, car_of(SMALL)[:-43], CAR_TYPE), "ends without|truncated"),
    "an endless body of noise": (lambda handler: endless(handler, CAR_TYPE, b"\x01" * 65536), "a CAR header|version 1"),
    "an endless CAR": (
        lambda handler: endless(handler, CAR_TYPE, car_of({"z": b"z"})), "was asked for"),
    "a web page": (lambda handler: reply(handler, b"<html>", "text/html"), "sent 'text/html'"),
    "a raw block for a CAR": (lambda handler: reply(handler, b"x", RAW_TYPE), "instead of"),
    "a compressed body": (lambda handler: reply(handler, b"x", CAR_TYPE, Content_Encoding="gzip"), "compressed"),
    "an absurd length": (
        lambda handler: reply(handler, b"x", CAR_TYPE, Content_Length=str(1 << 60)), "announced 1152921504606846976"),
    "a redirect": (
        lambda handler: reply(handler, b"", CAR_TYPE, 302, Location="http://127.0.0.1:9/secret"), "never followed"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_gateway_is_recorded_and_the_next_is_asked(
    memory: MemoryStore, gateway: str, http_server: StartServer, limits: Limits, lie: str
) -> None:
    answer, message = LIES[lie]
    liar = http_server(answer)
    digest = memory.put_directory(SMALL)
    assert GatewayStore([liar, gateway], timeout_s=20).get_directory(digest, limits) == SMALL
    with pytest.raises(ContentMissing, match=message) as caught:
        GatewayStore([liar], timeout_s=20).get_directory(digest, limits)
    (attempt,) = caught.value.attempts
    assert attempt.where == liar
    assert attempt.lied


@pytest.mark.parametrize(
    ("status", "message"), [(404, "does not have it"), (410, "does not have it"), (500, "HTTP 500"), (429, "HTTP 429")]
)
def test_a_gateway_that_cannot_is_not_called_a_liar(
    http_server: StartServer, limits: Limits, status: int, message: str
) -> None:
    url = http_server(lambda handler: reply(handler, b"no", "text/plain", status))
    with pytest.raises(ContentMissing, match=message) as caught:
        GatewayStore([url]).get_directory(bytes(32), limits)
    assert not caught.value.attempts[0].lied


def test_wrong_endless_and_foreign_raw_blocks_are_recorded(memory: MemoryStore, http_server: StartServer) -> None:
    digest = memory.put_raw(b"config")
    cases: list[tuple[Answer, str]] = [
        (lambda handler: reply(handler, b"forged", RAW_TYPE), "do not hash"),
        (lambda handler: endless(handler, RAW_TYPE, b"x" * 65536), "more than 2097152 bytes"),
        (lambda handler: reply(handler, b"config", "text/plain"), "sent 'text/plain'"),
    ]
    for answer, message in cases:
        with pytest.raises(ContentMissing, match=message) as caught:
            GatewayStore([http_server(answer)], timeout_s=20).get_raw(digest, 100)
        assert caught.value.attempts[0].lied


def test_a_connection_closed_half_way_is_not_content(memory: MemoryStore, http_server: StartServer) -> None:
    digest = memory.put_raw(b"config")
    url = http_server(lambda handler: reply(handler, b"conf", RAW_TYPE, Content_Length="6"))
    with pytest.raises(ContentMissing, match=r"closed the connection after 4 of 6|IncompleteRead"):
        GatewayStore([url], timeout_s=5).get_raw(digest, 100)


@pytest.mark.parametrize("stalls", ["before the status", "in the headers", "in the body", "byte by byte"])
def test_a_slow_gateway_is_cut_off_at_the_deadline(stalls: str) -> None:
    """Each byte comes well within any time limit for a single read; only the deadline for the whole ends it."""
    listener = socket.create_server(("127.0.0.1", 0))
    stop = Event()

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {RAW_TYPE}\r\nContent-Length: 1000000\r\n".encode()
            slow = {"before the status": b"", "in the headers": head[:30], "in the body": head + b"\r\nxx"}
            connection.sendall(slow.get(stalls, head + b"\r\n"))
            while stalls != "before the status" and not stop.wait(0.02):
                try:
                    connection.sendall(b"x" if stalls != "in the body" else b"")
                except OSError:
                    return
            stop.wait(30)

    server = Thread(target=answer)
    server.start()
    began = time.monotonic()
    try:
        with pytest.raises(ContentMissing, match=r"not done after 0.5 s"):
            GatewayStore([f"http://127.0.0.1:{listener.getsockname()[1]}"], timeout_s=0.5).get_raw(bytes(32), 100)
        assert time.monotonic() - began < 20
    finally:
        stop.set()
        server.join()
        listener.close()


def test_a_silent_gateway_is_given_up_long_before_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.content.http_get._STALL_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(ContentMissing, match="does not answer"):
        GatewayStore([f"http://127.0.0.1:{listener.getsockname()[1]}"], timeout_s=250).get_raw(bytes(32), 100)


def test_a_gateway_that_speaks_no_http_is_unavailable(http_server: StartServer) -> None:
    url = http_server(lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH\r\n") and None)
    with pytest.raises(ContentMissing, match="BadStatusLine"):
        GatewayStore([url], timeout_s=5).get_raw(bytes(32), 100)


@pytest.mark.parametrize("status", [400, 406, 501])
def test_a_gateway_without_cars_is_read_block_by_block(
    memory: MemoryStore, http_server: StartServer, bundle: dict[str, bytes], limits: Limits, status: int
) -> None:
    asked: list[str] = []

    def blocks_only(handler: BaseHTTPRequestHandler) -> None:
        path, _, query = handler.path.partition("?")
        asked.append(query)
        if query == "format=raw":
            reply(handler, memory.get_block(Cid.parse(path.removeprefix("/ipfs/"))), RAW_TYPE)
        else:
            reply(handler, b"", "text/plain", status)

    digest = memory.put_directory(bundle)
    assert GatewayStore([http_server(blocks_only)]).get_directory(digest, limits) == bundle
    assert asked[0] == "format=car&dag-scope=all"


def test_content_that_breaks_a_rule_is_its_authors_fault_on_every_transport(
    memory: MemoryStore, gateway: str, limits: Limits
) -> None:
    leaf = Block.of(Codec.RAW, b"x")
    evil = Block.of(Codec.DAG_PB, encode_node(Node((Link(leaf.cid, "f", 2),), DIRECTORY_DATA)))
    memory.put_blocks([leaf], [evil])
    with pytest.raises(NotCanonicalBlock, match="2 bytes declared, 1 found"):
        GatewayStore([gateway]).get_directory(evil.cid.digest, limits)
    with pytest.raises(NotCanonicalBlock, match="2 bytes declared, 1 found"):
        PeeredStore(MemoryStore(), [memory, GatewayStore([gateway])]).get_directory(evil.cid.digest, limits)


def test_a_bundle_over_the_limits_is_refused_before_its_files_are_sent(
    memory: MemoryStore, gateway: str, bundle: dict[str, bytes]
) -> None:
    digest = memory.put_directory(bundle)
    with pytest.raises(LimitExceeded):
        GatewayStore([gateway]).get_directory(digest, Limits(16, 1 << 20, 1 << 30, 4))


def test_a_gateway_stores_nothing_and_exports_what_it_fetched(
    memory: MemoryStore, gateway: str, limits: Limits
) -> None:
    client = GatewayStore([gateway])
    for write in (
        lambda: client.put_directory({}),
        lambda: client.put_raw(b""),
        lambda: client.import_car(io.BytesIO(), limits),
    ):
        with pytest.raises(ReadOnlyStore):
            write()
    sink = io.BytesIO()
    client.export_car([memory.put_directory(SMALL)], sink)
    assert sink.getvalue() == car_of(SMALL)


@pytest.mark.parametrize(
    "url",
    ["", "gateway", "ftp://host", "http://", "http://user:pw@host", "http://host?x=1", "http://host#x", "http://h:99999",
     "file:///etc/passwd", "unix:///run/x"],
)  # fmt: skip
def test_addresses_that_are_no_gateway_are_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(GatewayUrlInvalid) as caught:
        GatewayStore([url])
    assert "pw" not in str(caught.value)
