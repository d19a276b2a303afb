"""An auditor looks into a record: with its key, without it, and at records that are not what the entry names.

What runs the model stands in for itself here: it is found by name among the entry points, or not at all.
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
from ledger.content.errors import StoreUnavailable
from ledger.log import key_file, replaying
from ledger.log.key_file import create_key_file, open_key_file
from ledger.log.receipt import issue
from ledger.log.replaying import Asked, NoReplayer, Replayed, installed_replayer
from ledger.log.sealing import AuditorKey
from ledger.log.tiles import records_path
from ledger.report import Status
from ledger.signing import KeystoreFault, create_keystore
from proofs.errors import PeerFault

Run = Callable[..., Result]


def links(result: Result) -> dict[str, str]:
    return {link["link"]: link["status"] for link in json.loads(result.stdout)["links"]}


@pytest.fixture
def house(honest: Any, on_chain: Any) -> Any:
    on_chain(honest.chain)
    return honest


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """What the model was asked for; it knows the right answer to every question but number 6."""
    told: list[Asked] = []

    def replay(one: Asked) -> Replayed:
        told.append(one)
        right = one.record.response == b"answer" + one.record.request.removeprefix(b"question") != b"answer 6"
        return Replayed(Status.PASS, "MATCH") if right else Replayed(Status.FAIL, "MISMATCH: another answer")

    monkeypatch.setattr(inference_cli, "installed_replayer", lambda: replay)
    return told


@pytest.fixture
def replay(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every_model_final: None) -> Run:
    monkeypatch.setenv("CANDOR_KEY_PASSWORD", "secret")

    def call(what: Any, secret: AuditorKey, place: Any, *options: str) -> Result:
        path = tmp_path / secret.public.hex()
        if not path.exists():
            write_key(path, secret)
        return run("inference", "replay", str(what), "--key", path, "--log", place, *options, "--json")

    return call


def write_key(path: Path, secret: AuditorKey) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AuditorKey, "create", classmethod(lambda cls: secret))
        create_key_file(path, "secret", scrypt_n=2)


def test_by_receipt_or_by_number_the_answer_is_given_again(
    house: Any, asked: list[Asked], replay: Run, tmp_path: Path
) -> None:
    for what in (house.keep(5, tmp_path / "kept"), 5):
        result = replay(what, house.reader_key, house.folder)
        assert (result.exit_code, links(result)["record"], links(result)["replay"]) == (0, "PASS", "PASS")
    assert [one.record.request for one in asked] == [b"question 5"] * 2
    assert asked[0].entry == house.receipts[5].entry


def test_a_server_that_runs_another_model_is_found(house: Any, asked: list[Asked], replay: Run) -> None:
    result = replay(6, house.reader_key, house.folder)
    assert (result.exit_code, links(result)["replay"]) == (1, "FAIL")
    assert "MISMATCH" in result.stdout


def test_an_auditor_without_the_key_learns_nothing(house: Any, asked: list[Asked], replay: Run) -> None:
    """Nobody promised this one anything: it is the wrong key, and no server's fault."""
    result = replay(5, AuditorKey.of(sha256(b"a stranger").digest()), house.folder)
    assert (result.exit_code, json.loads(result.stdout)["error"]) == (2, "NotARecipient")
    assert asked == []


def test_an_auditor_that_was_named_and_left_out_has_it_against_the_server(
    new_house: Any, on_chain: Any, asked: list[Asked], replay: Run, tmp_path: Path
) -> None:
    house = new_house(tmp_path / "log")
    on_chain(house.chain)
    house.answer(0, to=AuditorKey.of(sha256(b"somebody else").digest()))
    house.anchor()
    result = replay(0, house.reader_key, house.folder)
    assert (result.exit_code, links(result)["record"]) == (1, "FAIL")
    assert "sealed the record to other keys" in result.stdout


def test_a_record_that_is_another_or_gone_is_not_replayed(
    house: Any, asked: list[Asked], replay: Run, tmp_path: Path
) -> None:
    copy = house.copy(tmp_path / "copy")
    house.put_record(7, house.record(8), copy)
    (copy / records_path(1)).unlink()
    rewritten, gone = replay(7, house.reader_key, copy), replay(16, house.reader_key, copy)
    for found in (rewritten, gone):  # a carrier may have done either: fsck judges a copy, a replay the server
        assert (found.exit_code, links(found)["record"]) == (3, "NOT PROVEN")
    assert asked == []


def test_a_record_whose_texts_are_not_those_of_the_entry_is_refused(
    new_house: Any, on_chain: Any, asked: list[Asked], replay: Run, tmp_path: Path
) -> None:
    """Sealed well, and with other words than the user has the receipt for."""
    house = new_house(tmp_path / "log")
    on_chain(house.chain)
    entry, sealed, _ = house.draft(0)
    lying = replace(entry, response=sha256(b"another").digest())
    house.log.append([lying.encode()])
    house.put_record(0, sealed)
    house.anchor()
    result = replay(0, house.reader_key, house.folder)
    assert (result.exit_code, links(result)["record"]) == (1, "FAIL")


