"""The link `gradient`: what picks of one round show, what they do not, and what can be said without the base.

Proofs of gradients are fakes here: digests of all that they are about.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import ledger.audit_cli
import ledger.audit_door
from ledger.audit import audit, why
from ledger.audit_cli import app
from ledger.audit_file import export_round, verify_file, why_file
from ledger.config import GradientSpec
from ledger.gradients import gradient_limits
from ledger.picks import RULE, coverage_text, detection, picks_of
from ledger.records import Policy, Reason
from ledger.report import GRADIENT_NOT_PROVEN, Name, Report, Status
from proofs.words import Binding

Play = Callable[..., Any]
WITHOUT = "proofs of gradients cannot be verified without the base model"


def failures(report: Report) -> set[Name]:
    return {link.name for link in report.links if link.status is Status.FAIL}


@pytest.fixture(scope="module")
def showing(found_federation: Play, fake_gradients: Any) -> Play:
    """Members that show three picked slots each, after a round in which `kinds` misbehaved and all may have lied."""

    def play(kinds: dict[int, str], members: int = 2, **lies: Any) -> Any:
        federation = found_federation(
            members,
            gradients=fake_gradients(),
            proof_policy="gradient",
            gradient=GradientSpec(3, 8),
            policy=Policy(40, 40, 8, 20, 20, 3, 1, True, 2),
        )
        federation.play(kinds, **lies)
        return federation

    return play


@pytest.fixture(scope="module")
def honest(showing: Play) -> Any:
    return showing({})


@pytest.fixture(scope="module")
def mixed(showing: Play) -> Any:
    """One honest member, and one for each way to fail in Prove."""
    return showing({1: "NOT_PROVED", 2: "GRADIENT_INVALID", 3: "UNAVAILABLE gradients"}, 4)


def test_a_round_that_was_shown_passes_with_its_coverage_and_its_limits(honest: Any) -> None:
    report = audit(honest.chain, honest.store, gradients=honest.gradients)
    assert failures(report) == set()
    link = report.find(Name.GRADIENT)
    assert link.status is Status.PASS
    slots = honest.config.shape.contributions
    assert link.evidence.startswith(
        "members [0, 1]: picked slots hold gradients of committed rows, or nothing, within 8"
    )
    assert coverage_text(honest.config) in link.evidence
    for percent in (1, 5, 10):
        found = int(detection(3, slots, slots * percent // 100) * 1000) / 10
        assert f"{percent} % with probability {found} %" in link.evidence
    assert link.evidence.endswith("Other slots: NOT PROVEN")
    assert link.data == {"members": [0, 1], "picks": 3, "slots": slots}
    assert report.find(Name.MECHANISM).status is Status.PASS
    assert report.find(Name.VERDICTS).status is Status.PASS


def test_without_the_base_gradients_and_verdicts_are_not_proven_and_the_remedy_is_told(honest: Any) -> None:
    report = audit(honest.chain, honest.store)
    assert failures(report) == set()
    assert report.status is Status.PASS
    for name in (Name.GRADIENT, Name.VERDICTS):
        link = report.find(name)
        assert (link.status, link.missing) == (Status.NOT_PROVEN, False)
        assert WITHOUT in link.evidence
        assert honest.config.base_digest.hex() in link.evidence
        assert "--base" in link.evidence
    assert report.find(Name.MECHANISM).status is Status.PASS
    assert report.find(Name.AGGREGATE).status is Status.PASS


def test_another_base_is_as_good_as_none(honest: Any, fake_gradients: Any) -> None:
    report = audit(honest.chain, honest.store, gradients=fake_gradients("FOLDER is the base 00, the round's is 11"))
    assert report.find(Name.GRADIENT).status is Status.NOT_PROVEN
    assert "FOLDER is the base 00" in report.find(Name.GRADIENT).evidence


def test_where_no_gradient_was_asked_for_the_base_changes_nothing(found_federation: Play, fake_gradients: Any) -> None:
    federation = found_federation(2)
    federation.play({})
    for gradients in (None, fake_gradients()):
        link = audit(federation.chain, federation.store, gradients=gradients).find(Name.GRADIENT)
        assert (link.status, link.evidence) == (Status.NOT_PROVEN, GRADIENT_NOT_PROVEN)


# ---- who was left out


@pytest.mark.parametrize(
    ("member", "reason", "agrees"),
    [
        (0, Reason.ACCEPTED, True),
        (1, Reason.NOT_PROVED, True),
        (2, Reason.GRADIENT_INVALID, True),
        (3, Reason.UNAVAILABLE, None),
    ],
)
def test_each_reason_is_re_run(mixed: Any, member: int, reason: Reason, agrees: bool | None) -> None:
    finding = why(mixed.chain, mixed.store, round_number=1, member=member, gradients=mixed.gradients).finding
    assert (finding.posted, finding.found.reason, finding.agrees) == (reason, reason, agrees)
    assert not finding.missing


def test_a_wrong_proof_is_told_with_its_pick(mixed: Any) -> None:
    finding = why(mixed.chain, mixed.store, round_number=1, member=2, gradients=mixed.gradients).finding
    binding = Binding(mixed.chain.chain_id, mixed.chain.rounds_address, 1, 2)
    last = picks_of(mixed.config, mixed.state.prove_beacon, binding)[2]
    assert finding.found.detail == f"candor/gradient-2.bin ({last}): ProofInvalid: the digest is another"


def test_who_was_left_out_does_not_spoil_the_link(mixed: Any) -> None:
    report = audit(mixed.chain, mixed.store, gradients=mixed.gradients)
    assert failures(report) == set()
    assert report.find(Name.GRADIENT).status is Status.PASS
    assert report.find(Name.GRADIENT).data["members"] == [0]


@pytest.mark.parametrize(("member", "agrees"), [(0, None), (1, True), (2, None), (3, None)])
def test_without_the_base_only_the_chains_own_reasons_are_re_run(mixed: Any, member: int, agrees: bool | None) -> None:
    finding = why(mixed.chain, mixed.store, round_number=1, member=member).finding
    assert finding.agrees is agrees
    assert not finding.missing


def test_a_reason_that_gradients_cannot_give_is_wrong_with_or_without_the_base(showing: Play) -> None:
    federation = showing({}, verdicts=lambda honest: honest | {1: Reason.OFF_GRID})
    for gradients in (None, federation.gradients):
        assert Name.VERDICTS in failures(audit(federation.chain, federation.store, gradients=gradients))


# ---- accepted, and not as it should be


def test_a_member_let_in_with_a_wrong_proof_fails_the_link(showing: Play) -> None:
    federation = showing({1: "GRADIENT_INVALID"}, verdicts=lambda honest: honest | {1: Reason.ACCEPTED})
    report = audit(federation.chain, federation.store, gradients=federation.gradients)
    assert failures(report) == {Name.GRADIENT, Name.VERDICTS}
    assert "member 1 was accepted, and what it showed does not hold" in report.find(Name.GRADIENT).evidence
    blind = audit(federation.chain, federation.store)
    assert failures(blind) == set()
    assert blind.find(Name.GRADIENT).status is Status.NOT_PROVEN


def test_another_broken_rule_of_an_accepted_member_is_not_blamed_on_its_gradients(showing: Play) -> None:
    federation = showing({1: "EPSILON_UNDERSTATED"}, verdicts=lambda honest: dict.fromkeys(honest, Reason.ACCEPTED))
    report = audit(federation.chain, federation.store, gradients=federation.gradients)
    assert failures(report) == {Name.PRIVACY, Name.VERDICTS}
    assert report.find(Name.GRADIENT).status is Status.PASS


def test_where_nobody_was_accepted_there_is_nothing_to_show(showing: Play) -> None:
    federation = showing({}, verdicts=lambda honest: dict.fromkeys(honest, Reason.OFF_GRID))
    link = audit(federation.chain, federation.store).find(Name.GRADIENT)
    assert link.status is Status.PASS
    assert "nobody was accepted" in link.evidence


@pytest.mark.parametrize("gone", ["proofs", "submissions"])
def test_what_is_gone_is_missing_not_wrong(showing: Play, gone: str) -> None:
    federation = showing({})
    event = getattr(federation.state, gone)[1]
    del federation.store.blocks[event.proof if gone == "proofs" else event.bundle]
    report = audit(federation.chain, federation.store, gradients=federation.gradients)
    assert failures(report) == set()
    link = report.find(Name.GRADIENT)
    assert (link.status, link.missing) == (Status.NOT_PROVEN, True)
    assert report.status is Status.NOT_PROVEN
    assert report.find(Name.MECHANISM).status is (Status.PASS if gone == "proofs" else Status.NOT_PROVEN)


# ---- one file for a stranger


def test_a_file_carries_what_was_shown_and_it_is_verified_offline(honest: Any, tmp_path: Path) -> None:
    path = tmp_path / "round-1.car"
    export_round(path, honest.chain, honest.store, round_number=1)
    link = verify_file(path, gradients=honest.gradients).find(Name.GRADIENT)
    assert link == audit(honest.chain, honest.store, gradients=honest.gradients).find(Name.GRADIENT)
    assert link.status is Status.PASS
    assert WITHOUT in verify_file(path).find(Name.GRADIENT).evidence
    assert why_file(path, 1, gradients=honest.gradients).finding.agrees is True


def test_a_refusal_can_be_re_run_from_a_file(mixed: Any, tmp_path: Path) -> None:
    path = tmp_path / "round-1.car"
    written = export_round(path, mixed.chain, mixed.store, round_number=1)
    assert written.file.absent == (mixed.state.proofs[3].proof,)
    assert why_file(path, 2, gradients=mixed.gradients).finding.found.reason is Reason.GRADIENT_INVALID
    report = verify_file(path, gradients=mixed.gradients)
    assert failures(report) == set()
    assert report.find(Name.GRADIENT).status is Status.PASS


# ---- on the screen


@pytest.fixture
def command(honest: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """candor-audit on the honest round."""
    monkeypatch.setattr(ledger.audit_cli, "open_chain", lambda places: honest.chain)
    monkeypatch.setattr(
        ledger.audit_cli, "open_contents", lambda places: honest.store if places else type(honest.store)()
    )
    return lambda *words: CliRunner().invoke(app, list(words))


def test_a_round_lists_the_slots_that_were_picked_and_how_to_draw_them_again(honest: Any, command: Any) -> None:
    told = json.loads(command("round", "1", "--content", "x", "--json").stdout)["picks"]
    state, shape = honest.state, honest.config.shape
    assert told["beacon"] == state.prove_beacon.hex()
    assert (told["steps"], told["slots_a_step"], told["picks"]) == (shape.steps, shape.slots, 3)
    assert told["rule"] == RULE
    for member in (0, 1):
        binding = Binding(honest.chain.chain_id, honest.chain.rounds_address, 1, member)
        picks = picks_of(honest.config, state.prove_beacon, binding)
        assert told["members"][str(member)] == [[pick.step, pick.slot] for pick in picks]
    shown = command("round", "1", "--content", "x").stdout
    assert "Picked slots" in shown
    assert f"picked by beacon {state.prove_beacon.hex()}" in shown
    assert RULE in shown


def test_without_the_config_it_is_said_where_the_picks_would_come_from(command: Any) -> None:
    assert json.loads(command("round", "1", "--json").stdout)["picks"] is None
    assert "name a source of it with --content" in command("round", "1").stdout


def test_the_base_is_named_by_its_folder(command: Any, honest: Any, tmp_path: Path, monkeypatch: Any) -> None:
    assert command("verify", "--content", "x", "--base", str(tmp_path / "nowhere")).exit_code == 2
    monkeypatch.setattr(ledger.audit_door, "BaseGradients", lambda folder: honest.gradients)
    told = command("verify", "--content", "x", "--base", str(tmp_path))
    assert told.exit_code == 0
    assert "NOT PROVEN gradient" not in told.stdout
    assert command("why", "--member", "1", "--round", "1", "--content", "x", "--base", str(tmp_path)).exit_code == 0
    blind = command("verify", "--content", "x")
    assert blind.exit_code == 0
    assert "NOT PROVEN gradient: member 0: proofs of gradients cannot be verified without" in blind.stdout


def test_limits_of_who_merely_carries_proofs_hold_those_of_who_verifies_them(honest: Any) -> None:
    carried, read = gradient_limits(honest.config), gradient_limits(honest.config, 64)
    assert carried.max_files == read.max_files
    assert carried.max_file_bytes > read.max_file_bytes
    assert carried.max_total_bytes > read.max_total_bytes
