"""What H scores, in integers alone: the numbers that statement F is about."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from proofs.gradient.head import head
from proofs.gradient.numbers import Units
from proofs.gradient.program import NextToken, Program
from proofs.gradient.tape import Tape
from proofs.gradient.transformer import forward


def scores(program: Program, tokens: Sequence[int]) -> Units:
    """Logits in units of 2^−10: (labels,) of a classifier; of a language model, at each of n places, of all tokens
    (n, vocabulary) that may follow. Raises OutOfRange."""
    tape, layer = Tape(), program.head
    y = forward(tape, program, tokens).y
    if not isinstance(layer, NextToken):
        return np.asarray(head(tape, layer, y, program.formats)[0].units[0])
    shift = y.fraction + layer.weight.fraction - program.formats.logits
    return np.asarray((y.units @ layer.weight.units.T + ((1 << shift) >> 1)) >> shift)
