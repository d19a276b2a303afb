"""Forged bytes: messages altered one by one, challenges that forget a message, stale proofs, mutations of all kinds.

Where a proof is altered after it was made, its challenges no longer fit and the opened columns are the wrong ones. So
that each test of the verifier is seen to bite by itself, it is also handed the challenges of the honest proof, whatever
was sent: a verifier that forgot to absorb a message would be in that place.
"""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proofs import prover
from proofs.commitment import Committed, commit
from proofs.field import P
from proofs.parameters import SENT, SLOTS, WITNESS, parameters
from proofs.proof import (
    CellsFailed,
    OpeningInvalid,
    ProofInvalid,
    ProofMalformed,
    ProximityFailed,
    SumsFailed,
    slots_root,
)
from proofs.statement import Shape
from proofs.transcript import Transcript
from proofs.verifier import verify
from proofs.words import Binding

Case, Forger = Any, Any  # fixtures
LABELS = ("statement", "slots", "witness", "lookups", "quotients", "proximity")
PAIRS = list(combinations(SENT, 2))
ELSEWHERE = (ProofMalformed, OpeningInvalid)  # other challenges, hence other columns
EXAMPLES = 4000 if os.environ.get("CANDOR_LONG") == "1" else 40
BOUNDED = settings(
    derandomize=True,
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


class Recorded(Transcript):
    """Draws the keys that another transcript drew, whatever is absorbed."""

    def __init__(self, drawn: list[bytes]) -> None:
        super().__init__()
        self._left = list(drawn)

    def draw(self, label: str) -> bytes:
        return self._left.pop(0)


class Recording(Transcript):
    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[bytes] = []

    def draw(self, label: str) -> bytes:
        self.drawn.append(super().draw(label))
        return self.drawn[-1]


class Parts:
    """A proof cut into its fields, which can be altered and put together again."""

    def __init__(self, case: Case, proof: bytes) -> None:
        self.statement, self.proof, self.sizes = case.statement, proof, parameters(case.statement.shape)
        lengths = [32, 32, 32, 32, 16 * self.sizes.row]
        lengths += [self.sizes.queries * (16 + 4 * height) for height in self.sizes.heights]
        lengths += [(len(proof) - sum(lengths)) // 6] * 6
        assert sum(lengths) == len(proof)
        names = [f"root {tree}" for tree in SENT] + ["proximity"]
        names += [f"columns {tree}" for tree in range(6)] + [f"path {tree}" for tree in range(6)]
        starts = np.cumsum([0, *lengths]).tolist()
        self.fields = {name: proof[start:end] for name, (start, end) in zip(names, pairwise(starts), strict=True)}

    @cached_property
    def drawn(self) -> list[bytes]:
        recording = Recording()
        verify(self.statement, self.proof, recording)
        return recording.drawn

    @cached_property
    def positions(self) -> list[int]:
        """The columns that are opened: their key is the last that is drawn."""
        found = Recorded(self.drawn[-1:]).positions("columns", self.sizes.columns, self.sizes.queries)
        return [int(position) for position in found]

    def altered(self, name: str, at: int, change: int = 1) -> bytes:
        """One byte of a field."""
        data = bytearray(self.fields[name])
        data[at] ^= change
        return self.with_field(name, bytes(data))

    def with_field(self, name: str, data: bytes) -> bytes:
        return b"".join((self.fields | {name: data}).values())

    def refused(self, proof: bytes, *errors: type[ProofInvalid], transcript: Transcript | None = None) -> None:
        assert proof != self.proof
        with pytest.raises(ProofInvalid) as caught:
            verify(self.statement, proof, transcript)
        assert type(caught.value) in errors, repr(caught.value)


@pytest.fixture(scope="session")
def parts(small_case: Case, small_proof: bytes) -> Parts:
    return Parts(small_case, small_proof)


class TestEveryFieldCounts:
    @pytest.mark.parametrize("name", [f"root {tree}" for tree in SENT])
    def test_another_root(self, parts: Parts, name: str) -> None:
        parts.refused(parts.altered(name, 0), *ELSEWHERE)
        parts.refused(parts.altered(name, 31), OpeningInvalid, transcript=Recorded(parts.drawn))

    @pytest.mark.parametrize("coefficient", [0, 1, 500, 1023, -1])
    def test_another_polynomial(self, parts: Parts, coefficient: int) -> None:
        """With the challenges of the honest proof it fails its own check: polynomials agree in few columns only."""
        proof = parts.altered("proximity", 16 * coefficient)
        parts.refused(proof, *ELSEWHERE)
        parts.refused(proof, ProximityFailed, transcript=Recorded(parts.drawn))

    @pytest.mark.parametrize("tree", range(6))
    @pytest.mark.parametrize("at", [0, 15, 16, -4])
    def test_another_salt_or_entry_of_a_column(self, parts: Parts, tree: int, at: int) -> None:
        parts.refused(parts.altered(f"columns {tree}", at), OpeningInvalid)

    @pytest.mark.parametrize("tree", range(6))
    @pytest.mark.parametrize("at", [0, -1])
    def test_another_hash_of_an_opening(self, parts: Parts, tree: int, at: int) -> None:
        parts.refused(parts.altered(f"path {tree}", at), OpeningInvalid)

    @pytest.mark.parametrize("name", ["proximity", *(f"columns {tree}" for tree in range(6))])
    def test_an_element_plus_the_modulus_is_not_a_second_way_to_write_it(self, parts: Parts, name: str) -> None:
        at, data = (16 if name.startswith("columns") else 0), bytearray(parts.fields[name])
        value = int.from_bytes(data[at : at + 4], "little") + P
        data[at : at + 4] = value.to_bytes(4, "little")
        parts.refused(parts.with_field(name, bytes(data)), ProofMalformed, transcript=Recorded(parts.drawn))

    @pytest.mark.parametrize("tree", range(6))
    def test_columns_in_another_order(self, parts: Parts, tree: int) -> None:
        data, width = parts.fields[f"columns {tree}"], 16 + 4 * parts.sizes.heights[tree]
        swapped = data[width : 2 * width] + data[:width] + data[2 * width :]
        parts.refused(parts.with_field(f"columns {tree}", swapped), OpeningInvalid)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            *((f"{field} {one}", f"{field} {other}") for field in ("root", "path") for one, other in PAIRS),
            *((f"columns {one}", f"columns {other}") for one, other in PAIRS),
            ("path 0", "path 1"),
        ],
    )
    def test_fields_in_each_others_place(self, parts: Parts, one: str, other: str) -> None:
        """Trees swapped, by their roots, their openings or their columns."""
        fields = parts.fields | {one: parts.fields[other], other: parts.fields[one]}
        parts.refused(b"".join(fields.values()), *ELSEWHERE)


