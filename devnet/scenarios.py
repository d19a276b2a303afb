"""A whole federation from nothing to its audit: what `candor-devnet run` does, for people and for tests.

found → start the daemons → follow until the coordinator opens no more rounds → `candor-audit verify --all` as a
process of its own, which gets the chain's address, the contract and the content, and nothing else → what is FINAL is
served, and the answers are audited (devnet.serving).
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from devnet import mixing
from devnet.evaluate import MEASURES, Evaluator, Measure
from devnet.federation import VOIDS, Federation, Plan, door, found, start_anvil
from devnet.processes import Supervisor
from devnet.progress import GENESIS, Watch, epsilon_text, reason_text
from devnet.serving import Served, serve_and_audit
from ledger.round_state import RoundState
from node.aggregator_table import opening_situation
from node.model import resolve
from node.round_table import Situation
from proofs.errors import LocalFault

POLL_S: Final = 0.3
AUDIT_TIMEOUT_S: Final = 1800
AUDIT_FAILED: Final = 1


class Stuck(LocalFault):
    """The federation did not come to its end in the time that its deadlines allow."""


@dataclass(frozen=True)
class Outcome:
    """What came of a federation. audit_status: exit code of candor-audit; audit_text: what it printed."""

    plan: Plan
    rounds: Mapping[int, RoundState]
    scores: Mapping[int, float]
    gas: Mapping[int, int]
    gas_by_action: Mapping[str, Sequence[int]]
    sizes: Mapping[bytes, int | None]
    seconds: Mapping[str, float]
    audit_status: int
    audit_text: str
    served: Served | None = None

    @property
    def exit_status(self) -> int:
        """Of the audit; where that passed, of the audits of answers."""
        return self.audit_status or (AUDIT_FAILED if self.served and self.served.failed else 0)

    @property
    def measure(self) -> Measure:
        return MEASURES[self.plan.preset.task]

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": "candor/devnet-run/1",
            "preset": self.plan.preset.name,
            "nodes": self.plan.nodes,
            "epsilon": self.plan.epsilon,
            self.measure.key: {"before": self.scores.get(GENESIS)}
            | {f"round {n}": score for n, score in sorted(self.scores.items()) if n != GENESIS},
            "rounds": [_round_json(self, state) for state in self.rounds.values()],
            "gas_by_action": {name: list(used) for name, used in self.gas_by_action.items()},
            "seconds": {name: round(value, 1) for name, value in self.seconds.items()},
            "audit": {"exit": self.audit_status, "report": _report(self.audit_text)},
            "served": self.served.to_json() if self.served else None,
        }


def _round_json(outcome: Outcome, state: RoundState) -> dict[str, Any]:
    return {
        "round": state.number,
        "outcome": state.phase.name if state.voided is None else f"VOID: {state.voided.reason.name}",
        "members": {f"node-{member}": reason_text(code) for member, code in state.reasons.items()},
        "spent": {f"node-{m}": epsilon_text(sent.spent_micro) for m, sent in sorted(state.submissions.items())},
        "bytes": {f"node-{m}": outcome.sizes.get(sent.bundle) for m, sent in sorted(state.submissions.items())},
        "gas": outcome.gas.get(state.number, 0),
    }


def _report(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


@dataclass
class Running:
    """A federation whose daemons run: for tests that interfere."""

    federation: Federation
    supervisor: Supervisor
    watch: Watch

    @property
    def over(self) -> bool:
        """The coordinator opens no more rounds, and the last one has ended."""
        history, plan = self.watch.follower.history, self.federation.plan
        if not history.rounds or not history.rounds[history.latest].ended:
            return False
        return opening_situation(history, rounds=plan.rounds, voids=VOIDS) is not Situation.READY

    def mix(self) -> list[str]:
        """Let the rounds of a mixture begin where its parents are there. Returns what there is to tell."""
        if not mixing.is_due(self.federation, self.watch.follower.history):
            return []
        self.federation = self.watch.federation = mixing.mix(
            self.federation, self.watch.follower.history, self.supervisor
        )
        return [f"{self.watch.elapsed_s:6.1f} s  the coordinator goes on with a mixture of what is FINAL so far"]


@contextmanager
def running(plan: Plan, *, environment: Mapping[str, Mapping[str, str]] | None = None) -> Iterator[Running]:
    """Found a federation, start its daemons, and end everything on leaving. The chain's state is saved on the way."""
    with ExitStack() as stack:
        supervisor = stack.enter_context(Supervisor())
        anvil = start_anvil(plan)
        supervisor.adopt(anvil.pid)
        stack.callback(supervisor.release, anvil.pid)
        stack.enter_context(anvil)
        federation = found(plan, anvil)
        gateways = [site.url for site in federation.sites]
        held_out = plan.directory / "held-out.jsonl"
        evaluator = Evaluator(federation.config, plan.preset.base_path, held_out, gateways)
        stack.enter_context(evaluator)
        federation.start(supervisor, environment=environment)
        watch = Watch(federation, evaluator)
        stack.callback(watch.close)
        yield Running(federation, supervisor, watch)
        supervisor.stop_all()
        anvil.save()


