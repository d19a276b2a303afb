"""Text nested beyond the stack: refused by name wherever a stranger's text is parsed, whatever the recursion limit.

py_ecc raises Python's limit to 100,000 for the whole process, at which the parser in C runs out of stack: one mebibyte
of brackets, in a manifest, a config, a header of weights or a node's answer, ended the process.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from eth_utils.crypto import keccak

from ledger import canonical
from ledger.bundle import ADAPTER, MANIFEST, TRAJECTORY
from ledger.config import MAX_CONFIG_BYTES, Config
from ledger.patricia import ProofInvalid, value_in
from ledger.ports import ChainUnavailable
from ledger.records import Reason
from ledger.rpc import Rpc
from ledger.verdict import judge

BOMBS = {"arrays": b"[" * 60_000, "objects": b'{"":' * 15_000, "both, closed": b'[{"":' * 9000 + b"0" + b"}]" * 9000}


@pytest.fixture(autouse=True)
def _limit_as_py_ecc_has_it() -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 100_000))
    yield
    sys.setrecursionlimit(before)


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=list(BOMBS))
def test_a_manifest_nested_beyond_the_stack_is_malformed(honest: Any, bomb: bytes) -> None:
    assert judge(honest.facts, honest.files | {MANIFEST: bomb}).reason is Reason.BUNDLE_MALFORMED


@pytest.mark.parametrize("path", [ADAPTER, TRAJECTORY])
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=list(BOMBS))
def test_weights_with_such_a_header_have_another_layout(honest: Any, path: str, bomb: bytes) -> None:
    header = bomb[:48_000] if len(bomb) > 48_000 else bomb
    files = {**honest.files, path: len(header).to_bytes(8, "little") + header + bytes(8)}
    assert judge(honest.facts, honest.sealed(files)).reason is Reason.TENSOR_LAYOUT


def test_such_a_config_is_none() -> None:
    with pytest.raises(canonical.NotCanonical):
        Config.decode(b"[" * MAX_CONFIG_BYTES)


def test_such_an_answer_of_a_node_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Rpc("http://127.0.0.1:9")
    monkeypatch.setattr(node, "_make_request", lambda *_: b'{"result":' + b"[" * (1 << 20))
    with pytest.raises(ChainUnavailable):
        node.call("eth_chainId")


def test_such_a_proof_is_none() -> None:
    item = b"\xc0"
    for _ in range(20_000):
        size = len(item)
        head = size.to_bytes((size.bit_length() + 7) // 8, "big")
        item = (bytes([0xC0 + size]) if size < 56 else bytes([0xF7 + len(head)]) + head) + item
    with pytest.raises(ProofInvalid):
        value_in(keccak(item), b"\x80", [item])


@pytest.mark.parametrize("text", [b'"[[[["', b'"\\"[[["', b'["[","]"]', b'{"a\\\\":[1]}', b"[]", b"0", b"[[],[],[]]"])
def test_brackets_in_strings_and_side_by_side_are_not_depth(text: bytes) -> None:
    canonical.parse(text, 2)


@pytest.mark.parametrize("text", [b"[[[]]]", b'{"a":[{"b":0}]}', b'["]]]",[[0]]]', b'["\\"]]",[[0]]]'])
def test_one_level_too_many_is_counted(text: bytes) -> None:
    assert canonical.parse(text, 3)
    with pytest.raises(ValueError, match="nested"):
        canonical.parse(text, 2)
