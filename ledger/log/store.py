"""The log on this disk. What `append` returned from is durable: only then may an answer be sent.

    FOLDER/journal          entries that are in no full bundle yet, and their sealed records (ledger.log.journal)
    FOLDER/records/…        the sealed records, for readers (ledger.log.record_folder)
    FOLDER/tile/…           tiles and bundles, as C2SP tlog-tiles names them (ledger.log.tiles)
    FOLDER/lock             held by the one process that writes

In this order, each step durable before the next begins:
  1. the frame in the journal, entries and records, fsynced: the leaf is promised, `append` returns
  2. with 256 entries together: the hash tiles that they complete, lowest first, each written beside, fsynced, renamed,
     its folder fsynced
  3. the bundle with the entries themselves, likewise: from here on the bundle counts, and a bundle has all its tiles
  4. the files of records, fsynced
  5. the journal without that bundle's entries, and without records, likewise; 4 and 5 also when it has grown long
A crash between any two leaves a log of the same size and root: steps 2 and 3 write the same bytes again, entries that
the journal still has although their bundle is there are skipped, and records that it has are put into their files once
more. Whoever asks for records is shown those of the journal too: they are put into their files first. `publish` does
that, and adds the partial tiles of the present size; they must be with readers before a checkpoint of that size is.

What nobody can see from here: a journal cut short by something else than a crash. Hence `at_least`.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from ledger.crash import Point, reached
from ledger.database import StorageFault
from ledger.log.journal import Frame, Journal, LogDamaged, decode_frames, fault, write_durably
from ledger.log.record_folder import RecordFolder
from ledger.log.tiles import (
    ENTRIES,
    MAX_ENTRY_BYTES,
    MAX_LEVEL,
    WIDTH,
    Tile,
    decode_tile,
    encode_bundle,
    encode_tile,
    parse_path,
    tile_root,
    tiles_of,
)
from ledger.log.tree import Flaw, TileTree, fsck
from proofs.errors import LocalFault, PeerFault
from proofs.merkle import Frontier, leaf_hash

Rows = list[list[bytes]]
MAX_JOURNAL_BYTES: Final = 1 << 26  # an opening reads all of it


class LogInUse(LocalFault):
    """Another process writes this log: two would promise one place to two answers."""


class LogStore:
    """One writer, many readers, among threads of one process."""

    def __init__(self, folder: Path, *, at_least: int = 0) -> None:
        """at_least: entries that somebody else knows of (the anchored size); with fewer, leaves were lost.

        Raises LogInUse, LogDamaged, StorageFault.
        """
        self.folder = folder
        self._mutex = threading.RLock()
        self._lock = _take_lock(folder)
        self._records = RecordFolder(folder)
        try:
            self._bundles = _count_bundles(folder)
            self._journal = Journal(folder / "journal")
        except BaseException:
            os.close(self._lock)
            raise
        try:
            self._pending = self._from_journal()
            self._rows = self._from_tiles()
            self._frontier = _frontier(self._bundles, self._rows, self._pending)
            if self.size < at_least:
                raise LogDamaged(f"{folder}: {self.size} entries, and {at_least} are known elsewhere: restore the rest")
            self._journal.frames = []
            with suppress(StorageFault):  # reading is possible on a full disk too
                self._fold()
                self._put_records()
        except BaseException:
            self.close()
            raise

    # ---- reading

    @property
    def size(self) -> int:
        return self._frontier.size

    @property
    def cut_bytes(self) -> int:
        """How much of an unfinished append the opening found, and cut off."""
        return self._journal.cut_bytes

    def root(self) -> bytes:
        return self._frontier.root()

    def tree(self, size: int | None = None) -> TileTree:
        """The log as it was at `size`, for paths. Raises StorageFault while a full disk does not take the tiles."""
        with self._mutex:
            self._fold()
        return TileTree(self.read, self.size if size is None else size)

    def read(self, path: str) -> bytes | None:
        """The file of this path: from the disk, or, where it is partial, from what is known of it. For TileTree and
        fsck, and for whoever serves tiles. None for a tile that this log has not."""
        tile = parse_path(path)
        with self._mutex:
            found = self._stored(path)
            return self._unfinished(tile) if found is None else found

    def records(self, index: int, size: int) -> list[bytes]:
        """The sealed records of file `index` in a log of `size` entries, as far as they lie there. Raises
        StorageFault, LogDamaged."""
        with self._mutex:
            self._put_records()
        return self._records.get(index, size)

    def fsck(self, roots: Mapping[int, bytes] | None = None) -> Iterator[Flaw]:
        """As ledger.log.tree.fsck, over what is on this disk, the journal included. `roots`: those of checkpoints."""
        with self._mutex:
            self._fold()
            try:
                frames, _ = decode_frames(self._stored("journal") or b"", "journal")
                if _behind(frames, self._bundles * WIDTH) != self._pending:
                    yield Flaw("journal", "it has other entries than were appended")
            except LogDamaged as error:
                yield Flaw("journal", str(error))
            yield from fsck(self.read, self.size, roots, partial=False)

    def _stored(self, path: str) -> bytes | None:
        try:
            return (self.folder / path).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise fault(self.folder / path, error) from error

    def _unfinished(self, tile: Tile) -> bytes | None:
        entries = tile.level == ENTRIES
        row = self._pending if entries else self._row(tile.level)
        start = tile.index * WIDTH - self._start(tile.level)
        wanted = row[start : start + tile.width] if start >= 0 else []
        if len(wanted) != tile.width:
            return None
        return encode_bundle(wanted) if entries else encode_tile(wanted)

    def _row(self, level: int) -> list[bytes]:
        return [leaf_hash(entry) for entry in self._pending] if level == 0 else self._rows[level]

    def _start(self, level: int) -> int:
        """Where, among the hashes of its level, an unfinished row begins."""
        return (self._bundles >> 8 * max(level, 0)) * WIDTH

    # ---- writing

    def append(self, entries: Sequence[bytes], records: Sequence[bytes] = ()) -> int:
        """Index of the first. All of them are durable when it returns, with one fsync: collect what is waiting.
        records: sealed, one for each entry. Raises StorageFault, and then none of them is in the log; LocalFault for an
        entry that is too long; LogDamaged if the records before these are gone."""
        for entry in entries:
            if len(entry) > MAX_ENTRY_BYTES:
                raise LocalFault(f"an entry of {len(entry)} bytes, at most {MAX_ENTRY_BYTES} fit")
        with self._mutex:
            self._fold()  # what a full disk left undone
            first = self.size
            frame = Frame(first, tuple(entries), tuple(records))
            if records and not self._unput:
                self._records.check(first)
            self._journal.append(frame)
            reached(Point.LOG_APPENDED)
            self._unput += [frame] if records else []
            self._pending += entries
            self._frontier = self._frontier.extend([leaf_hash(entry) for entry in entries])
            with suppress(StorageFault):  # they are promised: the journal has them, and the next append meets the fault
                self._fold()
            return first

    def publish(self, size: int | None = None) -> list[Tile]:
        """Put the partial tiles of `size` (the present one) on the disk, in the place of those of earlier sizes, which
        `read` still answers; all the tiles of that size, so that they can be handed on. Raises StorageFault."""
        with self._mutex:
            self._fold()
            self._put_records()
            tiles = list(tiles_of(self.size if size is None else size))
            for tile in tiles:
                data = self._unfinished(tile) if tile.width < WIDTH else None
                if data is not None and self._stored(tile.path) != data:
                    write_durably(self.folder / tile.path, data)
                    _keep_only(self.folder / tile.path)
            reached(Point.LOG_PUBLISHED)
            return tiles

    def _fold(self) -> None:
        """Steps 2 to 5, for as many full bundles as there are."""
        folded = self._journal.size_bytes > MAX_JOURNAL_BYTES
        while len(self._pending) >= WIDTH:
            entries, rows = self._pending[:WIDTH], [list(row) for row in self._rows]
            for tile, hashes in self._completed(entries, rows):
                write_durably(self.folder / tile.path, encode_tile(hashes))
                reached(Point.LOG_TILE)
            write_durably(self.folder / Tile(ENTRIES, self._bundles).path, encode_bundle(entries))
            reached(Point.LOG_BUNDLE)
            self._pending, self._rows, self._bundles = self._pending[WIDTH:], rows, self._bundles + 1
            folded = True
        if folded:
            self._put_records()
            self._records.sync()
            self._journal.restart(self._bundles * WIDTH, self._pending)
            reached(Point.LOG_TRIMMED)

    def _put_records(self) -> None:
        while self._unput:
            self._records.put(self._unput[0].first, self._unput[0].records)
            del self._unput[0]

    def _completed(self, entries: list[bytes], rows: Rows) -> Iterator[tuple[Tile, list[bytes]]]:
        """The tiles that these 256 entries complete, lowest first; moves `rows` on."""
        hashes, level, index = [leaf_hash(entry) for entry in entries], 0, self._bundles
        while len(hashes) == WIDTH:
            yield Tile(level, index), list(hashes)
            above = tile_root(hashes)
            if level:
                rows[level] = []
            level, index = level + 1, index // WIDTH
            rows[level].append(above)
            hashes = rows[level]

    def close(self) -> None:
        """Idempotent."""
        self._journal.close()
        self._records.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # ---- opening

    def _from_journal(self) -> list[bytes]:
        """Entries behind the last bundle. Records, also of entries before it, may not be in their files yet."""
        start, frames = self._bundles * WIDTH, self._journal.frames
        self._unput = [frame for frame in frames if frame.records]
        pending = _behind(frames, start)
        if len(pending) < WIDTH and (self.folder / Tile(0, self._bundles).path).exists():
            raise LogDamaged(f"{self.folder}: bundle {self._bundles} is gone, and its tile is there")
        if frames and not frames[0].first <= start <= frames[-1].end:
            found = f"the journal has entries {frames[0].first} to {frames[-1].end - 1}"
            raise LogDamaged(f"{self.folder}: {found}, and the bundles reach to {start}")
        return pending

    def _from_tiles(self) -> Rows:
        """At each level above the leaves, the hashes of the full tiles below that are in no full tile there."""
        rows: Rows = [[] for _ in range(MAX_LEVEL + 2)]
        for level in range(1, MAX_LEVEL + 1):
            full = self._bundles >> 8 * (level - 1)  # tiles at the level below
            for index in range(full - full % WIDTH, full):
                rows[level].append(tile_root(self._full_tile(Tile(level - 1, index))))
        return rows

    def _full_tile(self, tile: Tile) -> list[bytes]:
        data = self._stored(tile.path)
        if data is None:
            raise LogDamaged(f"{self.folder}: {tile.path} is missing")
        try:
            return decode_tile(tile, data)
        except PeerFault as error:
            raise LogDamaged(f"{self.folder}: {error}") from error


def _frontier(bundles: int, rows: Rows, pending: Sequence[bytes]) -> Frontier:
    """Rows from the top are the complete subtrees of a tree of `bundles` leaves, each 256 entries wide."""
    hashes: list[bytes] = []
    for row in reversed(rows[1:]):
        hashes += Frontier().extend(row).hashes
    return Frontier(bundles * WIDTH, tuple(hashes)).extend([leaf_hash(entry) for entry in pending])


def _behind(frames: Sequence[Frame], start: int) -> list[bytes]:
    """The entries of the journal from index `start` on: those before it are in bundles."""
    return [entry for frame in frames for at, entry in enumerate(frame.entries, frame.first) if at >= start]


def _count_bundles(folder: Path) -> int:
    """Bundles are written one after the other, so there is a last one: doubled to, then halved to."""

    def there(index: int) -> bool:
        return (folder / Tile(ENTRIES, index).path).exists()

    high = 1
    while there(high - 1):
        high *= 2
    low = high // 2
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if there(middle) else (low, middle)
    return low


def _keep_only(path: Path) -> None:
    """Of the partial tiles in a folder, this one: the others are its beginning, or newer than what is published."""
    try:
        for other in path.parent.iterdir():
            if other != path:
                other.unlink()
    except OSError as error:
        raise fault(path, error) from error


def _take_lock(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise fault(folder, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise LogInUse(f"{folder}: another process writes this log; stop it first") from error
    return descriptor
