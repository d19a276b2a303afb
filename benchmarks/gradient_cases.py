"""Honest rounds with real gradients of small models: what tests of statement G prove and forge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    PreTrainedTokenizerFast,
)

from ledger.base_program import Base
from ledger.config import AdapterSpec, AggregationSpec, Config, OptimizerSpec, PrivacySpec, TaskSpec
from ledger.optimizer import replay
from ledger.records import Policy
from ledger.tensors import Weights, flatten, unflatten
from node.data import Dataset, row_bytes
from node.model import LoadedModel, attach, genesis, layout, load_base
from node.training import TrainingJob, train
from proofs.gradient.claim import GradientStatement, Secret
from proofs.gradient.program import Program
from proofs.gradient.prover import prove, secret_of
from proofs.prover import data_and_slots, data_root, words_root
from proofs.statement import Shape, Statement
from proofs.texts import Texts
from proofs.witness import Contributions
from proofs.words import Binding, SecretWords

LABELS = ("repay", "watch", "default")
ROWS = [
    ("paid", "the", "loan"),
    ("never", "paid", "again", "the", "shop", "owes"),
    ("court", "calls", "the", "farm", "again"),
    ("a", "loan"),
    ("the", "shop", "was", "late", "late", "late", "again"),
    ("owes", "nothing"),
]
PREDICTS = "next-token"  # a Llama that predicts tokens, by a head that is not its embedding
TARGETS = {"bert": ("query", "value"), "llama": ("q_proj", "v_proj"), PREDICTS: ("q_proj", "v_proj")}
HEADS: dict[str, tuple[str, ...]] = {"bert": ("classifier",), "llama": ("score",), PREDICTS: ()}
BEACON, PICKED = b"\3" * 32, b"\5" * 32  # of the round, and of what picks a slot
TOKENS, TOLERANCE = 8, 4


@dataclass(frozen=True, eq=False)
class GradientRound:
    """A member's round. base and model: of its program; weights: the iterate that the round starts from."""

    base: Base
    config: Config
    weights: Weights
    words: SecretWords
    texts: Texts
    contributions: Contributions
    released: np.ndarray
    shape: Shape

    @cached_property
    def mechanism(self) -> Statement:
        """Statement M of the round."""
        group_of = np.zeros(self.shape.parameters, dtype=np.uint8)
        for number, columns in enumerate(self.config.groups.values()):
            group_of[columns] = number
        roots = words_root(self.words, self.shape), data_root(self.words, self.shape, self.texts)
        return Statement(self.words.binding, b"\4" * 32, *roots, BEACON, self.shape, group_of, self.released)

    def contributing(self, step: int, slot: int, contribution: np.ndarray) -> GradientRound:
        """The round of a member that puts something else into a slot, and releases what follows."""
        contributions, released = [part.copy() for part in self.contributions], self.released.copy()
        released[step] += contribution.astype(np.int32) - contributions[step][slot]
        contributions[step][slot] = contribution
        return replace(self, contributions=tuple(contributions), released=released)

    def row(self, step: int, slot: int) -> int:
        """The row of a slot in use."""
        return int(np.flatnonzero(self.secret(self.statement(step, 0)).used)[slot])

    def text(self, row: int) -> tuple[list[int], int]:
        """Token ids and label."""
        return self.texts.tokens[row, : self.texts.lengths[row]].tolist(), int(self.texts.labels[row])

    def statement(self, step: int, slot: int) -> GradientStatement:
        mechanism = self.mechanism
        _, slots = data_and_slots(mechanism, self.words, self.texts, self.contributions)
        return GradientStatement(mechanism, slots.root, PICKED, step, slot, TOLERANCE)

    def program(self, step: int) -> Program:
        """H at the iterate of a step."""
        before = replay(self.config, flatten(self.config, self.weights), self.released[:step])
        return self.base.program(self.config, {**self.weights, **unflatten(self.config, before)})

    def secret(self, statement: GradientStatement) -> Secret:
        return secret_of(statement, self.words, self.texts, self.contributions)

    def prove(self, statement: GradientStatement, progress: Callable[[str], None] | None = None) -> bytes:
        program = self.program(statement.step)
        return prove(statement, program, self.words, self.texts, self.contributions, progress)


def small_base(kind: str, folder: Path, layers: int = 2) -> Path:
    """A Llama or a BERT of random weights, over the words of ROWS; with a head where it predicts tokens."""
    words = sorted({word for row in ROWS for word in row})
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words]
    core = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(5)
    sizes = {"vocab_size": len(names), "hidden_size": 16, "max_position_embeddings": TOKENS}
    sizes |= {"num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 24}
    spread = {"initializer_range": 0.3 if kind == "bert" else 0.1}  # so that gradients are long enough to be clipped
    if kind == "bert":
        BertModel(BertConfig(**sizes, **spread)).save_pretrained(folder)
    else:
        shape = LlamaConfig(**sizes, num_key_value_heads=1, tie_word_embeddings=False, **spread)
        (LlamaForCausalLM if kind == PREDICTS else LlamaModel)(shape).save_pretrained(folder)
    return folder


def gradient_round(kind: str, folder: Path, steps: int = 2, layers: int = 2) -> GradientRound:
    """kind: "llama", "bert" or "next-token", which has one layer; made in the folder."""
    path = small_base(kind, folder, 1 if kind == PREDICTS else layers)
    model, weights = _model(kind, path, steps)
    config, texts = model.config, [" ".join(row) for row in ROWS]
    labels = [0 if kind == PREDICTS else number % len(LABELS) for number in range(len(texts))]
    binding = Binding(31337, b"\2" * 20, 1, 0)
    words = SecretWords(b"\1" * 32, binding, steps, config.adapter.parameters, config.privacy.capacity)
    rows = [row_bytes(text, LABELS[label]) for text, label in zip(texts, labels, strict=True)]
    job = TrainingJob(config, model, Dataset(rows, texts, labels), weights, words, BEACON, binding, "cpu")
    trained = train(job, lambda *_: None)
    shape = replace(config.shape, openings=2)
    kept = Texts.of(model.encode(texts), labels, TOKENS)
    return GradientRound(Base.open(path), config, weights, words, kept, trained.contributions, trained.released, shape)


def _model(kind: str, path: Path, steps: int) -> tuple[LoadedModel, Weights]:
    base, targets, head = load_base(str(path)), TARGETS[kind], HEADS[kind]
    task = TaskSpec((), TOKENS, "next-token") if kind == PREDICTS else TaskSpec(LABELS, TOKENS)
    tensors = layout(base, rank=2, alpha=4, targets=targets, head=head, labels=len(task.labels), rule="fedavg")
    config = Config(
        base_name=kind,
        base_digest=base.digest,
        task=task,
        adapter=AdapterSpec(2, 4, targets, head, tensors),
        weight_bits=16,
        privacy=PrivacySpec(Fraction(1, 10**5), 1024, Fraction(1, 2), Fraction(1), 300, 1 << 31, 8),
        optimizer=OptimizerSpec(
            "sgd", Fraction(1, 2), Fraction(1, 10), Fraction(9, 10), Fraction(0), Fraction(0), Fraction(0)
        ),
        steps=steps,
        mean_batch=4,
        aggregation=AggregationSpec("fedavg"),
        proof_policy="mechanism",
        policy=Policy(1, 1, 1, 1, 1, 1, 1, False, 1),
    )
    random = np.random.default_rng(3)
    weights = {
        name: units + random.integers(-3000, 3000, units.shape)
        for name, units in genesis(tensors, config.weight_bits, "test").items()
    }
    return attach(base, config), weights
