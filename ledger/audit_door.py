"""What all commands of candor-audit share: options, where they read from, and how an error ends."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from ledger.audit_blocks import TrustedBlock, Walk
from ledger.audit_open import Places, places_of
from ledger.audit_print import Printer
from ledger.base_gradients import BaseGradients
from ledger.report import Status
from proofs.errors import CandorError, LocalFault, PeerFault, WireFault

PASS, FAIL, USAGE, UNREADABLE = 0, 1, 2, 3
EXIT_OF: Final = {Status.PASS: PASS, Status.FAIL: FAIL, Status.NOT_PROVEN: UNREADABLE}
TOLD_EVERY: Final = 20_000  # block headers
FAULTS: Final[tuple[tuple[type[CandorError], int, str], ...]] = (
    (PeerFault, FAIL, "peer"),
    (LocalFault, USAGE, "local"),
    (WireFault, UNREADABLE, "wire"),
)

Rpc = Annotated[str, typer.Option("--rpc", help="JSON-RPC URL of an Ethereum node.")]
Rounds = Annotated[str, typer.Option("--rounds", help="Address of the contract Rounds, 0x….")]
AuditLog = Annotated[str, typer.Option("--audit-log", help="Address of the contract AuditLog, 0x….")]
Content = Annotated[list[str] | None, typer.Option("--content", help="Folder of a content store, or gateway URL.")]
FromBlock = Annotated[int, typer.Option("--from-block", min=0, help="First block worth reading (the deployment).")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="TOML with [chain] and [content]: a daemon's will do.")
]
MaxBlocks = Annotated[
    int, typer.Option("--max-blocks", min=1, help="Most block headers to walk from the first event to the head.")
]
Trusted = Annotated[
    str, typer.Option("--trusted-block", help="NUMBER:HASH of a block from a source you trust: the walk must meet it.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON value on standard output.")]
Base = Annotated[
    Path | None, typer.Option("--base", help="Folder of the base model: proofs of gradients are verified on it.")
]


class WrongUsage(LocalFault):
    """The options do not fit together."""


def places_from(
    rpc: str, rounds: str, content: list[str] | None, from_block: int, config: Path | None, audit_log: str = ""
) -> Places:
    given = Places(rpc, rounds, from_block, tuple(content or ()), audit_log)
    return given.over(places_of(config)) if config else given


def walk_from(max_blocks: int, trusted: str) -> Walk:
    """Raises WrongUsage."""
    found = re.fullmatch("([0-9]{1,20}):(?:0x)?([0-9a-fA-F]{64})", trusted)
    if trusted and found is None:
        raise WrongUsage(f"--trusted-block: expected NUMBER:HASH, 32 bytes in hex, found {trusted[:100]!r}")
    block = TrustedBlock(int(found[1]), bytes.fromhex(found[2])) if found else None
    return Walk(max_blocks, block, _tell_walk)


def _tell_walk(done: int, blocks: int) -> None:
    """Of a long walk, a line now and then, beside the report."""
    if done % TOLD_EVERY == 0 or (done == blocks > TOLD_EVERY):
        print(f"block headers: {done:,} of {blocks:,}", file=sys.stderr, flush=True)


@contextmanager
def told(as_json: bool) -> Iterator[Printer]:
    """Errors become one line and an exit code; the text says whose fault it is."""
    printer = Printer(as_json=as_json)
    try:
        yield printer
    except CandorError as error:
        code, fault = next((code, fault) for kind, code, fault in FAULTS if isinstance(error, kind))
        if as_json:
            printer.value({"kind": "candor/error/1", "fault": fault, "error": type(error).__name__, "text": str(error)})
        else:
            printer.line(f"{type(error).__name__} ({fault} fault): {error}", "bold red")
        raise typer.Exit(code) from error


def gradients_on(base: Path | None) -> BaseGradients | None:
    """Raises WrongUsage."""
    if base is not None and not base.is_dir():
        raise WrongUsage(f"--base: {base} is no folder")
    return BaseGradients(base) if base else None
