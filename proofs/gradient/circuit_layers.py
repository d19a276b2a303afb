"""The circuit of H: norms, linear layers, feed-forward blocks; wires (features,) whose lanes are the tokens, or one.

Function by function the twin of norms.py, linear.py and feedforward.py, from which every format is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from proofs.circuit.builder import Circuit
from proofs.circuit.builder import Table as Lookups
from proofs.circuit.integers import divide, inverse_root, squares
from proofs.circuit.relations import Factor, Keyed
from proofs.circuit.rounding import (
    HALF_BITS,
    Part,
    apply,
    cut_up,
    in_limbs,
    joined,
    limb_plan,
    limbs,
    multiply,
    product,
    rounded,
    scaled,
)
from proofs.circuit.wire import Lookup, Units, Wire, strips_of
from proofs.field import DEGREE
from proofs.gradient import tables
from proofs.gradient.feedforward import SLOPE_BITS
from proofs.gradient.linear import scaled_b
from proofs.gradient.matrix import Matrix
from proofs.gradient.norms import ROOT_BITS, normed_fraction, root_shift, rounded_ratio
from proofs.gradient.numbers import LIMB_BITS, NARROW_BITS, WIDE_BITS, OutOfRange, ProgramRefused, constant, largest
from proofs.gradient.program import Formats, GatedMlp, Linear, Norm, Pair, PlainMlp

Gradients = dict[str, Wire]


def factor(wire: Wire, contract: str) -> Factor:
    """A wire (h, f) of many lanes as it is; of one lane with f summed over ("strips") or free ("lanes")."""
    row_sum = wire.row_sum if contract == "strips" else None
    if wire.lanes > 1:
        return Factor(wire.with_(row_sum=row_sum), contract)
    h, f = wire.shape
    shape = (h, f, 1) if contract == "strips" else (h, 1, f)
    return Factor(wire.shaped(lambda strips: strips.reshape(shape)).with_(row_sum=row_sum), "both")


def row(wire: Wire) -> Wire:
    """(f,) as the one row of a matrix."""
    return wire.shaped(lambda strips: strips[None])


def lookups(table: tables.Table) -> Lookups:
    """A table of H as one to look up in."""
    keys = table.first + np.arange(len(table.entries), dtype=np.int64)
    return Lookups(table.name, table.first, np.stack([keys, table.entries], axis=1))


def look_up(circuit: Circuit, table: tables.Table, x: Wire) -> Wire:
    return circuit.look_up(lookups(table), x).with_(fraction=table.fraction, bound=table.bound)


def rows_of(circuit: Circuit, name: str, matrix: Matrix, ids: Wire) -> Wire:
    """(d,): the rows of a public matrix that the hidden ids (1,) of each place name. Raises OutOfRange."""
    count, width = matrix.shape
    table = circuit.table(Lookups(name, 0, np.arange(count, dtype=np.int64)[:, None], rows=matrix.units))
    units = None
    if ids.units is not None:
        if ids.units.min() < 0 or ids.units.max() >= count:
            raise OutOfRange(f"a token id beyond the {count} of the model")
        units = np.ascontiguousarray(matrix.units[ids.units[0]].T)
    found = circuit.free((width,), circuit.lanes, units, largest(matrix.units), matrix.fraction)
    columns = (("1", 0), *((f"e{e}", 1 + e) for e in range(DEGREE)))
    group = circuit.group(name, circuit.lanes, 1 + DEGREE, (Lookup(table, columns),), phase=1)
    first = group.append(1, None)
    cells = [strips_of(group, column, first, (1,)) for column in range(1 + DEGREE)]
    circuit.relations.append(Keyed(cells[0], tuple(cells[1:]), ids, found))
    return found


def ranged(circuit: Circuit, x: Wire, bits: int) -> Wire:
    """The same numbers in limbs of their own, shown to be in `bits` bits."""
    if x.bound <= 1 << (bits - 1):
        return x
    found = cut_up(circuit, x, limb_plan(1 << (bits - 1)))
    return joined(found).with_(fraction=x.fraction, bound=1 << (bits - 1), limbs=tuple(found))


def inner_product(circuit: Circuit, name: str, x: Wire, y: Wire, fraction: int, bits: int) -> Wire:
    """Σ x·y over the last axis, place by place."""
    parts, length = list[Part](), x.shape[-1]
    for place, left in limbs(circuit, x):
        for beside, right in limbs(circuit, y):
            found = circuit.times(left.with_(limbs=None), right.with_(limbs=None)).summed()
            reach = left.bound * length if x.row_sum is None or left is not x else min(x.row_sum, left.bound * length)
            parts.append(Part(place + beside, reach * right.bound, found.units, ((None, found),)))
    return rounded(circuit, name, parts, x.shape[:-1], x.lanes, x.fraction + y.fraction - fraction, fraction, bits)


# ---------------------------------------------------------------------------------------------------------- norms


@dataclass(frozen=True, eq=False)
class NormWires:
    normed: Wire
    root: Wire


def norm(circuit: Circuit, name: str, layer: Norm, x: Wire) -> tuple[Wire, NormWires]:
    length = x.shape[-1]
    k, f = root_shift(length), normed_fraction(length)
    centred = x if layer.shift is None else _centre(circuit, x)
    epsilon = max(1, round(layer.epsilon * length * 4**x.fraction))
    most = centred.bound**2 * length + epsilon
    total = squares(circuit, centred)
    root = inverse_root(circuit, total, epsilon, most, length << (2 * k), ROOT_BITS, like=_single(centred))
    wide = root.with_(fraction=k - x.fraction)
    bound = _root_bound(length, k)
    n = multiply(circuit, f"{name}.normed", centred, wide.spread(length), f, NARROW_BITS, most=bound)
    n = n.with_(bound=(bound >> (k - f)) + 1, row_sum=length + (length << f))
    return _gain(circuit, f"{name}.gain", layer, n), NormWires(n, wide)


def norm_backward(circuit: Circuit, name: str, layer: Norm, state: NormWires, gradient: Wire) -> Wire:
    n, f, length = state.normed, gradient.fraction, gradient.shape[-1]
    inner = scaled(circuit, f"{name}.gain", gradient, layer.gain, f, WIDE_BITS)
    along = inner_product(circuit, f"{name}.along", n, inner, f - 8, WIDE_BITS).with_(fraction=f)
    share = constant(np.array(rounded_ratio(256 << 14, length), dtype=np.int64), 14)
    part = scaled(circuit, f"{name}.share", along, share, f, WIDE_BITS)
    rest = inner - multiply(circuit, f"{name}.projected", part.spread(length), n, f, WIDE_BITS)
    if layer.shift is not None:
        average = Matrix(np.full((1, length), rounded_ratio(1 << 21, length), dtype=np.int64), 21)
        mean = apply(circuit, f"{name}.average", inner, average, f, WIDE_BITS)
        rest = rest - mean.shaped(lambda strips: strips[0]).spread(length)
    return multiply(circuit, f"{name}.root", rest, state.root.spread(length), f, WIDE_BITS, whole=True)


def _single(x: Wire) -> Wire:
    return Wire((), x.lanes, ())


def _root_bound(length: int, k: int) -> int:
    from math import isqrt

    return isqrt(length << (2 * k)) + 1


def _centre(circuit: Circuit, x: Wire) -> Wire:
    mean = divide(circuit, x.summed(), x.shape[-1])
    return (x.with_(limbs=None) - mean.spread(x.shape[-1])).with_(bound=2 * x.bound)


def _gain(circuit: Circuit, name: str, layer: Norm, n: Wire) -> Wire:
    at = n.fraction + layer.gain.fraction
    most = np.abs(layer.gain.units) * n.bound
    if layer.shift is not None:
        most = most + np.abs(layer.shift.finer(at).units)
    fraction = at - max(0, int(most.max()).bit_length() - (NARROW_BITS - 1))
    return scaled(circuit, name, n, layer.gain, fraction, NARROW_BITS, bias=layer.shift)


# --------------------------------------------------------------------------------------------------------- linear


@dataclass(frozen=True, eq=False)
class LinearWires:
    x: Wire
    low: Wire | None


def linear(
    circuit: Circuit, layer: Linear, x: Wire, fraction: int, bits: int, low_rank: int
) -> tuple[Wire, LinearWires]:
    y = apply(circuit, layer.name, x, layer.weight, fraction, bits, bias=layer.bias)
    if layer.pair is None:
        return y, LinearWires(x, None)
    low = apply(circuit, f"{layer.name}.A", x, layer.pair.a, low_rank, NARROW_BITS)
    more = apply(circuit, f"{layer.name}.B", low, scaled_b(layer.pair), fraction, bits)
    return y.with_(limbs=None) + more.with_(limbs=None), LinearWires(x, low)


def linear_backward(
    circuit: Circuit,
    layer: Linear,
    state: LinearWires,
    gradient: Wire,
    found: Gradients,
    below: bool,
    cut: int = LIMB_BITS,
) -> Wire | None:
    f, low = gradient.fraction, None
    if layer.pair is not None and state.low is not None:
        low = _pair_backward(circuit, layer, layer.pair, state, gradient, found, below)
    if not below:
        return None
    dx = apply(circuit, f"{layer.name}.back", gradient, layer.weight, f, WIDE_BITS, transposed=True, cut=cut)
    if layer.pair is None or low is None:
        return dx
    more = apply(circuit, f"{layer.name}.A.back", low, layer.pair.a, f, WIDE_BITS, transposed=True)
    return dx.with_(limbs=None) + more.with_(limbs=None)


def _pair_backward(
    circuit: Circuit, layer: Linear, pair: Pair, state: LinearWires, gradient: Wire, found: Gradients, below: bool
) -> Wire | None:
    f = gradient.fraction
    if pair.b_name is not None and state.low is not None:
        odd, shift = pair.scale
        low = state.low.scaled(odd).with_(fraction=state.low.fraction + shift)
        found[pair.b_name] = outer(circuit, f"{layer.name}.dB", gradient, low, f)
    if not below and pair.a_name is None:
        return None
    low = apply(circuit, f"{layer.name}.B.back", gradient, scaled_b(pair), f, WIDE_BITS, transposed=True)
    if pair.a_name is not None:
        found[pair.a_name] = outer(circuit, f"{layer.name}.dA", low, state.x, f)
    return low


def outer(circuit: Circuit, name: str, x: Wire, y: Wire, fraction: int) -> Wire:
    """Σ over tokens of x·yᵀ: (fx, fy) of one lane."""
    left, right = factor(row(x), "lanes"), factor(row(y), "lanes")
    found = product(circuit, name, left, right, fraction, WIDE_BITS, flat=True)
    return found.shaped(lambda strips: strips[0])


# --------------------------------------------------------------------------------------------------- feed-forward


@dataclass(frozen=True, eq=False)
class MlpWires:
    linears: dict[str, LinearWires]
    before: Wire
    activated: Wire
    up: Wire | None = None


def mlp(
    circuit: Circuit, name: str, layer: GatedMlp | PlainMlp, x: Wire, formats: Formats, residual: tuple[int, int]
) -> tuple[Wire, MlpWires]:
    low, hidden, out = formats.low_rank, formats.hidden, formats.activation
    if isinstance(layer, PlainMlp):
        before, up_state = linear(circuit, layer.up, x, hidden, NARROW_BITS, low)
        after = look_up(circuit, tables.gelu(hidden, out), before)
        y, down_state = linear(circuit, layer.down, after, *residual, low)
        return y, MlpWires({"up": up_state, "down": down_state}, before, after)
    gate, gate_state = linear(circuit, layer.gate, x, hidden, NARROW_BITS, low)
    up, up_state = linear(circuit, layer.up, x, hidden, NARROW_BITS, low)
    opened = look_up(circuit, tables.silu(hidden, hidden), gate)
    wide = formats.gated > NARROW_BITS
    cells = in_limbs(circuit, up.shape, up.lanes, formats.gated, HALF_BITS) if wide else None
    after = multiply(circuit, f"{name}.gated", opened, up, out, formats.gated, result=cells)
    y, down_state = linear(circuit, layer.down, after, *residual, low)
    return y, MlpWires({"gate": gate_state, "up": up_state, "down": down_state}, gate, opened, up)


def mlp_backward(
    circuit: Circuit,
    name: str,
    layer: GatedMlp | PlainMlp,
    state: MlpWires,
    gradient: Wire,
    found: Gradients,
    formats: Formats,
) -> Wire:
    f, hidden = gradient.fraction, formats.hidden
    da = passed(linear_backward(circuit, layer.down, state.linears["down"], gradient, found, True, HALF_BITS))
    if isinstance(layer, PlainMlp):
        slope = look_up(circuit, tables.gelu_slope(hidden, SLOPE_BITS), state.before)
        du = multiply(circuit, f"{name}.du", da, slope, f, WIDE_BITS)
        return passed(linear_backward(circuit, layer.up, state.linears["up"], du, found, True))
    if state.up is None:
        raise ProgramRefused(f"{name}: a gated block without what it multiplied")
    slope = look_up(circuit, tables.silu_slope(hidden, SLOPE_BITS), state.before)
    opened = multiply(circuit, f"{name}.da_up", da, state.up, f, WIDE_BITS, cut=HALF_BITS)
    dg = multiply(circuit, f"{name}.dg", opened, slope, f, WIDE_BITS)
    du = multiply(circuit, f"{name}.du", da, state.activated, f, WIDE_BITS)
    dx = passed(linear_backward(circuit, layer.gate, state.linears["gate"], dg, found, True))
    more = passed(linear_backward(circuit, layer.up, state.linears["up"], du, found, True))
    return dx.with_(limbs=None) + more.with_(limbs=None)


def passed(gradient: Wire | None) -> Wire:
    if gradient is None:
        raise ProgramRefused("this part of the program passes its gradient on")
    return gradient


__all__ = [
    "Gradients",
    "Units",
    "factor",
    "inner_product",
    "linear",
    "look_up",
    "mlp",
    "norm",
    "outer",
    "ranged",
    "rows_of",
]
