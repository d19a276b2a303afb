"""The commitment to a dataset where nothing is proven: an RFC 6962 root over salted rows, padded so that their number
does not show. Where a config asks for proofs, proofs.prover.data_root takes its place.

Leaf i of `capacity` leaves:   "candor/dataset-leaf/1" ‖ 0 ‖ saltᵢ (32 bytes) ‖ 1 ‖ row      for a row
                               "candor/dataset-leaf/1" ‖ 0 ‖ saltᵢ (32 bytes) ‖ 0            for an empty slot
saltᵢ is the i-th 32 bytes of SHAKE-256("candor/dataset-salt/1" ‖ 0 ‖ seed ‖ capacity u32). Without the salts a guessed
row could be confirmed. The same rows under the same seed give the same root, so a member shows with it, round after
round, that its data did not change; whoever wants to hide even that takes a new seed.

Not proven, ever: that rows are genuine, distinct or unpoisoned.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import shake_256

from proofs import merkle
from proofs.errors import LocalFault

SALT_BYTES = 32
SEED_BYTES = 32
LABEL = b"candor/dataset-leaf/1\0"


def dataset_root(rows: Sequence[bytes], capacity: int, seed: bytes) -> bytes:
    """Root over `capacity` slots, the first len(rows) of them filled."""
    return merkle.root_of_hashes(dataset_leaves(rows, capacity, seed))


def dataset_leaves(rows: Sequence[bytes], capacity: int, seed: bytes) -> list[bytes]:
    """Leaf hashes in slot order; `merkle.inclusion_path` opens one of them."""
    if len(seed) != SEED_BYTES or not len(rows) <= capacity < 1 << 32:
        raise LocalFault(f"a dataset needs a seed of {SEED_BYTES} bytes, and no more rows than its {capacity} slots")
    salts = shake_256(b"candor/dataset-salt/1\0" + seed + capacity.to_bytes(4, "big")).digest(SALT_BYTES * capacity)
    return [
        merkle.leaf_hash(leaf_data(salts[SALT_BYTES * i : SALT_BYTES * (i + 1)], rows[i] if i < len(rows) else None))
        for i in range(capacity)
    ]


def leaf_data(salt: bytes, row: bytes | None) -> bytes:
    """What is hashed for one slot; None is the empty slot."""
    return LABEL + salt + (b"\0" if row is None else b"\1" + row)
