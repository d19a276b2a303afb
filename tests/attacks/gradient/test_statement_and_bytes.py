"""Statement G: a proof is of one statement, and every byte of it counts."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.gradient_cases import TOLERANCE
from ledger import base_gradients
from ledger.base_gradients import BaseGradients
from ledger.gradients import Challenge, GradientsUnjudged, Job
from ledger.picks import Pick
from proofs.circuit import rounding, verifier
from proofs.circuit.layout import Layout
from proofs.circuit.wire import CircuitRefused
from proofs.field import P
from proofs.gradient.claim import GradientStatement
from proofs.proof import (
    CellsFailed,
    OpeningInvalid,
    ProofInvalid,
    ProofMalformed,
    ProximityFailed,
    SumsFailed,
)
from proofs.transcript import Transcript
from proofs.words import Binding

Proven = Any  # conftest.Proven
ELSEWHERE = (ProofMalformed, OpeningInvalid)  # other challenges, hence other columns
BOUNDED = settings(
    derandomize=True,
    max_examples=3000 if os.environ.get("CANDOR_LONG") == "1" else 15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def statements(proven: Proven) -> dict[str, GradientStatement]:
    said = proven.statement
    binding, released = said.mechanism.binding, said.mechanism.released.copy()
    released[1, 0] += 1

    def other(**changes: Any) -> GradientStatement:
        return replace(said, mechanism=replace(said.mechanism, **changes))

    return {
        "slot": replace(said, slot=2),
        "step": replace(said, step=1),
        "tolerance": replace(said, tolerance=TOLERANCE + 1),
        "picking beacon": replace(said, beacon=b"\6" * 32),
        "slots root": replace(said, slots_root=b"\6" * 32),
        "data root": other(data_root=b"\6" * 32),
        "words root": other(words_root=b"\6" * 32),
        "context": other(context=b"\6" * 32),
        "round's beacon": other(beacon=b"\6" * 32),
        "released sums": other(released=released),
        "chain": other(binding=Binding(1, binding.contract, binding.round, binding.member)),
        "contract": other(binding=Binding(binding.chain_id, b"\6" * 20, binding.round, binding.member)),
        "round": other(binding=Binding(binding.chain_id, binding.contract, 2, binding.member)),
        "member": other(binding=Binding(binding.chain_id, binding.contract, binding.round, 1)),
    }


STATED = (
    *("slot", "step", "tolerance", "picking beacon", "slots root", "data root", "words root", "context"),
    *("round's beacon", "released sums", "chain", "contract", "round", "member"),
)


@pytest.mark.parametrize("name", STATED)
def test_a_proof_is_of_one_statement(proven: Proven, name: str) -> None:
    with pytest.raises(ELSEWHERE):
        proven.verify(proven.proof, statements(proven)[name])


def test_a_proof_is_of_one_program(proven: Proven) -> None:
    with pytest.raises(ELSEWHERE):
        proven.verify(proven.proof, program=proven.case.program(1))


def test_an_iterate_at_which_nothing_can_be_proven_is_its_members_fault(proven: Proven) -> None:
    """It was a fault of whoever judged: a member could release sums that led there, and nobody was judged."""
    case, said = proven.case, proven.statement
    weights = {name: units.copy() for name, units in case.weights.items()}
    verifier = BaseGradients(case.base.files.folder)
    asked = Challenge(said.mechanism, said.slots_root, said.beacon, Pick(said.step, said.slot), said.tolerance)
    config = case.config
    assert list(verifier.outcomes(config, [Job(weights, asked, proven.proof)])) == [None]
    assert verifier.largest(config, weights) >= len(proven.proof)
    next(units for name, units in weights.items() if name.endswith("classifier.bias"))[0] = 300 << 16
    (outcome,) = verifier.outcomes(config, [Job(weights, asked, proven.proof)])
    assert isinstance(outcome, ProofInvalid)
    with patch.object(rounding, "stages_of", side_effect=CircuitRefused("rows that are too short")):
        (outcome,) = verifier.outcomes(config, [Job(case.weights, asked, proven.proof)])
    assert isinstance(outcome, ProofInvalid)
    base_gradients._LARGEST.clear()
    with pytest.raises(GradientsUnjudged, match="no proof of gradients"):
        verifier.largest(config, weights)


class Recorded(Transcript):
    """Draws the keys that another transcript drew, whatever is absorbed."""

    def __init__(self, drawn: list[bytes]) -> None:
        super().__init__()
        self._left = list(drawn)

    def draw(self, label: str) -> bytes:
        return self._left.pop(0)


@pytest.fixture(scope="module")
def keys(proven: Proven) -> list[bytes]:
    found: list[bytes] = []

    class Recording(Transcript):
        def draw(self, label: str) -> bytes:
            found.append(super().draw(label))
            return found[-1]

    with patch.object(verifier, "Transcript", Recording):
        proven.verify(proven.proof)
    return found


@pytest.mark.parametrize(
    ("name", "error"),
    [("slots root", OpeningInvalid), ("data root", OpeningInvalid), ("slot", SumsFailed), ("step", SumsFailed)],
)
def test_what_is_stated_counts_for_itself_too(
    proven: Proven, keys: list[bytes], name: str, error: type[ProofInvalid]
) -> None:
    """Even under the honest challenges."""
    with patch.object(verifier, "Transcript", lambda _: Recorded(keys)), pytest.raises(error):
        proven.verify(proven.proof, statements(proven)[name])


def test_another_iterate_is_refused_under_the_honest_challenges(proven: Proven, keys: list[bytes]) -> None:
    with patch.object(verifier, "Transcript", lambda _: Recorded(keys)), pytest.raises((CellsFailed, SumsFailed)):
        proven.verify(proven.proof, program=proven.case.program(1))


def messages(layout: Layout) -> dict[str, tuple[int, int]]:
    lengths = [32, 32, 32, 16 * layout.row]
    lengths += [layout.queries * (16 + 4 * height) for height in layout.heights]
    names = ["values", "tests", "quotients", "proximity"]
    names += [f"columns of tree {tree}" for tree in range(len(layout.heights))]
    ends = np.cumsum([0, *lengths]).tolist()
    return {"openings": (ends[-1], -1)} | dict(zip(names, pairwise(ends), strict=True))


MESSAGES = {
    **dict.fromkeys(("values", "tests", "quotients"), OpeningInvalid),
    "proximity": ProximityFailed,
    **{f"columns of tree {tree}": OpeningInvalid for tree in range(5)},
    "openings": OpeningInvalid,
}


@pytest.mark.parametrize("name", MESSAGES)
def test_each_message_is_checked_and_hashed(proven: Proven, keys: list[bytes], name: str) -> None:
    start, _ = messages(proven.layout)[name]
    changed = bytearray(proven.proof)
    changed[start] ^= 1
    with pytest.raises((*ELSEWHERE,)):
        proven.verify(bytes(changed))
    with patch.object(verifier, "Transcript", lambda _: Recorded(keys)), pytest.raises(MESSAGES[name]):
        proven.verify(bytes(changed))


@pytest.mark.parametrize("name", ["proximity", "columns of tree 2", "columns of tree 4"])
def test_an_element_has_one_encoding(proven: Proven, name: str) -> None:
    start, _ = messages(proven.layout)[name]
    start += 16 if name.startswith("columns") else 0
    changed = bytearray(proven.proof)
    value = int.from_bytes(changed[start : start + 4], "little") + P
    changed[start : start + 4] = (value if value < 1 << 32 else P).to_bytes(4, "little")
    with pytest.raises(ProofMalformed, match="below p"):
        proven.verify(bytes(changed))


@BOUNDED
@given(place=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
def test_one_changed_byte_is_refused(proven: Proven, place: float, change: int) -> None:
    changed = bytearray(proven.proof)
    changed[int(place * len(changed))] ^= change
    with pytest.raises(ELSEWHERE):
        proven.verify(bytes(changed))


@BOUNDED
@given(cut=st.integers(0, 2000), tail=st.binary(max_size=2000))
def test_cut_or_padded_bytes_are_refused(proven: Proven, cut: int, tail: bytes) -> None:
    changed = proven.proof[: len(proven.proof) - cut] + tail
    if changed != proven.proof:
        with pytest.raises(ELSEWHERE):
            proven.verify(changed)


@BOUNDED
@given(first=st.floats(0, 1), second=st.floats(0, 1), length=st.integers(1, 4096))
def test_moved_bytes_are_refused(proven: Proven, first: float, second: float, length: int) -> None:
    source, target = (int(at * (len(proven.proof) - length)) for at in (first, second))
    changed = bytearray(proven.proof)
    changed[target : target + length] = proven.proof[source : source + length]
    if bytes(changed) != proven.proof:
        with pytest.raises(ELSEWHERE):
            proven.verify(bytes(changed))


@BOUNDED
@given(seed=st.integers(0, 1 << 32), length=st.sampled_from(["none", "few", "right", "most", "more"]))
def test_random_bytes_are_refused(proven: Proven, seed: int, length: str) -> None:
    sizes = proven.layout
    lengths = {"none": 0, "few": 100, "right": len(proven.proof), "most": sizes.largest_bytes}
    count = lengths.get(length, sizes.largest_bytes + 1)
    noise = np.random.default_rng(seed).integers(0, 100, count, dtype=np.uint8).tobytes()
    with pytest.raises(ELSEWHERE):
        proven.verify(noise)
