"""Two small bases, one BERT-like and one Llama-like, and configs for them; "language" predicts the Llama's tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from ledger.config import AdapterSpec, AggregationSpec, Config, OptimizerSpec, PrivacySpec, TaskSpec
from ledger.records import Policy
from node.model import LoadedBase, LoadedModel, attach, genesis, layout, load_base

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
TARGETS = {"bert": ("query", "value"), "llama": ("q_proj", "v_proj"), "language": ("q_proj", "o_proj", "down_proj")}
HEADS: dict[str, tuple[str, ...]] = {"bert": ("classifier",), "llama": ("score",), "language": ()}


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    core = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(5)
    shape = BertConfig(
        vocab_size=len(names),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=32,
    )
    BertModel(shape).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def bases(bert_folder: Path) -> dict[str, LoadedBase]:
    llama = load_base(str(TINY))
    return {"bert": load_base(str(bert_folder)), "llama": llama, "language": llama}


@pytest.fixture(scope="session")
def config_for(bases: dict[str, LoadedBase]) -> Callable[..., Config]:
    """config_for(kind, rule, **privacy): a small config for one of the bases, with noise of 300 units."""

    def build(kind: str, rule: str = "ffa", steps: int = 3, **privacy: object) -> Config:
        base, targets, head = bases[kind], TARGETS[kind], HEADS[kind]
        task = TaskSpec(LABELS, 24) if head else TaskSpec((), 24, "next-token")
        labels = len(task.labels)
        tensors = layout(base, rank=2, alpha=4, targets=targets, head=head, labels=labels, rule=rule)  # type: ignore[arg-type]
        spec = PrivacySpec(Fraction(1, 10**5), 1024, Fraction(1, 2), Fraction(2), 300, 1 << 31, 32)
        return Config(
            base_name=kind,
            base_digest=base.digest,
            task=task,
            adapter=AdapterSpec(2, 4, targets, head, tensors),
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
        )

    return build


@pytest.fixture(scope="session")
def model_for(bases: dict[str, LoadedBase], config_for: Callable[..., Config]) -> Callable[..., LoadedModel]:
    """model_for(kind, rule, **privacy): the base with its adapter, every tensor away from zero."""

    def build(kind: str, rule: str = "ffa", **privacy: object) -> LoadedModel:
        config = config_for(kind, rule, **privacy)
        model, random = attach(bases[kind], config), np.random.default_rng(3)
        weights = genesis(config.adapter.tensors, config.weight_bits, "test")
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
