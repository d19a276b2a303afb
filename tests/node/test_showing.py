"""Rounds in which members prove the gradients of picked slots: honest ones, dishonest ones, and cut off anywhere.

Proofs of gradients are fakes here (digests of all that they are about); everything around them is real.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from devnet.conducts import DishonestMember
from devnet.kinds import KINDS
from ledger.bundle import MANIFEST
from ledger.config import GradientSpec, PrivacySpec
from ledger.content import Attempt, ContentMissing, StoreFull
from ledger.crash import Point
from ledger.gradients import GradientsUnjudged, gradient_limits, proof_path
from ledger.picks import Pick, picks_of
from ledger.records import Phase, Policy, Reason, VoidReason
from node.conduct import HonestMember
from node.kept import KeptContributions
from node.recompute import round_key
from proofs.errors import LocalFault
from proofs.words import Binding

pytestmark = pytest.mark.usefixtures("judged_once")  # each member's proof of the mechanism is verified by all

MakeWorld = Callable[..., Any]
HALF = PrivacySpec(Fraction(1, 100_000), 64, Fraction(1), Fraction(1, 2), 128, 1 << 31, 16)
POLICY = Policy(6, 8, 8, 8, 6, 6, 2, True, 2)
PICKS = 3


@pytest.fixture
def showing_world(make_world: MakeWorld, fake_gradients: Any) -> MakeWorld:
    """Half of ten rows join each of two steps; three slots are picked of each member."""

    def make(members: int = 3, *, policy: Policy = POLICY, gradients: Any = None, **changes: Any) -> Any:
        return make_world(
            members,
            gradients=gradients or fake_gradients(),
            proof_policy="gradient",
            gradient=GradientSpec(PICKS, 8),
            policy=policy,
            privacy=HALF,
            steps=2,
            **changes,
        )

    return make


def behave(number: int, conduct: HonestMember) -> Callable[[Any], None]:
    return lambda world: setattr(world.member(number), "conduct", conduct)


def files_of(world: Any, member: int, number: int = 1) -> dict[str, bytes]:
    digest = world.history.rounds[number].proofs[member].proof
    return dict(world.member(member).store.get_directory(digest, gradient_limits(world.config)))


def kept_of(world: Any, member: int) -> list[Any]:
    folder = world.member(member).folder / "contributions"
    return sorted(folder.iterdir()) if folder.exists() else []


def test_members_show_the_slots_that_the_beacon_picked_and_are_accepted(showing_world: MakeWorld) -> None:
    world = showing_world()
    state = world.until_ended(1)
    assert state.phase is Phase.FINAL
    assert state.accepted == (0, 1, 2)
    for member in range(3):
        assert sorted(files_of(world, member)) == [*(proof_path(n) for n in range(PICKS)), MANIFEST]
    binding = Binding(state.domain.chain_id, state.domain.contract, 1, 1)
    mine = [c.pick for c, _, _ in world.gradients.told if c.mechanism.binding.member == 1]
    assert tuple(mine) == picks_of(world.config, state.prove_beacon, binding)


def test_the_prover_is_given_all_contributions_and_texts_whichever_slot_is_picked(showing_world: MakeWorld) -> None:
    """Whether a slot is in use is for the prover alone to know: it is asked for each pick in the same way."""
    world = showing_world()
    world.until_ended(1)
    assert len(world.gradients.told) == 3 * PICKS
    for _, texts, contributions in world.gradients.told:
        assert [part.dtype for part in contributions] == [np.int32] * 2
        assert {part.shape[1] for part in contributions} == {world.config.adapter.parameters}
        assert texts == texts or texts is not None
    sizes = {len(data) for member in range(3) for path, data in files_of(world, member).items() if path != MANIFEST}
    assert sizes == {32}


def test_verifiers_sign_and_the_phase_ends_as_soon_as_all_have_proven(showing_world: MakeWorld) -> None:
    world = showing_world(policy=replace(POLICY, prove_blocks=40))
    state = world.until_ended(1)
    assert state.accepted == (0, 1, 2)
    proved = max(at.block_number for at in state.log if at.event in state.proofs.values())
    judged = next(at.block_number for at in state.log if at.event is state.verdicts)
    assert judged < proved + 20


# ---- misbehaviour


class Silent(HonestMember):
    def shows(self, state: Any) -> bool:
        return False


class Elsewhere(HonestMember):
    """Proves other slots than those that were picked."""

    def picks(self, state: Any, asked: Sequence[Any]) -> Sequence[Any]:
        return [replace(challenge, pick=Pick(challenge.pick.step, challenge.pick.slot ^ 1)) for challenge in asked]


class Tampering(HonestMember):
    def __init__(self, change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> None:
        self.change = change

    def shown(self, state: Any, files: Any) -> Any:
        return self.change(dict(files))


def reason_of(world: Any, member: int = 2) -> Reason:
    state = world.until_ended(1)
    assert state.phase is Phase.FINAL
    assert state.accepted == tuple(number for number in range(3) if number != member)
    return Reason(state.reasons[member])


def test_who_shows_nothing_is_left_out_by_the_chain_itself(showing_world: MakeWorld) -> None:
    world = showing_world(prepare=behave(2, Silent()))
    assert reason_of(world) is Reason.NOT_PROVED


def test_who_shows_nothing_still_judges_and_checks(showing_world: MakeWorld) -> None:
    world = showing_world(prepare=behave(2, Silent()))
    state = world.until_ended(1)
    assert not state.objections
    memory, proposal = world.member(2).parts.memory, state.proposal.aggregate_bundle
    assert memory.checked(round_key(state), proposal) is not None


def test_proofs_of_other_slots_are_found_out(showing_world: MakeWorld) -> None:
    world = showing_world(prepare=behave(2, Elsewhere()))
    assert reason_of(world) is Reason.GRADIENT_INVALID


@pytest.mark.parametrize(
    "change",
    [
        lambda files: {path: data for path, data in files.items() if path != proof_path(1)},
        lambda files: files | {"extra": b"x"},
        lambda files: files | {proof_path(0): files[proof_path(1)], proof_path(1): files[proof_path(0)]},
        lambda files: files | {MANIFEST: b"{}"},
    ],
    ids=["one left out", "one more", "two exchanged", "an empty manifest"],
)
def test_a_directory_that_is_not_the_one_asked_for_is_found_out(showing_world: MakeWorld, change: Any) -> None:
    world = showing_world(prepare=behave(2, Tampering(change)))
    assert reason_of(world) is Reason.GRADIENT_INVALID


def test_proofs_of_another_round_are_found_out(showing_world: MakeWorld) -> None:
    earlier: list[dict[str, bytes]] = []

    def again(files: dict[str, bytes]) -> dict[str, bytes]:
        earlier.append(files)
        return earlier[0]

    world = showing_world(rounds=2, prepare=behave(2, Tampering(again)))
    assert world.until_ended(1).accepted == (0, 1, 2)
    state = world.until_ended(2)
    assert state.reasons == {0: 0, 1: 0, 2: Reason.GRADIENT_INVALID}


def test_a_digest_with_nothing_behind_it_is_waited_for_and_then_unavailable(showing_world: MakeWorld) -> None:
    world = showing_world()
    world.until(lambda world: world.latest == 1 and 2 in world.state.proofs)
    digest = world.state.proofs[2].proof
    assert digest in world.member(2).store.blocks
    del world.member(2).store.blocks[digest]
    assert reason_of(world) is Reason.UNAVAILABLE


IN_PROVE = [name for name, kind in KINDS.items() if kind.in_prove]


@pytest.mark.parametrize("kind", IN_PROVE)
def test_what_the_devnets_liars_do_in_prove_has_the_reason_that_is_promised(
    showing_world: MakeWorld, kind: str
) -> None:
    def prepare(world: Any) -> None:
        member = world.member(2)
        chosen = ((KINDS[kind], None),)
        seed_of = lambda state: member.parts.memory.seed(f"words/{round_key(state)}")  # noqa: E731
        member.conduct = DishonestMember(chosen, member.key.address, world.chain, member.store, seed_of)

    assert reason_of(showing_world(prepare=prepare)) is KINDS[kind].reason


# ---- who cannot judge


def test_a_verifier_without_the_base_says_so_and_signs_nothing(showing_world: MakeWorld) -> None:
    """A base that goes away between Commit and Verify; the quorum does without."""
    world = showing_world()
    world.until(lambda world: world.latest == 1 and 2 in world.state.proofs)
    member = world.member(2)
    member.blind = True
    member.restart()
    member.turn()
    assert "without the base model" in member.service.watch.health()["refused"]
    assert member.board.get(round_key(world.state)) is None
    state = world.until_ended(1)
    assert state.accepted == (0, 1, 2)
    assert state.verdicts.signed.members == (0, 1)
    assert not state.objections


def test_an_aggregator_without_the_base_posts_nothing_and_says_why(showing_world: MakeWorld) -> None:
    world = showing_world(prepare=lambda world: setattr(world.aggregator(), "blind", True))
    world.until_phase(Phase.VERIFY)
    world.aggregator().turn()
    assert "without the base model" in world.aggregator().service.watch.health()["refused"]
    assert world.until_ended(1).voided.reason is VoidReason.NO_VERDICT


def test_a_member_that_could_not_prove_does_not_commit(showing_world: MakeWorld, fake_gradients: Any) -> None:
    world = showing_world(prepare=lambda world: setattr(world.member(2), "blind", True))
    world.until_phase(Phase.TRAIN)
    assert "no base to make them on" in world.member(2).service.watch.health()["refused"]
    assert world.until_ended(1).reasons[2] == Reason.NOT_COMMITTED
    other = showing_world(gradients=fake_gradients("the base here is another"), voids=1)
    assert other.until_ended(1).voided.reason is VoidReason.COMMIT_QUORUM
    assert "the base here is another" in other.member(0).service.watch.health()["refused"]


def test_a_slot_that_cannot_be_proven_leaves_its_member_out_and_only_the_log_says_which(
    showing_world: MakeWorld, fake_gradients: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Anybody may read /health, and a slot that cannot be proven is one in use."""

    class Failing(fake_gradients):  # type: ignore[misc]
        def prove(self, config: Any, iterate: Any, challenge: Any, *rest: Any) -> bytes:
            if challenge.mechanism.binding.member == 2:
                raise LocalFault("a value leaves its range")
            return bytes(super().prove(config, iterate, challenge, *rest))

    world = showing_world(gradients=Failing())
    world.until_phase(Phase.PROVE)
    world.member(2).turn()
    assert world.member(2).service.watch.health()["refused"] == (
        "a picked slot cannot be proven; the log says which, and why"
    )
    assert "a value leaves its range" not in json.dumps(world.member(2).service.watch.health())
    assert "a value leaves its range" in caplog.text
    assert reason_of(world) is Reason.NOT_PROVED


