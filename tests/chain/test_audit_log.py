"""The contract of logs, and its twin: the same stories on both chains, and the same random cheating decided alike."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from eth_utils.crypto import keccak

from ledger.audit_code import CodeDiffers, check_code, log_immutables
from ledger.evm import EvmChain
from ledger.log import statements
from ledger.log.actions import (
    AnswerOmission,
    LogAction,
    NameAuditors,
    PostCheckpoint,
    Register,
    RegisterAuditor,
    ReportFork,
    ReportOmission,
    ReportRewrite,
)
from ledger.log.follower import settled_log
from ledger.log.receipt import (
    Decoding,
    Entry,
    Receipt,
    Record,
    Server,
    check_receipt,
    enter,
    fresh_salt,
    issue,
    open_record,
)
from ledger.log.records import (
    AuditorRegistered,
    AuditorsNamed,
    Checkpointed,
    OmissionAnswered,
    OmissionReported,
    Outcome,
    ServerRegistered,
    auditors_digest,
)
from ledger.log.sealing import Auditor, AuditorKey, Envelope
from ledger.log.statements import Checkpoint, Promise
from ledger.log.store import LogStore
from ledger.outbox import Outbox, Status
from ledger.ports import ContractRefused, WrongChain, address_of
from ledger.report import Status as Proven
from ledger.signing import Key
from proofs.merkle import consistency_path, inclusion_path, leaf_hash, root_of_hashes

PROMISE_BLOCKS = 30
SEEDS = range(60) if os.environ.get("CANDOR_LONG") == "1" else range(2)
STEPS = 90


def leaves_of(size: int, history: str = "true") -> list[bytes]:
    return [leaf_hash(f"{history} {number}".encode()) for number in range(size)]


def path_between(leaves: list[bytes], old: int) -> tuple[bytes, ...]:
    def node(level: int, index: int) -> bytes:
        return root_of_hashes(leaves[index << level : (index + 1) << level])

    return tuple(consistency_path(node, old, len(leaves)))


class Host:
    """A server on a lab's chain, with its key, and a log that it can cheat with."""

    def __init__(self, lab: Any, key: Key) -> None:
        self.lab, self.key, self.address = lab, key, key.address

    def act(self, action: LogAction, by: Key | None = None) -> Any:
        return self.lab.act(by or self.lab.cast.stranger, action)

    def register(self) -> None:
        self.act(Register(PROMISE_BLOCKS), self.key)

    def signed(self, statement: statements.Statement) -> bytes:
        return statements.sign(self.key.secret, self.lab.log_domain, statement)

    def offer(self, leaves: list[bytes], old: int | None = None) -> PostCheckpoint:
        """A signed checkpoint over these leaves, with the proof from `old` (the anchored size) within them."""
        root = root_of_hashes(leaves)
        old = self.view().size if old is None else old
        signature = self.signed(Checkpoint(len(leaves), root))
        return PostCheckpoint(self.address, len(leaves), root, path_between(leaves, min(old, len(leaves))), signature)

    def report(self, promise: Promise) -> ReportOmission:
        fields = promise.sequence, promise.due_block, promise.leaf
        return ReportOmission(self.address, *fields, self.signed(promise))

    def answer(self, promise: Promise, leaves: list[bytes]) -> AnswerOmission:
        fields = promise.sequence, promise.due_block, promise.leaf
        return AnswerOmission(self.address, *fields, tuple(inclusion_path(leaves, promise.sequence)))

    def view(self) -> Any:
        return self.lab.chain.log_server(self.address)

    def omission(self, promise: Promise) -> Any:
        return self.lab.chain.omission(self.address, promise.digest(self.lab.log_domain))

    def events(self, kind: type) -> list[Any]:
        chain = self.lab.chain
        found = chain.log_events(0, chain.head().number)
        return [anchored.event for anchored in found if isinstance(anchored.event, kind)]


