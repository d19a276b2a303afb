"""Gateways: what ours answers, and what its client makes of gateways that lie, stall or send for ever."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event, Thread

import pytest

from ledger.content import (
    Cid,
    ContentMissing,
    EmbeddedStore,
    GatewayServer,
    GatewayStore,
    GatewayUrlInvalid,
    LimitExceeded,
    Limits,
    MemoryStore,
    NotCanonicalBlock,
    PeeredStore,
    ReadOnlyStore,
    StoreDamaged,
    serve,
)
from ledger.content.cid import Block, Codec
from ledger.content.dagpb import DIRECTORY_DATA, Link, Node, encode_node
from ledger.content.gateway import CAR_TYPE, RAW_TYPE

Answer = Callable[[BaseHTTPRequestHandler], None]
StartServer = Callable[[Answer], str]
SMALL = {"a": b"first", "d/b": b"second"}


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def gateway(memory: MemoryStore) -> Iterator[str]:
    with serve(memory) as serving:
        yield serving.url


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


# What our gateway answers


def test_a_directory_and_a_config_are_read_from_our_gateway(
    memory: MemoryStore, gateway: str, bundle: dict[str, bytes], limits: Limits
) -> None:
    client = GatewayStore([gateway])
    assert client.get_directory(memory.put_directory(bundle), limits) == bundle
    assert client.get_raw(memory.put_raw(b"config"), 6) == b"config"


def test_what_the_gateway_has_not_is_missing_everywhere_it_was_asked(gateway: str, limits: Limits) -> None:
    with pytest.raises(ContentMissing) as caught:
        GatewayStore([gateway, gateway + "/"]).get_directory(bytes(32), limits)
    assert [attempt.what for attempt in caught.value.attempts] == ["HTTP 404: does not have it"] * 2


def test_raw_and_car_have_their_types_and_are_immutable(memory: MemoryStore) -> None:
    cid = Cid.directory(memory.put_directory(SMALL))
    server = GatewayServer(memory)
    raw, car = server.handle(f"/ipfs/{cid}", "format=raw"), server.handle(f"/ipfs/{cid}", "format=car&dag-scope=all")
    assert b"".join(raw.body) == memory.get_block(cid)
    assert b"".join(car.body) == car_of(SMALL)
    assert raw.headers["Content-Type"] == RAW_TYPE
    assert car.headers["Content-Type"].startswith(CAR_TYPE + "; version=1")
    for answer in (raw, car):
        assert answer.status == 200
        assert "immutable" in answer.headers["Cache-Control"]
        assert str(cid) in answer.headers["Etag"]
    assert car.headers["Content-Length"] == str(len(car_of(SMALL)))


def test_accept_says_the_same_as_format_and_format_wins(memory: MemoryStore) -> None:
    cid = Cid.directory(memory.put_directory(SMALL))
    server = GatewayServer(memory)
    assert server.handle(f"/ipfs/{cid}", "", f"text/html, {RAW_TYPE}").headers["Content-Type"] == RAW_TYPE
    assert server.handle(f"/ipfs/{cid}", "", f"{CAR_TYPE}; version=1").headers["Content-Type"].startswith(CAR_TYPE)
    assert server.handle(f"/ipfs/{cid}", "format=raw", CAR_TYPE).headers["Content-Type"] == RAW_TYPE


def test_the_root_alone_is_a_car_of_one_block(memory: MemoryStore) -> None:
    cid = Cid.directory(memory.put_directory(SMALL))
    answer = GatewayServer(memory).handle(f"/ipfs/{cid}", "format=car&dag-scope=block")
    body = b"".join(answer.body)
    assert body.endswith(memory.get_block(cid))
    assert answer.headers["Content-Length"] == str(len(body))


def test_head_is_get_without_a_body(memory: MemoryStore) -> None:
    cid = Cid.directory(memory.put_directory(SMALL))
    server = GatewayServer(memory)
    for query in ("format=raw", "format=car", "format=zip", ""):
        get, head = server.handle(f"/ipfs/{cid}", query), server.handle(f"/ipfs/{cid}", query, "", "HEAD")
        assert (head.status, head.headers, list(head.body)) == (get.status, get.headers, [])


@pytest.mark.parametrize(
    ("path", "query", "method", "status"),
    [
        ("/", "", "GET", 404),
        ("/ipfs", "format=raw", "GET", 404),
        ("/ipfs/", "format=raw", "GET", 404),
        ("/etc/ipfs/{cid}", "format=raw", "GET", 404),
        ("/ipns/{cid}", "format=raw", "GET", 404),
        ("/ipfs/../../etc/passwd", "format=raw", "GET", 400),
        ("/ipfs/{cid}/a", "format=raw", "GET", 400),
        ("/ipfs/QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn", "format=raw", "GET", 400),
        ("/ipfs/" + "b" * 10_000, "format=raw", "GET", 400),
        ("/ipfs/{missing}", "format=raw", "GET", 404),
        ("/ipfs/{missing}", "format=car", "GET", 404),
        ("/ipfs/{incomplete}", "format=car", "GET", 404),
        ("/ipfs/{config}", "format=car", "GET", 200),
        ("/ipfs/{as_directory}", "format=car", "GET", 400),
        ("/ipfs/{cid}", "", "GET", 406),
        ("/ipfs/{cid}", "format=", "GET", 400),
        ("/ipfs/{cid}", "format=tar", "GET", 400),
        ("/ipfs/{cid}", "format=car&dag-scope=entity", "GET", 400),
        ("/ipfs/{cid}", "format=car&entity-bytes=0:1", "GET", 400),
        ("/ipfs/{cid}", "format=" + "x" * 2000, "GET", 400),
        ("/ipfs/{cid}", "format=raw", "POST", 405),
        ("/ipfs/{cid}", "format=raw", "DELETE", 405),
    ],
)
def test_each_bad_request_has_its_status(memory: MemoryStore, path: str, query: str, method: str, status: int) -> None:
    names = {
        "cid": Cid.directory(memory.put_directory(SMALL)),
        "missing": Cid.directory(bytes(32)),
        "config": Cid.raw(memory.put_raw(b"config")),
        "as_directory": Cid.directory(memory.put_raw(b"config")),
        "incomplete": Cid.directory(memory.put_directory({"gone": b"gone"})),
    }
    del memory.blocks[Cid.of(Codec.RAW, b"gone").digest]
    answer = GatewayServer(memory).handle(path.format(**names), query, "", method)
    assert answer.status == status
    assert int(answer.headers["Content-Length"]) == len(b"".join(answer.body))


def test_too_many_parameters_are_a_bad_request(memory: MemoryStore) -> None:
    cid = Cid.directory(memory.put_directory(SMALL))
    assert GatewayServer(memory).handle(f"/ipfs/{cid}", "&".join("a=1" for _ in range(50))).status == 400


def test_content_over_the_size_cap_is_served_by_blocks_only(
    memory: MemoryStore, bundle: dict[str, bytes], limits: Limits
) -> None:
    digest = memory.put_directory(bundle)
    small = Limits(max_files=4, max_file_bytes=1 << 30, max_total_bytes=1 << 30, max_depth=4)
    assert GatewayServer(memory, small).handle(f"/ipfs/{Cid.directory(digest)}", "format=car").status == 413
    with serve(memory, limits=small) as serving:
        assert GatewayStore([serving.url]).get_directory(digest, limits) == bundle


def test_a_damaged_block_is_not_served(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path)
    cid = Cid.raw(store.put_raw(b"config"))
    store.block_path(cid).write_bytes(b"forged")
    answer = GatewayServer(store).handle(f"/ipfs/{cid}", "format=raw")
    assert answer.status == 500
    assert str(tmp_path).encode() not in b"".join(answer.body)


def test_a_served_gateway_can_be_closed_with_a_client_still_connected(memory: MemoryStore) -> None:
    serving = serve(memory)
    host, port = serving.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))):
        serving.close()
    with pytest.raises(ContentMissing, match="refused"):
        GatewayStore([serving.url], timeout_s=5).get_raw(bytes(32), 10)


def test_a_flood_of_idle_connections_is_turned_away_and_over_when_it_is_over(memory: MemoryStore) -> None:
    digest = memory.put_raw(b"config")
    with serve(memory) as serving, ExitStack() as flood:
        host, port = serving.url.removeprefix("http://").split(":")
        client = GatewayStore([serving.url], timeout_s=10)
        for _ in range(64):
            flood.enter_context(socket.create_connection((host, int(port))))
        with pytest.raises(ContentMissing):
            client.get_raw(digest, 6)
        flood.close()
        assert eventually(lambda: client.get_raw(digest, 6)) == b"config"


def test_a_connection_that_takes_too_long_is_cut(memory: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.content.server._LONGEST_S", 0.2)
    with serve(memory) as serving:
        host, port = serving.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(b"GET /ipfs/")
            assert connection.recv(1) == b""


def eventually(read: Callable[[], bytes]) -> bytes:
    """The first answer within 20 seconds."""
    ends = time.monotonic() + 20
    while True:
        try:
            return read()
        except ContentMissing:
            if time.monotonic() > ends:
                raise
            time.sleep(0.05)


# What the client makes of bad gateways


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


# A local store with friends


def test_what_a_friend_had_is_kept(
    tmp_path: Path, memory: MemoryStore, gateway: str, bundle: dict[str, bytes], limits: Limits
) -> None:
    digest, config = memory.put_directory(bundle), memory.put_raw(b"config")
    local = EmbeddedStore(tmp_path)
    peered = PeeredStore(local, [GatewayStore(["http://127.0.0.1:9"], timeout_s=5), GatewayStore([gateway])])
    assert peered.get_directory(digest, limits) == bundle
    assert peered.get_raw(config, 6) == b"config"
    memory.blocks.clear()
    assert local.get_directory(digest, limits) == bundle
    assert local.get_raw(config, 6) == b"config"
    assert peered.get_directory(digest, limits) == bundle


def test_nobody_having_it_names_everybody(tmp_path: Path, gateway: str, limits: Limits) -> None:
    local = EmbeddedStore(tmp_path)
    with pytest.raises(ContentMissing) as caught:
        PeeredStore(local, [MemoryStore(), GatewayStore([gateway])]).get_directory(bytes(32), limits)
    assert [attempt.where for attempt in caught.value.attempts] == [str(tmp_path), "memory", gateway]


def test_damage_at_home_is_reported_and_not_papered_over(tmp_path: Path, memory: MemoryStore, limits: Limits) -> None:
    local = EmbeddedStore(tmp_path)
    digest = local.put_directory(SMALL)
    memory.put_directory(SMALL)
    local.block_path(Cid.directory(digest)).write_bytes(b"")
    peered = PeeredStore(local, [memory])
    with pytest.raises(StoreDamaged):
        peered.get_directory(digest, limits)
    local.block_path(Cid.directory(digest)).unlink()
    assert peered.get_directory(digest, limits) == SMALL


def test_mirrors_have_everything_before_a_put_is_acknowledged(memory: MemoryStore, limits: Limits) -> None:
    mirror = MemoryStore()
    peered = PeeredStore(memory, [], [mirror])
    digest, config = peered.put_directory(SMALL), peered.put_raw(b"config")
    assert mirror.get_directory(digest, limits) == SMALL
    assert mirror.get_raw(config, 6) == b"config"


def test_an_export_fetches_first_and_an_import_is_local(memory: MemoryStore, limits: Limits) -> None:
    digest, config = memory.put_directory(SMALL), memory.put_raw(b"config")
    local, sink = MemoryStore(), io.BytesIO()
    PeeredStore(local, [memory]).export_car([digest, Cid.raw(config)], sink)
    assert local.get_directory(digest, limits) == SMALL
    other = PeeredStore(MemoryStore(), [])
    assert other.import_car(io.BytesIO(sink.getvalue()), limits) == [Cid.directory(digest), Cid.raw(config)]


def test_gateways_that_come_back_are_read_again(memory: MemoryStore, limits: Limits) -> None:
    digest = memory.put_directory(SMALL)
    serving = serve(memory)
    client = GatewayStore([serving.url], timeout_s=5)
    port = int(serving.url.rpartition(":")[2])
    serving.close()
    with pytest.raises(ContentMissing):
        client.get_directory(digest, limits)
    with serve(memory, port=port):
        assert client.get_directory(digest, limits) == SMALL
