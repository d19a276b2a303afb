"""Every method through a whole round: two members with a real model train it, judge each other, average, and a stranger
audits what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MixtralConfig, MixtralModel, PreTrainedTokenizerFast

from devnet import notes
from devnet.presets import TINY, Preset, make_config, with_method
from ledger.audit import audit
from ledger.bundle import GenesisBundle, bundle_limits, read_weights
from ledger.records import Phase, Policy
from ledger.report import Status
from node.settings import DataSettings
from node.trainer import ModelTrainer

MakeWorld = Callable[..., Any]
POLICY = Policy(6, 8, 0, 8, 6, 6, 2, False, 2)
SMALL = replace(TINY, steps=2, rows=24, capacity=32, mean_batch=8, gradient=None)


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mixture of four experts that reads bytes, as the tiny Llama does."""
    folder = tmp_path_factory.mktemp("mixtral")
    torch.manual_seed(3)
    sizes = {"vocab_size": 259, "hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "num_local_experts": 4}
    MixtralModel(MixtralConfig(**sizes, **heads, pad_token_id=0)).save_pretrained(folder)
    PreTrainedTokenizerFast.from_pretrained(TINY.base_path).save_pretrained(folder)
    return folder


def a_round(make_world: MakeWorld, folder: Path, preset: Preset, proof_policy: str) -> tuple[Any, Any]:
    """A world in which two members have notes and the preset's model, and the weights it starts from."""
    config, weights = make_config(preset, epsilon=8.0, rounds=1, policy=POLICY)
    config = replace(config, proof_policy=proof_policy)  # type: ignore[arg-type]

    def with_models(world: Any) -> None:
        daemon = world.aggregator()
        genesis = daemon.store.put_directory(GenesisBundle(config, weights).files())
        daemon.coordinator = replace(daemon.coordinator, genesis=genesis)
        for number, rows in enumerate(notes.members(2, preset.rows, 7)):
            path = folder / f"notes-{number}.jsonl"
            notes.write(path, rows)
            data = DataSettings(path, "jsonl", "text", "label")
            world.member(number).trainer = ModelTrainer(preset.base_path, data, "cpu")

    changes = {field.name: getattr(config, field.name) for field in fields(config)}
    return make_world(2, prepare=with_models, **changes), weights


@pytest.mark.parametrize(
    ("method", "proof_policy"), [("dora", "mechanism"), ("rslora", "none"), ("qlora", "none"), ("experts", "none")]
)
def test_a_method_goes_from_the_config_to_the_audit(
    make_world: MakeWorld, mixtral: Path, tmp_path: Path, method: str, proof_policy: str
) -> None:
    preset = with_method(SMALL, "lora" if method == "experts" else method)
    if method == "experts":
        experts = ("experts.gate_up_proj", "experts.down_proj")
        preset = replace(preset, base_name="mixtral", base_path=str(mixtral), rank=2, experts=experts)
    world, start = a_round(make_world, tmp_path, preset, proof_policy)
    state = world.until_ended(1)
    assert state.phase is Phase.FINAL
    assert state.accepted == (0, 1)
    store = world.aggregator().service.store
    files = store.get_directory(state.proposal.aggregate_bundle, bundle_limits(world.config))
    reached = read_weights(files, world.config)
    still = [
        tensor.name for tensor in world.config.adapter.trained if (reached[tensor.name] == start[tensor.name]).all()
    ]
    assert still == [], "trained by both, and where it was"
    report = audit(world.chain, store)
    assert [link for of_round in report.rounds for link in of_round.links if link.status is Status.FAIL] == []
