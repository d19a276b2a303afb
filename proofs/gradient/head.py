"""The classification head, cross-entropy, and where the backward pass begins.

p = softmax(logits), 14 bits        dlogits = p − onehot(label), exactly        dW = dlogits·yᵀ, db = dlogits
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from proofs.gradient import tables
from proofs.gradient.linear import Gradients
from proofs.gradient.numbers import LOOKUP_BITS, NARROW_BITS, WIDE_BITS, OutOfRange, ProgramRefused, Units, Value
from proofs.gradient.program import Formats, Head
from proofs.gradient.tape import Tape

EXPONENT_BITS = 15
SHARE_BITS = 14
INVERSE = 1 << 29
TANH_IN, TANH_OUT = 13, 14


@dataclass(frozen=True, eq=False)
class HeadState:
    """y (1, d) is what the classifier sees; `before` the pooler's sum under its tanh."""

    y: Value
    before: Units | None


def head(tape: Tape, layer: Head, x: Value, formats: Formats) -> tuple[Value, HeadState]:
    """The pooled token x (1, d) → logits (1, labels)."""
    before = None
    if layer.pooler is not None:
        summed = tape.apply("pooler", x, layer.pooler.weight, TANH_IN, NARROW_BITS, bias=layer.pooler.bias)
        before, x = summed.units, tape.look_up("pooler.tanh", tables.tanh(TANH_IN, TANH_OUT), summed.units)
    classifier = layer.classifier
    logits = tape.apply("classifier", x, classifier.weight, formats.logits, NARROW_BITS, bias=classifier.bias)
    return logits, HeadState(x, before)


def loss_gradient(tape: Tape, logits: Value, label: int) -> Value:
    """dlogits (1, labels) of the cross-entropy with `label`."""
    labels = logits.shape[-1]
    if not 0 <= label < labels:
        raise ProgramRefused(f"label {label} of {labels}")
    below = logits.units.max(axis=-1, keepdims=True) - logits.units
    if below.max() >= 1 << LOOKUP_BITS:
        raise OutOfRange("logits: too far apart for the table of exponentials")
    e = tape.look_up("loss.exponentials", tables.exponentials(logits.fraction, 1, EXPONENT_BITS), below)
    inverse = tape.inverse("loss.inverse", e.units.sum(axis=-1, keepdims=True), INVERSE, NARROW_BITS)
    factor = Value(inverse, 29 - EXPONENT_BITS, 1 << (NARROW_BITS - 1))
    shares = tape.multiply("loss.shares", e, factor, SHARE_BITS, NARROW_BITS, most=INVERSE)
    onehot = (np.arange(labels) == label).astype(np.int64)[None, :] << SHARE_BITS
    return Value(shares.units - onehot, SHARE_BITS, (1 << SHARE_BITS) + 1)


def head_backward(tape: Tape, layer: Head, state: HeadState, dlogits: Value, found: Gradients, f: int) -> Value:
    """dlogits (1, labels) → dx (1, d) wide in units of 2^−f, and the head's own gradients."""
    found[layer.weight_name] = tape.product("classifier.dW", dlogits.shaped(np.transpose), state.y, f, WIDE_BITS)
    if layer.bias_name is not None:
        found[layer.bias_name] = dlogits.shaped(lambda units: units[0]).finer(f)
    dy = tape.apply("classifier.back", dlogits, layer.classifier.weight, f, WIDE_BITS, transposed=True)
    if layer.pooler is None or state.before is None:
        return dy
    slope = tape.look_up("pooler.slope", tables.tanh_slope(TANH_IN, TANH_OUT), state.before)
    inner = tape.multiply("pooler.du", dy, slope, f, WIDE_BITS)
    return tape.apply("pooler.back", inner, layer.pooler.weight, f, WIDE_BITS, transposed=True)