@pytest.fixture
def host(lab: Any) -> Host:
    found = Host(lab, lab.cast.signers[0])
    found.register()
    return found


def refused(name: str, host: Host, action: LogAction, by: Key | None = None) -> tuple[object, ...]:
    with pytest.raises(ContractRefused) as caught:
        host.act(action, by)
    assert caught.value.name == name
    return caught.value.arguments


def test_a_log_grows_by_proof_and_anybody_may_carry_the_checkpoint(host: Host) -> None:
    assert host.events(ServerRegistered) == [ServerRegistered(host.address, PROMISE_BLOCKS)]
    offers = []
    for size in (1, 2, 5, 8, 21, 300):
        offers.append(host.offer(leaves_of(size)))
        host.act(offers[-1])
        assert (host.view().size, host.view().root) == (size, root_of_hashes(leaves_of(size)))
    host.act(offers[-1])
    expected = [Checkpointed(host.address, offer.size, offer.root, offer.signature) for offer in offers]
    assert host.events(Checkpointed) == expected


def test_history_is_not_rewritten_by_the_owner_of_the_key(host: Host) -> None:
    host.act(host.offer(leaves_of(6)))
    lie = [*leaves_of(3), leaf_hash(b"another"), *leaves_of(21)[4:]]
    assert refused("ProofMismatch", host, host.offer(lie)) == (root_of_hashes(leaves_of(6)), root_of_hashes(lie[:6]))
    truth = replace(host.offer(lie), proof=path_between(leaves_of(21), 6))
    assert refused("ProofMismatch", host, truth) == (root_of_hashes(lie), root_of_hashes(leaves_of(21)))
    assert refused("NotLonger", host, host.offer(leaves_of(5), 5)) == (host.address, 6, 5)
    assert host.view().size == 6


def test_what_is_refused_has_a_name(host: Host) -> None:
    lab, stranger = host.lab, host.lab.cast.stranger.address
    assert refused("AlreadyServer", host, Register(1), host.key) == (host.address,)
    refused("NoPromise", host, Register(0))
    assert refused("UnknownServer", host, NameAuditors(())) == (stranger,)
    assert refused("UnknownAuditor", host, NameAuditors((stranger,)), host.key) == (stranger,)
    assert refused("TooManyAuditors", host, NameAuditors((stranger,) * 17), host.key) == (17, 16)
    refused("EmptyKey", host, RegisterAuditor(bytes(32)))
    good = host.offer(leaves_of(5))
    other = Host(lab, lab.cast.signers[1])
    assert refused("BadSignature", host, replace(good, signature=other.offer(leaves_of(5), 5).signature)) == (
        host.address,
        other.address,
    )
    assert refused("BadSignature", host, replace(good, signature=b"short")) == (host.address, bytes(20))
    assert refused("ProofLength", host, replace(good, proof=(bytes(32),))) == (0, 1)
    host.act(good)
    good = host.offer(leaves_of(9))
    for proof in (good.proof[:-1], (*good.proof, bytes(32)), (), (bytes(32),) * 500):
        assert refused("ProofLength", host, replace(good, proof=proof)) == (len(good.proof), len(proof))
    with pytest.raises(ContractRefused, match="UnknownServer"):
        lab.chain.log_server(stranger)


def test_a_promise_not_kept_becomes_evidence_for_ever(host: Host) -> None:
    lab, leaves = host.lab, leaves_of(6)
    host.act(host.offer(leaves[:5]))
    promise = Promise(5, lab.chain.head().number + 3, leaves[5])
    assert refused("NotDue", host, host.report(promise))[0] == promise.due_block
    lab.mine(3)
    host.act(host.report(promise))
    reported = host.omission(promise)
    assert (reported.outcome, reported.late) == (Outcome.OPEN, True)
    host.act(host.report(promise))
    assert (host.view().reports, host.omission(promise)) == (1, reported)
    lab.mine(reported.answer_by - lab.chain.head().number)
    assert host.omission(promise).outcome is Outcome.OPEN
    lab.mine()
    assert host.omission(promise).outcome is Outcome.OMITTED
    host.act(host.offer(leaves))
    refused("AnsweredTooLate", host, host.answer(promise, leaves))
    assert host.omission(promise) == replace(reported, outcome=Outcome.OMITTED)
    event = host.events(OmissionReported)
    assert event == [
        OmissionReported(host.address, 5, promise.due_block, leaves[5], host.signed(promise), True, reported.answer_by)
    ]


