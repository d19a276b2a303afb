"""The law: may this event follow those before it? Pure: events in, state out, or RuleBroken naming the rule.

It re-derives from the events alone whatever the contract derived: transcript, seats, deadlines, early closes, beacons,
signatures, caps, equivocation, the reasons that the chain itself knows, who may sign verdicts, both roots, objections,
dissent, and reasons of voids.

What it cannot see, and whoever calls it still owes:
- that `mixHash` is the one in the beacon block's header (`check_beacon_header`);
- that the signature under verdicts is their signers' (`ledger.quorum.check_signed`: it is slow);
- who was an aggregator, and whose turn it was (`check_turn`): that is Federation's state, not the round's;
- that no event was cut off at the end: compare `transcript` with the contract's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from eth_utils.crypto import keccak

from ledger.eip712 import SignatureInvalid, Submission, submission_signer
from ledger.headers import Header
from ledger.opening import Rule, RuleBroken, check_transcript, nonzero, require
from ledger.records import (
    AggregateProposed,
    Committed,
    Dissented,
    Equivocation,
    Finalised,
    Logged,
    Objected,
    Phase,
    Proved,
    Reason,
    Sealed,
    Seat,
    Signed,
    Submitted,
    VerdictsPosted,
    Voided,
    VoidReason,
)
from ledger.round_state import (
    RoundState,
    beacon,
    beacon_block,
    bitmap,
    due,
    excluded_root,
    included_root,
    known_reason,
    settled,
    turn_begins,
)

HASHES_KEPT = 256  # what BLOCKHASH reaches back to; with EIP-2935 it is 8191


def apply(state: RoundState, logged: Logged) -> RoundState:
    """The state after one more event of the same round. Raises RuleBroken; `state` itself never changes."""
    _check_order(state, logged)
    check_transcript(state.transcript, logged)
    _check_owed(state, logged)
    handler = _HANDLERS.get(type(logged.event))
    if handler is None:
        raise RuleBroken(Rule.PHASE, "a round opens only once")
    after = handler(settled(state, logged.block_number), logged.event, logged.block_number)
    return replace(after, log=(*state.log, logged))


def check_beacon_header(sealed: Sealed, header: Header) -> None:
    """What `apply` leaves owed after Sealed: the mixHash is that of the beacon's block. Raises RuleBroken."""
    number = beacon_block(sealed.close_block)
    require(header.number == number, Rule.BEACON, f"expected the header of block {number}, found {header.number}")
    expected, found = header.mix_hash.hex(), sealed.mix_hash.hex()
    require(expected == found, Rule.BEACON, f"block {number} has the mixHash {expected}, the round says {found}")


def check_turn(before: RoundState, logged: Logged, aggregators: Sequence[bytes]) -> None:
    """Was it this aggregator's turn? `before` is the state before VerdictsPosted or AggregateProposed; others pass."""
    event = logged.event
    if not isinstance(event, (VerdictsPosted, AggregateProposed)):
        return
    begins = turn_begins(settled(before, logged.block_number), aggregators, event.aggregator)
    who = event.aggregator.hex()
    if begins is None:
        raise RuleBroken(Rule.TURN, f"{who} is not an aggregator")
    late_enough = logged.block_number >= begins
    require(late_enough, Rule.TURN, f"{who} may act from block {begins}, found block {logged.block_number}")


def _committed(state: RoundState, event: Committed, block: int) -> RoundState:
    _seat(state, event.member)
    nonzero(event.dataset_root, event.words_root)
    _in_phase(state, block, Phase.COMMIT)
    _first_time(event.member, state.commitments)
    commitments = {**state.commitments, event.member: event}
    closed = block if len(commitments) == len(state.seats) else 0
    return replace(state, commitments=commitments, close_block=closed)


