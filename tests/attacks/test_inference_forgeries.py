"""Forged proofs of statement F: each tells one lie about an answer; the rule that it breaks refuses it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.gradient_cases import GradientRound, gradient_round
from benchmarks.gradient_liar import forge_answer
from proofs.circuit import second_verifier
from proofs.circuit.builder import ValueRefused
from proofs.gradient.matrix import Matrix
from proofs.gradient.program import NextToken, Program
from proofs.inference.claim import (
    MOST_APART,
    PROTOCOL,
    ClaimRefused,
    Greedy,
    InferenceStatement,
    Scored,
    claim_circuit,
    claim_layout,
)
from proofs.inference.prover import prove
from proofs.inference.scores import scores
from proofs.inference.verifier import verify
from proofs.proof import CellsFailed, OpeningInvalid, ProofMalformed, SumsFailed

CONTEXT, KEY, TOLERANCE, PROMPT = b"\4" * 32, b"\7" * 32, 8, 4
ELSEWHERE = (ProofMalformed, OpeningInvalid)  # other challenges, hence other columns


@dataclass(frozen=True, eq=False)
class Answered:
    """A round's model at two iterates, and its answer to a text."""

    case: GradientRound
    program: Program
    other: Program
    statement: InferenceStatement


def scored(program: Program, tokens: tuple[int, ...]) -> InferenceStatement:
    """What an honest classifier says."""
    found = scores(program, tokens)
    label = int(found.argmax())
    return InferenceStatement(CONTEXT, tokens, Scored(label, tuple((found - found[label]).tolist())), TOLERANCE)


def greedy(program: Program, tokens: tuple[int, ...]) -> InferenceStatement:
    """What an honest language model says to a prompt: two tokens."""
    for _ in range(2):
        tokens = (*tokens, int(scores(program, tokens)[-1].argmax()))
    return InferenceStatement(CONTEXT, tokens, Greedy(len(tokens) - 2), TOLERANCE)


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Answered:
    case = gradient_round("next-token", Path(tmp_path_factory.mktemp("language")))
    program = case.program(0)
    return Answered(case, program, case.program(1), greedy(program, tuple(case.text(1)[0][:PROMPT])))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Answered:
    case = gradient_round("llama", Path(tmp_path_factory.mktemp("classifier")))
    program = case.program(0)
    return Answered(case, program, case.program(1), scored(program, tuple(case.text(0)[0])))


@pytest.fixture(scope="module")
def proof(language: Answered) -> bytes:
    return prove(language.statement, language.program, KEY)


def refused(answered: Answered, statement: InferenceStatement, error: type[Exception], **lies: Any) -> None:
    proof = forge_answer(statement, answered.program, **lies)
    with pytest.raises(error):
        verify(statement, answered.program, proof)


# ----------------------------------------------------------------------------------------------------- what is true


def test_an_answer_is_proven_and_a_liar_that_tells_no_lie_is_believed(language: Answered, proof: bytes) -> None:
    verify(language.statement, language.program, proof)
    verify(language.statement, language.program, forge_answer(language.statement, language.program))


@pytest.mark.parametrize("kind", ["llama", pytest.param("bert", marks=pytest.mark.long)])
def test_a_label_and_its_scores_are_proven(kind: str, classifier: Answered, tmp_path: Path) -> None:
    found = classifier
    if kind == "bert":
        case = gradient_round(kind, tmp_path)
        found = Answered(case, case.program(0), case.program(1), scored(case.program(0), tuple(case.text(0)[0])))
    verify(found.statement, found.program, prove(found.statement, found.program, KEY))
    answer = found.statement.answer
    assert isinstance(answer, Scored)
    assert found.statement.decided == (sorted(answer.differences)[-2] < -TOLERANCE)


def test_the_circuit_scores_as_h_does_up_to_no_unit(classifier: Answered, language: Answered) -> None:
    """A tolerance of one unit is enough for what H itself says, of texts of every length."""
    for length in (1, 2, 5):
        tokens = tuple(classifier.case.text(0)[0][:length])
        claim_circuit(replace(scored(classifier.program, tokens), tolerance=1), classifier.program, True)
    exact = replace(greedy(language.program, (2,)), tolerance=1)
    claim_circuit(exact, language.program, True)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_second_verifier_says_the_same(language: Answered, proof: bytes) -> None:
    def said(data: bytes) -> type[Exception] | None:
        statement, program = language.statement, language.program
        circuit = claim_circuit(statement, program)
        row = claim_layout(circuit).row
        try:
            second_verifier.verify(statement.digest(program), circuit, row, [], [], data, PROTOCOL)
        except (*ELSEWHERE, SumsFailed, CellsFailed) as error:
            return type(error)
        return None

    assert said(proof) is None
    assert said(proof[:-1] + bytes([proof[-1] ^ 1])) is OpeningInvalid


# ------------------------------------------------------------------------------------------------ of what, by what


def test_the_answer_to_another_text_is_refused(classifier: Answered) -> None:
    asked = classifier.statement
    other = (*asked.tokens[:-2], asked.tokens[-1], asked.tokens[-2])
    told = scored(classifier.program, other)
    refused(classifier, replace(told, tokens=asked.tokens), SumsFailed, computing=told)


