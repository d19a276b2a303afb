"""One GET, or POST of canonical JSON, from a server that is not trusted with our time or memory.

No redirect is followed, nothing is decompressed, no cookie or proxy is used. The whole exchange, from connecting to the
last byte, ends by its deadline, however slowly bytes trickle in: a timer shuts the socket down. (Only the resolution
of the host name is left to the operating system's own limits.)
"""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from ledger.content.errors import CarrierLied, StoreUnavailable
from proofs.errors import LocalFault

_READ_BYTES = 1 << 16
_CONNECT_S = 10.0  # for each address of a host, TLS included
_STALL_S = 30.0  # the longest silence


class GatewayUrlInvalid(LocalFault):
    """Not an http or https address that this client would ask."""


@dataclass(frozen=True)
class Base:
    """Where a gateway lives: scheme, host, port and the path before /ipfs."""

    url: str
    secure: bool
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> Base:
        """Raises GatewayUrlInvalid, also for a user name in the address, which would end in logs."""
        try:
            parts = urlsplit(url)
            port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        except (ValueError, KeyError):
            raise GatewayUrlInvalid("a gateway is named by an http:// or https:// address") from None
        if not parts.hostname or parts.username is not None or parts.query or parts.fragment:
            raise GatewayUrlInvalid("a gateway's address has a host, maybe a path, and no user name, query or fragment")
        return cls(url.rstrip("/"), parts.scheme == "https", parts.hostname, port, parts.path.rstrip("/"))


class Expired(StoreUnavailable):
    """The deadline passed before the last byte."""


class StatusRefused(StoreUnavailable):
    """Any status but 200 and the redirects."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(f"HTTP {status}" + (": does not have it" if status in (404, 410) else ""))


@dataclass(frozen=True)
class Wanted:
    """target: path and query, below the base. max_bytes: the longest body that can be right."""

    target: str
    accept: str
    media_type: str
    max_bytes: int


@contextmanager
def get(base: Base, wanted: Wanted, timeout_s: float, *, post: bytes | None = None) -> Iterator[Iterator[bytes]]:
    """The chunks of a 200 answer of the wanted type. Raises StatusRefused, Expired, StoreUnavailable or CarrierLied.

    Errors of the body are raised from the iterator; the deadline covers the time that the caller takes.
    """
    ends = time.monotonic() + timeout_s
    connection = _connection(base, timeout_s)
    timer: threading.Timer | None = None
    try:
        with _translated(ends, timeout_s):
            connection.connect()
            connection.sock.settimeout(min(_STALL_S, timeout_s))
            timer = _shutdown_at(ends, connection.sock)
            headers = {"Accept": wanted.accept, "Accept-Encoding": "identity", "Connection": "close"}
            if post is None:
                connection.request("GET", base.path + wanted.target, headers=headers)
            else:
                headers["Content-Type"] = "application/json"
                connection.request("POST", base.path + wanted.target, post, headers)
            response = connection.getresponse()
        with response:
            if time.monotonic() >= ends:  # Python takes headers that were cut off for complete ones
                raise Expired(f"not done after {timeout_s:g} s")
            _check_head(response, wanted)
            yield _body(response, wanted.max_bytes, ends, timeout_s)
    finally:
        if timer is not None:
            timer.cancel()
        connection.close()


def _connection(base: Base, timeout_s: float) -> http.client.HTTPConnection:
    kind = http.client.HTTPSConnection if base.secure else http.client.HTTPConnection
    return kind(base.host, base.port, timeout=min(_CONNECT_S, timeout_s))


def _shutdown_at(ends: float, sock: socket.socket) -> threading.Timer:
    def shutdown() -> None:
        with suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)  # below TLS, which may be in the middle of a read

    timer = threading.Timer(max(0.0, ends - time.monotonic()), shutdown)
    timer.daemon = True
    timer.start()
    return timer


def _check_head(response: http.client.HTTPResponse, wanted: Wanted) -> None:
    if 300 <= response.status < 400:
        raise CarrierLied(f"redirects (HTTP {response.status}), which is never followed")
    if response.status != 200:
        raise StatusRefused(response.status)
    found = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if found != wanted.media_type:
        raise CarrierLied(f"sent {found[:80]!a} instead of {wanted.media_type}")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise CarrierLied("sent a compressed body, which was not asked for")
    if response.length is not None and response.length > wanted.max_bytes:
        raise CarrierLied(f"announced {response.length} bytes where at most {wanted.max_bytes} can be right")


def _body(response: http.client.HTTPResponse, max_bytes: int, ends: float, timeout_s: float) -> Iterator[bytes]:
    announced, received = response.length, 0
    while True:
        with _translated(ends, timeout_s):
            chunk = response.read1(_READ_BYTES)
            if not chunk:
                break
        received += len(chunk)
        if received > max_bytes:
            raise CarrierLied(f"sent more than {max_bytes} bytes, the most that can be right")
        yield chunk
    if time.monotonic() >= ends:
        raise Expired(f"not done after {timeout_s:g} s")
    if announced is not None and received != announced:
        raise StoreUnavailable(f"closed the connection after {received} of {announced} bytes")


@contextmanager
def _translated(ends: float, timeout_s: float) -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:
        if time.monotonic() >= ends:
            raise Expired(f"not done after {timeout_s:g} s") from error
        if isinstance(error, TimeoutError):
            raise StoreUnavailable("does not answer") from error
        raise StoreUnavailable(f"{type(error).__name__}: {_short(error)}") from error


def _short(error: Exception) -> str:
    return ascii(str(error))[1:121]
