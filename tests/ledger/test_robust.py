"""Averages that one liar cannot move far: equal to numpy's, decided in every tie, blind to the order of arrival."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.aggregate import aggregate_files, average, read_aggregate
from ledger.aggregation import AggregationSpec, NoAggregate, RobustSpec, part_of, role_of
from ledger.config import Config
from ledger.robust import median, multi_krum, shortened, trimmed_mean
from ledger.tensors import Weights

RULES = [
    RobustSpec("median"),
    RobustSpec("trimmed-mean", 1),
    RobustSpec("multi-krum", 1, 2),
    RobustSpec("norm-clip"),
]
columns = st.lists(st.lists(st.integers(-(1 << 24), 1 << 24), min_size=3, max_size=3), min_size=3, max_size=7).map(
    lambda rows: np.array(rows, dtype=np.int64)
)


def robust_config(config: Config, robust: RobustSpec) -> Config:
    policy = replace(config.policy, quorum=robust.least)
    return replace(config, aggregation=AggregationSpec("ffa", robust=robust), policy=policy)


def some_weights(config: Config, member: int, spread: int = 40) -> Weights:
    """Near each other, as honest members are; the frozen tensor is everybody's."""
    common, own = np.random.default_rng(99), np.random.default_rng(member)
    weights = {t.name: common.integers(-5000, 5000, t.shape) for t in config.adapter.tensors}
    return {
        t.name: weights[t.name] + (0 if t.role == "frozen" else own.integers(-spread, spread, t.shape))
        for t in config.adapter.tensors
    }


def files_of(config: Config, submissions: dict[int, tuple[bytes, Weights]], start: Weights) -> dict[str, bytes]:
    place: dict[str, Any] = {"chain_id": 1, "contract": bytes(20), "round": 7, "global_bundle": bytes(32)}
    return aggregate_files(config, **place, start=start, submissions=submissions)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(columns)
def test_the_median_is_numpys_rounded_half_to_even(rows: Any) -> None:
    assert (median(rows) == np.rint(np.median(rows, axis=0))).all()


@settings(derandomize=True, max_examples=100, deadline=None)
@given(columns)
def test_the_trimmed_mean_is_the_exact_mean_of_what_is_left(rows: Any) -> None:
    kept = np.sort(rows, axis=0)[1:-1]
    wanted = [round(Fraction(int(column.sum()), len(kept))) for column in kept.T]
    assert trimmed_mean(rows, 1).tolist() == wanted


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(-3, 3), min_size=2, max_size=2), min_size=5, max_size=7))
def test_multi_krum_keeps_the_least_sums_and_of_equal_ones_the_lesser_numbers(points: list[list[int]]) -> None:
    """Small integers, so that there are ties."""
    vectors = {number: [np.array(point)] for number, point in enumerate(points)}
    spec = RobustSpec("multi-krum", 1, 2)
    scores = {}
    for one in vectors:
        apart = sorted(int(((vectors[one][0] - vectors[other][0]) ** 2).sum()) for other in vectors if other != one)
        scores[one] = sum(apart[: len(points) - 3])
    wanted = sorted(sorted(scores, key=lambda member: (scores[member], member))[:2])
    assert list(multi_krum(vectors, spec)) == wanted
    assert list(multi_krum(dict(reversed(vectors.items())), spec)) == wanted


def test_distances_beyond_64_bits_are_exact() -> None:
    """2^15 coordinates, 2^25 units apart: squares add up to 2^65."""
    far, near = np.full(1 << 15, 1 << 24), np.full(1 << 15, -(1 << 24))
    vectors = {0: [near], 1: [near + 1], 2: [near + 2], 3: [near + 3], 4: [far]}
    assert multi_krum(vectors, RobustSpec("multi-krum", 1, 2)) == (1, 2)


