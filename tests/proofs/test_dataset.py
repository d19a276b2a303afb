"""The dataset root binds the rows, hides them, and hides how many there are."""

from __future__ import annotations

from hashlib import sha256, shake_256

import pytest

from proofs import merkle
from proofs.dataset import dataset_leaves, dataset_root
from proofs.errors import LocalFault

SEED = bytes([3]) * 32
ROWS = [b"row one", b"row two", b"row three"]


def test_the_root_is_spelled_out_by_its_specification() -> None:
    """Written from proofs/README.md, not from dataset.py."""
    salts = shake_256(b"candor/dataset-salt/1\0" + SEED + (4).to_bytes(4, "big")).digest(128)
    contents = [b"\1row one", b"\1row two", b"\1row three", b"\0"]
    leaves = [
        sha256(b"\0candor/dataset-leaf/1\0" + salts[32 * i : 32 * i + 32] + content).digest()
        for i, content in enumerate(contents)
    ]
    left, right = (sha256(b"\1" + leaves[i] + leaves[i + 1]).digest() for i in (0, 2))
    assert dataset_root(ROWS, 4, SEED) == sha256(b"\1" + left + right).digest()


@pytest.mark.parametrize(
    ("rows", "capacity", "seed"),
    [
        ([b"row one", b"row two", b"row four"], 4, SEED),
        (ROWS[::-1], 4, SEED),
        (ROWS[:2], 4, SEED),
        ([*ROWS, b""], 4, SEED),
        (ROWS, 5, SEED),
        (ROWS, 4, bytes(32)),
    ],
)
def test_other_rows_order_number_capacity_or_seed_give_another_root(
    rows: list[bytes], capacity: int, seed: bytes
) -> None:
    assert dataset_root(rows, capacity, seed) != dataset_root(ROWS, 4, SEED)


def test_an_empty_slot_cannot_be_passed_off_as_an_empty_row() -> None:
    assert dataset_root([b""], 1, SEED) != dataset_root([], 1, SEED)


def test_every_slot_has_its_own_salt() -> None:
    leaves = dataset_leaves([b"same", b"same"], 4, SEED)
    assert len(set(leaves)) == 4


def test_each_slot_can_be_opened() -> None:
    leaves = dataset_leaves(ROWS, 6, SEED)
    for index, leaf in enumerate(leaves):
        path = merkle.inclusion_path(leaves, index)
        merkle.check_inclusion(leaf, index, 6, path, dataset_root(ROWS, 6, SEED))


def test_more_rows_than_slots_or_a_short_seed_are_refused() -> None:
    with pytest.raises(LocalFault):
        dataset_root(ROWS, 2, SEED)
    with pytest.raises(LocalFault):
        dataset_root(ROWS, 4, b"short")
