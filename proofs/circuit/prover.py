"""The prover of a circuit: values in, the bytes of a proof out; proofs.circuit.verifier gives the order of messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proofs import kernels
from proofs.answering import (
    Columns,
    Compiled,
    Section,
    answered,
    at_points,
    check_sum,
    from_coset,
    masks,
    quotient,
    quotient_rows,
    sections_of,
    shared,
    sums_of_terms,
    weighted_rows,
)
from proofs.circuit.builder import Circuit
from proofs.circuit.equations import (
    InverseRows,
    Tests,
    cell_equations,
    inverses_of,
    shared_factors,
    shared_values,
    tests_drawn,
    weights_of,
)
from proofs.circuit.foreign import foreign_terms
from proofs.circuit.layout import TESTS, VALUES, GroupShape, Layout, counts_of, section
from proofs.circuit.relations import Keyed, tests_of
from proofs.circuit.verifier import PROTOCOL, Drawn, drawn_last
from proofs.circuit.weights import Strips, Weights
from proofs.circuit.wire import Group, Units
from proofs.commitment import Committed, commit
from proofs.field import DEGREE, Field, P, ext, ext_inverse, ext_turned
from proofs.parameters import TOGETHER
from proofs.relation import Term
from proofs.transcript import Transcript
from proofs.witness import Cells

Progress = Callable[[str], None]
_P = np.uint64(P)
ROWS = 64  # rows whose weights are transformed at a time


def prove(
    statement: bytes,
    circuit: Circuit,
    layout: Layout,
    elsewhere: Sequence[Committed],
    key: bytes,
    progress: Progress | None = None,
    protocol: bytes = PROTOCOL,
) -> bytes:
    """The proof of a circuit that holds values. key: 32 secret bytes, for these values alone."""
    tell = progress or (lambda _: None)
    transcript = Transcript(protocol)
    transcript.absorb("statement", statement)
    run = _Run(circuit, layout, elsewhere, key)
    tell("committing to the values")
    values = run.commit(VALUES, run.values())
    transcript.absorb("values", values.root)
    tests = tests_drawn(transcript, circuit)
    _fill_tests(circuit, tests)
    tell("looking up")
    mask = masks(key, layout)
    inverses = inverses_of(circuit, tests)
    second = run.commit(TESTS, run.columns(1) | run.inverses(tests, inverses), mask)
    transcript.absorb("tests", second.root)
    drawn = drawn_last(transcript, circuit, layout, tests, inverses)
    tell("combining")
    committed = [*elsewhere, values, second]
    sections = sections_of(committed, layout)
    rows = quotient_rows(run.cells(sections, drawn), run.sums(sections, drawn), mask["mask_sums"], key, layout)
    return answered(transcript, committed, rows, key, layout)


def _fill_tests(circuit: Circuit, tests: Tests) -> None:
    """The cells of phase 1, which depend on what was drawn."""
    tests_group = circuit.tests_group()
    for group in list(circuit.groups.values()):
        if group is tests_group:
            group.fill(tests_of(circuit.pairs, tests.left, tests.right))
        elif group.phase == 1:
            group.fill(np.concatenate([one.cells(tests.gamma) for one in _keyed(circuit, group)], axis=1))


def _keyed(circuit: Circuit, group: Group) -> list[Keyed]:
    """The relations that say what the cells of a group of public rows are, in the order of its strips."""
    return [one for one in circuit.relations if isinstance(one, Keyed) and one.index.terms[0].group is group]


class _Run:
    def __init__(self, circuit: Circuit, layout: Layout, elsewhere: Sequence[Committed], key: bytes) -> None:
        self._circuit, self._layout, self._elsewhere, self._key = circuit, layout, tuple(elsewhere), key

    def commit(self, tree: int, cells: Cells, whole: Cells | None = None) -> Committed:
        number = len(self._layout.elsewhere) + tree
        return commit(cells, self._layout, number, sha256(self._key + bytes([tree])).digest(), whole)

    def columns(self, phase: int) -> Cells:
        found: Cells = {}
        for shape in self._layout.groups:
            group = self._circuit.groups[shape.name]
            if group.phase == phase:
                for column in range(group.width):
                    found[section(shape.name, column)] = self._laid(group.units(column), self._layout.rows(shape))
        return found

    def values(self) -> Cells:
        """The columns, and how often each entry of each table is looked up."""
        layout, counts = self._layout, {}
        for name, table in self._circuit.tables.items():
            counted = np.zeros(len(table.entries), dtype=np.int64)
            for group, column in self._users(name):
                places = table.places(group.units(column) if group.phase == 0 else self._ids(group))
                counted += np.bincount(places.reshape(-1), minlength=len(counted))
            counts[counts_of(name)] = counted
        for name, values in self._ranged():
            table = self._circuit.tables[name]
            counts[counts_of(name)] += np.bincount(table.places(values).reshape(-1), minlength=len(table.entries))
        laid = {counts_of(name): self._laid(counts[counts_of(name)], layout.count_rows(name)) for name in layout.tables}
        return self.columns(0) | laid

    def _ids(self, group: Group) -> Units:
        return np.concatenate([one.ids.known() for one in _keyed(self._circuit, group)])

    def _users(self, table: str) -> list[tuple[Group, int]]:
        return [
            (self._circuit.groups[shape.name], lookup.columns[0][1])
            for shape in self._layout.groups
            for lookup in self._circuit.groups[shape.name].lookups
            if lookup.table == table and not shape.ranged
        ]

    def _ranged(self) -> Iterator[tuple[str, Units]]:
        """Of each range, what is looked up in it: (rows of inverses, 3, lanes), zeros included."""
        layout = self._layout
        for name, users, rows in layout.shared():
            found, at = np.zeros((TOGETHER * rows, layout.lanes), dtype=np.int64), 0
            for shape, column in users:
                end = at + layout.rows(shape)
                found[at:end] = self._in_rows(self._circuit.groups[shape.name].units(column), end - at)
                at = end
            yield name, found.reshape(rows, TOGETHER, layout.lanes)

    def inverses(self, tests: Tests, of_entries: Mapping[str, Field]) -> Cells:
        """What is looked up, inverted: gathered from the inverses of the tables' entries."""
        layout = self._layout
        wide, first = layout.blocks * layout.strip, 0
        found = np.empty((DEGREE, layout.inverse_rows, layout.lanes), dtype=np.uint32)
        found[:] = ext_inverse(tests.alpha[None])[0][:, None, None]
        known = {name: one.T.astype(np.uint32) for name, one in of_entries.items()}
        for name, values in self._ranged():
            places, end = self._circuit.tables[name].places(values), first + len(values)
            for e in range(DEGREE):
                found[e, first:end] = known[name][e][places].sum(axis=1, dtype=np.uint64) % _P
            first = end
        for shape, number, name in layout.looked_up():
            group, end = self._circuit.groups[shape.name], first + layout.rows(shape)
            units = group.units(group.lookups[number].columns[0][1]).reshape(-1)
            places = self._circuit.tables[name].places(units)
            for e in range(DEGREE):
                whole, rest = divmod(len(units), wide)
                here = known[name][e][places]
                found[e, first : first + whole, :wide] = here[: whole * wide].reshape(whole, wide)
                found[e, first + whole : end, :rest] = here[whole * wide :]
            first = end
        return {f"inverses_{e}": found[e] for e in range(DEGREE)}

    def _laid(self, units: Units, rows: int) -> NDArray[np.uint32]:
        return np.mod(self._in_rows(units, rows), P).astype(np.uint32)

    def _in_rows(self, units: Units, rows: int) -> Units:
        layout = self._layout
        wide = layout.blocks * layout.strip
        flat = np.zeros(rows * wide, dtype=np.int64)
        flat[: units.size] = units.reshape(-1)
        found = np.zeros((rows, layout.lanes), dtype=np.int64)
        found[:, :wide] = flat.reshape(rows, wide)
        return found

    def cells(self, sections: dict[str, Section], drawn: Drawn) -> Field:
        """The quotient of the cell equations."""
        circuit, layout, rows = self._circuit, self._layout, self._layout.shared_rows

        def equations(columns: Columns) -> Field:
            return cell_equations(columns, circuit, layout, drawn.tests, drawn.cells, Compiled())

        on_h: dict[str, NDArray[Any]] = {name: one.rows.T for name, one in sections.items()}
        values = shared_values(on_h, layout).T.astype(np.uint32, copy=False)
        inverses = np.stack([sections[f"inverses_{e}"].rows[:rows] for e in range(DEGREE)])
        factors = shared_factors(circuit, layout, drawn.cells)
        return quotient(
            [at_points(equations, sections, layout), shared(values, inverses, factors, drawn.tests.alpha)], layout
        )

    def sums(self, sections: dict[str, Section], drawn: Drawn) -> Field:
        """Coefficients (2k, 4) of the sum equation's polynomial."""
        layout = self._layout
        weights = weights_of(self._circuit, drawn.tests, drawn.sums)
        inverses = InverseRows.of(layout, drawn.tables)
        terms = [*_whole_rows(inverses, layout), *foreign_terms(self._circuit, weights)]
        total = sums_of_terms(sections, terms, layout)
        total += _ends_of_rows(inverses, layout, sections)
        for name, first, rows in _weights_by_row(self._circuit, weights, layout, drawn):
            total += weighted_rows(rows, sections[name], first)
        found = from_coset(total % _P, layout)
        check_sum(found, weights.target, layout)
        return found


