"""Signed verdicts on their way: one strict form, and only over the round that is meant."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256

import pytest

from ledger.bls import BlsKey
from ledger.eip712 import Domain
from ledger.quorum import MAX_RECORD_BYTES, SignatureRefused, SignedVerdicts, combine, possession_digest, verdict_digest
from proofs.errors import PeerFault

DOMAIN = Domain(31337, b"\x11" * 20)
TRANSCRIPT = sha256(b"so far").digest()
KEY = BlsKey.derived(sha256(b"verifier").digest(), b"")
DIGEST = verdict_digest(DOMAIN, 3, TRANSCRIPT, bytes(3))
GOOD = SignedVerdicts(3, 1, TRANSCRIPT, bytes(3), KEY.public, KEY.sign(DIGEST))


def test_a_record_comes_back_from_its_bytes() -> None:
    assert SignedVerdicts.decode(GOOD.encode()) == GOOD
    assert GOOD.holds(DOMAIN)
    largest = replace(GOOD, round=2**53 - 1, member=255, reasons=bytes(256))
    assert len(largest.encode()) <= MAX_RECORD_BYTES
    assert SignedVerdicts.decode(largest.encode()) == largest


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "candor/signed-verdicts/2"},
        {"round": 0},
        {"round": "3"},
        {"member": 256},
        {"member": True},
        {"transcript": "00"},
        {"reasons": ""},
        {"reasons": "0"},
        {"reasons": "00" * 257},
        {"reasons": "0G"},
        {"key": KEY.public.hex()[:-2]},
        {"key": KEY.public.hex().upper()},
        {"signature": GOOD.signature.hex() + "00"},
        {"signature": None},
        {"more": 1},
    ],
)
def test_a_record_that_is_not_in_its_one_form_is_refused(change: dict[str, object]) -> None:
    value = json.loads(GOOD.encode()) | change
    with pytest.raises(SignatureRefused):
        SignedVerdicts.decode(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def test_missing_fields_and_other_spellings_are_refused() -> None:
    for name in json.loads(GOOD.encode()):
        value = {key: each for key, each in json.loads(GOOD.encode()).items() if key != name}
        with pytest.raises(SignatureRefused):
            SignedVerdicts.decode(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())
    for data in (b"", GOOD.encode() + b"\n", b" " + GOOD.encode(), bytes(MAX_RECORD_BYTES + 1)):
        with pytest.raises(SignatureRefused):
            SignedVerdicts.decode(data)
    assert issubclass(SignatureRefused, PeerFault)


def test_the_digest_pins_everything() -> None:
    others = [
        verdict_digest(Domain(1, DOMAIN.contract), 3, TRANSCRIPT, bytes(3)),
        verdict_digest(Domain(31337, b"\x12" * 20), 3, TRANSCRIPT, bytes(3)),
        verdict_digest(DOMAIN, 4, TRANSCRIPT, bytes(3)),
        verdict_digest(DOMAIN, 3, bytes(32), bytes(3)),
        verdict_digest(DOMAIN, 3, TRANSCRIPT, bytes([0, 0, 17])),
        verdict_digest(DOMAIN, 3, TRANSCRIPT, bytes(4)),
        possession_digest(31337, DOMAIN.contract, 3, KEY.public),
        possession_digest(31337, DOMAIN.contract, 4, KEY.public),
        possession_digest(1, DOMAIN.contract, 3, KEY.public),
    ]
    assert len({DIGEST, *others}) == 1 + len(others)


def test_another_domain_or_other_reasons_are_not_what_was_signed() -> None:
    assert not GOOD.holds(Domain(1, DOMAIN.contract))
    assert not replace(GOOD, reasons=bytes([0, 0, 17])).holds(DOMAIN)
    assert not replace(GOOD, transcript=bytes(32)).holds(DOMAIN)
    assert replace(GOOD, member=2).holds(DOMAIN), "whose key it is, the seat says: check_fits"


def test_records_are_combined_in_the_order_of_members() -> None:
    other = BlsKey.derived(sha256(b"another").digest(), b"")
    second = SignedVerdicts(3, 0, TRANSCRIPT, bytes(3), other.public, other.sign(DIGEST))
    signed = combine([GOOD, second])
    assert signed.members == (0, 1)
    assert signed.each_key() == (other.public, KEY.public)
