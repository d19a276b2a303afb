"""An auditor's X25519 key on this disk, under a password.

    {"format":"candor/auditor-key/1","public":…,"salt":…,"n":…,"box":…}      canonical JSON, hex

The box is the secret under ChaCha20-Poly1305, keyed by scrypt (r 8, p 1) of the password and the salt; public key and
costs are authenticated with it. Not an Ethereum keystore: that format names the address of the key, and this one has
none. Whoever loses it can read nothing that was sealed to it; there is no copy.

LocalFault
└── KeystoreFault   (ledger.signing) missing, readable by others, not such a file, or the wrong password
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from ledger import canonical
from ledger.canonical import FieldInvalid, Fields, NotCanonical
from ledger.log.sealing import KEY_BYTES, AuditorKey
from ledger.signing import MAX_KEYSTORE_BYTES, SCRYPT_N, KeystoreFault, read_private, write_private

FORMAT: Final = "candor/auditor-key/1"
SALT_BYTES: Final = 32
BOX_BYTES: Final = KEY_BYTES + 16
MAX_N: Final = 1 << 20  # a gibibyte of memory
_NONCE: Final = bytes(12)  # each key is used once: the salt is fresh


def create_key_file(path: Path, password: str, *, scrypt_n: int = SCRYPT_N) -> AuditorKey:
    """A new key, mode 0600, fsynced. Refuses to overwrite, and an empty password."""
    if not password:
        raise KeystoreFault("an empty password protects nothing: choose one")
    created, salt = AuditorKey.create(), secrets.token_bytes(SALT_BYTES)
    head = {"format": FORMAT, "public": created.public.hex(), "salt": salt.hex(), "n": scrypt_n}
    cipher = ChaCha20Poly1305(_stretched(password, salt, scrypt_n))
    box = cipher.encrypt(_NONCE, created.secret, canonical.encode(head))
    write_private(path, canonical.encode({**head, "box": box.hex()}))
    return created


def open_key_file(path: Path, password: str) -> AuditorKey:
    """Raises KeystoreFault."""
    try:
        value = canonical.decode(read_private(path), max_bytes=MAX_KEYSTORE_BYTES)
        head, public, salt, n, box = _fields(value)
    except (NotCanonical, FieldInvalid) as error:
        raise KeystoreFault(f"{path}: not an auditor's key file ({error})") from None
    try:
        secret = ChaCha20Poly1305(_stretched(password, salt, n)).decrypt(_NONCE, box, canonical.encode(head))
    except InvalidTag:
        raise KeystoreFault(f"{path}: the password is wrong, or the file was changed") from None
    key = AuditorKey.of(secret)
    if key.public != public:
        raise KeystoreFault(f"{path}: its public key is not that of its secret")
    return key


def _fields(value: Any) -> tuple[dict[str, Any], bytes, bytes, int, bytes]:
    reader = Fields(value, "key")
    reader.text("format", one_of=(FORMAT,))
    public, salt = reader.octets("public", KEY_BYTES), reader.octets("salt", SALT_BYTES)
    n, box = reader.integer("n", 2, MAX_N), reader.octets("box", BOX_BYTES)
    reader.done()
    if n & (n - 1):
        raise FieldInvalid("key.n: expected a power of two")
    return {name: item for name, item in value.items() if name != "box"}, public, salt, n, box


def _stretched(password: str, salt: bytes, n: int) -> bytes:
    return Scrypt(salt=salt, length=32, n=n, r=8, p=1).derive(password.encode())
