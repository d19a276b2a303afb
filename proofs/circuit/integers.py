"""Integers too long for the field, in bytes: sums of squares, inverses, inverse roots, as inequalities.

divide         x + ⌊d/2⌋ = d·q + r,  0 ≤ r < d
inverse        y = r·x ≤ N,  N − y < x
inverse_root   r²·x ≤ N < (r + 1)²·x
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt

import numpy as np

from proofs.circuit.builder import Circuit, ValueRefused
from proofs.circuit.rounding import Limb, pieces
from proofs.circuit.wire import CircuitRefused, Units, Wire
from proofs.field import P
from proofs.gradient.numbers import ACCUMULATOR, ProgramRefused, check_unique, signed_bits

BYTE = 8


@dataclass(frozen=True)
class Total:
    """Σ 2^place·wire of wires that are no integers of more than 2^30, none of them negative."""

    parts: tuple[Limb, ...]


def squares(circuit: Circuit, x: Wire) -> Total:
    """Σ x² over the last axis of the shape, from products of bytes."""
    cut = pieces(circuit, x)
    if max(limb.bound for _, limb in cut) ** 2 * x.shape[-1] > ACCUMULATOR:
        raise ProgramRefused(f"{x.shape[-1]} values are too many for one sum of squares")
    found = list[Limb]()
    for at, (place, left) in enumerate(cut):
        for beside, right in cut[at:]:
            product = circuit.times(left.with_(limbs=None), right.with_(limbs=None)).summed()
            found.append((place + beside, product if left is right else product.scaled(2)))
    return Total(tuple(found))


def in_bytes(circuit: Circuit, total: Total, constant: int, count: int, like: Wire) -> list[Wire]:
    """The bytes of total + constant, which is to be below 256^count and not below zero. Raises ValueRefused."""
    shape, lanes = like.shape, like.lanes
    if any(place % BYTE or place > BYTE * count for place, _ in total.parts):
        raise CircuitRefused(f"a total reaches beyond its {count} bytes")
    found, carry = list[Wire](), None
    for index in range(count + 1):
        here = [limb for place, limb in total.parts if place == BYTE * index]
        added = (constant >> (BYTE * index)) & 0xFF if index < count else constant >> (BYTE * count)
        bound = sum(limb.bound for limb in here) + 0xFF + (0 if carry is None else carry.bound)
        terms = [*here, *([] if carry is None else [carry])]
        claimed = Wire(shape, lanes, (), units=np.zeros((*shape, lanes), dtype=np.int64) if circuit.proving else None)
        for term in terms:
            claimed = claimed + term.with_(fraction=0, limbs=None)
        claimed = claimed.plus(added)
        if index == count:
            if claimed.bound >= P:
                raise ProgramRefused(f"a sum of {claimed.bound} could wrap modulo p")
            circuit.equal(claimed)
            return found
        bits = signed_bits((bound >> BYTE) + 1)
        if bound + (1 << (bits - 1 + BYTE)) + 0xFF >= P:
            raise ProgramRefused(f"a sum of {bound} could wrap modulo p")
        byte = circuit.unsigned(shape, lanes, BYTE, None if claimed.units is None else claimed.units & 0xFF)
        units = None if claimed.units is None else claimed.units >> BYTE
        carry = circuit.signed(shape, lanes, bits, units)
        circuit.equal(claimed - byte - carry.scaled(1 << BYTE))
        found.append(byte)
    return found


def total_of(digits: Sequence[Wire], factor: int = 1) -> list[Limb]:
    return [(BYTE * index, digit.scaled(factor)) for index, digit in enumerate(digits)]


def times_digits(circuit: Circuit, r: Wire, digits: Sequence[Wire], count: int) -> list[Wire]:
    """r·x in bytes; r below 2^22, whole."""
    stacked = [
        (BYTE * index, circuit.times(r.with_(limbs=None, fraction=0), digit)) for index, digit in enumerate(digits)
    ]
    return in_bytes(circuit, Total(tuple(stacked)), 0, count, r)


def bytes_of(bound: int) -> int:
    return max(1, -(-bound.bit_length() // BYTE))


def at_most(circuit: Circuit, parts: Sequence[Limb], constant: int, count: int, like: Wire) -> None:
    """Σ parts + constant ≥ 0, and below 256^count."""
    in_bytes(circuit, Total(tuple(parts)), constant, count, like)


def divide(circuit: Circuit, x: Wire, divisor: int) -> Wire:
    """x / divisor to nearest, halves up."""
    quotient = rest = None
    if x.units is not None:
        quotient, rest = np.divmod(x.units + divisor // 2, divisor)
    bits = signed_bits(x.bound // divisor + 1)
    check_unique("a quotient", x.bound + divisor, bits, (divisor - 1).bit_length())
    q = circuit.signed(x.shape, x.lanes, bits, quotient)
    r = circuit.unsigned(x.shape, x.lanes, (divisor - 1).bit_length(), rest)
    circuit.equal(q.scaled(divisor) + r - x.with_(fraction=0, limbs=None).plus(divisor // 2))
    beyond = None if rest is None else divisor - 1 - rest
    spare = circuit.unsigned(x.shape, x.lanes, (divisor - 1).bit_length(), beyond)
    circuit.equal((r + spare).plus(1 - divisor))
    return q.with_(fraction=x.fraction, bound=1 << (bits - 1))


def inverse(circuit: Circuit, x: Wire, numerator: int, bits: int) -> Wire:
    """r = ⌊numerator / x⌋, below 2^bits, of positive x."""
    units = None
    if x.units is not None:
        if x.units.min(initial=1) < 1:
            raise ValueRefused("no inverse of what is not positive")
        units = numerator // x.units
    r = circuit.unsigned(x.shape, x.lanes, bits, units)
    digits = in_bytes(circuit, Total(((0, x.with_(fraction=0)),)), 0, bytes_of(x.bound), x)
    length = bytes_of(numerator)
    product = times_digits(circuit, r, digits, length)
    at_most(circuit, total_of(product, -1), numerator, length, x)
    at_most(circuit, [*total_of(digits), *total_of(product)], -numerator - 1, length + 1, x)
    return r.with_(bound=(1 << bits) - 1)


def inverse_root(
    circuit: Circuit,
    energy: Total,
    constant: int,
    most_energy: int,
    numerator: int,
    bits: int,
    like: Wire,
    cap: int | None = None,
) -> Wire:
    """r = ⌊√(numerator / x)⌋ below 2^(bits − 1), x = energy + constant; or `cap`, where the root is above."""
    length = bytes_of(most_energy)
    digits = in_bytes(circuit, energy, constant, length, like)
    units = capped_units = None
    if circuit.proving:
        x = _joined(digits)
        roots = np.array([isqrt(numerator // max(1, one)) for one in x.reshape(-1).tolist()], dtype=object)
        if cap is not None:
            capped_units = (roots >= cap).astype(np.int64).reshape(*like.shape, like.lanes)
            roots = np.minimum(roots, cap)
        elif (x < 1).any():
            raise ValueRefused("no inverse root of zero")
        units = roots.astype(np.int64).reshape(*like.shape, like.lanes)
    r = circuit.unsigned(like.shape, like.lanes, bits - 1, units)
    once = times_digits(circuit, r, digits, length + 3)
    twice = times_digits(circuit, r, once, bytes_of(numerator) + 1)
    size = bytes_of(numerator) + 1
    at_most(circuit, total_of(twice, -1), numerator, size, like)  # r²·x ≤ N
    above = [*total_of(twice), *total_of(once, 2), *total_of(digits)]
    if cap is not None:
        capped = circuit.bits(like.shape, like.lanes, capped_units)
        spare = None if units is None else cap - units
        short = circuit.unsigned(like.shape, like.lanes, bits - 1, spare)
        circuit.equal((r + short).plus(-cap))  # r ≤ cap
        circuit.equal(circuit.times(capped, short))  # and where it says so, r is the cap
        whole = numerator + 1
        above += [(BYTE * i, capped.scaled((whole >> (BYTE * i)) & 0xFF)) for i in range(bytes_of(whole))]
    at_most(circuit, above, -numerator - 1, size + 1, like)  # (r + 1)²·x > N
    return r.with_(bound=1 << (bits - 1))


def _joined(digits: Sequence[Wire]) -> np.ndarray[tuple[int, ...], np.dtype[np.object_]]:
    total = np.zeros(digits[0].known().shape, dtype=object)
    for index, digit in enumerate(digits):
        total = total + digit.known().astype(object) * (1 << (BYTE * index))
    return total


__all__ = ["Total", "Units", "divide", "in_bytes", "inverse", "inverse_root", "squares"]
