"""What our own gateway answers, to friends and to strangers."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from ledger.content import (
    Cid,
    ContentMissing,
    EmbeddedStore,
    GatewayServer,
    GatewayStore,
    Limits,
    MemoryStore,
    serve,
)
from ledger.content.cid import Codec
from ledger.content.gateway import CAR_TYPE, RAW_TYPE

SMALL = {"a": b"first", "d/b": b"second"}


def car_of(files: dict[str, bytes]) -> bytes:
    store, sink = MemoryStore(), io.BytesIO()
    store.export_car([store.put_directory(files)], sink)
    return sink.getvalue()


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
