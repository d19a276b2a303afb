"""Accuracy on held-out notes of what is FINAL: fetched by digest through the gateways, as a stranger would.

One model in one background thread; the federation goes on meanwhile. Nothing is trained here and nothing is sent.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from ledger.aggregate import read_aggregate
from ledger.bundle import CONFIG, Files, bundle_limits, read_weights
from ledger.config import Config
from ledger.content import GatewayStore
from ledger.tensors import Weights
from node.model import attach, load_base


class Evaluator:
    """Answers `accuracy(bundle)` as futures, in the order asked. A context: leaving it drops what is still waiting.

    largest: the config as the largest bundle has it, for the limits of what is fetched.
    """

    def __init__(
        self, config: Config, largest: Config, base_path: str, held_out: Path, gateways: Sequence[str]
    ) -> None:
        self._config, self._limits, self._store = config, bundle_limits(largest), GatewayStore(list(gateways))
        rows = [json.loads(line) for line in held_out.read_text(encoding="utf-8").splitlines()]
        self._texts = [row["text"] for row in rows]
        self._labels = [config.task.labels.index(row["label"]) for row in rows]
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="evaluate")
        self._model = self._worker.submit(lambda: attach(load_base(base_path), config))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.shutdown(wait=True, cancel_futures=True)

    def accuracy(self, bundle: bytes) -> Future[float]:
        """Share of held-out notes whose label is guessed. The future raises the faults of store and bundle."""
        return self._worker.submit(self._accuracy, bundle)

    def _accuracy(self, bundle: bytes) -> float:
        files, model = self._store.get_directory(bundle, self._limits), self._model.result()
        config, weights = read_aggregate(files) if CONFIG in files else self._genesis(files)
        if config.adapter.rank != model.config.adapter.rank:
            model = attach(model.base, config)
        model.load_weights(weights)
        guessed = model.predict(self._texts)
        return sum(a == b for a, b in zip(guessed, self._labels, strict=True)) / len(self._labels)

    def _genesis(self, files: Files) -> tuple[Config, Weights]:
        return self._config, read_weights(files, self._config)
