"""A step's release is the integer sum of clipped contributions plus committed noise, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from devnet import notes
from devnet.presets import TINY, make_config
from ledger.config import Config
from ledger.optimizer import replay
from ledger.privacy import epsilon_micro, spend_of
from ledger.records import Policy
from ledger.tensors import flatten, unflatten
from node.data import Dataset, DatasetTooLarge, row_bytes
from node.gradients import PerExampleGradients
from node.grid_optimizer import GridOptimizer, ReleaseTwice, groups
from node.model import LoadedModel, Weights, attach, load_base
from node.training import (
    DeviceMissing,
    TrainingJob,
    drawn_rows,
    microbatches,
    pick_device,
    step_noise,
    torch_threads,
    train,
)
from proofs.gaussian import noise_table
from proofs.mechanism import GradientInvalid, check_contributions
from proofs.words import Binding, SecretWords

BINDING = Binding(31337, bytes(20), 1, 0)
BEACON = b"b" * 32
NEVER, ALWAYS = 0, 1 << 32
MakeJob = Callable[..., TrainingJob]


def dataset(texts: list[str]) -> Dataset:
    labels = [n % 3 for n in range(len(texts))]
    return Dataset([row_bytes(t, str(n)) for t, n in zip(texts, labels, strict=True)], texts, labels)


def units(model: LoadedModel) -> Weights:
    return {
        name: np.rint(p.detach().numpy().astype(np.float64) * 2**16).astype(np.int64)
        for name, p in model.parameters.items()
    }


@pytest.fixture
def job_for(model_for: Callable[..., LoadedModel], texts: list[str]) -> MakeJob:
    def build(kind: str = "bert", rule: str = "ffa", **privacy: object) -> TrainingJob:
        model = model_for(kind, rule, **privacy)
        config = model.config
        words = SecretWords(b"s" * 32, BINDING, config.steps, config.adapter.parameters, config.privacy.capacity)
        return TrainingJob(config, model, dataset(texts), units(model), words, BEACON, BINDING, "cpu")

    return build


def run(job: TrainingJob) -> Any:
    return train(job, lambda _done, _steps: None).released


def contribution_of(job: TrainingJob, row: int) -> Any:
    """(P,): one row's contribution at the start, computed alone."""
    optimizer, gradients = GridOptimizer(job.model, flatten(job.config, job.weights)), PerExampleGradients(job.model)
    job.model.load_weights(job.weights)
    gradients.fill([job.model.encode(job.dataset.texts)[row]], [job.dataset.labels[row]])
    optimizer.clip_and_accumulate()
    return optimizer.taken()[0]


def noise_of(job: TrainingJob) -> Any:
    table = noise_table(job.config.privacy.noise_units)
    return np.stack([step_noise(job, table, step) for step in range(job.config.steps)])


@pytest.mark.parametrize("rule", ["ffa", "fedavg"])
def test_the_model_ends_where_the_trajectory_leads(job_for: MakeJob, rule: str) -> None:
    job = job_for(rule=rule)
    end = replay(job.config, flatten(job.config, job.weights), run(job))
    for name, expected in unflatten(job.config, end).items():
        assert np.array_equal(units(job.model)[name], expected)


def test_frozen_tensors_stay_as_they_were(job_for: MakeJob) -> None:
    job = job_for()
    run(job)
    for tensor in job.config.adapter.tensors:
        same = np.array_equal(units(job.model)[tensor.name], job.weights[tensor.name])
        assert same == (tensor.role == "frozen")


def test_the_same_job_gives_the_same_bits(job_for: MakeJob) -> None:
    job = job_for()
    assert np.array_equal(run(job), run(job))


def test_another_beacon_draws_other_rows_and_other_noise(job_for: MakeJob) -> None:
    job = job_for()
    other = replace(job, beacon=b"c" * 32)
    assert not np.array_equal(noise_of(job), noise_of(other))
    draws = [[drawn_rows(each, step).tolist() for step in range(3)] for each in (job, other)]
    assert draws[0] != draws[1]


def test_an_empty_draw_releases_its_noise_alone_and_counts(job_for: MakeJob) -> None:
    job = job_for(sample_threshold=NEVER)
    assert np.array_equal(run(job), noise_of(job))


def test_every_step_releases_contributions_plus_its_own_noise(job_for: MakeJob) -> None:
    """The first step again by hand, from gradients that another test compares with single passes."""
    job = job_for(sample_threshold=ALWAYS)
    released = run(job)[0]
    job.model.load_weights(job.weights)
    gradients = PerExampleGradients(job.model)
    total = np.zeros(job.config.adapter.parameters, dtype=np.int64)
    optimizer = GridOptimizer(job.model, flatten(job.config, job.weights))
    ids = job.model.encode(job.dataset.texts)
    for rows in microbatches(np.arange(len(ids)), ids):
        gradients.fill([ids[row] for row in rows], [job.dataset.labels[row] for row in rows])
        total += optimizer.contributions(samples(gradients)).sum(axis=0)
    assert np.array_equal(released - total, noise_of(job)[0])


