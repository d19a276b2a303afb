"""Four small bases, BERT-like, Llama-like, GPT-2-like and Mixtral-like, and configs for them; "language" predicts the
Llama's tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    MixtralConfig,
    MixtralModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from ledger.config import AdapterSpec, AggregationSpec, Config, OptimizerSpec, PrivacySpec, QuantisedSpec, TaskSpec
from ledger.records import Policy
from node.gradients import PerExampleGradients
from node.model import LoadedBase, LoadedModel, attach, effective_digest, first_weights, layout, load_base

TINY = Path(__file__).parents[2] / "devnet" / "tiny" / "model"
WORDS = [
    "late",
    "paid",
    "never",
    "court",
    "loan",
    "farm",
    "shop",
    "calls",
    "again",
    "the",
    "a",
    "was",
    "owes",
    "nothing",
]
LABELS = ("repay", "watch", "default")
TARGETS = {
    "bert": ("query", "value"),
    "llama": ("q_proj", "v_proj"),
    "language": ("q_proj", "o_proj", "down_proj"),
    "gpt2": ("c_attn", "mlp.c_fc"),
    "mixtral": ("q_proj", "v_proj"),
}
HEADS: dict[str, tuple[str, ...]] = {
    "bert": ("classifier",),
    "llama": ("score",),
    "language": (),
    "gpt2": ("score",),
    "mixtral": ("score",),
}
EXPERTS = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")

Samples = dict[str, torch.Tensor]


def write_base(folder: Path, model: PreTrainedModel) -> Path:
    """A folder with `model` and a tokenizer that knows WORDS."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    core = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    shape = BertConfig(
        vocab_size=4 + len(WORDS),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=32,
    )
    return write_base(tmp_path_factory.mktemp("bert"), BertModel(shape))


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(6)
    shape = GPT2Config(vocab_size=4 + len(WORDS), n_embd=32, n_layer=2, n_head=4, n_positions=32, pad_token_id=0)
    return write_base(tmp_path_factory.mktemp("gpt2"), GPT2Model(shape))


