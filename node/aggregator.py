"""An aggregator's part in a round: what each action of its table (node.aggregator_table) does.

It decides nothing that others cannot re-run: verdicts are ledger.verdict's, the average is ledger.aggregate's. Verdicts
and aggregates are written down under a digest of all they depend on, then sent; a restart finds them there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Final

from ledger.actions import Open, PostVerdicts, Propose
from ledger.aggregation import in_round
from ledger.base_gradients import BaseGradients
from ledger.config import MAX_CONFIG_BYTES, Config
from ledger.content import ContentStore
from ledger.crash import Point, reached
from ledger.gradients import GradientsUnjudged, GradientVerifier
from ledger.history import History
from ledger.ports import ChainPort
from ledger.records import Phase, Reason
from ledger.round_state import RoundState, excluded_root, included_root, known_reason
from ledger.signing import Key
from node.aggregator_table import (
    AGGREGATOR_TABLE,
    Duty,
    aggregator_situation,
    opening_situation,
    patience_ends,
)
from node.collecting import Answers, Collector, PeerAnswers
from node.conduct import HonestAggregator
from node.judging import Judges
from node.logs import Log
from node.member import advance
from node.memory import AggregatorMemory
from node.recompute import Configs, Recount, round_key
from node.round_table import Do, Situation, phase_now
from node.sender import Sender
from node.service import AGGREGATOR, Stopped, opened, run_loop, state_file
from node.settings import AggregatorSettings, CoordinatorSettings, SettingsInvalid
from node.watch import Watch
from proofs.errors import PeerFault

PREPARATIONS: Final = (Do.JUDGE, Do.AVERAGE)


@dataclass(frozen=True)
class Coordinator:
    """What the opener of rounds opens. The configs are published in its own store.

    last: the config of the last round, if it is another.
    """

    config: Config
    rounds: int
    voids: int
    genesis: bytes
    last: Config | None = None

    def config_of_next(self, history: History) -> Config:
        """The config of the round that comes: the last one's if all before are Final; under rolora by its number."""
        final = sum(state.phase is Phase.FINAL for state in history.rounds.values())
        chosen = self.last if self.last is not None and final == self.rounds - 1 else self.config
        return in_round(chosen, history.latest + 1)


@dataclass(frozen=True)
class AggregatorParts:
    """Everything that an aggregator holds on to."""

    chain: ChainPort
    key: Key
    store: ContentStore
    sender: Sender
    memory: AggregatorMemory
    judges: Judges
    coordinator: Coordinator | None
    watch: Watch
    log: Log
    answers: Answers
    gradients: GradientVerifier | None = None


