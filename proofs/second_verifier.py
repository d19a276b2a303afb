"""A second verifier of the mechanism's proof, written from README.md alone, in plain integers.

It shares nothing with the first one but `Statement` and the noise table, and takes its time. Whoever doubts the first
asks this one too: what the two do not agree on is a mistake in one of them, or in the text. Sections are README.md's.

An element a₀ + a₁X + a₂X² + a₃X³ of K is one integer, a₀ + a₁·2⁹⁶ + a₂·2¹⁹² + a₃·2²⁸⁸. Sums and products of such
integers are sums and products of polynomials as long as no coefficient reaches 2⁹⁶; `_reduced` brings them back into K.
Products of two reduced elements have coefficients below 2⁶⁴, so that 2³² of them may be added before. None is ever
negative.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256, shake_256
from itertools import accumulate, chain, islice, pairwise
from math import isqrt
from operator import add, mul
from struct import unpack_from

from proofs.errors import LocalFault, PeerFault
from proofs.gaussian import noise_table
from proofs.statement import Shape, Statement

P = 2**31 - 2**24 + 1
_SLOT = 96
_MASK = (1 << _SLOT) - 1
_ALL_P = sum(P << (_SLOT * place) for place in range(4))
_Sections = dict[str, tuple[int, ...]]  # the entries of a column, by the name of their section
_SIGN_CODES = tuple(tuple(byte >> shift & 3 for shift in (0, 2, 4, 6)) for byte in range(256))


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
    """Section 2 makes no proof for a round of these sizes."""


# Section 1: field and transcript


def _reduced(value: int) -> int:
    """The element of K that an integer stands for, modulo X⁴ − 3 and p."""
    low0, low1, low2, low3 = value & _MASK, value >> 96 & _MASK, value >> 192 & _MASK, value >> 288 & _MASK
    high0, high1, high2 = value >> 384 & _MASK, value >> 480 & _MASK, value >> 576
    c0, c1, c2 = (low0 + 3 * high0) % P, (low1 + 3 * high1) % P, (low2 + 3 * high2) % P
    return c0 | c1 << 96 | c2 << 192 | low3 % P << 288


def _minus(element: int) -> int:
    """−element, for one whose coefficients are at most p."""
    return _ALL_P - element


def _packed(coefficients: Sequence[int]) -> int:
    """Σ of coefficients, each times its power of X; coefficients may be integers of any sort that stands for K."""
    return sum(value << (_SLOT * place) for place, value in enumerate(coefficients))


def _dot(left: Iterable[int], right: Iterable[int]) -> int:
    return sum(map(mul, left, right))


def _power(element: int, exponent: int) -> int:
    result = 1
    for bit in bin(exponent)[2:]:
        result = _reduced(result * result)
        if bit == "1":
            result = _reduced(result * element)
    return result


def _inverses(values: list[int]) -> list[int]:
    """1/value for each, by one inversion of them all (Montgomery). Raises SumsRefuted where one is zero."""
    products = list(accumulate(values, lambda left, right: _reduced(left * right), initial=1))
    if products[-1] == 0:
        raise SumsRefuted("α lies in a table")
    inverse, found = _power(products[-1], P**4 - 2), []
    for value, before in zip(reversed(values), reversed(products[:-1]), strict=True):
        found.append(_reduced(inverse * before))
        inverse = _reduced(inverse * value)
    return found[::-1]


def _root_of_unity(order: int) -> int:
    return pow(3, (P - 1) // order, P)


def _powers(base: int, count: int, first: int = 1) -> list[int]:
    return list(accumulate(range(count - 1), lambda power, _: power * base % P, initial=first))


class _Transcript:
    def __init__(self) -> None:
        self._state = sha256(b"candor/mechanism-proof/1").digest()

    def absorb(self, label: str, data: bytes) -> None:
        name = bytes([len(label)]) + label.encode()
        self._state = sha256(self._state + b"\0" + name + len(data).to_bytes(8, "big") + data).digest()

    def _draw(self, label: str) -> bytes:
        key = sha256(self._state + b"\1" + bytes([len(label)]) + label.encode()).digest()
        self._state = sha256(self._state + b"\2" + key).digest()
        return key

    def elements(self, label: str, count: int) -> list[int]:
        """`count` elements of K, packed."""
        words = (word & 0x7FFFFFFF for word in _stream(self._draw(label), 4 * count))
        below = (word for word in words if word < P)
        return [_packed(list(islice(below, 4))) for _ in range(count)]

    def positions(self, label: str, count: int, below: int) -> list[int]:
        found: set[int] = set()
        for word in _stream(self._draw(label), count):
            if len(found) == count:
                break
            found.add(word % below)
        return sorted(found)

    def signs(self, label: str, rows: int, columns: int) -> Iterator[list[int]]:
        """`rows` rows of `columns` codes of two bits; 0 means 1, 1 means −1, 2 and 3 mean 0."""
        stream = shake_256(self._draw(label)).digest(-(-rows * columns // 4))
        codes = chain.from_iterable(map(_SIGN_CODES.__getitem__, stream))
        return (list(islice(codes, columns)) for _ in range(rows))


def _stream(key: bytes, likely: int) -> Iterator[int]:
    """SHAKE-256(key) as little-endian u32 without end; about `likely` of them will be asked for."""
    start, stop = 0, likely + likely // 32 + 64
    while True:
        yield from unpack_from(f"<{stop - start}I", shake_256(key).digest(4 * stop), 4 * start)
        start, stop = stop, 2 * stop


def _statement_digest(statement: Statement, groups: list[int], released: list[list[int]]) -> bytes:
    binding, shape = statement.binding, statement.shape
    head = binding.chain_id.to_bytes(8, "big") + binding.contract + binding.round.to_bytes(8, "big")
    head += bytes([binding.member]) + statement.context + statement.words_root + statement.beacon
    sizes = (shape.steps, shape.capacity, shape.slots, shape.clip_units, shape.sigma_units)
    head += b"".join(size.to_bytes(4, "big") for size in sizes) + shape.sample_threshold.to_bytes(8, "big")
    head += b"".join(size.to_bytes(4, "big") for size in (len(shape.groups), *shape.groups)) + bytes(groups)
    sums = b"".join(value.to_bytes(4, "little", signed=True) for step in released for value in step)
    return sha256(b"candor/mechanism-statement/1\0" + head + sums).digest()


# Sections 2 and 3: sizes and rows


@dataclass(frozen=True)
class _Sizes:
    """k, t, ℓ, h, J, b', bound; the rows of each section, in order, tree after tree; and what is counted."""

    row: int
    queries: int
    lanes: int
    blocks: int
    projections: int
    reach: int
    bound: int
    trees: tuple[dict[str, int], ...]
    lookups: int
    fixed: int

    @property
    def code(self) -> int:
        return 8 * self.row


