"""RMSNorm and LayerNorm, forward and backward.

    c = x − mean          r = ⌊√(d·4^k / (Σc² + ε))⌋          n = c·r / 2^(k − f)          y = gain·n + shift

The inverse root is an integer inequality, not a table, so it holds for every scale of x. It bounds the product by
itself: |c|·r ≤ √(Σc²)·√(d·4^k/Σc²) = √d·2^k; and Σ|n| ≤ √d·‖n‖ ≤ d·2^f (up to a unit of rounding each).

Backward (c, n and r as above, dn = gain·dy):    dx = (dn − mean(dn) − n·mean(n·dn)) · r · 2^-k, in units of x.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import numpy as np

from proofs.gradient.matrix import Matrix
from proofs.gradient.numbers import NARROW_BITS, WIDE_BITS, Value, constant
from proofs.gradient.program import Norm
from proofs.gradient.tape import Tape

ROOT_BITS = 22  # of r: r·limb stays below 2^30
PRODUCT = 1 << 29  # of c·r
SQUARE_CUT = 10


@dataclass(frozen=True, eq=False)
class NormState:
    """What the backward pass needs: n, and r in units of 2^−`root_fraction` of 1/σ."""

    normed: Value
    root: Value


def normed_fraction(length: int) -> int:
    """f: n, at most √d, fits 16 bits."""
    return 15 - (isqrt(length - 1) + 1).bit_length()


def root_shift(length: int) -> int:
    """k: the largest with √d·2^k ≤ 2^29."""
    return (isqrt(PRODUCT * PRODUCT // length)).bit_length() - 1


def norm(tape: Tape, name: str, layer: Norm, x: Value) -> tuple[Value, NormState]:
    """x (…, d) → y (…, d), as fine as 16 bits allow whatever x is, and what the backward pass needs."""
    length = x.shape[-1]
    k, f = root_shift(length), normed_fraction(length)
    centred = x if layer.shift is None else _centre(tape, f"{name}.mean", x)
    epsilon = layer.epsilon * length * 4**x.fraction
    energy = tape.squares(f"{name}.squares", centred, SQUARE_CUT) + max(1, round(epsilon))
    root = tape.inverse_root(f"{name}.root", energy, length << (2 * k), ROOT_BITS)
    factor = Value(root[..., None], k - x.fraction, 1 << (ROOT_BITS - 1))
    bound = isqrt(length << (2 * k)) + 1
    scaled = tape.multiply(f"{name}.normed", centred, factor, f, NARROW_BITS, most=bound)
    n = Value(scaled.units, f, (bound >> (k - f)) + 1, length + (length << f))
    return _gain(tape, f"{name}.gain", layer, n), NormState(n, factor)


def norm_backward(tape: Tape, name: str, layer: Norm, state: NormState, gradient: Value) -> Value:
    """dy (…, d) wide → dx (…, d) wide."""
    n, f, length = state.normed, gradient.fraction, gradient.shape[-1]
    inner = tape.multiply(f"{name}.gain", gradient, layer.gain, f, WIDE_BITS)
    column = inner.shaped(lambda units: units[..., None])
    row = Value(n.units[..., None, :], n.fraction, n.bound, n.row_sum)
    # Σ n·dn in units 2^8 as coarse, so that it fits; then times 2^8/d
    along = tape.product(f"{name}.along", row, column, f - 8, WIDE_BITS).shaped(lambda units: units[..., 0])
    along = Value(along.units, f, along.bound)
    share = constant(np.array([rounded_ratio(256 << 14, length)], dtype=np.int64), 14)
    part = tape.multiply(f"{name}.share", along, share, f, WIDE_BITS)
    rest = inner - tape.multiply(f"{name}.projected", part, n, f, WIDE_BITS)
    if layer.shift is not None:
        average = Matrix(np.full((1, length), rounded_ratio(1 << 21, length), dtype=np.int64), 21)
        rest = rest - tape.apply(f"{name}.average", inner, average, f, WIDE_BITS)
    return tape.multiply(f"{name}.root", rest, state.root, f, WIDE_BITS, whole=True)


def _centre(tape: Tape, name: str, x: Value) -> Value:
    length = x.shape[-1]
    mean = tape.divide(name, x.units.sum(axis=-1, keepdims=True), length, x.bound * length)
    return Value(x.units - mean, x.fraction, 2 * x.bound)


def _gain(tape: Tape, name: str, layer: Norm, n: Value) -> Value:
    """gain·n + shift, with as many fraction bits as the weights themselves leave room for."""
    at = n.fraction + layer.gain.fraction
    most = np.abs(layer.gain.units) * n.bound
    if layer.shift is not None:
        most = most + np.abs(layer.shift.finer(at).units)
    bits = int(most.max()).bit_length()
    fraction = at - max(0, bits - (NARROW_BITS - 1))
    return tape.multiply(name, n, layer.gain, fraction, NARROW_BITS, bias=layer.shift)


def rounded_ratio(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)
