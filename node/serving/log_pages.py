"""The log for auditors, as files: whoever has the checkpoint of the chain needs nothing else, and no key.

    GET /log/checkpoint       the last signed one, a C2SP note
    GET /log/tile/{path}      tiles and bundles of entries
    GET /log/records/{path}   sealed records, which auditors named on chain can open
    GET /log/published        {"size", "root", "cid"} of the last directory in the content store
    GET /ipfs/{cid}           that store's trustless gateway (ledger.content.server)

Names are parsed strictly before a file is touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel

from ledger.content import GatewayServer
from ledger.log import note
from ledger.log.journal import fault
from ledger.log.store import LogStore
from ledger.log.tiles import RECORDS, TileInvalid, encode_records, parse_path, parse_records_path
from ledger.log.tree import TileMissing, read_tile
from node.serving.asking import Refused
from node.serving.publishing import Published

BYTES = "application/octet-stream"
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Shelf:
    """What is shown."""

    log: LogStore
    gateway: GatewayServer
    published: Callable[[], Published | None]


class PublishedBody(BaseModel):
    size: int
    root: str
    cid: str


def log_router(shelf: Shelf, errors: dict[int | str, dict[str, Any]]) -> APIRouter:
    """Reading from a disk blocks: these are plain functions, which run in threads."""
    router = APIRouter(tags=["log"], responses={404: errors[404], 503: errors[503]})

    def files(media_type: str) -> dict[str, Any]:
        return {
            "response_class": Response,
            "responses": {200: {"content": {media_type: {"schema": {"type": "string", "format": "binary"}}}}},
        }

    @router.get("/log/checkpoint", **files("text/plain"))
    def checkpoint() -> Response:
        path = shelf.log.folder / note.PATH
        try:
            return Response(path.read_bytes(), media_type=TEXT, headers={"Cache-Control": "no-store"})
        except FileNotFoundError:
            raise Refused(404, "no checkpoint was signed yet") from None
        except OSError as error:
            raise fault(path, error) from error

    @router.get("/log/published")
    def published() -> PublishedBody:
        last = shelf.published()
        if last is None:
            raise Refused(404, "nothing was published yet")
        return PublishedBody(**last.to_json())

    @router.get("/log/tile/{path:path}", **files(BYTES))
    def tile(path: str) -> Response:
        try:
            return Response(read_tile(shelf.log.read, parse_path(f"tile/{path}")), media_type=BYTES)
        except (TileInvalid, TileMissing):
            raise Refused(404, "this log has no such tile") from None

    @router.get("/log/records/{path:path}", **files(BYTES))
    def records(path: str) -> Response:
        size = shelf.log.size
        try:
            index = parse_records_path(f"records/{path}")
        except TileInvalid:
            index = size
        found = shelf.log.records(index, size) if index * RECORDS < size else []
        if not found:
            raise Refused(404, "this log has no such records")
        return Response(encode_records(found), media_type=BYTES)

    @router.get("/ipfs/{cid}", include_in_schema=False)
    def ipfs(cid: str, request: Request) -> Response:
        reply = shelf.gateway.handle(f"/ipfs/{cid}", request.url.query, request.headers.get("accept", ""), "GET")
        return StreamingResponse(iter(reply.body), reply.status, dict(reply.headers))

    return router


def refused(error: Refused) -> JSONResponse:
    return JSONResponse(error.to_json(), error.status, error.headers)
