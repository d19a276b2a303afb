"""The log on a disk: what was promised is there after any crash, what was not is cut, and what has changed is found."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from ledger.crash import Point
from ledger.database import StorageFault
from ledger.log.journal import Frame, Journal, LogDamaged, decode_frames
from ledger.log.store import LogInUse, LogStore
from ledger.log.tiles import RECORDS, encode_records, framed, records_path
from proofs.errors import LocalFault
from proofs.merkle import check_consistency, check_inclusion, leaf_hash, root

LOG_POINTS = [point for point in Point if point.name.startswith("LOG_") and point is not Point.LOG_SIGNED]


def entries_of(size: int, first: int = 0) -> list[bytes]:
    return [b"entry %d" % number for number in range(first, first + size)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LogStore]:
    opened = LogStore(tmp_path / "log")
    yield opened
    opened.close()


def records_of(size: int, first: int = 0) -> list[bytes]:
    return [b"record %d" % number for number in range(first, first + size)]


def records_in(store: LogStore, first: int, last: int) -> list[bytes]:
    """Of the entries from `first` to before `last`, as readers find them."""
    files = [store.records(index, last) for index in range(first // RECORDS, -(-last // RECORDS))]
    return [record for file in files for record in file][first % RECORDS :]


def grown(folder: Path, size: int, step: int = 97) -> LogStore:
    """With no records but those beside which the next one goes."""
    if size % RECORDS:
        path = folder / records_path(size // RECORDS)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_records(records_of(size % RECORDS, size - size % RECORDS)))
    store = LogStore(folder)
    for first in range(0, size, step):
        store.append(entries_of(min(step, size - first), first))
    return store


# ------------------------------------------------------------------------------------------------------------ appending


@pytest.mark.parametrize("step", [1, 7, 256, 300, 1000])
def test_a_log_has_the_root_of_its_entries_and_keeps_it(tmp_path: Path, step: int) -> None:
    store = grown(tmp_path, 1000, step)
    assert (store.size, store.root()) == (1000, root(entries_of(1000)))
    store.close()
    again = LogStore(tmp_path)
    assert (again.size, again.root(), again.cut_bytes) == (1000, root(entries_of(1000)), 0)
    assert again.append([b"next"]) == 1000
    again.close()


def test_a_log_across_three_levels_of_tiles(tmp_path: Path, almost_two_levels: Path) -> None:
    """65,536 entries fill a tile of level 1: the rows above it are read back too."""
    shutil.copytree(almost_two_levels, tmp_path, dirs_exist_ok=True)
    entries = entries_of(66_100)
    store = LogStore(tmp_path)
    store.append(entries[store.size :])
    store.close()
    store = LogStore(tmp_path)
    assert (store.size, store.root()) == (len(entries), root(entries))
    tree = store.tree()
    for index in (0, 65_535, 65_536, 66_099):
        check_inclusion(leaf_hash(entries[index]), index, tree.size, tree.inclusion(index), store.root())
        assert tree.entry(index) == entries[index]
    check_consistency(65_000, root(entries[:65_000]), tree.size, store.root(), tree.consistency(65_000))
    assert (tmp_path / "tile/1/000").stat().st_size == 8192
    store.close()


def test_every_old_size_can_still_be_proven(tmp_path: Path) -> None:
    store, entries = grown(tmp_path, 530), entries_of(530)
    for old in (1, 255, 256, 257, 511, 529):
        tree = store.tree(old)
        assert tree.root() == root(entries[:old])
        check_consistency(old, tree.root(), 530, store.root(), store.tree().consistency(old))
    store.close()


def test_an_entry_too_long_for_a_bundle_is_refused_before_anything_is_written(store: LogStore) -> None:
    with pytest.raises(LocalFault):
        store.append([b"good", bytes(1 << 16)])
    assert store.size == 0
    assert store.append([bytes(65_535)]) == 0


def test_a_log_has_one_writer(store: LogStore) -> None:
    with pytest.raises(LogInUse):
        LogStore(store.folder)
    store.close()
    LogStore(store.folder).close()


def test_published_files_are_the_whole_log(tmp_path: Path) -> None:
    """A reader with nothing but the folder's files and the root finds the same log."""
    from ledger.log.tree import TileTree, fsck

    store = grown(tmp_path, 530)
    paths = {tile.path for tile in store.publish()}
    files = {path: (tmp_path / path).read_bytes() for path in paths}
    assert TileTree(files.get, 530).root() == store.root()
    assert list(fsck(files.get, 530, {530: store.root()})) == []
    assert paths == {str(path.relative_to(tmp_path)) for path in (tmp_path / "tile").rglob("*") if path.is_file()}
    store.append([b"more"])
    assert TileTree(files.get, 530).root() == store.tree(530).root()
    store.close()


