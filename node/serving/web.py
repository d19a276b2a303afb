"""The HTTP server under the interface: uvicorn in a thread, with what it leaves to a proxy in front of it done here.

uvicorn waits for ever for the head of a first request, and for the rest of a later one. `Patient` does not.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any, Final

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from node.http import AddressTaken

HEAD_S: Final = 10.0
IDLE_S: Final = 15
MAX_HEAD_BYTES: Final = 1 << 14
BACKLOG: Final = 128
POLL_S: Final = 0.01


class Patient(H11Protocol):
    """Closes a connection whose request head is not complete after `HEAD_S`."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def _watch(self) -> None:
        waits = self.conn.their_state is h11.IDLE and self.timeout_keep_alive_task is None
        if not waits:
            self._unwatch()
        elif self._late is None:
            self._late = self.loop.call_later(HEAD_S, self.transport.close)

    def _unwatch(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


class WebServer:
    """Listens from construction, answers from `start` to `close`."""

    def __init__(self, app: ASGIApp, host: str, port: int, *, connections: int, farewell_s: float) -> None:
        """connections: more than these are told 503. farewell_s: how long `close` waits for answers under way. Raises
        AddressTaken."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, port), family=family, backlog=BACKLOG)
        except OSError as error:
            raise AddressTaken(f"cannot listen on {host}:{port} ({error.strerror}); set http.listen") from error
        config = uvicorn.Config(
            app,
            http=Patient,
            ws="none",
            loop="asyncio",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=connections,
            backlog=BACKLOG,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=max(1, round(farewell_s)),
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="http", daemon=True)

    @property
    def url(self) -> str:
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        """Takes no more connections, waits for the answers under way. Idempotent."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join()
        self._socket.close()
