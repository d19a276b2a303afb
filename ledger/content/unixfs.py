"""The importer of profile unixfs-v1-2025 (IPIP-499): the same files always give the same blocks and the same CID.

CIDv1, raw leaves, 1 MiB chunks, balanced trees of 1024 links, plain directories sorted by name. A file of at most one
chunk is one raw leaf. Directories whose block would pass 256 KiB are sharded by Kubo; Candor refuses them instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ledger.content.cid import MAX_BLOCK_BYTES, Block, Cid, Codec
from ledger.content.dagpb import (
    DIRECTORY_DATA,
    FileData,
    Link,
    Node,
    decode_node,
    decode_unixfs,
    encode_file,
    encode_node,
)
from ledger.content.errors import NameRefused, NotCanonicalBlock, NotPublishable

MAX_DIRECTORY_BYTES = 256 << 10
MAX_NAME_BYTES = 255
MAX_LEVELS = 32

Put = Callable[[Block], None]
Read = Callable[[int], bytes | memoryview]
Tree = dict[str, "bytes | Tree"]
Changes = dict[str, "bytes | Changes | None"]
Load = Callable[[Cid], bytes]  # verified


@dataclass(frozen=True)
class Layout:
    """chunk_bytes: size of every leaf but the last of a file; links: children of every full node."""

    chunk_bytes: int = 1 << 20
    links: int = 1024

    def levels(self, size: int) -> int:
        """Levels of nodes above the leaves of a file of `size` bytes; every leaf is that deep."""
        levels, span = 0, self.chunk_bytes
        while span < size:
            levels, span = levels + 1, span * self.links
        return levels

    def parts(self, size: int, levels: int) -> tuple[int, ...]:
        """File bytes below each child of a node that has `levels` levels below it and `size` bytes in all."""
        span: int = self.chunk_bytes * self.links ** (levels - 1)
        full, rest = divmod(size, span)
        return (span,) * full + ((rest,) if rest else ())


PROFILE = Layout()


def directory_blocks(files: Mapping[str, bytes]) -> tuple[Block, list[Block]]:
    """(root, the other blocks). Raises NotPublishable for a path or a folder that the profile cannot hold."""
    blocks: list[Block] = []
    add_directory(_tree(files), blocks.append)
    return blocks[-1], blocks[:-1]


def edited_blocks(root: Cid | None, changes: Mapping[str, bytes | None], load: Load) -> tuple[Block, list[Block]]:
    """(root, the other new blocks) of the directory `root` with these files put in their places, None: taken away.

    Reads and writes only the folders on the way to what changes; the same bytes as if all were added at once. Raises
    NotPublishable, and what `load` raises.
    """
    blocks: list[Block] = []
    edited = _edit(root, _tree(changes), load, blocks.append)
    if edited is None:
        _put_node(Node((), DIRECTORY_DATA), blocks.append, MAX_DIRECTORY_BYTES)
    return blocks[-1], blocks[:-1]


def _edit(folder: Cid | None, changes: Changes, load: Load, put: Put) -> Link | None:
    """None for a folder in which nothing is left: it goes too."""
    links = {link.name: link for link in (_folder_links(folder, load(folder)) if folder else ())}
    for name, change in changes.items():
        if isinstance(change, dict):
            found = links.get(name)
            changed = _edit(found.cid if found else None, change, load, put)
        else:
            changed = None if change is None else add_bytes(change, put)
        if changed is None:
            links.pop(name, None)
        else:
            links[name] = Link(changed.cid, name, changed.tree_bytes)
    ordered = tuple(links[name] for name in sorted(links, key=str.encode))
    return _put_node(Node(ordered, DIRECTORY_DATA), put, MAX_DIRECTORY_BYTES) if ordered else None


def _folder_links(cid: Cid, block: bytes) -> tuple[Link, ...]:
    node = decode_node(block) if cid.codec is Codec.DAG_PB else None
    if node is None or decode_unixfs(node.data) is not None:
        raise NotCanonicalBlock(f"{cid} is a file where a folder belongs")
    return node.links


def add_directory(tree: Tree, put: Put) -> Link:
    """Puts children before parents, the root last."""
    links = []
    for name in sorted(tree, key=str.encode):
        entry = tree[name]
        link = add_directory(entry, put) if isinstance(entry, dict) else add_bytes(entry, put)
        links.append(Link(link.cid, name, link.tree_bytes))
    return _put_node(Node(tuple(links), DIRECTORY_DATA), put, MAX_DIRECTORY_BYTES)


def add_bytes(data: bytes, put: Put, layout: Layout = PROFILE) -> Link:
    chunks = _slices(memoryview(data), layout.chunk_bytes)
    return add_file(len(data), lambda _: next(chunks), put, layout)


def add_file(size: int, read: Read, put: Put, layout: Layout = PROFILE) -> Link:
    """One file of known size, in constant memory; `read(n)` returns its next n bytes, in order."""
    return _add_part(size, layout.levels(size), read, put, layout)


def check_name(name: str) -> None:
    """Raises NameRefused for a name that means something to a file system, a terminal or a reader's eye."""
    if name in ("", ".", ".."):
        raise NameRefused(f"{name!r} is not a file name")
    if len(name.encode(errors="replace")) > MAX_NAME_BYTES:
        raise NameRefused(f"a name is longer than {MAX_NAME_BYTES} bytes: {name[:40]!r}…")
    if any(_refused(ord(char)) for char in name):
        raise NameRefused(f"a name holds a separator, a control or an invisible character: {name!r}")