# -------------------------------------------------------------------------------------------------------------- crashes

GROW = """
import sys
from pathlib import Path
from ledger.log.store import LogStore
store = LogStore(Path(sys.argv[1]))
while store.size < int(sys.argv[2]):
    first = store.append([b"entry %d" % store.size], [b"record %d" % store.size])
    print(first, flush=True)  # the answer
store.publish()
"""
SHOWN = GROW.replace("    print", "    store.records(first // 16, store.size)\n    print")


def run(folder: Path, size: int, crash_at: Point | None = None, script: str = GROW) -> tuple[int, int]:
    """Exit status, and how many answers were sent."""
    environment = {**os.environ, "CANDOR_CRASH_AT": crash_at.value if crash_at else ""}
    where = Path(__file__).parent.parent.parent
    command = [sys.executable, "-c", script, str(folder), str(size)]
    done = subprocess.run(command, env=environment, cwd=where, timeout=120, stdout=subprocess.PIPE, text=True)
    return done.returncode, len(done.stdout.splitlines())


@pytest.fixture(scope="module")
def almost_two_levels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log to which one entry is missing for a full tile at two levels; for copying."""
    folder = tmp_path_factory.mktemp("prepared") / "log"
    grown(folder, 65_535, 4096).close()
    return folder


@pytest.mark.parametrize("before", [0, 255, 65_535], ids=["empty", "one bundle filled", "two levels of tiles filled"])
@pytest.mark.parametrize("point", LOG_POINTS)
def test_a_kill_loses_no_answered_entry(tmp_path: Path, almost_two_levels: Path, point: Point, before: int) -> None:
    """Killed at the point, opened again: every entry that was answered is at its place with its record, and the log
    goes on."""
    if before == 65_535:
        shutil.copytree(almost_two_levels, tmp_path, dirs_exist_ok=True)
    else:
        grown(tmp_path, before).close()
    status, answers = run(tmp_path, 257 if before == 0 else before + 1, point)
    assert status == -signal.SIGKILL
    store = LogStore(tmp_path)
    size = store.size
    assert before + answers <= size <= before + answers + 1
    assert store.root() == root(entries_of(size))
    assert records_in(store, before, size) == records_of(size - before, before)
    assert list(store.fsck({size: store.root()})) == []
    store.append(entries_of(600, size), records_of(600, size))
    assert records_in(store, before, size + 600) == records_of(size + 600 - before, before)
    assert store.root() == root(entries_of(size + 600))
    assert list(store.fsck()) == []
    store.close()


@pytest.mark.parametrize("point", [Point.LOG_TILE, Point.LOG_BUNDLE])
@pytest.mark.parametrize("left", ["nothing", "half", "zeros"])
def test_records_that_never_reached_their_files_come_back_from_the_journal(
    tmp_path: Path, point: Point, left: str
) -> None:
    """Readers were shown them; before their files are fsynced, a power cut may take all of them, or what is in them."""
    status, size = run(tmp_path, 256, point, SHOWN)
    assert (status, size) == (-signal.SIGKILL, 255)
    size = 256
    for path in sorted((tmp_path / "records").iterdir()):
        whole = path.read_bytes()
        path.write_bytes({"nothing": b"", "half": whole[: len(whole) // 2], "zeros": bytes(len(whole))}[left])
    if left == "nothing":
        shutil.rmtree(tmp_path / "records")
    for _ in range(2):
        store = LogStore(tmp_path)
        assert records_in(store, 0, size) == records_of(size)
        store.close()


def test_the_journal_gives_up_no_record_before_its_file_is_durable(
    store: LogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    durable = os.fsync

    def follow(file: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{file}").removeprefix(f"{store.folder}/"))
        durable(file)

    monkeypatch.setattr("os.fsync", follow)
    store.append(entries_of(250), records_of(250))
    store.append(entries_of(10, 250), records_of(10, 250))
    files = [f"records/{index:03d}" for index in range(17)]
    assert [path for path in synced if path.startswith("records/")] == files
    assert "journal.new" not in synced[: synced.index(files[-1])]
    assert synced[-2:] == ["journal.new", str(store.folder)]
    assert Journal(store.folder / "journal").frames[0].records == ()


def test_a_long_journal_is_cut_before_its_bundle_is_full(store: LogStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large records do not pile up in it."""
    monkeypatch.setattr("ledger.log.store.MAX_JOURNAL_BYTES", 20_000)
    large = [bytes([number]) * 9_000 for number in range(8)]
    for number, record in enumerate(large):
        store.append(entries_of(1, number), [record])
        assert (store.folder / "journal").stat().st_size < 20_000
    assert records_in(store, 0, 8) == large
    assert list(store.fsck()) == []
    store.close()
    again = LogStore(store.folder)
    assert (again.root(), records_in(again, 0, 8)) == (root(entries_of(8)), large)
    again.close()


