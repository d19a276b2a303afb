"""kill -9 of real daemons at every persistence point: nothing is lost, nothing is sent twice, the round goes on.

One federation of two rounds. Every daemon is started with CANDOR_CRASH_AT set to its next point; whenever it has died
there, it is started again with the one after. In the first round the aggregator lies, so that objections are written
too, and a verifier, so that it dissents; in the second the chain itself is killed and comes back from its saved state.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from devnet.anvil import Anvil, AnvilOptions
from devnet.federation import CHAIN_ID, Plan, Site, door
from devnet.presets import TINY
from devnet.scenarios import Running, audit, running
from ledger.crash import Point
from ledger.records import Phase, Policy, Submitted, VoidReason
from ledger.round_state import RoundState
from node.privacy_ledger import PrivacyLedger
from node.service import PRIVACY

pytestmark = [pytest.mark.anvil, pytest.mark.timeout(900)]

SMALL = replace(TINY, steps=2, rows=64, capacity=64, mean_batch=16, held_out=30, gradient=None)
POLICY = Policy(
    commit_blocks=300, train_blocks=300, prove_blocks=0, verify_blocks=120, propose_blocks=120, challenge_blocks=30,
    quorum=2, proof_required=False, verifier_quorum=2,
)  # fmt: skip
LIES, LAST = 1, 2
# in the order in which each daemon comes to them; together every Point, for node and for aggregator
NODE_POINTS = {
    "node-0": (
        Point.ADVANCE_INTENT, Point.NODE_BUDGET, Point.NODE_SIGNED, Point.OUTBOX_SIGNED, Point.OUTBOX_SETTLED,
        Point.NODE_OBJECT_INTENT, Point.NODE_WORDS_SEED,
    ),
    "node-1": (
        Point.NODE_COMMIT_INTENT, Point.OUTBOX_BROADCAST, Point.FOLLOWER_APPLIED, Point.NODE_BUNDLE,
        Point.NODE_SUBMIT_INTENT, Point.NODE_VERDICTS, Point.NODE_OBJECT_INTENT,
    ),
    "node-2": (Point.NODE_DISSENT_INTENT,),
}  # fmt: skip
AGGREGATOR_POINTS = {
    "aggregator-0": (
        Point.AGGREGATOR_OPEN_INTENT, Point.ADVANCE_INTENT, Point.OUTBOX_SIGNED, Point.OUTBOX_BROADCAST,
        Point.AGGREGATOR_VERDICTS, Point.AGGREGATOR_AGGREGATE, Point.OUTBOX_SETTLED, Point.FOLLOWER_APPLIED,
        Point.AGGREGATOR_VERDICTS_INTENT, Point.AGGREGATOR_PROPOSE_INTENT,
    ),
}  # fmt: skip
POINTS = NODE_POINTS | AGGREGATOR_POINTS
TIMEOUT_S = 700


@dataclass
class Plugs:
    """Pulls every plug in turn. `pulled`: who died where, in order."""

    run: Running
    left: dict[str, list[Point]]
    pulled: list[tuple[str, Point]] = field(default_factory=list)

    def tick(self) -> None:
        """Start again whoever has died at its point. The aggregator stays down until node-0 has advanced for it."""
        for name, points in self.left.items():
            if not points or self.run.supervisor[name].exit_status != -signal.SIGKILL:
                continue
            turn_of_others = ("node-0", Point.ADVANCE_INTENT) not in self.pulled
            if name == "aggregator-0" and points[0] is Point.ADVANCE_INTENT and turn_of_others:
                continue
            self.pulled.append((name, points.pop(0)))
            environment = {"CANDOR_CRASH_AT": points[0].value} if points else {}
            self.run.federation.start_one(self.run.supervisor, self.site(name), environment)

    def site(self, name: str) -> Site:
        return next(site for site in self.run.federation.sites if site.name == name)

    def check(self) -> None:
        """Nobody died of anything else."""
        for child in self.run.supervisor.children:
            waiting = bool(self.left.get(child.name)) and child.exit_status == -signal.SIGKILL
            assert child.exit_status is None or waiting, f"{child.name}: {child.log_tail()}"


@dataclass(frozen=True)
class Aftermath:
    run: Running
    plugs: Plugs
    states: dict[int, RoundState]
    report: dict[str, object]
    twin_status: int
    twin_log: str
    chain_came_back: bool


@pytest.fixture(scope="module")
def aftermath(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aftermath]:
    folder = tmp_path_factory.mktemp("crashes")
    plan = Plan(
        SMALL, folder, POLICY, nodes=3, rounds=1, spare_rounds=1,
        misbehave={"aggregator-0": (f"tampered-aggregate@{LIES}",), "node-2": (f"false-verdict@{LIES}",)},
    )  # fmt: skip
    environment = {name: {"CANDOR_CRASH_AT": points[0].value} for name, points in POINTS.items()}
    with ExitStack() as stack, running(plan, environment=environment) as run:
        plugs = Plugs(run, {name: list(points) for name, points in POINTS.items()})
        second_anvil: Anvil | None = None
        twin_status, twin_log = 0, ""
        ends = time.monotonic() + TIMEOUT_S
        while not run.over and time.monotonic() < ends:
            run.watch.poll()
            plugs.tick()
            plugs.check()
            if second_anvil is None and phase_of(run, LAST) is Phase.PROPOSED:
                twin_status, twin_log = duplicate(plugs.site("node-2"), folder)
                second_anvil = stack.enter_context(chain_down_and_back(run))
            time.sleep(0.2)
        run.supervisor.stop_all()
        report = json.loads(audit(run.federation, as_json=True).stdout)
        came_back = second_anvil is not None
        yield Aftermath(run, plugs, dict(run.watch.rounds), report, twin_status, twin_log, came_back)


def phase_of(run: Running, number: int) -> Phase:
    state = run.watch.rounds.get(number)
    return state.phase if state else Phase.NONE


def chain_down_and_back(run: Running) -> Anvil:
    """Save, kill, wait, and start another anvil on the same port from what was saved."""
    anvil = run.federation.anvil
    anvil.save()
    anvil.kill()
    time.sleep(2)
    options = AnvilOptions(block_time_s=run.federation.plan.block_time_s, port=anvil.port, chain_id=CHAIN_ID)
    return Anvil(options, state_file=run.federation.plan.directory / "chain.json")


def duplicate(site: Site, folder: Path) -> tuple[int, str]:
    """A second daemon with the same key and state, on another port: its exit status and what it said."""
    settings = folder / site.name / "duplicate.toml"
    settings.write_text(site.settings.read_text().replace(f"127.0.0.1:{site.port}", "127.0.0.1:0"))
    command = [str(door("candor-node")), "run", "--config", str(settings)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return ended.returncode, ended.stderr


def test_the_schedule_names_every_point() -> None:
    """For nodes and for the aggregator; a new persistence point fails here until it is in the schedule."""
    nodes = {point for points in NODE_POINTS.values() for point in points}
    nodes.add(Point.NODE_VERIFIER_INTENT)  # keys are registered at the founding; tests/node/test_verdicts.py walks it
    nodes |= {Point.NODE_SHOWN, Point.NODE_PROVE_INTENT}  # no round of this schedule proves; tests/node/test_showing.py
    aggregators = {point for points in AGGREGATOR_POINTS.values() for point in points}
    assert nodes == {point for point in Point if not point.name.startswith(("AGGREGATOR_", "LOG_", "SERVE_"))}
    assert aggregators == {point for point in Point if not point.name.startswith(("NODE_", "LOG_", "SERVE_"))}


def test_every_plug_was_pulled(aftermath: Aftermath) -> None:
    assert Counter(aftermath.plugs.pulled) == Counter(
        (name, point) for name, points in POINTS.items() for point in points
    )


def test_the_honest_round_is_final_with_everybody_in_it(aftermath: Aftermath) -> None:
    assert aftermath.states[LAST].phase is Phase.FINAL
    assert aftermath.states[LAST].accepted == (0, 1, 2)


def test_the_lying_round_is_void_by_the_members_objections(aftermath: Aftermath) -> None:
    voided = aftermath.states[LIES].voided
    assert voided is not None
    assert voided.reason is VoidReason.DISPUTED
    assert aftermath.states[LIES].accepted == (0, 1, 2)


def test_the_false_witness_dissented_once(aftermath: Aftermath) -> None:
    assert list(aftermath.states[LIES].dissents) == [2]
    assert list(aftermath.states[LAST].dissents) == []


def test_nothing_was_sent_twice(aftermath: Aftermath) -> None:
    """One submission of each member in each round, nobody equivocated, and the contract refused nothing."""
    for state in aftermath.states.values():
        submitted = Counter(logged.event.member for logged in state.log if isinstance(logged.event, Submitted))
        assert submitted == {0: 1, 1: 1, 2: 1}
        assert state.equivocations == {}


@pytest.mark.parametrize("name", ["node-0", "node-1", "node-2"])
def test_privacy_was_booked_once_a_round(name: str, aftermath: Aftermath) -> None:
    """Training that was interrupted and done again is the same release: it is paid for once."""
    folder = aftermath.run.federation.plan.directory / name / "state" / PRIVACY
    assert [entry.key.split("/")[2] for entry in PrivacyLedger(folder).entries()] == ["1", "2"]


def test_the_chain_went_down_and_came_back(aftermath: Aftermath) -> None:
    assert aftermath.chain_came_back


def test_a_second_daemon_on_the_same_key_is_refused(aftermath: Aftermath) -> None:
    assert aftermath.twin_status == 2
    assert "is in use by process" in aftermath.twin_log


def test_the_audit_finds_nothing_but_the_lie(aftermath: Aftermath) -> None:
    failed = {
        (report["round"], link["link"])
        for report in aftermath.report["rounds"]  # type: ignore[attr-defined]
        for link in report["links"]
        if link["status"] == "FAIL"
    }
    assert failed == {(LIES, "aggregate")}
