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

    agrees is None where nobody can tell: the bundle is gone, or its absence at the time cannot be re-run.
    """

    member: int
    posted: int | None
    found: Verdict
    agrees: bool | None

    @property
    def missing(self) -> bool:
        """Another try may tell: the bundle was there for the verifiers, and is not here."""
        return self.agrees is None and self.posted not in (None, Reason.UNAVAILABLE)

    def to_json(self) -> dict[str, Any]:
        return {
            "member": self.member,
            "posted": None if self.posted is None else reason_name(self.posted),
            "found": self.found.reason.name,
            "detail": self.found.detail,
            "agrees": self.agrees,
        }


def agreement(posted: int | None, found: Reason) -> bool | None:
    if posted is None:
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
    if absent:
        return not_proven(Name.VERDICTS, "; ".join(map(_told, absent)), **data)
    left_out = [f"member {f.member}: {f.found.reason.name}" for f in findings if f.posted]
    text = f"all {len(findings)} verdicts are re-run and agree" + (
        f"; left out: {', '.join(left_out)}" if left_out else ""
    )
    return passed(Name.VERDICTS, text, **data)


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
