"""Rounds whose config asks for proofs of the mechanism, played by the real daemons without processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ledger.bundle import PROOF, bundle_limits
from ledger.crash import Point
from ledger.records import Phase, Reason
from node.conduct import HonestMember
from node.recompute import round_key

MakeWorld = Callable[..., Any]


class OneByteOff(HonestMember):
    """Changes its proof after the manifest was written."""

    def files(self, state: Any, files: Any) -> Any:
        proof = bytearray(files[PROOF])
        proof[1000] ^= 1
        return {**files, PROOF: bytes(proof)}


def test_members_prove_and_all_of_them_are_averaged(make_world: MakeWorld) -> None:
    world = make_world(proof_policy="mechanism")
    state = world.until_ended(1)
    assert (state.phase, state.accepted) == (Phase.FINAL, (0, 1, 2))
    for member in range(3):
        bundle = state.submissions[member].bundle
        files = world.member(member).store.get_directory(bundle, bundle_limits(world.config))
        assert len(files[PROOF]) > 100_000


def test_a_member_whose_proof_is_not_the_manifests_is_left_out(make_world: MakeWorld) -> None:
    """A changed proof breaks the manifest before it is verified; with a manifest that fits: tests/devnet."""

    def one_lies(world: Any) -> None:
        world.member(2).conduct = OneByteOff()

    world = make_world(proof_policy="mechanism", prepare=one_lies)
    state = world.until_ended(1)
    assert state.accepted == (0, 1)
    assert state.reasons[2] == Reason.MANIFEST_MISMATCH


@pytest.mark.parametrize("point", [Point.NODE_WORDS_SEED, Point.NODE_BUDGET, Point.NODE_BUNDLE, Point.NODE_SIGNED])
def test_a_member_killed_on_the_way_proves_the_same_again(
    point: Point, make_world: MakeWorld, pull_the_plug: Callable[[Point], None]
) -> None:
    """Equal contributions give the equal proof, so what was announced before the power cut is what is submitted."""
    world = make_world(proof_policy="mechanism")
    pull_the_plug(point)
    state = world.until_ended(1)
    assert state.accepted == (0, 1, 2)


def test_a_member_whose_rows_change_after_the_commitment_does_not_train(make_world: MakeWorld) -> None:
    world = make_world(proof_policy="mechanism")
    world.until_phase(Phase.TRAIN)
    world.member(1).trainer.data.append(b"one more row")
    state = world.until_ended(1)
    assert state.accepted == (0, 2)
    assert "not what was committed to" in world.member(1).service.watch.health()["refused"]


def test_no_secret_is_in_what_a_prover_publishes(make_world: MakeWorld) -> None:
    """The seed, and the secret words that come from it, are in no file of the bundle."""
    world = make_world(proof_policy="mechanism")
    state = world.until_ended(1)
    for number in range(3):
        member = world.member(number)
        files = member.store.get_directory(state.submissions[number].bundle, bundle_limits(world.config))
        published = b"".join(files.values())
        memory = member.parts.memory
        seeds = [memory.seed("dataset"), memory.seed(f"words/{round_key(state)}")]
        assert not any(seed in published for seed in seeds)
