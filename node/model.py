"""A base with its adapter: attach, name tensors as PEFT's files do, move weights between grid and model.

WeightsMisfit (LocalFault)    weights given to a model are not those of its layout
NothingToPredict (LocalFault) a text of fewer than two tokens, under next-token
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import shake_256
from math import fsum
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.utils.checkpoint
from numpy.typing import NDArray
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from transformers.modeling_layers import GradientCheckpointingLayer

from ledger import quantise as four_bit
from ledger.adapter import GATE, MAGNITUDE, SCALING, Method
from ledger.aggregation import Rule, role_of
from ledger.base_files import BaseMismatch as BaseMismatch
from ledger.base_files import BaseUnusable as BaseUnusable
from ledger.base_files import base_digest as base_digest
from ledger.config import FLOAT32_INTEGERS, AdapterSpec, Config, TensorSpec
from ledger.parents import Parent
from node import mixture, quantised, targets
from node.bases import LoadedBase as LoadedBase
from node.bases import load_base as load_base
from node.bases import resolve as resolve
from proofs.errors import LocalFault

Weights = dict[str, NDArray[np.int64]]
NOTHING: Weights = {}
NOT_PREDICTED = -100  # what cross_entropy takes for no target


class WeightsMisfit(LocalFault):
    """Weights do not fit the model's layout."""


class NothingToPredict(LocalFault):
    """A text of one token or none has no token that follows another."""


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

    def checkpoint(self) -> None:
        """From now on keep each layer's input alone and compute the rest of it again on the way back: less memory, the
        same gradients. Raises BaseUnusable."""
        layers = [module for module in self.module.modules() if isinstance(module, GradientCheckpointingLayer)]
        if not layers:
            raise BaseUnusable(f"{self.base.path}: node.checkpointing: transformers cannot compute its layers twice")
        self.module.config.use_cache = False  # a cache would be filled twice
        for layer in layers:
            layer.gradient_checkpointing = True
            layer._gradient_checkpointing_func = partial(torch.utils.checkpoint.checkpoint, use_reentrant=False)
            layer.training = True  # the layer alone, which asks this; what could drop out below it stays as it is

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

    def weights(self) -> Weights:
        """Every tensor of the layout in grid units, as they were loaded."""
        grid = 2.0**self.config.weight_bits
        found = {name: tensor.detach().double().cpu().numpy() * grid for name, tensor in self.parameters.items()}
        return {name: np.rint(units).astype(np.int64) for name, units in found.items()}

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


def attach(base: LoadedBase, config: Config, parents: Sequence[Parent] = ()) -> LoadedModel:
    """The base with the config's adapter; parents: of a mixture (ledger.parents).

    Raises BaseMismatch, or BaseUnusable when the layout is not the config's.
    """
    if base.digest != config.base_digest:
        raise BaseMismatch(
            f"config.base.digest: {base.path} has digest {base.digest.hex()}, but the round's base is "
            f"{config.base_name} with {config.base_digest.hex()}; remedy: set model.path to that model's folder"
        )
    adapter, labels = config.adapter, len(config.task.labels)
    module: Any
    if adapter.parents:
        module, parameters = mixture.build(base, adapter, labels, parents, four_bit=config.quantised is not None)
        _check_router(base.path, module)
    else:
        module = _adapted(base, adapter, labels)
        parameters = _saved_parameters(module)
    _check_effective(base, config)
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
    method: Method = "lora",
    experts: Sequence[str] = (),
) -> tuple[TensorSpec, ...]:
    """Every tensor of the adapter file by PEFT's name, sorted, with its role: what a new config lists.

    Without labels and head: of a language model.
    """
    adapter = AdapterSpec(rank, alpha, tuple(targets), tuple(head), (), method, tuple(experts))
    parameters = _saved_parameters(_adapted(base, adapter, labels))
    return tuple(TensorSpec(name, tuple(parameters[name].shape), role_of(name, rule)) for name in sorted(parameters))


def effective_digest(base: LoadedBase, head: Sequence[str], labels: int) -> bytes:
    """The digest of the base in 4 bits: what a config of the method qlora names."""
    return four_bit.effective_digest(base.digest, base.rounded(base.build(labels, head), head))


def first_weights(base: LoadedBase, config: Config, seed: str) -> Weights:
    """Where a federation starts: `genesis`, and under dora each magnitude at the norm of its output's weights.

    Anyone who has the base and the seed gets the same. On the grid a magnitude is off by at most half a unit, so that
    the first model is the base up to a factor of 1 ± 2^-(weight_bits + 1) / norm in each output of an adapted layer.
    """
    if config.adapter.method != "dora":
        return genesis(config.adapter.tensors, config.weight_bits, seed)
    model = attach(base, config)
    layers = {name: module for name, module in model.module.named_modules() if isinstance(module, LoraLayer)}
    magnitudes = {
        name: _norms(layers[name.removesuffix(MAGNITUDE)], config.weight_bits)
        for name in model.parameters
        if name.endswith(MAGNITUDE)
    }
    return genesis(config.adapter.tensors, config.weight_bits, seed, magnitudes)


