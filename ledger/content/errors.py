"""Errors of the content store: who is at fault, the author of the content, its carrier, the wire, or this machine.

LocalFault
├── NotPublishable     what we were asked to publish cannot be named by the profile (a bad path, too many entries)
├── ReadOnlyStore      a gateway was asked to store something
├── StoreFull          no space left; nothing half written
├── StoreDamaged       a stored block no longer has its digest; names the file and the remedy
└── StoreUnusable      the store's folder cannot be read or written
PeerFault
├── ContentInvalid     bytes with the right digest that break a rule: the author's fault, the same on every transport
│   ├── LimitExceeded      more files, bytes or levels than the caller allows
│   ├── NameRefused        a path that no honest author writes
│   └── NotCanonicalBlock  not the one encoding, or not the one layout, of these contents
└── CarrierLied        bytes that are not what was asked for: the carrier's fault, another may do better
    ├── BlockMismatch      a block whose bytes do not hash to its CID
    └── CarInvalid         a CAR that is truncated, padded or malformed
WireFault
├── ContentMissing     nobody asked had it; `attempts` says who was asked and what each did
└── StoreUnavailable   a store did not answer, refused, or was too slow
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proofs.errors import LocalFault, PeerFault, WireFault

if TYPE_CHECKING:
    from ledger.content.cid import Cid


class NotPublishable(LocalFault):
    """The profile has no name for this: a bad path, a file where a folder is, or too many entries in one folder."""


class ReadOnlyStore(LocalFault):
    """This store can only be read."""


class StoreFull(LocalFault):
    """No space left on the device. What was stored before is intact; what was being stored is not there."""


class StoreDamaged(LocalFault):
    """A block on this machine's disk is not what its name says."""


class StoreUnusable(LocalFault):
    """The operating system refused to read or write the store's folder."""


class ContentInvalid(PeerFault):
    """Bytes that hash to the digest asked for and still break a rule: only their author can be blamed."""


class LimitExceeded(ContentInvalid):
    """More files, bytes or levels than the caller allows; found before they were fetched."""


class NameRefused(ContentInvalid):
    """An empty, absolute, parent, over-long or unprintable name."""


class NotCanonicalBlock(ContentInvalid):
    """A block, or a tree of blocks, that the profile's importer would never have written."""


class CarrierLied(PeerFault):
    """The carrier's bytes are not those of the CID that it was asked for."""


class BlockMismatch(CarrierLied):
    """Bytes that do not hash to their CID."""

    def __init__(self, cid: Cid, size: int) -> None:
        self.cid = cid
        super().__init__(f"{size} bytes that do not hash to {cid}")


class CarInvalid(CarrierLied):
    """Bytes that are not a CAR v1 of what was asked for."""


class StoreUnavailable(WireFault):
    """A store or gateway did not answer as it should; the same request may succeed later."""


@dataclass(frozen=True)
class Attempt:
    """One place that was asked. `lied`: it answered with something else than the content (a PeerFault)."""

    where: str
    what: str
    lied: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {'LIED: ' if self.lied else ''}{self.what}"


class ContentMissing(WireFault):
    """Nobody who was asked had the content. `attempts` lists them, in the order in which they were asked."""

    def __init__(self, wanted: object, attempts: Sequence[Attempt]) -> None:
        self.attempts = tuple(attempts)
        super().__init__(f"{wanted} is missing; " + "; ".join(map(str, self.attempts)))
