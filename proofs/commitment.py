"""Commitments to rows: random cells, Reed–Solomon code, Merkle tree over its columns (README.md, section 2)."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256, shake_256

import numpy as np

from proofs import columns as trees
from proofs import kernels
from proofs.errors import LocalFault
from proofs.kernels import Rows
from proofs.parameters import BLOWUP, SALT_BYTES, Parameters
from proofs.transcript import field_stream
from proofs.witness import Cells


@dataclass(frozen=True, eq=False, repr=False)
class Committed:
    """rows (m, k) with their random cells; code (n, m), one line a column; tree and salts over the lines.

    All but the root is secret, so that its repr shows none of it.
    """

    rows: Rows
    code: Rows
    tree: list[list[bytes]]
    salts: tuple[bytes, ...]

    @property
    def root(self) -> bytes:
        return self.tree[-1][0]


def commit(cells: Cells, sizes: Parameters, tree: int, key: bytes, whole: Cells | None = None) -> Committed:
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
    code = kernels.encode(rows, BLOWUP)
    stream = shake_256(sha256(key + b"salts").digest()).digest(SALT_BYTES * sizes.columns)
    salts = tuple(stream[at : at + SALT_BYTES] for at in range(0, len(stream), SALT_BYTES))
    leaves = [trees.leaf(salt, line.data) for salt, line in zip(salts, code, strict=True)]
    return Committed(rows, code, trees.levels(leaves), salts)
