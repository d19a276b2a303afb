"""An honest submission to forge, small enough to be made without a model."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256

import numpy as np
import pytest

from benchmarks.cases import drawn_case, random_texts
from devnet.forgeries import Honest
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
from ledger.optimizer import replay
from ledger.privacy import epsilon_micro, spend_of
from ledger.records import Policy
from ledger.tensors import flatten, unflatten
from ledger.verdict import SubmissionFacts
from node.proving import Trained, data_root, proof_of, words_root
from proofs.words import Binding, SecretWords


@dataclass(frozen=True)
class Case:
    honest: Honest
    facts: SubmissionFacts


def small_config() -> Config:
    tensors = (
        TensorSpec("classifier.weight", (2, 40), "head"),
        TensorSpec("layer.lora_A.weight", (4, 8), "frozen"),
        TensorSpec("layer.lora_B.weight", (60, 4), "adapter"),
    )
    return Config(
        base_name="package:none",
        base_digest=sha256(b"base").digest(),
        task=TaskSpec(("bad", "good"), 32),
        adapter=AdapterSpec(4, 8, ("q",), ("classifier",), tensors),
        weight_bits=16,
        privacy=PrivacySpec(Fraction(1, 10_000), 64, Fraction(1), Fraction(1, 2), 128, 1 << 29, 64),
        optimizer=OptimizerSpec(
            "sgd", Fraction(1, 8), Fraction(1, 16), Fraction(1, 2), Fraction(0), Fraction(0), Fraction(0)
        ),
        steps=3,
        mean_batch=8,
        aggregation=AggregationSpec("ffa"),
        proof_policy="mechanism",
        policy=Policy(40, 40, 0, 20, 20, 3, 2, False, 2),
    )


@pytest.fixture(scope="module")
def case() -> Case:
    config, rng = small_config(), np.random.default_rng(5)
    start = {t.name: rng.integers(-900, 900, t.shape, dtype=np.int64) for t in config.adapter.tensors}
    binding, beacon, rows = Binding(31337, bytes(20), 1, 0), bytes(32), 50
    words = SecretWords(b"\5" * 32, binding, config.steps, config.adapter.parameters, config.privacy.capacity)
    group_of = np.zeros(config.adapter.parameters, dtype=np.uint8)
    group_of[config.groups["head"]] = 1
    contributions, trajectory = drawn_case(config.shape, group_of, words, rows, beacon)
    weights = start | unflatten(config, replay(config, flatten(config, start), trajectory))
    spent = epsilon_micro([spend_of(config)], config.privacy.delta)
    texts = random_texts(rows, config.task.max_tokens)
    claim = Claim(31337, bytes(20), 1, 0, bytes(32), data_root(config, words, texts), words_root(config, words), spent)
    trained = Trained(trajectory, contributions)
    proof = proof_of(config, claim, beacon, words, texts, trained, trajectory, lambda _: None)
    return Case(
        Honest(SubmissionBundle(config, claim, weights, trajectory, proof), start, lambda: words, beacon),
        SubmissionFacts(claim, config, start, (), beacon),
    )
