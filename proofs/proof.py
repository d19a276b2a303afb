"""The bytes of a proof: one form, every size known from the statement, read as if by an enemy.

roots of the trees of slots, witness, lookups and quotients, in this order     32 bytes each
proximity   k elements of K    coefficients, lowest first; an element is four u32, little-endian, each below p
for each of the six trees: t × (salt of 16 bytes ‖ the column, u32 little-endian), columns in ascending position
for each of the six trees: its opening (proofs.columns)

PeerFault
└── ProofInvalid
    ├── ReleasedTooLarge  a released sum that no contributions and noise add up to
    ├── ProofMalformed    the length, or an element that is not below p
    ├── OpeningInvalid    an opened column is not under its root
    ├── ProximityFailed   the opened columns are not those of rows of degree below k
    ├── CellsFailed       a cell identity does not hold: a clip, a bit, a table; or α is in F
    └── SumsFailed        a sum identity does not hold: ĝ = Σ c + z, projections, counts, the committed data
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from proofs import columns
from proofs.errors import PeerFault
from proofs.field import DEGREE, Field, P
from proofs.parameters import HASH_BYTES, SALT_BYTES, SLOTS, Parameters, Sizes


class ProofInvalid(PeerFault):
    """A proof of the mechanism does not hold."""


class ReleasedTooLarge(ProofInvalid):
    """A released sum is beyond slots · clip + the loudest noise; modulo p it could stand for another."""


class ProofMalformed(ProofInvalid):
    """These bytes are not a proof for the statement's sizes."""


class OpeningInvalid(ProofInvalid):
    """An opened column is not the one that was committed to."""


class ProximityFailed(ProofInvalid):
    """What was committed to is not a set of rows of low degree."""


class CellsFailed(ProofInvalid):
    """Clip, range, bit or table: an identity that holds in every lane by itself does not."""


class SumsFailed(ProofInvalid):
    """Released sums, projections, counts or the data's occupancy: an identity over lanes does not hold."""


@dataclass(frozen=True, eq=False)
class Proof:
    """roots: of the trees that the proof brings. opened: by tree (t, rows) uint32, salts and paths: by tree."""

    roots: tuple[bytes, ...]
    proximity: Field
    opened: tuple[NDArray[np.uint32], ...]
    salts: tuple[tuple[bytes, ...], ...]
    paths: tuple[bytes, ...]

    def encode(self) -> bytes:
        parts = [*self.roots, encode_elements(self.proximity)]
        for values, salts in zip(self.opened, self.salts, strict=True):
            parts += [salt + line.astype("<u4").tobytes() for salt, line in zip(salts, values, strict=True)]
        return b"".join([*parts, *self.paths])


@dataclass(frozen=True)
class Messages:
    """The part of a proof whose places do not depend on which columns are opened, still bytes."""

    roots: tuple[bytes, ...]
    proximity: bytes
    rest: bytes


def encode_elements(values: Field) -> bytes:
    return values.astype("<u4").tobytes()


def split_messages(proof: bytes, sizes: Sizes) -> Messages:
    """Cut after the polynomial. Raises ProofMalformed for a length that no proof of these sizes has."""
    if not sizes.fixed_bytes <= len(proof) <= sizes.largest_bytes:
        raise ProofMalformed(
            f"a proof of {len(proof)} bytes, where {sizes.fixed_bytes} to {sizes.largest_bytes} are possible"
        )
    ends = np.cumsum([0, *[HASH_BYTES] * len(sizes.sent), 4 * DEGREE * sizes.row]).tolist()
    *roots, proximity = (proof[start:end] for start, end in pairwise(ends))
    return Messages(tuple(roots), proximity, proof[ends[-1] :])


def slots_root(proof: bytes, sizes: Parameters) -> bytes:
    """The root over contributions and slots in use, which a further proof opens; as sent, and not verified here.

    Raises ProofMalformed for a length that no proof of these sizes has.
    """
    return split_messages(proof, sizes).roots[sizes.sent.index(SLOTS)]


def decode_elements(data: bytes) -> Field:
    """(n, 4). Raises ProofMalformed for a number that is not below p."""
    values = np.frombuffer(data, dtype="<u4").astype(np.uint64).reshape(-1, DEGREE)
    if (values >= P).any():
        raise ProofMalformed("an element of a polynomial is not below p")
    return values


def split_opened(rest: bytes, positions: list[int], sizes: Sizes) -> tuple[list[Field], list[list[bytes]], list[bytes]]:
    """(columns (t, rows), leaf hashes, opening) by tree. Raises ProofMalformed for another length, or elements ≥ p."""
    path_bytes = columns.opening_size(positions, sizes.columns)
    lengths = [sizes.queries * (SALT_BYTES + 4 * height) for height in sizes.heights]
    lengths += [path_bytes] * len(sizes.heights)
    if len(rest) != sum(lengths):
        cause = f"{len(rest)} bytes of openings, where the columns that this statement asks for take {sum(lengths)}"
        raise ProofMalformed(f"{cause}: the proof was cut, or is of another statement")
    ends = np.cumsum([0, *lengths]).tolist()
    parts = [rest[start:end] for start, end in pairwise(ends)]
    values, hashes = [], []
    for part, height in zip(parts, sizes.heights, strict=False):
        width = SALT_BYTES + 4 * height
        lines = [part[at : at + width] for at in range(0, len(part), width)]
        hashes.append([columns.leaf(line[:SALT_BYTES], line[SALT_BYTES:]) for line in lines])
        table = np.stack([np.frombuffer(line, dtype="<u4", offset=SALT_BYTES) for line in lines]).astype(np.uint64)
        if (table >= P).any():
            raise ProofMalformed("an element of an opened column is not below p")
        values.append(table)
    return values, hashes, parts[len(sizes.heights) :]
