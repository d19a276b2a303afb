"""What a member's trainer gives to a proof: its rows as the model is given them, or a refusal before it commits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ledger.config import Config, TaskSpec
from node.gradients import NotPerExample, PerExampleGradients
from node.model import LoadedBase, NothingToPredict, attach
from node.selftest import check_gradients
from node.settings import DataSettings
from node.trainer import ModelTrainer
from proofs.texts import TextsInvalid

TINY = Path(__file__).parents[2] / "devnet" / "tiny" / "model"
ROWS = [("paid the loan", "repay"), ("never paid again the shop owes nothing", "default"), ("a", "watch")]


@pytest.fixture
def trainer(bert_folder: Path, tmp_path: Path) -> ModelTrainer:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS))
    return ModelTrainer(str(bert_folder), DataSettings(path, "jsonl", "text", "label"), "cpu")


@pytest.fixture
def proven(config_for: Callable[..., Config]) -> Config:
    return replace(config_for("bert"), proof_policy="mechanism", task=TaskSpec(("repay", "watch", "default"), 5))


def test_texts_are_the_token_ids_that_the_model_is_trained_on(
    trainer: ModelTrainer, proven: Config, bases: dict[str, LoadedBase]
) -> None:
    texts = trainer.texts(proven)
    ids = attach(bases["bert"], proven).encode([text for text, _ in ROWS])
    assert [row[:length].tolist() for row, length in zip(texts.tokens, texts.lengths, strict=True)] == ids
    assert texts.labels.tolist() == [0, 2, 1]
    assert texts.width == proven.task.max_tokens == max(map(len, ids))
    assert texts.lengths.tolist() == [5, 5, 3]


def test_a_text_that_no_proof_holds_is_refused_before_the_member_commits(
    trainer: ModelTrainer, proven: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer.check(proven)
    monkeypatch.setattr(LoadedBase, "encode", lambda self, texts, width: [[1], [], [1]])
    with pytest.raises(TextsInvalid, match="row 1: no token at all"):
        trainer.check(proven)
    with pytest.raises(NotPerExample, match=r"query\.lora_B\.weight: an example's gradient differs"):
        trainer.check(replace(proven, proof_policy="none"))


def test_a_member_whose_gradients_are_not_per_example_does_not_train(
    trainer: ModelTrainer, config_for: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tried once for each config, before the member commits; the layer is named."""
    honest = PerExampleGradients.add

    def coupled(self: Any, parameter: Any, value: Any) -> None:
        honest(self, parameter, value.mean(dim=0, keepdim=True).expand_as(value))

    monkeypatch.setattr(PerExampleGradients, "add", coupled)
    config = config_for("bert", method="dora")
    with pytest.raises(NotPerExample, match=r"layer\.0\.attention\.self\.query\.lora_B\.weight: "):
        trainer.check(config)
    monkeypatch.setattr(PerExampleGradients, "add", honest)
    trainer.check(config)
    monkeypatch.setattr(PerExampleGradients, "add", coupled)
    trainer.check(config)


def test_nothing_of_the_rows_shows_in_the_refusal(
    trainer: ModelTrainer, proven: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(self: Any, texts: list[str], width: int) -> list[list[int]]:
        return [[1], [987_654_321], [1]]

    monkeypatch.setattr(LoadedBase, "encode", too_large)
    with pytest.raises(TextsInvalid) as caught:
        trainer.texts(proven)
    assert "987" not in str(caught.value)
    assert "never" not in str(caught.value)


# ---- next-token


@pytest.fixture
def language(config_for: Callable[..., Config]) -> Config:
    return config_for("language")


def rows_of(tmp_path: Path, *texts: str) -> ModelTrainer:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return ModelTrainer(str(TINY), DataSettings(path, "jsonl", "text", ""), "cpu")


def test_a_member_without_a_label_column_trains_a_language_model(tmp_path: Path, language: Config) -> None:
    trainer = rows_of(tmp_path, "paid", "late")
    trainer.check(language)
    texts = trainer.texts(language)
    assert texts.labels.tolist() == [0, 0]
    assert texts.lengths.tolist() == [6, 6]


def test_a_text_with_nothing_to_predict_is_refused_by_its_number_and_not_quoted(
    tmp_path: Path, language: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = rows_of(tmp_path, "paid", "late")
    monkeypatch.setattr(LoadedBase, "encode", lambda self, texts, task: [[1, 2], [1]])
    with pytest.raises(NothingToPredict, match="text 2 is one token long") as caught:
        trainer.check(language)
    assert "late" not in str(caught.value)


def test_the_doctor_compares_gradients_of_predicted_tokens_too(tmp_path: Path, language: Config) -> None:
    assert check_gradients(rows_of(tmp_path, "paid", "late again", "never"), language) < 1e-4
