"""Words: the member cannot choose what they add up to, others cannot see them, and no two purposes share any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import shake_256

import numpy as np
import pytest

from proofs import merkle
from proofs.errors import LocalFault
from proofs.words import Binding, SecretWords, combine, public_draws, public_noise

BINDING = Binding(chain_id=31337, contract=bytes(range(20)), round=3, member=1)
SEED, BEACON = bytes([7]) * 32, bytes([9]) * 32
ROOT = "7e117d47512c4d2f9a9da912ba2df469"  # of `secret()`; a change breaks every commitment on any chain


def secret(seed: bytes = SEED, binding: Binding = BINDING, steps: int = 2, parameters: int = 5) -> SecretWords:
    return SecretWords(seed, binding, steps, parameters, capacity=3)


def test_shapes_are_those_of_the_round() -> None:
    words = secret()
    assert (words.noise(1).shape, words.draws(0).shape) == ((5, 4), (3, 2))
    assert words.noise(0).dtype == words.draws(1).dtype == np.uint16


def test_secret_noise_is_spelled_out_by_its_specification() -> None:
    """Written from proofs/README.md, not from words.py."""
    binding = (31337).to_bytes(8, "big") + bytes(range(20)) + (3).to_bytes(8, "big") + b"\x01"
    message = b"candor/secret-noise/1\0" + binding + SEED + (1).to_bytes(4, "big") + (20).to_bytes(4, "big")
    expected = [int.from_bytes(pair, "little") for pair in zip(*[iter(shake_256(message).digest(40))] * 2, strict=True)]
    assert secret().noise(1).reshape(-1).tolist() == expected


def test_the_root_is_spelled_out_by_its_specification() -> None:
    words, leaves = secret(), []
    binding = (31337).to_bytes(8, "big") + bytes(range(20)) + (3).to_bytes(8, "big") + b"\x01"
    for step in range(2):
        for kind, block in ((0, words.noise(step)), (1, words.draws(step))):
            index = step.to_bytes(4, "big")
            label = f"candor/words-salt-{kind}/1\0".encode()
            salt = shake_256(label + binding + SEED + index + (16).to_bytes(4, "big")).digest(32)
            name = b"candor/words-leaf/1\0" + binding + bytes([kind]) + index
            leaves.append(name + salt + block.astype("<u2").tobytes())
    assert words.root() == merkle.root(leaves)


def test_the_root_of_a_released_version_stays_as_it_is() -> None:
    assert secret().root().hex()[:32] == ROOT


CHANGES: dict[str, Callable[[], SecretWords]] = {
    "seed": lambda: secret(seed=bytes(32)),
    "chain": lambda: secret(binding=replace(BINDING, chain_id=1)),
    "contract": lambda: secret(binding=replace(BINDING, contract=bytes(20))),
    "round": lambda: secret(binding=replace(BINDING, round=4)),
    "member": lambda: secret(binding=replace(BINDING, member=2)),
    "parameters": lambda: secret(parameters=6),
}


@pytest.mark.parametrize("change", sorted(CHANGES))
def test_another_purpose_gets_other_words_and_another_root(change: str) -> None:
    other, words = CHANGES[change](), secret()
    assert other.root() != words.root()
    assert not np.array_equal(other.noise(0)[:5], words.noise(0))


def test_steps_noise_draws_and_public_words_have_nothing_in_common() -> None:
    words = SecretWords(SEED, BINDING, 2, 8, 16)
    beacon_is_seed = (public_noise(SEED, BINDING, 0, 8), public_draws(SEED, BINDING, 0, 16))
    blocks = [words.noise(0), words.noise(1), words.draws(0), words.draws(1), *beacon_is_seed]
    assert len({block.tobytes()[:64] for block in blocks}) == len(blocks)


@pytest.mark.parametrize("field", ["chain_id", "contract", "round", "member"])
def test_public_words_depend_on_every_field_of_the_binding(field: str) -> None:
    value = bytes(20) if field == "contract" else 99
    other = replace(BINDING, **{field: value})
    assert not np.array_equal(public_noise(BEACON, BINDING, 0, 9), public_noise(BEACON, other, 0, 9))
    assert not np.array_equal(public_draws(BEACON, BINDING, 0, 9), public_draws(BEACON, other, 0, 9))


def test_combining_wraps_and_can_be_undone_by_who_knows_one_part() -> None:
    one, two = np.array([[65535, 3]], dtype=np.uint16), np.array([[2, 4]], dtype=np.uint16)
    assert combine(one, two).tolist() == [[1, 7]]
    assert combine(combine(one, two), np.negative(two)).tolist() == one.tolist()


def test_whatever_the_member_chose_the_sum_is_as_uniform_as_the_beacon() -> None:
    """All-zero secret words, the laziest choice, still give words spread evenly over 2^16."""
    words = combine(np.zeros((50_000, 4), dtype=np.uint16), public_noise(BEACON, BINDING, 0, 50_000))
    counts = np.bincount(words.reshape(-1) >> 12, minlength=16)
    assert np.abs(counts - 12_500).max() < 5 * np.sqrt(12_500)


def test_words_of_other_shapes_or_types_do_not_combine() -> None:
    words = np.zeros((2, 4), dtype=np.uint16)
    for other in (np.zeros((2, 2), dtype=np.uint16), np.zeros((2, 4), dtype=np.uint32)):
        with pytest.raises(LocalFault):
            combine(words, other)


@pytest.mark.parametrize(
    "binding",
    [
        replace(BINDING, chain_id=1 << 64),
        replace(BINDING, round=-1),
        replace(BINDING, member=256),
        replace(BINDING, contract=bytes(19)),
    ],
)
def test_a_field_that_does_not_fit_its_width_is_refused(binding: Binding) -> None:
    with pytest.raises(LocalFault):
        secret(binding=binding).noise(0)


def test_seed_beacon_and_step_are_checked() -> None:
    with pytest.raises(LocalFault):
        secret(seed=b"short")
    with pytest.raises(LocalFault):
        public_noise(b"short", BINDING, 0, 1)
    for step in (-1, 2):
        with pytest.raises(LocalFault):
            secret().noise(step)


def test_the_seed_shows_in_no_text() -> None:
    words = secret()
    assert SEED.hex() not in repr(words) + str(words)
    assert repr(SEED)[2:-1] not in repr(words)
