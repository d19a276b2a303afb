"""The life of a round, told twice: on the twin and on the contracts. What the events say is what the contracts hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from eth_utils.crypto import keccak

from ledger.actions import (
    Action,
    AddMember,
    Advance,
    Commit,
    Dissent,
    Object,
    Open,
    PostVerdicts,
    Propose,
    Prove,
    RemoveMember,
    RotateSigner,
    SetAggregators,
    SetCap,
    SetRounds,
    Submit,
)
from ledger.eip712 import Domain, Submission, sign_submission
from ledger.ports import ContractRefused
from ledger.quorum import check_signed, key_hash
from ledger.records import MemberStatus, Phase, Policy, Signed, Voided, VoidReason
from ledger.round_state import BEACON_DELAY_BLOCKS, due, excluded_root, included_root, last_possible_block, view
from ledger.rules import check_beacon_header, check_turn

ZERO = bytes(32)
SOME = keccak(text="some digest")
UNSIGNED = Signed(0, b"", b"")  # for what is refused before anybody looks at it


def refused(lab: Any, key: Any, action: Action) -> ContractRefused:
    with pytest.raises(ContractRefused) as caught:
        lab.act(key, action)
    return caught.value


def agrees(lab: Any, number: int = 1) -> Phase:
    """The state folded from events is the state that the contract shows, to the last bit; returns its phase."""
    shown = lab.view(number)
    assert view(lab.state(number), lab.chain.head().number) == shown
    return shown.phase


def test_an_honest_round_ends_final(lab: Any) -> None:
    number = lab.open()
    assert (number, agrees(lab)) == (1, Phase.COMMIT)
    assert lab.chain.global_bundle() == lab.history().global_bundle
    lab.commit_all()
    assert agrees(lab) is Phase.COMMIT
    assert lab.state().close_block == lab.chain.head().number
    lab.advance()
    assert agrees(lab) is Phase.TRAIN
    lab.submit_all()
    assert agrees(lab) is Phase.TRAIN
    lab.advance()
    assert agrees(lab) is Phase.VERIFY
    lab.judge()
    assert agrees(lab) is Phase.PROPOSE
    lab.act(lab.on_duty(), lab.proposal())
    assert agrees(lab) is Phase.PROPOSED
    lab.advance()
    assert agrees(lab) is Phase.FINAL
    assert lab.chain.global_bundle() == lab.proposal().aggregate_bundle == lab.history().global_bundle
    assert [member.spent_micro for member in lab.chain.members()] == [1000, 1000, 1000]


def test_a_round_with_proofs_goes_through_prove(lab: Any, policies: dict[str, Policy]) -> None:
    lab.to_train(policies["proving"])
    lab.submit_all()
    lab.advance()
    assert agrees(lab) is Phase.PROVE
    lab.act(lab.cast.signers[0], Prove(1, keccak(text="proof 0")))
    assert agrees(lab) is Phase.PROVE
    for member in (1, 2):
        lab.act(lab.cast.signers[member], Prove(1, keccak(text=f"proof {member}")))
    assert agrees(lab) is Phase.VERIFY


def test_prove_ends_by_the_clock_and_unproven_members_are_judged_so(lab: Any, policies: dict[str, Policy]) -> None:
    lab.to_train(policies["proving"])
    lab.submit_all()
    lab.advance()
    lab.act(lab.cast.signers[0], Prove(1, SOME))
    lab.act(lab.cast.signers[1], Prove(1, SOME))
    lab.mine(policies["proving"].prove_blocks)
    assert agrees(lab) is Phase.VERIFY
    lab.judge()
    assert lab.state().reasons == {0: 0, 1: 0, 2: 4}
    assert agrees(lab) is Phase.PROPOSE


def test_a_round_starts_from_the_last_final_aggregate(lab: Any) -> None:
    lab.to_proposed()
    lab.advance()
    final = lab.chain.global_bundle()
    assert refused(lab, lab.cast.coordinator, Open(SOME, SOME, lab.state().policy)).name == "WrongGlobalBundle"
    assert lab.open(bundle=final) == 2
    assert [seat.spent_micro for seat in lab.state(2).seats] == [1000, 1000, 1000]
    assert agrees(lab, 2) is Phase.COMMIT


def test_a_second_different_submission_is_kept_as_evidence(lab: Any) -> None:
    lab.to_train()
    lab.submit_all()
    first, second = lab.submission(1, 2), lab.submission(1, 2, "other")
    lab.act(lab.cast.stranger, first)  # the same again is fine
    lab.act(lab.cast.stranger, second)
    lab.act(lab.cast.stranger, lab.submission(1, 2, "third"))  # and after that nothing counts
    assert agrees(lab) is Phase.TRAIN
    assert lab.state().standing == (0, 1)
    assert lab.state().equivocations[2].bundle == second.bundle
    assert lab.state().submissions[2].bundle == first.bundle
    lab.advance()
    lab.judge()
    assert lab.state().reasons == {0: 0, 1: 0, 2: 3}


def test_equivocation_can_complete_the_proofs(lab: Any, policies: dict[str, Policy]) -> None:
    lab.to_train(policies["proving"])
    lab.submit_all()
    lab.advance()
    for member in (0, 1):
        lab.act(lab.cast.signers[member], Prove(1, SOME))
    assert agrees(lab) is Phase.PROVE
    lab.act(lab.cast.stranger, lab.submission(1, 2, "other"))
    assert agrees(lab) is Phase.VERIFY


def test_all_members_vanish(lab: Any) -> None:
    lab.open()
    lab.advance()
    assert agrees(lab) is Phase.VOID
    assert lab.view().void_reason is VoidReason.COMMIT_QUORUM
    assert lab.open() == 2


def test_members_commit_and_vanish(lab: Any) -> None:
    lab.to_train()
    lab.act(lab.cast.stranger, lab.submission(1, 0))
    lab.advance()
    assert lab.view().void_reason is VoidReason.SUBMIT_QUORUM
    assert agrees(lab) is Phase.VOID
    assert lab.chain.member(0).spent_micro == 1000  # what was published stays spent


def test_a_sleeping_aggregator_voids_the_round(lab: Any) -> None:
    lab.to_verify()
    lab.advance()
    assert (agrees(lab), lab.view().void_reason) == (Phase.VOID, VoidReason.NO_VERDICT)
    lab.to_verify()
    lab.judge(2)
    lab.advance(2)
    assert (agrees(lab, 2), lab.view(2).void_reason) == (Phase.VOID, VoidReason.NO_PROPOSAL)


def test_nobody_proves_and_nobody_judges(lab: Any, policies: dict[str, Policy]) -> None:
    """From an open Prove phase, voiding takes two calls: the first only writes down that Prove is over."""
    lab.to_train(policies["proving"])
    lab.submit_all()
    lab.advance()
    lab.advance()
    assert agrees(lab) is Phase.VERIFY
    lab.act(lab.cast.stranger, Advance(1, b""))
    assert (agrees(lab), lab.view().void_reason) == (Phase.VOID, VoidReason.NO_VERDICT)


def test_too_few_accepted_voids_in_the_same_transaction(lab: Any) -> None:
    lab.to_verify()
    lab.judge(reasons=bytes([0, 17, 22]))
    assert (agrees(lab), lab.view().void_reason) == (Phase.VOID, VoidReason.NOTHING_ACCEPTED)
    last, before = lab.state().log[-1], lab.state().log[-2]
    assert isinstance(last.event, Voided)
    assert last.tx_hash == before.tx_hash


def test_a_majority_of_objections_voids_the_round(lab: Any) -> None:
    lab.to_proposed()
    lab.act(lab.cast.signers[0], Object(1, SOME))
    assert agrees(lab) is Phase.PROPOSED
    lab.act(lab.cast.signers[1], Object(1, ZERO))
    assert (agrees(lab), lab.view().void_reason) == (Phase.VOID, VoidReason.DISPUTED)


def test_without_a_challenge_window_a_proposal_is_final_at_once(lab: Any, policies: dict[str, Policy]) -> None:
    lab.to_proposed(replace(policies["plain"], challenge_blocks=0))
    assert agrees(lab) is Phase.FINAL


def test_the_other_aggregator_takes_over_at_half_time(lab: Any) -> None:
    lab.to_verify()
    other = lab.cast.aggregators[0]
    refusal = refused(lab, other, PostVerdicts(1, bytes(3), UNSIGNED))
    assert refusal.name == "NotYourTurn"
    assert refusal.arguments == (other.address, lab.state().deadline_block - 4)
    lab.mine(lab.state().deadline_block - 4 - lab.chain.head().number - 1)
    before = lab.state()
    lab.act(other, PostVerdicts(1, bytes(3), lab.signed(1, bytes(3))))
    check_turn(before, lab.state().log[-1], lab.chain.aggregators())
    assert agrees(lab) is Phase.PROPOSE


def test_the_beacon_is_that_of_its_block_however_late(lab: Any) -> None:
    lab.open()
    lab.commit_all()
    lab.mine(5)
    lab.advance()
    seal = lab.state().train_seal
    assert seal is not None
    check_beacon_header(seal, lab.chain.header(lab.state().log[3].block_number + BEACON_DELAY_BLOCKS))
    assert agrees(lab) is Phase.TRAIN


def test_the_header_right_after_the_close_is_no_beacon(lab: Any) -> None:
    """EIP-4399: it holds the mix after block X, which the proposer of X knew while filling X with commitments."""
    lab.open()
    lab.commit_all()
    stranger, closed = lab.cast.stranger, lab.state().close_block
    lab.mine()
    early = Advance(1, lab.chain.header(closed + 1).rlp)
    refusal = refused(lab, stranger, early)
    assert (refusal.name, refusal.arguments) == ("NotYet", (1, closed + 3))
    lab.mine()
    refusal = refused(lab, stranger, early)
    assert (refusal.name, refusal.arguments) == ("BadHeader", (closed + 2,))
    lab.act(stranger, Advance(1, lab.chain.header(closed + 2).rlp))
    assert agrees(lab) is Phase.TRAIN


def test_a_beacon_is_lost_when_its_header_is_forgotten(lab: Any) -> None:
    lab.open()
    lab.commit_all()
    lab.forget_history()
    lab.mine(BEACON_DELAY_BLOCKS + 256)
    assert lab.chain.head().number == lab.state().end_block + BEACON_DELAY_BLOCKS + 256
    lab.advance()
    assert (agrees(lab), lab.view().void_reason) == (Phase.VOID, VoidReason.BEACON_LOST)


def test_the_last_possible_block_holds_whatever_happens(lab: Any, policies: dict[str, Policy]) -> None:
    """Everybody who may delays as long as he can; somebody always calls advance as soon as it is due."""
    lab.open(policies["proving"])
    last = last_possible_block(lab.state())
    while (coming := due(lab.state())) is not None:
        lab.advance()
        assert lab.chain.head().number <= last + 1
        assert coming.earliest_block <= last + 1
    lab.to_proposed(policies["proving"])
    state = lab.state(2)
    assert last_possible_block(state) >= state.deadline_block


def test_members_join_leave_and_rotate_at_the_next_opening(lab: Any, make_key: Any) -> None:
    boss, owners = lab.cast.coordinator, lab.cast.owners
    fresh, newcomer = make_key("fresh signer"), make_key("newcomer")
    lab.open()
    lab.act(owners[0], RotateSigner(0, fresh.address))
    lab.act(owners[1], SetCap(1, 77))
    lab.act(boss, RemoveMember(2))
    lab.act(boss, AddMember(make_key("new owner").address, newcomer.address, 5))
    lab.act(boss, SetAggregators((lab.cast.stranger.address,)))
    statuses = [member.status for member in lab.chain.members()]
    assert statuses == [MemberStatus.ACTIVE, MemberStatus.ACTIVE, MemberStatus.LEAVING, MemberStatus.PENDING]
    assert len(lab.chain.aggregators()) == 2  # the running round keeps its own
    lab.advance()
    lab.open()
    assert [(seat.member, seat.signer, seat.cap_micro) for seat in lab.state(2).seats] == [
        (0, fresh.address, 1_000_000),
        (1, lab.cast.signers[1].address, 77),
        (3, newcomer.address, 5),
    ]
    assert lab.chain.aggregators() == [lab.cast.stranger.address]


def test_federation_refusals_have_the_contracts_names(lab: Any) -> None:
    boss, owners, signers, stranger = lab.cast.coordinator, lab.cast.owners, lab.cast.signers, lab.cast.stranger
    lab.to_verify()
    nobody, one = bytes(20), stranger.address
    table: list[tuple[Any, Action, str]] = [
        (stranger, AddMember(one, signers[0].address, 1), "AccessControlUnauthorizedAccount"),
        (boss, AddMember(nobody, one, 1), "ZeroAddress"),
        (boss, AddMember(one, nobody, 1), "ZeroAddress"),
        (boss, AddMember(one, one, 1), "SignerTaken"),
        (boss, AddMember(one, signers[0].address, 1), "SignerTaken"),
        (boss, RemoveMember(9), "UnknownMember"),
        (stranger, RemoveMember(0), "NotOwner"),
        (stranger, RotateSigner(0, one), "NotOwner"),
        (owners[0], RotateSigner(0, signers[1].address), "SignerTaken"),
        (stranger, lab.registration(0), "NotOwner"),
        (signers[0], lab.registration(0), "NotOwner"),
        (owners[0], lab.registration(0, signers[1]), "VerifierTaken"),
        (owners[0], replace(lab.registration(0, stranger), proof=bytes(256)), "BadPossession"),
        (owners[0], replace(lab.registration(1, stranger), member=0), "BadPossession"),
        (stranger, SetCap(0, 1), "NotOwner"),
        (owners[0], SetCap(0, 999), "CapBelowSpent"),
        (stranger, SetAggregators(()), "AccessControlUnauthorizedAccount"),
        (boss, SetAggregators((nobody,)), "ZeroAddress"),
        (stranger, SetRounds(one), "AccessControlUnauthorizedAccount"),
        (boss, SetRounds(one), "RoundsAlreadySet"),
    ]
    for key, action, name in table:
        assert refused(lab, key, action).name == name, action
    lab.act(owners[0], RemoveMember(0))
    assert refused(lab, owners[0], RemoveMember(0)).name == "NotLeavable"


def test_refusals_before_and_in_commit(lab: Any, policies: dict[str, Policy]) -> None:
    boss, signers, stranger = lab.cast.coordinator, lab.cast.signers, lab.cast.stranger
    plain = policies["plain"]
    assert refused(lab, stranger, Open(SOME, SOME, plain)).name == "AccessControlUnauthorizedAccount"
    assert refused(lab, boss, Open(ZERO, SOME, plain)).name == "EmptyDigest"
    for broken in (
        replace(plain, commit_blocks=0),
        replace(plain, quorum=4),
        replace(plain, quorum=0),
        replace(plain, verifier_quorum=4),
        replace(plain, verifier_quorum=0),
        replace(plain, proof_required=True),
    ):
        assert refused(lab, boss, Open(SOME, SOME, broken)).name == "BadPolicy"
    assert refused(lab, stranger, Advance(1, b"")).name == "UnknownRound"
    lab.open()
    assert refused(lab, boss, Open(SOME, SOME, plain)).name == "RoundStillOpen"
    assert refused(lab, stranger, Commit(1, SOME, SOME)).name == "NotSeated"
    assert refused(lab, signers[0], Commit(1, ZERO, SOME)).name == "EmptyDigest"
    assert refused(lab, signers[0], Commit(2, SOME, SOME)).name == "UnknownRound"
    lab.act(signers[0], lab.commitment(1, 0))
    lab.act(signers[0], lab.commitment(1, 0))
    assert refused(lab, signers[0], Commit(1, SOME, SOME)).name == "AlreadyCommitted"
    assert refused(lab, stranger, lab.submission(1, 0)).name == "WrongPhase"
    assert refused(lab, stranger, Advance(1, b"")).arguments == (1, lab.state().deadline_block + 1)
    lab.mine(8)
    assert refused(lab, signers[1], Commit(1, SOME, SOME)).name == "PastDeadline"


def test_refusals_in_train(lab: Any) -> None:
    signers, stranger = lab.cast.signers, lab.cast.stranger
    lab.open()
    for member in (0, 1):
        lab.act(signers[member], lab.commitment(1, member))
    lab.mine(lab.state().deadline_block + BEACON_DELAY_BLOCKS - lab.chain.head().number)
    assert refused(lab, stranger, Advance(1, lab.chain.head().rlp[:-1])).name == "BadHeader"
    assert refused(lab, stranger, Advance(1, lab.chain.header(1).rlp)).name == "BadHeader"
    lab.advance()
    good = lab.submission(1, 0)
    assert refused(lab, stranger, replace(good, bundle=ZERO)).name == "EmptyDigest"
    assert refused(lab, stranger, replace(good, member=9)).name == "NotSeated"
    assert refused(lab, stranger, lab.submission(1, 2)).name == "NotCommitted"
    assert refused(lab, stranger, replace(good, spent_micro=1)).name == "BadSignature"
    assert refused(lab, stranger, replace(good, signature=good.signature[:64])).arguments == (1, 0, bytes(20))
    assert refused(lab, stranger, lab.submission(1, 0, spent=1_000_001)).name == "OverCap"
    lab.act(lab.cast.owners[0], SetCap(0, 500))
    assert refused(lab, stranger, good).arguments == (0, 1000, 500)
    lab.mine(8)
    assert refused(lab, stranger, lab.submission(1, 1)).name == "PastDeadline"


def test_foreign_signatures_count_nowhere(lab: Any) -> None:
    """A signature is for one chain, one contract, one round and one member; and its mirror image is refused."""
    lab.to_train()
    signer, good = lab.cast.signers[0], lab.submission(1, 0)
    payload = Submission(1, 0, good.bundle, good.spent_micro)
    foreign = {
        "chain": (Domain(lab.chain.chain_id + 1, lab.chain.rounds_address), payload),
        "contract": (Domain(lab.chain.chain_id, bytes(20)), payload),
        "round": (lab.domain, replace(payload, round=2)),
        "member": (lab.domain, replace(payload, member=1)),
    }
    for where, (domain, signed) in foreign.items():
        signature = sign_submission(signer.secret, domain, signed)
        assert refused(lab, signer, replace(good, signature=signature)).name == "BadSignature", where
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    s = (order - int.from_bytes(good.signature[32:64])).to_bytes(32)
    mirrored = good.signature[:32] + s + bytes([55 - good.signature[64]])
    assert refused(lab, signer, replace(good, signature=mirrored)).name == "BadSignature"


def test_declared_privacy_never_falls(lab: Any) -> None:
    lab.to_proposed()
    lab.advance()
    lab.to_train()
    low = Submission(2, 0, SOME, 999)
    signature = sign_submission(lab.cast.signers[0].secret, lab.domain, low)
    assert refused(lab, lab.cast.stranger, Submit(2, 0, SOME, 999, signature)).arguments == (0, 999, 1000)


def test_refusals_in_prove_verify_and_propose(lab: Any, policies: dict[str, Policy]) -> None:
    signers, stranger, duty = lab.cast.signers, lab.cast.stranger, lab.on_duty()
    lab.to_train(policies["proving"])
    for member in (0, 1):
        lab.act(stranger, lab.submission(1, member))
    lab.advance()
    assert refused(lab, stranger, Advance(1, b"")).arguments == (1, lab.state().deadline_block + 1)
    assert refused(lab, signers[0], Prove(1, ZERO)).name == "EmptyDigest"
    assert refused(lab, signers[2], Prove(1, SOME)).name == "NotSubmitted"
    lab.act(signers[0], Prove(1, SOME))
    lab.act(signers[0], Prove(1, SOME))
    assert refused(lab, signers[0], Prove(1, keccak(SOME))).name == "AlreadyProved"
    assert refused(lab, duty, PostVerdicts(1, bytes(3), UNSIGNED)).name == "WrongPhase"
    lab.act(signers[1], Prove(1, SOME))
    assert refused(lab, stranger, PostVerdicts(1, bytes(3), UNSIGNED)).name == "NotAggregator"
    assert refused(lab, duty, PostVerdicts(1, bytes(2), UNSIGNED)).arguments == (1, 2, 0)
    assert refused(lab, duty, PostVerdicts(1, bytes(3), UNSIGNED)).arguments == (1, 2, 0)  # seat 2 did not submit
    assert refused(lab, duty, PostVerdicts(1, bytes([1, 0, 2]), UNSIGNED)).arguments == (1, 0, 1)
    lab.judge()
    good = lab.proposal()
    assert refused(lab, duty, replace(good, aggregate_bundle=ZERO)).name == "EmptyDigest"
    assert refused(lab, duty, replace(good, included_root=SOME)).arguments == (good.included_root, SOME)
    assert refused(lab, duty, replace(good, excluded_root=SOME)).arguments == (good.excluded_root, SOME)
    assert refused(lab, stranger, lab.submission(1, 0, "late")).name == "WrongPhase"
    lab.act(duty, good)
    assert refused(lab, signers[0], Propose(1, SOME, SOME, SOME)).name == "WrongPhase"


def test_refusals_after_the_proposal(lab: Any) -> None:
    signers, stranger = lab.cast.signers, lab.cast.stranger
    lab.open()
    for member in (0, 1):
        lab.act(signers[member], lab.commitment(1, member))
    lab.advance()
    for member in (0, 1):
        lab.act(stranger, lab.submission(1, member))
    lab.advance()
    lab.judge()
    lab.act(lab.on_duty(), lab.proposal())
    assert refused(lab, stranger, Object(1, ZERO)).name == "NotSeated"
    assert refused(lab, signers[2], Object(1, ZERO)).name == "NotCommitted"
    lab.act(signers[0], Object(1, ZERO))
    assert refused(lab, signers[0], Object(1, ZERO)).name == "AlreadyObjected"
    assert refused(lab, stranger, Advance(1, b"")).name == "NotYet"
    lab.advance()
    assert refused(lab, stranger, Advance(1, b"")).name == "WrongPhase"
    assert excluded_root({}) == included_root(lab.state(), ())


def test_verdicts_are_taken_with_the_signature_of_a_quorum_and_not_without(lab: Any) -> None:
    lab.to_verify()
    duty, good = lab.on_duty(), bytes(3)
    signed = lab.signed(1, good)
    first, second = signed.each_key()
    third = lab.registration(2).key
    table = [
        (lab.signed(1, good, (0,)), "TooFewVerifiers"),
        (replace(signed, signers=0), "TooFewVerifiers"),
        (replace(signed, signers=9), "NotVerifiers"),
        (replace(signed, keys=second + first), "WrongKeys"),
        (replace(signed, keys=first + third), "WrongKeys"),
        (replace(signed, keys=first), "WrongKeys"),
        (replace(signed, keys=signed.keys + third), "WrongKeys"),
        (replace(signed, keys=signed.keys[:-1]), "WrongKeys"),
        (replace(signed, signature=bytes(256)), "BadQuorumSignature"),
        (replace(signed, signature=b""), "BadQuorumSignature"),
        (lab.signed(1, bytes([0, 0, 17])), "BadQuorumSignature"),
        (replace(lab.signed(1, good, (0, 2)), signers=signed.signers, keys=signed.keys), "BadQuorumSignature"),
    ]
    for wrong, name in table:
        assert refused(lab, duty, PostVerdicts(1, good, wrong)).name == name
    lab.act(duty, PostVerdicts(1, good, signed))
    assert agrees(lab) is Phase.PROPOSE
    check_signed(lab.state())
    assert lab.state().verdicts.signed.members == (0, 1)


def test_an_equivocation_makes_signatures_void(lab: Any) -> None:
    """What was signed is the round as it stood."""
    lab.to_verify()
    before, right = lab.signed(1, bytes(3)), bytes([0, 0, 3])
    early = lab.signed(1, right)
    lab.act(lab.cast.stranger, lab.submission(1, 2, "second"))
    assert refused(lab, lab.on_duty(), PostVerdicts(1, bytes(3), before)).name == "BadVerdicts"
    assert refused(lab, lab.on_duty(), PostVerdicts(1, right, early)).name == "BadQuorumSignature"
    lab.judge()
    assert lab.state().reasons == {0: 0, 1: 0, 2: 3}


def test_dissent_is_kept_and_changes_nothing(lab: Any) -> None:
    lab.to_verify()
    signers, other = lab.cast.signers, bytes([0, 0, 17])
    assert refused(lab, signers[0], Dissent(1, other)).name == "WrongPhase"
    lab.judge()
    assert refused(lab, lab.cast.stranger, Dissent(1, other)).name == "NotSeated"
    assert refused(lab, signers[0], Dissent(1, bytes(3))).name == "NoDissent"
    assert refused(lab, signers[0], Dissent(1, bytes(2))).name == "BadVerdicts"
    assert refused(lab, signers[0], Dissent(1, bytes([0, 0, 4]))).name == "BadVerdicts"
    lab.act(signers[0], Dissent(1, other))
    assert refused(lab, signers[0], Dissent(1, other)).name == "AlreadyDissented"
    assert agrees(lab) is Phase.PROPOSE
    lab.act(lab.on_duty(), lab.proposal())
    lab.act(signers[2], Dissent(1, other))
    assert agrees(lab) is Phase.PROPOSED
    lab.advance()
    assert agrees(lab) is Phase.FINAL
    assert {member: event.reasons for member, event in lab.state().dissents.items()} == {0: other, 2: other}
    assert refused(lab, signers[1], Dissent(1, other)).name == "WrongPhase"


def test_a_verifier_key_changes_at_the_next_opening(lab: Any) -> None:
    fresh = lab.registration(0, lab.cast.stranger)
    lab.to_verify()
    lab.act(lab.cast.owners[0], fresh)
    assert lab.chain.member(0).next_verifier == key_hash(fresh.key)
    lab.judge()
    lab.act(lab.on_duty(), lab.proposal())
    lab.advance()
    lab.open(bundle=lab.chain.global_bundle())
    seat = lab.state(2).seats[0]
    assert seat.verifier == lab.chain.member(0).verifier == key_hash(fresh.key)
    assert not any(lab.chain.member(0).next_verifier)


def test_a_round_needs_verifiers_with_keys(lab: Any, make_key: Any, policies: dict[str, Policy]) -> None:
    lab.act(lab.cast.coordinator, AddMember(make_key("new owner").address, make_key("newcomer").address, 5))
    keyless = replace(policies["plain"], verifier_quorum=4)
    refusal = refused(lab, lab.cast.coordinator, Open(SOME, SOME, keyless))
    assert (refusal.name, refusal.arguments) == ("TooFewVerifiers", (1, 3, 4))
    lab.open(replace(policies["plain"], verifier_quorum=3))
    assert lab.state().verifiers == (0, 1, 2)
