"""How far H is from torch: `python -m benchmarks.gradient_distance [NAME …]`.

Contributions of many examples, made from torch's float gradients as a member makes them and by the fixed-point program
H (proofs/gradient), compared coordinate by coordinate in clip units, at the first iterate and at one that was trained.
τ is twice the worst distance seen. T·τ·√P beside C is how far a member could push the sum over T steps by staying
within τ in every coordinate of one contribution a step; the length of the whole difference bounds it much better.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray

from devnet import notes
from devnet.presets import MINILM, TINY, TINY_TEXT, Preset, make_config
from ledger.base_program import WEIGHT_BITS, Base
from ledger.config import Config
from ledger.records import Policy
from ledger.tensors import Weights
from node.data import Dataset, row_bytes
from node.gradients import PerExampleGradients
from node.grid_optimizer import groups
from node.model import LoadedModel, attach, load_base
from node.training import TrainingJob, train
from proofs import mechanism
from proofs.gradient.numbers import OutOfRange, ProgramRefused
from proofs.gradient.program import Program
from proofs.gradient.tape import Counts, Tape
from proofs.gradient.transformer import contribute
from proofs.words import Binding, SecretWords

EXAMPLES = {"tiny": 240, "tiny-text": 120, "minilm": 60}
ROUNDS = 3  # a member alone, so many rounds: what an iterate looks like at the end of a demo
SAFETY = 2
QUANTILES = (0.5, 0.9, 0.99, 0.999)
FEW = 12  # examples for the comparison of weight formats
PROBES = {"another row's": None, "0.9 times": 0.9, "sign turned": -1.0, "zero": 0.0}


@dataclass(frozen=True)
class Case:
    """A preset's model at one iterate, and examples that it was not trained on."""

    preset: Preset
    iterate: str
    model: LoadedModel
    weights: Weights
    ids: list[list[int]]
    labels: list[int]

    @property
    def config(self) -> Config:
        return self.model.config

    def program(self, bits: int = WEIGHT_BITS) -> Program:
        return Base.open(self.model.base.path, bits).program(self.config, self.weights)


@dataclass
class Distance:
    """`floats`, `fixed` (n, P): contributions of the examples that have both. `refused`: those beyond H's ranges."""

    floats: NDArray[np.int64]
    fixed: NDArray[np.int64]
    refused: list[str]
    counts: list[Counts]
    seconds: float

    @property
    def difference(self) -> NDArray[np.int64]:
        return np.abs(self.floats - self.fixed)


def main() -> None:
    torch.set_num_threads(1)
    for preset in (TINY, TINY_TEXT, MINILM):
        if sys.argv[1:] and preset.name not in sys.argv[1:]:
            continue
        worst = 0
        for case in cases(preset, EXAMPLES[preset.name]):
            distance = measure(case, case.program())
            report(case, distance)
            worst = max(worst, int(distance.difference.max()))
        gain(preset, case.config, worst)
        formats(case)


def cases(preset: Preset, count: int) -> Iterator[Case]:
    """The preset at its genesis, then after a member's training with all its noise."""
    config, weights = make_config(
        preset, epsilon=preset.epsilon, rounds=ROUNDS, policy=Policy(1, 1, 1, 1, 1, 1, 1, False, 1)
    )
    model = attach(load_base(preset.base_path), config)
    model.load_weights(weights)
    lot = notes.members(1, count, 1117)[0]
    ids, labels = model.encode([note.text for note in lot]), [notes.LABELS.index(note.label) for note in lot]
    yield Case(preset, "genesis", model, weights, ids, labels)
    yield Case(preset, f"after {ROUNDS * config.steps} steps", model, trained(preset, model, weights), ids, labels)


def trained(preset: Preset, model: LoadedModel, weights: Weights) -> Weights:
    """The iterate after `ROUNDS` rounds of one member; the model is left there."""
    lot = notes.members(1, preset.rows, 7)[0]
    rows = [row_bytes(note.text, note.label) for note in lot]
    data = Dataset(rows, [note.text for note in lot], [notes.LABELS.index(note.label) for note in lot])
    config, grid = model.config, 2**model.config.weight_bits
    for number in range(1, ROUNDS + 1):
        binding = Binding(31337, bytes(20), number, 0)
        words = SecretWords(bytes(32), binding, config.steps, config.adapter.parameters, config.privacy.capacity)
        train(TrainingJob(config, model, data, weights, words, bytes([number]) * 32, binding), lambda *_: None)
        found = {name: parameter.detach().numpy() for name, parameter in model.parameters.items()}
        weights = {name: np.rint(value.astype(np.float64) * grid).astype(np.int64) for name, value in found.items()}
    return weights


