"""Exact per-example gradients of adapters and heads, from captured inputs and output gradients.

For a layer y = W x + s·B A x, one example with tokens t, inputs x_t and output gradients g_t has

    dB = s · Σ_t g_t (A x_t)ᵀ        dA = s · Σ_t (Bᵀ g_t) x_tᵀ

and a head y = H x + h has dH = Σ_t g_t x_tᵀ, dh = Σ_t g_t. Under DoRA, y = m ⊙ z / n with z = W x + s·B A x and
n = ‖W + s·B A‖ row by row, which is a constant to the gradient (Liu et al. 2024, section 4.3):

    dm = Σ_t g_t ⊙ z_t / n           dA, dB as above, with g_t ⊙ m / n in the place of g_t

Fused experts are in node.experts. Autograd therefore only needs to carry gradients *between* layers: no parameter asks
for one, the backward pass stops at the first adapted layer, and nothing is computed twice. The result goes to
`grad_sample`, where Opacus' optimizers read it. Stock Opacus hooks (where they work) and single-example backward passes
give the same numbers (tests/training/test_gradients.py, test_methods.py).

A layer that is called twice in one pass (shared weights) simply adds up. A layer that does not see its examples along
the first axis (flattened tokens) has no per-example gradient: `NotPerExample`, before anything is clipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from peft.utils.other import ModulesToSaveWrapper

from node.experts import Experts, SeenExperts, Wanted, capturing_forward, find
from node.mixture import Gate
from node.model import LoadedModel
from proofs.errors import LocalFault


class NotPerExample(LocalFault):
    """The model does not give one gradient per example and parameter, so clipping would bound the wrong thing."""


@dataclass(frozen=True)
class Layer:
    """One layer with trained parameters: a LoRA pair (`a`, `b`, `scale`), under DoRA with its `magnitude`, or a plain
    Linear of the head or of a mixture's gates."""

    name: str
    module: torch.nn.Module
    a: torch.nn.Parameter | None = None
    b: torch.nn.Parameter | None = None
    scale: float = 1.0
    magnitude: torch.nn.Parameter | None = None
    weight: torch.nn.Parameter | None = None
    bias: torch.nn.Parameter | None = None

    @property
    def parameters(self) -> tuple[torch.nn.Parameter | None, ...]:
        return self.a, self.b, self.magnitude, self.weight, self.bias


@dataclass(frozen=True)
class Seen:
    """One layer in one pass. x (batch, …, in) and gradient (batch, …, out); base: W x + bias under DoRA."""

    layer: Layer
    x: torch.Tensor
    gradient: torch.Tensor
    base: torch.Tensor | None = None

    def gradients(self, batch: int, wanted: Wanted) -> Iterator[tuple[torch.nn.Parameter, torch.Tensor]]:
        """(parameter, (batch, *shape)) of the parameters that are trained. Raises NotPerExample."""
        if self.x.shape[0] != batch or self.gradient.shape[0] != batch:
            raise NotPerExample(
                f"{self.layer.name} sees {self.x.shape[0]} rows where the batch has {batch} examples; "
                "its tokens are flattened, so per-example clipping is impossible there"
            )
        x, g = _by_token(self.x, batch), _by_token(self.gradient, batch)
        base = None if self.base is None else _by_token(self.base, batch)
        return _gradients(self.layer, x, g, base, wanted)


@dataclass
class PerExampleGradients:
    """Fills `grad_sample` (batch, *shape) of every trained parameter of one model.

    Parameters keep requires_grad = False throughout; only the tensors between layers carry gradients.
    """

    model: LoadedModel
    layers: tuple[Layer, ...] = field(init=False)
    experts: tuple[Experts, ...] = field(init=False)
    trained: dict[str, torch.nn.Parameter] = field(init=False)

    def __post_init__(self) -> None:
        self.trained = {tensor.name: self.model.parameters[tensor.name] for tensor in self.model.config.adapter.trained}
        self.layers, self.experts = tuple(_layers(self.model)), find(self.model.module)
        covered = {id(parameter) for layer in self.layers for parameter in layer.parameters}
        covered |= {id(parameter) for block in self.experts for parameter in block.parameters}
        for name, parameter in self.trained.items():
            if id(parameter) not in covered:
                raise NotPerExample(f"{name} is in no LoRA pair, gate, or Linear layer of the head")

    def fill(self, ids: Sequence[Sequence[int]], labels: Sequence[int]) -> None:
        """Set `grad_sample` from each example's own loss (LoadedModel.losses): summed, never averaged over the batch.

        Raises NotPerExample when any parameter has another number of gradients than there are examples, and
        NothingToPredict.
        """
        for parameter in self.trained.values():
            parameter.grad_sample = None  # type: ignore[attr-defined]
        with self._capturing(len(ids)) as seen:
            self.model.losses(ids, labels).sum().backward()  # type: ignore[no-untyped-call]
        for one in seen:
            self._add(one, len(ids))
        self._check(len(ids))

    def fill_empty(self) -> None:
        """An empty draw: no example, so gradients of shape (0, *shape)."""
        for parameter in self.trained.values():
            parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))  # type: ignore[attr-defined]

    def _add(self, seen: Seen | SeenExperts, batch: int) -> None:
        for parameter, value in seen.gradients(batch, self._wanted):
            before = parameter.grad_sample  # type: ignore[attr-defined]
            parameter.grad_sample = value if before is None else before + value  # type: ignore[attr-defined]

    def _wanted(self, parameter: torch.nn.Parameter | None) -> bool:
        return any(parameter is one for one in self.trained.values())

    def _check(self, batch: int) -> None:
        for name, parameter in self.trained.items():
            found = parameter.grad_sample  # type: ignore[attr-defined]
            if found is None or found.shape != (batch, *parameter.shape):
                shape = None if found is None else tuple(found.shape)
                raise NotPerExample(f"{name}: expected gradients of shape {(batch, *parameter.shape)}, found {shape}")

    @contextmanager
    def _capturing(self, batch: int) -> Iterator[list[Seen | SeenExperts]]:
        """Hooks on every layer for one forward and backward pass; yields what each has seen, as it comes."""
        seen: list[Seen | SeenExperts] = []
        handles = [handle for layer in self.layers for handle in _hooks(layer, seen)]
        for block in self.experts:
            block.outer.forward = capturing_forward(block, batch, seen)
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()
            for block in self.experts:
                del block.outer.forward


