"""Next-token loss: the mean, over the n − 1 tokens that follow another, of the cross-entropy of each.

    b = max z − z              z = W·y of each token, in units of 2^−logits; W is the base's own matrix
    e = exp(−b)                by table, 15 bits; the largest is 2^15
    R = ⌊(2^36 − 1)/Σe⌋        an inequality; Σe ≥ 2^15, so that R < 2^21
    U = Wᵀe                    24 bits: a public number of low bits is rounded off
    m = U·R                    the mean of W's rows under the softmax, in units of W
    dy = (m − W[next])·s       s = ⌊2^15/(n − 1)⌉/2^15; 0 at the last token, and so everywhere if it is the only one

dy = Wᵀ(p − onehot)/(n − 1), with the shares p = e/Σe never written down: that Wᵀ is applied first leaves one division
for each of d numbers, where there are many more in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from proofs.gradient import tables
from proofs.gradient.matrix import Matrix, reach
from proofs.gradient.norms import rounded_ratio
from proofs.gradient.numbers import WIDE_BITS, OutOfRange, ProgramRefused, Units, Value
from proofs.gradient.program import Formats, NextToken
from proofs.gradient.tape import Tape

EXPONENT_BITS = 15
INVERSE = (1 << 36) - 1
INVERSE_BITS = 21  # of R, without a sign
MEAN_BITS = 19  # of m, an average of rows of 16 bits
APART_BITS = 18  # of m − W[next]
SHARE_BITS = 15
MOST_PLACES = 512  # beyond, 1/(n − 1) in units of 2^−15 would be off by more than 2^−8 of itself


def next_token_gradient(
    tape: Tape, layer: NextToken, y: Value, tokens: Sequence[int], formats: Formats, fraction: int
) -> Value:
    """y (n, d) → dy (n, d), wide in units of 2^−fraction. Raises OutOfRange and ProgramRefused."""
    weight = checked(layer).weight
    if len(tokens) > MOST_PLACES:
        raise OutOfRange(f"{len(tokens)} tokens, of which {MOST_PLACES} can be predicted from")
    below = tape.distances("loss.scores", y, weight, formats.logits)
    e = tape.look_up("loss.exponentials", exponentials(formats), below)
    inverse = tape.inverse("loss.inverse", e.units.sum(axis=-1, keepdims=True), INVERSE, INVERSE_BITS + 1)
    factor = Value(inverse, INVERSE_BITS, (1 << INVERSE_BITS) - 1)
    sums = tape.apply("loss.sums", e, weight, sums_fraction(weight), WIDE_BITS, transposed=True)
    means = tape.multiply("loss.means", sums, factor, weight.fraction, MEAN_BITS)
    following = tape.rows("loss.next", weight, [*tokens[1:], 0])
    apart = tape.ranged("loss.apart", means - following, APART_BITS)
    shares = np.full((len(tokens), 1), share_of(len(tokens)), dtype=np.int64)
    shares[-1] = 0
    return tape.multiply("loss.dy", apart, Value(shares, SHARE_BITS, 1 << SHARE_BITS), fraction, WIDE_BITS)


def checked(layer: NextToken) -> NextToken:
    """Raises ProgramRefused for a vocabulary of which Σe could be too long."""
    most = 1 << (30 - EXPONENT_BITS)
    if layer.weight.shape[0] > most:
        raise ProgramRefused(f"a vocabulary of {layer.weight.shape[0]} tokens; sums over {most} are short enough")
    return layer


def exponentials(formats: Formats) -> tables.Table:
    return tables.exponentials(formats.logits, 1, EXPONENT_BITS)


def sums_fraction(weight: Matrix) -> int:
    """Fraction bits of Wᵀe: as many as leave it 24 bits, whatever e is."""
    most = reach(weight.units, 0) << EXPONENT_BITS
    return EXPONENT_BITS + weight.fraction - max(0, most.bit_length() + 1 - WIDE_BITS)


def share_of(count: int) -> int:
    """1/(count − 1) in units of 2^−15, to nearest; 0 for a text of one token."""
    return rounded_ratio(1 << SHARE_BITS, count - 1) if count > 1 else 0


def shares(places: int) -> Units:
    """(places, places): the share of each place in the loss, by the place at which the text ends."""
    found = np.array([share_of(end + 1) for end in range(places)], dtype=np.int64)
    return np.asarray(np.triu(np.broadcast_to(found, (places, places)), 1))
