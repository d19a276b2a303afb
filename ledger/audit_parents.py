"""The family tree of a mixture: each parent's round, audited, and the worst link among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ledger.audit_library import Unsettled
from ledger.audit_round import RoundAudit
from ledger.parents import ParentRefused, check_parent, final_round
from ledger.report import Link, Name, RoundReport, Status, failed, missing, not_proven, passed


def parents_links(audited: RoundAudit, report: Callable[[int], RoundReport]) -> Iterator[Link]:
    """One link for a mixture, none for another round. report: of an earlier round, with all its links."""
    try:
        config = audited.config
    except Unsettled:
        return  # the link of the config says it
    if config.adapter.parents:
        yield _worst([_parent_link(audited, bundle, report) for bundle in config.adapter.parents])


def _parent_link(audited: RoundAudit, bundle: bytes, report: Callable[[int], RoundReport]) -> Link:
    state = final_round(audited.history, bundle)
    if state is None:
        text = f"{bundle.hex()} was made final by no round of this contract: of another one nothing is shown here"
        return missing(Name.PARENTS, text)
    if state.number >= audited.state.number:
        return failed(Name.PARENTS, f"{bundle.hex()} is of round {state.number}, which this round came before")
    try:
        check_parent(audited.config, audited.library.config(state.opened.config_digest), state.number)
    except ParentRefused as error:
        return failed(Name.PARENTS, str(error))
    except Unsettled as unsettled:
        return unsettled.link(Name.PARENTS)
    worst = min(report(state.number).links, key=_rank)
    if worst.status is Status.PASS:
        return passed(Name.PARENTS, f"{bundle.hex()} is the aggregate of round {state.number}, all of whose links PASS")
    text = f"{bundle.hex()} is the aggregate of round {state.number}, whose {worst.name} is {worst.status}"
    if worst.status is Status.FAIL:
        return failed(Name.PARENTS, f"{text}: {worst.evidence}")
    return (missing if worst.missing else not_proven)(Name.PARENTS, f"{text}: {worst.evidence}")


def _worst(links: list[Link]) -> Link:
    """The worst of them, and the others' evidence beside it."""
    worst = min(links, key=_rank)
    others = [link.evidence for link in links if link is not worst]
    return Link(worst.name, worst.status, "; ".join([worst.evidence, *others]), missing=worst.missing)


def _rank(link: Link) -> int:
    """FAIL before what could not be read before NOT PROVEN before PASS."""
    if link.status is Status.NOT_PROVEN:
        return 1 if link.missing else 2
    return 0 if link.status is Status.FAIL else 3
