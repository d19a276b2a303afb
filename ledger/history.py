"""All rounds of one federation, in the order of the chain: ledger.rules, and what rounds demand of later ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ledger.eip712 import Domain
from ledger.opening import ZERO_DIGEST, Rule, RuleBroken, open_round
from ledger.records import Logged, Phase, RoundOpened, Seat
from ledger.round_state import RoundState
from ledger.rules import apply


@dataclass(frozen=True)
class History:
    """Every round so far, by number. `after` returns a new history and never changes this one."""

    domain: Domain
    rounds: Mapping[int, RoundState] = field(default_factory=dict)

    @property
    def latest(self) -> int:
        """Number of the latest round, 0 before the first."""
        return len(self.rounds)

    @property
    def global_bundle(self) -> bytes | None:
        """What the next round must start from: the last Final aggregate, else the first opening's; None before that."""
        for number in range(self.latest, 0, -1):
            final = self.rounds[number].final_bundle
            if final is not None:
                return final
        return self.rounds[1].opened.global_bundle if self.rounds else None

    def after(self, logged: Logged) -> History:
        """The history with one more event. Raises RuleBroken."""
        number = logged.event.round
        if isinstance(logged.event, RoundOpened):
            state = self._open(logged, logged.event)
        elif number in self.rounds:
            state = apply(self.rounds[number], logged)
        else:
            raise RuleBroken(Rule.ROUND_NUMBER, f"an event of round {number}, the latest is {self.latest}")
        return History(self.domain, {**self.rounds, number: state})

    def after_all(self, logs: Iterable[Logged]) -> History:
        history = self
        for logged in logs:
            history = history.after(logged)
        return history

    def declared_micro(self, member: int) -> int:
        """The ε that the member declared last, in any round; 0 if never."""
        for number in range(self.latest, 0, -1):
            submission = self.rounds[number].submissions.get(member)
            if submission is not None:
                return submission.spent_micro
        return 0

    def _open(self, logged: Logged, event: RoundOpened) -> RoundState:
        if event.round != self.latest + 1:
            raise RuleBroken(Rule.ROUND_NUMBER, f"expected round {self.latest + 1}, found {event.round}")
        if self.rounds:
            self._check_previous(self.rounds[self.latest], logged)
        expected = self.global_bundle
        if expected is not None and expected != event.global_bundle:
            found = event.global_bundle.hex()
            raise RuleBroken(Rule.GLOBAL_BUNDLE, f"expected {expected.hex()}, found {found}")
        known = [seat for state in self.rounds.values() for seat in state.seats]
        owners, members = {old.member: old.owner for old in known}, {old.signer: old.member for old in known}
        members |= {old.verifier: old.member for old in known if old.verifier != ZERO_DIGEST}
        for seat in event.seats:
            self._check_seat(seat, owners, members)
        return open_round(self.domain, logged)

    def _check_previous(self, previous: RoundState, logged: Logged) -> None:
        if previous.phase not in (Phase.FINAL, Phase.VOID):
            raise RuleBroken(Rule.ROUND_STILL_OPEN, f"round {previous.number} is in {previous.phase.name}")
        last = previous.log[-1]
        if (logged.block_number, logged.log_index) <= (last.block_number, last.log_index):
            raise RuleBroken(Rule.ORDER, f"round {logged.event.round} opens before round {previous.number} ended")

    def _check_seat(self, seat: Seat, owners: Mapping[int, bytes], members: Mapping[bytes, int]) -> None:
        """owners: by member, and members: by signer and by verifier, as all earlier rounds had them."""
        if owners.get(seat.member, seat.owner) != seat.owner:
            raise RuleBroken(Rule.SEATS, f"member {seat.member} has another owner than before")
        for key in (seat.signer, seat.verifier):
            if members.get(key, seat.member) != seat.member:
                raise RuleBroken(Rule.SEATS, f"member {seat.member} signs with a key of member {members[key]}")
        declared = self.declared_micro(seat.member)
        if seat.spent_micro != declared:
            found = seat.spent_micro
            raise RuleBroken(Rule.SPENT, f"member {seat.member} declared {declared}, its seat says {found}")
