"""Who stands behind verdicts, and who does not: the part of the verdicts link that is about verifiers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ledger.report import reason_name
from ledger.round_state import RoundState
from ledger.verdict import Verdict


def quorum_text(state: RoundState) -> str:
    """In words: who signed, once the signature was checked."""
    signers = list(state.verdicts.signed.members) if state.verdicts else []
    return f"signed by members {signers} of {len(state.verifiers)} verifiers, {state.policy.verifier_quorum} needed"


def quorum_data(state: RoundState) -> dict[str, Any]:
    return {
        "signers": list(state.verdicts.signed.members) if state.verdicts else [],
        "verifiers": list(state.verifiers),
        "needed": state.policy.verifier_quorum,
    }


def dissents(state: RoundState, found: Mapping[int, Verdict]) -> list[dict[str, Any]]:
    """What each dissenter says of whom, against what was posted and what the rules give here.

    supported: True if the re-run gives what the dissenter says wherever it differs, False if it gives what was posted.
    """
    return [_dissent(state, member, event.reasons, found) for member, event in sorted(state.dissents.items())]


def _dissent(state: RoundState, dissenter: int, reasons: bytes, found: Mapping[int, Verdict]) -> dict[str, Any]:
    posted, differs = state.reasons, []
    for seat, says in zip(state.seats, reasons, strict=True):
        if says != posted[seat.member]:
            rules = int(found[seat.member].reason)
            differs.append((seat.member, says, posted[seat.member], rules))
    supported = True if all(rules == says for _, says, _, rules in differs) else None
    if all(rules == there for _, _, there, rules in differs):
        supported = False
    return {
        "member": dissenter,
        "says": {str(member): reason_name(says) for member, says, _, _ in differs},
        "posted": {str(member): reason_name(there) for member, _, there, _ in differs},
        "supported": supported,
        "signed_too": dissenter in (state.verdicts.signed.members if state.verdicts else ()),
    }


def dissent_text(told: Mapping[str, Any]) -> str:
    says = ", ".join(f"member {member} {reason}" for member, reason in told["says"].items())
    sides = {
        True: "the re-run supports it",
        False: "the re-run supports what was posted",
        None: "the re-run is with neither",
    }
    both = "; it signed what was posted, too" if told["signed_too"] else ""
    return f"member {told['member']} dissents ({says}): {sides[told['supported']]}{both}"
