"""The life of a round, seen by an aggregator: (phase, my situation) → what to do. A table, and no I/O at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ledger.history import History
from ledger.records import Phase
from ledger.round_state import RoundState, settled, turn_begins
from node.round_table import ENDED, Do, Situation, Table, is_over, row

IDLE: Final = ENDED | {Situation.READY: Do.OPEN}

AGGREGATOR_TABLE: Final[Table] = {
    Phase.NONE: IDLE,
    Phase.COMMIT: row(),
    Phase.TRAIN: row(),
    Phase.PROVE: row(),
    Phase.VERIFY: row(ready=Do.JUDGE, prepared=Do.POST),
    Phase.PROPOSE: row(ready=Do.AVERAGE, prepared=Do.PROPOSE),
    Phase.PROPOSED: row(),
    Phase.FINAL: IDLE,
    Phase.VOID: IDLE,
}

AGGREGATOR_SITUATIONS: Final = {
    Situation.BYSTANDER: "no aggregator of this round, or no more rounds to open",
    Situation.EARLY: "another one is on duty, and the middle of the phase is not reached",
    Situation.READY: "it is this aggregator's turn, and nothing is prepared",
    Situation.PREPARED: "verdicts or aggregate are written down, and not on the chain yet",
    Situation.CLOSED: "too late to act, too early to advance",
    Situation.OVER: "the phase is over and it is this aggregator's turn to call `advance`",
}

AGGREGATOR_ACTIONS: Final = {
    Do.OPEN: "coordinator: open the next round with the configured config",
    Do.JUDGE: "fetch every submission, judge each, write the verdicts down",
    Do.POST: "send the verdicts",
    Do.AVERAGE: "average what was accepted, publish the bundle",
    Do.PROPOSE: "send its digest and both roots",
    Do.ADVANCE: "move the round on, for everybody",
    Do.WAIT: "nothing",
}


@dataclass(frozen=True)
class Duty:
    """What an aggregator knows beyond the round. aggregators: those in force, in the order of failover.

    prepared: verdicts (in Verify) or aggregate (in Propose) are written down.
    """

    address: bytes
    aggregators: Sequence[bytes]
    prepared: bool = False

    def order(self, number: int) -> int:
        """Blocks to let others advance first: 0 on duty, then by rank after it; members come after all of them."""
        if self.address not in self.aggregators:
            return len(self.aggregators)
        rank, count = list(self.aggregators).index(self.address), len(self.aggregators)
        return (rank - number) % count


def aggregator_situation(state: RoundState, head: int, duty: Duty) -> Situation:
    """In a round that has not ended. `head`: number of the latest block; we act in the one after it."""
    if is_over(state, head, duty.order(state.number)):
        return Situation.OVER
    now = settled(state, head + 1)
    begins = turn_begins(now, duty.aggregators, duty.address)
    if begins is None or now.phase not in (Phase.VERIFY, Phase.PROPOSE):
        return Situation.BYSTANDER
    if head + 1 > now.deadline_block:
        return Situation.CLOSED
    if head + 1 < begins:
        return Situation.EARLY
    return Situation.PREPARED if duty.prepared else Situation.READY


def opening_situation(history: History, *, rounds: int, voids: int) -> Situation:
    """Between rounds: READY while fewer than `rounds` are Final and fewer than `voids` in a row were void."""
    states = [history.rounds[number] for number in range(1, history.latest + 1)]
    final = sum(state.phase is Phase.FINAL for state in states)
    in_a_row = 0
    for state in states:
        in_a_row = in_a_row + 1 if state.phase is Phase.VOID else 0
    return Situation.READY if final < rounds and in_a_row < voids else Situation.BYSTANDER


def patience_ends(state: RoundState, head: int, duty: Duty) -> bool:
    """May a bundle that nobody has be called UNAVAILABLE now? On duty: just before the others' turn; they: later."""
    now = settled(state, head + 1)
    blocks = now.policy.verify_blocks
    on_duty = turn_begins(now, duty.aggregators, duty.address) == 0
    return head + 1 >= now.deadline_block - (blocks // 2 + 1 if on_duty else blocks // 4)
