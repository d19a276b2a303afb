"""benchmarks/RESULTS.md: every section has a command that exists, and a full run replaces what it printed alone."""

from __future__ import annotations

import re

import pytest

from benchmarks.__main__ import HEADING, MODULES, RESULTS, with_block

TEXT = RESULTS.read_text(encoding="utf-8")
TITLES = re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
COMMAND = re.compile(r"`python -m benchmarks\.(\w+)[^`]*`|`make bench-(\w+)`")


def section(text: str, title: str) -> str:
    return re.split(r"^(?=## )", text.partition(f"## {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize("title", TITLES)
def test_a_section_is_a_module_of_the_full_run_or_names_its_command(title: str) -> None:
    named = [module or f"against_{tool}" for module, tool in COMMAND.findall(title + section(TEXT, title))]
    known = [name for name in MODULES if re.match(rf"{name}\b", title)]
    assert named or known
    for module in [*named, *known]:
        assert (RESULTS.parent / f"{module}.py").is_file(), module


@pytest.mark.parametrize("name", MODULES)
def test_a_full_run_changes_the_block_of_a_section_and_nothing_else(name: str) -> None:
    after = with_block(TEXT, name, "1 | 2\n3 \\1")
    assert with_block(after, name, "again") == with_block(TEXT, name, "again")
    changed = [title for title in TITLES if section(after, title) != section(TEXT, title)]
    assert len(changed) == 1
    assert re.match(rf"{name}\b", changed[0])
    assert section(after, changed[0]).count("```\n1 | 2\n3 \\1\n```") == 1
    assert re.findall(r"^## (.*)$", after, re.MULTILINE) == TITLES


def test_a_section_that_is_new_comes_last() -> None:
    assert with_block("# Results\n", "news", "1 ms") == "# Results\n\n## news\n\n```\n1 ms\n```\n"


def test_the_heading_of_the_full_run_is_there_once() -> None:
    assert len(HEADING.findall(TEXT)) == 1
