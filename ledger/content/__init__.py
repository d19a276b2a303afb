"""Content by its digest: publish a directory, read it back verified, whatever transport brought the bytes.

cid, varint, dagpb    names and encodings of blocks        unixfs   files → blocks (profile unixfs-v1-2025)
reader                blocks → files, the one verifier     car      files of blocks
store                 the interface and its memory twin    embedded, gateway, kubo, peered   who holds the bytes
server                the gateway that every node serves   errors   whose fault it was
"""

from ledger.content.cid import Cid, CidInvalid, Codec
from ledger.content.embedded import EmbeddedStore
from ledger.content.errors import (
    Attempt,
    BlockMismatch,
    CarInvalid,
    CarrierLied,
    ContentInvalid,
    ContentMissing,
    LimitExceeded,
    NameRefused,
    NotCanonicalBlock,
    NotPublishable,
    ReadOnlyStore,
    StoreDamaged,
    StoreFull,
    StoreUnavailable,
    StoreUnusable,
)
from ledger.content.gateway import GatewayStore
from ledger.content.http_get import GatewayUrlInvalid
from ledger.content.kubo import KuboStore
from ledger.content.peered import PeeredStore
from ledger.content.reader import Limits
from ledger.content.server import GatewayServer, Reply, Serving, serve, write_reply
from ledger.content.store import ContentStore, MemoryStore

__all__ = [
    "Attempt",
    "BlockMismatch",
    "CarInvalid",
    "CarrierLied",
    "Cid",
    "CidInvalid",
    "Codec",
    "ContentInvalid",
    "ContentMissing",
    "ContentStore",
    "EmbeddedStore",
    "GatewayServer",
    "GatewayStore",
    "GatewayUrlInvalid",
    "KuboStore",
    "LimitExceeded",
    "Limits",
    "MemoryStore",
    "NameRefused",
    "NotCanonicalBlock",
    "NotPublishable",
    "PeeredStore",
    "ReadOnlyStore",
    "Reply",
    "Serving",
    "StoreDamaged",
    "StoreFull",
    "StoreUnavailable",
    "StoreUnusable",
    "serve",
    "write_reply",
]
