"""Can these released sums contain the noise that the config demands? A test that honest members never fail.

Take n coordinates of ĝ = c + z, z rounded Gaussian of σ, c whatever was decided before z. Then, for any such set,

    ĝ = round(c + N), |round(y)| ≥ |y| − 1/2      ⇒   ‖ĝ‖ ≥ ‖c + N‖ − √n/2
    ‖c + N‖² is stochastically at least σ²·χ²ₙ        (noncentral against central; step by step for adaptive c)
    P(χ²ₙ ≤ r·n) ≤ exp(−(n/2)·(r − 1 − ln r)),  r < 1  (Chernoff)

so a norm with r = ((‖ĝ‖ + √n/2)/(σ√n))² < 1 has probability at most e^−s, s = (n/2)(r − 1 − ln r). That is for the
rounded Gaussian p; words are looked up in a table q instead. With L = Π q/p over the n coordinates (Cauchy–Schwarz),

    P_q(A) = E_p[1_A·L] ≤ √P_p(A) · √E_p[L²] = √P_p(A) · (1 + χ²)^(n/2),     χ² from proofs.gaussian

The test refuses when that bound is below 2^-64 divided by the number of sets looked at, which are each (step, group)
and all coordinates together. So the probability that an honest bundle is refused is below 2^-64. Logarithms are
mpmath's at fixed precision on exact integers: the verdict is the same on every machine.

The other end: with the same probability at most, ‖ĝ‖ ≤ k·clip + σ(√n + √(2x)) + √n/2, where no more than k rows are
drawn (Chernoff for Binomial(capacity, q)) and P(‖N‖/σ ≥ √n + √(2x)) ≤ e^−x (Laurent and Massart 2000, lemma 1). It
keeps one member from outweighing the others by what no honest one could have released.

What passes: noise that is known to others; noise that the member chose; noise a little too small (at n coordinates, by
about √(90/n) of σ: 3 % at n = 10^5, 30 % at 10^3); small noise hidden under contributions of the same length. Only a
proof of the mechanism catches those, and there is none yet.
"""

from __future__ import annotations

import mpmath
import numpy as np
from numpy.typing import NDArray

from ledger.config import PrivacySpec
from proofs.gaussian import NoiseTable
from proofs.mechanism import RARE_BITS as FALSE_ALARM_BITS

_MP = mpmath.MPContext()  # one of its own: the precision of the shared one can change under a thread
_MP.prec = 128


def sum_of_squares(values: NDArray[np.int32]) -> int:
    """Σ v² over the integers, without wrap-around for up to 2^31 values."""
    magnitude = np.abs(values.astype(np.int64)).reshape(-1)
    high, low = magnitude >> 16, magnitude & 0xFFFF
    return (int(high @ high) << 32) + (int(high @ low) << 17) + int(low @ low)


def too_quiet(squares: int, count: int, table: NoiseTable, sets: int) -> bool:
    """Is Σĝ² over `count` coordinates, one of `sets` such sums looked at, too small to contain the table's noise?"""
    root = _MP.sqrt(count)
    ratio = ((_MP.sqrt(squares) + root / 2) / (table.sigma_units * root)) ** 2
    if ratio >= 1:
        return False
    surprise = _MP.mpf(count) / 4 * (ratio - 1 - _MP.log(ratio))
    table_gap = _MP.mpf(count) / 2 * _MP.log1p(table.chi_squared)
    return bool(surprise - table_gap > FALSE_ALARM_BITS * _MP.ln2 + _MP.log(sets))


def longest_norm(privacy: PrivacySpec, table: NoiseTable | None, count: int, rows: int, sets: int) -> int:
    """Bound on ‖ĝ‖ over `count` coordinates of a group when at most `rows` rows are drawn; no table means no noise."""
    if table is None:
        return rows * privacy.clip_units
    surprise = 2 * ((FALSE_ALARM_BITS + 2) * _MP.ln2 + _MP.log(sets)) + count * _MP.log1p(table.chi_squared)
    root = _MP.sqrt(count)
    noise = table.sigma_units * (root + _MP.sqrt(2 * surprise)) + root / 2
    return rows * privacy.clip_units + int(_MP.ceil(noise))
