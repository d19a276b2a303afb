"""A federation trains a language model and proves its gradients: real texts, gradients and proofs, on a twin chain."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gradient_cases import PREDICTS, ROWS, gradient_round
from ledger.config import GradientSpec
from ledger.gradients import gradient_limits
from ledger.records import Phase, Policy
from node.settings import DataSettings
from node.showing import BaseProver
from node.trainer import ModelTrainer

POLICY = Policy(6, 8, 8, 8, 6, 6, 2, True, 2)
TOLERANCE = 8


@pytest.fixture
def predicting_world(make_world: Callable[..., Any], tmp_path: Path) -> Any:
    """Two members with three texts each; one slot of each is picked."""
    config = gradient_round(PREDICTS, tmp_path, steps=1).config

    def texts(world: Any) -> None:
        for number in range(2):
            rows = [json.dumps({"text": " ".join(row)}) for row in ROWS[3 * number : 3 * number + 3]]
            file = tmp_path / f"texts-{number}.jsonl"
            file.write_text("\n".join(rows) + "\n")
            data = DataSettings(file, "jsonl", "text", "")
            world.member(number).trainer = ModelTrainer(str(tmp_path), data, "cpu")

    return make_world(
        2,
        gradients=BaseProver(tmp_path),
        prepare=texts,
        base_name=config.base_name,
        base_digest=config.base_digest,
        task=config.task,
        adapter=config.adapter,
        privacy=config.privacy,
        optimizer=config.optimizer,
        aggregation=config.aggregation,
        steps=1,
        mean_batch=config.mean_batch,
        proof_policy="gradient",
        gradient=GradientSpec(1, TOLERANCE),
        policy=POLICY,
    )


def test_a_round_of_a_language_model_ends_with_gradients_that_all_verified(predicting_world: Any) -> None:
    world = predicting_world
    state = world.until_ended(1)
    assert state.phase is Phase.FINAL
    assert state.accepted == (0, 1)
    assert not state.objections
    for member in range(2):
        shown = world.member(member).store.get_directory(state.proofs[member].proof, gradient_limits(world.config))
        assert max(map(len, shown.values())) > 100_000, "no proof of the length that a proof has"
