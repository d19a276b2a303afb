"""Requests on their way to the engine: a bounded queue, and batches of what comes within a few milliseconds.

One thread runs the engine. A batch is answered when all of it is done, so a short answer may wait for a long one beside
it; the steps of each are told as they come. What nobody waits for any more (the client went away, its time is up) is
left out, or stopped at its next token.

PeerFault
└── Busy         the queue is full: come again after `retry_s`
LocalFault
├── EngineFailed the model raised an error; the log has it, strangers do not
└── Closing      the server is stopping
WireFault
└── TimedOut     the request's time is up, or nobody waits for it any more
"""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from math import ceil, isfinite
from typing import Final

from ledger.log.receipt import Decoding
from node.logs import Log
from node.serving.engine import Classified, Engine, Job, Outcome, Step
from proofs.errors import LocalFault, PeerFault, WireFault

LONGEST_RETRY_S: Final = 60
Told = Callable[[Step], None]


class Busy(PeerFault):
    """The queue is full."""

    def __init__(self, retry_s: int) -> None:
        self.retry_s = retry_s
        super().__init__(f"too many requests are waiting; try again in {retry_s} s")


class EngineFailed(LocalFault):
    """A defect of the model or of its input."""


class Closing(LocalFault):
    """No request is taken any more."""


class TimedOut(WireFault):
    """Nobody waits for this answer."""


@dataclass
class Ticket:
    """One request. `deadline`: by time.monotonic. `told` is called by the engine's thread."""

    tokens: tuple[int, ...]
    decoding: Decoding
    deadline: float
    told: Told = lambda step: None
    outcome: Future[Outcome] = field(default_factory=Future)
    scores: Future[Classified] = field(default_factory=Future)
    gone: threading.Event = field(default_factory=threading.Event)

    def over(self) -> bool:
        return self.gone.is_set() or time.monotonic() >= self.deadline

    def fail(self, error: Exception) -> None:
        for future in (self.outcome, self.scores):
            with suppress(InvalidStateError):  # it was answered, or cancelled by who waited
                future.set_exception(error)


@dataclass(frozen=True)
class BatchLimits:
    """waiting: requests in the queue; size: of a batch; gather_s: how long a batch waits for more."""

    waiting: int
    size: int
    gather_s: float


class Batcher:
    """`close` answers what was accepted, then stops."""

    def __init__(self, engine: Engine, limits: BatchLimits, observe: Callable[[int, float], None], log: Log) -> None:
        """observe: told the size of each batch and the seconds that it took."""
        self._engine, self._limits, self._observe, self._log = engine, limits, observe, log
        self._queue: queue.Queue[Ticket | None] = queue.Queue()
        self._mutex = threading.Lock()
        self._closed = False
        self._batch_s = 0.1
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, ticket: Ticket) -> None:
        """Raises Busy, Closing."""
        with self._mutex:
            if self._closed:
                raise Closing("the server is stopping")
            if self._queue.qsize() >= self._limits.waiting:
                raise Busy(self._retry_s())
            self._queue.put(ticket)

    @property
    def waiting(self) -> int:
        return self._queue.qsize()

    def close(self) -> None:
        """Idempotent."""
        with self._mutex:
            if not self._closed:
                self._queue.put(None)
            self._closed = True
        self._thread.join()

    def _retry_s(self) -> int:
        batches = self._queue.qsize() / self._limits.size
        return max(1, min(LONGEST_RETRY_S, ceil(batches * self._batch_s)))

    # ---- the engine's thread

    def _run(self) -> None:
        going = True
        while going:
            batch, going = self._gather()
            alive = [ticket for ticket in batch if not ticket.over()]
            for ticket in batch:
                if ticket not in alive:
                    ticket.fail(TimedOut("the request waited for too long"))
            if alive:
                self._answer(alive)

    def _gather(self) -> tuple[list[Ticket], bool]:
        """A batch, and whether to go on after it."""
        first = self._queue.get()
        if first is None:
            return [], False
        batch, until = [first], time.monotonic() + self._limits.gather_s
        while len(batch) < self._limits.size:
            try:
                ticket = self._queue.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if ticket is None:
                return batch, False
            batch.append(ticket)
        return batch, True

    def _answer(self, batch: Sequence[Ticket]) -> None:
        begun = time.monotonic()
        try:
            if self._engine.task == "classification":
                self._classify(batch)
            else:
                self._generate(batch)
        except Exception as error:  # any: the other requests are not to suffer for it, and who waits must hear
            self._log.error("the model failed", fault=type(error).__name__, at=_place(error), requests=len(batch))
            for ticket in batch:
                ticket.fail(EngineFailed("the model failed on this request or on one beside it"))
        took_s = time.monotonic() - begun
        self._batch_s = 0.8 * self._batch_s + 0.2 * took_s
        self._observe(len(batch), took_s)

    def _classify(self, batch: Sequence[Ticket]) -> None:
        """Those together that leave out the same parents of a mixture."""
        masks = {ticket.decoding.leave_out: None for ticket in batch}
        for mask in masks:
            self._classify_alike([ticket for ticket in batch if ticket.decoding.leave_out == mask], mask)

    def _classify_alike(self, batch: Sequence[Ticket], mask: tuple[bytes, ...]) -> None:
        found = self._engine.classify([ticket.tokens for ticket in batch], mask)
        if not all(isfinite(score) for classified in found for score in classified.scores):
            raise ValueError("a score is not a number")
        for ticket, classified in zip(batch, found, strict=True):
            with suppress(InvalidStateError):
                ticket.scores.set_result(classified)

    def _generate(self, batch: Sequence[Ticket]) -> None:
        jobs = [Job(ticket.tokens, ticket.decoding) for ticket in batch]
        cut: set[int] = set()

        def stopped(job: int) -> bool:
            if batch[job].over():
                cut.add(job)
            return job in cut

        outcomes = self._engine.generate(jobs, lambda step: batch[step.job].told(step), stopped)
        for job, (ticket, outcome) in enumerate(zip(batch, outcomes, strict=True)):
            if job in cut:
                ticket.fail(TimedOut("the answer was not finished in time"))
                continue
            with suppress(InvalidStateError):
                ticket.outcome.set_result(outcome)


def _place(error: Exception) -> str:
    """Where it was raised; what it says may hold a user's text, and stays out of the log."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "unknown"
