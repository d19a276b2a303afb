"""One gradient per example and parameter, exact, by the fast route; anything else is refused before it is clipped."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from opacus.grad_sample import GradSampleModule

from ledger.aggregation import half_of, in_round
from node.gradients import NotPerExample, PerExampleGradients
from node.model import LoadedModel, NothingToPredict

KINDS = ["bert", "llama", "language"]
MODELS = [(kind, rule) for kind in KINDS for rule in ("fedavg", "ffa")]
LABELS = [0, 2, 1, 0, 1, 2]

Build = Callable[..., LoadedModel]
Samples = dict[str, torch.Tensor]
Gradients = Callable[[LoadedModel, list[list[int]], list[int]], Samples]
Compare = Callable[[Samples, Samples], None]


def stock_opacus(model: LoadedModel, ids: list[list[int]], labels: list[int]) -> Samples:
    trained = {tensor.name: model.parameters[tensor.name] for tensor in model.config.adapter.trained}
    for parameter in trained.values():
        parameter.requires_grad_(True)
        parameter.grad_sample = None  # type: ignore[attr-defined]
    hooked = GradSampleModule(model.module, loss_reduction="sum", strict=False)
    for module in model.module.modules():
        module.training = isinstance(module, torch.nn.Linear)  # Opacus looks at modules in training only; no dropout
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch on full backward hooks where no input needs a gradient
        model.losses(ids, labels).sum().backward()  # type: ignore[no-untyped-call]
    found = {name: parameter.grad_sample.detach() for name, parameter in trained.items()}  # type: ignore[attr-defined]
    hooked.to_standard_module()
    model.module.eval()
    for parameter in trained.values():
        parameter.requires_grad_(False)
        parameter.grad = None
    return found


@pytest.mark.parametrize(("kind", "rule"), MODELS)
def test_the_fast_route_is_what_single_backward_passes_give(
    model_for: Build,
    texts: list[str],
    kind: str,
    rule: str,
    fast: Gradients,
    one_by_one: Gradients,
    assert_equal: Compare,
) -> None:
    model = model_for(kind, rule)
    ids = model.encode(texts)
    assert_equal(fast(model, ids, LABELS), one_by_one(model, ids, LABELS))


@pytest.mark.parametrize(("kind", "rule"), MODELS)
def test_the_fast_route_is_what_stock_opacus_hooks_give(
    model_for: Build, texts: list[str], kind: str, rule: str, fast: Gradients, assert_equal: Compare
) -> None:
    model = model_for(kind, rule)
    ids = model.encode(texts)
    assert_equal(fast(model, ids, LABELS), stock_opacus(model, ids, LABELS))


def test_the_half_that_rolora_trains_in_even_rounds_has_exact_gradients_too(
    model_for: Build, texts: list[str], fast: Gradients, one_by_one: Gradients, assert_equal: Compare
) -> None:
    model = model_for("llama", "rolora")
    model = replace(model, config=in_round(model.config, 2))
    ids = model.encode(texts)
    found = fast(model, ids, LABELS)
    assert {half_of(name) for name in found} == {"A", None}
    assert_equal(found, one_by_one(model, ids, LABELS))


@pytest.mark.parametrize("kind", KINDS)
def test_changing_one_example_changes_only_its_own_gradient(
    model_for: Build, texts: list[str], kind: str, fast: Gradients
) -> None:
    model = model_for(kind)
    ids = model.encode(texts)
    before = fast(model, ids, LABELS)
    neighbour = [*ids[:2], model.encode(["nothing is late"])[0], *ids[3:]]
    after = fast(model, neighbour, [*LABELS[:2], 2, *LABELS[3:]])
    others = [0, 1, 3, 4, 5]
    for name, value in before.items():
        assert torch.allclose(value[others], after[name][others], rtol=1e-5, atol=1e-7)
        assert not torch.allclose(value[2], after[name][2], rtol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_an_examples_gradient_does_not_depend_on_its_company_or_its_padding(
    model_for: Build, texts: list[str], kind: str, fast: Gradients, assert_equal: Compare
) -> None:
    model = model_for(kind)
    ids = model.encode(texts)
    together, alone = fast(model, ids, LABELS), fast(model, ids[3:4], LABELS[3:4])
    assert len(ids[3]) < max(map(len, ids))
    assert_equal({name: value[3:4] for name, value in together.items()}, alone)


def test_the_batch_loss_of_transformers_would_couple_the_examples(model_for: Build, texts: list[str]) -> None:
    """Why it is never used: its mean is over the tokens of all texts, so long texts outweigh short ones."""
    model = model_for("language")
    ids = model.encode(texts)
    width = max(map(len, ids))
    padded = torch.tensor([row + [0] * (width - len(row)) for row in ids])
    targets = torch.tensor([row + [-100] * (width - len(row)) for row in ids])
    with torch.no_grad():
        theirs = model.module(input_ids=padded, labels=targets).loss
        ours = model.losses(ids, LABELS)
        alone = torch.stack([model.losses([row], [0])[0] for row in ids])
    assert torch.allclose(ours, alone, atol=1e-5)
    assert abs(float(theirs) - float(ours.mean())) > 0.05


def test_a_text_of_one_token_has_no_loss(model_for: Build, fast: Gradients) -> None:
    with pytest.raises(NothingToPredict):
        fast(model_for("language"), [[1, 70, 71], [1]], [0, 0])


def test_no_parameter_asks_autograd_for_a_gradient(model_for: Build, texts: list[str], fast: Gradients) -> None:
    model = model_for("bert")
    fast(model, model.encode(texts), LABELS)
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.module.parameters())


def test_an_empty_draw_has_no_gradients_but_the_right_shapes(model_for: Build) -> None:
    gradients = PerExampleGradients(model_for("bert"))
    gradients.fill_empty()
    for parameter in gradients.trained.values():
        assert parameter.grad_sample.shape == (0, *parameter.shape)  # type: ignore[attr-defined]


class CalledTwice(LoadedModel):
    """A model whose layers are shared by two passes."""

    def logits(self, ids: Any) -> torch.Tensor:
        return super().logits(ids) + super().logits([row[:3] for row in ids])


class Flattened(LoadedModel):
    """A model whose layers see more rows than there are examples, as experts do."""

    def logits(self, ids: Any) -> torch.Tensor:
        return super().logits([*ids, *ids])[: len(ids)]


class Bypassed(LoadedModel):
    """A model that answers without its trained layers."""

    def logits(self, ids: Any) -> torch.Tensor:
        return torch.zeros(len(ids), 3, requires_grad=True)


def as_kind(kind: type[LoadedModel], model: LoadedModel) -> LoadedModel:
    return kind(model.config, model.base, model.module, model.parameters)


def test_a_layer_that_is_called_twice_adds_up(
    model_for: Build, texts: list[str], fast: Gradients, one_by_one: Gradients, assert_equal: Compare
) -> None:
    model = as_kind(CalledTwice, model_for("bert", "fedavg"))
    ids = model.encode(texts)
    assert_equal(fast(model, ids, LABELS), one_by_one(model, ids, LABELS))


@pytest.mark.parametrize(("kind", "message"), [(Flattened, "sees 12 rows"), (Bypassed, "found None")])
def test_anything_but_one_gradient_per_example_is_refused(
    model_for: Build, texts: list[str], kind: type[LoadedModel], message: str, fast: Gradients
) -> None:
    model = as_kind(kind, model_for("bert"))
    with pytest.raises(NotPerExample, match=message):
        fast(model, model.encode(texts), LABELS)
    assert not any("forward" in vars(module) for module in model.module.modules()), "a layer still takes gradients"


def test_a_head_that_is_not_made_of_linear_layers_is_refused(model_for: Build) -> None:
    model = model_for("bert")
    wrapper = model.module.base_model.model.classifier.modules_to_save
    wrapper["default"] = torch.nn.Bilinear(64, 64, 3)
    model.parameters["base_model.model.classifier.weight"] = wrapper["default"].weight
    with pytest.raises(NotPerExample, match="in no LoRA pair, gate, or Linear layer"):
        PerExampleGradients(model)
