"""Receipts: what a server gives with each answer, and the entry of its log that follows from one.

    entry    what everybody sees: who, when, which model, and salted digests; its leaf hash stands in the log
    receipt  what the user keeps: the entry, how the answer was decoded, the salt, and the server's signature
    record   what auditors decrypt: decoding, salt, request and response (ledger.log.sealing)

A digest of the entry is HMAC-SHA256 of the text under a salt that is made from the receipt's one salt for that text
alone: who shows a request and its salt gives nothing away of the response. The salt is 32 random bytes, so nobody finds
a short text by trying. The signature is on the promise (ledger.log.statements), and so on sequence, deadline and leaf;
the contract needs no more to judge it.

`time_ms` is the server's clock and binds nobody: deadlines are blocks.

PeerFault
└── ReceiptRefused   `.rule` says which rule is broken
"""

from __future__ import annotations

import hmac
import secrets
from binascii import hexlify
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from fractions import Fraction
from functools import cached_property
from typing import Any, Final

from ledger import canonical
from ledger.adapter import MAX_PARENTS
from ledger.canonical import MAX_INTEGER, FieldInvalid, Fields, NotCanonical, format_fraction
from ledger.eip712 import Domain, SignatureInvalid
from ledger.log import statements
from ledger.log.sealing import FORMAT as SEALED_FORMAT
from ledger.log.sealing import AuditorKey, Envelope, unseal
from ledger.log.statements import Promise
from proofs.errors import LocalFault, PeerFault
from proofs.merkle import InclusionInvalid, check_inclusion, leaf_hash

ENTRY_FORMAT: Final = "candor/entry/1"
RECEIPT_FORMAT: Final = "candor/receipt/1"
RECORD_FORMAT: Final = "candor/record/1"
MAX_RECEIPT_BYTES: Final = 1 << 14
SALT_BYTES: Final = 32
SIGNATURE_BYTES: Final = 65
MAX_STOPS: Final = 16
NO_DIGEST: Final = bytes(32)
_RECORD: Final = b'{"decoding":%s,"format":"candor/record/1","request_bytes":%d,"response_bytes":%d,"salt":"%s"}'
_ENTRY: Final = (
    b'{"bundle":"%s","chain_id":%d,"contract":"%s","due_block":%d,"format":"candor/entry/1","issued_block":%d,'
    b'"request":"%s","response":"%s","sealed":"%s","sequence":%d,"server":"%s","terms":"%s","time_ms":%d}'
)


class ReceiptRule(StrEnum):
    """Each value says what a receipt must be."""

    FORMAT = "canonical bytes of a receipt, an entry or a record"
    DOMAIN = "for this chain and contract"
    SERVER = "of the server that was asked"
    SIGNATURE = "signed by its server"
    PROMISE = "due within the delay that the server registered"
    ISSUED = "issued at a block that exists"
    BUNDLE = "by the model that was asked for"
    TERMS = "decoded as it says"
    REQUEST = "for this request"
    RESPONSE = "for this response"
    SEALED = "beside the record that its entry names"
    INCLUDED = "in the log at its place"


class ReceiptRefused(PeerFault):
    """A receipt, entry or record that breaks a rule."""

    def __init__(self, rule: ReceiptRule, found: str) -> None:
        self.rule = rule
        super().__init__(f"{rule.name}: it must be {rule.value}; {found}")


