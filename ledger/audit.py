"""The audit: from a chain and a content store to a report, with no knowledge of screens and no trust in anybody.

    replay      every event through the law (ledger.audit_chain), blamed on a link where it breaks
    per round   config, opening, privacy, verdicts and aggregate re-run from the bundles (ledger.audit_round)

Whatever others wrote, wrongly or with intent, ends up in the report. Raised are only WireFault (the chain cannot be
read: try again) and LocalFault (this machine, or the caller). Content that cannot be fetched is in the report too, as
NOT PROVEN with `missing` set. Memory: the events of the history, and of one round its config, the global weights, one
submission and the weights of the accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from ledger.audit_blocks import WALK, Walk, headers_link
from ledger.audit_chain import (
    CHAIN_LINKS,
    Replay,
    Source,
    check_unmoved,
    history_link,
    outcome,
    replay,
)
from ledger.audit_code import code_link
from ledger.audit_findings import Finding
from ledger.audit_library import Library, Unsettled
from ledger.audit_open import Contents
from ledger.audit_parents import parents_links
from ledger.audit_round import RoundAudit
from ledger.gradients import GradientVerifier
from ledger.history import History
from ledger.report import (
    OF_ROUND,
    Anchor,
    Link,
    Name,
    Report,
    RoundReport,
    Status,
    failed,
    missing,
)
from proofs.errors import LocalFault, PeerFault, WireFault

RETRIES: Final = 3


class NoSuchRound(LocalFault):
    """The history has no such round, or no such member in it."""


@dataclass(frozen=True)
class Why:
    """Why a member is in or out of a round: what was said, and what the rules give when they are run again here."""

    round: int
    outcome: str
    finding: Finding

    def to_json(self) -> dict[str, Any]:
        return {"kind": "candor/why/1", "round": self.round, "outcome": self.outcome, **self.finding.to_json()}


def audit(
    source: Source,
    contents: Contents,
    *,
    rounds: set[int] | None = None,
    first_block: int = 0,
    gradients: GradientVerifier | None = None,
    walk: Walk = WALK,
) -> Report:
    """Audit the whole history on the chain, and the content of `rounds` (None: of all). gradients: who verifies proofs
    of gradients; without it they are NOT PROVEN."""
    _check_asked(source, rounds)
    return audit_chosen(source, contents, lambda _: rounds, first_block=first_block, gradients=gradients, walk=walk)[0]


def audit_chosen(
    source: Source,
    contents: Contents,
    choose: Callable[[History], set[int] | None],
    *,
    first_block: int = 0,
    gradients: GradientVerifier | None = None,
    walk: Walk = WALK,
) -> tuple[Report, History]:
    """The same of rounds that are chosen by the very history that is audited; and that history."""
    found, told = _settled(source, first_block)
    history = (
        told,
        headers_link(source, found, walk, first_block),
        code_link(source, found.history.domain, found.head),
    )
    reports = tuple(_reports(source, Library(contents), found, choose(found.history), gradients))
    check_unmoved(source, found.head)
    anchor = Anchor(source.chain_id, source.rounds_address, found.head.number, found.head.hash)
    return Report(anchor, history, reports), found.history


def why(
    source: Source,
    contents: Contents,
    *,
    round_number: int,
    member: int,
    first_block: int = 0,
    gradients: GradientVerifier | None = None,
) -> Why:
    """Re-run one verdict. Raises NoSuchRound, or WireFault when config, global bundle or history cannot be read."""
    found = replay(source, first_block)
    state = found.history.rounds.get(round_number)
    if state is None or state.seat(member) is None:
        raise NoSuchRound(f"member {member} has no seat in round {round_number}: the latest is {found.history.latest}")
    try:
        finding = RoundAudit(Library(contents), found.history, state, gradients).finding(member)
    except Unsettled as unsettled:
        raise (CannotRerun if unsettled.peer else ContentNeeded)(unsettled.cause) from unsettled
    return Why(round_number, outcome(state), finding)


class CannotRerun(PeerFault):
    """A verdict cannot be re-run because what it rests on breaks a rule."""


class ContentNeeded(WireFault):
    """A verdict cannot be re-run because what it rests on could not be fetched."""


def _settled(source: Source, first_block: int) -> tuple[Replay, Link]:
    """Replay until the contract's storage, which is read after the events, has not moved on in between."""
    for _ in range(RETRIES):
        found = replay(source, first_block)
        link = history_link(source, found)
        if link.status is Status.PASS or source.head().number == found.head.number:
            break
    return found, link


def _check_asked(source: Source, rounds: set[int] | None) -> None:
    latest = source.latest_round()
    unknown = sorted(number for number in rounds or () if not 0 < number <= latest)
    if unknown:
        raise NoSuchRound(f"there is no round {unknown[0]}: the latest is {latest}")


def _reports(
    source: Source, library: Library, found: Replay, rounds: set[int] | None, gradients: GradientVerifier | None
) -> Iterator[RoundReport]:
    """The rounds asked for, and in any case the link of the round in which the replay broke."""
    broken, told = found.broken, set()
    by_number: dict[int, RoundReport] = {}

    def report(number: int) -> RoundReport:
        """Each once; a mixture asks for the rounds of its parents, which come before it."""
        if number not in by_number:
            state = found.history.rounds[number]
            audited = RoundAudit(library, found.history, state, gradients)
            links = (*_links(source, audited), *parents_links(audited, report))
            by_number[number] = RoundReport(number, outcome(state), _blamed(found, number, links))
        return by_number[number]

    for number in found.history.rounds:
        if rounds is None or number in rounds:
            told.add(number)
            yield report(number)
    if broken is not None and broken.round not in told and broken.name is not Name.HISTORY:
        state_there = found.history.rounds.get(broken.round)
        how = outcome(state_there) if state_there else "not opened by the rules"
        yield RoundReport(broken.round, how, (failed(broken.name, broken.cause),))


def _links(source: Source, audited: RoundAudit) -> Iterator[Link]:
    """The links of one round in the order of the story; verdicts before the aggregate, which needs their bundles."""
    content = {
        Name.OPENING: audited.opening_link,
        Name.CONFIG: audited.config_link,
        Name.PRIVACY: audited.privacy_link,
        Name.MECHANISM: audited.mechanism_link,
        Name.GRADIENT: audited.gradient_link,
        Name.VERDICTS: audited.verdicts_link,
        Name.AGGREGATE: audited.aggregate_link,
    }
    for name in OF_ROUND:
        try:
            yield content[name]() if name in content else CHAIN_LINKS[name](source, audited.state)
        except PeerFault as error:
            yield failed(name, f"{type(error).__name__}: {error}")
        except Unsettled as unsettled:
            yield missing(name, unsettled.cause)


def _blamed(found: Replay, number: int, links: tuple[Link, ...]) -> tuple[Link, ...]:
    """Where the replay broke in this round, the link that the broken rule defends fails with it."""
    broken = found.broken
    if broken is None or broken.round != number or broken.name is Name.HISTORY:
        return links
    return tuple(failed(link.name, broken.cause, **link.data) if link.name is broken.name else link for link in links)
