"""candor-devnet: what it refuses before it starts anything, and what it tells."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from devnet.cli import app, parse_misbehave, policy_for
from devnet.federation import Plan, PlanInvalid, kept_facts
from devnet.kinds import KINDS, KindUnknown
from devnet.presets import (
    PARENTS,
    PRESETS,
    RULES,
    TINY,
    Preset,
    last_config,
    make_config,
    mix_config,
    with_method,
    with_rule,
)
from devnet.scenarios import fresh_folder
from devnet.serving import Served, no_program
from ledger.adapter import METHODS
from ledger.aggregation import in_round
from ledger.bundle import AggregateBundle, bundle_limits
from ledger.canonical import FieldInvalid
from ledger.config import GRADIENT_METHODS, Config, GradientSpec
from ledger.content import EmbeddedStore
from ledger.parents import Parent
from ledger.privacy import epsilon, spend_of
from node.model import LoadedBase, load_base
from proofs.errors import LocalFault

RUN = CliRunner()


def test_kinds_are_told_for_people_and_for_programs() -> None:
    told = RUN.invoke(app, ["kinds"], env={"COLUMNS": "250"}).output
    listed = json.loads(RUN.invoke(app, ["kinds", "--json"]).output)
    assert [item["kind"] for item in listed] == list(KINDS)
    assert [name for name in KINDS if name not in told] == []


def test_daemons_are_named_by_number_or_in_full() -> None:
    chosen = parse_misbehave(["1=nan", "node-2=late@2", "node-2=vanish@3", "aggregator=sleeps"])
    assert chosen == {"node-1": ("nan",), "node-2": ("late@2", "vanish@3"), "aggregator-0": ("sleeps",)}


@pytest.mark.parametrize(
    ("option", "error"),
    [("1", PlanInvalid), ("1=no-such-kind", KindUnknown), ("aggregator=nan", PlanInvalid), ("1=sleeps", PlanInvalid)],
)
def test_a_misbehaviour_that_cannot_be_is_refused(option: str, error: type[LocalFault]) -> None:
    with pytest.raises(error):
        parse_misbehave([option])


# ---- proofs of gradients: one field of a preset away


SHOWING = replace(TINY, gradient=GradientSpec(4, 8))
PLAIN = replace(TINY, gradient=None)


def plan(preset: Preset, folder: Path, *, kinds: tuple[str, ...] = (), **changes: Any) -> Plan:
    return Plan(preset, folder, policy_for(preset, 3), misbehave={"node-1": kinds}, **changes)


def test_a_preset_with_a_gradient_asks_for_proofs_of_it_and_others_do_not() -> None:
    config, _ = make_config(SHOWING, epsilon=8.0, rounds=1, policy=policy_for(SHOWING, 3))
    assert (config.proof_policy, config.gradient) == ("gradient", GradientSpec(4, 8))
    assert config.policy.proof_required
    for preset in PRESETS.values():
        policy = policy_for(preset, 3)
        assert policy.proof_required == (policy.prove_blocks > 0) == (preset.gradient is not None)
    plain, _ = make_config(PLAIN, epsilon=8.0, rounds=1, policy=policy_for(PLAIN, 3))
    assert (plain.proof_policy, plain.gradient) == ("mechanism", None)


def test_without_noise_nothing_is_proven_whatever_the_preset_says() -> None:
    config, _ = make_config(SHOWING, epsilon=None, rounds=1, policy=policy_for(SHOWING, 3, noise=False))
    assert (config.proof_policy, config.gradient, config.policy.proof_required) == ("none", None, False)


def test_who_misbehaves_in_prove_needs_a_prove_phase(tmp_path: Path) -> None:
    for name in (name for name, kind in KINDS.items() if kind.in_prove):
        plan(SHOWING, tmp_path, kinds=(name,)).check()
        with pytest.raises(PlanInvalid, match="asks for no proofs of gradients"):
            plan(PLAIN, tmp_path, kinds=(f"{name}@2",)).check()


def test_a_policy_and_a_preset_that_differ_about_prove_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanInvalid, match="exactly where"):
        Plan(SHOWING, tmp_path, policy_for(PLAIN, 3)).check()
    with pytest.raises(PlanInvalid, match="exactly where"):
        Plan(PLAIN, tmp_path, policy_for(SHOWING, 3)).check()


# ---- methods


@pytest.mark.parametrize("method", METHODS)
def test_every_method_makes_a_config_and_gradients_are_proven_where_they_can_be(method: str, base: LoadedBase) -> None:
    preset = with_method(TINY, method)
    config, weights = make_config(preset, epsilon=8.0, rounds=3, policy=policy_for(preset, 3), base=base)
    assert config.adapter.method == method
    assert (config.proof_policy == "gradient") is (method in ("lora", "rslora"))
    assert weights.keys() == {tensor.name for tensor in config.adapter.tensors}


@pytest.mark.parametrize(("method", "of_parents"), [("mole", None), ("x-lora", "qlora")])
def test_a_mixture_costs_what_its_parents_left_of_the_budget(
    method: str, of_parents: str | None, base: LoadedBase, tmp_path: Path
) -> None:
    """Two rounds of its parents, and one of its own, in one plan."""
    preset = with_method(TINY, method, of_parents)
    with pytest.raises(PlanInvalid, match="2 rounds make a mixture's parents: it needs one more"):
        plan(preset, tmp_path, rounds=2).check()
    plan(preset, tmp_path, rounds=3).check()
    first, weights = make_config(preset, epsilon=8.0, rounds=3, policy=policy_for(preset, 3), base=base)
    assert (first.adapter.method, first.proof_policy) == (of_parents or "lora", "mechanism")
    parents, spent = [Parent(bytes([n]) * 32, first, weights) for n in range(PARENTS)], [spend_of(first)] * PARENTS
    mixture = mix_config(preset, first, base, parents, epsilon=8.0, rounds=1, history=spent)
    assert (mixture.adapter.method, mixture.adapter.parents) == (method, tuple(parent.bundle for parent in parents))
    assert mixture.quantised == first.quantised
    assert 7.5 < epsilon([*spent, spend_of(mixture)], first.privacy.delta) <= 8.0


def test_a_method_and_a_rule_go_together_unless_the_config_refuses_them(base: LoadedBase) -> None:
    preset = with_rule(with_method(TINY, "dora"), "svd")
    with pytest.raises(FieldInvalid, match=r"config\.aggregation\.rule"):
        make_config(preset, epsilon=8.0, rounds=1, policy=policy_for(preset, 3), base=base)


# ---- rules of aggregation


@pytest.fixture(scope="module")
def base() -> LoadedBase:
    return load_base(TINY.base_path)


@pytest.mark.parametrize("name", RULES)
def test_every_rule_makes_a_config_and_gradients_are_proven_where_they_can_be(name: str, base: LoadedBase) -> None:
    ranks = {1: 2} if name in ("svd", "stack") else {}
    preset = with_rule(TINY, name, ranks)
    config, weights = make_config(preset, epsilon=None, rounds=1, policy=policy_for(preset, 5, noise=False), base=base)
    assert Config.decode(config.encode()) == config
    assert config.aggregation.ranks == tuple(ranks.items())
    assert config.policy.quorum >= config.aggregation.least
    assert {tensor.name for tensor in config.adapter.tensors} == weights.keys()
    assert (preset.gradient is None) == (name in ("rolora", "svd", "stack"))
    last = last_config(preset, config)
    assert (last.aggregation.rule if last else None) == ("stack" if name == "stack" else None)


def test_ranks_under_a_rule_that_has_none_are_refused_with_the_line(base: LoadedBase) -> None:
    preset = with_rule(TINY, "ffa", {1: 2})
    with pytest.raises(FieldInvalid, match=r"config[.]aggregation[.]ranks"):
        make_config(preset, epsilon=None, rounds=1, policy=policy_for(preset, 3, noise=False), base=base)


def test_both_halves_of_rolora_are_within_the_budget_together(base: LoadedBase) -> None:
    preset = with_rule(TINY, "rolora")
    odd, _ = make_config(preset, epsilon=8.0, rounds=2, policy=policy_for(preset, 3), base=base)
    even = in_round(odd, 2)
    assert 7.5 < epsilon([spend_of(odd), spend_of(even)], odd.privacy.delta) <= 8.0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--preset", "huge"], "no preset 'huge'"),
        (["--preset", "tiny", "--misbehave", "9=nan"], "there is no daemon 'node-9'"),
        (["--preset", "tiny", "--misbehave", "1=rude"], "no misbehaviour 'rude'"),
        (["--preset", "tiny", "--rule", "mode"], "no rule 'mode'"),
        (["--preset", "tiny", "--method", "vera"], "no method 'vera'; known: lora, rslora, dora, qlora, mole, x-lora"),
        (["--preset", "tiny", "--method", "dora", "--parents", "lora"], "dora has no parents; those that have: mole"),
        (["--preset", "tiny", "--method", "mole", "--parents", "x-lora"], "no method 'x-lora' for parents"),
        (["--preset", "tiny", "--method", "mole", "--rounds", "2"], "2 rounds make a mixture's parents"),
        (["--preset", "tiny", "--rule", "svd", "--rank", "3=2"], "--rank 3=2: expected NODE=RANK"),
        (["--preset", "tiny", "--rule", "multi-krum"], "a quorum of 5 cannot be met by 3 nodes"),
    ],
)
def test_a_plan_that_cannot_be_ends_with_exit_code_2(options: list[str], says: str, tmp_path: Path) -> None:
    ended = RUN.invoke(app, ["run", "--dir", str(tmp_path), *options])
    assert ended.exit_code == 2
    assert says in ended.output
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_anything_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(LocalFault, match="is not empty"):
        fresh_folder(tmp_path)


@pytest.mark.parametrize("text", [None, "", "{}", '{"daemons": [], "rpc_url": "http://127.0.0.1:x"}', "[]"])
def test_a_folder_that_is_no_federation_is_refused(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "federation.json").write_text(text)
    with pytest.raises(PlanInvalid):
        kept_facts(tmp_path)


@pytest.mark.parametrize(
    ("audits", "refused", "no_program", "failed"),
    [
        ({"verify 0": 0, "prove 0": 0}, "ProofMismatch", "", False),
        ({"verify 0": 0, "prove 0": 3}, "ProofMismatch", "qlora", False),
        ({"verify 0": 0, "prove 0": 3}, "ProofMismatch", "", True),
        ({"verify 0": 0, "prove 0": 1}, "ProofMismatch", "qlora", True),
        ({"verify 0": 3, "prove 0": 0}, "ProofMismatch", "qlora", True),
        ({"verify 0": 0, "prove 0": 0}, "", "", True),
    ],
)
def test_answers_that_no_proof_knows_end_no_demo_but_all_else_does(
    audits: dict[str, int], refused: str, no_program: str, failed: bool
) -> None:
    """NOT PROVEN is an answer, of a model that H has no program for, and of no other."""
    assert Served(("watch",), audits, refused, no_program).failed is failed


@pytest.mark.parametrize("method", METHODS)
def test_whether_a_model_can_be_proven_of_is_looked_up_in_its_own_bundle(
    method: str, base: LoadedBase, tmp_path: Path
) -> None:
    preset, known = with_method(TINY, method), method in GRADIENT_METHODS
    config, weights = make_config(preset, epsilon=8.0, rounds=3, policy=policy_for(preset, 3), base=base)
    aggregate = AggregateBundle(config, 31337, bytes(20), 1, bytes(32), (), weights)
    bundle = EmbeddedStore(tmp_path).put_directory(aggregate.files())
    site = SimpleNamespace(name="aggregator-0", content=tmp_path)
    federation: Any = SimpleNamespace(sites=[site], plan=SimpleNamespace(preset=preset), limits=bundle_limits(config))
    found = no_program(federation, bundle)
    assert (found == "", method in found) == (known, not known)
