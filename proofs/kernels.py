"""The prover's hot loops, compiled by numba; each has a plain twin in numpy that the tests run beside it.

Elements of F are uint32 in [0, p). Products are Montgomery's (1985), R = 2^32: `_times(a, bR)` is a·b mod p, so that
only constants are ever kept in Montgomery form and data never is. Elements of K are four columns.

Where torch is loaded and finds CUDA, `proofs.triton_kernels` does the same work there, or `proofs.torch_kernels` where
Triton is not installed. Compiled code is cached on disk beside this file (or under NUMBA_CACHE_DIR);
`python -m proofs.kernels` compiles it all.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from numba import njit, uint32, uint64
from numpy.typing import NDArray

from proofs.field import DEGREE, GENERATOR, NON_RESIDUE, P, ext_powers, powers, root_of_unity

LANES = 16  # rows that are transformed side by side, so that every inner loop is as long
Rows = NDArray[np.uint32]
Butterflies = tuple[NDArray[np.int64], NDArray[np.int64]]

_P32 = np.uint32(P)
_P64 = np.uint64(P)
_MINUS_INVERSE = np.uint32((-pow(P, -1, 1 << 32)) % (1 << 32))
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def _on_gpu() -> bool:
    """torch is not loaded for this: whoever trains has it, whoever does not has no GPU to prove on."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_available())


def _gpu() -> Any:
    """The twin that runs there."""
    if find_spec("triton") is not None:
        from proofs import triton_kernels

        return triton_kernels
    from proofs import torch_kernels

    return torch_kernels


def montgomery(values: NDArray[np.uint64]) -> Rows:
    """a -> a·2^32 mod p."""
    return np.asarray((values << _SHIFT) % _P64, dtype=np.uint32)


@njit(uint32(uint32, uint32), inline="always", cache=True, nogil=True)
def _times(a: Any, b: Any) -> Any:
    product = uint64(a) * uint64(b)
    quotient = uint32(uint32(product) * _MINUS_INVERSE)
    high = uint32((product + uint64(quotient) * _P64) >> _SHIFT)
    return min(high, uint32(high - _P32))  # wraps around when it is below p already


@njit(uint32(uint32, uint32), inline="always", cache=True, nogil=True)
def _plus(a: Any, b: Any) -> Any:
    total = uint32(a + b)  # below 2^32: 2p < 2^32
    return min(total, uint32(total - _P32))


@njit(uint32(uint32, uint32), inline="always", cache=True, nogil=True)
def _minus(a: Any, b: Any) -> Any:
    difference = uint32(a - b)
    return min(difference, uint32(difference + _P32))


@njit(uint32(uint32, uint32, uint32), inline="always", cache=True, nogil=True)
def _by(a: Any, b: Any, quotient: Any) -> Any:
    """`_times(a, b)`, where quotient is b/p modulo 2^32: only the high halves of two products are needed then."""
    high = uint32((uint64(a) * uint64(b)) >> _SHIFT)
    return _minus(high, uint32((uint64(uint32(a * quotient)) * _P64) >> _SHIFT))


@njit("void(uint32[:,::1], uint32[:,:,::1])", cache=True, nogil=True)
def _down(data: Rows, twiddles: NDArray[np.uint32]) -> None:
    """Transform in place along axis 0, natural order in, bit-reversed out (decimation in frequency). twiddles: with
    their quotients."""
    half, stage = data.shape[0] // 2, 0
    while half >= 1:
        for block in range(0, data.shape[0], 2 * half):
            for j in range(half):
                twiddle, quotient = twiddles[0, stage, j], twiddles[1, stage, j]
                for lane in range(LANES):
                    low, high = data[block + j, lane], data[block + j + half, lane]
                    data[block + j, lane] = _plus(low, high)
                    data[block + j + half, lane] = _by(_minus(low, high), twiddle, quotient)
        half, stage = half // 2, stage + 1


