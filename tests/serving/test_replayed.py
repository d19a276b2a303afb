"""An auditor's command, a real server, a real model: what was answered is given again, and what was not is found."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ledger import inference_cli
from ledger.audit_trace import Origin, origin_link
from ledger.eip712 import Domain
from ledger.history import History
from ledger.log.key_file import create_key_file
from ledger.log.sealing import AuditorKey
from ledger.report import Name, passed
from node import replay_door
from node.engine import Engine
from node.serving.ask import ask
from node.serving.daemon import Server

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def serving(site: Any, language: Engine, open_server: Callable[[], Server]) -> Callable[[Any], Server]:
    """A server that says that it runs the language model, and runs what it is given."""

    def serve(engine: Any) -> Server:
        site.engine = engine
        return open_server()

    return serve


@pytest.fixture
def audit(
    site: Any, language: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, dict[str, Any]]]:
    """`inference replay` of an entry, by the auditor's key; the chain's model is the language model."""
    monkeypatch.setattr(inference_cli, "open_chain", lambda places: site.chain)
    monkeypatch.setattr(inference_cli, "installed_replayer", lambda: replay_door.replay)
    monkeypatch.setattr(AuditorKey, "create", classmethod(lambda cls: site.auditor))
    monkeypatch.setenv("CANDOR_KEY_PASSWORD", "secret")
    create_key_file(tmp_path / "key", "secret", scrypt_n=2)

    def origin(chain: Any, contents: Any, bundle: bytes, log: Any, **_: Any) -> Origin:
        history, number = (
            History(Domain(chain.chain_id, chain.rounds_address)),
            1 if bundle == language.bundle else None,
        )
        link = passed(Name.MODEL, "final") if number else origin_link(history, bundle, None, ())
        return Origin(history, number, (link,))

    monkeypatch.setattr(inference_cli, "audit_origin", origin)
    monkeypatch.setattr(replay_door, "load_of", lambda *_: language)

    def run(what: Any, server: Server, *options: str) -> tuple[int, dict[str, Any]]:
        words = ["replay", str(what), "--key", tmp_path / "key", "--log", server.url, "--json", *options]
        result: Result = CliRunner().invoke(inference_cli.app, list(map(str, words)), catch_exceptions=False)
        told = json.loads(result.stdout)
        found = {link["link"]: link for link in told.get("links", ())}
        return result.exit_code, found.get("replay", told)

    return run


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_model_answered_is_given_again(
    language: Engine, serving: Any, audit: Any, tmp_path: Path, stream: bool
) -> None:
    server = serving(language)
    ask(server.url, "A small shop: pays on", max_tokens=12, temperature=0.8, seed=4, stream=stream).write(
        tmp_path / "kept"
    )
    assert server.anchor.turn() == 0
    for what in (tmp_path / "kept", 0):
        code, link = audit(what, server, "--base", "package:none")
        assert (code, link["status"], link["data"]["why"]) == (0, "PASS", "SAME")
    assert audit(0, server)[0] == 2  # no base was named


def test_a_server_that_runs_another_model_under_this_name_is_found(
    language: Engine, make_engine: Any, serving: Any, audit: Any
) -> None:
    """Another adapter, whose answers say that they are of the right bundle."""
    server = serving(Engine(make_engine("language", 4).model, language.bundle))
    ask(server.url, "A small shop: pays on", max_tokens=12, temperature=0.0, seed=4)
    assert server.anchor.turn() == 0
    code, link = audit(0, server, "--base", "package:none")
    assert (code, link["status"]) == (1, "FAIL")
    assert link["data"]["why"] in ("TOKENS", "STATES")


def test_a_server_whose_model_no_round_made_final_is_found(make_engine: Any, serving: Any, audit: Any) -> None:
    server = serving(make_engine("language", 4))
    ask(server.url, "A small shop: pays on", max_tokens=2)
    assert server.anchor.turn() == 0
    code, link = audit(0, server, "--base", "package:none")
    assert (code, link["status"]) == (1, "NOT PROVEN"), "the model fails, and nothing is run"
    assert "no round made final" in link["evidence"]


def test_the_entry_point_is_what_it_says() -> None:
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["candor.audit"]
    for known, expected in (("replay", replay_door.replay), ("texts", replay_door.texts)):
        module, _, name = points[known].partition(":")
        assert getattr(import_module(module), name) is expected
