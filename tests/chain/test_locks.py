"""Locks between processes: one daemon for a key, and turns at what a machine can do once at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ledger.locks import KeyInUse, KeyLock, lock_folder, turn
from proofs.errors import LocalFault


def test_the_lock_holds_between_processes_and_dies_with_them(tmp_path: Path) -> None:
    address = "ab" * 20
    hold = (
        "import sys, time; from pathlib import Path; from ledger.locks import KeyLock; "
        f"KeyLock(1, bytes.fromhex('{address}'), Path({str(tmp_path)!r})); print('held', flush=True); time.sleep(60)"
    )
    program = hold.replace("KeyLock(1", "lock = KeyLock(1", 1)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(KeyInUse, match=str(process.pid)):
            KeyLock(1, bytes.fromhex(address), tmp_path)
        process.kill()
    KeyLock(1, bytes.fromhex(address), tmp_path).release()


def test_processes_that_name_one_file_take_turns_and_a_dead_one_keeps_nobody_waiting(tmp_path: Path) -> None:
    path, told = tmp_path / "turns", []

    def waiting() -> None:
        told.append("waiting")
        process.kill()

    hold = (
        "import time; from pathlib import Path; from ledger.locks import turn\n"
        f"with turn(Path({str(path)!r}), lambda: None): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with turn(path, waiting):
            assert told == ["waiting"]
    with turn(path, waiting), turn(None, waiting), turn(tmp_path / "others", waiting):
        assert told == ["waiting"], "who is alone, or has no file, never waits"
    with pytest.raises(LocalFault, match="name another file for turns"), turn(tmp_path / "no" / "folder", waiting):
        pass


def test_who_waits_for_a_turn_may_give_up(tmp_path: Path) -> None:
    def late() -> None:
        raise LocalFault("the deadline passed")

    with turn(tmp_path / "turns", late), pytest.raises(LocalFault, match="deadline"), turn(tmp_path / "turns", late):
        pass


def test_locks_lie_where_all_processes_of_a_user_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert lock_folder().parent == tmp_path
    assert lock_folder().stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "file"))
    with pytest.raises(LocalFault, match="XDG_RUNTIME_DIR"):
        lock_folder()
