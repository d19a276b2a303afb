"""H: one example's contribution, from token ids to clip units.

Only what the loss depends on is computed: in the last layer of a classifier one token asks (the first or the last of
the text), and gradients stop at the lowest layer that has a pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from proofs.gradient.attention import AttentionState, attention, attention_backward
from proofs.gradient.clip import contribution
from proofs.gradient.feedforward import MlpState, mlp, mlp_backward
from proofs.gradient.head import head, head_backward, loss_gradient
from proofs.gradient.linear import Gradients
from proofs.gradient.next_token import next_token_gradient
from proofs.gradient.norms import NormState, norm, norm_backward
from proofs.gradient.numbers import SUM_BITS, WIDE_BITS, OutOfRange, Units, Value, constant
from proofs.gradient.program import Layer, NextToken, Program
from proofs.gradient.tape import Tape

GRADIENT_FRACTION = 18  # units of the backward pass: they reach to ±32


@dataclass(frozen=True, eq=False)
class LayerState:
    attention: AttentionState
    attention_norm: NormState
    mlp: MlpState
    mlp_norm: NormState


@dataclass(frozen=True, eq=False)
class ForwardState:
    """y: what the head sees, (1, d), or (n, d) where every token predicts."""

    layers: tuple[LayerState, ...]
    final_norm: NormState | None
    y: Value


def contribute(program: Program, tokens: Sequence[int], label: int, tape: Tape | None = None) -> Units:
    """H: (P,) clip units. Raises OutOfRange where the example leaves the program's ranges.

    label: of a classifier alone.
    """
    tape = tape or Tape()
    return contribution(tape, program, backward(tape, program, forward(tape, program, tokens), tokens, label))


def forward(tape: Tape, program: Program, tokens: Sequence[int]) -> ForwardState:
    """What the head sees, and what the backward pass needs."""
    x, states = _embedded(tape, program, tokens), []
    pooled = len(tokens) - 1 if program.prenorm else 0
    everyone = np.arange(len(tokens))
    for index, layer in enumerate(program.layers):
        asking = everyone if program.predicts or index < len(program.layers) - 1 else np.array([pooled])
        run = _prenorm_layer if program.prenorm else _postnorm_layer
        x, state = run(tape, program, f"layer{index}", layer, x, asking)
        states.append(state)
    final = None
    if program.final_norm is not None:
        x, final = norm(tape, "final_norm", program.final_norm, x)
    return ForwardState(tuple(states), final, x)


def backward(
    tape: Tape,
    program: Program,
    state: ForwardState,
    tokens: Sequence[int],
    label: int,
    fraction: int = GRADIENT_FRACTION,
) -> Gradients:
    """Gradients of the loss by name of the trained tensor, in units of 2^−fraction."""
    found: Gradients = {}
    gradient = _loss(tape, program, state.y, tokens, label, found, fraction)
    lowest = program.lowest_adapted
    if lowest == len(program.layers):
        return found
    if program.final_norm is not None and state.final_norm is not None:
        gradient = norm_backward(tape, "final_norm.back", program.final_norm, state.final_norm, gradient)
    for index in reversed(range(lowest, len(program.layers))):
        run = _prenorm_backward if program.prenorm else _postnorm_backward
        name, below = f"layer{index}.back", index > lowest
        passed = run(tape, program, name, program.layers[index], state.layers[index], gradient, found, below)
        if passed is None:
            return found
        gradient = passed
    return found


def _loss(
    tape: Tape, program: Program, y: Value, tokens: Sequence[int], label: int, found: Gradients, fraction: int
) -> Value:
    """The loss's gradient by y, and those of the head where it is trained."""
    if isinstance(program.head, NextToken):
        return next_token_gradient(tape, program.head, y, tokens, program.formats, fraction)
    logits, state = head(tape, program.head, y, program.formats)
    return head_backward(tape, program.head, state, loss_gradient(tape, logits, label), found, fraction)


def _embedded(tape: Tape, program: Program, tokens: Sequence[int]) -> Value:
    """x (tokens, d): rows of public matrices, so nothing is rounded before the norm."""
    x, count = tape.rows("embedding", program.embedding, tokens), len(tokens)
    if program.positions is None or program.embedding_norm is None:
        return x.finer(program.formats.residual)
    if count > program.positions.shape[0]:
        raise OutOfRange(f"{count} tokens for {program.positions.shape[0]} positions")
    places = constant(program.positions.units, program.positions.fraction)
    x = x + Value(places.units[:count], places.fraction, places.bound)
    return norm(tape, "embedding_norm", program.embedding_norm, x)[0]


