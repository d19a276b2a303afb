"""A prover of statements G and F that lies: what tests of forgeries prove with.

It proves as an honest member does, but that nothing is refused on the way, and that all that follows from its lie is
made to fit it. A value that is in no table gets the inverse that it should have, by itself or in the sum of three (then
the sums of the look-ups do not fit), or that of an entry (then the cell does not). What a circuit is without values
depends on slot and program alone, so that of the verifier is built once for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.cases import Recoded
from benchmarks.gradient_cases import GradientRound
from proofs import answering, mechanism, witness
from proofs.circuit import prover, verifier
from proofs.circuit.builder import Circuit, Table
from proofs.circuit.equations import Tests, weights_of
from proofs.circuit.layout import QUOTIENTS
from proofs.circuit.verifier import Drawn
from proofs.circuit.wire import Wire
from proofs.commitment import Committed
from proofs.field import P, element, ext, ext_inverse, mul
from proofs.gradient.claim import PROTOCOL, GradientStatement, Secret, claim_circuit, claim_layout
from proofs.gradient.program import Program
from proofs.inference import claim as inference
from proofs.inference.claim import InferenceStatement
from proofs.proof import ProofInvalid
from proofs.prover import data_and_slots
from proofs.witness import Cells

_P = np.uint64(P)
Lie = Callable[[Circuit], None]
_CIRCUITS: dict[tuple[Any, ...], Circuit] = {}


def no_lie(_: Circuit) -> None:
    """Leaves everything as it is."""


def public_circuit(statement: GradientStatement, program: Program) -> Circuit:
    """As the verifier builds it."""
    numbers, mechanism = (statement.step, statement.slot, statement.tolerance), statement.mechanism
    key = (*numbers, mechanism.shape, mechanism.group_of.tobytes(), program.digest())
    if key not in _CIRCUITS:
        _CIRCUITS[key] = claim_circuit(statement, program)
    return _CIRCUITS[key]


def check(statement: GradientStatement, program: Program, proof: bytes) -> None:
    """As proofs.gradient.verifier.verify does, with the circuit at hand."""
    circuit = public_circuit(statement, program)
    layout = claim_layout(circuit, statement.mechanism.shape)
    roots = (statement.mechanism.data_root, statement.slots_root)
    verifier.verify(statement.digest(program), circuit, layout, roots, proof, PROTOCOL)


class Lying(prover._Run):
    """The honest steps of a proof, without their refusals.

    false_inverses: of what is in no table. coded (tree, columns (n, rows)): changes columns after the code was made;
    counted, inverted, quotiented: change values and how often they are looked up, inverses, and rows of the last tree.
    """

    public: Circuit  # whose relations are claimed
    false_inverses = False
    coded: Callable[[int, np.ndarray], None] | None = None
    counted: Callable[[Cells], None] = staticmethod(lambda _: None)  # type: ignore[assignment]
    inverted: Callable[[Cells, Tests], None] = staticmethod(lambda *_: None)  # type: ignore[assignment]
    quotiented: Callable[[Lying, Cells], None] = staticmethod(lambda *_: None)  # type: ignore[assignment]
    drawn: Drawn
    missing: np.ndarray  # (4,): what the sum lacks, over k

    def commit(self, tree: int, cells: Cells, whole: Cells | None = None) -> Committed:
        return self.recoded(tree, super().commit(tree, cells, whole))

    def recoded(self, tree: int, found: Committed) -> Committed:
        if self.coded is None:
            return found
        return Recoded.of(found, partial(self.coded, tree))

    def values(self) -> Cells:
        found = super().values()
        self.counted(found)
        return found

    def inverses(self, tests: Tests, of_entries: Mapping[str, np.ndarray]) -> Cells:
        found = super().inverses(tests, of_entries)
        if not self.false_inverses:
            self._fit_shared(found, tests)
            self._fit_alone(found, tests)
        self.inverted(found, tests)
        return found

    def _fit_shared(self, found: Cells, tests: Tests) -> None:
        first = 0
        for name, values in self._ranged():
            table = self._circuit.tables[name]
            rows, lanes = np.nonzero((table.entries[table.places(values), 0] != values).any(axis=1))
            keys = ext(element(values[rows, :, lanes]))
            for e, cells in enumerate(_inverted(keys, tests).sum(axis=1).T % _P):
                found[f"inverses_{e}"][first + rows, lanes] = cells
            first += len(values)

    def _fit_alone(self, found: Cells, tests: Tests) -> None:
        first, wide = self._layout.shared_rows, self._layout.blocks * self._layout.strip
        for shape, number, name in self._layout.looked_up():
            group, table = self._circuit.groups[shape.name], self._circuit.tables[name]
            if group.phase == 0:
                columns = dict(group.lookups[number].columns)
                key = group.units(columns["1"]).reshape(-1)
                value = group.units(columns["β"]).reshape(-1) if "β" in columns else np.zeros_like(key)
                entry = table.entries[table.places(key)]
                wrong = np.flatnonzero((entry[:, 0] != key) | ("β" in columns and entry[:, -1] != value))
                keys = ext(element(key[wrong])) + mul(element(value[wrong])[:, None], tests.beta)
                for e, cells in enumerate(_inverted(keys % _P, tests).T):
                    found[f"inverses_{e}"][first + wrong // wide, wrong % wide] = cells
            first += self._layout.rows(shape)

    def cells(self, sections: Any, drawn: Drawn) -> np.ndarray:
        self.drawn = drawn
        with patch.object(answering, "of_length", lambda found, length: found[:length]):
            return super().cells(sections, drawn)

    def sums(self, sections: Any, drawn: Drawn) -> np.ndarray:
        weights = weights_of(self.public, drawn.tests, drawn.sums)

        def lacking(found: np.ndarray, target: np.ndarray, sizes: Any) -> None:
            wanted = mul(target, np.uint64(pow(sizes.row, P - 2, P)))
            self.missing = (wanted + 2 * _P - found[0] - found[sizes.row]) % _P

        with patch.object(prover, "check_sum", lacking), patch.object(prover, "weights_of", lambda *_: weights):
            return super().sums(sections, drawn)


def _inverted(keys: np.ndarray, tests: Tests) -> np.ndarray:
    return ext_inverse((tests.alpha + _P - keys) % _P)


@contextmanager
def refusing_nothing() -> Iterator[None]:
    """A circuit takes values that do not obey it, and ranges hold what is out of them."""
    honest, counting = Circuit.within, witness.count_cells

    def within(self: Circuit, shape: Any, lanes: int, low: int, high: int, units: Any) -> Wire:
        if units is None:
            return honest(self, shape, lanes, low, high, None)
        made = honest(self, shape, lanes, low, high, np.clip(units, low, high))
        group = made.terms[0].group
        group.units(0)[made.terms[0].index.reshape(-1)] = units.reshape(-1, lanes)
        return made.with_(units=np.asarray(units))

    def counted(values: np.ndarray, size: int, *rest: Any) -> np.ndarray:
        return np.asarray(counting(np.minimum(values, size - 1), size, *rest))

    def places(self: Table, keys: np.ndarray) -> np.ndarray:
        return np.clip(keys - self.first, 0, len(self.entries) - 1)

    with (
        patch.object(Circuit, "within", within),
        patch.object(Circuit, "check", lambda *_: None),
        patch.object(Table, "places", places),
        patch.object(mechanism, "check_contributions", lambda *_: None),
        patch.object(witness, "count_cells", counted),
    ):
        yield


def forge(
    case: GradientRound,
    statement: GradientStatement,
    *,
    running: Program | None = None,
    secret: Secret | None = None,
    building: Callable[[ExitStack], None] = lambda _: None,
    lie: Lie = no_lie,
    tested: Lie = no_lie,
    **changes: Any,
) -> bytes:
    """A proof of the statement, whatever is so. running: the program that the values come from. building: patches
    while they are computed. lie, tested: change the cells of phase 0, and of phase 1. changes: to `Lying`."""
    program = case.program(statement.step)
    public = public_circuit(statement, program)
    with refusing_nothing(), ExitStack() as patches:
        with ExitStack() as more:
            building(more)
            circuit = claim_circuit(statement, running or program, secret or case.secret(statement))
        lie(circuit)
        lying(patches, public, tested, changes)
        trees = data_and_slots(statement.mechanism, case.words, case.texts, case.contributions)
        layout = claim_layout(public, case.shape)
        return prover.prove(statement.digest(program), circuit, layout, trees, bytes(32), None, PROTOCOL)


def forge_answer(
    statement: InferenceStatement,
    program: Program,
    *,
    running: Program | None = None,
    computing: InferenceStatement | None = None,
    lie: Lie = no_lie,
    **changes: Any,
) -> bytes:
    """A proof of statement F, whatever is so: the values come from another program, or from another statement."""
    with refusing_nothing(), ExitStack() as patches:
        circuit = inference.claim_circuit(computing or statement, running or program, True)
        lie(circuit)
        public = inference.claim_circuit(statement, program)
        lying(patches, public, no_lie, changes)
        layout = inference.claim_layout(public)
        return prover.prove(statement.digest(program), circuit, layout, [], bytes(32), None, inference.PROTOCOL)


def lying(patches: ExitStack, public: Circuit, tested: Lie = no_lie, changes: dict[str, Any] | None = None) -> None:
    """From here on the prover lies about the public circuit."""
    filling, finishing, committing, runs = prover._fill_tests, prover.quotient_rows, answering.commit, list[Lying]()

    class Changed(Lying):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            runs.append(self)

    def filled(circuit: Circuit, tests: Any) -> None:
        filling(circuit, tests)
        tested(circuit)

    def quotients(*arguments: Any) -> Cells:
        rows = finishing(*arguments)
        runs[-1].quotiented(runs[-1], rows)
        return rows

    def committed(*arguments: Any) -> Committed:
        return runs[-1].recoded(QUOTIENTS, committing(*arguments))

    for name, value in (changes or {}).items():
        setattr(Changed, name, staticmethod(value) if callable(value) else value)
    Changed.public = public
    patches.enter_context(patch.object(prover, "_Run", Changed))
    patches.enter_context(patch.object(prover, "_fill_tests", filled))
    patches.enter_context(patch.object(prover, "quotient_rows", quotients))
    patches.enter_context(patch.object(answering, "commit", committed))


def refused(case: GradientRound, statement: GradientStatement, proof: bytes, *errors: type[ProofInvalid]) -> None:
    """The verifier refuses it, for one of these reasons."""
    try:
        check(statement, case.program(statement.step), proof)
    except errors:
        return
    raise AssertionError("a forgery passed")


def fitting(case: GradientRound, units: np.ndarray) -> np.ndarray:
    """No longer than the clip, as the mechanism's proof asks for: H rounds, and may be a little above it."""
    found = units.astype(np.float64)
    for columns in case.config.groups.values():
        length, clip = np.linalg.norm(found[columns]), case.shape.clip_units
        if length > clip:
            found[columns] = np.trunc(found[columns] * (clip / length))
    return np.rint(found).astype(np.int64)
