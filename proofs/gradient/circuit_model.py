"""The circuit of H: from token ids and a label to clip units, the twin of transformer.py, head.py and clip.py.

The text has as many places as the longest: tokens beyond its end run along, and nothing that is asked sees them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from proofs.circuit.builder import Circuit
from proofs.circuit.integers import Total, inverse_root, squares
from proofs.circuit.rounding import apply, multiply, pieces, product, scaled
from proofs.circuit.wire import Units, Wire, constant_wire
from proofs.gradient import head as heads
from proofs.gradient import tables
from proofs.gradient.circuit_attention import (
    AttentionWires,
    Scores,
    Text,
    attention,
    attention_backward,
    scatter,
    select,
    softmax,
)
from proofs.gradient.circuit_layers import (
    Gradients,
    MlpWires,
    NormWires,
    factor,
    linear,
    linear_backward,
    look_up,
    mlp,
    mlp_backward,
    norm,
    norm_backward,
    ranged,
    row,
    rows_of,
)
from proofs.gradient.circuit_next_token import Following, next_token_gradient
from proofs.gradient.clip import FACTOR_BITS, FACTOR_FRACTION, free_factor
from proofs.gradient.numbers import NARROW_BITS, SUM_BITS, WIDE_BITS, OutOfRange, ProgramRefused, Value
from proofs.gradient.program import Group, Head, Layer, NextToken, Program, Trained
from proofs.gradient.transformer import GRADIENT_FRACTION

IN_PAIRS = "rows of the embedding"


@dataclass(frozen=True, eq=False)
class Example:
    """ids: one strip of token ids. label: (labels,) of one lane, 1 at the label; or following: what comes after each
    token."""

    ids: Wire
    text: Text
    label: Wire | None
    following: Following | None = None


@dataclass(frozen=True, eq=False)
class LayerWires:
    attention: AttentionWires
    attention_norm: NormWires
    mlp: MlpWires
    mlp_norm: NormWires


def contribution(circuit: Circuit, program: Program, example: Example) -> list[tuple[Trained, Wire]]:
    """Clip units of each trained tensor, flat, in the program's order of coordinates."""
    x, states, final = forward(circuit, program, example.ids, example.text)
    found: Gradients = {}
    gradient = _loss(circuit, program, x, example, found)
    lowest, last = program.lowest_adapted, len(program.layers) - 1
    if lowest <= last:
        if final is not None and program.final_norm is not None:
            gradient = norm_backward(circuit, "final_norm.back", program.final_norm, final, gradient)
        passed: Wire | None = gradient
        for index in range(last, lowest - 1, -1):
            if passed is None:
                raise ProgramRefused("a gradient was asked for below where it ends")
            back = _prenorm_backward if program.prenorm else _postnorm_backward
            layer, below = program.layers[index], index > lowest
            name = f"layer{index}.back"
            passed = back(circuit, program, name, layer, states[index], example.text, passed, found, below)
    return _clipped(circuit, program, found)


# ------------------------------------------------------------------------------------------------------- forward


def forward(
    circuit: Circuit, program: Program, ids: Wire, text: Text
) -> tuple[Wire, list[LayerWires], NormWires | None]:
    """What the head sees, (d,) of one lane or, where every token predicts, of all; and what the backward pass needs."""
    x, states, last = _embedded(circuit, program, ids), list[LayerWires](), len(program.layers) - 1
    for index, layer in enumerate(program.layers):
        run = _prenorm_layer if program.prenorm else _postnorm_layer
        alone = index == last and not program.predicts
        x, state = run(circuit, program, f"layer{index}", layer, x, text, alone)
        states.append(state)
    if program.final_norm is None:
        return x, states, None
    x, final = norm(circuit, "final_norm", program.final_norm, x)
    return x, states, final


def _embedded(circuit: Circuit, program: Program, ids: Wire) -> Wire:
    x = rows_of(circuit, IN_PAIRS, program.embedding, ids)
    if program.positions is None or program.embedding_norm is None:
        return _finer(x, program.formats.residual)
    if circuit.lanes > program.positions.shape[0]:
        raise OutOfRange(f"{circuit.lanes} tokens for {program.positions.shape[0]} positions")
    places = np.ascontiguousarray(program.positions.units[: circuit.lanes].T)
    x = x.plus(places)
    return norm(circuit, "embedding_norm", program.embedding_norm, x)[0]


def _finer(x: Wire, fraction: int) -> Wire:
    if fraction < x.fraction:
        raise ProgramRefused(f"2^-{x.fraction} does not become 2^-{fraction} without a rescale")
    return x.scaled(1 << (fraction - x.fraction)).with_(fraction=fraction)


