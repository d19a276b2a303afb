"""Asking a server for a zero-knowledge proof that its model gives an answer: POST URL/v1/prove.

    {"format": …, "receipt": {…}, "request": hex digits, "response": hex digits}        canonical JSON

A server keeps no texts (its records are sealed to auditors), so they come with the receipt; the entry in its log says
whether they are those that it promised.

What comes back is verified elsewhere (ledger.log.proof_check). Where nothing comes back it is NOT PROVEN, and why.
"""

from __future__ import annotations

from typing import Final

from ledger import canonical
from ledger.canonical import FieldInvalid, Fields, NotCanonical
from ledger.content.errors import CarrierLied, StoreUnavailable
from ledger.content.http_get import Base, StatusRefused, Wanted, get
from ledger.inference_proof import MAX_ANSWER_BYTES
from ledger.log.kept import MAX_TEXT_BYTES, Kept
from ledger.log.receipt import MAX_RECEIPT_BYTES, Receipt, Record
from ledger.report import Link, Name, missing
from proofs.errors import PeerFault

PATH: Final = "/v1/prove"
FORMAT: Final = "candor/prove/1"
MAX_REQUEST_BYTES: Final = MAX_RECEIPT_BYTES + 4 * MAX_TEXT_BYTES + 256
TIMEOUT_S: Final = 600.0
WHY: Final = {
    404: "it has no prover of forward passes, or no such entry",
    405: "it has no prover of forward passes",
    501: "it has no prover of forward passes",
    409: "it says that no proof is made of such an answer",
    429: "it is busy with other proofs",
}


class RequestMalformed(PeerFault):
    """Bytes that ask for no proof."""


def encode_request(kept: Kept) -> bytes:
    """Of a receipt with its texts; a text that is not at hand counts as an empty one, and no server will know it."""
    receipt = canonical.decode(kept.receipt.encode(), max_bytes=MAX_RECEIPT_BYTES)
    texts = {"request": (kept.request or b"").hex(), "response": (kept.response or b"").hex()}
    return canonical.encode({"format": FORMAT, "receipt": receipt, **texts})


def decode_request(data: bytes) -> tuple[Receipt, Record]:
    """The receipt and the record that its texts make. Raises RequestMalformed, receipt.ReceiptRefused."""
    try:
        fields = Fields(canonical.decode(data, max_bytes=MAX_REQUEST_BYTES), "prove")
        fields.text("format", one_of=(FORMAT,))
        receipt = fields.take("receipt")
        request, response = (_octets(fields.take(name), name) for name in ("request", "response"))
        fields.done()
    except (NotCanonical, FieldInvalid) as error:
        raise RequestMalformed(str(error)) from error
    found = Receipt.decode(canonical.encode(receipt))
    return found, Record(found.decoding, found.salt, request, response)


def ask_for_proof(base: Base, kept: Kept, *, timeout_s: float = TIMEOUT_S) -> bytes | Link:
    """The answer's bytes, or a link that says why there are none."""
    wanted = Wanted(PATH, "application/octet-stream", "application/octet-stream", MAX_ANSWER_BYTES)
    try:
        with get(base, wanted, timeout_s, post=encode_request(kept)) as chunks:
            return b"".join(chunks)
    except StatusRefused as error:
        return missing(Name.PROOF, f"{base.url}{PATH}: {WHY.get(error.status, str(error))}")
    except (StoreUnavailable, CarrierLied) as error:
        return missing(Name.PROOF, f"{base.url}{PATH}: {error}")


def _octets(value: object, name: str) -> bytes:
    if not isinstance(value, str) or len(value) % 2 or value.strip("0123456789abcdef"):
        raise FieldInvalid(f"prove.{name}: expected lower-case hex digits, two for each byte")
    return bytes.fromhex(value)