def _sealed(state: RoundState, event: Sealed, block: int) -> RoundState:
    end, policy = state.end_block, state.policy
    begins = beacon_block(end)
    sealable = state.phase in (Phase.COMMIT, Phase.TRAIN) and event.closed is state.phase
    require(sealable, Rule.PHASE, f"{event.closed.name} is sealed in {state.phase.name}")
    acted = state.commitments if state.phase is Phase.COMMIT else state.standing
    require(len(acted) >= policy.quorum, Rule.QUORUM, f"expected {policy.quorum} members, found {len(acted)}")
    require(event.close_block == end, Rule.CLOSE_BLOCK, f"expected block {end}, found {event.close_block}")
    require(block > begins, Rule.TOO_EARLY, f"sealed in block {block}, possible from {begins + 1}")
    expected = beacon(state.domain, state.number, event.closed, event.mix_hash)
    require(event.beacon == expected, Rule.BEACON, f"expected {expected.hex()}, found {event.beacon.hex()}")
    if event.closed is Phase.COMMIT:
        return replace(state, train_seal=event).enter(Phase.TRAIN, begins + policy.train_blocks)
    phase = Phase.PROVE if policy.proof_required else Phase.VERIFY
    blocks = policy.prove_blocks if policy.proof_required else policy.verify_blocks
    return replace(state, prove_seal=event).enter(phase, begins + blocks)


def _submitted(state: RoundState, event: Submitted, block: int) -> RoundState:
    seat = _seat(state, event.member)
    nonzero(event.bundle)
    _in_phase(state, block, Phase.TRAIN)
    require(event.member in state.commitments, Rule.COMMITTED, f"member {event.member} did not commit")
    _first_time(event.member, state.submissions)
    _check_signature(state, seat, event)
    within = seat.spent_micro <= event.spent_micro <= seat.cap_micro
    limits = f"[{seat.spent_micro}, {seat.cap_micro}]"
    require(within, Rule.EPSILON, f"member {event.member}: expected {limits}, found {event.spent_micro}")
    submissions = {**state.submissions, event.member: event}
    closed = block if len(submissions) == len(state.commitments) else 0
    return replace(state, submissions=submissions, close_block=closed)


def _equivocation(state: RoundState, event: Equivocation, block: int) -> RoundState:
    seat = _seat(state, event.member)
    nonzero(event.bundle)
    first = state.submissions.get(event.member)
    if first is None:
        raise RuleBroken(Rule.SUBMITTED, f"member {event.member} has no first submission")
    _first_time(event.member, state.equivocations)
    different = (first.bundle, first.spent_micro) != (event.bundle, event.spent_micro)
    require(different, Rule.NOT_DIFFERENT, f"member {event.member} sent the same twice")
    phases = (Phase.TRAIN, Phase.PROVE, Phase.VERIFY)
    require(state.phase in phases, Rule.PHASE, f"Equivocation in {state.phase.name}")
    _check_signature(state, seat, event)
    after = replace(state, equivocations={**state.equivocations, event.member: event})
    return _close_prove_if_complete(after, block)


def _proved(state: RoundState, event: Proved, block: int) -> RoundState:
    _seat(state, event.member)
    nonzero(event.proof)
    _in_phase(state, block, Phase.PROVE)
    require(event.member in state.standing, Rule.SUBMITTED, f"member {event.member} has no standing submission")
    _first_time(event.member, state.proofs)
    return _close_prove_if_complete(replace(state, proofs={**state.proofs, event.member: event}), block)


def _close_prove_if_complete(state: RoundState, block: int) -> RoundState:
    if state.phase is Phase.PROVE and set(state.standing) <= state.proofs.keys():
        return state.enter(Phase.VERIFY, block + state.policy.verify_blocks)
    return state


def _verdicts_posted(state: RoundState, event: VerdictsPosted, block: int) -> RoundState:
    _in_phase(state, block, Phase.VERIFY)
    _check_reasons(state, event.reasons)
    _check_verifiers(state, event.signed)
    accepted = [seat.member for seat, code in zip(state.seats, event.reasons, strict=True) if code == Reason.ACCEPTED]
    expected = bitmap(accepted)
    require(event.accepted == expected, Rule.ACCEPTED, f"expected {expected:#x}, found {event.accepted:#x}")
    judged = replace(state, verdicts=event)
    if len(accepted) < state.policy.quorum:
        return replace(judged, owed=Phase.VOID)
    return judged.enter(Phase.PROPOSE, block + state.policy.propose_blocks)


