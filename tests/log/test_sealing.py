"""Only the auditors of the entry read a record: HPKE as in RFC 9180, bound to the entry, to keys that keep a secret."""

from __future__ import annotations

import hmac
from hashlib import sha256

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import canonical
from ledger.log.sealing import (
    FIELD_PRIME,
    FORMAT,
    MAX_RECORD_BYTES,
    SUITE,
    Auditor,
    AuditorKey,
    Envelope,
    KeyInvalid,
    NotARecipient,
    SealInvalid,
    check_key,
    recipients,
    unseal,
)
from proofs.errors import LocalFault, PeerFault

CONTEXT = sha256(b"an entry").digest()
KEYS = [AuditorKey.of(sha256(b"auditor %d" % number).digest()) for number in range(3)]
AUDITORS = [Auditor(bytes([number]) * 20, key.public) for number, key in enumerate(KEYS)]
# The u-coordinates of small order on Curve25519 and its twist (RFC 7748 section 6.1 asks to look for their zero).
SMALL_ORDER = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    FIELD_PRIME - 1,
]


def seal(record: bytes, auditors: list[Auditor], context: bytes) -> bytes:
    return Envelope.to(auditors).seal(record, context)


# ------------------------------------------------------------------------------------- RFC 9180, slowly and in the open


def extract(salt: bytes, key: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), key, "sha256")


def expand(key: bytes, info: bytes, size: int) -> bytes:
    block = hmac.digest(key, info + b"\x01", "sha256")
    return (block + hmac.digest(key, block + info + b"\x02", "sha256"))[:size]


def labeled(suite: bytes, salt: bytes, label: bytes, key: bytes) -> bytes:
    return extract(salt, b"HPKE-v1" + suite + label + key)


def labeled_expand(suite: bytes, key: bytes, label: bytes, info: bytes, size: int) -> bytes:
    return expand(key, size.to_bytes(2) + b"HPKE-v1" + suite + label + info, size)


def slow_open(encapsulated: bytes, sealed: bytes, secret: bytes, info: bytes, aad: bytes) -> bytes:
    """SetupBaseR and Open of sections 4.1, 5.1 and 5.2 for this suite."""
    kem, suite = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\x00\x03"
    private = X25519PrivateKey.from_private_bytes(secret)
    shared = private.exchange(X25519PublicKey.from_public_bytes(encapsulated))
    both = encapsulated + private.public_key().public_bytes_raw()
    shared = labeled_expand(kem, labeled(kem, b"", b"eae_prk", shared), b"shared_secret", both, 32)
    context = b"\x00" + labeled(suite, b"", b"psk_id_hash", b"") + labeled(suite, b"", b"info_hash", info)
    scheduled = labeled(suite, shared, b"secret", b"")
    key = labeled_expand(suite, scheduled, b"key", context, 32)
    nonce = labeled_expand(suite, scheduled, b"base_nonce", context, 12)
    return ChaCha20Poly1305(key).decrypt(nonce, sealed, aad)


def test_the_slow_twin_opens_the_vector_of_rfc_9180() -> None:
    """Appendix A.2.1.1."""
    secret = bytes.fromhex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb")
    encapsulated = bytes.fromhex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a")
    sealed = bytes.fromhex("1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28")
    info = bytes.fromhex("4f6465206f6e2061204772656369616e2055726e")
    assert slow_open(encapsulated, sealed, secret, info, b"Count-0") == b"Beauty is truth, truth beauty"


def test_the_suite_is_that_of_the_slow_twin() -> None:
    public = X25519PublicKey.from_public_bytes(KEYS[0].public)
    sealed = SUITE.encrypt(b"content key", public, info=b"info")
    assert slow_open(sealed[:32], sealed[32:], KEYS[0].secret, b"info", b"") == b"content key"


# ------------------------------------------------------------------------------------------------------------- records


@settings(max_examples=30)
@given(st.binary(max_size=5000))
def test_every_auditor_reads_the_same_record(record: bytes) -> None:
    sealed = seal(record, AUDITORS, CONTEXT)
    assert [unseal(sealed, key, CONTEXT) for key in KEYS] == [record] * 3
    assert recipients(sealed) == tuple(AUDITORS)
    if len(record) > 16:
        assert record not in sealed


