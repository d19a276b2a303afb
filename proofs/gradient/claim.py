"""Statement G: a slot's contribution is, within τ in every coordinate, what H computes from the row of that slot.

    the slot is the k-th in use of its step      its row is the k-th drawn, of the texts committed to before the beacon
    contribution = in use · H(program, text, label) + difference,  |difference| ≤ τ

Everything is hidden but program, step, slot and τ: also whether the slot is in use, where the text ends, and the row.
A slot that is not in use runs H on a text of the one token 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from proofs.circuit.builder import Circuit
from proofs.circuit.foreign import foreign
from proofs.circuit.layout import Layout, layout_of
from proofs.circuit.relations import Factor
from proofs.circuit.wire import Units, Wire
from proofs.errors import LocalFault
from proofs.gradient.circuit_model import contribution
from proofs.gradient.circuit_text import example
from proofs.gradient.program import Program
from proofs.parameters import DATA, SLOTS, Parameters, parameters
from proofs.statement import DIGEST_BYTES, Shape, Statement
from proofs.texts import Texts
from proofs.words import BEACON_BYTES

PROTOCOL = b"candor/gradient-proof/2"
LARGEST_TOLERANCE = 64


@dataclass(frozen=True, eq=False)
class GradientStatement:
    """mechanism: the proven statement M of the round. slots_root: what its proof committed the contributions to.
    beacon: what picked step and slot. tolerance: τ, in clip units."""

    mechanism: Statement
    slots_root: bytes
    beacon: bytes
    step: int
    slot: int
    tolerance: int

    def __post_init__(self) -> None:
        shape = self.mechanism.shape
        if len(self.slots_root) != DIGEST_BYTES or len(self.beacon) != BEACON_BYTES:
            raise LocalFault("slots root and beacon have 32 bytes each")
        if not (0 <= self.step < shape.steps and 0 <= self.slot < shape.slots):
            raise LocalFault(f"there is no slot {self.slot} of step {self.step} in this round")
        if not 1 <= self.tolerance <= LARGEST_TOLERANCE or not 0 <= self.number < shape.contributions:
            raise LocalFault(f"a tolerance is 1 to {LARGEST_TOLERANCE} units, not {self.tolerance}")

    @property
    def number(self) -> int:
        """a: the slot among those of all steps."""
        return self.step * self.mechanism.shape.slots + self.slot

    def digest(self, program: Program) -> bytes:
        numbers = b"".join(value.to_bytes(4, "big") for value in (self.step, self.slot, self.tolerance))
        parts = (self.mechanism.digest(), self.slots_root, self.beacon, numbers, program.digest())
        return sha256(b"candor/gradient-statement/1\0" + b"".join(parts)).digest()


@dataclass(frozen=True, eq=False, repr=False)
class Secret:
    """What a prover knows. used (N,): which rows the step drew. contribution (P,): the slot's."""

    texts: Texts
    used: NDArray[np.bool_]
    active: bool
    contribution: Units


def claim_circuit(statement: GradientStatement, program: Program, secret: Secret | None = None) -> Circuit:
    """The circuit of the statement; with values where the secret is known.

    Raises CircuitRefused or ProgramRefused for a program that cannot be proven, OutOfRange or ValueRefused for values.
    """
    shape, sizes = statement.mechanism.shape, parameters(statement.mechanism.shape)
    circuit = Circuit(shape.tokens, secret is not None)
    active = _active(circuit, statement, secret)
    cells = _row(circuit, statement, sizes, active, secret)
    found = contribution(circuit, program, example(circuit, program, cells))
    committed = _contribution(circuit, statement, sizes, secret)
    at = 0
    for trained, units in found:
        mine = committed.shaped(lambda strips, at=at, size=units.size: strips[at : at + size])  # type: ignore[misc]
        expected = circuit.times(active.spread(units.size), units)
        apart = None if not circuit.proving else mine.known() - expected.known()
        difference = circuit.within(mine.shape, 1, -statement.tolerance, statement.tolerance, apart)
        circuit.equal(mine - expected - difference)
        at += units.size
        if trained.shape and int(np.prod(trained.shape)) != units.size:
            raise LocalFault(f"{trained.name}: {units.size} coordinates where its shape is {trained.shape}")
    if at != shape.parameters:
        raise LocalFault(f"the program has {at} trained coordinates, the round {shape.parameters}")
    return circuit


def claim_layout(circuit: Circuit, shape: Shape) -> Layout:
    sizes = parameters(shape)
    return layout_of(circuit, sizes.row, [sizes.trees[DATA], sizes.trees[SLOTS]])


