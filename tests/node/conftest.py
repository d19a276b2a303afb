"""A federation of real daemons without processes: members and aggregators on a twin chain, one turn at a time.

The trainer is a fake (no gradients, but the real noise from words and beacon), stores are in memory, everything durable
is where a real daemon keeps it. `PowerCut` is what kill -9 is to a process: it passes through every handler.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.submissions import small_config
from ledger import crash
from ledger.actions import Action, AddMember, SetAggregators
from ledger.bundle import GenesisBundle
from ledger.config import Config
from ledger.content import MemoryStore, PeeredStore
from ledger.crash import Point
from ledger.deploy import act
from ledger.eip712 import Domain
from ledger.follower import Follower
from ledger.history import History
from ledger.outbox import Outbox
from ledger.privacy import INFINITE_MICRO
from ledger.records import Phase, Policy
from ledger.round_state import RoundState
from ledger.signing import Key, SigningGuard
from ledger.tensors import Weights
from ledger.twin import TwinChain
from node.acceptance import Limits
from node.aggregator import Aggregator, AggregatorParts, Coordinator
from node.conduct import HonestAggregator, HonestMember
from node.judging import Judges
from node.kept import KeptContributions
from node.logs import Log
from node.member import Member, MemberParts
from node.memory import AggregatorMemory, MemberMemory
from node.privacy_ledger import PrivacyLedger
from node.proving import Trained, words_root
from node.sender import Sender
from node.service import Service, turn
from node.settings import (
    BaseSettings,
    ChainSettings,
    ContentSettings,
    HttpSettings,
    KeySettings,
)
from node.verifying import Board, registration
from node.watch import Watch
from proofs.gaussian import noise_table
from proofs.mechanism import selected_rows
from proofs.texts import Texts
from proofs.words import Binding, SecretWords, combine, public_draws, public_noise

ETHER = 10**18
POLICY = Policy(6, 8, 0, 8, 6, 6, 2, False, 2)


class PowerCut(BaseException):
    """The instant at which the process is gone."""


def key_of(name: str) -> Key:
    return Key.of(sha256(f"node tests: {name}".encode()).digest())


@dataclass
class FakeTrainer:
    """Releases noise alone. `roots` lists the words root of every training: a second seed for a round would show."""

    data: list[bytes]
    refusal: Exception | None = None
    roots: list[bytes] = field(default_factory=list)
    shift: int = 0

    def warm_up(self) -> None:
        """Nothing takes long here."""

    def adopt(self, parents: Sequence[Any]) -> None:
        """It has no model to mix."""

    def check(self, config: Config) -> None:
        if self.refusal is not None:
            raise self.refusal

    def rows(self, config: Config) -> Sequence[bytes]:
        return self.data

    def texts(self, config: Config) -> Texts:
        """A byte is a token."""
        width = config.task.max_tokens
        return Texts.of([list(row[:width]) for row in self.data], [0] * len(self.data), width)

    def train(
        self,
        config: Config,
        weights: Weights,
        words: SecretWords,
        beacon: bytes,
        binding: Binding,
        on_step: Callable[[int, int], None],
    ) -> Trained:
        self.roots.append(words_root(config, words))
        parameters = config.adapter.parameters
        steps, contributions = [], []
        for step in range(config.steps):
            draws = combine(words.draws(step), public_draws(beacon, binding, step, config.privacy.capacity))
            drawn = selected_rows(draws, config.privacy.sample_threshold, len(self.data))
            contributions.append(np.zeros((len(drawn), parameters), dtype=np.int32))
            contributions[-1][:1] += np.int32(self.shift)
            shift = self.shift if len(drawn) or not config.proven else 0
            noise = np.zeros(parameters, dtype=np.int32)
            if config.privacy.noise_units:
                drawn = combine(words.noise(step), public_noise(beacon, binding, step, parameters))
                noise = noise_table(config.privacy.noise_units).lookup(drawn)
            steps.append(noise + np.int32(shift))
            on_step(step + 1, config.steps)
        return Trained(np.stack(steps), contributions)


class Faulty:
    """A store that fails on demand, before it does anything: `faults` are raised one after the other."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.faults = inner, []

    def __getattr__(self, name: str) -> Any:
        wanted = getattr(self.inner, name)
        if not name.startswith(("put_", "get_")):
            return wanted

        def call(*arguments: Any) -> Any:
            if self.faults:
                raise self.faults.pop(0)
            return wanted(*arguments)

        return call


