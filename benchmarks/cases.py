"""Honest rounds with random contributions, of any shape: what tests and benchmarks prove."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proofs import columns, kernels, mechanism
from proofs.commitment import Committed
from proofs.gaussian import noise_table
from proofs.parameters import BLOWUP
from proofs.prover import data_root, prove, words_root
from proofs.statement import Shape, Statement
from proofs.texts import Texts
from proofs.words import Binding, SecretWords, combine, public_draws, public_noise


@dataclass(frozen=True, eq=False, repr=False)
class Recoded(Committed):
    """A commitment whose columns (n, m) are not the code of its rows: what forgers open."""

    code: NDArray[np.uint32]

    @classmethod
    def of(cls, found: Committed, change: Callable[[NDArray[np.uint32]], None]) -> Recoded:
        code = kernels.encode(found.rows, BLOWUP)
        change(code)
        _, salts, _ = found.opened(range(len(code)))
        leaves = [columns.leaf(salt, line.tobytes()) for salt, line in zip(salts, code, strict=True)]
        return cls(found.rows, columns.levels(leaves), found.salts, code)

    def columns(self, positions: Sequence[int]) -> NDArray[np.uint32]:
        return self.code[list(positions)]


@dataclass(frozen=True, eq=False)
class MechanismCase:
    """One member's round: the public statement, and what it hides. `prove` makes the proof of it."""

    statement: Statement
    words: SecretWords
    texts: Texts
    contributions: tuple[NDArray[np.int32], ...]

    @property
    def rows(self) -> int:
        return len(self.texts)

    def prove(self, progress: Callable[[str], None] | None = None) -> bytes:
        return prove(self.statement, self.words, self.texts, self.contributions, progress)

    def stating(self, **changed: Any) -> Statement:
        return replace(self.statement, **changed)


def random_texts(rows: int, tokens: int, seed: int = 1) -> Texts:
    """Rows of random token ids and labels, the first as long as can be."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, tokens, rows, endpoint=True, dtype=np.int32)
    lengths[:1] = tokens
    ids = rng.integers(0, 1 << 15, (rows, tokens), dtype=np.int32) * (np.arange(tokens) < lengths[:, None])
    return Texts(ids.astype(np.int32), lengths, rng.integers(0, 2, rows, dtype=np.int32))


def drawn_case(
    shape: Shape, group_of: NDArray[np.uint8], words: SecretWords, rows: int, beacon: bytes, seed: int = 1
) -> tuple[tuple[NDArray[np.int32], ...], NDArray[np.int32]]:
    """(contributions of each step, released sums (T, P)): random, many at the clip, by the words and the beacon."""
    rng, contributions, released = np.random.default_rng(seed), [], []
    for step in range(shape.steps):
        draws = combine(words.draws(step), public_draws(beacon, words.binding, step, shape.capacity))
        drawn = mechanism.selected_rows(draws, shape.sample_threshold, rows)
        part = np.zeros((len(drawn), shape.parameters), dtype=np.int32)
        for group, size in enumerate(shape.groups):
            gradients = rng.normal(size=(len(drawn), size)) * rng.choice([0.1, 1.0, 9.0], size=(len(drawn), 1))
            part[:, group_of == group] = mechanism.to_grid(gradients, 1 / shape.clip_units, shape.clip_units)
        noise_words = combine(words.noise(step), public_noise(beacon, words.binding, step, shape.parameters))
        contributions.append(part)
        released.append(mechanism.release(part, noise_table(shape.sigma_units).lookup(noise_words)))
    return tuple(contributions), np.array(released)


def mechanism_case(shape: Shape, rows: int, *, seed: int = 1, member: int = 0, round: int = 1) -> MechanismCase:
    """Coordinates whose groups lie mixed, and random contributions to them."""
    rng = np.random.default_rng(seed)
    binding, beacon = Binding(31337, b"\2" * 20, round, member), b"\3" * 32
    words = SecretWords(bytes([seed]) * 32, binding, shape.steps, shape.parameters, shape.capacity)
    group_of = rng.permutation(np.repeat(np.arange(len(shape.groups)), shape.groups)).astype(np.uint8)
    contributions, released = drawn_case(shape, group_of, words, rows, beacon, seed)
    texts = random_texts(rows, shape.tokens, seed)
    roots = words_root(words, shape), data_root(words, shape, texts)
    statement = Statement(binding, b"\4" * 32, *roots, beacon, shape, group_of, released)
    return MechanismCase(statement, words, texts, contributions)
