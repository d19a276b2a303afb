"""What a server that owns its key, or a stranger who owns none, may try against a log and its contract.

All of it fails, or becomes evidence; each attack is made on the in-memory twin and on the real contract.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from eth_utils.crypto import keccak

from devnet.anvil import Anvil, AnvilOptions
from ledger.deploy import act, deploy, deploy_log
from ledger.eip712 import Domain
from ledger.evm import EvmChain
from ledger.log import statements
from ledger.log.actions import (
    AnswerOmission,
    LogAction,
    PostCheckpoint,
    Register,
    ReportFork,
    ReportOmission,
    ReportRewrite,
)
from ledger.log.receipt import (
    Decoding,
    Entry,
    Receipt,
    ReceiptRefused,
    ReceiptRule,
    Record,
    Server,
    check_receipt,
    enter,
    issue,
)
from ledger.log.records import Outcome
from ledger.log.sealing import Auditor, AuditorKey, Envelope
from ledger.log.statements import Checkpoint, Promise
from ledger.log.tiles import Tile, decode_bundle, encode_bundle
from ledger.log.tree import TileTree, fsck
from ledger.ports import ChainPort, ContractRefused
from ledger.signing import Key
from ledger.twin import TwinChain
from proofs.merkle import (
    ConsistencyInvalid,
    InclusionInvalid,
    check_consistency,
    check_inclusion,
    consistency_path,
    inclusion_path,
    leaf_hash,
    root_of_hashes,
)

ADMIN, SERVER, ACCOMPLICE, USER = (
    Key.of(keccak(text=f"log attack {who}")) for who in ("admin", "server", "two", "user")
)
TRUE = [leaf_hash(b"answer %d" % number) for number in range(40)]
ANSWER_BLOCKS = 5
ETHER = 10**18


@dataclass(frozen=True)
class Stage:
    """A chain with an AuditLog on which both servers are registered."""

    chain: ChainPort
    mine: Callable[[int], None]

    @property
    def domain(self) -> Domain:
        return Domain(self.chain.chain_id, self.chain.log_address)

    def do(self, action: LogAction, by: Key = USER) -> None:
        act(self.chain, by, action, timeout_s=20)

    def refused(self, action: LogAction) -> str:
        with pytest.raises(ContractRefused) as caught:
            self.do(action)
        return caught.value.name

    def offer(self, leaves: list[bytes], proof: tuple[bytes, ...] = (), key: Key = SERVER) -> PostCheckpoint:
        root = root_of_hashes(leaves)
        signature = statements.sign(key.secret, self.domain, Checkpoint(len(leaves), root))
        return PostCheckpoint(key.address, len(leaves), root, proof, signature)

    def report(self, promise: Promise, key: Key = SERVER, domain: Domain | None = None) -> ReportOmission:
        signature = statements.sign(key.secret, domain or self.domain, promise)
        return ReportOmission(SERVER.address, promise.sequence, promise.due_block, promise.leaf, signature)

    def outcome(self, promise: Promise) -> Outcome:
        return self.chain.omission(SERVER.address, promise.digest(self.domain)).outcome

    def anchored(self) -> tuple[int, bytes]:
        server = self.chain.log_server(SERVER.address)
        return server.size, server.root


def twin_stage() -> Stage:
    balances = {key.address: 100 * ETHER for key in (ADMIN, SERVER, ACCOMPLICE, USER)}
    chain = TwinChain(admin=ADMIN.address, coordinator=ADMIN.address, balances=balances, answer_blocks=ANSWER_BLOCKS)
    return Stage(chain, chain.mine)


def anvil_stage(anvil: Anvil) -> Stage:
    for key in (ADMIN, SERVER, ACCOMPLICE, USER):
        anvil.rpc("anvil_setBalance", "0x" + key.address.hex(), hex(100 * ETHER))
    rounds = deploy(anvil.rpc_url, ADMIN, ADMIN.address).rounds
    log = deploy_log(anvil.rpc_url, ADMIN, ANSWER_BLOCKS)
    return Stage(EvmChain(anvil.rpc_url, rounds, log=log), anvil.mine)


@pytest.fixture(params=["twin", pytest.param("anvil", marks=pytest.mark.anvil)])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    anvil = Anvil(AnvilOptions(), tmp_path / "anvil.state") if request.param == "anvil" else None
    try:
        found = anvil_stage(anvil) if anvil else twin_stage()
        for key in (SERVER, ACCOMPLICE):
            found.do(Register(50), key)
        yield found
    finally:
        if anvil:
            anvil.stop()


def node_of(leaves: list[bytes]) -> Callable[[int, int], bytes]:
    return lambda level, index: root_of_hashes(leaves[index << level : (index + 1) << level])


def proof(leaves: list[bytes], old: int) -> tuple[bytes, ...]:
    return tuple(consistency_path(node_of(leaves), old, len(leaves)))


def with_lie(leaves: list[bytes], place: int) -> list[bytes]:
    return [*leaves[:place], leaf_hash(b"a lie"), *leaves[place + 1 :]]


# ---------------------------------------------------------------------------------------------------- rewriting history


@pytest.mark.parametrize("place", [0, 10, 18], ids=["the first answer", "one in the middle", "the last anchored one"])
def test_an_anchored_answer_cannot_be_replaced(stage: Stage, place: int) -> None:
    """By the owner of the key, with every proof that can be made from either history."""
    stage.do(stage.offer(TRUE[:19]))
    lie = with_lie(TRUE[:30], place)
    for path in (proof(lie, 19), proof(TRUE[:30], 19), proof(lie, 20), (*proof(lie, 19)[:-1], keccak(b"x"))):
        assert stage.refused(stage.offer(lie, path)) in ("ProofMismatch", "ProofLength")
    assert stage.anchored() == (19, root_of_hashes(TRUE[:19]))


def test_an_answer_cannot_be_slipped_in_or_taken_out(stage: Stage) -> None:
    stage.do(stage.offer(TRUE[:19]))
    for other in ([leaf_hash(b"before"), *TRUE[:25]], TRUE[1:30], [*TRUE[:10], *TRUE[11:30]], TRUE[:30][::-1]):
        assert stage.refused(stage.offer(other, proof(other, 19))) == "ProofMismatch"
    assert stage.refused(stage.offer(TRUE[:18], proof(TRUE[:18], 18))) == "NotLonger"
    stage.do(stage.offer(TRUE[:30], proof(TRUE[:30], 19)))


def test_the_old_root_cannot_stand_in_for_a_leaf_of_the_new_tree(stage: Stage) -> None:
    """A tree whose first leaf is the whole old log: its root continues nothing."""
    stage.do(stage.offer(TRUE[:4]))
    swallowed = [root_of_hashes(TRUE[:4]), *TRUE[4:9]]
    for path in (proof(swallowed, 1), proof(swallowed, 4), (root_of_hashes(TRUE[4:8]),)):
        assert stage.refused(stage.offer(swallowed, path)) in ("ProofMismatch", "ProofLength")


# ----------------------------------------------------------------------------------------------------- malformed proofs


def test_a_truncated_padded_or_oversized_proof_is_refused_by_its_length(stage: Stage) -> None:
    stage.do(stage.offer(TRUE[:19]))
    good = proof(TRUE[:30], 19)
    for bad in (good[:-1], good[1:], (), (*good, bytes(32)), (bytes(32), *good), good * 2, (bytes(32),) * 2000):
        assert stage.refused(stage.offer(TRUE[:30], bad)) == "ProofLength"
        with pytest.raises(ConsistencyInvalid):
            check_consistency(19, root_of_hashes(TRUE[:19]), 30, root_of_hashes(TRUE[:30]), bad)


@pytest.mark.parametrize(("old", "new"), [(19, 31), (18, 30), (19, 32), (20, 30), (16, 30), (3, 5), (19, 40)])
def test_a_proof_for_other_sizes_continues_nothing(stage: Stage, old: int, new: int) -> None:
    stage.do(stage.offer(TRUE[:19]))
    other = proof(TRUE[:new], old)
    if other != proof(TRUE[:30], 19):
        assert stage.refused(stage.offer(TRUE[:30], other)) in ("ProofMismatch", "ProofLength")
    mislabelled = stage.offer(TRUE[:new], other)
    if (old, new) != (19, new):
        assert stage.refused(replace(mislabelled, size=30)) in ("BadSignature", "ProofLength", "ProofMismatch")


def test_a_first_checkpoint_brings_no_proof(stage: Stage) -> None:
    assert stage.refused(stage.offer(TRUE[:19], proof(TRUE[:19], 4))) == "ProofLength"


def test_a_node_is_no_leaf_and_a_leaf_is_nowhere_else() -> None:
    """What would be a shorter or longer path is another length, and so no path at all."""
    root = root_of_hashes(TRUE[:8])
    inner = root_of_hashes(TRUE[:2])
    for index, path in ((0, inclusion_path(TRUE[:8], 0)[1:]), (0, inclusion_path(TRUE[:8], 0)), (1, [TRUE[1]])):
        with pytest.raises(InclusionInvalid):
            check_inclusion(inner, index, 8, path, root)
    with pytest.raises(InclusionInvalid):
        check_inclusion(TRUE[3], 2, 8, inclusion_path(TRUE[:8], 3), root)


# -------------------------------------------------------------------------------------------------------------- forks


def test_a_log_shown_with_two_faces_becomes_evidence(stage: Stage) -> None:
    """One to the chain, one to a user: whoever has both signatures, or one and the chain, reports it."""
    stage.do(stage.offer(TRUE[:19]))
    face = stage.offer(with_lie(TRUE[:12], 5))
    rewrite = ReportRewrite(
        SERVER.address, 12, face.root, face.signature, root_of_hashes(TRUE[:12]), proof(TRUE[:19], 12)
    )
    stage.do(rewrite)
    assert stage.chain.log_server(SERVER.address).fork_block > 0
    assert stage.refused(rewrite) == "AlreadyForked"


def test_a_stranger_cannot_make_an_honest_server_look_forked(stage: Stage) -> None:
    """With its signatures on two sizes, another's signature, an own one, or a true checkpoint and a false path."""
    stage.do(stage.offer(TRUE[:19]))
    one, two, other = (
        stage.offer(TRUE[:12]),
        stage.offer(TRUE[:13]),
        stage.offer(with_lie(TRUE[:12], 3), key=ACCOMPLICE),
    )
    for signature in (two.signature, other.signature, one.signature, stage.offer(TRUE[:12], key=USER).signature, b""):
        forged = ReportFork(SERVER.address, 12, one.root, one.signature, other.root, signature)
        assert stage.refused(forged) == "BadSignature"
    for truth, path in ((other.root, proof(TRUE[:19], 12)), (two.root, proof(TRUE[:19], 13)), (bytes(32), ())):
        forged_rewrite = ReportRewrite(SERVER.address, 12, one.root, one.signature, truth, path)
        assert stage.refused(forged_rewrite) in ("ProofMismatch", "ProofLength")
    assert stage.chain.log_server(SERVER.address).fork_block == 0


