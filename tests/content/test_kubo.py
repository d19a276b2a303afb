"""Content moves both ways between the embedded store and a real Kubo, under one name; and bad daemons are bounded."""

from __future__ import annotations

import io
import json
import time
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event
from typing import Any, Protocol

import pytest

from ledger.content import (
    CarrierLied,
    Cid,
    ContentMissing,
    EmbeddedStore,
    GatewayStore,
    KuboStore,
    LimitExceeded,
    Limits,
    MemoryStore,
    NotCanonicalBlock,
    StoreUnavailable,
    serve,
)
from ledger.content.unixfs import Layout, add_bytes, directory_blocks


class Kubo(Protocol):
    api: str
    gateway: str

    def run(self, *arguments: str, stdin: bytes = b"") -> bytes: ...


def write_tree(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def test_kubo_gives_a_directory_the_name_that_we_give_it(kubo: Kubo, tmp_path: Path, bundle: dict[str, bytes]) -> None:
    added = kubo.run("add", "-r", "-Q", "--only-hash", str(write_tree(tmp_path, bundle))).decode().strip()
    assert added == str(directory_blocks(bundle)[0].cid)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 255, 256, 257, 1024, 1025, 4096, 4097, 10_000])
def test_kubo_builds_trees_of_every_depth_as_we_do(kubo: Kubo, size: int) -> None:
    """The same shapes with small chunks and few links, so that four levels take a few kilobytes."""
    data = bytes(i * 7 % 251 for i in range(size))
    arguments = ("add", "-Q", "--only-hash", "--chunker=size-64", "--max-file-links=4")
    added = kubo.run(*arguments, stdin=data).decode().strip()
    assert added == str(add_bytes(data, lambda block: None, Layout(64, 4)).cid)


def test_content_moves_from_the_embedded_store_to_kubo_and_back(
    kubo: Kubo, tmp_path: Path, bundle: dict[str, bytes], limits: Limits
) -> None:
    embedded, daemon = EmbeddedStore(tmp_path / "a"), KuboStore(kubo.api)
    digest = embedded.put_directory(bundle)
    assert daemon.put_directory(bundle) == digest
    assert daemon.get_directory(digest, limits) == bundle
    root = str(Cid.directory(digest))
    assert root in kubo.run("pin", "ls", "--type=recursive").decode()
    assert kubo.run("cat", f"{root}/candor/config.json") == bundle["candor/config.json"]
    assert EmbeddedStore(tmp_path / "b").put_directory(daemon.get_directory(digest, limits)) == digest


def test_cars_move_both_ways(kubo: Kubo, tmp_path: Path, bundle: dict[str, bytes], limits: Limits) -> None:
    embedded, daemon, sink = EmbeddedStore(tmp_path / "a"), KuboStore(kubo.api), io.BytesIO()
    files = {**bundle, "twice": bundle["candor/manifest.json"]}
    digest, config = embedded.put_directory(files), embedded.put_raw(b"a config of its own")
    embedded.export_car([digest, Cid.raw(config)], sink)
    assert daemon.import_car(io.BytesIO(sink.getvalue()), limits) == [Cid.directory(digest), Cid.raw(config)]
    exported = kubo.run("dag", "export", str(Cid.directory(digest)))
    other = EmbeddedStore(tmp_path / "b")
    assert other.import_car(io.BytesIO(exported), limits) == [Cid.directory(digest)]
    assert other.get_directory(digest, limits) == files
    again = io.BytesIO()
    daemon.export_car([digest, Cid.raw(config)], again)
    assert again.getvalue() == sink.getvalue()


def test_a_config_moves_as_one_raw_block(kubo: Kubo) -> None:
    daemon = KuboStore(kubo.api)
    digest = daemon.put_raw(b'{"kind":"x"}')
    assert daemon.get_raw(digest, 100) == b'{"kind":"x"}'
    assert kubo.run("block", "get", str(Cid.raw(digest))) == b'{"kind":"x"}'
    with pytest.raises(LimitExceeded):
        daemon.get_raw(digest, 11)


def test_what_kubo_added_itself_is_read_through_its_gateway(
    kubo: Kubo, tmp_path: Path, bundle: dict[str, bytes], limits: Limits
) -> None:
    files = {**bundle, "by kubo": b"added by kubo", "twice": bundle["candor/manifest.json"]}
    root = Cid.parse(kubo.run("add", "-r", "-Q", str(write_tree(tmp_path, files))).decode().strip())
    client = GatewayStore([kubo.gateway])
    assert client.get_directory(root.digest, limits) == files
    config = Cid.parse(kubo.run("add", "-Q", stdin=b"a small file").decode().strip())
    assert client.get_raw(config.digest, 100) == b"a small file"
    with pytest.raises(ContentMissing):
        client.get_raw(bytes(32), 100)


def test_kubo_reads_a_car_from_our_gateway(kubo: Kubo, chacha_stream: Callable[[str], Callable[[int], bytes]]) -> None:
    store = MemoryStore()
    files = {"a": chacha_stream("ours")(1_500_000), "b/c": b"x"}
    root = Cid.directory(store.put_directory(files))
    with serve(store) as serving, urllib.request.urlopen(f"{serving.url}/ipfs/{root}?format=car") as answer:
        kubo.run("dag", "import", stdin=answer.read())
    assert kubo.run("cat", f"{root}/a") == files["a"]


