"""Every method and every rule of aggregation through a federation of real processes, to its audit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from devnet.cli import policy_for
from devnet.federation import Plan
from devnet.presets import RULES, TINY, Preset, with_method, with_rule
from devnet.scenarios import Outcome, run
from ledger.adapter import METHODS, MIXTURES
from ledger.records import Phase
from ledger.report import Name

pytestmark = [pytest.mark.anvil, pytest.mark.long, pytest.mark.timeout(1800)]

SMALL = replace(TINY, steps=2, rows=64, capacity=64, mean_batch=16, held_out=30, gradient=None)
ROUNDS = {"rolora": 2, "stack": 2}  # both halves; and a last round after one under svd
NODES = {"multi-krum": 5}
RANKS = {"svd": {1: 2, 2: 1}, "stack": {1: 2}}


def played(preset: Preset, folder: Path, *, nodes: int, rounds: int, serve: bool = False) -> Outcome:
    """Everybody's submission was accepted in each round, each is FINAL, and a stranger's audit finds nothing wrong."""
    plan, lines = Plan(preset, folder, policy_for(preset, nodes), nodes=nodes, rounds=rounds), list[str]()

    def tell(new: Sequence[str], watch: Any) -> None:
        lines.extend(new)

    outcome = run(plan, tell, timeout_s=1200, as_json=True, serve=serve)
    told = "\n".join([*lines, outcome.audit_text])
    assert [state.phase for state in outcome.rounds.values()] == [Phase.FINAL] * rounds, told
    assert all(state.accepted == tuple(range(nodes)) for state in outcome.rounds.values()), told
    assert outcome.audit_status == 0, told
    assert len(outcome.scores) == rounds + 1, told
    return outcome


@pytest.mark.parametrize("method", METHODS)
def test_every_method(method: str, tmp_path: Path) -> None:
    played(with_method(SMALL, method), tmp_path, nodes=2, rounds=1)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule(rule: str, tmp_path: Path) -> None:
    preset = with_rule(SMALL, rule, RANKS.get(rule))
    played(preset, tmp_path, nodes=NODES.get(rule, 3), rounds=ROUNDS.get(rule, 1))


def test_rslora_with_members_of_different_ranks(tmp_path: Path) -> None:
    """A quarter of the rank with half of the alpha."""
    played(with_rule(with_method(SMALL, "rslora"), "svd", {1: 1}), tmp_path, nodes=2, rounds=1)


@pytest.mark.parametrize(("method", "of_parents"), list(zip(MIXTURES, ("lora", "qlora"), strict=True)))
def test_every_mixture_with_its_family_tree_and_its_answers(method: str, of_parents: str, tmp_path: Path) -> None:
    """One of them is an answer without the first parent."""
    outcome = played(with_method(SMALL, method, of_parents), tmp_path, nodes=2, rounds=3, serve=True)
    links = {link["link"]: link for link in outcome.to_json()["audit"]["report"]["rounds"][2]["links"]}
    for number in (1, 2):
        assert f"the aggregate of round {number}, whose gradient is NOT PROVEN" in links[Name.PARENTS]["evidence"]
    assert outcome.served is not None
    assert not outcome.served.failed
    assert len(outcome.served.answers) == 4
    assert outcome.served.audits["replay 3"] == 0
