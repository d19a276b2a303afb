"""A node that lies with skill: every event, view and transcript fits, only the chain below them does not.

Headers are all that such a node cannot make up without being found out: their hashes are what a reader compares.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ledger.audit import audit
from ledger.audit_blocks import GROUP_BLOCKS, TrustedBlock, Walk, blocks_link
from ledger.audit_code import immutables
from ledger.compiled import bytecode
from ledger.eip712 import Domain
from ledger.events import transcript_next
from ledger.evidence import (
    RawLog,
    Receipt,
    bloom_of,
    check_receipt,
    decode_receipt,
    encode_receipt,
    prove_receipts,
    receipts_root,
)
from ledger.export import event_positions
from ledger.headers import Header
from ledger.history import History
from ledger.patricia import ProofInvalid
from ledger.records import Committed, Finalised, Logged, Objected, RoundView
from ledger.report import Link, Name, Status
from ledger.rpc import RpcRefused

Lie = Callable[[list[Logged]], list[Logged]]


class SkilledLiar:
    """Answers as `true` does, but for its events, and for views that fit them."""

    def __init__(self, true: Any, lie: Lie) -> None:
        self.true = true
        self.told = retold(lie(true.events(0, true.head().number)))
        self.shown = History(domain_of(true)).after_all(self.told)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.true, name)

    def events(self, first: int, last: int) -> list[Logged]:
        return [logged for logged in self.told if first <= logged.block_number <= last]

    def latest_round(self) -> int:
        return self.shown.latest

    def round_view(self, number: int) -> RoundView:
        view: RoundView = self.true.round_view(number)
        return replace(view, transcript=self.shown.rounds[number].transcript)


def domain_of(chain: Any) -> Domain:
    return Domain(chain.chain_id, chain.rounds_address)


def retold(logs: list[Logged]) -> list[Logged]:
    before: dict[int, bytes] = {}
    told = []
    for logged in logs:
        after = transcript_next(before.get(logged.event.round, bytes(32)), logged.event)
        before[logged.event.round] = after
        told.append(replace(logged, event=replace(logged.event, transcript=after)))
    return told


def changed(kind: type, change: Callable[[Any], Any]) -> Lie:
    def lie(logs: list[Logged]) -> list[Logged]:
        at = next(i for i, logged in enumerate(logs) if isinstance(logged.event, kind))
        return [*logs[:at], replace(logs[at], event=change(logs[at].event)), *logs[at + 1 :]]

    return lie


def another_dataset(event: Committed) -> Committed:
    return replace(event, dataset_root=b"\x01" * 32)


def without_objections(logs: list[Logged]) -> list[Logged]:
    return [logged for logged in logs if not isinstance(logged.event, Objected)]


def without_the_end(logs: list[Logged]) -> list[Logged]:
    return logs[:-1]


@pytest.fixture(scope="module")
def federation(found_federation: Any) -> Any:
    made = found_federation(3)
    made.play()
    made.play({2: "OFF_GRID"}, objectors=[1])
    made.chain.mine(3)
    return made


def failing(source: Any, federation: Any) -> dict[Name, str]:
    report = audit(source, federation.store)
    return {link.name: link.evidence for link in report.links if link.status is Status.FAIL}


LIES: dict[str, Lie] = {
    "a commitment that was never made": changed(Committed, another_dataset),
    "an objection hidden": without_objections,
    "the end of the last round hidden": without_the_end,
    "the whole last round hidden": lambda logs: [logged for logged in logs if logged.event.round == 1],
}


@pytest.mark.parametrize("lie", LIES.values(), ids=list(LIES))
def test_events_that_no_receipt_shows_and_events_that_are_hidden_fail_the_headers(federation: Any, lie: Lie) -> None:
    found = failing(SkilledLiar(federation.chain, lie), federation)
    assert Name.HEADERS in found
    assert "receipts" in found[Name.HEADERS]


def test_a_round_that_was_voided_cannot_be_shown_as_final(found_federation: Any) -> None:
    made = found_federation(3)
    made.play(objectors=[0, 1])
    assert made.state.voided is not None
    made.chain.mine(10)

    def finalised(logs: list[Logged]) -> list[Logged]:
        kept = [logged for logged in logs[:-1] if not isinstance(logged.event, Objected)]
        late = made.chain.header(made.chain.head().number)
        final = Finalised(1, made.state.proposal.aggregate_bundle, bytes(32))
        return [*kept, Logged(final, late.number, late.hash, b"\x07" * 32, 0)]

    liar = SkilledLiar(made.chain, finalised)
    assert liar.shown.rounds[1].finalised is not None
    assert Name.HEADERS in failing(liar, made)


def test_an_honest_node_passes_and_says_that_all_hangs_on_its_head(federation: Any) -> None:
    link = audit(federation.chain, federation.store).find(Name.HEADERS)
    assert link.status is Status.PASS
    assert f"up to the head, block {federation.chain.head().number}" in link.evidence


def test_a_node_without_receipts_leaves_the_events_unproven(federation: Any) -> None:
    class Silent(SkilledLiar):
        def receipts(self, number: int) -> list[bytes]:
            raise RpcRefused("eth_getBlockReceipts", -32601, "the method does not exist", b"")

    report = audit(Silent(federation.chain, lambda logs: logs), federation.store)
    assert report.status is Status.NOT_PROVEN
    assert report.find(Name.HEADERS).status is Status.NOT_PROVEN
    assert "on the node's word" in report.find(Name.HEADERS).evidence


def test_a_history_too_long_to_walk_is_not_passed_off_as_complete(federation: Any) -> None:
    report = audit(federation.chain, federation.store, walk=Walk(max_blocks=5))
    link = report.find(Name.HEADERS)
    assert (report.status, link.status) == (Status.NOT_PROVEN, Status.NOT_PROVEN)
    assert "at most 5 (--max-blocks)" in link.evidence
    liar = SkilledLiar(federation.chain, changed(Committed, another_dataset))
    assert Name.HEADERS in failing(liar, federation)


def test_a_trusted_block_is_one_that_the_walk_meets(federation: Any) -> None:
    """Every block that the auditor knows of itself, before the first event, between, and at the head."""
    chain = federation.chain
    for number in (0, 1, chain.head().number - 5, chain.head().number):
        known = TrustedBlock(number, chain.header(number).hash)
        link = audit(chain, federation.store, walk=Walk(trusted=known)).find(Name.HEADERS)
        assert (link.status, f"block {number} is the trusted one" in link.evidence) == (Status.PASS, True)
        for most in (1 << 17, 5):  # walked, and too long to walk
            other = Walk(most, TrustedBlock(number, b"\x01" * 32))
            link = audit(chain, federation.store, walk=other).find(Name.HEADERS)
            assert (link.status, "the trusted one has the hash 0101" in link.evidence) == (Status.FAIL, True)
    beyond = Walk(trusted=TrustedBlock(chain.head().number + 1, b"\x01" * 32))
    report = audit(chain, federation.store, walk=beyond)
    assert (report.status, report.find(Name.HEADERS).status) == (Status.NOT_PROVEN, Status.NOT_PROVEN)


def test_a_trusted_block_is_met_where_no_event_is_shown_too(federation: Any) -> None:
    """A node that shows another chain, on which nothing ever happened."""
    chain = federation.chain
    head = chain.head()
    told = {
        chain.header(2).hash: (Status.PASS, "block 2 is the trusted one"),
        b"\x01" * 32: (Status.FAIL, "the trusted one has the hash 0101"),
    }
    for known, (status, text) in told.items():
        link = blocks_link(chain, b"\x55" * 20, (), [], head, Walk(trusted=TrustedBlock(2, known)))
        assert (link.status, text in link.evidence) == (status, True)
    beyond = blocks_link(chain, b"\x55" * 20, (), [], head, Walk(trusted=TrustedBlock(head.number + 1, head.hash)))
    assert (beyond.status, beyond.missing) == (Status.NOT_PROVEN, True)


def test_a_long_walk_holds_one_group_of_headers_and_tells_how_far_it_is(found_federation: Any) -> None:
    made = found_federation(3)
    made.play()
    made.chain.mine(3 * GROUP_BLOCKS)
    told: list[tuple[int, int]] = []
    groups: list[int] = []

    class ManyAtOnce:
        """A chain that shows many headers at once, but for every second time."""

        def __getattr__(self, name: str) -> Any:
            return getattr(made.chain, name)

        def headers_between(self, first: int, last: int) -> list[Header]:
            groups.append(last - first + 1)
            if len(groups) % 2 == 0:
                raise RpcRefused("eth_getBlockByNumber", -32005, "too many", b"")
            return [made.chain.header(number) for number in range(first, last + 1)]

    walk = Walk(tell=lambda done, blocks: told.append((done, blocks)))
    link = audit(ManyAtOnce(), made.store, walk=walk).find(Name.HEADERS)
    assert link == audit(made.chain, made.store).find(Name.HEADERS)
    blocks = link.data["last_block"] - link.data["first_block"] + 1
    assert (link.status, max(groups), sum(groups)) == (Status.PASS, GROUP_BLOCKS, blocks)
    assert told == [(min(done, blocks), blocks) for done in range(GROUP_BLOCKS, blocks + GROUP_BLOCKS, GROUP_BLOCKS)]


def test_receipts_of_another_block_are_the_nodes_lie(federation: Any) -> None:
    class Swapped(SkilledLiar):
        def receipts(self, number: int) -> list[bytes]:
            return list(self.true.receipts(self.told[0].block_number))

    found = failing(Swapped(federation.chain, lambda logs: logs), federation)
    assert "do not hash to its receipts root" in found[Name.HEADERS]


# ---- the contract's code


class ShowsAnyCode(SkilledLiar):
    """Shows the right code, whatever the chain has; `proof` is what it answers when asked to prove it."""

    def __init__(self, true: Any, proof: Callable[[], list[bytes]]) -> None:
        super().__init__(true, lambda logs: logs)
        self.proof = proof

    federation_address = b"\x0b" * 20

    def code(self, address: bytes) -> bytes:
        name = "Rounds" if address == self.true.rounds_address else "Federation"
        code = bytecode(name).partition(bytes.fromhex("f3fe"))[2]  # type: ignore[arg-type]
        word = immutables(domain_of(self.true), self.federation_address)[0]
        at = code.find(b"\x7f" + bytes(32)) + 1
        return code[:at] + word + code[at + 32 :] if name == "Rounds" else code

    def account_proof(self, address: bytes, number: int) -> list[bytes]:
        return self.proof()


def code_found(federation: Any, proof: Callable[[], list[bytes]]) -> Link:
    return audit(ShowsAnyCode(federation.chain, proof), federation.store).find(Name.CONTRACT)


def test_code_that_the_state_root_refutes_fails(federation: Any) -> None:
    found = code_found(federation, lambda: [b"\xc0"])
    assert found.status is Status.FAIL
    assert ProofInvalid.__name__ in found.evidence


def test_code_that_the_node_will_not_prove_is_not_proven(federation: Any) -> None:
    def refuses() -> list[bytes]:
        raise RpcRefused("eth_getProof", -32601, "the method does not exist", b"")

    found = code_found(federation, refuses)
    assert found.status is Status.NOT_PROVEN
    assert "on the node's word" in found.evidence


# ---- a stranger's transaction beside ours


def receipt_of(logs: tuple[RawLog, ...]) -> bytes:
    return encode_receipt(Receipt(2, 1, 21_000, bloom_of(logs), logs))


@pytest.mark.parametrize(
    "logs",
    [
        tuple(RawLog(b"\x01" * 20, (), b"") for _ in range(44_000)),
        (RawLog(b"\x01" * 20, (b"\x02" * 32,), bytes(3 << 19)),),
    ],
    ids=["as many logs as a transaction's gas buys", "as many bytes"],
)
def test_a_strangers_noisy_transaction_does_not_make_a_round_unprovable(logs: tuple[RawLog, ...]) -> None:
    """EIP-7825 lets a transaction use 2^24 gas: 375 a log, 8 a byte. Anyone can put one into the block of ours."""
    ours = receipt_of((RawLog(b"\x0a" * 20, (b"\x03" * 32,), b"event"),))
    block = [receipt_of(logs), ours]
    assert decode_receipt(block[0]).logs == logs
    assert [event_positions(raw, b"\x0a" * 20) for raw in block] == [[], []]
    header = replace(
        _a_header(),
        receipts_root=receipts_root(block),
        logs_bloom=bloom_of((logs[0], RawLog(b"\x0a" * 20, (b"\x03" * 32,), b""))),  # all of `logs` are alike
    )
    for proof in prove_receipts(header, block, [0, 1]):
        check_receipt(header, proof)


def _a_header() -> Header:
    return Header(7, bytes(32), bytes(32), 0, bytes(32), bytes(32), bytes(256), b"")
