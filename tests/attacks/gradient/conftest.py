"""Small rounds with real gradients, and an honest proof about one of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pytest

from benchmarks.gradient_cases import GradientRound, gradient_round
from benchmarks.gradient_liar import check, public_circuit
from proofs.circuit.layout import Layout
from proofs.gradient.claim import GradientStatement, claim_layout
from proofs.gradient.program import Program


@dataclass(frozen=True, eq=False)
class Proven:
    """A round, one of its statements, and the honest proof of that."""

    case: GradientRound
    statement: GradientStatement
    program: Program
    proof: bytes

    @cached_property
    def layout(self) -> Layout:
        return claim_layout(public_circuit(self.statement, self.program), self.case.shape)

    def verify(self, proof: bytes, statement: GradientStatement | None = None, program: Program | None = None) -> None:
        check(statement or self.statement, program or self.program, proof)


@pytest.fixture(scope="session")
def deep(tmp_path_factory: pytest.TempPathFactory) -> dict[str, GradientRound]:
    """By kind, of two layers: the last is not like the others, nor is the first on the way back."""
    return {kind: gradient_round(kind, tmp_path_factory.mktemp(kind)) for kind in ("bert", "llama")}


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> GradientRound:
    return gradient_round("bert", tmp_path_factory.mktemp("bert"), layers=1)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> GradientRound:
    return gradient_round("llama", tmp_path_factory.mktemp("llama"), layers=1)


@pytest.fixture(scope="session")
def proven(bert: GradientRound) -> Proven:
    statement = bert.statement(0, 1)
    return Proven(bert, statement, bert.program(0), bert.prove(statement))
