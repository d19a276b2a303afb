"""What auditing costs a server: `python -m benchmarks.serving`.

Two servers over one model, that of the demo's preset on its base: one takes the fingerprint of every answer, seals its
record, writes both into the log, signs the receipt, and anchors; the other does none of that (all its answers carry one
receipt, of none of them). Clients in a process of their own ask them in turn. When they are done, everything is
anchored and published; that is processor time of the answers with auditing too. Then the log by itself, and the gas of
its checkpoints on a real chain, at three sizes.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from devnet.anvil import Anvil, AnvilOptions
from devnet.federation import SCRYPT_N
from devnet.notes import held_out
from devnet.presets import MINILM, Preset, make_config, preset_named
from ledger.deploy import act, deploy, deploy_log
from ledger.eip712 import Domain
from ledger.evm import EvmChain
from ledger.log import statements
from ledger.log.actions import PostCheckpoint, Register, RegisterAuditor
from ledger.log.receipt import Receipt
from ledger.log.sealing import Auditor, AuditorKey
from ledger.log.statements import Checkpoint
from ledger.log.store import LogStore
from ledger.log.tiles import RECORDS
from ledger.records import Policy
from ledger.signing import Key, create_keystore
from ledger.twin import TwinChain
from node.engine import Engine
from node.fingerprint import States
from node.model import attach, load_base
from node.serving.anchor import Anchor
from node.serving.asking import CLASSIFYING
from node.serving.daemon import Server, opened
from node.serving.desk import Writes
from node.serving.scribe import Answer, Identity, Pen, Scribe, Standing, Told
from node.serving.settings import LimitSettings, LogSettings, ServeSettings
from node.settings import ChainSettings, ContentSettings, HttpSettings, KeySettings

AUDITED, PLAIN = "with auditing", "without"
POLL_S: Final = 1.0
CLIENTS: Final = 24
REQUESTS: Final = 10  # of each client and turn: what else goes on around lasts longer than a pair of turns
TURNS: Final = 21
LONGEST_TEXT: Final = 60  # fits both presets
SIZES: Final = (10**3, 10**5, 10**6)
ETHER: Final = 10**18
POLICY: Final = Policy(8, 8, 0, 8, 8, 4, quorum=2, proof_required=False, verifier_quorum=2)


def main() -> None:
    serving(preset_named(os.environ.get("CANDOR_PRESET", MINILM.name)))
    log_and_gas()


# ---- serving


class Unprinted(Engine):
    """Nobody will replay what it says."""

    def prints_of(self, states: States) -> list[bytes]:
        return [b""] * len(states)


class Unwritten:
    """In the pen's place: the same receipt for everybody, and nothing on the disk."""

    def __init__(self, pen: Pen) -> None:
        made: Future[Receipt | BaseException] = Future()
        pen.submit(Answer(b"{}", b"{}", CLASSIFYING), made.set_result)
        self._receipt = made.result()

    def submit(self, answer: Answer, told: Told) -> None:
        told(self._receipt)


@dataclass(frozen=True)
class Turn:
    """seconds: of all requests; each: of every one; cpu_s: of the server's processor."""

    seconds: float
    each: list[float]
    cpu_s: float


