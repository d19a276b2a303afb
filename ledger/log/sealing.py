"""Records that only auditors read: encrypted to their X25519 keys, which are on the chain.

    sealed = length of the head (4 bytes) ‖ head, canonical JSON ‖ body
    head   = for each auditor: address, key, and the seed under HPKE (RFC 9180, base mode, single shot:
             DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305; info: label ‖ address ‖ key)
    body   = ChaCha20-Poly1305(content key, nonce 0, padded record; associated data: context ‖ SHA-256 of the head)
             content key = HKDF-Expand-SHA256(seed, label ‖ context), RFC 5869

Records that are written within a short time share a head: its seed is drawn for them alone, and wrapped once. `context`
is the digest of the log entry that the record belongs to, salted digests included: no two records have the same, so
each has a content key of its own, and the nonce never repeats under it. Moved to another entry, server, contract or
chain a record does not open; whoever is given its content key opens no other. Equal heads show which answers were
written about the same time, as the entries do. The record is padded (Padmé, at most 12 %), so that its length tells
little. A server can leave an auditor out, or give it a seed that does not fit: that auditor sees it, and nobody else
does. It cannot show two auditors two records, since both must have the salted digests of the entry
(ledger.log.receipt).

PeerFault
├── KeyInvalid      a public key that is malformed, not canonical, or of small order
└── SealInvalid     a sealed record that is malformed, changed, or of another entry
LocalFault
└── NotARecipient   sealed, but not to this key
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from ledger import canonical
from ledger.canonical import Fields, NotCanonical
from proofs.errors import LocalFault, PeerFault

FORMAT: Final = "candor/sealed/2"
SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
KEY_BYTES: Final = 32
ADDRESS_BYTES: Final = 20
WRAPPED_BYTES: Final = 32 + 32 + 16  # encapsulated key, seed, tag
MAX_AUDITORS: Final = 16
MAX_HEAD_BYTES: Final = 1 << 13
MAX_RECORD_BYTES: Final = 1 << 24
MAX_SEALED_BYTES: Final = 4 + MAX_HEAD_BYTES + (MAX_RECORD_BYTES + (MAX_RECORD_BYTES >> 3)) + 16
FIELD_PRIME: Final = 2**255 - 19
_NONCE: Final = bytes(12)
_PROBE: Final = X25519PrivateKey.from_private_bytes(bytes([8]) + bytes(30) + bytes([64]))


class KeyInvalid(PeerFault):
    """Nothing may be encrypted to this key: anybody could read it, or nobody."""


class SealInvalid(PeerFault):
    """Not a sealed record of this entry."""


class NotARecipient(LocalFault):
    """The record is for other auditors."""


@dataclass(frozen=True)
class Auditor:
    """Who can read, as the chain has it: address and X25519 key. Construction checks the key."""

    address: bytes
    key: bytes

    def __post_init__(self) -> None:
        if len(self.address) != ADDRESS_BYTES:
            raise LocalFault(f"an address has {ADDRESS_BYTES} bytes, not {len(self.address)}")
        check_key(self.key)


@dataclass(frozen=True)
class AuditorKey:
    """An auditor's X25519 secret. It stays out of the repr."""

    secret: bytes = field(repr=False)
    public: bytes

    @classmethod
    def of(cls, secret: bytes) -> AuditorKey:
        if len(secret) != KEY_BYTES:
            raise LocalFault(f"an X25519 secret has {KEY_BYTES} bytes")
        return cls(secret, X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw())

    @classmethod
    def create(cls) -> AuditorKey:
        return cls.of(secrets.token_bytes(KEY_BYTES))


def check_key(key: bytes) -> None:
    """Raises KeyInvalid unless it is the one spelling of a point of large order. RFC 7748 takes any 32 bytes; a point
    of small order makes the shared secret zero, which everybody knows."""
    if len(key) != KEY_BYTES or int.from_bytes(key, "little") >= FIELD_PRIME:
        raise KeyInvalid("an X25519 key is 32 bytes, a number below 2^255 - 19")
    try:
        _PROBE.exchange(X25519PublicKey.from_public_bytes(key))
    except ValueError as error:
        raise KeyInvalid("a point of small order: the shared secret would be zero") from error


