"""Forgeries in rows of inverses that three values share, in the rows of zeros that fill threes up, and with a known α.

inverse·Π(α − vᵢ) = Σᵢ Π_(j≠i)(α − vⱼ) in each cell, and Σ inverses = Σ count/(α − entry): a value that is in no table
must fail the one or the other, whatever the two beside it are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from proofs import verifier
from proofs.field import P, ext, ext_inverse
from proofs.parameters import RANGE
from proofs.proof import CellsFailed, OpeningInvalid, ProofInvalid, ProofMalformed, SumsFailed
from proofs.relation import in_threes
from proofs.statement import Shape
from proofs.transcript import Transcript
from proofs.verifier import verify

Forger = Any  # the fixture of conftest.py
Cells = dict[str, np.ndarray]
ELSEWHERE = (ProofMalformed, OpeningInvalid)  # other challenges, hence other columns
LOW, PROJECTIONS, BINS = 7, 9, 10  # rows of inverses of the small case: both groups' `norm_low`, …
FREE = -1  # a lane beyond the blocks, of which no sum speaks but that of the tables
TWO_TO_FILL_UP = Shape(1, (2, 1), 4, 4, 32, 50, 1 << 31, 4)  # its projections take one row
_P = np.uint64(P)


def refused(forger: Forger, error: type[ProofInvalid], **lies: Any) -> None:
    statement, proof = forger.prove(**lies)
    with pytest.raises(ProofInvalid) as caught:
        verify(statement, proof)
    assert type(caught.value) is error, repr(caught.value)


class Knowing(Transcript):
    """A transcript that sees to which values of α and β it led, or has an α of its own."""

    def __init__(self, alpha: int | None = None) -> None:
        super().__init__()
        self.alpha = None if alpha is None else ext(np.array(alpha, dtype=np.uint64))
        self.drawn = np.zeros((2, 4), dtype=np.uint64)

    def elements(self, label: str, count: int) -> np.ndarray:
        found = super().elements(label, count)
        if label == "tables":
            found[0] = found[0] if self.alpha is None else self.alpha
            self.drawn = found
        return found


def inverses_of(values: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(rows of values, lanes) -> (4, rows of inverses, lanes)."""
    each = ext_inverse((alpha + _P - ext(in_threes(values.T))) % _P)
    return (each.reshape(len(each), -1, 3, 4).sum(axis=2) % _P).transpose(2, 1, 0).astype(np.uint32)


class TestValuesThatShareInverses:
    """`norm_low` of both groups stand in one row, in a lane where nothing else speaks of them."""

    @pytest.mark.parametrize("values", [(P - 1, 0), (RANGE, 0), (P - 1, 1), (P - 5, RANGE + 5), (RANGE, P - RANGE)])
    def test_a_value_out_of_range_whatever_the_one_beside_it(self, forger: Forger, values: tuple[int, int]) -> None:
        """With true inverses the table's sum does not hold. With those of two zeros, which are counted, it does, and
        the cell does not; that the two values add up to zero is no help: their product does not."""
        assert max(values) >= RANGE
        refused(forger, SumsFailed, later=self.placed(values))
        refused(forger, CellsFailed, later=self.placed(values), **self.pretending(forger))

    def test_two_values_in_range_may_change_places(self, forger: Forger) -> None:
        """The identity is symmetric: which of the three is which, it need not say."""
        statement, proof = forger.prove(later=self.placed((3, 8)))
        verify(statement, proof)
        verify(*forger.prove(later=self.placed((8, 3))))

    def placed(self, values: tuple[int, int]) -> Callable[[Cells], None]:
        def lie(cells: Cells) -> None:
            cells["norm_low"][:, FREE] = values

        return lie

    def pretending(self, forger: Forger) -> dict[str, Any]:
        """As many zeros more as there are values out of range, and their inverses."""

        def counted(cells: Cells) -> None:
            if "range_counts" in cells:
                outside = int((cells["norm_low"][:, FREE] >= RANGE).sum())
                inside = [int(value) for value in cells["norm_low"][:, FREE] if value < RANGE]
                cells["range_counts"][0, 0] += outside + len(inside)
                for value in inside:
                    cells["range_counts"][0, value] -= 1

        def inverted(cells: Cells) -> None:
            for e in range(4):  # the lane before holds the same three values, but for zeros there
                cells[f"inverses_{e}"][LOW, FREE] = cells[f"inverses_{e}"][LOW, FREE - 1]

        return {"counted": counted, "inverted": inverted}

    @pytest.mark.parametrize(("one", "other"), [(2, 3), (0, 25), (21, 24)])
    def test_a_value_moved_from_one_three_to_another(self, forger: Forger, one: int, other: int) -> None:
        """Every value has its inverse still, and they add up as before; the cells say which belong together."""
        known = Knowing()
        forger.prove(transcript=known)
        kept: list[np.ndarray] = []

        def later(cells: Cells) -> None:
            kept[:] = [forger.look_ups(cells)[0]]

        def inverted(cells: Cells) -> None:
            moved = kept[0].copy()
            honest = inverses_of(moved, known.drawn[0])
            assert np.array_equal(honest[0], cells["inverses_0"][: len(honest[0])])
            moved[[one, other]] = moved[[other, one]]
            for e, part in enumerate(inverses_of(moved, known.drawn[0])):
                cells[f"inverses_{e}"][: len(part)] = part

        refused(forger, CellsFailed, later=later, inverted=inverted)

    @pytest.mark.parametrize(("one", "other"), [(0, 1), (0, BINS), (BINS - 2, PROJECTIONS), (PROJECTIONS, BINS)])
    def test_a_row_of_inverses_used_for_another(self, forger: Forger, one: int, other: int) -> None:
        """Of the range for bins, of projections for the range, and the other way round: in each lane, or in one."""
        for lanes in (slice(None), slice(3, 4)):

            def inverted(cells: Cells, lanes: slice = lanes) -> None:
                for e in range(4):
                    held = cells[f"inverses_{e}"][:, lanes]
                    held[[one, other]] = held[[other, one]]

            refused(forger, CellsFailed, inverted=inverted)


