"""A second verifier of the proof of a circuit, written from README.md alone, in plain integers.

It shares nothing with the first but the circuit, the names of errors and what proofs/plain.py has, and takes its time.
What the two do not agree on is a mistake in one of them, or in the text. Sections are those of README.md beside this
file, and of proofs/README.md where that is said. Elements of K are integers as in proofs/plain.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import chain, islice

import numpy as np

from proofs.circuit.builder import Circuit, Table
from proofs.circuit.relations import Keyed
from proofs.circuit.second_weights import Drawn, Lots, Weights, free_places, integers
from proofs.circuit.wire import CircuitRefused, Group, Lookup, Wire
from proofs.plain import (
    BASIS,
    Column,
    Interpolation,
    Messages,
    P,
    Point,
    Transcript,
    below_p,
    by_threes,
    cells_at,
    dot,
    element_of,
    elements_of,
    evaluate,
    in_f,
    inverses_of,
    minus,
    points_of,
    powers_of,
    proximity_at,
    reduced,
    sums_at,
    three_inverted,
)
from proofs.proof import CellsFailed, ProximityFailed, SumsFailed

MOST_QUERIES = 128
_Key = tuple[str, str, int]  # what a section holds, of what, and its number there
_Sections = dict[_Key, tuple[int, ...]]  # the entries of an opened column, by section
_OWN_ROWS: dict[_Key, int] = {("mask", "proximity", 0): 4, ("mask", "sums", 0): 4}
_QUOTIENTS: dict[_Key, int] = {("cells", "", 0): 16, ("sums", "rest", 0): 4, ("sums", "quotient", 0): 4}


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
    sizes = _sizes(circuit, row, elsewhere_sections)
    k, height, widths = row, row.bit_length() + 2, sizes.widths
    if k * sum(widths) > 1 << 27:
        raise CircuitRefused("more than 2^27 cells")
    messages = Messages(proof, sizes.fixed, len(widths) * height * sizes.t)
    own = [messages.take(32) for _ in range(3)]
    proximity = messages.take(16 * k)
    sent = elements_of(below_p(proximity))
    transcript = Transcript(protocol)
    transcript.absorb("statement", statement)
    transcript.absorb("values", own[0])
    longest, widest = _longest_test(circuit), _widest_rows(circuit)
    tests = iter(transcript.elements("tests", 2 * longest + 1 + widest + 1))
    left, right, (beta,), gamma, (alpha,) = (list(islice(tests, n)) for n in (longest, longest, 1, widest, 1))
    if in_f(alpha):
        raise CellsFailed("α lies in F")
    transcript.absorb("tests", own[1])
    of_cells = transcript.elements("cells", sizes.identities)
    keys = transcript.draw("table sums"), transcript.draw("sums")
    transcript.absorb("quotients", own[2])
    of_rows = transcript.elements("proximity", sum(widths) - 4 + 4)
    transcript.absorb("proximity", proximity)
    positions = transcript.positions("columns", sizes.t, 8 * k)
    columns = messages.columns(positions, height, zip((*roots, *own), widths, strict=True))
    points = points_of(k, k, positions)
    mask, rest = sizes.begins(("mask", "proximity", 0)), sizes.begins(("sums", "rest", 0))
    for column, point in zip(columns, points, strict=True):
        if proximity_at(point.x, column, mask, rest, of_rows) != evaluate(sent, point.x):
            raise ProximityFailed(f"at {point.x}")
    drawn = Drawn(left, right, beta, gamma, alpha, *map(Lots, keys))
    opened = _Opened(circuit, sizes, drawn, list(zip(map(sizes.by_section, columns), points, strict=True)))
    _check_cells(opened, of_cells)
    _check_sums(opened)


# Section 3: sizes and rows


@dataclass(frozen=True)
class _Sizes:
    """Rows of trees, where t columns are opened. `ranges`: the names of those tables."""

    circuit: Circuit
    k: int
    elsewhere: Sequence[Sequence[tuple[str, int]]]
    ranges: frozenset[str]
    t: int

    @property
    def lanes(self) -> int:
        return self.k - self.t

    @cached_property
    def used(self) -> int:
        """h·A: the lanes of a row that strips lie in."""
        return self.lanes // self.circuit.lanes * self.circuit.lanes

    def rows(self, group: Group) -> int:
        """Of one column. h strips of A places, or h·A of one, fill a row: h·A cells, one strip after the other."""
        return -(-group.size * group.lanes // self.used)

    def lookups(self) -> Iterator[tuple[Group, Lookup]]:
        return ((group, lookup) for group in self.circuit.groups.values() if group.size for lookup in group.lookups)

    @cached_property
    def others(self) -> list[tuple[Group, Lookup]]:
        """The look-ups of tables that are no ranges."""
        return [(group, lookup) for group, lookup in self.lookups() if lookup.table not in self.ranges]

    @cached_property
    def ranged(self) -> dict[str, list[tuple[Group, int]]]:
        """Group and column of all look-ups of each range."""
        found: dict[str, list[tuple[Group, int]]] = {name: [] for name in self.circuit.tables if name in self.ranges}
        for group, lookup in self.lookups():
            if lookup.table in found:
                found[lookup.table].append((group, lookup.columns[0][1]))
        return found

    @cached_property
    def threes(self) -> dict[str, int]:
        """Rows of inverses of each range."""
        return {name: -(-sum(self.rows(group) for group, _ in found) // 3) for name, found in self.ranged.items()}

    @property
    def error(self) -> Fraction:
        """Section 6."""
        cells = 3 * self.lanes * sum(self.threes.values()) + sum(group.size * group.lanes for group, _ in self.others)
        entries = sum(len(table.entries) for table in self.circuit.tables.values())
        return Fraction(9, 16) ** self.t + Fraction(2 * 8 * self.k + cells + entries + 16, P**4)

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
        inverted = sum(self.threes.values()) + sum(self.rows(group) for group, _ in self.others)
        tests |= {("inverses", "", place): inverted for place in range(4)} | _OWN_ROWS
        others: list[dict[_Key, int]] = [
            {("elsewhere", name, 0): rows for name, rows in sections} for sections in self.elsewhere
        ]
        return [*others, values, tests, _QUOTIENTS]

    @cached_property
    def widths(self) -> list[int]:
        return [sum(tree.values()) for tree in self.trees]

    @property
    def fixed(self) -> int:
        """Bytes of a proof without its openings."""
        return 3 * 32 + 16 * self.k + self.t * sum(16 + 4 * width for width in self.widths)

    @property
    def identities(self) -> int:
        """How many factors the cells draw."""
        groups = self.circuit.groups.values()
        inverted = self.trees[-2]["inverses", "", 0]
        return sum(self.rows(group) * len(group.identities) for group in groups) + inverted

    def begins(self, section: _Key) -> int:
        """Its first row, of the rows of all trees."""
        return [key for tree in self.trees for key, rows in tree.items() for _ in range(rows)].index(section)

    def by_section(self, column: Column) -> _Sections:
        rest = iter(column)
        return {key: tuple(islice(rest, rows)) for tree in self.trees for key, rows in tree.items()}

    def by_row(self, values: list[int]) -> list[list[int]]:
        """What cells of one column, strip after strip, are in each of its rows."""
        return [values[start : start + self.used] for start in range(0, len(values), self.used)]


def _sizes(circuit: Circuit, k: int, elsewhere: Sequence[Sequence[tuple[str, int]]]) -> _Sizes:
    """With the least t that makes a proof sound."""
    ranges = frozenset(name for name, table in circuit.tables.items() if _is_range(table))
    keyed = _keyed(circuit)
    for group in circuit.groups.values():
        if len({lookup.table in ranges for lookup in group.lookups}) > 1:
            raise CircuitRefused(f"{group.name} is looked up in ranges and in other tables")
        for lookup in group.lookups:
            if lookup.table in ranges and (group.phase or [by for by, _ in lookup.columns] != ["1"]):
                raise CircuitRefused(f"{group.name} looks up more than a column of the first phase in a range")
            if group.phase and lookup.columns != (("1", 0), ("e0", 1), ("e1", 2), ("e2", 3), ("e3", 4)):
                raise CircuitRefused(f"{group.name} looks up other than index and key")
            if group.phase and any(keyed[group.name, strip] != 1 for strip in range(group.size)):
                raise CircuitRefused(f"{group.name} looks up strips that are not index and key of one Keyed")
    for t in range(1, MOST_QUERIES + 1):
        if 4 * t > k or k - t < circuit.lanes:
            break
        sizes = _Sizes(circuit, k, elsewhere, ranges, t)
        if sizes.error <= Fraction(1, 1 << 100):
            return sizes
    raise CircuitRefused(f"rows of {k} cells cannot hold this circuit")


def _keyed(circuit: Circuit) -> Counter[tuple[str, int]]:
    """Of how many Keyeds with ids and values of phase 0 a group's strip is index and key, in its first five columns."""
    found = Counter[tuple[str, int]]()
    for one in circuit.relations:
        if isinstance(one, Keyed):
            late = any(term.group.phase for wire in (one.ids, one.values) for term in wire.terms)
            cells = [_cell(wire, column) for column, wire in enumerate((one.index, *one.key))]
            if not late and cells[0] is not None and cells == cells[:1] * 5:
                found[cells[0]] += 1
    return found


