"""Canonical JSON: one value, one sequence of bytes; and strict readers of its fields.

The subset of RFC 8785 without floating point: objects with sorted ASCII keys, arrays, strings, integers up to 2⁵³−1 in
magnitude, booleans, null. Real numbers are written as fractions in lowest terms, "num/den". Decoding accepts nothing
that encoding would not have produced.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from hashlib import sha256
from typing import Any

import numpy as np

from proofs.errors import LocalFault, PeerFault

MAX_INTEGER = 2**53 - 1
MAX_DEPTH = 16
_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


class NotCanonical(PeerFault):
    """Bytes that are not the canonical JSON of anything."""


class FieldInvalid(PeerFault):
    """A field is missing, unknown, of the wrong type or out of its range."""


def encode(value: Any) -> bytes:
    """Canonical bytes. Raises LocalFault for a value outside the subset."""
    _check(value, LocalFault, MAX_DEPTH)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def encode_object(fields: Mapping[str, bytes]) -> bytes:
    """An object whose values are encoded already; its keys are ours, and need no escapes."""
    return b"{" + b",".join(b'"%s":%s' % (key.encode(), fields[key]) for key in sorted(fields)) + b"}"


def decode(data: bytes, *, max_bytes: int) -> Any:
    """Inverse of `encode`. Raises NotCanonical for anything else, before parsing when it is too large."""
    if len(data) > max_bytes:
        raise NotCanonical(f"{len(data)} bytes of JSON where at most {max_bytes} are allowed")
    try:
        value = parse(data, MAX_DEPTH)
    except ValueError as error:
        raise NotCanonical(f"not JSON: {type(error).__name__}") from error
    _check(value, NotCanonical, MAX_DEPTH)
    if encode(value) != data:
        raise NotCanonical("JSON is not in canonical form (key order, white space, escapes or a repeated key)")
    return value


def parse(data: bytes, max_depth: int, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Any JSON in UTF-8, nested at most `max_depth` deep. `pairs` makes the objects, else `dict`. Raises ValueError.

    The depth is counted before Python's parser sees the text: that one recurses in C, trusting a limit that libraries
    raise (py_ecc to 100,000), and then ends the process on a mebibyte of brackets.
    """
    text = data.decode("utf-8")
    brackets = np.frombuffer(_STRINGS.sub(b"", data).translate(None, _NO_BRACKETS), np.uint8)
    opening = (brackets == ord("[")) | (brackets == ord("{"))
    if brackets.size and int(np.cumsum(np.where(opening, 1, -1)).max()) > max_depth:
        raise ValueError(f"JSON is nested more than {max_depth} deep")
    return json.loads(text, object_pairs_hook=pairs)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """`pairs` of `parse` for other people's JSON: readers differ in which of two equal keys they take."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("the same key twice")
    return found


def digest(data: bytes) -> bytes:
    """SHA-256, the digest by which configs, manifests and files are named."""
    return sha256(data).digest()


class Fields:
    """Strict reader of one JSON object: every key is taken exactly once, then `done()`."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise FieldInvalid(f"{where}: expected an object, found {type(value).__name__}")
        self._left: dict[str, Any] = dict(value)
        self._where = where

    def __contains__(self, key: str) -> bool:
        """Is it there, and not taken yet?"""
        return key in self._left

    def take(self, key: str) -> Any:
        if key not in self._left:
            raise FieldInvalid(f"{self._where}: missing field {key!r}")
        return self._left.pop(key)

    def integer(self, key: str, least: int, most: int) -> int:
        value = self.take(key)
        if type(value) is not int or not least <= value <= most:
            raise FieldInvalid(f"{self._where}.{key}: expected an integer in [{least}, {most}], found {_show(value)}")
        return value

    def text(self, key: str, *, max_chars: int = 256, one_of: tuple[str, ...] | None = None) -> str:
        """Printable: texts end up on terminals, and nobody's config or manifest may move the cursor there."""
        value = self.take(key)
        fits = isinstance(value, str) and len(value) <= max_chars and value.isprintable()
        if not fits or (one_of is not None and value not in one_of):
            wanted = f"one of {list(one_of)}" if one_of else f"at most {max_chars} printable characters"
            raise FieldInvalid(f"{self._where}.{key}: expected {wanted}, found {_show(value)}")
        return str(value)

    def boolean(self, key: str) -> bool:
        value = self.take(key)
        if not isinstance(value, bool):
            raise FieldInvalid(f"{self._where}.{key}: expected true or false, found {_show(value)}")
        return value

    def fraction(self, key: str, *, positive: bool = False) -> Fraction:
        value = self.take(key)
        try:
            parsed = parse_fraction(value)
        except FieldInvalid as error:
            raise FieldInvalid(f"{self._where}.{key}: {error}") from error
        if parsed < 0 or (positive and parsed == 0):
            raise FieldInvalid(f"{self._where}.{key}: expected a number above zero, found {_show(value)}")
        return parsed

    def hex32(self, key: str) -> bytes:
        return self.octets(key, 32)

    def octets(self, key: str, size: int) -> bytes:
        """Bytes, as twice as many lower-case hex digits."""
        value = self.take(key)
        found = from_hex(value, size)
        if found is None:
            raise FieldInvalid(f"{self._where}.{key}: expected {2 * size} lower-case hex digits, found {_show(value)}")
        return found

    def array(self, key: str, *, max_items: int) -> list[Any]:
        value = self.take(key)
        if not isinstance(value, list) or len(value) > max_items:
            raise FieldInvalid(f"{self._where}.{key}: expected at most {max_items} items, found {_show(value)}")
        return value

    def texts(self, key: str, *, most: int) -> tuple[str, ...]:
        """Different strings, printable and not empty."""
        items = self.array(key, max_items=most)
        if not all(isinstance(item, str) and 0 < len(item) <= 256 and item.isprintable() for item in items):
            raise FieldInvalid(f"{self._where}.{key}: expected strings of 1 to 256 printable characters")
        if len(set(items)) != len(items):
            raise FieldInvalid(f"{self._where}.{key}: the same string twice")
        return tuple(items)

    def done(self) -> None:
        if self._left:
            raise FieldInvalid(f"{self._where}: unknown fields {sorted(self._left)}")


