"""candor-devnet: a whole federation on this machine, from nothing to its audit.

    candor-devnet run      anvil, contracts, nodes, an aggregator, some rounds of private training, candor-audit
    candor-devnet chain    the chain of a federation that was kept, up again for candor-audit
    candor-devnet kinds    the ways in which a daemon can be told to misbehave, and what catches each

Exit codes: 0  the audit passed, that of the answers too
            1  an audit found something that FAILs, or the federation did not come to its end
            2  wrong usage, or this machine's fault
            3  the audit could not read something
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import requests
import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from devnet.anvil import Anvil, AnvilOptions
from devnet.federation import Plan, PlanInvalid, kept_facts
from devnet.kinds import KINDS, kind_named
from devnet.presets import RULES, Preset, preset_named, with_method, with_rule
from devnet.processes import Supervisor
from devnet.progress import GENESIS, Watch, paces
from devnet.scenarios import Outcome, fresh_folder, run
from devnet.screen import picture
from ledger.adapter import METHODS, MIXED, MIXTURES
from ledger.records import Policy
from proofs.errors import CandorError, LocalFault

USAGE: Final = 2
KEPT: Final = Path("candor-demo")
TRAIN_BLOCKS: Final = {"tiny": 90, "tiny-text": 180, "minilm": 600}
PROVE_BLOCKS: Final = {"tiny": 300, "minilm": 900}  # members on one machine prove one after the other
VERIFY_BLOCKS: Final = {"tiny": 180, "minilm": 600}
STARTUP_S: Final = 300

app = typer.Typer(
    help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)


@app.command(name="run")
def run_command(
    preset: Annotated[str, typer.Option(help="minilm, tiny or tiny-text.")] = "minilm",
    nodes: Annotated[int, typer.Option(min=1, max=64, help="Members.")] = 3,
    aggregators: Annotated[int, typer.Option(min=1, max=8, help="Aggregators; the first opens the rounds.")] = 1,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds that must become final.")] = None,
    epsilon: Annotated[float | None, typer.Option(min=0.0, help="ε of all rounds together.")] = None,
    method: Annotated[str | None, typer.Option(help=f"How members adapt: {', '.join((*METHODS, *MIXTURES))}.")] = None,
    parents: Annotated[
        str | None, typer.Option(help=f"How a mixture's parents do, lora unless said: {', '.join(MIXED)}.")
    ] = None,
    rule: Annotated[str | None, typer.Option(help=f"How adapters become one: {', '.join(RULES)}.")] = None,
    rank: Annotated[
        list[str] | None, typer.Option(metavar="NODE=RANK", help="A node's own rank, under svd and stack.")
    ] = None,
    misbehave: Annotated[
        list[str] | None,
        typer.Option(metavar="NODE=KIND[@ROUND]", help="Let a daemon misbehave; see `candor-devnet kinds`."),
    ] = None,
    directory: Annotated[Path | None, typer.Option("--dir", help="Folder for everything; a temporary one.")] = None,
    insecure_no_noise: Annotated[bool, typer.Option(help="Switch the noise off, for comparison: no privacy.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON value on standard output, at the end.")] = False,
    serve: Annotated[bool, typer.Option(help="At the end, serve what is FINAL, and audit its answers.")] = True,
    keep: Annotated[bool, typer.Option(help=f"Keep the folder ({KEPT}/ unless --dir names one).")] = False,
) -> None:
    """Run a federation, audit it, and remove it."""
    with _told(), _folder(directory, keep) as folder:
        chosen = preset_named(preset)
        if rule is not None or rank:
            chosen = with_rule(chosen, rule or chosen.rule, parse_ranks(rank or [], nodes))
        if method is not None or parents is not None:
            chosen = with_method(chosen, method or chosen.method, parents)
        plan = Plan(
            preset=chosen,
            directory=folder,
            policy=policy_for(chosen, nodes, noise=not insecure_no_noise),
            nodes=nodes,
            aggregators=aggregators,
            rounds=rounds or chosen.rounds,
            epsilon=None if insecure_no_noise else chosen.epsilon if epsilon is None else epsilon,
            misbehave=parse_misbehave(misbehave or []),
        )
        plan.check()
        with _teller(as_json) as tell:
            outcome = run(plan, tell, timeout_s=_longest_s(plan), as_json=as_json, serve=serve)
        if as_json:
            print(json.dumps(outcome.to_json()))
        else:
            _print_outcome(outcome, folder if keep else None)
        raise typer.Exit(outcome.exit_status)


@app.command(name="chain")
def chain_command(
    directory: Annotated[Path, typer.Argument(help="The folder that `run --keep` or `run --dir` left.")] = KEPT,
) -> None:
    """Start anvil from the saved state, where it was before, and say how to audit. Until Ctrl-C."""
    with _told(), Supervisor() as supervisor:
        facts = kept_facts(directory)
        options = AnvilOptions(port=facts.port, chain_id=facts.chain_id)
        with Anvil(options, state_file=directory / "chain.json") as anvil:
            supervisor.adopt(anvil.pid)
            places = " ".join(f"--content {directory / place}" for place in facts.content)
            print(f"candor-audit verify --all --rpc {anvil.rpc_url} --rounds {facts.rounds} {places}", flush=True)
            signal.pause()


@app.command(name="kinds")
def kinds_command(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON value on standard output.")] = False,
) -> None:
    """Every kind of misbehaviour, and what catches it."""
    if as_json:
        print(json.dumps([kind.to_json() for kind in KINDS.values()]))
        return
    table = Table("kind", "who", "what it does", "what comes of it", box=None, padding=(0, 2))
    for kind in KINDS.values():
        table.add_row(kind.name, kind.role, kind.does, kind.caught)
    Console().print(table)


def policy_for(preset: Preset, nodes: int, *, noise: bool = True) -> Policy:
    """Blocks of a second each. Phases close early when all have acted: the lengths are for those who do not act.

    There is a Prove phase where the preset asks for proofs of gradients; without noise nothing is proven.
    """
    proves = preset.gradient is not None and noise
    return Policy(
        commit_blocks=180,
        train_blocks=TRAIN_BLOCKS.get(preset.name, 600),
        prove_blocks=PROVE_BLOCKS.get(preset.name, 900) if proves else 0,
        verify_blocks=VERIFY_BLOCKS.get(preset.name, 600) if proves else 30,
        propose_blocks=60,
        challenge_blocks=6,
        quorum=max(min(2, nodes), preset.robust.least if preset.robust else 1),
        proof_required=proves,
        verifier_quorum=-(-2 * nodes // 3),
    )


def parse_misbehave(options: list[str]) -> dict[str, tuple[str, ...]]:
    """ "1=nan", "node-1=nan@2", "aggregator=sleeps". Raises PlanInvalid."""
    chosen: defaultdict[str, tuple[str, ...]] = defaultdict(tuple)
    for option in options:
        who, equals, what = option.partition("=")
        if not equals:
            raise PlanInvalid(f"--misbehave {option}: expected NODE=KIND or NODE=KIND@ROUND")
        name = f"node-{who}" if who.isdecimal() else "aggregator-0" if who == "aggregator" else who
        kind, _ = kind_named(what)
        if not name.startswith(kind.role):
            raise PlanInvalid(f"--misbehave {option}: {kind.name} is a misbehaviour of a {kind.role}")
        chosen[name] += (what,)
    return dict(chosen)


def parse_ranks(options: list[str], nodes: int) -> dict[int, int]:
    """ "1=2", "node-1=2". Raises PlanInvalid."""
    chosen = {}
    for option in options:
        who, _, rank = option.partition("=")
        node = who.removeprefix("node-")
        if not (node.isdecimal() and rank.isdecimal() and int(node) < nodes):
            raise PlanInvalid(f"--rank {option}: expected NODE=RANK, with one of {nodes} nodes")
        chosen[int(node)] = int(rank)
    return chosen


def _longest_s(plan: Plan) -> float:
    """An upper bound: every phase of every round at its full length, twice."""
    policy = plan.policy
    blocks = policy.commit_blocks + policy.train_blocks + policy.verify_blocks + policy.propose_blocks
    blocks += policy.prove_blocks
    return STARTUP_S + 2 * (plan.rounds + 2) * (blocks + policy.challenge_blocks + 8) * plan.block_time_s


@contextmanager
def _told() -> Iterator[None]:
    """Candor's own errors become one line and an exit code; libraries' logging is not for this screen."""
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        yield
    except CandorError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        raise typer.Exit(USAGE if isinstance(error, LocalFault) else 1) from error


@contextmanager
def _folder(directory: Path | None, keep: bool) -> Iterator[Path]:
    if keep or directory is not None:
        chosen = (directory or KEPT).resolve()
        yield fresh_folder(chosen)
        return
    with tempfile.TemporaryDirectory(prefix="candor-devnet-") as temporary:
        yield Path(temporary)


@contextmanager
def _teller(quiet: bool) -> Iterator[Callable[[list[str], Watch], None]]:
    """Live on a terminal, lines elsewhere; with --json the lines go to standard error."""
    console = Console(stderr=quiet)
    if not console.is_terminal:

        def tell_plainly(lines: list[str], watch: Watch) -> None:
            for line in lines:
                print(line, file=console.file, flush=True)

        yield tell_plainly
        return
    with requests.Session() as session, Live(console=console, refresh_per_second=4) as live:
        session.trust_env = False

        def tell(lines: list[str], watch: Watch) -> None:
            for line in lines:
                live.console.print(line, highlight=False)
            live.update(picture(watch, paces(watch.federation.nodes, session)))

        yield tell


def _print_outcome(outcome: Outcome, kept: Path | None) -> None:
    print(outcome.audit_text.rstrip(), end="\n\n")
    for row in outcome.to_json()["rounds"]:
        print(f"{'round ' + str(row['round']):20}{row['outcome']}: {_pairs(row['members']) or 'no verdicts'}")
        print(f"{'':20}ε spent: {_pairs(row['spent']) or 'none'}; {row['gas']:,} gas")
    spent = ", ".join(f"{name} {value:.0f} s" for name, value in outcome.seconds.items())
    facts = {
        "privacy": _privacy(outcome.plan),
        outcome.measure.name: _scores(outcome),
        "gas": f"{sum(outcome.gas.values()):,} for {len(outcome.rounds)} rounds",
        "bundles": f"{sum(size or 0 for size in outcome.sizes.values()):,} bytes",
        "time": spent,
    }
    if outcome.served is not None:
        passed = sum(status == 0 for status in outcome.served.audits.values())
        facts["answers"] = (
            f"{len(outcome.served.answers)}; {passed} of {len(outcome.served.audits)} audits of them passed"
        )
        facts["rewrite of history"] = f"refused: {outcome.served.refused}" if outcome.served.refused else "TAKEN"
    if kept is not None:
        facts["kept"] = f"{kept}: the chain in chain.json, the content in */content"
    wide = max(20, 2 + max(map(len, facts)))
    for name, value in facts.items():
        print(f"{name:{wide}}{value}")


def _privacy(plan: Plan) -> str:
    if plan.epsilon is None:
        return "NONE: the noise was off (insecure)"
    return f"each ε is of one row, over all rounds so far, at δ = {plan.preset.delta}"


def _pairs(values: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _scores(outcome: Outcome) -> str:
    told = [
        f"{outcome.measure.shown(score)} {'before' if n == GENESIS else f'after round {n}'}"
        for n, score in sorted(outcome.scores.items())
    ]
    return ", ".join(told) or "unknown"
