"""The noise table is the rounded Gaussian, to within what it says of itself, and the same on every machine."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import mpmath
import numpy as np
import pytest

from proofs import gaussian
from proofs.errors import LocalFault
from proofs.gaussian import MAX_SIGMA_UNITS, SigmaRefused, noise_table

EXACT = mpmath.MPContext()
EXACT.prec = 400

GOLDEN = {  # σ -> (bound, SHA-256 of the thresholds): these never change; released proofs rest on them
    1: (9, "f7c0bfa707c0f0c9"),
    2: (18, "9af81d5beab115e5"),
    100: (916, "2f7890358ba68542"),
    1000: (9155, "026f6efd573b19fb"),
    3500: (32044, "3f4c0e9d7ab94e6d"),
}


def upper_tail(sigma: int, k: int) -> mpmath.mpf:
    """P(round(N) > k), by a route that shares nothing with the table's."""
    return EXACT.erfc((k + EXACT.mpf(1) / 2) / sigma / EXACT.sqrt(2)) / 2


def words_of(*uniforms: int) -> np.ndarray:
    return np.array([[(u >> (16 * place)) & 0xFFFF for place in range(4)] for u in uniforms], dtype=np.uint16)


@pytest.mark.parametrize("sigma", sorted(GOLDEN))
def test_the_tables_of_released_versions_stay_as_they_are(sigma: int) -> None:
    table = noise_table(sigma)
    assert (table.bound, table.digest.hex()[:16]) == GOLDEN[sigma]


@pytest.mark.parametrize("sigma", [1, 2, 3, 17, 100, 1234, 3500])
def test_every_threshold_is_the_nearest_integer_to_the_exact_tail(sigma: int) -> None:
    table, chosen = noise_table(sigma), random.Random(sigma)
    for k in {0, 1, table.bound - 1, *(chosen.randrange(table.bound) for _ in range(40))}:
        largest = (1 << 64) - int(table.thresholds[table.bound + k])
        assert abs(upper_tail(sigma, k) * 2**64 - largest) <= EXACT.mpf(1) / 2


@pytest.mark.parametrize("sigma", [1, 5, 64, 700, 3500])
def test_plus_and_minus_are_exactly_as_likely_and_everything_adds_up(sigma: int) -> None:
    table = noise_table(sigma)
    counts = [table.count(z) for z in range(-table.bound, table.bound + 1)]
    assert counts == counts[::-1]
    assert sum(counts) == 2**64
    assert counts[-1] > 0
    assert table.count(table.bound + 1) == 0


def test_what_lies_beyond_the_bound_is_below_one_in_two_to_the_65() -> None:
    for sigma in (1, 100, 3500):
        assert upper_tail(sigma, noise_table(sigma).bound) < EXACT.mpf(2) ** -65


@pytest.mark.parametrize("sigma", [1, 2, 5, 30])
def test_total_variation_and_chi_squared_are_upper_bounds_and_tight(sigma: int) -> None:
    table = noise_table(sigma)
    beyond = upper_tail(sigma, table.bound)
    exact, squares = beyond, 2 * beyond
    for z in range(-table.bound, table.bound + 1):
        mass = upper_tail(sigma, abs(z) - 1) - upper_tail(sigma, abs(z))
        gap = abs(EXACT.mpf(table.count(z)) / 2**64 - mass)
        exact += gap / 2
        squares += gap * gap / mass
    assert exact <= table.total_variation <= exact * (1 + EXACT.mpf(2) ** -40)
    assert squares <= table.chi_squared <= squares * (1 + EXACT.mpf(2) ** -40)


def test_total_variation_stays_below_half_a_count_for_each_threshold() -> None:
    for sigma in (1, 100, 1000, 3500):
        table = noise_table(sigma)
        assert 0 < table.total_variation < table.bound * 2.0**-63


def test_looking_up_walks_the_thresholds() -> None:
    table = noise_table(3)
    first, last = int(table.thresholds[0]), int(table.thresholds[-1])
    words = words_of(0, first - 1, first, last - 1, last, 2**64 - 1, 2**63)
    assert table.lookup(words).tolist() == [
        -table.bound,
        -table.bound,
        1 - table.bound,
        table.bound - 1,
        table.bound,
        table.bound,
        0,
    ]


def test_each_value_gets_the_uniforms_that_it_counts() -> None:
    table, start = noise_table(2), 0
    for z in range(-table.bound, table.bound + 1):
        if table.count(z):
            edges = words_of(start, start + table.count(z) - 1)
            assert table.lookup(edges).tolist() == [z, z]
        start += table.count(z)


def test_turning_every_bit_of_the_words_turns_the_sign() -> None:
    words = np.random.default_rng(1).integers(0, 1 << 16, (5000, 4), dtype=np.uint16)
    table = noise_table(200)
    np.testing.assert_array_equal(table.lookup(words), -table.lookup(~words))


def test_looked_up_noise_has_the_mean_and_the_spread_of_its_gaussian() -> None:
    words = np.random.default_rng(7).integers(0, 1 << 16, (200_000, 4), dtype=np.uint16)
    noise = noise_table(500).lookup(words)
    assert noise.dtype == np.int32
    assert abs(noise.mean()) < 5 * 500 / np.sqrt(200_000)
    assert abs(noise.std() / 500 - 1) < 0.01


def test_lookup_keeps_the_shape_and_refuses_other_words() -> None:
    table = noise_table(2)
    assert table.lookup(np.zeros((3, 2, 4), dtype=np.uint16)).shape == (3, 2)
    with pytest.raises(LocalFault):
        table.lookup(np.zeros((3, 3), dtype=np.uint16))
    with pytest.raises(LocalFault):
        table.lookup(np.zeros((3, 4), dtype=np.int64))


@pytest.mark.parametrize("sigma", [0, -1, MAX_SIGMA_UNITS + 1, 1.5, True])
def test_no_table_for_a_sigma_outside_its_range(sigma: int) -> None:
    with pytest.raises(SigmaRefused):
        noise_table(sigma)


def test_every_sigma_that_a_config_may_name_fits_sixteen_bits() -> None:
    assert noise_table(MAX_SIGMA_UNITS).bound < 1 << 15


def test_the_precision_that_others_set_does_not_matter() -> None:
    """mpmath keeps one precision for the whole process; a thread that lowers it may not change the table."""
    before = mpmath.mp.prec
    mpmath.mp.prec = 20
    try:
        assert gaussian._tails(100) == tails_at_usual_precision()
    finally:
        mpmath.mp.prec = before


def tails_at_usual_precision() -> list[int]:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(gaussian._tails, 100).result()