def samples(gradients: PerExampleGradients) -> Any:
    parts = [p.grad_sample.reshape(len(p.grad_sample), -1) for p in gradients.trained.values()]  # type: ignore[attr-defined]
    return torch.cat(parts, dim=1).cpu().double().numpy()


def test_without_noise_the_trajectory_is_the_bare_sum(job_for: MakeJob) -> None:
    job = job_for(noise_units=0, insecure_no_noise=True, sample_threshold=NEVER)
    assert not run(job).any()


@pytest.mark.parametrize("threshold", [1, 1 << 31, ALWAYS])
def test_contributions_are_those_of_the_rows_drawn_in_their_order_and_add_up(threshold: int, job_for: MakeJob) -> None:
    """What a proof is made from: one row of integers for each row drawn, ascending, whatever the microbatches."""
    job = job_for(sample_threshold=threshold, noise_units=1000)
    job = replace(job, config=replace(job.config, proof_policy="mechanism"))
    trained = train(job, lambda _done, _steps: None)
    sums = np.stack([part.sum(axis=0, dtype=np.int32) for part in trained.contributions])
    assert np.array_equal(sums + noise_of(job), trained.released)
    rows = [drawn_rows(job, step) for step in range(job.config.steps)]
    assert [len(part) for part in trained.contributions] == [len(drawn) for drawn in rows]
    for slot in range(0, len(rows[0]), 4):
        alone = contribution_of(job, int(rows[0][slot]))
        assert np.abs(alone - trained.contributions[0][slot]).max() <= 1  # another batch, another rounding
    assert "contributions" not in repr(trained)


def test_without_a_proof_to_make_no_contribution_is_kept(job_for: MakeJob) -> None:
    assert train(job_for(), lambda _done, _steps: None).contributions == ()


def test_one_row_moves_a_release_by_no_more_than_the_clip(job_for: MakeJob) -> None:
    """Neighbours: the same member with and without its last row, everything else equal."""
    job = job_for(sample_threshold=ALWAYS)
    fewer = replace(job, dataset=dataset(job.dataset.texts[:-1]))
    difference = run(job)[0].astype(np.int64) - run(fewer)[0]
    assert difference.any()
    for columns, _ in groups(job.config):
        # other rows' float gradients may round differently in another batch: one unit for a few coordinates
        assert np.sqrt((difference[columns] ** 2).sum()) <= job.config.privacy.clip_units + 2


def test_huge_gradients_are_clipped_per_group_over_the_integers(job_for: MakeJob) -> None:
    job = job_for()
    optimizer = GridOptimizer(job.model, flatten(job.config, job.weights))
    gradients = np.random.default_rng(0).normal(size=(20, job.config.adapter.parameters)) * 1e6
    found = optimizer.contributions(gradients)
    for columns, _ in groups(job.config):
        check_contributions(found[:, columns], job.config.privacy.clip_units)
        assert (np.square(found[:, columns].astype(np.int64)).sum(axis=1) > 0.98 * 1024**2).all()


def test_units_follow_each_groups_clip(config_for: Callable[..., Config]) -> None:
    (adapter, adapter_unit), (head, head_unit) = groups(config_for("bert"))
    assert (adapter_unit, head_unit) == (0.5 / 1024, 2 / 1024)
    assert sorted([*adapter, *head]) == list(range(config_for("bert").adapter.parameters))


def test_a_gradient_that_is_not_finite_stops_training(job_for: MakeJob) -> None:
    job = job_for()
    with pytest.raises(GradientInvalid):
        GridOptimizer(job.model, flatten(job.config, job.weights)).contributions(
            np.full((1, job.config.adapter.parameters), np.nan)
        )


def test_noise_is_used_once(job_for: MakeJob) -> None:
    job = job_for()
    optimizer, gradients = GridOptimizer(job.model, flatten(job.config, job.weights)), PerExampleGradients(job.model)
    optimizer.expect_noise(noise_of(job)[0])
    gradients.fill_empty()
    optimizer.step()
    optimizer.zero_grad()
    gradients.fill_empty()
    with pytest.raises(ReleaseTwice):
        optimizer.step()


def test_a_per_example_gradient_is_added_once(job_for: MakeJob) -> None:
    """Opacus' own guard: the same grad_sample in two microbatches would double a contribution."""
    job = job_for()
    optimizer, gradients = GridOptimizer(job.model, flatten(job.config, job.weights)), PerExampleGradients(job.model)
    gradients.fill(job.model.encode(["the loan"]), [0])
    optimizer.signal_skip_step(do_skip=True)
    optimizer.step()
    with pytest.raises(ValueError, match="been cleared since the last optimizer step"):
        optimizer.step()


