"""The chain of custody joins up: a round, its bundle served, an answer audited, replayed, and traced to the base."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from devnet.presets import TINY
from ledger import audit_cli, inference_cli
from ledger.audit_open import FirstOf
from ledger.base_program import Base
from ledger.bundle import bundle_limits, read_weights
from ledger.config import AdapterSpec, TaskSpec
from ledger.deploy import act
from ledger.inference_proof import Answer
from ledger.log.actions import RegisterAuditor
from ledger.log.key_file import create_key_file
from ledger.log.receipt import Decoding, Receipt
from ledger.log.replaying import NoReplayer
from ledger.log.sealing import AuditorKey
from ledger.signing import Key, create_keystore
from node import replay_door
from node.engine import load
from node.fingerprint import Fingerprint
from node.inference_proof import prove_inference
from node.model import layout, load_base
from node.serving.ask import ask
from node.serving.daemon import opened
from node.serving.engine import Job
from node.serving.reading import Said, read_reply
from node.serving.settings import LimitSettings, LogSettings, ServeSettings
from node.settings import ChainSettings, ContentSettings, HttpSettings, KeySettings

TARGETS = ("v_proj",)


@pytest.fixture
def world(make_world: Callable[..., Any]) -> Any:
    """One round of the language model that ships with this repository, with noise for gradients."""
    base = load_base(TINY.base_path)
    made = make_world(
        rounds=1,
        base_digest=base.digest,
        task=TaskSpec((), 32, "next-token"),
        adapter=AdapterSpec(
            2, 4, TARGETS, (), layout(base, rank=2, alpha=4, targets=TARGETS, head=(), labels=0, rule="ffa")
        ),
    )
    made.until_ended(1)
    made.close()
    made.chain.automine = True
    return made


def settings_of(world: Any, key: Key, auditor: bytes, folder: Path) -> ServeSettings:
    (folder / "password").touch(0o600)
    (folder / "password").write_text("secret\n")
    create_keystore(folder / "key.json", "secret", scrypt_n=1 << 10, key=key)
    return ServeSettings(
        chain=ChainSettings("http://127.0.0.1:9", world.chain.rounds_address, 2, 0, 500),
        key=KeySettings(folder / "key.json", folder / "password"),
        content=ContentSettings(folder / "content", (), "", 5.0),
        http=HttpSettings("127.0.0.1", 0),
        state=folder / "state",
        poll_s=0.05,
        model=TINY.base_path,
        bundle=None,
        name="tiny",
        device="cpu",
        audit_log=LogSettings(world.chain.log_address, 40, (auditor,), 0.0, 0.0),
        limits=LimitSettings(None, 1 << 16, 256, 64, 16, 4, 20, 20.0, 64),
    )


def nothing_installed() -> None:
    raise NoReplayer("nothing here")


def proven(world: Any, engine: Any, contents: Any, kept: Path, ask: str = "A small shop: pays on") -> bytes:
    """What a server with a prover would answer: of the tokens of this greedy answer; or of one to another text, which
    the model does give to that."""
    said = read_reply((kept / "response").read_bytes())
    assert isinstance(said, Said)
    prompt, tokens = engine.encode(ask), Fingerprint.decode(said.fingerprint).tokens
    if ask not in (kept / "request").read_text():
        job = Job(tuple(prompt), Decoding(4, Fraction(0), Fraction(1), 0, 0))
        tokens = engine.generate([job], lambda step: None, lambda number: False)[0].tokens
    tokens = (*prompt, *tokens)
    answer = Answer(Receipt.decode((kept / "receipt.json").read_bytes()).entry.leaf, tokens, len(prompt), None)
    weights = read_weights(contents.get_directory(engine.bundle, bundle_limits(world.config)), world.config)
    return prove_inference(Base.open(Path(TINY.base_path)), world.config, weights, answer)


def test_from_a_round_to_an_answer_and_all_the_way_back(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server_key, auditor = (Key.of(sha256(f"node tests: member {n}".encode()).digest()) for n in (1, 2))
    stores = [(daemon.name, daemon.store) for daemon in world.daemons]
    for module in (audit_cli, inference_cli):
        monkeypatch.setattr(module, "open_chain", lambda places: world.chain)
        monkeypatch.setattr(module, "open_contents", lambda places: FirstOf(stores))
    monkeypatch.setattr(inference_cli, "installed_replayer", lambda: replay_door.replay)
    monkeypatch.setenv("CANDOR_KEY_PASSWORD", "secret")
    reads: AuditorKey = create_key_file(tmp_path / "auditor", "secret", scrypt_n=2)
    act(world.chain, auditor, RegisterAuditor(reads.public))
    contents: Any = FirstOf(stores)
    engine = load(world.chain, contents, world.chain.rounds_address, "latest final", TINY.base_path, "cpu")
    settings = settings_of(world, server_key, auditor.address, tmp_path)

    def audit(*words: Any) -> tuple[int, Any]:
        result = CliRunner().invoke(audit_cli.app, [*map(str, words), "--json"], catch_exceptions=False)
        return result.exit_code, json.loads(result.stdout)

    def prove(sent: bytes) -> tuple[int, list[str]]:
        monkeypatch.setattr(inference_cli, "ask_for_proof", lambda *_: sent)
        code, told = audit("inference", "prove", tmp_path / "kept", "--log", server.url, "--base", TINY.base_path)
        return code, [link["status"] for link in told["links"] if link["link"] == "proof"]

    with opened(settings, threading.Event(), engine=engine, chain=world.chain) as server:
        ask(server.url, "A small shop: pays on", max_tokens=8, temperature=0.0, seed=4).write(tmp_path / "kept")
        assert server.anchor.turn() == 0
        code, told = audit("inference", "replay", tmp_path / "kept", "--key", tmp_path / "auditor", "--log", server.url,
                           "--base", TINY.base_path)  # fmt: skip
        assert (code, told["links"][2]["status"]) == (0, "PASS"), told["links"][2]
        proof = proven(world, engine, contents, tmp_path / "kept")
        other = proven(world, engine, contents, tmp_path / "kept", ask="A large shop: pays")
        monkeypatch.setattr(inference_cli, "installed_texts", lambda: replay_door.texts)
        for sent, code, statuses in (
            (proof, 0, ["PASS", "PASS"]),
            (other, 1, ["PASS", "FAIL"]),
            (proof[:-1], 1, ["FAIL"]),
        ):
            assert prove(sent) == (code, statuses)
        monkeypatch.setattr(inference_cli, "installed_texts", nothing_installed)
        assert prove(proof) == (3, ["PASS", "NOT PROVEN"])
        code, told = audit("trace", tmp_path / "kept", "--log", server.url, "--base", TINY.base_path)
    found = {(step["stage"], step["status"]) for step in told["steps"]}
    assert (code, [step for step in found if step[1] == "FAIL"]) == (0, [])
    assert {("answer", "PASS"), ("receipt", "PASS"), ("log", "PASS"), ("genesis", "PASS"), ("base", "PASS")} <= found
    assert any("is the aggregate of round 1 of 1" in step["text"] for step in told["steps"])