# ------------------------------------------------------------------------------------------------------------ receipts


def test_a_receipt_of_another_server_chain_or_contract_convicts_nobody(stage: Stage) -> None:
    stage.do(stage.offer(TRUE[:19]))
    stage.mine(2)
    promise = Promise(3, 1, leaf_hash(b"dropped"))
    elsewhere = [
        stage.report(promise, ACCOMPLICE),
        stage.report(promise, USER),
        stage.report(promise, domain=Domain(stage.chain.chain_id + 1, stage.chain.log_address)),
        stage.report(promise, domain=Domain(stage.chain.chain_id, stage.chain.rounds_address)),
        replace(stage.report(promise), sequence=4),
        replace(stage.report(promise), due_block=2),
        replace(stage.report(promise), leaf=TRUE[3]),
        replace(stage.report(promise), signature=stage.offer(TRUE[:3]).signature),
    ]
    for report in elsewhere:
        assert stage.refused(report) == "BadSignature"
    assert stage.chain.log_server(SERVER.address).reports == 0
    stage.do(stage.report(promise))


def test_a_malleated_signature_is_not_another_receipt(stage: Stage) -> None:
    """(r, n − s) is the same key's signature to whoever does not insist on the lower half."""
    stage.mine(2)
    good = stage.report(Promise(3, 1, TRUE[3]))
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    flipped = (order - int.from_bytes(good.signature[32:64])).to_bytes(32)
    mirrored = good.signature[:32] + flipped + bytes([55 - good.signature[64]])
    assert stage.refused(replace(good, signature=mirrored)) == "BadSignature"


