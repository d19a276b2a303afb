"""A member's part in a round: what each action of the table (node.round_table) does.

Its submission is node.submitting's, what it shows in Prove node.showing's, each with its order of writes; what it finds
of a proposal is durable before it objects. Killed between any two writes, the member reads its memory and the chain,
finds its situation in the table, and does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from ledger.actions import Advance, Object
from ledger.crash import Point
from ledger.gradients import GradientsUnjudged
from ledger.history import History
from ledger.ports import ChainPort
from ledger.records import Phase, Seat
from ledger.round_state import RoundState, due
from node.acceptance import RoundRefused
from node.checking import challenge_is_half_over, check_proposal
from node.conduct import HonestMember
from node.memory import Checked
from node.recompute import Configs, Recount, round_key
from node.round_table import MEMBER_TABLE, Do, Mine, member_situation, phase_now
from node.sender import Sender
from node.showing import Showing
from node.submitting import MemberParts as MemberParts
from node.submitting import Submitting
from node.verifying import Verifier
from proofs.errors import PeerFault

PREPARATIONS: Final = (Do.PREPARE, Do.TRAIN, Do.PROVE, Do.CHECK)
ASK_MEMBERS_BLOCKS: Final = 16


class Member:
    """`act` looks at the latest round and does what the table says. `on_step` is called in training, and may raise."""

    def __init__(
        self, parts: MemberParts, conduct: HonestMember | None = None, on_step: Callable[[], None] = lambda: None
    ) -> None:
        self._parts, self._conduct, self._on_step = parts, conduct or HonestMember(), on_step
        self._configs = Configs(parts.store)
        self._refused: dict[int, str] = {}
        self._silent: set[int] = set()  # rounds that this verifier cannot judge
        self._unshown: dict[int, str] = {}  # rounds whose picked slots this member does not prove, and why
        self._told: dict[int, Phase] = {}
        self._order = (0, 0)  # round, number of its aggregators
        self._verifier = Verifier(
            parts.key.verifier,
            parts.guard,
            parts.board,
            parts.sender,
            parts.watch,
            parts.log,
            parts.judges,
            self._pulse,
            judged={},
        )
        self._showing = Showing(
            parts.gradients, parts.kept, parts.memory, parts.store, parts.sender, parts.watch, parts.log
        )
        self._submitting = Submitting(parts, self._conduct, self._showing, on_step)
        self._asked = (-1, -1)  # when the registered verifier key was looked at
        self._do: Mapping[Do, Callable[[Recount, Seat, int], None]] = {
            Do.PREPARE: self._submitting.prepare,
            Do.COMMIT: self._submitting.commit,
            Do.TRAIN: self._submitting.train,
            Do.SUBMIT: self._submitting.submit,
            Do.PROVE: self._prove,
            Do.SHOW: lambda recount, seat, head: self._showing.send(recount.state),
            Do.VERIFY: self._verify,
            Do.DISSENT: lambda recount, seat, head: self._verifier.dissent(recount.state),
            Do.CHECK: self._check,
            Do.OBJECT: self._object,
        }

    def act(self, history: History, head: int) -> None:
        """Raises WireFault or LocalFault; what was begun is taken up again by the next call."""
        state = history.rounds.get(history.latest)
        if self._asked != (history.latest, head // ASK_MEMBERS_BLOCKS):
            self._verifier.register(self._parts.chain, self._parts.key.address)
            self._asked = history.latest, head // ASK_MEMBERS_BLOCKS
        if state is None:
            self._parts.watch.at(head, 0, Phase.NONE)
            return
        self._tell(state, head)
        recount = Recount(self._configs, self._parts.store, history, state, self._parts.gradients)
        for _ in range(2):  # what was prepared is sent in the same turn
            action = self._step(recount, head)
            if action not in PREPARATIONS:
                return

    def _step(self, recount: Recount, head: int) -> Do:
        state = recount.state
        seat = state.seat_of_signer(self._parts.key.address)
        situation = member_situation(state, head, self._mine(state, seat))
        action = MEMBER_TABLE[phase_now(state, head)][situation]
        refused = self._refused.get(state.number) or self._unshown.get(state.number)
        self._parts.watch.set(situation=situation.value, refused=refused)
        if action is Do.ADVANCE:
            advance(self._parts.chain, self._parts.sender, state)
        elif action is not Do.WAIT and seat is not None:
            try:
                self._do[action](recount, seat, head)
            except RoundRefused as refused:
                self._refuse(state, str(refused), action)
        return action

    def _mine(self, state: RoundState, seat: Seat | None) -> Mine:
        memory, key = self._parts.memory, round_key(state)
        checked = memory.checked(key, state.proposal.aggregate_bundle) if state.proposal else None
        prepared = {
            Phase.COMMIT: memory.commitment(key) is not None,
            Phase.TRAIN: memory.made(key) is not None,
            Phase.PROVE: self._showing.is_there(state),
            Phase.PROPOSED: checked is not None and checked.expected is not None,
        }
        unshown = state.phase is Phase.PROVE and state.number in self._unshown
        position = len(state.seats) if seat is None else state.seats.index(seat)
        return Mine(
            member=seat.member if seat else None,
            order=max(1, self._aggregators(state)) + position,
            confirmations=self._parts.confirmations,
            refused=state.number in self._refused or unshown,
            prepared=prepared.get(state.phase, False),
            content=checked is not None and checked.expected is None,
            verifier=self._verifier.is_of(seat) and state.number not in self._silent,
            answered=self._verifier.has_answered(state),
            dissents=seat is not None and self._verifier.dissents(state, seat.member),
        )

    def _aggregators(self, state: RoundState) -> int:
        """How many there are: all of them come before us when a round is to be advanced."""
        if self._order[0] != state.number:
            self._order = state.number, len(self._parts.chain.aggregators())
        return self._order[1]

    # ---- Prove

    def _prove(self, recount: Recount, seat: Seat, head: int) -> None:
        secrets = self._submitting.secrets(recount, seat)
        tell = self._submitting.on_stages_of(recount.state)
        self._showing.prove(recount, seat, secrets, self._conduct, tell)

    # ---- Verify

    def _pulse(self) -> None:
        """After each verdict: we are alive, and may be asked to stop."""
        self._parts.watch.alive()
        self._on_step()

    def _verify(self, recount: Recount, seat: Seat, head: int) -> None:
        try:
            self._verifier.verify(recount, seat, head, self._conduct)
        except GradientsUnjudged as error:
            raise RoundRefused(f"nobody can be judged here: {error}") from error
        except PeerFault as error:
            raise RoundRefused(f"config or global bundle: {error}") from error

    # ---- Proposed

    def _check(self, recount: Recount, seat: Seat, head: int) -> None:
        """Recompute, and write the result down before acting on it."""
        state = recount.state
        patient = not challenge_is_half_over(state, head)
        try:
            found = check_proposal(recount, patient=patient, verdict=self._verifier.verdict)
        except GradientsUnjudged as error:
            raise RoundRefused(f"the proposal cannot be checked here: {error}") from error
        if found is None or state.proposal is None:
            self._parts.watch.fetch_failed()
            return
        wanted = self._conduct.objects(state, found.expected)
        checked = Checked(wanted, found.why)
        self._parts.memory.remember_checked(round_key(state), state.proposal.aggregate_bundle, checked)
        tell = self._parts.log.info if found.expected is None else self._parts.log.error
        tell("checked", round=state.number, agrees=found.expected is None, why=found.why)

    def _object(self, recount: Recount, seat: Seat, head: int) -> None:
        state = recount.state
        proposal = state.proposal
        checked = self._parts.memory.checked(round_key(state), proposal.aggregate_bundle) if proposal else None
        if checked is not None and checked.expected is not None:
            action = Object(state.number, checked.expected)
            name = f"round-{state.number}/object/{checked.expected.hex()[:8]}"
            self._parts.sender.ensure(name, action, Point.NODE_OBJECT_INTENT)

    # ---- what is told

    def _refuse(self, state: RoundState, why: str, action: Do) -> None:
        """Not durable: an operator who repairs the cause and restarts may still be in time. Who proves no gradients is
        left out, and checks the round all the same."""
        if action is Do.VERIFY:
            self._silent.add(state.number)
        if action in (Do.PROVE, Do.SHOW):
            self._unshown[state.number] = why
            self._parts.watch.proving(None)
        else:
            self._refused[state.number] = why
        self._parts.watch.set(refused=why)
        self._parts.log.error("round refused", round=state.number, why=why)

    def _tell(self, state: RoundState, head: int) -> None:
        phase = phase_now(state, head)
        self._parts.watch.at(head, state.number, phase)
        if self._told.get(state.number) is phase:
            return
        self._told = {state.number: phase}
        self._parts.kept.drop_others(None if state.ended else round_key(state))
        self._parts.log.info("phase", round=state.number, phase=phase.name, head=head)
        if phase in (Phase.FINAL, Phase.VOID):
            reason = state.voided.reason.name if state.voided else None
            self._parts.watch.ended(reason or "FINAL")
            self._parts.log.info("ended", round=state.number, outcome=reason or "FINAL", accepted=list(state.accepted))


def advance(chain: ChainPort, sender: Sender, state: RoundState) -> None:
    """Call `advance`, for members and aggregators alike. That somebody else was faster is no error."""
    coming = due(state)
    if coming is None:
        return
    header = b"" if coming.header_block is None else chain.header(coming.header_block).rlp
    mark = "" if coming.header_block is None else "/" + chain.header(coming.header_block).hash.hex()[:8]
    name = f"round-{state.number}/advance-{state.phase.name.lower()}-{coming.step}{mark}"
    sender.ensure(name, Advance(state.number, header), Point.ADVANCE_INTENT, repeat=True)
