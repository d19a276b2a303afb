"""What a member shows in Prove: one proof of statement G for each picked slot, as a directory of its own.

    candor/manifest.json       chain, contract, round, member, the submitted bundle, the beacon, the picks, the files
    candor/gradient-<i>.bin    the proof for the i-th pick, in the order of ledger.picks

Read as if by an enemy: the manifest is compared, byte for byte, with the one that chain, config and files imply; sizes
are known before anything is fetched. Whether a slot is in use shows nowhere: a proof for one that is not looks like any
other.

    LocalFault
    └── GradientsUnjudged   this machine cannot verify proofs of gradients; it then judges nobody whom they decide about
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ledger import canonical
from ledger.bundle import MANIFEST, MAX_MANIFEST_BYTES, Claim, Files, Rejected, SubmissionBundle
from ledger.canonical import NotCanonical
from ledger.config import Config
from ledger.content.reader import Limits
from ledger.mechanism import statement_of
from ledger.optimizer import PublicOptimizer
from ledger.picks import Pick, picks_of
from ledger.records import Reason
from ledger.tensors import Weights, flatten, unflatten
from proofs.errors import LocalFault
from proofs.parameters import HASH_BYTES, SENT, SLOTS
from proofs.proof import ProofInvalid
from proofs.statement import Statement
from proofs.words import Binding

KIND: Final = "candor/gradients/1"
MAX_PROOF_BYTES: Final = 1 << 26
"""Of one proof, whatever the base: for who carries proofs, and cannot know how large they have to be."""


class GradientsUnjudged(LocalFault):
    """The config asks for proofs of gradients, and this machine cannot verify them; the text says what is missing."""


@dataclass(frozen=True, eq=False)
class Challenge:
    """Statement G for one picked slot, but for the program: that follows from base and iterate.

    slots_root: what the member's contributions were committed under, before `beacon` was drawn.
    """

    mechanism: Statement
    slots_root: bytes
    beacon: bytes
    pick: Pick
    tolerance: int


@dataclass(frozen=True, eq=False)
class Job:
    """A proof to verify. iterate: every tensor in grid units, as it was before the challenge's step."""

    iterate: Weights
    challenge: Challenge
    proof: bytes


class GradientVerifier(Protocol):
    """Verifies proofs on some base. Both raise GradientsUnjudged where that is not the config's, or not there."""

    def largest(self, config: Config, weights: Weights) -> int:
        """Bytes of a proof at most, MAX_PROOF_BYTES in any case."""

    def outcomes(self, config: Config, jobs: Sequence[Job]) -> Iterable[ProofInvalid | None]:
        """For each job, in order, why its proof does not hold; None where it does."""


