"""What a round's events so far amount to, and what follows from them by the calendar alone. No I/O, no clock.

`RoundState.phase` and `deadline_block` are as of the last event. Prove ends by the block number alone, without an
event: `shown` says what the contract would show in a given block. `due` says what `advance` will do, and from when.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from ledger.eip712 import Domain
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
    Reason,
    RoundOpened,
    RoundView,
    Sealed,
    Seat,
    Submitted,
    VerdictsPosted,
    Voided,
    VoidReason,
)
from proofs import merkle

BEACON_DELAY_BLOCKS = 2
"""The beacon of a phase that closed in block X is of the header of block X + 2; IRounds.sol has the same number. The
header of X + 1 holds the RANDAO mix after X (EIP-4399), which the proposer of X knows while filling it."""
_BEACON_LABEL = keccak(text="candor/beacon/1")
_NO_DIGEST = bytes(32)


@dataclass(frozen=True)
class RoundState:
    """One round, folded from its events by ledger.rules. Maps are by member number; never change them in place.

    close_block: the block in which Commit or Train closed because everybody had acted, else 0.
    owed: what the contract must emit in the same transaction as the last event, if anything (Void or Final).
    """

    domain: Domain
    opened: RoundOpened
    phase: Phase
    close_block: int
    deadline_block: int
    commitments: Mapping[int, Committed]
    submissions: Mapping[int, Submitted]
    equivocations: Mapping[int, Equivocation]
    proofs: Mapping[int, Proved]
    objections: Mapping[int, Objected]
    dissents: Mapping[int, Dissented]
    train_seal: Sealed | None
    prove_seal: Sealed | None
    verdicts: VerdictsPosted | None
    proposal: AggregateProposed | None
    finalised: Finalised | None
    voided: Voided | None
    owed: Phase | None
    log: tuple[Logged, ...]

    @property
    def number(self) -> int:
        return self.opened.round

    @property
    def final_bundle(self) -> bytes | None:
        """The aggregate that the round ended with; None where it has not ended, or ended void."""
        return self.finalised.aggregate_bundle if self.finalised else None

    @property
    def policy(self) -> Policy:
        return self.opened.policy

    @property
    def seats(self) -> tuple[Seat, ...]:
        return self.opened.seats

    @property
    def transcript(self) -> bytes:
        return self.log[-1].event.transcript

    @property
    def judged_transcript(self) -> bytes:
        """The running hash over which verdicts are signed: the one before they were posted, or the present one."""
        found = (a.event.transcript for a, b in pairwise(self.log) if b.event is self.verdicts)
        return self.transcript if self.verdicts is None else next(found)

    @property
    def verifiers(self) -> tuple[int, ...]:
        """The members whose signature on verdicts counts."""
        return tuple(seat.member for seat in self.seats if seat.verifier != _NO_DIGEST)

    @property
    def ended(self) -> bool:
        return self.phase in (Phase.FINAL, Phase.VOID)

    @property
    def standing(self) -> tuple[int, ...]:
        """Members who submitted once, and only once, in member order."""
        return tuple(sorted(self.submissions.keys() - self.equivocations.keys()))

    @property
    def train_beacon(self) -> bytes | None:
        return self.train_seal.beacon if self.train_seal else None

    @property
    def prove_beacon(self) -> bytes | None:
        return self.prove_seal.beacon if self.prove_seal else None

    @property
    def reasons(self) -> dict[int, int]:
        """Member to posted reason, empty before the verdicts. A number may be none of `Reason`: anyone can lie."""
        if self.verdicts is None:
            return {}
        return {seat.member: code for seat, code in zip(self.seats, self.verdicts.reasons, strict=True)}

    @property
    def accepted(self) -> tuple[int, ...]:
        return tuple(member for member, reason in self.reasons.items() if reason == Reason.ACCEPTED)

    @property
    def end_block(self) -> int:
        """The block in which the present phase closes, or closed."""
        return self.close_block or self.deadline_block

    def seat(self, member: int) -> Seat | None:
        return next((seat for seat in self.seats if seat.member == member), None)

    def seat_of_signer(self, signer: bytes) -> Seat | None:
        return next((seat for seat in self.seats if seat.signer == signer), None)

    def enter(self, phase: Phase, deadline_block: int) -> RoundState:
        return replace(self, phase=phase, close_block=0, deadline_block=deadline_block)


class Step(StrEnum):
    SEAL = "seal"
    VOID = "void"
    FINALISE = "finalise"


@dataclass(frozen=True)
class Due:
    """What `advance` does when mined in `earliest_block` or later, provided that nobody acts before.

    header_block: the block whose header RLP it must be given, None for an empty header. After a Prove phase that nobody
    closed, voiding takes two calls: the first only writes down that Prove is over.
    """

    step: Step
    earliest_block: int
    reason: VoidReason = VoidReason.NONE
    header_block: int | None = None


def settled(state: RoundState, block: int) -> RoundState:
    """The state in `block`: Verify, if Prove's deadline has passed."""
    if state.phase is Phase.PROVE and block > state.deadline_block:
        return state.enter(Phase.VERIFY, state.deadline_block + state.policy.verify_blocks)
    return state


def shown(state: RoundState, block: int) -> tuple[Phase, int]:
    """Phase and deadline as the contract shows them in `block`."""
    now = settled(state, block)
    return now.phase, now.deadline_block


