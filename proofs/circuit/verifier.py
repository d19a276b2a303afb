"""The verifier of a circuit: a statement, the circuit without values, and bytes. It needs numpy alone.

As proofs.verifier does for the mechanism, with whose code it shares bytes, trees and the points of the code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from proofs.circuit.builder import Circuit
from proofs.circuit.equations import (
    InverseRows,
    Stream,
    Tests,
    cell_equations,
    count_of_equations,
    counts_terms,
    inverses_of,
    shared_equations,
    table_factors,
    tests_drawn,
    weights_of,
)
from proofs.circuit.evaluate import cell_terms, weighted
from proofs.circuit.foreign import foreign_terms
from proofs.circuit.layout import Layout
from proofs.field import DEGREE, Field, P, ext_mul, matmul, mul
from proofs.proof import split_messages
from proofs.relation import Plain, Term
from proofs.transcript import Transcript
from proofs.verifier import (
    Opened,
    check_quotient,
    check_total,
    combined_at_points,
    opened_columns,
)

PROTOCOL = b"candor/circuit-proof/2"
_P = np.uint64(P)
LANES = 2048  # whose weights are transformed together


@dataclass(frozen=True, eq=False)
class Drawn:
    """What is drawn once everything is committed to. tables: a factor for each; inverses: 1/(α − key) of each."""

    tests: Tests
    cells: Field
    sums: bytes
    tables: dict[str, Field]
    inverses: dict[str, Field]


def verify(
    statement: bytes, circuit: Circuit, layout: Layout, roots: Sequence[bytes], proof: bytes, protocol: bytes = PROTOCOL
) -> None:
    """statement: 32 bytes that name all that is public. roots: of the trees that are not the proof's own, in order.

    Raises ProofInvalid (proofs.proof names the kinds).
    """
    messages = split_messages(proof, layout)
    transcript = Transcript(protocol)
    transcript.absorb("statement", statement)
    drawn = draw(transcript, circuit, layout, messages.roots)
    opened = opened_columns(transcript, messages, roots, layout)
    found = cell_equations(opened.sections, circuit, layout, drawn.tests, drawn.cells, Plain())
    found = (found + shared_equations(opened.sections, circuit, layout, drawn.tests, drawn.cells)) % _P
    told = "a product that is none, a bit that is none, or a value that is in no table"
    check_quotient(opened, found, layout, told)
    _check_sums(opened, circuit, layout, drawn)


def draw(transcript: Transcript, circuit: Circuit, layout: Layout, roots: Sequence[bytes]) -> Drawn:
    """Absorb the roots of VALUES and TESTS, and draw what follows each."""
    transcript.absorb("values", roots[0])
    tests = tests_drawn(transcript, circuit)
    transcript.absorb("tests", roots[1])
    return drawn_last(transcript, circuit, layout, tests, inverses_of(circuit, tests))


def drawn_last(
    transcript: Transcript, circuit: Circuit, layout: Layout, tests: Tests, inverses: dict[str, Field]
) -> Drawn:
    """The factors of all equations, drawn when everything is committed to but their quotients."""
    cells = transcript.elements("cells", count_of_equations(circuit, layout))
    tables = table_factors(Stream(transcript.draw("table sums")), circuit)
    return Drawn(tests, cells, transcript.draw("sums"), tables, inverses)


def _check_sums(opened: Opened, circuit: Circuit, layout: Layout, drawn: Drawn) -> None:
    weights = weights_of(circuit, drawn.tests, drawn.sums)
    found = weighted(weights, layout, opened.basis, opened.sections)
    found = found + InverseRows.of(layout, drawn.tables).at_points(opened.basis, opened.sections)
    counts = counts_terms(layout, drawn.tables, drawn.inverses)
    terms = [*cell_terms(weights, layout), *foreign_terms(circuit, weights), *counts]
    for term, at in zip(terms, _at_points(terms, opened), strict=True):
        found = found + ext_mul(at, combined_at_points(term, opened))
    told = "a relation of the circuit does not hold between what was committed to"
    check_total(opened, found, weights.target, layout, told)


def _at_points(terms: Sequence[Term], opened: Opened) -> list[Field]:
    """(t, 4) each: the polynomials of their weights, by one product for all of them that reach into as many lanes."""
    found = [np.zeros((len(opened.points), DEGREE), dtype=np.uint64) for _ in terms]
    long = list[int]()
    for number, term in enumerate(terms):
        if len(term.weights) == 1:
            found[number] = mul(opened.basis[:, term.start, None], term.weights[0])
        else:
            long.append(number)
    ends = [terms[number].start + len(terms[number].weights) for number in long]
    for first in range(0, max(ends, default=0), LANES):
        here = [
            number
            for number, end in zip(long, ends, strict=True)
            if end > first and terms[number].start < first + LANES
        ]
        whole = np.zeros((LANES, len(here), DEGREE), dtype=np.uint64)
        for place, number in enumerate(here):
            start, weights = terms[number].start - first, terms[number].weights
            part = weights[max(-start, 0) : LANES - start]
            whole[max(start, 0) : max(start, 0) + len(part), place] = part
        end = min(first + LANES, opened.basis.shape[1])
        product = matmul(opened.basis[:, first:end], whole[: end - first].reshape(end - first, -1))
        for place, number in enumerate(here):
            found[number] = (found[number] + product[:, DEGREE * place : DEGREE * (place + 1)]) % _P
    return found
