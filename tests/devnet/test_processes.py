"""Nothing that the devnet starts outlives it, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from devnet.processes import ProcessDied, Supervisor
from devnet.watchdog import watch
from proofs.errors import LocalFault

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
DEAF = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]


def gone(pid: int, within_s: float = 20) -> bool:
    """True once no such process runs (one that only waits to be reaped has ended)."""
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.02)
    return False


def wait_for(log: Path) -> None:
    ends = time.monotonic() + 30
    while "up" not in log.read_text() and time.monotonic() < ends:
        time.sleep(0.02)


def test_leaving_the_context_ends_every_process(tmp_path: Path) -> None:
    with Supervisor() as supervisor:
        children = [supervisor.start(name, SLEEP, tmp_path / name) for name in ("one", "two")]
        assert all(child.exit_status is None for child in children)
    assert all(child.exit_status == -signal.SIGTERM for child in children)


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devnet.processes.STOP_TIMEOUT_S", 0.2)
    with Supervisor() as supervisor:
        child = supervisor.start("deaf", DEAF, tmp_path / "log")
        wait_for(child.log)
    assert child.exit_status == -signal.SIGKILL


def test_an_error_inside_ends_every_process_too(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="oops"), Supervisor() as supervisor:  # noqa: PT012
        child = supervisor.start("one", SLEEP, tmp_path / "log")
        raise RuntimeError("oops")
    assert child.exit_status is not None


def test_a_process_that_died_by_itself_is_reported_with_its_log(tmp_path: Path) -> None:
    with Supervisor() as supervisor:
        child = supervisor.start("short", [sys.executable, "-c", "print('why'); raise SystemExit(3)"], tmp_path / "log")
        child.process.wait()
        with pytest.raises(ProcessDied, match=r"(?s)short ended with status 3.*why"):
            supervisor.check()


def test_a_name_runs_once_at_a_time_and_may_be_started_again(tmp_path: Path) -> None:
    with Supervisor() as supervisor:
        first = supervisor.start("one", SLEEP, tmp_path / "log")
        with pytest.raises(LocalFault, match="running already"):
            supervisor.start("one", SLEEP, tmp_path / "log")
        supervisor.kill("one")
        assert first.exit_status == -signal.SIGKILL
        assert supervisor.start("one", SLEEP, tmp_path / "log").exit_status is None


@pytest.mark.parametrize("blow", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_killing_the_devnet_itself_leaves_nothing_running(blow: signal.Signals, tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from devnet.processes import Supervisor\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "with Supervisor() as supervisor:\n"
        "    child = supervisor.start('one', sleep, Path(sys.argv[1]))\n"
        "    print(child.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    devnet = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True)
    with devnet:
        assert devnet.stdout is not None
        pid = int(devnet.stdout.readline())
        devnet.send_signal(blow)
        devnet.wait()
    assert gone(pid)


def test_the_watchdog_knows_who_is_left() -> None:
    assert watch(["+10\n", "+11\n", "-10\n", "nonsense\n", "+\n"]) == {11}
