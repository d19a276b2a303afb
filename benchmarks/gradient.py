"""Proofs of statement G on the demos' models: `python -m benchmarks.gradient [tiny] [minilm]`.

One slot in use of a real round: seconds of prover and verifier beside the float gradient of the same row (torch, one
thread), bytes, cells, peak memory of this process. And growth with tokens, by the cells of the circuit alone.
"""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from devnet import notes
from devnet.presets import PRESETS, Preset, make_config
from ledger.base_program import Base
from ledger.records import Policy
from node.data import Dataset, row_bytes
from node.gradients import PerExampleGradients
from node.model import attach, load_base
from node.training import TrainingJob, train
from proofs.circuit.layout import Layout
from proofs.gradient.claim import GradientStatement, claim_circuit, claim_layout
from proofs.gradient.program import Program
from proofs.gradient.prover import prove
from proofs.gradient.verifier import verify
from proofs.prover import data_and_slots, data_root, words_root
from proofs.statement import Shape, Statement
from proofs.texts import Texts
from proofs.words import Binding, SecretWords

BEACON = b"\5" * 32
TOKENS = {"tiny": (16, 32, 64, 128), "minilm": (16, 40, 64)}
MEASURED = {"tiny": 64, "minilm": 40}  # tokens: as long as the demos' texts get, or are cut
TOLERANCE = 8


@dataclass(frozen=True)
class Round:
    """One member's round, and what a proof about it needs."""

    program: Program
    statement: Statement
    slots_root: bytes
    words: SecretWords
    texts: Texts
    contributions: tuple[np.ndarray, ...]
    float_seconds: float

    @property
    def shape(self) -> Shape:
        return self.statement.shape

    def claim(self, slot: int) -> GradientStatement:
        return GradientStatement(self.statement, self.slots_root, BEACON, 0, slot, TOLERANCE)

    def layout(self) -> Layout:
        return claim_layout(claim_circuit(self.claim(0), self.program), self.shape)


def main() -> None:
    torch.set_num_threads(1)
    for name in sys.argv[1:] or list(MEASURED):
        preset = PRESETS[name]
        measured(round_of(replace(preset, max_tokens=MEASURED[name])), name)
        for tokens in TOKENS[name]:
            layout = sized(replace(preset, max_tokens=tokens))
            print(f"  {tokens:4} tokens: {cells(layout) / 1e6:6.2f} M cells, {layout.largest_bytes:,} bytes at most")


def measured(found: Round, name: str) -> None:
    layout = found.layout()
    print(f"{name}: {found.shape.tokens} places, k = {layout.row}, {cells(layout) / 1e6:.2f} M cells")
    start = time.perf_counter()
    proof = prove(found.claim(0), found.program, found.words, found.texts, found.contributions)
    proven = time.perf_counter()
    verify(found.claim(0), found.program, proof)
    checked = time.perf_counter()
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"  prove {proven - start:.1f} s, verify {checked - proven:.2f} s, {len(proof):,} bytes, {used:.1f} GB at most"
    )
    print(f"  {cells(layout) / (proven - start) / 1e6:.2f} M cells a second; {layout.bits:.1f} bits")
    print(f"  the float gradient of one row takes {found.float_seconds * 1000:.0f} ms")


def cells(layout: Layout) -> int:
    return sum(layout.rows(group) * group.width for group in layout.groups) * layout.lanes


def sized(preset: Preset) -> Layout:
    """Without training anything."""
    config, weights = make_config(preset, epsilon=preset.epsilon, rounds=preset.rounds, policy=_policy())
    shape = replace(config.shape, openings=1)
    program = Base.open(load_base(preset.base_path).path).program(config, weights)
    nothing = bytes(32)
    group_of = np.repeat(np.arange(len(shape.groups), dtype=np.uint8), shape.groups)
    released = np.zeros((shape.steps, shape.parameters), dtype=np.int32)
    binding = Binding(1, bytes(20), 1, 0)
    statement = Statement(binding, nothing, nothing, nothing, nothing, shape, group_of, released)
    claim = GradientStatement(statement, nothing, nothing, 0, 0, TOLERANCE)
    return claim_layout(claim_circuit(claim, program), shape)


def round_of(preset: Preset) -> Round:
    """A member's first round on its notes, as a node trains it."""
    config, weights = make_config(preset, epsilon=preset.epsilon, rounds=preset.rounds, policy=_policy())
    base = load_base(preset.base_path)
    model = attach(base, config)
    model.load_weights(weights)
    lot = notes.members(1, preset.rows, 41)[0]
    labels = [notes.LABELS.index(note.label) for note in lot]
    data = Dataset([row_bytes(note.text, note.label) for note in lot], [note.text for note in lot], labels)
    binding = Binding(31337, bytes(20), 1, 0)
    words = SecretWords(b"\7" * 32, binding, config.steps, config.adapter.parameters, config.privacy.capacity)
    trained = train(TrainingJob(config, model, data, weights, words, BEACON, binding), lambda *_: None)
    shape = replace(config.shape, openings=1)
    texts = Texts.of(model.encode(data.texts), labels, shape.tokens)
    group_of = np.zeros(shape.parameters, dtype=np.uint8)
    for number, columns in enumerate(config.groups.values()):
        group_of[columns] = number
    roots = words_root(words, shape), data_root(words, shape, texts)
    statement = Statement(binding, bytes(32), *roots, BEACON, shape, group_of, trained.released)
    contributions = tuple(trained.contributions)
    _, slots = data_and_slots(statement, words, texts, contributions)
    program = Base.open(base.path).program(config, weights)
    gradients, ids = PerExampleGradients(model), model.encode(data.texts[:1])
    gradients.fill(ids, labels[:1])
    start = time.perf_counter()
    gradients.fill(ids, labels[:1])
    seconds = time.perf_counter() - start
    return Round(program, statement, slots.root, words, texts, contributions, seconds)


def _policy() -> Policy:
    return Policy(1, 1, 1, 1, 1, 1, 1, False, 1)


if __name__ == "__main__":
    main()
