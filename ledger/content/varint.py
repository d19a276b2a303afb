"""Unsigned varints as multiformats and protobuf write them: 7 bits a byte, least significant first, always minimal."""

from __future__ import annotations

MAX_VARINT_BYTES = 9  # https://github.com/multiformats/unsigned-varint: at most 63 bits


def encode(value: int) -> bytes:
    """1 to 9 bytes. Raises ValueError outside [0, 2^63)."""
    if not 0 <= value < 1 << 63:
        raise ValueError(f"{value} does not fit an unsigned varint")
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def decode(data: bytes | memoryview, offset: int) -> tuple[int, int]:
    """(value, offset after it). Raises ValueError for a truncated, over-long or non-minimal varint."""
    value = 0
    for index in range(MAX_VARINT_BYTES):
        if offset + index >= len(data):
            raise ValueError("truncated varint")
        byte = data[offset + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if byte == 0 and index:
                raise ValueError("a varint is not minimal")
            return value, offset + index + 1
    raise ValueError(f"a varint is longer than {MAX_VARINT_BYTES} bytes")
