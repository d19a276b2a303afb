"""The life of a round, told twice: on the twin and on the contracts. What the events say is what the contracts hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from eth_utils.crypto import keccak

from ledger.actions import (
    AddMember,
    Advance,
    Object,
    Open,
    PostVerdicts,
    Prove,
    RemoveMember,
    RotateSigner,
    SetAggregators,
    SetCap,
    Submit,
)
from ledger.eip712 import Submission, sign_submission
from ledger.quorum import key_hash
from ledger.records import MemberStatus, Phase, Policy, Signed, Voided, VoidReason
from ledger.round_state import BEACON_DELAY_BLOCKS, due, last_possible_block
from ledger.rules import check_beacon_header, check_turn

ZERO = bytes(32)
SOME = keccak(text="some digest")
UNSIGNED = Signed(0, b"", b"")  # for what is refused before anybody looks at it


def test_an_honest_round_ends_final(lab: Any) -> None:
    number = lab.open()
    assert (number, lab.agreed()) == (1, Phase.COMMIT)
    assert lab.chain.global_bundle() == lab.history().global_bundle
    lab.commit_all()
    assert lab.agreed() is Phase.COMMIT
    assert lab.state().close_block == lab.chain.head().number
    lab.advance()
    assert lab.agreed() is Phase.TRAIN
    lab.submit_all()
    assert lab.agreed() is Phase.TRAIN
    lab.advance()
    assert lab.agreed() is Phase.VERIFY
    lab.judge()
    assert lab.agreed() is Phase.PROPOSE
    lab.act(lab.on_duty(), lab.proposal())
    assert lab.agreed() is Phase.PROPOSED
    lab.advance()
    assert lab.agreed() is Phase.FINAL
    assert lab.chain.global_bundle() == lab.proposal().aggregate_bundle == lab.history().global_bundle
    assert [member.spent_micro for member in lab.chain.members()] == [1000, 1000, 1000]


def test_a_round_with_proofs_goes_through_prove(lab: Any, policies: dict[str, Policy]) -> None:
    lab.to_train(policies["proving"])
    lab.submit_all()
    lab.advance()
    assert lab.agreed() is Phase.PROVE
    lab.act(lab.cast.signers[0], Prove(1, keccak(text="proof 0")))
    assert lab.agreed() is Phase.PROVE
    for member in (1, 2):
        lab.act(lab.cast.signers[member], Prove(1, keccak(text=f"proof {member}")))
    assert lab.agreed() is Phase.VERIFY


def test_prove_ends_by_the_clock_and_unproven_members_are_judged_so(lab: Any, policies: dict[str, Policy]) -> None:
    lab.to_train(policies["proving"])
    lab.submit_all()
    lab.advance()
    lab.act(lab.cast.signers[0], Prove(1, SOME))
    lab.act(lab.cast.signers[1], Prove(1, SOME))
    lab.mine(policies["proving"].prove_blocks)
    assert lab.agreed() is Phase.VERIFY
    lab.judge()
    assert lab.state().reasons == {0: 0, 1: 0, 2: 4}
    assert lab.agreed() is Phase.PROPOSE


def test_a_round_starts_from_the_last_final_aggregate(lab: Any) -> None:
    lab.to_proposed()
    lab.advance()
    final = lab.chain.global_bundle()
    assert lab.refused(lab.cast.coordinator, Open(SOME, SOME, lab.state().policy)).name == "WrongGlobalBundle"
    assert lab.open(bundle=final) == 2
    assert [seat.spent_micro for seat in lab.state(2).seats] == [1000, 1000, 1000]
    assert lab.agreed(2) is Phase.COMMIT


def test_a_second_different_submission_is_kept_as_evidence(lab: Any) -> None:
    lab.to_train()
    lab.submit_all()
    first, second = lab.submission(1, 2), lab.submission(1, 2, "other")
    lab.act(lab.cast.stranger, first)  # the same again is fine
    lab.act(lab.cast.stranger, second)
    lab.act(lab.cast.stranger, lab.submission(1, 2, "third"))  # and after that nothing counts
    assert lab.agreed() is Phase.TRAIN
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
    assert lab.agreed() is Phase.PROVE
    lab.act(lab.cast.stranger, lab.submission(1, 2, "other"))
    assert lab.agreed() is Phase.VERIFY


def test_all_members_vanish(lab: Any) -> None:
    lab.open()
    lab.advance()
    assert lab.agreed() is Phase.VOID
    assert lab.view().void_reason is VoidReason.COMMIT_QUORUM
    assert lab.open() == 2


def test_members_commit_and_vanish(lab: Any) -> None:
    lab.to_train()
    lab.act(lab.cast.stranger, lab.submission(1, 0))
    lab.advance()
    assert lab.view().void_reason is VoidReason.SUBMIT_QUORUM
    assert lab.agreed() is Phase.VOID
    assert lab.chain.member(0).spent_micro == 1000  # what was published stays spent


def test_a_sleeping_aggregator_voids_the_round(lab: Any) -> None:
    lab.to_verify()
    lab.advance()
    assert (lab.agreed(), lab.view().void_reason) == (Phase.VOID, VoidReason.NO_VERDICT)
    lab.to_verify()
    lab.judge(2)
    lab.advance(2)
    assert (lab.agreed(2), lab.view(2).void_reason) == (Phase.VOID, VoidReason.NO_PROPOSAL)


def test_nobody_proves_and_nobody_judges(lab: Any, policies: dict[str, Policy]) -> None:
    """From an open Prove phase, voiding takes two calls: the first only writes down that Prove is over."""
    lab.to_train(policies["proving"])
    lab.submit_all()
    lab.advance()
    lab.advance()
    assert lab.agreed() is Phase.VERIFY
    lab.act(lab.cast.stranger, Advance(1, b""))
    assert (lab.agreed(), lab.view().void_reason) == (Phase.VOID, VoidReason.NO_VERDICT)


def test_too_few_accepted_voids_in_the_same_transaction(lab: Any) -> None:
    lab.to_verify()
    lab.judge(reasons=bytes([0, 17, 22]))
    assert (lab.agreed(), lab.view().void_reason) == (Phase.VOID, VoidReason.NOTHING_ACCEPTED)
    last, before = lab.state().log[-1], lab.state().log[-2]
    assert isinstance(last.event, Voided)
    assert last.tx_hash == before.tx_hash


def test_a_majority_of_objections_voids_the_round(lab: Any) -> None:
    lab.to_proposed()
    lab.act(lab.cast.signers[0], Object(1, SOME))
    assert lab.agreed() is Phase.PROPOSED
    lab.act(lab.cast.signers[1], Object(1, ZERO))
    assert (lab.agreed(), lab.view().void_reason) == (Phase.VOID, VoidReason.DISPUTED)


def test_without_a_challenge_window_a_proposal_is_final_at_once(lab: Any, policies: dict[str, Policy]) -> None:
    lab.to_proposed(replace(policies["plain"], challenge_blocks=0))
    assert lab.agreed() is Phase.FINAL


def test_the_other_aggregator_takes_over_at_half_time(lab: Any) -> None:
    lab.to_verify()
    other = lab.cast.aggregators[0]
    refusal = lab.refused(other, PostVerdicts(1, bytes(3), UNSIGNED))
    assert refusal.name == "NotYourTurn"
    assert refusal.arguments == (other.address, lab.state().deadline_block - 4)
    lab.mine(lab.state().deadline_block - 4 - lab.chain.head().number - 1)
    before = lab.state()
    lab.act(other, PostVerdicts(1, bytes(3), lab.signed(1, bytes(3))))
    check_turn(before, lab.state().log[-1], lab.chain.aggregators())
    assert lab.agreed() is Phase.PROPOSE


def test_the_beacon_is_that_of_its_block_however_late(lab: Any) -> None:
    lab.open()
    lab.commit_all()
    lab.mine(5)
    lab.advance()
    seal = lab.state().train_seal
    assert seal is not None
    check_beacon_header(seal, lab.chain.header(lab.state().log[3].block_number + BEACON_DELAY_BLOCKS))
    assert lab.agreed() is Phase.TRAIN


def test_the_header_right_after_the_close_is_no_beacon(lab: Any) -> None:
    """EIP-4399: it holds the mix after block X, which the proposer of X knew while filling X with commitments."""
    lab.open()
    lab.commit_all()
    stranger, closed = lab.cast.stranger, lab.state().close_block
    lab.mine()
    early = Advance(1, lab.chain.header(closed + 1).rlp)
    refusal = lab.refused(stranger, early)
    assert (refusal.name, refusal.arguments) == ("NotYet", (1, closed + 3))
    lab.mine()
    refusal = lab.refused(stranger, early)
    assert (refusal.name, refusal.arguments) == ("BadHeader", (closed + 2,))
    lab.act(stranger, Advance(1, lab.chain.header(closed + 2).rlp))
    assert lab.agreed() is Phase.TRAIN


def test_a_beacon_is_lost_when_its_header_is_forgotten(lab: Any) -> None:
    lab.open()
    lab.commit_all()
    lab.forget_history()
    lab.mine(BEACON_DELAY_BLOCKS + 256)
    assert lab.chain.head().number == lab.state().end_block + BEACON_DELAY_BLOCKS + 256
    lab.advance()
    assert (lab.agreed(), lab.view().void_reason) == (Phase.VOID, VoidReason.BEACON_LOST)


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


def test_declared_privacy_never_falls(lab: Any) -> None:
    lab.to_proposed()
    lab.advance()
    lab.to_train()
    low = Submission(2, 0, SOME, 999)
    signature = sign_submission(lab.cast.signers[0].secret, lab.domain, low)
    assert lab.refused(lab.cast.stranger, Submit(2, 0, SOME, 999, signature)).arguments == (0, 999, 1000)


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
