"""What a proof shows: a simulator without a witness, how opened columns are spread, and what is never the same twice.

The simulator is that of README.md, section 8. It knows the challenges beforehand, which the verifier takes here as an
argument; under the challenges of the real transcript what it makes is worth nothing, or anybody could prove anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from benchmarks import simulator
from benchmarks.cases import random_texts
from benchmarks.simulator import Chosen, Claim, unevenness
from proofs import answering, kernels, prover, relation
from proofs.commitment import Committed
from proofs.errors import CandorError
from proofs.field import P, ext_mul, interpolate, matmul, mul, powers, values_on_h
from proofs.parameters import (
    BLOWUP,
    DATA,
    LOOKUPS,
    SALT_BYTES,
    SECRETS,
    SLOTS,
    Parameters,
    parameters,
    shifts_of,
)
from proofs.proof import (
    CellsFailed,
    ProofInvalid,
    ProximityFailed,
    SumsFailed,
    split_messages,
    split_opened,
)
from proofs.relation import Plain, Public
from proofs.statement import Shape, Statement
from proofs.texts import Texts
from proofs.transcript import Transcript
from proofs.verifier import Opened, combined_at_points, points_of, power, verify
from proofs.words import SecretWords

Case = Any
TINY = Shape(1, (2, 1), 4, 4, 32, 50, 1 << 31, 4)
_P = np.uint64(P)


def simulated(statement: Statement, seed: int, spoiled: str = "") -> tuple[Statement, bytes]:
    """A proof for the challenges of Chosen(seed), from the statement alone, and the statement with its roots."""
    sizes, own = parameters(statement.shape), Chosen(seed)
    matrix = relation.projection_signs(own.draw("projections"), sizes)
    alpha, beta = own.elements("tables", 2)
    cell_factors = relation.challenges_of_cells(own, sizes, alpha, beta)
    sum_factors = relation.challenges_of_sums(own, sizes)
    public = Public.of(statement, sizes)

    def cells(seen: Opened) -> np.ndarray:
        known = {name: matmul(seen.basis[:, : sizes.lanes], values) for name, values in public.words.items()}
        found = relation.cell_identities(seen.sections, sizes, cell_factors, Plain())
        return (found + relation.shared_identities(seen.sections, known, sizes, cell_factors)) % _P

    def sums(seen: Opened) -> np.ndarray:
        total = np.zeros((len(seen.points), 4), dtype=np.uint64)
        for term in (
            *relation.sum_terms(sizes, matrix, public, sum_factors, alpha, beta),
            *relation.noise_terms(statement, sizes, sum_factors),
        ):
            weights = matmul(seen.basis[:, term.start : term.start + len(term.weights)], term.weights)
            total = (total + ext_mul(weights, combined_at_points(term, seen))) % _P
        return total

    claim = Claim(cells, sums, relation.target(statement, sizes, sum_factors))
    roots, proof = simulator.simulated(sizes, own, claim, seed, spoiled)
    return replace(statement, words_root=roots[SECRETS], data_root=roots[DATA]), proof


class TestSimulator:
    @pytest.mark.parametrize("seed", range(3))
    def test_a_proof_made_without_a_witness_is_accepted_under_challenges_known_beforehand(
        self, small_case: Case, seed: int
    ) -> None:
        verify(*simulated(small_case.statement, seed), Chosen(seed))

    def test_so_is_one_of_what_is_not_so(self, small_case: Case) -> None:
        false = small_case.stating(released=small_case.statement.released + np.int32(1), beacon=b"\7" * 32)
        verify(*simulated(false, 5), Chosen(5))

    def test_and_no_such_proof_is_accepted_under_the_challenges_that_follow_from_it(self, small_case: Case) -> None:
        for seed in range(3):
            statement, proof = simulated(small_case.statement, seed)
            for transcript in (None, Chosen(seed + 1)):
                with pytest.raises(ProofInvalid):
                    verify(statement, proof, transcript)

    @pytest.mark.parametrize(
        ("spoiled", "error"),
        [
            ("mask_proximity", ProximityFailed),
            ("texts", ProximityFailed),
            ("cells", ProximityFailed),
        ],
    )
    def test_one_entry_that_was_not_solved_for_is_enough_to_be_refused(
        self, small_case: Case, spoiled: str, error: type[ProofInvalid]
    ) -> None:
        """The combination of all rows bites at every column."""
        with pytest.raises(error):
            verify(*simulated(small_case.statement, 1, spoiled), Chosen(1))

    @pytest.mark.parametrize(("solved", "error"), [("first_piece", CellsFailed), ("last_quotient", SumsFailed)])
    def test_the_other_two_tests_bite_at_every_column_too(
        self, small_case: Case, monkeypatch: pytest.MonkeyPatch, solved: str, error: type[ProofInvalid]
    ) -> None:
        """The simulator needs all of its freedom. Here proximity is made to fit what is beside the equation."""
        honest = getattr(simulator, solved)

        def beside(*arguments: Any) -> np.ndarray:
            found = honest(*arguments)
            found[-1, 2] ^= np.uint64(1)
            return found

        monkeypatch.setattr(simulator, solved, beside)
        with pytest.raises(error):
            verify(*simulated(small_case.statement, 1), Chosen(1))


# ------------------------------------------------------------------------------------------ how opened columns look


def opened_of(statement: Statement, proof: bytes) -> dict[str, np.ndarray]:
    """section -> (t, rows): what a verifier sees of it."""
    positions: list[int] = []

    class Spy(Transcript):
        def positions(self, label: str, below: int, count: int) -> Any:
            found = super().positions(label, below, count)
            positions.extend(found.tolist())
            return found

    verify(statement, proof, Spy())
    sizes = parameters(statement.shape)
    tables, _, _ = split_opened(split_messages(proof, sizes).rest, positions, sizes)
    found = {}
    for table, tree in zip(tables, sizes.trees, strict=True):
        parts = np.split(table, np.cumsum([rows for _, rows in tree])[:-1], axis=1)
        found |= {name: part for (name, _), part in zip(tree, parts, strict=True)}
    return found


@pytest.fixture(scope="module")
def seen(make_case: Callable[..., Case]) -> list[list[dict[str, np.ndarray]]]:
    """Two witnesses as unlike as can be, four seeds each: everybody is there, or nobody."""
    cases = [[make_case(TINY, rows, seed=seed, round=rows + 1) for seed in range(1, 5)] for rows in (4, 0)]
    return [[opened_of(case.statement, case.prove()) for case in of_rows] for of_rows in cases]


def test_every_opened_section_is_spread_evenly_whatever_the_witness(seen: list[list[dict[str, np.ndarray]]]) -> None:
    """Bits, counts of zero and absent contributions too. The seeds are fixed: six deviations are far out of reach."""
    for proofs in seen:
        for name in proofs[0]:
            assert unevenness(np.concatenate([found[name] for found in proofs])) < 6, name


def test_every_row_by_itself_and_the_differences_of_neighbours_are_spread_evenly(
    seen: list[list[dict[str, np.ndarray]]],
) -> None:
    """Neither a row that stands out among many, nor entries of a row that follow from each other."""
    for proofs in seen:
        for name in proofs[0]:
            table = np.concatenate([found[name] for found in proofs]).astype(np.int64)
            rows = [unevenness(row.astype(np.uint64)) for row in table.T]
            steps = [unevenness((np.diff(row) % P).astype(np.uint64)) for row in table.T]
            assert max(rows + steps) < 9, name
            assert abs(np.mean(rows)) < 4 / np.sqrt(len(rows)), name


def test_polynomials_are_spread_evenly(make_case: Callable[..., Case]) -> None:
    for rows in (4, 0):
        case = make_case(TINY, rows, seed=1, round=rows + 1)
        messages = split_messages(case.prove(), parameters(TINY))
        assert unevenness(np.frombuffer(messages.proximity, dtype="<u4")) < 6


def test_without_random_cells_the_same_look_tells_witnesses_apart(
    make_case: Callable[..., Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look has teeth: rows of zeros are zero everywhere when nothing random is added to them."""
    monkeypatch.setattr("proofs.commitment.field_stream", lambda key, count: np.zeros(count, dtype=np.uint64))
    case = make_case(TINY, 0, seed=99)
    found = opened_of(case.statement, case.prove())
    assert not found["contributions_0"].any()
    assert unevenness(found["contributions_0"]) > 100


