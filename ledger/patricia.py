"""Merkle–Patricia proofs: is this value under this key in the trie with this root? (Yellow Paper, appendix D.)

Building needs the whole trie and uses the `trie` package. Checking is written out here, because a proof comes from a
stranger: every node is decoded strictly, walked once, and must be the one that its parent's hash names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import rlp
from eth_utils.crypto import keccak
from rlp.exceptions import RLPException
from trie import HexaryTrie

from proofs.errors import LocalFault, PeerFault

MAX_NODES = 64  # a receipt's key has at most 8 nibbles or so, an account's 64
MAX_NODE_BYTES = (1 << 24) + 64  # a leaf holds its value, the largest of which is a receipt
HASH_BYTES = 32
EMPTY_TRIE_ROOT = keccak(rlp.encode(b""))


class ProofInvalid(PeerFault):
    """A trie proof is malformed, or leads to another root or value."""


def index_key(index: int) -> bytes:
    """The key of transaction `index` in a block's tries: the RLP of the integer."""
    return bytes(rlp.encode(index))


def trie_of(values: Sequence[bytes]) -> HexaryTrie:
    """The trie of a block's receipts (or transactions), each under the RLP of its position."""
    trie = HexaryTrie({})
    for index, value in enumerate(values):
        trie[index_key(index)] = value
    return trie


def prove(trie: HexaryTrie, key: bytes) -> tuple[bytes, ...]:
    """The nodes from the root to `key`, as bytes. Nodes embedded in their parent are not repeated."""
    nodes = [bytes(rlp.encode(node)) for node in trie.get_proof(key)]
    proof = tuple(node for position, node in enumerate(nodes) if position == 0 or len(node) >= HASH_BYTES)
    if key not in trie:
        raise LocalFault(f"key {key.hex()} is not in the trie")
    return proof


def value_in(root: bytes, key: bytes, proof: Sequence[bytes]) -> bytes:
    """The value that `proof` shows under `key` in the trie with `root`.

    Raises ProofInvalid when a node is missing, extra, malformed or not the one that is named, or the key is absent.
    """
    if not 0 < len(proof) <= MAX_NODES:
        raise ProofInvalid(f"{len(proof)} nodes where between 1 and {MAX_NODES} are allowed")
    left, path = list(proof), _nibbles(key)
    node = _named(root, left)
    while (end := _end(node, path)) is None:
        child, path = _step(node, path)
        node = _child(child, left)
    if left:
        raise ProofInvalid(f"{len(left)} nodes more than the path has")
    return end


def _end(node: list[Any], path: list[int]) -> bytes | None:
    """The value if `path` ends in this node, None if it leads on."""
    if len(node) == 17:
        return None if path else _value(node[16])
    prefix, leaf = _prefix(node[0])
    if not leaf:
        return None
    if prefix != path:
        raise ProofInvalid("a leaf with another key: this one is not in the trie")
    return _value(node[1])


def _step(node: list[Any], path: list[int]) -> tuple[Any, list[int]]:
    """The child that `path` leads to, and the nibbles left."""
    if len(node) == 17:
        return node[path[0]], path[1:]
    prefix, _ = _prefix(node[0])
    if path[: len(prefix)] != prefix:
        raise ProofInvalid("the proof leads past the key: it is not in the trie")
    return node[1], path[len(prefix) :]


def _child(step: Any, left: list[bytes]) -> list[Any]:
    if isinstance(step, list):
        return _shaped(step)
    if not isinstance(step, bytes) or len(step) != HASH_BYTES:
        raise ProofInvalid("a branch is empty or holds neither a hash nor a node: the key is not in the trie")
    return _named(step, left)


def _named(digest: bytes, left: list[bytes]) -> list[Any]:
    """Take the next node of the proof, which must be the one with this hash."""
    if not left:
        raise ProofInvalid(f"the proof ends before node {digest.hex()}")
    raw = left.pop(0)
    if len(raw) > MAX_NODE_BYTES:
        raise ProofInvalid(f"a node of {len(raw)} bytes where at most {MAX_NODE_BYTES} are allowed")
    found = keccak(raw)
    if found != digest:
        raise ProofInvalid(f"expected node {digest.hex()}, found {found.hex()}")
    return _shaped(decode_rlp(raw, ProofInvalid))


def decode_rlp(raw: bytes, error: type[PeerFault]) -> Any:
    """Strict RLP, lists as Python lists; nesting beyond Python's recursion limit is refused too."""
    try:
        return _as_lists(rlp.decode(raw))
    except (RLPException, RecursionError, ValueError, TypeError) as cause:
        raise error(f"not RLP: {type(cause).__name__}") from cause


def _as_lists(item: Any) -> Any:
    return bytes(item) if isinstance(item, (bytes, bytearray)) else [_as_lists(part) for part in item]


def _shaped(node: Any) -> list[Any]:
    if not isinstance(node, list) or len(node) not in (2, 17):
        raise ProofInvalid("a node has neither 2 nor 17 parts")
    if len(node) == 2:
        prefix, leaf = _prefix(node[0])
        if not prefix and not leaf:
            raise ProofInvalid("an extension of no nibbles")
    return node


def _prefix(packed: Any) -> tuple[list[int], bool]:
    """Hex-prefix encoding: the nibbles, and whether the node is a leaf."""
    if not isinstance(packed, bytes) or not packed or packed[0] >> 4 > 3:
        raise ProofInvalid("a node's path is not in hex-prefix form")
    nibbles = _nibbles(packed)
    odd, leaf = bool(nibbles[0] & 1), nibbles[0] >= 2
    if not odd and nibbles[1]:
        raise ProofInvalid("a node's path has padding that is not zero")
    return nibbles[1:] if odd else nibbles[2:], leaf


def _value(value: Any) -> bytes:
    if not isinstance(value, bytes) or not value:
        raise ProofInvalid("there is no value under the key")
    return value


def _nibbles(data: bytes) -> list[int]:
    return [half for byte in data for half in (byte >> 4, byte & 15)]