def _cell(wire: Wire, column: int) -> tuple[str, int] | None:
    """Group and strip, where the wire is a strip of that column as it is."""
    if wire.size != 1 or len(wire.terms) != 1 or wire.constant is not None:
        return None
    (term,) = wire.terms
    if term.column != column or term.index.size != 1 or term.turn is not None or (term.coefficient != 1).any():
        return None
    return term.group.name, term.index.item()


def _is_range(table: Table) -> bool:
    """Numbers in a row, and nothing else. Raises CircuitRefused where 0 is none of them."""
    if table.rows is not None or table.entries.shape != (len(table.entries), 1):
        return False
    if integers(table.entries[:, 0]) != list(_numbers(table)):
        return False
    if 0 not in _numbers(table):
        raise CircuitRefused(f"{table.name} does not hold 0")
    return True


# Section 5: what is drawn


def _longest_test(circuit: Circuit) -> int:
    return max(
        [circuit.lanes, *(free_places(circuit, side) for pair in circuit.pairs for side in (pair.left, pair.right))]
    )


def _widest_rows(circuit: Circuit) -> int:
    return max((len(integers(table.rows)[0]) for table in circuit.tables.values() if table.rows is not None), default=0)


@dataclass(frozen=True)
class _Opened:
    """What the checks look at."""

    circuit: Circuit
    sizes: _Sizes
    drawn: Drawn
    columns: list[tuple[_Sections, Point]]

    def inverses(self, at: _Sections) -> Iterator[int]:
        return map(element_of, zip(*(at["inverses", "", place] for place in range(4)), strict=True))


