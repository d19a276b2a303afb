"""The equations of a circuit's proof over its rows, the same code for prover and verifier (README.md).

Cell equations hold in every lane: the identities of groups, and inverse·(α − key) = 1 for every look-up. All relations
and all tables together make one sum equation: Σ weight·cell = target.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from proofs.circuit.builder import Circuit, Table
from proofs.circuit.layout import GroupShape, Layout, counts_of, section
from proofs.circuit.weights import BASIS, Weights, matmul
from proofs.circuit.wire import Group
from proofs.field import DEGREE, Field, P, element, ext, ext_mul, mul
from proofs.field import matmul as field_matmul
from proofs.relation import Arithmetic, Term
from proofs.transcript import Transcript, field_stream

_P = np.uint64(P)
_ONE = ext(np.ones((), dtype=np.uint64))


@dataclass(frozen=True, eq=False)
class Tests:
    """Drawn when the values are committed to: two vectors that test products of matrices, β for the second column of a
    table, and γ for the columns of public rows."""

    left: Field
    right: Field
    beta: Field
    gamma: Field


def tests_drawn(transcript: Transcript, circuit: Circuit) -> Tests:
    longest = max([circuit.lanes, *(side.sizes[2] for pair in circuit.pairs for side in (pair.left, pair.right))])
    widest = max((table.rows.shape[1] for table in circuit.tables.values() if table.rows is not None), default=0)
    drawn = transcript.elements("tests", 2 * longest + 1 + widest)
    return Tests(drawn[:longest], drawn[longest : 2 * longest], drawn[2 * longest], drawn[2 * longest + 1 :])


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
    alpha: Field,
    drawn: Field,
    arithmetic: Arithmetic,
) -> Field:
    """(points, 4): every equation times its factor, added up. drawn: a factor for each row of each of them."""
    total, at = np.zeros((1, DEGREE), dtype=np.uint64), 0
    for group, shape in _groups(circuit, layout):
        rows = layout.rows(shape)
        for identity in group.identities:
            value = _identity(columns, group, identity)
            total = total + field_matmul(value, drawn[at : at + rows])
            at += rows
    inverse = [columns[f"inverses_{e}"] for e in range(DEGREE)]
    factors, first, plain = drawn[at:], 0, list[Field]()
    for group, shape in _groups(circuit, layout):
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
        total = total + _inverses(np.concatenate(plain, axis=1), inverse, factors, alpha, arithmetic)
    return np.asarray(total % _P, dtype=np.uint64)


def count_of_equations(circuit: Circuit, layout: Layout) -> int:
    identities = sum(layout.rows(shape) * len(group.identities) for group, shape in _groups(circuit, layout))
    return identities + layout.lookup_rows


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
    for e, unit in enumerate(BASIS):
        linear = field_matmul(inverse[e], factors)
        products = arithmetic.sum_products(base, inverse[e], factors)
        total += ext_mul((ext_mul(linear, alpha) + _P - products) % _P, unit)
    return np.asarray((total + _P - factors.sum(axis=0) % _P) % _P, dtype=np.uint64)


def _keyed(values: Field, inverse: list[Field], factors: Field, multiplier: Field, arithmetic: Arithmetic) -> Field:
    """Σ factor·inverse·multiplier·values."""
    total = np.zeros((len(values), DEGREE), dtype=np.uint64)
    for e, unit in enumerate(BASIS):
        total += ext_mul(arithmetic.sum_products(values, inverse[e], factors), unit)
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


def inverse_terms(layout: Layout, tables: Mapping[str, Field]) -> list[Term]:
    """Σ over used cells of factor·inverse, a factor for each table: whole rows together, each last row by itself."""
    wide, whole, parts, at = layout.blocks * layout.strip, list[Field](), list[tuple[int, int, Field]](), 0
    for shape, _, table in layout.looked_up():
        rows = layout.rows(shape)
        left = shape.size * shape.lanes - (rows - 1) * wide
        whole += [tables[table]] * (rows - 1) + [tables[table] if left == wide else np.zeros_like(tables[table])]
        if left < wide:
            parts.append((at + rows - 1, left, tables[table]))
        at += rows
    terms = [_rows_of_inverses(0, wide, np.stack(whole))] if whole else []
    return terms + [_rows_of_inverses(row, used, factor[None]) for row, used, factor in parts]


def _rows_of_inverses(first: int, used: int, factors: Field) -> Term:
    ones = np.ascontiguousarray(np.broadcast_to(_ONE, (used, DEGREE)))
    return Term(0, ones, {f"inverses_{e}": (first, ext_mul(factors, unit)) for e, unit in enumerate(BASIS)})


def count_terms(layout: Layout, factors: Mapping[str, Field], inverses: Mapping[str, Field]) -> list[Term]:
    """−Σ count·factor/(α − key), table by table and row by row. inverses: 1/(α − key) of each table."""
    terms, wide = [], layout.blocks * layout.strip
    for name, values in inverses.items():
        weights = ext_mul((_P - values) % _P, factors[name])
        for row in range(layout.count_rows(name)):
            part = weights[row * wide : (row + 1) * wide]
            terms.append(Term(0, part, {counts_of(name): (row, _ONE[None])}))
    return terms


def table_factors(draw: Stream, circuit: Circuit) -> dict[str, Field]:
    return {name: draw(1)[0] for name in circuit.tables}
