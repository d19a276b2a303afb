"""Products of LoRA pairs: a stack is exact up to the grid, a cut is the best there is, and both are the same bytes
everywhere."""

from __future__ import annotations

from fractions import Fraction
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ledger.products import Pair, cut, stack
from ledger.robust import Units

BITS = 16
GOLDEN = "32c0eec116cb3095"  # another value splits every federation that uses svd


def members(
    seed: int, count: int = 3, rank: int = 4, inputs: int = 24, outputs: int = 20, near: bool = False
) -> list[Pair]:
    """Halves of adapters in grid units. near: every A is one A, moved a little, as after a round from one start."""
    rng = np.random.default_rng(seed)
    start = rng.integers(-9000, 9000, (rank, inputs))
    return [
        Pair(
            start + rng.integers(-40, 40, (rank, inputs)) if near else rng.integers(-9000, 9000, (rank, inputs)),
            rng.integers(-700, 700, (outputs, rank)),
            int(rng.integers(1, 6)),
        )
        for _ in range(count)
    ]


def mean_product(pairs: list[Pair]) -> NDArray[np.float64]:
    """Σ wᵢ Bᵢ Aᵢ / W as real numbers, from exact integers."""
    total = sum(pair.weight for pair in pairs)
    summed = sum(pair.weight * (pair.b.astype(object) @ pair.a.astype(object)) for pair in pairs)
    return np.asarray(summed / (total * 4**BITS), dtype=np.float64)


def product(a: Units, b: Units) -> NDArray[np.float64]:
    return np.asarray(b.astype(np.float64) @ a.astype(np.float64) / 4.0**BITS)


def zeros(rank: int, inputs: int = 24) -> Units:
    return np.zeros((rank, inputs), dtype=np.int64)


# ---- stack


@settings(derandomize=True, max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.tuples(st.integers(1, 3), st.integers(1, 99)), min_size=1, max_size=4))
def test_a_stack_is_the_mean_of_the_products_but_for_half_a_unit_of_each_b(
    seed: int, shapes: list[tuple[int, int]]
) -> None:
    """|BA − Σ wᵢBᵢAᵢ/W| ≤ ½ Σⱼ |Aⱼₖ| in each entry of column k, in exact fractions."""
    rng = np.random.default_rng(seed)
    pairs = [
        Pair(rng.integers(-(1 << 24), 1 << 24, (r, 5)), rng.integers(-(1 << 24), 1 << 24, (4, r)), w) for r, w in shapes
    ]
    a, b = stack(pairs)
    assert a.shape == (sum(r for r, _ in shapes), 5)
    total = sum(w for _, w in shapes)
    exact = sum(pair.weight * (pair.b.astype(object) @ pair.a.astype(object)) for pair in pairs)
    found = b.astype(object) @ a.astype(object)
    for row, column in np.ndindex(found.shape):
        error = abs(found[row, column] - Fraction(int(exact[row, column]), total))
        assert error <= Fraction(int(np.abs(a[:, column]).sum()), 2)


def test_a_stack_of_equal_weights_that_divide_is_exact() -> None:
    pairs = [Pair(pair.a, 3 * pair.b, 1) for pair in members(1)]
    a, b = stack(pairs)
    assert (b @ a * 3 == sum(pair.b @ pair.a for pair in pairs)).all()


# ---- svd


