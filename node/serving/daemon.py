"""candor-serve: everything opened in the order in which it can fail for the operator's sake, and closed again.

key and its lock → chain → registered, auditors named → the log, which continues what is anchored → the model → HTTP.

Stopping: no more connections; what was accepted is answered, or told that it is not; the pen writes what waits; the
anchor tries once more to get everything onto the chain. What does not get there waits for the next start.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from ledger.content import EmbeddedStore, GatewayServer, KuboStore
from ledger.eip712 import Domain
from ledger.log.guard import CheckpointGuard
from ledger.log.store import LogStore
from ledger.outbox import GWEI, FeePolicy, Outbox
from ledger.ports import ChainPort
from ledger.signing import Key, open_keystore, read_password
from node.logs import Log
from node.sender import Sender
from node.service import LONGEST_PAUSE_S, OUTBOX, Stopped, connect, open_store, state_file
from node.serving.anchor import Anchor, Rhythm, check_continues, enrol, standing
from node.serving.api import Api, HttpLimits
from node.serving.asking import Bounds
from node.serving.batching import Batcher, BatchLimits
from node.serving.desk import Desk, Writes
from node.serving.engine import Engine
from node.serving.keys import load_keys
from node.serving.log_pages import Shelf
from node.serving.meter import Meter
from node.serving.proving import ProofDesk, proves_on
from node.serving.publishing import Publisher
from node.serving.scribe import Identity, Pen, Scribe, Standing
from node.serving.settings import ServeSettings
from node.serving.web import WebServer
from proofs.errors import CandorError, LocalFault

CHECKPOINTS: Final = "checkpoints.sqlite"
PUBLISHED: Final = "published.json"
LOG_FOLDER: Final = "log"
BODY_S: Final = 30.0
WRITE_S: Final = 30.0
FAREWELL_S: Final = 30.0


@dataclass(frozen=True)
class Server:
    """Everything open."""

    url: str
    log: LogStore
    anchor: Anchor
    identity: Identity
    meter: Meter
    web: WebServer


def run(
    settings: ServeSettings,
    *,
    stop: threading.Event | None = None,
    engine: Engine | None = None,
    ready: Callable[[Server], None] = lambda server: None,
) -> None:
    """Blocks until `stop` is set. Raises LocalFault for what only the operator can repair."""
    stop = stop or threading.Event()
    try:
        with opened(settings, stop, engine=engine) as server:
            ready(server)
            turns(server, settings.poll_s, stop)
    except Stopped:
        return


def turns(server: Server, poll_s: float, stop: threading.Event) -> None:
    """The anchor's turns, further apart while they fail. Raises LogForked, and LocalFault if the HTTP server died."""
    failures = 0
    while not stop.is_set():
        failures = failures + 1 if server.anchor.turn() else 0
        if not server.web.alive:
            raise LocalFault("the HTTP server has ended; the log tells why")
        server.meter.beat()
        stop.wait(min(poll_s * 2 ** min(failures, 16), max(LONGEST_PAUSE_S, poll_s)))


