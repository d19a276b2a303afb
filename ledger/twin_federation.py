"""Federation.sol in Python: the same checks in the same order, refusing with the same names. State is frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from eth_utils.crypto import keccak

from ledger import bls
from ledger.actions import (
    AddMember,
    FederationAction,
    RegisterVerifier,
    RemoveMember,
    RotateSigner,
    SetAggregators,
    SetCap,
    SetRounds,
)
from ledger.ports import ContractRefused
from ledger.quorum import key_hash, possession_digest
from ledger.records import Member, MemberStatus, Seat
from ledger.round_state import bitmap

ZERO_ADDRESS: Final = bytes(20)
NO_KEY: Final = bytes(32)
ADMIN_ROLE: Final = bytes(32)
COORDINATOR_ROLE: Final = keccak(text="candor/coordinator/1")
MAX_MEMBERS = 256


@dataclass(frozen=True)
class FederationState:
    """Storage of the contract. `signers` and `verifiers` map a key (of verifiers, its hash) to the member for whom it
    signs, or once signed."""

    chain_id: int
    address: bytes
    admin: bytes
    coordinator: bytes
    rounds: bytes = ZERO_ADDRESS
    members: tuple[Member, ...] = ()
    signers: Mapping[bytes, int] = field(default_factory=dict)
    verifiers: Mapping[bytes, int] = field(default_factory=dict)
    aggregators: tuple[bytes, ...] = ()
    next_aggregators: tuple[bytes, ...] | None = None
    ever_seated: bool = False


def refuse(name: str, *arguments: object) -> ContractRefused:
    return ContractRefused(name, arguments)


def execute(state: FederationState, sender: bytes, action: FederationAction) -> FederationState:
    """The state after the call. Raises ContractRefused, and then nothing has happened."""
    match action:
        case AddMember():
            return _add_member(state, sender, action)
        case RemoveMember(number):
            return _remove_member(state, sender, number)
        case RotateSigner(number, signer):
            owned = _owned(state, sender, number)
            return _put(_bind(state, number, owned.owner, signer), replace(owned, next_signer=signer))
        case RegisterVerifier():
            return _register_verifier(state, sender, action)
        case SetCap(number, cap):
            return _set_cap(state, sender, number, cap)
        case SetAggregators(order):
            return _set_aggregators(state, sender, order)
        case SetRounds(rounds):
            return _set_rounds(state, sender, rounds)


def seat_members(state: FederationState) -> tuple[FederationState, tuple[Seat, ...]]:
    """What an opening does: admit the pending, drop the leaving, rotate signers, change aggregators."""
    members = tuple(map(_at_opening, state.members))
    order = state.aggregators if state.next_aggregators is None else state.next_aggregators
    seated = replace(state, members=members, aggregators=order, next_aggregators=None, ever_seated=True)
    active = (m for m in members if m.status is MemberStatus.ACTIVE)
    return seated, tuple(Seat(m.number, m.owner, m.signer, m.cap_micro, m.spent_micro, m.verifier) for m in active)


def signed_by(state: FederationState, members: tuple[int, ...], keys: bytes, digest: bytes, signature: bytes) -> bool:
    """Is it the sum of the signatures of all of `members`, by the keys in force?"""
    each = tuple(keys[i : i + bls.KEY_BYTES] for i in range(0, len(keys), bls.KEY_BYTES))
    known = [state.members[member].verifier for member in members if member < len(state.members)]
    if not each or [key_hash(key) for key in each] != known or len(known) != len(members):
        raise refuse("WrongKeys", bitmap(members))
    return bls.verify(each, digest, signature)


def charge(state: FederationState, number: int, spent_micro: int) -> FederationState:
    member = at(state, number)
    if spent_micro > member.cap_micro:
        raise refuse("OverCap", number, spent_micro, member.cap_micro)
    if spent_micro < member.spent_micro:
        raise refuse("EpsilonDecreased", number, spent_micro, member.spent_micro)
    return _put(state, replace(member, spent_micro=spent_micro))


def at(state: FederationState, number: int) -> Member:
    if number >= len(state.members):
        raise refuse("UnknownMember", number)
    return state.members[number]


def require_coordinator(state: FederationState, sender: bytes) -> None:
    if sender != state.coordinator:
        raise refuse("AccessControlUnauthorizedAccount", sender, COORDINATOR_ROLE)


def _add_member(state: FederationState, sender: bytes, action: AddMember) -> FederationState:
    require_coordinator(state, sender)
    if len(state.members) >= MAX_MEMBERS:
        raise refuse("FederationFull")
    if action.owner == ZERO_ADDRESS:
        raise refuse("ZeroAddress")
    number = len(state.members)
    bound = _bind(state, number, action.owner, action.signer)
    keys = action.owner, MemberStatus.PENDING, action.signer, ZERO_ADDRESS
    added = Member(number, *keys, action.cap_micro, 0, NO_KEY, NO_KEY)
    return replace(bound, members=(*state.members, added))


def _remove_member(state: FederationState, sender: bytes, number: int) -> FederationState:
    member = at(state, number)
    if sender not in (member.owner, state.coordinator):
        raise refuse("NotOwner", number, sender)
    if member.status not in (MemberStatus.PENDING, MemberStatus.ACTIVE):
        raise refuse("NotLeavable", number, int(member.status))
    return _put(state, replace(member, status=MemberStatus.LEAVING))


def _register_verifier(state: FederationState, sender: bytes, action: RegisterVerifier) -> FederationState:
    member = at(state, action.member)
    first = member.verifier == member.next_verifier == NO_KEY
    if sender != member.owner and not (first and sender == member.signer):
        raise refuse("NotOwner", member.number, sender)
    verifier = key_hash(action.key)
    if state.verifiers.get(verifier, member.number) != member.number:
        raise refuse("VerifierTaken", verifier)
    digest = possession_digest(state.chain_id, state.address, member.number, action.key)
    if not bls.verify((action.key,), digest, action.proof, bls.POSSESSION):
        raise refuse("BadPossession", member.number)
    known = replace(state, verifiers={**state.verifiers, verifier: member.number})
    if member.status is MemberStatus.PENDING:
        return _put(known, replace(member, verifier=verifier))
    return _put(known, replace(member, next_verifier=verifier))


def _set_cap(state: FederationState, sender: bytes, number: int, cap: int) -> FederationState:
    member = _owned(state, sender, number)
    if cap < member.spent_micro:
        raise refuse("CapBelowSpent", number, cap, member.spent_micro)
    return _put(state, replace(member, cap_micro=cap))


def _set_aggregators(state: FederationState, sender: bytes, order: tuple[bytes, ...]) -> FederationState:
    require_coordinator(state, sender)
    if ZERO_ADDRESS in order:
        raise refuse("ZeroAddress")
    return replace(state, next_aggregators=order) if state.ever_seated else replace(state, aggregators=order)


def _set_rounds(state: FederationState, sender: bytes, rounds: bytes) -> FederationState:
    if sender != state.admin:
        raise refuse("AccessControlUnauthorizedAccount", sender, ADMIN_ROLE)
    if state.rounds != ZERO_ADDRESS:
        raise refuse("RoundsAlreadySet")
    if rounds == ZERO_ADDRESS:
        raise refuse("ZeroAddress")
    return replace(state, rounds=rounds)


def _at_opening(member: Member) -> Member:
    if member.status is MemberStatus.GONE:
        return member
    if member.status is MemberStatus.LEAVING:
        return replace(member, status=MemberStatus.GONE)
    signer = member.signer if member.next_signer == ZERO_ADDRESS else member.next_signer
    verifier = member.verifier if member.next_verifier == NO_KEY else member.next_verifier
    seated = replace(member, status=MemberStatus.ACTIVE, signer=signer, next_signer=ZERO_ADDRESS)
    return replace(seated, verifier=verifier, next_verifier=NO_KEY)


def _bind(state: FederationState, number: int, owner: bytes, signer: bytes) -> FederationState:
    if signer == ZERO_ADDRESS:
        raise refuse("ZeroAddress")
    if signer == owner or state.signers.get(signer, number) != number:
        raise refuse("SignerTaken", signer)
    return replace(state, signers={**state.signers, signer: number})


def _owned(state: FederationState, sender: bytes, number: int) -> Member:
    member = at(state, number)
    if sender != member.owner:
        raise refuse("NotOwner", number, sender)
    return member


def _put(state: FederationState, member: Member) -> FederationState:
    members = list(state.members)
    members[member.number] = member
    return replace(state, members=tuple(members))
