"""candor-serve: a model that answers, each answer with a receipt that can be audited.

    candor-serve init    --config FILE    write commented settings and a keystore
    candor-serve key     --config FILE NAME    make an API key; it is printed once
    candor-serve run     --config FILE    answer until stopped
    candor-serve status  --config FILE    what is written, anchored and published
    candor-serve ask     --url URL --out FOLDER TEXT    ask, and keep request, response and receipt

Exit codes: 0 fine   1 the server refused to answer   2 wrong usage or this machine's fault   3 somebody did not answer
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Annotated

import typer

from node import logs
from node.cli import AsJson, Config, faults
from node.init import create_serve
from node.printing import print_status, show
from node.service import until_asked
from node.serving.settings import load_serve
from proofs.errors import LocalFault

KEY_VARIABLE = "CANDOR_API_KEY"

app = typer.Typer(
    help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)


@app.command()
def init(
    config: Annotated[Path, typer.Option("--config", help="Where to write the TOML file.")],
    rpc: Annotated[str, typer.Option(help="JSON-RPC URL of an Ethereum node.")] = "http://127.0.0.1:8545",
    rounds: Annotated[str, typer.Option(help="Address of the Rounds contract.")] = "0x" + "00" * 20,
    log: Annotated[str, typer.Option(help="Address of the AuditLog contract.")] = "0x" + "00" * 20,
    as_json: AsJson = False,
) -> None:
    """Write commented settings and a new key (its password beside it, 0600). Nothing that exists is overwritten."""
    with faults():
        show(create_serve(config, rpc, rounds, log), as_json)


@app.command()
def key(config: Config, name: Annotated[str, typer.Argument(help="Whose key it is.")], as_json: AsJson = False) -> None:
    """Make an API key. Its digest goes into the file `limits.keys`; the key is printed here and nowhere kept.

    A running server reads the file at its next start.
    """
    from node.serving.keys import add_key

    with faults():
        path = load_serve(config).limits.keys
        if path is None:
            raise LocalFault(f"{config}: limits.keys is not set: say where the digests of keys are kept")
        show({"name": name, "key": add_key(path, name)}, as_json)


@app.command()
def run(config: Config) -> None:
    """Answer until SIGTERM; what was accepted is answered first."""
    from node.serving.daemon import run as run_daemon

    logs.to_stderr()
    stop = threading.Event()
    until_asked(stop)
    with faults():
        run_daemon(load_serve(config), stop=stop)


@app.command()
def status(config: Config, as_json: AsJson = False) -> None:
    """What is written, anchored and published, and how late. Reads only."""
    from node.serving.status import serve_status

    with faults():
        print_status(serve_status(load_serve(config)), as_json)


@app.command()
def ask(
    text: Annotated[str, typer.Argument(help="The prompt, or the text to classify.")],
    url: Annotated[str, typer.Option(help="Where the server listens.")] = "http://127.0.0.1:8000",
    out: Annotated[Path | None, typer.Option(help="A folder for request, response and receipt.json.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Of the answer.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 takes the likeliest token.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed draws the same tokens.")] = None,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(help="A parent of a mixture that is not to count, by its bundle; may be repeated."),
    ] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Let the answer come in pieces.")] = False,
) -> None:
    """Ask, print the response, and keep what an audit needs. A key comes from the variable CANDOR_API_KEY."""
    from node.serving.ask import ask as ask_server

    with faults():
        given = os.environ.get(KEY_VARIABLE)
        kept = ask_server(
            url.rstrip("/"),
            text,
            key=given,
            stream=stream,
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
            leave_out=leave_out or None,
        )
        if out is not None:
            kept.write(out)
        typer.echo(kept.response.decode(errors="replace"))


if __name__ == "__main__":
    app()
