"""The one verifier: a directory, by its digest, from any source of blocks, into files; or a named refusal.

Every block is checked against its CID, every node against its one encoding, every tree against the one layout that the
importer gives to a file of that size. So a digest names exactly one set of files, and reading what was read and
importing it again gives the same digest. Sizes are declared above and confirmed below: limits are applied to what is
declared before anything of it is fetched, and no block is larger than MAX_BLOCK_BYTES. The work is bounded by the
limits whatever the DAG looks like, also when it links one block a million times: every folder holds at least one file,
and every link to a file counts in full.

    law                                   error
    block hashes to its CID               BlockMismatch (the carrier's fault)
    one encoding, one layout              NotCanonicalBlock
    names are harmless and sorted         NameRefused, NotCanonicalBlock
    files, bytes and levels in limits     LimitExceeded
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ledger.content.cid import Cid, Codec
from ledger.content.dagpb import FileData, Link, Node, decode_node, decode_unixfs
from ledger.content.errors import LimitExceeded, NotCanonicalBlock
from ledger.content.unixfs import MAX_DIRECTORY_BYTES, PROFILE, Layout, check_name, names_sorted

Fetch = Callable[[Cid], bytes]  # at most MAX_BLOCK_BYTES, or an error; the reader checks the digest itself


@dataclass(frozen=True)
class Limits:
    """What a reader is willing to hold. max_depth: names in the longest path; "candor/config.json" has two."""

    max_files: int
    max_file_bytes: int
    max_total_bytes: int
    max_depth: int


def read_directory(root: Cid, fetch: Fetch, limits: Limits, layout: Layout = PROFILE) -> dict[str, bytes]:
    """path -> bytes, in canonical order. Raises ContentInvalid, BlockMismatch, or whatever `fetch` raises."""
    reader = Reader(fetch, limits, layout)
    reader.directory(root)
    return reader.files


def read_file(root: Cid, path: str, fetch: Fetch, limits: Limits) -> bytes | None:
    """One file below a directory, and no more blocks than lead there; None where the directory has no such name. The
    folders on the way are not read whole, so what they declare of other names stays unchecked."""
    return Reader(fetch, limits).file(root, path)


@dataclass
class Reader:
    """One budget, spent by every tree read through it."""

    fetch: Fetch
    limits: Limits
    layout: Layout = PROFILE
    keep: bool = True  # False: verify and throw the bytes away
    files: dict[str, bytes] = field(default_factory=dict)
    entries_seen: int = 0
    bytes_seen: int = 0

    def raw(self, cid: Cid) -> bytes:
        """A single raw block, within the limits for a file."""
        self._spend(1, "a block")
        data = self._block(cid)
        self._take(len(data), "a block")
        return data

    def directory(self, root: Cid) -> int:
        """Reads the whole tree; returns its bytes, blocks of every level counted."""
        if root.codec is not Codec.DAG_PB:
            raise NotCanonicalBlock(f"{root} is not a directory: its codec is raw")
        block = self._block(root)
        node = decode_node(block)
        if decode_unixfs(node.data) is not None:
            raise NotCanonicalBlock(f"{root} is a file where a directory belongs")
        return self._directory(block, node, "", 0)

    def file(self, root: Cid, path: str) -> bytes | None:
        *folders, name = path.split("/")
        if len(folders) >= self.limits.max_depth:
            raise LimitExceeded(f"{path}: more than {self.limits.max_depth} levels")
        node, at = self._folder(root, "the root"), ""
        for folder in folders:
            link = next((link for link in node.links if link.name == folder), None)
            if link is None:
                return None
            at = f"{at}/{folder}" if at else folder
            node = self._folder(link.cid, at)
        found = next((link for link in node.links if link.name == name), None)
        if found is None:
            return None
        if found.cid.codec is Codec.DAG_PB and decode_unixfs(decode_node(self._block(found.cid)).data) is None:
            raise NotCanonicalBlock(f"{path} is a directory where a file belongs")
        self._spend(1, path)
        self._entry(found, at, len(folders))
        return self.files[path]

    def _folder(self, cid: Cid, where: str) -> Node:
        """A directory's own block, with its names checked, and nothing below it."""
        if cid.codec is not Codec.DAG_PB:
            raise NotCanonicalBlock(f"{where} is not a directory: its codec is raw")
        block = self._block(cid)
        node = decode_node(block)
        if decode_unixfs(node.data) is not None:
            raise NotCanonicalBlock(f"{where} is a file where a directory belongs")
        self._check_names(block, node, where)
        return node

    def _check_names(self, block: bytes, node: Node, where: str) -> None:
        if len(block) > MAX_DIRECTORY_BYTES:
            raise NotCanonicalBlock(f"{where}: a plain directory above {MAX_DIRECTORY_BYTES} bytes")
        for link in node.links:
            check_name(link.name)
        if not names_sorted(link.name for link in node.links):
            raise NotCanonicalBlock(f"{where}: names are not unique and sorted")

    def _directory(self, block: bytes, node: Node, path: str, depth: int) -> int:
        where = path or "the root"
        if depth >= self.limits.max_depth and node.links:
            raise LimitExceeded(f"{where}: more than {self.limits.max_depth} levels")
        self._check_names(block, node, where)
        if not node.links and depth:
            raise NotCanonicalBlock(f"{where}: an empty directory below the root")
        self._spend(len(node.links), where)
        return len(block) + sum(self._entry(link, path, depth) for link in node.links)

    def _entry(self, link: Link, parent: str, depth: int) -> int:
        path = f"{parent}/{link.name}" if parent else link.name
        if link.cid.codec is Codec.RAW:
            return self._take_file(path, link.tree_bytes, 0, link)
        block = self._block(link.cid)
        node = decode_node(block)
        data = decode_unixfs(node.data)
        if data is None:
            self.entries_seen -= 1  # a folder is not a file; it holds at least one, counted below
            return _same(self._directory(block, node, path, depth + 1), link.tree_bytes, path)
        levels = self.layout.levels(data.size)
        if levels == 0:
            raise NotCanonicalBlock(f"{path}: {data.size} bytes belong in one raw leaf")
        return self._take_file(path, data.size, levels, link)

    def _take_file(self, path: str, size: int, levels: int, link: Link) -> int:
        self._take(size, path)
        if levels == 0 and size > self.layout.chunk_bytes:
            raise NotCanonicalBlock(f"{path}: a raw leaf of {size} bytes is longer than one chunk")
        parts: list[bytes] = []
        tree_bytes = self._part(link, size, levels, path, parts)
        if self.keep:
            self.files[path] = parts[0] if len(parts) == 1 else b"".join(parts)
        return tree_bytes

    def _part(self, link: Link, size: int, levels: int, path: str, parts: list[bytes]) -> int:
        """One subtree of a file, of exactly `size` file bytes in exactly `levels` levels of nodes."""
        if link.cid.codec is not (Codec.DAG_PB if levels else Codec.RAW):
            raise NotCanonicalBlock(f"{path}: a leaf where a node belongs, or a node where a leaf belongs")
        if levels == 0:
            leaf = self._block(link.cid)
            if self.keep:
                parts.append(leaf)
            return _same(_same(len(leaf), size, path), link.tree_bytes, path)
        block = self._block(link.cid)
        node = decode_node(block)
        sizes = self.layout.parts(size, levels)
        if decode_unixfs(node.data) != FileData(size, sizes) or len(node.links) != len(sizes):
            raise NotCanonicalBlock(f"{path}: a file of {size} bytes has another layout")
        if any(child.name for child in node.links):
            raise NotCanonicalBlock(f"{path}: a part of a file has a name")
        below = sum(
            self._part(child, part, levels - 1, path, parts) for child, part in zip(node.links, sizes, strict=True)
        )
        return _same(len(block) + below, link.tree_bytes, path)

    def _block(self, cid: Cid) -> bytes:
        data = self.fetch(cid)
        cid.check(data)
        return data

    def _spend(self, entries: int, where: str) -> None:
        self.entries_seen += entries
        if self.entries_seen > self.limits.max_files:
            raise LimitExceeded(f"{where}: more than {self.limits.max_files} files")

    def _take(self, size: int, where: str) -> None:
        self.bytes_seen += size
        if size > self.limits.max_file_bytes:
            raise LimitExceeded(f"{where}: {size} bytes where at most {self.limits.max_file_bytes} are allowed")
        if self.bytes_seen > self.limits.max_total_bytes:
            raise LimitExceeded(f"{where}: more than {self.limits.max_total_bytes} bytes in all")


def _same(found: int, declared: int, path: str) -> int:
    if found != declared:
        raise NotCanonicalBlock(f"{path}: {declared} bytes declared, {found} found")
    return found
