"""The doctor finds what is wrong before it costs anything, by name; and when nothing is wrong it says what is to come.

On a real chain with the real contracts and the tiny model. Each test breaks one thing.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from devnet.federation import Federation, Plan, door, found, start_anvil
from devnet.presets import TINY
from ledger.actions import decode_calldata
from ledger.content import EmbeddedStore, serve
from ledger.records import Policy
from ledger.signing import Key, create_keystore
from node.cli import app
from node.doctor import Check, diagnose, examine
from node.settings import NodeSettings, load_node
from node.verifying import registration

pytestmark = [pytest.mark.anvil, pytest.mark.timeout(300)]

SMALL = replace(TINY, steps=2, rows=64, capacity=64, mean_batch=16, held_out=30, gradient=None)
POLICY = Policy(40, 40, 0, 20, 20, 6, 1, False, 1)


@dataclass
class Patient:
    federation: Federation
    settings: NodeSettings
    round_config: Path

    def check(self, name: str, **changes: object) -> Check:
        """What the doctor finds under that name when the settings are changed so."""
        checks = examine(replace(self.settings, **changes), self.round_config)  # type: ignore[arg-type]
        return next(check for check in checks if check.name == name)


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patient]:
    """A federation of one member, founded and not running."""
    plan = Plan(SMALL, tmp_path_factory.mktemp("doctor"), POLICY, nodes=1)
    with ExitStack() as stack:
        anvil = stack.enter_context(start_anvil(plan))
        federation = found(plan, anvil)
        coordinator = federation.aggregators[0]
        stack.enter_context(serve(EmbeddedStore(coordinator.content), "127.0.0.1", coordinator.port))
        settings = load_node(federation.nodes[0].settings)
        yield Patient(federation, settings, coordinator.folder / "config.json")


def test_nothing_is_wrong_and_the_command_says_so(patient: Patient) -> None:
    arguments = ["doctor", "--config", patient.federation.nodes[0].settings, "--json"]
    arguments += ["--round-config", patient.round_config]
    ran = subprocess.run([door("candor-node"), *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    report = json.loads(ran.stdout)
    assert report["ok"] is True
    names = {check["check"] for check in report["checks"]}
    assert names >= {
        "key", "chain", "contracts", "balance", "membership", "verifier", "privacy ledger", "content store", "model",
        "config", "data", "gradients", "ε forecast", "bytes",
    }  # fmt: skip
    assert "wei" in next(check["detail"] for check in report["checks"] if check["check"] == "balance")


def test_the_verifier_command_prints_what_the_owner_sends_and_no_secret(patient: Patient) -> None:
    site = patient.federation.nodes[0]
    command = [door("candor-node"), "verifier", "--config", site.settings, "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert (told["member"], told["registered"]) == (0, "registered")
    assert told["key"] == "0x" + site.key.verifier.public.hex()
    sent = decode_calldata("federation", bytes.fromhex(told["calldata"][2:]))
    assert sent == registration(site.key.verifier, patient.federation.chain(), 0)
    assert f"{site.key.verifier.secret:x}" not in ran.stdout + ran.stderr


def test_status_tells_what_state_folder_and_chain_know(patient: Patient) -> None:
    told = {}
    for role, site in (("node", patient.federation.nodes[0]), ("aggregator", patient.federation.aggregators[0])):
        command = [door(f"candor-{role}"), "status", "--config", site.settings, "--json"]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        told[role] = json.loads(ran.stdout)
    assert (told["node"]["member"], told["node"]["round"], told["node"]["phase"]) == (0, 0, "NONE")
    assert told["node"]["epsilon_booked"] == 0
    assert told["node"]["verifier"] == "registered"
    assert told["aggregator"]["rank"] == 0
    assert told["aggregator"]["intents"] == []


def test_it_spends_nothing(patient: Patient) -> None:
    chain = patient.federation.chain()
    address = patient.federation.nodes[0].key.address
    before = chain.nonce(address), chain.balance(address)
    diagnose(patient.settings, patient.round_config)
    assert (chain.nonce(address), chain.balance(address)) == before


def test_a_failed_check_is_exit_code_1_and_a_table_for_people(patient: Patient, tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    text = patient.federation.nodes[0].settings.read_text()
    settings.write_text(text.replace('label_column = "label"', 'label_column = "verdict"'))
    arguments = ["doctor", "--config", settings, "--round-config", patient.round_config]
    ran = CliRunner().invoke(app, [str(part) for part in arguments])  # in this process: models take long to load
    assert ran.exit_code == 1
    assert "FAILED" in ran.stdout
    assert "verdict" in ran.stdout


@pytest.mark.parametrize(
    ("check", "broken", "said"),
    [
        ("chain", lambda s: {"chain": replace(s.chain, rounds=b"\x01" * 20)}, "no contract"),
        ("chain", lambda s: {"chain": replace(s.chain, rpc_url="http://127.0.0.1:9")}, "chain.rpc_url"),
        ("key", lambda s: {"key": replace(s.key, keystore=s.key.keystore / "nothing")}, "nothing"),
        ("model", lambda s: {"model": str(s.state)}, "config.json"),
        ("data", lambda s: {"data": replace(s.data, text_column="body")}, "body"),
        ("data", lambda s: {"data": replace(s.data, path=s.state / "none.jsonl")}, "no such file"),
        ("privacy ledger", lambda s: {"state": s.state / "elsewhere"}, "privacy ledger"),
        ("ε forecast", lambda s: {"privacy": replace(s.privacy, max_epsilon=0.01)}, "not one more round"),
        ("peer http://127.0.0.1:9", lambda s: {"content": replace(s.content, peers=("http://127.0.0.1:9",))}, "127"),
    ],
)
def test_one_broken_thing_is_found_by_name(
    check: str, broken: Callable[[NodeSettings], dict[str, object]], said: str, patient: Patient
) -> None:
    found_check = patient.check(check, **broken(patient.settings))
    assert not found_check.ok
    assert said in found_check.detail


def test_another_key_is_no_member_and_has_no_money(patient: Patient, tmp_path: Path) -> None:
    create_keystore(tmp_path / "key.json", "password", Key.create(), scrypt_n=2)
    password = tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text("password\n")
    key = replace(patient.settings.key, keystore=tmp_path / "key.json", password_file=password)
    assert "no member" in patient.check("membership", key=key).detail
    assert not patient.check("balance", key=key).ok


def test_more_rows_than_the_public_capacity_are_found(patient: Patient, tmp_path: Path) -> None:
    rows = patient.settings.data.path.read_text()
    (tmp_path / "rows.jsonl").write_text(rows * 2)
    found_check = patient.check("data", data=replace(patient.settings.data, path=tmp_path / "rows.jsonl"))
    assert not found_check.ok
    assert "capacity" in found_check.detail


def test_gradients_that_are_not_per_example_are_found(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    from node.gradients import PerExampleGradients

    honest = PerExampleGradients.add
    monkeypatch.setattr(PerExampleGradients, "add", lambda self, p, value: honest(self, p, value + value.mean(0)))
    assert not patient.check("gradients").ok


def test_other_code_at_the_address_is_found(patient: Patient) -> None:
    """The federation's own address is a contract, and not that of Rounds."""
    address = patient.federation.deployment.federation
    assert not patient.check("chain", chain=replace(patient.settings.chain, rounds=address)).ok
