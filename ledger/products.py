"""Sums of products of LoRA pairs: side by side, or cut to a rank by a singular value decomposition in integers.

Members' halves are Aᵢ (rᵢ, in) and Bᵢ (out, rᵢ), their weights wᵢ, W = Σ wᵢ. The mean of the products is

    M = Σ wᵢ Bᵢ Aᵢ / W = [w₁B₁ … wₙBₙ] · [A₁; …; Aₙ] / W

`stack` keeps both factors. `cut` finds the nearest matrix of rank r (Eckart and Young), U·S as B and Vᵀ as A, as
FlexLoRA does. Of the long factors only the Gram matrices (k × k, k = Σ rᵢ) are decomposed, with F = 192 bits after the
point:

    Gₐ = A Aᵀ = L Lᵀ (Cholesky)      C = Lᵀ (Bᵀ B) L = Q Λ Qᵀ (Jacobi)      X = L Q
    U·S = B X                        Vᵀ = Λ⁻¹ Xᵀ (Bᵀ B) A

Integers only: +, −, ×, shifts, floored division and floored square root of Python's integers, in one order. So every
machine gets the same bits, whatever its floating point and its libraries do. The result is rounded to the grid, half
to even; tests/ledger/test_products.py finds it half a unit from numpy's decomposition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ledger.robust import Units, round_half_even

F: Final = 192
ONE: Final = 1 << F
NO_PIVOT: Final = 1 << 64  # 2^-128 square units: what rounding leaves where a row depends on those before it
SMALL: Final = 1 << 128  # 2^-64 units^4: off-diagonals below are not rotated away
MAX_SWEEPS: Final = 64
GRAM_CHUNK: Final = 1 << 14  # products below 2^48, so that as many of them stay below 2^63
LARGEST: Final = 1 << 24

Integers = NDArray[Any]  # of Python integers


@dataclass(frozen=True)
class Pair:
    """One member's halves in grid units, a (r, in) and b (out, r), and its weight."""

    a: Units
    b: Units
    weight: int


def stack(pairs: Sequence[Pair]) -> tuple[Units, Units]:
    """A (k, in), B (out, k) with B·A = Σ wᵢBᵢAᵢ/W, but that each weight of B is rounded to the grid, half to even."""
    total = sum(pair.weight for pair in pairs)
    return (
        np.concatenate([pair.a for pair in pairs]),
        np.concatenate([round_half_even(pair.weight * pair.b, total) for pair in pairs], axis=1),
    )


def cut(pairs: Sequence[Pair], bits: int, spare: Units) -> tuple[Units, Units]:
    """A (r, in), B (out, r): the mean product's best approximation of rank r, r = len(spare), the largest first.

    bits: weights are multiples of 2^-bits. A component that vanishes on the grid has a B of zero, and the A of `spare`
    (r, in), so that it can be trained again. Signs: the entry of A that is largest, the first of such, is positive.
    """
    total, rank = sum(pair.weight for pair in pairs), len(spare)
    a = np.concatenate([pair.a for pair in pairs])
    b = np.concatenate([pair.b for pair in pairs], axis=1)
    weights = np.repeat(np.array([pair.weight for pair in pairs], dtype=object), [len(pair.a) for pair in pairs])
    low = _cholesky(_gram(a))
    high = _gram(b.T) * np.outer(weights, weights)
    values, vectors = _eigen(_dot(low.T @ high, low))
    top = sorted(range(len(values)), key=lambda j: (-values[j], j))[:rank]
    x = _dot(low, vectors[:, top])
    half_a, half_b = spare.copy(), np.zeros((len(b), rank), dtype=np.int64)
    for place, j in enumerate(top):
        column = round_half_even(b.astype(object) @ (weights * x[:, place]), total << (F + bits))
        if values[j] > 0 and column.any():
            row = ((x[:, place] @ high << F) // values[j]) @ a.astype(object)
            sign = 1 if row[np.argmax(np.abs(row))] > 0 else -1
            half_a[place] = round_half_even(sign * row, 1 << (F - bits))
            half_b[:, place] = np.clip(sign * column, -LARGEST, LARGEST)
    return half_a, half_b


def _gram(rows: Units) -> Integers:
    """rows · rowsᵀ (k, k), exactly."""
    parts = np.split(rows, range(GRAM_CHUNK, rows.shape[1], GRAM_CHUNK), axis=1)
    return sum((np.asarray(part @ part.T).astype(object) for part in parts), np.zeros((len(rows),) * 2, dtype=object))


def _cholesky(gram: Integers) -> Integers:
    """L with L·Lᵀ = gram. A row that depends on those before it gets a column of zeros."""
    left, low = gram << F, np.zeros_like(gram)
    for j in range(len(gram)):
        if left[j, j] <= NO_PIVOT:
            continue
        root = isqrt(left[j, j] << F)
        low[j:, j] = (left[j:, j] << F) // root
        left[j:, j:] -= np.outer(low[j:, j], low[j:, j]) >> F
    return low


def _eigen(matrix: Integers) -> tuple[Integers, Integers]:
    """Eigenvalues and, in columns, eigenvectors of a symmetric matrix, by cyclic Jacobi rotations (Golub and Van Loan,
    Matrix Computations, 8.5)."""
    m, q = matrix.copy(), np.zeros_like(matrix)
    np.fill_diagonal(q, ONE)
    for _ in range(MAX_SWEEPS):
        turned = False
        for i in range(len(m)):
            for j in range(i + 1, len(m)):
                if abs(m[i, j]) > SMALL:
                    _rotate(m, q, i, j)
                    turned = True
        if not turned:
            break
    return m.diagonal(), q


def _rotate(m: Integers, q: Integers, i: int, j: int) -> None:
    """Make m[i, j] vanish, in place."""
    apart, twice = m[j, j] - m[i, i], 2 * m[i, j]
    tangent = (abs(twice) << F) // (abs(apart) + isqrt(apart * apart + twice * twice))
    tangent = tangent if (apart >= 0) == (twice > 0) else -tangent
    cosine = (ONE << F) // isqrt((ONE << F) + tangent * tangent)
    sine = tangent * cosine >> F
    one, other, block = m[i].copy(), m[j].copy(), tangent * m[i, j] >> F
    first, last = m[i, i] - block, m[j, j] + block
    m[i], m[j] = (cosine * one - sine * other) >> F, (sine * one + cosine * other) >> F
    m[i, i], m[j, j], m[i, j], m[j, i] = first, last, 0, 0
    m[:, i], m[:, j] = m[i], m[j]
    one, other = q[:, i].copy(), q[:, j].copy()
    q[:, i], q[:, j] = (cosine * one - sine * other) >> F, (sine * one + cosine * other) >> F


def _dot(left: Integers, right: Integers) -> Integers:
    return (left @ right) >> F
