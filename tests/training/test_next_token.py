"""H under next-token loss: beside torch, beside its circuit, and what it has no program for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ledger.base_program import Base
from ledger.base_settings import ArchitectureUnknown
from ledger.config import Config
from node.gradients import PerExampleGradients
from node.grid_optimizer import groups
from node.model import LoadedModel, attach, genesis, layout, load_base
from proofs import mechanism
from proofs.circuit.builder import Circuit, ValueRefused
from proofs.circuit.layout import layout_of
from proofs.gradient.circuit_model import contribution
from proofs.gradient.circuit_text import cells_of, example
from proofs.gradient.matrix import Matrix
from proofs.gradient.next_token import MOST_PLACES, SHARE_BITS, share_of, shares, sums_fraction
from proofs.gradient.numbers import OutOfRange, ProgramRefused
from proofs.gradient.program import NextToken, Program
from proofs.gradient.tape import Tape
from proofs.gradient.transformer import contribute

TINY = Path(__file__).parents[2] / "devnet" / "tiny" / "model"
TOLERANCE = 4  # clip units a coordinate; benchmarks/gradient_distance.py derives it from many examples
PLACES, VOCABULARY = 6, 259
Build = Callable[..., LoadedModel]
Prepared = tuple[LoadedModel, Program]


def iterate(model: LoadedModel) -> dict[str, Any]:
    grid = 2**model.config.weight_bits
    return {
        name: np.rint(one.detach().numpy().astype(np.float64) * grid).astype(np.int64)
        for name, one in model.parameters.items()
    }


def by_torch(model: LoadedModel, tokens: list[int]) -> np.ndarray[Any, Any]:
    gradients = PerExampleGradients(model)
    gradients.fill([tokens], [0])
    parts = [one.grad_sample.reshape(1, -1) for one in gradients.trained.values()]  # type: ignore[attr-defined]
    flat = torch.cat(parts, dim=1).to(torch.float64).numpy()
    ((_, unit),) = groups(model.config)
    return np.asarray(mechanism.to_grid(flat, unit, model.config.privacy.clip_units)[0])


def texts(lengths: list[int], seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(3, VOCABULARY, length).tolist() for length in lengths]


def circuit_of(program: Program, tokens: list[int] | None, places: int = PLACES) -> Circuit:
    return computed(program, tokens, places)[0]


def computed(program: Program, tokens: list[int] | None, places: int = PLACES) -> tuple[Circuit, list[Any]]:
    circuit = Circuit(places, tokens is not None)
    units = None if tokens is None else cells_of(tokens, 0, places)
    found = contribution(circuit, program, example(circuit, program, circuit.free((places + 2,), 1, units)))
    return circuit, [wire.units for _, wire in found]


@pytest.fixture(scope="module")
def tied(model_for: Build) -> Prepared:
    """A Llama whose head is its embedding; A and B are trained."""
    model = model_for("language", "fedavg")
    return model, Base.open(model.base.path).program(model.config, iterate(model))


@pytest.fixture(scope="module")
def untied_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same Llama with a head of its own."""
    folder = tmp_path_factory.mktemp("untied") / "model"
    shutil.copytree(TINY, folder)
    return with_settings(with_head(folder, 0.08), tie_word_embeddings=False)


