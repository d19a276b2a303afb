"""A 4-bit base: NormalFloats in blocks of 64, doubly quantised scales (QLoRA, Dettmers et al. 2023, section 3).

A matrix of float32 is cut, row-major, into blocks of 64 values. A block's scale is its largest magnitude; each value
becomes the number of the nearest of 16 levels, in units of the scale. The scales, less their mean, are cut into blocks
of 256 and rounded to the nearest of 256 levels in units of the block's largest magnitude. So a weight takes about
4.127 bits.

bitsandbytes computes with these numbers, and its own rounding gives the same codes; but its mean of the scales depends
on the order in which a machine adds. Here every operation is elementwise in float32 or exact, so that everybody who has
the base gets the same bits: the digest of all of them is what a config names as its effective base.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from math import fsum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ledger import canonical
from proofs.errors import LocalFault

BLOCK: Final = 64
SCALE_BLOCK: Final = 256
SMALLEST: Final = np.float32(1e-38)  # a block of zeros has scale 0
ZERO: Final = 7  # the level 0.0

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

# Quantiles of a normal distribution, with an exact zero; the paper's appendix E.
LEVELS: Final[Floats] = np.array(
    [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ],
    dtype=np.float32,
)


@dataclass(frozen=True, eq=False)
class Quantised:
    """A matrix of `shape` (out, in). codes: two values to a byte, the first in the high half. scales: one level of
    SCALE_LEVELS for each block of values; ranges: one float32 for each block of scales; offset: their mean."""

    shape: tuple[int, ...]
    codes: Bytes
    scales: Bytes
    ranges: Floats
    offset: np.float32

    @property
    def digest(self) -> bytes:
        """SHA-256 of all numbers, little-endian, in the order of the fields."""
        parts = (self.codes.tobytes(), self.scales.tobytes(), self.ranges.astype("<f4").tobytes())
        return sha256(b"".join(parts) + self.offset.astype("<f4").tobytes()).digest()

    def values(self) -> Floats:
        """(out, in): what a model computes with."""
        size = int(np.prod(self.shape))
        units = np.repeat(self.ranges, SCALE_BLOCK)[: len(self.scales)]
        scales = SCALE_LEVELS[self.scales] * units + self.offset
        codes = np.stack([self.codes >> 4, self.codes & 15], axis=1).reshape(-1)[:size]
        found: Floats = (LEVELS[codes] * np.repeat(scales, BLOCK)[:size]).reshape(self.shape)
        return found


def quantise(values: Floats) -> Quantised:
    """The 4-bit form of a float32 matrix. Raises LocalFault for weights that are not finite."""
    if values.dtype != np.float32 or not np.isfinite(values).all():
        raise LocalFault("a 4-bit base is made of finite float32 weights")
    codes, scales = _nearest(values.reshape(-1), BLOCK, LEVELS)
    codes = np.append(codes, np.full(len(codes) % 2, ZERO, dtype=np.uint8))
    offset = np.float32(fsum(scales.tolist()) / len(scales))
    levels, ranges = _nearest(scales - offset, SCALE_BLOCK, SCALE_LEVELS)
    packed: Bytes = ((codes[::2] << 4) | codes[1::2]).astype(np.uint8)
    return Quantised(values.shape, packed, levels, ranges, offset)


def effective_digest(base: bytes, matrices: Mapping[str, Quantised]) -> bytes:
    """What a config names: the base of digest `base` with these of its matrices in 4 bits."""
    table = {name: {"shape": list(one.shape), "sha256": one.digest.hex()} for name, one in matrices.items()}
    return canonical.digest(
        canonical.encode({"kind": "candor/quantised-base/1", "base": base.hex(), "matrices": table})
    )


def _nearest(values: Floats, block: int, levels: Floats) -> tuple[Bytes, Floats]:
    """(n,) → the number of the nearest level of each value (n,), and the largest magnitude of each block."""
    blocks = -(-len(values) // block)
    padded = np.zeros((blocks, block), dtype=np.float32)
    padded.reshape(-1)[: len(values)] = values
    largest = np.abs(padded).max(axis=1)
    scaled = padded * (np.float32(1) / np.maximum(largest, SMALLEST))[:, None]
    between = (levels[:-1] + levels[1:]) / np.float32(2)
    codes = np.searchsorted(between, scaled.reshape(-1)[: len(values)]).astype(np.uint8)
    return codes, largest


def _scale_levels() -> Floats:
    """256 levels for scales: 0, 1 and ±10^(i − 6) times the middles of 2^i equal parts of [0.1, 1], i = 0 … 6.

    Dettmers, "8-bit approximations for parallelism in deep learning" (2015): small scales get small steps.
    """
    levels = [Fraction(0), Fraction(1)]
    for exponent in range(7):
        parts = 1 << exponent
        middles = [Fraction(1, 10) + Fraction(9, 10) * Fraction(2 * part + 1, 2 * parts) for part in range(parts)]
        levels += [sign * middle * Fraction(10) ** (exponent - 6) for middle in middles for sign in (1, -1)]
    return np.array(sorted(float(level) for level in levels), dtype=np.float32)


SCALE_LEVELS: Final[Floats] = _scale_levels()
