"""What a daemon shows of itself: health facts and Prometheus metrics. Written by its loop, read by its HTTP threads."""

from __future__ import annotations

import threading
import time
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from ledger.privacy import INFINITE_MICRO
from ledger.records import Phase

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class BaseWatch:
    """`set` facts for /health and `status`; the counters are for /metrics. `stale_s`: silence that counts as ill."""

    def __init__(self, role: str, *, stale_s: float = 600.0) -> None:
        self._lock = threading.Lock()
        self._facts: dict[str, Any] = {"role": role}
        self._fault: str | None = "starting"
        self._beat = time.monotonic()
        self._stale_s = stale_s
        self.registry = CollectorRegistry()
        self._head = self._gauge("candor_chain_head", "Latest block seen")
        self._gas = self._counter("candor_gas", "Gas used by this daemon's transactions")
        self._faults = Counter("candor_faults", "Turns that failed", ["fault"], registry=self.registry)

    def beat(self, fault: str | None = None) -> None:
        """A turn is over. `fault` says what is wrong, in words without secrets; None: nothing."""
        with self._lock:
            self._beat, self._fault = time.monotonic(), fault

    def alive(self) -> None:
        """Still working on the same turn."""
        with self._lock:
            self._beat = time.monotonic()

    def set(self, **facts: Any) -> None:
        with self._lock:
            self._facts.update(facts)

    def gas(self, used: int) -> None:
        self._gas.inc(used)

    def failed(self, fault: str) -> None:
        self._faults.labels(fault).inc()

    def health(self) -> dict[str, Any]:
        """JSON: `ok`, what is wrong if anything is, and the facts."""
        with self._lock:
            silent_s = time.monotonic() - self._beat
            fault = self._fault or (f"no turn for {silent_s:.0f} s" if silent_s > self._stale_s else None)
            return {"ok": fault is None, "fault": fault, "silent_s": round(silent_s, 1), **self._facts}

    def metrics(self) -> bytes:
        return generate_latest(self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, registry=self.registry)


class Watch(BaseWatch):
    """Of a daemon that takes part in rounds."""

    def __init__(self, role: str, *, stale_s: float = 600.0) -> None:
        super().__init__(role, stale_s=stale_s)
        self._round = self._gauge("candor_round", "Number of the latest round")
        self._phase = Gauge("candor_phase", "1 for the phase that the round is in", ["phase"], registry=self.registry)
        self._epsilon = self._gauge("candor_epsilon_spent", "Privacy spent so far, all rounds together")
        self._steps = self._counter("candor_steps", "Training steps done")
        self._bytes = self._counter("candor_published_bytes", "Bytes published as bundles")
        self._missing = self._counter("candor_fetch_failures", "Times that content could not be had")
        self._ended = Counter("candor_rounds_ended", "Rounds that ended", ["outcome"], registry=self.registry)

    def at(self, head: int, round_number: int, phase: Phase) -> None:
        self.set(head=head, round=round_number, phase=phase.name)
        self._head.set(head)
        self._round.set(round_number)
        for each in Phase:
            self._phase.labels(each.name).set(each is phase)

    def spent(self, micro: int) -> None:
        infinite = micro == INFINITE_MICRO
        self.set(epsilon_spent="infinite" if infinite else micro / 1e6)
        self._epsilon.set(float("inf") if infinite else micro / 1e6)

    def step(self, done: int, steps: int) -> None:
        self.set(step=done, steps=steps)
        self._steps.inc()
        self.alive()

    def proving(self, stage: str | None) -> None:
        """What the prover is at; None: it has ended."""
        self.set(proving=stage)
        self.alive()

    def published(self, size_bytes: int) -> None:
        self._bytes.inc(size_bytes)

    def fetch_failed(self) -> None:
        self._missing.inc()

    def ended(self, outcome: str) -> None:
        self._ended.labels(outcome).inc()
