"""Asking a server for a zero-knowledge proof that its model gives an answer: POST URL/v1/prove, the receipt as body.

No server has a prover for that yet, and nothing here verifies such a proof: whatever comes back, it is NOT PROVEN.
"""

from __future__ import annotations

from typing import Final

from ledger.content.errors import CarrierLied, StoreUnavailable
from ledger.content.http_get import Base, StatusRefused, Wanted, get
from ledger.log.receipt import Receipt
from ledger.report import Link, Name, missing

PATH: Final = "/v1/prove"
MAX_PROOF_BYTES: Final = 1 << 26
TIMEOUT_S: Final = 600.0
WITHOUT: Final = (404, 405, 501)


def ask_for_proof(base: Base, receipt: Receipt, *, timeout_s: float = TIMEOUT_S) -> Link:
    """Always NOT PROVEN, with the reason."""
    wanted = Wanted(PATH, "application/octet-stream", "application/octet-stream", MAX_PROOF_BYTES)
    try:
        with get(base, wanted, timeout_s, post=receipt.encode()) as chunks:
            size = sum(map(len, chunks))
    except StatusRefused as error:
        why = "it has no prover of forward passes" if error.status in WITHOUT else str(error)
        return missing(Name.PROOF, f"{base.url}{PATH}: {why}")
    except (StoreUnavailable, CarrierLied) as error:
        return missing(Name.PROOF, f"{base.url}{PATH}: {error}")
    return missing(
        Name.PROOF, f"{base.url}{PATH} sent {size} bytes, and this version verifies no proof of a forward pass"
    )