@dataclass(frozen=True)
class Decoding:
    """How an answer was made. `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 leave all tokens in.

    leave_out: parents of a mixture that did not count, by their bundles, ascending; the others' shares sum to 1.
    """

    max_tokens: int
    temperature: Fraction
    top_p: Fraction
    top_k: int
    seed: int
    stop: tuple[str, ...] = ()
    leave_out: tuple[bytes, ...] = ()

    def to_json(self) -> dict[str, Any]:
        masked = {"leave_out": [bundle.hex() for bundle in self.leave_out]} if self.leave_out else {}
        return masked | {
            "max_tokens": self.max_tokens,
            "seed": self.seed,
            "stop": list(self.stop),
            "temperature": format_fraction(self.temperature),
            "top_k": self.top_k,
            "top_p": format_fraction(self.top_p),
        }

    @cached_property
    def encoded(self) -> bytes:
        """Once: it is in record, receipt and entry."""
        return canonical.encode(self.to_json())

    @classmethod
    def from_json(cls, value: Any) -> Decoding:
        reader = Fields(value, "decoding")
        found = cls(
            max_tokens=reader.integer("max_tokens", 0, 2**31 - 1),
            temperature=reader.fraction("temperature"),
            top_p=reader.fraction("top_p", positive=True),
            top_k=reader.integer("top_k", 0, 2**31 - 1),
            seed=reader.integer("seed", 0, MAX_INTEGER),
            stop=tuple(reader.array("stop", max_items=MAX_STOPS)),
            leave_out=_left_out(reader) if "leave_out" in reader else (),
        )
        reader.done()
        if found.top_p > 1 or not all(isinstance(text, str) and 0 < len(text) <= 256 for text in found.stop):
            raise FieldInvalid("decoding: top_p is above 1, or a stop text is none")
        return found


def _left_out(reader: Fields) -> tuple[bytes, ...]:
    """Some, in one order: a decoding has one sequence of bytes."""
    items = reader.array("leave_out", max_items=MAX_PARENTS - 1)
    found = tuple(Fields({"bundle": item}, "decoding.leave_out").hex32("bundle") for item in items)
    if not found or list(found) != sorted(set(found)):
        raise FieldInvalid("decoding: leave_out is empty, or not in ascending order")
    return found