def _check_reasons(state: RoundState, found: bytes) -> None:
    seats = state.seats
    require(len(found) == len(seats), Rule.VERDICTS, f"{len(found)} reasons for {len(seats)} seats")
    for seat, code in zip(seats, found, strict=True):
        known = known_reason(state, seat.member)
        fits = code == known if known else code == Reason.ACCEPTED or code >= 16
        require(fits, Rule.VERDICTS, f"member {seat.member}: the chain knows {known.name}, the verdict is {code}")


def _check_verifiers(state: RoundState, signed: Signed) -> None:
    """All but the pairing."""
    members, keys, needed = signed.members, signed.each_key(), state.policy.verifier_quorum
    require(len(members) >= needed, Rule.VERIFIERS, f"expected {needed} signers, found {len(members)}")
    registered = {seat.member: seat.verifier for seat in state.seats}
    strangers = [member for member in members if member not in registered]
    require(not strangers, Rule.VERIFIERS, f"signers {strangers} have no seat")
    expected, found = [registered[member] for member in members], [keccak(key) for key in keys]
    require(expected == found, Rule.VERIFIERS, f"the keys are not those that members {list(members)} registered")


def _dissented(state: RoundState, event: Dissented, block: int) -> RoundState:
    _seat(state, event.member)
    judged = state.phase in (Phase.PROPOSE, Phase.PROPOSED) and state.verdicts is not None
    require(judged, Rule.DISSENT, f"dissent in {state.phase.name}")
    _first_time(event.member, state.dissents)
    _check_reasons(state, event.reasons)
    different = state.verdicts is not None and event.reasons != state.verdicts.reasons
    require(different, Rule.DISSENT, f"member {event.member} says what was posted")
    return replace(state, dissents={**state.dissents, event.member: event})


def _aggregate_proposed(state: RoundState, event: AggregateProposed, block: int) -> RoundState:
    nonzero(event.aggregate_bundle)
    _in_phase(state, block, Phase.PROPOSE)
    roots = [("included", included_root(state, state.accepted), event.included_root)]
    roots += [("excluded", excluded_root(state.reasons), event.excluded_root)]
    for name, expected, found in roots:
        require(expected == found, Rule.ROOTS, f"{name}: expected {expected.hex()}, found {found.hex()}")
    owed = Phase.FINAL if state.policy.challenge_blocks == 0 else None
    proposed = replace(state, proposal=event, owed=owed)
    return proposed.enter(Phase.PROPOSED, block + state.policy.challenge_blocks)


def _objected(state: RoundState, event: Objected, block: int) -> RoundState:
    _seat(state, event.member)
    _in_phase(state, block, Phase.PROPOSED)
    require(event.member in state.commitments, Rule.COMMITTED, f"member {event.member} did not commit")
    _first_time(event.member, state.objections)
    objections = {**state.objections, event.member: event}
    majority = 2 * len(objections) > len(state.commitments)
    return replace(state, objections=objections, owed=Phase.VOID if majority else None)


def _finalised(state: RoundState, event: Finalised, block: int) -> RoundState:
    if state.phase is not Phase.PROPOSED or state.proposal is None:
        raise RuleBroken(Rule.PHASE, f"Finalised in {state.phase.name}")
    expected = state.proposal.aggregate_bundle
    found = event.aggregate_bundle.hex()
    require(expected.hex() == found, Rule.AGGREGATE, f"expected {expected.hex()}, found {found}")
    in_time = state.owed is Phase.FINAL or block > state.deadline_block
    require(in_time, Rule.TOO_EARLY, f"final in block {block}, objections are open until {state.deadline_block}")
    return replace(state, finalised=event, owed=None).enter(Phase.FINAL, 0)


