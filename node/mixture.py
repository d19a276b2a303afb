"""Mixtures of final adapters: the parents' frozen pairs beside each other on one base, which may be in 4 bits, and the
gates that weigh them.

At a layer with the base's output W x + b, parent i adds E_i(x): s·B A x, and under DoRA
m ⊙ (Wx + s·BAx)/‖W + s·BA‖ − Wx.

    mole      y = W x + b + Σ g_i E_i(x),  g = softmax(G ê) for each token, ê the parents' outputs E_i(x) side by side,
              each brought to a root mean square of 1; one G (N, N·outputs) for each layer (Wu et al. 2024, MoLE, whose
              gate reads all tokens at once: a token of a language model must not look ahead)
    x-lora    g = top-k of softmax(H h + c) for each layer and token, h the last hidden states of a first pass in which
              all parents count alike; one H for all layers (Buehler & Buehler 2024; PEFT's XLoraModel of depth 1 with
              scaling_pass_value 1/N, which knows neither BERT, DoRA, 4-bit bases nor a cache)

A head that the parents trained is mixed like a layer, without a base: Σ g_i head_i(x). Where a layer sees one row for
each text (a head on pooled states), x-lora takes the text's first token. Only G, or H and c, are trained. They are
Linear layers that see examples along the first axis, so that node.gradients has their exact per-example gradients. A
loss that balances the gates would be a mean over the batch, without a bound for one example: there is none.

    NothingLeft (LocalFault)    a mask leaves no parent, or names one that the mixture does not have
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from ledger.adapter import GATE, MAGNITUDE, SCALING, AdapterSpec, Method, TensorSpec
from ledger.aggregation import half_of
from ledger.base_files import BaseUnusable
from ledger.parents import LINE, Parent
from node import quantised
from node.bases import LoadedBase
from proofs.errors import LocalFault

PREFIX = "base_model.model."  # of PEFT's names


class NothingLeft(LocalFault):
    """Some parents may be left out of a mixture, not all of them."""


class Gate(torch.nn.Linear):
    """The trained part of a mixture."""

    weight: torch.nn.Parameter


class Part(torch.nn.Module):
    """What one parent adds at one layer. a (r, in), b (out, r); gain (out,): m/‖W + s·BA‖ under DoRA."""

    def __init__(self, a: torch.Tensor, b: torch.Tensor, scale: float, gain: torch.Tensor | None) -> None:
        super().__init__()
        self.scale = scale
        for name, value in (("a", a), ("b", b), ("gain", gain)):
            self.register_buffer(name, value)

    def forward(self, x: torch.Tensor, plain: torch.Tensor) -> torch.Tensor:
        """x (…, in), plain: W x (…, out) → (…, out)."""
        held: Any = self
        added: torch.Tensor = (x @ held.a.T) @ held.b.T * self.scale
        return added if held.gain is None else held.gain * (plain + added) - plain


class Kept(torch.nn.Module):
    """Which parents count (N,), shared by all layers; all of them unless somebody masks some."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.register_buffer("those", torch.ones(number, dtype=torch.bool))

    def softmax(self, logits: torch.Tensor) -> torch.Tensor:
        """(…, N) → shares that sum to 1 over the parents that count."""
        held: Any = self
        return torch.softmax(logits.masked_fill(~held.those, -torch.inf), dim=-1)


class LayerGate(torch.nn.Module):
    """MoLE's gate of one layer."""

    def __init__(self, kept: Kept, outputs: int) -> None:
        super().__init__()
        number = len(kept.those)  # type: ignore[arg-type]
        self.kept, self.gate = kept, Gate(number * outputs, number, bias=False)

    def forward(self, added: torch.Tensor) -> torch.Tensor:
        """(…, N, out) → shares (…, N)."""
        even = torch.nn.functional.rms_norm(added, added.shape[-1:], eps=1e-12)
        return self.kept.softmax(self.gate(even.flatten(-2)))


@dataclass(eq=False)
class Scalings:
    """X-LoRA's shares (batch, tokens, layers, N) of the pass that runs; None: all alike."""

    shares: torch.Tensor | None = None


class LayerScaling(torch.nn.Module):
    """X-LoRA's shares of one layer, as the head gave them for this pass."""

    def __init__(self, kept: Kept, scalings: Scalings, place: int) -> None:
        super().__init__()
        self.kept, self.scalings, self.place = kept, scalings, place

    def forward(self, added: torch.Tensor) -> torch.Tensor:
        """(…, N, out) → shares (…, N). Raises BaseUnusable where the layer does not see texts and tokens."""
        if self.scalings.shares is None:
            return self.kept.softmax(torch.zeros_like(added[..., 0]))
        shares = self.scalings.shares[:, :, self.place]
        shares = shares[:, 0] if added.ndim == 3 else shares
        if shares.shape != added.shape[:-1]:
            raise BaseUnusable(
                f"{LINE}: x-lora weighs text by text and token by token, {tuple(shares.shape)}, and a parent's layer "
                f"sees {tuple(added.shape[:-1])}; remedy: mole"
            )
        return shares


