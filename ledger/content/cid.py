"""CIDs, the names of blocks: version 1, sha2-256, codec raw or dag-pb, written in base32. Nothing else is a name here.

A CID is computed and checked locally, whatever transport brought the bytes (https://github.com/multiformats/cid).
"""

from __future__ import annotations

from base64 import b32decode, b32encode
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256

from ledger.content.errors import BlockMismatch, CarrierLied

CID_BYTES = 36
CID_CHARS = 59
MAX_BLOCK_BYTES = 2 << 20  # the largest block that IPFS implementations exchange; the profile's have at most half of it
_SHA2_256 = b"\x12\x20"  # multihash: function 0x12, 32 bytes


class CidInvalid(CarrierLied):
    """Not a CID of the one kind in use: version 1, codec raw or dag-pb, sha2-256, base32 in lower case."""


class Codec(IntEnum):
    """How the bytes of a block are read (https://github.com/multiformats/multicodec)."""

    RAW = 0x55
    DAG_PB = 0x70


@dataclass(frozen=True, order=True)
class Cid:
    """The name of one block. `digest` is the SHA-256 of its bytes, 32 bytes."""

    codec: Codec
    digest: bytes

    def __post_init__(self) -> None:
        if len(self.digest) != 32:
            raise CidInvalid(f"a digest has 32 bytes, not {len(self.digest)}")

    @classmethod
    def raw(cls, digest: bytes) -> Cid:
        """The block whose bytes are the content itself: a config, or a file of at most one chunk."""
        return cls(Codec.RAW, bytes(digest))

    @classmethod
    def directory(cls, digest: bytes) -> Cid:
        """The dag-pb root of a bundle, from the 32 bytes kept on chain."""
        return cls(Codec.DAG_PB, bytes(digest))

    @classmethod
    def of(cls, codec: Codec, data: bytes | memoryview) -> Cid:
        return cls(codec, sha256(data).digest())

    @classmethod
    def decode(cls, data: bytes) -> Cid:
        """From its 36 binary bytes. Raises CidInvalid."""
        codecs = {codec.value: codec for codec in Codec}
        if len(data) != CID_BYTES or data[0] != 1 or data[1] not in codecs or data[2:4] != _SHA2_256:
            raise CidInvalid(f"not a CIDv1 of codec raw or dag-pb with sha2-256: {data[:CID_BYTES].hex()}")
        return cls(codecs[data[1]], data[4:])

    @classmethod
    def parse(cls, text: str) -> Cid:
        """From its base32 text. Raises CidInvalid, also for upper case, other bases and stray bits."""
        try:
            if len(text) != CID_CHARS or text[0] != "b":
                raise ValueError
            cid = cls.decode(b32decode(text[1:].upper() + "=" * 6))
            if str(cid) != text:
                raise ValueError
        except ValueError as error:
            raise CidInvalid(f"not a base32 CIDv1: {text[:64]!r}") from error
        return cid

    def encode(self) -> bytes:
        return bytes((1, self.codec)) + _SHA2_256 + self.digest

    def __str__(self) -> str:
        return "b" + b32encode(self.encode()).decode("ascii").rstrip("=").lower()

    def check(self, data: bytes | memoryview) -> None:
        """Raises BlockMismatch unless `data` is what this CID names."""
        if sha256(data).digest() != self.digest:
            raise BlockMismatch(self, len(data))


@dataclass(frozen=True)
class Block:
    """One block and its name; whoever builds it has checked, or computed, that they belong together."""

    cid: Cid
    data: bytes | memoryview

    @classmethod
    def of(cls, codec: Codec, data: bytes | memoryview) -> Block:
        return cls(Cid.of(codec, data), data)