def test_an_auditor_who_was_not_named_reads_nothing() -> None:
    sealed = seal(b"record", AUDITORS[:2], CONTEXT)
    with pytest.raises(NotARecipient):
        unseal(sealed, KEYS[2], CONTEXT)


def test_a_record_opens_beside_its_own_entry_only() -> None:
    sealed = seal(b"record", AUDITORS, CONTEXT)
    with pytest.raises(SealInvalid):
        unseal(sealed, KEYS[0], sha256(b"another entry").digest())


def test_sealing_twice_gives_two_ciphertexts() -> None:
    assert seal(b"record", AUDITORS, CONTEXT) != seal(b"record", AUDITORS, CONTEXT)


def test_records_of_one_envelope_have_keys_of_their_own() -> None:
    """By the slow twins of RFC 9180 and RFC 5869: the seed under HPKE, from it a content key for each entry."""
    envelope, contexts = Envelope.to(AUDITORS[:1]), [sha256(b"entry %d" % number).digest() for number in range(3)]
    sealed = [envelope.seal(b"record", context) for context in contexts]
    size = int.from_bytes(sealed[0][:4])
    head = sealed[0][4 : 4 + size]
    (to,) = canonical.decode(head, max_bytes=1 << 13)["recipients"]
    wrapped, info = bytes.fromhex(to["wrapped"]), FORMAT.encode() + b"\0seed\0" + AUDITORS[0].address + KEYS[0].public
    seed = slow_open(wrapped[:32], wrapped[32:], KEYS[0].secret, info, b"")
    keys = [expand(seed, FORMAT.encode() + b"\0content\0" + context, 32) for context in contexts]
    assert len(set(keys)) == 3
    for each, key, context in zip(sealed, keys, contexts, strict=True):
        assert each[4 : 4 + size] == head
        bound = context + sha256(head).digest()
        assert b"record" in ChaCha20Poly1305(key).decrypt(bytes(12), each[4 + size :], bound)
        assert unseal(each, KEYS[0], context) == b"record"
        for other in set(contexts) - {context}:
            with pytest.raises(SealInvalid):
                unseal(each, KEYS[0], other)


def test_a_body_does_not_open_under_the_head_of_another_group() -> None:
    first, second = (seal(b"record", AUDITORS[:1], CONTEXT) for _ in range(2))
    size = 4 + int.from_bytes(first[:4])
    assert len(first) == len(second)
    with pytest.raises(SealInvalid):
        unseal(first[:size] + second[size:], KEYS[0], CONTEXT)


def test_a_changed_bit_anywhere_is_refused() -> None:
    sealed = seal(b"record", AUDITORS[:1], CONTEXT)
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises((PeerFault, NotARecipient)):
            unseal(bytes(changed), KEYS[0], CONTEXT)


def test_an_auditor_cannot_be_struck_from_the_head_unseen() -> None:
    """The body is bound to the whole head, and to its order."""
    sealed = seal(b"record", AUDITORS, CONTEXT)
    size = int.from_bytes(sealed[:4])
    head = canonical.decode(sealed[4 : 4 + size], max_bytes=1 << 13)
    for kept in (head["recipients"][:2], head["recipients"][::-1]):
        shorter = canonical.encode({**head, "recipients": kept})
        with pytest.raises(SealInvalid):
            unseal(len(shorter).to_bytes(4) + shorter + sealed[4 + size :], KEYS[0], CONTEXT)


@pytest.mark.parametrize("data", [b"", b"\0\0\0", bytes(4), b"\xff" * 100, bytes(4) + bytes(100)])
def test_bytes_that_are_no_record(data: bytes) -> None:
    with pytest.raises(SealInvalid):
        unseal(data, KEYS[0], CONTEXT)