def test_a_dropped_answer_cannot_be_explained_away(stage: Stage) -> None:
    """By the path of its neighbour, of the leaf that took its place, or by growing until something fits."""
    stage.do(stage.offer(TRUE[:19]))
    stage.mine(2)
    promise = Promise(7, 1, leaf_hash(b"dropped"))
    stage.do(stage.report(promise))
    said = SERVER.address, promise.sequence, promise.due_block, promise.leaf
    for place in (6, 7, 8):
        path = tuple(inclusion_path(TRUE[:19], place))
        assert stage.refused(AnswerOmission(*said, path)) in ("ProofMismatch", "ProofLength")
    late = [*TRUE[:19], promise.leaf]
    stage.do(stage.offer(late, proof(late, 19)))
    assert stage.refused(AnswerOmission(*said, tuple(inclusion_path(late, 19)))) in ("ProofMismatch", "ProofLength")
    stage.mine(ANSWER_BLOCKS + 1)
    assert stage.outcome(promise) is Outcome.OMITTED


def test_an_answer_for_one_report_serves_no_other(stage: Stage) -> None:
    """The same leaf and place under another deadline is another promise."""
    stage.do(stage.offer(TRUE[:19]))
    stage.mine(3)
    told = [Promise(7, 1, TRUE[7]), Promise(7, 2, TRUE[7])]
    for promise in told:
        stage.do(stage.report(promise))
    path = tuple(inclusion_path(TRUE[:19], 7))
    stage.do(AnswerOmission(SERVER.address, 7, 1, TRUE[7], path))
    assert [stage.outcome(promise) for promise in told] == [Outcome.ANSWERED, Outcome.OPEN]


