"""kill -9 right after every durable write of outbox and follower: in a process of its own, against a real anvil."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ledger.actions import calldata
from ledger.crash import Point
from ledger.follower import Follower
from ledger.outbox import Outbox, Status
from ledger.records import Committed
from ledger.signing import SigningGuard

pytestmark = pytest.mark.anvil

OUTBOX_POINTS = [point for point in Point if point.name.startswith("OUTBOX_")]
FOLLOWER_POINTS = [point for point in Point if point.name.startswith("FOLLOWER_")]

SEND = """
import sys
from pathlib import Path
from ledger.actions import decode_calldata
from ledger.evm import EvmChain
from ledger.outbox import Outbox
from ledger.signing import Key
url, rounds, secret, folder, calldata = sys.argv[1:]
box = Outbox(
    Path(folder) / "outbox.sqlite", EvmChain(url, bytes.fromhex(rounds)), Key.of(bytes.fromhex(secret)),
    lock_folder=Path(folder),
)
box.post("commit", decode_calldata("rounds", bytes.fromhex(calldata)))
while box.pending():
    box.pump()
"""
FOLLOW = """
import sys
from pathlib import Path
from ledger.evm import EvmChain
from ledger.follower import Follower
url, rounds, folder = sys.argv[1:]
Follower(Path(folder) / "follower.sqlite", EvmChain(url, bytes.fromhex(rounds))).poll()
"""
SIGN = """
import sys
from pathlib import Path
from ledger.eip712 import Domain, Submission
from ledger.signing import Key, SigningGuard
SigningGuard(Path(sys.argv[1]) / "signed.sqlite").sign(
    Key.of(bytes(31) + bytes([7])), Domain(1, bytes(20)), Submission(1, 0, bytes(32), int(sys.argv[2]))
)
"""


def run(program: str, *arguments: str, crash_at: Point | None = None) -> int:
    """Exit status of the program in a fresh process, killed at the point if one is given."""
    environment = {**os.environ, "CANDOR_CRASH_AT": crash_at.value if crash_at else ""}
    root = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", program, *arguments], env=environment, cwd=root, timeout=120)
    return done.returncode


@pytest.mark.parametrize("point", OUTBOX_POINTS)
def test_the_outbox_survives(anvil_lab: Any, tmp_path: Path, point: Point) -> None:
    """Killed at the point, started again: the intent is done, once, with the bytes that were signed first."""
    lab, key = anvil_lab, anvil_lab.cast.signers[0]
    lab.open()
    data = calldata(lab.commitment(1, 0)).hex()
    arguments = (lab.anvil.rpc_url, lab.chain.rounds_address.hex(), key.secret.hex(), str(tmp_path), data)
    assert run(SEND, *arguments, crash_at=point) == -signal.SIGKILL
    box = Outbox(tmp_path / "outbox.sqlite", lab.chain, key, lock_folder=tmp_path)
    signed_before = [stored.raw for stored in box._store.transactions("commit")]
    assert len(signed_before) == 1
    box.pump()
    intent = box.get("commit")
    assert intent is not None
    assert intent.status is Status.DONE
    assert [stored.raw for stored in box._store.transactions("commit")] == signed_before
    box.close()
    logs = lab.chain.events(0, lab.chain.head().number)
    assert [logged.event.member for logged in logs if isinstance(logged.event, Committed)] == [0]
    assert lab.chain.nonce(key.address) == 1


@pytest.mark.parametrize("point", FOLLOWER_POINTS)
def test_the_follower_survives(anvil_lab: Any, tmp_path: Path, point: Point) -> None:
    """Killed after applying, and again after undoing a reorg: nothing is missed and nothing applied twice."""
    lab = anvil_lab
    lab.open()
    lab.commit_all()
    arguments = (lab.anvil.rpc_url, lab.chain.rounds_address.hex(), str(tmp_path))
    assert run(FOLLOW, *arguments, crash_at=point) == -signal.SIGKILL
    follower = Follower(tmp_path / "follower.sqlite", lab.chain)
    assert follower.rounds() == lab.history().rounds
    assert follower.poll().events == ()
    follower.close()
    lab.reorg(2)
    lab.mine()
    assert run(FOLLOW, *arguments, crash_at=point) == -signal.SIGKILL
    follower = Follower(tmp_path / "follower.sqlite", lab.chain)
    follower.poll()
    assert follower.rounds() == lab.history().rounds
    follower.close()


def test_an_intent_survives_before_it_is_signed(anvil_lab: Any, tmp_path: Path) -> None:
    lab, key = anvil_lab, anvil_lab.cast.signers[0]
    lab.open()
    box = Outbox(tmp_path / "outbox.sqlite", lab.chain, key, lock_folder=tmp_path)
    box.post("commit", lab.commitment(1, 0))
    box.close()
    again = Outbox(tmp_path / "outbox.sqlite", lab.chain, key, lock_folder=tmp_path)
    again.pump()
    assert [intent.status for intent in again.intents()] == [Status.DONE]
    again.close()


def test_the_signing_guard_survives(tmp_path: Path) -> None:
    """Killed right after signing: the other payload stays refused."""
    assert run(SIGN, str(tmp_path), "1", crash_at=Point.NODE_SIGNED) == -signal.SIGKILL
    assert run(SIGN, str(tmp_path), "1") == 0
    assert run(SIGN, str(tmp_path), "2") == 1
    SigningGuard(tmp_path / "signed.sqlite").close()


def test_a_saved_chain_survives_too(anvil_lab: Any) -> None:
    """anvil itself is killed: what was saved comes back, to the hash."""
    lab = anvil_lab
    lab.to_train()
    head, history = lab.chain.head(), lab.history()
    lab.down()
    lab.up()
    assert lab.chain.head() == head
    assert lab.history() == history
    lab.submit_all()
    assert lab.state().standing == (0, 1, 2)