def test_nothing_is_promised_behind_records_that_are_gone(tmp_path: Path) -> None:
    store = LogStore(tmp_path)
    store.append(entries_of(260), records_of(260))
    store.close()
    (tmp_path / records_path(16)).unlink()
    store = LogStore(tmp_path)
    for _ in range(2):
        with pytest.raises(LogDamaged, match="restore it"):
            store.append([b"entry 260"], [b"record 260"])
    assert store.size == 260
    store.close()


def test_a_disk_too_full_for_files_of_records_refuses_readers_and_keeps_them(
    store: LogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.append(entries_of(3), records_of(3))

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("ledger.log.record_folder.write_all", full)
        for _ in range(2):
            with pytest.raises(StorageFault, match="free some space"):
                store.records(0, 3)
        store.append(entries_of(2, 3), records_of(2, 3))
    assert records_in(store, 0, 5) == records_of(5)


def test_records_that_are_gone_are_noticed_at_the_opening(tmp_path: Path) -> None:
    """Those of the journal begin in the middle of a file: those before them were durable."""
    store = LogStore(tmp_path)
    store.append(entries_of(258), records_of(258))
    store.append(entries_of(2, 258), records_of(2, 258))
    store.close()
    (tmp_path / records_path(16)).unlink()
    with pytest.raises(LogDamaged, match="restore it"):
        LogStore(tmp_path)


def test_a_torn_last_frame_is_cut_at_whatever_byte_it_ends(tmp_path: Path) -> None:
    grown(tmp_path, 20, 5).close()
    journal = tmp_path / "journal"
    whole = journal.read_bytes()
    torn = Frame(20, (b"never answered", b"nor this"), (b"nor its record", b"nor its")).encode()
    tails = [torn[:length] for length in range(len(torn))]
    tails += [torn[:-32] + bytes(32), torn[:40] + bytes(len(torn) - 40), bytes(len(torn)), bytes(4096)]
    for tail in tails:
        journal.write_bytes(whole + tail)
        store = LogStore(tmp_path)
        assert (store.size, store.cut_bytes) == (20, len(tail))
        store.close()
        assert journal.read_bytes() == whole
    journal.write_bytes(whole + torn)
    store = LogStore(tmp_path)
    assert store.size == 22
    store.close()


@pytest.mark.parametrize("frame", [0, 1, 2])
def test_a_changed_bit_in_the_journal_is_never_taken_for_a_torn_write(tmp_path: Path, frame: int) -> None:
    """It may be a promised entry: no byte of it may be cut off in silence, in the last frame neither."""
    store = LogStore(tmp_path)
    for first in (0, 2, 4):
        store.append(entries_of(2, first), records_of(2, first))
    store.close()
    journal = tmp_path / "journal"
    whole = journal.read_bytes()
    start = len(whole) // 3 * frame
    for place in range(start, start + len(whole) // 3):
        changed = bytearray(whole)
        changed[place] ^= 0x10
        journal.write_bytes(changed)
        with pytest.raises(LogDamaged):
            LogStore(tmp_path)
        assert journal.read_bytes() == changed
    journal.write_bytes(whole)
    LogStore(tmp_path).close()


def test_a_frame_has_one_record_for_each_entry_or_none() -> None:
    for records in ((), (b"", b"record")):
        frame = Frame(7, (b"a", b""), records)
        assert decode_frames(frame.encode(), "journal") == ([frame], len(frame.encode()))
    with pytest.raises(LocalFault, match="1 records beside 2 entries"):
        Frame(7, (b"a", b""), (b"record",)).encode()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        framed(b"a"),
        framed(b"a") + framed(b"b") + b"x",
        framed(b"a") + framed(b"b") + encode_records([b"one"]),
        framed(b"a") + framed(b"b") + encode_records([b"one", b"two", b"three"]),
        framed(b"a") + framed(b"b") + encode_records([b"one", b"two"])[:-1],
    ],
)
def test_a_frame_of_other_parts_is_damage_though_its_digest_fits(payload: bytes) -> None:
    head = len(payload).to_bytes(4) + bytes(8) + (2).to_bytes(2)
    body = head + sha256(b"candor/frame/1" + head).digest()[:4] + payload
    with pytest.raises(LogDamaged, match="a frame of 2 entries"):
        decode_frames(body + sha256(body).digest(), "journal")


