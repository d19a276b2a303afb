"""From a target of security to every size of a proof: derived in exact arithmetic, so that all machines agree.

Section 7 of README.md derives the error of a proof; `Parameters.error` is that sum, term by term. The number of opened
columns is the least with which it stays below 2^−TARGET_BITS, and the length of a row is the power of two with which a
proof is smallest. Rows keep a random cell for every column that is ever opened: those of this proof, and those of the
further proofs that share its trees of data and slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import isqrt, log2
from typing import Protocol

from proofs.errors import LocalFault
from proofs.field import DEGREE, TWO_ADICITY, P
from proofs.gaussian import noise_table
from proofs.statement import Shape

TARGET_BITS = 100
BLOWUP = 8  # n/k: the code's rate is 1/8
TAIL = 48  # an honest projection is beyond its bound with probability 2·e^−48
PROJECTION_BITS = 104
RANGE = 1 << 16
MARGIN = 1 << 25  # kept free below p, so that C² − ‖c‖² < 0 cannot pass for a small number
NORM_SHIFT = 256  # C² − ‖c‖² = low + 256·high, both below 2^16
MAX_CLIP_UNITS = 2048
MAX_CELLS = 1 << 27
MIN_ROW, MAX_ROW = 1 << 9, 1 << (TWO_ADICITY - 3)
MAX_OPENINGS = 16  # further proofs over the trees of data and slots
OPENING_COLUMNS = 128  # columns of them that each of those opens at most
SALT_BYTES = 16
HASH_BYTES = 32

SECRETS, DATA, SLOTS, WITNESS, LOOKUPS, QUOTIENTS = range(6)
SENT = (SLOTS, WITNESS, LOOKUPS, QUOTIENTS)  # trees whose roots a proof brings; the other two are in the statement
TOGETHER = 3  # values of a range that share a row of inverses: cell identities are of degree TOGETHER + 1
Sections = tuple[tuple[str, int], ...]
MASKS: Sections = (("mask_proximity", DEGREE), ("mask_sums", DEGREE))
REST = "sums_rest"  # whose degree is shown to be one less
QUOTIENT_ROWS: Sections = (("cells", (TOGETHER + 1) * DEGREE), (REST, DEGREE), ("sums_quotient", DEGREE))


class Sizes(Protocol):
    """What trees, bytes and polynomials of a proof need to know: k, t, how many cells of a row are random, how many
    hold data, the columns of the code, sections and rows of each tree, whose roots the proof brings, and its length."""

    @property
    def row(self) -> int: ...
    @property
    def queries(self) -> int: ...
    @property
    def pads(self) -> int: ...
    @property
    def lanes(self) -> int: ...
    @property
    def columns(self) -> int: ...
    @property
    def trees(self) -> tuple[Sections, ...]: ...
    @property
    def heights(self) -> tuple[int, ...]: ...
    @property
    def sent(self) -> tuple[int, ...]: ...
    @property
    def fixed_bytes(self) -> int: ...
    @property
    def largest_bytes(self) -> int: ...


class ShapeRefused(LocalFault):
    """No proof of the mechanism can be made for a config of these sizes."""


@dataclass(frozen=True)
class Parameters:
    """Sizes of one proof.

    row: k, the length of a row. queries: t, columns opened. blocks: h, how many coordinates share a row. reach: b', the
    bound on a projection. projections: J.
    """

    shape: Shape
    row: int
    queries: int
    reach: int
    projections: int

    @property
    def columns(self) -> int:
        """n, columns of the code."""
        return BLOWUP * self.row

    @property
    def sent(self) -> tuple[int, ...]:
        return SENT

    @property
    def pads(self) -> int:
        """The last cells of a row, which are random: as many as columns are opened, by all proofs together."""
        return self.queries + OPENING_COLUMNS * self.shape.openings

    @property
    def lanes(self) -> int:
        """ℓ: cells of a row that hold data."""
        return self.row - self.pads

    @property
    def blocks(self) -> int:
        return self.lanes // self.shape.contributions

    @property
    def noise_rows(self) -> int:
        return _rows(self.shape.steps * self.shape.parameters, self.lanes)

    @property
    def draw_rows(self) -> int:
        return _rows(self.shape.steps * self.shape.capacity, self.lanes)

    @property
    def text_rows(self) -> int:
        return _rows((self.shape.tokens + 2) * self.shape.capacity, self.lanes)

    @property
    def group_rows(self) -> tuple[int, ...]:
        return tuple(_rows(size, self.blocks) for size in self.shape.groups)

    @property
    def projected(self) -> int:
        """Coordinates that are projected: those of the groups, each padded to whole rows."""
        return sum(self.group_rows) * self.blocks

    @property
    def projection_rows(self) -> int:
        return _rows(self.projections, self.blocks)

    @property
    def noise_values(self) -> int:
        return 2 * noise_table(self.shape.sigma_units).bound + 1

    @property
    def range_lookups(self) -> int:
        """Rows of values below 2^16: words and remainders of noise and draws, limbs of norms."""
        return 16 * self.noise_rows + 6 * self.draw_rows + 2 * len(self.shape.groups)

    @property
    def range_inverses(self) -> int:
        return _rows(self.range_lookups, TOGETHER)

    @property
    def projection_inverses(self) -> int:
        return _rows(self.projection_rows, TOGETHER)

    @property
    def inverses(self) -> int:
        """L, rows of inverses: of ranges, projections, noise."""
        return self.range_inverses + self.projection_inverses + self.noise_rows

    @property
    def trees(self) -> tuple[Sections, ...]:
        """(name, rows) of every section, tree by tree, in the order in which they are committed."""
        noise, draws, groups = self.noise_rows, self.draw_rows, len(self.shape.groups)
        contributions = tuple((f"contributions_{g}", rows) for g, rows in enumerate(self.group_rows))
        return (
            (("secret_noise", 4 * noise), ("secret_draws", 2 * draws)),
            (("filled", draws), ("texts", self.text_rows)),
            (*contributions, ("active", 1), ("used", draws)),
            (
                ("squares", groups),
                ("norm_low", groups),
                ("norm_high", groups),
                ("last", 1),
                ("noise", noise),
                ("noise_carry", 4 * noise),
                ("bin_low", 4 * noise),
                ("bin_high", 4 * noise),
                ("low_borrow", 3 * noise),
                ("high_borrow", 3 * noise),
                ("draw_carry", 2 * draws),
                ("draw_borrow", draws),
                ("drawn", draws),
                ("range_counts", _rows(RANGE, self.lanes)),
                ("noise_counts", _rows(self.noise_values, self.lanes)),
                ("projections", self.projection_rows),
                ("projection_counts", _rows(2 * self.reach + 1, self.lanes)),
            ),
            (*((f"inverses_{e}", self.inverses) for e in range(DEGREE)), *MASKS),
            QUOTIENT_ROWS,
        )

    @property
    def heights(self) -> tuple[int, ...]:
        """Rows of each tree."""
        return tuple(sum(rows for _, rows in sections) for sections in self.trees)

    @property
    def fixed_bytes(self) -> int:
        """A proof without its Merkle paths: four roots, a polynomial, the opened columns and their salts."""
        return bytes_of(self)

    @property
    def largest_bytes(self) -> int:
        return largest_bytes_of(self)

    @property
    def error(self) -> Fraction:
        """Upper bound on the probability that a false statement passes (README.md, section 7)."""
        field, n = P**DEGREE, self.columns
        query = Fraction(BLOWUP + 1, 2 * BLOWUP) ** self.queries
        code = Fraction(2 * n, field)
        together = TOGETHER * (self.range_inverses + self.projection_inverses)
        looked_up = self.lanes * together + RANGE + 2 * self.reach + 1
        noise = 9 * (self.lanes * self.noise_rows + self.noise_values)
        algebra = Fraction(looked_up + noise + 8, field)
        return query + code + algebra + miss(self.shape, self.reach) ** self.projections

    @property
    def largest_sum(self) -> int:
        """|ĝ| at most: every slot at the clip, and the loudest noise. Below p/2, so that nothing wraps."""
        return self.shape.slots * self.shape.clip_units + noise_table(self.shape.sigma_units).bound

    @property
    def bits(self) -> float:
        return -(log2(self.error.numerator) - log2(self.error.denominator))


def miss(shape: Shape, reach: int) -> Fraction:
    """2/(2 + (1 − θ)²): how probably one projection overlooks contributions whose squares could wrap (Cantelli)."""
    theta = _theta(shape, reach)
    return 2 / (2 + (1 - theta) ** 2)


@lru_cache(maxsize=64)
def parameters(shape: Shape) -> Parameters:
    """The sizes with which a proof is smallest. Raises ShapeRefused, saying what to change."""
    reach = _reach(shape)
    projections = _projections(shape, reach)
    found = [candidate for k in _row_lengths() if (candidate := _with_queries(shape, k, reach, projections))]
    if not found:
        sizes = f"{shape.contributions} contributions of {shape.parameters} trained coordinates"
        raise ShapeRefused(f"{sizes} are more than one proof holds; lower steps, batch, rank or clip_units")
    best = min(found, key=lambda candidate: candidate.fixed_bytes)
    if best.row * sum(best.heights) > MAX_CELLS:
        raise ShapeRefused("a proof of this round would not fit the memory; lower steps, batch or trained parameters")
    return best


def largest_proof(shape: Shape) -> int:
    """Bytes of a proof at most. Raises ShapeRefused."""
    return parameters(shape).largest_bytes


def _row_lengths() -> list[int]:
    return [1 << bits for bits in range(MIN_ROW.bit_length() - 1, MAX_ROW.bit_length())]


def _with_queries(shape: Shape, row: int, reach: int, projections: int) -> Parameters | None:
    spare = row // 2 - OPENING_COLUMNS * shape.openings  # less than half of a row is random
    for queries in range(1, min(spare, 2 * TARGET_BITS + 1)):
        if (TOGETHER + 1) * queries + OPENING_COLUMNS * shape.openings > row:  # the seams of a quotient's pieces
            return None
        if Fraction(BLOWUP + 1, 2 * BLOWUP) ** queries > Fraction(1, 2**TARGET_BITS):
            continue
        candidate = Parameters(shape, row, queries, reach, projections)
        if candidate.blocks < 1 or (2 * candidate.projected + 1) * reach >= P:  # projections must not wrap either
            return None
        if candidate.error <= Fraction(1, 2**TARGET_BITS):
            return candidate
    return None


def _reach(shape: Shape) -> int:
    """b': an honest projection has variance proxy ½·G·C², so |y| ≤ √(TAIL·G)·C but for 2·e^−TAIL."""
    if not 1 <= shape.clip_units <= MAX_CLIP_UNITS:
        raise ShapeRefused(f"a proof needs clip_units from 1 to {MAX_CLIP_UNITS}, not {shape.clip_units}")
    if not shape.groups or min(*shape.groups, shape.steps, shape.slots, shape.capacity, shape.tokens) < 1:
        raise ShapeRefused("a proof needs at least one step, slot, row, token and trained coordinate")
    if not 0 <= shape.openings <= MAX_OPENINGS:
        raise ShapeRefused(f"a proof leaves room for up to {MAX_OPENINGS} further ones, not {shape.openings}")
    reach = isqrt(TAIL * len(shape.groups) * shape.clip_units**2) + 1
    if _theta(shape, reach) > Fraction(1, 2):
        raise ShapeRefused(
            f"{len(shape.groups)} groups of clip {shape.clip_units} units are too much; lower clip_units"
        )
    if not 0 <= shape.sample_threshold <= 1 << 32:
        raise ShapeRefused(f"a sampling threshold is at most 2^32, not {shape.sample_threshold}")
    if 2 * (shape.slots * shape.clip_units + noise_table(shape.sigma_units).bound) >= P:
        raise ShapeRefused("slots times clip_units must stay below 2^30, or sums wrap; lower either")
    return reach


