"""A disk that fills up behind the log, a chain that is away for hours, bodies that trickle or have no announced end."""

from __future__ import annotations

import errno
import json
import os
import socket
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from ledger.ports import ChainUnavailable
from node.serving import status
from node.serving.ask import ask
from node.serving.daemon import Server

BODY = json.dumps({"model": "parrot", "prompt": "a", "max_tokens": 2}).encode()
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def health(server: Server) -> Any:
    return requests.get(f"{server.url}/health", timeout=5).json()


# ---- the disk


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("name", ["checkpoint", "2", "published.json"])
def test_a_disk_that_is_full_behind_the_log_stops_no_answer_and_all_is_made_up_for(
    server: Server, site: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """At the checkpoint, a tile (of two entries), what is remembered of the content store: answers go on as long as
    their entries are durable; what cannot be written is named, and written later."""
    true = os.replace

    def replace_(old: Any, new: Any) -> None:
        if Path(new).name == name:
            full()
        true(old, new)

    ask(server.url, "before", max_tokens=1)
    ask(server.url, "and before", max_tokens=1)
    with monkeypatch.context() as patch:
        patch.setattr("ledger.log.journal.os.replace", replace_)
        assert server.anchor.turn(now=True) > 0
        assert health(server)["waiting"]
        assert ask(server.url, "meanwhile", max_tokens=1).receipt
    assert server.anchor.turn(now=True) == 0
    assert site.chain.log_server(site.key.address).size == 3
    assert (health(server)["waiting"], server.anchor.settled()) == ({}, True)


def test_a_guard_that_cannot_write_signs_nothing(server: Server, site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is signed must be remembered first: with no room for that, nothing is signed, published or anchored."""
    ask(server.url, "before", max_tokens=1)
    database = server.anchor.guard._database

    def no_room() -> Any:
        with database._explained():
            raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(database, "write", no_room)
        assert server.anchor.turn(now=True) > 0
        assert not (server.log.folder / "checkpoint").exists()
        assert site.chain.log_server(site.key.address).size == 0
        assert ask(server.url, "meanwhile", max_tokens=1).receipt
    assert server.anchor.turn(now=True) == 0
    assert site.chain.log_server(site.key.address).size == 2


# ---- the chain


def test_status_shows_the_delay_while_the_chain_is_away(
    server: Server, site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For hours: nobody says how many blocks that is; how long, and how many entries wait, the server knows."""
    now = 1000.0
    server.anchor.clock = lambda: now
    ask(server.url, "anchored", max_tokens=1)
    assert server.anchor.turn(now=True) == 0

    def away(*_: Any, **__: Any) -> Any:
        raise ChainUnavailable("eth_chainId: ConnectionError")

    monkeypatch.setattr(status, "EvmChain", away)
    site.chain.available = False
    for _ in range(3):
        ask(server.url, "waits", max_tokens=1)
        server.anchor.turn()
        now += 3600
    server.anchor.turn()
    port = int(server.url.rpartition(":")[2])
    found = status.serve_status(replace(site.settings, http=replace(site.settings.http, port=port)))
    assert found["chain"] == "eth_chainId: ConnectionError"
    running = found["running"]
    assert (running["entries"], running["anchored"], running["behind_s"]) == (4, 1, 3 * 3600)
    assert "chain" in running["waiting"]
    site.chain.available = True
    assert server.anchor.turn(now=True) == 0
    assert (health(server)["behind_s"], health(server)["anchored"]) == (0, 4)


# ---- bodies


def trickled(server: Server, head: bytes, parts: Callable[[int], bytes], pause_s: float = 0.0) -> bytes:
    """Sends the parts until the server has enough of them; what it says."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head)
        found, number = b"", 0
        connection.settimeout(pause_s or 0.001)
        while number < 10_000:
            try:
                connection.sendall(parts(number))
                number += 1
                part = connection.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError:
                return found
            if not part:
                return found
            found += part
    raise AssertionError("it takes whatever comes")


def test_a_body_that_trickles_is_cut_off_however_often_a_byte_comes(server: Server) -> None:
    object.__setattr__(server.web._server.config.app._limits, "body_s", 0.5)  # type: ignore[union-attr]
    begun = time.monotonic()
    answer = trickled(server, HEAD + b"Content-Length: 60000\r\n\r\n", lambda number: b" ", pause_s=0.05)
    assert answer.split()[1] == b"408"
    assert time.monotonic() - begun < 10


def test_a_body_without_an_announced_end_is_cut_off_at_the_longest_that_is_taken(server: Server) -> None:
    """In chunks, each small; and one that says of itself that it is endless."""
    chunk = b"400\r\n" + b" " * 1024 + b"\r\n"
    answer = trickled(server, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", lambda number: chunk)
    assert answer.split()[1] == b"413"
    answer = trickled(server, HEAD + b"Content-Length: 99999999999999999999\r\n\r\n", lambda number: b" " * 1024)
    assert answer.split()[1] in (b"400", b"413")
    assert requests.post(f"{server.url}/v1/completions", data=BODY, headers={"Content-Type": "application/json"},
                         timeout=10).status_code == 200  # fmt: skip


def test_a_head_without_end_is_cut_off(server: Server) -> None:
    line = b"X-%d: " + b"a" * 900 + b"\r\n"
    answer = trickled(server, b"POST /v1/completions HTTP/1.1\r\n", lambda number: line % number)
    assert answer == b"" or answer.split()[1] in (b"400", b"431")


def test_the_folder_of_a_server_names_no_question(server: Server, tmp_path: Path) -> None:
    """Whatever becomes of its disk: records are sealed, entries are digests, and no text is kept beside them."""
    ask(server.url, "a very private question", max_tokens=3)
    server.anchor.turn(now=True)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "journal" for path in files)
    assert not [path for path in files if b"very private" in path.read_bytes()]