@pytest.mark.parametrize("near", [False, True], ids=["unlike members", "members near their common start"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_cut_is_half_a_unit_from_numpys_decomposition(count: int, near: bool) -> None:
    """Singular vectors with numpy's signs turned to ours; components that are far from equal."""
    pairs = members(count, count, near=near)
    a, b = cut(pairs, BITS, zeros(4))
    u, s, v = np.linalg.svd(mean_product(pairs), full_matrices=False)
    signs = np.sign(v[np.arange(4), np.abs(v[:4]).argmax(axis=1)])
    assert np.abs(a - signs[:, None] * v[:4] * 2**BITS).max() < 0.5001
    assert np.abs(b - signs * u[:, :4] * s[:4] * 2**BITS).max() < 0.5001


@settings(derandomize=True, max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.booleans())
def test_no_matrix_of_that_rank_is_nearer_than_a_cut_but_for_the_grid(seed: int, rank: int, near: bool) -> None:
    """Eckart and Young: the error is the norm of the singular values left out. Rounding adds at most half a unit to
    each weight of either half: ½·2^-16·(‖B‖ √(r·in) + ‖A‖ √(r·out)) and a product of two such."""
    pairs = members(seed, near=near)
    exact = mean_product(pairs)
    a, b = cut(pairs, BITS, zeros(rank))
    left_out = np.linalg.svd(exact, compute_uv=False)[rank:]
    error, best = np.linalg.norm(exact - product(a, b)), np.sqrt((left_out**2).sum())
    half, (inputs, outputs) = 0.5 / 2**BITS, (24, 20)
    norms = [np.linalg.norm(units / 2**BITS, 2) for units in (a, b)]
    slack = half * (norms[1] * np.sqrt(rank * inputs) + norms[0] * np.sqrt(rank * outputs))
    assert best - 1e-12 <= error <= best + slack + half**2 * rank * np.sqrt(inputs * outputs) + 1e-12


def test_a_cut_of_one_member_at_its_own_rank_is_its_own_product() -> None:
    (pair,) = members(5, 1)
    a, b = cut([pair], BITS, zeros(4))
    assert np.abs(product(a, b) - product(pair.a, pair.b)).max() < 1e-3
    assert np.abs(a @ a.T / 4.0**BITS - np.eye(4)).max() < 1e-3, "rows of A are orthonormal"


def test_members_of_different_ranks_are_cut_to_one() -> None:
    small, large = members(3, 1, rank=1)[0], members(4, 1, rank=3)[0]
    a, b = cut([small, large], BITS, zeros(3))
    left_out = np.linalg.svd(mean_product([small, large]), compute_uv=False)[3:]
    assert np.linalg.norm(mean_product([small, large]) - product(a, b)) < np.linalg.norm(left_out) + 1e-3


def test_what_vanishes_can_be_trained_again() -> None:
    """Two components where four fit: the others have a B of zero, and an A that gives B a gradient."""
    spare = np.arange(96).reshape(4, 24)
    pairs = members(6, 1, rank=2)
    a, b = cut(pairs, BITS, spare)
    assert (a[2:] == spare[2:]).all()
    assert not b[:, 2:].any()
    assert b[:, :2].any()
    nothing = [Pair(pairs[0].a, np.zeros_like(pairs[0].b), 1)]
    a, b = cut(nothing, BITS, spare)
    assert (a == spare).all()
    assert not b.any()


def test_rows_that_depend_on_each_other_do_no_harm() -> None:
    """Every member with the very same A, as when no A has moved: the Gram matrix is singular."""
    one = members(8, 1)[0]
    pairs = [Pair(one.a, one.b, 1), Pair(one.a, 2 * one.b, 2), Pair(one.a, -one.b, 1)]
    a, b = cut(pairs, BITS, zeros(4))
    assert np.abs(product(a, b) - mean_product(pairs)).max() < 1e-3


def test_weights_at_the_edge_of_the_grid_stay_on_it() -> None:
    full = Pair(np.full((2, 6), 1 << 24), np.full((6, 2), 1 << 24), 1 << 16)
    a, b = cut([full, full], BITS, zeros(2, 6))
    assert max(np.abs(a).max(), np.abs(b).max()) <= 1 << 24


def test_the_largest_entry_of_each_row_of_a_is_positive() -> None:
    for seed in range(5):
        a, _ = cut(members(seed), BITS, zeros(4))
        assert (a[np.arange(4), np.abs(a).argmax(axis=1)] > 0).all()


def test_which_member_has_which_number_changes_no_byte() -> None:
    """Not by rule, since the order of rows is that of members: what it changes is far below a grid unit."""
    pairs = members(9)
    for order in ((2, 0, 1), (1, 0, 2)):
        for one, two in zip(cut(pairs, BITS, zeros(4)), cut([pairs[n] for n in order], BITS, zeros(4)), strict=True):
            assert (one == two).all()


def test_the_bytes_of_a_cut_are_for_ever() -> None:
    """Of matrices that no library draws."""
    numbers = [(np.arange(96) * 40503 * (n + 1)) % 17989 - 8994 for n in range(4)]
    pairs = [Pair(numbers[n].reshape(4, 24), numbers[n + 2].reshape(24, 4) // 9, n + 1) for n in range(2)]
    a, b = cut(pairs, BITS, zeros(4))
    assert sha256(a.astype("<i8").tobytes() + b.astype("<i8").tobytes()).hexdigest()[:16] == GOLDEN
