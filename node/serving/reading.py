"""Answers read back, as node.serving.replies wrote them: what a replay compares with. Strict, since a server may lie.

PeerFault
└── ReplyMalformed
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import ConfigDict, ValidationError

from ledger import canonical
from node.serving.asking import MAX_DEPTH, Strict
from node.serving.replies import DONE
from proofs.errors import PeerFault

MAX_REPLY_BYTES: Final = 1 << 24
Shape = Literal["text_completion", "chat.completion", "classification"]


class ReplyMalformed(PeerFault):
    """Bytes that no answer has."""


@dataclass(frozen=True)
class Said:
    """An answer's text. finish: "" where a stream broke off; then there is no fingerprint, and no count of tokens.

    tokens: how many it says it has; None where it does not say (a stream without usage).
    """

    shape: Shape
    bundle: bytes
    text: str
    finish: Literal["", "stop", "length"]
    fingerprint: bytes
    prompt_tokens: int | None = None
    tokens: int | None = None


@dataclass(frozen=True)
class Labelled:
    """The answer of a classifier. scores: by label, in the order sent."""

    bundle: bytes
    label: str
    scores: dict[str, float]
    fingerprint: bytes


class _Loose(Strict):
    """Fields that a replay has no use for are left alone, those it uses have one type."""

    model_config = ConfigDict(extra="ignore", strict=True)


class _Candor(Strict):
    bundle: str
    fingerprint: str


class _Usage(_Loose):
    prompt_tokens: int
    completion_tokens: int


class _Message(_Loose):
    content: str


class _Choice(_Loose):
    finish_reason: Literal["stop", "length"] | None
    text: str | None = None
    message: _Message | None = None
    delta: _Message | None = None


class _Answer(_Loose):
    object: Literal["text_completion", "chat.completion"]
    choices: list[_Choice]
    usage: _Usage
    candor: _Candor


class _Chunk(_Loose):
    object: Literal["text_completion", "chat.completion.chunk"]
    choices: list[_Choice]
    usage: _Usage | None = None
    candor: _Candor | None = None


class _Label(_Loose):
    label: str
    scores: dict[str, float]


class _Classification(_Loose):
    object: Literal["classification"]
    data: list[_Label]
    candor: _Candor


def read_reply(data: bytes) -> Said | Labelled:
    """Of the bytes that a record has, or a user kept. Raises ReplyMalformed."""
    if len(data) > MAX_REPLY_BYTES:
        raise ReplyMalformed(f"{len(data)} bytes, at most {MAX_REPLY_BYTES} are read")
    try:
        if data.startswith(b"data: "):
            return _stream([_json(part) for part in _events(data)])
        value = _json(data)
        if isinstance(value, dict) and value.get("object") == "classification":
            return _classification(_Classification.model_validate(value))
        return _whole(_Answer.model_validate(value))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))[:64]
        raise ReplyMalformed(f"{where or 'the answer'}: {first['msg'][:200]}") from error


def _classification(answer: _Classification) -> Labelled:
    if len(answer.data) != 1:
        raise ReplyMalformed(f"{len(answer.data)} classified texts, one is expected")
    bundle, fingerprint = _candor(answer.candor)
    return Labelled(bundle, answer.data[0].label, answer.data[0].scores, fingerprint)


def _whole(answer: _Answer) -> Said:
    choice = _one(answer.choices)
    text = choice.message.content if choice.message else choice.text
    if text is None or choice.finish_reason is None or (choice.message is None) != (answer.object == "text_completion"):
        raise ReplyMalformed(f"a {answer.object} without its text or end")
    bundle, fingerprint = _candor(answer.candor)
    counts = answer.usage
    return Said(
        answer.object, bundle, text, choice.finish_reason, fingerprint, counts.prompt_tokens, counts.completion_tokens
    )


def _stream(values: list[Any]) -> Said:
    """Pieces of text, of which the last has an end and a fingerprint, and then perhaps a count of tokens."""
    chunks = [_Chunk.model_validate(value) for value in values]
    pieces = [chunk for chunk in chunks if chunk.choices]
    kinds = {chunk.object for chunk in chunks}
    ends = [chunk.candor is not None for chunk in pieces]
    finishes = [_one(chunk.choices).finish_reason for chunk in pieces]
    if len(kinds) != 1 or any(ends[:-1]) or ends != [finish is not None for finish in finishes]:
        raise ReplyMalformed("a stream of several answers, or with an end before its last piece")
    counts = [chunk.usage for chunk in chunks if chunk.usage]
    if chunks[: len(pieces)] != pieces or len(counts) > 1 or len(chunks) != len(pieces) + len(counts):
        raise ReplyMalformed("a stream with pieces that belong to no answer")
    shape: Shape = "text_completion" if kinds == {"text_completion"} else "chat.completion"
    last = pieces[-1] if pieces and ends[-1] else None
    bundle, fingerprint = _candor(last.candor) if last and last.candor else (b"", b"")
    finish = finishes[-1] if last else None
    prompt, tokens = (counts[0].prompt_tokens, counts[0].completion_tokens) if counts else (None, None)
    text = "".join(_piece(_one(chunk.choices), shape) for chunk in pieces)
    return Said(shape, bundle, text, finish or "", fingerprint, prompt, tokens)


def _piece(choice: _Choice, shape: Shape) -> str:
    text = choice.text if shape == "text_completion" else choice.delta.content if choice.delta else None
    if text is None:
        raise ReplyMalformed("a piece of a stream without text")
    return text


def _events(data: bytes) -> list[bytes]:
    parts = data.removesuffix(DONE).removesuffix(b"\n\n").split(b"\n\n")
    if not all(part.startswith(b"data: ") and b"\n" not in part for part in parts):
        raise ReplyMalformed("no stream of server-sent events")
    return [part.removeprefix(b"data: ") for part in parts]


def _one(choices: list[_Choice]) -> _Choice:
    if len(choices) != 1:
        raise ReplyMalformed(f"{len(choices)} choices, one is expected")
    return choices[0]


def _candor(fields: _Candor) -> tuple[bytes, bytes]:
    try:
        bundle, fingerprint = bytes.fromhex(fields.bundle), base64.b64decode(fields.fingerprint, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ReplyMalformed("candor: no hex, or no base64") from error
    if len(bundle) != 32 or fields.bundle != bundle.hex():
        raise ReplyMalformed("candor.bundle: no digest")
    return bundle, fingerprint


def _json(data: bytes) -> Any:
    try:
        return canonical.parse(data, MAX_DEPTH, canonical.unique)
    except (ValueError, RecursionError) as error:
        raise ReplyMalformed("no JSON in UTF-8, or nested too deep, or a key twice") from error
