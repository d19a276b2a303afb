"""What a server answered is proven from its record, and what a record must be for that."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ledger.base_program import Base
from ledger.inference_proof import verify_inference
from ledger.log.receipt import Record
from node.engine import Engine
from node.inference_proof import answer_of, prove_inference
from node.replay import Misread
from node.serving import asking, replies
from node.serving.asking import Bounds, ClassifyRequest, CompletionRequest
from node.serving.engine import Job
from node.serving.replies import Head
from proofs.inference.claim import ClaimRefused

BOUNDS, LEAF = Bounds(200, 40), b"\6" * 32
GREEDY = {"model": "m", "prompt": "Tea: paid", "max_tokens": 3, "temperature": 0}
TEXT = {"model": "m", "input": "Tea: paid"}


def generated(engine: Engine, **changed: Any) -> Record:
    """As the server does it, with the server's own code."""
    data = json.dumps(GREEDY | changed).encode()
    asked = asking.completion(asking.parsed(CompletionRequest, data), engine, BOUNDS)
    [outcome] = engine.generate([Job(asked.tokens, asked.decoding)], lambda step: None, lambda job: False)
    head = Head("id", "text_completion", 1, "m", engine.bundle)
    return Record(asked.decoding, bytes(32), data, replies.generated(head, len(asked.tokens), outcome))


def labelled(engine: Engine) -> Record:
    data = json.dumps(TEXT).encode()
    asked = asking.classification(asking.parsed(ClassifyRequest, data), engine, BOUNDS)
    [found] = engine.classify([asked.tokens])
    head = Head("id", "text_completion", 1, "m", engine.bundle)
    return Record(asked.decoding, bytes(32), data, replies.classified(head, len(asked.tokens), engine.labels, found))


def edited(record: Record, old: str, new: str) -> Record:
    text = record.response.decode()
    assert old in text
    return replace(record, response=text.replace(old, new, 1).encode())


@pytest.mark.long  # tests/node/test_custody.py and test_proving.py go the same way, over HTTP
@pytest.mark.parametrize("kind", ["language", "classifier"])
def test_what_the_server_answered_is_proven_and_verified(kind: str, request: pytest.FixtureRequest) -> None:
    """The auditor has the same texts, and so knows whose tokens they are."""
    engine: Engine = request.getfixturevalue(kind)
    record = generated(engine) if kind == "language" else labelled(engine)
    answer, base = answer_of(record, LEAF, engine), Base.open(engine.model.base.path)
    config, weights = engine.model.config, engine.model.weights()
    data = prove_inference(base, config, weights, answer)
    found = verify_inference(base, config, weights, LEAF, answer.scores, data)
    assert (found.tokens, found.prompt) == (answer.tokens, answer.prompt)


def test_a_record_that_contradicts_itself_says_nothing_that_could_be_proven(
    language: Engine, classifier: Engine
) -> None:
    honest = generated(language)
    with pytest.raises(Misread, match="not those of its tokens"):
        answer_of(edited(honest, '"text":"', '"text":"no '), LEAF, language)
    with pytest.raises(Misread, match="names another model"):
        answer_of(edited(honest, language.bundle.hex(), bytes(32).hex()), LEAF, language)
    said = labelled(classifier)
    label = json.loads(said.response)["data"][0]["label"]
    other = next(one for one in classifier.labels if one != label)
    with pytest.raises(ClaimRefused, match="not the one with the largest"):
        answer_of(edited(said, f'"label":"{label}"', f'"label":"{other}"'), LEAF, classifier)


def test_tokens_that_were_drawn_by_chance_are_not_proven(language: Engine) -> None:
    with pytest.raises(ClaimRefused, match="greedy answers alone"):
        answer_of(generated(language, temperature=0.7, seed=5), LEAF, language)