def test_steps_are_reported_as_they_end(job_for: MakeJob) -> None:
    seen: list[tuple[int, int]] = []
    train(job_for(), lambda done, steps: seen.append((done, steps)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_more_rows_than_the_capacity_are_refused(job_for: MakeJob) -> None:
    job = job_for(capacity=5)
    with pytest.raises(DatasetTooLarge, match="capacity of 5"):
        run(job)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == "cpu"
    with pytest.raises(DeviceMissing, match="remedy"):
        pick_device("cuda")


def test_microbatches_keep_every_row_once_and_are_of_like_length() -> None:
    ids = [[0] * (1 + n % 7) for n in range(100)]
    parts = list(microbatches(np.arange(0, 100, 1), ids))
    assert sorted(row for part in parts for row in part) == list(range(100))
    assert [len(ids[row]) for part in parts for row in part] == sorted(len(row) for row in ids)
    assert list(microbatches(np.arange(0), ids)) == [[]]


def test_a_microbatch_of_long_texts_is_smaller_so_that_its_scores_fit_the_memory() -> None:
    ids = [[0] * length for length in (2, 3, 3, 9, 30, 40)]
    assert list(microbatches(np.arange(6), ids, 20)) == [[0, 1, 2], [3], [4], [5]]


MACHINES = [("cpu", 2), *([("cuda", 1)] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize(("device", "threads"), MACHINES)
def test_other_threads_or_a_gpu_move_a_contribution_by_one_unit_at_most(
    job_for: MakeJob, device: str, threads: int
) -> None:
    """The tolerance that node/training.py states, from the same iterate."""
    job = job_for("llama", "fedavg")
    ids = job.model.encode(job.dataset.texts)

    def contributions() -> Any:
        gradients = PerExampleGradients(job.model)
        gradients.fill(ids, job.dataset.labels)
        optimizer = GridOptimizer(job.model, flatten(job.config, job.weights))
        return optimizer.contributions(samples(gradients)).astype(np.int64)

    here = contributions()
    with torch_threads(threads):
        job.model.to(device)
        moved = np.abs(contributions() - here)
        job.model.to("cpu")
    assert moved.max() <= 1
    assert np.count_nonzero(moved) < 0.01 * moved.size


def test_the_thread_count_is_given_back(job_for: MakeJob) -> None:
    before = torch.get_num_threads()
    run(job_for())
    assert torch.get_num_threads() == before


def test_the_demos_preset_learns_within_its_budget() -> None:
    """Three members, three rounds, averaged: candor-tiny goes from guessing to most notes right at ε ≤ 8."""
    config, weights = make_config(TINY, epsilon=TINY.epsilon, rounds=3, policy=Policy(1, 1, 1, 1, 1, 1, 1, False, 1))
    assert epsilon_micro([spend_of(config)] * 3, config.privacy.delta) <= 8_000_000
    model = attach(load_base(TINY.base_path), config)
    unseen = notes.held_out(3, 150, 11)

    def accuracy() -> float:
        model.load_weights(weights)
        guessed = model.predict([note.text for note in unseen])
        return sum(notes.LABELS[g] == note.label for g, note in zip(guessed, unseen, strict=True)) / len(unseen)

    before = accuracy()
    for number in range(3):
        ends = [member_round(config, model, member, number, weights) for member in range(3)]
        weights = weights | unflatten(config, np.rint(np.mean(ends, axis=0)).astype(np.int64))
    assert before < 0.5
    assert accuracy() > 0.7


def member_round(config: Config, model: LoadedModel, member: int, number: int, weights: Weights) -> Any:
    lot = notes.members(3, TINY.rows, 11)[member]
    texts, labels = [note.text for note in lot], [notes.LABELS.index(note.label) for note in lot]
    rows = Dataset([row_bytes(note.text, note.label) for note in lot], texts, labels)
    binding = Binding(1, bytes(20), number + 1, member)
    words = SecretWords(bytes([member]) * 32, binding, config.steps, config.adapter.parameters, config.privacy.capacity)
    job = TrainingJob(config, model, rows, weights, words, bytes([number]) * 32, binding, "cpu")
    return replay(config, flatten(config, weights), run(job))


def test_without_noise_the_presets_config_says_insecure() -> None:
    config, _ = make_config(TINY, epsilon=None, rounds=3, policy=Policy(1, 1, 1, 1, 1, 1, 1, False, 1))
    assert config.privacy.insecure_no_noise
    assert config.privacy.noise_units == 0
    assert config.privacy.delta == Fraction(1, 100_000)