def parse_fraction(value: Any) -> Fraction:
    """A fraction from its canonical text "num/den" in lowest terms, both below 2⁵³."""
    if isinstance(value, str) and len(value) <= 34:
        numerator, slash, denominator = value.partition("/")
        if slash and numerator.removeprefix("-").isdecimal() and denominator.isdecimal() and int(denominator):
            parsed = Fraction(int(numerator), int(denominator))
            if format_fraction(parsed) == value and max(abs(parsed.numerator), parsed.denominator) <= MAX_INTEGER:
                return parsed
    raise FieldInvalid(f'expected a fraction "num/den" in lowest terms, found {_show(value)}')


def format_fraction(value: Fraction) -> str:
    return f"{value.numerator}/{value.denominator}"


def _check(value: Any, error: type[Exception], depth: int) -> None:
    if depth == 0:
        raise error("JSON is nested too deep")
    if type(value) is str and value.isascii():  # most values are
        return
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise error("a string has half of a surrogate pair, which UTF-8 cannot hold")
        return
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise error("an integer is above 2^53 - 1")
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check(item, error, depth - 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str) or not key.isascii():
                raise error("an object key is not an ASCII string")
            _check(item, error, depth - 1)
    else:
        raise error(f"a {type(value).__name__} has no canonical JSON")


def from_hex(value: Any, size: int) -> bytes | None:
    """So many bytes from twice as many lower-case hex digits; None where the value is anything else."""
    if not isinstance(value, str) or len(value) != 2 * size or value.strip("0123456789abcdef"):
        return None
    return bytes.fromhex(value)


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
