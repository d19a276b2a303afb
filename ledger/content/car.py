"""CAR v1, a file of blocks (https://ipld.io/specs/transport/car/carv1/): written in one way, read with distrust.

A header names the roots; then come the blocks, each as length, CID, bytes. The reader takes a stream and trusts nothing
of it: varints are minimal, the header is the one encoding of its roots, every block is hashed, lengths are bounded
before they are read, and the whole never exceeds the bytes that the caller allows. A block that comes twice is allowed
(Kubo sends them so by default) and counts twice; the writer never repeats one. Whether the blocks are those that the
roots need is for `CarSource` to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO

from ledger.content import varint
from ledger.content.cid import CID_BYTES, MAX_BLOCK_BYTES, Block, Cid
from ledger.content.errors import CarInvalid, CarrierLied
from ledger.content.reader import Limits

MAX_ROOTS = 4096
_READ_BYTES = 1 << 16
_CID_TAG = b"\xd8\x2a\x58\x25\x00"  # CBOR tag 42, 37 bytes, identity multibase


def car_budget(limits: Limits) -> int:
    """The most bytes that a CAR of content within `limits` can have: the files, their nodes, names and framing."""
    per_entry, per_leaf = 1024, 256
    leaves = limits.max_files + (limits.max_total_bytes >> 20)
    header = MAX_ROOTS * (len(_CID_TAG) + CID_BYTES)
    return header + limits.max_total_bytes + limits.max_files * (limits.max_depth + 1) * per_entry + leaves * per_leaf


def encode_header(roots: Iterable[Cid]) -> bytes:
    """Canonical DAG-CBOR of {"roots": […], "version": 1}, with its length before it."""
    listed = list(roots)
    cids = b"".join(_CID_TAG + cid.encode() for cid in listed)
    body = b"\xa2\x65roots" + _array_head(len(listed)) + cids + b"\x67version\x01"
    return varint.encode(len(body)) + body


def encode_block(block: Block) -> bytes:
    return varint.encode(CID_BYTES + len(block.data)) + block.cid.encode() + block.data


def write_car(sink: BinaryIO, roots: Iterable[Cid], blocks: Iterable[Block]) -> None:
    """Blocks in the order given; the caller sees to it that none comes twice."""
    sink.write(encode_header(roots))
    for block in blocks:
        sink.write(encode_block(block))


def file_chunks(source: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: source.read(_READ_BYTES), b"")


class CarReader:
    """Roots first, then blocks by iteration. Raises CarInvalid or BlockMismatch; `chunks` may raise its own errors."""

    def __init__(self, chunks: Iterable[bytes], max_bytes: int) -> None:
        self._bytes = _Bytes(chunks, max_bytes)
        self.roots = self._header()

    def __iter__(self) -> Iterator[Block]:
        while not self._bytes.at_end():
            size = self._bytes.varint()
            if not CID_BYTES <= size <= CID_BYTES + MAX_BLOCK_BYTES:
                raise CarInvalid(f"a CAR block of {size} bytes")
            cid = Cid.decode(self._bytes.exactly(CID_BYTES))
            data = self._bytes.exactly(size - CID_BYTES)
            cid.check(data)
            yield Block(cid, data)

    def _header(self) -> tuple[Cid, ...]:
        size = self._bytes.varint()
        most = len(encode_header(())) + 4 + MAX_ROOTS * (len(_CID_TAG) + CID_BYTES)
        if not 0 < size <= most:
            raise CarInvalid(f"a CAR header of {size} bytes")
        body = self._bytes.exactly(size)
        step = len(_CID_TAG) + CID_BYTES
        starts = range(len(body) - len(b"\x67version\x01") - step, len(b"\xa2\x65roots"), -step)
        found = [start for start in starts if body[start : start + len(_CID_TAG)] == _CID_TAG]
        roots = tuple(Cid.decode(body[start + len(_CID_TAG) : start + step]) for start in reversed(found))
        if encode_header(roots) != varint.encode(size) + body or not roots or len(set(roots)) != len(roots):
            raise CarInvalid("a CAR header is not version 1 with distinct roots in canonical DAG-CBOR")
        return roots


class CarSource:
    """The blocks of a CAR, in whatever order they are asked for; memory is bounded by the reader's `max_bytes`.

    Content in depth-first order is handed out as it arrives, so that a reader with limits stops the transfer as soon as
    a directory declares too much. `finish` refuses blocks that nobody asked for.
    """

    def __init__(self, reader: CarReader) -> None:
        self.roots = reader.roots
        self._blocks = iter(reader)
        self._held: dict[Cid, bytes] = {}
        self._asked: set[Cid] = set()

    def fetch(self, cid: Cid) -> bytes:
        """Raises CarInvalid when the CAR ends without it."""
        self._asked.add(cid)
        while cid not in self._held:
            block = next(self._blocks, None)
            if block is None:
                raise CarInvalid(f"the CAR ends without block {cid}")
            self._held[block.cid] = bytes(block.data)
        return self._held[cid]

    def finish(self) -> dict[Cid, bytes]:
        """Reads to the end; returns the blocks. Raises CarInvalid for one that no root needs."""
        for block in self._blocks:
            self._held.setdefault(block.cid, bytes(block.data))
        extra = self._held.keys() - self._asked
        if extra:
            raise CarInvalid(f"{len(extra)} blocks that no root needs, {min(extra)} among them")
        return self._held


class _Bytes:
    """Exact reads from a stream of chunks, up to a total."""

    def __init__(self, chunks: Iterable[bytes], max_bytes: int) -> None:
        self._chunks = iter(chunks)
        self._left = max_bytes
        self._buffer = bytearray()

    def exactly(self, count: int) -> bytes:
        if not self._fill(count):
            raise CarInvalid("a CAR is truncated")
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def varint(self) -> int:
        for count in range(1, varint.MAX_VARINT_BYTES + 1):
            if not self._fill(count):
                raise CarInvalid("a CAR is truncated")
            if self._buffer[count - 1] < 0x80:
                try:
                    return varint.decode(self.exactly(count), 0)[0]
                except ValueError as error:
                    raise CarInvalid(f"a CAR length is malformed: {error}") from error
        raise CarInvalid("a CAR length is longer than 9 bytes")

    def at_end(self) -> bool:
        return not self._fill(1)

    def _fill(self, count: int) -> bool:
        while len(self._buffer) < count:
            chunk = next(self._chunks, b"")
            if not chunk:
                return False
            self._left -= len(chunk)
            if self._left < 0:
                raise CarInvalid("a CAR has more bytes than its content can need")
            self._buffer += chunk
        return True


def _array_head(count: int) -> bytes:
    """The head of a CBOR array (RFC 8949, major type 4), as short as it can be."""
    if count < 24:
        return bytes((0x80 | count,))
    if count < 1 << 8:
        return bytes((0x98, count))
    if count < 1 << 16:
        return b"\x99" + count.to_bytes(2, "big")
    raise CarrierLied(f"{count} roots in one CAR")
