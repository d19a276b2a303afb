"""Canonical JSON: one value, one sequence of bytes, and nothing else is read."""

from __future__ import annotations

from enum import IntEnum
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import canonical
from ledger.canonical import MAX_INTEGER, FieldInvalid, Fields, NotCanonical, parse_fraction
from proofs.errors import LocalFault

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
KEYS = st.text(st.characters(max_codepoint=127), max_size=6)
SCALARS = st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | TEXT
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


def decode(data: bytes) -> Any:
    return canonical.decode(data, max_bytes=1000)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(VALUES)
def test_every_value_of_the_subset_comes_back(value: Any) -> None:
    assert canonical.decode(canonical.encode(value), max_bytes=1 << 20) == value


@settings(derandomize=True, max_examples=300, deadline=None)
@given(VALUES, st.data())
def test_a_changed_byte_is_refused_or_means_something_else(value: Any, data: st.DataObject) -> None:
    original = canonical.encode(value)
    changed = bytearray(original)
    changed[data.draw(st.integers(0, len(original) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = canonical.decode(bytes(changed), max_bytes=1 << 20)
    except NotCanonical:
        return
    assert canonical.encode(found) == bytes(changed) != original


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.binary(max_size=40))
def test_random_bytes_are_refused_with_the_right_error(data: bytes) -> None:
    try:
        decode(data)
    except NotCanonical:
        return


@pytest.mark.parametrize(
    ("data", "flaw"),
    [
        (b'{"b":1,"a":2}', "key order"),
        (b'{"a":1,"a":1}', "a repeated key"),
        (b'{"a": 1}', "white space"),
        (b'{"a":1}\n', "white space at the end"),
        (b'"\\u0041"', "an escape for a plain letter"),
        (b'"\\/"', "a needless escape"),
        (b'"\\u00e9"', "an escape for a letter that UTF-8 holds"),
        (b'"\\ud800"', "half of a surrogate pair"),
        (b'{"\\ud800":1}', "half of a surrogate pair in a key"),
        ('{"é":1}'.encode(), "a key outside ASCII"),
        (b"1.0", "a float"),
        (b"1e3", "a float"),
        (b"NaN", "not a number"),
        (b"Infinity", "infinity"),
        (b"-0", "minus zero"),
        (b"01", "a leading zero"),
        (b"+1", "a plus sign"),
        (b"9007199254740992", "an integer of 54 bits"),
        (b"1" * 900, "a very long integer"),
        (b"[" * 17 + b"]" * 17, "nested too deep"),
        (b"[" * 500 + b"]" * 500, "nested far too deep"),
        ("[1]".encode("utf-16"), "UTF-16"),
        (b"\xef\xbb\xbf[1]", "a byte order mark"),
        (b'"\xff"', "bytes that are not UTF-8"),
        (b'"\xed\xa0\x80"', "a surrogate in UTF-8"),
        (b"", "nothing"),
        (b"[1", "truncated"),
    ],
)
def test_what_encoding_would_not_have_produced_is_refused(data: bytes, flaw: str) -> None:
    with pytest.raises(NotCanonical):
        decode(data)


def test_size_is_checked_before_parsing() -> None:
    assert canonical.decode(b"[1]", max_bytes=3) == [1]
    with pytest.raises(NotCanonical, match="3 bytes"):
        canonical.decode(b"[1]", max_bytes=2)


@pytest.mark.parametrize("value", [1.5, b"bytes", {1: 2}, {"é": 1}, 2**53, "\ud800", {"a": {1, 2}}, object()])
def test_our_own_value_outside_the_subset_is_our_fault(value: Any) -> None:
    with pytest.raises(LocalFault):
        canonical.encode(value)


def test_keys_are_sorted_and_bytes_are_plain() -> None:
    assert canonical.encode({"b": [True, None], "a": "é\n\x00"}) == '{"a":"é\\n\\u0000","b":[true,null]}'.encode()


class Colour(IntEnum):
    RED = 7


def test_an_enumeration_is_written_as_its_number() -> None:
    assert canonical.encode([Colour.RED]) == b"[7]"


@pytest.mark.parametrize("text", ["1/2", "0/1", "-3/7", f"{MAX_INTEGER}/1", f"1/{MAX_INTEGER}"])
def test_fractions_in_lowest_terms_are_read(text: str) -> None:
    assert canonical.format_fraction(parse_fraction(text)) == text


@pytest.mark.parametrize(
    "value",
    [
        *("2/4", "1", "1/0", "-0/1", "+1/2", "1/-2", "01/2", "1/02", " 1/2", "1/2 ", "--1/2", "1/2/3", "", "/"),
        *("٣/٤", "²/3", f"{MAX_INTEGER + 1}/1", f"1/{MAX_INTEGER + 1}", "9" * 40 + "/1", 1, None, 0.5),
        Fraction(1, 2),
    ],
)
def test_fractions_in_any_other_form_are_refused(value: Any) -> None:
    with pytest.raises(FieldInvalid):
        parse_fraction(value)


REFUSALS = [
    ("missing", lambda f: f.take("absent")),
    ("a boolean for an integer", lambda f: f.integer("yes", 0, 9)),
    ("an integer too small", lambda f: f.integer("five", 6, 9)),
    ("an integer too large", lambda f: f.integer("five", 0, 4)),
    ("an integer for a text", lambda f: f.text("five")),
    ("a text too long", lambda f: f.text("word", max_chars=2)),
    ("a text not on the list", lambda f: f.text("word", one_of=("ab", "cd"))),
    ("an integer for a boolean", lambda f: f.boolean("five")),
    ("a text for a fraction", lambda f: f.fraction("word")),
    ("a negative fraction", lambda f: f.fraction("minus")),
    ("zero for a positive fraction", lambda f: f.fraction("zero", positive=True)),
    ("hex of the wrong length", lambda f: f.hex32("word")),
    ("upper-case hex", lambda f: f.hex32("upper")),
    ("hex with a stranger in it", lambda f: f.hex32("stranger")),
    ("too many items", lambda f: f.array("three", max_items=2)),
    ("a text for an array", lambda f: f.array("word", max_items=2)),
]


@pytest.mark.parametrize(("flaw", "read"), REFUSALS, ids=[flaw for flaw, _ in REFUSALS])
def test_a_field_of_the_wrong_kind_is_refused_by_name(flaw: str, read: Any) -> None:
    fields = Fields(
        {
            "yes": True,
            "five": 5,
            "word": "abc",
            "minus": "-1/2",
            "zero": "0/1",
            "upper": "AB" * 32,
            "stranger": "ab" * 15 + "zz" + "ab" * 16,
            "three": [1, 2, 3],
        },
        "here",
    )
    with pytest.raises(FieldInvalid, match="here"):
        read(fields)


def test_unknown_fields_are_refused_at_the_end_and_a_field_is_taken_once() -> None:
    fields = Fields({"a": 1, "b": 2}, "here")
    fields.take("a")
    with pytest.raises(FieldInvalid, match="'b'"):
        fields.done()
    with pytest.raises(FieldInvalid, match="'a'"):
        fields.take("a")


@pytest.mark.parametrize("value", [[], "text", 1, None])
def test_fields_are_read_of_objects_only(value: Any) -> None:
    with pytest.raises(FieldInvalid):
        Fields(value, "here")


def test_a_hostile_value_is_quoted_in_part_only() -> None:
    with pytest.raises(FieldInvalid) as caught:
        Fields({"a": "x" * 100_000}, "here").text("a")
    assert len(str(caught.value)) < 300
