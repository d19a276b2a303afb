"""Forgeries where words, draws and contributions take several rows each, as they do in every real round.

Rows of words are laid out word by word, and within a word row by row: a mistake there would not show where a word takes
a single row, and could leave whole rows without a rule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from proofs.field import P
from proofs.parameters import RANGE
from proofs.proof import CellsFailed, OpeningInvalid, ProofInvalid, SumsFailed
from proofs.statement import Shape
from proofs.verifier import verify
from proofs.witness import secret_cells, witness

Forger = Any  # the class of conftest.py
Cells = dict[str, np.ndarray]
WIDE = Shape(3, (1500, 130), 1400, 12, 64, 100, 1 << 24, 4)
BY_WORDS = ("noise_carry", "low_borrow", "high_borrow", "draw_carry", "draw_borrow", "drawn")


@pytest.fixture(scope="module")
def wide(make_case: Callable[..., Any]) -> Any:
    return make_case(WIDE, 1380)


@pytest.fixture
def wide_forger(forger: Forger, wide: Any) -> Forger:
    return type(forger)(wide)


def honest_cells(forger: Forger) -> Cells:
    case = forger.case
    cells = secret_cells(case.words, forger.sizes)
    return cells | witness(case.statement, forger.sizes, case.words, case.rows, case.contributions)


def in_tables(forger: Forger, cells: Cells) -> bool:
    """Every value is in its table."""
    ranges, _, bins = forger.look_ups(cells)
    known = {entry.tobytes() for entry in forger.public.bins}
    return bool((ranges < RANGE).all()) and all(entry.tobytes() in known for entry in bins.reshape(-1, 9))


def test_the_shape_is_wide_and_its_honest_proof_passes(wide_forger: Forger) -> None:
    sizes = wide_forger.sizes
    assert min(sizes.noise_rows, sizes.draw_rows, sizes.group_rows[0], sizes.group_rows[1]) >= 2
    verify(wide_forger.case.statement, wide_forger.case.prove())
    verify(*wide_forger.prove())


@pytest.mark.parametrize("name", BY_WORDS)
def test_no_bit_of_a_word_can_be_flipped_in_any_row(wide_forger: Forger, name: str) -> None:
    """Carries, borrows and draws follow from the words: the other value leads out of a table, everywhere."""
    cells = honest_cells(wide_forger)
    assert in_tables(wide_forger, cells)
    for row in range(len(cells[name])):
        for lane in (0, 11, wide_forger.sizes.lanes - 1):
            flipped = cells | {name: cells[name].copy()}
            flipped[name][row, lane] ^= 1
            assert not in_tables(wide_forger, flipped), (row, lane)


@pytest.mark.parametrize("name", ["secret_noise", "secret_draws", "bin_low", "bin_high", "noise"])
def test_no_word_can_leave_its_range_or_its_bin_in_any_row(wide_forger: Forger, name: str) -> None:
    cells = honest_cells(wide_forger)
    for row in range(len(cells[name])):
        for change in (RANGE, P - RANGE, P // 2):
            moved = cells | {name: cells[name].copy()}
            moved[name][row, 11] = (int(moved[name][row, 11]) + change) % P
            assert not in_tables(wide_forger, moved), (row, change)


def last_noise_off_by_one(forger: Forger, cells: Cells) -> None:
    at = WIDE.steps * WIDE.parameters - 1 - forger.sizes.lanes
    cells["noise"][1, at] = (int(cells["noise"][1, at]) + 1) % P


def last_contribution_off_by_one(forger: Forger, cells: Cells) -> None:
    """The sum follows, the square does not."""
    cells["contributions_0"][-1, 0] = (int(cells["contributions_0"][-1, 0]) + 1) % P


def last_filled_up_place_too_long(forger: Forger, cells: Cells) -> None:
    """Beyond the coordinates of the group: in no sum, and in the norm."""
    cells["contributions_1"][-1, (forger.sizes.blocks - 1) * WIDE.contributions] = 65
    assert forger.sizes.group_rows[1] * forger.sizes.blocks > WIDE.groups[1]
    forger.norms(cells)


def a_draw_of_the_last_step_skipped(forger: Forger, cells: Cells) -> None:
    cells["used"][1, WIDE.steps * WIDE.capacity - 20 - forger.sizes.lanes] ^= 1


@pytest.mark.parametrize(
    ("lie", "error"),
    [
        (last_noise_off_by_one, SumsFailed),
        (last_contribution_off_by_one, CellsFailed),
        (last_filled_up_place_too_long, SumsFailed),
        (a_draw_of_the_last_step_skipped, CellsFailed),
    ],
)
def test_the_last_rows_have_their_rules_too(wide_forger: Forger, lie: Any, error: type[ProofInvalid]) -> None:
    statement, proof = wide_forger.prove(later=lambda cells: lie(wide_forger, cells))
    with pytest.raises(error):
        verify(statement, proof)


def test_a_row_of_the_data_missing_in_the_last_step_alone(wide_forger: Forger) -> None:
    at = WIDE.steps * WIDE.capacity - 30 - wide_forger.sizes.lanes

    def lie(cells: Cells) -> None:
        assert "used" in cells or cells["filled"][1, at]
        cells["filled"][1, at] = 0
        if "used" in cells:
            cells["used"][1, at] = 0

    with pytest.raises(SumsFailed):
        verify(*wide_forger.prove(early=lie, later=lie))
    honest = wide_forger.case.statement.data_root
    with pytest.raises(OpeningInvalid):
        verify(*wide_forger.prove(early=lie, later=lie, data_root=honest))


@pytest.mark.parametrize("place", [(0, 0), (2, 1629), (2, 0), (1, 380)])
def test_each_sum_is_checked_whatever_row_its_noise_lies_in(wide_forger: Forger, place: tuple[int, int]) -> None:
    statement = wide_forger.case.statement
    released = statement.released.copy()
    released[place] += 1
    with pytest.raises(SumsFailed):
        verify(*wide_forger.prove(released=released))
    with pytest.raises(ProofInvalid):
        verify(replace(statement, released=released), wide_forger.case.prove())
