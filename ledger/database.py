"""SQLite as Candor uses it: what `write` returned from is on the disk.

`synchronous=FULL` in WAL mode: every commit is one fsync of the log, so kill -9 and power cuts lose nothing committed,
and other processes (`status`) read while a daemon writes. Closing folds the log back into the file.

    LocalFault
    └── StorageFault   the disk is full, or the file is damaged, locked or of another kind
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from proofs.errors import LocalFault

BUSY_TIMEOUT_S = 10.0
Row = tuple[Any, ...]


class StorageFault(LocalFault):
    """Something durable could not be written or read. Nothing was half written."""


class Database:
    """One file of one kind. `kind` names the schema: a file of another kind or version is refused, not converted."""

    def __init__(self, path: Path, kind: str, schema: str) -> None:
        self.path = path
        self._lock = threading.RLock()
        with self._explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._connection = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
        try:
            self._create(kind, schema)
        except BaseException:
            self.close()
            raise

    def _create(self, kind: str, schema: str) -> None:
        with self.write() as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS kind (name TEXT PRIMARY KEY)")
            found = [row[0] for row in cursor.execute("SELECT name FROM kind")]
            if found and found != [kind]:
                raise StorageFault(f"{self.path} holds {found[0]!r}, expected {kind!r}: give another path")
            if not found:
                cursor.execute("INSERT INTO kind VALUES (?)", (kind,))
                for statement in filter(None, map(str.strip, schema.split(";"))):
                    cursor.execute(statement)

    @contextmanager
    def write(self) -> Iterator[sqlite3.Cursor]:
        """One transaction: all of it is durable when the block ends, or none of it happened."""
        with self._lock, self._explained():
            cursor = self._connection.cursor()
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield cursor
                cursor.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    cursor.execute("ROLLBACK")
                raise

    def read(self, query: str, values: Sequence[Any] = ()) -> list[Row]:
        with self._lock, self._explained():
            return self._connection.execute(query, values).fetchall()

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            hint = "free some space" if "full" in str(error) or "space" in str(error) else "check the file and its disk"
            raise StorageFault(f"{self.path}: {error}; {hint}") from error
