"""A receipt can be checked with the server's on-chain key alone, and each of its rules refuses one changed thing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from hashlib import sha256
from typing import Any

import pytest
from eth_utils.crypto import keccak

from ledger import canonical
from ledger.eip712 import Domain
from ledger.log import statements
from ledger.log.receipt import (
    Decoding,
    Entry,
    Owed,
    Receipt,
    ReceiptRefused,
    ReceiptRule,
    Record,
    Server,
    check_receipt,
    check_signature,
    check_texts,
    enter,
    field_salt,
    fresh_salt,
    issue,
    open_record,
    salted,
)
from ledger.log.sealing import Auditor, AuditorKey, Envelope, NotARecipient, SealInvalid
from ledger.log.statements import Checkpoint, Promise
from ledger.signing import Key
from proofs.errors import LocalFault, PeerFault
from proofs.merkle import inclusion_path, leaf_hash, root_of_hashes

KEY = Key.of(keccak(text="server"))
DOMAIN = Domain(31337, b"\xaa" * 20)
SERVER = Server(DOMAIN, KEY.address, 50)
BUNDLE = sha256(b"bundle").digest()
AUDITOR = AuditorKey.of(sha256(b"auditor").digest())
REQUEST, RESPONSE = b'{"prompt":"is my loan approved?"}', b'{"text":"no"}'
DECODING = Decoding(64, Fraction(7, 10), Fraction(9, 10), 40, 1234, ("\n",))
RECORD = Record(DECODING, sha256(b"salt").digest(), REQUEST, RESPONSE)
BLANK = Entry(31337, DOMAIN.contract, KEY.address, 5, 1_750_000_000_000, 100, 140, BUNDLE, *[bytes(32)] * 4)
ENTRY, SEALED = enter(replace(BLANK, **RECORD.digests()), RECORD, Envelope.to([Auditor(b"\xbb" * 20, AUDITOR.public)]))
RECEIPT = issue(KEY.secret, ENTRY, RECORD)
GOLDEN_ENTRY = "544259dfbf6d01b955597b6697b29bacf32088cbd9a407a9ac483b834f763466"
GOLDEN_SIGNATURE = (
    "d6668b40ed9ca50f0a07450de18ed2701fcca2046086f2cd33d7e7eef99a0d91"
    "309041b0cbe7dd9075faabab52106409307dca2c37a84eeb1046dd0bd3b97b3e1b"
)


def check(receipt: Receipt = RECEIPT, **changes: Any) -> Owed:
    given = {"server": SERVER, "request": REQUEST, "response": RESPONSE, "bundle": BUNDLE, "head_block": 100}
    return check_receipt(receipt, **{**given, **changes})


def refused(rule: ReceiptRule, call: Callable[[], Any]) -> None:
    with pytest.raises(ReceiptRefused) as caught:
        call()
    assert caught.value.rule is rule


def signed(**changes: Any) -> Receipt:
    """An honest signature on another entry."""
    return issue(KEY.secret, replace(ENTRY, **changes), RECORD)


def test_a_good_receipt_is_owed_its_leaf_by_a_block() -> None:
    owed = check()
    assert owed.promise == Promise(5, 140, ENTRY.leaf)
    assert (owed.is_due(140), owed.is_due(141)) == (False, True)
    assert ENTRY.leaf == leaf_hash(ENTRY.encode())


def test_the_log_settles_what_is_owed() -> None:
    leaves = [leaf_hash(bytes([number])) for number in range(5)] + [ENTRY.leaf, leaf_hash(b"next")]
    path = inclusion_path(leaves, 5)
    check().settle(7, root_of_hashes(leaves), path)
    refused(ReceiptRule.INCLUDED, lambda: check().settle(7, bytes(32), path))
    refused(ReceiptRule.INCLUDED, lambda: check().settle(5, root_of_hashes(leaves[:5]), path))
    moved = [leaves[5], *leaves[:5]]
    refused(ReceiptRule.INCLUDED, lambda: check().settle(6, root_of_hashes(moved), inclusion_path(moved, 0)))


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        (ReceiptRule.DOMAIN, {"server": replace(SERVER, domain=Domain(1, DOMAIN.contract))}),
        (ReceiptRule.DOMAIN, {"server": replace(SERVER, domain=Domain(31337, bytes(20)))}),
        (ReceiptRule.SERVER, {"server": replace(SERVER, address=bytes(20))}),
        (ReceiptRule.PROMISE, {"server": replace(SERVER, promise_blocks=39)}),
        (ReceiptRule.ISSUED, {"head_block": 99}),
        (ReceiptRule.BUNDLE, {"bundle": sha256(b"another").digest()}),
        (ReceiptRule.REQUEST, {"request": REQUEST + b" "}),
        (ReceiptRule.RESPONSE, {"response": b'{"text":"yes"}'}),
    ],
)
def test_every_rule_refuses_with_its_own_name(rule: ReceiptRule, changes: dict[str, Any]) -> None:
    refused(rule, lambda: check(**changes))
    assert issubclass(ReceiptRefused, PeerFault)


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        (ReceiptRule.DOMAIN, {"chain_id": 1}),
        (ReceiptRule.DOMAIN, {"contract": b"\xab" * 20}),
        (ReceiptRule.SERVER, {"server": b"\xab" * 20}),
        (ReceiptRule.PROMISE, {"due_block": 100}),
        (ReceiptRule.PROMISE, {"due_block": 151}),
        (ReceiptRule.ISSUED, {"issued_block": 101}),
        (ReceiptRule.BUNDLE, {"bundle": bytes(32)}),
        (ReceiptRule.TERMS, {"terms": bytes(32)}),
        (ReceiptRule.REQUEST, {"request": bytes(32)}),
        (ReceiptRule.RESPONSE, {"response": bytes(32)}),
    ],
)
def test_a_dishonest_server_signs_in_vain(rule: ReceiptRule, changes: dict[str, Any]) -> None:
    """Rightly signed, and still refused."""
    refused(rule, lambda: check(signed(**changes)))


@pytest.mark.parametrize("name", ["sequence", "time_ms", "due_block", "issued_block", "bundle", "request", "sealed"])
def test_a_field_changed_after_signing_breaks_the_signature(name: str) -> None:
    value = getattr(ENTRY, name)
    changed = replace(ENTRY, **{name: value + 1 if isinstance(value, int) else bytes(32)})
    refused(ReceiptRule.SIGNATURE, lambda: check_signature(replace(RECEIPT, entry=changed), SERVER))


def test_another_decoding_or_salt_is_not_that_of_the_entry() -> None:
    refused(ReceiptRule.TERMS, lambda: check(replace(RECEIPT, decoding=replace(DECODING, seed=1))))
    refused(ReceiptRule.REQUEST, lambda: check(replace(RECEIPT, salt=bytes(32))))


def test_a_signature_by_another_key_or_by_none() -> None:
    other = issue(Key.of(keccak(text="other")).secret, ENTRY, RECORD)
    refused(ReceiptRule.SIGNATURE, lambda: check(other))
    refused(ReceiptRule.SIGNATURE, lambda: check(replace(RECEIPT, signature=bytes(65))))
    high = (2**256 - 1).to_bytes(32)
    refused(ReceiptRule.SIGNATURE, lambda: check(replace(RECEIPT, signature=RECEIPT.signature[:32] + high + b"\x1b")))


def test_a_checkpoint_is_never_a_promise() -> None:
    """Two kinds of statements with the same numbers in them have different digests."""
    promise, checkpoint = Promise(5, 140, BUNDLE), Checkpoint(5, BUNDLE)
    assert promise.digest(DOMAIN) != checkpoint.digest(DOMAIN)
    signature = statements.sign(KEY.secret, DOMAIN, checkpoint)
    assert statements.signer(DOMAIN, checkpoint, signature) == KEY.address
    assert statements.signer(DOMAIN, promise, signature) != KEY.address
    assert statements.signer(Domain(1, DOMAIN.contract), checkpoint, signature) != KEY.address


# -------------------------------------------------------------------------------------------------------------- bytes


def test_what_is_written_is_read_back() -> None:
    assert Receipt.decode(RECEIPT.encode()) == RECEIPT
    assert Entry.decode(ENTRY.encode()) == ENTRY
    assert Record.decode(RECORD.encode()) == RECORD
    assert len(ENTRY.encode()) < 1000


def changed_json(data: bytes) -> list[bytes]:
    """The same object with one key gone, one more, one of another type, and in another form."""
    value = canonical.decode(data, max_bytes=1 << 16)
    variants = [{key: item for key, item in value.items() if key != left} for left in value]
    variants += [{**value, "more": 1}, {**value, "format": "candor/other/1"}]
    variants += [{**value, key: None} for key in value]
    return [*map(canonical.encode, variants), data + b" ", data[:-1], b"", b"[]", b"\xff", data.replace(b":", b": ", 1)]


def test_decoding_is_strict() -> None:
    for bad in changed_json(ENTRY.encode()):
        refused(ReceiptRule.FORMAT, lambda bad=bad: Entry.decode(bad))
    for bad in changed_json(RECEIPT.encode()):
        refused(ReceiptRule.FORMAT, lambda bad=bad: Receipt.decode(bad))
    for bad in (b"", bytes(4), b"\0\0\0\xff", RECORD.encode()[:-1], RECORD.encode() + b"x", bytes(100)):
        refused(ReceiptRule.FORMAT, lambda bad=bad: Record.decode(bad))


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": -1}, {"seed": 2**53}, {"max_tokens": -1}, {"temperature": Fraction(-1)}, {"top_p": Fraction(0)},
        {"top_p": Fraction(3, 2)}, {"top_k": -1}, {"stop": ("",)}, {"stop": ("x" * 257,)}, {"stop": ("x",) * 17},
    ],
)  # fmt: skip
def test_a_decoding_outside_its_ranges_is_refused(changes: dict[str, Any]) -> None:
    value = replace(RECEIPT, decoding=replace(DECODING, **changes))
    try:
        data = value.encode()
    except LocalFault:
        return
    refused(ReceiptRule.FORMAT, lambda: Receipt.decode(data))


def test_the_bytes_of_an_entry_are_for_ever() -> None:
    """Golden: another layout is another format, and old receipts keep verifying."""
    golden = replace(BLANK, **RECORD.digests())
    assert sha256(golden.encode()).hexdigest() == GOLDEN_ENTRY
    signature = statements.sign(KEY.secret, DOMAIN, golden.promise)
    assert signature.hex() == GOLDEN_SIGNATURE


# ------------------------------------------------------------------------------------------------------ what others see


def test_the_public_sees_digests_only() -> None:
    """Nothing of request, response, decoding or salt is in the entry or the sealed record."""
    for text in (REQUEST, RESPONSE, b"temperature", b"7/10", RECEIPT.salt, RECEIPT.salt.hex().encode()):
        assert text not in ENTRY.encode()
        assert text not in SEALED
    guess = sha256(REQUEST).digest()
    assert ENTRY.request not in (guess, salted(bytes(32), REQUEST))


def test_showing_one_text_gives_nothing_away_of_the_others() -> None:
    salt = field_salt(RECEIPT.salt, "request")
    assert salted(salt, REQUEST) == ENTRY.request
    assert salted(salt, RESPONSE) != ENTRY.response
    assert len({field_salt(RECEIPT.salt, name) for name in ("request", "response", "terms")}) == 3


def test_what_was_written_once_is_what_is_written_anew() -> None:
    """Entry and receipt keep what they encoded, and put it together."""
    ends = [
        Entry(whole, octet * 20, octet * 20, *[whole] * 4, *[octet * 32] * 5)
        for whole, octet in ((0, b"\0"), (canonical.MAX_INTEGER, b"\xff"))
    ]
    for entry in (ENTRY, BLANK, replace(BLANK, sealed=sha256(b"x").digest()), *ends):
        assert entry.encode() == entry.encode()
        assert entry.encode() == canonical.encode(entry.to_json())
        assert Entry.decode(entry.encode()) == entry
    for beyond in (-1, canonical.MAX_INTEGER + 1):
        with pytest.raises(LocalFault):
            replace(ENTRY, time_ms=beyond).encode()
    assert ENTRY.context == replace(ENTRY, sealed=bytes(32)).context == replace(ENTRY, sealed=b"\1" * 32).context
    told = canonical.decode(RECEIPT.encode(), max_bytes=1 << 14)
    assert told["entry"] == ENTRY.to_json()
    assert told["decoding"] == DECODING.to_json()
    head = RECORD.encode()[4 : 4 + int.from_bytes(RECORD.encode()[:4])]
    told = canonical.decode(head, max_bytes=1 << 14)
    assert (told["decoding"], told["salt"]) == (DECODING.to_json(), RECORD.salt.hex())
    assert (told["request_bytes"], told["response_bytes"]) == (len(REQUEST), len(RESPONSE))


def test_equal_questions_look_different() -> None:
    again = replace(RECORD, salt=fresh_salt()).digests()
    assert again.keys() == RECORD.digests().keys()
    assert not set(again.values()) & set(RECORD.digests().values())
    with pytest.raises(LocalFault):
        salted(b"short", b"")


def test_an_auditor_reads_the_record_and_holds_it_against_the_entry() -> None:
    assert open_record(ENTRY, SEALED, AUDITOR) == RECORD
    check_texts(ENTRY, RECORD)
    with pytest.raises(NotARecipient):
        open_record(ENTRY, SEALED, AuditorKey.create())


def test_a_record_that_is_not_that_of_the_entry_is_refused() -> None:
    """Another ciphertext; one that was moved here; and one with other texts, sealed by the server itself."""
    envelope = Envelope.to([Auditor(b"\xbb" * 20, AUDITOR.public)])
    refused(ReceiptRule.SEALED, lambda: open_record(ENTRY, SEALED + b"x", AUDITOR))
    moved = replace(ENTRY, sequence=6)
    with pytest.raises(SealInvalid):
        open_record(moved, SEALED, AUDITOR)
    lie = envelope.seal(replace(RECORD, response=b"yes").encode(), ENTRY.context)
    refused(ReceiptRule.RESPONSE, lambda: open_record(replace(ENTRY, sealed=canonical.digest(lie)), lie, AUDITOR))
    garbage = envelope.seal(b"garbage", ENTRY.context)
    refused(ReceiptRule.FORMAT, lambda: open_record(replace(ENTRY, sealed=canonical.digest(garbage)), garbage, AUDITOR))