@pytest.fixture(scope="session")
def mixtral_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four experts, two for each token; large weights, so that tokens do not all choose the same ones."""
    torch.manual_seed(7)
    shape = MixtralConfig(
        vocab_size=4 + len(WORDS),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=24,
        num_local_experts=4,
        max_position_embeddings=32,
        initializer_range=0.2,
        pad_token_id=0,
    )
    return write_base(tmp_path_factory.mktemp("mixtral"), MixtralModel(shape))


@pytest.fixture(scope="session")
def bases(bert_folder: Path, gpt2_folder: Path, mixtral_folder: Path) -> dict[str, LoadedBase]:
    folders = {"bert": bert_folder, "llama": TINY, "gpt2": gpt2_folder, "mixtral": mixtral_folder}
    loaded = {kind: load_base(str(folder)) for kind, folder in folders.items()}
    return loaded | {"language": loaded["llama"]}


@pytest.fixture(scope="session")
def config_for(bases: dict[str, LoadedBase]) -> Callable[..., Config]:
    """config_for(kind, rule, method=, experts=, **privacy): a small config for a base, with noise of 300 units."""

    def build(
        kind: str,
        rule: str = "ffa",
        steps: int = 3,
        method: str = "lora",
        experts: tuple[str, ...] = (),
        **privacy: object,
    ) -> Config:
        base, targets, head = bases[kind], TARGETS[kind], HEADS[kind]
        task = TaskSpec(LABELS, 24) if head else TaskSpec((), 24, "next-token")
        labels = len(task.labels)
        tensors = layout(
            base,
            rank=2,
            alpha=4,
            targets=targets,
            head=head,
            labels=labels,
            rule=rule,  # type: ignore[arg-type]
            method=method,  # type: ignore[arg-type]
            experts=experts,
        )
        spec = PrivacySpec(Fraction(1, 10**5), 1024, Fraction(1, 2), Fraction(2), 300, 1 << 31, 32)
        return Config(
            base_name=kind,
            base_digest=base.digest,
            task=task,
            adapter=AdapterSpec(2, 4, targets, head, tensors, method, experts),  # type: ignore[arg-type]
            weight_bits=16,
            privacy=replace(spec, **privacy),  # type: ignore[arg-type]
            optimizer=OptimizerSpec(
                "sgd", Fraction(1, 2), Fraction(1, 10), Fraction(9, 10), Fraction(0), Fraction(0), Fraction(0)
            ),
            steps=steps,
            mean_batch=8,
            aggregation=AggregationSpec(rule),  # type: ignore[arg-type]
            proof_policy="none",
            policy=Policy(1, 1, 1, 1, 1, 1, 1, False, 1),
            quantised=QuantisedSpec(effective_digest(base, head, labels)) if method == "qlora" else None,
        )

    return build


@pytest.fixture(scope="session")
def model_for(bases: dict[str, LoadedBase], config_for: Callable[..., Config]) -> Callable[..., LoadedModel]:
    """model_for(kind, rule, **as config_for): the base with its adapter, every tensor away from zero."""

    def build(kind: str, rule: str = "ffa", **asked: object) -> LoadedModel:
        config = config_for(kind, rule, **asked)
        model, random = attach(bases[kind], config), np.random.default_rng(3)
        weights = first_weights(bases[kind], config, "test")
        for name, units in weights.items():
            weights[name] = units + random.integers(-3000, 3000, units.shape)
        model.load_weights(weights)
        return model

    return build


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return [
        "paid the loan",
        "never paid again the shop owes",
        "court calls the farm again",
        "a loan",
        "the shop was late late late again",
        "owes nothing",
    ]


@pytest.fixture(scope="session")
def fast() -> Callable[[LoadedModel, list[list[int]], list[int]], Samples]:
    """fast(model, ids, labels): the gradients of each example (n, …), by the route that trains."""

    def fill(model: LoadedModel, ids: list[list[int]], labels: list[int]) -> Samples:
        gradients = PerExampleGradients(model)
        gradients.fill(ids, labels)
        return {name: parameter.grad_sample for name, parameter in gradients.trained.items()}  # type: ignore[attr-defined]

    return fill


@pytest.fixture(scope="session")
def one_by_one() -> Callable[[LoadedModel, list[list[int]], list[int]], Samples]:
    """The slow twin of `fast`: the model's own forward pass and torch's backward pass, one example at a time."""

    def loop(model: LoadedModel, ids: list[list[int]], labels: list[int]) -> Samples:
        trained = {tensor.name: model.parameters[tensor.name] for tensor in model.config.adapter.trained}
        for parameter in trained.values():
            parameter.requires_grad_(True)
        rows = [
            torch.autograd.grad(loss_of_one(model, row, label), list(trained.values()))
            for row, label in zip(ids, labels, strict=True)
        ]
        for parameter in trained.values():
            parameter.requires_grad_(False)
        return {name: torch.stack([row[place] for row in rows]) for place, name in enumerate(trained)}

    return loop


def loss_of_one(model: LoadedModel, row: list[int], label: int) -> torch.Tensor:
    """transformers' own loss: of a language model a mean over the tokens of the whole batch, here of one example."""
    if model.config.task.kind == "next-token":
        loss: torch.Tensor = model.module(input_ids=torch.tensor([row]), labels=torch.tensor([row])).loss
        return loss
    return torch.nn.functional.cross_entropy(model.logits([row]), torch.tensor([label]))


@pytest.fixture(scope="session")
def assert_equal() -> Callable[[Samples, Samples], None]:
    """To a relative 1e-5 of the largest entry, which must not be zero: then nothing would be compared."""

    def check(found: Samples, expected: Samples) -> None:
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name].shape == value.shape
            scale = float(value.abs().max())
            assert scale > 0, f"{name} has no gradient, so nothing is compared"
            assert float((found[name] - value).abs().max()) <= 1e-5 * scale, name

    return check
