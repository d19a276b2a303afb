"""The door: settings that init writes are settings that run reads; keys, status and ask from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ledger.ports import ChainPort
from node.serve_cli import KEY_VARIABLE, app
from node.serving import status
from node.serving.daemon import Server
from node.serving.keys import load_keys
from node.serving.settings import load_serve
from node.settings import SettingsInvalid

LOG = "0x" + "ab" * 20


def ran(*arguments: str, code: int = 0, **environment: str) -> str:
    result = CliRunner().invoke(app, list(arguments), env=environment)
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("ledger.signing.SCRYPT_N", 1 << 10)
    path = tmp_path / "new" / "serve.toml"
    ran("init", "--config", str(path), "--log", LOG, "--json")
    return path


def test_what_init_writes_can_be_read_and_is_not_overwritten(config: Path) -> None:
    settings = load_serve(config)
    assert (settings.audit_log.contract, settings.bundle, settings.http.port) == (bytes([0xAB]) * 20, None, 8000)
    assert settings.limits.keys is None
    before = config.read_bytes()
    ran("init", "--config", str(config), code=2)
    assert config.read_bytes() == before


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("auditors = []", 'auditors = ["me"]', "log.auditors"),
        ("promise_blocks = 300", "promise_blocks = 0", "log.promise_blocks"),
        ('bundle = "latest"', 'bundle = "newest"', "model.bundle"),
        ("batch = 16", "batch = 0", "limits.batch"),
        ("body_bytes = 262144", "body_bytes = 16777216", "limits.body_bytes"),  # no record would hold it
        ("queue = 128", "quue = 128", "limits.quue"),
        ("[limits]", "[limit]", "limit"),
    ],
)
def test_a_wrong_setting_is_named_with_its_line(config: Path, old: str, new: str, key: str) -> None:
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises(SettingsInvalid, match=rf"line \d+: .*{key}"):
        load_serve(config)


def test_a_key_is_printed_once_and_kept_as_a_digest(config: Path) -> None:
    assert "limits.keys" in ran("key", "--config", str(config), "alice", code=2)
    config.write_text(config.read_text().replace("# keys =", "keys ="))
    key = json.loads(ran("key", "--config", str(config), "alice", "--json"))["key"]
    ran("key", "--config", str(config), "alice", code=2)
    ran("key", "--config", str(config), "two words", code=2)
    kept = config.parent / "api-keys"
    assert key not in kept.read_text()
    assert load_keys(kept, "0.0.0.0").allows(f"Bearer {key}")


def test_ask_keeps_what_an_audit_needs(server: Server, site: Any, tmp_path: Path) -> None:
    from ledger.log.receipt import Receipt

    out = tmp_path / "kept"
    for number, more in enumerate(((), ("--stream", "--seed", "4"))):
        folder = out / str(number)
        said = ran("ask", "--url", server.url, "--out", str(folder), "--max-tokens", "2", *more, "how much?")
        files = {name: (folder / name).read_bytes() for name in ("request", "response", "receipt.json")}
        site.check(Receipt.decode(files["receipt.json"]), files["request"], files["response"])
        assert said.strip() == files["response"].decode().strip()
    ran("ask", "--url", server.url, "--out", str(folder), "again", code=2)
    assert (folder / "response").read_bytes() == files["response"]
    ran("ask", "--url", "http://127.0.0.1:9", "anybody?", code=3)


def test_ask_sends_a_key_from_the_environment(site: Any, open_server: Any, tmp_path: Path) -> None:
    from node.serving.keys import add_key

    key = add_key(tmp_path / "keys", "alice")
    site.limits(keys=tmp_path / "keys")
    url = open_server().url
    ran("ask", "--url", url, "hello", code=1)
    ran("ask", "--url", url, "hello", **{KEY_VARIABLE: key})


def test_status_tells_what_is_written_anchored_and_published(
    site: Any, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it runs, from its own word too."""
    from dataclasses import replace

    chain: ChainPort = site.chain
    monkeypatch.setattr(status, "EvmChain", lambda *_, **__: chain)
    ran("ask", "--url", server.url, "hello")
    server.anchor.turn()
    ran("ask", "--url", server.url, "hello")
    port = int(server.url.rpartition(":")[2])
    settings = replace(site.settings, http=replace(site.settings.http, port=port))
    found = status.serve_status(settings)
    assert (found["anchored"], found["signed"], found["published"], found["forked"]) == (1, 1, 1, False)
    server.anchor.turn(now=True)
    found = status.serve_status(settings)
    assert found["running"] is not None
    assert (found["running"]["entries"], found["running"]["anchored"], found["running"]["late_blocks"]) == (2, 2, 0)
    assert {intent["status"] for intent in found["intents"]} == {"done"}
    assert status.serve_status(site.settings)["running"] is None, "its port is not known"
