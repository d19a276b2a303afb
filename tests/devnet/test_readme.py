"""The README's story, typed as it stands there: a forger is caught, the chain comes back, a stranger re-checks it.

The commands are those of README.md (tests/test_docs.py holds their names and options to what exists), with one round in
place of three. Everything goes through the doors, as separate processes, in a folder that a reader could be in.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from devnet.federation import door

pytestmark = [pytest.mark.anvil, pytest.mark.timeout(600)]

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
FORGERY = "candor-devnet run --preset tiny --misbehave 2=other-slots --keep --no-serve"
BASE = "devnet/tiny/model"
WHY = f"candor-audit why --member 2 --round 1 --base {BASE} --config candor-demo/node-0/settings.toml"


def typed(command: str, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    name, *words = command.split()
    return subprocess.run(
        [str(door(name)), *words, *more], cwd=folder, capture_output=True, text=True, check=False, timeout=500
    )


@dataclass(frozen=True)
class Told:
    folder: Path
    run: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """The federation has run and gone; `candor-devnet chain` holds its chain up for the tests below."""
    folder = tmp_path_factory.mktemp("reader")
    run = typed(FORGERY, folder, "--rounds", "1")
    command = [str(door("candor-devnet")), "chain", "candor-demo"]
    chain = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        assert chain.stdout is not None
        chain.stdout.readline()  # it says where it listens, and is up then
        yield Told(folder, run)
    finally:
        os.kill(chain.pid, signal.SIGTERM)
        chain.communicate(timeout=30)


def test_these_are_the_readmes_commands() -> None:
    for command in (FORGERY, WHY):
        assert command in README


def test_the_run_ends_well_and_names_who_was_left_out(told: Told) -> None:
    assert told.run.returncode == 0, told.run.stderr
    assert "FINAL: node-0 ACCEPTED, node-1 ACCEPTED, node-2 GRADIENT_INVALID" in told.run.stdout
    assert "gradient    │ PASS" in told.run.stdout


def test_the_model_learns(told: Told) -> None:
    before, after = map(float, re.findall(r"(\d+\.\d) % (?:before|after round 1)", told.run.stdout)[-2:])
    assert after > before + 10


def test_why_says_what_the_readme_shows(told: Told) -> None:
    result = typed(WHY.replace(BASE, str(Path(__file__).parents[2] / BASE)), told.folder)
    assert result.returncode == 0, result.stderr
    assert "GRADIENT_INVALID" in result.stdout
    assert "they agree" in result.stdout
    assert "candor/gradient-0.bin" in result.stdout


@pytest.mark.parametrize("command", ["rounds", "round 1", "members", "verify --all", "verify --round 1"])
def test_every_audit_command_reads_the_kept_federation(told: Told, command: str) -> None:
    result = typed(f"candor-audit {command} --json --config candor-demo/node-0/settings.toml", told.folder)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)


def test_the_exported_round_is_verified_offline(told: Told) -> None:
    exported = typed(
        "candor-audit export --round 1 round.candor --config candor-demo/node-0/settings.toml", told.folder
    )
    assert exported.returncode == 0, exported.stderr
    verified = typed("candor-audit verify round.candor", told.folder)
    assert verified.returncode == 0, verified.stdout
    assert "NOT PROVEN" in verified.stdout
