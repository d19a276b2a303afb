"""The guard that keeps a server from forking its own log: it signs only what continues what it signed before.

A log restored from an old copy, a second server on one key, a bug: each would sign a second root for a size, and that
is evidence for ever (reportFork). So the last signed checkpoint is remembered, durably and before the signature leaves,
and the next one must come with the proof that the contract will ask for too. Whoever copies the key elsewhere without
this file steps around it: move them together.

LocalFault
└── SigningRefused   (ledger.signing) this checkpoint does not continue the last one that was signed
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ledger.crash import Point, reached
from ledger.database import Database
from ledger.eip712 import Domain
from ledger.log.statements import Checkpoint, sign
from ledger.signing import Key, SigningRefused
from proofs.merkle import EMPTY_ROOT, ConsistencyInvalid, check_consistency

SCHEMA: Final = """
CREATE TABLE checkpoints (
    chain_id TEXT NOT NULL, contract BLOB NOT NULL, server BLOB NOT NULL, size INTEGER NOT NULL,
    root BLOB NOT NULL, signature BLOB NOT NULL, PRIMARY KEY (chain_id, contract, server, size)
)
"""
WHERE: Final = "chain_id=? AND contract=? AND server=?"
LARGEST: Final = f"SELECT size, root FROM checkpoints WHERE {WHERE} ORDER BY size DESC LIMIT 1"


class CheckpointGuard:
    """Signs checkpoints of one log after the other."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, "candor/log-signing/1", SCHEMA)

    def sign(self, key: Key, domain: Domain, checkpoint: Checkpoint, path: Sequence[bytes]) -> bytes:
        """The signature; for a checkpoint that was signed already, the same one, whatever the path. Raises
        SigningRefused unless `path` shows that it continues the largest signed one (empty, for the first)."""
        with self._database.write() as cursor:
            where = (str(domain.chain_id), domain.contract, key.address)
            query = f"SELECT signature FROM checkpoints WHERE {WHERE} AND size=? AND root=?"
            again = cursor.execute(query, (*where, checkpoint.size, checkpoint.root)).fetchone()
            if again is not None:
                return bytes(again[0])
            found = cursor.execute(LARGEST, where).fetchone()
            last = Checkpoint(found[0], bytes(found[1])) if found else Checkpoint(0, EMPTY_ROOT)
            _check_continues(last, checkpoint, path)
            signature = sign(key.secret, domain, checkpoint)
            fields = (checkpoint.size, checkpoint.root, signature)
            cursor.execute("INSERT INTO checkpoints VALUES (?,?,?,?,?,?)", (*where, *fields))
        reached(Point.LOG_SIGNED)
        return signature

    def last(self, domain: Domain, server: bytes) -> Checkpoint | None:
        """The largest that was signed: a log with fewer entries is an old copy (LogStore's `at_least`)."""
        rows = self._database.read(LARGEST, (str(domain.chain_id), domain.contract, server))
        return Checkpoint(rows[0][0], bytes(rows[0][1])) if rows else None

    def close(self) -> None:
        self._database.close()


def _check_continues(last: Checkpoint, checkpoint: Checkpoint, path: Sequence[bytes]) -> None:
    if checkpoint.size <= last.size:
        raise SigningRefused(
            f"{last.size} entries are signed for, and a checkpoint of {checkpoint.size} is not among those that were: "
            "this log is an old copy, or another"
        )
    try:
        check_consistency(last.size, last.root, checkpoint.size, checkpoint.root, path)
    except ConsistencyInvalid as error:
        raise SigningRefused(f"the log does not continue the one that was signed at {last.size}: {error}") from error
