"""The HTTP interface: OpenAI's shape for asking, files for auditing, and what a daemon shows of itself.

    GET  /v1/models, /v1/models/{id}        POST /v1/completions, /v1/chat/completions (both with streams), /v1/classify
    GET  /health, /metrics                  GET  /log/…, /ipfs/… (node.serving.log_pages)
    POST /v1/prove (node.serving.proving)

Every answer of the three POSTs carries its receipt: in the header `Candor-Receipt`, or in the last chunk of a stream.
/v1 asks for a key where keys were made. A body is read up to its limits in bytes and in time, and its bytes, as they
came, are the `request` of the receipt.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

from fastapi import Depends, FastAPI, Header, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from ledger.database import StorageFault
from node.serving import asking
from node.serving.asking import Asked, Bounds, ChatRequest, ClassifyRequest, CompletionRequest, Refused, Strict, parsed
from node.serving.batching import Busy, Closing, EngineFailed, TimedOut
from node.serving.desk import Desk, Stream
from node.serving.engine import Engine
from node.serving.keys import ApiKeys
from node.serving.log_pages import Shelf, log_router, refused
from node.serving.proving import ProofDesk, prove_router
from node.serving.replies import RECEIPT_HEADER, Kind, in_base64
from node.serving.scribe import NotWriting
from node.watch import CONTENT_TYPE
from proofs.errors import CandorError

T = TypeVar("T")
SSE: Final = "text/event-stream"
GENERATES: Final = {
    "text_completion": "next-token",
    "chat.completion": "next-token",
    "classification": "classification",
}
UNWELL: Final = "the server cannot answer now"
GONE: Final = "the client went away"  # told to nobody


@dataclass(frozen=True)
class HttpLimits:
    """body_s: for a whole body; write_s: for a client to take what is sent."""

    body_bytes: int
    body_s: float
    write_s: float


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    error: ErrorDetail


class ModelCard(BaseModel):
    """`bundle`: the digest by which the chain names the model; `parents`: those of a mixture, which `leave_out` may
    name; `server`: who signs its receipts."""

    id: str
    object: str = "model"
    created: int
    owned_by: str = "candor"
    bundle: str
    task: str
    labels: list[str]
    parents: list[str]
    server: str


class ModelList(BaseModel):
    object: str = "list"
    data: list[ModelCard]


ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": ErrorBody, "description": text}
    for status, text in {
        400: "not understood, or not done here",
        401: "no valid key",
        404: "not here",
        408: "the request came too slowly",
        413: "too large",
        415: "not JSON",
        429: "too many wait; see Retry-After",
        500: "the model failed",
        503: "not now",
        504: "not finished in time",
    }.items()
}


class Api:
    """All routes over one desk."""

    def __init__(
        self,
        desk: Desk,
        bounds: Bounds,
        limits: HttpLimits,
        keys: ApiKeys,
        shelf: Shelf,
        proofs: ProofDesk,
        server: bytes,
    ) -> None:
        self._desk, self._bounds, self._limits, self._keys = desk, bounds, limits, keys
        engine = desk.engine
        self._card = ModelCard(
            id=desk.model,
            created=int(time.time()),
            bundle=engine.bundle.hex(),
            task=engine.task,
            labels=list(engine.labels),
            parents=[bundle.hex() for bundle in engine.parents],
            server=f"0x{server.hex()}",
        )
        self._tokenizer = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")
        self.app = FastAPI(title="Candor", version="1", docs_url=None, redoc_url=None, lifespan=self._lifespan)
        self._add_errors()
        self._add_models()
        self._add_asking()
        self._add_pages()
        self.app.include_router(log_router(shelf, ERRORS))
        self.app.include_router(prove_router(proofs, self._body, ERRORS))

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        yield
        self._tokenizer.shutdown()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Times and counts every request; whoever takes nothing for too long is let go."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.monotonic(), 0

        async def in_time(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            async with asyncio.timeout(self._limits.write_s):
                await send(message)

        try:
            await self.app(scope, receive, in_time)
        except TimeoutError:
            status = 0
        route = getattr(scope.get("route"), "path", "other")
        self._desk.meter.answered(route, status, time.monotonic() - begun)

    # ---- errors

    def _add_errors(self) -> None:
        @self.app.exception_handler(Refused)
        async def _(request: Request, error: Refused) -> JSONResponse:
            return refused(error)

        @self.app.exception_handler(HTTPException)
        async def _(request: Request, error: HTTPException) -> JSONResponse:
            return refused(Refused(error.status_code, str(error.detail), headers=dict(error.headers or {})))

        @self.app.exception_handler(CandorError)
        async def _(request: Request, error: CandorError) -> JSONResponse:
            return refused(refusal(error))

    # ---- models

    def _add_models(self) -> None:
        answers: dict[int | str, dict[str, Any]] = {401: ERRORS[401]}

        @self.app.get("/v1/models", responses=answers, dependencies=[Depends(self._key)], tags=["models"])
        async def models() -> ModelList:
            return ModelList(data=[self._card])

        @self.app.get(
            "/v1/models/{model}",
            responses=answers | {404: ERRORS[404]},
            dependencies=[Depends(self._key)],
            tags=["models"],
        )
        async def model(model: str) -> ModelCard:
            self._check_model(model)
            return self._card

    def _check_model(self, name: str) -> None:
        if name != self._card.id:
            message = f"the model {name[:64]!r} is not served here; {self._card.id!r} is"
            raise Refused(404, message, code="model_not_found", param="model")

    async def _key(self, authorization: Annotated[str | None, Header(include_in_schema=False)] = None) -> None:
        if not self._keys.allows(authorization):
            raise Refused(
                401, "the API key is missing or wrong", code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"}
            )

    # ---- asking

    def _add_asking(self) -> None:
        @self.app.post("/v1/completions", **_asks(CompletionRequest, stream=True), dependencies=[Depends(self._key)])
        async def completions(request: Request) -> Response:
            return await self._generate(request, CompletionRequest, asking.completion, "text_completion", "cmpl")

        @self.app.post("/v1/chat/completions", **_asks(ChatRequest, stream=True), dependencies=[Depends(self._key)])
        async def chat(request: Request) -> Response:
            return await self._generate(request, ChatRequest, asking.chat, "chat.completion", "chatcmpl")

        @self.app.post("/v1/classify", **_asks(ClassifyRequest, stream=False), dependencies=[Depends(self._key)])
        async def classify(request: Request) -> Response:
            data, asked = await self._understood(request, ClassifyRequest, asking.classification, "classification")
            head = self._desk.head("text_completion", "classify")
            return _answer(*await _attended(request, self._desk.classified(data, asked, head)))

    async def _generate(
        self,
        request: Request,
        kind: type[T],
        understand: Callable[[T, Engine, Bounds], Asked],
        shape: Kind,
        prefix: str,
    ) -> Response:
        data, asked = await self._understood(request, kind, understand, shape)
        head = self._desk.head(shape, prefix)
        if not asked.stream:
            return _answer(*await _attended(request, self._desk.generated(data, asked, head)))
        stream = Stream(self._desk, data, asked, head)
        await _attended(request, stream.begin())
        return Streamed(stream)

    async def _understood(
        self, request: Request, kind: type[T], understand: Callable[[T, Engine, Bounds], Asked], shape: str
    ) -> tuple[bytes, Asked]:
        data = await self._body(request, self._limits.body_bytes)
        body: Any = parsed(kind, data)  # type: ignore[type-var]
        self._check_model(body.model)
        engine = self._desk.engine
        if engine.task != GENERATES[shape]:
            right = "/v1/classify" if engine.task == "classification" else "/v1/completions"
            raise Refused(404, f"this model is for {engine.task}: ask at {right}", code="wrong_task", param="model")
        loop = asyncio.get_running_loop()
        return data, await loop.run_in_executor(self._tokenizer, understand, body, engine, self._bounds)

    async def _body(self, request: Request, most: int) -> bytes:
        """All of it, as it came. Raises Refused."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refused(415, "the body must be application/json")
        close = {"Connection": "close"}
        data = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_s):
                async for chunk in request.stream():
                    data += chunk
                    if len(data) > most:
                        raise Refused(413, f"a request has at most {most} bytes", headers=close)
        except TimeoutError:
            raise Refused(408, f"the body did not come within {self._limits.body_s:g} s", headers=close) from None
        except ClientDisconnect:
            raise Refused(408, GONE) from None
        return bytes(data)

    # ---- what it shows

    def _add_pages(self) -> None:
        meter = self._desk.meter

        @self.app.get("/health", tags=["daemon"], responses={503: {"description": "not well"}})
        def health() -> Response:
            found = meter.health()
            return JSONResponse(found, 200 if found["ok"] else 503, {"Cache-Control": "no-store"})

        @self.app.get(
            "/metrics", tags=["daemon"], response_class=Response, responses={200: {"content": {"text/plain": {}}}}
        )
        def metrics() -> Response:
            return Response(meter.metrics(), media_type=CONTENT_TYPE)


