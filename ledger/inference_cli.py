"""candor-audit inference: what was answered, by which model, and is it all in the log?

    candor-audit inference list                        servers: sizes, roots, auditors, omissions, delays
    candor-audit inference verify RECEIPT              NOT YET DUE, INCLUDED or OMITTED (--report: on the chain)
    candor-audit inference replay RECEIPT|SEQUENCE     open the record with an auditor's key, and run the model again
    candor-audit inference watch                       look again and again; alarm on forks, delays, omissions
    candor-audit inference fsck                        rebuild every root from the tiles, look at every entry
    candor-audit inference prove RECEIPT               ask the server for a proof of the forward pass, and verify it
    candor-audit inference key                         an auditor's own key (--register: on the chain)

RECEIPT is a folder with `request`, `response` and `receipt.json`, or the receipt's file. --log says where the server's
log is read: its URL, a CID, or a folder.

Exit codes: 0  nothing is wrong
            1  something FAILs, or an alarm stands
            2  wrong usage, or this machine's fault
            3  NOT PROVEN: not due yet, or the chain, the log or a proof could not be had, or the chain has more blocks
               than --max-blocks
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ledger.audit_blocks import MAX_WALK_BLOCKS
from ledger.audit_door import (
    EXIT_OF,
    FAIL,
    PASS,
    UNREADABLE,
    AuditLog,
    ConfigFile,
    Content,
    FromBlock,
    Json,
    MaxBlocks,
    Rounds,
    Rpc,
    Trusted,
    WrongUsage,
    places_from,
    told,
    walk_from,
)
from ledger.audit_open import FirstOf, Places, address_in, open_chain, open_contents
from ledger.audit_trace import Origin, audit_origin
from ledger.content.http_get import Base as Url
from ledger.deploy import act
from ledger.history import History
from ledger.inference_print import LogPrinter
from ledger.log.actions import LogAction, RegisterAuditor
from ledger.log.check import check_log, host_of
from ledger.log.follower import log_domain, replay_log, settled_log
from ledger.log.inclusion import verify_receipt
from ledger.log.kept import RECEIPT as RECEIPT_FILE
from ledger.log.kept import Kept, open_kept
from ledger.log.key_file import create_key_file, open_key_file
from ledger.log.memory import Memory
from ledger.log.proof_check import Fit, check_proof
from ledger.log.proof_request import ask_for_proof
from ledger.log.reader import LogReader, open_log
from ledger.log.receipt import Entry, Record
from ledger.log.replaying import (
    Asked,
    NoReplayer,
    Place,
    Replayed,
    installed_replayer,
    installed_texts,
    replay_entry,
    replay_report,
)
from ledger.log.watching import Alarm, Kind, Watchtower
from ledger.ports import ContractRefused
from ledger.report import Link, overall
from ledger.signing import open_keystore, read_password
from proofs.errors import CandorError, WireFault

HELP: Final = (__doc__ or "").replace("\n\n", "\n\n\b\n")
app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode=None)

RECEIPT = Annotated[Path, typer.Argument(help="Folder with request, response and receipt.json; or the receipt's file.")]
LogPlace = Annotated[str, typer.Option("--log", help="Where the server's log is: its URL, a CID, or a folder.")]
ServerOption = Annotated[str, typer.Option("--server", help="Address of the server, 0x….")]
Request = Annotated[Path | None, typer.Option("--request", help="The request's bytes, beside a receipt's file.")]
Response = Annotated[Path | None, typer.Option("--response", help="The response's bytes.")]
Signer = Annotated[Path | None, typer.Option("--signer", help="Ethereum keystore that pays for what is reported.")]
Password = Annotated[
    Path | None, typer.Option("--password-file", help="Of the key; without it, CANDOR_KEY_PASSWORD is read.")
]
Report = Annotated[bool, typer.Option("--report", help="Report to the contract what it takes (with --signer).")]
Bundle = Annotated[str, typer.Option("--bundle", help="Digest of the model that was asked for, 64 hex digits.")]
LogPlaces = Annotated[list[str] | None, typer.Option("--log", help="Places of the log: URL, CID or folder; several.")]
Receipts = Annotated[Path | None, typer.Option("--receipts", help="Folder of receipts' folders to watch over.")]
State = Annotated[Path, typer.Option("--state", help="File in which everything seen is kept.")]
Auditors = Annotated[
    list[str] | None, typer.Option("--auditor", help="Address of an auditor: what it cannot open is told; several.")
]
Register = Annotated[bool, typer.Option("--register", help="Register the key on the chain (with --signer).")]
BaseModel = Annotated[Path | None, typer.Option("--base", help="The base model: its folder, or package:NAME.")]
SignerPassword = Annotated[Path | None, typer.Option("--signer-password-file", help="Of --signer, likewise.")]


@app.command(name="list")
def list_servers(
    rpc: Rpc = "", rounds: Rounds = "", audit_log: AuditLog = "", from_block: FromBlock = 0,
    max_blocks: MaxBlocks = MAX_WALK_BLOCKS, trusted: Trusted = "",
    config: ConfigFile = None, json: Json = False,
) -> None:  # fmt: skip
    """Servers: entries anchored, root, promised delay, auditors, reported omissions, forks."""
    with told(json) as printer:
        places = places_from(rpc, rounds, None, from_block, config, audit_log)
        found, links = settled_log(open_chain(places), places.from_block, walk=walk_from(max_blocks, trusted))
        LogPrinter(printer).servers(found, links)
        raise typer.Exit(EXIT_OF[overall(links)])


@app.command()
def verify(
    receipt: RECEIPT,
    request: Request = None, response: Response = None, log: LogPlace = "",
    bundle: Bundle = "", auditor: Auditors = None, report: Report = False,
    signer: Signer = None, signer_password: SignerPassword = None,
    rpc: Rpc = "", rounds: Rounds = "", audit_log: AuditLog = "", content: Content = None, from_block: FromBlock = 0,
    max_blocks: MaxBlocks = MAX_WALK_BLOCKS, trusted: Trusted = "",
    config: ConfigFile = None, json: Json = False,
) -> None:  # fmt: skip
    """Is the receipt good, and is the answer in the anchored log, in time?"""
    with told(json) as printer:
        places = places_from(rpc, rounds, content, from_block, config, audit_log)
        kept, chain = open_kept(receipt, request, response), open_chain(places)
        reader = _reader(chain, log, kept.receipt.entry.server, places) if log else None
        wanted = _digest(bundle) if bundle else None
        walk, first = walk_from(max_blocks, trusted), places.from_block
        found = verify_receipt(
            chain, kept, reader, bundle=wanted, first_block=first, walk=walk, auditors=_addresses(auditor)
        )
        reported = _act(chain, found.omission(), signer, signer_password) if report else ""
        LogPrinter(printer).verified(found, reported)
        raise typer.Exit(EXIT_OF[found.report.status])


@app.command()
def replay(
    what: Annotated[str, typer.Argument(help="A receipt (folder or file), or the sequence number of an entry.")],
    key: Annotated[Path, typer.Option("--key", help="The auditor's key file, made by `inference key`.")],
    password: Password = None, log: LogPlace = "", server: ServerOption = "", base: BaseModel = None,
    rpc: Rpc = "", rounds: Rounds = "", audit_log: AuditLog = "", content: Content = None, from_block: FromBlock = 0,
    max_blocks: MaxBlocks = MAX_WALK_BLOCKS, trusted: Trusted = "",
    config: ConfigFile = None, json: Json = False,
) -> None:  # fmt: skip
    """Open a record with an auditor's key, and have the model give the answer again (needs the room `node`)."""
    with told(json) as printer:
        replayer, opener = installed_replayer(), open_key_file(key, read_password(password))
        places = places_from(rpc, rounds, content, from_block, config, audit_log)
        kept = None if what.isdecimal() else open_kept(Path(what))
        sequence = int(what[:20]) if kept is None else kept.receipt.entry.sequence
        chain, contents = open_chain(places), open_contents(places.content)
        walk, first = walk_from(max_blocks, trusted), places.from_block
        found, links = settled_log(chain, first, walk=walk)
        host = host_of(found, kept.receipt.entry.server if kept else _address(server))
        at = Place(found, host, _reader(chain, log, host.address, places))
        expected = kept.receipt.entry if kept else None

        def whose(bundle: bytes) -> Origin:
            return audit_origin(chain, contents, bundle, found.anchor, first_block=first, walk=walk)

        def run(entry: Entry, record: Record, history: History) -> Replayed:
            return replayer(Asked(entry, record, history, contents, base))

        looked = replay_entry(at, sequence, expected, opener, whose, run)
        report = replay_report(at, looked, links, sequence)
        LogPrinter(printer).report(report)
        raise typer.Exit(EXIT_OF[report.status])


