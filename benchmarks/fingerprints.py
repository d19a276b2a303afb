"""How far apart fingerprints are, of the same computation and of others: `python -m benchmarks.fingerprints`.

Two models: the language model of the preset tiny-text answers prompts, MiniLM classifies notes. Each fingerprint is
made as a server makes it, texts answered in one batch, and compared with states computed again

    honestly      alone, in smaller batches, on two threads, with another attention kernel, and in float64 throughout
    otherwise     another model (one layer's matrix drawn again), the bundle of the round before, another prompt (one
                  word, one letter), weights in bfloat16, weights in 8 bits a row, all of it in bfloat16

A false alarm is an honest distance above node.fingerprint.THRESHOLD, a miss one of the others at or below it. Bundles
are trained for two short private rounds on one member's notes. The counts are of whole answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from devnet import notes
from devnet.presets import MINILM, TINY_TEXT, Preset, make_config
from ledger.config import Config
from ledger.log.receipt import Decoding
from ledger.optimizer import replay
from ledger.records import Policy
from ledger.tensors import Weights, flatten, unflatten
from node.data import Dataset
from node.engine import Engine
from node.fingerprint import THRESHOLD, Fingerprint, States, compare
from node.model import LoadedBase, attach, load_base
from node.serving.engine import Job
from node.training import TrainingJob, torch_threads, train
from proofs.words import Binding, SecretWords

POLICY = Policy(1, 1, 1, 1, 1, 1, 1, False, 1)
ANSWERS, TOKENS, TEXTS, BATCH = 48, 64, 100, 16
SHORT = {"steps": 2, "rows": 128, "capacity": 128, "sample_rate": Fraction(1, 4), "mean_batch": 32, "gradient": None}

Engines = Callable[[Weights], Engine]
Asked = tuple[int, ...]


@dataclass(frozen=True)
class Seen:
    """A fingerprint, and what is needed to compute its states again."""

    asked: Asked
    made: Fingerprint


@dataclass(frozen=True)
class Bench:
    """before, now: the weights of two rounds in a row."""

    name: str
    base: LoadedBase
    config: Config
    before: Weights
    now: Weights

    def engine(self, weights: Weights | None = None) -> Engine:
        model = attach(self.base, self.config)
        model.load_weights(self.now if weights is None else weights)
        return Engine(model, bytes(32))


def main() -> None:
    torch.set_num_threads(1)
    print(f"distances; the threshold is {THRESHOLD:g}")
    for preset in (TINY_TEXT, MINILM):
        measure(prepare(preset))


def prepare(preset: Preset) -> Bench:
    """Two private rounds of one member."""
    small = replace(preset, **SHORT)  # type: ignore[arg-type]
    base = load_base(small.base_path)
    config, weights = make_config(small, epsilon=8.0, rounds=2, policy=POLICY, base=base)
    model, lot, rounds = attach(base, config), notes.members(1, small.rows, 7)[0], [weights]
    labels = [config.task.labels.index(note.label) if config.task.labels else 0 for note in lot]
    data = Dataset([b""] * len(lot), [note.text for note in lot], labels)
    for number in (1, 2):
        binding = Binding(1, bytes(20), number, 0)
        words = SecretWords(bytes([number]) * 32, binding, config.steps, config.adapter.parameters, small.capacity)
        job = TrainingJob(config, model, data, rounds[-1], words, bytes(32), binding, "cpu")
        released = train(job, lambda done, steps: None).released
        rounds.append(rounds[-1] | unflatten(config, replay(config, flatten(config, rounds[-1]), released)))
    return Bench(small.name, base, config, rounds[1], rounds[2])


def measure(bench: Bench) -> None:
    engine = bench.engine()
    began = time.perf_counter()
    seen = list(_generated(engine) if engine.task == "next-token" else _classified(engine))
    took = time.perf_counter() - began
    sizes = [len(one.made.encode()) for one in seen]
    positions = sum(len(one.made.tokens) for one in seen)
    spread = (
        f"{positions} tokens, {sum(sizes) / positions:.1f} bytes a token" if positions else f"{sizes[0]} bytes each"
    )
    print(f"\n{bench.name}: {len(seen)} fingerprints, {spread}, made in {took:.0f} s")
    alarms = total = 0
    for name, found in _honest(bench, engine, seen):
        distances = np.array(found)
        alarms, total = alarms + int((distances > THRESHOLD).sum()), total + len(distances)
        print(f"  honest     {name:34} largest {distances.max():.1e}   {int((distances > THRESHOLD).sum())} alarms")
    print(f"  false alarms: {alarms} of {total}")
    misses = total = 0
    for name, found in _otherwise(bench, seen):
        distances = np.array(found)
        missed, middle = int((distances <= THRESHOLD).sum()), np.median(distances)
        misses, total = misses + missed, total + len(distances)
        print(f"  otherwise  {name:34} smallest {distances.min():.1e}  median {middle:.1e}  {missed} misses")
    print(f"  misses: {misses} of {total}")


def _generated(engine: Engine) -> Iterator[Seen]:
    lot = notes.held_out(3, ANSWERS, 7)
    jobs = [
        Job(tuple(engine.encode(note.text[:24])), Decoding(TOKENS, Fraction(7, 10), Fraction(19, 20), 0, seed))
        for seed, note in enumerate(lot)
    ]
    for start in range(0, len(jobs), BATCH):
        part = jobs[start : start + BATCH]
        for job, outcome in zip(part, engine.generate(part, lambda step: None, lambda job: False), strict=True):
            yield Seen(job.tokens, Fingerprint.decode(outcome.fingerprint))


def _classified(engine: Engine) -> Iterator[Seen]:
    texts = [tuple(engine.encode(note.text)) for note in notes.held_out(3, TEXTS, 7)]
    texts = [text for text in texts if len(text) <= engine.max_tokens]
    for start in range(0, len(texts), BATCH):
        part = texts[start : start + BATCH]
        for text, found in zip(part, engine.classify(part), strict=True):
            yield Seen(text, Fingerprint.decode(found.fingerprint))


# ---- the same, computed again


def _honest(bench: Bench, engine: Engine, seen: Sequence[Seen]) -> Iterator[tuple[str, list[float]]]:
    yield "alone", _distances(engine, seen)
    yield "three at a time", _distances(engine, seen, together=3)
    with torch_threads(2):
        yield "alone, two threads", _distances(engine, seen)
    other = bench.engine()
    other.model.module.set_attn_implementation("eager")
    yield "another attention kernel", _distances(other, seen)
    double = bench.engine()
    double.model.module.double()
    yield "in float64", _distances(double, seen)


def _otherwise(bench: Bench, seen: Sequence[Seen]) -> Iterator[tuple[str, list[float]]]:
    yield "the bundle of the round before", _distances(bench.engine(bench.before), seen)
    for name, change in CHANGES.items():
        engine = bench.engine()
        change(engine.model.module)
        yield name, _distances(engine, seen)
    engine = bench.engine()
    yield "one letter of the text is another", _distances(engine, [_edited(engine, one, " ", "-") for one in seen])
    yield "one word more in front", _distances(engine, [_edited(engine, one, "", "Yes ") for one in seen])


def _edited(engine: Engine, one: Seen, old: str, new: str) -> Seen:
    text = engine.model.base.tokenizer.decode(list(one.asked), skip_special_tokens=True)
    return replace(one, asked=tuple(engine.encode(text.replace(old, new, 1))[: engine.max_tokens]))


def _distances(engine: Engine, seen: Sequence[Seen], together: int = 1) -> list[float]:
    return [
        compare(one.made, states)
        for start in range(0, len(seen), together)
        for one, states in zip(
            seen[start : start + together], _states(engine, seen[start : start + together]), strict=True
        )
    ]


def _states(engine: Engine, part: Sequence[Seen]) -> Iterator[States]:
    if engine.task == "classification":
        yield from engine.pooled([one.asked for one in part])[0][:, None]
    elif len(part) == 1:
        yield engine.follow(part[0].asked, part[0].made.tokens)[0]
    else:  # token by token, as a server does, but beside fewer others
        with _dictated([one.made.tokens for one in part]):
            jobs = [Job(one.asked, Decoding(len(one.made.tokens), Fraction(0), Fraction(1), 0, 0)) for one in part]
            runs = [engine._run(number, job) for number, job in enumerate(jobs)]
            engine._all(list(runs), lambda step: None, lambda job: False)
        yield from (np.stack(run.states) for run in runs)


@contextmanager
def _dictated(answers: Sequence[tuple[int, ...]]) -> Iterator[None]:
    """The engine's batch says what it is told to say."""
    import node.engine as module

    real, take = module.choose, module._Run.take
    queues = [list(answer) for answer in answers]

    def follow(self: Any, scores: Any, state: Any, ends: Any) -> Any:
        module.choose = lambda *_: queues[self.number].pop(0)  # type: ignore[assignment]
        return take(self, scores, state, frozenset())

    module._Run.take = follow  # type: ignore[method-assign]
    try:
        yield
    finally:
        module.choose, module._Run.take = real, take  # type: ignore[method-assign]


# ---- others


def _another_matrix(module: Any) -> None:
    """As small a change of the base as there is: one matrix of one layer, drawn again at the same scale."""
    weight = _matrices(module)[-1]
    drawn = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    weight.copy_(drawn * weight.std())


def _bfloat16(module: Any) -> None:
    for weight in _matrices(module):
        weight.copy_(weight.to(torch.bfloat16).float())


def _eight_bits(module: Any) -> None:
    for weight in _matrices(module):
        scale = weight.abs().amax(dim=1, keepdim=True) / 127
        weight.copy_((weight / scale).round() * scale)


def _matrices(module: Any) -> list[torch.Tensor]:
    """Of the base's Linear layers, the output layer left out."""
    return [
        part.weight.data
        for name, part in module.named_modules()
        if isinstance(part, torch.nn.Linear) and "lora_" not in name and "modules_to_save" not in name
        if not name.endswith("lm_head") and "classifier" not in name
    ]


CHANGES: dict[str, Callable[[Any], Any]] = {
    "one matrix of the base is another": _another_matrix,
    "weights in bfloat16": _bfloat16,
    "weights in 8 bits": _eight_bits,
    "all of it in bfloat16": lambda module: module.to(torch.bfloat16),
}


if __name__ == "__main__":
    main()
