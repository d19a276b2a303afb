"""Small circuits of statement G, and what both verifiers of circuits say of their proofs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from ledger.base_program import Base
from node.grid_optimizer import groups
from node.model import LoadedModel
from proofs.circuit import second_verifier
from proofs.errors import PeerFault
from proofs.gaussian import noise_table
from proofs.gradient import prover, verifier
from proofs.gradient.claim import PROTOCOL, GradientStatement, claim_circuit
from proofs.gradient.program import Program
from proofs.gradient.transformer import contribute
from proofs.mechanism import release, selected_rows, to_grid
from proofs.parameters import DATA, SLOTS, parameters
from proofs.proof import OpeningInvalid, ProofMalformed
from proofs.prover import data_and_slots, data_root
from proofs.statement import Shape, Statement
from proofs.texts import Texts
from proofs.words import Binding, SecretWords, combine, public_draws, public_noise

Build = Callable[..., LoadedModel]


@dataclass(frozen=True, eq=False)
class Case:
    statement: GradientStatement
    program: Program
    words: SecretWords
    texts: Texts
    contributions: tuple[np.ndarray, ...]

    def prove(self) -> bytes:
        return prover.prove(self.statement, self.program, self.words, self.texts, self.contributions)

    def verdicts(self, data: bytes, **changed: Any) -> tuple[type[Exception] | None, type[Exception] | None]:
        statement = replace(self.statement, **changed)
        mechanism = statement.mechanism
        sizes = parameters(mechanism.shape)

        def first() -> None:
            verifier.verify(statement, self.program, data)

        def second() -> None:
            second_verifier.verify(
                statement.digest(self.program),
                claim_circuit(statement, self.program),
                sizes.row,
                [sizes.trees[DATA], sizes.trees[SLOTS]],
                [mechanism.data_root, statement.slots_root],
                data,
                PROTOCOL,
            )

        return said(first), said(second)


def said(verify: Callable[[], None]) -> type[Exception] | None:
    try:
        verify()
    except PeerFault as error:
        return type(error)
    return None


def case_of(model: LoadedModel, ids: list[list[int]], labels: list[int], tokens: int) -> Case:
    """One step, in which both rows are drawn; the proof is about the second."""
    grid = 2**model.config.weight_bits
    weights = {
        name: np.rint(one.detach().numpy().astype(np.float64) * grid).astype(np.int64)
        for name, one in model.parameters.items()
    }
    program = Base.open(model.base.path).program(model.config, weights)
    found = [contribute(program, text, label) for text, label in zip(ids, labels, strict=True)]
    privacy, group_of = model.config.privacy, np.zeros(len(found[0]), dtype=np.uint8)
    exact = np.stack(found).astype(np.float64)
    short = np.zeros(exact.shape, dtype=np.int32)
    for group, (columns, _) in enumerate(groups(model.config)):
        group_of[columns] = group
        short[:, columns] = to_grid(np.ascontiguousarray(exact[:, columns]), 1.0, privacy.clip_units)
    sizes = tuple(np.bincount(group_of).tolist())
    shape = Shape(1, sizes, 4, 4, privacy.clip_units, privacy.noise_units, 1 << 32, tokens, 1)
    binding, beacon = Binding(31337, b"\2" * 20, 1, 0), b"\3" * 32
    words = SecretWords(b"\5" * 32, binding, 1, shape.parameters, shape.capacity)
    texts = Texts.of(ids, labels, tokens)
    drawn = combine(words.draws(0), public_draws(beacon, binding, 0, shape.capacity))
    assert selected_rows(drawn, shape.sample_threshold, len(texts)).tolist() == [0, 1]
    noise_words = combine(words.noise(0), public_noise(beacon, binding, 0, shape.parameters))
    released = np.array([release(short, noise_table(shape.sigma_units).lookup(noise_words))])
    root = data_root(words, shape, texts)
    mechanism = Statement(binding, b"\4" * 32, bytes(32), root, beacon, shape, group_of, released)
    _, slots = data_and_slots(mechanism, words, texts, (short,))
    statement = GradientStatement(mechanism, slots.root, b"\6" * 32, 0, 1, 4)
    return Case(statement, program, words, texts, (short,))


@pytest.fixture(scope="module", params=["llama", "bert", "language"])
def case(request: pytest.FixtureRequest, model_for: Build) -> Case:
    return case_of(model_for(request.param), [[2, 5], [4, 7, 3]], [1, 2], 3)


@pytest.fixture(scope="module")
def made(case: Case) -> bytes:
    return case.prove()


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_both_say_the_same(case: Case, made: bytes) -> None:
    """Of an honest proof, of one of another statement, of altered bytes."""
    assert case.verdicts(made) == (None, None)
    for changed in ({"slot": 0}, {"tolerance": 5}, {"beacon": bytes(32)}, {"slots_root": bytes(32)}):
        found = case.verdicts(made, **changed)
        assert found[0] == found[1]
        assert found[0] in (ProofMalformed, OpeningInvalid)
    for at in np.linspace(0, len(made) - 1, 40, dtype=int).tolist():
        found = case.verdicts(made[:at] + bytes([made[at] ^ 1]) + made[at + 1 :])
        assert found[0] == found[1]
        assert found[0] in (ProofMalformed, OpeningInvalid)
