"""The link from events to one block hash: the blocks follow each other up to the head, and their receipts hold exactly
the events that the node shows.

A node's list of logs is its word. A header is not: whoever compares the head's hash with a source that he trusts can
trust every header below it, their receipts roots, and their blooms, which rule out events that nobody shows. Headers
are read in groups, and none is kept: a walk takes time and no memory. Where the blocks are more than the auditor allows
(`Walk`), or the node shows no receipts, or no event and nobody said where to begin, the link says NOT PROVEN and why,
and counts as missing.

An exported file has no receipts to ask for: its events were read from proven ones (ledger.exported).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

from ledger.audit_chain import Headers, Replay
from ledger.events import TOPICS, encode_log
from ledger.evidence import decode_receipt, may_hold, receipts_root
from ledger.headers import Header
from ledger.ports import ChainMoved, ChainUnavailable
from ledger.report import Link, Name, failed, missing, passed
from ledger.rpc import RpcRefused
from proofs.errors import PeerFault

MAX_WALK_BLOCKS: Final = 1 << 17  # unless the auditor says otherwise; a node may invent a head that is far away
GROUP_BLOCKS: Final = 100  # headers asked for in one request, where the node answers several at once

Held = list[tuple[int, tuple[bytes, ...], bytes]]  # position in the block, topics and data of each event


@runtime_checkable
class ShowsReceipts(Protocol):
    """A chain that shows a block's receipts in their consensus encoding."""

    def receipts(self, number: int) -> list[bytes]: ...


@runtime_checkable
class ShowsHeaders(Protocol):
    """A chain that shows many headers at once."""

    def headers_between(self, first: int, last: int) -> list[Header]:
        """Blocks first…last inclusive. Raises RpcRefused where the node answers one request at a time."""
        ...


class TrustedBlock(NamedTuple):
    """A block that the auditor knows from a source of its own."""

    number: int
    hash: bytes


def _silent(done: int, blocks: int) -> None:
    pass


@dataclass(frozen=True)
class Walk:
    """How far headers are walked, as the auditor says. max_blocks: more than these are not.

    trusted: a block through which the walk must lead: all before it is then as true as its hash. tell: called after
    each group, with the blocks that are done and how many there are.
    """

    max_blocks: int = MAX_WALK_BLOCKS
    trusted: TrustedBlock | None = None
    tell: Callable[[int, int], None] = _silent


WALK: Final = Walk()


@dataclass(frozen=True)
class Shown:
    """An event as the node shows it: where the chain keeps it, and the bytes that the contract wrote."""

    block_number: int
    block_hash: bytes
    log_index: int
    topics: tuple[bytes, ...]
    data: bytes


def headers_link(source: Headers, found: Replay, walk: Walk = WALK, first_block: int = 0) -> Link:
    """Blocks and receipts of every event of Rounds; with the walk to the head, of every block that could hold one."""
    events = (
        Shown(at.block_number, at.block_hash, at.log_index, *encode_log(at.event))
        for state in found.history.rounds.values()
        for at in state.log
    )
    return blocks_link(source, found.history.domain.contract, TOPICS, events, found.head, walk, first_block=first_block)


def blocks_link(
    source: Headers,
    contract: bytes,
    topics: Collection[bytes],
    events: Iterable[Shown],
    head: Header,
    walk: Walk = WALK,
    since: Header | None = None,
    first_block: int = 0,
) -> Link:
    """The same for the events of any contract; `topics`: the first topics that are events of it.

    since: the head of an earlier walk that PASSed; the walk goes on from there, and events up to it are not given.
    first_block: of the contract, if it is known: then no event is left out before the first that is shown, either.
    """
    told: dict[int, list[Shown]] = {}
    for shown in events:
        told.setdefault(shown.block_number, []).append(shown)
    if not told and since is None and walk.trusted is None and not 0 < first_block <= head.number:
        text = (
            "there are no events, which is on the node's word: with --from-block, the contract's first block, headers"
        )
        return missing(Name.HEADERS, f"{text} are walked from there")
    last, trusted = head.number, walk.trusted
    starts = [*told, *((trusted.number,) if trusted else ()), *((first_block,) if first_block else ())]
    first = since.number if since else min(starts, default=last)
    walked = last - first < walk.max_blocks
    data: dict[str, Any] = {"first_block": first, "last_block": last, "walked": walked}
    if max(told, default=0) > last:
        return failed(Name.HEADERS, f"an event is said to be in block {max(told)}, after the head", **data)
    if trusted and trusted.number > last:
        text = f"the head is block {last}, and block {trusted.number}, which is trusted, comes after it"
        return missing(Name.HEADERS, text, **data)
    over = _Walk(source, contract, topics, told, head, walked, walk, since)
    try:
        problem = over.problem(range(first, last + 1) if walked else over.landmarks)
    except PeerFault as error:
        problem = str(error)
    except RpcRefused as error:
        return missing(Name.HEADERS, f"the events are on the node's word, it shows no receipts ({error})", **data)
    if problem:
        return failed(Name.HEADERS, problem, **data)
    text = f"the receipts of {len(told)} blocks from {first} on hold these events"
    if not walked:
        text += f"; the span is too long to walk: {last - first + 1} blocks, at most {walk.max_blocks} (--max-blocks)"
        text += " are; that these lead to the head, and that no event is left out of the end, is on the node's word"
        return missing(Name.HEADERS, text, **data)
    text += f", and every parent link holds up to the head, block {last}; no event is left"
    through = f"; block {trusted.number} is the trusted one" if trusted and trusted.number >= first else ""
    return passed(Name.HEADERS, text + through, **data)


