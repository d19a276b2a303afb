"""candor-aggregator: the service that judges, averages and proposes; with [coordinator] it opens rounds too.

    candor-aggregator init    --config FILE    write commented settings and a keystore
    candor-aggregator run     --config FILE    serve until stopped
    candor-aggregator status  --config FILE    what it has done, from its state folder and the chain

Exit codes: 0 fine   2 wrong usage or this machine's fault   3 the chain did not answer
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import typer

from node import logs
from node.aggregator import run as run_daemon
from node.cli import AsJson, Config, faults
from node.init import create_aggregator
from node.printing import print_status, show
from node.service import until_asked
from node.settings import load_aggregator
from node.status import aggregator_status

app = typer.Typer(
    help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)


@app.command()
def init(
    config: Annotated[Path, typer.Option("--config", help="Where to write the TOML file.")],
    rpc: Annotated[str, typer.Option(help="JSON-RPC URL of an Ethereum node.")] = "http://127.0.0.1:8545",
    rounds: Annotated[str, typer.Option(help="Address of the Rounds contract.")] = "0x" + "00" * 20,
    as_json: AsJson = False,
) -> None:
    """Write commented settings and a new key (its password beside it, 0600). Nothing that exists is overwritten."""
    with faults():
        show(create_aggregator(config, rpc, rounds), as_json)


@app.command()
def run(config: Config) -> None:
    """Judge, average, propose and advance until SIGTERM."""
    logs.to_stderr()
    stop = threading.Event()
    until_asked(stop)
    with faults():
        run_daemon(load_aggregator(config), stop=stop)


@app.command()
def status(config: Config, as_json: AsJson = False) -> None:
    """What this aggregator has done so far. Reads only."""
    with faults():
        print_status(aggregator_status(load_aggregator(config)), as_json)


if __name__ == "__main__":
    app()
