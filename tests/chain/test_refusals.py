"""What the contracts refuse in each phase, and by which name: on the twin and on the contracts alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

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
)
from ledger.eip712 import Domain, Submission, sign_submission
from ledger.quorum import check_signed
from ledger.records import Phase, Policy, Signed
from ledger.round_state import BEACON_DELAY_BLOCKS, excluded_root, included_root

ZERO = bytes(32)
SOME = keccak(text="some digest")
UNSIGNED = Signed(0, b"", b"")  # for what is refused before anybody looks at it


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
        assert lab.refused(key, action).name == name, action
    lab.act(owners[0], RemoveMember(0))
    assert lab.refused(owners[0], RemoveMember(0)).name == "NotLeavable"


def test_refusals_before_and_in_commit(lab: Any, policies: dict[str, Policy]) -> None:
    boss, signers, stranger = lab.cast.coordinator, lab.cast.signers, lab.cast.stranger
    plain = policies["plain"]
    assert lab.refused(stranger, Open(SOME, SOME, plain)).name == "AccessControlUnauthorizedAccount"
    assert lab.refused(boss, Open(ZERO, SOME, plain)).name == "EmptyDigest"
    for broken in (
        replace(plain, commit_blocks=0),
        replace(plain, quorum=4),
        replace(plain, quorum=0),
        replace(plain, verifier_quorum=4),
        replace(plain, verifier_quorum=0),
        replace(plain, proof_required=True),
    ):
        assert lab.refused(boss, Open(SOME, SOME, broken)).name == "BadPolicy"
    assert lab.refused(stranger, Advance(1, b"")).name == "UnknownRound"
    lab.open()
    assert lab.refused(boss, Open(SOME, SOME, plain)).name == "RoundStillOpen"
    assert lab.refused(stranger, Commit(1, SOME, SOME)).name == "NotSeated"
    assert lab.refused(signers[0], Commit(1, ZERO, SOME)).name == "EmptyDigest"
    assert lab.refused(signers[0], Commit(2, SOME, SOME)).name == "UnknownRound"
    lab.act(signers[0], lab.commitment(1, 0))
    lab.act(signers[0], lab.commitment(1, 0))
    assert lab.refused(signers[0], Commit(1, SOME, SOME)).name == "AlreadyCommitted"
    assert lab.refused(stranger, lab.submission(1, 0)).name == "WrongPhase"
    assert lab.refused(stranger, Advance(1, b"")).arguments == (1, lab.state().deadline_block + 1)
    lab.mine(8)
    assert lab.refused(signers[1], Commit(1, SOME, SOME)).name == "PastDeadline"


def test_refusals_in_train(lab: Any) -> None:
    signers, stranger = lab.cast.signers, lab.cast.stranger
    lab.open()
    for member in (0, 1):
        lab.act(signers[member], lab.commitment(1, member))
    lab.mine(lab.state().deadline_block + BEACON_DELAY_BLOCKS - lab.chain.head().number)
    assert lab.refused(stranger, Advance(1, lab.chain.head().rlp[:-1])).name == "BadHeader"
    assert lab.refused(stranger, Advance(1, lab.chain.header(1).rlp)).name == "BadHeader"
    lab.advance()
    good = lab.submission(1, 0)
    assert lab.refused(stranger, replace(good, bundle=ZERO)).name == "EmptyDigest"
    assert lab.refused(stranger, replace(good, member=9)).name == "NotSeated"
    assert lab.refused(stranger, lab.submission(1, 2)).name == "NotCommitted"
    assert lab.refused(stranger, replace(good, spent_micro=1)).name == "BadSignature"
    assert lab.refused(stranger, replace(good, signature=good.signature[:64])).arguments == (1, 0, bytes(20))
    assert lab.refused(stranger, lab.submission(1, 0, spent=1_000_001)).name == "OverCap"
    lab.act(lab.cast.owners[0], SetCap(0, 500))
    assert lab.refused(stranger, good).arguments == (0, 1000, 500)
    lab.mine(8)
    assert lab.refused(stranger, lab.submission(1, 1)).name == "PastDeadline"


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
        assert lab.refused(signer, replace(good, signature=signature)).name == "BadSignature", where
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    s = (order - int.from_bytes(good.signature[32:64])).to_bytes(32)
    mirrored = good.signature[:32] + s + bytes([55 - good.signature[64]])
    assert lab.refused(signer, replace(good, signature=mirrored)).name == "BadSignature"


def test_refusals_in_prove_verify_and_propose(lab: Any, policies: dict[str, Policy]) -> None:
    signers, stranger, duty = lab.cast.signers, lab.cast.stranger, lab.on_duty()
    lab.to_train(policies["proving"])
    for member in (0, 1):
        lab.act(stranger, lab.submission(1, member))
    lab.advance()
    assert lab.refused(stranger, Advance(1, b"")).arguments == (1, lab.state().deadline_block + 1)
    assert lab.refused(signers[0], Prove(1, ZERO)).name == "EmptyDigest"
    assert lab.refused(signers[2], Prove(1, SOME)).name == "NotSubmitted"
    lab.act(signers[0], Prove(1, SOME))
    lab.act(signers[0], Prove(1, SOME))
    assert lab.refused(signers[0], Prove(1, keccak(SOME))).name == "AlreadyProved"
    assert lab.refused(duty, PostVerdicts(1, bytes(3), UNSIGNED)).name == "WrongPhase"
    lab.act(signers[1], Prove(1, SOME))
    assert lab.refused(stranger, PostVerdicts(1, bytes(3), UNSIGNED)).name == "NotAggregator"
    assert lab.refused(duty, PostVerdicts(1, bytes(2), UNSIGNED)).arguments == (1, 2, 0)
    assert lab.refused(duty, PostVerdicts(1, bytes(3), UNSIGNED)).arguments == (1, 2, 0)  # seat 2 did not submit
    assert lab.refused(duty, PostVerdicts(1, bytes([1, 0, 2]), UNSIGNED)).arguments == (1, 0, 1)
    lab.judge()
    good = lab.proposal()
    assert lab.refused(duty, replace(good, aggregate_bundle=ZERO)).name == "EmptyDigest"
    assert lab.refused(duty, replace(good, included_root=SOME)).arguments == (good.included_root, SOME)
    assert lab.refused(duty, replace(good, excluded_root=SOME)).arguments == (good.excluded_root, SOME)
    assert lab.refused(stranger, lab.submission(1, 0, "late")).name == "WrongPhase"
    lab.act(duty, good)
    assert lab.refused(signers[0], Propose(1, SOME, SOME, SOME)).name == "WrongPhase"


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
    assert lab.refused(stranger, Object(1, ZERO)).name == "NotSeated"
    assert lab.refused(signers[2], Object(1, ZERO)).name == "NotCommitted"
    lab.act(signers[0], Object(1, ZERO))
    assert lab.refused(signers[0], Object(1, ZERO)).name == "AlreadyObjected"
    assert lab.refused(stranger, Advance(1, b"")).name == "NotYet"
    lab.advance()
    assert lab.refused(stranger, Advance(1, b"")).name == "WrongPhase"
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
        assert lab.refused(duty, PostVerdicts(1, good, wrong)).name == name
    lab.act(duty, PostVerdicts(1, good, signed))
    assert lab.agreed() is Phase.PROPOSE
    check_signed(lab.state())
    assert lab.state().verdicts.signed.members == (0, 1)


def test_an_equivocation_makes_signatures_void(lab: Any) -> None:
    """What was signed is the round as it stood."""
    lab.to_verify()
    before, right = lab.signed(1, bytes(3)), bytes([0, 0, 3])
    early = lab.signed(1, right)
    lab.act(lab.cast.stranger, lab.submission(1, 2, "second"))
    assert lab.refused(lab.on_duty(), PostVerdicts(1, bytes(3), before)).name == "BadVerdicts"
    assert lab.refused(lab.on_duty(), PostVerdicts(1, right, early)).name == "BadQuorumSignature"
    lab.judge()
    assert lab.state().reasons == {0: 0, 1: 0, 2: 3}


def test_dissent_is_kept_and_changes_nothing(lab: Any) -> None:
    lab.to_verify()
    signers, other = lab.cast.signers, bytes([0, 0, 17])
    assert lab.refused(signers[0], Dissent(1, other)).name == "WrongPhase"
    lab.judge()
    assert lab.refused(lab.cast.stranger, Dissent(1, other)).name == "NotSeated"
    assert lab.refused(signers[0], Dissent(1, bytes(3))).name == "NoDissent"
    assert lab.refused(signers[0], Dissent(1, bytes(2))).name == "BadVerdicts"
    assert lab.refused(signers[0], Dissent(1, bytes([0, 0, 4]))).name == "BadVerdicts"
    lab.act(signers[0], Dissent(1, other))
    assert lab.refused(signers[0], Dissent(1, other)).name == "AlreadyDissented"
    assert lab.agreed() is Phase.PROPOSE
    lab.act(lab.on_duty(), lab.proposal())
    lab.act(signers[2], Dissent(1, other))
    assert lab.agreed() is Phase.PROPOSED
    lab.advance()
    assert lab.agreed() is Phase.FINAL
    assert {member: event.reasons for member, event in lab.state().dissents.items()} == {0: other, 2: other}
    assert lab.refused(signers[1], Dissent(1, other)).name == "WrongPhase"


def test_a_round_needs_verifiers_with_keys(lab: Any, make_key: Any, policies: dict[str, Policy]) -> None:
    lab.act(lab.cast.coordinator, AddMember(make_key("new owner").address, make_key("newcomer").address, 5))
    keyless = replace(policies["plain"], verifier_quorum=4)
    refusal = lab.refused(lab.cast.coordinator, Open(SOME, SOME, keyless))
    assert (refusal.name, refusal.arguments) == ("TooFewVerifiers", (1, 3, 4))
    lab.open(replace(policies["plain"], verifier_quorum=3))
    assert lab.state().verifiers == (0, 1, 2)