def _hooks(layer: Layer, seen: list[Seen | SeenExperts]) -> Iterator[Any]:
    """One on the layer, and under DoRA one on its base, which runs first."""
    base: list[torch.Tensor] = []

    def on_base(_module: torch.nn.Module, _args: Any, output: torch.Tensor) -> None:
        base[:] = [output.detach()]

    def on_layer(_module: torch.nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if not torch.is_grad_enabled():
            return
        x, below = args[0].detach(), base.pop() if base else None
        if not output.requires_grad:
            output.requires_grad_()  # the first adapted layer: the graph starts here
        output.register_hook(lambda gradient: seen.append(Seen(layer, x, gradient, below)))  # type: ignore[no-untyped-call]

    yield layer.module.register_forward_hook(on_layer)
    if layer.magnitude is not None:
        pair: Any = layer.module
        yield pair.get_base_layer().register_forward_hook(on_base)


def _by_token(rows: torch.Tensor, batch: int) -> torch.Tensor:
    """(batch, …, d) → (batch, tokens, d)."""
    return rows.reshape(batch, -1, rows.shape[-1])


def _gradients(
    layer: Layer, x: torch.Tensor, g: torch.Tensor, base: torch.Tensor | None, wanted: Wanted
) -> Iterator[tuple[torch.nn.Parameter, torch.Tensor]]:
    """x (batch, tokens, in), g (batch, tokens, out) → gradients (batch, *shape) of the parameters that are trained."""
    if layer.a is not None and layer.b is not None:
        low = x @ layer.a.T
        if layer.magnitude is not None and base is not None:
            norm = _norm(layer)
            if wanted(layer.magnitude):
                yield layer.magnitude, torch.einsum("nto,nto->no", g, _unscaled(layer, base, low) / norm)
            g = g * (layer.magnitude / norm)
        if wanted(layer.b):
            yield layer.b, layer.scale * torch.einsum("nto,ntr->nor", g, low)
        if wanted(layer.a):
            yield layer.a, layer.scale * torch.einsum("ntr,nti->nri", g @ layer.b, x)
    if layer.weight is not None:
        yield layer.weight, torch.einsum("nto,nti->noi", g, x)
    if layer.bias is not None:
        yield layer.bias, g.sum(dim=1)


def _norm(layer: Layer) -> torch.Tensor:
    """n (out,), by PEFT's own arithmetic."""
    pair: Any = layer.module
    dora, lora = pair.lora_magnitude_vector["default"], pair.lora_B["default"].weight @ pair.lora_A["default"].weight
    found: torch.Tensor = dora.get_weight_norm(pair.get_base_layer().weight, lora, layer.scale)
    return found.detach()


def _unscaled(layer: Layer, base: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    """z = W x + s·B A x; base: W x + bias, low: A x."""
    pair: Any = layer.module
    bias, high = pair.get_base_layer().bias, pair.lora_B["default"].weight
    found: torch.Tensor = layer.scale * (low @ high.T) + base
    return found if bias is None else found - bias


def _layers(model: LoadedModel) -> Iterator[Layer]:
    for name, module in model.module.named_modules():
        if isinstance(module, LoraLayer) and not isinstance(module, ParamWrapper):
            pair: Any = module
            a, b, dora = pair.lora_A["default"].weight, pair.lora_B["default"].weight, pair.lora_magnitude_vector
            magnitude = dora["default"].weight if pair.use_dora["default"] else None
            yield Layer(name, module, a=a, b=b, scale=float(pair.scaling["default"]), magnitude=magnitude)
        elif isinstance(module, Gate):
            yield Layer(name, module, weight=module.weight, bias=module.bias)
        elif isinstance(module, ModulesToSaveWrapper):
            copy: Any = module.modules_to_save["default"]
            for part_name, part in copy.named_modules():
                if isinstance(part, torch.nn.Linear):
                    linear: Any = part
                    yield Layer(f"{name}.{part_name}", linear, weight=linear.weight, bias=linear.bias)
