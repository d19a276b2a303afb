"""The operations of H. A `Tape` computes them; told to record, it also writes down what a prover needs as a witness.

Each rounding is one exact integer total, divided by a power of two and rounded to nearest, halves up:

    y = ⌊(Σᵢ 2^placeᵢ·accᵢ + 2^(shift−1)) / 2^shift⌋

The parts accᵢ are what a proof can hold: products of limbs, each at most 2³⁰ by a bound that does not depend on the
data. H is the total; how it is cut into parts (accumulators.py) is the prover's affair, and a tape that records
computes both and compares.

    apply       hidden values · public matrix         (a) and (b)
    product     hidden · hidden matrices              (a) and (b)
    multiply    elementwise                           (c)
    look_up     a table                               (d)
    divide, inverse, inverse_root                     (e)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isqrt, prod

import numpy as np

from proofs.gradient.accumulators import (
    Part,
    Stage,
    chain,
    elementwise,
    products,
    spread,
    stages_of,
    sum_limit,
    times,
)
from proofs.gradient.matrix import Matrix
from proofs.gradient.numbers import (
    ACCUMULATOR,
    LOOKUP_BITS,
    NARROW_BITS,
    OutOfRange,
    ProgramRefused,
    Units,
    Value,
    check_range,
    check_unique,
    largest,
    limb_count,
    limbs,
    lookups,
    pieces,
    signed_bits,
)
from proofs.gradient.tables import Table

SCORE_BITS = 20  # of the largest score of a row
INEQUALITY_VALUES = 24  # limbs and carries of one inequality k²·v ≤ n < (k + 1)²·v: k of 3 bytes, v of 6, both sides


def check_apart(name: str, below: Units) -> None:
    """Raises OutOfRange."""
    if below.max(initial=0) >= 1 << LOOKUP_BITS:
        raise OutOfRange(f"{name}: scores of one row are 2^16 units apart or more, which do not fit the table")


@dataclass(frozen=True, eq=False)
class Step:
    """One operation as it was recorded: named arrays. `given` were there before, `made` are new to the witness."""

    name: str
    operation: str
    given: dict[str, Units]
    made: dict[str, Units]


@dataclass
class Counts:
    """Of one example: values to commit to, lookups (ranges and tables), multiply-adds of limbs."""

    values: int = 0
    lookups: int = 0
    macs: int = 0


@dataclass
class Tape:
    """`recording`: keep every operation in `steps`. Counts are kept always."""

    recording: bool = False
    steps: list[Step] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)

    def extend(self, other: Tape) -> None:
        """What another tape holds, after what this one does."""
        self.steps += other.steps
        self._count(values=other.counts.values, looked_up=other.counts.lookups)
        self.counts.macs += other.counts.macs

    def apply(
        self,
        name: str,
        x: Value,
        matrix: Matrix,
        fraction: int,
        bits: int = NARROW_BITS,
        *,
        bias: Value | None = None,
        transposed: bool = False,
    ) -> Value:
        """x (…, in) · matrix (out, in)ᵀ + bias (out,) → (…, out); `transposed`: x (…, out) · matrix → (…, in)."""
        weight = matrix.units if transposed else matrix.units.T
        at = x.fraction + matrix.fraction
        offset = np.zeros(weight.shape[1], dtype=np.int64) if bias is None else bias.finer(at).units
        limit = min(sum_limit(limb_bound) for _, _, limb_bound in limbs(x))
        parts: list[Part] = []
        for units, place, bound in limbs(x):
            for part in matrix.parts(limit, transposed):
                parts.append((place + part.place, bound * part.reach, times(units, part.units, transposed)))
        self.counts.macs += len(parts) * prod(x.shape) * weight.shape[1]
        if bias is not None:
            parts += spread(offset, largest(offset), parts)
        given = {"x": x.units}
        return self._round(name, "apply", x.units @ weight + offset, parts, at - fraction, fraction, bits, given)

    def product(self, name: str, x: Value, y: Value, fraction: int, bits: int, live: float = 1.0) -> Value:
        """x (…, n, k) · y (…, k, m) → (…, n, m). `live`: the share of entries that a mask leaves to be proven."""
        parts = products(x, y)
        total = x.units @ y.units
        self.counts.macs += int(live * len(parts) * total.size * x.shape[-1])
        shift = x.fraction + y.fraction - fraction
        given = {"x": x.units, "y": y.units}
        return self._round(name, "product", total, parts, shift, fraction, bits, given, live)

    def multiply(
        self,
        name: str,
        x: Value,
        y: Value,
        fraction: int,
        bits: int,
        *,
        most: int | None = None,
        bias: Value | None = None,
        whole: bool = False,
        live: float = 1.0,
    ) -> Value:
        """x · y + bias elementwise, broadcast. `most`: a bound on |x·y| that holds for a reason the caller states;
        `whole`: y enters uncut, however large it is."""
        at = x.fraction + y.fraction
        total = x.units * y.units
        if most is not None:
            if largest(total) > most:
                raise OutOfRange(f"{name}: a product is above {most}")
            parts: list[Part] = [(0, most, lambda: total)]
        else:
            parts = [
                (place + beside, bound * reach, elementwise(left, right))
                for left, place, bound in limbs(x)
                for right, beside, reach in ([(y.units, 0, y.bound)] if whole else limbs(y))
            ]
        self.counts.macs += int(live * len(parts) * total.size)
        given = {"x": x.units, "y": y.units}
        if bias is not None:
            offset = np.broadcast_to(bias.finer(at).units, total.shape)
            parts += spread(offset, largest(offset), parts)
            return self._round(name, "multiply", total + offset, parts, at - fraction, fraction, bits, given, live)
        return self._round(name, "multiply", total, parts, at - fraction, fraction, bits, given, live)

    def scores(self, name: str, q: Value, k: Value, fraction: int, mask: Units) -> Units:
        """q (h, n, e), k (h, m, e) → max_j s − s ≥ 0 with s = q·kᵀ rounded, over the j that `mask` (n, m) allows.

        Below 2^16, as the table of exponentials needs; where the mask is 0, so is the result. Raises OutOfRange.
        """
        shift, parts = q.fraction + k.fraction - fraction, products(q, k.shaped(lambda units: units.swapaxes(-1, -2)))
        stages = stages_of(name, [(place, bound) for place, bound, _ in parts], shift, SCORE_BITS + 1)
        total = q.units @ k.units.swapaxes(-1, -2)
        raw = (total + ((1 << shift) >> 1)) >> shift
        top = np.where(mask, raw, np.iinfo(np.int64).min).max(axis=-1, keepdims=True)
        check_range(name, top, SCORE_BITS)
        below = np.where(mask, top - raw, 0)
        check_apart(name, below)
        live = int(mask.sum()) * q.shape[0]
        self._count_round(live, stages, LOOKUP_BITS)
        self._count(values=top.size, looked_up=top.size * lookups(SCORE_BITS))
        self.counts.macs += live * q.shape[-1] * len(parts)
        if self.recording:
            made = chain(name, total.shape, parts, stages, shift, raw)
            self._keep(name, "scores", {"q": q.units, "k": k.units}, {"below": below, "top": top, **made})
        return below

    def distances(self, name: str, x: Value, matrix: Matrix, fraction: int) -> Units:
        """x (…, in) · matrix (out, in)ᵀ = s, rounded → max_j s − s ≥ 0 over the last axis, below 2^16 as the table of
        exponentials needs. Raises OutOfRange."""
        (units, _, bound), *more = limbs(x)
        if more:
            raise ProgramRefused(f"{name}: what is compared with a whole vocabulary is narrow")
        shift = x.fraction + matrix.fraction - fraction
        digits = matrix.parts(sum_limit(bound), False)
        parts: list[Part] = [(one.place, bound * one.reach, times(units, one.units, False)) for one in digits]
        stages = stages_of(name, [(place, reach) for place, reach, _ in parts], shift, SCORE_BITS + 1)
        total = x.units @ matrix.units.T
        raw = (total + ((1 << shift) >> 1)) >> shift
        top = raw.max(axis=-1, keepdims=True)
        check_range(name, top, SCORE_BITS)
        below: Units = top - raw
        check_apart(name, below)
        self._count_round(raw.size, stages, LOOKUP_BITS)
        self._count(values=top.size, looked_up=top.size * lookups(SCORE_BITS))
        self.counts.macs += len(parts) * x.units.size * matrix.shape[0]
        if self.recording:
            made = chain(name, total.shape, parts, stages, shift, raw)
            self._keep(name, "distances", {"x": x.units}, {"below": below, "top": top, **made})
        return below

    def look_up(self, name: str, table: Table, x: Units, live: float = 1.0) -> Value:
        """Entry by entry through a table, whose own range check of x this is. Raises OutOfRange."""
        index = x - table.first
        if index.size and (index.min() < 0 or index.max() >= len(table.entries)):
            raise OutOfRange(f"{name}: beyond the table {table.name}")
        found = table.entries[index]
        self._count(values=int(live * found.size), looked_up=int(live * found.size))
        self._keep(name, f"look_up {table.name}", {"x": x}, {"y": found})
        return Value(found, table.fraction, table.bound)

    def divide(self, name: str, x: Units, divisor: int, bound: int) -> Units:
        """x / divisor, rounded to nearest, halves up, for a public divisor: x + ⌊d/2⌋ = d·q + r, 0 ≤ r < d."""
        check_unique(name, bound + divisor, signed_bits(bound // divisor + 1), divisor.bit_length())
        quotient, rest = np.divmod(x + divisor // 2, divisor)
        quotient_lookups = lookups(signed_bits(bound // divisor + 1))
        self._count(values=2 * x.size, looked_up=(quotient_lookups + 2) * x.size)
        self._keep(name, "divide", {"x": x}, {"quotient": quotient, "rest": rest})
        return quotient

    def inverse(self, name: str, x: Units, numerator: int, bits: int) -> Units:
        """⌊numerator / x⌋ of positive x: r·x ≤ numerator < (r + 1)·x."""
        if x.size and x.min() < 1:
            raise OutOfRange(f"{name}: no inverse of {int(x.min())}")
        found = numerator // x
        check_range(name, found, bits)
        self._inequality(name, "inverse", x, found)
        return found

    def inverse_root(self, name: str, x: Units, numerator: int, bits: int, most: int | None = None) -> Units:
        """⌊√(numerator / x)⌋ of positive x: r²·x ≤ numerator < (r + 1)²·x; or `most`, where r ≥ most."""
        if x.size and x.min() < (0 if most is not None else 1):
            raise OutOfRange(f"{name}: no inverse root of {int(x.min())}")
        roots = [isqrt(numerator // max(1, int(one))) for one in x.reshape(-1)]
        roots = roots if most is None else [min(root, most) for root in roots]
        if max(roots, default=0) > 1 << (bits - 1):
            raise OutOfRange(f"{name}: an inverse root of {max(roots)} where the program allows {1 << (bits - 1)}")
        found = np.array(roots, dtype=np.int64).reshape(x.shape)
        self._inequality(name, "inverse_root", x, found)
        return found

    def squares(self, name: str, x: Value, cut: int) -> Units:
        """Σ x² over the last axis, exactly, from sums of products of pieces of `cut` bits that cannot wrap."""
        cuts, length = pieces(x, cut), x.shape[-1]
        most = max(bound for _, _, bound in cuts)
        if most**2 * length > ACCUMULATOR or x.bound**2 * length >= 1 << 63:
            raise ProgramRefused(f"{name}: {length} values are too many for one sum of squares")
        self._count(values=len(cuts) * x.units.size, looked_up=len(cuts) * x.units.size)
        self.counts.macs += len(cuts) * (len(cuts) + 1) // 2 * x.units.size
        found = np.asarray(np.einsum("...i,...i->...", x.units, x.units))
        made = {f"piece_{place}": units for units, place, _ in cuts}
        self._keep(name, "squares", {"x": x.units}, {**made, "sum": found})
        return found

    def rows(self, name: str, matrix: Matrix, index: Sequence[int]) -> Value:
        """Rows of a public matrix that the hidden `index` picks: (n, d). Raises OutOfRange beyond its last row."""
        places = np.array(index, dtype=np.int64)
        if not places.size or places.min() < 0 or places.max() >= matrix.shape[0]:
            raise OutOfRange(f"{name}: {places.size} rows, or one beyond the {matrix.shape[0]} that there are")
        found = matrix.units[places]
        self._count(values=found.size + places.size, looked_up=places.size)
        self._keep(name, "rows", {}, {"index": places, "y": found})
        return Value(found, matrix.fraction, largest(matrix.units))

    def ranged(self, name: str, x: Value, bits: int) -> Value:
        """The same numbers, shown to be in `bits` bits. Raises OutOfRange."""
        if x.bound <= 1 << (bits - 1):
            return x
        check_range(name, x.units, bits)
        each = limb_count(bits)
        self._count(values=each * x.units.size, looked_up=each * x.units.size)
        self._keep(name, "ranged", {"x": x.units}, {})
        return Value(x.units, x.fraction, 1 << (bits - 1))

    def _inequality(self, name: str, operation: str, x: Units, found: Units) -> None:
        self._count(values=INEQUALITY_VALUES * x.size, looked_up=INEQUALITY_VALUES * x.size)
        self._keep(name, operation, {"x": x}, {"root": found})

    def _round(
        self,
        name: str,
        operation: str,
        total: Units,
        parts: Sequence[Part],
        shift: int,
        fraction: int,
        bits: int,
        given: dict[str, Units],
        live: float = 1.0,
    ) -> Value:
        """⌊(total + 2^(shift−1)) / 2^shift⌋, in `bits` bits. Raises OutOfRange; ProgramRefused if a part could wrap."""
        if shift < 0:
            raise ProgramRefused(f"{name}: a rescale by 2^{shift} would invent digits")
        stages = stages_of(name, [(place, bound) for place, bound, _ in parts], shift, bits)
        end = stages[-1].place + stages[-1].bits
        bits = min(bits, stages[-1].carry_bits + end - shift)
        rounded = (total + ((1 << shift) >> 1)) >> shift
        check_range(name, rounded, bits)
        self._count_round(int(live * rounded.size), stages, bits)
        if self.recording:
            made = chain(name, total.shape, parts, stages, shift, rounded)
            self._keep(name, operation, given, {"y": rounded, **made})
        return Value(rounded, fraction, 1 << (bits - 1))

    def _count_round(self, size: int, stages: Sequence[Stage], bits: int) -> None:
        """Rests, carries between stages, and the result: one value, or its limbs where it is wide."""
        rests = sum(lookups(stage.bits) for stage in stages if stage.bits)
        carries = sum(lookups(stage.carry_bits) for stage in stages[:-1])
        each = rests + carries + limb_count(bits)
        self._count(values=each * size, looked_up=each * size)

    def _count(self, *, values: int, looked_up: int) -> None:
        self.counts.values += values
        self.counts.lookups += looked_up

    def _keep(self, name: str, operation: str, given: dict[str, Units], made: dict[str, Units]) -> None:
        if self.recording:
            self.steps.append(Step(name, operation, given, made))
