"""Verdicts by quorum among whole daemons: no aggregator and no minority of verifiers admits or excludes anybody."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from ledger.actions import Submit
from ledger.bls import BlsKey
from ledger.crash import Point
from ledger.eip712 import Submission, sign_submission
from ledger.quorum import SignedVerdicts, check_signed, key_hash
from ledger.records import Phase, Reason, VoidReason
from node.collecting import Agreed, Collector, may_follow
from node.conduct import HonestAggregator, HonestMember
from node.logs import Log
from node.verifying import Board, registration, registration_of
from node.watch import Watch

MakeWorld = Callable[..., Any]
ACCEPTED, GONE, WRONG = bytes([Reason.ACCEPTED]), bytes([Reason.UNAVAILABLE]), bytes([Reason.OFF_GRID])


class FalseWitness(HonestMember):
    """Signs that member 0 is to be left out."""

    def verdicts(self, state: Any, seat: Any, reasons: bytes) -> bytes:
        return WRONG + reasons[1:]


class Forger(HonestAggregator):
    """Posts other verdicts under the quorum's signature."""

    def posted(self, state: Any, reasons: bytes) -> bytes:
        return WRONG + reasons[1:]


# ---- who can lie, and with what success


def test_an_honest_round_carries_the_signature_of_a_quorum(make_world: MakeWorld) -> None:
    state = make_world().until_ended(1)
    check_signed(state)
    assert len(state.verdicts.signed.members) >= state.policy.verifier_quorum
    assert not state.dissents


def test_an_aggregator_posts_nothing_that_the_quorum_did_not_sign(make_world: MakeWorld) -> None:
    world = make_world(prepare=lambda world: setattr(world.aggregator(), "conduct", Forger()))
    state = world.until_ended(1)
    assert state.voided.reason is VoidReason.NO_VERDICT
    assert state.verdicts is None
    intents = world.aggregator().service.sender.outbox.intents()
    assert [intent.error for intent in intents if "/verdicts/" in intent.name] == ["BadQuorumSignature"]


def test_another_aggregator_stands_in_for_a_forger(make_world: MakeWorld) -> None:
    """Round 1 is the turn of rank 1 of 2."""
    world = make_world(aggregators=2, prepare=lambda world: setattr(world.aggregator(1), "conduct", Forger()))
    state = world.until_ended(1)
    assert state.phase is Phase.FINAL
    assert state.accepted == (0, 1, 2)
    assert state.verdicts.aggregator == world.aggregator(0).key.address


def test_a_lying_minority_changes_nothing_and_its_dissent_is_kept(make_world: MakeWorld) -> None:
    world = make_world(prepare=lambda world: setattr(world.member(2), "conduct", FalseWitness()))
    state = world.until_ended(1)
    assert state.phase is Phase.FINAL
    assert state.accepted == (0, 1, 2)
    assert state.verdicts.signed.members == (0, 1)
    assert {member: event.reasons for member, event in state.dissents.items()} == {2: WRONG + bytes(2)}


def test_against_a_lying_majority_the_aggregator_posts_nothing_and_says_why(make_world: MakeWorld) -> None:
    def prepare(world: Any) -> None:
        world.member(1).conduct = world.member(2).conduct = FalseWitness()

    world = make_world(prepare=prepare)
    world.until_phase(Phase.VERIFY)
    world.tick(3)
    said = world.aggregator().service.watch.health()["verdicts"]
    assert said == "2 of 3 verifiers say 160000, our own verdicts are 000000"
    assert world.until_ended(1).voided.reason is VoidReason.NO_VERDICT


def test_a_lying_majority_with_an_aggregator_leaves_the_honest_ones_dissent(make_world: MakeWorld) -> None:
    class Accomplice(HonestAggregator):
        def reasons(self, state: Any, reasons: Any) -> Any:
            return {**reasons, 0: Reason.OFF_GRID}

    def prepare(world: Any) -> None:
        world.member(1).conduct = world.member(2).conduct = FalseWitness()
        world.aggregator().conduct = Accomplice()

    state = make_world(prepare=prepare).until_ended(1)
    assert state.accepted == (1, 2)
    assert {member: event.reasons for member, event in state.dissents.items()} == {0: bytes(3)}


