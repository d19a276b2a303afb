"""Attention over the tokens of one text, forward and backward: softmax by table, rotary positions, grouped keys.

    z = max s − s            s = q·kᵀ in units of 2^−scores, before the division by √size, which the table does
    e = exp(−z/√size)        by table, 13 bits
    R = ⌊2^29/Σe⌋            an inequality; one e is 2^13, so that R ≤ 2^16
    p = e·R/2^15             14 bits; e·R ≤ 2^29, and Σp ≤ 2^14 + one half a token

Backward, with dp = do·vᵀ:   ds = p·(dp − do·context)    dq = ds·k/√size    dk = dsᵀ·q/√size    dv = pᵀ·do
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from proofs.gradient.linear import Gradients, LinearState, linear, linear_backward
from proofs.gradient.numbers import NARROW_BITS, WIDE_BITS, Units, Value, constant
from proofs.gradient.program import Attention, Formats
from proofs.gradient.tables import exponentials, inverse_root_of, rotations
from proofs.gradient.tape import Tape

EXPONENT_BITS = 13
SHARE_BITS = 14
INVERSE = 1 << 29
ROTATION_BITS = 14


@dataclass(frozen=True, eq=False)
class AttentionState:
    """Per head: q (h, n, e), k, v (h, m, e), p (h, n, m); of n asking tokens `asking` among m."""

    linears: dict[str, LinearState]
    q: Value
    k: Value
    v: Value
    shares: Value
    context: Value
    mask: Units
    asking: Units


def attention(
    tape: Tape, name: str, layer: Attention, x: Value, asking: Units, formats: Formats, residual: tuple[int, int]
) -> tuple[Value, AttentionState]:
    """x (m, d) → (n, d) for the tokens `asking`; `residual` gives fraction and bits of the result."""
    low = formats.low_rank
    own = Value(x.units[asking], x.fraction, x.bound)
    q, q_state = linear(tape, layer.query, own, formats.query, NARROW_BITS, low)
    k, k_state = linear(tape, layer.key, x, formats.key, NARROW_BITS, low)
    v, v_state = linear(tape, layer.value, x, formats.value, NARROW_BITS, low)
    q, k, v = _heads(q, layer.heads), _heads(k, layer.key_heads), _heads(v, layer.key_heads)
    if layer.theta is not None:
        q = _rotated(tape, f"{name}.rotated_q", layer, q, asking, formats.query, NARROW_BITS)
        k = _rotated(tape, f"{name}.rotated_k", layer, k, np.arange(len(x.units)), formats.key, NARROW_BITS)
    k, v = _repeated(k, layer), _repeated(v, layer)
    mask = _mask(layer, asking, len(x.units))
    shares = _softmax(tape, name, layer, q, k, mask, formats)
    context = tape.product(f"{name}.context", shares, v, formats.value, NARROW_BITS, live=mask.mean())
    y, o_state = linear(tape, layer.output, _joined(context), *residual, low)
    states = {"q": q_state, "k": k_state, "v": v_state, "o": o_state}
    return y, AttentionState(states, q, k, v, shares, context, mask, asking)


def _softmax(tape: Tape, name: str, layer: Attention, q: Value, k: Value, mask: Units, formats: Formats) -> Value:
    """Shares (h, n, m) of every allowed token; zero where the mask is."""
    below = tape.scores(f"{name}.scores", q, k, formats.scores, mask)
    table, live = exponentials(formats.scores, layer.size, EXPONENT_BITS), float(mask.mean())
    found = tape.look_up(f"{name}.exponentials", table, below, live)
    e = Value(found.units * mask, EXPONENT_BITS, 1 << EXPONENT_BITS)
    inverse = tape.inverse(f"{name}.inverse", e.units.sum(axis=-1, keepdims=True), INVERSE, NARROW_BITS + 2)
    # e·R is in units of 2^−29; read R so that the product's fraction is that
    factor = Value(inverse, 29 - EXPONENT_BITS, 1 << (NARROW_BITS + 1))
    shares = tape.multiply(f"{name}.shares", e, factor, SHARE_BITS, SHARE_BITS + 2, most=INVERSE, live=live)
    return Value(shares.units, SHARE_BITS, 1 << SHARE_BITS, (1 << SHARE_BITS) + (mask.shape[-1] + 1) // 2)


def attention_backward(
    tape: Tape,
    name: str,
    layer: Attention,
    state: AttentionState,
    gradient: Value,
    found: Gradients,
    below: bool,
) -> tuple[Value | None, Value | None]:
    """dy (n, d) → (dx of the asking tokens (n, d), dx of all tokens (m, d)); both None where nobody asks below."""
    f, live = gradient.fraction, float(state.mask.mean())
    joined = linear_backward(tape, layer.output, state.linears["o"], gradient, found, True)
    if joined is None:
        return None, None
    do = _heads(joined, layer.heads)
    dv = tape.product(f"{name}.dv", state.shares.shaped(_swapped), do, f, WIDE_BITS, live=live)
    ds = _softmax_backward(tape, name, state, do, live)
    scale = constant(np.array([inverse_root_of(layer.size, SHARE_BITS)], dtype=np.int64), SHARE_BITS)
    dq = tape.multiply(f"{name}.dq", tape.product(f"{name}.ds_k", ds, state.k, f, WIDE_BITS, live), scale, f, WIDE_BITS)
    if layer.theta is not None:
        dq = _rotated(tape, f"{name}.rotated_dq", layer, dq, state.asking, f, WIDE_BITS, back=True)
    dx_asking = linear_backward(tape, layer.query, state.linears["q"], _joined(dq), found, below)
    dx = linear_backward(tape, layer.value, state.linears["v"], _joined(_folded(dv, layer)), found, below)
    if below or layer.key.pair is not None:
        raw = tape.product(f"{name}.ds_q", ds.shaped(_swapped), state.q, f, WIDE_BITS, live)
        dk = _folded(tape.multiply(f"{name}.dk", raw, scale, f, WIDE_BITS), layer)
        if layer.theta is not None:
            dk = _rotated(tape, f"{name}.rotated_dk", layer, dk, np.arange(dk.shape[-2]), f, WIDE_BITS, back=True)
        more = linear_backward(tape, layer.key, state.linears["k"], _joined(dk), found, below)
        dx = dx + more if dx is not None and more is not None else None
    return dx_asking, dx


def _softmax_backward(tape: Tape, name: str, state: AttentionState, do: Value, live: float) -> Value:
    f, shares = do.fraction, state.shares
    dp = tape.product(f"{name}.dp", do, state.v.shaped(_swapped), f, WIDE_BITS, live=live)
    # Σ p·dp = do·context but for rounding (FlashAttention, Dao et al. 2022, appendix B.2)
    row, column = (one.shaped(lambda units: units[..., None, :]) for one in (do, state.context))
    mean = tape.product(f"{name}.mean", row, column.shaped(_swapped), f, WIDE_BITS)
    return tape.multiply(f"{name}.ds", dp - mean.shaped(lambda units: units[..., 0]), shares, f, WIDE_BITS, live=live)


def _rotated(
    tape: Tape, name: str, layer: Attention, x: Value, places: Units, fraction: int, bits: int, back: bool = False
) -> Value:
    """(a, b) → (a·cos − b·sin, b·cos + a·sin) for the halves a, b of each head (h, n, e); `back` turns the other way.

    As a product with public 2×2 matrices, whose rows add up to at most √2.
    """
    if layer.theta is None:
        return x
    cos, sin = rotations(layer.theta, layer.size, int(places.max()) + 1, ROTATION_BITS)
    cos, sin = cos[places], -sin[places] if back else sin[places]
    half = layer.size // 2
    pair = Value(np.stack([x.units[..., :half], x.units[..., half:]], axis=-1)[..., None], x.fraction, x.bound)
    turn = np.stack([np.stack([cos, -sin], axis=-1), np.stack([sin, cos], axis=-1)], axis=-2)
    longest = int(np.abs(turn).sum(axis=-1).max())
    y = tape.product(name, Value(turn, ROTATION_BITS, 1 << ROTATION_BITS, longest), pair, fraction, bits)
    return y.shaped(lambda units: np.concatenate([units[..., 0, 0], units[..., 1, 0]], axis=-1))


def _mask(layer: Attention, asking: Units, tokens: int) -> Units:
    allowed = np.arange(tokens)[None, :] <= asking[:, None] if layer.causal else np.ones((len(asking), tokens), bool)
    return allowed.astype(np.int64)


def _heads(x: Value, heads: int) -> Value:
    """(n, h·e) → (h, n, e)."""
    return x.shaped(lambda units: units.reshape(len(units), heads, -1).transpose(1, 0, 2))


def _joined(x: Value) -> Value:
    """(h, n, e) → (n, h·e)."""
    return x.shaped(lambda units: units.transpose(1, 0, 2).reshape(units.shape[1], -1))


def _repeated(x: Value, layer: Attention) -> Value:
    return x.shaped(lambda units: np.repeat(units, layer.heads // layer.key_heads, axis=0))


def _folded(x: Value, layer: Attention) -> Value:
    """The gradient of `_repeated`: what several heads share adds up."""
    group = layer.heads // layer.key_heads
    folded = x.units.reshape(layer.key_heads, group, *x.shape[1:]).sum(axis=1)
    return Value(folded, x.fraction, x.bound * group)


def _swapped(units: Units) -> Units:
    return units.swapaxes(-1, -2)
