"""Asking a server, and keeping what an audit needs: request, response and receipt as three files.

    FOLDER/request        the bytes that were sent
    FOLDER/response       the bytes that came, for a stream those before the receipt
    FOLDER/receipt.json   the receipt

The answer is not judged here: `candor-audit inference verify FOLDER` does.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import requests

from ledger.log.kept import RECEIPT, REQUEST, RESPONSE
from node.serving.replies import DONE, RECEIPT_FIELD, RECEIPT_HEADER
from proofs.errors import LocalFault, PeerFault, WireFault

MAX_BYTES: Final = 1 << 24
TIMEOUT_S: Final = 300.0


class AskRefused(PeerFault):
    """The server did not answer, or without a receipt."""


class NotReached(WireFault):
    """Nobody answered."""


@dataclass(frozen=True)
class Kept:
    request: bytes
    response: bytes
    receipt: bytes

    def write(self, folder: Path) -> None:
        """Raises LocalFault where files of an earlier answer are."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in ((REQUEST, self.request), (RESPONSE, self.response), (RECEIPT, self.receipt)):
            try:
                with open(folder / name, "xb") as file:
                    file.write(data)
            except OSError as error:
                raise LocalFault(f"{folder / name}: {error.strerror}; give an empty folder") from error


def ask(url: str, text: str, *, key: str | None = None, stream: bool = False, **options: Any) -> Kept:
    """One question to the model that is served there. options: max_tokens, temperature, seed, leave_out. Raises
    AskRefused, NotReached."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    card = _card(_call("GET", f"{url}/v1/models", headers, None).content)
    given = {name: value for name, value in options.items() if value is not None}
    if card["task"] == "classification":
        masked = {name: value for name, value in given.items() if name == "leave_out"}
        where, body = "classify", {"model": card["id"], "input": text, **masked}
    else:
        where, body = "completions", {"model": card["id"], "prompt": text, **given, "stream": stream}
    request = json.dumps(body, ensure_ascii=False).encode()
    answer = _call("POST", f"{url}/v1/{where}", headers | {"Content-Type": "application/json"}, request)
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        return Kept(request, *split_stream(answer.content))
    return Kept(request, answer.content, _receipt(answer.headers.get(RECEIPT_HEADER, "")))


def _card(data: bytes) -> dict[str, Any]:
    try:
        card = json.loads(data)["data"][0]
        return {"id": str(card["id"]), "task": str(card["task"])}
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise AskRefused("no server of Candor: its list of models is another") from error


def split_stream(data: bytes) -> tuple[bytes, bytes]:
    """What the receipt of a stream is about, and the receipt. Raises AskRefused."""
    head, _, last = data.removesuffix(DONE).removesuffix(b"\n\n").rpartition(b"data: ")
    try:
        return head, _receipt(json.loads(last)[RECEIPT_FIELD])
    except (ValueError, KeyError, TypeError) as error:
        raise AskRefused("the stream broke off before its receipt") from error


def _receipt(text: str) -> bytes:
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise AskRefused("the receipt is not base64") from error
    if not found:
        raise AskRefused("the answer came without a receipt")
    return found


@dataclass(frozen=True)
class _Reply:
    headers: Mapping[str, str]
    content: bytes


def _call(method: str, url: str, headers: dict[str, str], body: bytes | None) -> _Reply:
    content = bytearray()
    try:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.request(method, url, headers=headers, data=body, timeout=TIMEOUT_S, stream=True)
            for part in answer.iter_content(1 << 16):
                content += part
                if len(content) > MAX_BYTES:
                    raise AskRefused(f"{url}: more than {MAX_BYTES} bytes")
    except (requests.RequestException, OSError) as error:
        raise NotReached(f"{url} does not answer ({type(error).__name__})") from error
    if answer.status_code != 200:
        raise AskRefused(f"{url}: {answer.status_code} {content[:300].decode(errors='replace')}")
    return _Reply(answer.headers, bytes(content))
