"""AuditLog.sol in Python: the same checks in the same order, refusing with the same names. State is frozen.

Signatures and deadlines are checked as the contract does; proofs by the tree of proofs.merkle, whose algorithm is not
Merkle.sol's, and the length that a proof must have by making one for the same sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from ledger.eip712 import Domain, SignatureInvalid
from ledger.log.actions import (
    AnswerOmission,
    LogAction,
    NameAuditors,
    PostCheckpoint,
    Register,
    RegisterAuditor,
    ReportFork,
    ReportOmission,
    ReportRewrite,
)
from ledger.log.records import (
    AuditorRegistered,
    AuditorsNamed,
    Checkpointed,
    Forked,
    LogEvent,
    LogServer,
    Omission,
    OmissionAnswered,
    OmissionReported,
    Outcome,
    Rewritten,
    ServerRegistered,
    auditors_digest,
)
from ledger.log.statements import Checkpoint, Promise, Statement, signer
from ledger.ports import ContractRefused
from proofs.merkle import consistency_path, consistency_roots, inclusion_path_at, inclusion_root

ZERO_ADDRESS: Final = bytes(20)
NO_DIGEST: Final = bytes(32)
MAX_AUDITORS: Final = 16
Change = tuple["LogState", LogEvent | None]


@dataclass(frozen=True)
class LogState:
    """Storage of the contract. Reports by (server, digest of the promise), with the outcome as it was last written."""

    domain: Domain
    answer_blocks: int
    servers: Mapping[bytes, LogServer] = field(default_factory=dict)
    auditor_keys: Mapping[bytes, bytes] = field(default_factory=dict)
    reports: Mapping[tuple[bytes, bytes], Omission] = field(default_factory=dict)


def refuse(name: str, *arguments: object) -> ContractRefused:
    return ContractRefused(name, arguments)


def execute(state: LogState, sender: bytes, block: int, action: LogAction) -> Change:
    """The state after the call, and its event; None if it did nothing. Raises ContractRefused."""
    match action:
        case Register():
            return _register(state, sender, action)
        case RegisterAuditor(key):
            if key == NO_DIGEST:
                raise refuse("EmptyKey")
            keys = {**state.auditor_keys, sender: key}
            return replace(state, auditor_keys=keys), AuditorRegistered(sender, key)
        case NameAuditors():
            return _name_auditors(state, sender, action)
        case PostCheckpoint():
            return _checkpoint(state, action)
        case ReportOmission():
            return _report_omission(state, block, action)
        case AnswerOmission():
            return _answer_omission(state, block, action)
        case ReportFork():
            return _report_fork(state, block, action)
        case ReportRewrite():
            return _report_rewrite(state, block, action)


def server_at(state: LogState, address: bytes) -> LogServer:
    if address not in state.servers:
        raise refuse("UnknownServer", address)
    return state.servers[address]


def omission_at(state: LogState, server: bytes, receipt: bytes, block: int) -> Omission:
    """As of this block: what nobody answered in time is omitted, though nothing was written."""
    found = state.reports.get((server, receipt), Omission(Outcome.NONE, False, 0))
    if found.outcome is Outcome.OPEN and block > found.answer_by:
        return replace(found, outcome=Outcome.OMITTED)
    return found


def _register(state: LogState, sender: bytes, action: Register) -> Change:
    if action.promise_blocks == 0:
        raise refuse("NoPromise")
    if sender in state.servers:
        raise refuse("AlreadyServer", sender)
    server = LogServer(0, action.promise_blocks, 0, 0, 0, NO_DIGEST, NO_DIGEST)
    return _put(state, sender, server), ServerRegistered(sender, action.promise_blocks)


def _name_auditors(state: LogState, sender: bytes, action: NameAuditors) -> Change:
    server = server_at(state, sender)
    if len(action.auditors) > MAX_AUDITORS:
        raise refuse("TooManyAuditors", len(action.auditors), MAX_AUDITORS)
    for auditor in action.auditors:
        if auditor not in state.auditor_keys:
            raise refuse("UnknownAuditor", auditor)
    named = replace(server, auditors=auditors_digest(action.auditors))
    return _put(state, sender, named), AuditorsNamed(sender, action.auditors)


def _checkpoint(state: LogState, action: PostCheckpoint) -> Change:
    server = server_at(state, action.server)
    if (action.size, action.root) == (server.size, server.root):
        return state, None
    if action.size <= server.size:
        raise refuse("NotLonger", action.server, server.size, action.size)
    _check_signature(state, action.server, Checkpoint(action.size, action.root), action.signature)
    if server.size == 0:
        _check_length(0, action.proof)
    else:
        _check_consistency(server.size, server.root, action.size, action.root, action.proof)
    grown = replace(server, size=action.size, root=action.root)
    event = Checkpointed(action.server, action.size, action.root, action.signature)
    return _put(state, action.server, grown), event


def _report_omission(state: LogState, block: int, action: ReportOmission) -> Change:
    server = server_at(state, action.server)
    promise = Promise(action.sequence, action.due_block, action.leaf)
    name = action.server, promise.digest(state.domain)
    if name in state.reports:
        return state, None
    if block <= action.due_block:
        raise refuse("NotDue", action.due_block, block)
    _check_signature(state, action.server, promise, action.signature)
    late, answer_by = server.size <= action.sequence, block + state.answer_blocks
    reports = {**state.reports, name: Omission(Outcome.OPEN, late, answer_by)}
    counted = _put(replace(state, reports=reports), action.server, replace(server, reports=server.reports + 1))
    said = action.server, action.sequence, action.due_block, action.leaf, action.signature
    return counted, OmissionReported(*said, late, answer_by)


def _answer_omission(state: LogState, block: int, action: AnswerOmission) -> Change:
    server = server_at(state, action.server)
    promise = Promise(action.sequence, action.due_block, action.leaf)
    name = action.server, promise.digest(state.domain)
    report = state.reports.get(name)
    if report is None:
        raise refuse("NotReported", *name)
    if report.outcome is Outcome.ANSWERED:
        return state, None
    if block > report.answer_by:
        raise refuse("AnsweredTooLate", name[1], report.answer_by, block)
    if action.sequence >= server.size:
        raise refuse("NotAnchored", action.sequence, server.size)
    _check_length(len(inclusion_path_at(_any, action.sequence, server.size)), action.proof)
    found = inclusion_root(action.leaf, action.sequence, server.size, action.proof)
    if found != server.root:
        raise refuse("ProofMismatch", server.root, found)
    reports = {**state.reports, name: replace(report, outcome=Outcome.ANSWERED)}
    counted = _put(replace(state, reports=reports), action.server, replace(server, answers=server.answers + 1))
    return counted, OmissionAnswered(action.server, action.sequence, action.due_block, action.leaf)


def _report_fork(state: LogState, block: int, action: ReportFork) -> Change:
    server = _unforked(state, action.server)
    if action.root == action.other_root:
        raise refuse("SameRoot", action.root)
    _check_signature(state, action.server, Checkpoint(action.size, action.root), action.signature)
    _check_signature(state, action.server, Checkpoint(action.size, action.other_root), action.other_signature)
    said = action.size, action.root, action.signature, action.other_root, action.other_signature
    return _put(state, action.server, replace(server, fork_block=block)), Forked(action.server, *said)


def _report_rewrite(state: LogState, block: int, action: ReportRewrite) -> Change:
    server = _unforked(state, action.server)
    if action.root == action.true_root:
        raise refuse("SameRoot", action.root)
    if not 0 < action.size <= server.size:
        raise refuse("NotPassed", action.size, server.size)
    _check_signature(state, action.server, Checkpoint(action.size, action.root), action.signature)
    if action.size == server.size:
        _check_length(0, action.proof)
        if action.true_root != server.root:
            raise refuse("ProofMismatch", server.root, action.true_root)
    else:
        _check_consistency(action.size, action.true_root, server.size, server.root, action.proof)
    said = action.size, action.root, action.signature, action.true_root, server.size, server.root, action.proof
    return _put(state, action.server, replace(server, fork_block=block)), Rewritten(action.server, *said)


def _check_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: tuple[bytes, ...]) -> None:
    _check_length(len(consistency_path(_any, old, new)), proof)
    first, second = consistency_roots(old, old_root, new, proof)
    if first != old_root:
        raise refuse("ProofMismatch", old_root, first)
    if second != new_root:
        raise refuse("ProofMismatch", new_root, second)


def _check_length(expected: int, proof: tuple[bytes, ...]) -> None:
    if len(proof) != expected:
        raise refuse("ProofLength", expected, len(proof))


def _check_signature(state: LogState, server: bytes, statement: Statement, signature: bytes) -> None:
    try:
        found = signer(state.domain, statement, signature)
    except SignatureInvalid:
        found = ZERO_ADDRESS
    if found != server:
        raise refuse("BadSignature", server, found)


def _unforked(state: LogState, address: bytes) -> LogServer:
    server = server_at(state, address)
    if server.fork_block:
        raise refuse("AlreadyForked", address, server.fork_block)
    return server


def _put(state: LogState, address: bytes, server: LogServer) -> LogState:
    return replace(state, servers={**state.servers, address: server})


def _any(level: int, index: int) -> bytes:
    """A subtree of a tree of which only the shape is asked for."""
    return NO_DIGEST
