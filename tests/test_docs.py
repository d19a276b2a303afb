"""Documentation runs: what README.md tells a reader to type exists, with the options that it shows."""

from __future__ import annotations

import doctest
import importlib
import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
DOORS = sorted(SCRIPTS)
ROOMS = ("proofs", "ledger", "node", "devnet")


def blocks(text: str) -> list[str]:
    return re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Lines of code blocks that a reader types: they begin with make, or a door, or `$ ` before one of them."""
    lines = [
        line.removeprefix("$ ").partition("  #")[0].strip() for block in blocks(README) for line in block.splitlines()
    ]
    return sorted({line for line in lines if re.match(rf"(make|{'|'.join(DOORS)})(\s|$)", line)})


@cache
def helped(door: str, *subcommands: str) -> str:
    """What `--help` prints for a subcommand; wide, so that nothing is cut."""
    result = CliRunner().invoke(opened(door), [*subcommands, "--help"], env={"COLUMNS": "250"}, terminal_width=250)
    assert result.exit_code == 0, result.output
    return result.output


@cache
def opened(door: str) -> typer.Typer:
    module, _, name = SCRIPTS[door].partition(":")
    app: typer.Typer = getattr(importlib.import_module(module), name)
    return app


def subcommands(door: str, words: list[str]) -> list[str]:
    """Those of `words` that name a command, inside groups of commands too."""
    found, command = [], typer.main.get_command(opened(door))
    while words and words[0] in (known := getattr(command, "commands", {})):
        command = known[words[0]]
        found.append(words.pop(0))
    return found


def test_the_readme_shows_the_two_commands() -> None:
    assert {"make demo", "make test"} <= set(commands())


@pytest.mark.parametrize("command", [line for line in commands() if line.startswith("make")])
def test_a_make_command_of_the_readme_exists(command: str) -> None:
    planned = subprocess.run(["make", "-n", *shlex.split(command)[1:]], cwd=ROOT, capture_output=True, text=True)
    assert planned.returncode == 0, planned.stderr


@pytest.mark.parametrize("command", [line for line in commands() if not line.startswith("make")])
def test_a_command_of_the_readme_exists_with_its_options(command: str) -> None:
    door, *rest = shlex.split(command)
    named = subcommands(door, rest)
    assert named
    help_text = helped(door, *named)
    options = [word.partition("=")[0] for word in rest if word.startswith("--")]
    assert [option for option in options if option not in help_text] == []


@pytest.mark.parametrize("door", DOORS)
def test_every_door_opens_and_says_what_it_is_for(door: str) -> None:
    """The installed command itself, in a process of its own."""
    command = [str(Path(sys.executable).parent / door), "--help"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0
    assert "Usage" in result.stdout
    assert result.stderr == ""


def test_the_readme_mentions_every_door() -> None:
    assert [door for door in DOORS if door not in README] == []


def test_the_map_names_what_exists_and_forgets_no_file() -> None:
    """One phrase a file: every Python module of the four rooms is in the map, and nothing in it is invented."""
    shown = re.search(r"<!-- map -->\n```\n(.*?)```", README, re.DOTALL)
    assert shown is not None
    folder, listed = "", set()
    for line in shown[1].splitlines():
        name = line.split("  ")[0].strip() or line.split()[0]
        if name.endswith("/"):
            folder = name
        elif line.startswith("  "):
            listed.update(folder + part for part in line.split()[0].split(","))
    missing = [name for name in sorted(listed) if not (ROOT / name).exists()]
    assert missing == []
    modules = {
        path.relative_to(ROOT).as_posix()
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert sorted(modules - listed) == []


@pytest.mark.parametrize("room", ROOMS)
def test_examples_in_docstrings_run(room: str) -> None:
    """Only modules that have examples are imported."""
    for path in sorted((ROOT / room).rglob("*.py")):
        if ">>> " in path.read_text(encoding="utf-8"):
            module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
            assert doctest.testmod(module).failed == 0, path


def test_links_inside_the_documents_lead_somewhere() -> None:
    broken = []
    for document in [ROOT / "README.md", *ROOT.glob("*/README.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8")):
            if "://" not in target and not (document.parent / target).exists():
                broken.append(f"{document.relative_to(ROOT)}: {target}")
    assert broken == []
