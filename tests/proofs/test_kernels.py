"""Each compiled kernel beside its plain twin in numpy, and its twin in torch, on the same numbers.

On a machine with a GPU the torch twin runs there, and so does the whole prover.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from proofs import columns, field, kernels, torch_kernels
from proofs.commitment import tree_over
from proofs.field import P
from proofs.relation import Plain

RNG = np.random.default_rng(6)


def rows(count: int, size: int) -> kernels.Rows:
    values = RNG.integers(0, P, (count, size)).astype(np.uint32)
    values[:, :1] = P - 1
    return values


@pytest.fixture(params=["compiled", "torch"])
def twin(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(kernels, "_on_gpu", lambda: False)
    return {"compiled": kernels, "torch": torch_kernels}[request.param]


@pytest.mark.parametrize(("count", "size", "blowup"), [(0, 8, 8), (1, 2, 2), (16, 64, 8), (37, 128, 4)])
def test_the_code_is_evaluation_of_the_interpolating_polynomial(twin: Any, count: int, size: int, blowup: int) -> None:
    message = rows(count, size)
    root = field.root_of_unity(blowup * size)
    points = [3 * pow(root, c, P) * pow(root, blowup * j, P) % P for c in range(blowup) for j in range(size)]
    powers = field.powers(np.array(points, dtype=np.uint64), size)
    slow = field.matmul(powers, field.interpolate(message.T.astype(np.uint64)))
    assert np.array_equal(twin.encode(message, blowup), slow)


def test_the_code_twice_as_long_is_every_fourth_coset_of_the_code_eight_times_as_long() -> None:
    message = rows(3, 32)
    long, short = kernels.encode(message, 8), kernels.encode(message, 2)
    assert np.array_equal(short, np.concatenate([long[:32], long[4 * 32 : 5 * 32]]))


@pytest.mark.parametrize("count", [0, 3, 16, 37])
@pytest.mark.parametrize("gpu", [False, True])
def test_lines_of_the_code_come_without_the_whole_of_it(count: int, gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_on_gpu", lambda: gpu)
    monkeypatch.setattr(kernels, "_gpu", lambda: torch_kernels)
    message, lines = rows(count, 32), np.array([0, 5, 31, 32, 100, 255])
    assert np.array_equal(kernels.encoded_at(message, 8, lines), kernels.encode(message, 8)[lines])


@pytest.mark.parametrize("gpu", [False, True])
def test_a_tree_over_a_code_that_goes_by_is_the_tree_over_the_code(gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is left over of the last sixteen rows: the end of a message lies elsewhere then."""
    monkeypatch.setattr(kernels, "_on_gpu", lambda: gpu)
    monkeypatch.setattr(kernels, "_gpu", lambda: torch_kernels)
    for count in (*range(19), 40, 100):
        message, salts = rows(count, 16), RNG.bytes(128 * 16)
        code = kernels.encode(message, 8)
        leaves = [columns.leaf(salts[16 * at : 16 * (at + 1)], line.tobytes()) for at, line in enumerate(code)]
        found = [[bytes(node) for node in level] for level in tree_over(message, salts)]
        assert found == columns.levels(leaves)


@pytest.mark.parametrize("count", [0, 1, 300])
def test_combinations_of_rows(twin: Any, count: int) -> None:
    message, weights = rows(count, 1500), rows(count, 4).astype(np.uint64)
    assert np.array_equal(twin.combine(message, weights), field.matmul(message.T.astype(np.uint64), weights))


def test_sums_of_squares_and_of_products(twin: Any) -> None:
    left, right, weights = rows(50, 41), rows(50, 41), rows(41, 4).astype(np.uint64)
    wide = left.astype(np.uint64), right.astype(np.uint64)
    assert np.array_equal(twin.square_sums(left), Plain().square_sums(wide[0]))
    assert np.array_equal(twin.square_sums(left[:, 3:20]), Plain().square_sums(wide[0][:, 3:20]))
    assert np.array_equal(twin.sum_products(left, right, weights), Plain().sum_products(*wide, weights))


def test_products_with_the_extension(twin: Any) -> None:
    weights, values = rows(20, 4 * 13), rows(20, 13)
    slow = (weights.reshape(20, 13, 4).astype(np.uint64) * values[:, :, None] % P).sum(axis=1) % P
    assert np.array_equal(twin.row_products(weights, values), slow)


def test_a_proof_made_with_torch_is_the_same_to_the_byte(
    small_case: Any, small_proof: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_on_gpu", lambda: True)
    monkeypatch.setattr(kernels, "_gpu", lambda: torch_kernels)
    assert small_case.prove() == small_proof


def test_strips_of_weights() -> None:
    """Two strips of three lanes a row, the last row half full, added to what is there."""
    factors, vector, there = rows(5, 4).astype(np.uint64), rows(3, 4).astype(np.uint64), RNG.integers(0, P, (3, 4, 8))
    into = there.astype(np.uint32)
    kernels.add_strips(factors, vector, 2, into)
    for strip, factor in enumerate(factors):
        at = there[strip // 2, :, strip % 2 * 3 :][:, :3]
        at[:] = (at + field.ext_mul(factor, vector).T.astype(np.int64)) % P
    assert np.array_equal(into, there)
