"""What a server answers to POST /v1/prove: a proof that its model gives the answer of a receipt (statement F).

`answer_of` reads the record of a receipt, for the server that proves and for an auditor that has the texts: the tokens
that a verified proof names (ledger.inference_proof.Proven) have to be those that it finds. `prove_inference` takes
seconds, and memory as a proof of a gradient does: one at a time, and not in the thread that answers.

Greedy answers alone are proven: of a token that was drawn by chance nothing says that it is the likeliest.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from ledger.base_program import Base
from ledger.config import Config
from ledger.inference_proof import Answer
from ledger.log.receipt import Record
from ledger.tensors import Weights
from node.engine import Engine
from node.replay import read
from node.serving.reading import Labelled
from proofs.inference.claim import ClaimRefused
from proofs.inference.prover import prove

KEY_BYTES = 32


def answer_of(record: Record, leaf: bytes, engine: Engine) -> Answer:
    """leaf: of the receipt's entry. Raises Misread, and ClaimRefused for an answer that is not of a kind that is
    proven."""
    asked, said, tokens = read(record, engine)
    if isinstance(said, Labelled):
        if tuple(said.scores) != engine.labels or said.label != max(said.scores, key=said.scores.__getitem__):
            raise ClaimRefused("the label is not the one with the largest score, or the scores are of other labels")
        return Answer(leaf, asked.tokens, None, tuple(said.scores.values()))
    if record.decoding.temperature:
        raise ClaimRefused("its tokens were drawn by chance; greedy answers alone are proven (temperature 0)")
    return Answer(leaf, (*asked.tokens, *tokens), len(asked.tokens), None)


def prove_inference(
    base: Base, config: Config, weights: Weights, answer: Answer, progress: Callable[[str], None] | None = None
) -> bytes:
    """weights: every tensor of the FINAL bundle, in grid units. Random cells are drawn anew each time.

    Raises ClaimRefused for an answer of another kind of model; OutOfRange and ValueRefused where the model's integers
    leave their ranges, or give another answer than its floats by more than the tolerance; ArchitectureUnknown,
    ProgramRefused, BaseMismatch: then there is no proof for this model.
    """
    program = base.program(config, weights)
    proof = prove(answer.statement(config), program, secrets.token_bytes(KEY_BYTES), progress)
    return answer.encode(proof)
