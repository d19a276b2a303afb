"""What a config may ask of aggregation: every rule that stands is read back, every one that could not be is refused
with its line, and the configs of a federation that are one are found from each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ledger import canonical
from ledger.aggregation import (
    AggregationSpec,
    NoAggregate,
    RobustSpec,
    WrongHalf,
    aggregated,
    at_rank,
    check_members,
    check_round,
    in_round,
    part_of,
    role_of,
    start_of,
)
from ledger.bundle import adapter_config_json
from ledger.canonical import FieldInvalid
from ledger.config import Config, TensorSpec
from ledger.privacy import spend_of

A = "base_model.model.layer.0.query.lora_A.weight"
B = "base_model.model.layer.0.query.lora_B.weight"


def under(config: Config, rule: Any, quorum: int = 2, **fields: Any) -> Config:
    """The config under another rule, its tensors in that rule's roles."""
    tensors = tuple(replace(t, role=role_of(t.name, rule)) for t in config.adapter.tensors)
    return replace(
        config,
        adapter=replace(config.adapter, tensors=tensors),
        aggregation=AggregationSpec(rule, **fields),
        policy=replace(config.policy, quorum=quorum),
    )


STANDING: list[tuple[str, int, dict[str, Any]]] = [
    ("fedavg", 1, {"weights": ((1, 3),)}),
    ("rolora", 1, {}),
    ("stack", 1, {"weights": ((0, 2),), "ranks": ((1, 1),)}),
    ("svd", 1, {"ranks": ((0, 1), (2, 1))}),
    ("ffa", 3, {"robust": RobustSpec("median")}),
    ("fedavg", 3, {"robust": RobustSpec("trimmed-mean", 1)}),
    ("rolora", 5, {"robust": RobustSpec("multi-krum", 1, 2)}),
    ("ffa", 3, {"robust": RobustSpec("norm-clip"), "weights": ((2, 9),)}),
]


@pytest.mark.parametrize(
    ("rule", "quorum", "fields"), STANDING, ids=[f"{r}-{n}" for n, (r, _, _) in enumerate(STANDING)]
)
def test_every_rule_is_read_back_as_it_was_written(
    config: Config, rule: str, quorum: int, fields: dict[str, Any]
) -> None:
    asked = under(config, rule, quorum, **fields)
    assert Config.decode(asked.encode()) == asked
    assert asked.digest != config.digest


REFUSED: list[tuple[str, dict[str, Any], Any, str]] = [
    ("ranks under a mean of halves", {"rule": "ffa"}, lambda a: a.update(ranks=[[1, 1]]), "aggregation.ranks: .*svd"),
    ("no ranks", {"rule": "svd"}, lambda a: a.update(ranks=[]), "aggregation.ranks"),
    ("a rank that is the adapter's", {"rule": "svd"}, lambda a: a.update(ranks=[[1, 2]]), "aggregation.ranks"),
    ("a rank of nought", {"rule": "stack"}, lambda a: a.update(ranks=[[1, 0]]), "aggregation.ranks"),
    ("a robust product", {"rule": "svd", "quorum": 3}, lambda a: a.update(robust={"name": "median"}), "robust: median"),
    ("an unknown rule", {"rule": "ffa"}, lambda a: a.update(robust={"name": "mode"}), "robust.name"),
    ("a median of two", {"rule": "ffa"}, lambda a: a.update(robust={"name": "median"}), "policy.quorum: 2, .*needs 3"),
    ("clipping two", {"rule": "ffa"}, lambda a: a.update(robust={"name": "norm-clip"}), "policy.quorum"),
    (
        "trimming all",
        {"rule": "ffa", "quorum": 4},
        lambda a: a.update(robust={"name": "trimmed-mean", "tolerates": 2}),
        "policy.quorum: 4, .*needs 5",
    ),
    (
        "trimming nobody",
        {"rule": "ffa", "quorum": 4},
        lambda a: a.update(robust={"name": "trimmed-mean", "tolerates": 0}),
        "robust.tolerates",
    ),
    (
        "krum of four",
        {"rule": "ffa", "quorum": 4},
        lambda a: a.update(robust={"name": "multi-krum", "tolerates": 1, "keep": 1}),
        "policy.quorum: 4, .*needs 5",
    ),
    (
        "krum that keeps liars",
        {"rule": "ffa", "quorum": 5},
        lambda a: a.update(robust={"name": "multi-krum", "tolerates": 1, "keep": 3}),
        "robust.keep",
    ),
    (
        "a number that the rule does not know",
        {"rule": "ffa", "quorum": 3},
        lambda a: a.update(robust={"name": "median", "keep": 1}),
        "robust: unknown fields",
    ),
    (
        "a weighted median",
        {"rule": "ffa", "quorum": 3, "weights": ((0, 2),)},
        lambda a: a.update(robust={"name": "median"}),
        "aggregation.weights: median knows no weights",
    ),
]


@pytest.mark.parametrize(("flaw", "start", "edit", "named"), REFUSED, ids=[flaw for flaw, *_ in REFUSED])
def test_a_rule_that_could_not_be_is_refused_with_its_line(
    config: Config, flaw: str, start: dict[str, Any], edit: Callable[[Any], None], named: str
) -> None:
    value = json.loads(under(config, **start).encode())
    edit(value["aggregation"])
    with pytest.raises(FieldInvalid, match=f"config[.].*{named}"):
        Config.decode(canonical.encode(value))


