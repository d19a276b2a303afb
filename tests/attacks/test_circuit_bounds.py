"""Circuits in which something equal modulo p need not be equal: refused when they are built, or bound after all."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from proofs.circuit import prover, verifier
from proofs.circuit.builder import Circuit, Table
from proofs.circuit.foreign import foreign
from proofs.circuit.integers import Total, divide, in_bytes
from proofs.circuit.layout import layout_of
from proofs.circuit.relations import Factor
from proofs.circuit.rounding import Part, pieces, rounded
from proofs.circuit.wire import CircuitRefused, Wire, strips_of
from proofs.field import P
from proofs.gradient.circuit_attention import rotated
from proofs.gradient.circuit_layers import ranged
from proofs.gradient.matrix import Matrix
from proofs.gradient.numbers import ProgramRefused
from proofs.gradient.program import Attention, Linear

ROW, THETA = 1024, Fraction(10_000)


def accepted(circuit: Circuit, public: Circuit) -> None:
    """Proves the one, and verifies the other."""
    for one in (circuit, public):
        one.tests_group()
    proof = prover.prove(bytes(32), circuit, layout_of(circuit, ROW), [], bytes(32))
    verifier.verify(bytes(32), public, layout_of(public, ROW), [], proof)


def whole(circuit: Circuit, count: int) -> Wire:
    """The sum of so many values of 20 bits, all zero."""
    units = np.zeros((count, 1), dtype=np.int64) if circuit.proving else None
    return circuit.signed((count,), 1, 20, units).summed()


@pytest.mark.parametrize("length", [384, 768, 1024])
def test_a_mean_is_what_it_is(length: int) -> None:
    """The quotient's range is so small that no other one fits modulo p."""
    circuit = Circuit(1, True)
    x = whole(circuit, length)
    mean = divide(circuit, x, length)
    beyond = mean.bound * length + x.bound + 2 * length
    assert beyond < P
    other = Circuit(1, False)
    divide(other, whole(other, length), length)
    accepted(circuit, other)


@pytest.mark.parametrize("length", [2048, 3000])
def test_a_mean_of_too_many_is_refused(length: int) -> None:
    """At 2048 values of 20 bits, 1040384 was as good a mean of zeros as 0: 2048 · 1040384 = p − 1."""
    circuit = Circuit(1, False)
    with pytest.raises(ProgramRefused, match="could wrap"):
        divide(circuit, whole(circuit, length), length)


@pytest.mark.parametrize("heads", [64, 128])
def test_limbs_of_a_sum_that_is_too_long_are_refused(heads: int) -> None:
    """What the heads that share a key pass back adds up: of 128 times 2^23 − 1, the limbs of that sum less p were as
    good as its own."""
    circuit = Circuit(1, False)
    total = circuit.signed((heads,), 1, 24, None).summed()
    if heads == 64:
        assert [place for place, _ in pieces(circuit, total)] == [0, 8, 16, 24]
        return
    for cut in (lambda: pieces(circuit, total), lambda: ranged(circuit, total.scaled(2), 24)):
        with pytest.raises(CircuitRefused, match="could wrap"):
            cut()


def test_the_last_byte_of_a_sum_does_not_wrap() -> None:
    """Where the places of a sum end, what is left is zero: that it is a multiple of p is not enough."""
    circuit = Circuit(1, False)
    total = circuit.signed((256,), 1, 24, None).summed()
    with pytest.raises(ProgramRefused, match="could wrap"):
        in_bytes(circuit, Total(((8, total),)), 0, 1, total)


def test_a_result_that_reaches_beyond_its_bits_is_refused() -> None:
    """Parts that stand above all bits of the result would leave one bit of carry, and no range."""
    circuit = Circuit(1, False)
    x = circuit.signed((1,), 1, 8, None)
    parts = [Part(place, 1 << 7, None, ((None, x),)) for place in (0, 8, 16)]
    with pytest.raises(CircuitRefused, match="do not keep"):
        rounded(circuit, "x", parts, (1,), 1, 0, 0, 16)


def test_two_tables_of_one_name_are_refused() -> None:
    circuit, entries = Circuit(1, False), np.stack([np.arange(4), np.arange(4) ** 2], axis=1)
    circuit.table(Table("squares", 0, entries))
    circuit.table(Table("squares", 0, entries.copy()))
    for other in (
        Table("squares", 1, entries),
        Table("squares", 0, entries + 1),
        Table("squares", 0, entries, entries),
    ):
        with pytest.raises(CircuitRefused, match="two tables"):
            circuit.table(other)


def test_two_groups_of_cells_from_elsewhere_of_one_name_are_refused() -> None:
    """The weights of one would lie where the other's cells are."""
    circuit, first = Circuit(1, False), np.zeros(1, dtype=np.int64)
    foreign(circuit, "x", "used", first, first, (1,), None)
    with pytest.raises(CircuitRefused, match="two groups"):
        foreign(circuit, "x", "used", first, first + 1, (1,), None)


def test_what_is_turned_has_no_constant_and_no_turn() -> None:
    circuit = Circuit(2, False)
    x, turn = circuit.free((1,), 2, None), circuit.turn(np.array([1, 2]))
    once = x.turned(np.array([turn]), np.array([1, 2]))
    for wire in (once, x.plus(1)):
        with pytest.raises(CircuitRefused, match="turned"):
            wire.turned(np.array([turn]), np.array([1, 2]))


@pytest.mark.parametrize("tokens", [1, 2])
def test_positions_turn_a_text_of_one_token_too(tokens: int) -> None:
    """A turn over a single place was left out, so that x + x' was proven for cos·x + sin·x'."""
    linear = Linear("x", Matrix(np.eye(2, dtype=np.int64), 0))
    layer = Attention(linear, linear, linear, linear, 1, 1, 2, THETA, True)

    def built(proving: bool) -> Circuit:
        circuit = Circuit(tokens, proving)
        units = np.arange(2 * tokens).reshape(1, 2, tokens) if proving else None
        x = circuit.within((1, 2), tokens, -100, 100, units).with_(fraction=11)
        y = rotated(circuit, "turned", layer, x, 11, 16)
        if y.units is not None:
            assert np.array_equal(y.units[0, :, 0], [0, tokens])  # nothing turns the first token
        return circuit

    accepted(built(True), built(False))


def test_a_product_of_cells_that_were_chosen_after_its_tests_is_refused() -> None:
    """Who knows the vectors before it chooses a matrix makes any product pass them."""
    circuit = Circuit(4, False)
    late, early = circuit.tests_group(), circuit.free((1, 3), 4, None)
    late.append(12, None)
    chosen = strips_of(late, 0, 0, (1, 3, 4))
    with pytest.raises(CircuitRefused, match="could be chosen by"):
        circuit.pair(Factor(early, "strips"), Factor(chosen, "both"))
    honest = circuit.pair(Factor(early, "strips"), Factor(early, "strips"))
    with pytest.raises(CircuitRefused, match="could be chosen by"):
        circuit.bilinear([honest], chosen)
