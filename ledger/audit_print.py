"""Printing what an audit found, on a terminal or as JSON. Whatever others wrote is shown as text, never obeyed.

Control characters and terminal escapes in foreign text are made visible, and rich's markup is off.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ledger.audit import Why
from ledger.audit_chain import outcome
from ledger.history import History
from ledger.picks import RULE, Picked
from ledger.records import Member, Reason
from ledger.report import Anchor, Link, Report, Status, reason_name, show_epsilon
from ledger.round_state import RoundState

COLOURS: Final = {Status.PASS: "green", Status.FAIL: "bold red", Status.NOT_PROVEN: "yellow"}
LEAST_WIDTH: Final = 100


class Printer:
    """Everything goes to standard output; with `as_json` exactly one JSON value does."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        plain = Console()
        self._console = plain if plain.is_terminal else Console(width=max(LEAST_WIDTH, plain.width))

    def value(self, value: Any) -> None:
        print(json.dumps(value, indent=2, sort_keys=True))

    def line(self, text: str, style: str = "") -> None:
        self._console.print(Text(visible(text), style=style), soft_wrap=True)

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        table = Table(title=Text(visible(title)), title_justify="left", header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(cell if isinstance(cell, Text) else Text(visible(str(cell))) for cell in row))
        self._console.print(table)

    # ---- what an audit has to say

    def report(self, report: Report) -> None:
        if self.as_json:
            self.value(report.to_json())
            return
        self.table("The history", ("link", "status", "evidence"), map(link_row, report.history))
        for round_report in report.rounds:
            title = f"Round {round_report.round}: {round_report.outcome}"
            self.table(title, ("link", "status", "evidence"), map(link_row, round_report.links))
        self._verdict(report)

    def _verdict(self, report: Report) -> None:
        unproven = {link.name.value: link.evidence for link in report.links if link.status is Status.NOT_PROVEN}
        for name, evidence in unproven.items():
            self.line(f"NOT PROVEN {name}: {evidence}", COLOURS[Status.NOT_PROVEN])
        if report.anchor is not None:
            self.line(anchor_text(report.anchor))
        self.status(report.status, report.links)

    def status(self, status: Status, links: Iterable[Link]) -> None:
        """The last line of a report."""
        if status is Status.PASS and any(link.status is Status.NOT_PROVEN for link in links):
            self.line("PASS, except for what is NOT PROVEN above", COLOURS[status])
        else:
            self.line(status.value, COLOURS[status])

    def why(self, why: Why) -> None:
        if self.as_json:
            self.value(why.to_json())
            return
        finding = why.finding
        posted = "nothing" if finding.posted is None else reason_name(finding.posted)
        self.line(f"Round {why.round} ({why.outcome}), member {finding.member}")
        self.line(f"  the quorum said       {posted}")
        self.line(f"  the rules give here   {finding.found.reason.name}")
        self.line(f"  because               {finding.found.detail}")
        told = {True: "they agree", False: "THEY DISAGREE", None: "NOT PROVEN: whether they agree cannot be told"}
        style = {True: COLOURS[Status.PASS], False: COLOURS[Status.FAIL], None: COLOURS[Status.NOT_PROVEN]}
        self.line(f"  {told[finding.agrees]}", style[finding.agrees])

    def rounds(self, history: History) -> None:
        if self.as_json:
            self.value({"kind": "candor/rounds/1", "rounds": [round_json(s) for s in history.rounds.values()]})
            return
        columns = ("round", "outcome", "seats", "committed", "submitted", "accepted", "config", "aggregate")
        self.table("Rounds", columns, map(_round_row, history.rounds.values()))

    def round(self, state: RoundState, picks: Picked | None = None) -> None:
        if self.as_json:
            self.value({"kind": "candor/round/1", **round_json(state), "picks": picks.to_json() if picks else None})
            return
        shown = round_json(state)
        self.line(f"Round {state.number}: {shown['outcome']}")
        for name in ("config", "global_bundle", "aggregate"):
            self.line(f"  {name:14} {shown[name]}")
        self.table(
            "Members", ("member", "ε before", "ε declared", "cap", "reason", "bundle"), map(_seat_row, shown["seats"])
        )
        if picks is not None:
            self._picks(state, picks)
        elif state.policy.proof_required and state.prove_beacon is not None:
            self.line("which slots were picked follows from the config: name a source of it with --content", "yellow")
        self.table("Events", ("block", "event"), ((at.block_number, type(at.event).__name__) for at in state.log))

    def _picks(self, state: RoundState, picks: Picked) -> None:
        rows = (
            (member, ", ".join(f"{pick.step}/{pick.slot}" for pick in chosen), _proofs_of(state, member))
            for member, chosen in picks.members.items()
        )
        self.table("Picked slots", ("member", "step/slot", "proofs"), rows)
        self.line(
            f"  picked by beacon {picks.beacon.hex()}, drawn after every submission: draw them again by this rule"
        )
        self.line(f"  T = {picks.steps} steps, B = {picks.slots} slots each, m = {picks.count} picks; {RULE}")

    def members(self, members: Sequence[Member]) -> None:
        if self.as_json:
            self.value({"kind": "candor/members/1", "members": [member_json(member) for member in members]})
            return
        columns = ("member", "status", "ε declared", "cap", "owner", "signer")
        rows = (
            [m[key] for key in ("member", "status", "spent", "cap", "owner", "signer")]
            for m in map(member_json, members)
        )
        self.table("Members", columns, rows)


