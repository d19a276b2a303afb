"""Signatures on typed statements (EIP-712), as pure functions: hash, sign, recover. Here: on a submission.

Only signatures that the contract takes are taken here: 65 bytes, v 27 or 28, s in the lower half of the curve's order
(EIP-2), so that one submission has one signature and nobody can mint a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from coincurve import PrivateKey
from eth_abi.abi import encode
from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError

from ledger.events import fixed_bytes
from proofs.errors import PeerFault

SIGNATURE_BYTES = 65
CURVE_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_DOMAIN_TYPE: Final = keccak(text="EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
SUBMISSION_TYPE: Final = keccak(text="Submission(uint64 round,uint8 member,bytes32 bundle,uint64 spentMicro)")


class SignatureInvalid(PeerFault):
    """A signature that is malformed, or that nobody's key could have made."""


@dataclass(frozen=True)
class Domain:
    """Where a signature counts: one contract (20 bytes) on one chain, and nowhere else."""

    chain_id: int
    contract: bytes


@dataclass(frozen=True)
class Submission:
    """What a member signs. `bundle` is the digest of the bundle, ε is in millionths."""

    round: int
    member: int
    bundle: bytes
    spent_micro: int


@lru_cache(maxsize=64)
def domain_separator(domain: Domain) -> bytes:
    values = (
        _DOMAIN_TYPE,
        keccak(text="Candor"),
        keccak(text="1"),
        domain.chain_id,
        fixed_bytes(domain.contract, 20, "contract"),
    )
    return keccak(encode(("bytes32", "bytes32", "bytes32", "uint256", "address"), values))


def submission_struct_hash(submission: Submission) -> bytes:
    """What `submissionHash` of the contract returns for the member's first submission."""
    bundle = fixed_bytes(submission.bundle, 32, "bundle")
    values = (SUBMISSION_TYPE, submission.round, submission.member, bundle, submission.spent_micro)
    return keccak(encode(("bytes32", "uint64", "uint8", "bytes32", "uint64"), values))


def submission_digest(domain: Domain, submission: Submission) -> bytes:
    """The 32 bytes that are signed."""
    return typed_digest(domain, submission_struct_hash(submission))


def typed_digest(domain: Domain, struct_hash: bytes) -> bytes:
    """What is signed for a statement whose struct hash this is."""
    return keccak(b"\x19\x01" + domain_separator(domain) + struct_hash)


def sign_submission(key: bytes, domain: Domain, submission: Submission) -> bytes:
    """Deterministic (RFC 6979), low-s. Does not guard against a second payload: see ledger.signing.SigningGuard."""
    return sign_digest(key, submission_digest(domain, submission))


def sign_digest(key: bytes, digest: bytes) -> bytes:
    """Deterministic (RFC 6979), low-s."""
    signed: bytes = _private(key).sign_recoverable(digest, hasher=None)  # r ‖ s ‖ recovery id
    return signed[:64] + bytes([27 + signed[64]])


@lru_cache(maxsize=4)
def _private(key: bytes) -> PrivateKey:
    """Making one takes longer than signing with it: the public key is computed as well."""
    return PrivateKey(key)


def recover(digest: bytes, signature: bytes) -> bytes:
    """Address (20 bytes) of the key that signed `digest`. Raises SignatureInvalid for what the contract refuses."""
    if len(signature) != SIGNATURE_BYTES or signature[64] not in (27, 28):
        raise SignatureInvalid("a signature is 65 bytes: r, s, and v of 27 or 28")
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:64])
    if not 0 < s <= CURVE_ORDER // 2 or not 0 < r < CURVE_ORDER:
        raise SignatureInvalid("a signature's s must be in the lower half of the curve's order (EIP-2)")
    try:
        public = Signature(vrs=(signature[64] - 27, r, s)).recover_public_key_from_msg_hash(digest)
    except (BadSignature, ValidationError, ValueError) as error:
        raise SignatureInvalid("no key can have made this signature") from error
    return public.to_canonical_address()


def submission_signer(domain: Domain, submission: Submission, signature: bytes) -> bytes:
    """Whose signature on this submission it is; compare it with the seat's signer. Raises SignatureInvalid."""
    return recover(submission_digest(domain, submission), signature)
