"""Forged proofs of the next-token loss: each tells one lie about what is predicted, by which shares, or how it counts.

All that follows from a lie is made to fit it, the contribution in the slot too (benchmarks.gradient_liar).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from benchmarks.gradient_cases import GradientRound, gradient_round
from benchmarks.gradient_liar import Lie, fitting, forge, no_lie, refused, refusing_nothing
from proofs.circuit.builder import Circuit
from proofs.circuit.wire import Group, Wire
from proofs.gradient import circuit_next_token, circuit_text, next_token
from proofs.gradient.circuit_model import contribution
from proofs.gradient.circuit_text import cells_of, example
from proofs.gradient.matrix import Matrix
from proofs.gradient.program import NextToken, Program
from proofs.gradient.transformer import contribute
from proofs.gradient.verifier import verify
from proofs.proof import CellsFailed, ProofInvalid, SumsFailed

Building = Callable[[ExitStack], None]
SLOT = 0  # of step 0; its text is shorter than the longest


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> GradientRound:
    return gradient_round("next-token", Path(tmp_path_factory.mktemp("predicts")))


def computed(case: GradientRound, running: Program, building: Building) -> np.ndarray:
    """What the circuit makes of the row of the slot under a lie, no longer than the clip."""
    tokens, label = case.text(case.row(0, SLOT))
    with refusing_nothing(), ExitStack() as patches:
        building(patches)
        circuit = Circuit(case.shape.tokens, True)
        cells = circuit.free((case.shape.tokens + 2,), 1, cells_of(tokens, label, case.shape.tokens))
        found = contribution(circuit, running, example(circuit, running, cells))
    return fitting(case, np.concatenate([wire.known()[:, 0] for _, wire in found]))


def lies(
    case: GradientRound,
    error: type[ProofInvalid],
    *,
    building: Building = lambda _: None,
    running: Program | None = None,
    lie: Lie = no_lie,
    **changes: Any,
) -> None:
    """The verifier refuses the lie although the contribution is the one that follows from it."""
    lied = case.contributing(0, SLOT, computed(case, running or case.program(0), building))
    statement = lied.statement(0, SLOT)
    proof = forge(lied, statement, running=running, building=building, lie=lie, **changes)
    refused(lied, statement, proof, error)


# ----------------------------------------------------------------------------------------------------- what is true


@pytest.mark.parametrize(
    ("step", "slot"), [(0, SLOT), pytest.param(1, -1, marks=pytest.mark.long)], ids=["in use", "not in use"]
)
def test_a_slot_is_proven_whether_in_use_or_not(case: GradientRound, step: int, slot: int) -> None:
    statement = case.statement(step, slot % case.shape.slots)
    assert case.secret(statement).active is (slot >= 0)
    assert {trained.group for trained in case.program(step).trained} == {"adapter"}
    verify(statement, case.program(step), case.prove(statement))


@pytest.mark.long
def test_a_liar_that_tells_no_lie_is_believed(case: GradientRound) -> None:
    statement = case.statement(0, SLOT)
    verify(statement, case.program(0), forge(case, statement))


# --------------------------------------------------------------------------------------- what is predicted, and where


def test_another_token_is_not_what_follows(case: GradientRound) -> None:
    honest = circuit_text.following

    def following(circuit: Circuit, ids: Wire, end: Wire) -> Any:
        units = None if ids.units is None else ids.units.copy()
        if units is not None:
            units[0, 1] = (units[0, 1] + 1) % 18
        return honest(circuit, ids.with_(units=units), end)

    lies(case, SumsFailed, building=lambda on: on.enter_context(patch.object(circuit_text, "following", following)))


def averaged(change: Callable[[np.ndarray], np.ndarray]) -> Building:
    """The shares of places in the loss are others."""
    honest = next_token.shares

    def build(patches: ExitStack) -> None:
        patches.enter_context(patch.object(next_token, "shares", lambda places: change(honest(places))))

    return build


def beyond_the_end(shares: np.ndarray) -> np.ndarray:
    """Places after the last token count as those before it do; the last token does not."""
    found = shares + np.tril(np.broadcast_to(shares.max(axis=0), shares.shape), -1)
    return np.asarray(found)


def last_token_too(shares: np.ndarray) -> np.ndarray:
    return np.asarray(shares + np.diag(shares.max(axis=0)))


def of_another_length(shares: np.ndarray) -> np.ndarray:
    """As if one more token were predicted."""
    count = np.maximum(1, (shares > 0).sum(axis=0))
    return np.asarray(shares * count // (count + 1))


@pytest.mark.parametrize("change", [beyond_the_end, last_token_too, of_another_length])
def test_every_token_but_the_last_counts_equally_and_nothing_beyond(
    case: GradientRound, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    tokens, _ = case.text(case.row(0, SLOT))
    assert len(tokens) < case.shape.tokens, "no padding to lie about"
    lies(case, SumsFailed, building=averaged(change))


# ------------------------------------------------------------------------------------------------------ by which shares


def in_vocabulary(column: int, change: Callable[[np.ndarray], None]) -> Building:
    """A column of the cells of the vocabulary is changed before anything is computed from it."""
    honest = Circuit.put

    def put(self: Circuit, group: Group, shape: tuple[int, ...], units: Any) -> list[Wire]:
        if group.name.startswith("vocabulary") and units[column] is not None:
            units = list(units)
            units[column] = units[column].copy()
            change(units[column])
        return honest(self, group, shape, units)

    return lambda patches: patches.enter_context(patch.object(Circuit, "put", put)) and None


def one_more(cells: np.ndarray) -> None:
    cells.reshape(-1)[0] += 1


@pytest.mark.parametrize(
    ("false_inverses", "error"), [(False, SumsFailed), pytest.param(True, CellsFailed, marks=pytest.mark.long)]
)
def test_an_exponential_is_the_entry_of_its_score(
    case: GradientRound, false_inverses: bool, error: type[ProofInvalid]
) -> None:
    lies(case, error, building=in_vocabulary(1, one_more), false_inverses=false_inverses)


def test_shares_add_up_to_one(case: GradientRound) -> None:
    """R is the inverse of half the sum: all shares are twice what they are."""
    honest = circuit_next_token.inverse

    def inverse(circuit: Circuit, x: Wire, numerator: int, bits: int) -> Wire:
        return honest(circuit, x, 2 * numerator if circuit.proving else numerator, bits)

    lies(case, SumsFailed, building=lambda on: on.enter_context(patch.object(circuit_next_token, "inverse", inverse)))


def second_largest(circuit: Circuit) -> None:
    """A token whose score is below the largest is picked instead."""
    group = next(group for key, group in circuit.groups.items() if key.startswith("vocabulary"))
    below, pick = group.units(0)[:, 0], group.units(2)
    pick[:, 0] = 0
    pick[int(np.argmax(below)), 0] = 1


def none_picked(circuit: Circuit) -> None:
    """As is needed where all scores are said to be below a largest that none of them is."""
    next(group for key, group in circuit.groups.items() if key.startswith("vocabulary")).units(2)[:, 0] = 0


@pytest.mark.parametrize(("lie", "error"), [(second_largest, CellsFailed), (none_picked, SumsFailed)])
def test_the_largest_score_is_one_of_them(case: GradientRound, lie: Lie, error: type[ProofInvalid]) -> None:
    lies(case, error, lie=lie)


# -------------------------------------------------------------------------------------------------------- of which base


@dataclass(frozen=True)
class OtherHead:
    """A head that differs in one entry of one token's row."""

    token: int

    def of(self, program: Program) -> Program:
        assert isinstance(program.head, NextToken)
        units = program.head.weight.units.copy()
        units[self.token, 0] += 64
        return replace(program, head=NextToken(Matrix(units, program.head.weight.fraction)))


