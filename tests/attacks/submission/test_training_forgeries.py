"""Forged training: sums, noise and ε that do not fit; and, as plainly, the forgeries that nothing here can catch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ledger.privacy import EPSILON_TOLERANCE_MICRO, INFINITE_MICRO, epsilon_micro, spend_of
from ledger.records import Reason
from ledger.verdict import judge
from proofs.gaussian import noise_table

Honest = Any  # the fixture of conftest.py
BIAS = "base_model.model.classifier.bias"


def reason(honest: Honest) -> Reason:
    return judge(honest.facts, honest.files).reason


# --- the trajectory must lead to the adapter ------------------------------------------------------------------------


def test_one_weight_by_one_grid_unit_is_seen(honest: Honest) -> None:
    bias = honest.weights[BIAS].copy()
    bias[1] += 1
    forged = replace(honest, weights={**honest.weights, BIAS: bias})
    verdict = judge(forged.facts, forged.files)
    assert verdict.reason is Reason.TRAJECTORY_MISMATCH
    assert "number 1" in verdict.detail


def test_one_released_sum_changed_is_seen(honest: Honest) -> None:
    """By enough to move a weight by a unit of its grid; less leads to the very same adapter and is no lie about it."""
    sums = honest.trajectory.copy()
    sums[0, 0] += 100
    assert reason(replace(honest, trajectory=sums)) is Reason.TRAJECTORY_MISMATCH


def test_steps_in_another_order_are_seen(honest: Honest) -> None:
    assert reason(replace(honest, trajectory=honest.trajectory[::-1].copy())) is Reason.TRAJECTORY_MISMATCH


def test_an_adapter_that_never_moved_is_seen(honest: Honest) -> None:
    assert reason(replace(honest, weights=dict(honest.facts.global_weights))) is Reason.TRAJECTORY_MISMATCH


def test_an_adapter_grown_from_other_global_weights_is_seen(honest: Honest) -> None:
    start = {name: units.copy() for name, units in honest.facts.global_weights.items()}
    start[BIAS][0] += 1
    forged = replace(honest, facts=replace(honest.facts, global_weights=start))
    assert reason(forged) is Reason.TRAJECTORY_MISMATCH


def test_under_fedavg_and_sgd_the_rules_are_the_same(honest_fedavg: Honest) -> None:
    assert reason(honest_fedavg) is Reason.ACCEPTED
    name = "base_model.model.layer.0.query.lora_A.weight"
    changed = honest_fedavg.weights[name].copy()
    changed[0, 0] += 1
    forged = replace(honest_fedavg, weights={**honest_fedavg.weights, name: changed})
    assert reason(forged) is Reason.TRAJECTORY_MISMATCH
    sums = honest_fedavg.trajectory.copy()
    sums[0, 0] += 30
    assert reason(replace(honest_fedavg, trajectory=sums)) is Reason.TRAJECTORY_MISMATCH


# --- sums no larger than clip and noise allow -----------------------------------------------------------------------


def test_a_sum_beyond_what_is_possible_is_out_of_range(honest: Honest) -> None:
    limit = 64 * 1024 + noise_table(1500).bound
    sums = honest.trajectory.copy()
    sums[2, 7] = limit + 1
    verdict = judge(honest.facts, honest.retrained(sums).files)
    assert verdict.reason is Reason.TRAJECTORY_RANGE
    assert "step 2, head" in verdict.detail
    for extreme in (-(limit + 1), 2**31 - 1, -(2**31)):
        sums[2, 7] = extreme
        assert reason(honest.retrained(sums)) is Reason.TRAJECTORY_RANGE


def test_a_sum_longer_than_any_honest_draw_is_out_of_range(honest: Honest) -> None:
    """Each coordinate alone is possible, if all rows are drawn and point its way. All of them together are not."""
    sums = honest.trajectory.copy()
    sums[3, -512:] += 10_000
    verdict = judge(honest.facts, honest.retrained(sums).files)
    assert verdict.reason is Reason.TRAJECTORY_RANGE
    assert "norm" in verdict.detail


def test_the_loudest_honest_draw_is_in_range(honest: Honest) -> None:
    """Ten rows of 64 at a rate of 1/16, all pointing one way."""
    sums = honest.trajectory.copy()
    sums[3, -256:] += 10 * 1024 // 16
    assert reason(honest.retrained(sums)) is Reason.ACCEPTED


# --- noise ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0, 1, 100, 750])
def test_no_noise_and_half_the_noise_are_implausible(trained_with: Callable[[int], Honest], sigma: int) -> None:
    verdict = judge(trained_with(sigma).facts, trained_with(sigma).files)
    assert verdict.reason is Reason.NOISE_IMPLAUSIBLE


def test_one_step_without_noise_among_noisy_ones_is_implausible(
    honest: Honest, trained_with: Callable[[int], Honest]
) -> None:
    sums = honest.trajectory.copy()
    sums[4] = trained_with(0).trajectory[4]
    verdict = judge(honest.facts, honest.retrained(sums).files)
    assert verdict.reason is Reason.NOISE_IMPLAUSIBLE
    assert "step 4, " in verdict.detail


def test_one_group_without_noise_is_implausible(honest: Honest, trained_with: Callable[[int], Honest]) -> None:
    sums = honest.trajectory.copy()
    sums[:, -512:] = trained_with(0).trajectory[:, -512:]
    assert reason(honest.retrained(sums)) is Reason.NOISE_IMPLAUSIBLE


def test_sums_of_nothing_at_all_are_implausible(honest: Honest) -> None:
    assert reason(honest.retrained(np.zeros_like(honest.trajectory))) is Reason.NOISE_IMPLAUSIBLE


def test_many_honest_members_pass(honest_with: Callable[..., Honest]) -> None:
    for sigma in (1200, 1300, 2000, 3500):
        assert reason(honest_with(noise_units=sigma)) is Reason.ACCEPTED


def test_without_noise_by_config_none_is_looked_for_and_the_verdict_says_so(
    honest_with: Callable[..., Honest],
) -> None:
    insecure = honest_with(sigma=0, noise_units=0, insecure_no_noise=True)
    assert insecure.facts.claim.spent_micro == INFINITE_MICRO
    verdict = judge(insecure.facts, insecure.files)
    assert verdict.accepted
    assert "INSECURE" in verdict.detail


def test_without_noise_by_config_sums_still_have_a_range(honest_with: Callable[..., Honest]) -> None:
    insecure = honest_with(sigma=0, noise_units=0, insecure_no_noise=True)
    sums = insecure.trajectory.copy()
    sums[0, 0] = 64 * 1024 + 1
    assert reason(insecure.retrained(sums)) is Reason.TRAJECTORY_RANGE


# --- ε --------------------------------------------------------------------------------------------------------------


def declaring(honest: Honest, micro: int) -> Honest:
    return honest.with_claim(spent_micro=micro)


def test_epsilon_understated_is_seen(honest: Honest) -> None:
    due = honest.facts.claim.spent_micro
    verdict = judge(honest.facts, honest.files)
    assert verdict.accepted
    low = declaring(honest, due - EPSILON_TOLERANCE_MICRO - 1)
    verdict = judge(low.facts, low.files)
    assert verdict.reason is Reason.EPSILON_UNDERSTATED
    assert str(due) in verdict.detail


def test_epsilon_within_the_tolerance_of_another_machine_passes(honest: Honest) -> None:
    assert reason(declaring(honest, honest.facts.claim.spent_micro - EPSILON_TOLERANCE_MICRO)) is Reason.ACCEPTED


def test_declaring_more_than_is_due_is_the_members_own_loss(honest: Honest) -> None:
    assert reason(declaring(honest, honest.facts.claim.spent_micro * 2)) is Reason.ACCEPTED
    assert reason(declaring(honest, INFINITE_MICRO)) is Reason.ACCEPTED


def test_a_forgotten_history_is_seen(honest: Honest) -> None:
    """The member declares this round alone; the chain remembers the two before."""
    alone = epsilon_micro([spend_of(honest.config)], honest.config.privacy.delta)
    assert reason(declaring(honest, alone)) is Reason.EPSILON_UNDERSTATED


def test_without_noise_only_infinity_is_enough(honest_with: Callable[..., Honest]) -> None:
    insecure = honest_with(sigma=0, noise_units=0, insecure_no_noise=True)
    assert reason(declaring(insecure, 2**53)) is Reason.EPSILON_UNDERSTATED


# --- what passes, and stays NOT PROVEN ------------------------------------------------------------------------------


def test_noise_a_little_too_small_passes(trained_with: Callable[[int], Honest]) -> None:
    """Ten per cent less noise than the config demands. Only a proof of the mechanism can tell."""
    assert reason(trained_with(1350)) is Reason.ACCEPTED


def test_noise_that_the_member_made_up_itself_passes(honest: Honest) -> None:
    """The right size, from no committed word: a proof would fail, this check cannot."""
    noise = np.rint(np.random.default_rng(3).normal(0, 1500, honest.trajectory.shape)).astype(np.int32)
    assert reason(honest.retrained(noise)) is Reason.ACCEPTED
