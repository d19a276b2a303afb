"""The accountant never says less than it should: beside Opacus' two, by closed forms, and through the table's flaw."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from opacus.accountants import PRVAccountant, RDPAccountant

from ledger.config import Config
from ledger.privacy import (
    EPSILON_TOLERANCE_MICRO,
    INFINITE_MICRO,
    NoNoiseSuffices,
    Spend,
    epsilon,
    epsilon_micro,
    solve_noise_units,
    spend_of,
    table_variation,
)
from proofs.gaussian import noise_table

DELTA = Fraction(1, 100_000)
SPEND = Spend(noise_units=1500, clip_units=1024, groups=2, sample_threshold=1 << 28, steps=30, coordinates=75_000)


def hockey_stick(eps: float, multiplier: float) -> float:
    """δ(ε) of one Gaussian without sampling (Balle and Wang 2018, theorem 8), for a sensitivity of one."""

    def phi(x: float) -> float:
        return math.erfc(-x / math.sqrt(2)) / 2

    half = 1 / (2 * multiplier)
    return phi(half - eps * multiplier) - math.exp(eps) * phi(-half - eps * multiplier)


@pytest.mark.parametrize("noise_units", [1100, 1500, 3500])
def test_without_sampling_it_is_the_closed_form_of_the_gaussian(noise_units: int) -> None:
    """T steps without sampling are one Gaussian of σ/√T."""
    spend = replace(SPEND, noise_units=noise_units, sample_threshold=1 << 32, steps=4, coordinates=1)
    found = epsilon([spend], DELTA)
    multiplier = spend.multiplier / 2
    assert hockey_stick(found, multiplier) <= float(DELTA)
    assert hockey_stick(found - 0.01, multiplier) > float(DELTA)


@pytest.mark.parametrize(
    ("noise_units", "threshold", "steps"),
    [(1500, 1 << 28, 30), (1200, 1 << 27, 200), (2500, 1 << 29, 90), (900, 1 << 26, 60)],
)
def test_opacus_agrees(noise_units: int, threshold: int, steps: int) -> None:
    """PRV estimates within its own error of 0.01; RDP bounds from above."""
    spend = replace(SPEND, noise_units=noise_units, sample_threshold=threshold, steps=steps)
    found = epsilon([spend], DELTA)
    prv, rdp = PRVAccountant(), RDPAccountant()
    for accountant in (prv, rdp):
        accountant.history = [(spend.multiplier, spend.sampling, steps)]
    assert prv.get_epsilon(delta=float(DELTA), eps_error=0.01) == pytest.approx(found, abs=0.015)
    assert found < rdp.get_epsilon(delta=float(DELTA)) < 1.4 * found


def masses(sigma: int, shift: int, rate: float, width: int) -> np.ndarray:
    """What one coordinate of a step really releases: counts of the table, moved by `shift` with probability `rate`."""
    table = noise_table(sigma)
    plain = np.array([table.count(z) for z in range(-width, width + 1)], dtype=np.float64) / 2.0**64
    moved = np.array([table.count(z - shift) for z in range(-width, width + 1)], dtype=np.float64) / 2.0**64
    return (1 - rate) * plain + rate * moved


@pytest.mark.parametrize(("sigma", "clip", "threshold"), [(30, 20, 1 << 28), (12, 12, 1 << 30), (40, 25, 1 << 32)])
def test_the_tables_themselves_keep_what_the_accountant_promises(sigma: int, clip: int, threshold: int) -> None:
    """Two steps of the real, discrete mechanism on one coordinate, every pair of outputs summed: with and without a row
    that always contributes all it may, in both directions, and with a δ that the ε found cannot better by much."""
    spend = Spend(sigma, clip, 1, threshold, steps=2, coordinates=1)
    found, width = epsilon([spend], DELTA), noise_table(sigma).bound + clip
    without, with_row = masses(sigma, clip, 0.0, width), masses(sigma, clip, spend.sampling, width)
    pairs = [np.multiply.outer(side, side) for side in (without, with_row)]
    promised = [np.maximum(p - math.exp(found) * q, 0).sum() for p, q in (pairs, pairs[::-1])]
    assert max(promised) <= float(DELTA)
    tighter = math.exp(found - 0.05)
    assert max(np.maximum(p - tighter * q, 0).sum() for p, q in (pairs, pairs[::-1])) > 0.5 * float(DELTA)


def test_rounds_of_different_kinds_compose_as_opacus_composes_them() -> None:
    history = [SPEND, replace(SPEND, noise_units=1200, sample_threshold=1 << 27), replace(SPEND, steps=7)]
    prv = PRVAccountant()
    prv.history = [(spend.multiplier, spend.sampling, spend.steps) for spend in history]
    expected = prv.get_epsilon(delta=float(DELTA), eps_error=0.01)
    assert epsilon(history, DELTA) == pytest.approx(expected, abs=0.015)


def test_the_order_of_rounds_changes_no_digit() -> None:
    history = [SPEND, replace(SPEND, noise_units=1200), replace(SPEND, sample_threshold=1 << 26)]
    assert epsilon(history, DELTA) == epsilon(history[::-1], DELTA)


def test_every_round_costs_something_and_nothing_costs_nothing() -> None:
    costs = [epsilon_micro([SPEND] * rounds, DELTA) for rounds in range(5)]
    assert costs[0] == 0
    assert costs == sorted(set(costs))


def test_one_round_of_sixty_steps_is_two_of_thirty() -> None:
    assert epsilon([SPEND, SPEND], DELTA) == pytest.approx(epsilon([replace(SPEND, steps=60)], DELTA), abs=1e-9)


def test_two_groups_have_the_sensitivity_of_root_two() -> None:
    one = replace(SPEND, groups=1, noise_units=1000)
    two = replace(SPEND, groups=2, noise_units=1414)
    assert epsilon([two], DELTA) == pytest.approx(epsilon([one], DELTA), rel=1e-3)
    assert epsilon([two], DELTA) > epsilon([one], DELTA)


def test_what_matters_moves_epsilon_the_right_way() -> None:
    base = epsilon([SPEND], DELTA)
    assert epsilon([replace(SPEND, noise_units=1600)], DELTA) < base
    assert epsilon([replace(SPEND, clip_units=1100)], DELTA) > base
    assert epsilon([replace(SPEND, sample_threshold=1 << 29)], DELTA) > base
    assert epsilon([SPEND], DELTA / 10) > base


def test_the_table_is_paid_for_in_delta() -> None:
    """With so many coordinates that the table's flaw costs more than half of δ, ε is that of what is left."""
    flaw = noise_table(1500).total_variation
    target = 3.5e-7
    wide = replace(SPEND, coordinates=round(target / (flaw * SPEND.steps)))
    variation = table_variation([wide])
    assert variation == pytest.approx(target, rel=1e-6)
    narrow = replace(SPEND, coordinates=1)
    found = epsilon([wide], DELTA)
    left = Fraction(float(DELTA) - (1 + math.exp(found)) * variation)
    assert 0 < left < DELTA / 2 < DELTA
    assert found == pytest.approx(epsilon([narrow], left), abs=1e-6)


