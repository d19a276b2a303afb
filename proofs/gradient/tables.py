"""Tables of exp, SiLU, GELU, tanh, their derivatives, and rotations: integers, the same on every machine.

Every entry is the true value, rounded to nearest, halves up. It is computed in integers of 192 fraction bits from a few
constants that mpmath gives with more. Pinned by digests in tests/proofs/test_gradient_tables.py, which also compares
entries with mpmath's own functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from hashlib import sha256
from typing import Any

import mpmath
import numpy as np

from proofs.gradient.numbers import LOOKUP_BITS, ProgramRefused, Units

_MP = mpmath.MPContext()  # one of its own: the precision of the shared one can change under a thread
_MP.prec = 288
PRECISION = 192
ONE = 1 << PRECISION
SIZE = 1 << LOOKUP_BITS
HALF = SIZE // 2
NORMAL_REACH = 8  # 1 − Φ(8) is 6·10^−16: beyond, x·Φ(x) is x or 0 to any precision a table has


@dataclass(frozen=True, eq=False)
class Table:
    """entries[x − first] · 2^−fraction for first ≤ x < first + 2^16."""

    name: str
    first: int
    entries: Units
    fraction: int
    bound: int

    @property
    def digest(self) -> bytes:
        """SHA-256 over first and entries, i32 little-endian: what the golden tests pin."""
        return sha256(np.array([self.first, *self.entries.tolist()], dtype="<i4").tobytes()).digest()


@lru_cache(maxsize=16)
def exponentials(fraction: int, square: int, out: int) -> Table:
    """exp(−x·2^−fraction/√square) for x ≥ 0: a softmax's numerators below the row's maximum."""
    step = _MP.ldexp(1, -fraction) / _MP.sqrt(square)
    found = [_rounded(value, out) for value in _decay(step, SIZE)]
    return _table(f"exp(-x/2^{fraction}/sqrt({square}))", 0, found, out)


@lru_cache(maxsize=16)
def silu(fraction: int, out: int) -> Table:
    """x·σ(x)."""
    return _signed("silu", fraction, out, _sigmoids(fraction), lambda x, s: x * s >> PRECISION)


@lru_cache(maxsize=16)
def silu_slope(fraction: int, out: int) -> Table:
    """σ(x)·(1 + x·(1 − σ(x)))."""
    return _signed(
        "silu'", fraction, out, _sigmoids(fraction), lambda x, s: s * (ONE + (x * (ONE - s) >> PRECISION)) >> PRECISION
    )


@lru_cache(maxsize=16)
def gelu(fraction: int, out: int) -> Table:
    """x·Φ(x): the exact GELU, not its tanh approximation."""
    return _signed("gelu", fraction, out, _normals(fraction), lambda x, phi: x * phi >> PRECISION)


@lru_cache(maxsize=16)
def gelu_slope(fraction: int, out: int) -> Table:
    """Φ(x) + x·φ(x)."""
    density = _densities(fraction)

    def slope(x: int, phi: int) -> int:
        place = abs(x) >> (PRECISION - fraction)
        return phi + (x * density[place] >> PRECISION if place < len(density) else 0)

    return _signed("gelu'", fraction, out, _normals(fraction), slope)


@lru_cache(maxsize=16)
def tanh(fraction: int, out: int) -> Table:
    """2·σ(2x) − 1."""
    return _signed("tanh", fraction, out, _sigmoids(fraction - 1), lambda _, s: 2 * s - ONE)


@lru_cache(maxsize=16)
def tanh_slope(fraction: int, out: int) -> Table:
    """1 − tanh(x)² = 4·σ(2x)·(1 − σ(2x))."""
    return _signed("tanh'", fraction, out, _sigmoids(fraction - 1), lambda _, s: 4 * s * (ONE - s) >> PRECISION)


@lru_cache(maxsize=16)
def rotations(theta: Fraction, head_size: int, positions: int, out: int) -> tuple[Units, Units]:
    """cos and sin (positions, head_size/2) of position·theta^(−2i/head_size) (RoPE, arXiv:2104.09864)."""
    if head_size % 2:
        raise ProgramRefused(f"rotary positions need an even head size, not {head_size}")
    base = _MP.mpf(theta.numerator) / theta.denominator
    rates = [base ** (-_MP.mpf(2 * i) / head_size) for i in range(head_size // 2)]
    pairs = [[_MP.cos_sin(position * rate) for rate in rates] for position in range(positions)]
    cosines, sines = (
        np.array([[_rounded(_fixed(pair[which]), out) for pair in row] for row in pairs], dtype=np.int64)
        for which in (0, 1)
    )
    return cosines, sines


def inverse_root_of(size: int, out: int) -> int:
    """1/√size in units of 2^−out."""
    return _rounded(_fixed(1 / _MP.sqrt(size)), out)


def _decay(step: Any, count: int) -> list[int]:
    """exp(−i·step) for i < count, each one product of a fine and a coarse exponential."""
    fine = [_fixed(_MP.exp(-step * i)) for i in range(256)]
    coarse = [_fixed(_MP.exp(-step * 256 * i)) for i in range(-(-count // 256))]
    return [coarse[i >> 8] * fine[i & 255] >> PRECISION for i in range(count)]


def _sigmoids(fraction: int) -> list[int]:
    """σ(x) = 1/(1 + e^−x) at x = i·2^−fraction, i = 0 … 2^15."""
    return [ONE * ONE // (ONE + value) for value in _decay(_MP.ldexp(1, -fraction), HALF + 1)]


@lru_cache(maxsize=4)
def _densities(fraction: int) -> list[int]:
    """φ(x) = e^(−x²/2)/√(2π) at x = i·2^−fraction up to the reach of the normal distribution."""
    root = 1 / _MP.sqrt(2 * _MP.pi)
    points = range(min(HALF, NORMAL_REACH << fraction) + 1)
    return [_fixed(root * _MP.exp(-_MP.ldexp(i * i, -2 * fraction - 1))) for i in points]


@lru_cache(maxsize=4)
def _normals(fraction: int) -> list[int]:
    """Φ(x) at x = i·2^−fraction, i = 0 … 2^15.

    Φ(x) = 1/2 + φ(x)·(x + x³/3 + x⁵/(3·5) + …), all terms positive (Marsaglia, J. Stat. Software 11(4), 2004).
    """
    found = []
    for i, density in enumerate(_densities(fraction)):
        x = i << (PRECISION - fraction)
        square, term, total, n = x * x >> PRECISION, x, x, 1
        while term:
            n += 2
            term = (term * square >> PRECISION) // n
            total += term
        found.append(ONE // 2 + (density * total >> PRECISION))
    return found + [ONE] * (HALF + 1 - len(found))


def _signed(name: str, fraction: int, out: int, upper: list[int], function: Callable[[int, int], int]) -> Table:
    """function(x, s(x)) over −2^15 … 2^15 − 1, where s(−x) = 1 − s(x) and `upper` gives s for x ≥ 0."""
    step = PRECISION - fraction
    left = [function(-(i << step), ONE - upper[i]) for i in range(HALF, 0, -1)]
    right = [function(i << step, upper[i]) for i in range(HALF)]
    return _table(f"{name}(x/2^{fraction})", -HALF, [_rounded(value, out) for value in left + right], out)


def _fixed(value: Any) -> int:
    """In units of 2^−192, rounded down."""
    return int(_MP.floor(_MP.ldexp(value, PRECISION)))


def _rounded(value: int, out: int) -> int:
    """From units of 2^−192 to units of 2^−out, to nearest, halves up."""
    return (value + (1 << (PRECISION - out - 1))) >> (PRECISION - out)


def _table(name: str, first: int, entries: list[int], fraction: int) -> Table:
    units = np.array(entries, dtype=np.int64)
    units.setflags(write=False)
    return Table(name, first, units, fraction, int(np.abs(units).max()))
