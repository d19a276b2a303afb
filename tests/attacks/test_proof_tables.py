"""Forged proofs, continued: sampling, occupancy, released sums, tables, code and masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from proofs.field import P
from proofs.parameters import RANGE
from proofs.parameters import SLOTS as SLOTS_TREE
from proofs.proof import (
    CellsFailed,
    OpeningInvalid,
    ProofInvalid,
    ProximityFailed,
    ReleasedTooLarge,
    SumsFailed,
)
from proofs.relation import BITS
from proofs.verifier import points_of, verify

Forger = Any  # the fixture of conftest.py
Cells = dict[str, np.ndarray]
STEPS, SLOTS, CAPACITY, ROWS = 2, 16, 16, 11  # of the small case


def refused(forger: Forger, error: type[ProofInvalid], **lies: Any) -> None:
    statement, proof = forger.prove(**lies)
    with pytest.raises(ProofInvalid) as caught:
        verify(statement, proof)
    assert type(caught.value) is error, repr(caught.value)


def drawn_row(cells: Cells, drawn: int) -> int:
    """A row of step 0 that is there, and that the words draw or do not."""
    return next(row for row in range(ROWS) if cells["drawn"][0, row] == drawn)


def use(forger: Forger, cells: Cells, count: int, step: int = 0) -> None:
    """So many slots of a step in use, those beyond empty, and norms that fit."""
    places = slice(SLOTS * step, SLOTS * step + SLOTS)
    cells["active"][0, places] = np.arange(SLOTS) < count
    cells["last"][0, places] = np.arange(SLOTS) == count - 1
    for group in range(2):
        held = cells[f"contributions_{group}"][0, : forger.sizes.blocks * STEPS * SLOTS].reshape(-1, STEPS, SLOTS)
        held[:, step, count:] = 0
    forger.norms(cells)


class TestDraws:
    """M4: a row is used iff its words draw it and the commitment says that it is there."""

    @pytest.mark.parametrize("drawn", [0, 1])
    def test_a_draw_against_its_words(self, forger: Forger, drawn: int) -> None:
        """A row that the words skip is drawn, or one that they draw is skipped; slots are in use to match."""

        def lie(cells: Cells) -> None:
            row = drawn_row(cells, drawn)
            cells["drawn"][0, row] = cells["used"][0, row] = 1 - drawn
            use(forger, cells, int(cells["used"][0, :CAPACITY].sum()))

        refused(forger, SumsFailed, later=lie)

    @pytest.mark.parametrize("drawn", [0, 1])
    def test_a_draw_against_its_words_with_a_borrow_that_is_no_bit(self, forger: Forger, drawn: int) -> None:
        """A borrow that makes the high word of the difference fit is not 0 or 1."""

        def lie(cells: Cells) -> None:
            row = drawn_row(cells, drawn)
            cells["drawn"][0, row] = cells["used"][0, row] = 1 - drawn
            cells["draw_borrow"][0, row] = RANGE // 2 if drawn == 0 else P - RANGE // 2
            use(forger, cells, int(cells["used"][0, :CAPACITY].sum()))

        refused(forger, CellsFailed, later=lie)

    @pytest.mark.parametrize("drawn", [0, 1])
    def test_a_draw_of_words_that_a_carry_makes_up(self, forger: Forger, drawn: int) -> None:
        """The carry alone moves the high word across the threshold: no bit does that within the range."""

        def lie(cells: Cells) -> None:
            row = drawn_row(cells, drawn)
            high = int(cells["secret_draws"][1, row]) + int(forger.public.draw_words[row, 1])
            wished = 0 if drawn == 0 else RANGE - 1
            cells["draw_carry"][1, row] = (high - wished) * pow(RANGE, -1, P) % P
            cells["drawn"][0, row] = cells["used"][0, row] = 1 - drawn
            use(forger, cells, int(cells["used"][0, :CAPACITY].sum()))

        refused(forger, CellsFailed, later=lie)

    def test_a_drawn_row_that_is_there_and_is_not_used(self, forger: Forger) -> None:
        def lie(cells: Cells) -> None:
            cells["used"][0, drawn_row(cells, 1)] = 0
            use(forger, cells, int(cells["used"][0, :CAPACITY].sum()))

        refused(forger, CellsFailed, later=lie)

    def test_a_drawn_row_that_is_not_there_and_is_used(self, forger: Forger) -> None:
        def lie(cells: Cells) -> None:
            row = next(row for row in range(ROWS, CAPACITY) if cells["drawn"][0, row])
            cells["used"][0, row] = 1
            use(forger, cells, int(cells["used"][0, :CAPACITY].sum()))

        refused(forger, CellsFailed, later=lie)

    @pytest.mark.parametrize("step", [0, 1])
    def test_a_row_that_is_there_in_some_steps_only(self, forger: Forger, step: int) -> None:
        """Committed to before the beacon, and still refused: a row could dodge the steps that draw it."""

        def lie(cells: Cells) -> None:
            row = CAPACITY * step + 4
            cells["filled"][0, row] = 0
            if "drawn" in cells:
                cells["used"][0, row] = 0
                use(forger, cells, int(cells["used"][0, CAPACITY * step :][:CAPACITY].sum()), step)

        refused(forger, SumsFailed, early=lie, later=lie)

    def test_a_row_that_counts_twice(self, forger: Forger) -> None:
        """`filled` of 2 in every step, committed to before the beacon."""

        def lie(cells: Cells) -> None:
            cells["filled"][0, [4, CAPACITY + 4]] = 2
            if "drawn" in cells:
                for step in range(STEPS):
                    cells["used"][0, CAPACITY * step + 4] = 2 * cells["drawn"][0, CAPACITY * step + 4]
                    use(forger, cells, int(cells["used"][0, CAPACITY * step :][:CAPACITY].sum()), step)

        refused(forger, CellsFailed, early=lie, later=lie)

    @pytest.mark.parametrize("row", [0, ROWS])
    def test_another_occupancy_than_was_committed_to(self, forger: Forger, row: int) -> None:
        def lie(cells: Cells) -> None:
            cells["filled"][0, [row, CAPACITY + row]] ^= 1

        refused(forger, OpeningInvalid, early=lie, data_root=forger.case.statement.data_root)

    @pytest.mark.parametrize("name", BITS)
    def test_a_bit_that_is_two(self, forger: Forger, name: str) -> None:
        """In a lane that nothing else speaks of: bits are bits there too."""

        def lie(cells: Cells) -> None:
            cells[name][-1, -1] = 2

        refused(forger, CellsFailed, early=lie if name == "filled" else lambda _: None, later=lie)


class TestReleasedSums:
    """M1: ĝ = Σ c + z over the integers, each coordinate of each step by itself."""

    @pytest.mark.parametrize("place", [(0, 0), (0, 7), (1, 3)])
    @pytest.mark.parametrize("change", [1, -1])
    def test_a_sum_off_by_one(self, forger: Forger, place: tuple[int, int], change: int) -> None:
        released = forger.case.statement.released.copy()
        released[place] += change
        refused(forger, SumsFailed, released=released)

    @pytest.mark.parametrize("change", [P, -P])
    def test_a_sum_off_by_the_modulus_fits_thirty_two_bits_and_is_too_large(self, forger: Forger, change: int) -> None:
        released = forger.case.statement.released.astype(np.int64)
        released[0, 2] += change
        assert np.array_equal(released.astype(np.int32), released)
        refused(forger, ReleasedTooLarge, released=released.astype(np.int32))

    def test_a_sum_just_beyond_what_any_contributions_and_noise_add_up_to(self, forger: Forger) -> None:
        released = forger.case.statement.released.copy()
        released[0, 2] = -(SLOTS * 64 + (forger.sizes.noise_values - 1) // 2)
        refused(forger, SumsFailed, released=released)
        released[0, 2] -= 1
        refused(forger, ReleasedTooLarge, released=released)

    @pytest.mark.parametrize(
        "moved",
        [
            lambda sums, groups: sums[::-1],
            lambda sums, groups: sums[:, ::-1],
            lambda sums, groups: np.where(np.arange(8) < 4, sums, sums[::-1]),
            lambda sums, groups: sums[:, np.argsort(groups, kind="stable")],
            lambda sums, groups: swapped(sums, *(int(np.flatnonzero(groups == group)[0]) for group in range(2))),
            lambda sums, groups: swapped(sums, *np.flatnonzero(groups == 0)[:2].tolist()),
        ],
        ids=["steps", "coordinates", "half a step", "group after group", "between groups", "within a group"],
    )
    def test_sums_in_another_place(self, forger: Forger, moved: Callable[..., np.ndarray]) -> None:
        statement = forger.case.statement
        released = np.ascontiguousarray(moved(statement.released, statement.group_of))
        assert not np.array_equal(released, statement.released)
        refused(forger, SumsFailed, released=released)

    def test_a_unit_taken_from_one_sum_and_given_to_another(self, forger: Forger) -> None:
        released = forger.case.statement.released.copy()
        released[0, 1] += 1
        released[1, 1] -= 1
        refused(forger, SumsFailed, released=released)


class TestTables:
    """Every value that is looked up is in its table: Σ 1/(α − value) = Σ count/(α − entry), table by table."""

    @pytest.mark.parametrize("name", ["range_counts", "noise_counts", "projection_counts"])
    @pytest.mark.parametrize("change", [1, P - 1])
    def test_a_wrong_count(self, forger: Forger, name: str, change: int) -> None:
        def lie(cells: Cells) -> None:
            if name in cells:
                cells[name][0, 5] = (int(cells[name][0, 5]) + change) % P

        refused(forger, SumsFailed, counted=lie)

    def test_a_value_moved_from_one_table_to_another(self, forger: Forger) -> None:
        """5 is an entry of the range and of the projections: all counts together still fit all values together."""

        def lie(cells: Cells) -> None:
            if "range_counts" in cells:
                cells["range_counts"][0, 5] += 1
            else:
                cells["projection_counts"][0, 5] = (int(cells["projection_counts"][0, 5]) - 1) % P

        refused(forger, SumsFailed, counted=lie)

    @pytest.mark.parametrize("row", [0, 8, 9, 10])
    def test_an_inverse_that_is_wrong_in_one_cell(self, forger: Forger, row: int) -> None:
        def lie(cells: Cells) -> None:
            cells["inverses_2"][row, 9] ^= 1

        refused(forger, CellsFailed, inverted=lie)

    def test_inverses_that_are_wrong_in_two_cells_and_add_up(self, forger: Forger) -> None:
        def lie(cells: Cells) -> None:
            cells["inverses_0"][0, [8, 9]] = cells["inverses_0"][0, [9, 8]]

        refused(forger, CellsFailed, inverted=lie)

    def test_a_word_out_of_range_with_the_inverse_of_one_in_it(self, forger: Forger) -> None:
        """The counts are right then; the cell is not."""

        def later(cells: Cells) -> None:
            cells["norm_low"][1, -1] = P - 1

        def counted(cells: Cells) -> None:
            if "range_counts" in cells:
                cells["range_counts"][0, 0] += 1

        def inverted(cells: Cells) -> None:
            """In the lane before, the same three values but for that one are looked up."""
            for e in range(4):
                cells[f"inverses_{e}"][7, -1] = cells[f"inverses_{e}"][7, -2]

        low = forger.sizes.range_lookups - 2 * len(forger.shape.groups)
        assert (low + 1) // 3 == 7
        refused(forger, CellsFailed, later=later, counted=counted, inverted=inverted)


class TestCode:
    """What is committed to are rows of degree below k: anything else could answer each opened column as it pleases."""

    @pytest.mark.parametrize("tree", range(6))
    @pytest.mark.parametrize("row", [0, -1])
    def test_a_row_of_degree_k(self, forger: Forger, tree: int, row: int) -> None:
        every = points_of(np.arange(forger.sizes.columns), forger.sizes)

        def coded(number: int, code: np.ndarray) -> None:
            if number == tree:
                highest = np.array([pow(int(x), forger.sizes.row, P) for x in every[:: forger.sizes.row]])
                code[:, row] = (code[:, row].astype(np.int64) + np.repeat(highest, forger.sizes.row)) % P

        refused(forger, ProximityFailed, coded=coded)

    @pytest.mark.parametrize("tree", range(6))
    def test_a_quarter_of_the_columns_changed(self, forger: Forger, tree: int) -> None:
        """Fewer than decoding could put right: a single opened one among them is enough."""

        def coded(number: int, code: np.ndarray) -> None:
            if number == tree:
                code[::4, 0] ^= 1

        refused(forger, ProximityFailed, coded=coded)

    def test_another_row_in_half_of_the_columns(self, forger: Forger) -> None:
        """Contributions that are those of one statement here and of another there."""

        def coded(number: int, code: np.ndarray) -> None:
            if number == SLOTS_TREE:
                code[1::2, 0] = code[1::2, 1]

        refused(forger, ProximityFailed, coded=coded)


class TestMasks:
    """Masks hide; they must not make up for what is missing."""

    @pytest.mark.parametrize("row", range(4))
    def test_a_mask_of_sums_with_the_one_coefficient_that_it_must_not_have(self, forger: Forger, row: int) -> None:
        """That of X^(k/2), which x^(k/2) makes a constant modulo x^k − 1: it would count k times."""

        def lie(masks: Cells) -> None:
            masks["mask_sums"][row, 0] = (int(masks["mask_sums"][row, 0]) + 1) % P

        refused(forger, SumsFailed, masked=lie)

    def test_a_mask_of_sums_that_makes_up_for_a_sum_off_by_one(self, forger: Forger) -> None:
        """It is committed to before the factors are drawn, so that it cannot know how much a unit will weigh."""
        released = forger.case.statement.released.copy()
        released[0, 0] += 1

        def lie(masks: Cells) -> None:
            half = np.where(np.arange(forger.sizes.row) % 2 == 0, 1, P - 1)  # X^(k/2) on H
            masks["mask_sums"][0] = (masks["mask_sums"][0] + half.astype(np.int64)) % P

        refused(forger, SumsFailed, masked=lie, released=released)


def swapped(sums: np.ndarray, one: int, other: int) -> np.ndarray:
    found = sums.copy()
    found[:, [one, other]] = found[:, [other, one]]
    return found