class TestChallenges:
    """Every message is absorbed before what it could be fitted to is drawn."""

    @pytest.mark.parametrize("label", LABELS)
    def test_a_prover_that_forgets_a_message_is_believed_by_its_like_alone(
        self, forger: Forger, forgetful: Any, label: str
    ) -> None:
        statement, proof = forger.prove(transcript=forgetful(label))
        verify(statement, proof, forgetful(label))
        with pytest.raises(ELSEWHERE):
            verify(statement, proof)

    def test_these_are_all_that_is_absorbed_in_the_order_in_which_it_is_sent(self, parts: Parts) -> None:
        absorbed: list[tuple[str, bytes]] = []

        class Listening(Recording):
            def absorb(self, label: str, data: bytes) -> None:
                absorbed.append((label, data))
                super().absorb(label, data)

        verify(parts.statement, parts.proof, Listening())
        sent = [parts.statement.digest(), *(parts.fields[f"root {tree}"] for tree in SENT), parts.fields["proximity"]]
        assert absorbed == list(zip(LABELS, sent, strict=True))


class TestVersionOne:
    """Version 1 sent the quotients of cells and sums as polynomials, had no tree of them, and an inverse a value."""

    def test_a_proof_laid_out_as_then_is_malformed(self, parts: Parts) -> None:
        sizes, queries = parts.sizes, parts.sizes.queries
        roots, rest = parts.proof[:128], parts.proof[128 + 16 * sizes.row :]
        polynomials = bytes(16 * (sizes.row + (sizes.row + sizes.pads) + (2 * sizes.row - 1)))
        projected, inverses = sizes.projection_rows + 1, sizes.range_lookups + sizes.projection_rows + sizes.noise_rows
        heights = [*sizes.heights[:3], sizes.heights[WITNESS] - projected, projected, 4 * inverses + 28]
        opened = bytes(sum(queries * (16 + 4 * height) for height in heights))
        paths = b"".join(parts.fields[f"path {tree}"] for tree in range(6))
        for proof in (roots + polynomials + opened + paths, roots + polynomials + rest, polynomials + rest):
            parts.refused(proof, ProofMalformed)
            parts.refused(proof, ProofMalformed, transcript=Recorded(parts.drawn))

    def test_the_protocols_name_is_part_of_every_challenge(self, forger: Forger) -> None:
        old = b"candor/mechanism-proof/1"
        statement, proof = forger.prove(transcript=Transcript(old))
        verify(statement, proof, Transcript(old))
        with pytest.raises(ELSEWHERE):
            verify(statement, proof)


