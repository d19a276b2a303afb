"""The circuit of the next-token loss, over all places of a text; the twin of next_token.py.

The exponentials of a vocabulary are one group of cells for each token of it: how far its score is below the largest,
its exponential, and a pick:

    pick·below = 0      pick² = pick      Σ pick = 1

so that no score is above the largest, and one is there. The shares are not there at all: Wᵀ is applied first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from proofs.circuit.builder import Circuit
from proofs.circuit.integers import inverse
from proofs.circuit.rounding import HALF_BITS, applied_parts, apply, joined, limb_cells, limb_plan, multiply, rounded
from proofs.circuit.wire import Lookup, Units, Wire
from proofs.field import P
from proofs.gradient import next_token as loss
from proofs.gradient.circuit_layers import lookups, rows_of
from proofs.gradient.matrix import Matrix
from proofs.gradient.numbers import WIDE_BITS, OutOfRange, ProgramRefused
from proofs.gradient.program import Formats, NextToken
from proofs.gradient.tables import Table
from proofs.gradient.tape import SCORE_BITS, check_apart

IN_HEAD = "rows of the head"


@dataclass(frozen=True, eq=False)
class Following:
    """ids (1,): the token after each, 0 after the last place. share (1,): 1/(n − 1) of a text of n tokens at those that
    another follows, 0 elsewhere."""

    ids: Wire
    share: Wire


def following(circuit: Circuit, ids: Wire, end: Wire) -> Following:
    """ids (1,): of all places. end (1, 1): 1 at the last token. The share follows from where the text ends."""
    places = circuit.lanes
    if places > loss.MOST_PLACES:
        raise ProgramRefused(f"{places} tokens, of which {loss.MOST_PLACES} can be predicted from")
    whole, after = np.eye(places, dtype=np.int64), np.eye(places, k=1, dtype=np.int64)
    by_end = loss.shares(places)
    units = None if ids.units is None else ids.units @ after.T
    found = circuit.free((1,), places, units)
    circuit.across([(whole, found), (-after, ids)])
    units = None if end.units is None else end.units[0] @ by_end.T
    share = circuit.free((1,), places, units, 1 << loss.SHARE_BITS, loss.SHARE_BITS)
    circuit.across([(whole, share), (-by_end, end)])
    return Following(found, share)


def next_token_gradient(
    circuit: Circuit, layer: NextToken, y: Wire, following: Following, formats: Formats, fraction: int
) -> Wire:
    """y (d,) of all places → dy (d,), wide in units of 2^−fraction."""
    weight, length = loss.checked(layer).weight, y.shape[-1]
    e = _exponentials(circuit, y, weight, formats)
    r = inverse(circuit, e.summed(), loss.INVERSE, loss.INVERSE_BITS).with_(fraction=loss.INVERSE_BITS)
    at = loss.sums_fraction(weight)
    sums = apply(circuit, "loss.sums", e, weight, at, WIDE_BITS, transposed=True, cut=HALF_BITS)
    rows = rows_of(circuit, IN_HEAD, weight, following.ids)
    apart = _apart(circuit, sums, r.spread(length), rows)
    share = following.share.shaped(lambda strips: strips[0]).spread(length)
    return multiply(circuit, "loss.dy", apart, share, fraction, WIDE_BITS)


def _apart(circuit: Circuit, sums: Wire, r: Wire, rows: Wire) -> Wire:
    """sums·r − rows (d,): the product itself is nowhere, its limbs are those of the difference."""
    found: list[Wire] = []
    plain = rows.with_(fraction=0)

    def beside_the_rows(product: Units | None) -> Wire:
        units = None if product is None else product - rows.known()
        plan = limb_plan(1 << (loss.APART_BITS - 1), HALF_BITS)
        limbs = limb_cells(circuit, sums.shape, sums.lanes, plan, units)
        found.append(joined(limbs).with_(limbs=tuple(limbs), bound=1 << (loss.APART_BITS - 1), fraction=rows.fraction))
        return joined(limbs) + plain

    bits = loss.MEAN_BITS
    multiply(circuit, "loss.means", sums, r, rows.fraction, bits, cut=HALF_BITS, result=beside_the_rows)
    return found[0]


def _exponentials(circuit: Circuit, y: Wire, weight: Matrix, formats: Formats) -> Wire:
    """(vocabulary,) at every place: exp(z − max z), which is 1 at the largest."""
    table, size = loss.exponentials(formats), weight.shape[0]
    found: list[Wire] = []

    def below_the_largest(raw: Units | None) -> Wire:
        top = below = None
        if raw is not None:
            top = raw.max(axis=0)
            below = top - raw
            check_apart("loss.scores", below)
        largest = circuit.signed((), y.lanes, SCORE_BITS, top)
        key, e = _cells(circuit, table, size, y.lanes, below)
        found.append(e)
        return largest.spread(size) - key

    parts, shift = applied_parts(circuit, y, weight), y.fraction + weight.fraction - formats.logits
    rounded(circuit, "loss.scores", parts, (size,), y.lanes, shift, 0, SCORE_BITS + 1, below_the_largest)
    return found[0].with_(fraction=table.fraction, bound=1 << table.fraction)


def _cells(circuit: Circuit, table: Table, size: int, lanes: int, below: Units | None) -> tuple[Wire, Wire]:
    """(below, exponential), one of which is at the largest."""
    name = circuit.table(lookups(table))
    group = circuit.group(
        f"vocabulary {name}",
        lanes,
        3,
        (Lookup(name, (("1", 0), ("β", 1))),),
        (((1, 2, 0),), ((1, 2, 2), (P - 1, 2, None))),
    )
    units: list[Units | None] = [None] * 3
    if below is not None:
        if below.max(initial=0) >= len(table.entries):
            raise OutOfRange("loss.scores: beyond the table of exponentials")
        pick = np.zeros_like(below)
        np.put_along_axis(pick, np.argmin(below, axis=0)[None], 1, axis=0)
        units = [below, table.entries[below], pick]
    key, e, picked = circuit.put(group, (size,), units)
    circuit.equal(picked.summed().plus(-1))
    return key, e
