"""A replay says yes to what the model said, in the server's very bytes, and no, with the reason, to anything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import pytest
import requests

from ledger.log.receipt import Decoding, Receipt, Record, open_record
from ledger.log.tiles import split_records
from node.engine import Engine
from node.fingerprint import THRESHOLD, Fingerprint, of_answer
from node.replay import Replayed, Verdict, Why, replay
from node.serving import asking, reading, replies
from node.serving.ask import ask
from node.serving.asking import Bounds, ChatRequest, ClassifyRequest, CompletionRequest
from node.serving.daemon import Server
from node.serving.engine import Job, Outcome, Step
from node.serving.replies import Head

BOUNDS = Bounds(200, 40)
COMPLETION = {"model": "m", "prompt": "A small shop: pays on", "max_tokens": 24, "temperature": 0.7, "seed": 5}
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Is it paid?"}], "temperature": 0.9}
TEXT = {"model": "m", "input": "Tea importer: filed for insolvency."}


@dataclass(frozen=True)
class Answered:
    """A record, and what was in it before it became bytes."""

    record: Record
    head: Head
    asked: asking.Asked
    outcome: Outcome


def answer(engine: Engine, body: dict[str, Any], **changed: Any) -> Answered:
    """As the server does it, with the server's own code. changed: of the outcome, before it is sent."""
    data = json.dumps(body).encode()
    if "messages" in body:
        asked = asking.chat(asking.parsed(ChatRequest, data), engine, BOUNDS)
        head = Head("id", "chat.completion", 1, "m", engine.bundle)
    else:
        asked = asking.completion(asking.parsed(CompletionRequest, data), engine, BOUNDS)
        head = Head("id", "text_completion", 1, "m", engine.bundle)
    steps: list[Step] = []
    [outcome] = engine.generate([Job(asked.tokens, asked.decoding)], steps.append, lambda job: False)
    outcome = replace(outcome, **changed)
    if asked.stream:
        pieces = [step.text for step in steps if step.text] or [""]
        sent = b"".join(replies.chunk(head, text, first=not n) for n, text in enumerate(pieces[:-1]))
        sent += replies.last_chunk(head, pieces[-1], outcome, first=len(pieces) == 1)
        sent += replies.usage_chunk(head, len(asked.tokens), outcome) if asked.usage else b""
    else:
        sent = replies.generated(head, len(asked.tokens), outcome)
    return Answered(Record(asked.decoding, bytes(32), data, sent), head, asked, outcome)


def labelled(engine: Engine, body: dict[str, Any]) -> Record:
    data = json.dumps(body).encode()
    asked = asking.classification(asking.parsed(ClassifyRequest, data), engine, BOUNDS)
    [found] = engine.classify([asked.tokens])
    head = Head("id", "text_completion", 1, "m", engine.bundle)
    sent = replies.classified(head, len(asked.tokens), engine.labels, found)
    return Record(asked.decoding, bytes(32), data, sent)


def edited(record: Record, change: Callable[[Any], Any]) -> Record:
    value = json.loads(record.response)
    change(value)
    return replace(record, response=json.dumps(value).encode())


def refused(found: Replayed, why: Why) -> None:
    assert (found.verdict, found.why) == (Verdict.MISMATCH, why), found


STOPPED = {"stop": ["zz", " m"], "top_p": 0.9, "top_k": 30}
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
ASKED = [
    COMPLETION,
    COMPLETION | {"temperature": 0},
    {"model": "m", "prompt": ["The owner"]},
    COMPLETION | STOPPED,
    COMPLETION | STREAM,
    COMPLETION | STOPPED | {"stream": True},
    CHAT,
    CHAT | STREAM | {"max_completion_tokens": 7},
]


@pytest.mark.parametrize("body", ASKED, ids=lambda body: ",".join(body)[15:])
def test_what_the_model_said_matches(language: Engine, body: dict[str, Any]) -> None:
    found = replay(answer(language, body).record, language)
    assert (found.verdict, found.why) == (Verdict.MATCH, Why.SAME), found
    assert found.distance < THRESHOLD / 4
    assert (found.differs_at, found.close) == (None, 0)


