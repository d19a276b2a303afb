"""candor-node: a member's daemon.

    candor-node init    --config FILE    write commented settings, a keystore and an empty privacy ledger
    candor-node doctor  --config FILE    check everything before money or privacy is spent
    candor-node run     --config FILE    take part in rounds until stopped
    candor-node status  --config FILE    what this member has done, from its state folder and the chain
    candor-node verifier --config FILE   the key with which it verifies, and what its owner sends to register it

Exit codes: 0 fine   1 a check of `doctor` failed   2 wrong usage or this machine's fault   3 the chain did not answer
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from node import logs
from node.daemon import run as run_daemon
from node.doctor import diagnose
from node.init import create_node
from node.printing import print_doctor, print_status, show
from node.service import until_asked
from node.settings import load_node
from node.status import node_registration, node_status
from proofs.errors import CandorError, PeerFault, WireFault

FAILED, USAGE, UNREADABLE = 1, 2, 3

app = typer.Typer(
    help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)
Config = Annotated[Path, typer.Option("--config", help="The daemon's TOML file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.command()
def init(
    config: Annotated[Path, typer.Option("--config", help="Where to write the TOML file.")],
    rpc: Annotated[str, typer.Option(help="JSON-RPC URL of an Ethereum node.")] = "http://127.0.0.1:8545",
    rounds: Annotated[str, typer.Option(help="Address of the Rounds contract.")] = "0x" + "00" * 20,
    as_json: AsJson = False,
) -> None:
    """Write commented settings, a new key (its password beside it, 0600) and an empty privacy ledger.

    Nothing that exists is overwritten. Run it once, before the data is ever used.
    """
    with faults():
        show(create_node(config, rpc, rounds), as_json)


@app.command()
def run(config: Config) -> None:
    """Take part in rounds until SIGTERM."""
    logs.to_stderr()
    stop = threading.Event()
    until_asked(stop)
    with faults():
        run_daemon(load_node(config), stop=stop)


@app.command()
def status(config: Config, as_json: AsJson = False) -> None:
    """What this member has done so far. Reads only."""
    with faults():
        print_status(node_status(load_node(config)), as_json)


@app.command()
def verifier(config: Config, as_json: AsJson = False) -> None:
    """The public verifier key, its proof of possession, and the call with which the owner registers or replaces it.

    `run` registers a first key by itself; every later one is the owner's to register. Reads only.
    """
    with faults():
        show(node_registration(load_node(config)), as_json)


@app.command()
def doctor(
    config: Config,
    round_config: Annotated[
        Path | None, typer.Option("--round-config", help="A round's config (canonical JSON) to forecast.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check settings, key, chain, membership, content, model, data, gradients; forecast ε and bytes. Spends nothing."""
    with faults():
        checks = diagnose(load_node(config), round_config)
        print_doctor(checks, as_json)
        if not all(check.ok for check in checks):
            raise typer.Exit(FAILED)


@contextmanager
def faults() -> Iterator[None]:
    """Candor's own errors become one line and an exit code."""
    try:
        yield
    except CandorError as error:
        typer.echo(f"error: {error}", err=True)
        code = UNREADABLE if isinstance(error, WireFault) else FAILED if isinstance(error, PeerFault) else USAGE
        raise typer.Exit(code) from None


if __name__ == "__main__":
    app()
