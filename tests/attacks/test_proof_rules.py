"""Each rule of the mechanism is needed: with its factors left out, and all else as it is, one lie is believed.

A forgery that is refused might be refused for something else that it broke on the way. Here the verifier leaves one
rule out, for the forger too, and the forger's proof passes; with the rule in its place it meets that rule's error.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from proofs import relation, verifier
from proofs.field import P
from proofs.proof import CellsFailed, ProofInvalid, SumsFailed
from proofs.verifier import verify
from proofs.words import combine, public_draws

Forger = Any  # the fixture of conftest.py
Cells = dict[str, np.ndarray]
Lies = dict[str, Any]
HELD, SLOTS = 60 * 32, 16  # lanes in blocks, slots of a step, of the small case


def unit_above_the_clip(forger: Forger) -> Lies:
    def lie(cells: Cells) -> None:
        cells["contributions_0"][0, 0:HELD:32] = [64, 1] + [0] * 58
        forger.norms(cells)
        cells["norm_low"][0, 0] = cells["norm_high"][0, 0] = 0

    return {"later": lie}


def square_that_is_none(forger: Forger) -> Lies:
    def lie(cells: Cells) -> None:
        unit_above_the_clip(forger)["later"](cells)
        cells["squares"][0, 32] = 0

    return {"later": lie}


def norm_that_wraps(forger: Forger) -> Lies:
    """Small projections are claimed of contributions whose squares add up to p."""

    def lie(cells: Cells) -> None:
        a = next(a for a in range(46_000, 0, -1) if round((P - a * a) ** 0.5) ** 2 == P - a * a)
        cells["contributions_0"][0, 0:HELD:32] = [0] * 5 + [a, round((P - a * a) ** 0.5)] + [0] * 53
        forger.norms(cells)

    def small(cells: Cells) -> None:
        cells["projections"][:, 0:HELD:32] = 0

    return {"later": lie, "projected": small}


def one_slot_more(forger: Forger) -> Lies:
    def lie(cells: Cells) -> None:
        count = int(cells["active"][0, :SLOTS].sum())
        cells["active"][0, count], cells["last"][0, [count - 1, count]] = 1, [0, 1]
        forger.norms(cells)

    return {"later": lie}


def gap_between_slots(forger: Forger) -> Lies:
    def lie(cells: Cells) -> None:
        count = int(cells["active"][0, :SLOTS].sum())
        cells["active"][0, [count, count + 1]], cells["active"][0, count - 1] = [0, 1], 0
        for group in range(2):
            cells[f"contributions_{group}"][0, count - 1 : HELD : 32] = 0
        forger.norms(cells)

    return {"later": lie}


def data_of_one_step(forger: Forger) -> Lies:
    """A row that is not drawn in step 1 anyway is not there in it either."""

    def lie(cells: Cells) -> None:
        skipped = np.flatnonzero(not_drawn(forger))[0]
        cells["filled"][0, 16 + skipped] = 0

    return {"early": lie}


def not_drawn(forger: Forger) -> np.ndarray:
    """Rows that are there and that step 1 does not draw."""
    case = forger.case
    public = public_draws(case.statement.beacon, case.statement.binding, 1, 16)
    words = combine(case.words.draws(1), public).astype(np.int64)
    return (words[:, 0] + (words[:, 1] << 16) >= case.statement.shape.sample_threshold) & (np.arange(16) < case.rows)


def noise_beside_its_bin(forger: Forger) -> Lies:
    def lie(cells: Cells) -> None:
        cells["noise"][0, 3] = (int(cells["noise"][0, 3]) + 1) % P

    return {"later": lie}


def carry_flipped(forger: Forger) -> Lies:
    def lie(cells: Cells) -> None:
        cells["noise_carry"][0, 3] ^= 1

    return {"later": lie}


def bit_of_two(forger: Forger) -> Lies:
    def lie(cells: Cells) -> None:
        cells["last"][0, -1] = 2

    return {"later": lie}


def used_against_its_draw(forger: Forger) -> Lies:
    """A row that was not drawn is used, and a slot more with it."""

    def lie(cells: Cells) -> None:
        cells["used"][0, np.flatnonzero(cells["drawn"][0, :11] == 0)[0]] = 1
        one_slot_more(forger)["later"](cells)

    return {"later": lie}


def inverses_of_others(forger: Forger) -> Lies:
    """Those of two lanes in each other's place: they add up as before."""

    def lie(cells: Cells) -> None:
        cells["inverses_0"][0, [8, 9]] = cells["inverses_0"][0, [9, 8]]

    return {"inverted": lie}


def inverses_of_other_bins(forger: Forger) -> Lies:
    def lie(cells: Cells) -> None:
        cells["inverses_0"][-1, [8, 9]] = cells["inverses_0"][-1, [9, 8]]

    return {"inverted": lie}


def projection_out_of_reach(forger: Forger) -> Lies:
    """In a place that is no projection of anything, but is looked up like all."""

    def lie(cells: Cells) -> None:
        cells["projections"][-1, -1] = forger.sizes.reach + 1

    return {"projected": lie}


def sum_off_by_one(forger: Forger) -> Lies:
    released = forger.case.statement.released.copy()
    released[0, 0] += 1
    return {"released": released}


RULES: dict[str, tuple[Any, type[ProofInvalid], Any]] = {
    "bits": (bit_of_two, CellsFailed, "bits"),
    "used": (used_against_its_draw, CellsFailed, "used"),
    "squares": (square_that_is_none, CellsFailed, "squares"),
    "values together": (inverses_of_others, CellsFailed, "together"),
    "bins": (inverses_of_other_bins, CellsFailed, "bins"),
    "norms": (unit_above_the_clip, SumsFailed, "norms"),
    "projections": (norm_that_wraps, SumsFailed, "projections"),
    "counts": (one_slot_more, SumsFailed, "counts"),
    "order": (gap_between_slots, SumsFailed, "order"),
    "rows": (data_of_one_step, SumsFailed, "rows"),
    "coordinates": (sum_off_by_one, SumsFailed, "coordinates"),
    "range table": (carry_flipped, SumsFailed, ("tables", 0)),
    "projection table": (projection_out_of_reach, SumsFailed, ("tables", 1)),
    "noise table": (noise_beside_its_bin, SumsFailed, ("tables", 2)),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_lie_passes_where_its_rule_is_left_out_and_nowhere_else(
    forger: Forger, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lies, error, left_out = RULES[rule]
    statement, proof = forger.prove(**lies(forger))
    with pytest.raises(ProofInvalid) as caught:
        verify(statement, proof)
    assert type(caught.value) is error
    leave_out(monkeypatch, left_out)
    verifier.verify(*forger.prove(**lies(forger)))  # the first alone: the second leaves nothing out


def leave_out(monkeypatch: pytest.MonkeyPatch, left_out: Any) -> None:
    """Factors of a rule become zero: a field of the challenges, or one row of it."""
    field, row = left_out if isinstance(left_out, tuple) else (left_out, slice(None))

    def without(drawn: Any) -> Any:
        if not hasattr(drawn, field):
            return drawn
        values = getattr(drawn, field)
        if isinstance(values, tuple):
            return replace(drawn, **{field: tuple(np.zeros_like(part) for part in values)})
        zeroed = values.copy()
        zeroed[row] = 0
        return replace(drawn, **{field: zeroed})

    for name in ("challenges_of_cells", "challenges_of_sums"):
        honest = getattr(relation, name)
        monkeypatch.setattr(relation, name, lambda *arguments, honest=honest: without(honest(*arguments)))
