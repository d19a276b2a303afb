"""The weights that the relations of a circuit give its cells: section 2 of README.md, for the second verifier.

In plain integers as second_verifier.py, and from the text alone as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from typing import Any

import numpy as np

from proofs.circuit.builder import Circuit
from proofs.circuit.relations import AcrossLanes, Bilinear, Factor, Keyed, Linear, Pair, Spread
from proofs.circuit.wire import CircuitRefused, Group, Wire
from proofs.plain import BASIS, P, dot, elements_drawn, minus, reduced


def integers(array: Any, shape: tuple[int, ...] | None = None) -> list[Any]:
    """An array, spread out to a shape, as lists of Python's integers: the border beyond which there is no numpy."""
    found: list[Any] = np.asarray(array if shape is None else np.broadcast_to(array, shape)).tolist()
    return found


def _flat(array: Any, shape: tuple[int, ...]) -> list[list[int]]:
    """The rows of the last axis, one after the other."""
    return integers(np.broadcast_to(array, shape).reshape(prod(shape[:-1]), shape[-1]))


class Lots:
    """Elements of K drawn from one key, lot after lot."""

    def __init__(self, key: bytes) -> None:
        self._key, self._number = key, 0

    def draw(self, count: int) -> list[int]:
        self._number += 1
        return elements_drawn(sha256(self._key + self._number.to_bytes(4, "big")).digest(), count)


@dataclass(frozen=True)
class Drawn:
    """What the verifier drew while the trees came, and the two keys of the sum."""

    left: list[int]
    right: list[int]
    beta: int
    gamma: list[int]
    alpha: int
    chi: Lots
    lots: Lots


def free_places(circuit: Circuit, side: Factor) -> int:
    """How long the side of a product is that is not summed over."""
    return circuit.lanes if side.contract == "strips" else side.wire.shape[-1]


