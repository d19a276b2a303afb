"""One step of training by each method, four ways: `python -m benchmarks.training`.

On the same batch, one thread, interleaved, CPU time as ratios to the first; memory is what a step allocates at its
peak, beside the model:

    plain     the step without privacy: mean loss, torch's backward pass, SGD
    opacus    stock Opacus: hooks on the same layers, DPOptimizer with flat clipping and float noise
    ghost     Opacus' ghost clipping: two backward passes, no per-example gradients kept
    candor    this repository's step: exact per-example gradients, clip per group, integers, words, noise table

A dash: Opacus cannot do it (DoRA's magnitudes, fused experts). The column "integers" is what of candor's step is not
gradients: noise from words, clipping to the grid, the release.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping
from torch.autograd.profiler import profile
from transformers import MixtralConfig, MixtralModel

from devnet import notes
from devnet.presets import MINILM, TINY, Preset, make_config, with_method
from ledger.config import Config
from ledger.records import Policy
from ledger.tensors import Weights, flatten
from node.data import Dataset, row_bytes
from node.gradients import PerExampleGradients
from node.grid_optimizer import GridOptimizer
from node.model import LoadedBase, LoadedModel, attach, load_base
from node.training import MICROBATCH, TrainingJob, step_noise
from proofs.gaussian import noise_table
from proofs.words import Binding, SecretWords

REPETITIONS = 9
BINDING = Binding(31337, bytes(20), 1, 0)
MIB = 1 << 20
EXPERTS = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")

Step = Callable[[], None]


@dataclass(frozen=True)
class Bench:
    """One microbatch of a preset's notes, and what is needed for a step on it."""

    preset: Preset
    config: Config
    base: LoadedBase
    weights: Weights
    data: Dataset

    def model(self) -> LoadedModel:
        model = attach(self.base, self.config)
        model.load_weights(self.weights)
        return model

    @cached_property
    def stock(self) -> bool:
        """Can stock Opacus do it?"""
        return self.config.adapter.method != "dora" and not self.config.adapter.experts


def main() -> None:
    """Prints a line for each preset and method."""
    torch.set_num_threads(1)
    print(f"{'model':9}{'method':15}{'plain':>9}{'opacus':>8}{'ghost':>8}{'candor':>8}{'integers':>10}", end="")
    print(f"{'plain':>12}{'opacus':>8}{'ghost':>8}{'candor':>8}{'model':>9}")
    with tempfile.TemporaryDirectory() as folder:
        for presets in (methods(TINY), mixtures(Path(folder)), methods(MINILM)):
            taken = {bench.config.adapter.method: compare(bench) for bench in map(prepare, presets)}
            if "qlora" in taken:
                share = taken["qlora"] / taken["lora"]
                print(f"{'':9}model and step of qlora: {share:.2f} of the memory of lora's", flush=True)


def methods(preset: Preset) -> Iterator[Preset]:
    """All, on both factors: A trained too is the most that a step can have to do."""
    for name in ("lora", "dora", "qlora"):  # rslora is lora at another scale
        yield with_method(replace(preset, rule="fedavg"), name)


def mixtures(folder: Path) -> Iterator[Preset]:
    """A small random Mixtral of eight experts, with pairs on its attention, or on its experts too."""
    torch.manual_seed(0)
    known = json.loads((Path(TINY.base_path) / "config.json").read_text())
    shape = MixtralConfig(
        vocab_size=known["vocab_size"],
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=4,
        num_local_experts=8,
        pad_token_id=known["pad_token_id"],
    )
    shutil.copytree(TINY.base_path, folder, dirs_exist_ok=True)
    MixtralModel(shape).save_pretrained(folder)
    preset = replace(TINY, name="mixtral", base_name="mixtral", base_path=str(folder), rule="fedavg", gradient=None)
    yield preset
    yield replace(preset, experts=EXPERTS, rank=1, alpha=2, steps=1, sample_rate=Fraction(1, 64))  # one proof holds it


