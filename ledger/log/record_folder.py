"""Sealed records on this disk, beside the tiles: FOLDER/records/<index>, those of 16 entries in a file, in their order.

`put` writes them where readers find them, and no more: what makes them durable is the frame of the log's journal that
has them too (ledger.log.store), until `sync` has made their files so. What a crash or a full disk leaves behind the
record of the last entry belongs to nobody: it is cut off, and the next answer's record takes its place.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ledger.crash import Point, reached
from ledger.database import StorageFault
from ledger.log.journal import LogDamaged, fault, make_folder, write_all
from ledger.log.tiles import RECORDS, encode_records, records_path, split_records

MODE: Final = 0o644  # whoever serves the folder reads them


@dataclass(frozen=True)
class _Tail:
    """Where the record of the next entry goes: sequence; its file, and a descriptor of that; place in it."""

    sequence: int
    path: Path
    file: int
    end: int


class RecordFolder:
    """One writer, many readers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tail: _Tail | None = None
        self._unsynced: set[Path] = set()
        self._broken = ""

    def put(self, first: int, sealed: Sequence[bytes]) -> None:
        """Records of the entries from index `first` on. Raises StorageFault, and LogDamaged if those before them are
        gone."""
        at = first
        while at < first + len(sealed):
            end = min(at - at % RECORDS + RECORDS, first + len(sealed))
            try:
                self._append(at, sealed[at - first : end - first])
            except OSError as error:
                self.close()
                raise fault(self._path(at), error) from error
            at = end

    def check(self, sequence: int) -> None:
        """Can the record of this entry be put? Raises as `put` does."""
        try:
            self._tail_at(sequence)
        except OSError as error:
            raise fault(self._path(sequence), error) from error

    def sync(self) -> None:
        """What was put is durable when it returns. Raises StorageFault; after a failed fsync nobody knows what is on
        the disk, so it does for ever: the journal has the records, and they are put again when it is opened anew."""
        if self._broken:
            raise StorageFault(f"{self.folder}: {self._broken}; check the disk, and start again")
        for path in sorted({*self._unsynced, *(path.parent for path in self._unsynced)}):
            self._sync(path)
        if self._unsynced:
            self._unsynced.clear()
            reached(Point.LOG_RECORDS)

    def get(self, index: int, size: int) -> list[bytes]:
        """The records of file `index` in a log of `size` entries, as far as they lie there. Raises StorageFault."""
        try:
            data = self._path(index * RECORDS).read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise fault(self._path(index * RECORDS), error) from error
        return split_records(data, min(RECORDS, size - index * RECORDS))

    def close(self) -> None:
        """Idempotent."""
        if self._tail is not None:
            os.close(self._tail.file)
            self._tail = None

    def _append(self, first: int, sealed: Sequence[bytes]) -> None:
        """To one file."""
        tail, data = self._tail_at(first), encode_records(sealed)
        write_all(tail.file, data, tail.end)
        self._unsynced.add(tail.path)
        self._tail = replace(tail, sequence=first + len(sealed), end=tail.end + len(data))
        if self._tail.sequence % RECORDS == 0:
            self.close()

    def _tail_at(self, sequence: int) -> _Tail:
        if self._tail is None or self._tail.sequence != sequence:
            self.close()
            self._tail = self._opened(sequence)
            os.ftruncate(self._tail.file, self._tail.end)
        return self._tail

    def _opened(self, sequence: int) -> _Tail:
        """Behind the record before this one."""
        path, place = self._path(sequence), sequence % RECORDS
        if not place:
            make_folder(path.parent)
            return _Tail(sequence, path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE), 0)
        before = split_records(path.read_bytes(), place) if path.exists() else []
        if len(before) < place:
            raise LogDamaged(f"{path}: {len(before)} records, and the log has the entries of {place}: restore it")
        return _Tail(sequence, path, os.open(path, os.O_RDWR | os.O_CLOEXEC), len(encode_records(before)))

    def _sync(self, path: Path) -> None:
        """A file, or a folder."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise fault(path, error) from error
        try:
            os.fsync(descriptor)
        except OSError as error:
            self._broken = f"an fsync of records failed ({error.strerror})"
            raise fault(path, error) from error
        finally:
            os.close(descriptor)

    def _path(self, sequence: int) -> Path:
        return self.folder / records_path(sequence // RECORDS)