class TestRowsOfZeros:
    """They are committed to nowhere; that they are looked up shows in the counts of zero."""

    @pytest.fixture
    def tiny(self, forger: Forger, make_case: Callable[..., Any]) -> Forger:
        return type(forger)(make_case(TWO_TO_FILL_UP, 4))

    def test_the_shapes_have_rows_to_fill_up(self, forger: Forger, tiny: Forger) -> None:
        assert (forger.sizes.range_lookups, tiny.sizes.projection_rows) == (26, 1)
        verify(*tiny.prove())

    @pytest.mark.parametrize(("name", "rows"), [("range_counts", 1), ("projection_counts", 2)])
    @pytest.mark.parametrize("times", [0, 2])
    def test_rows_of_zeros_that_are_not_counted_or_twice(self, tiny: Forger, name: str, rows: int, times: int) -> None:
        self.counted_wrongly(tiny, name, {0: (times - 1) * rows * tiny.sizes.lanes})

    @pytest.mark.parametrize(("name", "rows"), [("range_counts", 1), ("projection_counts", 2)])
    def test_one_lane_of_them_not_counted(self, tiny: Forger, name: str, rows: int) -> None:
        self.counted_wrongly(tiny, name, {0: -1})

    def test_rows_of_zeros_counted_as_projections_of_zero(self, tiny: Forger) -> None:
        """The value that is looked up is y + b': zero stands for y = −b'."""
        many = 2 * tiny.sizes.lanes
        self.counted_wrongly(tiny, "projection_counts", {0: -many, tiny.sizes.reach: many})

    def test_rows_of_zeros_of_the_range_counted_among_projections(self, tiny: Forger) -> None:
        """Zero is an entry of both tables."""
        lanes = tiny.sizes.lanes

        def lie(cells: Cells) -> None:
            name, change = ("range_counts", -lanes) if "range_counts" in cells else ("projection_counts", lanes)
            cells[name][0, 0] = (int(cells[name][0, 0]) + change) % P

        refused(tiny, SumsFailed, counted=lie)

    def counted_wrongly(self, forger: Forger, name: str, changes: dict[int, int]) -> None:
        def lie(cells: Cells) -> None:
            for at, change in changes.items() if name in cells else ():
                cells[name][0, at] = (int(cells[name][0, at]) + change) % P

        refused(forger, SumsFailed, counted=lie)

    @pytest.mark.parametrize("held", [7, P - 1])
    def test_something_else_in_a_row_of_zeros(self, forger: Forger, held: int) -> None:
        """Counted as what it is, or as nothing where it is in no table: the verifier puts zero there by itself."""
        known = Knowing()

        def counted(cells: Cells) -> None:
            if "range_counts" in cells:
                cells["range_counts"][0, 0] -= forger.sizes.lanes
                if held < RANGE:
                    cells["range_counts"][0, held] += forger.sizes.lanes

        def inverted(cells: Cells) -> None:
            alpha = known.drawn[0]
            zero, other = (ext_inverse((alpha + _P - ext(np.array(v, dtype=np.uint64))) % _P) for v in (0, held))
            for e in range(4):
                row = cells[f"inverses_{e}"][8].astype(np.int64)
                cells[f"inverses_{e}"][8] = (row + int(other[e]) - int(zero[e])) % P

        refused(forger, CellsFailed, counted=counted, inverted=inverted, transcript=known)


