"""A server that keeps a log, honest or not, with no model at all: answers, records, tiles, checkpoints on a chain."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ledger import audit_cli, inference_cli
from ledger.audit_trace import Origin
from ledger.deploy import act
from ledger.eip712 import Domain
from ledger.history import History
from ledger.log.actions import LogAction, NameAuditors, PostCheckpoint, Register, RegisterAuditor
from ledger.log.kept import Kept
from ledger.log.note import encode_note
from ledger.log.receipt import Decoding, Entry, Receipt, Record, enter, issue
from ledger.log.sealing import Auditor, AuditorKey, Envelope
from ledger.log.statements import Checkpoint, Promise, sign
from ledger.log.store import LogStore
from ledger.log.tiles import RECORDS, encode_records, records_path, split_records
from ledger.report import Name, passed
from ledger.signing import Key
from ledger.twin import TwinChain

DECODING = Decoding(16, Fraction(0), Fraction(1), 0, 7)
PROMISE_BLOCKS, ANSWER_BLOCKS = 30, 5
ETHER = 10**18


@dataclass
class House:
    """A server. `folder` has its log as files; `lie` (of an entry and its record) changes what it logs."""

    chain: Any
    mine: Callable[[int], None]
    folder: Path
    key: Key
    auditor: Key
    payer: Key
    bundle: bytes = sha256(b"bundle").digest()
    reader_key: AuditorKey = field(default_factory=lambda: AuditorKey.of(sha256(b"an auditor").digest()))
    log: LogStore = field(init=False)
    receipts: list[Receipt] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.log = LogStore(self.folder)

    @property
    def domain(self) -> Domain:
        return Domain(self.chain.chain_id, self.chain.log_address)

    def do(self, action: LogAction, by: Key | None = None) -> None:
        act(self.chain, by or self.payer, action)

    def register(self, *, name: bool = True) -> None:
        self.do(Register(PROMISE_BLOCKS), self.key)
        self.do(RegisterAuditor(self.reader_key.public), self.auditor)
        if name:
            self.do(NameAuditors((self.auditor.address,)), self.key)

    def draft(
        self,
        number: int,
        *,
        sequence: int | None = None,
        to: AuditorKey | None = None,
        at: bytes | None = None,
        **changes: Any,
    ) -> Any:
        """(entry, sealed record, record) of answer `number`, in no log yet. to, at: key and address of who can open."""
        head = self.chain.head().number
        record = Record(DECODING, sha256(b"salt %d" % number).digest(), b"question %d" % number, b"answer %d" % number)
        place = self.log.size if sequence is None else sequence
        blank = Entry(
            self.chain.chain_id,
            self.chain.log_address,
            self.key.address,
            place,
            1_750_000_000_000 + number,
            head,
            head + PROMISE_BLOCKS,
            self.bundle,
            *[bytes(32)] * 4,
        )
        sealed_to = Auditor(self.auditor.address if at is None else at, (to or self.reader_key).public)
        return *enter(replace(blank, **changes | record.digests()), record, Envelope.to([sealed_to])), record

    def answer(self, number: int, **changes: Any) -> Receipt:
        entry, sealed, record = self.draft(number, **changes)
        self.log.append([entry.encode()])
        self.put_record(self.log.size - 1, sealed)
        receipt = issue(self.key.secret, entry, record)
        self.receipts.append(receipt)
        return receipt

    def answers(self, count: int) -> None:
        """Many at once: one fsync."""
        drafts = [self.draft(number, sequence=number) for number in range(self.log.size, self.log.size + count)]
        first = self.log.append([entry.encode() for entry, _, _ in drafts])
        for place, (entry, sealed, record) in enumerate(drafts, first):
            self.put_record(place, sealed)
            self.receipts.append(issue(self.key.secret, entry, record))

    def put_record(self, place: int, sealed: bytes, folder: Path | None = None) -> None:
        """In its file, whose others stay: of this house, or of a copy."""
        path = (folder or self.folder) / records_path(place // RECORDS)
        found = split_records(path.read_bytes()) if path.exists() else []
        found[place % RECORDS : place % RECORDS + 1] = [sealed]
        self.write(str(path), encode_records(found))

    def record(self, place: int) -> bytes:
        return split_records((self.folder / records_path(place // RECORDS)).read_bytes())[place % RECORDS]

    def write(self, path: str, data: bytes) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_bytes(data)

    # ---- checkpoints

    def signed(self, statement: Checkpoint | Promise) -> bytes:
        return sign(self.key.secret, self.domain, statement)

    def anchor(self) -> None:
        """Tiles first, then the file, then the chain."""
        self.note()
        old, size = self.chain.log_server(self.key.address).size, self.log.size
        proof, root = tuple(self.log.tree().consistency(old)), self.log.root()
        self.do(PostCheckpoint(self.key.address, size, root, proof, self.signed(Checkpoint(size, root))))

    def note(self, checkpoint: Checkpoint | None = None) -> None:
        self.log.publish()
        shown = checkpoint or Checkpoint(self.log.size, self.log.root())
        self.write("checkpoint", encode_note(self.domain, self.key.address, shown, self.signed(shown)))

    # ---- what users keep

    def kept(self, sequence: int) -> Kept:
        return Kept(self.receipts[sequence], b"question %d" % sequence, b"answer %d" % sequence)

    def keep(self, sequence: int, folder: Path, kept: Kept | None = None) -> str:
        """As a user's folder on the disk."""
        kept = kept or self.kept(sequence)
        folder.mkdir(parents=True)
        (folder / "receipt.json").write_bytes(kept.receipt.encode())
        (folder / "request").write_bytes(kept.request or b"")
        (folder / "response").write_bytes(kept.response or b"")
        return str(folder)

    def copy(self, to: Path) -> Path:
        """Its files, to spoil."""
        shutil.copytree(self.folder, to)
        return to

    def files(self) -> dict[str, bytes]:
        """What it would publish as a directory."""
        paths = [path for path in sorted(self.folder.rglob("*")) if path.is_file()]
        named = {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in paths}
        return {name: data for name, data in named.items() if name.startswith(("tile/", "records/", "checkpoint"))}


