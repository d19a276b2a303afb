"""The circuit of attention, forward and backward; the twin of attention.py.

Softmax is one group of cells for each (head, token asked, token asking): how far a score is below the row's largest,
its exponential, whether it counts (mask), a slack that frees the score where it does not, and a pick:

    mask·slack = 0      e = mask·e      pick·below = 0      pick² = pick      Σ pick = 1

so that the largest score is the largest of those that count: the pick is at 0, where the exponential is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from proofs.circuit.builder import Circuit
from proofs.circuit.integers import inverse
from proofs.circuit.relations import Factor
from proofs.circuit.rounding import (
    HALF_BITS,
    Part,
    limbs,
    multiply,
    product,
    product_parts,
    rounded,
    scaled,
    with_values,
)
from proofs.circuit.wire import Lookup, Units, Wire
from proofs.field import P
from proofs.gradient.attention import EXPONENT_BITS, INVERSE, ROTATION_BITS, SHARE_BITS
from proofs.gradient.circuit_layers import (
    Gradients,
    LinearWires,
    factor,
    inner_product,
    linear,
    linear_backward,
    lookups,
)
from proofs.gradient.numbers import LIMB_BITS, LOOKUP_BITS, NARROW_BITS, WIDE_BITS, OutOfRange, constant
from proofs.gradient.program import Attention, Formats
from proofs.gradient.tables import Table, exponentials, inverse_root_of, rotations
from proofs.gradient.tape import SCORE_BITS

FARTHEST = (1 << LOOKUP_BITS) - 1  # where every table of exponentials is 0
INVERSE_BITS = NARROW_BITS + 1


@dataclass(frozen=True, eq=False)
class Text:
    """What attention knows about the text.

    asking (1, 1): 1 at the token that speaks for the text. mask, mask_last: (heads·tokens,), 1 where a token counts,
    for all tokens asking and for that one alone (one lane).
    """

    asking: Wire
    mask: Wire
    mask_last: Wire


@dataclass(frozen=True, eq=False)
class AttentionWires:
    """q (h, e), k, v (h, e), shares (h, m), context (h, e)."""

    linears: dict[str, LinearWires]
    q: Wire
    k: Wire
    v: Wire
    shares: Wire
    context: Wire
    selected: bool


def attention(
    circuit: Circuit,
    name: str,
    layer: Attention,
    x: Wire,
    text: Text,
    last: bool,
    formats: Formats,
    residual: tuple[int, int],
) -> tuple[Wire, AttentionWires]:
    """x (d,) of all tokens → (d,) of all, or of the one that speaks for the text where this is the last layer."""
    low = formats.low_rank
    own = select(circuit, text, x) if last and layer.theta is None else x
    q, q_state = linear(circuit, layer.query, own, formats.query, NARROW_BITS, low)
    k, k_state = linear(circuit, layer.key, x, formats.key, NARROW_BITS, low)
    v, v_state = linear(circuit, layer.value, x, formats.value, NARROW_BITS, low)
    q, k, v = _heads(q, layer.heads), _heads(k, layer.key_heads), _heads(v, layer.key_heads)
    if layer.theta is not None:
        q = rotated(circuit, f"{name}.rotated_q", layer, q, formats.query, NARROW_BITS)
        k = rotated(circuit, f"{name}.rotated_k", layer, k, formats.key, NARROW_BITS)
        q = _per_head(q, select(circuit, text, _joined(q)), layer.heads) if last else q
    k, v = _repeated(k, layer), _repeated(v, layer)
    mask = text.mask_last if last else text.mask
    below = _scores(circuit, f"{name}.scores", q, k, formats.scores)
    shares = softmax(circuit, name, exponentials(formats.scores, layer.size, EXPONENT_BITS), below, mask)
    context = product(
        circuit, f"{name}.context", factor(shares, "strips"), factor(v, "lanes"), formats.value, NARROW_BITS
    )
    y, o_state = linear(circuit, layer.output, _joined(context), *residual, low)
    states = {"q": q_state, "k": k_state, "v": v_state, "o": o_state}
    return y, AttentionWires(states, q, k, v, shares, context, selected=last and layer.theta is None)


@dataclass(frozen=True, eq=False)
class Scores:
    """Parts of q·kᵀ, and the shape (h, m) of its result; what is below the largest is made by softmax."""

    parts: list[Part]
    shape: tuple[int, int]
    lanes: int
    shift: int
    name: str

    @classmethod
    def of(cls, name: str, raw: Wire) -> Scores:
        """What is there already: (h, m) of one lane."""
        part = Part(0, raw.bound, raw.units, ((None, raw.with_(fraction=0, limbs=None)),))
        return cls([part], (raw.shape[0], raw.shape[1]), raw.lanes, 0, name)


def _scores(circuit: Circuit, name: str, q: Wire, k: Wire, fraction: int) -> Scores:
    left, right = factor(q, "strips"), factor(k, "strips")
    parts = product_parts(circuit, left, right)
    shape, lanes = (left.sizes[0], right.sizes[2]), left.sizes[2]
    if circuit.proving:
        parts = [with_values(part, shape, lanes) for part in parts]
    return Scores(parts, shape, lanes, q.fraction + k.fraction - fraction, name)


def softmax(circuit: Circuit, name: str, table: Table, scores: Scores, mask: Wire) -> Wire:
    """Shares (h, m) of every token that counts; zero of the others."""
    shape, lanes = scores.shape, scores.lanes
    allowed = mask.shaped(lambda strips: strips.reshape(shape))
    picked: list[Wire] = []

    def below_the_largest(raw: Units | None) -> Wire:
        top = below = None
        if raw is not None:
            top, below = _below(name, raw, allowed.known())
        largest = circuit.signed(shape[:1], lanes, SCORE_BITS, top)
        key, e, slack = _exponentials(circuit, table, shape, lanes, raw, top, below, allowed)
        picked.append(e)
        return largest.spread(shape[1]) - key + slack

    rounded(circuit, scores.name, scores.parts, shape, lanes, scores.shift, 0, SCORE_BITS + 1, below_the_largest)
    e = picked[0].with_(fraction=table.fraction, bound=1 << table.fraction)
    r = inverse(circuit, e.summed(), INVERSE, INVERSE_BITS).with_(fraction=29 - table.fraction)
    shares = multiply(circuit, f"{name}.shares", e, r.spread(shape[1]), SHARE_BITS, SHARE_BITS + 2, most=INVERSE)
    return shares.with_(bound=1 << SHARE_BITS, row_sum=(1 << SHARE_BITS) + (shape[1] + 1) // 2)


def _below(name: str, raw: Units, allowed: Units) -> tuple[Units, Units]:
    """(largest score that counts (h, lanes), how far each is below it), the farthest where one does not count."""
    top = np.where(allowed > 0, raw, np.iinfo(np.int64).min).max(axis=1)
    below = np.where(allowed > 0, top[:, None] - raw, FARTHEST)
    if below.max(initial=0) > FARTHEST or (below[allowed > 0]).max(initial=0) > FARTHEST:
        raise OutOfRange(f"{name}: scores of one row are 2^16 units apart or more, which do not fit the table")
    return top, below


def _exponentials(
    circuit: Circuit,
    table: Table,
    shape: tuple[int, ...],
    lanes: int,
    raw: Units | None,
    top: Units | None,
    below: Units | None,
    allowed: Wire,
) -> tuple[Wire, Wire, Wire]:
    """Cells of one softmax: (below, exponential, slack)."""
    name = circuit.table(lookups(table))
    group = circuit.group(
        f"softmax {name}",
        lanes,
        5,
        (Lookup(name, (("1", 0), ("β", 1))),),
        (
            ((1, 2, 3),),
            ((1, 1, None), (P - 1, 2, 1)),
            ((1, 4, 0),),
            ((1, 4, 4), (P - 1, 4, None)),
        ),
    )
    units: list[Units | None] = [None] * 5
    if raw is not None and top is not None and below is not None:
        e = table.entries[below]
        slack = raw - top[:, None] + below
        pick = np.zeros_like(below)
        np.put_along_axis(pick, np.argmin(below, axis=1)[:, None], 1, axis=1)
        units = [below, e, allowed.known(), slack, pick]
    key, e_wire, mask, slack_wire, pick_wire = circuit.put(group, shape, units)
    circuit.equal(mask - allowed.with_(fraction=0), pick_wire.summed().plus(-1))
    return key, e_wire, slack_wire


def attention_backward(
    circuit: Circuit,
    name: str,
    layer: Attention,
    state: AttentionWires,
    text: Text,
    gradient: Wire,
    found: Gradients,
    below: bool,
) -> tuple[Wire | None, Wire | None]:
    """dy (d,) → (dx through the queries, dx through keys and values); of one lane and all, or both of all."""
    f = gradient.fraction
    joined = linear_backward(circuit, layer.output, state.linears["o"], gradient, found, True)
    if joined is None:
        return None, None
    do = _heads(joined, layer.heads)
    dv = product(circuit, f"{name}.dv", factor(state.shares, "lanes"), factor(do, "lanes"), f, WIDE_BITS)
    dp = product(circuit, f"{name}.dp", factor(do, "strips"), factor(state.v, "strips"), f, WIDE_BITS, cut=HALF_BITS)
    mean = inner_product(circuit, f"{name}.mean", do, state.context, f, WIDE_BITS)
    ds = multiply(circuit, f"{name}.ds", dp - mean.spread(dp.shape[1]), state.shares, f, WIDE_BITS)
    scale = constant(np.array(inverse_root_of(layer.size, SHARE_BITS), dtype=np.int64), SHARE_BITS)
    raw = product(circuit, f"{name}.ds_k", factor(ds, "strips"), factor(state.k, "lanes"), f, WIDE_BITS, cut=HALF_BITS)
    turned = LIMB_BITS if layer.theta is None else HALF_BITS
    dq = scaled(circuit, f"{name}.dq", raw, scale, f, WIDE_BITS, cut=turned)
    if layer.theta is not None:
        if dq.lanes == 1:
            dq = _heads(scatter(circuit, text, _joined(dq)), layer.heads)
        dq = rotated(circuit, f"{name}.rotated_dq", layer, dq, f, WIDE_BITS, back=True)
    dx_asking = linear_backward(circuit, layer.query, state.linears["q"], _joined(dq), found, below)
    dx = linear_backward(circuit, layer.value, state.linears["v"], _joined(_folded(dv, layer)), found, below)
    if below or layer.key.pair is not None:
        raw = product(
            circuit, f"{name}.ds_q", factor(ds, "lanes"), factor(state.q, "lanes"), f, WIDE_BITS, cut=HALF_BITS
        )
        dk = _folded(scaled(circuit, f"{name}.dk", raw, scale, f, WIDE_BITS, cut=turned), layer)
        if layer.theta is not None:
            dk = rotated(circuit, f"{name}.rotated_dk", layer, dk, f, WIDE_BITS, back=True)
        more = linear_backward(circuit, layer.key, state.linears["k"], _joined(dk), found, below)
        dx = dx + more if dx is not None and more is not None else None
    return dx_asking, dx


def rotated(
    circuit: Circuit, name: str, layer: Attention, x: Wire, fraction: int, bits: int, back: bool = False
) -> Wire:
    """(a, b) → (a·cos − b·sin, b·cos + a·sin) for the halves of each head (h, e), by public vectors over the tokens."""
    if layer.theta is None:
        return x
    cos, sin = rotations(layer.theta, layer.size, circuit.lanes, ROTATION_BITS)
    longest = int((np.abs(cos) + np.abs(sin)).max())
    parts = list[Part]()
    for place, limb in limbs(circuit, x):
        turned = _turned(circuit, limb.with_(limbs=None, fraction=0), cos, sin, back)
        parts.append(Part(place, longest * limb.bound, turned.units, ((None, turned),)))
    shift = x.fraction + ROTATION_BITS - fraction
    return rounded(circuit, name, parts, x.shape, x.lanes, shift, fraction, bits)


def _turned(circuit: Circuit, x: Wire, cos: Units, sin: Units, back: bool) -> Wire:
    """The wire of the rotated halves, exactly."""
    half = cos.shape[1]
    swapped = x.shaped(lambda strips: np.concatenate([strips[:, half:], strips[:, :half]], axis=1))
    signs = np.repeat(np.array([1, -1] if back else [-1, 1], dtype=np.int64), half)
    found = list[Wire]()
    for wire, table in ((x, cos), (swapped.scaled(signs), sin)):
        numbers = [circuit.turn(table[:, i]) for i in range(half)]
        each = np.broadcast_to(np.array(numbers * 2), x.shape)
        found.append(wire.turned(each, np.concatenate([table, table], axis=1).T))
    return found[0] + found[1]


def select(circuit: Circuit, text: Text, x: Wire) -> Wire:
    """(f,) of all tokens → (f,) of the one that speaks for the text."""
    units = None
    if circuit.proving:
        units = (x.known() * text.asking.known()[0]).sum(axis=-1, keepdims=True)
    found = circuit.free(x.shape, 1, units, x.bound, x.fraction)
    size = x.shape[0]
    pair = circuit.pair(
        Factor(text.asking, "lanes"), Factor(x.with_(limbs=None).shaped(lambda s: s.reshape(1, size)), "lanes")
    )
    circuit.bilinear([pair], found.with_(fraction=0))
    return found


def scatter(circuit: Circuit, text: Text, x: Wire) -> Wire:
    """(f,) of the one token that speaks for the text → (f,) of all, zero at the others."""
    size = x.shape[0]
    units = x.known() * text.asking.known()[0] if circuit.proving else None
    found = circuit.free(x.shape, circuit.lanes, units, x.bound, x.fraction)
    pair = circuit.pair(
        Factor(text.asking, "strips"), Factor(x.with_(limbs=None).shaped(lambda s: s.reshape(1, 1, size)), "both")
    )
    circuit.bilinear([pair], found.with_(fraction=0).shaped(lambda s: s.reshape(1, size)))
    return found


def _heads(x: Wire, heads: int) -> Wire:
    return x.shaped(lambda strips: strips.reshape(heads, -1))


def _joined(x: Wire) -> Wire:
    return x.shaped(lambda strips: strips.reshape(-1))


def _per_head(like: Wire, x: Wire, heads: int) -> Wire:
    return _heads(x, heads).with_(fraction=like.fraction, bound=like.bound)


def _repeated(x: Wire, layer: Attention) -> Wire:
    return x.shaped(lambda strips: np.repeat(strips, layer.heads // layer.key_heads, axis=0))


def _folded(x: Wire, layer: Attention) -> Wire:
    """The gradient of `_repeated`: what several heads share adds up."""
    group = layer.heads // layer.key_heads
    if group == 1:
        return x
    split = x.shaped(lambda strips: strips.reshape(layer.key_heads, group, -1).swapaxes(1, 2))
    return split.with_(limbs=None).summed()
