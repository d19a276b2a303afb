"""Merkle trees as in RFC 6962 section 2.1: leaf = SHA-256(0x00 ‖ data), node = SHA-256(0x01 ‖ left ‖ right).

The one tree of Candor: dataset roots, commitments to secret words, roots of included and excluded members, and the
inference log. The prefixes keep a node from being passed off as a leaf.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from proofs.errors import LocalFault, PeerFault

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()


class InclusionInvalid(PeerFault):
    """An inclusion proof does not lead from the leaf to the root."""


def leaf_hash(data: bytes) -> bytes:
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """Root over the leaves' data (not their hashes); the empty tree has `EMPTY_ROOT`."""
    return root_of_hashes([leaf_hash(leaf) for leaf in leaves])


def root_of_hashes(hashes: Sequence[bytes]) -> bytes:
    """Root over leaf hashes, level by level: an odd last node moves up unchanged, which is RFC 6962's split."""
    if not hashes:
        return EMPTY_ROOT
    level = list(hashes)
    while len(level) > 1:
        level = _parents(level)
    return level[0]


def inclusion_path(hashes: Sequence[bytes], index: int) -> list[bytes]:
    """Audit path of RFC 6962 section 2.1.1 for the leaf hash at `index`, lowest sibling first."""
    if not 0 <= index < len(hashes):
        raise LocalFault(f"leaf {index} is outside a tree of {len(hashes)} leaves")
    path, level = [], list(hashes)
    while len(level) > 1:
        if (index ^ 1) < len(level):
            path.append(level[index ^ 1])
        level, index = _parents(level), index // 2
    return path


def check_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], expected_root: bytes) -> None:
    """Walk the path from a leaf *hash* to the root (RFC 9162 section 2.1.3.2).

    Raises InclusionInvalid when index, length of the path or the root do not fit.
    """
    if not 0 <= index < size:
        raise InclusionInvalid(f"leaf {index} is outside a tree of {size} leaves")
    found, last, steps = leaf, size - 1, iter(path)
    while last:
        if index & 1 or index < last:
            sibling = next(steps, None)
            if sibling is None or len(sibling) != HASH_BYTES:
                raise InclusionInvalid(f"the path of leaf {index} has a missing or misshapen hash")
            found = node_hash(sibling, found) if index & 1 else node_hash(found, sibling)
        index, last = index // 2, last // 2
    if next(steps, None) is not None:
        raise InclusionInvalid("the path is longer than the tree is high")
    if found != expected_root:
        raise InclusionInvalid(f"the path leads to {found.hex()}, not to {expected_root.hex()}")


def _parents(level: list[bytes]) -> list[bytes]:
    paired = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
    return paired + level[len(level) & ~1 :]