@dataclass(frozen=True)
class Entry:
    """A leaf of the log. `contract` is the AuditLog's address, `bundle` the digest by which the chain names the model;
    `request`, `response` and `terms` (the decoding) are salted, `sealed` is the SHA-256 of the sealed record."""

    chain_id: int
    contract: bytes
    server: bytes
    sequence: int
    time_ms: int
    issued_block: int
    due_block: int
    bundle: bytes
    request: bytes
    response: bytes
    terms: bytes
    sealed: bytes

    @property
    def domain(self) -> Domain:
        return Domain(self.chain_id, self.contract)

    @property
    def leaf(self) -> bytes:
        return leaf_hash(self.encode())

    @property
    def promise(self) -> Promise:
        return Promise(self.sequence, self.due_block, self.leaf)

    @property
    def context(self) -> bytes:
        """What the sealed record is bound to: all of the entry but the digest of that record."""
        blank = replace(self, sealed=NO_DIGEST) if any(self.sealed) else self
        return canonical.digest(SEALED_FORMAT.encode() + b"\0" + blank.encode())

    def encode(self) -> bytes:
        return self._encoded

    @cached_property
    def _encoded(self) -> bytes:
        """What `canonical.encode` makes of `to_json`; a server asks for it with every answer, more than once."""
        whole = (self.chain_id, self.due_block, self.issued_block, self.sequence, self.time_ms)
        if not 0 <= min(whole) <= max(whole) <= MAX_INTEGER:
            raise LocalFault(f"an entry's numbers are 0 to 2^53 - 1, not {whole}")
        return _ENTRY % (
            hexlify(self.bundle),
            self.chain_id,
            hexlify(self.contract),
            self.due_block,
            self.issued_block,
            hexlify(self.request),
            hexlify(self.response),
            hexlify(self.sealed),
            self.sequence,
            hexlify(self.server),
            hexlify(self.terms),
            self.time_ms,
        )

    @classmethod
    def decode(cls, data: bytes) -> Entry:
        """Raises ReceiptRefused."""
        return cls.from_json(_json(data))

    def to_json(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        plain = {name: value.hex() if isinstance(value, bytes) else value for name, value in values.items()}
        return {"format": ENTRY_FORMAT, **plain}

    @classmethod
    def from_json(cls, value: Any) -> Entry:
        try:
            reader = Fields(value, "entry")
            reader.text("format", one_of=(ENTRY_FORMAT,))
            whole = ("chain_id", "sequence", "time_ms", "issued_block", "due_block")
            values: dict[str, Any] = {name: reader.integer(name, 0, MAX_INTEGER) for name in whole}
            values |= {name: reader.octets(name, 20) for name in ("contract", "server")}
            values |= {name: reader.hex32(name) for name in ("bundle", "request", "response", "terms", "sealed")}
            reader.done()
        except FieldInvalid as error:
            raise ReceiptRefused(ReceiptRule.FORMAT, str(error)) from error
        return cls(**values)


@dataclass(frozen=True)
class Receipt:
    """Proof of what was asked and answered, for whoever also holds the texts."""

    entry: Entry
    decoding: Decoding
    salt: bytes
    signature: bytes

    def encode(self) -> bytes:
        texts = {"format": RECEIPT_FORMAT, "salt": self.salt.hex(), "signature": self.signature.hex()}
        whole = {"entry": self.entry.encode(), "decoding": self.decoding.encoded}
        return canonical.encode_object({name: b'"%s"' % text.encode() for name, text in texts.items()} | whole)

    @classmethod
    def decode(cls, data: bytes) -> Receipt:
        """Raises ReceiptRefused."""
        try:
            reader = Fields(_json(data), "receipt")
            reader.text("format", one_of=(RECEIPT_FORMAT,))
            found = cls(
                Entry.from_json(reader.take("entry")),
                Decoding.from_json(reader.take("decoding")),
                reader.octets("salt", SALT_BYTES),
                reader.octets("signature", SIGNATURE_BYTES),
            )
            reader.done()
        except FieldInvalid as error:
            raise ReceiptRefused(ReceiptRule.FORMAT, str(error)) from error
        return found


@dataclass(frozen=True)
class Record:
    """Everything about one answer. `request` and `response` are the bytes as they were sent."""

    decoding: Decoding
    salt: bytes
    request: bytes
    response: bytes

    def encode(self) -> bytes:
        """Length of the head (4 bytes) ‖ head, canonical JSON ‖ request ‖ response."""
        head = _RECORD % (self.decoding.encoded, len(self.request), len(self.response), hexlify(self.salt))
        return len(head).to_bytes(4) + head + self.request + self.response

    @classmethod
    def decode(cls, data: bytes) -> Record:
        """Raises ReceiptRefused."""
        start = 4 + int.from_bytes(data[:4])
        try:
            reader = Fields(_json(data[4:start] if start <= len(data) else b""), "record")
            reader.text("format", one_of=(RECORD_FORMAT,))
            decoding = Decoding.from_json(reader.take("decoding"))
            salt = reader.octets("salt", SALT_BYTES)
            sizes = [reader.integer(name, 0, MAX_INTEGER) for name in ("request_bytes", "response_bytes")]
            reader.done()
        except FieldInvalid as error:
            raise ReceiptRefused(ReceiptRule.FORMAT, str(error)) from error
        if len(data) != start + sum(sizes):
            raise ReceiptRefused(ReceiptRule.FORMAT, f"{len(data)} bytes, the head says {start + sum(sizes)}")
        return cls(decoding, salt, data[start : start + sizes[0]], data[start + sizes[0] :])

    def digests(self) -> dict[str, bytes]:
        """The salted ones of an entry."""
        texts = {"request": self.request, "response": self.response, "terms": self.decoding.encoded}
        return {name: salted(field_salt(self.salt, name), text) for name, text in texts.items()}


@dataclass(frozen=True)
class Server:
    """Who is believed about what, as the chain has it."""

    domain: Domain
    address: bytes
    promise_blocks: int


@dataclass(frozen=True)
class Owed:
    """What a good receipt is still owed: its leaf in the log, by a block."""

    promise: Promise

    def settle(self, size: int, root: bytes, path: list[bytes]) -> None:
        """It is in the log that has this root. Raises ReceiptRefused."""
        try:
            check_inclusion(self.promise.leaf, self.promise.sequence, size, path, root)
        except InclusionInvalid as error:
            raise ReceiptRefused(ReceiptRule.INCLUDED, str(error)) from error

    def is_due(self, block: int) -> bool:
        """Not covered by a checkpoint now, it is an omission that can be reported."""
        return block > self.promise.due_block


def fresh_salt() -> bytes:
    return secrets.token_bytes(SALT_BYTES)


def field_salt(salt: bytes, name: str) -> bytes:
    """The salt of one text: enough to show that one, useless for the others."""
    return hmac.digest(salt, b"candor/salt/1/" + name.encode(), "sha256")


def salted(salt: bytes, text: bytes) -> bytes:
    if len(salt) != SALT_BYTES:
        raise LocalFault(f"a salt has {SALT_BYTES} bytes")
    return hmac.digest(salt, text, "sha256")


def enter(unsealed: Entry, record: Record, envelope: Envelope) -> tuple[Entry, bytes]:
    """The entry of a record, and the record sealed. unsealed: with the record's digests; `sealed` is filled in here."""
    sealed = envelope.seal(record.encode(), unsealed.context)
    return replace(unsealed, sealed=canonical.digest(sealed)), sealed


def issue(secret: bytes, entry: Entry, record: Record) -> Receipt:
    """To be called once the entry is durable at its place (LogStore.append), and not before."""
    signature = statements.sign(secret, entry.domain, entry.promise)
    return Receipt(entry, record.decoding, record.salt, signature)


def check_receipt(
    receipt: Receipt, server: Server, request: bytes, response: bytes, *, bundle: bytes, head_block: int
) -> Owed:
    """All that can be checked with no log, and of the chain only what `server` and `head_block` say. Returns what is
    still owed. Raises ReceiptRefused.

    head_block: the last block that the user knows to exist when the answer comes. A server that claims to have seen a
    later one would push the deadline back with it.
    """
    entry = receipt.entry
    check_promise(receipt, server, head_block)
    _require(ReceiptRule.BUNDLE, entry.bundle == bundle, f"answered by {entry.bundle.hex()}")
    check_texts(entry, Record(receipt.decoding, receipt.salt, request, response))
    return Owed(entry.promise)


def check_promise(receipt: Receipt, server: Server, head_block: int) -> None:
    """The server's key promised a place by a block, and no later than it may. Raises ReceiptRefused."""
    entry = receipt.entry
    check_signature(receipt, server)
    allowed = entry.issued_block + server.promise_blocks
    _require(ReceiptRule.PROMISE, entry.issued_block < entry.due_block <= allowed, f"due at {entry.due_block}")
    _require(ReceiptRule.ISSUED, entry.issued_block <= head_block, f"issued at {entry.issued_block}")


def check_signature(receipt: Receipt, server: Server) -> None:
    """Whose it is, with no texts at hand. Raises ReceiptRefused."""
    entry = receipt.entry
    _require(ReceiptRule.DOMAIN, entry.domain == server.domain, f"it is for chain {entry.chain_id}")
    _require(ReceiptRule.SERVER, entry.server == server.address, f"it is of 0x{entry.server.hex()}")
    try:
        found = statements.signer(server.domain, entry.promise, receipt.signature)
    except SignatureInvalid as error:
        raise ReceiptRefused(ReceiptRule.SIGNATURE, str(error)) from error
    _require(ReceiptRule.SIGNATURE, found == server.address, f"0x{found.hex()} signed it")


def check_texts(entry: Entry, record: Record) -> None:
    """Are these the texts of the entry? Raises ReceiptRefused."""
    for name, expected in record.digests().items():
        same = hmac.compare_digest(getattr(entry, name), expected)
        _require(ReceiptRule[name.upper()], same, "the entry has another digest")


def open_record(entry: Entry, sealed: bytes, key: AuditorKey) -> Record:
    """An auditor's way in. Raises ReceiptRefused, sealing.SealInvalid, sealing.NotARecipient."""
    _require(ReceiptRule.SEALED, canonical.digest(sealed) == entry.sealed, "the entry names another")
    record = Record.decode(unseal(sealed, key, entry.context))
    check_texts(entry, record)
    return record


def _json(data: bytes) -> Any:
    try:
        return canonical.decode(data, max_bytes=MAX_RECEIPT_BYTES)
    except NotCanonical as error:
        raise ReceiptRefused(ReceiptRule.FORMAT, str(error)) from error


def _require(rule: ReceiptRule, holds: bool, found: str) -> None:
    if not holds:
        raise ReceiptRefused(rule, found)
