"""A server's log as files, read from its URL, a directory in a content store, or a folder: hostile until checked.

    checkpoint                the last signed checkpoint, a note (ledger.log.note)
    tile/…                    tiles and bundles (ledger.log.tiles)
    records/<index>           the sealed records of 16 entries, the index written as tlog-tiles writes a tile's
    published                 {"size","root","cid"}: the same files as one directory in the content store

At a server they are below URL/log/. Nothing in them is believed for being there: a tile is, once a path from it leads
to an anchored root, a record by the digest in its entry, a checkpoint by its signature. No file is read beyond the
longest that can be right.

WireFault
└── LogUnreadable   the place did not answer, or not with the file that was asked for; another place may
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from ledger.canonical import parse, unique
from ledger.content.cid import Cid, CidInvalid, Codec
from ledger.content.errors import CarrierLied, ContentInvalid, ContentMissing, StoreUnavailable
from ledger.content.http_get import Base, StatusRefused, Wanted, get
from ledger.content.reader import Limits, read_file
from ledger.eip712 import Domain
from ledger.log import note
from ledger.log.sealing import MAX_SEALED_BYTES
from ledger.log.statements import Checkpoint
from ledger.log.tiles import (
    ENTRIES,
    HEIGHT,
    LENGTH_BYTES,
    MAX_ENTRY_BYTES,
    RECORD_LENGTH_BYTES,
    RECORDS,
    WIDTH,
    Tile,
    parse_path,
    records_path,
    split_records,
)
from ledger.log.tree import TileTree, beginning
from proofs.errors import LocalFault, PeerFault, WireFault
from proofs.merkle import HASH_BYTES

PREFIX: Final = "/log/"
OCTETS: Final = "application/octet-stream"
PUBLISHED: Final = "published"
MAX_PUBLISHED_BYTES: Final = 1 << 12
TIMEOUT_S: Final = 60.0
MAX_RECORDS_BYTES: Final = RECORDS * (RECORD_LENGTH_BYTES + MAX_SEALED_BYTES)
MAX_DEPTH: Final = 8
KEPT_FOLDERS: Final = 32  # each may be a block of 2 MiB, of whoever published it
GONE: Final = (404, 410)


class LogUnreadable(WireFault):
    """A file of a log could not be read from where it was looked for."""


class LogFiles(Protocol):
    """Where a log's files are. `where` is for people."""

    @property
    def where(self) -> str: ...

    def read(self, path: str, max_bytes: int, media_type: str = OCTETS) -> bytes | None:
        """None where the place says that it has no such file. Raises LogUnreadable, PeerFault."""
        ...


@dataclass(frozen=True)
class HttpFiles:
    """Below URL/log/. timeout_s: for each file, from connecting to the last byte."""

    base: Base
    timeout_s: float

    @property
    def where(self) -> str:
        return self.base.url

    def read(self, path: str, max_bytes: int, media_type: str = OCTETS) -> bytes | None:
        wanted = Wanted(PREFIX + path, media_type, media_type, max_bytes)
        try:
            with get(self.base, wanted, self.timeout_s) as chunks:
                return b"".join(chunks)
        except StatusRefused as error:
            if error.status in GONE:
                return None
            raise LogUnreadable(f"{self.where}{PREFIX}{path}: {error}") from error
        except (StoreUnavailable, CarrierLied) as error:
            raise LogUnreadable(f"{self.where}{PREFIX}{path}: {error}") from error


