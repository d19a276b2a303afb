"""Statement G: in the slot there is the gradient of its row, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.gradient_cases import TOLERANCE, GradientRound
from benchmarks.gradient_liar import fitting, forge, refused, refusing_nothing
from proofs.gradient.matrix import Matrix
from proofs.gradient.transformer import contribute
from proofs.gradient.verifier import verify
from proofs.proof import CellsFailed, SumsFailed
from proofs.witness import WitnessRefused

LONG = pytest.mark.long
IN_USE, NOT_IN_USE = (0, 1), (1, -1)  # step and slot


@pytest.mark.parametrize(
    ("kind", "at"),
    [
        ("bert", IN_USE),
        ("llama", NOT_IN_USE),
        pytest.param("bert", NOT_IN_USE, marks=LONG),
        pytest.param("llama", IN_USE, marks=LONG),
    ],
)
def test_a_slot_is_proven_whether_in_use_or_not(deep: dict[str, GradientRound], kind: str, at: tuple[int, int]) -> None:
    case, (step, slot) = deep[kind], at
    statement = case.statement(step, slot % case.shape.slots)
    assert case.secret(statement).active is (slot >= 0)
    verify(statement, case.program(step), case.prove(statement))


def test_a_liar_that_tells_no_lie_is_believed(llama: GradientRound) -> None:
    statement = llama.statement(1, 0)
    verify(statement, llama.program(1), forge(llama, statement))


def test_a_round_that_keeps_no_room_for_further_proofs_has_none(bert: GradientRound) -> None:
    """A column of the data beyond those that its random cells hide would tell of the texts."""
    closed = replace(bert, shape=replace(bert.shape, openings=0))
    with pytest.raises(WitnessRefused, match="no random cells"):
        closed.prove(closed.statement(0, 1))


def apart_by(case: GradientRound, units: int) -> np.ndarray:
    """The contribution of slot 1 of step 0, but so many units from H in one coordinate, its longest."""
    nearest = contribute(case.program(0), *case.text(case.row(0, 1)))
    found, at = case.contributions[0][1].astype(np.int64), int(np.argmax(np.abs(nearest)))
    found[at] = nearest[at] - np.sign(nearest[at]) * units
    return found


def scaled(case: GradientRound, factor: float) -> np.ndarray:
    return np.rint(factor * case.contributions[0][1].astype(np.int64))


def another(case: GradientRound, *, token: int = 1, label: int = 0, step: int = 0, row: int = 1) -> np.ndarray:
    """The gradient of a text that is read backwards for −1, of another label, iterate or row."""
    tokens, own = case.text(case.row(0, row))
    return contribute(case.program(step), tokens[::token], (own + label) % 3)


def on_another_base(case: GradientRound) -> np.ndarray:
    program = case.program(0)
    embedding = Matrix(np.roll(program.embedding.units, 1, axis=0), program.embedding.fraction)
    return contribute(replace(program, embedding=embedding), *case.text(case.row(0, 1)))


def random(case: GradientRound) -> np.ndarray:
    own = case.contributions[0][1].astype(np.int64)
    shortest = min(np.linalg.norm(own[columns]) for columns in case.config.groups.values())
    drawn = np.random.default_rng(1).standard_normal(len(own))
    return np.rint(drawn * shortest / np.linalg.norm(drawn))


def not_clipped(case: GradientRound) -> np.ndarray:
    program = case.program(0)
    free = {
        name: replace(one, clip=8 * one.clip, clip_units=8 * one.clip_units) for name, one in program.groups.items()
    }
    return contribute(replace(program, groups=free), *case.text(case.row(0, 1)))


# What a member could put into slot 1 of step 0 instead of the gradient of its row.
OTHERS: dict[str, Callable[[GradientRound], np.ndarray]] = {
    "another row": lambda case: case.contributions[0][0],
    "another iterate": lambda case: another(case, step=1),
    "scaled by 0.9": lambda case: scaled(case, 0.9),
    "sign turned": lambda case: scaled(case, -1),
    "zero": lambda case: scaled(case, 0),
    "not clipped": not_clipped,
    "one unit beyond the tolerance": lambda case: apart_by(case, TOLERANCE + 1),
}
MORE: dict[str, Callable[[GradientRound], np.ndarray]] = {
    "another base": on_another_base,
    "random": random,
    "a row that is not in the dataset": lambda case: another(case, token=-1),
    "another label": lambda case: another(case, label=1),
}
AS_THEY_ARE = ("not clipped", "one unit beyond the tolerance")  # the others are made to be within the clip


@pytest.mark.parametrize("kind", ["bert", pytest.param("llama", marks=LONG)])
@pytest.mark.parametrize("name", [*OTHERS, *(pytest.param(name, marks=LONG) for name in MORE)])
def test_what_is_no_gradient_of_the_row_is_refused(request: pytest.FixtureRequest, kind: str, name: str) -> None:
    case = request.getfixturevalue(kind)
    put = (OTHERS | MORE)[name](case)
    put = put if name in AS_THEY_ARE else fitting(case, put)
    apart = np.abs(another(case) - put).max()
    assert apart == TOLERANCE + 1 if name.startswith("one unit") else apart > TOLERANCE
    with refusing_nothing():
        lied = case.contributing(0, 1, put)
        statement = lied.statement(0, 1)
    refused(lied, statement, forge(lied, statement), SumsFailed)


def test_a_difference_beyond_the_tolerance_with_the_inverse_of_another_is_in_no_table(bert: GradientRound) -> None:
    lied = bert.contributing(0, 1, apart_by(bert, TOLERANCE + 1))
    statement = lied.statement(0, 1)
    refused(lied, statement, forge(lied, statement, false_inverses=True), CellsFailed)


@pytest.mark.parametrize("kind", ["llama", pytest.param("bert", marks=LONG)])
def test_the_tolerance_itself_is_allowed(request: pytest.FixtureRequest, kind: str) -> None:
    case = request.getfixturevalue(kind)
    lied = case.contributing(0, 1, apart_by(case, TOLERANCE))
    statement = lied.statement(0, 1)
    verify(statement, lied.program(0), lied.prove(statement))
