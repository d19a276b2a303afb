"""Circuits whose look-ups could be chosen when α is known: nobody lays them out, for a forgery would pass."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from benchmarks.gradient_liar import lying, refusing_nothing
from proofs.circuit import equations, layout, prover, second_verifier, verifier
from proofs.circuit.builder import Circuit, Table
from proofs.circuit.equations import keys_of
from proofs.circuit.layout import counts_of, layout_of
from proofs.circuit.relations import Keyed
from proofs.circuit.wire import CircuitRefused, Lookup, strips_of
from proofs.field import DEGREE, P, ext, ext_inverse

LANES, ROW = 4, 512
STATEMENT, KEY = b"\1" * 32, b"\2" * 32
_P = np.uint64(P)
Units = np.ndarray
ROWS = Table("rows", 0, np.arange(9)[:, None], rows=np.random.default_rng(2).integers(-50, 50, (9, 6)))
COLUMNS = (("1", 0), *((f"e{place}", 1 + place) for place in range(DEGREE)))


def keyed(proving: bool, strips: int, times: int, columns: Any = COLUMNS, shown: int = 3) -> Circuit:
    """`strips` of index and key, of which the first is tied `times` to the row that is said to be `shown`."""
    circuit = Circuit(LANES, proving)
    circuit.tests_group()
    ids = circuit.free((1,), LANES, np.full((1, LANES), 3) if proving else None)
    values = circuit.free((6,), LANES, np.tile(ROWS.rows[shown][:, None], LANES) if proving else None)
    width = 1 + max(column for _, column in columns)
    group = circuit.group("rows", LANES, width, (Lookup(circuit.table(ROWS), columns),), phase=1)
    group.append(strips, None)
    cells = [strips_of(group, column, 0, (1,)) for column in range(1 + DEGREE)]
    circuit.relations += times * [Keyed(cells[0], tuple(cells[1:]), ids, values)]
    return circuit


def late(part: str) -> Circuit:
    """Ids, or values, are themselves cells that are committed to when α is known."""
    circuit = keyed(False, 1, 1)
    (relation,) = circuit.relations
    group = circuit.group("late", LANES, 1, phase=1)
    size = getattr(relation, part).size
    circuit.relations = [replace(relation, **{part: strips_of(group, 0, group.append(size, None), (size,))})]
    return circuit


def short() -> Circuit:
    """The last column of the key is free."""
    circuit = keyed(False, 1, 1)
    circuit.relations = [replace(relation, key=relation.key[:-1]) for relation in circuit.relations]
    return circuit


def test_a_free_key_would_make_up_for_a_row_that_is_none() -> None:
    """Row 4 is said to be row 3. α is known when keys are committed to: a second one is chosen so that the sum is
    right. Nobody lays out such a circuit."""
    public = keyed(False, 2, 1)
    with pytest.raises(CircuitRefused, match="chosen when α is known"):
        layout_of(public, ROW)

    def shown(tests: equations.Tests) -> tuple[Units, Units]:
        """The key of row 4 under the index 3, and the one that makes up for it."""
        entries = keys_of(ROWS, tests)
        false = (entries[4] + _P - ext(np.array([1], dtype=np.uint64))[0]) % _P
        total = ext_inverse((tests.alpha + _P - entries[[0, 3]]) % _P).sum(axis=0) % _P
        rest = (total + _P - ext_inverse((tests.alpha + _P - false) % _P)) % _P
        return false, (tests.alpha + _P - ext_inverse(rest)) % _P

    def filled(circuit: Circuit, tests: equations.Tests) -> None:
        false, free = shown(tests)
        held = np.zeros((5, 2, LANES), dtype=np.int64)
        held[0, 0] = 3
        held[1:, 0] = ((false + _P - ext(np.array([3], dtype=np.uint64))[0]) % _P).astype(np.int64)[:, None]
        held[1:, 1] = free.astype(np.int64)[:, None]
        circuit.groups["rows/text"].fill(held)

    def inverted(cells: dict[str, Units], tests: equations.Tests) -> None:
        for strip, key in enumerate(shown(tests)):
            of_key = ext_inverse((tests.alpha + _P - key) % _P)
            for e in range(DEGREE):
                cells[f"inverses_{e}"][0, LANES * strip : LANES * (strip + 1)] = of_key[e]

    def counted(cells: dict[str, Units]) -> None:
        cells[counts_of("rows")][0, 0] += LANES

    with refusing_nothing(), ExitStack() as patches:
        patches.enter_context(patch.object(layout, "_check_keyed", lambda _: None))
        laid, circuit = layout_of(public, ROW), keyed(True, 2, 1, shown=4)
        lying(patches, public, changes={"counted": counted, "inverted": inverted})
        patches.enter_context(patch.object(prover, "_fill_tests", filled))
        proof = prover.prove(STATEMENT, circuit, laid, [], KEY)
        verifier.verify(STATEMENT, public, laid, [], proof)


def ranged(table: Table, columns: Any = (("1", 0),), phase: int = 0, size: int = 3) -> Circuit:
    circuit = Circuit(LANES, False)
    circuit.tests_group()
    group = circuit.group("ranged", LANES, 2, (Lookup(circuit.table(table), columns),), phase=phase)
    group.append(size, None)
    return circuit


CIRCUITS: dict[str, tuple[Circuit, type[Exception] | None]] = {
    "a strip of index and key tied once": (keyed(False, 1, 1), None),
    "one of two": (keyed(False, 2, 1), CircuitRefused),
    "one tied twice": (keyed(False, 1, 2), CircuitRefused),
    "none": (keyed(False, 1, 0), CircuitRefused),
    "a column of the look-up that nothing ties": (keyed(False, 1, 1, (*COLUMNS[:-1], ("e3", 5))), CircuitRefused),
    "of ids that are chosen later": (late("ids"), CircuitRefused),
    "of values that are chosen later": (late("values"), CircuitRefused),
    "of three columns": (short(), CircuitRefused),
    "a range": (ranged(Table.range(-3, 3)), None),
    "a range from 0": (ranged(Table.range(0, 3)), None),
    "a range to 0": (ranged(Table.range(-3, 0)), None),
    "a range from 1": (ranged(Table.range(1, 3)), CircuitRefused),
    "a range to −1": (ranged(Table.range(-3, -1)), CircuitRefused),
    "a range from 1 that nothing is looked up in": (ranged(Table.range(1, 3), size=0), CircuitRefused),
    "a range of two columns": (ranged(Table.range(-3, 3), (("1", 0), ("β", 1))), CircuitRefused),
    "a range of multiples": (ranged(Table.range(-3, 3), (("β", 0),)), CircuitRefused),
    "a range of the second phase": (ranged(Table.range(-3, 3), phase=1), CircuitRefused),
}


@pytest.mark.parametrize("name", CIRCUITS)
def test_both_verifiers_refuse_what_could_be_chosen_when_alpha_is_known(name: str) -> None:
    circuit, error = CIRCUITS[name]

    def said(lay_out: Callable[[], Any]) -> type[Exception] | None:
        try:
            lay_out()
        except CircuitRefused as refusal:
            return type(refusal)
        return None

    found = said(lambda: layout_of(circuit, ROW)), said(lambda: second_verifier._sizes(circuit, ROW, []))
    assert found == (error, error)
