"""Mixtures of final adapters: what they compute, one exact gradient for each example, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel, XLoraConfig, get_peft_model

from ledger.adapter import MIXTURES
from ledger.aggregation import AggregationSpec, at_rank
from ledger.bundle import GenesisBundle
from ledger.canonical import FieldInvalid
from ledger.config import Config, GradientSpec, QuantisedSpec
from ledger.log.receipt import Decoding
from ledger.parents import Parent, ParentRefused, check_parent
from node.engine import Engine
from node.gradients import PerExampleGradients
from node.mixture import NothingLeft, mixed_adapter
from node.model import BaseMismatch, BaseUnusable, LoadedBase, LoadedModel, attach, first_weights
from node.serving.engine import Job

LABELS = [0, 2, 1, 0, 1, 2]
PLAIN, FOUR_BIT = ("lora", "rslora", "dora"), ("qlora", "qlora")
CASES = [(base, method, PLAIN) for base in ("bert", "llama", "gpt2", "mixtral", "language") for method in MIXTURES]
CASES += [(base, method, FOUR_BIT) for base in ("bert", "llama", "mixtral") for method in MIXTURES]
Gradients = Callable[[LoadedModel, list[list[int]], list[int]], dict[str, torch.Tensor]]
MixtureOf = Callable[..., tuple[LoadedModel, tuple[Parent, ...]]]


@pytest.fixture(scope="module")
def mixture_of(bases: dict[str, LoadedBase], config_for: Callable[..., Config]) -> MixtureOf:
    """mixture_of(kind, method, parents=…, top_k=…): a mixture with gates away from zero, and its parents."""

    def build(
        kind: str, method: str, parents: tuple[str, ...] = PLAIN, top_k: int = 0
    ) -> tuple[LoadedModel, tuple[Parent, ...]]:
        base, random, found = bases[kind], np.random.default_rng(4), []
        for number, of_parent in enumerate(parents):
            config = at_rank(config_for(kind, "fedavg", method=of_parent), (2, 8, 3)[number])
            weights = first_weights(base, config, f"parent {number}")
            weights = {name: units + random.integers(-9000, 9000, units.shape) for name, units in weights.items()}
            found.append(Parent(sha256(b"parent %d" % number).digest(), config, weights))
        plain, labels = config_for(kind, "fedavg"), len(found[0].config.task.labels)
        adapter = mixed_adapter(base, method, found, labels, top_k)  # type: ignore[arg-type]
        config = Config.decode(replace(plain, adapter=adapter, quantised=found[0].config.quantised).encode())
        model = attach(base, config, found)
        model.load_weights({t.name: random.integers(-30000, 30000, t.shape) for t in adapter.tensors})
        return model, tuple(found)

    return build


@pytest.mark.parametrize(("base", "method", "of_parents"), CASES)
def test_the_gates_gradients_are_what_single_backward_passes_give(
    mixture_of: MixtureOf,
    texts: list[str],
    base: str,
    method: str,
    of_parents: tuple[str, ...],
    fast: Gradients,
    one_by_one: Gradients,
) -> None:
    """And a changed example changes its own alone."""
    model, _ = mixture_of(base, method, of_parents, (len(of_parents) - 1) if method == "x-lora" else 0)
    ids = model.encode(texts)
    found, expected = fast(model, ids, LABELS), one_by_one(model, ids, LABELS)
    changed = fast(model, [*ids[:2], ids[2][::-1], *ids[3:]], LABELS)
    others = [0, 1, 3, 4, 5]
    for name, value in expected.items():
        scale = float(value.abs().max())
        assert scale > 0
        assert float((found[name] - value).abs().max()) <= 1e-5 * scale, name
        assert float((found[name] - changed[name])[others].abs().max()) <= 1e-5 * scale, name
        assert not torch.equal(found[name][2], changed[name][2])


def test_an_empty_draw_has_no_gradients_and_activations_computed_twice_the_same(
    mixture_of: MixtureOf, texts: list[str], fast: Gradients
) -> None:
    for method in MIXTURES:
        model, _ = mixture_of("bert", method)
        ids = model.encode(texts)
        before = fast(model, ids, LABELS)
        model.checkpoint()
        for name, value in fast(model, ids, LABELS).items():
            assert float((value - before[name]).abs().max()) <= 1e-5 * float(value.abs().max())
        gradients = PerExampleGradients(model)
        gradients.fill_empty()
        for parameter in gradients.trained.values():
            assert parameter.grad_sample.shape == (0, *parameter.shape)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("base", "method", "of_parents"), CASES)
def test_with_all_others_masked_a_mixture_is_the_parent_that_is_left(
    bases: dict[str, LoadedBase],
    mixture_of: MixtureOf,
    texts: list[str],
    base: str,
    method: str,
    of_parents: tuple[str, ...],
) -> None:
    """Whatever the gates have learned: shares are renormalised over those that are left."""
    model, parents = mixture_of(base, method, of_parents)
    ids = model.encode(texts)
    with torch.no_grad():
        mixed = model.logits(ids)
        for parent in parents:
            model.module.leave_out([other.bundle for other in parents if other is not parent])
            alone = attach(bases[base], parent.config)
            alone.load_weights(parent.weights)
            expected = alone.logits(ids)
            assert float((model.logits(ids) - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
            assert not torch.allclose(mixed, expected, rtol=1e-3)
        model.module.leave_out([])
        assert torch.equal(model.logits(ids), mixed)


def test_a_mask_that_leaves_nothing_is_refused(mixture_of: MixtureOf) -> None:
    model, parents = mixture_of("llama", "mole")
    with pytest.raises(NothingLeft, match="no parent would be left"):
        model.module.leave_out([parent.bundle for parent in parents])
    with pytest.raises(NothingLeft, match="no parent of this mixture"):
        model.module.leave_out([bytes(32)])


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_x_lora_is_what_pefts_own_computes_where_that_works(
    mixture_of: MixtureOf, texts: list[str], tmp_path: Path
) -> None:
    model, parents = mixture_of("language", "x-lora", ("lora", "lora"))
    for number, parent in enumerate(parents):
        for path, data in GenesisBundle(parent.config, parent.weights).files().items():
            (tmp_path / str(number) / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / str(number) / path).write_bytes(data)
    base: Any = model.base.build(0, ())
    base.config.use_cache = False
    asked = XLoraConfig(
        task_type="CAUSAL_LM",
        hidden_size=base.config.hidden_size,
        xlora_depth=1,
        layerwise_scalings=True,
        scaling_pass_value=0.5,
        adapters={str(number): str(tmp_path / str(number)) for number in range(2)},
    )
    theirs: PeftModel = get_peft_model(base, asked).eval()  # type: ignore[assignment]
    head: Any = theirs.base_model.internal_xlora_classifier.layers[-1]
    order = [
        name.removeprefix("base_model.lora_model.model.")
        for name, module in theirs.named_modules()
        if hasattr(module, "lora_A") and hasattr(module, "base_layer")
    ]
    places = [sorted(order).index(name) for name in order]
    with torch.no_grad():
        for mine, other in (("weight", head.weight), ("bias", head.bias)):
            own = model.parameters[f"candor.scaling.{mine}"]
            other.copy_(own.reshape(len(order), 2, -1)[places].reshape(other.shape))
        for row in model.encode(texts):
            expected = theirs(input_ids=torch.tensor([row])).logits
            found = model.module(input_ids=torch.tensor([row])).logits
            assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize(("method", "of_parents"), [*((method, PLAIN) for method in MIXTURES), ("x-lora", FOUR_BIT)])
def test_an_answer_is_the_same_with_and_without_a_cache(
    mixture_of: MixtureOf, texts: list[str], method: str, of_parents: tuple[str, ...]
) -> None:
    """Both passes of x-lora remember; padding and company change nothing."""
    model, _ = mixture_of("language", method, of_parents)
    engine = Engine(model, bytes(32))
    jobs = [Job(tuple(engine.encode(text)), Decoding(6, Fraction(0), Fraction(1), 0, 0)) for text in texts[:3]]
    for job, outcome in zip(jobs, engine.generate(jobs, lambda step: None, lambda number: False), strict=True):
        _, scores = engine.follow(job.tokens, outcome.tokens)
        assert list(outcome.tokens) == scores.argmax(axis=1).tolist()


def test_parents_over_a_4_bit_base_are_mixed_on_that_very_base(
    mixture_of: MixtureOf, bases: dict[str, LoadedBase]
) -> None:
    """What the config names, the mixture computes with; a parent over other numbers is no parent."""
    model, (first, *_) = mixture_of("bert", "mole", FOUR_BIT)
    config, layer = model.config, model.module.model.bert.encoder.layer[0].attention.self.query
    rounded = bases["bert"].kept[config.adapter.head]["bert.encoder.layer.0.attention.self.query.weight"]
    assert np.array_equal(layer.base_layer.weight.numpy().reshape(-1), rounded.codes)
    whole, other = replace(config, quantised=None), replace(config, quantised=QuantisedSpec(bytes(32)))
    check_parent(config, first.config, 1)
    for asked, of_parent in (
        (whole, first.config),
        (other, first.config),
        (config, replace(first.config, adapter=replace(first.config.adapter, method="lora"), quantised=None)),
    ):
        with pytest.raises(ParentRefused, match=r"config\.adapter\.parents: .* \(config\.base\.quantised\)"):
            check_parent(asked, of_parent, 1)
    with pytest.raises(BaseMismatch, match=r"config\.base\.quantised\.digest"):
        attach(bases["bert"], other, [replace(first, bundle=bundle) for bundle in config.adapter.parents])


def test_what_a_mixture_may_not_ask_for(mixture_of: MixtureOf, bases: dict[str, LoadedBase]) -> None:
    """The line at fault is named."""
    model, parents = mixture_of("bert", "x-lora")
    config, adapter = model.config, model.config.adapter
    first = adapter.tensors[0]
    shown = replace(config.policy, proof_required=True)
    wrong: list[tuple[Config, str]] = [
        (replace(config, proof_policy="gradient", gradient=GradientSpec(1, 8), policy=shown), "config.adapter.method"),
        (replace(config, aggregation=AggregationSpec("svd")), "config.aggregation.rule"),
        (replace(config, aggregation=AggregationSpec("rolora")), "config.aggregation.rule"),
        (replace(config, adapter=replace(adapter, parents=adapter.parents[:1])), "config.adapter.parents"),
        (replace(config, adapter=replace(adapter, parents=adapter.parents[:1] * 2)), "config.adapter.parents"),
        (replace(config, adapter=replace(adapter, parents=adapter.parents[:2])), "config.adapter.top_k"),
        (replace(config, adapter=replace(adapter, top_k=4)), "config.adapter.top_k"),
        (replace(config, adapter=replace(adapter, rank=2)), "config.adapter.rank"),
        (replace(config, adapter=replace(adapter, tensors=(first,))), "config.adapter.tensors"),
        (replace(config, adapter=replace(adapter, method="mole", top_k=0)), "config.adapter.tensors"),
    ]
    for asked, line in wrong:
        with pytest.raises(FieldInvalid, match=line):
            Config.decode(asked.encode())
    with pytest.raises(BaseUnusable, match=r"config\.adapter\.parents: the parents are not at hand"):
        attach(bases["bert"], config, parents[:2])


def test_a_parent_whose_tensors_are_not_for_the_base_is_refused(
    mixture_of: MixtureOf, bases: dict[str, LoadedBase]
) -> None:
    """Whoever made such an aggregate final: its tensors are looked at before they are used."""
    model, parents = mixture_of("bert", "mole")
    name = next(name for name in parents[0].weights if name.endswith(".lora_B.weight"))
    layer = name.removesuffix(".lora_B.weight")
    a, b = (parents[0].weights[f"{layer}.lora_{half}.weight"] for half in "AB")
    above = layer.rpartition(".")[0]
    head = next(name for name in parents[0].weights if name.endswith("classifier.weight"))
    wrong = [
        ({name: parents[0].weights[name][:-1]}, "has a pair of"),
        ({f"{layer}.none.lora_A.weight": a}, "the base has no layer"),
        ({f"{above}.lora_A.weight": a, f"{above}.lora_B.weight": b}, "mixed are Linear layers only"),
        ({head: parents[0].weights[head][:-1]}, "has another head"),
    ]
    for changed, why in wrong:
        odd = replace(parents[0], weights=parents[0].weights | changed)
        with pytest.raises(BaseUnusable, match=why):
            attach(bases["bert"], model.config, (odd, *parents[1:]))
