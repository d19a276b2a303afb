"""Each compiled kernel beside its plain twin in numpy, on the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from proofs import field, kernels
from proofs.field import P
from proofs.relation import Plain

RNG = np.random.default_rng(6)


def rows(count: int, size: int) -> kernels.Rows:
    values = RNG.integers(0, P, (count, size)).astype(np.uint32)
    values[:, :1] = P - 1
    return values


@pytest.mark.parametrize(("count", "size", "blowup"), [(0, 8, 8), (1, 2, 2), (16, 64, 8), (37, 128, 4)])
def test_the_code_is_evaluation_of_the_interpolating_polynomial(count: int, size: int, blowup: int) -> None:
    message = rows(count, size)
    root = field.root_of_unity(blowup * size)
    points = [3 * pow(root, c, P) * pow(root, blowup * j, P) % P for c in range(blowup) for j in range(size)]
    powers = field.powers(np.array(points, dtype=np.uint64), size)
    slow = field.matmul(powers, field.interpolate(message.T.astype(np.uint64)))
    assert np.array_equal(kernels.encode(message, blowup), slow)


def test_the_code_twice_as_long_is_every_fourth_coset_of_the_code_eight_times_as_long() -> None:
    message = rows(3, 32)
    long, short = kernels.encode(message, 8), kernels.encode(message, 2)
    assert np.array_equal(short, np.concatenate([long[:32], long[4 * 32 : 5 * 32]]))


@pytest.mark.parametrize("count", [0, 1, 300])
def test_combinations_of_rows(count: int) -> None:
    message, weights = rows(count, 1500), rows(count, 4).astype(np.uint64)
    assert np.array_equal(kernels.combine(message, weights), field.matmul(message.T.astype(np.uint64), weights))


def test_sums_of_squares_and_of_products() -> None:
    left, right, weights = rows(50, 41), rows(50, 41), rows(41, 4).astype(np.uint64)
    wide = left.astype(np.uint64), right.astype(np.uint64)
    assert np.array_equal(kernels.square_sums(left), Plain().square_sums(wide[0]))
    assert np.array_equal(kernels.square_sums(left[:, 3:20]), Plain().square_sums(wide[0][:, 3:20]))
    assert np.array_equal(kernels.sum_products(left, right, weights), Plain().sum_products(*wide, weights))
