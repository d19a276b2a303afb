"""The live picture of a federation on a terminal: one row a member, a line for the round, the log above it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from devnet.progress import GENESIS, Pace, Watch, epsilon_text, reason_text
from ledger.records import Phase
from ledger.round_state import RoundState, shown

STEPS_WIDTH: Final = 24
Paces = Mapping[int, Pace]


def picture(watch: Watch, paces: Paces) -> RenderableType:
    """`paces`: how far each member is in the training under way."""
    if not watch.rounds:
        return Text(f"{watch.elapsed_s:.0f} s  the daemons are starting; block {watch.head}")
    state = watch.rounds[max(watch.rounds)]
    return Group(_headline(watch, state), _members(watch, state, paces), _footer(watch))


def _headline(watch: Watch, state: RoundState) -> Text:
    phase, deadline = shown(state, watch.head + 1)
    left = "" if state.ended else f", block {watch.head} of {deadline}"
    text = Text(f"round {state.number} of {watch.federation.plan.rounds}  ", style="bold")
    return text.append(phase.name, style="green" if phase is Phase.FINAL else "cyan").append(left)


def _members(watch: Watch, state: RoundState, paces: Paces) -> Table:
    table = Table(box=None, padding=(0, 2))
    for name in ("member", "doing", "steps", "ε spent", "of"):
        table.add_column(name)
    for seat in state.seats:
        submitted = state.submissions.get(seat.member)
        spent = submitted.spent_micro if submitted else seat.spent_micro
        table.add_row(
            f"node-{seat.member}",
            _doing(state, seat.member, paces.get(seat.member)),
            _bar(paces.get(seat.member), submitted is not None),
            epsilon_text(spent),
            epsilon_text(seat.cap_micro),
        )
    return table


def _doing(state: RoundState, member: int, pace: Pace | None) -> Text:
    reason = state.reasons.get(member)
    if reason is not None:
        return Text("accepted", style="green") if reason == 0 else Text(reason_text(reason), style="red")
    if member in state.equivocations:
        return Text("equivocated", style="red")
    if member in state.submissions:
        return Text("submitted")
    if member in state.commitments:
        if state.phase is not Phase.TRAIN:
            return Text("committed")
        return Text("proving" if pace is not None and pace.proving else "training")
    return Text("waiting" if state.phase is Phase.COMMIT else "absent")


def _bar(pace: Pace | None, submitted: bool) -> RenderableType:
    if pace is None or submitted:
        return Text("")
    return ProgressBar(total=pace.total, completed=pace.done, width=STEPS_WIDTH)


def _footer(watch: Watch) -> Text:
    text = watch.measure.shown
    best = [f"{'start' if n == GENESIS else n}: {text(score)}" for n, score in sorted(watch.scores.items())]
    known = sum(size or 0 for size in watch.sizes.values())
    scores = f"{watch.measure.name} {'  '.join(best) or 'being measured'}"
    return Text(f"{scores}   {known:,} bytes   {watch.gas.total:,} gas   {watch.elapsed_s:.0f} s")