# Section 4: cells


def _check_cells(opened: _Opened, factors: list[int]) -> None:
    sizes, drawn = opened.sizes, opened.drawn
    alphas = powers_of(drawn.alpha, 4)
    for at, point in opened.columns:
        values = [value % P for group in opened.circuit.groups.values() for value in _identities(group, at)]
        inverses = opened.inverses(at)
        for columns in sizes.ranged.values():
            rows = [value for group, column in columns for value in at["cells", group.name, column]]
            values += [three_inverted(next(inverses), alphas, three) for three in by_threes(rows)]
        keys = chain.from_iterable(_keys(group, lookup, at, drawn.beta) for group, lookup in sizes.others)
        for inverse, key in zip(inverses, keys, strict=True):
            values.append(reduced(inverse * (drawn.alpha + minus(key))) + P - 1)
        if len(values) != len(factors):
            raise CircuitRefused("identities and look-ups are not as many as their factors")
        if reduced(dot(factors, values)) != cells_at(point.x, at["cells", "", 0], sizes.k, sizes.t, sizes.lanes):
            raise CellsFailed(f"at {point.x}")


def _identities(group: Group, at: _Sections) -> Iterator[int]:
    """Row after row of identity after identity."""
    columns = [at["cells", group.name, column] for column in range(group.width)]
    for identity in group.identities:
        for cells in zip(*columns, strict=True):
            products = ((int(scale), cells[a], 1 if b is None else cells[b]) for scale, a, b in identity)
            yield sum(scale * first * second for scale, first, second in products)


def _keys(group: Group, lookup: Lookup, at: _Sections, beta: int) -> Iterator[int]:
    """What is looked up, row after row."""
    multipliers = {"1": 1, "β": beta} | {f"e{place}": element for place, element in enumerate(BASIS)}
    parts = [(multipliers[name], at["cells", group.name, column]) for name, column in lookup.columns]
    for cells in zip(*(column for _, column in parts), strict=True):
        yield reduced(dot((multiplier for multiplier, _ in parts), cells))