def test_a_server_answers_with_the_leaf_in_its_place(host: Host) -> None:
    lab, leaves = host.lab, leaves_of(6)
    promise = Promise(4, lab.chain.head().number, leaves[4])
    assert refused("NotReported", host, host.answer(promise, leaves)) == (host.address, promise.digest(lab.log_domain))
    host.act(host.report(promise))
    refused("NotAnchored", host, host.answer(promise, leaves))
    host.act(host.offer(leaves))
    good = host.answer(promise, leaves)
    refused("ProofLength", host, replace(good, proof=good.proof[:-1]))
    refused("ProofMismatch", host, replace(good, proof=good.proof[::-1]))
    host.act(good)
    assert (host.omission(promise).outcome, host.omission(promise).late) == (Outcome.ANSWERED, True)
    host.act(good)
    assert (host.view().reports, host.view().answers) == (1, 1)
    assert host.events(OmissionAnswered) == [OmissionAnswered(host.address, 4, promise.due_block, leaves[4])]
    punctual = Promise(3, lab.chain.head().number, leaves[3])
    host.act(host.report(punctual))
    host.act(host.answer(punctual, leaves))
    assert (host.omission(punctual).outcome, host.omission(punctual).late) == (Outcome.ANSWERED, False)


def test_two_answers_promised_one_place_cannot_both_be_answered_for(host: Host) -> None:
    lab, leaves = host.lab, leaves_of(6)
    host.act(host.offer(leaves))
    now = lab.chain.head().number
    told = [Promise(2, now, leaves[2]), Promise(2, now, leaf_hash(b"told to another"))]
    for promise in told:
        host.act(host.report(promise))
    host.act(host.answer(told[0], leaves))
    refused("ProofMismatch", host, host.answer(told[1], leaves))
    assert [host.omission(promise).outcome for promise in told] == [Outcome.ANSWERED, Outcome.OPEN]


def test_a_fork_marks_a_server_and_its_log_goes_on(host: Host) -> None:
    one, two = (Checkpoint(9, root_of_hashes(leaves_of(9, name))) for name in ("true", "other"))
    report = ReportFork(host.address, 9, one.root, host.signed(one), two.root, host.signed(two))
    assert refused("SameRoot", host, replace(report, other_root=one.root)) == (one.root,)
    refused("BadSignature", host, replace(report, other_signature=report.signature))
    refused("BadSignature", host, replace(report, size=8))
    host.act(report)
    block = host.view().fork_block
    assert block == host.lab.chain.head().number
    assert refused("AlreadyForked", host, report) == (host.address, block)
    host.act(host.offer(leaves_of(4)))
    assert (host.view().size, host.view().fork_block) == (4, block)


@pytest.mark.parametrize("size", [6, 13])
def test_a_checkpoint_that_the_anchored_log_contradicts_marks_its_server(host: Host, size: int) -> None:
    leaves = leaves_of(13)
    host.act(host.offer(leaves))
    shown = Checkpoint(size, root_of_hashes(leaves_of(size, "shown to a user")))
    truth = root_of_hashes(leaves[:size])
    report = ReportRewrite(host.address, size, shown.root, host.signed(shown), truth, path_between(leaves, size))
    refused("ProofMismatch", host, replace(report, true_root=bytes(32)))
    refused("ProofLength", host, replace(report, proof=(*report.proof, bytes(32))))
    refused("NotPassed", host, replace(report, size=14))
    refused("NotPassed", host, replace(report, size=0))
    honest = Checkpoint(size, truth)
    refused("SameRoot", host, replace(report, root=truth, signature=host.signed(honest)))
    host.act(report)
    assert host.view().fork_block == host.lab.chain.head().number


