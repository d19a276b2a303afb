"""Exact per-example gradients of adapters and heads, from inputs and output gradients of layers.

For a layer y = W x + s·B A x, one example with tokens t, inputs x_t and output gradients g_t has

    dB = s · Σ_t g_t (A x_t)ᵀ        dA = s · Σ_t (Bᵀ g_t) x_tᵀ

and a head y = H x + h has dH = Σ_t g_t x_tᵀ, dh = Σ_t g_t. Under DoRA, y = m ⊙ z / n with z = W x + s·B A x and
n = ‖W + s·B A‖ row by row, which is a constant to the gradient (Liu et al. 2024, section 4.3):

    dm = Σ_t g_t ⊙ z_t / n           dA, dB as above, with g_t ⊙ m / n in the place of g_t

Fused experts are in node.experts. While gradients are taken, each layer runs as one operation that keeps A x and z from
its forward pass and hands in its examples' gradients in its backward pass. Autograd only carries gradients *between*
layers: no parameter asks for one, the backward pass stops at the first adapted layer, nothing is computed twice. The
result goes to `grad_sample`, where Opacus' optimizers read it. Stock Opacus hooks (where they work) and single-example
backward passes through PEFT's own layers give the same numbers (tests/training/test_gradients.py, test_methods.py).

A layer that is called twice in one pass (shared weights) simply adds up. A layer that does not see its examples along
the first axis (flattened tokens) has no per-example gradient: `NotPerExample`, before anything is clipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from peft.utils.other import ModulesToSaveWrapper

from node.experts import Experts, SeenExperts, capturing_forward, find
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
        with self._capturing(len(ids)):
            self.model.losses(ids, labels).sum().backward()  # type: ignore[no-untyped-call]
        self._check(len(ids))

    def fill_empty(self) -> None:
        """An empty draw: no example, so gradients of shape (0, *shape)."""
        for parameter in self.trained.values():
            parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))  # type: ignore[attr-defined]

    def wanted(self, parameter: torch.nn.Parameter | None) -> bool:
        """Is it trained?"""
        return any(parameter is one for one in self.trained.values())

    def add(self, parameter: Any, gradients: torch.Tensor) -> None:
        """What a layer has in one pass: gradients (batch, *shape) of one of its parameters."""
        before = parameter.grad_sample
        parameter.grad_sample = gradients if before is None else before + gradients

    def _check(self, batch: int) -> None:
        for name, parameter in self.trained.items():
            found = parameter.grad_sample  # type: ignore[attr-defined]
            if found is None or found.shape != (batch, *parameter.shape):
                shape = None if found is None else tuple(found.shape)
                raise NotPerExample(f"{name}: expected gradients of shape {(batch, *parameter.shape)}, found {shape}")

    @contextmanager
    def _capturing(self, batch: int) -> Iterator[None]:
        """For one forward and backward pass, layers and experts run in the form that hands in gradients."""

        def take(seen: SeenExperts) -> None:
            for parameter, gradients in seen.gradients(batch, self.wanted):
                self.add(parameter, gradients)

        modules: list[Any] = [layer.module for layer in self.layers]
        forwards = [_capturing_forward(self, layer, batch) for layer in self.layers]
        for block in self.experts:
            modules.append(block.outer)
            forwards.append(capturing_forward(block, batch, take))
        before = [vars(module).get("forward") for module in modules]  # hooks of other libraries stand there
        try:
            for module, forward in zip(modules, forwards, strict=True):
                module.forward = forward
            yield
        finally:
            for module, own in zip(modules, before, strict=True):
                del module.forward
                if own is not None:
                    module.forward = own


def _capturing_forward(owner: PerExampleGradients, layer: Layer, batch: int) -> Callable[[torch.Tensor], Any]:
    """The layer's forward pass for `batch` examples, x (batch, …, in) → (batch, …, out). Raises NotPerExample."""
    module: Any = layer.module
    base: Any = module.forward if layer.a is None else module.get_base_layer()

    def forward(x: torch.Tensor) -> Any:
        if x.shape[0] != batch:
            raise NotPerExample(
                f"{layer.name} sees {x.shape[0]} rows where the batch has {batch} examples; its first axis is not that "
                "of the examples, so per-example clipping is impossible there"
            )
        y = base(x)
        if layer.a is None:
            return _head(_START, y, x, layer, owner)
        if layer.magnitude is None:
            return _pair(_START, y, x, layer, owner)
        unbiased = y if base.bias is None else y - base.bias
        return _magnitude(_pair(_START, unbiased, x, layer, owner), base.bias, layer, owner)

    return forward


