"""Fixed-point arithmetic on wires: exact totals cut into parts that cannot wrap, divided by a power of two, to nearest.

The twin of proofs.gradient.tape, whose results these are, number for number; how a total is cut is decided by the same
rules (proofs.gradient.accumulators, .matrix, .numbers). Each stage

    Σ parts at a place + carry from below + half = 2^bits·carry + rest

is a relation modulo p, and holds over the integers because all of it is bounded and ranged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from proofs.circuit.builder import Circuit
from proofs.circuit.relations import Factor, Pair
from proofs.circuit.wire import CircuitRefused, Units, Wire
from proofs.field import P
from proofs.gradient.accumulators import SHORT, Stage, stages_of, sum_limit
from proofs.gradient.matrix import Matrix
from proofs.gradient.numbers import LIMB_BITS, NARROW_BITS, SUM_BITS, WIDE_BITS, Value, signed_bits

HALF_BITS = 14  # two limbs of a wide value, where they meet one narrow factor alone
Limb = tuple[int, Wire]  # place, and the wire, whose bound counts
Result = Callable[[Units | None], Wire]


@dataclass(frozen=True, eq=False)
class Part:
    """What stands at a place of a total: public matrices times wires (added up), or a product of hidden matrices, or a
    public constant (*shape, lanes)."""

    place: int
    bound: int
    units: Units | None
    linear: tuple[tuple[Units | None, Wire], ...] = ()
    pair: Pair | None = None
    constant: Units | None = None


def limb_plan(bound: int, bits: int = LIMB_BITS) -> list[tuple[int, int]]:
    """(place, bits) of the limbs of a value of that bound: low ones without a sign, the last with it."""
    whole, place, found = signed_bits(bound), 0, list[tuple[int, int]]()
    while whole - place > bits + 1:
        found.append((place, bits))
        place += bits
    return [*found, (place, whole - place)]


def limbs(circuit: Circuit, x: Wire, bits: int = LIMB_BITS) -> list[Limb]:
    """The wire itself where it is narrow, else the limbs that the circuit holds already, else new ones."""
    if x.bound <= 1 << (NARROW_BITS - 1):
        return [(0, x)]
    return list(x.limbs) if x.limbs is not None else pieces(circuit, x, bits)


def pieces(circuit: Circuit, x: Wire, bits: int = LIMB_BITS) -> list[Limb]:
    """Limbs of so many bits: those that the circuit holds already, or new ones. Raises CircuitRefused."""
    if x.limbs is not None and x.limbs[1][0] == bits:
        return list(x.limbs)
    plan = limb_plan(x.bound, bits)
    return [(0, x)] if len(plan) == 1 else cut_up(circuit, x, plan)


def cut_up(circuit: Circuit, x: Wire, plan: Sequence[tuple[int, int]]) -> list[Limb]:
    """New cells for the limbs of x. Raises CircuitRefused where x is so long that those of x ± p could be its own."""
    found = limb_cells(circuit, x.shape, x.lanes, plan, x.units)
    whole = joined(found)
    if whole.bound + x.bound >= P:
        raise CircuitRefused(f"a value of up to {x.bound} in limbs of up to {whole.bound} could wrap modulo p")
    circuit.equal(whole - x.with_(fraction=0))
    return found


def limb_cells(
    circuit: Circuit, shape: tuple[int, ...], lanes: int, plan: Sequence[tuple[int, int]], units: Units | None
) -> list[Limb]:
    """New cells for the limbs of a plan: low ones without a sign, the last with it."""
    found = list[Limb]()
    for place, width in plan:
        part = None if units is None else units >> place
        if place == plan[-1][0]:
            found.append((place, circuit.signed(shape, lanes, width, part)))
        else:
            low = None if part is None else part & ((1 << width) - 1)
            found.append((place, circuit.unsigned(shape, lanes, width, low)))
    return found


def joined(parts: Sequence[Limb]) -> Wire:
    """Σ 2^place·limb."""
    total = parts[0][1].scaled(1 << parts[0][0])
    for place, limb in parts[1:]:
        total = total + limb.scaled(1 << place)
    return total


def rounded(
    circuit: Circuit,
    name: str,
    parts: Sequence[Part],
    shape: tuple[int, ...],
    lanes: int,
    shift: int,
    fraction: int,
    bits: int,
    result: Result | None = None,
    cut: int = LIMB_BITS,
) -> Wire:
    """⌊(Σ 2^place·part + 2^(shift − 1)) / 2^shift⌋ in `bits` bits; `result` makes its cells where the caller wants them
    to lie otherwise, and answers for their range. cut: bits of a wide result's limbs: HALF_BITS where it only meets
    another place by place, bytes where many of its products are added up."""
    if shift < 0:
        raise CircuitRefused(f"{name}: a rescale by 2^{shift} would invent digits")
    stages = stages_of(name, [(part.place, part.bound) for part in parts], shift, bits)
    total = _Total(circuit, parts, shape, lanes, shift)
    for stage in stages[:-1]:
        total.advance(stage, circuit.signed(shape, lanes, stage.carry_bits, total.carried(stage)))
    last = stages[-1]
    step = last.place + last.bits - shift
    if result is None and bits > SUM_BITS and NARROW_BITS < last.carry_bits + step <= WIDE_BITS:
        result = in_limbs(circuit, shape, lanes, last.carry_bits + step, cut)
    if result is None or (last.bound << step) + (1 << (bits + last.bits)) + (2 << (step + last.bits)) >= P:
        if result is None and last.carry_bits + step > bits:
            raise CircuitRefused(f"{name}: {last.carry_bits} + {step} bits do not keep a result to {bits}")
        found = total.advance(last, circuit.signed(shape, lanes, last.carry_bits, total.carried(last)))
        bound = 1 << (last.carry_bits + step - 1)
        if result is None:
            return found.with_(fraction=fraction, bound=bound)
        made = result(found.units)
        circuit.equal(made.with_(limbs=None, fraction=0) - found.with_(fraction=0))
        return made.with_(fraction=fraction)
    rest = total.rest(last)
    total.keep(last, rest)  # the result takes the place of the last carry, which is (result − kept)/2^step modulo p
    made = result(total.value(last))
    carry = (
        made.with_(limbs=None, fraction=0) if total.kept is None else made.with_(limbs=None, fraction=0) - total.kept
    )
    total.close(last, carry.scaled(pow(1 << step, -1, P)) if step else carry, rest)
    return made.with_(fraction=fraction)


class _Total:
    """A total on its way up: what was carried, and the digits of the result that were passed already."""

    def __init__(self, circuit: Circuit, parts: Sequence[Part], shape: tuple[int, ...], lanes: int, shift: int) -> None:
        self._circuit, self._parts, self._shape, self._lanes, self._shift = circuit, parts, shape, lanes, shift
        self._below: Wire | None = None
        self.kept: Wire | None = None

    def _half(self, stage: Stage) -> int:
        return (1 << stage.bits) >> 1 if stage.place + stage.bits == self._shift and stage.bits else 0

    def _here(self, stage: Stage) -> list[Part]:
        return [part for part in self._parts if part.place == stage.place]

    def _sum(self, stage: Stage) -> Units | None:
        if not self._circuit.proving:
            return None
        total = np.full((*self._shape, self._lanes), self._half(stage), dtype=np.int64)
        for part in self._here(stage):
            total = total + (part.units if part.units is not None else 0)
        return total if self._below is None else total + self._below.known()

    def carried(self, stage: Stage) -> Units | None:
        total = self._sum(stage)
        return None if total is None else total >> stage.bits

    def rest(self, stage: Stage) -> Wire | None:
        if not stage.bits:
            return None
        total = self._sum(stage)
        low = None if total is None else total & ((1 << stage.bits) - 1)
        return self._circuit.unsigned(self._shape, self._lanes, stage.bits, low)

    def value(self, stage: Stage) -> Units | None:
        """What the result is, given that this stage is the last, and its rest kept."""
        carried = self.carried(stage)
        if carried is None:
            return None
        found = carried << (stage.place + stage.bits - self._shift)
        return found if self.kept is None else found + self.kept.known()

    def advance(self, stage: Stage, carry: Wire) -> Wire:
        """The stage with its carry; returns the result so far."""
        rest = self.rest(stage)
        self.close(stage, carry, rest)
        self.keep(stage, rest)
        self._below = carry
        found = carry.scaled(1 << max(0, stage.place + stage.bits - self._shift))
        return found if self.kept is None else found + self.kept

    def close(self, stage: Stage, carry: Wire, rest: Wire | None) -> None:
        claimed = carry.scaled(1 << stage.bits)
        claimed = claimed if rest is None else claimed + rest
        claimed = claimed if self._below is None else claimed - self._below
        half = self._half(stage)
        close_stage(self._circuit, self._here(stage), claimed.plus(-half) if half else claimed)

    def keep(self, stage: Stage, rest: Wire | None) -> None:
        if stage.place >= self._shift and rest is not None:
            more = rest.scaled(1 << (stage.place - self._shift))
            self.kept = more if self.kept is None else self.kept + more


def close_stage(circuit: Circuit, parts: Sequence[Part], claimed: Wire) -> None:
    """The parts of one place add up to what is claimed."""
    for part in parts:
        if part.constant is not None:
            claimed = claimed.plus(-part.constant)
    pairs = [part.pair for part in parts if part.pair is not None]
    linear = [entry for part in parts for entry in part.linear]
    if pairs and linear:
        raise CircuitRefused("hidden and public matrices are not mixed in one total")
    if pairs:
        circuit.bilinear(pairs, claimed)
    else:
        flat = claimed.shaped(lambda strips: strips.reshape(-1)) if any(m is not None for m, _ in linear) else claimed
        circuit.linear((None, flat.scaled(-1)), *linear)


def in_limbs(circuit: Circuit, shape: tuple[int, ...], lanes: int, bits: int, cut: int) -> Result:
    """A `result` of `rounded`: makes the cells of a wide one, its limbs of `cut` bits."""

    def make(units: Units | None) -> Wire:
        found = limb_cells(circuit, shape, lanes, limb_plan(1 << (bits - 1), cut), units)
        return joined(found).with_(limbs=tuple(found), bound=1 << (bits - 1))

    return make


# ---------------------------------------------------------------------------------------------------- operations


def apply(
    circuit: Circuit,
    name: str,
    x: Wire,
    matrix: Matrix,
    fraction: int,
    bits: int = NARROW_BITS,
    *,
    bias: Value | None = None,
    transposed: bool = False,
    cut: int = LIMB_BITS,
) -> Wire:
    """x (in,) · matrix (out, in)ᵀ + bias (out,) → (out,); `transposed`: x (out,) → (in,)."""
    parts = applied_parts(circuit, x, matrix, transposed)
    at = x.fraction + matrix.fraction
    shape = (matrix.shape[1],) if transposed else (matrix.shape[0],)
    if bias is not None:
        parts += addends(bias.finer(at).units, sorted({part.place for part in parts}), shape, x.lanes)
    return rounded(circuit, name, parts, shape, x.lanes, at - fraction, fraction, bits, cut=cut)


def applied_parts(circuit: Circuit, x: Wire, matrix: Matrix, transposed: bool = False) -> list[Part]:
    """Parts of x (in,) · matrix (out, in)ᵀ: limbs of x by the digits of the matrix that leave each sum short enough."""
    found = limbs(circuit, x)
    limit = min(sum_limit(limb.bound) for _, limb in found)
    parts = list[Part]()
    for place, limb in found:
        for part in matrix.parts(limit, transposed):
            weight = part.units.T if transposed else part.units
            units = None if limb.units is None else exactly(weight, limb.units)
            parts.append(Part(place + part.place, limb.bound * part.reach, units, ((weight, limb.with_(limbs=None)),)))
    return parts


def addends(offset: Units, places: Sequence[int], shape: tuple[int, ...], lanes: int) -> list[Part]:
    """A public addend (*shape,), cut at the places that there are: low digits below the next, the rest on top."""
    found, rest = list[Part](), np.broadcast_to(offset, shape)
    for here, after in zip(places, [*places[1:], None], strict=True):
        low = rest if after is None else rest & ((1 << (after - here)) - 1)
        whole = np.broadcast_to(low[..., None], (*shape, lanes))
        found.append(Part(here, int(np.abs(low).max(initial=0)), whole, constant=whole))
        rest = rest if after is None else rest >> (after - here)
    return found


def scaled(
    circuit: Circuit,
    name: str,
    x: Wire,
    factor: Value,
    fraction: int,
    bits: int,
    *,
    bias: Value | None = None,
    cut: int = LIMB_BITS,
) -> Wire:
    """x · factor + bias by strips, both public, broadcast to the shape of x."""
    units = np.broadcast_to(factor.units, x.shape)
    parts = list[Part]()
    for place, limb in limbs(circuit, x):
        plain = limb.with_(limbs=None, fraction=0)
        for digits, beside, reach in _constant_limbs(units, factor.bound, limb.bound):
            each = None if limb.units is None else limb.units * digits[..., None]
            parts.append(Part(place + beside, limb.bound * reach, each, ((None, plain.scaled(digits)),)))
    at = x.fraction + factor.fraction
    if bias is not None:
        parts += addends(bias.finer(at).units, sorted({part.place for part in parts}), x.shape, x.lanes)
    return rounded(circuit, name, parts, x.shape, x.lanes, at - fraction, fraction, bits, cut=cut)


def _constant_limbs(units: Units, bound: int, beside: int) -> list[tuple[Units, int, int]]:
    """A public factor whole where the product is short enough, else in bytes."""
    if bound * beside <= SHORT:
        return [(units, 0, bound)]
    found, rest, place = list[tuple[Units, int, int]](), units, 0
    while int(np.abs(rest).max(initial=0)) > 512:
        found.append((rest & 0xFF, place, 0xFF))
        rest, place = rest >> LIMB_BITS, place + LIMB_BITS
    return [*found, (rest, place, int(np.abs(rest).max(initial=0)))]


def multiply(
    circuit: Circuit,
    name: str,
    x: Wire,
    y: Wire,
    fraction: int,
    bits: int,
    *,
    most: int | None = None,
    whole: bool = False,
    cut: int = LIMB_BITS,
    result: Result | None = None,
) -> Wire:
    """x · y place by place, of one shape. `most`: a bound on |x·y| that the caller knows; `whole`: y enters uncut;
    result, cut: as of `rounded`."""
    halves = LIMB_BITS if whole else HALF_BITS
    lefts = [(0, x)] if most is not None else limbs(circuit, x, halves)
    rights = [(0, y)] if whole or most is not None else limbs(circuit, y, halves)
    parts = list[Part]()
    for place, left in lefts:
        for beside, right in rights:
            found = circuit.times(left.with_(limbs=None), right.with_(limbs=None))
            bound = most if most is not None else left.bound * right.bound
            parts.append(Part(place + beside, bound, found.units, ((None, found),)))
    shift = x.fraction + y.fraction - fraction
    return rounded(circuit, name, parts, x.shape, x.lanes, shift, fraction, bits, result, cut)


def product_parts(circuit: Circuit, x: Factor, y: Factor) -> list[Part]:
    """Parts of Σ_j x·y: limbs by limbs, cut finer where a sum could wrap. Their values are (h, x, y)."""
    length = x.sizes[1]
    for fine_x, fine_y in ((False, False), (False, True), (True, True)):
        lefts, rights = _plan(x.wire, fine_x), _plan(y.wire, fine_y)
        most = {place: (1 << bits) * length for place, bits in lefts}
        if x.wire.row_sum is not None and len(lefts) == 1:
            most = {place: min(bound, x.wire.row_sum) for place, bound in most.items()}
        bounds: dict[int, int] = {}
        for place in most:
            for beside, bits in rights:
                bounds[place + beside] = bounds.get(place + beside, 0) + most[place] * (1 << bits)
        if max(bounds.values()) <= SHORT:
            break
    found = list[Part]()
    for place, left in pieces(circuit, x.wire) if fine_x else limbs(circuit, x.wire):
        for beside, right in pieces(circuit, y.wire) if fine_y else limbs(circuit, y.wire):
            pair = circuit.pair(Factor(left, x.contract), Factor(right, y.contract))
            reach = left.bound * length
            if x.wire.row_sum is not None and left is x.wire:
                reach = min(reach, x.wire.row_sum)
            found.append(Part(place + beside, reach * right.bound, _multiplied(pair), pair=pair))
    return found


def _plan(x: Wire, fine: bool) -> list[tuple[int, int]]:
    """(place, bits that bound it) of the limbs that `limbs` or `pieces` would give."""
    if not fine and x.bound <= 1 << (NARROW_BITS - 1):
        return [(0, signed_bits(x.bound) - 1)]
    if not fine and x.limbs is not None:
        return [(place, limb.bound.bit_length()) for place, limb in x.limbs]
    plan = limb_plan(x.bound)
    return [(place, bits if place != plan[-1][0] else bits - 1) for place, bits in plan]


def _multiplied(pair: Pair) -> Units | None:
    """(h, x, y), exactly."""
    if pair.left.wire.units is None or pair.right.wire.units is None:
        return None
    return exactly(pair.left.values().swapaxes(1, 2), pair.right.values())


def exactly(a: Units, b: Units) -> Units:
    """a @ b by way of float64, for totals below 2^53: those of a part are below 2^30."""
    return np.asarray((a.astype(np.float64) @ b.astype(np.float64)).astype(np.int64))


def product(
    circuit: Circuit,
    name: str,
    x: Factor,
    y: Factor,
    fraction: int,
    bits: int,
    *,
    flat: bool = False,
    cut: int = LIMB_BITS,
) -> Wire:
    """Σ_j x·y, rounded: (h, y) of the lanes that x leaves free, or (h, x, y) of one lane where `flat`."""
    parts = product_parts(circuit, x, y)
    h, _, free = x.sizes
    shape, lanes = ((h, free, y.sizes[2]), 1) if flat else ((h, y.sizes[2]), free)
    if circuit.proving:
        parts = [with_values(part, shape, lanes) for part in parts]
    shift = x.wire.fraction + y.wire.fraction - fraction
    return rounded(circuit, name, parts, shape, lanes, shift, fraction, bits, cut=cut)


def with_values(part: Part, shape: tuple[int, ...], lanes: int) -> Part:
    """A part of a product, its values laid out as the result's."""
    units = part.units
    if units is None or units.size != prod(shape) * lanes:
        raise CircuitRefused("a product of hidden matrices has another shape than its result")
    units = units.swapaxes(1, 2) if lanes > 1 else units
    return Part(part.place, part.bound, units.reshape(*shape, lanes), pair=part.pair)
