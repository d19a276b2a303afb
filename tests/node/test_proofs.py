"""Rounds in which members prove the mechanism: honest ones, cut off at the worst moments, and with secrets to keep."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ledger.verdict
import node.submitting
from ledger.bundle import PROOF, bundle_limits
from ledger.config import PrivacySpec
from ledger.crash import Point
from ledger.records import Phase, Reason, VoidReason
from ledger.verdict import Verdict
from node.conduct import HonestMember
from node.judging import JudgeDied, Judges
from node.member import Member
from node.proving import load_prover
from node.recompute import Recount
from node.service import Stopped
from proofs.errors import LocalFault
from proofs.prover import data_root, words_root

MakeWorld = Callable[..., Any]
HALF = PrivacySpec(Fraction(1, 100_000), 64, Fraction(1), Fraction(1, 2), 128, 1 << 31, 16)


class PowerCut(BaseException):
    """As that of the fixtures, for the moments that no persistence point marks."""


@pytest.fixture
def proving_world(make_world: MakeWorld) -> MakeWorld:
    """Half of ten rows join each of two steps."""

    def make(members: int = 2, **changes: Any) -> Any:
        return make_world(members, proof_policy="mechanism", privacy=HALF, steps=2, **changes)

    return make


def files_of(world: Any, member: int, number: int = 1) -> dict[str, bytes]:
    digest = world.history.rounds[number].submissions[member].bundle
    return dict(world.member(member).store.get_directory(digest, bundle_limits(world.config)))


def test_members_prove_what_they_release_and_are_accepted_for_it(proving_world: MakeWorld) -> None:
    world = proving_world()
    state = world.until_ended(1)
    assert state.phase is Phase.FINAL
    assert state.accepted == (0, 1)
    for member in range(2):
        assert len(files_of(world, member)[PROOF]) > 100_000


def test_what_is_committed_to_is_the_commitment_that_the_proof_opens(proving_world: MakeWorld) -> None:
    world = proving_world()
    state = world.until_phase(Phase.TRAIN)
    member = world.member(0)
    words, config = member.actor._submitting.words(state, state.seats[0], world.config), world.config
    assert state.commitments[0].words_root == words_root(words, config.shape)
    assert state.commitments[0].words_root != words.root()
    assert state.commitments[0].dataset_root == data_root(words, config.shape, member.trainer.texts(config))


def test_data_that_changed_after_the_commitment_is_noticed_before_training(proving_world: MakeWorld) -> None:
    """A row fewer or more, in another order, or one that is another: a member for each, and two honest ones."""
    changes: list[Callable[[list[bytes]], list[bytes]]] = [
        lambda rows: rows[:-1],
        lambda rows: [*rows, b"another"],
        lambda rows: [*rows[1:], rows[0]],
        lambda rows: [*rows[:-1], rows[-2]],
    ]
    world = proving_world(len(changes) + 2, strict=False)
    world.until_phase(Phase.TRAIN)
    for number, change in enumerate(changes):
        trainer = world.member(number).trainer
        trainer.data = change(list(trainer.data))
    state = world.until_ended(1)
    assert state.accepted == (4, 5)
    for number in range(len(changes)):
        assert state.reasons[number] == Reason.NOT_SUBMITTED
        assert world.member(number).trainer.roots == []
        assert "data is not what was committed to" in world.member(number).service.watch.health()["refused"]


def test_the_same_data_has_another_root_in_each_round(proving_world: MakeWorld) -> None:
    """Each round opens columns of it; over the same random cells two rounds would show too many."""
    world = proving_world(rounds=2)
    roots = [world.until_ended(number).commitments[0].dataset_root for number in (1, 2)]
    assert len(set(roots)) == 2


# ---- kill -9


class Recorder(HonestMember):
    """Honest; keeps a list of every bundle that left the process, and can be cut off just before one does."""

    def __init__(self) -> None:
        self.published: list[bytes] = []
        self.cut = False

    def publish(self, state: Any, store: Any, files: Any) -> bytes:
        if self.cut:
            self.cut = False
            raise PowerCut
        self.published.append(super().publish(state, store, files))
        return self.published[-1]


def turn_until_cut(world: Any) -> None:
    """Turns of member 0 alone, whose process ends with the first PowerCut and is started again."""
    member = world.member(0)
    for _ in range(50):
        try:
            member.turn()
        except PowerCut:
            member.restart()
            return
        world.chain.mine()
    raise AssertionError("nothing was cut")


def cut_once(monkeypatch: pytest.MonkeyPatch, name: str, *, after: bool) -> None:
    """A PowerCut right before or after the first call of a function that node.submitting uses."""
    real, left = getattr(node.submitting, name), [True]

    def cutting(*arguments: Any) -> Any:
        if not after and left.pop():
            left.append(False)
            raise PowerCut
        result = real(*arguments)
        if after and left.pop():
            left.append(False)
            raise PowerCut
        left.append(False)
        return result

    monkeypatch.setattr(node.submitting, name, cutting)


MOMENTS = ("before proving", "after proving", "before publishing")


@pytest.mark.parametrize("moment", MOMENTS)
def test_kill_between_training_proving_and_publishing(
    moment: str, proving_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained and proven again, and the same to the byte: equal contributions give the equal proof."""
    recorder = Recorder()
    world = proving_world(prepare=lambda world: setattr(world.member(0), "conduct", recorder))
    world.until_phase(Phase.TRAIN)
    if moment == "before publishing":
        recorder.cut = True
    else:
        cut_once(monkeypatch, "proof_of", after=moment == "after proving")
    turn_until_cut(world)
    state = world.until_ended(1)
    assert state.accepted == (0, 1)
    assert not state.equivocations
    assert len(set(recorder.published)) == 1
    assert len(world.member(0).parts.privacy.entries()) == 1, "booked once"


