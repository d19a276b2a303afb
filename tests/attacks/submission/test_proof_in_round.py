"""A proof of the mechanism is good for one member, round, chain, contract, beacon, config and set of sums: each of them
changed alone makes a verdict of PROOF_INVALID, or of the rule that comes before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ledger.bundle import PROOF, SubmissionBundle
from ledger.records import Reason
from ledger.verdict import SubmissionFacts, judge
from proofs.parameters import largest_proof

BEACON = b"\6" * 32


@pytest.fixture(scope="module")
def proven(honest: Any, proven_under: Callable[..., Any]) -> tuple[SubmissionFacts, SubmissionBundle]:
    """An honest submission under a config that asks for a proof, and what the chain says of it."""
    found: tuple[SubmissionFacts, SubmissionBundle] = proven_under(
        replace(honest.config, proof_policy="mechanism"), BEACON
    )
    return found


def test_the_honest_submission_is_accepted_and_says_what_is_proven(proven: Any) -> None:
    facts, bundle = proven
    verdict = judge(facts, bundle.files())
    assert verdict.accepted, verdict.detail
    assert "all 6 steps" in verdict.detail
    assert "that contributions are gradients is NOT PROVEN" in verdict.detail


@pytest.mark.parametrize(
    "changed",
    [
        {"round": 77},
        {"member": 7},
        {"chain_id": 1},
        {"contract": b"\x11" * 20},
        {"global_bundle": b"\x11" * 32},
        {"dataset_root": b"\x11" * 32},
        {"words_root": b"\x11" * 32},
        {"spent_micro": 49_000_000},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_proof_is_good_for_nothing_else(proven: Any, changed: dict[str, Any]) -> None:
    """The manifest tells what the chain tells; the proof is the old one."""
    facts, bundle = proven
    claim = replace(facts.claim, **changed)
    verdict = judge(replace(facts, claim=claim), replace(bundle, claim=claim).files())
    assert verdict.reason is Reason.PROOF_INVALID, verdict.detail


def test_a_proof_is_good_for_one_beacon(proven: Any) -> None:
    facts, bundle = proven
    assert judge(replace(facts, beacon=b"\x11" * 32), bundle.files()).reason is Reason.PROOF_INVALID


@pytest.mark.parametrize("privacy", [{"noise_units": 1499}, {"clip_units": 1023}, {"capacity": 65}])
def test_a_proof_is_good_for_one_config(proven: Any, privacy: dict[str, int]) -> None:
    facts, bundle = proven
    config = replace(facts.config, privacy=replace(facts.config.privacy, **privacy))
    facts = replace(facts, config=config, claim=replace(facts.claim, spent_micro=49_000_000))
    changed = replace(bundle, config=config, claim=facts.claim)
    assert judge(facts, changed.files()).reason in (Reason.PROOF_INVALID, Reason.TRAJECTORY_MISMATCH)


@pytest.mark.parametrize("step", [0, 5])
def test_sums_that_differ_by_one_unit_are_not_those_that_were_proven(proven: Any, honest: Any, step: int) -> None:
    facts, bundle = proven
    released = bundle.trajectory.copy()
    released[step, -1] += 1
    moved = honest.retrained(released)
    files = replace(bundle, trajectory=released, weights=moved.weights).files()
    assert judge(facts, files).reason is Reason.PROOF_INVALID


@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        (lambda proof, most: proof[:-32], Reason.PROOF_INVALID),
        (lambda proof, most: proof + bytes(32), Reason.PROOF_INVALID),
        (lambda proof, most: bytes(len(proof)), Reason.PROOF_INVALID),
        (lambda proof, most: b"\xff" * len(proof), Reason.PROOF_INVALID),
        (lambda proof, most: b"\0", Reason.PROOF_INVALID),
        (lambda proof, most: bytes(most), Reason.PROOF_INVALID),
        (lambda proof, most: bytes(most + 1), Reason.BUNDLE_MALFORMED),
    ],
    ids=["cut", "padded", "zeros", "ones", "one byte", "largest", "too large"],
)
def test_other_bytes_end_in_a_verdict(proven: Any, forge: Callable[[bytes, int], bytes], reason: Reason) -> None:
    facts, bundle = proven
    proof = forge(bundle.proof, largest_proof(facts.config.shape))
    assert judge(facts, replace(bundle, proof=proof).files()).reason is reason


def test_a_bundle_without_its_proof_and_one_with_a_proof_that_nobody_asked_for(proven: Any, honest: Any) -> None:
    facts, bundle = proven
    files = {path: data for path, data in bundle.files().items() if path != PROOF}
    assert judge(facts, files).reason is Reason.BUNDLE_MALFORMED
    assert judge(honest.facts, honest.files | {PROOF: bundle.proof}).reason is Reason.BUNDLE_MALFORMED
