"""The prover of statement G: what a member kept of a round in, the bytes of a proof about one slot out."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from weakref import WeakKeyDictionary

import numpy as np

from proofs.circuit import prover
from proofs.commitment import Committed
from proofs.gradient.claim import PROTOCOL, GradientStatement, Secret, claim_circuit, claim_layout
from proofs.gradient.program import Program
from proofs.mechanism import selected_rows
from proofs.prover import data_and_slots
from proofs.statement import Statement
from proofs.texts import Texts
from proofs.witness import Contributions, WitnessRefused
from proofs.words import SecretWords, combine, public_draws

Tell = Callable[[str], None]
Trees = tuple[Committed, Committed]
_MADE: WeakKeyDictionary[SecretWords, tuple[bytes, Trees]] = WeakKeyDictionary()


def prove(
    statement: GradientStatement,
    program: Program,
    words: SecretWords,
    texts: Texts,
    contributions: Contributions,
    progress: Tell | None = None,
) -> bytes:
    """contributions: those of all steps, as the mechanism's proof was given them; equal inputs give the equal proof.

    Raises WitnessRefused when they are not what was committed to, or no gradient of the row; OutOfRange and
    ValueRefused where H leaves its ranges: then the slot has no proof.
    """
    tell = progress or (lambda _: None)
    if not statement.mechanism.shape.openings:
        raise WitnessRefused("the round keeps no random cells for further proofs: this one would tell of the data")
    everything = sha256(b"".join(part.astype("<i4").tobytes() for part in contributions)).digest() + texts.digest()
    data, slots = _trees(statement.mechanism, words, texts, contributions, everything, tell)
    if data.root != statement.mechanism.data_root or slots.root != statement.slots_root:
        raise WitnessRefused("texts or contributions are not those that were committed to")
    tell("computing the gradient")
    circuit = claim_circuit(statement, program, secret_of(statement, words, texts, contributions))
    layout = claim_layout(circuit, statement.mechanism.shape)
    digest = statement.digest(program)
    key = words.stream("candor/gradient-pads/2", digest + everything)
    return prover.prove(digest, circuit, layout, [data, slots], key, progress, PROTOCOL)


def _trees(
    mechanism: Statement, words: SecretWords, texts: Texts, contributions: Contributions, everything: bytes, tell: Tell
) -> Trees:
    """What all proofs of a member's round open: made for the first, and kept as long as somebody holds the words."""
    digest = mechanism.digest() + everything
    known = _MADE.get(words)
    if known is None or known[0] != digest:
        tell("committing again")
        known = _MADE[words] = digest, data_and_slots(mechanism, words, texts, contributions)
    return known[1]


def secret_of(statement: GradientStatement, words: SecretWords, texts: Texts, contributions: Contributions) -> Secret:
    """What the member knows about the slot."""
    mechanism, step = statement.mechanism, statement.step
    shape = mechanism.shape
    drawn = combine(words.draws(step), public_draws(mechanism.beacon, mechanism.binding, step, shape.capacity))
    used = np.zeros(shape.capacity, dtype=bool)
    used[selected_rows(drawn, shape.sample_threshold, len(texts))] = True
    mine = contributions[step]
    active = statement.slot < len(mine)
    found = mine[statement.slot] if active else np.zeros(shape.parameters, dtype=np.int32)
    return Secret(texts, used, active, found.astype(np.int64))