def test_auditors_have_keys_and_servers_name_them(host: Host) -> None:
    lab = host.lab
    auditors = [(lab.cast.owners[number], AuditorKey.of(keccak(text=f"x25519 {number}"))) for number in range(2)]
    for who, key in auditors:
        host.act(RegisterAuditor(key.public), who)
        assert lab.chain.auditor_key(who.address) == key.public
    addresses = tuple(who.address for who, _ in auditors)
    host.act(NameAuditors(addresses), host.key)
    assert host.view().auditors == auditors_digest(addresses)
    assert host.events(AuditorsNamed) == [AuditorsNamed(host.address, addresses)]
    assert host.events(AuditorRegistered) == [AuditorRegistered(who.address, key.public) for who, key in auditors]
    assert lab.chain.auditor_key(host.address) == bytes(32)


def test_a_user_an_auditor_and_a_server_from_question_to_evidence(host: Host, tmp_path: Path) -> None:
    """Three answers. One is logged, one is sealed and read, one is dropped: and its receipt becomes evidence."""
    lab, auditor = host.lab, AuditorKey.create()
    host.act(RegisterAuditor(auditor.public), lab.cast.owners[0])
    to = [Auditor(lab.cast.owners[0].address, lab.chain.auditor_key(lab.cast.owners[0].address))]
    log, answers = LogStore(tmp_path / "log"), []
    for number in range(3):
        head = lab.chain.head().number
        decoding = Decoding(16, Fraction(0), Fraction(1), 0, number)
        record = Record(decoding, fresh_salt(), b"question %d" % number, b"answer %d" % number)
        blank = Entry(
            lab.chain.chain_id, lab.chain.log_address, host.address, number, 0, head, head + 5, *[bytes(32)] * 5
        )
        entry, sealed = enter(replace(blank, bundle=keccak(text="model"), **record.digests()), record, Envelope.to(to))
        if number < 2:
            assert log.append([entry.encode()]) == entry.sequence
        answers.append((Receipt.decode(issue(host.key.secret, entry, record).encode()), record, sealed, head))
    log.append([b"something else in place of the third"])
    host.act(PostCheckpoint(host.address, 3, log.root(), (), host.signed(Checkpoint(3, log.root()))))
    server = Server(lab.log_domain, host.address, host.view().promise_blocks)
    owed = [
        check_receipt(receipt, server, record.request, record.response, bundle=keccak(text="model"), head_block=head)
        for receipt, record, _, head in answers
    ]
    for place in range(2):
        owed[place].settle(host.view().size, host.view().root, log.tree().inclusion(place))
        _, record, sealed, _ = answers[place]
        assert open_record(Entry.decode(log.tree().entry(place)), sealed, auditor) == record
    lab.mine(10)
    assert owed[2].is_due(lab.chain.head().number)
    promise = owed[2].promise
    fields = promise.sequence, promise.due_block, promise.leaf
    host.act(ReportOmission(host.address, *fields, answers[2][0].signature))
    refused("ProofMismatch", host, AnswerOmission(host.address, *fields, tuple(log.tree().inclusion(2))))
    lab.mine(25)
    assert host.omission(promise).outcome is Outcome.OMITTED
    log.close()


def test_a_reorg_takes_a_checkpoint_back_and_it_can_be_sent_again(host: Host) -> None:
    offer = host.offer(leaves_of(5))
    host.act(offer)
    host.lab.reorg(1)
    host.lab.mine()
    assert host.view().size == 0
    host.act(offer)
    assert host.view().size == 5
    assert len(host.events(Checkpointed)) == 1