class Aggregator:
    """`act` looks at the latest round and does what the table says."""

    def __init__(self, parts: AggregatorParts, conduct: HonestAggregator | None = None) -> None:
        self._parts, self._conduct = parts, conduct or HonestAggregator()
        self._configs = Configs(parts.store)
        self._told: tuple[int, Phase] = (0, Phase.NONE)
        self._order: tuple[int, list[bytes]] = (-1, [])
        self._refused: dict[int, str] = {}
        self._collector = Collector(parts.answers, parts.watch, parts.log)
        self._do: Mapping[Do, Callable[[Recount, int], None]] = {
            Do.JUDGE: self._judge,
            Do.POST: self._post,
            Do.AVERAGE: self._average,
            Do.PROPOSE: self._propose,
        }

    def act(self, history: History, head: int) -> None:
        """Raises WireFault or LocalFault; what was begun is taken up again by the next call."""
        state = history.rounds.get(history.latest)
        self._tell(state, head)
        if state is None or state.ended:
            self._between(history, head)
            return
        recount = Recount(self._configs, self._parts.store, history, state, self._parts.gradients)
        for _ in range(2):  # what was prepared is sent in the same turn
            action = self._step(recount, head)
            if action not in PREPARATIONS:
                return

    def _step(self, recount: Recount, head: int) -> Do:
        state = recount.state
        situation = aggregator_situation(state, head, self._duty(recount))
        if state.number in self._refused and situation in (Situation.READY, Situation.PREPARED):
            situation = Situation.BYSTANDER
        action = AGGREGATOR_TABLE[phase_now(state, head)][situation]
        self._parts.watch.set(situation=situation.value)
        if action is Do.ADVANCE:
            advance(self._parts.chain, self._parts.sender, state)
        elif action is not Do.WAIT:
            try:
                self._do[action](recount, head)
            except (PeerFault, GradientsUnjudged) as fault:
                self._refuse(state, str(fault))
        return action

    def _duty(self, recount: Recount) -> Duty:
        state = recount.state
        if self._order[0] != state.number:
            self._order = state.number, self._parts.chain.aggregators()
        duty = Duty(self._parts.key.address, self._order[1])
        if state.phase is Phase.PROPOSE:
            return replace(duty, prepared=self._aggregate_of(state) is not None)
        return replace(duty, prepared=self._verdicts_of(recount) is not None)

    # ---- opening

    def _between(self, history: History, head: int) -> None:
        """No round is open: the coordinator opens the next, until it has what it was asked for."""
        mine = self._parts.coordinator
        if mine is None:
            return
        situation = opening_situation(history, rounds=mine.rounds, voids=mine.voids)
        self._parts.watch.set(finished=situation is not Situation.READY)
        phase = history.rounds[history.latest].phase if history.latest else Phase.NONE
        if AGGREGATOR_TABLE[phase][situation] is Do.OPEN:
            config = mine.config_of_next(history)
            self._parts.store.put_raw(config.encode())
            start = history.global_bundle or mine.genesis
            action = Open(config.digest, start, config.policy)
            name = f"round-{history.latest + 1}/open/{start.hex()[:8]}"
            self._parts.sender.ensure(name, action, Point.AGGREGATOR_OPEN_INTENT)

    # ---- Verify

    def _judge(self, recount: Recount, head: int) -> None:
        """Judge whom the chain does not know better already; write each verdict down as it falls.

        A bundle that nobody has is waited for until patience ends. Raises WireFault when the store does not answer.
        """
        state, duty = recount.state, self._duty(recount)
        open_ones = [
            member
            for member in state.standing
            if known_reason(state, member) is Reason.ACCEPTED and self._verdict_of(recount, member) is None
        ]
        for member, verdict in self._parts.judges.verdicts(recount, open_ones):
            if verdict.reason is Reason.UNAVAILABLE:
                self._parts.watch.fetch_failed()
                if not patience_ends(state, head, duty):
                    self._parts.log.warning("missing", round=state.number, member=member, why=verdict.detail)
                    continue
            facts = recount.facts_digest(member)
            self._parts.memory.remember_verdict(round_key(state), member, facts, verdict)
            reached(Point.AGGREGATOR_VERDICTS)
            tell = self._parts.log.info if verdict.accepted else self._parts.log.warning
            tell("judged", round=state.number, member=member, reason=verdict.reason.name, why=verdict.detail)

    def _verdict_of(self, recount: Recount, member: int) -> Reason | None:
        """The chain's own reason, or the one written down."""
        known = known_reason(recount.state, member)
        if known is not Reason.ACCEPTED:
            return known
        facts = recount.facts_digest(member)
        verdict = self._parts.memory.verdict(round_key(recount.state), member, facts)
        return verdict.reason if verdict else None

    def _verdicts_of(self, recount: Recount) -> dict[int, Reason] | None:
        """One reason for each seat, None until all are known."""
        reasons: dict[int, Reason] = {}
        for seat in recount.state.seats:
            reason = self._verdict_of(recount, seat.member)
            if reason is None:
                return None
            reasons[seat.member] = reason
        return reasons

    def _post(self, recount: Recount, head: int) -> None:
        """Post what a quorum of verifiers signed; until they have, ask again each turn."""
        state, reasons = recount.state, self._verdicts_of(recount)
        name = f"round-{state.number}/verdicts/{state.transcript.hex()[:8]}"
        known = self._parts.sender.outbox.get(name)
        if known is not None:
            self._parts.sender.ensure(name, known.action, Point.AGGREGATOR_VERDICTS_INTENT)
            return
        if reasons is None:
            return
        own = self._conduct.reasons(state, reasons)
        agreed = self._collector.collect(state, bytes(int(own[seat.member]) for seat in state.seats))
        if agreed is not None:
            action = PostVerdicts(state.number, self._conduct.posted(state, agreed.reasons), agreed.signed)
            self._parts.sender.ensure(name, action, Point.AGGREGATOR_VERDICTS_INTENT)

    # ---- Propose

    def _average(self, recount: Recount, head: int) -> None:
        """Raises PeerFault when whoever judged accepted what cannot be averaged: such a round is left to void."""
        state = recount.state
        honest = recount.aggregate()
        bundle = replace(honest, weights=self._conduct.average(state, honest.weights))
        files = self._conduct.files(state, bundle.files())
        digest = self._conduct.publish(state, self._parts.store, files)
        self._parts.memory.remember_aggregate(round_key(state), _verdict_facts(state), digest)
        reached(Point.AGGREGATOR_AGGREGATE)
        self._parts.watch.published(sum(map(len, files.values())))
        self._parts.log.info("averaged", round=state.number, members=list(state.accepted), bundle=digest)

    def _propose(self, recount: Recount, head: int) -> None:
        state = recount.state
        digest = self._aggregate_of(state)
        if digest is None:
            return
        roots = included_root(state, state.accepted), excluded_root(state.reasons)
        name = f"round-{state.number}/propose/{digest.hex()[:8]}"
        self._parts.sender.ensure(name, Propose(state.number, digest, *roots), Point.AGGREGATOR_PROPOSE_INTENT)

    def _aggregate_of(self, state: RoundState) -> bytes | None:
        return self._parts.memory.aggregate(round_key(state), _verdict_facts(state))

    # ---- what is told

    def _refuse(self, state: RoundState, why: str) -> None:
        self._refused[state.number] = why
        self._parts.watch.set(refused=why)
        self._parts.log.error("round refused", round=state.number, why=why)

    def _tell(self, state: RoundState | None, head: int) -> None:
        number, phase = (state.number, phase_now(state, head)) if state else (0, Phase.NONE)
        self._parts.watch.at(head, number, phase)
        if self._told == (number, phase):
            return
        self._told = number, phase
        self._parts.log.info("phase", round=number, phase=phase.name, head=head)
        if state is not None and state.ended:
            outcome = state.voided.reason.name if state.voided else "FINAL"
            self._parts.watch.ended(outcome)
            self._parts.log.info("ended", round=number, outcome=outcome, accepted=list(state.accepted))


