"""What was answered gets onto the chain and into the content store, whatever is away meanwhile."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from ledger.content import Cid, GatewayStore, Limits, MemoryStore, StoreUnavailable
from ledger.content.unixfs import directory_blocks
from ledger.locks import KeyInUse
from ledger.log import note, statements
from ledger.log.actions import PostCheckpoint, RegisterAuditor
from ledger.log.receipt import Entry, Receipt, open_record
from ledger.log.records import Checkpointed, auditors_digest
from ledger.log.sealing import AuditorKey, NotARecipient
from ledger.log.statements import Checkpoint
from ledger.log.store import LogInUse, LogStore
from ledger.log.tiles import records_path, split_records
from ledger.log.tree import TileTree, fsck
from ledger.ports import ContractRefused
from node.serving.anchor import LogForked, Rhythm
from node.serving.ask import ask
from node.serving.asking import CLASSIFYING
from node.serving.daemon import Server, opened
from node.serving.scribe import Answer, NotWriting
from proofs.errors import LocalFault
from proofs.merkle import check_inclusion, root

LIMITS = Limits(1 << 16, 1 << 24, 1 << 28, 8)


def asked(server: Server, count: int) -> list[Receipt]:
    return [Receipt.decode(ask(server.url, f"question {at}", max_tokens=1).receipt) for at in range(count)]


def written(server: Server, count: int) -> None:
    """Many answers at once, without asking for them."""
    answers = [Answer(b"request %d" % at, b"response", CLASSIFYING) for at in range(count)]
    server.anchor.scribe.write(answers)


def files_of(site: Any, server: Server) -> dict[str, bytes]:
    published = server.anchor.publisher.last
    assert published is not None
    found: dict[str, bytes] = site.store.get_directory(published.digest, LIMITS)
    return found


def health(server: Server) -> Any:
    return requests.get(f"{server.url}/health", timeout=5).json()


def test_a_server_registers_names_its_auditors_and_anchors(site: Any, server: Server) -> None:
    receipts = asked(server, 3)
    assert server.anchor.turn() == 0
    view = site.chain.log_server(site.key.address)
    assert (view.size, view.root, view.promise_blocks) == (3, server.log.root(), 40)
    tree = server.log.tree()
    for receipt in receipts:
        entry = receipt.entry
        check_inclusion(entry.leaf, entry.sequence, 3, tree.inclusion(entry.sequence), view.root)
        assert entry.due_block == entry.issued_block + 40
    assert server.anchor.settled()
    facts = health(server)
    assert (facts["entries"], facts["anchored"], facts["published"], facts["late_blocks"]) == (3, 3, 3, 0)


def test_what_is_published_is_the_whole_log_as_files(site: Any, server: Server) -> None:
    """A stranger with the content and the anchored root needs nothing else; over HTTP there are the same files."""
    written(server, 300)
    assert server.anchor.turn() == 0
    files = files_of(site, server)
    checkpoint, _ = note.decode_note(site.domain, site.key.address, files["checkpoint"])
    assert checkpoint == Checkpoint(300, site.chain.log_server(site.key.address).root)
    assert list(fsck(files.get, 300, {300: checkpoint.root})) == []
    entry = Entry.decode(TileTree(files.get, 300).entry(299))
    assert open_record(entry, split_records(files[records_path(18)])[11], site.auditor).request == b"request 299"
    assert len(files) == 1 + 19 + 2 + 2 + 1  # checkpoint, records, bundles, tiles of level 0 and 1
    for path in (
        "checkpoint",
        "tile/0/000",
        "tile/0/001.p/44",
        "tile/entries/001.p/44",
        "tile/1/000.p/1",
        "records/018",
    ):
        assert requests.get(f"{server.url}/log/{path}", timeout=5).content == files[path]
    published = requests.get(f"{server.url}/log/published", timeout=5).json()
    assert (published["size"], published["root"]) == (300, checkpoint.root.hex())
    fetched = GatewayStore([server.url]).get_directory(Cid.parse(published["cid"]).digest, LIMITS)
    assert fetched == files
    on_disk = {str(path.relative_to(server.log.folder)) for path in server.log.folder.rglob("*") if path.is_file()}
    assert on_disk - {"journal", "lock"} == set(files), "the folder itself can be served as it is"


@pytest.mark.parametrize("sizes", [(1, 2, 5), (255, 1, 1), (997, 30)])
def test_publishing_bit_by_bit_gives_what_publishing_at_once_gives(
    site: Any, server: Server, sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Across full tiles and files of records, and steps of one publication."""
    monkeypatch.setattr("os.fsync", lambda _: None)
    monkeypatch.setattr("node.serving.publishing.STEP", 300)
    for count in sizes:
        written(server, count)
        server.anchor.turn()
    files = files_of(site, server)
    whole, _ = directory_blocks(files)
    published = server.anchor.publisher.last
    assert published is not None
    assert (published.digest, published.size) == (whole.cid.digest, sum(sizes))


