"""What is shown in Prove is good for one member, round, chain, contract, submission and beacon; every flaw of it has
the reason GRADIENT_INVALID and names the pick. The proofs themselves are fakes here: digests of what they are about."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ledger import canonical
from ledger.bundle import MANIFEST, SubmissionBundle
from ledger.config import GradientSpec
from ledger.content import Attempt, ContentMissing, LimitExceeded, MemoryStore, StoreUnavailable
from ledger.gradients import (
    MAX_PROOF_BYTES,
    Answers,
    GradientsUnjudged,
    binding_of,
    challenges,
    gradient_limits,
    iterates,
    jobs_of,
    proof_path,
    slots_root,
)
from ledger.optimizer import replay
from ledger.records import Reason
from ledger.tensors import flatten
from ledger.verdict import Shown, SubmissionFacts, Verdict, Verify, fetch_shown, judge, judge_but_gradients
from proofs.errors import LocalFault

BEACON, PROVE_BEACON, BUNDLE, PICKS = b"\6" * 32, b"\7" * 32, b"\5" * 32, 3


class Case:
    """An honest submission, the files that answer the beacon after it, and who verifies those."""

    def __init__(self, facts: SubmissionFacts, bundle: SubmissionBundle, verifier: Any, verify: Verify) -> None:
        self.facts, self.bundle, self.verifier, self.verify = facts, bundle, verifier, verify
        self.answers = Answers(facts.config, binding_of(facts.claim), facts.bundle, facts.prove_beacon)
        self.submitted = bundle.files()

    def asked(self) -> Any:
        facts, bundle = self.facts, self.bundle
        return challenges(facts.config, facts.claim, facts.beacon, bundle.trajectory, bundle.proof, facts.prove_beacon)

    def proofs(self) -> list[bytes]:
        jobs = jobs_of(self.bundle, self.facts.global_weights, self.asked(), [b""] * PICKS)
        return [self.verifier.answer(job.iterate, job.challenge) for job in jobs]

    @property
    def files(self) -> dict[str, bytes]:
        return self.answers.files(self.proofs())

    def judge(self, files: Any, **changed: Any) -> Verdict:
        shown = Shown(files, self.verifier.size, self.verifier)
        return judge(replace(self.facts, **changed), self.submitted, shown, self.verify)


@pytest.fixture(scope="module")
def case(honest: Any, proven_under: Callable[..., Any], fake_gradients: Any, verified_once: Verify) -> Case:
    policy = replace(honest.config.policy, prove_blocks=10, proof_required=True)
    config = replace(honest.config, proof_policy="gradient", gradient=GradientSpec(PICKS, 8), policy=policy)
    facts, bundle = proven_under(config, BEACON, bundle=BUNDLE, prove_beacon=PROVE_BEACON)
    return Case(facts, bundle, fake_gradients(), verified_once)


def test_the_honest_member_is_accepted_and_told_is_what_is_proven_and_what_is_not(case: Case) -> None:
    verdict = case.judge(case.files)
    assert verdict.accepted, verdict.detail
    assert "in 3 slots picked afterwards there is the gradient of a committed row, within 8 units" in verdict.detail
    assert "of the other slots that is NOT PROVEN" in verdict.detail


def test_nobody_is_accepted_by_who_cannot_verify_gradients(case: Case) -> None:
    with pytest.raises(GradientsUnjudged, match="without the base model"):
        judge(case.facts, case.submitted)


def test_who_cannot_verify_gradients_knows_all_the_rest(case: Case) -> None:
    assert isinstance(judge_but_gradients(case.facts, case.submitted), SubmissionBundle)
    broken = replace(case.bundle, proof=case.bundle.proof[:-1] + bytes([case.bundle.proof[-1] ^ 1])).files()
    assert judge(case.facts, broken).reason is Reason.PROOF_INVALID


def test_another_flaw_of_the_submission_comes_first(case: Case) -> None:
    assert judge(case.facts, None, Shown({}, 64, case.verifier)).reason is Reason.UNAVAILABLE
    poor = replace(case.facts, history=case.facts.history * 100)
    if poor.history:
        shown = Shown({}, 64, case.verifier)
        assert judge(poor, case.submitted, shown).reason is Reason.EPSILON_UNDERSTATED


# ---- what the proofs are about


def test_each_pick_is_asked_of_the_committed_contributions_after_the_second_beacon(case: Case) -> None:
    asked = case.asked()
    assert tuple(challenge.pick for challenge in asked) == case.answers.picks
    assert {challenge.beacon for challenge in asked} == {PROVE_BEACON}
    assert {challenge.mechanism.beacon for challenge in asked} == {BEACON}
    assert {challenge.slots_root for challenge in asked} == {case.bundle.proof[:32]} == {slots_root(case.bundle.proof)}
    assert {challenge.tolerance for challenge in asked} == {8}
    assert {challenge.mechanism.words_root for challenge in asked} == {case.facts.claim.words_root}


def test_iterates_are_those_before_the_step(case: Case) -> None:
    config, start, sums = case.facts.config, case.facts.global_weights, case.bundle.trajectory
    at = iterates(config, start, sums, (0, 4, 2, 4))
    assert sorted(at) == [0, 2, 4]
    for step, weights in at.items():
        assert weights.keys() == start.keys()
        assert np.array_equal(flatten(config, weights), replay(config, flatten(config, start), sums[:step]))
    assert iterates(config, start, sums, ()) == {}


@pytest.mark.parametrize("number", range(PICKS))
@pytest.mark.parametrize("how", ["flip", "empty", "swap"])
def test_a_proof_that_does_not_hold_is_named_with_its_pick(case: Case, number: int, how: str) -> None:
    proofs = case.proofs()
    others = {"flip": bytes([proofs[number][0] ^ 1]) + proofs[number][1:], "empty": b"", "swap": proofs[number - 1]}
    proofs[number] = others[how]
    verdict = case.judge(case.answers.files(proofs))
    assert verdict.reason is Reason.GRADIENT_INVALID
    assert (
        verdict.detail
        == f"candor/gradient-{number}.bin ({case.answers.picks[number]}): ProofInvalid: the digest is another"
    )


@pytest.mark.parametrize(
    "changed", [{"prove_beacon": b"\x11" * 32}, {"bundle": b"\x11" * 32}], ids=lambda c: next(iter(c))
)
def test_what_was_shown_is_good_for_one_beacon_and_one_submission(case: Case, changed: dict[str, bytes]) -> None:
    verdict = case.judge(case.files, **changed)
    assert verdict.reason is Reason.GRADIENT_INVALID
    assert ("beacon" if "prove_beacon" in changed else "bundle") in verdict.detail


def test_proofs_under_a_manifest_for_another_beacon_do_not_hold(case: Case) -> None:
    """The manifest can be written anew by anybody; the proofs cannot."""
    answers = replace(case.answers, beacon=b"\x11" * 32)
    verdict = case.judge(answers.files(case.proofs()), prove_beacon=b"\x11" * 32)
    assert verdict.reason is Reason.GRADIENT_INVALID
    assert "ProofInvalid" in verdict.detail


@pytest.mark.parametrize(
    "changed", [{"round": 77}, {"member": 7}, {"chain_id": 1}, {"contract": b"\x11" * 20}], ids=lambda c: next(iter(c))
)
def test_a_bundle_for_another_round_member_chain_or_contract_is_malformed(case: Case, changed: dict[str, Any]) -> None:
    answers = replace(case.answers, binding=replace(case.answers.binding, **changed))
    verdict = case.judge(answers.files(case.proofs()))
    assert verdict.reason is Reason.GRADIENT_INVALID
    assert repr(next(iter(changed))) in verdict.detail


# ---- the directory

FLAWS: dict[str, tuple[Callable[[dict[str, bytes]], dict[str, bytes]], str]] = {
    "a proof missing": (lambda files: {p: d for p, d in files.items() if p != proof_path(1)}, "missing file"),
    "no manifest": (lambda files: {p: d for p, d in files.items() if p != MANIFEST}, "missing file"),
    "nothing at all": (lambda files: {}, "missing file"),
    "a file more": (lambda files: files | {"run_me.py": b"import os"}, "unexpected file 'run_me.py'"),
    "a proof more": (lambda files: files | {proof_path(PICKS): b"x"}, "unexpected file"),
    "a proof too large": (lambda files: files | {proof_path(0): bytes(65)}, "65 bytes, at most 64"),
    "a manifest too large": (lambda files: files | {MANIFEST: bytes(1 << 17)}, "at most 65536"),
    "a proof beside its manifest": (lambda files: files | {proof_path(0): b"other"}, "'files': expected"),
    "a manifest that is no JSON": (lambda files: files | {MANIFEST: b"\x80\x04pickle"}, MANIFEST),
    "a manifest with a space": (lambda files: files | {MANIFEST: files[MANIFEST] + b" "}, MANIFEST),
    "a manifest that is a list": (lambda files: files | {MANIFEST: b"[]"}, "not a JSON object"),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_malformed_directory_is_refused_before_any_proof_is_looked_at(case: Case, flaw: str) -> None:
    change, told = FLAWS[flaw]
    verdict = case.judge(change(case.files))
    assert verdict.reason is Reason.GRADIENT_INVALID
    assert told in verdict.detail
    assert "ProofInvalid" not in verdict.detail


@pytest.mark.parametrize(
    "field", ["kind", "chain_id", "contract", "round", "member", "bundle", "beacon", "picks", "files"]
)
def test_each_field_of_the_manifest_is_compared(case: Case, field: str) -> None:
    value = json.loads(case.files[MANIFEST])
    for changed in (value | {field: "other"}, {key: v for key, v in value.items() if key != field}):
        verdict = case.judge(case.files | {MANIFEST: canonical.encode(changed)})
        assert verdict.reason is Reason.GRADIENT_INVALID
        assert repr(field) in verdict.detail
    verdict = case.judge(case.files | {MANIFEST: canonical.encode(value | {"another": 1})})
    assert "'another': expected 'nothing'" in verdict.detail


def test_picks_of_ones_own_choice_are_refused(case: Case) -> None:
    """The proofs would hold: it is the beacon that says for which slots they have to."""
    value = json.loads(case.files[MANIFEST])
    value["picks"][0] = [0, 0]
    verdict = case.judge(case.files | {MANIFEST: canonical.encode(value)})
    assert "'picks': expected" in verdict.detail


def test_a_member_cannot_publish_more_or_fewer_proofs_than_picks(case: Case) -> None:
    for proofs in ([], [b"x"] * (PICKS + 1)):
        with pytest.raises(LocalFault):
            case.answers.files(proofs)


# ---- the store


class Store:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def get_directory(self, digest: bytes, limits: Any) -> dict[str, bytes]:
        raise self.error


def test_a_bundle_of_proofs_is_fetched_within_limits_that_are_known_before(case: Case) -> None:
    store, config = MemoryStore(), case.facts.config
    digest = store.put_directory(case.files)
    shown = fetch_shown(config, case.facts.global_weights, digest, store, case.verifier)
    assert shown == Shown(case.files, 64, case.verifier)
    assert gradient_limits(config, 1 << 20).max_file_bytes == 1 << 20
    assert gradient_limits(config).max_total_bytes == PICKS * MAX_PROOF_BYTES + (1 << 16)
    assert gradient_limits(config).max_files == PICKS + 1
    flood = store.put_directory(case.files | {proof_path(0): bytes((1 << 16) + 1)})
    shown = fetch_shown(config, case.facts.global_weights, flood, store, case.verifier)
    assert case.judge(shown.files).reason is Reason.GRADIENT_INVALID
    assert "LimitExceeded" in case.judge(shown.files).detail


def test_proofs_that_nobody_has_are_unavailable_and_a_silent_store_is_nobodys_fault(case: Case) -> None:
    config, weights = case.facts.config, case.facts.global_weights
    missing = Store(ContentMissing("it", [Attempt("here", "no")]))
    shown = fetch_shown(config, weights, bytes(32), missing, case.verifier)
    verdict = case.judge(shown.files)
    assert verdict.reason is Reason.UNAVAILABLE
    assert verdict.detail.startswith("proofs of gradients: ")
    shown = fetch_shown(config, weights, bytes(32), Store(LimitExceeded("a flood")), case.verifier)
    assert case.judge(shown.files).reason is Reason.GRADIENT_INVALID
    with pytest.raises(StoreUnavailable):
        fetch_shown(config, weights, bytes(32), Store(StoreUnavailable("timeout")), case.verifier)


def test_a_machine_with_another_base_fetches_nothing(case: Case, fake_gradients: Any) -> None:
    with pytest.raises(GradientsUnjudged, match="another base"):
        fetch_shown(case.facts.config, {}, bytes(32), MemoryStore(), fake_gradients("another base"))
