"""Fused experts with LoRA pairs: one gradient for each example, not for each token.

In a mixture-of-experts block the tokens of all examples lie in one axis, and each goes to a few experts, whose matrices
are slices of one tensor. PEFT gives every expert e a pair in one parameter: rows e·r … of A, columns r·E of B, and adds
s·B_e A_e to each matrix before the block runs. Here the block runs pair by pair instead, y = W_e x + s·B_e A_e x on the
tokens sorted by expert and then by example, so that the tokens of one example at one expert are consecutive, and

    dB[n, e] = s Σ g (A_e x)ᵀ        dA[n, e] = s Σ (B_eᵀ g) xᵀ        over the tokens of example n at expert e

are products of those rows, which are padded to the longest run. The router is frozen, and its choice a function of the
token alone. `candor-node doctor` and the tests compare with PEFT's own forward pass, one example at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora.layer import ParamWrapper

from ledger.base_files import BaseUnusable

MATRICES = ("gate_up_proj", "down_proj")

Wanted = Callable[[torch.nn.Parameter | None], bool]


def check(path: Path, name: str, wrapper: Any) -> None:
    """Only experts of the common form are known: gate and up projection in one tensor, no biases. Raises
    BaseUnusable."""
    block = wrapper.get_base_layer()
    sides = [getattr(getattr(block, matrix, None), "ndim", 0) for matrix in MATRICES]
    known = sides == [3, 3] and wrapper.parameter_name in MATRICES and hasattr(block, "_apply_gate")
    if not known or block.is_transposed or block.has_bias or not block.has_gate:
        raise BaseUnusable(
            f"{path}: config.adapter.experts: {name} ({type(block).__name__}.{wrapper.parameter_name}) is not of the "
            f"form that has per-example gradients here: fused {' and '.join(MATRICES)} of Mixtral's kind"
        )


@dataclass(frozen=True, eq=False)
class Experts:
    """One block of experts. `outer`: PEFT's outermost wrapper, whose forward pass is replaced while capturing."""

    name: str
    outer: Any
    block: Any
    pairs: dict[str, Any]

    @property
    def parameters(self) -> Iterator[torch.nn.Parameter]:
        for pair in self.pairs.values():
            yield pair.lora_A["default"].weight
            yield pair.lora_B["default"].weight


@dataclass(frozen=True)
class Runs:
    """Tokens sorted by expert, then by example: where each (expert, example) has its rows, padded to the longest.

    place: (tokens,) row of each in (E·n·longest). counts: tokens of each expert.
    """

    place: torch.Tensor
    counts: list[int]
    groups: int
    longest: int

    def padded(self, rows: torch.Tensor) -> torch.Tensor:
        """(tokens, d) → (E·n, longest, d), zeros where an example has fewer."""
        found = rows.new_zeros((self.groups * self.longest, rows.shape[1]))
        found[self.place] = rows
        return found.reshape(self.groups, self.longest, -1)


@dataclass(frozen=True)
class SeenExperts:
    """One matrix of one block in one pass: inputs and output gradients of all its tokens, sorted."""

    experts: Experts
    matrix: str
    runs: Runs
    x: torch.Tensor
    gradient: torch.Tensor

    def gradients(self, batch: int, wanted: Wanted) -> Iterator[tuple[torch.nn.Parameter, torch.Tensor]]:
        """(parameter, (batch, *shape)) of the pair's parameters that are trained."""
        pair = self.experts.pairs[self.matrix]
        a, b, scale = pair.lora_A["default"].weight, pair.lora_B["default"].weight, float(pair.scaling["default"])
        low, high = _by_expert(pair)
        x, g = self.runs.padded(self.x), self.runs.padded(self.gradient)
        number = pair.num_experts
        grouped = (number, batch * self.runs.longest, -1)
        if wanted(b):
            inner = torch.bmm(x.reshape(grouped), low.transpose(1, 2)).reshape(*x.shape[:2], -1)
            value = scale * torch.bmm(g.transpose(1, 2), inner)
            yield b, value.reshape(number, batch, *value.shape[1:]).permute(1, 2, 3, 0).reshape(batch, *b.shape)
        if wanted(a):
            outer = torch.bmm(g.reshape(grouped), high).reshape(*g.shape[:2], -1)
            value = scale * torch.bmm(outer.transpose(1, 2), x)
            yield a, value.reshape(number, batch, *value.shape[1:]).transpose(0, 1).reshape(batch, *a.shape)


