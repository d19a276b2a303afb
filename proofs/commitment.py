"""Commitments to rows: random cells, Reed–Solomon code, Merkle tree over its columns (README.md, section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256, shake_256

import numpy as np
from numpy.typing import NDArray

from proofs import columns as trees
from proofs import hash_kernels, kernels
from proofs.errors import LocalFault
from proofs.kernels import Rows
from proofs.parameters import BLOWUP, SALT_BYTES, Sizes
from proofs.transcript import field_stream
from proofs.witness import Cells


@dataclass(frozen=True, eq=False, repr=False)
class Committed:
    """rows (m, k) with their random cells; the tree over the columns of their code, which is not kept, and all salts.

    All but the root is secret, so that its repr shows none of it.
    """

    rows: Rows
    tree: Sequence[Sequence[bytes] | NDArray[np.uint8]]
    salts: bytes

    @property
    def root(self) -> bytes:
        return bytes(self.tree[-1][0])

    def columns(self, positions: Sequence[int]) -> Rows:
        """(t, m): the code there, computed again."""
        return kernels.encoded_at(self.rows, BLOWUP, np.array(positions, dtype=np.int64))

    def opened(self, positions: Sequence[int]) -> tuple[Rows, tuple[bytes, ...], bytes]:
        """Columns, their salts, and the opening of the tree."""
        salts = tuple(self.salts[SALT_BYTES * at : SALT_BYTES * (at + 1)] for at in positions)
        return self.columns(positions), salts, trees.opening(self.tree, positions)


def commit(cells: Cells, sizes: Sizes, tree: int, key: bytes, whole: Cells | None = None) -> Committed:
    """`whole`: sections of full rows (rows, k), which get no random cells since all of theirs are."""
    names = [name for name, _ in sizes.trees[tree]]
    height = sizes.heights[tree]
    pads = field_stream(sha256(key + b"pads").digest(), height * sizes.pads).astype(np.uint32)
    pads = pads.reshape(height, sizes.pads)
    rows, at = np.zeros((height, sizes.row), dtype=np.uint32), 0
    for name in names:
        section = (whole or {}).get(name, cells.get(name))
        if section is None:
            raise LocalFault(f"section {name} of a proof was not filled")
        rows[at : at + len(section), : section.shape[1]] = section
        if section.shape[1] == sizes.lanes:
            rows[at : at + len(section), sizes.lanes :] = pads[at : at + len(section)]
        at += len(section)
    salts = shake_256(sha256(key + b"salts").digest()).digest(SALT_BYTES * sizes.columns)
    return Committed(rows, tree_over(rows, salts), salts)


def tree_over(rows: Rows, salts: bytes) -> list[NDArray[np.uint8]]:
    """The tree of `proofs.columns` over the columns of the rows' code, which goes by a few rows at a time."""
    hashes, whole = hash_kernels.ColumnHashes(salts), len(rows) - len(rows) % hash_kernels.WIDTH
    for _, line, block in kernels.coded(rows[:whole], BLOWUP):
        hashes.absorb(line, block)
    rest = np.zeros((hash_kernels.WIDTH, rows.shape[1]), dtype=np.uint32)
    rest[: len(rows) - whole] = rows[whole:]
    for _, line, block in kernels.coded(rest, BLOWUP):
        hashes.absorb(line, block, len(rows) - whole, whole)
    return hash_kernels.levels(hashes.digests())
