"""Reading from trustless gateways (https://specs.ipfs.tech/http-gateways/trustless-gateway/), ours or Kubo's.

A directory is asked for as one CAR, and verified while it arrives; from a gateway that has no CARs, block by block. A
single block is asked for raw. Whatever a gateway does, the answer is verified content, an error that blames the
content's author (only when bytes with the right digest prove it), or ContentMissing with what each gateway did. All
memory and time are bounded by the caller's limits and by `timeout_s`, the longest that one gateway may take for one
content.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO, NoReturn, TypeVar

from ledger.content.car import car_budget
from ledger.content.cid import MAX_BLOCK_BYTES, Cid
from ledger.content.errors import Attempt, CarrierLied, ContentMissing, ReadOnlyStore, StoreUnavailable
from ledger.content.http_get import Base, Expired, StatusRefused, Wanted, get
from ledger.content.reader import Limits, read_directory
from ledger.content.store import RemoteStore, bounded, read_streamed

RAW_TYPE = "application/vnd.ipld.raw"
CAR_TYPE = "application/vnd.ipld.car"
CAR_ACCEPT = f"{CAR_TYPE}; version=1; order=dfs; dups=n"
_NO_CARS = (400, 405, 406, 413, 415, 501)  # what gateways answer that serve blocks only, or no CAR of this size

T = TypeVar("T")
log = logging.getLogger(__name__)


class GatewayStore(RemoteStore):
    """Read only. `urls` are asked in order; the first that answers truthfully wins."""

    def __init__(self, urls: Sequence[str], timeout_s: float = 120.0) -> None:
        self._bases = tuple(Base.parse(url) for url in urls)
        self._timeout_s = timeout_s

    def get_directory(self, digest: bytes, limits: Limits) -> dict[str, bytes]:
        root = Cid.directory(digest)
        return self._first(root, lambda base: self._directory(base, root, limits))

    def get_raw(self, digest: bytes, max_bytes: int) -> bytes:
        cid = Cid.raw(digest)
        return bounded(self._first(cid, lambda base: _block(base, cid, self._timeout_s)), max_bytes)

    def get_block(self, cid: Cid) -> bytes:
        """One block of any kind, verified: what an audit takes along of a bundle that breaks the format."""
        return self._first(cid, lambda base: _block(base, cid, self._timeout_s))

    def put_directory(self, files: Mapping[str, bytes]) -> NoReturn:
        raise ReadOnlyStore("a gateway can only be read")

    def put_raw(self, data: bytes) -> NoReturn:
        raise ReadOnlyStore("a gateway can only be read")

    def import_car(self, source: BinaryIO, limits: Limits) -> NoReturn:
        raise ReadOnlyStore("a gateway can only be read")

    def _first(self, cid: Cid, ask: Callable[[Base], T]) -> T:
        attempts: list[Attempt] = []
        for base in self._bases:
            try:
                return ask(base)
            except (StoreUnavailable, CarrierLied) as error:
                attempts.append(Attempt(base.url, str(error), lied=isinstance(error, CarrierLied)))
                absent = isinstance(error, StatusRefused) and error.status == 404
                log.log(logging.DEBUG if absent else logging.WARNING, "gateway %s", attempts[-1])
        raise ContentMissing(cid, attempts or [Attempt("gateways", "none is configured")])

    def _directory(self, base: Base, root: Cid, limits: Limits) -> dict[str, bytes]:
        ends = time.monotonic() + self._timeout_s
        try:
            return _car_directory(base, root, limits, self._timeout_s)
        except StatusRefused as error:
            if error.status not in _NO_CARS:
                raise
        return read_directory(root, lambda cid: _block(base, cid, ends - time.monotonic()), limits)


def _car_directory(base: Base, root: Cid, limits: Limits, timeout_s: float) -> dict[str, bytes]:
    wanted = Wanted(f"/ipfs/{root}?format=car&dag-scope=all", CAR_ACCEPT, CAR_TYPE, car_budget(limits))
    with get(base, wanted, timeout_s) as chunks:
        return read_streamed(root, chunks, limits)


def _block(base: Base, cid: Cid, timeout_s: float) -> bytes:
    if timeout_s <= 0:
        raise Expired("not done in time")
    with get(base, Wanted(f"/ipfs/{cid}?format=raw", RAW_TYPE, RAW_TYPE, MAX_BLOCK_BYTES), timeout_s) as chunks:
        data = b"".join(chunks)
    cid.check(data)
    return data
