"""Who does not take part, who is left out, who is objected to: members and aggregators, honest and not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from ledger.crash import Point
from ledger.records import Phase, Policy, Reason, VoidReason
from node.acceptance import Limits
from node.conduct import HonestAggregator, HonestMember
from node.recompute import round_key
from proofs.errors import LocalFault

MakeWorld = Callable[..., Any]


# ---- members who cannot, or will not


def test_a_member_over_its_own_limit_does_not_commit_and_the_others_finish(make_world: MakeWorld) -> None:
    def stingy(world: Any) -> None:
        world.member(0).limits = Limits(1000, Fraction(1, 100_000), False)

    world = make_world(prepare=stingy)
    state = world.until_ended(1)
    assert state.reasons == {0: Reason.NOT_COMMITTED, 1: Reason.ACCEPTED, 2: Reason.ACCEPTED}
    assert "cap" in world.member(0).service.watch.health()["refused"]
    assert world.member(0).parts.privacy.entries() == []


def test_members_over_the_contracts_cap_do_not_commit(make_world: MakeWorld) -> None:
    world = make_world(cap_micro=1000, voids=1)
    assert world.until_ended(1).voided.reason is VoidReason.COMMIT_QUORUM
    assert world.member(1).trainer.roots == []


def test_the_budget_runs_out_between_two_rounds(make_world: MakeWorld) -> None:
    world = make_world(rounds=1)
    world.until_ended(1)
    spent = world.member(0).parts.privacy.entries()[0].spent_micro
    poor = make_world(rounds=2, cap_micro=spent + 1, voids=1)
    assert poor.until_ended(1).accepted == (0, 1, 2)
    assert poor.until_ended(2).voided.reason is VoidReason.COMMIT_QUORUM


class Vanishing(HonestMember):
    def follows_up(self, state: Any) -> bool:
        return False


def test_a_member_commits_and_vanishes(make_world: MakeWorld) -> None:
    world = make_world(prepare=lambda world: setattr(world.member(1), "conduct", Vanishing()))
    state = world.until_ended(1)
    assert state.reasons == {0: Reason.ACCEPTED, 1: Reason.NOT_SUBMITTED, 2: Reason.ACCEPTED}


def test_all_vanish_the_round_is_void_and_the_next_one_opens(make_world: MakeWorld) -> None:
    def vanish(world: Any) -> None:
        for number in range(3):
            world.member(number).conduct = Vanishing()

    world = make_world(prepare=vanish, voids=2)
    assert world.until_ended(1).voided.reason is VoidReason.SUBMIT_QUORUM
    assert world.until_ended(2).voided.reason is VoidReason.SUBMIT_QUORUM
    world.tick(10)
    assert world.latest == 2, "two void rounds in a row are enough"


def test_a_member_down_for_the_commit_phase_joins_the_next_round(make_world: MakeWorld) -> None:
    world = make_world(rounds=2)
    world.member(2).running = False
    assert world.until_ended(1).reasons[2] == Reason.NOT_COMMITTED
    world.member(2).running = True
    assert world.until_ended(2).accepted == (0, 1, 2)


class Absent(HonestMember):
    """Submits the digest of something that nobody has."""

    def publish(self, state: Any, store: Any, files: Any) -> bytes:
        return bytes(31) + b"\x07"


def test_a_bundle_that_nobody_has_is_waited_for_and_then_called_unavailable(make_world: MakeWorld) -> None:
    world = make_world(prepare=lambda world: setattr(world.member(0), "conduct", Absent()))
    opened = world.until_phase(Phase.VERIFY).log[-1].block_number
    state = world.until_ended(1)
    assert state.reasons == {0: Reason.UNAVAILABLE, 1: Reason.ACCEPTED, 2: Reason.ACCEPTED}
    posted = next(at.block_number for at in state.log if at.event is state.verdicts)
    assert posted - opened >= world.config.policy.verify_blocks // 2 - 2


# ---- configs that a member does not accept


def replace_policy(**changes: Any) -> Policy:
    return replace(Policy(6, 8, 0, 8, 6, 6, 2, False, 2), **changes)


def refused_because(world: Any) -> str:
    assert world.until_ended(1).voided.reason is VoidReason.COMMIT_QUORUM
    assert world.member(0).trainer.roots == []
    return str(world.member(0).service.watch.health()["refused"])


def test_a_round_without_noise_is_refused_unless_the_member_says_so(make_world: MakeWorld) -> None:
    from ledger.config import PrivacySpec

    loud = PrivacySpec(Fraction(1, 100_000), 64, Fraction(1), Fraction(1, 2), 0, 1 << 29, 64, True)
    assert "without noise" in refused_because(make_world(privacy=loud, voids=1))

    def allow(world: Any) -> None:
        for number in range(3):
            world.member(number).limits = Limits(0, Fraction(1, 100_000), True)

    state = make_world(privacy=loud, prepare=allow).until_ended(1)
    assert state.accepted == (0, 1, 2)
    assert state.submissions[0].spent_micro == 2**64 - 1


def test_a_large_delta_is_refused(make_world: MakeWorld) -> None:
    from ledger.config import PrivacySpec

    loose = PrivacySpec(Fraction(1, 100), 64, Fraction(1), Fraction(1, 2), 128, 1 << 29, 64)
    assert "δ" in refused_because(make_world(privacy=loose, voids=1))


def test_a_round_with_a_prove_phase_that_its_config_has_no_use_for_is_refused(make_world: MakeWorld) -> None:
    proving = replace_policy(prove_blocks=4, proof_required=True)
    assert "config.policy.proof_required" in refused_because(make_world(policy=proving, voids=1))


def test_another_base_model_is_refused(make_world: MakeWorld) -> None:
    def other_base(world: Any) -> None:
        for number in range(3):
            world.member(number).trainer.refusal = LocalFault("another base")

    assert "another base" in refused_because(make_world(prepare=other_base, voids=1))


def test_a_policy_on_chain_that_is_not_the_configs_is_refused(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    import node.aggregator

    original = node.aggregator.Open
    monkeypatch.setattr(
        node.aggregator,
        "Open",
        lambda config, start, policy: original(config, start, replace(policy, challenge_blocks=0)),
    )
    assert "policy" in refused_because(make_world(voids=1))


def test_a_global_bundle_that_breaks_a_rule_is_refused(make_world: MakeWorld) -> None:
    def poison(world: Any) -> None:
        daemon = world.aggregator()
        digest = daemon.store.put_directory({"model.pkl": b"\x80\x04."})
        daemon.coordinator = replace(daemon.coordinator, genesis=digest)

    assert "global bundle" in refused_because(make_world(prepare=poison, voids=1))


def test_a_config_that_nobody_serves_is_waited_for(make_world: MakeWorld) -> None:
    world = make_world(strict=False, voids=1)
    world.until_phase(Phase.COMMIT)
    blocks = world.aggregator().store.blocks
    held = blocks.pop(world.config.digest)
    world.tick(2)
    assert type(world.member(0).faults[-1]).__name__ == "ContentMissing"
    blocks[world.config.digest] = held
    assert world.until_ended(1).accepted == (0, 1, 2)


def test_data_that_changed_after_the_commitment_is_not_trained_on(make_world: MakeWorld) -> None:
    world = make_world()
    world.until_phase(Phase.TRAIN)
    member = world.member(0)
    if 0 not in world.state.submissions:
        member.trainer.data = [b"other rows"]
    state = world.until_ended(1)
    assert state.reasons[0] == Reason.NOT_SUBMITTED
    assert member.trainer.roots == []
    assert "data" in member.service.watch.health()["refused"]


def test_a_state_folder_older_than_the_chain_does_not_spend(make_world: MakeWorld) -> None:
    world = make_world(rounds=2)
    world.until_ended(1)
    member = world.member(0)
    member.stop()
    for file in (member.folder / "privacy").iterdir():
        file.unlink()
    member.start()
    state = world.until_ended(2)
    assert state.reasons[0] == Reason.NOT_COMMITTED
    assert "newest copy" in member.service.watch.health()["refused"]


# ---- signing


def test_the_guard_refuses_a_second_submission_even_when_the_memory_is_lost(
    make_world: MakeWorld, pull_the_plug: Callable[[Point], None]
) -> None:
    """Killed after signing, restarted with an old memory and a trainer that gives something else."""
    world = make_world(strict=False)
    world.until_phase(Phase.TRAIN)
    pull_the_plug(Point.NODE_SIGNED)
    world.until(lambda world: bool(world.cuts))
    member = next(daemon for daemon in world.daemons if daemon.name == world.cuts[0])
    with member.parts.memory._database.write() as cursor:
        cursor.execute("DELETE FROM releases")
        cursor.execute("DELETE FROM bundles")
        cursor.execute("DELETE FROM releases")
    member.trainer.shift = 1
    state = world.until_ended(1)
    assert any(type(fault).__name__ == "SigningRefused" for fault in member.faults)
    assert not state.equivocations
    assert state.reasons[int(member.name[-1])] == Reason.NOT_SUBMITTED


def test_a_training_that_comes_out_otherwise_after_a_crash_is_not_published(
    make_world: MakeWorld, pull_the_plug: Callable[[Point], None]
) -> None:
    """Two releases under one noise differ by the data alone."""
    world = make_world()
    world.until_phase(Phase.TRAIN)
    pull_the_plug(Point.NODE_BUNDLE)
    world.until(lambda world: bool(world.cuts))
    member = next(daemon for daemon in world.daemons if daemon.name == world.cuts[0])
    member.trainer.shift = 1
    blocks = set(member.store.blocks)
    state = world.until_ended(1)
    assert state.reasons[int(member.name[-1])] == Reason.NOT_SUBMITTED
    assert "same noise" in member.service.watch.health()["refused"]
    fetched = {block for other in world.daemons if other is not member for block in other.store.blocks}
    assert set(member.store.blocks) - blocks <= fetched, "nothing of its own was added"


def test_memory_takes_no_second_bundle_for_a_round(make_world: MakeWorld) -> None:
    from node.memory import MemoryContradicted

    world = make_world()
    state = world.until_ended(1)
    memory, key = world.member(0).parts.memory, round_key(state)
    made = memory.made(key)
    with pytest.raises(MemoryContradicted):
        memory.remember_made(key, replace(made, bundle=bytes(32)))


# ---- aggregators who lie or sleep


class OneUnitOff(HonestAggregator):
    def average(self, state: Any, weights: Any) -> Any:
        changed = {name: units.copy() for name, units in weights.items()}
        changed["classifier.weight"].flat[0] += 1
        return changed


def slander(reasons: bytes) -> bytes:
    """Member 1 is left out for a reason that it did not give."""
    return reasons[:1] + bytes([Reason.OFF_GRID]) + reasons[2:]


class Slanderer(HonestAggregator):
    """Looks for verifiers that help it."""

    def reasons(self, state: Any, reasons: Any) -> Any:
        return {**reasons, 1: Reason.OFF_GRID}


class FalseWitness(HonestMember):
    def verdicts(self, state: Any, seat: Any, reasons: bytes) -> bytes:
        return slander(reasons)


def test_a_tampered_aggregate_is_objected_to_with_the_right_one(make_world: MakeWorld) -> None:
    world = make_world(prepare=lambda world: setattr(world.aggregator(), "conduct", OneUnitOff()))
    state = world.until_ended(1)
    assert state.voided.reason is VoidReason.DISPUTED
    expected = {objection.expected_bundle for objection in state.objections.values()}
    assert len(expected) == 1
    assert expected != {bytes(32)}
    assert expected != {state.proposal.aggregate_bundle}


def test_an_invented_verdict_is_objected_to_with_zero(make_world: MakeWorld) -> None:
    """Where one signature is enough, a liar and an aggregator that helps it can post it; the others void the round."""

    def prepare(world: Any) -> None:
        world.member(0).conduct = FalseWitness()
        world.aggregator().conduct = Slanderer()

    world = make_world(prepare=prepare, policy=replace_policy(verifier_quorum=1))
    state = world.until_ended(1)
    assert state.verdicts.signed.members == (0,)
    assert state.voided.reason is VoidReason.DISPUTED
    assert {objection.expected_bundle for objection in state.objections.values()} == {bytes(32)}


def test_another_aggregator_takes_over_from_one_that_sleeps(make_world: MakeWorld) -> None:
    """Round 1 is the turn of rank 1 of 2."""
    world = make_world(aggregators=2)
    world.aggregator(1).running = False
    state = world.until_ended(1)
    assert state.phase is Phase.FINAL
    assert state.verdicts.aggregator == state.proposal.aggregator == world.aggregator(0).key.address


def test_the_one_on_duty_acts_alone(make_world: MakeWorld) -> None:
    world = make_world(aggregators=2)
    state = world.until_ended(1)
    assert state.verdicts.aggregator == world.aggregator(1).key.address
    assert world.aggregator(0).service.sender.outbox.get("round-1/verdicts") is None


def test_members_bring_a_round_to_its_end_when_all_aggregators_are_gone(make_world: MakeWorld) -> None:
    world = make_world()
    world.until_phase(Phase.COMMIT)
    world.aggregator().store.put_raw(world.config.encode())
    world.aggregator().running = False
    state = world.until_ended(1)
    assert state.voided.reason is VoidReason.NO_VERDICT


def test_an_accepted_bundle_that_cannot_be_had_is_objected_to(make_world: MakeWorld) -> None:
    """Nobody could recompute the average: members wait for it half of the challenge, then object."""

    class Credulous(HonestMember):
        def verdicts(self, state: Any, seat: Any, reasons: bytes) -> bytes:
            return bytes(len(reasons))

    def prepare(world: Any) -> None:
        world.member(0).conduct = Absent()
        world.member(1).conduct = world.member(2).conduct = Credulous()

    world = make_world(prepare=prepare, strict=False)
    state = world.until_ended(1)
    assert state.voided.reason in (VoidReason.DISPUTED, VoidReason.NO_PROPOSAL)
