"""Judging the submissions of a round, with the proofs of several of them verified at the same time.

Threads run the cheap checks; each proof, which is all of the work, is verified in a process of its own core. Python's
lock would keep threads from it: two of them take as long as one. The processes know nothing but a statement and a proof
(both public) and end with the one that started them. To start them takes as long as to verify a few proofs, so they are
started when a round has that many for each, and kept.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Final

from ledger.verdict import SubmissionFacts, Verdict, judge
from node.recompute import Recount
from proofs.errors import LocalFault
from proofs.statement import Statement
from proofs.verifier import verify

Evidence = tuple[SubmissionFacts, dict[str, bytes]]
CORES: Final = os.cpu_count() or 1
WORTH_A_START: Final = 4  # proofs for each process


class JudgeDied(LocalFault):
    """A process that verified a proof is gone; the next turn starts another."""


class Judges:
    """Verifies proofs on up to `workers` cores, in processes once a round has `worth` proofs for each of them."""

    def __init__(self, workers: int = CORES, worth: int = WORTH_A_START) -> None:
        self._workers, self._worth = workers, worth
        self._pool: ProcessPoolExecutor | None = None

    def verdicts(self, recount: Recount, members: Sequence[int]) -> Iterator[tuple[int, Verdict]]:
        """Each member's verdict, in the order given. As many bundles as there are workers are in memory at a time.

        Raises WireFault or LocalFault when the store could not even say that a bundle is missing, and JudgeDied.
        """
        if self._alone(recount, len(members)):
            yield from ((member, recount.verdict(member)) for member in members)
            return
        pool, waiting = self._processes(), iter(members)

        def judged(found: Verdict | Evidence) -> Verdict:
            return found if isinstance(found, Verdict) else judge(*found, partial(_verify_in, pool))

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
