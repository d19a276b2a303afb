"""A Kubo daemon as a content store, through ipfshttpclient 0.7: the only module that imports it.

The DAG is built here and imported as a CAR, so the CID depends on no daemon's defaults; the root that Kubo answers is
compared. Reading takes a CAR export as a stream through the one verifier: completeness is checked here, because Kubo
reports errors in mid-stream in a trailer that Python drops. A CID that Kubo does not have makes it search for ever,
so everything has a deadline. The client's own `get` (it unpacks tar files unfiltered) and `add` (it changes layouts)
are never used, and no session is shared among threads.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import ipfshttpclient
from ipfshttpclient import exceptions

from ledger.content.car import encode_block, encode_header
from ledger.content.cid import MAX_BLOCK_BYTES, Block, Cid
from ledger.content.errors import Attempt, CarrierLied, ContentMissing, StoreUnavailable
from ledger.content.reader import Limits
from ledger.content.store import RemoteStore, bounded, raw_block, read_car, read_streamed
from ledger.content.unixfs import directory_blocks


class KuboStore(RemoteStore):
    """`api`: the multiaddr of Kubo's RPC API, like /ip4/127.0.0.1/tcp/5001, or its http:// address."""

    def __init__(self, api: str, timeout_s: float = 120.0) -> None:
        self._api = api
        self._timeout_s = timeout_s

    def put_directory(self, files: Mapping[str, bytes]) -> bytes:
        """Imported and pinned when it returns. Raises StoreUnavailable."""
        root, others = directory_blocks(files)
        self._import([root], others)
        return root.cid.digest

    def put_raw(self, data: bytes) -> bytes:
        block = raw_block(data)
        self._import([block], [])
        return block.cid.digest

    def import_car(self, source: BinaryIO, limits: Limits) -> list[Cid]:
        roots, blocks = read_car(source, limits)
        tops = [Block(cid, blocks.pop(cid)) for cid in roots]
        self._import(tops, [Block(cid, data) for cid, data in blocks.items()])
        return list(roots)

    def get_directory(self, digest: bytes, limits: Limits) -> dict[str, bytes]:
        root = Cid.directory(digest)
        with self._reading(root), self._client() as client, self._export(client, root) as chunks:
            return read_streamed(root, self._timed(chunks), limits)

    def get_raw(self, digest: bytes, max_bytes: int) -> bytes:
        cid = Cid.raw(digest)
        with self._reading(cid), self._client() as client:
            with client.block.get(str(cid), stream=True, opts=self._options()) as chunks:
                data = _joined(self._timed(chunks))
            cid.check(data)
        return bounded(data, max_bytes)

    def _import(self, roots: Sequence[Block], others: Sequence[Block]) -> None:
        car = io.BytesIO()
        car.write(encode_header(block.cid for block in roots))
        for block in (*roots, *others):
            car.write(encode_block(block))
        car.seek(0)
        try:
            with self._client() as client:
                answer = client.dag.imprt(car, opts={**self._options(), "pin-roots": "true"})
        except (exceptions.Error, OSError) as error:
            raise StoreUnavailable(f"kubo at {self._api}: {_said(error)}") from error
        _check_import(answer if isinstance(answer, list) else [answer], {str(block.cid) for block in roots})

    def _client(self) -> Any:
        """A client for one call. `connect` would refuse a Kubo of this decade."""
        return ipfshttpclient.Client(self._api, timeout=self._timeout_s)

    def _export(self, client: Any, root: Cid) -> Any:
        return client.dag.export(str(root), stream=True, opts=self._options())

    def _options(self) -> dict[str, str]:
        return {"timeout": f"{max(1, round(self._timeout_s * 1000))}ms"}

    def _timed(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        ends = time.monotonic() + self._timeout_s
        for chunk in chunks:
            if time.monotonic() >= ends:
                raise StoreUnavailable(f"not done after {self._timeout_s:g} s")
            yield chunk

    @contextmanager
    def _reading(self, cid: Cid) -> Iterator[None]:
        try:
            yield
        except (StoreUnavailable, CarrierLied, exceptions.Error, OSError) as error:
            lied = isinstance(error, CarrierLied)
            raise ContentMissing(cid, [Attempt(f"kubo at {self._api}", _said(error), lied)]) from error


def _check_import(answers: Sequence[Any], wanted: set[str]) -> None:
    """Kubo can answer 200 and say in the body that pinning failed."""
    pinned = set()
    for answer in answers:
        root = answer.get("Root") if isinstance(answer, Mapping) else None
        if isinstance(root, Mapping):
            if root.get("PinErrorMsg"):
                raise StoreUnavailable(f"kubo did not pin: {ascii(root['PinErrorMsg'])[:200]}")
            pinned.add(str((root.get("Cid") or {}).get("/")))
    if pinned != wanted:
        raise StoreUnavailable(f"kubo imported {sorted(pinned)} where {sorted(wanted)} were sent")


def _joined(chunks: Iterator[bytes]) -> bytes:
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) > MAX_BLOCK_BYTES:
            raise CarrierLied(f"sent more than {MAX_BLOCK_BYTES} bytes for one block")
    return bytes(data)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {ascii(str(error))[1:161]}"
