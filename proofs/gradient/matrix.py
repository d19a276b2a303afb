"""Public matrices as integers, and how they are cut so that no product with hidden values wraps."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np

from proofs.gradient.numbers import ProgramRefused, Units


@dataclass(frozen=True, eq=False)
class Part:
    """`units`·2^`place` of a matrix; `reach` is the largest Σ|unit| of what is summed up in one product."""

    units: Units
    place: int
    reach: int


@dataclass(frozen=True, eq=False)
class Matrix:
    """`units` (out, in) · 2^−`fraction`."""

    units: Units
    fraction: int
    _cut: dict[tuple[int, bool], tuple[Part, ...]] = field(default_factory=dict, repr=False)
    _digest: list[bytes] = field(default_factory=list, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.units.shape

    def digest(self) -> bytes:
        """SHA-256 over shape, fraction and units. Kept once computed."""
        if not self._digest:
            head = np.array([*self.shape, self.fraction], dtype="<i8").tobytes()
            self._digest.append(sha256(head + np.ascontiguousarray(self.units, dtype="<i8").tobytes()).digest())
        return self._digest[0]

    def parts(self, limit: int, transposed: bool) -> tuple[Part, ...]:
        """The fewest parts of which each reaches at most `limit`, low digits balanced around zero.

        A product with values of at most b is then below limit·b, whatever the values are. Kept once cut.
        """
        key = (limit, transposed)
        if key not in self._cut:
            self._cut[key] = tuple(_cut(self.units, limit, 0 if transposed else 1))
        return self._cut[key]


def _cut(units: Units, limit: int, axis: int) -> list[Part]:
    place, found = 0, []
    while reach(units, axis) > limit:
        bits = _low_bits(units, limit, axis)
        low = ((units + (1 << (bits - 1))) & ((1 << bits) - 1)) - (1 << (bits - 1))
        found.append(Part(low, place, reach(low, axis)))
        units, place = (units - low) >> bits, place + bits
    return [*found, Part(units, place, reach(units, axis))]


def _low_bits(units: Units, limit: int, axis: int) -> int:
    """As many low digits as fit the limit, at most a byte of them."""
    for bits in range(8, 0, -1):
        low = ((units + (1 << (bits - 1))) & ((1 << bits) - 1)) - (1 << (bits - 1))
        if reach(low, axis) <= limit:
            return bits
    raise ProgramRefused(f"sums over {units.shape[axis]} weights are too long for one accumulator")


def reach(units: Units, axis: int) -> int:
    return int(np.abs(units).sum(axis=axis).max(initial=0))
