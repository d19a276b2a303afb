"""The numbers and labels in proofs/README.md are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proofs import dataset, words
from proofs.gaussian import noise_table

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


def test_the_readme_says_what_is_not_proven() -> None:
    assert "## NOT PROVEN at this stage" in README
