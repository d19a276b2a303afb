"""Forgeries in the last tree: quotients, which are committed to once their factors are drawn, and the rest of the sums.

A prover may put there what it likes. The pieces must add up to a polynomial whose product with what vanishes on the
lanes is the sum of all cell identities; the rest must be of a degree at which x times it adds up to nothing over H.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from proofs import answering, kernels, verifier
from proofs.field import P, inverse, matmul, mul, powers, values_on_h
from proofs.parameters import BLOWUP, QUOTIENTS, shifts_of
from proofs.proof import CellsFailed, OpeningInvalid, ProofInvalid, ProofMalformed, ProximityFailed, SumsFailed
from proofs.relation import CellChallenges, SumChallenges
from proofs.verifier import points_of, power, vanishing, verify

Forger = Any  # the fixture of conftest.py
Cells = dict[str, np.ndarray]
ELSEWHERE = (ProofMalformed, OpeningInvalid)  # other challenges, hence other columns
PIECES = range(4)
_P = np.uint64(P)


def refused(forger: Forger, error: type[ProofInvalid], **lies: Any) -> None:
    statement, proof = forger.prove(**lies)
    with pytest.raises(ProofInvalid) as caught:
        verify(statement, proof)
    assert type(caught.value) is error, repr(caught.value)


def add(rows: Cells, name: str, first: int, coefficients: np.ndarray) -> None:
    """A polynomial over K, (k, 4), to the four rows from `first` on."""
    there = rows[name][first : first + 4]
    there[:] = (there + values_on_h(coefficients % _P).T) % _P


def alone(forger: Forger, place: int, value: Any = 1) -> np.ndarray:
    """(k, 4): value·X^place."""
    found = np.zeros((forger.sizes.row, 4), dtype=np.uint64)
    found[place] = value
    return found


def two_in_a_bit(cells: Cells) -> None:
    cells["last"][0, -1] = 2


def inverse_altered(cells: Cells) -> None:
    """An identity of degree 4, where that of a bit is of degree 2."""
    cells["inverses_0"][0, 5] ^= 1


def off_by_one(forger: Forger) -> np.ndarray:
    released = forger.case.statement.released.copy()
    released[0, 0] += 1
    return released


class TestPieces:
    @pytest.mark.parametrize("piece", PIECES)
    @pytest.mark.parametrize("place", [0, 1000, -1])
    def test_a_coefficient_of_a_piece_altered(self, forger: Forger, piece: int, place: int) -> None:
        refused(forger, CellsFailed, quotiented=lambda rows: add(rows, "cells", 4 * piece, alone(forger, place)))

    @pytest.mark.parametrize("seam", range(3))
    def test_pieces_may_be_cut_elsewhere_if_they_are_the_same_together(self, forger: Forger, seam: int) -> None:
        """What one piece has more its neighbour has less: this is where the verifier leaves room for what hides."""
        apart = shifts_of(forger.sizes)[seam + 1] - shifts_of(forger.sizes)[seam]
        both, one_side = self.moved(apart, seam, forger), self.moved(None, seam, forger)
        verify(*forger.prove(quotiented=both))
        refused(forger, CellsFailed, quotiented=one_side)

    def moved(self, apart: int | None, seam: int, forger: Forger) -> Callable[[Cells], None]:
        def lie(rows: Cells) -> None:
            add(rows, "cells", 4 * seam + 4, alone(forger, 7, 12345))
            if apart is not None:
                add(rows, "cells", 4 * seam, alone(forger, apart + 7, P - 12345))

        return lie

    @pytest.mark.parametrize(("one", "other"), [(0, 1), (1, 2), (2, 3)])
    def test_pieces_in_each_others_place(self, forger: Forger, one: int, other: int) -> None:
        def lie(rows: Cells) -> None:
            parts = rows["cells"].reshape(4, 4, -1)
            parts[[one, other]] = parts[[other, one]]

        refused(forger, CellsFailed, quotiented=lie)

    def test_a_quotient_of_too_high_a_degree_folded_into_the_last_piece(self, forger: Forger) -> None:
        """On H, where rows are given, x^k is 1, and what no piece reaches fits in again. Not elsewhere."""

        def lie(rows: Cells) -> None:
            assert forger.beyond.any()
            missing = np.zeros((forger.sizes.row, 4), dtype=np.uint64)
            missing[: len(forger.beyond)] = forger.beyond
            add(rows, "cells", 12, missing)

        refused(forger, CellsFailed, inverted=inverse_altered, quotiented=lie)

    def test_a_quotient_that_is_no_polynomial_but_fits_in_every_column(
        self, forger: Forger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The last piece is at each column whatever is wanted there. Only that it is no row of degree below k tells."""
        statement, proof = forger.prove(later=two_in_a_bit, coded=self.answering(forger))
        with pytest.raises(ProximityFailed):
            verify(statement, proof)
        monkeypatch.setattr(verifier, "check_proximity", lambda *_: None)
        verifier.verify(statement, proof)
        with pytest.raises(CellsFailed):
            verifier.verify(*forger.prove(later=two_in_a_bit))

    def answering(self, forger: Forger) -> Callable[[int, np.ndarray], None]:
        """(identities/Z − the other pieces)/x^(2k + t') in the last piece's place, at all n columns."""

        def coded(tree: int, code: np.ndarray) -> None:
            if tree != QUOTIENTS:
                return
            sizes = forger.sizes
            points = points_of(np.arange(sizes.columns), sizes)
            wanted = np.zeros((sizes.columns, 4), dtype=np.uint64)
            for part in range(4):  # of a polynomial of degree below 4k
                rows = values_on_h(forger.identities[part * sizes.row : (part + 1) * sizes.row])
                values = kernels.encode(rows.T.astype(np.uint32), BLOWUP).astype(np.uint64)
                wanted = (wanted + mul(values, power(points, part * sizes.row)[:, None])) % _P
            wanted = mul(wanted, inverse(vanishing(points, sizes))[:, None])
            *shifts, last = shifts_of(sizes)
            for piece, shift in enumerate(shifts):
                there = code[:, 4 * piece : 4 * piece + 4].astype(np.uint64)
                wanted = (wanted + _P - mul(there, power(points, shift)[:, None])) % _P
            code[:, 12:16] = mul(wanted, inverse(power(points, last))[:, None])

        return coded


