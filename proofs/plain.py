"""What second verifiers share, in plain integers: sections 1, 2 and 6 of README.md.

Field, transcript, trees, points, and the three equations at an opened column.

An element a₀ + a₁X + a₂X² + a₃X³ of K is one integer, Σ aᵢ·2^(96·i). Sums and products of such integers are sums and
products of polynomials while no coefficient is negative or reaches 2⁹⁴; `reduced` brings them back into K. A product
of reduced elements has coefficients below 2⁶⁴, so 2³⁰ of them may be added up before that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256, shake_256
from itertools import accumulate, chain, islice
from operator import mul
from struct import unpack_from

from proofs.proof import OpeningInvalid, ProofMalformed

P = 2**31 - 2**24 + 1
BASIS = tuple(1 << 96 * place for place in range(4))
_MASK, _LOW = (1 << 96) - 1, (1 << 384) - 1
_ZERO = P | P << 96 | P << 192 | P << 288
_TWO_BITS = tuple(tuple(byte >> shift & 3 for shift in (0, 2, 4, 6)) for byte in range(256))


def reduced(value: int) -> int:
    """The element of K: coefficients modulo X⁴ − 3 and p."""
    value = (value & _LOW) + 3 * (value >> 384)
    c0, c1, c2, c3 = value & _MASK, value >> 96 & _MASK, value >> 192 & _MASK, value >> 288
    return c0 % P | c1 % P << 96 | c2 % P << 192 | c3 % P << 288


def minus(value: int) -> int:
    """Of a reduced element; reduced but for p in the place of zero."""
    return _ZERO - value


def element_of(coefficients: Sequence[int]) -> int:
    return sum(value << 96 * place for place, value in enumerate(coefficients))


def elements_of(words: Sequence[int]) -> list[int]:
    return [element_of(words[start : start + 4]) for start in range(0, len(words), 4)]


def dot(left: Iterable[int], right: Iterable[int]) -> int:
    return sum(map(mul, left, right))


def evaluate(coefficients: list[int], x: int) -> int:
    return reduced(dot(coefficients, powers_of(x, len(coefficients))))


def in_f(element: int) -> bool:
    return element < P


def powers_of(base: int, count: int) -> list[int]:
    """base⁰, base¹, …: of an element of F, or of K."""
    times = (lambda power, _: power * base % P) if in_f(base) else (lambda power, _: reduced(power * base))
    return list(accumulate(range(1, count), times, initial=1))


def inverse_of(element: int) -> int:
    """element^(p⁴ − 2)."""
    result = 1
    for bit in f"{P**4 - 2:b}":
        result = reduced(reduced(result * result) * (element if bit == "1" else 1))
    return result


def inverses_of(elements: list[int]) -> list[int]:
    """1/element for each, by inverting their product. Raises ZeroDivisionError."""
    products = list(accumulate(elements, lambda left, right: reduced(left * right), initial=1))
    if products[-1] == 0:
        raise ZeroDivisionError("zero has no inverse")
    inverse, found = inverse_of(products.pop()), []
    for element, before in zip(reversed(elements), reversed(products), strict=True):
        found.append(reduced(inverse * before))
        inverse = reduced(inverse * element)
    return found[::-1]


def root_of_unity(order: int) -> int:
    return pow(3, (P - 1) // order, P)


Column = tuple[int, ...]  # the entries of all rows at one point


class Transcript:
    """Section 1. What is drawn is for who reads it: elements of K, positions, signs, or the key itself."""

    def __init__(self, protocol: bytes) -> None:
        self._state = sha256(protocol).digest()

    def absorb(self, label: str, data: bytes) -> None:
        name = bytes([len(label)]) + label.encode()
        self._state = sha256(self._state + b"\0" + name + len(data).to_bytes(8, "big") + data).digest()

    def draw(self, label: str) -> bytes:
        key = sha256(self._state + b"\1" + bytes([len(label)]) + label.encode()).digest()
        self._state = sha256(self._state + b"\2" + key).digest()
        return key

    def elements(self, label: str, count: int) -> list[int]:
        return elements_drawn(self.draw(label), count)

    def positions(self, label: str, count: int, below: int) -> list[int]:
        found: set[int] = set()
        words = stream(self.draw(label), count)
        while len(found) < count:
            found.add(next(words) % below)
        return sorted(found)

    def signs(self, label: str, rows: int, columns: int) -> list[list[int]]:
        """Codes of two bits: 0 means 1, 1 means −1, 2 and 3 mean 0."""
        stream = shake_256(self.draw(label)).digest(-(-rows * columns // 4))
        codes = chain.from_iterable(map(_TWO_BITS.__getitem__, stream))
        return [list(islice(codes, columns)) for _ in range(rows)]


def elements_drawn(key: bytes, count: int) -> list[int]:
    words = (word & 0x7FFFFFFF for word in stream(key, 4 * count))
    return elements_of(list(islice((word for word in words if word < P), 4 * count)))


def stream(key: bytes, likely: int) -> Iterator[int]:
    """SHAKE-256(key) as u32 without end."""
    start, stop = 0, likely + likely // 32 + 64
    while True:
        yield from unpack_from(f"<{stop - start}I", shake_256(key).digest(4 * stop), 4 * start)
        start, stop = stop, 2 * stop


def below_p(data: bytes) -> tuple[int, ...]:
    """Elements of F. Raises ProofMalformed."""
    words = unpack_from(f"<{len(data) // 4}I", data)
    if max(words, default=0) >= P:
        raise ProofMalformed("an element is not below p")
    return words


class Messages:
    """The bytes of a proof, taken from the front. Raises ProofMalformed for fewer than its fixed part, or for more than
    that and the longest openings."""

    def __init__(self, proof: bytes, fixed: int, most_hashes: int) -> None:
        if not fixed <= len(proof) <= fixed + 32 * most_hashes:
            raise ProofMalformed(f"{len(proof)} bytes cannot be the {fixed} of a proof and its openings")
        self._rest = memoryview(proof)

    def take(self, count: int) -> bytes:
        taken, self._rest = self._rest[:count], self._rest[count:]
        return bytes(taken)

    def columns(self, positions: list[int], height: int, trees: Iterable[tuple[bytes, int]]) -> list[Column]:
        """Messages 6 and 7: the opened columns, all trees after one another. trees: root and rows of each. Raises
        ProofMalformed or OpeningInvalid."""
        trees = list(trees)
        leaves = [[self.take(16 + 4 * rows) for _ in positions] for _, rows in trees]
        beside = siblings_of(positions, height)
        if len(self._rest) != 32 * len(trees) * beside:
            raise ProofMalformed(f"{len(self._rest)} bytes of openings, where each tree has {beside} hashes")
        found = [
            tuple(chain.from_iterable(below_p(leaf[16:]) for leaf in column)) for column in zip(*leaves, strict=True)
        ]
        for (root, _), tree in zip(trees, leaves, strict=True):
            if root_of(positions, tree, [self.take(32) for _ in range(beside)], height) != root:
                raise OpeningInvalid(f"columns do not lead to the root {root.hex()}")
        return found


def siblings_of(positions: list[int], height: int) -> int:
    """How many hashes an opening lists."""
    known, count = set(positions), 0
    for _ in range(height):
        count += sum(node ^ 1 not in known for node in known)
        known = {node >> 1 for node in known}
    return count


def root_of(positions: list[int], leaves: list[bytes], opening: list[bytes], height: int) -> bytes:
    known = {i: sha256(b"\0" + leaf).digest() for i, leaf in zip(positions, leaves, strict=True)}
    beside = iter(opening)
    for _ in range(height):
        level = known | {node ^ 1: next(beside) for node in known if node ^ 1 not in known}
        parents = dict.fromkeys(node >> 1 for node in known)
        known = {node: sha256(b"\1" + level[2 * node] + level[2 * node + 1]).digest() for node in parents}
    return known[0]


@dataclass(frozen=True)
class Point:
    """A point of the code, and what the polynomials that are 1 at one lane and 0 at the rest of H are there."""

    x: int
    lagrange: list[int]


def points_of(k: int, lanes: int, positions: list[int]) -> list[Point]:
    """L_i(x) = (x^k − 1)/k · 1/(x·ω^(−i) − 1); with x = shift·ω^j it depends on i − j alone, once for each coset."""
    omega, found = root_of_unity(k), list[Point]()
    cosets: dict[int, tuple[int, list[int]]] = {}
    powers = powers_of(pow(omega, -1, P), k)
    for coset, j in (divmod(position, k) for position in positions):
        if coset not in cosets:
            shift = 3 * pow(root_of_unity(8 * k), coset, P) % P
            scale = (pow(shift, k, P) - 1) * pow(k, -1, P)
            cosets[coset] = shift, [scale * pow(shift * power - 1, -1, P) % P for power in powers] * 2
        shift, lagrange = cosets[coset]
        found.append(Point(shift * pow(omega, j, P) % P, lagrange[k - j : k - j + lanes]))
    return found


class Interpolation:
    """What rows are at the points, from what they are on H: at all points at once, side by side in long integers."""

    _BYTES = 11  # 2²⁶ products of elements of F add up to less

    def __init__(self, points: list[Point]) -> None:
        self._length = self._BYTES * len(points)
        by_lane = zip(*(point.lagrange for point in points), strict=True)
        self._lanes = [
            int.from_bytes(b"".join(value.to_bytes(self._BYTES, "little") for value in lane), "little")
            for lane in by_lane
        ]

    def __call__(self, row: Sequence[int]) -> list[int]:
        """At each point. row: reduced elements of K in the first lanes; elsewhere it is zero."""
        coefficients = ([value >> 96 * place & _MASK for value in row] for place in range(4))
        sums = [dot(each, self._lanes).to_bytes(self._length, "little") for each in coefficients]
        begins = range(0, self._length, self._BYTES)
        return [
            element_of([int.from_bytes(each[at : at + self._BYTES], "little") % P for each in sums]) for at in begins
        ]


# The three equations


def proximity_at(x: int, column: Column, mask: int, rest: int, factors: list[int]) -> int:
    """What the polynomial sent is at x. mask, rest: where `mask_proximity` and `sums_rest` begin in a column."""
    found = dot(factors[:-4], column[:mask] + column[mask + 4 :]) + element_of(column[mask : mask + 4])
    return reduced(found + x * reduced(dot(factors[-4:], column[rest : rest + 4])))


def cells_at(x: int, pieces: Sequence[int], k: int, t: int, lanes: int) -> int:
    """Q·Z: what the sum of the cells' identities is at x."""
    starts = 0, k - t, 2 * (k - t), 3 * k - lanes
    q = dot(elements_of(pieces), (pow(x, start, P) for start in starts))
    omega, elsewhere = root_of_unity(k), 1
    root = pow(omega, lanes, P)
    for _ in range(lanes, k):
        elsewhere, root = elsewhere * (x - root) % P, root * omega % P
    return reduced(reduced(q) * ((pow(x, k, P) - 1) * pow(elsewhere, -1, P) % P))


def sums_at(x: int, target: int, rest: Sequence[int], quotient: Sequence[int], k: int) -> int:
    """What the sums are at x, mask included."""
    found = reduced(target) * pow(k, -1, P) + x * element_of(rest) + (pow(x, k, P) - 1) % P * element_of(quotient)
    return reduced(found)


# Values that share a row of inverses


def by_threes(values: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Zeros fill up the last."""
    return ((*values[start : start + 3], 0, 0)[:3] for start in range(0, len(values), 3))


def three_inverted(inverse: int, alphas: list[int], values: tuple[int, ...]) -> int:
    """inverse·(α − v₁)(α − v₂)(α − v₃) less the sum of the products of two: the derivative by α of that of three.

    alphas: 1, α, α², α³.
    """
    a, b, c = values
    e1, e2, e3 = -(a + b + c) % P, (a * b + b * c + c * a) % P, -a * b * c % P
    product, derivative = dot(alphas, (e3, e2, e1, 1)), dot(alphas, (e2, 2 * e1, 3))
    return reduced(inverse * reduced(product) + minus(reduced(derivative)))
