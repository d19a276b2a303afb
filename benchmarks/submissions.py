"""Configs small enough for tests, and a proven submission under them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from hashlib import sha256
from typing import Any, Final

import numpy as np

from benchmarks.cases import drawn_case, random_texts
from ledger.aggregation import Rule, role_of
from ledger.bundle import Claim, SubmissionBundle
from ledger.config import (
    AdapterSpec,
    AggregationSpec,
    Config,
    OptimizerSpec,
    PrivacySpec,
    TaskSpec,
    TensorSpec,
)
from ledger.gradients import binding_of
from ledger.optimizer import replay
from ledger.records import Policy
from ledger.tensors import Weights, flatten, unflatten
from node.proving import Trained, data_root, proof_of, words_root
from proofs.words import SecretWords

SHAPES: Final = {"classifier.weight": (2, 8), "layer.lora_A.weight": (4, 8), "layer.lora_B.weight": (18, 4)}


def small_adapter(rule: Rule = "ffa", shapes: dict[str, tuple[int, int]] = SHAPES) -> AdapterSpec:
    """Two groups; under FFA there is a frozen tensor to tamper with, and 88 trained coordinates."""
    tensors = tuple(TensorSpec(name, shape, role_of(name, rule)) for name, shape in shapes.items())
    return AdapterSpec(4, 8, ("q",), ("classifier",), tensors)


def small_config(**changes: Any) -> Config:
    """Three steps by SGD; `changes` to the config's fields."""
    config = Config(
        base_name="package:none",
        base_digest=sha256(b"base").digest(),
        task=TaskSpec(("bad", "good"), 32),
        adapter=small_adapter(),
        weight_bits=16,
        privacy=PrivacySpec(Fraction(1, 100_000), 64, Fraction(1), Fraction(1, 2), 128, 1 << 29, 64),
        optimizer=OptimizerSpec(
            "sgd", Fraction(1, 8), Fraction(1, 16), Fraction(1, 2), Fraction(0), Fraction(0), Fraction(0)
        ),
        steps=3,
        mean_batch=8,
        aggregation=AggregationSpec("ffa"),
        proof_policy="none",
        policy=Policy(40, 40, 0, 20, 20, 3, 2, False, 2),
    )
    return replace(config, **changes)


def adamw_config(adapter: AdapterSpec) -> Config:
    """Six steps by AdamW with weight decay."""
    return Config(
        base_name="a-tiny-base",
        base_digest=bytes([5]) * 32,
        task=TaskSpec(("no", "yes"), 64),
        adapter=adapter,
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


def proven_submission(
    config: Config, claim: Claim, start: Weights, seed: bytes, beacon: bytes, rows: int
) -> tuple[SubmissionBundle, SecretWords]:
    """Random contributions of one member, proven, and the words. The roots in `claim` become those of what is made."""
    words = SecretWords(seed, binding_of(claim), config.steps, config.adapter.parameters, config.privacy.capacity)
    texts = random_texts(rows, config.task.max_tokens)
    claim = replace(claim, words_root=words_root(config, words), dataset_root=data_root(config, words, texts))
    group_of = np.zeros(config.adapter.parameters, dtype=np.uint8)
    group_of[config.groups["head"]] = 1
    contributions, released = drawn_case(config.shape, group_of, words, rows, beacon)
    weights = {**start, **unflatten(config, replay(config, flatten(config, start), released))}
    proof = proof_of(config, claim, beacon, words, texts, Trained(released, contributions), released, lambda _: None)
    return SubmissionBundle(config, claim, weights, released, proof), words
