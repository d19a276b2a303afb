"""The layout is C2SP tlog-tiles': names, partial tiles and bundles, read strictly; paths come out of tiles alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.log.tiles import (
    ENTRIES,
    WIDTH,
    Tile,
    TileInvalid,
    check_bundle,
    decode_bundle,
    decode_tile,
    encode_bundle,
    encode_tile,
    parse_path,
    tile_holding,
    tile_root,
    tiles_of,
)
from ledger.log.tree import Flaw, TileMissing, TileTree, fsck
from proofs.errors import LocalFault
from proofs.merkle import (
    check_consistency,
    check_inclusion,
    consistency_path,
    inclusion_path,
    leaf_hash,
    root,
    root_of_hashes,
)


def entries_of(size: int) -> list[bytes]:
    return [b"entry %d" % number for number in range(size)]


def files_of(entries: list[bytes]) -> dict[str, bytes]:
    """A log as files, by the formula of the specification: MTH(D[(n·256+i)·256^l : (n·256+i+1)·256^l])."""
    files = {}
    for tile in tiles_of(len(entries)):
        first = tile.index * WIDTH
        if tile.level == ENTRIES:
            files[tile.path] = encode_bundle(entries[first : first + tile.width])
            continue
        under = 256**tile.level
        spans = [entries[at * under : (at + 1) * under] for at in range(first, first + tile.width)]
        files[tile.path] = encode_tile([root(span) for span in spans])
    return files


def test_the_example_of_the_specification() -> None:
    """A tree of 70,000: 273 full tiles and one of 112 at level 0, one full and one of 17 above, and one of 1 on top."""
    tiles = list(tiles_of(70_000))
    by_level = {level: [tile for tile in tiles if tile.level == level] for level in (ENTRIES, 0, 1, 2, 3)}
    assert [len(by_level[level]) for level in (ENTRIES, 0, 1, 2, 3)] == [274, 274, 2, 1, 0]
    assert [tile.width for tile in by_level[0]] == [256] * 273 + [112]
    assert [tile.width for tile in by_level[1]] == [256, 17]
    assert [tile.width for tile in by_level[2]] == [1]
    assert by_level[1][1].path == "tile/1/001.p/17"
    assert [tile.path for tile in tiles_of(256)] == ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]
    assert Tile(0, 1234067).path == "tile/0/x001/x234/067"
    assert list(tiles_of(0)) == []


@given(st.integers(0, 200_000), st.integers(0, 200_000))
def test_what_is_new_at_a_size_is_what_was_not_there_before(one: int, two: int) -> None:
    since, size = sorted((one, two))
    assert set(tiles_of(size)) - set(tiles_of(since)) == set(tiles_of(size, since))


@given(st.sampled_from([ENTRIES, *range(8)]), st.integers(0, 2**56 - 1), st.integers(1, 256))
def test_a_path_names_one_tile(level: int, index: int, width: int) -> None:
    tile = Tile(level, index, width)
    assert parse_path(tile.path) == tile


SPELLINGS = """
    tile tile/0 tile/0/ tile/0/0 tile/0/00 tile/0/0000 tile/8/000 tile/00/000 tile/-1/000 tile/0/x000/001
    tile/0/001/x234 tile/0/x001/x234/x067 tile/0/001/234 tile/0/000.p/0 tile/0/000.p/256 tile/0/000.p/01 tile/0/000.p/
    tile/0/000.p/1/2 tile/entries/000.p/1000 tile/data/000 /tile/0/000 tile/0/000/ tile/0/../000 tile/0/٠٠٠ TILE/0/000
    tile/0/X001/000
