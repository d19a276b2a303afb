"""Collecting verdicts: ask every peer what it signed, and add up those that agree.

Peers are asked each turn until they answer for the round as it stands. Nothing that they send is believed: sizes first,
then whether it is of this round, by a seat and its key; then one pairing over the sum of those that agree, and only if
that fails one for each, to find out whose is none. An aggregator posts its own verdicts when a quorum has signed them.
Where the quorum differs from it only in whether a bundle could be had in time, it follows the quorum; where it differs
in anything else it says so, and posts nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol

from ledger.bls import PointInvalid
from ledger.content.errors import CarrierLied, StoreUnavailable
from ledger.content.http_get import Base, Wanted, get
from ledger.quorum import MAX_RECORD_BYTES, SignatureRefused, SignedVerdicts, combine, signed_holds
from ledger.records import Reason, Signed
from ledger.round_state import RoundState
from node.logs import Log
from node.recompute import round_key
from node.watch import Watch

ASK_S: Final = 5.0
AT_ONCE: Final = 8
RECORD_TYPE: Final = "application/json"


class Answers(Protocol):
    """What verifiers say of a round, by peer; silent peers are left out."""

    def ask(self, key: str, heard: Collection[str]) -> Mapping[str, bytes]: ...


class PeerAnswers:
    """Answers over HTTP, from the daemons whose gateways we read anyway."""

    def __init__(self, urls: Collection[str], timeout_s: float) -> None:
        self._bases = tuple(Base.parse(url) for url in urls)
        self._timeout_s = min(ASK_S, timeout_s)

    def ask(self, key: str, heard: Collection[str]) -> Mapping[str, bytes]:
        """`heard`: peers that need not be asked again. Never raises for what a peer does."""
        asked = [base for base in self._bases if base.url not in heard]
        with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
            answers = pool.map(lambda base: self._record(base, key), asked)
            return {base.url: data for base, data in zip(asked, answers, strict=True) if data is not None}

    def _record(self, base: Base, key: str) -> bytes | None:
        wanted = Wanted(f"/verdict/{key}", RECORD_TYPE, RECORD_TYPE, MAX_RECORD_BYTES)
        try:
            with get(base, wanted, self._timeout_s) as chunks:
                return b"".join(chunks)
        except (StoreUnavailable, CarrierLied):
            return None


@dataclass(frozen=True)
class Agreed:
    """What a quorum signed, ready to be posted."""

    reasons: bytes
    signed: Signed


class Collector:
    """Remembers what was heard of one state of one round; a new state begins anew."""

    def __init__(self, answers: Answers, watch: Watch, log: Log) -> None:
        self._answers, self._watch, self._log = answers, watch, log
        self._about = b""
        self._heard: dict[str, SignedVerdicts] = {}
        self._liars: set[str] = set()
        self._said = ""

    def collect(self, state: RoundState, own: bytes) -> Agreed | None:
        """None as long as no quorum has signed what may be posted."""
        if self._about != state.transcript:
            self._about, self._heard, self._liars, self._said = state.transcript, {}, set(), ""
        for peer, data in self._answers.ask(round_key(state), {*self._heard, *self._liars}).items():
            self._take(state, peer, data)
        reasons, records = self._choice(state, own)
        self._tell(state, own, reasons, len(records))
        if len(records) < state.policy.verifier_quorum or not may_follow(own, reasons):
            return None
        signed = self._sum(state, reasons, records)
        return Agreed(reasons, signed) if signed else None

    def _take(self, state: RoundState, peer: str, data: bytes) -> None:
        """A record of another state is no lie: that peer, or we, have not seen the latest block. It is asked again."""
        try:
            record = SignedVerdicts.decode(data)
            record.check_fits(state)
        except SignatureRefused:
            return
        self._heard[peer] = record

    def _choice(self, state: RoundState, own: bytes) -> tuple[bytes, dict[str, SignedVerdicts]]:
        """Our own verdicts with those who signed them, unless others have a quorum and ours have none."""
        groups: dict[bytes, dict[str, SignedVerdicts]] = {own: {}}
        for peer, record in self._heard.items():
            group = groups.setdefault(record.reasons, {})
            if record.member not in {known.member for known in group.values()}:
                group[peer] = record  # a forger who comes first is found out by its signature, and the next one counts
        needed = state.policy.verifier_quorum
        if len(groups[own]) < needed:
            for reasons, records in groups.items():
                if len(records) >= needed:
                    return reasons, records
        return own, groups[own]

    def _sum(self, state: RoundState, reasons: bytes, records: Mapping[str, SignedVerdicts]) -> Signed | None:
        """The aggregate signature; None when it does not hold, and then without those whose signatures do not."""
        try:
            signed = combine(records.values())
            if signed_holds(state, state.transcript, reasons, signed):
                return signed
        except PointInvalid:
            pass
        for peer, record in records.items():
            if not record.holds(state.domain):
                self._log.error("not this member's signature", round=state.number, peer=peer, member=record.member)
                self._liars.add(peer)
                del self._heard[peer]
        return None

    def _tell(self, state: RoundState, own: bytes, reasons: bytes, agreed: int) -> None:
        needed, of = state.policy.verifier_quorum, len(state.verifiers)
        said = f"{agreed} of {of} verifiers agree, {needed} needed"
        if reasons != own:
            said = f"{agreed} of {of} verifiers say {reasons.hex()}, our own verdicts are {own.hex()}"
        self._watch.set(verdicts=said)
        if said != self._said:
            self._said = said
            tell = self._log.info if reasons == own else self._log.error
            tell("verifiers", round=state.number, said=said)


def may_follow(own: bytes, theirs: bytes) -> bool:
    """Do they differ in nothing but whether a bundle was there in time? That nobody can re-run."""
    late = Reason.UNAVAILABLE
    return all(a == b or late in (a, b) for a, b in zip(own, theirs, strict=True))
