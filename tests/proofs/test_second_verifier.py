"""Two verifiers, one text: what one of them says of a proof, the other says too, and for the same reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proofs import columns, plain, proof, second_verifier, transcript
from proofs import statement as statement_module
from proofs.errors import LocalFault, PeerFault
from proofs.parameters import parameters
from proofs.statement import Shape
from proofs.verifier import verify as first
from proofs.words import Binding

Case = Any
Hash = Callable[..., Any]
HONEST = {
    "one of everything": (Shape(1, (1,), 1, 1, 1, 1, 1 << 31, 5), 1),
    "everybody is drawn": (Shape(2, (4, 3), 8, 8, 32, 50, 1 << 32, 5), 8),
    "nobody is drawn": (Shape(2, (4,), 8, 8, 32, 50, 1, 5), 8),
    "no rows at all": (Shape(1, (4,), 8, 4, 32, 50, 1 << 31, 5), 0),
    "the largest clip and the loudest noise": (Shape(1, (40, 2), 8, 8, 2048, 3500, 1 << 31, 5), 8),
    "three groups": (Shape(2, (2, 9, 1), 8, 8, 1000, 700, 3 << 30, 5), 5),
    "room for a further proof": (Shape(2, (5, 3), 16, 16, 64, 100, 1 << 31, 5, 1), 11),
    "room for sixteen": (Shape(1, (3,), 8, 8, 64, 100, 1 << 31, 5, 16), 8),
    "words in more than a row": (Shape(9, (30,), 40, 25, 64, 100, 1 << 30, 5), 31),
}
QUICK = ("everybody is drawn", "three groups", "room for a further proof", "words in more than a row")


def verdicts(statement: Any, data: bytes) -> tuple[type[Exception] | None, type[Exception] | None]:
    """What each verifier says."""
    found: list[type[Exception] | None] = []
    for verify in (first, second_verifier.verify):
        try:
            verify(statement, data)
        except PeerFault as error:
            found.append(type(error))
        else:
            found.append(None)
    return found[0], found[1]


def agreed(statement: Any, data: bytes, expected: type[Exception] | None) -> None:
    assert verdicts(statement, data) == (expected, expected)


def altered(data: bytes, at: int) -> bytes:
    """One lowest bit of a little-endian word turned: below p if it was, but for p − 1."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.fixture(scope="module")
def places(small_case: Case) -> dict[str, int]:
    """Where what begins in a proof of the small case."""
    sizes = second_verifier._sizes(small_case.statement.shape)
    lengths = {"slots": 32, "witness": 32, "lookups": 32, "quotients": 32, "proximity": 16 * sizes.k}
    lengths |= {f"tree {i}": sizes.t * (16 + 4 * width) for i, width in enumerate(sizes.widths)}
    begins = accumulate(lengths.values(), initial=0)
    return dict(zip([*lengths, "openings"], begins, strict=True))


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in HONEST]
)
def test_both_accept_honest_proofs(name: str, make_case: Callable[..., Case]) -> None:
    case = make_case(*HONEST[name])
    agreed(case.statement, case.prove(), None)


def test_both_accept_the_small_proof(small_case: Case, small_proof: bytes) -> None:
    agreed(small_case.statement, small_proof, None)


