"""Proofs of gradients on a base in a folder: which program, which statement, and what another base is good for.

Prover and verifier of statement G are stand-ins here, put where the real ones are imported from.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ledger.base_gradients import _LARGEST, SLACK, BaseGradients, _base, gradient_statement
from ledger.config import Config, GradientSpec
from ledger.gradients import MAX_PROOF_BYTES, Challenge, GradientsUnjudged, Job
from ledger.mechanism import statement_of
from ledger.picks import Pick
from ledger.tensors import Weights
from node.model import genesis
from node.showing import BaseProver
from proofs.gradient.numbers import ProgramRefused
from proofs.gradient.program import Program
from proofs.proof import ProofInvalid

FOLDER = Path(__file__).parents[2] / "devnet" / "tiny" / "model"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Any, ...]]]:
    """What the stand-ins were given. A proof is valid if it says so."""
    calls: list[tuple[Any, ...]] = []

    def verify(statement: Any, program: Program, proof: bytes) -> None:
        calls.append((statement, program, proof))
        if proof != b"valid":
            raise ProofInvalid("says who?")

    def prove(statement: Any, program: Program, *secrets: Any) -> bytes:
        calls.append((statement, program, *secrets))
        return b"valid"

    parts: dict[str, dict[str, Any]] = {
        "claim": {"GradientStatement": SimpleNamespace, "largest_proof": lambda program, shape: 5 * shape.steps},
        "verifier": {"verify": verify},
        "prover": {"prove": prove},
    }
    for name, contents in parts.items():
        module = ModuleType(f"proofs.gradient.{name}")
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    yield calls
    _base.cache_clear()
    _LARGEST.clear()


@pytest.fixture
def config(config_for: Callable[..., Config]) -> Config:
    return config_for("llama")


@pytest.fixture
def weights(config: Config) -> Weights:
    return genesis(config.adapter.tensors, config.weight_bits, "test")


@pytest.fixture
def challenge(config: Config) -> Challenge:
    from ledger.bundle import Claim

    claim = Claim(31337, bytes(20), 1, 2, bytes(32), b"\1" * 32, b"\2" * 32, 5)
    released = np.zeros((config.steps, config.adapter.parameters), np.int32)
    mechanism = statement_of(config, claim, b"\3" * 32, released)
    return Challenge(mechanism, b"\4" * 32, b"\5" * 32, Pick(2, 7), 8)


def test_a_challenge_is_given_on_as_the_statement_says(seen: Any, challenge: Challenge) -> None:
    statement = gradient_statement(challenge)
    assert vars(statement) == {
        "mechanism": challenge.mechanism,
        "slots_root": b"\4" * 32,
        "beacon": b"\5" * 32,
        "step": 2,
        "slot": 7,
        "tolerance": 8,
    }


def test_each_proof_is_verified_on_the_program_at_its_iterate(
    seen: Any, config: Config, weights: Weights, challenge: Challenge
) -> None:
    moved = {name: units + 1 for name, units in weights.items()}
    jobs = [Job(weights, challenge, b"valid"), Job(moved, challenge, b"wrong")]
    first, second = BaseGradients(FOLDER).outcomes(config, jobs)
    assert first is None
    assert isinstance(second, ProofInvalid)
    (_, at_start, _), (_, later, _) = seen
    pairs = [next(x.pair for layer in p.layers for x in layer.linears() if x.pair) for p in (at_start, later)]
    assert np.array_equal(pairs[0].b.units + 1, pairs[1].b.units)
    assert at_start.embedding is later.embedding, "the base is read and quantised once"


def test_the_prover_gets_the_same_statement_and_program_and_the_secrets(
    seen: Any, config: Config, weights: Weights, challenge: Challenge
) -> None:
    secrets: tuple[Any, ...] = ("words", "texts", ["contributions"], print)
    assert BaseProver(FOLDER).prove(config, weights, challenge, *secrets) == b"valid"
    (statement, program, *given) = seen[0]
    assert vars(statement) == vars(gradient_statement(challenge))
    assert isinstance(program, Program)
    assert tuple(given) == secrets


def test_the_largest_proof_is_bounded_whatever_the_base(seen: Any, config: Config, weights: Weights) -> None:
    assert BaseGradients(FOLDER).largest(config, weights) == SLACK * 5 * config.steps
    _LARGEST.clear()
    sys.modules["proofs.gradient.claim"].largest_proof = lambda *_: 1 << 40  # type: ignore[attr-defined]
    assert BaseGradients(FOLDER).largest(config, weights) == MAX_PROOF_BYTES


def test_on_another_base_and_on_none_nothing_is_judged(
    seen: Any, config: Config, weights: Weights, tmp_path: Path
) -> None:
    other = replace(config, base_digest=b"\x11" * 32)
    for folder, asked in ((FOLDER, other), (tmp_path, config)):
        with pytest.raises(GradientsUnjudged, match="proofs of gradients cannot be verified here"):
            BaseGradients(folder).largest(asked, weights)
    assert not seen


def test_a_round_that_no_proof_can_be_made_for_is_nobodys_fault_and_an_iterate_is_its_members(
    seen: Any, config: Config, weights: Weights, challenge: Challenge
) -> None:
    def refuse(*_: Any) -> None:
        raise ProgramRefused("too wide")

    sys.modules["proofs.gradient.verifier"].verify = refuse  # type: ignore[attr-defined]
    sys.modules["proofs.gradient.claim"].largest_proof = refuse  # type: ignore[attr-defined]
    (outcome,) = BaseGradients(FOLDER).outcomes(config, [Job(weights, challenge, b"valid")])
    assert isinstance(outcome, ProofInvalid)
    assert "no program at this iterate: too wide" in str(outcome)
    with pytest.raises(GradientsUnjudged, match="too wide"):
        BaseGradients(FOLDER).largest(config, weights)


def test_a_verifier_goes_to_another_process_as_the_name_of_a_folder() -> None:
    assert pickle.loads(pickle.dumps(BaseGradients(FOLDER))) == BaseGradients(FOLDER)
    assert len(pickle.dumps(BaseGradients(FOLDER))) < 400


def test_the_doctor_says_how_large_the_proofs_of_picked_slots_will_be(
    seen: Any, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    import node.doctor

    monkeypatch.setattr(node.doctor, "load_prover", lambda: None)
    policy = replace(config.policy, prove_blocks=5, proof_required=True)
    asked = replace(config, proof_policy="gradient", gradient=GradientSpec(4, 8), policy=policy)
    trainer = SimpleNamespace(base=lambda: SimpleNamespace(path=FOLDER))
    told = node.doctor._proof(SimpleNamespace(config=asked, trainer=trainer))  # type: ignore[arg-type]
    assert told.endswith("and for each of 4 picked slots one of at most 30 bytes")
