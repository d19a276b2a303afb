"""Entries on their way into full bundles: a file that is only appended to, one frame and one fsync for each append.

    frame = length of the payload (4 bytes) ‖ index of its first entry (8) ‖ number of entries (2) ‖ check of these (4)
            ‖ payload: each entry behind its length (2 bytes), as in a bundle; then, where the entries came with sealed
              records, each record behind its length (4 bytes), as in a file of records
            ‖ SHA-256 of all of it

A frame that has been fsynced has been promised to somebody, one that has not is nobody's loss. So when the file is read
again, its last frame is cut off only if it looks like a write that a crash interrupted: it ends early, or in zeros
where blocks never reached the disk. Anything else that does not fit (a changed bit, wherever it is) might be a promised
entry: that is refused, never repaired.

LocalFault
├── StorageFault   (ledger.database) the disk is full or failing; what was being written did not happen
└── LogDamaged     what is on the disk is not what was written: restore it, and do not serve from it
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from ledger.database import StorageFault
from ledger.log.tiles import LENGTH_BYTES, encode_records, framed, split_records
from proofs.errors import LocalFault

HEAD_BYTES: Final = 18
CHECK_BYTES: Final = 4
DIGEST_BYTES: Final = 32
MAX_FRAME_ENTRIES: Final = 0xFFFF


class LogDamaged(LocalFault):
    """Bytes on the disk have changed, or are gone."""


@dataclass(frozen=True)
class Frame:
    """What one append made durable. records: one for each entry, or none at all."""

    first: int
    entries: tuple[bytes, ...]
    records: tuple[bytes, ...] = ()

    @property
    def end(self) -> int:
        return self.first + len(self.entries)

    def encode(self) -> bytes:
        if not 0 < len(self.entries) <= MAX_FRAME_ENTRIES:
            raise LocalFault(f"a frame has 1 to {MAX_FRAME_ENTRIES} entries, not {len(self.entries)}")
        if len(self.records) not in (0, len(self.entries)):
            raise LocalFault(f"{len(self.records)} records beside {len(self.entries)} entries")
        payload = b"".join(map(framed, self.entries)) + encode_records(self.records)
        head = len(payload).to_bytes(4) + self.first.to_bytes(8) + len(self.entries).to_bytes(2)
        body = head + _check(head) + payload
        return body + sha256(body).digest()


def decode_frames(data: bytes, where: str) -> tuple[list[Frame], int]:
    """The frames, and how many bytes they take: what is behind them was never finished. Raises LogDamaged."""
    frames: list[Frame] = []
    at = 0
    while at < len(data):
        found = _decode(data, at, f"{where}, byte {at}")
        if found is None:
            return frames, at
        frame, end = found
        if frames and frame.first != frames[-1].end:
            raise LogDamaged(f"{where}, byte {at}: entry {frames[-1].end} is followed by {frame.first}")
        frames.append(frame)
        at = end
    return frames, at


def _decode(data: bytes, at: int, where: str) -> tuple[Frame, int] | None:
    """The frame, and where it ends; None for one that a crash interrupted."""
    head = data[at : at + HEAD_BYTES]
    if len(head) < HEAD_BYTES or not (any(head) or any(data[at:])):
        return None
    if head[-CHECK_BYTES:] != _check(head[:-CHECK_BYTES]):
        raise LogDamaged(f"{where}: the head of a frame has changed")
    end = at + HEAD_BYTES + int.from_bytes(head[:4])
    body, digest = data[at:end], data[end : end + DIGEST_BYTES]
    if len(digest) < DIGEST_BYTES:
        return None
    if sha256(body).digest() != digest:
        if end + DIGEST_BYTES == len(data) and not any(digest):
            return None
        raise LogDamaged(f"{where}: the entries of a frame have changed")
    entries, records = _parts(body[HEAD_BYTES:], int.from_bytes(head[12:14]), where)
    return Frame(int.from_bytes(head[4:12]), entries, records), end + DIGEST_BYTES


def _parts(payload: bytes, count: int, where: str) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """(entries, records)."""
    entries: list[bytes] = []
    at = 0
    for _ in range(count):
        start = at + LENGTH_BYTES
        at = start + int.from_bytes(payload[at:start])
        entries.append(payload[start:at])
    records = split_records(payload[at:], count)
    whole = b"".join(map(framed, entries)) + encode_records(records) == payload
    if not (count and whole and len(records) in (0, count)):
        raise LogDamaged(f"{where}: a frame of {count} entries has other bytes than these, or {len(records)} records")
    return tuple(entries), tuple(records)


def _check(head: bytes) -> bytes:
    return sha256(b"candor/frame/1" + head).digest()[:CHECK_BYTES]


class Journal:
    """The file. One process writes it."""

    def __init__(self, path: Path) -> None:
        """Cuts off an unfinished last frame: `cut_bytes` says how much. Raises LogDamaged, StorageFault."""
        self.path = path
        self._broken = ""
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            sync_folder(path.parent)
            data = path.read_bytes()
        except OSError as error:
            raise fault(path, error) from error
        try:
            self.frames, self._end = decode_frames(data, str(path))
            self.cut_bytes = len(data) - self._end
            if self.cut_bytes:
                os.ftruncate(self._file, self._end)
                os.fsync(self._file)
        except OSError as error:
            self.close()
            raise fault(path, error) from error
        except LogDamaged:
            self.close()
            raise

    @property
    def size_bytes(self) -> int:
        return self._end

    def append(self, frame: Frame) -> None:
        """Durable when it returns. Raises StorageFault, and then nothing was appended: a failed write is cut off again.
        After a failed fsync nobody knows what is on the disk: nothing more is taken until the file is opened anew."""
        if self._broken:
            raise StorageFault(f"{self.path}: {self._broken}; check the disk, and start again")
        data = frame.encode()
        try:
            write_all(self._file, data, self._end)
        except OSError as error:
            self._undo()
            raise fault(self.path, error) from error
        try:
            os.fdatasync(self._file)
        except OSError as error:
            self._broken = f"an fsync failed ({error.strerror})"
            raise fault(self.path, error) from error
        self._end += len(data)

    def _undo(self) -> None:
        try:
            os.ftruncate(self._file, self._end)
        except OSError as error:
            self._broken = f"a failed write could not be undone ({error.strerror})"

    def restart(self, first: int, entries: Sequence[bytes]) -> None:
        """Begin anew with these entries (or none), in one step: the old file is whole until the new one is."""
        data = Frame(first, tuple(entries)).encode() if entries else b""
        before, self._broken = self._broken, "it was being replaced when the disk failed"
        try:
            write_durably(self.path, data)
            fresh = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise fault(self.path, error) from error
        except StorageFault:
            if os.path.samestat(os.fstat(self._file), os.stat(self.path)):
                self._broken = before  # the old file is still in its place, and good
            raise
        os.close(self._file)
        self._file, self._end, self._broken = fresh, len(data), before

    def close(self) -> None:
        """Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def write_durably(path: Path, data: bytes) -> None:
    """A whole file or none: written beside, fsynced, renamed, and its folder fsynced. Raises StorageFault."""
    fresh = path.with_name(path.name + ".new")
    try:
        make_folder(path.parent)
        with open(fresh, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
        sync_folder(path.parent)
    except OSError as error:
        raise fault(path, error) from error


def make_folder(folder: Path) -> None:
    """With those above it, and their names durable. Raises OSError."""
    if folder.is_dir():
        return
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync_folder(each.parent)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fault(path: Path, error: OSError) -> StorageFault:
    return StorageFault(f"{path}: {error.strerror}; free some space, or check the disk")


def write_all(file: int, data: bytes, at: int) -> None:
    while data:
        written = os.pwrite(file, data, at)
        data, at = data[written:], at + written
