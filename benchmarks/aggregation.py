"""Rules of aggregation on the demo task, without daemons: `python -m benchmarks.aggregation`.

Whole federations of the preset tiny: real training of every member, real sums and noise, the public optimizer, the
aggregate by the code that the platform runs; no chain, no proofs. Held-out accuracy at the end of the preset's rounds,
the mean over seeds (of notes, words and beacons) and the spread. σ is solved for each rule and ε as the demo does it.

Then the robust averages of five members beside the plain mean, honest and with one member whose labels are all wrong;
and what the SVD costs by the ranks that it takes in.

    --seeds N        how many, 5 unless said
    --rules A,B      some rules only
    --epsilons 1,8   "none" for no privacy
    --robust, --costs, --rules-only    one of the three parts alone

Writes benchmarks/aggregation.png and benchmarks/aggregation_robust.png from the first two parts, those that were whole.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Final

import numpy as np
import torch

from devnet import notes
from devnet.cli import policy_for
from devnet.presets import PLAIN_RULES, ROBUST_RULES, TINY, Preset, last_config, make_config, with_rule
from ledger.aggregate import average
from ledger.aggregation import aggregated, in_round, part_of, start_of
from ledger.config import Config
from ledger.optimizer import replay
from ledger.products import Pair, cut
from ledger.tensors import Weights, flatten, unflatten
from node.data import Dataset, row_bytes
from node.model import LoadedBase, attach, load_base
from node.training import TrainingJob, train
from proofs.words import Binding, SecretWords

PLOT: Final = Path(__file__).parent / "aggregation.png"
PLOT_ROBUST: Final = Path(__file__).parent / "aggregation_robust.png"
BUDGETS: Final = ("1", "3", "8", "none")
NODES, MANY = 3, 5
Found = dict[tuple[str, str], Sequence[float]]  # what was compared, and ε → accuracies, one a seed
CLIP_UNITS: Final = 512  # half the preset's, so that the noise table reaches ε = 1


@dataclass(frozen=True)
class Plan:
    """One federation. poisoned: its first member has every label wrong."""

    rule: str
    budget: str
    seed: int
    nodes: int = NODES
    poisoned: bool = False


def main(arguments: Sequence[str] = ()) -> None:
    asked = _parse(arguments)
    torch.set_num_threads(1)
    base = load_base(TINY.base_path)
    alone = asked.robust or asked.costs or asked.rules_only
    if asked.rules_only or not alone:
        compare(base, asked.rules or tuple(PLAIN_RULES), asked.epsilons or BUDGETS, asked.seeds)
    if asked.robust or not alone:
        robust(base, asked.epsilons or BUDGETS, asked.seeds)
    if asked.costs or not alone:
        costs()


def compare(base: LoadedBase, rules: Sequence[str], budgets: Sequence[str], seeds: int) -> None:
    began, found = time.monotonic(), Found()
    print(f"held-out accuracy after {TINY.rounds} rounds of {NODES} members, mean of {seeds} seeds (least–greatest)")
    print(f"{'rule':10}" + "".join(f"{_named(budget):>20}" for budget in budgets))
    for rule in rules:
        row = []
        for budget in budgets:
            values = [accuracy(base, Plan(rule, budget, seed)) for seed in range(1, seeds + 1)]
            found[rule, budget] = values
            row.append(f"{_spread(values):>20}")
        print(f"{rule:10}" + "".join(row), flush=True)
    print(f"{time.monotonic() - began:.0f} s")
    if tuple(rules) == tuple(PLAIN_RULES) and tuple(budgets) == BUDGETS:
        plot(found, f"{NODES} members, {TINY.rounds} rounds, {seeds} seeds", PLOT)


def robust(base: LoadedBase, budgets: Sequence[str], seeds: int) -> None:
    began, found = time.monotonic(), Found()
    print(f"\n{MANY} members under ffa, mean of {seeds} seeds: honest, and with one whose labels are all wrong")
    heads = [head for budget in budgets for head in (_named(budget), "poisoned")]
    print(f"{'average':14}" + "".join(f"{head:>20}" for head in heads))
    for rule in ("ffa", *ROBUST_RULES):
        name, row = "mean" if rule == "ffa" else rule, []
        for budget, bad in product(budgets, (False, True)):
            values = [accuracy(base, Plan(rule, budget, seed, MANY, bad)) for seed in range(1, seeds + 1)]
            found[f"{name}, one liar" if bad else name, budget] = values
            row.append(f"{_spread(values):>20}")
        print(f"{name:14}" + "".join(row), flush=True)
    print(f"{time.monotonic() - began:.0f} s")
    if tuple(budgets) == BUDGETS:
        plot(found, f"{MANY} members under ffa, {TINY.rounds} rounds, {seeds} seeds", PLOT_ROBUST)


def costs() -> None:
    print("\nsvd of one pair of 384 × 384, by the ranks of all members together")
    rng = np.random.default_rng(0)
    for members, rank in ((3, 4), (4, 8), (8, 8), (16, 8)):
        pairs = [
            Pair(rng.integers(-9000, 9000, (rank, 384)), rng.integers(-900, 900, (384, rank)), 1)
            for _ in range(members)
        ]
        began = time.process_time()
        cut(pairs, 16, np.zeros((rank, 384), dtype=np.int64))
        print(f"  {members:2} of rank {rank} = {members * rank:4}   {time.process_time() - began:7.2f} s")


# ---- one federation


def accuracy(base: LoadedBase, plan: Plan) -> float:
    """Of the last round's aggregate, on held-out notes."""
    preset = with_rule(TINY, plan.rule)
    data = [_dataset(base, rows) for rows in notes.members(plan.nodes, preset.rows, plan.seed)]
    if plan.poisoned:
        data[0] = replace(data[0], labels=[(label + 1) % len(notes.LABELS) for label in data[0].labels])
    config, weights = _config(base, preset, plan)
    for number in range(1, preset.rounds + 1):
        last = last_config(preset, config) if number == preset.rounds else None
        weights = play(base, in_round(last or config, number), weights, data, plan, number)
        final = aggregated(last or config, range(plan.nodes))
    model = attach(base, final)
    model.load_weights(weights)
    held_out = notes.held_out(plan.nodes, preset.held_out, plan.seed)
    guessed = model.predict([note.text for note in held_out])
    return mean(notes.LABELS[guess] == note.label for guess, note in zip(guessed, held_out, strict=True))


