"""One laboratory, two chains: the same test bodies run on the in-memory twin and on a real anvil."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from eth_utils.crypto import keccak

from devnet.anvil import Anvil, AnvilOptions
from ledger.actions import (
    Action,
    AddMember,
    Advance,
    Commit,
    Open,
    PostVerdicts,
    Propose,
    Prove,
    RegisterVerifier,
    SetAggregators,
    Submit,
)
from ledger.deploy import act, deploy, deploy_log
from ledger.eip712 import Domain, Submission, sign_submission
from ledger.evm import EvmChain
from ledger.history import History
from ledger.ports import ChainPort, ContractRefused, Receipt
from ledger.quorum import SignedVerdicts, combine, possession, verdict_digest
from ledger.records import Phase, Policy, RoundView, Signed
from ledger.round_state import RoundState, due, excluded_root, included_root, known_reason, view
from ledger.signing import Key
from ledger.twin import TwinChain

MEMBERS = 3
ETHER = 10**18
ANSWER_BLOCKS = 20
POLICY = Policy(8, 8, 0, 8, 8, 4, quorum=2, proof_required=False, verifier_quorum=2)
PROVING = Policy(8, 8, 8, 8, 8, 4, quorum=2, proof_required=True, verifier_quorum=2)
GLOBAL = keccak(text="global")
CONFIG = keccak(text="config")


def key_of(name: str) -> Key:
    return Key.of(keccak(text=f"test key {name}"))


@dataclass(frozen=True)
class Cast:
    """Who plays in the tests."""

    coordinator: Key
    owners: tuple[Key, ...]
    signers: tuple[Key, ...]
    aggregators: tuple[Key, ...]
    stranger: Key

    def everybody(self) -> tuple[Key, ...]:
        return (self.coordinator, *self.owners, *self.signers, *self.aggregators, self.stranger)


CAST = Cast(
    coordinator=key_of("coordinator"),
    owners=tuple(key_of(f"owner {i}") for i in range(MEMBERS)),
    signers=tuple(key_of(f"signer {i}") for i in range(MEMBERS)),
    aggregators=tuple(key_of(f"aggregator {i}") for i in range(2)),
    stranger=key_of("stranger"),
)


class Lab(ABC):
    """A chain with a federation of three members and two aggregators, and hands to shake it with."""

    chain: ChainPort
    cast = CAST

    @abstractmethod
    def mine(self, blocks: int = 1) -> None: ...
    @abstractmethod
    def reorg(self, depth: int) -> None: ...
    @abstractmethod
    def automine(self, on: bool) -> None: ...
    @abstractmethod
    def drop_pool(self) -> None: ...
    @abstractmethod
    def set_base_fee(self, wei: int) -> None: ...
    @abstractmethod
    def forget_history(self) -> None:
        """As on a chain without EIP-2935: only the last 256 block hashes can be read."""

    @abstractmethod
    def down(self) -> None: ...
    @abstractmethod
    def up(self) -> None: ...

    @property
    def domain(self) -> Domain:
        return Domain(self.chain.chain_id, self.chain.rounds_address)

    @property
    def log_domain(self) -> Domain:
        return Domain(self.chain.chain_id, self.chain.log_address)

    def act(self, key: Key, action: Action) -> Receipt:
        return act(self.chain, key, action, timeout_s=20)

    def refused(self, key: Key, action: Action) -> ContractRefused:
        with pytest.raises(ContractRefused) as caught:
            self.act(key, action)
        return caught.value

    def agreed(self, number: int = 1) -> Phase:
        """The state folded from events is the state that the contract shows, to the last bit; returns its phase."""
        shown = self.view(number)
        assert view(self.state(number), self.chain.head().number) == shown
        return shown.phase

    def history(self) -> History:
        return History(self.domain).after_all(self.chain.events(0, self.chain.head().number))

    def state(self, number: int = 1) -> RoundState:
        return self.history().rounds[number]

    def view(self, number: int = 1) -> RoundView:
        return self.chain.round_view(number)

    def populate(self) -> None:
        for member, (owner, signer) in enumerate(zip(self.cast.owners, self.cast.signers, strict=True)):
            self.act(self.cast.coordinator, AddMember(owner.address, signer.address, 1_000_000))
            self.act(owner, self.registration(member))
        order = tuple(key.address for key in self.cast.aggregators)
        self.act(self.cast.coordinator, SetAggregators(order))

    # ---- steps of a round, each leading to the beginning of the next phase

    def open(self, policy: Policy = POLICY, bundle: bytes = GLOBAL) -> int:
        self.act(self.cast.coordinator, Open(CONFIG, bundle, policy))
        return self.chain.latest_round()

    def commitment(self, number: int, member: int) -> Commit:
        return Commit(number, keccak(text=f"data {member}"), keccak(text=f"words {number} {member}"))

    def submission(self, number: int, member: int, bundle: str = "honest", spent: int = 1000) -> Submit:
        digest = keccak(text=f"{bundle} {number} {member}")
        payload = Submission(number, member, digest, spent * number)
        signature = sign_submission(self.cast.signers[member].secret, self.domain, payload)
        return Submit(number, member, digest, spent * number, signature)

    def registration(self, member: int, key: Key | None = None) -> RegisterVerifier:
        verifier = (key or self.cast.signers[member]).verifier
        proof = possession(verifier, self.chain.chain_id, self.chain.federation_address, member)
        return RegisterVerifier(member, verifier.public, proof)

    def signed(self, number: int, reasons: bytes, signers: tuple[int, ...] = (0, 1)) -> Signed:
        """By these members, over the round as it stands."""
        before = self.state(number).transcript
        digest = verdict_digest(self.domain, number, before, reasons)
        keys = {member: self.cast.signers[member].verifier for member in signers}
        return combine(
            SignedVerdicts(number, member, before, reasons, key.public, key.sign(digest))
            for member, key in keys.items()
        )

    def commit_all(self, number: int = 1) -> None:
        for member in range(MEMBERS):
            self.act(self.cast.signers[member], self.commitment(number, member))

    def submit_all(self, number: int = 1) -> None:
        for member in range(MEMBERS):
            self.act(self.cast.stranger, self.submission(number, member))

    def prove_all(self, number: int = 1) -> None:
        for member in self.state(number).standing:
            self.act(self.cast.signers[member], Prove(number, keccak(text=f"proof {member}")))

    def advance(self, number: int = 1) -> Receipt:
        """Wait until it is due, then call it with the header that it needs."""
        coming = due(self.state(number))
        if coming is None:
            raise AssertionError("the round has ended")
        self.mine(max(0, coming.earliest_block - 1 - self.chain.head().number))
        header = b"" if coming.header_block is None else self.chain.header(coming.header_block).rlp
        return self.act(self.cast.stranger, Advance(number, header))

    def on_duty(self, number: int = 1) -> Key:
        return self.cast.aggregators[number % len(self.cast.aggregators)]

    def judge(self, number: int = 1, reasons: bytes | None = None) -> None:
        state = self.state(number)
        known = bytes(known_reason(state, seat.member) for seat in state.seats)
        posted = known if reasons is None else reasons
        self.act(self.on_duty(number), PostVerdicts(number, posted, self.signed(number, posted)))

    def proposal(self, number: int = 1, bundle: str = "aggregate") -> Propose:
        state = self.state(number)
        roots = included_root(state, state.accepted), excluded_root(state.reasons)
        return Propose(number, keccak(text=f"{bundle} {number}"), *roots)

    def to_train(self, policy: Policy = POLICY) -> int:
        number = self.open(policy, self.history().global_bundle or GLOBAL)
        self.commit_all(number)
        self.advance(number)
        return number

    def to_verify(self, policy: Policy = POLICY) -> int:
        number = self.to_train(policy)
        self.submit_all(number)
        self.advance(number)
        if policy.proof_required:
            self.prove_all(number)
        return number

    def to_proposed(self, policy: Policy = POLICY) -> int:
        number = self.to_verify(policy)
        self.judge(number)
        self.act(self.on_duty(number), self.proposal(number))
        return number


class TwinLab(Lab):
    def __init__(self) -> None:
        balances = {key.address: 100 * ETHER for key in self.cast.everybody()}
        admin = self.cast.coordinator.address
        self.twin = TwinChain(admin=admin, coordinator=admin, balances=balances, answer_blocks=ANSWER_BLOCKS)
        self.chain = self.twin
        self.populate()

    def mine(self, blocks: int = 1) -> None:
        self.twin.mine(blocks)

    def reorg(self, depth: int) -> None:
        self.twin.reorg(depth)

    def automine(self, on: bool) -> None:
        self.twin.automine = on

    def drop_pool(self) -> None:
        self.twin.drop_pool()

    def set_base_fee(self, wei: int) -> None:
        self.twin.base_fee_wei = wei

    def forget_history(self) -> None:
        self.twin.hashes_remembered = 256

    def down(self) -> None:
        self.twin.available = False

    def up(self) -> None:
        self.twin.available = True


class AnvilLab(Lab):
    def __init__(self, folder: Path) -> None:
        self._state = folder / "anvil.state"
        self.anvil = Anvil(AnvilOptions(), self._state)
        try:
            for key in self.cast.everybody():
                self.anvil.rpc("anvil_setBalance", "0x" + key.address.hex(), hex(100 * ETHER))
            admin = self.cast.coordinator
            self.deployment = deploy(self.anvil.rpc_url, admin, admin.address)
            log = deploy_log(self.anvil.rpc_url, admin, ANSWER_BLOCKS)
            self.chain = EvmChain(self.anvil.rpc_url, self.deployment.rounds, log=log)
            self.populate()
        except BaseException:
            self.anvil.stop()
            raise

    def mine(self, blocks: int = 1) -> None:
        if blocks:
            self.anvil.mine(blocks)

    def reorg(self, depth: int) -> None:
        self.anvil.rpc("anvil_reorg", depth, [])

    def automine(self, on: bool) -> None:
        self.anvil.rpc("evm_setAutomine", on)

    def drop_pool(self) -> None:
        self.anvil.rpc("anvil_dropAllTransactions")

    def set_base_fee(self, wei: int) -> None:
        self.anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(wei))

    def forget_history(self) -> None:
        self.anvil.rpc("anvil_setCode", "0x0000F90827F1C53a10cb7A02335B175320002935", "0x")

    def down(self) -> None:
        self.anvil.save()
        self.anvil.kill()

    def up(self) -> None:
        self.anvil = Anvil(AnvilOptions(port=self.anvil.port), self._state)


@contextmanager
def on_anvil(folder: Path) -> Iterator[AnvilLab]:
    laboratory = AnvilLab(folder)
    try:
        yield laboratory
    finally:
        laboratory.anvil.stop()


@pytest.fixture(params=["twin", pytest.param("anvil", marks=pytest.mark.anvil)])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """Both chains, one after the other."""
    if request.param == "twin":
        yield TwinLab()
        return
    with on_anvil(tmp_path) as laboratory:
        yield laboratory


@pytest.fixture
def twin_lab() -> TwinLab:
    return TwinLab()


@pytest.fixture
def anvil_lab(tmp_path: Path) -> Iterator[AnvilLab]:
    with on_anvil(tmp_path) as laboratory:
        yield laboratory


@pytest.fixture
def policies() -> dict[str, Policy]:
    return {"plain": POLICY, "proving": PROVING}


@pytest.fixture
def make_key() -> Callable[[str], Key]:
    return key_of
