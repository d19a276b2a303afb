"""The names of all rules of a round, and those of its opening. `ledger.rules` has what may follow."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from ledger.eip712 import Domain
from ledger.events import NO_TRANSCRIPT, transcript_next
from ledger.records import Logged, Phase, Policy, RoundOpened, Seat
from ledger.round_state import RoundState
from proofs.errors import PeerFault

ZERO_DIGEST: Final = bytes(32)
ZERO_ADDRESS: Final = bytes(20)


class Rule(StrEnum):
    ORDER = "events are applied in the order of the chain"
    ROUND_NUMBER = "rounds are numbered from 1 without gaps, and an event belongs to a round that was opened"
    ROUND_STILL_OPEN = "a round opens only after the one before has ended"
    GLOBAL_BUNDLE = "a round starts from the aggregate of the last Final round"
    POLICY = "every phase has a block, and both quorums are between 1 and the number of those who can meet them"
    SEATS = "seats ascend by member; owners never change and a key serves one member for ever"
    SPENT = "a seat shows what the member declared last, and that is within its cap"
    TRANSCRIPT = "no event is removed, altered or added"
    PHASE = "every event belongs to a phase"
    DEADLINE = "actions come before their phase's deadline"
    EMPTY_DIGEST = "a digest is not zero"
    SEATED = "only seated members act"
    COMMITTED = "only who committed may submit or object"
    SUBMITTED = "only who submitted may equivocate or prove"
    REPEATED = "everybody acts once"
    SIGNATURE = "a submission is signed by the seat's signer for this chain, contract and round"
    EPSILON = "declared privacy neither falls nor passes the cap"
    NOT_DIFFERENT = "only a different submission is an equivocation"
    CLOSE_BLOCK = "a phase closes when all have acted or at its deadline"
    TOO_EARLY = "nothing ends before its time"
    BEACON = "the beacon is the hash of round, closed phase and mixHash"
    QUORUM = "a phase is sealed only with a quorum"
    VERDICTS = "one reason per seat, and those that the chain knows are as it knows them"
    ACCEPTED = "the accepted are those with reason 0"
    VERIFIERS = "verdicts are signed by enough verifiers, each a seat with the key that it registered"
    DISSENT = "dissent says something else than the verdicts, between them and the end of the round"
    TURN = "only aggregators judge and propose, the one on duty first"
    ROOTS = "the roots are those of the included and the excluded"
    AGGREGATE = "what becomes final is what was proposed"
    VOID_REASON = "a round is void only for the reason that holds"
    OWED = "what must follow in the same transaction follows"


class RuleBroken(PeerFault):
    """An event that the law does not allow. `rule` says which one, the text what was expected and found."""

    def __init__(self, rule: Rule, detail: str) -> None:
        self.rule = rule
        self.detail = detail
        super().__init__(f"{rule.name}: {detail} (the rule: {rule.value})")


def open_round(domain: Domain, logged: Logged) -> RoundState:
    """The state after RoundOpened, by itself: see `History` for what earlier rounds demand. Raises RuleBroken."""
    event = logged.event
    if not isinstance(event, RoundOpened):
        raise RuleBroken(Rule.ROUND_NUMBER, f"round {event.round} was never opened, found {type(event).__name__}")
    check_transcript(NO_TRANSCRIPT, logged)
    nonzero(event.config_digest, event.global_bundle)
    _check_policy(event.policy, event.seats)
    _check_seats(event.seats)
    return RoundState(
        domain=domain,
        opened=event,
        phase=Phase.COMMIT,
        close_block=0,
        deadline_block=logged.block_number + event.policy.commit_blocks,
        commitments={},
        submissions={},
        equivocations={},
        proofs={},
        objections={},
        dissents={},
        train_seal=None,
        prove_seal=None,
        verdicts=None,
        proposal=None,
        finalised=None,
        voided=None,
        owed=None,
        log=(logged,),
    )


def _check_policy(policy: Policy, seats: Sequence[Seat]) -> None:
    lengths = [policy.commit_blocks, policy.train_blocks, policy.verify_blocks, policy.propose_blocks]
    lengths += [policy.prove_blocks] if policy.proof_required else []
    require(min(lengths) > 0, Rule.POLICY, "a phase has no block")
    require(0 < policy.quorum <= len(seats), Rule.POLICY, f"a quorum of {policy.quorum} with {len(seats)} seats")
    verifiers, needed = sum(seat.verifier != ZERO_DIGEST for seat in seats), policy.verifier_quorum
    require(0 < needed <= verifiers, Rule.POLICY, f"{needed} verifiers needed, {verifiers} seats have a key")


def _check_seats(seats: Sequence[Seat]) -> None:
    members = [seat.member for seat in seats]
    require(members == sorted(set(members)), Rule.SEATS, f"members {members} do not ascend")
    signers = {seat.signer for seat in seats}
    require(len(signers) == len(seats), Rule.SEATS, "two seats have one signer")
    verifiers = [seat.verifier for seat in seats if seat.verifier != ZERO_DIGEST]
    require(len(set(verifiers)) == len(verifiers), Rule.SEATS, "two seats have one verifier key")
    for seat in seats:
        keys = (seat.owner, seat.signer)
        require(ZERO_ADDRESS not in keys and keys[0] != keys[1], Rule.SEATS, f"member {seat.member} lacks a key")
        within = seat.spent_micro <= seat.cap_micro
        require(within, Rule.SPENT, f"member {seat.member} has spent {seat.spent_micro} of {seat.cap_micro}")


def require(holds: bool, rule: Rule, detail: str) -> None:
    if not holds:
        raise RuleBroken(rule, detail)


def check_transcript(before: bytes, logged: Logged) -> None:
    expected, found = transcript_next(before, logged.event), logged.event.transcript
    name = type(logged.event).__name__
    require(expected == found, Rule.TRANSCRIPT, f"{name}: expected {expected.hex()}, found {found.hex()}")


def nonzero(*digests: bytes) -> None:
    require(ZERO_DIGEST not in digests, Rule.EMPTY_DIGEST, "a digest is zero")
