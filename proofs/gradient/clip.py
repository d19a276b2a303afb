"""From a gradient to clip units: the integer statement of g · min(1, C/‖g‖) / unit.

    K = min(K₀, K₁)      K₀ = 2^6/unit, public, rounded      K₁ = ⌊clip_units·2^(f + 6)/‖G‖⌋
    c = G·K / 2^(f + 6), rounded

where G is the gradient in units of 2^−f and K₁ is k²·n² ≤ C² < (k + 1)²·n² with n² = ΣG², exactly. Rounding may leave
‖c‖ a little above the clip; what a member contributes may not be (relation M), and differs from c by its own rounding.
"""

from __future__ import annotations

import numpy as np

from proofs.gradient.linear import Gradients
from proofs.gradient.numbers import LIMB_BITS, NARROW_BITS, ProgramRefused, Units, Value
from proofs.gradient.program import Group, Program
from proofs.gradient.tape import Tape

FACTOR_FRACTION = 6
FACTOR_BITS = 22


def contribution(tape: Tape, program: Program, found: Gradients) -> Units:
    """Gradients by name → (P,) in clip units, in the program's order of coordinates."""
    parts: dict[str, Units] = {}
    for name, group in program.groups.items():
        members = [trained for trained in program.trained if trained.group == name]
        whole = np.concatenate([found[trained.name].units.reshape(-1) for trained in members])
        fraction, bound = found[members[0].name].fraction, max(found[trained.name].bound for trained in members)
        clipped = clip(tape, f"clip.{name}", Value(whole, fraction, bound), group)
        ends = np.cumsum([found[trained.name].units.size for trained in members])
        parts |= {one.name: piece for one, piece in zip(members, np.split(clipped, ends[:-1]), strict=True)}
    return np.concatenate([parts[trained.name] for trained in program.trained])


def clip(tape: Tape, name: str, gradient: Value, group: Group) -> Units:
    """One group's gradient (P_g,) → clip units (P_g,)."""
    energy = tape.squares(f"{name}.squares", gradient, LIMB_BITS)[None]
    shift = gradient.fraction + FACTOR_FRACTION
    most = (group.clip_units << shift) ** 2
    factor = tape.inverse_root(f"{name}.factor", energy, most, FACTOR_BITS, free_factor(group))
    scale = Value(factor, FACTOR_FRACTION, 1 << (FACTOR_BITS - 1))
    return tape.multiply(f"{name}.units", gradient, scale, 0, NARROW_BITS, whole=True).units


def free_factor(group: Group) -> int:
    """K₀, public: what turns a gradient into clip units, in units of 2^−6."""
    found = round((1 << FACTOR_FRACTION) / (group.clip / group.clip_units))
    if not 1 <= found <= 1 << (FACTOR_BITS - 1):
        raise ProgramRefused(f"{group.clip} in {group.clip_units} units is beyond the factor's {FACTOR_BITS} bits")
    return found
