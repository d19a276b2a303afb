"""The circuit of H computes what H computes, number for number, and tells nothing of the text by its shape."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ledger.base_program import Base
from node.model import LoadedModel
from proofs.circuit.builder import Circuit, ValueRefused
from proofs.circuit.layout import layout_of
from proofs.gradient.circuit_model import contribution
from proofs.gradient.circuit_text import cells_of, example
from proofs.gradient.numbers import OutOfRange
from proofs.gradient.program import Program
from proofs.gradient.transformer import contribute

PLACES = 14
MODELS = [(kind, rule) for kind in ("bert", "llama") for rule in ("fedavg", "ffa")]

Build = Callable[..., LoadedModel]


def program_of(model: LoadedModel) -> Program:
    grid = 2**model.config.weight_bits
    weights = {
        name: np.rint(one.detach().numpy().astype(np.float64) * grid).astype(np.int64)
        for name, one in model.parameters.items()
    }
    return Base.open(model.base.path).program(model.config, weights)


def circuit_of(program: Program, tokens: list[int] | None, label: int = 0) -> tuple[Circuit, np.ndarray | None]:
    """The circuit for a text of at most PLACES tokens, and the clip units that it computes; None: without values."""
    circuit = Circuit(PLACES, tokens is not None)
    units = None if tokens is None else cells_of(tokens, label, PLACES)
    found = contribution(circuit, program, example(circuit, program, circuit.free((PLACES + 2,), 1, units)))
    if tokens is None:
        return circuit, None
    return circuit, np.concatenate([wire.known()[:, 0] for _, wire in found])


@pytest.mark.parametrize(("kind", "rule"), MODELS)
def test_the_circuit_computes_what_h_computes(model_for: Build, texts: list[str], kind: str, rule: str) -> None:
    model = model_for(kind, rule)
    program = program_of(model)
    for number, tokens in enumerate(model.encode(texts)):
        for length in {1, len(tokens) // 2 + 1, min(len(tokens), PLACES)}:
            text, label = tokens[:length], number % 3
            found = circuit_of(program, text, label)[1]
            assert found is not None
            assert np.array_equal(found, contribute(program, text, label)), (kind, rule, length)


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_no_size_depends_on_the_text(model_for: Build, texts: list[str], kind: str) -> None:
    model = model_for(kind, "ffa")
    program, row = program_of(model), 512
    blank = layout_of(circuit_of(program, None)[0], row)
    for label, tokens in enumerate(model.encode(texts)[:3]):
        assert layout_of(circuit_of(program, tokens[:PLACES], label)[0], row) == blank


def test_a_text_or_label_that_the_program_does_not_know_has_no_circuit(model_for: Build) -> None:
    program = program_of(model_for("llama", "ffa"))
    vocabulary = program.embedding.shape[0]
    for tokens, label in (([vocabulary], 0), ([1] * (PLACES + 1), 0), ([], 0), ([1, 2], 99)):
        with pytest.raises((OutOfRange, ValueRefused)):
            circuit_of(program, tokens, label)
