"""Side by side with ezkl on what both can express: `make bench-ezkl`.

Two relations. Norms: n hidden vectors of d integers add up to a public vector, and none is longer than C. ezkl (Halo 2
with KZG) proves just that; Candor's proof has it inside, and beside it noise, words, sampling and the binding to a
round. Integers at scale 0, so that ezkl is exact. LoRA: one layer forward and backward (benchmarks.lora), hidden
activations and targets of T tokens, public matrices and results; ezkl with 7 fraction bits, Candor with 10 to 14. Ours
has 100 bits and no trusted setup; its proofs are much longer.

CPU seconds of all threads. ezkl lives in an environment of its own, whose Python is given; this file is run there with
the word `ezkl` first.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZES = {"norms": ((16, 64), (32, 128), (64, 256)), "lora": ((8, 16, 4), (16, 32, 4), (32, 64, 4))}
TOLD = {
    "norms": "n vectors of d integers: their sum is public, no norm is above the clip",
    "lora": "a LoRA layer, forward and backward: T × d, rank",
}
CLIP, SCALE = 64, 7


def main(python: str | None = None, *relations: str) -> None:
    if python is None or not Path(python).exists():
        print("ezkl: NOT MEASURED, no environment with it was given (make bench-ezkl makes one)")
        return
    for relation in relations or tuple(SIZES):
        print(f"{TOLD[relation]}; CPU seconds, one run")
        print(f"{'':>14} {'':8} {'setup':>8} {'prove':>8} {'verify':>8} {'proof bytes':>12} {'memory GB':>10}")
        for sizes in SIZES[relation]:
            compare(python, relation, [str(size) for size in sizes])


def compare(python: str, relation: str, sizes: list[str]) -> None:
    other = _run([python, __file__, "ezkl", relation, *sizes])
    ours = _run([sys.executable, "-m", "benchmarks.against_ezkl", "candor", relation, *sizes])
    for name, found in (("ezkl", other), ("candor", ours)):
        times = f"{found['setup_s']:8.2f} {found['prove_s']:8.2f} {found['verify_s']:8.3f}"
        said = f"{found['proof_bytes']:12,} {found['memory_bytes'] / 1e9:10.2f}"
        print(f"{' × '.join(sizes):>14} {name:8} {times} {said}", flush=True)
    prove, verify = (other[step] / ours[step] for step in ("prove_s", "verify_s"))
    print(
        f"{'':14} proving {prove:.0f} ×, verifying {verify:.2f} × as fast; setup: none against {other['setup_s']:.1f} s"
    )


def _run(command: list[str]) -> dict[str, float]:
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _report(setup_s: float, prove_s: float, verify_s: float, proof_bytes: int) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {"setup_s": setup_s, "prove_s": prove_s, "verify_s": verify_s, "proof_bytes": proof_bytes}
    print(json.dumps(found | {"memory_bytes": peak}))


def candor_norms(n: int, d: int) -> None:
    """One step in which all of n rows are drawn; the second proof is timed, when the kernels are loaded."""
    from benchmarks.cases import mechanism_case
    from proofs.statement import Shape
    from proofs.verifier import verify

    case = mechanism_case(Shape(1, (d,), n, n, CLIP, 100, 1 << 32, 4), n)
    case.prove()
    began = time.process_time()
    proof = case.prove()
    proven = time.process_time()
    verify(case.statement, proof)
    _report(0.0, proven - began, time.process_time() - proven, len(proof))


def candor_lora(tokens: int, width: int, rank: int) -> None:
    from benchmarks.lora import measured

    found = measured(tokens, width, rank)
    _report(0.0, found.prove_s, found.verify_s, found.proof_bytes)


def ezkl_norms(n: int, d: int) -> None:
    import numpy as np
    import torch

    class Relation(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x.sum(0), torch.relu((x * x).sum(1) - float(CLIP * CLIP))

    vectors = np.random.default_rng(0).normal(size=(n, d))
    vectors *= (CLIP / np.linalg.norm(vectors, axis=1))[:, None]
    _ezkl(Relation(), [torch.tensor(np.trunc(vectors)).float()], 0)


def ezkl_lora(tokens: int, width: int, rank: int) -> None:
    import torch

    torch.manual_seed(0)

    class Relation(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = torch.nn.Parameter(torch.randn(width, width) / width**0.5)
            self.a = torch.nn.Parameter(torch.randn(rank, width) / width**0.5)
            self.b = torch.nn.Parameter(torch.randn(width, rank) / rank**0.5)

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, ...]:
            low = x @ self.a.T
            gradient = x @ self.base.T + low @ self.b.T - t
            through = gradient @ self.b
            return through.T @ x, gradient.T @ low, gradient @ self.base + through @ self.a

    _ezkl(Relation(), [torch.randn(tokens, width), torch.randn(tokens, width)], SCALE)


def _ezkl(relation: Any, inputs: list[Any], scale: int) -> None:
    import ezkl as tool  # type: ignore[import-not-found]
    import torch

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        torch.onnx.export(relation, tuple(inputs), "relation.onnx", opset_version=13, dynamo=False)
        Path("input.json").write_text(json.dumps({"input_data": [x.flatten().tolist() for x in inputs]}))
        _report(*_proven(tool, scale))


def _proven(tool: Any, scale: int) -> tuple[float, float, float, int]:
    arguments = tool.PyRunArgs()
    arguments.input_visibility, arguments.output_visibility, arguments.param_visibility = "private", "public", "fixed"
    arguments.input_scale = arguments.param_scale = scale
    began = time.process_time()
    tool.gen_settings("relation.onnx", "settings.json", py_run_args=arguments)
    tool.calibrate_settings("input.json", "relation.onnx", "settings.json", "resources", scales=[scale])
    tool.compile_circuit("relation.onnx", "circuit", "settings.json")
    tool.gen_srs("srs", json.loads(Path("settings.json").read_text())["run_args"]["logrows"])
    tool.setup("circuit", "vk", "pk", "srs")
    ready = time.process_time()
    tool.gen_witness("input.json", "circuit", "witness.json")
    tool.prove("witness.json", "circuit", "pk", "proof.json", "srs")
    proven = time.process_time()
    if not tool.verify("proof.json", "settings.json", "vk", "srs"):
        raise SystemExit("ezkl does not accept its own proof")
    verified = time.process_time()
    proof = json.loads(Path("proof.json").read_text())["proof"]
    size = len(proof) if isinstance(proof, list) else len(proof) // 2 - 1
    return ready - began, proven - ready, verified - proven, size


MEASURES: dict[tuple[str, str], Callable[..., None]] = {
    ("candor", "norms"): candor_norms,
    ("candor", "lora"): candor_lora,
    ("ezkl", "norms"): ezkl_norms,
    ("ezkl", "lora"): ezkl_lora,
}

if __name__ == "__main__":
    match sys.argv[1:]:
        case [("candor" | "ezkl") as who, relation, *sizes]:
            MEASURES[who, relation](*map(int, sizes))
        case [python, *relations]:
            main(python, *relations)
        case _:
            main()
