"""Sealed records on this disk, beside the tiles: FOLDER/record/<index>, one file an answer.

A record is written before its entry, so every entry of the log has its record, whatever happens. What a crash leaves
of records behind the last entry belongs to nobody, and the next answer's record takes its place.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from ledger.crash import Point, reached
from ledger.log.journal import fault, sync_folder
from ledger.log.sealing import MAX_SEALED_BYTES
from ledger.log.tiles import record_path

WRITERS: Final = 8  # fsyncs of different files share one commit of the file system


class RecordFolder:
    """One writer, many readers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pool = ThreadPoolExecutor(WRITERS, thread_name_prefix="records")

    def put(self, first: int, sealed: Sequence[bytes]) -> None:
        """Records of the entries from index `first` on. Durable when it returns. Raises StorageFault."""
        paths = [self.folder / record_path(first + at) for at in range(len(sealed))]
        try:
            folders = {path.parent for path in paths}
            above = {parent for folder in folders for parent in _missing(folder)}
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
            list(self._pool.map(_write, paths, sealed))
            for folder in sorted(folders | above):
                sync_folder(folder)
        except OSError as error:
            raise fault(self.folder / "record", error) from error
        reached(Point.SERVE_RECORD)

    def get(self, sequence: int) -> bytes | None:
        """As it lies there; None where there is none. Raises StorageFault."""
        try:
            with open(self.folder / record_path(sequence), "rb") as file:
                return file.read(MAX_SEALED_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise fault(self.folder / record_path(sequence), error) from error

    def close(self) -> None:
        self._pool.shutdown()


def _missing(folder: Path) -> list[Path]:
    """The folders in which names have to be made durable because a folder in them is new."""
    return [each.parent for each in (folder, *folder.parents) if not each.exists()]


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
