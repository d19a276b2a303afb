"""The proof of the mechanism: `python -m benchmarks.mechanism`.

For each preset, on one core: proving one step against the float training step of the same batch without privacy, both
measured here and now; verifying a whole round; sizes exact; memory in a process of its own. Then the growth with
trained coordinates, batch and steps, as a table and as benchmarks/mechanism_growth.png.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.cases import mechanism_case
from benchmarks.plots import growth_plot
from benchmarks.training import plain, prepare
from devnet.presets import MINILM, TINY, Preset
from node.training import MICROBATCH
from proofs.parameters import parameters
from proofs.statement import Shape
from proofs.verifier import verify

PLOT = Path(__file__).parent / "mechanism_growth.png"
BASE = Shape(4, (512, 128), 256, 128, 1024, 1400, 1 << 30, 4)


@dataclass(frozen=True)
class Measured:
    """Seconds, bytes, and cells of the proof that are committed to."""

    prove_s: float
    verify_s: float
    proof_bytes: int
    cells: int
    memory_bytes: int = 0


def main() -> None:
    torch.set_num_threads(1)
    for preset in (TINY, MINILM):
        of_preset(preset)
    growth()


def shape_of(preset: Preset) -> tuple[Shape, int]:
    """The preset's round, and the rows that a member of the demo has."""
    return prepare(preset).config.shape, preset.rows


def measured(shape: Shape, rows: int) -> Measured:
    case, sizes = mechanism_case(shape, rows), parameters(shape)
    began = time.perf_counter()
    proof = case.prove()
    proven = time.perf_counter()
    verify(case.statement, proof)
    verified = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Measured(proven - began, verified - proven, len(proof), sizes.row * sum(sizes.heights), peak)


def alone(shape: Shape, rows: int) -> Measured:
    """In a process of its own, after one small proof that loads the compiled kernels."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(measured, (Shape(1, (4,), 8, 8, 64, 100, 1 << 31, 4), 8))
        return pool.apply(measured, (shape, rows))


def of_preset(preset: Preset) -> None:
    shape, rows = shape_of(preset)
    step = plain(prepare(preset))
    seconds = []
    for repetition in range(7):
        began = time.perf_counter()
        step()
        if repetition > 1:
            seconds.append(time.perf_counter() - began)
    float_s = statistics.median(seconds) * preset.mean_batch / MICROBATCH
    found = alone(shape, rows)
    sizes = parameters(shape)
    looked_up = (sizes.range_lookups + sizes.projection_rows + sizes.noise_rows) * sizes.lanes
    sizes_of = f"{shape.steps} steps, {shape.parameters:,} coordinates, batch {preset.mean_batch} of {rows} rows"
    print(f"\n{preset.name}: {sizes_of}")
    print(f"  float training step of the batch   1.00   ({1000 * float_s:.0f} ms)")
    prove, check = found.prove_s / shape.steps / float_s, found.verify_s / shape.steps / float_s
    print(f"  proving one step                 {prove:6.2f}   ({found.prove_s:.1f} s a round)")
    print(f"  verifying one step               {check:6.3f}  ({found.verify_s:.2f} s a round)")
    print(f"  proof                            {found.proof_bytes:,} bytes a round, {sizes.bits:.1f} bits")
    print(f"  peak memory                      {found.memory_bytes / 2**30:.2f} GiB, proving and verifying")
    rate = (found.cells + looked_up) / found.prove_s / 1e6
    print(f"  cells committed, values looked up  {found.cells:,}, {looked_up:,}: {rate:.1f} million a second")


def growth() -> None:
    series = {
        "coordinates": [(n, replace(BASE, groups=(n - 128, 128))) for n in (320, 640, 1280, 2560, 5120)],
        "slots a step": [(n, replace(BASE, slots=n, capacity=2 * n)) for n in (32, 64, 128, 256, 512)],
        "steps": [(n, replace(BASE, steps=n)) for n in (1, 2, 4, 8, 16)],
    }
    found = {name: [(n, alone(shape, shape.capacity)) for n, shape in points] for name, points in series.items()}
    base = found["steps"][2][1]
    print("\ngrowth, as multiples of 640 coordinates, 128 slots, 4 steps")
    for name, points in found.items():
        print(f"  {name:14} {'prove':>8} {'verify':>8} {'bytes':>12}")
        for n, point in points:
            prove, check = point.prove_s / base.prove_s, point.verify_s / base.verify_s
            print(f"  {n:14,} {prove:8.2f} {check:8.2f} {point.proof_bytes:12,}")
    plot(found)


def plot(found: dict[str, list[tuple[int, Measured]]]) -> None:
    lines = {
        "prove, s": ("o", lambda point: point.prove_s),
        "verify, s": ("s", lambda point: point.verify_s),
        "proof, MB": ("^", lambda point: point.proof_bytes / 1e6),
    }
    growth_plot(PLOT, "Proof of the mechanism, one core", found, lines)


if __name__ == "__main__":
    main()
