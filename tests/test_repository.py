"""What is committed: no path of the machine it was written on, no package index, no secret, nothing large or stale."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAX_FILE_BYTES = 1 << 20
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|Users|root|work)/[A-Za-z0-9_.-]+")
INDEX = re.compile(r"index[-_]url|extra[-_]index|find[-]links|\"resolved\"\s*:", re.I)
LOGIN = re.compile(r"https?://[^/\s:@]+:[^/\s@]+@[\w-]+\.\w")
PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\b(?:ghp|gho|glpat|hf)_[A-Za-z0-9]{20,}|\bAKIA[0-9A-Z]{16}\b"
)


def tracked() -> list[Path]:
    """Every committed file; in an unpacked release without git, every file that is there."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    """file:line of every match in a tracked text file but this one."""
    found = []
    for path in tracked():
        data = path.read_bytes()
        if b"\0" in data or path == Path(__file__):
            continue
        for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}")
    return found


@pytest.mark.parametrize(
    "pattern", [MACHINE_PATH, INDEX, LOGIN, PRIVATE_KEY], ids=["paths", "indexes", "logins", "keys"]
)
def test_no_tracked_file_names_this_machine_an_index_or_a_secret(pattern: re.Pattern[str]) -> None:
    assert lines_with(pattern) == []


def test_the_lock_pins_every_package_by_hash_and_names_no_index() -> None:
    text = (ROOT / "requirements.lock").read_text()
    entries = re.split(r"\n(?=[A-Za-z0-9])", text.strip())
    assert len(entries) > 50
    assert [
        entry.split()[0] for entry in entries if "==" not in entry.splitlines()[0] or "--hash=sha256:" not in entry
    ] == []
    assert "://" not in text


def test_the_npm_lock_pins_every_package_by_hash_and_names_no_registry() -> None:
    packages = json.loads((ROOT / "contracts" / "package-lock.json").read_text())["packages"]
    installed = {name: facts for name, facts in packages.items() if name}
    assert len(installed) > 5
    assert [name for name, facts in installed.items() if "integrity" not in facts or "resolved" in facts] == []


def test_the_lock_holds_what_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(item for extra in project["optional-dependencies"].values() for item in extra)]
    names = {re.split(r"[<>=!~ \[]", item)[0].lower().replace("_", "-") for item in asked}
    locked = set(re.findall(r"^([a-z0-9][a-z0-9.-]*)==", (ROOT / "requirements.lock").read_text(), re.M))
    assert names - locked == set()


def test_no_tracked_file_is_large() -> None:
    large = [str(path.relative_to(ROOT)) for path in tracked() if path.stat().st_size > MAX_FILE_BYTES]
    assert large == []


def test_every_door_of_pyproject_opens_onto_something() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert {"candor-node", "candor-aggregator", "candor-audit", "candor-devnet"} <= scripts.keys()
    missing = [
        door
        for door, where in scripts.items()
        if not (ROOT / (where.split(":")[0].replace(".", "/") + ".py")).is_file()
    ]
    assert missing == []


def test_ci_calls_exactly_the_test_command_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    calls = [line.strip() for line in script.splitlines() if re.match(r"\s*make\b", line)]
    assert calls == ["make test"]
    assert re.search(r"^make test\b", (ROOT / "README.md").read_text(), re.M)


def test_every_test_marker_is_declared_and_no_test_is_switched_off() -> None:
    """A skip may say that a tool is missing on this machine; it may not hide a test for good."""
    found = [
        line for line in lines_with(re.compile(r"pytest\.mark\.skip\b|unittest\.skip\b")) if line.startswith("tests")
    ]
    assert found == []