def serving(preset: Preset) -> None:
    """Prints requests per second and latencies of both servers, taken in turn."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        child = context.Process(target=serve_both, args=(preset.name, folder, theirs), daemon=True)
        child.start()
        urls: dict[str, str] = ours.recv()
        rows = [note.text[:LONGEST_TEXT] for note in held_out(3, preset.held_out, 7)]
        for url in urls.values():
            turn(url, rows)
        found: dict[str, list[Turn]] = {name: [] for name in urls}
        for number in range(TURNS):
            for name in sorted(urls, reverse=number % 2 == 1):
                ours.send(name)
                ours.recv()
                seconds, each = turn(urls[name], rows)
                ours.send(name)
                found[name].append(Turn(seconds, each, ours.recv()))
        ours.send("")
        closing = ours.recv() / (TURNS + 1)
        child.join()
    found[AUDITED] = [replace(some, cpu_s=some.cpu_s + closing) for some in found[AUDITED]]
    print(f"{preset.name}: /v1/classify, {CLIENTS} clients, {TURNS} turns of {CLIENTS * REQUESTS} requests each")
    for name, taken in found.items():
        latencies = sorted(each for some in taken for each in some.each)
        middle, tail = latencies[len(latencies) // 2], latencies[len(latencies) * 99 // 100]
        rate = CLIENTS * REQUESTS / statistics.median(some.seconds for some in taken)
        cpu = statistics.median(some.cpu_s for some in taken) / (CLIENTS * REQUESTS)
        print(
            f"  {name:<14}{rate:8.1f} a second   p50 {middle * 1e3:6.1f} ms   p99 {tail * 1e3:6.1f} ms   "
            f"processor {cpu * 1e3:.2f} ms a request"
        )
    print(f"  of which anchoring and publishing {closing / (CLIENTS * REQUESTS) * 1e3:.2f} ms")
    pairs = list(zip(found[AUDITED], found[PLAIN], strict=True))
    for what, of in (("time", lambda some: some.seconds), ("processor time", lambda some: some.cpu_s)):
        prices = sorted(of(audited) / of(plain) - 1 for audited, plain in pairs)
        middle = statistics.median(prices)
        print(f"  price of auditing: {middle:+.1%} of {what} (turn by turn {prices[0]:+.1%} to {prices[-1]:+.1%})")


def turn(url: str, rows: list[str]) -> tuple[float, list[float]]:
    """(seconds of all, seconds of each)."""
    host = url.removeprefix("http://")

    def client(number: int) -> list[float]:
        connection, taken = HTTPConnection(host, timeout=60), []
        for at in range(REQUESTS):
            body = json.dumps({"model": "bench", "input": rows[(number * REQUESTS + at) % len(rows)]})
            began = time.perf_counter()
            connection.request("POST", "/v1/classify", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            data = answer.read()
            taken.append(time.perf_counter() - began)
            if answer.status != 200:
                raise RuntimeError(f"{answer.status}: {data[:200]!r}")
        connection.close()
        return taken

    began = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        each = list(pool.map(client, range(CLIENTS)))
    return time.perf_counter() - began, [seconds for some in each for seconds in some]


def serve_both(preset: str, folder: str, pipe: Connection) -> None:
    """The child: both servers, until told to stop."""
    engine = demo_engine(preset_named(preset))
    with (
        _server(Path(folder) / "audited", engine, lambda pen: pen) as audited,
        _server(Path(folder) / "plain", Unprinted(engine.model, engine.bundle), Unwritten) as plain,
    ):
        pipe.send({AUDITED: audited.url, PLAIN: plain.url})
        while name := pipe.recv():
            with anchoring(audited.anchor) if name == AUDITED else nullcontext():
                before = time.process_time()
                pipe.send("begun")
                pipe.recv()
            pipe.send(time.process_time() - before)
        before = time.process_time()
        audited.anchor.turn(now=True)
        if not audited.anchor.settled():
            raise RuntimeError("not all is anchored and published")
        pipe.send(time.process_time() - before)


@contextmanager
def anchoring(anchor: Anchor) -> Iterator[None]:
    """As candor-serve does it."""
    stop = threading.Event()

    def turns() -> None:
        while not stop.wait(POLL_S):
            anchor.turn()

    thread = threading.Thread(target=turns)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def demo_engine(preset: Preset) -> Engine:
    """The preset's model with its genesis weights: what they say costs the same as what trained ones say."""
    base = load_base(preset.base_path)
    config, weights = make_config(preset, epsilon=None, rounds=1, policy=POLICY, base=base)
    model = attach(base, config)
    model.load_weights(weights)
    return Engine(model, config.digest)


@contextmanager
def _server(folder: Path, engine: Engine, pen: Callable[[Pen], Writes]) -> Iterator[Server]:
    settings, chain = _settings(folder)
    with opened(settings, threading.Event(), engine=engine, chain=chain, pen=pen) as server:
        yield server


def _settings(folder: Path) -> tuple[ServeSettings, TwinChain]:
    folder.mkdir()
    key, admin, reads = Key.create(), Key.create(), Key.create()
    (folder / "password").write_text("benchmark\n")
    (folder / "password").chmod(0o600)
    create_keystore(folder / "key.json", "benchmark", key, scrypt_n=SCRYPT_N)
    balances = {each.address: 100 * ETHER for each in (key, admin, reads)}
    chain = TwinChain(admin=admin.address, coordinator=admin.address, balances=balances)
    act(chain, reads, RegisterAuditor(AuditorKey.create().public))
    settings = ServeSettings(
        chain=ChainSettings("http://127.0.0.1:9", chain.rounds_address, 2, 0, 500),
        key=KeySettings(folder / "key.json", folder / "password"),
        content=ContentSettings(folder / "content", (), "", 5.0),
        http=HttpSettings("127.0.0.1", 0),
        state=folder / "state",
        poll_s=POLL_S,
        model="",
        bundle=None,
        name="bench",
        device="cpu",
        audit_log=LogSettings(chain.log_address, 300, (reads.address,), 60.0, 300.0),
        limits=LimitSettings(None, 1 << 18, 4096, 512, 128, 16, 5, 120.0, 512),  # as a server has them, the demo's too
    )
    return settings, chain


