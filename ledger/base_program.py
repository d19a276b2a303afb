"""The integer program H (proofs/gradient) from a base model's folder: what an auditor computes a gradient with.

Every matrix of the base gets 16 bits with a power-of-two scale of its own, rounded to nearest; the weights are exact in
float64, so everybody gets the same integers. They are made once: the programs of all iterates share them. The iterate
lies on the grid of 2^−weight_bits already. No model library is needed.

    ArchitectureUnknown (LocalFault)     of ledger.base_settings: H has no program for this model
    IterateMisfit (LocalFault)           the weights are not those that the config lists
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import frexp, isqrt
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ledger.base_files import FLOATS, BaseFiles, BaseMismatch, BaseUnusable, StoredTensor, read_base
from ledger.base_settings import LM_HEAD, ArchitectureUnknown, Bert, Llama, Settings, read_settings
from ledger.config import AdapterSpec, Config
from ledger.tensors import Weights
from proofs.errors import LocalFault
from proofs.gradient import program as fixed
from proofs.gradient.matrix import Matrix
from proofs.gradient.numbers import Units, Value, constant

WEIGHT_BITS = 16
BIAS_FRACTION = 14
MOST = 1 << 31  # of a bias or an embedding in its units; far beyond what H has room for
PREFIX = "base_model.model."  # PEFT's, before the name that the model gives a tensor
RENAMED = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}

Kept = TypeVar("Kept", Matrix, Value)


class IterateMisfit(LocalFault):
    """Weights that are not those of the config's layout."""


@dataclass(frozen=True, eq=False)
class Base:
    """A base whose tensors are all there, with the shapes that its config.json implies. See `open`."""

    files: BaseFiles
    digest: bytes
    settings: Settings
    tensors: dict[str, StoredTensor]
    weight_bits: int = WEIGHT_BITS
    _kept: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, folder: Path, weight_bits: int = WEIGHT_BITS) -> Base:
        """Raises BaseUnusable for a folder that is no base, ArchitectureUnknown for a base that H does not know."""
        files = read_base(folder)
        settings = read_settings(files.config)
        return cls(files, files.digest, settings, _needed(files, settings), weight_bits)

    def program(self, config: Config, weights: Weights) -> fixed.Program:
        """H at an iterate in grid units. Raises BaseMismatch, IterateMisfit and ArchitectureUnknown."""
        if self.digest != config.base_digest:
            raise BaseMismatch(
                f"config.base.digest: {self.files.folder} has digest {self.digest.hex()}, but the round's base is "
                f"{config.base_name} with {config.base_digest.hex()}"
            )
        at = Iterate(self, config, weights)
        if isinstance(self.settings, Llama):
            return _llama(at, self.settings)
        if config.task.kind == "next-token":
            raise ArchitectureUnknown("bert sees the tokens that it would predict; H predicts tokens with llama alone")
        return _bert(at, self.settings)

    def lm_head(self, embedding: str) -> Matrix:
        """A language model's head: 16 bits, like any matrix, also where it is the embedding."""
        tied = isinstance(self.settings, Llama) and self.settings.tied
        if tied == (LM_HEAD in self.tensors):
            told = "one of its own beside it" if tied else "none that H could use"
            raise ArchitectureUnknown(
                f"{self.files.folder}: config.json has tie_word_embeddings = {tied}, and the weights hold {told}: "
                f"{LM_HEAD}"
            )
        source = embedding if tied else LM_HEAD
        return self._once(LM_HEAD, lambda: quantise(self.tensors[source].read(), self.weight_bits))

    def matrix(self, name: str) -> Matrix:
        return self._once(name, lambda: quantise(self.tensors[name].read(), self.weight_bits))

    def vector(self, name: str) -> Value:
        """A gain: 16 bits, like a matrix."""
        return self._once(name, lambda: _gain(self.tensors[name].read()))

    def shift(self, name: str) -> Value | None:
        """A bias, if the base has it."""
        if name not in self.tensors:
            return None
        return self._once(name, lambda: constant(at_fraction(self.tensors[name].read(), BIAS_FRACTION), BIAS_FRACTION))

    def rows(self, name: str, fraction: int, also: str | None = None) -> Matrix:
        """A table of rows: at the fraction of what its rows are added to. The first row of `also` is added to each."""
        return self._once(name, lambda: Matrix(self._rows(name, fraction, also), fraction))

    def _rows(self, name: str, fraction: int, also: str | None) -> Units:
        units = at_fraction(self.tensors[name].read(), fraction)
        return units if also is None else units + at_fraction(self.tensors[also].read()[0], fraction)

    def _once(self, name: str, make: Callable[[], Kept]) -> Kept:
        """Each tensor has one use, and one set of integers."""
        if name not in self._kept:
            self._kept[name] = make()
        found: Kept = self._kept[name]
        return found


