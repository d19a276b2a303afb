"""A loaded model as the integer program H (proofs/gradient): the public base quantised once, the iterate as it is.

Every matrix of the base gets 16 bits with a power-of-two scale of its own, rounded to nearest; float32 weights are
exact in float64, so everybody gets the same integers. The iterate lies on the grid of 2^−weight_bits already. Only
architectures whose arithmetic H knows to the last detail are taken; all others are refused, not approximated.
"""

from __future__ import annotations

from fractions import Fraction
from math import frexp
from typing import Any

import numpy as np
import torch

from ledger.config import Config
from ledger.tensors import Weights
from node.model import LoadedModel
from proofs.errors import LocalFault
from proofs.gradient import program as fixed
from proofs.gradient.matrix import Matrix
from proofs.gradient.numbers import Units, Value, constant

WEIGHT_BITS = 16
BIAS_FRACTION = 14
PREFIX = "base_model.model."


class ArchitectureUnknown(LocalFault):
    """H has no program for this model; its gradients cannot be proven."""


def fixed_program(model: LoadedModel, weights: Weights, weight_bits: int = WEIGHT_BITS) -> fixed.Program:
    """The program of a model at an iterate given in grid units. Raises ArchitectureUnknown."""
    settings = model.module.get_base_model().config
    builders: dict[str, type[_Llama] | type[_Bert]] = {"llama": _Llama, "bert": _Bert}
    if settings.model_type not in builders:
        raise ArchitectureUnknown(f"no fixed-point program for {settings.model_type}; known: {sorted(builders)}")
    return builders[settings.model_type](model, settings, weights, weight_bits).program()


class _Builder:
    """What both architectures share: tensors by name → integers."""

    def __init__(self, model: LoadedModel, settings: Any, weights: Weights, weight_bits: int) -> None:
        self.config: Config = model.config
        self.settings, self.weights, self.bits = settings, weights, weight_bits
        self.tensors = {
            name.removeprefix(PREFIX).replace(".base_layer.", "."): parameter.detach()
            for name, parameter in model.module.named_parameters()
        }
        self.trained = {tensor.name for tensor in self.config.adapter.trained}
        self.used: set[str] = set()

    def expect(self, **settings: object) -> None:
        """Raises ArchitectureUnknown unless the model's settings are these."""
        for name, expected in settings.items():
            found = getattr(self.settings, name, None)
            if found != expected:
                raise ArchitectureUnknown(f"{self.settings.model_type} with {name} = {found!r}; H knows {expected!r}")

    def matrix(self, name: str) -> Matrix:
        return quantise(self.tensors[name], self.bits)

    def exact(self, name: str, fraction: int) -> Matrix:
        """A table of rows: at the fraction of what its rows are added to."""
        return Matrix(at_fraction(self.tensors[name], fraction), fraction)

    def vector(self, name: str) -> Value:
        """A gain: 16 bits, like a matrix."""
        found = quantise(self.tensors[name], WEIGHT_BITS)
        return constant(found.units, found.fraction)

    def linear(self, name: str) -> fixed.Linear:
        bias = f"{name}.bias"
        return fixed.Linear(
            name,
            self.matrix(f"{name}.weight"),
            constant(at_fraction(self.tensors[bias], BIAS_FRACTION), BIAS_FRACTION) if bias in self.tensors else None,
            self.pair(name),
        )

    def pair(self, name: str) -> fixed.Pair | None:
        a, b = (f"{PREFIX}{name}.lora_{factor}.weight" for factor in "AB")
        if a not in self.weights:
            return None
        adapter, grid = self.config.adapter, self.config.weight_bits
        if adapter.rank & (adapter.rank - 1):
            raise ArchitectureUnknown(f"rank {adapter.rank}; H divides by powers of two alone")
        self.used |= {a, b}
        names = [one if one in self.trained else None for one in (a, b)]
        return fixed.Pair(Matrix(self.weights[a], grid), Matrix(self.weights[b], grid), adapter.alpha, *names)

    def norm(self, name: str, epsilon: float) -> fixed.Norm:
        shift = f"{name}.bias"
        return fixed.Norm(
            name,
            self.vector(f"{name}.weight"),
            constant(at_fraction(self.tensors[shift], BIAS_FRACTION), BIAS_FRACTION) if shift in self.tensors else None,
            Fraction(epsilon),
        )

    def head(self, name: str, pooler: fixed.Linear | None) -> fixed.Head:
        weight, bias = f"{PREFIX}{name}.weight", f"{PREFIX}{name}.bias"
        if weight not in self.weights:
            raise ArchitectureUnknown(f"the head is not {name}; H knows no other")
        self.used |= {weight, bias}
        grid = self.config.weight_bits
        shift = constant(self.weights[bias], grid) if bias in self.weights else None
        classifier = fixed.Linear(name, Matrix(self.weights[weight], grid), shift)
        return fixed.Head(classifier, weight, bias if shift is not None else None, pooler)

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