def _prenorm_layer(
    tape: Tape, program: Program, name: str, layer: Layer, x: Value, asking: Units
) -> tuple[Value, LayerState]:
    """x + attention(norm(x)), then x + mlp(norm(x)), for the tokens that ask."""
    formats, residual = program.formats, (program.formats.residual, SUM_BITS)
    normed, first = norm(tape, f"{name}.attention_norm", layer.attention_norm, x)
    y, attended = attention(tape, f"{name}.attention", layer.attention, normed, asking, formats, residual)
    x = tape.ranged(f"{name}.attended", Value(x.units[asking], x.fraction, x.bound) + y, SUM_BITS)
    normed, second = norm(tape, f"{name}.mlp_norm", layer.mlp_norm, x)
    y, fed = mlp(tape, f"{name}.mlp", layer.mlp, normed, formats, residual)
    return tape.ranged(f"{name}.fed", x + y, SUM_BITS), LayerState(attended, first, fed, second)


def _prenorm_backward(
    tape: Tape,
    program: Program,
    name: str,
    layer: Layer,
    state: LayerState,
    gradient: Value,
    found: Gradients,
    below: bool,
) -> Value | None:
    inner = mlp_backward(tape, f"{name}.mlp", layer.mlp, state.mlp, gradient, found, program.formats)
    gradient = gradient + norm_backward(tape, f"{name}.mlp_norm", layer.mlp_norm, state.mlp_norm, inner)
    at = f"{name}.attention"
    asking, everyone = attention_backward(tape, at, layer.attention, state.attention, gradient, found, below)
    if asking is None or everyone is None:
        return None
    places = state.attention.asking
    inner = _scattered(everyone, asking, places)
    normed = norm_backward(tape, f"{name}.attention_norm", layer.attention_norm, state.attention_norm, inner)
    return tape.ranged(f"{name}.passed", _scattered(normed, gradient, places), WIDE_BITS)


def _postnorm_layer(
    tape: Tape, program: Program, name: str, layer: Layer, x: Value, asking: Units
) -> tuple[Value, LayerState]:
    """norm(x + attention(x)), then norm(x + mlp(x)), for the tokens that ask."""
    formats, residual = program.formats, (program.formats.residual, SUM_BITS)
    y, attended = attention(tape, f"{name}.attention", layer.attention, x, asking, formats, residual)
    own = _residual(tape, f"{name}.own", Value(x.units[asking], x.fraction, x.bound), formats.residual)
    x, first = norm(
        tape, f"{name}.attention_norm", layer.attention_norm, tape.ranged(f"{name}.attended", own + y, SUM_BITS)
    )
    y, fed = mlp(tape, f"{name}.mlp", layer.mlp, x, formats, residual)
    own = _residual(tape, f"{name}.attended_own", x, formats.residual)
    x, second = norm(tape, f"{name}.mlp_norm", layer.mlp_norm, tape.ranged(f"{name}.fed", own + y, SUM_BITS))
    return x, LayerState(attended, first, fed, second)


def _postnorm_backward(
    tape: Tape,
    program: Program,
    name: str,
    layer: Layer,
    state: LayerState,
    gradient: Value,
    found: Gradients,
    below: bool,
) -> Value | None:
    inner = norm_backward(tape, f"{name}.mlp_norm", layer.mlp_norm, state.mlp_norm, gradient)
    gradient = inner + mlp_backward(tape, f"{name}.mlp", layer.mlp, state.mlp, inner, found, program.formats)
    inner = norm_backward(tape, f"{name}.attention_norm", layer.attention_norm, state.attention_norm, gradient)
    at = f"{name}.attention"
    asking, everyone = attention_backward(tape, at, layer.attention, state.attention, inner, found, below)
    if asking is None or everyone is None:
        return None
    passed = _scattered(everyone, asking + inner, state.attention.asking)
    return tape.ranged(f"{name}.passed", passed, WIDE_BITS)


def _residual(tape: Tape, name: str, x: Value, fraction: int) -> Value:
    """x in the residual's units."""
    if x.fraction <= fraction:
        return x.finer(fraction)
    one = Value(np.ones(1, dtype=np.int64), 0, 1)
    return tape.multiply(name, x, one, fraction, 16)


def _scattered(everyone: Value, asking: Value, places: Units) -> Value:
    """everyone (m, d) with asking (n, d) added at its tokens."""
    units = everyone.units.copy()
    units[places] += asking.units
    return Value(units, everyone.fraction, everyone.bound + asking.bound)
