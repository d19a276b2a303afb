"""A server's proof of one answer (statement F, proofs/inference), as bytes, and how an auditor verifies it.

    length of the head (4 bytes) ‖ head, canonical JSON ‖ proof
    head = {"format": …, "tokens": ids of the text, answer included, "prompt": how many of them were given, or null}

What the receipt says stands in no head: its leaf, by which a proof is of one receipt, and a classifier's scores are
taken from there. Texts are not: that the head's tokens are the receipt's texts takes the base's tokenizer, and is left
to whoever has one (`Proven`).

PeerFault
├── ClaimRefused      of proofs.inference.claim: the answer contradicts itself, or is not of this model's kind
├── ProofInvalid      of proofs.proof
└── AnswerMalformed   bytes that are no head and proof
LocalFault            ArchitectureUnknown, BaseMismatch, ProgramRefused: with this base or adapter nothing is proven
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from math import fsum
from typing import Any, Final

from ledger import canonical
from ledger.base_program import Base
from ledger.canonical import FieldInvalid, Fields, NotCanonical
from ledger.config import Config
from ledger.tensors import Weights
from proofs.errors import PeerFault
from proofs.inference.claim import MOST_TOKENS, ClaimRefused, Greedy, InferenceStatement, Scored

FORMAT: Final = "candor/inference-answer/1"
TOLERANCE: Final = 128
"""τ, in units of 2^−10: of benchmarks/inference_distance.py, rounded up to a power of two."""
MAX_HEAD_BYTES: Final = 1 << 14
MAX_ANSWER_BYTES: Final = 1 << 26
UNITS: Final = 1 << 10
WHOLE: Final = 1e-3  # how far shares may be from adding up to 1: what is proven is how they compare
EXACT: Final = Context(prec=60, rounding=ROUND_HALF_EVEN)


class AnswerMalformed(PeerFault):
    """What came is no answer to a request for a proof."""


@dataclass(frozen=True)
class Answer:
    """What is proven about a receipt. leaf: of its entry. tokens: of the text, those of the answer included.

    prompt: how many of them were given, of a language model. scores: of each label, in the config's order, of a
    classifier; as the receipt's response has them.
    """

    leaf: bytes
    tokens: tuple[int, ...]
    prompt: int | None
    scores: tuple[float, ...] | None

    def statement(self, config: Config) -> InferenceStatement:
        """Raises ClaimRefused."""
        if len(self.tokens) > config.task.max_tokens:
            raise ClaimRefused(f"{len(self.tokens)} tokens of a model of {config.task.max_tokens}")
        if (self.prompt is None) == (self.scores is None):
            raise ClaimRefused("an answer is either tokens after a prompt, or scores of labels")
        claimed = Greedy(self.prompt) if self.prompt is not None else scored(self.scores or ())
        return InferenceStatement(self.leaf, self.tokens, claimed, TOLERANCE)

    def encode(self, proof: bytes) -> bytes:
        head = canonical.encode({"format": FORMAT, "prompt": self.prompt, "tokens": list(self.tokens)})
        return len(head).to_bytes(4) + head + proof


@dataclass(frozen=True)
class Proven:
    """That the model gives this answer to these tokens. tokens, prompt: still to be compared with the receipt's texts.

    decided: of a classifier, whether no other label is within the tolerance.
    """

    tokens: tuple[int, ...]
    prompt: int | None
    decided: bool
    tolerance: int = TOLERANCE


def verify_inference(
    base: Base, config: Config, weights: Weights, leaf: bytes, scores: Sequence[float] | None, data: bytes
) -> Proven:
    """weights: every tensor of the FINAL bundle, in grid units. leaf, scores: of the receipt, and of its response.

    Raises AnswerMalformed, ClaimRefused, ProofInvalid, or the LocalFault that keeps this machine from verifying.
    """
    from proofs.inference.verifier import verify

    tokens, prompt, proof = read_answer(data)
    answer = Answer(leaf, tokens, prompt, None if scores is None else tuple(scores))
    statement = answer.statement(config)
    verify(statement, base.program(config, weights), proof)
    return Proven(tokens, prompt, statement.decided)


def read_answer(data: bytes) -> tuple[tuple[int, ...], int | None, bytes]:
    """(tokens, prompt, proof). Raises AnswerMalformed."""
    start = 4 + int.from_bytes(data[:4])
    if len(data) > MAX_ANSWER_BYTES or not 4 < start <= min(len(data), 4 + MAX_HEAD_BYTES):
        raise AnswerMalformed(f"{len(data)} bytes, of which {start - 4} are said to be a head")
    try:
        fields = Fields(canonical.decode(data[4:start], max_bytes=MAX_HEAD_BYTES), "answer")
        fields.text("format", one_of=(FORMAT,))
        prompt, tokens = fields.take("prompt"), fields.array("tokens", max_items=MOST_TOKENS)
        fields.done()
    except (NotCanonical, FieldInvalid) as error:
        raise AnswerMalformed(str(error)) from error
    if not all(_is_number(token) for token in tokens) or not (prompt is None or _is_number(prompt)):
        raise AnswerMalformed("tokens and prompt are whole numbers below 2^24")
    return tuple(tokens), prompt, data[start:]


def scored(scores: Sequence[float]) -> Scored:
    """The claim that a classifier's scores are shares whose logarithms are so far apart; the same on every machine.

    Raises ClaimRefused for what is no share.
    """
    if not scores or not all(0.0 < score <= 1.0 for score in scores):
        raise ClaimRefused("a score is a share above 0 and not above 1")
    if abs(fsum(scores) - 1.0) > WHOLE:
        raise ClaimRefused("the scores of all labels are shares of one whole, and these add up to another")
    logarithms = [EXACT.ln(Decimal(score)) for score in scores]
    label = max(range(len(scores)), key=lambda one: (logarithms[one], -one))
    apart = (EXACT.multiply(EXACT.subtract(one, logarithms[label]), Decimal(UNITS)) for one in logarithms)
    return Scored(label, tuple(int(EXACT.to_integral_value(one)) for one in apart))


def _is_number(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 24
