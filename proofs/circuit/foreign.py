"""Cells that another proof committed to: a group without columns of its own, and where its cells lie."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from proofs.circuit.builder import Circuit
from proofs.circuit.weights import BASIS, Weights
from proofs.circuit.wire import CircuitRefused, Group, Units, Wire, strips_of
from proofs.field import Field, P
from proofs.relation import Term

_ONE = BASIS[0][None]
_P = np.uint64(P)


@dataclass(eq=False)
class Foreign(Group):
    """Cells of one lane in rows of a section of another proof's tree: cell i is row rows[i], lane places[i]."""

    section: str = ""
    rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    places: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


def foreign(
    circuit: Circuit, name: str, section: str, rows: Units, places: Units, shape: tuple[int, ...], units: Units | None
) -> Wire:
    """The wire of such cells, of that shape; units (*shape,) where they are known. Raises CircuitRefused."""
    group = Foreign(f"elsewhere {name}", 1, 1, section=section, rows=rows.reshape(-1), places=places.reshape(-1))
    if group.name in circuit.foreign:
        raise CircuitRefused(f"two groups of cells from elsewhere of the name {name}")
    circuit.foreign[group.name] = group
    group.append(rows.size, None if units is None else [units.reshape(-1, 1)])
    return strips_of(group, 0, 0, shape)


def foreign_terms(circuit: Circuit, weights: Weights) -> list[Term]:
    """The part of the sum equation that lies in another proof's rows: by lane or by row, whichever are fewer. A cell
    that a wire names more than once has all of its weights."""
    found = list[Term]()
    for name, group in circuit.foreign.items():
        strips = weights.columns.get((name, 0))
        if strips is None or not isinstance(group, Foreign):
            continue
        for factors in strips.factors.values():
            found += _terms(group, factors)
    return found


def _terms(group: Foreign, factors: Field) -> list[Term]:
    lanes, rows = np.unique(group.places), np.unique(group.rows)
    found = list[Term]()
    if len(lanes) < len(rows):
        for lane in lanes:
            mine = group.places == lane
            table = np.zeros((int(group.rows.max()) + 1, 4), dtype=np.uint64)
            np.add.at(table, group.rows[mine], factors[mine])
            found.append(Term(int(lane), _ONE, {group.section: (0, table % _P)}))
        return found
    for row in rows:
        mine = group.rows == row
        start, end = int(group.places[mine].min()), int(group.places[mine].max()) + 1
        line = np.zeros((end - start, 4), dtype=np.uint64)
        np.add.at(line, group.places[mine] - start, factors[mine])
        found.append(Term(start, line % _P, {group.section: (int(row), _ONE)}))
    return found
