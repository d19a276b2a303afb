"""The daemon's HTTP server, on loopback unless told otherwise: read only, and nothing in it is private.

    GET /health    200 or 503 with JSON: ok, fault, role, round, phase, head, …
    GET /metrics   Prometheus text
    GET /verdict/{chain}/{contract}/{round}    what this verifier signed in that round (ledger.quorum), 404 if nothing
    GET /ipfs/…    the trustless gateway of ledger.content.server, over this daemon's own store

Whoever runs members on several machines sets `http.listen` to an address that the others reach: bundles are fetched
from there. Health and metrics then show there too: rounds, ε declared, steps; nothing that the data decides.
"""

from __future__ import annotations

import json
from typing import Any, Final

from ledger.content import GatewayServer, Reply, Serving
from ledger.content.server import Blocks
from node.verifying import Board
from node.watch import CONTENT_TYPE, Watch
from proofs.errors import LocalFault

LOG: Final = "see this daemon's log"
JSON: Final = "application/json"
VERDICT: Final = "/verdict/"


class AddressTaken(LocalFault):
    """The address to listen on is in use or not ours."""


class Pages:
    """Requests to replies; no sockets."""

    def __init__(self, watch: Watch, blocks: Blocks, board: Board | None = None) -> None:
        self._watch, self._board = watch, board or Board()
        self._gateway = GatewayServer(blocks)

    def handle(self, path: str, query: str, accept: str, method: str) -> Reply:
        """`path` and `query` as they came. Never raises for what a stranger sends."""
        if path.startswith("/ipfs/"):
            return self._gateway.handle(path, query, accept, method)
        reply = self._page(path) if method in ("GET", "HEAD") else _reply(405, "text/plain", b"read only\n")
        return reply._replace(body=()) if method == "HEAD" else reply

    def _page(self, path: str) -> Reply:
        if path == "/health":
            health = _without_causes(self._watch.health())
            body = json.dumps(health, sort_keys=True).encode() + b"\n"
            return _reply(200 if health["ok"] else 503, JSON, body)
        if path == "/metrics":
            return _reply(200, CONTENT_TYPE, self._watch.metrics())
        if path.startswith(VERDICT):
            record = self._board.get(path.removeprefix(VERDICT))
            return _reply(404, "text/plain", b"nothing signed\n") if record is None else _reply(200, JSON, record)
        return _reply(404, "text/plain", b"/health, /metrics, /verdict/... and /ipfs/{cid} are served here\n")


def _without_causes(health: dict[str, Any]) -> dict[str, Any]:
    """Why a round is refused can name rows, lines and files of the data: that is for the log, not for whoever asks."""
    return health | {"refused": LOG} if health.get("refused") else health


def serve_pages(pages: Pages, host: str, port: int) -> Serving:
    """Answers in threads until closed; port 0 takes a free one. Raises AddressTaken."""
    try:
        return Serving(pages, host, port)
    except OSError as error:
        raise AddressTaken(f"cannot listen on {host}:{port} ({error.strerror}); set http.listen") from error


def _reply(status: int, media_type: str, body: bytes) -> Reply:
    headers = {
        "Content-Type": media_type,
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    return Reply(status, headers, [body])
