"""The embedded store: one file for each block, on this machine's disk, no daemon.

    FOLDER/blocks/ab/abcd…ef.block   a block, named by the SHA-256 of its bytes (both codecs share it)
    FOLDER/incoming/…                a block being written; swept when it is an hour old

A block is written to `incoming`, fsynced, renamed to its place, and its folder fsynced; a root only after everything
below it. So a crash or a full disk leaves whole blocks or none, and a root that is there is complete. Processes may
share a folder: a rename is atomic and both would write the same bytes. Every read hashes what it read.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ledger.content.cid import MAX_BLOCK_BYTES, Block, Cid
from ledger.content.errors import Attempt, ContentMissing, ReadOnlyStore, StoreDamaged, StoreFull, StoreUnusable
from ledger.content.store import BlockStore

_SWEEP_AFTER_S = 3600
_FULL = (errno.ENOSPC, errno.EDQUOT)


class EmbeddedStore(BlockStore):
    """Blocks as files under `path`, which is created when it is not there. Safe among threads and processes.

    Without `writable` nothing is created, swept or stored: for reading a folder that belongs to somebody else.
    """

    def __init__(self, path: Path | str, *, writable: bool = True) -> None:
        self.path = Path(path)
        self._blocks = self.path / "blocks"
        self._incoming = self.path / "incoming"
        self._writable = writable
        if not writable:
            return
        with self._faults():
            self._blocks.mkdir(parents=True, exist_ok=True)
            self._incoming.mkdir(exist_ok=True)
            for folder in (self.path, self.path.parent):
                _sync_folder(folder)
            self._sweep()

    def block_path(self, cid: Cid) -> Path:
        name = cid.digest.hex()
        return self._blocks / name[:2] / f"{name}.block"

    def load(self, cid: Cid) -> bytes:
        path = self.block_path(cid)
        with self._faults():
            data = _read(path)
        if data is None:
            raise ContentMissing(cid, [Attempt(str(self.path), "not stored")])
        return data

    def damaged(self, cid: Cid) -> StoreDamaged:
        return StoreDamaged(
            f"{self.block_path(cid)} no longer holds the block {cid}: the disk or somebody changed it. "
            "Delete that file; the block is then fetched again, or stored again by repeating what published it"
        )

    def put_blocks(self, blocks: Iterable[Block], roots: Sequence[Block]) -> None:
        """Durable when it returns. Raises StoreFull or StoreUnusable; the roots are then not there."""
        if not self._writable:
            raise ReadOnlyStore(f"{self.path} was opened for reading")
        for group in (blocks, roots):
            with self._faults():
                folders = {self._write(block).parent for block in group}
                for folder in sorted(folders) + [self._blocks] * bool(folders):
                    _sync_folder(folder)

    def _write(self, block: Block) -> Path:
        path = self.block_path(block.cid)
        if _read(path) == block.data:
            return path
        path.parent.mkdir(exist_ok=True)
        incoming = self._incoming / secrets.token_hex(16)
        try:
            _write_synced(incoming, block.data)
            incoming.replace(path)
        except BaseException:
            with suppress(OSError):
                incoming.unlink()
            raise
        return path

    def _sweep(self) -> None:
        for path in self._incoming.iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - _SWEEP_AFTER_S:
                    path.unlink()

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else type(error).__name__
            if error.errno in _FULL:
                raise StoreFull(
                    f"{self.path}: {reason}. Free some space and repeat: nothing was half written"
                ) from error
            raise StoreUnusable(f"{error.filename or self.path}: {reason}") from error


def _read(path: Path) -> bytes | None:
    """The file's bytes, cut after one byte too many; None when there is no such file."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return file.read(min(size, MAX_BLOCK_BYTES) + 1)
    except FileNotFoundError:
        return None


def _write_synced(path: Path, data: bytes | memoryview) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
