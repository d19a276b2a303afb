"""A stack is a PEFT adapter like any other, on the base as it is, and adds the mean of what its members add."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel

from ledger.aggregate import aggregate_files, read_aggregate
from ledger.aggregation import AggregationSpec, half_of, part_of
from ledger.tensors import Weights
from node.model import LoadedModel, attach

Build = Callable[..., LoadedModel]
SPEC = AggregationSpec("stack", weights=((0, 3),), ranks=((1, 1),))


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft asks transformers by an old name
def test_peft_loads_a_stack_of_members_of_different_ranks(model_for: Build, texts: list[str], tmp_path: Path) -> None:
    """A linear layer's output under the stack is (3·y₀ + 1·y₁)/4 for the outputs y₀, y₁ under its members."""
    model = model_for("llama", "fedavg")
    config = replace(model.config, aggregation=SPEC)
    members = {member: (bytes([member]) * 32, _weights(model, member)) for member in (0, 1)}
    files = aggregate_files(
        config, chain_id=1, contract=bytes(20), round=1, global_bundle=bytes(32), start={}, submissions=members
    )
    for path, data in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(data)
    base = model.base.build(len(config.task.labels), config.adapter.head)
    loaded = PeftModel.from_pretrained(base, tmp_path).eval()
    stacked, weights = read_aggregate(files)
    ours = attach(model.base, stacked)
    ours.load_weights(weights)
    theirs = LoadedModel(stacked, model.base, loaded, dict(loaded.named_parameters()))
    ids = model.encode(texts)
    with torch.no_grad():
        assert torch.equal(theirs.logits(ids), ours.logits(ids))
        x = torch.randn(
            5, model.base.build(3, ("score",)).config.hidden_size, generator=torch.Generator().manual_seed(1)
        )
        outputs = []
        for member, (_, own) in members.items():
            part = attach(model.base, part_of(config, member))
            part.load_weights(own)
            outputs.append(_layer(part)(x))
        mean = (3 * outputs[0] + outputs[1]) / 4
        assert float((_layer(ours)(x) - mean).abs().max()) < 1e-3
        assert float((outputs[0] - outputs[1]).abs().max()) > 1e-2


def _weights(model: LoadedModel, member: int) -> Weights:
    part, random = part_of(replace(model.config, aggregation=SPEC), member), np.random.default_rng(member)
    spread = {"A": 9000, "B": 9000, None: 500}
    return {
        t.name: random.integers(-spread[half_of(t.name)], spread[half_of(t.name)], t.shape)
        for t in part.adapter.tensors
    }


def _layer(model: LoadedModel) -> torch.nn.Module:
    name = next(name for name in model.parameters if half_of(name) == "A").rpartition(".lora_A.")[0]
    return model.module.get_submodule(name)  # type: ignore[no-any-return]