# ---------------------------------------------------------------------------------------------- lies told off the chain


def receipt_for(stage: Stage, changes: dict[str, Any]) -> tuple[Receipt, Server]:
    head = stage.chain.head().number
    record = Record(Decoding(8, Fraction(0), Fraction(1), 0, 1), keccak(b"salt"), b"question", b"answer")
    blank = Entry(
        stage.chain.chain_id, stage.chain.log_address, SERVER.address, 0, 0, head, head + 9, *[keccak(b"m")] * 5
    )
    auditor = Auditor(bytes(20), AuditorKey.of(keccak(b"auditor")).public)
    entry = replace(enter(replace(blank, **record.digests()), record, Envelope.to([auditor]))[0], **changes)
    return issue(SERVER.secret, entry, record), Server(stage.domain, SERVER.address, 50)


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        (ReceiptRule.PROMISE, {"due_block": 10**9}),
        (ReceiptRule.ISSUED, {"issued_block": 10**6, "due_block": 10**6 + 1}),
        (ReceiptRule.BUNDLE, {"bundle": keccak(b"a cheaper model")}),
        (ReceiptRule.RESPONSE, {"response": keccak(b"another answer")}),
        (ReceiptRule.TERMS, {"terms": keccak(b"another seed")}),
        (ReceiptRule.DOMAIN, {"contract": bytes(20)}),
        (ReceiptRule.SERVER, {"server": ACCOMPLICE.address}),
    ],
)
def test_a_receipt_that_would_be_worth_nothing_is_noticed_at_once(
    stage: Stage, rule: ReceiptRule, changes: dict[str, Any]
) -> None:
    """Rightly signed by the server, on something that the user did not get."""
    receipt, server = receipt_for(stage, changes)
    head = stage.chain.head().number
    with pytest.raises(ReceiptRefused) as caught:
        check_receipt(receipt, server, b"question", b"answer", bundle=keccak(b"m"), head_block=head)
    assert caught.value.rule is rule


def test_tiles_that_were_changed_after_the_checkpoint_betray_themselves() -> None:
    """Entries of a bundle swapped, one replaced with its hash put right too, or the tile above put right as well."""
    entries = [b"answer %d" % number for number in range(300)]
    roots = {300: root_of_hashes([leaf_hash(entry) for entry in entries])}

    def files(of: list[bytes]) -> dict[str, bytes]:
        hashes = [leaf_hash(entry) for entry in of]
        return {
            Tile(-1, 0).path: encode_bundle(of[:256]),
            Tile(-1, 1, 44).path: encode_bundle(of[256:]),
            Tile(0, 0).path: b"".join(hashes[:256]),
            Tile(0, 1, 44).path: b"".join(hashes[256:]),
            Tile(1, 0, 1).path: root_of_hashes(hashes[:256]),
        }

    good = files(entries)
    assert list(fsck(good.get, 300, roots)) == []
    changed = files([*entries[:7], b"a lie", *entries[8:]])
    for put_right in range(1, 4):
        paths = [Tile(-1, 0).path, Tile(0, 0).path, Tile(1, 0, 1).path][:put_right]
        mixed = {**good, **{path: changed[path] for path in paths}}
        assert list(fsck(mixed.get, 300, roots)), paths
        tree = TileTree(mixed.get, 300)
        lie = leaf_hash(decode_bundle(Tile(-1, 0), mixed[Tile(-1, 0).path])[7])
        with pytest.raises(InclusionInvalid):
            check_inclusion(lie, 7, 300, tree.inclusion(7), roots[300])
