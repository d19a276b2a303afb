"""The content store: one interface, whoever holds the bytes, and the twin that holds them in memory.

A directory is named by 32 bytes, the digest of its dag-pb root; a single block of at most one chunk (a config) by the
SHA-256 of its bytes. What `put_…` returns is stored when it returns. What `get_…` returns has been verified from the
digest down, and is within the caller's limits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import BinaryIO, Protocol

from ledger.content.car import CarReader, CarSource, car_budget, encode_block, encode_header, file_chunks
from ledger.content.cid import Block, Cid, Codec
from ledger.content.errors import (
    Attempt,
    BlockMismatch,
    CarInvalid,
    ContentMissing,
    LimitExceeded,
    NotPublishable,
    StoreDamaged,
)
from ledger.content.reader import Fetch, Limits, Reader, read_directory
from ledger.content.unixfs import MAX_LEVELS, PROFILE, directory_blocks, edited_blocks

EXPORT_LIMITS = Limits(max_files=1 << 20, max_file_bytes=1 << 34, max_total_bytes=1 << 36, max_depth=MAX_LEVELS)
Root = Cid | bytes  # 32 bytes alone name a directory


class ContentStore(Protocol):
    """Raises ContentMissing, ContentInvalid (the author's fault), LocalFault for this machine's own trouble."""

    def put_directory(self, files: Mapping[str, bytes]) -> bytes:
        """32-byte digest of the directory's root. Paths use "/" between names."""

    def get_directory(self, digest: bytes, limits: Limits) -> dict[str, bytes]: ...

    def put_raw(self, data: bytes) -> bytes:
        """SHA-256 of `data`, at most 1 MiB."""

    def get_raw(self, digest: bytes, max_bytes: int) -> bytes: ...

    def export_car(self, roots: Iterable[Root], sink: BinaryIO) -> None:
        """Writes the whole content below each root as CAR v1. A sink left by an error holds no valid CAR."""

    def import_car(self, source: BinaryIO, limits: Limits) -> list[Cid]:
        """Stores a CAR and returns its roots; stores nothing unless every block of it is right and needed.

        `limits` bounds all roots together. Raises CarrierLied for a bad CAR.
        """


class PutBlocks(Protocol):
    """Takes blocks of which it has what is below them."""

    def put_blocks(self, blocks: Iterable[Block], roots: Sequence[Block]) -> None: ...


class BlockStore(ABC):
    """A ContentStore over blocks that are at hand."""

    @abstractmethod
    def load(self, cid: Cid) -> bytes:
        """What is kept under `cid`, not verified yet. Raises ContentMissing."""

    @abstractmethod
    def damaged(self, cid: Cid) -> StoreDamaged:
        """The error for a block that is not what `cid` names."""

    def get_block(self, cid: Cid) -> bytes:
        """The bytes that `cid` names, verified. Raises ContentMissing or StoreDamaged."""
        data = self.load(cid)
        if sha256(data).digest() != cid.digest:
            raise self.damaged(cid)
        return data

    @abstractmethod
    def put_blocks(self, blocks: Iterable[Block], roots: Sequence[Block]) -> None:
        """Stores `roots` after `blocks` are safe, so that a root that is there has everything below it."""

    def put_directory(self, files: Mapping[str, bytes]) -> bytes:
        root, others = directory_blocks(files)
        self.put_blocks(others, [root])
        return root.cid.digest

    def edit_directory(
        self, digest: bytes | None, changes: Mapping[str, bytes | None], mirrors: Sequence[PutBlocks] = ()
    ) -> bytes:
        """Digest of the directory `digest` (None: an empty one) with these files in their places, None: taken away.

        Costs what changes, not what is there. `mirrors` must have the rest already. Raises ContentMissing where a
        folder on the way is not here.
        """
        root, others = edited_blocks(None if digest is None else Cid.directory(digest), changes, self.get_block)
        for store in (self, *mirrors):
            store.put_blocks(others, [root])
        return root.cid.digest

    def get_directory(self, digest: bytes, limits: Limits) -> dict[str, bytes]:
        try:
            return read_directory(Cid.directory(digest), self.load, limits)
        except BlockMismatch as mismatch:
            raise self.damaged(mismatch.cid) from mismatch

    def put_raw(self, data: bytes) -> bytes:
        block = raw_block(data)
        self.put_blocks([], [block])
        return block.cid.digest

    def get_raw(self, digest: bytes, max_bytes: int) -> bytes:
        return bounded(self.get_block(Cid.raw(digest)), max_bytes)

    def export_car(self, roots: Iterable[Root], sink: BinaryIO) -> None:
        wanted = distinct_roots(roots)
        sink.write(encode_header(wanted))
        for block in dag_blocks(wanted, self.get_block, EXPORT_LIMITS):
            sink.write(encode_block(block))

    def import_car(self, source: BinaryIO, limits: Limits) -> list[Cid]:
        roots, blocks = read_car(source, limits)
        tops = [Block(cid, blocks.pop(cid)) for cid in roots]
        self.put_blocks((Block(cid, data) for cid, data in blocks.items()), tops)
        return list(roots)


class MemoryStore(BlockStore):
    """Everything in memory; the twin of the embedded store in tests."""

    def __init__(self) -> None:
        self.blocks: dict[bytes, bytes] = {}

    def load(self, cid: Cid) -> bytes:
        try:
            return self.blocks[cid.digest]
        except KeyError:
            raise ContentMissing(cid, [Attempt("memory", "not stored")]) from None

    def damaged(self, cid: Cid) -> StoreDamaged:
        return StoreDamaged(f"the block {cid} in memory is not what its name says")

    def put_blocks(self, blocks: Iterable[Block], roots: Sequence[Block]) -> None:
        for block in (*blocks, *roots):
            self.blocks[block.cid.digest] = bytes(block.data)


class RemoteStore(ABC):
    """What stores have in common whose blocks are not at hand."""

    @abstractmethod
    def get_directory(self, digest: bytes, limits: Limits) -> dict[str, bytes]: ...

    @abstractmethod
    def get_raw(self, digest: bytes, max_bytes: int) -> bytes: ...

    def export_car(self, roots: Iterable[Root], sink: BinaryIO) -> None:
        """Fetches everything first, into memory."""
        wanted = distinct_roots(roots)
        fetched = MemoryStore()
        for root in wanted:
            if root.codec is Codec.RAW:
                fetched.put_raw(self.get_raw(root.digest, PROFILE.chunk_bytes))
            else:
                fetched.put_directory(self.get_directory(root.digest, EXPORT_LIMITS))
        fetched.export_car(wanted, sink)


def raw_block(data: bytes) -> Block:
    if len(data) > PROFILE.chunk_bytes:
        raise NotPublishable(f"{len(data)} bytes do not fit one raw block of {PROFILE.chunk_bytes}")
    return Block.of(Codec.RAW, data)


def bounded(data: bytes, max_bytes: int) -> bytes:
    if len(data) > max_bytes:
        raise LimitExceeded(f"a block of {len(data)} bytes where at most {max_bytes} are allowed")
    return data


def distinct_roots(roots: Iterable[Root]) -> tuple[Cid, ...]:
    return tuple(dict.fromkeys(root if isinstance(root, Cid) else Cid.directory(root) for root in roots))


def walk(reader: Reader, root: Cid) -> None:
    """Read what `root` names, a directory or a single raw block, within the reader's budget."""
    if root.codec is Codec.RAW:
        reader.raw(root)
    else:
        reader.directory(root)


def dag_blocks(roots: Sequence[Cid], fetch: Fetch, limits: Limits) -> Iterator[Block]:
    """Every block below the roots once, in depth-first order; all are verified before the first is handed on."""
    for cid in dag_sizes(roots, fetch, limits):
        yield Block(cid, fetch(cid))


def dag_sizes(roots: Sequence[Cid], fetch: Fetch, limits: Limits) -> dict[Cid, int]:
    """The bytes of every block below the roots, in depth-first order, after reading and verifying all of them."""
    found: dict[Cid, int] = {}

    def recording(cid: Cid) -> bytes:
        data = fetch(cid)
        found.setdefault(cid, len(data))
        return data

    reader = Reader(recording, limits, keep=False)
    for root in roots:
        walk(reader, root)
    return found


def read_car(source: BinaryIO, limits: Limits) -> tuple[tuple[Cid, ...], dict[Cid, bytes]]:
    """(roots, all blocks) of a CAR that holds exactly what its roots need. Raises CarrierLied or ContentInvalid."""
    car = CarSource(CarReader(file_chunks(source), car_budget(limits)))
    reader = Reader(car.fetch, limits, keep=False)
    for root in car.roots:
        walk(reader, root)
    return car.roots, car.finish()


def read_streamed(root: Cid, chunks: Iterable[bytes], limits: Limits) -> dict[str, bytes]:
    """The files of `root` from a CAR that is arriving, verified as it arrives; what comes after them is not read."""
    car = CarSource(CarReader(chunks, car_budget(limits)))
    if car.roots != (root,):
        raise CarInvalid(f"a CAR of {car.roots[0]} where {root} was asked for")
    return read_directory(root, car.fetch, limits)
