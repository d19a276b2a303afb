"""Answers in OpenAI's shape, to bytes. No I/O.

    {…, "candor": {"bundle": hex, "fingerprint": base64}}     in an answer, and in the last chunk of a stream with text

A stream is server-sent events. The receipt is about all bytes before the chunk that carries it, so the last chunk, with
`finish_reason`, is known before the entry is written and sent after it.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any, Final, Literal

from ledger.log.receipt import Receipt
from node.serving.engine import Classified, Outcome

RECEIPT_HEADER: Final = "Candor-Receipt"
RECEIPT_FIELD: Final = "candor_receipt"
DONE: Final = b"data: [DONE]\n\n"
Kind = Literal["text_completion", "chat.completion"]


@dataclass(frozen=True)
class Head:
    """What all parts of one answer have in common."""

    id: str
    kind: Kind
    created: int
    model: str
    bundle: bytes

    @property
    def chat(self) -> bool:
        return self.kind == "chat.completion"

    def fields(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def candor(self, fingerprint: bytes) -> dict[str, Any]:
        return {"bundle": self.bundle.hex(), "fingerprint": base64.b64encode(fingerprint).decode()}


def usage(prompt: int, answer: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def generated(head: Head, prompt_tokens: int, outcome: Outcome) -> bytes:
    """The body of an answer that is no stream."""
    if head.chat:
        said: dict[str, Any] = {"message": {"role": "assistant", "content": outcome.text, "refusal": None}}
    else:
        said = {"text": outcome.text}
    choice = {"index": 0, **said, "logprobs": None, "finish_reason": outcome.finish}
    counted = usage(prompt_tokens, len(outcome.tokens))
    return _json(
        {**head.fields(head.kind), "choices": [choice], "usage": counted, "candor": head.candor(outcome.fingerprint)}
    )


def classified(head: Head, prompt_tokens: int, labels: tuple[str, ...], found: Classified) -> bytes:
    one = {
        "index": 0,
        "label": labels[found.label],
        "scores": dict(zip(labels, found.scores, strict=True)),
    }
    counted = usage(prompt_tokens, 0)
    return _json(
        {**head.fields("classification"), "data": [one], "usage": counted, "candor": head.candor(found.fingerprint)}
    )


def chunk(head: Head, text: str, *, first: bool = False) -> bytes:
    """One piece of a stream."""
    return _event({**_chunk(head), "choices": [_choice(head, text, first, None)]})


def last_chunk(head: Head, text: str, outcome: Outcome, *, first: bool = False) -> bytes:
    """The piece that ends the text: held back until the entry is durable."""
    choice = _choice(head, text, first, outcome.finish)
    return _event({**_chunk(head), "choices": [choice], "candor": head.candor(outcome.fingerprint)})


def usage_chunk(head: Head, prompt_tokens: int, outcome: Outcome) -> bytes:
    return _event({**_chunk(head), "choices": [], "usage": usage(prompt_tokens, len(outcome.tokens))})


def receipt_chunk(head: Head, receipt: Receipt) -> bytes:
    return _event({**_chunk(head), "choices": [], RECEIPT_FIELD: in_base64(receipt)})


def error_event(error: dict[str, Any]) -> bytes:
    """How a stream breaks off."""
    return _event(error)


def in_base64(receipt: Receipt) -> str:
    return base64.b64encode(receipt.encode()).decode()


def _chunk(head: Head) -> dict[str, Any]:
    return head.fields("chat.completion.chunk" if head.chat else "text_completion")


def _choice(head: Head, text: str, first: bool, finish: str | None) -> dict[str, Any]:
    if head.chat:
        delta = {"role": "assistant", "content": text} if first else {"content": text}
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + _json(value) + b"\n\n"


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
