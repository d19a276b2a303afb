"""The privacy ledger spends once per round, before noise, and refuses whenever it cannot prove what was spent."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from ledger.crash import Point
from ledger.privacy import INFINITE_MICRO, Spend, epsilon_micro
from node.privacy_ledger import (
    DATABASE,
    GUARD,
    BudgetExhausted,
    LedgerBehind,
    LedgerDamaged,
    LedgerMissing,
    PrivacyLedger,
    RoundKey,
)

DELTA = Fraction(1, 100_000)
SPEND = Spend(noise_units=1448, clip_units=1024, groups=2, sample_threshold=1 << 29, steps=4, coordinates=100)
CAP = 10_000_000

Booking = Callable[..., int]


def key(number: int, config: int = 7) -> RoundKey:
    return RoundKey(31337, bytes(20), number, bytes([config]) * 32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    PrivacyLedger.create(tmp_path / "state")
    return tmp_path / "state"


def book(folder: Path, number: int, *, cap: int = CAP, chain: int = 0, config: int = 7, spend: Spend = SPEND) -> int:
    return PrivacyLedger(folder).reserve(key(number, config), spend, DELTA, cap, chain)


CHILD = """
import sys
from fractions import Fraction
from pathlib import Path
from ledger.privacy import Spend
from node.privacy_ledger import PrivacyLedger, RoundKey
import resource
if sys.argv[3] != "0":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
spend = Spend(1448, 1024, 2, 1 << 29, 4, 100)
key = RoundKey(31337, bytes(20), int(sys.argv[2]), bytes([7]) * 32)
print(PrivacyLedger(Path(sys.argv[1])).reserve(key, spend, Fraction(1, 100_000), 10_000_000, 0))
"""


def child(folder: Path, number: int, *, file_bytes: int = 0, crash_at: str = "") -> subprocess.CompletedProcess[str]:
    """The same booking in a process of its own, which may be killed or may find the disk full."""
    command = [sys.executable, "-c", CHILD, str(folder), str(number), str(file_bytes)]
    environment = dict(os.environ) | ({"CANDOR_CRASH_AT": crash_at} if crash_at else {})
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_rounds_compose_and_are_remembered_after_a_restart(folder: Path) -> None:
    assert book(folder, 1) == epsilon_micro([SPEND], DELTA)
    assert book(folder, 2) == epsilon_micro([SPEND] * 2, DELTA)
    assert PrivacyLedger(folder).history() == [SPEND, SPEND]


def test_the_same_round_is_booked_once(folder: Path) -> None:
    first = book(folder, 1)
    assert book(folder, 1, chain=first) == first
    assert len(PrivacyLedger(folder).history()) == 1


def test_another_config_for_the_same_round_is_another_spend(folder: Path) -> None:
    assert book(folder, 1, config=8) < book(folder, 1, config=9)


def test_creating_again_keeps_what_was_booked(folder: Path) -> None:
    book(folder, 1)
    assert PrivacyLedger.create(folder).history() == [SPEND]


def test_a_round_over_the_cap_is_refused_and_not_booked(folder: Path) -> None:
    with pytest.raises(BudgetExhausted, match="the cap is"):
        book(folder, 1, cap=epsilon_micro([SPEND], DELTA) - 1)
    assert PrivacyLedger(folder).history() == []


def test_a_cap_lowered_after_booking_stops_the_round_as_well(folder: Path) -> None:
    spent = book(folder, 1)
    with pytest.raises(BudgetExhausted):
        book(folder, 1, cap=spent - 1)


def test_without_noise_everything_is_spent_and_needs_an_infinite_cap(folder: Path) -> None:
    bare = replace(SPEND, noise_units=0)
    with pytest.raises(BudgetExhausted, match="∞"):
        book(folder, 1, spend=bare)
    assert book(folder, 1, spend=bare, cap=INFINITE_MICRO) == INFINITE_MICRO
    with pytest.raises(BudgetExhausted):
        book(folder, 2)


def test_the_chain_knowing_more_than_the_ledger_is_refused(folder: Path) -> None:
    spent = book(folder, 1)
    with pytest.raises(LedgerBehind, match="chain says"):
        book(folder, 2, chain=spent + 1)
    assert len(PrivacyLedger(folder).history()) == 1


def test_a_restored_copy_of_the_whole_folder_is_caught_by_the_chain(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "old")
    spent = book(folder, 1)
    with pytest.raises(LedgerBehind):
        book(tmp_path / "old", 2, chain=spent)


def test_a_restored_copy_of_the_database_is_caught_by_the_guard(folder: Path, tmp_path: Path) -> None:
    book(folder, 1)
    shutil.copy(folder / DATABASE, tmp_path / "old")
    book(folder, 2)
    shutil.copy(tmp_path / "old", folder / DATABASE)
    with pytest.raises(LedgerDamaged, match="older than its guard"):
        book(folder, 3)


def test_a_lost_database_is_refused_and_not_made_anew(folder: Path) -> None:
    book(folder, 1)
    (folder / DATABASE).unlink()
    for attempt in (lambda: PrivacyLedger(folder), lambda: PrivacyLedger.create(folder)):
        with pytest.raises(LedgerMissing, match="1 rounds were booked"):
            attempt()
    assert not (folder / DATABASE).exists()


def test_a_lost_guard_is_refused_once_anything_was_booked(folder: Path) -> None:
    book(folder, 1)
    (folder / GUARD).unlink()
    with pytest.raises(LedgerMissing, match="candor-node init"):
        PrivacyLedger(folder)
    with pytest.raises(LedgerMissing, match="not empty"):
        PrivacyLedger.create(folder)


def test_a_folder_that_was_never_prepared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerMissing):
        PrivacyLedger(tmp_path / "nowhere")
    with pytest.raises(LedgerMissing, match="candor-node init"):
        PrivacyLedger(tmp_path)


def test_a_crash_while_creating_is_taken_up(folder: Path) -> None:
    (folder / GUARD).unlink()
    assert PrivacyLedger.create(folder).history() == []


@pytest.mark.parametrize("kind", ["TEXT", "BLOB"])
def test_an_altered_reservation_is_refused(folder: Path, kind: str) -> None:
    book(folder, 1)
    with sqlite3.connect(folder / DATABASE) as database:
        database.execute(f"UPDATE spends SET record = CAST(replace(record, '1448', '9448') AS {kind})")
    database.close()
    with pytest.raises(LedgerDamaged, match="was altered"):
        PrivacyLedger(folder)


def test_a_removed_last_reservation_is_refused(folder: Path) -> None:
    book(folder, 1)
    with sqlite3.connect(folder / DATABASE) as database:
        database.execute("DELETE FROM spends")
    database.close()
    with pytest.raises(LedgerDamaged, match="older than its guard"):
        PrivacyLedger(folder)


@pytest.mark.parametrize("damage", [b"", b"not a database", None])
def test_a_corrupt_database_is_refused(folder: Path, damage: bytes | None) -> None:
    book(folder, 1)
    data = (folder / DATABASE).read_bytes()
    (folder / DATABASE).write_bytes(data[: len(data) // 2] if damage is None else damage)
    with pytest.raises(LedgerDamaged):
        PrivacyLedger(folder)


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"id":1}', b'{"count":"x","head":"","id":""}'])
def test_a_corrupt_guard_is_refused(folder: Path, damage: bytes) -> None:
    (folder / GUARD).write_bytes(damage)
    with pytest.raises(LedgerDamaged, match="cannot be read"):
        PrivacyLedger(folder)


def test_a_guard_of_another_ledger_is_refused(folder: Path, tmp_path: Path) -> None:
    PrivacyLedger.create(tmp_path / "other")
    shutil.copy(tmp_path / "other" / GUARD, folder / GUARD)
    with pytest.raises(LedgerDamaged, match="two different ledgers"):
        PrivacyLedger(folder)


def test_a_kill_right_after_booking_books_once(folder: Path) -> None:
    """The database is one ahead of its guard then: the next start repairs it and returns the same number."""
    assert child(folder, 1, crash_at=Point.NODE_BUDGET.value).returncode == -signal.SIGKILL
    assert PrivacyLedger(folder).history() == [SPEND]
    assert book(folder, 1) == epsilon_micro([SPEND], DELTA)
    assert len(PrivacyLedger(folder).history()) == 1


def test_a_guard_two_behind_is_a_rollback_not_a_crash(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / GUARD, tmp_path / "old")
    book(folder, 1)
    book(folder, 2)
    shutil.copy(tmp_path / "old", folder / GUARD)
    with pytest.raises(LedgerDamaged, match="older than its database"):
        PrivacyLedger(folder)


def test_a_full_disk_refuses_before_noise_and_books_nothing(folder: Path) -> None:
    """The child may not write files beyond 1 KiB, as on a full disk."""
    result = child(folder, 1, file_bytes=1024)
    assert result.returncode != 0
    assert "LedgerDamaged" in result.stderr
    assert PrivacyLedger(folder).history() == []
    assert book(folder, 1) == epsilon_micro([SPEND], DELTA)


def test_two_processes_cannot_book_past_the_cap_together(folder: Path) -> None:
    """Four rounds at once, of which the cap of 10 allows some: each booking sees all those before it."""
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda number: child(folder, number), (1, 2, 3)))
    found = sorted(int(result.stdout) for result in results)
    assert found == [epsilon_micro([SPEND] * n, DELTA) for n in (1, 2, 3)]


def test_refusals_carry_no_secret_and_say_what_to_do(folder: Path) -> None:
    (folder / GUARD).write_bytes(b"")
    with pytest.raises(LedgerDamaged, match="remedy"):
        PrivacyLedger(folder)