@dataclass(frozen=True)
class Answers:
    """Whose answers, and to what. bundle: digest of the submission; beacon: drawn after it."""

    config: Config
    binding: Binding
    bundle: bytes
    beacon: bytes

    @property
    def picks(self) -> tuple[Pick, ...]:
        return picks_of(self.config, self.beacon, self.binding)

    def files(self, proofs: Sequence[bytes]) -> dict[str, bytes]:
        """The directory to publish, given a proof for each pick. Raises LocalFault."""
        if len(proofs) != len(self.picks):
            raise LocalFault(f"{len(proofs)} proofs for {len(self.picks)} picks")
        files = {proof_path(number): proof for number, proof in enumerate(proofs)}
        return files | {MANIFEST: self._manifest(files)}

    def read(self, files: Files, largest: int) -> tuple[bytes, ...]:
        """The proofs, in the order of the picks. Raises Rejected; none of them is verified here."""
        paths = tuple(proof_path(number) for number in range(len(self.picks)))
        for what, wrong in (
            ("missing", {*paths, MANIFEST} - files.keys()),
            ("unexpected", files.keys() - {*paths, MANIFEST}),
        ):
            if wrong:
                raise _invalid(f"{what} file {sorted(wrong)[0]!r:.120}")
        for path in (*paths, MANIFEST):
            most = MAX_MANIFEST_BYTES if path == MANIFEST else largest
            if len(files[path]) > most:
                raise _invalid(f"{path}: {len(files[path])} bytes, at most {most} allowed")
        self._check_manifest(files)
        return tuple(files[path] for path in paths)

    def _check_manifest(self, files: Files) -> None:
        expected = self._manifest({path: data for path, data in files.items() if path != MANIFEST})
        if files[MANIFEST] == expected:
            return
        try:
            found = canonical.decode(files[MANIFEST], max_bytes=MAX_MANIFEST_BYTES)
        except NotCanonical as error:
            raise _invalid(f"{MANIFEST}: {error}") from error
        wanted = canonical.decode(expected, max_bytes=MAX_MANIFEST_BYTES)
        if not isinstance(found, dict):
            raise _invalid("the manifest is not a JSON object")
        for key in sorted(wanted.keys() | found.keys(), key=lambda key: (key in ("files", "picks"), key)):
            if found.get(key, "nothing") != wanted.get(key, "nothing"):
                told = f"{wanted.get(key, 'nothing')!r:.120}, found {found.get(key, 'nothing')!r:.120}"
                raise _invalid(f"{key!r:.40}: expected {told}")
        raise _invalid("the manifest is not the expected one")

    def _manifest(self, files: Files) -> bytes:
        table = {path: {"sha256": canonical.digest(data).hex(), "size": len(data)} for path, data in files.items()}
        return canonical.encode(
            {
                "kind": KIND,
                "chain_id": self.binding.chain_id,
                "contract": self.binding.contract.hex(),
                "round": self.binding.round,
                "member": self.binding.member,
                "bundle": self.bundle.hex(),
                "beacon": self.beacon.hex(),
                "picks": [[pick.step, pick.slot] for pick in self.picks],
                "files": table,
            }
        )


def proof_path(number: int) -> str:
    return f"candor/gradient-{number}.bin"


def gradient_limits(config: Config, largest: int = MAX_PROOF_BYTES) -> Limits:
    """What a store may fetch of it."""
    proofs = config.openings
    return Limits(proofs + 1, max(largest, MAX_MANIFEST_BYTES), proofs * largest + MAX_MANIFEST_BYTES, max_depth=2)


def binding_of(claim: Claim) -> Binding:
    return Binding(claim.chain_id, claim.contract, claim.round, claim.member)


def challenges(
    config: Config, claim: Claim, train_beacon: bytes, released: NDArray[np.int32], proof: bytes, prove_beacon: bytes
) -> tuple[Challenge, ...]:
    """What a member has to answer, from what it submitted: sums, and the proof of the mechanism."""
    if config.gradient is None:
        return ()
    mechanism, root = statement_of(config, claim, train_beacon, released), slots_root(proof)
    return tuple(
        Challenge(mechanism, root, prove_beacon, pick, config.gradient.tolerance)
        for pick in picks_of(config, prove_beacon, binding_of(claim))
    )


def slots_root(proof: bytes) -> bytes:
    """The root under which a proof of the mechanism commits to all contributions: that of its tree of slots."""
    at = HASH_BYTES * SENT.index(SLOTS)
    return proof[at : at + HASH_BYTES]


def iterates(config: Config, start: Weights, released: NDArray[np.int32], steps: Iterable[int]) -> dict[int, Weights]:
    """Every tensor in grid units as it was before each of `steps`: the global weights before step 0."""
    wanted, found = set(steps), {}
    optimizer = PublicOptimizer(config, flatten(config, start))
    for step in range(max(wanted, default=-1) + 1):
        if step in wanted:
            found[step] = dict(start) | unflatten(config, optimizer.iterate)
        optimizer.step(released[step])
    return found


def jobs_of(
    submission: SubmissionBundle, start: Weights, asked: Sequence[Challenge], proofs: Sequence[bytes]
) -> list[Job]:
    """One job for each proof. start: the global weights."""
    at = iterates(submission.config, start, submission.trajectory, (challenge.pick.step for challenge in asked))
    return [Job(at[challenge.pick.step], challenge, proof) for challenge, proof in zip(asked, proofs, strict=True)]


def _invalid(detail: str) -> Rejected:
    return Rejected(Reason.GRADIENT_INVALID, detail)
