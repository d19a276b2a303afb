"""The devnet's processes: each a group of its own, with its own log, and none of them outlives the devnet.

LocalFault
└── ProcessDied   a process of the federation ended by itself; the text has the end of its log
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, NoReturn, Self

from proofs.errors import LocalFault

STOP_TIMEOUT_S: Final = 10.0
LOG_TAIL_BYTES: Final = 4000
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ProcessDied(LocalFault):
    """A daemon ended although nobody asked it to."""


@dataclass(frozen=True)
class Child:
    """A running process: leader of its own group. `log` has its standard output and error."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def exit_status(self) -> int | None:
        """None while it runs; negative for the signal that killed it."""
        return self.process.poll()

    def log_tail(self) -> str:
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - LOG_TAIL_BYTES))
            return file.read().decode(errors="replace")


class Supervisor:
    """Starts and ends processes. A context: on leaving it, in any way, everything that it started has ended.

    SIGTERM and SIGHUP to the devnet become an exit through this context, as SIGINT already does; against kill -9 there
    is a watchdog process (devnet.watchdog).
    """

    def __init__(self) -> None:
        self._children: dict[str, Child] = {}
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        with contextlib.suppress(ValueError):  # not in the main thread: then its owner handles signals
            for number in SIGNALS:
                self._before[number] = signal.signal(number, _leave)
        self._watchdog = subprocess.Popen(
            [sys.executable, "-m", "devnet.watchdog"], stdin=subprocess.PIPE, start_new_session=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)
        self.stop_all()
        if self._watchdog is not None and self._watchdog.stdin is not None:
            self._watchdog.stdin.close()
            self._watchdog.wait()
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave us

    @property
    def children(self) -> tuple[Child, ...]:
        return tuple(self._children.values())

    def __getitem__(self, name: str) -> Child:
        return self._children[name]

    def start(
        self, name: str, command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None
    ) -> Child:
        """Start under `name`; a name whose process has ended may be started again, its log goes on."""
        if name in self._children:
            if self._children[name].exit_status is None:
                raise LocalFault(f"{name} is running already")
            self.release(self._children[name].pid)
        with log.open("ab") as sink:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        self.adopt(process.pid)
        self._children[name] = Child(name, process, log)
        return self._children[name]

    def adopt(self, leader: int) -> None:
        """Let the watchdog end this group too. Somebody else ends it in the ordinary way."""
        self._tell(f"+{leader}")

    def release(self, leader: int) -> None:
        self._tell(f"-{leader}")

    def stop(self, name: str) -> None:
        """SIGTERM, and SIGKILL to the group if that is not enough. Idempotent."""
        self._end([self._children[name]])

    def kill(self, name: str) -> None:
        """As a power cut would."""
        child = self._children[name]
        _signal_group(child.pid, signal.SIGKILL)
        child.process.wait()
        self.release(child.pid)

    def stop_all(self) -> None:
        self._end(list(self._children.values()))

    def check(self) -> None:
        """Raises ProcessDied if one of them has ended."""
        for child in self._children.values():
            if child.exit_status is not None:
                raise ProcessDied(f"{child.name} ended with status {child.exit_status}:\n{child.log_tail()}")

    def _end(self, children: Sequence[Child]) -> None:
        for child in children:
            if child.exit_status is None:
                child.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for child in children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.0, deadline - time.monotonic()))
            _signal_group(child.pid, signal.SIGKILL)
            child.process.wait()
            self.release(child.pid)

    def _tell(self, line: str) -> None:
        if self._watchdog is not None and self._watchdog.stdin is not None:
            with contextlib.suppress(OSError, ValueError):
                self._watchdog.stdin.write(f"{line}\n".encode())
                self._watchdog.stdin.flush()


def _signal_group(leader: int, number: int) -> None:
    """The group may be empty already; its number cannot have been reused while its leader is not waited for."""
    with contextlib.suppress(OSError):
        os.killpg(leader, number)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
