"""What a submission's proof is about, put together from the config, the chain and the released sums, in one place."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from ledger.bundle import Claim
from ledger.config import Config
from proofs.parameters import parameters
from proofs.statement import Statement
from proofs.words import Binding


def statement_of(config: Config, claim: Claim, beacon: bytes, released: NDArray[np.int32]) -> Statement:
    """The statement of one member's proof of the mechanism. beacon: of the training; released (T, P).

    Its context is SHA-256 over a label, the digest of the config and the global bundle (32 bytes each) and the ε
    declared (u64, big-endian): with binding and both roots, all that the manifest says apart from its files.
    """
    group_of = np.zeros(config.adapter.parameters, dtype=np.uint8)
    for number, columns in enumerate(config.groups.values()):
        group_of[columns] = number
    context = config.digest + claim.global_bundle + claim.spent_micro.to_bytes(8, "big")
    return Statement(
        binding=Binding(claim.chain_id, claim.contract, claim.round, claim.member),
        context=sha256(b"candor/mechanism-context/1\0" + context).digest(),
        words_root=claim.words_root,
        data_root=claim.dataset_root,
        beacon=beacon,
        shape=config.shape,
        group_of=group_of,
        released=released,
    )


def coverage(config: Config) -> str:
    """What a valid proof shows, for people."""
    shape, sizes = config.shape, parameters(config.shape)
    return (
        f"contributions within the clip, noise and sampling from committed words and beacon, proven in zero knowledge "
        f"for all {shape.steps} steps and {shape.parameters} coordinates at {sizes.bits:.0f} bits"
    )