def _theta(shape: Shape, reach: int) -> Fraction:
    return Fraction(2 * reach * reach, P - MARGIN - 1)


def _projections(shape: Shape, reach: int) -> int:
    """J: the least number with miss^J ≤ 2^−PROJECTION_BITS, in fixed point that rounds up."""
    scale = 1 << 256
    one = -(-miss(shape, reach).numerator * scale // miss(shape, reach).denominator)
    chance, count = scale, 0
    while chance << PROJECTION_BITS > scale:
        chance, count = -(-chance * one // scale), count + 1
    return count


def bytes_of(sizes: Sizes) -> int:
    """What `Sizes.fixed_bytes` says: roots, the polynomial of proximity, columns and salts."""
    opened = sizes.queries * (4 * sum(sizes.heights) + SALT_BYTES * len(sizes.heights))
    return len(sizes.sent) * HASH_BYTES + 4 * DEGREE * sizes.row + opened


def largest_bytes_of(sizes: Sizes) -> int:
    """With Merkle paths that share nothing below the level at which there are as many nodes as queries."""
    levels = (sizes.columns - 1).bit_length() - (sizes.queries.bit_length() - 1)
    return sizes.fixed_bytes + len(sizes.heights) * HASH_BYTES * sizes.queries * (levels + 1)


def shifts_of(sizes: Sizes) -> list[int]:
    """Where the pieces of the quotient of the cell identities begin: neighbours overlap in t coefficients and more."""
    last = (TOGETHER - 1) * sizes.row + sizes.pads
    return [*(piece * (sizes.row - sizes.queries) for piece in range(TOGETHER)), last]


def _rows(cells: int, width: int) -> int:
    return -(-cells // width)
