"""BLS signatures on BLS12-381 as the contract checks them (contracts/src/libraries/Bls.sol).

Keys are in G1, signatures in G2: the proof-of-possession ciphersuite of draft-irtf-cfrg-bls-signature, by py_ecc. What
is signed is always a digest of 32 bytes. Who signs the same digest can be added up: the sum of the signatures is a
signature by the sum of the keys. That is safe only among keys whose secrets their owners were shown to have
(`quorum.possession_digest`), which Federation sees to.

Points are EIP-2537's, uncompressed: a key is x ‖ y (128 bytes), a signature x.c0 ‖ x.c1 ‖ y.c0 ‖ y.c1 (256). There is
one encoding of a point; infinity, what is off the curve and what is outside the subgroup of order r are none.

py_ecc is plain Python: about 0.1 s to sign and 0.3 s to verify. It takes no constant time either: who can measure a
signer closely may learn about its key.

    PeerFault
    └── PointInvalid   bytes that are no key, or no signature
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final

from py_ecc.bls import G2ProofOfPossession
from py_ecc.bls.g2_primitives import pubkey_to_G1, subgroup_check
from py_ecc.bls.hash_to_curve import hash_to_G2
from py_ecc.optimized_bls12_381 import (
    FQ,
    FQ2,
    FQ12,
    G1,
    Z1,
    Z2,
    add,
    b,
    b2,
    field_modulus,
    final_exponentiate,
    is_inf,
    is_on_curve,
    multiply,
    neg,
    normalize,
    pairing,
)

from proofs.errors import PeerFault

KEY_BYTES: Final = 128
SIGNATURE_BYTES: Final = 256
COORDINATE_BYTES: Final = 64
SIGNATURE: Final = b"BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_"
POSSESSION: Final = b"BLS_POP_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_"
Point = Any  # py_ecc's projective points; nothing of it is typed


class PointInvalid(PeerFault):
    """Bytes that are not the encoding of a key or a signature."""


@dataclass(frozen=True)
class BlsKey:
    """`public` is the encoded key; `secret` stays out of the repr."""

    secret: int = field(repr=False)
    public: bytes

    @classmethod
    def derived(cls, secret: bytes, purpose: bytes) -> BlsKey:
        """KeyGen of the draft: a key for one purpose from other secret bytes (32 or more), which it does not betray."""
        number = G2ProofOfPossession.KeyGen(secret, purpose)
        return cls(number, _encode(pubkey_to_G1(G2ProofOfPossession.SkToPk(number))))

    def sign(self, digest: bytes, tag: bytes = SIGNATURE) -> bytes:
        return _encode(multiply(_hashed(digest, tag), self.secret))


def decode_key(data: bytes) -> Point:
    """Raises PointInvalid."""
    x, y = (FQ(value) for value in _coordinates(data, KEY_BYTES))
    return _checked((x, y, FQ.one()), b, "key")


def decode_signature(data: bytes) -> Point:
    """Raises PointInvalid."""
    x0, x1, y0, y1 = _coordinates(data, SIGNATURE_BYTES)
    return _checked((FQ2([x0, x1]), FQ2([y0, y1]), FQ2.one()), b2, "signature")


def add_signatures(signatures: Sequence[bytes]) -> bytes:
    """The signature of all of them together. Raises PointInvalid for one that is none, or if they cancel."""
    total = Z2
    for signature in signatures:
        total = add(total, decode_signature(signature))
    if is_inf(total):
        raise PointInvalid("signatures that cancel each other")
    return _encode(total)


@lru_cache(maxsize=256)
def verify(keys: tuple[bytes, ...], digest: bytes, signature: bytes, tag: bytes = SIGNATURE) -> bool:
    """Is `signature` the sum of the signatures over `digest` by all of `keys`? False for whatever is malformed.

    The same question is answered from memory: this is slow, and asked by everybody in one process of the tests.
    """
    try:
        key, point = _sum(keys), decode_signature(signature)
    except PointInvalid:
        return False
    if is_inf(key):
        return False
    # e(H(digest), -key) · e(signature, G) = 1
    both = pairing(_hashed(digest, tag), neg(key), final_exponentiate=False)
    both *= pairing(point, G1, final_exponentiate=False)
    return bool(final_exponentiate(both) == FQ12.one())


def _sum(keys: Sequence[bytes]) -> Point:
    total = Z1
    for key in keys:
        total = add(total, decode_key(key))
    return total


@lru_cache(maxsize=32)
def _hashed(digest: bytes, tag: bytes) -> Point:
    """RFC 9380; every signer and every check of one digest needs the same point."""
    return hash_to_G2(digest, tag, sha256)


def _coordinates(data: bytes, size: int) -> list[int]:
    if len(data) != size:
        raise PointInvalid(f"expected {size} bytes, found {len(data)}")
    parts = [int.from_bytes(data[i : i + COORDINATE_BYTES]) for i in range(0, size, COORDINATE_BYTES)]
    if max(parts) >= field_modulus:
        raise PointInvalid("a coordinate is not below the modulus")
    return parts


def _checked(point: Point, curve: Any, what: str) -> Point:
    """Infinity, all zeros, is on neither curve."""
    if not is_on_curve(point, curve):
        raise PointInvalid(f"the {what} is not a point of the curve")
    if not subgroup_check(point):
        raise PointInvalid(f"the {what} is outside the subgroup")
    return point


def _encode(point: Point) -> bytes:
    x, y = normalize(point)
    numbers = [x, y] if isinstance(x, FQ) else [*x.coeffs, *y.coeffs]
    return b"".join(int(number).to_bytes(COORDINATE_BYTES) for number in numbers)
