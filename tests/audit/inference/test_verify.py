"""What a user finds out about one receipt: each lie of a server ends in the outcome, the link and the code for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from ledger.content import Cid, EmbeddedStore
from ledger.log import reader
from ledger.log.kept import Kept
from ledger.log.receipt import issue
from ledger.log.records import Outcome
from ledger.log.tiles import records_path
from ledger.signing import create_keystore

Run = Callable[..., Result]


def links(result: Result) -> dict[str, str]:
    return {link["link"]: link["status"] for link in json.loads(result.stdout)["links"]}


@pytest.fixture
def house(honest: Any, on_chain: Any) -> Any:
    on_chain(honest.chain)
    return honest


@pytest.fixture
def fresh(new_house: Any, on_chain: Any, tmp_path: Path) -> Any:
    """A server of the test's own, with five answers and nothing anchored."""
    made = new_house(tmp_path / "log")
    made.answers(5)
    on_chain(made.chain)
    return made


@pytest.mark.parametrize("sequence", [0, 2, 3, 255, 256, 269])
def test_a_kept_receipt_is_included_with_its_path_and_in_time(
    house: Any, run: Run, tmp_path: Path, sequence: int
) -> None:
    result = run("inference", "verify", house.keep(sequence, tmp_path / "kept"), "--log", house.folder, "--json")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert (told["standing"], told["sequence"]) == ("INCLUDED", sequence)
    found = links(result)
    assert [name for name in found if found[name] == "PASS"] == [
        "receipt",
        "texts",
        "inclusion",
        "deadline",
        "log",
        "headers",
    ]
    assert found["model"] == found["contract"] == "NOT PROVEN"  # no --bundle; the twin shows no code


def test_the_model_that_was_asked_for_is_compared(house: Any, run: Run, tmp_path: Path) -> None:
    kept = house.keep(4, tmp_path / "kept")
    right = run("inference", "verify", kept, "--log", house.folder, "--bundle", house.bundle.hex())
    assert right.exit_code == 0
    assert "INCLUDED" in right.stdout
    wrong = run("inference", "verify", kept, "--log", house.folder, "--bundle", "0x" + "11" * 32, "--json")
    assert (wrong.exit_code, links(wrong)["model"]) == (1, "FAIL")
    assert run("inference", "verify", kept, "--bundle", "12").exit_code == 2


def test_before_the_block_it_is_not_yet_due_and_after_it_omitted(fresh: Any, run: Run, tmp_path: Path) -> None:
    """The one outcome that a server can always reach by doing nothing."""
    kept = fresh.keep(1, tmp_path / "kept")
    result = run("inference", "verify", kept, "--log", fresh.folder)
    assert (result.exit_code, "NOT YET DUE" in result.stdout) == (3, True)
    fresh.mine(fresh.receipts[1].entry.due_block + 1 - fresh.chain.head().number)
    result = run("inference", "verify", kept, "--log", fresh.folder, "--json")
    assert (result.exit_code, json.loads(result.stdout)["standing"]) == (1, "OMITTED")
    assert links(result)["inclusion"] == links(result)["deadline"] == "FAIL"


def test_an_omission_is_reported_with_a_key_and_only_when_it_is_one(
    fresh: Any, run: Run, tmp_path: Path, named_key: Any
) -> None:
    create_keystore(tmp_path / "payer", "secret", named_key("owner 2"), scrypt_n=2)
    options = ["--log", fresh.folder, "--report", "--signer", str(tmp_path / "payer")]
    kept, password = fresh.keep(1, tmp_path / "kept"), {"CANDOR_KEY_PASSWORD": "secret"}
    early = run("inference", "verify", kept, *options, env=password)
    assert (early.exit_code, "NothingToReport" in early.stdout) == (2, True)
    fresh.mine(40)
    late = run("inference", "verify", kept, *options, env=password)
    assert (late.exit_code, "reported: ReportOmission in block" in late.stdout.replace("\n", " ")) == (1, True)
    digest = fresh.receipts[1].entry.promise.digest(fresh.domain)
    assert fresh.chain.omission(fresh.key.address, digest).outcome is Outcome.OPEN
    assert run("inference", "verify", kept, "--report").exit_code == 2  # nobody to pay for it
    fresh.anchor()
    included = run("inference", "verify", kept, *options, env=password)
    assert (included.exit_code, "there is no omission" in included.stdout) == (2, True)


