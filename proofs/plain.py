"""What second verifiers share, in plain integers: field, transcript, trees and points of README.md, sections 1, 2, 6.

An element a₀ + a₁X + a₂X² + a₃X³ of K is one integer, Σ aᵢ·2^(96·i). Sums and products of such integers are sums and
products of polynomials while no coefficient is negative or reaches 2⁹⁶; `reduced` brings them back into K. A product
of reduced elements has coefficients below 2⁶⁴, so 2³² of them may be added up before that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256, shake_256
from itertools import accumulate, chain, islice
from operator import mul
from struct import unpack_from

P = 2**31 - 2**24 + 1
_MASK = (1 << 96) - 1
_ZERO = P | P << 96 | P << 192 | P << 288
_TWO_BITS = tuple(tuple(byte >> shift & 3 for shift in (0, 2, 4, 6)) for byte in range(256))


def reduced(value: int) -> int:
    """The element of K: coefficients modulo X⁴ − 3 and p."""
    c0, c1, c2 = (value & _MASK) + 3 * (value >> 384 & _MASK), value >> 96 & _MASK, value >> 192 & _MASK
    c1, c2, c3 = c1 + 3 * (value >> 480 & _MASK), c2 + 3 * (value >> 576), value >> 288 & _MASK
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


def powers_of(base: int, count: int) -> list[int]:
    """base⁰, base¹, …: of an element of F, or of K."""
    return list(accumulate(range(1, count), lambda power, _: reduced(power * base), initial=1))


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