def _needed(files: BaseFiles, settings: Settings) -> dict[str, StoredTensor]:
    """The tensors that H uses, by the names that the model gives them; a language model's head where it is there.

    Raises BaseUnusable. transformers loads a file with or without the model's prefix, and with TensorFlow's old names
    of a LayerNorm.
    """
    found: dict[str, StoredTensor] = {}
    shapes = settings.shapes | settings.head
    for stored, tensor in files.tensors.items():
        name = _model_name(stored, settings.prefix)
        if name not in shapes:
            continue
        if name in found:
            raise BaseUnusable(f"{files.folder}: two tensors for {name}")
        if tensor.shape != shapes[name] or tensor.dtype not in FLOATS:
            if name in settings.head:
                continue  # no classifier sees it
            raise BaseUnusable(
                f"{files.folder}: {stored} is {tensor.dtype} of {tensor.shape}; config.json implies {shapes[name]}, "
                f"and H knows {sorted(FLOATS)}"
            )
        found[name] = tensor
    missing = sorted(set(settings.shapes) - set(found))
    if missing:
        raise BaseUnusable(f"{files.folder}: {missing[0]} is not in the weights")
    return found


def _model_name(stored: str, prefix: str) -> str:
    for old, new in RENAMED.items():
        stored = stored.replace(old, new, 1)
    if stored == LM_HEAD:
        return stored
    return stored if stored.startswith(f"{prefix}.") else f"{prefix}.{stored}"


class Iterate:
    """A base, and what is trained on it: which integers belong to which module."""

    def __init__(self, base: Base, config: Config, weights: Weights) -> None:
        self.base, self.config, self.weights = base, config, weights
        self.trained = {tensor.name for tensor in config.adapter.trained}
        self.used: set[str] = set()
        for tensor in config.adapter.tensors:
            units = weights.get(tensor.name)
            if units is None or units.shape != tensor.shape or units.dtype != np.int64:
                found = "nothing" if units is None else f"{units.dtype} of {units.shape}"
                raise IterateMisfit(f"{tensor.name}: expected int64 of {tensor.shape}, found {found}")

    def use(self, name: str, shape: tuple[int, ...]) -> Units:
        """The iterate's tensor. Raises ArchitectureUnknown when it has no such tensor, or not of this shape."""
        found = self.weights.get(name)
        if found is None or found.shape != shape:
            raise ArchitectureUnknown(f"{name} is {'missing' if found is None else found.shape}; H knows {shape}")
        self.used.add(name)
        return found

    def linear(self, name: str) -> fixed.Linear:
        weight = self.base.matrix(f"{name}.weight")
        return fixed.Linear(name, weight, self.base.shift(f"{name}.bias"), self.pair(name, weight.shape))

    def pair(self, name: str, shape: tuple[int, ...]) -> fixed.Pair | None:
        a, b = (f"{PREFIX}{name}.lora_{factor}.weight" for factor in "AB")
        if a not in self.weights:
            return None
        adapter, grid = self.config.adapter, self.config.weight_bits
        if adapter.rank & (adapter.rank - 1):
            raise ArchitectureUnknown(f"rank {adapter.rank}; H divides by powers of two alone")
        low, high = self.use(a, (adapter.rank, shape[1])), self.use(b, (shape[0], adapter.rank))
        names = [one if one in self.trained else None for one in (a, b)]
        return fixed.Pair(Matrix(low, grid), Matrix(high, grid), _alpha(adapter), *names)

    def norm(self, name: str) -> fixed.Norm:
        gain, shift = self.base.vector(f"{name}.weight"), self.base.shift(f"{name}.bias")
        return fixed.Norm(name, gain, shift, self.base.settings.epsilon)

    def head(self, name: str, pooler: fixed.Linear | None) -> fixed.Head:
        weight, bias = f"{PREFIX}{name}.weight", f"{PREFIX}{name}.bias"
        if weight not in self.weights:
            raise ArchitectureUnknown(f"the head is not {name}; H knows no other")
        labels, grid = len(self.config.task.labels), self.config.weight_bits
        matrix = Matrix(self.use(weight, (labels, self.base.settings.hidden)), grid)
        shift = constant(self.use(bias, (labels,)), grid) if bias in self.weights else None
        return fixed.Head(fixed.Linear(name, matrix, shift), weight, bias if shift is not None else None, pooler)

    def finished(self, **parts: Any) -> fixed.Program:
        """The program, once every tensor of the iterate has found its place in it."""
        stray = sorted(set(self.weights) - self.used)
        if stray:
            raise ArchitectureUnknown(f"H does not use {stray[0]}")
        privacy, adapter = self.config.privacy, self.config.adapter
        clips = {"adapter": privacy.clip_adapter, "head": privacy.clip_head}
        roles = {tensor.role for tensor in adapter.trained}
        return fixed.Program(
            trained=tuple(fixed.Trained(tensor.name, tensor.shape, str(tensor.role)) for tensor in adapter.trained),
            groups={role: fixed.Group(clips[role], privacy.clip_units) for role in clips if role in roles},
            **parts,
        )


