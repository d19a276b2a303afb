"""The verdict on one submission: accepted, or the first rule that it breaks. Pure: bytes and history in, reason out.

Checks, in this order; each has its own Reason, so whoever runs them gets the same answer:

    UNAVAILABLE          there are no files
    BUNDLE_MALFORMED     paths and sizes; a manifest that is not canonical JSON
    CONFIG_MISMATCH      candor/config.json is the round's
    MANIFEST_MISMATCH    chain, contract, round, member, config, global bundle, commitments, ε, files
    ADAPTER_CONFIG       adapter_config.json is the one that the config implies
    TENSOR_LAYOUT        names, shapes, dtypes, canonical safetensors
    OFF_GRID             weights finite, on the grid, below 2^24 units, no minus zero
    FROZEN_CHANGED       frozen tensors are the global bundle's
    TRAJECTORY_RANGE     no sum beyond what capacity, clip and noise allow, by coordinate and by norm (plausibility)
    TRAJECTORY_MISMATCH  the public optimizer leads from the global weights to the submitted ones, bit for bit
    NOISE_IMPLAUSIBLE    the sums are loud enough to contain the noise (ledger.plausibility; left out without noise, and
                         where the proof shows that it is there)
    EPSILON_UNDERSTATED  ε declared ≥ the accountant's for the member's history and this round
    PROOF_INVALID        the proof of the mechanism verifies, where the config asks for one (proofs.verifier)
    UNAVAILABLE          what was shown in Prove can be fetched, where the config asks for proofs of gradients
    GRADIENT_INVALID     it is well-formed, and the proof of each picked slot verifies (ledger.gradients)

What acceptance does not say: that contributions of slots which were not picked are gradients of anything; and where the
config asks for no proofs of gradients, that any is. That is NOT PROVEN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isqrt
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ledger.bundle import PROOF, Claim, Files, Rejected, SubmissionBundle, bundle_limits, read_submission
from ledger.config import Config
from ledger.content.errors import ContentInvalid, ContentMissing
from ledger.content.reader import Limits
from ledger.gradients import (
    Answers,
    GradientsUnjudged,
    GradientVerifier,
    binding_of,
    challenges,
    gradient_limits,
    jobs_of,
    proof_path,
)
from ledger.mechanism import coverage, statement_of
from ledger.optimizer import replay
from ledger.plausibility import longest_norm, sum_of_squares, too_quiet
from ledger.privacy import EPSILON_TOLERANCE_MICRO, Spend, epsilon_micro, spend_of
from ledger.records import Reason
from ledger.tensors import Weights, flatten
from proofs.gaussian import NoiseTable, noise_table
from proofs.mechanism import most_rows
from proofs.proof import ProofInvalid
from proofs.statement import Statement
from proofs.verifier import verify as verify_here

Verify = Callable[[Statement, bytes], None]  # raises ProofInvalid


@dataclass(frozen=True, eq=False)
class SubmissionFacts:
    """All that is known of a submission without its bundle.

    claim: what the chain says and the manifest must repeat. history: the member's earlier spends, this round excluded.
    beacon: the training's, which a proof of the mechanism is verified against. bundle: the submission's digest.
    prove_beacon: drawn after submission, which picks the slots that are to be shown.
    """

    claim: Claim
    config: Config
    global_weights: Weights
    history: tuple[Spend, ...]
    beacon: bytes = b""
    bundle: bytes = b""
    prove_beacon: bytes = b""


@dataclass(frozen=True)
class Verdict:
    reason: Reason
    detail: str

    @property
    def accepted(self) -> bool:
        return self.reason is Reason.ACCEPTED


@dataclass(frozen=True)
class Shown:
    """What a member published in Prove (or what a judge says without it), and who verifies it.

    largest: bytes of one proof at most.
    """

    files: Files | Verdict
    largest: int
    verifier: GradientVerifier


class Directories(Protocol):
    """The part of a content store that a judge needs."""

    def get_directory(self, digest: bytes, limits: Limits) -> dict[str, bytes]: ...


def judge_stored(facts: SubmissionFacts, bundle: bytes, store: Directories, shown: Shown | None = None) -> Verdict:
    """Fetch by digest, then judge. Raises as `fetch_submission` and `judge` do."""
    found = fetch_submission(facts.config, bundle, store)
    return found if isinstance(found, Verdict) else judge(facts, found, shown)


def fetch_submission(config: Config, bundle: bytes, store: Directories) -> dict[str, bytes] | Verdict:
    """The files, or what a judge says without them: content that breaks the store's rules is the member's fault, a
    silent wire is not.

    Raises WireFault or LocalFault when the store could not even say that the content is missing.
    """
    try:
        return store.get_directory(bundle, bundle_limits(config))
    except ContentMissing as error:
        return Verdict(Reason.UNAVAILABLE, str(error))
    except ContentInvalid as error:
        return Verdict(Reason.BUNDLE_MALFORMED, f"{type(error).__name__}: {error}")


def fetch_shown(
    config: Config, weights: Weights, proofs: bytes, store: Directories, verifier: GradientVerifier
) -> Shown:
    """What was published in Prove under the digest `proofs`. weights: the global ones. Raises as `fetch_submission`
    does, and GradientsUnjudged."""
    largest = verifier.largest(config, weights)
    try:
        found: Files | Verdict = store.get_directory(proofs, gradient_limits(config, largest))
    except ContentMissing as error:
        found = Verdict(Reason.UNAVAILABLE, f"proofs of gradients: {error}")
    except ContentInvalid as error:
        found = Verdict(Reason.GRADIENT_INVALID, f"{type(error).__name__}: {error}")
    return Shown(found, largest, verifier)


def judge(
    facts: SubmissionFacts, files: Files | None, shown: Shown | None = None, verify: Verify | None = None
) -> Verdict:
    """Run the checks. `files` is the directory behind the submission's digest, verified; None if nobody has it.

    `verify` checks a proof of the mechanism, here or in another process. Raises GradientsUnjudged where all depends on
    proofs of gradients and there is nobody to verify them: such a member is never accepted.
    """
    found = judge_but_gradients(facts, files, verify)
    if not isinstance(found, SubmissionBundle):
        return found
    try:
        gradients = check_gradients(facts, found, shown)
    except Rejected as error:
        return Verdict(error.reason, error.detail)
    return accepted(found, gradients)


def judge_but_gradients(
    facts: SubmissionFacts, files: Files | None, verify: Verify | None = None
) -> SubmissionBundle | Verdict:
    """All checks but the last two: the submission that passes them, or the verdict."""
    if files is None:
        return Verdict(Reason.UNAVAILABLE, "the bundle could not be fetched")
    try:
        submission = read_submission(files, facts.config, facts.claim)
        check_frozen(submission, facts.global_weights)
        check_range(submission)
        check_replay(submission, facts.global_weights)
        if not facts.config.proven:
            check_noise(submission)
        check_epsilon(facts)
        check_proof(submission, facts.beacon, verify)
    except Rejected as error:
        return Verdict(error.reason, error.detail)
    return submission


def accepted(submission: SubmissionBundle, gradients: str) -> Verdict:
    """gradients: what is known of them, in words."""
    noise = coverage(submission.config) if submission.config.proven else check_noise(submission)
    return Verdict(Reason.ACCEPTED, f"every check passed; {noise}; {gradients}")


def check_frozen(submission: SubmissionBundle, global_weights: Weights) -> None:
    for tensor in submission.config.adapter.tensors:
        if tensor.role == "frozen":
            changed = int((submission.weights[tensor.name] != global_weights[tensor.name]).sum())
            if changed:
                raise Rejected(Reason.FROZEN_CHANGED, f"{tensor.name}: {changed} of {tensor.size} weights changed")


def check_range(submission: SubmissionBundle) -> None:
    """|ĝⱼ| ≤ capacity·clip_units + bound, always; and a norm that an honest draw passes with probability < 2^-64."""
    privacy, steps = submission.config.privacy, submission.config.steps
    table = _table(submission)
    largest = privacy.capacity * privacy.clip_units + (table.bound if table else 0)
    rows, sets = most_rows(privacy.capacity, privacy.sample_threshold, steps), steps * len(submission.config.groups)
    for step, group, released in _blocks(submission):
        loudest = int(np.abs(released.astype(np.int64)).max())
        if loudest > largest:
            detail = f"step {step}, {group}: a sum of {loudest} units, at most {largest} possible"
            raise Rejected(Reason.TRAJECTORY_RANGE, detail)
        longest, squares = longest_norm(privacy, table, released.size, rows, sets), sum_of_squares(released)
        if squares > longest**2:
            detail = f"step {step}, {group}: a norm of {isqrt(squares)} units, more than the {longest} of {rows} rows"
            raise Rejected(Reason.TRAJECTORY_RANGE, detail)


def check_replay(submission: SubmissionBundle, global_weights: Weights) -> None:
    config = submission.config
    reached = replay(config, flatten(config, global_weights), submission.trajectory)
    wrong = np.flatnonzero(reached != flatten(config, submission.weights))
    if wrong.size:
        detail = f"{wrong.size} of {reached.size} coordinates are elsewhere, the first is number {wrong[0]}"
        raise Rejected(Reason.TRAJECTORY_MISMATCH, f"the trajectory does not lead to the adapter: {detail}")


def check_noise(submission: SubmissionBundle) -> str:
    """Returns what to tell the reader about the noise."""
    table = _table(submission)
    if table is None:
        return "INSECURE: the config asks for no noise, so none was looked for"
    sums = [
        (f"step {step}, {group}", released.size, sum_of_squares(released))
        for step, group, released in _blocks(submission)
    ]
    sums.append(("all steps", submission.trajectory.size, sum(squares for _, _, squares in sums)))
    for where, count, squares in sums:
        if too_quiet(squares, count, table, len(sums)):
            found = isqrt(squares // count)
            detail = f"{where}: root mean square {found} units, where noise alone has {table.sigma_units}"
            raise Rejected(Reason.NOISE_IMPLAUSIBLE, detail)
    return "the sums are loud enough to contain the noise"


def check_epsilon(facts: SubmissionFacts) -> None:
    spent = epsilon_micro([*facts.history, spend_of(facts.config)], facts.config.privacy.delta)
    declared = facts.claim.spent_micro
    if declared + EPSILON_TOLERANCE_MICRO < spent:
        detail = f"declared {declared} millionths, the accountant says {spent} after {len(facts.history) + 1} rounds"
        raise Rejected(Reason.EPSILON_UNDERSTATED, detail)


def check_proof(submission: SubmissionBundle, beacon: bytes, verify: Verify | None = None) -> None:
    """The most expensive check, and the last. It is the member's proof, for these sums, this round and this beacon."""
    if not submission.config.proven:
        return
    statement = statement_of(submission.config, submission.claim, beacon, submission.trajectory)
    try:
        (verify or verify_here)(statement, submission.proof)
    except ProofInvalid as error:
        raise Rejected(Reason.PROOF_INVALID, f"{PROOF}: {type(error).__name__}: {error}") from error


