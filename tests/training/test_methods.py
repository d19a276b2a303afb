"""Every method, on every kind of base: one exact gradient for each example, and a bundle that PEFT itself loads."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import bitsandbytes
import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers.modeling_layers import GradientCheckpointingLayer

from ledger.bundle import GenesisBundle
from ledger.config import AdapterSpec, Config, QuantisedSpec
from ledger.quantise import SCALE_LEVELS, quantise
from node import quantised
from node.gradients import PerExampleGradients
from node.model import (
    BaseMismatch,
    BaseUnusable,
    LoadedBase,
    LoadedModel,
    WeightsMisfit,
    attach,
    first_weights,
    genesis,
    layout,
    load_base,
)
from node.targets import check

LABELS = [0, 2, 1, 0, 1, 2]
EXPERTS = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")
BASES = ("bert", "llama", "gpt2", "mixtral")
CASES: list[tuple[str, str, tuple[str, ...]]] = [
    *((base, method, ()) for base in BASES for method in ("lora", "rslora", "dora", "qlora")),
    ("mixtral", "lora", EXPERTS),
    ("mixtral", "rslora", EXPERTS[:1]),
    ("mixtral", "qlora", EXPERTS[1:]),
]
CASES.remove(("gpt2", "qlora", ()))  # it has no Linear layer, see test_what_cannot_be_adapted
NAMES = [f"{base}-{method}{'-experts' * bool(experts)}" for base, method, experts in CASES]

Build = Callable[..., LoadedModel]
Samples = dict[str, torch.Tensor]
Gradients = Callable[[LoadedModel, list[list[int]], list[int]], Samples]
Compare = Callable[[Samples, Samples], None]


@pytest.mark.parametrize(("base", "method", "experts"), CASES, ids=NAMES)
def test_the_gradients_are_what_single_backward_passes_give(
    model_for: Build,
    texts: list[str],
    base: str,
    method: str,
    experts: tuple[str, ...],
    fast: Gradients,
    one_by_one: Gradients,
    assert_equal: Compare,
) -> None:
    model = model_for(base, "fedavg", method=method, experts=experts)
    ids = model.encode(texts)
    assert_equal(fast(model, ids, LABELS), one_by_one(model, ids, LABELS))


@pytest.mark.parametrize(("base", "method", "experts"), CASES, ids=NAMES)
def test_changing_one_example_changes_only_its_own_gradient(
    model_for: Build, texts: list[str], base: str, method: str, experts: tuple[str, ...], fast: Gradients
) -> None:
    model = model_for(base, method=method, experts=experts)
    ids = model.encode(texts)
    before = fast(model, ids, LABELS)
    neighbour = [*ids[:2], model.encode(["nothing is late was paid never a"])[0], *ids[3:]]
    after = fast(model, neighbour, [*LABELS[:2], 2, *LABELS[3:]])
    others = [0, 1, 3, 4, 5]
    for name, value in before.items():
        scale = float(value.abs().max())
        assert float((value[others] - after[name][others]).abs().max()) <= 1e-5 * scale, name
        assert float((value[2] - after[name][2]).abs().max()) > 1e-2 * scale, name


@pytest.mark.parametrize(
    ("base", "method", "experts"),
    [("bert", "dora", ()), ("llama", "lora", ()), ("llama", "qlora", ()), ("gpt2", "rslora", ()), CASES[-3]],
)
def test_computing_activations_twice_gives_the_same_gradients(
    model_for: Build,
    texts: list[str],
    base: str,
    method: str,
    experts: tuple[str, ...],
    fast: Gradients,
    assert_equal: Compare,
) -> None:
    model = model_for(base, "fedavg", method=method, experts=experts)
    ids = model.encode(texts)
    before, calls = fast(model, ids, LABELS), []
    layers = [one for one in model.module.modules() if isinstance(one, GradientCheckpointingLayer)]
    inside = next(iter(layers[-1].children()))
    inside.register_forward_hook(lambda *_: calls.append(1))
    model.checkpoint()
    assert_equal(fast(model, ids, LABELS), before)
    assert len(calls) == 2, "the layer was not computed a second time"
    assert not any(module.training for module in model.module.modules() if module not in layers)


@pytest.mark.parametrize("experts", [(), EXPERTS])
def test_an_empty_draw_has_no_gradients_but_the_right_shapes(model_for: Build, experts: tuple[str, ...]) -> None:
    for base, method in (("mixtral", "lora"), *((("bert", "dora"),) if not experts else ())):
        gradients = PerExampleGradients(model_for(base, method=method, experts=experts))
        gradients.fill_empty()
        for parameter in gradients.trained.values():
            assert parameter.grad_sample.shape == (0, *parameter.shape)  # type: ignore[attr-defined]


@pytest.mark.parametrize("rule", ["ffa", "fedavg"])
def test_an_expert_that_no_token_goes_to_adds_nothing(
    model_for: Build, rule: str, fast: Gradients, one_by_one: Gradients, assert_equal: Compare
) -> None:
    """One token goes to two of the four experts. Attention has nothing to choose from, so nothing to learn."""
    model = model_for("mixtral", rule, experts=EXPERTS)
    found, expected = (
        {name: value for name, value in take(model, [[2]], LABELS[:1]).items() if ".experts." in name}
        for take in (fast, one_by_one)
    )
    assert len(found) == (8 if rule == "fedavg" else 4)
    assert_equal(found, expected)


def published(model: LoadedModel, folder: Path) -> Path:
    """The bundle of the model's present weights, as anyone fetches it."""
    bits = model.config.weight_bits
    weights = {
        name: np.rint(parameter.detach().numpy().astype(np.float64) * 2**bits).astype(np.int64)
        for name, parameter in model.parameters.items()
    }
    for path, data in GenesisBundle(model.config, weights).files().items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def by_peft(model: LoadedModel, folder: Path) -> LoadedModel:
    """The same base with the published folder on it, by PEFT alone."""
    head = model.config.adapter.head
    base: Any = model.base.build(3, head)
    if model.config.quantised is not None:
        quantised.convert(base, head, model.base.rounded(base, head))
    loaded = PeftModel.from_pretrained(base, published(model, folder)).eval()
    return LoadedModel(model.config, model.base, loaded, dict(loaded.named_parameters()))


