"""Proofs of the mechanism: honest ones pass, whatever the sizes; what does not hold is not even proven."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from benchmarks.cases import random_texts
from proofs import prover
from proofs.field import P
from proofs.parameters import TARGET_BITS, ShapeRefused, largest_proof, miss, parameters, shifts_of
from proofs.proof import ProofMalformed, slots_root, split_messages
from proofs.prover import WitnessRefused, data_root, prove, words_root
from proofs.statement import Shape
from proofs.texts import Texts
from proofs.verifier import verify
from proofs.witness import data_cells
from proofs.words import SecretWords

Case = Any
SHAPES = {
    "one of everything": (Shape(1, (1,), 1, 1, 1, 1, 1 << 31, 5), 1),
    "everybody is drawn": (Shape(2, (4, 3), 8, 8, 32, 50, 1 << 32, 5), 8),
    "nobody is drawn": (Shape(2, (4,), 8, 8, 32, 50, 1, 5), 8),
    "no rows at all": (Shape(1, (4,), 8, 4, 32, 50, 1 << 31, 5), 0),
    "the largest clip and the loudest noise": (Shape(1, (40, 2), 8, 8, 2048, 3500, 1 << 31, 5), 8),
    "three groups": (Shape(2, (2, 9, 1), 8, 8, 1000, 700, 3 << 30, 5), 5),
    "many steps": (Shape(9, (30,), 40, 25, 64, 100, 1 << 30, 5), 31),
    "everything in more than a row": (Shape(3, (1500, 130), 1400, 12, 64, 100, 1 << 24, 5), 1380),
    "room for a further proof": (Shape(2, (5, 3), 16, 16, 64, 100, 1 << 31, 5, 1), 11),
    "room for sixteen": (Shape(1, (3,), 8, 8, 64, 100, 1 << 31, 5, 16), 8),
}


def other_token(texts: Texts) -> Texts:
    tokens = texts.tokens.copy()
    tokens[3, 0] ^= 1
    return replace(texts, tokens=tokens)


def other_label(texts: Texts) -> Texts:
    return replace(texts, labels=texts.labels ^ (np.arange(len(texts)) == 2).astype(np.int32))


def longer_by_a_zero(texts: Texts) -> Texts:
    """Token 0 is a token like any other: the length tells it from a text's end."""
    return replace(texts, lengths=np.minimum(texts.lengths + np.int32(1), np.int32(texts.width)))


OTHER_TEXTS: dict[str, Callable[[Texts], Texts]] = {
    "a row fewer": lambda texts: Texts(texts.tokens[:-1], texts.lengths[:-1], texts.labels[:-1]),
    "another order": lambda texts: Texts(texts.tokens[::-1], texts.lengths[::-1], texts.labels[::-1]),
    "another token": other_token,
    "another label": other_label,
    "a token of zero more": longer_by_a_zero,
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
        assert sizes.queries + 128 * shape.openings == sizes.pads < sizes.row // 2
        assert sizes.pads + 3 * sizes.queries <= sizes.row  # three seams


def test_rows_of_zeros_that_fill_up_are_counted_among_the_errors() -> None:
    """The bound is on every value that is looked up, and these are."""
    shape, _ = SHAPES["three groups"]
    sizes = parameters(shape)
    zeros = 3 * (sizes.range_inverses + sizes.projection_inverses) - sizes.range_lookups - sizes.projection_rows
    assert zeros > 0
    looked_up = sizes.lanes * (sizes.range_lookups + sizes.projection_rows + zeros + 9 * sizes.noise_rows)
    tables = (1 << 16) + 2 * sizes.reach + 1 + 9 * sizes.noise_values
    code = Fraction(9, 16) ** sizes.queries + Fraction(16 * sizes.row, P**4)
    projections = miss(shape, sizes.reach) ** sizes.projections
    assert sizes.error == code + Fraction(looked_up + tables + 8, P**4) + projections


def test_the_pieces_of_a_quotient_overlap_and_reach_as_far_as_it_does() -> None:
    for shape, _ in SHAPES.values():
        sizes = parameters(shape)
        shifts = shifts_of(sizes)
        assert shifts[0] == 0
        assert all(after + sizes.queries <= before + sizes.row for before, after in pairwise(shifts))
        assert shifts[-1] + sizes.row == 4 * sizes.row - sizes.lanes


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ({"clip_units": 2049}, "clip_units from 1 to 2048"),
        ({"clip_units": 2048, "slots": 520_192}, "or sums wrap"),  # 2^30 > B·C = p/2
        ({"sample_threshold": (1 << 32) + 1}, "at most 2\\^32"),
        ({"groups": (4, 0)}, "at least one"),
        ({"tokens": 0}, "at least one"),
        ({"openings": -1}, "up to 16 further ones"),
        ({"openings": 17}, "up to 16 further ones"),
        ({"tokens": 1 << 20, "capacity": 1 << 10}, "would not fit the memory"),
        ({"groups": (90_000,), "clip_units": 2048}, "more than one proof holds"),
        ({"steps": 4096, "slots": 4096}, "more than one proof holds"),
        ({"groups": (40_000,), "steps": 8, "clip_units": 256, "slots": 1000}, "would not fit the memory"),
    ],
)
def test_sizes_that_no_proof_holds_are_refused_with_what_to_change(changed: dict[str, Any], cause: str) -> None:
    base = {"steps": 2, "groups": (5, 3), "capacity": 16, "slots": 16, "clip_units": 64, "sigma_units": 100}
    with pytest.raises(ShapeRefused, match=cause):
        parameters(Shape(**(base | {"sample_threshold": 1 << 31, "tokens": 5} | changed)))


