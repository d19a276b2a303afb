"""The first day: what `init` writes is complete, private where it must be, and never overwrites anything."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ledger.signing import open_keystore, read_password
from node import aggregator_cli, cli
from node.init import AlreadyThere, create_node
from node.privacy_ledger import PrivacyLedger
from node.settings import load_aggregator, load_node

ROUNDS = "0x" + "11" * 20


@pytest.fixture(autouse=True)
def _light_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.signing.create_keystore.__kwdefaults__", {"scrypt_n": 2})


def test_the_template_is_valid_and_points_to_what_was_made(tmp_path: Path) -> None:
    made = create_node(tmp_path / "me" / "settings.toml", "http://127.0.0.1:8545", ROUNDS)
    settings = load_node(tmp_path / "me" / "settings.toml")
    key = open_keystore(settings.key.keystore, read_password(settings.key.password_file))
    assert made["address"] == "0x" + key.address.hex()
    assert PrivacyLedger(settings.state / "privacy").entries() == []
    assert settings.chain.rounds == b"\x11" * 20


def test_secrets_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    create_node(tmp_path / "settings.toml", "http://127.0.0.1:8545", ROUNDS)
    for name in ("keystore.json", "password"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    create_node(path, "http://127.0.0.1:8545", ROUNDS)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(AlreadyThere):
        create_node(path, "http://127.0.0.1:8545", ROUNDS)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_a_key_that_is_there_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    first = create_node(path, "http://127.0.0.1:8545", ROUNDS)
    path.unlink()
    assert create_node(path, "http://127.0.0.1:8545", ROUNDS)["address"] == first["address"]


def test_the_commands(tmp_path: Path) -> None:
    runner = CliRunner()
    node, aggregator = str(tmp_path / "n" / "node.toml"), str(tmp_path / "a" / "aggregator.toml")
    made = runner.invoke(cli.app, ["init", "--config", node, "--rounds", ROUNDS, "--json"])
    assert made.exit_code == 0
    assert json.loads(made.output)["config"] == node
    assert runner.invoke(aggregator_cli.app, ["init", "--config", aggregator, "--rounds", ROUNDS]).exit_code == 0
    assert load_aggregator(Path(aggregator)).coordinator is None
    again = runner.invoke(cli.app, ["init", "--config", node])
    assert again.exit_code == cli.USAGE
    assert "nothing was changed" in again.output


def test_a_chain_that_does_not_answer_is_exit_code_3_and_not_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    create_node(path, "http://127.0.0.1:9", ROUNDS)
    result = CliRunner().invoke(cli.app, ["status", "--config", str(path)])
    assert result.exit_code == cli.UNREADABLE
    assert "Traceback" not in result.output


def test_a_daemon_without_its_privacy_ledger_does_not_start(tmp_path: Path) -> None:
    """It cannot know what its data has already paid."""
    path = tmp_path / "settings.toml"
    create_node(path, "http://127.0.0.1:9", ROUNDS)
    for file in (tmp_path / "state" / "privacy").iterdir():
        file.unlink()
    result = CliRunner().invoke(cli.app, ["run", "--config", str(path)])
    assert result.exit_code == cli.USAGE
    assert "privacy ledger" in result.output
