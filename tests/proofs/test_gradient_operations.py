"""The operations of H against Python's own integers and fractions, recorded and not."""

from __future__ import annotations

from fractions import Fraction
from math import floor, isqrt

import numpy as np
import pytest

from proofs.field import P
from proofs.gradient.accumulators import stages_of
from proofs.gradient.clip import clip
from proofs.gradient.matrix import Matrix, reach
from proofs.gradient.norms import norm
from proofs.gradient.numbers import OutOfRange, ProgramRefused, Value, check_unique, limbs, pieces
from proofs.gradient.program import Group, Norm
from proofs.gradient.tables import exponentials
from proofs.gradient.tape import Tape


def value(rng: np.random.Generator, shape: tuple[int, ...], bits: int, fraction: int = 10) -> Value:
    bound = 1 << (bits - 1)
    return Value(rng.integers(-bound, bound, shape), fraction, bound)


def nearest(total: int, shift: int) -> int:
    """Halves up."""
    return floor(Fraction(total, 1 << shift) + Fraction(1, 2))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


@pytest.mark.parametrize("bits", [8, 16, 24])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_product_with_a_public_matrix_is_exact_and_rounded_once(
    rng: np.random.Generator, bits: int, transposed: bool
) -> None:
    matrix = Matrix(rng.integers(-(1 << 15), 1 << 15, (40, 70)), 14)
    weight = matrix.units if transposed else matrix.units.T
    x, tape = value(rng, (3, weight.shape[0]), bits), Tape(recording=True)
    y = tape.apply("y", x, matrix, 4, 30 if bits == 24 else 24, transposed=transposed)
    for row in range(3):
        for column in range(weight.shape[1]):
            total = sum(int(a) * int(b) for a, b in zip(x.units[row], weight[:, column], strict=True))
            assert int(y.units[row, column]) == nearest(total, 20)
    assert tape.steps[0].made.keys() >= {"y", "rest_0"}


def test_a_bias_is_added_before_the_rounding(rng: np.random.Generator) -> None:
    matrix, x = Matrix(rng.integers(-900, 900, (6, 8)), 12), value(rng, (4, 8), 16, 11)
    bias = Value(rng.integers(-5000, 5000, 6), 14, 5000)
    y = Tape(recording=True).apply("y", x, matrix, 9, bias=bias)
    for row in range(4):
        for column in range(6):
            total = int(x.units[row] @ matrix.units[column]) + (int(bias.units[column]) << 9)
            assert int(y.units[row, column]) == nearest(total, 14)


@pytest.mark.parametrize(("left", "right"), [(16, 16), (24, 16), (16, 24), (25, 13)])
def test_products_of_hidden_values_are_exact_however_they_are_cut(
    rng: np.random.Generator, left: int, right: int
) -> None:
    x, y, tape = value(rng, (2, 5, 90), left), value(rng, (2, 90, 4), right), Tape(recording=True)
    found = tape.product("xy", x, y, 0, 40 - 12 if left + right > 32 else 24)
    exact = x.units.astype(object) @ y.units.astype(object)
    assert all(int(a) == nearest(int(b), 20) for a, b in zip(found.units.flat, exact.flat, strict=True))
    x, y = value(rng, (7, 9), left), value(rng, (7, 1), min(right, 15))
    found = tape.multiply("x·y", x, y, 6, 30)
    exact = x.units.astype(object) * y.units.astype(object)
    assert all(int(a) == nearest(int(b), 14) for a, b in zip(found.units.flat, exact.flat, strict=True))


def test_limbs_and_parts_add_up_and_stay_within_their_bounds(rng: np.random.Generator) -> None:
    for bits in (12, 16, 17, 20, 24, 26):
        x = value(rng, (300,), bits)
        for cut in (limbs(x), pieces(x, 8), pieces(x, 10)):
            assert np.array_equal(sum(units << place for units, place, _ in cut), x.units)
            assert all(np.abs(units).max() <= bound for units, _, bound in cut)
    matrix = Matrix(rng.integers(-(1 << 22), 1 << 22, (50, 90)), 16)
    for transposed, axis in ((False, 1), (True, 0)):
        parts = matrix.parts(1 << 14, transposed)
        assert np.array_equal(sum(part.units << part.place for part in parts), matrix.units)
        assert all(reach(part.units, axis) == part.reach <= 1 << 14 for part in parts)


def test_scores_are_distances_from_the_largest_allowed_one(rng: np.random.Generator) -> None:
    q, k = value(rng, (2, 3, 16), 13, 11), value(rng, (2, 5, 16), 13, 11)
    mask = np.tril(np.ones((3, 5), dtype=np.int64), 1)
    found = Tape(recording=True).scores("s", q, k, 7, mask)
    for head in range(2):
        for row in range(3):
            scores = [nearest(int(q.units[head, row] @ k.units[head, column]), 15) for column in range(row + 2)]
            assert found[head, row, : row + 2].tolist() == [max(scores) - score for score in scores]
    assert not found[:, mask == 0].any()


