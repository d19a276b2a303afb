"""A server in this process: the real daemon on a twin chain, with a small engine that needs no model."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openai
import pytest

from devnet.presets import TINY
from ledger.actions import Action
from ledger.config import AdapterSpec, AggregationSpec, Config, OptimizerSpec, PrivacySpec, TaskSpec
from ledger.content import EmbeddedStore
from ledger.deploy import act
from ledger.eip712 import Domain
from ledger.log.actions import RegisterAuditor
from ledger.log.receipt import Receipt, check_receipt
from ledger.log.receipt import Server as Believed
from ledger.log.sealing import AuditorKey
from ledger.records import Policy
from ledger.signing import Key, create_keystore
from ledger.twin import TwinChain
from node.engine import Engine
from node.model import LoadedModel, attach, genesis, layout, load_base
from node.serving.daemon import Server, opened
from node.serving.engine import Classified, Job, Outcome, Step
from node.serving.settings import LimitSettings, LogSettings, ServeSettings
from node.settings import ChainSettings, ContentSettings, HttpSettings, KeySettings

ETHER = 10**18
PROMISE_BLOCKS = 40
BUNDLE = sha256(b"a final bundle").digest()


@dataclass
class Parrot:
    """Says words that depend on the prompt, the seed and nothing else. A token is a byte, or a word of an answer.

    step_s: time for each token. broken: raise this instead of answering.
    """

    task: Literal["classification", "next-token"] = "next-token"
    labels: tuple[str, ...] = ()
    max_tokens: int = 512
    bundle: bytes = BUNDLE
    parents: tuple[bytes, ...] = ()
    step_s: float = 0.0
    broken: Exception | None = None
    batches: list[int] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str:
        return "".join(f"<{message['role']}>{message['content']}" for message in messages)

    def generate(
        self, jobs: Sequence[Job], on_step: Callable[[Step], None], stopped: Callable[[int], bool]
    ) -> list[Outcome]:
        self.batches.append(len(jobs))
        if self.broken:
            raise self.broken
        return [self._one(number, job, on_step, stopped) for number, job in enumerate(jobs)]

    def _one(self, number: int, job: Job, on_step: Callable[[Step], None], stopped: Callable[[int], bool]) -> Outcome:
        words: list[str] = []
        for place in range(job.decoding.max_tokens):
            if stopped(number):
                self.stopped.append(place)
                break
            time.sleep(self.step_s)
            said = sha256(bytes(job.tokens) + str((job.decoding.seed, place)).encode()).hexdigest()[:3] + " "
            words.append(said)
            on_step(Step(number, place, said, "length" if place + 1 == job.decoding.max_tokens else ""))
        text = "".join(words)
        return Outcome(tuple(range(len(words))), text, "length", sha256(text.encode()).digest()[:8])

    def classify(self, batch: Sequence[Sequence[int]], leave_out: Collection[bytes] = ()) -> list[Classified]:
        self.batches.append(len(batch))
        if self.broken:
            raise self.broken
        scores = [tuple((sum(tokens) + label) % 7 / 7 for label in range(len(self.labels))) for tokens in batch]
        return [Classified(each, max(range(len(each)), key=each.__getitem__), b"seen") for each in scores]


@dataclass
class Site:
    """What outlives a server: chain, keys, folder, settings."""

    chain: TwinChain
    key: Key
    reader: Key  # the auditor's on the chain
    auditor: AuditorKey
    settings: ServeSettings
    engine: Parrot

    @property
    def believed(self) -> Believed:
        return Believed(self.domain, self.key.address, PROMISE_BLOCKS)

    @property
    def domain(self) -> Domain:
        return Domain(self.chain.chain_id, self.chain.log_address)

    @property
    def store(self) -> EmbeddedStore:
        return EmbeddedStore(self.settings.content.path, writable=False)

    def act(self, action: Action, by: Key | None = None) -> None:
        act(self.chain, by or self.key, action)

    def limits(self, **changes: Any) -> None:
        self.settings = replace(self.settings, limits=replace(self.settings.limits, **changes))

    def check(self, receipt: Receipt, request: bytes, response: bytes) -> Any:
        """Offline: nothing but the chain's word on the server."""
        head = self.chain.head().number
        return check_receipt(receipt, self.believed, request, response, bundle=BUNDLE, head_block=head)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    key, admin, auditor = Key.create(), Key.create(), Key.create()
    password = tmp_path / "password"
    password.write_text("secret\n")
    password.chmod(0o600)
    create_keystore(tmp_path / "key.json", "secret", scrypt_n=1 << 10, key=key)
    balances = {each.address: 100 * ETHER for each in (key, admin, auditor)}
    chain = TwinChain(admin=admin.address, coordinator=admin.address, balances=balances)
    reads = AuditorKey.create()
    act(chain, auditor, RegisterAuditor(reads.public))
    settings = ServeSettings(
        chain=ChainSettings("http://127.0.0.1:9", chain.rounds_address, 2, 0, 500),
        key=KeySettings(tmp_path / "key.json", password),
        content=ContentSettings(tmp_path / "content", (), "", 5.0),
        http=HttpSettings("127.0.0.1", 0),
        state=tmp_path / "state",
        poll_s=0.05,
        model="none",
        bundle=BUNDLE,
        name="parrot",
        device="cpu",
        audit_log=LogSettings(chain.log_address, PROMISE_BLOCKS, (auditor.address,), 0.0, 0.0),
        limits=LimitSettings(None, 1 << 16, 256, 64, 16, 4, 20, 20.0, 64),
    )
    return Site(chain, key, auditor, reads, settings, Parrot())