def visible(text: str) -> str:
    """The text with every character that is not printable written out, so that it cannot steer a terminal."""
    return "".join(char if char.isprintable() or char == "\n" else f"\\u{ord(char):04x}" for char in text)


def anchor_text(anchor: Anchor) -> str:
    return (
        f"Everything above hangs on block {anchor.block_number} with hash 0x{anchor.block_hash.hex()} of chain "
        f"{anchor.chain_id} and on contract 0x{anchor.contract.hex()}: compare them with a source that you trust"
    )


def round_json(state: RoundState) -> dict[str, Any]:
    """A round as the events alone tell it."""
    reasons = state.reasons
    return {
        "round": state.number,
        "outcome": outcome(state),
        "phase": state.phase.name,
        "config": state.opened.config_digest.hex(),
        "global_bundle": state.opened.global_bundle.hex(),
        "aggregate": state.proposal.aggregate_bundle.hex() if state.proposal else None,
        "committed": sorted(state.commitments),
        "submitted": sorted(state.submissions),
        "equivocated": sorted(state.equivocations),
        "accepted": list(state.accepted),
        "objected": sorted(state.objections),
        "signers": list(state.verdicts.signed.members) if state.verdicts else [],
        "dissented": sorted(state.dissents),
        "seats": [_seat_json(state, seat.member, reasons) for seat in state.seats],
        "blocks": [state.log[0].block_number, state.log[-1].block_number],
        "transcript": state.transcript.hex(),
    }


def _seat_json(state: RoundState, member: int, reasons: dict[int, int]) -> dict[str, Any]:
    seat, sent = state.seat(member), state.submissions.get(member)
    return {
        "member": member,
        "spent_before_micro": seat.spent_micro if seat else 0,
        "cap_micro": seat.cap_micro if seat else 0,
        "declared_micro": sent.spent_micro if sent else None,
        "bundle": sent.bundle.hex() if sent else None,
        "reason": reason_name(reasons[member]) if member in reasons else None,
    }


def member_json(member: Member) -> dict[str, Any]:
    return {
        "member": member.number,
        "status": member.status.name,
        "owner": "0x" + member.owner.hex(),
        "signer": "0x" + member.signer.hex(),
        "verifier": member.verifier.hex() if any(member.verifier) else None,
        "spent": show_epsilon(member.spent_micro),
        "cap": show_epsilon(member.cap_micro),
        "spent_micro": member.spent_micro,
        "cap_micro": member.cap_micro,
    }


def _proofs_of(state: RoundState, member: int) -> str:
    return state.proofs[member].proof.hex() if member in state.proofs else "none"


def link_row(link: Link) -> tuple[Any, ...]:
    return link.name.value, Text(link.status.value, style=COLOURS[link.status]), link.evidence


def _round_row(state: RoundState) -> tuple[Any, ...]:
    shown = round_json(state)
    counts = (len(state.seats), len(state.commitments), len(state.submissions), shown["accepted"])
    return state.number, shown["outcome"], *counts, shown["config"][:16], (shown["aggregate"] or "none")[:16]


def _seat_row(seat: dict[str, Any]) -> tuple[Any, ...]:
    declared = "nothing" if seat["declared_micro"] is None else show_epsilon(seat["declared_micro"])
    reason = seat["reason"] or "no verdict"
    style = "green" if reason == Reason.ACCEPTED.name else "yellow"
    return (
        seat["member"],
        show_epsilon(seat["spent_before_micro"]),
        declared,
        show_epsilon(seat["cap_micro"]),
        Text(visible(reason), style=style),
        seat["bundle"] or "none",
    )
