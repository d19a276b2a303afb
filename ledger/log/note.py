"""A checkpoint as the file `checkpoint` that lies beside the tiles: C2SP tlog-checkpoint, a signed note.

    candor/<chain id>/<contract>/<server>        the origin, and the name of the key: one log, wherever its files are
    <size>
    <root, base64>
    <empty line>
    — <origin> <base64 of: key ID (4 bytes) ‖ signature (65)>

The signature is the one that the contract takes (ledger.log.statements), over the EIP-712 digest of the same three
facts and not over the text; its type in the key ID is 0xff, C2SP's for types of other makers, with our label. So a file
that anybody passes around is what `checkpoint` anchors and `reportFork` takes as evidence. Lines of other signers
(witnesses) may be there too.

PeerFault
└── NoteInvalid   not a checkpoint of this log with a signature of its server
"""

from __future__ import annotations

import base64
import binascii
from hashlib import sha256
from typing import Final

from ledger.eip712 import Domain, SignatureInvalid
from ledger.log.statements import Checkpoint, signer
from proofs.errors import PeerFault
from proofs.merkle import HASH_BYTES

PATH: Final = "checkpoint"
MAX_NOTE_BYTES: Final = 1 << 17
MAX_SIGNATURES: Final = 16
SIGNATURE_TYPE: Final = b"\xffcandor/checkpoint/1"
SIGNATURE_BYTES: Final = 4 + 65


class NoteInvalid(PeerFault):
    """Malformed, of another log, or not signed by its server."""


def origin(domain: Domain, server: bytes) -> str:
    return f"candor/{domain.chain_id}/{domain.contract.hex()}/{server.hex()}"


def encode_note(domain: Domain, server: bytes, checkpoint: Checkpoint, signature: bytes) -> bytes:
    name = origin(domain, server)
    line = base64.b64encode(_key_id(name, server) + signature).decode()
    root = base64.b64encode(checkpoint.root).decode()
    return f"{name}\n{checkpoint.size}\n{root}\n\n\u2014 {name} {line}\n".encode()


def decode_note(domain: Domain, server: bytes, data: bytes) -> tuple[Checkpoint, bytes]:
    """The checkpoint and the server's signature on it, checked. Raises NoteInvalid."""
    name = origin(domain, server)
    text, signatures = _parts(data)
    if len(text) != 3 or text[0] != name:
        raise NoteInvalid(f"expected three lines, the first of them {name}")
    if not text[1].isdecimal() or not text[1].isascii() or str(int(text[1][:20])) != text[1] or int(text[1]) >= 2**64:
        raise NoteInvalid("the size is not a number below 2^64 in its one spelling")
    checkpoint = Checkpoint(int(text[1]), _base64(text[2], HASH_BYTES))
    for line in signatures:
        key_name, _, value = line.removeprefix("\u2014 ").partition(" ")
        if key_name == name and _base64(value)[:4] == _key_id(name, server):
            return checkpoint, _checked(domain, server, checkpoint, _base64(value, SIGNATURE_BYTES)[4:])
    raise NoteInvalid("no signature of this log's server")


def _parts(data: bytes) -> tuple[list[str], list[str]]:
    """Lines of the text, and of the signatures."""
    try:
        note = data.decode() if len(data) <= MAX_NOTE_BYTES else ""
    except UnicodeDecodeError as error:
        raise NoteInvalid("a note is UTF-8") from error
    text, _, signatures = note.rpartition("\n\n")
    lines = signatures.split("\n")
    well = note.endswith("\n") and not any(char < " " and char != "\n" for char in note) and bool(text)
    if not well or lines[-1] or not 0 < len(lines) - 1 <= MAX_SIGNATURES:
        raise NoteInvalid(f"not a note with 1 to {MAX_SIGNATURES} signatures")
    if not all(line.startswith("\u2014 ") for line in lines[:-1]):
        raise NoteInvalid("a signature's line begins with a dash")
    return text.split("\n"), lines[:-1]


def _checked(domain: Domain, server: bytes, checkpoint: Checkpoint, signature: bytes) -> bytes:
    try:
        found = signer(domain, checkpoint, signature)
    except SignatureInvalid as error:
        raise NoteInvalid(str(error)) from error
    if found != server:
        raise NoteInvalid(f"signed by 0x{found.hex()}, not by the server 0x{server.hex()}")
    return signature


def _key_id(name: str, server: bytes) -> bytes:
    return sha256(name.encode() + b"\n" + SIGNATURE_TYPE + server).digest()[:4]


def _base64(text: str, size: int | None = None) -> bytes:
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise NoteInvalid("not base64") from error
    if base64.b64encode(value).decode() != text or (size is not None and len(value) != size):
        raise NoteInvalid(f"{len(value)} bytes of base64, or not in its one spelling")
    return value
