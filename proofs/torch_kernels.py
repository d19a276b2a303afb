"""The prover's hot loops in torch: the same code on a GPU, and on a CPU as a slow twin of `proofs.kernels`.

`proofs.kernels` hands its work over where torch finds CUDA and Triton is not installed. Products of 31-bit numbers fit
int64; sums of products go through float64 in halves of 16 bits, exactly as in `proofs.field.matmul`. The results are
the same integers everywhere, and so are the proofs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from proofs.field import DEGREE, GENERATOR, NON_RESIDUE, P, ext_powers, powers, root_of_unity

BATCH = 64  # rows that are encoded at a time: 64 · 2^17 · 8 bytes
Rows = NDArray[np.uint32]


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def encode(rows: Rows, blowup: int) -> Rows:
    """As `proofs.kernels.encode`: (m, k) values on H -> (blowup·k, m)."""
    count, size = rows.shape
    codeword = np.zeros((blowup * size, count), dtype=np.uint32)
    shifts = _shifts(size, blowup)
    for start in range(0, count, BATCH):
        part = torch.from_numpy(rows[start : start + BATCH].astype(np.int64)).to(device())
        coefficients = _transform(part, inverse=True)
        cosets = (coefficients[:, None, :] * shifts[None]) % P
        values = _transform(cosets.reshape(-1, size), inverse=False).reshape(len(part), blowup * size)
        codeword[:, start : start + BATCH] = values.T.cpu().numpy().astype(np.uint32)
    return codeword


def combine(rows: Rows, weights: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """As `proofs.kernels.combine`: (m, k) and (m, c) -> (k, c)."""
    total = torch.zeros((rows.shape[1], weights.shape[1]), dtype=torch.int64, device=device())
    for start in range(0, len(rows), 1 << 12):
        part = slice(start, start + (1 << 12))
        total += _matmul(_tensor(rows[part]).T, _tensor(weights[part]))
    return (total % P).cpu().numpy().astype(np.uint64)


def square_sums(lines: Rows) -> NDArray[np.uint64]:
    """As `proofs.kernels.square_sums`: (n, r) -> (n,)."""
    values = _tensor(lines)
    return (((values * values) % P).sum(dim=1) % P).cpu().numpy().astype(np.uint64)


def sum_products(values: Rows, others: Rows, weights: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """As `proofs.kernels.sum_products`: (n, r), (n, r), (r, 4) -> (n, 4)."""
    products = (_tensor(values) * _tensor(others)) % P
    return (_matmul(products, _tensor(weights)) % P).cpu().numpy().astype(np.uint64)


def row_products(weights: Rows, values: Rows) -> NDArray[np.uint64]:
    """As `proofs.kernels.row_products`: (n, 4·r), (n, r) -> (n, 4)."""
    by_row = _tensor(weights).reshape(*values.shape, DEGREE)
    return (((by_row * _tensor(values)[:, :, None]) % P).sum(dim=1) % P).cpu().numpy().astype(np.uint64)


def together(lines: Rows, factors: NDArray[np.uint64], alpha: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """As `proofs.kernels.together`: (n, 7·r), (r, 4), (4,) -> (n, 4)."""
    a, b, c, *inverse = _tensor(lines).chunk(3 + DEGREE, dim=1)
    first, second, third = ext_powers(alpha, 4)[1:].tolist()
    one, two, three = (a + b + c) % P, (a * b + (a + b) % P * c % P) % P, a * b % P * c % P
    whole = [(third[e] + (P - second[e]) * one % P + first[e] * two % P) % P for e in range(DEGREE)]
    slope = [(3 * second[e] + (2 * (P - first[e])) % P * one % P) % P for e in range(DEGREE)]
    whole[0], slope[0] = (whole[0] + P - three) % P, (slope[0] + two) % P
    cells = [(found + P - minus) % P for found, minus in zip(_in_k(inverse, whole), slope, strict=True)]
    products = _in_k(cells, [_tensor(factors[:, e])[None] for e in range(DEGREE)])
    return (torch.stack(products, dim=2).sum(dim=1) % P).cpu().numpy().astype(np.uint64)


def _in_k(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """a·b in K, by coefficient."""
    found = []
    for e in range(DEGREE):
        terms = [a[i] * b[e - i] % P * (1 if i <= e else NON_RESIDUE) for i in range(DEGREE)]
        found.append(sum(terms[1:], start=terms[0]) % P)
    return found


def _tensor(values: NDArray[np.unsignedinteger]) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.int64)).to(device())


def _matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Modulo p, exact for up to 2^20 products a sum; what comes out is below 4p."""
    total = torch.zeros((a.shape[0], b.shape[1]), dtype=torch.int64, device=a.device)
    for i, left in enumerate((a & 0xFFFF, a >> 16)):
        for j, right in enumerate((b & 0xFFFF, b >> 16)):
            part = (left.to(torch.float64) @ right.to(torch.float64)).to(torch.int64) % P
            total += part * ((1 << 16 * (i + j)) % P) % P
    return total


def _transform(values: torch.Tensor, *, inverse: bool) -> torch.Tensor:
    """The number-theoretic transform of each row, (m, k) -> (m, k); the inverse is not divided by k."""
    size = values.shape[1]
    data, half = values, size // 2
    for twiddles in _twiddles(size, inverse, values.device):
        blocks = data.reshape(len(data), -1, 2, half)
        low, high = blocks[:, :, 0], blocks[:, :, 1]
        data = torch.stack([(low + high) % P, (low - high + P) * twiddles % P], dim=2).reshape(len(data), size)
        half //= 2
    return data[:, _order(size, values.device)]


@lru_cache(maxsize=16)
def _twiddles(size: int, inverse: bool, where: torch.device) -> list[torch.Tensor]:
    found, half = [], size // 2
    while half:
        root = root_of_unity(2 * half)
        base = pow(root, P - 2, P) if inverse else root
        table = powers(np.array([base], dtype=np.uint64), half)[0]
        found.append(torch.from_numpy(table.astype(np.int64)).to(where))
        half //= 2
    return found


@lru_cache(maxsize=16)
def _order(size: int, where: torch.device) -> torch.Tensor:
    order = torch.zeros(1, dtype=torch.int64)
    while len(order) < size:
        order = torch.cat([2 * order, 2 * order + 1])
    return order.to(where)


@lru_cache(maxsize=16)
def _shifts(size: int, blowup: int) -> torch.Tensor:
    """(blowup, k): powers of the cosets' representatives, over k."""
    root = root_of_unity(blowup * size)
    starts = np.array([GENERATOR * pow(root, c, P) % P for c in range(blowup)], dtype=np.uint64)
    table = powers(starts, size) * np.uint64(pow(size, P - 2, P)) % np.uint64(P)
    return torch.from_numpy(table.astype(np.int64)).to(device())
