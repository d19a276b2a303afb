"""Openings of many leaves at once: as long as the leaves' places say, and good for these leaves alone."""

from __future__ import annotations

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from proofs import columns, merkle

LEAVES = [columns.leaf(bytes([i]) * 16, bytes([i])) for i in range(32)]
TREE = columns.levels(LEAVES)


def test_a_leaf_is_hashed_with_its_salt_and_the_tree_is_that_of_rfc_6962() -> None:
    assert LEAVES[3] == sha256(b"\0" + b"\3" * 16 + b"\3").digest()
    assert TREE[-1][0] == merkle.root_of_hashes(LEAVES)


@given(st.sets(st.integers(0, 31), min_size=1))
def test_an_opening_leads_to_the_root_and_its_size_is_known_beforehand(chosen: set[int]) -> None:
    places = sorted(chosen)
    path = columns.opening(TREE, places)
    assert len(path) == columns.opening_size(places, 32)
    assert columns.root_of_opening({at: LEAVES[at] for at in places}, 32, path) == TREE[-1][0]


@given(st.sets(st.integers(0, 31), min_size=1), st.data())
def test_another_leaf_or_another_sibling_leads_elsewhere(chosen: set[int], data: st.DataObject) -> None:
    places = sorted(chosen)
    path = columns.opening(TREE, places)
    opened = {at: LEAVES[at] for at in places}
    wrong = data.draw(st.sampled_from(places))
    assert columns.root_of_opening(opened | {wrong: sha256(b"x").digest()}, 32, path) != TREE[-1][0]
    if path:
        at = data.draw(st.integers(0, len(path) - 1))
        altered = path[:at] + bytes([path[at] ^ 1]) + path[at + 1 :]
        assert columns.root_of_opening(opened, 32, altered) != TREE[-1][0]