Pages = Callable[[str], tuple[int, str, bytes] | None]


@contextmanager
def served(pages: Pages) -> Iterator[str]:
    """A web server that answers as it is told: status, media type, body; None: it says nothing."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = pages(self.path)
            if found is None:
                ended.wait(5)
                return
            status, kind, body = found
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        ended.set()
        server.shutdown()
        server.server_close()


def pages_of(folder: Path) -> Pages:
    """The files of a log under /log/, as an honest server shows them."""

    def page(path: str) -> tuple[int, str, bytes]:
        file = folder / path.removeprefix("/log/")
        kind = {"checkpoint": "text/plain; charset=utf-8", "published": "application/json"}.get(file.name)
        if not path.startswith("/log/") or not file.is_file():
            return 404, "text/plain", b"not here"
        return 200, kind or "application/octet-stream", file.read_bytes()

    return page


@pytest.fixture(scope="session")
def new_house(named_key: Callable[[str], Key]) -> Callable[..., House]:
    """A registered server with nothing in its log, on a twin of its own or on a federation's chain."""

    def make(folder: Path, federation: Any = None, *, register: bool = True, **changes: Any) -> House:
        people = [named_key(f"owner {number}") for number in range(3)]
        if federation is None:
            balances = {key.address: 1000 * ETHER for key in people}
            admin = people[0].address
            chain = TwinChain(admin=admin, coordinator=admin, balances=balances, answer_blocks=ANSWER_BLOCKS)
            house = House(chain, chain.mine, folder, *people, **changes)
        else:
            house = House(federation.chain, federation.mine, folder, *people, **changes)
        if register:
            house.register()
        return house

    return make


@pytest.fixture(scope="session")
def honest(new_house: Callable[..., House], tmp_path_factory: pytest.TempPathFactory) -> House:
    """270 answers, anchored at 3, 200 and 270. Read only: its chain and its folder are shared."""
    house = new_house(tmp_path_factory.mktemp("honest") / "log")
    for count in (3, 197, 70):
        house.answers(count)
        house.anchor()
    return house


@pytest.fixture
def on_chain(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Make this chain the one that `--rpc` opens."""

    def use(chain: Any) -> None:
        for module in (audit_cli, inference_cli):
            monkeypatch.setattr(module, "open_chain", lambda places: chain)

    return use


@pytest.fixture
def every_model_final(monkeypatch: pytest.MonkeyPatch) -> None:
    """For chains with no rounds on them: whose a model is, is asked in test_origin.py."""

    def origin(chain: Any, contents: Any, bundle: bytes, log: Any, **_: Any) -> Origin:
        history = History(Domain(chain.chain_id, chain.rounds_address))
        return Origin(history, 1, (passed(Name.MODEL, "final"),))

    monkeypatch.setattr(inference_cli, "audit_origin", origin)


@pytest.fixture(scope="session")
def run() -> Callable[..., Result]:
    def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
        result = CliRunner().invoke(audit_cli.app, list(map(str, arguments)), env=env)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture(scope="session")
def serve_pages() -> Callable[[Pages], Any]:
    return served


@pytest.fixture(scope="session")
def honest_pages() -> Callable[[Path], Pages]:
    return pages_of
