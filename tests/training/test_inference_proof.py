"""A server proves what torch answered, an auditor verifies it on its own base; and what comes instead of a proof."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.gradient_cases import GradientRound, gradient_round
from ledger import canonical
from ledger.inference_proof import (
    FORMAT,
    MAX_ANSWER_BYTES,
    TOLERANCE,
    Answer,
    AnswerMalformed,
    Proven,
    read_answer,
    scored,
    verify_inference,
)
from node.inference_proof import prove_inference
from node.model import LoadedModel, attach, load_base
from proofs.inference.claim import ClaimRefused, Scored
from proofs.proof import ProofInvalid

LEAF = b"\5" * 32


def model_of(case: GradientRound) -> LoadedModel:
    model = attach(load_base(str(case.base.files.folder)), case.config)
    model.load_weights(case.weights)
    return model


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> tuple[GradientRound, Answer, bytes]:
    case = gradient_round("next-token", Path(tmp_path_factory.mktemp("language")))
    tokens, model = list(case.text(1)[0][:4]), model_of(case)
    for _ in range(2):
        with torch.no_grad():
            tokens.append(int(model.logits([tokens])[0, -1].argmax()))
    answer = Answer(LEAF, tuple(tokens), 4, None)
    return case, answer, prove_inference(case.base, case.config, case.weights, answer)


def test_an_auditor_verifies_what_torch_generated(language: tuple[GradientRound, Answer, bytes]) -> None:
    case, answer, data = language
    found = verify_inference(case.base, case.config, case.weights, LEAF, None, data)
    assert found == Proven(answer.tokens, 4, False, TOLERANCE)


def test_an_auditor_verifies_torchs_label_and_shares(tmp_path: Path) -> None:
    case = gradient_round("llama", tmp_path)
    tokens = tuple(case.text(0)[0])
    with torch.no_grad():
        shares = torch.softmax(model_of(case).logits([tokens])[0].double(), dim=0).tolist()
    data = prove_inference(case.base, case.config, case.weights, Answer(LEAF, tokens, None, tuple(shares)))
    assert verify_inference(case.base, case.config, case.weights, LEAF, shares, data).tokens == tokens
    other = [shares[1], shares[0], *shares[2:]]
    for leaf, said in ((bytes(32), shares), (LEAF, other)):
        with pytest.raises((ProofInvalid, ClaimRefused)):
            verify_inference(case.base, case.config, case.weights, leaf, said, data)


def test_a_proof_is_of_one_receipt_one_text_and_one_adapter(language: tuple[GradientRound, Answer, bytes]) -> None:
    case, answer, data = language
    _, _, proof = read_answer(data)
    swapped = replace(answer, tokens=(*answer.tokens[1::-1], *answer.tokens[2:]))
    moved = {name: units + (1 if name.endswith("lora_B.weight") else 0) for name, units in case.weights.items()}
    for leaf, weights, sent in (
        (bytes(32), case.weights, data),
        (LEAF, moved, data),
        (LEAF, case.weights, swapped.encode(proof)),
        (LEAF, case.weights, replace(answer, prompt=3).encode(proof)),
        (LEAF, case.weights, data[:-1]),
    ):
        with pytest.raises(ProofInvalid):
            verify_inference(case.base, case.config, weights, leaf, None, sent)
    with pytest.raises(ClaimRefused, match="either tokens"):
        verify_inference(case.base, case.config, case.weights, LEAF, [0.5, 0.5], data)
    long = replace(answer, tokens=answer.tokens * 4)
    with pytest.raises(ClaimRefused, match="24 tokens of a model of 8"):
        verify_inference(case.base, case.config, case.weights, LEAF, None, long.encode(proof))


def head(**changed: object) -> bytes:
    value = {"format": FORMAT, "prompt": 1, "tokens": [1, 2]} | changed
    data = canonical.encode(value)
    return len(data).to_bytes(4) + data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0\0",
        b"\xff\xff\xff\xff" + bytes(100),
        b"\0\0\0\2{}",
        b"\0\0\0\4null",
        head(format="another"),
        head(tokens=[1, -2]),
        head(tokens=[1, True]),
        head(tokens=["1"]),
        head(tokens=[1] * 513),
        head(prompt="1"),
        head(more=1),
        bytes(MAX_ANSWER_BYTES + 1),
    ],
    ids=range(13),
)
def test_bytes_that_are_no_answer_are_refused(data: bytes) -> None:
    with pytest.raises(AnswerMalformed):
        read_answer(data)


def test_shares_become_the_same_distances_everywhere() -> None:
    assert read_answer(head() + b"proof") == ((1, 2), 1, b"proof")
    assert scored([0.25, 0.5, 0.25]) == Scored(1, (-710, 0, -710))
    assert scored([0.5, 0.5]) == Scored(0, (0, 0))
    assert scored([1e-300, 1.0]).differences[0] == round(float(np.log(1e-300)) * 1024)
    for wrong in ([], [0.0, 1.0], [1.5, 0.1], [float("nan"), 0.5], [-0.1, 0.5]):
        with pytest.raises(ClaimRefused, match="a share above 0"):
            scored(wrong)