# Section 4: sum


def _check_sums(opened: _Opened) -> None:
    circuit, sizes, drawn = opened.circuit, opened.sizes, opened.drawn
    chi = dict(zip(circuit.tables, (drawn.chi.draw(1)[0] for _ in circuit.tables), strict=True))
    weights = Weights(circuit, drawn)
    weights.add_relations()
    interpolated = Interpolation([point for _, point in opened.columns])
    rows = [
        (("cells", name, column), [interpolated(part) for part in sizes.by_row([reduced(cell) for cell in cells])])
        for (name, column), cells in weights.cells.items()
    ]
    counts = _Counts(sizes, drawn, interpolated)
    of_inverses = [(chi[name], sizes.lanes) for name, count in sizes.threes.items() for _ in range(count)]
    for group, lookup in sizes.others:
        of_inverses += [(chi[lookup.table], len(part)) for part in sizes.by_row([0] * (group.size * group.lanes))]
    lengths = {length for _, length in of_inverses}
    elsewhere = [(section, row, place, reduced(weight)) for (section, row, place), weight in weights.elsewhere.items()]
    for number, (at, point) in enumerate(opened.columns):
        found = pow(point.x, sizes.k // 2, P) * element_of(at["mask", "sums", 0])
        for key, parts in rows:
            found += sum(part[number] * cell for part, cell in zip(parts, at[key], strict=True))
        for section, row, place, weight in elsewhere:
            found += reduced(weight * point.lagrange[place]) * at["elsewhere", section, 0][row]
        used = {length: sum(point.lagrange[:length]) % P for length in lengths}
        for (factor, length), inverse in zip(of_inverses, opened.inverses(at), strict=True):
            found += reduced(factor * inverse) * used[length]
        for name, of_table in counts.at(number, at):
            found += chi[name] * minus(of_table)
        rest, quotient = at["sums", "rest", 0], at["sums", "quotient", 0]
        if reduced(found) != sums_at(point.x, weights.target, rest, quotient, sizes.k):
            raise SumsFailed(f"at {point.x}")


class _Counts:
    """Σ count_v/(α − key_v) of every table. Rows of ranges that begin with the same number are interpolated once."""

    def __init__(self, sizes: _Sizes, drawn: Drawn, interpolated: Interpolation) -> None:
        self._rows: dict[str, list[list[int]]] = {}
        tables, known = sizes.circuit.tables, dict[tuple[int, int], list[int]]()
        numbers = {n: n % P for name in sizes.ranges for n in _numbers(tables[name])}
        of_numbers = dict(zip(numbers, _inverses(drawn.alpha, numbers.values()), strict=True))
        for name, table in tables.items():
            if name not in sizes.ranges:
                parts = sizes.by_row(_inverses(drawn.alpha, _table_keys(table, drawn)))
                self._rows[name] = list(map(interpolated, parts))
                continue
            found = self._rows[name] = []
            for row, part in enumerate(sizes.by_row([of_numbers[number] for number in _numbers(table)])):
                key = table.first + row * sizes.used, len(part)
                if key not in known:
                    known[key] = interpolated(part)
                found.append(known[key])

    def at(self, number: int, at: _Sections) -> Iterator[tuple[str, int]]:
        """Of every table, at the column of that number."""
        for name, rows in self._rows.items():
            yield name, reduced(dot((row[number] for row in rows), at["counts", name, 0]))


def _numbers(table: Table) -> range:
    """What a range holds."""
    return range(table.first, table.first + len(table.entries))


def _table_keys(table: Table, drawn: Drawn) -> Iterator[int]:
    """Of each entry."""
    factors = [1, drawn.beta] if table.rows is None else [1, *drawn.gamma]
    entries = table.entries if table.rows is None else np.concatenate([table.entries, table.rows], axis=1)
    return (reduced(dot(factors, (value % P for value in entry))) for entry in integers(entries))


def _inverses(alpha: int, keys: Iterable[int]) -> list[int]:
    """1/(α − key) for each."""
    try:
        return inverses_of([alpha + minus(key) for key in keys])
    except ZeroDivisionError:
        raise SumsFailed("α lies in a table") from None
