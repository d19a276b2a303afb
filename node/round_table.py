"""The life of a round, seen by a member: (phase, my situation) → what to do. A table, and no I/O at all.

Every action is safe to repeat: a daemon that was killed reads the chain and its own memory, finds its situation here,
and goes on. The pictures in node/README.md are drawn from this table and the aggregator's:

    python -m node.round_table          rewrites them;  with --check it only says whether they are up to date
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from ledger.records import Phase
from ledger.round_state import RoundState, due, settled


class Situation(StrEnum):
    """Where a daemon stands in the present phase."""

    BYSTANDER = "bystander"
    EARLY = "early"
    READY = "ready"
    PREPARED = "prepared"
    DONE = "done"
    DISSENTING = "dissenting"
    CLOSED = "closed"
    OVER = "over"


class Do(StrEnum):
    """What a daemon does about it."""

    WAIT = "wait"
    PREPARE = "prepare"
    COMMIT = "commit"
    TRAIN = "train"
    SUBMIT = "submit"
    PROVE = "prove"
    SHOW = "show"
    VERIFY = "verify"
    DISSENT = "dissent"
    CHECK = "check"
    OBJECT = "object"
    ADVANCE = "advance"
    OPEN = "open"
    JUDGE = "judge"
    POST = "post verdicts"
    AVERAGE = "average"
    PROPOSE = "propose"


Table = Mapping[Phase, Mapping[Situation, Do]]


def row(**actions: Do) -> dict[Situation, Do]:
    """One phase; what is not named is waited out, except that whoever finds the phase over advances the round."""
    usual = dict.fromkeys(Situation, Do.WAIT) | {Situation.OVER: Do.ADVANCE}
    return usual | {Situation[name.upper()]: action for name, action in actions.items()}


ENDED: Final = dict.fromkeys(Situation, Do.WAIT)

MEMBER_TABLE: Final[Table] = {
    Phase.NONE: ENDED,
    Phase.COMMIT: row(ready=Do.PREPARE, prepared=Do.COMMIT),
    Phase.TRAIN: row(ready=Do.TRAIN, prepared=Do.SUBMIT),
    Phase.PROVE: row(ready=Do.PROVE, prepared=Do.SHOW),
    Phase.VERIFY: row(ready=Do.VERIFY),
    Phase.PROPOSE: row(dissenting=Do.DISSENT),
    Phase.PROPOSED: row(ready=Do.CHECK, prepared=Do.OBJECT, dissenting=Do.DISSENT),
    Phase.FINAL: ENDED,
    Phase.VOID: ENDED,
}

MEMBER_SITUATIONS: Final = {
    Situation.BYSTANDER: "no seat, a config that this member refuses, no commitment, or expelled for equivocation; in "
    "Prove also: no submission, or none whose gradients this member can prove; in Verify only: no seat, or not the key "
    "that is registered for it",
    Situation.EARLY: "the beacon's block is not yet as deep as `chain.confirmations` asks",
    Situation.READY: "it is this member's turn, and nothing is prepared",
    Situation.PREPARED: "commitment, bundle, proofs or objection are written down, and not on the chain yet",
    Situation.DONE: "this member has acted, or has nothing to object to",
    Situation.DISSENTING: "other verdicts were posted than this member signed, and it has not said so yet",
    Situation.CLOSED: "too late to act, too early to advance",
    Situation.OVER: "the phase is over and it is this member's turn to call `advance`",
}

MEMBER_ACTIONS: Final = {
    Do.PREPARE: "check config, base, data, budget and global bundle; draw and keep the seed of the words",
    Do.COMMIT: "send dataset root and words root",
    Do.TRAIN: "reserve ε durably, then train, then publish the bundle",
    Do.SUBMIT: "sign under the guard, send digest and ε",
    Do.PROVE: "prove the gradients of the slots that the beacon picked, then publish the proofs",
    Do.SHOW: "send the digest of the proofs",
    Do.VERIFY: "re-run every verdict, sign them once, and serve what was signed",
    Do.DISSENT: "say which verdicts this member signed",
    Do.CHECK: "re-run every verdict, recompute the aggregate",
    Do.OBJECT: "send what the aggregate should have been, or zero when the verdicts are wrong",
    Do.ADVANCE: "move the round on, for everybody",
    Do.WAIT: "nothing",
}


@dataclass(frozen=True)
class Mine:
    """What a member knows beyond the chain. member: its number. order: how many blocks to let others advance first.

    refused: this round's config, base, data or budget was refused; in Prove: its gradients cannot be proven. prepared:
    commitment (in Commit), bundle (in Train), proofs (in Prove) or objection (in Proposed) are written down. content:
    checked, and nothing to object to. verifier: holds the key that is registered for its seat. answered: has signed
    verdicts over the round as it stands. dissents: others were posted.
    """

    member: int | None
    order: int
    confirmations: int
    refused: bool = False
    prepared: bool = False
    content: bool = False
    verifier: bool = False
    answered: bool = False
    dissents: bool = False


def member_situation(state: RoundState, head: int, mine: Mine) -> Situation:
    """`head`: number of the latest block; what is sent now is mined in the one after it, at the earliest."""
    if mine.dissents and not state.ended:
        return Situation.DISSENTING
    if is_over(state, head, mine.order):
        return Situation.OVER
    member, now = mine.member, settled(state, head + 1)
    if now.phase is Phase.VERIFY:
        return _verifying(now, head, mine)
    if member is None or mine.refused or state.seat(member) is None or member in state.equivocations:
        return Situation.BYSTANDER
    if now.phase is not Phase.COMMIT and member not in state.commitments:
        return Situation.BYSTANDER
    if now.phase is Phase.PROVE and member not in now.standing:
        return Situation.BYSTANDER
    if _has_acted(now, member) or (now.phase is Phase.PROPOSED and mine.content):
        return Situation.DONE
    if now.close_block or head + 1 > now.deadline_block:
        return Situation.CLOSED
    drawn = now.phase in (Phase.TRAIN, Phase.PROVE)
    if drawn and not mine.prepared and head - _sealed_in(now) < mine.confirmations:
        return Situation.EARLY
    return Situation.PREPARED if mine.prepared else Situation.READY


def _verifying(now: RoundState, head: int, mine: Mine) -> Situation:
    """Every seat with a key verifies, whether it took part otherwise or not."""
    if mine.member is None or now.seat(mine.member) is None or not mine.verifier:
        return Situation.BYSTANDER
    if mine.answered:
        return Situation.DONE
    return Situation.CLOSED if head + 1 > now.deadline_block else Situation.READY


def is_over(state: RoundState, head: int, order: int) -> bool:
    """Would `advance`, sent now, do something, and have those before us had their `order` blocks to do it?"""
    coming = due(state)
    return coming is not None and head + 1 >= coming.earliest_block + order


def phase_now(state: RoundState, head: int) -> Phase:
    """The phase in the block after `head`."""
    return settled(state, head + 1).phase


def _has_acted(state: RoundState, member: int) -> bool:
    acted: Mapping[int, object] = {
        Phase.COMMIT: state.commitments,
        Phase.TRAIN: state.submissions,
        Phase.PROVE: state.proofs,
        Phase.PROPOSED: state.objections,
    }.get(state.phase, state.submissions)
    return member in acted


def _sealed_in(state: RoundState) -> int:
    """Block of the event that drew the phase's beacon."""
    seal = state.train_seal if state.phase is Phase.TRAIN else state.prove_seal
    return next(logged.block_number for logged in state.log if logged.event is seal)