def find(model: PeftModel) -> tuple[Experts, ...]:
    """Every block of experts with a pair on it."""
    found: dict[int, Experts] = {}
    for name, module in model.named_modules():
        if isinstance(module, ParamWrapper):
            block = module.get_base_layer()
            outermost = found.setdefault(id(block), Experts(name, module, block, {}))
            outermost.pairs[module.parameter_name] = module
    return tuple(found.values())


def capturing_forward(experts: Experts, batch: int, seen: list[Any]) -> Callable[..., torch.Tensor]:
    """A forward pass of the block for `batch` examples that appends a SeenExperts for each adapted matrix."""

    def forward(x: torch.Tensor, choice: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """x (tokens, d) in the order of examples; choice and shares (tokens, k): which experts, how much of each."""
        order, token, runs = _sorted(choice, x.shape[0] // batch, experts.block.num_experts, batch)
        inner = _project(experts, "gate_up_proj", x[token], runs, seen)
        outputs = _project(experts, "down_proj", experts.block._apply_gate(inner), runs, seen)
        weighted = outputs * shares.reshape(-1)[order][:, None]
        return torch.zeros_like(x).index_add_(0, token, weighted.to(x.dtype))

    return forward


def _sorted(choice: torch.Tensor, width: int, number: int, batch: int) -> tuple[torch.Tensor, torch.Tensor, Runs]:
    """(order of the choices, token of each, where it lies). Sorting is stable: examples stay together."""
    chosen = choice.reshape(-1)
    token = torch.arange(choice.shape[0], device=choice.device).repeat_interleave(choice.shape[1])
    key, order = torch.sort(chosen * batch + token // width, stable=True)
    token = token[order]
    counts = torch.bincount(key, minlength=number * batch)
    longest = int(counts.max())
    within = torch.arange(len(key), device=key.device) - (counts.cumsum(0) - counts)[key]
    by_expert = counts.reshape(number, batch).sum(dim=1).tolist()
    return order, token, Runs(key * longest + within, by_expert, number * batch, longest)


def _project(experts: Experts, matrix: str, x: torch.Tensor, runs: Runs, seen: list[Any]) -> torch.Tensor:
    """(tokens, in) → (tokens, out): each expert's matrix on its own rows, with its pair where it has one."""
    weights, pair = getattr(experts.block, matrix), experts.pairs.get(matrix)
    parts: Sequence[torch.Tensor] = torch.split(x, runs.counts)
    outputs = [torch.nn.functional.linear(part, weight) for part, weight in zip(parts, weights, strict=True)]
    if pair is not None:
        low, high = _by_expert(pair)
        scale = float(pair.scaling["default"])
        outputs = [
            torch.addmm(out, part @ a.T, b.T, alpha=scale)
            for out, part, a, b in zip(outputs, parts, low, high, strict=True)
        ]
    found = torch.cat(outputs)
    if pair is not None and torch.is_grad_enabled():
        if not found.requires_grad:
            found.requires_grad_()  # the first adapted layer: the graph starts here
        kept = x.detach()
        found.register_hook(  # type: ignore[no-untyped-call]
            lambda gradient: seen.append(SeenExperts(experts, matrix, runs, kept, gradient))
        )
    return found


def _by_expert(pair: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """A (E, r, in) and B (E, out, r), laid out as PEFT's ParamWrapper does."""
    a, b, number = pair.lora_A["default"].weight, pair.lora_B["default"].weight, pair.num_experts
    return a.reshape(number, -1, a.shape[1]), b.reshape(b.shape[0], -1, number).permute(2, 0, 1)
