"""A forged export that is small on the disk and huge to whoever opens it: refused before it unfolds."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from ledger.audit_file import export_round, verify_file
from ledger.content.car import CarReader, encode_block, encode_header, file_chunks
from ledger.content.cid import Block, Cid, Codec
from ledger.content.dagpb import DIRECTORY_DATA, FileData, Link, Node, decode_node, encode_file, encode_node
from ledger.export import unpack_headers
from ledger.report import Name, Status

CHUNK = 1 << 20


@pytest.fixture(scope="module")
def exported(found_federation: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = found_federation(2)
    made.play()
    path = tmp_path_factory.mktemp("export") / "round-1.car"
    export_round(path, made.chain, made.store, round_number=1)
    return path


def blocks_of(path: Path) -> tuple[Cid, dict[Cid, bytes]]:
    with path.open("rb") as file:
        reader = CarReader(file_chunks(file), 1 << 30)
        return reader.roots[0], {block.cid: bytes(block.data) for block in reader}


def write(path: Path, root: Cid, blocks: dict[Cid, bytes]) -> Path:
    sink = BytesIO()
    sink.write(encode_header([root]))
    for cid, data in blocks.items():
        sink.write(encode_block(Block(cid, data)))
    path.write_bytes(sink.getvalue())
    return path


def repeated(chunk: bytes, times: int, blocks: dict[Cid, bytes]) -> tuple[Cid, int]:
    """A file that is one chunk over and over, in the layout of the profile; (its CID, the bytes of its tree)."""
    leaf = Block.of(Codec.RAW, chunk)
    data = encode_file(FileData(times * CHUNK, (CHUNK,) * times))
    node = Block.of(Codec.DAG_PB, encode_node(Node((Link(leaf.cid, "", CHUNK),) * times, data)))
    blocks |= {leaf.cid: chunk, node.cid: bytes(node.data)}
    return node.cid, len(node.data) + times * CHUNK


def with_file(source: Path, path: Path, name: str, chunk: bytes, times: int) -> Path:
    old, blocks = blocks_of(source)
    links = {link.name: link for link in decode_node(blocks.pop(old)).links}
    blocks.pop(links[name].cid)
    cid, size = repeated(chunk, times, blocks)
    links[name] = Link(cid, name, size)
    root = Block.of(Codec.DAG_PB, encode_node(Node(tuple(links[key] for key in sorted(links)), DIRECTORY_DATA)))
    return write(path, root.cid, blocks | {root.cid: bytes(root.data)})


def refusal(path: Path) -> str:
    report = verify_file(path)
    assert [link.name for link in report.links] == [Name.FILE]
    assert report.status is Status.FAIL
    return report.find(Name.FILE).evidence


def test_headers_repeated_a_million_times_in_one_chunk_are_not_unfolded(exported: Path, tmp_path: Path) -> None:
    """A header's length can divide a chunk, so that each copy of the chunk is two thousand headers more to parse."""
    root, blocks = blocks_of(exported)
    entries = {link.name: link.cid for link in decode_node(blocks[root]).links}
    header = next(unpack_headers(blocks[entries["headers.bin"]])).rlp
    chunk = (len(header).to_bytes(2, "big") + header + bytes(CHUNK))[:CHUNK]
    bomb = with_file(exported, tmp_path / "bomb.car", "headers.bin", chunk, 1000)
    assert bomb.stat().st_size < 2 * CHUNK
    assert "LimitExceeded" in refusal(bomb)


def test_a_manifest_repeated_within_itself_is_not_unfolded(exported: Path, tmp_path: Path) -> None:
    bomb = with_file(exported, tmp_path / "bomb.car", "export.json", (b"{}," * CHUNK)[:CHUNK], 250)
    assert "LimitExceeded" in refusal(bomb)


def test_a_file_of_countless_tiny_blocks_is_refused_while_it_is_scanned(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, blocks = blocks_of(exported)
    monkeypatch.setattr("ledger.exported.MAX_BLOCKS", len(blocks))
    assert verify_file(exported).status is Status.PASS
    many = blocks | {block.cid: bytes(block.data) for block in (Block.of(Codec.RAW, bytes([n])) for n in range(9))}
    assert f"more than {len(blocks)} blocks" in refusal(write(tmp_path / "many.car", root, many))
