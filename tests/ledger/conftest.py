"""A config small enough to read: two trained groups, one frozen tensor, a few dozen coordinates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.submissions import adamw_config
from ledger.config import (
    AdapterSpec,
    Config,
    GradientSpec,
    TensorSpec,
)

PREFIX = "base_model.model."
TENSORS = (
    TensorSpec(PREFIX + "classifier.bias", (2,), "head"),
    TensorSpec(PREFIX + "classifier.weight", (2, 8), "head"),
    TensorSpec(PREFIX + "layer.0.query.lora_A.weight", (2, 8), "frozen"),
    TensorSpec(PREFIX + "layer.0.query.lora_B.weight", (8, 2), "adapter"),
)


def build() -> Config:
    return adamw_config(AdapterSpec(rank=2, alpha=4, targets=("query",), head=("classifier",), tensors=TENSORS))


@pytest.fixture(scope="session")
def config() -> Config:
    return build()


@pytest.fixture(scope="session")
def proving(config: Config) -> Config:
    """The same config, asking for proofs of mechanism and gradients."""
    policy = replace(config.policy, prove_blocks=10, proof_required=True)
    return replace(config, proof_policy="gradient", gradient=GradientSpec(4, 8), policy=policy)


@pytest.fixture(scope="session")
def with_privacy(config: Config) -> Callable[..., Config]:
    """The same config with fields of its privacy changed."""

    def change(**fields: Any) -> Config:
        return replace(config, privacy=replace(config.privacy, **fields))

    return change