def measure(case: Case, program: Program, count: int | None = None) -> Distance:
    """Contributions by both routes, of the first `count` examples."""
    gradients, kept = PerExampleGradients(case.model), slice(count)
    floats, fixed, refused, counts, seconds = [], [], [], [], 0.0
    for tokens, label in zip(case.ids[kept], case.labels[kept], strict=True):
        tape, began = Tape(), time.perf_counter()
        try:
            fixed.append(contribute(program, tokens, label, tape))
        except OutOfRange as error:
            refused.append(str(error))
            continue
        seconds += time.perf_counter() - began
        counts.append(tape.counts)
        gradients.fill([tokens], [label])
        floats.append(by_torch(case.config, gradients))
    return Distance(np.array(floats), np.array(fixed), refused, counts, seconds / max(1, len(fixed)))


def by_torch(config: Config, gradients: PerExampleGradients) -> NDArray[np.int64]:
    """(P,) clip units of the one example that was filled in."""
    samples = [parameter.grad_sample.reshape(1, -1) for parameter in gradients.trained.values()]  # type: ignore[attr-defined]
    flat = torch.cat(samples, dim=1).to(torch.float64).numpy()
    found = np.zeros(flat.shape[1], dtype=np.int64)
    for columns, unit in groups(config):
        found[columns] = mechanism.to_grid(np.ascontiguousarray(flat[:, columns]), unit, config.privacy.clip_units)[0]
    return found


def report(case: Case, distance: Distance) -> None:
    lengths = [len(tokens) for tokens in case.ids]
    print(
        f"\n{case.preset.name}, {case.iterate}: {len(distance.fixed)} examples, {min(lengths)} to {max(lengths)} tokens"
    )
    print(f"  beyond H's ranges       {len(distance.refused)} {distance.refused[:1] or ''}")
    for name, columns in case.config.groups.items():
        apart, floats = distance.difference[:, columns], distance.floats[:, columns]
        quantiles = "  ".join(f"{100 * q:g} %: {np.quantile(apart, q):.0f}" for q in QUANTILES)
        lengths_apart, of = np.sqrt((apart**2).sum(axis=1)), np.sqrt((floats**2).sum(axis=1))
        print(
            f"  {name:8} per coordinate  {quantiles}  worst: {apart.max()} (largest coordinate {np.abs(floats).max()})"
        )
        print(f"  {name:8} length          worst: {lengths_apart.max():.1f} (of {of.min():.0f} to {of.max():.0f})")
    means = [np.mean([getattr(one, what) for one in distance.counts]) for what in ("values", "lookups", "macs")]
    tokens = float(np.mean(lengths))
    print(
        f"  of one example, mean    {means[0] / 1e6:.2f} M values, {means[1] / 1e6:.2f} M lookups, "
        f"{means[2] / 1e6:.0f} M MACs"
    )
    print(
        f"                          {means[0] / tokens / 1e3:.1f} k values a token; {distance.seconds:.2f} s in numpy"
    )
    probes(distance)


def probes(distance: Distance) -> None:
    """How far what is no gradient of the row is from H: its largest coordinate apart, the least over all examples."""
    for name, factor in PROBES.items():
        other = np.roll(distance.floats, 1, axis=0) if factor is None else np.rint(factor * distance.floats)
        apart = np.abs(other - distance.fixed).max(axis=1)
        print(f"  {name:14} gradient is at least {apart.min():.0f} units away, median {np.median(apart):.0f}")


def gain(preset: Preset, config: Config, worst: int) -> None:
    tau, steps, parameters, clip = SAFETY * worst, config.steps, config.adapter.parameters, config.privacy.clip_units
    print(f"\n{preset.name}: τ = {SAFETY} · {worst} = {tau} units in every coordinate")
    print(f"  T·τ·√P = {steps} · {tau} · √{parameters} = {steps * tau * sqrt(parameters):.0f} beside C = {clip}")


def formats(case: Case) -> None:
    """The same with coarser weights: what their bits buy."""
    print(f"  weights of so many bits: worst per coordinate, worst length, values an example ({FEW} examples)")
    for bits in (WEIGHT_BITS, 12, 10, 8):
        try:
            found = measure(case, case.program(bits), FEW)
        except ProgramRefused as error:
            print(f"    {bits:2}    {error}")
            continue
        length, values = np.sqrt((found.difference**2).sum(axis=1)).max(), np.mean([one.values for one in found.counts])
        print(f"    {bits:2}    {found.difference.max():3}    {length:5.1f}    {values / 1e6:.2f} M")


if __name__ == "__main__":
    main()