@njit("void(uint32[:,::1], uint32[:,:,::1], int64[::1], int64[::1])", cache=True, nogil=True)
def _up(data: Rows, twiddles: NDArray[np.uint32], wanted: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
    """Transform in place along axis 0 from the second stage on, bit-reversed in, natural order out (decimation in
    time). wanted: the butterflies of each stage, stage after stage, that lead to what is asked for; ends: of theirs."""
    half, at = 2, 1
    while half < data.shape[0]:
        stage = twiddles.shape[1] - 1 - at
        for block in range(0, data.shape[0], 2 * half):
            for j in wanted[ends[at - 1] : ends[at]]:
                twiddle, quotient = twiddles[0, stage, j], twiddles[1, stage, j]
                for lane in range(LANES):
                    low, high = data[block + j, lane], _by(data[block + j + half, lane], twiddle, quotient)
                    data[block + j, lane] = _plus(low, high)
                    data[block + j + half, lane] = _minus(low, high)
        half, at = half * 2, at + 1


@njit("void(uint32[:,:], uint32[:,:,::1], uint32[:,::1])", cache=True, nogil=True)
def _coefficients(rows: Rows, inverse_twiddles: NDArray[np.uint32], into: Rows) -> None:
    """Up to LANES rows side by side, in bit-reversed order and not yet divided by k."""
    for lane in range(rows.shape[0]):
        for i in range(rows.shape[1]):
            into[i, lane] = rows[lane, i]
    _down(into, inverse_twiddles)


@njit(
    "void(uint32[:,::1], uint32[:,::1], uint32[:,:,::1], UniTuple(int64[::1], 2), uint32[:,::1])",
    cache=True,
    nogil=True,
)
def _coset(coefficients: Rows, shift: Rows, twiddles: Rows, butterflies: Butterflies, into: Rows) -> None:
    """Scaled, and through the first stage, whose twiddles are 1."""
    for i in range(0, coefficients.shape[0], 2):
        for lane in range(LANES):
            low = _by(coefficients[i, lane], shift[0, i], shift[1, i])
            high = _by(coefficients[i + 1, lane], shift[0, i + 1], shift[1, i + 1])
            into[i, lane], into[i + 1, lane] = _plus(low, high), _minus(low, high)
    _up(into, twiddles, *butterflies)


def coded(rows: Rows, blowup: int) -> Iterator[tuple[int, int, Rows]]:
    """(first row, first line, block (k, LANES)) of `encode`, coset by coset of LANES rows at a time, so that nobody
    needs to hold all of a code. A block is valid until the next; beyond the last row it holds anything."""
    size = rows.shape[1]
    if _on_gpu():
        yield from _coded_on_gpu(rows, blowup)
        return
    twiddles, inverse_twiddles, shifts = _tables(size, blowup)
    whole = _butterflies(size)
    values, block = np.zeros((2, size, LANES), dtype=np.uint32)
    for start in range(0, len(rows), LANES):
        _coefficients(rows[start : start + LANES], inverse_twiddles, values)
        for coset in range(blowup):
            _coset(values, shifts[coset], twiddles, whole, block)
            yield start, coset * size, block


def _coded_on_gpu(rows: Rows, blowup: int) -> Iterator[tuple[int, int, Rows]]:
    gpu, size = _gpu(), rows.shape[1]
    for first in range(0, len(rows), gpu.BATCH):
        code = gpu.encode(rows[first : first + gpu.BATCH], blowup)
        for start in range(0, code.shape[1], LANES):
            part = np.zeros((len(code), LANES), dtype=np.uint32)
            part[:, : min(LANES, code.shape[1] - start)] = code[:, start : start + LANES]
            for coset in range(blowup):
                yield first + start, coset * size, part[coset * size : (coset + 1) * size]


def encode(rows: Rows, blowup: int) -> Rows:
    """Reed–Solomon: (m, k) values on H -> (blowup·k, m) values on 3·⟨ω_n⟩, one line a column of the code.

    Line c·k + j is the point 3·ω_n^c·ω_k^j, n = blowup·k: coset after coset.
    """
    if _on_gpu():
        return np.asarray(_gpu().encode(rows, blowup))
    blocks = in_blocks(rows, blowup)
    return np.ascontiguousarray(blocks.swapaxes(0, 1).reshape(blocks.shape[1], -1)[:, : len(rows)])


def in_blocks(rows: Rows, blowup: int) -> NDArray[np.uint32]:
    """`encode` as it is made, LANES rows at a time: (⌈m/LANES⌉, blowup·k, LANES); what is no row is anything."""
    found = np.empty((-(-len(rows) // LANES), blowup * rows.shape[1], LANES), dtype=np.uint32)
    for start, line, block in coded(rows, blowup):
        found[start // LANES, line : line + len(block)] = block
    return found


def encoded_at(rows: Rows, blowup: int, lines: NDArray[np.int64]) -> Rows:
    """Some lines of `encode`, (t, m): of the later stages of a transform, only what leads to them."""
    found, size = np.zeros((len(lines), len(rows)), dtype=np.uint32), rows.shape[1]
    cosets = [(coset, np.flatnonzero(lines // size == coset)) for coset in range(blowup)]
    wanted = [(coset, mine, _butterflies_to(size, lines[mine] % size)) for coset, mine in cosets if len(mine)]
    twiddles, inverse_twiddles, shifts = _tables(size, blowup)
    values, block = np.zeros((2, size, LANES), dtype=np.uint32)
    for start in range(0, len(rows), LANES):
        _coefficients(rows[start : start + LANES], inverse_twiddles, values)
        for coset, mine, butterflies in wanted:
            _coset(values, shifts[coset], twiddles, butterflies, block)
            found[mine, start : start + LANES] = block[lines[mine] % size, : found.shape[1] - start]
    return found


@lru_cache(maxsize=8)
def _butterflies(size: int) -> Butterflies:
    return _butterflies_to(size, np.arange(size))


def _butterflies_to(size: int, lines: NDArray[np.int64]) -> Butterflies:
    """What `_up` has to do for these lines of its output: the numbers of its butterflies in a block, and their ends."""
    stages = [np.unique(lines % (1 << stage)) for stage in range(1, size.bit_length() - 1)]
    ends = np.cumsum([0, *map(len, stages)])
    return np.concatenate([np.zeros(0, dtype=np.int64), *stages]).astype(np.int64), ends.astype(np.int64)


@lru_cache(maxsize=8)
def _tables(size: int, blowup: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32]]:
    """Twiddles (2, stages, k/2) both ways, and for each coset the factors s^i/k in bit-reversed order of i, (cosets, 2,
    k); in Montgomery form, beside their quotients by p modulo 2^32."""
    stages = size.bit_length() - 1
    order = np.zeros(1, dtype=np.int64)
    while len(order) < size:
        order = np.concatenate([2 * order, 2 * order + 1])
    forward, backward = np.zeros((2, max(stages, 1), max(size // 2, 1)), dtype=np.uint32)
    for stage in range(stages):
        half = size >> (stage + 1)
        root = root_of_unity(2 * half)
        for table, base in ((forward, root), (backward, pow(root, P - 2, P))):
            table[stage, :half] = montgomery(powers(np.array([base], dtype=np.uint64), half)[0])
    root = root_of_unity(blowup * size)
    starts = np.array([GENERATOR * pow(root, c, P) % P for c in range(blowup)], dtype=np.uint64)
    shifts = powers(starts, size) * np.uint64(pow(size, P - 2, P)) % _P64
    return (
        _with_quotients(forward),
        _with_quotients(backward),
        np.ascontiguousarray(_with_quotients(montgomery(shifts[:, order])).swapaxes(0, 1)),
    )


def _with_quotients(values: Rows) -> NDArray[np.uint32]:
    inverse_of_p = np.uint64(pow(P, -1, 1 << 32))
    return np.stack([values, (values.astype(np.uint64) * inverse_of_p).astype(np.uint32)])


@njit("void(uint32[:,::1], uint32[:,::1], uint64[:,::1])", cache=True, nogil=True)
def _combine(rows: Rows, weights: Rows, into: NDArray[np.uint64]) -> None:
    """Four products at a time: 4·(p − 1)² is below 2^64. Their halves are added up, and reduced at the end. weights:
    zeros after the last row, up to a whole four."""
    (count, size), outputs = rows.shape, weights.shape[1]
    low, high = np.zeros((outputs, 1024), dtype=np.uint64), np.zeros((outputs, 1024), dtype=np.uint64)
    for start in range(0, size, 1024):
        end = min(start + 1024, size)
        low[:], high[:] = 0, 0
        for r in range(0, count, 4):
            a, b = rows[r, start:end], rows[min(r + 1, count - 1), start:end]
            c, d = rows[min(r + 2, count - 1), start:end], rows[min(r + 3, count - 1), start:end]
            for e in range(outputs):
                w0, w1 = uint64(weights[r, e]), uint64(weights[r + 1, e])
                w2, w3 = uint64(weights[r + 2, e]), uint64(weights[r + 3, e])
                lower, upper = low[e], high[e]
                for i in range(end - start):
                    total = uint64(a[i]) * w0 + uint64(b[i]) * w1 + (uint64(c[i]) * w2 + uint64(d[i]) * w3)
                    lower[i] += total & _LOW
                    upper[i] += total >> _SHIFT
        for e in range(outputs):
            for i in range(end - start):
                into[start + i, e] = ((high[e, i] % _P64 << _SHIFT) + low[e, i]) % _P64


def combine(rows: Rows, weights: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Σ_r weights[r] · rows[r]: (m, k) over F and (m, c) -> (k, c)."""
    if _on_gpu():
        return np.asarray(_gpu().combine(rows, weights))
    found = np.zeros((rows.shape[1], weights.shape[1]), dtype=np.uint64)
    if len(rows):
        padded = np.zeros((len(rows) + -len(rows) % 4, weights.shape[1]), dtype=np.uint32)
        padded[: len(rows)] = weights
        _combine(np.ascontiguousarray(rows), padded, found)
    return found


@njit("void(uint32[:,:], uint64[::1])", cache=True, nogil=True)
def _square_sums(lines: Rows, into: NDArray[np.uint64]) -> None:
    for i in range(lines.shape[0]):
        low, high = uint64(0), uint64(0)
        for r in range(lines.shape[1]):
            square = uint64(lines[i, r]) * uint64(lines[i, r])
            low += square & _LOW
            high += square >> _SHIFT
        into[i] = ((high % _P64 << _SHIFT) + low) % _P64


def square_sums(lines: Rows) -> NDArray[np.uint64]:
    """(n, r) -> (n,): Σ_r lines², modulo p."""
    if _on_gpu():
        return np.asarray(_gpu().square_sums(lines))
    found = np.zeros(len(lines), dtype=np.uint64)
    _square_sums(lines, found)
    return found


@njit("void(uint32[:,:], uint32[:,:], uint32[:,::1], uint64[:,::1])", cache=True, nogil=True)
def _sum_products(values: Rows, others: Rows, weights: Rows, into: NDArray[np.uint64]) -> None:
    sums = np.zeros(DEGREE, dtype=np.uint64)
    for i in range(values.shape[0]):
        sums[:] = 0
        for r in range(values.shape[1]):
            product = _times(uint32((uint64(values[i, r]) << _SHIFT) % _P64), others[i, r])
            for e in range(DEGREE):
                sums[e] += uint64(_times(product, weights[r, e]))
        for e in range(DEGREE):
            into[i, e] = sums[e] % _P64


def sum_products(values: Rows, others: Rows, weights: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """(n, r), (n, r) over F and (r, 4) over K -> (n, 4): Σ_r weights[r]·values[:, r]·others[:, r]."""
    if _on_gpu():
        return np.asarray(_gpu().sum_products(values, others, weights))
    found = np.zeros((len(values), DEGREE), dtype=np.uint64)
    if values.shape[1]:
        _sum_products(values, others, np.ascontiguousarray(montgomery(weights)), found)
    return found


@njit("void(uint32[:,::1], uint32[:,::1], int64, uint32[:,:,::1])", cache=True, nogil=True)
def _add_strips(factors: Rows, vector: Rows, per_row: int, into: NDArray[np.uint32]) -> None:
    lanes = vector.shape[1]
    for i in range(factors.shape[0]):
        if not factors[i].any():
            continue
        row, start = i // per_row, i % per_row * lanes
        for e in range(DEGREE):
            for a in range(DEGREE):
                b = (e - a) % DEGREE
                factor = factors[i, a]
                if a > e:
                    factor = uint32(uint64(factor) * uint64(NON_RESIDUE) % _P64)
                for lane in range(lanes):
                    at = into[row, e, start + lane]
                    into[row, e, start + lane] = _plus(at, _times(vector[b, lane], factor))


def add_strips(factors: NDArray[np.uint64], vector: NDArray[np.uint64], per_row: int, into: NDArray[np.uint32]) -> None:
    """Adds each factor (n, 4) times the vector (lanes, 4), both over K, to its strip of a row: `per_row` strips in each
    of into (rows, 4, ≥ per_row·lanes)."""
    columns = np.ascontiguousarray(vector.T.astype(np.uint32))
    _add_strips(np.ascontiguousarray(montgomery(factors)), columns, per_row, into)


@njit("void(uint32[:,::1], uint32[:,::1], uint64[:,::1])", cache=True, nogil=True)
def _row_products(weights: Rows, values: Rows, into: NDArray[np.uint64]) -> None:
    rows = values.shape[1]
    for i in range(values.shape[0]):
        for e in range(DEGREE):
            low, high = uint64(0), uint64(0)
            for r in range(rows):
                product = uint64(weights[i, DEGREE * r + e]) * uint64(values[i, r])
                low += product & _LOW
                high += product >> _SHIFT
            into[i, e] = ((high % _P64 << _SHIFT) + low) % _P64


def row_products(weights: Rows, values: Rows) -> NDArray[np.uint64]:
    """(n, 4·r) over K, four columns for one, and (n, r) over F -> (n, 4): Σ_r weight·value."""
    if _on_gpu():
        return np.asarray(_gpu().row_products(weights, values))
    found = np.zeros((len(values), DEGREE), dtype=np.uint64)
    if values.shape[1]:
        _row_products(np.ascontiguousarray(weights), np.ascontiguousarray(values), found)
    return found


@njit("void(uint32[:,::1], uint32[:,::1], uint32[:,:,::1], uint64[:,::1])", cache=True, nogil=True)
def _together(lines: Rows, scalars: Rows, factors: NDArray[np.uint32], into: NDArray[np.uint64]) -> None:
    """With R = 2^32 and products that lose an R each: e₁, e₂/R, e₃/R², then (h·Π − slope)/R², and factors times R³."""
    r = lines.shape[1] // 7
    for i in range(lines.shape[0]):
        sum0, sum1, sum2, sum3 = uint64(0), uint64(0), uint64(0), uint64(0)
        for g in range(r):
            a, b, c = lines[i, g], lines[i, r + g], lines[i, 2 * r + g]
            two = _plus(a, b)
            one, pair = _plus(two, c), _times(a, b)
            pairs, triple = _plus(pair, _times(two, c)), _times(pair, c)
            y0 = _minus(_plus(scalars[0, 0], _times(pairs, scalars[2, 0])), _times(one, scalars[1, 0]))
            y0 = _minus(y0, _times(triple, scalars[5, 0]))
            y1 = _minus(_plus(scalars[0, 1], _times(pairs, scalars[2, 1])), _times(one, scalars[1, 1]))
            y2 = _minus(_plus(scalars[0, 2], _times(pairs, scalars[2, 2])), _times(one, scalars[1, 2]))
            y3 = _minus(_plus(scalars[0, 3], _times(pairs, scalars[2, 3])), _times(one, scalars[1, 3]))
            z1, z2, z3 = _plus(_plus(y1, y1), y1), _plus(_plus(y2, y2), y2), _plus(_plus(y3, y3), y3)
            h0, h1, h2, h3 = lines[i, 3 * r + g], lines[i, 4 * r + g], lines[i, 5 * r + g], lines[i, 6 * r + g]
            t0 = _plus(_plus(_times(h0, y0), _times(h1, z3)), _plus(_times(h2, z2), _times(h3, z1)))
            t1 = _plus(_plus(_times(h0, y1), _times(h1, y0)), _plus(_times(h2, z3), _times(h3, z2)))
            t2 = _plus(_plus(_times(h0, y2), _times(h1, y1)), _plus(_times(h2, y0), _times(h3, z3)))
            t3 = _plus(_plus(_times(h0, y3), _times(h1, y2)), _plus(_times(h2, y1), _times(h3, y0)))
            t0 = _minus(_plus(t0, _times(one, scalars[4, 0])), _plus(scalars[3, 0], _times(pairs, uint32(1))))
            t1 = _minus(_plus(t1, _times(one, scalars[4, 1])), scalars[3, 1])
            t2 = _minus(_plus(t2, _times(one, scalars[4, 2])), scalars[3, 2])
            t3 = _minus(_plus(t3, _times(one, scalars[4, 3])), scalars[3, 3])
            f0, f1, f2, f3 = factors[0, 0, g], factors[0, 1, g], factors[0, 2, g], factors[0, 3, g]
            g1, g2, g3 = factors[1, 1, g], factors[1, 2, g], factors[1, 3, g]
            sum0 += uint64(_plus(_plus(_times(t0, f0), _times(t1, g3)), _plus(_times(t2, g2), _times(t3, g1))))
            sum1 += uint64(_plus(_plus(_times(t0, f1), _times(t1, f0)), _plus(_times(t2, g3), _times(t3, g2))))
            sum2 += uint64(_plus(_plus(_times(t0, f2), _times(t1, f1)), _plus(_times(t2, f0), _times(t3, g3))))
            sum3 += uint64(_plus(_plus(_times(t0, f3), _times(t1, f2)), _plus(_times(t2, f1), _times(t3, f0))))
        into[i, 0], into[i, 1] = sum0 % _P64, sum1 % _P64
        into[i, 2], into[i, 3] = sum2 % _P64, sum3 % _P64


def together(lines: Rows, factors: NDArray[np.uint64], alpha: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """relation.together. lines (n, 7·r): the first values of r rows of inverses, the second, the third, and the four
    coefficients of the inverses; factors (r, 4) -> (n, 4)."""
    if _on_gpu():
        return np.asarray(_gpu().together(lines, factors, alpha))
    back = np.uint64(pow(1 << 32, -1, P))
    first, second, third = ext_powers(alpha, 4)[1:]
    r_squared = np.full(DEGREE, (1 << 64) % P, dtype=np.uint64)
    slope = 3 * second % _P64 * back % _P64 * back % _P64
    scalars = np.stack(
        [third * back % _P64, second, montgomery(first), slope, 2 * first % _P64 * back % _P64, r_squared]
    )
    by_row = montgomery(montgomery(montgomery(factors.T).astype(np.uint64)).astype(np.uint64))
    turned = np.stack([by_row, (by_row.astype(np.uint64) * np.uint64(NON_RESIDUE) % _P64).astype(np.uint32)])
    found = np.zeros((len(lines), DEGREE), dtype=np.uint64)
    _together(lines, scalars.astype(np.uint32), np.ascontiguousarray(turned), found)
    return found


if __name__ == "__main__":
    from proofs import hash_kernels

    print(f"compiled the kernels of the prover, and {hash_kernels.__name__}")  # as soon as they were imported