def _refused(point: int) -> bool:
    """Separators, C0 and C1 controls, line separators, direction marks, zero-width characters, surrogates."""
    if point < 0x80:
        return point < 0x20 or point in (0x2F, 0x5C, 0x7F)
    return (
        point <= 0x9F
        or point in (0xAD, 0x61C, 0xFEFF)
        or 0x200B <= point <= 0x200F
        or 0x2028 <= point <= 0x202E
        or 0x2060 <= point <= 0x206F
        or 0xD800 <= point <= 0xDFFF
    )


def _tree(files: Mapping[str, Any]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for path, data in files.items():
        *folders, name = path.split("/")
        if len(folders) >= MAX_LEVELS:
            raise NotPublishable(f"more than {MAX_LEVELS} levels: {path[:80]!r}")
        folder = root
        for part in folders:
            folder = _folder(folder, part, path)
        _check_new(folder, name, path)
        folder[name] = data
    return root


def _folder(parent: dict[str, Any], name: str, path: str) -> dict[str, Any]:
    if name not in parent:
        _check_new(parent, name, path)
        parent[name] = {}
    entry = parent[name]
    if not isinstance(entry, dict):
        raise NotPublishable(f"{path!r} is inside a file of the same bundle")
    return entry


def _check_new(parent: dict[str, Any], name: str, path: str) -> None:
    try:
        check_name(name)
    except NameRefused as error:
        raise NotPublishable(f"{path[:300]!r}: {error}") from error
    if name in parent:
        raise NotPublishable(f"{path!r} is both a file and a folder of the same bundle")


def _add_part(size: int, levels: int, read: Read, put: Put, layout: Layout) -> Link:
    if levels == 0:
        leaf = Block.of(Codec.RAW, read(size) if size else b"")
        put(leaf)
        return Link(leaf.cid, "", size)
    sizes = layout.parts(size, levels)
    links = tuple(_add_part(part, levels - 1, read, put, layout) for part in sizes)
    return _put_node(Node(links, encode_file(FileData(size, sizes))), put, MAX_BLOCK_BYTES)


def _put_node(node: Node, put: Put, max_bytes: int) -> Link:
    data = encode_node(node)
    if len(data) > max_bytes:
        raise NotPublishable(f"{len(node.links)} entries need a sharded directory, which Candor does not write")
    block = Block.of(Codec.DAG_PB, data)
    put(block)
    return Link(block.cid, "", len(data) + sum(link.tree_bytes for link in node.links))


def _slices(view: memoryview, step: int) -> Iterator[memoryview]:
    return (view[start : start + step] for start in range(0, len(view), step))


def names_sorted(names: Iterable[str]) -> bool:
    """Strictly ascending by UTF-8 bytes: sorted and without repetition."""
    encoded = [name.encode() for name in names]
    return all(left < right for left, right in pairwise(encoded))
