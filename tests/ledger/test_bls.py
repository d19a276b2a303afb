"""BLS signatures: RFC 9380's own points, py_ecc's ciphersuite, the contract's bytes; what is no point is refused."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from py_ecc.bls import G2ProofOfPossession
from py_ecc.bls.hash_to_curve import hash_to_G2
from py_ecc.optimized_bls12_381 import curve_order, field_modulus

from ledger import bls
from ledger.bls import BlsKey, PointInvalid, add_signatures, decode_key, decode_signature, verify

DIGEST = sha256(b"candor").digest()
KEYS = [BlsKey.derived(sha256(f"test key {n}".encode()).digest(), b"tests") for n in range(3)]
RFC_TAG = b"QUUX-V01-CS02-with-BLS12381G2_XMD:SHA-256_SSWU_RO_"
RFC_POINTS = {
    b"": (
        "0141ebfbdca40eb85b87142e130ab689c673cf60f1a3e98d69335266f30d9b8d4ac44c1038e9dcdd5393faf5c41fb78a",
        "05cb8437535e20ecffaef7752baddf98034139c38452458baeefab379ba13dff5bf5dd71b72418717047f5b0f37da03d",
        "0503921d7f6a12805e72940b963c0cf3471c7b2a524950ca195d11062ee75ec076daf2d4bc358c4b190c0c98064fdd92",
        "12424ac32561493f3fe3c260708a12b7c620e7be00099a974e259ddc7d1f6395c3c811cdd19f1e8dbf3e9ecfdcbab8d6",
    ),
    b"abc": (
        "02c2d18e033b960562aae3cab37a27ce00d80ccd5ba4b7fe0e7a210245129dbec7780ccc7954725f4168aff2787776e6",
        "139cddbccdc5e91b9623efd38c49f81a6f83f175e80b06fc374de9eb4b41dfe4ca3a230ed250fbe3a2acf73a41177fd8",
        "1787327b68159716a37440985269cf584bcb1e621d3a7202be6ea05c4cfe244aeb197642555a0645fb87bf7466b2ba48",
        "00aa65dae3c8d732d10ecd2c50f8a1baf3001578f71c694e03866e9f3d49ac1e1ce70dd94a733534f106d4cec0eddd16",
    ),
}


def key_48(public: bytes) -> bytes:
    """A key as py_ecc and the draft write it: compressed."""
    x, y = int.from_bytes(public[:64]), int.from_bytes(public[64:])
    return ((1 << 383) | (int(2 * y >= field_modulus) << 381) | x).to_bytes(48)


@pytest.mark.parametrize("message", RFC_POINTS)
def test_hash_to_curve_is_that_of_rfc_9380(message: bytes) -> None:
    """Appendix J.10.1; contracts/test/Quorum.t.sol holds the contract to the same points."""
    expected = b"".join(bytes(16) + bytes.fromhex(part) for part in RFC_POINTS[message])
    assert bls._encode(hash_to_G2(message, RFC_TAG, sha256)) == expected


def test_the_contracts_vector_is_ours() -> None:
    """The key and the signature that contracts/test/Quorum.t.sol verifies on chain."""
    number = G2ProofOfPossession.KeyGen(b"candor tests" * 4)
    key = BlsKey.derived(b"candor tests" * 4, b"")
    assert key.secret == number
    assert key.public.hex().startswith("0" * 32 + "189608ccf76dfe07fb7d750b78a88398")
    assert key.sign(DIGEST).hex().startswith("0" * 32 + "0b5e833c17eec575ebc1a2fa99442525")


def test_a_signature_is_that_of_the_drafts_ciphersuite() -> None:
    key = KEYS[0]
    compressed = G2ProofOfPossession.Sign(key.secret, DIGEST)
    assert bls._encode(bls_point(compressed)) == key.sign(DIGEST)
    assert G2ProofOfPossession.SkToPk(key.secret) == key_48(key.public)
    assert G2ProofOfPossession.Verify(key_48(key.public), DIGEST, compressed)
    assert verify((key.public,), DIGEST, key.sign(DIGEST))


def bls_point(compressed: bytes) -> object:
    from py_ecc.bls.g2_primitives import signature_to_G2

    return signature_to_G2(compressed)


def test_signatures_add_up_and_only_over_one_digest() -> None:
    publics = tuple(key.public for key in KEYS)
    total = add_signatures([key.sign(DIGEST) for key in KEYS])
    assert verify(publics, DIGEST, total)
    assert verify(publics[::-1], DIGEST, total)
    assert not verify(publics[:2], DIGEST, total)
    assert not verify((*publics, publics[0]), DIGEST, total)
    assert not verify(publics, sha256(b"another").digest(), total)
    mixed = add_signatures([KEYS[0].sign(DIGEST), KEYS[1].sign(sha256(b"another").digest())])
    assert not verify(publics[:2], DIGEST, mixed)


def test_the_tags_keep_verdicts_and_possession_apart() -> None:
    key = KEYS[0]
    proof = key.sign(DIGEST, bls.POSSESSION)
    assert verify((key.public,), DIGEST, proof, bls.POSSESSION)
    assert not verify((key.public,), DIGEST, proof)


def test_nobody_signs_without_a_key() -> None:
    assert not verify((), DIGEST, KEYS[0].sign(DIGEST))
    assert not verify((), DIGEST, bytes(256))


def test_keys_and_signatures_that_cancel_are_refused() -> None:
    key = KEYS[0]
    negated = key.public[:64] + (field_modulus - int.from_bytes(key.public[64:])).to_bytes(64)
    decode_key(negated)
    assert not verify((key.public, negated), DIGEST, key.sign(DIGEST))
    mirror = BlsKey(curve_order - key.secret, negated)
    with pytest.raises(PointInvalid, match="cancel"):
        add_signatures([key.sign(DIGEST), mirror.sign(DIGEST)])


def stray_key() -> bytes:
    """On the curve and outside the subgroup."""
    x = next(x for x in range(1, 99) if pow(x**3 + 4, (field_modulus - 1) // 2, field_modulus) == 1)
    return x.to_bytes(64) + pow(x**3 + 4, (field_modulus + 1) // 4, field_modulus).to_bytes(64)


def test_a_point_has_one_encoding_and_lies_in_the_subgroup() -> None:
    good = KEYS[0].public
    x, y = int.from_bytes(good[:64]), int.from_bytes(good[64:])
    bad = [
        b"",
        good[:-1],
        good + b"\0",
        bytes(128),
        (x + field_modulus).to_bytes(64) + good[64:],
        good[:64] + (y + 1).to_bytes(64),
        b"\x01" + good[1:],
        stray_key(),
    ]
    for data in bad:
        with pytest.raises(PointInvalid):
            decode_key(data)
        assert not verify((data,), DIGEST, KEYS[0].sign(DIGEST))
    for data in (bytes(256), good, good + good, b"\xff" * 256):
        with pytest.raises(PointInvalid):
            decode_signature(data)
        assert not verify((good,), DIGEST, data)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_no_bit_of_a_signature_is_free(data: st.DataObject) -> None:
    signature = bytearray(KEYS[0].sign(DIGEST))
    signature[data.draw(st.integers(0, 255))] ^= 1 << data.draw(st.integers(0, 7))
    assert not verify((KEYS[0].public,), DIGEST, bytes(signature))


def test_a_secret_is_in_no_repr() -> None:
    assert str(KEYS[0].secret) not in repr(KEYS[0])
    assert f"{KEYS[0].secret:x}" not in repr(KEYS[0])
