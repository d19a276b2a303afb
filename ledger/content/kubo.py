"""A Kubo daemon as a content store, through ipfshttpclient 0.7: the only module that imports it.

The DAG is built here and imported as a CAR, so the CID depends on no daemon's defaults; the root that Kubo answers is
compared. Reading takes a CAR export as a stream through the one verifier: completeness is checked here, because Kubo
reports errors in mid-stream in a trailer that Python drops. A CID that Kubo does not have makes it search for ever,
so everything has a deadline. The client's own `get` (it unpacks tar files unfiltered) and `add` (it changes layouts)
are never used, and no session is shared among threads.
"""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from typing import Any, BinaryIO

from urllib3.exceptions import HTTPError

from ledger.content.car import write_car
from ledger.content.cid import MAX_BLOCK_BYTES, Block, Cid, Codec
from ledger.content.errors import Attempt, CarrierLied, ContentMissing, StoreUnavailable
from ledger.content.reader import Limits
from ledger.content.store import MemoryStore, RemoteStore, bounded, raw_block, read_streamed
from ledger.content.unixfs import directory_blocks

# Its patch of requests, for addresses that are not numbers, uses what urllib3 3 drops and 2 warns about.
os.environ.setdefault("PY_IPFS_HTTP_CLIENT_PATCH_REQUESTS", "no")

import ipfshttpclient
from ipfshttpclient import exceptions

# What the client raises, on purpose and when an answer has not the shape that it expects.
_CLIENT_ERRORS = (exceptions.Error, OSError, AssertionError, AttributeError, KeyError, TypeError, ValueError)


class KuboStore(RemoteStore):
    """`api`: the multiaddr of Kubo's RPC API, like /ip4/127.0.0.1/tcp/5001, or its http:// address."""

    def __init__(self, api: str, timeout_s: float = 120.0) -> None:
        self._api = api
        self._timeout_s = timeout_s

    def put_directory(self, files: Mapping[str, bytes]) -> bytes:
        """Imported and pinned when it returns. Raises StoreUnavailable."""
        root, others = directory_blocks(files)
        self._import(root, others)
        return root.cid.digest

    def put_raw(self, data: bytes) -> bytes:
        block = raw_block(data)
        self._import(block, [])
        return block.cid.digest

    def put_blocks(self, blocks: Iterable[Block], roots: Sequence[Block]) -> None:
        """Imported, and the roots pinned, when it returns. What is below them and not among `blocks` must be there:
        Kubo would search for it. Raises StoreUnavailable."""
        others = list(blocks)
        for root in roots:
            self._import(root, others)

    def import_car(self, source: BinaryIO, limits: Limits) -> list[Cid]:
        """Verified here first, then imported root by root: the client cannot read the answer to several."""
        held = MemoryStore()
        roots = held.import_car(source, limits)
        for root in roots:
            if root.codec is Codec.RAW:
                self.put_raw(held.get_block(root))
            else:
                self.put_directory(held.get_directory(root.digest, limits))
        return roots

    def get_directory(self, digest: bytes, limits: Limits) -> dict[str, bytes]:
        root = Cid.directory(digest)
        with self._reading(root), self._client() as client:
            stream = client.dag.export(str(root), stream=True, opts=self._options())
            with _arriving(stream, self._timeout_s) as chunks:
                return read_streamed(root, chunks, limits)

    def get_raw(self, digest: bytes, max_bytes: int) -> bytes:
        cid = Cid.raw(digest)
        with self._reading(cid), self._client() as client:
            stream = client.block.get(str(cid), stream=True, opts=self._options())
            with _arriving(stream, self._timeout_s) as chunks:
                data = _joined(chunks)
            cid.check(data)
        return bounded(data, max_bytes)

    def _import(self, root: Block, others: Sequence[Block]) -> None:
        car = io.BytesIO()
        write_car(car, [root.cid], [root, *others])
        car.seek(0)
        try:
            with self._client() as client:
                answer = client.dag.imprt(car, opts={**self._options(), "pin-roots": "true"})
            _check_import(answer, str(root.cid))
        except _CLIENT_ERRORS as error:
            raise StoreUnavailable(f"kubo at {self._api}: {_said(error)}") from error

    def _client(self) -> Any:
        """A client for one call. `connect` would refuse a Kubo of this decade."""
        return ipfshttpclient.Client(self._api, timeout=self._timeout_s)

    def _options(self) -> dict[str, str]:
        return {"timeout": f"{max(1, round(self._timeout_s * 1000))}ms"}

    @contextmanager
    def _reading(self, cid: Cid) -> Iterator[None]:
        try:
            yield
        except (StoreUnavailable, CarrierLied, *_CLIENT_ERRORS) as error:
            lied = isinstance(error, CarrierLied)
            raise ContentMissing(cid, [Attempt(f"kubo at {self._api}", _said(error), lied)]) from error


@contextmanager
def _arriving(stream: Any, timeout_s: float) -> Iterator[Iterator[bytes]]:
    """The body of an answer in small reads, all of it within the time limit, whatever its framing.

    The client's own iteration takes a body, or a chunk of it, whole: it is bypassed at its `requests` response.
    """
    with stream:
        raw = stream._closables[0].raw
        timer = threading.Timer(timeout_s, _shutdown, [raw])
        timer.daemon = True
        timer.start()
        try:
            yield _chunks(raw, time.monotonic() + timeout_s, timeout_s)
        finally:
            timer.cancel()


def _chunks(raw: Any, ends: float, timeout_s: float) -> Iterator[bytes]:
    while True:
        try:
            chunk = raw.read1(1 << 16)
        except (HTTPError, HTTPException, OSError, ValueError) as error:
            raise StoreUnavailable(_said(error)) from error
        finally:
            if time.monotonic() >= ends:
                raise StoreUnavailable(f"not done after {timeout_s:g} s")
        if not chunk:
            return
        yield chunk


def _shutdown(raw: Any) -> None:
    with suppress(OSError, RuntimeError, ValueError):
        raw.shutdown()


def _check_import(answer: Any, wanted: str) -> None:
    """Kubo can answer 200 and say in the body that pinning failed."""
    root = answer.get("Root") if isinstance(answer, Mapping) else None
    cid = root.get("Cid") if isinstance(root, Mapping) else None
    found = cid.get("/") if isinstance(cid, Mapping) else None
    if found != wanted or not isinstance(root, Mapping):
        raise StoreUnavailable(f"kubo imported {ascii(found)[:80]} where {wanted} was sent")
    if root.get("PinErrorMsg"):
        raise StoreUnavailable(f"kubo did not pin: {ascii(root['PinErrorMsg'])[:200]}")


def _joined(chunks: Iterator[bytes]) -> bytes:
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) > MAX_BLOCK_BYTES:
            raise CarrierLied(f"sent more than {MAX_BLOCK_BYTES} bytes for one block")
    return bytes(data)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {ascii(str(error))[1:161]}"