def play(
    base: LoadedBase, config: Config, weights: Weights, data: Sequence[Dataset], plan: Plan, number: int
) -> Weights:
    """One round: every member trains, and what they reach is aggregated."""
    reached = {}
    for member, rows in enumerate(data):
        part = part_of(config, member)
        start, binding = start_of(part, weights), Binding(31337, bytes(20), number, member)
        seed, beacon = (sha256(f"{what} {plan} {number} {member}".encode()).digest() for what in ("words", "beacon"))
        words = SecretWords(seed, binding, part.steps, part.adapter.parameters, part.privacy.capacity)
        job = TrainingJob(part, attach(base, part), rows, start, words, beacon, binding, "cpu")
        released = train(job, lambda done, steps: None).released
        reached[member] = start | unflatten(part, replay(part, flatten(part, start), released))
    return average(config, weights, reached)


def _config(base: LoadedBase, preset: Preset, plan: Plan) -> tuple[Config, Weights]:
    epsilon = None if plan.budget == "none" else float(plan.budget)
    preset = replace(preset, gradient=None, clip_units=CLIP_UNITS)
    policy = policy_for(preset, plan.nodes, noise=epsilon is not None)
    return make_config(preset, epsilon=epsilon, rounds=preset.rounds, policy=policy, base=base)


def _dataset(base: LoadedBase, rows: Sequence[notes.Note]) -> Dataset:
    return Dataset(
        [row_bytes(note.text, note.label) for note in rows],
        [note.text for note in rows],
        [notes.LABELS.index(note.label) for note in rows],
    )


# ---- what is shown


def plot(found: Found, title: str, path: Path) -> None:
    """Means, and from the least to the greatest; with a liar as a broken line."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    by_rule: dict[str, list[Sequence[float]]] = defaultdict(list)
    for (rule, _), values in found.items():
        by_rule[rule].append(values)
    for place, (rule, rows) in enumerate(by_rule.items()):
        middle = [mean(values) for values in rows]
        around = [
            [m - min(v) for m, v in zip(middle, rows, strict=True)],
            [max(v) - m for m, v in zip(middle, rows, strict=True)],
        ]
        at = [x + 0.06 * (place - len(by_rule) / 2) for x in range(len(rows))]
        style = "--" if rule.endswith("liar") else "-"
        colour = f"C{sorted({name.partition(',')[0] for name in by_rule}).index(rule.partition(',')[0])}"
        axes.errorbar(at, middle, around, marker="o", capsize=3, linestyle=style, color=colour, label=rule)
    axes.set_xticks(range(len(BUDGETS)), [_named(budget) for budget in BUDGETS])
    axes.set_ylabel("held-out accuracy")
    axes.set_title(f"preset tiny, {title}")
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=120, bbox_inches="tight")


def _named(budget: str) -> str:
    return "no privacy" if budget == "none" else f"ε = {budget}"


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.3f} ({min(values):.2f}–{max(values):.2f})"


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.aggregation")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rules", type=lambda text: tuple(text.split(",")), default=())
    parser.add_argument("--epsilons", type=lambda text: tuple(text.split(",")), default=())
    for part in ("--robust", "--costs", "--rules-only"):
        parser.add_argument(part, action="store_true")
    return parser.parse_args(list(arguments))


if __name__ == "__main__":
    main(sys.argv[1:])
