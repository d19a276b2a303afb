"""Relation M as polynomial identities over a proof's rows (README.md, sections 3 to 5), shared by prover and verifier.

Two kinds. A *cell* identity holds in every lane by itself: a polynomial of degree 2 in the rows, of degree 4 where
three values share a row of inverses, which must vanish on the lanes. A *sum* identity is linear and adds up over lanes:
Σ_lanes Σ_terms weight(lane)·(Σ_rows factor·row(lane)) = target. All of one kind are added up with random factors from
K, so that one polynomial of each kind is left.

`Columns` maps a section's name to its cells, (points, rows) uint64; the prover evaluates on cosets, the verifier at the
opened columns, with the same code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from proofs.field import DEGREE, Field, P, element, ext, ext_inverse, ext_mul, ext_powers, ext_turned, matmul, mul
from proofs.gaussian import NoiseTable, noise_table
from proofs.parameters import NORM_SHIFT, RANGE, TOGETHER, Parameters
from proofs.statement import Statement
from proofs.transcript import Transcript, signs
from proofs.words import public_draws, public_noise

Columns = Mapping[str, Field]
_P = np.uint64(P)
_ONE = np.uint64(1)
CHUNK = 1 << 14  # coordinates of Π that are widened at a time
LOOKED_UP = (
    "secret_noise", "secret_draws", "noise_carry", "bin_low", "bin_high", "low_borrow", "high_borrow", "draw_carry",
    "draw_borrow", "drawn", "norm_low", "norm_high", "projections",
)  # fmt: skip
BITS = ("active", "last", "noise_carry", "low_borrow", "high_borrow", "draw_carry", "draw_borrow", "drawn", "filled")


class Arithmetic(Protocol):
    """Two sums that dominate a prover's time; a verifier takes `Plain`, the prover the compiled twins."""

    def square_sums(self, values: Field) -> Field: ...

    def sum_products(self, values: Field, others: Field, weights: Field) -> Field: ...


class Plain:
    """Numpy, exact: (n, r) -> (n,) and (n, r), (n, r), (r, 4) -> (n, 4)."""

    def square_sums(self, values: Field) -> Field:
        return np.asarray(mul(values, values).sum(axis=1) % _P, dtype=np.uint64)

    def sum_products(self, values: Field, others: Field, weights: Field) -> Field:
        return matmul(mul(values, others), weights)


@dataclass(frozen=True, eq=False)
class Public:
    """What everybody can compute from the statement, laid out in rows of lanes: (lanes, rows) each."""

    noise_words: Field
    draw_words: Field
    bins: NDArray[np.uint64]  # (noise_values, 9): z, the four words of the least u of its bin, those of the greatest

    @property
    def words(self) -> Columns:
        return {"noise_words": self.noise_words, "draw_words": self.draw_words}

    @classmethod
    def of(cls, statement: Statement, sizes: Parameters) -> Public:
        shape, binding, beacon = statement.shape, statement.binding, statement.beacon
        noise = [public_noise(beacon, binding, step, shape.parameters) for step in range(shape.steps)]
        draws = [public_draws(beacon, binding, step, shape.capacity) for step in range(shape.steps)]
        return cls(
            in_rows(np.concatenate(noise), sizes.noise_rows, sizes.lanes).T.astype(np.uint64),
            in_rows(np.concatenate(draws), sizes.draw_rows, sizes.lanes).T.astype(np.uint64),
            bins(noise_table(shape.sigma_units)),
        )


@dataclass(frozen=True, eq=False)
class CellChallenges:
    """α, β and a factor from K for each cell identity."""

    alpha: Field
    beta: Field
    bits: Field
    used: Field
    squares: Field
    together: Field  # rows of inverses that ranges and projections share
    bins: Field


def in_rows(values: NDArray[np.generic], rows: int, lanes: int) -> NDArray[np.generic]:
    """(count, width) -> (width·rows, lanes): column after column, each cut into rows, the last filled up with zeros."""
    count, width = values.shape
    padded = np.zeros((width, rows * lanes), dtype=values.dtype)
    padded[:, :count] = values.T
    return padded.reshape(width * rows, lanes)


