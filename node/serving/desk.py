"""From a request that was understood to its answer: ask the engine, have it written, then let it go.

    whole    the answer's bytes → the scribe → the answer, with its receipt beside it: from the engine's thread to the
             pen's, so that a batch is written together, and from there to the loop, which wakes once for all of them
    streamed pieces go as they come, each one step late, so that the last is never sent before the entry is durable:
             what has gone before is a beginning, without `finish_reason`. A stream that breaks off (the client went
             away or takes too long, the model failed) is written too, as far as it was sent; nobody gets its receipt

The engine works for one request among others: its thread tells, this loop listens.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from ledger.log.receipt import Receipt
from node.serving import replies
from node.serving.asking import Asked
from node.serving.batching import Batcher, EngineFailed, Ticket
from node.serving.engine import Classified, Engine, Outcome, Step
from node.serving.meter import Meter
from node.serving.replies import Head, Kind
from node.serving.scribe import Answer, Told
from proofs.errors import CandorError

Send = Callable[[bytes], Awaitable[None]]
T = TypeVar("T")


class Writes(Protocol):
    """The pen."""

    def submit(self, answer: Answer, told: Told) -> None: ...


class StreamBroken(Exception):
    """Nobody reads on, or nothing more comes."""


class Courier:
    """Brings what other threads have found to futures of one event loop: one wake-up for all that is ready."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._ready: list[tuple[asyncio.Future[Any], Any]] = []

    def bring(self, future: asyncio.Future[T], found: T | BaseException) -> None:
        """Called by any thread, also when nobody waits for it any more."""
        with self._mutex:
            self._ready.append((future, found))
            if len(self._ready) > 1:  # the loop is on its way
                return
        with suppress(RuntimeError):  # it has ended
            future.get_loop().call_soon_threadsafe(self._hand_out)

    def _hand_out(self) -> None:
        with self._mutex:
            ready, self._ready = self._ready, []
        for future, found in ready:
            if future.done():  # cancelled by who waited
                continue
            if isinstance(found, BaseException):
                future.set_exception(found)
            else:
                future.set_result(found)


@dataclass(frozen=True)
class Desk:
    """What all requests share. request_s: from its coming to its answer."""

    engine: Engine
    batcher: Batcher
    pen: Writes
    model: str
    request_s: float
    meter: Meter
    courier: Courier = field(default_factory=Courier)

    def head(self, kind: Kind, prefix: str) -> Head:
        return Head(f"{prefix}-{secrets.token_hex(12)}", kind, int(time.time()), self.model, self.engine.bundle)

    def ticket(self, asked: Asked, told: Callable[[Step], None] = lambda step: None) -> Ticket:
        """Accepted for the engine. Raises Busy, Closing."""
        ticket = Ticket(asked.tokens, asked.decoding, time.monotonic() + self.request_s, told)
        self.batcher.submit(ticket)
        self.meter.queue(self.batcher.waiting)
        return ticket

    async def generated(self, request: bytes, asked: Asked, head: Head) -> tuple[bytes, Receipt]:
        """Raises TimedOut, EngineFailed, StorageFault, NotWriting; and when cancelled, the engine stops too."""

        def body(outcome: Outcome) -> bytes:
            self.meter.tokens(len(asked.tokens), len(outcome.tokens))
            return replies.generated(head, len(asked.tokens), outcome)

        ticket = self.ticket(asked)
        return await self._written(request, asked, ticket, ticket.outcome, body)

    async def classified(self, request: bytes, asked: Asked, head: Head) -> tuple[bytes, Receipt]:
        """As `generated`."""

        def body(found: Classified) -> bytes:
            self.meter.tokens(len(asked.tokens), 0)
            return replies.classified(head, len(asked.tokens), self.engine.labels, found)

        ticket = self.ticket(asked)
        return await self._written(request, asked, ticket, ticket.scores, body)

    async def _written(
        self, request: bytes, asked: Asked, ticket: Ticket, heard: Future[T], body: Callable[[T], bytes]
    ) -> tuple[bytes, Receipt]:
        """body: of what was heard. Whoever stops waiting gets no entry, unless it is being written."""
        written: asyncio.Future[tuple[bytes, Receipt]] = asyncio.get_running_loop().create_future()

        def write(heard: Future[T]) -> None:
            if ticket.gone.is_set():
                return
            try:
                answer = Answer(request, body(heard.result()), asked.decoding)
                self.pen.submit(answer, lambda found: leave(answer, found))
            except Exception as error:  # whatever it is: who waits must hear
                self.courier.bring(written, error)

        def leave(answer: Answer, found: Receipt | BaseException) -> None:
            self.courier.bring(written, found if isinstance(found, BaseException) else (answer.response, found))

        heard.add_done_callback(write)
        try:
            return await written
        finally:
            ticket.gone.set()


