"""The outbox: what is intended happens once, whatever the chain, the node or the power does in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ledger.actions import Action, Advance, calldata
from ledger.database import StorageFault
from ledger.locks import KeyInUse
from ledger.outbox import FeePolicy, IntentChanged, Outbox, Status
from ledger.ports import ChainUnavailable, SendRefused
from ledger.records import Committed, Submitted
from ledger.transactions import Transaction, parse_transaction
from proofs.errors import LocalFault, WireFault

Open = Callable[..., Outbox]


@pytest.fixture
def open_outbox(lab: Any, tmp_path: Path) -> Iterator[Open]:
    """Opens (again and again) the outbox of signer 0 on the lab's chain; closes what is left open."""
    opened: list[Outbox] = []

    def open_it(chain: Any = None, key: Any = None, path: str = "outbox.sqlite", **options: Any) -> Outbox:
        key = key or lab.cast.signers[0]
        box = Outbox(tmp_path / path, chain or lab.chain, key, lock_folder=tmp_path, **options)
        opened.append(box)
        return box

    yield open_it
    for box in opened:
        box.close()


class Wire:
    """A chain port whose wire can be cut: before sending, or after, so that only the answer is lost."""

    def __init__(self, chain: Any) -> None:
        self._chain = chain
        self.sent: list[bytes] = []
        self.lose_answers = 0
        self.refuse = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chain, name)

    def send_raw(self, raw: bytes) -> bytes:
        self.sent.append(raw)
        if self.refuse:
            self.refuse -= 1
            raise SendRefused("the pool is full")
        tx_hash: bytes = self._chain.send_raw(raw)
        if self.lose_answers:
            self.lose_answers -= 1
            raise ChainUnavailable("the answer was lost")
        return tx_hash


def events(lab: Any, kind: type[Any]) -> list[Any]:
    return [e.event for e in lab.chain.events(0, lab.chain.head().number) if isinstance(e.event, kind)]


def until_done(box: Outbox, name: str) -> Any:
    for _ in range(10):
        box.pump()
        intent = box.get(name)
        if intent is not None and intent.status in (Status.DONE, Status.FAILED):
            return intent
    raise AssertionError(f"{name} is still {box.get(name)}")


def test_an_intent_is_sent_once_and_settled_by_its_receipt(lab: Any, open_outbox: Open) -> None:
    lab.open()
    box, action = open_outbox(), lab.commitment(1, 0)
    assert box.post("round-1/commit", action).status is Status.QUEUED
    assert box.pending() == box.intents()
    done = until_done(box, "round-1/commit")
    assert (done.status, done.nonce, done.action) == (Status.DONE, 0, action)
    assert lab.chain.receipt(done.tx_hash).block_number == done.block_number
    assert box.post("round-1/commit", action) == done
    assert box.pump() == []
    assert lab.chain.nonce(lab.cast.signers[0].address) == len(events(lab, Committed)) == 1


def test_an_intent_never_changes(lab: Any, open_outbox: Open) -> None:
    lab.open()
    box = open_outbox()
    box.post("round-1/commit", lab.commitment(1, 0))
    with pytest.raises(IntentChanged):
        box.post("round-1/commit", lab.commitment(1, 1))
    assert issubclass(IntentChanged, LocalFault)


def test_a_refused_intent_names_the_contracts_error_and_costs_no_nonce(lab: Any, open_outbox: Open) -> None:
    lab.open()
    box = open_outbox()
    box.post("early", lab.submission(1, 0))
    failed = until_done(box, "early")
    assert (failed.status, failed.error, failed.nonce) == (Status.FAILED, "WrongPhase", None)
    assert failed.error_arguments == ("1", "2", "1")
    lab.commit_all()
    lab.advance()
    assert box.retry("early").status is Status.QUEUED
    assert until_done(box, "early").status is Status.DONE
    with pytest.raises(LocalFault):
        box.retry("early")


def test_a_transaction_that_is_mined_too_late_fails_by_name(lab: Any, open_outbox: Open) -> None:
    """It was fine when it was signed, and its deadline passed before it was mined."""
    lab.open()
    box = open_outbox()
    lab.automine(False)
    box.post("commit", lab.commitment(1, 0))
    box.pump()
    sent = box.get("commit")
    lab.drop_pool()
    lab.mine(8)
    assert sent is not None
    assert sent.status is Status.SENT
    box.pump()
    lab.mine()
    failed = until_done(box, "commit")
    assert (failed.status, failed.error, failed.nonce) == (Status.FAILED, "PastDeadline", 0)
    lab.automine(True)