# ---- kill -9


@pytest.mark.parametrize(
    "point", [Point.NODE_SHOWN, Point.NODE_PROVE_INTENT, Point.NODE_BUNDLE, Point.NODE_SUBMIT_INTENT]
)
def test_kill_loses_nothing_and_shows_nothing_twice(
    point: Point, showing_world: MakeWorld, pull_the_plug: Callable[[Point], None]
) -> None:
    world = showing_world()
    pull_the_plug(point)
    state = world.until_ended(1)
    assert len(world.cuts) == 1, "the point was reached"
    assert state.accepted == (0, 1, 2)
    for member in range(3):
        named = world.member(member).parts.memory.showing(round_key(state))
        assert named.proofs == state.proofs[member].proof
        assert len(set(world.member(member).trainer.roots)) == 1


def test_a_restart_between_submission_and_proof_needs_no_second_training(showing_world: MakeWorld) -> None:
    world = showing_world()
    world.until(lambda world: world.latest == 1 and len(world.state.submissions) == 3)
    member = world.member(0)
    trained = len(member.trainer.roots)
    member.restart()
    assert world.until_ended(1).accepted == (0, 1, 2)
    assert len(member.trainer.roots) == trained == 1


def test_proofs_that_come_out_otherwise_after_their_name_was_written_down_are_not_published(
    showing_world: MakeWorld,
) -> None:
    world = showing_world()
    state = world.until_phase(Phase.PROVE)
    member = world.member(2)
    member.parts.memory.remember_showing(round_key(state), state.prove_beacon, b"\x11" * 32)
    before = set(member.store.blocks)
    member.turn()
    assert "other proofs of gradients may have been published" in member.service.watch.health()["refused"]
    assert set(member.store.blocks) == before
    assert reason_of(world) is Reason.NOT_PROVED


