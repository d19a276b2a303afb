"""Canonical safetensors: the library reads what we write, we read nothing but what we write, and weights are exact."""

from __future__ import annotations

import json
import pickle
import struct
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.config import Config
from ledger.tensors import (
    MAX_HEADER_BYTES,
    OffGrid,
    TensorsMalformed,
    decode_safetensors,
    encode_safetensors,
    encoded_size,
    flatten,
    unflatten,
    units_of,
    values_of,
    weight_layout,
)
from proofs.errors import LocalFault

TENSORS = {
    "b": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.array([-1, 2**31 - 1], dtype=np.int32),
}
LAYOUT = {"a": ("I32", (2,)), "b": ("F32", (2, 3))}
GOOD = encode_safetensors(TENSORS)


def test_the_safetensors_library_reads_the_same_values() -> None:
    found = safetensors.numpy.load(GOOD)
    assert found.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_we_read_the_same_values_and_cannot_write_to_them() -> None:
    found = decode_safetensors(GOOD, LAYOUT)
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(found[name], array)
        assert not found[name].flags.writeable


def test_the_bytes_are_the_documented_ones() -> None:
    header = (
        b'{"__metadata__":{"format":"pt"},'
        b'"a":{"dtype":"I32","shape":[2],"data_offsets":[0,8]},'
        b'"b":{"dtype":"F32","shape":[2,3],"data_offsets":[8,32]}}'
    )
    header += b" " * (-len(header) % 8)
    data = TENSORS["a"].tobytes() + TENSORS["b"].tobytes()
    assert struct.pack("<Q", len(header)) + header + data == GOOD


def test_order_and_memory_layout_of_what_is_given_do_not_matter() -> None:
    turned = {"a": TENSORS["a"].astype(">i4"), "b": np.asfortranarray(TENSORS["b"])}
    assert encode_safetensors(turned) == GOOD
    assert len(GOOD) == encoded_size(LAYOUT)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int64, np.uint8, np.bool_])
def test_other_dtypes_are_not_written(dtype: Any) -> None:
    with pytest.raises(LocalFault):
        encode_safetensors({"a": np.zeros(2, dtype=dtype)})


def test_a_tensor_named_as_the_metadata_is_not_written() -> None:
    with pytest.raises(LocalFault):
        encode_safetensors({"__metadata__": np.zeros(2, dtype=np.float32)})


def with_header(header: Any, data: bytes = GOOD[-32:]) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


META = {"__metadata__": {"format": "pt"}}
A, B = entry("I32", [2], 0, 8), entry("F32", [2, 3], 8, 32)
FORGERIES: dict[str, bytes] = {
    "nothing": b"",
    "less than a length": GOOD[:7],
    "half a header": GOOD[:40],
    "the last byte missing": GOOD[:-1],
    "a byte more": GOOD + b"\0",
    "a pickle": pickle.dumps({"a": 1}),
    "a zip, as torch.save writes": b"PK\x03\x04" + bytes(100),
    "a header of 2^63 bytes": struct.pack("<Q", 1 << 63) + GOOD[8:],
    "a header longer than the file": struct.pack("<Q", len(GOOD)) + GOOD[8:],
    "a header just above the cap": struct.pack("<Q", MAX_HEADER_BYTES + 1) + bytes(100),
    "a header that is not JSON": with_header(b"{nonsense"),
    "a header that is nested deep": with_header(b"[" * 5000),
    "a header that is a list": with_header([]),
    "a header in UTF-16": with_header("{}".encode("utf-16")),
    "a tensor missing": with_header({**META, "a": A}),
    "a tensor more": with_header({**META, "a": A, "b": B, "c": entry("F32", [0], 32, 32)}),
    "another dtype": with_header({**META, "a": A, "b": entry("F16", [2, 3], 8, 32)}),
    "another shape of the same size": with_header({**META, "a": A, "b": entry("F32", [3, 2], 8, 32)}),
    "tensors that overlap": with_header({**META, "a": A, "b": entry("F32", [2, 3], 4, 28)}),
    "a gap between tensors": with_header({**META, "a": A, "b": entry("F32", [2, 3], 12, 36)}),
    "tensors in another order": with_header({**META, "a": entry("I32", [2], 24, 32), "b": entry("F32", [2, 3], 0, 24)}),
    "no metadata": with_header({"a": A, "b": B}),
    "more metadata": with_header({"__metadata__": {"format": "pt", "secret": "x"}, "a": A, "b": B}),
    "keys in another order": with_header({"a": A, "b": B, **META}),
    "a float among the offsets": with_header({**META, "a": {**A, "data_offsets": [0, 8.0]}, "b": B}),
    "white space in the header": with_header(json.dumps({**META, "a": A, "b": B}).encode()),
    "eight spaces more after the header": with_header(GOOD[8:-32] + b" " * 8),
}