@contextmanager
def opened(
    settings: ServeSettings,
    stop: threading.Event,
    *,
    engine: Engine | None = None,
    chain: ChainPort | None = None,
    pen: Callable[[Pen], Writes] = lambda pen: pen,
) -> Iterator[Server]:
    """`engine`, `chain`, `pen`: others than the settings lead to. Raises LocalFault, WrongChain, Stopped."""
    told, meter = Log("serve"), Meter()
    keys = load_keys(settings.limits.keys, settings.http.host)
    key = open_keystore(settings.key.keystore, read_password(settings.key.password_file))
    with ExitStack() as stack:
        chain = chain or connect(settings, meter, told, stop, settings.audit_log.contract)
        settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        sender = _sender(stack, settings, chain, key, meter, told)
        enrolled(chain, key, settings, sender, stop)
        identity, log, guard = _log(stack, settings, chain, key)
        local = EmbeddedStore(settings.content.path)
        engine = engine or _engine(settings, chain, local)
        identity = Identity(identity.domain, identity.server, engine.bundle)
        scribe = Scribe(log, key, identity, _standing(chain, key, settings))
        mirrors = [KuboStore(settings.content.kubo, settings.content.timeout_s)] if settings.content.kubo else []
        publisher = Publisher(log, local, mirrors, state_file(settings, PUBLISHED))
        rhythm = Rhythm(settings.audit_log.checkpoint_s, settings.audit_log.publish_s)
        auditors = settings.audit_log.auditors
        anchor = Anchor(chain, key, identity, auditors, log, guard, scribe, publisher, sender, rhythm, meter, told)
        anchor.turn()
        stack.callback(_farewell, anchor, told)
        writer = Pen(scribe.write)
        stack.callback(writer.close)
        limits = settings.limits
        batching = BatchLimits(limits.queue, limits.batch, limits.gather_ms / 1000)
        batcher = Batcher(engine, batching, meter.batch, told)
        stack.callback(batcher.close)
        name = settings.name or f"candor-{engine.bundle.hex()[:16]}"
        desk = Desk(engine, batcher, pen(writer), name, limits.request_s, meter)
        shelf = Shelf(log, GatewayServer(local), lambda: publisher.last)
        http = HttpLimits(limits.body_bytes, BODY_S, WRITE_S)
        bounds = Bounds(limits.prompt_tokens, limits.max_tokens)
        proofs = ProofDesk(log, proves_on(engine) if limits.proofs else None, told)
        stack.callback(proofs.close)
        api = Api(desk, bounds, http, keys, shelf, proofs, key.address)
        web = WebServer(
            api, settings.http.host, settings.http.port, connections=limits.connections, farewell_s=FAREWELL_S
        )
        stack.callback(web.close)
        gc.freeze()  # the model stays: a collection that walks all of its objects would hold up every answer
        stack.callback(gc.unfreeze)
        web.start()
        meter.set(address=f"0x{key.address.hex()}", model=name, bundle=engine.bundle.hex(), url=web.url)
        meter.beat()
        told.info("started", address=f"0x{key.address.hex()}", model=name, http=web.url, entries=log.size)
        yield Server(web.url, log, anchor, identity, meter, web)
        told.info("stopping")


def enrolled(chain: ChainPort, key: Key, settings: ServeSettings, sender: Sender, stop: threading.Event) -> None:
    """Waits until the chain knows this server and its auditors. Raises LocalFault, Stopped."""
    while not enrol(chain, key, settings.audit_log.auditors, settings.audit_log.promise_blocks, sender):
        if stop.wait(settings.poll_s):
            raise Stopped
        sender.pump()


def _engine(settings: ServeSettings, chain: ChainPort, local: EmbeddedStore) -> Engine:
    """The bundle, if a FINAL round ended with it, on its base. Model libraries are loaded here, and not before."""
    from node.engine import load

    store, rounds, start = open_store(settings.content, local), settings.chain.rounds, settings.chain.start_block
    return load(
        chain, store, rounds, settings.bundle or "latest final", settings.model, settings.device, start_block=start
    )


def _sender(stack: ExitStack, settings: ServeSettings, chain: ChainPort, key: Key, meter: Meter, told: Log) -> Sender:
    """Raises KeyInUse: another process signs with this key."""
    fees = FeePolicy(cap_wei=settings.chain.max_fee_gwei * GWEI)
    confirmations = max(1, settings.chain.confirmations)
    outbox = Outbox(state_file(settings, OUTBOX), chain, key, confirmations=confirmations, fees=fees)
    stack.callback(outbox.close)
    return Sender(outbox, meter, told)


def _log(
    stack: ExitStack, settings: ServeSettings, chain: ChainPort, key: Key
) -> tuple[Identity, LogStore, CheckpointGuard]:
    """The log as it was left, if it is all there, and continues what is anchored. Raises LogDamaged, LogForked."""
    domain = Domain(chain.chain_id, chain.log_address)
    guard = CheckpointGuard(state_file(settings, CHECKPOINTS))
    stack.callback(guard.close)
    signed, server = guard.last(domain, key.address), chain.log_server(key.address)
    at_least = max(signed.size if signed else 0, server.size)
    log = LogStore(state_file(settings, LOG_FOLDER), at_least=at_least)
    stack.callback(log.close)
    check_continues(log, server)
    return Identity(domain, key.address, b""), log, guard


def _standing(chain: ChainPort, key: Key, settings: ServeSettings) -> Standing:
    return standing(chain, chain.head().number, chain.log_server(key.address), settings.audit_log.auditors)


def _farewell(anchor: Anchor, told: Log) -> None:
    try:
        anchor.turn(now=True)
    except CandorError as error:
        told.warning("not all is anchored", why=error)
    told.info("stopped", entries=anchor.log.size, settled=anchor.settled())
