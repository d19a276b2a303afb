"""Do the fast per-example gradients agree, on the user's own model and rows, with one ordinary backward pass each?"""

from __future__ import annotations

import torch

from ledger.config import Config
from node.gradients import NotPerExample, PerExampleGradients
from node.model import Weights, attach, genesis
from node.trainer import ModelTrainer

EXAMPLES = 4
TOLERANCE = 1e-3  # relative to the largest entry; rounding differs by about 1e-6, a wrong formula by about 1


def check_gradients(trainer: ModelTrainer, config: Config) -> float:
    """Largest difference found, relative to the parameter's largest gradient. Raises NotPerExample, or LocalFault."""
    model, dataset = attach(trainer.base(), config), trainer.dataset(config)
    model.load_weights(_start(config))
    ids, labels = model.encode(dataset.texts[:EXAMPLES]), dataset.labels[:EXAMPLES]
    fast = PerExampleGradients(model)
    fast.fill(ids, labels)
    batched = {name: parameter.grad_sample.clone() for name, parameter in fast.trained.items()}  # type: ignore[attr-defined]
    worst = 0.0
    for row in range(len(ids)):
        single = _single(fast, ids[row], labels[row])
        for name, gradient in single.items():
            scale = float(gradient.abs().max()) or 1.0
            worst = max(worst, float((batched[name][row] - gradient).abs().max()) / scale)
    if worst > TOLERANCE:
        raise NotPerExample(f"per-example gradients differ from single passes by {worst:.1e} of their size")
    return worst


def _single(fast: PerExampleGradients, ids: list[int], label: int) -> dict[str, torch.Tensor]:
    """One example through autograd alone, no hooks."""
    for parameter in fast.trained.values():
        parameter.requires_grad_(True)
    try:
        loss = fast.model.losses([ids], [label]).sum()
        gradients = torch.autograd.grad(loss, list(fast.trained.values()))
    finally:
        for parameter in fast.trained.values():
            parameter.requires_grad_(False)
    return dict(zip(fast.trained, gradients, strict=True))


def _start(config: Config) -> Weights:
    """Random everywhere, the B factors too: where B is zero, A has no gradient to compare."""
    weights = genesis(config.adapter.tensors, config.weight_bits, "candor doctor")
    generator = torch.Generator().manual_seed(1)
    for tensor in config.adapter.trained:
        if not weights[tensor.name].any():
            drawn = torch.randint(-1000, 1001, tensor.shape, generator=generator)
            weights[tensor.name] = drawn.numpy()
    return weights