def test_who_stays_out_of_a_round_verifies_it_all_the_same(make_world: MakeWorld) -> None:
    """Budget runs out and data is kept back; judging the others costs neither."""

    class Onlooker(HonestMember):
        def takes_part(self, state: Any) -> bool:
            return False

    def prepare(world: Any) -> None:
        world.member(2).conduct = Onlooker()
        world.member(1).conduct = FalseWitness()

    state = make_world(prepare=prepare).until_ended(1)
    assert state.phase is Phase.FINAL
    assert state.verdicts.signed.members == (0, 2)


# ---- the question is the round as it stands


def test_an_equivocation_after_signing_is_judged_and_signed_again(make_world: MakeWorld) -> None:
    world = make_world()
    state = world.until_phase(Phase.VERIFY)
    for daemon in world.daemons[1:]:
        daemon.turn()  # members have signed, the aggregator has not asked yet
    second = Submission(1, 2, sha256(b"second").digest(), state.submissions[2].spent_micro)
    signature = sign_submission(world.member(2).key.secret, state.domain, second)
    world.member(2).service.sender.outbox.post("second", Submit(1, 2, second.bundle, second.spent_micro, signature))
    world.member(2).turn()
    world.chain.mine()
    state = world.until_ended(1)
    assert state.phase is Phase.FINAL
    assert state.reasons == {0: 0, 1: 0, 2: Reason.EQUIVOCATED}
    assert not state.dissents, "the earlier answer was to another question"


def test_a_verifier_that_restarts_serves_the_same_answer(make_world: MakeWorld) -> None:
    world = make_world()
    world.aggregator().conduct = None
    world.until_phase(Phase.VERIFY)
    member = world.member(0)
    member.turn()
    key = world_key(world)
    before = member.board.get(key)
    member.restart()
    assert member.board.get(key) is None
    member.turn()
    assert member.board.get(key) == before


def world_key(world: Any) -> str:
    from node.recompute import round_key

    return round_key(world.state)


def test_kill_while_dissenting(make_world: MakeWorld, pull_the_plug: Callable[[Point], None]) -> None:
    world = make_world(prepare=lambda world: setattr(world.member(2), "conduct", FalseWitness()))
    pull_the_plug(Point.NODE_DISSENT_INTENT)
    state = world.until_ended(1)
    assert len(world.cuts) == 1
    assert sorted(state.dissents) == [2]


# ---- registration


def test_members_register_their_keys_and_the_first_round_waits_for_enough(make_world: MakeWorld) -> None:
    world = make_world(register=False)
    state = world.until_ended(1)
    assert state.phase is Phase.FINAL
    assert state.verifiers == (0, 1, 2)
    assert world.member(0).service.watch.health()["verifier"] in ("not registered yet", "registered")


def test_kill_while_registering(make_world: MakeWorld, pull_the_plug: Callable[[Point], None]) -> None:
    world = make_world(register=False)
    pull_the_plug(Point.NODE_VERIFIER_INTENT)
    assert world.until_ended(1).phase is Phase.FINAL
    assert len(world.cuts) == 1


def test_a_foreign_key_is_the_owners_to_replace(make_world: MakeWorld) -> None:
    world = make_world(register=False)
    stranger = BlsKey.derived(sha256(b"stranger").digest(), b"")
    world.chain.automine = True
    world.send(world.member(0).key, registration(stranger, world.chain, 0))
    world.chain.automine = False
    state = world.until_ended(1)
    assert state.phase is Phase.FINAL
    assert state.verdicts.signed.members == (1, 2)
    assert state.seats[0].verifier == key_hash(stranger.public)
    assert "only the owner" in world.member(0).service.watch.health()["verifier"]


def test_the_words_for_every_state_of_registration(make_world: MakeWorld) -> None:
    world = make_world()
    key = world.member(0).key.verifier
    member, other, none = world.chain.member(0), b"\x01" * 32, bytes(32)
    assert registration_of(member, key) == "registered"
    assert "replaced" in registration_of(replace(member, next_verifier=other), key)
    assert "next opening" in registration_of(replace(member, verifier=other, next_verifier=member.verifier), key)
    assert registration_of(replace(member, verifier=none), key) == "not registered yet"
    assert "only the owner" in registration_of(replace(member, verifier=other), key)


# ---- collecting: nothing that a peer sends is believed