def with_head(folder: Path, spread: float) -> Path:
    tensors = load_file(folder / "model.safetensors")
    head = torch.from_numpy(np.random.default_rng(8).normal(0, spread, (VOCABULARY, 64)).astype(np.float32))
    save_file(tensors | {"lm_head.weight": head}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def with_settings(folder: Path, **changed: object) -> Path:
    settings = json.loads((folder / "config.json").read_text()) | changed
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def untied(untied_folder: Path, config_for: Callable[..., Config]) -> Prepared:
    base, config = load_base(str(untied_folder)), config_for("language")
    tensors = layout(base, rank=2, alpha=4, targets=config.adapter.targets, head=(), labels=0, rule="ffa")
    config = replace(config, base_digest=base.digest, adapter=replace(config.adapter, tensors=tensors))
    model, random = attach(base, config), np.random.default_rng(3)
    weights = genesis(tensors, config.weight_bits, "test")
    model.load_weights({name: units + random.integers(-3000, 3000, units.shape) for name, units in weights.items()})
    return model, Base.open(untied_folder).program(config, iterate(model))


@pytest.fixture(params=["tied", "untied"])
def prepared(request: pytest.FixtureRequest) -> Prepared:
    found: Prepared = request.getfixturevalue(request.param)
    return found


def test_a_contribution_is_torchs_within_the_tolerance(prepared: Prepared) -> None:
    model, program = prepared
    assert {trained.group for trained in program.trained} == {"adapter"}
    for tokens in texts([2, 3, 7, 24, 60]):
        expected, found = by_torch(model, tokens), contribute(program, tokens, 0)
        assert np.abs(expected).max() > 10 * TOLERANCE, "too short a gradient to compare"
        assert np.abs(found - expected).max() <= TOLERANCE
        assert np.linalg.norm(found - expected) <= 0.01 * np.linalg.norm(expected) + np.sqrt(len(found))


def test_the_circuit_computes_what_h_computes_for_every_length(prepared: Prepared) -> None:
    _, program = prepared
    for tokens in texts([*range(1, PLACES + 1)], seed=1):
        found = np.concatenate(computed(program, tokens)[1])[:, 0]
        assert np.array_equal(found, contribute(program, tokens, 0)), len(tokens)
        assert found.any() == (len(tokens) > 1)


def test_a_text_of_one_token_predicts_nothing_and_gives_nothing(tied: Prepared) -> None:
    assert not contribute(tied[1], [7], 0).any()


def test_no_size_depends_on_the_text_and_nothing_on_its_label(tied: Prepared) -> None:
    _, program = tied
    blank = layout_of(circuit_of(program, None, 4), 512)
    for tokens in texts([1, 3]):
        assert layout_of(circuit_of(program, tokens, 4), 512) == blank
    (tokens,) = texts([5])
    assert np.array_equal(contribute(program, tokens, 0), contribute(program, tokens, 1))


def test_what_is_no_gradient_of_the_text_is_further_away_than_the_tolerance(tied: Prepared) -> None:
    model, program = tied
    (tokens,) = texts([12])
    found, own = contribute(program, tokens, 0), by_torch(model, tokens)
    other = [*tokens[:-1], (tokens[-1] + 100) % VOCABULARY]
    for name, forged in {
        "another last token": by_torch(model, other),
        "one token less": by_torch(model, tokens[:-1]),
        "sign turned": -own,
        "zero": 0 * own,
        "scaled": np.rint(0.9 * own),
    }.items():
        assert np.abs(forged - found).max() > 2 * TOLERANCE, name


def test_every_token_but_the_last_has_the_same_share_and_together_they_are_one() -> None:
    assert not shares(1).any()
    by_end = shares(9)
    for end in range(9):
        counted = by_end[:, end]
        assert (counted[:end] == share_of(end + 1)).all()
        assert not counted[end:].any()
        assert end == 0 or abs(counted.sum() - (1 << SHARE_BITS)) <= end / 2
    assert share_of(2) == 1 << SHARE_BITS
    assert share_of(MOST_PLACES) * (MOST_PLACES - 1) <= (1 + 2**-8) * 2**SHARE_BITS


def test_no_exponentials_whatever_they_are_leave_the_ranges(tied: Prepared) -> None:
    """Wᵀe is longest where all scores are the same: there too it fits, and the mean of rows is right."""
    _, program = tied
    assert isinstance(program.head, NextToken)
    flat = replace(program, head=NextToken(Matrix(np.full((VOCABULARY, 64), 32767, np.int64), 15)))
    assert not contribute(flat, texts([4])[0], 0).any()
    assert sums_fraction(flat.head.weight) < sums_fraction(Matrix(np.ones((VOCABULARY, 64), np.int64), 15))


def test_a_recording_changes_nothing_and_holds_the_loss(tied: Prepared) -> None:
    _, program = tied
    (tokens,) = texts([6])
    tape = Tape(recording=True)
    assert np.array_equal(contribute(program, tokens, 0, tape), contribute(program, tokens, 0))
    names = {step.name for step in tape.steps}
    assert {"loss.scores", "loss.exponentials", "loss.sums", "loss.means", "loss.next", "loss.dy"} <= names


def test_what_h_cannot_prove_is_refused_by_name(tied: Prepared, untied_folder: Path, tmp_path: Path) -> None:
    model, program = tied
    with pytest.raises(OutOfRange, match="512 can be predicted from"):
        contribute(program, [5] * (MOST_PLACES + 1), 0)
    with pytest.raises(ProgramRefused, match="512 can be predicted from"):
        circuit_of(program, None, MOST_PLACES + 1)
    large = replace(program, head=NextToken(Matrix(np.zeros(((1 << 15) + 1, 64), np.int64), 15)))
    with pytest.raises(ProgramRefused, match="a vocabulary of 32769"):
        contribute(large, [5, 6], 0)
    seeing = tuple(replace(one, attention=replace(one.attention, causal=False)) for one in program.layers)
    with pytest.raises(ProgramRefused, match="sees those after it"):
        circuit_of(replace(program, prenorm=False, layers=seeing), [5, 6])
    with pytest.raises((OutOfRange, ValueRefused)):
        circuit_of(program, [5, VOCABULARY])
    folder = Path(shutil.copytree(TINY, tmp_path / "both"))
    for changed, told in (
        (with_settings(Path(shutil.copytree(TINY, tmp_path / "none")), tie_word_embeddings=False), "none that H"),
        (with_head(folder, 0.1), "one of its own beside it"),
    ):
        config = replace(model.config, base_digest=Base.open(changed).digest)
        with pytest.raises(ArchitectureUnknown, match=told):
            Base.open(changed).program(config, iterate(model))


def test_bert_predicts_no_tokens(model_for: Build) -> None:
    model = model_for("bert")
    config = replace(model.config, task=replace(model.config.task, labels=(), kind="next-token"))
    with pytest.raises(ArchitectureUnknown, match="with llama alone"):
        Base.open(model.base.path).program(config, iterate(model))
