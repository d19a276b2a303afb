"""From a chain to the history of its logs, and to the links that say how far that history is to be believed.

The same grounds as for rounds (ledger.audit_chain, audit_blocks, audit_code): events through their law, receipts up to
headers, the code at the address. The contract's storage is compared on the node's word; what rests on headers is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from ledger.audit_blocks import WALK, Shown, Walk, blocks_link
from ledger.audit_chain import StartedLate, check_unmoved
from ledger.audit_code import log_code_link
from ledger.eip712 import Domain
from ledger.headers import Header
from ledger.log.events import LOG_EVENTS, encode_log_event
from ledger.log.history import LogHistory, LogRule, LogRuleBroken
from ledger.log.records import Anchored, LogServer
from ledger.ports import ContractRefused, UnknownBlock, WrongChain
from ledger.report import Anchor, Link, Name, Status, failed, not_proven, passed
from proofs.errors import PeerFault

PAGE_BLOCKS: Final = 2000
MAX_EVENTS: Final = 1 << 20
RETRIES: Final = 3
LOG_TOPICS: Final = frozenset(abi.topic for abi in LOG_EVENTS)


class LogSource(Protocol):
    """What auditing logs reads of a chain. Every ChainPort has it."""

    @property
    def chain_id(self) -> int: ...

    @property
    def log_address(self) -> bytes: ...

    def head(self) -> Header: ...

    def header(self, number: int) -> Header: ...

    def log_events(self, first: int, last: int) -> list[Anchored]: ...

    def log_server(self, address: bytes) -> LogServer: ...

    def answer_blocks(self) -> int: ...


@dataclass(frozen=True)
class LogReplay:
    """All events up to `head`, or up to the one at which it broke: `broken` says why."""

    history: LogHistory
    head: Header
    events: tuple[Anchored, ...]
    broken: str = ""

    @property
    def anchor(self) -> Anchor:
        domain = self.history.domain
        return Anchor(domain.chain_id, domain.contract, self.head.number, self.head.hash)


def log_domain(source: LogSource) -> Domain:
    """Raises WrongChain where no AuditLog was named."""
    if not source.log_address:
        raise WrongChain("no AuditLog contract was named: give its address with --audit-log")
    return Domain(source.chain_id, source.log_address)


def replay_log(source: LogSource, first_block: int = 0, since: LogReplay | None = None) -> LogReplay:
    """since: a replay that did not break, of this same chain, to go on from; its history grows with this one's.

    Raises WireFault, WrongChain, StartedLate; a peer's fault is in `broken`.
    """
    history = since.history if since else LogHistory(log_domain(source), source.answer_blocks())
    head, seen = source.head(), list(since.events if since else ())
    for start in range(since.head.number + 1 if since else first_block, head.number + 1, PAGE_BLOCKS):
        try:
            for at in source.log_events(start, min(start + PAGE_BLOCKS - 1, head.number)):
                if len(seen) >= MAX_EVENTS:
                    return LogReplay(history, head, tuple(seen), f"more than {MAX_EVENTS} events")
                history.take(at)
                seen.append(at)
        except LogRuleBroken as error:
            if first_block and error.rule in (LogRule.SERVER, LogRule.AUDITORS):
                raise StartedLate(f"block {first_block} is after a registration: start earlier ({error})") from error
            return LogReplay(history, head, tuple(seen), f"after {len(seen)} events: {error}")
        except PeerFault as error:
            return LogReplay(history, head, tuple(seen), f"after {len(seen)} events: {error}")
    return LogReplay(history, head, tuple(seen))


def settled_log(
    source: LogSource, first_block: int = 0, *, walk: Walk = WALK, since: LogReplay | None = None
) -> tuple[LogReplay, tuple[Link, ...]]:
    """The history, and the links log, headers and contract. Read again while the contract's storage, which is read
    after the events, has moved on in between. since: an earlier one whose links held, used up by this call: only what
    came after it is read, unless its blocks are no longer on the chain. Raises ChainMoved where blocks were replaced
    meanwhile."""
    start = since.head if since is not None and not since.broken and _on(source, since.head) else None
    since, heads = since if start else None, [start] if start else []
    for _ in range(RETRIES):
        found = replay_log(source, first_block, since)
        link = log_link(source, found)
        if link.status is Status.PASS or source.head().number == found.head.number:
            break
        if found.broken or not _on(source, found.head):
            since, start, heads = None, None, []
        else:
            since, heads = found, [*heads, found.head]
    headers, code = _grounds(source, found, walk, start, first_block)
    for head in (*heads, found.head):
        check_unmoved(source, head)
    return found, (link, headers, code)


def _grounds(
    source: LogSource, found: LogReplay, walk: Walk, start: Header | None, first_block: int
) -> tuple[Link, Link]:
    """start: up to which block the headers have been walked."""
    contract = found.history.domain.contract
    fresh = [at for at in found.events if start is None or at.block_number > start.number]
    events = map(_shown, fresh)
    headers = blocks_link(source, contract, LOG_TOPICS, events, found.head, walk, start, first_block)
    return headers, log_code_link(source, found.history.domain, found.history.answer_blocks, found.head)


def _on(source: LogSource, block: Header) -> bool:
    try:
        return source.header(block.number).hash == block.hash
    except UnknownBlock:
        return False


def log_link(source: LogSource, found: LogReplay) -> Link:
    """Replayed to the end, and the contract's storage of every server agrees."""
    data = {"events": len(found.events), "servers": len(found.history.servers), "head": found.head.number}
    if found.broken:
        return failed(Name.LOG, f"the replay stopped {found.broken}", **data)
    for address, server in found.history.servers.items():
        try:
            stored = source.log_server(address)
        except ContractRefused as error:
            return failed(Name.LOG, f"0x{address.hex()}: {error}", **data)
        if stored != server.stored():
            text = f"0x{address.hex()}: the contract holds {stored}, the events lead to {server.stored()}"
            return failed(Name.LOG, text, **data)
    text = (
        f"{len(found.events)} events of {len(found.history.servers)} servers obey the law, and lead to what is stored"
    )
    return passed(Name.LOG, text, **data) if found.events else not_proven(Name.LOG, "there are no events", **data)


def _shown(at: Anchored) -> Shown:
    return Shown(at.block_number, at.block_hash, at.log_index, *encode_log_event(at.event))
