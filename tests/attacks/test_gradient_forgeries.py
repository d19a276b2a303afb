"""Forged proofs of statement G: each tells one lie (benchmarks.gradient_liar); the rule that it breaks refuses it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.gradient_cases import TOLERANCE, GradientRound, gradient_round
from benchmarks.gradient_liar import Lie, fitting, forge, refused, refusing_nothing
from ledger import base_gradients
from ledger.base_gradients import BaseGradients
from ledger.gradients import Challenge, GradientsUnjudged, Job
from ledger.picks import Pick
from proofs.circuit import rounding, verifier
from proofs.circuit.builder import Circuit, Table
from proofs.circuit.layout import Layout, counts_of
from proofs.circuit.wire import CircuitRefused, Group, Wire
from proofs.field import P
from proofs.gradient import circuit_text, claim
from proofs.gradient.claim import PROTOCOL, GradientStatement, Secret, claim_circuit, claim_layout
from proofs.gradient.matrix import Matrix
from proofs.gradient.program import Program
from proofs.gradient.transformer import contribute
from proofs.gradient.verifier import verify
from proofs.proof import (
    CellsFailed,
    OpeningInvalid,
    ProofInvalid,
    ProofMalformed,
    ProximityFailed,
    SumsFailed,
    polynomial_lengths,
)
from proofs.transcript import Transcript
from proofs.witness import Cells, WitnessRefused
from proofs.words import Binding

LONG = os.environ.get("CANDOR_LONG") == "1"
KINDS = ("bert", "llama")
ELSEWHERE = (ProofMalformed, OpeningInvalid)  # other challenges, hence other columns
BOUNDED = settings(
    derandomize=True,
    max_examples=3000 if LONG else 30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


# ------------------------------------------------------------------------------------------------- what is told


@dataclass(frozen=True, eq=False)
class Proven:
    """A round, one of its statements, and the honest proof of that."""

    case: GradientRound
    statement: GradientStatement
    program: Program
    proof: bytes

    @cached_property
    def circuit(self) -> Circuit:
        return claim_circuit(self.statement, self.program)

    @cached_property
    def layout(self) -> Layout:
        return claim_layout(self.circuit, self.case.shape)

    def verify(self, proof: bytes, statement: GradientStatement | None = None) -> None:
        """As proofs.gradient.verifier does, with the circuit at hand."""
        said = statement or self.statement
        same = said is self.statement
        circuit = self.circuit if same else claim_circuit(said, self.program)
        layout = self.layout if same else claim_layout(circuit, self.case.shape)
        roots = (said.mechanism.data_root, said.slots_root)
        verifier.verify(said.digest(self.program), circuit, layout, roots, proof, PROTOCOL)


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, GradientRound]:
    return {kind: gradient_round(kind, Path(tmp_path_factory.mktemp(kind))) for kind in KINDS}


@pytest.fixture(scope="module", params=KINDS)
def case(request: pytest.FixtureRequest, rounds: dict[str, GradientRound]) -> GradientRound:
    return rounds[request.param]


@pytest.fixture(scope="module")
def bert(rounds: dict[str, GradientRound]) -> GradientRound:
    return rounds["bert"]


@pytest.fixture(scope="module")
def proven(bert: GradientRound) -> Proven:
    statement = bert.statement(0, 1)
    return Proven(bert, statement, bert.program(0), bert.prove(statement))


# ----------------------------------------------------------------------------------------------------- what is true


@pytest.mark.parametrize(("step", "slot"), [(0, 1), (1, -1)], ids=["in use", "not in use"])
def test_a_slot_is_proven_whether_in_use_or_not(case: GradientRound, step: int, slot: int) -> None:
    statement = case.statement(step, slot % case.shape.slots)
    assert case.secret(statement).active is (slot >= 0)
    verify(statement, case.program(step), case.prove(statement))


def test_a_liar_that_tells_no_lie_is_believed(case: GradientRound) -> None:
    statement = case.statement(1, 0)
    verify(statement, case.program(1), forge(case, statement))


def test_a_round_that_keeps_no_room_for_further_proofs_has_none(bert: GradientRound) -> None:
    """A column of the data beyond those that its random cells hide would tell of the texts."""
    closed = replace(bert, shape=replace(bert.shape, openings=0))
    with pytest.raises(WitnessRefused, match="no random cells"):
        closed.prove(closed.statement(0, 1))


# ------------------------------------------------------------------------------------- what was put into the slot


def apart_by(case: GradientRound, units: int) -> np.ndarray:
    """The contribution of slot 1 of step 0, but so many units from H in one coordinate, its longest."""
    nearest = contribute(case.program(0), *case.text(case.row(0, 1)))
    found, at = case.contributions[0][1].astype(np.int64), int(np.argmax(np.abs(nearest)))
    found[at] = nearest[at] - np.sign(nearest[at]) * units
    return found


def other_contributions(case: GradientRound) -> dict[str, np.ndarray]:
    """What a member could put into slot 1 of step 0 instead of the gradient of its row."""
    program, own = case.program(0), case.contributions[0][1].astype(np.int64)
    tokens, label = case.text(case.row(0, 1))
    embedding = Matrix(np.roll(program.embedding.units, 1, axis=0), program.embedding.fraction)
    free = {
        name: replace(one, clip=8 * one.clip, clip_units=8 * one.clip_units) for name, one in program.groups.items()
    }
    lengths = np.array([np.linalg.norm(own[case.config.groups[name]]) for name in case.config.groups])
    drawn = np.random.default_rng(1).standard_normal(len(own))
    found = {
        "another row": case.contributions[0][0],
        "another iterate": contribute(case.program(1), tokens, label),
        "another base": contribute(replace(program, embedding=embedding), tokens, label),
        "scaled by 0.9": np.rint(0.9 * own),
        "sign turned": -own,
        "zero": 0 * own,
        "random": np.rint(drawn * lengths.min() / np.linalg.norm(drawn)),
        "a row that is not in the dataset": contribute(program, tokens[::-1], label),
        "another label": contribute(program, tokens, (label + 1) % 3),
        "not clipped": contribute(replace(program, groups=free), tokens, label),
    }
    fitted = {name: units if name == "not clipped" else fitting(case, units) for name, units in found.items()}
    return fitted | {"one unit beyond the tolerance": apart_by(case, TOLERANCE + 1)}


NAMES = (
    "another row",
    "another iterate",
    "another base",
    "scaled by 0.9",
    "sign turned",
    "zero",
    "random",
    "a row that is not in the dataset",
    "another label",
    "not clipped",
    "one unit beyond the tolerance",
)


@pytest.fixture(scope="module")
def other(rounds: dict[str, GradientRound]) -> dict[str, dict[str, np.ndarray]]:
    return {kind: other_contributions(one) for kind, one in rounds.items()}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS if LONG else KINDS[:1])
def test_what_is_no_gradient_of_the_row_is_refused(
    rounds: dict[str, GradientRound], other: dict[str, dict[str, np.ndarray]], kind: str, name: str
) -> None:
    case, program = rounds[kind], rounds[kind].program(0)
    tokens, label = case.text(case.row(0, 1))
    apart = np.abs(contribute(program, tokens, label) - other[kind][name]).max()
    assert apart == TOLERANCE + 1 if name.startswith("one unit") else apart > TOLERANCE
    with refusing_nothing():
        lied = case.contributing(0, 1, other[kind][name])
        statement = lied.statement(0, 1)
    refused(lied, statement, forge(lied, statement), SumsFailed)


def test_a_difference_beyond_the_tolerance_with_the_inverse_of_another_is_in_no_table(
    bert: GradientRound, other: dict[str, dict[str, np.ndarray]]
) -> None:
    lied = bert.contributing(0, 1, other["bert"]["one unit beyond the tolerance"])
    statement = lied.statement(0, 1)
    refused(lied, statement, forge(lied, statement, false_inverses=True), CellsFailed)


@pytest.mark.parametrize("kind", KINDS)
def test_the_tolerance_itself_is_allowed(rounds: dict[str, GradientRound], kind: str) -> None:
    case = rounds[kind]
    lied = case.contributing(0, 1, apart_by(case, TOLERANCE))
    statement = lied.statement(0, 1)
    verify(statement, lied.program(0), lied.prove(statement))


# --------------------------------------------------------------------------------------------------- which row it is


def secret_with(case: GradientRound, statement: GradientStatement, **changes: Any) -> Secret:
    return replace(case.secret(statement), **changes)


def chosen(*rows: int) -> Callable[[ExitStack], None]:
    """The circuit picks these rows, whatever the slot."""

    def build(patches: ExitStack) -> None:
        def pick(statement: Any, secret: Any, count: int) -> Any:
            return None if secret is None else np.isin(np.arange(count), rows).astype(np.int64)

        patches.enter_context(patch.object(claim, "_chosen", pick))

    return build


def of_the_picked(case: GradientRound, row: int) -> tuple[GradientRound, GradientStatement]:
    """The member put the gradient of that row into slot 1 of step 0: from there on all fits."""
    lied = case.contributing(0, 1, fitting(case, contribute(case.program(0), *case.text(row))))
    return lied, lied.statement(0, 1)


def test_the_next_row_drawn_is_not_the_slots(case: GradientRound) -> None:
    lied, statement = of_the_picked(case, case.row(0, 2))
    refused(lied, statement, forge(lied, statement, building=chosen(case.row(0, 2))), SumsFailed)


def test_a_row_that_was_not_drawn_is_not_the_slots(bert: GradientRound) -> None:
    away = int(np.flatnonzero(~bert.secret(bert.statement(0, 1)).used)[0])
    lied, statement = of_the_picked(bert, away)
    refused(lied, statement, forge(lied, statement, building=chosen(away)), SumsFailed)


def test_a_row_that_was_not_drawn_but_counted_is_not_the_slots(bert: GradientRound) -> None:
    """The circuit says that another row was drawn than the mechanism proved."""
    secret = bert.secret(bert.statement(0, 1))
    away, used = int(np.flatnonzero(~secret.used)[0]), np.zeros_like(secret.used)
    used[[bert.row(0, 0), away]] = True
    lied, statement = of_the_picked(bert, away)
    secret = secret_with(lied, statement, used=used)
    refused(lied, statement, forge(lied, statement, secret=secret, building=chosen(away)), SumsFailed)


def test_two_rows_at_once_are_none(bert: GradientRound) -> None:
    """Though what H runs on is the text of one of them."""
    lied, statement = of_the_picked(bert, bert.row(0, 1))
    both, honest = chosen(bert.row(0, 0), bert.row(0, 1)), circuit_text.example

    def build(patches: ExitStack) -> None:
        def example(circuit: Circuit, program: Program, cells: Wire) -> Any:
            units = circuit_text.cells_of(*bert.text(bert.row(0, 1)), circuit.lanes) if circuit.proving else None
            return honest(circuit, program, cells.with_(units=units))

        both(patches)
        patches.enter_context(patch.object(claim, "example", example))

    refused(lied, statement, forge(lied, statement, building=build), SumsFailed)


def test_a_slot_in_use_is_not_one_that_is_not(case: GradientRound) -> None:
    lied = case.contributing(0, 1, np.zeros(case.shape.parameters))
    statement = lied.statement(0, 1)
    secret = secret_with(lied, statement, active=False)
    refused(lied, statement, forge(lied, statement, secret=secret), SumsFailed)


def test_a_slot_that_is_not_in_use_has_no_row(bert: GradientRound) -> None:
    statement = bert.statement(0, bert.shape.slots - 1)
    secret = secret_with(bert, statement, active=True)
    refused(bert, statement, forge(bert, statement, secret=secret, building=chosen(bert.row(0, 1))), SumsFailed)


@pytest.mark.parametrize("place", [0, -2, -1], ids=["a token", "the label", "the length"])
def test_a_text_that_is_not_the_rows_is_refused(bert: GradientRound, place: int) -> None:
    """The row is picked rightly, and another text is what H runs on: in all else the proof is of that."""
    honest = circuit_text.example

    def build(patches: ExitStack) -> None:
        def example(circuit: Circuit, program: Program, cells: Wire) -> Any:
            units = cells.known().copy() if circuit.proving else None
            if units is not None:
                units[place] = units[place] - 1 if place == -1 else (units[place] + 1) % 3
            return honest(circuit, program, cells.with_(units=units))

        patches.enter_context(patch.object(claim, "example", example))

    tokens, label = bert.text(bert.row(0, 1))
    tokens = [(tokens[0] + 1) % 3, *tokens[1:]] if place == 0 else tokens[: -1 if place == -1 else None]
    found = contribute(bert.program(0), tokens, (label + 1) % 3 if place == -2 else label)
    lied = bert.contributing(0, 1, fitting(bert, found))
    statement = lied.statement(0, 1)
    refused(lied, statement, forge(lied, statement, building=build), SumsFailed)


# ------------------------------------------------------------------------------------------- what is computed from it


def test_the_program_of_another_step_is_another(case: GradientRound) -> None:
    """All cells are those of the iterate after the step: only its matrices are not those that are claimed."""
    after = case.program(1)
    lied = case.contributing(0, 1, fitting(case, contribute(after, *case.text(case.row(0, 1)))))
    statement = lied.statement(0, 1)
    refused(lied, statement, forge(lied, statement, running=after), SumsFailed)


def test_another_base_is_another(bert: GradientRound) -> None:
    program = bert.program(0)
    first = program.layers[0].mlp.down
    nudged = first.weight.units.copy()
    nudged[0, 0] += 1
    down = replace(first, weight=Matrix(nudged, first.weight.fraction))
    layer = replace(program.layers[0], mlp=replace(program.layers[0].mlp, down=down))
    statement = bert.statement(0, 1)
    running = replace(program, layers=(layer, *program.layers[1:]))
    refused(bert, statement, forge(bert, statement, running=running), SumsFailed)


def test_one_wrong_sum_is_refused(case: GradientRound) -> None:
    """A layer's total is one more than it is; all that follows is computed from it."""
    left, honest = [40], rounding.exactly

    def wrong(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        found, left[0] = honest(a, b), left[0] - 1
        if left[0] == 0:
            found.reshape(-1)[0] += 1
        return found

    statement = case.statement(0, 1)
    proof = forge(
        case, statement, building=lambda patches: patches.enter_context(patch.object(rounding, "exactly", wrong))
    )
    assert left[0] < 0
    refused(case, statement, proof, SumsFailed)


@pytest.mark.parametrize(("false_inverses", "error"), [(False, SumsFailed), (True, CellsFailed)])
def test_one_wrong_entry_of_a_table_is_refused(
    bert: GradientRound, false_inverses: bool, error: type[ProofInvalid]
) -> None:
    honest, left = Circuit.function, [1]

    def wrong(self: Circuit, table: Table, x: Wire, more: int = 0) -> tuple[Group, Any]:
        group, found = honest(self, table, x, more)
        if found is not None and "gelu" in table.name:
            left[0] -= 1
        if left[0] == 0:
            left[0], found = -1, found.copy()
            found.reshape(-1)[0] += 1
        return group, found

    def build(patches: ExitStack) -> None:
        patches.enter_context(patch.object(Circuit, "function", wrong))

    statement = bert.statement(0, 1)
    proof = forge(bert, statement, building=build, false_inverses=false_inverses)
    refused(bert, statement, proof, error)


# ------------------------------------------------------------------------------------------------------ single cells


def cell(name: str, column: int, change: int = 1) -> Lie:
    """The first cell of a column of the group whose name starts so is another."""

    def lie(circuit: Circuit) -> None:
        group = next(group for key, group in circuit.groups.items() if key.startswith(name) and group.size)
        group.units(column)[0, 0] = (group.units(column)[0, 0] + change) % P

    return lie


def count(name: str) -> Callable[[Cells], None]:
    def lie(cells: Cells) -> None:
        section = next(key for key in cells if key.startswith(counts_of(name)))
        cells[section][0, 0] += 1

    return lie


CELLS: dict[str, tuple[dict[str, Any], type[ProofInvalid]]] = {
    "a range, below it": ({"lie": cell("range -4 4/1", 0, -100)}, SumsFailed),
    "a bit that is two": ({"lie": cell("bits/1", 0, 2)}, CellsFailed),
    "a bit of the text that is two": ({"lie": cell("bits/text", 0, 2)}, CellsFailed),
    "a factor": ({"lie": cell("product/", 0)}, CellsFailed),
    "a product": ({"lie": cell("product/", 2)}, CellsFailed),
    "a free cell": ({"lie": cell("free/1", 0)}, SumsFailed),
    "a free cell of the text": ({"lie": cell("free/text", 0)}, SumsFailed),
    "an exponential": ({"lie": cell("softmax", 1)}, SumsFailed),
    "a mask": ({"lie": cell("softmax", 2)}, CellsFailed),
    "a slack of a token that counts": ({"lie": cell("softmax", 3)}, CellsFailed),
    "a second largest": ({"lie": cell("softmax", 4)}, CellsFailed),
    "a combination of a product's left side": ({"tested": cell("product in K", 0)}, SumsFailed),
    "a product in K": ({"tested": cell("product in K", 8)}, CellsFailed),
    "a key of the embedding": ({"tested": cell("rows of", 1)}, CellsFailed),
    "a number of look-ups": ({"counted": staticmethod(count("range"))}, SumsFailed),
    "a code that is no polynomial": (
        {"coded": staticmethod(lambda code: code.__setitem__((slice(None), 0), code[:, 0] ^ 1))},
        ProximityFailed,
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_one_other_cell_is_refused(bert: GradientRound, name: str) -> None:
    changes, error = CELLS[name]
    statement = bert.statement(0, 1)
    refused(bert, statement, forge(bert, statement, **changes), error)


def test_a_second_largest_score_is_refused_though_its_bits_are_bits(bert: GradientRound) -> None:
    """The pick moves to a token that is further away than the largest: pick·below is not zero."""

    def lie(circuit: Circuit) -> None:
        group = next(group for key, group in circuit.groups.items() if key.startswith("softmax"))
        strip = int(np.flatnonzero((group.units(2)[:, 0] == 1) & (group.units(0)[:, 0] > 0))[0])
        group.units(4)[strip, 0] = 1

    statement = bert.statement(0, 1)
    refused(bert, statement, forge(bert, statement, lie=lie), CellsFailed)


# -------------------------------------------------------------------------------------- another statement, other bytes


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
        verify(proven.statement, proven.case.program(1), proven.proof)


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
        verify(proven.statement, proven.case.program(1), proven.proof)


def messages(layout: Layout) -> dict[str, tuple[int, int]]:
    lengths = [32] * 3 + [16 * length for length in polynomial_lengths(layout)]
    lengths += [layout.queries * (16 + 4 * height) for height in layout.heights]
    names = ["values", "tests", "inverses", "proximity", "cells", "sums"]
    names += [f"columns of tree {tree}" for tree in range(len(layout.heights))]
    ends = np.cumsum([0, *lengths]).tolist()
    return {"openings": (ends[-1], -1)} | dict(zip(names, pairwise(ends), strict=True))


MESSAGES = {
    **dict.fromkeys(("values", "tests", "inverses"), OpeningInvalid),
    "proximity": ProximityFailed,
    "cells": CellsFailed,
    "sums": SumsFailed,
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


@pytest.mark.parametrize("name", ["proximity", "cells", "sums", "columns of tree 2"])
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
