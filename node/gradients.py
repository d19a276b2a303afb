"""Exact per-example gradients of LoRA pairs and heads, from captured inputs and output gradients.

For a layer y = W x + s·B A x, one example with tokens t, inputs x_t and output gradients g_t has

    dB = s · Σ_t g_t (A x_t)ᵀ        dA = s · Σ_t (Bᵀ g_t) x_tᵀ

and a head y = H x + h has dH = Σ_t g_t x_tᵀ, dh = Σ_t g_t. Autograd therefore only needs to carry gradients *between*
layers: no parameter asks for one, the backward pass stops at the first adapted layer, and nothing is computed twice.
The result goes to `grad_sample`, where Opacus' optimizers read it. Stock Opacus hooks and single-example backward
passes give the same numbers (tests/training/test_gradients.py).

A layer that is called twice in one pass (shared weights) simply adds up. A layer that does not see its examples along
the first axis (flattened tokens, experts) has no per-example gradient: `NotPerExample`, before anything is clipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.utils.other import ModulesToSaveWrapper

from node.model import LoadedModel
from proofs.errors import LocalFault


class NotPerExample(LocalFault):
    """The model does not give one gradient per example and parameter, so clipping would bound the wrong thing."""


@dataclass(frozen=True)
class Layer:
    """One layer with trained parameters: a LoRA pair (`a`, `b`, `scale`) or a plain Linear of the head."""

    name: str
    module: torch.nn.Module
    a: torch.nn.Parameter | None = None
    b: torch.nn.Parameter | None = None
    scale: float = 1.0
    weight: torch.nn.Parameter | None = None
    bias: torch.nn.Parameter | None = None


@dataclass
class PerExampleGradients:
    """Fills `grad_sample` (batch, *shape) of every trained parameter of one model.

    Parameters keep requires_grad = False throughout; only the tensors between layers carry gradients.
    """

    model: LoadedModel
    layers: tuple[Layer, ...] = field(init=False)
    trained: dict[str, torch.nn.Parameter] = field(init=False)

    def __post_init__(self) -> None:
        self.trained = {tensor.name: self.model.parameters[tensor.name] for tensor in self.model.config.adapter.trained}
        self.layers = tuple(_layers(self.model))
        covered = {id(p) for layer in self.layers for p in (layer.a, layer.b, layer.weight, layer.bias)}
        for name, parameter in self.trained.items():
            if id(parameter) not in covered:
                raise NotPerExample(f"{name} is in neither a LoRA pair nor a Linear layer of the head")

    def fill(self, ids: Sequence[Sequence[int]], labels: Sequence[int]) -> None:
        """Set `grad_sample` from each example's own loss (LoadedModel.losses): summed, never averaged over the batch.

        Raises NotPerExample when any parameter has another number of gradients than there are examples, and
        NothingToPredict.
        """
        for parameter in self.trained.values():
            parameter.grad_sample = None  # type: ignore[attr-defined]
        with _capturing(self.layers) as seen:
            self.model.losses(ids, labels).sum().backward()  # type: ignore[no-untyped-call]
        for layer, x, gradient in seen:
            self._add(layer, x, gradient, len(ids))
        self._check(len(ids))

    def fill_empty(self) -> None:
        """An empty draw: no example, so gradients of shape (0, *shape)."""
        for parameter in self.trained.values():
            parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))  # type: ignore[attr-defined]

    def _add(self, layer: Layer, x: torch.Tensor, gradient: torch.Tensor, batch: int) -> None:
        if x.shape[0] != batch or gradient.shape[0] != batch:
            raise NotPerExample(
                f"{layer.name} sees {x.shape[0]} rows where the batch has {batch} examples; "
                "its tokens are flattened, so per-example clipping is impossible there"
            )
        x, gradient = x.reshape(batch, -1, x.shape[-1]), gradient.reshape(batch, -1, gradient.shape[-1])
        for parameter, value in _gradients(layer, x, gradient, self._wanted):
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


Seen = list[tuple[Layer, torch.Tensor, torch.Tensor]]


@contextmanager
def _capturing(layers: Sequence[Layer]) -> Iterator[Seen]:
    """Hooks on every layer for one forward and backward pass; yields (layer, input, output gradient) as they come."""
    seen: Seen = []
    handles = [layer.module.register_forward_hook(_capture(layer, seen)) for layer in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _capture(layer: Layer, seen: Seen) -> Any:
    def hook(_module: torch.nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        x = args[0].detach()
        if not output.requires_grad:
            output.requires_grad_()  # the first adapted layer: the graph starts here
        output.register_hook(lambda gradient: seen.append((layer, x, gradient)))  # type: ignore[no-untyped-call]

    return hook


def _gradients(
    layer: Layer, x: torch.Tensor, g: torch.Tensor, wanted: Any
) -> Iterator[tuple[torch.nn.Parameter, torch.Tensor]]:
    """x (batch, tokens, in), g (batch, tokens, out) → gradients (batch, *shape) of the parameters that are trained."""
    if layer.a is not None and layer.b is not None:
        if wanted(layer.b):
            yield layer.b, layer.scale * torch.einsum("nto,ntr->nor", g, x @ layer.a.T)
        if wanted(layer.a):
            yield layer.a, layer.scale * torch.einsum("ntr,nti->nri", g @ layer.b, x)
    if layer.weight is not None:
        yield layer.weight, torch.einsum("nto,nti->noi", g, x)
    if layer.bias is not None:
        yield layer.bias, g.sum(dim=1)


def _layers(model: LoadedModel) -> Iterator[Layer]:
    for name, module in model.module.named_modules():
        if isinstance(module, LoraLayer):
            pair: Any = module
            a, b = pair.lora_A["default"].weight, pair.lora_B["default"].weight
            yield Layer(name, module, a=a, b=b, scale=float(pair.scaling["default"]))
        elif isinstance(module, ModulesToSaveWrapper):
            copy: Any = module.modules_to_save["default"]
            for part_name, part in copy.named_modules():
                if isinstance(part, torch.nn.Linear):
                    linear: Any = part
                    yield Layer(f"{name}.{part_name}", linear, weight=linear.weight, bias=linear.bias)
