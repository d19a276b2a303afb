"""The mechanism M of one step, in integers: who is drawn, what each contributes at most, and what is released.

    ĝ = Σ cᵢ + z        cᵢ int32 with ‖cᵢ‖² ≤ clip_units² per group, z rounded Gaussian       (M1, M2 of README.md)

The bound on cᵢ is checked after rounding, in integers, and so holds exactly: that, and not the float clip before it,
is what the accountant is told.
"""

from __future__ import annotations

import mpmath
import numpy as np
from numpy.typing import NDArray

from proofs.errors import LocalFault

MAX_CLIP_UNITS = 1 << 20
MAX_SUM = 2**31 - 1
RARE_BITS = 64  # what has a chance below 2^-64 a round never happens to an honest member
_MP = mpmath.MPContext()  # one of its own: the precision of the shared one can change under a thread
_MP.prec = 128


class GradientInvalid(LocalFault):
    """A per-example gradient is not finite. It is not clipped to something else: training stops."""


class ContributionTooLong(LocalFault):
    """An integer contribution is above the clip; nothing of the step may be released."""


class SumOutOfRange(LocalFault):
    """A released sum does not fit int32; the config's capacity and clip do not allow it."""


def selected_rows(words: NDArray[np.uint16], threshold: int, rows: int) -> NDArray[np.int64]:
    """Indices of the rows drawn: row i is in iff words[i, 0] + 2^16·words[i, 1] < threshold.

    words (capacity, 2) uint16 (secret and public words combined); the slots from `rows` on are empty.
    """
    if words.dtype != np.uint16 or words.ndim != 2 or words.shape[1] != 2:
        raise LocalFault(f"draw words are uint16 of shape (capacity, 2), not {words.dtype} of {words.shape}")
    if not 0 <= rows <= len(words):
        raise LocalFault(f"there are more rows than the {len(words)} slots")
    if not 0 <= threshold <= 1 << 32:
        raise LocalFault(f"a sampling threshold is at most 2^32, not {threshold}")
    draws = words[:rows, 0].astype(np.int64) | words[:rows, 1].astype(np.int64) << 16
    return np.flatnonzero(draws < threshold).astype(np.int64)


def most_rows(capacity: int, sample_threshold: int, steps: int) -> int:
    """B: in none of `steps` steps does an honest member draw more rows, but for a chance below 2^-66.

    P(Binomial(N, q) ≥ k) ≤ exp(−N·KL(k/N ‖ q)) for k > N·q.
    """
    rows, chance = capacity, _MP.mpf(sample_threshold) / 2**32
    if chance == 1:
        return rows
    allowed = (RARE_BITS + 2) * _MP.ln2 + _MP.log(steps)
    low, high = int(rows * chance) + 1, rows + 1  # the answer lies in [low, high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if rows * _divergence(_MP.mpf(middle) / rows, chance) > allowed else (middle, high)
    return min(low, rows)


def to_grid(gradients: NDArray[np.float64], unit: float, clip_units: int) -> NDArray[np.int32]:
    """Per-example gradients (n, Pg) of one group -> contributions (n, Pg) int32, each of norm ≤ clip_units exactly.

    Clips to clip_units·unit, divides by unit, rounds to nearest. Where rounding has pushed a norm above the bound, that
    row is scaled down by the excess and rounded again, and at last rounded towards zero, which does not lengthen it.
    Whatever comes out is checked once more in integers. Raises GradientInvalid for NaN or infinity, without naming the
    row, and ContributionTooLong if all that was not enough.
    """
    if gradients.ndim != 2 or not 1 <= clip_units <= MAX_CLIP_UNITS or not 0 < unit < np.inf:
        raise LocalFault("expected gradients (n, Pg), 1 ≤ clip_units ≤ 2^20 and a positive unit")
    if not np.isfinite(gradients).all():
        raise GradientInvalid("a per-example gradient is NaN or infinite")
    scaled = _clip(np.asarray(gradients, dtype=np.float64), unit, clip_units)
    rounded = np.rint(scaled)
    for _ in range(3):
        lengths = np.sqrt(np.einsum("ij,ij->i", rounded, rounded))
        over = lengths > clip_units
        if not over.any():
            break
        scaled[over] *= (clip_units / lengths[over] * (1 - 2.0**-20))[:, None]
        rounded[over] = np.rint(scaled[over])
    else:
        rounded[over] = np.trunc(scaled[over])
    contributions = rounded.astype(np.int32)
    check_contributions(contributions, clip_units)
    return contributions


def check_contributions(contributions: NDArray[np.int32], clip_units: int) -> None:
    """‖cᵢ‖² ≤ clip_units² for every row of (n, Pg), exactly. Raises ContributionTooLong.

    Summed in float64, which is exact here and cannot wrap: up to 2^53 every partial sum is an integer that float64
    holds, and beyond, no rounding brings it back below clip_units² ≤ 2^40.
    """
    wide = contributions.astype(np.float64)
    if (np.einsum("ij,ij->i", wide, wide) > float(clip_units**2)).any():
        raise ContributionTooLong("a contribution is longer than the clip")


def release(contributions: NDArray[np.int32], noise: NDArray[np.int32]) -> NDArray[np.int32]:
    """Σ contributions (n, P) + noise (P,) -> ĝ (P,), without wrap-around. An empty draw releases the noise alone."""
    if contributions.ndim != 2 or noise.ndim != 1 or contributions.shape[1] != noise.shape[0]:
        raise LocalFault(f"contributions {contributions.shape} and noise {noise.shape} do not add up")
    total = contributions.sum(axis=0, dtype=np.int64) + noise
    if (np.abs(total) > MAX_SUM).any():
        raise SumOutOfRange("a released sum does not fit int32")
    return np.asarray(total, dtype=np.int32)


def _clip(gradients: NDArray[np.float64], unit: float, clip_units: int) -> NDArray[np.float64]:
    """gradients / unit, each row scaled to a norm of at most clip_units as far as float64 can tell; never overflows."""
    largest = np.abs(gradients).max(axis=1, initial=0.0, keepdims=True)
    direction = np.divide(gradients, largest, out=np.zeros_like(gradients), where=largest > 0)
    norms = np.sqrt(np.square(direction).sum(axis=1, keepdims=True))  # 1 to sqrt(Pg), or 0 for a zero row
    with np.errstate(over="ignore"):
        return np.asarray(direction * np.minimum(largest / unit, clip_units / np.maximum(norms, 1.0)))


def _divergence(found: mpmath.mpf, chance: mpmath.mpf) -> mpmath.mpf:
    """Kullback–Leibler divergence of Bernoulli(found) from Bernoulli(chance), chance < found ≤ 1."""
    rest = (1 - found) * _MP.log((1 - found) / (1 - chance)) if found < 1 else 0
    return found * _MP.log(found / chance) + rest
