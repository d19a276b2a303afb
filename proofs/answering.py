"""What every prover of this construction does once its rows are committed to: masks, combinations, quotients.

`sizes` is the mechanism's Parameters or a circuit's Layout. The arithmetic is that of README.md, sections 2, 6 and 8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proofs import kernels
from proofs.commitment import Committed, commit
from proofs.field import (
    DEGREE,
    GENERATOR,
    Field,
    P,
    ext_mul,
    interpolate,
    inverse,
    mul,
    powers,
    root_of_unity,
    values_on_h,
)
from proofs.kernels import Rows
from proofs.parameters import QUOTIENT_ROWS, REST, TOGETHER, Sizes, shifts_of
from proofs.proof import Proof, encode_elements
from proofs.relation import Term
from proofs.transcript import Transcript, field_stream
from proofs.witness import Cells, WitnessRefused

_P = np.uint64(P)
CHUNK = 2048  # points at which cell identities are evaluated at a time
FINE = TOGETHER + 1  # k points for each degree of the identities


def masks(key: bytes, sizes: Sizes) -> Cells:
    """Uniform rows, but that the coefficient of X^(k/2) of each of the second kind is zero."""
    k = sizes.row
    stream = field_stream(sha256(key + b"masks").digest(), 2 * DEGREE * k).reshape(2, DEGREE, k)
    sums = stream[1]
    alternating = (sums[:, 0::2].sum(axis=1) + (_P - sums[:, 1::2] % _P).sum(axis=1)) % _P  # ω^(−j·k/2) = (−1)^j
    sums[:, 0] = (sums[:, 0] + _P - alternating) % _P
    return {"mask_proximity": stream[0].astype(np.uint32), "mask_sums": sums.astype(np.uint32)}


class Coded:
    """Rows (m, k), and their values at the points of `coset`, computed when they are first asked for."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    @cached_property
    def _blocks(self) -> NDArray[np.uint32]:
        """(⌈m/16⌉, 2k, 16): what is written together lies together."""
        return kernels.in_blocks(self.rows, 2)

    def values(self, place: slice, points: slice = slice(None)) -> Rows:
        """(n, r): of rows from `place.start` to `place.stop`."""
        width = kernels.LANES
        first = min(place.start // width, len(self._blocks) - 1)  # no rows at all have a block, too
        parts = [
            block[points, max(place.start - at * width, 0) : place.stop - at * width]
            for at, block in enumerate(self._blocks[first : max(first + 1, -(-place.stop // width))], first)
        ]
        return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]


@dataclass(frozen=True, eq=False, repr=False)
class Section:
    """Some rows of a tree."""

    tree: Coded
    place: slice

    @property
    def rows(self) -> Rows:
        """(r, k)."""
        return self.tree.rows[self.place]

    def values(self, points: slice = slice(None), first: int = 0, count: int | None = None) -> Rows:
        """(n, r): of all its rows, or of so many from `first` on."""
        start = self.place.start + first
        return self.tree.values(slice(start, self.place.stop if count is None else start + count), points)


class Columns(dict[str, Field]):
    """Sections at some points of `coset`; contributions stay 32 bits wide, for they are most of it."""

    def __init__(self, sections: dict[str, Section], points: slice = slice(None)) -> None:
        super().__init__()
        self._sections, self._points = sections, points

    def __missing__(self, name: str) -> NDArray[Any]:
        found: NDArray[Any] = self._sections[name].values(self._points)
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
    """The last trees may be yet to come."""
    found: dict[str, Section] = {}
    for part, tree in zip(committed, sizes.trees, strict=False):
        start, coded = 0, Coded(part.rows)
        for name, rows in tree:
            found[name] = Section(coded, slice(start, start + rows))
            start += rows
    return found


# ------------------------------------------------------------------------------------------------ cosets of points


def coset(sizes: Sizes, blowup: int = 2) -> Field:
    """(blowup·k,): the points at which `kernels.encode(…, blowup)` gives values, in its order."""
    root, count = pow(GENERATOR, (P - 1) // (blowup * sizes.row), P), blowup * sizes.row
    ordered = mul(powers(np.array([root], dtype=np.uint64), count)[0], np.uint64(GENERATOR))
    return ordered.reshape(sizes.row, blowup).T.reshape(-1)


def from_coset(values: Field, sizes: Sizes) -> Field:
    """(blowup·k, 4) in the order of `coset` -> coefficients (blowup·k, 4)."""
    ordered = values.reshape(-1, sizes.row, DEGREE).swapaxes(0, 1).reshape(-1, DEGREE)
    shift = powers(np.array([pow(GENERATOR, P - 2, P)], dtype=np.uint64), len(values))[0]
    return mul(interpolate(np.ascontiguousarray(ordered)), shift[:, None])


def over_vanishing(sizes: Sizes, blowup: int) -> Field:
    """(blowup·k,): 1/Z on the coset, Π over the random cells' points of H of (x − ω^j), over x^k − 1."""
    on_h = powers(np.array([root_of_unity(sizes.row)], dtype=np.uint64), sizes.row)[0]
    below = np.ones_like(on_h)
    for point in on_h[sizes.lanes :]:
        below = mul(below, (on_h + _P - point) % _P)
    on_points = kernels.encode(below[None].astype(np.uint32), blowup)[:, 0].astype(np.uint64)
    starts = coset(sizes, blowup)[:: sizes.row]
    whole = np.array([pow(int(start), sizes.row, P) - 1 for start in starts], dtype=np.uint64)
    return mul(on_points.reshape(blowup, -1), inverse(whole)[:, None]).reshape(-1)


def whole_rows(lanes: Field, sizes: Sizes) -> Field:
    return np.concatenate([lanes, np.zeros((sizes.pads, lanes.shape[1]), dtype=np.uint64)])


# -------------------------------------------------------------------------------------------------- cells and sums


def at_points(identities: Callable[[Columns], Field], sections: dict[str, Section], sizes: Sizes) -> Field:
    """(2k, 4): identities of degree 2 on the coset, a few points at a time."""
    values = np.zeros((2 * sizes.row, DEGREE), dtype=np.uint64)
    for start in range(0, len(values), CHUNK):
        part = slice(start, start + CHUNK)
        values[part] = identities(Columns(sections, part))
    return values


def shared(values: Rows, inverses: NDArray[np.uint32], factors: Field, alpha: Field) -> Field:
    """(4k, 4): relation.together of rows of values (3·r, k) and of inverses (4, r, k) on a coset, a few at a time."""
    size, width = inverses.shape[2], kernels.LANES
    total = np.zeros((FINE * size, DEGREE), dtype=np.uint64)
    padded = np.zeros((len(factors) + width, DEGREE), dtype=np.uint64)  # what is no row of a block counts for nothing
    padded[: len(factors)] = factors
    rows = [*(values[place::TOGETHER] for place in range(TOGETHER)), *inverses]
    for parts in zip(*(kernels.coded(one, FINE) for one in rows), strict=True):
        start, line, _ = parts[0]
        lines = np.concatenate([block for _, _, block in parts], axis=1)
        total[line : line + size] += kernels.together(lines, padded[start : start + width], alpha)
    return np.asarray(total % _P, dtype=np.uint64)


def quotient(parts: Sequence[Field], sizes: Sizes) -> Field:
    """Values of polynomials on cosets, each zero on the lanes -> coefficients (3k + t', 4) of their sum over Z.

    Raises WitnessRefused where one is not.
    """
    total = np.zeros((TOGETHER * sizes.row + sizes.pads, DEGREE), dtype=np.uint64)
    for values in parts:
        over = mul(values, over_vanishing(sizes, len(values) // sizes.row)[:, None])
        found = of_length(from_coset(over, sizes), len(values) - sizes.lanes)
        total[: len(found)] += found
    return np.asarray(total % _P, dtype=np.uint64)


def of_length(coefficients: Field, length: int) -> Field:
    """Raises WitnessRefused where the identities do not hold: then there are more."""
    if coefficients[length:].any():
        raise WitnessRefused("an identity of the cells does not hold: the witness breaks the relation")
    return coefficients[:length]


def sums_of_terms(sections: dict[str, Section], terms: Sequence[Term], sizes: Sizes) -> Field:
    """(2k, 4) on the coset: Σ weight·(Σ factor·row)."""
    total = np.zeros((2 * sizes.row, DEGREE), dtype=np.uint64)
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


def weighted_rows(weights: NDArray[np.uint32], section: Section, first: int) -> Field:
    """Rows of weights (r, 4, k) over K, for as many rows of the section -> (2k, 4) on the coset: Σ weight·row."""
    size, count = weights.shape[2], kernels.LANES // DEGREE
    found = np.zeros((2 * size, DEGREE), dtype=np.uint64)
    for start, line, block in kernels.coded(weights.reshape(-1, size), 2):
        at, points = start // DEGREE, slice(line, line + size)
        mine = min(count, len(weights) - at)
        found[points] += kernels.row_products(block[:, : DEGREE * mine], section.values(points, first + at, mine))
    return np.asarray(found % _P, dtype=np.uint64)


def quotient_rows(cells: Field, sums: Field, mask: Rows, key: bytes, sizes: Sizes) -> Cells:
    """The last tree's rows. cells: what `quotient` gives. sums (2k, 4): coefficients of the sum, without the mask.

    mask (4, k): the rows of `mask_sums`.
    """
    k, t, shifts = sizes.row, sizes.queries, shifts_of(sizes)
    pieces, at = np.zeros((len(shifts), k, DEGREE), dtype=np.uint64), 0
    for piece, shift in enumerate(shifts):
        end = min(shift + k, len(cells))
        pieces[piece, at - shift : end - shift], at = cells[at:end], end
    seams = field_stream(sha256(key + b"seams").digest(), (len(shifts) - 1) * t * DEGREE).reshape(-1, t, DEGREE)
    for piece, seam in enumerate(seams):
        apart = shifts[piece + 1] - shifts[piece]
        pieces[piece, apart : apart + t] += _P - seam
        pieces[piece + 1, :t] += seam
    whole, half = sums.copy(), k // 2
    whole[half : half + k] += interpolate(mask.T.astype(np.uint64))
    whole %= _P
    rest = np.zeros((k, DEGREE), dtype=np.uint64)
    rest[:-1] = (whole[1:k] + whole[k + 1 :]) % _P
    polynomials = np.concatenate([*(pieces % _P), rest, whole[k:]], axis=1)
    rows = values_on_h(polynomials).T.astype(np.uint32)
    ends = np.cumsum([count for _, count in QUOTIENT_ROWS])[:-1]
    return {name: part for (name, _), part in zip(QUOTIENT_ROWS, np.split(rows, ends), strict=True)}


def check_sum(sums: Field, target: Field, sizes: Sizes) -> None:
    """Σ over H is k·(c₀ + c_k). Raises WitnessRefused where it is not the target."""
    wanted = mul(target, np.uint64(pow(sizes.row, P - 2, P)))
    if not np.array_equal((sums[0] + sums[sizes.row]) % _P, wanted):
        raise WitnessRefused("a sum identity does not hold: the witness breaks the relation")


# ------------------------------------------------------------------------------------------------ the last messages


def answered(transcript: Transcript, committed: Sequence[Committed], rows: Cells, key: bytes, sizes: Sizes) -> bytes:
    """The proof, once the tree of quotients (`rows`) is committed to beside the others."""
    number = len(sizes.trees) - 1
    whole = [*committed, commit({}, sizes, number, sha256(key + bytes([number])).digest(), rows)]
    transcript.absorb("quotients", whole[-1].root)
    factors = transcript.elements("proximity", sum(sizes.heights))
    proximity = interpolate(combined_rows(sections_of(whole, sizes), factors, sizes))
    transcript.absorb("proximity", encode_elements(proximity))
    positions = transcript.positions("columns", sizes.columns, sizes.queries).tolist()
    roots = tuple(whole[tree].root for tree in sizes.sent)
    return Proof(roots, proximity, *zip(*(part.opened(positions) for part in whole), strict=True)).encode()


def combined_rows(sections: dict[str, Section], factors: Field, sizes: Sizes) -> Field:
    """(k, 4) on H: Σ factor·row + x·Σ factor·rest + mask."""
    total, at = sections["mask_proximity"].rows.T.astype(np.uint64), 0
    for name, section in sections.items():
        if name != "mask_proximity":
            total = total + kernels.combine(section.rows, factors[at : at + len(section.rows)])
            at += len(section.rows)
    on_h = powers(np.array([root_of_unity(sizes.row)], dtype=np.uint64), sizes.row)[0]
    total += mul(kernels.combine(sections[REST].rows, factors[at:]), on_h[:, None])
    return np.asarray(total % _P, dtype=np.uint64)
