"""The verifier of the mechanism: bytes and a statement in, nothing or a named error out. It needs numpy alone.

The order is that of README.md, section 6: sizes, messages and challenges in turn, then the opened columns against their
roots, and at every opened column the three tests. Memory and time are bounded by the statement's sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from proofs import columns as trees
from proofs import relation
from proofs.field import (
    DEGREE,
    GENERATOR,
    Field,
    P,
    evaluated,
    ext_mul,
    inverse,
    lagrange,
    matmul,
    mul,
    power,
    powers,
    root_of_unity,
)
from proofs.parameters import BLOWUP, REST, Parameters, Sizes, parameters, shifts_of
from proofs.proof import (
    CellsFailed,
    Messages,
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
class Opened:
    """points (t,): where the opened columns lie. sections: name -> (t, rows).

    basis (t, k): values on H, times it, are the values of their interpolating polynomial at the points.
    """

    points: Field
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
    slots_root, witness_root, lookups_root = messages.roots[:3]
    transcript.absorb("slots", slots_root)
    matrix = relation.projection_signs(transcript.draw("projections"), sizes)
    transcript.absorb("witness", witness_root)
    alpha, beta = transcript.elements("tables", 2)
    check_alpha(alpha)
    transcript.absorb("lookups", lookups_root)
    cell_factors = relation.challenges_of_cells(transcript, sizes, alpha, beta)
    sum_factors = relation.challenges_of_sums(transcript, sizes)
    opened = opened_columns(transcript, messages, (statement.words_root, statement.data_root), sizes)
    public = Public.of(statement, sizes)
    _check_cells(opened, public, cell_factors, sizes)
    terms = [
        *relation.sum_terms(sizes, matrix, public, sum_factors, alpha, beta),
        *relation.noise_terms(statement, sizes, sum_factors),
    ]
    _check_sums(opened, terms, relation.target(statement, sizes, sum_factors), sizes)


def check_alpha(alpha: Field) -> None:
    """Values of ranges share rows of inverses: none of them may be α. Raises CellsFailed, once in 2^93 proofs."""
    if not alpha[1:].any():
        raise CellsFailed("α lies in the base field, where look-ups say nothing: prove again with other randomness")


def opened_columns(transcript: Transcript, messages: Messages, elsewhere: Sequence[bytes], sizes: Sizes) -> Opened:
    """The last messages: once trees of quotients and the polynomial are absorbed, the columns that are asked for.

    Raises ProofMalformed, OpeningInvalid, ProximityFailed.
    """
    transcript.absorb("quotients", messages.roots[-1])
    factors = transcript.elements("proximity", sum(sizes.heights))
    sent = decode_elements(messages.proximity)
    transcript.absorb("proximity", messages.proximity)
    positions = transcript.positions("columns", sizes.columns, sizes.queries)
    opened = open_columns(messages.rest, positions.tolist(), (*elsewhere, *messages.roots), sizes)
    check_proximity(opened, sent, factors, sizes)
    return opened


def points_of(positions: NDArray[np.int64], sizes: Sizes) -> Field:
    """Column c·k + j of the code is the value at 3·ω_n^c·ω_k^j."""
    root = root_of_unity(sizes.columns)
    exponents = positions // sizes.row + BLOWUP * (positions % sizes.row)
    return np.array([GENERATOR * pow(root, int(exponent), P) % P for exponent in exponents], dtype=np.uint64)


def vanishing(points: Field, sizes: Sizes) -> Field:
    """(x^k − 1) / Π over the random cells' points of H of (x − ω^j): zero exactly on the lanes."""
    root = np.array([root_of_unity(sizes.row)], dtype=np.uint64)
    tail = powers(root, sizes.row)[0, sizes.lanes :]
    below = np.ones_like(points)
    for point in tail:
        below = mul(below, (points + _P - point) % _P)
    return mul((power(points, sizes.row) + _P - np.uint64(1)) % _P, inverse(below))


def _check_released(statement: Statement, sizes: Parameters) -> None:
    loudest = int(np.abs(statement.released.astype(np.int64)).max())
    if loudest > sizes.largest_sum:
        raise ReleasedTooLarge(f"a released sum of {loudest} units, where {sizes.largest_sum} is the most")


