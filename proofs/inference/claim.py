"""Statement F: to these tokens, the program gives this answer, within a tolerance (README.md).

    Scored   a classifier: its label is the likeliest, and every other score is so far below
    Greedy   a language model: each token of the answer has the largest score at its place

PeerFault
└── ClaimRefused    an answer that no honest server claims, whatever the model
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from proofs.circuit.builder import Circuit
from proofs.circuit.layout import Layout, layout_of
from proofs.circuit.rounding import applied_parts, rounded
from proofs.circuit.wire import CircuitRefused, Units, Wire, constant_wire
from proofs.errors import LocalFault, PeerFault
from proofs.gradient.circuit_model import forward, logits, pooled
from proofs.gradient.circuit_text import cells_of, read
from proofs.gradient.numbers import LOOKUP_BITS, ProgramRefused
from proofs.gradient.program import NextToken, Program
from proofs.gradient.tape import SCORE_BITS, check_apart

PROTOCOL = b"candor/inference-proof/2"
CONTEXT_BYTES = 32
MOST_TOKENS = 512
MOST_TOLERANCE = 1 << 10
MOST_APART = 1 << (LOOKUP_BITS + 1)
ROWS = range(9, 17)  # binary logarithms of the row lengths that are tried


class ClaimRefused(PeerFault):
    """What is claimed contradicts itself, or is not of this model's kind."""


@dataclass(frozen=True)
class Scored:
    """differences: score of each label less that of `label`, in units of 2^−10 of the logarithm of its share."""

    label: int
    differences: tuple[int, ...]


@dataclass(frozen=True)
class Greedy:
    """The first `prompt` tokens were given; each of the others is what the model found likeliest after those before."""

    prompt: int


@dataclass(frozen=True)
class InferenceStatement:
    """context: what the proof is tied to, 32 bytes. tokens: of the text, answer included. tolerance: τ, in units of
    2^−10, by which a score's distance from another may differ. Raises ClaimRefused."""

    context: bytes
    tokens: tuple[int, ...]
    answer: Scored | Greedy
    tolerance: int

    def __post_init__(self) -> None:
        if len(self.context) != CONTEXT_BYTES or not 1 <= self.tolerance <= MOST_TOLERANCE:
            raise LocalFault(f"a context has {CONTEXT_BYTES} bytes, and a tolerance is 1 to {MOST_TOLERANCE} units")
        if not 1 <= len(self.tokens) <= MOST_TOKENS or not all(0 <= token < 1 << 24 for token in self.tokens):
            raise ClaimRefused(f"{len(self.tokens)} tokens where 1 to {MOST_TOKENS}, each below 2^24, are proven")
        if isinstance(self.answer, Greedy):
            if not 1 <= self.answer.prompt < len(self.tokens):
                raise ClaimRefused(f"a prompt of {self.answer.prompt} of {len(self.tokens)} tokens leaves no answer")
            return
        label, differences = self.answer.label, self.answer.differences
        if not 0 <= label < len(differences) or differences[label] or max(differences) > 0:
            raise ClaimRefused(f"label {label} is not the one with the largest of {len(differences)} scores")
        if min(differences) < -MOST_APART:
            raise ClaimRefused(f"scores more than {MOST_APART} units apart are not proven")

    @property
    def decided(self) -> bool:
        """Is the largest score so far above the others that no model within the tolerance has another label? Of
        Greedy nothing like it is said: another token may have a score within τ of the answer's."""
        if isinstance(self.answer, Greedy):
            return False
        others = [one for label, one in enumerate(self.answer.differences) if label != self.answer.label]
        return max(others, default=-self.tolerance - 1) < -self.tolerance

    def digest(self, program: Program) -> bytes:
        if isinstance(self.answer, Greedy):
            answer = b"G" + self.answer.prompt.to_bytes(4, "big")
        else:
            answer = b"S" + _numbers((self.answer.label, *self.answer.differences))
        parts = (self.context, _numbers(self.tokens), answer, self.tolerance.to_bytes(4, "big"), program.digest())
        return sha256(b"candor/inference-statement/1\0" + b"".join(parts)).digest()


