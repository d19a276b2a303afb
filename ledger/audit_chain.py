"""The links of an audit that follow from events and headers alone: no content is read here.

`replay` folds a chain's events through the law, page by page. Where an event breaks a rule the fold stops, and the
break is blamed on the link that the rule defends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from ledger.eip712 import Domain
from ledger.headers import Header
from ledger.history import History
from ledger.opening import Rule, RuleBroken
from ledger.ports import ChainMoved, UnknownBlock
from ledger.records import (
    AggregateProposed,
    Committed,
    Dissented,
    Equivocation,
    Logged,
    Phase,
    RoundEvent,
    RoundOpened,
    RoundView,
    Sealed,
    Submitted,
    VerdictsPosted,
)
from ledger.report import Link, Name, failed, missing, passed, reason_name
from ledger.round_state import RoundState, beacon_block
from ledger.rules import check_beacon_header
from proofs.errors import LocalFault, PeerFault

PAGE_BLOCKS: Final = 2000
MAX_EVENTS: Final = 1 << 20


class Headers(Protocol):
    """Where headers are read."""

    def header(self, number: int) -> Header: ...


class Source(Protocol):
    """What an audit reads of a chain. Every ChainPort has it, and so has an export (ledger.exported)."""

    @property
    def chain_id(self) -> int: ...

    @property
    def rounds_address(self) -> bytes: ...

    def head(self) -> Header: ...

    def header(self, number: int) -> Header: ...

    def events(self, first: int, last: int) -> list[Logged]: ...

    def latest_round(self) -> int: ...

    def round_view(self, number: int) -> RoundView | None:
        """None where there is no contract storage to look at."""
        ...


class StartedLate(LocalFault):
    """The first block to read was given, and it is too late for a history that begins with round 1."""


@dataclass(frozen=True)
class Broken:
    """Where the replay stopped: the round, the link to blame, and the rule with what was expected and found."""

    round: int
    name: Name
    cause: str


@dataclass(frozen=True)
class Replay:
    history: History
    head: Header
    events: int
    broken: Broken | None


_OF_RULE: Final[dict[Rule, Name]] = {
    Rule.GLOBAL_BUNDLE: Name.OPENING,
    Rule.POLICY: Name.OPENING,
    Rule.SEATS: Name.MEMBERS,
    Rule.SEATED: Name.MEMBERS,
    Rule.SPENT: Name.PRIVACY,
    Rule.EPSILON: Name.PRIVACY,
    Rule.SIGNATURE: Name.SUBMISSIONS,
    Rule.SUBMITTED: Name.SUBMISSIONS,
    Rule.NOT_DIFFERENT: Name.SUBMISSIONS,
    Rule.BEACON: Name.BEACONS,
    Rule.VERDICTS: Name.VERDICTS,
    Rule.ACCEPTED: Name.VERDICTS,
    Rule.VERIFIERS: Name.VERDICTS,
    Rule.DISSENT: Name.VERDICTS,
    Rule.TURN: Name.VERDICTS,
    Rule.ROOTS: Name.ROOTS,
    Rule.AGGREGATE: Name.AGGREGATE,
}
_OF_EVENT: Final[dict[type[RoundEvent], Name]] = {
    RoundOpened: Name.OPENING,
    Committed: Name.COMMITMENTS,
    Sealed: Name.BEACONS,
    Submitted: Name.SUBMISSIONS,
    Equivocation: Name.SUBMISSIONS,
    VerdictsPosted: Name.VERDICTS,
    Dissented: Name.VERDICTS,
    AggregateProposed: Name.AGGREGATE,
}
_OF_HISTORY: Final = (Rule.ORDER, Rule.ROUND_NUMBER, Rule.ROUND_STILL_OPEN, Rule.TRANSCRIPT, Rule.OWED)


def replay(source: Source, first_block: int) -> Replay:
    """All events from `first_block` to the head. Raises WireFault, StartedLate; a peer's fault is put in `broken`."""
    head = source.head()
    history = History(Domain(source.chain_id, source.rounds_address))
    seen, start = 0, first_block
    while start <= head.number:
        last = min(start + PAGE_BLOCKS - 1, head.number)
        try:
            page = source.events(start, last)
        except PeerFault as error:
            return Replay(history, head, seen, Broken(history.latest, Name.HISTORY, str(error)))
        for logged in page:
            history, broken = _after(history, logged)
            if broken is not None and seen == 0 and first_block > 0:
                raise StartedLate(f"block {first_block} is after the first opening: start earlier ({broken.cause})")
            if broken is not None or seen >= MAX_EVENTS:
                return Replay(history, head, seen, broken or _too_many(history))
            seen += 1
        start = last + 1
    return Replay(history, head, seen, None)


