"""Contributions between submission and proof: what a member keeps of its training, and for how long.

Proofs of gradients are made after the second beacon, hours or a restart after training, and the commitment that they
open is to these very integers. Training again would have to give each of them again, to the bit; that a float gives the
same on another day (another driver, another number of threads) nobody promises. So they are kept, in the state folder,
readable for the member alone (0600), and deleted when the round is over.

A file: a label, the number of steps, rows and columns of each, all u32 big-endian; then int16, little-endian.

That gives nobody anything new: beside them lie the seeds, with which released sums give up their noise, and the data.

    LocalFault
    └── KeptDamaged   a file that cannot be read as what was written
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ledger.database import StorageFault
from proofs.errors import LocalFault

LABEL = b"candor/kept/1\0"
LARGEST = np.iinfo(np.int16).max  # no contribution is longer than clip_units, which proofs keep to 2048


class KeptDamaged(LocalFault):
    """What was kept cannot be read."""


@dataclass(frozen=True)
class KeptContributions:
    """A file for each round. Nothing but `folder` is ever written to, and nothing else in it is ever touched."""

    folder: Path

    def keep(self, key: str, contributions: Sequence[NDArray[np.int32]]) -> None:
        """Durable when it returns. `key` names the round (node.recompute.round_key)."""
        if any(len(part) and int(np.abs(part).max()) > LARGEST for part in contributions):
            raise LocalFault(f"a contribution beyond {LARGEST} units cannot be kept, and could not be proven")
        path = self._path(key)
        incoming = path.with_suffix(".incoming")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(_encoded(contributions))
                file.flush()
                os.fsync(file.fileno())
            incoming.replace(path)
            _sync(self.folder)
        except OSError as error:
            raise StorageFault(f"{path}: {error.strerror}; free some space") from error

    def get(self, key: str) -> list[NDArray[np.int32]] | None:
        """None where nothing was kept. Raises KeptDamaged."""
        path = self._path(key)
        try:
            return _decoded(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, struct.error) as error:
            raise KeptDamaged(f"{path}: cannot be read ({type(error).__name__})") from error

    def drop_others(self, key: str | None) -> None:
        """Delete whatever is kept of rounds other than this one; None: of all."""
        spared = None if key is None else self._path(key)
        try:
            for path in (*self.folder.glob("*.kept"), *self.folder.glob("*.incoming")):
                if path != spared:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageFault(f"{self.folder}: {error.strerror}; delete its files by hand") from error

    def _path(self, key: str) -> Path:
        return self.folder / f"{sha256(key.encode()).hexdigest()[:32]}.kept"


def _encoded(contributions: Sequence[NDArray[np.int32]]) -> bytes:
    sizes = [side for part in contributions for side in part.shape]
    head = LABEL + struct.pack(f">I{len(sizes)}I", len(contributions), *sizes)
    return head + b"".join(part.astype("<i2").tobytes() for part in contributions)


def _decoded(data: bytes) -> list[NDArray[np.int32]]:
    """Raises ValueError or struct.error for anything that `_encoded` does not write."""
    if not data.startswith(LABEL):
        raise ValueError("no label")
    at, parts = len(LABEL), []
    (steps,) = struct.unpack_from(">I", data, at)
    sizes = struct.unpack_from(f">{2 * steps}I", data, at + 4)
    at += 4 + 8 * steps
    for rows, columns in zip(sizes[::2], sizes[1::2], strict=True):
        part = np.frombuffer(data, "<i2", rows * columns, at).reshape(rows, columns)
        parts.append(part.astype(np.int32))
        at += 2 * rows * columns
    if at != len(data):
        raise ValueError("another length than its sizes say")
    return parts


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
