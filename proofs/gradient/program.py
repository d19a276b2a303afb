"""A model's program as data: what is computed, on which integers. Everything here is public.

    Program ── embedding ── Layer × n ── final norm ── Head or NextToken
    Layer   ── Norm, Attention, Norm, GatedMlp or PlainMlp
    Linear  ── weight, bias, and a LoRA pair where there is one

Llama-like (`prenorm`): x ← x + f(norm(x)), RMSNorm, rotary positions, causal. To classify, the last token speaks for
the text; under NextToken every token predicts the one after it.
BERT-like: x ← norm(x + f(x)), LayerNorm, learned positions, every token sees every other, the first token speaks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from fractions import Fraction
from hashlib import sha256

import numpy as np

from proofs.gradient.matrix import Matrix
from proofs.gradient.numbers import NARROW_BITS, Value


@dataclass(frozen=True)
class Formats:
    """Fraction bits of every kind of value that is not bounded by the weights themselves; see README.md.

    gated: bits of what goes into the last matrix of a gated block.
    """

    residual: int
    query: int
    key: int
    value: int
    hidden: int
    activation: int
    scores: int
    embedding: int = 12
    low_rank: int = 11
    logits: int = 10
    gated: int = NARROW_BITS


LLAMA = Formats(residual=12, query=11, key=11, value=11, hidden=10, activation=9, scores=7)
PREDICTING = replace(LLAMA, gated=18)  # where every token goes all the way up, some have long activations
BERT = Formats(residual=10, query=10, key=11, value=11, hidden=9, activation=9, scores=7, embedding=14)


@dataclass(frozen=True, eq=False)
class Pair:
    """LoRA: y += (alpha/rank)·B·A·x; rank a power of two. `a_name` is None where A is frozen (FFA)."""

    a: Matrix
    b: Matrix
    alpha: int
    a_name: str | None
    b_name: str | None

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    @property
    def scale(self) -> tuple[int, int]:
        """alpha/rank = odd/2^shift."""
        twos = (self.alpha & -self.alpha).bit_length() - 1
        return self.alpha >> twos, self.rank.bit_length() - 1 - twos


@dataclass(frozen=True, eq=False)
class Linear:
    """y = weight·x + bias (+ pair)."""

    name: str
    weight: Matrix
    bias: Value | None = None
    pair: Pair | None = None


@dataclass(frozen=True, eq=False)
class Norm:
    """gain·(x − mean)/√(variance + epsilon) + shift; without `shift`, RMSNorm, which leaves the mean alone."""

    name: str
    gain: Value
    shift: Value | None
    epsilon: Fraction


@dataclass(frozen=True, eq=False)
class Attention:
    """`heads` queries over `key_heads` keys and values, each of `size`. theta: of rotary positions, or None."""

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    heads: int
    key_heads: int
    size: int
    theta: Fraction | None
    causal: bool


@dataclass(frozen=True, eq=False)
class GatedMlp:
    """down(silu(gate(x))·up(x))."""

    gate: Linear
    up: Linear
    down: Linear


@dataclass(frozen=True, eq=False)
class PlainMlp:
    """down(gelu(up(x)))."""

    up: Linear
    down: Linear


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer: its norms come first (`prenorm` of the program) or last."""

    attention: Attention
    attention_norm: Norm
    mlp: GatedMlp | PlainMlp
    mlp_norm: Norm

    def linears(self) -> Iterator[Linear]:
        attention, mlp = self.attention, self.mlp
        yield from (attention.query, attention.key, attention.value, attention.output)
        yield from (mlp.gate, mlp.up, mlp.down) if isinstance(mlp, GatedMlp) else (mlp.up, mlp.down)

    @property
    def adapted(self) -> bool:
        return any(linear.pair is not None for linear in self.linears())


@dataclass(frozen=True, eq=False)
class Head:
    """logits = classifier·y, where y is the pooled token, or tanh(pooler·token). Both trained names are in the file."""

    classifier: Linear
    weight_name: str
    bias_name: str | None
    pooler: Linear | None = None


@dataclass(frozen=True, eq=False)
class NextToken:
    """logits = weight·y of every token, over the vocabulary (vocabulary, d): the base's own matrix, never trained."""

    weight: Matrix


@dataclass(frozen=True)
class Group:
    """A clipping group: clip to `clip`, of which one unit is the `clip_units`-th part."""

    clip: Fraction
    clip_units: int


@dataclass(frozen=True)
class Trained:
    """One trained tensor: its coordinates lie one after the other, row-major, in the order of the program's list."""

    name: str
    shape: tuple[int, ...]
    group: str


@dataclass(frozen=True, eq=False)
class Program:
    """`embedding` (vocabulary, d); `positions` (places, d), token type included, and its norm: BERT only."""

    embedding: Matrix
    positions: Matrix | None
    embedding_norm: Norm | None
    layers: tuple[Layer, ...]
    final_norm: Norm | None
    head: Head | NextToken
    prenorm: bool
    trained: tuple[Trained, ...]
    groups: dict[str, Group]
    formats: Formats

    def digest(self) -> bytes:
        """SHA-256 over everything that decides what is computed."""
        return sha256(b"candor/gradient-program/1\0" + _encoded(self)).digest()

    @property
    def predicts(self) -> bool:
        """Is the loss that of the next token, so that every token asks in the last layer too?"""
        return isinstance(self.head, NextToken)

    @property
    def lowest_adapted(self) -> int:
        """The first layer with a pair: gradients need not go below it. The number of layers if there is none."""
        return next((i for i, layer in enumerate(self.layers) if layer.adapted), len(self.layers))


def _encoded(part: object) -> bytes:
    """Names of classes and fields, and the values in them, one after the other; matrices by their digests."""
    if isinstance(part, Matrix):
        return b"M" + part.digest()
    if isinstance(part, np.ndarray):
        return _encoded(part.shape) + part.astype("<i8").tobytes()
    if isinstance(part, tuple | list):
        return b"T" + len(part).to_bytes(4, "big") + b"".join(map(_encoded, part))
    if isinstance(part, dict):
        return b"D" + _encoded(sorted(part)) + b"".join(_encoded(part[key]) for key in sorted(part))
    if is_dataclass(part):
        values = [_encoded(getattr(part, one.name)) for one in fields(part)]
        return type(part).__name__.encode() + b"\0" + b"".join(values)
    text = str(part).encode()  # an integer, a fraction, a name, a truth, or nothing
    return type(part).__name__.encode() + len(text).to_bytes(4, "big") + text
