"""Whose model answered: a round's end is established from blocks, by every command that rests on it, not from a node.

The model itself stands in for itself, and gives every answer again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from ledger import audit_door, inference_cli
from ledger.eip712 import Domain
from ledger.events import transcript_next
from ledger.history import History
from ledger.log.key_file import create_key_file
from ledger.log.replaying import Asked, Replayed
from ledger.log.sealing import AuditorKey
from ledger.records import Finalised, Logged, Objected
from ledger.report import Status
from ledger.rpc import RpcRefused

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def federation(found_federation: Any) -> Any:
    """A round that ended, and one that was voided: its aggregate was proposed, and never FINAL."""
    made = found_federation(3)
    made.play()
    made.final = made.state.finalised.aggregate_bundle
    made.play(objectors=[0, 1])
    made.voided = made.state.proposal.aggregate_bundle
    assert made.state.voided is not None
    return made


@pytest.fixture(scope="module")
def houses(federation: Any, new_house: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One server with a log of three answers: of the final model, of the voided one, of one that nobody knows."""
    folder = tmp_path_factory.mktemp("origin") / "log"
    house = new_house(folder, federation)
    for bundle in (federation.final, federation.voided, sha256(b"unknown").digest()):
        house.answer(len(house.receipts), bundle=bundle)
    house.anchor()
    federation.chain.mine(10)
    return house


class Liar:
    """The voided round, shown as final, in events and views that fit each other."""

    def __init__(self, federation: Any) -> None:
        self.true = federation.chain
        true = list(self.true.events(0, self.true.head().number))
        late = self.true.head()
        kept = [at for at in true[:-1] if not isinstance(at.event, Objected)]
        final = Finalised(2, federation.voided, bytes(32))
        self.told = list(self._retold([*kept, Logged(final, late.number, late.hash, b"\x07" * 32, 0)]))
        self.shown = History(Domain(self.true.chain_id, self.true.rounds_address)).after_all(self.told)

    def _retold(self, logs: list[Logged]) -> Iterator[Logged]:
        before: dict[int, bytes] = {}
        for at in logs:
            after = before[at.event.round] = transcript_next(before.get(at.event.round, bytes(32)), at.event)
            yield replace(at, event=replace(at.event, transcript=after))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.true, name)

    def events(self, first: int, last: int) -> list[Logged]:
        return [at for at in self.told if first <= at.block_number <= last]

    def round_view(self, number: int) -> Any:
        return replace(self.true.round_view(number), transcript=self.shown.rounds[number].transcript)


class Silent:
    """A node that shows no receipts."""

    def __init__(self, true: Any) -> None:
        self.true = true

    def __getattr__(self, name: str) -> Any:
        return getattr(self.true, name)

    def receipts(self, number: int) -> list[bytes]:
        raise RpcRefused("eth_getBlockReceipts", -32601, "the method does not exist", b"")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    told: list[Asked] = []

    def replay(one: Asked) -> Replayed:
        told.append(one)
        return Replayed(Status.PASS, "MATCH")

    monkeypatch.setattr(inference_cli, "installed_replayer", lambda: replay)
    return told


