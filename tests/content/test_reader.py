"""The one verifier: each law is broken by one change to honest blocks, and answered by that law's own error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ledger.content import (
    BlockMismatch,
    Cid,
    Codec,
    LimitExceeded,
    Limits,
    NameRefused,
    NotCanonicalBlock,
)
from ledger.content.cid import Block
from ledger.content.dagpb import DIRECTORY_DATA, FileData, Link, Node, encode_file, encode_node
from ledger.content.reader import read_directory
from ledger.content.unixfs import Layout, add_bytes

SMALL = Layout(chunk_bytes=8, links=3)


class Dag:
    """Blocks in the making: honest files, and any node one likes. Remembers what a reader fetched."""

    def __init__(self) -> None:
        self.blocks: dict[Cid, bytes] = {}
        self.fetched: list[Cid] = []

    def put(self, block: Block) -> None:
        self.blocks[block.cid] = bytes(block.data)

    def file(self, data: bytes, name: str = "f", layout: Layout = SMALL) -> Link:
        return replace(add_bytes(data, self.put, layout), name=name)

    def bytes_(self, codec: Codec, data: bytes, name: str = "f", tree_bytes: int | None = None) -> Link:
        block = Block.of(codec, data)
        self.put(block)
        return Link(block.cid, name, len(data) if tree_bytes is None else tree_bytes)

    def node(self, links: list[Link], data: bytes = DIRECTORY_DATA, name: str = "") -> Link:
        encoded = encode_node(Node(tuple(links), data))
        return self.bytes_(Codec.DAG_PB, encoded, name, len(encoded) + sum(link.tree_bytes for link in links))

    def read(self, root: Link, limits: Limits | None = None, layout: Layout = SMALL) -> dict[str, bytes]:
        def fetch(cid: Cid) -> bytes:
            self.fetched.append(cid)
            return self.blocks[cid]

        return read_directory(root.cid, fetch, limits or Limits(16, 1000, 2000, 4), layout)


@pytest.fixture
def dag() -> Dag:
    return Dag()


@pytest.mark.parametrize("size", [0, 1, 8, 9, 24, 25, 72, 73, 216, 217])
def test_honest_files_of_every_depth_are_read(dag: Dag, size: int) -> None:
    data = bytes(range(size))
    assert dag.read(dag.node([dag.file(data)])) == {"f": data}


def test_bytes_that_do_not_hash_to_their_cid_are_the_carriers_fault(dag: Dag) -> None:
    link = dag.file(b"honest")
    root = dag.node([link])
    dag.blocks[link.cid] = b"forged"
    with pytest.raises(BlockMismatch, match=str(link.cid)):
        dag.read(root)


Change = Callable[[Dag], Link]
FORGERIES: dict[str, tuple[Change, str]] = {
    "links after data": (
        lambda dag: dag.bytes_(Codec.DAG_PB, b"\x0a\x02\x08\x01" + encode_node(Node((dag.file(b"x"),), b""))[:-2]),
        "not in its canonical encoding",
    ),
    "a padded varint": (lambda dag: dag.bytes_(Codec.DAG_PB, b"\x0a\x82\x00\x08\x01"), "not minimal"),
    "trailing bytes": (lambda dag: dag.bytes_(Codec.DAG_PB, b"\x0a\x02\x08\x01\x0a"), "truncated varint"),
    "an unknown field": (lambda dag: dag.bytes_(Codec.DAG_PB, b"\x0a\x02\x08\x01\x1a\x00"), "no field 3"),
    "data given twice": (lambda dag: dag.bytes_(Codec.DAG_PB, b"\x0a\x02\x08\x01" * 2), "canonical encoding"),
    "a number for data": (lambda dag: dag.bytes_(Codec.DAG_PB, b"\x08\x01"), "no field 1 of this kind"),
    "a 64-bit field": (lambda dag: dag.bytes_(Codec.DAG_PB, b"\x09" + bytes(8)), "unknown wire type"),
    "nothing at all": (lambda dag: dag.bytes_(Codec.DAG_PB, b""), "canonical encoding"),
    "a mode": (lambda dag: dag.node([], b"\x08\x01\x38\xed\x03"), "UnixFS field 7"),
    "a time": (lambda dag: dag.node([], b"\x08\x01\x42\x00"), "UnixFS field 8"),
    "a shard": (lambda dag: dag.node([], b"\x08\x05"), "HAMT-sharded"),
    "a symbolic link": (lambda dag: dag.node([dag.node([], b"\x08\x04", "f")]), "symbolic link"),
    "an unknown type": (lambda dag: dag.node([], b"\x08\x09"), "UnixFS type 9"),
    "an over-long type": (lambda dag: dag.node([], b"\x08\x81\x00"), "not minimal"),
    "a file for a root": (lambda dag: dag.file(bytes(9)), "a file where a directory belongs"),
    "a raw root": (lambda dag: dag.bytes_(Codec.RAW, b"x"), "its codec is raw"),
    "unsorted names": (lambda dag: dag.node([dag.file(b"x", "b"), dag.file(b"x", "a")]), "not unique and sorted"),
    "a name twice": (lambda dag: dag.node([dag.file(b"x", "a"), dag.file(b"y", "a")]), "not unique and sorted"),
    "an empty folder": (lambda dag: dag.node([dag.node([], name="d")]), "empty directory below the root"),
    "a wrong size of a leaf": (
        lambda dag: dag.node([replace(dag.file(b"four"), tree_bytes=5)]), "5 bytes declared, 4 found"),
    "a wrong size of a tree": (
        lambda dag: dag.node([replace(dag.file(bytes(9)), tree_bytes=9)]), "9 bytes declared"),
    "a wrong size of a folder": (
        lambda dag: dag.node([replace(dag.node([dag.file(b"x")], name="d"), tree_bytes=1)]), "1 bytes declared"),
    "one leaf under a node": (
        lambda dag: dag.node([dag.node([dag.file(b"x", "")], encode_file(FileData(1, (1,))), "f")]), "one raw leaf"),
    "a file size that its parts do not give": (
        lambda dag: dag.node([dag.node([dag.file(bytes(8), ""), dag.file(b"x", "")],
                                       encode_file(FileData(10, (8, 1))), "f")]), "another layout"),
    "other chunks": (
        lambda dag: dag.node([dag.node([dag.file(bytes(4), ""), dag.file(bytes(6), "")],
                                       encode_file(FileData(10, (4, 6))), "f")]), "another layout"),
    "fewer links than sizes": (
        lambda dag: dag.node([dag.node([dag.file(bytes(8), "")], encode_file(FileData(9, (8, 1))), "f")]),
        "another layout"),
    "a named part": (
        lambda dag: dag.node([dag.node([dag.file(bytes(8), ""), dag.file(b"x", "part")],
                                       encode_file(FileData(9, (8, 1))), "f")]), "a part of a file has a name"),
    "a node for a leaf": (
        lambda dag: dag.node([dag.node([dag.file(bytes(8), ""), dag.node([])],
                                       encode_file(FileData(9, (8, 1))), "f")]), "node where a leaf belongs"),
    "a directory inside a file": (
        lambda dag: dag.node([dag.node([dag.node([]), dag.file(b"x", "")],
                                       encode_file(FileData(25, (24, 1))), "f")]), "another layout"),
    "inline data": (
        lambda dag: dag.node([dag.node([], b"\x08\x02\x12\x01x\x18\x01", "f")]), "UnixFS field 2"),
    "a raw leaf over one chunk": (
        lambda dag: dag.node([dag.bytes_(Codec.RAW, bytes(9))]), "longer than one chunk"),
    "an identity CID": (
        lambda dag: dag.bytes_(Codec.DAG_PB, b"\x12\x0b\x0a\x04\x01\x55\x00\x00\x12\x01f\x18\x00\x0a\x02\x08\x01"),
        "a CID of 4 bytes"),
    "a CID of another hash": (
        lambda dag: dag.bytes_(
            Codec.DAG_PB, b"\x12\x2b\x0a\x24\x01\x55\x1b\x20" + bytes(32) + b"\x12\x01f\x18\x00\x0a\x02\x08\x01"),
        "not a CIDv1 of codec raw or dag-pb with sha2-256"),
    "a link without a name": (
        lambda dag: dag.bytes_(
            Codec.DAG_PB, b"\x12\x28\x0a\x24\x01\x55\x12\x20" + bytes(32) + b"\x18\x00\x0a\x02\x08\x01"),
        "exactly a hash, a name and a size"),
    "a name that is not UTF-8": (
        lambda dag: dag.bytes_(
            Codec.DAG_PB, b"\x12\x2b\x0a\x24\x01\x55\x12\x20" + bytes(32) + b"\x12\x01\xff\x18\x00\x0a\x02\x08\x01"),
        "malformed"),
}  # fmt: skip


@pytest.mark.parametrize("forgery", FORGERIES)
def test_what_no_importer_writes_is_not_canonical(dag: Dag, forgery: str) -> None:
    change, message = FORGERIES[forgery]
    with pytest.raises(NotCanonicalBlock, match=message):
        dag.read(change(dag))


@pytest.mark.parametrize("name", ["", ".", "..", "/etc", "a/b", "a\\b", "a\nb", "\x00", "\u202e", "\x85", "n" * 256])
def test_names_that_mean_something_to_a_file_system_are_refused(dag: Dag, name: str) -> None:
    with pytest.raises(NameRefused):
        dag.read(dag.node([dag.file(b"x", name)]))
    assert len(dag.fetched) == 1


def test_a_plain_directory_above_256_kib_is_refused(dag: Dag) -> None:
    links = [dag.file(b"x", f"{i:05}" + "n" * 200) for i in range(1200)]
    with pytest.raises(NotCanonicalBlock, match="above 262144 bytes"):
        dag.read(dag.node(links), Limits(2000, 10, 2000, 2))


def test_one_block_linked_a_million_times_in_a_directory_is_stopped_before_the_first(dag: Dag) -> None:
    root = dag.node([dag.file(b"x" * 8, f"{i:04}") for i in range(1000)])
    with pytest.raises(LimitExceeded, match="more than 16 files"):
        dag.read(root)
    assert len(dag.fetched) == 1


def test_one_folder_linked_twice_at_every_level_is_stopped_by_the_files(dag: Dag) -> None:
    folder = dag.node([dag.file(b"x")])
    for _ in range(40):
        folder = dag.node([replace(folder, name="a"), replace(folder, name="b")])
    with pytest.raises(LimitExceeded, match="levels"):
        dag.read(folder)
    with pytest.raises(LimitExceeded, match="more than 64 files"):
        dag.read(folder, Limits(64, 1000, 2000, 50))
    assert len(dag.fetched) < 500


def test_a_file_that_links_one_leaf_for_ever_is_stopped_by_its_declared_size(dag: Dag) -> None:
    link = dag.file(bytes(8), "")
    size = 8
    for _ in range(20):
        data = encode_file(FileData(size * 3, (size,) * 3))
        link, size = replace(dag.node([replace(link, name="")] * 3, data), name="bomb"), size * 3
    with pytest.raises(LimitExceeded, match=f"bomb: {size} bytes"):
        dag.read(dag.node([link]))
    assert len(dag.fetched) == 2


def test_a_file_declared_with_an_absurd_size_costs_nothing(dag: Dag) -> None:
    data = encode_file(FileData((1 << 63) - 1, ((1 << 62),)))
    root = dag.node([dag.node([dag.file(b"x", "")], data, "f")])
    with pytest.raises(LimitExceeded):
        dag.read(root)
    with pytest.raises(NotCanonicalBlock, match="another layout"):
        dag.read(root, Limits(16, 1 << 63, 1 << 63, 4))


def test_the_files_of_a_directory_count_together(dag: Dag) -> None:
    root = dag.node([dag.file(bytes(900), "a"), dag.file(bytes(900), "b"), dag.file(bytes(300), "c")])
    with pytest.raises(LimitExceeded, match="c: more than 2000 bytes in all"):
        dag.read(root)