def largest_proof(program: Program, shape: Shape) -> int:
    """Bytes of a proof of any slot at most."""
    from proofs.words import Binding

    nothing, nobody = bytes(DIGEST_BYTES), Binding(1, bytes(20), 1, 0)
    group_of = np.repeat(np.arange(len(shape.groups), dtype=np.uint8), shape.groups)
    released = np.zeros((shape.steps, shape.parameters), dtype=np.int32)
    mechanism = Statement(nobody, nothing, nothing, nothing, nothing, shape, group_of, released)
    statement = GradientStatement(mechanism, nothing, nothing, 0, 0, 1)
    return claim_layout(claim_circuit(statement, program), shape).largest_bytes


def _active(circuit: Circuit, statement: GradientStatement, secret: Secret | None) -> Wire:
    units = None if secret is None else np.array([int(secret.active)])
    place = np.array([statement.number])
    found = foreign(circuit, "active", "active", np.zeros(1, dtype=np.int64), place, (1,), units)
    return found.shaped(lambda strips: strips[0]).with_(bound=1)


def _row(
    circuit: Circuit, statement: GradientStatement, sizes: Parameters, active: Wire, secret: Secret | None
) -> Wire:
    """Token ids, label and length (tokens + 2,) of the slot's row; of a text of one token 0 where it is not in use."""
    shape = sizes.shape
    rows, width = shape.capacity, shape.tokens + 2
    used = _foreign(circuit, "used", "used", sizes, np.arange(rows) + statement.step * rows, _used(secret))
    texts = _foreign(circuit, "texts", "texts", sizes, np.arange(width * rows), _texts(secret, shape))
    chosen = _chosen(statement, secret, rows)
    pick = circuit.bits((rows,), 1, None if chosen is None else chosen[:, None])
    rank = None if chosen is None else np.cumsum(chosen[::-1])[::-1][:, None]
    onwards = circuit.free((rows,), 1, rank, 1)  # 1 up to the row that is picked
    following = onwards.shaped(lambda strips: strips[1:]), pick.shaped(lambda strips: strips[:-1])
    if rows > 1:
        circuit.equal(onwards.shaped(lambda strips: strips[:-1]) - following[0] - following[1])
    circuit.equal(onwards.shaped(lambda strips: strips[-1:]) - pick.shaped(lambda strips: strips[-1:]))
    circuit.equal(pick.summed() - active, circuit.times(pick, used) - pick)
    circuit.equal(circuit.times(used, onwards).summed() - active.scaled(statement.slot + 1))
    left = texts.shaped(lambda strips: strips.reshape(width, rows).T[None])
    right = pick.shaped(lambda strips: strips.reshape(1, rows, 1))
    found = None if not circuit.proving else left.known()[0, :, :, 0].T @ pick.known()
    cells = circuit.free((width,), 1, found)
    pair = circuit.pair(Factor(left, "both"), Factor(right, "both"))
    circuit.bilinear([pair], cells.shaped(lambda strips: strips.reshape(1, width, 1)))
    last = np.asarray(np.arange(width) == width - 1, dtype=np.int64)
    return cells + active.scaled(-1).plus(1).spread(width).scaled(last)


def _contribution(circuit: Circuit, statement: GradientStatement, sizes: Parameters, secret: Secret | None) -> Wire:
    """(P,): where each coordinate of the slot lies among the rows of its group (README.md, section 3)."""
    group_of, contributions = statement.mechanism.group_of, sizes.shape.contributions
    whole: Wire | None = None
    for group in range(len(sizes.shape.groups)):
        columns = np.flatnonzero(group_of == group)
        number = np.arange(len(columns))
        place = number % sizes.blocks * contributions + statement.number
        units = None if secret is None else secret.contribution[columns]
        name = f"contributions_{group}"
        part = foreign(circuit, name, name, number // sizes.blocks, place, (len(columns),), units)
        whole = part.placed(columns, len(group_of)) if whole is None else whole + part.placed(columns, len(group_of))
    if whole is None:
        raise LocalFault("a round has at least one group of coordinates")
    return whole


def _foreign(circuit: Circuit, name: str, section: str, sizes: Parameters, cells: Units, units: Units | None) -> Wire:
    """Cells laid cell after cell."""
    return foreign(circuit, name, section, cells // sizes.lanes, cells % sizes.lanes, cells.shape, units).with_(bound=1)


def _used(secret: Secret | None) -> Units | None:
    return None if secret is None else secret.used.astype(np.int64)


def _texts(secret: Secret | None, shape: Shape) -> Units | None:
    """Place by place, each of all rows."""
    if secret is None:
        return None
    found = np.zeros((shape.tokens + 2, shape.capacity), dtype=np.int64)
    found[:, : len(secret.texts)] = secret.texts.places().T
    return found.reshape(-1)


def _chosen(statement: GradientStatement, secret: Secret | None, rows: int) -> Units | None:
    """1 at the row of the slot, nowhere if it is not in use."""
    if secret is None:
        return None
    found = np.zeros(rows, dtype=np.int64)
    if secret.active:
        found[np.flatnonzero(secret.used)[statement.slot]] = 1
    return found
