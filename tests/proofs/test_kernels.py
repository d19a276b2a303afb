"""Each compiled kernel beside its plain twin in numpy, and its twin in torch, on the same numbers.

On a machine with a GPU the torch twin runs there, and so does the whole prover.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from proofs import columns, field, kernels, relation, torch_kernels
from proofs.answering import Coded
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


@pytest.mark.parametrize("count", [0, 3, 16, 37])
def test_the_code_lies_in_blocks_of_sixteen_rows(count: int) -> None:
    message = rows(count, 32)
    blocks = kernels.in_blocks(message, 2)
    side_by_side = blocks.swapaxes(0, 1).reshape(64, -1)
    assert np.array_equal(side_by_side[:, :count], kernels.encode(message, 2))
    coded = Coded(message)
    for first, end in ((0, count), (1, count), (2, 3), (15, 18), (16, 32), (0, 0), (16, 16), (count, count)):
        if count and first <= end <= count:
            assert np.array_equal(
                coded.values(slice(first, end), slice(3, 50)), kernels.encode(message, 2)[3:50, first:end]
            )


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


def edges(shape: tuple[int, ...], kind: str) -> np.ndarray:
    """Elements of F: at random, or 0 and p − 1 (and 1) alone."""
    if kind == "random":
        return RNG.integers(0, P, shape).astype(np.uint64)
    return RNG.choice(np.array([0, P - 1] if kind == "edges" else [0, 1, P - 1], dtype=np.uint64), shape)


def by_the_formula(values: np.ndarray, inverses: np.ndarray, factors: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Σ factor·(inverse·(α − v₁)(α − v₂)(α − v₃) − (α − v₂)(α − v₃) − (α − v₁)(α − v₃) − (α − v₁)(α − v₂))."""
    total = np.zeros((len(values), 4), dtype=np.uint64)
    for row, factor in enumerate(factors):
        one, two, three = ((alpha + np.uint64(P) - field.ext(values[:, 3 * row + i])) % np.uint64(P) for i in range(3))
        pairs = [field.ext_mul(two, three), field.ext_mul(one, three), field.ext_mul(one, two)]
        whole = field.ext_mul(inverses[:, :, row].T, field.ext_mul(one, pairs[0]))
        total += field.ext_mul(factor, (whole + np.uint64(3 * P) - sum(pairs)) % np.uint64(P))
    return total % np.uint64(P)


@pytest.mark.parametrize("count", [0, 1, 9])
@pytest.mark.parametrize("kind", ["random", "edges", "small edges"])
def test_identities_of_values_that_share_inverses(twin: Any, count: int, kind: str) -> None:
    """The kernels, their twin in numpy, and the formula of the specification, at the ends of the field too."""
    for alpha in (edges((4,), "random"), edges((4,), kind), np.full(4, P - 1, dtype=np.uint64)):
        values, inverses, factors = edges((50, 3 * count), kind), edges((4, 50, count), kind), edges((count, 4), kind)
        wanted = by_the_formula(values, inverses, factors, alpha)
        assert np.array_equal(relation.together(values, inverses, factors, alpha), wanted)
        lines = np.concatenate([*(values[:, place::3] for place in range(3)), *inverses], axis=1).astype(np.uint32)
        assert np.array_equal(twin.together(lines, factors, alpha), wanted)


def test_a_thousand_rows_of_the_largest_elements_do_not_overflow(twin: Any) -> None:
    largest = np.full((2, 3 * 1000), P - 1, dtype=np.uint64), np.full((4, 2, 1000), P - 1, dtype=np.uint64)
    factors, alpha = np.full((1000, 4), P - 1, dtype=np.uint64), np.full(4, P - 1, dtype=np.uint64)
    wanted = by_the_formula(largest[0][:, :3], largest[1][..., :1], factors[:1], alpha)
    wanted = wanted * np.uint64(1000) % np.uint64(P)
    lines = np.full((2, 7 * 1000), P - 1, dtype=np.uint32)
    assert np.array_equal(twin.together(lines, factors, alpha), wanted)
    assert np.array_equal(relation.together(*largest, factors, alpha), wanted)


def test_identities_vanish_where_the_row_is_the_sum_of_the_inverses_and_nowhere_else() -> None:
    alpha, factors = edges((4,), "random"), edges((5, 4), "random")
    values = edges((20, 15), "random")
    each = field.ext_inverse((alpha + np.uint64(P) - field.ext(values)) % np.uint64(P)).reshape(20, 5, 3, 4)
    inverses = (each.sum(axis=2) % np.uint64(P)).transpose(2, 0, 1).copy()
    assert not relation.together(values, inverses, factors, alpha).any()
    inverses[3, 7, 2] ^= np.uint64(1)
    assert np.flatnonzero(relation.together(values, inverses, factors, alpha).any(axis=1)).tolist() == [7]
