"""Fingerprints of a computation, in the manner of TOPLOC (Ong et al. 2025): its largest activations, and their places.

A fingerprint binds an answer to the model that gave it. Of every 32 answered positions (of a text to classify: of its
one pooled state) it holds the k entries of the last hidden states that are largest in magnitude: where they are, and
their values as 16-bit parts of the largest. Who has the same base, bundle and prompt computes the states again, all
positions at once, and `compare` gives their distance: about 1e-6 when only the order of additions differs, and far
more when a weight, a bit width or a word of the prompt does (benchmarks/fingerprints.py measures both).

It also holds the answer's tokens, since a text alone does not say how a tokenizer cut it.

What it shows: that whoever made it had these states. It is no proof for somebody without the base; and a server that
runs the true model beside another, and answers by the other, is found by the tokens and not by the states.

    version ‖ kind ‖ width ‖ k ‖ n, then n tokens, then for each window: scale ‖ k gaps between places ‖ k values

Numbers are LEB128 but scale (float32, big-endian) and values (int16, big-endian). One fingerprint has one sequence of
bytes: everything else is refused.

    PeerFault
    └── FingerprintMalformed
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from proofs.errors import PeerFault

VERSION: Final = 1
WINDOW: Final = 32
LARGEST: Final = 128
PARTS: Final = (1 << 15) - 1
MAX_WIDTH: Final = 1 << 16
MAX_TOKENS: Final = 1 << 16
MAX_TOKEN: Final = 1 << 24
MAX_BYTES: Final = 1 << 24
THRESHOLD: Final = 2e-4
"""Distances up to this are the same computation. `python -m benchmarks.fingerprints`, in float32 on a CPU, found 740
honest ones of at most 2.2e-5, most of which is the rounding to 16 bits, and 1,036 others of at least 1.4e-3: no false
alarm, and no miss. Who answers in fewer bits than a bundle is replayed in has other states, and does not match."""

Kind = Literal["generated", "pooled"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
States = NDArray[np.float32]


class FingerprintMalformed(PeerFault):
    """Bytes that are no fingerprint."""


@dataclass(frozen=True, eq=False)
class Window:
    """The largest entries of some states, flattened: places (k,) ascending, values (k,) in units of scale / 32767."""

    scale: float
    places: NDArray[np.int64]
    values: NDArray[np.int16]

    @property
    def entries(self) -> NDArray[np.float64]:
        return self.values.astype(np.float64) * (self.scale / PARTS)


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """width: of a hidden state. tokens: those of the answer; none of a text that was classified."""

    kind: Kind
    width: int
    tokens: tuple[int, ...]
    windows: tuple[Window, ...]

    def encode(self) -> bytes:
        k = min(LARGEST, self.width)
        head = [VERSION, KINDS.index(self.kind), self.width, k, len(self.tokens), *self.tokens]
        return b"".join(map(_varint, head)) + b"".join(map(_encode_window, self.windows))

    @classmethod
    def decode(cls, data: bytes) -> Fingerprint:
        """Raises FingerprintMalformed."""
        if len(data) > MAX_BYTES:
            raise FingerprintMalformed(f"{len(data)} bytes, at most {MAX_BYTES} are read")
        reader = _Reader(data)
        reader.number("version", VERSION, VERSION)
        kind = KINDS[reader.number("kind", 0, len(KINDS) - 1)]
        width = reader.number("width", 1, MAX_WIDTH)
        k = reader.number("k", min(LARGEST, width), min(LARGEST, width))
        count = reader.number("tokens", 0, min(MAX_TOKENS, len(data)) if kind == "generated" else 0)
        tokens = tuple(reader.number("token", 0, MAX_TOKEN - 1) for _ in range(count))
        windows = tuple(reader.window(k, size) for size in sizes(kind, width, count))
        reader.done()
        return cls(kind, width, tokens, windows)


def sizes(kind: Kind, width: int, count: int) -> list[int]:
    """How many entries the states of each window have."""
    if kind == "pooled":
        return [width]
    return [min(WINDOW, count - start) * width for start in range(0, count, WINDOW)]


def of_answer(states: States, tokens: Sequence[int]) -> Fingerprint:
    """states (n, d): those that the n tokens of an answer were chosen from."""
    width = states.shape[1]
    parts = (states[start : start + WINDOW] for start in range(0, len(states), WINDOW))
    windows = [window for part in parts for window in _windows(part.reshape(1, -1), width)]
    return Fingerprint("generated", width, tuple(tokens), tuple(windows))


def of_pooled(states: States) -> list[Fingerprint]:
    """states (n, d): what the head of a classifier is given of each of n texts."""
    width = states.shape[1]
    return [Fingerprint("pooled", width, (), (window,)) for window in _windows(states, width)]


def compare(claimed: Fingerprint, states: States) -> float:
    """The largest distance of any window from states (n, d) computed here; infinite where the shapes differ.

    A window's is ‖claimed − ours‖ / ‖ours‖ over the claimed places and over our own largest: whoever claims small
    places to be the largest is as far off as who claims other values.
    """
    rows = 1 if claimed.kind == "pooled" else len(claimed.tokens)
    if states.shape != (rows, claimed.width) or not np.isfinite(states).all():
        return inf
    steps = 1 if claimed.kind == "pooled" else WINDOW
    parts = (states[start : start + steps] for start in range(0, rows, steps))
    return max((_distance(*pair) for pair in zip(claimed.windows, parts, strict=True)), default=0.0)


def _distance(claimed: Window, states: States) -> float:
    ours = states.astype(np.float64).reshape(-1)
    largest = ours[_largest(states.reshape(1, -1), states.shape[1])[0]]
    norm = float(np.linalg.norm(largest))
    if norm == 0.0:
        return 0.0 if claimed.scale == 0.0 else inf
    apart = float(np.linalg.norm(claimed.entries - ours[claimed.places]))
    lacking = norm - float(np.linalg.norm(ours[claimed.places]))
    return max(apart, lacking) / norm


def _windows(states: States, width: int) -> list[Window]:
    """states (n, m): in each row those of one window, flattened."""
    if not np.isfinite(states).all():
        raise FingerprintMalformed("a state is not finite")
    largest = _largest(states, width)
    places = np.nonzero(largest)[1].reshape(len(states), -1)
    entries = states[largest].reshape(len(states), -1).astype(np.float64)
    scales = np.abs(entries).max(axis=1)
    units = np.divide(PARTS, scales, where=scales > 0, out=np.zeros_like(scales))
    values = np.rint(entries * units[:, None]).astype(np.int16)
    return [Window(*each) for each in zip(scales.tolist(), places, values, strict=True)]


def _largest(states: States, width: int) -> NDArray[np.bool_]:
    """Which k of each row (n, m) are the largest; of equal ones the first. Partitioned, not sorted: rows are long."""
    size, k = np.abs(states), min(LARGEST, width)
    least = np.partition(size, -k, axis=1)[:, -k, None]
    beyond, equal = size > least, size == least
    room = k - np.count_nonzero(beyond, axis=1, keepdims=True)
    found: NDArray[np.bool_] = beyond | (equal & (equal.cumsum(axis=1) <= room))
    return found


# ---- bytes


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _encode_window(window: Window) -> bytes:
    gaps = window.places.copy()
    gaps[1:] -= window.places[:-1] + 1
    places = bytes(gaps.tolist()) if gaps.max() <= 0x7F else b"".join(map(_varint, gaps.tolist()))
    return struct.pack(">f", window.scale) + places + window.values.astype(">i2").tobytes()


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def number(self, name: str, least: int, most: int) -> int:
        found = 0
        for place in range(4):
            byte = self._take(1)[0]
            found |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                break
        if byte >= 0x80 or (place and not byte):
            raise FingerprintMalformed(f"{name}: no number in its shortest form")
        if not least <= found <= most:
            raise FingerprintMalformed(f"{name}: {found}, expected {least} to {most}")
        return found

    def window(self, k: int, size: int) -> Window:
        (scale,) = struct.unpack(">f", self._take(4))
        places = np.array(list(self._places(k, size)), dtype=np.int64)
        values = np.frombuffer(self._take(2 * k), ">i2").astype(np.int16)
        largest = int(np.abs(values.astype(np.int32)).max())
        if not 0.0 <= scale < inf or struct.pack(">f", scale)[0] & 0x80 or largest != (PARTS if scale else 0):
            raise FingerprintMalformed(f"a window whose largest value is {largest} at scale {scale}")
        return Window(float(scale), places, values)

    def done(self) -> None:
        if self._at != len(self._data):
            raise FingerprintMalformed(f"{len(self._data) - self._at} bytes too many")

    def _places(self, k: int, size: int) -> Iterator[int]:
        place = -1
        for left in range(k, 0, -1):
            place += 1 + self.number("gap", 0, size - left - (place + 1))
            yield place

    def _take(self, count: int) -> bytes:
        found = self._data[self._at : self._at + count]
        if len(found) != count:
            raise FingerprintMalformed("it ends too early")
        self._at += count
        return found
