"""The watchtower: what it saw once it never forgets, and two histories meet in it wherever they were shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from ledger import inference_cli
from ledger.audit_open import FirstOf
from ledger.content import Cid, EmbeddedStore
from ledger.log import watching
from ledger.log.actions import ReportOmission
from ledger.log.follower import log_domain
from ledger.log.kept import Kept
from ledger.log.memory import Memory
from ledger.log.reader import LogReader, open_log
from ledger.log.receipt import issue
from ledger.log.statements import Checkpoint
from ledger.log.store import LogStore
from ledger.ports import ChainUnavailable
from ledger.signing import create_keystore

Run = Callable[..., Result]


@pytest.fixture
def house(new_house: Any, on_chain: Any, tmp_path: Path) -> Any:
    """Ten answers, anchored at 4 and 10."""
    made = new_house(tmp_path / "log")
    for count in (4, 6):
        made.answers(count)
        made.anchor()
    on_chain(made.chain)
    return made


@pytest.fixture
def look(run: Run, tmp_path: Path) -> Callable[..., tuple[int, list[str]]]:
    """One look, by a process that remembers only what is in its file."""

    def look(*places: Any, options: tuple[str, ...] = ()) -> tuple[int, list[str]]:
        named = [word for place in places for word in ("--log", str(place))]
        result = run("inference", "watch", "--once", "--state", tmp_path / "seen.db", *named, *options, "--json")
        return result.exit_code, [alarm["alarm"] for alarm in json.loads(result.stdout)["alarms"]]

    return look


def other_history(house: Any, folder: Path, size: int) -> Any:
    """The same key, and a log in which the third answer is another."""
    other = LogStore(folder)
    for place in range(size):
        other.append([house.draft(99 if place == 2 else place, sequence=place)[0].encode()])
    other.publish()
    return other


def test_an_honest_log_raises_no_alarm_look_after_look(house: Any, look: Any, run: Run, tmp_path: Path) -> None:
    for _ in range(2):
        assert look(house.folder) == (0, [])
        house.answers(3)
        house.note()  # signed and not anchored yet: in time
        assert look(house.folder) == (0, [])
        house.anchor()
    result = run("inference", "watch", "--once", "--state", tmp_path / "seen.db", "--log", house.folder)
    assert "no alarms" in result.stdout


def test_two_roots_for_one_size_are_a_fork_wherever_they_are_shown(house: Any, look: Any, tmp_path: Path) -> None:
    """To the chain one, to a reader another; the reader's copy is gone by the next look, and the alarm is not."""
    other, true = other_history(house, tmp_path / "other", 10), (house.folder / "checkpoint").read_bytes()
    house.note(Checkpoint(10, other.root()))
    assert look(house.folder) == (1, ["FORK"])
    (house.folder / "checkpoint").write_bytes(true)
    assert look(house.folder) == (1, ["FORK"])


def test_a_fork_is_reported_on_the_chain_once(house: Any, look: Any, tmp_path: Path, named_key: Any) -> None:
    create_keystore(tmp_path / "payer", "secret", named_key("owner 2"), scrypt_n=2)
    (tmp_path / "password").touch(0o600)
    (tmp_path / "password").write_text("secret")
    options = ("--report", "--signer", str(tmp_path / "payer"), "--signer-password-file", str(tmp_path / "password"))
    house.note(Checkpoint(10, other_history(house, tmp_path / "other", 10).root()))
    assert look(house.folder, options=options) == (1, ["FORK"])
    assert house.chain.log_server(house.key.address).fork_block == house.chain.head().number
    code, alarms = look(house.folder, options=options)
    assert (code, set(alarms)) == (1, {"FORK"})
    assert house.chain.log_server(house.key.address).fork_block == house.chain.head().number


