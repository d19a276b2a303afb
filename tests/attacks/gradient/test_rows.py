"""Statement G: the slot's row is the one that the step drew for it, and its text is what was committed to."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from benchmarks.gradient_cases import GradientRound
from benchmarks.gradient_liar import fitting, forge, refused
from proofs.circuit.builder import Circuit
from proofs.circuit.wire import Wire
from proofs.gradient import circuit_text, claim
from proofs.gradient.claim import GradientStatement, Secret
from proofs.gradient.program import Program
from proofs.gradient.transformer import contribute
from proofs.proof import SumsFailed


def secret_with(case: GradientRound, statement: GradientStatement, **changes: Any) -> Secret:
    return replace(case.secret(statement), **changes)


def chosen(*rows: int) -> Callable[[ExitStack], None]:
    """The circuit picks these rows, whatever the slot."""

    def build(patches: ExitStack) -> None:
        def pick(statement: Any, secret: Any, count: int) -> Any:
            return None if secret is None else np.isin(np.arange(count), rows).astype(np.int64)

        patches.enter_context(patch.object(claim, "_chosen", pick))

    return build


def of_the_picked(case: GradientRound, row: int) -> tuple[GradientRound, GradientStatement]:
    """The member put the gradient of that row into slot 1 of step 0: from there on all fits."""
    lied = case.contributing(0, 1, fitting(case, contribute(case.program(0), *case.text(row))))
    return lied, lied.statement(0, 1)


def test_the_next_row_drawn_is_not_the_slots(llama: GradientRound) -> None:
    lied, statement = of_the_picked(llama, llama.row(0, 2))
    refused(lied, statement, forge(lied, statement, building=chosen(llama.row(0, 2))), SumsFailed)


def test_a_row_that_was_not_drawn_is_not_the_slots(bert: GradientRound) -> None:
    away = int(np.flatnonzero(~bert.secret(bert.statement(0, 1)).used)[0])
    lied, statement = of_the_picked(bert, away)
    refused(lied, statement, forge(lied, statement, building=chosen(away)), SumsFailed)


def test_a_row_that_was_not_drawn_but_counted_is_not_the_slots(bert: GradientRound) -> None:
    """The circuit says that another row was drawn than the mechanism proved."""
    secret = bert.secret(bert.statement(0, 1))
    away, used = int(np.flatnonzero(~secret.used)[0]), np.zeros_like(secret.used)
    used[[bert.row(0, 0), away]] = True
    lied, statement = of_the_picked(bert, away)
    secret = secret_with(lied, statement, used=used)
    refused(lied, statement, forge(lied, statement, secret=secret, building=chosen(away)), SumsFailed)


def test_two_rows_at_once_are_none(bert: GradientRound) -> None:
    """Though what H runs on is the text of one of them."""
    lied, statement = of_the_picked(bert, bert.row(0, 1))
    both, honest = chosen(bert.row(0, 0), bert.row(0, 1)), circuit_text.example

    def build(patches: ExitStack) -> None:
        def example(circuit: Circuit, program: Program, cells: Wire) -> Any:
            units = circuit_text.cells_of(*bert.text(bert.row(0, 1)), circuit.lanes) if circuit.proving else None
            return honest(circuit, program, cells.with_(units=units))

        both(patches)
        patches.enter_context(patch.object(claim, "example", example))

    refused(lied, statement, forge(lied, statement, building=build), SumsFailed)


def test_a_slot_in_use_is_not_one_that_is_not(llama: GradientRound) -> None:
    lied = llama.contributing(0, 1, np.zeros(llama.shape.parameters))
    statement = lied.statement(0, 1)
    secret = secret_with(lied, statement, active=False)
    refused(lied, statement, forge(lied, statement, secret=secret), SumsFailed)


def test_a_slot_that_is_not_in_use_has_no_row(bert: GradientRound) -> None:
    statement = bert.statement(0, bert.shape.slots - 1)
    secret = secret_with(bert, statement, active=True)
    refused(bert, statement, forge(bert, statement, secret=secret, building=chosen(bert.row(0, 1))), SumsFailed)


@pytest.mark.parametrize("place", [0, -2, -1], ids=["a token", "the label", "the length"])
def test_a_text_that_is_not_the_rows_is_refused(bert: GradientRound, place: int) -> None:
    """The row is picked rightly, and another text is what H runs on: in all else the proof is of that."""
    honest = circuit_text.example

    def build(patches: ExitStack) -> None:
        def example(circuit: Circuit, program: Program, cells: Wire) -> Any:
            units = cells.known().copy() if circuit.proving else None
            if units is not None:
                units[place] = units[place] - 1 if place == -1 else (units[place] + 1) % 3
            return honest(circuit, program, cells.with_(units=units))

        patches.enter_context(patch.object(claim, "example", example))

    tokens, label = bert.text(bert.row(0, 1))
    tokens = [(tokens[0] + 1) % 3, *tokens[1:]] if place == 0 else tokens[: -1 if place == -1 else None]
    found = contribute(bert.program(0), tokens, (label + 1) % 3 if place == -2 else label)
    lied = bert.contributing(0, 1, fitting(bert, found))
    statement = lied.statement(0, 1)
    refused(lied, statement, forge(lied, statement, building=build), SumsFailed)