def test_several_intents_take_consecutive_nonces_in_order(lab: Any, open_outbox: Open) -> None:
    """Posted together, tried each on the state that those before lead to, mined in one block."""
    lab.open()
    for member in (1, 2):
        lab.act(lab.cast.signers[member], lab.commitment(1, member))
    box = open_outbox()
    lab.automine(False)
    box.post("commit", lab.commitment(1, 0))
    box.post("again", lab.commitment(1, 0))
    box.pump()
    lab.mine()
    box.pump()
    assert [(intent.status, intent.nonce) for intent in box.intents()] == [(Status.DONE, 0), (Status.DONE, 1)]
    assert len({intent.block_number for intent in box.intents()}) == 1
    lab.automine(True)


def test_a_lost_answer_sends_nothing_twice(lab: Any, open_outbox: Open) -> None:
    lab.open()
    wire = Wire(lab.chain)
    box = open_outbox(wire)
    wire.lose_answers = 1
    box.post("commit", lab.commitment(1, 0))
    with pytest.raises(WireFault):
        box.pump()
    assert until_done(box, "commit").status is Status.DONE
    assert len(set(wire.sent)) == 1
    assert lab.chain.nonce(lab.cast.signers[0].address) == 1


def test_a_pool_that_refuses_is_asked_again_with_the_same_bytes(lab: Any, open_outbox: Open) -> None:
    lab.open()
    wire = Wire(lab.chain)
    box = open_outbox(wire)
    wire.refuse = 1
    box.post("commit", lab.commitment(1, 0))
    box.pump()
    intent = box.get("commit")
    assert intent is not None
    assert (intent.status, intent.note) == (Status.SENT, "the pool is full")
    lab.mine()
    assert until_done(box, "commit").status is Status.DONE
    assert len(wire.sent) == 2
    assert len(set(wire.sent)) == 1


def test_the_chain_goes_down_and_comes_back(lab: Any, open_outbox: Open) -> None:
    lab.open()
    box = open_outbox()
    lab.down()
    box.post("commit", lab.commitment(1, 0))
    for _ in range(2):
        with pytest.raises(ChainUnavailable):
            box.pump()
    lab.up()
    assert until_done(box, "commit").status is Status.DONE
    assert len(events(lab, Committed)) == 1


def test_a_node_that_lost_its_pool_gets_the_transaction_again(lab: Any, open_outbox: Open) -> None:
    lab.open()
    wire = Wire(lab.chain)
    box = open_outbox(wire)
    lab.automine(False)
    box.post("commit", lab.commitment(1, 0))
    box.pump()
    lab.drop_pool()
    lab.mine()
    box.pump()
    lab.mine()
    assert until_done(box, "commit").status is Status.DONE
    assert len(set(wire.sent)) == 1
    lab.automine(True)


def test_a_reorg_under_a_submission_loses_nothing_and_sends_nothing_new(lab: Any, open_outbox: Open) -> None:
    """Dropped transactions do not return to the pool; the outbox notices and sends the same bytes."""
    lab.to_train()
    stranger, wire = lab.cast.stranger, Wire(lab.chain)
    box = open_outbox(wire, key=stranger)
    lab.mine(2)
    box.post("submit", lab.submission(1, 0))
    first = until_done(box, "submit")
    lab.reorg(2)
    assert events(lab, Submitted) == []
    again = until_done(box, "submit")
    assert again.status is Status.DONE
    assert again.tx_hash == first.tx_hash
    assert again.block_hash != first.block_hash
    assert len(set(wire.sent)) == 1
    assert [event.member for event in events(lab, Submitted)] == [0]


def test_what_is_deep_enough_is_no_longer_watched(lab: Any, open_outbox: Open) -> None:
    lab.open()
    box = open_outbox(confirmations=3)
    box.post("commit", lab.commitment(1, 0))
    assert not until_done(box, "commit").final
    lab.mine(3)
    box.pump()
    intent = box.get("commit")
    assert intent is not None
    assert intent.final


def test_a_stuck_transaction_is_replaced_under_its_nonce(lab: Any, open_outbox: Open) -> None:
    lab.open()
    for member in (1, 2):
        lab.act(lab.cast.signers[member], lab.commitment(1, member))
    wire = Wire(lab.chain)
    box = open_outbox(wire, fees=FeePolicy(bump_after_blocks=1))
    lab.automine(False)
    box.post("commit", lab.commitment(1, 0))
    box.pump()
    old = parse_transaction(wire.sent[-1])[0]
    lab.set_base_fee(10 * old.max_fee_wei)
    lab.mine()
    box.pump()
    lab.set_base_fee(10 * old.max_fee_wei)
    lab.mine()
    done = until_done(box, "commit")
    new = parse_transaction(wire.sent[-1])[0]
    assert done.status is Status.DONE
    assert new.max_fee_wei > 11 * old.max_fee_wei // 10
    assert replace(new, max_fee_wei=0, priority_fee_wei=0) == replace(old, max_fee_wei=0, priority_fee_wei=0)
    assert len(events(lab, Committed)) == 3
    lab.automine(True)


