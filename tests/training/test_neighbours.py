"""Sensitivity: when one row goes, the others' contributions must stay, or the clip does not bound the change.

In exact arithmetic they do. In floating point the rows of one microbatch share matrix products, whose blocking depends
on its size and padding; a gradient then moves in its last bits, and its rounding, rarely, by one unit. The accountant
pays for such moves with NEIGHBOUR_SLACK. Here they are counted, on a real model, and must stay far below what is paid.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np
import pytest
import torch

from devnet.notes import members
from devnet.presets import TINY, make_config
from ledger.privacy import NEIGHBOUR_SLACK
from ledger.records import Policy
from ledger.tensors import flatten
from node.gradients import PerExampleGradients
from node.grid_optimizer import GridOptimizer
from node.model import attach, load_base
from node.training import microbatches

ROWS = 90


@pytest.fixture(scope="module")
def contributions() -> Any:
    """rows → {row: its int32 contribution}, computed in the microbatches that those rows make together."""
    base = load_base(TINY.base_path)
    policy = Policy(1, 1, 0, 1, 1, 1, quorum=1, proof_required=False, verifier_quorum=1)
    config, weights = make_config(TINY, epsilon=8.0, rounds=1, policy=policy, base=base)
    generator = np.random.default_rng(7)
    for tensor in config.adapter.tensors:  # away from the genesis, where B = 0 and A has no gradient
        if ".lora_B." in tensor.name:
            weights[tensor.name] = generator.integers(-3000, 3000, size=tensor.shape)
    model = attach(base, config)
    model.load_weights(weights)
    notes = members(1, ROWS, seed=5)[0]
    ids = model.encode([note.text for note in notes])
    labels = [config.task.labels.index(note.label) for note in notes]
    gradients, optimizer = PerExampleGradients(model), GridOptimizer(model, flatten(config, weights))

    def compute(rows: Sequence[int]) -> dict[int, np.ndarray]:
        found: dict[int, np.ndarray] = {}
        for part in microbatches(np.array(rows, dtype=np.int64), ids):
            gradients.fill([ids[row] for row in part], [labels[row] for row in part])
            samples = [p.grad_sample.reshape(len(part), -1).to(torch.float64) for p in optimizer.params]  # type: ignore[attr-defined]
            found |= dict(zip(part, optimizer.contributions(torch.cat(samples, dim=1).numpy()), strict=True))
        return found

    return compute


def moved(before: dict[int, np.ndarray], after: dict[int, np.ndarray]) -> float:
    """Norm of the change in the sum over the rows that are in both, in units."""
    change = sum((after[row].astype(np.int64) - before[row] for row in after if row in before), np.int64(0))
    return float(np.sqrt((np.asarray(change) ** 2).sum()))


@pytest.mark.parametrize("gone", [0, 31, 32, 70])
def test_without_a_neighbour_the_others_contribute_the_same(contributions: Any, gone: int) -> None:
    paid = sqrt(2) * TINY.clip_units * NEIGHBOUR_SLACK
    everyone = list(range(ROWS))
    assert moved(contributions(everyone), contributions([row for row in everyone if row != gone])) <= paid / 2


def test_alone_a_row_contributes_what_it_does_in_company(contributions: Any) -> None:
    paid = sqrt(2) * TINY.clip_units * NEIGHBOUR_SLACK
    together = contributions(list(range(30)))
    alone = {row: contributions([row])[row] for row in range(30)}
    assert moved(together, alone) <= paid / 2


def test_a_row_that_does_change_its_contribution_would_be_noticed(contributions: Any) -> None:
    together = contributions(list(range(30)))
    other = {**together, 3: together[4]}
    assert moved(together, other) > sqrt(2) * TINY.clip_units * NEIGHBOUR_SLACK
