"""Requests in OpenAI's shape, from bytes to what the engine is asked. No I/O.

What a request asks for and is not done here (several choices, penalties, tools, logprobs, …) is refused by name; a
parameter that leaves everything as it is, is taken. Numbers that steer decoding are kept to a millionth, so that a
receipt says exactly what was used; without a `seed`, one is drawn, and the receipt has it.

PeerFault
└── Refused   `.status`, `.code` and `.param` as OpenAI's errors have them
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ledger import canonical
from ledger.adapter import MAX_PARENTS
from ledger.canonical import MAX_INTEGER
from ledger.log.receipt import MAX_RECEIPT_BYTES, MAX_STOPS, Decoding
from node.serving.engine import Engine
from proofs.errors import CandorError, PeerFault

MAX_DEPTH: Final = 8
MILLION: Final = 10**6
DEFAULT_TOKENS: Final = 16  # of a completion, as OpenAI has it
MAX_TERMS_BYTES: Final = MAX_RECEIPT_BYTES >> 1  # of a decoding: receipt and record have room for it
CLASSIFYING: Final = Decoding(0, Fraction(0), Fraction(1), 0, 0)


class Refused(PeerFault):
    """A request that is not answered, and why, in OpenAI's words."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.status, self.message, self.code, self.param, self.headers = status, message, code, param, headers or {}
        super().__init__(message)

    def to_json(self) -> dict[str, Any]:
        kinds = {401: "authentication_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


Stop = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Text = Annotated[str, StringConstraints(min_length=1)]
Nothing = Annotated[float, Field(ge=0, le=0)]
Bundle = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Bundles = Annotated[list[Bundle], Field(max_length=MAX_PARENTS)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class StreamOptions(Strict):
    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class Masking(Strict):
    """What all requests take: parents of a mixture that are not to count, by their bundles."""

    model: str
    leave_out: Bundles | None = None


class Sampling(Masking):
    """What both kinds of generation take."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_INTEGER)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    n: Literal[1] | None = None
    presence_penalty: Nothing | None = None
    frequency_penalty: Nothing | None = None


class CompletionRequest(Sampling):
    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=1)]
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    logprobs: None = None
    suffix: None = None


class Part(Strict):
    type: Literal["text"]
    text: str


class Message(Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[Part], Field(min_length=1)]
    name: str | None = None


class ChatRequest(Sampling):
    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    logprobs: Literal[False] | None = None


class ClassifyRequest(Masking):
    input: Text
    user: str | None = None


Body = TypeVar("Body", bound=Strict)


@dataclass(frozen=True)
class Bounds:
    """prompt_tokens, answer_tokens: at most these, whatever the model could."""

    prompt_tokens: int
    answer_tokens: int


@dataclass(frozen=True)
class Asked:
    """What goes to the engine. usage: the stream ends with a count of tokens."""

    tokens: tuple[int, ...]
    decoding: Decoding
    stream: bool = False
    usage: bool = False


def parsed(kind: type[Body], data: bytes) -> Body:
    """Raises Refused. Nothing in the error repeats what was sent but names of fields."""
    try:
        value = canonical.parse(data, MAX_DEPTH, canonical.unique)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "the body is not JSON in UTF-8, or nested too deep, or has a key twice") from error
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        param = ".".join(str(part) for part in first["loc"] if isinstance(part, str))[:64]
        raise Refused(400, f"{param or 'the body'}: {first['msg'][:200]}", param=param or None) from error


def completion(body: CompletionRequest, engine: Engine, bounds: Bounds) -> Asked:
    """Raises Refused."""
    prompt = body.prompt if isinstance(body.prompt, str) else body.prompt[0]
    return _generation(body, engine, bounds, prompt, body.max_tokens or DEFAULT_TOKENS, body.max_tokens is not None)


def chat(body: ChatRequest, engine: Engine, bounds: Bounds) -> Asked:
    """Raises Refused."""
    if body.max_tokens is not None and body.max_completion_tokens is not None:
        raise Refused(400, "max_tokens and max_completion_tokens are the same: give one", param="max_tokens")
    messages = [{"role": message.role, "content": _joined(message.content)} for message in body.messages]
    try:
        prompt = engine.chat(messages)
    except CandorError as error:
        raise Refused(400, f"this model takes no such conversation: {error}", param="messages") from error
    asked = body.max_completion_tokens or body.max_tokens
    return _generation(body, engine, bounds, prompt, asked or bounds.answer_tokens, asked is not None)


def classification(body: ClassifyRequest, engine: Engine, bounds: Bounds) -> Asked:
    """Raises Refused."""
    tokens = _tokens(body.input, engine, min(bounds.prompt_tokens, engine.max_tokens), "input")
    left_out = _left_out(body, engine)
    return Asked(tokens, replace(CLASSIFYING, leave_out=left_out) if left_out else CLASSIFYING)  # encoded already


def _generation(body: Sampling, engine: Engine, bounds: Bounds, prompt: str, wanted: int, explicit: bool) -> Asked:
    tokens = _tokens(prompt, engine, min(bounds.prompt_tokens, engine.max_tokens - 1), "prompt")
    room = min(bounds.answer_tokens, engine.max_tokens - len(tokens))
    if wanted > room and explicit:
        raise Refused(
            400,
            f"max_tokens: this model and server give at most {room} after a prompt of {len(tokens)}",
            code="context_length_exceeded",
            param="max_tokens",
        )
    decoding = _decoding(body, min(wanted, room), _left_out(body, engine))
    usage = body.stream_options is not None and body.stream_options.include_usage
    return Asked(tokens, decoding, bool(body.stream), usage)


def _tokens(text: str, engine: Engine, most: int, param: str) -> tuple[int, ...]:
    try:
        tokens = tuple(engine.encode(text))
    except CandorError as error:
        raise Refused(400, f"{param}: {error}", param=param) from error
    if not tokens:
        raise Refused(400, f"{param}: it has no tokens", param=param)
    if len(tokens) > most:
        message = f"{param}: {len(tokens)} tokens, at most {most} are taken"
        raise Refused(400, message, code="context_length_exceeded", param=param)
    return tokens


def _left_out(body: Masking, engine: Engine) -> tuple[bytes, ...]:
    """Ascending. Raises Refused for what is no parent of the model, what is named twice, and where none is left."""
    found = [bytes.fromhex(bundle) for bundle in body.leave_out or ()]
    unknown = [bundle for bundle in found if bundle not in engine.parents]
    if unknown and not engine.parents:
        raise Refused(400, "leave_out: this model is no mixture", param="leave_out")
    if unknown:
        raise Refused(400, f"leave_out: {unknown[0].hex()} is no parent of this mixture", param="leave_out")
    if len(set(found)) < len(found):
        raise Refused(400, "leave_out: a parent is named twice", param="leave_out")
    if found and len(found) == len(engine.parents):
        raise Refused(400, "leave_out: no parent would be left", param="leave_out")
    return tuple(sorted(found))


def _decoding(body: Sampling, max_tokens: int, leave_out: tuple[bytes, ...]) -> Decoding:
    temperature = _millionths(1.0 if body.temperature is None else body.temperature)
    stops = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    seed = body.seed if body.seed is not None else secrets.randbelow(MAX_INTEGER) if temperature else 0
    top_p = max(_millionths(1.0 if body.top_p is None else body.top_p), Fraction(1, MILLION))
    decoding = Decoding(max_tokens, temperature, top_p, body.top_k or 0, seed, stops, leave_out)
    if len(decoding.encoded) > MAX_TERMS_BYTES:
        raise Refused(400, f"stop: together they are too long, {MAX_TERMS_BYTES} bytes are kept", param="stop")
    return decoding


def _millionths(value: float) -> Fraction:
    return Fraction(round(value * MILLION), MILLION)


def _joined(content: str | list[Part]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)
