"""Building a circuit: where cells come from. With values it makes a witness too, without them only the relation.

ranged      cells in a public range, by look-up; wide ones in limbs
bits, free  cells that are 0 or 1; cells about which nothing is said yet
function    (x, table(x)) by look-up
times       products, place by place
equal       a wire is zero in every strip and lane
product     hidden matrices
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from math import prod

import numpy as np

from proofs.circuit.relations import AcrossLanes, Bilinear, Factor, Linear, Pair, Relation, Spread
from proofs.circuit.wire import CircuitRefused, Group, Lookup, Product, Units, Wire, strips_of
from proofs.errors import LocalFault
from proofs.field import DEGREE, NON_RESIDUE, P

LOOKUP_BITS = 16


class ValueRefused(LocalFault):
    """A value is outside the range that the circuit gives it: this example has no proof."""


@dataclass(frozen=True, eq=False)
class Table:
    """entries (n, columns): what may be looked up; the first column counts up from `first`. rows (n, d): more columns,
    of which only Σ γ_j·column_j is looked up. counts: there is no other column."""

    name: str
    first: int
    entries: Units
    rows: Units | None = None

    @classmethod
    @lru_cache(maxsize=256)
    def range(cls, low: int, high: int) -> Table:
        """The numbers from `low` to `high`."""
        entries = np.arange(low, high + 1, dtype=np.int64)[:, None]
        entries.setflags(write=False)
        return cls(f"range {low} {high}", low, entries)

    @cached_property
    def counts(self) -> bool:
        """Is it a range: nothing but the numbers from `first` on?"""
        numbers = np.arange(self.first, self.first + len(self.entries))[:, None]
        return self.rows is None and np.array_equal(self.entries, numbers)

    def places(self, keys: Units) -> Units:
        """Where each key stands. Raises ValueRefused."""
        found = keys - self.first
        if found.size and (found.min() < 0 or found.max() >= len(self.entries)):
            raise ValueRefused(f"a value is beyond the table {self.name}")
        return found


def products_in_k() -> tuple[tuple[Product, ...], ...]:
    """u·v − w = 0 in K, over columns u (0 to 3), v (4 to 7), w (8 to 11): one identity for each coefficient."""
    found = []
    for e in range(DEGREE):
        terms: list[Product] = [(P - 1, 2 * DEGREE + e, None)]
        for i in range(DEGREE):
            j = (e - i) % DEGREE
            terms.append((1 if i + j == e else NON_RESIDUE, i, DEGREE + j))
        found.append(tuple(terms))
    return tuple(found)


@dataclass(eq=False)
class Circuit:
    """`lanes`: the places of a strip. `proving`: values are there, and go with the wires."""

    lanes: int
    proving: bool
    groups: dict[str, Group] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    relations: list[Relation] = field(default_factory=list)
    turns: list[Units] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    foreign: dict[str, Group] = field(default_factory=dict)
    _turns: dict[bytes, int] = field(default_factory=dict, repr=False)

    # ---- cells

    def group(
        self,
        name: str,
        lanes: int,
        width: int,
        lookups: tuple[Lookup, ...] = (),
        identities: tuple[tuple[Product, ...], ...] = (),
        phase: int = 0,
    ) -> Group:
        """The group of that kind for strips of so many lanes; made when it is first asked for."""
        key = f"{name}/{lanes if lanes == 1 else 'text'}"
        if key not in self.groups:
            self.groups[key] = Group(key, lanes, width, lookups, identities, phase)
        return self.groups[key]

    def table(self, table: Table) -> str:
        known = self.tables.setdefault(table.name, table)
        if known is not table and not (
            known.first == table.first and known.rows is table.rows and np.array_equal(known.entries, table.entries)
        ):
            raise CircuitRefused(f"two tables of the name {table.name}")
        return table.name

    def put(self, group: Group, shape: tuple[int, ...], units: Sequence[Units | None]) -> list[Wire]:
        """Strips of that shape in every column of a group; units (*shape, lanes) by column."""
        flat = None
        if self.proving:
            flat = [self._flat(part, shape, group.lanes) for part in units]
        first = group.append(prod(shape), flat)
        return [strips_of(group, column, first, shape) for column in range(group.width)]

    def free(self, shape: tuple[int, ...], lanes: int, units: Units | None, bound: int = 0, fraction: int = 0) -> Wire:
        (wire,) = self.put(self.group("free", lanes, 1), shape, [units])
        return wire.with_(bound=bound, fraction=fraction)

    def bits(self, shape: tuple[int, ...], lanes: int, units: Units | None) -> Wire:
        """Cells that are 0 or 1."""
        group = self.group("bits", lanes, 1, identities=(((1, 0, 0), (P - 1, 0, None)),))
        (wire,) = self.put(group, shape, [units])
        return wire.with_(bound=1)

    def unsigned(self, shape: tuple[int, ...], lanes: int, bits: int, units: Units | None) -> Wire:
        """Cells from 0 to 2^bits − 1, two for one above 16 bits."""
        if bits <= 0:
            return Wire(shape, lanes, (), units=np.zeros((*shape, lanes), dtype=np.int64))
        if bits > LOOKUP_BITS:
            low = self.unsigned(shape, lanes, LOOKUP_BITS, _low(units, LOOKUP_BITS))
            high = self.unsigned(shape, lanes, bits - LOOKUP_BITS, _high(units, LOOKUP_BITS))
            return (low + high.scaled(1 << LOOKUP_BITS)).with_(bound=(1 << bits) - 1)
        return self.within(shape, lanes, 0, (1 << bits) - 1, units)

    def signed(self, shape: tuple[int, ...], lanes: int, bits: int, units: Units | None) -> Wire:
        """Cells from −2^(bits − 1) to 2^(bits − 1) − 1."""
        if bits > LOOKUP_BITS:
            low = self.unsigned(shape, lanes, LOOKUP_BITS, _low(units, LOOKUP_BITS))
            high = self.signed(shape, lanes, bits - LOOKUP_BITS, _high(units, LOOKUP_BITS))
            return (low + high.scaled(1 << LOOKUP_BITS)).with_(bound=1 << (bits - 1))
        return self.within(shape, lanes, -(1 << (bits - 1)), (1 << (bits - 1)) - 1, units)

    def within(self, shape: tuple[int, ...], lanes: int, low: int, high: int, units: Units | None) -> Wire:
        """Cells from `low` to `high`, at most 2^17 numbers."""
        if not 0 <= high - low < 1 << (LOOKUP_BITS + 1):
            raise CircuitRefused(f"a range of {high - low + 1} numbers is not looked up at once")
        name = self.table(Table.range(low, high))
        group = self.group(name, lanes, 1, (Lookup(name, (("1", 0),)),))
        if units is not None and units.size and (units.min() < low or units.max() > high):
            raise ValueRefused(f"a value that is not in the range of {low} to {high}")
        (wire,) = self.put(group, shape, [units])
        return wire.with_(bound=max(high, -low))

    def function(self, table: Table, x: Wire, more: int = 0) -> tuple[Group, Units | None]:
        """The group of (x, table(x)) pairs, and the values of the second."""
        name = self.table(table)
        if x.units is None or not self.proving:
            return self._pairs(name, x.lanes), None
        return self._pairs(name, x.lanes), table.entries[table.places(x.units), 1]

    def look_up(self, table: Table, x: Wire) -> Wire:
        """table(x), in every place."""
        group, found = self.function(table, x)
        key, value = self.put(group, x.shape, [x.units, found])
        self.equal(key - x.with_(fraction=0))
        return value

    def _pairs(self, name: str, lanes: int) -> Group:
        return self.group(name, lanes, 2, (Lookup(name, (("1", 0), ("β", 1))),))

    def times(self, x: Wire, y: Wire) -> Wire:
        """x·y, place by place and modulo p: that it does not wrap is the caller's affair."""
        group = self.group("product", x.lanes, 3, identities=(((1, 0, 1), (P - 1, 2, None)),))
        units = x.units * y.units if self.proving and x.units is not None and y.units is not None else None
        left, right, found = self.put(group, x.shape, [x.units, y.units, units])
        self.equal(left - x.with_(fraction=0))
        self.equal(right - y.with_(fraction=0))
        return found.with_(bound=x.bound * y.bound)

    # ---- relations

    def equal(self, *wires: Wire) -> None:
        """Each wire is zero modulo p."""
        for wire in wires:
            self.check(wire)
            self.relations.append(Linear(((None, _bare(wire)),)))

    def check(self, wire: Wire) -> None:
        """A prover's own mistakes show here, not at the end."""
        if self.proving and wire.units is not None and np.any(wire.units % P):
            raise ValueRefused("the values do not obey a relation of the circuit")

    def linear(self, *parts: tuple[Units | None, Wire]) -> None:
        self.relations.append(Linear(tuple((matrix, _bare(wire)) for matrix, wire in parts)))

    def across(self, strips: Sequence[tuple[Units, Wire]], wires: Sequence[Wire] = ()) -> None:
        bare = tuple((matrix, _bare(strip)) for matrix, strip in strips)
        self.relations.append(AcrossLanes(bare, tuple(map(_bare, wires))))

    def spread(self, wire: Wire, strip: Wire) -> None:
        self.relations.append(Spread(_bare(wire), _bare(strip)))

    def bilinear(self, pairs: Sequence[Pair], result: Wire) -> None:
        """Raises CircuitRefused where the tests would be known before what they test is fixed."""
        self._before_the_tests(result)
        self.relations.append(Bilinear(tuple(pairs), _bare(result), partial(_tests, self.tests_group())))

    def pair(self, left: Factor, right: Factor) -> Pair:
        """Tests for one product of hidden matrices; see relations.Factor. Raises as `bilinear` does."""
        self._before_the_tests(left.wire, right.wire)
        found = Pair(left, right, sum(pair.count for pair in self.pairs))
        self.pairs.append(found)
        self.tests_group().append(found.count, None)
        return found

    @staticmethod
    def _before_the_tests(*wires: Wire) -> None:
        if any(term.group.phase for wire in wires for term in wire.terms):
            raise CircuitRefused("a product is tested by vectors that its own cells could be chosen by")

    def tests_group(self) -> Group:
        return self.group("product in K", 1, 3 * DEGREE, identities=products_in_k(), phase=1)

    def turn(self, vector: Units) -> int:
        """The number of a public vector over the lanes."""
        number = self._turns.setdefault(vector.tobytes(), len(self.turns))
        if number == len(self.turns):
            self.turns.append(vector)
        return number

    @staticmethod
    def _flat(part: Units | None, shape: tuple[int, ...], lanes: int) -> Units:
        if part is None:
            raise CircuitRefused("a circuit with values was given none")
        return np.asarray(np.broadcast_to(part, (*shape, lanes)).reshape(prod(shape), lanes))


def _bare(wire: Wire) -> Wire:
    """Without its values, which relations do not need and would keep."""
    return wire if wire.units is None else wire.with_(units=None, limbs=None)


def _tests(group: Group, column: int, first: int, count: int) -> Wire:
    return strips_of(group, column, first, (count,))


def _low(units: Units | None, bits: int) -> Units | None:
    return None if units is None else units & ((1 << bits) - 1)


def _high(units: Units | None, bits: int) -> Units | None:
    return None if units is None else units >> bits
