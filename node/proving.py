"""A member's side of proofs: what it commits to before the beacon, and the proof in its bundle.

The prover is loaded when it is first used: it brings a compiler, and most of a daemon's commands have no need of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ledger.bundle import Claim
from ledger.config import Config
from ledger.mechanism import statement_of
from proofs.errors import LocalFault
from proofs.mechanism import selected_rows
from proofs.texts import Texts
from proofs.words import SecretWords, combine, public_draws


@dataclass(frozen=True, eq=False)
class Trained:
    """released (T, P): ĝ of every step, to be published. contributions: of each step, (n_t, P) int32, one for each row
    drawn, in the order of rows; never to be published, and empty where nothing is to be proven."""

    released: NDArray[np.int32]
    contributions: Sequence[NDArray[np.int32]] = field(default=(), repr=False)


class DrawTooLarge(LocalFault):
    """A step drew more rows than the config's slots: the round cannot be proven, and is given up."""


class ProverMissing(LocalFault):
    """The prover, or the compiler that it brings, is not installed."""


def load_prover() -> None:
    """Compiles, the first time on a machine. Raises ProverMissing."""
    try:
        import proofs.prover  # noqa: F401
    except ImportError as error:
        raise ProverMissing(f"the prover cannot be loaded ({error}); remedy: install candor with numba") from error


def check_draws(config: Config, words: SecretWords, beacon: bytes, rows: int) -> None:
    """Before anything is trained: no step draws more rows than it has slots. Raises DrawTooLarge.

    An honest member meets it once in 2^64 rounds. That it leaves the round then depends on its data, and is paid for.
    """
    if not config.proven:
        return
    slots, privacy = config.shape.slots, config.privacy
    for step in range(config.steps):
        draws = combine(words.draws(step), public_draws(beacon, words.binding, step, privacy.capacity))
        if len(selected_rows(draws, privacy.sample_threshold, rows)) > slots:
            raise DrawTooLarge("a step drew more rows than a proof has slots for, which happens once in 2^64 rounds")


def words_root(config: Config, words: SecretWords) -> bytes:
    """The root that binds the secret words."""
    if not config.proven:
        return words.root()
    from proofs.prover import words_root as proven_root

    return proven_root(words, config.shape)


def data_root(config: Config, words: SecretWords, texts: Texts) -> bytes:
    """The dataset root under a proof policy. Its random cells hide what one round opens: each round has its own."""
    from proofs.prover import data_root as proven_root

    return proven_root(words, config.shape, texts)


def proof_of(
    config: Config,
    claim: Claim,
    beacon: bytes,
    words: SecretWords,
    texts: Texts,
    trained: Trained,
    released: NDArray[np.int32],
    tell: Callable[[str], None],
) -> bytes:
    """The proof of the mechanism for a bundle. `tell` follows its stages.

    Raises proofs.witness.WitnessRefused (a LocalFault) when what was released is not what training did.
    """
    from proofs.prover import prove

    return prove(statement_of(config, claim, beacon, released), words, texts, trained.contributions, tell)
