"""The conduct of the dishonest: node.conduct with one answer changed, for the kinds of devnet.kinds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from devnet.forgeries import (
    ANSWERS,
    FORGERIES,
    SHOWN,
    Honest,
    extra_file,
    nowhere,
)
from devnet.hostile_directories import HOSTILE_DIRECTORIES, BlockSink
from devnet.kinds import Kind
from ledger.actions import Submit
from ledger.aggregation import part_of, start_of
from ledger.bundle import CONFIG, Claim, bundle_limits, read_submission, read_weights
from ledger.config import Config
from ledger.content import ContentStore
from ledger.eip712 import Domain, Submission, sign_submission
from ledger.gradients import Challenge
from ledger.ports import ChainPort
from ledger.records import Phase, Reason, Seat
from ledger.round_state import RoundState
from ledger.signing import Key, SigningGuard
from ledger.tensors import Weights
from node.acceptance import RoundRefused
from node.conduct import HonestAggregator, HonestMember, Submitted
from proofs.errors import LocalFault, PeerFault
from proofs.words import Binding, SecretWords

LATE_POLL_S: Final = 0.3
Chosen = tuple[tuple[Kind, int | None], ...]


class Asleep(PeerFault):
    """What an aggregator that sleeps finds instead of something to do."""


def acting(chosen: Chosen, round_number: int) -> str:
    """Name of the kind that acts in this round, "" if none does."""
    return next((kind.name for kind, number in chosen if number in (None, round_number)), "")


@dataclass
class DishonestMember(HonestMember):
    """seed_of: the secret seed of a round's words. blocks: the daemon's own store, for hand-made blocks."""

    chosen: Chosen
    address: bytes
    chain: ChainPort
    blocks: BlockSink
    seed_of: Callable[[RoundState], bytes]
    _claim: Claim | None = field(default=None, init=False)
    _honest: Honest | None = field(default=None, init=False)

    def _kind(self, state: RoundState) -> str:
        return acting(self.chosen, state.number)

    def _seat(self, state: RoundState) -> Seat:
        seat = state.seat_of_signer(self.address)
        if seat is None:
            raise LocalFault("a member without a seat was asked to misbehave")
        return seat

    def follows_up(self, state: RoundState) -> bool:
        return self._kind(state) != "vanish"

    def declared_micro(self, state: RoundState, spent_micro: int) -> int:
        """The contract takes no less than was declared before, and no more than the cap."""
        if self._kind(state) == "understate-epsilon":
            return max(self._seat(state).spent_micro, spent_micro // 2)
        return self._seat(state).cap_micro + 1 if self._kind(state) == "over-cap" else spent_micro

    def claim(self, state: RoundState, claim: Claim) -> Claim:
        self._claim = claim
        return claim

    def publish(self, state: RoundState, store: ContentStore, files: Mapping[str, bytes]) -> bytes:
        kind = self._kind(state)
        self._honest = honest = self._understand(state, store, files)
        if kind == "unavailable":
            return nowhere(honest)
        if kind in HOSTILE_DIRECTORIES:
            return HOSTILE_DIRECTORIES[kind](honest, self.blocks)
        return store.put_directory(FORGERIES[kind](honest) if kind in FORGERIES else files)

    def sign(self, guard: SigningGuard, key: Key, domain: Domain, submission: Submission) -> bytes:
        if acting(self.chosen, submission.round) == "late":
            self._sleep_past_the_deadline(submission.round)
        return guard.sign(key, domain, submission)

    def submitted(self, sent: Submitted) -> None:
        """A second submission, signed behind the guard's back."""
        if self._kind(sent.state) != "equivocate" or self._honest is None:
            return
        second = replace(sent.submission, bundle=sent.store.put_directory(extra_file(self._honest)))
        signature = sign_submission(sent.key.secret, sent.domain, second)
        action = Submit(second.round, second.member, second.bundle, second.spent_micro, signature)
        sent.post(f"round-{second.round}/second-submit", action)

    def shows(self, state: RoundState) -> bool:
        return self._kind(state) != "no-gradients"

    def picks(self, state: RoundState, asked: Sequence[Challenge]) -> Sequence[Challenge]:
        """other-slots: each slot's neighbour. stale-gradients: the same slots, proven under another beacon."""
        change = ANSWERS.get(self._kind(state))
        return asked if change is None else [change(challenge) for challenge in asked]

    def shown(self, state: RoundState, files: Mapping[str, bytes]) -> Mapping[str, bytes]:
        change = SHOWN.get(self._kind(state))
        return files if change is None else change(dict(files))

    def verdicts(self, state: RoundState, seat: Seat, reasons: bytes) -> bytes:
        """false-verdict: the first other member that ought to be accepted is left out."""
        if self._kind(state) == "vanish":
            raise RoundRefused("conduct: never heard of again")
        others = [at for at, other in enumerate(state.seats) if other.member != seat.member and not reasons[at]]
        if self._kind(state) != "false-verdict" or not others:
            return reasons
        return reasons[: others[0]] + bytes([Reason.OFF_GRID]) + reasons[others[0] + 1 :]

    def objects(self, state: RoundState, expected: bytes | None) -> bytes | None:
        return bytes(32) if self._kind(state) == "false-objection" else expected

    def _understand(self, state: RoundState, store: ContentStore, files: Mapping[str, bytes]) -> Honest:
        """The submission behind the files, and what it started from."""
        if self._claim is None:
            raise LocalFault("a bundle was made without a claim")
        whole = Config.decode(files[CONFIG])
        weights = read_weights(store.get_directory(state.opened.global_bundle, bundle_limits(whole)), whole)
        config = part_of(whole, self._claim.member)
        bundle = read_submission(files, config, self._claim)
        return Honest(bundle, start_of(config, weights), lambda: self._words(state, config), state.train_beacon or b"")

    def _words(self, state: RoundState, config: Config) -> SecretWords:
        binding = Binding(state.domain.chain_id, state.domain.contract, state.number, self._seat(state).member)
        parameters, capacity = config.adapter.parameters, config.privacy.capacity
        return SecretWords(self.seed_of(state), binding, config.steps, parameters, capacity)

    def _sleep_past_the_deadline(self, number: int) -> None:
        """Until the contract itself takes no more submissions. Raises WireFault; then it is asked again."""
        while True:
            view, head = self.chain.round_view(number), self.chain.head().number
            if view.phase is not Phase.TRAIN or head > view.deadline_block:
                return
            time.sleep(LATE_POLL_S)


@dataclass
class DishonestAggregator(HonestAggregator):
    chosen: Chosen

    def reasons(self, state: RoundState, reasons: dict[int, Reason]) -> dict[int, Reason]:
        self._sleep(state)
        return reasons

    def posted(self, state: RoundState, reasons: bytes) -> bytes:
        """wrong-verdict: the first that ought to be accepted is left out, for a reason that it did not give."""
        if acting(self.chosen, state.number) != "wrong-verdict" or 0 not in reasons:
            return reasons
        return reasons.replace(b"\0", bytes([Reason.OFF_GRID]), 1)

    def average(self, state: RoundState, weights: Weights) -> Weights:
        """tampered-aggregate: one weight, one unit."""
        self._sleep(state)
        if acting(self.chosen, state.number) != "tampered-aggregate":
            return weights
        name = max(weights)
        changed = weights[name].copy()
        changed.flat[0] += 1
        return weights | {name: changed}

    def _sleep(self, state: RoundState) -> None:
        if acting(self.chosen, state.number) == "sleeps":
            raise Asleep("told to sleep through this round")