@app.command()
def fsck(
    log: LogPlace = "", server: ServerOption = "",
    rpc: Rpc = "", rounds: Rounds = "", audit_log: AuditLog = "", content: Content = None, from_block: FromBlock = 0,
    max_blocks: MaxBlocks = MAX_WALK_BLOCKS, trusted: Trusted = "",
    config: ConfigFile = None, json: Json = False,
) -> None:  # fmt: skip
    """Rebuild every anchored root from the tiles; look at every entry, its record, its deadline."""
    with told(json) as printer:
        places = places_from(rpc, rounds, content, from_block, config, audit_log)
        chain = open_chain(places)
        found, links = settled_log(chain, places.from_block, walk=walk_from(max_blocks, trusted))
        host = host_of(found, _address(server))
        report = check_log(found, host, links, _reader(chain, log, host.address, places))
        LogPrinter(printer).report(report)
        raise typer.Exit(EXIT_OF[report.status])


@app.command()
def watch(
    state: State, log: LogPlaces = None, receipts: Receipts = None, auditor: Auditors = None,
    once: Annotated[bool, typer.Option("--once", help="One look, then end.")] = False,
    interval: Annotated[float, typer.Option("--interval", min=0.1, help="Seconds between two looks.")] = 60.0,
    report: Report = False,
    signer: Signer = None, signer_password: SignerPassword = None, server: ServerOption = "",
    rpc: Rpc = "", rounds: Rounds = "", audit_log: AuditLog = "", content: Content = None, from_block: FromBlock = 0,
    max_blocks: MaxBlocks = MAX_WALK_BLOCKS, trusted: Trusted = "",
    config: ConfigFile = None, json: Json = False,
) -> None:  # fmt: skip
    """A watchtower: alarms on late checkpoints, forks, omissions and dropped auditors; remembers all that it saw."""
    with told(json) as printer:
        if json and not once:
            raise WrongUsage("--json goes with --once: a value is printed at the end")
        places, walk = places_from(rpc, rounds, content, from_block, config, audit_log), walk_from(max_blocks, trusted)
        chain, contents, memory = open_chain(places), open_contents(places.content), Memory(state)
        host = host_of(replay_log(chain, places.from_block), _address(server)).address
        readers = [_reader(chain, place, host, places) for place in log or ()]
        blocks = contents if places.content else None
        tower = Watchtower(chain, memory, host, places.from_block, blocks, walk, _addresses(auditor))
        shown, known = LogPrinter(printer), set[str]()
        while True:
            alarms = _look(tower, readers, receipts, once)
            reported = [_report(chain, alarm, signer, signer_password) for alarm in alarms if report and alarm.action]
            shown.alarms(alarms, known, reported)
            known |= {alarm.text for alarm in alarms}
            if once:
                certain = any(alarm.kind is not Kind.UNREADABLE for alarm in alarms)
                raise typer.Exit(FAIL if certain else UNREADABLE if alarms else PASS)
            time.sleep(interval)