def test_fees_stay_below_the_cap(lab: Any, open_outbox: Open) -> None:
    lab.open()
    wire = Wire(lab.chain)
    box = open_outbox(wire, fees=FeePolicy(cap_wei=2 * 10**9, bump_after_blocks=1))
    lab.automine(False)
    lab.set_base_fee(5 * 10**9)
    lab.mine()
    box.post("commit", lab.commitment(1, 0))
    for _ in range(3):
        box.pump()
        lab.set_base_fee(5 * 10**9)
        lab.mine()
    assert {parse_transaction(raw)[0].max_fee_wei for raw in wire.sent} == {2 * 10**9}
    lab.automine(True)


def test_a_nonce_that_somebody_else_used_is_given_up_only_when_that_is_deep(lab: Any, open_outbox: Open) -> None:
    """The same key on another machine, which no lock here can see."""
    lab.open()
    key, chain = lab.cast.signers[0], lab.chain
    box = open_outbox(confirmations=3)
    lab.automine(False)
    box.post("commit", lab.commitment(1, 0))
    box.pump()
    lab.drop_pool()
    foreign = Transaction(chain.chain_id, 0, 2 * 10**9, 20 * 10**9, 21_000, key.address, 0, b"")
    chain.send_raw(key.sign_transaction(foreign))
    lab.mine()
    box.pump()
    intent = box.get("commit")
    assert intent is not None
    assert (intent.status, intent.nonce, intent.taken_block) == (Status.SENT, 0, chain.head().number)
    lab.mine(3)
    box.pump()
    lab.mine()
    done = until_done(box, "commit")
    assert (done.status, done.nonce) == (Status.DONE, 1)
    assert len(events(lab, Committed)) == 1
    lab.automine(True)


def test_two_daemons_cannot_share_a_key(lab: Any, open_outbox: Open, tmp_path: Path) -> None:
    """Not even with state folders of their own; the error says whom to stop."""
    box = open_outbox()
    with pytest.raises(KeyInUse, match=r"in use by process \d+: stop that one"):
        open_outbox(path="another.sqlite")
    open_outbox(key=lab.cast.signers[1], path="other.sqlite")
    box.close()
    open_outbox(path="another.sqlite")
    assert issubclass(KeyInUse, LocalFault)


def test_a_state_folder_that_cannot_be_used_is_a_clear_error(lab: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    key = lab.cast.signers[0]
    with pytest.raises(StorageFault):
        Outbox(tmp_path / "file" / "outbox.sqlite", lab.chain, key, lock_folder=tmp_path)
    with pytest.raises(LocalFault, match="cannot be locked"):
        Outbox(tmp_path / "outbox.sqlite", lab.chain, key, lock_folder=tmp_path / "file")
    Outbox(tmp_path / "outbox.sqlite", lab.chain, key, lock_folder=tmp_path).close()  # the lock was let go


def test_an_outbox_serves_one_key_on_one_chain(lab: Any, open_outbox: Open) -> None:
    open_outbox().close()
    with pytest.raises(LocalFault, match="another chain, contract or key"):
        open_outbox(key=lab.cast.signers[1])


def test_a_full_disk_is_a_clear_error_and_loses_nothing(lab: Any, open_outbox: Open) -> None:
    lab.open()
    box = open_outbox()
    box.post("commit", lab.commitment(1, 0))
    connection = box._store._database._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StorageFault, match="free some space"):
        box.post("too large", Advance(1, bytes(20_000)))
    assert box.get("too large") is None
    connection.execute("PRAGMA max_page_count=1000000")
    assert until_done(box, "commit").status is Status.DONE


def test_everything_survives_a_restart(lab: Any, open_outbox: Open) -> None:
    lab.open()
    lab.automine(False)
    box = open_outbox()
    box.post("commit", lab.commitment(1, 0))
    box.pump()
    box.post("queued", lab.commitment(1, 0))
    before = box.intents()
    box.close()
    lab.drop_pool()
    wire = Wire(lab.chain)
    again = open_outbox(wire)
    assert again.intents() == before
    again.pump()
    lab.mine()
    again.pump()
    assert [intent.status for intent in again.intents()] == [Status.DONE, Status.DONE]
    assert [parse_transaction(raw)[0].nonce for raw in wire.sent[:2]] == [0, 1]
    actions: list[Action] = [intent.action for intent in again.intents()]
    assert [calldata(action) for action in actions] == [parse_transaction(raw)[0].data for raw in wire.sent[:2]]
    lab.automine(True)
