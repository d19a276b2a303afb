"""How good what is FINAL is on held-out notes: fetched by digest through the gateways, as a stranger would.

Accuracy where notes have labels; bits per byte where their tokens are predicted. One model in one background thread;
the federation goes on meanwhile. Nothing is trained here and nothing is sent.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import log
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from ledger.aggregate import read_aggregate
from ledger.bundle import CONFIG, Files, read_weights
from ledger.config import MAX_TASK_TOKENS, Config, TaskKind
from ledger.content import GatewayStore
from ledger.content.reader import Limits
from ledger.parents import Parent
from ledger.tensors import Weights
from node.model import LoadedModel, attach, load_base

BATCH = 64


@dataclass(frozen=True)
class Measure:
    """What a model is judged by. name: for people; key: for JSON."""

    name: str
    key: str
    percent: bool

    def shown(self, value: float) -> str:
        return f"{100 * value:.1f} %" if self.percent else f"{value:.2f}"


MEASURES: dict[TaskKind, Measure] = {
    "classification": Measure("held-out accuracy", "accuracy", True),
    "next-token": Measure("held-out bits per byte", "bits_per_byte", False),
}


class Evaluator:
    """Answers `score(bundle, limits)` as futures, in the order asked. A context: leaving it drops what still waits."""

    def __init__(self, config: Config, base_path: str, held_out: Path, gateways: Sequence[str]) -> None:
        self._config, self._store = config, GatewayStore(list(gateways))
        rows = [json.loads(line) for line in held_out.read_text(encoding="utf-8").splitlines()]
        self._texts = [row["text"] for row in rows]
        self._labels = [row["label"] for row in rows]
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="evaluate")
        self._model = self._worker.submit(lambda: attach(load_base(base_path), config))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.shutdown(wait=True, cancel_futures=True)

    def score(self, bundle: bytes, limits: Limits) -> Future[float]:
        """By the measure of the config's task. limits: of what is fetched, parents of a mixture included. The future
        raises the faults of store and bundle."""
        return self._worker.submit(self._score, bundle, limits)

    def _score(self, bundle: bytes, limits: Limits) -> float:
        files, model = self._store.get_directory(bundle, limits), self._model.result()
        config, weights = read_aggregate(files) if CONFIG in files else self._genesis(files)
        if config.adapter != model.config.adapter:
            model = attach(model.base, config, [self._parent(one, limits) for one in config.adapter.parents])
        model.load_weights(weights)
        if self._config.task.kind == "next-token":
            return bits_per_byte(model, self._texts)
        return accuracy(model, self._texts, self._labels)

    def _parent(self, bundle: bytes, limits: Limits) -> Parent:
        return Parent(bundle, *read_aggregate(self._store.get_directory(bundle, limits)))

    def _genesis(self, files: Files) -> tuple[Config, Weights]:
        return self._config, read_weights(files, self._config)


def accuracy(model: LoadedModel, texts: Sequence[str], labels: Sequence[str]) -> float:
    """The share of texts whose label is the likeliest."""
    guessed = [model.config.task.labels[place] for place in model.predict(texts)]
    return sum(a == b for a, b in zip(guessed, labels, strict=True)) / len(labels)


def bits_per_byte(model: LoadedModel, texts: Sequence[str]) -> float:
    """−log2 of the probability of whole texts, their end marks included, divided by their bytes in UTF-8."""
    ids, nats = model.base.encode(texts, replace(model.config.task, max_tokens=MAX_TASK_TOKENS)), 0.0
    with torch.no_grad():
        for start in range(0, len(ids), BATCH):
            nats += float(model.token_losses(ids[start : start + BATCH]).double().sum())
    return nats / log(2) / sum(len(text.encode()) for text in texts)
