"""Two verifiers of circuits, one text: what one says of a proof, the other says too, and for the same reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from hashlib import sha256
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.circuits import Toy
from proofs import answering, columns, plain, proof, transcript
from proofs.circuit import prover, second_verifier, second_weights
from proofs.circuit import verifier as first_verifier
from proofs.circuit.builder import Circuit, Table
from proofs.circuit.layout import Layout, layout_of
from proofs.circuit.wire import CircuitRefused, Wire
from proofs.commitment import Committed, commit
from proofs.errors import LocalFault, PeerFault
from proofs.field import P

PROTOCOL, STATEMENT, KEY = b"candor/toy-proof/1", b"\1" * 32, b"\2" * 32
ELSEWHERE = ((("ids", 2), ("unused", 1)), (("more", 3),))
Sections = Sequence[Sequence[tuple[str, int]]]
Verdict = type[Exception] | None


@dataclass(frozen=True, eq=False)
class Case:
    """build(proving): the circuit; committed: the trees from elsewhere."""

    build: Callable[[bool], Circuit]
    row: int
    sections: Sections = ()
    committed: tuple[Committed, ...] = ()

    @property
    def layout(self) -> Layout:
        return layout_of(self.build(False), self.row, [tuple(sections) for sections in self.sections])

    @property
    def roots(self) -> list[bytes]:
        return [tree.root for tree in self.committed]

    def prove(self, circuit: Circuit | None = None) -> bytes:
        whole = circuit or self.build(True)
        return prover.prove(STATEMENT, whole, self.layout, self.committed, KEY, None, PROTOCOL)

    def verdicts(
        self,
        data: bytes,
        circuit: Circuit | None = None,
        statement: bytes = STATEMENT,
        roots: Sequence[bytes] | None = None,
        protocol: bytes = PROTOCOL,
    ) -> tuple[Verdict, Verdict]:
        """What each verifier says."""
        stated, shown = circuit or self.build(False), self.roots if roots is None else roots

        def first() -> None:
            layout = layout_of(stated, self.row, [tuple(sections) for sections in self.sections])
            first_verifier.verify(statement, stated, layout, shown, data, protocol)

        def second() -> None:
            second_verifier.verify(statement, stated, self.row, self.sections, shown, data, protocol)

        return said(first), said(second)

    def agreed(self, data: bytes, expected: Verdict, **changed: Any) -> None:
        assert self.verdicts(data, **changed) == (expected, expected)

    def refused(self, data: bytes, why: str = "", **changed: Any) -> Verdict:
        found = self.verdicts(data, **changed)
        assert found[0] == found[1], why
        assert found[0] is not None, why
        return found[0]


def said(verify: Callable[[], None]) -> Verdict:
    try:
        verify()
    except (PeerFault, LocalFault) as error:
        return type(error)
    return None


def toy(lanes: int, row: int) -> Case:
    return Case(lambda proving: Toy(lanes, proving).circuit, row)


def toy_elsewhere() -> Case:
    """Rows of two trees from elsewhere, all of one lane less than the circuit's own."""
    lanes, row = 4, 512
    layout = layout_of(Toy(lanes, False).circuit, row, ELSEWHERE)
    rng = np.random.default_rng(3)
    cells = [{name: rng.integers(0, P, (rows, layout.lanes)) for name, rows in tree} for tree in ELSEWHERE]
    outside = {name: part for tree in cells for name, part in tree.items() if name != "unused"}

    def build(proving: bool) -> Circuit:
        return Toy(lanes, proving, outside).circuit

    layout = layout_of(build(False), row, ELSEWHERE)
    unsigned = [{name: part.astype(np.uint32) for name, part in tree.items()} for tree in cells]
    trees = tuple(commit(part, layout, number, bytes([number]) * 32) for number, part in enumerate(unsigned))
    return Case(build, row, ELSEWHERE, trees)


@pytest.fixture(scope="module")
def small() -> Case:
    return toy(3, 512)


@pytest.fixture(scope="module")
def small_proof(small: Case) -> bytes:
    return small.prove()


