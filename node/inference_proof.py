"""What a server answers to POST /v1/prove: a proof that its model gives the answer of a receipt (statement F).

It takes seconds, and memory as a proof of a gradient does: one at a time, outside of the thread that answers. Greedy
answers alone are proven: of a token that was drawn by chance nothing says that it is the likeliest.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from ledger.base_program import Base
from ledger.config import Config
from ledger.inference_proof import Answer
from ledger.tensors import Weights
from proofs.inference.prover import prove

KEY_BYTES = 32


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