@dataclass(frozen=True)
class FolderFiles:
    """On this disk: a copy, or a stopped server's own folder."""

    folder: Path

    @property
    def where(self) -> str:
        return str(self.folder)

    def read(self, path: str, max_bytes: int, media_type: str = OCTETS) -> bytes | None:
        try:
            with (self.folder / path).open("rb") as file:
                data = file.read(max_bytes + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise LogUnreadable(f"{self.folder / path}: {error.strerror}") from error
        if len(data) > max_bytes:
            raise LogUnreadable(f"{self.folder / path}: more than {max_bytes} bytes, the most that can be right")
        return data


class Blocks(Protocol):
    """Verified blocks of a content store."""

    def get_block(self, cid: Cid) -> bytes: ...


@dataclass(frozen=True)
class ContentFiles:
    """Below a directory of a content store, of which only what leads to the file is fetched."""

    root: Cid
    blocks: Blocks
    _folders: OrderedDict[Cid, bytes] = field(default_factory=OrderedDict, repr=False)

    @property
    def where(self) -> str:
        return str(self.root)

    def read(self, path: str, max_bytes: int, media_type: str = OCTETS) -> bytes | None:
        try:
            return read_file(self.root, path, self._block, Limits(1, max_bytes, max_bytes, MAX_DEPTH))
        except (ContentMissing, ContentInvalid, CarrierLied) as error:
            raise LogUnreadable(f"{self.where}/{path}: {error}") from error

    def _block(self, cid: Cid) -> bytes:
        if cid.codec is not Codec.DAG_PB:
            return self.blocks.get_block(cid)
        if cid not in self._folders:
            if len(self._folders) >= KEPT_FOLDERS:
                self._folders.popitem(last=False)
            self._folders[cid] = self.blocks.get_block(cid)
        return self._folders[cid]


def open_log(place: str, blocks: Blocks) -> LogFiles:
    """place: a URL, a CID, or a folder. Raises LocalFault if it is none of them."""
    if place.startswith(("http://", "https://")):
        return HttpFiles(Base.parse(place), TIMEOUT_S)
    if re.fullmatch("b[a-z2-7]{58}", place):
        try:
            return ContentFiles(Cid.parse(place), blocks)
        except CidInvalid as error:
            raise LocalFault(f"{place}: {error}") from error
    if not place or not Path(place).is_dir():
        raise LocalFault(f"{place[:200]}: neither a URL, nor a CID, nor a folder")
    return FolderFiles(Path(place))


@dataclass(frozen=True)
class Published:
    """What a server says is in the content store: its first `size` entries, of this root, below this directory."""

    size: int
    root: bytes
    cid: Cid


class LogReader:
    """One server's log, from one place."""

    def __init__(self, files: LogFiles, domain: Domain, server: bytes) -> None:
        self.files, self.domain, self.server = files, domain, server
        self._noted: tuple[Checkpoint, bytes] | None = None
        self._rest_of_file: tuple[int, list[bytes]] = (0, [])  # the next index, and the records from there on

    @property
    def where(self) -> str:
        return self.files.where

    def checkpoint(self) -> tuple[Checkpoint, bytes] | None:
        """The last one, with its signature, checked; None if there is none. Raises LogUnreadable, note.NoteInvalid."""
        data = self.files.read(note.PATH, note.MAX_NOTE_BYTES, "text/plain")
        self._noted = None if data is None else note.decode_note(self.domain, self.server, data)
        return self._noted

    def published(self) -> Published | None:
        """Raises LogUnreadable, also for what cannot be understood."""
        data = self.files.read(PUBLISHED, MAX_PUBLISHED_BYTES, "application/json")
        if data is None:
            return None
        try:
            told = parse(data, 2, unique)
            return _published(told)
        except (ValueError, KeyError, TypeError, CidInvalid) as error:
            raise LogUnreadable(f"{self.where}: `{PUBLISHED}` is no such thing ({type(error).__name__})") from error

    def tile(self, path: str) -> bytes | None:
        """For TileTree and fsck. A partial tile may have been replaced by a wider one: then it is the beginning of
        that. Raises LogUnreadable, PeerFault."""
        tile = parse_path(path)
        data = self.files.read(path, _most(tile))
        if data is not None or tile.width == WIDTH:
            return data
        wider = self._wider(tile)
        found = self.files.read(wider.path, _most(wider)) if wider else None
        return beginning(wider, found, tile.width) if wider and found is not None else None

    def tree(self, size: int) -> TileTree:
        return TileTree(self.tile, size)

    def record(self, index: int) -> bytes | None:
        """None where the place says that it has none. Raises LogUnreadable. Read in order, their file is read once; one
        that is asked for again is read again."""
        file, place = divmod(index, RECORDS)
        start, found = self._rest_of_file
        if not start <= index < start + len(found):
            data = self.files.read(records_path(file), MAX_RECORDS_BYTES)
            start, found = index, split_records(data or b"")[place:]
        found = found[index - start :]
        self._rest_of_file = (index + 1, found[1:])
        return found[0] if found else None

    def _wider(self, tile: Tile) -> Tile | None:
        """The tile as it is at the size that the last checkpoint has."""
        if self._noted is None:
            try:
                self.checkpoint()
            except (PeerFault, WireFault):
                return None
        size = self._noted[0].size if self._noted else 0
        width = min(WIDTH, (size >> HEIGHT * max(tile.level, 0)) - tile.index * WIDTH)
        return Tile(tile.level, tile.index, width) if tile.width < width < WIDTH else None


def _published(told: object) -> Published:
    if not isinstance(told, dict) or type(told["size"]) is not int or not 0 <= told["size"] < 2**64:
        raise ValueError
    if not isinstance(told["root"], str) or not isinstance(told["cid"], str):
        raise ValueError
    root = bytes.fromhex(told["root"])
    if len(root) != HASH_BYTES:
        raise ValueError
    return Published(told["size"], root, Cid.parse(told["cid"]))


def _most(tile: Tile) -> int:
    """The longest that a file of this name can be."""
    return tile.width * (LENGTH_BYTES + MAX_ENTRY_BYTES if tile.level == ENTRIES else HASH_BYTES)
