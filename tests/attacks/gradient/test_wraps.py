"""Every relation of the circuits of H and F says of integers what it says modulo p, whatever the data.

The builder knows how long its values are (`Wire.bound`), and refuses what could wrap. Nothing of that is believed
here: `Reaches` follows the ranges in which cells are looked up, relation by relation, to the cells that these define,
and adds up the most that stands in each. Below p, a sum that is zero modulo p is zero.

What README.md of proofs/gradient gives a reason for is taken from there: the products e·R and |c|·r are at most 2^29;
the shares of a row add up to no more than 2^14 and one half each; what a one-hot picks is one of what it picks from.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.gradient_cases import PREDICTS, GradientRound, gradient_round
from proofs.circuit import integers
from proofs.circuit.builder import Circuit
from proofs.circuit.integers import divide
from proofs.circuit.relations import AcrossLanes, Bilinear, Factor, Keyed, Linear, Spread
from proofs.circuit.wire import Group, Wire
from proofs.field import P
from proofs.gradient.claim import claim_circuit
from proofs.inference import claim as inference
from proofs.inference.claim import Greedy, InferenceStatement, Scored

ANY = (P - 1) / 2  # of an element of F, as an integer of least magnitude
REASONED = 2.0**29  # e·R and |c|·r
LONGEST = 1 << 26  # factor that is written as an integer; longer ones are divisions by a power of two, modulo p
LONG = {2.0**17 - 1, 2.0**21 - 1}  # R and r, of which those are products
Unknown = tuple[tuple[str, int], np.ndarray, np.ndarray]  # column; of each strip: strip of an unknown cell or −1, count


class Reaches:
    """How large the cells of a circuit can be, by column: (strips,) magnitudes, NaN where nothing is known yet.

    most: of what stands in any relation. wrapping: those in which it is p or more; long: factors of products beyond
    REASONED.
    """

    def __init__(self, circuit: Circuit, clip_units: int) -> None:
        self.circuit, self.most, self.wrapping, self.long = circuit, 0.0, list[str](), set[float]()
        self._turns = [float(np.abs(turn).max()) for turn in circuit.turns]
        self._cells = {
            (group.name, column): np.full(group.size, np.nan)
            for group in (*circuit.groups.values(), *circuit.foreign.values())
            for column in range(group.width)
        }
        for group in circuit.groups.values():
            self._from_rules(group)
        for name in circuit.foreign:
            known = clip_units if "contributions" in name else ANY if "texts" in name else 1
            self._cells[name, 0][:] = known
        self._follow()

    def _from_rules(self, group: Group) -> None:
        for lookup in group.lookups if not group.phase else ():
            for factor, column in lookup.columns:
                entries = self.circuit.tables[lookup.table].entries[:, 0 if factor == "1" else 1]
                self._cells[group.name, column][:] = np.abs(entries).max()
        for column in range(group.width):
            if ((1, column, column), (P - 1, column, None)) in group.identities:
                self._cells[group.name, column][:] = 1
        if group.name.startswith("softmax"):
            self._cells[group.name, 3][:] = 0  # the slack, of a score that counts; no other has to fit

    def _products(self, group: Group) -> None:
        x, y, found = (self._cells[group.name, column] for column in range(3))
        found[:] = x * y
        beyond = found > REASONED
        self.long |= {float(max(pair)) for pair in zip(x[beyond], y[beyond], strict=True)}
        found[beyond] = REASONED

    def _follow(self) -> None:
        """As often as it takes, until each relation has only known cells."""
        todo, before = list[Any](self.circuit.relations), np.inf
        while todo:
            todo = [relation for relation in todo if not self._followed(relation)]
            left = len(todo) + sum(int(np.isnan(column).sum()) for column in self._cells.values())
            assert left < before, f"{Counter(type(one).__name__ for one in todo)} define nothing"
            before = left

    def _followed(self, relation: Any) -> bool:
        if isinstance(relation, Linear):
            return self._linear(relation)
        if isinstance(relation, AcrossLanes):
            return self._across(relation)
        if isinstance(relation, Bilinear):
            return self._bilinear(relation)
        if isinstance(relation, Keyed):
            (term,) = relation.values.terms
            rows = self.circuit.tables[relation.index.terms[0].group.lookups[0].table].rows
            assert rows is not None
            self._cells[term.group.name, term.column][term.index.reshape(-1)] = np.abs(rows).max(axis=0)
            for term in relation.ids.terms:
                self._cells[term.group.name, term.column][term.index.reshape(-1)] = len(rows) - 1
            return True
        assert isinstance(relation, Spread)
        reach, unknown = self.of(relation.strip)
        if not unknown:
            for term in relation.wire.terms:
                self._cells[term.group.name, term.column][term.index.reshape(-1)] = reach.max()
        return not unknown

    def of(self, wire: Wire, scale: int = 1) -> tuple[np.ndarray, list[Unknown]]:
        """(strips,) of scale times the wire modulo p; and what is not in it, for it is not known."""
        total, unknown = np.zeros(wire.size), list[Unknown]()
        for term in wire.terms:
            if term.group.name.startswith("product/"):
                self._products(term.group)
            shape = (wire.size, term.index.shape[-1])
            index = term.index.reshape(shape)
            factors = np.broadcast_to(term.coefficient, term.index.shape).reshape(shape)
            each = np.abs(_least(factors, scale))
            if term.turn is not None:
                each = each * np.array(self._turns)[term.turn.reshape(shape)]
            reach = self._cells[term.group.name, term.column][index]
            lacking = np.isnan(reach) & (each > 0)
            total += np.where(lacking | (each == 0), 0, each * reach).sum(axis=1)
            if lacking.any():
                where = np.where(lacking.any(axis=1), index[np.arange(wire.size), lacking.argmax(axis=1)], -1)
                unknown.append(((term.group.name, term.column), where, lacking.sum(axis=1)))
        if wire.constant is not None:
            total += np.abs(_least(wire.constant.reshape(wire.size, -1), scale)).max(axis=1)
        return total, unknown

    def _linear(self, relation: Linear) -> bool:
        total, unknown = self._sum(relation, 1)
        if not unknown:
            if any(np.abs(term.coefficient).max() > LONGEST for _, wire in relation.parts for term in wire.terms):
                scaled = (self._sum(relation, 1 << scale)[0] for scale in range(32))  # of what is divided by 2^scale
                total = min(scaled, key=lambda one: float(one.max()))
            self._checked(total, str(relation.parts[-1][1].terms[:1]))
        for column, where, count in unknown:
            alone = (count == 1) & (sum(more for _, _, more in unknown) == 1)
            self._cells[column][where[alone]] = np.minimum(total[alone], ANY)
        return not unknown

    def _sum(self, relation: Linear, scale: int) -> tuple[np.ndarray, list[Unknown]]:
        """(out,), of scale times the relation modulo p; and what is not in it."""
        total, unknown = np.zeros(1), list[Unknown]()
        for matrix, wire in relation.parts:
            reach, missing = self.of(wire, scale if matrix is None else 1)
            assert matrix is None or not missing, "no relation before defines a cell that a matrix is applied to"
            total = total + (reach if matrix is None else np.abs(matrix) @ reach * float(scale))
            unknown += missing
        return total, unknown

    def _across(self, relation: AcrossLanes) -> bool:
        total, unknown = np.zeros(len(relation.strips[0][0])), list[tuple[np.ndarray, Unknown]]()
        for matrix, strip in relation.strips:
            reach, missing = self.of(strip)
            unknown += [(matrix, one) for one in missing]
            one_hot = strip.terms[0].group.name.startswith("bits")
            total += np.max(np.abs(matrix), axis=1) if one_hot else np.abs(matrix).sum(axis=1) * reach[0]
        for wire in relation.wires:
            reach, missing = self.of(wire)
            assert not missing
            total += reach
        if not unknown:
            self._checked(total, "across")
            return True
        ((matrix, (column, where, _)),) = unknown
        inverse = np.linalg.inv(matrix)  # of the ones on the diagonal, or of differences of neighbours
        self._cells[column][where[0]] = min(float((np.abs(inverse) @ total).max()), ANY)
        return True

    def _bilinear(self, relation: Bilinear) -> bool:
        total = 0.0
        for pair in relation.pairs:
            left, right = (self.of(side.wire) for side in (pair.left, pair.right))
            if left[1] or right[1]:
                return False
            total += self._product(pair.left, left[0].max(), right[0].max())
        _, unknown = self.of(relation.result)
        if unknown:
            ((column, where, _),) = unknown
            self._cells[column][where] = min(total, ANY)
            return True
        scaled = (self.of(relation.result, 1 << scale)[0].max() + total * 2.0**scale for scale in range(32))
        self._checked(np.array([min(scaled)]), "a product of matrices")
        return True

    def _product(self, left: Factor, x: float, y: float) -> float:
        if min(x, y) <= 1:  # one-hot
            return x * y
        along = left.sizes[1] * x
        return y * (along if left.wire.row_sum is None else min(along, left.wire.row_sum))

    def _checked(self, total: np.ndarray, what: str) -> None:
        self.most = max(self.most, float(total.max()))
        if total.max() >= P:
            self.wrapping.append(f"{total.max() / P:.3f} p: {what:.200}")


def _least(factors: np.ndarray, scale: int) -> np.ndarray:
    """scale times integers modulo p, of least magnitude."""
    if scale == 1 and np.abs(factors).max(initial=0) < P // 2:
        return factors.astype(np.float64)
    found = np.array([int(factor) * scale % P for factor in factors.reshape(-1).tolist()]).reshape(factors.shape)
    return np.where(found > P // 2, found - P, found).astype(np.float64)


def holds(circuit: Circuit, clip_units: int = 1) -> None:
    found = Reaches(circuit, clip_units)
    assert not found.wrapping
    assert found.most > P / 2, "what is nearest to p was not seen"
    assert found.long <= LONG


@pytest.fixture(scope="module")
def predicting(tmp_path_factory: pytest.TempPathFactory) -> GradientRound:
    return gradient_round(PREDICTS, Path(tmp_path_factory.mktemp(PREDICTS)))


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_a_gradient_does_not_wrap(deep: dict[str, GradientRound], kind: str) -> None:
    case = deep[kind]
    holds(claim_circuit(case.statement(1, 1), case.program(1)), case.shape.clip_units)


def test_a_gradient_of_next_tokens_does_not_wrap(predicting: GradientRound) -> None:
    holds(claim_circuit(predicting.statement(1, 1), predicting.program(1)), predicting.shape.clip_units)


def test_an_answer_does_not_wrap(deep: dict[str, GradientRound], predicting: GradientRound) -> None:
    label = Scored(0, (0, -5, -7))
    holds(inference.claim_circuit(InferenceStatement(bytes(32), (4, 5, 6), label, 8), deep["bert"].program(0)))
    holds(inference.claim_circuit(InferenceStatement(bytes(32), (4, 5, 6), Greedy(2), 8), predicting.program(0)))


def test_a_mean_that_wraps_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """2048 · 1040384 = p − 1: without the builder's own refusal, a mean of zeros that is none."""
    monkeypatch.setattr(integers, "check_unique", lambda *_: None)
    for length, wraps in ((1024, False), (2048, True)):
        circuit = Circuit(1, False)
        divide(circuit, circuit.signed((length,), 1, 20, None).summed(), length)
        assert bool(Reaches(circuit, 1).wrapping) == wraps
