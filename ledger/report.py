"""What an audit says: one status per link of the story, with its evidence. Data only; who prints it is elsewhere.

PASS        re-derived here, and it is so.
FAIL        re-derived here, and it is not so; `evidence` says what was expected and what was found.
NOT PROVEN  it is not re-derived here: no proof was asked for, or the base that it is verified on was not named, or
            (`missing`) something that ought to be there could not be read, and another try may settle it.

The overall status is FAIL if any link fails, NOT PROVEN if anything was missing, else PASS: what else is not proven is
listed beside it and never hidden, but does not change it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from ledger.privacy import INFINITE_MICRO
from ledger.records import Reason


class Status(StrEnum):
    PASS = "PASS"
    FAIL = "FAIL"
    NOT_PROVEN = "NOT PROVEN"


class Name(StrEnum):
    """The links, in the order of the story: four of the whole history, those of one round, those of answered
    inferences."""

    FILE = "file"  # of an export only
    HISTORY = "history"
    HEADERS = "headers"
    CONTRACT = "contract"
    OPENING = "opening"
    CONFIG = "config"
    MEMBERS = "members"
    COMMITMENTS = "commitments"
    BEACONS = "beacons"
    SUBMISSIONS = "submissions"
    PRIVACY = "privacy"
    MECHANISM = "mechanism"
    GRADIENT = "gradient"
    VERDICTS = "verdicts"
    AGGREGATE = "aggregate"
    PARENTS = "parents"  # of mixtures only
    ROOTS = "roots"
    FINALITY = "finality"

    LOG = "log"
    RECEIPT = "receipt"
    TEXTS = "texts"
    MODEL = "model"
    INCLUSION = "inclusion"
    DEADLINE = "deadline"
    RECORD = "record"
    REPLAY = "replay"
    PROOF = "proof"
    TILES = "tiles"
    CHECKPOINTS = "checkpoints"
    ENTRIES = "entries"
    CONDUCT = "conduct"


OF_ROUND: Final = (
    Name.OPENING,
    Name.CONFIG,
    Name.MEMBERS,
    Name.COMMITMENTS,
    Name.BEACONS,
    Name.SUBMISSIONS,
    Name.PRIVACY,
    Name.MECHANISM,
    Name.GRADIENT,
    Name.VERDICTS,
    Name.AGGREGATE,
    Name.ROOTS,
    Name.FINALITY,
)

ASKS: Final[dict[Name, str]] = {
    Name.FILE: "the file is whole, and its headers and receipts prove each other",
    Name.HISTORY: "every event obeys the law, and none is missing, added or out of order",
    Name.HEADERS: "blocks that follow each other up to the head hold these events, and no others",
    Name.CONTRACT: "the code at the address is Candor's",
    Name.OPENING: "the round starts from the last final aggregate, or from the genesis",
    Name.CONFIG: "the config is the one named on chain, well-formed, and with the same policy",
    Name.MEMBERS: "each seat has its own keys, and nobody has two",
    Name.COMMITMENTS: "dataset and secret words were fixed before the beacon was known",
    Name.BEACONS: "the randomness is the chain's own",
    Name.SUBMISSIONS: "every submission is signed by its member for this round, chain and contract",
    Name.PRIVACY: "the ε declared is enough for the history of configs, and under the cap",
    Name.MECHANISM: "contributions were clipped, rows drawn and noise added as committed words and beacon demand",
    Name.GRADIENT: "the contributions of slots picked afterwards are gradients of the model on the committed rows",
    Name.VERDICTS: "every verdict is the one that the rules give, and a quorum of verifiers signed it",
    Name.AGGREGATE: "the average is that of the accepted, to the bit",
    Name.PARENTS: "what is mixed are aggregates of final rounds on this base, and each of those rounds holds",
    Name.ROOTS: "the roots of included and excluded name who was in and who was left out",
    Name.FINALITY: "the round ended by the rules, after its time for objections",
    Name.LOG: "every event of the log's contract obeys its law, and none is missing",
    Name.RECEIPT: "the server's key signed this receipt, for this chain, and it promises no more delay than it may",
    Name.TEXTS: "request, response and decoding are those of the receipt",
    Name.MODEL: "the model that answered is the one that was asked for",
    Name.INCLUSION: "the answer is in the log at its place, up to an anchored root",
    Name.DEADLINE: "a checkpoint covered it by the block that was promised",
    Name.RECORD: "the sealed record is there, opens, and has the digests of its entry",
    Name.REPLAY: "the model, run again, gives this answer",
    Name.PROOF: "a zero-knowledge proof shows that the model gives this answer",
    Name.TILES: "all tiles are those of the log's entries",
    Name.CHECKPOINTS: "each anchored checkpoint has the root of the entries, and continues the one before it",
    Name.ENTRIES: "every entry is well-formed and in its place, and the record that it names is there",
    Name.CONDUCT: "no two histories, no omission and no late checkpoint is held against the server",
}

MECHANISM_NOT_PROVEN: Final = (
    "the config asks for no proof: nothing shows that clipping, noise and sampling were done as the committed words "
    "and the beacon demand; shown is only that what was submitted follows from the sums that were released, and that "
    "these are no larger than the config allows and loud enough to contain its noise"
)
GRADIENT_NOT_PROVEN: Final = (
    "the config asks for no proof that contributions are gradients of the model on the committed rows, or that each is "
    "made from its own row alone; that the rows are genuine, no proof shows"
)


@dataclass(frozen=True)
class Link:
    """One finding. `data` is JSON: digests and addresses as hex, ε in millionths."""

    name: Name
    status: Status
    evidence: str
    data: dict[str, Any] = field(default_factory=dict)
    missing: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "link": self.name.value,
            "status": self.status.value,
            "evidence": self.evidence,
            "missing": self.missing,
            "data": self.data,
        }


@dataclass(frozen=True)
class RoundReport:
    """`outcome` is how the round stands in words: "final", "void: …", "open: …"."""

    round: int
    outcome: str
    links: tuple[Link, ...]

    def to_json(self) -> dict[str, Any]:
        return {"round": self.round, "outcome": self.outcome, "links": [link.to_json() for link in self.links]}


@dataclass(frozen=True)
class Anchor:
    """What a reader must compare with sources of his own: nothing in an audit can vouch for it."""

    chain_id: int
    contract: bytes
    block_number: int
    block_hash: bytes

    def to_json(self) -> dict[str, Any]:
        return {
            "chain_id": self.chain_id,
            "contract": "0x" + self.contract.hex(),
            "block_number": self.block_number,
            "block_hash": "0x" + self.block_hash.hex(),
        }


@dataclass(frozen=True)
class Report:
    """`history` has the links of the whole history, `rounds` those of each round that was audited, in order.

    anchor: None only where a file was refused before it showed one.
    """

    anchor: Anchor | None
    history: tuple[Link, ...]
    rounds: tuple[RoundReport, ...]

    @property
    def links(self) -> tuple[Link, ...]:
        return self.history + tuple(link for report in self.rounds for link in report.links)

    @property
    def status(self) -> Status:
        return overall(self.links)

    def find(self, name: Name, round_number: int | None = None) -> Link:
        """The first link of this name, of one round if it is given. Raises KeyError if there is none."""
        for report in self.rounds:
            for link in report.links:
                if link.name is name and round_number in (None, report.round):
                    return link
        for link in self.history:
            if link.name is name:
                return link
        raise KeyError(name)

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": "candor/audit/1",
            "status": self.status.value,
            "anchor": self.anchor.to_json() if self.anchor else None,
            "history": [link.to_json() for link in self.history],
            "rounds": [report.to_json() for report in self.rounds],
            "not_proven": sorted({link.evidence for link in self.links if link.status is Status.NOT_PROVEN}),
        }


def overall(links: Iterable[Link]) -> Status:
    """FAIL before NOT PROVEN for want of data before PASS."""
    seen = list(links)
    if any(link.status is Status.FAIL for link in seen):
        return Status.FAIL
    return Status.NOT_PROVEN if any(link.missing for link in seen) else Status.PASS


def passed(name: Name, evidence: str, **data: Any) -> Link:
    return Link(name, Status.PASS, evidence, data)


def failed(name: Name, evidence: str, **data: Any) -> Link:
    return Link(name, Status.FAIL, evidence, data)


def not_proven(name: Name, evidence: str, **data: Any) -> Link:
    """No proof was asked for, or what it takes to verify it was not named."""
    return Link(name, Status.NOT_PROVEN, evidence, data)


def missing(name: Name, evidence: str, **data: Any) -> Link:
    """Something that ought to be there could not be read."""
    return Link(name, Status.NOT_PROVEN, evidence, data, missing=True)


def reason_name(code: int) -> str:
    """A verdict's number in words; the contract lets a quorum sign numbers that mean nothing."""
    return Reason(code).name if code in Reason._value2member_map_ else f"code {code}, which is no reason"


def show_epsilon(micro: int) -> str:
    """Millionths as a decimal number."""
    return "infinite" if micro == INFINITE_MICRO else f"{micro // 1_000_000}.{micro % 1_000_000:06d}"
