"""A member's training in one round: T steps of differentially private SGD whose every release is an integer vector.

Each step: rows by Poisson sampling from committed words and beacon → exact per-example gradients in microbatches →
clipped per group, rounded to integers → sum + integer noise from committed words and beacon = ĝ, released → the public
optimizer's next iterate. An empty draw releases pure noise and counts. Nothing else about the data leaves: no loss, no
gradient norm, no batch size.

Call `PrivacyLedger.reserve` first: this module draws noise, it does not ask whether it may.

Same words, beacon, machine and thread count give the same trajectory bit for bit. Another thread count or device
changes gradients by about 1e-7 relative: from the same iterate no contribution differs by more than one unit in any
coordinate, and few differ at all (tests/training/test_training.py, on the GPU too where there is one). Verifiers never
recompute them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ledger.config import Config
from ledger.tensors import flatten
from node.data import Dataset
from node.gradients import PerExampleGradients
from node.grid_optimizer import GridOptimizer
from node.model import LoadedModel, Weights
from node.proving import Trained
from proofs import mechanism
from proofs.errors import LocalFault
from proofs.gaussian import NoiseTable, noise_table
from proofs.words import Binding, SecretWords, combine, public_draws, public_noise

Device = Literal["auto", "cpu", "cuda"]
MICROBATCH = 32
MOST_SCORES = 1 << 27  # of a microbatch under next-token, one for each token and word of the vocabulary: half a GiB


class DeviceMissing(LocalFault):
    """The configuration names a device that this machine does not have."""


@dataclass(frozen=True)
class TrainingJob:
    """Everything that decides one member's round. `weights`: the global bundle's, by tensor name, in grid units."""

    config: Config
    model: LoadedModel
    dataset: Dataset
    weights: Weights
    words: SecretWords
    beacon: bytes
    binding: Binding
    device: Device = "auto"
    threads: int = 1
    checkpointing: bool = False


def train(job: TrainingJob, on_step: Callable[[int, int], None]) -> Trained:
    """The released sum of each step, and what it is made of. `on_step(done, steps)` follows each of them.

    Raises DeviceMissing, WeightsMisfit, DatasetTooLarge, NotPerExample.
    """
    config = job.config
    job.dataset.check_capacity(config.privacy.capacity)
    job.model.to(pick_device(job.device)).load_weights(job.weights)
    if job.checkpointing:
        job.model.checkpoint()
    ids, run = job.model.encode(job.dataset.texts), _Run(job)
    trajectory = np.zeros((config.steps, config.adapter.parameters), dtype=np.int32)
    with torch_threads(job.threads):
        for step in range(config.steps):
            trajectory[step] = run.release(step, ids)
            on_step(step + 1, config.steps)
    return Trained(trajectory, tuple(run.contributions))


class _Run:
    """The parts of a run that live from step to step."""

    def __init__(self, job: TrainingJob) -> None:
        self._job, config = job, job.config
        self.contributions: list[NDArray[np.int32]] = []
        self._gradients = PerExampleGradients(job.model)
        self._optimizer = GridOptimizer(job.model, flatten(config, job.weights))
        self._table = None if config.privacy.insecure_no_noise else noise_table(config.privacy.noise_units)

    def release(self, step: int, ids: list[list[int]]) -> NDArray[np.int32]:
        """One step: gradients of the drawn rows, ĝ released, the next iterate loaded. Returns ĝ (P,)."""
        optimizer = self._optimizer
        drawn = drawn_rows(self._job, step)
        optimizer.expect_noise(step_noise(self._job, self._table, step))
        parts = list(microbatches(drawn, ids, MOST_SCORES // self._gradients.model.scores_a_token))
        for number, rows in enumerate(parts, start=1):
            self._fill(rows, ids)
            optimizer.signal_skip_step(do_skip=number < len(parts))
            optimizer.step()
            optimizer.zero_grad()
        self._keep([row for part in parts for row in part], optimizer.taken())
        return optimizer.last_release

    def _keep(self, rows: list[int], contributions: NDArray[np.int32]) -> None:
        """In the order of rows, which is that of the slots."""
        if self._job.config.proven:
            self.contributions.append(contributions[np.argsort(rows)])

    def _fill(self, rows: list[int], ids: list[list[int]]) -> None:
        if not rows:
            self._gradients.fill_empty()
            return
        labels = self._job.dataset.labels
        self._gradients.fill([ids[row] for row in rows], [labels[row] for row in rows])


def drawn_rows(job: TrainingJob, step: int) -> NDArray[np.int64]:
    """Rows of the step: row i joins iff its 32-bit draw is below the threshold."""
    privacy = job.config.privacy
    public = public_draws(job.beacon, job.binding, step, privacy.capacity)
    draws = combine(job.words.draws(step), public)
    return mechanism.selected_rows(draws, privacy.sample_threshold, len(job.dataset))


def step_noise(job: TrainingJob, table: NoiseTable | None, step: int) -> NDArray[np.int32]:
    """Integer noise (P,) of the step; zeros only under insecure_no_noise."""
    parameters = job.config.adapter.parameters
    if table is None:
        return np.zeros(parameters, dtype=np.int32)
    public = public_noise(job.beacon, job.binding, step, parameters)
    return table.lookup(combine(job.words.noise(step), public))


def microbatches(rows: NDArray[np.int64], ids: list[list[int]], most_tokens: int = MOST_SCORES) -> Iterator[list[int]]:
    """Rows in parts of like length, to pad little; one empty part for an empty draw.

    A part has at most MICROBATCH rows, and, padded, most_tokens tokens unless one row alone has more.
    """
    part: list[int] = []
    for row in sorted(rows.tolist(), key=lambda row: (len(ids[row]), row)):
        if part and (len(part) == MICROBATCH or (len(part) + 1) * len(ids[row]) > most_tokens):
            yield part
            part = []
        part.append(row)
    yield part


def pick_device(device: Device) -> str:
    """ "auto" is the GPU where there is one. Raises DeviceMissing when "cuda" is asked for in vain."""
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceMissing("node.device is cuda, but torch finds no GPU; remedy: device = auto or cpu")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """torch's thread count for the length of a block: results depend on it, so it is part of the job."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
