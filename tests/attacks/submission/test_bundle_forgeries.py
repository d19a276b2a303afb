"""Forged bundles: each changes one thing about an honest submission and must meet that rule's own reason."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ledger.bundle import bundle_limits, read_submission
from ledger.content.errors import ContentMissing, LimitExceeded, StoreUnavailable
from ledger.content.reader import Limits
from ledger.records import Reason
from ledger.tensors import encode_safetensors, values_of
from ledger.verdict import judge, judge_stored

ADAPTER, CONFIG_FILE = "adapter_model.safetensors", "candor/config.json"
MANIFEST, TRAJECTORY = "candor/manifest.json", "candor/trajectory.safetensors"
BIAS, LORA_A = "base_model.model.classifier.bias", "base_model.model.layer.0.query.lora_A.weight"
Files = dict[str, bytes]
Honest = Any  # the fixture of conftest.py


def test_the_honest_submission_is_accepted_and_says_what_is_not_proven(honest: Honest) -> None:
    verdict = judge(honest.facts, honest.files)
    assert verdict.reason is Reason.ACCEPTED, verdict.detail
    assert verdict.accepted
    assert "NOT PROVEN" in verdict.detail


def test_judging_twice_gives_the_same_verdict(honest: Honest) -> None:
    assert judge(honest.facts, honest.files) == judge(honest.facts, dict(reversed(honest.files.items())))


def test_the_forgers_own_manifest_writer_agrees_with_ours(honest: Honest) -> None:
    assert honest.sealed(honest.files) == honest.files


def test_a_bundle_that_nobody_has_is_unavailable(honest: Honest) -> None:
    assert judge(honest.facts, None).reason is Reason.UNAVAILABLE


class Store:
    """A store that answers with what it was given."""

    def __init__(self, answer: Files | Exception) -> None:
        self.answer, self.asked = answer, []

    def get_directory(self, digest: bytes, limits: Limits) -> Files:
        self.asked.append((digest, limits))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_what_the_store_says_becomes_a_verdict_or_stays_an_error(honest: Honest) -> None:
    digest, store = bytes([7]) * 32, Store(honest.files)
    assert judge_stored(honest.facts, digest, store).accepted
    assert store.asked == [(digest, bundle_limits(honest.config))]
    missing = judge_stored(honest.facts, digest, Store(ContentMissing("it", [])))
    assert missing.reason is Reason.UNAVAILABLE
    flood = judge_stored(honest.facts, digest, Store(LimitExceeded("more than asked for")))
    assert flood.reason is Reason.BUNDLE_MALFORMED
    with pytest.raises(StoreUnavailable):
        judge_stored(honest.facts, digest, Store(StoreUnavailable("timeout")))


def test_what_may_be_fetched_follows_from_the_config_alone(honest: Honest) -> None:
    limits, sizes = bundle_limits(honest.config), {path: len(data) for path, data in honest.files.items()}
    assert (limits.max_files, limits.max_depth) == (5, 2)
    assert max(sizes.values()) <= limits.max_file_bytes < 4 << 20
    assert sum(sizes.values()) <= limits.max_total_bytes < 4 << 20


# --- paths, sizes, JSON ---------------------------------------------------------------------------------------------


def zip_bomb() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(1 << 20))
    return sink.getvalue()


EXTRAS: dict[str, tuple[str, bytes]] = {
    "a pickle beside the weights": ("adapter_model.bin", pickle.dumps({"weight": 1})),
    "python code": ("modeling.py", b"import os"),
    "a path that climbs": ("../adapter_model.safetensors", b"x"),
    "a path that climbs from inside": ("candor/../../x", b"x"),
    "an absolute path": ("/etc/passwd", b"x"),
    "a second manifest by another spelling": ("candor/Manifest.json", b"{}"),
    "a path with a backslash": ("candor\\manifest.json", b"{}"),
    "a path with a zero byte": ("candor/manifest.json\0", b"{}"),
    "a deeper folder": ("candor/more/file", b"x"),
    "a zip bomb": ("weights.zip", zip_bomb()),
    "another adapter in a folder": ("other/adapter_model.safetensors", b"x"),
    "a tokenizer": ("tokenizer.json", b"{}"),
}


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_a_file_too_many_is_malformed(honest: Honest, extra: str) -> None:
    path, data = EXTRAS[extra]
    verdict = judge(honest.facts, honest.sealed({**honest.files, path: data}))
    assert verdict.reason is Reason.BUNDLE_MALFORMED
    assert "unexpected file" in verdict.detail


@pytest.mark.parametrize("path", ["adapter_config.json", ADAPTER, CONFIG_FILE, MANIFEST, TRAJECTORY])
def test_a_file_too_few_is_malformed(honest: Honest, path: str) -> None:
    files = honest.files
    del files[path]
    verdict = judge(honest.facts, files if path == MANIFEST else honest.sealed(files))
    assert verdict.reason is Reason.BUNDLE_MALFORMED
    assert path in verdict.detail


@pytest.mark.parametrize("path", ["adapter_config.json", ADAPTER, CONFIG_FILE, MANIFEST, TRAJECTORY])
def test_a_file_beyond_its_size_is_refused_before_it_is_read(honest: Honest, path: str) -> None:
    files = honest.sealed({**honest.files, path: bytes(2 << 20)})
    if path == MANIFEST:
        files[MANIFEST] = bytes(2 << 20)
    verdict = judge(honest.facts, files)
    assert verdict.reason is Reason.BUNDLE_MALFORMED
    assert f"{path}: {2 << 20} bytes" in verdict.detail


@pytest.mark.parametrize("manifest", [b"", b"{", b"\xff", b"[" * 10_000, b'{"kind": 1}', b'{"a":1,"a":1}', b"1.5"])
def test_a_manifest_that_is_not_canonical_json_is_malformed(honest: Honest, manifest: bytes) -> None:
    verdict = judge(honest.facts, {**honest.files, MANIFEST: manifest})
    assert verdict.reason is Reason.BUNDLE_MALFORMED


# --- what the manifest says -----------------------------------------------------------------------------------------

LIES: dict[str, Any] = {
    "kind": "candor/aggregate/1",
    "chain_id": 1,
    "contract": "00" * 20,
    "round": 2,
    "member": 0,
    "config_digest": "00" * 32,
    "global_bundle": "00" * 32,
    "dataset_root": "00" * 32,
    "words_root": "00" * 32,
    "spent_micro": "0",
    "files": {},
    "another": 1,
}


@pytest.mark.parametrize("field", sorted(LIES))
def test_a_manifest_of_something_else_is_a_mismatch_and_says_where(honest: Honest, field: str) -> None:
    verdict = judge(honest.facts, honest.sealed(honest.files, **{field: LIES[field]}))
    assert verdict.reason is Reason.MANIFEST_MISMATCH
    assert field in verdict.detail


def test_no_detail_carries_what_would_move_a_readers_cursor(honest: Honest) -> None:
    evil = "\x1b[2J\r\n"
    header = {"__metadata__": {"format": "pt"}, evil: evil}
    text = json.dumps(header).encode()
    tensors = len(text).to_bytes(8, "little") + text
    renamed = json.loads(honest.files[ADAPTER][8 : 8 + int.from_bytes(honest.files[ADAPTER][:8], "little")])
    renamed[BIAS] = evil
    other = json.dumps(renamed).encode()
    for files in (
        honest.sealed(honest.files, **{evil: 1}),
        honest.sealed(honest.files, kind=evil),
        {**honest.files, evil: b""},
        honest.sealed({**honest.files, ADAPTER: tensors}),
        honest.sealed({**honest.files, ADAPTER: len(other).to_bytes(8, "little") + other}),
    ):
        verdict = judge(honest.facts, files)
        assert not verdict.accepted
        assert verdict.detail.isprintable()


@pytest.mark.parametrize("field", sorted(set(LIES) - {"another"}))
def test_a_manifest_without_a_field_is_a_mismatch(honest: Honest, field: str) -> None:
    manifest = json.loads(honest.files[MANIFEST])
    del manifest[field]
    files = {**honest.files, MANIFEST: json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()}
    verdict = judge(honest.facts, files)
    assert verdict.reason is Reason.MANIFEST_MISMATCH
    assert field in verdict.detail


@pytest.mark.parametrize("manifest", [b"[]", b"null", b'"text"', b"7", b"{}"])
def test_a_manifest_that_is_no_object_is_a_mismatch(honest: Honest, manifest: bytes) -> None:
    assert judge(honest.facts, {**honest.files, MANIFEST: manifest}).reason is Reason.MANIFEST_MISMATCH


@pytest.mark.parametrize(
    "change",
    [
        {"chain_id": 1},
        {"contract": bytes(20)},
        {"round": 4},
        {"member": 2},
        {"global_bundle": bytes(32)},
        {"dataset_root": bytes(32)},
        {"words_root": bytes(32)},
        {"spent_micro": 2**64 - 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_bundle_of_another_round_chain_contract_member_or_commitment_is_a_mismatch(
    honest: Honest, change: dict[str, Any]
) -> None:
    """The whole honest bundle, sent where the chain says something else."""
    verdict = judge(honest.with_claim(**change).facts, honest.files)
    assert verdict.reason is Reason.MANIFEST_MISMATCH
    assert next(iter(change)) in verdict.detail


def test_a_file_that_is_not_the_one_in_the_manifest_is_a_mismatch(honest: Honest) -> None:
    files = honest.files
    changed = bytearray(files[ADAPTER])
    changed[-1] ^= 1
    assert judge(honest.facts, {**files, ADAPTER: bytes(changed)}).reason is Reason.MANIFEST_MISMATCH


# --- the configs ----------------------------------------------------------------------------------------------------


def test_the_config_of_another_round_is_a_mismatch(honest: Honest) -> None:
    other = replace(honest.config, steps=5)
    files = honest.sealed({**honest.files, CONFIG_FILE: other.encode()})
    assert judge(honest.facts, files).reason is Reason.CONFIG_MISMATCH


HARMFUL: dict[str, Callable[[dict[str, Any]], None]] = {
    "mutates the base (pissa)": lambda c: c.update(init_lora_weights="pissa"),
    "mutates the base (olora)": lambda c: c.update(init_lora_weights="olora"),
    "scales by the root of the rank": lambda c: c.update(use_rslora=True),
    "is DoRA": lambda c: c.update(use_dora=True),
    "has a larger rank": lambda c: c.update(r=64),
    "has another alpha": lambda c: c.update(lora_alpha=800),
    "targets other modules": lambda c: c.update(target_modules=["query", "value"]),
    "replaces other modules": lambda c: c.update(modules_to_save=["classifier", "embeddings"]),
    "trains biases": lambda c: c.update(bias="all"),
    "names another base": lambda c: c.update(base_model_name_or_path="https://example.org/evil"),
    "brings code": lambda c: c.update(auto_mapping={"base_model_class": "Evil", "parent_library": "evil"}),
    "has another type": lambda c: c.update(peft_type="IA3"),
    "lacks a field": lambda c: c.pop("inference_mode"),
    "has a field more": lambda c: c.update(layer_replication=[[0, 4], [2, 5]]),
}


@pytest.mark.parametrize("harm", sorted(HARMFUL))
def test_an_adapter_config_that_the_round_does_not_imply_is_refused(honest: Honest, harm: str) -> None:
    adapter_config = json.loads(honest.files["adapter_config.json"])
    HARMFUL[harm](adapter_config)
    data = json.dumps(adapter_config, sort_keys=True, separators=(",", ":")).encode()
    verdict = judge(honest.facts, honest.sealed({**honest.files, "adapter_config.json": data}))
    assert verdict.reason is Reason.ADAPTER_CONFIG


def test_the_same_adapter_config_in_other_words_is_refused_too(honest: Honest) -> None:
    data = json.dumps(json.loads(honest.files["adapter_config.json"]), indent=2).encode()
    files = honest.sealed({**honest.files, "adapter_config.json": data})
    assert judge(honest.facts, files).reason is Reason.ADAPTER_CONFIG


# --- tensors --------------------------------------------------------------------------------------------------------


def with_tensors(honest: Honest, edit: Callable[[dict[str, Any]], Any]) -> Files:
    """The adapter file with its float32 tensors edited, under a fitting manifest."""
    bits = honest.config.weight_bits
    tensors: dict[str, Any] = {name: values_of(units, bits) for name, units in honest.weights.items()}
    edit(tensors)
    return honest.sealed({**honest.files, ADAPTER: encode_safetensors(tensors)})


def put(name: str, index: int, value: float) -> Callable[[dict[str, Any]], None]:
    def edit(tensors: dict[str, Any]) -> None:
        flat = tensors[name].copy().reshape(-1)
        flat[index] = value
        tensors[name] = flat.reshape(tensors[name].shape)

    return edit


LAYOUTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a tensor missing": lambda t: t.pop(BIAS),
    "a tensor that would overwrite the base": lambda t: t.update(
        {"base_model.model.embeddings.weight": np.zeros((2, 2), dtype=np.float32)}
    ),
    "a tensor under another name": lambda t: t.update({BIAS + "2": t.pop(BIAS)}),
    "a transposed tensor": lambda t: t.update({LORA_A: np.ascontiguousarray(t[LORA_A].T)}),
    "a tensor of another rank": lambda t: t.update({LORA_A: t[LORA_A].reshape(-1)}),
    "a longer tensor": lambda t: t.update({BIAS: np.zeros(3, dtype=np.float32)}),
    "an empty tensor": lambda t: t.update({BIAS: np.zeros(0, dtype=np.float32)}),
    "integers for weights": lambda t: t.update({BIAS: np.zeros(2, dtype=np.int32)}),
}


@pytest.mark.parametrize("flaw", sorted(LAYOUTS))
def test_tensors_of_another_layout_are_refused(honest: Honest, flaw: str) -> None:
    assert judge(honest.facts, with_tensors(honest, LAYOUTS[flaw])).reason is Reason.TENSOR_LAYOUT


NOT_SAFETENSORS: dict[str, Callable[[bytes], bytes]] = {
    "a pickle": lambda data: pickle.dumps({"weights": [1.0] * 100}),
    "a zip": lambda data: zip_bomb(),
    "nothing": lambda data: b"",
    "float16": lambda data: data.replace(b'"F32"', b'"F16"', 1),
    "float64": lambda data: data.replace(b'"F32"', b'"F64"', 1),
    "truncated": lambda data: data[:-4],
    "padded": lambda data: data + bytes(4),
    "a header of four gigabytes": lambda data: (1 << 32).to_bytes(8, "little") + data[8:],
}


@pytest.mark.parametrize("path", [ADAPTER, TRAJECTORY])
@pytest.mark.parametrize("flaw", sorted(NOT_SAFETENSORS))
def test_files_that_are_not_the_canonical_safetensors_are_refused(honest: Honest, flaw: str, path: str) -> None:
    data = honest.files[path].replace(b'"I32"', b'"F32"') if "float" in flaw else honest.files[path]
    files = honest.sealed({**honest.files, path: NOT_SAFETENSORS[flaw](data)})
    assert judge(honest.facts, files).reason is Reason.TENSOR_LAYOUT


def trajectory_file(array: np.ndarray, name: str = "trajectory") -> bytes:
    return encode_safetensors({name: array})


def test_a_trajectory_of_another_shape_or_name_is_refused(honest: Honest) -> None:
    sums = honest.trajectory
    for data in (
        trajectory_file(sums[:-1]),
        trajectory_file(np.concatenate([sums, sums[:1]])),
        trajectory_file(np.ascontiguousarray(sums.T)),
        trajectory_file(sums.astype(np.float32)),
        trajectory_file(sums, "losses"),
    ):
        files = honest.sealed({**honest.files, TRAJECTORY: data})
        assert judge(honest.facts, files).reason is Reason.TENSOR_LAYOUT


OFF: dict[str, float] = {
    "NaN": np.nan,
    "infinity": np.inf,
    "minus infinity": -np.inf,
    "half a unit": 2.0**-19,
    "minus zero": -0.0,
    "the smallest float": 1e-45,
    "beyond the grid": 64.0 + 2.0**-17,
    "the largest float": 3e38,
}


@pytest.mark.parametrize("name", [BIAS, LORA_A])
@pytest.mark.parametrize("flaw", sorted(OFF))
def test_a_weight_off_the_grid_is_refused(honest: Honest, flaw: str, name: str) -> None:
    verdict = judge(honest.facts, with_tensors(honest, put(name, 1, OFF[flaw])))
    assert verdict.reason is Reason.OFF_GRID
    assert name in verdict.detail


def test_a_frozen_tensor_changed_by_one_unit_is_seen(honest: Honest) -> None:
    one_more = (int(honest.weights[LORA_A].reshape(-1)[5]) + 1) * 2.0**-18
    verdict = judge(honest.facts, with_tensors(honest, put(LORA_A, 5, one_more)))
    assert verdict.reason is Reason.FROZEN_CHANGED
    assert "1 of 256" in verdict.detail


def test_reading_raises_what_the_verdict_says(honest: Honest) -> None:
    files = with_tensors(honest, put(BIAS, 0, np.nan))
    with pytest.raises(Exception, match="OFF_GRID") as caught:
        read_submission(files, honest.config, honest.facts.claim)
    assert caught.type.__name__ == "Rejected"
