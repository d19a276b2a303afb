"""A second verifier of the proof of a circuit, written from README.md alone, in plain integers.

It shares nothing with the first but the circuit, the names of errors and what proofs/plain.py has, and takes its time.
What the two do not agree on is a mistake in one of them, or in the text. Sections are those of README.md beside this
file, and of proofs/README.md where that is said. Elements of K are integers as in proofs/plain.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from hashlib import sha256
from itertools import chain, islice
from math import prod
from struct import unpack_from
from typing import Any

import numpy as np

from proofs.circuit.builder import Circuit, Table
from proofs.circuit.relations import AcrossLanes, Bilinear, Factor, Keyed, Linear, Pair, Spread
from proofs.circuit.wire import CircuitRefused, Group, Lookup, Wire
from proofs.plain import (
    P,
    Point,
    Transcript,
    dot,
    element_of,
    elements_drawn,
    elements_of,
    evaluate,
    inverses_of,
    minus,
    points_of,
    reduced,
    root_of,
    root_of_unity,
    siblings_of,
)
from proofs.proof import CellsFailed, OpeningInvalid, ProofMalformed, ProximityFailed, SumsFailed

MOST_QUERIES = 128
_BASIS = tuple(1 << 96 * place for place in range(4))
_Key = tuple[str, str, int]  # what a section holds, of what, and its number there
_Column = dict[_Key, tuple[int, ...]]  # the entries of an opened column, by section
_MASKS = {"proximity": 4, "cells": 12, "sums": 12}


def verify(
    statement: bytes,
    circuit: Circuit,
    row: int,
    elsewhere_sections: Sequence[Sequence[tuple[str, int]]],
    roots: Sequence[bytes],
    proof: bytes,
    protocol: bytes = b"candor/circuit-proof/2",
) -> None:
    """Section 5. statement: 32 bytes that name all that is public. elsewhere_sections: (name, rows) of the sections of
    each tree from elsewhere; roots: theirs.

    Returns when `proof` proves that the circuit can be satisfied; raises the first of ProofInvalid otherwise, or
    CircuitRefused where there is no proof of that circuit.
    """
    sizes = _Sizes(circuit, row, elsewhere_sections)
    k, t, height, at = row, sizes.t, row.bit_length() + 2, 0
    if k * sum(sum(tree.values()) for tree in sizes.trees) > 1 << 27:
        raise CircuitRefused("more than 2^27 cells")
    if not sizes.fixed <= len(proof) <= sizes.fixed + 32 * len(sizes.trees) * height * t:
        raise ProofMalformed(f"{len(proof)} bytes cannot be the {sizes.fixed} of a proof and its openings")

    def take(count: int) -> bytes:
        nonlocal at
        at += count
        return proof[at - count : at]

    own = [take(32) for _ in range(3)]
    counts = {"proximity": k, "cells": k + t, "sums": 2 * k - 1}
    sent = {name: take(16 * count) for name, count in counts.items()}
    polynomials = {name: elements_of(_below_p(data)) for name, data in sent.items()}
    transcript = Transcript(protocol)
    transcript.absorb("statement", statement)
    transcript.absorb("values", own[0])
    longest = _longest_test(circuit)
    tests = transcript.elements("tests", 2 * longest + 1 + _widest_rows(circuit))
    transcript.absorb("tests", own[1])
    (alpha,) = transcript.elements("tables", 1)
    transcript.absorb("inverses", own[2])
    widths = [sum(tree.values()) for tree in sizes.trees]
    factors = transcript.elements("proximity", sum(widths) - _MASKS["proximity"])
    cell_factors = transcript.elements("cells", sizes.identities)
    keys = transcript.draw("table sums"), transcript.draw("sums")
    for name, data in sent.items():
        transcript.absorb(name, data)
    positions = transcript.positions("columns", t, 8 * k)
    leaves = [[take(16 + 4 * width) for _ in positions] for width in widths]
    beside = siblings_of(positions, height)
    if len(proof) != at + 32 * len(widths) * beside:
        raise ProofMalformed(f"{len(proof) - at} bytes of openings, where these columns have {beside} hashes a tree")
    entries = [
        tuple(chain.from_iterable(_below_p(leaf[16:]) for leaf in column)) for column in zip(*leaves, strict=True)
    ]
    for root, tree in zip((*roots, *own), leaves, strict=True):
        if root_of(positions, tree, [take(32) for _ in range(beside)], height) != root:
            raise OpeningInvalid(f"columns do not lead to the root {root.hex()}")
    columns = [sizes.by_section(column) for column in entries]
    drawn = _Drawn(
        tests[:longest],
        tests[longest : 2 * longest],
        tests[2 * longest],
        tests[2 * longest + 1 :],
        alpha,
        *map(_Lots, keys),
    )
    opened = _Opened(circuit, sizes, drawn, list(zip(columns, points_of(k, k, positions), strict=True)))
    _check_proximity(opened, factors, polynomials["proximity"])
    _check_cells(opened, cell_factors, polynomials["cells"])
    _check_sums(opened, polynomials["sums"])


def _below_p(data: bytes) -> tuple[int, ...]:
    words = unpack_from(f"<{len(data) // 4}I", data)
    if any(word >= P for word in words):
        raise ProofMalformed("an element is not below p")
    return words


def _integers(array: Any, shape: tuple[int, ...] | None = None) -> list[Any]:
    """An array, spread out to a shape, as lists of Python's integers: the border beyond which there is no numpy."""
    found: list[Any] = np.asarray(array if shape is None else np.broadcast_to(array, shape)).tolist()
    return found