@app.command()
def prove(
    receipt: RECEIPT,
    log: Annotated[str, typer.Option("--log", help="The server's URL.")],
    base: BaseModel = None,
    rpc: Rpc = "", rounds: Rounds = "", audit_log: AuditLog = "", content: Content = None, from_block: FromBlock = 0,
    max_blocks: MaxBlocks = MAX_WALK_BLOCKS, trusted: Trusted = "",
    config: ConfigFile = None, json: Json = False,
) -> None:  # fmt: skip
    """Ask the server for a zero-knowledge proof of the forward pass, and verify it on the base in --base."""
    with told(json) as printer:
        kept = open_kept(receipt)
        answer = ask_for_proof(Url.parse(log), kept)
        if isinstance(answer, Link):
            LogPrinter(printer).proof(answer)
            raise typer.Exit(EXIT_OF[answer.status])
        if base is None:
            raise WrongUsage("--base is needed: the server sent a proof, and it is verified on the base model")
        places = places_from(rpc, rounds, content, from_block, config, audit_log)
        chain, contents = open_chain(places), open_contents(places.content)
        fit, first, walk = _fit(kept, contents, base), places.from_block, walk_from(max_blocks, trusted)
        report = check_proof(chain, contents, kept, answer, base, first_block=first, fit=fit, walk=walk)
        LogPrinter(printer).report(report)
        raise typer.Exit(EXIT_OF[report.status])