def bins(table: NoiseTable) -> NDArray[np.uint64]:
    """For z = −bound … bound: (z modulo p, 4 words of the least u, 4 words of the greatest u), least word first."""
    edges = table.thresholds
    low = np.concatenate([np.zeros(1, dtype=np.uint64), edges])
    high = np.concatenate([edges - _ONE, np.full(1, 2**64 - 1, dtype=np.uint64)])
    z = element(np.arange(-table.bound, table.bound + 1))
    shifts = np.array([0, 16, 32, 48], dtype=np.uint64)
    words = [edge[:, None] >> shifts & np.uint64(RANGE - 1) for edge in (low, high)]
    return np.concatenate([z[:, None], *words], axis=1)


# ---------------------------------------------------------------------------------------------------- cell identities


def challenges_of_cells(transcript: Transcript, sizes: Parameters, alpha: Field, beta: Field) -> CellChallenges:
    draws, groups = sizes.draw_rows, len(sizes.shape.groups)
    heights = {name: rows for tree in sizes.trees for name, rows in tree}
    bits = sum(heights[name] for name in BITS)
    found = transcript.elements("cells", bits + draws + groups + sizes.inverses)
    parts = np.split(found, np.cumsum([bits, draws, groups, sizes.range_inverses + sizes.projection_inverses]))
    return CellChallenges(alpha, beta, *parts)


