"""API keys: a file of SHA-256 digests, one a line with a name; the keys themselves are with their owners alone.

    <64 hex digits> <name>

Without such a file everybody who reaches the server may ask, so it listens on loopback alone.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

from proofs.errors import LocalFault

PREFIX: Final = "candor-"
MAX_KEYS_BYTES: Final = 1 << 20
_LINE: Final = re.compile(r"([0-9a-f]{64}) (\S{1,64})")


class KeysInvalid(LocalFault):
    """The file of keys cannot be used."""


class ApiKeys:
    def __init__(self, digests: Sequence[bytes] | None) -> None:
        """None: no key is asked for."""
        self._digests = None if digests is None else tuple(digests)

    def allows(self, authorization: str | None) -> bool:
        """`Bearer KEY`. As long for a wrong key as for a right one: every digest is compared."""
        if self._digests is None:
            return True
        scheme, _, key = (authorization or "").partition(" ")
        found = sha256(key.strip().encode()).digest()
        known = sum(hmac.compare_digest(found, digest) for digest in self._digests)
        return bool(known) and scheme.lower() == "bearer"


def load_keys(path: Path | None, host: str) -> ApiKeys:
    """Raises KeysInvalid: for a file that is malformed, or for none and an address that others reach."""
    if path is None:
        if not _loopback(host):
            raise KeysInvalid(f"http.listen is {host}, which others reach: set limits.keys, and make keys for it")
        return ApiKeys(None)
    return ApiKeys([digest for digest, _ in _lines(path)])


def add_key(path: Path, name: str) -> str:
    """A new key, of which only the digest is kept. Raises KeysInvalid."""
    known = {other for _, other in _lines(path)} if path.exists() else set()
    key = PREFIX + secrets.token_urlsafe(32)
    line = f"{sha256(key.encode()).hexdigest()} {name}"
    if not _LINE.fullmatch(line) or name in known:
        raise KeysInvalid(f"{name!r} is no name for a key, or there is one of that name in {path}")
    with open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")
    return key


def _lines(path: Path) -> list[tuple[bytes, str]]:
    try:
        if path.stat().st_size > MAX_KEYS_BYTES:
            raise KeysInvalid(f"{path}: more than {MAX_KEYS_BYTES} bytes of keys")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KeysInvalid(f"{path}: cannot be read; `candor-serve key` makes a key and the file") from error
    found = [(number, _LINE.fullmatch(line)) for number, line in enumerate(lines, 1) if line and line[0] != "#"]
    wrong = [number for number, match in found if match is None]
    if wrong:
        raise KeysInvalid(f"{path}, line {wrong[0]}: expected 64 hex digits, a space and a name")
    return [(bytes.fromhex(match[1]), match[2]) for _, match in found if match]


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
