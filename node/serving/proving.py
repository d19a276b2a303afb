"""POST /v1/prove: whoever has a receipt and its texts gets a proof that the model gives that answer (statement F).

No key is asked for: a receipt of this server's own log is the right to ask. Nothing is proven about texts that the
entry does not name, so nobody learns anything about answers that it has not got.

A proof takes seconds of a core, and gigabytes: one at a time, a few may wait, the rest come again.

LocalFault
└── NoProofs   the settings do not allow proofs
PeerFault
├── NotOurs    no entry of this log
└── Occupied   too many wait
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, cast

from fastapi import APIRouter, Request
from fastapi.responses import Response

from ledger.log.proof_request import MAX_REQUEST_BYTES, PATH, RequestMalformed, decode_request
from ledger.log.receipt import Entry, Receipt, ReceiptRefused, Record, check_texts
from ledger.log.store import LogStore
from node.logs import Log
from node.serving.asking import Refused
from node.serving.engine import Engine
from proofs.errors import CandorError, LocalFault, PeerFault

WAITING: Final = 2
MEDIA_TYPE: Final = "application/octet-stream"

Proves = Callable[[Record, bytes], bytes]  # record, leaf of its entry


class NoProofs(LocalFault):
    """This server makes no proofs."""


class NotOurs(PeerFault):
    """The log has no such entry."""


class Occupied(PeerFault):
    """Come again later."""


@dataclass
class ProofDesk:
    """One proof at a time. prove: None where the settings do not allow any."""

    log: LogStore
    prove: Proves | None
    told: Log
    _free: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(1 + WAITING))
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="proofs"))

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Held from before a body is read, which may be long, until its proof is made. Raises NoProofs, Occupied."""
        if self.prove is None:
            raise NoProofs("this server makes no proofs: limits.proofs is not set")
        if not self._free.acquire(blocking=False):
            raise Occupied("other proofs are being made")
        try:
            yield
        finally:
            self._free.release()

    def accepted(self, data: bytes) -> tuple[Record, bytes]:
        """What is to be proven. Raises RequestMalformed, ReceiptRefused, NotOurs."""
        receipt, record = decode_request(data)
        self._check_ours(receipt)
        check_texts(receipt.entry, record)
        return record, receipt.entry.leaf

    async def proven(self, record: Record, leaf: bytes) -> bytes:
        """Raises NoProofs, and what keeps the answer from being proven."""
        if self.prove is None:
            raise NoProofs("this server makes no proofs: limits.proofs is not set")
        return await asyncio.get_running_loop().run_in_executor(self._pool, self.prove, record, leaf)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _check_ours(self, receipt: Receipt) -> None:
        """The entry itself, not its signature, is what this log knows."""
        sequence = receipt.entry.sequence
        if sequence >= self.log.size or Entry.decode(self.log.tree().entry(sequence)) != receipt.entry:
            raise NotOurs("this log has no such entry")


def proves_on(engine: Engine) -> Proves:
    """By the prover of proofs.inference; what it needs is loaded when it is first asked."""

    def prove(record: Record, leaf: bytes) -> bytes:
        from ledger.base_program import Base
        from node.engine import Engine as ModelEngine
        from node.inference_proof import answer_of, prove_inference

        model = cast(ModelEngine, engine)
        answer, loaded = answer_of(record, leaf, model), model.model
        return prove_inference(Base.open(loaded.base.path), loaded.config, loaded.weights(), answer)

    return prove


def prove_router(
    desk: ProofDesk, read: Callable[[Request, int], Any], errors: dict[int | str, dict[str, Any]]
) -> APIRouter:
    """read: a JSON body of at most so many bytes."""
    schema = {"type": "object", "required": ["format", "receipt", "request", "response"]}
    router = APIRouter(tags=["log"], responses={**errors, 409: {"description": "no proof is made of this answer"}})

    @router.post(
        PATH,
        response_class=Response,
        responses={200: {"content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}},
        openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}},
    )
    async def prove(request: Request) -> Response:
        loop = asyncio.get_running_loop()
        try:
            with desk.turn():
                data = await read(request, MAX_REQUEST_BYTES)
                record, leaf = await loop.run_in_executor(None, desk.accepted, data)
                proof = await desk.proven(record, leaf)
        except Refused:
            raise
        except CandorError as error:
            raise _refusal(error, desk.told) from error
        return Response(proof, media_type=MEDIA_TYPE, headers={"Cache-Control": "no-store"})

    return router


def _refusal(error: CandorError, told: Log) -> Refused:
    """What a stranger is told. Why a proof failed here stands in the log: it might tell of a machine, not of a text."""
    match error:
        case Occupied():
            return Refused(429, str(error), code="rate_limit_exceeded", headers={"Retry-After": "30"})
        case NoProofs() | NotOurs():
            return Refused(404, str(error))
        case RequestMalformed() | ReceiptRefused():
            return Refused(400, str(error))
        case PeerFault():
            return Refused(409, str(error), code="not_provable")
    told.warning("no proof", fault=type(error).__name__, why=error)
    return Refused(409, f"no proof is made of this answer ({type(error).__name__})", code="not_provable")
