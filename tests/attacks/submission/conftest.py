"""One honest submission, and what a forger needs to change one thing about it and sign for the rest.

The manifest writer here is written from the format's description, not taken from ledger.bundle: a forger would seal its
own bundle correctly, so that only the one lie is left to find.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from hashlib import sha256
from typing import Any

import numpy as np
import pytest

from benchmarks.submissions import adamw_config, proven_submission
from ledger.bundle import Claim, SubmissionBundle
from ledger.config import AdapterSpec, AggregationSpec, Config, TensorSpec
from ledger.optimizer import replay
from ledger.privacy import Spend, epsilon_micro, spend_of
from ledger.tensors import Weights, flatten, unflatten
from ledger.verdict import SubmissionFacts
from proofs.gaussian import noise_table
from proofs.mechanism import release, selected_rows, to_grid
from proofs.words import Binding, SecretWords, combine, public_draws, public_noise

PREFIX = "base_model.model."
BEACON = bytes([0xBE]) * 32
BINDING = Binding(chain_id=31337, contract=bytes([0xC0]) * 20, round=3, member=1)


def build_config() -> Config:
    tensors = (
        TensorSpec(PREFIX + "classifier.bias", (2,), "head"),
        TensorSpec(PREFIX + "classifier.weight", (2, 64), "head"),
        TensorSpec(PREFIX + "layer.0.query.lora_A.weight", (4, 64), "frozen"),
        TensorSpec(PREFIX + "layer.0.query.lora_B.weight", (64, 4), "adapter"),
        TensorSpec(PREFIX + "layer.1.query.lora_A.weight", (4, 64), "frozen"),
        TensorSpec(PREFIX + "layer.1.query.lora_B.weight", (64, 4), "adapter"),
    )
    targets, head = ("query",), ("classifier",)
    return adamw_config(AdapterSpec(rank=4, alpha=8, targets=targets, head=head, tensors=tensors))


def gradients(config: Config, seed: int) -> np.ndarray:
    """(capacity, P) made-up per-example gradients, most of them longer than the clip."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((config.privacy.capacity, config.adapter.parameters))


def train(config: Config, sigma: int | None = None) -> np.ndarray:
    """The trajectory (T, P) of an honest member, or with another σ (0 for none) of a dishonest one."""
    sigma = config.privacy.noise_units if sigma is None else sigma
    rows, size = 50, config.adapter.parameters
    words = SecretWords(bytes(32), BINDING, config.steps, size, config.privacy.capacity)
    split = sum(tensor.size for tensor in config.adapter.trained if tensor.role == "head")
    released = []
    for step in range(config.steps):
        public = public_draws(BEACON, BINDING, step, config.privacy.capacity)
        drawn = selected_rows(combine(words.draws(step), public), config.privacy.sample_threshold, rows)
        raw, clip = gradients(config, step)[drawn], config.privacy.clip_units
        head = to_grid(raw[:, :split], float(config.privacy.clip_head / clip), clip)
        adapter = to_grid(raw[:, split:], float(config.privacy.clip_adapter / clip), clip)
        uniform = combine(words.noise(step), public_noise(BEACON, BINDING, step, size))
        noise = noise_table(sigma).lookup(uniform) if sigma else np.zeros(size, dtype=np.int32)
        released.append(release(np.concatenate([head, adapter], axis=1), noise))
    return np.stack(released)


def weights_after(config: Config, start: Weights, trajectory: np.ndarray) -> Weights:
    return {**start, **unflatten(config, replay(config, flatten(config, start), trajectory))}


