"""Statement G on a base model that is on this machine: a folder, read once and named by its digest.

Nothing but that folder is needed, and no library of models: the program is made from its tensors (ledger.base_program).
A base that is not the config's is no base: nothing is judged on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ledger.base_program import Base
from ledger.config import Config
from ledger.gradients import MAX_PROOF_BYTES, Challenge, GradientsUnjudged, Job
from ledger.tensors import Weights
from proofs.errors import LocalFault
from proofs.gradient.numbers import ProgramRefused
from proofs.gradient.program import Program
from proofs.proof import ProofInvalid


class IterateUnprovable(ProofInvalid):
    """A proof at an iterate that leaves the ranges of H."""


@dataclass(frozen=True)
class BaseGradients:
    """Verifies proofs of gradients on the base in `folder`. Goes to another process as that name alone."""

    folder: Path

    def largest(self, config: Config, weights: Weights) -> int:
        from proofs.gradient.claim import largest_proof

        program = self.program(config, weights)
        try:
            return min(MAX_PROOF_BYTES, int(largest_proof(program, config.shape)))
        except LocalFault as error:
            raise GradientsUnjudged(f"no gradient of this round can be proven: {error}") from error

    def outcomes(self, config: Config, jobs: Sequence[Job]) -> Iterator[ProofInvalid | None]:
        """An iterate at which H proves nothing is the fault of whose sums led to it: the global weights were not so."""
        from proofs.circuit.wire import CircuitRefused
        from proofs.gradient.verifier import verify

        for job in jobs:
            program = self.program(config, job.iterate)
            try:
                verify(gradient_statement(job.challenge), program, job.proof)
            except ProofInvalid as wrong:
                yield wrong
            except (CircuitRefused, ProgramRefused) as error:
                yield IterateUnprovable(f"the released sums lead to weights at which nothing can be proven: {error}")
            else:
                yield None

    def program(self, config: Config, iterate: Weights) -> Program:
        """H at an iterate, given in grid units. Raises GradientsUnjudged."""
        try:
            return _base(self.folder).program(config, iterate)
        except LocalFault as error:
            raise GradientsUnjudged(f"proofs of gradients cannot be verified here: {error}") from error


def gradient_statement(challenge: Challenge) -> Any:
    """The challenge as proofs.gradient takes it."""
    from proofs.gradient.claim import GradientStatement

    return GradientStatement(
        mechanism=challenge.mechanism,
        slots_root=challenge.slots_root,
        beacon=challenge.beacon,
        step=challenge.pick.step,
        slot=challenge.pick.slot,
        tolerance=challenge.tolerance,
    )


@lru_cache(maxsize=1)
def _base(folder: Path) -> Base:
    return Base.open(folder)
