"""Directories that no honest importer writes. Their DAGs are made by hand: nothing here reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from devnet.forgeries import Honest
from ledger.bundle import TRAJECTORY
from ledger.content.cid import Block, Codec
from ledger.content.dagpb import DIRECTORY_DATA, FileData, Link, Node, encode_file, encode_node

CHUNK: Final = 1 << 20


class BlockSink(Protocol):
    """The part of a store that takes hand-made blocks."""

    def put_blocks(self, blocks: list[Block], roots: list[Block]) -> None: ...

    def put_directory(self, files: Mapping[str, bytes]) -> bytes: ...


def escaping_path(honest: Honest, store: BlockSink) -> bytes:
    """The honest files, and an entry named `..` beside them."""
    entries = {name: _leaf(data) for name, data in honest.files.items() if "/" not in name}
    return _put(store, entries | {"..": _leaf(b"root::0:0\n")})


def zip_bomb(honest: Honest, store: BlockSink) -> bytes:
    """A trajectory of a tebibyte: two small nodes, each of whose 1,024 links is the same block below it."""
    leaf = Block.of(Codec.RAW, bytes(CHUNK))
    gibibyte = _repeat(leaf, CHUNK, CHUNK)
    tebibyte = _repeat(gibibyte, CHUNK << 10, 1024 * CHUNK + len(gibibyte.data))
    store.put_blocks([leaf, gibibyte], [])
    entries = {name: _leaf(data) for name, data in honest.files.items() if "/" not in name}
    return _put(store, entries | {TRAJECTORY.replace("/", "-"): tebibyte})


HOSTILE_DIRECTORIES: Final[dict[str, Callable[[Honest, BlockSink], bytes]]] = {
    "path-escape": escaping_path,
    "zip-bomb": zip_bomb,
}


def _leaf(data: bytes) -> Block:
    return Block.of(Codec.RAW, data)


def _repeat(child: Block, file_bytes: int, tree_bytes: int) -> Block:
    """A file node of 1,024 links to one and the same child."""
    links = (Link(child.cid, "", tree_bytes),) * 1024
    return Block.of(
        Codec.DAG_PB, encode_node(Node(links, encode_file(FileData(1024 * file_bytes, (file_bytes,) * 1024))))
    )


def _put(store: BlockSink, entries: Mapping[str, Block]) -> bytes:
    names = sorted(entries, key=str.encode)
    links = tuple(Link(entries[name].cid, name, len(entries[name].data)) for name in names)
    root = Block.of(Codec.DAG_PB, encode_node(Node(links, DIRECTORY_DATA)))
    store.put_blocks(list(entries.values()), [root])
    return root.cid.digest
