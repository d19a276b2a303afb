"""What a proof of a circuit shows: a simulator that has the circuit without values, and challenges known beforehand;
and how the columns of an honest proof are spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from benchmarks import simulator
from benchmarks.circuits import Toy
from benchmarks.simulator import Chosen, Claim, unevenness
from proofs import answering
from proofs.circuit import prover, verifier
from proofs.circuit.equations import cell_equations, shared_equations
from proofs.circuit.layout import layout_of
from proofs.commitment import Committed, commit
from proofs.field import P
from proofs.parameters import SALT_BYTES
from proofs.proof import CellsFailed, OpeningInvalid, ProofInvalid, ProofMalformed, ProximityFailed, SumsFailed
from proofs.relation import Plain
from proofs.transcript import Transcript
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


# --------------------------------------------------------------------------------- how an honest proof's columns look


@dataclass(frozen=True)
class Made:
    """The trees of an honest proof, and the columns that it opens."""

    trees: list[Committed]
    positions: list[int]

    @property
    def opened(self) -> np.ndarray:
        """(t, rows of all trees)."""
        return np.concatenate([tree.columns(self.positions) for tree in self.trees], axis=1)

    @property
    def random(self) -> set[bytes]:
        """The last cells of each row, and the salts."""
        pads = {row.tobytes() for tree in self.trees for row in tree.rows[:, LAYOUT.lanes :]}
        return pads | {tree.salts[at : at + SALT_BYTES] for tree in self.trees for at in salts_at()}


def salts_at() -> range:
    return range(0, SALT_BYTES * LAYOUT.columns, SALT_BYTES)


def made(seed: int, key: int) -> Made:
    """Of the toy with values of that seed."""
    trees, positions = list[Committed](), list[int]()

    def watched(*arguments: Any) -> Committed:
        trees.append(commit(*arguments))
        return trees[-1]

    class Spy(Transcript):
        def positions(self, label: str, below: int, count: int) -> Any:
            found = super().positions(label, below, count)
            positions.extend(found.tolist())
            return found

    with (
        patch.object(prover, "commit", watched),
        patch.object(answering, "commit", watched),
        patch.object(prover, "Transcript", Spy),
    ):
        prover.prove(STATEMENT, Toy(LANES, True, seed=seed).circuit, LAYOUT, [], bytes([key]) * 32)
    return Made(trees, positions)


def test_every_opened_row_is_spread_evenly_whatever_the_values() -> None:
    """Rows of bits, of counts, and what is left over; the keys are fixed: nine deviations are far out of reach."""
    proofs = [made(seed, key).opened for seed, key in ((1, 1), (1, 2), (2, 3), (2, 4))]
    rows = [unevenness(row) for row in np.concatenate(proofs).T]
    steps = [unevenness(np.diff(row.astype(np.int64)) % P) for row in np.concatenate(proofs).T]
    assert len(rows) == sum(LAYOUT.heights)
    assert max(rows + steps) < 9
    assert abs(np.mean(rows)) < 4 / np.sqrt(len(rows))


def test_without_random_cells_the_same_look_tells_rows_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proofs.commitment.field_stream", lambda _, count: np.zeros(count, dtype=np.uint64))
    assert max(unevenness(row) for row in made(1, 1).opened.T) > 100


def test_no_pad_and_no_salt_is_used_twice() -> None:
    """Neither in a proof nor in that of the same values under another key."""
    proofs = [made(1, key) for key in (1, 2)]
    each = sum(LAYOUT.heights) + len(LAYOUT.trees) * LAYOUT.columns
    assert [len(one.random) for one in proofs] == [each, each]
    assert not proofs[0].random & proofs[1].random