def test_frames_that_do_not_follow_each_other_are_damage() -> None:
    one, two = Frame(0, (b"a", b"b")), Frame(3, (b"c",))
    with pytest.raises(LogDamaged):
        decode_frames(one.encode() + two.encode(), "journal")
    assert decode_frames(one.encode() + Frame(2, (b"c",)).encode(), "journal")[0][1].end == 3


def test_a_lost_bundle_tile_or_journal_is_noticed_at_the_opening(tmp_path: Path) -> None:
    store = grown(tmp_path, 600)
    store.close()
    for path in ("tile/entries/000", "tile/entries/001", "tile/0/000", "tile/0/001"):
        (tmp_path / path).rename(tmp_path / "aside")
        with pytest.raises(LogDamaged):
            LogStore(tmp_path)
        (tmp_path / "aside").rename(tmp_path / path)
    (tmp_path / "journal").rename(tmp_path / "aside")
    with pytest.raises(LogDamaged, match="512 entries, and 600 are known elsewhere"):
        LogStore(tmp_path, at_least=600)
    (tmp_path / "aside").rename(tmp_path / "journal")
    LogStore(tmp_path, at_least=600).close()


def test_a_lost_bundle_is_noticed_with_an_empty_journal_too(tmp_path: Path) -> None:
    """Exactly two bundles: nothing else remembers how many entries there were, but the tiles above them."""
    grown(tmp_path, 512, 256).close()
    assert (tmp_path / "journal").stat().st_size == 0
    for path in ("tile/entries/000", "tile/entries/001"):
        (tmp_path / path).rename(tmp_path / "aside")
        with pytest.raises(LogDamaged, match="is gone"):
            LogStore(tmp_path)
        (tmp_path / "aside").rename(tmp_path / path)
    LogStore(tmp_path).close()


