"""The follower: every event once and in order, through reorgs and restarts; and no lie of the node is believed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from eth_utils.crypto import keccak

from ledger.database import Database
from ledger.events import transcript_next
from ledger.follower import Follower
from ledger.opening import Rule, RuleBroken
from ledger.ports import ChainLies, ChainMoved, ChainUnavailable, WrongChain
from ledger.records import Committed, Phase
from ledger.twin import TwinChain
from proofs.errors import LocalFault

Open = Callable[..., Follower]


@pytest.fixture
def open_follower(tmp_path: Path) -> Iterator[Open]:
    opened: list[Follower] = []

    def open_it(chain: Any, name: str = "follower.sqlite", **options: Any) -> Follower:
        follower = Follower(tmp_path / name, chain, **options)
        opened.append(follower)
        return follower

    yield open_it
    for follower in opened:
        follower.close()


class Liar:
    """A chain port whose answers can be edited."""

    def __init__(self, chain: Any) -> None:
        self._chain = chain
        self.edit: Callable[[list[Any]], list[Any]] = lambda logs: logs
        self.asked: list[tuple[int, int]] = []
        self.after_events: Callable[[], None] = lambda: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chain, name)

    def events(self, first: int, last: int) -> list[Any]:
        self.asked.append((first, last))
        found = self.edit(self._chain.events(first, last))
        self.after_events()
        return found


def test_it_follows_a_round_as_it_happens(lab: Any, open_follower: Open) -> None:
    follower = open_follower(lab.chain)
    follower.poll()
    assert (follower.history.latest, follower.state_of(1)) == (0, None)
    for step in (lab.open, lab.commit_all, lab.advance, lab.submit_all, lab.advance, lab.judge):
        step()
        polled = follower.poll()
        assert polled.undone_to is None
        assert [logged.event for logged in polled.events]
        assert follower.rounds() == lab.history().rounds
    assert follower.cursor == lab.chain.head().number
    assert follower.poll().events == ()


def test_a_restart_reads_the_store_and_not_the_chain_again(lab: Any, open_follower: Open) -> None:
    lab.to_proposed()
    follower = open_follower(lab.chain)
    follower.poll()
    before, cursor = follower.history, follower.cursor
    follower.close()
    liar = Liar(lab.chain)
    again = open_follower(liar)
    assert (again.history, again.cursor, liar.asked) == (before, cursor, [])
    lab.mine()
    again.poll()
    assert liar.asked == [(cursor + 1, cursor + 1)]


def test_a_reorg_is_undone_to_the_common_ancestor(lab: Any, open_follower: Open) -> None:
    lab.open()
    follower = open_follower(lab.chain)
    follower.poll()
    lab.commit_all()
    follower.poll()
    state = follower.state_of(1)
    assert state is not None
    assert len(state.commitments) == 3
    ancestor = lab.chain.head().number - 3
    lab.reorg(3)
    lab.mine()
    polled = follower.poll()
    assert polled.undone_to == ancestor
    assert follower.rounds() == lab.history().rounds
    assert not lab.state().commitments
    lab.commit_all()
    follower.poll()
    assert follower.rounds() == lab.history().rounds
    assert len(lab.state().commitments) == 3


def test_a_reorg_while_nobody_was_looking_is_undone_too(lab: Any, open_follower: Open) -> None:
    follower = open_follower(lab.chain)
    follower.poll()
    lab.to_train()
    follower.poll()
    follower.close()
    lab.reorg(4)
    again = open_follower(lab.chain)
    again.poll()
    assert again.rounds() == lab.history().rounds


def test_confirmations_keep_it_behind_the_head(lab: Any, open_follower: Open) -> None:
    follower = open_follower(lab.chain, confirmations=2)
    lab.open()
    follower.poll()
    assert follower.history.latest == 0
    lab.mine(2)
    follower.poll()
    assert follower.history.latest == 1


def test_the_chain_goes_down_and_comes_back(lab: Any, open_follower: Open) -> None:
    lab.open()
    follower = open_follower(lab.chain)
    follower.poll()
    lab.commit_all()
    lab.down()
    with pytest.raises(ChainUnavailable):
        follower.poll()
    assert follower.rounds()[1].phase is Phase.COMMIT
    lab.up()
    assert len(follower.poll().events) == 3


def test_a_long_history_is_read_in_steps(twin_lab: Any, open_follower: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.follower.MAX_BLOCKS_PER_STEP", 5)
    twin_lab.to_proposed()
    liar = Liar(twin_lab.chain)
    follower = open_follower(liar, start_block=3)
    follower.poll()
    assert liar.asked[0] == (3, 7)
    assert max(last - first for first, last in liar.asked) == 4
    assert follower.rounds() == twin_lab.history().rounds


def test_a_hidden_event_is_noticed_and_the_truth_still_gets_in(lab: Any, open_follower: Open) -> None:
    lab.open()
    liar = Liar(lab.chain)
    follower = open_follower(liar)
    follower.poll()
    lab.commit_all()
    for hidden in range(2):
        liar.edit = lambda logs, hidden=hidden: logs[:hidden] + logs[hidden + 1 :]
        with pytest.raises(RuleBroken) as caught:
            follower.poll()
        assert caught.value.rule is Rule.TRANSCRIPT
    liar.edit = lambda logs: logs[:-1]
    with pytest.raises(ChainLies, match="noted others"):
        follower.poll()
    liar.edit = lambda logs: logs
    follower.poll()
    assert follower.rounds() == lab.history().rounds


def test_hiding_everything_is_noticed_too(lab: Any, open_follower: Open) -> None:
    liar = Liar(lab.chain)
    follower = open_follower(liar)
    liar.edit = lambda logs: []
    lab.open()
    with pytest.raises(ChainLies):
        follower.poll()
    assert follower.cursor == -1


def test_an_event_hidden_at_the_end_of_a_step_is_read_again(
    twin_lab: Any, open_follower: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lie began one step before it was noticed: the next polls go back until the truth fits."""
    monkeypatch.setattr("ledger.follower.MAX_BLOCKS_PER_STEP", 2)
    twin_lab.open()
    twin_lab.commit_all()
    twin_lab.mine(6)
    liar = Liar(twin_lab.chain)
    follower = open_follower(liar)
    liar.edit = lambda logs: [log for log in logs if not (isinstance(log.event, Committed) and log.event.member == 0)]
    with pytest.raises(RuleBroken):
        follower.poll()
    liar.edit = lambda logs: logs
    for _ in range(20):
        try:
            follower.poll()
        except RuleBroken:
            continue
        break
    assert follower.rounds() == twin_lab.history().rounds


