"""Bundles say the same thing to everyone: canonical files, loadable by PEFT, and global bundles read strictly too."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from ledger import canonical
from ledger.bundle import (
    ADAPTER,
    ADAPTER_CONFIG,
    CONFIG,
    MANIFEST,
    TRAJECTORY,
    AggregateBundle,
    Claim,
    GenesisBundle,
    Rejected,
    SubmissionBundle,
    adapter_config_json,
    bundle_limits,
    read_submission,
    read_weights,
)
from ledger.config import Config
from ledger.records import Reason
from ledger.tensors import Weights, encode_safetensors, values_of
from proofs.errors import LocalFault

CLAIM = Claim(31337, bytes(20), 3, 1, bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32, 2**64 - 1)


@pytest.fixture
def weights(config: Config) -> Weights:
    rng = np.random.default_rng(1)
    return {t.name: rng.integers(-(1 << 20), 1 << 20, t.shape) for t in config.adapter.tensors}


@pytest.fixture
def submission(config: Config, weights: Weights) -> SubmissionBundle:
    trajectory = np.arange(config.steps * config.adapter.parameters, dtype=np.int32)
    return SubmissionBundle(config, CLAIM, weights, trajectory.reshape(config.steps, -1))


@pytest.fixture
def genesis(config: Config, weights: Weights) -> dict[str, bytes]:
    return GenesisBundle(config, weights).files()


@pytest.fixture
def aggregate(config: Config, weights: Weights) -> dict[str, bytes]:
    included = ((0, bytes([4]) * 32, 1), (2, bytes([5]) * 32, 3))
    return AggregateBundle(config, 31337, bytes(20), 2, bytes([1]) * 32, included, weights).files()


def same(one: Weights, two: Weights) -> bool:
    return one.keys() == two.keys() and all((one[name] == two[name]).all() for name in one)


def test_a_submission_comes_back_as_it_was(submission: SubmissionBundle) -> None:
    found = read_submission(submission.files(), submission.config, CLAIM)
    assert same(found.weights, submission.weights)
    np.testing.assert_array_equal(found.trajectory, submission.trajectory)


def test_a_submission_is_exactly_these_files_and_always_the_same_bytes(submission: SubmissionBundle) -> None:
    assert sorted(submission.files()) == [ADAPTER_CONFIG, ADAPTER, CONFIG, MANIFEST, TRAJECTORY]
    assert submission.files() == submission.files()
    assert submission.files()[CONFIG] == submission.config.encode()


def test_the_manifest_says_whose_it_is_and_names_every_other_file(submission: SubmissionBundle) -> None:
    files = submission.files()
    manifest = json.loads(files[MANIFEST])
    table = manifest.pop("files")
    assert table == {
        path: {"sha256": sha256(data).hexdigest(), "size": len(data)}
        for path, data in files.items()
        if path != MANIFEST
    }
    assert manifest == {
        "kind": "candor/submission/1",
        "chain_id": 31337,
        "contract": "00" * 20,
        "round": 3,
        "member": 1,
        "config_digest": submission.config.digest.hex(),
        "global_bundle": "01" * 32,
        "dataset_root": "02" * 32,
        "words_root": "03" * 32,
        "spent_micro": "18446744073709551615",
    }


def test_every_file_is_within_what_may_be_fetched(submission: SubmissionBundle) -> None:
    limits, files = bundle_limits(submission.config), submission.files()
    assert len(files) <= limits.max_files
    assert max(map(len, files.values())) <= limits.max_file_bytes
    assert sum(map(len, files.values())) <= limits.max_total_bytes


def test_numbers_that_do_not_fit_the_config_are_not_published(submission: SubmissionBundle) -> None:
    short = dict(submission.weights)
    short.popitem()
    large = {name: units + (1 << 24) for name, units in submission.weights.items()}
    for wrong in (short, large):
        with pytest.raises(LocalFault):
            replace(submission, weights=wrong).files()
    with pytest.raises(LocalFault):
        replace(submission, trajectory=submission.trajectory[:-1]).files()


def test_peft_reads_the_adapter_config_as_it_was_meant(config: Config, tmp_path: Path) -> None:
    from peft import LoraConfig, PeftConfig

    (tmp_path / ADAPTER_CONFIG).write_bytes(adapter_config_json(config))
    found = PeftConfig.from_pretrained(str(tmp_path))
    assert isinstance(found, LoraConfig)
    assert (found.r, found.lora_alpha, found.lora_dropout, found.bias) == (2, 4, 0, "none")
    assert (set(found.target_modules), found.modules_to_save) == ({"query"}, ["classifier"])
    assert (found.use_dora, found.use_rslora, found.init_lora_weights) == (False, False, True)
    assert (found.base_model_name_or_path, found.task_type, found.inference_mode) == ("a-tiny-base", "SEQ_CLS", True)


def test_the_adapter_config_is_canonical_and_sorted(config: Config) -> None:
    shuffled = replace(config, adapter=replace(config.adapter, targets=("value", "key", "query")))
    data = adapter_config_json(shuffled)
    assert canonical.encode(canonical.decode(data, max_bytes=10_000)) == data
    assert json.loads(data)["target_modules"] == ["key", "query", "value"]


def test_the_weights_are_plain_safetensors_for_everyone(config: Config, submission: SubmissionBundle) -> None:
    found = safetensors.numpy.load(submission.files()[ADAPTER])
    for name, units in submission.weights.items():
        np.testing.assert_array_equal(found[name], values_of(units, config.weight_bits))


@pytest.mark.parametrize("kind", ["genesis", "aggregate"])
def test_a_global_bundle_gives_its_weights(
    request: pytest.FixtureRequest, config: Config, weights: Weights, kind: str
) -> None:
    assert same(read_weights(request.getfixturevalue(kind), config), weights)


def test_an_aggregate_may_come_from_a_round_with_other_privacy(
    config: Config, weights: Weights, aggregate: dict[str, bytes]
) -> None:
    next_round = replace(config, privacy=replace(config.privacy, noise_units=1600), steps=9)
    assert same(read_weights(aggregate, next_round), weights)


def test_a_bundle_of_another_adapter_is_no_start(config: Config, aggregate: dict[str, bytes]) -> None:
    other = replace(config, adapter=replace(config.adapter, alpha=8))
    refused(aggregate, other, Reason.ADAPTER_CONFIG)


def test_a_genesis_of_another_base_is_no_start(config: Config, genesis: dict[str, bytes]) -> None:
    refused(genesis, replace(config, base_digest=bytes(32)), Reason.MANIFEST_MISMATCH)


def refused(files: dict[str, bytes], config: Config, reason: Reason) -> None:
    with pytest.raises(Rejected) as caught:
        read_weights(files, config)
    assert caught.value.reason is reason, caught.value


def sealed(files: dict[str, bytes], /, **changes: Any) -> dict[str, bytes]:
    """The same bundle under a manifest that fits its files, with some fields changed."""
    manifest = json.loads(files[MANIFEST])
    table = {path: {"sha256": sha256(d).hexdigest(), "size": len(d)} for path, d in files.items() if path != MANIFEST}
    return {**files, MANIFEST: canonical.encode(manifest | {"files": table} | changes)}


FORGERIES: dict[str, tuple[Callable[[dict[str, bytes]], dict[str, bytes]], Reason]] = {
    "a file more": (lambda f: sealed({**f, "x.bin": b""}), Reason.BUNDLE_MALFORMED),
    "a trajectory too": (lambda f: sealed({**f, TRAJECTORY: b""}), Reason.BUNDLE_MALFORMED),
    "a file less": (lambda f: {p: d for p, d in f.items() if p != ADAPTER}, Reason.BUNDLE_MALFORMED),
    "no manifest": (lambda f: {p: d for p, d in f.items() if p != MANIFEST}, Reason.BUNDLE_MALFORMED),
    "no config": (lambda f: sealed({p: d for p, d in f.items() if p != CONFIG}), Reason.MANIFEST_MISMATCH),
    "a manifest of nonsense": (lambda f: {**f, MANIFEST: b"nonsense"}, Reason.BUNDLE_MALFORMED),
    "a manifest that is a list": (lambda f: {**f, MANIFEST: b"[]"}, Reason.MANIFEST_MISMATCH),
    "another kind": (lambda f: sealed(f, kind="candor/submission/1"), Reason.MANIFEST_MISMATCH),
    "a field more": (lambda f: sealed(f, note="hello"), Reason.MANIFEST_MISMATCH),
    "another config digest": (lambda f: sealed(f, config_digest="00" * 32), Reason.MANIFEST_MISMATCH),
    "a contract that is none": (lambda f: sealed(f, contract="0x00"), Reason.MANIFEST_MISMATCH),
    "a round that is no number": (lambda f: sealed(f, round="2"), Reason.MANIFEST_MISMATCH),
    "members that are no list": (lambda f: sealed(f, included=[[0, 1, 2]]), Reason.MANIFEST_MISMATCH),
    "another file table": (lambda f: sealed(f, files={}), Reason.MANIFEST_MISMATCH),
    "a weight changed": (lambda f: {**f, ADAPTER: f[ADAPTER][:-1] + b"\x7f"}, Reason.MANIFEST_MISMATCH),
    "a pickle": (lambda f: sealed({**f, ADAPTER: b"\x80\x04}."}), Reason.TENSOR_LAYOUT),
    "an adapter config of harm": (lambda f: sealed({**f, ADAPTER_CONFIG: b"{}"}), Reason.ADAPTER_CONFIG),
    "a flood": (lambda f: sealed({**f, ADAPTER: bytes(1 << 20)}), Reason.BUNDLE_MALFORMED),
}


@pytest.mark.parametrize("flaw", sorted(FORGERIES))
def test_a_forged_aggregate_is_refused_by_its_own_reason(
    config: Config, aggregate: dict[str, bytes], flaw: str
) -> None:
    forge, reason = FORGERIES[flaw]
    refused(forge(aggregate), config, reason)


GENESIS_FLAWS = ["a file more", "a file less", "another kind", "a field more", "another file table", "a weight changed"]


@pytest.mark.parametrize("flaw", GENESIS_FLAWS)
def test_a_forged_genesis_is_refused_by_its_own_reason(config: Config, genesis: dict[str, bytes], flaw: str) -> None:
    forge, reason = FORGERIES[flaw]
    refused(forge(genesis), config, reason)


def test_a_global_weight_that_is_not_a_number_is_refused(config: Config, weights: Weights) -> None:
    files = GenesisBundle(config, weights).files()
    tensors = {name: values_of(units, config.weight_bits) for name, units in weights.items()}
    tensors["base_model.model.classifier.bias"] = np.array([0, np.nan], dtype=np.float32)
    refused(sealed({**files, ADAPTER: encode_safetensors(tensors)}), config, Reason.OFF_GRID)


def test_the_reason_and_the_cause_are_both_told() -> None:
    error = Rejected(Reason.OFF_GRID, "a weight is NaN")
    assert (error.reason, error.detail) == (Reason.OFF_GRID, "a weight is NaN")
    assert str(error) == "OFF_GRID: a weight is NaN"
