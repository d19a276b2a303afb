"""A whole small federation for the audit's tests: it plays rounds on any chain behind the port, with no model at all.

Contributions are zero and noise comes from a seeded generator, which is all that an audit at this stage can tell apart.
Members can be dishonest in every way that a verdict has a reason for, and the aggregator can lie.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

import numpy as np
import pytest

from benchmarks.cases import drawn_case, random_texts
from benchmarks.submissions import small_config
from devnet.forgeries import FORGERIES, Honest, with_manifest
from devnet.hostile_directories import HOSTILE_DIRECTORIES
from ledger.actions import (
    Action,
    AddMember,
    Advance,
    Commit,
    Dissent,
    Object,
    Open,
    PostVerdicts,
    Propose,
    Prove,
    RegisterVerifier,
    SetAggregators,
    Submit,
)
from ledger.aggregate import aggregate_bundle
from ledger.bundle import (
    ADAPTER,
    CONFIG,
    Claim,
    GenesisBundle,
    SubmissionBundle,
    bundle_limits,
    read_submission,
    read_weights,
)
from ledger.config import (
    Config,
)
from ledger.content import MemoryStore
from ledger.content.cid import Block, Codec
from ledger.deploy import act
from ledger.eip712 import Domain, Submission, sign_submission
from ledger.gradients import Answers, binding_of, challenges, jobs_of
from ledger.history import History
from ledger.optimizer import replay
from ledger.privacy import INFINITE_MICRO, epsilon_micro, spend_of
from ledger.quorum import SignedVerdicts, combine, possession, verdict_digest
from ledger.records import Phase, Reason, Signed
from ledger.round_state import RoundState, due, excluded_root, included_root, known_reason
from ledger.signing import Key
from ledger.tensors import flatten, unflatten
from ledger.twin import TwinChain
from ledger.verdict import SubmissionFacts, fetch_shown, judge_stored
from node.proving import Trained, data_root, proof_of, words_root
from proofs.texts import Texts
from proofs.words import Binding, SecretWords

Files = dict[str, bytes]
CAP_MICRO = 50_000_000
VERIFIERS = 3  # the first members have a key to verify with; pairings are slow
ETHER = 10**18
ROWS = 50


def key_of(name: str) -> Key:
    return Key.of(sha256(f"audit tests: {name}".encode()).digest())


@dataclass
class Federation:
    """Everybody's keys in one hand. `mine` mines blocks; `chain` is any ChainPort whose contracts know these keys."""

    chain: Any
    mine: Callable[[int], None]
    members: int
    config: Config = field(default_factory=small_config)
    store: Any = field(default_factory=MemoryStore)
    configs: dict[int, Config] = field(default_factory=dict)
    coordinator: Key = field(default_factory=lambda: key_of("coordinator"))
    aggregators: list[Key] = field(default_factory=lambda: [key_of("aggregator 0")])
    gradients: Any = None

    def found(self) -> None:
        """Members join; the genesis is published."""
        for member in range(self.members):
            add = AddMember(key_of(f"owner {member}").address, self.signer(member).address, self.cap())
            self.send(self.coordinator, add)
            if member < VERIFIERS:
                self.send(self.signer(member), self.registration(member))
        self.send(self.coordinator, SetAggregators(tuple(key.address for key in self.aggregators)))
        self.genesis = self.store.put_directory(GenesisBundle(self.config, self.start_weights()).files())

    def cap(self) -> int:
        return INFINITE_MICRO if self.config.privacy.insecure_no_noise else CAP_MICRO

    def signer(self, member: int) -> Key:
        return key_of(f"signer {member}")

    def start_weights(self) -> dict[str, Any]:
        rng = np.random.default_rng(1)
        return {t.name: rng.integers(-900, 900, t.shape, dtype=np.int64) for t in self.config.adapter.tensors}

    # ---- the chain

    def send(self, key: Key, action: Action) -> None:
        act(self.chain, key, action)

    def history(self) -> History:
        logs = self.chain.events(0, self.chain.head().number)
        return History(self.domain).after_all(logs)

    @property
    def domain(self) -> Domain:
        return Domain(self.chain.chain_id, self.chain.rounds_address)

    @property
    def state(self) -> RoundState:
        history = self.history()
        return history.rounds[history.latest]

    def advance(self) -> None:
        """Wait for what is due, and call it."""
        coming = due(self.state)
        assert coming is not None
        self.mine(max(0, coming.earliest_block - 1 - self.chain.head().number))
        header = b"" if coming.header_block is None else self.chain.header(coming.header_block).rlp
        self.send(self.coordinator, Advance(self.state.number, header))

    # ---- one step of a round each

    def open(self) -> int:
        digest = self.store.put_raw(self.config.encode())
        start = self.history().global_bundle or self.genesis
        self.send(self.coordinator, Open(digest, start, self.config.policy))
        self.configs[self.state.number] = self.config
        return self.state.number

    def commit(self, members: Iterable[int]) -> None:
        for member in members:
            root, words = sha256(f"data {member}".encode()).digest(), self.words(member)
            if self.config.proven:
                root = data_root(self.config, words, self.texts())
            self.send(self.signer(member), Commit(self.state.number, root, words_root(self.config, words)))

    def texts(self) -> Texts:
        return random_texts(ROWS, self.config.task.max_tokens)

    def words(self, member: int) -> SecretWords:
        number, config = self.state.number, self.config
        seed = sha256(f"words {member} {number}".encode()).digest()
        binding = Binding(self.chain.chain_id, self.chain.rounds_address, number, member)
        return SecretWords(seed, binding, config.steps, config.adapter.parameters, config.privacy.capacity)

    def submit(self, member: int, bundle: bytes, spent_micro: int) -> None:
        number = self.state.number
        payload = Submission(number, member, bundle, spent_micro)
        signature = sign_submission(self.signer(member).secret, self.domain, payload)
        self.send(self.coordinator, Submit(number, member, bundle, spent_micro, signature))

    def post(self, reasons: Mapping[int, int]) -> None:
        codes = bytes(reasons[seat.member] for seat in self.state.seats)
        self.send(self.aggregators[0], PostVerdicts(self.state.number, codes, self.signed(codes)))

    def registration(self, member: int) -> RegisterVerifier:
        key = self.signer(member).verifier
        proof = possession(key, self.chain.chain_id, self.chain.federation_address, member)
        return RegisterVerifier(member, key.public, proof)

    def signed(self, codes: bytes) -> Signed:
        """By as many verifiers as are needed, whatever they are asked to sign."""
        state = self.state
        digest = verdict_digest(state.domain, state.number, state.transcript, codes)
        keys = {member: self.signer(member).verifier for member in range(state.policy.verifier_quorum)}
        return combine(
            SignedVerdicts(state.number, member, state.transcript, codes, key.public, key.sign(digest))
            for member, key in keys.items()
        )

    def dissent(self, member: int, changes: Mapping[int, int]) -> None:
        codes = bytes((self.state.reasons | dict(changes))[seat.member] for seat in self.state.seats)
        self.send(self.signer(member), Dissent(self.state.number, codes))

    def propose(self, bundle: bytes) -> None:
        state = self.state
        roots = included_root(state, state.accepted), excluded_root(state.reasons)
        self.send(self.aggregators[0], Propose(state.number, bundle, *roots))

    # ---- what honest ones compute

    def spends(self, member: int, before: int) -> list[Any]:
        rounds = self.history().rounds
        return [spend_of(self.configs[n]) for n in range(1, before) if member in rounds[n].submissions]

    def cost(self, member: int) -> int:
        spends = [*self.spends(member, self.state.number), spend_of(self.config)]
        return epsilon_micro(spends, self.config.privacy.delta)

    def claim(self, member: int, spent_micro: int) -> Claim:
        state = self.state
        made = state.commitments[member]
        return Claim(
            self.chain.chain_id,
            self.chain.rounds_address,
            state.number,
            member,
            state.opened.global_bundle,
            made.dataset_root,
            made.words_root,
            spent_micro,
        )

    def global_weights(self) -> dict[str, Any]:
        files = self.store.get_directory(self.state.opened.global_bundle, bundle_limits(self.config))
        return read_weights(files, self.config)

    def trajectory(self, member: int, sigma: float | None = None) -> Any:
        seed = int.from_bytes(sha256(f"{member} {self.state.number}".encode()).digest()[:4], "big")
        scale = self.config.privacy.noise_units if sigma is None else sigma
        noise = np.random.default_rng(seed).normal(0, scale or 1, (self.config.steps, self.config.adapter.parameters))
        return np.rint(noise).astype(np.int32)

    def honest(self, member: int, *, claim: Claim | None = None, trajectory: Any = None) -> SubmissionBundle:
        start, claim = self.global_weights(), claim or self.claim(member, self.cost(member))
        proof = b""
        if self.config.proven:
            honest, proof = self.proven(member, claim)
            trajectory = honest if trajectory is None else trajectory
        released = self.trajectory(member) if trajectory is None else trajectory
        reached = replay(self.config, flatten(self.config, start), released)
        weights = start | unflatten(self.config, reached)
        return SubmissionBundle(self.config, claim, weights, released, proof)

    def to_forge(self, member: int) -> Honest:
        return Honest(
            self.honest(member), self.global_weights(), lambda: self.words(member), self.state.train_beacon or b""
        )

    def proven(self, member: int, claim: Claim) -> tuple[Any, bytes]:
        """Released sums by the member's words and the beacon, and the proof of them."""
        config, words, beacon = self.config, self.words(member), self.state.train_beacon or b""
        group_of = np.zeros(config.adapter.parameters, dtype=np.uint8)
        group_of[config.groups["head"]] = 1
        contributions, released = drawn_case(config.shape, group_of, words, ROWS, beacon)
        trained = Trained(released, contributions)
        return released, proof_of(config, claim, beacon, words, self.texts(), trained, released, lambda _: None)

    def verdicts(self) -> dict[int, int]:
        state = self.state
        return {seat.member: int(self._verdict(state, seat.member)) for seat in state.seats}

    def _verdict(self, state: RoundState, member: int) -> Reason:
        known = known_reason(state, member)
        if known is not Reason.ACCEPTED:
            return known
        facts, shown = self.facts(member), None
        if self.config.gradient:
            proofs = state.proofs[member].proof
            shown = fetch_shown(self.config, facts.global_weights, proofs, self.store, self.gradients)
        return judge_stored(facts, facts.bundle, self.store, shown).reason

    def average(self, accepted: Iterable[int]) -> Any:
        state, given = self.state, {}
        for member in accepted:
            sent = state.submissions[member]
            files = self.store.get_directory(sent.bundle, bundle_limits(self.config))
            weights = read_submission(files, self.config, self.claim(member, sent.spent_micro)).weights
            given[member] = (sent.bundle, weights)
        return aggregate_bundle(
            self.config,
            chain_id=self.chain.chain_id,
            contract=self.chain.rounds_address,
            round=state.number,
            global_bundle=state.opened.global_bundle,
            start=self.global_weights(),
            submissions=given,
        )

    # ---- gradients

    def facts(self, member: int) -> SubmissionFacts:
        state, sent = self.state, self.state.submissions[member]
        return SubmissionFacts(
            claim=self.claim(member, sent.spent_micro),
            config=self.config,
            global_weights=self.global_weights(),
            history=tuple(self.spends(member, state.number)),
            beacon=state.train_beacon or b"",
            bundle=sent.bundle,
            prove_beacon=state.prove_beacon or b"",
        )

    def show(self, member: int, kind: str) -> None:
        """Fake proofs for the picked slots; wrong ones, or a digest of nothing, for those two kinds."""
        facts, digest = self.facts(member), sha256(b"nothing shown").digest()
        if kind != "UNAVAILABLE gradients":
            files = self.store.get_directory(facts.bundle, bundle_limits(self.config))
            bundle = read_submission(files, self.config, facts.claim)
            sums, proof = bundle.trajectory, bundle.proof
            asked = challenges(self.config, facts.claim, facts.beacon, sums, proof, facts.prove_beacon)
            jobs = jobs_of(bundle, facts.global_weights, asked, [b""] * len(asked))
            proofs = [self.gradients.answer(job.iterate, job.challenge) for job in jobs]
            proofs[-1] = b"wrong" if kind == "GRADIENT_INVALID" else proofs[-1]
            answers = Answers(self.config, binding_of(facts.claim), facts.bundle, facts.prove_beacon)
            digest = self.store.put_directory(answers.files(proofs))
        self.send(self.signer(member), Prove(self.state.number, digest))

    # ---- a whole round

    def play(
        self,
        kinds: Mapping[int, str] | None = None,
        *,
        verdicts: Callable[[dict[int, int]], dict[int, int]] = lambda honest: honest,
        proposal: Callable[[Files], Files] = lambda honest: honest,
        objectors: Iterable[int] = (),
        dissents: Mapping[int, Mapping[int, int]] | None = None,
    ) -> int:
        """Play one round to its end. `kinds` says how members misbehave, the callables how the quorum lies."""
        kinds = kinds or {}
        number = self.open()
        self.commit(m for m in range(self.members) if kinds.get(m) != "NOT_COMMITTED")
        self.advance()
        for member in sorted(self.state.commitments):
            MISDEEDS[kinds.get(member, "ACCEPTED")](self, member)
        self.advance()
        if self.config.policy.proof_required:
            for member in self.state.standing:
                if kinds.get(member) != "NOT_PROVED":
                    self.show(member, kinds.get(member, "ACCEPTED"))
            if self.state.phase is Phase.PROVE:
                self.mine(max(0, self.state.deadline_block - self.chain.head().number))
        self.post(verdicts(self.verdicts()))
        if self.state.ended:
            return number
        for member, changes in (dissents or {}).items():
            self.dissent(member, changes)
        bundle = self.average(self.state.accepted).files()
        self.propose(self.store.put_directory(proposal(bundle)))
        for member in objectors:
            self.send(self.signer(member), Object(number, sha256(b"another").digest()))
        if not self.state.ended:
            self.advance()
        return number


