"""The link from events to one block hash: the blocks follow each other up to the head, and their receipts hold exactly
the events that the node shows.

A node's list of logs is its word. A header is not: whoever compares the head's hash with a source that he trusts can
trust every header below it, their receipts roots, and their blooms, which rule out events that nobody shows. Where the
blocks are too many to walk, or the node shows no receipts, the link says NOT PROVEN and why.

An exported file has no receipts to ask for: its events were read from proven ones (ledger.exported).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, runtime_checkable

from ledger.audit_chain import Replay, Source
from ledger.events import TOPICS, encode_log
from ledger.evidence import decode_receipt, may_hold, receipts_root
from ledger.headers import Header
from ledger.records import Logged
from ledger.report import Link, Name, failed, not_proven, passed
from ledger.rpc import RpcRefused
from proofs.errors import PeerFault

MAX_WALK_BLOCKS: Final = 1 << 14  # beyond it only the blocks that matter are read, and the link says so

Held = list[tuple[int, tuple[bytes, ...], bytes]]  # position in the block, topics and data of each event


@runtime_checkable
class ShowsReceipts(Protocol):
    """A chain that shows a block's receipts in their consensus encoding."""

    def receipts(self, number: int) -> list[bytes]: ...


def headers_link(source: Source, found: Replay) -> Link:
    """Blocks and receipts of every event; with the walk to the head, of every block that could hold one."""
    told: dict[int, list[Logged]] = {}
    for state in found.history.rounds.values():
        for logged in state.log:
            told.setdefault(logged.block_number, []).append(logged)
    if not told:
        return passed(Name.HEADERS, "no events, no blocks to check")
    first, last = min(told), max(found.head.number, *told)
    walked = last - first < MAX_WALK_BLOCKS
    data: dict[str, Any] = {"first_block": first, "last_block": last, "walked": walked}
    try:
        problem = _walk(source, told, range(first, last + 1) if walked else sorted(told), walked=walked)
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


def _walk(source: Source, told: Mapping[int, Sequence[Logged]], numbers: Sequence[int], *, walked: bool) -> str:
    """What is wrong with the first block that is wrong, or nothing."""
    parent: Header | None = None
    for number in numbers:
        header, events = source.header(number), told.get(number, ())
        problem = _misplaced(header, number, events, parent if walked else None) or _untrue(source, header, events)
        if problem:
            return f"block {number}: {problem}"
        parent = header
    return ""


def _misplaced(header: Header, number: int, events: Sequence[Logged], parent: Header | None) -> str:
    if header.number != number:
        return f"the header says {header.number}"
    for logged in events:
        if logged.block_hash != header.hash:
            return f"the events name {logged.block_hash.hex()}, the header hashes to {header.hash.hex()}"
    if parent is not None and header.parent_hash != parent.hash:
        return f"expected parent {parent.hash.hex()}, found {header.parent_hash.hex()}"
    return ""


def _untrue(source: Source, header: Header, events: Sequence[Logged]) -> str:
    if not isinstance(source, ShowsReceipts) or not (events or may_hold(header.logs_bloom, source.rounds_address)):
        return ""
    receipts = source.receipts(header.number)
    if receipts_root(receipts) != header.receipts_root:
        return "the receipts shown do not hash to its receipts root"
    held, shown = _held(receipts, source.rounds_address), [(at.log_index, *encode_log(at.event)) for at in events]
    if held == shown:
        return ""
    return f"its receipts hold {len(held)} events, the node shows {len(shown)}, and they are not the same"


def _held(receipts: Sequence[bytes], contract: bytes) -> Held:
    """The contract's events in a block, by the position of their logs in it."""
    logs = [log for raw in receipts for log in decode_receipt(raw).logs]
    return [
        (at, log.topics, log.data)
        for at, log in enumerate(logs)
        if log.address == contract and log.topics and log.topics[0] in TOPICS
    ]
