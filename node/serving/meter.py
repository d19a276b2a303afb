"""What a server shows of itself: health facts and Prometheus metrics. Counts and sizes; nothing of what was asked."""

from __future__ import annotations

from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from node.watch import BaseWatch


class Meter(BaseWatch):
    """Written by the anchor, the engine's thread and the HTTP server; read by whoever asks."""

    def __init__(self) -> None:
        super().__init__("serve")
        registry = self.registry
        self._requests = Counter("candor_serve_requests", "Requests answered", ["route", "status"], registry=registry)
        self._seconds = Histogram("candor_serve_seconds", "From request to answer", ["route"], registry=registry)
        self._tokens = Counter("candor_serve_tokens", "Tokens of prompts and answers", ["kind"], registry=registry)
        sizes = (1, 2, 4, 8, 16, 32, 64)
        self._batch = Histogram("candor_serve_batch", "Requests in a batch", buckets=sizes, registry=registry)
        self._engine = Histogram("candor_serve_batch_seconds", "The engine's time for a batch", registry=registry)
        self._queue = Gauge("candor_serve_queue", "Requests that wait for the engine", registry=registry)
        self._log = Gauge("candor_log_entries", "Entries of the log", ["state"], registry=registry)
        self._late = Gauge("candor_log_late_blocks", "Blocks since the oldest promise broken now", registry=registry)

    def answered(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def tokens(self, prompt: int, answer: int) -> None:
        self._tokens.labels("prompt").inc(prompt)
        self._tokens.labels("answer").inc(answer)

    def batch(self, size: int, seconds: float) -> None:
        self._batch.observe(size)
        self._engine.observe(seconds)

    def queue(self, waiting: int) -> None:
        self._queue.set(waiting)

    def anchored(self, *, head: int, size: int, anchored: int, published: int, late_blocks: int, **facts: Any) -> None:
        """waiting: which parts of the anchor cannot be done now, and why."""
        self._head.set(head)
        for state, count in (("written", size), ("anchored", anchored), ("published", published)):
            self._log.labels(state).set(count)
        self._late.set(late_blocks)
        self.set(head=head, entries=size, anchored=anchored, published=published, late_blocks=late_blocks, **facts)