class MixedLayer(torch.nn.Module):
    """A layer of the base under its parents; None for a parent that does not adapt it."""

    def __init__(self, base_layer: Any, parts: Sequence[Part | None], shares: torch.nn.Module) -> None:
        super().__init__()
        self.base_layer, self.shares, self.number = base_layer, shares, len(parts)
        self.parts = torch.nn.ModuleDict({str(place): part for place, part in enumerate(parts) if part is not None})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.base_layer(x)
        bias = self.base_layer.bias
        plain, none = output if bias is None else output - bias, torch.zeros_like(output)
        found = [self.parts[str(at)](x, plain) if str(at) in self.parts else none for at in range(self.number)]
        return output + _weighed(self.shares, found)


class MixedHead(torch.nn.Module):
    """The heads that the parents trained. `modules_to_save`: as PEFT calls a head's copies."""

    def __init__(self, heads: Sequence[torch.nn.Module], shares: torch.nn.Module) -> None:
        super().__init__()
        self.modules_to_save, self.shares = torch.nn.ModuleList(heads), shares

    def forward(self, *given: Any, **named: Any) -> torch.Tensor:
        return _weighed(self.shares, [head(*given, **named) for head in self.modules_to_save])


def _weighed(shares: torch.nn.Module, outputs: Sequence[torch.Tensor]) -> torch.Tensor:
    """N outputs (…, out) → (…, out)."""
    added = torch.stack(list(outputs), dim=-2)
    return torch.einsum("...n,...no->...o", shares(added), added)


class Mixture(torch.nn.Module):
    """MoLE, one pass: the base with mixed layers. bundles: the parents' digests, in order."""

    def __init__(self, model: Any, kept: Kept, bundles: tuple[bytes, ...]) -> None:
        super().__init__()
        self.model, self.kept, self.bundles = model, kept, bundles

    @property
    def config(self) -> Any:
        return self.model.config

    def get_output_embeddings(self) -> Any:
        return self.model.get_output_embeddings()

    def forward(self, **inputs: Any) -> Any:
        return self.model(**inputs)

    def leave_out(self, bundles: Collection[bytes]) -> None:
        """From now on without these parents; the shares of the others still sum to 1. Raises NothingLeft."""
        unknown = set(bundles) - set(self.bundles)
        if unknown or set(bundles) == set(self.bundles):
            what = f"{sorted(unknown)[0].hex()} is no parent of this mixture" if unknown else "no parent would be left"
            raise NothingLeft(f"{what}; its parents are {[bundle.hex() for bundle in self.bundles]}")
        held: Any = self.kept
        held.those.copy_(torch.tensor([bundle not in bundles for bundle in self.bundles]))


@dataclass(frozen=True, eq=False)
class TwoCaches:
    """What both passes of x-lora remember of the tokens so far."""

    first: Any
    second: Any

    def batch_select_indices(self, rows: torch.Tensor) -> None:
        self.first.batch_select_indices(rows)
        self.second.batch_select_indices(rows)


