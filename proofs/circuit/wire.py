"""Groups of columns, in which the cells of a circuit lie, and wires: linear forms over cells.

A *strip* is one value for each of `lanes` places: the tokens of a text, or a single one. A group holds strips in
columns side by side, so that a rule of the group speaks about the cells of one place in all of its columns. A wire is
an array of strips, each a sum of public multiples of strips; it costs nothing until it is made to be zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proofs.gradient.numbers import ProgramRefused

Units = NDArray[np.int64]
Product = tuple[int, int, int | None]  # coefficient, column, and the column that it is multiplied by


class CircuitRefused(ProgramRefused):
    """The circuit itself is not one that can be proven, whatever the values."""


@dataclass(frozen=True)
class Lookup:
    """In every place of a group, Σ factor·column is an entry of `table`. Factors are named: "1", "β", "e0" … "e3"."""

    table: str
    columns: tuple[tuple[str, int], ...]


@dataclass(eq=False)
class Group:
    """`width` columns of strips. identities: sums of products that vanish in every place. phase 1: committed to after
    the first challenge, and holding elements of F that make up elements of K, four columns for one."""

    name: str
    lanes: int
    width: int
    lookups: tuple[Lookup, ...] = ()
    identities: tuple[tuple[Product, ...], ...] = ()
    phase: int = 0
    size: int = 0
    _units: Units = field(default_factory=lambda: np.zeros((0, 0, 0), dtype=np.int64), repr=False)

    def append(self, count: int, units: Sequence[Units] | None) -> int:
        """Room for `count` strips in every column; their values (count, lanes) by column. Returns the first strip."""
        first, self.size = self.size, self.size + count
        if units is None:
            return first
        if self._units.shape[1] < self.size:
            grown = np.zeros((self.width, max(64, 2 * self.size), self.lanes), dtype=np.int64)
            grown[:, : self._units.shape[1]] = self._units if self._units.size else 0
            self._units = grown
        for column, part in enumerate(units):
            self._units[column, first : self.size] = part
        return first

    def fill(self, units: Units) -> None:
        """The values of all strips at once, (width, size, lanes)."""
        self._units = np.ascontiguousarray(units.reshape(self.width, self.size, self.lanes))

    @property
    def holds_values(self) -> bool:
        return bool(self._units.size)

    def units(self, column: int) -> Units:
        """(size, lanes)."""
        return self._units[column, : self.size]


@dataclass(frozen=True, eq=False)
class Term:
    """index, coefficient (*shape, c): Σ over c of coefficient·strip; (1, …, 1) is one coefficient for all. turn: the
    public vector over the lanes by which each strip is multiplied, by number, or None."""

    group: Group
    column: int
    index: Units
    coefficient: Units
    turn: Units | None = None


@dataclass(frozen=True, eq=False)
class Wire:
    """`shape` strips of `lanes` places each. units (*shape, lanes): the values, where they are known.

    fraction, bound: as of proofs.gradient.numbers.Value. limbs: (place, wire) with wire = Σ 2^place·limb, where the
    circuit holds it in limbs already. row_sum: a bound on Σ|units| over the last axis of the shape.
    """

    shape: tuple[int, ...]
    lanes: int
    terms: tuple[Term, ...]
    constant: Units | None = None
    units: Units | None = field(default=None, repr=False)
    fraction: int = 0
    bound: int = 0
    limbs: tuple[tuple[int, Wire], ...] | None = None
    row_sum: int | None = None

    @property
    def size(self) -> int:
        return prod(self.shape)

    def known(self) -> Units:
        if self.units is None:
            raise CircuitRefused("a circuit without values has none to compute with")
        return self.units

    def with_(self, **changes: Any) -> Wire:
        return Wire(**(vars(self) | changes))

    def __add__(self, other: Wire) -> Wire:
        if self.shape != other.shape or self.lanes != other.lanes or self.fraction != other.fraction:
            raise CircuitRefused(f"wires of {self.shape} and {other.shape} do not add up")
        return Wire(
            self.shape,
            self.lanes,
            self.terms + other.terms,
            _plus(self.constant, other.constant),
            None if self.units is None or other.units is None else self.units + other.units,
            self.fraction,
            self.bound + other.bound,
        )

    def __sub__(self, other: Wire) -> Wire:
        return self + other.scaled(-1)

    def scaled(self, factor: int | Units) -> Wire:
        """Times a public integer, or one for each strip (broadcast to the shape)."""
        given = np.asarray(factor, dtype=np.int64)
        alone = given.size == 1
        each = given.reshape((1,) * len(self.shape)) if alone else np.broadcast_to(given, self.shape)
        by_strip = each[..., None]
        terms = tuple(
            Term(term.group, term.column, term.index, term.coefficient * by_strip, term.turn) for term in self.terms
        )
        constant = None if self.constant is None else self.constant * by_strip
        units = None if self.units is None else self.units * by_strip
        most = abs(given.item()) if alone else int(np.abs(each).max(initial=0))
        return Wire(self.shape, self.lanes, terms, constant, units, self.fraction, self.bound * most)

    def plus(self, constant: Units | int) -> Wire:
        """A public addend, broadcast to (*shape, lanes)."""
        added = np.broadcast_to(np.asarray(constant, dtype=np.int64), (*self.shape, self.lanes))
        units = None if self.units is None else self.units + added
        bound = self.bound + int(np.abs(added).max(initial=0))
        return Wire(self.shape, self.lanes, self.terms, _plus(self.constant, added), units, self.fraction, bound)

    def shaped(self, change: Callable[[Units], Units]) -> Wire:
        """Strips picked and put into another order or shape, as `change` does it with an array of the shape."""
        picked = change(np.arange(self.size, dtype=np.int64).reshape(self.shape))
        terms = tuple(_picked(term, self.size, picked) for term in self.terms)
        constant, units = (
            None if array is None else array.reshape(self.size, self.lanes)[picked]
            for array in (self.constant, self.units)
        )
        limbs = self.limbs and tuple((place, limb.shaped(change)) for place, limb in self.limbs)
        return Wire(picked.shape, self.lanes, terms, constant, units, self.fraction, self.bound, limbs)

    def placed(self, places: Units, count: int) -> Wire:
        """`count` strips, these ones at their places and nothing elsewhere."""
        where = np.full(count, self.size, dtype=np.int64)
        where[places] = np.arange(self.size)
        terms = tuple(_placed(term, self.size, where) for term in self.terms)
        nothing = np.zeros((1, self.lanes), dtype=np.int64)
        constant, units = (
            None if array is None else np.concatenate([array.reshape(self.size, -1), nothing])[where]
            for array in (self.constant, self.units)
        )
        return Wire((count,), self.lanes, terms, constant, units, self.fraction, self.bound)

    def turned(self, turns: Units, vectors: Units) -> Wire:
        """Each strip times a public vector over the lanes: their numbers (*shape,), and what they are (…, lanes) in the
        last axes of the shape."""
        if self.constant is not None or any(term.turn is not None for term in self.terms):
            raise CircuitRefused("a constant, or what was turned already, is not turned")
        terms = tuple(
            replace(term, turn=np.broadcast_to(turns[..., None], term.index.shape).copy()) for term in self.terms
        )
        units = None if self.units is None else self.units * vectors
        return Wire(self.shape, self.lanes, terms, None, units, self.fraction, self.bound)

    def summed(self) -> Wire:
        """Over the last axis of the shape."""
        terms = tuple(_summed(term) for term in self.terms)
        constant, units = (
            None if array is None else array.sum(axis=len(self.shape) - 1) for array in (self.constant, self.units)
        )
        return Wire(self.shape[:-1], self.lanes, terms, constant, units, self.fraction, self.bound * self.shape[-1])

    def spread(self, count: int) -> Wire:
        """Each strip `count` times, along a new last axis."""
        return self.shaped(lambda strips: np.broadcast_to(strips[..., None], (*self.shape, count)))


def strips_of(group: Group, column: int, first: int, shape: tuple[int, ...]) -> Wire:
    """The wire of strips as they lie in a column."""
    index = (first + np.arange(prod(shape), dtype=np.int64)).reshape(*shape, 1)
    units = None
    if group.holds_values:
        units = group.units(column)[first : first + prod(shape)].reshape(*shape, group.lanes).copy()
    return Wire(shape, group.lanes, (Term(group, column, index, _ones(len(shape) + 1)),), units=units)


def constant_wire(units: Units, lanes: int, fraction: int) -> Wire:
    """A public constant (*shape,), the same in every lane, or (*shape, lanes) where lanes says so by a last axis."""
    whole = np.broadcast_to(units[..., None], (*units.shape, lanes))
    return Wire(units.shape, lanes, (), whole, whole, fraction, int(np.abs(units).max(initial=0)))


@lru_cache
def _ones(axes: int) -> Units:
    found = np.ones((1,) * axes, dtype=np.int64)
    found.setflags(write=False)
    return found


def _plus(a: Units | None, b: Units | None) -> Units | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b


def _picked(term: Term, size: int, picked: Units) -> Term:
    def taken(array: Units) -> Units:
        return array.reshape(size, array.shape[-1])[picked]

    return _moved(term, taken, _ones(picked.ndim + 1))


def _placed(term: Term, size: int, where: Units) -> Term:
    def moved(array: Units) -> Units:
        flat = array.reshape(size, array.shape[-1])
        return np.concatenate([flat, np.zeros((1, flat.shape[1]), dtype=np.int64)])[where]

    coefficient = np.broadcast_to(term.coefficient, term.index.shape)  # nothing stands where no strip was put
    return _moved(replace(term, coefficient=coefficient), moved, None)


def _summed(term: Term) -> Term:
    def joined(array: Units) -> Units:
        return array.reshape(*array.shape[:-2], array.shape[-2] * array.shape[-1])

    return _moved(term, joined, _ones(term.index.ndim - 1))


def _moved(term: Term, change: Callable[[Units], Units], ones: Units | None) -> Term:
    """Each array changed; one coefficient for all stays one."""
    alone = ones is not None and term.coefficient.size == 1
    coefficient = (
        ones * term.coefficient.reshape(())
        if ones is not None and alone
        else change(np.broadcast_to(term.coefficient, term.index.shape))
    )
    turn = None if term.turn is None else change(term.turn)
    return Term(term.group, term.column, change(term.index), coefficient, turn)
