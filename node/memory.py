"""What a daemon must remember of a round, and the chain does not know: durable, one file in the state folder.

A member keeps the seed of its secret words, its commitment, and the bundle that it releases: its name before anybody
can have it, so that no second one is ever released under the same noise. An aggregator keeps its verdicts. A value once
written is never replaced: a second, different one is refused, whatever led to it.

    LocalFault
    └── MemoryContradicted   something asked for a second value where only one may ever be

The file is 0600 and holds the seeds in the clear: whoever reads them can subtract the noise, and whoever can read them
can read the data beside them.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from ledger.database import Database
from ledger.records import Reason
from ledger.verdict import Verdict
from proofs.errors import LocalFault
from proofs.words import SEED_BYTES

MEMBER_SCHEMA = """
CREATE TABLE seeds (name TEXT PRIMARY KEY, seed BLOB NOT NULL);
CREATE TABLE commitments (round TEXT PRIMARY KEY, dataset_root BLOB NOT NULL, words_root BLOB NOT NULL);
CREATE TABLE releases (round TEXT PRIMARY KEY, bundle BLOB NOT NULL);
CREATE TABLE bundles (
    round TEXT PRIMARY KEY, bundle BLOB NOT NULL, spent_micro TEXT NOT NULL, beacon BLOB NOT NULL,
    bytes INTEGER NOT NULL
);
CREATE TABLE showings (round TEXT PRIMARY KEY, beacon BLOB NOT NULL, proofs BLOB NOT NULL);
CREATE TABLE shown (round TEXT PRIMARY KEY, proofs BLOB NOT NULL, bytes INTEGER NOT NULL);
CREATE TABLE checks (round TEXT, proposal BLOB, expected BLOB, why TEXT NOT NULL, PRIMARY KEY (round, proposal))
"""
AGGREGATOR_SCHEMA = """
CREATE TABLE verdicts (
    round TEXT NOT NULL, member INTEGER NOT NULL, facts BLOB NOT NULL, reason INTEGER NOT NULL, detail TEXT NOT NULL,
    PRIMARY KEY (round, member, facts)
);
CREATE TABLE aggregates (round TEXT NOT NULL, facts BLOB NOT NULL, bundle BLOB NOT NULL, PRIMARY KEY (round, facts))
"""


class MemoryContradicted(LocalFault):
    """What is written down and what is to be written down differ."""


@dataclass(frozen=True)
class Commitment:
    dataset_root: bytes
    words_root: bytes


@dataclass(frozen=True)
class Made:
    """A bundle in the content store: its digest, the ε to declare, the beacon it was trained under, its size."""

    bundle: bytes
    spent_micro: int
    beacon: bytes
    size_bytes: int


@dataclass(frozen=True)
class Named:
    """Proofs of gradients that may have been published: their digest, and the beacon that picked the slots."""

    beacon: bytes
    proofs: bytes


@dataclass(frozen=True)
class Shown:
    """Proofs of gradients in the content store."""

    proofs: bytes
    size_bytes: int


@dataclass(frozen=True)
class Checked:
    """What came of checking a proposal. expected: what to object with, None when there is nothing to object to."""

    expected: bytes | None
    why: str


class MemberMemory:
    """Rounds are named by `round_key`: chain, contract and number."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, "candor/member/3", MEMBER_SCHEMA)

    def close(self) -> None:
        self._database.close()

    def seed(self, name: str) -> bytes:
        """32 secret bytes, drawn and made durable at the first call, the same ever after."""
        with self._database.write() as cursor:
            found = cursor.execute("SELECT seed FROM seeds WHERE name=?", (name,)).fetchone()
            if found is not None:
                return bytes(found[0])
            seed = secrets.token_bytes(SEED_BYTES)
            cursor.execute("INSERT INTO seeds VALUES (?,?)", (name, seed))
        return seed

    def commitment(self, key: str) -> Commitment | None:
        rows = self._database.read("SELECT dataset_root, words_root FROM commitments WHERE round=?", (key,))
        return Commitment(*rows[0]) if rows else None

    def remember_commitment(self, key: str, made: Commitment) -> Commitment:
        """Raises MemoryContradicted for another one than before."""
        with self._database.write() as cursor:
            cursor.execute(
                "INSERT OR IGNORE INTO commitments VALUES (?,?,?)", (key, made.dataset_root, made.words_root)
            )
        if self.commitment(key) != made:
            raise MemoryContradicted(f"{key}: another commitment was already made; the data changed in between")
        return made

    def remember_release(self, key: str, bundle: bytes) -> None:
        """The name of what is about to be published. Raises MemoryContradicted for another one than before: two sums
        under one noise differ by the data alone."""
        with self._database.write() as cursor:
            cursor.execute("INSERT OR IGNORE INTO releases VALUES (?,?)", (key, bundle))
            (before,) = cursor.execute("SELECT bundle FROM releases WHERE round=?", (key,)).fetchone()
        if before != bundle:
            raise MemoryContradicted(f"{key}: another bundle may have been published under the same noise")

    def made(self, key: str) -> Made | None:
        rows = self._database.read("SELECT bundle, spent_micro, beacon, bytes FROM bundles WHERE round=?", (key,))
        return Made(rows[0][0], int(rows[0][1]), rows[0][2], rows[0][3]) if rows else None

    def remember_made(self, key: str, made: Made) -> Made:
        """Raises MemoryContradicted for another one than before."""
        values = (key, made.bundle, str(made.spent_micro), made.beacon, made.size_bytes)
        with self._database.write() as cursor:
            cursor.execute("INSERT OR IGNORE INTO bundles VALUES (?,?,?,?,?)", values)
        if self.made(key) != made:
            raise MemoryContradicted(f"{key}: another bundle was already made")
        return made

    def remember_showing(self, key: str, beacon: bytes, proofs: bytes) -> None:
        """The name of what is shown before it is. Raises MemoryContradicted for another one than before."""
        with self._database.write() as cursor:
            cursor.execute("INSERT OR IGNORE INTO showings VALUES (?,?,?)", (key, beacon, proofs))
        if self.showing(key) != Named(beacon, proofs):
            raise MemoryContradicted(f"{key}: other proofs of gradients may have been published for these commitments")

    def showing(self, key: str) -> Named | None:
        rows = self._database.read("SELECT beacon, proofs FROM showings WHERE round=?", (key,))
        return Named(*rows[0]) if rows else None

    def remember_shown(self, key: str, shown: Shown) -> None:
        """Raises MemoryContradicted for another one than before."""
        with self._database.write() as cursor:
            cursor.execute("INSERT OR IGNORE INTO shown VALUES (?,?,?)", (key, shown.proofs, shown.size_bytes))
        if self.shown(key) != shown:
            raise MemoryContradicted(f"{key}: other proofs of gradients were already published")

    def shown(self, key: str) -> Shown | None:
        rows = self._database.read("SELECT proofs, bytes FROM shown WHERE round=?", (key,))
        return Shown(*rows[0]) if rows else None

    def checked(self, key: str, proposal: bytes) -> Checked | None:
        rows = self._database.read("SELECT expected, why FROM checks WHERE round=? AND proposal=?", (key, proposal))
        return Checked(*rows[0]) if rows else None

    def remember_checked(self, key: str, proposal: bytes, checked: Checked) -> Checked:
        """The first result stands: an objection, once decided, is not taken back by a later look."""
        with self._database.write() as cursor:
            cursor.execute(
                "INSERT OR IGNORE INTO checks VALUES (?,?,?,?)", (key, proposal, checked.expected, checked.why)
            )
        return self.checked(key, proposal) or checked


