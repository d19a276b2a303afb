"""What the outbox keeps on disk: intents, and the transactions signed for them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ledger.actions import Action, calldata, decode_calldata
from ledger.database import Database, Row
from ledger.ports import Fees
from proofs.errors import LocalFault

SCHEMA = """
CREATE TABLE owner (chain_id TEXT NOT NULL, contract BLOB NOT NULL, sender BLOB NOT NULL);
CREATE TABLE intents (
    position INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, target TEXT NOT NULL,
    calldata BLOB NOT NULL, status TEXT NOT NULL, nonce INTEGER, tx_hash BLOB, block_number INTEGER, block_hash BLOB,
    gas_used INTEGER, error TEXT, error_arguments TEXT NOT NULL DEFAULT '[]', final INTEGER NOT NULL DEFAULT 0,
    taken_block INTEGER, note TEXT
);
CREATE TABLE transactions (
    position INTEGER PRIMARY KEY AUTOINCREMENT, intent TEXT NOT NULL REFERENCES intents (name),
    hash BLOB NOT NULL UNIQUE, raw BLOB NOT NULL, nonce INTEGER NOT NULL, gas_limit INTEGER NOT NULL,
    max_fee_wei TEXT NOT NULL, priority_fee_wei TEXT NOT NULL, signed_block INTEGER NOT NULL,
    dead INTEGER NOT NULL DEFAULT 0, broadcasts INTEGER NOT NULL DEFAULT 0
)
"""
INTENT_COLUMNS = (
    "name, target, calldata, status, nonce, tx_hash, block_number, block_hash, gas_used, error, error_arguments, "
    "final, taken_block, note"
)


class Status(StrEnum):
    QUEUED = "queued"
    SENT = "sent"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Intent:
    """An action and what became of it. `note` is the node's last complaint, for people to read.

    error: the contract's error by name when FAILED. final: deep enough not to be watched any more.
    taken_block: where it was first seen that somebody else used this intent's nonce.
    """

    name: str
    action: Action
    status: Status
    nonce: int | None = None
    tx_hash: bytes | None = None
    block_number: int | None = None
    block_hash: bytes | None = None
    gas_used: int | None = None
    error: str | None = None
    error_arguments: tuple[str, ...] = ()
    final: bool = False
    taken_block: int | None = None
    note: str | None = None


@dataclass(frozen=True)
class Stored:
    """A signed transaction."""

    hash: bytes
    raw: bytes
    nonce: int
    gas_limit: int
    fees: Fees
    signed_block: int


class OutboxStore:
    def __init__(self, path: Path, chain_id: int, contract: bytes, sender: bytes) -> None:
        self._database = Database(path, "candor/outbox/1", SCHEMA)
        owner = (str(chain_id), contract, sender)
        found = self._database.read("SELECT chain_id, contract, sender FROM owner")
        if not found:
            with self._database.write() as cursor:
                cursor.execute("INSERT INTO owner VALUES (?,?,?)", owner)
        elif found[0] != owner:
            self.close()
            raise LocalFault(f"{path} belongs to another chain, contract or key: give each its own state folder")

    def close(self) -> None:
        self._database.close()

    def get(self, name: str) -> Intent | None:
        rows = self._database.read(f"SELECT {INTENT_COLUMNS} FROM intents WHERE name=?", (name,))
        return _intent(rows[0]) if rows else None

    def all(self) -> list[Intent]:
        return list(map(_intent, self._database.read(f"SELECT {INTENT_COLUMNS} FROM intents ORDER BY position")))

    def with_status(self, status: Status) -> list[Intent]:
        """In the order of their nonces, then of posting."""
        query = f"SELECT {INTENT_COLUMNS} FROM intents WHERE status=? ORDER BY nonce, position"
        return list(map(_intent, self._database.read(query, (status.value,))))

    def unsettled(self) -> list[Intent]:
        """All with a transaction whose outcome is unknown, or could still be undone by a reorg."""
        query = f"SELECT {INTENT_COLUMNS} FROM intents WHERE nonce IS NOT NULL AND NOT final ORDER BY nonce"
        return list(map(_intent, self._database.read(query)))

    def add(self, name: str, action: Action) -> Intent:
        with self._database.write() as cursor:
            cursor.execute(
                "INSERT INTO intents (name, target, calldata, status) VALUES (?,?,?,?)",
                (name, action.target, calldata(action), Status.QUEUED.value),
            )
        return Intent(name, action, Status.QUEUED)

    def update(self, intent: Intent) -> Intent:
        place = (intent.nonce, intent.tx_hash, intent.block_number, intent.block_hash, intent.gas_used)
        outcome = (intent.error, json.dumps(intent.error_arguments), intent.final, intent.taken_block, intent.note)
        values = (intent.status.value, *place, *outcome, intent.name)
        with self._database.write() as cursor:
            cursor.execute(
                "UPDATE intents SET status=?, nonce=?, tx_hash=?, block_number=?, block_hash=?, gas_used=?, error=?, "
                "error_arguments=?, final=?, taken_block=?, note=? WHERE name=?",
                values,
            )
        return intent

    def requeue(self, intent: Intent) -> None:
        """Its transactions can never be mined: bury them, and let the intent take another nonce."""
        with self._database.write() as cursor:
            cursor.execute("UPDATE transactions SET dead=1 WHERE intent=?", (intent.name,))
            cursor.execute(
                "UPDATE intents SET status=?, nonce=NULL, taken_block=NULL WHERE name=?",
                (Status.QUEUED.value, intent.name),
            )

    def add_signed(self, intent: Intent, stored: Stored) -> None:
        """Nonce, fees and raw bytes, in one transaction with the intent's new status."""
        fees = (str(stored.fees.max_fee_wei), str(stored.fees.priority_fee_wei))
        values = (intent.name, stored.hash, stored.raw, stored.nonce, stored.gas_limit, *fees, stored.signed_block)
        with self._database.write() as cursor:
            cursor.execute(
                "INSERT INTO transactions (intent, hash, raw, nonce, gas_limit, max_fee_wei, priority_fee_wei, "
                "signed_block) VALUES (?,?,?,?,?,?,?,?)",
                values,
            )
            cursor.execute(
                "UPDATE intents SET status=?, nonce=? WHERE name=?", (Status.SENT.value, stored.nonce, intent.name)
            )

    def mark_broadcast(self, intent: Intent, stored: Stored, note: str | None) -> None:
        with self._database.write() as cursor:
            cursor.execute("UPDATE transactions SET broadcasts=broadcasts+1 WHERE hash=?", (stored.hash,))
            cursor.execute("UPDATE intents SET note=? WHERE name=?", (note, intent.name))

    def transactions(self, name: str) -> list[Stored]:
        """Those that can still be mined, oldest first; all have the intent's nonce."""
        query = (
            "SELECT hash, raw, nonce, gas_limit, max_fee_wei, priority_fee_wei, signed_block FROM transactions "
            "WHERE intent=? AND NOT dead ORDER BY position"
        )
        return [_stored(row) for row in self._database.read(query, (name,))]

    def next_nonce(self) -> int:
        """One above the highest nonce ever signed for, 0 if there is none."""
        return int(self._database.read("SELECT COALESCE(MAX(nonce) + 1, 0) FROM transactions")[0][0])

    def has_signed(self) -> bool:
        return bool(self._database.read("SELECT 1 FROM transactions LIMIT 1"))


def _intent(row: Row) -> Intent:
    name, target, data, status, nonce, tx_hash, number, block_hash, gas, error, arguments, final, taken, note = row
    return Intent(
        name=name,
        action=decode_calldata(target, data),
        status=Status(status),
        nonce=nonce,
        tx_hash=tx_hash,
        block_number=number,
        block_hash=block_hash,
        gas_used=gas,
        error=error,
        error_arguments=tuple(json.loads(arguments)),
        final=bool(final),
        taken_block=taken,
        note=note,
    )


def _stored(row: Row) -> Stored:
    tx_hash, raw, nonce, gas_limit, max_fee, priority, signed_block = row
    return Stored(tx_hash, raw, nonce, gas_limit, Fees(int(max_fee), int(priority)), signed_block)
