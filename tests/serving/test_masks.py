"""A served mixture answers as its gates have learned, or with some parents left out: as asked, as the receipt says, and
as a replay finds it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from hashlib import sha256
from typing import Any

import numpy as np
import pytest

from ledger.aggregation import AggregationSpec
from ledger.canonical import FieldInvalid
from ledger.config import Config
from ledger.log.receipt import Decoding, Receipt, Record
from ledger.parents import Parent
from node.engine import Engine, PromptRefused
from node.mixture import mixed_adapter
from node.model import LoadedModel, attach
from node.replay import Why, replay
from node.serving import asking, replies
from node.serving.ask import AskRefused, ask
from node.serving.asking import Bounds, ClassifyRequest, CompletionRequest, Refused
from node.serving.daemon import Server
from node.serving.engine import Job
from node.serving.replies import Head

BOUNDS = Bounds(200, 40)
TEXT = "A small shop: pays on"
GREEDY = Decoding(24, Fraction(0), Fraction(1), 0, 0)


@dataclass(frozen=True)
class Mixed:
    engine: Engine
    parents: tuple[Engine, ...]

    @property
    def bundles(self) -> tuple[bytes, ...]:
        return tuple(parent.bundle for parent in self.parents)

    def others(self, kept: Engine) -> tuple[bytes, ...]:
        """All but one, as a decoding names them."""
        return tuple(sorted(bundle for bundle in self.bundles if bundle != kept.bundle))


def mixed(make_engine: Callable[..., Engine], kind: str, method: Any) -> Mixed:
    """Three parents that say different things, and gates away from zero."""
    first, random = make_engine(kind).model, np.random.default_rng(9)
    parents = tuple(a_parent(first, random, number) for number in range(3))
    found = [Parent(one.bundle, one.model.config, one.model.weights()) for one in parents]
    adapter = mixed_adapter(first.base, method, found, len(first.config.task.labels))
    config = replace(first.config, adapter=adapter, aggregation=AggregationSpec("fedavg"))
    model = attach(first.base, Config.decode(config.encode()), found)
    model.load_weights({t.name: random.integers(-60000, 60000, t.shape) for t in adapter.tensors})
    return Mixed(Engine(model, sha256(f"mixture {kind} {method}".encode()).digest()), parents)


def a_parent(like: LoadedModel, random: np.random.Generator, number: int) -> Engine:
    model = attach(like.base, like.config)
    model.load_weights(
        {name: units + random.integers(-20000, 20000, units.shape) for name, units in like.weights().items()}
    )
    return Engine(model, sha256(b"parent %d" % number).digest())


@pytest.fixture(scope="module", params=["mole", "x-lora"])
def speaking(request: Any, make_engine: Callable[..., Engine]) -> Mixed:
    return mixed(make_engine, "language", request.param)


@pytest.fixture(scope="module")
def judging(make_engine: Callable[..., Engine]) -> Mixed:
    return mixed(make_engine, "classifier", "mole")


def said(engine: Engine, *decodings: Decoding) -> list[str]:
    jobs = [Job(tuple(engine.encode(TEXT)), decoding) for decoding in decodings]
    return [outcome.text for outcome in engine.generate(jobs, lambda step: None, lambda job: False)]


def test_with_all_others_left_out_it_says_what_the_parent_says(speaking: Mixed) -> None:
    """Whoever asks at the same time, and in whatever order; and afterwards all count again."""
    masked = [replace(GREEDY, leave_out=speaking.others(parent)) for parent in speaking.parents]
    alone = [said(parent, GREEDY)[0] for parent in speaking.parents]
    whole = said(speaking.engine, GREEDY)[0]
    assert len({*alone, whole}) == 4
    assert said(speaking.engine, *masked, GREEDY, masked[0]) == [*alone, whole, alone[0]]
    assert said(speaking.engine, GREEDY) == [whole]


def test_a_classifier_too(judging: Mixed) -> None:
    ids = [judging.engine.encode(TEXT)]
    for parent in judging.parents:
        [masked], [alone] = judging.engine.classify(ids, judging.others(parent)), parent.classify(ids)
        assert masked.scores == pytest.approx(alone.scores, abs=1e-5)
        assert masked.scores != pytest.approx(judging.engine.classify(ids)[0].scores, abs=1e-3)


def served(mixture: Mixed, site: Any, open_server: Callable[[], Server]) -> Server:
    site.engine = mixture.engine
    return open_server()


@pytest.mark.parametrize("stream", [False, True])
def test_what_was_left_out_stands_in_the_receipt_and_is_left_out_of_the_replay(
    speaking: Mixed, site: Any, open_server: Callable[[], Server], stream: bool
) -> None:
    server, left_out = served(speaking, site, open_server), speaking.bundles[1]
    kept = ask(server.url, TEXT, max_tokens=12, temperature=0, stream=stream, leave_out=[left_out.hex()])
    receipt = Receipt.decode(kept.receipt)
    assert receipt.decoding.leave_out == (left_out,)
    record = Record(receipt.decoding, receipt.salt, kept.request, kept.response)
    assert replay(record, speaking.engine).why is Why.SAME
    untold = replace(record, decoding=replace(receipt.decoding, leave_out=()))
    assert replay(untold, speaking.engine).why is Why.TERMS


def test_an_answer_of_the_whole_mixture_is_none_without_a_parent(speaking: Mixed, judging: Mixed, site: Any) -> None:
    """Nor the other way round: what a server did not leave out, a replay finds."""
    for mixture, wrong in ((speaking, (Why.TOKENS, Why.STATES)), (judging, (Why.SCORES,))):
        record = answered(mixture.engine, leave_out=[])
        asked = json.loads(record.request) | {"leave_out": [mixture.bundles[0].hex()]}
        decoding = replace(record.decoding, leave_out=(mixture.bundles[0],))
        claimed = replace(record, request=json.dumps(asked).encode(), decoding=decoding)
        assert replay(record, mixture.engine).why is Why.SAME
        assert replay(claimed, mixture.engine).why in wrong


def answered(engine: Engine, leave_out: list[str]) -> Record:
    """As the server does it."""
    head = Head("id", "text_completion", 1, "m", engine.bundle)
    if engine.labels:
        data = json.dumps({"model": "m", "input": TEXT, "leave_out": leave_out}).encode()
        asked = asking.classification(asking.parsed(ClassifyRequest, data), engine, BOUNDS)
        [found] = engine.classify([asked.tokens], asked.decoding.leave_out)
        sent = replies.classified(head, len(asked.tokens), engine.labels, found)
    else:
        body = {"model": "m", "prompt": TEXT, "max_tokens": 12, "temperature": 0, "leave_out": leave_out}
        data = json.dumps(body).encode()
        asked = asking.completion(asking.parsed(CompletionRequest, data), engine, BOUNDS)
        [outcome] = engine.generate([Job(asked.tokens, asked.decoding)], lambda step: None, lambda job: False)
        sent = replies.generated(head, len(asked.tokens), outcome)
    return Record(asked.decoding, bytes(32), data, sent)


def test_labels_of_requests_with_different_masks(judging: Mixed, site: Any, open_server: Callable[[], Server]) -> None:
    server = served(judging, site, open_server)
    for parent in judging.parents:
        kept = ask(server.url, TEXT, leave_out=[bundle.hex() for bundle in judging.others(parent)])
        [label] = json.loads(kept.response)["data"]
        [alone] = parent.classify([parent.encode(TEXT)])
        assert list(label["scores"].values()) == pytest.approx(alone.scores, abs=1e-5)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda bundles: [bytes(32).hex()], "is no parent of this mixture"),
        (lambda bundles: [bundles[0].hex()] * 2, "named twice"),
        (lambda bundles: [bundle.hex() for bundle in bundles], "no parent would be left"),
        (lambda bundles: [bundles[0].hex().upper()], "leave_out"),
        (lambda bundles: [bundles[0].hex()[:-1]], "leave_out"),
        (lambda bundles: bundles[0].hex(), "leave_out"),
        (lambda bundles: [7], "leave_out"),
        (lambda bundles: [bytes(32).hex()] * 17, "leave_out"),
    ],
)
def test_a_mask_that_cannot_be_is_refused(
    judging: Mixed, site: Any, open_server: Callable[[], Server], wrong: Callable[[Any], Any], says: str
) -> None:
    server = served(judging, site, open_server)
    with pytest.raises(AskRefused, match=says):
        ask(server.url, TEXT, leave_out=wrong(judging.bundles))


def test_what_is_no_mixture_leaves_nothing_out(language: Engine) -> None:
    body = CompletionRequest(model="m", prompt=TEXT, leave_out=[bytes(32).hex()])
    with pytest.raises(Refused, match="this model is no mixture"):
        asking.completion(body, language, BOUNDS)
    with pytest.raises(PromptRefused, match="no mixture"):
        said(language, replace(GREEDY, leave_out=(bytes(32),)))


@pytest.mark.parametrize("listed", [[], ["ff" * 32, "00" * 32], ["00" * 32] * 2, ["00" * 31], "00" * 32])
def test_a_decoding_names_them_in_one_way(listed: Any) -> None:
    value = GREEDY.to_json()
    assert "leave_out" not in value
    for found in (GREEDY, replace(GREEDY, leave_out=(bytes(32), b"\1" * 32))):
        assert Decoding.from_json(found.to_json()) == found
    with pytest.raises(FieldInvalid):
        Decoding.from_json(value | {"leave_out": listed})
