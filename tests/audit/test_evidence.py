"""Evidence: what a header and a receipt prove, and every way in which they may fail to."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import rlp
from eth_utils.crypto import keccak
from trie import HexaryTrie

from ledger import evidence as ev
from ledger import patricia
from ledger.headers import Header

CONTRACT = b"\x11" * 20
OTHER = b"\x22" * 20
TOPIC = keccak(b"Told(uint64)")


def receipt_of(index: int, *, address: bytes = CONTRACT, status: int = 1, kind: int = 2) -> ev.Receipt:
    logs = (ev.RawLog(OTHER, (), b""), ev.RawLog(address, (TOPIC, index.to_bytes(32, "big")), b"data" * index))
    return ev.Receipt(kind, status, 21_000 * (index + 1), ev.bloom_of(logs), logs)


def header_over(
    receipts: list[ev.Receipt], number: int = 7, parent: bytes = b"\x01" * 32, bloom: bytes | None = None
) -> Header:
    whole = ev.bloom_of([log for receipt in receipts for log in receipt.logs]) if bloom is None else bloom
    root = ev.receipts_root([ev.encode_receipt(receipt) for receipt in receipts])
    parts = [parent, b"\x02" * 32, b"\x03" * 20, b"\x04" * 32, b"\x05" * 32, root, whole]
    parts += [
        b"",
        ev_int(number),
        ev_int(30_000_000),
        ev_int(1),
        ev_int(1_700_000_000),
        b"x",
        b"\x09" * 32,
        b"\x00" * 8,
    ]
    return Header.parse(bytes(rlp.encode([*parts, ev_int(7)])))


def ev_int(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def shown(count: int, wanted: int) -> tuple[Header, ev.ReceiptProof]:
    receipts = [receipt_of(index) for index in range(count)]
    header = header_over(receipts)
    (proof,) = ev.prove_receipts(header, [ev.encode_receipt(receipt) for receipt in receipts], [wanted])
    return header, proof


@pytest.mark.parametrize("count", [1, 2, 16, 17, 128, 129, 300])
def test_every_receipt_of_a_block_can_be_shown(count: int) -> None:
    receipts = [receipt_of(index % 5) for index in range(count)]
    header = header_over(receipts)
    encoded = [ev.encode_receipt(receipt) for receipt in receipts]
    for index in {0, count // 2, count - 1}:
        (proof,) = ev.prove_receipts(header, encoded, [index])
        assert ev.check_receipt(header, proof) == receipts[index]
        assert ev.log_of(header, proof, 1, CONTRACT).topics[0] == TOPIC


@pytest.mark.parametrize("kind", [0, 1, 2, 4])
@pytest.mark.parametrize("status", [0, 1])
def test_receipts_of_every_type_survive_their_encoding(kind: int, status: int) -> None:
    receipt = receipt_of(3, kind=kind, status=status)
    assert ev.decode_receipt(ev.encode_receipt(receipt)) == receipt


def test_the_strict_walk_agrees_with_the_trie_package_on_random_tries() -> None:
    rng = random.Random(5)
    for _ in range(30):
        pairs = {rng.randbytes(rng.randint(1, 4)): rng.randbytes(rng.randint(1, 60)) for _ in range(rng.randint(1, 40))}
        trie = HexaryTrie({})
        for key, value in pairs.items():
            trie[key] = value
        for key, value in pairs.items():
            assert patricia.value_in(trie.root_hash, key, patricia.prove(trie, key)) == value
        absent = b"\xff" * 6
        proof = [rlp.encode(node) for node in trie.get_proof(absent)]
        kept = [node for at, node in enumerate(proof) if at == 0 or len(node) >= 32]
        with pytest.raises(patricia.ProofInvalid):
            patricia.value_in(trie.root_hash, absent, kept)


def test_a_proof_with_any_byte_changed_is_refused() -> None:
    header, proof = shown(20, 17)
    for position, node in enumerate(proof.proof):
        for at in range(0, len(node), 7):
            bad = node[:at] + bytes([node[at] ^ 1]) + node[at + 1 :]
            nodes = (*proof.proof[:position], bad, *proof.proof[position + 1 :])
            with pytest.raises(ev.ReceiptInvalid):
                ev.check_receipt(header, replace(proof, proof=nodes))


ATTACKS: dict[str, Callable[[ev.ReceiptProof], ev.ReceiptProof]] = {
    "another transaction": lambda proof: replace(proof, tx_index=proof.tx_index + 1),
    "another block": lambda proof: replace(proof, block_number=proof.block_number + 1),
    "a negative position": lambda proof: replace(proof, tx_index=-1),
    "no nodes": lambda proof: replace(proof, proof=()),
    "a node missing": lambda proof: replace(proof, proof=proof.proof[:-1]),
    "a node more": lambda proof: replace(proof, proof=(*proof.proof, proof.proof[-1])),
    "nodes swapped": lambda proof: replace(proof, proof=proof.proof[::-1]),
    "a thousand nodes": lambda proof: replace(proof, proof=proof.proof * 1000),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=list(ATTACKS))
def test_a_proof_for_something_else_is_refused(attack: Callable[[ev.ReceiptProof], ev.ReceiptProof]) -> None:
    header, proof = shown(20, 17)
    with pytest.raises(ev.ReceiptInvalid):
        ev.check_receipt(header, attack(proof))


def test_a_block_whose_receipts_do_not_give_its_root_yields_no_proof() -> None:
    header = header_over([receipt_of(0), receipt_of(1)])
    with pytest.raises(ev.ReceiptInvalid, match="receipts root"):
        ev.prove_receipts(header, [ev.encode_receipt(receipt_of(0))], [0])


def test_a_header_whose_bloom_rules_out_its_own_logs_is_refused() -> None:
    receipts = [receipt_of(1)]
    header = header_over(receipts, bloom=bytes(256))
    (proof,) = ev.prove_receipts(header, [ev.encode_receipt(receipts[0])], [0])
    with pytest.raises(ev.ReceiptInvalid, match="bloom"):
        ev.check_receipt(header, proof)


def test_a_log_of_another_contract_or_a_reverted_call_is_no_event() -> None:
    header, proof = shown(3, 1)
    with pytest.raises(ev.ReceiptInvalid, match="expected 0x1111"):
        ev.log_of(header, proof, 0, CONTRACT)
    for position in (-1, 2):
        with pytest.raises(ev.ReceiptInvalid, match="there is no log"):
            ev.log_of(header, proof, position, CONTRACT)
    reverted = [receipt_of(1, status=0)]
    header = header_over(reverted)
    (proof,) = ev.prove_receipts(header, [ev.encode_receipt(reverted[0])], [0])
    with pytest.raises(ev.ReceiptInvalid, match="reverted"):
        ev.log_of(header, proof, 1, CONTRACT)


def bad_receipts() -> dict[str, bytes]:
    good = receipt_of(2)
    raw = ev.encode_receipt(good)
    parts = rlp.decode(raw[1:])
    return {
        "empty": b"",
        "not RLP": b"\x02\xff\xff",
        "a byte after it": raw + b"\x00",
        "a byte string": b"\x02" + bytes(rlp.encode(b"receipt")),
        "a status of two": ev.encode_receipt(replace(good, status=2)),
        "a bloom of nothing": ev.encode_receipt(replace(good, bloom=bytes(256))),
        "a short bloom": ev.encode_receipt(replace(good, bloom=b"\x01")),
        "a topic of 31 bytes": ev.encode_receipt(replace(good, logs=(ev.RawLog(OTHER, (b"\x01" * 31,), b""),))),
        "five topics": ev.encode_receipt(replace(good, logs=(ev.RawLog(OTHER, (TOPIC,) * 5, b""),))),
        "an address of 19 bytes": ev.encode_receipt(replace(good, logs=(ev.RawLog(b"\x01" * 19, (), b""),))),
        "five fields": b"\x02" + bytes(rlp.encode([*parts, b""])),
        "gas with a leading zero": b"\x02" + bytes(rlp.encode([parts[0], b"\x00\x01", *parts[2:]])),
        "logs that are bytes": b"\x02" + bytes(rlp.encode([*parts[:3], b""])),
        "a list nested too deep": b"\x02" + nested(3000),
        "two megabytes": b"\x02" + bytes(1 << 21),
    }


def nested(depth: int) -> bytes:
    item = b"\xc0"
    for _ in range(depth):
        size = len(item)
        item = (bytes([0xC0 + size]) if size < 56 else b"\xf9" + size.to_bytes(2, "big")) + item
    return item


@pytest.mark.parametrize("raw", bad_receipts().values(), ids=list(bad_receipts()))
def test_bytes_that_are_no_receipt_are_refused_by_name(raw: bytes) -> None:
    with pytest.raises(ev.ReceiptInvalid):
        ev.decode_receipt(raw)


def test_headers_must_be_parent_and_child() -> None:
    first = header_over([receipt_of(0)], 7)
    second = header_over([receipt_of(0)], 8, parent=first.hash)
    ev.check_chain([first, second])
    with pytest.raises(ev.ChainBroken, match="expected parent"):
        ev.check_chain([first, header_over([receipt_of(0)], 8)])
    with pytest.raises(ev.ChainBroken, match="follows block"):
        ev.check_chain([first, header_over([receipt_of(0)], 9, parent=first.hash)])