def test_roles_that_are_not_the_rules_are_refused(config: Config) -> None:
    for rule, roles in (("fedavg", "ffa"), ("svd", "ffa"), ("stack", "ffa"), ("rolora", "fedavg"), ("ffa", "svd")):
        wrong = replace(under(config, roles), aggregation=AggregationSpec(rule))  # type: ignore[arg-type]
        with pytest.raises(FieldInvalid, match=f"config.adapter.tensors.*under {rule}"):
            Config.decode(wrong.encode())


def test_a_rank_whose_alpha_is_no_integer_is_refused_with_the_remedy(config: Config) -> None:
    odd = under(config, "svd", ranks=((1, 1),))
    with pytest.raises(FieldInvalid, match=r"config.aggregation.ranks: member 1 .*remedy: an alpha that 2 divides"):
        Config.decode(replace(odd, adapter=replace(odd.adapter, alpha=3)).encode())


def test_under_rslora_a_rank_is_scaled_by_its_root(config: Config) -> None:
    """A member's pairs add what they would add at the adapter's own rank, filled up with zeros."""
    asked = under(config, "svd", ranks=((1, 1),))
    wide = at_rank(asked, 4)
    adapter = replace(wide.adapter, method="rslora", alpha=8)
    whole = Config.decode(replace(wide, adapter=adapter, whole=None).encode())
    part = part_of(whole, 1)
    assert (part.adapter.rank, part.adapter.alpha) == (1, 4)
    assert part.adapter.alpha / part.adapter.rank**0.5 == whole.adapter.alpha / whole.adapter.rank**0.5
    two = replace(whole, aggregation=replace(whole.aggregation, ranks=((1, 2),)))
    with pytest.raises(FieldInvalid, match=r"config.aggregation.ranks: member 1 .*8·√\(2/4\); remedy: a quarter of 4"):
        Config.decode(two.encode())


@pytest.mark.parametrize(("rule", "method"), [("svd", "dora"), ("stack", "dora"), ("stack", "rslora")])
def test_products_of_adapters_that_are_no_products_are_refused(config: Config, rule: str, method: Any) -> None:
    asked, beside = under(config, rule), B.replace("lora_B.weight", "lora_magnitude_vector")
    tensors = (*asked.adapter.tensors, *([TensorSpec(beside, (8,), "adapter")] if method == "dora" else []))
    adapter = replace(asked.adapter, method=method, tensors=tensors)
    with pytest.raises(FieldInvalid, match=f"config.aggregation.rule: .*{rule} .*{method}.*remedy"):
        Config.decode(replace(asked, adapter=adapter).encode())


@pytest.mark.parametrize("rule", ["rolora", "svd", "stack"])
def test_gradients_are_proven_only_where_there_is_a_proof(proving: Config, rule: str) -> None:
    with pytest.raises(FieldInvalid, match=f"config.aggregation.rule: .*not {rule}; remedy"):
        Config.decode(under(proving, rule).encode())


# ---- RoLoRA's two configs


def test_halves_take_turns_by_the_number_of_the_round(config: Config) -> None:
    odd = under(config, "rolora")
    even = in_round(odd, 2)
    for found, frozen, trained in ((odd, A, B), (even, B, A)):
        roles = {tensor.name: tensor.role for tensor in found.adapter.tensors}
        assert (roles[frozen], roles[trained]) == ("frozen", "adapter")
        assert Config.decode(found.encode()) == found
    assert in_round(even, 7) == odd
    assert in_round(odd, 1) == odd
    assert odd.digest != even.digest


def test_a_round_of_the_other_half_is_refused(config: Config) -> None:
    odd = under(config, "rolora")
    check_round(odd, 5)
    with pytest.raises(WrongHalf, match="every B is frozen in round 6"):
        check_round(odd, 6)
    check_round(config, 6)


# ---- ranks


def test_a_member_of_smaller_rank_has_the_same_config_by_name_and_pays_the_same(config: Config) -> None:
    whole = under(config, "svd", ranks=((1, 1),))
    part = part_of(whole, 1)
    assert part_of(whole, 0) is whole
    assert {t.name: t.shape for t in part.adapter.tensors if "lora" in t.name} == {A: (1, 8), B: (8, 1)}
    assert (part.adapter.rank, part.adapter.alpha) == (1, 2)
    assert (part.encode(), part.digest) == (whole.encode(), whole.digest)
    assert adapter_config_json(part) != adapter_config_json(whole)
    assert spend_of(part) == spend_of(whole)
    assert sum(part.shape.groups) == part.adapter.parameters < whole.adapter.parameters


def test_a_member_of_smaller_rank_starts_from_the_first_components(config: Config) -> None:
    part = part_of(under(config, "stack", ranks=((1, 1),)), 1)
    weights = {t.name: np.arange(t.size).reshape(t.shape) for t in config.adapter.tensors}
    start = start_of(part, weights)
    assert start[A].tolist() == weights[A][:1].tolist()
    assert start[B].tolist() == weights[B][:, :1].tolist()


def test_a_stack_has_the_ranks_of_those_who_are_in_it(config: Config) -> None:
    whole = under(config, "stack", ranks=((1, 1),))
    found = aggregated(whole, [0, 1, 5])
    assert (found.adapter.rank, found.adapter.alpha) == (5, 10)
    assert found.digest == whole.digest
    assert aggregated(config, [0, 1]) is config


def test_there_is_no_aggregate_of_too_few_nor_of_more_than_svd_can_take(config: Config) -> None:
    robust = under(config, "ffa", 3, robust=RobustSpec("median"))
    check_members(robust, [0, 1, 2])
    with pytest.raises(NoAggregate, match="3 members are needed, 2 were accepted"):
        check_members(robust, [0, 1])
    check_members(under(config, "svd"), range(64))
    with pytest.raises(NoAggregate, match="ranks of 130 together"):
        check_members(under(config, "svd"), range(65))