def test_an_answer_given_in_a_batch_matches_too(language: Engine) -> None:
    one = answer(language, COMPLETION)
    others = [Job(tuple(language.encode(text)), one.asked.decoding) for text in ("Re:", "A reader in the north: never")]
    jobs = [others[0], Job(one.asked.tokens, one.asked.decoding), others[1]]
    outcome = language.generate(jobs, lambda step: None, lambda job: False)[1]
    sent = replies.generated(one.head, len(one.asked.tokens), outcome)
    assert replay(replace(one.record, response=sent), language).verdict is Verdict.MATCH


@pytest.fixture(scope="module")
def honest(language: Engine) -> Answered:
    return answer(language, COMPLETION)


def test_another_model_behind_the_name_is_found(
    language: Engine, make_engine: Callable[..., Engine], honest: Answered
) -> None:
    """A server that runs another bundle, and says that it runs this one."""
    other = make_engine("language", 4)
    swapped = Engine(other.model, language.bundle)
    found = replay(answer(swapped, COMPLETION).record, language)
    assert found.verdict is Verdict.MISMATCH
    assert found.why in (Why.TOKENS, Why.STATES)
    assert found.distance > 10 * THRESHOLD
    refused(replay(honest.record, other), Why.BUNDLE)


def test_another_models_states_under_this_models_tokens_are_found(
    language: Engine, make_engine: Callable[..., Engine], honest: Answered
) -> None:
    """Tokens that are right, by luck or by theft, do not make up for states that are not."""
    other = make_engine("language", 4)
    states, _ = other.follow(honest.asked.tokens, honest.outcome.tokens)
    forged = of_answer(states, honest.outcome.tokens).encode()
    found = replay(answer(language, COMPLETION, fingerprint=forged).record, language)
    refused(found, Why.STATES)
    assert found.differs_at is None


def test_a_token_that_was_not_drawn_is_found_where_it_is(language: Engine, honest: Answered) -> None:
    """The model is the true one, and its answer was steered: the states are right, the choice is not."""
    steered = (*honest.outcome.tokens[:6], 3 + (honest.outcome.tokens[6] - 2) % 200, *honest.outcome.tokens[7:])
    states, _ = language.follow(honest.asked.tokens, steered)
    text, finish = language.written(honest.asked.tokens, steered, honest.asked.decoding)
    changed = {"tokens": steered, "text": text, "finish": finish or "length"}
    sent = answer(language, COMPLETION, fingerprint=of_answer(states, steered).encode(), **changed)
    found = replay(sent.record, language)
    refused(found, Why.TOKENS)
    assert found.differs_at == 6
    assert found.distance < THRESHOLD


def test_another_seed_than_the_receipt_says_is_found(language: Engine) -> None:
    """Drawn until it pleased. The request left the seed to the server, and the receipt names one."""
    body = {name: value for name, value in COMPLETION.items() if name != "seed"}
    one = answer(language, body)
    assert replay(one.record, language).verdict is Verdict.MATCH
    told = replace(one.record, decoding=replace(one.record.decoding, seed=one.record.decoding.seed ^ 1))
    refused(replay(told, language), Why.TOKENS)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 6}, {"temperature": Fraction(1, 2)}, {"top_p": Fraction(1, 2)}, {"top_k": 3}, {"stop": ("x",)},
        {"max_tokens": 23},
    ],
    ids=str,
)  # fmt: skip
def test_terms_that_are_not_those_of_the_request_are_found(
    language: Engine, honest: Answered, change: dict[str, Any]
) -> None:
    told = replace(honest.record, decoding=replace(honest.record.decoding, **change))
    refused(replay(told, language), Why.TERMS)


