"""A local store with friends: read here first, else from each remote in turn, and keep what was fetched.

Writes go to the local store and to every mirror; they are acknowledged when all have them, and are safe to repeat.
Content that a remote proves to be invalid is invalid everywhere: nobody else is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import BinaryIO, Protocol, TypeVar

from ledger.content.cid import Cid, Codec
from ledger.content.errors import Attempt, ContentMissing, StoreDamaged
from ledger.content.reader import Limits
from ledger.content.store import EXPORT_LIMITS, ContentStore, Root, distinct_roots

T = TypeVar("T")


class Reads(Protocol):
    """The half of a ContentStore that a remote needs."""

    def get_directory(self, digest: bytes, limits: Limits) -> dict[str, bytes]: ...

    def get_raw(self, digest: bytes, max_bytes: int) -> bytes: ...


class PeeredStore:
    """`local` first, then `remotes` in order; `mirrors` receive every put."""

    def __init__(self, local: ContentStore, remotes: Sequence[Reads], mirrors: Sequence[ContentStore] = ()) -> None:
        self.local = local
        self.remotes = tuple(remotes)
        self.mirrors = tuple(mirrors)

    def put_directory(self, files: Mapping[str, bytes]) -> bytes:
        digest = self.local.put_directory(files)
        for mirror in self.mirrors:
            mirror.put_directory(files)
        return digest

    def put_raw(self, data: bytes) -> bytes:
        digest = self.local.put_raw(data)
        for mirror in self.mirrors:
            mirror.put_raw(data)
        return digest

    def get_directory(self, digest: bytes, limits: Limits) -> dict[str, bytes]:
        """Raises ContentMissing naming everybody who was asked and what each did."""
        return self._find(
            Cid.directory(digest), lambda store: store.get_directory(digest, limits), self.local.put_directory
        )

    def get_raw(self, digest: bytes, max_bytes: int) -> bytes:
        return self._find(Cid.raw(digest), lambda store: store.get_raw(digest, max_bytes), self.local.put_raw)

    def export_car(self, roots: Iterable[Root], sink: BinaryIO) -> None:
        """Fetches what is not here first."""
        wanted = distinct_roots(roots)
        for root in wanted:
            if root.codec is Codec.RAW:
                self.get_raw(root.digest, EXPORT_LIMITS.max_file_bytes)
            else:
                self.get_directory(root.digest, EXPORT_LIMITS)
        self.local.export_car(wanted, sink)

    def import_car(self, source: BinaryIO, limits: Limits) -> list[Cid]:
        return self.local.import_car(source, limits)

    def _find(self, cid: Cid, read: Callable[[Reads], T], keep: Callable[[T], bytes]) -> T:
        attempts: list[Attempt] = []
        try:
            return read(self.local)
        except ContentMissing as missing:
            attempts += missing.attempts
        for remote in self.remotes:
            try:
                content = read(remote)
            except ContentMissing as missing:
                attempts += missing.attempts
                continue
            if keep(content) != cid.digest:
                raise StoreDamaged(f"{cid} was verified, and stored under another name: a defect of Candor")
            return content
        raise ContentMissing(cid, attempts)