"""


@pytest.mark.parametrize(
    "path",
    ["", "tile/0/000\n", "tile/0/" + "x999/" * 7 + "999", "tile/0/" + "x1/" * 10_000, *SPELLINGS.split()],
    ids=lambda path: repr(path[:24]),
)
def test_another_spelling_is_no_path(path: str) -> None:
    with pytest.raises(TileInvalid):
        parse_path(path)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=256))
def test_a_bundle_is_read_back(entries: list[bytes]) -> None:
    tile = Tile(ENTRIES, 0, len(entries))
    assert decode_bundle(tile, encode_bundle(entries)) == entries


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=8), st.integers(1, 9), st.data())
def test_a_bundle_of_another_length_is_refused(entries: list[bytes], width: int, data: st.DataObject) -> None:
    whole = encode_bundle(entries)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    for tile, bad in ((Tile(ENTRIES, 0, len(entries)), cut), (Tile(ENTRIES, 0, len(entries)), whole + b"\0")):
        with pytest.raises(TileInvalid):
            decode_bundle(tile, bad)
    if width != len(entries):
        with pytest.raises(TileInvalid):
            decode_bundle(Tile(ENTRIES, 0, width), whole)


def test_a_tile_of_another_length_is_refused() -> None:
    for tile, length in ((Tile(0, 0, 3), 95), (Tile(0, 0, 3), 97), (Tile(0, 0), 32), (Tile(0, 0, 1), 0)):
        with pytest.raises(TileInvalid):
            decode_tile(tile, bytes(length))
    assert decode_tile(Tile(0, 0, 2), bytes(64)) == [bytes(32)] * 2


def test_a_bundle_belongs_to_the_hashes_beside_it() -> None:
    entries = entries_of(3)
    hashes = [leaf_hash(entry) for entry in entries]
    check_bundle(entries, hashes)
    for bad in (entries[:2], [*entries[:2], b"other"], entries[::-1]):
        with pytest.raises(TileInvalid):
            check_bundle(bad, hashes)


def test_what_cannot_be_written_is_our_own_fault() -> None:
    refused = [
        lambda: encode_tile([]), lambda: encode_tile([bytes(31)]), lambda: encode_tile([bytes(32)] * 257),
        lambda: encode_bundle([]), lambda: encode_bundle([b""] * 257), lambda: encode_bundle([bytes(1 << 16)]),
        lambda: tile_root([bytes(32)] * 255), lambda: Tile(8, 0), lambda: Tile(0, -1), lambda: Tile(0, 0, 257),
        lambda: Tile(0, 0, 0), lambda: Tile(0, 2**56), lambda: tile_holding(1, 0, 255), lambda: list(tiles_of(1, 2)),
    ]  # fmt: skip
    for call in refused:
        with pytest.raises(LocalFault):
            call()


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 512, 700])
def test_paths_come_out_of_tiles(size: int) -> None:
    entries = entries_of(size)
    hashes = [leaf_hash(entry) for entry in entries]
    tree = TileTree(files_of(entries).get, size)
    assert tree.root() == root_of_hashes(hashes)
    for index in {0, 1, size // 2, size - 2, size - 1} & set(range(size)):
        assert tree.inclusion(index) == inclusion_path(hashes, index)
        check_inclusion(tree.leaf(index), index, size, tree.inclusion(index), tree.root())
        assert tree.entry(index) == entries[index]
    for old in {1, size // 3, size // 2, 256, size} & set(range(1, size + 1)):
        check_consistency(old, root_of_hashes(hashes[:old]), size, tree.root(), tree.consistency(old))


def test_a_log_of_seventy_thousand_has_three_levels() -> None:
    """Across two levels of full tiles, against paths made from all leaves."""
    entries = entries_of(70_000)
    hashes = [leaf_hash(entry) for entry in entries]
    tree = TileTree(files_of(entries).get, 70_000)
    assert tree.root() == root_of_hashes(hashes)
    for index in (0, 65_535, 65_536, 69_999):
        assert tree.inclusion(index) == inclusion_path(hashes, index)
    assert tree.consistency(65_000) == consistency_path(tree.node, 65_000, 70_000)
    check_consistency(65_000, root_of_hashes(hashes[:65_000]), 70_000, tree.root(), tree.consistency(65_000))


def test_an_old_size_is_read_from_the_full_tile_when_the_partial_one_is_gone() -> None:
    entries = entries_of(600)
    files = {**files_of(entries), "tile/1/000.p/1": root(entries[:256])}
    tree = TileTree(files.get, 300)
    assert tree.root() == root(entries[:300])
    assert tree.entry(299) == entries[299]
    assert [flaw.path for flaw in fsck(files.get, 300)] == []


def test_a_tile_that_is_not_there_has_a_name() -> None:
    files = files_of(entries_of(600))
    del files["tile/0/001"]
    with pytest.raises(TileMissing, match="tile/0/001 is missing"):
        TileTree(files.get, 600).inclusion(300)


def test_fsck_finds_nothing_in_a_good_log() -> None:
    entries = entries_of(700)
    roots = {size: root(entries[:size]) for size in (1, 256, 300, 700)}
    assert list(fsck(files_of(entries).get, 700, roots)) == []


@pytest.mark.parametrize("path", sorted(files_of(entries_of(600))))
def test_one_changed_bit_in_any_file_is_found(path: str) -> None:
    """In a tile it is the tile's flaw; in a bundle every hash above it differs, and the anchored root."""
    entries = entries_of(600)
    files = files_of(entries)
    changed = bytearray(files[path])
    changed[len(changed) // 2] ^= 1
    flaws = list(fsck({**files, path: bytes(changed)}.get, 600, {600: root(entries)}))
    assert flaws
    if "entries" in path:
        assert any("checkpoint" in flaw.text for flaw in flaws) or path in {flaw.path for flaw in flaws}
    else:
        assert [flaw.path for flaw in flaws] == [path]


def test_fsck_names_what_is_missing_and_goes_on() -> None:
    entries = entries_of(600)
    files = files_of(entries)
    del files["tile/0/001"]
    assert [flaw.path for flaw in fsck(files.get, 600)] == ["tile/0/001"]
    del files["tile/entries/001"]
    assert [flaw.path for flaw in fsck(files.get, 600)] == ["tile/entries/001"]


def test_fsck_holds_the_log_against_its_checkpoints() -> None:
    entries = entries_of(300)
    flaws = list(fsck(files_of(entries).get, 300, {200: bytes(32), 300: root(entries), 301: bytes(32)}))
    assert [flaw.text.split(",")[0] for flaw in flaws] == [
        f"the first 200 entries have the root {root(entries[:200]).hex()}",
        "a checkpoint covers 301 entries",
    ]
    assert Flaw("", flaws[0].text) == flaws[0]
