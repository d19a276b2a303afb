"""The embedded store on a disk that fills up, decays, is shared, and loses power."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from ledger.content import (
    Cid,
    ContentMissing,
    EmbeddedStore,
    Limits,
    StoreDamaged,
    StoreFull,
    StoreUnusable,
)
from ledger.content.unixfs import directory_blocks


def stored_files(path: Path) -> set[str]:
    return {file.name for file in path.rglob("*") if file.is_file()}


def test_content_survives_the_process(tmp_path: Path, bundle: dict[str, bytes], limits: Limits) -> None:
    digest = EmbeddedStore(tmp_path).put_directory(bundle)
    assert EmbeddedStore(tmp_path).get_directory(digest, limits) == bundle


@pytest.mark.parametrize("harm", ["flip", "truncate", "grow", "empty"])
def test_a_decayed_block_is_named_with_its_remedy(
    tmp_path: Path, bundle: dict[str, bytes], limits: Limits, harm: str
) -> None:
    store = EmbeddedStore(tmp_path)
    digest = store.put_directory(bundle)
    path = store.block_path(directory_blocks(bundle)[1][0].cid)
    data = path.read_bytes()
    path.write_bytes(
        {"flip": bytes([data[0] ^ 1]) + data[1:], "truncate": data[:-1], "grow": data + b"\0", "empty": b""}[harm]
    )
    with pytest.raises(StoreDamaged, match="Delete that file") as caught:
        store.get_directory(digest, limits)
    assert str(path) in str(caught.value)
    path.unlink()
    with pytest.raises(ContentMissing):
        store.get_directory(digest, limits)
    store.put_directory(bundle)
    assert store.get_directory(digest, limits) == bundle


def test_publishing_again_heals_a_decayed_block(tmp_path: Path, bundle: dict[str, bytes], limits: Limits) -> None:
    store = EmbeddedStore(tmp_path)
    digest = store.put_directory(bundle)
    store.block_path(Cid.directory(digest)).write_bytes(b"")
    store.put_directory(bundle)
    assert store.get_directory(digest, limits) == bundle


@pytest.mark.parametrize("call", ["write", "fsync", "replace", "mkdir"])
@pytest.mark.parametrize("at", [1, 3, 5])
def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, bundle: dict[str, bytes], limits: Limits, monkeypatch: pytest.MonkeyPatch, call: str, at: int
) -> None:
    store = EmbeddedStore(tmp_path)
    kept = store.put_raw(b"published before")
    fill_disk(monkeypatch, call, at)
    with pytest.raises(StoreFull, match="nothing was half written"):
        store.put_directory(bundle)
    monkeypatch.undo()
    assert list((tmp_path / "incoming").iterdir()) == []
    assert store.get_raw(kept, 100) == b"published before"
    root = directory_blocks(bundle)[0].cid
    with pytest.raises(ContentMissing, match=str(root)):
        store.get_directory(root.digest, limits)
    digest = store.put_directory(bundle)
    assert store.get_directory(digest, limits) == bundle


def fill_disk(monkeypatch: pytest.MonkeyPatch, call: str, at: int) -> None:
    """From the `at`-th call on, the operating system has no space left."""
    owner, name = {
        "write": ("ledger.content.embedded", "_write_synced"),
        "fsync": ("os", "fsync"),
        "replace": ("pathlib.Path", "replace"),
        "mkdir": ("pathlib.Path", "mkdir"),
    }[call]
    calls = 0

    def full(*_: object, **__: object) -> None:
        nonlocal calls
        calls += 1
        if calls >= at or call == "mkdir":
            if call == "write":
                Path(str(_[0])).write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(*_, **__)

    module: object = Path if owner == "pathlib.Path" else sys.modules[owner]
    original = getattr(module, name)
    monkeypatch.setattr(module, name, full)


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnusable, match="file"):
        EmbeddedStore(tmp_path / "file")


def test_leftovers_of_a_crash_are_swept_when_old_and_left_alone_when_young(tmp_path: Path) -> None:
    EmbeddedStore(tmp_path)
    old, young = tmp_path / "incoming" / "old", tmp_path / "incoming" / "young"
    for path in (old, young):
        path.write_bytes(b"half a block")
    os.utime(old, (0, 0))
    EmbeddedStore(tmp_path)
    assert stored_files(tmp_path / "incoming") == {"young"}


WRITER = """
import os, signal, sys
from ledger.content import EmbeddedStore
store = EmbeddedStore(sys.argv[1])
files = {f"f{i}": bytes([i]) * 300_000 for i in range(12)}
dies_at = int(sys.argv[2])
calls = 0
sync = os.fsync
def fsync(descriptor):
    global calls
    calls += 1
    if calls == dies_at:
        os.kill(os.getpid(), signal.SIGKILL)
    sync(descriptor)
os.fsync = fsync
print(store.put_directory(files).hex())
"""


def test_kill_at_any_write_leaves_a_complete_directory_or_none(tmp_path: Path, limits: Limits) -> None:
    """Killed before its 1st, 5th, 9th … fsync, until there are no more of them."""
    files = {f"f{i}": bytes([i]) * 300_000 for i in range(12)}
    digest = directory_blocks(files)[0].cid.digest
    deaths = 0
    for dies_at in count(1, 4):
        folder = tmp_path / str(dies_at)
        command = [sys.executable, "-c", WRITER, str(folder), str(dies_at)]
        ended = subprocess.run(command, capture_output=True, check=False).returncode
        store = EmbeddedStore(folder)
        if ended == 0 or store.block_path(Cid.directory(digest)).exists():
            assert store.get_directory(digest, limits) == files
        assert store.put_directory(files) == digest
        assert store.get_directory(digest, limits) == files
        if ended == 0:
            break
        assert ended == -9
        deaths += 1
    assert deaths >= 6


def test_processes_may_publish_the_same_content_at_once(tmp_path: Path, limits: Limits) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path), "0"]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(4)]
    digests = {writer.communicate(timeout=120)[0].strip() for writer in writers}
    assert [writer.returncode for writer in writers] == [0] * 4
    files = {f"f{i}": bytes([i]) * 300_000 for i in range(12)}
    assert EmbeddedStore(tmp_path).get_directory(bytes.fromhex(digests.pop().decode()), limits) == files
    assert digests == set()
