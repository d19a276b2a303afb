"""Side by side with ezkl on what both can express: `make bench-ezkl`.

The relation: n hidden vectors of d integers add up to a public vector, and none is longer than C. ezkl (Halo 2 with
KZG) proves just that. Candor's proof has it inside, and beside it noise, words, sampling and the binding to a round: it
proves more, with 100 bits and without a trusted setup; its proofs are much longer. Integers at scale 0, so that ezkl is
exact.

ezkl lives in an environment of its own, whose Python is given; this file is run there with the word `ezkl` first.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIZES = ((16, 64), (32, 128), (64, 256))
CLIP = 64


def main(python: str | None = None) -> None:
    if python is None or not Path(python).exists():
        print("ezkl: NOT MEASURED, no environment with it was given (make bench-ezkl makes one)")
        return
    print("n vectors of d integers: their sum is public, no norm is above the clip; seconds, one run")
    print(f"{'n × d':>10} {'':8} {'setup':>8} {'prove':>8} {'verify':>8} {'proof bytes':>12} {'memory GB':>10}")
    for n, d in SIZES:
        other = _run([python, __file__, "ezkl", str(n), str(d)])
        ours = _run([sys.executable, "-m", "benchmarks.against_ezkl", "candor", str(n), str(d)])
        for name, found in (("ezkl", other), ("candor", ours)):
            times = f"{found['setup_s']:8.2f} {found['prove_s']:8.2f} {found['verify_s']:8.3f}"
            print(f"{f'{n} × {d}':>10} {name:8} {times} {found['proof_bytes']:12,} {found['memory_bytes'] / 1e9:10.2f}")
        ratio = other["prove_s"] / ours["prove_s"]
        print(f"{'':10} proving: {ratio:.0f} × as fast; setup: none against {other['setup_s']:.1f} s")


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


def candor(n: int, d: int) -> None:
    """One step in which all of n rows are drawn; the second proof is timed, when the kernels are loaded."""
    from benchmarks.cases import mechanism_case
    from proofs.statement import Shape
    from proofs.verifier import verify

    case = mechanism_case(Shape(1, (d,), n, n, CLIP, 100, 1 << 32, 4), n)
    case.prove()
    began = time.perf_counter()
    proof = case.prove()
    proven = time.perf_counter()
    verify(case.statement, proof)
    _report(0.0, proven - began, time.perf_counter() - proven, len(proof))


def ezkl(n: int, d: int) -> None:
    import ezkl as tool  # type: ignore[import-not-found]
    import numpy as np
    import torch

    class Relation(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x.sum(0), torch.relu((x * x).sum(1) - float(CLIP * CLIP))

    vectors = np.random.default_rng(0).normal(size=(n, d))
    vectors *= (CLIP / np.linalg.norm(vectors, axis=1))[:, None]
    x = torch.tensor(np.trunc(vectors)).float()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        torch.onnx.export(Relation(), (x,), "relation.onnx", opset_version=13, dynamo=False)
        Path("input.json").write_text(json.dumps({"input_data": [x.flatten().tolist()]}))
        _report(*_ezkl(tool))


def _ezkl(tool: Any) -> tuple[float, float, float, int]:
    arguments = tool.PyRunArgs()
    arguments.input_visibility, arguments.output_visibility, arguments.param_visibility = "private", "public", "fixed"
    arguments.input_scale = arguments.param_scale = 0
    began = time.perf_counter()
    tool.gen_settings("relation.onnx", "settings.json", py_run_args=arguments)
    tool.calibrate_settings("input.json", "relation.onnx", "settings.json", "resources", scales=[0])
    tool.compile_circuit("relation.onnx", "circuit", "settings.json")
    tool.gen_srs("srs", json.loads(Path("settings.json").read_text())["run_args"]["logrows"])
    tool.setup("circuit", "vk", "pk", "srs")
    ready = time.perf_counter()
    tool.gen_witness("input.json", "circuit", "witness.json")
    tool.prove("witness.json", "circuit", "pk", "proof.json", "srs")
    proven = time.perf_counter()
    if not tool.verify("proof.json", "settings.json", "vk", "srs"):
        raise SystemExit("ezkl does not accept its own proof")
    verified = time.perf_counter()
    proof = json.loads(Path("proof.json").read_text())["proof"]
    size = len(proof) if isinstance(proof, list) else len(proof) // 2 - 1
    return ready - began, proven - ready, verified - proven, size


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["candor", n, d]:
            candor(int(n), int(d))
        case ["ezkl", n, d]:
            ezkl(int(n), int(d))
        case [python]:
            main(python)
        case _:
            main()
