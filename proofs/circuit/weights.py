"""Weights of cells in the one equation that all linear relations of a circuit add up to, kept as short as they are.

Σ over all cells of weight·value = target, in K. Most weights are a factor of the strip times a vector over the lanes,
of which there are few: a verifier evaluates one vector for each block of lanes, instead of a weight for each cell.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from proofs.circuit.wire import Group, Term, Units, Wire
from proofs.field import DEGREE, Field, P, element, ext_mul, mul

_P = np.uint64(P)
BASIS = tuple(np.eye(DEGREE, dtype=np.uint64))
Key = tuple[str, int | None]  # base vector, and the public vector it is multiplied by
Part = tuple[Units, int, Field]  # strips, the coefficient of them all, and a factor for each
FEW = 64  # strips that wait to be added with others


def signed(values: Units, factors: Field) -> Field:
    """Integers of any sign (…) times elements of K (…, 4), broadcasting."""
    return mul(element(values)[..., None], factors)


def matmul(matrix: Units, factors: Field) -> Field:
    """(a, b) integers below 2^31 by (b, 4) in K -> (a, 4), exact: halves of 16 bits in float64."""
    if matrix.shape[1] > 1 << 13:
        middle = matrix.shape[1] // 2
        return (matmul(matrix[:, :middle], factors[:middle]) + matmul(matrix[:, middle:], factors[middle:])) % _P
    halves = np.concatenate([factors & np.uint64(0xFFFF), factors >> np.uint64(16)], axis=1).astype(np.float64)
    if int(np.abs(matrix).max(initial=0)) < 1 << 24:
        return _joined(matrix.astype(np.float64) @ halves)
    low, high = matrix & 0xFFFF, matrix >> 16
    return (
        _joined(low.astype(np.float64) @ halves) + (_joined(high.astype(np.float64) @ halves) << np.uint64(16))
    ) % _P


def _joined(halves: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Field:
    parts = np.mod(halves, P).astype(np.uint64)
    return np.asarray((parts[:, :DEGREE] + (parts[:, DEGREE:] << np.uint64(16))) % _P, dtype=np.uint64)


def _each(term: Term, factors: Field) -> Field:
    """(*shape, c, 4): coefficient·factor."""
    whole = np.broadcast_to(factors[..., None, :], (*term.index.shape, DEGREE))
    if term.coefficient.size > 1:
        return signed(term.coefficient, whole)
    alone = int(term.coefficient.reshape(())) % P
    return whole if alone == 1 else mul(whole, np.uint64(alone))


@dataclass(frozen=True, eq=False)
class Strips:
    """Weights of one column: by base vector a factor for each strip (size, 4), and for some strips (lanes, 4) of their
    own. A column of one lane has the base "one" alone."""

    factors: dict[Key, Field] = field(default_factory=dict)
    own: list[tuple[int, Field]] = field(default_factory=list)


@dataclass(eq=False)
class Weights:
    """lanes (lanes, 4): random over the lanes of a text. left, right: the vectors that test products, at least as long;
    gamma: factors of the columns of public rows. turns: public vectors over the lanes, (lanes,) integers each."""

    lanes: Field
    left: Field
    right: Field
    gamma: Field
    turns: list[Units]
    columns: dict[tuple[str, int], Strips] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    target: Field = field(default_factory=lambda: np.zeros(DEGREE, dtype=np.uint64))
    _waiting: dict[tuple[str, int, Key], list[Part]] = field(default_factory=dict)
    _constants: dict[tuple[str, int], list[tuple[Units, Field]]] = field(default_factory=dict)

    def base(self, name: str, lanes: int) -> Field:
        """A vector over so many lanes by its name; for a single lane, that of "lanes" is one."""
        if name == "lanes":
            return self.lanes if lanes > 1 else BASIS[0][None]
        return (self.left if name == "left" else self.right)[:lanes]

    def add(self, wire: Wire, factors: Field, base: str = "lanes") -> None:
        """Σ factor·base·(what the wire stands for), factors (*shape, 4): cells on the left, constants to the target."""
        if wire.lanes == 1 and base != "lanes":
            factors = ext_mul(factors, self.base(base, 1)[0])
        plain: Key = (base if wire.lanes > 1 else "one", None)
        for term in wire.terms:
            if wire.size <= FEW and term.turn is None and term.coefficient.size == term.index.shape[-1] == 1:
                self.groups[term.group.name] = term.group
                alike = self._waiting.setdefault((term.group.name, term.column, plain), [])
                alike.append((term.index, term.coefficient.item(), factors))
                continue
            each = _each(term, factors).reshape(-1, DEGREE)
            index = term.index.reshape(-1)
            if term.turn is None:
                self._store(term.group, term.column, plain, index, each)
                continue
            turns = term.turn.reshape(-1)
            for turn in np.unique(turns):
                key: Key = (base, int(turn))
                chosen = turns == turn
                mine = each[chosen]
                if wire.lanes == 1:  # a vector over one place is a number
                    mine, key = signed(self.turns[turn][0], mine), ("one", None)
                self._store(term.group, term.column, key, index[chosen], mine)
        if wire.constant is not None:
            whole = np.broadcast_to(wire.constant.reshape(wire.size, -1), (wire.size, wire.lanes))
            name = base if wire.lanes > 1 else "lanes"
            if wire.size <= FEW:
                self._constants.setdefault((name, wire.lanes), []).append((whole, factors))
            else:
                self._owe_along(name, whole, factors)

    def _owe_along(self, base: str, constants: Units, factors: Field) -> None:
        """constants (n, lanes), factors (…, 4) for n strips."""
        along = matmul(constants, self.base(base, constants.shape[1]))
        self.owe(ext_mul(along, factors.reshape(-1, DEGREE)))

    def owe(self, amounts: Field) -> None:
        """Constants (n, 4) that stand on the left; the target is what they leave."""
        self.target = (self.target + _P - amounts.reshape(-1, DEGREE).sum(axis=0) % _P) % _P

    def strip(self, wire: Wire, vector: Field) -> None:
        """A vector of its own, (lanes, 4), for a wire that is one strip."""
        for term in wire.terms:
            turns = [None] * term.index.size if term.turn is None else term.turn.reshape(-1).tolist()
            coefficients = np.broadcast_to(term.coefficient, term.index.shape).reshape(-1)
            for index, coefficient, turn in zip(term.index.reshape(-1), coefficients, turns, strict=True):
                own = signed(np.array(coefficient), vector)
                own = own if turn is None else signed(self.turns[turn], own)
                self._column(term.group, term.column).own.append((int(index), own))
        if wire.constant is not None:
            self.owe(signed(np.broadcast_to(wire.constant, (1, wire.lanes))[0], vector))

    def _store(self, group: Group, column: int, key: Key, index: Units, values: Field) -> None:
        factors = self._column(group, column).factors
        if key not in factors:
            factors[key] = np.zeros((group.size, DEGREE), dtype=np.uint64)
        if len(index) and np.array_equal(index, np.arange(index[0], index[0] + len(index))):
            factors[key][index[0] : index[0] + len(index)] += values
        else:
            np.add.at(factors[key], index, values)

    def reduce(self) -> None:
        """Once everything was added: what waits too, and modulo p; until then sums of less than 2^33 numbers below p
        fit. Before, neither columns nor target are whole."""
        for (name, column, key), parts in self._waiting.items():
            index = np.concatenate([strips.reshape(-1) for strips, _, _ in parts])
            coefficients = np.repeat([one for _, one, _ in parts], [strips.size for strips, _, _ in parts])
            factors = np.concatenate([each.reshape(-1, DEGREE) for _, _, each in parts])
            self._store(self.groups[name], column, key, index, signed(coefficients, factors))
        for (base, _), alike in self._constants.items():
            constants = np.concatenate([whole for whole, _ in alike])
            self._owe_along(base, constants, np.concatenate([each.reshape(-1, DEGREE) for _, each in alike]))
        self._waiting.clear()
        self._constants.clear()
        for strips in self.columns.values():
            for factors in strips.factors.values():
                factors %= _P

    def _column(self, group: Group, column: int) -> Strips:
        self.groups[group.name] = group
        return self.columns.setdefault((group.name, column), Strips())

    def vector(self, key: Key, lanes: int) -> Field:
        """(lanes, 4)."""
        name, turn = key
        if name == "one":
            return BASIS[0][None]
        vector = self.base(name, lanes)
        return vector if turn is None else signed(self.turns[turn], vector)
