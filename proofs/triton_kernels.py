"""The prover's hot loops in Triton, for a GPU; each has a plain twin in numpy that the tests run beside it.

`proofs.kernels` hands its work over where torch finds CUDA and Triton is installed; nothing else loads this module. The
arithmetic is that of `proofs.kernels`: elements are integers in [0, p), constants alone are in Montgomery form
(R = 2^32), sums stay exact in 64 bits. The results are the same integers, and so are the proofs.

`together` is torch's here too. Tested in Triton's interpreter (TRITON_INTERPRET=1, on the CPU). No GPU has run them:
how fast they are is NOT MEASURED.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# What Triton compiles has no types that Python knows.

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from numpy.typing import NDArray

from proofs.field import DEGREE, NON_RESIDUE, P
from proofs.kernels import _tables, montgomery
from proofs.torch_kernels import device, together

BATCH = 64  # rows that are encoded at a time
BLOCK = 256  # elements a program works on
Rows = NDArray[np.uint32]
__all__ = ["combine", "encode", "row_products", "square_sums", "sum_products", "together"]

_P = tl.constexpr(P)
_MINUS_INVERSE = tl.constexpr((-pow(P, -1, 1 << 32)) % (1 << 32))
_LOW = tl.constexpr(0xFFFFFFFF)
_NON_RESIDUE = tl.constexpr(NON_RESIDUE)


@triton.jit
def _times(a, b):
    """a·b/2^32 modulo p (Montgomery 1985), of uint32 below p."""
    product = a.to(tl.uint64) * b.to(tl.uint64)
    quotient = ((product & _LOW) * _MINUS_INVERSE) & _LOW
    high = (product + quotient * _P) >> 32
    return tl.where(high >= _P, high - _P, high).to(tl.uint32)


@triton.jit
def _plus(a, b):
    total = a.to(tl.uint64) + b.to(tl.uint64)
    return tl.where(total >= _P, total - _P, total).to(tl.uint32)


@triton.jit
def _minus(a, b):
    total = a.to(tl.uint64) + _P - b.to(tl.uint64)
    return tl.where(total >= _P, total - _P, total).to(tl.uint32)


@triton.jit
def _at(pointer, places, mask):
    return tl.load(pointer + places, mask=mask, other=0).to(tl.uint32)


@triton.jit
def _down(data, twiddles, half, pairs, BLOCK: tl.constexpr):
    """One stage by decimation in frequency, in place: pairs lie `half` apart, in blocks of 2·half."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = i < pairs
    first, j = i // half * 2 * half + i % half, i % half
    low, high = _at(data, first, mask), _at(data, first + half, mask)
    tl.store(data + first, _plus(low, high).to(tl.int32), mask=mask)
    tl.store(data + first + half, _times(_minus(low, high), _at(twiddles, j, mask)).to(tl.int32), mask=mask)


