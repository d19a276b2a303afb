"""Trees over the columns of a code: salted leaves, so that a leaf tells nothing of its column, opened many at a time.

    leaf i   = SHA-256(0x00 ‖ salt (16 bytes) ‖ the column's elements, u32 little-endian, row by row)
    node     = SHA-256(0x01 ‖ left ‖ right)                                    as in proofs.merkle; 2^d leaves

An opening of a set of leaves lists the siblings that the set does not give itself, level by level from the leaves up,
left to right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from proofs.merkle import HASH_BYTES, node_hash


def leaf(salt: bytes, column: bytes) -> bytes:
    return sha256(b"\0" + salt + column).digest()


def levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """All levels of the tree, leaves first, the root alone in the last; the number of leaves is a power of two."""
    found = [list(leaves)]
    while len(found[-1]) > 1:
        below = found[-1]
        found.append([node_hash(below[i], below[i + 1]) for i in range(0, len(below), 2)])
    return found


def siblings(positions: Sequence[int], leaves: int) -> Iterator[tuple[int, int]]:
    """(level, index) of every node that an opening of these ascending positions lists, in its order."""
    known, level = list(positions), 0
    while leaves > 1:
        present = set(known)
        yield from ((level, index ^ 1) for index in known if index ^ 1 not in present)
        known = sorted({index // 2 for index in known})
        leaves, level = leaves // 2, level + 1


def opening(tree: Sequence[Sequence[bytes] | NDArray[np.uint8]], positions: Sequence[int]) -> bytes:
    """tree: as `levels` gives it, or each level as (nodes, 32) bytes."""
    return b"".join(bytes(tree[level][index]) for level, index in siblings(positions, len(tree[0])))


def opening_size(positions: Sequence[int], leaves: int) -> int:
    """Bytes of an opening: known before any of it is read."""
    return HASH_BYTES * sum(1 for _ in siblings(positions, leaves))


def root_of_opening(opened: dict[int, bytes], leaves: int, path: bytes) -> bytes:
    """The root that leaf hashes by position and an opening of `opening_size` bytes lead to."""
    rest = (path[at : at + HASH_BYTES] for at in range(0, len(path), HASH_BYTES))
    known = dict(sorted(opened.items()))
    while leaves > 1:
        above = dict[int, bytes]()
        for index, found in known.items():
            if index // 2 in above:
                continue
            other = known[index ^ 1] if index ^ 1 in known else next(rest)
            above[index // 2] = node_hash(other, found) if index & 1 else node_hash(found, other)
        known, leaves = above, leaves // 2
    return known[0]
