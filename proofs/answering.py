"""What every prover of this construction does once its rows are committed to: masks, combinations, quotients.

`sizes` is the mechanism's Parameters or a circuit's Layout. The arithmetic is that of README.md, sections 2, 6 and 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proofs import kernels, relation
from proofs.commitment import Committed
from proofs.field import DEGREE, GENERATOR, Field, P, ext_mul, interpolate, mul, powers
from proofs.kernels import Rows
from proofs.parameters import Sizes
from proofs.relation import Term
from proofs.transcript import field_stream
from proofs.verifier import mask_at
from proofs.witness import Cells

_P = np.uint64(P)
CHUNK = 2048  # points at which cell identities are evaluated at a time


def masks(key: bytes, sizes: Sizes) -> Cells:
    """Uniform rows, but that the second kind vanishes on the lanes and the third adds up to zero over H."""
    k, lanes = sizes.row, sizes.lanes
    stream = field_stream(sha256(key + b"masks").digest(), 7 * DEGREE * k).reshape(7, DEGREE, k)
    proximity, cells, sums = stream[0], stream[1:4], stream[4:7]
    middle = np.where(np.arange(k) % 2 == 0, np.uint64(1), np.uint64(P - 1))  # ω^(j·k/2) = (−1)^j
    cells[0, :, :lanes] = (2 * _P - mul(cells[1], middle)[:, :lanes] - cells[2, :, :lanes]) % _P
    folded = (sums[0] + mul(sums[1], middle) + sums[2]).sum(axis=1) % _P
    sums[0, :, 0] = (sums[0, :, 0] + _P - folded) % _P
    return {
        "mask_proximity": proximity.astype(np.uint32),
        "mask_cells": cells.reshape(3 * DEGREE, k).astype(np.uint32),
        "mask_sums": sums.reshape(3 * DEGREE, k).astype(np.uint32),
    }


def sums_of_terms(sections: dict[str, Section], terms: Sequence[Term], sizes: Sizes) -> Field:
    """(2k, 4) on the coset: Σ weight·(Σ factor·row) + mask."""
    total = mask_values(Columns(sections), "mask_sums", coset(sizes), sizes)
    for term in terms:
        rows = np.zeros((sizes.row, DEGREE), dtype=np.uint64)
        for name, (first, factors) in term.coefficients.items():
            rows += kernels.combine(sections[name].rows[first : first + len(factors)], factors)
        plain = not term.weights[:, 1:].any()  # in F, as ones and single lanes are
        weights = np.zeros((sizes.row, 1 if plain else DEGREE), dtype=np.uint64)
        weights[term.start : term.start + len(term.weights)] = term.weights[:, : weights.shape[1]]
        pair = np.concatenate([(rows % _P), weights], axis=1)
        both = kernels.encode(np.ascontiguousarray(pair.T.astype(np.uint32)), 2).astype(np.uint64)
        left, right = both[:, :DEGREE], both[:, DEGREE:]
        total += left * right % _P if plain else ext_mul(left, right)
    return np.asarray(total % _P, dtype=np.uint64)


class Coded:
    """Rows (m, k), and their values at the points of `coset`, computed when they are first asked for."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    @cached_property
    def values(self) -> Rows:
        """(2k, m)."""
        return kernels.encode(self.rows, 2)


@dataclass(frozen=True, eq=False, repr=False)
class Section:
    """Some rows of a tree."""

    tree: Coded
    place: slice

    @property
    def rows(self) -> Rows:
        """(r, k)."""
        return self.tree.rows[self.place]

    @property
    def values(self) -> Rows:
        """(2k, r), a view."""
        return self.tree.values[:, self.place]


class Columns(dict[str, Field]):
    """Sections at some points of `coset`; contributions stay 32 bits wide, for they are most of it."""

    def __init__(self, sections: dict[str, Section], points: slice = slice(None)) -> None:
        super().__init__()
        self._sections, self._points = sections, points

    def __missing__(self, name: str) -> NDArray[Any]:
        found: NDArray[Any] = self._sections[name].values[self._points]
        if not name.startswith("contributions"):
            found = found.astype(np.uint64)
        self[name] = found
        return found


class Compiled:
    """The compiled twin of relation.Plain."""

    def square_sums(self, values: Field) -> Field:
        return kernels.square_sums(values.astype(np.uint32, copy=False))

    def sum_products(self, values: Field, others: Field, weights: Field) -> Field:
        return kernels.sum_products(values.astype(np.uint32), others.astype(np.uint32), weights)


def sections_of(committed: Sequence[Committed], sizes: Sizes) -> dict[str, Section]:
    found: dict[str, Section] = {}
    for part, tree in zip(committed, sizes.trees, strict=True):
        start, coded = 0, Coded(part.rows)
        for name, rows in tree:
            found[name] = Section(coded, slice(start, start + rows))
            start += rows
    return found


def combined_rows(sections: dict[str, Section], factors: Field, sizes: Sizes) -> Field:
    total, at = sections["mask_proximity"].rows.T.astype(np.uint64), 0
    for name, section in sections.items():
        if name != "mask_proximity":
            total = total + kernels.combine(section.rows, factors[at : at + len(section.rows)])
            at += len(section.rows)
    return np.asarray(total % _P, dtype=np.uint64)


def coset(sizes: Sizes) -> Field:
    """(2k,): the points at which `kernels.encode(…, 2)` gives values, in its order."""
    root = pow(GENERATOR, (P - 1) // (2 * sizes.row), P)
    ordered = mul(powers(np.array([root], dtype=np.uint64), 2 * sizes.row)[0], np.uint64(GENERATOR))
    return np.concatenate([ordered[0::2], ordered[1::2]])


def from_coset(values: Field, sizes: Sizes) -> Field:
    """(2k, 4) in the order of `_coset` -> coefficients (2k, 4)."""
    ordered = np.zeros_like(values)
    ordered[0::2], ordered[1::2] = values[: sizes.row], values[sizes.row :]
    shift = powers(np.array([pow(GENERATOR, P - 2, P)], dtype=np.uint64), 2 * sizes.row)[0]
    return mul(interpolate(ordered), shift[:, None])


def mask_values(columns: relation.Columns, name: str, points: Field, sizes: Sizes) -> Field:
    half = points
    for _ in range(sizes.row.bit_length() - 2):
        half = mul(half, half)
    return mask_at({name: columns[name]}, name, half, mul(half, half))


def whole_rows(lanes: Field, sizes: Sizes) -> Field:
    return np.concatenate([lanes, np.zeros((sizes.pads, lanes.shape[1]), dtype=np.uint64)])


def on_coset(lanes: Field, sizes: Sizes) -> Field:
    rows = np.ascontiguousarray(whole_rows(lanes, sizes).T.astype(np.uint32))
    return kernels.encode(rows, 2).astype(np.uint64)
