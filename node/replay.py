"""An inference run again: is this the answer that this model gives to this request, decoded as the receipt says?

`replay` takes a record (ledger.log.receipt.Record, what auditors unseal) and an engine with the bundle that the entry
names. From the request it makes prompt and decoding as the server had to; with the tokens that the fingerprint names it
runs the model over prompt and answer in one pass, and then asks four things, in this order:

    the texts     are bundle, decoding, counts, text and end those of these tokens?
    the tokens    is each token the one that the decoding chooses from the scores computed here?
    the states    is the fingerprint's distance within node.fingerprint.THRESHOLD?
    the label     of a classifier: are label and scores those computed here?

Other machines add in another order, so a token whose choice hung on less than CLOSE (of probability; of a score when
greedy) may differ; answers with more than one such token in CLOSE_ONE_IN, and one, do not match. A stream that broke
off has no fingerprint: its text is compared with the beginning of what is said here, and nothing is decided.

What a match shows, and what it does not: node.fingerprint. What a request leaves to the server (a seed, a shorter limit
of tokens) is the server's to choose, as often as it likes, before it answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf, isfinite
from typing import Final

from ledger import canonical
from ledger.log.receipt import Decoding, Record
from node.choosing import choose, margin
from node.engine import Engine
from node.fingerprint import THRESHOLD, Fingerprint, FingerprintMalformed, compare
from node.serving import asking
from node.serving.asking import Asked, Bounds, ChatRequest, ClassifyRequest, CompletionRequest, Refused
from node.serving.engine import Job
from node.serving.reading import Labelled, ReplyMalformed, Said, read_reply
from proofs.errors import PeerFault

CLOSE: Final = 1e-4
CLOSE_ONE_IN: Final = 100
SCORE_TOLERANCE: Final = 1e-3
MOST: Final = 2**31 - 1


class Verdict(StrEnum):
    MATCH = "this model gives this answer"
    MISMATCH = "this model does not give this answer"
    UNDECIDED = "nothing binds the answer to a model"


class Why(StrEnum):
    """What does not match, or what there is to say of a match."""

    SAME = "everything is as computed here"
    REQUEST = "the request is none that a server may answer"
    RESPONSE = "the response is none that a server may send"
    BUNDLE = "the response names another model"
    TERMS = "it was decoded otherwise than the request asks"
    FINGERPRINT = "the fingerprint is none, or of another shape"
    TEXT = "the text, its end or its counts are not those of its tokens"
    TOKENS = "a token is not the one that is chosen here"
    STATES = "the states are those of another computation"
    SCORES = "the label or its scores are not those computed here"
    BROKEN_OFF = "the stream broke off before its fingerprint"


@dataclass(frozen=True)
class Replayed:
    """distance: of the fingerprint, infinite where none was computed. differs_at: the first token, from 0, that is not
    the one chosen here, close calls left out. close: how many of those there are."""

    verdict: Verdict
    why: Why
    detail: str
    distance: float = inf
    differs_at: int | None = None
    close: int = 0


class Misread(PeerFault):
    """A record that says nothing definite: request, response and tokens do not belong together."""


class _No(Exception):
    """Ends a replay that found what does not match."""

    def __init__(self, why: Why, detail: str) -> None:
        self.why, self.detail = why, detail
        super().__init__(detail)


def replay(record: Record, engine: Engine) -> Replayed:
    """Runs the model once over prompt and answer. Whatever is in the record, it raises nothing but LocalFault."""
    try:
        said = _reply(record, engine)
        asked = _request(record, engine, said)
        if isinstance(said, Labelled):
            return _labelled(said, asked, engine)
        return _said(said, asked, engine) if said.finish else _broken_off(said, asked, engine)
    except _No as no:
        return Replayed(Verdict.MISMATCH, no.why, no.detail)


def read(record: Record, engine: Engine) -> tuple[Asked, Said | Labelled, tuple[int, ...]]:
    """Request, reply, and the reply's tokens, which make its text; none of a label. Nothing is run. Raises Misread."""
    try:
        said = _reply(record, engine)
        asked = _request(record, engine, said)
        if isinstance(said, Labelled):
            return asked, said, ()
        tokens = _fingerprint(said.fingerprint, "generated", engine).tokens
        _check_text(said, asked, tokens, engine)
        return asked, said, tokens
    except _No as no:
        raise Misread(f"{no.why}; {no.detail}") from no


def _reply(record: Record, engine: Engine) -> Said | Labelled:
    try:
        said = read_reply(record.response)
    except ReplyMalformed as error:
        raise _No(Why.RESPONSE, str(error)) from error
    if isinstance(said, Labelled) != (engine.task == "classification"):
        raise _No(Why.RESPONSE, f"it is none of a model for {engine.task}")
    if said.bundle != engine.bundle and (isinstance(said, Labelled) or said.finish):
        raise _No(Why.BUNDLE, f"it names {said.bundle.hex()}, this is {engine.bundle.hex()}")
    return said


def _request(record: Record, engine: Engine, said: Said | Labelled) -> Asked:
    """Prompt and decoding as a server must understand the request, and the record must have them."""
    data, bounds = record.request, Bounds(MOST, MOST)
    try:
        match said:
            case Labelled():
                asked = asking.classification(asking.parsed(ClassifyRequest, data), engine, bounds)
            case Said(shape="chat.completion"):
                asked = asking.chat(asking.parsed(ChatRequest, data), engine, bounds)
            case _:
                asked = asking.completion(asking.parsed(CompletionRequest, data), engine, bounds)
    except Refused as error:
        raise _No(Why.REQUEST, str(error)) from error
    given, wanted = record.decoding, _filled_in(asked.decoding, record)
    if given != wanted:
        raise _No(Why.TERMS, f"the receipt says {_terms(given)}, the request {_terms(wanted)}")
    return replace(asked, decoding=given)


