"""Proofs of the mechanism: honest ones pass, whatever the sizes; what does not hold is not even proven."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from proofs.parameters import TARGET_BITS, ShapeRefused, largest_proof, parameters
from proofs.prover import WitnessRefused, prove, words_root
from proofs.statement import Shape
from proofs.verifier import verify
from proofs.words import SecretWords

Case = Any
SHAPES = {
    "one of everything": (Shape(1, (1,), 1, 1, 1, 1, 1 << 31), 1),
    "everybody is drawn": (Shape(2, (4, 3), 8, 8, 32, 50, 1 << 32), 8),
    "nobody is drawn": (Shape(2, (4,), 8, 8, 32, 50, 1), 8),
    "no rows at all": (Shape(1, (4,), 8, 4, 32, 50, 1 << 31), 0),
    "the largest clip and the loudest noise": (Shape(1, (40, 2), 8, 8, 2048, 3500, 1 << 31), 8),
    "three groups": (Shape(2, (2, 9, 1), 8, 8, 1000, 700, 3 << 30), 5),
    "many steps": (Shape(9, (30,), 40, 25, 64, 100, 1 << 30), 31),
    "everything in more than a row": (Shape(3, (700, 60), 700, 12, 64, 100, 1 << 24), 690),
}


@pytest.mark.parametrize("name", SHAPES)
def test_an_honest_proof_passes(name: str, make_case: Callable[..., Case]) -> None:
    shape, rows = SHAPES[name]
    case = make_case(shape, rows)
    proof = case.prove()
    verify(case.statement, proof)
    assert len(proof) <= largest_proof(shape)


def test_a_zero_draw_still_proves_its_noise(make_case: Callable[..., Case]) -> None:
    shape, rows = SHAPES["nobody is drawn"]
    case = make_case(shape, rows)
    assert [len(part) for part in case.contributions] == [0, 0]
    assert case.statement.released.any()


def test_equal_inputs_give_the_equal_proof(small_case: Case, small_proof: bytes) -> None:
    """After a crash a member publishes the same bytes again, or nothing."""
    assert small_case.prove() == small_proof


def test_one_of_the_sizes_takes_several_rows_for_everything() -> None:
    sizes = parameters(SHAPES["everything in more than a row"][0])
    assert min(sizes.noise_rows, sizes.draw_rows, sizes.projection_rows, *sizes.group_rows) > 1


def test_the_errors_of_a_proof_add_up_to_less_than_the_target() -> None:
    for shape, _ in SHAPES.values():
        sizes = parameters(shape)
        assert TARGET_BITS <= sizes.bits < TARGET_BITS + 3
        assert sizes.queries < sizes.row // 2


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ({"clip_units": 2049}, "clip_units from 1 to 2048"),
        ({"clip_units": 2048, "slots": 520_192}, "or sums wrap"),  # 2^30 > B·C = p/2
        ({"sample_threshold": (1 << 32) + 1}, "at most 2\\^32"),
        ({"groups": (4, 0)}, "at least one"),
        ({"groups": (90_000,), "clip_units": 2048}, "more than one proof holds"),
        ({"steps": 4096, "slots": 4096}, "more than one proof holds"),
        ({"groups": (40_000,), "steps": 8, "clip_units": 256, "slots": 1000}, "would not fit the memory"),
    ],
)
def test_sizes_that_no_proof_holds_are_refused_with_what_to_change(changed: dict[str, Any], cause: str) -> None:
    base = {"steps": 2, "groups": (5, 3), "capacity": 16, "slots": 16, "clip_units": 64, "sigma_units": 100}
    with pytest.raises(ShapeRefused, match=cause):
        parameters(Shape(**(base | {"sample_threshold": 1 << 31} | changed)))


class TestWhatDoesNotHoldIsNotProven:
    """The prover refuses before it says anything: its own mistakes never become a proof that fails elsewhere."""

    def refused(self, case: Case, match: str, **changed: Any) -> None:
        inputs = {"statement": case.statement, "contributions": case.contributions, "rows": case.rows} | changed
        with pytest.raises(Exception, match=match) as caught:
            prove(inputs["statement"], case.words, inputs["rows"], inputs["contributions"])
        assert "seed" not in str(caught.value)

    def test_a_sum_that_is_off_by_one(self, small_case: Case) -> None:
        released = small_case.statement.released.copy()
        released[1, 3] += 1
        self.refused(small_case, "released sums", statement=small_case.stating(released=released))

    def test_a_contribution_above_the_clip(self, small_case: Case) -> None:
        parts = [part.copy() for part in small_case.contributions]
        parts[0][0] = 64
        self.refused(small_case, "longer than the clip", contributions=parts)

    def test_a_row_left_out(self, small_case: Case) -> None:
        parts = [small_case.contributions[0][1:], *small_case.contributions[1:]]
        self.refused(small_case, "one for each row", contributions=parts)

    def test_other_rows_than_were_committed_to(self, small_case: Case) -> None:
        self.refused(small_case, "not those that were committed", rows=small_case.rows - 1)

    def test_more_rows_than_slots(self, small_case: Case) -> None:
        parts = [np.zeros((17, 8), dtype=np.int32), small_case.contributions[1]]
        self.refused(small_case, "more rows than its 16 slots", contributions=parts)

    def test_more_rows_than_the_capacity(self, small_case: Case) -> None:
        with pytest.raises(WitnessRefused, match="more rows than the capacity of 16"):
            words_root(small_case.words, small_case.statement.shape, 17)


def test_the_commitment_to_the_words_depends_on_each_word_row_and_binding(small_case: Case) -> None:
    shape, words = small_case.statement.shape, small_case.words
    roots = {words_root(words, shape, rows) for rows in range(4)}
    for seed, binding in ((b"\7" * 32, words.binding), (b"\1" * 32, type(words.binding)(1, b"\2" * 20, 1, 0))):
        other = SecretWords(seed, binding, shape.steps, shape.parameters, shape.capacity)
        roots.add(words_root(other, shape, 0))
    assert len(roots) == 6
