"""A second verifier of the mechanism's proof, written from README.md alone, in plain integers.

It shares nothing with the first but `Statement` and the noise table, and takes its time. What the two do not agree on
is a mistake in one of them, or in the text. Sections are those of README.md's "The proof of M".
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

from proofs.errors import LocalFault, PeerFault
from proofs.gaussian import noise_table
from proofs.plain import (
    P,
    Point,
    Transcript,
    dot,
    element_of,
    elements_of,
    evaluate,
    inverses_of,
    minus,
    points_of,
    powers_of,
    reduced,
    root_of,
    root_of_unity,
    siblings_of,
)
from proofs.statement import Shape, Statement

_BITS = (
    *("active", "last", "noise_carry", "low_borrow", "high_borrow"),
    *("draw_carry", "draw_borrow", "drawn", "filled"),
)
_Column = dict[str, tuple[int, ...]]  # the entries of an opened column, by section


class Refuted(PeerFault):
    """This is no proof of the statement."""


class SumTooLarge(Refuted):
    """A released sum is larger than B contributions and the loudest noise."""


class Malformed(Refuted):
    """The proof has another length than it should, or an element of it is not below p."""


class OpeningRefuted(Refuted):
    """Columns and hashes do not lead to a root."""


class ProximityRefuted(Refuted):
    """`proximity` is not the combination of the rows at an opened column."""


class CellsRefuted(Refuted):
    """`cells` is not the sum of section 4 at an opened column."""


class SumsRefuted(Refuted):
    """`sums` is not the sum of section 5 at an opened column."""


class SizesRefused(LocalFault):
    """Section 2 has no proof for a round of these sizes."""


def verify(statement: Statement, proof: bytes) -> None:
    """Section 6. Returns when `proof` proves `statement`; SizesRefused, or the first of the Refuted, otherwise."""
    sizes, shape = _sizes(statement.shape), statement.shape
    largest = shape.slots * shape.clip_units + sizes.bound
    if any(abs(value) > largest for step in statement.released.tolist() for value in step):
        raise SumTooLarge(f"a released sum is beyond {largest}")
    k, t, height, at = sizes.k, sizes.t, sizes.k.bit_length() + 2, 0
    if not sizes.fixed <= len(proof) <= sizes.fixed + 6 * 32 * height * t:
        raise Malformed(f"{len(proof)} bytes cannot be the {sizes.fixed} of a proof and its openings")

    def take(count: int) -> bytes:
        nonlocal at
        at += count
        return proof[at - count : at]

    roots = {label: take(32) for label in ("witness", "slots", "projections", "lookups")}
    counts = {"proximity": k, "cells": 2 * k - sizes.lanes, "sums": 2 * k - 1}
    sent = {name: take(16 * count) for name, count in counts.items()}
    polynomials = {name: elements_of(_below_p(data)) for name, data in sent.items()}
    transcript = Transcript(b"candor/mechanism-proof/1")
    transcript.absorb("statement", _statement_digest(statement))
    transcript.absorb("witness", roots["witness"])
    transcript.absorb("slots", roots["slots"])
    signs = transcript.signs("projections", sizes.projections, sizes.h * sizes.contribution_rows)
    transcript.absorb("projections", roots["projections"])
    alpha, beta = transcript.elements("tables", 2)
    transcript.absorb("lookups", roots["lookups"])
    widths = [sum(tree.values()) for tree in sizes.trees]
    factors = {
        "proximity": transcript.elements("proximity", sum(widths) - 4),
        "cells": transcript.elements("cells", sizes.identities),
        "sums": transcript.elements("sums", sum(_factors(shape, sizes)) + 5),
    }
    for name, data in sent.items():
        transcript.absorb(name, data)
    positions = transcript.positions("columns", t, 8 * k)
    leaves = [[take(16 + 4 * width) for _ in positions] for width in widths]
    beside = siblings_of(positions, height)
    if len(proof) != at + 6 * 32 * beside:
        raise Malformed(f"{len(proof) - at} bytes of openings, where these columns have six times {beside} hashes")
    entries = [
        tuple(chain.from_iterable(_below_p(leaf[16:]) for leaf in column)) for column in zip(*leaves, strict=True)
    ]
    for root, tree in zip((statement.words_root, statement.data_root, *roots.values()), leaves, strict=True):
        if root_of(positions, tree, [take(32) for _ in range(beside)], height) != root:
            raise OpeningRefuted(f"columns do not lead to the root {root.hex()}")
    columns = [_by_section(sizes, column) for column in entries]
    opened = _Opened(statement, sizes, alpha, beta, columns, points_of(sizes.k, sizes.lanes, positions))
    _check_proximity(opened, factors["proximity"], polynomials["proximity"])
    _check_cells(opened, factors["cells"], polynomials["cells"])
    _check_sums(opened, factors["sums"], signs, polynomials["sums"])


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
    """k, t, ℓ, h, J, b', the noise table's bound; ΣR_g, L, number of factors of section 4; rows by tree and section."""

    k: int
    t: int
    lanes: int
    h: int
    projections: int
    reach: int
    bound: int
    contribution_rows: int
    lookups: int
    identities: int
    trees: tuple[dict[str, int], ...]

    @property
    def fixed(self) -> int:
        """Bytes of messages 1 to 7."""
        columns = sum(16 + 4 * sum(tree.values()) for tree in self.trees)
        return 4 * 32 + 16 * (5 * self.k - self.lanes - 1) + self.t * columns


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
    found = [_sizes_of(shape, 1 << log, reach, projections, Fraction(chance, one)) for log in range(8, 22)]
    fitting = [sizes for sizes in found if sizes is not None]
    if not fitting:
        raise SizesRefused("no row length holds the slots of all steps")
    best = min(fitting, key=lambda sizes: sizes.fixed)
    if best.k * sum(sum(tree.values()) for tree in best.trees) > 1 << 27:
        raise SizesRefused("more than 2^27 cells")
    return best


def _sizes_of(shape: Shape, k: int, reach: int, projections: int, chance: Fraction) -> _Sizes | None:
    t, bound, groups = 0, noise_table(shape.sigma_units).bound, len(shape.groups)
    constant = 16 * k + 2**16 + 2 * reach + 1 + 9 * (2 * bound + 1) + 8
    further = 128 * shape.openings
    left, values = P**4 * (Fraction(1, 1 << 100) - chance) - constant, 1
    while True:
        t = max(t + 1, k - further - left // values)  # more random points never make fewer rows
        lanes = k - t - further
        if t + further >= k // 2 or t > 200 or lanes < shape.steps * shape.slots:
            return None
        h = lanes // (shape.steps * shape.slots)
        noise, draws = _ceil(shape.steps * sum(shape.groups), lanes), _ceil(shape.steps * shape.capacity, lanes)
        projected = _ceil(projections, h)
        lookups = 17 * noise + 6 * draws + 2 * groups + projected
        values = lookups + 8 * noise
        if P**4 * Fraction(9, 16) ** t <= left - lanes * values:
            break
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
    trees = (
        {"secret_noise": 4 * noise, "secret_draws": 2 * draws},
        {"filled": draws, "texts": _ceil((shape.tokens + 2) * shape.capacity, lanes)},
        witness,
        contributions | {"active": 1, "used": draws},
        {"projections": projected, "projection_counts": _ceil(2 * reach + 1, lanes)},
        {f"inverses_{place}": lookups for place in range(4)} | {"mask_proximity": 4, "mask_cells": 12, "mask_sums": 12},
    )
    rows = {name: count for tree in trees for name, count in tree.items()}
    identities = sum(rows[name] for name in _BITS) + draws + groups + lookups
    return _Sizes(k, t, lanes, h, projections, reach, bound, contribution_rows, lookups, identities, trees)


def _ceil(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


def _below_p(data: bytes) -> tuple[int, ...]:
    words = unpack_from(f"<{len(data) // 4}I", data)
    if max(words) >= P:
        raise Malformed("an element is not below p")
    return words


def _by_section(sizes: _Sizes, entries: tuple[int, ...]) -> _Column:
    rest = iter(entries)
    return {name: tuple(islice(rest, rows)) for tree in sizes.trees for name, rows in tree.items()}


@dataclass(frozen=True)
class _Opened:
    """What the three checks look at."""

    statement: Statement
    sizes: _Sizes
    alpha: int
    beta: int
    columns: list[_Column]
    points: list[Point]

    def __iter__(self) -> Iterator[tuple[_Column, Point]]:
        return zip(self.columns, self.points, strict=True)

    def mask(self, pieces: tuple[int, ...], x: int) -> int:
        """A + x^(k/2)·B + x^k·C."""
        a, b, c = elements_of(pieces)
        return a + pow(x, self.sizes.k // 2, P) * b + pow(x, self.sizes.k, P) * c


def _cell_after_cell(values: Sequence[int], sizes: _Sizes) -> list[Sequence[int]]:
    return [values[start : start + sizes.lanes] for start in range(0, len(values), sizes.lanes)]


def _check_proximity(opened: _Opened, factors: list[int], sent: list[int]) -> None:
    for at, point in opened:
        combined = chain.from_iterable(entries for name, entries in at.items() if name != "mask_proximity")
        if reduced(dot(factors, combined) + element_of(at["mask_proximity"])) != evaluate(sent, point.x):
            raise ProximityRefuted(f"at {point.x}")


# Section 4: cell identities


def _check_cells(opened: _Opened, factors: list[int], sent: list[int]) -> None:
    shape, sizes = opened.statement.shape, opened.sizes
    public_noise, public_draws = _public_rows(opened, b"noise", 4), _public_rows(opened, b"draws", 2)
    random_points = [pow(root_of_unity(sizes.k), j, P) for j in range(sizes.lanes, sizes.k)]
    betas = powers_of(opened.beta, 9)
    for at, point in opened:
        noise, draws = ([dot(row, point.lagrange) for row in rows] for rows in (public_noise, public_draws))
        values = [bit * (bit - 1) for name in _BITS for bit in at[name]]
        values += [d * f - u for d, f, u in zip(at["drawn"], at["filled"], at["used"], strict=True)]
        rows = (at[f"contributions_{group}"] for group in range(len(shape.groups)))
        values += [dot(row, row) - square for row, square in zip(rows, at["squares"], strict=True)]
        differences = [opened.alpha + -value % P for value in _ranged(shape, sizes, at, noise, draws)]
        differences += [opened.alpha + minus(value) for value in _binned(at, betas)]
        inverses = map(element_of, zip(*(at[f"inverses_{place}"] for place in range(4)), strict=True))
        lookups = [reduced(i * d) + P - 1 for i, d in zip(inverses, differences, strict=True)]
        found = dot(factors, [*(value % P for value in values), *lookups]) + opened.mask(at["mask_cells"], point.x)
        divisor = 1
        for root in random_points:
            divisor = divisor * (point.x - root) % P
        vanishing = (pow(point.x, sizes.k, P) - 1) * pow(divisor, -1, P) % P
        if reduced(found) != reduced(evaluate(sent, point.x) * vanishing):
            raise CellsRefuted(f"at {point.x}")


def _public_rows(opened: _Opened, kind: bytes, width: int) -> list[Sequence[int]]:
    """b, laid out like s."""
    statement, shape, words = opened.statement, opened.statement.shape, list[int]()
    number = width * (sum(shape.groups) if kind == b"noise" else shape.capacity)
    for step in range(shape.steps):
        message = b"candor/public-%b/1\0" % kind + _binding(statement) + statement.beacon
        message += step.to_bytes(4, "big") + number.to_bytes(4, "big")
        words += unpack_from(f"<{number}H", shake_256(message).digest(2 * number))
    return [row for word in range(width) for row in _cell_after_cell(words[word::width], opened.sizes)]


def _ranged(shape: Shape, sizes: _Sizes, at: _Column, noise: list[int], draws: list[int]) -> Iterator[int]:
    """What is looked up in the ranges and among the projections, row after row."""
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
    yield from (y + sizes.reach for y in at["projections"])


def _binned(at: _Column, betas: list[int]) -> Iterator[int]:
    """z + β·low_0 + … + β⁸·high_3 for each row of the noise."""
    rows = len(at["noise"])
    for row, z in enumerate(at["noise"]):
        yield reduced(dot(betas, (z, *at["bin_low"][row::rows], *at["bin_high"][row::rows])))


# Section 5: sum identities


def _factors(shape: Shape, sizes: _Sizes) -> tuple[int, ...]:
    """How many of ν, μ, ρ, τ, ω and φ are drawn before κ, κ', χ_1, χ_2 and χ_3."""
    slots, coordinates = shape.steps * shape.slots, sum(shape.groups)
    return shape.steps, slots, coordinates, sizes.projections, shape.capacity, len(shape.groups)