def _filled_in(decoding: Decoding, record: Record) -> Decoding:
    """What the request leaves to the server, as the record has it: a seed, and fewer tokens than the model could."""
    given = canonical.parse(record.request, asking.MAX_DEPTH, canonical.unique)
    seed, drawn = record.decoding.seed, given.get("seed") is None and bool(decoding.temperature)
    counted = given.get("max_tokens") is not None or given.get("max_completion_tokens") is not None
    fewer = min(decoding.max_tokens, record.decoding.max_tokens)
    return replace(
        decoding,
        seed=seed if drawn else decoding.seed,
        max_tokens=decoding.max_tokens if counted else fewer,
    )


def _terms(decoding: Decoding) -> str:
    return canonical.encode(decoding.to_json()).decode()[:300]


def _fingerprint(data: bytes, kind: str, engine: Engine) -> Fingerprint:
    try:
        found = Fingerprint.decode(data)
    except FingerprintMalformed as error:
        raise _No(Why.FINGERPRINT, str(error)) from error
    if found.kind != kind:
        raise _No(Why.FINGERPRINT, f"it is of a state that was {found.kind}")
    return found


# ---- generation


def _said(said: Said, asked: Asked, engine: Engine) -> Replayed:
    claimed = _fingerprint(said.fingerprint, "generated", engine)
    _check_text(said, asked, claimed.tokens, engine)
    states, scores = engine.follow(asked.tokens, claimed.tokens, asked.decoding.leave_out)
    distance = compare(claimed, states)
    margins = [
        0.0 if choose(row, asked.decoding, place) == token else margin(row, asked.decoding, place, token)
        for place, (row, token) in enumerate(zip(scores, claimed.tokens, strict=True))
    ]
    apart = next((place for place, found in enumerate(margins) if found > CLOSE), None)
    close = sum(0.0 < found <= CLOSE for found in margins)
    found = Replayed(Verdict.MISMATCH, Why.TOKENS, "", distance, apart, close)
    if apart is not None:
        return replace(
            found, detail=f"token {apart} of {len(margins)}: {claimed.tokens[apart]}, off by {margins[apart]:.1e}"
        )
    if close > 1 + len(margins) // CLOSE_ONE_IN:
        return replace(found, detail=f"{close} of {len(margins)} tokens were all chosen by a hair's breadth")
    return _by_distance(found)


def _by_distance(found: Replayed) -> Replayed:
    told = f"distance {found.distance:.1e}, at most {THRESHOLD:g} is the same computation"
    if found.distance > THRESHOLD:
        return replace(found, why=Why.STATES, detail=told)
    return replace(found, verdict=Verdict.MATCH, why=Why.SAME, detail=told)


def _check_text(said: Said, asked: Asked, tokens: Sequence[int], engine: Engine) -> None:
    """Raises _No unless text, end and counts follow from these tokens."""
    most = min(asked.decoding.max_tokens, engine.max_tokens - len(asked.tokens))
    if not 0 < len(tokens) <= most or not all(token < engine.vocabulary for token in tokens):
        raise _No(Why.FINGERPRINT, f"{len(tokens)} tokens, where the request allows {most} of this vocabulary")
    text, finish = engine.written(asked.tokens, tokens, asked.decoding)
    if finish == "" or (text, finish) != (said.text, said.finish):
        raise _No(Why.TEXT, f"its {len(tokens)} tokens make {len(text)} characters that end by {finish or 'nothing'}")
    counted, there = (said.prompt_tokens, said.tokens), (len(asked.tokens), len(tokens))
    if counted not in ((None, None), there):
        raise _No(Why.TEXT, f"it counts {counted} tokens of prompt and answer, there are {there}")


def _broken_off(said: Said, asked: Asked, engine: Engine) -> Replayed:
    """Said again from the beginning."""
    [here] = engine.generate([Job(asked.tokens, asked.decoding)], lambda step: None, lambda job: False)
    if not here.text.startswith(said.text):
        same = next(at for at, char in enumerate(said.text) if here.text[at : at + 1] != char)
        return Replayed(Verdict.UNDECIDED, Why.BROKEN_OFF, f"from character {same} on, another text is said here")
    return Replayed(Verdict.UNDECIDED, Why.BROKEN_OFF, f"all {len(said.text)} characters are said here too")


# ---- classification


def _labelled(said: Labelled, asked: Asked, engine: Engine) -> Replayed:
    claimed = _fingerprint(said.fingerprint, "pooled", engine)
    if tuple(said.scores) != engine.labels or not all(map(isfinite, said.scores.values())):
        raise _No(Why.SCORES, "they are of other labels, or none")
    masked = asked.decoding.leave_out
    states, _ = engine.pooled([asked.tokens], masked)
    [here] = engine.classify([asked.tokens], masked)
    distance = compare(claimed, states)
    apart = max(abs(ours - said.scores[label]) for label, ours in zip(engine.labels, here.scores, strict=True))
    if apart > SCORE_TOLERANCE or said.label != max(said.scores, key=said.scores.__getitem__):
        return Replayed(Verdict.MISMATCH, Why.SCORES, f"a score is off by {apart:.1e}", distance)
    return _by_distance(Replayed(Verdict.MISMATCH, Why.STATES, "", distance))