class Streamed(Response):
    """A stream, and somebody who listens whether its reader is still there."""

    media_type = SSE

    def __init__(self, stream: Stream) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def write(data: bytes) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": True})

        listener = asyncio.create_task(_listen(receive, self._stream.gone))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._stream.run(write)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            listener.cancel()


def refusal(error: CandorError) -> Refused:
    """What a stranger is told of our faults."""
    match error:
        case Busy():
            return Refused(429, str(error), code="rate_limit_exceeded", headers={"Retry-After": str(error.retry_s)})
        case TimedOut():
            return Refused(504, str(error), code="timeout")
        case EngineFailed():
            return Refused(500, str(error))
        case Closing() | NotWriting() | StorageFault():
            return Refused(503, UNWELL, headers={"Retry-After": "10"})
    return Refused(503, UNWELL)


def _answer(body: bytes, receipt: Any) -> Response:
    headers = {RECEIPT_HEADER: in_base64(receipt), "Cache-Control": "no-store"}
    return Response(body, media_type="application/json", headers=headers)


async def _attended(request: Request, work: Awaitable[T]) -> T:
    """`work`, unless the client goes away: then it is cancelled. Raises Refused, which reaches nobody."""
    doing = asyncio.ensure_future(work)
    listener = asyncio.create_task(_listen(request.receive, lambda: None))
    try:
        await asyncio.wait({doing, listener}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        doing.cancel()
        await asyncio.gather(doing, return_exceptions=True)
        raise Refused(408, GONE)
    finally:
        listener.cancel()


async def _listen(receive: Receive, gone: Callable[[], None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    gone()


def _asks(kind: type[Strict], *, stream: bool) -> dict[str, Any]:
    """How OpenAPI describes a POST whose body we read ourselves."""
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if stream:
        content[SSE] = {"schema": {"type": "string"}}
    schema = _inlined(kind.model_json_schema())
    return {
        "tags": ["asking"],
        "response_class": Response,
        "responses": {**ERRORS, 200: {"description": "the answer", "content": content}},
        "openapi_extra": {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}},
    }


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """Without references into itself, which mean something else inside OpenAPI."""
    known = schema.pop("$defs", {})

    def put_in(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return put_in(known[value["$ref"].rpartition("/")[2]])
            return {key: put_in(each) for key, each in value.items()}
        return [put_in(each) for each in value] if isinstance(value, list) else value

    found: dict[str, Any] = put_in(schema)
    return found
