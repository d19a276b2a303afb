"""The second verifier, written from the specification alone, says of each proof what the first one says.

In the long profile every test of this folder that verifies a proof asks both (conftest.py); here a few of each kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from proofs import second_verifier, verifier
from proofs.field import P, values_on_h
from proofs.parameters import parameters
from proofs.proof import ProofInvalid

Cells = dict[str, np.ndarray]


def said(verify: Callable[[Any, bytes], None], statement: Any, proof: bytes) -> str:
    try:
        verify(statement, proof)
    except ProofInvalid as error:
        return type(error).__name__
    return ""


def agreed(statement: Any, proof: bytes) -> str:
    first, second = said(verifier.verify, statement, proof), said(second_verifier.verify, statement, proof)
    assert first == second
    return first


def noise_off_by_one(cells: Cells) -> None:
    cells["noise"][0, 3] = (int(cells["noise"][0, 3]) + 1) % P


def two_in_a_bit(cells: Cells) -> None:
    cells["draw_borrow"][0, 0] = 2


def another_row(cells: Cells) -> None:
    cells["used"][0, 0] ^= 1


def seam_left_open(rows: Cells) -> None:
    rows["cells"][5, 7] ^= 1


def rest_of_full_degree(rows: Cells) -> None:
    """One more in every place of H but for its sign: X^(k−1), which x times wraps."""
    k = rows["sums_rest"].shape[1]
    highest = values_on_h(np.eye(k, dtype=np.uint64)[:, -1:])[:, 0]
    rows["sums_rest"][0] = (rows["sums_rest"][0] + highest) % P


def another_quotient(rows: Cells) -> None:
    rows["sums_quotient"][2, 9] ^= 1


def test_both_believe_an_honest_proof(small_case: Any, small_proof: bytes) -> None:
    assert agreed(small_case.statement, small_proof) == ""


@pytest.mark.parametrize("lie", [noise_off_by_one, two_in_a_bit, another_row])
def test_both_refuse_a_lie_for_the_same_reason(forger: Any, lie: Callable[[Cells], None]) -> None:
    assert agreed(*forger.prove(later=lie)) in ("CellsFailed", "SumsFailed")


@pytest.mark.parametrize(
    ("lie", "error"),
    [
        (seam_left_open, "CellsFailed"),
        (rest_of_full_degree, "ProximityFailed"),
        (another_quotient, "SumsFailed"),
    ],
)
def test_both_refuse_false_quotients_for_the_same_reason(forger: Any, lie: Callable[[Cells], None], error: str) -> None:
    assert agreed(*forger.prove(quotiented=lie)) == error


def test_both_refuse_sums_that_stand_for_others_modulo_p(small_case: Any, small_proof: bytes) -> None:
    released = small_case.statement.released.copy()
    released[0, 0] -= np.int64(P) if released[0, 0] > 0 else -np.int64(P)
    assert agreed(small_case.stating(released=released), small_proof) == "ReleasedTooLarge"


@pytest.mark.parametrize(
    "changed",
    [{"context": b"\1" * 32}, {"beacon": b"\1" * 32}, {"words_root": b"\1" * 32}, {"data_root": b"\1" * 32}],
    ids=lambda c: next(iter(c)),
)
def test_both_refuse_a_proof_of_something_else(small_case: Any, small_proof: bytes, changed: dict[str, Any]) -> None:
    assert agreed(small_case.stating(**changed), small_proof) != ""


def places(case: Any, proof: bytes) -> dict[str, int]:
    """One byte of every part of a proof."""
    sizes = parameters(case.statement.shape)
    k, t = sizes.row, sizes.queries
    columns = [t * (16 + 4 * height) for height in sizes.heights]
    starts = [128 + 16 * k + sum(columns[:tree]) for tree in range(7)]
    found = {"slots": 0, "witness": 32, "lookups": 64, "quotients": 96, "proximity": 128, "highest": 128 + 16 * (k - 1)}
    found |= {f"salt {tree}": starts[tree] for tree in range(6)}
    found |= {f"entry {tree}": starts[tree] + 16 for tree in range(6)}
    return found | {"first sibling": starts[6], "last sibling": len(proof) - 1}


def test_both_refuse_each_altered_part_for_the_same_reason(small_case: Any, small_proof: bytes) -> None:
    for name, place in places(small_case, small_proof).items():
        altered = bytearray(small_proof)
        altered[place] ^= 1
        assert agreed(small_case.statement, bytes(altered)) != "", name


@pytest.mark.parametrize(
    "forge",
    [lambda p: p[:-32], lambda p: p + bytes(32), lambda p: b"", lambda p: bytes(len(p)), lambda p: b"\xff" * len(p)],
    ids=["cut", "padded", "empty", "zeros", "ones"],
)
def test_both_refuse_other_bytes(small_case: Any, small_proof: bytes, forge: Callable[[bytes], bytes]) -> None:
    assert agreed(small_case.statement, forge(small_proof)) in ("ProofMalformed", "OpeningInvalid")