@pytest.mark.parametrize(("base", "method", "experts"), CASES, ids=NAMES)
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft asks transformers by an old name
@pytest.mark.filterwarnings("ignore:fan_in_fan_out:UserWarning")  # and finds out about GPT-2's layers
def test_peft_loads_the_bundle_as_it_is_and_gives_the_same_scores(
    model_for: Build, texts: list[str], tmp_path: Path, base: str, method: str, experts: tuple[str, ...]
) -> None:
    model = model_for(base, method=method, experts=experts)
    ids = model.encode(texts)
    with torch.no_grad():
        assert torch.equal(by_peft(model, tmp_path).logits(ids), model.logits(ids))


MERGED = [case for case in CASES if case[1] != "qlora" and case[0] != "gpt2"]


@pytest.mark.parametrize(("base", "method", "experts"), MERGED)
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
@pytest.mark.filterwarnings("ignore:fan_in_fan_out:UserWarning")
def test_a_merged_model_has_the_bases_layers_and_gives_the_same_scores(
    model_for: Build, texts: list[str], tmp_path: Path, base: str, method: str, experts: tuple[str, ...]
) -> None:
    """The same cost at inference: nothing of the adapter is left but other numbers in the base's own matrices."""
    model = model_for(base, method=method, experts=experts)
    ids, peft_model = model.encode(texts), by_peft(model, tmp_path)
    with torch.no_grad():
        before = model.logits(ids)
        merged = peft_model.module.merge_and_unload()
        after = LoadedModel(model.config, model.base, merged, dict(merged.named_parameters())).logits(ids)
    kinds = [type(module) for module in model.base.build(3, model.config.adapter.head).modules()]
    assert [type(module) for module in merged.modules()] == kinds
    assert float((after - before).abs().max()) <= 1e-5 * float(before.abs().max())


def test_dora_starts_at_the_base_up_to_the_grid(
    bases: dict[str, LoadedBase], config_for: Callable[..., Config], texts: list[str]
) -> None:
    """Anyone draws the start again from base and seed; magnitudes are the norms of the weights, to half a unit."""
    config = config_for("bert", method="dora")
    start = first_weights(bases["bert"], config, "seed")
    assert all((again == start[name]).all() for name, again in first_weights(bases["bert"], config, "seed").items())
    model = attach(bases["bert"], config)
    model.load_weights(start)
    for name, module in model.module.named_modules():
        if isinstance(module, LoraLayer):
            norms = module.get_base_layer().weight.double().norm(dim=1).numpy()
            off = np.abs(start[f"{name}.lora_magnitude_vector"] / 2**config.weight_bits - norms)
            assert off.max() <= 0.5 / 2**config.weight_bits + 1e-12
    ids = model.encode(texts)
    with torch.no_grad(), model.module.disable_adapter():
        wrapped = model.module.base_model.model.classifier
        before = wrapped.modules_to_save["default"](model.module.base_model.model.bert(*inputs(ids)).pooler_output)
    with torch.no_grad():
        assert float((model.logits(ids) - before).abs().max()) <= 1e-4 * float(before.abs().max())


