"""A config small enough to read: two trained groups, one frozen tensor, a few dozen coordinates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from ledger.config import (
    AdapterSpec,
    AggregationSpec,
    Config,
    GradientSpec,
    OptimizerSpec,
    PrivacySpec,
    TaskSpec,
    TensorSpec,
)
from ledger.records import Policy

PREFIX = "base_model.model."
TENSORS = (
    TensorSpec(PREFIX + "classifier.bias", (2,), "head"),
    TensorSpec(PREFIX + "classifier.weight", (2, 8), "head"),
    TensorSpec(PREFIX + "layer.0.query.lora_A.weight", (2, 8), "frozen"),
    TensorSpec(PREFIX + "layer.0.query.lora_B.weight", (8, 2), "adapter"),
)


def build() -> Config:
    return Config(
        base_name="a-tiny-base",
        base_digest=bytes([5]) * 32,
        task=TaskSpec(("no", "yes"), 64),
        adapter=AdapterSpec(rank=2, alpha=4, targets=("query",), head=("classifier",), tensors=TENSORS),
        weight_bits=18,
        privacy=PrivacySpec(
            delta=Fraction(1, 100_000),
            clip_units=1024,
            clip_adapter=Fraction(1, 2),
            clip_head=Fraction(2),
            noise_units=1500,
            sample_threshold=1 << 28,
            capacity=64,
        ),
        optimizer=OptimizerSpec(
            name="adamw",
            learning_rate=Fraction(1, 100),
            learning_rate_head=Fraction(1, 50),
            momentum=Fraction(9, 10),
            beta2=Fraction(999, 1000),
            epsilon=Fraction(1, 10**8),
            weight_decay=Fraction(1, 100),
        ),
        steps=6,
        mean_batch=4,
        aggregation=AggregationSpec("ffa"),
        proof_policy="none",
        policy=Policy(5, 50, 0, 20, 10, 5, quorum=2, proof_required=False, verifier_quorum=2),
    )


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
