"""The link from events to one block hash: the blocks follow each other up to the head, and their receipts hold exactly
the events that the node shows.

A node's list of logs is its word. A header is not: whoever compares the head's hash with a source that he trusts can
trust every header below it, their receipts roots, and their blooms, which rule out events that nobody shows. Where the
blocks are too many to walk, or the node shows no receipts, the link says NOT PROVEN and why.

An exported file has no receipts to ask for: its events were read from proven ones (ledger.exported).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

from ledger.audit_chain import Headers, Replay
from ledger.events import TOPICS, encode_log
from ledger.evidence import decode_receipt, may_hold, receipts_root
from ledger.headers import Header
from ledger.ports import ChainMoved
from ledger.report import Link, Name, failed, not_proven, passed
from ledger.rpc import RpcRefused
from proofs.errors import PeerFault

MAX_WALK_BLOCKS: Final = 1 << 14  # beyond it only the blocks that matter are read, and the link says so

Held = list[tuple[int, tuple[bytes, ...], bytes]]  # position in the block, topics and data of each event


@runtime_checkable
class ShowsReceipts(Protocol):
    """A chain that shows a block's receipts in their consensus encoding."""

    def receipts(self, number: int) -> list[bytes]: ...


@dataclass(frozen=True)
class Shown:
    """An event as the node shows it: where the chain keeps it, and the bytes that the contract wrote."""

    block_number: int
    block_hash: bytes
    log_index: int
    topics: tuple[bytes, ...]
    data: bytes


def headers_link(source: Headers, found: Replay) -> Link:
    """Blocks and receipts of every event of Rounds; with the walk to the head, of every block that could hold one."""
    events = (
        Shown(at.block_number, at.block_hash, at.log_index, *encode_log(at.event))
        for state in found.history.rounds.values()
        for at in state.log
    )
    return blocks_link(source, found.history.domain.contract, TOPICS, events, found.head)


def blocks_link(
    source: Headers, contract: bytes, topics: Collection[bytes], events: Iterable[Shown], head: Header
) -> Link:
    """The same for the events of any contract; `topics`: the first topics that are events of it."""
    told: dict[int, list[Shown]] = {}
    for shown in events:
        told.setdefault(shown.block_number, []).append(shown)
    if not told:
        return not_proven(Name.HEADERS, "there are no events; that no block holds one is on the node's word")
    first, last = min(told), head.number
    walked = last - first < MAX_WALK_BLOCKS
    data: dict[str, Any] = {"first_block": first, "last_block": last, "walked": walked}
    if max(told) > last:
        return failed(Name.HEADERS, f"an event is said to be in block {max(told)}, after the head", **data)
    walk = _Walk(source, contract, topics, told, head, walked)
    try:
        problem = walk.problem(range(first, last + 1) if walked else sorted(told))
    except PeerFault as error:
        problem = str(error)
    except RpcRefused as error:
        return not_proven(Name.HEADERS, f"the events are on the node's word, it shows no receipts ({error})", **data)
    if problem:
        return failed(Name.HEADERS, problem, **data)
    text = f"the receipts of {len(told)} blocks from {first} on hold these events"
    if walked:
        return passed(
            Name.HEADERS, f"{text}, and every parent link holds up to the head, block {last}; no event is left", **data
        )
    text += "; the span is too long to walk: that these blocks lead to the head, and that no event is left out of the "
    return not_proven(Name.HEADERS, f"{text}end, is on the node's word", **data)


@dataclass(frozen=True)
class _Walk:
    source: Headers
    contract: bytes
    topics: Collection[bytes]
    told: Mapping[int, Sequence[Shown]]
    head: Header
    whole: bool

    def problem(self, numbers: Sequence[int]) -> str:
        """What is wrong with the first block that is wrong, or nothing."""
        parent: Header | None = None
        for number in numbers:
            header, events = self.source.header(number), self.told.get(number, ())
            problem = _misplaced(header, number, events, parent if self.whole else None)
            if number == self.head.number and header.hash != self.head.hash:
                raise ChainMoved(f"block {number} was {self.head.hash.hex()}, now it is {header.hash.hex()}")
            problem = problem or self._untrue(header, events)
            if problem:
                return f"block {number}: {problem}"
            parent = header
        return ""

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
