"""JSON-RPC to a node that may be slow, wrong or hostile: sizes and times are bounded, every value is read strictly.

web3's HTTP provider encodes the requests. Its retries are off (by default it would send a transaction again), and its
reading of answers without a limit is replaced.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPResponse, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from web3 import HTTPProvider
from web3.types import RPCEndpoint

from ledger.canonical import parse
from ledger.ports import ChainLies, ChainUnavailable
from proofs.errors import LocalFault, WireFault

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
MAX_ANSWER_BYTES = 64 << 20
READ_BYTES = 1 << 16
MAX_MESSAGE_CHARS = 300
MAX_DEPTH = 64
QUANTITY: Final = re.compile("0x[0-9a-fA-F]+")  # int() and fromhex() take signs, blanks and underscores too
DATA: Final = re.compile("0x(?:[0-9a-fA-F]{2})*")
LOOPBACK: Final = {"127.0.0.1", "::1", "localhost"}


class RpcRefused(WireFault):
    """The node answered with an error. `data` is what a revert returned, empty if there is none."""

    def __init__(self, method: str, code: int, message: str, data: bytes) -> None:
        self.code = code
        self.data = data
        super().__init__(f"{method}: the node answers {code}: {message[:MAX_MESSAGE_CHARS]}")


class Rpc(HTTPProvider):
    """One endpoint; safe to share between threads."""

    def __init__(self, url: str, *, read_timeout_s: float = READ_TIMEOUT_S) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise LocalFault("chain.rpc_url: expected an http:// or https:// address")
        super().__init__(url, exception_retry_configuration=None)
        self._url = url
        self._timeout_s = (CONNECT_TIMEOUT_S, read_timeout_s)
        self._threads = threading.local()

    def call(self, method: str, *params: Any) -> Any:
        """The result. Raises ChainUnavailable, or RpcRefused for an error that the node itself reports."""
        request = self.encode_rpc_request(RPCEndpoint(method), list(params))
        return _result(method, self._answer(method, request))

    def call_each(self, method: str, each: Sequence[Sequence[Any]]) -> list[Any]:
        """One request with a call for each of these parameters; the results in their order. Raises as `call` does;
        RpcRefused also where the node answers no batch (JSON-RPC 2.0, section 6)."""
        asked = [
            {"jsonrpc": "2.0", "id": at, "method": method, "params": list(params)} for at, params in enumerate(each)
        ]
        answer = self._answer(method, json.dumps(asked).encode())
        if isinstance(answer, dict):
            raise _refused(method, answer.get("error"))
        if not isinstance(answer, list) or len(answer) != len(asked):
            raise ChainUnavailable(f"{method}: not one answer to each of {len(asked)} calls")
        by_id = {one.get("id"): one for one in answer if isinstance(one, dict) and type(one.get("id")) is int}
        if by_id.keys() != set(range(len(asked))):
            raise ChainUnavailable(f"{method}: answers to other calls than were made")
        return [_result(method, by_id[at]) for at in range(len(asked))]

    def _answer(self, method: str, request: bytes) -> Any:
        raw = self._make_request(RPCEndpoint(method), request)
        try:
            return parse(raw, MAX_DEPTH)
        except (ValueError, RecursionError) as error:
            raise ChainUnavailable(f"{method}: the answer is not JSON") from error

    def _make_request(self, method: RPCEndpoint, request_data: bytes) -> bytes:
        """One POST, never repeated, and never more than MAX_ANSWER_BYTES of answer."""
        try:
            headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
            with self._session().post(
                self._url,
                data=request_data,
                headers=headers,
                timeout=self._timeout_s,
                stream=True,
                allow_redirects=False,
            ) as response:
                if response.status_code != 200:
                    raise ChainUnavailable(f"{method}: HTTP status {response.status_code}")
                return _read_bounded(method, response, self._timeout_s[1])
        except (requests.RequestException, HTTPError, OSError) as error:
            raise ChainUnavailable(f"{method}: {type(error).__name__}") from error

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._threads, "session", None)
        if session is None:
            session = self._threads.session = requests.Session()
            session.trust_env = urlsplit(self._url).hostname not in LOOPBACK
            for scheme in ("http://", "https://"):
                session.mount(scheme, _InTime())
        return session


@contextmanager
def _ended_at(sock: socket.socket, timeout_s: float | None) -> Iterator[None]:
    """Shuts the socket down, below TLS, when what is within takes twice the timeout, which each byte starts anew."""

    def shutdown() -> None:
        with suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    timer = threading.Timer(2 * (timeout_s or READ_TIMEOUT_S), shutdown)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class _Http(HTTPConnection):
    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        with _ended_at(self.sock, self.timeout):
            return super().getresponse()


class _Https(HTTPSConnection):
    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        with _ended_at(self.sock, self.timeout):
            return super().getresponse()


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https


class _InTime(HTTPAdapter):
    """Connections whose heads of answers arrive in time or not at all; bodies are for `_read_bounded`."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}


def _read_bounded(method: str, response: requests.Response, timeout_s: float) -> bytes:
    """The body as it comes, compressed or not: an answer that trickles is given up after `timeout_s`."""
    data, deadline = bytearray(), time.monotonic() + timeout_s
    while chunk := response.raw.read1(READ_BYTES, decode_content=False):
        data += chunk
        if len(data) > MAX_ANSWER_BYTES:
            raise ChainUnavailable(f"{method}: the answer is larger than {MAX_ANSWER_BYTES} bytes")
        if time.monotonic() > deadline:
            raise ChainUnavailable(f"{method}: Timeout, the answer is not complete after {timeout_s} s")
    return bytes(data)


def _result(method: str, answer: Any) -> Any:
    if not isinstance(answer, dict) or ("result" in answer) == ("error" in answer):
        raise ChainUnavailable(f"{method}: the answer is not JSON-RPC")
    if "error" in answer:
        raise _refused(method, answer["error"])
    return answer["result"]


def _refused(method: str, error: Any) -> RpcRefused:
    if not isinstance(error, dict):
        return RpcRefused(method, 0, "unreadable error", b"")
    code, message, data = error.get("code"), error.get("message"), error.get("data")
    if isinstance(data, dict):  # some nodes nest it
        data = data.get("data")
    try:
        revert = bytes.fromhex(data[2:]) if isinstance(data, str) and data.startswith("0x") else b""
    except ValueError:
        revert = b""
    return RpcRefused(method, code if isinstance(code, int) else 0, str(message), revert)


def quantity(value: Any, what: str, bits: int = 64) -> int:
    """An integer from its "0x…" text. Raises ChainLies for anything else or more than `bits` bits."""
    if not isinstance(value, str) or len(value) > 2 + bits // 4 or not QUANTITY.fullmatch(value):
        raise ChainLies(f"{what}: expected a hex quantity of at most {bits} bits")
    return int(value, 16)


def octets(value: Any, what: str, size: int | None = None, most: int = 1 << 18) -> bytes:
    """Bytes from their "0x…" text, exactly `size` of them if given. Raises ChainLies."""
    if not isinstance(value, str) or not value.startswith("0x") or len(value) > 2 + 2 * most:
        raise ChainLies(f"{what}: expected hex data of at most {most} bytes")
    if not DATA.fullmatch(value):
        raise ChainLies(f"{what}: not hex data")
    data = bytes.fromhex(value[2:])
    if size is not None and len(data) != size:
        raise ChainLies(f"{what}: expected {size} bytes, found {len(data)}")
    return data


def mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ChainLies(f"{what}: expected an object")
    return value


def array(value: Any, what: str, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise ChainLies(f"{what}: expected a list of at most {most} items")
    return value
