"""Whatever comes over the wire: malformed, huge, slow, too much, gone in the middle."""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hypothesis
import openai
import pytest
import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks as described

from ledger.log.receipt import Entry, open_record
from ledger.log.tiles import RECORDS, split_records
from node.serving import web
from node.serving.ask import AskRefused, split_stream
from node.serving.daemon import Server, opened

LONG = os.environ.get("CANDOR_LONG") == "1"
EXAMPLES = 300 if LONG else 12
CHECKS: Any = (
    not_a_server_error,
    described.status_code_conformance,
    described.content_type_conformance,
    described.response_schema_conformance,
    described.unsupported_method,
)
OPERATIONS = {
    *(f"GET /{path}" for path in ("health", "metrics", "v1/models", "v1/models/{model}")),
    *(f"GET /log/{path}" for path in ("checkpoint", "published", "tile/{path}", "records/{path}")),
    *(f"POST /v1/{path}" for path in ("completions", "chat/completions", "classify", "prove")),
}
GOOD = {"model": "parrot", "prompt": "a", "max_tokens": 2}


def post(server: Server, data: Any, path: str = "completions", **headers: str) -> requests.Response:
    given = {"Content-Type": "application/json"} | headers
    return requests.post(f"{server.url}/v1/{path}", data=data, headers=given, timeout=30)


