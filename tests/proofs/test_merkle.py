"""The tree is RFC 6962's, and an inclusion proof opens exactly one leaf at exactly one place."""

from __future__ import annotations

from hashlib import sha256

import pytest

from proofs import merkle
from proofs.errors import LocalFault
from proofs.merkle import InclusionInvalid, check_inclusion, inclusion_path, leaf_hash, root

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
