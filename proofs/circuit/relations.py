"""Linear and bilinear relations between wires, and what each adds to the weights of the cells.

A relation is drawn factors for when everything is committed to. `vector` names the random vectors over the lanes:
"lanes" is drawn then; "left" and "right" are drawn earlier, and test products of hidden matrices (Freivalds 1977).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from proofs.circuit.weights import Weights, matmul
from proofs.circuit.wire import CircuitRefused, Units, Wire
from proofs.field import DEGREE, Field, P, ext_mul, ext_turned

Draw = Callable[[int], Field]  # so many fresh elements of K
_P = np.uint64(P)


def minus(values: Field) -> Field:
    return np.asarray((_P - values) % _P, dtype=np.uint64)


@dataclass(frozen=True, eq=False)
class Linear:
    """Σ matrix·wire = 0 in every strip and lane; matrix (out, in), or None where the wire has `out` strips itself."""

    parts: tuple[tuple[Units | None, Wire], ...]

    def add(self, weights: Weights, draw: Draw) -> None:
        matrix, first = self.parts[0]
        factors = draw(first.size if matrix is None else matrix.shape[0])
        for matrix, wire in self.parts:
            mine = factors if matrix is None else matmul(matrix.T, factors)
            weights.add(wire, mine.reshape(*wire.shape, DEGREE))


@dataclass(frozen=True, eq=False)
class AcrossLanes:
    """Σ matrix·(the places of a strip) + Σ wires = 0: matrix (out, lanes), wires (out,) of one lane each."""

    strips: tuple[tuple[Units, Wire], ...]
    wires: tuple[Wire, ...] = ()

    def add(self, weights: Weights, draw: Draw) -> None:
        factors = draw(self.strips[0][0].shape[0])
        for matrix, strip in self.strips:
            weights.strip(strip, matmul(matrix.T, factors))
        for wire in self.wires:
            weights.add(wire, factors)


@dataclass(frozen=True, eq=False)
class Spread:
    """wire[…, m] = place m of a strip, in every lane of the wire."""

    wire: Wire
    strip: Wire

    def add(self, weights: Weights, draw: Draw) -> None:
        factors = draw(self.wire.size)
        weights.add(self.wire, factors.reshape(*self.wire.shape, DEGREE))
        total = weights.base("lanes", self.wire.lanes).sum(axis=0) % _P
        per_place = factors.reshape(-1, self.wire.shape[-1], DEGREE).sum(axis=0) % _P
        weights.strip(self.strip, minus(ext_mul(per_place, total)))


@dataclass(frozen=True, eq=False)
class Factor:
    """One side of a product, h matrices of it. `contract` says what is summed over:

    "strips": wire (h, j) of many lanes; j is summed over, and the lanes are free
    "lanes":  wire (h, x) of many lanes; the lanes are summed over, and x is free
    "both":   wire (h, j, x) of one lane
    """

    wire: Wire
    contract: str

    @property
    def sizes(self) -> tuple[int, int, int]:
        """h, length of the sum, free places."""
        shape, lanes = self.wire.shape, self.wire.lanes
        if self.contract == "both":
            return shape[0], shape[1], shape[2]
        return (shape[0], shape[1], lanes) if self.contract == "strips" else (shape[0], lanes, shape[1])

    def values(self) -> Units:
        """(h, j, x)."""
        units = self.wire.known()
        if self.contract == "both":
            return units[..., 0]
        return units if self.contract == "strips" else units.swapaxes(1, 2)

    def combined(self, test: Field) -> Field:
        """Σ_x test_x·value: (h, j, 4)."""
        h, j, x = self.sizes
        return matmul(self.values().reshape(h * j, x), test[:x]).reshape(h, j, DEGREE)

    def add(self, weights: Weights, base: str, test: Field, draw: Draw) -> Field:
        """Ties the combined (h, j) to the wire; returns the factors that the combined cells are to get."""
        h, j, x = self.sizes
        if self.contract == "strips":
            each = draw(h * j).reshape(h, j, DEGREE)
            weights.add(self.wire, minus(each), base)
            return each
        if self.contract == "lanes":
            heads, lanes = draw(h), weights.base("lanes", j)
            weights.add(self.wire, minus(ext_mul(heads[:, None], test[None, :x])))
            return ext_mul(heads[:, None], lanes[None])
        each = draw(h * j).reshape(h, j, DEGREE)
        weights.add(self.wire, minus(ext_mul(each[:, :, None], test[None, None, :x])))
        return each


@dataclass(frozen=True, eq=False)
class Pair:
    """left (h, j, x) and right (h, j, y), whose product Σ_j (h, x, y) is a part of a bilinear relation; `first` is the
    place of its tests among the group of products in K."""

    left: Factor
    right: Factor
    first: int

    @property
    def count(self) -> int:
        h, j, _ = self.left.sizes
        return h * j


@dataclass(frozen=True, eq=False)
class Bilinear:
    """Σ over pairs of Σ_j left·right = result, for each of h matrices.

    result (h, y) of x lanes, or (h, x, y) of one. tests: the wire of u, v and w = u·v in K, 12 columns, pair by pair.
    """

    pairs: tuple[Pair, ...]
    result: Wire
    tests: Callable[[int, int, int], Wire]  # column, first, count -> wire

    def add(self, weights: Weights, draw: Draw) -> None:
        left, right = weights.left, weights.right
        for pair in self.pairs:
            h, j, _ = pair.left.sizes
            if pair.right.sizes[:2] != (h, j):
                raise CircuitRefused(f"sums of {j} and {pair.right.sizes[1]} places do not meet")
            self._tie(weights, pair, 0, pair.left.add(weights, "left", left, draw))
            self._tie(weights, pair, 4, pair.right.add(weights, "right", right, draw))
        h, _, x = self.pairs[0].left.sizes
        y, heads = self.pairs[0].right.sizes[2], draw(h)
        for pair in self.pairs:
            j = pair.left.sizes[1]
            self._tie(weights, pair, 8, np.broadcast_to(heads[:, None], (h, j, DEGREE)))
        if self.result.lanes > 1:
            pattern, base = ext_mul(heads[:, None], right[None, :y]), "left"
        else:
            both = ext_mul(left[:x, None], right[None, :y])
            pattern, base = ext_mul(heads[:, None, None], both[None]), "lanes"
        weights.add(self.result, minus(pattern).reshape(*self.result.shape, DEGREE), base)

    def _tie(self, weights: Weights, pair: Pair, column: int, factors: Field) -> None:
        flat = factors.reshape(pair.count, DEGREE)
        for e in range(DEGREE):
            weights.add(self.tests(column + e, pair.first, pair.count), ext_turned(flat, e))


@dataclass(frozen=True, eq=False)
class Keyed:
    """index is ids, and key (four wires: an element of K in every lane) is Σ γ_j·values_j: what is looked up among the
    rows of a public matrix."""

    index: Wire
    key: tuple[Wire, ...]
    ids: Wire
    values: Wire

    def add(self, weights: Weights, draw: Draw) -> None:
        same = draw(1)
        weights.add(self.index, same)
        weights.add(self.ids, minus(same))
        factor, gamma = draw(1), weights.gamma[: self.values.size]
        for e, wire in enumerate(self.key):
            weights.add(wire, ext_turned(factor, e))
        weights.add(self.values, minus(ext_mul(factor, gamma)).reshape(*self.values.shape, DEGREE))

    def cells(self, gamma: Field) -> Units:
        """(5, 1, lanes): what the cells of index and key hold."""
        keys = matmul(self.values.known().reshape(self.values.size, -1).T, gamma[: self.values.size])
        return np.concatenate([self.ids.known(), keys.astype(np.int64).T])[:, None, :]


Relation = Linear | AcrossLanes | Spread | Bilinear | Keyed


def tests_of(pairs: list[Pair], left: Field, right: Field) -> Units:
    """(12, count, 1): u, v and u·v of all pairs, in order, as the group of products in K holds them."""
    if not pairs:
        return np.zeros((12, 0, 1), dtype=np.int64)
    u = np.concatenate([pair.left.combined(left).reshape(-1, DEGREE) for pair in pairs])
    v = np.concatenate([pair.right.combined(right).reshape(-1, DEGREE) for pair in pairs])
    return np.concatenate([u, v, ext_mul(u, v)], axis=1).astype(np.int64).T[:, :, None]
