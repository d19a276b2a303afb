"""The verifier of the mechanism: bytes and a statement in, nothing or a named error out. It needs numpy alone.

The order is that of README.md, section 6: sizes, messages and challenges in turn, then the opened columns against their
roots, and at every opened column the three tests. Memory and time are bounded by the statement's sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from proofs import columns as trees
from proofs import relation
from proofs.field import DEGREE, GENERATOR, Field, P, ext_mul, interpolate, inverse, matmul, mul, powers, root_of_unity
from proofs.parameters import BLOWUP, Parameters, parameters
from proofs.proof import (
    CellsFailed,
    OpeningInvalid,
    ProximityFailed,
    ReleasedTooLarge,
    SumsFailed,
    decode_elements,
    split_messages,
    split_opened,
)
from proofs.relation import Plain, Public, Term
from proofs.statement import Statement
from proofs.transcript import Transcript

_P = np.uint64(P)


@dataclass(frozen=True, eq=False)
class _Opened:
    """points (t,): where the opened columns lie. powers (t, 2k). sections: name -> (t, rows).

    basis (t, k): values on H, times it, are the values of their interpolating polynomial at the points.
    """

    points: Field
    powers: Field
    basis: Field
    sections: dict[str, Field]


def verify(statement: Statement, proof: bytes, transcript: Transcript | None = None) -> None:
    """Raises ProofInvalid (proofs.proof names the kinds), or ShapeRefused where no proof can be.

    `transcript` is for tests of zero knowledge, which put in challenges of their own.
    """
    sizes = parameters(statement.shape)
    _check_released(statement, sizes)
    messages = split_messages(proof, sizes)
    transcript = transcript or Transcript()
    transcript.absorb("statement", statement.digest())
    witness_root, slots_root, projections_root, lookups_root = messages.roots
    transcript.absorb("witness", witness_root)
    transcript.absorb("slots", slots_root)
    matrix = relation.projection_signs(transcript.draw("projections"), sizes)
    transcript.absorb("projections", projections_root)
    alpha, beta = transcript.elements("tables", 2)
    transcript.absorb("lookups", lookups_root)
    proximity_factors = transcript.elements("proximity", sum(sizes.heights) - DEGREE)
    cell_factors = relation.challenges_of_cells(transcript, sizes, alpha, beta)
    sum_factors = relation.challenges_of_sums(transcript, sizes)
    proximity, quotient, sums = map(decode_elements, (messages.proximity, messages.cells, messages.sums))
    transcript.absorb("proximity", messages.proximity)
    transcript.absorb("cells", messages.cells)
    transcript.absorb("sums", messages.sums)
    positions = transcript.positions("columns", sizes.columns, sizes.queries)

    roots = (statement.words_root, statement.data_root, *messages.roots)
    opened = _open(messages.rest, positions.tolist(), roots, sizes)
    _check_proximity(opened, proximity, proximity_factors, sizes)
    public = Public.of(statement, sizes)
    _check_cells(opened, quotient, public, cell_factors, sizes)
    terms = [
        *relation.sum_terms(sizes, matrix, public, sum_factors, alpha, beta),
        *relation.noise_terms(statement, sizes, sum_factors),
    ]
    _check_sums(opened, sums, terms, relation.target(statement, sizes, sum_factors), sizes)


def points_of(positions: NDArray[np.int64], sizes: Parameters) -> Field:
    """Column c·k + j of the code is the value at 3·ω_n^c·ω_k^j."""
    root = root_of_unity(sizes.columns)
    exponents = positions // sizes.row + BLOWUP * (positions % sizes.row)
    return np.array([GENERATOR * pow(root, int(exponent), P) % P for exponent in exponents], dtype=np.uint64)


def mask_at(sections: dict[str, Field], name: str, middle: Field, high: Field) -> Field:
    """A + x^(k/2)·B + x^k·C, each of four rows: a polynomial over K of degree below 2k, at each point."""
    parts = np.split(sections[name], 3, axis=1)
    found = parts[0] + mul(parts[1], middle[:, None]) + mul(parts[2], high[:, None])
    return np.asarray(found % _P, dtype=np.uint64)


def vanishing(points: Field, sizes: Parameters) -> Field:
    """(x^k − 1) / Π over the random cells' points of H of (x − ω^j): zero exactly on the lanes."""
    row = np.uint64(sizes.row)
    root = np.array([root_of_unity(sizes.row)], dtype=np.uint64)
    tail = powers(root, sizes.row)[0, sizes.lanes :]
    below = np.ones_like(points)
    for point in tail:
        below = mul(below, (points + _P - point) % _P)
    whole = np.array([pow(int(x), int(row), P) for x in points], dtype=np.uint64)
    return mul((whole + _P - np.uint64(1)) % _P, inverse(below))


