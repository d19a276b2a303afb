"""The prover of statement F. What it hides are the activations; text, answer, base and adapter are public."""

from __future__ import annotations

from collections.abc import Callable

from proofs.circuit import prover
from proofs.gradient.program import Program
from proofs.inference.claim import PROTOCOL, InferenceStatement, claim_circuit, claim_layout


def prove(
    statement: InferenceStatement, program: Program, key: bytes, progress: Callable[[str], None] | None = None
) -> bytes:
    """key: 32 secret bytes, for this statement alone.

    Raises OutOfRange or ValueRefused where a value leaves its range, or the program's answer is another.
    """
    circuit = claim_circuit(statement, program, proving=True)
    return prover.prove(statement.digest(program), circuit, claim_layout(circuit), [], key, progress, PROTOCOL)
