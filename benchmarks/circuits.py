"""A small circuit that has one of everything: groups, look-ups, wires, relations, and every kind of product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from proofs.circuit.builder import Circuit, Table
from proofs.circuit.foreign import foreign
from proofs.circuit.relations import Factor, Keyed
from proofs.circuit.wire import Lookup, Units, Wire, strips_of
from proofs.field import P

SQUARES = Table("squares", -6, np.array([(x, x * x - 7) for x in range(-6, 9)], dtype=np.int64))


class Toy:
    """Builds it, with random values where they are wanted; `circuit` is the result. outside: by section, its rows in
    a tree from elsewhere, of which some cells take part."""

    def __init__(self, lanes: int, proving: bool, outside: Mapping[str, Units] | None = None, seed: int = 1) -> None:
        self.circuit = Circuit(lanes, proving)
        self._rng, self._lanes = np.random.default_rng(seed), lanes
        for section, rows in (outside or {}).items():
            self.elsewhere(section, rows)
        self.cells()
        self.linear()
        self.turned()
        self.across()
        self.spread()
        self.keyed()
        self.masked()
        self.products()

    def random(self, shape: tuple[int, ...], lanes: int, low: int, high: int) -> Units | None:
        found = self._rng.integers(low, high, (*shape, lanes), endpoint=True)
        return found if self.circuit.proving else None

    def free(self, shape: tuple[int, ...], lanes: int, low: int = -(1 << 20), high: int = 1 << 20) -> Wire:
        return self.circuit.free(shape, lanes, self.random(shape, lanes, low, high))

    def known(self, wire: Wire) -> Units | None:
        return wire.units if self.circuit.proving else None

    def turned_wire(self, shape: tuple[int, ...]) -> Wire:
        """Strips that are turned, not turned, and constant, added up."""
        vectors = self.constant(3, self._lanes)
        numbers = np.arange(int(np.prod(shape))).reshape(shape) % 3
        turns = np.array([self.circuit.turn(vector) for vector in vectors])[numbers]
        turned = self.free(shape, self._lanes, -9, 9).turned(turns, vectors[numbers])
        return (turned + self.free(shape, self._lanes, -99, 99).scaled(-2)).plus(self.constant(*shape, self._lanes))

    def constant(self, *shape: int) -> Units:
        return np.asarray(np.random.default_rng(sum(shape)).integers(-50, 50, shape), dtype=np.int64)

    def cells(self) -> None:
        for lanes in (self._lanes, 1):
            x = self.circuit.within((4, 3), lanes, -6, 8, self.random((4, 3), lanes, -6, 8))
            y = self.circuit.look_up(SQUARES, x)
            bit = self.circuit.bits((4, 3), lanes, self.random((4, 3), lanes, 0, 1))
            product = self.circuit.times(bit, y)
            same = self.circuit.free((4, 3), lanes, self.known(product))
            self.circuit.equal(product - same, (x + x).scaled(3) - x.scaled(6))
        self.circuit.unsigned((7,), 1, 3, self.random((7,), 1, 0, 7))

    def linear(self) -> None:
        for lanes in (self._lanes, 1):
            x, y = self.free((6,), lanes), self.free((2, 2), lanes)
            matrix, other, addend = self.constant(3, 6), self.constant(3, 4), self.constant(3, lanes)
            found = None
            if x.units is not None and y.units is not None:
                found = matrix @ x.units + other @ y.units.reshape(4, lanes) + addend
            result = self.circuit.free((3,), lanes, found)
            flat = y.shaped(lambda strips: strips.reshape(4))
            self.circuit.linear((matrix, x), (other, flat), (None, result.scaled(-1).plus(addend)))
            shifted = x.plus(self.constant(6, lanes)).scaled(np.arange(6) - 2)
            again = self.circuit.free((2, 3), lanes, None if shifted.units is None else shifted.units.reshape(2, 3, -1))
            self.circuit.equal(again - shifted.shaped(lambda strips: strips.reshape(2, 3)))
            total = self.circuit.free((2,), lanes, None if again.units is None else again.units.sum(axis=1))
            self.circuit.equal(total.placed(np.array([3, 0]), 5) - again.summed().placed(np.array([3, 0]), 5))

    def turned(self) -> None:
        x = self.free((2, 3), self._lanes)
        vectors = self.constant(4, self._lanes)
        numbers = np.array([self.circuit.turn(vector) for vector in vectors])[np.array([[0, 1, 2], [3, 1, 0]])]
        turned = x.turned(numbers, vectors[numbers])
        self.circuit.equal(turned - self.circuit.free((2, 3), self._lanes, self.known(turned)))

    def across(self) -> None:
        x, turn = self.free((1,), self._lanes).plus(self.constant(1, self._lanes)), self.constant(1, self._lanes)
        y = self.free((1,), self._lanes).turned(np.array([self.circuit.turn(turn[0])]), turn)
        first, second, addend = self.constant(5, self._lanes), self.constant(5, self._lanes) + 1, self.constant(5, 1)
        found = None
        if x.units is not None and y.units is not None:
            found = (first @ x.units[0] + second @ y.units[0])[:, None] + addend
        result = self.circuit.free((5,), 1, found)
        self.circuit.across([(first, x), (second, y)], [result.scaled(-1).plus(addend)])

    def spread(self) -> None:
        strip = self.free((1,), self._lanes).plus(self.constant(1, self._lanes)).scaled(3)
        for shape, lanes in (((2, self._lanes), self._lanes), ((2, 3, self._lanes), 1)):
            units = None
            if strip.units is not None:
                units = np.broadcast_to(strip.units[0][:, None], (*shape, lanes))
            self.circuit.spread(self.circuit.free(shape, lanes, units), strip)

    def keyed(self, name: str = "rows", count: int = 9, width: int = 6) -> None:
        rows, last = self.constant(count, width), count - 1
        table = self.circuit.table(Table(name, 0, np.arange(count, dtype=np.int64)[:, None], rows=rows))
        ids = self.free((1,), self._lanes, 0, last)
        units = None if ids.units is None else last - ids.units
        ids = self.circuit.free((1,), self._lanes, units).scaled(-1).plus(last)
        values = self.circuit.free((width,), self._lanes, None if ids.units is None else rows[ids.units[0]].T)
        columns = (("1", 0), *((f"e{place}", 1 + place) for place in range(4)))
        group = self.circuit.group(name, self._lanes, 5, (Lookup(table, columns),), phase=1)
        first = group.append(1, None)
        cells = [strips_of(group, column, first, (1,)) for column in range(5)]
        self.circuit.relations.append(Keyed(cells[0], tuple(cells[1:]), ids, values))

    def elsewhere(self, section: str, rows: Units) -> None:
        """Some cells, one of them named twice, of which the second group names two of the first once more."""
        rng = np.random.default_rng(len(rows))
        places = rng.choice(rows.size, 9, replace=False)
        for part in (places[[0, 1, 2, 3, 4, 5, 0]], places[4:]):
            row, lane = np.divmod(part, rows.shape[1])
            units = rows[row, lane] if self.circuit.proving else None
            found = foreign(self.circuit, f"{section} from {part[0]}", section, row, lane, (len(part),), units)
            self.circuit.equal(found - self.circuit.free((len(part),), 1, self.known(found)))

    def masked(self) -> None:
        """(x, y, mask, slack, pick): a look-up and identities of one, two and three terms."""
        name = self.circuit.table(SQUARES)
        identities = (
            ((1, 2, 3),),
            ((1, 1, None), (P - 1, 2, 1), (1, 3, None)),
            ((1, 4, 0),),
            ((1, 4, 4), (P - 1, 4, None)),
        )
        group = self.circuit.group("masked", self._lanes, 5, (Lookup(name, (("1", 0), ("β", 1))),), identities)
        x = self.random((8,), self._lanes, -6, 8)
        units: list[Units | None] = [None] * 5
        if x is not None:
            y = x * x - 7
            units = [x, y, np.ones_like(x), np.zeros_like(x), (x == 0).astype(np.int64)]
        self.circuit.put(group, (8,), units)

    def products(self) -> None:
        lanes, many = self._lanes, 2 * self._lanes
        self.product([("strips", "strips", 3)], lanes, lanes)
        self.product([("strips", "both", 4), ("strips", "both", 2)], lanes, 5)
        self.product([("lanes", "lanes", lanes), ("both", "lanes", lanes)], 3, 2)
        self.product([("both", "both", 3)], 2, many)
        self.product([("lanes", "strips", lanes)], 4, lanes)
        self.product([("both", "strips", 1), ("lanes", "strips", lanes)], 4, lanes)

    def product(self, kinds: Sequence[tuple[str, str, int]], x: int, y: int, matrices: int = 2) -> None:
        """Σ over pairs of left·right, whose sizes of free sides are x and y, is the result."""
        total: NDArray[np.int64] | None = None
        pairs = []
        for left, right, inner in kinds:
            first, of_left = self.side(left, matrices, inner, x)
            second, of_right = self.side(right, matrices, inner, y)
            pairs.append(self.circuit.pair(first, second))
            if of_left is not None and of_right is not None:
                part = np.einsum("hjx,hjy->hxy", of_left, of_right)
                total = part if total is None else total + part
        if kinds[0][0] == "strips":
            units = None if total is None else total.transpose(0, 2, 1)
            result = self.circuit.free((matrices, y), self._lanes, None if units is None else units - 3).plus(3)
        else:
            result = self.circuit.free((matrices, x, y), 1, None if total is None else total[..., None])
        self.circuit.bilinear(pairs, result)

    def side(self, kind: str, matrices: int, inner: int, free: int) -> tuple[Factor, Units | None]:
        """A side, and its values (h, j, free)."""
        if kind == "strips":
            wire = self.turned_wire((matrices, inner))
            return Factor(wire, kind), wire.units
        if kind == "lanes":
            wire = self.turned_wire((matrices, free))
            return Factor(wire, kind), None if wire.units is None else wire.units.transpose(0, 2, 1)
        wire = self.free((matrices, inner, free), 1, -99, 99).plus(7)
        return Factor(wire, kind), None if wire.units is None else wire.units[..., 0]
