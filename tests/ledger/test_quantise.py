"""The 4-bit form of a base: the same bits on every machine, and one digest that names them all."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ledger.quantise import BLOCK, LEVELS, SCALE_LEVELS, Quantised, effective_digest, quantise
from proofs.errors import LocalFault

DIGEST = "cdc0bfd39edac2e3"  # a change renames every 4-bit base


def matrix(*shape: int, scale: float = 0.05, seed: int = 1) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


def test_every_value_is_the_nearest_level_in_units_of_its_blocks_scale() -> None:
    """The slow twin: one value after the other, in float64."""
    values = matrix(6, BLOCK)
    found = quantise(values)
    codes = np.stack([found.codes >> 4, found.codes & 15], axis=1).reshape(values.shape)
    for row, block in zip(values.astype(np.float64), codes, strict=True):
        nearest = [int(np.abs(LEVELS - value / np.abs(row).max()).argmin()) for value in row]
        assert block.tolist() == nearest


def test_scales_are_rounded_to_within_the_gap_between_two_levels() -> None:
    values = matrix(64, 4 * BLOCK)
    found, scales = quantise(values), np.abs(values.reshape(-1, BLOCK)).max(axis=1)
    decoded = SCALE_LEVELS[found.scales] * found.ranges[0] + found.offset
    assert np.abs(decoded - scales).max() <= found.ranges[0] * np.diff(SCALE_LEVELS).max()
    assert float(found.offset) == pytest.approx(scales.mean(dtype=np.float64), rel=1e-7)


def test_what_is_computed_with_is_near_what_was_given() -> None:
    values = matrix(48, 2 * BLOCK)
    error = quantise(values).values() - values
    assert np.sqrt((error**2).mean()) < 0.1 * np.sqrt((values**2).mean())


def test_a_weight_takes_little_more_than_4_bits() -> None:
    found = quantise(matrix(256, 1024))
    size = found.codes.nbytes + found.scales.nbytes + found.ranges.nbytes + 4
    assert 8 * size / (256 * 1024) == pytest.approx(4.127, abs=0.01)


@pytest.mark.parametrize("values", [np.zeros((2, BLOCK), np.float32), matrix(1, 1), matrix(3, 5), matrix(2, 999)])
def test_zeros_and_odd_sizes_have_a_4_bit_form(values: NDArray[np.float32]) -> None:
    found = quantise(values)
    assert found.values().shape == values.shape
    assert np.abs(found.values() - values).max() <= 0.5 * np.abs(values).max()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused(bad: float) -> None:
    values = matrix(2, BLOCK)
    values[1, 3] = bad
    with pytest.raises(LocalFault, match="finite"):
        quantise(values)
    with pytest.raises(LocalFault, match="float32"):
        quantise(matrix(2, BLOCK).astype(np.float64))  # type: ignore[arg-type]


def test_the_rounding_of_a_released_version_stays_as_it_is() -> None:
    values = (np.arange(300 * BLOCK) * 7919 % 2003 - 1001).reshape(100, 3 * BLOCK) / np.float32(4099)
    assert quantise(values.astype(np.float32)).digest.hex()[:16] == DIGEST


def test_one_code_one_scale_one_name_and_the_base_are_in_the_digest() -> None:
    first = quantise(matrix(5, BLOCK))
    codes, scales = first.codes.copy(), first.scales.copy()
    codes[0] ^= 1
    scales[0] ^= 1
    others = [
        Quantised(first.shape, codes, first.scales, first.ranges, first.offset),
        Quantised(first.shape, first.codes, scales, first.ranges, first.offset),
        Quantised(first.shape, first.codes, first.scales, first.ranges + 1, first.offset),
        Quantised(first.shape, first.codes, first.scales, first.ranges, first.offset + np.float32(1)),
        Quantised((BLOCK, 5), first.codes, first.scales, first.ranges, first.offset),
    ]
    base = bytes(32)
    digests = {effective_digest(base, {"a": one}) for one in (first, *others)}
    digests |= {effective_digest(base, {"b": first}), effective_digest(bytes([1]) * 32, {"a": first})}
    assert len(digests) == 8
    assert effective_digest(base, {"a": first}) == effective_digest(base, {"a": quantise(matrix(5, BLOCK))})
