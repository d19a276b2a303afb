"""The public optimizer is torch's, on the grid, and gives the same bits whoever replays it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from hashlib import sha256
from math import sqrt
from typing import Any

import numpy as np
import pytest
import torch

from ledger.config import FLOAT32_INTEGERS, Config, OptimizerSpec
from ledger.optimizer import PublicOptimizer, replay
from proofs.errors import LocalFault

STEPS = 12


def sgd(config: Config, momentum: Fraction, decay: Fraction) -> Config:
    spec = OptimizerSpec("sgd", Fraction(1, 10), Fraction(1, 3), momentum, Fraction(0), Fraction(0), decay)
    return replace(config, optimizer=spec)


def start_and_trajectory(config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Scattered numbers by plain arithmetic, so that they are the same under every version of numpy."""
    size = config.adapter.parameters
    numbers = np.arange(size * (STEPS + 1), dtype=np.int64) * 7_368_787 % 10_007
    start, trajectory = (numbers[:size] - 5_000) * 200, numbers[size:] - 5_000
    return start, trajectory.reshape(STEPS, size).astype(np.int32)


def torch_optimizer(config: Config, weights: list[torch.Tensor]) -> torch.optim.Optimizer:
    spec = config.optimizer
    rates = (float(spec.learning_rate_head), float(spec.learning_rate))  # heads sort before the adapter here
    groups: list[dict[str, Any]] = [{"params": [w], "lr": lr} for w, lr in zip(weights, rates, strict=True)]
    decay = float(spec.weight_decay)
    if spec.name == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=float(spec.momentum), weight_decay=decay)
    betas = (float(spec.momentum), float(spec.beta2))
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=float(spec.epsilon), weight_decay=decay)


VARIANTS: dict[str, Callable[[Config], Config]] = {
    "adamw": lambda config: config,
    "adamw without decay or memory": lambda config: replace(
        config, optimizer=replace(config.optimizer, weight_decay=Fraction(0), momentum=Fraction(0))
    ),
    "sgd": lambda config: sgd(config, Fraction(0), Fraction(0)),
    "sgd with momentum": lambda config: sgd(config, Fraction(9, 10), Fraction(0)),
    "sgd with momentum and decay": lambda config: sgd(config, Fraction(9, 10), Fraction(1, 100)),
}


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_each_step_is_torchs_step_and_then_the_grid(config: Config, variant: str) -> None:
    """torch takes the step in float64 from our last iterate; the two may differ by rounding to the grid alone."""
    config = VARIANTS[variant](config)
    start, trajectory = start_and_trajectory(config)
    scale, head = 2.0**-config.weight_bits, 18
    weights = [torch.tensor(part * scale, requires_grad=True) for part in (start[:head], start[head:])]
    ours, theirs = PublicOptimizer(config, start), torch_optimizer(config, weights)
    clips = (float(config.privacy.clip_head), float(config.privacy.clip_adapter))
    for released in trajectory:
        for weight, part, clip in zip(weights, (released[:head], released[head:]), clips, strict=True):
            weight.grad = torch.tensor(part * clip / config.privacy.clip_units / config.mean_batch)
        theirs.step()
        found = ours.step(released) * scale
        expected = torch.cat(weights).detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=scale / 2 + 1e-9)
        with torch.no_grad():
            weights[0].copy_(torch.tensor(found[:head]))
            weights[1].copy_(torch.tensor(found[head:]))


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_before_the_grid_a_step_is_torchs_to_a_billionth(config: Config, variant: str) -> None:
    config = VARIANTS[variant](config)
    start, trajectory = start_and_trajectory(config)
    weights = [torch.tensor(part * 2.0**-18, requires_grad=True) for part in (start[:18], start[18:])]
    theirs, ours = torch_optimizer(config, weights), PublicOptimizer(config, start)
    values = start * 2.0**-18
    update = ours._sgd if config.optimizer.name == "sgd" else ours._adamw
    for released in trajectory:
        gradient = released * ours._scale
        weights[0].grad, weights[1].grad = torch.tensor(gradient[:18]), torch.tensor(gradient[18:])
        theirs.step()
        values = update(values, gradient)
        np.testing.assert_allclose(values, torch.cat(weights).detach().numpy(), rtol=0, atol=1e-9)


