"""Proofs without a witness, for challenges that are known beforehand (proofs/README.md, section 8): what tests of zero
knowledge make. `sizes` is the mechanism's Parameters or a circuit's Layout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from proofs import columns as trees
from proofs.field import DEGREE, Field, P, evaluated, inverse, lagrange, matmul, mul
from proofs.parameters import REST, Sizes, shifts_of
from proofs.proof import Proof
from proofs.transcript import Transcript, field_stream
from proofs.verifier import Opened, points_of, power, times_x, vanishing

_P = np.uint64(P)
Evaluated = Callable[[Opened], Field]  # (t, 4)


class Chosen(Transcript):
    """Challenges that were there before anything was absorbed."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._state = sha256(b"chosen" + seed.to_bytes(8, "big")).digest()

    def absorb(self, label: str, data: bytes) -> None:
        pass


@dataclass(frozen=True, eq=False)
class Claim:
    """What the equations of sections 4 and 5 are at opened columns, and the target of the second, (4,)."""

    cells: Evaluated
    sums: Evaluated
    target: Field


def unevenness(values: NDArray[np.integer], bins: int = 16) -> float:
    """χ² of integers below p in equal bins, in standard deviations above its mean."""
    counts = np.bincount((values.reshape(-1).astype(np.int64) * bins // P), minlength=bins)
    expected = values.size / bins
    return float((np.square(counts - expected).sum() / expected - (bins - 1)) / np.sqrt(2 * (bins - 1)))


def simulated(sizes: Sizes, own: Chosen, claim: Claim, seed: int, spoiled: str = "") -> tuple[list[bytes], bytes]:
    """The roots of all trees, and the proof; own: the challenges, of which those up to `sums` were drawn.

    spoiled: a section of which one opened entry is made another, before all is hashed.
    """
    factors = own.elements("proximity", sum(sizes.heights))
    positions = own.positions("columns", sizes.columns, sizes.queries)
    k, t, number = sizes.row, sizes.queries, sum(sizes.heights)
    drawn = field_stream(sha256(f"simulator {seed}".encode()).digest(), DEGREE * k + t * number)
    proximity = drawn[: DEGREE * k].reshape(k, DEGREE)
    sections = [section for tree in sizes.trees for section in tree]
    parts = np.split(drawn[DEGREE * k :].reshape(t, number), np.cumsum([rows for _, rows in sections])[:-1], axis=1)
    opened = {name: part.copy() for (name, _), part in zip(sections, parts, strict=True)}
    points = points_of(positions, sizes)
    seen = Opened(points, lagrange(points, k), opened)
    opened["cells"][:, :DEGREE] = first_piece(seen, claim.cells(seen), sizes)
    opened["sums_quotient"][:] = last_quotient(seen, claim.sums(seen), claim.target, sizes)
    order = [name for name, _ in sections if name != "mask_proximity"]
    rows = np.concatenate([*(opened[name] for name in order), times_x(opened[REST], seen)], axis=1)
    opened["mask_proximity"][:] = (evaluated(proximity, points) + _P - matmul(rows, factors)) % _P
    if spoiled:
        opened[spoiled][t // 2, -1] ^= np.uint64(1)
    return hashed(sizes, opened, proximity, positions.tolist(), seed)


def first_piece(seen: Opened, found: Field, sizes: Sizes) -> Field:
    """p₀ of found = Z·Σ x^(sᵢ)·pᵢ, the other pieces being there already."""
    left = mul(found, inverse(vanishing(seen.points, sizes))[:, None])
    for piece, shift in enumerate(shifts_of(sizes)[1:], 1):
        part = seen.sections["cells"][:, DEGREE * piece : DEGREE * (piece + 1)]
        left = (left + _P - mul(part, power(seen.points, shift)[:, None])) % _P
    return left


def last_quotient(seen: Opened, total: Field, target: Field, sizes: Sizes) -> Field:
    """Q of total + x^(k/2)·mask = target/k + x·rest + (x^k − 1)·Q."""
    half = power(seen.points, sizes.row // 2)
    constant = mul(target, np.uint64(pow(sizes.row, P - 2, P)))
    left = total % _P + mul(seen.sections["mask_sums"], half[:, None]) + 2 * _P - constant
    left = (left - times_x(seen.sections[REST], seen)) % _P
    return mul(left, inverse((mul(half, half) + _P - np.uint64(1)) % _P)[:, None])


def hashed(
    sizes: Sizes, opened: dict[str, Field], proximity: Field, positions: list[int], seed: int
) -> tuple[list[bytes], bytes]:
    """Trees in which all that is known are the opened leaves; the hashes of the others are drawn."""
    rng = np.random.default_rng(seed)
    tables, salts, paths, roots = [], [], [], []
    for tree in sizes.trees:
        table = np.concatenate([opened[name] for name, _ in tree], axis=1).astype(np.uint32)
        leaves = [rng.bytes(32) for _ in range(sizes.columns)]
        own = tuple(rng.bytes(16) for _ in positions)
        for place, salt, line in zip(positions, own, table, strict=True):
            leaves[place] = trees.leaf(salt, line.astype("<u4").tobytes())
        levels = trees.levels(leaves)
        tables.append(table)
        salts.append(own)
        paths.append(trees.opening(levels, positions))
        roots.append(levels[-1][0])
    sent = tuple(roots[tree] for tree in sizes.sent)
    return roots, Proof(sent, proximity, tuple(tables), tuple(salts), tuple(paths)).encode()