@pytest.fixture
def replay(
    federation: Any, houses: Any, run: Run, on_chain: Any, ran: list[Asked], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Callable[..., tuple[int, dict[str, set[str]]]]:  # fmt: skip
    monkeypatch.setenv("CANDOR_KEY_PASSWORD", "secret")
    monkeypatch.setattr(inference_cli, "open_contents", lambda places: federation.store)
    monkeypatch.setattr(AuditorKey, "create", classmethod(lambda cls: houses.reader_key))
    create_key_file(tmp_path / "key", "secret", scrypt_n=2)

    def call(sequence: int, *options: Any, chain: Any = None) -> tuple[int, dict[str, set[str]]]:
        on_chain(chain or federation.chain)
        words = ["inference", "replay", str(sequence), "--key", tmp_path / "key", "--log", houses.folder, *options]
        result = run(*words, "--json")
        found: dict[str, set[str]] = {}
        for link in json.loads(result.stdout).get("links", ()):
            found.setdefault(link["link"], set()).add(link["status"])
        return result.exit_code, found

    return call


def test_a_final_model_is_established_and_its_answer_given_again(
    federation: Any, replay: Any, ran: list[Asked]
) -> None:
    code, links = replay(0)
    assert code == 0
    assert [links[name] for name in ("model", "replay", "history", "headers", "log")] == [{"PASS"}] * 5
    assert ran[0].history.rounds[1].finalised.aggregate_bundle == federation.final


def test_a_node_that_shows_a_voided_round_as_final_is_not_believed(
    federation: Any, replay: Any, ran: list[Asked]
) -> None:
    """Its events, views and transcripts all fit; the receipts of its blocks do not."""
    liar = Liar(federation)
    assert liar.shown.rounds[2].finalised is not None
    code, links = replay(1, chain=liar)
    assert (code, links["model"]) == (1, {"NOT PROVEN"})
    assert "FAIL" in links["headers"]
    code, links = replay(1)
    assert (code, links["model"], links["replay"]) == (1, {"FAIL"}, {"NOT PROVEN"})


def test_a_node_that_shows_no_receipts_leaves_the_model_unproven_and_the_code_says_so(
    federation: Any, replay: Any
) -> None:
    code, links = replay(0, chain=Silent(federation.chain))
    assert (code, links["model"], links["headers"]) == (3, {"NOT PROVEN"}, {"NOT PROVEN"})
    assert links["replay"] == {"PASS"}, "that this bundle gives this answer does not hang on the rounds"


def test_a_model_that_nobody_made_final_is_not_run(replay: Any, ran: list[Asked]) -> None:
    code, links = replay(2)
    assert (code, links["model"], links["replay"], ran) == (1, {"FAIL"}, {"NOT PROVEN"}, [])


def test_how_far_blocks_are_walked_is_the_auditors_to_say(federation: Any, replay: Any) -> None:
    code, links = replay(0, "--max-blocks", 5)
    assert (code, links["model"], links["headers"]) == (3, {"NOT PROVEN"}, {"NOT PROVEN"})
    assert replay(0, "--max-blocks", 1000)[0] == 0


@pytest.mark.parametrize("command", ["list", "verify", "replay", "fsck", "watch", "trace"])
def test_every_command_takes_a_trusted_block_and_says_when_blocks_are_too_many(
    federation: Any, houses: Any, run: Run, replay: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr("ledger.audit_cli.open_contents", lambda places: federation.store)
    if not (tmp_path / "kept").exists():
        houses.keep(0, tmp_path / "kept")
    words = {
        "verify": [tmp_path / "kept", "--log", houses.folder],
        "replay": ["0", "--key", tmp_path / "key", "--log", houses.folder],
        "fsck": ["--log", houses.folder],
        "watch": ["--once", "--state", tmp_path / "seen", "--log", houses.folder],
        "trace": [tmp_path / "kept", "--log", houses.folder],
    }
    begin = [command] if command == "trace" else ["inference", command]
    head = federation.chain.head()
    replay(0)  # its chain is the one that is opened

    def code(*options: Any) -> int:
        return run(*begin, *words.get(command, ()), *options, "--json").exit_code

    assert code() == code("--trusted-block", f"{head.number}:0x{head.hash.hex()}") == 0
    assert code("--trusted-block", f"{head.number}:{'11' * 32}") == 1
    assert code("--max-blocks", 5) == 3
    assert code("--trusted-block", "7:zz") == 2


def test_a_long_walk_is_told_beside_the_report(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_door, "TOLD_EVERY", 10)
    walk = audit_door.walk_from(100, "")
    for done in (5, 10, 15, 20, 25):
        walk.tell(done, 25)
    assert capfd.readouterr().err.splitlines() == [f"block headers: {done} of 25" for done in (10, 20, 25)]
