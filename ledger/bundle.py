"""Bundles: the directories that members and aggregators publish, written in one form and read as if by an enemy.

    genesis      adapter_config.json  adapter_model.safetensors  candor/manifest.json
    aggregate    these and  candor/config.json
    submission   these and  candor/trajectory.safetensors, and  candor/proof.bin where the config asks for proofs

Nothing in a bundle is configuration to its reader: every file but the two of numbers is compared, byte for byte, with
the one that the round's config and the chain imply, and the numbers are read at the places that the config gives them.
Sizes are checked before anything is decoded. PEFT loads the directory as it is.

    PeerFault
    └── Rejected   with the Reason that a verdict carries, and the cause in words
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ledger import canonical
from ledger.canonical import Fields, NotCanonical
from ledger.config import MAX_CONFIG_BYTES, Config
from ledger.content.reader import Limits
from ledger.records import Reason
from ledger.tensors import (
    Layout,
    OffGrid,
    TensorsMalformed,
    Weights,
    decode_safetensors,
    encode_safetensors,
    encoded_size,
    units_of,
    values_of,
    weight_layout,
)
from proofs.errors import LocalFault, PeerFault
from proofs.parameters import largest_proof

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER = "adapter_model.safetensors"
CONFIG = "candor/config.json"
MANIFEST = "candor/manifest.json"
TRAJECTORY = "candor/trajectory.safetensors"
PROOF = "candor/proof.bin"
SUBMISSION_FILES = (ADAPTER_CONFIG, ADAPTER, CONFIG, MANIFEST, TRAJECTORY)
AGGREGATE_FILES = (ADAPTER_CONFIG, ADAPTER, CONFIG, MANIFEST)
GENESIS_FILES = (ADAPTER_CONFIG, ADAPTER, MANIFEST)

MAX_MANIFEST_BYTES = 1 << 16
SLACK_BYTES = 1 << 16

Files = Mapping[str, bytes]
Trajectory = NDArray[np.int32]


class Rejected(PeerFault):
    """A bundle breaks a rule. `reason` is what a verdict says, `detail` the cause for people."""

    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason.name}: {detail}")


@dataclass(frozen=True)
class Claim:
    """What a submission says of itself, all of which the chain says too. ε in millionths; digests are raw bytes."""

    chain_id: int
    contract: bytes
    round: int
    member: int
    global_bundle: bytes
    dataset_root: bytes
    words_root: bytes
    spent_micro: int


@dataclass(frozen=True, eq=False)
class SubmissionBundle:
    """weights: every tensor of the config in grid units; trajectory (T, P): the released sums.

    proof: of the mechanism, not verified here; empty where the config asks for none.
    """

    config: Config
    claim: Claim
    weights: Weights
    trajectory: Trajectory
    proof: bytes = b""

    def files(self) -> dict[str, bytes]:
        """The directory. Raises LocalFault for numbers that do not fit the config."""
        if bool(self.proof) != self.config.proven:
            raise LocalFault("a bundle carries a proof exactly when its config asks for one")
        files = _weight_files(self.config, self.weights) | {
            CONFIG: self.config.encode(),
            TRAJECTORY: _encode({"trajectory": self.trajectory}, _trajectory_layout(self.config)),
        }
        files |= {PROOF: self.proof} if self.config.proven else {}
        return files | {MANIFEST: _submission_manifest(self.config, self.claim, files)}


@dataclass(frozen=True, eq=False)
class AggregateBundle:
    """The average of a round. included: (member, bundle digest, weight) in member order."""

    config: Config
    chain_id: int
    contract: bytes
    round: int
    global_bundle: bytes
    included: tuple[tuple[int, bytes, int], ...]
    weights: Weights

    def files(self) -> dict[str, bytes]:
        files = _weight_files(self.config, self.weights) | {CONFIG: self.config.encode()}
        manifest = {
            "kind": "candor/aggregate/1",
            "chain_id": self.chain_id,
            "contract": self.contract.hex(),
            "round": self.round,
            "config_digest": self.config.digest.hex(),
            "global_bundle": self.global_bundle.hex(),
            "included": [[member, bundle.hex(), weight] for member, bundle, weight in self.included],
            "files": _file_table(files),
        }
        return files | {MANIFEST: canonical.encode(manifest)}


@dataclass(frozen=True, eq=False)
class GenesisBundle:
    """Where the first round starts: a fresh adapter and head on the config's base. It names no round and no config."""

    config: Config
    weights: Weights

    def files(self) -> dict[str, bytes]:
        files = _weight_files(self.config, self.weights)
        manifest = {
            "kind": "candor/genesis/1",
            "base_digest": self.config.base_digest.hex(),
            "files": _file_table(files),
        }
        return files | {MANIFEST: canonical.encode(manifest)}