def test_the_outbox_carries_checkpoints(host: Host, tmp_path: Path) -> None:
    box = Outbox(tmp_path / "outbox.sqlite", host.lab.chain, host.lab.cast.stranger, lock_folder=tmp_path)
    box.post("checkpoint 5", host.offer(leaves_of(5)))
    box.close()
    again = Outbox(tmp_path / "outbox.sqlite", host.lab.chain, host.lab.cast.stranger, lock_folder=tmp_path)
    again.pump()
    host.lab.mine()
    again.pump()
    assert [intent.status for intent in again.intents()] == [Status.DONE]
    assert host.view().size == 5
    again.close()


@pytest.mark.anvil
def test_a_chain_without_a_log_says_so(anvil_lab: Any) -> None:
    bare = EvmChain(anvil_lab.anvil.rpc_url, anvil_lab.chain.rounds_address)
    assert bare.log_events(0, bare.head().number) == []
    with pytest.raises(WrongChain):
        address_of(bare, "log")
    with pytest.raises(WrongChain):
        bare.log_server(bytes(20))
    with pytest.raises(WrongChain):
        EvmChain(anvil_lab.anvil.rpc_url, anvil_lab.chain.rounds_address, log=b"\x01" * 20)


@pytest.mark.anvil
def test_the_code_of_a_log_is_candors_with_the_window_that_was_agreed(anvil_lab: Any) -> None:
    code = anvil_lab.chain.code(anvil_lab.chain.log_address)
    check_code("AuditLog", code, log_immutables(anvil_lab.log_domain, 20))
    elsewhere = replace(anvil_lab.log_domain, contract=bytes(20))
    for words in (log_immutables(anvil_lab.log_domain, 21), log_immutables(elsewhere, 20)):
        with pytest.raises(CodeDiffers):
            check_code("AuditLog", code, words)