@dataclass
class AggregatorMemory:
    """Verdicts and aggregates, each under a digest of all that it depends on: a reorg that changes it changes that."""

    path: Path
    _database: Database = field(init=False)

    def __post_init__(self) -> None:
        self._database = Database(self.path, "candor/aggregator/1", AGGREGATOR_SCHEMA)

    def close(self) -> None:
        self._database.close()

    def verdict(self, key: str, member: int, facts: bytes) -> Verdict | None:
        query = "SELECT reason, detail FROM verdicts WHERE round=? AND member=? AND facts=?"
        rows = self._database.read(query, (key, member, facts))
        return Verdict(Reason(rows[0][0]), rows[0][1]) if rows else None

    def remember_verdict(self, key: str, member: int, facts: bytes, verdict: Verdict) -> None:
        values = (key, member, facts, int(verdict.reason), verdict.detail)
        with self._database.write() as cursor:
            cursor.execute("INSERT OR IGNORE INTO verdicts VALUES (?,?,?,?,?)", values)

    def aggregate(self, key: str, facts: bytes) -> bytes | None:
        rows = self._database.read("SELECT bundle FROM aggregates WHERE round=? AND facts=?", (key, facts))
        return bytes(rows[0][0]) if rows else None

    def remember_aggregate(self, key: str, facts: bytes, bundle: bytes) -> None:
        with self._database.write() as cursor:
            cursor.execute("INSERT OR IGNORE INTO aggregates VALUES (?,?,?)", (key, facts, bundle))
