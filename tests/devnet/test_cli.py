"""candor-devnet: what it refuses before it starts anything, and what it tells."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from devnet.cli import app, parse_misbehave, policy_for
from devnet.federation import Plan, PlanInvalid, kept_facts
from devnet.kinds import KINDS, KindUnknown
from devnet.presets import PRESETS, TINY, Preset, make_config
from devnet.scenarios import fresh_folder
from ledger.config import GradientSpec
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


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--preset", "huge"], "no preset 'huge'"),
        (["--preset", "tiny", "--misbehave", "9=nan"], "there is no daemon 'node-9'"),
        (["--preset", "tiny", "--misbehave", "1=rude"], "no misbehaviour 'rude'"),
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