def test_the_answer_of_another_adapter_is_refused(classifier: Answered) -> None:
    told = scored(classifier.other, classifier.statement.tokens)
    refused(classifier, told, SumsFailed, running=classifier.other)


@pytest.mark.long
def test_the_answer_of_another_base_is_refused(language: Answered) -> None:
    program = language.program
    assert isinstance(program.head, NextToken)
    head = NextToken(Matrix(np.roll(program.head.weight.units, 1, axis=0), program.head.weight.fraction))
    other = replace(program, head=head)
    told = greedy(other, language.statement.tokens[:PROMPT])
    assert told != language.statement
    refused(language, told, SumsFailed, running=other)


# ------------------------------------------------------------------------------------------------- scores, and labels


def claimed(statement: InferenceStatement, label: int, change: int) -> InferenceStatement:
    assert isinstance(statement.answer, Scored)
    differences = list(statement.answer.differences)
    differences[label] += change
    return replace(statement, answer=Scored(statement.answer.label, tuple(differences)))


@pytest.mark.parametrize(
    ("false_inverses", "error"), [(False, SumsFailed), pytest.param(True, CellsFailed, marks=pytest.mark.long)]
)
def test_a_score_beyond_the_tolerance_is_refused(
    classifier: Answered, false_inverses: bool, error: type[Exception]
) -> None:
    assert isinstance(classifier.statement.answer, Scored)
    label = int(np.argmin(classifier.statement.answer.differences))
    claim_circuit(claimed(classifier.statement, label, -TOLERANCE), classifier.program, True)
    lied = claimed(classifier.statement, label, -TOLERANCE - 1)
    with pytest.raises(ValueRefused):
        prove(lied, classifier.program, KEY)
    refused(classifier, lied, error, false_inverses=false_inverses)


def test_another_label_is_refused(classifier: Answered) -> None:
    """Said beside the true scores it contradicts them; and false scores are refused."""
    answer = classifier.statement.answer
    assert isinstance(answer, Scored)
    other = (answer.label + 1) % len(answer.differences)
    with pytest.raises(ClaimRefused, match="not the one with the largest"):
        replace(classifier.statement, answer=Scored(other, answer.differences))
    differences = tuple(0 if label == other else -500 for label in range(len(answer.differences)))
    refused(classifier, replace(classifier.statement, answer=Scored(other, differences)), SumsFailed)


def second_best(answered: Answered) -> InferenceStatement:
    """The last token is the next likeliest whose score is further below than the tolerance."""
    tokens = answered.statement.tokens[:-1]
    found = scores(answered.program, tokens)[-1]
    below = found.max() - found
    worse = int(np.argmin(np.where(below > TOLERANCE, below, 1 << 40)))
    return replace(answered.statement, tokens=(*tokens, worse))


@pytest.mark.parametrize(
    ("false_inverses", "error"), [pytest.param(False, SumsFailed, marks=pytest.mark.long), (True, CellsFailed)]
)
def test_a_token_that_is_not_the_likeliest_is_refused(
    language: Answered, false_inverses: bool, error: type[Exception]
) -> None:
    with pytest.raises(ValueRefused):
        prove(second_best(language), language.program, KEY)
    refused(language, second_best(language), error, false_inverses=false_inverses)


# --------------------------------------------------------------------------------------- another statement, other bytes


def test_a_proof_is_of_one_statement_and_one_program(language: Answered, proof: bytes) -> None:
    said = language.statement
    for other in (replace(said, context=bytes(32)), replace(said, tolerance=TOLERANCE + 1)):
        with pytest.raises(ELSEWHERE):
            verify(other, language.program, proof)
    with pytest.raises(ELSEWHERE):
        verify(said, language.other, proof)


@pytest.mark.parametrize("place", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_other_bytes_are_refused(language: Answered, proof: bytes, place: float) -> None:
    at = int(place * len(proof))
    with pytest.raises(ELSEWHERE):
        verify(language.statement, language.program, proof[:at] + bytes([proof[at] ^ 1]) + proof[at + 1 :])


def test_claims_that_no_model_makes_are_refused_before_anything_is_computed(
    language: Answered, classifier: Answered
) -> None:
    said, scored_one = language.statement, classifier.statement
    assert isinstance(scored_one.answer, Scored)
    for changes, told in (
        ({"tokens": ()}, "0 tokens"),
        ({"tokens": (5, -1, 3, 2)}, "below 2"),
        ({"answer": Greedy(len(said.tokens))}, "leaves no answer"),
        ({"answer": Scored(0, (0, -MOST_APART - 1))}, "units apart"),
        ({"answer": Scored(5, (0, 0))}, "not the one with the largest"),
    ):
        with pytest.raises(ClaimRefused, match=told):
            replace(said, **changes)
    for statement, program, told in (
        (said, classifier.program, "gives no label"),
        (scored_one, language.program, "gives no label"),
        (replace(said, tokens=(*said.tokens, 1 << 20)), language.program, "a token id beyond"),
        (replace(scored_one, answer=Scored(0, (0, 0))), classifier.program, "2 scores of a model with 3"),
    ):
        with pytest.raises(ClaimRefused, match=told):
            claim_circuit(statement, program)