def _voided(state: RoundState, event: Voided, block: int) -> RoundState:
    in_phase = event.phase is state.phase and not state.ended
    require(in_phase, Rule.PHASE, f"void in {event.phase.name}, the round is in {state.phase.name}")
    reason, earliest = _void_expected(state, event.reason)
    require(event.reason is reason, Rule.VOID_REASON, f"expected {reason.name}, found {event.reason.name}")
    require(block >= earliest, Rule.TOO_EARLY, f"void in block {block}, possible from {earliest}")
    return replace(state, voided=event, owed=None).enter(Phase.VOID, 0)


def _void_expected(state: RoundState, claimed: VoidReason) -> tuple[VoidReason, int]:
    """The reason for which the round can be void now (NONE: there is none), and from which block."""
    if state.owed is Phase.VOID:
        return (VoidReason.DISPUTED if state.phase is Phase.PROPOSED else VoidReason.NOTHING_ACCEPTED), 0
    coming = due(state)
    if coming is None:
        return VoidReason.NONE, 0
    if coming.header_block is not None and claimed is VoidReason.BEACON_LOST:
        return VoidReason.BEACON_LOST, coming.header_block + HASHES_KEPT + 1
    return coming.reason, coming.earliest_block


_HANDLERS: Final[dict[type[Any], Callable[[RoundState, Any, int], RoundState]]] = {
    Committed: _committed,
    Sealed: _sealed,
    Submitted: _submitted,
    Equivocation: _equivocation,
    Proved: _proved,
    VerdictsPosted: _verdicts_posted,
    Dissented: _dissented,
    AggregateProposed: _aggregate_proposed,
    Objected: _objected,
    Finalised: _finalised,
    Voided: _voided,
}


def _check_order(state: RoundState, logged: Logged) -> None:
    last = state.log[-1]
    found, number = logged.event.round, state.number
    require(found == number, Rule.ROUND_NUMBER, f"an event of round {found} in round {number}")
    after = (logged.block_number, logged.log_index) > (last.block_number, last.log_index)
    same_block = logged.block_number != last.block_number or logged.block_hash == last.block_hash
    where = f"block {logged.block_number}, log {logged.log_index}"
    require(after and same_block, Rule.ORDER, f"{where} after block {last.block_number}, log {last.log_index}")


def _check_owed(state: RoundState, logged: Logged) -> None:
    """Void and Final that follow from an event come right behind it, in the same transaction."""
    if state.owed is None:
        return
    wanted = Voided if state.owed is Phase.VOID else Finalised
    follows = isinstance(logged.event, wanted) and logged.tx_hash == state.log[-1].tx_hash
    require(follows, Rule.OWED, f"expected {wanted.__name__}, found {type(logged.event).__name__}")


def _seat(state: RoundState, member: int) -> Seat:
    seat = state.seat(member)
    if seat is None:
        raise RuleBroken(Rule.SEATED, f"member {member} has no seat in round {state.number}")
    return seat


def _in_phase(state: RoundState, block: int, phase: Phase) -> None:
    require(state.phase is phase, Rule.PHASE, f"expected {phase.name}, found {state.phase.name}")
    in_time = block <= state.deadline_block
    require(in_time, Rule.DEADLINE, f"block {block} is past {phase.name}'s deadline {state.deadline_block}")


def _first_time(member: int, done: Any) -> None:
    require(member not in done, Rule.REPEATED, f"member {member} has done so already")


def _check_signature(state: RoundState, seat: Seat, event: Submitted | Equivocation) -> None:
    submission = Submission(event.round, event.member, event.bundle, event.spent_micro)
    try:
        signer = submission_signer(state.domain, submission, event.signature)
    except SignatureInvalid as error:
        raise RuleBroken(Rule.SIGNATURE, str(error)) from error
    expected, found = seat.signer.hex(), signer.hex()
    require(expected == found, Rule.SIGNATURE, f"member {seat.member}: expected signer {expected}, found {found}")
