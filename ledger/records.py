"""The nouns: one frozen dataclass per event of the contract, and the small types inside them.

These mirror contracts/src/interfaces/IRounds.sol field by field, in the order of the Solidity declarations, down to the
`transcript` that ends every round event. Digests are 32 raw bytes, addresses 20 raw bytes, ε is in millionths.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any

from ledger.canonical import FieldInvalid, Fields

VERIFIER_KEY_BYTES = 128


class Phase(IntEnum):
    NONE = 0
    COMMIT = 1
    TRAIN = 2
    PROVE = 3
    VERIFY = 4
    PROPOSE = 5
    PROPOSED = 6
    FINAL = 7
    VOID = 8


class VoidReason(IntEnum):
    NONE = 0
    COMMIT_QUORUM = 1
    SUBMIT_QUORUM = 2
    BEACON_LOST = 3
    NO_VERDICT = 4
    NOTHING_ACCEPTED = 5
    NO_PROPOSAL = 6
    DISPUTED = 7


class Reason(IntEnum):
    """Why a member is left out: 1-15 by the chain alone, 16 and above by the bundle. The numbers are for ever."""

    ACCEPTED = 0
    NOT_COMMITTED = 1
    NOT_SUBMITTED = 2
    EQUIVOCATED = 3
    NOT_PROVED = 4
    UNAVAILABLE = 16  # the bundle could not be fetched in time; the one reason that time can change
    BUNDLE_MALFORMED = 17  # not the directory that the format asks for: files missing, extra, too large, bad paths
    MANIFEST_MISMATCH = 18  # manifest names another round, chain, contract, member, config, global or commitment
    CONFIG_MISMATCH = 19  # the config in the bundle is not the round's
    ADAPTER_CONFIG = 20  # adapter_config.json is not the one that the config implies
    TENSOR_LAYOUT = 21  # tensor names, shapes or dtypes are not the config's
    OFF_GRID = 22  # a weight is NaN, infinite, off the grid or too large
    FROZEN_CHANGED = 23  # a frozen tensor differs from the global bundle's
    TRAJECTORY_RANGE = 24  # a released sum is larger than clip and noise allow
    TRAJECTORY_MISMATCH = 25  # the trajectory does not lead from the global adapter to the submitted one
    NOISE_IMPLAUSIBLE = 26  # the released sums are too small to contain the noise that the config demands
    EPSILON_UNDERSTATED = 27  # the ε declared is less than the accountant's for the member's history
    PROOF_INVALID = 28  # the proof of the mechanism does not hold
    GRADIENT_INVALID = 29  # what was shown in Prove is malformed, or a picked slot's proof does not hold

    @property
    def on_chain(self) -> bool:
        return 0 < self < 16


@dataclass(frozen=True)
class Policy:
    """Lengths of the phases in blocks; `quorum` is the least number of members for which a round counts, and
    `verifier_quorum` how many of them must have signed its verdicts."""

    commit_blocks: int
    train_blocks: int
    prove_blocks: int
    verify_blocks: int
    propose_blocks: int
    challenge_blocks: int
    quorum: int
    proof_required: bool
    verifier_quorum: int

    def to_json(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_json(cls, value: Any) -> Policy:
        reader = Fields(value, "config.policy")
        lengths = {field.name: reader.integer(field.name, 0, 2**32 - 1) for field in fields(cls)[:6]}
        quorum, proof_required = reader.integer("quorum", 1, 255), reader.boolean("proof_required")
        verifiers = reader.integer("verifier_quorum", 1, 255)
        policy = cls(**lengths, quorum=quorum, proof_required=proof_required, verifier_quorum=verifiers)
        reader.done()
        if min(policy.commit_blocks, policy.train_blocks, policy.verify_blocks, policy.propose_blocks) == 0:
            raise FieldInvalid("config.policy: commit, train, verify and propose need at least one block each")
        if policy.proof_required and policy.prove_blocks == 0:
            raise FieldInvalid("config.policy: prove needs a block when proofs are required")
        return policy


@dataclass(frozen=True)
class Seat:
    """What a round freezes of a member when it opens. verifier: hash of the BLS key that signs verdicts, or zero."""

    member: int
    owner: bytes
    signer: bytes
    cap_micro: int
    spent_micro: int
    verifier: bytes


class MemberStatus(IntEnum):
    NONE = 0
    PENDING = 1  # joins at the next opening
    ACTIVE = 2
    LEAVING = 3  # leaves at the next opening
    GONE = 4


@dataclass(frozen=True)
class Member:
    """What Federation holds of a member; `next_signer` is zero unless a rotation waits for the next opening, and so is
    `next_verifier`. Of verifier keys it holds hashes, zero for none."""

    number: int
    owner: bytes
    status: MemberStatus
    signer: bytes
    next_signer: bytes
    cap_micro: int
    spent_micro: int
    verifier: bytes
    next_verifier: bytes


@dataclass(frozen=True)
class RoundView:
    """IRounds.Round as the contract itself shows it; `seated`… are bitmaps over member numbers."""

    phase: Phase
    void_reason: VoidReason
    close_block: int
    deadline_block: int
    policy: Policy
    seated: int
    committed: int
    submitted: int
    equivocated: int
    proved: int
    accepted: int
    objected: int
    dissented: int
    config_digest: bytes
    global_bundle: bytes
    train_beacon: bytes
    prove_beacon: bytes
    aggregate_bundle: bytes
    transcript: bytes


@dataclass(frozen=True)
class RoundOpened:
    round: int
    config_digest: bytes
    global_bundle: bytes
    policy: Policy
    seats: tuple[Seat, ...]
    transcript: bytes


@dataclass(frozen=True)
class Committed:
    round: int
    member: int
    dataset_root: bytes
    words_root: bytes
    transcript: bytes


@dataclass(frozen=True)
class Sealed:
    round: int
    closed: Phase
    close_block: int
    mix_hash: bytes
    beacon: bytes
    transcript: bytes


@dataclass(frozen=True)
class Submitted:
    round: int
    member: int
    bundle: bytes
    spent_micro: int
    signature: bytes
    transcript: bytes


@dataclass(frozen=True)
class Equivocation:
    round: int
    member: int
    bundle: bytes
    spent_micro: int
    signature: bytes
    transcript: bytes


@dataclass(frozen=True)
class Proved:
    round: int
    member: int
    proof: bytes
    transcript: bytes


@dataclass(frozen=True)
class Signed:
    """Who signed verdicts: a bitmap of members, their keys in that order, and the sum of their signatures."""

    signers: int
    keys: bytes
    signature: bytes

    @property
    def members(self) -> tuple[int, ...]:
        return tuple(member for member in range(self.signers.bit_length()) if self.signers >> member & 1)

    def each_key(self) -> tuple[bytes, ...]:
        return tuple(self.keys[at : at + VERIFIER_KEY_BYTES] for at in range(0, len(self.keys), VERIFIER_KEY_BYTES))


@dataclass(frozen=True)
class VerdictsPosted:
    round: int
    aggregator: bytes
    accepted: int
    reasons: bytes
    signed: Signed
    transcript: bytes


@dataclass(frozen=True)
class Dissented:
    """What the verdicts should have been, says this member."""

    round: int
    member: int
    reasons: bytes
    transcript: bytes


@dataclass(frozen=True)
class AggregateProposed:
    round: int
    aggregator: bytes
    aggregate_bundle: bytes
    included_root: bytes
    excluded_root: bytes
    transcript: bytes


@dataclass(frozen=True)
class Objected:
    round: int
    member: int
    expected_bundle: bytes
    transcript: bytes


@dataclass(frozen=True)
class Finalised:
    round: int
    aggregate_bundle: bytes
    transcript: bytes


@dataclass(frozen=True)
class Voided:
    round: int
    phase: Phase
    reason: VoidReason
    transcript: bytes


RoundEvent = (
    RoundOpened
    | Committed
    | Sealed
    | Submitted
    | Equivocation
    | Proved
    | VerdictsPosted
    | Dissented
    | AggregateProposed
    | Objected
    | Finalised
    | Voided
)


@dataclass(frozen=True)
class Logged:
    """A round event and where the chain keeps it."""

    event: RoundEvent
    block_number: int
    block_hash: bytes
    tx_hash: bytes
    log_index: int
