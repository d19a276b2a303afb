"""Every rule of aggregation on the twin, from the config to the audit: members train the roles of their round at their
own ranks, check the aggregate to the byte, and a stranger rebuilds it; one poisoned member does not carry a robust
average away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.submissions import SHAPES, small_adapter
from ledger.aggregate import read_aggregate
from ledger.aggregation import AggregationSpec, RobustSpec, aggregated, part_of
from ledger.audit import audit
from ledger.bundle import bundle_limits, read_submission
from ledger.config import AdapterSpec, Config, TensorSpec
from ledger.records import Phase, Policy, VoidReason
from ledger.report import Name, Status
from ledger.tensors import Weights
from node.aggregator import Coordinator
from node.recompute import Configs, Recount

MakeWorld = Callable[..., Any]
MEDIAN, KRUM = RobustSpec("median"), RobustSpec("multi-krum", 1, 2)
TRIMMED, CLIP = RobustSpec("trimmed-mean", 1), RobustSpec("norm-clip")
QUORUMS = {MEDIAN: 3, KRUM: 5, TRIMMED: 3, CLIP: 3}
RULES = [
    AggregationSpec("fedavg", weights=((1, 3),)),
    AggregationSpec("svd", weights=((0, 2),), ranks=((1, 2), (2, 1))),
    AggregationSpec("rolora", robust=MEDIAN),
]


def changes(spec: AggregationSpec) -> dict[str, Any]:
    """What becomes of the small config under a rule."""
    quorum = QUORUMS[spec.robust] if spec.robust else 2
    return {
        "aggregation": spec,
        "adapter": small_adapter(spec.rule),
        "policy": Policy(6, 8, 0, 8, 6, 6, quorum, False, 2),
    }


def members_of(spec: AggregationSpec) -> int:
    return QUORUMS[spec.robust] if spec.robust else 3


def final(world: Any, number: int) -> tuple[Config, Weights]:
    """The aggregate of a round, by itself."""
    state = world.history.rounds[number]
    store = world.aggregator().service.store
    largest = aggregated(world.config, state.accepted)
    return read_aggregate(store.get_directory(state.proposal.aggregate_bundle, bundle_limits(largest)))


def submitted(world: Any, number: int) -> dict[int, Weights]:
    state, store = world.history.rounds[number], world.aggregator().service.store
    recount = Recount(Configs(store), store, world.history, state)
    found = {}
    for member in state.accepted:
        config = recount.part_of(member)
        files = store.get_directory(state.submissions[member].bundle, bundle_limits(config))
        found[member] = read_submission(files, config, recount.claim(member)).weights
    return found


def rebuilt(world: Any) -> list[str]:
    """What the audit says of every round's aggregate; nothing else may fail."""
    report = audit(world.chain, world.aggregator().service.store)
    assert [link for of_round in report.rounds for link in of_round.links if link.status is Status.FAIL] == []
    return [report.find(Name.AGGREGATE, of_round.round).evidence for of_round in report.rounds]


@pytest.mark.parametrize("spec", RULES, ids=str)
def test_two_rounds_become_final_and_a_stranger_rebuilds_them(make_world: MakeWorld, spec: AggregationSpec) -> None:
    world = make_world(members_of(spec), rounds=2, **changes(spec))
    for number in (1, 2):
        state = world.until_ended(number)
        assert state.phase is Phase.FINAL
        assert state.accepted == tuple(range(members_of(spec)))
        assert not state.objections
    for member, weights in submitted(world, 2).items():
        part = part_of(world.config, member)
        assert {name: units.shape for name, units in weights.items()} == {t.name: t.shape for t in part.adapter.tensors}
    assert rebuilt(world) == [f"{spec.told} of members [0, 1, 2], rebuilt to the byte"] * 2


def test_rolora_trains_one_half_in_odd_rounds_and_the_other_in_even_ones(make_world: MakeWorld) -> None:
    world = make_world(rounds=2, **changes(AggregationSpec("rolora")))
    start = world.start_weights()
    world.until_ended(2)
    (_, first), (_, second) = final(world, 1), final(world, 2)
    moved = [
        [name for name in SHAPES if (after[name] != before[name]).any()]
        for before, after in ((start, first), (first, second))
    ]
    assert moved == [["classifier.weight", "layer.lora_B.weight"], ["classifier.weight", "layer.lora_A.weight"]]


