"""A second verifier of the mechanism's proof, written from README.md alone, in plain integers.

It shares nothing with the first but `Statement`, the noise table and the names of errors, and takes its time. What the
two do not agree on is a mistake in one of them, or in the text. Sections are those of README.md's "The proof of M".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256, shake_256
from itertools import chain, islice, pairwise
from math import isqrt
from operator import add
from struct import unpack_from

from proofs.errors import LocalFault
from proofs.gaussian import noise_table
from proofs.plain import (
    Column,
    Interpolation,
    Messages,
    P,
    Point,
    Transcript,
    below_p,
    by_threes,
    cells_at,
    dot,
    element_of,
    elements_of,
    evaluate,
    in_f,
    inverses_of,
    minus,
    points_of,
    powers_of,
    proximity_at,
    reduced,
    sums_at,
    three_inverted,
)
from proofs.proof import CellsFailed, ProximityFailed, ReleasedTooLarge, SumsFailed
from proofs.statement import Shape, Statement

_BITS = (
    *("active", "last", "noise_carry", "low_borrow", "high_borrow"),
    *("draw_carry", "draw_borrow", "drawn", "filled"),
)
_Sections = dict[str, tuple[int, ...]]  # the entries of an opened column, by section


class SizesRefused(LocalFault):
    """Section 2 has no proof for a round of these sizes."""


def verify(statement: Statement, proof: bytes) -> None:
    """Section 6. Returns when `proof` proves `statement`; SizesRefused, or the first of ProofInvalid, otherwise."""
    sizes, shape = _sizes(statement.shape), statement.shape
    largest = shape.slots * shape.clip_units + sizes.bound
    if any(abs(value) > largest for step in statement.released.tolist() for value in step):
        raise ReleasedTooLarge(f"a released sum is beyond {largest}")
    k, height, widths = sizes.k, sizes.k.bit_length() + 2, sizes.widths
    messages = Messages(proof, sizes.fixed, len(widths) * height * sizes.t)
    roots = {label: messages.take(32) for label in ("slots", "witness", "lookups", "quotients")}
    proximity = messages.take(16 * k)
    sent = elements_of(below_p(proximity))
    transcript = Transcript(b"candor/mechanism-proof/2")
    transcript.absorb("statement", _statement_digest(statement))
    transcript.absorb("slots", roots["slots"])
    signs = transcript.signs("projections", sizes.projections, sizes.h * sizes.contribution_rows)
    transcript.absorb("witness", roots["witness"])
    alpha, beta = transcript.elements("tables", 2)
    if in_f(alpha):
        raise CellsFailed("α lies in F")
    transcript.absorb("lookups", roots["lookups"])
    of_cells = transcript.elements("cells", sizes.identities)
    of_sums = transcript.elements("sums", sum(_factors(shape, sizes)) + 5)
    transcript.absorb("quotients", roots["quotients"])
    of_rows = transcript.elements("proximity", sum(widths) - 4 + 4)
    transcript.absorb("proximity", proximity)
    positions = transcript.positions("columns", sizes.t, 8 * k)
    trees = (statement.words_root, statement.data_root, *roots.values())
    columns = messages.columns(positions, height, zip(trees, widths, strict=True))
    points = points_of(k, sizes.lanes, positions)
    mask, rest = sizes.begins("mask_proximity"), sizes.begins("sums_rest")
    for column, point in zip(columns, points, strict=True):
        if proximity_at(point.x, column, mask, rest, of_rows) != evaluate(sent, point.x):
            raise ProximityFailed(f"at {point.x}")
    opened = _Opened(statement, sizes, alpha, beta, [sizes.by_section(column) for column in columns], points)
    _check_cells(opened, of_cells)
    _check_sums(opened, of_sums, signs)


# Section 1: field, transcript, statement


def _binding(statement: Statement) -> bytes:
    binding = statement.binding
    head = binding.chain_id.to_bytes(8, "big") + binding.contract + binding.round.to_bytes(8, "big")
    return head + bytes([binding.member])


def _statement_digest(statement: Statement) -> bytes:
    shape = statement.shape
    head = _binding(statement) + statement.context + statement.words_root + statement.data_root + statement.beacon
    sizes = (shape.steps, shape.capacity, shape.slots, shape.clip_units, shape.sigma_units)
    head += b"".join(size.to_bytes(4, "big") for size in sizes) + shape.sample_threshold.to_bytes(8, "big")
    rest = (shape.tokens, shape.openings, len(shape.groups), *shape.groups)
    head += b"".join(size.to_bytes(4, "big") for size in rest)
    head += bytes(statement.group_of.tolist())
    sums = (value.to_bytes(4, "little", signed=True) for step in statement.released.tolist() for value in step)
    return sha256(b"candor/mechanism-statement/1\0" + head + b"".join(sums)).digest()


# Sections 2 and 3: sizes, rows, trees


@dataclass(frozen=True)
class _Sizes:
    """k, t, ℓ, h, J, b', the noise table's bound; ΣR_g, number of factors of section 4; rows by tree and section."""

    k: int
    t: int
    lanes: int
    h: int
    projections: int
    reach: int
    bound: int
    contribution_rows: int
    identities: int
    trees: tuple[dict[str, int], ...]

    @property
    def widths(self) -> list[int]:
        return [sum(tree.values()) for tree in self.trees]

    @property
    def fixed(self) -> int:
        """Bytes of messages 1 to 6."""
        return 4 * 32 + 16 * self.k + self.t * sum(16 + 4 * width for width in self.widths)

    def begins(self, section: str) -> int:
        """Its first row, of the rows of all trees."""
        names = [name for tree in self.trees for name, rows in tree.items() for _ in range(rows)]
        return names.index(section)

    def by_section(self, column: Column) -> _Sections:
        rest = iter(column)
        return {name: tuple(islice(rest, rows)) for tree in self.trees for name, rows in tree.items()}


def _sizes(shape: Shape) -> _Sizes:
    numbers = (shape.steps, *shape.groups, shape.capacity, shape.slots, shape.clip_units, shape.sigma_units)
    if not shape.groups or min(*numbers, shape.tokens) < 1 or not 0 <= shape.sample_threshold <= 1 << 32:
        raise SizesRefused("a round has steps, coordinates, rows, slots, a clip, noise, tokens, and a probability")
    if not 0 <= shape.openings <= 16:
        raise SizesRefused("at most sixteen further proofs")
    reach = isqrt(48 * len(shape.groups) * shape.clip_units**2) + 1
    theta = Fraction(2 * reach**2, P - 2**25 - 1)
    loudest = noise_table(shape.sigma_units).bound
    if shape.clip_units > 2048 or 2 * theta > 1 or 2 * (shape.slots * shape.clip_units + loudest) >= P:
        raise SizesRefused("clip, groups or slots may wrap modulo p")
    one, base = 1 << 256, 2 / (2 + (1 - theta) ** 2)
    projections, chance, factor = 0, one, _ceil(base.numerator * one, base.denominator)
    while chance > one >> 104:
        projections, chance = projections + 1, _ceil(chance * factor, one)
    found = [_sizes_of(shape, 1 << log, reach, projections, Fraction(chance, one)) for log in range(9, 22)]
    fitting = [sizes for sizes in found if sizes is not None]
    if not fitting:
        raise SizesRefused("no row length holds the slots of all steps")
    best = min(fitting, key=lambda sizes: sizes.fixed)
    if best.k * sum(best.widths) > 1 << 27:
        raise SizesRefused("more than 2^27 cells")
    return best


def _sizes_of(shape: Shape, k: int, reach: int, projections: int, chance: Fraction) -> _Sizes | None:
    bound, groups, slots = noise_table(shape.sigma_units).bound, len(shape.groups), shape.steps * shape.slots
    tables = 2**16 + 2 * reach + 1 + 9 * (2 * bound + 1)
    for t in range(1, 201):
        random = t + 128 * shape.openings
        lanes = k - random
        if random >= k // 2 or random + 3 * t > k or lanes < slots:
            return None
        h = lanes // slots
        noise, draws = _ceil(shape.steps * sum(shape.groups), lanes), _ceil(shape.steps * shape.capacity, lanes)
        projected = _ceil(projections, h)
        threes = _ceil(16 * noise + 6 * draws + 2 * groups, 3) + _ceil(projected, 3)
        values = lanes * (3 * threes + 9 * noise)
        if Fraction(9, 16) ** t + Fraction(16 * k + values + tables + 8, P**4) + chance <= Fraction(1, 1 << 100):
            break
    else:
        return None
    contributions = {f"contributions_{group}": _ceil(size, h) for group, size in enumerate(shape.groups)}
    contribution_rows = sum(contributions.values())
    if (2 * h * contribution_rows + 1) * reach >= P:
        return None
    noise_rows = {"noise": 1, "noise_carry": 4, "bin_low": 4, "bin_high": 4, "low_borrow": 3, "high_borrow": 3}
    draw_rows = {"draw_carry": 2, "draw_borrow": 1, "drawn": 1}
    witness = {"squares": groups, "norm_low": groups, "norm_high": groups, "last": 1}
    witness |= {name: count * noise for name, count in noise_rows.items()}
    witness |= {name: count * draws for name, count in draw_rows.items()}
    witness |= {"range_counts": _ceil(2**16, lanes), "noise_counts": _ceil(2 * bound + 1, lanes)}
    witness |= {"projections": projected, "projection_counts": _ceil(2 * reach + 1, lanes)}
    lookups = threes + noise
    trees = (
        {"secret_noise": 4 * noise, "secret_draws": 2 * draws},
        {"filled": draws, "texts": _ceil((shape.tokens + 2) * shape.capacity, lanes)},
        contributions | {"active": 1, "used": draws},
        witness,
        {f"inverses_{place}": lookups for place in range(4)} | {"mask_proximity": 4, "mask_sums": 4},
        {"cells": 16, "sums_rest": 4, "sums_quotient": 4},
    )
    rows = {name: count for tree in trees for name, count in tree.items()}
    identities = sum(rows[name] for name in _BITS) + draws + groups + lookups
    return _Sizes(k, t, lanes, h, projections, reach, bound, contribution_rows, identities, trees)


def _ceil(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


@dataclass(frozen=True)
class _Opened:
    """What the checks look at."""

    statement: Statement
    sizes: _Sizes
    alpha: int
    beta: int
    columns: list[_Sections]
    points: list[Point]

    def __iter__(self) -> Iterator[tuple[_Sections, Point]]:
        return zip(self.columns, self.points, strict=True)


def _cell_after_cell(values: Sequence[int], sizes: _Sizes) -> list[Sequence[int]]:
    return [values[start : start + sizes.lanes] for start in range(0, len(values), sizes.lanes)]


# Section 4: cell identities


def _check_cells(opened: _Opened, factors: list[int]) -> None:
    shape, sizes = opened.statement.shape, opened.sizes
    public_noise, public_draws = _public_rows(opened, b"noise", 4), _public_rows(opened, b"draws", 2)
    alphas, betas = powers_of(opened.alpha, 4), powers_of(opened.beta, 9)
    for at, point in opened:
        noise, draws = ([dot(row, point.lagrange) for row in rows] for rows in (public_noise, public_draws))
        values = [bit * (bit - 1) for name in _BITS for bit in at[name]]
        values += [d * f - u for d, f, u in zip(at["drawn"], at["filled"], at["used"], strict=True)]
        rows = (at[f"contributions_{group}"] for group in range(len(shape.groups)))
        values += [dot(row, row) - square for row, square in zip(rows, at["squares"], strict=True)]
        inverses = map(element_of, zip(*(at[f"inverses_{place}"] for place in range(4)), strict=True))
        projected = [y + sizes.reach for y in at["projections"]]
        threes = chain(by_threes(list(_ranged(shape, at, noise, draws))), by_threes(projected))
        lookups = [three_inverted(next(inverses), alphas, three) for three in threes]
        for inverse, value in zip(inverses, _binned(at, betas), strict=True):
            lookups.append(reduced(inverse * (opened.alpha + minus(value))) + P - 1)
        found = dot(factors, chain((value % P for value in values), lookups))
        if reduced(found) != cells_at(point.x, at["cells"], sizes.k, sizes.t, sizes.lanes):
            raise CellsFailed(f"at {point.x}")


def _public_rows(opened: _Opened, kind: bytes, width: int) -> list[Sequence[int]]:
    """b, laid out like s."""
    statement, shape, words = opened.statement, opened.statement.shape, list[int]()
    number = width * (sum(shape.groups) if kind == b"noise" else shape.capacity)
    for step in range(shape.steps):
        message = b"candor/public-%b/1\0" % kind + _binding(statement) + statement.beacon
        message += step.to_bytes(4, "big") + number.to_bytes(4, "big")
        words += unpack_from(f"<{number}H", shake_256(message).digest(2 * number))
    return [row for word in range(width) for row in _cell_after_cell(words[word::width], opened.sizes)]


def _ranged(shape: Shape, at: _Sections, noise: list[int], draws: list[int]) -> Iterator[int]:
    """What is looked up in the range, row after row."""
    n, m = len(at["noise"]), len(at["drawn"])
    u = [s + b - (carry << 16) for s, b, carry in zip(at["secret_noise"], noise, at["noise_carry"], strict=True)]
    d = [s + b - (carry << 16) for s, b, carry in zip(at["secret_draws"], draws, at["draw_carry"], strict=True)]
    yield from at["secret_noise"]
    yield from u
    for greater, less, name in ((u, at["bin_low"], "low_borrow"), (at["bin_high"], u, "high_borrow")):
        borrows = zip((*at[name], *[0] * n), (*[0] * n, *at[name]), strict=True)
        yield from (g - v + (own << 16) - below for g, v, (own, below) in zip(greater, less, borrows, strict=True))
    yield from at["secret_draws"]
    yield from d
    high, low = divmod(shape.sample_threshold, 1 << 16)
    yield from (word - low + (borrow << 16) for word, borrow in zip(d[:m], at["draw_borrow"], strict=True))
    drawn = zip(at["draw_borrow"], at["drawn"], strict=True)
    yield from (word - high - borrow + (below << 16) for word, (borrow, below) in zip(d[m:], drawn, strict=True))
    yield from at["norm_low"] + at["norm_high"]


def _binned(at: _Sections, betas: list[int]) -> Iterator[int]:
    """z + β·low_0 + … + β⁸·high_3 for each row of the noise."""
    rows = len(at["noise"])
    for row, z in enumerate(at["noise"]):
        yield reduced(dot(betas, (z, *at["bin_low"][row::rows], *at["bin_high"][row::rows])))


# Section 5: sum identities


def _factors(shape: Shape, sizes: _Sizes) -> tuple[int, ...]:
    """How many of ν, μ, ρ, τ, ω and φ are drawn before κ, κ', χ_1, χ_2 and χ_3."""
    slots, coordinates = shape.steps * shape.slots, sum(shape.groups)
    return shape.steps, slots, coordinates, sizes.projections, shape.capacity, len(shape.groups)


