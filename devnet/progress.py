"""What is going on, told from the chain and the daemons' own metrics: lines for a log, and a snapshot for a screen.

Scores arrive late: a final bundle is evaluated beside the rounds that follow it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

import requests

from devnet.evaluate import MEASURES, Evaluator, Measure
from devnet.federation import MICRO, Federation, Site
from devnet.gas import GasMeter
from ledger.content import EmbeddedStore
from ledger.content.reader import Limits
from ledger.follower import Follower
from ledger.gradients import gradient_limits
from ledger.privacy import INFINITE_MICRO
from ledger.records import (
    AggregateProposed,
    Committed,
    Dissented,
    Equivocation,
    Finalised,
    Logged,
    Objected,
    Proved,
    Reason,
    RoundEvent,
    RoundOpened,
    Sealed,
    Submitted,
    VerdictsPosted,
    Voided,
)
from ledger.round_state import RoundState, beacon_block
from proofs.errors import CandorError, WireFault

GENESIS: Final = 0
HEALTH_TIMEOUT_S: Final = 0.5
AGAIN_S, PATIENCE_S = 2.0, 300.0


@dataclass
class Watch:
    """Follows one federation. `poll` returns the lines that are new; `scores` are by round, 0 for the genesis."""

    federation: Federation
    evaluator: Evaluator
    follower: Follower = field(init=False)
    gas: GasMeter = field(init=False)
    started: float = field(default_factory=time.monotonic)
    scores: dict[int, float] = field(default_factory=dict)
    sizes: dict[bytes, int | None] = field(default_factory=dict)
    head: int = 0
    _asked_s: float = 0.0
    _pending: dict[int, Future[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        federation, chain = self.federation, self.federation.chain()
        start = federation.deployment.block_number
        self.follower = Follower(federation.plan.directory / "devnet.sqlite", chain, start_block=start)
        self.gas = GasMeter(federation.anvil, chain.rounds_address, start)
        self._pending[GENESIS] = self.evaluator.score(federation.genesis, federation.limits)

    @property
    def measure(self) -> Measure:
        return MEASURES[self.federation.plan.preset.task]

    @property
    def rounds(self) -> Mapping[int, RoundState]:
        return self.follower.rounds()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    def poll(self) -> list[str]:
        """Read what is new. A chain that does not answer is asked again next time."""
        try:
            polled = self.follower.poll()
            self.head = polled.head.number
            self.gas.read_to(polled.head.number)
        except WireFault:
            return []
        lines = [line for logged in polled.events for line in self._told(logged)]
        return lines + list(self._evaluated())

    def settle(self) -> list[str]:
        """Wait for the scores that are still being computed."""
        for future in self._pending.values():
            future.exception()
        return list(self._evaluated())

    def close(self) -> None:
        self.follower.close()

    def bytes_of(self, bundle: bytes, limits: Limits | None = None) -> int | None:
        """Bytes of the files behind a digest, from whichever store of the federation has them; None if none does."""
        if bundle not in self.sizes:
            self.sizes[bundle] = _size(self.federation, bundle, limits or self.federation.limits)
        return self.sizes[bundle]

    def _told(self, logged: Logged) -> Iterator[str]:
        event = logged.event
        if isinstance(event, Finalised):
            self._pending[event.round] = self.evaluator.score(event.aggregate_bundle, self.federation.limits)
        told = tell(event, self)
        if told:
            yield f"{self.elapsed_s:6.1f} s  round {event.round}  {told}"

    def _evaluated(self) -> Iterator[str]:
        for number, future in list(self._pending.items()):
            if not future.done():
                continue
            error = future.exception()
            if number == GENESIS and isinstance(error, WireFault) and self.elapsed_s < PATIENCE_S:
                if self.elapsed_s - self._asked_s > AGAIN_S:  # the gateways are not up yet
                    self._asked_s = self.elapsed_s
                    self._pending[number] = self.evaluator.score(self.federation.genesis, self.federation.limits)
                continue
            del self._pending[number]
            if error is not None and not isinstance(error, CandorError):
                raise error
            what = "before training" if number == GENESIS else f"after round {number}"
            if error is None:
                self.scores[number] = future.result()
                told = self.measure.shown(self.scores[number])
            else:
                told = f"not known: {error}"
            yield f"{self.elapsed_s:6.1f} s  {self.measure.name} {what}: {told}"


@dataclass(frozen=True)
class Pace:
    """Steps done, all of them, and whether the proof is being made."""

    done: int
    total: int
    proving: bool


def paces(sites: Sequence[Site], session: requests.Session) -> dict[int, Pace]:
    """How far each member is, as the daemons' own health pages say; who does not answer is left out."""
    found = {}
    for member, site in enumerate(sites):
        try:
            facts = session.get(f"{site.url}/health", timeout=HEALTH_TIMEOUT_S).json()
            found[member] = Pace(int(facts["step"]), int(facts["steps"]), bool(facts.get("proving")))
        except (requests.RequestException, ValueError, KeyError, TypeError):
            continue
    return found


