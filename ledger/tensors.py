"""Canonical safetensors: one set of tensors, one sequence of bytes; and the weight grid.

The format is Hugging Face's (8 bytes little-endian length of the header, JSON header, data). Of it this module writes
and reads one form: names sorted, data in that order without gaps, metadata {"format":"pt"}, compact JSON padded with
spaces to a multiple of eight, dtypes F32 and I32. Reading compares the whole header with the one that the expected
layout gives: no attacker's number is ever used as a size.

    PeerFault
    ├── TensorsMalformed   not the canonical bytes of the layout that was asked for
    └── OffGrid            a weight is NaN, infinite, −0, off the grid or above 2^24 units
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ledger import canonical
from ledger.config import FLOAT32_INTEGERS, Config
from proofs.errors import LocalFault, PeerFault

MAX_HEADER_BYTES = 1 << 22
DTYPES: dict[str, np.dtype[np.generic]] = {"F32": np.dtype("<f4"), "I32": np.dtype("<i4")}

Layout = Mapping[str, tuple[str, tuple[int, ...]]]
Array = NDArray[np.generic]
Units = NDArray[np.int64]
Weights = dict[str, Units]


class TensorsMalformed(PeerFault):
    """Bytes that are not the canonical safetensors of the expected layout."""


class OffGrid(PeerFault):
    """A weight that is not a canonical multiple of the grid's unit."""


def encode_safetensors(tensors: Mapping[str, Array]) -> bytes:
    """Canonical bytes of float32 and int32 tensors. Raises LocalFault for other dtypes or an oversized header."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    layout = {}
    for name, array in tensors.items():
        dtype = names.get(array.dtype.newbyteorder("<"))
        if dtype is None:
            raise LocalFault(f"{name}: safetensors here hold float32 and int32, not {array.dtype}")
        layout[name] = (dtype, array.shape)
    parts = [_header(layout)]
    parts += [np.ascontiguousarray(tensors[name]).astype(DTYPES[layout[name][0]]).tobytes() for name in sorted(layout)]
    return b"".join(parts)


def encoded_size(layout: Layout) -> int:
    """Exact length in bytes of any canonical file of this layout."""
    return len(_header(layout)) + sum(_nbytes(*entry) for entry in layout.values())


def decode_safetensors(data: bytes, layout: Layout) -> dict[str, Array]:
    """The tensors (read-only views), if `data` is the canonical file of `layout`. Raises TensorsMalformed."""
    header = _header(layout)
    if data[: len(header)] != header:
        raise TensorsMalformed(_difference(data, header))
    if len(data) != encoded_size(layout):
        raise TensorsMalformed(f"{len(data)} bytes where the header accounts for {encoded_size(layout)}")
    tensors, offset = {}, len(header)
    for name in sorted(layout):
        dtype, shape = layout[name]
        count = _nbytes(dtype, shape) // 4
        tensors[name] = np.frombuffer(data, DTYPES[dtype], count, offset).reshape(shape)
        offset += 4 * count
    return tensors


def units_of(array: NDArray[np.float32], bits: int) -> Units:
    """float32 weights -> grid units, exactly. Raises OffGrid; −0 is refused because +0 has the same units."""
    if not np.isfinite(array).all():
        raise OffGrid("a weight is NaN or infinite")
    scaled = array.astype(np.float64) * 2.0**bits
    if (scaled != np.rint(scaled)).any():
        raise OffGrid(f"a weight is not a multiple of 2^-{bits}")
    if (np.abs(scaled) > FLOAT32_INTEGERS).any():
        raise OffGrid("a weight is above 2^24 grid units")
    if (np.signbit(array) & (array == 0)).any():
        raise OffGrid("a weight is written as minus zero")
    return scaled.astype(np.int64)


def values_of(units: Units, bits: int) -> NDArray[np.float32]:
    """Grid units -> float32 weights, exactly. Raises LocalFault above 2^24 units."""
    if (np.abs(units) > FLOAT32_INTEGERS).any():
        raise LocalFault("a weight is above 2^24 grid units")
    return np.asarray(units.astype(np.float64) * 2.0**-bits, dtype=np.float32)


def weight_layout(config: Config) -> dict[str, tuple[str, tuple[int, ...]]]:
    """What adapter_model.safetensors holds: every tensor of the config, frozen ones too."""
    return {tensor.name: ("F32", tensor.shape) for tensor in config.adapter.tensors}


def flatten(config: Config, weights: Mapping[str, Units]) -> Units:
    """The trained coordinates (P,) of a set of weights: sorted by name, each row-major."""
    return np.concatenate([weights[tensor.name].reshape(-1) for tensor in config.adapter.trained])


def unflatten(config: Config, units: Units) -> Weights:
    """Inverse of `flatten` for the trained tensors."""
    weights, start = {}, 0
    for tensor in config.adapter.trained:
        weights[tensor.name] = units[start : start + tensor.size].reshape(tensor.shape)
        start += tensor.size
    return weights


def _nbytes(dtype: str, shape: tuple[int, ...]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count * DTYPES[dtype].itemsize


def _header(layout: Layout) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in sorted(layout):
        dtype, shape = layout[name]
        size = _nbytes(dtype, shape)
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER_BYTES or "__metadata__" in layout:
        raise LocalFault(f"a header of {len(text)} bytes, or a tensor named __metadata__, has no canonical file")
    return len(text).to_bytes(8, "little") + text


def _difference(data: bytes, header: bytes) -> str:
    """What the file says instead of the expected header, for the verdict's detail. Bounded work, nothing trusted."""
    if len(data) < 8:
        return "shorter than the length of a header"
    length = int.from_bytes(data[:8], "little")
    if length > min(MAX_HEADER_BYTES, len(data) - 8):
        return f"not safetensors, or a header of {length} bytes in a file of {len(data)}"
    try:
        found, expected = canonical.parse(data[8 : 8 + length], canonical.MAX_DEPTH), json.loads(header[8:])
    except (ValueError, RecursionError):
        return "the header is not JSON"
    if not isinstance(found, dict):
        return "the header is not a JSON object"
    return _first_difference(found, expected)


def _first_difference(found: dict[str, object], expected: dict[str, object]) -> str:
    for what, names in (("missing", expected.keys() - found.keys()), ("unknown", found.keys() - expected.keys())):
        if names:
            return f"{what} tensor {sorted(names)[0][:200]!r}"
    for name, entry in sorted(expected.items()):
        if found[name] != entry:
            return f"{name}: expected {entry}, found {_quote(found[name])}"
    return "the header is not in canonical form"


def _quote(value: object) -> str:
    """A value for people, cut short. Python cannot print what is nested as deep as it can just about parse."""
    try:
        return repr(value)[:200]
    except RecursionError:
        return "something nested very deep"
