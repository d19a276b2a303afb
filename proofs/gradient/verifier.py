"""The verifier of statement G: numpy, and mpmath for the tables of H."""

from __future__ import annotations

from proofs.circuit import verifier
from proofs.gradient.claim import PROTOCOL, GradientStatement, claim_circuit, claim_layout
from proofs.gradient.program import Program


def verify(statement: GradientStatement, program: Program, proof: bytes) -> None:
    """Raises ProofInvalid (proofs.proof names the kinds), or ProgramRefused where no proof can be.

    That the mechanism's own proof holds, and brought this slots root, is the caller's to check.
    """
    circuit = claim_circuit(statement, program)
    layout = claim_layout(circuit, statement.mechanism.shape)
    roots = (statement.mechanism.data_root, statement.slots_root)
    verifier.verify(statement.digest(program), circuit, layout, roots, proof, PROTOCOL)