def test_epsilon_has_a_ceiling_where_the_table_eats_delta() -> None:
    """(1 + e^ε)·τ ≤ δ bounds ε by about ln(δ/τ): what needs a larger ε is not vouched for."""
    assert math.isfinite(epsilon([replace(SPEND, noise_units=1000)], DELTA))
    loud = replace(SPEND, noise_units=700)
    assert epsilon([replace(loud, coordinates=1)], DELTA) > math.log(float(DELTA) / table_variation([loud]))
    assert math.isinf(epsilon([loud], DELTA))


def test_when_the_table_costs_all_of_delta_epsilon_is_infinite() -> None:
    wide = replace(SPEND, coordinates=1 << 26, steps=4096)
    assert math.isinf(epsilon([wide] * 30, Fraction(1, 10**9)))


def test_no_noise_is_infinite_whatever_else_happened() -> None:
    assert epsilon_micro([SPEND, replace(SPEND, noise_units=0)], DELTA) == INFINITE_MICRO


@pytest.mark.parametrize(
    "hopeless",
    [
        replace(SPEND, noise_units=1, clip_units=1 << 20),
        replace(SPEND, noise_units=600, sample_threshold=1 << 32, steps=4096),
        replace(SPEND, noise_units=300, sample_threshold=1 << 31, steps=4096),
        replace(SPEND, noise_units=600, sample_threshold=1 << 32, steps=1),  # finite, but far above any table
        replace(SPEND, noise_units=1500, sample_threshold=1 << 32, steps=8),
    ],
)
def test_a_hopeless_history_is_infinite_and_not_a_matter_of_memory(hopeless: Spend) -> None:
    assert epsilon_micro([hopeless] * 50, DELTA) == INFINITE_MICRO


def test_micro_is_rounded_up() -> None:
    assert 0 <= epsilon_micro([SPEND], DELTA) - epsilon([SPEND], DELTA) * 1e6 < 1


def test_a_configs_spend_counts_its_groups_and_trained_coordinates(config: Config) -> None:
    assert spend_of(config) == Spend(1500, 1024, 2, 1 << 28, 6, 34)
    head_only = replace(config, adapter=replace(config.adapter, tensors=config.adapter.tensors[:3]))
    assert (spend_of(head_only).groups, spend_of(head_only).coordinates) == (1, 18)


@pytest.mark.parametrize("target", [1.0, 3.0, 8.0])
def test_the_solved_noise_is_the_least_that_suffices(target: float) -> None:
    found = solve_noise_units(
        target, DELTA, clip_units=512, groups=2, sample_threshold=1 << 28, steps=30, coordinates=75_000, rounds=3
    )
    planned = replace(SPEND, noise_units=found, clip_units=512)
    allowed = target - EPSILON_TOLERANCE_MICRO / 1e6  # another machine may find a little more: the cap must still hold
    assert epsilon([planned] * 3, DELTA) <= allowed
    assert epsilon([replace(planned, noise_units=found - 1)] * 3, DELTA) > allowed


def test_noise_is_solved_on_top_of_what_was_spent() -> None:
    wanted = {"clip_units": 1024, "groups": 2, "sample_threshold": 1 << 28, "steps": 30, "coordinates": 75_000}
    fresh = solve_noise_units(4.0, DELTA, **wanted)
    later = solve_noise_units(4.0, DELTA, **wanted, history=[SPEND] * 2)
    assert later > fresh
    assert epsilon([SPEND, SPEND, replace(SPEND, noise_units=later)], DELTA) <= 4.0


def test_an_unreachable_target_is_said_to_be_so() -> None:
    with pytest.raises(NoNoiseSuffices):
        solve_noise_units(
            0.01, DELTA, clip_units=1 << 14, groups=2, sample_threshold=1 << 31, steps=100, coordinates=10
        )