@pytest.fixture(scope="module")
def joined() -> Case:
    return toy_elsewhere()


@pytest.fixture(scope="module")
def joined_proof(joined: Case) -> bytes:
    return joined.prove()


def places_of(case: Case) -> dict[str, int]:
    """Where what begins in a proof."""
    sizes = second_verifier._sizes(case.build(False), case.row, case.sections)
    lengths = {"values": 32, "tests": 32, "quotients": 32, "proximity": 16 * case.row}
    lengths |= {f"tree {number}": sizes.t * (16 + 4 * width) for number, width in enumerate(sizes.widths)}
    begins = accumulate(lengths.values(), initial=0)
    return dict(zip([*lengths, "openings"], begins, strict=True))


def altered(data: bytes, at: int) -> bytes:
    """One lowest bit of a little-endian word turned: below p if it was, but for p − 1."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


class TestHonest:
    @pytest.mark.parametrize(("lanes", "row"), [(3, 512), (4, 512), (5, 1024), (2, 512), (7, 512), (1, 512)])
    def test_both_accept(self, lanes: int, row: int) -> None:
        case = toy(lanes, row)
        case.agreed(case.prove(), None)

    def test_both_accept_cells_from_elsewhere(self, joined: Case, joined_proof: bytes) -> None:
        joined.agreed(joined_proof, None)

    def test_both_accept_a_circuit_without_products_and_one_whose_products_are_short(self) -> None:
        def build(proving: bool, pairs: bool) -> Circuit:
            made = object.__new__(Toy)
            made.circuit, made._lanes, made._rng = Circuit(6, proving), 6, np.random.default_rng(0)
            made.circuit.tests_group()
            made.across()
            made.circuit.within((1,), 1, 0, 3, np.array([[2]]) if proving else None)
            if pairs:
                made.product([("both", "lanes", 6)], 2, 3, 1)
            return made.circuit

        for pairs in (False, True):
            case = Case(lambda proving, pairs=pairs: build(proving, pairs), 512)  # type: ignore[misc]
            case.agreed(case.prove(), None)

    def test_both_accept_rows_of_two_public_matrices_and_of_no_other(self) -> None:
        """An embedding, and a head that is another matrix: each is looked up among its own rows."""

        def build(proving: bool) -> Circuit:
            made = object.__new__(Toy)
            made.circuit, made._lanes, made._rng = Circuit(4, proving), 4, np.random.default_rng(0)
            made.circuit.tests_group()
            made.keyed()
            made.keyed("others", 5, 3)
            return made.circuit

        case = Case(build, 512)
        data = case.prove()
        case.agreed(data, None)
        for name in ("rows", "others"):
            circuit = build(False)
            table = circuit.tables[name]
            circuit.tables[name] = replace(table, rows=np.roll(table.rows, 1, axis=0))
            case.refused(data, name, circuit=circuit)

    def test_both_accept_a_circuit_of_single_cells(self) -> None:
        def build(proving: bool) -> Circuit:
            circuit = Circuit(1, proving)
            circuit.tests_group()
            x = circuit.within((300,), 1, 0, 9, np.arange(300)[:, None] % 10 if proving else None)
            circuit.equal(circuit.times(x, x) - circuit.free((300,), 1, x.units**2 if x.units is not None else None))
            return circuit

        case = Case(build, 512)
        case.agreed(case.prove(), None)

    def test_what_is_left_over_is_free_to_be_anything(self, small: Case, lying: Lying) -> None:
        """Cells beyond the last strip of a group without identities."""
        lying("values", lambda cells: set_last(cells["free/text#0"][-1], small.layout.blocks * 3 - 1))
        small.agreed(small.prove(), None)


def set_last(row: np.ndarray, lane: int) -> None:
    assert row[lane] == 0
    row[lane] = 5


@pytest.mark.parametrize(("entries", "expected"), [(4, 121), (1 << 17, 121), (1 << 22, 121), (1 << 23, 122)])
def test_both_derive_the_same_queries(entries: int, expected: int) -> None:
    """A circuit so large that the look-ups cost soundness; nothing of it is made."""
    circuit = Circuit(4, False)
    circuit.table(Table("range", 0, np.zeros((1, 1), dtype=np.int64)))
    circuit.group("range", 4, 1, (second_verifier.Lookup("range", (("1", 0),)),)).append(entries // 4, None)
    sizes = second_verifier._sizes(circuit, 512, ())
    layout = layout_of(circuit, 512)
    assert sizes.t == layout.queries == expected
    assert layout.error <= Fraction(1, 1 << 100)
    assert [list(tree.values()) for tree in sizes.trees] == [[rows for _, rows in tree] for tree in layout.trees]
    assert sizes.fixed == layout.fixed_bytes


@pytest.mark.parametrize(("lanes", "row", "entries"), [(392, 512, 1), (4, 512, 1 << 24), (4, 256, 1)])
def test_both_refuse_a_circuit_that_does_not_fit(lanes: int, row: int, entries: int) -> None:
    circuit = Circuit(lanes, False)
    circuit.table(Table("range", 0, np.zeros((1, 1), dtype=np.int64)))
    circuit.group("range", lanes, 1, (second_verifier.Lookup("range", (("1", 0),)),)).append(entries, None)
    case = Case(lambda _: circuit, row)
    case.agreed(b"", CircuitRefused)


@pytest.mark.parametrize("cells", [1 << 26, 1 << 28])
def test_both_refuse_a_circuit_that_no_memory_holds(cells: int) -> None:
    circuit = Circuit(4, False)
    circuit.group("free", 1, 1).size = cells
    case = Case(lambda _: circuit, 1 << 10)
    case.agreed(b"", proof.ProofMalformed if cells < 1 << 27 else CircuitRefused)


class TestOneFieldAltered:
    @pytest.mark.parametrize("name", ["values", "tests", "quotients", "proximity"])
    def test_a_message_before_the_columns(self, name: str, small: Case, small_proof: bytes) -> None:
        """Other positions follow, and almost surely another number of hashes; either error is the right one."""
        found = small.refused(altered(small_proof, places_of(small)[name]))
        assert found in (proof.ProofMalformed, proof.OpeningInvalid)

    def test_a_column(self, joined: Case, joined_proof: bytes) -> None:
        starts = places_of(joined)
        for tree in range(5):
            for offset in (0, 15, 16, 20):
                joined.agreed(altered(joined_proof, starts[f"tree {tree}"] + offset), proof.OpeningInvalid)

    def test_an_entry_of_each_row(self, small: Case, small_proof: bytes) -> None:
        starts = places_of(small)
        for tree, height in enumerate(small.layout.heights):
            for row in range(height):
                at = starts[f"tree {tree}"] + 16 + 4 * row
                small.agreed(altered(small_proof, at), proof.OpeningInvalid)

    def test_each_node_of_the_openings(self, small: Case, small_proof: bytes) -> None:
        for at in np.linspace(places_of(small)["openings"], len(small_proof) - 1, 24, dtype=int).tolist():
            small.agreed(altered(small_proof, at), proof.OpeningInvalid)

    @pytest.mark.parametrize("name", ["proximity", "tree 0", "tree 1", "tree 2"])
    def test_an_element_that_is_not_below_p(self, name: str, small: Case, small_proof: bytes) -> None:
        for value in (P, 2**32 - 1):
            at = places_of(small)[name] + 16
            changed = small_proof[:at] + value.to_bytes(4, "little") + small_proof[at + 4 :]
            small.agreed(changed, proof.ProofMalformed)

    def test_another_length(self, small: Case, small_proof: bytes) -> None:
        long = small_proof + bytes(32)
        for data in (b"", small_proof[:95], small_proof[:-1], small_proof[:-32], long[:-31], long, bytes(1 << 22)):
            small.agreed(data, proof.ProofMalformed)

    def test_sections_swapped(self, small: Case, small_proof: bytes) -> None:
        starts = [*places_of(small).values(), len(small_proof)]
        parts = [small_proof[start:stop] for start, stop in pairwise(starts)]
        for a in range(len(parts)):
            for b in range(a):
                swapped = list(parts)
                swapped[a], swapped[b] = parts[b], parts[a]
                small.refused(b"".join(swapped), f"{a} and {b}")


class TestAnotherStatement:
    def test_another_digest_or_protocol(self, small: Case, small_proof: bytes) -> None:
        for changed in ({"statement": b"\7" * 32}, {"protocol": b"candor/toy-proof/2"}):
            assert small.refused(small_proof, **changed) in (proof.ProofMalformed, proof.OpeningInvalid)

    def test_other_trees(self, joined: Case, joined_proof: bytes) -> None:
        roots = joined.roots
        for others in (roots[::-1], [roots[0], b"\7" * 32], [b"\7" * 32, roots[1]]):
            joined.agreed(joined_proof, proof.OpeningInvalid, roots=others)

    def test_another_circuits_proof(self, small: Case, joined_proof: bytes) -> None:
        small.refused(joined_proof)


class TestIfHashesCollided:
    """Were an altered message absorbed as the honest one, only the checks at the columns would be left to see it."""

    @pytest.fixture
    def collide(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes, bytes], None]:
        """collide(altered, honest): from now on every hash takes the one for the other."""

        def install(wrong: bytes, right: bytes) -> None:
            def programmed(data: bytes = b"") -> Any:
                return sha256(bytes(data).replace(wrong, right))

            for module in (transcript, columns, plain, second_weights):
                monkeypatch.setattr(module, "sha256", programmed)

        return install

    @pytest.mark.parametrize("at", [0, 1, -1], ids=["first", "second", "last"])
    def test_a_polynomial(
        self, at: int, small: Case, small_proof: bytes, collide: Callable[[bytes, bytes], None]
    ) -> None:
        start, stop = places_of(small)["proximity"], places_of(small)["tree 0"]
        changed = altered(small_proof, start + 16 * at if at >= 0 else stop + 16 * at)
        collide(changed[start:stop], small_proof[start:stop])
        small.agreed(changed, proof.ProximityFailed)

    @pytest.mark.parametrize("tree", range(5))
    def test_an_entry(
        self, tree: int, joined: Case, joined_proof: bytes, collide: Callable[[bytes, bytes], None]
    ) -> None:
        start = places_of(joined)[f"tree {tree}"]
        stop = start + 16 + 4 * joined.layout.heights[tree]
        changed = altered(joined_proof, start + 16)
        collide(changed[start:stop], joined_proof[start:stop])
        joined.agreed(changed, proof.ProximityFailed)

    def test_another_statement_is_seen_by_nothing_else(
        self, small: Case, small_proof: bytes, collide: Callable[[bytes, bytes], None]
    ) -> None:
        collide(b"\7" * 32, STATEMENT)
        small.agreed(small_proof, None, statement=b"\7" * 32)


# Another circuit than the one that was proven


Alteration = Callable[[Circuit], None]


def bumped(array: np.ndarray, seed: int) -> np.ndarray:
    found = np.array(array)
    found[tuple(np.random.default_rng(seed).integers(0, found.shape))] += 1
    return found


def wires_altered(wire: Wire, seed: int, circuit: Circuit) -> Iterator[tuple[str, Wire]]:
    for number, term in enumerate(wire.terms):
        before, after = wire.terms[:number], wire.terms[number + 1 :]
        changes: dict[str, dict[str, Any]] = {
            "coefficient": {"coefficient": bumped(np.broadcast_to(term.coefficient, term.index.shape), seed)},
            "index": {"index": np.where(term.index == term.index.max(), 0, term.index)},
            "turn": {"turn": None if term.turn is None else (term.turn + 1) % len(circuit.turns)},
            "no": {},
        }
        for name, change in changes.items():
            if name == "no":
                yield f"no term {number}", replace(wire, terms=(*before, *after))
            elif change[name] is not None and not np.array_equal(change[name], getattr(term, name)):
                yield f"{name} of term {number}", replace(wire, terms=(*before, replace(term, **change), *after))
    constant = np.zeros((*wire.shape, wire.lanes), dtype=np.int64) if wire.constant is None else wire.constant
    yield "constant", replace(wire, constant=bumped(constant, seed))


def relations_altered(seed: int, circuit: Circuit) -> Iterator[tuple[str, int, Any]]:
    """(name, number, relation in its place or None) of every way to alter one relation a little."""
    for number, relation in enumerate(circuit.relations):
        name = f"{type(relation).__name__} {number}"
        yield f"{name}: none", number, None
        for part in fields(relation):
            value = getattr(relation, part.name)
            if isinstance(value, Wire):
                for what, wire in wires_altered(value, seed, circuit):
                    yield f"{name}: {what} of {part.name}", number, replace(relation, **{part.name: wire})
            elif isinstance(value, tuple):
                for place, item in enumerate(value):
                    for what, changed in items_altered(item, seed, circuit):
                        others = (*value[:place], changed, *value[place + 1 :])
                        yield f"{name}: {what} of {part.name} {place}", number, replace(relation, **{part.name: others})


def items_altered(item: Any, seed: int, circuit: Circuit) -> Iterator[tuple[str, Any]]:
    if isinstance(item, Wire):
        yield from wires_altered(item, seed, circuit)
    elif isinstance(item, tuple):  # a matrix, or none, and a wire
        matrix, wire = item
        if matrix is not None:
            yield "matrix", (bumped(matrix, seed), wire)
        for what, changed in wires_altered(wire, seed, circuit):
            yield what, (matrix, changed)
    else:
        for side in ("left", "right"):
            factor = getattr(item, side)
            for what, changed in wires_altered(factor.wire, seed, circuit):
                yield f"{side} {what}", replace(item, **{side: replace(factor, wire=changed)})


def data_altered(seed: int, circuit: Circuit) -> Iterator[tuple[str, Alteration]]:
    """Every table, turn, identity and look-up, altered in one place."""
    for name, table in circuit.tables.items():
        for part in ("entries", "rows"):
            if getattr(table, part) is not None:
                changed = replace(table, **{part: bumped(getattr(table, part), seed)})
                yield f"{part} of {name}", lambda c, name=name, changed=changed: c.tables.update({name: changed})
        shorter = replace(table, entries=table.entries[:-1], rows=None if table.rows is None else table.rows[:-1])
        yield f"{name}, shorter", lambda c, name=name, shorter=shorter: c.tables.update({name: shorter})
    for number, turn in enumerate(circuit.turns):
        changed = bumped(turn, seed)
        yield f"turn {number}", lambda c, number=number, changed=changed: c.turns.__setitem__(number, changed)
    for name, group in circuit.groups.items():
        for number, identity in enumerate(group.identities):
            (scale, *columns), *rest = identity
            for what, other in (("scaled", (((scale + 1) % P, *columns), *rest)), ("cut", tuple(rest))):
                identities = (*group.identities[:number], other, *group.identities[number + 1 :])
                yield f"identity {number} of {name} {what}", setting(name, identities=identities)
        for lookup in group.lookups:
            multipliers, columns = zip(*lookup.columns, strict=True)
            if len(columns) > 1:
                other = replace(lookup, columns=tuple(zip(multipliers, columns[::-1], strict=True)))
                yield f"look-up of {name}", setting(name, lookups=(other,))
        if group.identities or group.lookups:
            yield f"nothing said of {name}", setting(name, identities=(), lookups=())


def setting(name: str, **changed: Any) -> Alteration:
    def alter(circuit: Circuit) -> None:
        for part, value in changed.items():
            setattr(circuit.groups[name], part, value)

    return alter


def alterations(case: Case, seed: int) -> list[tuple[str, Circuit]]:
    found = []
    for name, number, relation in relations_altered(seed, case.build(False)):
        circuit = case.build(False)
        circuit.relations[number : number + 1] = [] if relation is None else [relation]
        found.append((name, circuit))
    for name, alter in data_altered(seed, case.build(False)):
        circuit = case.build(False)
        alter(circuit)
        found.append((name, circuit))
    return found


def test_both_refuse_a_proof_of_a_circuit_that_is_a_little_different(joined: Case, joined_proof: bytes) -> None:
    chosen = alterations(joined, 1)[::37]
    for name, circuit in chosen:
        joined.refused(joined_proof, name, circuit=circuit)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(3))
def test_both_refuse_every_circuit_that_is_a_little_different(seed: int, joined: Case, joined_proof: bytes) -> None:
    for name, circuit in alterations(joined, seed):
        joined.refused(joined_proof, name, circuit=circuit)


# A prover that lies


Lie = Callable[[dict[str, np.ndarray]], None]
Lying = Callable[[str, Lie], None]


@pytest.fixture
def lying(monkeypatch: pytest.MonkeyPatch) -> Lying:
    """lying(what, lie): from now on the prover lets `lie` change its values or inverses before it commits to them, and
    checks nothing."""
    clipped(monkeypatch)

    def install(what: str, lie: Lie) -> None:
        honest = getattr(prover._Run, what)

        def told(self: Any, *arguments: Any) -> Any:
            found = honest(self, *arguments)
            lie(found)
            return found

        monkeypatch.setattr(prover._Run, what, told)

    return install


def clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values beyond a table are counted as its last entry, rests of divisions are forgotten, all sums are right."""
    monkeypatch.setattr(Table, "places", lambda self, keys: np.clip(keys - self.first, 0, len(self.entries) - 1))
    monkeypatch.setattr(answering, "of_length", lambda coefficients, length: coefficients[:length])
    monkeypatch.setattr(prover, "check_sum", lambda *_: None)


