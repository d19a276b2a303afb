"""Proofs of statement G: `python -m benchmarks.gradient [tiny] [minilm] [growth]`.

One slot in use of a real round of each preset: processor seconds of prover and verifier beside the float gradient of
the same row (torch), all on one thread, bytes, and the peak memory of a process that has done nothing else. Then the
growth with tokens, width and depth of a Llama like that of `tiny`, as a table and as benchmarks/gradient_growth.png.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaModel

from benchmarks.gradient_measured import BEACON, Measured, Round, alone
from benchmarks.plots import growth_plot
from devnet import notes
from devnet.presets import MINILM, TINY, Preset, make_config
from ledger.base_program import Base
from ledger.records import Policy
from node.data import Dataset, row_bytes
from node.gradients import PerExampleGradients
from node.model import attach, load_base
from node.training import TrainingJob, train
from proofs.prover import data_and_slots, data_root, words_root
from proofs.statement import Statement
from proofs.texts import Texts
from proofs.words import Binding, SecretWords

PLOT = Path(__file__).parent / "gradient_growth.png"
GROWTH: dict[str, list[dict[str, int]]] = {
    "tokens": [{"tokens": n} for n in (16, 32, 64)],
    "width": [{"width": n} for n in (32, 64, 128)],
    "layers": [{"layers": n} for n in (1, 2, 4)],
}
LIKE_TINY = {"tokens": 64, "width": 64, "layers": 2}


def main() -> None:
    torch.set_num_threads(1)
    chosen = sys.argv[1:] if __name__ == "__main__" else []
    for preset in (TINY, MINILM):
        if not chosen or preset.name in chosen:
            of_preset(preset)
    if not chosen or "growth" in chosen:
        growth()


def of_preset(preset: Preset) -> None:
    found = alone(round_of(preset))
    print(f"\n{preset.name}: {preset.max_tokens} places, rows of {found.row}, {found.cells / 1e6:.2f} M cells")
    print(f"  float gradient of one row        1.00   ({1000 * found.float_s:.0f} ms)")
    print(f"  proving it, the first        {found.prove_s / found.float_s:8.0f}   ({found.prove_s:.1f} s)")
    print(f"  one more of that round       {found.again_s / found.float_s:8.0f}   ({found.again_s:.1f} s)")
    print(f"  verifying it                 {found.verify_s / found.float_s:8.0f}   ({1000 * found.verify_s:.0f} ms)")
    print(f"  proof                            {found.proof_bytes:,} bytes, {found.bits:.1f} bits")
    print(f"  peak memory                      {found.memory_bytes / 2**30:.2f} GiB, proving")
    print(f"  cells                            {found.cells / found.again_s / 1e6:.2f} million a second")


def growth() -> None:
    known: dict[tuple[int, ...], Measured] = {}
    found: dict[str, list[tuple[int, Measured]]] = {}
    for name, points in GROWTH.items():
        found[name] = []
        for point in points:
            sizes = LIKE_TINY | point
            key = tuple(sizes.values())
            known[key] = known.get(key) or llama(**sizes)
            found[name].append((sizes[name], known[key]))
    print("\ngrowth: seconds beside those of the float gradient of the same row")
    for name, measurements in found.items():
        print(f"  {name:8} {'float':>9} {'prove':>9} {'verify':>9} {'bytes':>12} {'memory':>10} {'M cells':>8}")
        for n, one in measurements:
            told = f"{1000 * one.float_s:6.1f} ms {one.prove_s:7.2f} s {1000 * one.verify_s:6.0f} ms"
            memory = f"{one.memory_bytes / 2**30:6.2f} GiB"
            print(f"  {n:8} {told} {one.proof_bytes:12,} {memory} {one.cells / 1e6:8.2f}")
    plot(found)


def llama(tokens: int, width: int, layers: int) -> Measured:
    """Random weights, with the tokenizer of `tiny`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in Path(TINY.base_path).glob("tokenizer*"):
            shutil.copy(file, folder)
        like: dict[str, Any] = json.loads((Path(TINY.base_path) / "config.json").read_text(encoding="utf-8"))
        sizes = {"hidden_size": width, "intermediate_size": 11 * width // 4, "num_hidden_layers": layers}
        sizes |= {"num_attention_heads": width // 16, "num_key_value_heads": width // 16, "head_dim": 16}
        torch.manual_seed(5)
        model = LlamaModel(LlamaConfig(**{**like, **sizes}))
        with torch.no_grad():
            model.embed_tokens.weight *= 10  # as long as trained ones: H has no room for the roots of less
        model.save_pretrained(folder)
        found = round_of(replace(TINY, base_path=str(folder), max_tokens=tokens, rows=64, capacity=64, mean_batch=16))
    return alone(found)


def plot(found: dict[str, list[tuple[int, Measured]]]) -> None:
    lines = {
        "prove, s": ("o", lambda point: point.prove_s),
        "verify, s": ("s", lambda point: point.verify_s),
        "float gradient, s": ("x", lambda point: point.float_s),
        "proof, MB": ("^", lambda point: point.proof_bytes / 1e6),
        "memory, GiB": ("d", lambda point: point.memory_bytes / 2**30),
    }
    growth_plot(PLOT, "Proof of one example's gradient, one core", found, lines)


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
    gradients, ids, seconds = PerExampleGradients(model), model.encode(data.texts[:1]), list[float]()
    for _ in range(5):
        start = time.process_time()
        gradients.fill(ids, labels[:1])
        seconds.append(time.process_time() - start)
    return Round(program, statement, slots.root, words, texts, contributions, statistics.median(seconds))


def _policy() -> Policy:
    return Policy(1, 1, 1, 1, 1, 1, 1, False, 1)


if __name__ == "__main__":
    main()
