"""The noise: a rounded Gaussian, sampled by looking a 64-bit uniform number up in a table of integers.

The rounded Gaussian of σ is round(N(0, σ²)); it lies on the value z with probability
p(z) = Φ((z + 1/2)/σ) − Φ((z − 1/2)/σ). The table gives z to N(z) of the 2^64 values of u, N(z) ≈ 2^64·p(z):

    U(k)  = 2^64 · (1 − Φ((k + 1/2)/σ)), rounded to the nearest integer       k = 0, 1, …, bound − 1
    z > k    for the U(k) largest u                 z < −k    for the U(k) smallest u

so that N(z) = N(−z) exactly, and ΣN(z) = 2^64. `bound` is the largest z with N(z) > 0, about 9.16 σ; what lies beyond
(below 2^-65 on each side) is given to `bound`. Two numbers say how far the table is from the rounded Gaussian p, both
computed from the integers and rounded up: the total variation, which the accountant pays for in δ, and the χ²
divergence Σ (N/2^64 − p)²/p, by which tail bounds carry over (ledger.plausibility).

Everything is integer arithmetic at 192 fractional bits, so every machine makes the same table. The density at bin
centres follows the recurrence φ(x + h) = φ(x)·e^(−xh − h²/2); the mass of a bin is its Taylor series about the centre
(through φ' = −xφ). Each operation truncates by less than one unit 2^-192; over at most 2^15 bins of fewer than 2^10
operations, whose errors grow at most quadratically through the recurrence, the sum stays below 2^-140; MARGIN_BITS
claims no more than 2^-128.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import pairwise
from math import inf, nextafter

import mpmath
import numpy as np
from numpy.typing import NDArray

from proofs.errors import LocalFault

FRACTION_BITS = 192
MARGIN_BITS = 128  # tail masses are known to within 2^-128
UNIFORM_BITS = 64
WORDS = UNIFORM_BITS // 16
MAX_SIGMA_UNITS = 3500  # keeps |z| within 16 bits: 9.17 · 3500 < 2^15
_ONE = 1 << FRACTION_BITS
_SPARE = FRACTION_BITS - UNIFORM_BITS
_MP = mpmath.MPContext()  # one of its own: the precision of the shared one can change under a thread
_MP.prec = FRACTION_BITS + 64


class SigmaRefused(LocalFault):
    """No table is made for this σ."""


@dataclass(frozen=True, eq=False)
class NoiseTable:
    """σ in integer units; `thresholds` (2·bound,) uint64 ascending: z = −bound + the number of thresholds ≤ u."""

    sigma_units: int
    bound: int
    total_variation: float
    chi_squared: float
    thresholds: NDArray[np.uint64]

    def lookup(self, words: NDArray[np.uint16]) -> NDArray[np.int32]:
        """(..., 4) uint16 words, least significant first -> (...) int32 noise."""
        if words.dtype != np.uint16 or words.shape[-1:] != (WORDS,):
            raise LocalFault(f"noise words are uint16 of shape (..., {WORDS}), not {words.dtype} of {words.shape}")
        uniform = np.zeros(words.shape[:-1], dtype=np.uint64)
        for place in range(WORDS):
            uniform |= words[..., place].astype(np.uint64) << np.uint64(16 * place)
        found = np.searchsorted(self.thresholds, uniform, side="right")
        return np.asarray(found - self.bound, dtype=np.int32)

    def count(self, z: int) -> int:
        """N(z): how many of the 2^64 values of u give z."""
        if abs(z) > self.bound:
            return 0
        position = z + self.bound
        low = int(self.thresholds[position - 1]) if position else 0
        high = int(self.thresholds[position]) if position < len(self.thresholds) else 1 << UNIFORM_BITS
        return high - low

    @property
    def digest(self) -> bytes:
        """SHA-256 over the thresholds, little-endian: what the golden tests pin."""
        return sha256(self.thresholds.astype("<u8").tobytes()).digest()


@lru_cache(maxsize=8)
def noise_table(sigma_units: int) -> NoiseTable:
    """The table for an integer σ of 1 to MAX_SIGMA_UNITS; kept for the life of the process. Raises SigmaRefused."""
    if type(sigma_units) is not int or not 1 <= sigma_units <= MAX_SIGMA_UNITS:
        raise SigmaRefused(f"σ is an integer from 1 to {MAX_SIGMA_UNITS}, not {sigma_units!r}")
    tails = _tails(sigma_units)
    upper = [(tail + (1 << (_SPARE - 1))) >> _SPARE for tail in tails]
    bound = sum(1 for count in upper if count)
    upper, tails = upper[:bound], tails[: bound + 1]
    thresholds = np.array([*reversed(upper), *((1 << UNIFORM_BITS) - count for count in upper)], dtype=np.uint64)
    thresholds.setflags(write=False)
    variation, chi_squared = _distance(upper, tails)
    return NoiseTable(sigma_units, bound, variation, chi_squared, thresholds)


def _tails(sigma: int) -> list[int]:
    """1 − Φ((k + 1/2)/σ) in units of 2^-192 for k = 0, 1, … until it no longer counts at 64 bits."""
    density, ratio, shrink = _constants(sigma)
    tail = (_ONE - _bin_mass(0, sigma, density)) // 2
    tails = [tail]
    while tail >> (_SPARE - 1):
        density = (density * ratio) >> FRACTION_BITS
        ratio = (ratio * shrink) >> FRACTION_BITS
        tail -= _bin_mass(len(tails), sigma, density)
        tails.append(tail)
    return tails


def _constants(sigma: int) -> tuple[int, int, int]:
    """φ(0), e^(−h²/2) and e^(−h²) for h = 1/σ, in units of 2^-192."""
    squared = _MP.mpf(1) / sigma**2
    values = (1 / _MP.sqrt(2 * _MP.pi), _MP.exp(-squared / 2), _MP.exp(-squared))
    density, ratio, shrink = (int(_MP.floor(_MP.ldexp(value, FRACTION_BITS))) for value in values)
    return density, ratio, shrink


def _bin_mass(k: int, sigma: int, density: int) -> int:
    """∫ φ over [(k − 1/2)/σ, (k + 1/2)/σ], given φ(k/σ).

    φ(x + y) = Σ aₙ yⁿ with (n + 1)·aₙ₊₁ = −(x·aₙ + aₙ₋₁). With bₙ = aₙ·(h/2)ⁿ, h = 1/σ and x = k·h, that is
    (n + 1)·bₙ₊₁ = −(2k·bₙ + bₙ₋₁)/(4σ²), and the integral is h·Σ b₂ₙ/(2n + 1).
    """
    older, term, total, n = 0, density, density, 0
    while abs(term) > 1 or abs(older) > 1:
        older, term, n = term, -(2 * k * term + older) // (4 * sigma**2 * (n + 1)), n + 1
        if n % 2 == 0:
            total += term // (n + 1)
    return total // sigma


def _distance(upper: list[int], tails: list[int]) -> tuple[float, float]:
    """Upper bounds of total variation and χ² between the table and the rounded Gaussian.

    `tails` has one more entry than `upper`: the mass beyond `bound`, to which the table gives nothing.
    """
    counts = [(1 << UNIFORM_BITS) - 2 * upper[0], *_drops([*upper, 0])]
    masses = [_ONE - 2 * tails[0], *_drops(tails)]
    slack = 1 << (FRACTION_BITS - MARGIN_BITS + 1)
    gaps = [abs((count << _SPARE) - mass) + slack for count, mass in zip(counts, masses, strict=True)]
    beyond = tails[-1] + slack
    variation = gaps[0] + 2 * (sum(gaps[1:]) + beyond)  # twice the total variation
    squares = [gap * gap // max(mass - slack, 1) + 1 for gap, mass in zip(gaps, masses, strict=True)]
    chi_squared = squares[0] + 2 * (sum(squares[1:]) + beyond)
    return nextafter(variation / (2 * _ONE), inf), nextafter(chi_squared / _ONE, inf)


def _drops(values: list[int]) -> list[int]:
    return [high - low for high, low in pairwise(values)]