@triton.jit
def _up(data, twiddles, half, pairs, BLOCK: tl.constexpr):
    """One stage by decimation in time, in place."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = i < pairs
    first, j = i // half * 2 * half + i % half, i % half
    low, high = _at(data, first, mask), _times(_at(data, first + half, mask), _at(twiddles, j, mask))
    tl.store(data + first, _plus(low, high).to(tl.int32), mask=mask)
    tl.store(data + first + half, _minus(low, high).to(tl.int32), mask=mask)


@triton.jit
def _scaled(data, factors, into, size, count, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = i < count
    tl.store(into + i, _times(_at(data, i, mask), _at(factors, i % size, mask)).to(tl.int32), mask=mask)


@triton.jit
def _combine(rows, weights, into, count, size, outputs, BLOCK: tl.constexpr):
    i, e = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1)
    mask, total, place = i < size, tl.zeros([BLOCK], dtype=tl.uint64), i
    for r in range(count):
        weight = tl.load(weights + r * outputs + e).to(tl.uint32)
        total += _times(_at(rows, place, mask), weight).to(tl.uint64)
        place += size  # 64 bits, as r·size might not fit 32
    tl.store(into + i * outputs + e, (total % _P).to(tl.int64), mask=mask)


@triton.jit
def _square_sums(lines, into, count, width, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = i < count
    low, high = tl.zeros([BLOCK], dtype=tl.uint64), tl.zeros([BLOCK], dtype=tl.uint64)
    for r in range(width):
        value = _at(lines, i * width + r, mask).to(tl.uint64)
        low += value * value & _LOW
        high += value * value >> 32
    tl.store(into + i, (((high % _P << 32) + low) % _P).to(tl.int64), mask=mask)


@triton.jit
def _sum_products(values, others, weights, into, count, width, DEGREE: tl.constexpr, BLOCK: tl.constexpr):
    i, e = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1)
    mask, total = i < count, tl.zeros([BLOCK], dtype=tl.uint64)
    for r in range(width):
        product = _times(_at(values, i * width + r, mask), _at(others, i * width + r, mask))
        total += _times(product, tl.load(weights + r * DEGREE + e).to(tl.uint32)).to(tl.uint64)
    tl.store(into + i * DEGREE + e, (total % _P).to(tl.int64), mask=mask)


@triton.jit
def _row_products(weights, values, into, count, width, DEGREE: tl.constexpr, BLOCK: tl.constexpr):
    i, e = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1)
    mask = i < count
    low, high = tl.zeros([BLOCK], dtype=tl.uint64), tl.zeros([BLOCK], dtype=tl.uint64)
    for r in range(width):
        weight = _at(weights, (i * width + r) * DEGREE + e, mask).to(tl.uint64)
        product = weight * _at(values, i * width + r, mask).to(tl.uint64)
        low += product & _LOW
        high += product >> 32
    tl.store(into + i * DEGREE + e, (((high % _P << 32) + low) % _P).to(tl.int64), mask=mask)


def encode(rows: Rows, blowup: int) -> Rows:
    """As `proofs.kernels.encode`: (m, k) values on H -> (blowup·k, m)."""
    count, size = rows.shape
    codeword = np.zeros((blowup * size, count), dtype=np.uint32)
    twiddles, inverse_twiddles, shifts = _constants(size, blowup)
    halves = [size >> (stage + 1) for stage in range(size.bit_length() - 1)]
    for start in range(0, count, BATCH):
        values = _tensor(rows[start : start + BATCH])
        pairs, coset = values.numel() // 2, torch.empty_like(values)
        for stage, half in enumerate(halves):
            _down[_grid(pairs)](values, inverse_twiddles[stage], half, pairs, BLOCK=BLOCK)
        for c in range(blowup):
            _scaled[_grid(values.numel())](values, shifts[c], coset, size, values.numel(), BLOCK=BLOCK)
            for stage, half in reversed(list(enumerate(halves))):
                _up[_grid(pairs)](coset, twiddles[stage], half, pairs, BLOCK=BLOCK)
            codeword[c * size : (c + 1) * size, start : start + BATCH] = _array(coset.T)
    return codeword


def combine(rows: Rows, weights: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """As `proofs.kernels.combine`: (m, k) and (m, c) -> (k, c)."""
    (count, size), outputs = rows.shape, weights.shape[1]
    into = _zeros(size, outputs)
    _combine[(*_grid(size), outputs)](
        _tensor(rows), _tensor(montgomery(weights)), into, count, size, outputs, BLOCK=BLOCK
    )
    return _field(into)


def square_sums(lines: Rows) -> NDArray[np.uint64]:
    """As `proofs.kernels.square_sums`: (n, r) -> (n,)."""
    count, width = lines.shape
    into = _zeros(count)
    _square_sums[_grid(count)](_tensor(lines), into, count, width, BLOCK=BLOCK)
    return _field(into)


def sum_products(values: Rows, others: Rows, weights: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """As `proofs.kernels.sum_products`: (n, r), (n, r), (r, 4) -> (n, 4)."""
    count, width = values.shape
    into, twice = _zeros(count, DEGREE), montgomery(montgomery(weights).astype(np.uint64))  # two products, two 1/R
    _sum_products[(*_grid(count), DEGREE)](
        _tensor(values), _tensor(others), _tensor(twice), into, count, width, DEGREE=DEGREE, BLOCK=BLOCK
    )
    return _field(into)


def row_products(weights: Rows, values: Rows) -> NDArray[np.uint64]:
    """As `proofs.kernels.row_products`: (n, 4·r), (n, r) -> (n, 4)."""
    count, width = values.shape
    into = _zeros(count, DEGREE)
    _row_products[(*_grid(count), DEGREE)](
        _tensor(weights), _tensor(values), into, count, width, DEGREE=DEGREE, BLOCK=BLOCK
    )
    return _field(into)


def _grid(count: int) -> tuple[int]:
    return (max(1, -(-count // BLOCK)),)


def _tensor(values: NDArray[np.unsignedinteger]) -> torch.Tensor:
    """Elements are below 2^31: torch knows less of uint32 than of int32."""
    return torch.from_numpy(np.ascontiguousarray(values.astype(np.int32))).to(device())


def _array(values: torch.Tensor) -> Rows:
    return np.asarray(values.cpu().numpy(), dtype=np.uint32)


def _zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.int64, device=device())


def _field(values: torch.Tensor) -> NDArray[np.uint64]:
    return np.asarray(values.cpu().numpy(), dtype=np.uint64)


@lru_cache(maxsize=8)
def _constants(size: int, blowup: int) -> tuple[Any, Any, Any]:
    """Twiddles both ways by stage, and the factors of each coset, as `proofs.kernels` has them."""
    twiddles, inverse_twiddles, shifts = _tables(size, blowup)
    return _tensor(twiddles[0]), _tensor(inverse_twiddles[0]), _tensor(shifts[:, 0])
