"""Rows as token ids: what a proof can hold, and refusals that name the row and nothing of it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from proofs.texts import Texts, TextsInvalid

IDS, LABELS = [[5, 0, 7], [9], [(1 << 24) - 1, 2]], [1, 0, (1 << 16) - 1]


@pytest.fixture
def texts() -> Texts:
    return Texts.of(IDS, LABELS, 4)


def test_ids_as_a_tokenizer_gives_them_are_filled_up_with_zeros(texts: Texts) -> None:
    assert texts.tokens.tolist() == [[5, 0, 7, 0], [9, 0, 0, 0], [(1 << 24) - 1, 2, 0, 0]]
    assert (texts.lengths.tolist(), texts.labels.tolist()) == ([3, 1, 2], LABELS)
    assert (len(texts), texts.width) == (3, 4)
    assert texts.places()[0].tolist() == [5, 0, 7, 0, 1, 3]


def test_no_rows_are_texts_too() -> None:
    assert Texts.of([], [], 4).places().shape == (0, 6)


@pytest.mark.parametrize(
    ("ids", "label", "cause"),
    [
        ([], 0, "row 1: no token at all"),
        ([1] * 5, 0, "row 1: more than 4 tokens"),
        ([1 << 24], 0, "row 1: a token id that is not below 2^24"),
        ([1 << 40], 0, "row 1: a token id that is not below 2^24"),
        ([-1], 0, "row 1: a token id that is not below 2^24"),
        ([1], 1 << 16, "row 1: a label that is not below 2^16"),
        ([1], 1 << 40, "row 1: a label that is not below 2^16"),
        ([1], -1, "row 1: a label that is not below 2^16"),
    ],
)
def test_a_row_that_no_proof_holds_is_named(ids: list[int], label: int, cause: str) -> None:
    with pytest.raises(TextsInvalid, match=f"^{re.escape(cause)}$"):
        Texts.of([[1], ids, [1]], [0, label, 0], 4)


def changed(array: np.ndarray, place: Any, value: int) -> np.ndarray:
    found = array.copy()
    found[place] = value
    return found


@pytest.mark.parametrize(
    ("name", "place", "value", "cause"),
    [
        ("tokens", (1, 1), 3, "row 1: a token beyond its end"),
        ("tokens", (2, 0), 1 << 24, "row 2: a token id that is not below 2^24"),
        ("tokens", (2, 0), -1, "row 2: a token id that is not below 2^24"),
        ("lengths", 0, 0, "row 0: no token at all"),
        ("lengths", 0, 5, "row 0: more than 4 tokens"),
        ("labels", 2, 1 << 16, "row 2: a label that is not below 2^16"),
    ],
)
def test_arrays_are_held_to_the_same(texts: Texts, name: str, place: Any, value: int, cause: str) -> None:
    with pytest.raises(TextsInvalid, match=f"^{re.escape(cause)}$"):
        replace(texts, **{name: changed(getattr(texts, name), place, value)})


def test_arrays_of_other_shapes_or_types_are_refused(texts: Texts) -> None:
    for parts in ({"lengths": texts.lengths[:-1]}, {"labels": texts.labels[:, None]}, {"tokens": texts.tokens[0]}):
        with pytest.raises(TextsInvalid, match="one length and one label"):
            replace(texts, **parts)
    with pytest.raises(TextsInvalid, match="int32"):
        replace(texts, tokens=texts.tokens.astype(np.int64))


def test_a_digest_tells_rows_places_and_widths_apart() -> None:
    lots = [Texts.of(IDS, LABELS, 4), Texts.of(IDS, LABELS, 5), Texts.of(IDS[:2], LABELS[:2], 4), Texts.of([], [], 4)]
    lots += [Texts.of([[5, 0, 7, 0], *IDS[1:]], LABELS, 4), Texts.of(IDS, [1, 1, 3], 4)]
    assert len({lot.digest() for lot in lots}) == len(lots)


def test_neither_content_nor_number_of_rows_shows_in_a_repr(texts: Texts) -> None:
    assert repr(texts) == str(texts) == "Texts(width=4)"