class TestOneFieldAltered:
    @pytest.mark.parametrize("name", ["slots", "witness", "lookups", "quotients", "proximity"])
    def test_a_message_before_the_columns(
        self, name: str, small_case: Case, small_proof: bytes, places: dict[str, int]
    ) -> None:
        """Other positions follow, and almost surely another number of hashes; either error is the right one."""
        found = verdicts(small_case.statement, altered(small_proof, places[name]))
        assert found[0] == found[1]
        assert found[0] in (proof.ProofMalformed, proof.OpeningInvalid)

    @pytest.mark.parametrize("tree", range(6))
    @pytest.mark.parametrize("offset", [0, 15, 16], ids=["salt", "end of the salt", "entry"])
    def test_a_column(
        self, tree: int, offset: int, small_case: Case, small_proof: bytes, places: dict[str, int]
    ) -> None:
        changed = altered(small_proof, places[f"tree {tree}"] + offset)
        agreed(small_case.statement, changed, proof.OpeningInvalid)

    def test_an_entry_of_each_section(self, small_case: Case, small_proof: bytes, places: dict[str, int]) -> None:
        sizes = second_verifier._sizes(small_case.statement.shape)
        for number, tree in enumerate(sizes.trees):
            rows = 0
            for count in tree.values():
                changed = altered(small_proof, places[f"tree {number}"] + 16 + 4 * rows)
                agreed(small_case.statement, changed, proof.OpeningInvalid)
                rows += count

    def test_each_node_of_the_openings(self, small_case: Case, small_proof: bytes, places: dict[str, int]) -> None:
        for at in np.linspace(places["openings"], len(small_proof) - 1, 24, dtype=int).tolist():
            agreed(small_case.statement, altered(small_proof, at), proof.OpeningInvalid)

    def test_a_coefficient_that_is_not_below_p(
        self, small_case: Case, small_proof: bytes, places: dict[str, int]
    ) -> None:
        for value in (plain.P, 2**32 - 1):
            at = places["proximity"] + 12
            changed = small_proof[:at] + value.to_bytes(4, "little") + small_proof[at + 4 :]
            agreed(small_case.statement, changed, proof.ProofMalformed)

    @pytest.mark.parametrize("tree", range(6))
    def test_an_entry_that_is_not_below_p(
        self, tree: int, small_case: Case, small_proof: bytes, places: dict[str, int]
    ) -> None:
        at = places[f"tree {tree}"] + 16
        changed = small_proof[:at] + plain.P.to_bytes(4, "little") + small_proof[at + 4 :]
        agreed(small_case.statement, changed, proof.ProofMalformed)

    def test_another_length(self, small_case: Case, small_proof: bytes) -> None:
        long = small_proof + bytes(32)
        others = (b"", small_proof[:95], small_proof[:-1], small_proof[:-32], long[:-31], long, bytes(1 << 22))
        for data in others:
            agreed(small_case.statement, data, proof.ProofMalformed)


class TestAnotherStatement:
    def refused(self, case: Case, data: bytes, **changed: Any) -> None:
        found = verdicts(case.stating(**changed), data)
        assert found[0] == found[1]
        assert found[0] in (proof.ProofMalformed, proof.OpeningInvalid)

    @pytest.mark.parametrize("field", ["context", "words_root", "data_root", "beacon"])
    def test_another_digest(self, field: str, small_case: Case, small_proof: bytes) -> None:
        self.refused(small_case, small_proof, **{field: b"\7" * 32})

    def test_another_binding(self, small_case: Case, small_proof: bytes) -> None:
        old = small_case.statement.binding
        for chain_id, contract, number, member in ((1, b"\2" * 20, 1, 0), (31337, b"\1" * 20, 1, 0)):
            self.refused(small_case, small_proof, binding=Binding(chain_id, contract, number, member))
        for number, member in ((old.round + 1, old.member), (old.round, old.member + 1)):
            self.refused(small_case, small_proof, binding=Binding(old.chain_id, old.contract, number, member))

    def test_other_sums(self, small_case: Case, small_proof: bytes) -> None:
        released = small_case.statement.released.copy()
        released[1, 3] += 1
        self.refused(small_case, small_proof, released=released)

    def test_sums_just_inside_and_outside_their_range(self, small_case: Case, small_proof: bytes) -> None:
        shape = small_case.statement.shape
        bound = shape.slots * shape.clip_units + second_verifier._sizes(shape).bound
        for value, expected in ((bound, None), (bound + 1, proof.ReleasedTooLarge), (-(2**31), proof.ReleasedTooLarge)):
            released = small_case.statement.released.copy()
            released[0, 0] = value
            if expected is None:
                self.refused(small_case, small_proof, released=released)
            else:
                agreed(small_case.stating(released=released), small_proof, expected)

    def test_too_large_sums_come_before_a_wrong_length(self, small_case: Case) -> None:
        released = small_case.statement.released.copy()
        released[0, 0] = 2**31 - 1
        agreed(small_case.stating(released=released), b"", proof.ReleasedTooLarge)