def follow(run: Running, tell: Callable[[list[str], Watch], None], *, timeout_s: float) -> None:
    """Poll until it is over. Raises ProcessDied or Stuck."""
    ends = time.monotonic() + timeout_s
    while not run.over:
        tell(run.watch.poll() + run.mix(), run.watch)
        run.supervisor.check()
        if time.monotonic() > ends:
            last = [
                f"{child.name}: {child.log_tail().rstrip().rpartition(chr(10))[2]}" for child in run.supervisor.children
            ]
            raise Stuck(f"no end after {timeout_s:.0f} s, at block {run.watch.head}\n" + "\n".join(last))
        time.sleep(POLL_S)
    tell(run.watch.settle(), run.watch)


def audit(federation: Federation, *, as_json: bool = False) -> subprocess.CompletedProcess[str]:
    """`candor-audit verify --all` on the chain and all stores."""
    command = [door("candor-audit"), "verify", "--all", *federation.audit_arguments()]
    if federation.config.gradient is not None:
        command += ["--base", resolve(federation.plan.preset.base_path)]
    command += ["--json"] if as_json else []
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=AUDIT_TIMEOUT_S, check=False
    )


def run(
    plan: Plan,
    tell: Callable[[list[str], Watch], None],
    *,
    timeout_s: float,
    as_json: bool = False,
    serve: bool = False,
) -> Outcome:
    """The whole story; `serve`: with its end. Whatever happens, no process outlives it."""
    began = time.monotonic()
    with running(plan) as federation_running:
        watch = federation_running.watch
        founded = time.monotonic()
        follow(federation_running, tell, timeout_s=timeout_s)
        ended = time.monotonic()
        report = audit(federation_running.federation, as_json=as_json)
        audited = time.monotonic()
        served = _served(federation_running, tell) if serve else None
    seconds = {"founding": founded - began, "rounds": ended - founded, "audit": audited - ended}
    if served:
        seconds["answers"] = time.monotonic() - audited
    return Outcome(
        plan,
        watch.rounds,
        watch.scores,
        dict(watch.gas.by_round),
        watch.gas.by_action,
        dict(watch.sizes),
        seconds | {"all": time.monotonic() - began},
        report.returncode,
        report.stdout + report.stderr,
        served,
    )


def _served(run: Running, tell: Callable[[list[str], Watch], None]) -> Served | None:
    """None where no round led to anything."""
    watch = run.watch
    if all(state.finalised is None for state in watch.rounds.values()):
        return None

    def told(line: str) -> None:
        tell([f"{watch.elapsed_s:6.1f} s  {line}"], watch)

    return serve_and_audit(run.federation, run.supervisor, told)


def fresh_folder(path: Path) -> Path:
    """Created, or empty. Raises LocalFault: nobody's files are mixed with a federation's."""
    path.mkdir(parents=True, exist_ok=True)
    if any(path.iterdir()):
        raise LocalFault(f"{path} is not empty: name another folder with --dir, or remove it")
    return path
