"""Rounds.sol in Python: the same checks in the same order, refusing with the same names.

The checks are written out here because the contract's order of refusals is its own; what a permitted call then changes
is left to ledger.rules, which so gets a second reading of every event that the twin emits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ledger.actions import (
    Advance,
    Commit,
    Dissent,
    Object,
    Open,
    PostVerdicts,
    Propose,
    Prove,
    RoundsAction,
    Submit,
)
from ledger.eip712 import SignatureInvalid, Submission, submission_signer
from ledger.events import NO_TRANSCRIPT, transcript_next
from ledger.headers import Header
from ledger.history import History
from ledger.quorum import verdict_digest
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
    RoundEvent,
    RoundOpened,
    Sealed,
    Submitted,
    VerdictsPosted,
    Voided,
    VoidReason,
)
from ledger.round_state import (
    RoundState,
    Step,
    beacon,
    bitmap,
    due,
    excluded_root,
    included_root,
    known_reason,
    settled,
    turn_begins,
)
from ledger.twin_federation import (
    NO_KEY,
    ZERO_ADDRESS,
    FederationState,
    charge,
    refuse,
    require_coordinator,
    seat_members,
    signed_by,
)
from ledger.twin_log import LogState
from proofs.errors import PeerFault

ZERO = bytes(32)


@dataclass(frozen=True)
class World:
    """All contract storage of the twin."""

    federation: FederationState
    history: History
    log: LogState


@dataclass(frozen=True)
class Context:
    """The block and transaction that a call runs in; `hash_of` is what EIP-2935 and BLOCKHASH remember."""

    sender: bytes
    block: int
    block_hash: bytes
    tx_hash: bytes
    first_log: int
    hash_of: Callable[[int], bytes | None]


class Call:
    """One call of Rounds: collects events and keeps the world up to date with each of them."""

    def __init__(self, world: World, context: Context) -> None:
        self.world = world
        self.context = context
        self.logs: list[Logged] = []

    def run(self, action: RoundsAction) -> None:
        """Raises ContractRefused; the caller then drops this object, and nothing has happened."""
        match action:
            case Open():
                self._open(action)
            case Commit():
                self._commit(action)
            case Submit():
                self._submit(action)
            case Prove():
                self._prove(action)
            case PostVerdicts():
                self._post_verdicts(action)
            case Dissent():
                self._dissent(action)
            case Propose():
                self._propose(action)
            case Object():
                self._object(action)
            case Advance():
                self._advance(action)

    def _open(self, action: Open) -> None:
        history = self.world.history
        require_coordinator(self.world.federation, self.context.sender)
        if history.latest and not history.rounds[history.latest].ended:
            raise refuse("RoundStillOpen", history.latest, int(history.rounds[history.latest].phase))
        if ZERO in (action.config_digest, action.global_bundle):
            raise refuse("EmptyDigest")
        expected = history.global_bundle
        if expected not in (None, action.global_bundle):
            raise refuse("WrongGlobalBundle", expected, action.global_bundle)
        federation, seats = seat_members(self.world.federation)
        policy = action.policy
        lengths = [policy.commit_blocks, policy.train_blocks, policy.verify_blocks, policy.propose_blocks]
        lengths += [policy.prove_blocks] if policy.proof_required else []
        quorums = 0 < policy.quorum <= len(seats) and 0 < policy.verifier_quorum <= len(seats)
        if min(lengths) == 0 or not quorums:
            raise refuse("BadPolicy")
        number, verifiers = history.latest + 1, sum(seat.verifier != NO_KEY for seat in seats)
        if verifiers < policy.verifier_quorum:
            raise refuse("TooFewVerifiers", number, verifiers, policy.verifier_quorum)
        self.world = replace(self.world, federation=federation)
        self._emit(RoundOpened(number, action.config_digest, action.global_bundle, policy, seats, ZERO))

    def _commit(self, action: Commit) -> None:
        state = self._round(action.round)
        member = self._caller(state)
        if ZERO in (action.dataset_root, action.words_root):
            raise refuse("EmptyDigest")
        first = state.commitments.get(member)
        if first and (first.dataset_root, first.words_root) == (action.dataset_root, action.words_root):
            return
        self._require_open(state, Phase.COMMIT)
        if first:
            raise refuse("AlreadyCommitted", state.number, member)
        self._emit(Committed(state.number, member, action.dataset_root, action.words_root, ZERO))

    def _submit(self, action: Submit) -> None:
        state = self._round(action.round)
        if state.seat(action.member) is None:
            raise refuse("NotSeated", state.number, self.context.sender)
        if action.bundle == ZERO:
            raise refuse("EmptyDigest")
        first = state.submissions.get(action.member)
        if first is None:
            self._submit_first(state, action)
        elif (first.bundle, first.spent_micro) != (action.bundle, action.spent_micro):
            self._submit_again(state, action)

    def _submit_first(self, state: RoundState, action: Submit) -> None:
        self._require_open(state, Phase.TRAIN)
        if action.member not in state.commitments:
            raise refuse("NotCommitted", state.number, action.member)
        self._check_signature(state, action)
        seat = state.seat(action.member)
        if seat is None or action.spent_micro > seat.cap_micro:
            raise refuse("OverCap", action.member, action.spent_micro, seat.cap_micro if seat else 0)
        charged = charge(self.world.federation, action.member, action.spent_micro)
        self.world = replace(self.world, federation=charged)
        fields = (action.round, action.member, action.bundle, action.spent_micro, action.signature)
        self._emit(Submitted(*fields, ZERO))

    def _submit_again(self, state: RoundState, action: Submit) -> None:
        if action.member in state.equivocations:
            return
        if state.phase not in (Phase.TRAIN, Phase.PROVE, Phase.VERIFY):
            raise refuse("WrongPhase", state.number, int(Phase.TRAIN), int(state.phase))
        self._check_signature(state, action)
        fields = (action.round, action.member, action.bundle, action.spent_micro, action.signature)
        self._emit(Equivocation(*fields, ZERO))

    def _prove(self, action: Prove) -> None:
        state = self._round(action.round)
        member = self._caller(state)
        if action.proof == ZERO:
            raise refuse("EmptyDigest")
        first = state.proofs.get(member)
        if first and first.proof == action.proof:
            return
        self._require_open(state, Phase.PROVE)
        if member not in state.standing:
            raise refuse("NotSubmitted", state.number, member)
        if first:
            raise refuse("AlreadyProved", state.number, member)
        self._emit(Proved(state.number, member, action.proof, ZERO))

    def _post_verdicts(self, action: PostVerdicts) -> None:
        state = self._round(action.round)
        self._require_open(state, Phase.VERIFY)
        self._require_turn(state)
        self._check_reasons(state, action.reasons)
        self._check_signed(state, action)
        accepted = [seat.member for seat, found in zip(state.seats, action.reasons, strict=True) if not found]
        sender = self.context.sender
        self._emit(VerdictsPosted(state.number, sender, bitmap(accepted), action.reasons, action.signed, ZERO))
        self._emit_owed(state.number, Phase.VERIFY, VoidReason.NOTHING_ACCEPTED)

    def _check_reasons(self, state: RoundState, reasons: bytes) -> None:
        if len(reasons) != len(state.seats):
            raise refuse("BadVerdicts", state.number, len(reasons), 0)
        for position, (seat, found) in enumerate(zip(state.seats, reasons, strict=True)):
            known = known_reason(state, seat.member)
            if not (found == known if known else found == 0 or found >= 16):
                raise refuse("BadVerdicts", state.number, position, found)

    def _check_signed(self, state: RoundState, action: PostVerdicts) -> None:
        signed, needed = action.signed, state.policy.verifier_quorum
        if len(signed.members) < needed:
            raise refuse("TooFewVerifiers", state.number, len(signed.members), needed)
        if any(state.seat(member) is None for member in signed.members):
            raise refuse("NotVerifiers", state.number, signed.signers)
        digest = verdict_digest(state.domain, state.number, state.transcript, action.reasons)
        if not signed_by(self.world.federation, signed.members, signed.keys, digest, signed.signature):
            raise refuse("BadQuorumSignature", state.number)

    def _dissent(self, action: Dissent) -> None:
        state = self._round(action.round)
        member = self._caller(state)
        if state.phase not in (Phase.PROPOSE, Phase.PROPOSED) or state.verdicts is None:
            raise refuse("WrongPhase", state.number, int(Phase.PROPOSE), int(state.phase))
        if member in state.dissents:
            raise refuse("AlreadyDissented", state.number, member)
        self._check_reasons(state, action.reasons)
        if action.reasons == state.verdicts.reasons:
            raise refuse("NoDissent", state.number, member)
        self._emit(Dissented(state.number, member, action.reasons, ZERO))

    def _propose(self, action: Propose) -> None:
        state = self._round(action.round)
        if action.aggregate_bundle == ZERO:
            raise refuse("EmptyDigest")
        self._require_open(state, Phase.PROPOSE)
        self._require_turn(state)
        roots = (included_root(state, state.accepted), excluded_root(state.reasons))
        for expected, found in zip(roots, (action.included_root, action.excluded_root), strict=True):
            if expected != found:
                raise refuse("WrongRoot", expected, found)
        self._emit(AggregateProposed(state.number, self.context.sender, action.aggregate_bundle, *roots, ZERO))
        self._emit_owed(state.number, Phase.PROPOSED, VoidReason.NONE)

    def _object(self, action: Object) -> None:
        state = self._round(action.round)
        member = self._caller(state)
        self._require_open(state, Phase.PROPOSED)
        if member not in state.commitments:
            raise refuse("NotCommitted", state.number, member)
        if member in state.objections:
            raise refuse("AlreadyObjected", state.number, member)
        self._emit(Objected(state.number, member, action.expected_bundle, ZERO))
        self._emit_owed(state.number, Phase.PROPOSED, VoidReason.DISPUTED)

    def _advance(self, action: Advance) -> None:
        stored = self._stored(action.round)
        state, block = settled(stored, self.context.block), self.context.block
        if state is not stored:
            self._keep(state)
            return
        coming = due(state)
        if coming is None:
            raise refuse("WrongPhase", state.number, int(Phase.PROPOSED), int(state.phase))
        if block < coming.earliest_block:
            # while Prove runs the contract knows only its deadline, not what Verify will bring
            earliest = state.deadline_block + 1 if state.phase is Phase.PROVE else coming.earliest_block
            raise refuse("NotYet", state.number, earliest)
        if coming.step is Step.VOID:
            self._emit(Voided(state.number, state.phase, coming.reason, ZERO))
        elif coming.step is Step.FINALISE:
            self._finalise(state)
        elif coming.header_block is not None:
            self._seal(state, coming.header_block, action.header)

    def _seal(self, state: RoundState, header_block: int, header: bytes) -> None:
        block_hash = self.context.hash_of(header_block)
        if block_hash is None:
            self._emit(Voided(state.number, state.phase, VoidReason.BEACON_LOST, ZERO))
            return
        try:
            parsed = Header.parse(header)
        except PeerFault as error:
            raise refuse("BadHeader", header_block) from error
        if parsed.hash != block_hash:
            raise refuse("BadHeader", header_block)
        drawn = beacon(state.domain, state.number, state.phase, parsed.mix_hash)
        self._emit(Sealed(state.number, state.phase, state.end_block, parsed.mix_hash, drawn, ZERO))

    def _finalise(self, state: RoundState) -> None:
        if state.proposal is not None:
            self._emit(Finalised(state.number, state.proposal.aggregate_bundle, ZERO))

    def _emit(self, event: RoundEvent) -> None:
        """Completes the event's transcript, and lets the law take it in."""
        known = self.world.history.rounds.get(event.round)
        event = replace(event, transcript=transcript_next(known.transcript if known else NO_TRANSCRIPT, event))
        context = self.context
        index = context.first_log + len(self.logs)
        logged = Logged(event, context.block, context.block_hash, context.tx_hash, index)
        self.world = replace(self.world, history=self.world.history.after(logged))
        self.logs.append(logged)

    def _emit_owed(self, number: int, phase: Phase, reason: VoidReason) -> None:
        """Void or Final in the same transaction, where the event before demands it."""
        state = self.world.history.rounds[number]
        if state.owed is Phase.VOID:
            self._emit(Voided(number, phase, reason, ZERO))
        elif state.owed is Phase.FINAL:
            self._finalise(state)

    def _stored(self, number: int) -> RoundState:
        state = self.world.history.rounds.get(number)
        if state is None:
            raise refuse("UnknownRound", number)
        return state

    def _round(self, number: int) -> RoundState:
        """Settled, and kept so: as in the contract, a call that changes nothing else writes down that Prove is over."""
        self._keep(settled(self._stored(number), self.context.block))
        return self._stored(number)

    def _keep(self, state: RoundState) -> None:
        history = self.world.history
        self.world = replace(self.world, history=replace(history, rounds={**history.rounds, state.number: state}))

    def _caller(self, state: RoundState) -> int:
        seat = state.seat_of_signer(self.context.sender)
        if seat is None:
            raise refuse("NotSeated", state.number, self.context.sender)
        return seat.member

    def _require_open(self, state: RoundState, phase: Phase) -> None:
        if state.phase is not phase:
            raise refuse("WrongPhase", state.number, int(phase), int(state.phase))
        if self.context.block > state.deadline_block:
            raise refuse("PastDeadline", state.number, state.deadline_block, self.context.block)

    def _require_turn(self, state: RoundState) -> None:
        sender = self.context.sender
        begins = turn_begins(state, self.world.federation.aggregators, sender)
        if begins is None:
            raise refuse("NotAggregator", sender)
        if self.context.block < begins:
            raise refuse("NotYourTurn", sender, begins)

    def _check_signature(self, state: RoundState, action: Submit) -> None:
        submission = Submission(action.round, action.member, action.bundle, action.spent_micro)
        try:
            recovered = submission_signer(state.domain, submission, action.signature)
        except SignatureInvalid:
            recovered = ZERO_ADDRESS
        seat = state.seat(action.member)
        if seat is None or recovered != seat.signer:
            raise refuse("BadSignature", state.number, action.member, recovered)
