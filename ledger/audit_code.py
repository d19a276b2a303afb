"""Is the code at an address Candor's? Compared with the bytecode that this package carries, immutables filled in.

The events say who acted; that only a seat's signer could commit or object, only an aggregator judge, is the contract's
doing. So an audit of events is worth what the code at their address is worth.

Solidity leaves a hole of 32 zero bytes in the code for each use of an immutable, and the constructor fills it. Rounds
has Federation's address and what EIP-712 caches (OpenZeppelin's EIP712.sol), AuditLog has the latter and the length of
its window. Every difference between the code and the compiled one must be such a hole with one of those words in it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, Protocol, runtime_checkable

from eth_utils.crypto import keccak

from ledger.compiled import ContractName, bytecode
from ledger.eip712 import Domain, domain_separator
from ledger.headers import Header
from ledger.patricia import ProofInvalid, decode_rlp, value_in
from ledger.report import Link, Name, failed, not_proven, passed
from ledger.rpc import RpcRefused
from proofs.errors import PeerFault

WORD: Final = 32
END_OF_CONSTRUCTOR: Final = bytes.fromhex("f3fe6080604052")  # RETURN INVALID, then how solc begins every contract
STATE_ROOT_FIELD: Final = 3
CODE_HASH_FIELD: Final = 3
NO_CODE: Final = "this source shows no code; whether the contract is Candor's is for you to check"


class CodeDiffers(PeerFault):
    """The code is not what this package's sources compile to."""


@runtime_checkable
class ShowsCode(Protocol):
    """A chain, or a file, that can show a contract's code; None where it cannot."""

    def code(self, address: bytes) -> bytes | None: ...


@runtime_checkable
class ShowsFederation(ShowsCode, Protocol):
    """And that of a federation's."""

    @property
    def federation_address(self) -> bytes: ...


@runtime_checkable
class ProvesCode(ShowsCode, Protocol):
    """A node that also proves an account against a block's state root (EIP-1186)."""

    def account_proof(self, address: bytes, number: int) -> list[bytes]: ...


Parts = Mapping[ContractName, tuple[bytes, Collection[bytes]]]  # address, and the words that its constructor filled in


def code_link(source: object, domain: Domain, head: Header | None = None) -> Link:
    """Rounds and Federation. head: the block against whose state root a node that can prove its accounts must prove
    them."""
    if not isinstance(source, ShowsFederation):
        return not_proven(Name.CONTRACT, NO_CODE)
    federation = source.federation_address
    parts: Parts = {"Rounds": (domain.contract, immutables(domain, federation)), "Federation": (federation, ())}
    return _code_link(source, parts, head)


def log_code_link(source: object, domain: Domain, answer_blocks: int, head: Header | None = None) -> Link:
    """AuditLog, likewise."""
    if not isinstance(source, ShowsCode):
        return not_proven(Name.CONTRACT, NO_CODE)
    return _code_link(source, {"AuditLog": (domain.contract, log_immutables(domain, answer_blocks))}, head)


def _code_link(source: ShowsCode, parts: Parts, head: Header | None) -> Link:
    for name, (address, words) in parts.items():
        code = source.code(address)
        if code is None:
            text = f"the code of {name} is not in the file; whether the contract is Candor's is for you to check"
            return not_proven(Name.CONTRACT, text)
        try:
            check_code(name, code, words)
            if head is not None and isinstance(source, ProvesCode):
                check_account(head.rlp, address, code, source.account_proof(address, head.number))
        except PeerFault as error:
            return failed(Name.CONTRACT, f"{type(error).__name__}: {error}", address="0x" + address.hex())
        except RpcRefused as error:
            text = f"the code of {name} is Candor's on the node's word: it does not prove the account ({error})"
            return not_proven(Name.CONTRACT, text, address="0x" + address.hex())
    told = " and ".join(f"{name} at 0x{address.hex()}" for name, (address, _) in parts.items())
    run = "run" if len(parts) > 1 else "runs"
    data = {name.lower(): "0x" + address.hex() for name, (address, _) in parts.items()}
    return passed(Name.CONTRACT, f"{told} {run} this package's bytecode", **data)


def immutables(domain: Domain, federation: bytes) -> tuple[bytes, ...]:
    """The words that the constructor of Rounds puts into its code, in no order."""
    return (federation.rjust(WORD, b"\0"), *_of_domain(domain))


def log_immutables(domain: Domain, answer_blocks: int) -> tuple[bytes, ...]:
    """Those of AuditLog, likewise, for `check_code`: a contract with another window is another promise to users."""
    return (answer_blocks.to_bytes(WORD, "big"), *_of_domain(domain))


def _of_domain(domain: Domain) -> tuple[bytes, ...]:
    """What OpenZeppelin's EIP712 keeps in code."""
    return (
        domain.contract.rjust(WORD, b"\0"),
        domain.chain_id.to_bytes(WORD, "big"),
        domain_separator(domain),
        keccak(text="Candor"),
        keccak(text="1"),
        _short_string(b"Candor"),
        _short_string(b"1"),
    )


def check_code(name: ContractName, code: bytes, words: Collection[bytes]) -> None:
    """Raises CodeDiffers unless `code` is the compiled one with holes filled by `words`."""
    creation, at = bytecode(name), 0
    compiled = creation[creation.index(END_OF_CONSTRUCTOR) + 2 :]
    if len(code) != len(compiled):
        raise CodeDiffers(f"{name}: {len(code)} bytes of code, the compiled one has {len(compiled)}")
    while at < len(code):
        if code[at] == compiled[at]:
            at += 1
        else:
            at = _after_hole(name, code, compiled, at, words)


def _after_hole(name: ContractName, code: bytes, compiled: bytes, at: int, words: Collection[bytes]) -> int:
    """The end of the hole that the difference at `at` lies in."""
    for start in range(max(0, at - WORD + 1), at + 1):
        hole, word = compiled[start : start + WORD], code[start : start + WORD]
        if hole == bytes(WORD) and word in words:
            return start + WORD
    raise CodeDiffers(f"{name}: byte {at} of the code is not what the sources compile to")


def check_account(header_rlp: bytes, address: bytes, code: bytes, proof: list[bytes]) -> None:
    """`code` is that of the account at `address` in the state below the header. Raises ProofInvalid."""
    root = decode_rlp(header_rlp, ProofInvalid)[STATE_ROOT_FIELD]
    account = decode_rlp(value_in(root, keccak(address), proof), ProofInvalid)
    if not isinstance(account, list) or len(account) != 4 or account[CODE_HASH_FIELD] != keccak(code):
        raise ProofInvalid(f"the account 0x{address.hex()} has other code than is shown")


def _short_string(text: bytes) -> bytes:
    """OpenZeppelin's ShortString: the bytes, zeros, and the length in the last byte."""
    return text.ljust(WORD - 1, b"\0") + bytes([len(text)])
