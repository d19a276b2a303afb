"""Keys: where they are kept, and what they may sign.

    LocalFault
    ├── KeystoreFault    the keystore cannot be opened: wrong password, not a keystore, or readable by others
    └── SigningRefused   the key already signed something else for this chain, contract and round

A member has one secret: the key that signs its verdicts is derived from the one that signs its transactions, so whoever
has the keystore has both.

A key file is Ethereum's own keystore (Web3 Secret Storage v3, scrypt). Secrets appear in no repr, log or error.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_keys.datatypes import PrivateKey

from ledger.bls import BlsKey
from ledger.crash import Point, reached
from ledger.database import Database
from ledger.eip712 import Domain, Submission, sign_submission, submission_digest
from ledger.quorum import verdict_digest
from ledger.transactions import Transaction, sign_transaction
from proofs.errors import LocalFault

MAX_KEYSTORE_BYTES = 1 << 14
PASSWORD_VARIABLE = "CANDOR_KEY_PASSWORD"
SCRYPT_N = 1 << 18
VERIFIER = b"candor/verifier/1"
SCHEMA = """
CREATE TABLE signed (
    chain_id TEXT NOT NULL, contract BLOB NOT NULL, round INTEGER NOT NULL, signer BLOB NOT NULL,
    digest BLOB NOT NULL, signature BLOB NOT NULL, PRIMARY KEY (chain_id, contract, round, signer)
);
CREATE TABLE verdicts (
    chain_id TEXT NOT NULL, contract BLOB NOT NULL, round INTEGER NOT NULL, transcript BLOB NOT NULL,
    verifier BLOB NOT NULL, reasons BLOB NOT NULL, signature BLOB NOT NULL,
    PRIMARY KEY (chain_id, contract, round, transcript, verifier)
)
"""
WHERE = "chain_id=? AND contract=? AND round=? AND transcript=? AND verifier=?"


class KeystoreFault(LocalFault):
    """The key cannot be read; the text says what to do, and never what the password was."""


class SigningRefused(LocalFault):
    """A second, different payload for one (chain, contract, round): signing it would be equivocation."""


@dataclass(frozen=True)
class Key:
    """A secp256k1 key. `secret` stays out of the repr."""

    secret: bytes = field(repr=False)
    address: bytes

    @classmethod
    def of(cls, secret: bytes) -> Key:
        """Raises KeystoreFault for a secret that is no key."""
        try:
            return cls(secret, PrivateKey(secret).public_key.to_canonical_address())
        except Exception as error:
            raise KeystoreFault("not a secp256k1 key: expected 32 bytes below the curve's order") from error

    @classmethod
    def create(cls) -> Key:
        return cls.of(secrets.token_bytes(32))

    @property
    def verifier(self) -> BlsKey:
        """The key that signs verdicts for the holder of this one."""
        return BlsKey.derived(self.secret, VERIFIER)

    def sign_transaction(self, transaction: Transaction) -> bytes:
        return sign_transaction(self.secret, transaction)


class SigningGuard:
    """Remembers durably what was signed, so that no restart, restore or bug makes a member equivocate.

    Whoever copies the key elsewhere without this file steps around it: move them together.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path, "candor/signing/2", SCHEMA)

    def sign(self, key: Key, domain: Domain, submission: Submission) -> bytes:
        """The signature, the same one for the same payload. Raises SigningRefused for a second payload."""
        digest = submission_digest(domain, submission)
        where = (str(domain.chain_id), domain.contract, submission.round, key.address)
        with self._database.write() as cursor:
            query = "SELECT digest, signature FROM signed WHERE chain_id=? AND contract=? AND round=? AND signer=?"
            found = cursor.execute(query, where).fetchone()
            if found is None:
                signature = sign_submission(key.secret, domain, submission)
                cursor.execute("INSERT INTO signed VALUES (?,?,?,?,?,?)", (*where, digest, signature))
        if found is None:
            reached(Point.NODE_SIGNED)
            return signature
        if found[0] != digest:
            raise SigningRefused(
                f"round {submission.round}: this key signed {found[0].hex()} and is asked to sign {digest.hex()}; "
                "a member submits once a round"
            )
        return bytes(found[1])

    def sign_verdicts(self, key: BlsKey, domain: Domain, number: int, transcript: bytes, reasons: bytes) -> bytes:
        """The signature, the same one for the same reasons. Raises SigningRefused for other reasons over one state of a
        round: a verifier answers a question once. After an equivocation, or a reorg, the question is another."""
        where = (str(domain.chain_id), domain.contract, number, transcript, key.public)
        with self._database.write() as cursor:
            found = cursor.execute(f"SELECT reasons, signature FROM verdicts WHERE {WHERE}", where).fetchone()
            if found is None:
                signature = key.sign(verdict_digest(domain, number, transcript, reasons))
                cursor.execute("INSERT INTO verdicts VALUES (?,?,?,?,?,?,?)", (*where, reasons, signature))
        if found is None:
            reached(Point.NODE_VERDICTS)
            return signature
        if found[0] != reasons:
            raise SigningRefused(f"round {number}: this key signed the verdicts {found[0].hex()}, not {reasons.hex()}")
        return bytes(found[1])

    def signed_verdicts(
        self, key: BlsKey, domain: Domain, number: int, transcript: bytes
    ) -> tuple[bytes, bytes] | None:
        """(reasons, signature) that were given over this state of the round, if any were."""
        where = (str(domain.chain_id), domain.contract, number, transcript, key.public)
        rows = self._database.read(f"SELECT reasons, signature FROM verdicts WHERE {WHERE}", where)
        return (bytes(rows[0][0]), bytes(rows[0][1])) if rows else None

    def close(self) -> None:
        self._database.close()