class TestSlotsOfAnotherProof:
    """Two rows exchange their slots: every public number stays, the proof is as good, and its slots are others."""

    def made(self, case: Case, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, Committed]:
        """Another honest proof of the statement, and its tree of slots."""
        made: dict[int, Committed] = {}

        def watched(cells: Any, sizes: Any, tree: int, *rest: Any) -> Committed:
            made[tree] = commit(cells, sizes, tree, *rest)
            return made[tree]

        monkeypatch.setattr(prover, "commit", watched)
        exchanged = [part.copy() for part in case.contributions]
        exchanged[0][[0, 1]] = exchanged[0][[1, 0]]
        return replace(case, contributions=tuple(exchanged)).prove(), made[SLOTS]

    def test_its_root_is_not_that_of_these_columns(
        self, small_case: Case, parts: Parts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        proof, slots = self.made(small_case, monkeypatch)
        verify(small_case.statement, proof)
        assert slots_root(proof, parts.sizes) == slots.root != parts.fields[f"root {SLOTS}"]
        swapped = parts.with_field(f"root {SLOTS}", slots.root)
        parts.refused(swapped, *ELSEWHERE)
        parts.refused(swapped, OpeningInvalid, transcript=Recorded(parts.drawn))

    def test_nor_do_its_columns_go_with_the_other_rows(
        self, small_case: Case, parts: Parts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, slots = self.made(small_case, monkeypatch)
        positions = parts.positions
        columns, salts, path = slots.opened(positions)
        lines = [salt + line.astype("<u4").tobytes() for salt, line in zip(salts, columns, strict=True)]
        fields = {f"root {SLOTS}": slots.root, f"columns {SLOTS}": b"".join(lines)}
        fields[f"path {SLOTS}"] = path
        swapped = b"".join((parts.fields | fields).values())
        parts.refused(swapped, *ELSEWHERE)
        parts.refused(swapped, ProximityFailed, transcript=Recorded(parts.drawn))


BINDING = Binding(31337, b"\2" * 20, 1, 0)  # of the small case
STALE: dict[str, tuple[dict[str, Any], type[ProofInvalid] | None]] = {
    "another chain": ({"binding": replace(BINDING, chain_id=1)}, CellsFailed),
    "another contract": ({"binding": replace(BINDING, contract=b"\3" * 20)}, CellsFailed),
    "another round": ({"binding": replace(BINDING, round=2)}, CellsFailed),
    "another member": ({"binding": replace(BINDING, member=1)}, CellsFailed),
    "another beacon": ({"beacon": b"\5" * 32}, CellsFailed),
    "another words root": ({"words_root": b"\5" * 32}, OpeningInvalid),
    "another data root": ({"data_root": b"\5" * 32}, OpeningInvalid),
    "another context": ({"context": b"\5" * 32}, None),
}


class TestStaleProofs:
    """A proof is of one statement. With the challenges of the other one, public words and roots differ still."""

    @pytest.mark.parametrize("name", STALE)
    def test_a_proof_of_another_statement(self, small_case: Case, parts: Parts, name: str) -> None:
        changed, error = STALE[name]
        other = small_case.stating(**changed)
        assert other.digest() != small_case.statement.digest()
        with pytest.raises(ELSEWHERE):
            verify(other, parts.proof)
        if error is None:
            verify(other, parts.proof, Recorded(parts.drawn))  # the challenges are all that ties it
        else:
            with pytest.raises(error):
                verify(other, parts.proof, Recorded(parts.drawn))

    @pytest.mark.parametrize(
        ("changed", "error"),
        [
            ({"sample_threshold": (1 << 31) + 1}, CellsFailed),
            ({"sample_threshold": (1 << 31) - (1 << 16)}, CellsFailed),
            ({"sigma_units": 101}, None),
            ({"clip_units": 63}, None),
            ({"clip_units": 65}, None),
            ({"slots": 15}, None),
            ({"capacity": 15}, None),
            ({"tokens": 7}, None),
            ({"openings": 1}, None),
            ({"groups": (3, 5)}, None),
            ({"groups": (8,)}, None),
        ],
        ids=str,
    )
    def test_a_proof_for_other_sizes(
        self, small_case: Case, parts: Parts, changed: dict[str, Any], error: type[ProofInvalid] | None
    ) -> None:
        shape = replace(small_case.statement.shape, **changed)
        group_of = np.repeat(np.arange(len(shape.groups)), shape.groups).astype(np.uint8)
        other = small_case.stating(shape=shape, **({"group_of": group_of} if "groups" in changed else {}))
        with pytest.raises(ELSEWHERE):
            verify(other, parts.proof)
        if error is not None:
            with pytest.raises(error):
                verify(other, parts.proof, Recorded(parts.drawn))

    def test_a_proof_for_another_assignment_of_groups(self, small_case: Case, parts: Parts) -> None:
        """The clip of one group must not be spent on the coordinates of another."""
        other = small_case.stating(group_of=np.roll(small_case.statement.group_of, 1))
        assert not np.array_equal(other.group_of, small_case.statement.group_of)
        with pytest.raises(ELSEWHERE):
            verify(other, parts.proof)
        with pytest.raises(SumsFailed):
            verify(other, parts.proof, Recorded(parts.drawn))

    def test_a_proof_of_another_round_of_the_same_member(
        self, small_case: Case, parts: Parts, make_case: Callable[..., Case]
    ) -> None:
        other = make_case(small_case.statement.shape, small_case.rows, round=2)
        verify(other.statement, other.prove())
        with pytest.raises(ELSEWHERE):
            verify(other.statement, parts.proof)
        with pytest.raises(OpeningInvalid):
            verify(other.statement, parts.proof, Recorded(parts.drawn))


def test_many_coordinates_of_a_single_slot_cost_a_verifier_no_more_than_a_few_proofs(
    make_case: Callable[..., Case],
) -> None:
    """A config of one step and one row has as many blocks as lanes; what each takes must not be a row long."""
    case = make_case(Shape(1, (1500,), 1, 1, 64, 100, 1 << 32, 4), 1)
    proof = case.prove()
    tracemalloc.start()
    try:
        verify(case.statement, proof)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20, peak


class TestAnyBytes:
    def test_lengths_that_no_proof_has_are_refused_before_anything_is_read(self, parts: Parts) -> None:
        for proof in (b"", parts.proof[:1], parts.proof[: parts.sizes.fixed_bytes - 1], parts.proof * 2):
            parts.refused(proof, ProofMalformed)
        parts.refused(bytes(parts.sizes.largest_bytes + 1), ProofMalformed)

    @pytest.mark.parametrize("cut", [1, 4, 32, 128])
    def test_cut_short_or_padded(self, parts: Parts, cut: int) -> None:
        parts.refused(parts.proof[:-cut], ProofMalformed)
        parts.refused(parts.proof + bytes(cut), ProofMalformed)
        parts.refused(parts.proof[cut:] + parts.proof[:cut], *ELSEWHERE)

    @pytest.mark.parametrize("byte", [0, 1, 0x7E, 0xFF])
    def test_a_proof_of_one_byte_over_and_over(self, parts: Parts, byte: int) -> None:
        parts.refused(bytes([byte]) * len(parts.proof), *ELSEWHERE)

    @BOUNDED
    @given(place=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
    def test_one_changed_byte(self, parts: Parts, place: float, change: int) -> None:
        data = bytearray(parts.proof)
        data[int(place * len(data))] ^= change
        parts.refused(bytes(data), *ELSEWHERE)

    @BOUNDED
    @given(data=st.data())
    def test_slices_moved_copied_blanked_or_taken_from_another_proof(self, parts: Parts, data: st.DataObject) -> None:
        proof = parts.proof
        length = data.draw(st.sampled_from([1, 4, 16, 32, 100, 10_000]))
        one, other = (data.draw(st.integers(0, len(proof) - length)) for _ in range(2))
        moved = {
            "copied": proof[:one] + proof[other : other + length] + proof[one + length :],
            "blanked": proof[:one] + bytes(length) + proof[one + length :],
            "left out": proof[:one] + proof[one + length :],
            "doubled": proof[:one] + proof[other : other + length] + proof[one:],
            "random": proof[:one]
            + data.draw(st.randoms(use_true_random=False)).randbytes(length)
            + proof[one + length :],
        }
        altered = moved[data.draw(st.sampled_from(sorted(moved)))]
        if altered != proof:
            parts.refused(altered, *ELSEWHERE)
            with pytest.raises(ProofInvalid):
                verify(parts.statement, altered, Recorded(parts.drawn))

    @BOUNDED
    @given(seed=st.integers(0, 2**32), extra=st.integers(-300, 300))
    def test_random_bytes(self, parts: Parts, seed: int, extra: int) -> None:
        rng = np.random.default_rng(seed)
        words = rng.integers(0, P, (len(parts.proof) + extra) // 4 + 1, dtype=np.uint32)
        parts.refused(words.tobytes()[: len(parts.proof) + extra], *ELSEWHERE)