def _prenorm_layer(
    circuit: Circuit, program: Program, name: str, layer: Layer, x: Wire, text: Text, last: bool
) -> tuple[Wire, LayerWires]:
    formats, residual = program.formats, (program.formats.residual, SUM_BITS)
    normed, first = norm(circuit, f"{name}.attention_norm", layer.attention_norm, x)
    y, attended = attention(circuit, f"{name}.attention", layer.attention, normed, text, last, formats, residual)
    own = select(circuit, text, x) if last else x
    x = ranged(circuit, own + y, SUM_BITS)
    normed, second = norm(circuit, f"{name}.mlp_norm", layer.mlp_norm, x)
    y, fed = mlp(circuit, f"{name}.mlp", layer.mlp, normed, formats, residual)
    return ranged(circuit, x + y, SUM_BITS), LayerWires(attended, first, fed, second)


def _postnorm_layer(
    circuit: Circuit, program: Program, name: str, layer: Layer, x: Wire, text: Text, last: bool
) -> tuple[Wire, LayerWires]:
    formats, residual = program.formats, (program.formats.residual, SUM_BITS)
    y, attended = attention(circuit, f"{name}.attention", layer.attention, x, text, last, formats, residual)
    own = _residual(circuit, f"{name}.own", select(circuit, text, x) if last else x, formats.residual)
    x, first = norm(circuit, f"{name}.attention_norm", layer.attention_norm, ranged(circuit, own + y, SUM_BITS))
    y, fed = mlp(circuit, f"{name}.mlp", layer.mlp, x, formats, residual)
    own = _residual(circuit, f"{name}.attended_own", x, formats.residual)
    x, second = norm(circuit, f"{name}.mlp_norm", layer.mlp_norm, ranged(circuit, own + y, SUM_BITS))
    return x, LayerWires(attended, first, fed, second)


def _residual(circuit: Circuit, name: str, x: Wire, fraction: int) -> Wire:
    if x.fraction <= fraction:
        return _finer(x, fraction)
    return scaled(circuit, name, x, Value(np.array(1, dtype=np.int64), 0, 1), fraction, 16)


# ----------------------------------------------------------------------------------------------- head and backward


def _loss(circuit: Circuit, program: Program, x: Wire, example: Example, found: Gradients) -> Wire:
    """The loss's gradient by what the head sees, and those of the head where it is trained."""
    if isinstance(program.head, NextToken):
        if example.following is None:
            raise ProgramRefused("a text without what follows its tokens")
        formats, fraction = program.formats, GRADIENT_FRACTION
        return next_token_gradient(circuit, program.head, x, example.following, formats, fraction)
    if example.label is None:
        raise ProgramRefused("a text without a label")
    return _head(circuit, program.head, x, example.label, program, found)


def _head(circuit: Circuit, layer: Head, x: Wire, label: Wire, program: Program, found: Gradients) -> Wire:
    """The loss's gradient, the head's own, and what is passed on to the token that speaks for the text."""
    f = GRADIENT_FRACTION
    x, before = pooled(circuit, layer, x)
    dlogits = _label_loss(circuit, logits(circuit, layer, x, program), label, program)
    column, line = factor(row(dlogits), "lanes"), factor(row(x), "lanes")
    found[layer.weight_name] = product(circuit, "classifier.dW", column, line, f, WIDE_BITS, flat=True).shaped(
        lambda strips: strips[0]
    )
    if layer.bias_name is not None:
        found[layer.bias_name] = _finer(dlogits, f)
    dy = apply(circuit, "classifier.back", dlogits, layer.classifier.weight, f, WIDE_BITS, transposed=True)
    if layer.pooler is None or before is None:
        return dy
    slope = look_up(circuit, tables.tanh_slope(heads.TANH_IN, heads.TANH_OUT), before)
    inner = multiply(circuit, "pooler.du", dy, slope, f, WIDE_BITS)
    return apply(circuit, "pooler.back", inner, layer.pooler.weight, f, WIDE_BITS, transposed=True)


def pooled(circuit: Circuit, layer: Head, x: Wire) -> tuple[Wire, Wire | None]:
    """What the classifier sees, and the pooler's sum under its tanh where there is one."""
    if layer.pooler is None:
        return x, None
    before = apply(circuit, "pooler", x, layer.pooler.weight, heads.TANH_IN, NARROW_BITS, bias=layer.pooler.bias)
    return look_up(circuit, tables.tanh(heads.TANH_IN, heads.TANH_OUT), before), before


def logits(circuit: Circuit, layer: Head, x: Wire, program: Program) -> Wire:
    """(labels,) of one lane, from what is pooled."""
    classifier, fraction = layer.classifier, program.formats.logits
    return apply(circuit, "classifier", x, classifier.weight, fraction, NARROW_BITS, bias=classifier.bias)