@dataclass(frozen=True)
class _Walk:
    source: Headers
    contract: bytes
    topics: Collection[bytes]
    told: Mapping[int, Sequence[Shown]]
    head: Header
    whole: bool
    limits: Walk
    since: Header | None

    @property
    def landmarks(self) -> list[int]:
        """The blocks that are looked at where there are too many: those with events, and the trusted one."""
        trusted = self.limits.trusted
        return sorted({*self.told, *((trusted.number,) if trusted else ())})

    def problem(self, numbers: Sequence[int]) -> str:
        """What is wrong with the first block that is wrong, or nothing."""
        parent: Header | None = None
        for number, header in zip(numbers, self._headers(numbers), strict=True):
            events = self.told.get(number, ())
            problem = _misplaced(header, number, events, parent if self.whole else None)
            if number == self.head.number and header.hash != self.head.hash:
                raise ChainMoved(f"block {number} was {self.head.hash.hex()}, now it is {header.hash.hex()}")
            parent = header
            if self.since is not None and number == self.since.number:
                if header.hash != self.since.hash:
                    raise ChainMoved(f"block {number} was {self.since.hash.hex()}, now it is {header.hash.hex()}")
                continue
            problem = problem or self._distrusted(header) or self._untrue(header, events)
            if problem:
                return f"block {number}: {problem}"
        return ""

    def _headers(self, numbers: Sequence[int]) -> Iterator[Header]:
        """In groups, of which one is held at a time."""
        for start in range(0, len(numbers), GROUP_BLOCKS):
            group = numbers[start : start + GROUP_BLOCKS]
            yield from self._group(group)
            self.limits.tell(start + len(group), len(numbers))

    def _group(self, numbers: Sequence[int]) -> Iterable[Header]:
        if self.whole and isinstance(self.source, ShowsHeaders):
            try:
                found = self.source.headers_between(numbers[0], numbers[-1])
            except (RpcRefused, ChainUnavailable):
                found = []
            if len(found) == len(numbers):
                return found
        return map(self.source.header, numbers)

    def _distrusted(self, header: Header) -> str:
        trusted = self.limits.trusted
        if trusted is None or header.number != trusted.number or header.hash == trusted.hash:
            return ""
        return f"the trusted one has the hash {trusted.hash.hex()}, the node shows {header.hash.hex()}"

    def _untrue(self, header: Header, events: Sequence[Shown]) -> str:
        source = self.source
        if not isinstance(source, ShowsReceipts) or not (events or may_hold(header.logs_bloom, self.contract)):
            return ""
        receipts = source.receipts(header.number)
        if receipts_root(receipts) != header.receipts_root:
            return "the receipts shown do not hash to its receipts root"
        held, shown = self._held(receipts), [(at.log_index, at.topics, at.data) for at in events]
        if held == shown:
            return ""
        return f"its receipts hold {len(held)} events, the node shows {len(shown)}, and they are not the same"

    def _held(self, receipts: Sequence[bytes]) -> Held:
        """The contract's events in a block, by the position of their logs in it."""
        logs = [log for raw in receipts for log in decode_receipt(raw).logs]
        return [
            (at, log.topics, log.data)
            for at, log in enumerate(logs)
            if log.address == self.contract and log.topics and log.topics[0] in self.topics
        ]


def _misplaced(header: Header, number: int, events: Sequence[Shown], parent: Header | None) -> str:
    if header.number != number:
        return f"the header says {header.number}"
    for shown in events:
        if shown.block_hash != header.hash:
            return f"the events name {shown.block_hash.hex()}, the header hashes to {header.hash.hex()}"
    if parent is not None and header.parent_hash != parent.hash:
        return f"expected parent {parent.hash.hex()}, found {header.parent_hash.hex()}"
    return ""