def test_a_forged_event_is_noticed(lab: Any, open_follower: Open) -> None:
    """Even with the transcript recomputed, what the contract noted is something else."""
    lab.open()
    lab.act(lab.cast.signers[0], lab.commitment(1, 0))
    liar = Liar(lab.chain)
    follower = open_follower(liar)

    def forge(logs: list[Any]) -> list[Any]:
        event = replace(logs[-1].event, words_root=keccak(text="forged"))
        event = replace(event, transcript=transcript_next(logs[0].event.transcript, event))
        return [*logs[:-1], replace(logs[-1], event=event)]

    liar.edit = forge
    with pytest.raises(ChainLies):
        follower.poll()
    liar.edit = lambda logs: [*logs[:-1], replace(logs[-1], event=replace(logs[-1].event, words_root=bytes(32)))]
    with pytest.raises(RuleBroken):
        follower.poll()
    liar.edit = lambda logs: [replace(log, block_number=log.block_number + 1000) for log in logs]
    with pytest.raises(ChainLies):
        follower.poll()
    assert follower.history.latest == 0


def test_a_reorg_between_two_answers_is_a_reason_to_ask_again(twin_lab: Any, open_follower: Open) -> None:
    twin_lab.open()
    liar = Liar(twin_lab.chain)
    follower = open_follower(liar)
    liar.after_events = lambda: twin_lab.reorg(1)
    with pytest.raises(ChainMoved):
        follower.poll()
    liar.after_events = lambda: None
    follower.poll()
    assert follower.rounds() == twin_lab.history().rounds == {}


def test_another_chain_behind_the_same_address_is_refused(
    twin_lab: Any, open_follower: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin_lab.open()
    follower = open_follower(twin_lab.chain)
    follower.poll()
    follower.close()
    admin = twin_lab.cast.coordinator.address
    monkeypatch.setattr("ledger.twin.GENESIS_TIME", 1)
    other = TwinChain(admin=admin, coordinator=admin, balances={admin: 1})
    with pytest.raises(WrongChain, match="another genesis"):
        open_follower(other).poll()
    with pytest.raises(LocalFault, match="another chain, contract or start block"):
        open_follower(twin_lab.chain, start_block=5)


def test_a_store_of_another_kind_is_refused(twin_lab: Any, open_follower: Open, tmp_path: Path) -> None:
    Database(tmp_path / "other.sqlite", "candor/other/1", "CREATE TABLE t (x)").close()
    with pytest.raises(LocalFault, match="candor/other/1"):
        open_follower(twin_lab.chain, "other.sqlite")