def _check_sums(opened: _Opened, drawn: list[int], signs: list[list[int]], sent: list[int]) -> None:
    shape, sizes, h = opened.statement.shape, opened.sizes, opened.sizes.h
    factor, slots = iter(drawn), shape.steps * shape.slots
    nu, mu, rho, tau, omega, phi = (list(islice(factor, count)) for count in _factors(shape, sizes))
    kappa, kappa_slots, *chi = factor

    # ρ comes group after group, noise and released sums in the order of the coordinates.
    grouped = sorted(range(len(rho)), key=opened.statement.group_of.tolist().__getitem__)
    rho_of = dict(zip(grouped, rho, strict=True))
    noise = [reduced(step * rho_of[j]) for step in nu for j in range(len(rho))]
    target = dot(noise, (value % P for step in opened.statement.released.tolist() for value in step))
    constant = reduced(reduced(target) * pow(sizes.k, -1, P) + minus(sent[sizes.k - 1]))

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
    weights = {name: _cell_after_cell(values, sizes) for name, values in by_cell.items()}
    looked_up = sizes.trees[4]["projections"], sizes.trees[2]["noise"]
    of_inverses = [chi[0]] * (sizes.lookups - sum(looked_up)) + [chi[1]] * looked_up[0] + [chi[2]] * looked_up[1]

    for at, point in opened:
        contributions = [entry for group in range(len(phi)) for entry in at[f"contributions_{group}"]]
        in_mu, squares = (*contributions, *at["projections"]), reduced(dot(phi, at["squares"]))
        active, found = at["active"][0], opened.mask(at["mask_sums"], point.x)
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
            found += sum(reduced(dot(row, point.lagrange)) * entry for row, entry in zip(rows, at[name], strict=True))
        inverses = element_of([reduced(dot(of_inverses, at[f"inverses_{place}"])) for place in range(4)])
        found += reduced(inverses) * (sum(point.lagrange) % P)
        if reduced(found) != reduced(constant + point.x * evaluate(sent, point.x)):
            raise SumsRefuted(f"at {point.x}")


def _minus_chi_by(chi: int, alpha: int, table: Iterable[int]) -> list[int]:
    """−χ/(α − v) for each value of a table."""
    try:
        inverses = inverses_of([reduced(alpha + minus(value)) for value in table])
    except ZeroDivisionError:
        raise SumsRefuted("α lies in a table") from None
    return [minus(reduced(chi * inverse)) for inverse in inverses]


def _bins(shape: Shape, betas: list[int]) -> Iterator[int]:
    """The noise table: z, ascending, with the words of its least and of its greatest u."""
    table = noise_table(shape.sigma_units)
    for place, (low, above) in enumerate(pairwise([0, *table.thresholds.tolist(), 1 << 64])):
        words = (edge >> shift & 0xFFFF for edge in (low, above - 1) for shift in (0, 16, 32, 48))
        yield reduced(dot(betas, ((place - table.bound) % P, *words)))
