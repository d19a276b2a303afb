"""Paths and checks over a log in tiles, whatever keeps them: all that is asked for is a function from path to bytes.

PeerFault
└── TileMissing   the log's keeper does not have a tile that a log of this size must have
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ledger.log.tiles import (
    ENTRIES,
    HEIGHT,
    LENGTH_BYTES,
    MAX_LEVEL,
    WIDTH,
    Tile,
    decode_bundle,
    decode_tile,
    tile_holding,
    tile_root,
    tiles_of,
)
from proofs.errors import PeerFault
from proofs.merkle import (
    HASH_BYTES,
    Frontier,
    consistency_path,
    inclusion_path_at,
    leaf_hash,
    root_at,
    root_of_hashes,
)

Read = Callable[[str], bytes | None]
CACHED_TILES = 512  # 4 MiB of hashes


class TileMissing(PeerFault):
    """A tile is not there."""


@dataclass(frozen=True)
class Flaw:
    """Something is wrong with the file at `path`, or, where that is empty, with the log as a whole."""

    path: str
    text: str


class TileTree:
    """A log of `size` entries. Its paths are as good as its tiles: check them against a root from elsewhere."""

    def __init__(self, read: Read, size: int) -> None:
        self.size = size
        self._read = read
        self._tiles: dict[Tile, list[bytes]] = {}

    def root(self, size: int | None = None) -> bytes:
        """Of the first `size` entries (all of them)."""
        return root_at(self.node, self.size if size is None else size)

    def inclusion(self, index: int) -> list[bytes]:
        return inclusion_path_at(self.node, index, self.size)

    def consistency(self, old: int) -> list[bytes]:
        return consistency_path(self.node, old, self.size)

    def leaf(self, index: int) -> bytes:
        return self.node(0, index)

    def entry(self, index: int) -> bytes:
        tile = tile_holding(ENTRIES, index, self.size)
        return decode_bundle(tile, read_tile(self._read, tile))[index % WIDTH]

    def entries(self, first: int, last: int) -> Iterator[tuple[int, bytes]]:
        """(index, entry) from `first` to before `last`, each bundle read once."""
        for start in range(first - first % WIDTH, last, WIDTH):
            tile = tile_holding(ENTRIES, start, self.size)
            found = enumerate(decode_bundle(tile, read_tile(self._read, tile)), start)
            yield from ((index, entry) for index, entry in found if first <= index < last)

    def node(self, level: int, index: int) -> bytes:
        """Root of the complete subtree over leaves index·2^level … (index+1)·2^level − 1."""
        row, inside = divmod(level, HEIGHT)
        first = index << inside
        hashes = self._hashes(tile_holding(row, first, self.size))
        return root_of_hashes(hashes[first % WIDTH : first % WIDTH + (1 << inside)])

    def _hashes(self, tile: Tile) -> list[bytes]:
        if tile not in self._tiles:
            if len(self._tiles) >= CACHED_TILES:
                del self._tiles[next(iter(self._tiles))]
            self._tiles[tile] = decode_tile(tile, read_tile(self._read, tile))
        return self._tiles[tile]


def read_tile(read: Read, tile: Tile) -> bytes:
    """A partial tile may have been deleted once the full one was there: then the beginning of that one is it. Raises
    TileMissing, TileInvalid."""
    data = read(tile.path)
    if data is not None:
        return data
    whole = Tile(tile.level, tile.index)
    data = read(whole.path) if tile != whole else None
    if data is None:
        raise TileMissing(f"{tile.path} is missing")
    return beginning(whole, data, tile.width)


def beginning(tile: Tile, data: bytes, width: int) -> bytes:
    """What `data` of a tile was when it was only `width` wide. Raises TileInvalid."""
    if tile.level == ENTRIES:
        entries = decode_bundle(tile, data)[:width]
        return data[: sum(LENGTH_BYTES + len(entry) for entry in entries)]
    decode_tile(tile, data)
    return data[: width * HASH_BYTES]


def fsck(
    read: Read,
    size: int,
    roots: Mapping[int, bytes] | None = None,
    *,
    partial: bool = True,
    each: Callable[[int, bytes], None] | None = None,
) -> Iterator[Flaw]:
    """Rebuild every hash of a log of `size` from its entries, and compare: with its tiles, and with the roots that its
    checkpoints have (by size). Yields what is wrong, as far as there are entries to go on from.

    partial: False where partial tiles of hashes are not kept, as before anything is published.
    each: is shown every entry with its index: the very bytes from which the roots are rebuilt.
    """
    rebuilt = _Rebuilt(read, partial)
    for tile in tiles_of(size):
        if tile.level != ENTRIES:
            break
        try:
            entries = decode_bundle(tile, read_tile(read, tile))
        except PeerFault as error:
            yield Flaw(tile.path, str(error))
            return  # every root from here on depends on what is not there
        for index, entry in enumerate(entries, tile.index * WIDTH):
            yield from rebuilt.append(leaf_hash(entry), roots or {})
            if each is not None:
                each(index, entry)
    yield from rebuilt.end()
    for beyond in sorted(over for over in roots or {} if over > size):
        yield Flaw("", f"a checkpoint covers {beyond} entries, and there are {size}")


class _Rebuilt:
    """The hashes as they should be: one unfinished tile at each level."""

    def __init__(self, read: Read, partial: bool) -> None:
        self._read = read
        self._partial = partial
        self._frontier = Frontier()
        self._rows: list[list[bytes]] = [[] for _ in range(MAX_LEVEL + 2)]
        self._done = [0] * (MAX_LEVEL + 2)

    def append(self, hashed: bytes, roots: Mapping[int, bytes]) -> Iterator[Flaw]:
        self._frontier = self._frontier.append(hashed)
        yield from self._grow(0, hashed)
        expected = roots.get(self._frontier.size)
        if expected is not None and expected != self._frontier.root():
            size, found = self._frontier.size, self._frontier.root().hex()
            yield Flaw("", f"the first {size} entries have the root {found}, a checkpoint says {expected.hex()}")

    def end(self) -> Iterator[Flaw]:
        for level, row in enumerate(self._rows):
            if row and self._partial:
                yield from self._compare(Tile(level, self._done[level], len(row)), row)

    def _grow(self, level: int, item: bytes) -> Iterator[Flaw]:
        row = self._rows[level]
        row.append(item)
        if len(row) == WIDTH:
            yield from self._compare(Tile(level, self._done[level]), row)
            above = tile_root(row)
            row.clear()
            self._done[level] += 1
            yield from self._grow(level + 1, above)

    def _compare(self, tile: Tile, row: list[bytes]) -> Iterator[Flaw]:
        try:
            found = decode_tile(tile, read_tile(self._read, tile))
        except PeerFault as error:
            yield Flaw(tile.path, str(error))
            return
        wrong = [at for at, (left, right) in enumerate(zip(found, row, strict=True)) if left != right]
        if wrong:
            yield Flaw(tile.path, f"hash {wrong[0]} of {tile.path} is not that of the entries under it")
