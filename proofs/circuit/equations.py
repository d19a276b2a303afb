"""The equations of a circuit's proof over its rows, the same code for prover and verifier (README.md).

Cell equations hold in every lane: the identities of groups, and that inverses are those of what is looked up, of three
values of a range or of one key. All relations and all tables together make one sum equation: Σ weight·cell = target.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from proofs.circuit.builder import Circuit, Table
from proofs.circuit.layout import GroupShape, Layout, counts_of, section
from proofs.circuit.weights import BASIS, Weights, matmul
from proofs.circuit.wire import Group, Units
from proofs.field import DEGREE, Field, P, element, ext, ext_inverse, ext_mul, ext_turned, mul
from proofs.field import matmul as field_matmul
from proofs.relation import Arithmetic, Term, in_threes, together
from proofs.transcript import Transcript, field_stream
from proofs.verifier import check_alpha

_P = np.uint64(P)


@dataclass(frozen=True, eq=False)
class Tests:
    """Drawn when the values are committed to: two vectors that test products of matrices, β for the second column of a
    table, γ for the columns of public rows, and α, where look-ups are tested."""

    left: Field
    right: Field
    beta: Field
    gamma: Field
    alpha: Field


def tests_drawn(transcript: Transcript, circuit: Circuit) -> Tests:
    """Raises CellsFailed where α is none to look up at."""
    longest = max([circuit.lanes, *(side.sizes[2] for pair in circuit.pairs for side in (pair.left, pair.right))])
    widest = max((table.rows.shape[1] for table in circuit.tables.values() if table.rows is not None), default=0)
    drawn = transcript.elements("tests", 2 * longest + widest + 2)
    check_alpha(drawn[-1])
    left, right, rest = drawn[:longest], drawn[longest : 2 * longest], drawn[2 * longest :]
    return Tests(left, right, rest[0], rest[1:-1], rest[-1])


class Stream:
    """Elements of K, one lot after the other."""

    def __init__(self, key: bytes) -> None:
        self._key, self._lot = key, 0

    def __call__(self, count: int) -> Field:
        self._lot += 1
        key = sha256(self._key + self._lot.to_bytes(4, "big")).digest()
        return field_stream(key, DEGREE * count).reshape(count, DEGREE)


# ------------------------------------------------------------------------------------------------- cell equations


def cell_equations(
    columns: Mapping[str, Field],
    circuit: Circuit,
    layout: Layout,
    tests: Tests,
    drawn: Field,
    arithmetic: Arithmetic,
) -> Field:
    """(points, 4): those of degree 2, each times its factor, added up. drawn: count_of_equations factors."""
    total, at = np.zeros((1, DEGREE), dtype=np.uint64), 0
    for group, shape in _groups(circuit, layout):
        rows = layout.rows(shape)
        for identity in group.identities:
            value = _identity(columns, group, identity)
            total = total + field_matmul(value, drawn[at : at + rows])
            at += rows
    alone = layout.shared_rows
    inverse = [columns[f"inverses_{e}"][:, alone:] for e in range(DEGREE)]
    factors, first, plain = drawn[at + alone :], 0, list[Field]()
    for group, shape in _groups(circuit, layout):
        if shape.ranged:
            continue
        for lookup in group.lookups:
            end = first + layout.rows(shape)
            for name, column in lookup.columns:
                values = columns[section(group.name, column)]
                if name == "1":
                    plain.append(values)
                else:
                    part = [one[:, first:end] for one in inverse]
                    total = total + _P - _keyed(values, part, factors[first:end], _named(name, tests), arithmetic)
            first = end
    if plain:
        total = total + _inverses(np.concatenate(plain, axis=1), inverse, factors, tests.alpha, arithmetic)
    return np.asarray(total % _P, dtype=np.uint64)


def shared_equations(
    columns: Mapping[str, Field], circuit: Circuit, layout: Layout, tests: Tests, drawn: Field
) -> Field:
    """(points, 4): those of ranges, of degree 4, likewise."""
    rows = layout.shared_rows
    inverses = np.stack([columns[f"inverses_{e}"][:, :rows] for e in range(DEGREE)])
    values = shared_values(columns, layout)
    return together(values, inverses, shared_factors(circuit, layout, drawn), tests.alpha)


def shared_values(columns: Mapping[str, Field], layout: Layout) -> Field:
    """(points, 3·rows): what is looked up in ranges, three by three."""
    found = [np.zeros((len(columns["inverses_0"]), 0), dtype=columns["inverses_0"].dtype)]
    for _, users, _ in layout.shared():
        found.append(in_threes(np.concatenate([columns[section(one.name, at)] for one, at in users], axis=1)))
    return np.concatenate(found, axis=1)


def shared_factors(circuit: Circuit, layout: Layout, drawn: Field) -> Field:
    first = _identity_rows(circuit, layout)
    return drawn[first : first + layout.shared_rows]


def count_of_equations(circuit: Circuit, layout: Layout) -> int:
    return _identity_rows(circuit, layout) + layout.inverse_rows


def _identity_rows(circuit: Circuit, layout: Layout) -> int:
    return sum(layout.rows(shape) * len(group.identities) for group, shape in _groups(circuit, layout))


def _groups(circuit: Circuit, layout: Layout) -> Iterator[tuple[Group, GroupShape]]:
    for shape in layout.groups:
        yield circuit.groups[shape.name], shape


def _identity(columns: Mapping[str, Field], group: Group, identity: tuple[tuple[int, int, int | None], ...]) -> Field:
    total: Field | None = None
    for coefficient, left, right in identity:
        value = columns[section(group.name, left)]
        if right is not None:
            value = mul(value, columns[section(group.name, right)])
        if coefficient != 1:
            value = value * np.uint64(coefficient)
        total = value if total is None else total % _P + value % _P
    if total is None:
        return np.zeros((1, 1), dtype=np.uint64)
    return np.asarray(total % _P, dtype=np.uint64)


def _inverses(base: Field, inverse: list[Field], factors: Field, alpha: Field, arithmetic: Arithmetic) -> Field:
    """Σ factor·(inverse·(α − base) − 1), (points, 4)."""
    total = np.zeros((len(base), DEGREE), dtype=np.uint64)
    for e in range(DEGREE):
        linear = field_matmul(inverse[e], factors)
        products = arithmetic.sum_products(base, inverse[e], factors)
        total += ext_turned((ext_mul(linear, alpha) + _P - products) % _P, e)
    return np.asarray((total + _P - factors.sum(axis=0) % _P) % _P, dtype=np.uint64)


def _keyed(values: Field, inverse: list[Field], factors: Field, multiplier: Field, arithmetic: Arithmetic) -> Field:
    """Σ factor·inverse·multiplier·values."""
    total = np.zeros((len(values), DEGREE), dtype=np.uint64)
    for e in range(DEGREE):
        total += ext_turned(arithmetic.sum_products(values, inverse[e], factors), e)
    return ext_mul(total % _P, multiplier)


def _named(name: str, tests: Tests) -> Field:
    return tests.beta if name == "β" else BASIS[int(name[1])]


# -------------------------------------------------------------------------------------------------- sum equation


def weights_of(circuit: Circuit, tests: Tests, key: bytes) -> Weights:
    """What all relations put on cells, and their target."""
    draw = Stream(key)
    weights = Weights(draw(circuit.lanes), tests.left, tests.right, tests.gamma, circuit.turns)
    for relation in circuit.relations:
        relation.add(weights, draw)
    weights.reduce()
    return weights


def keys_of(table: Table, tests: Tests) -> Field:
    """(n, 4): what the entries of a table look like in a look-up."""
    found = ext(element(table.entries[:, 0]))
    if table.entries.shape[1] > 1:
        found = (found + mul(element(table.entries[:, 1])[:, None], tests.beta)) % _P
    if table.rows is not None:
        found = (found + matmul(table.rows, tests.gamma[: table.rows.shape[1]])) % _P
    return np.asarray(found, dtype=np.uint64)


@dataclass(frozen=True, eq=False)
class InverseRows:
    """Σ over the used cells of rows of inverses, times a factor of the table, (rows, 4). used (rows,): how many."""

    factors: Field
    used: Units

    @classmethod
    def of(cls, layout: Layout, tables: Mapping[str, Field]) -> InverseRows:
        wide, factors, used = layout.blocks * layout.strip, list[Field](), list[int]()
        for table, _, rows in layout.shared():
            factors += [tables[table]] * rows
            used += [layout.lanes] * rows
        for shape, _, table in layout.looked_up():
            rows = layout.rows(shape)
            factors += [tables[table]] * rows
            used += [wide] * (rows - 1) + [shape.size * shape.lanes - (rows - 1) * wide]
        return cls(np.array(factors, dtype=np.uint64).reshape(-1, DEGREE), np.array(used, dtype=np.int64))

    def at_points(self, basis: Field, columns: Mapping[str, Field]) -> Field:
        """(t, 4): the same where basis (t, k) is known; columns: name -> (t, rows)."""
        if not len(self.used):
            return np.zeros((len(basis), DEGREE), dtype=np.uint64)
        ends, place = np.unique(self.used, return_inverse=True)
        parts = np.add.reduceat(basis[:, : ends[-1]], [0, *ends[:-1]], axis=1)
        ones = (np.cumsum(parts, axis=1) % _P)[:, place]
        total = np.zeros((len(basis), DEGREE), dtype=np.uint64)
        for e in range(DEGREE):
            total += ext_turned(field_matmul(mul(ones, columns[f"inverses_{e}"]), self.factors), e)
        return np.asarray(total % _P, dtype=np.uint64)


def counts_terms(layout: Layout, factors: Mapping[str, Field], inverses: Mapping[str, Field]) -> list[Term]:
    """−Σ count·factor/(α − key) over all tables, row by row of the counts."""
    wide, found = layout.blocks * layout.strip, list[Term]()
    for name, entries in inverses.items():
        factor = (_P - factors[name][None]) % _P
        rows = range(layout.count_rows(name))
        found += [Term(0, entries[row * wide : (row + 1) * wide], {counts_of(name): (row, factor)}) for row in rows]
    return found


def inverses_of(circuit: Circuit, tests: Tests) -> dict[str, Field]:
    """1/(α − key) for every entry of each table; the ranges, which overlap, have them in common."""
    ranges = [table for table in circuit.tables.values() if table.counts]
    lowest = min((table.first for table in ranges), default=0)
    highest = max((table.first + len(table.entries) for table in ranges), default=0)
    common = _inverted(ext(element(np.arange(lowest, highest))), tests.alpha)
    return {
        name: common[table.first - lowest :][: len(table.entries)]
        if table.counts
        else _inverted(keys_of(table, tests), tests.alpha)
        for name, table in circuit.tables.items()
    }


def _inverted(keys: Field, alpha: Field) -> Field:
    return ext_inverse((alpha + _P - keys) % _P)


def table_factors(draw: Stream, circuit: Circuit) -> dict[str, Field]:
    return {name: draw(1)[0] for name in circuit.tables}
