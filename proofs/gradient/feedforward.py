"""The two kinds of feed-forward blocks, forward and backward."""

from __future__ import annotations

from dataclasses import dataclass

from proofs.gradient import tables
from proofs.gradient.linear import Gradients, LinearState, linear, linear_backward
from proofs.gradient.numbers import NARROW_BITS, WIDE_BITS, ProgramRefused, Units, Value
from proofs.gradient.program import Formats, GatedMlp, PlainMlp
from proofs.gradient.tape import Tape

SLOPE_BITS = 14


@dataclass(frozen=True, eq=False)
class MlpState:
    """The linear layers' own states, the inputs of the activation, and for a gated block what it multiplied."""

    linears: dict[str, LinearState]
    before: Units
    activated: Value
    up: Value | None = None


def mlp(
    tape: Tape, name: str, layer: GatedMlp | PlainMlp, x: Value, formats: Formats, residual: tuple[int, int]
) -> tuple[Value, MlpState]:
    """x (n, d) → (n, d); `residual` gives fraction and bits of the result."""
    low, hidden, out = formats.low_rank, formats.hidden, formats.activation
    if isinstance(layer, PlainMlp):
        before, up_state = linear(tape, layer.up, x, hidden, NARROW_BITS, low)
        after = tape.look_up(f"{name}.gelu", tables.gelu(hidden, out), before.units)
        y, down_state = linear(tape, layer.down, after, *residual, low)
        return y, MlpState({"up": up_state, "down": down_state}, before.units, after)
    gate, gate_state = linear(tape, layer.gate, x, hidden, NARROW_BITS, low)
    up, up_state = linear(tape, layer.up, x, hidden, NARROW_BITS, low)
    opened = tape.look_up(f"{name}.silu", tables.silu(hidden, hidden), gate.units)
    after = tape.multiply(f"{name}.gated", opened, up, out, formats.gated)
    y, down_state = linear(tape, layer.down, after, *residual, low)
    return y, MlpState({"gate": gate_state, "up": up_state, "down": down_state}, gate.units, opened, up)


def mlp_backward(
    tape: Tape,
    name: str,
    layer: GatedMlp | PlainMlp,
    state: MlpState,
    gradient: Value,
    found: Gradients,
    formats: Formats,
) -> Value:
    """dy (n, d) wide → dx (n, d) wide."""
    f, hidden = gradient.fraction, formats.hidden
    da = _backed(linear_backward(tape, layer.down, state.linears["down"], gradient, found, True))
    if isinstance(layer, PlainMlp):
        slope = tape.look_up(f"{name}.gelu_slope", tables.gelu_slope(hidden, SLOPE_BITS), state.before)
        du = tape.multiply(f"{name}.du", da, slope, f, WIDE_BITS)
        return _backed(linear_backward(tape, layer.up, state.linears["up"], du, found, True))
    if state.up is None:
        raise ProgramRefused(f"{name}: a gated block without what it multiplied")
    slope = tape.look_up(f"{name}.silu_slope", tables.silu_slope(hidden, SLOPE_BITS), state.before)
    opened = tape.multiply(f"{name}.da_up", da, state.up, f, WIDE_BITS)
    dg = tape.multiply(f"{name}.dg", opened, slope, f, WIDE_BITS)
    du = tape.multiply(f"{name}.du", da, state.activated, f, WIDE_BITS)
    dx = _backed(linear_backward(tape, layer.gate, state.linears["gate"], dg, found, True))
    return dx + _backed(linear_backward(tape, layer.up, state.linears["up"], du, found, True))


def _backed(gradient: Value | None) -> Value:
    if gradient is None:
        raise ProgramRefused("a feed-forward block passes its gradient on")
    return gradient