# ---- the log


def log_and_gas() -> None:
    print(
        "\nthe log by itself: appends a second (record sealed, both durable, receipt signed), time of a proof; and gas"
    )
    titles = ("one by one", "16 together", "64 together", "inclusion", "consistency", "gas of 1,000")
    print(f"  {'entries':>10}" + "".join(f"{title:>14}" for title in titles))
    key, auditor = Key.create(), Auditor(bytes(20), AuditorKey.create().public)
    with tempfile.TemporaryDirectory() as folder, Anvil(AnvilOptions()) as anvil:
        anvil.rpc("anvil_setBalance", f"0x{key.address.hex()}", hex(1000 * ETHER))
        rounds = deploy(anvil.rpc_url, key, key.address).rounds
        for size in SIZES:
            chain = EvmChain(anvil.rpc_url, rounds, log=deploy_log(anvil.rpc_url, key, 20))
            domain = Domain(chain.chain_id, chain.log_address)
            log = filled(Path(folder) / str(size), size)
            gas = _gas(chain, key, domain, log, size)
            if rest := -log.size % RECORDS:
                log.append([b"no record"] * rest)  # records begin with a file of theirs
            scribe = Scribe(log, key, Identity(domain, key.address, bytes(32)), Standing(1, 300, (auditor,)))
            rates = [_appends(scribe, group) for group in (1, 16, 64)]
            inclusion, consistency = _proofs(log, size)
            shown = [f"{rate:,.0f}" for rate in rates]
            shown += [f"{inclusion * 1e3:.2f} ms", f"{consistency * 1e3:.2f} ms", f"{gas:,}"]
            print(f"  {size:>10,}" + "".join(f"{each:>14}" for each in shown))
            log.close()
    print("  gas: of the one transaction that anchors the next thousand answers, so for a thousand inferences")


@contextmanager
def _no_fsync() -> Iterator[None]:
    kept = os.fsync, os.fdatasync
    os.fsync = os.fdatasync = lambda _: None  # type: ignore[assignment]
    try:
        yield
    finally:
        os.fsync, os.fdatasync = kept


def filled(folder: Path, size: int) -> LogStore:
    """Entries of no meaning, quickly: nothing of them is measured."""
    with _no_fsync():
        log = LogStore(folder)
        for first in range(0, size, 4096):
            log.append([b"entry %d" % at for at in range(first, min(size, first + 4096))])
    return log


def _gas(chain: EvmChain, key: Key, domain: Domain, log: LogStore, size: int) -> int:
    """Of the checkpoint that covers the next thousand."""
    act(chain, key, Register(300))
    _post(chain, key, domain, log, 0)
    with _no_fsync():
        log.append([b"more %d" % at for at in range(1000)])
    return _post(chain, key, domain, log, size)


def _post(chain: EvmChain, key: Key, domain: Domain, log: LogStore, anchored: int) -> int:
    checkpoint = Checkpoint(log.size, log.root())
    proof = tuple(log.tree().consistency(anchored)) if anchored else ()
    signature = statements.sign(key.secret, domain, checkpoint)
    return act(chain, key, PostCheckpoint(key.address, checkpoint.size, checkpoint.root, proof, signature)).gas_used


def _appends(scribe: Scribe, group: int) -> float:
    answers = [Answer(b"q" * 300, b"a" * 600, CLASSIFYING)] * group
    count = max(4, 256 // group)
    began = time.perf_counter()
    for _ in range(count):
        scribe.write(answers)
    return count * group / (time.perf_counter() - began)


def _proofs(log: LogStore, size: int) -> tuple[float, float]:
    """Median seconds, each with tiles read afresh."""
    inclusion, consistency = [], []
    for at in range(21):
        began = time.perf_counter()
        log.tree().inclusion(at * size // 21)
        inclusion.append(time.perf_counter() - began)
        began = time.perf_counter()
        log.tree().consistency(size - 1 - at * 7)
        consistency.append(time.perf_counter() - began)
    return statistics.median(inclusion), statistics.median(consistency)


if __name__ == "__main__":
    sys.exit(main())