class _Llama(_Builder):
    def program(self) -> fixed.Program:
        self.expect(hidden_act="silu")
        rope = dict(self.settings.rope_parameters)
        if rope.pop("rope_type") != "default" or set(rope) != {"rope_theta"}:
            raise ArchitectureUnknown("H knows rotary positions of the default kind alone")
        return self.finished(
            embedding=Matrix(
                at_fraction(self.tensors["model.embed_tokens.weight"], fixed.LLAMA.embedding), fixed.LLAMA.embedding
            ),
            positions=None,
            embedding_norm=None,
            layers=tuple(self.layer(f"model.layers.{i}", rope) for i in range(self.settings.num_hidden_layers)),
            final_norm=self.norm("model.norm", self.settings.rms_norm_eps),
            head=self.head("score", None),
            prenorm=True,
            formats=fixed.LLAMA,
        )

    def layer(self, at: str, rope: dict[str, float]) -> fixed.Layer:
        settings, epsilon = self.settings, self.settings.rms_norm_eps
        attention = fixed.Attention(
            query=self.linear(f"{at}.self_attn.q_proj"),
            key=self.linear(f"{at}.self_attn.k_proj"),
            value=self.linear(f"{at}.self_attn.v_proj"),
            output=self.linear(f"{at}.self_attn.o_proj"),
            heads=settings.num_attention_heads,
            key_heads=settings.num_key_value_heads,
            size=settings.head_dim,
            theta=Fraction(rope["rope_theta"]),
            causal=True,
        )
        mlp = fixed.GatedMlp(*(self.linear(f"{at}.mlp.{name}_proj") for name in ("gate", "up", "down")))
        first, second = (self.norm(f"{at}.{name}", epsilon) for name in ("input_layernorm", "post_attention_layernorm"))
        return fixed.Layer(attention, first, mlp, second)


class _Bert(_Builder):
    def program(self) -> fixed.Program:
        self.expect(hidden_act="gelu", is_decoder=False, add_cross_attention=False)
        at, epsilon, fraction = "bert.embeddings", self.settings.layer_norm_eps, fixed.BERT.embedding
        kinds = at_fraction(self.tensors[f"{at}.token_type_embeddings.weight"][0], fraction)
        places = at_fraction(self.tensors[f"{at}.position_embeddings.weight"], fraction)
        return self.finished(
            embedding=self.exact(f"{at}.word_embeddings.weight", fraction),
            positions=Matrix(places + kinds, fraction),
            embedding_norm=self.norm(f"{at}.LayerNorm", epsilon),
            layers=tuple(self.layer(f"bert.encoder.layer.{i}") for i in range(self.settings.num_hidden_layers)),
            final_norm=None,
            head=self.head("classifier", self.linear("bert.pooler.dense")),
            prenorm=False,
            formats=fixed.BERT,
        )

    def layer(self, at: str) -> fixed.Layer:
        settings, epsilon = self.settings, self.settings.layer_norm_eps
        attention = fixed.Attention(
            query=self.linear(f"{at}.attention.self.query"),
            key=self.linear(f"{at}.attention.self.key"),
            value=self.linear(f"{at}.attention.self.value"),
            output=self.linear(f"{at}.attention.output.dense"),
            heads=settings.num_attention_heads,
            key_heads=settings.num_attention_heads,
            size=settings.hidden_size // settings.num_attention_heads,
            theta=None,
            causal=False,
        )
        mlp = fixed.PlainMlp(self.linear(f"{at}.intermediate.dense"), self.linear(f"{at}.output.dense"))
        first, second = (self.norm(f"{at}.{name}.LayerNorm", epsilon) for name in ("attention.output", "output"))
        return fixed.Layer(attention, first, mlp, second)


def quantise(tensor: torch.Tensor, bits: int) -> Matrix:
    """The finest power-of-two scale at which every entry fits `bits` bits, rounded to nearest (halves to even)."""
    values = tensor.to("cpu", torch.float64).numpy()
    _, exponent = frexp(float(np.abs(values).max(initial=0.0)))
    fraction = bits - 1 - exponent if values.any() else 0
    units = at_fraction(tensor, fraction)
    if np.abs(units).max(initial=0) >= 1 << (bits - 1):  # the largest entry was rounded up to the next power of two
        fraction -= 1
        units = at_fraction(tensor, fraction)
    return Matrix(units, fraction)


def at_fraction(tensor: torch.Tensor, fraction: int) -> Units:
    """Integers in units of 2^−fraction. Raises ArchitectureUnknown for weights that are not finite."""
    scaled = tensor.to("cpu", torch.float64).numpy() * 2.0**fraction
    if not np.isfinite(scaled).all():
        raise ArchitectureUnknown("a weight of the base is NaN or infinite")
    return np.rint(scaled).astype(np.int64)
