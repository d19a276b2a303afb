"""What further proofs keep to themselves: proofs about slots of one round share the trees of data and slots, whose rows
have cells for it, and nothing else; and where there is no proof, the reason names no value.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from benchmarks.circuits import SQUARES
from benchmarks.gradient_cases import LABELS, GradientRound
from proofs import answering
from proofs.circuit import prover
from proofs.circuit.builder import Circuit, ValueRefused
from proofs.circuit.wire import constant_wire
from proofs.commitment import Committed, commit
from proofs.gradient import prover as gradient
from proofs.gradient.circuit_attention import Scores, softmax
from proofs.gradient.circuit_text import cells_of, example
from proofs.gradient.claim import GradientStatement
from proofs.gradient.numbers import OutOfRange
from proofs.gradient.tables import exponentials
from proofs.gradient.tape import check_apart
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


def refusals(case: GradientRound, secret: int) -> Iterator[str]:
    """What a member's log says of values that leave their ranges: `secret` beyond each."""
    program, far = case.program(0), np.array([[[0]], [[(1 << 16) + secret]]])
    circuit = Circuit(case.shape.tokens, True)
    cells = constant_wire(cells_of((4,), len(LABELS) + secret, circuit.lanes)[:, 0], 1, 0)
    everyone = constant_wire(np.ones((1, 2), dtype=np.int64), 1, 0)
    near, below_all = constant_wire(far[:, 0].swapaxes(0, 1), 1, 0), exponentials(7, 1, 13)
    for refuse in (
        lambda: circuit.within((1,), 1, -4, 3, np.array([[4 + secret]])),
        lambda: circuit.look_up(SQUARES, constant_wire(np.array([9 + secret]), 1, 0)),
        lambda: check_apart("scores", far),
        lambda: softmax(circuit, "loss", below_all, Scores.of("scores", near), everyone),
        lambda: example(circuit, program, cells),
    ):
        with pytest.raises((OutOfRange, ValueRefused)) as caught:
            refuse()
        yield str(caught.value)


def test_no_refusal_tells_a_value(llama: GradientRound) -> None:
    """They end in the log of a member whose slot cannot be proven, word for word the same for all such rows."""
    texts = list(refusals(llama, 0))
    assert texts == list(refusals(llama, 12_345))
    assert all(texts)
