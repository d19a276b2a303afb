"""Forged proofs of the mechanism: each lies in one place, fits the rest to it, and meets that rule's error.

The forger is in conftest.py: an honest prover without its refusals. Where a lie can be put in several places, each is
tried: a value that is in no table fails by its count (SumsFailed) or, with the inverse of another, in its cell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from proofs.field import P
from proofs.gaussian import noise_table
from proofs.parameters import RANGE
from proofs.proof import (
    CellsFailed,
    OpeningInvalid,
    ProofInvalid,
    SumsFailed,
)
from proofs.relation import bins
from proofs.verifier import verify

Forger = Any  # the fixture of conftest.py
Cells = dict[str, np.ndarray]
NOISE, DRAW = 3, 5  # the coordinate and the row that are lied about, both in step 0


def refused(forger: Forger, error: type[ProofInvalid], **lies: Any) -> None:
    statement, proof = forger.prove(**lies)
    with pytest.raises(ProofInvalid) as caught:
        verify(statement, proof)
    assert type(caught.value) is error, repr(caught.value)


def test_the_forger_that_does_not_lie_is_believed(forger: Forger) -> None:
    statement, proof = forger.prove()
    assert statement.digest() == forger.case.statement.digest()
    assert np.array_equal(statement.released, forger.case.statement.released)
    verify(statement, proof)


def test_cells_that_count_nowhere_may_hold_anything(forger: Forger) -> None:
    """Lanes beyond the blocks belong to no slot, so that contributions there are not released and need no bound."""

    def beyond(cells: Cells) -> None:
        cells["contributions_0"][0, forger.sizes.blocks * forger.shape.contributions :] = 12345
        forger.norms(cells)

    verify(*forger.prove(later=beyond))


class TestContributions:
    """M2: ‖c‖² ≤ C² in every group, over the integers, and 0 in a slot that is not in use."""

    def place(self, forger: Forger, slot: int, values: list[int], group: int = 0) -> Callable[[Cells], None]:
        """A lie: the first coordinates of a group of one slot, and the norms that follow."""

        def lie(cells: Cells) -> None:
            at = np.arange(forger.sizes.blocks) * forger.shape.contributions + slot
            cells[f"contributions_{group}"][0, at] = np.mod(values + [0] * (len(at) - len(values)), P)
            forger.norms(cells)

        return lie

    def test_a_contribution_exactly_at_the_clip_is_believed(self, forger: Forger) -> None:
        verify(*forger.prove(later=self.place(forger, 0, [64])))

    @pytest.mark.parametrize("values", [[65], [64, 1], [-64, 0, 1], [46, 44, 9]])
    def test_one_unit_above_the_clip_leaves_a_negative_rest_that_is_in_no_table(
        self, forger: Forger, values: list[int]
    ) -> None:
        assert sum(value**2 for value in values) > 64**2
        refused(forger, SumsFailed, later=self.place(forger, 0, values))

    def test_above_the_clip_with_limbs_of_nothing_left(self, forger: Forger) -> None:
        def lie(cells: Cells) -> None:
            self.place(forger, 0, [64, 1])(cells)
            cells["norm_low"][0, 0] = cells["norm_high"][0, 0] = 0

        refused(forger, SumsFailed, later=lie)

    def test_above_the_clip_with_a_square_that_is_not_one(self, forger: Forger) -> None:
        def lie(cells: Cells) -> None:
            self.place(forger, 0, [64, 1])(cells)
            cells["squares"][0, forger.shape.contributions] = 0
            cells["norm_low"][0, 0] = cells["norm_high"][0, 0] = 0

        refused(forger, CellsFailed, later=lie)

    def test_above_the_clip_in_the_last_group_alone(self, forger: Forger) -> None:
        refused(forger, SumsFailed, later=self.place(forger, 17, [0, 64, 1], group=1))

    def test_a_norm_that_wraps_is_seen_by_its_projections(self, forger: Forger) -> None:
        """Squares that add up to p leave C² modulo p; two slots cancel out, so that the sums stay small."""

        def lie(cells: Cells) -> None:
            self.place(forger, 0, two_squares(P))(cells)
            self.place(forger, 1, [-value for value in two_squares(P)])(cells)
            assert cells["norm_low"][0, 0] + 256 * cells["norm_high"][0, 0] == 64**2

        refused(forger, SumsFailed, later=lie)

    def test_a_norm_that_wraps_through_places_beyond_the_groups_coordinates(self, forger: Forger) -> None:
        """A filled-up place is in no sum, and still counts in norm and projections."""

        def lie(cells: Cells) -> None:
            self.place(forger, 0, [0] * 5 + two_squares(P))(cells)

        assert forger.shape.groups[0] == 5
        refused(forger, SumsFailed, later=lie)

    def test_a_hidden_large_contribution_whose_norm_is_made_up_for_in_a_filled_up_place(self, forger: Forger) -> None:
        """70² + x² + y² = p + 64²: the sum shows 70 units, the norm modulo p is within the clip."""

        def lie(cells: Cells) -> None:
            self.place(forger, 0, [70, 0, 0, 0, 0, *three_squares(P + 64**2 - 70**2)])(cells)
            assert cells["norm_low"][0, 0] + cells["norm_high"][0, 0] == 0

        refused(forger, SumsFailed, later=lie)

    def test_a_norm_that_wraps_with_projections_said_to_be_small(self, forger: Forger) -> None:
        def small(cells: Cells) -> None:
            at = np.arange(forger.sizes.blocks) * forger.shape.contributions
            cells["projections"][:, at] = 0

        later = self.place(forger, 0, [0] * 5 + two_squares(P))
        refused(forger, SumsFailed, later=later, projected=small)

    def test_limbs_out_of_range_that_add_up(self, forger: Forger) -> None:
        def lie(cells: Cells) -> None:
            cells["norm_high"][0, 0] = (cells["norm_high"][0, 0] + RANGE) % P
            cells["norm_low"][0, 0] = (int(cells["norm_low"][0, 0]) - 256 * RANGE) % P

        refused(forger, SumsFailed, later=lie)

    def test_a_unit_in_a_slot_that_is_not_in_use(self, forger: Forger) -> None:
        def lie(cells: Cells) -> None:
            assert not cells["active"][0, 15]
            self.place(forger, 15, [1])(cells)

        refused(forger, SumsFailed, later=lie)

    def test_projections_of_other_contributions(self, forger: Forger) -> None:
        """Those of the slot beside it, which are as short."""

        def lie(cells: Cells) -> None:
            cells["projections"][:, 0] = cells["projections"][:, 1]

        refused(forger, SumsFailed, projected=lie)

    def test_a_projection_out_of_reach(self, forger: Forger) -> None:
        def lie(cells: Cells) -> None:
            cells["projections"][0, 0] = forger.sizes.reach + 1

        refused(forger, SumsFailed, projected=lie)


class TestSlots:
    """M4: as many slots are in use as rows were drawn, and they are the first of their step."""

    def test_one_more_slot_in_use_than_rows_were_drawn(self, forger: Forger) -> None:
        def lie(cells: Cells) -> None:
            self.use(cells, forger, used(forger) + 1)

        refused(forger, SumsFailed, later=lie)

    def test_one_slot_fewer_in_use_than_rows_were_drawn(self, forger: Forger) -> None:
        def lie(cells: Cells) -> None:
            last = used(forger) - 1
            for group in range(2):
                cells[f"contributions_{group}"][:, last : 60 * 32 : 32] = 0
            self.use(cells, forger, last)

        refused(forger, SumsFailed, later=lie)

    def test_a_slot_lent_to_the_next_step(self, forger: Forger) -> None:
        """As many over all steps, but not in each."""

        def lie(cells: Cells) -> None:
            self.use(cells, forger, used(forger) + 1)
            later = used(forger, 1) - 1
            for group in range(2):
                cells[f"contributions_{group}"][:, 16 + later : 60 * 32 : 32] = 0
            self.use(cells, forger, later, step=1)

        refused(forger, SumsFailed, later=lie)

    @pytest.mark.parametrize(("last", "error"), [(0, SumsFailed), (P - 1, CellsFailed)])
    def test_slots_in_use_that_are_not_the_first(self, forger: Forger, last: int, error: type[ProofInvalid]) -> None:
        """The first slot moves behind the last; a step up then needs a `last` of −1, which is no bit."""

        def lie(cells: Cells) -> None:
            count = used(forger)
            for group in range(2):
                held = cells[f"contributions_{group}"]
                held[:, count : 60 * 32 : 32], held[:, 0 : 60 * 32 : 32] = held[:, 0 : 60 * 32 : 32], 0
            self.use(cells, forger, count + 1)
            cells["active"][0, 0], cells["last"][0, 0] = 0, 0
            cells["last"][0, 0] = last
            forger.norms(cells)

        refused(forger, error, later=lie)

    def use(self, cells: Cells, forger: Forger, count: int, step: int = 0) -> None:
        places = slice(16 * step, 16 * step + 16)
        cells["active"][0, places] = np.arange(16) < count
        cells["last"][0, places] = np.arange(16) == count - 1
        forger.norms(cells)


class TestNoise:
    """M3: the noise is the table's value at the sum of committed and public words."""

    @pytest.mark.parametrize("change", [1, -1, 50])
    def test_noise_beside_that_of_its_bin(self, forger: Forger, change: int) -> None:
        def lie(cells: Cells) -> None:
            cells["noise"][0, NOISE] = (int(cells["noise"][0, NOISE]) + change) % P

        refused(forger, SumsFailed, later=lie)

    def test_no_noise(self, forger: Forger) -> None:
        def lie(cells: Cells) -> None:
            cells["noise"][:] = 0

        refused(forger, SumsFailed, later=lie)

    def test_noise_of_half_the_sigma_with_the_bins_of_that_table(self, forger: Forger) -> None:
        refused(forger, SumsFailed, later=lambda cells: read_noise(forger, cells, words_of(forger, cells), sigma=50))

    def test_noise_from_the_neighbouring_bin(self, forger: Forger) -> None:
        """A true bin, but not the one that the words lie in."""

        def lie(cells: Cells) -> None:
            words = words_of(forger, cells)
            read_noise(forger, cells, words, beside=1)

        refused(forger, SumsFailed, later=lie)

    def test_noise_from_another_bin_with_borrows_that_are_not_bits(self, forger: Forger) -> None:
        """Borrows of any size lead from any word to any bin; that they are 0 or 1 is what forbids it."""

        def lie(cells: Cells) -> None:
            words, table = words_of(forger, cells)[NOISE].tolist(), bins(noise_table(100)).tolist()
            entry = table[len(table) // 2]
            assert entry[0] == 0
            cells["noise"][0, NOISE] = 0
            for word in range(4):
                cells["bin_low"][word, NOISE], cells["bin_high"][word, NOISE] = entry[1 + word], entry[5 + word]
            for name, upper, lower in (("low_borrow", words, entry[1:5]), ("high_borrow", entry[5:9], words)):
                rest = sum((high - low) << 16 * word for word, (high, low) in enumerate(zip(upper, lower, strict=True)))
                wanted, borrow = [rest % P % RANGE, rest % P // RANGE, 0, 0], 0
                for word in range(3):
                    borrow = (wanted[word] - upper[word] + lower[word] + borrow) * pow(RANGE, -1, P) % P
                    cells[name][word, NOISE] = borrow
                assert (upper[3] - lower[3] - borrow) % P == 0

        refused(forger, CellsFailed, later=lie)

    def test_noise_of_words_that_the_forger_wished_for_by_a_carry_that_is_no_bit(self, forger: Forger) -> None:
        def lie(cells: Cells) -> None:
            words = words_of(forger, cells)
            wished = np.array([0, 0, 0, RANGE // 2], dtype=np.uint16)
            for word in range(4):
                total = int(cells["secret_noise"][word, NOISE]) + int(forger.public.noise_words[NOISE, word])
                cells["noise_carry"][word, NOISE] = (total - int(wished[word])) * pow(RANGE, -1, P) % P
            words[NOISE] = wished
            read_noise(forger, cells, words)
            assert cells["noise"][0, NOISE] == 0

        refused(forger, CellsFailed, later=lie)

    def test_a_carry_bit_that_is_flipped(self, forger: Forger) -> None:
        """u is then out of range by 2^16."""

        def lie(cells: Cells) -> None:
            cells["noise_carry"][2, NOISE] ^= 1

        refused(forger, SumsFailed, later=lie)

    @pytest.mark.parametrize("change", [RANGE, -RANGE])
    def test_a_secret_word_out_of_range_in_the_committed_tree(self, forger: Forger, change: int) -> None:
        """Committed to before the beacon, and led back into the range by the carry where that can be."""

        def early(cells: Cells) -> None:
            cells["secret_noise"][1, NOISE] = (int(cells["secret_noise"][1, NOISE]) + change) % P

        def later(cells: Cells) -> None:
            cells["noise_carry"][1, NOISE] = (int(cells["noise_carry"][1, NOISE]) + change // RANGE) % P

        carry = CellsFailed if self.carry(forger, change // RANGE) not in (0, 1) else SumsFailed
        refused(forger, carry, early=early, later=later)

    def carry(self, forger: Forger, change: int) -> int:
        words = forger.case.words.noise(0)[NOISE, 1]
        return int(int(words) + int(forger.public.noise_words[NOISE, 1]) >= RANGE) + change

    def test_a_negative_secret_word_that_gives_the_noise_that_was_wished_for(self, forger: Forger) -> None:
        """Whoever knew the beacon would commit to s = u − b; where that is negative it is in no range."""
        wished = np.array([0, 0, 0, RANGE // 2], dtype=np.uint16)

        def early(cells: Cells) -> None:
            for word in range(4):
                public = int(forger.public.noise_words[NOISE, word])
                cells["secret_noise"][word, NOISE] = (int(wished[word]) - public) % P

        def later(cells: Cells) -> None:
            words = words_of(forger, cells)
            cells["noise_carry"][:, NOISE] = 0
            words[NOISE] = wished
            read_noise(forger, cells, words)

        refused(forger, SumsFailed, early=early, later=later)

    @pytest.mark.parametrize("name", ["secret_noise", "secret_draws", "filled", "texts"])
    def test_what_was_committed_to_is_changed_after_the_beacon(self, forger: Forger, name: str) -> None:
        def early(cells: Cells) -> None:
            cells[name][0, NOISE] ^= 1

        root = "words_root" if name.startswith("secret") else "data_root"
        refused(forger, OpeningInvalid, early=early, **{root: getattr(forger.case.statement, root)})


def used(forger: Forger, step: int = 0) -> int:
    return len(forger.case.contributions[step])


def words_of(forger: Forger, cells: Cells) -> np.ndarray:
    """(lanes, 4) uint16: u of every cell, as the cells have s."""
    return (cells["secret_noise"].T + forger.public.noise_words).astype(np.uint16)


def read_noise(forger: Forger, cells: Cells, words: np.ndarray, sigma: int = 100, beside: int = 0) -> None:
    """Noise, bins and borrows for words (lanes, 4); `beside`: of the bin so many further for one coordinate."""
    table = noise_table(sigma)
    chosen = table.lookup(words).astype(np.int64) + table.bound
    chosen[NOISE] += beside
    entries = bins(table)[chosen].astype(np.int64)
    low, high, used_words = entries[:, 1:5], entries[:, 5:9], words.astype(np.int64)
    cells["noise"][0], cells["bin_low"][:], cells["bin_high"][:] = entries[:, 0], low.T, high.T
    for name, difference in (("low_borrow", used_words - low), ("high_borrow", high - used_words)):
        borrow = np.zeros(len(words), dtype=np.int64)
        for word in range(3):
            borrow = (difference[:, word] - borrow < 0).astype(np.int64)
            cells[name][word] = borrow


def two_squares(total: int) -> list[int]:
    """a, b with a² + b² = total."""
    for a in range(int(total**0.5), 0, -1):
        b = int((total - a * a) ** 0.5 + 0.5)
        if a * a + b * b == total:
            return [a, b]
    raise AssertionError


def three_squares(total: int) -> list[int]:
    """a, b, c with a² + b² + c² = total."""
    for c in range(1000):
        a = int(total**0.5)
        while a > total**0.5 - 40:
            b = int((total - c * c - a * a) ** 0.5 + 0.5) if total - c * c >= a * a else 0
            if a * a + b * b + c * c == total:
                return [a, b, c]
            a -= 1
    raise AssertionError
