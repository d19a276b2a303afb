"""From a circuit to the rows of its proof, and every size of it: derived, never typed in.

A row of k cells holds h = ⌊ℓ/A⌋ strips of A lanes (or h·A single cells) of one column; its last cells are random. The
trees: what was committed to elsewhere, VALUES, TESTS, QUOTIENTS.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import log2

from proofs.circuit.builder import Circuit, Table
from proofs.circuit.relations import Keyed
from proofs.circuit.wire import CircuitRefused, Group, Lookup
from proofs.field import DEGREE, P
from proofs.parameters import (
    BLOWUP,
    MASKS,
    MAX_CELLS,
    QUOTIENT_ROWS,
    TARGET_BITS,
    TOGETHER,
    Sections,
    bytes_of,
    largest_bytes_of,
)

VALUES, TESTS, QUOTIENTS = range(3)  # after the trees from elsewhere
KEYED = (("1", 0), *((f"e{e}", 1 + e) for e in range(DEGREE)))  # columns of index and key, as they are looked up
MOST_QUERIES = 128  # what trees that were committed to elsewhere keep room for


@dataclass(frozen=True)
class GroupShape:
    """What a layout knows of a group: its sizes. lookups: tables; ranged: (table, column) of look-ups in ranges."""

    name: str
    lanes: int
    width: int
    size: int
    phase: int
    lookups: tuple[str, ...]
    ranged: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, group: Group, tables: Mapping[str, Table]) -> GroupShape:
        """Raises CircuitRefused for a look-up in a range that cannot share inverses."""
        ranged = tuple(_ranged(group, one) for one in group.lookups if tables[one.table].counts)
        alone = tuple(lookup.table for lookup in group.lookups if not tables[lookup.table].counts)
        if ranged and alone:
            raise CircuitRefused(f"{group.name} is looked up in ranges and in other tables")
        return cls(group.name, group.lanes, group.width, group.size, group.phase, alone, ranged)


def _ranged(group: Group, lookup: Lookup) -> tuple[str, int]:
    """(table, column)."""
    (factor, column), *more = lookup.columns
    if more or factor != "1" or group.phase:
        raise CircuitRefused(f"{group.name}: one column of phase 0 is looked up in a range")
    return lookup.table, column


@dataclass(frozen=True)
class Layout:
    """row: k. queries: t. strip: A. tables: their lengths by name. elsewhere: sections of trees that are not this
    proof's own; how many of their cells are random is their affair."""

    row: int
    queries: int
    strip: int
    groups: tuple[GroupShape, ...]
    tables: Mapping[str, int]
    elsewhere: tuple[Sections, ...] = ()

    @property
    def sent(self) -> tuple[int, ...]:
        return tuple(len(self.elsewhere) + tree for tree in (VALUES, TESTS, QUOTIENTS))

    @property
    def pads(self) -> int:
        return self.queries

    @property
    def columns(self) -> int:
        return BLOWUP * self.row

    @property
    def lanes(self) -> int:
        return self.row - self.pads

    @property
    def blocks(self) -> int:
        """h: strips of a row."""
        return self.lanes // self.strip

    def per_row(self, group: GroupShape) -> int:
        return self.blocks if group.lanes > 1 else self.blocks * self.strip

    def rows(self, group: GroupShape) -> int:
        return -(-group.size // self.per_row(group))

    def shared(self) -> Iterator[tuple[str, list[tuple[GroupShape, int]], int]]:
        """(range, (group, column) of its look-ups, rows of inverses): the first rows of inverses."""
        for table in self.tables:
            users = [(group, column) for group in self.groups for name, column in group.ranged if name == table]
            if users:
                yield table, users, -(-sum(self.rows(group) for group, _ in users) // TOGETHER)

    def looked_up(self) -> Iterator[tuple[GroupShape, int, str]]:
        """(group, number of the look-up in it, table), in the order of the inverses, of tables that are no ranges."""
        for group in self.groups:
            for number, table in enumerate(group.lookups):
                yield group, number, table

    @property
    def shared_rows(self) -> int:
        """Rows of inverses that ranges share."""
        return sum(rows for _, _, rows in self.shared())

    @property
    def inverse_rows(self) -> int:
        return self.shared_rows + sum(self.rows(group) for group, _, _ in self.looked_up())

    def count_rows(self, table: str) -> int:
        return -(-self.tables[table] // (self.blocks * self.strip))

    @cached_property
    def trees(self) -> tuple[Sections, ...]:
        def columns(phase: int) -> Sections:
            return tuple(
                (section(group.name, column), self.rows(group))
                for group in self.groups
                if group.phase == phase
                for column in range(group.width)
            )

        counts = tuple((counts_of(table), self.count_rows(table)) for table in self.tables)
        inverses = tuple((f"inverses_{e}", self.inverse_rows) for e in range(DEGREE))
        return (*self.elsewhere, (*columns(0), *counts), (*columns(1), *inverses, *MASKS), QUOTIENT_ROWS)

    @cached_property
    def heights(self) -> tuple[int, ...]:
        return tuple(sum(rows for _, rows in sections) for sections in self.trees)

    @property
    def fixed_bytes(self) -> int:
        return bytes_of(self)

    @property
    def largest_bytes(self) -> int:
        return largest_bytes_of(self)

    @property
    def error(self) -> Fraction:
        """Upper bound on the probability that a false statement passes; README.md derives it."""
        field = P**DEGREE
        looked_up = sum(group.size * group.lanes for group, _, _ in self.looked_up()) + sum(self.tables.values())
        looked_up += TOGETHER * self.shared_rows * self.lanes
        return Fraction(BLOWUP + 1, 2 * BLOWUP) ** self.queries + Fraction(2 * self.columns + looked_up + 16, field)

    @property
    def bits(self) -> float:
        return -(log2(self.error.numerator) - log2(self.error.denominator))


def section(group: str, column: int) -> str:
    return f"{group}#{column}"


def counts_of(table: str) -> str:
    return f"counts of {table}"


def layout_of(circuit: Circuit, row: int, elsewhere: Sequence[Sections] = ()) -> Layout:
    """The sizes of a circuit's proof with rows of that length. Raises CircuitRefused."""
    _check_keyed(circuit)
    _check_ranges(circuit)
    shapes = [GroupShape.of(group, circuit.tables) for group in circuit.groups.values()]
    groups = tuple(shape for shape in shapes if shape.size)
    tables = {table.name: len(table.entries) for table in circuit.tables.values()}
    for queries in range(1, MOST_QUERIES + 1):
        if Fraction(BLOWUP + 1, 2 * BLOWUP) ** queries > Fraction(1, 2**TARGET_BITS):
            continue
        found = Layout(row, queries, circuit.lanes, groups, tables, tuple(elsewhere))
        if found.blocks < 1 or (TOGETHER + 1) * queries > row:
            break
        if found.error > Fraction(1, 2**TARGET_BITS):
            continue
        if row * sum(found.heights) > MAX_CELLS:
            raise CircuitRefused("a proof of this circuit would not fit the memory")
        return found
    raise CircuitRefused(f"rows of {row} cells are too short for this circuit")


def _check_keyed(circuit: Circuit) -> None:
    """What is looked up must be fixed when α is drawn: in phase 1, by relations with cells of phase 0."""
    strips: dict[str, list[int]] = {}
    for relation in circuit.relations:
        if isinstance(relation, Keyed):
            name, strip = _strip_of(relation)
            strips.setdefault(name, []).append(strip)
    for group in circuit.groups.values():
        if not group.phase or not group.lookups:
            continue
        if [lookup.columns for lookup in group.lookups] != [KEYED]:
            raise CircuitRefused(f"{group.name}: what is looked up is not index and key")
        if sorted(strips.get(group.name, [])) != list(range(group.size)):
            raise CircuitRefused(f"{group.name}: cells that are looked up could be chosen when α is known")


def _check_ranges(circuit: Circuit) -> None:
    """Every cell of every lane is looked up there, what is left over too, which is zero."""
    for name, table in circuit.tables.items():
        if table.counts and not table.first <= 0 < table.first + len(table.entries):
            raise CircuitRefused(f"{name}: a range holds 0")


def _strip_of(relation: Keyed) -> tuple[str, int]:
    """(group, strip) of index and key, which are its columns in order, and nothing else."""
    if any(term.group.phase for wire in (relation.ids, relation.values) for term in wire.terms):
        raise CircuitRefused("a row is named by cells that could be chosen when α is known")
    if len(relation.key) != DEGREE:
        raise CircuitRefused("a key is an element of K")
    found = set[tuple[str, int]]()
    for column, wire in enumerate((relation.index, *relation.key)):
        terms = wire.terms if wire.constant is None and wire.size == 1 else ()
        if len(terms) != 1 or terms[0].column != column or terms[0].turn is not None or terms[0].coefficient.size != 1:
            raise CircuitRefused("index and key of a row are no cells of one strip")
        if terms[0].coefficient.item() != 1:
            raise CircuitRefused("index and key of a row are multiples of cells")
        found.add((terms[0].group.name, int(terms[0].index.item())))
    if len(found) != 1:
        raise CircuitRefused("index and key of a row lie in different strips")
    return found.pop()
