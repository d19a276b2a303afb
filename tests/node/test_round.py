"""Whole rounds, played by the real daemons without processes: honest ones, and with bad luck of every kind:
killed processes, a chain or peers that go away, reorgs, full disks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ledger.bundle import bundle_limits, read_weights
from ledger.content import Attempt, ContentMissing, StoreFull, StoreUnavailable
from ledger.crash import Point
from ledger.database import StorageFault
from ledger.locks import KeyInUse
from ledger.records import Phase, Policy, VoidReason
from node.conduct import HonestAggregator

MakeWorld = Callable[..., Any]


def replace_policy(**changes: Any) -> Policy:
    return replace(Policy(6, 8, 0, 8, 6, 6, 2, False, 2), **changes)


class OneUnitOff(HonestAggregator):
    def average(self, state: Any, weights: Any) -> Any:
        changed = {name: units.copy() for name, units in weights.items()}
        changed["classifier.weight"].flat[0] += 1
        return changed


def test_three_members_and_an_aggregator_finish_two_rounds(make_world: MakeWorld) -> None:
    world = make_world(rounds=2)
    first, second = world.until_ended(1), world.until_ended(2)
    assert (first.phase, second.phase) == (Phase.FINAL, Phase.FINAL)
    assert first.accepted == second.accepted == (0, 1, 2)
    assert second.opened.global_bundle == first.proposal.aggregate_bundle
    assert not second.objections


def test_the_coordinator_opens_no_more_rounds_than_it_was_asked_for(make_world: MakeWorld) -> None:
    world = make_world(rounds=1)
    world.until_ended(1)
    world.tick(10)
    assert world.latest == 1
    assert world.aggregator().service.watch.health()["finished"] is True


def test_every_member_recomputes_the_aggregate_and_then_has_it(make_world: MakeWorld) -> None:
    world = make_world()
    state = world.until_ended(1)
    for number in range(3):
        store = world.member(number).store
        files = store.get_directory(state.proposal.aggregate_bundle, bundle_limits(world.config))
        assert read_weights(files, world.config).keys() == {tensor.name for tensor in world.config.adapter.tensors}


def test_privacy_is_booked_before_anything_is_trained(make_world: MakeWorld) -> None:
    booked: list[int] = []

    def watch(world: Any) -> None:
        member = world.member(0)
        train = member.trainer.train
        member.trainer.train = lambda *a, **k: booked.append(len(member.parts.privacy.entries())) or train(*a, **k)

    make_world(prepare=watch).until_ended(1)
    assert booked == [1]


def test_what_is_declared_is_what_the_ledger_booked_and_rises_from_round_to_round(make_world: MakeWorld) -> None:
    world = make_world(rounds=2)
    states = [world.until_ended(1), world.until_ended(2)]
    entries = world.member(0).parts.privacy.entries()
    assert [state.submissions[0].spent_micro for state in states] == [entry.spent_micro for entry in entries]
    assert entries[0].spent_micro < entries[1].spent_micro


# ---- kill -9


NODE_POINTS = [
    Point.NODE_WORDS_SEED,
    Point.NODE_COMMIT_INTENT,
    Point.NODE_BUDGET,
    Point.NODE_BUNDLE,
    Point.NODE_SIGNED,
    Point.NODE_SUBMIT_INTENT,
    Point.NODE_VERDICTS,
]
OTHER_POINTS = [
    Point.AGGREGATOR_OPEN_INTENT,
    Point.AGGREGATOR_VERDICTS,
    Point.AGGREGATOR_VERDICTS_INTENT,
    Point.AGGREGATOR_AGGREGATE,
    Point.AGGREGATOR_PROPOSE_INTENT,
    Point.ADVANCE_INTENT,
    Point.FOLLOWER_APPLIED,
    Point.OUTBOX_SIGNED,
    Point.OUTBOX_BROADCAST,
    Point.OUTBOX_SETTLED,
]


@pytest.mark.parametrize("point", NODE_POINTS + OTHER_POINTS)
def test_kill_at_any_point_loses_nothing_and_sends_nothing_twice(
    point: Point, make_world: MakeWorld, pull_the_plug: Callable[[Point], None]
) -> None:
    world = make_world()
    pull_the_plug(point)
    state = world.until_ended(1)
    assert len(world.cuts) == 1, "the point was reached"
    assert state.phase is Phase.FINAL
    assert state.accepted == (0, 1, 2)
    assert not state.equivocations
    for number in range(3):
        member = world.member(number)
        assert set(member.trainer.roots) == {state.commitments[number].words_root}, "one seed for a round"
        assert len(member.parts.privacy.entries()) == 1, "booked once"


@pytest.mark.parametrize("point", [Point.OUTBOX_SIGNED, Point.OUTBOX_BROADCAST, Point.FOLLOWER_APPLIED])
def test_kill_of_a_member_at_its_outbox_and_follower(
    point: Point, make_world: MakeWorld, pull_the_plug: Callable[[Point], None]
) -> None:
    world = make_world()
    world.until_phase(Phase.COMMIT)
    world.daemons.reverse()  # the members come first, so that the point is reached by one of them
    pull_the_plug(point)
    state = world.until_ended(1)
    assert world.cuts
    assert world.cuts[0].startswith("member")
    assert state.accepted == (0, 1, 2)


def test_kill_while_objecting(make_world: MakeWorld, pull_the_plug: Callable[[Point], None]) -> None:
    world = make_world(prepare=lambda world: setattr(world.aggregator(), "conduct", OneUnitOff()))
    world.until_phase(Phase.PROPOSED)
    pull_the_plug(Point.NODE_OBJECT_INTENT)
    state = world.until_ended(1)
    assert len(world.cuts) == 1
    assert state.voided.reason is VoidReason.DISPUTED


def test_the_points_of_the_daemons_are_all_walked_here() -> None:
    """A point without a test is a defect."""
    elsewhere = {Point.NODE_OBJECT_INTENT, Point.NODE_DISSENT_INTENT, Point.NODE_VERIFIER_INTENT}  # test_verdicts.py
    in_prove = {Point.NODE_SHOWN, Point.NODE_PROVE_INTENT}  # test_showing.py
    others = ("LOG_", "SERVE_")  # tests/log and tests/serving walk these
    daemons = {point for point in Point if not point.name.startswith(others)}
    assert {*NODE_POINTS, *OTHER_POINTS, *elsewhere, *in_prove} == daemons


def test_a_second_daemon_on_one_key_does_not_start(make_world: MakeWorld) -> None:
    world = make_world()
    twin = replace(world.member(0), folder=world.folder / "copy", closers=[])
    twin.folder.mkdir()
    with pytest.raises(KeyInUse):
        twin.start()


# ---- the wire


def test_the_chain_goes_away_and_comes_back(make_world: MakeWorld) -> None:
    world = make_world(strict=False)
    world.until_phase(Phase.TRAIN)
    world.chain.available = False
    for daemon in world.daemons:
        daemon.turn()
        assert type(daemon.faults[-1]).__name__ == "ChainUnavailable"
    world.chain.available = True
    assert world.until_ended(1).accepted == (0, 1, 2)


def test_peers_go_away_and_come_back(make_world: MakeWorld) -> None:
    """Nothing is judged UNAVAILABLE as long as there is time to wait."""
    world = make_world(strict=False)
    world.until_phase(Phase.VERIFY)
    world.network_faults += [ContentMissing("a bundle", [Attempt("gateway", "no route")])] * 15
    assert world.until_ended(1).accepted == (0, 1, 2)
    assert not world.network_faults


def test_a_store_that_does_not_answer_is_asked_again(make_world: MakeWorld) -> None:
    world = make_world(strict=False)
    world.until_phase(Phase.VERIFY)
    world.aggregator().local.faults += [StoreUnavailable("kubo is restarting")] * 2
    assert world.until_ended(1).accepted == (0, 1, 2)
    assert len(world.aggregator().faults) == 2


def test_a_reorg_takes_a_submission_away_and_the_same_one_is_sent_again(make_world: MakeWorld) -> None:
    world = make_world(policy=replace_policy(train_blocks=16))
    world.until(lambda world: world.latest == 1 and len(world.state.submissions) == 3)
    before = world.state.submissions
    world.chain.reorg(1)
    assert len(world.state.submissions) < 3
    state = world.until_ended(1)
    assert {m: sent.bundle for m, sent in state.submissions.items()} == {m: s.bundle for m, s in before.items()}
    assert state.accepted == (0, 1, 2)


def test_privacy_waits_until_the_beacon_is_deep_enough(make_world: MakeWorld) -> None:
    def careful(world: Any) -> None:
        world.member(0).confirmations = 3

    world = make_world(prepare=careful, policy=replace_policy(train_blocks=16))
    state = world.until_phase(Phase.TRAIN)
    sealed = state.log[-1].block_number
    world.until(lambda world: 0 in world.state.submissions)
    mined = next(at for at in world.state.log if at.event == world.state.submissions[0]).block_number
    assert mined > sealed + 3


# ---- this machine


def test_a_full_disk_while_publishing_costs_no_second_training(make_world: MakeWorld) -> None:
    world = make_world(strict=False)
    world.until_phase(Phase.TRAIN)
    member = world.member(1)
    member.local.faults = [StoreFull("disk full")] * 2
    assert world.until_ended(1).accepted == (0, 1, 2)
    assert len(member.trainer.roots) == 1
    assert any(isinstance(fault, StoreFull) for fault in member.faults)


def test_a_full_disk_under_the_memory_is_told_and_survived(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(strict=False)
    memory, full = world.member(2).parts.memory, [StorageFault("disk is full"), StorageFault("disk is full")]
    remember = memory.remember_commitment

    def failing(*arguments: Any) -> Any:
        if full:
            raise full.pop()
        return remember(*arguments)

    monkeypatch.setattr(memory, "remember_commitment", failing)
    assert world.until_ended(1).accepted == (0, 1, 2)
    assert sum(isinstance(fault, StorageFault) for fault in world.member(2).faults) == 2
