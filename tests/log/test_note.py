"""The file beside the tiles is a C2SP checkpoint, and its signature is the one that the contract takes."""

from __future__ import annotations

import base64

import pytest
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from ledger.eip712 import Domain
from ledger.log.note import NoteInvalid, decode_note, encode_note, origin
from ledger.log.statements import Checkpoint, sign
from ledger.signing import Key

KEY, OTHER = Key.of(keccak(text="server")), Key.of(keccak(text="other"))
DOMAIN = Domain(31337, b"\xaa" * 20)
CHECKPOINT = Checkpoint(20852163, keccak(b"root"))
SIGNATURE = sign(KEY.secret, DOMAIN, CHECKPOINT)
NOTE = encode_note(DOMAIN, KEY.address, CHECKPOINT, SIGNATURE)
LINES = NOTE.decode().split("\n")
WITNESS = "\u2014 witness.example " + base64.b64encode(bytes(80)).decode()


def joined(*lines: str) -> bytes:
    return "\n".join(lines).encode()


@given(st.integers(0, 2**64 - 1), st.binary(min_size=32, max_size=32))
def test_a_checkpoint_is_read_back_with_its_signature(size: int, root: bytes) -> None:
    checkpoint = Checkpoint(size, root)
    signature = sign(KEY.secret, DOMAIN, checkpoint)
    note = encode_note(DOMAIN, KEY.address, checkpoint, signature)
    assert decode_note(DOMAIN, KEY.address, note) == (checkpoint, signature)


def test_the_text_is_that_of_the_specification() -> None:
    assert LINES[0] == origin(DOMAIN, KEY.address) == f"candor/31337/{'aa' * 20}/{KEY.address.hex()}"
    assert LINES[1:4] == ["20852163", base64.b64encode(CHECKPOINT.root).decode(), ""]
    assert LINES[4].startswith(f"\u2014 {LINES[0]} ")
    assert LINES[5:] == [""]


def test_witnesses_may_sign_too_and_are_not_ours_to_judge() -> None:
    for note in (joined(*LINES[:4], WITNESS, *LINES[4:]), joined(*LINES[:5], WITNESS, "")):
        assert decode_note(DOMAIN, KEY.address, note) == (CHECKPOINT, SIGNATURE)


NAME, SIZE, ROOT, _, LINE, _ = LINES
BAD = [
    b"", b"\n", b"\n\n", b"\xff" + NOTE, NOTE[:-1], NOTE + b"\n", NOTE + b"more\n", NOTE.replace(b"\n", b"\r\n"),
    joined(NAME, SIZE, ROOT, "", WITNESS, ""), joined(NAME, SIZE, ROOT, "", ""), joined(NAME, SIZE, ROOT, LINE, ""),
    joined("candor/1/x/y", SIZE, ROOT, "", LINE, ""), joined(NAME, "0" + SIZE, ROOT, "", LINE, ""),
    joined(NAME, "-1", ROOT, "", LINE, ""), joined(NAME, str(2**64), ROOT, "", LINE, ""),
    joined(NAME, "٣", ROOT, "", LINE, ""),
    joined(NAME, "9" * 5000, ROOT, "", LINE, ""), joined(NAME, "", ROOT, "", LINE, ""),
    joined(NAME, SIZE, "", "", LINE, ""),
    joined(NAME, SIZE, ROOT[:-4], "", LINE, ""), joined(NAME, SIZE, ROOT, "extension", "", LINE, ""),
    joined(NAME, SIZE, ROOT, "", LINE[2:], ""), joined(NAME, SIZE, ROOT, "", LINE[:-4], ""),
    joined(NAME, SIZE, ROOT, "", LINE + "=", ""), joined(NAME, SIZE, ROOT, "", *[WITNESS] * 16, LINE, ""),
    joined(NAME, "20852164", ROOT, "", LINE, ""), bytes(1 << 18),
]  # fmt: skip


@pytest.mark.parametrize("place", range(len(BAD)))
def test_anything_else_is_refused(place: int) -> None:
    with pytest.raises(NoteInvalid):
        decode_note(DOMAIN, KEY.address, BAD[place])


def test_a_note_of_another_log_or_key_is_refused() -> None:
    forged = encode_note(DOMAIN, KEY.address, CHECKPOINT, sign(OTHER.secret, DOMAIN, CHECKPOINT))
    elsewhere = encode_note(DOMAIN, KEY.address, CHECKPOINT, sign(KEY.secret, Domain(1, DOMAIN.contract), CHECKPOINT))
    nonsense = encode_note(DOMAIN, KEY.address, CHECKPOINT, bytes(65))
    for note in (forged, elsewhere, nonsense):
        with pytest.raises(NoteInvalid):
            decode_note(DOMAIN, KEY.address, note)
    for domain, server in ((Domain(1, DOMAIN.contract), KEY.address), (DOMAIN, OTHER.address)):
        with pytest.raises(NoteInvalid):
            decode_note(domain, server, NOTE)


@given(st.data())
def test_a_changed_bit_is_refused(data: st.DataObject) -> None:
    changed = bytearray(NOTE)
    changed[data.draw(st.integers(0, len(NOTE) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(NoteInvalid):
        decode_note(DOMAIN, KEY.address, bytes(changed))