def _after(history: History, logged: Logged) -> tuple[History, Broken | None]:
    try:
        return history.after(logged), None
    except RuleBroken as error:
        return history, Broken(logged.event.round, blame(error.rule, logged.event), str(error))
    except PeerFault as error:
        return history, Broken(logged.event.round, Name.HISTORY, str(error))


def _too_many(history: History) -> Broken:
    return Broken(history.latest, Name.HISTORY, f"more than {MAX_EVENTS} events")


def blame(rule: Rule, event: RoundEvent) -> Name:
    """The link that a rule defends; for rules of time and order, the link that the event belongs to."""
    if rule in _OF_HISTORY:
        return Name.HISTORY
    return _OF_RULE.get(rule) or _OF_EVENT.get(type(event), Name.FINALITY)


def check_unmoved(source: Headers, head: Header) -> None:
    """Everything was read of one chain. Raises ChainMoved."""
    now = source.header(head.number)
    if now.hash != head.hash:
        raise ChainMoved(f"block {head.number} was {head.hash.hex()}, now it is {now.hash.hex()}")


def history_link(source: Source, found: Replay) -> Link:
    """Replayed to the end, and the contract's own transcripts agree."""
    history, broken = found.history, found.broken
    data = {"events": found.events, "rounds": history.latest, "head": found.head.number}
    if broken is not None:
        where = "" if broken.name is Name.HISTORY else f"; see round {broken.round}, {broken.name.value}"
        return failed(Name.HISTORY, f"the replay stopped in round {broken.round}: {broken.cause}{where}", **data)
    latest = source.latest_round()
    if latest != history.latest:
        return failed(Name.HISTORY, f"the contract has {latest} rounds, the events show {history.latest}", **data)
    for state in history.rounds.values():
        problem = _cut(source, state)
        if problem:
            return failed(Name.HISTORY, problem, **data)
    told = f"{found.events} events of {history.latest} rounds obey the law, each transcript unbroken"
    return passed(Name.HISTORY, f"{told}{_stored(source, history)}", **data)


def _cut(source: Source, state: RoundState) -> str:
    """What is wrong with the end of a round's events, or nothing."""
    if state.owed is not None and not state.ended:
        return f"round {state.number}: {state.owed.name} must follow its last event at once, and does not"
    view = source.round_view(state.number)
    if view is None:
        return "" if state.ended else f"round {state.number}: the file ends before the round does"
    if view.transcript != state.transcript:
        expected, shown = view.transcript.hex(), state.transcript.hex()
        return f"round {state.number}: the contract's transcript is {expected}, that of the events {shown}"
    return ""


def _stored(source: Source, history: History) -> str:
    if not history.rounds:
        return ""
    if source.round_view(history.latest) is None:
        return " to the end of its round, and each proven by its receipt; contract storage is not in the file"
    return " and equal to the one in contract storage"


def members_link(_: Source, state: RoundState) -> Link:
    seats = [
        {
            "member": seat.member,
            "owner": "0x" + seat.owner.hex(),
            "signer": "0x" + seat.signer.hex(),
            "verifier": seat.verifier.hex() if seat.member in state.verifiers else None,
            "cap_micro": seat.cap_micro,
            "spent_micro": seat.spent_micro,
        }
        for seat in state.seats
    ]
    text = f"{len(seats)} seats, each with keys of its own and the ε that it declared last"
    if len(state.verifiers) < len(seats):
        text += f"; {len(seats) - len(state.verifiers)} without a key to verify with"
    return passed(Name.MEMBERS, text, seats=seats)


