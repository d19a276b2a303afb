"""Proofs of released versions keep verifying, by both verifiers, and the prover still makes them to the byte."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proofs import second_verifier
from proofs.proof import ProofInvalid
from proofs.statement import Shape, Statement
from proofs.verifier import verify
from proofs.words import Binding

TESTS = Path(__file__).parents[1]
FOLDER = TESTS / "vectors" / "mechanism-2"
NAMES = sorted(path.stem for path in FOLDER.glob("*.proof"))


def statement_of(name: str) -> Statement:
    told = json.loads((FOLDER / f"{name}.json").read_text())
    chain_id, contract, number, member = told["binding"]
    steps, groups, *sizes = told["shape"]
    return Statement(
        Binding(chain_id, bytes.fromhex(contract), number, member),
        bytes.fromhex(told["context"]),
        bytes.fromhex(told["words_root"]),
        bytes.fromhex(told["data_root"]),
        bytes.fromhex(told["beacon"]),
        Shape(steps, tuple(groups), *sizes),
        np.array(told["group_of"], dtype=np.uint8),
        np.array(told["released"], dtype=np.int32),
    )


def test_there_are_golden_proofs() -> None:
    assert len(NAMES) == 3


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_proof_still_verifies(name: str) -> None:
    verify(statement_of(name), (FOLDER / f"{name}.proof").read_bytes())


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_proof_still_verifies_by_the_second_verifier(name: str) -> None:
    second_verifier.verify(statement_of(name), (FOLDER / f"{name}.proof").read_bytes())


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_proof_verifies_for_its_own_statement_only(name: str) -> None:
    for other in set(NAMES) - {name}:
        with pytest.raises(ProofInvalid):
            verify(statement_of(other), (FOLDER / f"{name}.proof").read_bytes())


@pytest.mark.parametrize("name", NAMES)
def test_the_prover_makes_a_golden_proof_to_the_byte(name: str, make_case: Callable[..., Any]) -> None:
    spec = importlib.util.spec_from_file_location("generator", TESTS / "tools" / "make_golden_proofs.py")
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    case = make_case(*generator.CASES[name], seed=7)
    assert case.prove() == (FOLDER / f"{name}.proof").read_bytes()
