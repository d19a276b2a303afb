"""A member's part in Prove: a proof of statement G for each slot that the second beacon picks, published and named.

Order of writes, each durable before the next begins: name of what is shown → the directory in the content store → that
it is there → intent to prove. One round shows one directory: another one, after a crash or under the beacon of another
fork, would open the commitments of the round once more than they keep room for, and is never published.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ledger.actions import Prove
from ledger.base_gradients import BaseGradients, gradient_statement
from ledger.bundle import SubmissionBundle, read_submission
from ledger.config import Config
from ledger.content import ContentStore
from ledger.content.unixfs import directory_blocks
from ledger.crash import Point, reached
from ledger.gradients import Answers, Challenge, GradientVerifier, binding_of, challenges, jobs_of
from ledger.locks import turn
from ledger.records import Seat
from ledger.round_state import RoundState
from ledger.tensors import Weights
from ledger.verdict import SubmissionFacts, Verdict, fetch_submission
from node.acceptance import RoundRefused
from node.conduct import HonestMember
from node.kept import KeptContributions
from node.logs import Log
from node.memory import MemberMemory, MemoryContradicted, Shown
from node.recompute import Recount, round_key
from node.sender import Sender
from node.watch import Watch
from proofs.errors import LocalFault, PeerFault
from proofs.texts import Texts
from proofs.words import SecretWords

TURNS: Final = "CANDOR_PROVING_TURNS"  # names that file; set where several members share a machine


class GradientProver(GradientVerifier, Protocol):
    """Proves statement G on some base, and verifies it."""

    def prove(
        self,
        config: Config,
        iterate: Weights,
        challenge: Challenge,
        words: SecretWords,
        texts: Texts,
        contributions: Sequence[NDArray[np.int32]],
        tell: Callable[[str], None],
    ) -> bytes:
        """The proof for one picked slot, in use or not; equal arguments give the equal proof. Raises LocalFault."""


@dataclass(frozen=True)
class BaseProver(BaseGradients):
    """The real one. The prover, and the compiler that it brings, are loaded when they are first used."""

    def prove(
        self,
        config: Config,
        iterate: Weights,
        challenge: Challenge,
        words: SecretWords,
        texts: Texts,
        contributions: Sequence[NDArray[np.int32]],
        tell: Callable[[str], None],
    ) -> bytes:
        from proofs.gradient.prover import prove

        statement, program = gradient_statement(challenge), self.program(config, iterate)
        return bytes(prove(statement, program, words, texts, contributions, tell))


@dataclass(frozen=True)
class Secrets:
    """What only the member knows, and proves with."""

    words: SecretWords = field(repr=False)
    texts: Texts = field(repr=False)


@dataclass(frozen=True)
class Showing:
    """The parts of a member that prove gradients. prover: None where there is none. turns: a file that members on one
    machine have in common, so that they do not all fill its memory at once."""

    prover: GradientProver | None
    kept: KeptContributions
    memory: MemberMemory
    store: ContentStore
    sender: Sender
    watch: Watch
    log: Log
    turns: Path | None = field(default_factory=lambda: _turns(os.environ))
    unpublished: dict[str, Mapping[str, bytes]] = field(default_factory=dict)

    def check(self, config: Config, weights: Weights) -> None:
        """Before a round is committed to: could its picks be answered? Raises RoundRefused."""
        if config.gradient is None:
            return
        if self.prover is None:
            raise RoundRefused("the round asks for proofs of gradients, and there is no base to make them on")
        try:
            self.prover.largest(config, weights)
        except LocalFault as error:
            raise RoundRefused(f"the round asks for proofs of gradients: {error}") from error

    def is_there(self, state: RoundState) -> bool:
        return self.memory.shown(round_key(state)) is not None

    def prove(
        self, recount: Recount, seat: Seat, secrets: Secrets, conduct: HonestMember, tell: Callable[[str], None]
    ) -> None:
        """Prove, write the name down, publish. What is proven is kept until it is published. Raises RoundRefused."""
        state, key = recount.state, round_key(recount.state)
        if not conduct.shows(state):
            raise RoundRefused("conduct: shows nothing")
        self._check_beacon(state)
        if key not in self.unpublished:
            self.unpublished.clear()
            self.unpublished[key] = self._proven(recount, seat, secrets, conduct, tell)
        files, beacon = self.unpublished[key], state.prove_beacon or b""
        try:
            self.memory.remember_showing(key, beacon, directory_blocks(files)[0].cid.digest)
        except MemoryContradicted as error:
            raise RoundRefused(str(error)) from error
        digest, size = self.store.put_directory(files), sum(map(len, files.values()))
        reached(Point.NODE_SHOWN)
        self.memory.remember_shown(key, Shown(digest, size))
        self.unpublished.clear()
        self.watch.published(size)
        self.watch.proving(None)
        self.log.info("shown", round=state.number, proofs=digest, bytes=size)

    def send(self, state: RoundState) -> None:
        """Raises RoundRefused."""
        shown = self.memory.shown(round_key(state))
        if shown is None:
            return
        self._check_beacon(state)
        action = Prove(state.number, shown.proofs)
        self.sender.ensure(f"round-{state.number}/prove", action, Point.NODE_PROVE_INTENT)

    def _check_beacon(self, state: RoundState) -> None:
        named = self.memory.showing(round_key(state))
        if named is not None and named.beacon != state.prove_beacon:
            raise RoundRefused("a reorg drew another beacon after its slots were proven: a second time is refused")

    def _proven(
        self, recount: Recount, seat: Seat, secrets: Secrets, conduct: HonestMember, tell: Callable[[str], None]
    ) -> Mapping[str, bytes]:
        """The directory. Nothing of it has left the process yet."""
        state, config, prover = recount.state, recount.part_of(seat.member), self.prover
        contributions = self.kept.get(round_key(state))
        if prover is None or contributions is None:
            missing = "base to prove on" if prover is None else "contributions of this round"
            raise RoundRefused(f"there is no {missing} here: no gradient can be proven")
        facts = recount.facts(seat.member)
        bundle = self._submitted(facts)
        asked = conduct.picks(state, _asked(facts, bundle))
        proofs = []
        for number, job in enumerate(jobs_of(bundle, facts.global_weights, asked, [b""] * len(asked)), 1):
            stage = _stages(tell, f"gradient {number} of {len(asked)}")
            try:
                with turn(self.turns, lambda stage=stage: stage("waiting for its turn")):  # type: ignore[misc]
                    proofs.append(
                        prover.prove(
                            config, job.iterate, job.challenge, secrets.words, secrets.texts, contributions, stage
                        )
                    )
            except RoundRefused:
                raise
            except LocalFault as error:  # an unused slot can always be proven: that one cannot be is not for everybody
                self.log.error("cannot be proven", round=state.number, pick=str(job.challenge.pick), why=error)
                raise RoundRefused("a picked slot cannot be proven; the log says which, and why") from error
        answers = Answers(config, binding_of(facts.claim), facts.bundle, facts.prove_beacon)
        return conduct.shown(state, answers.files(proofs))

    def _submitted(self, facts: SubmissionFacts) -> SubmissionBundle:
        """Our own bundle: the sums that were released, and the proof whose commitments are opened once more."""
        found = fetch_submission(facts.config, facts.bundle, self.store)
        if isinstance(found, Verdict):
            raise RoundRefused(f"our own bundle is not to be had: {found.detail}")
        try:
            return read_submission(found, facts.config, facts.claim)
        except PeerFault as error:
            raise RoundRefused(f"our own bundle: {error}") from error


def _turns(environment: Mapping[str, str]) -> Path | None:
    return Path(environment[TURNS]) if environment.get(TURNS) else None


def _asked(facts: SubmissionFacts, bundle: SubmissionBundle) -> tuple[Challenge, ...]:
    sums, proof = bundle.trajectory, bundle.proof
    return challenges(facts.config, facts.claim, facts.beacon, sums, proof, facts.prove_beacon)


def _stages(tell: Callable[[str], None], which: str) -> Callable[[str], None]:
    return lambda stage: tell(f"{which}: {stage}")
