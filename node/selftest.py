"""Are the fast per-example gradients right, on the user's own model, rows and device? Tried before a member trains.

NotPerExample   one of these does not hold; the text names the layer
    each example's gradient is what one ordinary backward pass of that example alone gives
    another example's text and label change nothing in it
    an empty draw has gradients of no example
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ledger.config import Config
from node.gradients import NotPerExample, PerExampleGradients
from node.model import Weights, first_weights
from node.trainer import ModelTrainer

EXAMPLES = 4
TOLERANCE = 1e-4  # relative to the largest entry; rounding differs by about 1e-6, a wrong formula by about 1

Samples = dict[str, torch.Tensor]


def check_gradients(trainer: ModelTrainer, config: Config) -> float:
    """Largest difference found, relative to the parameter's largest gradient. Raises NotPerExample, or LocalFault."""
    from node.training import pick_device

    model, dataset = trainer.attach(config), trainer.dataset(config)
    model.to(pick_device(trainer.device)).load_weights(_start(trainer, config))
    if trainer.checkpointing:
        model.checkpoint()
    ids, labels = model.encode(dataset.texts[:EXAMPLES]), dataset.labels[:EXAMPLES]
    fast = PerExampleGradients(model)
    together = _batch(fast, ids, labels)
    worst = 0.0
    for row in range(len(ids)):
        single = _single(fast, ids[row], labels[row])
        worst = max(worst, _agree({name: value[row] for name, value in together.items()}, single, "a single pass"))
    neighbour = [ids[0][::-1], *ids[1:]], [(labels[0] + 1) % max(1, len(config.task.labels)), *labels[1:]]
    other = _batch(fast, *neighbour)
    for row in range(1, len(ids)):
        rows = [{name: value[row] for name, value in samples.items()} for samples in (other, together)]
        worst = max(worst, _agree(rows[0], rows[1], "what it is beside another example"))
    _check_empty(fast)
    return worst


def _batch(fast: PerExampleGradients, ids: Sequence[list[int]], labels: Sequence[int]) -> Samples:
    fast.fill(ids, labels)
    return {name: parameter.grad_sample.clone() for name, parameter in fast.trained.items()}  # type: ignore[attr-defined]


def _agree(found: Samples, expected: Samples, what: str) -> float:
    """The largest relative difference. Raises NotPerExample."""
    worst = 0.0
    for name, gradient in expected.items():
        scale = float(gradient.abs().max()) or 1.0
        difference = float((found[name] - gradient).abs().max()) / scale
        if not difference <= TOLERANCE:
            raise NotPerExample(f"{name}: an example's gradient differs from {what} by {difference:.1e} of its size")
        worst = max(worst, difference)
    return worst


def _check_empty(fast: PerExampleGradients) -> None:
    fast.fill_empty()
    for name, parameter in fast.trained.items():
        if parameter.grad_sample.shape != (0, *parameter.shape):  # type: ignore[attr-defined]
            raise NotPerExample(f"{name}: an empty draw has a gradient")


def _single(fast: PerExampleGradients, ids: list[int], label: int) -> Samples:
    """One example through autograd alone, no hooks, by PEFT's own forward pass."""
    for parameter in fast.trained.values():
        parameter.requires_grad_(True)
    try:
        loss = fast.model.losses([ids], [label]).sum()
        gradients = torch.autograd.grad(loss, list(fast.trained.values()))
    finally:
        for parameter in fast.trained.values():
            parameter.requires_grad_(False)
    return dict(zip(fast.trained, gradients, strict=True))


def _start(trainer: ModelTrainer, config: Config) -> Weights:
    """Random everywhere, the B factors too: where B is zero, A has no gradient to compare."""
    weights = first_weights(trainer.base(), config, "candor doctor")
    generator = torch.Generator().manual_seed(1)
    for tensor in config.adapter.trained:
        if not weights[tensor.name].any():
            drawn = torch.randint(-1000, 1001, tensor.shape, generator=generator)
            weights[tensor.name] = drawn.numpy()
    return weights
