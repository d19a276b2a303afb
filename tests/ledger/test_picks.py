"""Picks: anybody can recompute them, nobody can steer them, and what they find is said exactly."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction
from hashlib import sha256, shake_256
from itertools import combinations

import pytest

from ledger.config import Config, GradientSpec
from ledger.picks import LABEL, Pick, coverage_text, detection, draw, picks_of
from proofs.errors import LocalFault
from proofs.words import Binding

BINDING = Binding(31337, bytes(range(20)), 4, 2)
BEACON = sha256(b"a beacon").digest()
GOLDEN = [(1, 218), (4, 281), (7, 123), (11, 16)]


def by_hand(beacon: bytes, binding: Binding, steps: int, slots: int, count: int) -> list[tuple[int, int]]:
    """The rule again, as its text reads."""
    total = steps * slots
    stream = shake_256(b"candor/gradient-picks/1\0" + binding.encode() + beacon).digest(1 << 14)
    found: set[int] = set()
    for at in range(0, len(stream), 8):
        value = int.from_bytes(stream[at : at + 8], "big")
        if len(found) < count and value < total * (2**64 // total):
            found.add(value % total)
    return sorted(divmod(number, slots) for number in found)


def test_picks_are_different_slots_in_order() -> None:
    found = draw(BEACON, BINDING, steps=6, slots=40, count=16)
    assert len(set(found)) == 16
    assert list(found) == sorted(found)
    assert all(0 <= pick.step < 6 and 0 <= pick.slot < 40 for pick in found)


@pytest.mark.parametrize(
    ("steps", "slots", "count"), [(6, 40, 16), (1, 1, 1), (3, 7, 21), (4096, 5000, 16), (2, 500, 16)]
)
def test_picks_are_those_that_the_rule_in_words_gives(steps: int, slots: int, count: int) -> None:
    found = draw(BEACON, BINDING, steps=steps, slots=slots, count=count)
    assert [(pick.step, pick.slot) for pick in found] == by_hand(BEACON, BINDING, steps, slots, count)


def test_picks_of_a_released_version_stay_as_they_are() -> None:
    assert LABEL == b"candor/gradient-picks/1\0"
    found = draw(BEACON, BINDING, steps=12, slots=300, count=4)
    assert [(pick.step, pick.slot) for pick in found] == GOLDEN


@pytest.mark.parametrize(
    "other",
    [
        replace(BINDING, chain_id=1),
        replace(BINDING, contract=bytes(20)),
        replace(BINDING, round=5),
        replace(BINDING, member=3),
    ],
)
def test_chain_contract_round_and_member_each_have_their_own_picks(other: Binding) -> None:
    sizes = {"steps": 12, "slots": 300, "count": 8}
    assert draw(BEACON, other, **sizes) != draw(BEACON, BINDING, **sizes)


def test_every_set_of_slots_is_as_likely_as_any_other() -> None:
    """Two of five, 4,000 beacons: ten sets, 400 each, and no set further away than five standard deviations."""
    counted = Counter(draw(sha256(b"%d" % n).digest(), BINDING, steps=5, slots=1, count=2) for n in range(4000))
    assert len(counted) == len(list(combinations(range(5), 2)))
    assert all(abs(count - 400) < 95 for count in counted.values())


@pytest.mark.parametrize(("count", "beacon"), [(0, BEACON), (9, BEACON), (1, b"short")])
def test_picks_that_cannot_be_are_refused(count: int, beacon: bytes) -> None:
    with pytest.raises(LocalFault):
        draw(beacon, BINDING, steps=2, slots=4, count=count)


def test_a_config_without_a_gradient_proof_picks_nothing(config: Config) -> None:
    assert picks_of(config, BEACON, BINDING) == ()


def test_a_config_says_how_many_slots_of_which_are_picked(proving: Config) -> None:
    found = picks_of(proving, BEACON, BINDING)
    assert len(found) == 4
    assert found == draw(BEACON, BINDING, steps=6, slots=proving.shape.slots, count=4)
    assert str(Pick(2, 3)) == "step 2, slot 3"


# ---- what they find


@pytest.mark.parametrize("picks", range(5))
@pytest.mark.parametrize("falsified", range(7))
def test_detection_is_that_of_every_set_counted(picks: int, falsified: int) -> None:
    sets = list(combinations(range(6), picks))
    found = [chosen for chosen in sets if any(slot < falsified for slot in chosen)]
    assert detection(picks, 6, falsified) == Fraction(len(found), len(sets))


def test_detection_is_nothing_without_falsified_slots_and_certain_with_all() -> None:
    assert detection(3, 1000, 0) == 0
    assert detection(3, 1000, 1000) == 1
    assert detection(16, 1000, 100) > 1 - Fraction(9, 10) ** 16, "without repetition it finds more than with it"


def test_detection_of_more_than_there_is_is_refused() -> None:
    for numbers in ((5, 4, 1), (1, 4, 5), (-1, 4, 1)):
        with pytest.raises(LocalFault):
            detection(*numbers)


def test_what_is_told_counts_slots_and_says_that_they_are_a_capacity(proving: Config) -> None:
    slots = proving.shape.contributions
    text = coverage_text(proving)
    assert text.startswith(f"4 of {slots} slots a member, picked after submission")
    for percent in (1, 5, 10):
        exact = detection(4, slots, slots * percent // 100)
        assert f"{percent} % with probability {int(exact * 1000) / 10} %" in text
    assert "These slots are a capacity; only the drawn ones are in use" in text
    drawn = Fraction(1, 16) * 64 * 6
    assert f"draw {drawn} contributions ({int(drawn / slots * 1000) / 10} % of the slots)" in text
    assert text.endswith(f"10 % with probability {int(detection(4, slots, int(drawn / 10)) * 1000) / 10} %")


def test_nothing_is_told_of_picks_where_there_are_none(config: Config) -> None:
    assert coverage_text(config) == "no slot is picked"


def test_a_config_that_picks_more_slots_than_there_are_is_refused(proving: Config) -> None:
    from ledger.canonical import FieldInvalid

    few = replace(proving, steps=1, privacy=replace(proving.privacy, capacity=8), gradient=GradientSpec(16, 4))
    with pytest.raises(FieldInvalid, match=r"config\.gradient\.slots: 16 of"):
        Config.decode(few.encode())
