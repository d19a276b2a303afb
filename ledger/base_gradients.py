"""Statement G on a base model that is on this machine: a folder, read once and named by its digest.

Nothing but that folder is needed, and no library of models: the program is made from its tensors (ledger.base_program).
A base that is not the config's is no base: nothing is judged on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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

SLACK = 2


@dataclass(frozen=True)
class BaseGradients:
    """Verifies proofs of gradients on the base in `folder`. Goes to another process as that name alone."""

    folder: Path

    def largest(self, config: Config, weights: Weights) -> int:
        """Found once for a base and a config. An iterate further on may need somewhat more than the global weights, as
        its matrices have more digits: hence SLACK. The verifier takes one length alone, that of its own program."""
        from proofs.gradient.claim import largest_proof

        key = self.folder, config.digest
        if key not in _LARGEST:
            try:
                most = SLACK * int(largest_proof(self.program(config, weights), config.shape))
                _LARGEST[key] = min(MAX_PROOF_BYTES, most)
            except ProgramRefused as error:
                raise GradientsUnjudged(f"no proof of gradients can be made in this round: {error}") from error
        return _LARGEST[key]

    def outcomes(self, config: Config, jobs: Sequence[Job]) -> Iterator[ProofInvalid | None]:
        """An iterate at which H proves nothing is the fault of whose sums led to it: the global weights were not so."""
        from proofs.gradient.verifier import verify

        for job in jobs:
            try:
                verify(gradient_statement(job.challenge), self.program(config, job.iterate), job.proof)
            except ProofInvalid as wrong:
                yield wrong
            except ProgramRefused as refused:
                yield ProofInvalid(f"H has no program at this iterate: {refused}")
            else:
                yield None

    def program(self, config: Config, iterate: Weights) -> Program:
        """H at an iterate, given in grid units. Raises GradientsUnjudged, or ProgramRefused where its weights leave no
        room: whose iterate that is has moved it there, and everybody finds the same."""
        with _unjudged():
            return _base(self.folder).program(config, iterate)


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


@contextmanager
def _unjudged() -> Iterator[None]:
    """What is wrong with this machine, or with its base, is no member's fault."""
    try:
        yield
    except ProgramRefused:
        raise
    except LocalFault as error:
        raise GradientsUnjudged(f"proofs of gradients cannot be verified here: {error}") from error


_LARGEST: dict[tuple[Path, bytes], int] = {}


@lru_cache(maxsize=1)
def _base(folder: Path) -> Base:
    return Base.open(folder)