def run(
    settings: AggregatorSettings, conduct: HonestAggregator | None = None, *, stop: threading.Event | None = None
) -> None:
    """Blocks until `stop` is set. Raises LocalFault for what only the operator can repair."""
    coordinator = read_coordinator(settings.coordinator) if settings.coordinator else None
    try:
        with opened(settings, "aggregator", stop or threading.Event()) as service:
            memory, judges = AggregatorMemory(state_file(settings, AGGREGATOR)), Judges()
            with closing(memory), closing(judges):
                parts = AggregatorParts(
                    chain=service.chain,
                    key=service.key,
                    store=service.store,
                    sender=service.sender,
                    memory=memory,
                    judges=judges,
                    coordinator=coordinator,
                    watch=service.watch,
                    log=service.log,
                    answers=PeerAnswers(settings.content.peers, settings.content.timeout_s),
                    gradients=BaseGradients(base_folder(settings.model)) if settings.model else None,
                )
                run_loop(service, Aggregator(parts, conduct).act)
    except Stopped:
        return


def base_folder(model: str) -> Path:
    """Where the base is. A package is looked for with node.model, which loads much; a folder is where it is said."""
    if not model.startswith("package:"):
        return Path(model)
    from node.model import resolve

    return resolve(model)


def read_coordinator(settings: CoordinatorSettings) -> Coordinator:
    """Raises SettingsInvalid."""
    config, last = _read_config(settings.config), _read_config(settings.last) if settings.last else None
    return Coordinator(config, settings.rounds, settings.voids, settings.global_bundle, last)


def _read_config(path: Path) -> Config:
    """The file is canonical JSON, as `Config.encode` writes it. Raises SettingsInvalid."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise SettingsInvalid(f"{path}: more than {MAX_CONFIG_BYTES} bytes")
        return Config.decode(path.read_bytes().strip())
    except OSError as error:
        raise SettingsInvalid(f"{path}: {error.strerror}") from error
    except PeerFault as error:
        raise SettingsInvalid(f"{path}: {error}") from error


def _verdict_facts(state: RoundState) -> bytes:
    """What an aggregate depends on: who was accepted with which bundle, from which start, under which config."""
    parts = [state.opened.config_digest, state.opened.global_bundle]
    parts += [bytes([member]) + state.submissions[member].bundle for member in state.accepted]
    return sha256(b"candor/average/1\0" + b"".join(parts)).digest()