def raw(server: Server, data: bytes, wait_s: float = 10.0) -> bytes:
    """Everything that comes back until the server closes."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=wait_s) as connection:
        connection.sendall(data)
        found = b""
        while part := connection.recv(1 << 16):
            found += part
        return found


def record(site: Any, server: Server, sequence: int) -> Any:
    entry = Entry.decode(server.log.tree().entry(sequence))
    found = requests.get(f"{server.url}/log/records/{sequence // RECORDS:03d}", timeout=5).content
    return open_record(entry, split_records(found)[sequence % RECORDS], site.auditor)


def test_the_description_holds_for_whatever_is_sent(server: Server) -> None:
    """schemathesis: requests made from the OpenAPI description, right ones and wrong ones, of every operation. Half of
    them name the model that is there, without which no request would get as far as an answer."""
    assert post(server, json.dumps(GOOD)).status_code == 200
    assert server.anchor.turn(now=True) == 0
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    seen: dict[str, set[int]] = {}

    for result in schema.get_all_operations():
        operation = result.ok()
        strategy = operation.as_strategy() | operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)

        @hypothesis.settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=not LONG,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=strategy, named=st.booleans())
        def holds(case: Any, named: bool) -> None:
            if named and isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
                case.body["model"] = "parrot"
            answer = case.call_and_validate(checks=CHECKS, timeout=30)
            seen.setdefault(f"{case.method} {case.path}", set()).add(answer.status_code)

        holds()

    assert seen.keys() == OPERATIONS
    told = {name for name, statuses in seen.items() if statuses & {200}}
    assert told >= {"POST /v1/completions", "POST /v1/chat/completions", "GET /log/checkpoint", "GET /log/published"}
    assert {400, 404} <= seen["POST /v1/completions"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"null", 400),
        (b"\xff\xfe", 400),
        (b'{"model":"parrot","prompt":"a","prompt":"b"}', 400),
        (b'{"model":"parrot","prompt":"\\ud800"}', 400),
        (b'{"model":"parrot","prompt":"a","temperature":NaN}', 400),
        (b'{"model":"parrot","prompt":"a","seed":1e400}', 400),
        (b'{"model":"parrot","prompt":"a","max_tokens":true}', 400),
        (b"[" * 60_000, 400),
        (b'{"model":"parrot","prompt":' + b"[" * 20 + b"]" * 20 + b"}", 400),
        (b'{"model":"parrot","prompt":"' + b"a" * (1 << 16) + b'"}', 413),
        (b" " * (1 << 20), 413),
        (json.dumps(GOOD | {"model": "x" * 10_000}).encode(), 404),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_malformed_and_huge(server: Server, data: bytes, status: int) -> None:
    answer = post(server, data)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert len(answer.content) < 1000
    assert post(server, json.dumps(GOOD)).status_code == 200, "and it goes on"


def test_a_page_in_a_browser_cannot_ask(server: Server) -> None:
    assert post(server, json.dumps(GOOD), **{"Content-Type": "text/plain"}).status_code == 415


def test_nothing_else_is_served(server: Server) -> None:
    for path in ("/", "/v1", "/log/tile/../journal", "/log/records/..%2f..%2fkey.json", "/state", "/docs", "/ipfs/x/y"):
        answer = raw(server, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert answer.split()[1] == b"404", path


def test_a_slow_body_a_slow_head_and_silence_are_cut_off(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "HEAD_S", 0.3)
    object.__setattr__(server.web._server.config.app._limits, "body_s", 0.3)  # type: ignore[union-attr]
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    begun = time.monotonic()
    assert raw(server, head + b"{").split()[1] == b"408"
    assert raw(server, head[:30]) == b""
    assert raw(server, b"") == b""
    assert time.monotonic() - begun < 8


def test_too_many_are_told_when_to_come_again(site: Any, open_server: Callable[[], Server]) -> None:
    """And those who were accepted get their answers, several to a batch."""
    site.limits(queue=3, batch=2)
    site.engine.step_s = 0.15
    server = open_server()
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: post(server, json.dumps(GOOD)), range(10)))
    statuses = sorted(answer.status_code for answer in answers)
    refused = [answer for answer in answers if answer.status_code == 429]
    assert set(statuses) == {200, 429}
    assert all(1 <= int(answer.headers["Retry-After"]) <= 60 for answer in refused)
    assert refused[0].json()["error"]["type"] == "rate_limit_error"
    assert server.log.size == statuses.count(200)
    assert max(site.engine.batches) == 2
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as client:
        assert client.completions.create(model="parrot", prompt="a", max_tokens=1).choices, "and it goes on"


def test_an_answer_that_takes_too_long_is_given_up(site: Any, open_server: Callable[[], Server]) -> None:
    site.limits(request_s=0.2)
    site.engine.step_s = 0.1
    server = open_server()
    answer = post(server, json.dumps(GOOD | {"max_tokens": 60}))
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
    assert server.log.size == 0
    assert site.engine.stopped[0] < 10


def test_a_model_that_fails_fails_alone(site: Any, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    site.engine.broken = RuntimeError("secret prompt")
    answer = post(server, json.dumps(GOOD))
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    assert "secret" not in answer.text + caplog.text
    assert post(server, json.dumps(GOOD | {"stream": True})).status_code == 500
    site.engine.broken = None
    assert post(server, json.dumps(GOOD)).status_code == 200


def streaming(server: Server, tokens: int = 60) -> requests.Response:
    body = json.dumps(GOOD | {"max_tokens": tokens, "stream": True})
    answer = requests.post(
        f"{server.url}/v1/completions", data=body, headers={"Content-Type": "application/json"}, stream=True, timeout=30
    )
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    return answer


def test_a_client_that_goes_away_stops_the_model_and_leaves_what_it_got_in_the_log(
    site: Any, server: Server, until: Callable[..., Any]
) -> None:
    site.engine.step_s = 0.03
    with streaming(server) as answer:
        got = answer.raw.read1(1 << 16)
        assert got
    until(lambda: server.log.size == 1)
    assert until(lambda: site.engine.stopped)[0] < 60
    kept = record(site, server, 0).response
    assert got.partition(b"data: ")[2][:40] in kept
    assert b'"finish_reason":"length"' not in kept
    with pytest.raises(AskRefused):
        split_stream(kept)


def test_a_client_that_goes_away_within_its_request_is_nobodys_fault(
    site: Any, server: Server, until: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """It may do so a thousand times a second: the log stays as it was."""
    host, port = server.url.removeprefix("http://").split(":")
    head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
    for sent in ("", '{"model": "parrot", '):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall((head + sent).encode())
    count = 'candor_serve_requests_total{route="/v1/completions",status="408"} 2.0'
    until(lambda: count in requests.get(f"{server.url}/metrics", timeout=5).text)
    assert caplog.text == ""
    assert (server.log.size, site.engine.batches) == (0, [])


def test_a_client_that_waits_for_a_whole_answer_and_goes_away_stops_the_model_too(
    site: Any, server: Server, until: Callable[..., Any]
) -> None:
    site.engine.step_s = 0.05
    with pytest.raises(requests.Timeout):
        requests.post(f"{server.url}/v1/completions", json=GOOD | {"max_tokens": 60}, timeout=0.3)
    until(lambda: site.engine.stopped)
    assert server.log.size == 0, "nothing was answered"


def test_the_end_of_a_stream_waits_for_the_log(site: Any, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last piece of text, the finish_reason and the receipt come only after the entry is durable."""
    writing, go_on = threading.Event(), threading.Event()
    append = server.log.append

    def slowly(*group: Any) -> int:
        writing.set()
        assert go_on.wait(20)
        return append(*group)

    monkeypatch.setattr(server.log, "append", slowly)
    pieces: list[bytes] = []
    with streaming(server, 3) as answer:
        reader = threading.Thread(target=lambda: pieces.extend(answer.iter_lines(delimiter=b"\n\n")))
        reader.start()
        assert writing.wait(20)
        time.sleep(0.2)
        before = [json.loads(piece.removeprefix(b"data: "))["choices"][0] for piece in pieces if piece]
        go_on.set()
        reader.join()
    assert len(before) <= 2
    assert all(choice["finish_reason"] is None for choice in before)
    assert b"data: [DONE]" in pieces[-2:]


