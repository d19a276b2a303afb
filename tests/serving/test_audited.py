"""The real server before the real audit: what it serves at its URL, in its folder and by CID, candor-audit reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ledger import inference_cli
from ledger.log.tiles import encode_records, records_path, split_records
from node.serving.ask import ask
from node.serving.daemon import Server

Audit = Callable[..., Result]


@pytest.fixture
def audit(site: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Audit:
    monkeypatch.setattr(inference_cli, "open_chain", lambda places: site.chain)
    content = ["--content", str(site.settings.content.path)]

    def run(command: str, *words: Any, json: bool = True) -> Result:
        named = [command, *map(str, words), *(content if command not in ("list", "prove") else ())]
        return CliRunner().invoke(inference_cli.app, [*named, *(["--json"] if json else [])], catch_exceptions=False)

    return run


def statuses(result: Result) -> dict[str, str]:
    return {link["link"]: link["status"] for link in json.loads(result.stdout)["links"]}


def test_an_answer_is_kept_anchored_and_audited(site: Any, server: Server, audit: Audit, tmp_path: Path) -> None:
    """Asked, streamed or not; before its checkpoint not yet due, after it included, from URL, folder and CID."""
    for number, stream in enumerate((False, True)):
        ask(server.url, "what is owed?", max_tokens=3, stream=stream).write(tmp_path / str(number))
    early = audit("verify", tmp_path / "1", "--log", server.url)
    assert (early.exit_code, json.loads(early.stdout)["standing"]) == (3, "NOT YET DUE")
    assert server.anchor.turn() == 0
    published = server.anchor.publisher.last
    assert published is not None
    for place in (server.url, server.log.folder, published.cid):
        for number in range(2):
            found = audit("verify", tmp_path / str(number), "--log", place, "--bundle", site.engine.bundle.hex())
            assert (found.exit_code, json.loads(found.stdout)["standing"]) == (0, "INCLUDED")
        checked = audit("fsck", "--log", place)
        assert (checked.exit_code, set(statuses(checked).values())) == (0, {"PASS", "NOT PROVEN"})
    (server_told,) = json.loads(audit("list").stdout)["servers"]
    assert (server_told["entries"], server_told["auditors"]) == (2, ["0x" + site.reader.address.hex()])
    assert audit("prove", tmp_path / "0", "--log", server.url).exit_code == 3


def test_the_watchtower_finds_nothing_while_the_log_grows_and_a_dropped_record_is_found(
    site: Any, server: Server, audit: Audit, tmp_path: Path
) -> None:
    options = ("--once", "--state", tmp_path / "seen.db", "--log", server.url)
    for number in range(3):
        ask(server.url, f"question {number}", max_tokens=1).write(tmp_path / "receipts" / str(number))
        assert server.anchor.turn(now=True) == 0
        watched = audit("watch", *options, "--receipts", tmp_path / "receipts")
        assert (watched.exit_code, json.loads(watched.stdout)["alarms"]) == (0, [])
    path = server.log.folder / records_path(0)
    path.write_bytes(encode_records(split_records(path.read_bytes())[:2]))
    checked = audit("fsck", "--log", server.url)
    assert (checked.exit_code, statuses(checked)["entries"]) == (1, "FAIL")
