"""The rooms: imports point left only, proofs ← ledger ← node ← devnet, and an auditor never loads a model library.

Read from the syntax trees, so that an import inside a function counts like any other.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("proofs", "ledger", "node", "devnet")
MODELS = {"peft", "opacus", "transformers", "tokenizers", "safetensors", "datasets", "accelerate", "huggingface_hub"}
CHAIN = {"web3", "eth_account", "eth_abi", "eth_utils", "coincurve", "rlp", "trie", "py_ecc", "ipfshttpclient"}
UNSAFE = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "tarfile", "zipfile"}

MAY_IMPORT_OF_THIRD_PARTIES = {"proofs": {"numpy", "mpmath", "torch", "numba", "triton"}}
COMPILED = {"proofs/kernels.py", "proofs/hash_kernels.py"}  # what loads a compiler, but for what a GPU runs
ON_GPU = "proofs/triton_kernels.py"
MUST_NOT_IMPORT = {
    "ledger": MODELS | {"torch"},
    "node": {"web3", "ipfshttpclient"},
    "devnet": {"peft", "opacus", "transformers"},
}
SCRIPTS = {"devnet/tiny/train.py"}  # run by hand to make the shipped model, imported by nobody


def sources(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import; a `from a import b` counts as a.b."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            where = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{where}.{alias.name}") for alias in node.names)


def offences(room: str, forbidden: set[str]) -> list[str]:
    """Imports in a room whose top-level name is forbidden, as file:line name."""
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources(room)
        for line, name in imported(path)
        if name.partition(".")[0] in forbidden and path.relative_to(ROOT).as_posix() not in SCRIPTS
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_itself_and_the_rooms_to_its_left(room: str) -> None:
    assert sources(room), f"{room} has no sources"
    assert offences(room, set(ROOMS[ROOMS.index(room) + 1 :]) | {"tests", "benchmarks", "contracts"}) == []


def test_proofs_rest_on_numbers_alone() -> None:
    known = sys.stdlib_module_names | {"proofs"} | MAY_IMPORT_OF_THIRD_PARTIES["proofs"]
    found = {name.partition(".")[0] for path in sources("proofs") for _, name in imported(path)}
    assert found <= known, f"proofs may not import {sorted(found - known)}"


@pytest.mark.parametrize("room", MUST_NOT_IMPORT)
def test_a_room_leaves_alone_what_belongs_to_another(room: str) -> None:
    """peft, opacus and transformers only in node; web3 and IPFS clients behind the ports of ledger."""
    assert offences(room, MUST_NOT_IMPORT[room]) == []


def test_scripts_are_imported_by_nobody() -> None:
    modules = {name.removesuffix(".py").replace("/", ".") for name in SCRIPTS}
    found = {name for room in ROOMS for path in sources(room) for _, name in imported(path)}
    assert {name for name in found if any(name == m or name.startswith(m + ".") for m in modules)} == set()


def test_proofs_know_no_chain() -> None:
    assert offences("proofs", CHAIN | MODELS) == []


@pytest.mark.parametrize("room", ROOMS)
def test_nothing_that_executes_what_it_reads_is_imported(room: str) -> None:
    """Not even by the dishonest members of devnet: the bytes of a pickle can be written by hand."""
    assert offences(room, UNSAFE) == []


@pytest.mark.parametrize("room", ROOMS)
def test_imports_are_absolute(room: str) -> None:
    relative = [
        f"{path.relative_to(ROOT)}:{line}" for path in sources(room) for line, name in imported(path) if name[0] == "."
    ]
    assert relative == []


@pytest.mark.parametrize("room", ROOMS)
def test_no_check_vanishes_under_python_O(room: str) -> None:
    """`assert` is not a check: it is gone with -O."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources(room)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert)
    ]
    assert found == []


@pytest.mark.parametrize("room", ROOMS)
def test_nothing_evaluates_strings_or_starts_a_shell(room: str) -> None:
    found = []
    for path in sources(room):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = node.func.id if isinstance(node.func, ast.Name) else ""
                shell = any(key.arg == "shell" for key in node.keywords)
                if called in ("eval", "exec", "__import__") or shell:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


def test_auditing_loads_no_model_library() -> None:
    """Seen in a process of its own: what the audit's door loads, transitively, has no torch and nothing of node."""
    program = "import sys, ledger.audit_cli; print('\\n'.join({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert {"ledger", "proofs"} <= set(loaded)
    assert set(loaded) & (MODELS | {"torch", "node", "devnet"}) == set()


def test_a_verifier_needs_numpy_and_nothing_of_the_prover() -> None:
    """Seen in a process of its own: what verifies a proof loads no compiler and no module that makes proofs."""
    program = "import sys, proofs.verifier; print('\\n'.join(sys.modules))"
    loaded = set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )
    assert "proofs.relation" in loaded
    assert {name.partition(".")[0] for name in loaded} & {"numba", "llvmlite", "torch", "scipy"} == set()
    assert (
        loaded & {f"proofs.{name}" for name in ("prover", "witness", "commitment", "kernels", "hash_kernels")} == set()
    )


def test_kernels_alone_load_a_compiler() -> None:
    found = {
        path.relative_to(ROOT).as_posix() for path in sources("proofs") for _, name in imported(path) if "numba" in name
    }
    assert found == COMPILED


def test_one_module_alone_loads_triton_and_one_alone_that_module() -> None:
    named = [(path, name) for path in sources("proofs") for _, name in imported(path) if "triton" in name]
    found = {path.relative_to(ROOT).as_posix() for path, _ in named}
    assert found == {"proofs/kernels.py", ON_GPU}  # the first inside a function, where there is a GPU


def test_tests_do_not_import_each_other() -> None:
    """Each test file stands alone; what they share is a fixture."""
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()} - set(ROOMS)
    names = {path.stem for path in (ROOT / "tests").rglob("test_*.py")} | {"tests", "conftest"}
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for line, name in imported(path)
        if name.partition(".")[0] in names or (name[0] == "." and folders)
    ]
    assert found == []
