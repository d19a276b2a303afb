"""The contract link: code is Candor's only if nothing but its immutables differs, and those are the right ones."""

from __future__ import annotations

from typing import Any

import pytest
import rlp
from eth_utils.crypto import keccak
from trie import HexaryTrie

from ledger.audit_code import CodeDiffers, check_account, check_code, code_link, immutables
from ledger.compiled import bytecode
from ledger.eip712 import Domain
from ledger.patricia import ProofInvalid, prove
from ledger.report import Status

DOMAIN = Domain(31337, b"\x0a" * 20)
FEDERATION = b"\x0b" * 20


class Shown:
    """A source that shows code."""

    federation_address = FEDERATION

    def __init__(self, codes: dict[bytes, bytes]) -> None:
        self.codes = codes

    def code(self, address: bytes) -> bytes | None:
        return self.codes.get(address)


def left_behind(name: Any) -> bytes:
    """What the constructor returns: all after its last two instructions."""
    return bytecode(name).partition(bytes.fromhex("f3fe"))[2]


def federation_code() -> bytes:
    return left_behind("Federation")


def filled(word: bytes) -> bytes:
    """Rounds with one of its holes filled by `word`."""
    code = left_behind("Rounds")
    at = code.index(b"\x7f" + bytes(32)) + 1
    return code[:at] + word + code[at + 32 :]


@pytest.mark.parametrize("position", range(8))
def test_a_hole_may_hold_each_of_the_constructors_words(position: int) -> None:
    check_code("Rounds", filled(immutables(DOMAIN, FEDERATION)[position]), immutables(DOMAIN, FEDERATION))


@pytest.mark.parametrize(
    "code",
    [
        b"",
        b"\x00",
        bytes(30_000),
        filled(b"\x0c" * 32),
        filled(FEDERATION.rjust(32, b"\x01")),
        federation_code()[:-1] + b"\xff",
        b"\xff" + federation_code()[1:],
        federation_code()[1:],
        federation_code() + b"\x00",
        bytecode("Federation"),
        bytecode("Federation")[-500:],
    ],
)
def test_any_other_difference_is_refused(code: bytes) -> None:
    for name, words in (("Rounds", immutables(DOMAIN, FEDERATION)), ("Federation", ())):
        with pytest.raises(CodeDiffers):
            check_code(name, code, words)  # type: ignore[arg-type]


def test_the_link_passes_fails_or_is_not_proven() -> None:
    good = {DOMAIN.contract: filled(bytes(32)), FEDERATION: federation_code()}
    assert code_link(Shown(good), DOMAIN).status is Status.PASS
    assert code_link(Shown(good | {FEDERATION: b"\x60"}), DOMAIN).status is Status.FAIL
    assert code_link(Shown({FEDERATION: federation_code()}), DOMAIN).status is Status.NOT_PROVEN
    assert code_link(object(), DOMAIN).status is Status.NOT_PROVEN


def account_world(code: bytes) -> tuple[bytes, bytes, list[bytes]]:
    """(header RLP, address, proof) of a state with two accounts."""
    address, trie = b"\x0d" * 20, HexaryTrie({})
    trie[keccak(address)] = rlp.encode([b"", b"", bytes(32), keccak(code)])
    trie[keccak(b"\x0e" * 20)] = rlp.encode([b"\x01", b"", bytes(32), keccak(b"")])
    header: list[Any] = [b"", b"", b"", bytes(trie.root_hash)]
    return bytes(rlp.encode(header)), address, list(prove(trie, keccak(address)))


def test_code_is_shown_to_be_an_accounts_by_the_state_root() -> None:
    header, address, proof = account_world(b"\x60\x00")
    check_account(header, address, b"\x60\x00", proof)
    for bad in (
        (header, address, b"\x60\x01", proof),
        (header, b"\x0e" * 20, b"\x60\x00", proof),
        (header, address, b"\x60\x00", proof[:-1]),
        (header, address, b"\x60\x00", [*proof, proof[0]]),
        (account_world(b"\x60")[0], address, b"\x60\x00", proof),
    ):
        with pytest.raises(ProofInvalid):
            check_account(*bad)
