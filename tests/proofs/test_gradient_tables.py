"""Tables: against mpmath's own functions, and pinned for ever."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest

from proofs.gradient import tables
from proofs.gradient.numbers import ProgramRefused

MP = mpmath.MPContext()
MP.prec = 200

CASES: list[tuple[tables.Table, Any]] = [
    (tables.exponentials(7, 16, 13), lambda x: MP.exp(-x / 4)),
    (tables.exponentials(7, 32, 13), lambda x: MP.exp(-x / MP.sqrt(32))),
    (tables.exponentials(10, 1, 15), lambda x: MP.exp(-x)),
    (tables.silu(10, 10), lambda x: x / (1 + MP.exp(-x))),
    (tables.silu_slope(10, 14), lambda x: (1 + x * (1 - 1 / (1 + MP.exp(-x)))) / (1 + MP.exp(-x))),
    (tables.gelu(9, 9), lambda x: x * MP.ncdf(x)),
    (tables.gelu_slope(9, 14), lambda x: MP.ncdf(x) + x * MP.npdf(x)),
    (tables.tanh(13, 14), MP.tanh),
    (tables.tanh_slope(13, 14), lambda x: 1 - MP.tanh(x) ** 2),
]
FRACTIONS = [7, 7, 10, 10, 10, 9, 9, 13, 13]
DIGESTS: list[str] = [
    "29b7c3458fe1a86a4962fa49e028dd2b",
    "44be019d9857c403daff7cb6274bb85f",
    "bdf975a8c86c155c8b0fe91bd8e087dd",
    "488def021402ae0934c86932237b3959",
    "bffd43354cfc65bd10e8e0ad6b1d511f",
    "84aa04a273d2861ea720b3f97485ae3e",
    "eb9081f7d240fc14f53deefa2298397c",
    "fedae8d6a1fc5742264c5057417bde49",
    "3dba14800efb2cc0f30ee572f5233bc5",
]


@pytest.mark.parametrize("place", range(len(CASES)), ids=[table.name for table, _ in CASES])
def test_entries_are_the_true_values_rounded_to_nearest(place: int) -> None:
    (table, function), fraction = CASES[place], FRACTIONS[place]
    picked = np.random.default_rng(place).integers(table.first, table.first + tables.SIZE, 200)
    for x in [*picked.tolist(), table.first, -1, 0, 1, table.first + tables.SIZE - 1]:
        if x >= table.first:
            true = function(MP.ldexp(x, -fraction))
            assert int(table.entries[x - table.first]) == int(MP.floor(MP.ldexp(true, table.fraction) + MP.mpf("0.5")))


@pytest.mark.parametrize("place", range(len(CASES)), ids=[table.name for table, _ in CASES])
def test_tables_are_pinned(place: int) -> None:
    assert CASES[place][0].digest.hex()[:32] == DIGESTS[place]


def test_a_table_has_no_more_entries_than_a_lookup_can_reach() -> None:
    for table, _ in CASES:
        assert len(table.entries) == 1 << 16
        assert int(np.abs(table.entries).max()) == table.bound <= 1 << 15
        assert not table.entries.flags.writeable


def test_rotations_turn_by_the_published_angles() -> None:
    cos, sin = tables.rotations(Fraction(10000), 16, 160, 14)
    angles = np.arange(160)[:, None] * 10000.0 ** (-np.arange(8) / 8)
    assert np.abs(cos - np.cos(angles) * 2**14).max() <= 0.5 + 1e-6
    assert np.abs(sin - np.sin(angles) * 2**14).max() <= 0.5 + 1e-6
    with pytest.raises(ProgramRefused):
        tables.rotations(Fraction(10000), 15, 4, 14)
