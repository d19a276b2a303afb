"""Verdicts under audit: what was posted, what the rules give here, and whether they agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ledger.records import Reason
from ledger.report import Link, Name, failed, missing, not_proven, passed, reason_name
from ledger.verdict import Verdict


@dataclass(frozen=True)
class Finding:
    """One member's verdict: what was posted (None: nothing yet), what the rules give here, and whether they agree.

    agrees is None where nobody can tell: the bundle is gone, or its absence at the time cannot be re-run, or all but
    the proofs of gradients speaks for the member, and these were not verified (`unjudged`: why).
    """

    member: int
    posted: int | None
    found: Verdict
    agrees: bool | None
    unjudged: str = ""

    @property
    def missing(self) -> bool:
        """Another try may tell: the bundle was there for the verifiers, and is not here."""
        return self.agrees is None and self.posted not in (None, Reason.UNAVAILABLE) and not self.unjudged

    def to_json(self) -> dict[str, Any]:
        return {
            "member": self.member,
            "posted": None if self.posted is None else reason_name(self.posted),
            "found": self.found.reason.name,
            "detail": self.found.detail,
            "agrees": self.agrees,
        }


def agreement(posted: int | None, found: Reason, unjudged: str = "") -> bool | None:
    if posted is None or (unjudged and posted in (Reason.ACCEPTED, Reason.GRADIENT_INVALID)):
        return None
    if posted == Reason.UNAVAILABLE or found is Reason.UNAVAILABLE:
        return None
    return posted == found


def verdicts_of(findings: list[Finding], data: dict[str, Any]) -> Link:
    wrong = [finding for finding in findings if finding.agrees is False]
    if wrong:
        return failed(Name.VERDICTS, "; ".join(map(_told, wrong)), **data)
    gone = [finding for finding in findings if finding.missing]
    if gone:
        return missing(Name.VERDICTS, "; ".join(map(_told, gone)), **data)
    absent = [finding for finding in findings if finding.posted == Reason.UNAVAILABLE]
    unjudged = [finding for finding in findings if finding.unjudged and finding not in absent]
    if absent or unjudged:
        return not_proven(Name.VERDICTS, "; ".join([*map(_told, absent), *_told_unjudged(unjudged)]), **data)
    left_out = [f"member {f.member}: {f.found.reason.name}" for f in findings if f.posted]
    text = f"all {len(findings)} verdicts are re-run and agree" + (
        f"; left out: {', '.join(left_out)}" if left_out else ""
    )
    return passed(Name.VERDICTS, text, **data)


def _told_unjudged(findings: list[Finding]) -> list[str]:
    if not findings:
        return []
    posted = ", ".join(f"member {f.member} {reason_name(f.posted or 0)}" for f in findings)
    return [f"posted {posted}: all but the proofs of gradients is re-run here; {findings[0].unjudged}"]


def _told(finding: Finding) -> str:
    posted = "nothing" if finding.posted is None else reason_name(finding.posted)
    who = f"member {finding.member}: posted {posted}"
    if finding.posted == Reason.UNAVAILABLE:
        here = (
            "it is not to be had here either"
            if finding.found.reason is Reason.UNAVAILABLE
            else (f"here it is, and the rules give {finding.found.reason.name}")
        )
        return f"{who}; that the bundle could not be fetched at the time cannot be re-run; {here}"
    return f"{who}, the rules give {finding.found.reason.name} ({finding.found.detail})"