def test_after_another_beacon_nothing_is_proven_a_second_time(showing_world: MakeWorld) -> None:
    world = showing_world()
    state = world.until_phase(Phase.PROVE)
    world.member(2).parts.memory.remember_showing(round_key(state), b"\x11" * 32, b"\x22" * 32)
    world.member(2).turn()
    assert "another beacon" in world.member(2).service.watch.health()["refused"]
    assert all(c.mechanism.binding.member != 2 for c, _, _ in world.gradients.told)
    assert reason_of(world) is Reason.NOT_PROVED


def test_slots_are_proven_only_under_a_beacon_that_is_deep_enough(showing_world: MakeWorld) -> None:
    def careful(world: Any) -> None:
        world.member(0).confirmations = 3

    world = showing_world(prepare=careful, policy=replace(POLICY, train_blocks=16, prove_blocks=16))
    state = world.until_phase(Phase.PROVE)
    sealed = state.log[-1].block_number
    world.until(lambda world: 0 in world.state.proofs)
    mined = next(at for at in world.state.log if at.event == world.state.proofs[0]).block_number
    assert mined > sealed + 3


def test_a_full_disk_while_publishing_costs_no_second_proving(showing_world: MakeWorld) -> None:
    world = showing_world(strict=False)
    world.until_phase(Phase.PROVE)
    world.member(1).local.faults = [StoreFull("disk full")]
    while not world.member(1).faults:
        world.member(1).turn()
    proven = len([c for c, _, _ in world.gradients.told if c.mechanism.binding.member == 1])
    assert world.until_ended(1).accepted == (0, 1, 2)
    assert len([c for c, _, _ in world.gradients.told if c.mechanism.binding.member == 1]) <= max(proven, PICKS)


