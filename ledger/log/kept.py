"""What a user keeps of an answer: a folder with `request` and `response`, the bytes as sent, and `receipt.json`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ledger.log.receipt import MAX_RECEIPT_BYTES, Receipt
from ledger.log.sealing import MAX_RECORD_BYTES
from proofs.errors import LocalFault

RECEIPT, REQUEST, RESPONSE = "receipt.json", "request", "response"
MAX_TEXT_BYTES: Final = MAX_RECORD_BYTES


class NotKept(LocalFault):
    """A file that was named is not there, or is larger than such a file can be."""


@dataclass(frozen=True)
class Kept:
    """The texts are None where only the receipt is at hand."""

    receipt: Receipt
    request: bytes | None = None
    response: bytes | None = None


def open_kept(path: Path, request: Path | None = None, response: Path | None = None) -> Kept:
    """A folder, or a receipt's file with the texts' files beside it. Raises NotKept, receipt.ReceiptRefused."""
    if path.is_dir():
        request = request or _there(path / REQUEST)
        response = response or _there(path / RESPONSE)
        path = path / RECEIPT
    receipt = Receipt.decode(_read(path, MAX_RECEIPT_BYTES))
    return Kept(receipt, *(_read(text, MAX_TEXT_BYTES) if text else None for text in (request, response)))


def _there(path: Path) -> Path | None:
    return path if path.exists() else None


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise NotKept(f"{path}: {error.strerror}") from error
    if len(data) > max_bytes:
        raise NotKept(f"{path}: more than {max_bytes} bytes")
    return data
