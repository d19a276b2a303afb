"""The adapter in a config: a known method, pairs that fit, magnitudes under DoRA alone; the line at fault is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ledger import canonical
from ledger.adapter import METHODS, QuantisedSpec, TensorSpec
from ledger.bundle import adapter_config_json
from ledger.canonical import FieldInvalid
from ledger.config import Config

LAYER = "base_model.model.layer.0.query"
EXPERTS = "base_model.model.layer.0.experts"


def with_method(config: Config, method: str) -> Config:
    """The same round under another method."""
    adapter = replace(config.adapter, method=method)  # type: ignore[arg-type]
    if method == "dora":
        magnitude = TensorSpec(f"{LAYER}.lora_magnitude_vector", (8,), "adapter")
        adapter = replace(adapter, tensors=tuple(sorted((*adapter.tensors, magnitude), key=lambda t: t.name)))
    quantised = QuantisedSpec(bytes([7]) * 32) if method == "qlora" else None
    return replace(config, adapter=adapter, quantised=quantised)


def with_experts(config: Config) -> Config:
    """Three experts, with a pair of rank 2 each."""
    pair = (
        TensorSpec(f"{EXPERTS}.lora_A.weight", (6, 8), "frozen"),
        TensorSpec(f"{EXPERTS}.lora_B.weight", (16, 6), "adapter"),
    )
    tensors = tuple(sorted((*config.adapter.tensors, *pair), key=lambda tensor: tensor.name))
    return replace(config, adapter=replace(config.adapter, tensors=tensors, experts=("experts.gate_up_proj",)))


def edited(config: Config, change: Callable[[Any], None]) -> bytes:
    value = json.loads(config.encode())
    change(value)
    return canonical.encode(value)


def tensor(value: Any, name: str) -> Any:
    return next(entry for entry in value["adapter"]["tensors"] if entry["name"].endswith(name))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_written_and_read(config: Config, method: str) -> None:
    asked = with_method(config, method)
    assert Config.decode(asked.encode()) == asked
    assert len({with_method(config, other).digest for other in METHODS}) == len(METHODS)


def test_the_published_adapter_config_says_the_method(config: Config) -> None:
    flags = {
        method: [
            json.loads(adapter_config_json(with_method(config, method)))[f"use_{name}"] for name in ("rslora", "dora")
        ]
        for method in METHODS
    }
    assert flags == {"lora": [False, False], "rslora": [True, False], "dora": [False, True], "qlora": [False, False]}
    assert "target_parameters" not in json.loads(adapter_config_json(config))
    assert json.loads(adapter_config_json(with_experts(config)))["target_parameters"] == ["experts.gate_up_proj"]


REFUSED: list[tuple[str, str, Callable[[Any], None], str]] = [
    ("lora", "an unknown method", lambda v: v["adapter"].update(method="vera"), "config.adapter.method"),
    ("lora", "no method", lambda v: v["adapter"].pop("method"), "config.adapter: missing field 'method'"),
    ("lora", "a rank above a side", lambda v: (
        v["adapter"].update(rank=9), tensor(v, "lora_A.weight").update(shape=[9, 8]),
        tensor(v, "lora_B.weight").update(shape=[8, 9])), "config.adapter.rank: 9 is above the sides"),
    ("lora", "another rank in the tensors", lambda v: v["adapter"].update(rank=1), "config.adapter.rank is 1"),
    ("lora", "factors that do not fit", lambda v: tensor(v, "lora_B.weight").update(shape=[8, 3]), "A is \\(rank"),
    ("lora", "A alone", lambda v: v["adapter"]["tensors"].pop(3), "A is \\(rank"),
    ("dora", "no magnitude", lambda v: v["adapter"]["tensors"].pop(4), "exactly under the method dora"),
    ("dora", "a magnitude under lora", lambda v: v["adapter"].update(method="lora"), "exactly under the method dora"),
    ("dora", "a magnitude of another length", lambda v: tensor(v, "vector").update(shape=[7]), "for each row of B"),
    ("dora", "a frozen magnitude", lambda v: tensor(v, "vector").update(role="frozen"), "magnitudes have the role"),
    ("qlora", "no 4-bit base", lambda v: v["base"].pop("quantised"), "config.base.quantised"),
    ("qlora", "a 4-bit base under lora", lambda v: v["adapter"].update(method="lora"), "config.base.quantised"),
    ("qlora", "other blocks", lambda v: v["base"]["quantised"].update(block=128), "config.base.quantised.block"),
    ("qlora", "another scheme", lambda v: v["base"]["quantised"].update(scheme="fp4"), "quantised.scheme"),
    ("experts", "a list of no experts", lambda v: v["adapter"].update(experts=[]), "config.adapter.experts"),
    ("experts", "experts that are no list", lambda v: v["adapter"].update(experts="all"), "config.adapter.experts"),
    ("experts", "experts unnamed", lambda v: v["adapter"].pop("experts"), "config.adapter.rank is 2"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "flaw", "change", "named"), REFUSED, ids=[flaw for _, flaw, _, _ in REFUSED])
def test_an_adapter_that_cannot_be_is_refused_with_the_line_at_fault(
    config: Config, method: str, flaw: str, change: Callable[[Any], None], named: str
) -> None:
    honest = with_experts(config) if method == "experts" else with_method(config, method)
    assert Config.decode(honest.encode()) == honest
    with pytest.raises(FieldInvalid, match=named):
        Config.decode(edited(honest, change))


def test_experts_have_no_dora(config: Config) -> None:
    asked = with_experts(config)
    with pytest.raises(FieldInvalid, match=r"config\.adapter\.experts: experts have no DoRA"):
        Config.decode(replace(asked, adapter=replace(asked.adapter, method="dora")).encode())


@pytest.mark.parametrize("method", ["dora", "qlora"])
def test_proofs_of_gradients_are_asked_for_only_where_the_integer_program_knows_the_method(
    proving: Config, method: str
) -> None:
    with pytest.raises(FieldInvalid, match=rf"config\.adapter\.method: .* not {method}; remedy"):
        Config.decode(with_method(proving, method).encode())
    assert Config.decode(with_method(proving, "rslora").encode()).gradient is not None