def test_data_that_changed_since_the_commitment_is_not_proven_with(showing_world: MakeWorld) -> None:
    world = showing_world()
    world.until_phase(Phase.PROVE)
    world.member(2).trainer.data = [b"another row"] * 10
    assert reason_of(world) is Reason.NOT_PROVED


# ---- what is kept


def test_contributions_are_kept_for_the_member_alone_and_no_longer_than_the_round(showing_world: MakeWorld) -> None:
    world = showing_world(rounds=2)
    state = world.until_phase(Phase.PROVE)
    (file,) = kept_of(world, 0)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    kept = KeptContributions(file.parent).get(round_key(state))
    assert [part.shape[1] for part in kept] == [88, 88]
    world.until_ended(1)
    world.tick(2)
    assert file not in kept_of(world, 0)
    world.until_ended(2)
    world.tick(2)
    assert [kept_of(world, member) for member in range(3)] == [[], [], []]


def test_nothing_is_kept_where_no_gradient_is_asked_for(make_world: MakeWorld) -> None:
    world = make_world(2, proof_policy="mechanism", privacy=HALF, steps=2)
    world.until_phase(Phase.VERIFY)
    assert kept_of(world, 0) == []


def test_nothing_that_was_kept_leaves_the_member(showing_world: MakeWorld) -> None:
    world = showing_world(prepare=lambda world: setattr(world.member(0).trainer, "shift", 1))
    state = world.until_phase(Phase.PROVE)
    (file,) = kept_of(world, 0)
    kept = [part for part in KeptContributions(file.parent).get(round_key(state)) if len(part)]
    world.until_ended(1)
    public = b"".join(bytes(data) for daemon in world.daemons for data in daemon.store.blocks.values())
    assert kept
    for part in kept:
        for form in ("<i2", "<i4"):
            assert part[0].astype(form).tobytes()[:48] not in public


def test_contributions_that_are_gone_leave_the_member_out(showing_world: MakeWorld) -> None:
    world = showing_world()
    world.until_phase(Phase.PROVE)
    (file,) = kept_of(world, 2)
    file.unlink()
    world.member(2).turn()
    assert "no contributions of this round here" in world.member(2).service.watch.health()["refused"]
    assert reason_of(world) is Reason.NOT_PROVED


def test_a_missing_own_bundle_is_told(showing_world: MakeWorld) -> None:
    world = showing_world(strict=False)
    state = world.until_phase(Phase.PROVE)
    world.member(2).store.blocks.pop(state.submissions[2].bundle)
    world.network_faults += [ContentMissing("it", [Attempt("peer", "no")])] * 20
    world.member(2).turn()
    assert "our own bundle is not to be had" in world.member(2).service.watch.health()["refused"]


def test_the_errors_of_who_cannot_judge_are_its_own_fault() -> None:
    assert issubclass(GradientsUnjudged, LocalFault)
