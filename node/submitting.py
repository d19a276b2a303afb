"""A member's submission: what it commits to, trains, proves and publishes, in this order, and sends.

Order of writes, each durable before the next begins: seed → commitment → intent to commit · ε booked → contributions,
where gradients will be proven → name of the bundle → bundle in the content store → that it is there → signature under
the guard → intent to submit. Killed between any two, it does the rest: with the same seed, never a second one, and with
the same bundle or none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ledger.actions import Commit, Submit
from ledger.bundle import Claim, SubmissionBundle
from ledger.config import Config
from ledger.content import ContentStore
from ledger.content.unixfs import directory_blocks
from ledger.crash import Point, reached
from ledger.eip712 import Submission
from ledger.optimizer import replay
from ledger.parents import read_parents
from ledger.ports import ChainPort
from ledger.privacy import spend_of
from ledger.records import Committed, Seat
from ledger.round_state import RoundState
from ledger.signing import Key, SigningGuard
from ledger.tensors import flatten, unflatten
from node.acceptance import Limits, RoundRefused, check_budget, check_config
from node.conduct import HonestMember, Submitted
from node.judging import Judges
from node.kept import KeptContributions
from node.logs import Log
from node.memory import Commitment, Made, MemberMemory, MemoryContradicted
from node.privacy_ledger import PrivacyLedger, RoundKey
from node.proving import Trained, check_draws, data_root, proof_of, words_root
from node.recompute import Recount, round_key
from node.sender import Sender
from node.showing import GradientProver, Secrets, Showing
from node.trainer import OnStep, Trainer
from node.verifying import Board
from node.watch import Watch
from proofs.dataset import dataset_root
from proofs.errors import LocalFault, PeerFault, WireFault
from proofs.words import Binding, SecretWords

ASK_CHAIN_S: Final = 5.0


@dataclass(frozen=True)
class MemberParts:
    """Everything that a member holds on to."""

    chain: ChainPort
    key: Key
    store: ContentStore
    sender: Sender
    guard: SigningGuard
    memory: MemberMemory
    kept: KeptContributions
    privacy: PrivacyLedger
    trainer: Trainer
    limits: Limits
    confirmations: int
    watch: Watch
    log: Log
    board: Board = field(default_factory=Board)
    judges: Judges = field(default_factory=Judges)
    gradients: GradientProver | None = None


@dataclass(frozen=True)
class Ready:
    """A submission that is not published yet. contributions: to keep, where their gradients will be proven."""

    files: Mapping[str, bytes]
    spent_micro: int
    beacon: bytes
    contributions: Sequence[NDArray[np.int32]] = field(default=(), repr=False)


class Submitting:
    """What the table's actions from PREPARE to SUBMIT do. `on_step` is called in training, and may raise."""

    def __init__(
        self, parts: MemberParts, conduct: HonestMember, showing: Showing, on_step: Callable[[], None]
    ) -> None:
        self._parts, self._conduct, self._showing, self._on_step = parts, conduct, showing, on_step
        self._unpublished: dict[str, Ready] = {}

    # ---- Commit

    def prepare(self, recount: Recount, seat: Seat, head: int) -> None:
        """Everything that can be checked before anything is spent; then the seed and the commitment, durably."""
        if not self._conduct.takes_part(recount.state):
            raise RoundRefused("conduct: does not take part")
        config = self._accept(recount, seat)
        key, memory = round_key(recount.state), self._parts.memory
        words = self.words(recount.state, seat, config)
        reached(Point.NODE_WORDS_SEED)
        memory.remember_commitment(key, Commitment(self._dataset_root(config, words), words_root(config, words)))

    def _dataset_root(self, config: Config, words: SecretWords) -> bytes:
        """Without a proof it is the same for the same data in every round; with one, in this round alone."""
        trainer = self._parts.trainer
        if config.proven:
            return data_root(config, words, trainer.texts(config))
        return dataset_root(trainer.rows(config), config.privacy.capacity, self._parts.memory.seed("dataset"))

    def _accept(self, recount: Recount, seat: Seat) -> Config:
        """Raises RoundRefused for what will not change, WireFault for content that may still come."""
        try:
            config = recount.part_of(seat.member)
            check_config(config, recount.state, self._parts.limits)
            self._check_model(recount, config)
            entries = self._parts.privacy.entries()
            known = entries[-1].spent_micro if entries else 0
            history = [entry.spend for entry in entries]
            after = check_budget(config, seat, self._parts.limits, history, known)
            self._showing.check(config, recount.start_of(seat.member))
        except PeerFault as error:
            raise RoundRefused(f"config or global bundle: {error}") from error
        except LocalFault as error:
            raise RoundRefused(str(error)) from error
        self._parts.log.info("accepted", round=recount.state.number, config=config.digest, epsilon_after=after / 1e6)
        return config

    def commit(self, recount: Recount, seat: Seat, head: int) -> None:
        made = self._parts.memory.commitment(round_key(recount.state))
        if made is not None:
            number = recount.state.number
            action = Commit(number, made.dataset_root, made.words_root)
            self._parts.sender.ensure(f"round-{number}/commit", action, Point.NODE_COMMIT_INTENT)

    def words(self, state: RoundState, seat: Seat, config: Config) -> SecretWords:
        seed = self._parts.memory.seed(f"words/{round_key(state)}")
        binding = Binding(state.domain.chain_id, state.domain.contract, state.number, seat.member)
        return SecretWords(seed, binding, config.steps, config.adapter.parameters, config.privacy.capacity)

    # ---- Train

    def train(self, recount: Recount, seat: Seat, head: int) -> None:
        """Book ε, train, publish. What is trained is kept until it is published, so that a full disk costs no second
        training."""
        state, key = recount.state, round_key(recount.state)
        if not self._conduct.follows_up(state):
            raise RoundRefused("conduct: commits and vanishes")
        if key not in self._unpublished:
            self._unpublished = {key: self._trained(recount, seat)}
        ready = self._unpublished[key]
        if recount.config.gradient is not None:
            self._parts.kept.keep(key, ready.contributions)
        self._announce(key, ready.files)
        digest = self._conduct.publish(state, self._parts.store, ready.files)
        size = sum(map(len, ready.files.values()))
        reached(Point.NODE_BUNDLE)
        self._parts.memory.remember_made(key, Made(digest, ready.spent_micro, ready.beacon, size))
        self._unpublished.clear()
        self._parts.watch.published(size)
        self._parts.log.info("published", round=state.number, bundle=digest, bytes=size)

    def _announce(self, key: str, files: Mapping[str, bytes]) -> None:
        """Write down what is published before it is. Raises RoundRefused if something else may have been: a training
        after a crash that came out otherwise, or under the beacon of another fork."""
        try:
            self._parts.memory.remember_release(key, directory_blocks(files)[0].cid.digest)
        except MemoryContradicted as error:
            raise RoundRefused(str(error)) from error

    def _trained(self, recount: Recount, seat: Seat) -> Ready:
        """Nothing of it has left the process yet."""
        state, config = recount.state, self._accepted_again(recount, seat)
        spent = self._reserve(state, seat, config)
        weights, words, beacon = (
            recount.start_of(seat.member),
            self.words(state, seat, config),
            state.train_beacon or b"",
        )
        self._check_commitment(state.commitments[seat.member], recount, words)
        self._parts.log.info("training", round=state.number, steps=config.steps, epsilon=spent / 1e6)
        on_step = self._on_steps_of(state)
        try:
            check_draws(config, words, beacon, len(self._parts.trainer.rows(config)))
            trained = self._parts.trainer.train(config, weights, words, beacon, words.binding, on_step)
        except LocalFault as error:
            raise RoundRefused(str(error)) from error
        trajectory = self._conduct.trajectory(state, trained.released)
        reached_at = replay(config, flatten(config, weights), trajectory)
        declared = self._conduct.declared_micro(state, spent)
        made = self._parts.memory.commitment(round_key(state)) or Commitment(b"", b"")
        claim = recount.claim_with(seat.member, made.dataset_root, made.words_root, declared)
        adapter = weights | unflatten(config, reached_at)
        proof = self._proven(state, config, claim, words, trained, trajectory) if config.proven else b""
        bundle = SubmissionBundle(config, self._conduct.claim(state, claim), adapter, trajectory, proof)
        return Ready(self._conduct.files(state, bundle.files()), declared, beacon, trained.contributions)

    def _proven(
        self,
        state: RoundState,
        config: Config,
        claim: Claim,
        words: SecretWords,
        trained: Trained,
        trajectory: NDArray[np.int32],
    ) -> bytes:
        """The proof for a bundle. Raises RoundRefused."""
        beacon, tell = state.train_beacon or b"", self.on_stages_of(state)
        try:
            texts = self._parts.trainer.texts(config)
            proof = proof_of(config, claim, beacon, words, texts, trained, trajectory, tell)
        except LocalFault as error:
            raise RoundRefused(f"the proof could not be made: {error}") from error
        self._parts.watch.proving(None)
        self._parts.log.info("proven", round=state.number, bytes=len(proof))
        return proof

    def _accepted_again(self, recount: Recount, seat: Seat) -> Config:
        """After a restart the settings may have changed, and the model and data behind them."""
        config = recount.part_of(seat.member)
        check_config(config, recount.state, self._parts.limits)
        try:
            self._check_model(recount, config)
        except (LocalFault, PeerFault) as error:
            raise RoundRefused(str(error)) from error
        return config

    def secrets(self, recount: Recount, seat: Seat) -> Secrets:
        """Data and words are those of the commitment still, or nothing is proven with them. Raises RoundRefused."""
        state, config = recount.state, self._accepted_again(recount, seat)
        words = self.words(state, seat, config)
        self._check_commitment(state.commitments[seat.member], recount, words)
        return Secrets(words, self._parts.trainer.texts(config))

    def _check_model(self, recount: Recount, config: Config) -> None:
        """Raises LocalFault, WireFault, or PeerFault for parents of a mixture that are not what they have to be."""
        if config.adapter.parents:
            self._parts.trainer.adopt(read_parents(self._parts.store, recount.history, config))
        self._parts.trainer.check(config)

    def _reserve(self, state: RoundState, seat: Seat, config: Config) -> int:
        """ε in millionths with this round, durably booked; the same again after a restart. Raises RoundRefused."""
        key = RoundKey(state.domain.chain_id, state.domain.contract, state.number, config.digest)
        cap = self._parts.limits.cap_micro(seat, config)
        try:
            spent = self._parts.privacy.reserve(key, spend_of(config), config.privacy.delta, cap, seat.spent_micro)
        except LocalFault as error:
            raise RoundRefused(str(error)) from error
        self._parts.watch.spent(spent)
        return spent

    def _check_commitment(self, committed: Committed, recount: Recount, words: SecretWords) -> None:
        """What stands on the chain is what we are about to use: rows, order and words. Raises RoundRefused."""
        config = recount.part_of(committed.member)
        if words_root(config, words) != committed.words_root:
            raise RoundRefused("the commitment on the chain is not this state folder's: another daemon made it")
        if self._dataset_root(config, words) != committed.dataset_root:
            raise RoundRefused("the data is not what was committed to: it changed since")

    def _on_steps_of(self, state: RoundState) -> OnStep:
        """Progress, and an end to training that is asked to stop or has become useless."""
        asked_at = time.monotonic()

        def on_step(done: int, steps: int) -> None:
            nonlocal asked_at
            self._parts.watch.step(done, steps)
            self._parts.log.info("step", round=state.number, done=done, steps=steps)
            self._on_step()
            if time.monotonic() - asked_at > ASK_CHAIN_S:
                asked_at = time.monotonic()
                self._require_in_time(state)

        return on_step

    def on_stages_of(self, state: RoundState) -> Callable[[str], None]:
        """Progress of the proof, and an end to one that is asked to stop or has become useless."""

        def on_stage(stage: str) -> None:
            self._parts.watch.proving(stage)
            self._parts.log.info("proving", round=state.number, stage=stage)
            self._on_step()
            self._require_in_time(state)

        return on_stage

    def _require_in_time(self, state: RoundState) -> None:
        """Raises RoundRefused when what is made could not be mined any more. A silent chain is no reason to stop."""
        with suppress(WireFault):
            head = self._parts.chain.head().number
            if head >= state.deadline_block:
                raise RoundRefused(f"it took too long: block {head}, the deadline was {state.deadline_block}")

    def submit(self, recount: Recount, seat: Seat, head: int) -> None:
        parts, state, number = self._parts, recount.state, recount.state.number
        made = parts.memory.made(round_key(state))
        if made is None:
            return
        if made.beacon != state.train_beacon:
            raise RoundRefused("a reorg drew another beacon after the bundle was made: it cannot be submitted")
        submission = Submission(number, seat.member, made.bundle, made.spent_micro)
        signature = self._conduct.sign(parts.guard, parts.key, state.domain, submission)
        action = Submit(number, seat.member, made.bundle, made.spent_micro, signature)
        parts.sender.ensure(f"round-{number}/submit", action, Point.NODE_SUBMIT_INTENT)
        self._conduct.submitted(
            Submitted(state, parts.key, state.domain, submission, parts.store, parts.sender.outbox.post)
        )
