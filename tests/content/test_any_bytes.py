"""Whatever the bytes, a reader ends with the content or with a named error: never a crash, never something else."""

from __future__ import annotations

import io
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.content import Cid, CidInvalid, GatewayServer, Limits, MemoryStore, NameRefused
from ledger.content.cid import Block, Codec
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
from ledger.content.reader import read_directory
from ledger.content.unixfs import Layout, add_bytes, check_name, directory_blocks
from proofs.errors import PeerFault

EXAMPLES = 5000 if os.environ.get("CANDOR_LONG") == "1" else 150
LIMITS = Limits(max_files=8, max_file_bytes=4096, max_total_bytes=8192, max_depth=3)
FILES = {"adapter.bin": bytes(range(256)), "candor/config.json": b"{}", "candor/empty": b""}

repeatable = settings(derandomize=True, max_examples=EXAMPLES, deadline=None, database=None)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
contents = st.dictionaries(st.lists(names, min_size=1, max_size=3).map("/".join), st.binary(max_size=64), max_size=6)


def honest_car() -> bytes:
    store, sink = MemoryStore(), io.BytesIO()
    store.export_car([store.put_directory(FILES)], sink)
    return sink.getvalue()


CAR = honest_car()
BLOCKS = [bytes(block.data) for block in (directory_blocks(FILES)[0], *directory_blocks(FILES)[1])]
NODES = [data for data in BLOCKS if data.startswith((b"\x12", b"\x0a"))]


@st.composite
def mutated(draw: st.DrawFn, origins: list[bytes]) -> bytes:
    """An honest encoding after a few cuts, insertions, overwrites and repetitions."""
    data = draw(st.sampled_from(origins))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 48)))
        patch = draw(st.one_of(st.binary(max_size=8), st.just(data[start:end] * 2)))
        data = data[:start] + patch + data[end:]
    return data


@repeatable
@given(st.one_of(mutated([CAR]), st.binary(max_size=200)))
def test_any_car_is_imported_whole_or_refused_whole(data: bytes) -> None:
    store = MemoryStore()
    try:
        roots = store.import_car(io.BytesIO(data), LIMITS)
    except PeerFault:
        assert store.blocks == {}
        return
    for root in roots:
        if root.codec is Codec.DAG_PB:
            files = store.get_directory(root.digest, LIMITS)
            assert MemoryStore().put_directory(files) == root.digest


@repeatable
@given(st.one_of(mutated(NODES), st.binary(max_size=100)))
def test_any_node_is_decoded_to_what_encodes_to_it_or_refused(data: bytes) -> None:
    try:
        node = decode_node(data)
    except PeerFault:
        return
    assert encode_node(node) == data


@repeatable
@given(st.one_of(mutated([DIRECTORY_DATA, encode_file(FileData(300, (256, 44)))]), st.binary(max_size=40)))
def test_any_unixfs_message_is_decoded_to_what_encodes_to_it_or_refused(data: bytes) -> None:
    try:
        decoded = decode_unixfs(data)
    except PeerFault:
        return
    assert (DIRECTORY_DATA if decoded is None else encode_file(decoded)) == data


@repeatable
@given(st.data())
def test_any_dag_of_honest_and_mutated_blocks_has_one_name_or_none(data: st.DataObject) -> None:
    """Mutated blocks under their true CIDs: the author's bytes, so only the laws can refuse them."""
    layout = Layout(16, 3)
    blocks: dict[Cid, bytes] = {}

    def put(block: Block) -> None:
        blocks[block.cid] = bytes(block.data)

    links = [add_bytes(data.draw(st.binary(max_size=160)), put, layout) for _ in range(data.draw(st.integers(0, 3)))]
    for _ in range(data.draw(st.integers(1, 4))):
        chosen = data.draw(st.lists(st.sampled_from(links), max_size=3)) if links else []
        named = [
            Link(link.cid, data.draw(names), link.tree_bytes + data.draw(st.sampled_from([0, 0, 0, 1])))
            for link in chosen
        ]
        inner = data.draw(st.sampled_from([DIRECTORY_DATA, DIRECTORY_DATA, encode_file(FileData(32, (16, 16)))]))
        encoded = encode_node(Node(tuple(sorted(named, key=lambda link: link.name.encode())), inner))
        block = Block.of(Codec.DAG_PB, data.draw(st.one_of(st.just(encoded), mutated([encoded]))))
        put(block)
        links.append(Link(block.cid, "", len(block.data) + sum(link.tree_bytes for link in named)))
    root = links[-1].cid
    try:
        files = read_directory(root, lambda cid: blocks.get(cid, b""), LIMITS, layout)
    except PeerFault:
        return
    assert len(files) <= LIMITS.max_files
    assert sum(map(len, files.values())) <= LIMITS.max_total_bytes


@repeatable
@given(contents)
def test_whatever_can_be_published_comes_back(files: dict[str, bytes]) -> None:
    store = MemoryStore()
    try:
        for path in files:
            for name in path.split("/"):
                check_name(name)
    except NameRefused:
        return
    if any(f"{longer}/".startswith(f"{path}/") for path in files for longer in files if longer != path):
        return
    digest = store.put_directory(files)
    assert store.get_directory(digest, Limits(8, 64, 512, 10)) == files


@repeatable
@given(
    st.one_of(
        st.text(max_size=70), mutated([str(Cid.raw(bytes(32))).encode()]).map(lambda data: data.decode("latin-1"))
    )
)
def test_any_text_is_the_one_text_of_a_cid_or_refused(text: str) -> None:
    try:
        cid = Cid.parse(text)
    except CidInvalid:
        return
    assert str(cid) == text


@repeatable
@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=80), st.sampled_from(["GET", "HEAD", "PUT", "X"]))
def test_any_request_to_our_gateway_has_an_answer(path: str, query: str, accept: str, method: str) -> None:
    for start in ("", "/ipfs/", f"/ipfs/{Cid.raw(bytes(32))}"):
        reply = GatewayServer(MemoryStore()).handle(start + path, query, accept, method)
        assert 400 <= reply.status < 500


def test_every_truncation_and_every_flipped_bit_of_a_car_is_refused() -> None:
    for index in range(len(CAR)):
        for broken in (
            CAR[:index],
            *(CAR[:index] + bytes([CAR[index] ^ 1 << bit]) + CAR[index + 1 :] for bit in range(8)),
        ):
            with pytest.raises(PeerFault):
                MemoryStore().import_car(io.BytesIO(broken), LIMITS)