def _check_released(statement: Statement, sizes: Parameters) -> None:
    loudest = int(np.abs(statement.released.astype(np.int64)).max())
    if loudest > sizes.largest_sum:
        raise ReleasedTooLarge(f"a released sum of {loudest} units, where {sizes.largest_sum} is the most")


def _open(rest: bytes, positions: list[int], roots: tuple[bytes, ...], sizes: Parameters) -> _Opened:
    tables, hashes, paths = split_opened(rest, positions, sizes)
    for number, (root, leaves, path) in enumerate(zip(roots, hashes, paths, strict=True)):
        found = trees.root_of_opening(dict(zip(positions, leaves, strict=True)), sizes.columns, path)
        if found != root:
            raise OpeningInvalid(f"tree {number}: the opened columns lead to {found.hex()}, not to {root.hex()}")
    sections = {}
    for table, tree in zip(tables, sizes.trees, strict=True):
        start = 0
        for name, rows in tree:
            sections[name] = table[:, start : start + rows]
            start += rows
    points = points_of(np.array(positions, dtype=np.int64), sizes)
    exponents = powers(points, 2 * sizes.row)
    # Σ_j x^j·(1/k)·Σ_i v_i·ω^(−ij) = Σ_i v_i·(1/k)·Σ_j x^j·ω^(−ij): the powers are transformed once, for all values
    basis = np.ascontiguousarray(interpolate(np.ascontiguousarray(exponents[:, : sizes.row].T)).T)
    return _Opened(points, exponents, basis, sections)


def _check_proximity(opened: _Opened, sent: Field, factors: Field, sizes: Parameters) -> None:
    """Σ factor·row + mask is the polynomial of degree below k that was sent."""
    order = [name for tree in sizes.trees for name, _ in tree if name != "mask_proximity"]
    rows = np.concatenate([opened.sections[name] for name in order], axis=1)
    expected = (matmul(rows, factors) + opened.sections["mask_proximity"]) % _P
    if not np.array_equal(matmul(opened.powers[:, : sizes.row], sent), expected):
        raise ProximityFailed("the opened columns do not agree with the combination of all rows that was sent")


def _check_cells(
    opened: _Opened, quotient: Field, public: Public, drawn: relation.CellChallenges, sizes: Parameters
) -> None:
    """Σ factor·identity + mask is divisible by the polynomial that vanishes on the lanes."""
    known = {name: _at_points(0, values, opened) for name, values in public.words.items()}
    found = relation.cell_identities(opened.sections, known, sizes, drawn, Plain())
    found = (found + _mask(opened, "mask_cells", sizes)) % _P
    expected = mul(matmul(opened.powers[:, : len(quotient)], quotient), vanishing(opened.points, sizes)[:, None])
    if not np.array_equal(found, expected):
        raise CellsFailed("a contribution above the clip, a word out of range, or a value that is in no table")


def _check_sums(opened: _Opened, sent: Field, terms: list[Term], target: Field, sizes: Parameters) -> None:
    """Σ over H of Σ weight·(Σ coefficient·row) + mask = target: the sum over H of a polynomial is k·(c₀ + c_k)."""
    found = _mask(opened, "mask_sums", sizes)
    for term in terms:
        combined = np.zeros_like(found)
        for name, (first, factors) in term.coefficients.items():
            combined += matmul(opened.sections[name][:, first : first + len(factors)], factors)
        found = found + ext_mul(_at_points(term.start, term.weights, opened), combined % _P)
    constant = (mul(target, np.uint64(pow(sizes.row, P - 2, P))) + _P - sent[sizes.row - 1]) % _P
    expected = matmul(opened.powers, np.concatenate([constant[None], sent]))
    if not np.array_equal(found % _P, expected):
        raise SumsFailed("the released sums, the counts or the data do not follow from what was committed to")


def _at_points(start: int, lanes: Field, opened: _Opened) -> Field:
    """(n, c) from lane `start` on, zero on the rest of H, -> (t, c): their interpolating polynomials at the points."""
    return matmul(opened.basis[:, start : start + len(lanes)], lanes)


def _mask(opened: _Opened, name: str, sizes: Parameters) -> Field:
    half = sizes.row // 2
    return mask_at(opened.sections, name, opened.powers[:, half], opened.powers[:, sizes.row])