def epsilon_text(micro: int) -> str:
    return "∞" if micro == INFINITE_MICRO else f"{micro / MICRO:.2f}"


def reason_text(code: int) -> str:
    """A reason's name; a number that no reason has stays a number, since anyone can write it on the chain."""
    return Reason(code).name if code in set(Reason) else f"reason {code}"


def _size(federation: Federation, bundle: bytes, limits: Limits) -> int | None:
    for site in federation.sites:
        try:
            files = EmbeddedStore(site.content).get_directory(bundle, limits)
        except CandorError:
            continue
        return sum(map(len, files.values()))
    return None


def _size_text(size: int | None) -> str:
    return "nothing that can be read" if size is None else f"{size:,} bytes"


def tell(event: RoundEvent, watch: Watch) -> str:
    """One event in words."""
    match event:
        case RoundOpened():
            return f"opened for {len(event.seats)} members under the config {_short(event.config_digest)}"
        case Committed():
            return f"node-{event.member} committed to its data and its secret words"
        case Sealed():
            drawn_from = beacon_block(event.close_block)
            return f"{event.closed.name} closed, beacon {_short(event.beacon)} drawn from block {drawn_from}"
        case Submitted():
            size, spent = watch.bytes_of(event.bundle), epsilon_text(event.spent_micro)
            cap = epsilon_text(watch.federation.plan.cap_micro)
            return f"node-{event.member} submitted {_size_text(size)}, ε {spent} of {cap} spent"
        case Equivocation():
            return f"node-{event.member} submitted a second, different bundle: out of the round"
        case Proved():
            size = watch.bytes_of(event.proof, gradient_limits(watch.federation.config))
            return f"node-{event.member} showed the gradients of its picked slots, {_size_text(size)}"
        case VerdictsPosted():
            return _verdicts(event, watch.rounds[event.round])
        case Dissented():
            return f"node-{event.member} dissents: {_reasons(event.reasons, watch.rounds[event.round])}"
        case AggregateProposed():
            files = _size_text(watch.bytes_of(event.aggregate_bundle))
            return f"aggregate {_short(event.aggregate_bundle)} proposed, {files}"
        case Objected():
            right = (
                f"the aggregate is {_short(event.expected_bundle)}" if any(event.expected_bundle) else "wrong verdicts"
            )
            return f"node-{event.member} objects: {right}"
        case Finalised():
            return f"FINAL, {watch.gas.by_round[event.round]:,} gas"
        case Voided():
            return f"VOID in {event.phase.name}: {event.reason.name}, {watch.gas.by_round[event.round]:,} gas"


def _verdicts(event: VerdictsPosted, state: RoundState) -> str:
    signers = ", ".join(f"node-{member}" for member in event.signed.members)
    return f"verdicts: {_reasons(event.reasons, state)}; signed by {signers}"


def _reasons(codes: bytes, state: RoundState) -> str:
    reasons = {seat.member: code for seat, code in zip(state.seats, codes, strict=True)}
    left_out = [f"node-{member} ({reason_text(code)})" for member, code in reasons.items() if code]
    accepted = [f"node-{member}" for member, code in reasons.items() if not code]
    return f"accepted {', '.join(accepted) or 'nobody'}; left out {', '.join(left_out) or 'nobody'}"


def _short(digest: bytes) -> str:
    return f"{digest.hex()[:10]}…"
