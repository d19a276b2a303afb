"""The log as one directory in the content store: `checkpoint`, `tile/…`, `records/…`, as in the log's own folder.

Each publication edits the one before: only what is new is written, and the folders on the way to it. The size, root and
digest of the last one are remembered in a file; where that or the directory is gone, everything is published again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ledger.canonical import unique
from ledger.content import Cid, ContentMissing
from ledger.content.store import BlockStore, PutBlocks
from ledger.crash import Point, reached
from ledger.log import note
from ledger.log.journal import LogDamaged, fault, write_durably
from ledger.log.statements import Checkpoint
from ledger.log.store import LogStore
from ledger.log.tiles import RECORDS, WIDTH, encode_records, records_path, tiles_of
from ledger.log.tree import read_tile

STEP: Final = 1024  # entries whose files are in memory at once


@dataclass(frozen=True)
class Published:
    """`digest` names the directory; `cid` is how it is written."""

    size: int
    root: bytes
    digest: bytes

    @property
    def cid(self) -> str:
        return str(Cid.directory(self.digest))

    def to_json(self) -> dict[str, Any]:
        return {"size": self.size, "root": self.root.hex(), "cid": self.cid}


class Publisher:
    """One at a time. `mirrors` receive what the local store does."""

    def __init__(self, log: LogStore, local: BlockStore, mirrors: Sequence[PutBlocks], memory: Path) -> None:
        self._log, self._local, self._mirrors, self._memory = log, local, mirrors, memory
        self.last = read_published(memory)

    def publish(self, checkpoint: Checkpoint, signed: bytes) -> Published:
        """The first `checkpoint.size` entries; `signed` is the note. Durable when it returns. Raises StoreFull,
        StoreUnusable, StoreUnavailable, StorageFault, LogDamaged; to be called again, it goes on from the last."""
        digest, since = (self.last.digest, self.last.size) if self.last else (None, 0)
        while True:
            size = min(since + STEP, checkpoint.size)
            changes = self._changes(since, size)
            if size == checkpoint.size:
                changes[note.PATH] = signed
            try:
                digest = self._local.edit_directory(digest, changes, self._mirrors)
            except ContentMissing:
                if digest is None:
                    raise
                digest, since = None, 0  # somebody emptied the store
                continue
            since = size
            if size == checkpoint.size:
                break
        reached(Point.SERVE_CONTENT)
        published = Published(checkpoint.size, checkpoint.root, digest)
        write_durably(self._memory, json.dumps(published.to_json()).encode())
        reached(Point.SERVE_PUBLISHED)
        self.last = published
        return published

    def _changes(self, since: int, size: int) -> dict[str, bytes | None]:
        """What makes the directory of a log of `since` entries one of `size`."""
        gone: dict[str, bytes | None] = {tile.path: None for tile in tiles_of(since) if tile.width < WIDTH}
        tiles = {tile.path: read_tile(self._log.read, tile) for tile in tiles_of(size, since)}
        kept = {path for path in gone if path in {tile.path for tile in tiles_of(size)}}
        removed = {path: None for path in gone if path not in kept}
        records = {records_path(at): self._file(at, size) for at in range(since // RECORDS, -(-size // RECORDS))}
        return {**removed, **tiles, **records}

    def _file(self, index: int, size: int) -> bytes:
        """Of records, with those that a log of `size` entries has."""
        found, wanted = self._log.records(index, size), min(RECORDS, size - index * RECORDS)
        if len(found) < wanted:
            raise LogDamaged(f"{records_path(index)}: {len(found)} records, and {wanted} entries: restore it")
        return encode_records(found)


def read_published(memory: Path) -> Published | None:
    """None where nothing was published, or nothing that can be read: it is published again then."""
    try:
        facts = json.loads(memory.read_bytes(), object_pairs_hook=unique)
        return Published(int(facts["size"]), bytes.fromhex(facts["root"]), Cid.parse(facts["cid"]).digest)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise fault(memory, error) from error
    except Exception:  # a damaged note of our own, which costs a full publication and nothing else
        return None
