"""The field of the proofs, in numpy: plain, and all that a verifier needs. The prover's fast twin is `proofs.kernels`.

F is the prime field of p = 2^31 − 2^24 + 1 (KoalaBear), whose multiplicative group has a subgroup of order 2^24; K is
its extension of degree 4, F[X]/(X⁴ − 3). An element of F is an integer in [0, p), held in uint64 while computing; an
element of K is the last axis of an array, (..., 4), lowest coefficient first. Every challenge is drawn from K.

H is the subgroup of order k; a row of a proof is a polynomial of degree below k given by its k values on H, in the
order 1, ω, ω², … with ω = root_of_unity(k).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

P = 2**31 - 2**24 + 1
GENERATOR = (
    3  # of the multiplicative group; no power of it of odd order lies in a subgroup of order 2^a, so 3·H ∩ H = ∅
)
TWO_ADICITY = 24
DEGREE = 4
NON_RESIDUE = 3  # X⁴ = 3

LONGEST_SUM = 1 << 18  # products of 17 bits each that add up in float64
POINTS = 16  # at which polynomials are evaluated together: what is computed on the way stays in the cache

Field = NDArray[np.uint64]
_P = np.uint64(P)


def element(values: NDArray[np.signedinteger] | NDArray[np.unsignedinteger]) -> Field:
    """Integers of any sign -> their residues in [0, p)."""
    return np.asarray(np.mod(values.astype(np.int64), P), dtype=np.uint64)


def root_of_unity(order: int) -> int:
    """A generator of the subgroup of that order, a power of two up to 2^24."""
    return pow(GENERATOR, (P - 1) // order, P)


def reduced(values: Field) -> Field:
    """Modulo p; numpy is faster at dividing by a constant than at taking a remainder."""
    return np.asarray(values - values // _P * _P, dtype=np.uint64)


def mul(a: Field, b: Field | np.uint64) -> Field:
    return reduced(np.asarray(a * b, dtype=np.uint64))


def powers(base: Field, count: int) -> Field:
    """(n,) -> (n, count): base⁰ … base^(count−1), by doubling."""
    found = np.ones((len(base), 1), dtype=np.uint64)
    step = base[:, None]
    while found.shape[1] < count:
        found = np.concatenate([found, mul(found, step)], axis=1)
        step = mul(step, step)
    return found[:, :count]


def inverse(a: Field) -> Field:
    """a^(p−2), element by element; 0 stays 0. Many at once by way of the inverses of products (Montgomery 1987)."""
    flat = a.reshape(-1)
    if len(flat) > 256:
        safe = np.where(flat == 0, np.uint64(1), flat)
        half = (len(flat) + 1) // 2
        right = np.ones(half, dtype=np.uint64)
        right[: len(flat) - half] = safe[half:]
        both = inverse(mul(safe[:half], right))
        found = np.concatenate([mul(both, right), mul(both, safe[:half])])[: len(flat)]
        return np.where(flat == 0, np.uint64(0), found).reshape(a.shape)
    found, square = np.ones_like(a), a
    for bit in range((P - 2).bit_length()):
        if (P - 2) >> bit & 1:
            found = mul(found, square)
        square = mul(square, square)
    return found


def ext(values: Field) -> Field:
    """F -> K: (...) -> (..., 4)."""
    found = np.zeros((*values.shape, DEGREE), dtype=np.uint64)
    found[..., 0] = values
    return found


def ext_mul(a: Field, b: Field) -> Field:
    """Product in K, (..., 4) by (..., 4), broadcasting. Four products of elements of F add up below 2^64."""
    left, right = reduced(a), reduced(b)
    turned = mul(right, np.uint64(NON_RESIDUE))
    found = np.zeros(np.broadcast_shapes(a.shape, b.shape), dtype=np.uint64)
    for e in range(DEGREE):
        for i in range(DEGREE):
            found[..., e] += left[..., i] * (right[..., e - i] if i <= e else turned[..., DEGREE + e - i])
    return reduced(found)


def ext_turned(a: Field, by: int) -> Field:
    """a·X^by, 0 ≤ by < 4: the coefficients move up, and those beyond X³ come back as 3."""
    if by == 0:
        return a
    return np.concatenate([a[..., -by:] * np.uint64(NON_RESIDUE) % _P, a[..., :-by]], axis=-1)


def ext_inverse(a: Field) -> Field:
    """1/a in K; 0 stays 0. With s = X², a = e + X·o: 1/a = (e − X·o)/(e² − s·o²), and so again for s² = 3."""
    e0, o0, e1, o1 = (a[..., i] for i in range(DEGREE))
    norm0 = (mul(e0, e0) + 3 * mul(e1, e1) + 6 * (_P - mul(o0, o1))) % _P
    norm1 = (2 * mul(e0, e1) + (_P - mul(o0, o0)) + 3 * (_P - mul(o1, o1))) % _P
    whole = inverse((mul(norm0, norm0) + 3 * (_P - mul(norm1, norm1))) % _P)
    i0, i1 = mul(norm0, whole), mul((_P - norm1) % _P, whole)
    conjugate = np.stack([e0, (_P - o0) % _P, e1, (_P - o1) % _P], axis=-1)
    return ext_mul(conjugate, np.stack([i0, np.zeros_like(i0), i1, np.zeros_like(i1)], axis=-1))


def ext_powers(base: Field, count: int) -> Field:
    """(4,) -> (count, 4)."""
    found = [ext(np.ones((), dtype=np.uint64))]
    while len(found) < count:
        found.append(ext_mul(found[-1], base))
    return np.stack(found[:count]) if count else np.zeros((0, DEGREE), dtype=np.uint64)


def _halves(a: Field) -> tuple[NDArray[np.float64], ...]:
    """The low and the high 16 bits of each element, and their sums."""
    low, high = (a & np.uint64(0xFFFF)).astype(np.float64), (a >> np.uint64(16)).astype(np.float64)
    return low, high, low + high


def matmul(a: Field, b: Field) -> Field:
    """(m, n) by (n, c) over F, exact: three products of 16-bit halves in float64 (Karatsuba), none above 2^53."""
    if len(b) > LONGEST_SUM:
        first, rest = matmul(a[:, :LONGEST_SUM], b[:LONGEST_SUM]), matmul(a[:, LONGEST_SUM:], b[LONGEST_SUM:])
        return reduced(first + rest)
    low, high, middle = (left @ right for left, right in zip(_halves(a), _halves(b), strict=True))
    middle = middle - low - high
    found = low.astype(np.uint64)  # below 2^51, as the others
    found += mul(reduced(middle.astype(np.uint64)), np.uint64(1 << 16))
    found += mul(reduced(high.astype(np.uint64)), np.uint64((1 << 32) % P))
    return reduced(found)


def ext_matmul(a: Field, b: Field) -> Field:
    """(m, n) over F by (n, 4) over K -> (m, 4)."""
    return matmul(a, b)


def power(points: Field, exponent: int) -> Field:
    """x^exponent, point by point."""
    found, square = np.ones_like(points), points
    while exponent:
        found = mul(found, square) if exponent & 1 else found
        exponent, square = exponent >> 1, mul(square, square)
    return found


def evaluated(coefficients: Field, points: Field) -> Field:
    """Polynomials (k, c), k a power of two, at points (t,) -> (t, c): in √k parts of about √k coefficients each."""
    count, columns = coefficients.shape
    width = 1 << (count.bit_length() // 2)
    parts = coefficients.reshape(-1, width, columns).swapaxes(0, 1).reshape(width, -1)
    inner = matmul(powers(points, width), parts).reshape(len(points), -1, columns)
    outer = powers(power(points, width), inner.shape[1])
    return reduced(mul(inner, outer[:, :, None]).sum(axis=1))


def lagrange(points: Field, size: int) -> Field:
    """(t,) -> (t, k): Σ_i values_i·found_i is at each point the polynomial that has these values on H, for k = `size`.

    ω^i·(x^k − 1)/(k·(x − ω^i)), for no point of H. From x^k − 1 = Π (x − ω^i) half of the factors go at a time:
    (x^2m − ω^2mi) = (x^m − ω^mi)·(x^m + ω^mi), so that nothing is ever divided by.
    """
    root = root_of_unity(size)
    found = np.empty((len(points), size), dtype=np.uint64)
    for first in range(0, len(points), POINTS):
        part = points[first : first + POINTS]
        here, step = np.full((len(part), 1), pow(size, P - 2, P), dtype=np.uint64), size
        while step > 1:
            step //= 2
            roots = powers(np.array([pow(root, step, P)], dtype=np.uint64), here.shape[1])
            at = power(part, step)[:, None]
            here = np.concatenate([mul(here, at + roots), mul(here, at + _P - roots)], axis=1)
        found[first : first + POINTS] = mul(here, powers(np.array([root], dtype=np.uint64), size))
    return found


def interpolate(values: Field) -> Field:
    """Values on H, (k, c), -> coefficients (k, c) of the polynomials of degree below k."""
    return mul(_transform(values, inverse_root=True), np.uint64(pow(len(values), P - 2, P)))


def values_on_h(coefficients: Field) -> Field:
    """The inverse of `interpolate`."""
    return _transform(coefficients, inverse_root=False)


@lru_cache(maxsize=32)
def _stages(size: int, inverse_root: bool) -> list[Field]:
    root = root_of_unity(size)
    root = pow(root, P - 2, P) if inverse_root else root
    stages, half = [], size // 2
    while half:
        stages.append(powers(np.array([pow(root, size // (2 * half), P)], dtype=np.uint64), half)[0])
        half //= 2
    return stages


def _transform(values: Field, inverse_root: bool) -> Field:
    """The number-theoretic transform of each column, by decimation in frequency; then the order is put right."""
    size, columns = values.shape
    data = values.copy()
    for twiddles in _stages(size, inverse_root):
        half = len(twiddles)
        blocks = data.reshape(size // (2 * half), 2, half, columns)
        low, high = blocks[:, 0], blocks[:, 1]
        total, difference = (low + high) % _P, mul(low + _P - high, twiddles[None, :, None])
        data = np.stack([total, difference], axis=1).reshape(size, columns)
    return np.ascontiguousarray(data[_bit_reversed(size)])


@lru_cache(maxsize=32)
def _bit_reversed(size: int) -> NDArray[np.int64]:
    order = np.zeros(1, dtype=np.int64)
    while len(order) < size:
        order = np.concatenate([2 * order, 2 * order + 1])
    return order
