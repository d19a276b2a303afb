"""candor-audit: what it prints, and with which code it ends. The chain is a twin, the content is on disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ledger import audit_cli
from ledger.audit_open import NothingToRead, Places, open_contents, places_of
from ledger.content import EmbeddedStore
from ledger.content.cid import Cid
from ledger.ports import ChainUnavailable
from ledger.records import Reason


@pytest.fixture(scope="module")
def played(found_federation: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two rounds, in the second one member's trajectory leads elsewhere."""
    made = found_federation(3, store=EmbeddedStore(tmp_path_factory.mktemp("played") / "content"))
    made.play()
    made.play({2: "TRAJECTORY_MISMATCH"})
    return made


@pytest.fixture
def federation(played: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What was played, with a copy of its content to spoil; its chain is what `--rpc` opens."""
    shutil.copytree(played.store.path, tmp_path / "content")
    monkeypatch.setattr(audit_cli, "open_chain", lambda places: played.chain)
    monkeypatch.setattr(played, "content", str(tmp_path / "content"), raising=False)
    return played


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(audit_cli.app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_verify_all_passes_and_prints_not_proven(federation: Any) -> None:
    result = run("verify", "--all", "--content", federation.content)
    assert result.exit_code == 0
    assert "NOT PROVEN gradient: the config asks for no proof" in result.stdout
    assert "PASS, except for what is NOT PROVEN above" in result.stdout
    assert "compare them with a source that you trust" in result.stdout


def test_verify_as_json_holds_the_whole_report(federation: Any) -> None:
    result = run("verify", "--round", "2", "--content", federation.content, "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["status"], [r["round"] for r in told["rounds"]]) == (0, "PASS", [2])
    assert {link["status"] for r in told["rounds"] for link in r["links"]} == {"PASS", "NOT PROVEN"}


def test_why_re_runs_the_verdict(federation: Any) -> None:
    result = run("why", "--member", "2", "--round", "2", "--content", federation.content)
    assert result.exit_code == 0
    assert "the quorum said       TRAJECTORY_MISMATCH" in result.stdout
    assert "the trajectory does not lead to the adapter" in result.stdout
    assert "they agree" in result.stdout
    told = json.loads(run("why", "--member", "2", "--round", "2", "--content", federation.content, "--json").stdout)
    assert (told["posted"], told["found"], told["agrees"]) == ("TRAJECTORY_MISMATCH", "TRAJECTORY_MISMATCH", True)


def test_a_lie_ends_with_code_one(found_federation: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = found_federation(3, store=EmbeddedStore(tmp_path / "content"))
    made.play(verdicts=lambda honest: honest | {1: Reason.OFF_GRID})
    monkeypatch.setattr(audit_cli, "open_chain", lambda places: made.chain)
    result = run("verify", "--round", "1", "--content", str(tmp_path / "content"))
    assert result.exit_code == 1
    assert "FAIL" in result.stdout
    result = run("why", "--member", "1", "--round", "1", "--content", str(tmp_path / "content"))
    assert result.exit_code == 1
    assert "THEY DISAGREE" in result.stdout


def test_rounds_round_and_members_are_printed(federation: Any) -> None:
    told = json.loads(run("rounds", "--json").stdout)
    assert [(r["round"], r["outcome"], r["accepted"]) for r in told["rounds"]] == [
        (1, "final", [0, 1, 2]),
        (2, "final", [0, 1]),
    ]
    assert "final" in run("rounds").stdout
    told = json.loads(run("round", "2", "--json").stdout)
    assert told["seats"][2]["reason"] == "TRAJECTORY_MISMATCH"
    assert "TRAJECTORY_MISMATCH" in run("round", "2").stdout
    told = json.loads(run("members", "--json").stdout)
    assert [m["status"] for m in told["members"]] == ["ACTIVE"] * 3
    assert "ACTIVE" in run("members").stdout


def test_export_then_verify_and_why_from_the_file_alone(
    federation: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(tmp_path / "round-2.car")
    told = json.loads(run("export", "--round", "2", file, "--content", federation.content, "--json").stdout)
    monkeypatch.setattr(audit_cli, "open_chain", None)
    shutil.rmtree(federation.content)
    assert run("verify", file).exit_code == 0
    anchor = told["anchor"]
    result = run("verify", file, "--anchor", anchor["block_hash"], "--rounds", anchor["contract"])
    assert result.exit_code == 0
    assert "the anchor is the one given" in result.stdout.replace("\n", " ")
    assert run("verify", file, "--anchor", "0x" + "11" * 32).exit_code == 1
    assert run("verify", file, "--rounds", "0x" + "11" * 20).exit_code == 1
    assert run("why", file, "--member", "2").exit_code == 0


def test_the_verdict_is_the_same_from_a_copy_of_the_content(federation: Any, tmp_path: Path) -> None:
    told = run("verify", "--content", federation.content, "--json").stdout
    shutil.copytree(federation.content, tmp_path / "copy")
    shutil.rmtree(federation.content)
    assert run("verify", "--content", str(tmp_path / "copy"), "--json").stdout == told


def test_content_that_is_nowhere_ends_with_code_three(federation: Any, tmp_path: Path) -> None:
    (tmp_path / "empty" / "blocks").mkdir(parents=True)
    result = run("verify", "--content", str(tmp_path / "empty"))
    assert result.exit_code == 3
    assert "FAIL" not in result.stdout
    assert run("verify").exit_code == 3
    assert run("why", "--member", "0", "--round", "1").exit_code == 3
    assert run("export", "--round", "1", str(tmp_path / "x.car")).exit_code == 3


def test_a_content_folder_is_read_and_never_written(federation: Any) -> None:
    def seen() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in Path(federation.content).rglob("*")}

    shutil.rmtree(Path(federation.content) / "incoming")
    before = seen()
    assert run("verify", "--content", federation.content).exit_code == 0
    assert seen() == before


def test_content_damaged_in_one_folder_is_read_from_the_next(federation: Any, tmp_path: Path) -> None:
    shutil.copytree(federation.content, tmp_path / "copy")
    bundle = Cid.directory(federation.state.submissions[0].bundle)
    EmbeddedStore(federation.content).block_path(bundle).write_bytes(b"not the block")
    alone = run("verify", "--content", federation.content)
    assert alone.exit_code == 3
    assert "no longer holds" in alone.stdout.replace("\n", " ")
    both = run("verify", "--content", federation.content, "--content", str(tmp_path / "copy"))
    assert both.exit_code == 0


def test_a_chain_that_does_not_answer_ends_with_code_three(federation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(federation.chain, "available", False)
    result = run("verify", "--content", federation.content, "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["fault"] == "wire"

    def refuse(places: Places) -> None:
        raise ChainUnavailable("no answer")

    monkeypatch.setattr(audit_cli, "open_chain", refuse)
    for command in (["rounds"], ["members"], ["round", "1"], ["export", "--round", "1", "x"]):
        assert run(*command).exit_code == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "--round", "1", "--all"],
        ["verify", "--round", "9"],
        ["verify", "--from-block", "9"],
        ["verify", "--round", "0"],
        ["verify", "nowhere.car"],
        ["verify", "nowhere.car", "--all"],
        ["verify", "nowhere.car", "--anchor", "0x12"],
        ["verify", "--content", "/nowhere"],
        ["verify", "--config", "/nowhere.toml"],
        ["why", "--member", "0"],
        ["why", "--member", "7", "--round", "1"],
        ["why", "--round", "1"],
        ["round", "9"],
        ["round", "one"],
        ["export", "--round", "9", "x.car"],
        ["export", "--round", "1", "/nowhere/x.car", "--content", "CONTENT"],
        ["dance"],
    ],
)
def test_wrong_usage_ends_with_code_two(federation: Any, arguments: list[str]) -> None:
    here = [federation.content if argument == "CONTENT" else argument for argument in arguments]
    assert run(*here).exit_code == 2


def test_a_file_that_is_none_fails_and_terminal_escapes_in_it_are_shown(tmp_path: Path) -> None:
    (tmp_path / "evil.car").write_bytes(b"\x1b[2Jhello")
    result = run("verify", str(tmp_path / "evil.car"))
    assert result.exit_code == 1
    assert "FAIL" in result.stdout
    assert "\x1b[2J" not in result.stdout
    assert run("why", str(tmp_path / "evil.car"), "--member", "0").exit_code == 1


def test_places_come_from_a_daemons_settings_and_the_command_line_wins(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(
        '[chain]\nrpc_url = "http://a"\nrounds = "0x' + "22" * 20 + '"\nstart_block = 7\n'
        '[content]\npath = "store"\npeers = ["http://b"]\n[key]\nkeystore = "k"\n'
    )
    settings = places_of(file)
    assert settings == Places("http://a", "0x" + "22" * 20, 7, (str(tmp_path / "store"), "http://b"))
    assert Places(rpc="http://c").over(settings).rpc == "http://c"
    assert settings.contract == b"\x22" * 20


@pytest.mark.parametrize("text", ["[chain", "chain = 3", "[chain]\nrpc_url = 3", "[content]\npeers = 'a'", "\x00"])
def test_settings_that_cannot_be_read_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(NothingToRead):
        places_of(tmp_path / "bad.toml")


@pytest.mark.parametrize("address", ["", "0x12", "0x" + "zz" * 20, "11" * 21])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(NothingToRead):
        _ = Places(rounds=address).contract


def test_a_gateway_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    open_contents(["http://127.0.0.1:1"])
    with pytest.raises(NothingToRead):
        open_contents([str(tmp_path)])