def test_a_server_that_withholds_its_tiles_can_be_made_to_show_the_path_on_the_chain(
    fresh: Any, run: Run, tmp_path: Path, named_key: Any
) -> None:
    """Anchored, and nobody can see what: a report costs the server an answer, or marks it."""
    create_keystore(tmp_path / "payer", "secret", named_key("owner 2"), scrypt_n=2)
    fresh.anchor()
    fresh.mine(40)
    options = ["--report", "--signer", str(tmp_path / "payer"), "--log", fresh.copy(tmp_path / "copy")]
    for tile in (tmp_path / "copy" / "tile").rglob("*.p/*"):
        tile.unlink()
    result = run(
        "inference", "verify", fresh.keep(1, tmp_path / "kept"), *options, env={"CANDOR_KEY_PASSWORD": "secret"}
    )
    assert (result.exit_code, "reported: ReportOmission" in result.stdout.replace("\n", " ")) == (3, True)
    assert fresh.chain.log_server(fresh.key.address).reports == 1


def test_starting_after_a_registration_is_wrong_usage_and_no_accusation(house: Any, run: Run) -> None:
    assert run("inference", "list", "--from-block", "4").exit_code == 2
    assert run("inference", "list", "--from-block", "1").exit_code == 0


def test_that_there_is_nothing_at_all_is_believed_only_where_blocks_were_walked(
    new_house: Any, on_chain: Any, run: Run, tmp_path: Path
) -> None:
    """Whoever shows no events may hide them all: that is not code 0."""
    house = new_house(tmp_path / "log", register=False)
    house.mine(3)
    on_chain(house.chain)
    told = run("inference", "list")
    assert (told.exit_code, "with --from-block" in told.stdout.replace("\n", " ")) == (3, True)
    assert run("inference", "list", "--from-block", "1").exit_code == 0
    assert run("verify", "--all").exit_code == 3
    assert run("verify", "--all", "--from-block", "1").exit_code == 0


def test_covered_too_late_is_included_and_still_a_broken_promise(fresh: Any, run: Run, tmp_path: Path) -> None:
    fresh.mine(40)
    fresh.anchor()
    result = run("inference", "verify", fresh.keep(1, tmp_path / "kept"), "--log", fresh.folder, "--json")
    assert (result.exit_code, json.loads(result.stdout)["standing"]) == (1, "INCLUDED")
    assert (links(result)["inclusion"], links(result)["deadline"]) == ("PASS", "FAIL")