class Peers:
    """What each peer answers; who was heard is not asked again."""

    def __init__(self, answers: dict[str, bytes]) -> None:
        self.answers, self.asked = answers, []

    def ask(self, key: str, heard: Any) -> dict[str, bytes]:
        self.asked.append(sorted(set(self.answers) - set(heard)))
        return {peer: data for peer, data in self.answers.items() if peer not in heard}


@pytest.fixture
def verify(make_world: MakeWorld) -> tuple[Any, dict[int, SignedVerdicts]]:
    """The state in Verify, and what its three verifiers honestly signed."""
    world = make_world()
    state = world.until_phase(Phase.VERIFY)
    for daemon in world.daemons[1:]:
        daemon.turn()
    key = world_key(world)
    return state, {n: SignedVerdicts.decode(world.member(n).board.get(key)) for n in range(3)}


def collected(state: Any, answers: dict[str, bytes], own: bytes = bytes(3), turns: int = 1) -> tuple[Any, Peers]:
    peers = Peers(answers)
    collector = Collector(peers, Watch("test"), Log("test"))
    found: Agreed | None = None
    for _ in range(turns):
        found = collector.collect(state, own)
    return found, peers


def test_those_who_agree_are_added_up(verify: Any) -> None:
    state, signed = verify
    one, _ = collected(state, {"a": signed[0].encode()})
    assert one is None
    two, peers = collected(state, {"a": signed[0].encode(), "b": signed[2].encode()}, turns=2)
    assert two.reasons == bytes(3)
    assert two.signed.members == (0, 2)
    assert peers.asked == [["a", "b"], []]


def test_a_peer_cannot_speak_twice_or_for_another_round(verify: Any) -> None:
    state, signed = verify
    twice, _ = collected(state, {"a": signed[0].encode(), "b": signed[0].encode()})
    assert twice is None
    elsewhere = [
        replace(signed[1], round=2),
        replace(signed[1], transcript=bytes(32)),
        replace(signed[1], member=2),
        replace(signed[1], member=9),
        replace(signed[1], key=signed[2].key),
        replace(signed[1], reasons=bytes(2)),
    ]
    for wrong in elsewhere:
        found, peers = collected(state, {"a": signed[0].encode(), "b": wrong.encode()}, turns=2)
        assert found is None
        assert peers.asked[1] == ["b"], "it may have fallen behind, and is asked again"


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff" * 100, b"[" * 5000, b'{"kind":"candor/signed-verdicts/1"}'])
def test_garbage_is_no_answer(verify: Any, data: bytes) -> None:
    state, signed = verify
    found, _ = collected(state, {"a": data, "b": signed[1].encode(), "c": signed[2].encode()})
    assert found.signed.members == (1, 2)


def test_a_forger_who_comes_first_is_found_out_and_the_true_one_counts(verify: Any) -> None:
    """It has the key, which is public, and a signature that is another's, or none at all."""
    state, signed = verify
    for signature in (signed[1].signature, signed[0].key + signed[0].key):
        forged = replace(signed[0], signature=signature)
        answers = {"a": forged.encode(), "b": signed[0].encode(), "c": signed[1].encode()}
        found, peers = collected(state, answers, turns=2)
        assert found.signed.members == (0, 1)
        assert peers.asked[1] == [], "the forger is not asked again"


def test_a_forged_lie_in_anothers_name_stops_nobody(verify: Any) -> None:
    state, signed = verify
    lies = {f"liar {n}": replace(signed[n], reasons=WRONG + bytes(2)).encode() for n in range(3)}
    truth = {f"true {n}": signed[n].encode() for n in range(2)}
    found, _ = collected(state, lies | truth, turns=2)
    assert found.reasons == bytes(3)
    assert found.signed.members == (0, 1)


def test_the_quorum_is_followed_in_what_only_time_decides(verify: Any) -> None:
    state, signed = verify
    answers = {str(n): signed[n].encode() for n in range(3)}
    assert collected(state, answers, own=GONE + bytes(2))[0].reasons == bytes(3)
    assert collected(state, answers, own=WRONG + bytes(2))[0] is None
    assert may_follow(GONE + ACCEPTED, ACCEPTED + GONE)
    assert not may_follow(GONE + ACCEPTED, ACCEPTED + WRONG)


def test_a_board_forgets_the_oldest() -> None:
    board = Board()
    for number in range(20):
        board.put(f"1/00/{number}", b"record")
    assert board.get("1/00/0") is None
    assert board.get("1/00/19") == b"record"