@app.command()
def key(
    file: Annotated[Path, typer.Argument(help="The key file: made if it is not there.")],
    password: Password = None,
    register: Register = False,
    signer: Signer = None, signer_password: SignerPassword = None,
    rpc: Rpc = "", rounds: Rounds = "", audit_log: AuditLog = "", config: ConfigFile = None, json: Json = False,
) -> None:  # fmt: skip
    """An auditor's X25519 key: made under a password, its public key printed, and registered if asked."""
    with told(json) as printer:
        secret = read_password(password)
        found = open_key_file(file, secret) if file.exists() else create_key_file(file, secret)
        reported = ""
        if register:
            chain = open_chain(places_from(rpc, rounds, None, 0, config, audit_log))
            reported = _act(chain, RegisterAuditor(found.public), signer, signer_password)
        LogPrinter(printer).key(file, found.public, reported)


def _reader(chain: Any, place: str, server: bytes, places: Places) -> LogReader:
    if not place:
        raise WrongUsage("--log is needed: where the server's log is, its URL, a CID, or a folder")
    return LogReader(open_log(place, open_contents(places.content)), log_domain(chain), server)


def _fit(kept: Kept, contents: FirstOf, base: Path) -> Fit | None:
    """Compares tokens with the receipt's texts, where the libraries for that are."""
    try:
        texts = installed_texts()
    except NoReplayer:
        return None
    receipt = kept.receipt
    record = Record(receipt.decoding, receipt.salt, kept.request or b"", kept.response or b"")
    return lambda history, tokens, prompt: texts(Asked(receipt.entry, record, history, contents, base), tokens, prompt)


def _act(chain: Any, action: LogAction, signer: Path | None, password: Path | None) -> str:
    """Sent, and in a block. Raises ContractRefused, LocalFault."""
    if signer is None:
        raise WrongUsage("--signer is needed: who reports pays for it")
    receipt = act(chain, open_keystore(signer, read_password(password)), action)
    return f"{type(action).__name__} in block {receipt.block_number}, transaction 0x{receipt.tx_hash.hex()}"


def _look(tower: Watchtower, readers: list[LogReader], receipts: Path | None, once: bool) -> list[Alarm]:
    """A chain that is away ends one look, and no watch."""
    kept, broken = _kept(receipts)
    try:
        return [*tower.look(readers, kept), *broken]
    except WireFault as error:
        if once:
            raise
        return [Alarm(Kind.UNREADABLE, str(error)), *broken]


def _kept(folder: Path | None) -> tuple[list[Kept], list[Alarm]]:
    """What users left, one folder an answer; and what cannot be read of it."""
    found, broken = [], []
    for path in sorted(folder.iterdir()) if folder else ():
        if not (path / RECEIPT_FILE).is_file():
            continue
        try:
            found.append(open_kept(path))
        except CandorError as error:
            broken.append(Alarm(Kind.UNREADABLE, f"{path}: {error}"))
    return found, broken


def _report(chain: Any, alarm: Alarm, signer: Path | None, password: Path | None) -> str:
    """What the contract makes of it; somebody else may have been faster."""
    if alarm.action is None:
        return ""
    try:
        return _act(chain, alarm.action, signer, password)
    except ContractRefused as error:
        return f"{type(alarm.action).__name__}: {error}"


def _address(text: str) -> bytes | None:
    return address_in(text, "--server") if text else None


def _addresses(texts: list[str] | None) -> tuple[bytes, ...]:
    return tuple(address_in(text, "--auditor") for text in texts or ())


def _digest(text: str) -> bytes:
    try:
        found = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        found = b""
    if len(found) != 32:
        raise WrongUsage(f"--bundle: expected 32 bytes in hex, found {text[:80]!r}")
    return found
