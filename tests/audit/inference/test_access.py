"""A server that keeps an auditor from answers: by naming others, by sealing past it, by withholding records."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from ledger.log import watching
from ledger.log.access import ranges
from ledger.log.actions import NameAuditors, RegisterAuditor
from ledger.log.history import in_force
from ledger.log.sealing import AuditorKey
from ledger.log.tiles import records_path

Run = Callable[..., Result]
STRANGER = AuditorKey.of(sha256(b"a stranger").digest())
OTHERS = b"\x11" * 20


@pytest.fixture
def house(new_house: Any, on_chain: Any, tmp_path: Path) -> Any:
    """Answers 0 and 1 to the auditor; 2 and 3 while nobody is named, to others; 4 to it again."""
    made = new_house(tmp_path / "log")
    made.answers(2)
    made.anchor()
    made.mine(40)  # the promise of those has passed before the list is changed
    made.do(NameAuditors(()), made.key)
    made.dropped = made.chain.head().number
    for number in (2, 3):
        made.answer(number, to=STRANGER, at=OTHERS)
    made.anchor()
    made.mine(40)
    made.do(NameAuditors((made.auditor.address,)), made.key)
    made.again = made.chain.head().number
    made.answer(4)
    made.anchor()
    on_chain(made.chain)
    return made


@pytest.fixture
def watch(run: Run, tmp_path: Path, house: Any) -> Callable[..., tuple[int, list[dict[str, Any]]]]:
    def watch(*options: Any, log: Any = None) -> tuple[int, list[dict[str, Any]]]:
        words = ["inference", "watch", "--once", "--state", tmp_path / "seen", "--log", log or house.folder, *options]
        result = run(*words, "--json")
        return result.exit_code, json.loads(result.stdout)["alarms"]

    return watch


def auditor(house: Any) -> list[str]:
    return ["--auditor", "0x" + house.auditor.address.hex()]


def told(alarms: list[dict[str, Any]], kind: str) -> list[str]:
    return [alarm["text"] for alarm in alarms if alarm["alarm"] == kind]


def test_a_watch_alarms_when_a_named_auditor_is_dropped_and_says_from_when_to_when(house: Any, watch: Any) -> None:
    for options in ((), auditor(house)):
        code, alarms = watch(*options)
        (text,) = told(alarms, "AUDITORS")
        assert (code, f"in block {house.dropped} the server dropped" in text) == (1, True)
        assert f"until block {house.again}" in text
    assert told(watch("--auditor", "0x" + "22" * 20)[1], "AUDITORS") == [], "of others only if it is for them"


def test_a_watch_for_an_auditor_names_every_entry_that_it_cannot_open(house: Any, watch: Any) -> None:
    for _ in range(2):  # the second look reads no record again, and forgets nothing
        code, alarms = watch(*auditor(house))
        (text,) = told(alarms, "SHUT")
        assert (code, text.endswith(": 2-3")) == (1, True)
        assert "of 5 entries" in text
        assert "was not named while the answer was promised" in text


def test_records_are_read_once_and_so_many_in_a_look(house: Any, watch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    true = watching.read_sealed

    def counted(reader: Any, tree: Any, host: Any, index: int) -> Any:
        read.append(index)
        return true(reader, tree, host, index)

    monkeypatch.setattr(watching, "MAX_RECORDS", 3)
    monkeypatch.setattr(watching, "read_sealed", counted)
    texts = [told(watch(*auditor(house))[1], "SHUT") for _ in range(3)]
    assert read == [0, 1, 2, 3, 4]
    assert [text[0].rpartition(": ")[2] for text in texts] == ["2", "2-3", "2-3"]


def test_a_record_that_is_withheld_is_looked_for_again_and_is_no_accusation(
    house: Any, watch: Any, tmp_path: Path
) -> None:
    sealed = (house.folder / records_path(0)).read_bytes()
    for change in (lambda path: path.write_bytes(sealed[:-1]), lambda _: house.put_record(4, house.record(3))):
        change(house.folder / records_path(0))
        _, alarms = watch(*auditor(house))
        assert [text.endswith(": 4") for text in told(alarms, "UNREADABLE")] == [True]
    (house.folder / records_path(0)).write_bytes(sealed)
    assert told(watch(*auditor(house))[1], "UNREADABLE") == []


def test_sealed_past_an_auditor_that_is_named_or_to_a_key_of_somebody_else(
    new_house: Any, on_chain: Any, run: Run, tmp_path: Path
) -> None:
    """Named all the while: left out, or given a key that it never registered. A changed key of its own will do, but not
    the one before, once it was changed: an auditor that lost its key would read nothing any more."""
    house = new_house(tmp_path / "log")
    on_chain(house.chain)
    newer = AuditorKey.of(sha256(b"a newer key").digest())
    house.answer(0, to=STRANGER)
    house.answer(1, to=STRANGER, at=OTHERS)
    house.answer(2)
    house.do(RegisterAuditor(newer.public), house.auditor)
    house.answer(3, to=newer)
    house.anchor()
    house.mine(40)
    house.answer(4)
    house.anchor()
    house.mine(40)
    house.answer(5, to=STRANGER, at=OTHERS)
    house.do(NameAuditors(()), house.key)
    house.anchor()
    found = []
    for number in range(6):
        kept = house.keep(number, tmp_path / str(number))
        result = run("inference", "verify", kept, "--log", house.folder, *auditor(house), "--json")
        (link,) = [one for one in json.loads(result.stdout)["links"] if one["link"] == "record"]
        found.append((result.exit_code, link["status"], link["data"].get("why")))
    assert found == [
        (1, "FAIL", "OTHER_KEY"),
        (1, "FAIL", "LEFT_OUT"),
        (0, "PASS", None),
        (0, "PASS", None),
        (1, "FAIL", "OTHER_KEY"),
        (1, "FAIL", "LIST_CHANGED"),
    ]
    result = run("inference", "fsck", "--log", house.folder, "--json")
    (link,) = [one for one in json.loads(result.stdout)["links"] if one["link"] == "entries"]
    assert [flaw.partition(":")[0] for flaw in link["data"]["flaws"]] == ["entry 0", "entry 1", "entry 4"]


def test_what_was_in_force_is_what_stood_at_the_end_of_a_block() -> None:
    """Others named and unnamed within one block are no list that a record may be sealed to."""
    told = [(1, "a"), (5, "b"), (5, "a"), (9, "c")]
    assert list(in_force(told, 3, 7)) == ["a", "a"]
    assert list(in_force(told, 5, 5)) == ["a"]
    assert list(in_force(told, 8, 9)) == ["a", "c"]
    assert list(in_force(told, 9, 20)) == ["c"]
    assert list(in_force(told, 0, 0)) == []


def test_verify_says_since_which_block_and_nothing_where_nobody_asks(house: Any, run: Run, tmp_path: Path) -> None:
    kept = house.keep(2, tmp_path / "kept")
    result = run("inference", "verify", kept, "--log", house.folder, *auditor(house), "--json")
    (link,) = [one for one in json.loads(result.stdout)["links"] if one["link"] == "record"]
    assert (result.exit_code, link["data"]) == (1, {"why": "NEVER_NAMED"})
    assert f"in block {house.dropped} the server dropped" in link["evidence"]
    unasked = json.loads(run("inference", "verify", kept, "--log", house.folder, "--json").stdout)["links"]
    assert "record" not in [one["link"] for one in unasked]
    (house.folder / records_path(0)).unlink()
    kept = house.keep(4, tmp_path / "other")
    assert run("inference", "verify", kept, "--log", house.folder, *auditor(house), "--json").exit_code == 3
    assert run("inference", "verify", kept, "--log", house.folder, "--auditor", "0x12", "--json").exit_code == 2


def test_the_list_of_servers_tells_who_was_dropped(house: Any, run: Run) -> None:
    (server,) = json.loads(run("inference", "list", "--json").stdout)["servers"]
    assert server["auditors_dropped"] == [f"0x{house.auditor.address.hex()} in block {house.dropped}"]


def test_entries_are_told_in_ranges_and_not_without_end() -> None:
    assert (ranges([]), ranges([4]), ranges([3, 1, 2, 7, 9])) == ("", "4", "1-3, 7, 9")
    assert ranges(range(0, 10, 2), most=2) == "0, 2, and 3 more"
