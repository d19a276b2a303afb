"""From the engine's thread to the loop: a batch is written together, and handed over in one go."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from ledger.database import StorageFault
from ledger.log.receipt import Receipt
from node.logs import Log
from node.serving.asking import CLASSIFYING, Asked
from node.serving.batching import Batcher, BatchLimits, TimedOut
from node.serving.desk import Courier, Desk
from node.serving.engine import Classified
from node.serving.meter import Meter
from node.serving.scribe import Answer, Told

ASKED = Asked((1, 2), CLASSIFYING)


class Labels:
    task, labels, max_tokens, bundle = "classification", ("a", "b"), 64, bytes(32)

    def __init__(self, go: threading.Event) -> None:
        self._go = go

    def classify(self, batch: Sequence[Sequence[int]], leave_out: Any = ()) -> list[Classified]:
        assert self._go.wait(10)
        return [Classified((0.25, 0.75), 1, b"print") for _ in batch]


class Held:
    """A pen that signs when it is told to."""

    def __init__(self) -> None:
        self.answers: list[tuple[Answer, Told]] = []

    def submit(self, answer: Answer, told: Told) -> None:
        self.answers.append((answer, told))


def desk_of(pen: Any, count: int, go: threading.Event | None = None) -> Desk:
    if go is None:
        go = threading.Event()
        go.set()
    engine: Any = Labels(go)
    batcher = Batcher(engine, BatchLimits(64, count, 5.0), lambda size, seconds: None, Log("test"))
    return Desk(engine, batcher, pen, "model", 60.0, Meter())


async def until(holds: Any) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.001)


def asks(desk: Desk, count: int) -> list[asyncio.Task[tuple[bytes, Receipt]]]:
    head = desk.head("text_completion", "classify")
    return [asyncio.create_task(desk.classified(b"request %d" % at, ASKED, head)) for at in range(count)]


def test_no_answer_leaves_before_its_own_receipt() -> None:
    async def scene() -> None:
        pen = Held()
        desk = desk_of(pen, 4)
        tasks = asks(desk, 4)
        await until(lambda: len(pen.answers) == 4)
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in tasks)
        receipts: list[Any] = [object() for _ in range(4)]
        for at in (2, 0):
            pen.answers[at][1](receipts[at])
        await until(lambda: sum(task.done() for task in tasks) == 2)
        for at in (2, 0):
            number = int(pen.answers[at][0].request.split()[-1])
            body, receipt = tasks[number].result()
            assert (body, receipt) == (pen.answers[at][0].response, receipts[at])
        pen.answers[1][1](StorageFault("full"))
        pen.answers[3][1](StorageFault("full"))
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(each, StorageFault) for each in found) == 2
        desk.batcher.close()

    asyncio.run(scene())


def test_who_stopped_waiting_is_not_written_and_whoever_stops_later_spoils_nothing() -> None:
    async def scene() -> None:
        pen, go = Held(), threading.Event()
        desk = desk_of(pen, 3, go)
        gone, early, patient = asks(desk, 3)
        await asyncio.sleep(0)
        gone.cancel()
        await until(gone.done)
        go.set()
        await until(lambda: len(pen.answers) == 2)
        early.cancel()
        await until(early.done)
        for _, told in pen.answers:
            told(object())  # type: ignore[arg-type]
        body, _ = await patient
        assert b'"label":"b"' in body
        assert (gone.cancelled(), early.cancelled()) == (True, True)
        desk.batcher.close()

    asyncio.run(scene())


def test_whoever_waits_hears_of_every_fault() -> None:
    """Of the engine's thread, of the answer's own making, of the pen."""

    class Broken(Held):
        def submit(self, answer: Answer, told: Told) -> None:
            raise RuntimeError("no pen")

    async def scene() -> None:
        for pen, wrong in ((Held(), "labels"), (Broken(), "pen")):
            desk = desk_of(pen, 1)
            if wrong == "labels":
                desk.engine.labels = ()  # type: ignore[misc]
            with pytest.raises((IndexError, RuntimeError)):
                await asks(desk, 1)[0]
            desk.batcher.close()
        desk = desk_of(Held(), 1)
        object.__setattr__(desk, "request_s", 0.0)
        with pytest.raises(TimedOut):
            await asks(desk, 1)[0]
        desk.batcher.close()

    asyncio.run(scene())


def test_the_loop_wakes_once_for_all_that_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was cancelled is left out, and what comes later wakes it again."""

    async def scene() -> None:
        loop, courier, woken = asyncio.get_running_loop(), Courier(), list[Any]()
        true = loop.call_soon_threadsafe
        monkeypatch.setattr(loop, "call_soon_threadsafe", lambda each: woken.append(true(each)))
        for turn in (1, 2):
            futures: list[asyncio.Future[int]] = [loop.create_future() for _ in range(5)]
            futures[3].cancel()
            for at, future in enumerate(futures):
                courier.bring(future, at)
            assert len(woken) == turn
            del futures[3]
            assert await asyncio.gather(*futures) == [0, 1, 2, 4]

    asyncio.run(scene())


def test_a_loop_that_has_ended_is_nobodys_fault() -> None:
    async def one() -> asyncio.Future[int]:
        return asyncio.get_running_loop().create_future()

    Courier().bring(asyncio.run(one()), 1)
