"""The tree is RFC 6962's, and an inclusion proof opens exactly one leaf at exactly one place."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proofs import merkle
from proofs.errors import LocalFault
from proofs.merkle import (
    EMPTY_ROOT,
    ConsistencyInvalid,
    Frontier,
    InclusionInvalid,
    check_consistency,
    check_inclusion,
    consistency_path,
    inclusion_path,
    inclusion_path_at,
    leaf_hash,
    root,
    root_at,
)

# The eight leaves and roots of Google's certificate-transparency test vectors (merkletree/test).
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
CONSISTENCY = {
    (1, 1): [],
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
    (6, 7): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
}


def recursive_root(leaves: list[bytes]) -> bytes:
    """Section 2.1 word for word: split at the largest power of two below n."""
    if len(leaves) == 1:
        return sha256(b"\0" + leaves[0]).digest()
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return sha256(b"\1" + recursive_root(leaves[:split]) + recursive_root(leaves[split:])).digest()


def test_published_roots() -> None:
    assert [root(LEAVES[: n + 1]).hex() for n in range(8)] == ROOTS
    assert root([]) == sha256(b"").digest()


@pytest.mark.parametrize("size", [*range(1, 34), 255, 256, 257])
def test_roots_are_those_of_the_recursive_definition(size: int) -> None:
    leaves = [bytes([i % 251, i // 251]) for i in range(size)]
    assert root(leaves) == recursive_root(leaves)


@pytest.mark.parametrize("size", range(1, 20))
def test_every_leaf_opens_at_its_place_and_at_no_other(size: int) -> None:
    hashes = [leaf_hash(bytes([i])) for i in range(size)]
    expected = merkle.root_of_hashes(hashes)
    for index in range(size):
        path = inclusion_path(hashes, index)
        check_inclusion(hashes[index], index, size, path, expected)
        for other in set(range(size)) - {index}:
            with pytest.raises(InclusionInvalid):
                check_inclusion(hashes[index], other, size, path, expected)


def refused(leaf: bytes, index: int, size: int, path: list[bytes], expected: bytes) -> None:
    with pytest.raises(InclusionInvalid):
        check_inclusion(leaf, index, size, path, expected)


def test_a_changed_shortened_lengthened_or_misshapen_path_is_refused() -> None:
    hashes = [leaf_hash(bytes([i])) for i in range(7)]
    expected, path = merkle.root_of_hashes(hashes), inclusion_path(hashes, 4)
    refused(hashes[4], 4, 7, path[:-1], expected)
    refused(hashes[4], 4, 7, [*path, bytes(32)], expected)
    refused(hashes[4], 4, 7, [path[0][:31], *path[1:]], expected)
    refused(hashes[4], 4, 7, path[::-1], expected)
    refused(hashes[5], 4, 7, path, expected)
    refused(hashes[4], 4, 7, path, bytes(32))
    refused(hashes[4], 7, 7, path, expected)
    refused(hashes[4], -1, 7, path, expected)


def test_a_node_cannot_be_passed_off_as_a_leaf() -> None:
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(left + right) != merkle.node_hash(left, right)


def test_a_path_outside_the_tree_is_the_callers_fault() -> None:
    with pytest.raises(LocalFault):
        inclusion_path([bytes(32)], 1)


# ----------------------------------------------------------------------------------------------------- a log that grows


def slow_root(leaves: list[bytes]) -> bytes:
    return recursive_root(leaves) if leaves else EMPTY_ROOT


def slow_proof(old: int, leaves: list[bytes], known: bool = True) -> list[bytes]:
    """SUBPROOF of RFC 6962 section 2.1.2, word for word."""
    if old == len(leaves):
        return [] if known else [slow_root(leaves)]
    split = 1
    while 2 * split < len(leaves):
        split *= 2
    if old <= split:
        return [*slow_proof(old, leaves[:split], known), slow_root(leaves[split:])]
    return [*slow_proof(old - split, leaves[split:], False), slow_root(leaves[:split])]


def nodes_of(leaves: list[bytes]) -> Callable[[int, int], bytes]:
    """Refuses what is not complete: a path may ask for nothing else."""

    def node(level: int, index: int) -> bytes:
        inside = leaves[index << level : (index + 1) << level]
        assert len(inside) == 1 << level
        return slow_root(inside)

    return node


def numbered(size: int) -> list[bytes]:
    return [size.to_bytes(2) for size in range(size)]


@pytest.mark.parametrize("size", range(34))
def test_every_two_sizes_of_one_log_are_consistent(size: int) -> None:
    leaves = numbered(size)
    for old in range(size + 1):
        path = consistency_path(nodes_of(leaves), old, size)
        assert path == ([] if old in (0, size) else slow_proof(old, leaves))
        check_consistency(old, slow_root(leaves[:old]), size, slow_root(leaves), path)


def test_appending_gives_the_roots_of_the_slow_twin() -> None:
    leaves, frontier = numbered(300), Frontier()
    for size, leaf in enumerate(leaves, 1):
        frontier = frontier.append(leaf_hash(leaf))
        assert (frontier.size, frontier.root()) == (size, slow_root(leaves[:size]))
        assert frontier.root() == root_at(nodes_of(leaves), size)
    assert Frontier().root() == EMPTY_ROOT == root_at(nodes_of([]), 0)
    assert Frontier().extend([leaf_hash(leaf) for leaf in leaves]) == frontier


def test_a_path_from_complete_subtrees_is_the_path_from_all_leaves() -> None:
    for size in (1, 2, 3, 7, 8, 21, 64, 100):
        leaves = numbered(size)
        hashes = [leaf_hash(leaf) for leaf in leaves]
        for index in range(size):
            assert inclusion_path_at(nodes_of(leaves), index, size) == inclusion_path(hashes, index)


@pytest.mark.parametrize(("old", "new"), [(1, 2), (2, 3), (3, 7), (4, 7), (6, 8), (7, 8), (5, 33), (32, 33), (31, 32)])
def test_a_consistency_proof_is_refused_when_anything_is_changed(old: int, new: int) -> None:
    leaves = numbered(new)
    roots = slow_root(leaves[:old]), slow_root(leaves)
    path = slow_proof(old, leaves)
    check_consistency(old, roots[0], new, roots[1], path)
    other = sha256(b"other").digest()
    changed = [
        (old, other, new, roots[1], path),
        (old, roots[0], new, other, path),
        (new, roots[0], old, roots[1], path),
        (old, roots[0], new, roots[1], path[:-1]),
        (old, roots[0], new, roots[1], path[1:]),
        (old, roots[0], new, roots[1], [*path, other]),
        (old, roots[0], new, roots[1], [other] * 1000),
        (old, roots[0], new, roots[1], [path[0][:31], *path[1:]]),
        (0, roots[0], new, roots[1], path),
        (new, roots[0], new, roots[1], path),
    ]
    changed += [(old, roots[0], new, roots[1], [*path[:at], other, *path[at + 1 :]]) for at in range(len(path))]
    for arguments in changed:
        with pytest.raises(ConsistencyInvalid):
            check_consistency(*arguments)


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 70), st.integers(1, 70))
def test_a_proof_for_other_sizes_shows_nothing(old: int, new: int, other_old: int, other_new: int) -> None:
    old, new = sorted((old, new))
    leaves = numbered(70)
    path = consistency_path(nodes_of(leaves), old, new)
    roots = slow_root(leaves[:other_old]), slow_root(leaves[:other_new])
    try:
        check_consistency(other_old, roots[0], other_new, roots[1], path)
    except ConsistencyInvalid:
        assert (old, new) != (other_old, other_new)
    else:
        assert path == consistency_path(nodes_of(leaves), other_old, other_new)


def test_the_empty_log_is_the_beginning_of_every_log_and_has_one_root() -> None:
    root_of_three = slow_root(numbered(3))
    check_consistency(0, EMPTY_ROOT, 3, root_of_three, [])
    check_consistency(0, EMPTY_ROOT, 0, EMPTY_ROOT, [])
    for arguments in (
        (0, bytes(32), 3, root_of_three, []),
        (0, EMPTY_ROOT, 0, bytes(32), []),
        (-1, EMPTY_ROOT, 0, EMPTY_ROOT, []),
    ):
        with pytest.raises(ConsistencyInvalid):
            check_consistency(*arguments)


def test_what_is_no_tree_is_our_own_fault() -> None:
    for frontier in ((1, ()), (3, (bytes(32),)), (1, (bytes(31),)), (-1, ())):
        with pytest.raises(LocalFault):
            Frontier(*frontier)
    for paths in (lambda: consistency_path(nodes_of([]), 2, 1), lambda: inclusion_path_at(nodes_of([]), 1, 1)):
        with pytest.raises(LocalFault):
            paths()


def test_the_proofs_of_certificate_transparency() -> None:
    """Its reference tests, over the same eight leaves."""
    for (old, new), expected in CONSISTENCY.items():
        path = consistency_path(nodes_of(LEAVES), old, new)
        assert [item.hex() for item in path] == expected
        check_consistency(old, slow_root(LEAVES[:old]), new, slow_root(LEAVES[:new]), path)
