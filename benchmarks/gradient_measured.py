"""One proof of statement G, measured in a process that has trained nothing and loaded no model.

Seconds are those of the processor, of one thread: what else the machine does shows in them least.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

from proofs.circuit.layout import Layout
from proofs.gradient.claim import GradientStatement, claim_circuit, claim_layout
from proofs.gradient.program import Program
from proofs.statement import Shape, Statement
from proofs.texts import Texts
from proofs.witness import Contributions
from proofs.words import SecretWords

BEACON = b"\5" * 32
TOLERANCE = 8
REPETITIONS = 3


@dataclass(frozen=True)
class Round:
    """One member's round, and what a proof about it needs."""

    program: Program
    statement: Statement
    slots_root: bytes
    words: SecretWords
    texts: Texts
    contributions: Contributions
    float_s: float

    @property
    def shape(self) -> Shape:
        return self.statement.shape

    def claim(self, slot: int) -> GradientStatement:
        return GradientStatement(self.statement, self.slots_root, BEACON, 0, slot, TOLERANCE)

    def layout(self) -> Layout:
        return claim_layout(claim_circuit(self.claim(0), self.program), self.shape)


@dataclass(frozen=True)
class Measured:
    """Seconds, bytes, and cells of values; float_s: the float gradient of the same row. prove_s: of the first proof in
    a process, the trees of the round made again; again_s: of one more in that round."""

    prove_s: float
    again_s: float
    verify_s: float
    proof_bytes: int
    cells: int
    row: int
    bits: float
    memory_bytes: int
    float_s: float


def cells(layout: Layout) -> int:
    return sum(layout.rows(group) * group.width for group in layout.groups) * layout.lanes


def measured(found: Round) -> Measured:
    from proofs.gradient.prover import prove
    from proofs.gradient.verifier import verify

    layout = found.layout()  # makes the tables of H, which later proofs find made
    began = time.process_time()
    proof = prove(found.claim(0), found.program, found.words, found.texts, found.contributions)
    proven = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = list[float]()
    for _ in range(REPETITIONS):
        began = time.process_time()
        prove(found.claim(0), found.program, found.words, found.texts, found.contributions)
        seconds.append(time.process_time() - began)
    again, seconds = statistics.median(seconds), []
    for _ in range(REPETITIONS):
        began = time.process_time()
        verify(found.claim(0), found.program, proof)
        seconds.append(time.process_time() - began)
    sizes = cells(layout), layout.row, layout.bits
    return Measured(proven, again, statistics.median(seconds), len(proof), *sizes, peak, found.float_s)


def alone(found: Round) -> Measured:
    """In a process of its own; not one of multiprocessing, which would load what this one has loaded."""
    command = [sys.executable, "-m", "benchmarks.gradient_measured"]
    one = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    done = subprocess.run(
        command, input=pickle.dumps(found), stdout=subprocess.PIPE, env={**os.environ, **one}, check=True
    )
    return Measured(**json.loads(done.stdout))


if __name__ == "__main__":
    print(json.dumps(asdict(measured(pickle.load(sys.stdin.buffer)))))