@pytest.fixture
def open_server(site: Site) -> Iterator[Callable[[], Server]]:
    """Opens a server without a loop: tests turn its anchor themselves. All are closed at the end."""
    with ExitStack() as stack:

        def start() -> Server:
            stop = threading.Event()
            return stack.enter_context(opened(site.settings, stop, engine=site.engine, chain=site.chain))

        yield start


@pytest.fixture
def server(open_server: Callable[[], Server]) -> Server:
    return open_server()


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=30) as opened_client:
        yield opened_client


@pytest.fixture
def until() -> Callable[[Callable[[], Any]], Any]:
    """Waits until something is so."""

    def wait(what: Callable[[], Any]) -> Any:
        for _ in itertools.repeat(None, 1500):
            if found := what():
                return found
            time.sleep(0.01)
        raise AssertionError("it never happened")

    return wait


# ---- the real engine, on the model that ships with this repository


def adapted(base_path: str, task: TaskSpec, targets: tuple[str, ...], head: tuple[str, ...], seed: int) -> LoadedModel:
    """An adapter and head away from zero; another seed is another bundle."""
    base, one = load_base(base_path), Fraction(1)
    tensors = layout(base, rank=2, alpha=4, targets=targets, head=head, labels=len(task.labels), rule="ffa")
    nought = Fraction(0)
    config = Config(
        base_name="tests",
        base_digest=base.digest,
        task=task,
        adapter=AdapterSpec(2, 4, targets, head, tensors),
        weight_bits=16,
        privacy=PrivacySpec(Fraction(1, 10**5), 64, one, one, 100, 1 << 31, 32),
        optimizer=OptimizerSpec("sgd", nought, nought, nought, nought, nought, nought),
        steps=1,
        mean_batch=1,
        aggregation=AggregationSpec("ffa"),
        proof_policy="none",
        policy=Policy(1, 1, 1, 1, 1, 1, 1, False, 1),
    )
    model, random = attach(base, config), np.random.default_rng(seed)
    start = genesis(tensors, 16, "engine tests")
    model.load_weights({name: units + random.integers(-1500, 1500, units.shape) for name, units in start.items()})
    return model


@pytest.fixture(scope="session")
def make_engine() -> Callable[..., Engine]:
    """make_engine("language" or "classifier", seed)"""

    @cache
    def make(kind: str, seed: int = 3) -> Engine:
        language = kind == "language"
        task = TaskSpec((), 64, "next-token") if language else TaskSpec(("repay", "watch", "default"), 64)
        targets = ("q_proj", "v_proj", "o_proj")
        model = adapted(TINY.base_path, task, targets, () if language else ("score",), seed)
        return Engine(model, sha256(f"{kind} {seed}".encode()).digest())

    return make


@pytest.fixture(scope="session")
def language(make_engine: Callable[..., Engine]) -> Engine:
    return make_engine("language")


@pytest.fixture(scope="session")
def classifier(make_engine: Callable[..., Engine]) -> Engine:
    return make_engine("classifier")
