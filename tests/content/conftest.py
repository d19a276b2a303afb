"""Stores to test, servers that misbehave, and a real Kubo where there is one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from ledger.content import EmbeddedStore, Limits, MemoryStore, serve

KUBO_VERSION = "v0.43.1"


@pytest.fixture
def limits() -> Limits:
    return Limits(max_files=16, max_file_bytes=8 << 20, max_total_bytes=16 << 20, max_depth=4)


@pytest.fixture(params=["memory", "embedded"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> MemoryStore | EmbeddedStore:
    """Every test of a store runs on the twin and on the disk."""
    return MemoryStore() if request.param == "memory" else EmbeddedStore(tmp_path / "store")


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def gateway(memory: MemoryStore) -> Iterator[str]:
    with serve(memory) as serving:
        yield serving.url


@pytest.fixture
def bundle() -> dict[str, bytes]:
    """A directory with a folder, an empty file, a file of one chunk and a file of several."""
    stream = chacha_stream("bundle")
    return {
        "adapter_config.json": b"{}",
        "adapter_model.safetensors": stream(2_500_000),
        "candor/config.json": b'{"kind":"candor/config/1"}',
        "candor/manifest.json": stream(1 << 20),
        "empty": b"",
    }


def chacha_stream(seed: str) -> Callable[[int], bytes]:
    """The deterministic stream of Kubo's tests: ChaCha20 keyed by SHA-256 of the seed, nonce zero."""
    encryptor = Cipher(ChaCha20(sha256(seed.encode()).digest(), bytes(16)), mode=None).encryptor()
    return lambda size: encryptor.update(bytes(size))


@pytest.fixture(name="chacha_stream")
def _chacha_stream() -> Callable[[str], Callable[[int], bytes]]:
    return chacha_stream


Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def http_server() -> Iterator[Callable[[Answer], str]]:
    """Starts a loopback server that answers every GET and POST with the given function; returns its address."""
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                try:
                    answer(self)
                except OSError:
                    self.close_connection = True

            do_POST = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@dataclass(frozen=True)
class Kubo:
    """A real Kubo on loopback: its RPC API, its gateway, and its command line."""

    api: str
    gateway: str
    binary: Path
    repo: Path

    def run(self, *arguments: str, stdin: bytes = b"") -> bytes:
        environment = {**os.environ, "IPFS_PATH": str(self.repo)}
        command = [str(self.binary), *arguments]
        return subprocess.run(
            command, input=stdin, env=environment, capture_output=True, check=True, timeout=120
        ).stdout


@pytest.fixture(scope="session")
def kubo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubo]:
    binary = _find_kubo()
    repo = tmp_path_factory.mktemp("kubo")
    api, gateway = _free_port(), _free_port()
    found = Kubo(f"/ip4/127.0.0.1/tcp/{api}", f"http://127.0.0.1:{gateway}", binary, repo)
    found.run("init", "--empty-repo", "--profile=test,unixfs-v1-2025,autoconf-off")
    found.run("config", "Addresses.API", found.api)
    found.run("config", "Addresses.Gateway", f"/ip4/127.0.0.1/tcp/{gateway}")
    found.run("config", "--json", "Addresses.Swarm", "[]")
    found.run("config", "--json", "Gateway.NoFetch", "true")
    found.run("bootstrap", "rm", "--all")
    with (repo / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(
            [binary, "daemon", "--offline"], env={**os.environ, "IPFS_PATH": str(repo)}, stdout=log, stderr=log
        )
    try:
        _wait_for(api, daemon, repo)
        _wait_for(gateway, daemon, repo)
        yield found
    finally:
        daemon.send_signal(signal.SIGTERM)
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _find_kubo() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    named = os.environ.get("CANDOR_KUBO")
    path = Path(named) if named else cache / "candor" / f"kubo-{KUBO_VERSION}" / "ipfs"
    if named and not path.is_file():
        pytest.fail(f"CANDOR_KUBO names {path}, which is not there")
    if not path.is_file():
        pytest.skip(f"NOT TESTED AGAINST A REAL KUBO: no {path}; build it with `python tests/tools/build_kubo.py`")
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, daemon: subprocess.Popen[bytes], repo: Path) -> None:
    ends = time.monotonic() + 60
    while time.monotonic() < ends and daemon.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    pytest.fail(f"kubo did not start: {(repo / 'daemon.log').read_text()[-2000:]}")