def test_another_request_is_found(language: Engine, honest: Answered) -> None:
    other = json.dumps(COMPLETION | {"prompt": "A small shop: pays in"}).encode()
    found = replay(replace(honest.record, request=other), language)
    assert found.verdict is Verdict.MISMATCH
    assert found.why in (Why.TOKENS, Why.STATES)
    for data in (b"", b"{}", b"[]", json.dumps(COMPLETION | {"n": 2}).encode(), json.dumps(TEXT).encode()):
        refused(replay(replace(honest.record, request=data), language), Why.REQUEST)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v["choices"][0].update(text=v["choices"][0]["text"] + "!"),
        lambda v: v["choices"][0].update(text=v["choices"][0]["text"][:-1]),
        lambda v: v["choices"][0].update(finish_reason="stop"),
        lambda v: v["usage"].update(completion_tokens=23),
        lambda v: v["usage"].update(prompt_tokens=1),
    ],
)
def test_a_text_an_end_or_a_count_that_is_not_of_the_tokens_is_found(
    language: Engine, honest: Answered, change: Callable[[Any], Any]
) -> None:
    refused(replay(edited(honest.record, change), language), Why.TEXT)


def test_an_answer_that_goes_on_after_its_end_or_ends_before_it_is_found(language: Engine, honest: Answered) -> None:
    for tokens in (honest.outcome.tokens[:-1], (*honest.outcome.tokens[:5], 2, 70)):
        states, _ = language.follow(honest.asked.tokens, tokens)
        sent = answer(language, COMPLETION, tokens=tokens, fingerprint=of_answer(states, tokens).encode())
        refused(replay(sent.record, language), Why.TEXT)
    more = (*honest.outcome.tokens, 70)
    states, _ = language.follow(honest.asked.tokens, more)
    sent = answer(language, COMPLETION, tokens=more, fingerprint=of_answer(states, more).encode())
    refused(replay(sent.record, language), Why.FINGERPRINT)


def test_a_fingerprint_that_is_none_or_of_another_kind_is_found(language: Engine, honest: Answered) -> None:
    pooled = Fingerprint("pooled", 64, (), Fingerprint.decode(honest.outcome.fingerprint).windows[:1])
    for data in (b"", b"seen", honest.outcome.fingerprint + b"\0", pooled.encode()):
        refused(replay(answer(language, COMPLETION, fingerprint=data).record, language), Why.FINGERPRINT)
    beyond = replace(Fingerprint.decode(honest.outcome.fingerprint), tokens=(70_000,) * 24)
    refused(replay(answer(language, COMPLETION, fingerprint=beyond.encode()).record, language), Why.FINGERPRINT)


@pytest.mark.parametrize("data", [b"", b"{", b"data: {}\n\n", b"data: 1", b'{"object":"text_completion"}', b"[" * 99])
def test_a_response_that_no_server_sends_is_refused(language: Engine, honest: Answered, data: bytes) -> None:
    refused(replay(replace(honest.record, response=data), language), Why.RESPONSE)


def test_a_stream_that_broke_off_binds_nobody(language: Engine) -> None:
    """It is compared all the same with what is said here."""
    whole = answer(language, COMPLETION | {"stream": True}).record
    events = [event + b"\n\n" for event in whole.response.split(b"\n\n") if event]
    found = replay(replace(whole, response=b"".join(events[:4])), language)
    assert (found.verdict, found.why) == (Verdict.UNDECIDED, Why.BROKEN_OFF)
    assert "are said here too" in found.detail
    said = json.loads(events[3].removeprefix(b"data: "))
    said["choices"][0]["text"] += "?"
    forged = b"".join(events[:3]) + b"data: " + json.dumps(said).encode() + b"\n\n"
    assert "another text" in replay(replace(whole, response=forged), language).detail


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e.insert(1, e[-1]),
        lambda e: e.append(e[0]),
        lambda e: e.append(b'data: {"object":"text_completion","choices":[]}'),
        lambda e: e.__setitem__(1, e[1].replace(b'"text"', b'"txt"')),
        lambda e: e.__setitem__(1, e[1].replace(b'"text_completion"', b'"chat.completion.chunk"')),
        lambda e: e.__setitem__(1, b"event: x\n" + e[1]),
    ],
)
def test_a_stream_that_is_not_one_answer_is_refused(language: Engine, change: Callable[[Any], Any]) -> None:
    whole = answer(language, COMPLETION | {"stream": True}).record
    events = [event for event in whole.response.split(b"\n\n") if event]
    change(events)
    refused(replay(replace(whole, response=b"\n\n".join(events) + b"\n\n"), language), Why.RESPONSE)