class TestAlphaInTheBaseField:
    """Two values that are both α make every term of their identity zero: the row of inverses may then say anything.

    α is drawn, and in F once in 2⁹³ proofs; here the transcript is made to draw it.
    """

    ALPHA = (64**2 - 70**2) * pow(256, -1, P) % P

    def too_long(self, forger: Forger) -> Callable[[Cells], None]:
        """70 units in both groups of a slot, at a clip of 64: C² − ‖c‖² = 0 + 256·α, and α is in no range."""
        assert self.ALPHA >= RANGE

        def lie(cells: Cells) -> None:
            held = forger.sizes.blocks * forger.shape.contributions
            for group in range(2):
                cells[f"contributions_{group}"][0, 0 : held : forger.shape.contributions] = 0
                cells[f"contributions_{group}"][0, 0] = 70
            forger.norms(cells)
            cells["norm_low"][:, 0], cells["norm_high"][:, 0] = 0, self.ALPHA

        return lie

    def test_it_is_refused(self, forger: Forger) -> None:
        statement, proof = forger.prove(transcript=Knowing(self.ALPHA))
        with pytest.raises(CellsFailed, match="base field"):
            verify(statement, proof, Knowing(self.ALPHA))

    @pytest.mark.parametrize("alpha", [0, 5, P - 1])
    def test_whichever_it_is(self, alpha: int) -> None:
        with pytest.raises(CellsFailed, match="base field"):
            verifier.check_alpha(ext(np.array(alpha, dtype=np.uint64)))
        for place in (1, 2, 3):
            beyond = ext(np.array(alpha, dtype=np.uint64))
            beyond[place] = 1
            verifier.check_alpha(beyond)

    def test_a_contribution_above_the_clip_would_pass_under_it(
        self, forger: Forger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lie = self.too_long(forger)
        statement, proof = forger.prove(later=lie, transcript=Knowing(self.ALPHA))
        with pytest.raises(CellsFailed, match="base field"):
            verify(statement, proof, Knowing(self.ALPHA))
        refused(forger, SumsFailed, later=lie)
        monkeypatch.setattr(verifier, "check_alpha", lambda alpha: None)
        verify(statement, proof, Knowing(self.ALPHA))

    def test_one_value_that_is_alpha_would_not(self, forger: Forger, monkeypatch: pytest.MonkeyPatch) -> None:
        """The two terms with its factor vanish; the third is there still."""
        monkeypatch.setattr(verifier, "check_alpha", lambda alpha: None)

        def lie(cells: Cells) -> None:
            self.too_long(forger)(cells)
            cells["contributions_1"][0, 0] = 0
            cells["norm_high"][1, 0] = 64**2 // 256

        statement, proof = forger.prove(later=lie, transcript=Knowing(self.ALPHA))
        with pytest.raises(CellsFailed, match="above the clip"):
            verify(statement, proof, Knowing(self.ALPHA))


class TestCountsChosenAfterAlpha:
    """Counts are elements of F, and a table has far more than four entries: who knows α solves for four of them."""

    @pytest.mark.parametrize("name", ["projection_counts", "range_counts"])
    def test_any_value_passes_where_the_witness_is_forgotten(self, forger: Forger, forgetful: Any, name: str) -> None:
        class Seeing(forgetful):  # type: ignore[misc]
            def elements(self, label: str, count: int) -> Any:
                found = super().elements(label, count)
                if label == "tables":
                    drawn[:] = [found[0].copy()]
                return found

        drawn: list[np.ndarray] = []
        outside = {"projection_counts": 2 * forger.sizes.reach + 1, "range_counts": RANGE}[name]

        def later(cells: Cells) -> None:
            if name == "range_counts":
                cells["norm_low"][1, FREE] = outside

        def projected(cells: Cells) -> None:
            if name == "projection_counts":
                cells["projections"][-1, FREE] = forger.sizes.reach + 1

        lies: dict[str, Any] = {"later": later, "projected": projected}
        forger.prove(**lies, transcript=Seeing("witness"))
        change = solved([1, 2, 3, 4], outside, drawn[0])

        def counted(cells: Cells) -> None:
            for at, by in enumerate(change, 1) if name in cells else ():
                cells[name][0, at] = (int(cells[name][0, at]) + by) % P

        statement, proof = forger.prove(**lies, counted=counted, transcript=forgetful("witness"))
        verify(statement, proof, forgetful("witness"))
        with pytest.raises(ELSEWHERE):
            verify(statement, proof)
        refused(forger, SumsFailed, **lies, counted=counted)


def solved(entries: list[int], outside: int, alpha: np.ndarray) -> list[int]:
    """Counts of the four entries with Σ count/(α − entry) = 1/(α − outside): four equations over F."""
    values = np.array([*entries, outside], dtype=np.uint64)
    columns = ext_inverse((alpha + _P - ext(values)) % _P).T.tolist()
    for pivot in range(4):
        swap = next(row for row in range(pivot, 4) if columns[row][pivot])
        columns[pivot], columns[swap] = columns[swap], columns[pivot]
        by = pow(columns[pivot][pivot], P - 2, P)
        columns[pivot] = [value * by % P for value in columns[pivot]]
        for row in set(range(4)) - {pivot}:
            factor = columns[row][pivot]
            pairs = zip(columns[row], columns[pivot], strict=True)
            columns[row] = [(value - factor * there) % P for value, there in pairs]
    return [row[4] for row in columns]
