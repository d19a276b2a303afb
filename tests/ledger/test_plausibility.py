"""The noise test: honest sums always pass, no noise and half the noise never do, and its limits are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ledger.config import Config
from ledger.plausibility import longest_norm, sum_of_squares, too_quiet
from proofs.gaussian import noise_table
from proofs.mechanism import most_rows

SETS = 61  # 30 steps of two groups, and all together


def noise(sigma: int, count: int, seed: int) -> np.ndarray:
    words = np.random.default_rng(seed).integers(0, 1 << 16, (count, 4), dtype=np.uint16)
    return noise_table(sigma).lookup(words)


def quiet(values: np.ndarray, sigma: int) -> bool:
    return too_quiet(sum_of_squares(values), values.size, noise_table(sigma), SETS)


def test_squares_are_summed_without_wrapping() -> None:
    extremes = np.array([-(2**31), 2**31 - 1, 5] * 10, dtype=np.int32)
    assert sum_of_squares(extremes) == 10 * (2**62 + (2**31 - 1) ** 2 + 25)
    assert sum_of_squares(np.zeros(0, dtype=np.int32)) == 0


@pytest.mark.parametrize("count", [1, 10, 100, 1000, 75_000])
@pytest.mark.parametrize("sigma", [1, 20, 1500, 3500])
def test_honest_noise_passes_with_and_without_contributions(count: int, sigma: int) -> None:
    for seed in range(5):
        honest = noise(sigma, count, seed)
        assert not quiet(honest, sigma)
        assert not quiet(honest + np.int32(3 * sigma), sigma)


@pytest.mark.parametrize("count", [1000, 75_000])
@pytest.mark.parametrize("sigma", [30, 1500, 3500])
def test_no_noise_and_half_the_noise_are_caught(count: int, sigma: int) -> None:
    assert quiet(np.zeros(count, dtype=np.int32), sigma)
    assert quiet(noise(sigma // 2, count, 1), sigma)


def test_no_noise_under_honest_contributions_is_caught_at_the_size_of_the_demo() -> None:
    """Seventy clipped gradients, all alike (the loudest they can be), and no noise."""
    contributions = np.zeros(75_000, dtype=np.int32)
    contributions[:4096] = 70 * 1024 // 64
    assert quiet(contributions, 1500)


def test_the_more_coordinates_the_finer_the_test() -> None:
    """What the README of proofs says of its limits: 3 % at 10^5 coordinates, 30 % at 10^3."""
    assert quiet(noise(1400, 100_000, 2), 1500)
    assert not quiet(noise(1490, 100_000, 2), 1500)
    assert quiet(noise(900, 1000, 2), 1500)
    assert not quiet(noise(1400, 1000, 2), 1500)


def test_a_handful_of_coordinates_can_show_nothing() -> None:
    assert not quiet(np.zeros(4, dtype=np.int32), 1500)


def test_the_edge_is_one_integer_and_the_same_on_every_machine() -> None:
    table, low, high = noise_table(1500), 0, 1500**2 * 1000
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if too_quiet(middle, 1000, table, SETS) else (low, middle)
    assert low == 1_122_273_364


def test_an_honest_draw_never_has_more_rows_than_the_bound(config: Config) -> None:
    privacy = config.privacy
    rows, drawn = (
        most_rows(privacy.capacity, privacy.sample_threshold, 30),
        np.random.default_rng(1).binomial(64, 1 / 16, 1_000_000),
    )
    assert drawn.max() < rows < 64


def test_the_bound_on_rows_follows_the_rate(config: Config) -> None:
    privacy = config.privacy
    every = replace(privacy, sample_threshold=1 << 32)
    assert most_rows(every.capacity, every.sample_threshold, 30) == privacy.capacity
    assert most_rows(1, privacy.sample_threshold, 30) == 1
    wide = replace(privacy, capacity=10_000)
    assert 625 < most_rows(wide.capacity, wide.sample_threshold, 30) < 1000
    assert most_rows(wide.capacity, wide.sample_threshold, 30) < most_rows(wide.capacity, wide.sample_threshold, 3000)


@pytest.mark.parametrize("count", [10, 1000, 75_000])
def test_honest_sums_are_shorter_than_the_longest_norm(config: Config, count: int) -> None:
    privacy, table = config.privacy, noise_table(1500)
    bound = longest_norm(privacy, table, count, 20, SETS)
    for seed in range(20):
        assert sum_of_squares(noise(1500, count, seed)) < (bound - 20 * 1024) ** 2
    assert bound < 20 * 1024 + 1500 * (np.sqrt(count) + 25)


def test_without_noise_the_longest_norm_is_that_of_the_contributions(config: Config) -> None:
    assert longest_norm(config.privacy, None, 1000, 20, SETS) == 20 * 1024