def inputs(ids: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and their mask, padded on the right with 0."""
    width = max(map(len, ids))
    padded = torch.tensor([row + [0] * (width - len(row)) for row in ids])
    return padded, (torch.arange(width)[None, :] < torch.tensor([len(row) for row in ids])[:, None]).long()


def test_dora_starts_from_norms_alone_if_nobody_gives_it_a_base(config_for: Callable[..., Config]) -> None:
    with pytest.raises(WeightsMisfit, match="first_weights"):
        genesis(config_for("bert", method="dora").adapter.tensors, 16, "seed")


def test_a_magnitude_of_zero_still_has_its_gradient(
    model_for: Build, texts: list[str], fast: Gradients, one_by_one: Gradients, assert_equal: Compare
) -> None:
    """m = 0 switches an output off; its direction is z/n and not y/m, so that training can bring it back."""
    model = model_for("bert", "fedavg", method="dora")
    name = next(name for name in model.parameters if name.endswith("lora_magnitude_vector"))
    units = np.full(64, 2**15, dtype=np.int64)
    units[3] = 0
    model.load_weights({name: units})
    ids = model.encode(texts)
    found = fast(model, ids, LABELS)
    assert_equal(found, one_by_one(model, ids, LABELS))
    assert float(found[name][:, 3].abs().max()) > 0


def test_a_4_bit_base_is_named_by_its_digest(bases: dict[str, LoadedBase], config_for: Callable[..., Config]) -> None:
    config = config_for("bert", method="qlora")
    assert config.quantised is not None
    attach(bases["bert"], config)
    with pytest.raises(BaseMismatch, match=r"config\.base\.quantised\.digest"):
        attach(bases["bert"], replace(config, quantised=QuantisedSpec(bytes(32))))


def test_a_4_bit_layer_computes_with_the_numbers_of_the_digest(model_for: Build) -> None:
    model = model_for("bert", method="qlora")
    layer = model.module.base_model.model.bert.encoder.layer[0].intermediate.dense
    rounded = model.base.kept[("classifier",)]["bert.encoder.layer.0.intermediate.dense.weight"]
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    expected = torch.nn.functional.linear(x, torch.from_numpy(rounded.values()), layer.bias)
    assert torch.allclose(layer(x), expected, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        assert torch.allclose(layer(x), expected, rtol=1e-5, atol=1e-6)
    back = [torch.autograd.grad(found[:, 3].sum(), x)[0] for found in (layer(x), expected)]
    assert torch.allclose(*back, rtol=1e-5, atol=1e-7)
    assert layer.weight.numel() == rounded.codes.size == 48 * 64 // 2
    partial = model.module.base_model.model.bert.encoder.layer[0].output.dense
    assert type(partial) is torch.nn.Linear, "48 inputs are no whole block"
    outside = model.module.base_model.model.bert.embeddings.word_embeddings.weight
    assert outside.dtype == torch.float32


def test_without_bitsandbytes_qlora_is_refused_with_the_remedy(
    bases: dict[str, LoadedBase], config_for: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for("bert", method="qlora")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(BaseUnusable, match=r"pip install 'candor\[qlora\]'"):
        attach(bases["bert"], config)


REFUSED = [
    ("bert", "lora", ["nowhere"], [], r"config\.adapter\.targets: no adapter fits"),
    ("bert", "lora", ["query", "nowhere"], [], r"config\.adapter\.targets: no layer"),
    ("bert", "lora", ["word_embeddings"], [], r"config\.adapter\.targets: .* is a Embedding"),
    ("bert", "dora", ["word_embeddings"], [], r"config\.adapter\.targets: .* is a Embedding"),
    ("llama", "lora", ["embed_tokens"], [], r"config\.adapter\.targets: .* is a Embedding"),
    ("bert", "lora", ["query", "LayerNorm"], [], r"config\.adapter\.targets: .*LayerNorm.* is not supported"),
    ("llama", "lora", ["self_attn"], [], r"config\.adapter\.targets: .*LlamaAttention"),
    ("gpt2", "qlora", ["c_attn"], [], r"config\.adapter\.method: qlora"),
    ("mixtral", "lora", ["mlp.gate"], [], r"config\.adapter\.targets: .*gate is a MixtralTopKRouter"),
    ("mixtral", "lora", ["q_proj"], ["gate.weight"], r"config\.adapter\.experts: .*gate.* is not of the form"),
    ("mixtral", "lora", ["q_proj"], ["nowhere"], r"config\.adapter\.experts: no fused experts"),
    ("mixtral", "lora", ["q_proj"], ["experts.down_proj", "nowhere"], r"config\.adapter\.experts: no fused experts"),
    ("mixtral", "dora", ["q_proj"], ["experts.down_proj"], r"config\.adapter\.experts: .*DoRA"),
    ("bert", "lora", ["query"], ["experts.down_proj"], r"config\.adapter\.experts: no fused experts"),
]


@pytest.mark.parametrize(("base", "method", "targets", "experts", "message"), REFUSED)
def test_what_cannot_be_adapted_is_refused_with_the_line_at_fault(
    bases: dict[str, LoadedBase], base: str, method: Any, targets: list[str], experts: list[str], message: str
) -> None:
    head = ["classifier" if base == "bert" else "score"]
    with pytest.raises(BaseUnusable, match=message):
        layout(
            bases[base],
            rank=2,
            alpha=4,
            targets=targets,
            head=head,
            labels=3,
            rule="ffa",
            method=method,
            experts=experts,
        )


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (["score", "nowhere"], "no layer is called 'nowhere'"),
        (["nowhere"], "score.weight is not in the weights and not part of the head"),
        ([], "score.weight is not in the weights and not part of the head"),
        (["score", "model.norm"], "model.norm is made of a LlamaRMSNorm"),
        (["score", "embed_tokens"], "embed_tokens is made of a Embedding"),
    ],
)
def test_a_head_that_cannot_be_trained_is_refused_with_the_line(
    bases: dict[str, LoadedBase], head: list[str], message: str
) -> None:
    with pytest.raises(BaseUnusable, match=rf"config\.adapter\.head: {message}"):
        layout(bases["llama"], rank=2, alpha=4, targets=["q_proj"], head=head, labels=3, rule="ffa")


class Routed(torch.nn.Module):
    """A block whose router is a plain Linear layer, as in other mixtures than Mixtral."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.experts = torch.nn.Linear(4, 2), torch.nn.ModuleList()


class Tied(torch.nn.Module):
    """An output layer that shares its matrix with the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.output = torch.nn.Embedding(6, 4), torch.nn.Linear(4, 6, bias=False)
        self.output.weight = self.embedding.weight


@pytest.mark.parametrize(
    ("model", "target", "message"),
    [(Routed(), "gate", "is a router, which stays frozen"), (Tied(), "output", "shares its weights with .*embedding")],
)
def test_routers_and_tied_layers_are_refused(model: torch.nn.Module, target: str, message: str) -> None:
    adapted = get_peft_model(model, LoraConfig(target_modules=[target]))  # type: ignore[arg-type]
    with pytest.raises(BaseUnusable, match=message):
        check(Path("base"), adapted, AdapterSpec(8, 8, (target,), (), ()))


def test_a_base_that_asks_for_a_load_balancing_loss_is_refused(mixtral_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(mixtral_folder, tmp_path / "copy"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"output_router_logits": True}))
    with pytest.raises(BaseUnusable, match="output_router_logits, for a load-balancing loss"):
        layout(load_base(str(folder)), rank=2, alpha=4, targets=["q_proj"], head=["score"], labels=3, rule="ffa")


def test_the_4_bit_codes_are_those_of_bitsandbytes() -> None:
    """Its scales differ by a level here and there: it takes their mean in the order of its machine."""
    functional = bitsandbytes.functional
    values = torch.randn(96, 256, generator=torch.Generator().manual_seed(2)) * 0.05
    ours = quantise(values.numpy())
    packed, state = functional.quantize_4bit(values, blocksize=64, compress_statistics=True, quant_type="nf4")
    assert (packed.numpy().reshape(-1) == ours.codes).all()
    assert int(np.abs(state.absmax.numpy().astype(int) - ours.scales).max()) <= 1
    assert np.abs(state.state2.code.numpy() - SCALE_LEVELS).max() < 1e-7
