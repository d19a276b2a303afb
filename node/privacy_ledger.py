"""What a member's data has already paid: durable, written before noise is drawn, and closed whenever in doubt.

Three things must agree before a round may spend:

1. the database: every reservation ever made with this data, over all chains and contracts, hash-linked one to the next;
2. the guard, a small file beside it that names the number of reservations and the last link. It is replaced after the
   database's commit, so it may be exactly one behind (a crash in between), never ahead: ahead means that somebody put
   back an old copy of the database, or that it is gone;
3. the chain, which knows what this member has declared: more than the ledger knows means that both files are old.

A reservation is never given back: a round that failed may have shown its noise to somebody.

    PrivacyRefused
    ├── LedgerMissing     no ledger where there should be one; only `create` makes one, on the first day
    ├── LedgerDamaged     unreadable, altered, rolled back, or it could not be written (disk full)
    ├── LedgerBehind      the chain says that more was spent than this ledger knows
    └── BudgetExhausted   the round would cost more than the cap
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

from ledger import canonical, crash
from ledger.crash import Point
from ledger.privacy import INFINITE_MICRO, Spend, epsilon_micro
from proofs.errors import LocalFault, PeerFault, PrivacyRefused

DATABASE, GUARD, LOCK = "privacy.sqlite", "privacy.guard", "privacy.lock"
MAX_RECORD_BYTES = 4096
BUSY_S = 30.0

SCHEMA = """
CREATE TABLE IF NOT EXISTS identity (id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS spends (
    number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, record BLOB NOT NULL, link BLOB NOT NULL
);
"""


class LedgerMissing(PrivacyRefused):
    """There is no privacy ledger in this folder."""


class LedgerDamaged(PrivacyRefused):
    """The privacy ledger cannot be read, trusted or written."""


class LedgerBehind(PrivacyRefused):
    """The chain says that more was spent than the ledger knows."""


class BudgetExhausted(PrivacyRefused):
    """The round costs more than what is left."""


@dataclass(frozen=True)
class RoundKey:
    """What a reservation is for. A second reservation for the same four is the first one."""

    chain_id: int
    contract: bytes
    round: int
    config_digest: bytes

    def text(self) -> str:
        return f"{self.chain_id}/{self.contract.hex()}/{self.round}/{self.config_digest.hex()}"


@dataclass(frozen=True)
class Entry:
    """One reservation: what it is for, what it costs, and ε of everything up to and with it, in millionths."""

    key: str
    spend: Spend
    spent_micro: int

    def encode(self) -> bytes:
        fields = {"key": self.key, "spend": asdict(self.spend), "spent_micro": str(self.spent_micro)}
        return canonical.encode(fields)

    @classmethod
    def decode(cls, data: bytes) -> Entry:
        value = canonical.decode(data, max_bytes=MAX_RECORD_BYTES)
        return cls(value["key"], Spend(**value["spend"]), int(value["spent_micro"]))


class PrivacyLedger:
    """The ledger in a folder that `create` has prepared. Several processes may hold it; one writes at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with self._locked():
            self._entries()

    @classmethod
    def create(cls, folder: Path) -> PrivacyLedger:
        """Make an empty ledger, on the day the member's data is used for the first time; later calls open it.

        Raises LedgerMissing where the guard says that there has been one.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self = cls.__new__(cls)
        self._folder = folder
        with self._locked():
            if not (folder / GUARD).exists():
                self._begin()
        return cls(folder)

    def reserve(self, key: RoundKey, spend: Spend, delta: Fraction, cap_micro: int, chain_spent_micro: int) -> int:
        """Durably book one round before its noise is drawn. Returns ε of the whole history with it, in millionths.

        The same key again returns the same number and books nothing. cap_micro: the least of the member's own limit
        and the contract's. chain_spent_micro: what the chain has of this member. Raises PrivacyRefused.
        """
        with self._locked():
            entries = self._entries()
            known = entries[-1].spent_micro if entries else 0
            if chain_spent_micro > known:
                raise LedgerBehind(
                    f"the chain says that ε = {_show(chain_spent_micro)} was spent, the ledger has {_show(known)}; "
                    "remedy: bring back the newest copy of the state folder, nothing else makes training safe"
                )
            booked = {entry.key: entry for entry in entries}.get(key.text())
            if booked is not None:
                return _within(_same(booked, spend), cap_micro)
            history = [*(entry.spend for entry in entries), spend]
            after = _within(max(known, epsilon_micro(history, delta)), cap_micro)
            self._append(entries, Entry(key.text(), spend, after))
            return after

    def history(self) -> list[Spend]:
        """Everything booked so far, oldest first: what the accountant composes."""
        return [entry.spend for entry in self.entries()]

    def entries(self) -> list[Entry]:
        with self._locked():
            return self._entries()

    def _append(self, entries: Sequence[Entry], entry: Entry) -> None:
        head = _head(entries)
        link = _link(head, entry.encode())
        with self._database() as database, database:
            database.execute("BEGIN IMMEDIATE")
            row = (len(entries) + 1, entry.key, entry.encode(), link)
            database.execute("INSERT INTO spends VALUES (?, ?, ?, ?)", row)
        crash.reached(Point.NODE_BUDGET)
        self._write_guard(self._identity(), len(entries) + 1, link)

    def _entries(self) -> list[Entry]:
        """All reservations, after every check of the module's docstring but the chain's. Repairs a guard one behind."""
        identity, count, head = self._read_guard()
        if not (self._folder / DATABASE).exists():
            raise LedgerMissing(
                f"{self._folder / DATABASE} is gone, and {count} rounds were booked in it; remedy: bring it back"
            )
        if self._identity() != identity:
            raise LedgerDamaged(f"{self._folder}: database and guard belong to two different ledgers")
        entries = self._read_linked()
        if len(entries) < count or _head(entries[:count]) != head:
            raise LedgerDamaged(
                f"{self._folder / DATABASE} is older than its guard, which has seen {count} rounds; "
                "remedy: bring back the newest copy"
            )
        if len(entries) > count + 1:
            raise LedgerDamaged(
                f"{self._folder / GUARD} is older than its database; remedy: bring back the newest copy"
            )
        if len(entries) == count + 1:
            self._write_guard(identity, len(entries), _head(entries))
        return entries

    def _read_linked(self) -> list[Entry]:
        with self._database() as database:
            if database.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                raise LedgerDamaged(f"{self._folder / DATABASE} is corrupt; remedy: bring back the newest copy")
            rows = database.execute("SELECT number, key, record, link FROM spends ORDER BY number").fetchall()
        entries, head = [], b""
        for place, (number, key, record, link) in enumerate(rows, start=1):
            entry = _decoded(record)
            head = _link(head, entry.encode())
            if number != place or link != head or key != entry.key:
                raise LedgerDamaged(f"{self._folder / DATABASE}: reservation {place} was altered")
            entries.append(entry)
        return entries

    def _identity(self) -> str:
        with self._database() as database:
            rows = database.execute("SELECT id FROM identity").fetchall()
        if len(rows) != 1:
            raise LedgerDamaged(f"{self._folder / DATABASE}: not a privacy ledger")
        return str(rows[0][0])

    def _begin(self) -> None:
        """An empty database, then its guard. A crash between the two leaves an empty database, which is taken up."""
        with self._database() as database:
            database.executescript(SCHEMA)
            if database.execute("SELECT count(*) FROM spends").fetchone() != (0,):
                raise LedgerMissing(f"{self._folder / GUARD} is gone, and its database is not empty; bring it back")
            with database:
                database.execute("BEGIN IMMEDIATE")
                database.execute("DELETE FROM identity")
                database.execute("INSERT INTO identity VALUES (?)", (secrets.token_hex(16),))
        self._write_guard(self._identity(), 0, b"")

    def _read_guard(self) -> tuple[str, int, bytes]:
        try:
            value = json.loads((self._folder / GUARD).read_bytes())
            return str(value["id"]), int(value["count"]), bytes.fromhex(value["head"])
        except FileNotFoundError as error:
            raise LedgerMissing(
                f"no privacy ledger in {self._folder}; remedy: candor-node init, once, before the data is ever used"
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LedgerDamaged(f"{self._folder / GUARD} cannot be read; remedy: bring back the newest copy") from error

    def _write_guard(self, identity: str, count: int, head: bytes) -> None:
        data = canonical.encode({"id": identity, "count": count, "head": head.hex()})
        try:
            _replace(self._folder / GUARD, data)
        except OSError as error:
            raise LedgerDamaged(f"{self._folder / GUARD} cannot be written ({error.strerror})") from error

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._folder / DATABASE, timeout=BUSY_S, isolation_level=None)) as database:
                database.execute("PRAGMA synchronous = EXTRA")
                yield database
        except sqlite3.Error as error:
            raise LedgerDamaged(f"{self._folder / DATABASE}: {error}; no round was booked") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            lock = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LedgerMissing(f"no privacy ledger can be opened in {self._folder} ({error.strerror})") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _within(after: int, cap_micro: int) -> int:
    if after > cap_micro:
        raise BudgetExhausted(f"the round would bring ε to {_show(after)}, the cap is {_show(cap_micro)}")
    return after


def _same(entry: Entry, spend: Spend) -> int:
    if entry.spend != spend:
        raise LocalFault("a round was booked before with another cost; its config digest cannot be the same")
    return entry.spent_micro


def _decoded(record: object) -> Entry:
    try:
        if not isinstance(record, bytes):
            raise TypeError("a record is bytes")
        return Entry.decode(record)
    except (PeerFault, KeyError, TypeError, ValueError) as error:
        raise LedgerDamaged(
            "a reservation was altered and cannot be read; remedy: bring back the newest copy"
        ) from error


def _head(entries: Sequence[Entry]) -> bytes:
    head = b""
    for entry in entries:
        head = _link(head, entry.encode())
    return head


def _link(head: bytes, record: bytes) -> bytes:
    return sha256(b"candor/privacy-ledger/1\0" + len(head).to_bytes(1, "big") + head + record).digest()


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that after a power cut either the old or the new content is there, whole."""
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as sink:
        sink.write(data)
        sink.flush()
        os.fsync(sink.fileno())
    os.replace(fresh, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _show(micro: int) -> str:
    return "∞" if micro == INFINITE_MICRO else f"{micro / 1_000_000:.6f}"
