"""A verifier's part: re-run every verdict, sign the answer once, let whoever asks have it, dissent where others differ.

What a verifier signs is durable before anybody sees it (ledger.signing). One reason can change with time: a bundle that
nobody has may still come. It is waited for, and called UNAVAILABLE only shortly before the aggregator does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ledger.actions import Dissent, RegisterVerifier
from ledger.bls import BlsKey
from ledger.crash import Point
from ledger.ports import ChainPort
from ledger.quorum import SignedVerdicts, key_hash, possession
from ledger.records import Member, Reason, Seat
from ledger.round_state import RoundState, settled
from ledger.signing import SigningGuard
from ledger.verdict import Verdict, judge
from node.conduct import HonestMember
from node.judging import Judges
from node.logs import Log
from node.recompute import Recount, round_key
from node.sender import Sender
from node.watch import Watch

RECORDS_KEPT: Final = 8
VERDICTS_KEPT: Final = 1024
NO_KEY: Final = bytes(32)
NOT_YET: Final = "not registered yet"
ANOTHER_KEY: Final = "another key is registered: only the owner can replace it"


class Board:
    """Signed verdicts, by round key: written by the daemon's loop, read by its HTTP threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[str, bytes] = {}

    def put(self, key: str, record: bytes) -> None:
        with self._lock:
            self._records.pop(key, None)
            self._records[key] = record
            while len(self._records) > RECORDS_KEPT:
                self._records.pop(next(iter(self._records)))

    def get(self, key: str) -> bytes | None:
        with self._lock:
            return self._records.get(key)


@dataclass(frozen=True)
class Verifier:
    """The parts of a member that verify; `board` is what its HTTP server shows."""

    key: BlsKey
    guard: SigningGuard
    board: Board
    sender: Sender
    watch: Watch
    log: Log
    judges: Judges
    pulse: Callable[[], None]  # after every verdict; may raise, to end the turn
    judged: dict[tuple[str, int, bytes], Verdict]

    def is_of(self, seat: Seat | None) -> bool:
        """Is it this key whose signature counts for the seat?"""
        return seat is not None and seat.verifier == key_hash(self.key.public)

    def has_answered(self, state: RoundState) -> bool:
        """Signed over the round as it stands, and to be had from here."""
        shown = self.board.get(round_key(state))
        return shown is not None and SignedVerdicts.decode(shown).transcript == state.judged_transcript

    def verify(self, recount: Recount, seat: Seat, head: int, conduct: HonestMember) -> None:
        """Raises WireFault or LocalFault when something could not be read: it is tried again."""
        state = recount.state
        before = self.guard.signed_verdicts(self.key, state.domain, state.number, state.transcript)
        reasons = before[0] if before else self._judged(recount, head)
        if reasons is None:
            return
        if before is None:
            reasons = conduct.verdicts(state, seat, reasons)
        signature = self.guard.sign_verdicts(self.key, state.domain, state.number, state.transcript, reasons)
        record = SignedVerdicts(state.number, seat.member, state.transcript, reasons, self.key.public, signature)
        self.board.put(round_key(state), record.encode())
        told = {str(s.member): Reason(code).name for s, code in zip(state.seats, reasons, strict=True) if code}
        self.log.info("verified", round=state.number, left_out=told or None, transcript=state.transcript)

    def verdict(self, recount: Recount, member: int) -> Verdict:
        """As Recount.verdict: fetched again, for time can change whether a bundle is to be had, and judged but once."""
        found = recount.evidence(member)
        if isinstance(found, Verdict):
            return found
        known = self.judged.get(_facts(recount, member))
        return known or self._remember(recount, member, judge(*found))

    def _judged(self, recount: Recount, head: int) -> bytes | None:
        """One reason a seat; None as long as a missing bundle may still come."""
        state = recount.state
        found = {member: self.judged.get(_facts(recount, member)) for member in state.standing}
        waiting = [member for member, verdict in found.items() if verdict is None]
        for member, verdict in self.judges.verdicts(recount, waiting):
            found[member] = self._remember(recount, member, verdict)
            self.pulse()
        verdicts = [found.get(seat.member) or recount.verdict(seat.member) for seat in state.seats]
        if any(verdict.reason is Reason.UNAVAILABLE for verdict in verdicts) and not verifiers_patience_ends(
            state, head
        ):
            self.watch.fetch_failed()
            return None
        return bytes(int(verdict.reason) for verdict in verdicts)

    def _remember(self, recount: Recount, member: int, verdict: Verdict) -> Verdict:
        """Bundles that were read are not judged again."""
        if len(self.judged) >= VERDICTS_KEPT:
            self.judged.clear()
        if verdict.reason is not Reason.UNAVAILABLE:
            self.judged[_facts(recount, member)] = verdict
        return verdict

    # ---- dissent

    def dissents(self, state: RoundState, member: int) -> bool:
        """Other verdicts were posted than this verifier signed, and it has not said so yet."""
        if state.verdicts is None or state.ended or member in state.dissents:
            return False
        signed = self.guard.signed_verdicts(self.key, state.domain, state.number, state.judged_transcript)
        differs = signed is not None and signed[0] != state.verdicts.reasons
        return differs and self.sender.outbox.get(_dissent_name(state)) is None

    def dissent(self, state: RoundState) -> None:
        signed = self.guard.signed_verdicts(self.key, state.domain, state.number, state.judged_transcript)
        if signed is not None:
            self.sender.ensure(_dissent_name(state), Dissent(state.number, signed[0]), Point.NODE_DISSENT_INTENT)
            self.log.warning("dissents", round=state.number, signed=signed[0])

    # ---- registration

    def register(self, chain: ChainPort, address: bytes) -> None:
        """A member that has no verifier key yet registers this one. Any other key only the owner can replace."""
        found = next((m for m in chain.members() if address in (m.signer, m.next_signer)), None)
        if found is None:
            return
        self.watch.set(verifier=registration_of(found, self.key))
        if found.verifier == found.next_verifier == NO_KEY and address == found.signer:
            action = registration(self.key, chain, found.number)
            self.sender.ensure(f"register-verifier/{found.number}", action, Point.NODE_VERIFIER_INTENT)


def _facts(recount: Recount, member: int) -> tuple[str, int, bytes]:
    """Whose verdict, in which round, and a digest of all that it depends on. For those that stand."""
    return round_key(recount.state), member, recount.facts_digest(member)


def registration(key: BlsKey, chain: ChainPort, member: int) -> RegisterVerifier:
    """What the signer sends for a first key, and the owner for every other."""
    proof = possession(key, chain.chain_id, chain.federation_address, member)
    return RegisterVerifier(member, key.public, proof)


def registration_of(member: Member, key: BlsKey) -> str:
    """In words: how the member's registered verifier keys and this one go together."""
    mine = key_hash(key.public)
    if member.next_verifier == mine:
        return "registered, in force from the next opening"
    if member.verifier == mine:
        return "registered" if member.next_verifier == NO_KEY else "registered, replaced at the next opening"
    if member.verifier == member.next_verifier == NO_KEY:
        return NOT_YET
    return ANOTHER_KEY


def verifiers_patience_ends(state: RoundState, head: int) -> bool:
    """May a bundle that nobody has be called UNAVAILABLE now? No later than the aggregator on duty calls it so."""
    now = settled(state, head + 1)
    blocks = now.policy.verify_blocks
    return head + 1 >= now.deadline_block - max(blocks * 5 // 8, blocks // 2 + 1)


def _dissent_name(state: RoundState) -> str:
    return f"round-{state.number}/dissent/{state.judged_transcript.hex()[:8]}"
