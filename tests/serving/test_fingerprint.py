"""A fingerprint is robust to how a computation was done, and not to what was computed; its bytes have one reading."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from math import inf
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.log.receipt import Decoding
from node import fingerprint
from node.engine import Engine
from node.fingerprint import THRESHOLD, Fingerprint, FingerprintMalformed, compare, of_answer, of_pooled
from node.model import LoadedModel
from node.serving.engine import Job
from node.training import torch_threads

DECODING = Decoding(40, Fraction(7, 10), Fraction(1), 0, 1)
PROMPTS = ("A small shop: pays on", "The owner", "Re: loan")


def random_states(rows: int, width: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).normal(0, 3, (rows, width)).astype(np.float32)


# ---- what it is robust to, and what not


@pytest.fixture(scope="module")
def made(language: Engine) -> list[tuple[Job, Fingerprint]]:
    """Made in one batch."""
    jobs = [Job(tuple(language.encode(text)), DECODING) for text in PROMPTS]
    said = language.generate(jobs, lambda step: None, lambda job: False)
    return [(job, Fingerprint.decode(one.fingerprint)) for job, one in zip(jobs, said, strict=True)]


def distances(engine: Engine, made: list[tuple[Job, Fingerprint]]) -> list[float]:
    return [compare(one, engine.follow(job.tokens, one.tokens)[0]) for job, one in made]


def copy_of(engine: Engine, make_engine: Callable[..., Engine]) -> Engine:
    """The same model once more, to be spoilt."""
    fresh = make_engine.__wrapped__("language")  # type: ignore[attr-defined]
    assert isinstance(fresh, Engine)
    assert fresh is not engine
    return fresh


def test_batches_threads_kernels_and_a_finer_dtype_move_it_little(
    language: Engine, make_engine: Callable[..., Engine], made: list[tuple[Job, Fingerprint]]
) -> None:
    assert len(made[0][1].windows) == 2
    with torch_threads(2):
        found = distances(language, made)
    other = copy_of(language, make_engine)
    other.model.module.set_attn_implementation("eager")
    found += distances(other, made)
    other.model.module.double()
    found += distances(other, made)
    assert max(found) < THRESHOLD / 4


def rounded(model: LoadedModel, to: Callable[[torch.Tensor], torch.Tensor]) -> None:
    for name, part in model.module.named_modules():
        if isinstance(part, torch.nn.Linear) and "lora_" not in name and "lm_head" not in name:
            part.weight.data.copy_(to(part.weight.data))


def bfloat16(weight: torch.Tensor) -> torch.Tensor:
    return weight.to(torch.bfloat16).float()


def eight_bits(weight: torch.Tensor) -> torch.Tensor:
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    return (weight / scale).round() * scale


@pytest.mark.parametrize("to", [bfloat16, eight_bits])
def test_weights_of_fewer_bits_are_another_computation(
    language: Engine, make_engine: Callable[..., Engine], made: list[tuple[Job, Fingerprint]], to: Any
) -> None:
    other = copy_of(language, make_engine)
    rounded(other.model, to)
    assert min(distances(other, made)) > 2 * THRESHOLD


def test_another_bundle_another_prompt_and_another_token_are_another_computation(
    language: Engine, make_engine: Callable[..., Engine], made: list[tuple[Job, Fingerprint]]
) -> None:
    assert min(distances(make_engine("language", 4), made)) > 100 * THRESHOLD
    changed = [(Job((*job.tokens[:-1], job.tokens[-1] ^ 1), job.decoding), one) for job, one in made]
    assert min(distances(language, changed)) > 100 * THRESHOLD
    job, one = made[0]
    answer = (*one.tokens[:20], one.tokens[20] ^ 1, *one.tokens[21:])
    assert compare(one, language.follow(job.tokens, answer)[0]) > 100 * THRESHOLD


def test_of_a_classifier_too(classifier: Engine, make_engine: Callable[..., Engine]) -> None:
    texts = [classifier.encode(text) for text in PROMPTS]
    made = [Fingerprint.decode(found.fingerprint) for found in classifier.classify(texts)]
    for text, one in zip(texts, made, strict=True):
        assert compare(one, classifier.pooled([text])[0]) < THRESHOLD / 4
        assert compare(one, classifier.pooled([[*text[:3], text[3] ^ 1, *text[4:]]])[0]) > 10 * THRESHOLD
        assert compare(one, make_engine("classifier", 4).pooled([text])[0]) > 10 * THRESHOLD


# ---- distances


def test_a_distance_is_relative_and_of_the_worst_window() -> None:
    states = random_states(70, 64)
    one = of_answer(states, range(70))
    assert [len(window.places) for window in one.windows] == [64, 64, 64]
    assert compare(one, states) < 3e-5
    assert compare(one, states * np.float32(1.01)) == pytest.approx(0.01 / 1.01, rel=0.01)
    other = states.copy()
    other[69] = random_states(1, 64, 2)[0]
    assert compare(one, other) > 0.1
    assert compare(of_answer(states[:64], range(64)), other[:64]) < 3e-5


def test_small_entries_that_are_called_the_largest_are_far_off() -> None:
    """Though each of their values is right."""
    states = random_states(1, 512)
    (true,) = of_pooled(states)
    order = np.argsort(np.abs(states[0]))
    places = np.sort(order[:128])
    scale = float(np.abs(states[0][places]).max())
    values = np.rint(states[0][places] * (fingerprint.PARTS / scale)).astype(np.int16)
    lying = Fingerprint("pooled", 512, (), (fingerprint.Window(scale, places, values),))
    assert compare(true, states) < 3e-5
    assert compare(lying, states) > 0.5


def test_other_shapes_and_states_that_are_no_numbers_are_infinitely_far() -> None:
    states = random_states(3, 64)
    one = of_answer(states, (1, 2, 3))
    for other in (states[:2], states[:, :63], np.full_like(states, np.nan)):
        assert compare(one, other) == inf
    assert compare(of_answer(np.zeros((2, 8), np.float32), (1, 2)), random_states(2, 8)) > 0.5
    assert compare(of_answer(random_states(2, 8), (1, 2)), np.zeros((2, 8), np.float32)) == inf
    assert compare(of_answer(np.zeros((2, 8), np.float32), (1, 2)), np.zeros((2, 8), np.float32)) == 0.0


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.integers(1, 4), st.integers(1, 300), st.data())
def test_the_largest_are_those_that_a_sort_finds_and_of_equal_ones_the_first(
    rows: int, long: int, data: st.DataObject
) -> None:
    seed, width = data.draw(st.integers(0, 999)), data.draw(st.integers(1, long))
    states = np.random.default_rng(seed).integers(-4, 5, (rows, long)).astype(np.float32)
    order = np.argsort(-np.abs(states), axis=1, kind="stable")[:, : min(128, width)]
    found = fingerprint._largest(states, width)
    assert [row.nonzero()[0].tolist() for row in found] == np.sort(order, axis=1).tolist()


# ---- bytes


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.integers(0, 70), st.sampled_from([1, 8, 127, 128, 700]), st.integers(0, 1000))
def test_what_was_encoded_is_decoded_and_is_compact(rows: int, width: int, seed: int) -> None:
    states = random_states(rows, width, seed)
    one = of_answer(states, [seed * 997 % 50_000] * rows)
    data = one.encode()
    again = Fingerprint.decode(data)
    assert (again.kind, again.width, again.tokens) == (one.kind, one.width, one.tokens)
    assert again.encode() == data
    assert compare(again, states) < 1e-4
    assert len(data) <= 12 + 3 * rows + 4 * 128 * -(-rows // 32) + 4 * -(-rows // 32)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.data())
def test_one_fingerprint_has_one_sequence_of_bytes(data: st.DataObject) -> None:
    original = of_answer(random_states(3, 16), (5, 300, 70_000)).encode()
    changed = bytearray(original)
    at = data.draw(st.integers(0, len(original) - 1))
    changed[at] = data.draw(st.integers(0, 255))
    cut = changed[: data.draw(st.sampled_from([len(changed), at]))]
    try:
        found = Fingerprint.decode(bytes(cut))
    except FingerprintMalformed:
        return
    assert found.encode() == bytes(cut)


GOOD = of_pooled(np.array([[1.0, -2.0, 0.5]], np.float32))[0].encode()


def test_the_bytes_are_these_for_ever() -> None:
    assert GOOD.hex() == "0101030300" + "40000000" + "000000" + "4000" + "8001" + "2000"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\2" + GOOD[1:],
        GOOD[:1] + b"\2" + GOOD[2:],
        GOOD[:3] + b"\2" + GOOD[4:],
        GOOD + b"\0",
        GOOD[:-1],
        b"\x81\0" + GOOD[1:],
        GOOD[:4] + b"\1\5" + GOOD[5:],
        GOOD.replace(struct.pack(">f", 2.0), struct.pack(">f", inf)),
        GOOD.replace(struct.pack(">f", 2.0), struct.pack(">f", -2.0)),
        GOOD.replace(struct.pack(">f", 2.0), struct.pack(">f", 0.0)),
        GOOD.replace(struct.pack(">f", 2.0), b"\x7f\xc0\0\0"),
        GOOD.replace(b"\x80\1", b"\x80\2"),
        GOOD.replace(b"\x80\1", b"\x80\0"),
        GOOD[:9] + b"\1" + GOOD[10:],
        b"\1\0\x80\x80\4\x80\1" + b"\xff\xff\3" + bytes(64),
        bytes([1, 0]) + b"\xff\xff\xff\xff\x0f" * 4,
    ],
    ids=str,
)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(FingerprintMalformed):
        Fingerprint.decode(data)


def test_a_flood_is_not_read() -> None:
    with pytest.raises(FingerprintMalformed, match="at most"):
        Fingerprint.decode(bytes(fingerprint.MAX_BYTES + 1))