def prepare(preset: Preset) -> Bench:
    base = load_base(preset.base_path)
    policy = Policy(1, 1, 1, 1, 1, 1, 1, False, 1)
    config, weights = make_config(preset, epsilon=preset.epsilon, rounds=1, policy=policy, base=base)
    lot = notes.members(1, MICROBATCH, 7)[0]
    rows = [row_bytes(note.text, note.label) for note in lot]
    data = Dataset(rows, [note.text for note in lot], [notes.LABELS.index(note.label) for note in lot])
    return Bench(preset, config, base, weights, data)


def compare(bench: Bench) -> float:
    """Prints a line. Returns the bytes of the model and candor's step together."""
    steps = {"plain": plain(bench), "candor": candor(bench), "integers": integers(bench)}
    if bench.stock:
        steps |= {"opacus": opacus(bench), "ghost": ghost(bench)}
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for repetition in range(REPETITIONS + 2):  # the first two warm caches up
        for name, step in steps.items():
            began = time.process_time()
            step()
            if repetition >= 2:
                taken[name].append(time.process_time() - began)
    times = {name: statistics.median(seconds) for name, seconds in taken.items()}
    peaks = {name: peak(step) for name, step in steps.items()}
    method = bench.config.adapter.method + "-experts" * bool(bench.config.adapter.experts)
    ratios = "".join(
        _cell(times, name, 10 if name == "integers" else 8) for name in ("opacus", "ghost", "candor", "integers")
    )
    memory = "".join(_cell(peaks, name, 8) for name in ("opacus", "ghost", "candor"))
    print(f"{bench.preset.name:9}{method:15}{1000 * times['plain']:6.0f} ms{ratios}", end="")
    print(f"{peaks['plain'] / MIB:8.1f} MiB{memory}{held(bench) / MIB:5.1f} MiB", flush=True)
    return held(bench) + peaks["candor"]


def _cell(values: dict[str, float], name: str, width: int) -> str:
    return f"{values[name] / values['plain']:{width}.2f}" if name in values else f"{'–':>{width}}"


def peak(step: Step) -> float:
    """Bytes that a step holds at most, beside what was there before it."""
    with profile(profile_memory=True) as profiler:
        step()
    events = [event for event in profiler.kineto_results.events() if event.name() == "[memory]"]
    held = np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    return float(held.max(initial=0))


def held(bench: Bench) -> float:
    """Bytes of the model with its adapter, between steps."""
    module = bench.model().module
    four_bit = [
        part.weight.quant_state
        for part in module.modules()
        if type(part).__name__ == "Linear4bit" and hasattr(part.weight, "quant_state")
    ]
    numbers = [*module.parameters()]
    for state in four_bit:
        numbers += [state.absmax, state.state2.absmax]
    return float(sum(tensor.numel() * tensor.element_size() for tensor in numbers))


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
    _in_training(model)
    inner = torch.optim.SGD(parameters, lr=1e-3)
    optimizer: Any = DPOptimizer(inner, noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=len(ids))

    def step() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch on full backward hooks where no input needs a gradient
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model.logits(ids), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return step


def ghost(bench: Bench) -> Step:
    model, ids, labels = _ready(bench)
    parameters = _trainable(model)
    hooked = GradSampleModuleFastGradientClipping(model.module, strict=False, max_grad_norm=1.0)
    _in_training(model)
    inner = torch.optim.SGD(parameters, lr=1e-3)
    optimizer: Any = DPOptimizerFastGradientClipping(
        inner, noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=len(ids)
    )

    def step() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer.zero_grad()
            losses = torch.nn.functional.cross_entropy(model.logits(ids), labels, reduction="none")
            DPTensorFastGradientClipping(hooked, optimizer, losses).backward()
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
        optimizer.taken()

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


def _in_training(model: LoadedModel) -> None:
    """Opacus looks at modules in training only; no dropout."""
    for module in model.module.modules():
        module.training = isinstance(module, torch.nn.Linear)


if __name__ == "__main__":
    main()
