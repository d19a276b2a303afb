"""Accumulators: how an exact total is cut into sums that no data can make wrap, and joined again.

A part stands at a place: its units count 2^place. From the lowest place up, acc = 2^bits·carry + rest, and the carry
joins what stands at the next place. The shift of a rescale is a place of its own: rests below it are dropped, rests
above it are low digits of the result. Half of the shift is added first, so that the result is rounded to nearest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from proofs.gradient.numbers import (
    LIMB_BITS,
    OutOfRange,
    ProgramRefused,
    Units,
    Value,
    check_unique,
    largest,
    limbs,
    pieces,
    signed_bits,
)

Part = tuple[int, int, Callable[[], Units]]  # place, bound, and the accumulator itself where it is asked for

SHORT = (1 << 30) - (1 << 26)  # what leaves room for a carry and for half of a shift


@dataclass(frozen=True)
class Stage:
    """acc (at most `bound`) = 2^`bits`·carry + rest; the carry has `carry_bits`, and goes on at place + bits."""

    place: int
    bits: int
    bound: int
    carry_bits: int


def sum_limit(bound: int) -> int:
    """The longest a row of weights may be, in Σ|w|, beside values of at most `bound`; half is kept for carries."""
    return (1 << 29) // max(1, bound)


def stages_of(name: str, parts: Sequence[tuple[int, int]], shift: int, bits: int) -> list[Stage]:
    """From the lowest place up; `shift` is a place of its own, so that no rest is half kept and half dropped."""
    bounds: dict[int, int] = {shift: 0}
    for place, bound in parts:
        bounds[place] = bounds.get(place, 0) + bound
    places = sorted(bounds)
    stages: list[Stage] = []
    carry = 0
    for here, after in zip(places, [*places[1:], places[-1]], strict=True):
        width, bound = after - here, bounds[here] + carry + 1
        if width == 0 and stages and bounds[here] == 0:
            break  # the shift is the last place: what was carried to it is the result
        half = (1 << width) >> 1 if after == shift else 0
        carry = ((bound + half) >> width) + 1
        last = width == 0 or (after == places[-1] and bounds[after] == 0)
        carry_bits = min(max(1, bits - (after - shift)), signed_bits(carry)) if last else signed_bits(carry)
        check_unique(name, bound + half, carry_bits, width)
        stages.append(Stage(here, width, bound + half, carry_bits))
    return stages


def chain(
    name: str, shape: tuple[int, ...], parts: Sequence[Part], stages: Sequence[Stage], shift: int, result: Units
) -> dict[str, Units]:
    """Rests and carries of each stage; checks that they lead to the result, and that no part is above its bound."""
    made: dict[str, Units] = {}
    carry, kept = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for stage in stages:
        after = stage.place + stage.bits
        acc = carry + ((1 << stage.bits) >> 1 if after == shift and stage.bits else 0)
        for place, bound, compute in parts:
            if place == stage.place:
                part = compute()
                if largest(part) > bound:
                    raise OutOfRange(f"{name}: a part of {largest(part)} is above its bound {bound}")
                acc = acc + part
        carry, rest = acc >> stage.bits, acc & ((1 << stage.bits) - 1)
        if stage.bits:
            made[f"rest_{stage.place}"] = rest
        if stage is not stages[-1]:
            made[f"carry_{stage.place}"] = carry
        if stage.place >= shift:
            kept = kept + (rest << (stage.place - shift))
    end = stages[-1].place + stages[-1].bits
    if not np.array_equal(kept + (carry << (end - shift)), result):
        raise ProgramRefused(f"{name}: the parts do not add up to the whole")
    return made


def spread(offset: Units, bound: int, parts: Sequence[Part]) -> list[Part]:
    """A public addend, cut at the places that are there anyway: low digits below the next place, the rest on top."""
    places = sorted({place for place, _, _ in parts})
    found: list[Part] = []
    rest = offset
    for here, after in zip(places, [*places[1:], None], strict=True):
        if after is None:
            found.append((here, largest(rest), _fixed(rest)))
        else:
            low = rest & ((1 << (after - here)) - 1)
            found.append((here, (1 << (after - here)) - 1, _fixed(low)))
            rest = rest >> (after - here)
    return found


def _fixed(units: Units) -> Callable[[], Units]:
    return lambda: units


def times(x: Units, part: Units, transposed: bool) -> Callable[[], Units]:
    return lambda: x @ (part if transposed else part.T)


def elementwise(x: Units, y: Units) -> Callable[[], Units]:
    return lambda: x * y


def products(x: Value, y: Value) -> list[Part]:
    """The parts of x (…, n, k) · y (…, k, m): limbs of one by limbs of the other, cut finer where a sum could wrap."""
    whole, fine = limbs(x), pieces(x, LIMB_BITS)
    choices = ((whole, limbs(y)), (whole, pieces(y, LIMB_BITS)), (fine, pieces(y, LIMB_BITS)))
    found: list[Part] = []
    for lefts, rights in choices:
        found = []
        for left, place, bound in lefts:
            most = bound * x.shape[-1]
            if x.row_sum is not None and len(lefts) == 1:
                most = min(most, x.row_sum)
            found += [(place + beside, most * reach, _matmul(left, right)) for right, beside, reach in rights]
        if longest(found) <= SHORT:
            break
    return found


def longest(parts: Sequence[Part]) -> int:
    """The largest bound of what stands at one place."""
    bounds: dict[int, int] = {}
    for place, bound, _ in parts:
        bounds[place] = bounds.get(place, 0) + bound
    return max(bounds.values(), default=0)


def _matmul(x: Units, y: Units) -> Callable[[], Units]:
    return lambda: x @ y
