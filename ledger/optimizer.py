"""The public optimizer: from the released sums to the next iterate, the same bits on every machine.

Iterates live on the weight grid. A step takes ĝ (integers), turns it into a float64 gradient ĝ · clip_g/(clip_units ·
mean_batch), updates in float64, and rounds back to the grid (half to even), clipped to ±2^24 units. Only elementwise
+ − × ÷ and square root are used, which IEEE 754 rounds correctly everywhere; powers of β are running products; every
constant is the float64 nearest to a rational of the config. There are no reductions, so no order of summation.

Momentum SGD is torch's SGD (dampening 0, no Nesterov, weight decay added to the gradient). AdamW is torch's AdamW
(decoupled decay, θ ← θ − lr·λ·θ first). State starts at zero in every round.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from ledger.config import FLOAT32_INTEGERS, Config
from proofs.errors import LocalFault

Units = NDArray[np.int64]
Vector = NDArray[np.float64]


class PublicOptimizer:
    """Holds the iterate (P,) in grid units and the optimizer's state. `step` returns the new iterate."""

    def __init__(self, config: Config, start: Units) -> None:
        if start.shape != (config.adapter.parameters,) or start.dtype != np.int64:
            raise LocalFault(f"an iterate is int64 of shape ({config.adapter.parameters},)")
        self._spec, self._bits = config.optimizer, config.weight_bits
        self._scale, self._rate = _per_coordinate(config)
        self._units = start.copy()
        self._first: Vector = np.zeros(start.shape)
        self._second: Vector = np.zeros(start.shape)
        self._beta1_power, self._beta2_power, self._steps = 1.0, 1.0, 0

    @property
    def iterate(self) -> Units:
        return self._units.copy()

    def step(self, released: NDArray[np.int32]) -> Units:
        """Take ĝ (P,) int32 of one step."""
        if released.shape != self._units.shape or released.dtype != np.int32:
            raise LocalFault(f"a released sum is int32 of shape {self._units.shape}")
        gradient = released.astype(np.float64) * self._scale
        weights = self._units.astype(np.float64) * 2.0**-self._bits
        update = self._sgd if self._spec.name == "sgd" else self._adamw
        moved = np.rint(update(weights, gradient) * 2.0**self._bits)
        self._units = np.clip(moved, -FLOAT32_INTEGERS, FLOAT32_INTEGERS).astype(np.int64)
        self._steps += 1
        return self.iterate

    def _sgd(self, weights: Vector, gradient: Vector) -> Vector:
        momentum, decay = float(self._spec.momentum), float(self._spec.weight_decay)
        gradient = gradient + decay * weights
        self._first = momentum * self._first + gradient
        return weights - self._rate * self._first

    def _adamw(self, weights: Vector, gradient: Vector) -> Vector:
        beta1, beta2 = float(self._spec.momentum), float(self._spec.beta2)
        self._beta1_power, self._beta2_power = self._beta1_power * beta1, self._beta2_power * beta2
        self._first = beta1 * self._first + (1.0 - beta1) * gradient
        self._second = beta2 * self._second + (1.0 - beta2) * (gradient * gradient)
        mean = self._first / (1.0 - self._beta1_power)
        spread = np.sqrt(self._second / (1.0 - self._beta2_power)) + float(self._spec.epsilon)
        decayed = weights - self._rate * float(self._spec.weight_decay) * weights
        return decayed - self._rate * (mean / spread)


def replay(config: Config, start: Units, trajectory: Iterable[NDArray[np.int32]]) -> Units:
    """The last iterate (P,) when the released sums of a trajectory (T, P) are applied in order."""
    optimizer = PublicOptimizer(config, start)
    for released in trajectory:
        optimizer.step(released)
    return optimizer.iterate


def _per_coordinate(config: Config) -> tuple[Vector, Vector]:
    """Gradient per unit of ĝ, and learning rate, for each of the P coordinates."""
    privacy, optimizer = config.privacy, config.optimizer
    groups = {
        "adapter": (privacy.clip_adapter, optimizer.learning_rate),
        "head": (privacy.clip_head, optimizer.learning_rate_head),
    }
    scales, rates = [], []
    for tensor in config.adapter.trained:
        clip, rate = groups[tensor.role]
        scales.append(np.full(tensor.size, _nearest(clip / (privacy.clip_units * config.mean_batch))))
        rates.append(np.full(tensor.size, _nearest(rate)))
    return np.concatenate(scales), np.concatenate(rates)


def _nearest(value: Fraction) -> float:
    """The float64 nearest to a rational (Python's division of integers rounds correctly)."""
    return float(value)