# -------------------------------------------------------------------------------------- what is never the same twice


def salts_of(found: Committed) -> set[bytes]:
    return {found.salts[at : at + SALT_BYTES] for at in range(0, len(found.salts), SALT_BYTES)}


class Watch:
    """Everything random that went into one proof: pads by row, salts by leaf, masks and quotients by row."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, case: Case, statement: Statement | None = None) -> None:
        self.trees: list[Committed] = []
        honest = prover.commit

        def watched(*arguments: Any) -> Committed:
            self.trees.append(honest(*arguments))
            return self.trees[-1]

        with monkeypatch.context() as patched:
            patched.setattr(prover, "commit", watched)
            patched.setattr(answering, "commit", watched)
            prover.prove(statement or case.statement, case.words, case.texts, case.contributions)
        self.sizes = parameters(case.statement.shape)

    def random(self, tree: int) -> set[bytes]:
        found = self.trees[tree]
        return {row.tobytes() for row in found.rows[:, self.sizes.lanes :]} | salts_of(found)

    @property
    def early(self) -> set[bytes]:
        return self.random(SECRETS) | self.random(DATA)

    @property
    def all(self) -> set[bytes]:
        return set[bytes]().union(*(self.random(tree) for tree in range(6)))


def test_within_a_proof_no_pad_no_salt_and_no_mask_is_used_twice(
    small_case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(monkeypatch, small_case)
    assert len(watch.all) == sum(watch.sizes.heights) + 6 * watch.sizes.columns


def test_proofs_of_two_statements_share_only_what_hides_the_words_and_data_they_share(
    small_case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another context is enough. The commitments before the beacon are the same: one of the two may be published."""
    one = Watch(monkeypatch, small_case)
    other = Watch(monkeypatch, small_case, small_case.stating(context=b"\5" * 32))
    assert one.all & other.all == one.early == other.early