def _check_sums(opened: _Opened, drawn: list[int], signs: list[list[int]]) -> None:
    shape, sizes, h = opened.statement.shape, opened.sizes, opened.sizes.h
    factor, slots = iter(drawn), shape.steps * shape.slots
    nu, mu, rho, tau, omega, phi = (list(islice(factor, count)) for count in _factors(shape, sizes))
    kappa, kappa_slots, *chi = factor

    # ρ comes group after group, noise and released sums in the order of the coordinates.
    grouped = sorted(range(len(rho)), key=opened.statement.group_of.tolist().__getitem__)
    rho_of = dict(zip(grouped, rho, strict=True))
    noise = [reduced(step * rho_of[j]) for step in nu for j in range(len(rho))]
    target = dot(noise, (value % P for step in opened.statement.released.tolist() for value in step))

    # Beside ν: ρ, and zero for what fills a group's last row up. Beside μ: −Σ τ·Π for contributions, τ for projections.
    rest, of_nu = iter(rho), list[int]()
    for size in shape.groups:
        of_nu += [*islice(rest, size), *[0] * (-size % h)]
    projected = [0] * len(of_nu)
    for element, row in zip(tau, signs, strict=True):
        projected = list(map(add, projected, map((minus(element), element, 0, 0).__getitem__, row)))
    of_mu, of_y = [reduced(value) for value in projected], tau + [0] * (-len(tau) % h)
    blocks = [(of_nu[x::h], of_mu[x::h] + of_y[x::h]) for x in range(h)]

    after = [minus(mu[a - 1]) if a % shape.slots else 0 for a in range(slots)]
    used_first = [reduced(kappa_slots * reduced(own + before)) for own, before in zip(mu, after, strict=True)]
    same_data = [minus(reduced(sum(nu[1:]))), *nu[1:]]
    by_cell = {
        "noise": noise,
        "used": [minus(reduced(kappa * step)) for step in nu for _ in omega],
        "filled": [reduced(step * row) for step in same_data for row in omega],
        "range_counts": _minus_chi_by(chi[0], opened.alpha, range(1 << 16)),
        "projection_counts": _minus_chi_by(chi[1], opened.alpha, range(2 * sizes.reach + 1)),
        "noise_counts": _minus_chi_by(chi[2], opened.alpha, _bins(shape, powers_of(opened.beta, 9))),
    }
    interpolated = Interpolation(opened.points)
    weights = {name: [interpolated(row) for row in _cell_after_cell(values, sizes)] for name, values in by_cell.items()}
    witness, lookups = sizes.trees[3], sizes.trees[4]["inverses_0"]
    projected_rows, binned = _ceil(witness["projections"], 3), witness["noise"]
    of_inverses = [chi[0]] * (lookups - projected_rows - binned) + [chi[1]] * projected_rows + [chi[2]] * binned

    for number, (at, point) in enumerate(opened):
        contributions = [entry for group in range(len(phi)) for entry in at[f"contributions_{group}"]]
        in_mu, squares = (*contributions, *at["projections"]), reduced(dot(phi, at["squares"]))
        active, found = at["active"][0], pow(point.x, sizes.k // 2, P) * element_of(at["mask_sums"])
        norms = [low + 256 * high for low, high in zip(at["norm_low"], at["norm_high"], strict=True)]
        for x, (nus, mus) in enumerate(blocks):
            lanes = point.lagrange[x * slots : (x + 1) * slots]
            steps = [sum(lanes[start : start + shape.slots]) for start in range(0, slots, shape.slots)]
            by_step, by_slot = reduced(dot(nu, steps)), reduced(dot(mu, lanes))
            found += by_step * reduced(dot(nus, contributions))
            found += by_slot * reduced(dot(mus, in_mu) + squares)
            if x == 0:
                found += by_slot * reduced(dot(phi, ((norm - shape.clip_units**2 * active) % P for norm in norms)))
                found += reduced(dot(used_first, lanes) + kappa * by_step) * active
                found += reduced(kappa_slots * by_slot) * (P - at["last"][0])
        for name, rows in weights.items():
            found += sum(row[number] * entry for row, entry in zip(rows, at[name], strict=True))
        inverses = element_of([reduced(dot(of_inverses, at[f"inverses_{place}"])) for place in range(4)])
        found += reduced(inverses) * (sum(point.lagrange) % P)
        if reduced(found) != sums_at(point.x, target, at["sums_rest"], at["sums_quotient"], sizes.k):
            raise SumsFailed(f"at {point.x}")


def _minus_chi_by(chi: int, alpha: int, table: Iterable[int]) -> list[int]:
    """−χ/(α − v) for each value of a table."""
    try:
        inverses = inverses_of([reduced(alpha + minus(value)) for value in table])
    except ZeroDivisionError:
        raise SumsFailed("α lies in a table") from None
    return [minus(reduced(chi * inverse)) for inverse in inverses]


def _bins(shape: Shape, betas: list[int]) -> Iterator[int]:
    """The noise table: z, ascending, with the words of its least and of its greatest u."""
    table = noise_table(shape.sigma_units)
    for place, (low, above) in enumerate(pairwise([0, *table.thresholds.tolist(), 1 << 64])):
        words = (edge >> shift & 0xFFFF for edge in (low, above - 1) for shift in (0, 16, 32, 48))
        yield reduced(dot(betas, ((place - table.bound) % P, *words)))
