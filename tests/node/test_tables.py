"""The tables: every phase and situation is answered, and the situations are what the chain and the memory say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ledger.records import Phase
from ledger.round_state import due
from node.aggregator_table import (
    AGGREGATOR_ACTIONS,
    AGGREGATOR_SITUATIONS,
    AGGREGATOR_TABLE,
    Duty,
    aggregator_situation,
    patience_ends,
)
from node.round_table import (
    MEMBER_ACTIONS,
    MEMBER_SITUATIONS,
    MEMBER_TABLE,
    README,
    Do,
    Mine,
    Situation,
    is_over,
    member_situation,
    pictures,
    with_pictures,
)
from node.verifying import verifiers_patience_ends

MakeWorld = Callable[..., Any]


@pytest.mark.parametrize(
    ("table", "situations", "actions"),
    [
        (MEMBER_TABLE, MEMBER_SITUATIONS, MEMBER_ACTIONS),
        (AGGREGATOR_TABLE, AGGREGATOR_SITUATIONS, AGGREGATOR_ACTIONS),
    ],
    ids=["member", "aggregator"],
)
def test_every_phase_and_situation_has_an_action_and_every_action_a_meaning(
    table: Any, situations: Any, actions: Any
) -> None:
    assert set(table) == set(Phase)
    for phase in Phase:
        assert set(table[phase]) == set(Situation)
    used = {action for row in table.values() for action in row.values()}
    assert used == set(actions)
    assert set(situations) <= set(Situation)


def test_whoever_finds_a_phase_over_advances_whatever_else_is_true() -> None:
    for table in (MEMBER_TABLE, AGGREGATOR_TABLE):
        live = [phase for phase in Phase if phase not in (Phase.NONE, Phase.FINAL, Phase.VOID)]
        assert all(table[phase][Situation.OVER] is Do.ADVANCE for phase in live)


def test_nothing_is_done_in_a_round_that_has_ended_but_opening_the_next() -> None:
    for phase in (Phase.NONE, Phase.FINAL, Phase.VOID):
        assert set(MEMBER_TABLE[phase].values()) == {Do.WAIT}
        assert set(AGGREGATOR_TABLE[phase].values()) == {Do.WAIT, Do.OPEN}


def test_the_picture_in_the_readme_is_drawn_from_the_tables() -> None:
    assert with_pictures(README.read_text(encoding="utf-8"), pictures()) == README.read_text(encoding="utf-8")


def test_a_stale_picture_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import node.round_table

    stale = tmp_path / "README.md"
    stale.write_text(README.read_text(encoding="utf-8").replace("**commit**", "**omit**"), encoding="utf-8")
    monkeypatch.setattr(node.round_table, "README", stale)
    assert node.round_table.main(["--check"]) == 1
    assert node.round_table.main([]) == 0
    assert stale.read_text(encoding="utf-8") == README.read_text(encoding="utf-8")


def test_the_command_in_the_readme_works() -> None:
    assert subprocess.run([sys.executable, "-m", "node.round_table", "--check"], check=False).returncode == 0


# ---- a member's situations, each reached by changing one thing


MINE = Mine(member=0, order=2, confirmations=0)


@pytest.fixture
def states(make_world: MakeWorld) -> dict[str, Any]:
    """One state for each phase of an honest round, and the round's world."""
    world = make_world()
    seen: dict[str, Any] = {}
    while not (world.latest and world.state.ended):
        world.tick()
        if world.latest:
            seen.setdefault(world.state.phase.name, world.state)
    seen[world.state.phase.name] = world.state
    return seen


def head_of(state: Any) -> int:
    return int(state.log[-1].block_number)


def test_commit(states: dict[str, Any]) -> None:
    state = replace(states["COMMIT"], commitments={}, close_block=0)
    head = head_of(state)
    assert member_situation(state, head, MINE) is Situation.READY
    assert member_situation(state, head, replace(MINE, prepared=True)) is Situation.PREPARED
    assert member_situation(state, head, replace(MINE, refused=True)) is Situation.BYSTANDER
    assert member_situation(state, head, replace(MINE, member=None)) is Situation.BYSTANDER
    assert member_situation(state, head, replace(MINE, member=99)) is Situation.BYSTANDER
    assert member_situation(state, state.deadline_block - 1, MINE) is Situation.READY
    assert member_situation(state, state.deadline_block, MINE) is Situation.CLOSED


def test_train(states: dict[str, Any]) -> None:
    state = replace(states["TRAIN"], submissions={}, close_block=0)
    head = head_of(state)
    assert member_situation(state, head, MINE) is Situation.READY
    assert member_situation(state, head, replace(MINE, prepared=True)) is Situation.PREPARED
    assert member_situation(state, head, replace(MINE, confirmations=1)) is Situation.EARLY
    assert member_situation(state, head + 1, replace(MINE, confirmations=1)) is Situation.READY
    without = replace(state, commitments={m: c for m, c in state.commitments.items() if m != 0})
    assert member_situation(without, head, MINE) is Situation.BYSTANDER
    assert member_situation(replace(state, equivocations={0: object()}), head, MINE) is Situation.BYSTANDER
    assert member_situation(replace(state, submissions={0: object()}), head, MINE) is Situation.DONE
    assert member_situation(state, state.deadline_block, replace(MINE, prepared=True)) is Situation.CLOSED


