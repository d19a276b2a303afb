"""Forged look-ups and quotients of a circuit: all that follows from a lie is made to fit it, and one rule refuses it.

With that rule away each forgery passes, so nothing else does (`refused`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from benchmarks.gradient_liar import Lying, lying, refusing_nothing
from proofs import verifier as mechanism
from proofs.circuit import equations, prover, second_verifier, verifier
from proofs.circuit.builder import Circuit
from proofs.circuit.equations import cell_equations, shared_equations
from proofs.circuit.layout import QUOTIENTS, counts_of, layout_of
from proofs.field import DEGREE, P, ext, ext_inverse, inverse, mul
from proofs.parameters import shifts_of
from proofs.proof import CellsFailed, ProofInvalid, ProximityFailed, SumsFailed
from proofs.relation import Plain
from proofs.transcript import Transcript
from proofs.verifier import points_of, power, vanishing

LANES, ROW = 4, 512
STATEMENT, KEY = b"\1" * 32, b"\2" * 32
LOW, HIGH, OTHER = "range 0 15", "range 0 15/text#0", "range -8 7"
PER_ROW = 97  # strips of a row of 512 cells: those of `built` lie in three rows, which share one of inverses
RULES: dict[type[ProofInvalid], tuple[Any, str]] = {
    CellsFailed: (verifier, "check_quotient"),
    SumsFailed: (verifier, "check_total"),
    ProximityFailed: (mechanism, "check_proximity"),
}
_P = np.uint64(P)
Units = np.ndarray
Change = Callable[[Units, Units], None]


def built(proving: bool, change: Change = lambda *_: None) -> Circuit:
    """200 strips and a single cell of one range, 5 strips of another, and copies of all of them."""
    circuit, rng = Circuit(LANES, proving), np.random.default_rng(7)
    circuit.tests_group()
    first, second = rng.integers(0, 16, (200, LANES)), rng.integers(-8, 8, (5, LANES))
    change(first, second)
    wires = [
        circuit.within((200,), LANES, 0, 15, first if proving else None),
        circuit.within((5,), LANES, -8, 7, second if proving else None),
        circuit.within((1,), 1, 0, 15, np.array([[9]]) if proving else None),
    ]
    for wire in wires:
        circuit.equal(wire - circuit.free(wire.shape, wire.lanes, wire.units))
    return circuit


PUBLIC = built(False)
LAYOUT = layout_of(PUBLIC, ROW)


def forged(change: Change = lambda *_: None, **changes: Any) -> bytes:
    with refusing_nothing(), ExitStack() as patches:
        circuit = built(True, change)
        lying(patches, PUBLIC, changes=changes)
        return prover.prove(STATEMENT, circuit, LAYOUT, [], KEY)


def accepted(proof: bytes) -> None:
    verifier.verify(STATEMENT, PUBLIC, LAYOUT, [], proof)


def refused(proof: bytes, error: type[ProofInvalid]) -> None:
    """By both verifiers, and by that rule of the first alone."""
    with pytest.raises(error):
        accepted(proof)
    with pytest.raises(error):
        second_verifier.verify(STATEMENT, PUBLIC, ROW, [], [], proof, verifier.PROTOCOL)
    with patch.object(*RULES[error], lambda *_: None):
        accepted(proof)


def wrong(strip: int, value: int = 16) -> Change:
    def change(first: Units, _: Units) -> None:
        first[strip, 2] = value

    return change


def at(tests: equations.Tests, value: int) -> Units:
    """(4,): 1/(α − value)."""
    return ext_inverse((tests.alpha + _P - ext(np.array([value % P], dtype=np.uint64))[0]) % _P)


def more(cells: dict[str, Units], row: int, lane: int, amount: Units) -> None:
    """A row of inverses is another there."""
    for e in range(DEGREE):
        held = cells[f"inverses_{e}"]
        held[row, lane] = (int(held[row, lane]) + int(amount[e])) % P


def counted(table: str, **times: int) -> Callable[[dict[str, Units]], None]:
    """Entries "_3" of a table are said to be looked up that many times more."""

    def lie(cells: dict[str, Units]) -> None:
        for name, count in times.items():
            held = cells[counts_of(table)][0]
            held[int(name[1:])] = (int(held[int(name[1:])]) + count) % P

    return lie


def test_a_liar_that_tells_no_lie_is_believed() -> None:
    rows = [LAYOUT.rows(group) for group in LAYOUT.groups if group.ranged]
    assert rows == [3, 1, 1]
    assert [count for _, _, count in LAYOUT.shared()] == [2, 1]
    assert LAYOUT.blocks == PER_ROW
    accepted(forged())


# ------------------------------------------------------------------------------------------------- what shares a row


@pytest.mark.parametrize(("false_inverses", "error"), [(False, SumsFailed), (True, CellsFailed)])
@pytest.mark.parametrize("strip", [0, PER_ROW, 2 * PER_ROW])
def test_each_of_three_values_is_in_its_range(strip: int, false_inverses: bool, error: type[ProofInvalid]) -> None:
    """Fitted to what it is, the row is missed in the sum; to what is counted, in its cell."""
    refused(forged(wrong(strip), false_inverses=false_inverses), error)


def test_two_values_do_not_make_up_for_each_other() -> None:
    """16 and −1 for 7 and 8: the sum of values is right, that of inverses is not."""

    def change(first: Units, _: Units) -> None:
        first[0, 2], first[PER_ROW, 2] = 16, -1

    lie = counted(LOW, _0=-1, _15=-1, _7=1, _8=1)  # said to be what 15 and 0 were counted for
    refused(forged(change, counted=lie), SumsFailed)


@contextmanager
def foreseen(*labels: str) -> Iterator[type[Transcript]]:
    """What is drawn under these labels is known before anything is committed to."""

    class Foreseen(Transcript):
        def draw(self, label: str) -> bytes:
            return b"\3" * 32 if label in labels else super().draw(label)

    with patch.object(prover, "Transcript", Foreseen), patch.object(verifier, "Transcript", Foreseen):
        yield Foreseen


def test_values_and_counts_are_fixed_before_alpha_is_known() -> None:
    """For an α that is known, four counts make up for any value: 1/(α − 16) = Σ δ_v/(α − v). (Two values of one row do
    not: the difference would be a polynomial in α of degree 3 at most over F, and α is of degree 4.)"""
    with foreseen("tests") as transcript:
        tests = equations.tests_drawn(transcript(), PUBLIC)
    columns, wanted = [[int(x) for x in at(tests, v)] for v in range(DEGREE)], [int(x) for x in at(tests, 16)]
    amounts = dict(zip(("_0", "_1", "_2", "_3"), solved(columns, wanted), strict=True))
    lie = counted(LOW, **amounts, _15=-1)
    refused(forged(wrong(0), counted=lie), SumsFailed)
    with foreseen("tests"):
        accepted(forged(wrong(0), counted=lie))
        with pytest.raises(SumsFailed):
            accepted(forged(wrong(0)))


def solved(columns: list[list[int]], wanted: list[int]) -> list[int]:
    """x with Σ x_i·column_i = wanted modulo p."""
    size = len(wanted)
    lines = [[*(column[e] for column in columns), wanted[e]] for e in range(size)]
    for i in range(size):
        pivot = next(line for line in lines[i:] if line[i])
        lines[lines.index(pivot)], lines[i] = lines[i], pivot
        lines[i] = [x * pow(pivot[i], -1, P) % P for x in pivot]
        for other in range(size):
            if other != i:
                lines[other] = [(x - lines[other][i] * y) % P for x, y in zip(lines[other], lines[i], strict=True)]
    return [line[-1] for line in lines]


def test_masks_are_fixed_before_the_factors_of_sums_are_known() -> None:
    """A mask may have a coefficient of X^(k/2), which moves the sum, by what nobody can choose when it matters."""
    lacking, honest = list[Units](), prover.masks

    def lie(run: Lying, _: Any) -> None:
        lacking.append(run.missing)

    def masks(key: bytes, sizes: Any) -> dict[str, Units]:
        found = honest(key, sizes)
        highest = lacking[0][:, None] * np.where(np.arange(ROW) % 2, _P - np.uint64(1), np.uint64(1)) % _P
        found["mask_sums"] = ((found["mask_sums"] + highest) % _P).astype(np.uint32)
        return found

    with foreseen("tests", "cells", "table sums", "sums"):
        forged(wrong(0), quotiented=lie)
        with patch.object(prover, "masks", masks):
            accepted(forged(wrong(0)))
    with patch.object(prover, "masks", masks):
        refused(forged(wrong(0)), SumsFailed)


class InF(Transcript):
    """α is 1000."""

    def elements(self, label: str, count: int) -> Units:
        found = super().elements(label, count)
        if label == "tests":
            found[-1] = [1000, 0, 0, 0]
        return found


def test_an_alpha_in_the_base_field_is_refused() -> None:
    """Two values of a row that are both α take every inverse: that of 15 twice is what the sum needs."""

    def change(first: Units, _: Units) -> None:
        first[0, 2] = first[PER_ROW, 2] = 1000

    with patch.object(prover, "Transcript", InF), patch.object(verifier, "Transcript", InF):
        with patch.object(equations, "check_alpha", lambda _: None):
            proof = forged(change, false_inverses=True)
            accepted(proof)
        with pytest.raises(CellsFailed, match="base field"):
            accepted(proof)
        with pytest.raises(CellsFailed, match="base field"):
            forged()


# ------------------------------------------------------------------------------------------ what no strip covers


@pytest.mark.parametrize("lane", [300, LAYOUT.lanes - 1], ids=["a strip's", "no strip's"])
@pytest.mark.parametrize(
    ("value", "as_if", "count", "error"),
    [
        (16, 16, {}, SumsFailed),
        (16, 15, {"_0": -1, "_15": 1}, CellsFailed),
        (3, 3, {}, SumsFailed),
        (3, 3, {"_0": -1, "_3": 1}, None),
    ],
    ids=["out of range", "out of range, with the inverse of another", "not counted", "in range"],
)
def test_what_is_left_over_is_in_range_and_counted(
    lane: int, value: int, as_if: int, count: dict[str, int], error: type[ProofInvalid] | None
) -> None:
    """The third row of the first range ends with lanes that no strip is in."""

    def held(cells: dict[str, Units]) -> None:
        assert cells[HIGH][2, lane] == 0
        cells[HIGH][2, lane] = value
        counted(LOW, **count)(cells)

    def inverted(cells: dict[str, Units], tests: equations.Tests) -> None:
        more(cells, 0, lane, at(tests, as_if) + _P - at(tests, 0))

    proof = forged(counted=held, inverted=inverted)
    if error is None:
        accepted(proof)
    else:
        refused(proof, error)


def test_rows_that_fill_up_three_hold_zeros() -> None:
    """The single cell's row has two of them beside it; they are not committed to."""

    def inverted(cells: dict[str, Units], tests: equations.Tests) -> None:
        more(cells, 1, 5, at(tests, 3) + _P - at(tests, 0))

    refused(forged(counted=counted(LOW, _0=-1, _3=1), inverted=inverted), CellsFailed)


