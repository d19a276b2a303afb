"""kill -9 right after every durable write of a server: in a process of its own, on a real chain.

Whoever got an answer finds its entry in the log and under the anchored root; nothing is signed twice in two ways; the
server goes on where it was.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import tomli_w

from devnet.anvil import Anvil, AnvilOptions
from ledger.content import Cid, EmbeddedStore, Limits
from ledger.crash import Point
from ledger.deploy import act, deploy, deploy_log
from ledger.eip712 import Domain
from ledger.evm import EvmChain
from ledger.log import note
from ledger.log.actions import RegisterAuditor
from ledger.log.receipt import Receipt, Server, check_receipt, open_record
from ledger.log.records import Checkpointed
from ledger.log.sealing import Auditor, AuditorKey
from ledger.log.store import LogStore
from ledger.log.tiles import RECORDS, records_path, split_records
from ledger.log.tree import TileTree, fsck
from ledger.outbox import Status
from ledger.outbox_store import OutboxStore
from ledger.signing import Key, create_keystore
from node.serving.ask import AskRefused, Kept, NotReached, ask
from node.serving.asking import CLASSIFYING
from node.serving.scribe import Answer, Identity, Scribe, Standing

pytestmark = pytest.mark.anvil

BUNDLE = bytes(range(32))
PROMISE_BLOCKS = 200
LIMITS = Limits(1 << 12, 1 << 24, 1 << 28, 8)
BEFORE_SERVING = {Point.SERVE_REGISTER_INTENT, Point.SERVE_AUDITORS_INTENT}
AT_A_FULL_TILE = {Point.LOG_TILE, Point.LOG_BUNDLE, Point.LOG_RECORDS, Point.LOG_TRIMMED}
POINTS = [point for point in Point if point.name.startswith(("LOG_", "SERVE_", "OUTBOX_"))]

# Imports once, then forks a server for each order; a killed one is waited for, and its status told.
ZYGOTE = """
import json, os, sys, threading, traceback
from pathlib import Path
from ledger.log.receipt import Decoding
from node import logs
from node.service import until_asked
from node.serving.daemon import run
from node.serving.engine import Outcome, Step
from node.serving.settings import load_serve

class Echo:
    task, labels, max_tokens, bundle, parents = "next-token", (), 512, bytes(range(32)), ()
    def encode(self, text): return list(text.encode())
    def chat(self, messages): return str(messages)
    def classify(self, batch, leave_out=()): raise NotImplementedError
    def generate(self, jobs, on_step, stopped):
        for number, job in enumerate(jobs):
            on_step(Step(number, 1, "so ", ""))
            on_step(Step(number, 2, "it is", "stop"))
        return [Outcome((1, 2), "so it is", "stop", b"print") for job in jobs]

for line in sys.stdin:
    order = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.environ["CANDOR_CRASH_AT"] = order["crash_at"]
        out = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        logs.to_stderr()
        code, stop = 1, threading.Event()
        until_asked(stop)
        try:
            run(load_serve(Path(order["config"])), stop=stop, engine=Echo())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@dataclass
class World:
    """One chain for all, one process that forks servers."""

    anvil: Anvil
    chain: EvmChain
    auditor: Key
    reads: AuditorKey
    zygote: subprocess.Popen[str]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    root = Path(__file__).parent.parent.parent
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    admin, auditor, reads = Key.create(), Key.create(), AuditorKey.create()
    command = [sys.executable, "-c", ZYGOTE]
    zygote = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root, env=environment
    )
    with Anvil(AnvilOptions()) as anvil, zygote:
        try:
            for key in (admin, auditor):
                anvil.rpc("anvil_setBalance", f"0x{key.address.hex()}", hex(10**20))
            rounds = deploy(anvil.rpc_url, admin, admin.address).rounds
            chain = EvmChain(anvil.rpc_url, rounds, log=deploy_log(anvil.rpc_url, admin, 20))
            act(chain, auditor, RegisterAuditor(reads.public))
            yield World(anvil, chain, auditor, reads, zygote)
        finally:
            zygote.kill()


