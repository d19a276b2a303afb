"""The trustless gateway that every embedded node serves, read only: `GET|HEAD /ipfs/{cid}?format=raw|car`.

    200  the block, or the CAR of the whole content in depth-first order without repetition; cacheable for ever
    400  not a CID of this store's kind, a sub-path, an unknown format or scope
    404  not here (it never fetches on a stranger's behalf)
    405  another method            406  neither ?format nor Accept names raw or car
    413  the content is larger than this gateway sends as one CAR: ask for its blocks
    500  this node's own copy is damaged

`GatewayServer.handle` is a function of the request; `serve` puts it behind a small threaded HTTP server.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qs

from ledger.content.car import encode_block, encode_header
from ledger.content.cid import CID_BYTES, Block, Cid, CidInvalid
from ledger.content.errors import ContentInvalid, ContentMissing, LimitExceeded
from ledger.content.gateway import CAR_TYPE, RAW_TYPE
from ledger.content.reader import Limits
from ledger.content.store import dag_sizes
from ledger.content.varint import encode as encode_varint
from proofs.errors import LocalFault

SERVED_LIMITS = Limits(max_files=4096, max_file_bytes=1 << 30, max_total_bytes=1 << 30, max_depth=16)
_CONNECTIONS = 64
_IDLE_S = 30.0
_LONGEST_S = 900.0

log = logging.getLogger(__name__)


class Blocks(Protocol):
    """The store that is served: a local one, never one that would fetch."""

    def get_block(self, cid: Cid) -> bytes: ...


class Answers(Protocol):
    """What is put behind the HTTP server: the gateway, or a daemon's pages with the gateway among them."""

    def handle(self, path: str, query: str, accept: str, method: str) -> Reply: ...


class Reply(NamedTuple):
    """An HTTP answer. `headers` has Content-Length; for HEAD, `body` is empty and the headers are those of GET."""

    status: int
    headers: Mapping[str, str]
    body: Iterable[bytes]


@dataclass(frozen=True)
class _Refused(Exception):
    status: int
    why: str


class GatewayServer:
    """Answers requests from `blocks`. `limits` bounds what is sent as one CAR."""

    def __init__(self, blocks: Blocks, limits: Limits = SERVED_LIMITS) -> None:
        self._blocks = blocks
        self._limits = limits

    def handle(self, path: str, query: str = "", accept: str = "", method: str = "GET") -> Reply:
        """`path` and `query` as they came, undecoded. Never raises for what a stranger sends."""
        try:
            if method not in ("GET", "HEAD"):
                raise _Refused(405, "this gateway is read only")
            reply = self._answer(path, query, accept)
        except _Refused as refused:
            reply = _plain(refused.status, refused.why)
        except ContentMissing:
            reply = _plain(404, "not here")
        except LimitExceeded:
            reply = _plain(413, "larger than this gateway sends as one CAR: ask for its blocks with format=raw")
        except ContentInvalid as error:
            reply = _plain(400, f"not a directory that this gateway can walk: {error}")
        except LocalFault:
            log.exception("serving %s", path[:80])
            reply = _plain(500, "this node's copy is damaged")
        return reply._replace(body=()) if method == "HEAD" else reply

    def _answer(self, path: str, query: str, accept: str) -> Reply:
        cid = _cid(path)
        form = _format(query, accept)
        if form == "raw":
            data = self._blocks.get_block(cid)
            return Reply(200, _headers(cid, RAW_TYPE, "raw", "bin", len(data)), [data])
        sizes = {cid: len(self._blocks.get_block(cid))}
        if form == "car":
            sizes = dag_sizes([cid], self._blocks.get_block, self._limits)
        total = len(encode_header([cid])) + sum(
            len(encode_varint(CID_BYTES + n)) + CID_BYTES + n for n in sizes.values()
        )
        kind = f"{CAR_TYPE}; version=1; order=dfs; dups=n"
        return Reply(
            200, _headers(cid, kind, "car" if form == "car" else "block.car", "car", total), self._car(cid, sizes)
        )

    def _car(self, root: Cid, cids: Iterable[Cid]) -> Iterator[bytes]:
        yield encode_header([root])
        for cid in cids:
            yield encode_block(Block(cid, self._blocks.get_block(cid)))