def test_no_update_is_longer_than_the_median_of_them() -> None:
    updates = {0: [np.array([3, 4])], 1: [np.array([30, 40])], 2: [np.array([30000, 40000])], 3: [np.array([0, 0])]}
    found = shortened(updates)
    assert [found[m][0].tolist() for m in (0, 1, 3)] == [[3, 4], [3, 4], [0, 0]]
    assert found[2][0].tolist() == [3, 4]


@pytest.mark.parametrize("robust", RULES, ids=[rule.name for rule in RULES])
def test_one_liar_cannot_move_the_average_further_than_the_honest_are_apart(config: Config, robust: RobustSpec) -> None:
    """Five members, the last of which sends the edge of the grid. The plain mean is carried away by it."""
    asked = robust_config(config, robust)
    honest = {member: some_weights(config, member) for member in range(4)}
    start = some_weights(config, 77, spread=1)
    liar = {
        t.name: honest[0][t.name] if t.role == "frozen" else np.full(t.shape, 1 << 24) for t in config.adapter.tensors
    }
    found, plain = average(asked, start, honest | {4: liar}), average(config, start, honest | {4: liar})
    for tensor in config.adapter.trained:
        rows = np.stack([weights[tensor.name] for weights in honest.values()])
        most = 4 * int(sqrt(config.adapter.parameters)) * 40 if robust.name == "norm-clip" else 0
        assert (found[tensor.name] <= rows.max(axis=0) + most).all()
        assert (found[tensor.name] >= rows.min(axis=0) - most).all()
        assert (plain[tensor.name] > 3_000_000).all()


@pytest.mark.parametrize("robust", RULES, ids=[rule.name for rule in RULES])
def test_the_bytes_are_the_same_whatever_the_order_of_arrival(config: Config, robust: RobustSpec) -> None:
    asked = robust_config(config, robust)
    given_weights = {m: (bytes([m]) * 32, some_weights(config, m)) for m in range(5)}
    start = some_weights(config, 77)
    files = files_of(asked, given_weights, start)
    assert files == files_of(asked, {m: given_weights[m] for m in (3, 0, 4, 2, 1)}, start)
    found, weights = read_aggregate(files)
    assert found == asked
    assert all((weights[name] == units).all() for name, units in average_of(asked, start, given_weights).items())


def average_of(config: Config, start: Weights, given_weights: dict[int, tuple[bytes, Weights]]) -> Weights:
    return average(config, start, {member: weights for member, (_, weights) in given_weights.items()})


@pytest.mark.parametrize("robust", RULES, ids=[rule.name for rule in RULES])
def test_equal_members_are_their_own_average_and_too_few_have_none(config: Config, robust: RobustSpec) -> None:
    asked, alone = robust_config(config, robust), some_weights(config, 1)
    found = average(asked, alone, dict.fromkeys(range(5), alone))
    assert all((found[name] == alone[name]).all() for name in alone)
    with pytest.raises(NoAggregate):
        average(asked, alone, dict.fromkeys(range(robust.least - 1), alone))


# ---- the rules that keep products, as bundles


def test_a_stack_is_a_bundle_of_the_rank_of_its_members_that_reads_back(config: Config) -> None:
    tensors = tuple(replace(t, role=role_of(t.name, "stack")) for t in config.adapter.tensors)
    asked = replace(
        config,
        adapter=replace(config.adapter, tensors=tensors),
        aggregation=AggregationSpec("stack", weights=((2, 3),), ranks=((1, 1),)),
    )
    given_weights = {m: (bytes([m]) * 32, some_weights(part_of(asked, m), m)) for m in range(3)}
    files = files_of(asked, given_weights, {})
    found, weights = read_aggregate(files)
    assert (found.adapter.rank, found.adapter.alpha, found.digest) == (5, 10, asked.digest)
    assert {name.rsplit(".", 2)[-2]: units.shape for name, units in weights.items() if "lora" in name} == {
        "lora_A": (5, 8),
        "lora_B": (8, 5),
    }
