"""What a watchtower remembers of servers, durable when a method returns: that of ledger.log.watching.

Looking again and again has to cost what is new, and a look at which nothing is new writes nothing. So a checkpoint that
was compared with the anchored log is settled, and compared no more while the anchored root that it was compared with
stands; and a record that was looked at for an auditor is not read again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ledger.database import Database
from ledger.log.statements import Checkpoint

SCHEMA: Final = """
CREATE TABLE seen (
    chain_id TEXT NOT NULL, contract BLOB NOT NULL, server BLOB NOT NULL, size TEXT NOT NULL, root BLOB NOT NULL,
    signature BLOB NOT NULL, place TEXT NOT NULL, PRIMARY KEY (chain_id, contract, server, size, root)
);
CREATE TABLE longest (
    chain_id TEXT NOT NULL, contract BLOB NOT NULL, server BLOB NOT NULL, place TEXT NOT NULL, size TEXT NOT NULL,
    PRIMARY KEY (chain_id, contract, server, place)
)
"""
ADDED: Final = (  # to files that are there already: what they remember must not be lost
    """
CREATE TABLE IF NOT EXISTS settled (
    chain_id TEXT NOT NULL, contract BLOB NOT NULL, server BLOB NOT NULL, size TEXT NOT NULL, root BLOB NOT NULL,
    anchored_size TEXT NOT NULL, anchored_root BLOB NOT NULL, PRIMARY KEY (chain_id, contract, server, size, root)
)""",
    """
CREATE TABLE IF NOT EXISTS looked (
    chain_id TEXT NOT NULL, contract BLOB NOT NULL, server BLOB NOT NULL, auditor BLOB NOT NULL, size INTEGER NOT NULL,
    PRIMARY KEY (chain_id, contract, server, auditor)
)""",
    """