def test_kubos_other_layouts_are_refused_by_the_reader(kubo: Kubo, tmp_path: Path, limits: Limits) -> None:
    """One content, one name: what another profile makes of the same files is not accepted beside ours."""
    folder = write_tree(tmp_path, {"f": b"x" * 3000})
    daemon = KuboStore(kubo.api)
    for options in (
        ["--chunker=size-1000"],
        ["--raw-leaves=false"],
        ["--trickle", "--chunker=size-99"],
    ):
        root = Cid.parse(kubo.run("add", "-r", "-Q", *options, str(folder)).decode().strip())
        with pytest.raises(NotCanonicalBlock):
            daemon.get_directory(root.digest, limits)


def test_missing_content_is_missing_in_time(kubo: Kubo, limits: Limits) -> None:
    daemon = KuboStore(kubo.api, timeout_s=3)
    with pytest.raises(ContentMissing, match="kubo at"):
        daemon.get_directory(bytes(32), limits)
    with pytest.raises(ContentMissing, match="kubo at"):
        daemon.get_raw(bytes(32), 10)


def test_limits_hold_against_kubo(kubo: Kubo, bundle: dict[str, bytes]) -> None:
    daemon = KuboStore(kubo.api)
    digest = daemon.put_directory(bundle)
    with pytest.raises(LimitExceeded):
        daemon.get_directory(digest, Limits(16, 1 << 20, 1 << 30, 4))


# Daemons that are not Kubo, or not there


@pytest.fixture
def fake_kubo(http_server: Any) -> Any:
    """Starts an RPC server that answers with the given function; returns its multiaddr."""

    def start(answer: Callable[[BaseHTTPRequestHandler], None]) -> str:
        port = http_server(answer).rpartition(":")[2]
        return f"/ip4/127.0.0.1/tcp/{port}"

    return start


def drain(handler: BaseHTTPRequestHandler) -> None:
    """Read a chunked request body to its end."""
    while size := int(handler.rfile.readline().strip() or b"0", 16):
        handler.rfile.read(size + 2)
    handler.rfile.readline()


def answer_with(body: bytes, status: int = 200) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.headers.get("Transfer-Encoding") == "chunked":
            drain(handler)
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def root_answer(cid: object, problem: str = "") -> bytes:
    return json.dumps({"Root": {"Cid": {"/": str(cid)}, "PinErrorMsg": problem}}).encode()


FILES = {"a": b"x"}
ROOT = directory_blocks(FILES)[0].cid


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (root_answer(Cid.raw(bytes(32))), 200, "imported"),
        (root_answer(ROOT, "pin: context canceled"), 200, "did not pin: 'pin: context canceled'"),
        (b"", 200, "should only ever return one item"),
        (b"{}", 200, "imported"),
        (b"[1]", 200, "TypeError"),
        (b'{"Root":null}', 200, "imported"),
        (b"not json", 200, "Decoding"),
        (b'{"Message":"no space left on device","Code":0,"Type":"error"}', 500, "no space left"),
        (b"nope", 403, "StatusError"),
    ],
)
def test_a_put_is_acknowledged_only_when_the_root_is_pinned(
    fake_kubo: Any, body: bytes, status: int, message: str
) -> None:
    assert KuboStore(fake_kubo(answer_with(root_answer(ROOT)))).put_directory(FILES) == ROOT.digest
    with pytest.raises(StoreUnavailable, match=message):
        KuboStore(fake_kubo(answer_with(body, status)), timeout_s=10).put_directory(FILES)


def test_a_daemon_that_is_down_is_unavailable_and_content_on_it_missing(limits: Limits) -> None:
    daemon = KuboStore("/ip4/127.0.0.1/tcp/9", timeout_s=5)
    with pytest.raises(StoreUnavailable, match="ConnectionError"):
        daemon.put_directory(FILES)
    with pytest.raises(ContentMissing, match="ConnectionError"):
        daemon.get_directory(bytes(32), limits)


def test_a_lying_daemon_is_recorded_as_one(fake_kubo: Any, limits: Limits) -> None:
    store, sink = MemoryStore(), io.BytesIO()
    store.export_car([store.put_directory(FILES)], sink)
    for body in (sink.getvalue()[:-1] + b"y", sink.getvalue()[:-1], b"", b"\xff" * 100):
        with pytest.raises(ContentMissing) as caught:
            KuboStore(fake_kubo(answer_with(body))).get_directory(ROOT.digest, limits)
        assert caught.value.attempts[0].lied
        assert isinstance(caught.value.__cause__, CarrierLied)
    with pytest.raises(ContentMissing, match="do not hash"):
        KuboStore(fake_kubo(answer_with(b"forged"))).get_raw(bytes(32), 10)
    with pytest.raises(ContentMissing, match="more than 2097152 bytes"):
        KuboStore(fake_kubo(answer_with(bytes(3 << 20)))).get_raw(bytes(32), 10)


def test_a_daemon_that_trickles_is_cut_off(fake_kubo: Any, limits: Limits) -> None:
    stop = Event()

    def trickle(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/vnd.ipld.car")
        handler.end_headers()
        while not stop.wait(0.02):
            handler.wfile.write(b"\x80")

    began = time.monotonic()
    try:
        with pytest.raises(ContentMissing):
            KuboStore(fake_kubo(trickle), timeout_s=0.5).get_directory(bytes(32), limits)
        with pytest.raises(ContentMissing):
            KuboStore(fake_kubo(trickle), timeout_s=0.5).get_raw(bytes(32), 10)
        assert time.monotonic() - began < 20
    finally:
        stop.set()