@dataclass(frozen=True)
class Envelope:
    """The head of records that are written within a short time, and its seed, which stays out of the repr: who learns
    it reads all of them, and no others."""

    head: bytes
    seed: bytes = field(repr=False)

    @cached_property
    def _head_digest(self) -> bytes:
        return canonical.digest(self.head)

    @classmethod
    def to(cls, auditors: Sequence[Auditor]) -> Envelope:
        """With a fresh seed. Raises LocalFault for nobody, or for too many."""
        if not 0 < len(auditors) <= MAX_AUDITORS:
            raise LocalFault(f"{len(auditors)} auditors: records are sealed to 1 to {MAX_AUDITORS}")
        seed = secrets.token_bytes(KEY_BYTES)
        recipients = [
            {"auditor": to.address.hex(), "key": to.key.hex(), "wrapped": _wrap(seed, to).hex()} for to in auditors
        ]
        return cls(canonical.encode({"format": FORMAT, "recipients": recipients}), seed)

    def seal(self, record: bytes, context: bytes) -> bytes:
        """context: 32 bytes, see Entry.context; never the same for two records. Raises LocalFault for a record that is
        too large."""
        if len(record) > MAX_RECORD_BYTES:
            raise LocalFault(f"{len(record)} bytes cannot be sealed, {MAX_RECORD_BYTES} can")
        cipher = ChaCha20Poly1305(_content_key(self.seed, context))
        body = cipher.encrypt(_NONCE, _padded(record), context + self._head_digest)
        return len(self.head).to_bytes(4) + self.head + body


def unseal(sealed: bytes, key: AuditorKey, context: bytes) -> bytes:
    """The record. Raises NotARecipient, SealInvalid."""
    head, body = _split(sealed)
    found = [(to, wrapped) for to, wrapped in _recipients(head) if to.key == key.public]
    if not found:
        raise NotARecipient("this record is sealed to other keys")
    to, wrapped = found[0]
    private = X25519PrivateKey.from_private_bytes(key.secret)
    try:
        seed = SUITE.decrypt(wrapped, private, info=_info(to))
        padded = ChaCha20Poly1305(_content_key(seed, context)).decrypt(_NONCE, body, context + canonical.digest(head))
    except (InvalidTag, ValueError) as error:
        raise SealInvalid("the record was changed, is of another entry, or was never meant to be opened") from error
    return _unpadded(padded)


def recipients(sealed: bytes) -> tuple[Auditor, ...]:
    """To whom it is sealed, by its own word. Raises SealInvalid, KeyInvalid."""
    return tuple(to for to, _ in _recipients(_split(sealed)[0]))


def _split(sealed: bytes) -> tuple[bytes, bytes]:
    size = int.from_bytes(sealed[:4])
    if not 4 + size <= len(sealed) <= MAX_SEALED_BYTES or size > MAX_HEAD_BYTES:
        raise SealInvalid(f"{len(sealed)} bytes are no sealed record")
    return sealed[4 : 4 + size], sealed[4 + size :]


def _recipients(head: bytes) -> list[tuple[Auditor, bytes]]:
    try:
        reader = Fields(canonical.decode(head, max_bytes=MAX_HEAD_BYTES), "sealed")
        reader.text("format", one_of=(FORMAT,))
        found = [_recipient(item) for item in reader.array("recipients", max_items=MAX_AUDITORS)]
        reader.done()
    except (NotCanonical, canonical.FieldInvalid) as error:
        raise SealInvalid(str(error)) from error
    return found


def _recipient(item: Any) -> tuple[Auditor, bytes]:
    reader = Fields(item, "sealed.recipients")
    to = Auditor(reader.octets("auditor", ADDRESS_BYTES), reader.octets("key", KEY_BYTES))
    wrapped = reader.octets("wrapped", WRAPPED_BYTES)
    reader.done()
    return to, wrapped


def _wrap(seed: bytes, to: Auditor) -> bytes:
    return SUITE.encrypt(seed, X25519PublicKey.from_public_bytes(to.key), info=_info(to))


def _info(to: Auditor) -> bytes:
    return FORMAT.encode() + b"\0seed\0" + to.address + to.key


def _content_key(seed: bytes, context: bytes) -> bytes:
    if len(context) != 32:
        raise LocalFault("a context is a digest of 32 bytes")
    return hmac.digest(seed, FORMAT.encode() + b"\0content\0" + context + b"\1", "sha256")


def _padded(record: bytes) -> bytes:
    """Length, record, zeros up to a length that Padmé allows (Nikitin et al., PURBs, section 4)."""
    plain = len(record).to_bytes(4) + record
    exponent = len(plain).bit_length() - 1
    unit = 1 << max(0, exponent - exponent.bit_length())
    return plain + bytes(-len(plain) % unit)


def _unpadded(padded: bytes) -> bytes:
    size = int.from_bytes(padded[:4])
    record = padded[4 : 4 + size]
    if _padded(record) != padded:
        raise SealInvalid("the record is padded in another way")
    return record