@pytest.mark.parametrize("flaw", sorted(FORGERIES))
def test_anything_but_the_canonical_file_is_refused(flaw: str) -> None:
    with pytest.raises(TensorsMalformed):
        decode_safetensors(FORGERIES[flaw], LAYOUT)


@pytest.mark.parametrize("depth", [100, 800, 900, 940, 960, 970, 975, 980, 985, 990, 995])
def test_a_header_nested_to_the_edge_of_pythons_stack_is_refused_and_not_a_crash(depth: int) -> None:
    """What the parser can just read, the printer can just not print."""
    deep = b"[" * depth + b"]" * depth
    header = b'{"__metadata__":{"format":"pt"},"a":' + deep + b',"b":' + deep + b"}"
    with pytest.raises(TensorsMalformed):
        decode_safetensors(with_header(header), LAYOUT)


def test_the_refusal_says_what_differs() -> None:
    for flaw, words in (("a tensor missing", "'b'"), ("another dtype", "F16"), ("a tensor more", "'c'")):
        with pytest.raises(TensorsMalformed, match=words):
            decode_safetensors(FORGERIES[flaw], LAYOUT)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(position=st.integers(0, len(GOOD) - 33), change=st.integers(1, 255))
def test_any_changed_byte_of_the_header_is_refused(position: int, change: int) -> None:
    changed = bytearray(GOOD)
    changed[position] ^= change
    with pytest.raises(TensorsMalformed):
        decode_safetensors(bytes(changed), LAYOUT)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(TensorsMalformed):
        decode_safetensors(data, LAYOUT)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.lists(st.integers(-(1 << 24), 1 << 24), min_size=1, max_size=50), st.integers(8, 23))
def test_grid_units_and_float32_are_the_same_numbers(units: list[int], bits: int) -> None:
    given_units = np.array(units, dtype=np.int64)
    values = values_of(given_units, bits)
    assert values.dtype == np.float32
    assert [float(value) for value in values] == [unit / 2**bits for unit in units]
    np.testing.assert_array_equal(units_of(values, bits), given_units)


def below(value: float) -> float:
    return float(np.nextafter(np.float32(value), np.float32(0)))


@pytest.mark.parametrize(
    ("value", "flaw"),
    [
        (np.nan, "NaN"),
        (np.inf, "infinite"),
        (-np.inf, "infinite"),
        (-0.0, "minus zero"),
        (2.0**-19, "multiple"),
        (1.0 + 2.0**-19, "multiple"),
        (below(0.5), "multiple"),
        (1e-45, "multiple"),
        (-1e-45, "multiple"),
        (64.0 + 2.0**-17, "above"),
        (3e38, "above"),
        (-128.0, "above"),
    ],
)
def test_a_weight_off_the_grid_is_refused(value: float, flaw: str) -> None:
    weights = np.zeros(5, dtype=np.float32)
    units_of(weights, 18)
    weights[3] = value
    with pytest.raises(OffGrid, match=flaw):
        units_of(weights, 18)


def test_the_largest_weights_are_still_on_the_grid() -> None:
    assert units_of(np.array([64.0, -64.0], dtype=np.float32), 18).tolist() == [1 << 24, -(1 << 24)]
    with pytest.raises(LocalFault):
        values_of(np.array([(1 << 24) + 1]), 18)


def test_coordinates_are_the_trained_tensors_in_order(config: Config) -> None:
    units = np.arange(config.adapter.parameters, dtype=np.int64)
    weights = unflatten(config, units)
    assert list(weights) == [tensor.name for tensor in config.adapter.trained]
    assert weights["base_model.model.classifier.weight"][1, 0] == 2 + 8
    np.testing.assert_array_equal(flatten(config, weights), units)


def test_the_weight_file_holds_frozen_tensors_too(config: Config) -> None:
    assert list(weight_layout(config)) == [tensor.name for tensor in config.adapter.tensors]