def claim_circuit(statement: InferenceStatement, program: Program, proving: bool = False) -> Circuit:
    """The circuit of the statement; `proving`: with values, which follow from it.

    Raises ClaimRefused; ProgramRefused for a program that cannot be proven; OutOfRange or ValueRefused where values
    leave their ranges, or the program's answer is another.
    """
    places = max(2, len(statement.tokens))
    _check_kind(statement, program)
    circuit = Circuit(places, proving)
    cells = constant_wire(cells_of(statement.tokens, 0, places)[:, 0], 1, 0)
    ids, text, _ = read(circuit, program, cells)
    x, _, _ = forward(circuit, program, ids, text)
    if isinstance(program.head, NextToken):
        _greedy(circuit, program, program.head, x, _following(statement.tokens, statement.answer, places), statement)
    elif isinstance(statement.answer, Scored):
        found = logits(circuit, program.head, pooled(circuit, program.head, x)[0], program)
        _scored(circuit, found.with_(fraction=0), statement.answer, statement.tolerance)
    return circuit


def claim_layout(circuit: Circuit) -> Layout:
    """Rows as long as make the shortest proof; the shorter ones in doubt. Raises CircuitRefused."""
    found = list[Layout]()
    for bits in ROWS:
        try:
            found.append(layout_of(circuit, 1 << bits))
        except CircuitRefused:
            continue
    if not found:
        raise CircuitRefused("no rows are long enough for this circuit, or too many are needed")
    return min(found, key=lambda layout: layout.fixed_bytes)


def _check_kind(statement: InferenceStatement, program: Program) -> None:
    if max(statement.tokens) >= program.embedding.shape[0]:
        raise ClaimRefused(f"a token id beyond the {program.embedding.shape[0]} of the model")
    if isinstance(program.head, NextToken) != isinstance(statement.answer, Greedy):
        raise ClaimRefused("a language model gives no label, and a classifier no token")
    if isinstance(statement.answer, Scored) and not isinstance(program.head, NextToken):
        labels = program.head.classifier.weight.shape[0]
        if len(statement.answer.differences) != labels:
            raise ClaimRefused(f"{len(statement.answer.differences)} scores of a model with {labels} labels")
    if program.formats.logits != 10:
        raise ProgramRefused("claims are in units of 2^-10, the logits of this program are not")


def _scored(circuit: Circuit, found: Wire, answer: Scored, tolerance: int) -> None:
    """Every logit is as far from the label's as is claimed, up to the tolerance."""
    count = len(answer.differences)
    own = found.shaped(lambda strips: np.broadcast_to(strips[answer.label], (count,)))
    claimed = constant_wire(np.array(answer.differences, dtype=np.int64), 1, 0)
    apart = found.with_(limbs=None) - own - claimed
    circuit.equal(apart - circuit.within((count,), 1, -tolerance, tolerance, apart.units if circuit.proving else None))


def _following(tokens: tuple[int, ...], answer: Scored | Greedy, places: int) -> Units:
    """(places,): the token of the answer that follows each place, −1 where none does."""
    found = np.full(places, -1, dtype=np.int64)
    if isinstance(answer, Greedy):
        found[answer.prompt - 1 : len(tokens) - 1] = tokens[answer.prompt :]
    return found


def _greedy(
    circuit: Circuit, program: Program, head: NextToken, y: Wire, chosen: Units, statement: InferenceStatement
) -> None:
    """At each place with a chosen token, no score is more than the tolerance above that token's."""
    size, lanes = head.weight.shape[0], circuit.lanes
    made: list[Wire] = []

    def below_the_largest(raw: Units | None) -> Wire:
        top = below = None
        if raw is not None:
            top = raw.max(axis=0)
            below = top - raw
            check_apart("scores", below)
        made.append(circuit.unsigned((size,), lanes, LOOKUP_BITS, below))
        return circuit.signed((), lanes, SCORE_BITS, top).spread(size) - made[0]

    parts = applied_parts(circuit, y, head.weight)
    shift = y.fraction + head.weight.fraction - program.formats.logits
    rounded(circuit, "scores", parts, (size,), lanes, shift, 0, SCORE_BITS + 1, below_the_largest)
    answered = np.unique(chosen[chosen >= 0])
    where = (chosen[None] == answered[:, None]).astype(np.int64)
    turns = np.array([circuit.turn(places) for places in where])
    gaps = made[0].shaped(lambda strips: strips[answered]).turned(turns, where).summed()
    circuit.equal(gaps - circuit.within((), lanes, 0, statement.tolerance, gaps.units if circuit.proving else None))


def _numbers(values: tuple[int, ...]) -> bytes:
    return len(values).to_bytes(4, "big") + b"".join(value.to_bytes(4, "big", signed=True) for value in values)
