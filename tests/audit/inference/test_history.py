"""The law for events of AuditLog, and a node that lies about them: no lie ends in a PASS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from ledger.log.actions import AnswerOmission, NameAuditors, Register, ReportFork, ReportOmission, ReportRewrite
from ledger.log.follower import replay_log, settled_log
from ledger.log.history import LogHistory, LogRule, LogRuleBroken
from ledger.log.inclusion import Standing, verify_receipt
from ledger.log.reader import FolderFiles, LogReader
from ledger.log.records import (
    Anchored,
    AuditorRegistered,
    AuditorsNamed,
    Checkpointed,
    Forked,
    LogServer,
    OmissionAnswered,
    OmissionReported,
    Outcome,
    Rewritten,
    ServerRegistered,
)
from ledger.log.statements import Checkpoint
from ledger.ports import ContractRefused
from ledger.report import Name, Status
from proofs.errors import WireFault
from proofs.merkle import root_of_hashes

Lie = Callable[[list[Anchored]], list[Anchored]]


class LyingChain:
    """Answers as `true` does, but for what it is told to change."""

    def __init__(self, true: Any, lie: Lie, storage: Callable[[LogServer], LogServer] = lambda found: found) -> None:
        self.true, self.lie, self.storage = true, lie, storage

    def __getattr__(self, name: str) -> Any:
        return getattr(self.true, name)

    def log_events(self, first: int, last: int) -> list[Anchored]:
        return self.lie(self.true.log_events(first, last))

    def log_server(self, address: bytes) -> LogServer:
        return self.storage(self.true.log_server(address))


@pytest.fixture(scope="module")
def eventful(new_house: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Everything that can be logged: two checkpoints, an answered and an open omission, a rewrite."""
    house = new_house(tmp_path_factory.mktemp("eventful") / "log")
    house.answers(3)
    house.anchor()
    house.mine(40)
    for place in (1, 2):
        promise = house.receipts[place].entry.promise
        fields = promise.sequence, promise.due_block, promise.leaf
        house.do(ReportOmission(house.key.address, *fields, house.receipts[place].signature))
        if place == 1:
            house.do(AnswerOmission(house.key.address, *fields, tuple(house.log.tree().inclusion(1))))
    house.answers(4)
    house.anchor()
    house.do(NameAuditors(()), house.key)
    root = sha256(b"another").digest()
    signature, tree = house.signed(Checkpoint(5, root)), house.log.tree()
    proof = tuple(tree.consistency(5))
    house.do(ReportRewrite(house.key.address, 5, root, signature, tree.root(5), proof))
    return house


@pytest.fixture(scope="module")
def events(eventful: Any) -> list[Anchored]:
    return list(eventful.chain.log_events(0, eventful.chain.head().number))


def test_the_events_lead_to_what_the_contract_holds(eventful: Any) -> None:
    found, links = settled_log(eventful.chain)
    assert [link.status for link in links] == [Status.PASS, Status.PASS, Status.NOT_PROVEN]  # a twin shows no code
    host = found.history.servers[eventful.key.address]
    assert host.stored() == eventful.chain.log_server(eventful.key.address)
    head = found.head.number
    assert (host.count(Outcome.ANSWERED, head), host.count(Outcome.OPEN, head)) == (1, 1)
    assert host.count(Outcome.OMITTED, head + 10) == 1
    points = [host.covering(sequence) for sequence in (0, 2, 3, 6)]
    assert [point.size if point else 0 for point in points] == [3, 3, 7, 7]
    assert host.covering(7) is None


def take_all(history: LogHistory, told: list[Anchored]) -> None:
    for at in told:
        history.take(at)


def changed(kind: type, **changes: Any) -> Lie:
    """The first event of a kind, with other fields."""

    def lie(told: list[Anchored]) -> list[Anchored]:
        at = next(place for place, event in enumerate(told) if isinstance(event.event, kind))
        return [*told[:at], replace(told[at], event=replace(told[at].event, **changes)), *told[at + 1 :]]

    return lie


def again(kind: type) -> Lie:
    """An event of a kind a second time, behind everything."""

    def lie(told: list[Anchored]) -> list[Anchored]:
        found = next(event for event in told if isinstance(event.event, kind))
        return [*told, replace(found, block_number=told[-1].block_number + 1)]

    return lie


