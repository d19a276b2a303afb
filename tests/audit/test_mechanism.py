"""The link `mechanism` where something is wrong with an accepted member, and in a file for a stranger."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from ledger.audit import audit
from ledger.audit_file import export_round, verify_file
from ledger.bundle import PROOF, bundle_limits
from ledger.content.car import CarReader, encode_block, encode_header, file_chunks
from ledger.content.cid import Codec
from ledger.records import Reason
from ledger.report import Name, Report, Status

Play = Callable[..., Any]


def failures(report: Report) -> set[Name]:
    return {link.name for link in report.links if link.status is Status.FAIL}


@pytest.fixture(scope="module")
def proving(found_federation: Play) -> Play:
    """Two members that prove, after a round in which `kinds` misbehaved and the aggregator may have lied."""

    def play(kinds: dict[int, str], **lies: Any) -> Any:
        federation = found_federation(2, proof_policy="mechanism")
        federation.play(kinds, **lies)
        return federation

    return play


@pytest.fixture(scope="module")
def honest(proving: Play) -> Any:
    return proving({})


@pytest.fixture(scope="module")
def exported(honest: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "round-1.car"
    export_round(path, honest.chain, honest.store, round_number=1)
    return path


# ---- accepted, and not as it should be


class Instead:
    """A store that gives other files for one bundle, as if those had been submitted."""

    def __init__(self, store: Any, digest: bytes, files: dict[str, bytes]) -> None:
        self._store, self._digest, self._files = store, digest, files

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def get_directory(self, digest: bytes, limits: Any) -> Any:
        return dict(self._files) if digest == self._digest else self._store.get_directory(digest, limits)


def test_an_accepted_bundle_in_which_no_proof_can_be_read_fails_the_mechanism(honest: Any) -> None:
    digest = honest.state.submissions[1].bundle
    files = dict(honest.store.get_directory(digest, bundle_limits(honest.config)))
    del files[PROOF]
    report = audit(honest.chain, Instead(honest.store, digest, files))
    assert {Name.MECHANISM, Name.VERDICTS} <= failures(report)
    assert "member 1 was accepted, and its proof does not hold" in report.find(Name.MECHANISM).evidence


def test_another_broken_rule_of_an_accepted_member_is_not_blamed_on_its_proof(proving: Play) -> None:
    """Its verdict ends before the proof is looked at; the audit looks all the same."""
    federation = proving({1: "EPSILON_UNDERSTATED"}, verdicts=lambda honest: dict.fromkeys(honest, Reason.ACCEPTED))
    report = audit(federation.chain, federation.store)
    assert failures(report) == {Name.PRIVACY, Name.VERDICTS}
    assert report.find(Name.MECHANISM).status is Status.PASS


def test_where_nobody_was_accepted_there_is_nothing_to_prove(proving: Play) -> None:
    federation = proving({}, verdicts=lambda honest: dict.fromkeys(honest, Reason.OFF_GRID))
    link = audit(federation.chain, federation.store).find(Name.MECHANISM)
    assert link.status is Status.PASS
    assert "nobody was accepted" in link.evidence


# ---- one file for a stranger


def test_a_file_carries_the_proofs_and_they_are_verified_offline(honest: Any, exported: Path) -> None:
    link = verify_file(exported).find(Name.MECHANISM)
    assert link == audit(honest.chain, honest.store).find(Name.MECHANISM)
    assert link.status is Status.PASS
    proofs = [len(honest.honest(member).proof) for member in range(2)]
    assert exported.stat().st_size > sum(proofs) > 400_000


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
def test_no_byte_of_a_proof_in_a_file_can_change(part: float, honest: Any, exported: Path, tmp_path: Path) -> None:
    data, proof = bytearray(exported.read_bytes()), honest.honest(1).proof
    start = bytes(data).find(proof[:4096])
    assert start > 0, "a proof of this size is one block"
    data[start + int(part * (len(proof) - 1))] ^= 1
    changed = tmp_path / "changed.car"
    changed.write_bytes(bytes(data))
    report = verify_file(changed)
    assert failures(report) == {Name.FILE}
    assert report.rounds == (), "nothing of such a file is told as if it were so"


def test_a_file_from_which_a_proof_was_taken_passes_nowhere_as_proven(exported: Path, tmp_path: Path) -> None:
    """Whoever has the file cannot tell a proof that is gone from one that never was: missing, not wrong."""
    reader = CarReader(file_chunks(BytesIO(exported.read_bytes())), 1 << 30)
    blocks = list(reader)
    largest = max(len(block.data) for block in blocks if block.cid.codec is Codec.RAW)
    kept = [block for block in blocks if len(block.data) < largest]
    assert len(kept) < len(blocks)
    shorter = tmp_path / "shorter.car"
    shorter.write_bytes(encode_header(reader.roots) + b"".join(map(encode_block, kept)))
    report = verify_file(shorter)
    link = report.find(Name.MECHANISM)
    assert (link.status, link.missing) == (Status.NOT_PROVEN, True)
    assert report.status is Status.NOT_PROVEN


def test_verifying_a_file_with_proofs_loads_no_compiler_and_no_model_library(exported: Path) -> None:
    """Seen in a process of its own, at the end of the whole audit."""
    program = (
        "import sys; from pathlib import Path; from ledger.audit_file import verify_file; "
        "report = verify_file(Path(sys.argv[1])); print(report.status.value); print(*sys.modules)"
    )
    command = [sys.executable, "-c", program, str(exported)]
    status, loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert status == "PASS"
    assert "proofs.verifier" in loaded.split()
    found = {name.partition(".")[0] for name in loaded.split()}
    assert found & {"numba", "llvmlite", "torch", "peft", "opacus", "transformers", "node"} == set()