def genesis(
    tensors: Sequence[TensorSpec], weight_bits: int, seed: str, magnitudes: Mapping[str, NDArray[np.int64]] = NOTHING
) -> Weights:
    """First weights, from a public seed: A and the head's matrices uniform in ±1/√inputs; B, biases and gates zero.

    A is PEFT's own default start (Kaiming with a = √5), drawn from SHAKE-256 so that anyone can draw it again.
    Magnitudes are those given, which depend on the base. Raises WeightsMisfit for one that is not given.
    """
    found = {}
    for tensor in tensors:
        if tensor.name.endswith(MAGNITUDE):
            if tensor.name not in magnitudes:
                raise WeightsMisfit(f"{tensor.name}: a magnitude starts from the base; see first_weights")
            found[tensor.name] = magnitudes[tensor.name]
        else:
            found[tensor.name] = _start(tensor, weight_bits, seed)
    return found


def _start(tensor: TensorSpec, weight_bits: int, seed: str) -> NDArray[np.int64]:
    if ".lora_B." in tensor.name or len(tensor.shape) == 1 or tensor.name.startswith((GATE, SCALING)):
        return np.zeros(tensor.shape, dtype=np.int64)
    bound = int(2**weight_bits / tensor.shape[-1] ** 0.5)
    stream = shake_256(f"candor/genesis/1\0{seed}\0{tensor.name}".encode()).digest(8 * tensor.size)
    draws = np.frombuffer(stream, dtype=">u8") % np.uint64(2 * bound + 1)
    return draws.astype(np.int64).reshape(tensor.shape) - bound


def _norms(layer: Any, weight_bits: int) -> NDArray[np.int64]:
    """‖W‖ of each output (out,) in grid units. Sums are exact (fsum), so that every machine rounds the same number."""
    weight = layer.get_base_layer().weight.detach().double().cpu().numpy()
    rows = weight.T if layer.fan_in_fan_out else weight
    norms = np.array([fsum((row * row).tolist()) for row in rows]) ** 0.5
    if norms.max() * 2**weight_bits > FLOAT32_INTEGERS:
        raise BaseUnusable(
            f"config.weight_bits: a weight norm of {norms.max():.3g} is off the grid; remedy: fewer bits"
        )
    return np.rint(norms * 2.0**weight_bits).astype(np.int64)


def _adapted(base: LoadedBase, adapter: AdapterSpec, labels: int) -> PeftModel:
    model: Any = base.build(labels, adapter.head)
    _check_router(base.path, model)
    if not labels:
        _check_output_layer(base.path, model, adapter.targets)
    if adapter.experts and adapter.method == "dora":
        raise BaseUnusable(f"{base.path}: config.adapter.experts: experts have no DoRA; remedy: lora or rslora")
    if adapter.method == "qlora":
        quantised.convert(model, adapter.head, base.rounded(model, adapter.head))
    lora = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        target_modules=list(adapter.targets),
        target_parameters=list(adapter.experts) or None,
        modules_to_save=list(adapter.head) or None,
        lora_dropout=0.0,
        bias="none",
        task_type="SEQ_CLS" if labels else "CAUSAL_LM",
        use_dora=adapter.method == "dora",
        use_rslora=adapter.method == "rslora",
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
            warnings.filterwarnings("ignore", "target_", RuntimeWarning)  # of targets that are not there: we refuse
            warnings.filterwarnings("ignore", "fan_in_fan_out", UserWarning)  # of GPT-2's layers, which peft finds out
            adapted = get_peft_model(model, lora)
    except ValueError as error:
        raise BaseUnusable(
            f"{base.path}: config.adapter.targets: no adapter fits the targets {list(adapter.targets)}: {error}"
        ) from error
    targets.check(base.path, adapted, adapter)
    return adapted.eval().requires_grad_(False)


def _check_router(path: Path, model: Any) -> None:
    """A load-balancing loss is a mean over the tokens of a batch: it couples examples, and no bound on one holds."""
    if getattr(model.config, "output_router_logits", False):
        raise BaseUnusable(
            f"{path}: config.json sets output_router_logits, for a load-balancing loss over the whole batch, which "
            "has no per-example gradient; remedy: set it to false"
        )


def _check_effective(base: LoadedBase, config: Config) -> None:
    """The 4-bit base is the one that the config names. Its numbers are kept from where it was made."""
    if config.quantised is None:
        return
    found = four_bit.effective_digest(base.digest, base.kept[config.adapter.head])
    if found != config.quantised.digest:
        raise BaseMismatch(
            f"config.base.quantised.digest: {base.path} in 4 bits has the digest {found.hex()}, but the round's is "
            f"{config.quantised.digest.hex()}"
        )


def _check_output_layer(path: Path, model: Any, targets: Sequence[str]) -> None:
    """A language model's output layer stays as it is: it may share its weights with the embedding."""
    output = model.get_output_embeddings()
    for name, module in model.named_modules():
        if module is output and any(f".{name}".endswith(f".{target}") for target in targets):
            raise BaseUnusable(
                f"{path}: config.adapter.targets: {name} is the output layer; LoRA goes on the layers before it"
            )


def _saved_parameters(adapted: PeftModel) -> dict[str, torch.nn.Parameter]:
    """Live parameters by the names of PEFT's adapter file, which has no adapter names inside."""
    saved = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    live = {
        _file_name(name): parameter
        for name, parameter in adapted.named_parameters()
        if ".lora_A.default." in name
        or ".lora_B.default." in name
        or ".modules_to_save.default." in name
        or name.endswith(f"{MAGNITUDE}.default.weight")
    }
    if set(live) != saved:
        raise BaseUnusable(f"PEFT saves other tensors than it trains: {sorted(set(live) ^ saved)[:2]}")
    return live


def _file_name(name: str) -> str:
    if name.endswith(f"{MAGNITUDE}.default.weight"):
        return name.removesuffix(".default.weight")
    return name.replace(".modules_to_save.default.", ".").replace(".default.", ".")
