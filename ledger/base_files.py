"""A base model's folder as bytes: which tensors lie where, and the digest that names them all.

A base is a folder in Hugging Face's layout: config.json, a tokenizer, and weights as safetensors. The folder is not
trusted. Sizes are compared with the file's before anything is allocated, headers are strict, and a tensor that is read
for use is hashed again, so that what is computed with is what the digest names.

    BaseUnusable (LocalFault)     the folder lacks something, would run code, or is not what it says it is
    BaseMismatch (LocalFault)     the folder is not the base that the config's digest names
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ledger import canonical
from proofs.errors import LocalFault

MAX_HEADER_BYTES = 16 << 20
MAX_CONFIG_BYTES = 1 << 20
MAX_TEXT_BYTES = 128 << 20
MAX_DEPTH = 16
MAX_SIDES = 8
CHUNK_BYTES = 1 << 20
TEXT_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
INDEX = "model.safetensors.index.json"
MAY_NAME_CODE = ("config.json", "tokenizer_config.json")
BITS = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
FLOATS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}  # what float32 holds exactly


class BaseUnusable(LocalFault):
    """This folder cannot serve as a base."""


class BaseMismatch(LocalFault):
    """The base on this machine is not the one of the config."""


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies, and the SHA-256 of its bytes."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset_bytes: int
    size_bytes: int
    sha256: str

    def read(self) -> NDArray[np.float64]:
        """The values, exactly. Raises BaseUnusable for other dtypes than FLOATS and for bytes that have changed."""
        if self.dtype not in FLOATS:
            raise BaseUnusable(f"{self.file}: a tensor of {self.dtype}; weights are one of {sorted(FLOATS)}")
        with self.file.open("rb") as source:
            source.seek(self.offset_bytes)
            data = source.read(self.size_bytes)
        if sha256(data).hexdigest() != self.sha256:
            raise BaseUnusable(f"{self.file}: changed while it was read")
        stored = np.frombuffer(data, FLOATS[self.dtype])
        if self.dtype == "BF16":
            stored = (stored.astype("<u4") << 16).view("<f4")
        return stored.astype(np.float64).reshape(self.shape)


@dataclass(frozen=True)
class BaseFiles:
    """A folder that has been read once. `config` is config.json as it was hashed."""

    folder: Path
    config: bytes
    texts: dict[str, str]
    tensors: dict[str, StoredTensor]

    @property
    def digest(self) -> bytes:
        """SHA-256 over canonical JSON of all that decides the base's function, whatever files the tensors are split
        into: each tensor's name, dtype, shape and SHA-256, and the SHA-256 of the config and tokenizer files."""
        tensors = {
            name: {"dtype": one.dtype, "shape": list(one.shape), "sha256": one.sha256}
            for name, one in self.tensors.items()
        }
        return canonical.digest(
            canonical.encode({"kind": "candor/base/1", "tensors": tensors, "files": dict(self.texts)})
        )


def base_digest(folder: Path) -> bytes:
    """The digest by which a config names a base. Raises BaseUnusable."""
    return read_base(folder).digest


def read_base(folder: Path) -> BaseFiles:
    """Everything of the folder that its digest covers; no tensor is kept. Raises BaseUnusable."""
    if not (folder / "config.json").is_file():
        raise BaseUnusable(f"{folder}: no config.json; a base is a local Hugging Face model folder")
    if (folder / "adapter_config.json").exists():
        raise BaseUnusable(f"{folder}: holds an adapter, not a base; merge it first or name the base's own folder")
    files = sorted(file for file in folder.glob("*.safetensors") if file.is_file())
    if not files:
        raise BaseUnusable(f"{folder}: no *.safetensors; pickled weights are refused, convert them first")
    try:
        return _read(folder, files)
    except OSError as error:
        raise BaseUnusable(f"{folder}: cannot be read: {error}") from error


def _read(folder: Path, files: list[Path]) -> BaseFiles:
    config, texts = _small(folder / "config.json", MAX_CONFIG_BYTES), {}
    for name in TEXT_FILES:
        if not (folder / name).is_file():
            continue
        text = config if name == "config.json" else _small(folder / name, MAX_TEXT_BYTES)
        if name in MAY_NAME_CODE and b"auto_map" in text:
            raise BaseUnusable(f"{folder}: its config wants to run Python code from the folder (auto_map); refused")
        texts[name] = sha256(text).hexdigest()
    _check_places(folder, config, {file.name for file in files})
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        for name, tensor in _tensors(file):
            if name in tensors:
                raise BaseUnusable(f"{folder}: the tensor {name} is in two files")
            tensors[name] = tensor
    return BaseFiles(folder, config, texts, tensors)


