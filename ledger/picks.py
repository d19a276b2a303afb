"""Which slots a member has to show in Prove, and how probably that finds a falsified one. Pure.

All T·B slots of a round are numbered, slot k of step t being t·B + k (proofs/README.md). The beacon that is drawn when
Train has closed, after every submission, picks m different ones:

    SHAKE-256("candor/gradient-picks/1" ‖ 0 ‖ binding (37 bytes) ‖ beacon (32 bytes)), read as big-endian u64;
    those ≥ A·⌊2^64/A⌋ are passed over, the others taken modulo A; repetitions are passed over;
    the first m different numbers, sorted.

A = T·B slots are a capacity. Which of them are in use, only the member knows, and a proof for one that is not looks
like any other: so picks cannot aim at those in use, and detection has to be told for slots, not for contributions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from hashlib import shake_256
from math import comb
from typing import Any, Final

from ledger.config import Config
from ledger.round_state import RoundState
from proofs.errors import LocalFault
from proofs.words import BEACON_BYTES, Binding

LABEL: Final = b"candor/gradient-picks/1\0"
DRAW_BYTES: Final = 8
DRAWS_AT_ONCE: Final = 64
PERCENTS: Final = (1, 5, 10)
RULE: Final = (
    "SHAKE-256 over the label candor/gradient-picks/1, a zero byte, chain id u64, contract, round u64, member u8 and "
    "beacon, read as big-endian u64; those from A*floor(2^64/A) on are passed over, A = T*B; the others modulo A, "
    "repetitions passed over, until there are m; number n is slot n mod B of step n div B, both from 0"
)


@dataclass(frozen=True, order=True)
class Pick:
    """Both from 0."""

    step: int
    slot: int

    def __str__(self) -> str:
        return f"step {self.step}, slot {self.slot}"


def draw(beacon: bytes, binding: Binding, *, steps: int, slots: int, count: int) -> tuple[Pick, ...]:
    """`count` different slots of steps·slots, each set of them equally likely, ascending."""
    total = steps * slots
    if len(beacon) != BEACON_BYTES or not 0 < count <= total:
        raise LocalFault(f"a beacon of {BEACON_BYTES} bytes picks 1 to {total} slots, not {count}")
    found: dict[int, None] = {}
    for number in _uniform(LABEL + binding.encode() + beacon, total):
        found[number] = None
        if len(found) == count:
            break
    return tuple(Pick(*divmod(number, slots)) for number in sorted(found))


def picks_of(config: Config, beacon: bytes, binding: Binding) -> tuple[Pick, ...]:
    """None where the config asks for none."""
    if config.gradient is None:
        return ()
    shape = config.shape
    return draw(beacon, binding, steps=shape.steps, slots=shape.slots, count=config.gradient.slots)


@dataclass(frozen=True)
class Picked:
    """What one beacon picked of each member with a submission: enough for anybody to draw it again."""

    beacon: bytes
    steps: int
    slots: int
    count: int
    members: dict[int, tuple[Pick, ...]]

    def to_json(self) -> dict[str, Any]:
        members = {str(member): [[pick.step, pick.slot] for pick in picks] for member, picks in self.members.items()}
        sizes = {"steps": self.steps, "slots_a_step": self.slots, "picks": self.count}
        return {"beacon": self.beacon.hex(), **sizes, "rule": RULE, "members": members}


def picked(state: RoundState, config: Config) -> Picked | None:
    """None before the beacon, and where the config picks nothing."""
    if config.gradient is None or state.prove_beacon is None:
        return None
    shape, domain, beacon = config.shape, state.domain, state.prove_beacon
    bindings = {m: Binding(domain.chain_id, domain.contract, state.number, m) for m in sorted(state.submissions)}
    members = {member: picks_of(config, beacon, binding) for member, binding in bindings.items()}
    return Picked(beacon, shape.steps, shape.slots, config.gradient.slots, members)


def _uniform(seed: bytes, total: int) -> Iterator[int]:
    """Numbers below `total`, without end, all equally likely."""
    space = 1 << 8 * DRAW_BYTES
    end, at, stream = space - space % total, 0, b""
    while True:
        if at == len(stream):
            stream = shake_256(seed).digest(2 * len(stream) or DRAW_BYTES * DRAWS_AT_ONCE)
        value, at = int.from_bytes(stream[at : at + DRAW_BYTES], "big"), at + DRAW_BYTES
        if value < end:
            yield value % total


def detection(picks: int, slots: int, falsified: int) -> Fraction:
    """The probability that one of `picks` different slots is one of the `falsified` of `slots`; exact."""
    if not 0 <= picks <= slots or not 0 <= falsified <= slots:
        raise LocalFault(f"{picks} picks and {falsified} falsified slots of {slots}")
    return 1 - Fraction(comb(slots - falsified, picks), comb(slots, picks))


def coverage_text(config: Config) -> str:
    """For people: what the picks of one round find, and what the percentages are percentages of."""
    if config.gradient is None:
        return "no slot is picked"
    picks, slots = config.gradient.slots, config.shape.contributions
    drawn = Fraction(config.privacy.sample_threshold, 1 << 32) * config.privacy.capacity * config.steps
    of_slots = ", ".join(_found(picks, slots, Fraction(percent * slots, 100), percent) for percent in PERCENTS)
    in_use = min(drawn, Fraction(slots))
    of_used = ", ".join(_found(picks, slots, Fraction(percent, 100) * in_use, percent) for percent in PERCENTS)
    return (
        f"{picks} of {slots} slots a member, picked after submission. A member that falsified a part of the {slots} "
        f"slots is found in one round: {of_slots}. These slots are a capacity; only the drawn ones are in use: "
        f"a dataset at full capacity is expected to draw {float(drawn):.0f} contributions ({_percent(drawn / slots)} of"
        f" the slots), a smaller one fewer, so that a part of a member's contributions is a smaller part of the slots. "
        f"Who falsified a part of the contributions of a dataset at full capacity is found: {of_used}"
    )


def _found(picks: int, slots: int, falsified: Fraction, percent: int) -> str:
    """Parts of a slot are left out, in favour of whoever falsifies."""
    return f"{percent} % with probability {_percent(detection(picks, slots, int(falsified)))}"


def _percent(value: Fraction) -> str:
    """Rounded down: never more is said than is so."""
    tenths = int(value * 1000)
    return f"{tenths // 10}.{tenths % 10} %"
