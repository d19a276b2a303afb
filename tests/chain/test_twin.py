"""The twin against the contracts: the same random calls, well-formed or not, are taken or refused by both alike."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from typing import Any

import pytest
from eth_utils.crypto import keccak

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
    RemoveMember,
    RotateSigner,
    SetAggregators,
    SetCap,
    Submit,
)
from ledger.eip712 import Submission, sign_submission
from ledger.ports import ContractRefused, SendRefused
from ledger.records import Phase, Policy, RoundView, Signed
from ledger.round_state import RoundState, due, excluded_root, included_root, known_reason, shown, view
from ledger.signing import Key
from ledger.transactions import Transaction

STEPS = 120
SEEDS = range(200) if os.environ.get("CANDOR_LONG") == "1" else range(3)


class Player:
    """Draws the same calls from the same seed, whatever chain it plays on."""

    def __init__(self, lab: Any, seed: int) -> None:
        self.lab, self.history, self.read = lab, lab.history(), lab.chain.head().number
        self.draw = random.Random(seed)
        cast = lab.cast
        self.keys: list[Key] = [*cast.signers, *cast.owners, *cast.aggregators, cast.coordinator, cast.stranger]

    def key(self, right: Key) -> Key:
        """Usually the right one."""
        return right if self.draw.random() < 0.9 else self.draw.choice(self.keys)

    def digest(self, few: str) -> bytes:
        """Mostly the same one, so that things are said twice; sometimes another, or none."""
        drawn = self.draw.random()
        return keccak(text=few + ("a" if drawn < 0.8 else "b")) if drawn < 0.96 else bytes(32)

    def state(self) -> RoundState | None:
        head = self.lab.chain.head().number
        if head > self.read:
            self.history, self.read = self.history.after_all(self.lab.chain.events(self.read + 1, head)), head
        return self.history.rounds[self.history.latest] if self.history.latest else None

    def turn(self) -> tuple[Key, Action] | int:
        """A call and who makes it, or a number of blocks to mine."""
        cast, state, draw = self.lab.cast, self.state(), self.draw
        kind = self.kind(state)
        if kind == "mine":
            return draw.randint(1, 4)
        if kind == "open" or state is None:
            start = self.lab.chain.global_bundle()
            right = start if any(start) else keccak(text="global")
            lengths = [draw.randint(2, 8), draw.randint(3, 8), draw.randint(0, 6), *(draw.randint(1, 6) for _ in "vp")]
            quorum = draw.choice([0, 1, 1, 2, 2, 3])
            policy = Policy(
                *lengths,
                draw.randint(0, 5),
                quorum=quorum,
                proof_required=draw.random() < 0.5,
                verifier_quorum=draw.choice([0, 1, 1, 2, 2, 3, 4]),
            )
            bundle = right if draw.random() < 0.9 else self.digest("x")
            return self.key(cast.coordinator), Open(keccak(text="config"), bundle, policy)
        number = state.number if draw.random() < 0.95 else state.number + 1
        member = draw.choice([0, 1, 2, 0, 1, 2, 0, 1, 2, draw.randint(0, 4)])
        seat = state.seat(member)
        signer = next((key for key in self.keys if seat and key.address == seat.signer), cast.signers[member % 3])
        match kind:
            case "commit":
                return self.key(signer), Commit(number, self.digest(f"d{member}"), self.digest("w"))
            case "submit":
                return cast.stranger, self.submission(number, member, signer)
            case "prove":
                return self.key(signer), Prove(number, self.digest("proof"))
            case "object":
                return self.key(signer), Object(number, self.digest("o"))
            case "judge":
                return self.key(self.lab.on_duty(number)), self.verdicts(state, number)
            case "dissent":
                return self.key(signer), Dissent(number, self.reasons(state))
            case "propose":
                roots = included_root(state, state.accepted), excluded_root(state.reasons)
                claimed = (keccak(b""), roots[1]) if draw.random() < 0.1 else roots
                return self.key(self.lab.on_duty(number)), Propose(number, self.digest("aggregate"), *claimed)
            case "advance":
                return cast.stranger, self.advance(state, number)
        return self.federation(kind, member)

    def kind(self, state: RoundState | None) -> str:
        """Mostly what fits the phase, so that rounds get somewhere; sometimes anything."""
        chance = self.draw.random()
        if chance < 0.08:
            return self.draw.choice(FEDERATION)
        if chance < 0.25 or state is None:
            return self.draw.choice(ROUNDS)
        coming, following = due(state), self.lab.chain.head().number + 1
        if coming is None:
            return "open"
        if following >= coming.earliest_block or (state.close_block and chance < 0.6):
            return "advance" if following >= coming.earliest_block else "mine"
        fitting = FITTING[shown(state, following)[0]]
        return "mine" if fitting == "object" and chance < 0.7 else fitting

    def submission(self, number: int, member: int, signer: Key) -> Submit:
        bundle, spent = self.digest(f"bundle{number}"), self.draw.choice([1000 * number] * 8 + [7, 2_000_000])
        payload = Submission(number, member, bundle, spent)
        signature = sign_submission(self.key(signer).secret, self.lab.domain, payload)
        return Submit(number, member, bundle, spent, signature)

    def reasons(self, state: RoundState) -> bytes:
        known = [known_reason(state, seat.member) for seat in state.seats]
        judged = [k if k else self.draw.choice([0] * 8 + [17, 1]) for k in known]
        return bytes(judged if self.draw.random() < 0.9 else judged[1:])

    def verdicts(self, state: RoundState, number: int) -> PostVerdicts:
        """Signed by some, and now and then over something else."""
        reasons = self.reasons(state)
        told = reasons if self.draw.random() < 0.8 else reasons + b"\x00"
        members = [seat.member for seat in state.seats if seat.member < 3]
        signers = tuple(member for member in members if self.draw.random() < 0.8)
        signed = self.lab.signed(state.number, told, signers) if signers else Signed(0, b"", b"")
        return PostVerdicts(number, reasons, signed)

    def advance(self, state: RoundState, number: int) -> Advance:
        coming = due(state)
        block = coming.header_block if coming else None
        chosen = self.draw.random() < 0.9
        if block is None or block > self.lab.chain.head().number or not chosen:
            return Advance(number, b"")
        return Advance(number, self.lab.chain.header(block).rlp)

    def federation(self, kind: str, member: int) -> tuple[Key, Action]:
        cast, draw = self.lab.cast, self.draw
        owner = self.key(cast.owners[member % 3])
        if kind == "cap":
            return owner, SetCap(member, draw.choice([0, 5000, 10**6, 10**7]))
        if kind == "rotate":
            return owner, RotateSigner(member, draw.choice(self.keys).address)
        if kind == "verifier":
            registration = self.lab.registration(member, draw.choice(self.keys))
            return owner, registration if draw.random() < 0.8 else replace(registration, member=(member + 1) % 3)
        if kind == "remove":
            return self.key(cast.coordinator), RemoveMember(member)
        if kind == "add":
            pair = draw.choice(self.keys).address, draw.choice(self.keys).address
            return self.key(cast.coordinator), AddMember(*pair, 10**6)
        order = tuple(key.address for key in draw.sample(list(cast.aggregators), draw.randint(0, 2)))
        return self.key(cast.coordinator), SetAggregators(order)

    def play(self) -> tuple[Any, ...]:
        """One turn, and all that can be seen of its outcome."""
        turn = self.turn()
        if isinstance(turn, int):
            self.lab.mine(turn)
            return ("mined", turn)
        key, action = turn
        try:
            self.lab.act(key, action)
        except ContractRefused as refused:
            return (type(action).__name__, refused.name, *map(plain, refused.arguments))
        return (type(action).__name__, "taken")

    def seen(self) -> tuple[Any, ...]:
        """What the chain shows, less what depends on its randomness and addresses. The last two rounds: no others
        change, and all are looked at in the end."""
        chain, latest = self.lab.chain, self.lab.chain.latest_round()
        rounds = [comparable(chain.round_view(number)) for number in range(max(1, latest - 1), latest + 1)]
        return chain.head().number, chain.members(), chain.aggregators(), chain.global_bundle(), rounds


FEDERATION = ("cap", "rotate", "verifier", "remove", "add", "order")
ROUNDS = ("open", "commit", "submit", "submit", "prove", "judge", "propose", "object", "dissent", "advance", "mine")
FITTING = {
    Phase.COMMIT: "commit",
    Phase.TRAIN: "submit",
    Phase.PROVE: "prove",
    Phase.VERIFY: "judge",
    Phase.PROPOSE: "propose",
    Phase.PROPOSED: "object",
}


def plain(value: Any) -> Any:
    return int(value) if isinstance(value, int) else value


def comparable(found: RoundView) -> RoundView:
    return replace(found, train_beacon=b"", prove_beacon=b"", transcript=b"")


@pytest.mark.anvil
@pytest.mark.parametrize("seed", SEEDS)
def test_twin_and_contracts_decide_alike(twin_lab: Any, anvil_lab: Any, seed: int) -> None:
    twin_lab.mine(anvil_lab.chain.head().number - twin_lab.chain.head().number)
    ours, theirs = Player(twin_lab, seed), Player(anvil_lab, seed)
    for step in range(STEPS):
        assert (step, ours.play()) == (step, theirs.play())
        assert ours.seen() == theirs.seen()
    for lab in (twin_lab, anvil_lab):
        head = lab.chain.head().number
        for number, state in lab.history().rounds.items():
            assert view(state, head) == lab.chain.round_view(number)


def test_the_pool_takes_what_a_node_would_take(twin_lab: Any, make_key: Any) -> None:
    chain, key = twin_lab.chain, twin_lab.cast.stranger
    good = Transaction(chain.chain_id, 0, 10**9, 3 * 10**9, 21_000, b"\x01" * 20, 5, b"")
    refused = [
        (key.sign_transaction(replace(good, chain_id=1)), "chain id"),
        (make_key("poor").sign_transaction(good), "insufficient funds"),
        (b"\x02nonsense", "transaction"),
    ]
    for raw, why in refused:
        with pytest.raises(SendRefused, match=why):
            chain.send_raw(raw)
    twin_lab.automine(False)
    chain.send_raw(key.sign_transaction(good))
    with pytest.raises(SendRefused, match="underpriced"):
        chain.send_raw(key.sign_transaction(replace(good, value_wei=6)))
    assert (chain.nonce(key.address), chain.nonce(key.address, pending=True)) == (0, 1)
    twin_lab.mine()
    assert chain.balance(b"\x01" * 20) == 5
    with pytest.raises(SendRefused, match="nonce too low"):
        chain.send_raw(key.sign_transaction(replace(good, value_wei=7)))
    assert chain.send_raw(key.sign_transaction(good))  # mined already: that counts as taken


def test_a_call_that_is_none_of_ours_reverts(twin_lab: Any) -> None:
    chain, key = twin_lab.chain, twin_lab.cast.stranger
    nonsense = Transaction(chain.chain_id, 0, 10**9, 3 * 10**9, 21_000, chain.rounds_address, 0, b"nonsense")
    receipt = chain.receipt(chain.send_raw(key.sign_transaction(nonsense)))
    assert receipt is not None
    assert not receipt.succeeded