def test_both_refuse_each_cell_that_is_not_what_it_must_be(small: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    clipped(monkeypatch)
    rng, names = np.random.default_rng(5), list(small.build(False).groups)
    for name in names:
        for column in range(small.build(False).groups[name].width):
            circuit = small.build(True)
            group = circuit.groups[name]
            if group.phase:
                continue
            strip, place = int(rng.integers(group.size)), int(rng.integers(group.lanes))
            group._units[column, strip, place] += 1000
            found = small.refused(small.prove(circuit), f"{name}, column {column}")
            assert found in (proof.CellsFailed, proof.SumsFailed)


@pytest.mark.parametrize("column", range(17))
def test_both_refuse_each_cell_of_the_second_phase(column: int, small: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = prover._fill_tests
    name, own = ("product in K/1", column) if column < 12 else ("rows/text", column - 12)

    def filled(circuit: Circuit, tests: Any) -> None:
        honest(circuit, tests)
        circuit.groups[name]._units[own, -1, 0] = (circuit.groups[name]._units[own, 0, 0] + 1) % P

    clipped(monkeypatch)
    monkeypatch.setattr(prover, "_fill_tests", filled)
    assert small.refused(small.prove()) in (proof.CellsFailed, proof.SumsFailed)


def test_both_refuse_counts_that_are_not_what_was_looked_up(small: Case, lying: Lying) -> None:
    def lie(cells: dict[str, np.ndarray]) -> None:
        cells["counts of squares"][0, 2] += 1

    lying("values", lie)
    small.agreed(small.prove(), proof.SumsFailed)


def test_both_refuse_an_inverse_that_is_none(small: Case, lying: Lying) -> None:
    def lie(cells: dict[str, np.ndarray]) -> None:
        cells["inverses_2"][1, 3] = (cells["inverses_2"][1, 3] + 1) % P

    lying("inverses", lie)
    small.agreed(small.prove(), proof.CellsFailed)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("mask_proximity", None), ("mask_sums", proof.SumsFailed)],
)
def test_both_refuse_masks_that_hide_a_lie(
    name: str, expected: Verdict, small: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = prover.masks

    def lied(key: bytes, layout: Layout) -> Any:
        found = honest(key, layout)
        found[name][1, 7] = (found[name][1, 7] + 1) % P
        return found

    clipped(monkeypatch)
    monkeypatch.setattr(prover, "masks", lied)
    small.agreed(small.prove(), expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("cells", proof.CellsFailed), ("sums_rest", proof.SumsFailed), ("sums_quotient", proof.SumsFailed)],
)
@pytest.mark.parametrize("row", [0, -1])
def test_both_refuse_quotients_that_are_none(
    name: str, row: int, expected: Verdict, small: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = prover.quotient_rows

    def lied(*arguments: Any) -> Any:
        found = honest(*arguments)
        found[name][row] = (found[name][row].astype(np.int64) + 1) % P  # its lowest coefficient
        return found

    monkeypatch.setattr(prover, "quotient_rows", lied)
    small.agreed(small.prove(), expected)


def test_only_the_degree_of_the_rest_keeps_a_sum_from_being_another(
    small: Case, lying: Lying, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sum that is off by k·d: x·d·x^(k − 1) − d·(x^k − 1) = d would make up for it."""
    k, honest, missing = small.row, prover.quotient_rows, []

    def lie(cells: dict[str, np.ndarray]) -> None:
        cells["counts of squares"][0, 2] += 1

    def check_sum(sums: np.ndarray, target: np.ndarray, _: Layout) -> None:
        missing[:] = [
            (int(a) + int(b) - int(c) * pow(k, -1, P)) % P for a, b, c in zip(sums[0], sums[k], target, strict=True)
        ]

    def lied(*arguments: Any) -> Any:
        found = honest(*arguments)
        highest = [pow(plain.root_of_unity(k), -j, P) for j in range(k)]  # x^(k − 1) = 1/x on H
        for e, d in enumerate(missing):
            found["sums_rest"][e] = [
                (int(own) + d * x) % P for own, x in zip(found["sums_rest"][e], highest, strict=True)
            ]
            found["sums_quotient"][e] = [(int(own) - d) % P for own in found["sums_quotient"][e]]
        return found

    lying("values", lie)
    monkeypatch.setattr(prover, "check_sum", check_sum)
    monkeypatch.setattr(prover, "quotient_rows", lied)
    data = small.prove()
    assert any(missing)
    small.agreed(data, proof.ProximityFailed)
    for name in ("evaluate", "proximity_at"):
        monkeypatch.setattr(second_verifier, name, lambda *_: 0)
    assert small.verdicts(data)[1] is None


def test_the_second_refuses_an_alpha_in_f(small: Case, small_proof: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = plain.Transcript.elements

    def elements(self: Any, label: str, count: int) -> list[int]:
        found = honest(self, label, count)
        if label == "tests":
            found[-1] %= 1 << 96
        return found

    monkeypatch.setattr(plain.Transcript, "elements", elements)
    with pytest.raises(proof.CellsFailed, match="α lies in F"):
        second_verifier.verify(STATEMENT, small.build(False), small.row, (), [], small_proof, PROTOCOL)


# Bytes


def mutate(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    mutated = bytearray(data)
    for at, value in changes:
        mutated[at % len(mutated)] ^= value
    return bytes(mutated)


CHANGES = st.lists(st.tuples(st.integers(0, 2**24), st.integers(1, 255)), min_size=1, max_size=4)
CUTS = st.one_of(st.none(), st.integers(0, 2**18))


def same_of_mutated(case: Case, data: bytes, changes: list[tuple[int, int]], cut: int | None) -> None:
    mutated = mutate(data, changes)[:cut]
    found = case.verdicts(mutated)
    assert found[0] == found[1]
    assert (found[0] is None) == (mutated == data)


@given(changes=CHANGES, cut=CUTS)
@settings(max_examples=60, deadline=None)
def test_both_say_the_same_of_mutated_bytes(
    joined: Case, joined_proof: bytes, changes: list[tuple[int, int]], cut: int | None
) -> None:
    same_of_mutated(joined, joined_proof, changes, cut)


@pytest.mark.long
@pytest.mark.timeout(3600)
@given(changes=CHANGES, cut=CUTS)
@settings(max_examples=5000, deadline=None)
def test_both_say_the_same_of_thousands_of_mutations(
    joined: Case, joined_proof: bytes, changes: list[tuple[int, int]], cut: int | None
) -> None:
    same_of_mutated(joined, joined_proof, changes, cut)
