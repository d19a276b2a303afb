"""SHA-256 (FIPS 180-4) over many messages at once, compiled: the leaves and nodes of `proofs.columns`, 16 side by side.

A leaf's column comes a few rows at a time, as the rows are encoded, so that no prover ever holds all of a code. The
plain twin is `proofs.columns` with hashlib.
"""

from __future__ import annotations

from math import isqrt
from typing import Any

import numpy as np
from numba import njit, uint32
from numpy.typing import NDArray

from proofs.errors import LocalFault

WIDTH = 16  # messages side by side; rows that are absorbed at a time, since 16 elements of F fill a block of SHA-256
SALT_WORDS = 4
Words = NDArray[np.uint32]


def _cube_root(value: int) -> int:
    low, high = 0, 1 << 36
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**3 <= value else (low, middle)
    return low


_PRIMES = [n for n in range(2, 312) if all(n % d for d in range(2, isqrt(n) + 1))]
_ROUNDS = np.array([_cube_root(prime << 96) % (1 << 32) for prime in _PRIMES], dtype=np.uint32)
_START = np.array([isqrt(prime << 64) % (1 << 32) for prime in _PRIMES[:8]], dtype=np.uint32)


@njit(uint32(uint32, uint32), inline="always", cache=True, nogil=True)
def _turned(x: Any, by: Any) -> Any:
    return uint32((x >> by) | uint32(x << uint32(uint32(32) - by)))


@njit(inline="always", cache=True, nogil=True)
def _round(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any, add: Any, word: Any) -> Any:
    """The two variables that a round changes, d and h."""
    upper = _turned(e, uint32(6)) ^ _turned(e, uint32(11)) ^ _turned(e, uint32(25))
    first = uint32(uint32(uint32(h + upper) + uint32(uint32(g ^ (e & (f ^ g))) + add)) + word)
    lower = _turned(a, uint32(2)) ^ _turned(a, uint32(13)) ^ _turned(a, uint32(22))
    return uint32(d + first), uint32(first + uint32(lower + uint32((a & b) | (c & (a | b)))))


@njit("void(uint32[:,::1], uint32[:,::1], uint32[:,::1])", cache=True, nogil=True)
def _compress(state: Words, w: Words, s: Words) -> None:
    """One block (16, WIDTH) into states (8, WIDTH); it is used up. s (8, WIDTH) is room to work in."""
    for i in range(8):
        for n in range(WIDTH):
            s[i, n] = state[i, n]
    for t in range(0, 64, 8):
        if t >= 16:
            for j in range(t, t + 8):
                for n in range(WIDTH):
                    x, y = w[(j - 15) & 15, n], w[(j - 2) & 15, n]
                    early = _turned(x, uint32(7)) ^ _turned(x, uint32(18)) ^ uint32(x >> uint32(3))
                    late = _turned(y, uint32(17)) ^ _turned(y, uint32(19)) ^ uint32(y >> uint32(10))
                    w[j & 15, n] = uint32(uint32(w[j & 15, n] + early) + uint32(w[(j - 7) & 15, n] + late))
        r, q = _ROUNDS[t : t + 8], t & 8
        for n in range(WIDTH):
            a, b, c, d, e, f, g, h = s[0, n], s[1, n], s[2, n], s[3, n], s[4, n], s[5, n], s[6, n], s[7, n]
            d, h = _round(a, b, c, d, e, f, g, h, r[0], w[q, n])
            c, g = _round(h, a, b, c, d, e, f, g, r[1], w[q + 1, n])
            b, f = _round(g, h, a, b, c, d, e, f, r[2], w[q + 2, n])
            a, e = _round(f, g, h, a, b, c, d, e, r[3], w[q + 3, n])
            h, d = _round(e, f, g, h, a, b, c, d, r[4], w[q + 4, n])
            g, c = _round(d, e, f, g, h, a, b, c, r[5], w[q + 5, n])
            f, b = _round(c, d, e, f, g, h, a, b, r[6], w[q + 6, n])
            e, a = _round(b, c, d, e, f, g, h, a, r[7], w[q + 7, n])
            s[0, n], s[1, n], s[2, n], s[3, n], s[4, n], s[5, n], s[6, n], s[7, n] = a, b, c, d, e, f, g, h
    for i in range(8):
        for n in range(WIDTH):
            state[i, n] = uint32(state[i, n] + s[i, n])


@njit(uint32(uint32), inline="always", cache=True, nogil=True)
def _swapped(x: Any) -> Any:
    """A little-endian number as the big-endian word of its bytes."""
    outer = uint32(uint32(x << uint32(24)) | uint32(x >> uint32(24)))
    return uint32(outer | uint32(uint32((x & uint32(0xFF00)) << uint32(8)) | uint32((x >> uint32(8)) & uint32(0xFF00))))