def _whole_rows(inverses: InverseRows, layout: Layout) -> Iterator[Term]:
    """Rows of inverses that are used in all of their lanes: those of ranges, then of strips."""
    for lanes in (layout.lanes, layout.blocks * layout.strip):
        chosen = inverses.used == lanes
        if chosen.any():
            factors = np.where(chosen[:, None], inverses.factors, np.uint64(0))
            coefficients = {f"inverses_{e}": (0, ext_turned(factors, e)) for e in range(DEGREE)}
            yield Term(0, ext(np.ones(lanes, dtype=np.uint64)), coefficients)
            inverses = InverseRows(inverses.factors, np.where(chosen, 0, inverses.used))


def _ends_of_rows(inverses: InverseRows, layout: Layout, sections: dict[str, Section]) -> Field:
    """The others, at the points of the coset: Σ factor·(ones over the used lanes)·inverse, (2k, 4)."""
    chosen = np.flatnonzero(inverses.used < layout.blocks * layout.strip)
    ones = (np.arange(layout.row) < inverses.used[chosen, None]).astype(np.uint32)
    on_points, total = kernels.encode(ones, 2), np.zeros((2 * layout.row, DEGREE), dtype=np.uint64)
    for e in range(DEGREE):
        values = np.ascontiguousarray(sections[f"inverses_{e}"].values()[:, chosen])
        total += ext_turned(kernels.sum_products(on_points, values, inverses.factors[chosen]), e)
    return total