def test_inverses_and_roots_are_the_integers_that_their_inequalities_name(rng: np.random.Generator) -> None:
    tape, x = Tape(), rng.integers(1 << 13, 1 << 40, 200)
    roots, most = tape.inverse_root("root", x, 64 << 52, 31), tape.inverse_root("capped", x, 64 << 52, 31, 900)
    for one, root, capped in zip(x.tolist(), roots.tolist(), most.tolist(), strict=True):
        assert root**2 * one <= 64 << 52 < (root + 1) ** 2 * one
        assert capped == min(root, 900)
    small = rng.integers(1 << 13, 1 << 22, 200)
    for one, inverse in zip(small.tolist(), tape.inverse("inverse", small, 1 << 29, 18).tolist(), strict=True):
        assert inverse * one <= 1 << 29 < (inverse + 1) * one
    for one, quotient in zip(x.tolist(), tape.divide("mean", x % 10**6, 384, 10**6).tolist(), strict=True):
        assert quotient == floor(Fraction(one % 10**6, 384) + Fraction(1, 2))
    wide = value(rng, (3, 1000), 24)
    exact = [sum(one * one for one in row) for row in wide.units.tolist()]
    assert tape.squares("squares", wide, 8).tolist() == exact


@pytest.mark.parametrize("scale", [100, 300, 120_000])
def test_a_norm_is_right_at_every_scale_and_never_leaves_its_range(rng: np.random.Generator, scale: int) -> None:
    gain, shift = Value(rng.integers(-30000, 30000, 64), 14, 30000), Value(rng.integers(-900, 900, 64), 14, 900)
    x = Value(rng.integers(-scale, scale + 1, (5, 64)), 12, 1 << 19)
    x.units[4] = 0
    x.units[4, 7] = 4 * scale  # all of the length in one coordinate, as far out as a norm can be
    y, _ = norm(Tape(recording=True), "norm", Norm("norm", gain, shift, Fraction(0)), x)
    centred = x.units - np.rint(x.units.mean(axis=1, keepdims=True))
    expected = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True)) * gain.units / 2**14 + shift.units / 2**14
    assert np.abs(y.units * 2.0**-y.fraction - expected).max() < 0.003 * np.abs(expected).max()


def test_clipping_gives_the_direction_at_the_clip_and_leaves_the_short_alone(rng: np.random.Generator) -> None:
    group = Group(Fraction(3, 10), 1024)
    for length in (0, 0.1, 0.29, 0.31, 40.0):
        direction = rng.normal(size=900)
        gradient = length * direction / np.linalg.norm(direction)
        units = np.rint(gradient * 2**20).astype(np.int64)
        found = clip(Tape(recording=True), "clip", Value(units, 20, 1 << 23), group)
        expected = gradient * min(1, 0.3 / max(length, 1e-9)) * 1024 / 0.3
        assert np.abs(found - expected).max() < 0.55


def test_what_leaves_its_range_is_refused_by_name(rng: np.random.Generator) -> None:
    tape, ones = Tape(), Value(np.full((1, 4), 30000), 0, 1 << 15)
    with pytest.raises(OutOfRange, match=r"long: 120000 to 120000 units where the program allows 32768"):
        tape.apply("long", ones, Matrix(np.ones((1, 4), dtype=np.int64), 0), 0, 16)
    with pytest.raises(OutOfRange, match="beyond the table"):
        tape.look_up("index", exponentials(7, 16, 13), np.array([1 << 16]))
    far, keys = Value(np.array([[[30000, 0]]]), 0, 1 << 15), Value(np.array([[[9, 0], [-9, 0]]]), 0, 9)
    with pytest.raises(OutOfRange, match="apart"):
        tape.scores("far", far, keys, 0, np.ones((1, 2), dtype=np.int64))
    flat, gain = Value(np.arange(64)[None] % 3, 12, 1 << 19), Value(np.ones(64, dtype=np.int64), 0, 1)
    with pytest.raises(OutOfRange, match=r"flat\.root"):
        norm(tape, "flat", Norm("flat", gain, None, Fraction(0)), flat)
    with pytest.raises(OutOfRange, match="no inverse"):
        tape.inverse("none", np.array([0]), 1 << 29, 18)
    with pytest.raises(OutOfRange, match="above"):
        tape.multiply("claimed", ones, ones, 0, 16, most=1000)
    with pytest.raises(OutOfRange, match="row"):
        tape.rows("embedding", Matrix(np.ones((3, 2), dtype=np.int64), 0), [0, 3])


def test_sums_that_could_wrap_are_refused_whatever_the_data() -> None:
    check_unique("fits", 1 << 29, 16, 14)
    for accumulator, bits, shift in ((1 << 30, 17, 14), ((1 << 30) + 1, 16, 0), (1 << 29, 16, 15 + 1)):
        with pytest.raises(ProgramRefused, match="wrap"):
            check_unique("long", accumulator, bits, shift)
    with pytest.raises(ProgramRefused):
        Tape().product(
            "sum", *(Value(np.zeros(shape, np.int64), 0, 1 << 15) for shape in ((1, 1 << 15), (1 << 15, 1))), 0, 24
        )
    with pytest.raises(ProgramRefused, match="invent"):
        Tape().multiply("finer", *(Value(np.ones(1, np.int64), 3, 1) for _ in range(2)), 7, 16)


def test_every_stage_is_unique_modulo_p_for_any_places(rng: np.random.Generator) -> None:
    """Whatever parts fit, what is claimed and what is true are less than p apart: equal mod p is equal."""
    for _ in range(300):
        places = sorted({0, *rng.integers(1, 24, 3).tolist()})
        parts = [(place, int(rng.integers(1, 1 << 29))) for place in places]
        shift, bits = int(rng.integers(0, 26)), int(rng.integers(8, 25))
        try:
            stages = stages_of("any", parts, shift, bits)
        except ProgramRefused:
            continue
        for stage in stages:
            assert stage.bound + (1 << (stage.carry_bits - 1 + stage.bits)) + (1 << stage.bits) < P
        assert isqrt(stages[-1].bound) < 1 << 15