def adapter_config_json(config: Config) -> bytes:
    """The one adapter_config.json that the config implies, canonical; PEFT fills in its own defaults for the rest.

    A 4-bit base is no matter of PEFT's config: it takes the base that it is given.
    """
    adapter = config.adapter
    classifies = config.task.kind == "classification"
    if adapter.parents:
        return _mixture_json(config)
    return canonical.encode(
        {
            "base_model_name_or_path": config.base_name,
            "bias": "none",
            "inference_mode": True,
            "init_lora_weights": True,
            "lora_alpha": adapter.alpha,
            "lora_dropout": 0,
            "modules_to_save": sorted(adapter.head),
            "peft_type": "LORA",
            "r": adapter.rank,
            "target_modules": sorted(adapter.targets),
            "task_type": "SEQ_CLS" if classifies else "CAUSAL_LM",
            "use_dora": adapter.method == "dora",
            "use_rslora": adapter.method == "rslora",
        }
        | ({"target_parameters": sorted(adapter.experts)} if adapter.experts else {})
    )


def _mixture_json(config: Config) -> bytes:
    """PEFT knows no such type, and says so: nobody takes gates for an adapter. node.mixture loads them."""
    adapter = config.adapter
    return canonical.encode(
        {
            "base_model_name_or_path": config.base_name,
            "peft_type": f"CANDOR_{adapter.method.upper().replace('-', '_')}",
            "parents": [parent.hex() for parent in adapter.parents],
        }
    )


def bundle_limits(config: Config) -> Limits:
    """What a store may fetch for any bundle of this config: known before a byte of it is read."""
    sizes = _size_limits(config)
    return Limits(len(sizes), max(sizes.values()), sum(sizes.values()), max_depth=2)


def read_submission(files: Files, config: Config, claim: Claim) -> SubmissionBundle:
    """Read a member's bundle strictly. Raises Rejected, in the fixed order of ledger.verdict."""
    _check_files(files, submission_files(config), config)
    if files[CONFIG] != config.encode():
        raise Rejected(Reason.CONFIG_MISMATCH, f"{CONFIG} is not the config {config.digest.hex()} of the round")
    _check_manifest(files[MANIFEST], _submission_manifest(config, claim, files))
    _check_adapter_config(files, config)
    tensors = _decode(files, ADAPTER, weight_layout(config))
    trajectory = _decode(files, TRAJECTORY, _trajectory_layout(config))["trajectory"]
    return SubmissionBundle(config, claim, _on_grid(tensors, config), trajectory, files.get(PROOF, b""))


def submission_files(config: Config) -> tuple[str, ...]:
    return (*SUBMISSION_FILES, PROOF) if config.proven else SUBMISSION_FILES


def read_weights(files: Files, config: Config) -> Weights:
    """Weights in grid units of a global bundle, aggregate or genesis, under the config of the round that starts there.

    The config inside an aggregate is that of the round which made it, and may differ from `config` in all but the
    adapter. Raises Rejected.
    """
    genesis = CONFIG not in files
    _check_files(files, GENESIS_FILES if genesis else AGGREGATE_FILES, config)
    manifest = _decode_manifest(files[MANIFEST])
    table = _file_table({path: data for path, data in files.items() if path != MANIFEST})
    try:
        (_read_genesis if genesis else _read_aggregate)(Fields(manifest, MANIFEST), table, files, config)
    except canonical.FieldInvalid as error:
        raise Rejected(Reason.MANIFEST_MISMATCH, str(error)) from error
    _check_adapter_config(files, config)
    return _on_grid(_decode(files, ADAPTER, weight_layout(config)), config)


def included_members(manifest: bytes) -> tuple[int, ...]:
    """Whose submissions an aggregate says that it is made of. Raises Rejected."""
    found = _decode_manifest(manifest)
    included = found.get("included") if isinstance(found, dict) else None
    if not isinstance(included, list) or len(included) > 256 or not all(map(_is_included, included)):
        raise Rejected(Reason.MANIFEST_MISMATCH, "included: expected members, bundles and weights")
    return tuple(member for member, _, _ in included)


def _is_included(entry: Any) -> bool:
    return isinstance(entry, list) and [type(item) for item in entry] == [int, str, int]


def _read_genesis(fields: Fields, table: Any, files: Files, config: Config) -> None:
    fields.text("kind", one_of=("candor/genesis/1",))
    _same("base_digest", fields.hex32("base_digest").hex(), config.base_digest.hex())
    _same("files", fields.take("files"), table)
    fields.done()


