"""Judging the submissions of a round, with the proofs of several of them verified at the same time.

Threads run the cheap checks; each proof, which is all of the work, is verified in a process of its own core. Python's
lock would keep threads from it: two of them take as long as one. The processes know nothing but a statement, a proof
(both public) and, for gradients, the folder of the base, which each of them reads once; they end with the one that
started them. To start them takes as long as to verify a few proofs, so they are started when a round has that many for
each, and kept.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Final

from ledger.config import Config
from ledger.gradients import GradientVerifier, Job
from ledger.tensors import Weights
from ledger.verdict import Verdict, judge
from node.recompute import Evidence, Recount
from proofs.errors import LocalFault
from proofs.proof import ProofInvalid
from proofs.statement import Statement
from proofs.verifier import verify

SHARE: Final = "CANDOR_CORES"  # of this machine's cores, where several daemons were started on it
WORTH_A_START: Final = 4  # proofs for each process


class JudgeDied(LocalFault):
    """A process that verified a proof is gone; the next turn starts another."""


def cores() -> int:
    """How many this process may use: its share, or all of them."""
    share = os.environ.get(SHARE, "")
    return int(share) if share.isdecimal() and int(share) else os.cpu_count() or 1


class Judges:
    """Verifies proofs on up to `workers` cores, in processes once a round has `worth` proofs for each of them."""

    def __init__(self, workers: int | None = None, worth: int = WORTH_A_START) -> None:
        self._workers, self._worth = workers or cores(), worth
        self._pool: ProcessPoolExecutor | None = None

    def verdicts(self, recount: Recount, members: Sequence[int]) -> Iterator[tuple[int, Verdict]]:
        """Each member's verdict, in the order given. As many bundles as there are workers are in memory at a time.

        Raises WireFault or LocalFault when the store could not even say that a bundle is missing, GradientsUnjudged,
        and JudgeDied.
        """
        if self._alone(recount, len(members) * (1 + recount.config.openings)):
            yield from ((member, recount.verdict(member)) for member in members)
            return
        pool, waiting = self._processes(), iter(members)

        def judged(found: Verdict | Evidence) -> Verdict:
            if isinstance(found, Verdict):
                return found
            facts, files, shown = found
            pooled = replace(shown, verifier=InProcesses(shown.verifier, pool)) if shown else None
            return judge(facts, files, pooled, partial(_verify_in, pool))

        try:
            with ThreadPoolExecutor(self._workers) as threads:
                while batch := list(islice(waiting, self._workers)):
                    evidence = [recount.evidence(member) for member in batch]
                    yield from zip(batch, threads.map(judged, evidence), strict=True)
        except BrokenExecutor as error:
            self._pool = None
            raise JudgeDied("a process that verified a proof is gone") from error

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _alone(self, recount: Recount, proofs: int) -> bool:
        """Is it done sooner in this process?"""
        if self._workers < 2 or not recount.config.proven:
            return True
        return self._pool is None and proofs < self._worth * self._workers

    def _processes(self) -> ProcessPoolExecutor:
        if self._pool is None:
            spawn = multiprocessing.get_context("spawn")  # forking a process that has threads is not safe
            self._pool = ProcessPoolExecutor(self._workers, mp_context=spawn, initializer=end_with_parent)
        return self._pool


@dataclass(frozen=True)
class InProcesses:
    """A verifier of gradients whose work is done by the pool. What it is goes along: a name of a base, not the base."""

    here: GradientVerifier
    pool: ProcessPoolExecutor

    def largest(self, config: Config, weights: Weights) -> int:
        return self.here.largest(config, weights)

    def outcomes(self, config: Config, jobs: Sequence[Job]) -> Iterator[ProofInvalid | None]:
        """Raises BrokenExecutor too."""
        return self.pool.map(partial(_outcome, self.here, config), jobs)


def _outcome(verifier: GradientVerifier, config: Config, job: Job) -> ProofInvalid | None:
    (outcome,) = verifier.outcomes(config, [job])
    return outcome


def _verify_in(pool: ProcessPoolExecutor, statement: Statement, proof: bytes) -> None:
    """As proofs.verifier.verify. Raises BrokenExecutor too."""
    pool.submit(verify, statement, proof).result()


def end_with_parent() -> None:
    """In a process of the pool: be gone when the one that started it is, killed or not."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
