"""From one answer back to the base model: every link of the chain of custody, re-derived by the audit that owns it.

    answer → receipt → log → checkpoint → model → round N … round 1 → genesis → base

What belongs to the receipt comes from ledger.log.inclusion, what belongs to rounds from ledger.audit; here they are
only joined: the model that answered must be the aggregate that a round made final.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from ledger.audit import audit_chosen
from ledger.audit_blocks import MAX_WALK_BLOCKS, WALK, Walk
from ledger.audit_chain import Headers, Source
from ledger.audit_open import Contents
from ledger.base_files import base_digest
from ledger.gradients import GradientVerifier
from ledger.history import History
from ledger.log.follower import LogSource
from ledger.log.inclusion import verify_receipt
from ledger.log.kept import Kept
from ledger.log.reader import LogReader
from ledger.parents import final_round
from ledger.ports import ChainMoved
from ledger.report import Anchor, Link, Name, Report, RoundReport, Status, failed, missing, not_proven, overall, passed

OF_ANSWER: Final = ((Name.TEXTS, "answer"), (Name.RECEIPT, "receipt"), (Name.INCLUSION, "log"), (Name.DEADLINE, "log"))
OF_CHAIN: Final = (Name.LOG, Name.HEADERS, Name.CONTRACT)
BEARING: Final = (Name.HISTORY, Name.HEADERS)
PROOFS: Final = (Name.MECHANISM, Name.GRADIENT)
NOT_REPLAYED: Final = (
    "that the model gives this answer is not shown here: an auditor with a key runs it again (inference replay), or "
    "the server proves it (inference prove)"
)


class TraceSource(Source, LogSource, Protocol):
    """A chain on which both rounds and logs are read."""


@dataclass(frozen=True)
class Step:
    """One line of the page. links: those that it sums up."""

    stage: str
    links: tuple[Link, ...]
    text: str

    @property
    def status(self) -> Status:
        """FAIL before NOT PROVEN before PASS: on this page whatever is not proven shows."""
        found = {link.status for link in self.links}
        return next(status for status in (Status.FAIL, Status.NOT_PROVEN, Status.PASS) if status in found)

    def to_json(self) -> dict[str, Any]:
        links = [link.to_json() for link in self.links]
        return {"stage": self.stage, "status": self.status.value, "text": self.text, "links": links}


@dataclass(frozen=True)
class Trace:
    anchor: Anchor
    steps: tuple[Step, ...]

    @property
    def status(self) -> Status:
        return overall(link for step in self.steps for link in step.links)

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": "candor/trace/1",
            "status": self.status.value,
            "anchor": self.anchor.to_json(),
            "steps": [step.to_json() for step in self.steps],
        }


def trace(
    source: TraceSource,
    contents: Contents,
    kept: Kept,
    reader: LogReader | None,
    *,
    first_block: int = 0,
    gradients: GradientVerifier | None = None,
    base: Path | None = None,
    walk: Walk = WALK,
) -> Trace:
    """base: folder of the base model, if it is at hand. Raises WireFault for a chain that cannot be read, ChainMoved
    where log and rounds were shown on different ones."""
    verified = verify_receipt(source, kept, reader, first_block=first_block, walk=walk)
    told = verified.report.links
    steps = [_single(stage, link) for name, stage in OF_ANSWER for link in told if link.name is name]
    steps += [_single("checkpoint", link) for link in told if link.name in OF_CHAIN]
    bundle = kept.receipt.entry.bundle
    report, history = audit_chosen(
        source,
        contents,
        lambda seen: _up_to(round_of(seen, bundle)),
        first_block=first_block,
        gradients=gradients,
        walk=walk,
    )
    check_continues(source, verified.report.anchor, report.anchor)
    number = round_of(history, bundle)
    steps.append(_single("model", not_proven(Name.REPLAY, NOT_REPLAYED)))
    steps.append(_single("model", origin_link(history, bundle, number, report.history)))
    steps += [_single("rounds", link) for link in report.history]
    steps += [round_step(told_round) for told_round in reversed(report.rounds)]
    steps += _beginning(report, base)
    return Trace(verified.report.anchor, tuple(steps))


def check_continues(source: Headers, before: Anchor, after: Anchor | None) -> None:
    """The later block follows on the earlier one, header by header. Raises ChainMoved."""
    number, last = before.block_number, before.block_hash
    if after is None:
        raise ChainMoved("the rounds were read of no chain")
    if not number <= after.block_number < number + MAX_WALK_BLOCKS:
        raise ChainMoved(f"the log was read up to block {number}, the rounds up to {after.block_number}")
    while number < after.block_number:
        number += 1
        header = source.header(number)
        if header.number != number or header.parent_hash != last:
            raise ChainMoved(f"block {number} does not follow on block {number - 1} as it was shown with the log")
        last = header.hash
    if last != after.block_hash:
        raise ChainMoved(f"block {number} was shown twice, and not as the same")


def _up_to(number: int | None) -> set[int]:
    return set(range(1, (number or 0) + 1))


def round_of(history: History, bundle: bytes) -> int | None:
    """The round that made this bundle final; 0 for the genesis of the first opening; None if nothing did."""
    state = final_round(history, bundle)
    if state is not None:
        return state.number
    first = history.rounds.get(1)
    return 0 if first is not None and first.opened.global_bundle == bundle else None


@dataclass(frozen=True)
class Origin:
    """Whose model a bundle is, by an audited history. number: of the round that made it final, see `round_of`.
    links: model, and what it rests on: history, headers and contract of Rounds."""

    history: History
    number: int | None
    links: tuple[Link, ...]


def audit_origin(
    source: TraceSource, contents: Contents, bundle: bytes, log: Anchor, *, first_block: int = 0, walk: Walk = WALK
) -> Origin:
    """As `candor-audit verify` establishes a round's end, and on the chain of `log`, where the log was read. What is in
    the rounds is not looked at. Raises WireFault for a chain that cannot be read, ChainMoved."""
    audited, history = audit_chosen(source, contents, lambda _: set(), first_block=first_block, walk=walk)
    check_continues(source, log, audited.anchor)
    number = round_of(history, bundle)
    return Origin(history, number, (origin_link(history, bundle, number, audited.history), *audited.history))


def origin_link(history: History, bundle: bytes, number: int | None, grounds: Iterable[Link]) -> Link:
    """grounds: the links of the history. Where headers do not bear it out, the end of a round is the node's word."""
    if number is None:
        text = (
            f"no round of this contract made {bundle.hex()} final, and it is not its genesis: whose model answered is "
        )
        return failed(Name.MODEL, f"{text}not to be told", bundle=bundle.hex())
    data: dict[str, Any] = {"bundle": bundle.hex(), **({"round": number} if number else {})}
    if number == 0:
        text = f"{bundle.hex()} is the genesis: no round has trained it"
    else:
        block = history.rounds[number].log[-1].block_number
        text = f"{bundle.hex()} is the aggregate of round {number} of {history.latest}, final since block {block}"
    weak = [link.name for link in grounds if link.name in BEARING and link.status is not Status.PASS]
    if weak:
        text += f", on the node's word: see {' and '.join(weak)} of the rounds"
        return missing(Name.MODEL, text, **data)
    return passed(Name.MODEL, text, **data)


