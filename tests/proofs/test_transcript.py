"""The transcript: everything that was said changes everything that is drawn."""

from __future__ import annotations

from hashlib import sha256, shake_256

import numpy as np

from proofs.field import P
from proofs.transcript import PROTOCOL, Transcript, field_stream, signs


def test_a_draw_follows_from_the_hashes_that_the_specification_gives() -> None:
    transcript = Transcript()
    transcript.absorb("root", b"abc")
    state = sha256(sha256(PROTOCOL).digest() + b"\0\4root" + (3).to_bytes(8, "big") + b"abc").digest()
    key = sha256(state + b"\1\1x").digest()
    assert transcript.draw("x") == key
    state = sha256(state + b"\2" + key).digest()
    assert transcript.draw("x") == sha256(state + b"\1\1x").digest()


def test_labels_and_data_cannot_be_moved_into_each_other() -> None:
    drawn = set()
    for label, data in (("a", b"bc"), ("ab", b"c"), ("abc", b""), ("", b"abc"), ("a", b"b")):
        transcript = Transcript()
        transcript.absorb(label, data)
        drawn.add(transcript.draw("x"))
    assert len(drawn) == 5


def test_elements_are_below_p_and_words_above_are_passed_over() -> None:
    found = field_stream(b"k" * 32, 50_000)
    words = np.frombuffer(shake_256(b"k" * 32).digest(4 * 60_000), dtype="<u4") & 0x7FFFFFFF
    assert (words >= P).any()
    assert np.array_equal(found, words[words < P][:50_000])


def test_positions_are_different_ascending_and_below_the_bound() -> None:
    for below in (256, 1 << 17):
        positions = Transcript().positions("columns", below, 121).tolist()
        assert positions == sorted(set(positions))
        assert positions[-1] < below


def test_signs_are_two_bits_each_a_quarter_of_each_sign() -> None:
    found = signs(b"s" * 32, 7, 9)
    stream = shake_256(b"s" * 32).digest(16)
    assert [int(value) for value in found.reshape(-1)[:4]] == [
        (1, -1, 0, 0)[stream[0] >> shift & 3] for shift in (0, 2, 4, 6)
    ]
    many = signs(b"t" * 32, 100, 1000)
    assert abs(int((many == 1).sum()) - 25_000) < 1000
    assert abs(int((many == -1).sum()) - 25_000) < 1000