def test_a_signed_root_that_the_anchored_log_contradicts_is_a_rewrite(
    house: Any, look: Any, tmp_path: Path, named_key: Any
) -> None:
    """Seen at a size at which no checkpoint stands on the chain: the tiles of the anchored log tell."""
    create_keystore(tmp_path / "payer", "secret", named_key("owner 2"), scrypt_n=2)
    options = ("--report", "--signer", str(tmp_path / "payer"))
    true, other = house.copy(tmp_path / "true"), other_history(house, tmp_path / "other", 7)
    house.note(Checkpoint(7, other.root()))
    assert look(house.folder, true) == (1, ["REWRITE"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CANDOR_KEY_PASSWORD", "secret")
        assert look(house.folder, true, options=options) == (1, ["REWRITE"])
    assert house.chain.log_server(house.key.address).fork_block > 0
    assert look(tmp_path / "other")[0] == 1


def test_a_true_checkpoint_of_a_size_that_was_never_anchored_is_no_rewrite(house: Any, look: Any) -> None:
    """And without a place that shows the anchored log it is not known."""
    house.note(Checkpoint(7, house.log.tree().root(7)))
    assert look(house.folder) == (0, [])
    house.note(Checkpoint(8, house.log.tree().root(8)))
    for tile in (house.folder / "tile").rglob("*"):
        if tile.is_file():
            tile.unlink()
    assert look(house.folder) == (3, ["UNREADABLE"])


def test_checkpoints_that_were_never_anchored_are_compared_once(
    house: Any, look: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are: so many in a look, and none again. A rewrite among them is told at every look."""
    compared: list[int] = []
    true = watching._rewrite

    def counted(host: Any, last: Any, trusted: Any, sight: Any) -> Any:
        compared.append(sight.checkpoint.size)
        return true(host, last, trusted, sight)

    monkeypatch.setattr(watching, "_rewrite", counted)
    monkeypatch.setattr(watching, "MAX_SIGHTS", 4)
    tree = house.log.tree()
    for size in (1, 2, 3, 5, 6, 7, 8, 9):  # 4 and 10 are anchored
        house.note(Checkpoint(size, tree.root(size)))
        look(house.folder)
    assert sorted(compared) == [1, 2, 3, 5, 6, 7, 8, 9]
    house.answers(5)
    house.note()
    assert look(house.folder) == (0, [])
    other, places = other_history(house, tmp_path / "other", 7), (house.folder, house.copy(tmp_path / "true"))
    house.note(Checkpoint(7, other.root()))
    compared.clear()
    for _ in range(2):
        code, alarms = look(*places)
        assert (code, {"FORK", "REWRITE"} <= set(alarms)) == (1, True)
    assert compared == [7, 7]


def test_what_was_compared_with_a_root_that_is_gone_is_compared_again(
    house: Any, look: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reorganisation may take the anchored checkpoint back."""
    compared: list[int] = []
    true = watching._rewrite
    monkeypatch.setattr(watching, "_rewrite", lambda *found: compared.append(found[3].checkpoint.size) or true(*found))
    house.note(Checkpoint(7, house.log.tree().root(7)))
    for _ in range(2):
        assert look(house.folder) == (0, [])
    assert compared == [7]
    house.chain.reorg(1)
    house.answers(1)
    house.anchor()
    look(house.folder)
    assert sorted(compared) == [7, 7, 10], "and the one that is anchored no more is one of those never anchored"


def test_a_look_at_which_nothing_is_new_writes_nothing(house: Any, tmp_path: Path) -> None:
    """And of what is new, only that; a fresh process finds in its file what it would write."""
    written: list[str] = []

    def tower() -> watching.Watchtower:
        made = watching.Watchtower(
            house.chain, Memory(tmp_path / "seen"), house.key.address, auditors=(house.auditor.address,)
        )
        made.memory._database._connection.set_trace_callback(
            lambda sql: written.extend(word for word in ("INTO", "DELETE", "BEGIN") if word in sql)
        )
        return made

    reader = LogReader(open_log(str(house.folder), FirstOf([])), log_domain(house.chain), house.key.address)
    first = tower()
    written.clear()
    assert first.look([reader]) == []
    assert written.count("INTO") == 2 + 2 + 1 + 1  # seen, settled, longest, looked
    for again in (first, tower()):
        written.clear()
        for _ in range(2):
            assert again.look([reader]) == []
        assert written.count("INTO") == (0 if again is first else 2), "settled ones, which are there"
    house.answers(2)
    house.anchor()
    written.clear()
    assert first.look([reader]) == []
    assert written.count("INTO") == 1 + 1 + 1 + 1


def test_a_watch_reads_only_what_is_new_of_the_chain(house: Any, tmp_path: Path) -> None:
    """Headers from the last look's head on, and the log's events after it; after a reorganisation all of it."""
    asked: list[tuple[str, int]] = []

    class Counted:
        def __getattr__(self, name: str) -> Any:
            return getattr(house.chain, name)

        def header(self, number: int) -> Any:
            asked.append(("header", number))
            return house.chain.header(number)

        def log_events(self, first: int, last: int) -> Any:
            asked.append(("events", first))
            return house.chain.log_events(first, last)

    tower = watching.Watchtower(Counted(), Memory(tmp_path / "seen"), house.key.address)
    assert tower.look([]) == []
    assert ("events", 0) in asked
    before = house.chain.head().number
    for count in (0, 3):
        asked.clear()
        house.mine(count)
        assert tower.look([]) == []
        assert min(number for _, number in asked) == before
    house.chain.reorg(2)
    house.answers(1)
    house.anchor()
    asked.clear()
    assert tower.look([]) == []
    assert ("events", 0) in asked
    assert tower._before is not None
    assert tower._before.history.servers[house.key.address].size == house.log.size


def test_a_checkpoint_that_does_not_continue_the_anchored_one_is_a_fork_to_come(
    house: Any, look: Any, tmp_path: Path
) -> None:
    other = other_history(house, tmp_path / "other", 12)
    house.note(Checkpoint(12, other.root()))
    (tmp_path / "other" / "checkpoint").write_bytes((house.folder / "checkpoint").read_bytes())
    assert look(tmp_path / "other") == (1, ["DIVERGED"])


def test_a_checkpoint_whose_tiles_are_others_is_damaged_and_one_of_a_stranger_too(
    house: Any, look: Any, tmp_path: Path
) -> None:
    house.answers(2)
    house.note()
    tile = house.folder / "tile/0/000.p/12"
    tile.write_bytes(bytes(32) + tile.read_bytes()[32:])
    assert look(house.folder) == (1, ["DAMAGED"])
    tile.unlink()
    assert look(house.folder) == (1, ["DAMAGED"])
    (house.folder / "checkpoint").write_bytes(b"candor\n1\n\n\n")
    assert look(house.folder) == (1, ["DAMAGED"])


def test_a_log_that_shows_fewer_entries_than_before_has_shrunk(house: Any, look: Any, tmp_path: Path) -> None:
    before = house.copy(tmp_path / "before")
    house.answers(3)
    house.note()
    assert look(house.folder) == (0, [])
    (house.folder / "checkpoint").write_bytes((before / "checkpoint").read_bytes())
    assert look(house.folder) == (1, ["SHRUNK"])
    (house.folder / "checkpoint").unlink()
    assert look(house.folder) == (1, ["SHRUNK"])


def test_a_checkpoint_that_does_not_come_in_time_is_late(house: Any, look: Any) -> None:
    house.answers(300)
    house.note()
    house.mine(30)
    assert look(house.folder) == (0, [])
    house.mine(1)
    assert look(house.folder) == (1, ["LATE"])
    house.anchor()
    assert look(house.folder) == (0, [])  # `late` is for who looks in time: fsck tells afterwards


def test_receipts_that_users_left_are_watched_over_and_reported(
    house: Any, look: Any, tmp_path: Path, named_key: Any
) -> None:
    entry, _, record = house.draft(77, sequence=3)
    dropped = Kept(issue(house.key.secret, entry, record), record.request, record.response)
    house.keep(3, tmp_path / "receipts" / "dropped", dropped)
    house.keep(3, tmp_path / "receipts" / "kept")
    (tmp_path / "receipts" / "broken").mkdir()
    create_keystore(tmp_path / "payer", "secret", named_key("owner 2"), scrypt_n=2)
    options = ("--receipts", str(tmp_path / "receipts"))
    assert look(house.folder, options=options) == (1, ["OMISSION"])
    house.mine(40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CANDOR_KEY_PASSWORD", "secret")
        paying = (*options, "--report", "--signer", str(tmp_path / "payer"))
        assert look(house.folder, options=paying) == (1, ["OMISSION"])
    assert house.chain.log_server(house.key.address).reports == 1
    assert look(house.folder) == (1, ["OMISSION"])  # on the chain, whether the receipt is at hand or not
    house.mine(10)
    assert look(house.folder) == (1, ["OMISSION"])


def test_a_receipt_that_cannot_be_read_stops_no_watch(house: Any, look: Any, tmp_path: Path) -> None:
    house.keep(3, tmp_path / "receipts" / "kept")
    (tmp_path / "receipts" / "evil").mkdir()
    (tmp_path / "receipts" / "evil" / "receipt.json").write_bytes(b"[" * 5000)
    assert look(house.folder, options=("--receipts", str(tmp_path / "receipts"))) == (3, ["UNREADABLE"])


def test_what_is_published_in_the_content_store_is_looked_at_too(
    house: Any, look: Any, tmp_path: Path, serve_pages: Any, honest_pages: Any
) -> None:
    store, options = EmbeddedStore(tmp_path / "content"), ("--content", str(tmp_path / "content"))
    facts = {"size": 10, "root": house.log.root().hex()}

    def publish(files: dict[str, bytes]) -> None:
        cid = Cid.directory(store.put_directory(files))
        house.write("published", json.dumps(facts | {"cid": str(cid)}).encode())

    publish(house.files())
    with serve_pages(honest_pages(house.folder)) as url:
        assert look(url, options=options) == (0, [])
        true = (house.folder / "checkpoint").read_bytes()
        house.note(Checkpoint(10, other_history(house, tmp_path / "other", 10).root()))
        publish(house.files())
        (house.folder / "checkpoint").write_bytes(true)
        code, alarms = look(url, options=options)
        assert (code, sorted(alarms)) == (1, ["DAMAGED", "FORK"])  # not what was said to be there, and a second root
        house.write("published", b'{"size":1e999}')
        assert "UNREADABLE" in look(url, options=options)[1]


def test_places_that_are_silent_or_lie_about_sizes_end_in_alarms(
    house: Any, look: Any, tmp_path: Path, serve_pages: Any, honest_pages: Any
) -> None:
    with serve_pages(lambda path: (500, "text/plain", b"")) as url:
        assert look(url) == (3, ["UNREADABLE"])
    house.note(Checkpoint(2**64 - 1, bytes(32)))
    assert look(house.folder) == (1, ["DAMAGED"])


def test_a_watch_without_end_goes_on_when_the_chain_is_away_and_says_each_thing_once(
    house: Any, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.note(Checkpoint(10, other_history(house, tmp_path / "other", 10).root()))
    looks = iter([None, None, ChainUnavailable("no answer"), None, KeyboardInterrupt()])
    true = house.chain.head

    def head() -> Any:
        return true()

    def sleep(_: float) -> None:
        found = next(looks)
        house.chain.available = not isinstance(found, ChainUnavailable)
        if isinstance(found, KeyboardInterrupt):
            raise found

    monkeypatch.setattr(house.chain, "head", head)
    monkeypatch.setattr(inference_cli.time, "sleep", sleep)
    result = run("inference", "watch", "--state", tmp_path / "seen.db", "--log", house.folder)
    assert result.stdout.count("FORK") == 1
    assert result.stdout.count("UNREADABLE") == 1
    assert run("inference", "watch", "--state", tmp_path / "seen.db", "--json").exit_code == 2


def test_watching_needs_no_log_to_see_what_the_chain_says(house: Any, look: Any) -> None:
    assert look() == (0, [])
    promise = house.receipts[1].entry.promise
    house.mine(40)
    fields = promise.sequence, promise.due_block, promise.leaf
    house.do(ReportOmission(house.key.address, *fields, house.receipts[1].signature))
    assert look() == (1, ["OMISSION"])