def _read_aggregate(fields: Fields, table: Any, files: Files, config: Config) -> None:
    fields.text("kind", one_of=("candor/aggregate/1",))
    fields.integer("chain_id", 0, canonical.MAX_INTEGER)
    contract = fields.text("contract", max_chars=40)
    if len(contract) != 40 or contract.strip("0123456789abcdef"):
        raise canonical.FieldInvalid("contract: expected 40 lower-case hex digits")
    fields.integer("round", 0, canonical.MAX_INTEGER)
    _same("config_digest", fields.hex32("config_digest").hex(), canonical.digest(files[CONFIG]).hex())
    fields.hex32("global_bundle")
    if not all(map(_is_included, fields.array("included", max_items=256))):
        raise canonical.FieldInvalid("included: expected members, bundles and weights")
    _same("files", fields.take("files"), table)
    fields.done()


def _same(what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise Rejected(Reason.MANIFEST_MISMATCH, f"{what}: expected {_show(expected)}, found {_show(found)}")


def _submission_manifest(config: Config, claim: Claim, files: Files) -> bytes:
    """spent_micro is a decimal string: "infinite" is 2^64 − 1, which JSON numbers do not hold."""
    others = {path: data for path, data in files.items() if path != MANIFEST}
    return canonical.encode(
        {
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
            "files": _file_table(others),
        }
    )


def _file_table(files: Files) -> dict[str, Any]:
    return {path: {"sha256": canonical.digest(data).hex(), "size": len(data)} for path, data in files.items()}


def _check_files(files: Files, expected: tuple[str, ...], config: Config) -> None:
    for what, paths in (("missing", set(expected) - files.keys()), ("unexpected", files.keys() - set(expected))):
        if paths:
            raise Rejected(Reason.BUNDLE_MALFORMED, f"{what} file {_show(sorted(paths)[0])}")
    limits = _size_limits(config)
    for path in expected:
        if len(files[path]) > limits[path]:
            raise Rejected(Reason.BUNDLE_MALFORMED, f"{path}: {len(files[path])} bytes, at most {limits[path]} allowed")


def _size_limits(config: Config) -> dict[str, int]:
    """Twice what the numbers need, so that float64 is told apart from a flood; the JSON files by their own caps."""
    return {
        ADAPTER_CONFIG: SLACK_BYTES,
        ADAPTER: 2 * encoded_size(weight_layout(config)) + SLACK_BYTES,
        CONFIG: MAX_CONFIG_BYTES,
        MANIFEST: MAX_MANIFEST_BYTES,
        TRAJECTORY: 2 * encoded_size(_trajectory_layout(config)) + SLACK_BYTES,
    } | ({PROOF: largest_proof(config.shape)} if config.proven else {})


def _check_manifest(found: bytes, expected: bytes) -> None:
    if found == expected:
        return
    manifest, wanted = _decode_manifest(found), canonical.decode(expected, max_bytes=MAX_MANIFEST_BYTES)
    if not isinstance(manifest, dict):
        raise Rejected(Reason.MANIFEST_MISMATCH, "the manifest is not a JSON object")
    for key in sorted(wanted.keys() | manifest.keys()):
        _same(key if key in wanted else _show(key), manifest.get(key, "nothing"), wanted.get(key, "nothing"))
    raise Rejected(Reason.MANIFEST_MISMATCH, "the manifest is not the expected one")


def _decode_manifest(data: bytes) -> Any:
    try:
        return canonical.decode(data, max_bytes=MAX_MANIFEST_BYTES)
    except NotCanonical as error:
        raise Rejected(Reason.BUNDLE_MALFORMED, f"{MANIFEST}: {error}") from error


def _check_adapter_config(files: Files, config: Config) -> None:
    if files[ADAPTER_CONFIG] != adapter_config_json(config):
        raise Rejected(Reason.ADAPTER_CONFIG, f"{ADAPTER_CONFIG} is not the one that the config implies")


def _decode(files: Files, path: str, layout: Layout) -> dict[str, Any]:
    try:
        return decode_safetensors(files[path], layout)
    except TensorsMalformed as error:
        raise Rejected(Reason.TENSOR_LAYOUT, f"{path}: {error}") from error


def _on_grid(tensors: Mapping[str, Any], config: Config) -> Weights:
    weights = {}
    for name, array in tensors.items():
        try:
            weights[name] = units_of(array, config.weight_bits)
        except OffGrid as error:
            raise Rejected(Reason.OFF_GRID, f"{name}: {error}") from error
    return weights


def _weight_files(config: Config, weights: Weights) -> dict[str, bytes]:
    tensors = {name: values_of(units, config.weight_bits) for name, units in weights.items()}
    return {ADAPTER_CONFIG: adapter_config_json(config), ADAPTER: _encode(tensors, weight_layout(config))}


def _encode(tensors: Mapping[str, Any], layout: Layout) -> bytes:
    found = {name: array.shape for name, array in tensors.items()}
    if found != {name: shape for name, (_, shape) in layout.items()}:
        raise LocalFault("the tensors given are not those of the config")
    return encode_safetensors(tensors)


def _trajectory_layout(config: Config) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {"trajectory": ("I32", (config.steps, config.adapter.parameters))}


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
