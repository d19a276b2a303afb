"""The link `gradient`: what members showed of the slots that were picked, verified again on a base that is named here.

Without a base nobody can tell, and every verdict that rests on these proofs is NOT PROVEN with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ledger.audit_library import Unsettled
from ledger.audit_open import Contents
from ledger.bundle import Rejected, SubmissionBundle
from ledger.config import Config
from ledger.gradients import GradientsUnjudged, GradientVerifier
from ledger.picks import coverage_text
from ledger.records import Reason
from ledger.report import GRADIENT_NOT_PROVEN, Link, Name, failed, missing, not_proven, passed
from ledger.round_state import RoundState
from ledger.verdict import Shown, SubmissionFacts, check_gradients, fetch_shown

Outcome = str | Rejected | Unsettled
"""What is known of a member's gradients, what is wrong with them, or why that cannot be told here."""


@dataclass(frozen=True)
class GradientAudit:
    """One round's proofs of gradients, each member's verified once. verifier: None where no base was named."""

    state: RoundState
    contents: Contents
    verifier: GradientVerifier | None
    outcomes: dict[int, Outcome] = field(default_factory=dict)

    def reject(self, member: int, why: Rejected) -> None:
        """Nothing can be proven about a submission like this one."""
        self.outcomes[member] = why

    def outcome(self, facts: SubmissionFacts, submission: SubmissionBundle) -> Outcome:
        member = facts.claim.member
        if member not in self.outcomes:
            try:
                self.outcomes[member] = check_gradients(facts, submission, self._shown(facts))
            except Rejected as error:
                self.outcomes[member] = error
            except GradientsUnjudged as error:
                self.outcomes[member] = Unsettled(f"{error} (--base)", peer=False)
        return self.outcomes[member]

    def unjudged(self, member: int) -> str:
        """Why nobody can tell here; "" where that is known."""
        found = self.outcomes.get(member)
        return found.cause if isinstance(found, Unsettled) else ""

    def link(self, config: Config, accepted: Sequence[int]) -> Link:
        """Call when all accepted were judged: do the proofs of each hold, whatever else may be wrong with it?"""
        if config.gradient is None:
            return not_proven(Name.GRADIENT, GRADIENT_NOT_PROVEN)
        members, slots = list(accepted), config.shape.contributions
        data = {"members": members, "picks": config.gradient.slots, "slots": slots}
        if not members:
            return passed(Name.GRADIENT, "nobody was accepted, so nothing had to be proven", **data)
        never = Unsettled("it was never judged", peer=True)
        found = {member: self.outcomes.get(member, never) for member in members}
        for tell in (_wrong, _gone, _unknown):
            for member, outcome in found.items():
                if link := tell(member, outcome, data):
                    return link
        told = f"members {members}: picked slots hold gradients of committed rows, or nothing, within"
        text = (
            f"{told} {config.gradient.tolerance} units a coordinate; {coverage_text(config)}. Other slots: NOT PROVEN"
        )
        return passed(Name.GRADIENT, text, **data)

    def _shown(self, facts: SubmissionFacts) -> Shown | None:
        """Raises GradientsUnjudged."""
        proved = self.state.proofs.get(facts.claim.member)
        if facts.config.gradient is None or self.verifier is None or proved is None:
            return None
        return fetch_shown(facts.config, facts.global_weights, proved.proof, self.contents, self.verifier)


def _wrong(member: int, outcome: Outcome, data: dict[str, object]) -> Link | None:
    if isinstance(outcome, Rejected) and outcome.reason is not Reason.UNAVAILABLE:
        text = f"member {member} was accepted, and what it showed does not hold: {outcome.detail}"
        return failed(Name.GRADIENT, text, **data)
    return None


def _gone(member: int, outcome: Outcome, data: dict[str, object]) -> Link | None:
    if isinstance(outcome, Rejected) and outcome.reason is Reason.UNAVAILABLE:
        return missing(Name.GRADIENT, f"member {member}: {outcome.detail}", **data)
    return None


def _unknown(member: int, outcome: Outcome, data: dict[str, object]) -> Link | None:
    if isinstance(outcome, Unsettled):
        settle = failed if outcome.peer else not_proven
        return settle(Name.GRADIENT, f"member {member}: {outcome.cause}", **data)
    return None
