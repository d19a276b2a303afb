"""H beside torch: the same contributions within a few clip units, and nothing else passes for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from devnet import notes
from devnet.presets import MINILM, TINY, Preset, make_config, with_method
from ledger.base_program import ArchitectureUnknown, Base
from ledger.config import Config
from ledger.records import Policy
from ledger.tensors import Weights
from node.gradients import PerExampleGradients
from node.grid_optimizer import groups
from node.model import LoadedModel, attach, load_base
from proofs import mechanism
from proofs.gradient.numbers import OutOfRange, ProgramRefused
from proofs.gradient.program import Program
from proofs.gradient.tape import Tape
from proofs.gradient.transformer import contribute

TOLERANCE = 4  # clip units a coordinate; benchmarks/gradient_distance.py derives it from many examples
MODELS = [(kind, rule) for kind in ("bert", "llama") for rule in ("fedavg", "ffa")]
LABELS = [0, 2, 1, 0, 1, 2]

Build = Callable[..., LoadedModel]
Prepared = tuple[LoadedModel, Program, list[list[int]], list[int]]


def program_of(model: LoadedModel, weights: Weights) -> Program:
    return Base.open(model.base.path).program(model.config, weights)


def iterate(model: LoadedModel) -> Weights:
    grid = 2**model.config.weight_bits
    return {
        name: np.rint(one.detach().numpy().astype(np.float64) * grid).astype(np.int64)
        for name, one in model.parameters.items()
    }


def by_torch(model: LoadedModel, tokens: list[int], label: int) -> np.ndarray[Any, Any]:
    gradients = PerExampleGradients(model)
    gradients.fill([tokens], [label])
    parts = [one.grad_sample.reshape(1, -1) for one in gradients.trained.values()]  # type: ignore[attr-defined]
    flat = torch.cat(parts, dim=1).to(torch.float64).numpy()
    found = np.zeros(flat.shape[1], dtype=np.int64)
    for columns, unit in groups(model.config):
        chosen = np.ascontiguousarray(flat[:, columns])
        found[columns] = mechanism.to_grid(chosen, unit, model.config.privacy.clip_units)[0]
    return found


def prepared(preset: Preset, examples: int) -> Prepared:
    config, weights = make_config(preset, epsilon=8.0, rounds=1, policy=Policy(1, 1, 1, 1, 1, 1, 1, False, 1))
    random = np.random.default_rng(2)
    weights = {name: units + random.integers(-2000, 2001, units.shape) for name, units in weights.items()}
    model = attach(load_base(preset.base_path), config)
    model.load_weights(weights)
    lot = notes.members(1, examples, 41)[0]
    ids, labels = model.encode([note.text for note in lot]), [notes.LABELS.index(note.label) for note in lot]
    return model, program_of(model, weights), ids, labels


@pytest.fixture(scope="module")
def tiny() -> Prepared:
    return prepared(TINY, 6)


@pytest.mark.parametrize(("kind", "rule"), MODELS)
def test_a_contribution_is_torchs_within_the_tolerance(
    model_for: Build, texts: list[str], kind: str, rule: str
) -> None:
    model = model_for(kind, rule)
    program = program_of(model, iterate(model))
    for tokens, label in zip(model.encode(texts), LABELS, strict=True):
        expected, found = by_torch(model, tokens, label), contribute(program, tokens, label)
        assert np.abs(expected).max() > 20 * TOLERANCE, "too short a gradient to compare"
        assert np.abs(found - expected).max() <= TOLERANCE


@pytest.mark.parametrize(
    ("preset", "examples"),
    [(TINY, 6), (MINILM, 3), (with_method(TINY, "rslora"), 2)],
    ids=["tiny", "minilm", "tiny-rslora"],
)
def test_the_presets_stay_within_the_tolerance_and_close_in_length(preset: Preset, examples: int) -> None:
    model, program, ids, labels = prepared(preset, examples)
    for tokens, label in zip(ids, labels, strict=True):
        expected, found = by_torch(model, tokens, label), contribute(program, tokens, label)
        assert np.abs(found - expected).max() <= TOLERANCE
        for columns, _ in groups(model.config):
            apart, length = (np.linalg.norm(one[columns]) for one in (found - expected, expected))
            assert apart <= 0.01 * length + np.sqrt(len(columns))


def test_rslora_whose_root_of_the_rank_is_not_whole_has_no_program(model_for: Build) -> None:
    model = model_for("llama", method="rslora")
    with pytest.raises(ArchitectureUnknown, match=r"config\.adapter: rslora of rank 2"):
        program_of(model, iterate(model))


def test_what_is_no_gradient_of_the_row_is_further_away_than_the_tolerance(tiny: Prepared) -> None:
    model, program, ids, labels = tiny
    honest = [by_torch(model, tokens, label) for tokens, label in zip(ids, labels, strict=True)]
    for index, (tokens, label) in enumerate(zip(ids, labels, strict=True)):
        found, own = contribute(program, tokens, label), honest[index]
        forged = {
            "another row": honest[index - 1],
            "another label": by_torch(model, tokens, (label + 1) % 3),
            "scaled": np.rint(0.9 * own),
            "sign turned": -own,
            "zero": 0 * own,
        }
        for name, other in forged.items():
            assert np.abs(other - found).max() > 2 * TOLERANCE, name


def test_a_recording_changes_nothing_and_holds_every_operation(tiny: Prepared) -> None:
    _, program, ids, labels = tiny
    tape = Tape(recording=True)
    first, second = contribute(program, ids[0], labels[0], tape), contribute(program, ids[0], labels[0])
    assert np.array_equal(first, second)
    names = [step.name for step in tape.steps]
    assert len(names) == len(set(names))
    assert {"embedding", "layer0.attention.scores", "loss.shares", "clip.adapter.units"} <= set(names)
    made = sum(array.size for step in tape.steps for array in step.made.values())
    assert 0.3 * tape.counts.values < made < 3 * tape.counts.values
    assert tape.counts.lookups <= tape.counts.values


def test_texts_of_other_lengths_are_computed_without_padding(tiny: Prepared) -> None:
    model, program, ids, labels = tiny
    for length in (1, 2, 17):
        expected, found = by_torch(model, ids[0][:length], labels[0]), contribute(program, ids[0][:length], labels[0])
        assert np.abs(found - expected).max() <= TOLERANCE


def test_an_example_beyond_the_ranges_is_refused_not_wrapped(tiny: Prepared) -> None:
    model, _, ids, labels = tiny
    weights = iterate(model)
    name = next(name for name in weights if name.endswith("layers.0.self_attn.v_proj.lora_B.weight"))
    weights[name] = weights[name] + (1 << 22)
    with pytest.raises(OutOfRange, match=r"layers\.0\.self_attn\.v_proj"):
        contribute(program_of(model, weights), ids[0], labels[0])
    program = program_of(model, iterate(model))
    with pytest.raises(OutOfRange, match="embedding"):
        contribute(program, [5, 259], 0)
    with pytest.raises(OutOfRange, match="embedding"):
        contribute(program, [], 0)
    with pytest.raises(ProgramRefused, match="label 3"):
        contribute(program, ids[0], 3)


def test_the_configs_groups_are_the_programs(tiny: Prepared) -> None:
    model, program, _, _ = tiny
    config: Config = model.config
    assert [(one.name, one.shape, one.group) for one in program.trained] == [
        (one.name, one.shape, one.role) for one in config.adapter.trained
    ]
    assert program.groups["adapter"].clip == config.privacy.clip_adapter