@pytest.mark.parametrize("rows", [1, 2])
def test_zeros_that_fill_up_are_counted(rows: int) -> None:
    refused(forged(counted=counted(LOW, _0=-rows * LAYOUT.lanes)), SumsFailed)


def test_a_value_is_in_its_own_range() -> None:
    """12 is looked up where −8 to 7 are: counted in the other range it is right, were the two one."""

    def change(_: Units, second: Units) -> None:
        second[1, 2] = 12

    def lie(cells: dict[str, Units]) -> None:
        counted(OTHER, _15=-1)(cells)
        counted(LOW, _12=1)(cells)

    refused(forged(change, counted=lie), SumsFailed)
    with patch.object(verifier, "table_factors", lambda draw, circuit: dict.fromkeys(circuit.tables, draw(1)[0])):
        accepted(forged(change, counted=lie))


# ----------------------------------------------------------------------------------------------------- quotients


class Functions:
    """Quotients that are right in every column, and no polynomials."""

    def __init__(self) -> None:
        self.codes = list[Units]()

    def quotiented(self, run: Lying, _: Any) -> None:
        self.run = run

    def coded(self, tree: int, code: Units) -> None:
        self.codes.append(code.astype(np.uint64))
        if tree == QUOTIENTS:
            self.points = points_of(np.arange(LAYOUT.columns), LAYOUT)
            assert [len(one[0]) for one in self.codes] == list(LAYOUT.heights)
            code[:, 12:16] = self.last_piece()
            below = inverse((power(self.points, ROW) + _P - np.uint64(1)) % _P)
            code[:, 20:24] = (code[:, 20:24] + _P - mul(below[:, None], self.run.missing)) % _P

    def last_piece(self) -> Units:
        sections, drawn = dict[str, Units](), self.run.drawn
        for part, code in zip(LAYOUT.trees, self.codes, strict=True):
            start = 0
            for name, rows in part:
                sections[name], start = code[:, start : start + rows], start + rows
        found = cell_equations(sections, PUBLIC, LAYOUT, drawn.tests, drawn.cells, Plain())
        found = (found + shared_equations(sections, PUBLIC, LAYOUT, drawn.tests, drawn.cells)) % _P
        whole = mul(found, inverse(vanishing(self.points, LAYOUT))[:, None])
        *shifts, last = shifts_of(LAYOUT)
        for piece, shift in enumerate(shifts):
            part = sections["cells"][:, DEGREE * piece : DEGREE * (piece + 1)]
            whole = (whole + _P - mul(part, power(self.points, shift)[:, None])) % _P
        return mul(whole, inverse(power(self.points, last))[:, None])


@pytest.mark.parametrize("false_inverses", [True, False], ids=["of the cells", "of the sum"])
def test_a_quotient_is_a_polynomial(false_inverses: bool) -> None:
    """A lie in a cell, or in a sum, has a quotient too: as a function on the columns, of a degree that no piece has."""
    functions = Functions()
    lies = {"quotiented": functions.quotiented, "coded": functions.coded}
    refused(forged(wrong(0), false_inverses=false_inverses, **lies), ProximityFailed)


@pytest.mark.parametrize("piece", range(4))
def test_each_piece_of_the_quotient_counts(piece: int) -> None:
    def lie(_: Lying, rows: dict[str, Units]) -> None:
        rows["cells"][DEGREE * piece] = (rows["cells"][DEGREE * piece].astype(np.int64) + 1) % P

    refused(forged(quotiented=lie), CellsFailed)
