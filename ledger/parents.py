"""What a mixture is made of: aggregates that rounds of this contract made FINAL, and where its own rounds start.

    ParentRefused (PeerFault)    config.adapter.parents names something else

The contract lets a round start only from the last FINAL aggregate. So the first round of a mixture starts there, where
one of its parents must be; its gates are zero then, all parents alike, and the numbers of that bundle are not read. Its
later rounds start from its own aggregates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ledger.adapter import MIXED
from ledger.aggregation import aggregated
from ledger.audit_open import Contents
from ledger.bundle import CONFIG, Rejected, bundle_limits, read_weights
from ledger.config import MAX_CONFIG_BYTES, Config
from ledger.history import History
from ledger.records import Reason
from ledger.round_state import RoundState
from ledger.tensors import Weights
from proofs.errors import PeerFault

LINE = "config.adapter.parents"


class ParentRefused(PeerFault):
    """A parent is not the aggregate of a FINAL round, or cannot be mixed with the others on this base."""


@dataclass(frozen=True, eq=False)
class Parent:
    """One final adapter, with its config as its round's aggregate has it. weights: in grid units."""

    bundle: bytes
    config: Config
    weights: Weights


def final_round(history: History, bundle: bytes) -> RoundState | None:
    """The round that made this bundle final."""
    return next((state for state in history.rounds.values() if state.final_bundle == bundle), None)


def read_final(contents: Contents, bundle: bytes, state: RoundState, config: Config) -> tuple[Config, Weights]:
    """The aggregate that a round ended with, under the round's config, verified. Raises Rejected, ContentMissing."""
    config = aggregated(config, state.accepted)
    files = contents.get_directory(bundle, bundle_limits(config))
    if files.get(CONFIG) != config.encode():
        raise Rejected(Reason.CONFIG_MISMATCH, f"{CONFIG} of the bundle is not the config of its round {state.number}")
    return config, read_weights(files, config)


def read_parents(contents: Contents, history: History, config: Config) -> tuple[Parent, ...]:
    """The parents of a mixture in its order, from their bundles. Raises ParentRefused, Rejected, ContentMissing."""
    found = []
    for bundle in config.adapter.parents:
        state = final_round(history, bundle)
        if state is None:
            raise ParentRefused(
                f"{LINE}: no round of 0x{history.domain.contract.hex()} made {bundle.hex()} final; remedy: name "
                "aggregates of FINAL rounds"
            )
        of_round = Config.decode(contents.get_raw(state.opened.config_digest, MAX_CONFIG_BYTES))
        check_parent(config, of_round, state.number)
        found.append(Parent(bundle, *read_final(contents, bundle, state, of_round)))
    return tuple(found)


def check_parent(config: Config, parent: Config, number: int) -> None:
    """Can an aggregate of round `number` be part of this mixture? Raises ParentRefused."""
    wrong = ""
    if parent.base_digest != config.base_digest:
        wrong = f"its base is {parent.base_digest.hex()}, not {config.base_digest.hex()}"
    elif parent.quantised != config.quantised:
        wrong = f"its base is {_bits(parent)}, the mixture's {_bits(config)} (config.base.quantised)"
    elif parent.adapter.method not in MIXED or parent.adapter.experts:
        wrong = f"it is {parent.adapter.method}{' with experts' * bool(parent.adapter.experts)}; known: {list(MIXED)}"
    elif (parent.task.kind, parent.task.labels) != (config.task.kind, config.task.labels):
        wrong = f"its task is {parent.task.kind} with other labels"
    elif parent.adapter.head != config.adapter.head:
        wrong = f"its head is {list(parent.adapter.head)}, the mixture's {list(config.adapter.head)}"
    if wrong:
        raise ParentRefused(f"{LINE}: the aggregate of round {number} cannot be mixed here: {wrong}")


def _bits(config: Config) -> str:
    return f"in 4 bits, {config.quantised.digest.hex()}" if config.quantised else "not in 4 bits"


def starts_at_zero(config: Config, global_bundle: bytes) -> bool:
    """Is this the first round of a mixture, which starts from one of its parents?"""
    return global_bundle in config.adapter.parents


def read_start(contents: Contents, global_bundle: bytes, config: Config) -> Weights:
    """Where a round of this config starts. Raises ContentMissing, ContentInvalid or Rejected."""
    if starts_at_zero(config, global_bundle):
        return {tensor.name: np.zeros(tensor.shape, dtype=np.int64) for tensor in config.adapter.tensors}
    return read_weights(contents.get_directory(global_bundle, bundle_limits(config)), config)