@njit("void(uint32[:,:], int64, uint64, uint32[:,:,::1], uint32[:,:,::1])", cache=True, nogil=True)
def _absorb(block: Words, rows: int, length: int, states: Words, waiting: Words) -> None:
    """block (columns, ≥ rows): the next rows, 16, or fewer at the end, where `length` is that of the message in bits.

    waiting (…, 5, WIDTH): what the prefix of 17 bytes shifts beyond a block, four words and the first byte of a fifth.
    """
    w, more = np.empty((16, WIDTH), dtype=np.uint32), np.empty((16, WIDTH), dtype=np.uint32)
    work = np.empty((8, WIDTH), dtype=np.uint32)
    for part in range(states.shape[0]):
        for n in range(WIDTH):
            for i in range(SALT_WORDS):
                w[i, n] = waiting[part, i, n]
            left = waiting[part, SALT_WORDS, n]
            for i in range(rows):
                word = _swapped(block[part * WIDTH + n, i])
                joined = uint32(uint32(left << uint32(24)) | uint32(word >> uint32(8)))
                left = uint32(word & uint32(0xFF))
                if i < 12:
                    w[SALT_WORDS + i, n] = joined
                else:
                    more[i - 12, n] = joined
            if rows < 16:
                end = uint32(uint32(left << uint32(24)) | uint32(0x800000))
                for i in range(rows, 28):
                    word = end if i == rows else uint32(0)
                    if i < 12:
                        w[SALT_WORDS + i, n] = word
                    else:
                        more[i - 12, n] = word
                if rows < 10:
                    w[14, n], w[15, n] = uint32(length >> 32), uint32(length)
                else:
                    more[14, n], more[15, n] = uint32(length >> 32), uint32(length)
            else:
                for i in range(SALT_WORDS):
                    waiting[part, i, n] = more[i, n]
                waiting[part, SALT_WORDS, n] = left
        _compress(states[part], w, work)
        if 10 <= rows < 16:
            _compress(states[part], more, work)


@njit("void(uint32[:,::1], uint32[:,::1])", cache=True, nogil=True)
def _nodes(children: Words, into: Words) -> None:
    """children (2m, 8), two for each node: SHA-256(0x01 ‖ left ‖ right)."""
    w = np.empty((16, WIDTH), dtype=np.uint32)
    state, work = np.empty((8, WIDTH), dtype=np.uint32), np.empty((8, WIDTH), dtype=np.uint32)
    count = into.shape[0]
    for start in range(0, count, WIDTH):
        last = np.zeros(WIDTH, dtype=np.uint32)
        for n in range(WIDTH):
            at, left = min(start + n, count - 1), uint32(1)
            for i in range(16):
                word = children[2 * at + i // 8, i % 8]
                w[i, n] = uint32(uint32(left << uint32(24)) | uint32(word >> uint32(8)))
                left = uint32(word & uint32(0xFF))
            last[n] = left
        for i in range(8):
            state[i, :] = _START[i]
        _compress(state, w, work)
        w[:] = 0
        for n in range(WIDTH):
            w[0, n] = uint32(uint32(last[n] << uint32(24)) | uint32(0x800000))
            w[15, n] = 65 * 8
        _compress(state, w, work)
        for n in range(min(WIDTH, count - start)):
            for i in range(8):
                into[start + n, i] = state[i, n]


class ColumnHashes:
    """Leaves SHA-256(0x00 ‖ salt ‖ column, u32 little-endian) of all columns, absorbed 16 rows at a time."""

    def __init__(self, salts: bytes) -> None:
        """salts: 16 bytes for each column, of which there is a multiple of 16."""
        words = np.frombuffer(salts, dtype=">u4").reshape(-1, WIDTH, SALT_WORDS).astype(np.uint32)
        self._parts = len(words)
        self._states = np.ascontiguousarray(np.broadcast_to(_START[None, :, None], (self._parts, 8, WIDTH)))
        self._waiting = np.zeros((self._parts, SALT_WORDS + 1, WIDTH), dtype=np.uint32)
        shifted = self._waiting.transpose(0, 2, 1)
        shifted[:, :, :SALT_WORDS] = words >> 8
        shifted[:, :, 1:SALT_WORDS] |= words[:, :, :-1] << 24
        shifted[:, :, SALT_WORDS] = words[:, :, -1] & 0xFF

    def absorb(self, first: int, block: Words, rows: int = WIDTH, before: int = 0) -> None:
        """The next 16 rows of columns `first` on, block (columns, 16); or the last, fewer than 16, after `before`."""
        if first % WIDTH or len(block) % WIDTH or not 0 <= rows <= WIDTH:
            raise LocalFault(f"{rows} rows of columns {first} to {first + len(block)} are no block of these hashes")
        parts = slice(first // WIDTH, (first + len(block)) // WIDTH)
        length = 8 * (1 + 4 * SALT_WORDS + 4 * (before + rows))
        _absorb(block, rows, length, self._states[parts], self._waiting[parts])

    def digests(self) -> Words:
        """(columns, 8), words of each leaf; once the last rows were absorbed."""
        return np.ascontiguousarray(self._states.transpose(0, 2, 1)).reshape(-1, 8)


def levels(leaves: Words) -> list[NDArray[np.uint8]]:
    """All levels of the tree over leaves (2^d, 8), as `proofs.columns.levels`: (nodes, 32) bytes each, leaves first."""
    found = [leaves]
    while len(found[-1]) > 1:
        above = np.zeros((len(found[-1]) // 2, 8), dtype=np.uint32)
        _nodes(found[-1], above)
        found.append(above)
    return [level.astype(">u4").view(np.uint8).reshape(len(level), 32) for level in found]