def _alpha(adapter: AdapterSpec) -> int:
    """α of the LoRA that this is: rsLoRA's α/√r is (α·√r)/r."""
    root = isqrt(adapter.rank)
    if adapter.method == "lora":
        return adapter.alpha
    if adapter.method != "rslora" or root * root != adapter.rank:
        raise ArchitectureUnknown(
            f"config.adapter: {adapter.method} of rank {adapter.rank}; H knows lora, and rslora where √rank is whole"
        )
    return adapter.alpha * root


def _llama(at: Iterate, settings: Llama) -> fixed.Program:
    embedding = "model.embed_tokens.weight"
    predicts = at.config.task.kind == "next-token"
    return at.finished(
        embedding=at.base.rows(embedding, fixed.LLAMA.embedding),
        positions=None,
        embedding_norm=None,
        layers=tuple(_llama_layer(at, settings, f"model.layers.{index}") for index in range(settings.layers)),
        final_norm=at.norm("model.norm"),
        head=fixed.NextToken(at.base.lm_head(embedding)) if predicts else at.head("score", None),
        prenorm=True,
        formats=fixed.PREDICTING if predicts else fixed.LLAMA,
    )


def _llama_layer(at: Iterate, settings: Llama, name: str) -> fixed.Layer:
    attention = fixed.Attention(
        query=at.linear(f"{name}.self_attn.q_proj"),
        key=at.linear(f"{name}.self_attn.k_proj"),
        value=at.linear(f"{name}.self_attn.v_proj"),
        output=at.linear(f"{name}.self_attn.o_proj"),
        heads=settings.heads,
        key_heads=settings.key_heads,
        size=settings.head_size,
        theta=settings.theta,
        causal=True,
    )
    mlp = fixed.GatedMlp(*(at.linear(f"{name}.mlp.{part}_proj") for part in ("gate", "up", "down")))
    first, second = (at.norm(f"{name}.{part}_layernorm") for part in ("input", "post_attention"))
    return fixed.Layer(attention, first, mlp, second)


def _bert(at: Iterate, settings: Bert) -> fixed.Program:
    name, fraction = "bert.embeddings", fixed.BERT.embedding
    kinds = f"{name}.token_type_embeddings.weight"
    return at.finished(
        embedding=at.base.rows(f"{name}.word_embeddings.weight", fraction),
        positions=at.base.rows(f"{name}.position_embeddings.weight", fraction, kinds),
        embedding_norm=at.norm(f"{name}.LayerNorm"),
        layers=tuple(_bert_layer(at, settings, f"bert.encoder.layer.{index}") for index in range(settings.layers)),
        final_norm=None,
        head=at.head("classifier", at.linear("bert.pooler.dense")),
        prenorm=False,
        formats=fixed.BERT,
    )


def _bert_layer(at: Iterate, settings: Bert, name: str) -> fixed.Layer:
    attention = fixed.Attention(
        query=at.linear(f"{name}.attention.self.query"),
        key=at.linear(f"{name}.attention.self.key"),
        value=at.linear(f"{name}.attention.self.value"),
        output=at.linear(f"{name}.attention.output.dense"),
        heads=settings.heads,
        key_heads=settings.heads,
        size=settings.hidden // settings.heads,
        theta=None,
        causal=False,
    )
    mlp = fixed.PlainMlp(at.linear(f"{name}.intermediate.dense"), at.linear(f"{name}.output.dense"))
    first, second = (at.norm(f"{name}.{part}.LayerNorm") for part in ("attention.output", "output"))
    return fixed.Layer(attention, first, mlp, second)


def quantise(values: NDArray[np.float64], bits: int) -> Matrix:
    """The finest power-of-two scale at which every entry fits `bits` bits, rounded to nearest (halves to even).

    Raises ArchitectureUnknown for weights that are not finite.
    """
    _, exponent = frexp(float(np.abs(values).max(initial=0.0)))
    fraction = bits - 1 - exponent if values.any() else 0
    units = at_fraction(values, fraction)
    if np.abs(units).max(initial=0) >= 1 << (bits - 1):  # the largest entry was rounded up to the next power of two
        fraction -= 1
        units = at_fraction(values, fraction)
    return Matrix(units, fraction)


def at_fraction(values: NDArray[np.float64], fraction: int) -> Units:
    """Integers in units of 2^−fraction. Raises ArchitectureUnknown for weights that are not finite, or too large."""
    if not np.isfinite(values).all():
        raise ArchitectureUnknown("a weight of the base is NaN or infinite")
    scaled = np.rint(values * 2.0**fraction)
    if np.abs(scaled).max(initial=0.0) >= MOST:
        raise ArchitectureUnknown(f"a weight of the base is above {MOST} units of 2^-{fraction}")
    return scaled.astype(np.int64)


def _gain(values: NDArray[np.float64]) -> Value:
    found = quantise(values, WEIGHT_BITS)
    return constant(found.units, found.fraction)