# ---- the picture

README: Final = Path(__file__).parent / "README.md"


def draw(title: str, table: Table, situations: Mapping[Situation, str], actions: Mapping[Do, str]) -> str:
    """Markdown: the table, and below it what its words mean."""
    columns = list(situations)
    lines = [f"| {title} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for phase, actions_of in table.items():
        cells = ["·" if actions_of[column] is Do.WAIT else f"**{actions_of[column]}**" for column in columns]
        name = "no round yet" if phase is Phase.NONE else phase.name.capitalize()
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    meanings = [f"* *{name}*: {text}" for name, text in situations.items()]
    deeds = [f"* **{name}**: {text}" for name, text in actions.items() if name is not Do.WAIT]
    return "\n".join([*lines, "", *meanings, "", *deeds])


def with_pictures(text: str, pictures: Mapping[str, str]) -> str:
    """`text` with what stands between `<!-- NAME -->` and `<!-- end of NAME -->` replaced, for every picture."""
    for name, picture in pictures.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n{picture}\n{end}{after}"
    return text


def pictures() -> dict[str, str]:
    from node.aggregator_table import AGGREGATOR_ACTIONS, AGGREGATOR_SITUATIONS, AGGREGATOR_TABLE

    return {
        "the member's table": draw("member", MEMBER_TABLE, MEMBER_SITUATIONS, MEMBER_ACTIONS),
        "the aggregator's table": draw("aggregator", AGGREGATOR_TABLE, AGGREGATOR_SITUATIONS, AGGREGATOR_ACTIONS),
    }


def main(arguments: list[str]) -> int:
    found = README.read_text(encoding="utf-8")
    wanted = with_pictures(found, pictures())
    if "--check" not in arguments:
        README.write_text(wanted, encoding="utf-8")
        return 0
    return int(found != wanted)


if __name__ == "__main__":
    from node import round_table  # the module that the aggregator's table imports, not its double __main__

    sys.exit(round_table.main(sys.argv[1:]))
