"""One process per signing key on this machine, and turns at work that fills it: OS locks, which the kernel drops when
the process that holds one dies in any way.

LocalFault
└── KeyInUse   another process on this machine sends with the same key
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from proofs.errors import LocalFault

TURN_POLL_S: Final = 0.2
TURN_TELL_S: Final = 10.0


class KeyInUse(LocalFault):
    """Two daemons on one key would fight over nonces and could equivocate."""


class KeyLock:
    """Held from construction to `release`. The file names the process that holds it, for the error's sake only."""

    def __init__(self, chain_id: int, address: bytes, folder: Path | None = None) -> None:
        folder = folder or lock_folder()
        path = folder / f"key-{chain_id}-{address.hex()}.lock"
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LocalFault(f"{path}: cannot be locked ({error.strerror}); set XDG_RUNTIME_DIR") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._descriptor)
            raise KeyInUse(
                f"key 0x{address.hex()} is in use by process {holder}: stop that one, or give this daemon its own key"
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Idempotent. The file stays: removing it would let two processes lock two files of one name."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@contextmanager
def turn(path: Path | None, waiting: Callable[[], None]) -> Iterator[None]:
    """One at a time in here, of all processes that name this file; without a file, or alone, nobody waits.

    waiting: called now and then until it is this one's turn; may raise, to give up. Raises LocalFault.
    """
    if path is None:
        yield
        return
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LocalFault(f"{path}: cannot be locked ({error.strerror}); name another file for turns") from error
    try:
        told_at = -TURN_TELL_S
        while not _taken(descriptor):
            if time.monotonic() - told_at >= TURN_TELL_S:
                told_at = time.monotonic()
                waiting()
            time.sleep(TURN_POLL_S)
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_folder() -> Path:
    """Where all of this user's processes look: XDG_RUNTIME_DIR, or a private folder under the temporary one."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    base = Path(runtime) if runtime else Path(tempfile.gettempdir())
    folder = base / (f"candor-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat().st_uid
    except OSError as error:
        raise LocalFault(f"{folder}: cannot hold locks ({error.strerror}); set XDG_RUNTIME_DIR") from error
    if owner != os.getuid():
        raise LocalFault(f"{folder} belongs to another user; set XDG_RUNTIME_DIR to a folder of your own")
    return folder