def test_a_folder_is_edited_without_reading_the_rest() -> None:
    store = MemoryStore()
    first = store.put_directory({"a/b/c": b"1", "a/d": b"2", "e": b"3"})
    second = store.edit_directory(first, {"a/b/c": None, "e": b"4", "f/g": b"5"})
    assert second == store.put_directory({"a/d": b"2", "e": b"4", "f/g": b"5"})
    assert store.edit_directory(second, {"a/d": None, "e": None, "f/g": None}) == store.put_directory({})
    assert store.edit_directory(None, {"x": b"1"}) == store.put_directory({"x": b"1"})


def test_the_content_store_may_be_emptied(site: Any, server: Server) -> None:
    written(server, 3)
    server.anchor.turn()
    shutil.rmtree(site.settings.content.path / "blocks")
    (site.settings.content.path / "blocks").mkdir()
    written(server, 3)
    assert server.anchor.turn() == 0
    assert len(split_records(files_of(site, server)[records_path(0)])) == 6


def test_the_chain_may_be_away_for_long(site: Any, server: Server) -> None:
    """Serving goes on, with promises as of the last block that was seen; the delay shows, and is made up for."""
    asked(server, 1)
    server.anchor.turn()
    site.chain.available = False
    late = asked(server, 2)
    assert server.anchor.turn() > 0
    facts = health(server)
    assert (facts["entries"], facts["anchored"]) == (3, 1)
    assert "chain" in facts["waiting"]
    assert facts["published"] == 3, "what is signed is published all the same"
    assert requests.get(f"{server.url}/log/checkpoint", timeout=5).content.split(b"\n")[1] == b"3"
    site.chain.available = True
    site.chain.mine(60)
    later = asked(server, 1)
    assert server.anchor.turn() == 0
    assert site.chain.log_server(site.key.address).size == 4
    assert late[0].entry.due_block < site.chain.head().number, "that promise was broken, and anybody can see it"
    assert later[0].entry.due_block == late[0].entry.due_block
    assert asked(server, 1)[0].entry.issued_block >= 60
    sizes = [found.event.size for found in site.chain.log_events(0, 200) if isinstance(found.event, Checkpointed)]
    assert sizes == [1, 4], "the backlog went in one transaction"