def test_a_bundle_named_before_the_kill_comes_out_the_same_after_it(
    proving_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    world = proving_world(prepare=lambda world: setattr(world.member(0), "conduct", recorder))
    world.until_phase(Phase.TRAIN)
    recorder.cut = True  # the name is written down, nothing is out
    turn_until_cut(world)
    member = world.member(0)
    named = member.parts.memory._database.read("SELECT bundle FROM releases", ())[0][0]
    state = world.until_ended(1)
    assert state.submissions[0].bundle == named


def test_other_contributions_after_a_kill_are_neither_proven_twice_nor_published(
    proving_world: MakeWorld, pull_the_plug: Callable[[Point], None]
) -> None:
    """As on a GPU: two proofs under one commitment to the words would tell more than one does."""
    world = proving_world(3, strict=False)
    world.until_phase(Phase.TRAIN)
    pull_the_plug(Point.NODE_BUNDLE)
    world.until(lambda world: bool(world.cuts))
    member = next(daemon for daemon in world.daemons if daemon.name == world.cuts[0])
    member.trainer.shift = 1
    state = world.until_ended(1)
    assert state.reasons[int(member.name[-1])] == Reason.NOT_SUBMITTED
    assert "same noise" in member.service.watch.health()["refused"]


# ---- what a member does not release


def test_a_draw_larger_than_a_proof_can_show_ends_the_round_before_anything_is_released(
    proving_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a chance below 2^-64; here a step has one slot, and half of ten rows are drawn."""
    monkeypatch.setattr("ledger.config.most_rows", lambda *_: 1)
    world = proving_world(voids=1)
    state = world.until_ended(1)
    assert state.reasons == {} or set(state.reasons.values()) == {Reason.NOT_SUBMITTED}
    for number in range(2):
        member = world.member(number)
        assert "drew more rows" in member.service.watch.health()["refused"]
        assert member.trainer.roots == [], "nothing was trained"
        assert len(member.parts.privacy.entries()) == 1, "and yet it is paid for"


def test_sums_that_are_not_what_the_rows_gave_are_not_published(proving_world: MakeWorld) -> None:
    """A defect of our own is found by our own prover, before anybody else can."""

    def spoil(world: Any) -> None:
        trainer = world.member(0).trainer
        train = trainer.train

        def wrong(*arguments: Any) -> Any:
            trained = train(*arguments)
            return replace(trained, released=trained.released + np.int32(1))

        trainer.train = wrong

    world = proving_world(3, prepare=spoil)
    state = world.until_phase(Phase.VERIFY)
    assert sorted(state.submissions) == [1, 2]
    assert "released sums" in world.member(0).service.watch.health()["refused"]


class Forger(HonestMember):
    def files(self, state: Any, files: Any) -> Any:
        from ledger import canonical
        from ledger.bundle import MANIFEST, MAX_MANIFEST_BYTES

        changed = dict(files) | {PROOF: files[PROOF][:-1] + bytes([files[PROOF][-1] ^ 1])}
        manifest = canonical.decode(changed.pop(MANIFEST), max_bytes=MAX_MANIFEST_BYTES)
        table = {path: {"sha256": canonical.digest(data).hex(), "size": len(data)} for path, data in changed.items()}
        return changed | {MANIFEST: canonical.encode(manifest | {"files": table})}


def test_an_aggregator_leaves_out_whom_it_cannot_verify_and_members_agree(proving_world: MakeWorld) -> None:
    world = proving_world(3, prepare=lambda world: setattr(world.member(1), "conduct", Forger()))
    state = world.until_ended(1)
    assert state.reasons == {0: Reason.ACCEPTED, 1: Reason.PROOF_INVALID, 2: Reason.ACCEPTED}
    assert state.phase is Phase.FINAL
    assert not state.objections


def test_each_daemon_verifies_a_proof_once_and_remembers(
    proving_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Members judge before they sign, and look at the proposal later, in a short window: judged is judged."""
    checked: list[int] = []
    real = ledger.verdict.check_proof

    def counting(submission: Any, *rest: Any) -> None:
        checked.append(submission.claim.member)
        real(submission, *rest)

    monkeypatch.setattr(ledger.verdict, "check_proof", counting)
    world = proving_world()
    state = world.until_ended(1)
    assert state.accepted == (0, 1)
    assert sorted(checked) == [0] * 3 + [1] * 3, "two members and an aggregator, each of two proofs"


def test_a_bundle_that_is_gone_when_the_proposal_is_checked_is_found_gone(proving_world: MakeWorld) -> None:
    """What was judged is remembered; that it can still be had is not."""
    world = proving_world()
    state = world.until_phase(Phase.PROPOSED)
    for daemon in world.daemons:
        daemon.store.blocks.pop(state.submissions[1].bundle, None)
    assert world.until_ended(1).voided.reason is VoidReason.DISPUTED


# ---- what is told while it lasts, and what never is


def test_each_stage_is_told_and_health_answers_meanwhile(
    proving_world: MakeWorld, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from node.watch import Watch

    stages: list[Any] = []
    told = Watch.proving

    def proving(watch: Watch, stage: str | None) -> None:
        told(watch, stage)
        stages.append(watch.health()["proving"])

    monkeypatch.setattr(Watch, "proving", proving)
    caplog.set_level(logging.INFO, "candor")
    proving_world().until_ended(1)
    assert "projecting" in stages
    assert stages[-1] is None
    assert "proving round=1 stage=projecting" in caplog.text
    assert "proven round=1 bytes=" in caplog.text


def test_a_proof_that_would_come_too_late_is_given_up(
    proving_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node.submitting, "ASK_CHAIN_S", -1.0)
    world = proving_world(voids=1)
    world.until_phase(Phase.TRAIN)
    member, real = world.member(0), node.submitting.proof_of

    def slow(*arguments: Any) -> Any:
        world.chain.mine(40)
        return real(*arguments)

    monkeypatch.setattr(node.submitting, "proof_of", slow)
    member.turn()
    assert "took too long" in member.service.watch.health()["refused"]
    assert list(member.parts.memory._database.read("SELECT * FROM releases", ())) == []


def test_a_daemon_that_is_asked_to_stop_stops_proving(proving_world: MakeWorld) -> None:
    world = proving_world()
    world.until_phase(Phase.TRAIN)
    member, asked = world.member(0), [0]

    def stop_after_training() -> None:
        asked[0] += 1
        if asked[0] > world.config.steps:
            raise Stopped

    member.actor = Member(member.parts, HonestMember(), stop_after_training)
    with pytest.raises(Stopped):
        member.turn()
    assert asked[0] == world.config.steps + 1, "in the first stage of the proof"


def test_no_secret_is_in_anything_published_or_logged(
    proving_world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """Seeds as bytes and as hex; each row's contribution, as the numbers it consists of and as the field has them."""
    caplog.set_level(logging.DEBUG)
    given: list[np.ndarray] = []

    def watch(world: Any) -> None:
        for number in range(2):
            trainer = world.member(number).trainer
            rng, train = np.random.default_rng(number), trainer.train

            def telling(*arguments: Any, train: Any = train, rng: Any = rng) -> Any:
                trained = train(*arguments)
                parts = tuple(rng.integers(-6, 7, part.shape, dtype=np.int32) for part in trained.contributions)
                given.extend(parts)
                return replace(
                    trained,
                    released=trained.released + np.array([part.sum(axis=0, dtype=np.int32) for part in parts]),
                    contributions=parts,
                )

            trainer.train = telling

    world = proving_world(prepare=watch)
    state = world.until_ended(1)
    assert state.accepted == (0, 1)
    public = b"".join(data for daemon in world.daemons for data in daemon.store.blocks.values()) + caplog.text.encode()
    secrets = [
        row[0] for n in range(2) for row in world.member(n).parts.memory._database.read("SELECT seed FROM seeds", ())
    ]
    assert len(secrets) == 2, "one for the words of each; the random cells of the data follow from it"
    for seed in secrets:
        assert seed not in public
        assert seed.hex().encode() not in public
    rows = [row for part in given for row in part]
    assert len(rows) > 10
    for row in rows:
        for form in (row.astype("<i4"), np.mod(row.astype(np.int64), 2**31 - 2**24 + 1).astype("<u4")):
            assert form.tobytes()[:64] not in public
        assert str(row.tolist())[1:60].encode() not in public
    for number in range(2):
        for tokens in world.member(number).trainer.texts(world.config).tokens:
            assert tokens.astype("<u4").tobytes()[:32] not in public


# ---- the prover


def test_a_prover_that_cannot_be_loaded_is_told_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "proofs.prover", None)
    with pytest.raises(LocalFault, match="remedy"):
        load_prover()


# ---- judges


@pytest.fixture
def to_judge(proving_world: MakeWorld) -> Recount:
    """A round whose two submissions wait for their verdicts, one of them forged."""
    world = proving_world(prepare=lambda world: setattr(world.member(1), "conduct", Forger()))
    state = world.until_phase(Phase.VERIFY)
    aggregator = world.aggregator()
    return Recount(aggregator.actor._configs, aggregator.service.store, world.history, state)


def test_processes_give_the_verdicts_that_one_process_gives(to_judge: Recount) -> None:
    alone, together = Judges(1), Judges(2, worth=1)
    expected = list(alone.verdicts(to_judge, [0, 1]))
    assert [verdict.reason for _, verdict in expected] == [Reason.ACCEPTED, Reason.PROOF_INVALID]
    try:
        assert list(together.verdicts(to_judge, [0, 1])) == expected
    finally:
        together.close()


def test_a_process_that_died_accuses_nobody_and_is_replaced(to_judge: Recount) -> None:
    class Broken:
        def submit(self, *_: Any) -> Any:
            raise BrokenProcessPool

    judges = Judges(2, worth=1)
    judges._pool = Broken()  # type: ignore[assignment]
    with pytest.raises(JudgeDied):
        list(judges.verdicts(to_judge, [0, 1]))
    assert judges._pool is None


def test_a_few_proofs_are_not_worth_a_process(to_judge: Recount) -> None:
    judges = Judges(2)
    found: list[tuple[int, Verdict]] = list(judges.verdicts(to_judge, [0, 1]))
    assert len(found) == 2
    assert judges._pool is None


def test_judging_processes_end_with_a_killed_aggregator(tmp_path: Path) -> None:
    program = tmp_path / "aggregator.py"
    program.write_text(
        "import os, time\n"
        "from node.judging import Judges\n"
        "if __name__ == '__main__':\n"
        "    pool = Judges(1)._processes()\n"
        "    print(pool.submit(os.getpid).result(), flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(100):
        if not Path(f"/proc/{child}").exists():
            return
        time.sleep(0.1)
    raise AssertionError("a judging process outlived its aggregator")


def test_proving_lets_other_threads_run(small_case: Any) -> None:
    """A kernel that kept Python's lock would silence a daemon's HTTP server for as long as it ran."""
    small_case.prove()
    ticks, done = [time.monotonic()], threading.Event()

    def tick() -> None:
        while not done.wait(0.001):
            ticks.append(time.monotonic())

    thread = threading.Thread(target=tick)
    thread.start()
    small_case.prove()
    done.set()
    thread.join()
    assert len(ticks) > 5
