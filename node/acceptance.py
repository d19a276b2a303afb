"""Does this member take part in this round? Pure: config, seat and limits in, a reason against it out.

The coordinator proposes; whoever does not agree does not commit. What is decided here is decided before anything is
spent: neither gas nor privacy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from ledger.aggregation import NoAggregate, WrongHalf, check_members, check_round
from ledger.config import Config
from ledger.privacy import INFINITE_MICRO, Spend, epsilon_micro, spend_of
from ledger.records import Seat
from ledger.round_state import RoundState
from node.settings import PrivacySettings
from proofs.errors import LocalFault


class RoundRefused(LocalFault):
    """This member does not take part in this round; the text says why."""


@dataclass(frozen=True)
class Limits:
    """The member's own, whatever the chain allows. max_micro: ε over all rounds, in millionths."""

    max_micro: int
    max_delta: Fraction
    insecure_no_noise: bool

    @classmethod
    def of(cls, settings: PrivacySettings) -> Limits:
        return cls(round(settings.max_epsilon * 1_000_000), settings.max_delta, settings.insecure_no_noise)

    def cap_micro(self, seat: Seat, config: Config) -> int:
        """The least of the member's own limit and the contract's. Without noise only the explicit setting helps."""
        own = INFINITE_MICRO if config.privacy.insecure_no_noise and self.insecure_no_noise else self.max_micro
        return min(own, seat.cap_micro)


def check_config(config: Config, state: RoundState, limits: Limits) -> None:
    """What the config asks for, apart from budget and model. Raises RoundRefused."""
    privacy = config.privacy
    try:
        check_round(config, state.number)
        check_members(config, [seat.member for seat in state.seats])
    except (WrongHalf, NoAggregate) as error:
        raise RoundRefused(str(error)) from error
    if config.policy != state.policy:
        raise RoundRefused(f"the config's policy is {config.policy}, on chain it is {state.policy}")
    if privacy.delta > limits.max_delta:
        raise RoundRefused(f"the round's δ is {privacy.delta}, this member allows {limits.max_delta} (max_delta)")
    if privacy.insecure_no_noise and not limits.insecure_no_noise:
        raise RoundRefused("the round asks for training without noise; this member does not (insecure_no_noise)")


def check_budget(config: Config, seat: Seat, limits: Limits, history: Sequence[Spend], known_micro: int) -> int:
    """ε in millionths after the round. Raises RoundRefused when the cap or the ledger would refuse it later.

    history: what the member's own ledger has booked; known_micro: the ε that it declared with the last of it.
    """
    if seat.spent_micro > known_micro:
        raise RoundRefused(
            f"the chain says that ε {seat.spent_micro / 1e6:g} was spent, the privacy ledger knows of "
            f"{known_micro / 1e6:g}: bring back the newest copy of the state folder"
        )
    after = max(known_micro, epsilon_micro([*history, spend_of(config)], config.privacy.delta))
    cap = limits.cap_micro(seat, config)
    if after > cap:
        shown = "infinite" if after == INFINITE_MICRO else f"{after / 1e6:g}"
        raise RoundRefused(f"the round would bring ε to {shown}; the cap is {cap / 1e6:g}")
    return after
