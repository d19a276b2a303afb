"""One step of training, three ways: `python -m benchmarks.training`.

On the same batch, one thread, interleaved, as ratios to the first:

    plain     the LoRA step without privacy: mean loss, torch's backward pass, SGD
    opacus    stock Opacus: hooks on the same layers, DPOptimizer with flat clipping and float noise
    candor    this repository's step: per-pair gradients, clip per group, integers, words, noise table, public optimizer

The last line splits off what the integers cost: noise from words, clipping to the grid, the release.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer

from devnet import notes
from devnet.presets import MINILM, TINY, Preset, make_config
from ledger.config import Config
from ledger.records import Policy
from ledger.tensors import Weights, flatten
from node.data import Dataset, row_bytes
from node.gradients import PerExampleGradients
from node.grid_optimizer import GridOptimizer
from node.model import LoadedModel, attach, load_base
from node.training import MICROBATCH, TrainingJob, step_noise
from proofs.gaussian import noise_table
from proofs.words import Binding, SecretWords

REPETITIONS = 9
BINDING = Binding(31337, bytes(20), 1, 0)

Step = Callable[[], None]


@dataclass(frozen=True)
class Bench:
    """One microbatch of a preset's notes, and what is needed for a step on it."""

    preset: Preset
    config: Config
    weights: Weights
    data: Dataset

    def model(self) -> LoadedModel:
        model = attach(load_base(self.preset.base_path), self.config)
        model.load_weights(self.weights)
        return model


def main() -> None:
    """Prints one table of ratios per preset."""
    torch.set_num_threads(1)
    for preset in (TINY, MINILM):
        compare(prepare(preset))


def prepare(preset: Preset) -> Bench:
    config, weights = make_config(
        preset, epsilon=preset.epsilon, rounds=1, policy=Policy(1, 1, 1, 1, 1, 1, 1, False, 1)
    )
    lot = notes.members(1, MICROBATCH, 7)[0]
    rows = [row_bytes(note.text, note.label) for note in lot]
    data = Dataset(rows, [note.text for note in lot], [notes.LABELS.index(note.label) for note in lot])
    return Bench(preset, config, weights, data)


def compare(bench: Bench) -> None:
    steps = {"plain": plain(bench), "opacus": opacus(bench), "candor": candor(bench), "integers": integers(bench)}
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for repetition in range(REPETITIONS + 2):  # the first two warm caches up
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            if repetition >= 2:
                taken[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    print(f"\n{bench.preset.name}: {len(bench.data)} notes, {bench.config.adapter.parameters:,} trained parameters")
    print(f"  LoRA step without privacy      1.00   ({1000 * medians['plain']:.0f} ms)")
    print(f"  stock Opacus hooks           {medians['opacus'] / medians['plain']:6.2f}")
    print(f"  this repository              {medians['candor'] / medians['plain']:6.2f}")
    print(f"    of which words and noise   {medians['integers'] / medians['plain']:6.2f}")


def plain(bench: Bench) -> Step:
    model, ids, labels = _ready(bench)
    parameters = _trainable(model)
    optimizer = torch.optim.SGD(parameters, lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model.logits(ids), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def opacus(bench: Bench) -> Step:
    model, ids, labels = _ready(bench)
    parameters = _trainable(model)
    GradSampleModule(model.module, strict=False)
    for module in model.module.modules():
        module.training = isinstance(module, torch.nn.Linear)  # Opacus looks at modules in training only; no dropout
    inner = torch.optim.SGD(parameters, lr=1e-3)
    optimizer: Any = DPOptimizer(inner, noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=len(ids))

    def step() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch on full backward hooks where no input needs a gradient
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model.logits(ids), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return step


def candor(bench: Bench) -> Step:
    model, ids, _ = _ready(bench)
    gradients, optimizer = PerExampleGradients(model), GridOptimizer(model, flatten(bench.config, bench.weights))
    draw = _noise(bench, model)

    def step() -> None:
        optimizer.expect_noise(draw())
        gradients.fill(ids, bench.data.labels)
        optimizer.step()
        optimizer.zero_grad()

    return step


def integers(bench: Bench) -> Step:
    """What a step costs beside its gradients, for the batch's own shapes."""
    model, ids, _ = _ready(bench)
    optimizer = GridOptimizer(model, flatten(bench.config, bench.weights))
    contributions = np.random.default_rng(0).normal(size=(len(ids), bench.config.adapter.parameters))
    draw = _noise(bench, model)

    def step() -> None:
        draw()
        optimizer.contributions(contributions)

    return step


def _noise(bench: Bench, model: LoadedModel) -> Callable[[], Any]:
    config = bench.config
    words = SecretWords(bytes(32), BINDING, config.steps, config.adapter.parameters, config.privacy.capacity)
    job = TrainingJob(config, model, bench.data, bench.weights, words, bytes(32), BINDING)
    table = noise_table(config.privacy.noise_units)
    return lambda: step_noise(job, table, 0)


def _ready(bench: Bench) -> tuple[LoadedModel, list[list[int]], torch.Tensor]:
    model = bench.model()
    return model, model.encode(bench.data.texts), torch.tensor(bench.data.labels)


def _trainable(model: LoadedModel) -> list[torch.nn.Parameter]:
    parameters = [model.parameters[tensor.name] for tensor in model.config.adapter.trained]
    for parameter in parameters:
        parameter.requires_grad_(True)
    return parameters


if __name__ == "__main__":
    main()