def create_keystore(path: Path, password: str, key: Key | None = None, *, scrypt_n: int = SCRYPT_N) -> Key:
    """Write a new (or the given) key as a keystore, mode 0600, fsynced. Refuses to overwrite and an empty password."""
    if not password:
        raise KeystoreFault("an empty password protects nothing: choose one")
    created = key or Key.create()
    encrypted = Account.encrypt(created.secret, password, kdf="scrypt", iterations=scrypt_n)
    write_private(path, json.dumps(encrypted).encode())
    return created


def open_keystore(path: Path, password: str) -> Key:
    """Raises KeystoreFault: missing, readable by others, malformed, or the wrong password."""
    data = read_private(path)
    try:
        keystore: Any = json.loads(data)
        secret = bytes(Account.decrypt(keystore, password))
    except Exception as error:
        wrong = "MAC mismatch" in str(error)
        what = "the password is wrong" if wrong else f"not an Ethereum keystore ({type(error).__name__})"
        raise KeystoreFault(f"{path}: {what}") from None
    return Key.of(secret)


def read_password(path: Path | None, environment: Callable[[str], str | None] = os.environ.get) -> str:
    """From the file (its first line) or, without one, from CANDOR_KEY_PASSWORD. Raises KeystoreFault."""
    if path is None:
        password = environment(PASSWORD_VARIABLE)
        if not password:
            raise KeystoreFault(f"no password: name a password file or set {PASSWORD_VARIABLE}")
        return password
    password = read_private(path).decode(errors="replace").partition("\n")[0].removesuffix("\r")
    if not password:
        raise KeystoreFault(f"{path}: the password file is empty")
    return password


def write_private(path: Path, data: bytes) -> None:
    """A new key file, mode 0600, fsynced. Raises KeystoreFault, and never overwrites."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise KeystoreFault(f"{path} exists already: a key is never overwritten") from error
    except OSError as error:
        raise KeystoreFault(f"{path}: cannot be written ({error.strerror})") from error


def read_private(path: Path) -> bytes:
    """A small file that nobody else can read. Raises KeystoreFault."""
    _check_private(path)
    return _read(path)


def _check_private(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise KeystoreFault(f"{path}: {error.strerror}") from error
    if mode & 0o077:
        raise KeystoreFault(f"{path} can be read by others (mode {mode & 0o777:o}): chmod 600 it")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KEYSTORE_BYTES + 1)
    except OSError as error:
        raise KeystoreFault(f"{path}: {error.strerror}") from error
    if len(data) > MAX_KEYSTORE_BYTES:
        raise KeystoreFault(f"{path}: too large for a key file")
    return data