@dataclass
class Daemon:
    """One daemon: what survives a power cut (folder, store, trainer) and what does not (`service`, `actor`)."""

    name: str
    key: Key
    folder: Path
    store: MemoryStore
    world: World
    conduct: Any = None
    trainer: FakeTrainer | None = None
    limits: Limits = field(default_factory=lambda: Limits(50_000_000, Fraction(1, 100_000), False))
    confirmations: int = 0
    coordinator: Coordinator | None = None
    running: bool = True
    blind: bool = False
    faults: list[Exception] = field(default_factory=list)
    service: Service | None = None
    actor: Any = None
    local: Any = None
    board: Board = field(default_factory=Board)
    closers: list[Callable[[], None]] = field(default_factory=list)

    def start(self) -> None:
        chain, log, watch = self.world.chain, Log(self.name), Watch(self.name)
        outbox = Outbox(self.folder / "outbox.sqlite", chain, self.key, confirmations=3, lock_folder=self.world.folder)
        self.closers = [outbox.close]
        follower = Follower(self.folder / "follower.sqlite", chain)
        self.closers.append(follower.close)
        self.local, self.board = Faulty(self.store), Board()
        remotes = [other.store for other in self.world.daemons if other is not self]
        store = PeeredStore(self.local, [self.world.network(remote) for remote in remotes])
        sender = Sender(outbox, watch, log)
        self.service = Service(
            _settings(self.folder),
            chain,
            self.key,
            store,
            follower,
            sender,
            watch,
            log,
            threading.Event(),
            "",
            self.board,
        )
        self.actor = self._member(self.service) if self.trainer else self._aggregator(self.service)

    def _member(self, service: Service) -> Member:
        guard, memory = SigningGuard(self.folder / "signing.sqlite"), MemberMemory(self.folder / "member.sqlite")
        self.closers += [guard.close, memory.close]
        trainer = self.trainer
        assert trainer is not None
        self.parts = MemberParts(
            service.chain,
            self.key,
            service.store,
            service.sender,
            guard,
            memory,
            KeptContributions(self.folder / "contributions"),
            PrivacyLedger.create(self.folder / "privacy"),
            trainer,
            self.limits,
            self.confirmations,
            service.watch,
            service.log,
            service.board,
            judges=Judges(1),
            gradients=None if self.blind else self.world.gradients,
        )
        return Member(self.parts, self.conduct or HonestMember())

    def _aggregator(self, service: Service) -> Aggregator:
        memory = AggregatorMemory(self.folder / "aggregator.sqlite")
        self.closers.append(memory.close)
        parts = AggregatorParts(
            service.chain,
            self.key,
            service.store,
            service.sender,
            memory,
            Judges(1),
            self.coordinator,
            service.watch,
            service.log,
            self.world,
            None if self.blind else self.world.gradients,
        )
        return Aggregator(parts, self.conduct or HonestAggregator())

    def turn(self) -> None:
        """One turn, with CandorErrors kept as the loop keeps them. A PowerCut ends the process and starts it again."""
        if not self.running or self.service is None:
            return
        try:
            turn(self.service, self.actor.act)
        except PowerCut:
            self.world.cuts.append(self.name)
            self.restart()
        except Exception as fault:
            if self.world.strict:
                raise
            self.faults.append(fault)

    def stop(self) -> None:
        for close in reversed(self.closers):
            close()
        self.closers = []

    def restart(self) -> None:
        self.stop()
        os.environ.pop("CANDOR_CRASH_AT", None)
        self.start()