class TestIfHashesCollided:
    """Were an altered message absorbed as the honest one, only the checks at the columns would be left to see it."""

    @pytest.fixture
    def collide(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes, bytes], None]]:
        """collide(altered, honest): from now on every hash takes the one for the other."""

        def install(wrong: bytes, right: bytes) -> None:
            def programmed(data: bytes = b"") -> Any:
                return sha256(bytes(data).replace(wrong, right))

            for module in (transcript, columns, statement_module, second_verifier, plain):
                monkeypatch.setattr(module, "sha256", programmed)

        return install

    @pytest.mark.parametrize("at", [0, 1, -1], ids=["first", "second", "last"])
    def test_a_polynomial(
        self, at: int, small_case: Case, small_proof: bytes, places: dict[str, int], collide: Hash
    ) -> None:
        start, stop = places["proximity"], places["tree 0"]
        changed = altered(small_proof, start + 16 * at if at >= 0 else stop + 16 * at)
        collide(changed[start:stop], small_proof[start:stop])
        agreed(small_case.statement, changed, proof.ProximityFailed)

    @pytest.mark.parametrize("tree", range(6))
    def test_an_entry(
        self, tree: int, small_case: Case, small_proof: bytes, places: dict[str, int], collide: Hash
    ) -> None:
        sizes = second_verifier._sizes(small_case.statement.shape)
        start = places[f"tree {tree}"]
        stop = start + 16 + 4 * sizes.widths[tree]
        changed = altered(small_proof, start + 16)
        collide(changed[start:stop], small_proof[start:stop])
        agreed(small_case.statement, changed, proof.ProximityFailed)

    def stated(self, small_case: Case, collide: Hash, **changed: Any) -> Any:
        """Another statement whose digest is the honest one's."""
        found = small_case.stating(**changed)
        collide(self.encoded(found), self.encoded(small_case.statement))
        return found

    def encoded(self, statement: Any) -> bytes:
        head = statement.binding.encode() + statement.context + statement.words_root + statement.data_root
        head += statement.beacon
        tail = statement.group_of.tobytes() + statement.released.astype("<i4").tobytes()
        return bytes(head + statement.shape.encode() + tail)

    def test_another_context_is_seen_by_nothing_else(self, small_case: Case, small_proof: bytes, collide: Hash) -> None:
        agreed(self.stated(small_case, collide, context=b"\7" * 32), small_proof, None)

    def test_other_public_words_are_seen_in_the_cells(
        self, small_case: Case, small_proof: bytes, collide: Hash
    ) -> None:
        agreed(self.stated(small_case, collide, beacon=b"\7" * 32), small_proof, proof.CellsFailed)

    def test_another_member_is_seen_in_the_cells(self, small_case: Case, small_proof: bytes, collide: Hash) -> None:
        old = small_case.statement.binding
        other = Binding(old.chain_id, old.contract, old.round, old.member + 1)
        agreed(self.stated(small_case, collide, binding=other), small_proof, proof.CellsFailed)

    @pytest.mark.parametrize("root", ["words_root", "data_root"])
    def test_another_root_is_seen_in_the_openings(
        self, root: str, small_case: Case, small_proof: bytes, collide: Hash
    ) -> None:
        agreed(self.stated(small_case, collide, **{root: b"\7" * 32}), small_proof, proof.OpeningInvalid)

    def test_other_sums_are_seen_in_the_sums(self, small_case: Case, small_proof: bytes, collide: Hash) -> None:
        released = small_case.statement.released.copy()
        released[1, 3] += 1
        agreed(self.stated(small_case, collide, released=released), small_proof, proof.SumsFailed)

    def test_coordinates_of_another_group_are_seen_in_the_sums(
        self, small_case: Case, small_proof: bytes, collide: Hash
    ) -> None:
        group_of = small_case.statement.group_of.copy()[::-1].copy()
        assert group_of.tolist() != small_case.statement.group_of.tolist()
        agreed(self.stated(small_case, collide, group_of=group_of), small_proof, proof.SumsFailed)

    def test_another_threshold_is_seen_in_the_cells(self, small_case: Case, small_proof: bytes, collide: Hash) -> None:
        shape = small_case.statement.shape
        other = replace(shape, sample_threshold=1)
        agreed(self.stated(small_case, collide, shape=other), small_proof, proof.CellsFailed)