def _label_loss(circuit: Circuit, logits: Wire, label: Wire, program: Program) -> Wire:
    """dlogits (labels,) of one lane: a softmax in which every label counts, less the label."""
    fraction = program.formats.logits
    scores = Scores.of("loss.scores", row(logits))
    everyone = constant_wire(np.ones(logits.shape, dtype=np.int64), 1, 0)
    table = tables.exponentials(fraction, 1, heads.EXPONENT_BITS)
    shares = softmax(circuit, "loss", table, scores, everyone)
    onehot = label.scaled(1 << heads.SHARE_BITS).with_(fraction=heads.SHARE_BITS)
    found = shares.shaped(lambda strips: strips[0]).with_(limbs=None) - onehot
    return found.with_(bound=(1 << heads.SHARE_BITS) + 1)


def _prenorm_backward(
    circuit: Circuit,
    program: Program,
    name: str,
    layer: Layer,
    state: LayerWires,
    text: Text,
    gradient: Wire,
    found: Gradients,
    below: bool,
) -> Wire | None:
    inner = mlp_backward(circuit, f"{name}.mlp", layer.mlp, state.mlp, gradient, found, program.formats)
    gradient = gradient + norm_backward(circuit, f"{name}.mlp_norm", layer.mlp_norm, state.mlp_norm, inner)
    at = f"{name}.attention"
    asking, everyone = attention_backward(circuit, at, layer.attention, state.attention, text, gradient, found, below)
    if asking is None or everyone is None:
        return None
    inner = everyone + _for_all(circuit, text, asking)
    normed = norm_backward(circuit, f"{name}.attention_norm", layer.attention_norm, state.attention_norm, inner)
    return ranged(circuit, normed + _for_all(circuit, text, gradient), WIDE_BITS)


def _postnorm_backward(
    circuit: Circuit,
    program: Program,
    name: str,
    layer: Layer,
    state: LayerWires,
    text: Text,
    gradient: Wire,
    found: Gradients,
    below: bool,
) -> Wire | None:
    inner = norm_backward(circuit, f"{name}.mlp_norm", layer.mlp_norm, state.mlp_norm, gradient)
    gradient = inner + mlp_backward(circuit, f"{name}.mlp", layer.mlp, state.mlp, inner, found, program.formats)
    inner = norm_backward(circuit, f"{name}.attention_norm", layer.attention_norm, state.attention_norm, gradient)
    at = f"{name}.attention"
    asking, everyone = attention_backward(circuit, at, layer.attention, state.attention, text, inner, found, below)
    if asking is None or everyone is None:
        return None
    own = _for_all(circuit, text, inner) + _for_all(circuit, text, asking)
    return ranged(circuit, everyone + own, WIDE_BITS)


def _for_all(circuit: Circuit, text: Text, x: Wire) -> Wire:
    return x if x.lanes > 1 else scatter(circuit, text, x)


# ---------------------------------------------------------------------------------------------------------- clip


def _clipped(circuit: Circuit, program: Program, found: Gradients) -> list[tuple[Trained, Wire]]:
    flat = {name: wire.shaped(lambda strips: strips.reshape(-1)) for name, wire in found.items()}
    clipped: dict[str, Wire] = {}
    for name, group in program.groups.items():
        members = [trained.name for trained in program.trained if trained.group == name]
        clipped |= _clip(circuit, f"clip.{name}", {member: flat[member] for member in members}, group)
    return [(trained, clipped[trained.name]) for trained in program.trained]


def _clip(circuit: Circuit, name: str, members: Gradients, group: Group) -> Gradients:
    fraction = GRADIENT_FRACTION
    whole = {key: _in_pieces(circuit, wire) for key, wire in members.items()}
    energy = Total(tuple(part for wire in whole.values() for part in squares(circuit, wire).parts))
    most = sum(wire.bound**2 * wire.size for wire in whole.values())
    numerator = (group.clip_units << (fraction + FACTOR_FRACTION)) ** 2
    like = Wire((), 1, ())
    cap = free_factor(group)
    factor = inverse_root(circuit, energy, 0, most, numerator, FACTOR_BITS, like, cap=cap)
    factor = factor.with_(fraction=FACTOR_FRACTION)
    return {
        key: multiply(circuit, f"{name}.units", wire, factor.spread(wire.size), 0, NARROW_BITS, whole=True)
        for key, wire in whole.items()
    }


def _in_pieces(circuit: Circuit, wire: Wire) -> Wire:
    """The wire with its bytes, which squares and products share."""
    return wire.with_(limbs=tuple(pieces(circuit, wire)))


__all__ = ["Example", "Text", "Units", "contribution", "linear", "linear_backward"]
