"""False relations of a circuit: each is refused though others are false by as much the other way.

Relations of few strips are added up together, those of many at once (proofs.circuit.weights). Both sizes are lied
about, constants and cells, in strips of many places and of one: what is confused on the way would cancel.
"""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest

from benchmarks.gradient_liar import lying, refusing_nothing
from proofs.circuit import prover, second_verifier, verifier
from proofs.circuit.builder import Circuit
from proofs.circuit.layout import layout_of
from proofs.circuit.weights import FEW
from proofs.proof import SumsFailed

LANES, ROW = 4, 512
STATEMENT, KEY = b"\1" * 32, b"\2" * 32
SIZES = (1, FEW, FEW + 1)
Lies = dict[tuple[int, int], tuple[int, int]]  # places and strips of a wire: what its constant is off, and its copy


def built(proving: bool, lies: Lies) -> Circuit:
    """For each size a wire that is 5 in every place, and a copy of twice as much."""
    circuit = Circuit(LANES, proving)
    circuit.tests_group()
    for lanes in (LANES, 1):
        for size in SIZES:
            off, copied = lies.get((lanes, size), (0, 0))
            held = np.zeros((size, lanes), dtype=np.int64)
            held[-1, -1] = off
            wire = circuit.free((size,), lanes, 5 + held if proving else None)
            twice = held * 2
            twice[-1, -1] += copied
            copy = circuit.free((size,), lanes, 10 + twice if proving else None)
            circuit.equal(wire.plus(-5).with_(units=None), (copy - wire.scaled(2)).with_(units=None))
    return circuit


PUBLIC = built(False, {})
LAYOUT = layout_of(PUBLIC, ROW)


def forged(lies: Lies) -> bytes:
    with refusing_nothing(), ExitStack() as patches:
        lying(patches, PUBLIC)
        return prover.prove(STATEMENT, built(True, lies), LAYOUT, [], KEY)


def verified_by_both(proof: bytes) -> list[type[Exception] | None]:
    found = list[type[Exception] | None]()
    for verify in (
        lambda: verifier.verify(STATEMENT, PUBLIC, LAYOUT, [], proof),
        lambda: second_verifier.verify(STATEMENT, PUBLIC, ROW, [], [], proof, verifier.PROTOCOL),
    ):
        try:
            verify()
            found.append(None)
        except Exception as error:
            found.append(type(error))
    return found


def test_who_tells_no_lie_is_believed() -> None:
    assert verified_by_both(forged({})) == [None, None]


@pytest.mark.parametrize("lanes", [LANES, 1])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("lie", [(1, 0), (0, 1), (1, -1)], ids=["constant", "copy", "both"])
def test_one_false_relation(lanes: int, size: int, lie: tuple[int, int]) -> None:
    assert verified_by_both(forged({(lanes, size): lie})) == [SumsFailed, SumsFailed]


@pytest.mark.parametrize("lie", [(1, 0), (0, 1)], ids=["constant", "copy"])
@pytest.mark.parametrize("first", [(lanes, size) for lanes in (LANES, 1) for size in SIZES])
def test_two_false_relations_do_not_cancel(first: tuple[int, int], lie: tuple[int, int]) -> None:
    for second in ((lanes, size) for lanes in (LANES, 1) for size in SIZES if (lanes, size) > first):
        lies = {first: lie, second: (-lie[0], -lie[1])}
        assert verified_by_both(forged(lies)) == [SumsFailed, SumsFailed]
