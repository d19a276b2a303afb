"""An honest submission to forge, small enough to be made without a model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from benchmarks.submissions import proven_submission, small_adapter, small_config
from devnet.forgeries import Honest
from ledger.bundle import Claim
from ledger.privacy import epsilon_micro, spend_of
from ledger.verdict import SubmissionFacts


@dataclass(frozen=True)
class Case:
    honest: Honest
    facts: SubmissionFacts


SHAPES = {"classifier.weight": (2, 40), "layer.lora_A.weight": (4, 8), "layer.lora_B.weight": (60, 4)}


@pytest.fixture(scope="module")
def case() -> Case:
    config = small_config(adapter=small_adapter(shapes=SHAPES), proof_policy="mechanism")
    rng, beacon = np.random.default_rng(5), bytes(32)
    start = {t.name: rng.integers(-900, 900, t.shape, dtype=np.int64) for t in config.adapter.tensors}
    spent = epsilon_micro([spend_of(config)], config.privacy.delta)
    claim = Claim(31337, bytes(20), 1, 0, bytes(32), bytes(32), bytes(32), spent)
    bundle, words = proven_submission(config, claim, start, b"\5" * 32, beacon, rows=50)
    return Case(Honest(bundle, start, lambda: words, beacon), SubmissionFacts(bundle.claim, config, start, (), beacon))
