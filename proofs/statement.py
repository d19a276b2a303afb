"""What a proof of the mechanism is about: the public part of relation M (README.md), and nothing of the prover's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from proofs.errors import LocalFault
from proofs.words import BEACON_BYTES, Binding

DIGEST_BYTES = 32


@dataclass(frozen=True)
class Shape:
    """All sizes of a round's mechanism, from its config; they alone decide every size of a proof.

    steps: T. groups: the number of trained coordinates of each clipping group, none of them empty. capacity: N rows at
    most. slots: B, contributions of a step at most. clip_units: C. sigma_units: σ. sample_threshold: q·2^32. tokens: of
    the longest text. openings: how many further proofs may open columns of the trees of data and slots.
    """

    steps: int
    groups: tuple[int, ...]
    capacity: int
    slots: int
    clip_units: int
    sigma_units: int
    sample_threshold: int
    tokens: int
    openings: int = 0

    @property
    def parameters(self) -> int:
        """P: trained coordinates."""
        return sum(self.groups)

    @property
    def contributions(self) -> int:
        """A: slots of all steps together; slot k of step t is number t·slots + k."""
        return self.steps * self.slots

    def encode(self) -> bytes:
        """u32 each, big-endian: steps, capacity, slots, clip_units, sigma_units, sample_threshold (u64), tokens,
        openings, number of groups, groups."""
        head = (self.steps, self.capacity, self.slots, self.clip_units, self.sigma_units)
        tail = (self.tokens, self.openings, len(self.groups), *self.groups)
        return _u32(head) + self.sample_threshold.to_bytes(8, "big") + _u32(tail)


@dataclass(frozen=True, eq=False)
class Statement:
    """Relation M for one member in one round.

    context: 32 bytes that name everything else which the proof is to be tied to (the digest of config and manifest
    fields; ledger decides). words_root, data_root: what the member committed to before `beacon`, its secret words and
    its data. group_of (P,) uint8: the group of each coordinate. released (T, P) int32: ĝ of every step.
    """

    binding: Binding
    context: bytes
    words_root: bytes
    data_root: bytes
    beacon: bytes
    shape: Shape
    group_of: NDArray[np.uint8]
    released: NDArray[np.int32]

    def __post_init__(self) -> None:
        shape = self.shape
        if self.released.shape != (shape.steps, shape.parameters) or self.released.dtype != np.int32:
            raise LocalFault(f"released sums are int32 of {(shape.steps, shape.parameters)}, not {self.released.shape}")
        counted = tuple(np.bincount(self.group_of, minlength=len(shape.groups)).tolist())
        if self.group_of.shape != (shape.parameters,) or counted != shape.groups:
            raise LocalFault(f"groups of {shape.groups} coordinates were announced, {counted} are there")
        digests = (self.context, self.words_root, self.data_root)
        if any(len(digest) != DIGEST_BYTES for digest in digests) or len(self.beacon) != BEACON_BYTES:
            raise LocalFault("context, words root, data root and beacon have 32 bytes each")

    def digest(self) -> bytes:
        """SHA-256 over all of it; the first thing that the transcript of a proof absorbs after its protocol's name."""
        parts = (
            self.binding.encode(),
            self.context,
            self.words_root,
            self.data_root,
            self.beacon,
            self.shape.encode(),
            self.group_of.tobytes(),
            self.released.astype("<i4").tobytes(),
        )
        return sha256(b"candor/mechanism-statement/1\0" + b"".join(parts)).digest()


def _u32(values: Iterable[int]) -> bytes:
    return b"".join(value.to_bytes(4, "big") for value in values)