def submit_honestly(fed: Federation, member: int) -> None:
    bundle = fed.honest(member)
    fed.submit(member, fed.store.put_directory(bundle.files()), bundle.claim.spent_micro)


def submit_files(change: Callable[[Federation, Files], Files]) -> Callable[[Federation, int], None]:
    """An honest bundle with its files changed, and a manifest that fits them."""

    def submit(fed: Federation, member: int) -> None:
        bundle = fed.honest(member)
        files = with_manifest(change(fed, bundle.files()))
        fed.submit(member, fed.store.put_directory(files), bundle.claim.spent_micro)

    return submit


def submit_forged(kind: str) -> Callable[[Federation, int], None]:
    """What a dishonest member of the devnet publishes."""

    def submit(fed: Federation, member: int) -> None:
        honest = fed.to_forge(member)
        if kind in HOSTILE_DIRECTORIES:
            bundle = HOSTILE_DIRECTORIES[kind](honest, fed.store)
        else:
            bundle = fed.store.put_directory(FORGERIES[kind](honest))
        fed.submit(member, bundle, fed.cost(member))

    return submit


def submit_nothing_there(fed: Federation, member: int) -> None:
    fed.submit(member, sha256(f"nowhere {member}".encode()).digest(), fed.cost(member))


def submit_released(change: Callable[[Any], Any]) -> Callable[[Federation, int], None]:
    def submit(fed: Federation, member: int) -> None:
        bundle = fed.honest(member, trajectory=change(fed.trajectory(member)))
        fed.submit(member, fed.store.put_directory(bundle.files()), bundle.claim.spent_micro)

    return submit


