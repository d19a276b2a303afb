"""The weights of the sum equation at points outside the lanes: what a verifier needs of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from proofs.circuit.layout import GroupShape, Layout, section
from proofs.circuit.weights import BASIS, Key, Weights
from proofs.field import DEGREE, Field, P, ext_mul, matmul
from proofs.relation import Term

_P = np.uint64(P)
BLOCKS = 64  # whose lanes are evaluated together


def weighted(weights: Weights, layout: Layout, basis: Field, values: Mapping[str, Field]) -> Field:
    """Σ of weight(x)·row(x) over the columns of strips of many places, at each point: basis (t, k), values: section ->
    (t, rows)."""
    total = np.zeros((len(basis), DEGREE), dtype=np.uint64)
    shapes = {shape.name: shape for shape in layout.groups}
    by_key: dict[Key, list[tuple[Field, Field]]] = {}
    for (name, column), strips in weights.columns.items():
        if name not in shapes:
            continue
        shape, rows = shapes[name], values[section(name, column)]
        for key, factors in strips.factors.items():
            if shape.lanes > 1:
                by_key.setdefault(key, []).append((_padded(factors, layout, shape), rows))
        for index, vector in strips.own:
            row, block = divmod(index, layout.blocks)
            at = block * layout.strip
            total += _times(matmul(basis[:, at : at + layout.strip], vector), rows[:, row])
    if by_key:
        blocks = _blocks([weights.vector(key, layout.strip) for key in by_key], layout, basis)
        for at_blocks, entries in zip(blocks, by_key.values(), strict=True):
            total += _strip_by_strip(at_blocks, entries)
    return np.asarray(total % _P, dtype=np.uint64)


def _blocks(vectors: list[Field], layout: Layout, basis: Field) -> list[Field]:
    """(t, h, 4) each: the polynomial of each vector on each block of lanes."""
    all_of_them, found = np.concatenate(vectors, axis=1), list[Field]()
    for first in range(0, layout.blocks, BLOCKS):
        count = min(BLOCKS, layout.blocks - first)
        here = basis[:, first * layout.strip : (first + count) * layout.strip]
        found.append(matmul(here.reshape(-1, layout.strip), all_of_them).reshape(len(basis), count, -1))
    return np.split(np.concatenate(found, axis=1), len(vectors), axis=2)


def _strip_by_strip(blocks: Field, entries: list[tuple[Field, Field]]) -> Field:
    """Σ over blocks b (t, h, 4) of b·Σ over rows of factor·value; entries: factors (rows, h, 4) and values (t, rows);
    rows without any factor are passed over."""
    kept = [(factors[used], rows[:, used]) for factors, rows in entries if (used := factors.any(axis=(1, 2))).any()]
    if not kept:
        return np.zeros((len(blocks), DEGREE), dtype=np.uint64)
    factors, rows = np.concatenate([one for one, _ in kept]), np.concatenate([one for _, one in kept], axis=1)
    by_block = matmul(rows, factors.reshape(len(factors), -1)).reshape(blocks.shape)
    return np.asarray(ext_mul(blocks, by_block).sum(axis=1) % _P, dtype=np.uint64)


def cell_terms(weights: Weights, layout: Layout) -> list[Term]:
    """The weights of strips of one place, row by row."""
    wide, found = layout.blocks * layout.strip, list[Term]()
    singles = {shape.name for shape in layout.groups if shape.lanes == 1}
    for (name, column), strips in weights.columns.items():
        if name in singles:
            for factors in strips.factors.values():
                rows = range(0, len(factors), wide)
                one = {row: {section(name, column): (row // wide, BASIS[0][None])} for row in rows}
                found += [Term(0, factors[row : row + wide], one[row]) for row in rows]
    return found


def _padded(factors: Field, layout: Layout, shape: GroupShape) -> Field:
    found = np.zeros((layout.rows(shape) * layout.blocks, DEGREE), dtype=np.uint64)
    found[: len(factors)] = factors
    return found.reshape(-1, layout.blocks, DEGREE)


def _times(values: Field, row: Field) -> Field:
    return values * row[:, None] % _P
