"""What the demos judge a model by: accuracy where notes have labels, bits per byte where their tokens are predicted."""

from __future__ import annotations

from dataclasses import replace
from math import log

import pytest
import torch

from devnet import notes
from devnet.evaluate import MEASURES, accuracy, bits_per_byte
from devnet.presets import TINY, TINY_TEXT, make_config
from ledger.optimizer import replay
from ledger.records import Policy
from ledger.tensors import flatten, unflatten
from node.data import Dataset
from node.model import LoadedModel, attach, load_base
from node.training import TrainingJob, train
from proofs.words import Binding, SecretWords

SMALL = replace(TINY_TEXT, rows=160, capacity=160, mean_batch=40, steps=4, max_tokens=64)
POLICY = Policy(40, 40, 0, 20, 20, 6, 1, False, 1)
HELD_OUT = [note.text for note in notes.held_out(1, 40, 7)]


@pytest.fixture(scope="module")
def writer() -> LoadedModel:
    """The base of tiny-text, before any training."""
    base = load_base(SMALL.base_path)
    config, weights = make_config(SMALL, epsilon=8.0, rounds=1, policy=POLICY, base=base)
    model = attach(base, config)
    model.load_weights(weights)
    return model


def test_bits_per_byte_are_what_one_text_after_the_other_costs(writer: LoadedModel) -> None:
    """Whole texts with their end, whatever the length at which training cuts; by bytes, not tokens or characters."""
    texts = ["Wine merchant: pays on time every month.", "Café – " + HELD_OUT[0]]
    nats = 0.0
    for text in texts:
        ids = [1, *(token for token in writer.base.tokenizer(text, add_special_tokens=False)["input_ids"]), 2]
        assert len(ids) == len(text.encode()) + 2
        loss = writer.module(input_ids=torch.tensor([ids]), labels=torch.tensor([ids])).loss
        nats += float(loss) * (len(ids) - 1)
    expected = nats / log(2) / sum(len(text.encode()) for text in texts)
    assert bits_per_byte(writer, texts) == pytest.approx(expected, rel=1e-5)


def test_a_language_model_learns_to_predict_held_out_notes_under_privacy(writer: LoadedModel) -> None:
    config, rows = writer.config, notes.members(1, SMALL.rows, 7)[0]
    _, start = make_config(SMALL, epsilon=None, rounds=1, policy=POLICY, base=writer.base)
    before = bits_per_byte(writer, HELD_OUT)
    binding = Binding(1, bytes(20), 1, 0)
    words = SecretWords(b"\7" * 32, binding, config.steps, config.adapter.parameters, config.privacy.capacity)
    dataset = Dataset([b""] * len(rows), [note.text for note in rows], [0] * len(rows))
    job = TrainingJob(config, writer, dataset, start, words, bytes(32), binding, "cpu")
    trained = train(job, lambda done, steps: None)
    writer.load_weights(start | unflatten(config, replay(config, flatten(config, start), trained.released)))
    after = bits_per_byte(writer, HELD_OUT)
    writer.load_weights(start)
    assert config.privacy.noise_units > 500
    assert after < 0.95 * before


def test_each_task_is_told_in_its_own_words() -> None:
    assert MEASURES[TINY.task].shown(0.8312) == "83.1 %"
    assert MEASURES[TINY_TEXT.task].shown(1.9248) == "1.92"
    assert {measure.key for measure in MEASURES.values()} == {"accuracy", "bits_per_byte"}


def test_accuracy_is_the_share_of_labels_guessed() -> None:
    base = load_base(TINY.base_path)
    config, weights = make_config(TINY, epsilon=None, rounds=1, policy=POLICY, base=base)
    model = attach(base, config)
    model.load_weights(weights)
    texts = HELD_OUT[:8]
    guessed = [config.task.labels[place] for place in model.predict(texts)]
    wrong = [next(label for label in config.task.labels if label != one) for one in guessed]
    assert accuracy(model, texts, guessed) == 1.0
    assert accuracy(model, texts, [*guessed[:2], *wrong[2:]]) == 0.25
