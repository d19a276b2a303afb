"""Random words that nobody can steer and only the member knows: secret words plus public words, modulo 2^16.

Before the beacon, a member commits to the root over all its secret words s of the round. The beacon then expands to
public words b. u = (s + b) mod 2^16 is uniform whatever s was chosen, because b came after it; and it is secret if s
is. Noise takes four words a coordinate a step, sampling two words a slot a step, with a slot for each of `capacity`
rows, so that the number of rows shows nowhere.

SHAKE-256 inputs, every one of them: ASCII label, one zero byte, the binding (chain id u64, contract 20 bytes, round
u64, member u8), seed or beacon (32 bytes), step u32, number of words u32; integers are big-endian. The output is read
as little-endian 16-bit words, row-major. A root's leaves, in the order noise(0), draws(0), noise(1), draws(1), …:

    label "candor/words-leaf/1" ‖ 0 ‖ binding ‖ kind u8 (0 noise, 1 draws) ‖ step u32 ‖ salt (32 bytes) ‖ words

The tree is RFC 6962's (proofs.merkle). Where a config asks for proofs, a commitment that a proof can open in zero
knowledge takes its place (proofs.prover.words_root), and that the words used are those under it is proven.

Not proven otherwise: that the words a member used are those under its root. Uniform here means: as far as SHAKE-256
keyed by the secret seed cannot be told from random, which the privacy claim rests on; the honesty claim does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import shake_256

import numpy as np
from numpy.typing import NDArray

from proofs import merkle
from proofs.errors import LocalFault

SEED_BYTES = 32
BEACON_BYTES = 32
NOISE_WORDS = 4
DRAW_WORDS = 2

Words = NDArray[np.uint16]


@dataclass(frozen=True)
class Binding:
    """Whose words, and for what: chain id, address of Rounds (20 bytes), round and member number."""

    chain_id: int
    contract: bytes
    round: int
    member: int

    def encode(self) -> bytes:
        """37 bytes, fixed width. Raises LocalFault when a field does not fit."""
        if len(self.contract) != 20:
            raise LocalFault(f"a contract address has 20 bytes, not {len(self.contract)}")
        try:
            head, tail = self.chain_id.to_bytes(8, "big"), self.round.to_bytes(8, "big")
            return head + self.contract + tail + self.member.to_bytes(1, "big")
        except OverflowError as error:
            raise LocalFault(f"chain id, round or member out of range: {error}") from error


class SecretWords:
    """All secret words of one member in one round, expanded from a 32-byte seed that never leaves the member.

    noise(step): (parameters, 4), draws(step): (capacity, 2), both uint16. The seed shows in no repr and no error.
    """

    def __init__(self, seed: bytes, binding: Binding, steps: int, parameters: int, capacity: int) -> None:
        if len(seed) != SEED_BYTES:
            raise LocalFault(f"a seed has {SEED_BYTES} bytes, not {len(seed)}")
        if min(steps, parameters, capacity) < 1:
            raise LocalFault("words need at least one step, one parameter and one slot")
        self._seed = seed
        self.binding, self.steps, self.parameters, self.capacity = binding, steps, parameters, capacity

    def noise(self, step: int) -> Words:
        self._check(step)
        return _words("candor/secret-noise/1", self.binding, self._seed, step, self.parameters, NOISE_WORDS)

    def draws(self, step: int) -> Words:
        self._check(step)
        return _words("candor/secret-draws/1", self.binding, self._seed, step, self.capacity, DRAW_WORDS)

    def root(self) -> bytes:
        """What the member commits to before the beacon. Reads every word once, one step in memory at a time."""
        hashes = []
        for step in range(self.steps):
            for kind, words in enumerate((self.noise(step), self.draws(step))):
                hashes.append(merkle.leaf_hash(self._leaf(kind, step, words)))
        return merkle.root_of_hashes(hashes)

    def stream(self, label: str, context: bytes) -> bytes:
        """A 32-byte key for randomness of another kind, bound to the seed, the binding and `context`; as secret."""
        return shake_256(label.encode() + b"\0" + self.binding.encode() + self._seed + context).digest(SEED_BYTES)

    def _leaf(self, kind: int, step: int, words: Words) -> bytes:
        name = b"candor/words-leaf/1\0" + self.binding.encode() + bytes([kind]) + step.to_bytes(4, "big")
        salt = _words(f"candor/words-salt-{kind}/1", self.binding, self._seed, step, 16, 1)
        return name + _bytes(salt) + _bytes(words)

    def _check(self, step: int) -> None:
        if not 0 <= step < self.steps:
            raise LocalFault(f"step {step} is outside the {self.steps} steps of the round")

    def __repr__(self) -> str:
        return f"SecretWords({self.binding}, steps={self.steps}, parameters={self.parameters})"


def public_noise(beacon: bytes, binding: Binding, step: int, parameters: int) -> Words:
    """(parameters, 4) uint16, from the beacon that came after the commitment."""
    return _words("candor/public-noise/1", binding, _beacon(beacon), step, parameters, NOISE_WORDS)


def public_draws(beacon: bytes, binding: Binding, step: int, capacity: int) -> Words:
    """(capacity, 2) uint16."""
    return _words("candor/public-draws/1", binding, _beacon(beacon), step, capacity, DRAW_WORDS)


def combine(secret: Words, public: Words) -> Words:
    """(s + b) mod 2^16, word by word; both of the same shape."""
    if secret.dtype != np.uint16 or public.dtype != np.uint16 or secret.shape != public.shape:
        raise LocalFault(f"words of {secret.dtype}{secret.shape} and {public.dtype}{public.shape} do not combine")
    return np.add(secret, public, dtype=np.uint16)


def _beacon(beacon: bytes) -> bytes:
    if len(beacon) != BEACON_BYTES:
        raise LocalFault(f"a beacon has {BEACON_BYTES} bytes, not {len(beacon)}")
    return beacon


def _words(label: str, binding: Binding, key: bytes, step: int, rows: int, width: int) -> Words:
    message = label.encode() + b"\0" + binding.encode() + key + step.to_bytes(4, "big")
    stream = shake_256(message + (rows * width).to_bytes(4, "big")).digest(2 * rows * width)
    return np.frombuffer(stream, dtype="<u2").astype(np.uint16).reshape(rows, width)


def _bytes(words: Words) -> bytes:
    return words.astype("<u2").tobytes()