class Cheat:
    """Draws the same calls from the same seed, whatever chain it plays on."""

    def __init__(self, lab: Any, seed: int) -> None:
        self.lab, self.draw = lab, random.Random(seed)
        self.hosts = [Host(lab, key) for key in lab.cast.signers[:2]]
        self.truth: dict[bytes, list[bytes]] = {host.address: [] for host in self.hosts}
        self.said: list[tuple[Host, Promise]] = []

    def play(self) -> Any:
        """What the chain made of the next call: blocks mined, done, or refused by name with its arguments."""
        turn = self.turn()
        if isinstance(turn, int):
            self.lab.mine(turn)
            return turn
        key, action = turn
        try:
            self.lab.act(key, action)
        except ContractRefused as error:
            return type(action).__name__, error.name, tuple(map(plain, error.arguments))
        if isinstance(action, PostCheckpoint):
            self.truth[action.server] = self.offered[:]
        return type(action).__name__, "done"

    def turn(self) -> tuple[Key, LogAction] | int:
        host, draw, stranger = self.draw.choice(self.hosts), self.draw, self.lab.cast.stranger
        match draw.choice(
            ["register", "auditor", "name", *["offer"] * 5, *["say"] * 3, "answer", "answer", "fork", "mine"]
        ):
            case "register":
                return draw.choice([host.key, stranger, host.key]), Register(draw.choice([0, 9, 9]))
            case "auditor":
                return stranger, RegisterAuditor(draw.choice([bytes(32), keccak(text="key")]))
            case "name":
                return host.key, NameAuditors(draw.choice([(), (stranger.address,), (host.address,)]))
            case "offer":
                return stranger, self.offer(host)
            case "say":
                return stranger, self.report(host)
            case "answer" if self.said:
                return stranger, self.answer()
            case "fork":
                return stranger, self.fork(host)
        return draw.randint(1, 8)

    def size(self, host: Host) -> int:
        try:
            return int(host.view().size)
        except ContractRefused:
            return 0

    def offer(self, host: Host) -> PostCheckpoint:
        draw, truth = self.draw, self.truth[host.address]
        size = max(1, len(truth) + draw.choice([1, 2, 3, 5, 8, 0, -1]))
        self.offered = [*truth, *leaves_of(size + 1, host.address.hex())[len(truth) :]][:size]
        if draw.random() < 0.2:
            self.offered[draw.randrange(size)] = keccak(b"lie")
        action = host.offer(self.offered, self.size(host))
        mangled = draw.random()
        if mangled < 0.1:
            action = replace(action, proof=(*action.proof, bytes(32)))
        elif mangled < 0.2:
            action = replace(action, proof=action.proof[:-1])
        elif mangled < 0.3 and action.proof:
            action = replace(action, proof=(keccak(b"x"), *action.proof[1:]))
        elif mangled < 0.35:
            action = replace(action, server=draw.choice(self.hosts).address)
        return action

    def report(self, host: Host) -> ReportOmission:
        draw, truth = self.draw, self.truth[host.address]
        if not self.said or draw.random() < 0.7:
            sequence = draw.randint(0, len(truth) + 2)
            known = truth[sequence] if sequence < len(truth) and draw.random() < 0.8 else keccak(b"dropped")
            self.said.append((host, Promise(sequence, self.lab.chain.head().number + draw.randint(-3, 2), known)))
        owner, promise = draw.choice(self.said)
        action = owner.report(promise)
        return replace(action, server=host.address) if draw.random() < 0.1 else action

    def answer(self) -> AnswerOmission:
        host, promise = self.draw.choice(self.said)
        truth = self.truth[host.address] or [bytes(32)]
        place = min(promise.sequence, len(truth) - 1)
        path = inclusion_path(truth, place)
        path = path if self.draw.random() < 0.8 else path[:-1]
        return AnswerOmission(host.address, promise.sequence, promise.due_block, promise.leaf, tuple(path))

    def fork(self, host: Host) -> ReportFork | ReportRewrite:
        draw, truth = self.draw, self.truth[host.address] or leaves_of(1)
        size = draw.randint(1, len(truth))
        root = root_of_hashes(truth[:size])
        lie = draw.choice([root, keccak(b"lie"), keccak(b"lie")])
        signer = host if draw.random() < 0.5 else draw.choice(self.hosts)
        signature = signer.signed(Checkpoint(size, lie))
        if draw.random() < 0.5:
            return ReportFork(host.address, size, root, host.signed(Checkpoint(size, root)), lie, signature)
        return ReportRewrite(host.address, size, lie, signature, root, path_between(truth, size))

    def seen(self) -> Any:
        """All that the chain shows."""
        views = []
        for host in self.hosts:
            try:
                views.append(host.view())
            except ContractRefused as error:
                views.append(error.name)
        told = [host.omission(promise) for host, promise in self.said]
        return views, told


def plain(value: Any) -> Any:
    """Names of omissions are digests under the contract's address, which the chains do not share."""
    return "digest" if isinstance(value, bytes) and len(value) == 32 else value


@pytest.mark.anvil
@pytest.mark.parametrize("seed", SEEDS)
def test_twin_and_contract_decide_alike(twin_lab: Any, anvil_lab: Any, seed: int) -> None:
    twin_lab.mine(anvil_lab.chain.head().number - twin_lab.chain.head().number)
    ours, theirs = Cheat(twin_lab, seed), Cheat(anvil_lab, seed)
    outcomes = set()
    for step in range(STEPS):
        found = ours.play()
        assert (step, found) == (step, theirs.play())
        assert ours.seen() == theirs.seen()
        outcomes.add(found[:2] if isinstance(found, tuple) else found)
    assert len(outcomes) > 8
    heads = [lab.chain.log_events(0, lab.chain.head().number) for lab in (twin_lab, anvil_lab)]
    assert [type(found.event) for found in heads[0]] == [type(found.event) for found in heads[1]]
    for lab, code in ((twin_lab, Proven.NOT_PROVEN), (anvil_lab, Proven.PASS)):  # a twin shows no code
        _, links = settled_log(lab.chain)
        assert [link.status for link in links] == [Proven.PASS, Proven.PASS, code], links