def test_a_receipt_for_an_answer_that_was_never_logged_is_omitted(fresh: Any, run: Run, tmp_path: Path) -> None:
    """Signed, and at its place the server logged something else: the log's own path shows it."""
    entry, _, record = fresh.draft(77, sequence=2)
    dropped = Kept(issue(fresh.key.secret, entry, record), record.request, record.response)
    fresh.anchor()
    result = run("inference", "verify", fresh.keep(2, tmp_path / "kept", dropped), "--log", fresh.folder, "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["standing"]) == (1, "OMITTED")
    assert "stands the leaf" in next(link for link in told["links"] if link["link"] == "inclusion")["evidence"]


@pytest.mark.parametrize(("name", "link"), [("request", "texts"), ("response", "texts")])
def test_another_text_than_was_answered_fails(house: Any, run: Run, tmp_path: Path, name: str, link: str) -> None:
    kept = Path(house.keep(5, tmp_path / "kept"))
    (kept / name).write_bytes(b"another")
    result = run("inference", "verify", str(kept), "--log", house.folder, "--json")
    assert (result.exit_code, links(result)[link]) == (1, "FAIL")
    (kept / name).unlink()
    result = run("inference", "verify", str(kept), "--log", house.folder, "--json")
    assert (result.exit_code, links(result)[link]) == (0, "NOT PROVEN")


@pytest.mark.parametrize(
    "changes",
    [
        {"due_block": 10**6},
        {"issued_block": 10**6, "due_block": 10**6 + 3},
        {"contract": bytes(20)},
        {"chain_id": 1},
        {"server": b"\x11" * 20},
    ],
)
def test_a_receipt_that_is_worth_nothing_fails_by_itself(
    house: Any, run: Run, tmp_path: Path, changes: dict[str, Any]
) -> None:
    entry = replace(house.receipts[5].entry, **changes)
    kept = replace(house.kept(5), receipt=issue(house.key.secret, entry, house.draft(5)[2]))
    result = run("inference", "verify", house.keep(5, tmp_path / "kept", kept), "--log", house.folder, "--json")
    assert (result.exit_code, links(result)["receipt"]) == (1, "FAIL")


def test_a_receipt_that_a_stranger_signed_is_nobodys(house: Any, run: Run, tmp_path: Path) -> None:
    signature = issue(house.payer.secret, house.receipts[5].entry, house.draft(5)[2]).signature
    kept = replace(house.kept(5), receipt=replace(house.receipts[5], signature=signature))
    folder = house.keep(5, tmp_path / "kept", kept)
    result = run("inference", "verify", folder, "--log", house.folder, "--json")
    assert (result.exit_code, links(result)["receipt"]) == (1, "FAIL")
    assert json.loads(result.stdout)["standing"] == "NOT PROVEN"  # it accuses nobody
    assert run("inference", "verify", folder, "--log", house.folder, "--report").exit_code == 2


def test_tiles_that_are_gone_or_changed_prove_nothing_either_way(house: Any, run: Run, tmp_path: Path) -> None:
    """Another copy may do better: so it is no accusation, and the code says: try again."""
    kept, copy = house.keep(256, tmp_path / "kept"), house.copy(tmp_path / "copy")
    assert run("inference", "verify", kept).exit_code == 3
    tile = copy / "tile/0/001.p/14"
    data = bytearray(tile.read_bytes())
    data[32] ^= 1  # of the leaf beside it
    tile.write_bytes(data)
    result = run("inference", "verify", kept, "--log", copy, "--json")
    assert (result.exit_code, links(result)["inclusion"]) == (3, "NOT PROVEN")
    tile.unlink()
    assert run("inference", "verify", kept, "--log", copy).exit_code == 3
    assert run("inference", "verify", kept, "--log", tmp_path / "nowhere").exit_code == 2


def test_the_log_is_read_the_same_from_a_url_a_content_store_and_a_folder(
    house: Any, run: Run, tmp_path: Path, serve_pages: Any, honest_pages: Any
) -> None:
    kept, store = house.keep(7, tmp_path / "kept"), EmbeddedStore(tmp_path / "content")
    cid = str(Cid.directory(store.put_directory(house.files())))
    options = ["--content", str(tmp_path / "content"), "--json"]
    with serve_pages(honest_pages(house.folder)) as url:
        told = [run("inference", "verify", kept, "--log", at, *options).stdout for at in (url, cid, house.folder)]
    assert json.loads(told[0])["standing"] == "INCLUDED"
    assert told[0] == told[1] == told[2]


HOSTILE: dict[str, Any] = {
    "huge": lambda path: (200, "application/octet-stream", bytes(1 << 21)),
    "empty": lambda path: (200, "application/octet-stream", b""),
    "another kind": lambda path: (200, "text/html", b"<html>"),
    "an error": lambda path: (500, "text/plain", b"oops"),
    "elsewhere": lambda path: (302, "text/plain", b""),
    "not here": lambda path: (404, "text/plain", b""),
    "noise": lambda path: (200, "application/octet-stream", sha256(path.encode()).digest() * 256),
    "silent": lambda path: None,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_server_that_answers_nonsense_proves_nothing(
    house: Any, run: Run, tmp_path: Path, serve_pages: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(reader, "TIMEOUT_S", 0.3)
    with serve_pages(HOSTILE[kind]) as url:
        result = run("inference", "verify", house.keep(7, tmp_path / "kept"), "--log", url, "--json")
    assert (result.exit_code, links(result)["inclusion"]) == (3, "NOT PROVEN")


def test_a_receipt_that_is_no_receipt_is_refused_by_name(house: Any, run: Run, tmp_path: Path) -> None:
    (tmp_path / "receipt.json").write_bytes(b'{"format":"candor/receipt/1"}')
    result = run("inference", "verify", str(tmp_path / "receipt.json"))
    assert (result.exit_code, "ReceiptRefused" in result.stdout) == (1, True)
    (tmp_path / "receipt.json").write_bytes(bytes(1 << 20))
    assert run("inference", "verify", str(tmp_path / "receipt.json")).exit_code == 2
    assert run("inference", "verify", str(tmp_path / "nowhere")).exit_code == 2


def test_the_list_tells_of_every_server_what_the_chain_holds(house: Any, fresh: Any, run: Run, on_chain: Any) -> None:
    on_chain(house.chain)
    (server,) = json.loads(run("inference", "list", "--json").stdout)["servers"]
    assert (server["entries"], server["checkpoints"], server["forked_in_block"]) == (270, 3, None)
    assert server["root"] == house.log.root().hex()
    assert server["auditors"] == ["0x" + house.auditor.address.hex()]
    assert "promise blocks     30" in run("inference", "list").stdout
    on_chain(fresh.chain)
    (server,) = json.loads(run("inference", "list", "--json").stdout)["servers"]
    assert (server["entries"], server["root"]) == (0, None)


def test_no_record_is_needed_to_verify_a_receipt(house: Any, run: Run, tmp_path: Path) -> None:
    copy = house.copy(tmp_path / "copy")
    (copy / records_path(0)).unlink()
    assert run("inference", "verify", house.keep(7, tmp_path / "kept"), "--log", copy).exit_code == 0