def _weights_by_row(
    circuit: Circuit, weights: Weights, layout: Layout, drawn: Drawn
) -> Iterator[tuple[str, int, NDArray[np.uint32]]]:
    """(section, first row, weights (rows, 4, k)) of the circuit's own cells, a few rows at a time."""
    shapes = {shape.name: shape for shape in layout.groups}
    for (name, column), strips in weights.columns.items():
        if name in shapes:
            for first in range(0, layout.rows(shapes[name]), ROWS):
                yield section(name, column), first, _part_of(strips, weights, shapes[name], layout, first)
    wide = layout.blocks * layout.strip
    for name, inverses in drawn.inverses.items():
        factor = (_P - drawn.tables[name])[None] % _P
        rows = np.zeros((layout.count_rows(name), DEGREE, layout.row), dtype=np.uint32)
        for row in range(len(rows)):
            kernels.add_strips(factor, inverses[row * wide : (row + 1) * wide], 1, rows[row : row + 1])
        yield counts_of(name), 0, rows


def _part_of(strips: Strips, weights: Weights, shape: GroupShape, layout: Layout, first: int) -> NDArray[np.uint32]:
    """Weights of the rows of one column from `first` on, (rows, 4, k)."""
    per_row, wide = layout.per_row(shape), layout.blocks * layout.strip
    rows = np.zeros((min(ROWS, layout.rows(shape) - first), DEGREE, layout.row), dtype=np.uint32)
    for key, factors in strips.factors.items():
        mine = factors[first * per_row : (first + len(rows)) * per_row]
        if shape.lanes > 1:
            kernels.add_strips(mine, weights.vector(key, layout.strip), per_row, rows)
        else:
            for row in range(len(rows)):
                part = mine[row * wide : (row + 1) * wide]
                rows[row, :, : len(part)] = part.T
    for index, vector in strips.own:
        row, block = divmod(index, per_row)
        if first <= row < first + len(rows):
            at = rows[row - first, :, block * layout.strip : (block + 1) * layout.strip]
            at[:] = (at + vector.T) % _P
    return rows
