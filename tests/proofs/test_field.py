"""The field of the proofs, against Python's integers."""

from __future__ import annotations

import numpy as np
import pytest

from proofs import field
from proofs.field import P

RNG = np.random.default_rng(5)


def elements(*shape: int) -> field.Field:
    values = RNG.integers(0, P, shape).astype(np.uint64)
    values.reshape(-1)[:2] = 0, P - 1
    return values


def times(a: list[int], b: list[int]) -> list[int]:
    """Schoolbook product modulo X⁴ − 3."""
    wide = [0] * 7
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            wide[i + j] += x * y
    return [(wide[i] + 3 * (wide[i + 4] if i < 3 else 0)) % P for i in range(4)]


def test_p_is_prime_and_its_group_has_a_subgroup_of_order_2_to_the_24() -> None:
    assert all(P % divisor for divisor in range(3, 46_200, 2))
    root = field.root_of_unity(1 << 24)
    assert pow(root, 1 << 24, P) == 1
    assert pow(root, 1 << 23, P) == P - 1


def test_three_is_no_square_root_of_anything_in_the_way_of_the_extension() -> None:
    """X⁴ − 3 has no factor: 3 is no square, and p ≡ 1 modulo 4 (Lidl and Niederreiter, theorem 3.75)."""
    assert pow(3, (P - 1) // 2, P) == P - 1
    assert P % 4 == 1


def test_three_times_h_and_h_have_nothing_in_common() -> None:
    """Rows are opened at points of 3·⟨ω_n⟩ only, where their data on H does not show."""
    assert pow(3, 1 << 24, P) != 1


def test_products_and_inverses_in_the_extension() -> None:
    a, b = elements(40, 4), elements(40, 4)
    assert field.ext_mul(a, b).tolist() == [times(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert field.ext_mul(a, field.ext_inverse(a)).tolist() == [[1, 0, 0, 0]] * 40
    assert field.ext_inverse(np.zeros(4, dtype=np.uint64)).tolist() == [0, 0, 0, 0]


def test_sums_of_products_are_exact_at_the_largest_elements() -> None:
    a, b = np.full((2, 5000), P - 1, dtype=np.uint64), np.full((5000, 3), P - 1, dtype=np.uint64)
    assert (field.matmul(a, b) == 5000 % P).all()
    c, d = elements(3, 700), elements(700, 2)
    expected = [[sum(x * y for x, y in zip(row, col, strict=True)) % P for col in d.T.tolist()] for row in c.tolist()]
    assert field.matmul(c, d).tolist() == expected


@pytest.mark.parametrize("size", [1, 2, 8, 64])
def test_interpolation_and_evaluation_undo_each_other(size: int) -> None:
    values = elements(size, 3)
    coefficients = field.interpolate(values)
    root = field.root_of_unity(size)
    points = np.array([pow(root, i, P) for i in range(size)], dtype=np.uint64)
    assert np.array_equal(field.matmul(field.powers(points, size), coefficients), values)
    assert np.array_equal(field.values_on_h(coefficients), values)


@pytest.mark.parametrize("size", [1, 2, 8, 1024])
def test_a_polynomial_is_evaluated_from_its_values_and_from_its_coefficients(size: int) -> None:
    values, points = elements(size, 3), elements(20) * np.uint64(3) % np.uint64(P)
    outside = np.array([x for x in points.tolist() if pow(x, size, P) != 1], dtype=np.uint64)
    slow = field.matmul(field.powers(outside, size), field.interpolate(values))
    assert np.array_equal(field.evaluated(field.interpolate(values), outside), slow)
    assert np.array_equal(field.matmul(field.lagrange(outside, size), values), slow)


def test_four_of_the_largest_products_do_not_wrap() -> None:
    largest = np.full((1, 4), P - 1, dtype=np.uint64)
    assert field.ext_mul(largest, largest).tolist() == [times([P - 1] * 4, [P - 1] * 4)]
    unreduced = largest + np.uint64(5 * P)
    assert np.array_equal(field.ext_mul(unreduced, unreduced), field.ext_mul(largest, largest))


def test_signed_integers_have_one_residue_each() -> None:
    assert field.element(np.array([-1, 0, P, -P, 2**31 - 1], dtype=np.int64)).tolist() == [
        P - 1,
        0,
        0,
        0,
        2**31 - 1 - P,
    ]