class _Head(torch.autograd.Function):
    """y → y, of a layer that is trained itself."""

    @staticmethod
    def forward(ctx: Any, _start: Any, y: torch.Tensor, x: torch.Tensor, layer: Any, owner: Any) -> torch.Tensor:
        ctx.layer, ctx.owner = layer, owner
        ctx.save_for_backward(x)
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        layer, (x,) = ctx.layer, ctx.saved_tensors
        ctx.owner.add(layer.weight, _by_token(g).mT @ _by_token(x))
        if layer.bias is not None:
            ctx.owner.add(layer.bias, _by_token(g).sum(dim=1))
        return None, g, None, None, None


class _Pair(torch.autograd.Function):
    """W x → z = W x + s·B A x."""

    @staticmethod
    def forward(ctx: Any, _start: Any, base: torch.Tensor, x: torch.Tensor, layer: Any, owner: Any) -> torch.Tensor:
        ctx.layer, ctx.owner = layer, owner
        low = torch.nn.functional.linear(x, layer.a)
        ctx.save_for_backward(x if owner.wanted(layer.a) else None, low)
        rows, low_rows = base.reshape(-1, base.shape[-1]), low.reshape(-1, low.shape[-1])
        return torch.addmm(rows, low_rows, layer.b.T, alpha=layer.scale).view(base.shape)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        layer, wanted, (x, low) = ctx.layer, ctx.owner.wanted, ctx.saved_tensors
        inner = layer.scale * (g @ layer.b)
        if wanted(layer.b):
            ctx.owner.add(layer.b, _by_token(g).mT @ _by_token(layer.scale * low))
        if wanted(layer.a):
            ctx.owner.add(layer.a, _by_token(inner).mT @ _by_token(x))
        return None, g, inner @ layer.a if ctx.needs_input_grad[2] else None, None, None


class _Magnitude(torch.autograd.Function):
    """z → y = m ⊙ z / n + bias."""

    @staticmethod
    def forward(ctx: Any, z: torch.Tensor, bias: torch.Tensor | None, layer: Any, owner: Any) -> torch.Tensor:
        ctx.layer, ctx.owner, norm = layer, owner, _norm(layer)
        ctx.save_for_backward(z, norm)
        return z * (layer.magnitude / norm) if bias is None else torch.addcmul(bias, z, layer.magnitude / norm)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        layer, (z, norm) = ctx.layer, ctx.saved_tensors
        if ctx.owner.wanted(layer.magnitude):
            ctx.owner.add(layer.magnitude, _by_token(g * z).sum(dim=1) / norm)
        return g * (layer.magnitude / norm), None, None, None


_head: Any = _Head.apply
_pair: Any = _Pair.apply
_magnitude: Any = _Magnitude.apply
_START = torch.zeros((), requires_grad=True)  # an argument by which the first adapted layer is in autograd's graph


def _by_token(rows: torch.Tensor) -> torch.Tensor:
    """(batch, …, d) → (batch, tokens, d)."""
    return rows.reshape(rows.shape[0], -1, rows.shape[-1])


def _norm(layer: Layer) -> torch.Tensor:
    """n (out,), by PEFT's own arithmetic."""
    pair: Any = layer.module
    dora, lora = pair.lora_magnitude_vector["default"], pair.lora_B["default"].weight @ pair.lora_A["default"].weight
    found: torch.Tensor = dora.get_weight_norm(pair.get_base_layer().weight, lora, layer.scale)
    return found.detach()


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
