"""The follower: the contract's events, in order, folded into `History`, and undone when the chain thinks better of it.

Events and the cursor behind them are stored in one SQLite transaction, so that after kill -9 nothing is missed and
nothing is applied twice. Before it goes on it compares the hashes of the blocks it remembers with the node's, newest
first, and forgets everything above the first that agrees: the common ancestor. (Nodes do not announce reorgs reliably.)

    WireFault
    └── ChainMoved    the node changed its chain while it was being read; poll again
    PeerFault
    ├── RuleBroken    the events do not obey the law: forged, or some are hidden (ledger.rules)
    └── ChainLies     the node's own contract knows of events that it did not show
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from ledger.crash import Point, reached
from ledger.database import Database, Row
from ledger.eip712 import Domain
from ledger.events import decode_log, encode_log
from ledger.headers import Header
from ledger.history import History
from ledger.ports import ChainLies, ChainMoved, ChainPort, UnknownBlock, WrongChain
from ledger.records import Logged
from ledger.round_state import RoundState
from proofs.errors import LocalFault, PeerFault

MAX_BLOCKS_PER_STEP: Final = 2000
BLOCKS_REMEMBERED: Final = 4096
SCHEMA = """
CREATE TABLE source (
    chain_id TEXT NOT NULL, contract BLOB NOT NULL, start_block INTEGER NOT NULL, genesis BLOB NOT NULL
);
CREATE TABLE blocks (number INTEGER PRIMARY KEY, hash BLOB NOT NULL);
CREATE TABLE events (
    block_number INTEGER NOT NULL, log_index INTEGER NOT NULL, block_hash BLOB NOT NULL, tx_hash BLOB NOT NULL,
    topics BLOB NOT NULL, data BLOB NOT NULL, PRIMARY KEY (block_number, log_index)
)
"""


@dataclass(frozen=True)
class Polled:
    """One poll: the head it reached, the events that are new, and the block down to which a reorg undid, if any."""

    head: Header
    events: tuple[Logged, ...]
    undone_to: int | None


class Follower:
    """Reads from `start_block` (the contract's deployment) to `confirmations` blocks behind the head."""

    def __init__(self, path: Path, chain: ChainPort, *, start_block: int = 0, confirmations: int = 0) -> None:
        """Opens or creates the store and folds what it holds. Raises LocalFault if it belongs to another contract."""
        self._chain = chain
        self._start = start_block
        self._confirmations = confirmations
        self._domain = Domain(chain.chain_id, chain.rounds_address)
        self._database = Database(path, "candor/follower/1", SCHEMA)
        try:
            self._check_source(path)
            self._history = self._fold()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._database.close()

    @property
    def history(self) -> History:
        return self._history

    def rounds(self) -> Mapping[int, RoundState]:
        return self._history.rounds

    def state_of(self, number: int) -> RoundState | None:
        return self._history.rounds.get(number)

    @property
    def cursor(self) -> int:
        """The last block whose events are applied; start_block - 1 before the first."""
        rows = self._database.read("SELECT MAX(number) FROM blocks")
        return self._start - 1 if rows[0][0] is None else int(rows[0][0])

    def poll(self) -> Polled:
        """Undo what is no longer on the chain, then apply what is new.

        Raises WireFault, or PeerFault for a node that lies: what was applied before then stands, and the next poll
        reads again from one step further back, in case the lie began there.
        """
        undone_to = self._undo()
        head = self._chain.head()
        last = head.number - self._confirmations
        fresh: list[Logged] = []
        while self.cursor < last:
            try:
                fresh += self._step(self.cursor + 1, min(last, self.cursor + MAX_BLOCKS_PER_STEP), head)
            except PeerFault:
                self._step_back()
                raise
        return Polled(head, tuple(fresh), undone_to)

    # ---- forwards

    def _step(self, first: int, last: int, head: Header) -> list[Logged]:
        """Blocks first…last: read, obey the law, store with the cursor in one transaction, and only then believe."""
        tip = self._chain.header(last)
        events = self._chain.events(first, last)
        self._check_place(events, first, last)
        if self._chain.header(last).hash != tip.hash:
            raise ChainMoved(f"block {last} changed while it was being read")
        history = self._history.after_all(events)
        if last == head.number:
            self._check_nothing_hidden(history, head)
        with self._database.write() as cursor:
            for logged in events:
                cursor.execute("INSERT INTO events VALUES (?,?,?,?,?,?)", _to_row(logged))
            cursor.execute("INSERT INTO blocks VALUES (?,?)", (last, tip.hash))
            cursor.execute("DELETE FROM blocks WHERE number < ?", (last - BLOCKS_REMEMBERED,))
        self._history = history
        reached(Point.FOLLOWER_APPLIED)
        return events

    def _check_place(self, events: list[Logged], first: int, last: int) -> None:
        for logged in events:
            if not first <= logged.block_number <= last:
                raise ChainLies(f"an event of block {logged.block_number} among those of {first} to {last}")

    def _check_nothing_hidden(self, history: History, head: Header) -> None:
        """An event cut off at the end breaks no rule: compare the running hash with the contract's own."""
        latest = self._chain.latest_round()
        shown = history.rounds[history.latest].transcript if history.latest else None
        noted = self._chain.round_view(latest).transcript if latest else None
        if (latest, noted) != (history.latest, shown) and self._chain.head().hash == head.hash:
            raise ChainLies(f"the events shown lead to round {history.latest}, but its contract has noted others")

    # ---- backwards

    def _undo(self) -> int | None:
        """Forget all blocks above the common ancestor; None if the newest remembered block is still on the chain."""
        newest = self._database.read("SELECT number, hash FROM blocks ORDER BY number DESC LIMIT 1")
        if not newest or self._on_chain(*newest[0]):
            return None
        self._check_genesis()
        remembered = self._database.read("SELECT number, hash FROM blocks ORDER BY number DESC")
        ancestor = next((number for number, known in remembered if self._on_chain(number, known)), self._start - 1)
        self._forget_above(ancestor)
        return ancestor

    def _step_back(self) -> None:
        """Forget the newest step, so that it is read again."""
        rows = self._database.read("SELECT number FROM blocks ORDER BY number DESC LIMIT 2")
        self._forget_above(rows[1][0] if len(rows) == 2 else self._start - 1)

    def _forget_above(self, number: int) -> None:
        with self._database.write() as cursor:
            cursor.execute("DELETE FROM blocks WHERE number > ?", (number,))
            cursor.execute("DELETE FROM events WHERE block_number > ?", (number,))
        self._history = self._fold()
        reached(Point.FOLLOWER_APPLIED)

    def _on_chain(self, number: int, known: bytes) -> bool:
        try:
            return self._chain.header(number).hash == known
        except UnknownBlock:
            return False

    def _fold(self) -> History:
        rows = self._database.read("SELECT * FROM events ORDER BY block_number, log_index")
        return History(self._domain).after_all(map(_from_row, rows))

    # ---- whose events these are

    def _check_source(self, path: Path) -> None:
        wanted = (str(self._chain.chain_id), self._chain.rounds_address, self._start)
        found = self._database.read("SELECT chain_id, contract, start_block FROM source")
        if found and found[0] != wanted:
            raise LocalFault(f"{path} follows another chain, contract or start block: give each its own state folder")
        if not found:
            genesis = self._chain.header(0).hash
            with self._database.write() as cursor:
                cursor.execute("INSERT INTO source VALUES (?,?,?,?)", (*wanted, genesis))

    def _check_genesis(self) -> None:
        known = self._database.read("SELECT genesis FROM source")[0][0]
        if self._chain.header(0).hash != known:
            raise WrongChain("the endpoint now serves a chain with another genesis: connect to the old one")


def _to_row(logged: Logged) -> Row:
    topics, data = encode_log(logged.event)
    where = (logged.block_number, logged.log_index, logged.block_hash, logged.tx_hash)
    return (*where, b"".join(topics), data)


def _from_row(row: Row) -> Logged:
    number, index, block_hash, tx_hash, topics, data = row
    split = [topics[at : at + 32] for at in range(0, len(topics), 32)]
    return Logged(decode_log(split, data), number, block_hash, tx_hash, index)


def read_history(chain: ChainPort, start_block: int = 0, confirmations: int = 0) -> History:
    """All rounds, as the contract's events tell them; the chain is followed afresh, and nothing of it is kept.

    Raises as `Follower.poll`.
    """
    with TemporaryDirectory(prefix="candor-rounds-") as folder:
        follower = Follower(Path(folder) / "rounds.sqlite", chain, start_block=start_block, confirmations=confirmations)
        try:
            follower.poll()
            return follower.history
        finally:
            follower.close()
