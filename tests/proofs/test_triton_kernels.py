"""The kernels for a GPU, in Triton's interpreter: the same integers as their twins.

In a process of its own, where Triton is told before it is loaded that there is no GPU (TRITON_INTERPRET=1).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import proofs
from proofs import kernels, torch_kernels
from proofs.field import P

ROOT = Path(__file__).parents[2]
TWIN = """
import sys
import numpy as np
from proofs import triton_kernels as twin
given, found = np.load(sys.argv[1]), {}
for name in given["names"]:
    of = [given[f"{name} {i}"] for i in range(int(given[f"{name} count"]))]
    called = getattr(twin, str(name).partition(" ")[0])
    found[str(name)] = called(*of[:-1], int(of[-1])) if of[-1].ndim == 0 else called(*of)
np.savez(sys.argv[2], **found)
"""
PROVER = """
import sys
from pathlib import Path
from benchmarks.cases import mechanism_case
from proofs import kernels, triton_kernels
from proofs.statement import Shape
triton_kernels.BLOCK = 1 << 16  # the interpreter is slow by program, not by element
kernels._on_gpu, kernels._gpu = lambda: True, lambda: triton_kernels
Path(sys.argv[1]).write_bytes(mechanism_case(Shape(2, (5, 3), 16, 16, 64, 100, 1 << 31, 6), 11).prove())
"""
RNG = np.random.default_rng(8)


def rows(count: int, size: int) -> kernels.Rows:
    values = RNG.integers(0, P, (count, size)).astype(np.uint32)
    values[:, :1] = P - 1
    return values


def wide(count: int, size: int) -> Any:
    return rows(count, size).astype(np.uint64)


CASES: dict[str, tuple[Any, ...]] = {
    "encode no rows": (rows(0, 8), np.array(8)),
    "encode the shortest": (rows(1, 2), np.array(2)),
    "encode": (rows(70, 64), np.array(4)),
    "combine nothing": (rows(0, 30), wide(0, 4)),
    "combine": (rows(40, 300), wide(40, 4)),
    "square_sums": (rows(50, 41),),
    "square_sums of a part": (rows(50, 41)[:, 3:20],),
    "sum_products": (rows(300, 20), rows(300, 20), wide(20, 4)),
    "row_products": (rows(300, 4 * 13), rows(300, 13)),
    "together": (rows(60, 7 * 16), wide(16, 4), wide(1, 4)[0]),
}


def interpreted(program: str, *arguments: Path) -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What Triton's kernels make of all cases."""
    folder = tmp_path_factory.mktemp("triton")
    given = {f"{name} {i}": part for name, parts in CASES.items() for i, part in enumerate(parts)}
    given |= {f"{name} count": np.array(len(parts)) for name, parts in CASES.items()}
    np.savez(folder / "given.npz", names=np.array(list(CASES)), **given)
    interpreted(TWIN, folder / "given.npz", folder / "found.npz")
    return np.load(folder / "found.npz")


@pytest.mark.parametrize("name", CASES)
def test_the_gpus_integers_are_those_of_the_cpu(name: str, found: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_on_gpu", lambda: False)
    called = getattr(kernels, name.partition(" ")[0])
    *parts, last = CASES[name]
    expected = called(*parts, int(last)) if last.ndim == 0 else called(*parts, last)
    assert found[name].dtype == expected.dtype
    assert np.array_equal(found[name], expected)


@pytest.mark.long
def test_a_proof_made_with_triton_is_the_same_to_the_byte(small_proof: bytes, tmp_path: Path) -> None:
    interpreted(PROVER, tmp_path / "proof")
    assert (tmp_path / "proof").read_bytes() == small_proof


@pytest.mark.parametrize("installed", [True, False])
def test_a_gpu_is_served_by_triton_where_it_is_installed(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    triton = object()  # in the place of the module, which is not loaded here
    monkeypatch.setattr(proofs, "triton_kernels", triton, raising=False)
    monkeypatch.setattr(kernels, "find_spec", lambda name: object() if installed and name == "triton" else None)
    assert kernels._gpu() is (triton if installed else torch_kernels)


def test_nothing_loads_triton_on_a_machine_without_a_gpu() -> None:
    program = "import sys, proofs.prover, proofs.circuit.prover; print('\\n'.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "proofs.kernels" in loaded
    assert {name.partition(".")[0] for name in loaded} & {"triton", "torch"} == set()