def due(state: RoundState) -> Due | None:
    """What `advance` will do next if nobody acts; None when the round has ended.

    A transaction sent while the head is block h is mined in h + 1 at the earliest: compare that with `earliest_block`.
    """
    end, policy = state.end_block, state.policy
    if state.phase in (Phase.COMMIT, Phase.TRAIN):
        committing = state.phase is Phase.COMMIT
        if len(state.commitments if committing else state.standing) >= policy.quorum:
            drawn = beacon_block(end)
            return Due(Step.SEAL, drawn + 1, header_block=drawn)
        return Due(Step.VOID, end + 1, VoidReason.COMMIT_QUORUM if committing else VoidReason.SUBMIT_QUORUM)
    if state.phase is Phase.PROVE:
        return Due(Step.VOID, end + policy.verify_blocks + 1, VoidReason.NO_VERDICT)
    if state.phase is Phase.VERIFY:
        return Due(Step.VOID, end + 1, VoidReason.NO_VERDICT)
    if state.phase is Phase.PROPOSE:
        return Due(Step.VOID, end + 1, VoidReason.NO_PROPOSAL)
    return Due(Step.FINALISE, end + 1) if state.phase is Phase.PROPOSED else None


def last_possible_block(state: RoundState) -> int:
    """The last block in which the round can still be open if all sleep and somebody calls `advance`; 0 once ended."""
    if state.ended:
        return 0
    policy, phase, last = state.policy, state.phase, state.end_block
    proving = policy.prove_blocks if policy.proof_required else 0
    last += BEACON_DELAY_BLOCKS + policy.train_blocks if phase == Phase.COMMIT else 0
    last += BEACON_DELAY_BLOCKS + proving if phase <= Phase.TRAIN else 0
    last += policy.verify_blocks if phase <= Phase.PROVE else 0
    last += policy.propose_blocks if phase <= Phase.VERIFY else 0
    return last + (policy.challenge_blocks if phase <= Phase.PROPOSE else 0)


def turn_begins(state: RoundState, aggregators: Sequence[bytes], who: bytes) -> int | None:
    """First block in which `who` may act in the present Verify or Propose phase: 0 if on duty, None if no aggregator.

    `aggregators` are those in force for this round, in the order of failover.
    """
    if who not in aggregators:
        return None
    if list(aggregators).index(who) == state.number % len(aggregators):
        return 0
    blocks = state.policy.verify_blocks if state.phase is Phase.VERIFY else state.policy.propose_blocks
    return state.deadline_block - blocks // 2


def beacon_block(close_block: int) -> int:
    """The block whose header holds the beacon of a phase closed in `close_block`; the next phase begins with it."""
    return close_block + BEACON_DELAY_BLOCKS


def beacon(domain: Domain, round_number: int, closed: Phase, mix_hash: bytes) -> bytes:
    """32 bytes: the public randomness after `closed` (Commit or Train), from the mixHash of its `beacon_block`."""
    types = ("bytes32", "uint256", "address", "uint64", "uint8", "bytes32")
    values = (_BEACON_LABEL, domain.chain_id, domain.contract, round_number, int(closed), mix_hash)
    return keccak(encode(types, values))


def commitment_hash(dataset_root: bytes, words_root: bytes) -> bytes:
    """What the contract stores of a commitment."""
    return keccak(encode(("bytes32", "bytes32"), (dataset_root, words_root)))


def known_reason(state: RoundState, member: int) -> Reason:
    """The first reason against a seated member that follows from the chain alone, or ACCEPTED."""
    if member not in state.commitments:
        return Reason.NOT_COMMITTED
    if member not in state.submissions:
        return Reason.NOT_SUBMITTED
    if member in state.equivocations:
        return Reason.EQUIVOCATED
    if state.policy.proof_required and member not in state.proofs:
        return Reason.NOT_PROVED
    return Reason.ACCEPTED


def bitmap(members: Iterable[int]) -> int:
    """Members as the contract's 256-bit word."""
    return sum(1 << member for member in set(members))


def included_root(state: RoundState, accepted: Iterable[int]) -> bytes:
    """RFC 6962 root over member ‖ bundle of the accepted, in seat order. All of them must have submitted."""
    return merkle.root([bytes([member]) + state.submissions[member].bundle for member in sorted(accepted)])


def excluded_root(reasons: Mapping[int, int]) -> bytes:
    """RFC 6962 root over member ‖ reason of those left out, in seat order."""
    return merkle.root([bytes([member, reason]) for member, reason in sorted(reasons.items()) if reason])


def view(state: RoundState, block: int) -> RoundView:
    """What `getRound` returns in `block`."""
    now = settled(state, block)
    return RoundView(
        phase=now.phase,
        void_reason=now.voided.reason if now.voided else VoidReason.NONE,
        close_block=now.close_block,
        deadline_block=now.deadline_block,
        policy=now.policy,
        seated=bitmap(seat.member for seat in now.seats),
        committed=bitmap(now.commitments),
        submitted=bitmap(now.submissions),
        equivocated=bitmap(now.equivocations),
        proved=bitmap(now.proofs),
        accepted=bitmap(now.accepted),
        objected=bitmap(now.objections),
        dissented=bitmap(now.dissents),
        config_digest=now.opened.config_digest,
        global_bundle=now.opened.global_bundle,
        train_beacon=now.train_beacon or _NO_DIGEST,
        prove_beacon=now.prove_beacon or _NO_DIGEST,
        aggregate_bundle=now.proposal.aggregate_bundle if now.proposal else _NO_DIGEST,
        transcript=now.transcript,
    )