def looked_up(columns: Columns, public: Columns, sizes: Parameters) -> tuple[Field, Field]:
    """What LOOKED_UP say: (points, range_lookups) below 2^16, and (points, projection_rows) from 0 to 2·reach."""
    carry, borrow = np.uint64(RANGE), np.uint64(P - RANGE)  # 2^16 and −2^16
    noise, draws = columns["secret_noise"], columns["secret_draws"]
    words = (noise + public["noise_words"] + borrow * columns["noise_carry"]) % _P
    drawn = (draws + public["draw_words"] + borrow * columns["draw_carry"]) % _P
    above = _difference(words, columns["bin_low"], columns["low_borrow"], sizes.noise_rows)
    below = _difference(columns["bin_high"], words, columns["high_borrow"], sizes.noise_rows)
    rows = sizes.draw_rows
    threshold = sizes.shape.sample_threshold
    edge = [np.uint64(threshold % RANGE), np.uint64(threshold // RANGE)]
    rest0 = (drawn[:, :rows] + _P - edge[0] + carry * columns["draw_borrow"]) % _P
    rest1 = (drawn[:, rows:] + _P - edge[1] + _P - columns["draw_borrow"] + carry * columns["drawn"]) % _P
    parts = (noise, words, above, below, draws, drawn, rest0, rest1, columns["norm_low"], columns["norm_high"])
    return np.concatenate(parts, axis=1), (columns["projections"] + np.uint64(sizes.reach)) % _P


def _difference(upper: Field, lower: Field, borrows: Field, rows: int) -> Field:
    """The four words of upper − lower, given the three borrows between them; the last word borrows from nowhere."""
    nothing = np.zeros((len(upper), rows), dtype=np.uint64)
    out = np.concatenate([borrows, nothing], axis=1)
    into = np.concatenate([nothing, borrows], axis=1)
    return np.asarray((upper + _P - lower + np.uint64(RANGE) * out + _P - into) % _P, dtype=np.uint64)


def bin_keys(cells: Field, beta: Field) -> Field:
    """(..., 9) of F -> (..., 4) of K: Σ βⁱ·cellᵢ."""
    flat = matmul(cells.reshape(-1, 9), ext_powers(beta, 9))
    return flat.reshape(*cells.shape[:-1], DEGREE)


def in_threes(values: Field) -> Field:
    """(n, r) -> (n, 3·⌈r/3⌉): values that share inverses side by side, filled up with zeros."""
    return np.pad(values, ((0, 0), (0, -values.shape[1] % TOGETHER)))


def values_together(columns: Columns, public: Columns, sizes: Parameters) -> Field:
    """(points, 3·rows): what is looked up three by three."""
    return np.concatenate([in_threes(part) for part in looked_up(columns, public, sizes)], axis=1)


def together(values: Field, inverses: Field, factors: Field, alpha: Field) -> Field:
    """Σ factor·(inverse·Π(α − v) − Σ_i Π_(j≠i)(α − v_j)) over rows of inverses and their three values, (n, 4).

    values (n, 3·r), inverses (4, n, r), factors (r, 4). By the elementary symmetric sums of the values, with which
    Π(α − v) = α³ − e₁·α² + e₂·α − e₃, and the rest is its derivative.
    """
    a, b, c = (values[:, place::TOGETHER] for place in range(TOGETHER))
    pair = mul(a, b)
    sums = [(a + b + c) % _P, (pair + mul((a + b) % _P, c)) % _P, mul(pair, c)]
    first, second, third = ext_powers(alpha, TOGETHER + 1)[1:]
    total = np.zeros((len(values), DEGREE), dtype=np.uint64)
    for e in range(DEGREE):
        by = [matmul(inverses[e], factors), *(matmul(mul(inverses[e], one), factors) for one in sums)]
        product = ext_mul(by[0], third) + ext_mul(by[2], first) + 2 * _P - ext_mul(by[1], second) - by[3]
        total += ext_turned(product % _P, e)
    whole = factors.sum(axis=0) % _P
    slope = 3 * ext_mul(whole, second) + matmul(sums[1], factors) + 2 * (_P - ext_mul(matmul(sums[0], factors), first))
    return np.asarray((total + _P - slope % _P) % _P, dtype=np.uint64)


def cell_identities(columns: Columns, sizes: Parameters, drawn: CellChallenges, arithmetic: Arithmetic) -> Field:
    """(points, 4): all of degree 2, each times its factor, added up; zero in every lane of an honest proof."""
    bits = np.concatenate([columns[name] for name in BITS], axis=1)
    total = matmul(mul(bits, bits + _P - _ONE), drawn.bits)
    used = (mul(columns["drawn"], columns["filled"]) + _P - columns["used"]) % _P
    total += matmul(used, drawn.used)
    for group in range(len(sizes.shape.groups)):
        squares = arithmetic.square_sums(columns[f"contributions_{group}"])
        gap = (squares + _P - columns["squares"][:, group]) % _P
        total += mul(gap[:, None], drawn.squares[group])
    return np.asarray((total + _bin_identities(columns, sizes, drawn)) % _P, dtype=np.uint64)


def shared_identities(columns: Columns, public: Columns, sizes: Parameters, drawn: CellChallenges) -> Field:
    """(points, 4): those of degree 4 likewise, of ranges and projections."""
    rows = len(drawn.together)
    inverses = np.stack([columns[f"inverses_{e}"][:, :rows] for e in range(DEGREE)])
    return together(values_together(columns, public, sizes), inverses, drawn.together, drawn.alpha)


def _bin_identities(columns: Columns, sizes: Parameters, drawn: CellChallenges) -> Field:
    """Σ factor·(inverse·(α − key) − 1) over the bins of the noise."""
    first, rows = len(drawn.together), sizes.noise_rows
    cells = np.stack([columns["noise"], *_words(columns["bin_low"], rows), *_words(columns["bin_high"], rows)], axis=-1)
    difference = (drawn.alpha + _P - bin_keys(cells, drawn.beta)) % _P
    inverse = np.stack([columns[f"inverses_{e}"][:, first:] for e in range(DEGREE)], axis=-1)
    total = ext_mul(ext_mul(inverse, difference), drawn.bins).sum(axis=1) % _P
    return np.asarray((total + _P - drawn.bins.sum(axis=0) % _P) % _P, dtype=np.uint64)


def _words(cells: Field, rows: int) -> list[Field]:
    return [cells[:, word * rows : (word + 1) * rows] for word in range(4)]


# ----------------------------------------------------------------------------------------------------- sum identities


@dataclass(frozen=True, eq=False)
class Term:
    """weights (n, 4) of the lanes from `start` on, zero elsewhere: there can be as many terms as lanes.

    coefficients: section -> (first row, (rows, 4)): Σ_lanes weight·Σ_rows coefficient·cell.
    """

    start: int
    weights: Field
    coefficients: dict[str, tuple[int, Field]]


@dataclass(frozen=True, eq=False)
class SumChallenges:
    """Factors of the sum identities: one from K each for every step, slot, coordinate, projection, row of the data
    and kind."""

    steps: Field
    slots: Field
    coordinates: tuple[Field, ...]  # by group, padded to whole rows
    projections: Field  # padded to whole rows
    rows: Field
    norms: Field
    counts: Field
    order: Field
    tables: Field


def challenges_of_sums(transcript: Transcript, sizes: Parameters) -> SumChallenges:
    shape = sizes.shape
    padded = [rows * sizes.blocks for rows in sizes.group_rows]
    wanted = [shape.steps, shape.contributions, sum(shape.groups), sizes.projections, shape.capacity]
    parts = np.split(transcript.elements("sums", sum(wanted) + len(shape.groups) + 5), np.cumsum(wanted))
    kinds = parts[5]
    by_group = np.split(parts[2], np.cumsum(shape.groups)[:-1])
    coordinates = tuple(_padded(part, size) for part, size in zip(by_group, padded, strict=True))
    projections = _padded(parts[3], sizes.projection_rows * sizes.blocks)
    groups = len(shape.groups)
    return SumChallenges(
        parts[0], parts[1], coordinates, projections, parts[4], kinds[:groups], kinds[groups], kinds[groups + 1],
        kinds[groups + 2 :],
    )  # fmt: skip


def projection_signs(key: bytes, sizes: Parameters) -> NDArray[np.int8]:
    """Π (J, projected): rows of −1, 0, 1 over all coordinates, group after group, each padded to whole rows."""
    return signs(key, sizes.projections, sizes.projected)


def sum_terms(
    sizes: Parameters, matrix: NDArray[np.int8], public: Public, drawn: SumChallenges, alpha: Field, beta: Field
) -> Iterator[Term]:
    """Every term of the sum identity; `target` is what they add up to."""
    yield from _terms_of_slots(sizes, matrix, drawn)
    yield from _terms_of_steps(sizes, drawn)
    yield from _terms_of_lookups(sizes, public, drawn, alpha, beta)


def target(statement: Statement, sizes: Parameters, drawn: SumChallenges) -> Field:
    """Σ over steps and coordinates of their factors times ĝ."""
    released = element(statement.released)
    total = np.zeros(DEGREE, dtype=np.uint64)
    for group, factors in enumerate(drawn.coordinates):
        mine = released[:, statement.group_of == group]
        total += ext_mul(matmul(mine, factors[: mine.shape[1]]), drawn.steps).sum(axis=0) % _P
    return total % _P


def _terms_of_slots(sizes: Parameters, matrix: NDArray[np.int8], drawn: SumChallenges) -> Iterator[Term]:
    """Projections are those of the contributions; squares and what is left add up to C²; slots in use come first."""
    shape, blocks = sizes.shape, sizes.blocks
    factors = drawn.projections[: sizes.projections]
    parts = (matrix[:, start : start + CHUNK].T for start in range(0, sizes.projected, CHUNK))
    projected = np.concatenate([matmul(element(part), factors) for part in parts])
    by_group = np.split((_P - projected) % _P, np.cumsum([rows * blocks for rows in sizes.group_rows])[:-1])
    clip = np.uint64(shape.clip_units**2)
    all_norms = drawn.norms.sum(axis=0) % _P
    for block in range(blocks):
        coefficients = {
            f"contributions_{g}": (0, part.reshape(-1, blocks, DEGREE)[:, block]) for g, part in enumerate(by_group)
        }
        coefficients["projections"] = (0, drawn.projections.reshape(-1, blocks, DEGREE)[:, block])
        coefficients["squares"] = (0, drawn.norms)
        if block == 0:
            coefficients["norm_low"] = (0, drawn.norms)
            coefficients["norm_high"] = (0, mul(drawn.norms, np.uint64(NORM_SHIFT)))
            coefficients["active"] = (0, (_P - mul(all_norms, clip))[None] % _P)
            coefficients["last"] = (0, (_P - drawn.order)[None] % _P)
        yield Term(block * shape.contributions, drawn.slots, coefficients)
    by_step = drawn.slots.reshape(shape.steps, shape.slots, DEGREE)
    before = np.concatenate([np.zeros_like(by_step[:, :1]), by_step[:, :-1]], axis=1)
    steps_down = ((by_step + _P - before) % _P).reshape(-1, DEGREE)
    yield Term(0, steps_down, {"active": (0, drawn.order[None])})


def _terms_of_steps(sizes: Parameters, drawn: SumChallenges) -> Iterator[Term]:
    """ĝ = Σ c + z; as many slots are in use as rows are drawn; the data is the same in every step."""
    shape, blocks = sizes.shape, sizes.blocks
    of_slot = np.repeat(drawn.steps, shape.slots, axis=0)
    for block in range(blocks):
        coefficients = {
            f"contributions_{g}": (0, part.reshape(-1, blocks, DEGREE)[:, block])
            for g, part in enumerate(drawn.coordinates)
        }
        if block == 0:
            coefficients["active"] = (0, drawn.counts[None])
        yield Term(block * shape.contributions, of_slot, coefficients)
    drawn_weights = np.repeat(ext_mul(drawn.steps, (_P - drawn.counts) % _P), shape.capacity, axis=0)
    yield from _by_row("used", drawn_weights, sizes.draw_rows, sizes.lanes)
    same = ext_mul(drawn.steps[:, None], drawn.rows[None])
    same[0] = (_P - same[1:].sum(axis=0) % _P) % _P
    yield from _by_row("filled", same.reshape(-1, DEGREE), sizes.draw_rows, sizes.lanes)


def noise_terms(statement: Statement, sizes: Parameters, drawn: SumChallenges) -> Iterator[Term]:
    """The noise's part of ĝ = Σ c + z: coordinates in the order of the statement, step after step."""
    factors = np.zeros((sizes.shape.parameters, DEGREE), dtype=np.uint64)
    for group, part in enumerate(drawn.coordinates):
        mine = statement.group_of == group
        factors[mine] = part[: int(mine.sum())]
    weights = ext_mul(drawn.steps[:, None], factors[None]).reshape(-1, DEGREE)
    yield from _by_row("noise", weights, sizes.noise_rows, sizes.lanes)


def _terms_of_lookups(
    sizes: Parameters, public: Public, drawn: SumChallenges, alpha: Field, beta: Field
) -> Iterator[Term]:
    """For each table: Σ inverses = Σ counts/(α − entry)."""
    everywhere = np.broadcast_to(ext(np.ones(1, dtype=np.uint64)), (sizes.lanes, DEGREE)).copy()
    factors = np.repeat(drawn.tables, [sizes.range_inverses, sizes.projection_inverses, sizes.noise_rows], axis=0)
    units = np.eye(DEGREE, dtype=np.uint64)
    yield Term(0, everywhere, {f"inverses_{e}": (0, ext_mul(factors, units[e])) for e in range(DEGREE)})
    entries = (
        ("range_counts", ext(np.arange(RANGE, dtype=np.uint64))),
        ("projection_counts", ext(np.arange(2 * sizes.reach + 1, dtype=np.uint64))),
        ("noise_counts", bin_keys(public.bins, beta)),
    )
    heights = {name: rows for tree in sizes.trees for name, rows in tree}
    for factor, (name, values) in zip(drawn.tables, entries, strict=True):
        weights = ext_mul(ext_inverse((alpha + _P - values) % _P), (_P - factor) % _P)
        yield from _by_row(name, weights, heights[name], sizes.lanes)


def _by_row(name: str, weights: Field, rows: int, lanes: int) -> Iterator[Term]:
    """One term for each row of a section that is filled cell after cell."""
    one = ext(np.ones(1, dtype=np.uint64))
    yield from (Term(0, weights[row * lanes : (row + 1) * lanes], {name: (row, one)}) for row in range(rows))


def _padded(values: Field, length: int) -> Field:
    return np.concatenate([values, np.zeros((length - len(values), DEGREE), dtype=np.uint64)])
