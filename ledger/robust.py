"""Averages that a few lying members cannot move far: integers in, integers out, and every tie decided.

Arrays are (n, …) grid units, one row a member in member order. Sources and breakdown points are in AGGREGATION.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ledger.aggregation import RobustSpec

Units = NDArray[np.int64]
Vectors = Mapping[int, Sequence[Units]]

CHUNK: Final = 1 << 12  # squares below 2^50, so that as many of them stay below 2^63
SCALE_BITS: Final = 20  # of the factors by which updates are shortened


def round_half_even(numerator: Units, denominator: int) -> Units:
    """numerator / denominator (> 0), to the nearest integer, ties to the even one. Elementwise, integers only."""
    quotient = numerator // denominator
    rest = numerator - quotient * denominator
    up = (2 * rest > denominator) | ((2 * rest == denominator) & (quotient % 2 == 1))
    return np.asarray(quotient + up, dtype=np.int64)


def median(rows: Units) -> Units:
    """The middle one in each coordinate; of an even number the mean of the two in the middle, half to even."""
    ordered, count = np.sort(rows, axis=0), len(rows)
    return round_half_even(ordered[(count - 1) // 2] + ordered[count // 2], 2)


def trimmed_mean(rows: Units, tolerates: int) -> Units:
    """Without the `tolerates` least and greatest of each coordinate, the mean of the rest, half to even."""
    ordered = np.sort(rows, axis=0)[tolerates : len(rows) - tolerates]
    return round_half_even(ordered.sum(axis=0), len(ordered))


def multi_krum(vectors: Vectors, spec: RobustSpec) -> tuple[int, ...]:
    """The `keep` members whose n − tolerates − 2 nearest others are nearest: the least sum of squared distances.

    Of equal sums the lesser member number. vectors: of each member all trained tensors in one order.
    """
    members = sorted(vectors)
    near = len(members) - spec.tolerates - 2
    apart = {
        (one, other): sum_of_squares([a - b for a, b in zip(vectors[one], vectors[other], strict=True)])
        for place, one in enumerate(members)
        for other in members[place + 1 :]
    }
    scores = {
        member: sum(sorted(distance for pair, distance in apart.items() if member in pair)[:near]) for member in members
    }
    return tuple(sorted(sorted(members, key=lambda member: (scores[member], member))[: spec.keep]))


def shortened(updates: Vectors) -> dict[int, list[Units]]:
    """Each update at most as long as the (lower) median of the lengths: longer ones are scaled down to it.

    Lengths are integers, rounded down; the factor is a multiple of 2^-20, rounded down, and each coordinate goes back
    to the grid, half to even.
    """
    lengths = {member: isqrt(sum_of_squares(update)) for member, update in updates.items()}
    most = sorted(lengths.values())[(len(lengths) - 1) // 2]
    return {member: [_scaled(part, most, lengths[member]) for part in update] for member, update in updates.items()}


def sum_of_squares(parts: Sequence[Units]) -> int:
    """Of differences of weights (below 2^25 units), exactly."""
    flat = np.concatenate([part.reshape(-1) for part in parts])
    return sum(int(chunk @ chunk) for chunk in np.split(flat, range(CHUNK, flat.size, CHUNK)))


def _scaled(part: Units, most: int, length: int) -> Units:
    if length <= most:
        return part
    return round_half_even(part * ((most << SCALE_BITS) // length), 1 << SCALE_BITS)