def test_a_stack_is_what_the_last_round_leaves(make_world: MakeWorld) -> None:
    """Rounds under svd, the last one under stack: rank 4 + 2 + 4, and nobody objects."""
    spec = AggregationSpec("svd", ranks=((1, 2),))
    stacked = AggregationSpec("stack", ranks=((1, 2),))

    def with_last(world: Any) -> None:
        daemon = world.aggregator()
        last = replace(world.config, aggregation=stacked)
        daemon.coordinator = replace(daemon.coordinator, last=last)

    world = make_world(rounds=2, prepare=with_last, **changes(spec))
    world.until_ended(2)
    world.tick(5)
    assert world.latest == 2
    state = world.state
    assert state.phase is Phase.FINAL
    store = world.aggregator().service.store
    largest = aggregated(replace(world.config, aggregation=stacked), state.accepted)
    config, weights = read_aggregate(store.get_directory(state.proposal.aggregate_bundle, bundle_limits(largest)))
    assert (config.adapter.rank, config.adapter.alpha) == (10, 20)
    assert weights["layer.lora_A.weight"].shape == (10, 8)
    assert rebuilt(world)[1] == "stack of members [0, 1, 2], rebuilt to the byte"


@pytest.mark.parametrize("robust", QUORUMS, ids=lambda robust: robust.name)
def test_one_poisoned_member_does_not_carry_a_robust_average_away(make_world: MakeWorld, robust: RobustSpec) -> None:
    """Its sums pass every check, since they stay within what capacity, clip and noise allow: they push all one way."""
    spec = AggregationSpec("ffa", robust=robust)
    count = members_of(spec)
    world = make_world(count, prepare=lambda world: setattr(world.member(0).trainer, "shift", 150), **changes(spec))
    state = world.until_ended(1)
    assert state.accepted == tuple(range(count))
    (_, found), given, start = final(world, 1), submitted(world, 1), world.start_weights()
    name = "layer.lora_B.weight"
    poison, plain = given[0][name] - start[name], sum(weights[name] for weights in given.values()) / count - start[name]
    assert np.abs(poison).mean() > 1.5 * np.abs(given[1][name] - start[name]).mean()
    moved = found[name] - start[name]
    along = [float((update * np.sign(poison)).mean()) for update in (moved, plain)]
    assert along[0] < along[1]
    assert all(told.endswith("rebuilt to the byte") for told in rebuilt(world))
    if robust.name in ("median", "trimmed-mean"):
        rows = np.stack([weights[name] for member, weights in given.items() if member != 0])
        assert ((rows.min(axis=0) <= found[name]) & (found[name] <= rows.max(axis=0))).all()


def test_a_robust_rule_without_its_members_ends_in_a_void_round(make_world: MakeWorld) -> None:
    """One of three is left out, and a median of two is none: the contract voids the round, nothing is proposed."""
    spec = AggregationSpec("ffa", robust=MEDIAN)
    world = make_world(prepare=lambda world: setattr(world.member(2).trainer, "shift", 30_000), **changes(spec))
    state = world.until_ended(1)
    assert (state.phase, state.voided.reason) == (Phase.VOID, VoidReason.NOTHING_ACCEPTED)
    assert state.accepted == (0, 1)
    assert state.proposal is None


def test_members_refuse_a_round_of_the_other_half(make_world: MakeWorld) -> None:
    class Careless(Coordinator):
        def config_of_next(self, history: Any) -> Config:
            return self.config

    def stubborn(world: Any) -> None:
        made = world.aggregator().coordinator
        world.aggregator().coordinator = Careless(made.config, made.rounds, made.voids, made.genesis)

    world = make_world(rounds=2, voids=1, prepare=stubborn, **changes(AggregationSpec("rolora")))
    assert world.until_ended(1).phase is Phase.FINAL
    state = world.until_ended(2)
    assert state.voided.reason is VoidReason.COMMIT_QUORUM
    assert "under rolora every B is frozen in round 2" in world.member(0).service.watch.health()["refused"]


def test_members_refuse_a_round_whose_svd_would_take_too_long(make_world: MakeWorld) -> None:
    tensors = (
        TensorSpec("layer.lora_A.weight", (64, 64), "adapter"),
        TensorSpec("layer.lora_B.weight", (64, 64), "adapter"),
    )
    big = AdapterSpec(64, 64, ("q",), (), tensors)
    world = make_world(**changes(AggregationSpec("svd")) | {"adapter": big})
    state = world.until_ended(1)
    assert state.voided.reason is VoidReason.COMMIT_QUORUM
    assert "ranks of 192 together, svd takes 128" in world.member(1).service.watch.health()["refused"]