def _ceil(value: int, unit: int) -> int:
    return -(-value // unit)


def _sizes(shape: Shape) -> _Sizes:
    """Section 2: the row length of the shortest fixed part. Raises SizesRefused."""
    scalars = (shape.steps, shape.capacity, shape.slots, shape.clip_units, shape.sigma_units)
    if not shape.groups or min(scalars + shape.groups) < 1 or not 0 <= shape.sample_threshold <= 1 << 32:
        raise SizesRefused("a round has steps, coordinates, slots, a clip, noise, and a probability of at most one")
    square = len(shape.groups) * shape.clip_units**2
    reach = isqrt(48 * square) + 1
    theta = Fraction(2 * reach**2, P - 2**25 - 1)
    bound = noise_table(shape.sigma_units).bound
    if shape.clip_units > 2048 or theta > Fraction(1, 2) or 2 * (shape.slots * shape.clip_units + bound) >= P:
        raise SizesRefused("clip, groups or slots are beyond what does not wrap")
    base = 2 / (2 + (1 - theta) ** 2)
    factor = _ceil(base.numerator << 256, base.denominator)
    projections, chance = 0, 1 << 256
    while chance > 1 << 256 - 104:
        projections, chance = projections + 1, _ceil(chance * factor, 1 << 256)
    found = [_sizes_for(shape, 1 << log, reach, bound, projections, Fraction(chance, 1 << 256)) for log in range(8, 22)]
    fitting = [sizes for sizes in found if sizes is not None]
    if not fitting:
        raise SizesRefused("no row length up to 2^21 holds the slots of all steps")
    best = min(fitting, key=lambda sizes: sizes.fixed)
    if sum(sum(tree.values()) for tree in best.trees) * best.row > 1 << 27:
        raise SizesRefused("more than 2^27 cells")
    return best


def _sizes_for(shape: Shape, k: int, reach: int, bound: int, projections: int, chance: Fraction) -> _Sizes | None:
    steps, coordinates, total = shape.steps, sum(shape.groups), len(shape.groups)
    for t in range(1, min(k // 2, 201)):
        if 9**t << 100 > 16**t:
            continue
        lanes = k - t
        h = lanes // (steps * shape.slots)
        if h < 1:
            return None
        noise, draws = _ceil(steps * coordinates, lanes), _ceil(steps * shape.capacity, lanes)
        projected = _ceil(projections, h)
        ranged = 16 * noise + 6 * draws + 2 * total
        values = lanes * ranged + 2**16 + lanes * projected + 2 * reach + 1 + 9 * (lanes * noise + 2 * bound + 1) + 8
        if Fraction(9, 16) ** t + Fraction(16 * k + values, P**4) + chance <= Fraction(1, 1 << 100):
            break
    else:
        return None
    rows = [_ceil(size, h) for size in shape.groups]
    if (2 * h * sum(rows) + 1) * reach >= P:
        return None
    lookups = ranged + projected + noise
    trees = (
        {"secret_noise": 4 * noise, "secret_draws": 2 * draws, "filled": draws},
        {
            **{f"contributions_{group}": count for group, count in enumerate(rows)},
            "squares": total,
            "norm_low": total,
            "norm_high": total,
            "active": 1,
            "last": 1,
            "noise": noise,
            "noise_carry": 4 * noise,
            "bin_low": 4 * noise,
            "bin_high": 4 * noise,
            "low_borrow": 3 * noise,
            "high_borrow": 3 * noise,
            "draw_carry": 2 * draws,
            "draw_borrow": draws,
            "drawn": draws,
            "used": draws,
            "range_counts": _ceil(2**16, lanes),
            "noise_counts": _ceil(2 * bound + 1, lanes),
        },
        {"projections": projected, "projection_counts": _ceil(2 * reach + 1, lanes)},
        {
            **{f"inverses_{place}": lookups for place in range(4)},
            "mask_proximity": 4,
            "mask_cells": 12,
            "mask_sums": 12,
        },
    )
    columns = sum(16 + 4 * sum(tree.values()) for tree in trees)
    fixed = 3 * 32 + 16 * (k + k + t + 2 * k - 1) + t * columns
    return _Sizes(k, t, lanes, h, projections, reach, bound, trees, lookups, fixed)


# Section 6: the messages


@dataclass(frozen=True)
class _Column:
    """An opened column: its point, its entries (of all trees, in order), and L_i(point) for the lanes i of H."""

    point: int
    entries: tuple[int, ...]
    lagrange: list[int]


def verify(statement: Statement, proof: bytes) -> None:
    """Returns when `proof` proves `statement`; raises one of the Refuted otherwise, SizesRefused before any of them."""
    sizes, shape = _sizes(statement.shape), statement.shape
    released: list[list[int]] = statement.released.tolist()
    groups: list[int] = statement.group_of.tolist()
    largest = shape.slots * shape.clip_units + sizes.bound
    if max(max(map(abs, step)) for step in released) > largest:
        raise SumTooLarge(f"a released sum is beyond {largest}")
    height = sizes.code.bit_length() - 1
    if not sizes.fixed <= len(proof) <= sizes.fixed + 4 * 32 * height * sizes.queries:
        raise Malformed(f"a proof of {len(proof)} bytes has no room for {sizes.fixed} and its openings, or too much")

    k, t, at = sizes.row, sizes.queries, 0

    def take(count: int) -> bytes:
        nonlocal at
        at += count
        return proof[at - count : at]

    witness, projections, lookups = take(32), take(32), take(32)
    sent = [(label, take(16 * count)) for label, count in (("proximity", k), ("cells", k + t), ("sums", 2 * k - 1))]
    polynomials = {label: _polynomial(data) for label, data in sent}

    transcript = _Transcript()
    transcript.absorb("statement", _statement_digest(statement, groups, released))
    transcript.absorb("witness", witness)
    width = sizes.blocks * sum(_ceil(size, sizes.blocks) for size in shape.groups)
    signs = list(transcript.signs("projections", sizes.projections, width))
    transcript.absorb("projections", projections)
    alpha, beta = transcript.elements("tables", 2)
    transcript.absorb("lookups", lookups)
    masked = sum(sum(tree.values()) for tree in sizes.trees) - 4
    for_proximity = transcript.elements("proximity", masked)
    for_cells = transcript.elements("cells", _identities(sizes))
    for_sums = transcript.elements("sums", _factors(shape, sizes))
    for label, data in sent:
        transcript.absorb(label, data)
    positions = transcript.positions("columns", t, sizes.code)

    widths = [sum(tree.values()) for tree in sizes.trees]
    columns = [[take(16 + 4 * width) for _ in range(t)] for width in widths]
    needed = _siblings(positions, height)
    if len(proof) != at + 4 * 32 * needed:
        raise Malformed(f"{len(proof) - at} bytes of openings, where the positions ask for 4·32·{needed}")
    entries = [tuple(chain(*(_entries(tree[i]) for tree in columns))) for i in range(t)]
    for root, leaves in zip((statement.words_root, witness, projections, lookups), columns, strict=True):
        hashes = [take(32) for _ in range(needed)]
        if _root(positions, [sha256(b"\0" + leaf).digest() for leaf in leaves], hashes, height) != root:
            raise OpeningRefuted(f"a tree's columns do not lead to {root.hex()}")

    opened = _opened(sizes, positions, entries)
    _check_proximity(sizes, opened, for_proximity, polynomials["proximity"])
    _check_cells(statement, sizes, opened, for_cells, alpha, beta, polynomials["cells"])
    _check_sums(statement, sizes, opened, for_sums, signs, alpha, beta, polynomials["sums"])


def _polynomial(data: bytes) -> list[int]:
    words = unpack_from(f"<{len(data) // 4}I", data)
    if max(words) >= P:
        raise Malformed("a coefficient is not below p")
    return [_packed(words[i : i + 4]) for i in range(0, len(words), 4)]


def _entries(leaf: bytes) -> tuple[int, ...]:
    """A leaf is salt (16 bytes), then entries."""
    words = unpack_from(f"<{len(leaf) // 4 - 4}I", leaf, 16)
    if max(words) >= P:
        raise Malformed("an entry of a column is not below p")
    return words


def _siblings(positions: list[int], height: int) -> int:
    """How many hashes an opening lists."""
    known, count = set(positions), 0
    for _ in range(height):
        count += sum(1 for node in known if node ^ 1 not in known)
        known = {node >> 1 for node in known}
    return count


def _root(positions: list[int], leaves: list[bytes], hashes: list[bytes], height: int) -> bytes:
    known, beside = dict(zip(positions, leaves, strict=True)), iter(hashes)
    for _ in range(height):
        siblings = {node ^ 1: next(beside) for node in sorted(known) if node ^ 1 not in known}
        level = known | siblings
        known = {
            node: sha256(b"\1" + level[2 * node] + level[2 * node + 1]).digest()
            for node in sorted({below >> 1 for below in known})
        }
    return known[0]


def _opened(sizes: _Sizes, positions: list[int], entries: list[tuple[int, ...]]) -> list[_Column]:
    """Points of the code, and Lagrange's polynomials there: L_i(x) = (x^k − 1)/k · 1/(x·ω^−i − 1).

    With x = 3·ω_n^c·ω^j that depends on c and i − j alone, so one table serves all columns of a coset.
    """
    k, omega, cosets, opened = sizes.row, _root_of_unity(sizes.row), {}, []
    for position, column in zip(positions, entries, strict=True):
        coset, j = divmod(position, k)
        shift = 3 * pow(_root_of_unity(sizes.code), coset, P) % P
        if coset not in cosets:
            scale = (pow(shift, k, P) - 1) * pow(k, -1, P) % P
            cosets[coset] = [
                scale * pow(point - 1, -1, P) % P for point in _powers(pow(omega, -1, P), k, first=shift)
            ] * 2
        lagrange = cosets[coset][k - j : k - j + sizes.lanes]
        opened.append(_Column(shift * pow(omega, j, P) % P, column, lagrange))
    return opened


def _sections(sizes: _Sizes, entries: tuple[int, ...]) -> _Sections:
    """A column's entries by the name of their section."""
    found, at = {}, 0
    for name, rows in chain.from_iterable(tree.items() for tree in sizes.trees):
        found[name] = entries[at : at + rows]
        at += rows
    return found


def _mask(pieces: tuple[int, ...], x: int, k: int) -> int:
    """A + x^(k/2)·B + x^k·C."""
    a, b, c = (_packed(pieces[start : start + 4]) for start in (0, 4, 8))
    return a + pow(x, k // 2, P) * b + pow(x, k, P) * c


def _check_proximity(sizes: _Sizes, opened: list[_Column], factors: list[int], polynomial: list[int]) -> None:
    start = sum(sum(tree.values()) for tree in sizes.trees[:3]) + 4 * sizes.lookups
    for column in opened:
        combined = column.entries[:start] + column.entries[start + 4 :]
        found = _dot(factors, combined) + _packed(column.entries[start : start + 4])
        if _reduced(found) != _reduced(_dot(polynomial, _powers(column.point, len(polynomial)))):
            raise ProximityRefuted(f"at {column.point}")


# Section 4


def _identities(sizes: _Sizes) -> int:
    rows = {name: count for tree in sizes.trees for name, count in tree.items()}
    return sum(rows[name] for name in _BITS) + rows["used"] + rows["squares"] + sizes.lookups


_BITS = (
    *("active", "last", "noise_carry", "low_borrow", "high_borrow"),
    *("draw_carry", "draw_borrow", "drawn", "filled"),
)


def _check_cells(
    statement: Statement,
    sizes: _Sizes,
    opened: list[_Column],
    factors: list[int],
    alpha: int,
    beta: int,
    sent: list[int],
) -> None:
    """The combination and its mask are `cells`(x)·Z(x)."""
    k, public = sizes.row, _public_words(statement, sizes)
    betas, random_points = _powers_in_k(beta, 9), _powers(_root_of_unity(k), k)[sizes.lanes :]
    for column in opened:
        x, at = column.point, _sections(sizes, column.entries)
        values = [bit * (bit - 1) % P for name in _BITS for bit in at[name]]
        for drawn, filled, used in zip(at["drawn"], at["filled"], at["used"], strict=True):
            values.append((drawn * filled - used) % P)
        for group, square in enumerate(at["squares"]):
            values.append((_dot(at[f"contributions_{group}"], at[f"contributions_{group}"]) - square) % P)
        noise, draws = ([_dot(row, column.lagrange) for row in rows] for rows in public)
        looked_up = _looked_up(statement.shape, sizes, at, noise, draws)
        differences = [alpha + _minus(value % P) for value in looked_up]
        differences += [alpha + _minus(value) for value in _binned(at, betas)]
        for row, difference in enumerate(differences):
            inverse = _packed([at[f"inverses_{place}"][row] for place in range(4)])
            values.append(_reduced(inverse * difference) + P - 1)
        found = _dot(factors, values) + _mask(at["mask_cells"], x, k)
        divisor = 1
        for point in random_points:
            divisor = divisor * (x - point) % P
        vanishing = (pow(x, k, P) - 1) * pow(divisor, -1, P) % P
        if _reduced(found) != _reduced(_reduced(_dot(sent, _powers(x, len(sent)))) * vanishing):
            raise CellsRefuted(f"at {x}")


def _public_words(statement: Statement, sizes: _Sizes) -> tuple[list[list[int]], list[list[int]]]:
    """b in rows, of the noise and of the draws: word 0 cell after cell, then the others."""
    binding, shape = statement.binding, statement.shape
    name = binding.chain_id.to_bytes(8, "big") + binding.contract + binding.round.to_bytes(8, "big")
    name += bytes([binding.member]) + statement.beacon
    rows: list[list[list[int]]] = []
    for label, count in ((b"candor/public-noise/1\0", 4), (b"candor/public-draws/1\0", 2)):
        words: list[int] = []
        number = count * (sum(shape.groups) if count == 4 else shape.capacity)
        for step in range(shape.steps):
            message = label + name + step.to_bytes(4, "big") + number.to_bytes(4, "big")
            words += unpack_from(f"<{number}H", shake_256(message).digest(2 * number))
        rows.append([row for word in range(count) for row in _cell_after_cell(words[word::count], sizes)])
    return rows[0], rows[1]


def _cell_after_cell(values: list[int], sizes: _Sizes) -> list[list[int]]:
    return [values[start : start + sizes.lanes] for start in range(0, len(values), sizes.lanes)]


def _looked_up(shape: Shape, sizes: _Sizes, at: _Sections, noise: list[int], draws: list[int]) -> list[int]:
    """Every value looked up in the ranges and among the projections, as integers modulo p, at one column."""
    rows, days = len(at["noise"]), len(at["drawn"])

    def combined(secret: str, public: list[int], carry: str) -> list[int]:
        return [s + b - (c << 16) for s, b, c in zip(at[secret], public, at[carry], strict=True)]

    def difference(left: Sequence[int], right: Sequence[int], borrow: Sequence[int]) -> list[int]:
        """Word after word: left − right + 2^16·borrow − the borrow of the word below."""
        own, below = (*borrow, *[0] * rows), (*[0] * rows, *borrow)
        return [u - v + (b << 16) - c for u, v, b, c in zip(left, right, own, below, strict=True)]

    u = combined("secret_noise", noise, "noise_carry")
    d = combined("secret_draws", draws, "draw_carry")
    high, low = divmod(shape.sample_threshold, 1 << 16)
    return [
        *at["secret_noise"],
        *u,
        *difference(u, at["bin_low"], at["low_borrow"]),
        *difference(at["bin_high"], u, at["high_borrow"]),
        *at["secret_draws"],
        *d,
        *(value - low + (borrow << 16) for value, borrow in zip(d[:days], at["draw_borrow"], strict=True)),
        *(
            value - high - borrow + (drawn << 16)
            for value, borrow, drawn in zip(d[days:], at["draw_borrow"], at["drawn"], strict=True)
        ),
        *at["norm_low"],
        *at["norm_high"],
        *(y + sizes.reach for y in at["projections"]),
    ]


def _binned(at: _Sections, betas: list[int]) -> list[int]:
    """z + β·low_0 + … + β⁸·high_3 for each row of the noise."""
    rows = len(at["noise"])
    tuples = ((z, *at["bin_low"][row::rows], *at["bin_high"][row::rows]) for row, z in enumerate(at["noise"]))
    return [_reduced(_dot(betas, words)) for words in tuples]


# Section 5


def _factors(shape: Shape, sizes: _Sizes) -> int:
    """How many elements of K the sum identities draw."""
    slots = shape.steps * shape.slots
    return shape.steps + slots + sum(shape.groups) + sizes.projections + shape.capacity + len(shape.groups) + 5


def _check_sums(
    statement: Statement,
    sizes: _Sizes,
    opened: list[_Column],
    drawn: list[int],
    signs: Iterable[list[int]],
    alpha: int,
    beta: int,
    sent: list[int],
) -> None:
    """The weighted sum of a column's entries and its mask are c₀ + x·`sums`(x)."""
    shape, k, h = statement.shape, sizes.row, sizes.blocks
    slots, factor = shape.steps * shape.slots, iter(drawn)
    counts = (shape.steps, slots, sum(shape.groups), sizes.projections, shape.capacity, len(shape.groups))
    nu, mu, rho, tau, omega, phi = (list(islice(factor, count)) for count in counts)
    kappa, kappa_slots, *chi = factor

    order = sorted(range(len(rho)), key=statement.group_of.tolist().__getitem__)
    rho_of = dict(zip(order, rho, strict=True))
    cells = [_reduced(step * rho_of[j]) for step in nu for j in range(len(rho))]
    sums = [value % P for step in statement.released.tolist() for value in step]
    target = _reduced(_dot(cells, sums))

    # By block: what contributions are multiplied by beside ν, and contributions and projections beside μ.
    of_group, released = iter(rho), []
    for size in shape.groups:
        released += [*islice(of_group, size), *[0] * (-size % h)]
    projected = [0] * len(released)
    for element, row in zip(tau, signs, strict=True):
        projected = list(map(add, projected, map((element, _minus(element), 0, 0).__getitem__, row)))
    minus_projected = [_minus(_reduced(value)) for value in projected]
    padded = [*tau, *[0] * (-len(tau) % h)]
    by_block = [(released[x::h], [*minus_projected[x::h], *padded[x::h]]) for x in range(h)]

    followed = [_reduced(m + (_minus(mu[a - 1]) if a % shape.slots else 0)) for a, m in enumerate(mu)]
    not_kappa = [_minus(_reduced(kappa * step)) for step in nu]
    same = [_minus(_reduced(sum(nu[1:]))), *nu[1:]]
    sections = {
        "noise": cells,
        "used": [step for step in not_kappa for _ in omega],
        "filled": [_reduced(step * row) for step in same for row in omega],
        "range_counts": _table_weights(chi[0], alpha, range(1 << 16)),
        "projection_counts": _table_weights(chi[1], alpha, range(2 * sizes.reach + 1)),
        "noise_counts": _table_weights(chi[2], alpha, _bins(shape, _powers_in_k(beta, 9))),
    }
    weights = {name: _cell_after_cell(values, sizes) for name, values in sections.items()}
    projections, bins = sizes.trees[2]["projections"], sizes.trees[1]["noise"]
    of_inverses = [chi[0]] * (sizes.lookups - projections - bins) + [chi[1]] * projections + [chi[2]] * bins

    constant = _reduced(target * pow(k, -1, P) + _minus(sent[k - 1]))
    for column in opened:
        at, lanes = _sections(sizes, column.entries), column.lagrange
        contributions = [value for group in range(len(phi)) for value in at[f"contributions_{group}"]]
        squares = _reduced(_dot(phi, at["squares"]))
        found = 0
        for x, (rhos, taus) in enumerate(by_block):
            here = lanes[x * slots : (x + 1) * slots]
            of_steps = [sum(here[start : start + shape.slots]) % P for start in range(0, slots, shape.slots)]
            in_steps, in_slots = _reduced(_dot(nu, of_steps)), _reduced(_dot(mu, here))
            found += in_steps * _reduced(_dot(rhos, contributions))
            found += in_slots * _reduced(_dot(taus, [*contributions, *at["projections"]]) + squares)
            if x == 0:
                active, last = at["active"][0], at["last"][0]
                norms = [
                    low + 256 * high - shape.clip_units**2 * active
                    for low, high in zip(at["norm_low"], at["norm_high"], strict=True)
                ]
                found += in_slots * _reduced(_dot(phi, [norm % P for norm in norms]))
                used_first = _reduced(_dot(followed, here)) * active + in_slots * (P - last)
                found += kappa_slots * _reduced(used_first) + _reduced(kappa * in_steps) * active
        for name, rows in weights.items():
            for row, entry in zip(rows, at[name], strict=True):
                found += _reduced(_dot(row, lanes)) * entry
        everywhere = sum(lanes) % P
        for place in range(4):
            found += (_reduced(_dot(of_inverses, at[f"inverses_{place}"])) * everywhere) << (_SLOT * place)
        found += _mask(at["mask_sums"], column.point, k)
        expected = constant + column.point * _reduced(_dot(sent, _powers(column.point, len(sent))))
        if _reduced(found) != _reduced(expected):
            raise SumsRefuted(f"at {column.point}")


def _powers_in_k(element: int, count: int) -> list[int]:
    return list(accumulate(range(count - 1), lambda power, _: _reduced(power * element), initial=1))


def _bins(shape: Shape, betas: list[int]) -> list[int]:
    """The noise table as elements of K: z with the words of its least and its greatest u, z ascending."""
    table = noise_table(shape.sigma_units)
    thresholds: list[int] = table.thresholds.tolist()
    bins = []
    for place, (low, above) in enumerate(pairwise([0, *thresholds, 1 << 64])):
        words = [edge >> shift & 0xFFFF for edge in (low, above - 1) for shift in (0, 16, 32, 48)]
        bins.append(_reduced(_dot(betas, [(place - table.bound) % P, *words])))
    return bins


def _table_weights(chi: int, alpha: int, table: Iterable[int]) -> list[int]:
    """−χ/(α − v) for each v of a table."""
    inverses = _inverses([_reduced(alpha + _minus(value)) for value in table])
    return [_minus(_reduced(chi * inverse)) for inverse in inverses]