def test_a_full_disk_answers_nobody_and_keeps_what_was_promised(
    site: Any, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert post(server, json.dumps(GOOD)).status_code == 200

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("os.pwrite", full)
        answer = post(server, json.dumps(GOOD))
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
        broken = post(server, json.dumps(GOOD | {"stream": True, "max_tokens": 1}))
        with pytest.raises(AskRefused):
            split_stream(broken.content)
        shown = requests.get(f"{server.url}/log/records/000", timeout=5)
        assert shown.status_code == 503, "there is no room for its file"
    assert server.log.size == 1
    assert post(server, json.dumps(GOOD)).status_code == 200
    assert (server.log.size, list(server.log.fsck())) == (2, [])
    assert record(site, server, 1).request == json.dumps(GOOD).encode()


def test_who_takes_nothing_is_let_go(site: Any, server: Server, until: Callable[..., Any]) -> None:
    """A reader that stops reading holds no engine for long; what it was sent stands in the log."""
    object.__setattr__(server.web._server.config.app._limits, "write_s", 0.3)  # type: ignore[union-attr]
    host, port = server.url.removeprefix("http://").split(":")
    body = json.dumps({"model": "parrot", "prompt": "a" * 200, "max_tokens": 64, "stream": True}).encode()
    start = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head = f"{start}Content-Length: {len(body)}\r\n\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        connection.connect((host, int(port)))
        connection.sendall(head.encode() + body)
        until(lambda: server.log.size == 1)
    assert post(server, json.dumps(GOOD)).status_code == 200


def test_stopping_answers_what_was_accepted(site: Any) -> None:
    site.engine.step_s = 0.1
    opening = opened(site.settings, threading.Event(), engine=site.engine, chain=site.chain)
    with ThreadPoolExecutor(4) as pool, opening as server:
        waiting = [pool.submit(post, server, json.dumps(GOOD | {"max_tokens": 5})) for _ in range(3)]
        streamed = pool.submit(lambda: split_stream(streaming(server, 5).content))
        time.sleep(0.25)
        log = server.log
    assert [each.result().status_code for each in waiting] == [200] * 3
    assert streamed.result()[1]
    assert log.size == 4
    assert site.chain.log_server(site.key.address).size == 4, "and anchored it"


@pytest.mark.parametrize("letter", ["\N{GRINNING FACE}", "\x01"])
def test_stops_that_no_receipt_has_room_for_are_refused(site: Any, server: Server, letter: str) -> None:
    """Each within its limits, and together longer than a receipt may be: the user's could not be read, nor could the
    record, and the auditors would hold that against the server."""
    stops = [letter * 256] * 16
    answer = post(server, json.dumps(GOOD | {"stop": stops}))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "stop")
    assert server.log.size == 0
    assert post(server, json.dumps(GOOD | {"stop": stops[:5]})).status_code == 200
    assert record(site, server, 0).decoding.stop == tuple(stops[:5])


def test_what_was_sent_of_a_stream_is_logged_when_the_server_stops(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that takes longer than the server waits at its end is broken off, and the log has what went out."""
    monkeypatch.setattr("node.serving.daemon.FAREWELL_S", 0.2)
    site.engine.step_s = 0.1
    with opened(site.settings, threading.Event(), engine=site.engine, chain=site.chain) as server:
        answer = streaming(server, 60)
        got = answer.raw.read1(1 << 16)
        log = server.log
    answer.close()
    assert got
    assert log.size == 1
