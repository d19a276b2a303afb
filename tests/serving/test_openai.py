"""A stock OpenAI client works, and each of its answers comes with a receipt that holds offline."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import openai
import pytest
import requests

from ledger.canonical import MAX_INTEGER
from ledger.log.receipt import Receipt, ReceiptRefused, ReceiptRule, open_record
from ledger.log.tiles import split_records
from node.serving.ask import ask, split_stream
from node.serving.daemon import Server
from node.serving.keys import KeysInvalid, add_key, load_keys
from node.serving.replies import RECEIPT_HEADER

CHAT: Any = [{"role": "system", "content": "short"}, {"role": "user", "content": [{"type": "text", "text": "hello"}]}]


def post(server: Server, path: str, body: dict[str, Any], **headers: str) -> requests.Response:
    return requests.post(f"{server.url}/v1/{path}", json=body, headers=headers, timeout=30)


def receipt_of(answer: requests.Response) -> Receipt:
    return Receipt.decode(base64.b64decode(answer.headers[RECEIPT_HEADER]))


def test_models_and_completions(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["parrot"]
    assert client.models.retrieve("parrot").id == "parrot"
    answer = client.completions.create(model="parrot", prompt="hello", max_tokens=3, seed=5)
    again = client.completions.create(model="parrot", prompt="hello", max_tokens=3, seed=5)
    assert answer.choices[0].text == again.choices[0].text
    assert (answer.choices[0].finish_reason, answer.usage.total_tokens) == ("length", 8)  # type: ignore[union-attr]
    said = client.chat.completions.create(model="parrot", messages=CHAT, max_completion_tokens=2)
    assert len((said.choices[0].message.content or "").split()) == 2


def test_streams_give_the_same_text_and_an_end(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="parrot", prompt="hello", max_tokens=5, seed=5).choices[0].text
    options: Any = {"include_usage": True}
    pieces = list(
        client.completions.create(
            model="parrot", prompt="hello", max_tokens=5, seed=5, stream=True, stream_options=options
        )
    )
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == whole
    assert [piece.choices[0].finish_reason for piece in pieces if piece.choices] == [None] * 4 + ["length"]
    assert pieces[-2].usage is not None
    assert pieces[-2].usage.completion_tokens == 5
    assert pieces[-1].choices == []
    said = list(client.chat.completions.create(model="parrot", messages=CHAT, max_tokens=3, stream=True))
    assert said[0].choices[0].delta.role == "assistant"
    assert len("".join(piece.choices[0].delta.content or "" for piece in said if piece.choices).split()) == 3


@pytest.mark.parametrize("stream", [False, True])
def test_every_answer_has_a_receipt_about_its_very_bytes(site: Any, server: Server, stream: bool) -> None:
    """And an auditor opens the record behind it."""
    kept = ask(server.url, "what is owed?", max_tokens=4, temperature=0.7, seed=3, stream=stream)
    receipt = Receipt.decode(kept.receipt)
    owed = site.check(receipt, kept.request, kept.response)
    assert receipt.decoding.temperature == Fraction(7, 10)
    assert (receipt.decoding.seed, receipt.decoding.max_tokens) == (3, 4)
    with pytest.raises(ReceiptRefused) as caught:
        site.check(receipt, kept.request, kept.response + b" ")
    assert caught.value.rule is ReceiptRule.RESPONSE
    tree = server.log.tree()
    owed.settle(tree.size, tree.root(), tree.inclusion(receipt.entry.sequence))
    (sealed,) = split_records(requests.get(f"{server.url}/log/records/000", timeout=5).content)
    record = open_record(receipt.entry, sealed, site.auditor)
    assert (record.request, record.response) == (kept.request, kept.response)


def test_the_fingerprint_is_in_the_answer_and_in_the_last_piece_of_a_stream(server: Server) -> None:
    body = {"model": "parrot", "prompt": "a", "max_tokens": 2, "seed": 1}
    whole = post(server, "completions", body).json()["candor"]
    raw = post(server, "completions", body | {"stream": True}).content
    told, _ = split_stream(raw)
    events = [json.loads(line.removeprefix(b"data: ")) for line in told.split(b"\n\n") if line]
    assert [event["candor"] for event in events if "candor" in event] == [whole]
    assert events[-1]["choices"][0]["finish_reason"] == "length"
    assert len(base64.b64decode(whole["fingerprint"])) == 8


def test_a_draw_without_a_seed_can_be_drawn_again_from_its_receipt(server: Server) -> None:
    first = post(server, "completions", {"model": "parrot", "prompt": "a", "max_tokens": 4})
    other = post(server, "completions", {"model": "parrot", "prompt": "a", "max_tokens": 4})
    seed = receipt_of(first).decoding.seed
    assert seed != receipt_of(other).decoding.seed
    again = post(server, "completions", {"model": "parrot", "prompt": "a", "max_tokens": 4, "seed": seed})
    assert again.json()["choices"] == first.json()["choices"]


def test_classification(site: Any, open_server: Callable[[], Server]) -> None:
    site.engine.task, site.engine.labels = "classification", ("low", "high")
    server = open_server()
    answer = post(server, "classify", {"model": "parrot", "input": "how risky?"})
    found = answer.json()["data"][0]
    assert found["label"] == max(found["scores"], key=found["scores"].get)
    site.check(receipt_of(answer), answer.request.body, answer.content)
    refused = post(server, "completions", {"model": "parrot", "prompt": "a"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "wrong_task")


def test_wrong_model_and_wrong_task_are_told_as_openai_tells_them(client: openai.OpenAI, server: Server) -> None:
    with pytest.raises(openai.NotFoundError, match="not served here") as caught:
        client.completions.create(model="another", prompt="a")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("another")
    assert post(server, "classify", {"model": "parrot", "input": "a"}).status_code == 404


def test_keys_are_asked_for_where_they_were_made(site: Any, open_server: Callable[[], Server], tmp_path: Any) -> None:
    path = tmp_path / "keys"
    key = add_key(path, "alice")
    add_key(path, "bob")
    assert key not in path.read_text()
    site.limits(keys=path)
    server = open_server()
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as right:
        assert right.completions.create(model="parrot", prompt="a").choices
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key[:-1], max_retries=0) as wrong:
        with pytest.raises(openai.AuthenticationError) as caught:
            wrong.completions.create(model="parrot", prompt="a")
        assert caught.value.code == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError):
            wrong.models.list()
    assert requests.get(f"{server.url}/log/records/000", timeout=5).status_code == 200, "the log is for everybody"
    for text in ("", "Bearer", f"Basic {key}", "Bearer \u00e9"):
        assert not load_keys(path, "0.0.0.0").allows(text)


def test_without_keys_only_this_machine_may_ask(site: Any, open_server: Callable[[], Server], tmp_path: Any) -> None:
    site.settings = replace(site.settings, http=replace(site.settings.http, host="0.0.0.0"))
    with pytest.raises(KeysInvalid, match=r"limits\.keys"):
        open_server()
    (tmp_path / "keys").write_text("not a digest\n")
    with pytest.raises(KeysInvalid, match="line 1"):
        load_keys(tmp_path / "keys", "127.0.0.1")


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("completions", {"prompt": "a", "n": 2}, "n"),
    ("completions", {"prompt": "a", "logprobs": 5}, "logprobs"),
    ("completions", {"prompt": "a", "presence_penalty": 0.5}, "presence_penalty"),
    ("completions", {"prompt": "a", "unheard_of": 1}, "unheard_of"),
    ("completions", {"prompt": ["a", "b"]}, "prompt"),
    ("completions", {"prompt": [1, 2]}, "prompt"),
    ("completions", {"prompt": ""}, "prompt"),
    ("completions", {}, "prompt"),
    ("completions", {"prompt": "a", "seed": -1}, "seed"),
    ("completions", {"prompt": "a", "seed": MAX_INTEGER + 1}, "seed"),
    ("completions", {"prompt": "a", "temperature": 2.5}, "temperature"),
    ("completions", {"prompt": "a", "temperature": "1"}, "temperature"),
    ("completions", {"prompt": "a", "top_p": 0}, "top_p"),
    ("completions", {"prompt": "a", "max_tokens": 0}, "max_tokens"),
    ("completions", {"prompt": "a", "max_tokens": 65}, "max_tokens"),
    ("completions", {"prompt": "a" * 257}, "prompt"),
    ("completions", {"prompt": "a", "stop": ["x"] * 17}, "stop"),
    ("chat/completions", {"messages": []}, "messages"),
    ("chat/completions", {"messages": [{"role": "tool", "content": "a"}]}, "messages.role"),
    ("chat/completions", {"messages": CHAT, "tools": []}, "tools"),
    ("chat/completions", {"messages": CHAT, "max_tokens": 1, "max_completion_tokens": 1}, "max_tokens"),
]


def test_what_is_not_done_here_is_refused_by_name(server: Server) -> None:
    """Never left out in silence: the receipt would be about something else than was asked for."""
    for path, body, param in REFUSED:
        answer = post(server, path, {"model": "parrot", **body})
        assert answer.status_code == 400, body
        error = answer.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert error["param"].startswith(param), body
    assert server.log.size == 0
