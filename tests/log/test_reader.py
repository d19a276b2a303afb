"""A log read from somebody else: three kinds of places, one behaviour, and nothing longer than it can be."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.content import Cid, MemoryStore
from ledger.content.errors import ContentInvalid
from ledger.content.reader import Limits, read_file
from ledger.eip712 import Domain
from ledger.log.note import encode_note
from ledger.log.reader import MAX_PUBLISHED_BYTES, ContentFiles, FolderFiles, LogReader, LogUnreadable, open_log
from ledger.log.statements import Checkpoint, sign
from ledger.log.store import LogStore
from ledger.log.tiles import ENTRIES, Tile, TileInvalid, encode_records, parse_records_path, records_path, split_records
from ledger.signing import Key
from proofs.errors import LocalFault
from proofs.merkle import check_inclusion, leaf_hash

KEY = Key.of(sha256(b"reader tests").digest())
DOMAIN = Domain(31337, b"\xaa" * 20)
LIMITS = Limits(4, 1 << 20, 1 << 20, 8)
CID = str(Cid.directory(bytes(32)))


def note_of(log: LogStore) -> bytes:
    checkpoint = Checkpoint(log.size, log.root())
    return encode_note(DOMAIN, KEY.address, checkpoint, sign(KEY.secret, DOMAIN, checkpoint))


def reader_of(folder: Path) -> LogReader:
    return LogReader(FolderFiles(folder), DOMAIN, KEY.address)


def test_a_log_whose_partial_tiles_were_replaced_is_read_at_its_old_size(tmp_path: Path) -> None:
    """Ten entries are anchored, the keeper has the tiles of 14 alone: the first ten are the beginning of those."""
    log = LogStore(tmp_path)
    log.append([b"entry %d" % number for number in range(10)])
    root = log.root()
    log.append([b"entry %d" % number for number in range(10, 14)])
    log.publish()
    (tmp_path / "checkpoint").write_bytes(note_of(log))
    reader = reader_of(tmp_path)
    tree = reader.tree(10)
    assert tree.root() == root
    check_inclusion(leaf_hash(b"entry 7"), 7, 10, tree.inclusion(7), root)
    assert [entry for _, entry in tree.entries(8, 10)] == [b"entry 8", b"entry 9"]
    assert reader.tile(Tile(0, 0, 15).path) is None
    (tmp_path / "checkpoint").write_bytes(b"no note")
    assert reader_of(tmp_path).tile(Tile(0, 0, 10).path) is None


def test_a_content_store_and_a_folder_give_the_same_files(tmp_path: Path) -> None:
    log = LogStore(tmp_path)
    log.append([b"entry %d" % number for number in range(300)])
    log.publish()
    files = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in (tmp_path / "tile").rglob("*.*/*")}
    files |= {f"tile/{name}": (tmp_path / "tile" / name).read_bytes() for name in ("0/000", "entries/000")}
    files[records_path(1234)] = bytes(3 << 20)  # several chunks
    store = MemoryStore()
    content = ContentFiles(Cid.directory(store.put_directory(files)), store)
    for path, data in files.items():
        assert content.read(path, 1 << 22) == data
    for absent in ("tile/0/002", "records/000", "records/x001/233", "nothing/here/at/all", "tile/0/000/x"):
        try:
            assert content.read(absent, 1 << 20) is None
        except LogUnreadable:
            assert absent == "tile/0/000/x"
    with pytest.raises(LogUnreadable, match="at most"):
        content.read(records_path(1234), 1 << 20)
    with pytest.raises(LogUnreadable):
        content.read("tile/0", 1 << 20)  # a folder where a file belongs
    with pytest.raises(LogUnreadable):
        content.read("/".join("abcdefghij"), 1 << 20)


def test_one_file_of_a_directory_costs_the_blocks_that_lead_to_it() -> None:
    store, fetched = MemoryStore(), []
    root = Cid.directory(store.put_directory({f"a/b/{number}": bytes([number]) for number in range(200)}))

    def fetch(cid: Cid) -> bytes:
        fetched.append(cid)
        return store.load(cid)

    assert read_file(root, "a/b/7", fetch, LIMITS) == b"\x07"
    assert len(fetched) == 4
    assert read_file(root, "a/b/x", store.load, LIMITS) is None
    with pytest.raises(ContentInvalid):
        read_file(root, "a/b", store.load, LIMITS)


def test_files_longer_than_they_can_be_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.log.reader.MAX_RECORDS_BYTES", 1 << 20)
    (tmp_path / "tile/0").mkdir(parents=True)
    (tmp_path / "records").mkdir()
    (tmp_path / "tile/0/000").write_bytes(bytes(256 * 32 + 1))
    (tmp_path / "published").write_bytes(bytes(MAX_PUBLISHED_BYTES + 1))
    (tmp_path / "records/000").write_bytes(bytes((1 << 20) + 1))
    reader = reader_of(tmp_path)
    for read in (lambda: reader.tile("tile/0/000"), reader.published, lambda: reader.record(0)):
        with pytest.raises(LogUnreadable, match="the most that can be right"):
            read()


@pytest.mark.parametrize(
    "told",
    [
        [],
        {},
        {"size": -1, "root": "00" * 32, "cid": CID},
        {"size": 2**64, "root": "00" * 32, "cid": CID},
        {"size": True, "root": "00" * 32, "cid": CID},
        {"size": 1, "root": "00" * 31, "cid": CID},
        {"size": 1, "root": 7, "cid": CID},
        {"size": 1, "root": "00" * 32, "cid": "x"},
        {"size": 1, "root": "00" * 32, "cid": 7},
        {"size": 1, "root": "00" * 32, "cid": ["b"] * 59},
        [[[[1]]]],
    ],
)
def test_what_a_server_says_of_its_publication_is_read_strictly(tmp_path: Path, told: Any) -> None:
    (tmp_path / "published").write_text(json.dumps(told))
    with pytest.raises(LogUnreadable):
        reader_of(tmp_path).published()
    (tmp_path / "published").write_text(json.dumps({"size": 1, "root": "00" * 32, "cid": CID}))
    found = reader_of(tmp_path).published()
    assert found is not None
    assert (found.size, str(found.cid)) == (1, CID)


def test_a_place_is_a_url_a_cid_or_a_folder(tmp_path: Path) -> None:
    store = MemoryStore()
    assert open_log(str(tmp_path), store).where == str(tmp_path)
    assert open_log(CID, store).where == CID
    assert open_log("http://127.0.0.1:1/x/", store).where == "http://127.0.0.1:1/x"
    for wrong in ("nowhere", "", "http://user@host", "ftp://x", CID[:-1] + "1"):
        with pytest.raises(LocalFault):
            open_log(wrong, store)


@given(st.integers(0, 2**60 - 1))
def test_a_file_of_records_has_one_path(index: int) -> None:
    assert parse_records_path(records_path(index)) == index


@pytest.mark.parametrize(
    "path",
    [
        "records/1",
        "records/x000/001",
        "records/0001",
        "tile/0/001",
        "records/../001",
        "records/x001/x",
        "records/",
        "record/001",
        records_path(2**60),
    ],
)
def test_other_spellings_of_a_file_of_records_are_none(path: str) -> None:
    with pytest.raises(TileInvalid):
        parse_records_path(path)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=20), max_size=20), st.binary(max_size=30), st.integers(0, 20))
def test_records_come_apart_as_they_were_put_together(sealed: list[bytes], behind: bytes, most: int) -> None:
    """What is behind them, and one that is cut short, spoils none before it."""
    assert split_records(encode_records(sealed) + behind, len(sealed)) == sealed
    assert split_records(encode_records(sealed), most) == sealed[:most]
    for cut in range(1, 4 + len(sealed[-1]) if sealed else 0):
        assert split_records(encode_records(sealed)[:-cut], len(sealed)) == sealed[:-1]


def test_a_record_is_read_from_the_file_of_its_sixteen(tmp_path: Path) -> None:
    """The file once for all of them, and again where it was too short."""
    (tmp_path / "records").mkdir()
    reader, path = reader_of(tmp_path), tmp_path / records_path(1)
    assert reader.record(16) is None
    path.write_bytes(encode_records([b"sixteen"]))
    assert (reader.record(16), reader.record(17)) == (b"sixteen", None)
    path.write_bytes(encode_records([b"sixteen", b"seventeen"]))
    assert (reader.record(17), reader.record(16), reader.record(32)) == (b"seventeen", b"sixteen", None)
    assert reader.record(16) == b"sixteen"
    path.write_bytes(encode_records([b"mended", b"behind"]))
    assert (reader.record(17), reader.record(17)) == (b"seventeen", b"behind"), "asked for again, it is read again"
    assert (reader.record(16), reader.record(18)) == (b"mended", None)
    path.write_bytes(b"\xff" * 10)
    assert reader_of(tmp_path).record(16) is None


def test_the_bundle_of_entries_is_cut_like_the_tile(tmp_path: Path) -> None:
    log = LogStore(tmp_path)
    log.append([b"entry %d" % number for number in range(5)])
    whole = log.read(Tile(ENTRIES, 0, 5).path)
    log.append([b"entry %d" % number for number in range(5, 9)])
    log.publish()
    (tmp_path / "checkpoint").write_bytes(note_of(log))
    assert reader_of(tmp_path).tile(Tile(ENTRIES, 0, 5).path) == whole
