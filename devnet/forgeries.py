"""What a dishonest member publishes: each forgery changes one thing of an honest submission, and nothing beside it.

The manifest always fits the other files, so that the forgery is caught by the rule that is meant for it and not by a
checksum. Bytes of a pickle and of hostile DAGs are written by hand: nothing here loads them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ledger import canonical
from ledger.bundle import (
    ADAPTER,
    ADAPTER_CONFIG,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    PROOF,
    TRAJECTORY,
    SubmissionBundle,
)
from ledger.content.cid import Block, Codec
from ledger.content.dagpb import DIRECTORY_DATA, FileData, Link, Node, encode_file, encode_node
from ledger.optimizer import replay
from ledger.tensors import Weights, encode_safetensors, flatten, unflatten, values_of

Files = dict[str, bytes]
# what `pickle.load` would execute: GLOBAL os.system, one string, TUPLE1, REDUCE
PICKLE: Final = b"\x80\x04cos\nsystem\n\x8c\x0btouch owned\x85R."
CHUNK: Final = 1 << 20


class BlockSink(Protocol):
    """The part of a store that takes hand-made blocks."""

    def put_blocks(self, blocks: list[Block], roots: list[Block]) -> None: ...

    def put_directory(self, files: Mapping[str, bytes]) -> bytes: ...


@dataclass(frozen=True, eq=False)
class Honest:
    """What an honest member would publish. noise: (T, P), the part of the trajectory that hides the rows."""

    bundle: SubmissionBundle
    start: Weights
    noise: Callable[[], NDArray[np.int32]]

    @property
    def files(self) -> Files:
        return self.bundle.files()


Forgery = Callable[[Honest], Files]


# ---- the numbers: trajectory and weights


def released(honest: Honest, trajectory: NDArray[np.int32]) -> Files:
    """The submission of somebody who released these sums and followed the optimizer from there."""
    config = honest.bundle.config
    reached = replay(config, flatten(config, honest.start), trajectory)
    weights = honest.start | unflatten(config, reached)
    return replace(honest.bundle, trajectory=trajectory, weights=weights).files()


def without_noise(honest: Honest) -> Files:
    return released(honest, honest.bundle.trajectory - honest.noise())


def half_the_noise(honest: Honest) -> Files:
    return released(honest, honest.bundle.trajectory - honest.noise() // 2)


def off_by_one(honest: Honest) -> Files:
    """One released sum moved by one unit, and the adapter that follows from it."""
    trajectory = honest.bundle.trajectory.copy()
    trajectory[0, 0] += 1
    return released(honest, trajectory)


def broken_proof(honest: Honest) -> Files:
    middle = len(honest.bundle.proof) // 2
    proof = bytearray(honest.bundle.proof)
    proof[middle] ^= 1
    return with_manifest(honest.files | {PROOF: bytes(proof)})


def no_proof(honest: Honest) -> Files:
    return with_manifest({path: data for path, data in honest.files.items() if path != PROOF})


def another_trajectory(honest: Honest) -> Files:
    """One released sum differs by one unit from the one that the adapter came from."""
    trajectory = honest.bundle.trajectory.copy()
    trajectory[-1, np.abs(trajectory[-1]).argmax()] += 4096
    return replace(honest.bundle, trajectory=trajectory).files()


def frozen_changed(honest: Honest) -> Files:
    """One frozen weight by one grid unit, or one trained weight where nothing is frozen."""
    config = honest.bundle.config
    frozen = [tensor.name for tensor in config.adapter.tensors if tensor.role == "frozen"]
    name = (frozen or [config.adapter.trained[0].name])[0]
    changed = honest.bundle.weights[name].copy()
    changed.flat[0] += 1
    return replace(honest.bundle, weights=honest.bundle.weights | {name: changed}).files()


# ---- the adapter file


def off_grid(honest: Honest) -> Files:
    """A weight halfway between two grid points, which float32 holds but the grid does not."""
    return _with_weight(honest, 2.0 ** -(honest.bundle.config.weight_bits + 1))


def not_a_number(honest: Honest) -> Files:
    return _with_weight(honest, float("nan"))


def wrong_shape(honest: Honest) -> Files:
    """One tensor transposed: the same bytes in number, another shape."""
    tensors = _values(honest)
    name = next(name for name, array in sorted(tensors.items()) if array.ndim == 2 and len(set(array.shape)) == 2)
    return _with_tensors(honest, tensors | {name: np.ascontiguousarray(tensors[name].T)})


def missing_key(honest: Honest) -> Files:
    tensors = _values(honest)
    return _with_tensors(honest, {name: tensors[name] for name in sorted(tensors)[1:]})


def extra_key(honest: Honest) -> Files:
    """A tensor that would overwrite a weight of the base model when loaded."""
    extra = {"base_model.model.model.embed_tokens.weight": np.zeros((2, 2), np.float32)}
    return _with_tensors(honest, _values(honest) | extra)


def wrong_dtype(honest: Honest) -> Files:
    """float16, which would load, and lose the grid."""
    return with_manifest(honest.files | {ADAPTER: _half_precision(_values(honest))})


# ---- the other files


def mutated_config(honest: Honest) -> Files:
    """An adapter_config.json that would make PEFT change the base model itself."""
    config = json.loads(honest.files[ADAPTER_CONFIG]) | {"init_lora_weights": "pissa"}
    return with_manifest(honest.files | {ADAPTER_CONFIG: canonical.encode(config)})


def pickled(honest: Honest) -> Files:
    """A pickle under the old name of PyTorch, which loads it and runs what it says."""
    files = {path: data for path, data in honest.files.items() if path != ADAPTER}
    return with_manifest(files | {"adapter_model.bin": PICKLE})


def extra_file(honest: Honest) -> Files:
    return with_manifest(honest.files | {"setup.py": b"import os\n"})


def foreign_round(honest: Honest) -> Files:
    return replace(honest.bundle, claim=replace(honest.bundle.claim, round=honest.bundle.claim.round + 1)).files()


def foreign_chain(honest: Honest) -> Files:
    return replace(honest.bundle, claim=replace(honest.bundle.claim, chain_id=1)).files()


FORGERIES: Final[dict[str, Forgery]] = {
    "no-noise": without_noise,
    "half-noise": half_the_noise,
    "off-by-one": off_by_one,
    "broken-proof": broken_proof,
    "no-proof": no_proof,
    "wrong-trajectory": another_trajectory,
    "frozen-changed": frozen_changed,
    "off-grid": off_grid,
    "nan": not_a_number,
    "wrong-shape": wrong_shape,
    "missing-key": missing_key,
    "extra-key": extra_key,
    "wrong-dtype": wrong_dtype,
    "mutated-config": mutated_config,
    "pickle": pickled,
    "extra-file": extra_file,
    "foreign-round": foreign_round,
    "foreign-chain": foreign_chain,
}


# ---- directories that no honest importer writes


def escaping_path(honest: Honest, store: BlockSink) -> bytes:
    """The honest files, and an entry named `..` beside them."""
    entries = {name: _leaf(data) for name, data in honest.files.items() if "/" not in name}
    return _put(store, entries | {"..": _leaf(b"root::0:0\n")})


def zip_bomb(honest: Honest, store: BlockSink) -> bytes:
    """A trajectory of a tebibyte: two small nodes, each of whose 1,024 links is the same block below it."""
    leaf = Block.of(Codec.RAW, bytes(CHUNK))
    gibibyte = _repeat(leaf, CHUNK, CHUNK)
    tebibyte = _repeat(gibibyte, CHUNK << 10, 1024 * CHUNK + len(gibibyte.data))
    store.put_blocks([leaf, gibibyte], [])
    entries = {name: _leaf(data) for name, data in honest.files.items() if "/" not in name}
    return _put(store, entries | {TRAJECTORY.replace("/", "-"): tebibyte})


HOSTILE_DIRECTORIES: Final[dict[str, Callable[[Honest, BlockSink], bytes]]] = {
    "path-escape": escaping_path,
    "zip-bomb": zip_bomb,
}


def nowhere(honest: Honest) -> bytes:
    """A digest of the right form behind which there is nothing."""
    return sha256(b"candor/devnet/nowhere/1\0" + honest.files[MANIFEST]).digest()


def with_manifest(files: Files) -> Files:
    """The files, and a manifest that tells the truth about them."""
    manifest = canonical.decode(files[MANIFEST], max_bytes=MAX_MANIFEST_BYTES)
    others = {path: data for path, data in files.items() if path != MANIFEST}
    table = {path: {"sha256": canonical.digest(data).hex(), "size": len(data)} for path, data in others.items()}
    return others | {MANIFEST: canonical.encode(manifest | {"files": table})}


def _values(honest: Honest) -> dict[str, NDArray[np.float32]]:
    bits = honest.bundle.config.weight_bits
    return {name: values_of(units, bits) for name, units in honest.bundle.weights.items()}


def _with_tensors(honest: Honest, tensors: Mapping[str, NDArray[np.float32]]) -> Files:
    return with_manifest(honest.files | {ADAPTER: encode_safetensors(tensors)})


def _with_weight(honest: Honest, value: float) -> Files:
    tensors = _values(honest)
    name = honest.bundle.config.adapter.trained[0].name
    tensors[name].flat[0] = value
    return _with_tensors(honest, tensors)


def _half_precision(tensors: Mapping[str, NDArray[np.float32]]) -> bytes:
    """A valid safetensors file of float16: this project's own writer refuses to make one."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset, data = 0, b""
    for name in sorted(tensors):
        part = tensors[name].astype("<f2").tobytes()
        entries[name] = {
            "dtype": "F16",
            "shape": list(tensors[name].shape),
            "data_offsets": [offset, offset + len(part)],
        }
        offset, data = offset + len(part), data + part
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data


def _leaf(data: bytes) -> Block:
    return Block.of(Codec.RAW, data)


def _repeat(child: Block, file_bytes: int, tree_bytes: int) -> Block:
    """A file node of 1,024 links to one and the same child."""
    links = (Link(child.cid, "", tree_bytes),) * 1024
    return Block.of(
        Codec.DAG_PB, encode_node(Node(links, encode_file(FileData(1024 * file_bytes, (file_bytes,) * 1024))))
    )


def _put(store: BlockSink, entries: Mapping[str, Block]) -> bytes:
    names = sorted(entries, key=str.encode)
    links = tuple(Link(entries[name].cid, name, len(entries[name].data)) for name in names)
    root = Block.of(Codec.DAG_PB, encode_node(Node(links, DIRECTORY_DATA)))
    store.put_blocks(list(entries.values()), [root])
    return root.cid.digest