def open_columns(rest: bytes, positions: list[int], roots: Sequence[bytes], sizes: Sizes) -> Opened:
    """The opened columns by section, once they lead to the roots. Raises ProofMalformed, OpeningInvalid."""
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
    return Opened(points, lagrange(points, sizes.row), sections)


def check_proximity(opened: Opened, sent: Field, factors: Field, sizes: Sizes) -> None:
    """Σ factor·row + x·Σ factor·rest + mask is the polynomial of degree below k that was sent."""
    order = [name for tree in sizes.trees for name, _ in tree if name != "mask_proximity"]
    rows = np.concatenate([*(opened.sections[name] for name in order), times_x(opened.sections[REST], opened)], axis=1)
    expected = (matmul(rows, factors) + opened.sections["mask_proximity"]) % _P
    if not np.array_equal(evaluated(sent, opened.points), expected):
        raise ProximityFailed("the opened columns do not agree with the combination of all rows that was sent")


def times_x(values: Field, opened: Opened) -> Field:
    return mul(values, opened.points[:, None])


def _check_cells(opened: Opened, public: Public, drawn: relation.CellChallenges, sizes: Parameters) -> None:
    """Σ factor·identity is divisible by the polynomial that vanishes on the lanes."""
    known = {name: _at_points(0, values, opened) for name, values in public.words.items()}
    found = relation.cell_identities(opened.sections, sizes, drawn, Plain())
    found = (found + relation.shared_identities(opened.sections, known, sizes, drawn)) % _P
    told = "a contribution above the clip, a word out of range, or a value that is in no table"
    check_quotient(opened, found, sizes, told)


def check_quotient(opened: Opened, found: Field, sizes: Sizes, told: str) -> None:
    """found (t, 4) = quotient·(what vanishes on the lanes) at every point; the quotient lies in pieces, four rows each.

    Raises CellsFailed(told).
    """
    quotient = np.zeros_like(found)
    for piece, shift in enumerate(shifts_of(sizes)):
        part = opened.sections["cells"][:, DEGREE * piece : DEGREE * (piece + 1)]
        quotient += mul(part, power(opened.points, shift)[:, None])
    if not np.array_equal(found, mul(quotient % _P, vanishing(opened.points, sizes)[:, None])):
        raise CellsFailed(told)


def _check_sums(opened: Opened, terms: list[Term], target: Field, sizes: Parameters) -> None:
    """Σ over H of Σ weight·(Σ coefficient·row) = target."""
    found = np.zeros((len(opened.points), DEGREE), dtype=np.uint64)
    for term in terms:
        at = _at_points(term.start, term.weights, opened)
        found = found + ext_mul(at, combined_at_points(term, opened))
    told = "the released sums, the counts or the data do not follow from what was committed to"
    check_total(opened, found, target, sizes, told)


def combined_at_points(term: Term, opened: Opened) -> Field:
    """Σ coefficient·row of a term, (t, 4)."""
    found = np.zeros((len(opened.points), DEGREE), dtype=np.uint64)
    for name, (first, factors) in term.coefficients.items():
        found += matmul(opened.sections[name][:, first : first + len(factors)], factors)
    return found % _P


def check_total(opened: Opened, found: Field, target: Field, sizes: Sizes, told: str) -> None:
    """found (t, 4) + x^(k/2)·mask = target/k + x·rest + (x^k − 1)·quotient: it adds up to the target over H.

    Raises SumsFailed(told).
    """
    half = power(opened.points, sizes.row // 2)[:, None]
    found = (found + mul(opened.sections["mask_sums"], half)) % _P
    whole = mul(opened.sections["sums_quotient"], (mul(half, half) + _P - np.uint64(1)) % _P)
    constant = mul(target, np.uint64(pow(sizes.row, P - 2, P)))
    if not np.array_equal(found, (constant + times_x(opened.sections[REST], opened) + whole) % _P):
        raise SumsFailed(told)


def _at_points(start: int, lanes: Field, opened: Opened) -> Field:
    """(n, c) from lane `start` on, zero on the rest of H, -> (t, c): their interpolating polynomials at the points."""
    return matmul(opened.basis[:, start : start + len(lanes)], lanes)
