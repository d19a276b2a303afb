"""The prover of a circuit: values in, the bytes of a proof out; proofs.circuit.verifier gives the order of messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from proofs import kernels
from proofs.answering import (
    CHUNK,
    Columns,
    Compiled,
    Section,
    combined_rows,
    coset,
    from_coset,
    mask_values,
    masks,
    sections_of,
    sums_of_terms,
)
from proofs.circuit.builder import Circuit
from proofs.circuit.equations import (
    InverseRows,
    Tests,
    cell_equations,
    inverses_of,
    tests_drawn,
    weights_of,
)
from proofs.circuit.foreign import foreign_terms
from proofs.circuit.layout import INVERSES, TESTS, VALUES, GroupShape, Layout, counts_of, section
from proofs.circuit.relations import Keyed, tests_of
from proofs.circuit.verifier import PROTOCOL, Drawn, drawn_last
from proofs.circuit.weights import Strips, Weights
from proofs.circuit.wire import Group, Units
from proofs.commitment import Committed, commit
from proofs.field import DEGREE, Field, P, ext, ext_inverse, ext_turned, interpolate, inverse, mul
from proofs.proof import Proof, encode_elements
from proofs.relation import Term
from proofs.transcript import Transcript
from proofs.verifier import vanishing
from proofs.witness import Cells, WitnessRefused

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
    second = run.commit(TESTS, run.columns(1))
    transcript.absorb("tests", second.root)
    alpha = transcript.elements("tables", 1)[0]
    tell("looking up")
    third = run.commit(INVERSES, run.inverses(tests, alpha), masks(key, layout))
    transcript.absorb("inverses", third.root)
    drawn = drawn_last(transcript, circuit, layout, tests, alpha)
    tell("combining")
    return run.answer([values, second, third], drawn, transcript)


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
            counts[counts_of(name)] = self._laid(counted, layout.count_rows(name))
        return self.columns(0) | counts

    def _ids(self, group: Group) -> Units:
        return np.concatenate([one.ids.known() for one in _keyed(self._circuit, group)])

    def _users(self, table: str) -> list[tuple[Group, int]]:
        return [
            (self._circuit.groups[shape.name], lookup.columns[0][1])
            for shape in self._layout.groups
            for lookup in self._circuit.groups[shape.name].lookups
            if lookup.table == table
        ]

    def inverses(self, tests: Tests, alpha: Field) -> Cells:
        """1/(α − key) for every cell that is looked up, gathered from the inverses of the tables' entries."""
        layout = self._layout
        wide, first = layout.blocks * layout.strip, 0
        found = np.empty((DEGREE, layout.lookup_rows, layout.lanes), dtype=np.uint32)
        found[:] = ext_inverse(alpha[None])[0][:, None, None]
        known = {name: one.T.astype(np.uint32) for name, one in inverses_of(self._circuit, tests, alpha).items()}
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
        layout = self._layout
        wide = layout.blocks * layout.strip
        flat = np.zeros(rows * wide, dtype=np.uint32)
        flat[: units.size] = np.mod(units.reshape(-1), P)
        found = np.zeros((rows, layout.lanes), dtype=np.uint32)
        found[:, :wide] = flat.reshape(rows, wide)
        return found

    def answer(self, own: Sequence[Committed], drawn: Drawn, transcript: Transcript) -> bytes:
        layout, committed = self._layout, [*self._elsewhere, *own]
        sections = sections_of(committed, layout)
        proximity = interpolate(combined_rows(sections, drawn.proximity, layout))
        cells = self._cells(sections, drawn)
        sums = self._sums(sections, drawn)[1:]
        for label, polynomial in (("proximity", proximity), ("cells", cells), ("sums", sums)):
            transcript.absorb(label, encode_elements(polynomial))
        positions = transcript.positions("columns", layout.columns, layout.queries).tolist()
        return Proof(
            tuple(part.root for part in own),
            proximity,
            cells,
            sums,
            *zip(*(part.opened(positions) for part in committed), strict=True),
        ).encode()

    def _cells(self, sections: dict[str, Section], drawn: Drawn) -> Field:
        layout = self._layout
        points = coset(layout)
        values = np.zeros((len(points), DEGREE), dtype=np.uint64)
        for start in range(0, len(points), CHUNK):
            part = slice(start, start + CHUNK)
            columns = Columns(sections, part)
            values[part] = cell_equations(
                columns, self._circuit, layout, drawn.tests, drawn.alpha, drawn.cells, Compiled()
            )
            values[part] += mask_values(columns, "mask_cells", points[part], layout)
        quotient = mul(values % _P, inverse(vanishing(points, layout))[:, None])
        coefficients, length = from_coset(quotient, layout), layout.row + layout.pads
        if coefficients[length:].any():
            raise WitnessRefused("a cell equation does not hold: the values break the circuit")
        return coefficients[:length]

    def _sums(self, sections: dict[str, Section], drawn: Drawn) -> Field:
        layout = self._layout
        weights = weights_of(self._circuit, drawn.tests, drawn.sums)
        inverses = InverseRows.of(layout, drawn.tables)
        terms = [_whole_rows(inverses, layout), *foreign_terms(self._circuit, weights)]
        total = sums_of_terms(sections, terms, layout)
        total += _ends_of_rows(inverses, layout, sections)
        for name, first, rows in _weights_by_row(self._circuit, weights, layout, drawn):
            on_points = kernels.encode(rows.reshape(-1, layout.row), 2)
            values = sections[name].values[:, first : first + len(rows)]
            total += kernels.row_products(on_points, np.ascontiguousarray(values))
        found = from_coset(total % _P, layout)
        wanted = (mul(weights.target, np.uint64(pow(layout.row, P - 2, P))) + _P - found[layout.row]) % _P
        if not np.array_equal(found[0], wanted):
            raise WitnessRefused("a relation does not hold: the values break the circuit")
        return found


def _whole_rows(inverses: InverseRows, layout: Layout) -> Term:
    """Rows of inverses that are used in all of their lanes."""
    wide = layout.blocks * layout.strip
    factors = np.where((inverses.used == wide)[:, None], inverses.factors, np.uint64(0))
    coefficients = {f"inverses_{e}": (0, ext_turned(factors, e)) for e in range(DEGREE)}
    return Term(0, ext(np.ones(wide, dtype=np.uint64)), coefficients)


def _ends_of_rows(inverses: InverseRows, layout: Layout, sections: dict[str, Section]) -> Field:
    """The others, at the points of the coset: Σ factor·(ones over the used lanes)·inverse, (2k, 4)."""
    chosen = np.flatnonzero(inverses.used < layout.blocks * layout.strip)
    ones = (np.arange(layout.row) < inverses.used[chosen, None]).astype(np.uint32)
    on_points, total = kernels.encode(ones, 2), np.zeros((2 * layout.row, DEGREE), dtype=np.uint64)
    for e in range(DEGREE):
        values = np.ascontiguousarray(sections[f"inverses_{e}"].values[:, chosen])
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