BROKEN: dict[str, tuple[Lie, LogRule]] = {
    "two events in one place": (lambda told: [*told, told[-1]], LogRule.ORDER),
    "events out of order": (lambda told: [*told[:-2], told[-1], told[-2]], LogRule.ORDER),
    "a server twice": (again(ServerRegistered), LogRule.SERVER),
    "a server that promises nothing": (changed(ServerRegistered, promise_blocks=0), LogRule.SERVER),
    "a stranger's checkpoint": (changed(Checkpointed, server=b"\x11" * 20), LogRule.SERVER),
    "an auditor without a key": (changed(AuditorRegistered, key=bytes(32)), LogRule.AUDITORS),
    "an auditor that is none": (changed(AuditorsNamed, auditors=(b"\x11" * 20,)), LogRule.AUDITORS),
    "a checkpoint twice": (again(Checkpointed), LogRule.GROWS),
    "an empty checkpoint": (changed(Checkpointed, size=0), LogRule.GROWS),
    "another root": (changed(Checkpointed, root=bytes(32)), LogRule.SIGNATURE),
    "another size": (changed(Checkpointed, size=2), LogRule.SIGNATURE),
    "no signature": (changed(Checkpointed, signature=bytes(65)), LogRule.SIGNATURE),
    "a report before its time": (changed(OmissionReported, due_block=10**6), LogRule.DUE),
    "a report twice": (again(OmissionReported), LogRule.DUE),
    "a report that calls itself late": (changed(OmissionReported, late=True), LogRule.TERMS),
    "a report with more time to answer": (changed(OmissionReported, answer_by=10**6), LogRule.TERMS),
    "a report of another promise": (changed(OmissionReported, leaf=bytes(32)), LogRule.SIGNATURE),
    "an answer to no report": (changed(OmissionAnswered, leaf=bytes(32)), LogRule.ANSWER),
    "an answer twice": (again(OmissionAnswered), LogRule.ANSWER),
    "a rewrite twice": (again(Rewritten), LogRule.FORK),
    "a rewrite that is none": (changed(Rewritten, true_root=bytes(32)), LogRule.FORK),
    "a rewrite of another log": (changed(Rewritten, anchored_size=6), LogRule.FORK),
    "a rewrite that nobody signed": (changed(Rewritten, signature=bytes(65)), LogRule.SIGNATURE),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_an_event_that_the_contract_would_not_write_breaks_its_rule(
    eventful: Any, events: list[Anchored], kind: str
) -> None:
    lie, rule = BROKEN[kind]
    history = LogHistory(eventful.domain, eventful.chain.answer_blocks())
    with pytest.raises(LogRuleBroken) as caught:
        take_all(history, lie(list(events)))
    assert caught.value.rule is rule
    found, links = settled_log(LyingChain(eventful.chain, lie))
    assert found.broken
    assert links[0].status is Status.FAIL


def test_a_fork_is_two_signed_roots_and_nothing_less(new_house: Any, tmp_path: Path) -> None:
    house = new_house(tmp_path / "log")
    house.answers(2)
    house.anchor()
    other = sha256(b"other").digest()
    roots = [
        (house.log.root(), house.signed(Checkpoint(2, house.log.root()))),
        (other, house.signed(Checkpoint(2, other))),
    ]
    house.do(ReportFork(house.key.address, 2, *roots[0], *roots[1]))
    assert settled_log(house.chain)[0].history.servers[house.key.address].forked is not None
    told = house.chain.log_events(0, house.chain.head().number)
    for changes, rule in (
        ({"other_root": roots[0][0], "other_signature": roots[0][1]}, LogRule.FORK),
        ({"other_signature": roots[0][1]}, LogRule.SIGNATURE),
    ):
        history = LogHistory(house.domain, house.chain.answer_blocks())
        with pytest.raises(LogRuleBroken) as caught:
            take_all(history, changed(Forked, **changes)(told))
        assert caught.value.rule is rule


@pytest.mark.parametrize("position", range(10))
def test_no_event_can_be_left_out(eventful: Any, events: list[Anchored], position: int) -> None:
    """By what follows it, by what the contract holds, or by the receipts of its block."""
    assert len(events) == 10
    lying = LyingChain(eventful.chain, lambda told: told[:position] + told[position + 1 :])
    assert Status.FAIL in {link.status for link in settled_log(lying)[1]}


def test_the_end_cannot_be_left_out_with_storage_made_to_fit(eventful: Any, events: list[Anchored]) -> None:
    """Only the headers tell: the bloom of the block rules nothing out, and its receipts hold an event."""
    lying = LyingChain(eventful.chain, lambda told: told[:-1], lambda found: replace(found, fork_block=0))
    _, links = settled_log(lying)
    assert [link.name for link in links if link.status is Status.FAIL] == [Name.HEADERS]


def test_an_event_that_is_in_no_receipt_is_an_invention(eventful: Any) -> None:
    """A checkpoint that the server did sign, and that was never on the chain."""
    house = eventful
    root = root_of_hashes([receipt.entry.leaf for receipt in house.receipts[:2]])
    signature = house.signed(Checkpoint(2, root))

    def lie(told: list[Anchored]) -> list[Anchored]:
        first = next(place for place, at in enumerate(told) if isinstance(at.event, Checkpointed))
        event = Checkpointed(house.key.address, 2, root, signature)
        return [*told[:first], replace(told[first - 1], event=event, log_index=1), *told[first:]]

    _, links = settled_log(LyingChain(house.chain, lie))
    assert [link.name for link in links if link.status is Status.FAIL] == [Name.HEADERS]


@pytest.mark.parametrize(
    "change",
    [{"size": 9}, {"root": bytes(32)}, {"reports": 0}, {"answers": 2}, {"fork_block": 0}, {"auditors": bytes(32)}],
)
def test_storage_that_says_otherwise_is_noticed(eventful: Any, change: dict[str, Any]) -> None:
    lying = LyingChain(eventful.chain, lambda told: told, lambda found: replace(found, **change))
    assert settled_log(lying)[1][0].status is Status.FAIL

    def refuse(_: LogServer) -> LogServer:
        raise ContractRefused("UnknownServer")

    assert settled_log(LyingChain(eventful.chain, lambda told: told, refuse))[1][0].status is Status.FAIL


def test_a_node_that_hides_the_server_or_its_checkpoint_makes_no_receipt_pass(eventful: Any) -> None:
    reader = LogReader(FolderFiles(eventful.folder), eventful.domain, eventful.key.address)
    hidden: list[Lie] = [lambda told: [], lambda told: [at for at in told if not isinstance(at.event, Checkpointed)]]
    for lie in hidden:
        verified = verify_receipt(LyingChain(eventful.chain, lie), eventful.kept(1), reader)
        assert verified.report.status is Status.FAIL
        assert verified.standing is not Standing.INCLUDED
    assert verify_receipt(eventful.chain, eventful.kept(1), reader).standing is Standing.INCLUDED


def test_from_the_contracts_first_block_on_nothing_can_be_hidden_before_what_is_shown(
    new_house: Any, tmp_path: Path
) -> None:
    """A node that shows one server and hides another, which registered before; or shows nothing at all."""
    house = new_house(tmp_path / "log")
    house.answers(1)
    house.anchor()
    house.do(Register(7), house.payer)
    other: Lie = lambda told: [at for at in told if getattr(at.event, "server", b"") == house.payer.address]  # noqa: E731
    nothing: Lie = lambda told: []  # noqa: E731
    for lie, unasked in ((other, Status.PASS), (nothing, Status.NOT_PROVEN)):
        lying = LyingChain(house.chain, lie, lambda found: found)
        assert settled_log(lying)[1][1].status is unasked, "the walk begins with the first event that is shown"
        assert settled_log(lying, 1)[1][1].status is Status.FAIL
    assert settled_log(house.chain, 1)[1][1].status is Status.PASS


def test_an_honest_replay_keeps_the_block_it_hangs_on(eventful: Any) -> None:
    found = replay_log(eventful.chain)
    assert found.anchor.contract == eventful.chain.log_address
    assert found.anchor.block_hash == eventful.chain.head().hash


def test_a_reorganisation_under_the_reading_accuses_nobody(new_house: Any, tmp_path: Path) -> None:
    house = new_house(tmp_path / "log")
    house.answers(1)
    house.anchor()

    def reorganise(found: LogServer) -> LogServer:
        house.chain.reorg(2)
        return found

    with pytest.raises(WireFault):
        settled_log(LyingChain(house.chain, lambda told: told, reorganise))