def check_gradients(facts: SubmissionFacts, submission: SubmissionBundle, shown: Shown | None) -> str:
    """Returns what to tell the reader about gradients. Raises Rejected, naming file, pick and rule, or
    GradientsUnjudged."""
    config = submission.config
    if config.gradient is None:
        return "that contributions are gradients is NOT PROVEN"
    if shown is None:
        raise GradientsUnjudged(
            f"proofs of gradients cannot be verified without the base model {config.base_digest.hex()}; "
            f"remedy: name its folder"
        )
    if isinstance(shown.files, Verdict):
        raise Rejected(shown.files.reason, shown.files.detail)
    answers = Answers(config, binding_of(facts.claim), facts.bundle, facts.prove_beacon)
    proofs = answers.read(shown.files, shown.largest)
    sums, proof = submission.trajectory, submission.proof
    asked = challenges(config, facts.claim, facts.beacon, sums, proof, facts.prove_beacon)
    outcomes = shown.verifier.outcomes(config, jobs_of(submission, facts.global_weights, asked, proofs))
    for number, (challenge, wrong) in enumerate(zip(asked, outcomes, strict=True)):
        if wrong is not None:
            detail = f"{proof_path(number)} ({challenge.pick}): {type(wrong).__name__}: {wrong}"
            raise Rejected(Reason.GRADIENT_INVALID, detail)
    return (
        f"in {len(asked)} slots picked afterwards there is the gradient of a committed row, within "
        f"{config.gradient.tolerance} units a coordinate, or nothing; of the other slots that is NOT PROVEN"
    )


def _table(submission: SubmissionBundle) -> NoiseTable | None:
    privacy = submission.config.privacy
    return None if privacy.insecure_no_noise else noise_table(privacy.noise_units)


def _blocks(submission: SubmissionBundle) -> Iterator[tuple[int, str, NDArray[np.int32]]]:
    """(step, group, ĝ restricted to the group) for every step and non-empty group."""
    groups = submission.config.groups
    for step, released in enumerate(submission.trajectory):
        for group, columns in groups.items():
            yield step, group, released[columns]
