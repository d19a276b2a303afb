"""The law refuses: one change breaks one rule, with the transcript recomputed as a forger would, and names it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from eth_utils.crypto import keccak

from ledger.actions import Object, Prove
from ledger.eip712 import Domain, Submission, sign_submission
from ledger.events import transcript_next
from ledger.headers import Header
from ledger.history import History
from ledger.opening import Rule, RuleBroken, open_round
from ledger.quorum import check_signed
from ledger.records import (
    AggregateProposed,
    Committed,
    Dissented,
    Equivocation,
    Finalised,
    Logged,
    Objected,
    Phase,
    Policy,
    Proved,
    RoundEvent,
    RoundOpened,
    Sealed,
    Submitted,
    VerdictsPosted,
    Voided,
    VoidReason,
)
from ledger.round_state import RoundState, beacon, beacon_block, settled, shown
from ledger.rules import apply, check_beacon_header, check_turn
from proofs.errors import PeerFault

SOME = keccak(text="something else")
ZERO = bytes(32)


def following(state: RoundState, event: Any, block: int | None = None, **where: Any) -> Logged:
    """`event` placed behind the last one, with the transcript that makes it look genuine."""
    last = state.log[-1]
    forged = replace(event, transcript=transcript_next(state.transcript, event))
    if block is None or block == last.block_number:
        logged = Logged(forged, last.block_number, last.block_hash, last.tx_hash, last.log_index + 1)
    else:
        logged = Logged(forged, block, keccak(block.to_bytes(8)), keccak(text=f"tx {block}"), 0)
    return replace(logged, **where)


def broken(act: Callable[[], Any]) -> Rule:
    with pytest.raises(RuleBroken) as caught:
        act()
    assert isinstance(caught.value, PeerFault)
    assert caught.value.rule.name in str(caught.value)
    return caught.value.rule


@pytest.fixture
def states(twin_lab: Any, policies: dict[str, Policy]) -> dict[str, RoundState]:
    """The state of one round with proofs at the beginning of each phase, and of one that lacks a challenge window."""
    lab, found = twin_lab, {}
    lab.open(policies["proving"])
    found["commit"] = lab.state()
    lab.commit_all()
    found["committed"] = lab.state()
    lab.advance()
    found["train"] = lab.state()
    lab.submit_all()
    found["submitted"] = lab.state()
    lab.advance()
    found["prove"] = lab.state()
    lab.prove_all()
    found["verify"] = lab.state()
    lab.judge()
    found["propose"] = lab.state()
    lab.act(lab.on_duty(), lab.proposal())
    found["proposed"] = lab.state()
    lab.act(lab.cast.signers[0], Object(1, SOME))
    found["objected"] = lab.state()
    lab.advance()
    found["final"] = lab.state()
    return found


def at(state: RoundState, kind: type[Any]) -> Any:
    """The last event of this kind in the round."""
    return next(logged.event for logged in reversed(state.log) if isinstance(logged.event, kind))


def resigned(lab: Any, event: Any, **changes: Any) -> Any:
    """The event with changed fields and a good signature of the member that it names."""
    changed = replace(event, **changes)
    payload = Submission(changed.round, changed.member, changed.bundle, changed.spent_micro)
    secret = lab.cast.signers[changed.member % len(lab.cast.signers)].secret
    return replace(changed, signature=sign_submission(secret, lab.domain, payload))


def test_the_honest_log_obeys_the_law(states: dict[str, RoundState]) -> None:
    state = states["final"]
    assert state.phase is Phase.FINAL
    again = open_round(state.domain, state.log[0])
    for logged in state.log[1:]:
        again = apply(again, logged)
    assert again == state


@pytest.mark.parametrize("missing", range(1, 15))
def test_an_event_that_is_hidden_is_noticed(states: dict[str, RoundState], missing: int) -> None:
    log = states["final"].log
    assert len(log) == 16
    state = open_round(states["final"].domain, log[0])

    def fold() -> None:
        rest = state
        for position, logged in enumerate(log[1:], 1):
            if position != missing:
                rest = apply(rest, logged)

    assert broken(fold) is Rule.TRANSCRIPT


def test_an_altered_event_is_noticed(states: dict[str, RoundState]) -> None:
    state, logged = states["commit"], states["committed"].log[1]
    assert isinstance(logged.event, Committed)
    altered = replace(logged, event=replace(logged.event, words_root=SOME))
    assert broken(lambda: apply(state, altered)) is Rule.TRANSCRIPT
    opened = states["commit"].log[0]
    lies = replace(opened, event=replace(opened.event, config_digest=SOME))
    assert broken(lambda: open_round(state.domain, lies)) is Rule.TRANSCRIPT


def test_an_added_event_is_noticed_by_what_follows(states: dict[str, RoundState]) -> None:
    state = states["proposed"]
    added = apply(state, following(state, Objected(1, 1, SOME, ZERO)))
    assert broken(lambda: apply(added, states["final"].log[-1])) is Rule.TRANSCRIPT


def test_events_come_in_the_order_of_the_chain(states: dict[str, RoundState]) -> None:
    state, event = states["proposed"], Objected(1, 1, SOME, ZERO)
    last = state.log[-1].block_number
    assert broken(lambda: apply(state, following(state, event, last - 1))) is Rule.ORDER
    assert broken(lambda: apply(state, following(state, event, log_index=0))) is Rule.ORDER
    assert broken(lambda: apply(state, following(state, event, block_hash=SOME))) is Rule.ORDER


def test_an_event_belongs_to_a_round_that_was_opened(states: dict[str, RoundState]) -> None:
    state = states["proposed"]
    assert broken(lambda: apply(state, following(state, Objected(2, 1, SOME, ZERO)))) is Rule.ROUND_NUMBER
    assert broken(lambda: open_round(state.domain, state.log[1])) is Rule.ROUND_NUMBER
    assert broken(lambda: History(state.domain).after(state.log[1])) is Rule.ROUND_NUMBER
    assert broken(lambda: apply(state, following(state, state.opened))) is Rule.PHASE


def test_opening(states: dict[str, RoundState]) -> None:
    state = states["commit"]
    opened, seats = state.opened, state.seats

    def opening(**changes: Any) -> Callable[[], RoundState]:
        event: RoundEvent = replace(opened, **changes)
        event = replace(event, transcript=transcript_next(ZERO, event))
        return lambda: open_round(state.domain, replace(state.log[0], event=event))

    policy = opened.policy
    assert broken(opening(config_digest=ZERO)) is Rule.EMPTY_DIGEST
    assert broken(opening(global_bundle=ZERO)) is Rule.EMPTY_DIGEST
    for name in ("commit_blocks", "train_blocks", "prove_blocks", "verify_blocks", "propose_blocks"):
        assert broken(opening(policy=replace(policy, **{name: 0}))) is Rule.POLICY
    assert broken(opening(policy=replace(policy, quorum=0))) is Rule.POLICY
    assert broken(opening(policy=replace(policy, quorum=4))) is Rule.POLICY
    assert broken(opening(policy=replace(policy, verifier_quorum=0))) is Rule.POLICY
    keyless = replace(policy, verifier_quorum=3), (*seats[:2], replace(seats[2], verifier=ZERO))
    assert broken(opening(policy=keyless[0], seats=keyless[1])) is Rule.POLICY
    assert broken(opening(seats=(seats[0], replace(seats[1], verifier=seats[0].verifier), seats[2]))) is Rule.SEATS
    assert broken(opening(seats=(seats[1], seats[0], seats[2]))) is Rule.SEATS
    assert broken(opening(seats=(seats[0], replace(seats[1], signer=seats[0].signer), seats[2]))) is Rule.SEATS
    assert broken(opening(seats=(replace(seats[0], signer=seats[0].owner), *seats[1:]))) is Rule.SEATS
    assert broken(opening(seats=(replace(seats[0], owner=bytes(20)), *seats[1:]))) is Rule.SEATS
    assert broken(opening(seats=(replace(seats[0], spent_micro=2_000_000), *seats[1:]))) is Rule.SPENT


def test_committing(states: dict[str, RoundState]) -> None:
    state, event = states["commit"], Committed(1, 0, SOME, SOME, ZERO)
    deadline = state.deadline_block
    assert apply(state, following(state, event, deadline)).commitments[0].dataset_root == SOME
    assert broken(lambda: apply(state, following(state, event, deadline + 1))) is Rule.DEADLINE
    assert broken(lambda: apply(state, following(state, replace(event, member=9)))) is Rule.SEATED
    assert broken(lambda: apply(state, following(state, replace(event, words_root=ZERO)))) is Rule.EMPTY_DIGEST
    once = apply(state, following(state, event))
    assert broken(lambda: apply(once, following(once, event))) is Rule.REPEATED
    late = states["train"]
    assert broken(lambda: apply(late, following(late, event))) is Rule.PHASE


def test_sealing(states: dict[str, RoundState]) -> None:
    state = states["committed"]
    end = state.close_block
    begins = beacon_block(end)

    def sealing(block: int = begins + 1, state: RoundState = state, **changes: Any) -> Callable[[], RoundState]:
        drawn = beacon(state.domain, 1, Phase.COMMIT, SOME)
        event = replace(Sealed(1, Phase.COMMIT, end, SOME, drawn, ZERO), **changes)
        return lambda: apply(state, following(state, event, block))

    assert sealing()().phase is Phase.TRAIN
    assert broken(sealing(begins)) is Rule.TOO_EARLY
    assert broken(sealing(end + 2)) is Rule.TOO_EARLY
    assert broken(sealing(close_block=end + 1)) is Rule.CLOSE_BLOCK
    assert broken(sealing(close_block=state.deadline_block)) is Rule.CLOSE_BLOCK
    assert broken(sealing(mix_hash=ZERO)) is Rule.BEACON
    assert broken(sealing(beacon=SOME)) is Rule.BEACON
    assert broken(sealing(closed=Phase.TRAIN)) is Rule.PHASE
    lonely = replace(state, commitments={0: state.commitments[0]})
    assert broken(sealing(state=lonely)) is Rule.QUORUM


def test_the_beacon_belongs_to_chain_contract_round_and_phase(states: dict[str, RoundState]) -> None:
    domain = states["commit"].domain
    ours = beacon(domain, 1, Phase.COMMIT, SOME)
    others = [
        beacon(Domain(domain.chain_id + 1, domain.contract), 1, Phase.COMMIT, SOME),
        beacon(Domain(domain.chain_id, bytes(20)), 1, Phase.COMMIT, SOME),
        beacon(domain, 2, Phase.COMMIT, SOME),
        beacon(domain, 1, Phase.TRAIN, SOME),
    ]
    assert len({ours, *others}) == 5


def test_the_mix_hash_is_owed_and_checked_against_the_header(twin_lab: Any) -> None:
    twin_lab.to_train()
    seal = twin_lab.state().train_seal
    header: Header = twin_lab.chain.header(beacon_block(seal.close_block))
    check_beacon_header(seal, header)
    assert broken(lambda: check_beacon_header(replace(seal, mix_hash=SOME), header)) is Rule.BEACON


def test_the_header_of_another_block_is_no_beacon(twin_lab: Any) -> None:
    """Least of all that of the block right after the close: its mixHash was known while commitments were mined."""
    twin_lab.to_train()
    seal = twin_lab.state().train_seal
    for number in (seal.close_block, seal.close_block + 1, seal.close_block + 3):
        header: Header = twin_lab.chain.header(number)
        drawn = replace(seal, mix_hash=header.mix_hash)
        assert broken(lambda drawn=drawn, header=header: check_beacon_header(drawn, header)) is Rule.BEACON
    assert broken(lambda: check_beacon_header(replace(seal, mix_hash=SOME), header)) is Rule.BEACON


def test_submitting(twin_lab: Any, states: dict[str, RoundState]) -> None:
    state, genuine = states["train"], at(states["submitted"], Submitted)

    def submitting(event: Submitted, block: int | None = None) -> Callable[[], RoundState]:
        return lambda: apply(state, following(state, event, block))

    assert submitting(genuine, state.deadline_block)().standing == (2,)
    assert broken(submitting(genuine, state.deadline_block + 1)) is Rule.DEADLINE
    assert broken(submitting(resigned(twin_lab, genuine, member=9))) is Rule.SEATED
    assert broken(submitting(resigned(twin_lab, genuine, bundle=ZERO))) is Rule.EMPTY_DIGEST
    assert broken(submitting(replace(genuine, bundle=SOME))) is Rule.SIGNATURE
    assert broken(submitting(replace(genuine, signature=genuine.signature[:-1]))) is Rule.SIGNATURE
    assert broken(submitting(resigned(twin_lab, genuine, spent_micro=1_000_001))) is Rule.EPSILON
    full = states["submitted"]
    assert broken(lambda: apply(full, following(full, genuine))) is Rule.REPEATED
    absent = replace(state, commitments={0: state.commitments[0]})
    assert broken(lambda: apply(absent, following(absent, genuine))) is Rule.COMMITTED
    early = states["committed"]
    assert broken(lambda: apply(early, following(early, genuine))) is Rule.PHASE


def test_declaring_less_than_before(twin_lab: Any) -> None:
    twin_lab.to_proposed()
    twin_lab.advance()
    twin_lab.to_train()
    state = twin_lab.state(2)
    less = resigned(twin_lab, Submitted(2, 0, SOME, 999, b"", ZERO))
    assert broken(lambda: apply(state, following(state, less))) is Rule.EPSILON


def test_equivocating(twin_lab: Any, states: dict[str, RoundState]) -> None:
    state, first = states["submitted"], at(states["submitted"], Submitted)
    second = resigned(twin_lab, Equivocation(1, 2, SOME, 1000, b"", ZERO))

    def equivocating(event: Equivocation, state: RoundState = state) -> Callable[[], RoundState]:
        return lambda: apply(state, following(state, event))

    twice = equivocating(second)()
    assert twice.standing == (0, 1)
    assert broken(equivocating(second, twice)) is Rule.REPEATED
    assert broken(equivocating(second, states["train"])) is Rule.SUBMITTED
    assert broken(equivocating(replace(second, bundle=keccak(SOME)))) is Rule.SIGNATURE
    assert broken(equivocating(resigned(twin_lab, second, bundle=ZERO))) is Rule.EMPTY_DIGEST
    same = resigned(twin_lab, second, bundle=first.bundle, spent_micro=first.spent_micro)
    assert broken(equivocating(same)) is Rule.NOT_DIFFERENT
    assert broken(equivocating(second, states["propose"])) is Rule.PHASE
    assert broken(equivocating(resigned(twin_lab, second, member=9))) is Rule.SEATED


def test_proving(states: dict[str, RoundState]) -> None:
    state, event = states["prove"], Proved(1, 0, SOME, ZERO)
    deadline = state.deadline_block
    once = apply(state, following(state, event, deadline))
    assert once.proofs.keys() == {0}
    assert broken(lambda: apply(once, following(once, event))) is Rule.REPEATED
    assert broken(lambda: apply(state, following(state, event, deadline + 1))) is Rule.PHASE  # it is Verify by then
    assert broken(lambda: apply(state, following(state, replace(event, proof=ZERO)))) is Rule.EMPTY_DIGEST
    assert broken(lambda: apply(state, following(state, replace(event, member=9)))) is Rule.SEATED
    absent = replace(state, submissions={1: state.submissions[1]})
    assert broken(lambda: apply(absent, following(absent, event))) is Rule.SUBMITTED


def test_prove_ends_without_an_event(states: dict[str, RoundState]) -> None:
    state = states["prove"]
    deadline = state.deadline_block
    assert shown(state, deadline) == (Phase.PROVE, deadline)
    assert shown(state, deadline + 1) == (Phase.VERIFY, deadline + state.policy.verify_blocks)
    assert settled(state, deadline) is state


def test_judging(states: dict[str, RoundState]) -> None:
    state, event = states["verify"], at(states["propose"], VerdictsPosted)

    def judging(block: int | None = None, state: RoundState = state, **changes: Any) -> Callable[[], RoundState]:
        return lambda: apply(state, following(state, replace(event, **changes), block))

    assert judging(state.deadline_block)().accepted == (0, 1, 2)
    assert judging(accepted=3, reasons=bytes([0, 0, 200]))().reasons[2] == 200  # numbers that we do not know are legal
    assert broken(judging(state.deadline_block + 1)) is Rule.DEADLINE
    assert broken(judging(reasons=bytes(2))) is Rule.VERDICTS
    assert broken(judging(reasons=bytes([0, 0, 2]))) is Rule.VERDICTS
    assert broken(judging(reasons=bytes([0, 0, 15]))) is Rule.VERDICTS
    assert broken(judging(accepted=3)) is Rule.ACCEPTED
    assert broken(judging(reasons=bytes([0, 0, 16]))) is Rule.ACCEPTED
    unproven = replace(state, proofs={0: state.proofs[0], 1: state.proofs[1]})
    assert broken(judging(state=unproven)) is Rule.VERDICTS
    assert broken(judging(state=states["propose"])) is Rule.PHASE


def test_who_signs_verdicts(states: dict[str, RoundState]) -> None:
    state, event = states["verify"], at(states["propose"], VerdictsPosted)
    signed = event.signed
    first, second = signed.each_key()

    def signing(**changes: Any) -> Callable[[], RoundState]:
        return lambda: apply(state, following(state, replace(event, signed=replace(signed, **changes))))

    assert signing()().verdicts is not None
    assert broken(signing(signers=1, keys=first)) is Rule.VERIFIERS
    assert broken(signing(signers=9)) is Rule.VERIFIERS
    assert broken(signing(signers=1 << 255 | 1)) is Rule.VERIFIERS
    assert broken(signing(keys=second + first)) is Rule.VERIFIERS
    assert broken(signing(keys=first)) is Rule.VERIFIERS
    assert broken(signing(keys=signed.keys + first)) is Rule.VERIFIERS
    assert broken(signing(keys=signed.keys[:-1])) is Rule.VERIFIERS


def test_whether_they_signed_is_owed(states: dict[str, RoundState]) -> None:
    """The law does no pairings: it takes a signature that is none, and `check_signed` finds out."""
    state, event = states["verify"], at(states["propose"], VerdictsPosted)
    signed = event.signed
    check_signed(states["verify"])
    check_signed(states["final"])
    for wrong in (signed.signature[:-1] + bytes([signed.signature[-1] ^ 1]), bytes(256), b"", signed.keys):
        forged = replace(event, signed=replace(signed, signature=wrong))
        judged = apply(state, following(state, forged))
        assert broken(partial(check_signed, judged)) is Rule.VERIFIERS
    other = apply(state, following(state, replace(event, accepted=3, reasons=bytes([0, 0, 17]))))
    assert broken(lambda: check_signed(other)) is Rule.VERIFIERS


def test_dissenting(states: dict[str, RoundState]) -> None:
    state, event = states["propose"], Dissented(1, 1, bytes([0, 0, 17]), ZERO)
    once = apply(state, following(state, event))
    assert once.dissents[1].reasons == event.reasons
    assert once.accepted == state.accepted
    late = states["proposed"]
    assert apply(late, following(late, event, late.deadline_block + 1)).dissents
    assert broken(lambda: apply(once, following(once, event))) is Rule.REPEATED
    assert broken(lambda: apply(state, following(state, replace(event, member=9)))) is Rule.SEATED
    assert broken(lambda: apply(state, following(state, replace(event, reasons=bytes(3))))) is Rule.DISSENT
    assert broken(lambda: apply(state, following(state, replace(event, reasons=bytes(2))))) is Rule.VERDICTS
    assert broken(lambda: apply(state, following(state, replace(event, reasons=bytes([0, 0, 4]))))) is Rule.VERDICTS
    for wrong in (states["verify"], states["final"]):
        assert broken(partial(apply, wrong, following(wrong, event))) is Rule.DISSENT


def test_taking_turns(twin_lab: Any, states: dict[str, RoundState]) -> None:
    order = [key.address for key in twin_lab.cast.aggregators]
    state, event = states["verify"], at(states["propose"], VerdictsPosted)
    half = state.deadline_block - 4
    check_turn(state, following(state, event), order)
    check_turn(state, following(state, replace(event, aggregator=order[0]), half), order)
    early = following(state, replace(event, aggregator=order[0]), half - 1)
    assert broken(lambda: check_turn(state, early, order)) is Rule.TURN
    assert broken(lambda: check_turn(state, following(state, event), [])) is Rule.TURN
    check_turn(states["commit"], states["committed"].log[1], [])  # nobody's turn is asked


def test_proposing(states: dict[str, RoundState]) -> None:
    state, event = states["propose"], at(states["proposed"], AggregateProposed)

    def proposing(block: int | None = None, **changes: Any) -> Callable[[], RoundState]:
        return lambda: apply(state, following(state, replace(event, **changes), block))

    assert proposing(state.deadline_block)().phase is Phase.PROPOSED
    assert broken(proposing(state.deadline_block + 1)) is Rule.DEADLINE
    assert broken(proposing(included_root=SOME)) is Rule.ROOTS
    assert broken(proposing(excluded_root=SOME)) is Rule.ROOTS
    assert broken(proposing(aggregate_bundle=ZERO)) is Rule.EMPTY_DIGEST


def test_objecting(states: dict[str, RoundState]) -> None:
    state, event = states["proposed"], Objected(1, 1, ZERO, ZERO)
    deadline = state.deadline_block
    once = apply(state, following(state, event, deadline))
    assert once.owed is None
    assert broken(lambda: apply(state, following(state, event, deadline + 1))) is Rule.DEADLINE
    assert broken(lambda: apply(once, following(once, event))) is Rule.REPEATED
    assert broken(lambda: apply(state, following(state, replace(event, member=9)))) is Rule.SEATED
    absent = replace(state, commitments={0: state.commitments[0]})
    assert broken(lambda: apply(absent, following(absent, event))) is Rule.COMMITTED


def test_what_must_follow_in_the_same_transaction_follows(states: dict[str, RoundState]) -> None:
    state = states["objected"]
    majority = apply(state, following(state, Objected(1, 1, ZERO, ZERO)))
    assert majority.owed is Phase.VOID
    void = Voided(1, Phase.PROPOSED, VoidReason.DISPUTED, ZERO)
    assert apply(majority, following(majority, void)).phase is Phase.VOID
    assert broken(lambda: apply(majority, following(majority, void, tx_hash=SOME))) is Rule.OWED
    third = Objected(1, 2, ZERO, ZERO)
    assert broken(lambda: apply(majority, following(majority, third))) is Rule.OWED


def test_finalising(states: dict[str, RoundState]) -> None:
    state, event = states["proposed"], at(states["final"], Finalised)
    after = state.deadline_block + 1
    assert apply(state, following(state, event, after)).phase is Phase.FINAL
    assert broken(lambda: apply(state, following(state, event, after - 1))) is Rule.TOO_EARLY
    lie = replace(event, aggregate_bundle=SOME)
    assert broken(lambda: apply(state, following(state, lie, after))) is Rule.AGGREGATE
    early = states["propose"]
    assert broken(lambda: apply(early, following(early, event))) is Rule.PHASE


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("commit", VoidReason.COMMIT_QUORUM),
        ("train", VoidReason.SUBMIT_QUORUM),
        ("verify", VoidReason.NO_VERDICT),
        ("propose", VoidReason.NO_PROPOSAL),
    ],
)
def test_voiding_for_want_of_action(states: dict[str, RoundState], name: str, reason: VoidReason) -> None:
    state = states[name]
    event, after = Voided(1, state.phase, reason, ZERO), state.deadline_block + 1
    assert apply(state, following(state, event, after)).phase is Phase.VOID
    assert broken(lambda: apply(state, following(state, event, after - 1))) is Rule.TOO_EARLY
    for other in set(VoidReason) - {reason}:
        lie = replace(event, reason=other)
        assert broken(lambda lie=lie: apply(state, following(state, lie, after))) is Rule.VOID_REASON
    elsewhere = replace(event, phase=Phase.PROPOSED)
    assert broken(lambda: apply(state, following(state, elsewhere, after))) is Rule.PHASE


def test_no_round_with_a_quorum_is_void_for_want_of_one(states: dict[str, RoundState]) -> None:
    state = states["committed"]
    lie = Voided(1, Phase.COMMIT, VoidReason.COMMIT_QUORUM, ZERO)
    assert broken(lambda: apply(state, following(state, lie, state.end_block + 9))) is Rule.VOID_REASON


def test_a_beacon_is_lost_only_after_256_blocks(states: dict[str, RoundState]) -> None:
    state, lost = states["committed"], Voided(1, Phase.COMMIT, VoidReason.BEACON_LOST, ZERO)
    first = beacon_block(state.end_block) + 257
    assert apply(state, following(state, lost, first)).phase is Phase.VOID
    assert broken(lambda: apply(state, following(state, lost, first - 1))) is Rule.TOO_EARLY


def test_nothing_happens_after_the_end(states: dict[str, RoundState]) -> None:
    state = states["final"]
    events = [
        Committed(1, 0, SOME, SOME, ZERO),
        Objected(1, 1, SOME, ZERO),
        Finalised(1, SOME, ZERO),
        Voided(1, Phase.FINAL, VoidReason.NO_VERDICT, ZERO),
    ]
    for event in events:
        assert broken(lambda event=event: apply(state, following(state, event))) is Rule.PHASE


def test_one_round_follows_the_other(twin_lab: Any) -> None:
    lab = twin_lab
    lab.to_proposed()
    lab.advance()
    lab.open(bundle=lab.chain.global_bundle())
    history, logged = History(lab.domain), lab.chain.events(0, 10_000)
    before, opened = history.after_all(logged[:-1]), logged[-1]
    assert isinstance(opened.event, RoundOpened)
    assert before.after(opened).latest == 2

    def opening(history: History = before, **changes: Any) -> Callable[[], History]:
        event: RoundEvent = replace(opened.event, **changes)
        return lambda: history.after(replace(opened, event=replace(event, transcript=transcript_next(ZERO, event))))

    seats = opened.event.seats
    assert broken(opening(round=3)) is Rule.ROUND_NUMBER
    assert broken(opening(history.after_all(logged[:-2]))) is Rule.ROUND_STILL_OPEN
    assert broken(opening(global_bundle=SOME)) is Rule.GLOBAL_BUNDLE
    assert broken(opening(seats=(replace(seats[0], owner=seats[1].owner), *seats[1:]))) is Rule.SEATS
    swapped = (replace(seats[0], signer=seats[1].signer), replace(seats[1], signer=seats[0].signer), seats[2])
    assert broken(opening(seats=swapped)) is Rule.SEATS
    assert broken(opening(seats=(replace(seats[0], spent_micro=0), *seats[1:]))) is Rule.SPENT
    earlier = replace(opened, block_number=1)
    assert broken(lambda: before.after(earlier)) is Rule.ORDER


def test_every_rule_is_broken_somewhere_above() -> None:
    with open(__file__, encoding="utf-8") as source:
        text = source.read()
    assert [rule.name for rule in Rule if f"Rule.{rule.name}" not in text] == []


def test_a_state_never_changes_in_place(states: dict[str, RoundState]) -> None:
    state = states["prove"]
    before = (dict(state.proofs), state.log, state.phase)
    apply(state, following(state, Proved(1, 0, SOME, ZERO)))
    assert (dict(state.proofs), state.log, state.phase) == before


def test_proofs_by_action_and_by_event_are_the_same(twin_lab: Any, policies: dict[str, Policy]) -> None:
    """The chain's own next state is what the law makes of the event that it emitted."""
    twin_lab.to_train(policies["proving"])
    twin_lab.submit_all()
    twin_lab.advance()
    before = twin_lab.state()
    twin_lab.act(twin_lab.cast.signers[0], Prove(1, SOME))
    assert apply(before, twin_lab.state().log[-1]) == twin_lab.state()
