"""Statement G: what is computed from a text is what H computes, cell by cell."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from benchmarks.gradient_cases import GradientRound
from benchmarks.gradient_liar import Lie, fitting, forge, refused
from proofs.circuit import rounding
from proofs.circuit.builder import Circuit, Table
from proofs.circuit.layout import VALUES, counts_of
from proofs.circuit.wire import Group, Wire
from proofs.field import P
from proofs.gradient.matrix import Matrix
from proofs.gradient.transformer import contribute
from proofs.proof import CellsFailed, ProofInvalid, ProximityFailed, SumsFailed
from proofs.witness import Cells


def test_the_program_of_another_step_is_another(bert: GradientRound) -> None:
    """All cells are those of the iterate after the step: only its matrices are not those that are claimed."""
    after = bert.program(1)
    lied = bert.contributing(0, 1, fitting(bert, contribute(after, *bert.text(bert.row(0, 1)))))
    statement = lied.statement(0, 1)
    refused(lied, statement, forge(lied, statement, running=after), SumsFailed)


def test_another_base_is_another(bert: GradientRound) -> None:
    program = bert.program(0)
    first = program.layers[0].mlp.down
    nudged = first.weight.units.copy()
    nudged[0, 0] += 1
    down = replace(first, weight=Matrix(nudged, first.weight.fraction))
    layer = replace(program.layers[0], mlp=replace(program.layers[0].mlp, down=down))
    statement = bert.statement(0, 1)
    running = replace(program, layers=(layer, *program.layers[1:]))
    refused(bert, statement, forge(bert, statement, running=running), SumsFailed)


def test_one_wrong_sum_is_refused(llama: GradientRound) -> None:
    """A layer's total is one more than it is; all that follows is computed from it."""
    left, honest = [40], rounding.exactly

    def wrong(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        found, left[0] = honest(a, b), left[0] - 1
        if left[0] == 0:
            found.reshape(-1)[0] += 1
        return found

    statement = llama.statement(0, 1)
    proof = forge(
        llama, statement, building=lambda patches: patches.enter_context(patch.object(rounding, "exactly", wrong))
    )
    assert left[0] < 0
    refused(llama, statement, proof, SumsFailed)


@pytest.mark.parametrize(("false_inverses", "error"), [(False, SumsFailed), (True, CellsFailed)])
def test_one_wrong_entry_of_a_table_is_refused(
    bert: GradientRound, false_inverses: bool, error: type[ProofInvalid]
) -> None:
    honest, left = Circuit.function, [1]

    def wrong(self: Circuit, table: Table, x: Wire, more: int = 0) -> tuple[Group, Any]:
        group, found = honest(self, table, x, more)
        if found is not None and "gelu" in table.name:
            left[0] -= 1
        if left[0] == 0:
            left[0], found = -1, found.copy()
            found.reshape(-1)[0] += 1
        return group, found

    def build(patches: ExitStack) -> None:
        patches.enter_context(patch.object(Circuit, "function", wrong))

    statement = bert.statement(0, 1)
    proof = forge(bert, statement, building=build, false_inverses=false_inverses)
    refused(bert, statement, proof, error)


# ------------------------------------------------------------------------------------------------------ single cells


def cell(name: str, column: int, change: int = 1) -> Lie:
    """The first cell of a column of the group whose name starts so is another."""

    def lie(circuit: Circuit) -> None:
        group = next(group for key, group in circuit.groups.items() if key.startswith(name) and group.size)
        group.units(column)[0, 0] = (group.units(column)[0, 0] + change) % P

    return lie


def count(name: str) -> Callable[[Cells], None]:
    def lie(cells: Cells) -> None:
        section = next(key for key in cells if key.startswith(counts_of(name)))
        cells[section][0, 0] += 1

    return lie


CELLS: dict[str, tuple[dict[str, Any], type[ProofInvalid]]] = {
    "a range, below it": ({"lie": cell("range -4 4/1", 0, -100)}, SumsFailed),
    "a bit that is two": ({"lie": cell("bits/1", 0, 2)}, CellsFailed),
    "a bit of the text that is two": ({"lie": cell("bits/text", 0, 2)}, CellsFailed),
    "a factor": ({"lie": cell("product/", 0)}, CellsFailed),
    "a product": ({"lie": cell("product/", 2)}, CellsFailed),
    "a free cell": ({"lie": cell("free/1", 0)}, SumsFailed),
    "a free cell of the text": ({"lie": cell("free/text", 0)}, SumsFailed),
    "an exponential": ({"lie": cell("softmax", 1)}, SumsFailed),
    "a mask": ({"lie": cell("softmax", 2)}, CellsFailed),
    "a slack of a token that counts": ({"lie": cell("softmax", 3)}, CellsFailed),
    "a second largest": ({"lie": cell("softmax", 4)}, CellsFailed),
    "a combination of a product's left side": ({"tested": cell("product in K", 0)}, SumsFailed),
    "a product in K": ({"tested": cell("product in K", 8)}, CellsFailed),
    "a key of the embedding": ({"tested": cell("rows of", 1)}, CellsFailed),
    "a number of look-ups": ({"counted": count("range")}, SumsFailed),
    "a code that is no polynomial": (
        {"coded": lambda tree, code: code.__setitem__((slice(None), 0), code[:, 0] ^ (tree == VALUES))},
        ProximityFailed,
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_one_other_cell_is_refused(bert: GradientRound, name: str) -> None:
    changes, error = CELLS[name]
    statement = bert.statement(0, 1)
    refused(bert, statement, forge(bert, statement, **changes), error)


def test_a_second_largest_score_is_refused_though_its_bits_are_bits(bert: GradientRound) -> None:
    """The pick moves to a token that is further away than the largest: pick·below is not zero."""

    def lie(circuit: Circuit) -> None:
        group = next(group for key, group in circuit.groups.items() if key.startswith("softmax"))
        strip = int(np.flatnonzero((group.units(2)[:, 0] == 1) & (group.units(0)[:, 0] > 0))[0])
        group.units(4)[strip, 0] = 1

    statement = bert.statement(0, 1)
    refused(bert, statement, forge(bert, statement, lie=lie), CellsFailed)