def test_the_head_is_that_of_the_base(case: GradientRound) -> None:
    """Of a token that the text does not have: its scores alone are others."""
    tokens, _ = case.text(case.row(0, SLOT))
    token = next(token for token in range(18) if token not in tokens)
    lies(case, SumsFailed, running=OtherHead(token).of(case.program(0)))


def test_the_row_of_what_follows_is_that_of_the_head(case: GradientRound) -> None:
    """The row that the softmax's mean is compared with is another token's, though its name is right."""
    honest = circuit_next_token.rows_of

    def rows_of(circuit: Circuit, name: str, matrix: Matrix, ids: Wire) -> Wire:
        rolled = Matrix(np.roll(matrix.units, 1, axis=0), matrix.fraction) if circuit.proving else matrix
        return honest(circuit, name, rolled, ids)

    lies(case, SumsFailed, building=lambda on: on.enter_context(patch.object(circuit_next_token, "rows_of", rows_of)))


@pytest.mark.long
def test_what_is_no_gradient_of_the_text_is_refused(case: GradientRound) -> None:
    tokens, label = case.text(case.row(0, SLOT))
    own = case.contributions[0][SLOT].astype(np.int64)
    for other in (0 * own, fitting(case, contribute(case.program(0), tokens[:-1], label))):
        lied = case.contributing(0, SLOT, other)
        statement = lied.statement(0, SLOT)
        refused(lied, statement, forge(lied, statement), SumsFailed)
