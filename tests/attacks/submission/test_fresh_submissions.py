"""Somebody else's bundle as one's own: what the rules refuse, and the one thing that no rule sees at this stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ledger.bundle import MANIFEST, SubmissionBundle
from ledger.records import Reason
from ledger.verdict import judge

THIEF = {"member": 2, "dataset_root": bytes([7]) * 32, "words_root": bytes([8]) * 32}


def test_a_bundle_submitted_as_it_is_by_another_member_is_a_mismatch(honest: Any) -> None:
    facts = replace(honest.facts, claim=replace(honest.facts.claim, **THIEF))
    found = judge(facts, honest.files)
    assert found.reason is Reason.MANIFEST_MISMATCH


@pytest.mark.parametrize("field", ["dataset_root", "words_root", "member"])
def test_a_manifest_half_rewritten_by_the_thief_is_a_mismatch(honest: Any, field: str) -> None:
    claim = replace(honest.facts.claim, **THIEF)
    half = replace(claim, **{field: getattr(honest.facts.claim, field)})
    files = SubmissionBundle(honest.config, half, honest.weights, honest.trajectory).files()
    assert judge(replace(honest.facts, claim=claim), files).reason is Reason.MANIFEST_MISMATCH


def test_sums_copied_under_a_manifest_of_ones_own_pass(honest: Any) -> None:
    """NOT PROVEN: nothing ties the sums to the thief's words and data. Only the proof of the mechanism will."""
    claim = replace(honest.facts.claim, **THIEF)
    files = SubmissionBundle(honest.config, claim, honest.weights, honest.trajectory).files()
    found = judge(replace(honest.facts, claim=claim), files)
    assert found.reason is Reason.ACCEPTED
    assert "NOT PROVEN" in found.detail


JSON_TRICKS: dict[str, Callable[[bytes], bytes]] = {
    "a key twice": lambda text: text.replace(b'{"chain_id"', b'{"chain_id":31337,"chain_id"', 1),
    "a number as real": lambda text: text.replace(b'"round":3', b'"round":3.0', 1),
    "a number with an exponent": lambda text: text.replace(b'"round":3', b'"round":3e0', 1),
    "a number with a plus": lambda text: text.replace(b'"round":3', b'"round":+3', 1),
    "a number with a zero before": lambda text: text.replace(b'"round":3', b'"round":03', 1),
    "minus zero": lambda text: text.replace(b'"round":3', b'"round":-0', 1),
    "not a number": lambda text: text.replace(b'"round":3', b'"round":NaN', 1),
    "a number of a thousand digits": lambda text: text.replace(b'"round":3', b'"round":' + b"9" * 1000, 1),
    "a number beyond Python's digits": lambda text: text.replace(b'"round":3', b'"round":' + b"9" * 60_000, 1),
    "a byte-order mark": lambda text: b"\xef\xbb\xbf" + text,
    "sixteen bits a character": lambda text: text.decode().encode("utf-16"),
    "thirty-two bits a character": lambda text: text.decode().encode("utf-32-be"),
    "an escape nobody needs": lambda text: text.replace(b'"round"', b'"\\u0072ound"', 1),
    "half of a surrogate pair": lambda text: text.replace(b'"kind":"', b'"kind":"\\ud800', 1),
    "a zero byte behind": lambda text: text + b"\x00",
    "a new line behind": lambda text: text + b"\n",
    "a second value behind": lambda text: text + b"{}",
    "overlong UTF-8": lambda text: text.replace(b'"kind":"c', b'"kind":"\xc1\xa3', 1),
    "nested beyond the stack": lambda text: b"[" * 30_000 + b"]" * 30_000,
    "a comment": lambda text: b"/**/" + text,
    "keys in another order": lambda text: b'{"words_root":""' + text[1:-1].join([b",", b"}"]),
}


@pytest.mark.parametrize("trick", list(JSON_TRICKS))
def test_a_manifest_in_any_other_encoding_is_malformed(honest: Any, trick: str) -> None:
    files = dict(honest.files)
    told = JSON_TRICKS[trick](files[MANIFEST])
    assert told != files[MANIFEST]
    found = judge(honest.facts, files | {MANIFEST: told})
    assert found.reason is Reason.BUNDLE_MALFORMED
    found.detail.encode()
