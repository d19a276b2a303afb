"""candor-audit: prints what `ledger.audit` finds. It decides nothing.

    candor-audit rounds                       every round, as its events tell it
    candor-audit round N                      one round: members, reasons, events
    candor-audit members                      who takes part, with which key, how much ε of which cap
    candor-audit verify [--round N | --all]   re-derive everything from chain and content
    candor-audit verify FILE                  the same from an exported file, offline
    candor-audit why --member X --round N     re-run one verdict (with FILE: from the file)
    candor-audit export --round N FILE        one file with the round and its evidence
    candor-audit inference …                  servers, receipts and logs of answered inferences
    candor-audit trace RECEIPT                from one answer back to the base model, every link

With --base FOLDER, `verify` and `why` verify the proofs of gradients on the base model in that folder. Without it they
are NOT PROVEN. The headers of all blocks from the first event to the head are walked, up to --max-blocks of them; with
--trusted-block NUMBER:HASH, everything up to that block hangs on a hash that you know, and not on the node's.

Exit codes: 0  every link PASSes, or is NOT PROVEN for want of a proof, or of --base
            1  something FAILs
            2  wrong usage, or this machine's fault
            3  the chain or some content could not be read, or has more blocks than --max-blocks: nothing is known to be
               wrong, and another try may settle it
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final

import typer

from ledger.audit import NoSuchRound, audit, why
from ledger.audit_blocks import MAX_WALK_BLOCKS
from ledger.audit_chain import Broken, Replay, replay
from ledger.audit_door import (
    EXIT_OF,
    FAIL,
    PASS,
    UNREADABLE,
    AuditLog,
    Base,
    ConfigFile,
    Content,
    FromBlock,
    Json,
    MaxBlocks,
    Rounds,
    Rpc,
    Trusted,
    WrongUsage,
    gradients_on,
    places_from,
    told,
    walk_from,
)
from ledger.audit_file import export_round, verify_file, why_file
from ledger.audit_library import Library, Unsettled
from ledger.audit_open import NothingToRead, Places, open_chain, open_contents
from ledger.audit_print import Printer, anchor_text
from ledger.audit_trace import trace as trace_receipt
from ledger.inference_cli import app as inference
from ledger.inference_print import LogPrinter
from ledger.log.follower import log_domain
from ledger.log.kept import open_kept
from ledger.log.reader import LogReader, open_log
from ledger.picks import Picked, picked
from ledger.round_state import RoundState

HELP: Final = (__doc__ or "").replace("\n\n", "\n\n\b\n")  # \b: keep the lines as they are

app = typer.Typer(
    help=HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)
app.add_typer(inference, name="inference")

RoundOption = Annotated[int | None, typer.Option("--round", min=1, help="Number of the round.")]
FileArgument = Annotated[Path | None, typer.Argument(help="A file written by `export`: nothing else is read.")]


@app.command()
def rounds(
    rpc: Rpc = "", rounds: Rounds = "", content: Content = None, from_block: FromBlock = 0,
    config: ConfigFile = None, json: Json = False,
) -> None:  # fmt: skip
    """Every round, as its events tell it (replayed through the law; content is not read)."""
    with told(json) as printer:
        found = _replay(places_from(rpc, rounds, content, from_block, config))
        printer.rounds(found.history)
        _stop_if_broken(printer, found.broken)


@app.command(name="round")
def one_round(
    number: Annotated[int, typer.Argument(min=1, help="Number of the round.")],
    rpc: Rpc = "", rounds: Rounds = "", content: Content = None, from_block: FromBlock = 0,
    config: ConfigFile = None, json: Json = False,
) -> None:  # fmt: skip
    """One round: members, reasons, events; and the slots that were picked, where the config can be read."""
    with told(json) as printer:
        found = _replay(places_from(rpc, rounds, content, from_block, config))
        if number not in found.history.rounds:
            raise NoSuchRound(f"there is no round {number}: the latest is {found.history.latest}")
        state = found.history.rounds[number]
        printer.round(state, _picks(state, places_from(rpc, rounds, content, from_block, config)))
        _stop_if_broken(printer, found.broken)


@app.command()
def members(
    rpc: Rpc = "", rounds: Rounds = "", content: Content = None, from_block: FromBlock = 0,
    config: ConfigFile = None, json: Json = False,
) -> None:  # fmt: skip
    """Who takes part, with which key, and how much ε of which cap."""
    with told(json) as printer:
        printer.members(open_chain(places_from(rpc, rounds, content, from_block, config)).members())


@app.command()
def verify(
    file: FileArgument = None,
    number: RoundOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Every round (the default).")] = False,
    anchor: Annotated[str, typer.Option("--anchor", help="The file's last header, from a source you trust.")] = "",
    base: Base = None,
    rpc: Rpc = "", rounds: Rounds = "", content: Content = None, from_block: FromBlock = 0,
    max_blocks: MaxBlocks = MAX_WALK_BLOCKS, trusted: Trusted = "",
    config: ConfigFile = None, json: Json = False,
) -> None:  # fmt: skip
    """Re-derive everything, link by link: from chain and content, or offline from FILE."""
    with told(json) as printer:
        if number is not None and everything:
            raise WrongUsage("--round and --all exclude each other")
        if file is not None:
            if number is not None or everything or rpc or content or config or trusted:
                raise WrongUsage("FILE is verified by itself: only --anchor, --base, --rounds and --json go with it")
            contract = Places(rounds=rounds).contract if rounds else None
            report = verify_file(file, anchor=_hash(anchor), contract=contract, gradients=gradients_on(base))
        else:
            places = places_from(rpc, rounds, content, from_block, config)
            wanted = None if number is None else {number}
            source, contents = open_chain(places), open_contents(places.content)
            first, gradients, walk = places.from_block, gradients_on(base), walk_from(max_blocks, trusted)
            report = audit(source, contents, rounds=wanted, first_block=first, gradients=gradients, walk=walk)
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
    with told(json) as printer:
        if file is not None:
            found = why_file(file, member, gradients=gradients_on(base))
        elif number is None:
            raise WrongUsage("--round is needed")
        else:
            places = places_from(rpc, rounds, content, from_block, config)
            source, contents = open_chain(places), open_contents(places.content)
            found = why(
                source,
                contents,
                round_number=number,
                member=member,
                first_block=places.from_block,
                gradients=gradients_on(base),
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
    with told(json) as printer:
        places = places_from(rpc, rounds, content, from_block, config)
        source, contents = open_chain(places), open_contents(places.content)
        written = export_round(file, source, contents, round_number=number, first_block=places.from_block)
        if json:
            printer.value(written.to_json())
            return
        printer.line(f"{file}: round {number}, {written.size_bytes} bytes, root {written.file.root}")
        for digest in written.file.absent:
            printer.line(f"NOT in the file, because nobody had it: bundle {digest.hex()}", "yellow")
        printer.line(anchor_text(written.file.anchor))


@app.command()
def trace(
    receipt: Annotated[Path, typer.Argument(help="Folder with request, response and receipt.json; or its file.")],
    log: Annotated[str, typer.Option("--log", help="Where the server's log is: its URL, a CID, or a folder.")] = "",
    base: Base = None,
    rpc: Rpc = "", rounds: Rounds = "", audit_log: AuditLog = "", content: Content = None, from_block: FromBlock = 0,
    max_blocks: MaxBlocks = MAX_WALK_BLOCKS, trusted: Trusted = "",
    config: ConfigFile = None, json: Json = False,
) -> None:  # fmt: skip
    """One page from an answer back to the base model: receipt, log, checkpoint, every round, genesis."""
    with told(json) as printer:
        places = places_from(rpc, rounds, content, from_block, config, audit_log)
        kept, chain, contents = open_kept(receipt), open_chain(places), open_contents(places.content)
        reader = LogReader(open_log(log, contents), log_domain(chain), kept.receipt.entry.server) if log else None
        gradients, walk = gradients_on(base), walk_from(max_blocks, trusted)
        found = trace_receipt(
            chain, contents, kept, reader, first_block=places.from_block, gradients=gradients, base=base, walk=walk
        )
        LogPrinter(printer).trace(found)
        raise typer.Exit(EXIT_OF[found.status])


def _hash(text: str) -> bytes | None:
    digits = text.removeprefix("0x")
    if digits and not re.fullmatch("[0-9a-fA-F]{64}", digits):
        raise WrongUsage(f"--anchor: expected 32 bytes in hex, found {text[:80]!r}")
    return bytes.fromhex(digits) if digits else None


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
