"""The mechanism of a step: exact sampling, contributions that never pass the clip, sums that never wrap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proofs.errors import LocalFault
from proofs.mechanism import (
    ContributionTooLong,
    GradientInvalid,
    SumOutOfRange,
    check_contributions,
    release,
    selected_rows,
    to_grid,
)


def draws_of(*numbers: int) -> np.ndarray:
    return np.array([[n & 0xFFFF, n >> 16] for n in numbers], dtype=np.uint16)


def test_a_row_is_drawn_exactly_below_the_threshold() -> None:
    words = draws_of(999, 1000, 1001, 0, 2**32 - 1)
    assert selected_rows(words, 1000, 5).tolist() == [0, 3]
    assert selected_rows(words, 1001, 5).tolist() == [0, 1, 3]


def test_empty_slots_are_never_drawn_and_every_row_can_be() -> None:
    words = draws_of(0, 0, 2**32 - 1)
    assert selected_rows(words, 1, 1).tolist() == [0]
    assert selected_rows(words, 1 << 32, 3).tolist() == [0, 1, 2]
    assert selected_rows(words, 1 << 32, 0).tolist() == []


def test_rows_are_drawn_at_the_rate_of_the_threshold() -> None:
    words = np.random.default_rng(3).integers(0, 1 << 16, (100_000, 2), dtype=np.uint16)
    drawn = len(selected_rows(words, 1 << 30, 100_000))
    assert abs(drawn - 25_000) < 5 * np.sqrt(100_000 * 0.25 * 0.75)


@pytest.mark.parametrize(
    ("words", "threshold", "rows"),
    [
        (draws_of(1), 1, 2),
        (draws_of(1), 1, -1),
        (draws_of(1), (1 << 32) + 1, 1),
        (draws_of(1).astype(np.int64), 1, 1),
        (np.zeros((4, 4), dtype=np.uint16), 1, 1),
    ],
)
def test_sampling_refuses_what_is_not_a_draw(words: np.ndarray, threshold: int, rows: int) -> None:
    with pytest.raises(LocalFault):
        selected_rows(words, threshold, rows)


def norms(contributions: np.ndarray) -> list[int]:
    return [sum(int(c) ** 2 for c in row) for row in contributions]


def test_a_short_gradient_is_only_rounded() -> None:
    found = to_grid(np.array([[0.24, -0.26, 0.0]]), unit=0.01, clip_units=1000)
    assert found.tolist() == [[24, -26, 0]]
    assert found.dtype == np.int32


def test_a_long_gradient_keeps_its_direction_and_loses_its_length() -> None:
    found = to_grid(np.array([[3e6, 4e6]]), unit=0.01, clip_units=1000)
    assert found.tolist() == [[600, 800]]


def test_rounding_that_lengthens_a_gradient_is_taken_back() -> None:
    """Every coordinate of 10.5 rounds up or down to even; 11.5 rounds to 12 and would pass the clip by far."""
    gradients = np.full((1, 400), 11.5)
    found = to_grid(gradients, unit=1.0, clip_units=230)
    assert norms(found)[0] <= 230**2 < 400 * 12**2


def test_when_every_coordinate_rounds_up_the_norm_still_holds() -> None:
    """2500 coordinates of 0.52: rounded they are 50 long, and the clip is 26."""
    found = to_grid(np.full((3, 2500), 0.52), unit=1.0, clip_units=26)
    assert max(norms(found)) <= 26**2


@settings(derandomize=True, max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.integers(1, 300),
    clip=st.integers(1, 1 << 20),
    scale=st.integers(-320, 290),
    tail=st.booleans(),
)
def test_no_gradient_whatsoever_passes_the_clip(seed: int, width: int, clip: int, scale: int, tail: bool) -> None:
    rng = np.random.default_rng(seed)
    gradients = rng.standard_normal((4, width)) * 10.0**scale
    if tail:
        gradients *= np.abs(rng.standard_normal((4, width))) ** 5
    found = to_grid(gradients, unit=10.0**-3, clip_units=clip)
    assert max(norms(found)) <= clip**2
    check_contributions(found, clip)


def test_a_gradient_of_the_largest_float_or_of_the_smallest_is_clipped_like_any_other() -> None:
    gradients = np.array([[1.7e308, 1.7e308], [5e-324, 0.0], [0.0, 0.0]])
    found = to_grid(gradients, unit=1e-300, clip_units=100)
    assert found.tolist() == [[71, 70], [0, 0], [0, 0]] or max(norms(found)) <= 100**2
    assert min(found[0]) >= 70


def test_a_clipped_gradient_loses_little_to_rounding() -> None:
    gradients = np.random.default_rng(5).standard_normal((8, 5000))
    found = to_grid(gradients, unit=1e-3, clip_units=4096)
    lengths = np.sqrt(np.array(norms(found)))
    assert (lengths > 0.99 * 4096).all()
    cosine = (found * gradients).sum(axis=1) / lengths / np.linalg.norm(gradients, axis=1)
    assert (cosine > 0.999).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_a_number_stops_training(bad: float) -> None:
    gradients = np.zeros((2, 3))
    gradients[1, 2] = bad
    with pytest.raises(GradientInvalid):
        to_grid(gradients, 1.0, 10)


def test_no_examples_are_no_contributions() -> None:
    assert to_grid(np.zeros((0, 7)), 1.0, 10).shape == (0, 7)
    assert release(np.zeros((0, 2), dtype=np.int32), np.array([5, -6], dtype=np.int32)).tolist() == [5, -6]


def test_a_contribution_above_the_clip_by_one_unit_is_seen() -> None:
    check_contributions(np.array([[3, 4]], dtype=np.int32), 5)
    with pytest.raises(ContributionTooLong):
        check_contributions(np.array([[3, 4], [3, 5]], dtype=np.int32), 5)


def test_a_norm_that_would_wrap_around_is_seen_too() -> None:
    """Sixteen coordinates of 2^30: the sum of squares is 2^64, which is 0 to a careless 64-bit integer."""
    with pytest.raises(ContributionTooLong):
        check_contributions(np.full((1, 16), 2**30, dtype=np.int32), 5)
    with pytest.raises(ContributionTooLong):
        check_contributions(np.array([[-(2**31)]], dtype=np.int32), 1 << 20)
    edge = np.zeros((1, 2), dtype=np.int32)
    edge[0, 0] = 1 << 20
    check_contributions(edge, 1 << 20)
    edge[0, 1] = 1
    with pytest.raises(ContributionTooLong):
        check_contributions(edge, 1 << 20)


def test_a_gradient_that_rounds_no_shorter_is_rounded_towards_zero() -> None:
    """A clip of one unit and a thousand equal coordinates: nothing but nothing fits."""
    assert not to_grid(np.ones((2, 1000)), unit=1e-3, clip_units=1).any()
    found = to_grid(np.full((1, 3), 0.9), unit=1.0, clip_units=1)
    assert norms(found)[0] <= 1


def test_the_release_is_the_sum_and_the_noise() -> None:
    contributions = np.array([[1, 2], [3, -4]], dtype=np.int32)
    found = release(contributions, np.array([10, 20], dtype=np.int32))
    assert (found.tolist(), found.dtype) == ([14, 18], np.int32)


def test_a_sum_that_does_not_fit_is_refused_and_not_wrapped() -> None:
    huge = np.full((3, 1), 2**30, dtype=np.int32)
    with pytest.raises(SumOutOfRange):
        release(huge, np.zeros(1, dtype=np.int32))


def test_sums_of_other_shapes_are_refused() -> None:
    with pytest.raises(LocalFault):
        release(np.zeros((1, 2), dtype=np.int32), np.zeros(3, dtype=np.int32))
    with pytest.raises(LocalFault):
        to_grid(np.zeros(3), 1.0, 10)
    with pytest.raises(LocalFault):
        to_grid(np.zeros((1, 3)), 0.0, 10)
