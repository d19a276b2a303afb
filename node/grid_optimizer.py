"""Opacus' DPOptimizer on an integer grid: the same four movements, each of them exact and recomputable.

Opacus clips and adds up `grad_sample`, adds noise, scales by the expected batch and steps. Here

    clip_and_accumulate   clips each group (adapter, head) by itself and rounds every contribution to integers, with its
                          norm checked again in integers (proofs.mechanism.to_grid)
    add_noise             releases ĝ = Σ contributions + z, z looked up from committed words (no torch generator)
    scale_grad            nothing: scaling belongs to the public optimizer
    original_optimizer    ledger.optimizer.PublicOptimizer, which every verifier replays bit for bit

Opacus keeps what it is good at: grad_sample bookkeeping across microbatches (signal_skip_step), and its refusal to use
a grad_sample twice.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.optimizers import DPOptimizer
from opacus.optimizers.optimizer import _check_processed_flag, _mark_as_processed

from ledger.config import Config
from ledger.optimizer import PublicOptimizer
from ledger.tensors import unflatten
from node.model import LoadedModel
from proofs import mechanism
from proofs.errors import LocalFault


class ReleaseTwice(LocalFault):
    """A step's noise was used already: one draw, one release."""


class PublicStep(torch.optim.Optimizer):
    """Loads the iterate that the public optimizer computes from the released sum."""

    def __init__(self, model: LoadedModel, start: NDArray[np.int64]) -> None:
        super().__init__(list(_trained(model).values()), {})
        self._model, self._public = model, PublicOptimizer(model.config, start)
        self.released: NDArray[np.int32] | None = None

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        if self.released is None:
            raise ReleaseTwice("nothing was released since the last step")
        self._model.load_weights(unflatten(self._model.config, self._public.step(self.released)))
        self.released = None


class GridOptimizer(DPOptimizer):  # type: ignore[misc]
    """`noise`: integer noise of the step at hand, set by `expect_noise` before the step that releases."""

    def __init__(self, model: LoadedModel, start: NDArray[np.int64]) -> None:
        self._config, self._trained = model.config, _trained(model)
        privacy = model.config.privacy
        super().__init__(
            PublicStep(model, start),
            noise_multiplier=privacy.noise_units / privacy.clip_units,
            max_grad_norm=1.0,
            expected_batch_size=model.config.mean_batch,
        )
        self._groups = [(_run(columns), unit) for columns, unit in groups(model.config)]
        self._noise: NDArray[np.int32] | None = None
        self._taken: list[NDArray[np.int32]] = []
        self._sum = np.zeros(model.config.adapter.parameters, dtype=np.int64)
        self.last_release = np.zeros(model.config.adapter.parameters, dtype=np.int32)

    @property
    def params(self) -> list[torch.nn.Parameter]:
        """All of them: stock Opacus lists those that require a gradient, ours get theirs without autograd."""
        return list(self._trained.values())

    def expect_noise(self, noise: NDArray[np.int32]) -> None:
        self._noise = noise

    def clip_and_accumulate(self) -> None:
        samples = []
        for parameter in self.params:
            _check_processed_flag(parameter.grad_sample)  # type: ignore[attr-defined]
            sample = self._get_flat_grad_sample(parameter)
            samples.append(sample.reshape(len(sample), parameter.numel()).to("cpu", torch.float64))
            _mark_as_processed(parameter.grad_sample)  # type: ignore[attr-defined]
        contributions = self.contributions(torch.cat(samples, dim=1).numpy())
        self._taken.append(contributions)
        self._sum += contributions.sum(axis=0, dtype=np.int64)

    def taken(self) -> NDArray[np.int32]:
        """(n, P): the contributions since the last call, in the order in which they were accumulated. Secret."""
        found, self._taken = self._taken, []
        return np.concatenate(found)

    def contributions(self, gradients: NDArray[np.float64]) -> NDArray[np.int32]:
        """Per-example gradients (n, P) → integers (n, P), each group clipped to its own bound."""
        units = self._config.privacy.clip_units
        found = np.zeros(gradients.shape, dtype=np.int32)
        for columns, unit in self._groups:
            found[:, columns] = mechanism.to_grid(np.ascontiguousarray(gradients[:, columns]), unit, units)
        return found

    def add_noise(self) -> None:
        if self._noise is None:
            raise ReleaseTwice("no noise for this step: a sum is never released without its own")
        total = self._sum.astype(np.int32)
        if not np.array_equal(total, self._sum):
            raise LocalFault("a sum of contributions is beyond 32 bits; lower clip_units or the sample rate")
        self.original_optimizer.released = mechanism.release(total[None, :], self._noise)
        self.last_release = self.original_optimizer.released
        self._noise, self._sum = None, np.zeros_like(self._sum)

    def scale_grad(self) -> None:
        """Left to the public optimizer, which divides by mean_batch as every verifier does."""


def groups(config: Config) -> list[tuple[NDArray[np.int64], float]]:
    """Column indices and unit (clip / clip_units) of each non-empty clipping group, in trained coordinates."""
    clips = {"adapter": config.privacy.clip_adapter, "head": config.privacy.clip_head}
    return [(columns, float(clips[role] / config.privacy.clip_units)) for role, columns in config.groups.items()]


def _run(columns: NDArray[np.int64]) -> NDArray[np.int64] | slice:
    """The slice that ascending columns are, if they are one: it is read and written several times as fast."""
    first, last = int(columns[0]), int(columns[-1])
    return slice(first, last + 1) if last - first + 1 == len(columns) else columns


def _trained(model: LoadedModel) -> dict[str, torch.nn.Parameter]:
    return {tensor.name: model.parameters[tensor.name] for tensor in model.config.adapter.trained}