def test_verifying(states: dict[str, Any]) -> None:
    """Whoever has a seat and its key, whatever else it did or refused in the round."""
    state, mine = states["VERIFY"], replace(MINE, verifier=True)
    head = head_of(state)
    assert member_situation(state, head, MINE) is Situation.BYSTANDER
    assert member_situation(state, head, mine) is Situation.READY
    assert member_situation(state, head, replace(mine, answered=True)) is Situation.DONE
    assert member_situation(state, head, replace(mine, refused=True)) is Situation.READY
    assert member_situation(replace(state, commitments={}, submissions={}), head, mine) is Situation.READY
    assert member_situation(replace(state, equivocations={0: object()}), head, mine) is Situation.READY
    assert member_situation(state, head, replace(mine, member=99)) is Situation.BYSTANDER
    assert member_situation(state, head, replace(mine, member=None)) is Situation.BYSTANDER
    assert member_situation(state, state.deadline_block, mine) is Situation.CLOSED


@pytest.mark.parametrize("phase", ["PROPOSE", "PROPOSED"])
def test_dissent_comes_before_anything_else(phase: str, states: dict[str, Any]) -> None:
    state, mine = states[phase], replace(MINE, dissents=True)
    head = head_of(state)
    for head in (head_of(state), state.deadline_block + 99):
        assert member_situation(state, head, mine) is Situation.DISSENTING
        assert member_situation(state, head, replace(mine, refused=True)) is Situation.DISSENTING
    assert MEMBER_TABLE[state.phase][Situation.DISSENTING] is Do.DISSENT
    assert member_situation(states["FINAL"], head, mine) is not Situation.DISSENTING


def test_verifiers_wait_for_a_missing_bundle_no_longer_than_the_aggregator_on_duty(states: dict[str, Any]) -> None:
    state = states["VERIFY"]
    for blocks in range(1, 60):
        longer = replace(state, opened=replace(state.opened, policy=replace(state.policy, verify_blocks=blocks)))
        longer = replace(longer, deadline_block=1000 + blocks)
        duty = Duty(ORDER[1], ORDER)
        for head in range(999, 1000 + blocks):
            assert verifiers_patience_ends(longer, head) or not patience_ends(longer, head, duty)
    assert [verifiers_patience_ends(state, state.deadline_block - left) for left in (7, 6)] == [False, True]


def test_proposed(states: dict[str, Any]) -> None:
    state = states["PROPOSED"]
    head = head_of(state)
    assert member_situation(state, head, MINE) is Situation.READY
    assert member_situation(state, head, replace(MINE, content=True)) is Situation.DONE
    assert member_situation(state, head, replace(MINE, prepared=True)) is Situation.PREPARED
    assert member_situation(replace(state, objections={0: object()}), head, MINE) is Situation.DONE


@pytest.mark.parametrize("phase", ["COMMIT", "TRAIN", "VERIFY", "PROPOSE", "PROPOSED"])
def test_each_waits_for_those_before_it_to_advance(phase: str, states: dict[str, Any]) -> None:
    state = states[phase]
    earliest = due(state).earliest_block
    for order in range(4):
        assert not is_over(state, earliest + order - 2, order)
        assert is_over(state, earliest + order - 1, order)
        mine = replace(MINE, order=order, member=None)
        assert member_situation(state, earliest + order - 1, mine) is Situation.OVER


def test_a_round_that_has_ended_is_over_for_nobody(states: dict[str, Any]) -> None:
    assert not is_over(states["FINAL"], 10**6, 0)


# ---- an aggregator's


ORDER = (b"a" * 20, b"b" * 20)  # round 1 of 2: the second is on duty


def test_verify(states: dict[str, Any]) -> None:
    state = states["VERIFY"]
    head = head_of(state)
    duty, other = Duty(ORDER[1], ORDER), Duty(ORDER[0], ORDER)
    assert aggregator_situation(state, head, duty) is Situation.READY
    assert aggregator_situation(state, head, replace(duty, prepared=True)) is Situation.PREPARED
    assert aggregator_situation(state, head, other) is Situation.EARLY
    middle = state.deadline_block - state.policy.verify_blocks // 2
    assert aggregator_situation(state, middle - 1, other) is Situation.READY
    assert aggregator_situation(state, middle - 2, other) is Situation.EARLY
    assert aggregator_situation(state, head, Duty(b"c" * 20, ORDER)) is Situation.BYSTANDER
    late = replace(duty, aggregators=(*ORDER, b"d" * 20), address=b"d" * 20)
    assert aggregator_situation(state, state.deadline_block, late) is Situation.CLOSED


def test_the_one_on_duty_advances_first_then_the_others_by_rank() -> None:
    three = (b"a" * 20, b"b" * 20, b"c" * 20)
    assert [Duty(who, three).order(4) for who in three] == [2, 0, 1]
    assert Duty(b"x" * 20, three).order(4) == 3


def test_patience_ends_before_the_others_turn(states: dict[str, Any]) -> None:
    """On duty one gives up on missing bundles in time to post alone; the others leave the stragglers longer."""
    state = states["VERIFY"]
    assert state.policy.verify_blocks == 8
    deadline = state.deadline_block
    duty, other = Duty(ORDER[1], ORDER), Duty(ORDER[0], ORDER)
    assert [patience_ends(state, head, duty) for head in (deadline - 7, deadline - 6)] == [False, True]
    assert [patience_ends(state, head, other) for head in (deadline - 4, deadline - 3)] == [False, True]
