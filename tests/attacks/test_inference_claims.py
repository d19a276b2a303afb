"""Answers that a true proof of statement F must not vouch for."""

from __future__ import annotations

import pytest

from ledger.inference_proof import WHOLE, scored
from proofs.inference.claim import ClaimRefused


@pytest.mark.parametrize("scores", [(0.09, 0.01), (0.9, 0.9 / 9 + 2 * WHOLE), (1.0, 1.0), (1e-300, 1e-300)])
def test_shares_of_no_whole_are_refused(scores: tuple[float, ...]) -> None:
    """What is proven is how shares compare: nine parts in a hundred beside one would be a proof of a certainty that no
    model has, or lacks."""
    with pytest.raises(ClaimRefused, match="add up"):
        scored(scores)
    scored((0.9, 0.1))
