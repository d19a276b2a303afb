"""fsck: a log's files against its anchored checkpoints. One bit anywhere, one record dropped or out of its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from ledger.content import Cid, EmbeddedStore
from ledger.log import reader
from ledger.log.sealing import AuditorKey
from ledger.log.tiles import records_path

Run = Callable[..., Result]


def links(result: Result) -> dict[str, str]:
    return {link["link"]: link["status"] for link in json.loads(result.stdout)["links"]}


def failing(result: Result) -> set[str]:
    return {name for name, status in links(result).items() if status == "FAIL"}


@pytest.fixture
def house(honest: Any, on_chain: Any) -> Any:
    on_chain(honest.chain)
    return honest


@pytest.fixture
def fsck(run: Run) -> Run:
    return lambda place, *options: run("inference", "fsck", "--log", place, *options, "--json")


def test_an_honest_log_passes_wherever_it_is_kept(
    house: Any, fsck: Run, run: Run, tmp_path: Path, serve_pages: Any, honest_pages: Any
) -> None:
    store = EmbeddedStore(tmp_path / "content")
    cid = str(Cid.directory(store.put_directory(house.files())))
    with serve_pages(honest_pages(house.folder)) as url:
        for place in (house.folder, url, cid):
            result = fsck(place, "--content", str(tmp_path / "content"))
            assert (result.exit_code, failing(result)) == (0, set()), place
            passing = {name for name, status in links(result).items() if status == "PASS"}
            assert {"tiles", "checkpoints", "entries", "deadline", "conduct", "log", "headers"} <= passing
    assert "every hash is rebuilt" in run("inference", "fsck", "--log", house.folder).stdout


@pytest.mark.parametrize("path", ["tile/0/000", "tile/0/001.p/14", "tile/1/000.p/1"])
def test_one_bit_of_a_tile_of_hashes_is_found(house: Any, fsck: Run, tmp_path: Path, path: str) -> None:
    copy = house.copy(tmp_path / "copy")
    flip(copy / path, 5)
    assert failing(fsck(copy)) == {"tiles"}


@pytest.mark.parametrize(("path", "at"), [("tile/entries/000", 300), ("tile/entries/001.p/14", 40)])
def test_one_bit_of_an_entry_is_found_by_every_root_above_it(
    house: Any, fsck: Run, tmp_path: Path, path: str, at: int
) -> None:
    copy = house.copy(tmp_path / "copy")
    flip(copy / path, at)
    result = fsck(copy)
    assert result.exit_code == 1
    assert {"tiles", "checkpoints"} <= failing(result)


def test_a_bundle_that_is_gone_leaves_nothing_that_passes(house: Any, fsck: Run, tmp_path: Path) -> None:
    copy = house.copy(tmp_path / "copy")
    (copy / "tile/entries/000").unlink()
    result = fsck(copy)
    assert (result.exit_code, failing(result)) == (1, {"tiles"})
    assert {links(result)[name] for name in ("checkpoints", "entries", "deadline")} == {"NOT PROVEN"}


def test_a_record_that_is_dropped_rewritten_or_swapped_is_found(house: Any, fsck: Run, tmp_path: Path) -> None:
    copy = house.copy(tmp_path / "copy")
    flip(copy / records_path(0), sum(4 + len(house.record(at)) for at in range(12)) - 1)  # in that of entry 11
    house.put_record(7, b"", copy)
    house.put_record(8, house.draft(8, sequence=8)[1], copy)  # the same words, sealed anew
    house.put_record(9, house.record(10), copy)
    house.put_record(10, house.record(9), copy)
    result = fsck(copy)
    (entries,) = (link for link in json.loads(result.stdout)["links"] if link["link"] == "entries")
    assert (result.exit_code, failing(result)) == (1, {"entries"})
    assert [flaw.partition(":")[0] for flaw in entries["data"]["flaws"]] == [f"entry {place}" for place in range(7, 12)]


@pytest.mark.parametrize("at", [0, 3, 4, 400, -1])
def test_one_bit_of_a_file_of_records_is_found(house: Any, fsck: Run, tmp_path: Path, at: int) -> None:
    """In a record, or in a length before one."""
    copy = house.copy(tmp_path / "copy")
    flip(copy / records_path(1), at)
    assert failing(fsck(copy)) == {"entries"}


def test_records_that_are_not_there_are_missed(house: Any, fsck: Run, tmp_path: Path) -> None:
    copy = house.copy(tmp_path / "copy")
    (copy / records_path(16)).unlink()  # of the last 14
    (entries,) = (link for link in json.loads(fsck(copy).stdout)["links"] if link["link"] == "entries")
    assert (entries["status"], entries["data"]["count"]) == ("FAIL", 14)


def test_a_history_that_was_rewritten_and_all_put_right_contradicts_the_chain(
    house: Any, fsck: Run, new_house: Any, tmp_path: Path
) -> None:
    """Every tile, entry and record fits every other: only the anchored roots tell."""
    other = new_house(tmp_path / "other")
    other.answers(100)
    other.answer(100, bundle=sha256(b"a cheaper model").digest())
    other.answers(house.log.size - 101)
    other.log.publish()
    result = fsck(other.folder)
    assert result.exit_code == 1
    assert "checkpoints" in failing(result)


ENTRIES: dict[str, tuple[dict[str, Any], str]] = {
    "another place": ({"sequence": 9}, "calls itself 9"),
    "another server": ({"server": b"\x11" * 20}, "it is of the log of"),
    "another chain": ({"chain_id": 1}, "on chain 1"),
    "more delay than it may": ({"due_block": 10**6}, "it promises block"),
    "sealed to a key that is not the auditor's": (
        {"to": AuditorKey.of(sha256(b"stranger").digest())},
        "whom the server had named",
    ),
}


@pytest.mark.parametrize("kind", ENTRIES)
def test_an_anchored_entry_that_breaks_a_rule_is_named(
    new_house: Any, on_chain: Any, fsck: Run, tmp_path: Path, kind: str
) -> None:
    changes, said = ENTRIES[kind]
    house = new_house(tmp_path / "log")
    on_chain(house.chain)
    house.answers(2)
    house.answer(2, **changes)
    house.anchor()
    result = fsck(house.folder)
    assert (result.exit_code, failing(result)) == (1, {"entries"})
    assert said in result.stdout


def test_a_record_that_is_sealed_past_the_named_auditor_is_named(
    new_house: Any, on_chain: Any, fsck: Run, tmp_path: Path
) -> None:
    house = new_house(tmp_path / "log")
    on_chain(house.chain)
    mallory = replace_auditor(house)
    house.answer(0)
    house.auditor = mallory
    house.anchor()
    result = fsck(house.folder)
    assert (result.exit_code, failing(result)) == (1, {"entries"})
    assert "whom the server had named" in result.stdout


def replace_auditor(house: Any) -> Any:
    named, house.auditor = house.auditor, house.payer
    return named


def test_an_entry_that_is_no_entry_and_one_covered_late_are_named(
    new_house: Any, on_chain: Any, fsck: Run, tmp_path: Path
) -> None:
    house = new_house(tmp_path / "log")
    on_chain(house.chain)
    house.answer(0)
    house.log.append([b"not an entry"])
    house.mine(40)
    house.anchor()
    result = fsck(house.folder)
    assert (result.exit_code, failing(result)) == (1, {"entries", "deadline"})


def test_what_does_not_answer_is_no_flaw(
    house: Any, fsck: Run, serve_pages: Any, honest_pages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half way through the server goes silent, or fails."""
    honest = honest_pages(house.folder)
    monkeypatch.setattr(reader, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(reader, "MAX_RECORDS_BYTES", 1 << 24)
    for hostile in (None, (500, "text/plain", b"oops"), (200, "application/octet-stream", bytes(1 << 25))):
        with serve_pages(lambda path, bad=hostile: bad if path.endswith("/records/012") else honest(path)) as url:
            result = fsck(url)
        assert (result.exit_code, failing(result)) == (3, set())


def test_the_server_is_named_where_there_are_several(house: Any, fsck: Run, run: Run) -> None:
    assert fsck(house.folder, "--server", "0x" + house.key.address.hex()).exit_code == 0
    assert fsck(house.folder, "--server", "0x" + "11" * 20).exit_code == 2
    assert fsck(house.folder, "--server", "0x11").exit_code == 2
    assert run("inference", "fsck").exit_code == 2


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 1
    path.write_bytes(data)
