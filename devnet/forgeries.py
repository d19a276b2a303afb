"""What a dishonest member publishes: each forgery changes one thing of an honest submission, and nothing beside it.

The manifest always fits the other files, so that the forgery is caught by the rule that is meant for it and not by a
checksum. Bytes of a pickle are written by hand: nothing here loads them. Proofs made here are the real prover's, and
sound, for something else than the round asks for. Where it asks for none, a forgery of a proof is an honest submission.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ledger import canonical
from ledger.bundle import (
    ADAPTER,
    ADAPTER_CONFIG,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    PROOF,
    SubmissionBundle,
)
from ledger.gradients import Challenge
from ledger.mechanism import statement_of
from ledger.optimizer import replay
from ledger.tensors import Weights, encode_safetensors, flatten, unflatten, values_of
from proofs.gaussian import noise_table
from proofs.mechanism import selected_rows
from proofs.prover import data_root, prove, words_root
from proofs.statement import Shape
from proofs.texts import Texts
from proofs.words import SecretWords, combine, public_draws, public_noise

Files = dict[str, bytes]
# what `pickle.load` would execute: GLOBAL os.system, one string, TUPLE1, REDUCE
PICKLE: Final = b"\x80\x04cos\nsystem\n\x8c\x0btouch owned\x85R."


@dataclass(frozen=True, eq=False)
class Honest:
    """What an honest member would publish. words: its secret words, from which a liar works out its own noise."""

    bundle: SubmissionBundle
    start: Weights
    words: Callable[[], SecretWords]
    beacon: bytes

    def noise(self) -> NDArray[np.int32]:
        """(T, P): the part of the trajectory that hides the rows."""
        return noise_of(self.words(), self.beacon, self.bundle.config.privacy.noise_units)

    @property
    def files(self) -> Files:
        return self.bundle.files()


Forgery = Callable[[Honest], Files]


# ---- the numbers: trajectory and weights


def released(honest: Honest, trajectory: NDArray[np.int32], proof: bytes = b"") -> Files:
    """The submission of somebody who released these sums and followed the optimizer from there; with the honest proof
    unless there is another."""
    config = honest.bundle.config
    reached = replay(config, flatten(config, honest.start), trajectory)
    weights, proof = honest.start | unflatten(config, reached), proof or honest.bundle.proof
    return replace(honest.bundle, trajectory=trajectory, weights=weights, proof=proof).files()


def noise_of(words: SecretWords, beacon: bytes, noise_units: int) -> NDArray[np.int32]:
    """(T, P): the noise that these words and the beacon give."""
    table, parameters = noise_table(noise_units), words.parameters
    steps = [
        table.lookup(combine(words.noise(step), public_noise(beacon, words.binding, step, parameters)))
        for step in range(words.steps)
    ]
    return np.stack(steps)


def without_noise(honest: Honest) -> Files:
    return released(honest, honest.bundle.trajectory - honest.noise())


def half_the_noise(honest: Honest) -> Files:
    return released(honest, honest.bundle.trajectory - honest.noise() // 2)


def off_by_one(honest: Honest) -> Files:
    """One released sum moved by one unit, and the adapter that follows from it."""
    trajectory = honest.bundle.trajectory.copy()
    trajectory[0, 0] += 1
    return released(honest, trajectory)


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


# ---- the proof


def broken_proof(honest: Honest) -> Files:
    if not honest.bundle.proof:
        return honest.files
    proof = bytearray(honest.bundle.proof)
    proof[len(proof) // 2] ^= 1
    return replace(honest.bundle, proof=bytes(proof)).files()


def no_proof(honest: Honest) -> Files:
    return with_manifest({path: data for path, data in honest.files.items() if path != PROOF})


def over_clip(honest: Honest) -> Files:
    """In every step one contribution is a unit longer than the clip, and a proof says so: of a clip so much longer."""
    shape = honest.bundle.config.shape
    return _proven(honest, honest.words(), replace(shape, clip_units=shape.clip_units + 1))


def other_words(honest: Honest) -> Files:
    """Noise of words that were chosen when the beacon was known, and a proof for a commitment to those."""
    words = honest.words()
    seed = sha256(b"candor/devnet/other-words/1\0" + honest.beacon).digest()
    chosen = SecretWords(seed, words.binding, words.steps, words.parameters, words.capacity)
    return _proven(honest, chosen, honest.bundle.config.shape)


def stale_proof(honest: Honest) -> Files:
    """The honest submission, with a proof that the same member made for another round."""
    words, claim = honest.words(), honest.bundle.claim
    other = replace(honest, bundle=replace(honest.bundle, claim=replace(claim, round=claim.round + 1)))
    seed = sha256(b"candor/devnet/stale-proof/1\0" + honest.beacon).digest()
    binding = replace(words.binding, round=claim.round + 1)
    elsewhere = SecretWords(seed, binding, words.steps, words.parameters, words.capacity)
    proof = _proven(other, elsewhere, honest.bundle.config.shape).get(PROOF, b"")
    return replace(honest.bundle, proof=proof).files()


def _proven(honest: Honest, words: SecretWords, shape: Shape) -> Files:
    """A submission whose drawn rows contribute nothing, but for the first of each step, which is as long as the sizes
    allow; with a proof that holds for these words and sizes, committed to after the beacon."""
    config, claim, rows = honest.bundle.config, honest.bundle.claim, words.capacity
    if not config.proven:
        return honest.files
    contributions = []
    for step in range(words.steps):
        draws = combine(words.draws(step), public_draws(honest.beacon, words.binding, step, words.capacity))
        drawn = selected_rows(draws, shape.sample_threshold, rows)
        part = np.zeros((len(drawn), words.parameters), dtype=np.int32)
        part[:1, 0] = shape.clip_units
        contributions.append(part)
    sums = np.array([part.sum(axis=0, dtype=np.int32) for part in contributions], dtype=np.int32)
    sums += noise_of(words, honest.beacon, shape.sigma_units)
    texts = Texts.of([[0]] * rows, [0] * rows, shape.tokens)
    own = replace(claim, words_root=words_root(words, shape), dataset_root=data_root(words, shape, texts))
    statement = replace(statement_of(config, own, honest.beacon, sums), shape=shape)
    return released(honest, sums, prove(statement, words, texts, contributions))


FORGERIES: Final[dict[str, Forgery]] = {
    "no-noise": without_noise,
    "half-noise": half_the_noise,
    "off-by-one": off_by_one,
    "broken-proof": broken_proof,
    "no-proof": no_proof,
    "over-clip": over_clip,
    "other-words": other_words,
    "stale-proof": stale_proof,
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


# ---- what is shown in Prove: proofs of gradients


def other_slot(challenge: Challenge) -> Challenge:
    """Its neighbour, or the one before where there is none."""
    slot = challenge.pick.slot
    last = challenge.mechanism.shape.slots - 1
    return replace(challenge, pick=replace(challenge.pick, slot=slot + 1 if slot < last else slot - 1))


def other_beacon(challenge: Challenge) -> Challenge:
    return replace(challenge, beacon=sha256(b"candor/devnet/stale-gradients/1\0" + challenge.beacon).digest())


def broken_gradient(files: Files) -> Files:
    """One byte of the first proof, under a manifest that fits."""
    first = min(path for path in files if path != MANIFEST)
    proof = bytearray(files[first])
    proof[len(proof) // 2] ^= 1
    return with_manifest(files | {first: bytes(proof)})


def foreign_gradients(files: Files) -> Files:
    """The manifest says another round."""
    manifest = canonical.decode(files[MANIFEST], max_bytes=MAX_MANIFEST_BYTES)
    return files | {MANIFEST: canonical.encode(manifest | {"round": manifest["round"] + 1})}


ANSWERS: Final[dict[str, Callable[[Challenge], Challenge]]] = {
    "other-slots": other_slot,
    "stale-gradients": other_beacon,
}
SHOWN: Final[dict[str, Callable[[Files], Files]]] = {
    "broken-gradient": broken_gradient,
    "foreign-gradients": foreign_gradients,
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