class TestWhatDoesNotHoldIsNotProven:
    """The prover refuses before it says anything: its own mistakes never become a proof that fails elsewhere."""

    def refused(self, case: Case, match: str, **changed: Any) -> None:
        inputs = {"statement": case.statement, "contributions": case.contributions, "texts": case.texts} | changed
        with pytest.raises(Exception, match=match) as caught:
            prove(inputs["statement"], case.words, inputs["texts"], inputs["contributions"])
        assert "seed" not in str(caught.value)

    def test_identities_of_the_cells_that_do_not_hold(self, small_case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
        """A mistake of the prover's own, made after the witness was checked."""
        honest = prover._Run._inverses

        def wrong(*arguments: Any) -> Any:
            found = honest(*arguments)
            found["inverses_0"][0, 5] ^= 1
            return found

        monkeypatch.setattr(prover._Run, "_inverses", wrong)
        self.refused(small_case, "an identity of the cells does not hold")

    def test_an_identity_of_degree_two_that_does_not_hold(
        self, small_case: Case, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its quotient would fit into the pieces: it is looked at by itself."""
        honest = prover.witness

        def wrong(*arguments: Any) -> Any:
            found = honest(*arguments)
            found["last"][0, -1] = 2
            return found

        monkeypatch.setattr(prover, "witness", wrong)
        self.refused(small_case, "an identity of the cells does not hold")

    def test_sums_that_do_not_hold(self, small_case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
        honest = prover.witness

        def wrong(*arguments: Any) -> Any:
            found = honest(*arguments)
            found["range_counts"][0, 5] += 1
            return found

        monkeypatch.setattr(prover, "witness", wrong)
        self.refused(small_case, "a sum identity does not hold")

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

    @pytest.mark.parametrize("name", OTHER_TEXTS)
    def test_other_texts_than_were_committed_to(self, small_case: Case, name: str) -> None:
        self.refused(small_case, "not those that were committed", texts=OTHER_TEXTS[name](small_case.texts))

    def test_texts_of_another_length(self, small_case: Case) -> None:
        self.refused(small_case, "laid out for 7 tokens", texts=random_texts(11, 7))

    def test_more_rows_than_slots(self, small_case: Case) -> None:
        parts = [np.zeros((17, 8), dtype=np.int32), small_case.contributions[1]]
        self.refused(small_case, "more rows than its 16 slots", contributions=parts)

    def test_more_rows_than_the_capacity(self, small_case: Case) -> None:
        with pytest.raises(WitnessRefused, match="more rows than the capacity of 16"):
            data_root(small_case.words, small_case.statement.shape, random_texts(17, 6))


def test_the_commitments_depend_on_each_word_row_and_binding(small_case: Case) -> None:
    shape, words, texts = small_case.statement.shape, small_case.words, small_case.texts
    of_words, of_data = {words_root(words, shape)}, {data_root(words, shape, texts)}
    of_data |= {data_root(words, shape, change(texts)) for change in OTHER_TEXTS.values()}
    for seed, binding in ((b"\7" * 32, words.binding), (b"\1" * 32, type(words.binding)(1, b"\2" * 20, 1, 0))):
        other = SecretWords(seed, binding, shape.steps, shape.parameters, shape.capacity)
        of_words.add(words_root(other, shape))
        of_data.add(data_root(other, shape, texts))
    assert (len(of_words), len(of_data)) == (3, 3 + len(OTHER_TEXTS))


def test_every_place_of_a_text_lies_where_the_specification_says(small_case: Case) -> None:
    shape, texts, sizes = small_case.statement.shape, small_case.texts, parameters(small_case.statement.shape)
    laid = data_cells(texts, sizes)["texts"].reshape(-1)
    for slot in range(shape.capacity):
        expected = [0] * (shape.tokens + 2)
        if slot < len(texts):
            expected = [*texts.tokens[slot].tolist(), int(texts.labels[slot]), int(texts.lengths[slot])]
        assert laid[slot : (shape.tokens + 2) * shape.capacity : shape.capacity].tolist() == expected
    assert not laid[(shape.tokens + 2) * shape.capacity :].any()


def test_the_root_of_the_slots_can_be_read_from_a_proof(small_case: Case, small_proof: bytes) -> None:
    sizes = parameters(small_case.statement.shape)
    assert slots_root(small_proof, sizes) == small_proof[:32] == split_messages(small_proof, sizes).roots[0]
    with pytest.raises(ProofMalformed):
        slots_root(small_proof[:64], sizes)