def test_how_late_it_is_shows(site: Any, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    asked(server, 1)
    with monkeypatch.context() as patch:
        patch.setattr(server.anchor, "_post", lambda: None)
        site.chain.mine(45)
        server.anchor.turn()
    facts = health(server)
    due = facts["oldest_due_block"]
    assert facts["late_blocks"] == site.chain.head().number - due > 0
    assert (
        f"candor_log_late_blocks {float(facts['late_blocks'])}" in requests.get(f"{server.url}/metrics", timeout=5).text
    )
    server.anchor.turn()
    assert health(server)["late_blocks"] == 0


def test_the_content_store_may_be_away(site: Any, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serving and anchoring go on; later all of it is published."""

    class Away:
        def put_blocks(self, blocks: Any, roots: Any) -> None:
            raise StoreUnavailable("kubo does not answer")

    monkeypatch.setattr(server.anchor.publisher, "_mirrors", [Away()])
    asked(server, 2)
    assert server.anchor.turn() == 1
    assert site.chain.log_server(site.key.address).size == 2
    assert (health(server)["published"], health(server)["waiting"]) == (0, {"content": "kubo does not answer"})
    mirror = MemoryStore()
    monkeypatch.setattr(server.anchor.publisher, "_mirrors", [mirror])
    assert server.anchor.turn() == 0
    published = server.anchor.publisher.last
    assert published is not None
    assert mirror.get_directory(published.digest, LIMITS) == files_of(site, server)


def test_clocks_may_jump(site: Any, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Back to before the epoch and far ahead: entries say so, deadlines do not care."""
    server.anchor.rhythm = Rhythm(60.0, 60.0)
    monotonic = 1000.0
    server.anchor.clock = lambda: monotonic
    before = asked(server, 1)[0].entry
    assert server.anchor.turn() == 0
    for now in (-5e9, 9e9):
        with monkeypatch.context() as patch:
            patch.setattr("node.serving.scribe.time.time", lambda now=now: now)
            entry = asked(server, 1)[0].entry
        assert before.issued_block <= entry.issued_block <= site.chain.head().number
        assert entry.due_block == entry.issued_block + 40
        assert server.anchor.turn() == 0
    assert site.chain.log_server(site.key.address).size == 1, "not before its time"
    monotonic += 61
    server.anchor.turn()
    assert site.chain.log_server(site.key.address).size == 3


def test_blocks_force_a_checkpoint_before_its_time(site: Any, server: Server) -> None:
    """A slow rhythm does not break the promise: a quarter of its blocks is the most that an entry waits."""
    server.anchor.rhythm = Rhythm(1e9, 1e9)
    asked(server, 1)
    server.anchor.turn()
    asked(server, 1)
    server.anchor.turn()
    assert site.chain.log_server(site.key.address).size == 1
    site.chain.mine(11)
    server.anchor.turn()
    assert site.chain.log_server(site.key.address).size == 2


def test_a_reorganised_chain_gets_everything_again(site: Any, open_server: Callable[[], Server]) -> None:
    """Registration, auditors and checkpoint: what was undone is sent again, and then what came after."""
    site.settings = replace(site.settings, chain=replace(site.settings.chain, confirmations=6))
    server = open_server()
    asked(server, 2)
    server.anchor.turn()
    site.chain.reorg(3)
    with pytest.raises(ContractRefused, match="UnknownServer"):
        site.chain.log_server(site.key.address)
    asked(server, 1)
    for _ in range(6):
        site.chain.mine()
        server.anchor.turn()
    view = site.chain.log_server(site.key.address)
    assert (view.size, view.auditors) == (3, auditors_digest(site.settings.audit_log.auditors))


def test_two_servers_on_one_key(site: Any, open_server: Callable[[], Server], tmp_path: Path) -> None:
    """On this machine the second refuses to start, whatever its folder; one log has one writer in any case."""
    first = open_server()
    elsewhere = site.settings
    site.settings = replace(site.settings, state=tmp_path / "other")
    with pytest.raises(KeyInUse):
        open_server()
    site.settings = elsewhere
    with pytest.raises(LogInUse):
        LogStore(first.log.folder)
    assert asked(first, 1)


def test_the_same_key_on_another_machine_is_noticed(site: Any, server: Server) -> None:
    """Its checkpoint is on the chain, and no part of this log: nothing more is promised, nothing more is signed."""
    asked(server, 1)
    elsewhere = Checkpoint(2, root([b"an entry", b"and another"]))
    signature = statements.sign(site.key.secret, site.domain, elsewhere)
    site.act(PostCheckpoint(site.key.address, 2, elsewhere.root, (), signature))
    with pytest.raises(LogForked):
        server.anchor.turn()
    with pytest.raises(NotWriting):
        written(server, 1)
    answer = requests.post(f"{server.url}/v1/completions", json={"model": "parrot", "prompt": "a"}, timeout=5)
    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "server_error")
    assert server.anchor.guard.last(site.domain, site.key.address).size == 1


def test_a_log_that_is_not_all_there_is_not_served_from(
    site: Any, open_server: Callable[[], Server], tmp_path: Path
) -> None:
    """Stopped, it anchors what it has; lost, it does not start; brought back, it goes on."""
    with opened(site.settings, threading.Event(), engine=site.engine, chain=site.chain) as server:
        written(server, 5)
    folder = site.settings.state / "log"
    folder.rename(tmp_path / "aside")
    with pytest.raises(LocalFault, match="5 are known elsewhere"):
        open_server()
    shutil.rmtree(folder)
    (tmp_path / "aside").rename(folder)
    again = open_server()
    assert (again.log.size, again.anchor.settled()) == (5, True)


def test_auditors_are_those_of_the_settings_with_the_keys_of_the_chain(site: Any, server: Server) -> None:
    """An auditor that changes its key reads what comes after, and not with the old one."""
    fresh = AuditorKey.create()
    receipts = asked(server, 1)
    site.act(RegisterAuditor(fresh.public), by=site.reader)
    server.anchor.turn()
    receipts += asked(server, 1)
    sealed = split_records(requests.get(f"{server.url}/log/records/000", timeout=5).content)
    open_record(receipts[0].entry, sealed[0], site.auditor)
    open_record(receipts[1].entry, sealed[1], fresh)
    with pytest.raises(NotARecipient):
        open_record(receipts[1].entry, sealed[1], site.auditor)


def test_who_is_no_auditor_cannot_be_named(site: Any, open_server: Callable[[], Server]) -> None:
    log = site.settings.audit_log
    for auditors, why in (((), "nobody could look"), ((b"\1" * 20,), "registered no key")):
        site.settings = replace(site.settings, audit_log=replace(log, auditors=auditors))
        with pytest.raises(LocalFault, match=why):
            open_server()