def commitments_link(_: Source, state: RoundState) -> Link:
    """The law has checked the deadline; the beacon's block is after it by construction."""
    made = {
        str(member): {"dataset_root": c.dataset_root.hex(), "words_root": c.words_root.hex()}
        for member, c in sorted(state.commitments.items())
    }
    last = max((at.block_number for at in state.log if isinstance(at.event, Committed)), default=None)
    text = f"{len(made)} of {len(state.seats)} members committed"
    if last is not None and state.train_seal is not None:
        text += f", the last in block {last}; the beacon is of block {beacon_block(state.train_seal.close_block)}"
    return passed(Name.COMMITMENTS, text, commitments=made)


def beacons_link(source: Source, state: RoundState) -> Link:
    """Each beacon is of the mixHash in the header of its block, the second after the close."""
    told, data = [], {}
    for what, seal in (("train", state.train_seal), ("prove", state.prove_seal)):
        if seal is None:
            continue
        drawn_from = beacon_block(seal.close_block)
        try:
            check_beacon_header(seal, source.header(drawn_from))
        except PeerFault as error:
            return failed(Name.BEACONS, f"{what}: {error}")
        except UnknownBlock as error:
            return missing(Name.BEACONS, f"{what}: {error}")
        told.append(f"{what} from block {drawn_from}")
        data[what] = seal.beacon.hex()
    return passed(Name.BEACONS, "; ".join(told) or "no phase has closed yet", **data)


def submissions_link(_: Source, state: RoundState) -> Link:
    """Signature, membership, time and cap were checked by the law."""
    sent = {
        str(member): {"bundle": event.bundle.hex(), "spent_micro": event.spent_micro, "block": _block_of(state, event)}
        for member, event in sorted(state.submissions.items())
    }
    doubled = sorted(state.equivocations)
    text = f"{len(sent)} submissions, each signed by its seat's key for this round, chain and contract"
    if doubled:
        text += f"; members {doubled} signed a second, different one"
    return passed(Name.SUBMISSIONS, text, submissions=sent, equivocated=doubled)


def _block_of(state: RoundState, event: RoundEvent) -> int:
    return next(logged.block_number for logged in state.log if logged.event is event)


def roots_link(_: Source, state: RoundState) -> Link:
    if state.proposal is None:
        return passed(Name.ROOTS, "nothing was proposed, so there are no roots")
    accepted, reasons = state.accepted, state.reasons
    left_out = [member for member, reason in sorted(reasons.items()) if reason]
    excluded = {str(member): reason_name(reasons[member]) for member in left_out}
    text = f"included {list(accepted)}, excluded {left_out}: both roots are re-derived"
    roots = {"included_root": state.proposal.included_root.hex(), "excluded_root": state.proposal.excluded_root.hex()}
    return passed(Name.ROOTS, text, included=list(accepted), excluded=excluded, **roots)


def finality_link(_: Source, state: RoundState) -> Link:
    objections = {str(member): event.expected_bundle.hex() for member, event in sorted(state.objections.items())}
    if state.voided is not None:
        text = f"void in block {state.log[-1].block_number}: {state.voided.reason.name}, which is the reason that holds"
        return passed(Name.FINALITY, text, objections=objections)
    if state.finalised is None:
        return passed(Name.FINALITY, f"the round is open, in {state.phase.name}", objections=objections)
    proposed = next(at.block_number for at in state.log if isinstance(at.event, AggregateProposed))
    text = (
        f"proposed in block {proposed}, final in block {state.log[-1].block_number}, after a window of "
        f"{state.policy.challenge_blocks} blocks and {len(objections)} objections among {len(state.commitments)}"
    )
    return passed(Name.FINALITY, text, objections=objections)


def outcome(state: RoundState) -> str:
    if state.voided is not None:
        return f"void: {state.voided.reason.name}"
    return "final" if state.phase is Phase.FINAL else f"open: {state.phase.name}"


CHAIN_LINKS: Final[dict[Name, Callable[[Source, RoundState], Link]]] = {
    Name.MEMBERS: members_link,
    Name.COMMITMENTS: commitments_link,
    Name.BEACONS: beacons_link,
    Name.SUBMISSIONS: submissions_link,
    Name.ROOTS: roots_link,
    Name.FINALITY: finality_link,
}
