"""A layer y = W·x + bias + (alpha/rank)·B·A·x, forward and backward, and the gradients of B and A."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from proofs.gradient.matrix import Matrix
from proofs.gradient.numbers import NARROW_BITS, WIDE_BITS, Value
from proofs.gradient.program import Linear, Pair
from proofs.gradient.tape import Tape

Gradients = dict[str, Value]


@dataclass(frozen=True, eq=False)
class LinearState:
    """x (tokens, in), and A·x (tokens, rank) where there is a pair."""

    x: Value
    low: Value | None


def linear(tape: Tape, layer: Linear, x: Value, fraction: int, bits: int, low_rank: int) -> tuple[Value, LinearState]:
    """x (tokens, in) → y (tokens, out) in units of 2^−fraction. `low_rank`: fraction bits of A·x."""
    y = tape.apply(layer.name, x, layer.weight, fraction, bits, bias=layer.bias)
    if layer.pair is None:
        return y, LinearState(x, None)
    pair = layer.pair
    low = tape.apply(f"{layer.name}.A", x, pair.a, low_rank, NARROW_BITS)
    return y + tape.apply(f"{layer.name}.B", low, scaled_b(pair), fraction, bits), LinearState(x, low)


def scaled_b(pair: Pair) -> Matrix:
    """(alpha/rank)·B, exactly: rank is a power of two."""
    odd, shift = pair.scale
    return Matrix(pair.b.units * odd, pair.b.fraction + shift)


def linear_backward(
    tape: Tape, layer: Linear, state: LinearState, gradient: Value, found: Gradients, below: bool
) -> Value | None:
    """dy (tokens, out) wide → dx (tokens, in) wide where `below` asks for it; the pair's gradients go to `found`."""
    f = gradient.fraction
    low = None
    if layer.pair is not None and state.low is not None:
        low = _pair_backward(tape, layer, layer.pair, state, gradient, found, below)
    if not below:
        return None
    dx = tape.apply(f"{layer.name}.back", gradient, layer.weight, f, WIDE_BITS, transposed=True)
    if layer.pair is None or low is None:
        return dx
    return dx + tape.apply(f"{layer.name}.A.back", low, layer.pair.a, f, WIDE_BITS, transposed=True)


def _pair_backward(
    tape: Tape, layer: Linear, pair: Pair, state: LinearState, gradient: Value, found: Gradients, below: bool
) -> Value | None:
    """dB = s·Σ_t dy_t (A x_t)ᵀ, dA = s·Σ_t (Bᵀ dy_t) x_tᵀ; returns s·Bᵀ dy (tokens, rank) where it is needed."""
    f = gradient.fraction
    if pair.b_name is not None and state.low is not None:
        scaled = _times(state.low, pair)
        found[pair.b_name] = tape.product(f"{layer.name}.dB", gradient.shaped(np.transpose), scaled, f, WIDE_BITS)
    if not below and pair.a_name is None:
        return None
    low = tape.apply(f"{layer.name}.B.back", gradient, scaled_b(pair), f, WIDE_BITS, transposed=True)
    if pair.a_name is not None:
        found[pair.a_name] = tape.product(f"{layer.name}.dA", low.shaped(np.transpose), state.x, f, WIDE_BITS)
    return low


def _times(low: Value, pair: Pair) -> Value:
    """(alpha/rank)·A·x, by reading its units as larger or smaller ones."""
    odd, shift = pair.scale
    return Value(low.units * odd, low.fraction + shift, low.bound * odd)