def test_the_second_refuses_an_alpha_in_f(
    small_case: Case, small_proof: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = plain.Transcript.elements

    def elements(self: Any, label: str, count: int) -> list[int]:
        found = honest(self, label, count)
        if label == "tables":
            found[0] %= 1 << 96
        return found

    monkeypatch.setattr(plain.Transcript, "elements", elements)
    with pytest.raises(proof.CellsFailed, match="α lies in F"):
        second_verifier.verify(small_case.statement, small_proof)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"sample_threshold": 1 << 32},
        {"clip_units": 2048},
        {"clip_units": 2049},
        {"groups": (5, 0)},
        {"groups": ()},
        {"groups": (90_000,), "clip_units": 2048},
        {"groups": (1,) * 5, "clip_units": 2048},
        {"groups": (1,) * 6, "clip_units": 2048},
        {"steps": 4096, "slots": 4096},
        {"groups": (40_000,), "steps": 8, "clip_units": 256, "slots": 1000},
        {"groups": (1000, 200), "steps": 6, "clip_units": 1024, "slots": 230, "capacity": 512},
        {"groups": (9000,), "steps": 12, "clip_units": 1024, "slots": 300, "capacity": 1536},
        {"openings": 1},
        {"openings": 16},
        {"openings": 17},
        {"openings": -1},
        {"groups": (9000,), "steps": 12, "clip_units": 1024, "slots": 300, "capacity": 1536, "openings": 16},
        {"groups": (1000, 200), "steps": 6, "slots": 230, "capacity": 512, "tokens": 128, "openings": 3},
        {"tokens": 0},
        {"tokens": 8192, "capacity": 1 << 12},
        {"tokens": 1 << 20, "capacity": 1 << 10},
        {"capacity": 0},
        {"slots": 0},
        {"sigma_units": 0},
        {"sigma_units": 3501},
    ],
)
def test_both_derive_the_same_sizes_or_refuse(changed: dict[str, Any]) -> None:
    base = {"steps": 2, "groups": (5, 3), "capacity": 16, "slots": 16, "clip_units": 64, "sigma_units": 100}
    shape = Shape(**(base | {"sample_threshold": 1 << 31, "tokens": 5} | changed))
    try:
        expected = parameters(shape)
    except LocalFault:
        with pytest.raises(LocalFault):
            second_verifier._sizes(shape)
        return
    found = second_verifier._sizes(shape)
    assert (found.k, found.t, found.h, found.fixed) == (
        expected.row,
        expected.queries,
        expected.blocks,
        expected.fixed_bytes,
    )
    assert (found.projections, found.reach) == (expected.projections, expected.reach)
    assert [tuple(tree.items()) for tree in found.trees] == list(expected.trees)


def mutate(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    mutated = bytearray(data)
    for at, value in changes:
        mutated[at % len(mutated)] ^= value
    return bytes(mutated)


CHANGES = st.lists(st.tuples(st.integers(0, 2**24), st.integers(1, 255)), min_size=1, max_size=4)
CUTS = st.one_of(st.none(), st.integers(0, 2**18))


def same_of_mutated(case: Case, data: bytes, changes: list[tuple[int, int]], cut: int | None) -> None:
    mutated = mutate(data, changes)[:cut]
    found = verdicts(case.statement, mutated)
    assert found[0] == found[1]
    assert (found[0] is None) == (mutated == data)


@given(changes=CHANGES, cut=CUTS)
@settings(max_examples=20, deadline=None)
def test_both_say_the_same_of_mutated_bytes(
    small_case: Case, small_proof: bytes, changes: list[tuple[int, int]], cut: int | None
) -> None:
    same_of_mutated(small_case, small_proof, changes, cut)


@pytest.mark.long
@pytest.mark.timeout(3600)
@given(changes=CHANGES, cut=CUTS)
@settings(max_examples=3000, deadline=None)
def test_both_say_the_same_of_thousands_of_mutations(
    small_case: Case, small_proof: bytes, changes: list[tuple[int, int]], cut: int | None
) -> None:
    same_of_mutated(small_case, small_proof, changes, cut)
