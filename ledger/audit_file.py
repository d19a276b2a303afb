"""Export a round with its evidence, and audit such a file offline: the same audit, on a chain and store of one file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ledger.audit import Why, audit, why
from ledger.audit_chain import Replay, Source, replay
from ledger.audit_library import Library, Unsettled
from ledger.audit_open import BlockContents
from ledger.bundle import bundle_limits
from ledger.config import MAX_CONFIG_BYTES
from ledger.export import Anchored, NotExportable, Receipts, Selection, Wanted, write_export
from ledger.exported import Exported, ExportInvalid, FileChain, load
from ledger.gradients import GradientVerifier, gradient_limits
from ledger.parents import starts_at_zero
from ledger.report import Name, Report, failed, passed
from ledger.round_state import RoundState
from proofs.errors import PeerFault


class ExportSource(Source, Receipts, Protocol):
    """A chain that can show its receipts."""


@dataclass(frozen=True)
class Written:
    """What was exported. `absent`: bundles that nobody has, whose links the file cannot settle."""

    round: int
    file: Anchored
    size_bytes: int

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": "candor/exported/1",
            "round": self.round,
            "root": str(self.file.root),
            "size_bytes": self.size_bytes,
            "anchor": self.file.anchor.to_json(),
            "absent": [digest.hex() for digest in self.file.absent],
        }


def export_round(
    path: Path, source: ExportSource, contents: BlockContents, *, round_number: int, first_block: int = 0
) -> Written:
    """Write the file for a round that has ended. Raises NotExportable, or ContentMissing for a config nobody has."""
    found = replay(source, first_block)
    selection = _selection(found, contents, round_number)
    anchored = write_export(path, source, contents.get_block, selection)
    return Written(round_number, anchored, path.stat().st_size)


def _selection(found: Replay, contents: BlockContents, number: int) -> Selection:
    states = [found.history.rounds.get(n) for n in range(1, number + 1)]
    wanted = [state for state in states if state is not None]
    if not wanted or len(wanted) != number:
        raise NotExportable(f"there is no round {number} that obeys the law: the latest is {found.history.latest}")
    if not wanted[-1].ended:
        raise NotExportable(f"round {number} has not ended: it is in {wanted[-1].phase.name}")
    digests = dict.fromkeys(state.opened.config_digest for state in wanted)
    return Selection(
        round=number,
        events=tuple(logged for state in wanted for logged in state.log),
        configs=tuple(contents.get_raw(digest, MAX_CONFIG_BYTES) for digest in digests),
        bundles=_bundles(wanted[-1], contents),
    )


def _bundles(state: RoundState, contents: BlockContents) -> tuple[Wanted, ...]:
    """None where the config is none: without it nobody can read a bundle."""
    try:
        config = Library(contents).config(state.opened.config_digest)
    except Unsettled:
        return ()
    limits = bundle_limits(config)
    start = state.opened.global_bundle
    digests = [] if starts_at_zero(config, start) else [start]
    digests += [event.bundle for _, event in sorted(state.submissions.items())]
    digests += [state.proposal.aggregate_bundle] if state.proposal else []
    shown = [event.proof for _, event in sorted(state.proofs.items())] if config.gradient else []
    wanted = {digest: Wanted(digest, gradient_limits(config)) for digest in shown}
    return tuple((wanted | {digest: Wanted(digest, limits) for digest in digests}).values())


def verify_file(
    path: Path,
    *,
    anchor: bytes | None = None,
    contract: bytes | None = None,
    gradients: GradientVerifier | None = None,
) -> Report:
    """Audit an export with no chain and no store. A file that is not an export is a FAIL of the link `file`.

    anchor, contract: the last header's hash and the address, from a source that the caller trusts.
    """
    try:
        exported = load(path)
        _check_trusted(exported.chain, anchor, contract)
    except PeerFault as error:
        return Report(None, (failed(Name.FILE, f"{type(error).__name__}: {error}"),), ())
    report = audit(exported.chain, exported.store, rounds={exported.chain.round}, gradients=gradients)
    told = _told(exported, compared=anchor is not None and contract is not None)
    return replace(report, history=(passed(Name.FILE, told), *report.history))


def _check_trusted(chain: FileChain, anchor: bytes | None, contract: bytes | None) -> None:
    for what, expected, found in (
        ("hash of the last header", anchor, chain.anchor.block_hash),
        ("contract", contract, chain.rounds_address),
    ):
        if expected is not None and expected != found:
            raise ExportInvalid(f"{what}: expected 0x{expected.hex()}, found 0x{found.hex()}")


def why_file(path: Path, member: int, *, gradients: GradientVerifier | None = None) -> Why:
    """Re-run one verdict of the exported round. Raises PeerFault for a file that is not an export."""
    exported = load(path)
    number = exported.chain.round
    return why(exported.chain, exported.store, round_number=number, member=member, gradients=gradients)


def _told(exported: Exported, *, compared: bool) -> str:
    chain = exported.chain
    owed = (
        "the anchor is the one given" if compared else "nothing in it vouches for its last header: compare the anchor"
    )
    absent = f"; {len(exported.absent)} bundles that nobody had are not in it" if exported.absent else ""
    return (
        f"{len(chain.headers)} headers linked by their hashes, {len(chain.logs)} events proven by their receipts, "
        f"every block of content hashed{absent}; {owed}"
    )
