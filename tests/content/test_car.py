"""CAR files: one way to write them, and no way to sneak anything past the reader."""

from __future__ import annotations

import io

import pytest

from ledger.content import BlockMismatch, CarInvalid, CarrierLied, Cid, CidInvalid, Limits, MemoryStore
from ledger.content.car import CarReader, encode_block, encode_header
from ledger.content.cid import MAX_BLOCK_BYTES, Block, Codec
from ledger.content.unixfs import directory_blocks

FILES = {"a": b"first", "d/b": b"second"}


@pytest.fixture
def limits() -> Limits:
    return Limits(8, 1000, 1000, 3)


def parts() -> tuple[Cid, list[Block]]:
    root, others = directory_blocks(FILES)
    return root.cid, [root, *others]


def car(roots: list[Cid], blocks: list[Block]) -> bytes:
    return encode_header(roots) + b"".join(map(encode_block, blocks))


def read(data: bytes, limits: Limits) -> dict[str, bytes]:
    store = MemoryStore()
    (root,) = store.import_car(io.BytesIO(data), limits)
    return store.get_directory(root.digest, limits)


def test_any_order_of_blocks_and_repetitions_are_read(limits: Limits) -> None:
    root, blocks = parts()
    assert read(car([root], blocks), limits) == FILES
    assert read(car([root], [*reversed(blocks), *blocks]), limits) == FILES


def test_the_writer_never_repeats_a_block_and_walks_depth_first(limits: Limits) -> None:
    store = MemoryStore()
    digest = store.put_directory({"a": b"same", "b/c": b"same", "d": b"other"})
    sink = io.BytesIO()
    store.export_car([digest], sink)
    blocks = list(CarReader([sink.getvalue()], 1 << 20))
    assert len({block.cid for block in blocks}) == len(blocks) == 4
    assert [bytes(block.data) for block in blocks if block.cid.codec is Codec.RAW] == [b"same", b"other"]
    assert blocks[0].cid == Cid.directory(digest)


def test_the_header_is_that_of_the_specification() -> None:
    """Canonical DAG-CBOR: a map of "roots", an array of CIDs under tag 42, then "version" 1."""
    cid = Cid.raw(bytes(32))
    assert encode_header([cid]).hex() == ("3aa265726f6f747381d82a58250001551220" + "00" * 32 + "6776657273696f6e01")


def test_every_truncation_is_refused(limits: Limits) -> None:
    root, blocks = parts()
    whole = car([root], blocks)
    for size in range(len(whole)):
        with pytest.raises(CarInvalid, match=r"truncated|ends without"):
            read(whole[:size], limits)


@pytest.mark.parametrize("count", [1, 2, 24, 256, 4096])
def test_headers_of_any_number_of_roots_are_read_back(count: int) -> None:
    roots = tuple(Cid.of(Codec.RAW, i.to_bytes(4, "big")) for i in range(count))
    assert CarReader([encode_header(roots)], 1 << 20).roots == roots


def changed(which: str) -> bytes:
    root, blocks = parts()
    stranger = Block.of(Codec.RAW, b"stranger")
    forged = Block(blocks[-1].cid, b"forged")
    head, body = encode_header([root]), b"".join(map(encode_block, blocks))
    return {
        "a block nobody needs": car([root], [*blocks, stranger]),
        "a block nobody needs first": car([root], [stranger, *blocks]),
        "a forged block": car([root], [*blocks[:-1], forged]),
        "trailing bytes": head + body + b"\0",
        "a zero frame": head + b"\0" + body,
        "a huge frame": head + b"\xff\xff\xff\xff\x7f" + body,
        "an endless varint": head + b"\xff" * 12 + body,
        "a padded varint": head + b"\xa9\x00" + body,
        "no roots": car([], blocks),
        "a root twice": car([root, root], blocks),
        "a missing root": car([root, stranger.cid], blocks),
        "version 2": head.replace(b"version\x01", b"version\x02") + body,
        "other keys first": b"\x11\xa2\x67version\x01\x65roots\x80" + body,
        "an empty header": b"\0" + body,
        "a huge header": b"\xff\xff\xff\x7f" + body,
        "a block over the largest": head + encode_block(Block.of(Codec.RAW, bytes(MAX_BLOCK_BYTES + 1))),
        "another hash": head + b"\x24\x01\x55\x1b\x20" + bytes(32) + body,
        "junk up to the limit": car([root], [Block.of(Codec.RAW, bytes([i]) * 4096) for i in range(255)] + blocks),
        "one block a million times": car([root], [blocks[-1]] * 100_000 + blocks),
        "nothing": b"",
    }[which]


@pytest.mark.parametrize(
    ("which", "error", "message"),
    [
        ("a block nobody needs", CarInvalid, "1 blocks that no root needs"),
        ("a block nobody needs first", CarInvalid, "1 blocks that no root needs"),
        ("a forged block", BlockMismatch, "do not hash"),
        ("trailing bytes", CarInvalid, "a CAR block of 0 bytes"),
        ("a zero frame", CarInvalid, "a CAR block of 0 bytes"),
        ("a huge frame", CarInvalid, "a CAR block of 34359738367 bytes"),
        ("an endless varint", CarInvalid, "longer than 9 bytes"),
        ("a padded varint", CarInvalid, "not minimal"),
        ("no roots", CarInvalid, "distinct roots"),
        ("a root twice", CarInvalid, "distinct roots"),
        ("a missing root", CarInvalid, "ends without block"),
        ("version 2", CarInvalid, "version 1"),
        ("other keys first", CarInvalid, "version 1"),
        ("an empty header", CarInvalid, "header of 0 bytes"),
        ("a huge header", CarInvalid, "header of 268435455 bytes"),
        ("a block over the largest", CarInvalid, "a CAR block of"),
        ("another hash", CidInvalid, "sha2-256"),
        ("junk up to the limit", CarInvalid, "more bytes than its content can need"),
        ("one block a million times", CarInvalid, "more bytes than its content can need"),
        ("nothing", CarInvalid, "truncated"),
    ],
)
def test_each_change_to_a_car_is_named(which: str, error: type[CarrierLied], message: str, limits: Limits) -> None:
    with pytest.raises(error, match=message):
        read(changed(which), limits)
