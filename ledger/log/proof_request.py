"""Asking a server for a zero-knowledge proof that its model gives an answer: POST URL/v1/prove, the receipt as body.

What comes back is verified elsewhere (ledger.log.proof_check). Where nothing comes back it is NOT PROVEN, and why.
"""

from __future__ import annotations

from typing import Final

from ledger.content.errors import CarrierLied, StoreUnavailable
from ledger.content.http_get import Base, StatusRefused, Wanted, get
from ledger.inference_proof import MAX_ANSWER_BYTES
from ledger.log.receipt import Receipt
from ledger.report import Link, Name, missing

PATH: Final = "/v1/prove"
TIMEOUT_S: Final = 600.0
WITHOUT: Final = (404, 405, 501)


def ask_for_proof(base: Base, receipt: Receipt, *, timeout_s: float = TIMEOUT_S) -> bytes | Link:
    """The answer's bytes, or a link that says why there are none."""
    wanted = Wanted(PATH, "application/octet-stream", "application/octet-stream", MAX_ANSWER_BYTES)
    try:
        with get(base, wanted, timeout_s, post=receipt.encode()) as chunks:
            return b"".join(chunks)
    except StatusRefused as error:
        why = "it has no prover of forward passes" if error.status in WITHOUT else str(error)
        return missing(Name.PROOF, f"{base.url}{PATH}: {why}")
    except (StoreUnavailable, CarrierLied) as error:
        return missing(Name.PROOF, f"{base.url}{PATH}: {error}")