# ---- classification


def test_labels_are_given_again(classifier: Engine, make_engine: Callable[..., Engine]) -> None:
    record = labelled(classifier, TEXT)
    found = replay(record, classifier)
    assert (found.verdict, found.why) == (Verdict.MATCH, Why.SAME)
    other = json.dumps(TEXT | {"input": "Tea importer: pays on time."}).encode()
    assert replay(replace(record, request=other), classifier).verdict is Verdict.MISMATCH
    swapped = Engine(make_engine("classifier", 4).model, classifier.bundle)
    assert replay(labelled(swapped, TEXT), classifier).verdict is Verdict.MISMATCH


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v["data"][0].update(label=min(v["data"][0]["scores"], key=v["data"][0]["scores"].get)),
        lambda v: v["data"][0]["scores"].update(repay=v["data"][0]["scores"]["repay"] + 0.01),
        lambda v: v["data"][0]["scores"].pop("repay"),
        lambda v: v["data"][0]["scores"].update(other=0.0),
    ],
)
def test_another_label_or_score_is_found(classifier: Engine, change: Callable[[Any], Any]) -> None:
    refused(replay(edited(labelled(classifier, TEXT), change), classifier), Why.SCORES)


def test_an_answer_of_the_other_task_is_refused(language: Engine, classifier: Engine, honest: Answered) -> None:
    record = labelled(classifier, TEXT)
    assert replay(replace(record, response=record.response), language).verdict is Verdict.MISMATCH
    named = Engine(classifier.model, language.bundle)
    assert replay(honest.record, named).verdict is Verdict.MISMATCH
    assert replay(labelled(named, TEXT), language).verdict is Verdict.MISMATCH


def test_whole_answers_are_read_back_as_they_were_written(honest: Answered) -> None:
    said = reading.read_reply(honest.record.response)
    assert isinstance(said, reading.Said)
    assert (said.text, said.finish, said.fingerprint) == (
        honest.outcome.text, honest.outcome.finish, honest.outcome.fingerprint,
    )  # fmt: skip
    assert (said.prompt_tokens, said.tokens) == (len(honest.asked.tokens), 24)
    assert honest.record.decoding == Decoding(24, Fraction(7, 10), Fraction(1), 0, 5)


# ---- over HTTP


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_server_sent_and_sealed_is_replayed_by_an_auditor(
    site: Any, open_server: Callable[[], Server], language: Engine, stream: bool
) -> None:
    """From the question to the verdict, through everything between: two ask at the same time."""
    site.settings = replace(site.settings, bundle=language.bundle)
    site.engine = language
    server = open_server()
    with ThreadPoolExecutor(2) as pool:
        texts = ("A small shop: pays on", "The owner never")
        kept = list(pool.map(lambda text: ask(server.url, text, max_tokens=12, temperature=0.8, stream=stream), texts))
    for one in kept:
        entry = Receipt.decode(one.receipt).entry
        sealed = split_records(requests.get(f"{server.url}/log/records/000", timeout=5).content)
        record = open_record(entry, sealed[entry.sequence], site.auditor)
        assert (record.request, record.response) == (one.request, one.response)
        assert replay(record, language).verdict is Verdict.MATCH


def test_labels_that_a_server_sent_are_replayed(
    site: Any, open_server: Callable[[], Server], classifier: Engine
) -> None:
    site.engine = classifier
    kept = ask(open_server().url, "Tea importer: filed for insolvency.")
    receipt = Receipt.decode(kept.receipt)
    record = Record(receipt.decoding, receipt.salt, kept.request, kept.response)
    assert replay(record, classifier).verdict is Verdict.MATCH
