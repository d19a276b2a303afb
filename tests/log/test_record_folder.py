"""Sealed records in files of sixteen: what was put is there, whatever a crash or a full disk left behind it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.crash import Point
from ledger.database import StorageFault
from ledger.log.journal import LogDamaged
from ledger.log.record_folder import RecordFolder
from ledger.log.tiles import RECORDS, encode_records, records_path


def sealed(first: int, count: int, seed: int = 0) -> list[bytes]:
    return [b"record %d of %d" % (at, seed) * (1 + at % 3) for at in range(first, first + count)]


def all_of(records: RecordFolder, size: int) -> list[bytes]:
    return [each for index in range(-(-size // RECORDS)) for each in records.get(index, size)]


@pytest.fixture
def records(tmp_path: Path) -> Iterator[RecordFolder]:
    opened = RecordFolder(tmp_path)
    yield opened
    opened.close()


@pytest.mark.parametrize("groups", [(1,) * 20, (16, 16), (5, 40, 3), (64,)])
def test_records_are_there_in_order_however_they_came(records: RecordFolder, groups: tuple[int, ...]) -> None:
    size = 0
    for count in groups:
        records.put(size, sealed(size, count))
        size += count
        assert all_of(records, size) == sealed(0, size)
    files = sorted(path.name for path in (records.folder / "records").iterdir())
    assert files == [f"{index:03d}" for index in range(-(-size // RECORDS))]
    assert records.get(0, 3) == sealed(0, 3), "those of a smaller log"
    assert records.get(99, 99 * RECORDS + 1) == []


@settings(max_examples=40, deadline=None)
@given(size=st.integers(0, 40), left=st.binary(max_size=60), more=st.integers(1, 40), beyond=st.booleans())
def test_what_a_crash_left_behind_is_cut_off(
    tmp_path_factory: pytest.TempPathFactory, size: int, left: bytes, more: int, beyond: bool
) -> None:
    """Half a record or several whole ones, in the file of the last entry and in the next one; a fresh process goes on
    from the entries that there are."""
    folder = tmp_path_factory.mktemp("log")
    before = RecordFolder(folder)
    before.put(0, sealed(0, size))
    before.close()
    (folder / "records").mkdir(exist_ok=True)
    for index in (size // RECORDS, *[size // RECORDS + 1] * beyond):
        with (folder / records_path(index)).open("ab") as file:
            file.write(encode_records([b"of no entry"]) + left)
    again = RecordFolder(folder)
    assert all_of(again, size) == sealed(0, size)
    again.put(size, sealed(size, more, 1))
    again.close()
    assert all_of(again, size + more) == sealed(0, size) + sealed(size, more, 1)
    last = (size + more - 1) // RECORDS
    expected = encode_records(again.get(last, size + more))
    assert (folder / records_path(last)).read_bytes() == expected, "nothing is behind them"


@pytest.mark.parametrize("where", ["os.pwrite", "os.ftruncate", "os.open"])
def test_a_group_that_the_disk_refuses_is_put_again(
    records: RecordFolder, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """At its first file, at its second: what was put before stays, and the same indices are taken again."""

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    records.put(0, sealed(0, 10))
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(where, full)
            with pytest.raises(StorageFault):
                records.put(10, sealed(10, 20, 1))
        assert all_of(records, 10) == sealed(0, 10)
    records.put(10, sealed(10, 20, 2))
    assert all_of(records, 30) == sealed(0, 10) + sealed(10, 20, 2)


def test_an_entry_that_was_refused_leaves_its_place_to_the_next(records: RecordFolder) -> None:
    """The records were written, the entries were not: the same indices come again."""
    for seed in range(3):
        records.put(12, sealed(12, 9, seed)) if seed else records.put(0, sealed(0, 21))
    assert all_of(records, 21) == sealed(0, 12) + sealed(12, 9, 2)


def test_nothing_is_written_behind_records_that_are_gone(records: RecordFolder) -> None:
    records.put(0, sealed(0, 5))
    path = records.folder / records_path(0)
    for left in (path.read_bytes()[:-1], b"", None):
        records.close()
        path.unlink() if left is None else path.write_bytes(left)
        with pytest.raises(LogDamaged, match="restore it"):
            records.put(5, sealed(5, 1))


def test_a_sync_reaches_every_file_and_their_folder_once(
    records: RecordFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    points: list[Point] = []
    monkeypatch.setattr("os.fsync", lambda file: synced.append(os.readlink(f"/proc/self/fd/{file}")))
    monkeypatch.setattr("ledger.log.record_folder.reached", points.append)
    records.put(0, sealed(0, 40))
    synced.clear()  # the new folder's name
    for expected in (["", "000", "001", "002"], []):
        records.sync()
        assert [path.removeprefix(f"{records.folder}/records").lstrip("/") for path in synced] == expected
        synced.clear()
    assert points == [Point.LOG_RECORDS]
    records.put(40, sealed(40, 1))
    records.sync()
    assert len(synced) == 2


def test_after_a_failed_fsync_no_sync_succeeds(records: RecordFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may have dropped the pages and called them clean."""

    def fails(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    records.put(0, sealed(0, 5))
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fails)
        with pytest.raises(StorageFault):
            records.sync()
    with pytest.raises(StorageFault, match="start again"):
        records.sync()
