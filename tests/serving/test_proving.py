"""POST /v1/prove: who has a receipt and its texts gets a proof; who has not, gets nothing."""

from __future__ import annotations

import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ledger.base_program import Base
from ledger.content.http_get import Base as Url
from ledger.inference_proof import verify_inference
from ledger.log.kept import Kept, open_kept
from ledger.log.proof_request import PATH, ask_for_proof, encode_request
from ledger.report import Link
from node.engine import Engine
from node.serving.ask import ask
from node.serving.daemon import Server, opened


@pytest.fixture
def serves(site: Any) -> Iterator[Callable[..., Server]]:
    with ExitStack() as stack:

        def start(engine: Engine, *, proofs: bool = True) -> Server:
            site.limits(proofs=proofs)
            return stack.enter_context(opened(site.settings, threading.Event(), engine=engine, chain=site.chain))

        yield start


def kept_of(server: Server, folder: Path, text: str = "Tea: paid", **options: Any) -> Kept:
    ask(server.url, text, **options).write(folder)
    return open_kept(folder)


def refused(server: Server, data: bytes) -> int:
    asked = urllib.request.Request(f"{server.url}{PATH}", data, {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(asked, timeout=60)
    with error.value:
        assert json.loads(error.value.read())["error"]["message"]
        return error.value.code


def test_a_receipt_and_its_texts_are_answered_with_a_proof(
    serves: Callable[..., Server], classifier: Engine, tmp_path: Path
) -> None:
    server = serves(classifier)
    kept = kept_of(server, tmp_path / "kept")
    data = ask_for_proof(Url.parse(server.url), kept)
    assert isinstance(data, bytes)
    assert kept.response is not None
    told = json.loads(kept.response)["data"][0]["scores"]
    scores = [told[label] for label in classifier.labels]
    model = classifier.model
    found = verify_inference(
        Base.open(model.base.path), model.config, model.weights(), kept.receipt.entry.leaf, scores, data
    )
    assert found.tokens == tuple(classifier.encode("Tea: paid"))


def test_nothing_is_proven_for_who_does_not_have_the_answer(
    serves: Callable[..., Server], classifier: Engine, tmp_path: Path
) -> None:
    """Not of other texts, not of another log's entry, not of bytes."""
    server = serves(classifier)
    kept = kept_of(server, tmp_path / "kept")
    later = replace(kept.receipt, entry=replace(kept.receipt.entry, sequence=7))
    assert refused(server, encode_request(replace(kept, response=None))) == 400
    assert refused(server, encode_request(replace(kept, request=b"{}"))) == 400
    assert refused(server, encode_request(replace(kept, receipt=later))) == 404
    assert refused(server, encode_request(kept)[:-1]) == 400
    assert refused(server, b"[" * 1000) == 400


def test_an_answer_drawn_by_chance_gets_no_proof_and_the_reason(
    serves: Callable[..., Server], language: Engine, tmp_path: Path
) -> None:
    server = serves(language)
    kept = kept_of(server, tmp_path / "kept", max_tokens=2, temperature=1.0, seed=3)
    assert refused(server, encode_request(kept)) == 409


def test_a_server_whose_settings_allow_no_proofs_says_so(
    serves: Callable[..., Server], classifier: Engine, tmp_path: Path
) -> None:
    server = serves(classifier, proofs=False)
    kept = kept_of(server, tmp_path / "kept")
    assert refused(server, encode_request(kept)) == 404
    link = ask_for_proof(Url.parse(server.url), kept)
    assert isinstance(link, Link)
    assert "no prover" in link.evidence


def test_one_proof_is_made_at_a_time_and_few_wait(
    serves: Callable[..., Server], classifier: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, release = threading.Event(), threading.Event()

    def slow(engine: Engine) -> Callable[..., bytes]:
        def prove(record: object, leaf: bytes) -> bytes:
            begun.set()
            assert release.wait(60)
            return b"proof"

        return prove

    monkeypatch.setattr("node.serving.daemon.proves_on", slow)
    monkeypatch.setattr("node.serving.proving.WAITING", 0)
    server = serves(classifier)
    kept = kept_of(server, tmp_path / "kept")
    found: list[bytes | Link] = []
    thread = threading.Thread(target=lambda: found.append(ask_for_proof(Url.parse(server.url), kept)))
    thread.start()
    try:
        assert begun.wait(60)
        assert refused(server, encode_request(kept)) == 429
    finally:
        release.set()
        thread.join()
    assert found == [b"proof"]


def test_no_long_body_is_read_from_whom_nothing_is_proven_for(
    serves: Callable[..., Server], classifier: Engine
) -> None:
    """It may be 64 MiB, and nobody needs a key to send one: it is refused before it comes."""
    server = serves(classifier, proofs=False)
    host, port = server.url.removeprefix("http://").split(":")
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 60000000\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head.encode() + b"{")
        assert connection.recv(1 << 12).startswith(b"HTTP/1.1 404")