@dataclass
class World:
    """`tick` gives every daemon one turn, then mines a block."""

    folder: Path
    config: Config
    strict: bool = True
    register: bool = True
    gradients: Any = None
    daemons: list[Daemon] = field(default_factory=list)
    cuts: list[str] = field(default_factory=list)
    network_faults: list[Exception] = field(default_factory=list)
    chain: TwinChain = field(init=False)
    _read: tuple[bytes, Any] = (b"", None)

    def found(
        self, members: int, aggregators: int, *, rounds: int, voids: int = 3, cap_micro: int | None = None
    ) -> None:
        coordinator = key_of("aggregator 0")
        names = [f"member {n}" for n in range(members)] + [f"aggregator {n}" for n in range(aggregators)]
        balances = {key_of(name).address: 1000 * ETHER for name in names}
        self.chain = TwinChain(admin=coordinator.address, coordinator=coordinator.address, balances=balances)
        cap = cap_micro or (INFINITE_MICRO if self.config.privacy.insecure_no_noise else 50_000_000)
        for number in range(members):
            signer = key_of(f"member {number}").address
            self.send(coordinator, AddMember(key_of(f"owner {number}").address, signer, cap))
            if self.register:
                key = key_of(f"member {number}")
                self.send(key, registration(key.verifier, self.chain, number))
        order = tuple(key_of(f"aggregator {n}").address for n in range(aggregators))
        self.send(coordinator, SetAggregators(order))
        self.chain.automine = False
        self._daemons(members, aggregators, rounds, voids)

    def _daemons(self, members: int, aggregators: int, rounds: int, voids: int) -> None:
        for number in range(aggregators):
            daemon = self._daemon(f"aggregator {number}")
            if number == 0:
                genesis = daemon.store.put_directory(GenesisBundle(self.config, self.start_weights()).files())
                daemon.coordinator = Coordinator(self.config, rounds, voids, genesis)
        for number in range(members):
            self._daemon(f"member {number}").trainer = FakeTrainer([b"row %d %d" % (number, n) for n in range(10)])

    def _daemon(self, name: str) -> Daemon:
        folder = self.folder / name.replace(" ", "-")
        folder.mkdir()
        self.daemons.append(Daemon(name, key_of(name), folder, MemoryStore(), self))
        return self.daemons[-1]

    def start(self) -> None:
        for daemon in self.daemons:
            daemon.start()

    def close(self) -> None:
        for daemon in self.daemons:
            daemon.stop()

    def send(self, key: Key, action: Action) -> None:
        act(self.chain, key, action)

    def start_weights(self) -> Weights:
        rng = np.random.default_rng(1)
        return {t.name: rng.integers(-900, 900, t.shape, dtype=np.int64) for t in self.config.adapter.tensors}

    def network(self, store: MemoryStore) -> Any:
        """A peer as others reach it: all of them share `network_faults`."""
        faulty = Faulty(store)
        faulty.faults = self.network_faults
        return faulty

    def ask(self, key: str, heard: Collection[str]) -> dict[str, bytes]:
        """What the members' HTTP servers would answer to an aggregator."""
        up = [daemon for daemon in self.daemons if daemon.running and daemon.trainer and daemon.name not in heard]
        answers = {daemon.name: daemon.board.get(key) for daemon in up}
        return {name: record for name, record in answers.items() if record is not None}

    # ---- time

    def tick(self, blocks: int = 1) -> None:
        for _ in range(blocks):
            for daemon in self.daemons:
                daemon.turn()
            self.chain.mine()

    def until(self, reached: Callable[[World], bool], *, most: int = 150) -> None:
        for _ in range(most):
            if reached(self):
                return
            self.tick()
        raise AssertionError(
            f"not reached in {most} blocks; the round is {self.state.phase.name if self.latest else 0}"
        )

    def until_phase(self, phase: Phase, number: int = 1) -> RoundState:
        self.until(lambda world: world.latest == number and world.state.phase is phase)
        return self.state

    def until_ended(self, number: int) -> RoundState:
        self.until(lambda world: world.latest >= number and world.history.rounds[number].ended)
        return self.history.rounds[number]

    # ---- what is there

    @property
    def history(self) -> History:
        """The law's reading of the whole chain, folded anew whenever the head has changed."""
        available, self.chain.available = self.chain.available, True
        head = self.chain.head()
        if head.hash != self._read[0]:
            logs = self.chain.events(0, head.number)
            domain = Domain(self.chain.chain_id, self.chain.rounds_address)
            self._read = head.hash, History(domain).after_all(logs)
        self.chain.available = available
        return self._read[1]

    @property
    def latest(self) -> int:
        return self.history.latest

    @property
    def state(self) -> RoundState:
        history = self.history
        return history.rounds[history.latest]

    def member(self, number: int) -> Daemon:
        return next(daemon for daemon in self.daemons if daemon.name == f"member {number}")

    def aggregator(self, number: int = 0) -> Daemon:
        return next(daemon for daemon in self.daemons if daemon.name == f"aggregator {number}")


def _settings(folder: Path) -> BaseSettings:
    return BaseSettings(
        ChainSettings("", bytes(20), 0, 0, 500),
        KeySettings(folder / "key", None),
        ContentSettings(folder / "content", (), "", 1.0),
        HttpSettings("127.0.0.1", 0),
        folder,
        0.01,
    )


@pytest.fixture
def fast_folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where the system offers that: these tests cut power to processes, not to disks, and fsync a lot."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="candor-", dir=memory) as folder:
        yield Path(folder)


@pytest.fixture
def make_world(fast_folder: Path) -> Iterator[Callable[..., World]]:
    """make_world(members=3, aggregators=1, rounds=1, prepare=lambda world: …, **changes to the config)"""
    worlds: list[World] = []

    def make(
        members: int = 3,
        aggregators: int = 1,
        rounds: int = 1,
        *,
        voids: int = 3,
        strict: bool = True,
        register: bool = True,
        gradients: Any = None,
        cap_micro: int | None = None,
        prepare: Callable[[World], None] = lambda world: None,
        **changes: Any,
    ) -> World:
        folder = fast_folder / f"world-{len(worlds)}"
        folder.mkdir()
        world = World(folder, small_config(**{"policy": POLICY} | changes), strict, register, gradients)
        world.found(members, aggregators, rounds=rounds, voids=voids, cap_micro=cap_micro)
        prepare(world)
        world.start()
        worlds.append(world)
        return world

    yield make
    for world in worlds:
        world.close()


@pytest.fixture
def pull_the_plug(monkeypatch: pytest.MonkeyPatch) -> Callable[[Point], None]:
    """The process that reaches this point next is gone at that instant, as by kill -9, and is then started again."""

    def cut(*_: object) -> None:
        raise PowerCut

    monkeypatch.setattr(crash, "os", SimpleNamespace(environ=os.environ, getpid=os.getpid, kill=cut))
    monkeypatch.delenv("CANDOR_CRASH_AT", raising=False)
    return lambda point: monkeypatch.setenv("CANDOR_CRASH_AT", point.value)