def test_a_changed_bit_on_the_disk_is_found_by_fsck(tmp_path: Path) -> None:
    store = grown(tmp_path, 600)
    roots = {300: root(entries_of(300)), 600: root(entries_of(600))}
    assert list(store.fsck(roots)) == []
    for path in ("tile/entries/000", "tile/entries/001", "tile/0/000", "tile/0/001", "journal"):
        good = (tmp_path / path).read_bytes()
        changed = bytearray(good)
        changed[len(good) // 2] ^= 1
        (tmp_path / path).write_bytes(changed)
        assert {flaw.path for flaw in store.fsck(roots)} - {""}, path
        (tmp_path / path).write_bytes(good)
    assert [flaw.path for flaw in store.fsck({600: bytes(32)})] == [""]
    store.close()


# ----------------------------------------------------------------------------------------------------- disk full, dying

FULL = """
import resource, sys
from pathlib import Path
from ledger.database import StorageFault
from ledger.log.store import LogStore
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = LogStore(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
answers = 0
while True:
    try:
        store.append([b"entry %d" % store.size])
    except StorageFault as error:
        print(answers, store.size)
        break
    answers += 1
"""


@pytest.mark.parametrize("limit", [0, 100, 5000, 8000])
def test_a_disk_that_fills_up_takes_no_more_and_keeps_what_was_answered(tmp_path: Path, limit: int) -> None:
    """At any file's size: in the middle of a frame, or (8,000) of the first full tile."""
    where = Path(__file__).parent.parent.parent
    command = [sys.executable, "-c", FULL, str(tmp_path), str(limit)]
    done = subprocess.run(command, cwd=where, timeout=120, stdout=subprocess.PIPE, text=True, check=True)
    answers, size = map(int, done.stdout.split())
    assert answers == size
    store = LogStore(tmp_path)
    assert (store.size, store.root()) == (answers, root(entries_of(answers)))
    assert store.cut_bytes == 0
    store.append(entries_of(300, answers))
    assert store.root() == root(entries_of(answers + 300))
    store.close()


def test_room_again_and_the_same_process_goes_on(store: LogStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.append(entries_of(255))

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("ledger.log.journal.os.replace", full)
        assert store.append([b"entry 255"]) == 255  # durable in the journal: it is promised
        with pytest.raises(StorageFault):
            store.append([b"entry 256"])  # but no second bundle is begun
        with pytest.raises(StorageFault):
            store.publish()
    with monkeypatch.context() as patch:
        patch.setattr("ledger.log.journal.os.pwrite", full)
        with pytest.raises(StorageFault, match="free some space"):
            store.append([b"entry 256"])
    assert store.append([b"entry 256"]) == 256
    assert store.root() == root(entries_of(257))
    assert list(store.fsck()) == []


def test_after_a_failed_fsync_nothing_more_is_promised(store: LogStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may have dropped the pages and called them clean: a second fsync would say that all is well."""

    def fails(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    store.append([b"entry 0"])
    with monkeypatch.context() as patch:
        patch.setattr("ledger.log.journal.os.fdatasync", fails)
        with pytest.raises(StorageFault):
            store.append([b"entry 1"])
    with pytest.raises(StorageFault, match="start again"):
        store.append([b"entry 1"])
    assert store.size == 1


def test_a_journal_replaced_on_a_dying_disk_takes_nothing_more(
    store: LogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name leads to the new file: what went into the old one would be lost."""
    calls = []

    def fails(folder: Path) -> None:
        calls.append(folder)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    store.append(entries_of(10))
    journal = store._journal
    with monkeypatch.context() as patch:
        patch.setattr("ledger.log.journal.sync_folder", fails)
        with pytest.raises(StorageFault):
            journal.restart(0, entries_of(10))
    assert calls
    with pytest.raises(StorageFault, match="being replaced"):
        store.append([b"entry 10"])
    assert Journal(store.folder / "journal").frames[0].end == 10
