"""The numbers and labels in proofs/README.md are those of the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from proofs import dataset, words
from proofs.gaussian import noise_table
from proofs.parameters import parameters
from proofs.statement import Shape
from proofs.transcript import PROTOCOL, Transcript
from proofs.verifier import verify

ROOM = Path(__file__).parents[2] / "proofs"
README = (ROOM / "README.md").read_text()
SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


@pytest.mark.parametrize("sigma", [100, 1000, 3500])
def test_the_total_variation_in_the_readme_is_the_tables(sigma: int) -> None:
    found = re.search(rf"([\d.]+) · 10([⁻⁰-⁹¹²³]+) at (?:σ = )?{sigma}\b", README)
    assert found
    stated = float(f"{found[1]}e{found[2].translate(SUPERSCRIPTS)}")
    assert stated == pytest.approx(noise_table(sigma).total_variation, rel=0.05)


def test_the_bound_in_the_readme_is_the_tables() -> None:
    assert "9.16 σ" in README
    assert noise_table(3500).bound / 3500 == pytest.approx(9.16, abs=0.01)


def test_every_label_that_is_hashed_is_in_the_readme() -> None:
    sources = "".join(Path(module.__file__ or "").read_text() for module in (words, dataset))
    labels = set(re.findall(r"candor/[a-z-]+(?:-\{kind\})?/1", sources))
    assert len(labels) == 8
    for label in labels:
        assert label.replace("{kind}", "k") in README


def test_the_name_of_the_protocol_is_in_the_readme() -> None:
    assert f'SHA-256("{PROTOCOL.decode()}")' in README


def test_the_trees_and_sections_are_those_of_the_readme_in_its_order() -> None:
    """Two groups: `contributions_g` stands for both."""
    table = README.partition("| tree | section | rows | what |")[2].partition("\n\n")[0]
    found: list[list[str]] = []
    for line in table.splitlines()[2:]:
        tree, names = (cell.strip() for cell in line.split("|")[1:3])
        if tree:
            assert int(tree) == len(found)
            found.append([])
        for name in names.split(", "):
            quoted = re.findall(r"`(\w+)`", name)
            found[-1] += [f"inverses_{e}" for e in range(4)] if len(quoted) > 1 else quoted
    told = parameters(Shape(2, (5, 3), 16, 16, 64, 100, 1 << 31, 6)).trees
    used = [list(dict.fromkeys(re.sub(r"(contributions)_\d", r"\1_g", name) for name, _ in tree)) for tree in told]
    assert found == used


def test_messages_are_absorbed_and_challenges_drawn_under_the_labels_of_the_readme(
    small_case: Any, small_proof: bytes
) -> None:
    said: list[str] = []

    class Listening(Transcript):
        def absorb(self, label: str, data: bytes) -> None:
            said.append(label)
            super().absorb(label, data)

        def draw(self, label: str) -> bytes:
            said.append(label)
            return super().draw(label)

    verify(small_case.statement, small_proof, Listening())
    table = README.partition("| | sent | absorbed as | then drawn |")[2].partition("\n\n")[0]
    expected = ["statement"]
    for line in table.splitlines()[2:]:
        absorbed, drawn = (cell.strip() for cell in line.split("|")[3:5])
        if absorbed:
            expected += [absorbed.strip("`"), *re.findall(r"under `(\w+)`", drawn)]
    assert said == expected


def test_the_readme_says_what_is_not_proven() -> None:
    assert "## NOT PROVEN at this stage" in README