def test_proofs_of_the_same_sums_by_other_contributions_share_no_more(
    small_case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rows exchange their slots: every public number is the same, and the pads are not."""
    parts = [part.copy() for part in small_case.contributions]
    parts[0][[0, 1]] = parts[0][[1, 0]]
    one, other = Watch(monkeypatch, small_case), Watch(monkeypatch, replace(small_case, contributions=tuple(parts)))
    assert one.all & other.all == one.early


@pytest.mark.parametrize("changed", [{"round": 2}, {"member": 1}, {"seed": 2}], ids=str)
def test_proofs_of_other_words_share_nothing(
    small_case: Case, make_case: Callable[..., Case], monkeypatch: pytest.MonkeyPatch, changed: dict[str, int]
) -> None:
    other = make_case(small_case.statement.shape, small_case.rows, **changed)
    assert not Watch(monkeypatch, small_case).all & Watch(monkeypatch, other).all


def test_commitments_for_other_texts_or_sizes_share_nothing(small_case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that finds itself a row short commits anew; pads that hid both would tell them apart."""
    made: list[Committed] = []
    honest = prover.commit

    def watched(*arguments: Any) -> Committed:
        made.append(honest(*arguments))
        return made[-1]

    monkeypatch.setattr(prover, "commit", watched)
    shape, texts = small_case.statement.shape, small_case.texts
    short = Texts(texts.tokens[:-1], texts.lengths[:-1], texts.labels[:-1])
    other_label = replace(texts, labels=texts.labels ^ np.int32(1))
    other_token = replace(texts, tokens=texts.tokens ^ (np.arange(texts.tokens.size).reshape(-1, texts.width) == 0))
    other_shape = replace(shape, clip_units=63)
    for each in (shape, other_shape):
        prover.words_root(small_case.words, each)
    for each, rows in (
        (shape, texts),
        (shape, short),
        (shape, other_label),
        (shape, other_token),
        (other_shape, texts),
    ):
        prover.data_root(small_case.words, each, rows)
    lanes = parameters(shape).lanes
    random = [{row.tobytes() for row in part.rows[:, lanes:]} | salts_of(part) for part in made]
    assert len(set[bytes]().union(*random)) == sum(map(len, random))


@pytest.mark.parametrize("openings", [0, 1, 3])
def test_rows_keep_as_many_random_cells_as_all_openings_together_show(
    openings: int, make_case: Callable[..., Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever columns a proof and the further ones open: on as many of them, a row's random cells alone make any
    values, whatever its lanes hold, and each value by one choice. The choices are uniform, so the values are."""
    shape = replace(TINY, openings=openings)
    watch = Watch(monkeypatch, make_case(shape, 4))
    sizes, shown = watch.sizes, watch.sizes.queries + 128 * openings
    assert sizes.row - sizes.lanes == shown == sizes.pads
    positions = np.sort(np.random.default_rng(openings).choice(sizes.columns, shown, replace=False))
    at = powers(points_of(positions, sizes), sizes.row)
    basis = interpolate(np.ascontiguousarray(at.T)).T  # (shown, k): values on H to values at the columns
    assert rank(basis[:, sizes.lanes :]) == shown
    for tree in (DATA, SLOTS):
        found = watch.trees[tree]
        assert np.array_equal(matmul(basis, found.rows.T.astype(np.uint64)), found.columns(positions.tolist()))
        pads = found.rows[:, sizes.lanes :]
        assert unevenness(pads) < 6
        assert len({row.tobytes() for row in pads}) == len(pads)


def test_a_random_cell_fewer_would_show_something(make_case: Callable[..., Case]) -> None:
    """The measure has teeth: with one random cell less, values at so many columns satisfy an equation."""
    sizes = parameters(replace(TINY, openings=1))
    positions = np.sort(np.random.default_rng(1).choice(sizes.columns, sizes.pads, replace=False))
    basis = interpolate(np.ascontiguousarray(powers(points_of(positions, sizes), sizes.row).T)).T
    assert rank(basis[:, sizes.lanes + 1 :]) == sizes.pads - 1


def rank(matrix: np.ndarray) -> int:
    """Over F, by elimination."""
    left, found = matrix.copy(), 0
    for column in range(left.shape[1]):
        below = np.flatnonzero(left[found:, column])
        if not len(below):
            continue
        pivot = found + int(below[0])
        left[[found, pivot]] = left[[pivot, found]]
        left[found] = mul(left[found], np.uint64(pow(int(left[found, column]), P - 2, P)))
        factors = left[found + 1 :, column].copy()
        left[found + 1 :] = (left[found + 1 :] + _P - mul(factors[:, None], left[found][None])) % _P
        found += 1
    return found


# ---------------------------------------------------------------------------------------------- masks and seams


def test_masks_are_what_section_8_says(small_case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random everywhere, but that no mask of sums has the coefficient that would count."""
    watch = Watch(monkeypatch, small_case)
    k, rows = watch.sizes.row, watch.trees[LOOKUPS].rows[-8:].astype(np.uint64)
    coefficients = interpolate(rows.T)
    assert not coefficients[k // 2, 4:].any()
    assert (np.delete(coefficients, k // 2, axis=0) != 0).mean() > 0.999
    assert (coefficients[k // 2, :4] != 0).all()
    for of_one in (rows[:4], rows[4:], np.delete(coefficients, k // 2, axis=0)):
        assert unevenness(of_one) < 6


@pytest.fixture(scope="module")
def quotients() -> tuple[Parameters, np.ndarray, np.ndarray]:
    """(sizes, points (t,), positions)."""
    sizes = parameters(TINY)
    positions = np.sort(np.random.default_rng(3).choice(sizes.columns, sizes.queries, replace=False))
    return sizes, points_of(positions, sizes), positions


def opened_quotients(sizes: Parameters, positions: np.ndarray, key: bytes, mask: Any = None) -> dict[str, np.ndarray]:
    """section -> (t, rows) of the last tree, where neither cells nor sums leave anything to be divided."""
    cells = np.zeros((3 * sizes.row + sizes.pads, 4), dtype=np.uint64)
    sums = np.zeros((2 * sizes.row, 4), dtype=np.uint64)
    mask = answering.masks(key, sizes)["mask_sums"] if mask is None else mask
    rows = answering.quotient_rows(cells, sums, mask, key, sizes)
    return {name: kernels.encoded_at(part, BLOWUP, positions) for name, part in rows.items()}


def test_seams_and_masks_hide_a_quotient_of_nothing(quotients: Any) -> None:
    """Each piece, the rest and the quotient of the sums look like any others, together and by themselves."""
    sizes, _, positions = quotients
    found = [opened_quotients(sizes, positions, bytes([number]) * 32) for number in range(8)]
    for name in found[0]:
        table = np.concatenate([part[name] for part in found])
        assert unevenness(table) < 6, name
        for row in table.T.astype(np.int64):
            assert unevenness(row.astype(np.uint64)) < 9, name
            assert unevenness((np.diff(row) % P).astype(np.uint64)) < 9, name


@pytest.mark.parametrize("without", ["seams", "masks"])
def test_without_them_the_same_look_tells_it_apart(
    quotients: Any, monkeypatch: pytest.MonkeyPatch, without: str
) -> None:
    """The look has teeth: a quotient of nothing is zero in every column then."""
    sizes, _, positions = quotients
    mask = answering.masks(b"m" * 32, sizes)["mask_sums"]
    if without == "seams":
        monkeypatch.setattr(answering, "field_stream", lambda key, count: np.zeros(count, dtype=np.uint64))
    found = opened_quotients(sizes, positions, b"k" * 32, mask if without == "seams" else np.zeros_like(mask))
    shown = {name for name, part in found.items() if unevenness(part) > 100}
    assert shown == ({"cells"} if without == "seams" else {"sums_rest", "sums_quotient"})
    assert not any(found[name].any() for name in shown)


def test_the_pieces_after_a_seam_take_any_values_and_the_first_what_is_left(quotients: Any) -> None:
    """Two seams keys, one quotient: p₁, p₂ and p₃ differ by anything, and Σ x^(sᵢ)·pᵢ by nothing. The t coefficients of
    a seam and the values they give at t columns determine each other, so that the values are as uniform."""
    sizes, points, positions = quotients
    shifts = shifts_of(sizes)
    assert all(0 <= after <= before + sizes.row - sizes.queries for before, after in pairwise(shifts))
    assert shifts[-1] + sizes.row == 3 * sizes.row + sizes.pads  # the reach of a quotient of degree below 4k − ℓ
    at = powers(points, sizes.queries)
    assert rank(at) == sizes.queries
    assert rank(at[:, :-1]) == sizes.queries - 1  # a coefficient fewer would not do
    found = opened_quotients(sizes, positions, b"\1" * 32)["cells"].astype(np.uint64)
    whole = np.zeros((len(points), 4), dtype=np.uint64)
    for piece, shift in enumerate(shifts):
        assert found[:, 4 * piece : 4 * piece + 4].all()
        whole += mul(found[:, 4 * piece : 4 * piece + 4], power(points, shift)[:, None])
    assert not (whole % _P).any()


def test_the_rest_of_the_sums_takes_any_values_beside_those_of_its_mask(quotients: Any) -> None:
    """Columns show mask and rest, 2t values of a row that depend on k − 1 coefficients of the mask: any 2t can be.
    Were the upper half of the coefficients missing, the rest would follow from the mask."""
    sizes, points, positions = quotients
    k, half, t = sizes.row, sizes.row // 2, sizes.queries
    at = powers(points, k)
    rests = np.concatenate([at[:, half - 1 : k - 1], np.zeros((t, 1), np.uint64), at[:, : half - 1]], axis=1)
    both = np.delete(np.concatenate([at, rests]), half, axis=1)
    assert rank(both) == 2 * t
    assert rank(both[:, :half]) == t
    mask = np.zeros((k, 4), dtype=np.uint64)
    mask[[3, half + 9]] = [[5], [7]]
    rows = opened_quotients(sizes, positions, b"k" * 32, values_on_h(mask).T.astype(np.uint32))
    expected = (mul(rests[:, 3], np.uint64(5)) + mul(rests[:, half + 9], np.uint64(7))) % _P
    assert np.array_equal(rows["sums_rest"][:, 0], expected)


# ------------------------------------------------------------------------------------------------ errors and reprs


def refusals(case: Case) -> dict[str, str]:
    """The text of every refusal that the prover's own checks lead to."""
    shape, parts = case.statement.shape, [part.copy() for part in case.contributions]
    long = [np.full_like(parts[0], 63), *parts[1:]]
    many = [np.zeros((shape.slots + 1 + case.rows, shape.parameters), dtype=np.int32), *parts[1:]]
    released = case.statement.released.copy()
    released[0, 0] += 1
    other = SecretWords(b"\xee" * 32, case.words.binding, shape.steps, shape.parameters, shape.capacity)
    texts, found = case.texts, {}
    fewer = Texts(texts.tokens[:-1], texts.lengths[:-1], texts.labels[:-1])
    for name, (statement, words, rows, given) in {
        "too many rows": (case.statement, case.words, random_texts(shape.capacity + case.rows, shape.tokens), parts),
        "longer texts": (case.statement, case.words, random_texts(case.rows, shape.tokens + 1), parts),
        "other rows": (case.statement, case.words, fewer, parts),
        "other words": (case.statement, other, case.texts, parts),
        "too long": (case.statement, case.words, case.texts, long),
        "too many": (case.statement, case.words, case.texts, many),
        "one fewer": (case.statement, case.words, case.texts, [parts[0][1:], *parts[1:]]),
        "another step": (case.statement, case.words, case.texts, parts[:1]),
        "other sums": (replace(case.statement, released=released), case.words, case.texts, parts),
    }.items():
        with pytest.raises(CandorError) as caught:
            prover.prove(statement, words, rows, given)
        found[name] = f"{caught.value} {caught.value!r} {caught.value.__cause__}"
    return found


def test_no_refusal_tells_seed_words_contributions_or_rows(small_case: Case, make_case: Callable[..., Case]) -> None:
    """Members with other secrets get the same texts, word for word."""
    shape = small_case.statement.shape
    texts = [refusals(case) for case in (small_case, make_case(shape, 11, seed=7), make_case(shape, 13, seed=8))]
    assert texts[0] == texts[1] == texts[2]
    assert len(set(texts[0].values())) >= 6


def test_a_projection_beyond_its_bound_is_not_named_either(small_case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    every = lambda key, sizes: np.full((sizes.projections, sizes.projected), 100, dtype=np.int8)  # noqa: E731
    monkeypatch.setattr("proofs.relation.projection_signs", every)
    with pytest.raises(prover.WitnessRefused) as caught:
        small_case.prove()
    assert (
        str(caught.value)
        == "a projection is beyond its bound, which happens once in 2^40 proofs: this round cannot be proven"
    )


def test_what_a_prover_holds_shows_in_no_repr(small_case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(monkeypatch, small_case)
    sizes = parameters(small_case.statement.shape)
    run = prover._Run(small_case.statement, sizes, small_case.words, small_case.contributions)
    section = next(iter(answering.sections_of(watch.trees, sizes).values()))
    for held in (small_case.words, small_case.texts, *watch.trees, run, section):
        shown = repr(held) + str(held)
        assert "array" not in shown
        assert "\\x01" not in shown
        assert (b"\1" * 32).hex() not in shown
        assert len(shown) < 400