CREATE TABLE IF NOT EXISTS shut (
    chain_id TEXT NOT NULL, contract BLOB NOT NULL, server BLOB NOT NULL, auditor BLOB NOT NULL, entry INTEGER NOT NULL,
    why TEXT NOT NULL, PRIMARY KEY (chain_id, contract, server, auditor, entry)
)""",
)
WHERE: Final = "chain_id=? AND contract=? AND server=?"
OF_SETTLED: Final = "seen.chain_id=settled.chain_id AND seen.contract=settled.contract AND seen.server=settled.server"

Of = tuple[str, bytes, bytes]  # chain, contract, server


@dataclass(frozen=True)
class Sight:
    """A signed checkpoint, and the first place where it was seen."""

    checkpoint: Checkpoint
    signature: bytes
    place: str


class Memory:
    """Everything that was seen of any server; durable when a method returns. Raises database.StorageFault."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, "candor/watch/1", SCHEMA)
        with self._database.write() as cursor:
            for table in ADDED:
                cursor.execute(table)

    def close(self) -> None:
        self._database.close()

    # ---- checkpoints

    def remember(self, of: Of, sights: Iterable[Sight]) -> None:
        rows = [
            (*of, str(sight.checkpoint.size), sight.checkpoint.root, sight.signature, sight.place)
            for sight in sights
            if not self._seen(of, sight.checkpoint)
        ]
        if rows:
            with self._database.write() as cursor:
                cursor.executemany("INSERT OR IGNORE INTO seen VALUES (?,?,?,?,?,?,?)", rows)

    def _seen(self, of: Of, checkpoint: Checkpoint) -> bool:
        query = f"SELECT 1 FROM seen WHERE {WHERE} AND size=? AND root=?"
        return bool(self._database.read(query, (*of, str(checkpoint.size), checkpoint.root)))

    def anchor(self, of: Of, sights: Iterable[Sight], roots: Mapping[int, bytes]) -> None:
        """These are anchored now, as all of `roots` are, by size: they are seen, and settled by that."""
        sights = list(sights)
        self.remember(of, sights)
        self._forget(of, roots)
        self.settle(of, [sight.checkpoint for sight in sights], roots)

    def doubled(self, of: Of, most: int) -> list[Sight]:
        """Every sight of a size of which there are several, of at most so many sizes."""
        sizes = f"SELECT size FROM seen WHERE {WHERE} GROUP BY size HAVING COUNT(*) > 1 LIMIT ?"
        query = f"SELECT size, root, signature, place FROM seen WHERE {WHERE} AND size IN ({sizes}) ORDER BY size, root"
        return [_sight(row) for row in self._database.read(query, (*of, *of, most))]

    def unsettled(self, of: Of, roots: Mapping[int, bytes], most: int) -> list[Sight]:
        """At most so many sights that were not compared with the anchored log, whose roots by size are these. A size
        beyond the end is not compared yet."""
        last = max(roots, default=0)
        query = (
            f"SELECT seen.size, seen.root, signature, place FROM seen LEFT JOIN settled ON {OF_SETTLED} "
            f"AND seen.size=settled.size AND seen.root=settled.root WHERE seen.chain_id=? AND seen.contract=? AND "
            f"seen.server=? AND settled.size IS NULL AND (LENGTH(seen.size), seen.size) < (?,?) "
            f"ORDER BY LENGTH(seen.size), seen.size LIMIT ?"
        )
        found = [_sight(row) for row in self._database.read(query, (*of, len(str(last)), str(last), most))]
        return [sight for sight in found if sight.checkpoint.size not in roots]

    def settle(self, of: Of, checkpoints: Iterable[Checkpoint], roots: Mapping[int, bytes]) -> None:
        """These are what the log with the last of these anchored roots had."""
        last = max(roots, default=0)
        rows = [(*of, str(one.size), one.root, str(last), roots[last]) for one in checkpoints]
        if rows:
            with self._database.write() as cursor:
                cursor.executemany("INSERT OR IGNORE INTO settled VALUES (?,?,?,?,?,?,?)", rows)

    def _forget(self, of: Of, roots: Mapping[int, bytes]) -> None:
        """What was settled by a root that is anchored no more, after a reorganisation, is open again."""
        query = f"SELECT DISTINCT anchored_size, anchored_root FROM settled WHERE {WHERE}"
        gone = [row for row in self._database.read(query, of) if roots.get(int(row[0])) != bytes(row[1])]
        if gone:
            with self._database.write() as cursor:
                delete = f"DELETE FROM settled WHERE {WHERE} AND anchored_size=? AND anchored_root=?"
                cursor.executemany(delete, [(*of, *row) for row in gone])

    def longest(self, of: Of, place: str, size: int) -> int:
        """The most entries that this place has shown before; `size` counts from now on."""
        found = self._database.read(f"SELECT size FROM longest WHERE {WHERE} AND place=?", (*of, place))
        before = int(found[0][0]) if found else 0
        if size > before:
            with self._database.write() as cursor:
                cursor.execute("INSERT OR REPLACE INTO longest VALUES (?,?,?,?,?)", (*of, place, str(size)))
        return before

    # ---- records, for one auditor

    def looked(self, of: Of, auditor: bytes) -> int:
        """How many entries, from the first on, were looked at for this auditor."""
        rows = self._database.read(f"SELECT size FROM looked WHERE {WHERE} AND auditor=?", (*of, auditor))
        return int(rows[0][0]) if rows else 0

    def shut_entries(self, of: Of, auditor: bytes) -> dict[int, str]:
        """Entries whose record this auditor cannot open, and why."""
        query = f"SELECT entry, why FROM shut WHERE {WHERE} AND auditor=? ORDER BY entry"
        return {int(entry): why for entry, why in self._database.read(query, (*of, auditor))}

    def look(self, of: Of, auditor: bytes, size: int, found: Mapping[int, str]) -> None:
        """The first `size` entries are looked at. found: of each that was looked at now, why it is shut; "" if not."""
        with self._database.write() as cursor:
            cursor.execute("INSERT OR REPLACE INTO looked VALUES (?,?,?,?,?)", (*of, auditor, size))
            for entry, why in found.items():
                cursor.execute(f"DELETE FROM shut WHERE {WHERE} AND auditor=? AND entry=?", (*of, auditor, entry))
                if why:
                    cursor.execute("INSERT INTO shut VALUES (?,?,?,?,?,?)", (*of, auditor, entry, why))


def _sight(row: tuple[object, ...]) -> Sight:
    size, root, signature, place = row
    return Sight(Checkpoint(int(str(size)), bytes(root)), bytes(signature), str(place))  # type: ignore[call-overload]