def _flat(array: Any, shape: tuple[int, ...]) -> list[list[int]]:
    """The rows of the last axis, one after the other."""
    return _integers(np.broadcast_to(array, shape).reshape(prod(shape[:-1]), shape[-1]))


# Section 3: sizes and rows


@dataclass(frozen=True)
class _Sizes:
    """Rows of trees, and how many columns are opened."""

    circuit: Circuit
    k: int
    elsewhere: Sequence[Sequence[tuple[str, int]]]

    @cached_property
    def t(self) -> int:
        """The least number that makes a proof sound (section 6)."""
        cells = sum(group.size * group.lanes for group, _ in self.lookups())
        looked_up = cells + sum(len(table.entries) for table in self.circuit.tables.values())
        rest = Fraction(2 * 8 * self.k + looked_up + 16, P**4)
        for t in range(1, MOST_QUERIES + 1):
            if Fraction(9, 16) ** t + rest <= Fraction(1, 1 << 100):
                if self.k - t < self.circuit.lanes:
                    break
                return t
        raise CircuitRefused(f"rows of {self.k} cells cannot hold this circuit")

    @cached_property
    def used(self) -> int:
        """h·A: the lanes of a row that strips lie in."""
        return (self.k - self.t) // self.circuit.lanes * self.circuit.lanes

    def rows(self, group: Group) -> int:
        """Of one column. h strips of A places, or h·A of one, fill a row: h·A cells, one strip after the other."""
        return -(-group.size * group.lanes // self.used)

    def lookups(self) -> Iterator[tuple[Group, Lookup]]:
        return ((group, lookup) for group in self.circuit.groups.values() if group.size for lookup in group.lookups)

    @cached_property
    def trees(self) -> list[dict[_Key, int]]:
        """Rows by section."""
        values, tests = (
            {
                ("cells", group.name, column): self.rows(group)
                for group in self.circuit.groups.values()
                if group.phase == phase
                for column in range(group.width)
            }
            for phase in (0, 1)
        )
        for table in self.circuit.tables.values():
            values["counts", table.name, 0] = -(-len(table.entries) // self.used)
        looked_up = sum(self.rows(group) for group, _ in self.lookups())
        inverses: dict[_Key, int] = {("inverses", "", place): looked_up for place in range(4)}
        inverses |= {("mask", name, 0): rows for name, rows in _MASKS.items()}
        others: list[dict[_Key, int]] = [
            {("elsewhere", name, 0): rows for name, rows in sections} for sections in self.elsewhere
        ]
        return [*others, values, tests, inverses]

    @property
    def fixed(self) -> int:
        """Bytes of a proof without its openings."""
        columns = sum(16 + 4 * sum(tree.values()) for tree in self.trees)
        return 3 * 32 + 16 * (4 * self.k + self.t - 1) + self.t * columns

    @property
    def identities(self) -> int:
        """How many factors the cells draw."""
        groups = self.circuit.groups.values()
        return sum(self.rows(group) * (len(group.identities) + len(group.lookups)) for group in groups)

    def by_section(self, entries: Iterable[int]) -> _Column:
        rest = iter(entries)
        return {key: tuple(islice(rest, rows)) for tree in self.trees for key, rows in tree.items()}

    def by_row(self, values: list[int]) -> list[list[int]]:
        """What cells of one column, strip after strip, are in each of its rows."""
        return [values[start : start + self.used] for start in range(0, len(values), self.used)]


# Section 5: what is drawn


class _Lots:
    """Elements of K drawn from one key, lot after lot."""

    def __init__(self, key: bytes) -> None:
        self._key, self._number = key, 0

    def draw(self, count: int) -> list[int]:
        self._number += 1
        return elements_drawn(sha256(self._key + self._number.to_bytes(4, "big")).digest(), count)


def _longest_test(circuit: Circuit) -> int:
    free = [size for pair in circuit.pairs for side in (pair.left, pair.right) for size in _free(circuit, side)]
    return max([*free, circuit.lanes])


def _widest_rows(circuit: Circuit) -> int:
    return max(
        (len(_integers(table.rows)[0]) for table in circuit.tables.values() if table.rows is not None), default=0
    )


def _free(circuit: Circuit, side: Factor) -> tuple[int]:
    """How long the side of a product is that is not summed over."""
    return (circuit.lanes if side.contract == "strips" else side.wire.shape[-1],)


@dataclass(frozen=True)
class _Drawn:
    """What the verifier drew while the trees came, and the two keys of the sum."""

    left: list[int]
    right: list[int]
    beta: int
    gamma: list[int]
    alpha: int
    chi: _Lots
    lots: _Lots


@dataclass(frozen=True)
class _Opened:
    """What the three checks look at."""

    circuit: Circuit
    sizes: _Sizes
    drawn: _Drawn
    columns: list[tuple[_Column, Point]]

    def mask(self, at: _Column, name: str, x: int) -> int:
        """A + x^(k/2)·B + x^k·C."""
        a, b, c = elements_of(at["mask", name, 0])
        return a + pow(x, self.sizes.k // 2, P) * b + pow(x, self.sizes.k, P) * c


def _check_proximity(opened: _Opened, factors: list[int], sent: list[int]) -> None:
    own = ("mask", "proximity", 0)
    for at, point in opened.columns:
        combined = chain.from_iterable(entries for key, entries in at.items() if key != own)
        if reduced(dot(factors, combined) + element_of(at[own])) != evaluate(sent, point.x):
            raise ProximityFailed(f"at {point.x}")


# Section 4: cells


def _check_cells(opened: _Opened, factors: list[int], sent: list[int]) -> None:
    sizes, drawn = opened.sizes, opened.drawn
    random_points = [pow(root_of_unity(sizes.k), j, P) for j in range(sizes.k - sizes.t, sizes.k)]
    for at, point in opened.columns:
        values = [value % P for group in opened.circuit.groups.values() for value in _identities(group, at)]
        keys = chain.from_iterable(_keys(group, lookup, at, drawn.beta) for group, lookup in sizes.lookups())
        inverses = map(element_of, zip(*(at["inverses", "", place] for place in range(4)), strict=True))
        for inverse, key in zip(inverses, keys, strict=True):
            values.append(reduced(inverse * (drawn.alpha + minus(key))) + P - 1)
        if len(values) != len(factors):
            raise CircuitRefused("identities and look-ups are not as many as their factors")
        divisor = 1
        for root in random_points:
            divisor = divisor * (point.x - root) % P
        vanishing = (pow(point.x, sizes.k, P) - 1) * pow(divisor, -1, P) % P
        found = dot(factors, values) + opened.mask(at, "cells", point.x)
        if reduced(found) != reduced(evaluate(sent, point.x) * vanishing):
            raise CellsFailed(f"at {point.x}")


def _identities(group: Group, at: _Column) -> Iterator[int]:
    """Row after row of identity after identity."""
    columns = [at["cells", group.name, column] for column in range(group.width)]
    for identity in group.identities:
        for cells in zip(*columns, strict=True):
            products = ((int(scale), cells[a], 1 if b is None else cells[b]) for scale, a, b in identity)
            yield sum(scale * first * second for scale, first, second in products)


def _keys(group: Group, lookup: Lookup, at: _Column, beta: int) -> Iterator[int]:
    """What is looked up, row after row."""
    multipliers = {"1": 1, "β": beta} | {f"e{place}": element for place, element in enumerate(_BASIS)}
    parts = [(multipliers[name], at["cells", group.name, column]) for name, column in lookup.columns]
    for cells in zip(*(column for _, column in parts), strict=True):
        yield reduced(dot((multiplier for multiplier, _ in parts), cells))


# Section 4: sum


def _check_sums(opened: _Opened, sent: list[int]) -> None:
    circuit, sizes, drawn = opened.circuit, opened.sizes, opened.drawn
    chi = dict(zip(circuit.tables, (drawn.chi.draw(1)[0] for _ in circuit.tables), strict=True))
    weights = _Weights(circuit, drawn)
    weights.add_relations()
    constant = reduced(reduced(weights.target) * pow(sizes.k, -1, P) + minus(sent[sizes.k - 1]))
    rows: list[tuple[_Key, int, list[int]]] = []
    for (name, column), cells in weights.cells.items():
        for number, part in enumerate(sizes.by_row([reduced(weight) for weight in cells])):
            rows.append((("cells", name, column), number, part))
    for table in circuit.tables.values():
        for number, part in enumerate(sizes.by_row(_minus_chi_by(chi[table.name], drawn, table))):
            rows.append((("counts", table.name, 0), number, part))
    of_inverses = [
        (chi[lookup.table], len(part))
        for group, lookup in sizes.lookups()
        for part in sizes.by_row([0] * (group.size * group.lanes))
    ]
    elsewhere = [(section, row, place, reduced(weight)) for (section, row, place), weight in weights.elsewhere.items()]
    for at, point in opened.columns:
        found = opened.mask(at, "sums", point.x)
        found += sum(reduced(dot(part, point.lagrange)) * at[key][number] for key, number, part in rows)
        for section, row, place, weight in elsewhere:
            found += reduced(weight * point.lagrange[place]) * at["elsewhere", section, 0][row]
        used = {length: sum(point.lagrange[:length]) % P for length in {length for _, length in of_inverses}}
        inverses = map(element_of, zip(*(at["inverses", "", place] for place in range(4)), strict=True))
        for (factor, length), inverse in zip(of_inverses, inverses, strict=True):
            found += reduced(factor * inverse) * used[length]
        if reduced(found) != reduced(constant + point.x * evaluate(sent, point.x)):
            raise SumsFailed(f"at {point.x}")


def _minus_chi_by(chi: int, drawn: _Drawn, table: Table) -> list[int]:
    """−χ/(α − key) for each entry of a table."""
    entries, keys = _integers(table.entries), list[int]()
    if table.rows is None:
        keys = [reduced(dot((1, drawn.beta), (value % P for value in entry))) for entry in entries]
    else:
        rows = _integers(table.rows)
        factors = [1, *drawn.gamma[: len(rows[0])]]
        for (value,), row in zip(entries, rows, strict=True):
            keys.append(reduced(dot(factors, (entry % P for entry in (value, *row)))))
    try:
        inverses = inverses_of([reduced(drawn.alpha + minus(key)) for key in keys])
    except ZeroDivisionError:
        raise SumsFailed("α lies in a table") from None
    return [minus(reduced(chi * inverse)) for inverse in inverses]


# Section 2: relations


class _Weights:
    """The weight of every cell that relations speak of, and the target of the sum. cells: by group and column, strip
    after strip; elsewhere: by section, row and lane. Sums of products, to be reduced when all are there."""

    def __init__(self, circuit: Circuit, drawn: _Drawn) -> None:
        self._circuit, self._drawn = circuit, drawn
        self._lambda = drawn.lots.draw(circuit.lanes)
        self._turns: list[list[int]] = [_integers(turn) for turn in circuit.turns]
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
            of_strips = factors if matrix is None else _transposed(_integers(matrix), factors)
            self._add(wire, of_strips, self._places(wire.lanes))

    def _across(self, relation: AcrossLanes) -> None:
        factors = self._draw(relation.strips[0][0].shape[0])
        for matrix, strip in relation.strips:
            self._add(strip, [1], _transposed(_integers(matrix), factors))
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
        self._add(relation.index, [of_ids], self._lambda)
        self._add(relation.ids, [minus(of_ids)], self._lambda)
        for element, wire in zip(_BASIS, relation.key, strict=True):
            self._add(wire, [reduced(of_key * element)], self._lambda)
        factors = self._drawn.gamma[: relation.values.size]
        self._add(relation.values, [minus(reduced(of_key * factor)) for factor in factors], self._lambda)

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
        (x,), (y,) = _free(circuit, relation.pairs[0].left), _free(circuit, relation.pairs[0].right)
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
        for place, element in enumerate(_BASIS):
            for strip, factor in enumerate(factors, pair.first):
                self._put(group, column + place, strip, reduced(factor * element), [1])

    def _side(self, pair: Pair, side: Factor, column: int, test: list[int]) -> None:
        """u or v is the side's combination by the test."""
        shape = side.wire.shape
        if side.contract == "lanes":
            by_matrix = self._draw(shape[0])
            factors = [reduced(factor * value) for factor in by_matrix for value in self._lambda]
            cells = [reduced(minus(factor) * value) for factor in by_matrix for value in test[: shape[1]]]
            self._add(side.wire, cells, self._lambda)
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