def round_step(told: RoundReport) -> Step:
    """One line for a round: who was in it at which ε, what was proven of them, who was left out and why."""
    links = {link.name: link for link in told.links}
    parts = [told.outcome, *_members(links), *(f"{name} {links[name].status}" for name in PROOFS if name in links)]
    parts += [f"{link.name} {link.status}: {link.evidence}" for link in told.links if _shows(link)]
    good = sum(link.status is Status.PASS for link in told.links)
    parts.append(f"{good} of {len(told.links)} links PASS")
    return Step(f"round {told.round}", told.links, "; ".join(parts))


def _members(links: dict[Name, Link]) -> Iterator[str]:
    roots, privacy = links.get(Name.ROOTS), links.get(Name.PRIVACY)
    declared = {row["member"]: row["declared"] for row in (privacy.data.get("members", ()) if privacy else ())}
    if roots is None or "included" not in roots.data:
        return
    included = roots.data["included"]
    said = [f"{member} (ε {declared[member]})" if member in declared else str(member) for member in included]
    yield f"members {', '.join(said) or 'none'}"
    out = ", ".join(f"{member} {reason}" for member, reason in roots.data["excluded"].items())
    yield f"left out: {out or 'nobody'}"


def _shows(link: Link) -> bool:
    """What is not as it should be, in full; what no proof was asked for, only by its status."""
    return link.status is Status.FAIL or link.missing


def _beginning(report: Report, base: Path | None) -> Iterator[Step]:
    """The genesis and the frozen base, as the first opening names them."""
    try:
        opening = report.find(Name.OPENING, 1)
    except KeyError:
        return
    yield Step("genesis", (opening,), f"{opening.data.get('global_bundle', 'not to be read')}: {opening.evidence}")
    digest = opening.data.get("base_digest")
    if digest is not None:
        yield _single("base", base_link(digest, base))


def base_link(digest: str, base: Path | None) -> Link:
    if base is None:
        text = f"the frozen base has the digest {digest}: name its folder with --base, and it is computed"
        return not_proven(Name.MODEL, text)
    found = base_digest(base).hex()
    if found != digest:
        return failed(Name.MODEL, f"the base in {base} has the digest {found}, the rounds are on {digest}")
    return passed(Name.MODEL, f"the frozen base in {base} has the digest {digest}, that of every round")


def _single(stage: str, link: Link) -> Step:
    return Step(stage, (link,), link.evidence)
