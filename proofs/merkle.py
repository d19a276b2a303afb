"""Merkle trees as in RFC 6962 section 2.1: leaf = SHA-256(0x00 ‖ data), node = SHA-256(0x01 ‖ left ‖ right).

The one tree of Candor: dataset roots, commitments to secret words, roots of included and excluded members, and the
inference log. The prefixes keep a node from being passed off as a leaf.

A small tree is a list of hashes, and its functions take one. A log that grows for years is a `Frontier` to its writer
(one hash for each bit of its size), and to its readers a function from (level, index) to the hash of the complete
subtree over leaves index·2^level … (index+1)·2^level − 1: paths are made from O(log² n) of those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from proofs.errors import LocalFault, PeerFault

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()


Node = Callable[[int, int], bytes]


class InclusionInvalid(PeerFault):
    """An inclusion proof does not lead from the leaf to the root."""


class ConsistencyInvalid(PeerFault):
    """A consistency proof does not show the smaller tree to be the beginning of the larger one."""


@dataclass(frozen=True)
class Frontier:
    """All that appending needs: the roots of the complete subtrees that a tree of `size` leaves consists of, the
    largest first, one for each bit of `size` that is set."""

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        fits = self.size >= 0 and len(self.hashes) == self.size.bit_count()
        if not fits or any(len(item) != HASH_BYTES for item in self.hashes):
            raise LocalFault(f"a tree of {self.size} leaves has another frontier than {len(self.hashes)} hashes")

    def append(self, leaf: bytes) -> Frontier:
        """With one more leaf *hash*. Merges as many subtrees as the old size has low bits set."""
        kept, merged, carry = list(self.hashes), leaf, self.size
        while carry & 1:
            merged, carry = node_hash(kept.pop(), merged), carry >> 1
        return Frontier(self.size + 1, (*kept, merged))

    def extend(self, leaves: Sequence[bytes]) -> Frontier:
        frontier = self
        for leaf in leaves:
            frontier = frontier.append(leaf)
        return frontier

    def root(self) -> bytes:
        return _join(self.hashes) if self.hashes else EMPTY_ROOT


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
    found = inclusion_root(leaf, index, size, path)
    if found != expected_root:
        raise InclusionInvalid(f"the path leads to {found.hex()}, not to {expected_root.hex()}")


def inclusion_root(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """Where the path leads. Raises InclusionInvalid unless it has the length that index and size ask for."""
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
    return found


def root_at(node: Node, size: int) -> bytes:
    """Root over the first `size` leaves of whatever tree `node` reads."""
    return _range_root(node, 0, size) if size else EMPTY_ROOT


def inclusion_path_at(node: Node, index: int, size: int) -> list[bytes]:
    """`inclusion_path` from the hashes of complete subtrees, a few for each level of the tree."""
    if not 0 <= index < size:
        raise LocalFault(f"leaf {index} is outside a tree of {size} leaves")
    path, low, high = [], 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(_range_root(node, middle, high))
            high = middle
        else:
            path.append(_range_root(node, low, middle))
            low = middle
    return path[::-1]


def consistency_path(node: Node, old: int, new: int) -> list[bytes]:
    """PROOF(old, D[new]) of RFC 6962 section 2.1.2, deepest hash first; empty where nothing needs to be shown: from the
    empty tree, and from a tree to itself."""
    if not 0 <= old <= new:
        raise LocalFault(f"a log of {old} leaves does not begin one of {new}")
    if old in (0, new):
        return []
    path, low, high = [], 0, new
    while high != old:
        middle = low + _split(high - low)
        if old <= middle:
            path.append(_range_root(node, middle, high))
            high = middle
        else:
            path.append(_range_root(node, low, middle))
            low = middle
    if low:  # else the subtree that is left is the old tree itself, whose root the verifier has
        path.append(_range_root(node, low, high))
    return path[::-1]


def check_consistency(old: int, old_root: bytes, new: int, new_root: bytes, path: Sequence[bytes]) -> None:
    """Is the tree of `old` leaves the beginning of the tree of `new`? (RFC 9162 section 2.1.4.2)

    The sizes decide how many hashes there must be. Raises ConsistencyInvalid. Solidity's twin is Consistency.sol.
    """
    if not 0 <= old <= new:
        raise ConsistencyInvalid(f"a log of {new} leaves cannot continue one of {old}")
    if old in (0, new):
        known = old_root == (new_root if old == new else EMPTY_ROOT)
        if path or not known:
            raise ConsistencyInvalid(f"from {old} to {new} leaves the path is empty, and the roots are known")
        return
    first, second = consistency_roots(old, old_root, new, path)
    if first != old_root or second != new_root:
        raise ConsistencyInvalid(f"the path leads from {first.hex()} to {second.hex()}, not between the two roots")


def consistency_roots(old: int, old_root: bytes, new: int, path: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Of which two trees the path is, 0 < old < new. Raises ConsistencyInvalid unless it has the length for them."""
    steps = iter([old_root, *path] if old & (old - 1) == 0 else path)
    last, end = old - 1, new - 1
    while last & 1:
        last, end = last >> 1, end >> 1
    first = second = _next_hash(steps)
    while end:
        sibling = _next_hash(steps)
        if last & 1 or last == end:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while last and not last & 1:
                last, end = last >> 1, end >> 1
        else:
            second = node_hash(second, sibling)
        last, end = last >> 1, end >> 1
    if next(steps, None) is not None:
        raise ConsistencyInvalid("the path is longer than these sizes allow")
    return first, second


def _next_hash(steps: Iterator[bytes]) -> bytes:
    found = next(steps, None)
    if found is None or len(found) != HASH_BYTES:
        raise ConsistencyInvalid("the path has a missing or misshapen hash")
    return found


def _split(size: int) -> int:
    """The largest power of two below `size`, which is at least 2."""
    return 1 << (size - 1).bit_length() - 1


def _range_root(node: Node, low: int, high: int) -> bytes:
    """Root over leaves low…high−1, for a range that RFC 6962 forms: `low` is a multiple of every power of two in it."""
    parts = []
    while low < high:
        level = (high - low).bit_length() - 1
        parts.append(node(level, low >> level))
        low += 1 << level
    return _join(parts)


def _join(parts: Sequence[bytes]) -> bytes:
    """One root from those of complete subtrees that shrink from left to right."""
    joined = parts[-1]
    for part in reversed(parts[:-1]):
        joined = node_hash(part, joined)
    return joined


def _parents(level: list[bytes]) -> list[bytes]:
    paired = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
    return paired + level[len(level) & ~1 :]
