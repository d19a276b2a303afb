"""The verifier of statement F: numpy, and mpmath for the tables of H."""

from __future__ import annotations

from proofs.circuit import verifier
from proofs.gradient.program import Program
from proofs.inference.claim import PROTOCOL, InferenceStatement, claim_circuit, claim_layout


def verify(statement: InferenceStatement, program: Program, proof: bytes) -> None:
    """Raises ProofInvalid (proofs.proof names the kinds), ClaimRefused, or ProgramRefused where no proof can be."""
    circuit = claim_circuit(statement, program)
    verifier.verify(statement.digest(program), circuit, claim_layout(circuit), (), proof, PROTOCOL)
