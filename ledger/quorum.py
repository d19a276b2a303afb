"""Verdicts by quorum: what verifiers sign, how their signatures travel, and the check of their sum.

A verifier is a seated member with a BLS key (ledger.bls). It signs `verdict_digest`, which pins chain, contract, round,
the round's running hash when it judged (so config, seats, commitments, beacons, submissions, equivocations, proofs) and
the reasons, one byte a seat. Whatever happens in the round afterwards is a new question, to be judged and signed again.

Pure. Pairings are slow, so the law (ledger.rules) checks who signed and leaves whether they did to `check_signed`.

    PeerFault
    └── SignatureRefused   a signed verdict that is not what it says
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from ledger import bls, canonical
from ledger.bls import BlsKey
from ledger.canonical import FieldInvalid, Fields, NotCanonical
from ledger.eip712 import Domain
from ledger.opening import Rule, RuleBroken
from ledger.records import Signed, VerdictsPosted
from ledger.round_state import RoundState, bitmap
from proofs.errors import PeerFault

KIND: Final = "candor/signed-verdicts/1"
MAX_SEATS: Final = 256
MAX_RECORD_BYTES: Final = 4096
MAX_CHARS: Final = 1024
_VERDICTS_LABEL: Final = keccak(text="candor/verdicts/1")
_POSSESSION_LABEL: Final = keccak(text="candor/possession/1")


class SignatureRefused(PeerFault):
    """A signed verdict that is malformed, or not by whom it says, or over another round than ours."""


def key_hash(public: bytes) -> bytes:
    """What the chain keeps of a verifier's key."""
    return keccak(public)


def verdict_digest(domain: Domain, round_number: int, transcript: bytes, reasons: bytes) -> bytes:
    """The 32 bytes that verifiers sign."""
    types = ("bytes32", "uint256", "address", "uint64", "bytes32", "bytes32")
    values = (_VERDICTS_LABEL, domain.chain_id, domain.contract, round_number, transcript, keccak(reasons))
    return keccak(encode(types, values))


def possession_digest(chain_id: int, federation: bytes, member: int, public: bytes) -> bytes:
    """The 32 bytes whose signature under POSSESSION shows that the member has the secret of its key."""
    types = ("bytes32", "uint256", "address", "uint8", "bytes32")
    return keccak(encode(types, (_POSSESSION_LABEL, chain_id, federation, member, key_hash(public))))


def possession(key: BlsKey, chain_id: int, federation: bytes, member: int) -> bytes:
    """The proof that `registerVerifier` asks for."""
    return key.sign(possession_digest(chain_id, federation, member, key.public), bls.POSSESSION)


@dataclass(frozen=True)
class SignedVerdicts:
    """One verifier's verdicts on a round, as it serves them to whoever asks."""

    round: int
    member: int
    transcript: bytes
    reasons: bytes
    key: bytes
    signature: bytes

    def encode(self) -> bytes:
        return canonical.encode(
            {
                "kind": KIND,
                "round": self.round,
                "member": self.member,
                "transcript": self.transcript.hex(),
                "reasons": self.reasons.hex(),
                "key": self.key.hex(),
                "signature": self.signature.hex(),
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> SignedVerdicts:
        """Strict inverse of `encode`. Raises SignatureRefused."""
        try:
            return cls._decode(Fields(canonical.decode(data, max_bytes=MAX_RECORD_BYTES), "signed verdicts"))
        except (NotCanonical, FieldInvalid) as error:
            raise SignatureRefused(str(error)) from error

    @classmethod
    def _decode(cls, fields: Fields) -> SignedVerdicts:
        fields.text("kind", one_of=(KIND,))
        record = cls(
            round=fields.integer("round", 1, canonical.MAX_INTEGER),
            member=fields.integer("member", 0, MAX_SEATS - 1),
            transcript=fields.hex32("transcript"),
            reasons=_octets(fields.text("reasons", max_chars=MAX_CHARS), 1, MAX_SEATS),
            key=_octets(fields.text("key", max_chars=MAX_CHARS), bls.KEY_BYTES, bls.KEY_BYTES),
            signature=_octets(fields.text("signature", max_chars=MAX_CHARS), bls.SIGNATURE_BYTES, bls.SIGNATURE_BYTES),
        )
        fields.done()
        return record

    def check_fits(self, state: RoundState) -> None:
        """Of this round as it stands, by a seat with its key: all but the signature. Raises SignatureRefused."""
        seat = state.seat(self.member)
        if self.round != state.number or seat is None or key_hash(self.key) != seat.verifier:
            raise SignatureRefused(f"member {self.member} does not verify round {state.number} with this key")
        if self.transcript != state.transcript:
            raise SignatureRefused(f"member {self.member} judged another state of round {state.number}")
        if len(self.reasons) != len(state.seats):
            raise SignatureRefused(f"member {self.member}: {len(self.reasons)} reasons for {len(state.seats)} seats")

    def holds(self, domain: Domain) -> bool:
        """Did this key sign this? Slow."""
        digest = verdict_digest(domain, self.round, self.transcript, self.reasons)
        return bls.verify((self.key,), digest, self.signature)


def combine(records: Iterable[SignedVerdicts]) -> Signed:
    """Signatures of different members over the same reasons, added up. Raises PointInvalid for what is none."""
    ordered = sorted(records, key=lambda record: record.member)
    keys = b"".join(record.key for record in ordered)
    total = bls.add_signatures([record.signature for record in ordered])
    return Signed(bitmap(record.member for record in ordered), keys, total)


def signed_holds(state: RoundState, transcript: bytes, reasons: bytes, signed: Signed) -> bool:
    """Is it the signature of these signers over these reasons? Whether they are verifiers is the law's to say. Slow."""
    digest = verdict_digest(state.domain, state.number, transcript, reasons)
    return bls.verify(signed.each_key(), digest, signed.signature)


def check_signed(state: RoundState) -> None:
    """What `rules.apply` leaves owed after VerdictsPosted: the signature is the signers'. Raises RuleBroken. Slow."""
    posted: VerdictsPosted | None = state.verdicts
    if posted is None:
        return
    if not signed_holds(state, state.judged_transcript, posted.reasons, posted.signed):
        who = list(posted.signed.members)
        raise RuleBroken(Rule.VERIFIERS, f"the signature is not that of members {who} over these verdicts")


def _octets(text: Any, least: int, most: int) -> bytes:
    if not isinstance(text, str) or len(text) % 2 or not 2 * least <= len(text) <= 2 * most:
        raise FieldInvalid(f"signed verdicts: expected {least} to {most} bytes of hex")
    if set(text) - set("0123456789abcdef"):
        raise FieldInvalid("signed verdicts: expected lower-case hex")
    return bytes.fromhex(text)