def _check_places(folder: Path, config: bytes, names: set[str]) -> None:
    """transformers can be told to load other files than those that the digest covers: no folder here may tell it."""
    if "transformers_weights" in _json_object(folder / "config.json", config):
        raise BaseUnusable(f"{folder}: its config names the file of its weights (transformers_weights); refused")
    index = folder / INDEX
    if index.is_file():
        places = _json_object(index, _small(index, MAX_HEADER_BYTES)).get("weight_map")
        if not isinstance(places, dict):
            raise BaseUnusable(f"{index}: no index of safetensors files")
        for place in places.values():
            if not isinstance(place, str) or place not in names:
                raise BaseUnusable(f"{index}: {str(place)[:80]!r} is no safetensors file of this folder")


def _json_object(file: Path, data: bytes) -> dict[str, Any]:
    try:
        found = canonical.parse(data, MAX_DEPTH, canonical.unique)
    except ValueError as error:
        raise BaseUnusable(f"{file}: not JSON: {str(error)[:200]}") from error
    if not isinstance(found, dict):
        raise BaseUnusable(f"{file}: not a JSON object")
    return found


def _small(file: Path, most: int) -> bytes:
    """A whole file, which is not read when it is too large."""
    with file.open("rb") as source:
        data = source.read(most + 1)
    if len(data) > most:
        raise BaseUnusable(f"{file}: more than {most} bytes")
    return data


def _tensors(file: Path) -> Iterator[tuple[str, StoredTensor]]:
    """The tensors of a file in the order of their names, hashed piece by piece."""
    with file.open("rb") as source:
        size_bytes = source.seek(0, 2)
        start, header = _header(file, source, size_bytes)
        for name, (dtype, shape, begin, end) in sorted(header.items()):
            digest = _hash(file, source, start + begin, end - begin)
            yield name, StoredTensor(file, dtype, shape, start + begin, end - begin, digest)


def _hash(file: Path, source: IO[bytes], offset_bytes: int, size_bytes: int) -> str:
    source.seek(offset_bytes)
    hasher, left = sha256(), size_bytes
    while left:
        piece = source.read(min(left, CHUNK_BYTES))
        if not piece:
            raise BaseUnusable(f"{file}: became shorter while it was read")
        hasher.update(piece)
        left -= len(piece)
    return hasher.hexdigest()


Entry = tuple[str, tuple[int, ...], int, int]


def _header(file: Path, source: IO[bytes], size_bytes: int) -> tuple[int, dict[str, Entry]]:
    """(where the data starts, name → dtype, shape, begin, end). The data are covered once, to the last byte."""
    source.seek(0)
    length = int.from_bytes(source.read(8), "little")
    if size_bytes < 8 or length > min(MAX_HEADER_BYTES, size_bytes - 8):
        raise BaseUnusable(f"{file}: not a safetensors file: a header of {length} bytes in a file of {size_bytes}")
    try:
        header = canonical.parse(source.read(length), MAX_DEPTH, canonical.unique)
        metadata = header.pop("__metadata__", {})
        entries = {name: _entry(name, entry) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BaseUnusable(f"{file}: not a safetensors file: {str(error)[:200]}") from error
    if not isinstance(metadata, dict):
        raise BaseUnusable(f"{file}: not a safetensors file: __metadata__ is not an object")
    place = 0
    for begin, end in sorted((begin, end) for _, _, begin, end in entries.values()):
        if begin != place:
            raise BaseUnusable(f"{file}: not a safetensors file: a tensor at {begin}, the one before ends at {place}")
        place = end
    if 8 + length + place != size_bytes:
        raise BaseUnusable(
            f"{file}: not a safetensors file: {size_bytes} bytes where its header accounts for {8 + length + place}"
        )
    return 8 + length, entries


def _entry(name: str, entry: Any) -> Entry:
    """One tensor's line of a header. Raises ValueError, KeyError or TypeError."""
    if not name.isascii() or not name.isprintable() or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"the entry of {name[:80]!r}")
    dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if any(type(one) is not int or not 0 <= one <= canonical.MAX_INTEGER for one in (begin, end, *shape)):
        raise ValueError(f"{name}: sizes are integers from 0 to 2^53 - 1")
    if dtype not in BITS or type(shape) is not list or len(shape) > MAX_SIDES:
        raise ValueError(f"{name}: an unknown dtype, or no shape")
    if 8 * (end - begin) != prod(shape) * BITS[dtype]:
        raise ValueError(f"{name}: {end - begin} bytes are not {dtype} of {shape}"[:200])
    return dtype, tuple(shape), begin, end