class Weights:
    """The weight of every cell that relations speak of, and the target of the sum. cells: by group and column, strip
    after strip; elsewhere: by section, row and lane. Sums of products, to be reduced when all are there."""

    def __init__(self, circuit: Circuit, drawn: Drawn) -> None:
        self._circuit, self._drawn = circuit, drawn
        self._lambda = drawn.lots.draw(circuit.lanes)
        self._turns: list[list[int]] = [integers(turn) for turn in circuit.turns]
        self.cells: dict[tuple[str, int], list[int]] = {}
        self.elsewhere: dict[tuple[str, int, int], int] = {}
        self.target = 0

    def add_relations(self) -> None:
        for relation in self._circuit.relations:
            if isinstance(relation, Linear):
                self._linear(relation)
            elif isinstance(relation, AcrossLanes):
                self._across(relation)
            elif isinstance(relation, Spread):
                self._spread(relation)
            elif isinstance(relation, Keyed):
                self._keyed(relation)
            else:
                self._bilinear(relation)

    def _draw(self, count: int) -> list[int]:
        return self._drawn.lots.draw(count)

    def _places(self, lanes: int) -> list[int]:
        """λ; 1 for strips of one place."""
        return self._lambda if lanes > 1 else [1]

    def _add(self, wire: Wire, factors: Sequence[int], over: Sequence[int]) -> None:
        """Weight factors[f]·over[a] for place a of strip f, both reduced or negative reduced elements."""
        if len(factors) != wire.size or len(over) != wire.lanes:
            raise CircuitRefused(f"{len(factors)} factors over {len(over)} places for a wire of {wire.shape}")
        turned: dict[int, list[int]] = {}
        for term in wire.terms:
            shape = (*wire.shape, term.index.shape[-1])
            turns = [[-1] * shape[-1]] * wire.size if term.turn is None else _flat(term.turn, shape)
            by_strip = zip(_flat(term.index, shape), _flat(term.coefficient, shape), turns, strict=True)
            for factor, strips in zip(factors, by_strip, strict=True):
                for strip, coefficient, turn in zip(*strips, strict=True):
                    if turn not in turned:
                        by = [1] * wire.lanes if turn < 0 else self._turns[turn]
                        turned[turn] = [
                            reduced(value * (by_place % P)) for value, by_place in zip(over, by, strict=True)
                        ]
                    if coefficient:
                        self._put(term.group, term.column, strip, reduced(factor * (coefficient % P)), turned[turn])
        if wire.constant is not None:
            for factor, constants in zip(factors, _flat(wire.constant, (*wire.shape, wire.lanes)), strict=True):
                if any(constants):
                    weighed = reduced(dot(over, (constant % P for constant in constants)))
                    self.target += factor * minus(weighed)

    def _put(self, group: Group, column: int, strip: int, factor: int, over: list[int]) -> None:
        if group.name in self._circuit.foreign:
            foreign: Any = self._circuit.foreign[group.name]
            cell = (foreign.section, int(foreign.rows[strip]), int(foreign.places[strip]))
            self.elsewhere[cell] = self.elsewhere.get(cell, 0) + factor * over[0]
            return
        cells = self.cells.setdefault((group.name, column), [0] * (group.size * group.lanes))
        for place, value in enumerate(over, strip * group.lanes):
            cells[place] += factor * value

    def _linear(self, relation: Linear) -> None:
        matrix, wire = relation.parts[0]
        factors = self._draw(wire.size if matrix is None else matrix.shape[0])
        for matrix, wire in relation.parts:
            of_strips = factors if matrix is None else _transposed(integers(matrix), factors)
            self._add(wire, of_strips, self._places(wire.lanes))

    def _across(self, relation: AcrossLanes) -> None:
        factors = self._draw(relation.strips[0][0].shape[0])
        for matrix, strip in relation.strips:
            self._add(strip, [1], _transposed(integers(matrix), factors))
        for wire in relation.wires:
            self._add(wire, factors, [1])

    def _spread(self, relation: Spread) -> None:
        factors, places = self._draw(relation.wire.size), self._places(relation.wire.lanes)
        self._add(relation.wire, factors, places)
        count = relation.wire.shape[-1]
        by_place = (reduced(sum(factors[place::count])) for place in range(count))
        self._add(relation.strip, [minus(reduced(sum(places)))], list(by_place))

    def _keyed(self, relation: Keyed) -> None:
        (of_ids,), (of_key,) = self._draw(1), self._draw(1)
        places = self._places(relation.index.lanes)
        self._add(relation.index, [of_ids], places)
        self._add(relation.ids, [minus(of_ids)], places)
        for element, wire in zip(BASIS, relation.key, strict=True):
            self._add(wire, [reduced(of_key * element)], places)
        factors = self._drawn.gamma[: relation.values.size]
        self._add(relation.values, [minus(reduced(of_key * factor)) for factor in factors], places)

    def _bilinear(self, relation: Bilinear) -> None:
        drawn, circuit = self._drawn, self._circuit
        matrices = relation.pairs[0].left.wire.shape[0]
        for pair in relation.pairs:
            self._side(pair, pair.left, 0, drawn.left)
            self._side(pair, pair.right, 4, drawn.right)
        factors = self._draw(matrices)
        for pair in relation.pairs:
            each = pair.count // matrices
            self._tests(pair, 8, [factor for factor in factors for _ in range(each)])
        x, y = (free_places(circuit, side) for side in (relation.pairs[0].left, relation.pairs[0].right))
        of_result = [reduced(minus(factor) * value) for factor in factors for value in drawn.right[:y]]
        if relation.result.lanes > 1:
            self._add(relation.result, of_result, drawn.left[:x])
        else:
            rights = [of_result[start : start + y] for start in range(0, len(of_result), y)]
            cells = [reduced(left * value) for row in rights for left in drawn.left[:x] for value in row]
            self._add(relation.result, cells, [1])

    def _tests(self, pair: Pair, column: int, factors: list[int]) -> None:
        """Weights of a u, v or w of the products in K that test a pair."""
        group = self._circuit.groups["product in K/1"]
        for place, element in enumerate(BASIS):
            for strip, factor in enumerate(factors, pair.first):
                self._put(group, column + place, strip, reduced(factor * element), [1])

    def _side(self, pair: Pair, side: Factor, column: int, test: list[int]) -> None:
        """u or v is the side's combination by the test."""
        shape = side.wire.shape
        if side.contract == "lanes":
            by_matrix, places = self._draw(shape[0]), self._places(side.wire.lanes)
            factors = [reduced(factor * value) for factor in by_matrix for value in places]
            cells = [reduced(minus(factor) * value) for factor in by_matrix for value in test[: shape[1]]]
            self._add(side.wire, cells, places)
        else:
            factors = self._draw(shape[0] * shape[1])
            if side.contract == "strips":
                self._add(side.wire, [minus(factor) for factor in factors], test[: self._circuit.lanes])
            else:
                cells = [reduced(minus(factor) * value) for factor in factors for value in test[: shape[2]]]
                self._add(side.wire, cells, [1])
        self._tests(pair, column, factors)


def _transposed(matrix: list[list[int]], factors: list[int]) -> list[int]:
    """matrixᵀ·factors."""
    return [reduced(dot(factors, (value % P for value in column))) for column in zip(*matrix, strict=True)]
