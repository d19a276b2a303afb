"""The layout of a log as static files, after C2SP tlog-tiles (https://c2sp.org/tlog-tiles): names and bytes, no files.

    tile/<level>/<index>[.p/<width>]       hashes of 32 bytes; at level 0 of leaves, above of full tiles one level below
    tile/entries/<index>[.p/<width>]       the entries under a tile of level 0, each behind its length in two bytes
    records/<index>                        Candor's own: the sealed records of 16 entries (ledger.log.sealing), each
                                           behind its length in four bytes; the last file has as many as there are

A full tile is 256 wide. A partial one belongs to a tree of exactly one size at its level, and is never hashed into the
level above. Nothing in a tile is signed: what is read from one is believed once a path from it leads to an anchored
root.

PeerFault
└── TileInvalid   a name, or bytes, that no log has
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from proofs.errors import LocalFault, PeerFault
from proofs.merkle import HASH_BYTES, leaf_hash, root_of_hashes

WIDTH: Final = 256
HEIGHT: Final = 8
MAX_LEVEL: Final = 7  # 2^64 leaves need no more
ENTRIES: Final = -1
MAX_ENTRY_BYTES: Final = 0xFFFF
LENGTH_BYTES: Final = 2
MAX_INDEX: Final = 2**64 // WIDTH - 1
RECORDS: Final = 16  # sealed records in one file
RECORD_LENGTH_BYTES: Final = 4
MAX_RECORDS_INDEX: Final = 2**64 // RECORDS - 1
_INDEX: Final = "(?:x[0-9]{3}/){0,6}[0-9]{3}"
_PATH: Final = re.compile(rf"tile/(entries|[0-7])/({_INDEX})(?:\.p/([1-9][0-9]{{0,2}}))?")
_RECORDS: Final = re.compile(rf"records/({_INDEX})")


class TileInvalid(PeerFault):
    """A path or a content that no log in this layout has."""


@dataclass(frozen=True)
class Tile:
    """A file of the log. `level` is ENTRIES for a bundle of entries; `width` is below 256 for a partial one."""

    level: int
    index: int
    width: int = WIDTH

    def __post_init__(self) -> None:
        fits = ENTRIES <= self.level <= MAX_LEVEL and 0 <= self.index <= MAX_INDEX and 0 < self.width <= WIDTH
        if not fits:
            raise LocalFault(f"there is no tile of level {self.level}, index {self.index} and width {self.width}")

    @property
    def path(self) -> str:
        """
        >>> Tile(0, 1234067).path, Tile(ENTRIES, 5, 17).path
        ('tile/0/x001/x234/067', 'tile/entries/005.p/17')
        """
        name = index_path(self.index)
        level = "entries" if self.level == ENTRIES else str(self.level)
        return f"tile/{level}/{name}" + ("" if self.width == WIDTH else f".p/{self.width}")


def index_path(index: int) -> str:
    """
    >>> index_path(7), index_path(1234067)
    ('007', 'x001/x234/067')
    """
    groups = [index % 1000]
    while index >= 1000 ** len(groups):
        groups.insert(0, index // 1000 ** len(groups) % 1000)
    return "/".join([f"x{group:03d}" for group in groups[:-1]] + [f"{groups[-1]:03d}"])


def records_path(index: int) -> str:
    """The file with the sealed records of the entries from 16 · index on."""
    return f"records/{index_path(index)}"


def parse_records_path(path: str) -> int:
    """Inverse of `records_path`. Raises TileInvalid for anything else."""
    found = _RECORDS.fullmatch(path) if len(path) < 64 else None
    index = _number(found[1]) if found else -1
    if not 0 <= index <= MAX_RECORDS_INDEX or records_path(index) != path:
        raise TileInvalid(f"no records have the path {path[:64]!r}")
    return index


def encode_records(sealed: Sequence[bytes]) -> bytes:
    return b"".join(len(each).to_bytes(RECORD_LENGTH_BYTES) + each for each in sealed)


def split_records(data: bytes, most: int = RECORDS) -> list[bytes]:
    """The first `most`, or as many as are whole: which of them is right, its entry tells, and what is behind them
    belongs to nobody."""
    found: list[bytes] = []
    at = 0
    while len(found) < most:
        start = at + RECORD_LENGTH_BYTES
        at = start + int.from_bytes(data[at:start])
        if start > len(data) or at > len(data):
            break
        found.append(data[start:at])
    return found


def _number(index: str) -> int:
    return int(index.replace("x", "").replace("/", ""))


def parse_path(path: str) -> Tile:
    """Inverse of `Tile.path`. Raises TileInvalid for anything else, other spellings of the same tile included."""
    found = _PATH.fullmatch(path) if len(path) < 64 else None
    if found is None:
        raise TileInvalid(f"no tile has the path {path[:64]!r}")
    level, index, width = found.groups()
    try:
        tile = Tile(
            ENTRIES if level == "entries" else int(level),
            _number(index),
            int(width or WIDTH),
        )
    except LocalFault as error:
        raise TileInvalid(f"no tile has the path {path!r}") from error
    if tile.path != path:
        raise TileInvalid(f"{path!r} is another spelling of {tile.path!r}")
    return tile


def tiles_of(size: int, since: int = 0) -> Iterator[Tile]:
    """All tiles and bundles of a log of `size` entries that one of `since` did not have: bundles, then upwards."""
    if not 0 <= since <= size:
        raise LocalFault(f"a log of {since} entries does not become one of {size}")
    for level in range(ENTRIES, MAX_LEVEL + 1):
        shift = HEIGHT * max(level, 0)
        old, new = since >> shift, size >> shift
        if old == new:
            continue
        for index in range(old // WIDTH, -(-new // WIDTH)):
            yield Tile(level, index, min(WIDTH, new - index * WIDTH))


def tile_holding(level: int, position: int, size: int) -> Tile:
    """The tile in which a log of `size` has the hash (or entry) at `position` of its tiles' `level`. Raises LocalFault
    outside the log."""
    count = size >> HEIGHT * max(level, 0)
    if not 0 <= position < count:
        raise LocalFault(f"a log of {size} entries has no hash {position} at level {level}")
    index = position // WIDTH
    return Tile(level, index, min(WIDTH, count - index * WIDTH))


def encode_tile(hashes: Sequence[bytes]) -> bytes:
    if not 0 < len(hashes) <= WIDTH or any(len(item) != HASH_BYTES for item in hashes):
        raise LocalFault(f"a tile has 1 to {WIDTH} hashes of {HASH_BYTES} bytes")
    return b"".join(hashes)


def decode_tile(tile: Tile, data: bytes) -> list[bytes]:
    """Raises TileInvalid unless there are exactly `tile.width` hashes."""
    if len(data) != tile.width * HASH_BYTES:
        raise TileInvalid(f"{tile.path}: expected {tile.width * HASH_BYTES} bytes, found {len(data)}")
    return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    if not 0 < len(entries) <= WIDTH:
        raise LocalFault(f"a bundle has 1 to {WIDTH} entries, not {len(entries)}")
    return b"".join(framed(entry) for entry in entries)


def framed(entry: bytes) -> bytes:
    """The entry behind its length. Raises LocalFault if two bytes do not hold it."""
    if len(entry) > MAX_ENTRY_BYTES:
        raise LocalFault(f"an entry of {len(entry)} bytes, at most {MAX_ENTRY_BYTES} fit")
    return len(entry).to_bytes(LENGTH_BYTES) + entry


def decode_bundle(tile: Tile, data: bytes) -> list[bytes]:
    """Raises TileInvalid unless there are exactly `tile.width` entries and nothing behind them."""
    entries: list[bytes] = []
    at = 0
    for _ in range(tile.width):
        start = at + LENGTH_BYTES
        at = start + int.from_bytes(data[at:start])
        if at > len(data) or start > len(data):
            raise TileInvalid(f"{tile.path}: ends within entry {len(entries)} of {tile.width}")
        entries.append(data[start:at])
    if at != len(data):
        raise TileInvalid(f"{tile.path}: {len(data) - at} bytes behind the last entry")
    return entries


def check_bundle(entries: Sequence[bytes], hashes: Sequence[bytes]) -> None:
    """Are these the entries whose hashes the tile of level 0 beside them has? Raises TileInvalid."""
    if len(entries) != len(hashes):
        raise TileInvalid(f"{len(entries)} entries beside {len(hashes)} hashes")
    for position, (entry, expected) in enumerate(zip(entries, hashes, strict=True)):
        if leaf_hash(entry) != expected:
            raise TileInvalid(f"entry {position} of the bundle is not the one that was hashed")


def tile_root(hashes: Sequence[bytes]) -> bytes:
    """What a full tile is at the level above."""
    if len(hashes) != WIDTH:
        raise LocalFault("only a full tile has a hash at the level above")
    return root_of_hashes(hashes)