def _cid(path: str) -> Cid:
    prefix, _, name = path.partition("/ipfs/")
    if prefix or not name:
        raise _Refused(404, "only /ipfs/{cid} is served")
    try:
        return Cid.parse(name)
    except CidInvalid:
        raise _Refused(400, "only a base32 CIDv1 of codec raw or dag-pb with sha2-256, and no path below it") from None


def _format(query: str, accept: str) -> str:
    """ "raw", "car", or "block" for a CAR of the root alone. ?format wins over Accept."""
    asked = _parameters(query)
    types = [item.partition(";")[0].strip().lower() for item in accept.split(",")]
    formats = asked.get("format") or [kind.rpartition(".")[2] for kind in types if kind in (RAW_TYPE, CAR_TYPE)]
    if not formats:
        raise _Refused(406, "say ?format=raw or ?format=car, or accept one of their media types")
    if formats[0] == "raw":
        return "raw"
    scope = asked.get("dag-scope", ["all"])[0]
    if formats[0] != "car" or scope not in ("all", "block") or "entity-bytes" in asked:
        raise _Refused(400, "format is raw or car; dag-scope is all or block; ranges are not served")
    return "car" if scope == "all" else "block"


def _parameters(query: str) -> dict[str, list[str]]:
    try:
        if len(query) > 1024:
            raise ValueError
        return parse_qs(query, keep_blank_values=True, max_num_fields=16)
    except ValueError:
        raise _Refused(400, "too many parameters") from None


def _headers(cid: Cid, media_type: str, tag: str, extension: str, size: int) -> dict[str, str]:
    return {
        "Content-Type": media_type,
        "Content-Length": str(size),
        "Cache-Control": "public, max-age=29030400, immutable",
        "Etag": f'"{cid}.{tag}"',
        "X-Ipfs-Path": f"/ipfs/{cid}",
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": f'attachment; filename="{cid}.{extension}"',
        "Accept-Ranges": "none",
        "Vary": "Accept",
    }


def _plain(status: int, why: str) -> Reply:
    body = (why + "\n").encode("ascii", "backslashreplace")
    headers = {
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    if status == 405:
        headers["Allow"] = "GET, HEAD"
    return Reply(status, headers, [body])


class Serving:
    """A gateway that is being served; `url` is its address. Close it, or use it as a context."""

    def __init__(self, answers: Answers, host: str, port: int) -> None:
        self._server = _Server((host, port), _handler(answers))
        name, bound = self._server.server_address[:2]
        self.url = f"http://{name!s}:{bound}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="gateway", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve(blocks: Blocks, host: str = "127.0.0.1", port: int = 0, limits: Limits = SERVED_LIMITS) -> Serving:
    """Starts answering in threads; port 0 takes a free one. Raises OSError when the address is taken."""
    return Serving(GatewayServer(blocks, limits), host, port)


class _Server(ThreadingHTTPServer):
    """At most `_CONNECTIONS` at once, none longer than `_LONGEST_S`; one more is closed unanswered."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = _CONNECTIONS

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._room = threading.BoundedSemaphore(_CONNECTIONS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        timer = threading.Timer(_LONGEST_S, self._cut, [request])
        timer.daemon = True
        timer.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            timer.cancel()
            self._room.release()

    def _cut(self, request: socket.socket) -> None:
        with suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a client went away", exc_info=True)


def _handler(answers: Answers) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _IDLE_S
        protocol_version = "HTTP/1.1"
        server_version, sys_version = "candor", ""

        def _serve(self) -> None:
            path, _, query = self.path.partition("?")
            reply = answers.handle(path, query, self.headers.get("Accept", ""), self.command)
            write_reply(self, reply)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = _serve

        def log_message(self, format: str, *args: object) -> None:
            log.debug(format, *args)

    return Handler


def write_reply(handler: BaseHTTPRequestHandler, reply: Reply) -> None:
    """Sends a Reply through Python's own HTTP handler; a body that fails half way closes the connection."""
    handler.send_response(reply.status)
    for name, value in reply.headers.items():
        handler.send_header(name, value)
    handler.close_connection = True
    handler.send_header("Connection", "close")
    handler.end_headers()
    for chunk in reply.body:
        handler.wfile.write(chunk)
