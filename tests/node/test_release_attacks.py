"""One noise, one release: whatever happens between training and submission, a second, different bundle of a round is
never published, for the difference of two would show the data without its noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ledger.crash import Point
from ledger.records import Phase, Reason
from node.conduct import HonestMember

MakeWorld = Callable[..., Any]
PullThePlug = Callable[[Point], None]


class Recorder(HonestMember):
    """Honest; keeps a list of every bundle that left the process."""

    def __init__(self) -> None:
        self.published: list[bytes] = []

    def publish(self, state: Any, store: Any, files: Any) -> bytes:
        digest = super().publish(state, store, files)
        self.published.append(digest)
        return digest


def recorded(world: Any) -> None:
    for daemon in world.daemons:
        if daemon.trainer is not None:
            daemon.conduct = Recorder()


def cut_after_publishing(make_world: MakeWorld, pull_the_plug: PullThePlug) -> tuple[Any, Any]:
    """A world in which one member published its bundle and was killed before it wrote down that it had."""
    world = make_world(strict=False, prepare=recorded)
    world.until_phase(Phase.TRAIN)
    pull_the_plug(Point.NODE_BUNDLE)
    while not world.cuts:
        for daemon in world.daemons:
            daemon.turn()
            if world.cuts:
                break
        else:
            world.chain.mine()
    return world, next(daemon for daemon in world.daemons if daemon.name == world.cuts[0])


def test_a_training_that_comes_out_otherwise_after_a_crash_is_not_published(
    make_world: MakeWorld, pull_the_plug: PullThePlug
) -> None:
    """As on a GPU, whose sums are not the same every time."""
    world, member = cut_after_publishing(make_world, pull_the_plug)
    member.trainer.shift = 1
    state = world.until_ended(1)
    assert len(set(member.conduct.published)) == 1
    assert state.reasons[int(member.name[-1])] == Reason.NOT_SUBMITTED


def test_a_reorg_that_draws_another_beacon_after_a_crash_gets_no_second_bundle(
    make_world: MakeWorld, pull_the_plug: PullThePlug
) -> None:
    world, member = cut_after_publishing(make_world, pull_the_plug)
    before = world.state.train_beacon
    world.chain.reorg(world.chain.head().number - world.state.train_seal.close_block)
    world.until_ended(1)
    assert world.state.train_beacon not in (None, before)
    assert len(set(member.conduct.published)) == 1


def test_a_training_that_comes_out_the_same_after_a_crash_is_submitted(
    make_world: MakeWorld, pull_the_plug: PullThePlug
) -> None:
    world, member = cut_after_publishing(make_world, pull_the_plug)
    assert world.until_ended(1).accepted == (0, 1, 2)
    assert len(set(member.conduct.published)) == 1
    assert len(member.trainer.roots) == 2
