"""Liars whom nobody had tried: nodes that show two chains, mirrors that would have an honest server accused, entries of
another place.

Each of these passed, accused somebody or ended in a traceback before the rule that refuses it was there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from ledger import inference_cli
from ledger.audit_trace import check_continues
from ledger.headers import Header
from ledger.log.actions import NameAuditors, RegisterAuditor
from ledger.log.follower import settled_log
from ledger.log.inclusion import Standing, verify_receipt
from ledger.log.key_file import create_key_file
from ledger.log.reader import FolderFiles, LogReader
from ledger.log.receipt import Entry
from ledger.log.replaying import Replayed
from ledger.log.sealing import AuditorKey
from ledger.log.tiles import Tile, decode_bundle, encode_bundle
from ledger.ports import ChainMoved
from ledger.report import Anchor, Status

Run = Callable[..., Result]


# ---- nodes


class TwoChains:
    """A node that shows the true head, and under it, while it is walked, another chain."""

    def __init__(self, true: Any, false: Any) -> None:
        self.true, self.false, self.asked = true, false, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.false, name)

    def head(self) -> Header:
        found: Header = self.true.head()
        return found

    def header(self, number: int) -> Header:
        """Of the head itself the false one first, and the true one when it is asked for again."""
        self.asked += number == self.true.head().number
        found: Header = (self.true if self.asked > 1 else self.false).header(number)
        return found


def test_a_chain_that_does_not_end_in_the_head_that_is_shown_proves_nothing(new_house: Any, tmp_path: Path) -> None:
    """The head's hash is what a reader compares with others': events of a chain beside it must not pass under it."""
    true, false = (new_house(tmp_path / name) for name in ("true", "false"))
    false.answers(3)
    false.anchor()
    true.mine(false.chain.head().number - true.chain.head().number)
    assert true.chain.head().number == false.chain.head().number
    assert true.chain.head().hash != false.chain.head().hash
    reader = LogReader(FolderFiles(false.folder), false.domain, false.key.address)
    assert verify_receipt(false.chain, false.kept(1), reader).standing is Standing.INCLUDED
    with pytest.raises(ChainMoved):
        verify_receipt(TwoChains(true.chain, false.chain), false.kept(1), reader)


def test_an_event_after_the_head_is_an_invention(new_house: Any, tmp_path: Path) -> None:
    house = new_house(tmp_path / "log")
    house.answers(1)
    house.anchor()

    class Earlier:
        def __getattr__(self, name: str) -> Any:
            return getattr(house.chain, name)

        def head(self) -> Header:
            found: Header = house.chain.header(house.chain.head().number - 1)
            return found

        def log_events(self, first: int, last: int) -> Any:
            return house.chain.log_events(first, last + 1)

    _, links = settled_log(Earlier())
    assert next(link for link in links if link.name == "headers").status is Status.FAIL


def test_a_node_that_shows_nothing_has_shown_nothing(new_house: Any, tmp_path: Path) -> None:
    house = new_house(tmp_path / "log", register=False)
    _, links = settled_log(house.chain)
    assert {link.name: link.status for link in links}["headers"] is Status.NOT_PROVEN


def test_log_and_rounds_are_of_one_chain(new_house: Any, tmp_path: Path) -> None:
    """A trace reads both; its page has one block to compare."""
    one, other = (new_house(tmp_path / name, register=False).chain for name in ("one", "other"))
    other.mine(1)
    one.mine(3)
    other.mine(7)

    def anchor(chain: Any, number: int) -> Anchor:
        return Anchor(chain.chain_id, chain.rounds_address, number, chain.header(number).hash)

    first, last = 2, one.head().number
    check_continues(one, anchor(one, first), anchor(one, first))
    check_continues(one, anchor(one, first), anchor(one, last))
    for before, after in (
        (anchor(one, first), replace(anchor(one, last), block_hash=bytes(32))),
        (replace(anchor(one, first), block_hash=bytes(32)), anchor(one, last)),
        (anchor(one, last), anchor(one, first)),
        (anchor(one, first), replace(anchor(one, last), block_number=1 << 40)),
    ):
        with pytest.raises(ChainMoved):
            check_continues(one, before, after)


# ---- mirrors


@pytest.fixture
def house(new_house: Any, on_chain: Any, tmp_path: Path) -> Any:
    """100 answers are anchored, 200 more are signed for and still in time."""
    made = new_house(tmp_path / "log")
    made.answers(100)
    made.anchor()
    made.answers(200)
    made.note()
    on_chain(made.chain)
    return made


@pytest.fixture
def look(run: Run, tmp_path: Path) -> Callable[..., list[str]]:
    def look(place: Any, *options: str) -> list[str]:
        result = run("inference", "watch", "--once", "--state", tmp_path / "seen", "--log", place, *options, "--json")
        return [alarm["alarm"] for alarm in json.loads(result.stdout)["alarms"]]

    return look


def test_a_mirror_that_changes_a_hash_makes_no_server_diverge(house: Any, look: Any, tmp_path: Path) -> None:
    """One that the root is not computed from, and the path to the anchored root is."""
    copy = house.copy(tmp_path / "copy")
    hashes = bytearray((copy / "tile/0/000").read_bytes())
    hashes[150 * 32] ^= 1
    (copy / "tile/0/000").write_bytes(hashes)
    assert look(house.folder) == []
    assert look(copy) == ["DAMAGED"]


def test_a_mirror_that_changes_an_entry_makes_no_server_late(house: Any, look: Any, tmp_path: Path) -> None:
    copy, tile = house.copy(tmp_path / "copy"), Tile(-1, 0)
    path = copy / "tile/entries/000"
    entries = decode_bundle(tile, path.read_bytes())
    entries[150] = replace(Entry.decode(entries[150]), due_block=1).encode()
    path.write_bytes(encode_bundle(entries))
    assert look(house.folder) == []
    assert look(copy) == ["DAMAGED"]


# ---- entries and keys


@pytest.fixture
def replay(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every_model_final: None
) -> Callable[..., tuple[int, dict[str, str]]]:
    """By the number of an entry, with a model that gives every answer again."""
    monkeypatch.setenv("CANDOR_KEY_PASSWORD", "secret")
    monkeypatch.setattr(inference_cli, "installed_replayer", lambda: lambda asked: Replayed(Status.PASS, "MATCH"))

    def call(house: Any, sequence: int, key: AuditorKey) -> tuple[int, dict[str, str]]:
        path = tmp_path / key.public.hex()
        monkeypatch.setattr(AuditorKey, "create", classmethod(lambda cls: key))
        if not path.exists():
            create_key_file(path, "secret", scrypt_n=2)
        result = run("inference", "replay", str(sequence), "--key", path, "--log", house.folder, "--json")
        return result.exit_code, {one["link"]: one["status"] for one in json.loads(result.stdout).get("links", ())}

    return call


def test_an_entry_that_calls_itself_another_is_not_replayed_in_its_stead(
    new_house: Any, on_chain: Any, replay: Any, tmp_path: Path
) -> None:
    """A true answer logged a second time, over the place of one that nobody is to see."""
    house = new_house(tmp_path / "log")
    house.answer(0)
    house.answer(0, sequence=0)
    house.anchor()
    on_chain(house.chain)
    code, links = replay(house, 1, house.reader_key)
    assert (code, links["inclusion"], "replay" in links) == (1, "FAIL", False)


def test_a_key_that_was_replaced_accuses_nobody(new_house: Any, on_chain: Any, replay: Any, tmp_path: Path) -> None:
    """The server seals to the key that counts; an auditor that comes with its old one has the wrong one."""
    house, newer = new_house(tmp_path / "log"), AuditorKey.of(sha256(b"a newer key").digest())
    house.do(RegisterAuditor(newer.public), house.auditor)
    house.mine(1)
    house.answer(0, to=newer)
    house.anchor()
    on_chain(house.chain)
    assert replay(house, 0, house.reader_key) == (2, {})
    assert replay(house, 0, newer)[0] == 0


def test_a_key_that_is_replaced_while_an_answer_is_promised_accuses_nobody(
    new_house: Any, on_chain: Any, replay: Any, tmp_path: Path
) -> None:
    """A server may have seen it before the block that it names, or after."""
    house, newer = new_house(tmp_path / "log"), AuditorKey.of(sha256(b"a newer key").digest())
    house.answer(0, to=newer)
    house.answer(1)
    house.do(RegisterAuditor(newer.public), house.auditor)
    house.anchor()
    on_chain(house.chain)
    assert (replay(house, 0, house.reader_key), replay(house, 1, newer)) == ((2, {}), (2, {}))


def test_a_record_that_a_mirror_changed_accuses_nobody(
    new_house: Any, on_chain: Any, replay: Any, tmp_path: Path
) -> None:
    house = new_house(tmp_path / "log")
    house.answers(2)
    house.anchor()
    on_chain(house.chain)
    house.put_record(0, house.record(1))
    code, links = replay(house, 0, house.reader_key)
    assert (code, links["record"]) == (3, "NOT PROVEN")


def test_a_server_that_names_others_for_a_moment_shows_it(
    new_house: Any, on_chain: Any, run: Run, tmp_path: Path
) -> None:
    """No record need be sealed to who is named now if somebody else was meanwhile; that somebody was, is told."""
    house = new_house(tmp_path / "log")
    for named in ((), (house.auditor.address,)):
        house.do(NameAuditors(named), house.key)
    house.answers(1)
    house.anchor()
    on_chain(house.chain)
    (server,) = json.loads(run("inference", "list", "--json").stdout)["servers"]
    assert server["auditors_changed"] == 2