@dataclass
class Place:
    """One server's folder, and what its users hold."""

    world: World
    folder: Path
    key: Key
    port: int
    kept: list[Kept] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def domain(self) -> Domain:
        return Domain(self.world.chain.chain_id, self.world.chain.log_address)

    def start(self, crash_at: Point | None = None) -> int:
        order = {
            "config": str(self.folder / "serve.toml"),
            "log": str(self.folder / "log.txt"),
            "crash_at": crash_at.value if crash_at else "",
        }
        assert self.world.zygote.stdin is not None
        assert self.world.zygote.stdout is not None
        self.world.zygote.stdin.write(json.dumps(order) + "\n")
        self.world.zygote.stdin.flush()
        return int(self.world.zygote.stdout.readline())

    def ended(self, wait_s: float) -> int | None:
        """The status, once it has one."""
        out = self.world.zygote.stdout
        assert out is not None
        found, _, _ = select.select([out], [], [], wait_s)
        return int(out.readline()) if found else None

    def stop(self, pid: int) -> None:
        os.kill(pid, signal.SIGTERM)
        assert self.ended(60) == 0, (self.folder / "log.txt").read_text()

    def ask(self, stream: bool) -> None:
        try:
            self.kept.append(ask(self.url, f"question {len(self.kept)}", stream=stream))
        except (NotReached, AskRefused):
            return

    def health(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = requests.get(f"{self.url}/health", timeout=5).json()
            return found
        except requests.RequestException:
            return {}


@pytest.fixture
def place(world: World, tmp_path: Path) -> Place:
    key = Key.create()
    world.anvil.rpc("anvil_setBalance", f"0x{key.address.hex()}", hex(10**20))
    create_keystore(tmp_path / "key.json", "secret", key, scrypt_n=1 << 10)
    (tmp_path / "password").write_text("secret\n")
    (tmp_path / "password").chmod(0o600)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "chain": {
            "rpc_url": world.anvil.rpc_url,
            "rounds": world.chain.rounds_address.hex(),
            "start_block": 0,
            "confirmations": 0,
        },
        "key": {"keystore": "key.json", "password_file": "password"},
        "content": {"path": "content"},
        "http": {"listen": f"127.0.0.1:{port}"},
        "state": {"path": "state"},
        "node": {"poll_s": 0.05},
        "model": {"path": "none", "name": "echo"},
        "log": {
            "contract": world.chain.log_address.hex(),
            "promise_blocks": PROMISE_BLOCKS,
            "auditors": [f"0x{world.auditor.address.hex()}"],
            "checkpoint_s": 0.0,
            "publish_s": 0.0,
        },
    }
    (tmp_path / "serve.toml").write_text(tomli_w.dumps(settings))
    return Place(world, tmp_path, key, port)


def almost_a_bundle(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """255 entries, as a server would have left them."""
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        log = LogStore(place.folder / "state" / "log")
        auditors = (Auditor(place.world.auditor.address, place.world.reads.public),)
        identity = Identity(place.domain, place.key.address, BUNDLE)
        scribe = Scribe(log, place.key, identity, Standing(1, PROMISE_BLOCKS, auditors))
        scribe.write([Answer(b"early", b"answer", CLASSIFYING)] * 255)
        log.close()


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_loses_no_answered_entry(
    place: Place, point: Point, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if point in AT_A_FULL_TILE:
        almost_a_bundle(place, monkeypatch)
    if point.name.startswith("OUTBOX_"):  # not the transactions of the registration: those of the first checkpoint
        pid = place.start()
        until(lambda: place.health().get("ok"))
        place.stop(pid)
    place.start(crash_at=point)
    status = None
    while status is None:
        place.ask(stream=len(place.kept) % 2 == 1)
        status = place.ended(0.02)
    assert status == -signal.SIGKILL, (place.folder / "log.txt").read_text()
    assert bool(place.kept) <= (point not in BEFORE_SERVING)

    pid, before = place.start(), len(place.kept)
    until(lambda: place.health().get("ok"))
    place.ask(stream=False)
    assert len(place.kept) == before + 1
    until(lambda: _settled(place.health()))
    place.stop(pid)
    _check(place)


def _settled(health: dict[str, Any]) -> bool:
    return 0 < health["entries"] == health["anchored"] == health["published"]


def _check(place: Place) -> None:
    """Everything that a stranger, an auditor and a user would check."""
    chain, domain = place.world.chain, place.domain
    anchored = chain.log_server(place.key.address)
    published = json.loads((place.folder / "state" / "published.json").read_text())
    store = EmbeddedStore(place.folder / "content", writable=False)
    files = store.get_directory(Cid.parse(published["cid"]).digest, LIMITS)
    checkpoint, _ = note.decode_note(domain, place.key.address, files["checkpoint"])
    assert (checkpoint.size, checkpoint.root) == (anchored.size, anchored.root)
    events = [found.event for found in chain.log_events(0, chain.head().number)]
    mine = [event for event in events if isinstance(event, Checkpointed) and event.server == place.key.address]
    roots = {event.size: event.root for event in mine}
    assert list(fsck(files.get, anchored.size, roots)) == []
    tree = TileTree(files.get, anchored.size)
    server = Server(domain, place.key.address, PROMISE_BLOCKS)
    head = chain.head().number
    for kept in place.kept:
        receipt = Receipt.decode(kept.receipt)
        owed = check_receipt(receipt, server, kept.request, kept.response, bundle=BUNDLE, head_block=head)
        owed.settle(anchored.size, anchored.root, tree.inclusion(receipt.entry.sequence))
        file, at = divmod(receipt.entry.sequence, RECORDS)
        sealed = split_records(files[records_path(file)])[at]
        record = open_record(receipt.entry, sealed, place.world.reads)
        assert (record.request, record.response) == (kept.request, kept.response)
    outbox = OutboxStore(
        place.folder / "state" / "outbox.sqlite", chain.chain_id, chain.rounds_address, place.key.address
    )
    assert {intent.status for intent in outbox.all()} == {Status.DONE}
    outbox.close()
