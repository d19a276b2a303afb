"""Fused experts with LoRA pairs: one gradient for each example, not for each token.

In a mixture-of-experts block the tokens of all examples lie in one axis, and each goes to a few experts, whose matrices
are slices of one tensor. PEFT gives every expert e a pair in one parameter: rows e·r … of A, columns r·E of B, and adds
s·B_e A_e to each matrix before the block runs. Here the block runs pair by pair instead, y = W_e x + s·B_e A_e x on the
tokens sorted by expert, which remember whose they are, and

    dB[n, e] = s Σ g (A_e x)ᵀ        dA[n, e] = s Σ (B_eᵀ g) xᵀ        over the tokens of example n at expert e

The router is frozen, and its choice a function of the token alone. `candor-node doctor` and the tests compare with
PEFT's own forward pass, one example at a time.
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
    """Tokens sorted by expert. example: (tokens,) whose each is. counts: tokens of each expert."""

    example: torch.Tensor
    counts: list[int]

    def sums(self, batch: int, low: torch.Tensor, wide: torch.Tensor) -> Iterator[torch.Tensor]:
        """For each expert Σ low·wideᵀ over each example's tokens, (batch, r, d); low (tokens, r), wide (tokens, d).

        One product for each expert: rows of `low` are spread over the examples that they belong to.
        """
        which = torch.nn.functional.one_hot(self.example, batch).to(low.dtype)
        for one, rows, columns in zip(*(torch.split(part, self.counts) for part in (which, low, wide)), strict=True):
            spread = torch.einsum("tn,tr->nrt", one, rows).flatten(0, 1)
            yield (spread @ columns).reshape(batch, -1, columns.shape[1])


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
        if wanted(b):
            inner = scale * self._each(self.x, low.transpose(1, 2))
            sums = list(self.runs.sums(batch, inner, self.gradient))
            yield b, torch.stack(sums, dim=-1).transpose(1, 2).reshape(batch, *b.shape)
        if wanted(a):
            outer = scale * self._each(self.gradient, high)
            yield a, torch.stack(list(self.runs.sums(batch, outer, self.x)), dim=1).reshape(batch, *a.shape)

    def _each(self, rows: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
        """(tokens, d) by each expert's own (d, r) → (tokens, r)."""
        parts = torch.split(rows, self.runs.counts)
        return torch.cat([part @ matrix for part, matrix in zip(parts, matrices, strict=True)])


Take = Callable[[SeenExperts], None]


def find(model: PeftModel) -> tuple[Experts, ...]:
    """Every block of experts with a pair on it."""
    found: dict[int, Experts] = {}
    for name, module in model.named_modules():
        if isinstance(module, ParamWrapper):
            block = module.get_base_layer()
            outermost = found.setdefault(id(block), Experts(name, module, block, {}))
            outermost.pairs[module.parameter_name] = module
    return tuple(found.values())


def capturing_forward(experts: Experts, batch: int, take: Take) -> Callable[..., torch.Tensor]:
    """A forward pass of the block for `batch` examples; `take` gets what each adapted matrix saw, on the way back."""

    def forward(x: torch.Tensor, choice: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """x (tokens, d) in the order of examples; choice and shares (tokens, k): which experts, how much of each."""
        order, token, runs = _sorted(choice, x.shape[0] // batch, experts.block.num_experts)
        inner = _project(experts, "gate_up_proj", x[token], runs, take)
        outputs = _project(experts, "down_proj", experts.block._apply_gate(inner), runs, take)
        weighted = outputs * shares.reshape(-1)[order][:, None]
        return torch.zeros_like(x).index_add_(0, token, weighted.to(x.dtype))

    return forward


def _sorted(choice: torch.Tensor, width: int, number: int) -> tuple[torch.Tensor, torch.Tensor, Runs]:
    """(order of the choices, token of each, whose it is and at which expert)."""
    token = torch.arange(choice.shape[0], device=choice.device).repeat_interleave(choice.shape[1])
    chosen, order = torch.sort(choice.reshape(-1), stable=True)
    token = token[order]
    return order, token, Runs(token // width, torch.bincount(chosen, minlength=number).tolist())


def _project(experts: Experts, matrix: str, x: torch.Tensor, runs: Runs, take: Take) -> torch.Tensor:
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
            lambda gradient: take(SeenExperts(experts, matrix, runs, kept, gradient))
        )
    return found


def _by_expert(pair: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """A (E, r, in) and B (E, out, r), laid out as PEFT's ParamWrapper does."""
    a, b, number = pair.lora_A["default"].weight, pair.lora_B["default"].weight, pair.num_experts
    return a.reshape(number, -1, a.shape[1]), b.reshape(b.shape[0], -1, number).permute(2, 0, 1)
