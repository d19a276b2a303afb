"""A node that lies about the chain: each lie fails by the link that it breaks, and none ends in a traceback."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ledger.audit import audit
from ledger.events import EventInvalid, transcript_next
from ledger.headers import Header
from ledger.ports import ChainLies, ChainMoved
from ledger.records import (
    AggregateProposed,
    Committed,
    Finalised,
    Logged,
    Phase,
    RoundOpened,
    Sealed,
    Submitted,
    VerdictsPosted,
)
from ledger.report import Name, Status
from ledger.round_state import beacon_block

Lie = Callable[[list[Logged]], list[Logged]]


class LyingChain:
    """A chain that answers as `true` does, but for its events."""

    def __init__(self, true: Any, lie: Lie) -> None:
        self.true, self.lie = true, lie

    def __getattr__(self, name: str) -> Any:
        return getattr(self.true, name)

    def events(self, first: int, last: int) -> list[Logged]:
        return self.lie(self.true.events(first, last))


@pytest.fixture(scope="module")
def federation(found_federation: Any) -> Any:
    made = found_federation(3)
    made.play()
    made.play({2: "OFF_GRID"})
    return made


def blamed(federation: Any, lie: Lie) -> set[Name]:
    report = audit(LyingChain(federation.chain, lie), federation.store)
    assert report.status is Status.FAIL
    failing = {link.name for link in report.links if link.status is Status.FAIL}
    assert Name.HISTORY in failing
    return failing - {Name.HISTORY}


def retold(logs: list[Logged]) -> list[Logged]:
    """Transcripts made to fit whatever the events now say: what a liar with some skill would show."""
    before: dict[int, bytes] = {}
    told = []
    for logged in logs:
        number = logged.event.round
        after = transcript_next(before.get(number, bytes(32)), logged.event)
        before[number] = after
        told.append(replace(logged, event=replace(logged.event, transcript=after)))
    return told


def changed(kind: type, change: Callable[[Any], Any], *, skilled: bool = True) -> Lie:
    """The first event of a kind, changed."""

    def lie(logs: list[Logged]) -> list[Logged]:
        at = next(i for i, logged in enumerate(logs) if isinstance(logged.event, kind))
        logs = [*logs[:at], replace(logs[at], event=change(logs[at].event)), *logs[at + 1 :]]
        return retold(logs) if skilled else logs

    return lie


def without(position: int) -> Lie:
    return lambda logs: [logged for at, logged in enumerate(logs) if at != position]


@pytest.mark.parametrize("position", range(12))
def test_no_event_can_be_left_out(federation: Any, position: int) -> None:
    blamed(federation, without(position))


def test_the_end_of_the_history_cannot_be_left_out(federation: Any) -> None:
    assert blamed(federation, lambda logs: logs[:-1]) == {Name.HEADERS}
    assert blamed(federation, lambda logs: logs[:12]) == {Name.HEADERS}
    assert blamed(federation, lambda logs: []) == set()


@pytest.mark.parametrize("position", range(11))
def test_no_two_events_can_change_places(federation: Any, position: int) -> None:
    def swapped(logs: list[Logged]) -> list[Logged]:
        return [*logs[:position], logs[position + 1], logs[position], *logs[position + 2 :]]

    blamed(federation, swapped)


def test_no_event_can_come_twice(federation: Any) -> None:
    blamed(federation, lambda logs: [*logs[:3], logs[2], *logs[3:]])


LIES: dict[str, tuple[Lie, set[Name]]] = {
    "a clumsy change": (changed(Committed, lambda e: replace(e, words_root=b"\x01" * 32), skilled=False), set()),
    "a commitment changed": (changed(Committed, lambda e: replace(e, words_root=b"\x01" * 32)), set()),
    "an empty commitment": (changed(Committed, lambda e: replace(e, words_root=bytes(32))), {Name.COMMITMENTS}),
    "a stranger commits": (changed(Committed, lambda e: replace(e, member=9)), {Name.MEMBERS}),
    "two seats with one signer": (
        changed(RoundOpened, lambda e: replace(e, seats=(e.seats[0], replace(e.seats[1], signer=e.seats[0].signer)))),
        {Name.MEMBERS},
    ),
    "a policy without a phase": (
        changed(RoundOpened, lambda e: replace(e, policy=replace(e.policy, train_blocks=0))),
        {Name.OPENING},
    ),
    "another beacon": (changed(Sealed, lambda e: replace(e, beacon=b"\x05" * 32)), {Name.BEACONS}),
    "closed in another block": (changed(Sealed, lambda e: replace(e, close_block=e.close_block + 1)), {Name.BEACONS}),
    "another bundle": (changed(Submitted, lambda e: replace(e, bundle=b"\x02" * 32)), {Name.SUBMISSIONS}),
    "another member's signature": (changed(Submitted, lambda e: replace(e, member=1)), {Name.SUBMISSIONS}),
    "no signature": (changed(Submitted, lambda e: replace(e, signature=b"")), {Name.SUBMISSIONS}),
    "more ε than the cap": (changed(Submitted, lambda e: replace(e, spent_micro=2**63)), {Name.SUBMISSIONS}),
    "accepted bits changed": (changed(VerdictsPosted, lambda e: replace(e, accepted=1)), {Name.VERDICTS}),
    "a reason too few": (changed(VerdictsPosted, lambda e: replace(e, reasons=e.reasons[1:])), {Name.VERDICTS}),
    "a reason that the chain refutes": (
        changed(VerdictsPosted, lambda e: replace(e, reasons=b"\x01" + e.reasons[1:], accepted=6)),
        {Name.VERDICTS},
    ),
    "a signature that is none": (
        changed(VerdictsPosted, lambda e: replace(e, signed=replace(e.signed, signature=bytes(256)))),
        {Name.VERDICTS},
    ),
    "the quorum's signature under other verdicts": (
        changed(VerdictsPosted, lambda e: replace(e, reasons=e.reasons[:-1] + b"\x11", accepted=e.accepted & 3)),
        {Name.VERDICTS},
    ),
    "a signer too few": (
        changed(VerdictsPosted, lambda e: replace(e, signed=replace(e.signed, signers=1, keys=e.signed.keys[:128]))),
        {Name.VERDICTS},
    ),
    "a signer without a seat": (
        changed(VerdictsPosted, lambda e: replace(e, signed=replace(e.signed, signers=1 | 1 << 9))),
        {Name.VERDICTS},
    ),
    "keys that are not the seats'": (
        changed(
            RoundOpened,
            lambda e: replace(e, seats=tuple(replace(s, verifier=b"\x07" * 31 + bytes([s.member])) for s in e.seats)),
        ),
        {Name.VERDICTS},
    ),
    "another root": (changed(AggregateProposed, lambda e: replace(e, included_root=b"\x03" * 32)), {Name.ROOTS}),
    "another final": (changed(Finalised, lambda e: replace(e, aggregate_bundle=b"\x04" * 32)), {Name.AGGREGATE}),
    "another phase sealed": (changed(Sealed, lambda e: replace(e, closed=Phase.TRAIN)), {Name.BEACONS}),
    "rounds that skip a number": (changed(RoundOpened, lambda e: replace(e, round=2)), set()),
}


@pytest.mark.parametrize(("lie", "links"), LIES.values(), ids=list(LIES))
def test_a_change_is_blamed_on_the_link_it_breaks(federation: Any, lie: Lie, links: set[Name]) -> None:
    found = blamed(federation, lie)
    assert links <= found


def test_an_event_that_cannot_be_decoded_is_a_broken_history(federation: Any) -> None:
    for error in (EventInvalid("gibberish"), ChainLies("two answers")):

        def gibberish(_: list[Logged], error: Exception = error) -> list[Logged]:
            raise error

        assert blamed(federation, gibberish) == set()


def test_headers_that_do_not_fit_are_caught(federation: Any) -> None:
    class OtherHeaders(LyingChain):
        def header(self, number: int) -> Header:
            true = self.true.header(number)
            return replace(true, **{self.field: b"\x06" * 32}) if number == self.at else true

    sealed = next(at for at in federation.state.log if isinstance(at.event, Sealed))
    for field, at, link in (
        ("hash", sealed.block_number, Name.HEADERS),
        ("parent_hash", sealed.block_number, Name.HEADERS),
        ("mix_hash", beacon_block(sealed.event.close_block), Name.BEACONS),
    ):
        chain = OtherHeaders(federation.chain, lambda logs: logs)
        chain.field, chain.at = field, at
        report = audit(chain, federation.store)
        assert {found.name for found in report.links if found.status is Status.FAIL} == {link}


def test_a_chain_that_reorganises_under_the_audit_is_no_verdict(found_federation: Any) -> None:
    made = found_federation(3)
    made.play()

    def moving(logs: list[Logged]) -> list[Logged]:
        made.chain.reorg(1)
        return logs

    with pytest.raises(ChainMoved):
        audit(LyingChain(made.chain, moving), made.store)


def test_events_that_arrive_during_the_audit_are_audited_too(found_federation: Any) -> None:
    made = found_federation(3)
    made.open()
    late = iter([2])

    def busy(logs: list[Logged]) -> list[Logged]:
        for member in late:
            made.commit([member])
        return logs

    report = audit(LyingChain(made.chain, busy), made.store)
    assert report.status is Status.PASS
    assert "1 of 3 members committed" in report.find(Name.COMMITMENTS).evidence
