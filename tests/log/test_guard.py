"""A server does not fork its own log by accident: it signs what continues what it signed, across restarts and kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from eth_utils.crypto import keccak

from ledger.crash import Point
from ledger.eip712 import Domain
from ledger.log.guard import CheckpointGuard
from ledger.log.statements import Checkpoint, signer
from ledger.signing import Key, SigningRefused
from proofs.merkle import consistency_path, leaf_hash, root_of_hashes

KEY = Key.of(keccak(text="server"))
DOMAIN = Domain(31337, b"\xaa" * 20)
LEAVES = [leaf_hash(b"%d" % number) for number in range(40)]
OTHER = [leaf_hash(b"other %d" % number) for number in range(40)]


def of(size: int, leaves: list[bytes] = LEAVES) -> Checkpoint:
    return Checkpoint(size, root_of_hashes(leaves[:size]))


def path(old: int, new: int, leaves: list[bytes] = LEAVES) -> list[bytes]:
    return consistency_path(
        lambda level, index: root_of_hashes(leaves[index << level : (index + 1) << level]), old, new
    )


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[CheckpointGuard]:
    opened = CheckpointGuard(tmp_path / "guard.sqlite")
    yield opened
    opened.close()


def test_checkpoints_that_continue_each_other_are_signed(guard: CheckpointGuard) -> None:
    assert guard.last(DOMAIN, KEY.address) is None
    for old, new in ((0, 3), (3, 8), (8, 21)):
        signature = guard.sign(KEY, DOMAIN, of(new), path(old, new))
        assert signer(DOMAIN, of(new), signature) == KEY.address
    assert guard.last(DOMAIN, KEY.address) == of(21)


def test_what_was_signed_is_signed_again_and_nothing_else_of_its_size(guard: CheckpointGuard) -> None:
    first = guard.sign(KEY, DOMAIN, of(5), [])
    second = guard.sign(KEY, DOMAIN, of(9), path(5, 9))
    assert guard.sign(KEY, DOMAIN, of(5), []) == first
    assert guard.sign(KEY, DOMAIN, of(9), []) == second
    for size in (5, 9, 7):
        with pytest.raises(SigningRefused, match="old copy"):
            guard.sign(KEY, DOMAIN, of(size, OTHER), path(0, size))
    with pytest.raises(SigningRefused, match="old copy"):
        guard.sign(KEY, DOMAIN, of(7), path(5, 7))


def test_another_history_is_never_signed(guard: CheckpointGuard) -> None:
    guard.sign(KEY, DOMAIN, of(5), [])
    for proof in (path(5, 9, OTHER), path(5, 9), [], path(5, 9)[:-1]):
        with pytest.raises(SigningRefused, match="does not continue"):
            guard.sign(KEY, DOMAIN, of(9, OTHER), proof)
    with pytest.raises(SigningRefused):
        guard.sign(KEY, DOMAIN, of(9), [])
    guard.sign(KEY, DOMAIN, of(9), path(5, 9))


def test_other_servers_chains_and_contracts_have_logs_of_their_own(guard: CheckpointGuard) -> None:
    guard.sign(KEY, DOMAIN, of(5), [])
    guard.sign(Key.of(keccak(text="other")), DOMAIN, of(5, OTHER), [])
    guard.sign(KEY, Domain(1, DOMAIN.contract), of(5, OTHER), [])
    guard.sign(KEY, Domain(31337, bytes(20)), of(5, OTHER), [])


SIGN = """
import sys
from pathlib import Path
from ledger.eip712 import Domain
from ledger.log.guard import CheckpointGuard
from ledger.log.statements import Checkpoint
from ledger.signing import Key
guard = CheckpointGuard(Path(sys.argv[1]))
key, root = map(bytes.fromhex, sys.argv[2:])
guard.sign(Key.of(key), Domain(31337, b"\\xaa" * 20), Checkpoint(5, root), [])
"""


def test_killed_right_after_signing_it_still_refuses_another_root(tmp_path: Path) -> None:
    def run(checkpoint: Checkpoint, crash_at: str = "") -> int:
        where = Path(__file__).parent.parent.parent
        command = [sys.executable, "-c", SIGN, str(tmp_path / "guard"), KEY.secret.hex(), checkpoint.root.hex()]
        environment = {**os.environ, "CANDOR_CRASH_AT": crash_at}
        return subprocess.run(command, env=environment, cwd=where, timeout=120, stderr=subprocess.DEVNULL).returncode

    assert run(of(5), Point.LOG_SIGNED.value) == -signal.SIGKILL
    assert run(of(5)) == 0
    assert run(of(5, OTHER)) == 1