class XLora(Mixture):
    """X-LoRA, two passes."""

    def __init__(
        self, model: Any, kept: Kept, bundles: tuple[bytes, ...], scalings: Scalings, layers: int, top_k: int
    ) -> None:
        super().__init__(model, kept, bundles)
        self.scalings, self.layers, self.top_k = scalings, layers, top_k
        self.scaling = Gate(int(model.config.hidden_size), layers * len(bundles))

    def forward(self, past_key_values: TwoCaches | None = None, **inputs: Any) -> Any:
        before = (past_key_values.first, past_key_values.second) if past_key_values else (None, None)
        self.scalings.shares = None
        with torch.no_grad():  # nothing that is trained comes before the head
            first = self.model(**inputs, **_cache(before[0]), output_hidden_states=True)
        self.scalings.shares = self._shares(first.hidden_states[-1])
        found = self.model(**inputs, **_cache(before[1]))
        if getattr(found, "past_key_values", None) is not None:
            found.past_key_values = TwoCaches(first.past_key_values, found.past_key_values)
        return found

    def _shares(self, hidden: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, d) → (batch, tokens, layers, N). The top k keep their shares, as in PEFT: they are not
        brought up to 1."""
        logits = self.scaling(hidden).reshape(*hidden.shape[:-1], self.layers, len(self.bundles))
        shares = self.kept.softmax(logits)
        chosen = torch.zeros_like(shares).scatter(-1, shares.topk(self.top_k, dim=-1).indices, 1.0)
        return shares * chosen


def _cache(before: Any) -> dict[str, Any]:
    return {} if before is None else {"past_key_values": before}


def build(
    base: LoadedBase, adapter: AdapterSpec, labels: int, parents: Sequence[Parent], *, four_bit: bool
) -> tuple[Mixture, dict[str, torch.nn.Parameter]]:
    """The base, in 4 bits or as it is, under its parents, and the trained tensors by their names in the adapter file.

    Raises BaseUnusable.
    """
    if tuple(parent.bundle for parent in parents) != adapter.parents:
        raise BaseUnusable(
            f"{LINE}: the parents are not at hand; remedy: take part in the round as a daemon, which reads them from "
            "its content store"
        )
    model: Any = base.build(labels, adapter.head)
    if four_bit:
        quantised.convert(model, adapter.head, base.rounded(model, adapter.head))
    kept, scalings = Kept(len(parents)), Scalings()
    names = sorted({layer for parent in parents for layer in _layers(parent)} | set(adapter.head))
    trained: dict[str, torch.nn.Parameter] = {}
    for place, name in enumerate(names):
        layer = _submodule(model, name)
        heads = [_head(layer, name, parent) for parent in parents] if name in adapter.head else []
        parts = [] if heads else [_part(layer, name, parent) for parent in parents]
        shares: torch.nn.Module = LayerScaling(kept, scalings, place)
        if adapter.method == "mole":
            shares = LayerGate(kept, labels if heads else _sides(layer, name)[0])
            trained[f"{GATE}{name}.weight"] = shares.gate.weight
        _put(model, name, MixedHead(heads, shares) if heads else MixedLayer(layer, parts, shares))
    if adapter.method == "mole":
        mixture = Mixture(model, kept, adapter.parents)
    else:
        mixture = two = XLora(model, kept, adapter.parents, scalings, len(names), adapter.top_k)
        trained = {f"{SCALING}weight": two.scaling.weight, f"{SCALING}bias": two.scaling.bias}
    return mixture.eval().requires_grad_(False), trained


def mixed_adapter(
    base: LoadedBase, method: Method, parents: Sequence[Parent], labels: int, top_k: int = 0
) -> AdapterSpec:
    """What a new config says of a mixture of these parents, whose base in 4 bits, if any, it names too. Raises
    BaseUnusable."""
    head = parents[0].config.adapter.head if parents else ()
    top_k = (top_k or len(parents)) if method == "x-lora" else 0
    spec = AdapterSpec(1, 1, (), head, (), method, (), tuple(parent.bundle for parent in parents), top_k)
    four_bit = any(parent.config.quantised for parent in parents)
    _, trained = build(base, spec, labels, parents, four_bit=four_bit)
    tensors = tuple(TensorSpec(name, tuple(trained[name].shape), "adapter") for name in sorted(trained))
    return replace(spec, tensors=tensors)


def _layers(parent: Parent) -> Iterator[str]:
    """The layers that it adapts, by their names in the base."""
    for name in parent.weights:
        if half_of(name) == "A":
            yield name.removesuffix(".lora_A.weight").removeprefix(PREFIX)


def _tensor(parent: Parent, name: str) -> torch.Tensor:
    return torch.from_numpy(parent.weights[name] * 2.0**-parent.config.weight_bits).float()


def _part(layer: Any, name: str, parent: Parent) -> Part | None:
    """Raises BaseUnusable."""
    where, adapter = f"{PREFIX}{name}", parent.config.adapter
    if f"{where}.lora_A.weight" not in parent.weights:
        return None
    a, b = _tensor(parent, f"{where}.lora_A.weight"), _tensor(parent, f"{where}.lora_B.weight")
    if (b.shape[0], a.shape[1]) != _sides(layer, name):
        raise BaseUnusable(f"{LINE}: {parent.bundle.hex()} has a pair of {b.shape[0]} × {a.shape[1]} for {name}")
    scale = adapter.alpha / (adapter.rank**0.5 if adapter.method == "rslora" else adapter.rank)
    if adapter.method != "dora":
        return Part(a, b, scale, None)
    weight = layer.weight.T if isinstance(layer, Conv1D) else layer.weight
    return Part(a, b, scale, _tensor(parent, where + MAGNITUDE) / (weight + scale * (b @ a)).norm(dim=1))


def _head(layer: torch.nn.Module, name: str, parent: Parent) -> torch.nn.Module:
    """A copy of the base's head with the parent's weights. Raises BaseUnusable."""
    where, head = f"{PREFIX}{name}.", copy.deepcopy(layer)
    found = {key.removeprefix(where): _tensor(parent, key) for key in parent.weights if key.startswith(where)}
    try:
        head.load_state_dict(found)
    except RuntimeError as error:
        raise BaseUnusable(f"{LINE}: {parent.bundle.hex()} has another head {name}: {error}") from error
    return head


def _sides(layer: Any, name: str) -> tuple[int, int]:
    """Outputs and inputs. Raises BaseUnusable."""
    if isinstance(layer, torch.nn.Linear):
        return layer.out_features, layer.in_features
    if isinstance(layer, Conv1D):
        return int(layer.weight.shape[1]), int(layer.weight.shape[0])
    raise BaseUnusable(f"{LINE}: {name} is a {type(layer).__name__}; mixed are Linear layers only")


def _submodule(model: torch.nn.Module, name: str) -> torch.nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise BaseUnusable(f"{LINE}: the base has no layer {name}") from error


def _put(model: torch.nn.Module, name: str, layer: torch.nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)
