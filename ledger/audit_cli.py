"""candor-audit: prints what `ledger.audit` finds. It decides nothing.

    candor-audit rounds                       every round, as its events tell it
    candor-audit round N                      one round: members, reasons, events
    candor-audit members                      who takes part, with which key, how much ε of which cap
    candor-audit verify [--round N | --all]   re-derive everything from chain and content
    candor-audit verify FILE                  the same from an exported file, offline
    candor-audit why --member X --round N     re-run one verdict (with FILE: from the file)
    candor-audit export --round N FILE        one file with the round and its evidence

With --base FOLDER, `verify` and `why` verify the proofs of gradients on the base model in that folder. Without it they
are NOT PROVEN.

Exit codes: 0  every link PASSes, or is NOT PROVEN for want of a proof, or of --base
            1  something FAILs
            2  wrong usage, or this machine's fault
            3  the chain or some content could not be read: nothing is known to be wrong, try again
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from ledger.audit import NoSuchRound, audit, why
from ledger.audit_chain import Broken, Replay, replay
from ledger.audit_file import export_round, verify_file, why_file
from ledger.audit_library import Library, Unsettled
from ledger.audit_open import NothingToRead, Places, open_chain, open_contents, places_of
from ledger.audit_print import Printer, anchor_text
from ledger.base_gradients import BaseGradients
from ledger.picks import Picked, picked
from ledger.report import Status
from ledger.round_state import RoundState
from proofs.errors import CandorError, LocalFault, PeerFault, WireFault

PASS, FAIL, USAGE, UNREADABLE = 0, 1, 2, 3
EXIT_OF: Final = {Status.PASS: PASS, Status.FAIL: FAIL, Status.NOT_PROVEN: UNREADABLE}
FAULTS: Final[tuple[tuple[type[CandorError], int, str], ...]] = (
    (PeerFault, FAIL, "peer"),
    (LocalFault, USAGE, "local"),
    (WireFault, UNREADABLE, "wire"),
)

HELP: Final = (__doc__ or "").replace("\n\n", "\n\n\b\n")  # \b: keep the lines as they are

app = typer.Typer(
    help=HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)

Rpc = Annotated[str, typer.Option("--rpc", help="JSON-RPC URL of an Ethereum node.")]
Rounds = Annotated[str, typer.Option("--rounds", help="Address of the contract Rounds, 0x….")]
Content = Annotated[list[str] | None, typer.Option("--content", help="Folder of a content store, or gateway URL.")]
FromBlock = Annotated[int, typer.Option("--from-block", min=0, help="First block worth reading (the deployment).")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="TOML with [chain] and [content]: a daemon's will do.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON value on standard output.")]
RoundOption = Annotated[int | None, typer.Option("--round", min=1, help="Number of the round.")]
Base = Annotated[
    Path | None, typer.Option("--base", help="Folder of the base model: proofs of gradients are verified on it.")
]
FileArgument = Annotated[Path | None, typer.Argument(help="A file written by `export`: nothing else is read.")]


class WrongUsage(LocalFault):
    """The options do not fit together."""


def _places(rpc: str, rounds: str, content: list[str] | None, from_block: int, config: Path | None) -> Places:
    given = Places(rpc, rounds, from_block, tuple(content or ()))
    return given.over(places_of(config)) if config else given


@contextmanager
def _told(as_json: bool) -> Iterator[Printer]:
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


@app.command()
def rounds(
    rpc: Rpc = "", rounds: Rounds = "", content: Content = None, from_block: FromBlock = 0,
    config: ConfigFile = None, json: Json = False,
) -> None:  # fmt: skip
    """Every round, as its events tell it (replayed through the law; content is not read)."""
    with _told(json) as printer:
        found = _replay(_places(rpc, rounds, content, from_block, config))
        printer.rounds(found.history)
        _stop_if_broken(printer, found.broken)


@app.command(name="round")
def one_round(
    number: Annotated[int, typer.Argument(min=1, help="Number of the round.")],
    rpc: Rpc = "", rounds: Rounds = "", content: Content = None, from_block: FromBlock = 0,
    config: ConfigFile = None, json: Json = False,
) -> None:  # fmt: skip
    """One round: members, reasons, events; and the slots that were picked, where the config can be read."""
    with _told(json) as printer:
        found = _replay(_places(rpc, rounds, content, from_block, config))
        if number not in found.history.rounds:
            raise NoSuchRound(f"there is no round {number}: the latest is {found.history.latest}")
        state = found.history.rounds[number]
        printer.round(state, _picks(state, _places(rpc, rounds, content, from_block, config)))
        _stop_if_broken(printer, found.broken)


@app.command()
def members(
    rpc: Rpc = "", rounds: Rounds = "", content: Content = None, from_block: FromBlock = 0,
    config: ConfigFile = None, json: Json = False,
) -> None:  # fmt: skip
    """Who takes part, with which key, and how much ε of which cap."""
    with _told(json) as printer:
        printer.members(open_chain(_places(rpc, rounds, content, from_block, config)).members())


@app.command()
def verify(
    file: FileArgument = None,
    number: RoundOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Every round (the default).")] = False,
    anchor: Annotated[str, typer.Option("--anchor", help="The file's last header, from a source you trust.")] = "",
    base: Base = None,
    rpc: Rpc = "", rounds: Rounds = "", content: Content = None, from_block: FromBlock = 0,
    config: ConfigFile = None, json: Json = False,
) -> None:  # fmt: skip
    """Re-derive everything, link by link: from chain and content, or offline from FILE."""
    with _told(json) as printer:
        if number is not None and everything:
            raise WrongUsage("--round and --all exclude each other")
        if file is not None:
            if number is not None or everything or rpc or content or config:
                raise WrongUsage("FILE is verified by itself: only --anchor, --base, --rounds and --json go with it")
            contract = Places(rounds=rounds).contract if rounds else None
            report = verify_file(file, anchor=_hash(anchor), contract=contract, gradients=_gradients(base))
        else:
            places = _places(rpc, rounds, content, from_block, config)
            wanted = None if number is None else {number}
            source, contents = open_chain(places), open_contents(places.content)
            first, gradients = places.from_block, _gradients(base)
            report = audit(source, contents, rounds=wanted, first_block=first, gradients=gradients)
        printer.report(report)
        raise typer.Exit(EXIT_OF[report.status])


@app.command(name="why")
def tell_why(
    member: Annotated[int, typer.Option("--member", min=0, max=255, help="Number of the member.")],
    file: FileArgument = None,
    number: RoundOption = None,
    base: Base = None,
    rpc: Rpc = "", rounds: Rounds = "", content: Content = None, from_block: FromBlock = 0,
    config: ConfigFile = None, json: Json = False,
) -> None:  # fmt: skip
    """Re-run the verdict on one member: what was said, what the rules give, whether they agree."""
    with _told(json) as printer:
        if file is not None:
            found = why_file(file, member, gradients=_gradients(base))
        elif number is None:
            raise WrongUsage("--round is needed")
        else:
            places = _places(rpc, rounds, content, from_block, config)
            source, contents = open_chain(places), open_contents(places.content)
            found = why(
                source,
                contents,
                round_number=number,
                member=member,
                first_block=places.from_block,
                gradients=_gradients(base),
            )
        printer.why(found)
        finding = found.finding
        raise typer.Exit(FAIL if finding.agrees is False else UNREADABLE if finding.missing else PASS)


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="Where to write; replaced whole or not at all.")],
    number: Annotated[int, typer.Option("--round", min=1, help="Number of a round that has ended.")],
    rpc: Rpc = "", rounds: Rounds = "", content: Content = None, from_block: FromBlock = 0,
    config: ConfigFile = None, json: Json = False,
) -> None:  # fmt: skip
    """One file with the round and all its evidence, for `verify FILE`."""
    with _told(json) as printer:
        places = _places(rpc, rounds, content, from_block, config)
        source, contents = open_chain(places), open_contents(places.content)
        written = export_round(file, source, contents, round_number=number, first_block=places.from_block)
        if json:
            printer.value(written.to_json())
            return
        printer.line(f"{file}: round {number}, {written.size_bytes} bytes, root {written.file.root}")
        for digest in written.file.absent:
            printer.line(f"NOT in the file, because nobody had it: bundle {digest.hex()}", "yellow")
        printer.line(anchor_text(written.file.anchor))


def _hash(text: str) -> bytes | None:
    digits = text.removeprefix("0x")
    if digits and not re.fullmatch("[0-9a-fA-F]{64}", digits):
        raise WrongUsage(f"--anchor: expected 32 bytes in hex, found {text[:80]!r}")
    return bytes.fromhex(digits) if digits else None


def _gradients(base: Path | None) -> BaseGradients | None:
    if base is not None and not base.is_dir():
        raise WrongUsage(f"--base: {base} is no folder")
    return BaseGradients(base) if base else None


def _picks(state: RoundState, places: Places) -> Picked | None:
    """What the second beacon picked; None where there is none, or no config to say how many."""
    if not state.policy.proof_required:
        return None
    try:
        return picked(state, Library(open_contents(places.content)).config(state.opened.config_digest))
    except (Unsettled, NothingToRead):
        return None


def _replay(places: Places) -> Replay:
    return replay(open_chain(places), places.from_block)


def _stop_if_broken(printer: Printer, broken: Broken | None) -> None:
    if broken is None:
        return
    if not printer.as_json:
        printer.line(f"FAIL {broken.name.value}: {broken.cause}", "bold red")
    raise typer.Exit(FAIL)