def test_the_entry_must_be_the_anchored_one(house: Any, asked: list[Asked], replay: Run, tmp_path: Path) -> None:
    entry, _, record = house.draft(77, sequence=5)
    other = replace(house.kept(5), receipt=issue(house.key.secret, entry, record))
    result = replay(house.keep(5, tmp_path / "other", other), house.reader_key, house.folder)
    assert (result.exit_code, links(result)["inclusion"]) == (1, "FAIL")
    assert replay(10**6, house.reader_key, house.folder).exit_code == 3
    copy = house.copy(tmp_path / "copy")
    bundle = bytearray((copy / "tile/entries/000").read_bytes())
    bundle[50] ^= 1
    (copy / "tile/entries/000").write_bytes(bundle)
    assert replay(0, house.reader_key, copy).exit_code == 3
    assert asked == []


@pytest.mark.parametrize(
    ("found", "code", "status"),
    [
        (StoreUnavailable("the bundle is not to be had"), 3, "NOT PROVEN"),
        (PeerFault("the bundle is malformed"), 1, "FAIL"),
        (Replayed(Status.NOT_PROVEN, "this machine computes otherwise"), 3, "NOT PROVEN"),
    ],
)
def test_what_cannot_be_run_is_told_apart_from_what_comes_out_otherwise(
    house: Any, replay: Run, monkeypatch: pytest.MonkeyPatch, found: Any, code: int, status: str
) -> None:
    def replayer(one: Asked) -> Replayed:
        if isinstance(found, Replayed):
            return found
        raise found

    monkeypatch.setattr(inference_cli, "installed_replayer", lambda: replayer)
    result = replay(5, house.reader_key, house.folder)
    assert (result.exit_code, links(result)["replay"]) == (code, status)


def test_without_the_extra_it_is_said_what_is_missing(house: Any, replay: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def load(self) -> None:
            raise ImportError("no module", name="torch")

    for points, said in (([], "install candor"), ([Broken()], "torch is missing")):
        monkeypatch.setattr(replaying, "entry_points", lambda points=points, **_: points)
        with pytest.raises(NoReplayer, match=said):
            installed_replayer()
        result = replay(5, house.reader_key, house.folder)
        assert (result.exit_code, json.loads(result.stdout)["error"]) == (2, "NoReplayer")


# ---- the key


def test_a_key_is_made_once_printed_and_registered(
    new_house: Any, on_chain: Any, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named_key: Any
) -> None:
    house = new_house(tmp_path / "log")
    on_chain(house.chain)
    monkeypatch.setattr(key_file, "SCRYPT_N", 2)
    monkeypatch.setattr(create_key_file, "__kwdefaults__", {"scrypt_n": 2})
    create_keystore(tmp_path / "payer", "secret", named_key("owner 2"), scrypt_n=2)
    monkeypatch.setenv("CANDOR_KEY_PASSWORD", "secret")
    path = tmp_path / "key"
    made = json.loads(run("inference", "key", path, "--json").stdout)
    assert path.stat().st_mode & 0o777 == 0o600
    again = json.loads(run("inference", "key", path, "--register", "--signer", tmp_path / "payer", "--json").stdout)
    assert made["public"] == again["public"] == open_key_file(path, "secret").public.hex()
    assert house.chain.auditor_key(named_key("owner 2").address).hex() == made["public"]
    assert made["public"] in run("inference", "key", path).stdout.replace("\n", "")
    assert run("inference", "key", path, "--register").exit_code == 2
    assert "secret" not in path.read_text()


def test_a_key_file_opens_with_its_password_and_in_no_other_way(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = create_key_file(path, "secret", scrypt_n=2)
    assert open_key_file(path, "secret") == key
    assert key.secret.hex() not in path.read_text() + repr(key)
    with pytest.raises(KeystoreFault, match="never overwritten"):
        create_key_file(path, "secret", scrypt_n=2)
    with pytest.raises(KeystoreFault, match="empty password"):
        create_key_file(tmp_path / "other", "")
    with pytest.raises(KeystoreFault, match="password is wrong"):
        open_key_file(path, "another")
    good = json.loads(path.read_text())
    changes = [{"n": 4}, {"n": 3}, {"n": 1 << 40}, {"public": "11" * 32}, {"salt": "11" * 32}, {"box": "11" * 48}]
    for change in [*changes, {"format": "x"}, {"more": 1}]:
        path.write_text(json.dumps({**good, **change}, sort_keys=True, separators=(",", ":")))
        with pytest.raises(KeystoreFault):
            open_key_file(path, "secret")
    path.write_bytes(bytes(1 << 20))
    with pytest.raises(KeystoreFault):
        open_key_file(path, "secret")
    path.chmod(0o644)
    with pytest.raises(KeystoreFault, match="read by others"):
        open_key_file(path, "secret")


# ---- a proof of the forward pass


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ((404, "text/plain", b""), "has no prover"),
        ((501, "application/json", b"{}"), "has no prover"),
        ((503, "text/plain", b""), "HTTP 503"),
        ((200, "text/html", b"<html>"), "text/html"),
    ],
)
def test_where_no_proof_comes_it_is_not_proven_and_said_why(
    honest: Any, run: Run, tmp_path: Path, serve_pages: Any, page: Any, said: str
) -> None:
    asked: list[str] = []
    with serve_pages(lambda path: asked.append(path) or page) as url:
        result = run("inference", "prove", honest.keep(5, tmp_path / "kept"), "--log", url)
    assert (result.exit_code, asked) == (3, ["/v1/prove"])
    assert "NOT PROVEN" in result.stdout
    assert said in result.stdout
    assert run("inference", "prove", str(tmp_path / "kept"), "--log", "http://127.0.0.1:1").exit_code == 3
    assert run("inference", "prove", str(tmp_path / "kept"), "--log", "ftp://x").exit_code == 2