def submit_cheaply(fed: Federation, member: int) -> None:
    claim = fed.claim(member, fed.cost(member) // 2)
    fed.submit(member, fed.store.put_directory(fed.honest(member, claim=claim).files()), claim.spent_micro)


def submit_twice(fed: Federation, member: int) -> None:
    submit_honestly(fed, member)
    submit_cheaply(fed, member)


def submit_no_node(fed: Federation, member: int) -> None:
    """A root that is named as a directory and is none."""
    root = Block.of(Codec.DAG_PB, b"\xff not a node")
    fed.store.put_blocks([], [root])
    fed.submit(member, root.cid.digest, fed.cost(member))


MISDEEDS: dict[str, Callable[[Federation, int], None]] = {
    "ACCEPTED": submit_honestly,
    "NOT_PROVED": submit_honestly,
    "GRADIENT_INVALID": submit_honestly,
    "UNAVAILABLE gradients": submit_honestly,
    "NOT_SUBMITTED": lambda fed, member: None,
    "EQUIVOCATED": submit_twice,
    "UNAVAILABLE": submit_nothing_there,
    "BUNDLE_MALFORMED": submit_forged("extra-file"),
    "BUNDLE_MALFORMED bomb": submit_forged("zip-bomb"),
    "BUNDLE_MALFORMED path": submit_forged("path-escape"),
    "BUNDLE_MALFORMED node": submit_no_node,
    "MANIFEST_MISMATCH": submit_forged("foreign-round"),
    "CONFIG_MISMATCH": submit_files(lambda fed, files: files | {CONFIG: replace(fed.config, steps=4).encode()}),
    "ADAPTER_CONFIG": submit_forged("mutated-config"),
    "TENSOR_LAYOUT": submit_files(lambda fed, files: files | {ADAPTER: b"\x80\x04pickle"}),
    "OFF_GRID": submit_forged("nan"),
    "FROZEN_CHANGED": submit_forged("frozen-changed"),
    "TRAJECTORY_RANGE": submit_released(lambda released: released * 1000),
    "TRAJECTORY_MISMATCH": submit_forged("wrong-trajectory"),
    "NOISE_IMPLAUSIBLE": submit_released(lambda released: released * 0),
    "PROOF_INVALID": submit_forged("off-by-one"),
    "EPSILON_UNDERSTATED": submit_cheaply,
}


PROVEN = ("NOT_PROVED", "PROOF_INVALID", "GRADIENT_INVALID", "UNAVAILABLE gradients")  # where there are proofs


def twin_federation(members: int, config: Config) -> Federation:
    people = [f"owner {m}" for m in range(members)] + [f"signer {m}" for m in range(members)]
    names = [*people, "coordinator", "aggregator 0", "aggregator 1"]
    balances = {key_of(name).address: 1000 * ETHER for name in names}
    coordinator = key_of("coordinator").address
    chain = TwinChain(admin=coordinator, coordinator=coordinator, balances=balances)
    return Federation(chain, chain.mine, members, config)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = before or "1"
    return


@pytest.fixture(scope="module", autouse=True)
def _everybody_judges_alike(judged_once: None) -> None:
    """A proof is verified when it was made, by every audit, and in `why`: of these tests, once is enough."""


@pytest.fixture(scope="session")
def misdeeds() -> list[str]:
    """Every way to misbehave that one round without proofs can show."""
    return [kind for kind in MISDEEDS if kind not in (*PROVEN, "ACCEPTED")] + ["NOT_COMMITTED"]


@pytest.fixture(scope="session")
def found_federation() -> Callable[..., Federation]:
    """A founded federation on a twin: members, and changes to its config."""

    def found(members: int = 3, *, store: Any = None, gradients: Any = None, **changes: Any) -> Federation:
        federation = twin_federation(members, small_config(**changes))
        federation.store, federation.gradients = store or federation.store, gradients
        federation.found()
        return federation

    return found


@pytest.fixture(scope="session")
def federation_on() -> Callable[..., Federation]:
    """A founded federation on contracts that already know its coordinator."""

    def found(chain: Any, mine: Callable[[int], None], members: int, store: Any) -> Federation:
        federation = Federation(chain, mine, members, small_config(), store)
        federation.found()
        return federation

    return found


@pytest.fixture(scope="session")
def named_key() -> Callable[[str], Key]:
    return key_of