def test_a_head_that_is_not_strict_is_refused() -> None:
    sealed = seal(b"record", AUDITORS[:1], CONTEXT)
    size = int.from_bytes(sealed[:4])
    good = canonical.decode(sealed[4 : 4 + size], max_bytes=1 << 13)
    to = good["recipients"][0]
    heads = [
        {**good, "format": "candor/sealed/1"},
        {**good, "more": 1},
        {"format": good["format"]},
        {**good, "recipients": [to] * 17},
        {**good, "recipients": [{**to, "wrapped": to["wrapped"][2:]}]},
        {**good, "recipients": [{**to, "key": to["key"].upper() + "zz"}]},
        {**good, "recipients": [{**to, "extra": ""}]},
        {**good, "recipients": "none"},
    ]
    for head in map(canonical.encode, heads):
        with pytest.raises(SealInvalid):
            unseal(len(head).to_bytes(4) + head + sealed[4 + size :], KEYS[0], CONTEXT)


def test_lengths_tell_little() -> None:
    """Padmé: all records of 2,000 to 2,040 bytes look the same, at a cost of 12 % at most."""
    lengths = {len(seal(bytes(size), AUDITORS[:1], CONTEXT)) for size in range(2000, 2041)}
    assert len(lengths) == 1
    for size in (1, 10, 100, 1000, 10_000, 100_000):
        plain = len(seal(bytes(size), AUDITORS[:1], CONTEXT)) - len(seal(b"", AUDITORS[:1], CONTEXT))
        assert plain <= (size + 4) * 1.12


def test_nothing_is_sealed_for_nobody_or_without_bound() -> None:
    for record, to, context in (
        (b"", [], CONTEXT),
        (b"", AUDITORS * 6, CONTEXT),
        (bytes(MAX_RECORD_BYTES + 1), AUDITORS, CONTEXT),
        (b"", AUDITORS, b"short"),
    ):
        with pytest.raises(LocalFault):
            seal(record, to, context)


# ---------------------------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize("point", SMALL_ORDER, ids=["0", "1", "order 8", "order 8, the other", "p - 1"])
def test_a_key_whose_shared_secret_would_be_zero_is_refused(point: int) -> None:
    with pytest.raises(KeyInvalid, match="small order"):
        check_key(point.to_bytes(32, "little"))
    with pytest.raises(KeyInvalid):
        Auditor(bytes(20), point.to_bytes(32, "little"))


@pytest.mark.parametrize(
    "key",
    [
        b"",
        bytes(31),
        bytes(33),
        FIELD_PRIME.to_bytes(32, "little"),
        (FIELD_PRIME + 9).to_bytes(32, "little"),
        b"\xff" * 32,
    ],
    ids=["empty", "short", "long", "p", "another spelling of 9", "top bit"],
)
def test_a_key_that_is_malformed_or_spelt_in_another_way_is_refused(key: bytes) -> None:
    with pytest.raises(KeyInvalid, match="below"):
        check_key(key)


def test_an_encapsulated_key_of_small_order_opens_nothing() -> None:
    """What a server may send to have the shared secret known to everybody."""
    for point in SMALL_ORDER:
        wrapped = point.to_bytes(32, "little") + bytes(48)
        head = canonical.encode(
            {
                "format": FORMAT,
                "recipients": [
                    {"auditor": bytes(20).hex(), "key": KEYS[0].public.hex(), "wrapped": wrapped.hex()},
                ],
            }
        )
        with pytest.raises(SealInvalid):
            unseal(len(head).to_bytes(4) + head + bytes(64), KEYS[0], CONTEXT)
        with pytest.raises((InvalidTag, ValueError)):
            SUITE.decrypt(wrapped, X25519PrivateKey.from_private_bytes(KEYS[0].secret), info=b"")


def test_a_secret_stays_out_of_the_repr() -> None:
    key = AuditorKey.create()
    assert key.secret.hex() not in repr(key)
    assert repr(key.secret) not in repr(key)
    envelope = Envelope.to(AUDITORS)
    assert repr(envelope.seed) not in repr(envelope)
    assert AuditorKey.of(key.secret) == key
    with pytest.raises(LocalFault):
        AuditorKey.of(b"short")
    with pytest.raises(LocalFault):
        Auditor(b"short", key.public)
