"""The aggregate is an exact integer mean that every reader recomputes, and its roots are the contract's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.aggregate import aggregate_files, average, excluded_root, included_root, round_half_even
from ledger.aggregation import NoAggregate
from ledger.bundle import read_weights
from ledger.config import AggregationSpec, Config
from ledger.records import Reason
from ledger.tensors import Weights

MakeWeights = Callable[[Config, int], Weights]
START: Weights = {}  # where a round started matters to no plain mean


def some_weights(config: Config, seed: int) -> Weights:
    rng = np.random.default_rng(seed)
    return {t.name: rng.integers(-(1 << 24), (1 << 24) + 1, t.shape) for t in config.adapter.tensors}


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.integers(-(1 << 48), 1 << 48), st.integers(1, 1 << 24))
def test_rounding_is_pythons_own_of_the_exact_fraction(numerator: int, denominator: int) -> None:
    assert round_half_even(np.array([numerator]), denominator).tolist() == [round(Fraction(numerator, denominator))]


def test_ties_go_to_the_even_unit_on_both_sides_of_zero() -> None:
    assert round_half_even(np.array([-5, -3, -1, 1, 3, 5]), 2).tolist() == [-2, -2, 0, 0, 2, 2]


def test_the_mean_is_that_of_exact_fractions(config: Config) -> None:
    weighed = replace(config, aggregation=AggregationSpec("ffa", ((1, 65536), (2, 3))))
    given_weights = {member: some_weights(config, member) for member in (0, 1, 2)}
    found = average(weighed, START, given_weights)
    for name, mean in found.items():
        for index in np.ndindex(mean.shape):
            total = sum(w * int(given_weights[m][name][index]) for m, w in ((0, 1), (1, 65536), (2, 3)))
            assert mean[index] == round(Fraction(total, 65540))


def test_the_order_in_which_members_arrive_changes_nothing(config: Config) -> None:
    given_weights = {member: some_weights(config, member) for member in (2, 0, 1)}
    one, two = average(config, START, given_weights), average(config, START, dict(sorted(given_weights.items())))
    assert all((one[name] == two[name]).all() for name in one)


def test_one_member_alone_is_its_own_mean_and_equal_ones_stay_equal(config: Config) -> None:
    alone = some_weights(config, 1)
    for submissions in ({3: alone}, {0: alone, 1: alone, 2: alone}):
        assert all((average(config, alone, submissions)[name] == alone[name]).all() for name in alone)


def test_256_members_at_the_edge_of_the_grid_do_not_overflow(config: Config) -> None:
    full = {t.name: np.full(t.shape, 1 << 24) for t in config.adapter.tensors}
    heavy = replace(config, aggregation=AggregationSpec("ffa", tuple((m, 65536) for m in range(256))))
    assert all((mean == 1 << 24).all() for mean in average(heavy, full, dict.fromkeys(range(256), full)).values())


def test_nothing_has_no_mean(config: Config) -> None:
    with pytest.raises(NoAggregate):
        average(config, {}, {})


def files_of(config: Config, submissions: dict[int, tuple[bytes, Weights]], start: Weights = START) -> dict[str, bytes]:
    return aggregate_files(
        config, chain_id=1, contract=bytes(20), round=7, global_bundle=bytes(32), start=START, submissions=submissions
    )


def test_the_bundle_is_the_same_bytes_for_everyone_and_reads_back(config: Config) -> None:
    submissions = {member: (bytes([member]) * 32, some_weights(config, member)) for member in (0, 1, 2)}
    files = files_of(config, submissions)
    assert files == files_of(config, dict(reversed(submissions.items())))
    mean = average(config, START, {member: weights for member, (_, weights) in submissions.items()})
    found = read_weights(files, config)
    assert all((found[name] == mean[name]).all() for name in mean)


def test_one_weight_by_one_unit_is_another_bundle(config: Config) -> None:
    submissions = {member: (bytes([member]) * 32, some_weights(config, member)) for member in (0, 1)}
    honest = files_of(config, submissions)
    shifted = {name: units.copy() for name, units in submissions[0][1].items()}
    shifted["base_model.model.classifier.bias"][0] -= 2
    assert files_of(config, submissions | {0: (bytes(32), shifted)}) != honest


def test_roots_are_the_contracts() -> None:
    """RFC 6962 over 33 and 2 packed bytes a seat, written out by hand."""
    one, two = bytes([1]) * 32, bytes([2]) * 32
    leaves = [sha256(b"\0\0" + one).digest(), sha256(b"\0\2" + two).digest()]
    assert included_root([(0, one), (2, two)]) == sha256(b"\1" + leaves[0] + leaves[1]).digest()
    assert excluded_root([(1, Reason.NOISE_IMPLAUSIBLE)]) == sha256(b"\0\1\x1a").digest()
    assert included_root([]) == excluded_root([]) == sha256(b"").digest()
