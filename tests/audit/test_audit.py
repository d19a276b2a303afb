"""The audit of an honest history, of one with every kind of misbehaviour in it, and of an aggregator that lies."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np
import pytest

from ledger.audit import NoSuchRound, audit, why
from ledger.bundle import ADAPTER, MANIFEST
from ledger.config import AggregationSpec, PrivacySpec
from ledger.records import Policy, Reason
from ledger.report import GRADIENT_NOT_PROVEN, MECHANISM_NOT_PROVEN, OF_ROUND, Name, Report, Status


def failures(report: Report) -> dict[Name, str]:
    return {link.name: link.evidence for link in report.links if link.status is Status.FAIL}


@pytest.fixture(scope="module")
def everyone_misbehaves(found_federation: Any, misdeeds: list[str]) -> Any:
    """Two honest members, and one for each way to be left out; all in one round, which becomes final."""
    federation = found_federation(2 + len(misdeeds), policy=Policy(60, 60, 0, 20, 20, 3, 2, False, 2))
    federation.kinds = dict(enumerate(misdeeds, start=2))
    federation.play(federation.kinds)
    return federation


@pytest.fixture(scope="module")
def proven_federation(found_federation: Any) -> Any:
    """Three members under a config that asks for proofs; the third moves one released sum by one unit."""
    federation = found_federation(3, proof_policy="mechanism")
    federation.play({2: "PROOF_INVALID"})
    return federation


def test_an_honest_history_passes_and_training_is_not_proven(found_federation: Any) -> None:
    federation = found_federation(3)
    federation.play()
    federation.play()
    report = audit(federation.chain, federation.store)
    assert failures(report) == {}
    assert report.status is Status.PASS
    unproven = {link.name for link in report.links if link.status is Status.NOT_PROVEN}
    assert unproven == {Name.MECHANISM, Name.GRADIENT, Name.CONTRACT}
    assert report.find(Name.MECHANISM).evidence == MECHANISM_NOT_PROVEN
    assert report.find(Name.GRADIENT).evidence == GRADIENT_NOT_PROVEN
    assert [r.outcome for r in report.rounds] == ["final", "final"]
    assert [link.name for link in report.rounds[0].links] == list(OF_ROUND)


def test_a_round_in_which_all_kinds_misbehave_passes_and_each_reason_is_re_run(everyone_misbehaves: Any) -> None:
    federation = everyone_misbehaves
    report = audit(federation.chain, federation.store)
    assert failures(report) == {}
    assert federation.state.accepted == (0, 1)
    verdicts = report.find(Name.VERDICTS)
    assert verdicts.status is Status.NOT_PROVEN  # because of the member whose bundle nobody has
    assert "cannot be re-run" in verdicts.evidence
    assert not verdicts.missing
    for member, kind in federation.kinds.items():
        told = why(federation.chain, federation.store, round_number=1, member=member)
        assert told.finding.found.reason.name == kind.split()[0]
        assert told.finding.posted == told.finding.found.reason
        assert told.finding.agrees is (None if kind == "UNAVAILABLE" else True)
    assert why(federation.chain, federation.store, round_number=1, member=0).finding.found.reason is Reason.ACCEPTED


def test_an_aggregate_off_by_one_grid_unit_fails_and_the_weight_is_named(found_federation: Any) -> None:
    federation = found_federation(3)

    def tampered(files: dict[str, bytes]) -> dict[str, bytes]:
        raw = bytearray(files[ADAPTER])
        value = np.frombuffer(bytes(raw[-4:]), "<f4")[0] + np.float32(2**-16)
        raw[-4:] = np.array([value], "<f4").tobytes()
        table = files[MANIFEST].replace(
            sha256(files[ADAPTER]).hexdigest().encode(), sha256(bytes(raw)).hexdigest().encode()
        )
        return files | {ADAPTER: bytes(raw), MANIFEST: table}

    federation.play(proposal=tampered)
    report = audit(federation.chain, federation.store)
    assert set(failures(report)) == {Name.AGGREGATE}
    assert report.status is Status.FAIL
    assert "layer.lora_B.weight[71]: expected" in failures(report)[Name.AGGREGATE]
    assert "1 weights of this tensor differ" in failures(report)[Name.AGGREGATE]


def test_an_aggregate_with_another_manifest_fails_and_the_file_is_named(found_federation: Any) -> None:
    federation = found_federation(3)

    def relabelled(files: dict[str, bytes]) -> dict[str, bytes]:
        return files | {MANIFEST: files[MANIFEST].replace(b'"round":1', b'"round":2')}

    federation.play(proposal=relabelled)
    evidence = failures(audit(federation.chain, federation.store))[Name.AGGREGATE]
    assert "candor/manifest.json differs" in evidence


def test_an_aggregate_that_nobody_has_fails_all_the_same(found_federation: Any) -> None:
    federation = found_federation(3)
    federation.play(proposal=lambda files: files | {"extra": b"x"})
    del federation.store.blocks[federation.state.proposal.aggregate_bundle]
    evidence = failures(audit(federation.chain, federation.store))[Name.AGGREGATE]
    assert "not to be had" in evidence


def test_a_verdict_that_leaves_out_an_honest_member_fails(found_federation: Any) -> None:
    federation = found_federation(3)
    federation.play(verdicts=lambda honest: honest | {1: Reason.OFF_GRID})
    report = audit(federation.chain, federation.store)
    assert set(failures(report)) == {Name.VERDICTS}
    assert "member 1: posted OFF_GRID, the rules give ACCEPTED" in failures(report)[Name.VERDICTS]
    assert why(federation.chain, federation.store, round_number=1, member=1).finding.agrees is False


def test_a_verdict_that_lets_a_bad_member_in_fails(found_federation: Any) -> None:
    federation = found_federation(3)
    federation.play({2: "TRAJECTORY_MISMATCH"}, verdicts=lambda honest: honest | {2: Reason.ACCEPTED})
    report = audit(federation.chain, federation.store)
    assert set(failures(report)) == {Name.VERDICTS}
    assert "member 2: posted ACCEPTED, the rules give TRAJECTORY_MISMATCH" in failures(report)[Name.VERDICTS]


def test_a_verdict_with_the_wrong_reason_fails(found_federation: Any) -> None:
    federation = found_federation(3)
    federation.play({2: "OFF_GRID"}, verdicts=lambda honest: honest | {2: Reason.NOISE_IMPLAUSIBLE})
    assert set(failures(audit(federation.chain, federation.store))) == {Name.VERDICTS}


def test_a_verdict_that_is_no_reason_fails_and_is_shown_as_a_number(found_federation: Any) -> None:
    federation = found_federation(3)
    federation.play({2: "OFF_GRID"}, verdicts=lambda honest: honest | {2: 99})
    report = audit(federation.chain, federation.store)
    assert set(failures(report)) == {Name.VERDICTS}
    assert "code 99, which is no reason" in failures(report)[Name.VERDICTS]


def test_letting_in_who_declared_too_little_fails_verdicts_and_privacy(found_federation: Any) -> None:
    federation = found_federation(3)
    federation.play({2: "EPSILON_UNDERSTATED"}, verdicts=lambda honest: honest | {2: Reason.ACCEPTED})
    report = audit(federation.chain, federation.store)
    assert set(failures(report)) == {Name.VERDICTS, Name.PRIVACY}
    assert "member 2 declared" in failures(report)[Name.PRIVACY]


def test_saying_unavailable_of_a_bundle_that_is_there_is_not_proven_either_way(found_federation: Any) -> None:
    federation = found_federation(3)
    federation.play(verdicts=lambda honest: honest | {1: Reason.UNAVAILABLE})
    report = audit(federation.chain, federation.store)
    assert report.find(Name.VERDICTS).status is Status.NOT_PROVEN
    assert "here it is, and the rules give ACCEPTED" in report.find(Name.VERDICTS).evidence
    assert report.status is Status.PASS


def test_a_lie_that_the_members_voided_is_still_shown(found_federation: Any) -> None:
    federation = found_federation(3)
    federation.play(proposal=lambda files: files | {"extra": b"x"}, objectors=[0, 1])
    report = audit(federation.chain, federation.store)
    assert report.rounds[0].outcome == "void: DISPUTED"
    assert set(failures(report)) == {Name.AGGREGATE}
    assert report.find(Name.FINALITY).status is Status.PASS


def test_a_base_model_that_changes_between_rounds_fails_the_opening(found_federation: Any) -> None:
    federation = found_federation(3)
    federation.play()
    federation.config = replace(federation.config, base_digest=sha256(b"another base").digest())
    federation.play()
    report = audit(federation.chain, federation.store)
    assert {(r.round, link.name) for r in report.rounds for link in r.links if link.status is Status.FAIL} == {
        (2, Name.OPENING)
    }


def test_a_config_whose_policy_is_not_the_one_on_chain_fails(found_federation: Any) -> None:
    federation = found_federation(3)
    honest = federation.store.put_raw

    def another_policy(data: bytes) -> bytes:
        config = replace(federation.config, policy=replace(federation.config.policy, quorum=1))
        federation.config, told = config, federation.config
        digest = honest(config.encode())
        federation.config = replace(config, policy=told.policy)
        federation.shown = config
        return digest

    federation.store.put_raw = another_policy
    federation.open()
    report = audit(federation.chain, federation.store)
    assert set(failures(report)) == {Name.CONFIG}
    assert "policy" in failures(report)[Name.CONFIG]


@pytest.mark.parametrize("data", [b"not json", b"{}", b'{"kind":"candor/config/2"}', bytes(3 << 19)])
def test_a_config_that_is_none_fails_and_nothing_else_is_guessed(found_federation: Any, data: bytes) -> None:
    federation = found_federation(3)
    digest = sha256(data).digest()
    federation.store.blocks[digest] = data
    federation.store.put_raw = lambda _: digest
    federation.open()
    report = audit(federation.chain, federation.store)
    assert set(failures(report)) >= {Name.CONFIG}
    assert not {Name.MEMBERS, Name.HISTORY, Name.SUBMISSIONS} & set(failures(report))


def test_a_proven_round_passes_at_the_mechanism_and_says_what_is_not_proven(proven_federation: Any) -> None:
    report = audit(proven_federation.chain, proven_federation.store)
    assert failures(report) == {}
    mechanism = report.find(Name.MECHANISM)
    assert mechanism.status is Status.PASS
    assert "all 3 steps and 88 coordinates at 100 bits" in mechanism.evidence
    assert report.find(Name.GRADIENT).status is Status.NOT_PROVEN


def test_a_member_that_adds_other_noise_than_its_words_say_is_left_out_with_that_reason(proven_federation: Any) -> None:
    told = why(proven_federation.chain, proven_federation.store, round_number=1, member=2)
    assert told.finding.found.reason is Reason.PROOF_INVALID
    assert told.finding.found.detail.startswith("candor/proof.bin: ")
    assert told.finding.agrees


def test_letting_in_a_member_without_a_valid_proof_fails_at_the_mechanism(found_federation: Any) -> None:
    federation = found_federation(3, proof_policy="mechanism")
    federation.play({2: "PROOF_INVALID"}, verdicts=lambda honest: honest | {2: Reason.ACCEPTED})
    report = audit(federation.chain, federation.store)
    assert set(failures(report)) == {Name.MECHANISM, Name.VERDICTS}
    assert "member 2 was accepted, and its proof does not hold" in failures(report)[Name.MECHANISM]


def test_a_proof_that_is_gone_is_missing_not_wrong(found_federation: Any) -> None:
    federation = found_federation(3, proof_policy="mechanism")
    federation.play()
    del federation.store.blocks[federation.state.submissions[1].bundle]
    report = audit(federation.chain, federation.store)
    assert failures(report) == {}
    assert report.find(Name.MECHANISM).missing


def test_content_that_is_gone_is_missing_not_wrong(found_federation: Any) -> None:
    federation = found_federation(3)
    federation.play()
    del federation.store.blocks[federation.state.submissions[1].bundle]
    report = audit(federation.chain, federation.store)
    assert failures(report) == {}
    assert report.status is Status.NOT_PROVEN
    assert {link.name for link in report.links if link.missing} == {Name.VERDICTS, Name.AGGREGATE}


def test_without_any_content_everything_on_chain_is_still_audited(found_federation: Any) -> None:
    federation = found_federation(3)
    federation.play()
    report = audit(federation.chain, type(federation.store)())
    assert failures(report) == {}
    passed = {link.name for link in report.links if link.status is Status.PASS}
    assert passed >= {Name.HISTORY, Name.BEACONS, Name.SUBMISSIONS, Name.ROOTS, Name.FINALITY}
    assert {link.name for link in report.links if link.missing} == {
        Name.CONFIG, Name.OPENING, Name.PRIVACY, Name.MECHANISM, Name.GRADIENT, Name.VERDICTS, Name.AGGREGATE,
    }  # fmt: skip


def test_a_genesis_that_breaks_the_format_fails_the_opening(found_federation: Any) -> None:
    federation = found_federation(3)
    federation.genesis = federation.store.put_directory({"adapter_model.bin": b"\x80\x04"})
    federation.open()
    assert set(failures(audit(federation.chain, federation.store))) == {Name.OPENING}


def test_fedavg_with_declared_weights_is_rebuilt_too(found_federation: Any) -> None:
    federation = found_federation(2, aggregation=AggregationSpec("ffa", ((1, 3),)))
    federation.play()
    assert failures(audit(federation.chain, federation.store)) == {}


def test_without_noise_the_cost_is_infinite_and_said_so(found_federation: Any) -> None:
    honest = found_federation(2).config.privacy
    privacy = PrivacySpec(honest.delta, 64, honest.clip_adapter, honest.clip_head, 0, 1 << 29, 64, True)
    federation = found_federation(2, privacy=privacy)
    federation.play()
    report = audit(federation.chain, federation.store)
    assert failures(report) == {}
    assert "infinite" in report.find(Name.PRIVACY).evidence


def test_a_round_under_way_and_an_empty_chain_are_audited_as_far_as_they_go(found_federation: Any) -> None:
    federation = found_federation(3)
    assert audit(federation.chain, federation.store).rounds == ()
    federation.open()
    federation.commit([0, 1])
    report = audit(federation.chain, federation.store)
    assert failures(report) == {}
    assert report.rounds[0].outcome == "open: COMMIT"
    for member in (2,):
        federation.commit([member])
    federation.advance()
    assert failures(audit(federation.chain, federation.store)) == {}


def test_a_round_that_ended_void_passes(found_federation: Any) -> None:
    federation = found_federation(3)
    federation.open()
    federation.commit([0])
    federation.advance()
    report = audit(federation.chain, federation.store)
    assert report.rounds[0].outcome == "void: COMMIT_QUORUM"
    assert failures(report) == {}


def test_one_round_of_many_is_audited_on_demand(found_federation: Any) -> None:
    federation = found_federation(3)
    federation.play()
    federation.play({2: "OFF_GRID"})
    report = audit(federation.chain, federation.store, rounds={2})
    assert [r.round for r in report.rounds] == [2]
    assert report.status is Status.PASS
    with pytest.raises(NoSuchRound):
        audit(federation.chain, federation.store, rounds={3})
    with pytest.raises(NoSuchRound):
        why(federation.chain, federation.store, round_number=2, member=9)


# ---- verdicts by quorum


def test_the_quorum_is_named_and_its_signature_checked(found_federation: Any) -> None:
    federation = found_federation(4)
    federation.play()
    link = audit(federation.chain, federation.store).find(Name.VERDICTS)
    assert link.status is Status.PASS
    assert "signed by members [0, 1] of 3 verifiers, 2 needed" in link.evidence
    assert (link.data["signers"], link.data["verifiers"], link.data["needed"]) == ([0, 1], [0, 1, 2], 2)
    assert "1 without a key to verify with" in audit(federation.chain, federation.store).find(Name.MEMBERS).evidence


def test_a_dissenter_is_named_and_the_rerun_says_who_is_right(found_federation: Any) -> None:
    federation = found_federation(3)
    federation.play(dissents={2: {0: Reason.OFF_GRID}})
    link = audit(federation.chain, federation.store).find(Name.VERDICTS)
    assert link.status is Status.PASS, "evidence, and no fault of the round's"
    assert "member 2 dissents (member 0 OFF_GRID): the re-run supports what was posted" in link.evidence
    assert link.data["dissents"] == [
        {
            "member": 2,
            "says": {"0": "OFF_GRID"},
            "posted": {"0": "ACCEPTED"},
            "supported": False,
            "signed_too": False,
        }
    ]


def test_a_dissenter_against_a_lying_quorum_is_supported(found_federation: Any) -> None:
    federation = found_federation(3)
    lies = {1: Reason.OFF_GRID}
    federation.play(verdicts=lambda honest: honest | lies, dissents={2: {1: Reason.ACCEPTED}})
    link = audit(federation.chain, federation.store).find(Name.VERDICTS)
    assert link.status is Status.FAIL
    assert "member 2 dissents (member 1 ACCEPTED): the re-run supports it" in link.evidence


def test_a_dissenter_can_be_as_wrong_as_the_quorum_and_be_of_it(found_federation: Any) -> None:
    federation = found_federation(3)
    lies = {1: Reason.OFF_GRID}
    federation.play(verdicts=lambda honest: honest | lies, dissents={0: {1: Reason.TENSOR_LAYOUT}})
    link = audit(federation.chain, federation.store).find(Name.VERDICTS)
    assert "the re-run is with neither; it signed what was posted, too" in link.evidence