class TestSums:
    def test_a_rest_of_full_degree_whose_product_with_x_wraps(
        self, forger: Forger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """c·x^(k−1) times x is c·(x^k − 1) + c: any constant that is missing, k times over H. That is the one thing the
        factors for x·rest are for: without them the proof is believed."""

        def lie(rows: Cells) -> None:
            assert forger.missing.any()
            add(rows, "sums_rest", 0, alone(forger, -1, (_P - forger.missing) % _P))
            add(rows, "sums_quotient", 0, alone(forger, 0, forger.missing))

        lies = {"released": off_by_one(forger), "quotiented": lie}
        refused(forger, ProximityFailed, **lies)
        leave_out_the_rest(monkeypatch)
        verifier.verify(*forger.prove(**lies))

    def test_that_rest_written_as_columns_of_the_product(self, forger: Forger) -> None:
        """The same in the code: rows that are no polynomials of degree below k, so that x times them is one."""

        def coded(tree: int, code: np.ndarray) -> None:
            if tree == QUOTIENTS:
                points = points_of(np.arange(len(code)), forger.sizes)
                lacking = mul(inverse(points)[:, None], (_P - forger.missing)[None] % _P)
                code[:, 16:20] = (code[:, 16:20] + lacking) % _P

        refused(forger, ProximityFailed, released=off_by_one(forger), coded=coded)

    @pytest.mark.parametrize("name", ["sums_rest", "sums_quotient"])
    @pytest.mark.parametrize("place", [0, 1000, 2046])
    def test_a_coefficient_altered(self, forger: Forger, name: str, place: int) -> None:
        refused(forger, SumsFailed, quotiented=lambda rows: add(rows, name, 0, alone(forger, place)))

    @pytest.mark.parametrize(("name", "place"), [("sums_quotient", 0), ("sums_quotient", -1), ("sums_rest", 0)])
    @pytest.mark.parametrize("sign", [1, -1])
    def test_what_is_missing_put_where_it_does_not_count(
        self, forger: Forger, name: str, place: int, sign: int
    ) -> None:
        def lie(rows: Cells) -> None:
            add(rows, name, 0, alone(forger, place, (sign * forger.missing.astype(np.int64)) % P))

        refused(forger, SumsFailed, released=off_by_one(forger), quotiented=lie)

    def test_rest_and_quotient_in_each_others_place(self, forger: Forger) -> None:
        """A quotient is of degree k − 1 mostly: x times it is no row."""

        def lie(rows: Cells) -> None:
            rows["sums_rest"], rows["sums_quotient"] = rows["sums_quotient"], rows["sums_rest"]

        refused(forger, SumsFailed, quotiented=lie)


def leave_out_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proximity without x·rest, for prover and verifier."""
    honest, check = answering.combined_rows, verifier.check_proximity

    def without(factors: np.ndarray) -> np.ndarray:
        return np.concatenate([factors[:-4], np.zeros_like(factors[-4:])])

    monkeypatch.setattr(answering, "combined_rows", lambda rows, drawn, sizes: honest(rows, without(drawn), sizes))
    monkeypatch.setattr(
        verifier, "check_proximity", lambda seen, sent, drawn, sizes: check(seen, sent, without(drawn), sizes)
    )


CELLS = [field.name for field in fields(CellChallenges)]
SUMS = [field.name for field in fields(SumChallenges)]


class TestOtherFactors:
    """Quotients are of the identities times the factors that were drawn, and of no others."""

    @pytest.mark.parametrize("name", CELLS)
    def test_quotients_of_the_cells_for_other_factors(self, forger: Forger, name: str) -> None:
        """Of an honest witness: there is nothing false but the quotient."""
        refused(forger, CellsFailed, factors=lambda drawn: other(drawn, name))

    @pytest.mark.parametrize("name", SUMS)
    def test_quotients_of_the_sums_for_other_factors(self, forger: Forger, name: str) -> None:
        refused(forger, SumsFailed, factors=lambda drawn: other(drawn, name))

    def test_quotients_for_factors_that_overlook_a_cell(self, forger: Forger) -> None:
        refused(forger, CellsFailed, later=two_in_a_bit, factors=lambda drawn: zero(drawn, "bits"))

    def test_quotients_for_factors_that_overlook_a_sum(self, forger: Forger) -> None:
        released = off_by_one(forger)
        refused(forger, SumsFailed, released=released, factors=lambda drawn: zero(drawn, "coordinates"))


def other(drawn: Any, name: str) -> Any:
    """One factor changed."""
    if not hasattr(drawn, name):
        return drawn
    values = getattr(drawn, name)
    parts = [part.copy() for part in (values if isinstance(values, tuple) else (values,))]
    parts[0].reshape(-1)[0] ^= 1
    return replace(drawn, **{name: tuple(parts) if isinstance(values, tuple) else parts[0]})


def zero(drawn: Any, name: str) -> Any:
    if not hasattr(drawn, name):
        return drawn
    values = getattr(drawn, name)
    whole = tuple(np.zeros_like(part) for part in values) if isinstance(values, tuple) else np.zeros_like(values)
    return replace(drawn, **{name: whole})


class TestFittedToWhatIsKnown:
    """What a prover could do that knew a challenge when it commits; a verifier that forgets a message is as weak."""

    def test_a_mask_fitted_to_known_factors(self, forger: Forger, forgetful: Any) -> None:
        """Its coefficient of X^(k/2) is what the sums lack."""
        released = off_by_one(forger)
        forger.prove(released=released, transcript=forgetful("lookups"))
        lacking = forger.missing

        def lie(masks: Cells) -> None:
            add(masks, "mask_sums", 0, alone(forger, forger.sizes.row // 2, lacking))

        statement, proof = forger.prove(released=released, masked=lie, transcript=forgetful("lookups"))
        verify(statement, proof, forgetful("lookups"))
        with pytest.raises(ELSEWHERE):
            verify(statement, proof)
        refused(forger, SumsFailed, released=released, masked=lie)

    @pytest.mark.parametrize("known", ["sums", "cells"])
    def test_quotients_fitted_to_known_columns(self, forger: Forger, forgetful: Any, known: str) -> None:
        """A multiple of what vanishes at the columns to come: it takes a verifier that forgets tree and polynomial."""
        lies: dict[str, Any] = {"later": two_in_a_bit} if known == "cells" else {"released": off_by_one(forger)}
        both = ("quotients", "proximity")
        first = Columns(forgetful(*both))
        forger.prove(**lies, transcript=first)
        fitted = fitted_cells if known == "cells" else fitted_rest
        lies["quotiented"] = lambda rows: fitted(forger, rows, first.found)
        statement, proof = forger.prove(**lies, transcript=forgetful(*both))
        verify(statement, proof, forgetful(*both))
        for honest in (forgetful(both[0]), forgetful(both[1]), None):
            with pytest.raises(ELSEWHERE):
                verify(statement, proof, honest)


class Columns:
    """A transcript that remembers which columns it asked for."""

    def __init__(self, own: Any) -> None:
        self._own, self.found = own, np.zeros(0, dtype=np.int64)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def positions(self, *arguments: Any) -> np.ndarray:
        self.found = self._own.positions(*arguments)
        return self.found


def fitted_rest(forger: Forger, rows: Cells, columns: np.ndarray) -> None:
    """x·rest lacks a constant at the opened columns: V/V(0) − 1 is minus one at each and a multiple of x."""
    zeros = vanishing_at(points_of(columns, forger.sizes))
    by_constant = mul(zeros, np.uint64(pow(int(zeros[0]), P - 2, P)))[1:]
    change = np.zeros((forger.sizes.row, 4), dtype=np.uint64)
    change[: len(by_constant)] = mul(by_constant[:, None], forger.missing[None])
    add(rows, "sums_rest", 0, change)


def fitted_cells(forger: Forger, rows: Cells, columns: np.ndarray) -> None:
    """The first piece interpolates what the quotient lacks at the opened columns."""
    sizes, points = forger.sizes, points_of(columns, forger.sizes)
    lacking = matmul(powers(points, 4 * sizes.row), forger.identities)
    lacking = mul(lacking, inverse(vanishing(points, sizes))[:, None])
    opened = kernels.encoded_at(rows["cells"], BLOWUP, columns).astype(np.uint64)
    for piece, shift in enumerate(shifts_of(sizes)):
        part = mul(opened[:, 4 * piece : 4 * piece + 4], power(points, shift)[:, None])
        lacking = (lacking + _P - part) % _P
    assert lacking.any()
    change = np.zeros((sizes.row, 4), dtype=np.uint64)
    change[: len(points)] = through(points.tolist(), lacking.tolist())
    add(rows, "cells", 0, change)


def vanishing_at(points: np.ndarray) -> np.ndarray:
    """Coefficients of Π (X − x)."""
    found = np.ones(1, dtype=np.uint64)
    for point in points:
        shifted = np.concatenate([np.zeros(1, np.uint64), found])
        found = (shifted + mul(np.append(found, np.uint64(0)), _P - point)) % _P
    return found


def through(points: list[int], values: list[list[int]]) -> np.ndarray:
    """(t, 4) coefficients of the polynomial over K of degree below t, by Newton's divided differences."""
    differences = list(values)
    for order in range(1, len(points)):
        for at in range(len(points) - 1, order - 1, -1):
            by = pow(points[at] - points[at - order], P - 2, P)
            pairs = zip(differences[at], differences[at - 1], strict=True)
            differences[at] = [(upper - lower) * by % P for upper, lower in pairs]
    found = np.zeros((len(points), 4), dtype=np.uint64)
    for point, value in zip(reversed(points), reversed(differences), strict=True):
        shifted = np.concatenate([np.zeros((1, 4), np.uint64), found[:-1]])
        found = (shifted + mul(found, np.uint64((-point) % P))) % _P
        found[0] = (found[0] + np.array(value, dtype=np.uint64)) % _P
    return found
