"""How a daemon behaves where it could behave otherwise: the places at which a test federation puts its liars.

A daemon asks its conduct at every point where its own word goes out. The honest answers are here; the dishonest ones
live in devnet, because no operator's daemon may be able to give them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ledger.actions import Action
from ledger.bundle import Claim
from ledger.content import ContentStore
from ledger.eip712 import Domain, Submission
from ledger.gradients import Challenge
from ledger.records import Reason, Seat
from ledger.round_state import RoundState
from ledger.signing import Key, SigningGuard
from ledger.tensors import Weights


@dataclass(frozen=True)
class Submitted:
    """What a member has just signed and is about to send, and the means to do more than that."""

    state: RoundState
    key: Key = field(repr=False)
    domain: Domain
    submission: Submission
    store: ContentStore
    post: Callable[[str, Action], object]


class HonestMember:
    """What a member does. Subclasses change one answer."""

    def takes_part(self, state: RoundState) -> bool:
        """Commit to this round?"""
        return True

    def follows_up(self, state: RoundState) -> bool:
        """Having committed, train and submit?"""
        return True

    def declared_micro(self, state: RoundState, spent_micro: int) -> int:
        """ε to declare, in millionths, given what the privacy ledger says."""
        return spent_micro

    def trajectory(self, state: RoundState, trajectory: NDArray[np.int32]) -> NDArray[np.int32]:
        """(T, P): the released sums, before the adapter is derived from them."""
        return trajectory

    def claim(self, state: RoundState, claim: Claim) -> Claim:
        """What the manifest says."""
        return claim

    def files(self, state: RoundState, files: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """The bundle, just before it is published."""
        return files

    def publish(self, state: RoundState, store: ContentStore, files: Mapping[str, bytes]) -> bytes:
        """Put the bundle where others can fetch it; returns the digest to submit."""
        return store.put_directory(files)

    def sign(self, guard: SigningGuard, key: Key, domain: Domain, submission: Submission) -> bytes:
        return guard.sign(key, domain, submission)

    def submitted(self, sent: Submitted) -> None:
        """The submission is an intent in the outbox."""

    def shows(self, state: RoundState) -> bool:
        """Having submitted, prove the gradients of the picked slots?"""
        return True

    def picks(self, state: RoundState, asked: Sequence[Challenge]) -> Sequence[Challenge]:
        """The slots to prove, given those that the beacon picked."""
        return asked

    def shown(self, state: RoundState, files: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """The proofs of gradients, just before they are published."""
        return files

    def verdicts(self, state: RoundState, seat: Seat, reasons: bytes) -> bytes:
        """What to sign as a verifier, one reason a seat, given the honest answer."""
        return reasons

    def objects(self, state: RoundState, expected: bytes | None) -> bytes | None:
        """What to object with (32 bytes, zero for wrong verdicts), None for no objection, given the honest answer."""
        return expected


class HonestAggregator:
    """What an aggregator does. Subclasses change one answer."""

    def reasons(self, state: RoundState, reasons: dict[int, Reason]) -> dict[int, Reason]:
        """Its own verdicts, by member, for which it looks for a quorum, given the honest ones."""
        return reasons

    def posted(self, state: RoundState, reasons: bytes) -> bytes:
        """What to post under the quorum's signature, given what the quorum signed."""
        return reasons

    def average(self, state: RoundState, weights: Weights) -> Weights:
        """The aggregate's tensors in grid units, given the honest ones."""
        return weights

    def files(self, state: RoundState, files: Mapping[str, bytes]) -> Mapping[str, bytes]:
        return files

    def publish(self, state: RoundState, store: ContentStore, files: Mapping[str, bytes]) -> bytes:
        return store.put_directory(files)
