"""The demo's data: synthetic and said to be so, the same for ever, learnable, not clean, other in each department."""

from __future__ import annotations

import csv
import json
from collections import Counter
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest

from devnet import notes
from devnet.tiny import corpus

GOLDEN = "1103f4eea34f738fa10a6de3711b5b4b249764bc6cf3057e9bf556acbe23bcba"


def test_the_same_seed_gives_the_same_notes_for_ever() -> None:
    text = "\n".join(f"{note.label} {note.text}" for note in notes.members(2, 50, 1)[1])
    assert sha256(text.encode()).hexdigest() == GOLDEN
    assert notes.members(1, 5, 1) != notes.members(1, 5, 2)


def test_members_differ_in_words_and_mix_and_share_no_lot() -> None:
    lots = notes.members(7, 400, 3)
    shares = [Counter(note.label for note in lot)["default"] / 400 for lot in lots[:3]]
    assert all(abs(a - b) > 0.05 for a, b in pairwise(sorted(shares)))
    assert "tractor" in " ".join(note.text.lower() for note in lots[2])
    assert "tractor" not in " ".join(note.text.lower() for note in lots[0])
    assert lots[0] != lots[5], "a department that repeats has other notes"


def test_held_out_notes_are_of_all_departments_and_nobodys_own() -> None:
    unseen = notes.held_out(3, 100, 3)
    assert len(unseen) == 100
    own = {note.text for lot in notes.members(3, 400, 3) for note in lot}
    assert sum(note.text in own for note in unseen) <= 2


def test_every_note_is_ascii_and_of_a_sane_length() -> None:
    for note in notes.held_out(5, 500, 9):
        assert note.text.isascii()
        assert 20 < len(note.text) < 260
        assert "{" not in note.text


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_files_come_with_a_readme_that_says_what_they_are(tmp_path: Path, kind: str) -> None:
    lot = notes.members(1, 3, 1)[0]
    notes.write(tmp_path / "notes", lot, kind)  # type: ignore[arg-type]
    assert "Synthetic" in (tmp_path / "README.txt").read_text()
    with (tmp_path / "notes").open(newline="") as file:
        rows = [json.loads(line) for line in file] if kind == "jsonl" else list(csv.DictReader(file))
    assert rows == [{"text": note.text, "label": note.label} for note in lot]


def test_the_public_corpus_holds_no_note() -> None:
    public = {column.text for column in corpus.columns(3000, 1)}
    assert not public & {note.text for lot in notes.members(5, 400, 1) for note in lot}
    assert {column.mood for column in corpus.columns(100, 1)} == {"good", "mixed", "bad"}


def test_the_shipped_base_is_small() -> None:
    folder = Path(corpus.__file__).parent / "model"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 1 << 20
