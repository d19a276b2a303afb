"""How far H's scores are from torch's: `python -m benchmarks.inference_distance [NAME …]`.

Of a classifier: each label's logit less that of the likeliest, by torch and by H. Of a language model: how far below
the largest score of H the token is that torch finds likeliest, at every place. In units of 2^−10; τ is twice the worst.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.gradient_distance import EXAMPLES, Case, cases
from devnet.presets import MINILM, TINY, TINY_TEXT
from proofs.gradient.program import NextToken, Program
from proofs.inference.scores import scores

UNITS = 1 << 10
SAFETY = 2


def main() -> None:
    torch.set_num_threads(1)
    for preset in (TINY, TINY_TEXT, MINILM):
        if sys.argv[1:] and preset.name not in sys.argv[1:]:
            continue
        worst = 0
        for case in cases(preset, EXAMPLES[preset.name]):
            apart = np.array(list(distances(case, case.program())))
            worst = max(worst, int(apart.max()))
            told = "  ".join(f"{100 * q:g} %: {np.quantile(apart, q):.0f}" for q in (0.5, 0.9, 0.99))
            print(f"{preset.name}, {case.iterate}: {len(apart)} texts  {told}  worst: {apart.max()} units of 2^-10")
        print(f"{preset.name}: τ = {SAFETY} · {worst} = {SAFETY * worst}")


def distances(case: Case, program: Program) -> Iterator[int]:
    """The largest of each text."""
    for tokens in case.ids:
        with torch.no_grad():
            floats = case.model.logits([tokens])[0].double().numpy()
        found = scores(program, tokens)
        if isinstance(program.head, NextToken):
            chosen = np.take_along_axis(found, floats.argmax(axis=1)[:, None], axis=1)[:, 0]
            yield int((found.max(axis=1) - chosen).max())
        else:
            label = int(floats.argmax())
            claimed = np.rint((floats - floats[label]) * UNITS)
            yield int(np.abs(found - found[label] - claimed).max())


if __name__ == "__main__":
    main()
