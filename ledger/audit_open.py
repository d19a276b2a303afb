"""Where an audit reads from: a chain by its URL, content by folders and gateways. Nothing here is ever written to.

LocalFault
└── NothingToRead   no such folder, no such contract address, or no source was named
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ledger.content.cid import Cid
from ledger.content.embedded import EmbeddedStore
from ledger.content.errors import Attempt, CarrierLied, ContentMissing, StoreDamaged, StoreUnavailable, StoreUnusable
from ledger.content.gateway import GatewayStore
from ledger.content.reader import Limits
from ledger.export import Receipts
from ledger.ports import ChainPort
from proofs.errors import LocalFault

T = TypeVar("T")
MAX_SETTINGS_BYTES = 1 << 20
_NEXT_ONE = (CarrierLied, StoreDamaged, StoreUnavailable, StoreUnusable)


class NothingToRead(LocalFault):
    """The sources named on the command line or in the settings cannot be read."""


class Contents(Protocol):
    """What an audit needs of a content store: verified reads."""

    def get_directory(self, digest: bytes, limits: Limits) -> dict[str, bytes]: ...

    def get_raw(self, digest: bytes, max_bytes: int) -> bytes: ...


class BlockContents(Contents, Protocol):
    """What an export needs: the blocks themselves, also those of a bundle that breaks the format."""

    def get_block(self, cid: Cid) -> bytes: ...


class FirstOf:
    """Sources asked in order; a damaged or lying one is passed over, and named if nobody else has the content."""

    def __init__(self, sources: Sequence[tuple[str, BlockContents]]) -> None:
        self._sources = tuple(sources)

    def get_directory(self, digest: bytes, limits: Limits) -> dict[str, bytes]:
        return self._first(Cid.directory(digest), lambda source: source.get_directory(digest, limits))

    def get_raw(self, digest: bytes, max_bytes: int) -> bytes:
        return self._first(Cid.raw(digest), lambda source: source.get_raw(digest, max_bytes))

    def get_block(self, cid: Cid) -> bytes:
        return self._first(cid, lambda source: source.get_block(cid))

    def _first(self, wanted: Cid, read: Callable[[BlockContents], T]) -> T:
        attempts: list[Attempt] = []
        for where, source in self._sources:
            try:
                return read(source)
            except ContentMissing as missing:
                attempts += missing.attempts
            except _NEXT_ONE as error:
                attempts.append(Attempt(where, str(error), lied=isinstance(error, CarrierLied)))
        raise ContentMissing(wanted, attempts or [Attempt("nowhere", "no content source was named")])


class Chain(ChainPort, Receipts, Protocol):
    """What the commands read of a chain, and act on where they are asked to report."""


def open_chain(places: Places) -> Chain:
    """Raises NothingToRead for a URL or address that was not given, WrongChain or WireFault from the endpoint."""
    if not places.rpc:
        raise NothingToRead("--rpc: no JSON-RPC URL was given")
    from ledger.evm import EvmChain

    return EvmChain(places.rpc, places.contract, log=places.log_contract)


def open_contents(places: Sequence[str]) -> FirstOf:
    """From folders and gateway URLs. Raises NothingToRead for a folder that is not there."""
    return FirstOf([(place, _open_one(place)) for place in places])


def _open_one(place: str) -> BlockContents:
    if place.startswith(("http://", "https://")):
        return GatewayStore([place])
    path = Path(place)
    if not (path / "blocks").is_dir():
        raise NothingToRead(f"{place}: not the folder of a content store (it has no folder `blocks`)")
    return EmbeddedStore(path, writable=False)


@dataclass(frozen=True)
class Places:
    """Where to read: JSON-RPC URL, contract of rounds, first block worth reading, content sources, contract of logs."""

    rpc: str = ""
    rounds: str = ""
    from_block: int = 0
    content: tuple[str, ...] = ()
    audit_log: str = ""

    @property
    def contract(self) -> bytes:
        """20 bytes. Raises NothingToRead."""
        return address_in(self.rounds, "--rounds")

    @property
    def log_contract(self) -> bytes:
        """20 bytes, or none where no log is audited. Raises NothingToRead."""
        return address_in(self.audit_log, "--audit-log") if self.audit_log else b""

    def over(self, settings: Places) -> Places:
        """These places, and those of `settings` where nothing is said here."""
        return replace(
            self,
            rpc=self.rpc or settings.rpc,
            rounds=self.rounds or settings.rounds,
            from_block=self.from_block or settings.from_block,
            content=self.content or settings.content,
            audit_log=self.audit_log or settings.audit_log,
        )


def address_in(text: str, option: str) -> bytes:
    """20 bytes. Raises NothingToRead."""
    try:
        address = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        address = b""
    if len(address) != 20:
        raise NothingToRead(f"{option}: expected an address of 20 bytes in hex, found {text[:80]!r}")
    return address


def places_of(path: Path) -> Places:
    """From TOML with [chain] rpc_url, rounds, start_block, [content] path, peers, [log] contract: a daemon's will do.

    Raises NothingToRead when it cannot be read. Paths in it are relative to the file.
    """
    try:
        if path.stat().st_size > MAX_SETTINGS_BYTES:
            raise NothingToRead(f"{path}: more than {MAX_SETTINGS_BYTES} bytes of settings")
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NothingToRead(f"{path}: cannot be read as TOML ({type(error).__name__})") from error
    chain, content, log = (_table(table, name, path) for name in ("chain", "content", "log"))
    folder = _typed(content, "path", str, "", path)
    sources = [str(path.parent / folder)] if folder else []
    peers = _typed(content, "peers", list, [], path)
    return Places(
        rpc=_typed(chain, "rpc_url", str, "", path),
        rounds=_typed(chain, "rounds", str, "", path),
        from_block=_typed(chain, "start_block", int, 0, path),
        content=tuple(sources + [str(peer) for peer in peers]),
        audit_log=_typed(log, "contract", str, "", path),
    )


def _table(table: dict[str, Any], key: str, path: Path) -> dict[str, Any]:
    return _typed(table, key, dict, {}, path)


def _typed(table: dict[str, Any], key: str, kind: type[T], default: T, path: Path) -> T:
    value = table.get(key, default)
    if type(value) is not kind:
        raise NothingToRead(f"{path}: {key} must be a {kind.__name__}")
    return value