def manifest_of(config: Config, claim: Claim, files: Mapping[str, bytes], /, **changes: Any) -> bytes:
    manifest = {
        "kind": "candor/submission/1",
        "chain_id": claim.chain_id,
        "contract": claim.contract.hex(),
        "round": claim.round,
        "member": claim.member,
        "config_digest": config.digest.hex(),
        "global_bundle": claim.global_bundle.hex(),
        "dataset_root": claim.dataset_root.hex(),
        "words_root": claim.words_root.hex(),
        "spent_micro": str(claim.spent_micro),
        "files": {
            path: {"sha256": sha256(data).hexdigest(), "size": len(data)}
            for path, data in files.items()
            if path != "candor/manifest.json"
        },
    }
    return json.dumps(manifest | changes, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@dataclass(frozen=True, eq=False)
class Honest:
    """An honest submission: what the chain says of it, its numbers, and its files."""

    facts: SubmissionFacts
    weights: Weights
    trajectory: np.ndarray

    @property
    def config(self) -> Config:
        return self.facts.config

    @property
    def files(self) -> dict[str, bytes]:
        return SubmissionBundle(self.config, self.facts.claim, self.weights, self.trajectory).files()

    def sealed(self, files: Mapping[str, bytes], /, **changes: Any) -> dict[str, bytes]:
        """`files` under a manifest that fits them, as a forger would write it; `changes` to the manifest's fields."""
        return {**files, "candor/manifest.json": manifest_of(self.config, self.facts.claim, files, **changes)}

    def retrained(self, trajectory: np.ndarray) -> Honest:
        """Another trajectory, and the adapter that it really leads to."""
        weights = weights_after(self.config, self.facts.global_weights, trajectory)
        return replace(self, trajectory=trajectory, weights=weights)

    def with_claim(self, **changes: Any) -> Honest:
        return replace(self, facts=replace(self.facts, claim=replace(self.facts.claim, **changes)))


def build_honest(config: Config, history: tuple[Spend, ...] = (), sigma: int | None = None) -> Honest:
    rng = np.random.default_rng(8)
    start = {tensor.name: rng.integers(-(1 << 18), 1 << 18, tensor.shape) for tensor in config.adapter.tensors}
    spent = epsilon_micro([*history, spend_of(config)], config.privacy.delta)
    claim = Claim(
        chain_id=BINDING.chain_id,
        contract=BINDING.contract,
        round=BINDING.round,
        member=BINDING.member,
        global_bundle=bytes([1]) * 32,
        dataset_root=bytes([2]) * 32,
        words_root=bytes([3]) * 32,
        spent_micro=spent,
    )
    trajectory = train(config, sigma)
    return Honest(SubmissionFacts(claim, config, start, history), weights_after(config, start, trajectory), trajectory)


@pytest.fixture(scope="session")
def honest() -> Honest:
    config = build_config()
    return build_honest(config, history=(spend_of(config),) * 2)


@pytest.fixture(scope="session")
def honest_with() -> Callable[..., Honest]:
    """An honest submission under a config with other privacy; `sigma` for a member that uses another than it says."""

    def make(sigma: int | None = None, **privacy: Any) -> Honest:
        config = build_config()
        return build_honest(replace(config, privacy=replace(config.privacy, **privacy)), sigma=sigma)

    return make


@pytest.fixture(scope="session")
def honest_fedavg() -> Honest:
    """An honest submission where A is trained too, by SGD with momentum."""
    config = build_config()
    trained = tuple(replace(t, role="adapter") if t.role == "frozen" else t for t in config.adapter.tensors)
    sgd = replace(config.optimizer, name="sgd", beta2=Fraction(0), epsilon=Fraction(0))
    adapter, rule = replace(config.adapter, tensors=trained), AggregationSpec("fedavg")
    return build_honest(replace(config, adapter=adapter, optimizer=sgd, aggregation=rule))


@pytest.fixture(scope="session")
def trained_with(honest: Honest) -> Callable[[int], Honest]:
    """The honest member's submission with noise of another σ than the config's, all the rest done by the rules."""

    def make(sigma: int) -> Honest:
        return honest.retrained(train(honest.config, sigma))

    return make


@pytest.fixture(scope="session")
def proven_under(honest: Honest) -> Callable[..., tuple[SubmissionFacts, SubmissionBundle]]:
    """The honest member's submission with a proof of the mechanism, under `config`; `facts` that the chain has more."""

    def make(config: Config, beacon: bytes, **facts: Any) -> tuple[SubmissionFacts, SubmissionBundle]:
        known = honest.facts
        bundle, _ = proven_submission(config, known.claim, known.global_weights, b"\7" * 32, beacon, 40)
        return replace(known, config=config, claim=bundle.claim, beacon=beacon, **facts), bundle

    return make