def slow_replay(config: Config, start: np.ndarray, trajectory: np.ndarray) -> list[int]:
    """The same optimizer, one coordinate at a time in Python's own floats, written from the specification."""
    spec, found, column = config.optimizer, [], 0
    beta1, beta2, decay = float(spec.momentum), float(spec.beta2), float(spec.weight_decay)
    for tensor in config.adapter.trained:
        head = tensor.role == "head"
        rate = float(spec.learning_rate_head if head else spec.learning_rate)
        clip = config.privacy.clip_head if head else config.privacy.clip_adapter
        scale = float(clip / (config.privacy.clip_units * config.mean_batch))
        for _ in range(tensor.size):
            units, first, second, power1, power2 = int(start[column]), 0.0, 0.0, 1.0, 1.0
            for step in range(len(trajectory)):
                gradient, weight = float(trajectory[step, column]) * scale, units * 2.0**-config.weight_bits
                if spec.name == "sgd":
                    first = beta1 * first + (gradient + decay * weight)
                    weight = weight - rate * first
                else:
                    power1, power2 = power1 * beta1, power2 * beta2
                    first = beta1 * first + (1.0 - beta1) * gradient
                    second = beta2 * second + (1.0 - beta2) * (gradient * gradient)
                    spread = sqrt(second / (1.0 - power2)) + float(spec.epsilon)
                    weight = weight - rate * decay * weight - rate * (first / (1.0 - power1) / spread)
                units = max(-(1 << 24), min(1 << 24, round(weight * 2.0**config.weight_bits)))
            found.append(units)
            column += 1
    return found


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_plain_python_floats_give_the_same_bits(config: Config, variant: str) -> None:
    config = VARIANTS[variant](config)
    start, trajectory = start_and_trajectory(config)
    assert replay(config, start, trajectory).tolist() == slow_replay(config, start, trajectory)


GOLDEN = {"adamw": "a6bc83f4311f1fd1", "sgd with momentum and decay": "e2f23e18347d5fc7"}


@pytest.mark.parametrize("variant", sorted(GOLDEN))
def test_the_last_iterate_is_the_same_bits_on_every_machine(config: Config, variant: str) -> None:
    found = replay(VARIANTS[variant](config), *start_and_trajectory(config))
    assert sha256(found.astype("<i8").tobytes()).hexdigest()[:16] == GOLDEN[variant]


def test_each_group_has_its_own_unit_and_rate(config: Config) -> None:
    config = sgd(config, Fraction(0), Fraction(0))
    released = np.full(config.adapter.parameters, 1024, dtype=np.int32)
    moved = PublicOptimizer(config, np.zeros(config.adapter.parameters, dtype=np.int64)).step(released)
    head, adapter = 2 / 4 / 3, 0.5 / 4 / 10  # clip / mean_batch * rate
    assert moved[:18].tolist() == [-round(head * 2**18)] * 18
    assert moved[18:].tolist() == [-round(adapter * 2**18)] * 16


def test_iterates_stay_within_the_grid(config: Config) -> None:
    config = sgd(config, Fraction(0), Fraction(0))
    released = np.full(config.adapter.parameters, 2**31 - 1, dtype=np.int32)
    optimizer = PublicOptimizer(config, np.zeros(config.adapter.parameters, dtype=np.int64))
    assert set(optimizer.step(released).tolist()) == {-FLOAT32_INTEGERS}
    assert set(optimizer.step(-released).tolist()) == {FLOAT32_INTEGERS}


def test_halves_round_to_even(config: Config) -> None:
    """Weight 1 unit, moved by exactly half a unit: 0.5 goes to 0, 1.5 to 2."""
    spec = OptimizerSpec("sgd", Fraction(1, 1 << 19), Fraction(1, 1 << 19), *[Fraction(0)] * 4)
    privacy = replace(config.privacy, clip_units=1, clip_adapter=Fraction(4), clip_head=Fraction(4))
    config = replace(config, optimizer=spec, privacy=privacy)
    start = np.arange(1, config.adapter.parameters + 1)
    moved = PublicOptimizer(config, start).step(np.ones(config.adapter.parameters, dtype=np.int32))
    assert moved[:4].tolist() == [0, 2, 2, 4]


def test_the_iterate_handed_out_is_a_copy(config: Config) -> None:
    start, trajectory = start_and_trajectory(config)
    optimizer = PublicOptimizer(config, start)
    before = start.copy()
    optimizer.step(trajectory[0])[:] = 0
    np.testing.assert_array_equal(start, before)
    assert optimizer.iterate.any()


def test_an_iterate_or_a_sum_of_another_kind_is_refused(config: Config) -> None:
    start, trajectory = start_and_trajectory(config)
    for wrong in (start[:-1], start.astype(np.float64)):
        with pytest.raises(LocalFault):
            PublicOptimizer(config, wrong)
    for released in (trajectory[0][:-1], trajectory[0].astype(np.int64)):
        with pytest.raises(LocalFault):
            PublicOptimizer(config, start).step(released)
