"""The transcript: the one place where challenges come from (Fiat and Shamir), and where randomness is stretched.

    state₀   = SHA-256("candor/mechanism-proof/2")
    absorb   state ← SHA-256(state ‖ 0x00 ‖ |label| u8 ‖ label ‖ |data| u64 ‖ data)
    draw     key   = SHA-256(state ‖ 0x01 ‖ |label| u8 ‖ label),  state ← SHA-256(state ‖ 0x02 ‖ key)

and what is drawn comes from SHAKE-256(key). Integers are big-endian in hashed headers, little-endian in streams. An
element of F is the low 31 bits of the next 32-bit word that are below p; other words are passed over.
"""

from __future__ import annotations

from hashlib import sha256, shake_256

import numpy as np
from numpy.typing import NDArray

from proofs.field import DEGREE, Field, P

PROTOCOL = b"candor/mechanism-proof/2"


class Transcript:
    """Both sides build the same one, message by message."""

    def __init__(self, protocol: bytes = PROTOCOL) -> None:
        self._state = sha256(protocol).digest()

    def absorb(self, label: str, data: bytes) -> None:
        name = label.encode()
        header = b"\0" + bytes([len(name)]) + name + len(data).to_bytes(8, "big")
        self._state = sha256(self._state + header + data).digest()

    def draw(self, label: str) -> bytes:
        """32 bytes that nobody could know before everything absorbed so far was fixed."""
        name = label.encode()
        key = sha256(self._state + b"\1" + bytes([len(name)]) + name).digest()
        self._state = sha256(self._state + b"\2" + key).digest()
        return key

    def elements(self, label: str, count: int) -> Field:
        """(count, 4): uniform elements of K."""
        return field_stream(self.draw(label), count * DEGREE).reshape(count, DEGREE)

    def positions(self, label: str, below: int, count: int) -> NDArray[np.int64]:
        """`count` different integers below a power of two, ascending: a uniform set."""
        key, chosen = self.draw(label), dict[int, None]()
        length = 4 * count
        while len(chosen) < count:
            chosen.clear()
            length *= 2
            for word in np.frombuffer(shake_256(key).digest(length), dtype="<u4") & np.uint32(below - 1):
                if len(chosen) < count:
                    chosen[int(word)] = None
        return np.array(sorted(chosen), dtype=np.int64)


def field_stream(key: bytes, count: int) -> Field:
    """(count,) uniform elements of F from SHAKE-256(key)."""
    length = 4 * (count + count // 64 + 32)
    while True:
        words = np.frombuffer(shake_256(key).digest(length), dtype="<u4") & np.uint32(0x7FFFFFFF)
        kept = words[words < P]
        if len(kept) >= count:
            return kept[:count].astype(np.uint64)
        length *= 2


def signs(key: bytes, rows: int, columns: int) -> NDArray[np.int8]:
    """(rows, columns) of −1, 0, 0, 1 with equal chances: 2 bits each, low bits of a byte first; 0 → 1, 1 → −1."""
    stream = np.frombuffer(shake_256(key).digest(-(-rows * columns // 4)), dtype=np.uint8)
    pairs = (stream[:, None] >> np.array([0, 2, 4, 6], dtype=np.uint8) & 3).reshape(-1)[: rows * columns]
    return np.asarray(np.array([1, -1, 0, 0], dtype=np.int8)[pairs].reshape(rows, columns))