@dataclass
class Stream:
    """One streamed answer. `begin`, then `run`; `gone` may be called meanwhile, and ends it."""

    desk: Desk
    request: bytes
    asked: Asked
    head: Head
    _items: asyncio.Queue[Step | Outcome | BaseException] = field(default_factory=asyncio.Queue)
    _ticket: Ticket | None = None
    _next: Step | Outcome | None = None
    _sent: bytearray = field(default_factory=bytearray)
    _held: str = ""
    _first: bool = True

    async def begin(self) -> None:
        """Accepted, and something has come. Raises Busy, Closing, and as `Desk.generated`."""
        loop = asyncio.get_running_loop()

        def tell(item: Step | Outcome | BaseException) -> None:
            loop.call_soon_threadsafe(self._items.put_nowait, item)

        self._ticket = self.desk.ticket(self.asked, tell)
        self._ticket.outcome.add_done_callback(lambda future: tell(future.exception() or future.result()))
        self._next = await self._take()

    def gone(self) -> None:
        self._items.put_nowait(StreamBroken("the client went away"))

    async def run(self, send: Send) -> None:
        """Sends all of it. Raises nothing that a client or a model can cause."""
        try:
            outcome = await self._pieces(send)
            await self._end(outcome, send)
        except (StreamBroken, TimeoutError):
            self._break()
        except asyncio.CancelledError:  # the server stops
            self._break()
            raise
        except CandorError as error:
            self._break()
            await send(replies.error_event({"error": {"message": _public(error), "type": "server_error"}}))
        finally:
            if self._ticket is not None:
                self._ticket.gone.set()

    async def _pieces(self, send: Send) -> Outcome:
        """All but the last piece of text."""
        while not isinstance(self._next, Outcome):
            step, self._next = self._next, None
            if step is not None and step.text:
                if self._held:
                    await self._send(replies.chunk(self.head, self._held, first=self._first), send)
                    self._first = False
                self._held = step.text
            self._next = await self._take()
        return self._next

    async def _end(self, outcome: Outcome, send: Send) -> None:
        tail = replies.last_chunk(self.head, self._held, outcome, first=self._first)
        if self.asked.usage:
            tail += replies.usage_chunk(self.head, len(self.asked.tokens), outcome)
        answer = Answer(self.request, bytes(self._sent) + tail, self.asked.decoding)
        written: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self.desk.pen.submit(answer, lambda found: self.desk.courier.bring(written, found))
        receipt = await written
        self._sent.clear()  # written: nothing is left to be broken off
        self.desk.meter.tokens(len(self.asked.tokens), len(outcome.tokens))
        await send(tail + replies.receipt_chunk(self.head, receipt) + replies.DONE)

    async def _send(self, data: bytes, send: Send) -> None:
        self._sent += data
        await send(data)

    async def _take(self) -> Step | Outcome:
        item = await self._items.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def _break(self) -> None:
        """Whatever left this server stands in the log."""
        if self._sent:
            self.desk.pen.submit(Answer(self.request, bytes(self._sent), self.asked.decoding), lambda _: None)


def _public(error: CandorError) -> str:
    return str(error) if isinstance(error, EngineFailed) else "the answer broke off"
