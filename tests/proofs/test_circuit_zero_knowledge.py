"""What a proof of a circuit shows: a simulator that has the circuit without values, and challenges known beforehand."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from benchmarks import simulator
from benchmarks.circuits import Toy
from benchmarks.simulator import Chosen, Claim
from proofs.circuit import verifier
from proofs.circuit.equations import cell_equations, shared_equations
from proofs.circuit.layout import layout_of
from proofs.field import P
from proofs.proof import CellsFailed, OpeningInvalid, ProofInvalid, ProofMalformed, ProximityFailed, SumsFailed
from proofs.relation import Plain
from proofs.verifier import Opened

STATEMENT, ROW, LANES = b"\1" * 32, 512, 3
CIRCUIT = Toy(LANES, False).circuit
LAYOUT = layout_of(CIRCUIT, ROW)
_P = np.uint64(P)


def simulated(seed: int, spoiled: str = "") -> bytes:
    own = Chosen(seed)
    drawn = verifier.draw(own, CIRCUIT, LAYOUT, [b"", b""])

    def cells(seen: Opened) -> np.ndarray:
        found = cell_equations(seen.sections, CIRCUIT, LAYOUT, drawn.tests, drawn.cells, Plain())
        return (found + shared_equations(seen.sections, CIRCUIT, LAYOUT, drawn.tests, drawn.cells)) % _P

    def sums(seen: Opened) -> np.ndarray:
        found = list[np.ndarray]()
        with patch.object(verifier, "check_total", lambda _, total, *__: found.append(total)):
            verifier._check_sums(seen, CIRCUIT, LAYOUT, drawn)
        return found[0]

    target = verifier.weights_of(CIRCUIT, drawn.tests, drawn.sums).target
    claim = Claim(cells, sums, target)
    return simulator.simulated(LAYOUT, own, claim, seed, spoiled)[1]


def verify(proof: bytes, seed: int | None) -> None:
    """Under the challenges of Chosen(seed), or under those that follow from the proof."""
    if seed is None:
        return verifier.verify(STATEMENT, CIRCUIT, LAYOUT, [], proof)
    with patch.object(verifier, "Transcript", lambda _: Chosen(seed)):
        return verifier.verify(STATEMENT, CIRCUIT, LAYOUT, [], proof)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_proof_made_without_values_is_accepted_under_challenges_known_beforehand(seed: int) -> None:
    proof = simulated(seed)
    verify(proof, seed)
    for other in (None, seed + 1):
        with pytest.raises((ProofMalformed, OpeningInvalid)):
            verify(proof, other)


@pytest.mark.parametrize("spoiled", ["mask_proximity", "cells", "sums_rest", "counts of squares"])
def test_one_entry_that_was_not_solved_for_is_enough_to_be_refused(spoiled: str) -> None:
    with pytest.raises(ProximityFailed):
        verify(simulated(1, spoiled), 1)


@pytest.mark.parametrize(("solved", "error"), [("first_piece", CellsFailed), ("last_quotient", SumsFailed)])
def test_the_other_two_tests_bite_at_every_column_too(
    solved: str, error: type[ProofInvalid], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = getattr(simulator, solved)

    def beside(*arguments: Any) -> np.ndarray:
        found = honest(*arguments)
        found[-1, 2] ^= np.uint64(1)
        return np.asarray(found)

    monkeypatch.setattr(simulator, solved, beside)
    with pytest.raises(error):
        verify(simulated(1), 1)
