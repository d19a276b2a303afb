"""What both daemons are made of: chain, key, store, follower, outbox, HTTP; and the loop that never gives up.

One turn: settle what was sent, follow the chain, act by the table, send what was intended. A turn that fails changes
nothing durable by halves; the next one takes it up, a little later each time. Only what no repetition can heal (another
chain, a key in use, a missing privacy ledger) ends the process.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ledger.content import ContentMissing, EmbeddedStore, GatewayStore, KuboStore, PeeredStore
from ledger.evm import EvmChain
from ledger.follower import Follower
from ledger.history import History
from ledger.outbox import GWEI, FeePolicy, Outbox
from ledger.ports import ChainPort, WrongChain
from ledger.signing import Key, open_keystore, read_password
from node.http import LOG, Pages, serve_pages
from node.logs import Log
from node.sender import Sender
from node.settings import BaseSettings, ContentSettings
from node.verifying import Board
from node.watch import BaseWatch, Watch
from proofs.errors import CandorError, LocalFault, PeerFault, WireFault

FOLLOWER, OUTBOX, SIGNING, MEMBER, AGGREGATOR, PRIVACY, CONTRIBUTIONS = (
    "follower.sqlite",
    "outbox.sqlite",
    "signing.sqlite",
    "member.sqlite",
    "aggregator.sqlite",
    "privacy",
    "contributions",
)
LONGEST_PAUSE_S: Final = 15.0


class Stopped(Exception):
    """Somebody asked the daemon to stop; raised inside long work."""


@dataclass(frozen=True)
class Service:
    """Everything open. `stop` ends the loop."""

    settings: BaseSettings
    chain: ChainPort
    key: Key
    store: PeeredStore
    follower: Follower
    sender: Sender
    watch: Watch
    log: Log
    stop: threading.Event
    url: str
    board: Board = field(default_factory=Board)

    def stop_if_asked(self) -> None:
        """Raises Stopped."""
        if self.stop.is_set():
            raise Stopped


@contextmanager
def opened(settings: BaseSettings, role: str, stop: threading.Event) -> Iterator[Service]:
    """Opens everything in the order in which it can fail for the operator's sake; closes it again.

    Waits for a chain that does not answer. Raises LocalFault, WrongChain, or Stopped.
    """
    log, watch, board = Log(role), Watch(role), Board()
    with ExitStack() as stack:
        key = open_keystore(settings.key.keystore, read_password(settings.key.password_file))
        local = EmbeddedStore(settings.content.path)
        server = serve_pages(Pages(watch, local, board), settings.http.host, settings.http.port)
        stack.callback(server.close)
        chain = connect(settings, watch, log, stop)
        folder, confirmations = settings.state, settings.chain.confirmations
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fees = FeePolicy(cap_wei=settings.chain.max_fee_gwei * GWEI)
        outbox = Outbox(folder / OUTBOX, chain, key, confirmations=max(1, confirmations), fees=fees)
        stack.callback(outbox.close)
        follower = Follower(folder / FOLLOWER, chain, start_block=settings.chain.start_block)
        stack.callback(follower.close)
        watch.set(address="0x" + key.address.hex(), chain_id=chain.chain_id, url=server.url)
        log.info("started", address="0x" + key.address.hex(), chain=chain.chain_id, http=server.url)
        store = open_store(settings.content, local)
        sender = Sender(outbox, watch, log)
        yield Service(settings, chain, key, store, follower, sender, watch, log, stop, server.url, board)


def open_store(settings: ContentSettings, local: EmbeddedStore) -> PeeredStore:
    """Own store first, then every peer; a Kubo, if there is one, mirrors what we publish and is asked too."""
    remotes = [GatewayStore([url], settings.timeout_s) for url in settings.peers]
    kubo = [KuboStore(settings.kubo, settings.timeout_s)] if settings.kubo else []
    return PeeredStore(local, [*remotes, *kubo], kubo)


def run_loop(service: Service, act: Callable[[History, int], None]) -> None:
    """Turns until asked to stop. Raises WrongChain, and whatever is no CandorError: a defect must not be hidden."""
    failures = 0
    while not service.stop.is_set():
        fault: CandorError | None = None
        try:
            turn(service, act)
        except Stopped:
            break
        except WrongChain:
            raise
        except CandorError as error:
            fault = error
        failures = _told(service, fault, failures)
        pause_s = service.settings.poll_s * 2 ** min(failures, 16)
        service.stop.wait(min(pause_s, max(LONGEST_PAUSE_S, service.settings.poll_s)))
    service.log.info("stopped")


def turn(service: Service, act: Callable[[History, int], None]) -> None:
    """One turn. Raises CandorError; nothing is lost by that."""
    service.sender.pump()
    polled = service.follower.poll()
    if polled.undone_to is not None:
        service.log.warning("reorg", undone_to=polled.undone_to, head=polled.head.number)
    act(service.follower.history, polled.head.number)
    service.sender.pump()


def until_asked(stop: threading.Event) -> None:
    """SIGTERM and SIGINT set `stop`. For the main thread of a process."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())


def state_file(settings: BaseSettings, name: str) -> Path:
    return settings.state / name


def _told(service: Service, fault: CandorError | None, failures: int) -> int:
    """Shows and logs a fault when it is new, and that it is over; returns how many turns in a row have failed."""
    if fault is None:
        if failures:
            service.log.info("recovered", after_turns=failures)
        service.watch.beat()
        return 0
    kind = type(fault).__name__
    service.watch.failed(kind)
    if isinstance(fault, ContentMissing):
        service.watch.fetch_failed()
    service.watch.beat(f"{kind}: {LOG if isinstance(fault, LocalFault) else fault}")  # anybody may read it
    if failures in (0, 1) or failures % 20 == 0:
        tell = service.log.warning if isinstance(fault, WireFault) else service.log.error
        tell("turn failed", fault=kind, whose=_whose(fault), why=fault, failures=failures + 1)
    return failures + 1


def _whose(fault: CandorError) -> str:
    for kind, name in ((LocalFault, "local"), (PeerFault, "peer"), (WireFault, "wire")):
        if isinstance(fault, kind):
            return name
    return "unknown"


def connect(
    settings: BaseSettings, watch: BaseWatch, log: Log, stop: threading.Event, audit_log: bytes = b""
) -> ChainPort:
    """Tries until the chain answers. Raises WrongChain, or Stopped."""
    pause_s = settings.poll_s
    while not stop.is_set():
        try:
            return EvmChain(settings.chain.rpc_url, settings.chain.rounds, log=audit_log)
        except WireFault as error:
            watch.beat(f"{type(error).__name__}: {error}")
            log.warning("no chain yet", why=error)
        stop.wait(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
    raise Stopped
