"""Numbers of the program H: integers in units of 2^−fraction, with a bound that a prover shows by range checks.

    LocalFault
    ├── ProgramRefused   the program itself cannot be proven: sizes for which a sum could wrap, whatever the data
    └── OutOfRange       this example leaves the ranges of the program; it has no proof, and its slot no claim

An accumulator is an integer that a proof holds only modulo p = 2³¹ − 2²⁴ + 1. It stands for itself alone where its
static bound and the range of what it is set equal to add up to less than p (`unique`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from proofs.errors import LocalFault
from proofs.field import P

Units = NDArray[np.int64]

LOOKUP_BITS = 16  # a table has at most 2^16 entries, and a range check of one lookup covers as many bits
NARROW_BITS = 16  # a value that enters a product as it is
WIDE_BITS = 24  # a value that enters products as limbs
SUM_BITS = 20  # a value that enters only sums and squares, of which it is one factor in two pieces
LIMB_BITS = 8
ACCUMULATOR = 1 << 30  # no accumulator is longer, whatever the data


class ProgramRefused(LocalFault):
    """No proof could be made for any data: a model that is not known here, or sizes for which sums could wrap."""


class OutOfRange(LocalFault):
    """A value of this example is outside the range that the program gives it."""


@dataclass(frozen=True, eq=False)
class Value:
    """`units` · 2^−`fraction`, every |unit| ≤ `bound`.

    row_sum: where it is known, a bound on Σ|units| along the last axis that is better than its length times `bound`.
    """

    units: Units
    fraction: int
    bound: int
    row_sum: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.units.shape

    def shaped(self, change: Callable[[Units], Units]) -> Value:
        """The same numbers in another order or shape; what is known about rows is dropped."""
        return replace(self, units=change(self.units), row_sum=None)

    def __add__(self, other: Value) -> Value:
        if self.fraction != other.fraction:
            raise ProgramRefused(f"2^-{self.fraction} and 2^-{other.fraction} are not added without a rescale")
        return Value(self.units + other.units, self.fraction, self.bound + other.bound)

    def __sub__(self, other: Value) -> Value:
        return self + Value(-other.units, other.fraction, other.bound)

    def finer(self, fraction: int) -> Value:
        """The same numbers in smaller units: exact."""
        if fraction < self.fraction:
            raise ProgramRefused(f"2^-{self.fraction} does not become 2^-{fraction} without a rescale")
        step = fraction - self.fraction
        return Value(self.units << step, fraction, self.bound << step)


def constant(units: Units, fraction: int) -> Value:
    """A public constant: its bound is its own largest entry."""
    return Value(units, fraction, largest(units))


def largest(units: Units) -> int:
    return int(np.abs(units).max(initial=0))


def signed_bits(bound: int) -> int:
    """The least b with bound ≤ 2^(b−1)."""
    return 1 + max(0, (bound - 1).bit_length())


def lookups(bits: int) -> int:
    """Range checks for a value of so many bits."""
    return max(1, -(-bits // LOOKUP_BITS))


def limb_count(bits: int) -> int:
    """Committed values, and lookups, for a value of so many bits: itself, two halves, or its bytes."""
    return lookups(bits) if bits <= SUM_BITS else -(-bits // LIMB_BITS)


def check_range(name: str, units: Units, bits: int) -> None:
    """−2^(bits−1) ≤ units < 2^(bits−1). Raises OutOfRange."""
    bound = 1 << (bits - 1)
    if units.size and not -bound <= units.min() <= units.max() < bound:
        raise OutOfRange(f"{name}: {int(units.min())} to {int(units.max())} units where the program allows {bound}")


def check_unique(name: str, accumulator: int, quotient_bits: int, shift: int) -> None:
    """acc = 2^shift·q + r in integers follows from the same modulo p. Raises ProgramRefused."""
    claimed = (1 << (quotient_bits - 1 + shift)) + (1 << shift)
    if accumulator > ACCUMULATOR or accumulator + claimed >= P:
        raise ProgramRefused(
            f"{name}: an accumulator of up to {accumulator} with {quotient_bits} + {shift} bits could wrap modulo p"
        )


def limbs(value: Value) -> list[tuple[Units, int, int]]:
    """(units, place, bound) with value = Σ units·2^place: itself where it is narrow, else bytes."""
    if value.bound <= 1 << (NARROW_BITS - 1):
        return [(value.units, 0, value.bound)]
    return pieces(value, LIMB_BITS)


def pieces(value: Value, bits: int) -> list[tuple[Units, int, int]]:
    """(units, place, bound): low pieces in [0, 2^bits), the last one with the sign and up to two bits more."""
    found, rest, bound, place = [], value.units, value.bound, 0
    while bound > 4 << bits:
        found.append((rest & ((1 << bits) - 1), place, (1 << bits) - 1))
        rest, bound, place = rest >> bits, (bound >> bits) + 1, place + bits
    return [*found, (rest, place, bound)]
