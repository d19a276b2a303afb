"""dag-pb nodes and the UnixFS message inside them, in their one canonical encoding.

dag-pb (https://ipld.io/specs/codecs/dag-pb/spec/): links first, then data; a link is hash, name, total size.
UnixFS (https://specs.ipfs.tech/unixfs/): type, data, file size, one size per link; the profile writes no more.
Decoding re-encodes and compares: what an encoder would not have written is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ledger.content import varint
from ledger.content.cid import CID_BYTES, Cid, CidInvalid
from ledger.content.errors import NotCanonicalBlock

_DIRECTORY, _FILE = 1, 2
_TYPES = {0: "a dag-pb raw leaf", 3: "a metadata node", 4: "a symbolic link", 5: "a HAMT-sharded directory"}
DIRECTORY_DATA = b"\x08\x01"


@dataclass(frozen=True)
class Link:
    """tree_bytes: dag-pb's Tsize, the bytes of the linked block and of everything below it."""

    cid: Cid
    name: str
    tree_bytes: int


@dataclass(frozen=True)
class Node:
    links: tuple[Link, ...]
    data: bytes


@dataclass(frozen=True)
class FileData:
    """A file split over its node's links; `sizes` are the file bytes below each of them."""

    size: int
    sizes: tuple[int, ...]


def encode_node(node: Node) -> bytes:
    return b"".join(_field(2, _encode_link(link)) for link in node.links) + _field(1, node.data)


def decode_node(block: bytes) -> Node:
    """Inverse of `encode_node`. Raises NotCanonicalBlock for anything else."""
    links: list[Link] = []
    data = b""
    for number, value in _fields(block):
        if number == 2 and isinstance(value, bytes):
            links.append(_decode_link(value))
        elif number == 1 and isinstance(value, bytes):
            data = value
        else:
            raise NotCanonicalBlock(f"a dag-pb node has no field {number} of this kind")
    node = Node(tuple(links), data)
    if encode_node(node) != block:
        raise NotCanonicalBlock("a dag-pb node is not in its canonical encoding")
    return node


def encode_file(data: FileData) -> bytes:
    sizes = b"".join(_number(4, size) for size in data.sizes)
    return _number(1, _FILE) + _number(3, data.size) + sizes


def decode_unixfs(data: bytes) -> FileData | None:
    """None for a plain directory. Raises NotCanonicalBlock for symbolic links, shards, modes, times and all else."""
    if data == DIRECTORY_DATA:
        return None
    kind, size, sizes = -1, -1, []
    for number, value in _fields(data):
        if not isinstance(value, int) or number not in (1, 3, 4):
            raise NotCanonicalBlock(f"UnixFS field {number} is not written by the profile (inline data, mode or time)")
        if number == 4:
            sizes.append(value)
        kind, size = (value if number == 1 else kind), (value if number == 3 else size)
    if kind != _FILE:
        raise NotCanonicalBlock(f"{_TYPES.get(kind, f'UnixFS type {kind}')} where a plain directory or file belongs")
    decoded = FileData(max(size, 0), tuple(sizes))
    if encode_file(decoded) != data:
        raise NotCanonicalBlock("a UnixFS message is not in its canonical encoding")
    return decoded


def _encode_link(link: Link) -> bytes:
    return _field(1, link.cid.encode()) + _field(2, link.name.encode()) + _number(3, link.tree_bytes)


def _decode_link(data: bytes) -> Link:
    """Out of order or repeated fields are found when the whole node is encoded again."""
    found: dict[int, bytes | int] = dict(_fields(data))
    hashed, name, size = found.get(1), found.get(2), found.get(3)
    if len(found) != 3 or not isinstance(hashed, bytes) or not isinstance(name, bytes) or not isinstance(size, int):
        raise NotCanonicalBlock("a dag-pb link has exactly a hash, a name and a size")
    if len(hashed) != CID_BYTES:
        raise NotCanonicalBlock(f"a dag-pb link has a CID of {len(hashed)} bytes; the profile's have {CID_BYTES}")
    try:
        return Link(Cid.decode(hashed), name.decode(), size)
    except (CidInvalid, UnicodeDecodeError) as error:
        raise NotCanonicalBlock(f"a dag-pb link is malformed: {error}") from error


def _field(number: int, value: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + varint.encode(len(value)) + value


def _number(number: int, value: int) -> bytes:
    return bytes((number << 3,)) + varint.encode(value)


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """The fields of a protobuf message: wire type 0 as int, 2 as bytes; no other occurs here."""
    offset = 0
    try:
        while offset < len(data):
            key, offset = varint.decode(data, offset)
            value, offset = varint.decode(data, offset)
            if key & 7 == 0:
                yield key >> 3, value
            elif key & 7 == 2 and value <= len(data) - offset:
                yield key >> 3, data[offset : offset + value]
                offset += value
            else:
                raise ValueError("truncated field or unknown wire type")
    except ValueError as error:
        raise NotCanonicalBlock(f"not a protobuf message of the profile: {error}") from error
