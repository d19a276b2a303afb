"""Proofs about slots of one round share the trees of data and slots, whose rows have cells for it, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest

from benchmarks.gradient_cases import GradientRound
from proofs import answering
from proofs.circuit import prover
from proofs.commitment import Committed, commit
from proofs.gradient import prover as gradient
from proofs.gradient.claim import GradientStatement
from proofs.parameters import SALT_BYTES


def random_of(case: GradientRound, statement: GradientStatement) -> tuple[set[bytes], set[bytes]]:
    """Random cells of rows and salts of leaves: of the trees that were there, and of those of this proof."""
    there, own, trees_of = list[Committed](), list[Committed](), gradient._trees

    def opened(*arguments: Any) -> tuple[Committed, Committed]:
        there.extend(trees_of(*arguments))
        return there[0], there[1]

    def committed(*arguments: Any) -> Committed:
        own.append(commit(*arguments))
        return own[-1]

    with (
        patch.object(gradient, "_trees", opened),
        patch.object(prover, "commit", committed),
        patch.object(answering, "commit", committed),
    ):
        case.prove(statement)
    return set[bytes]().union(*map(secrets_of, there)), set[bytes]().union(*map(secrets_of, own))


def secrets_of(tree: Committed) -> set[bytes]:
    pads = {row.tobytes() for row in tree.rows[:, -64:]}
    return pads | {tree.salts[at : at + SALT_BYTES] for at in range(0, len(tree.salts), SALT_BYTES)}


@pytest.mark.parametrize("changed", [{"slot": 0}, {"beacon": b"\6" * 32}, {"tolerance": 5}])
def test_two_proofs_of_a_round_share_only_what_both_of_them_open(llama: GradientRound, changed: dict[str, Any]) -> None:
    """Under the same cells, the columns that two beacons ask for would be more than hide a row."""
    statement = llama.statement(0, 1)
    (there, own), (again, other) = (random_of(llama, each) for each in (statement, replace(statement, **changed)))
    assert there == again
    assert there
    assert own
    assert not own & other
    assert not there & (own | other)
