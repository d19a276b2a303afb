"""The aggregate: an integer weighted mean that anyone recomputes to the bit, and the roots of who is in and who is out.

mean = Σ wᵢ·uᵢ / Σ wᵢ per coordinate over grid units, rounded half to even, in integers throughout: |wᵢ·uᵢ| ≤ 2^40 and
at most 256 members keep every sum within 2^48. Members go in the order of their numbers, though no order changes a sum.
Frozen tensors are equal in all submissions (verdicts see to it) and are passed on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ledger.bundle import AggregateBundle
from ledger.config import Config
from ledger.records import Reason
from ledger.tensors import Units, Weights
from proofs import merkle
from proofs.errors import LocalFault


def average(config: Config, submissions: Mapping[int, Weights]) -> Weights:
    """member -> weights in grid units, all tensors each; the weighted mean, every tensor of the config."""
    if not submissions:
        raise LocalFault("there is nothing to average")
    return {tensor.name: _mean(config, submissions, tensor.name) for tensor in config.adapter.tensors}


def aggregate_bundle(
    config: Config,
    *,
    chain_id: int,
    contract: bytes,
    round: int,
    global_bundle: bytes,
    submissions: Mapping[int, tuple[bytes, Weights]],
) -> AggregateBundle:
    """The one bundle that a round's accepted submissions, member -> (bundle digest, weights), lead to."""
    weights = average(config, {member: given for member, (_, given) in submissions.items()})
    included = tuple((m, submissions[m][0], config.aggregation.weight(m)) for m in sorted(submissions))
    return AggregateBundle(config, chain_id, contract, round, global_bundle, included, weights)


def aggregate_files(
    config: Config,
    *,
    chain_id: int,
    contract: bytes,
    round: int,
    global_bundle: bytes,
    submissions: Mapping[int, tuple[bytes, Weights]],
) -> dict[str, bytes]:
    """The directory of `aggregate_bundle`."""
    bundle = aggregate_bundle(
        config,
        chain_id=chain_id,
        contract=contract,
        round=round,
        global_bundle=global_bundle,
        submissions=submissions,
    )
    return bundle.files()


def included_root(included: Sequence[tuple[int, bytes]]) -> bytes:
    """RFC 6962 root over member u8 ‖ bundle digest, (member, bundle) in seat order."""
    return merkle.root([bytes([member]) + bundle for member, bundle in included])


def excluded_root(excluded: Sequence[tuple[int, Reason]]) -> bytes:
    """RFC 6962 root over member u8 ‖ reason u8, in seat order."""
    return merkle.root([bytes([member, int(reason)]) for member, reason in excluded])


def _mean(config: Config, submissions: Mapping[int, Weights], name: str) -> Units:
    members = sorted(submissions)
    total = sum(config.aggregation.weight(member) for member in members)
    summed = np.zeros_like(submissions[members[0]][name])
    for member in members:
        summed += config.aggregation.weight(member) * submissions[member][name]
    return round_half_even(summed, total)


def round_half_even(numerator: Units, denominator: int) -> Units:
    """numerator / denominator (> 0), to the nearest integer, ties to the even one. Elementwise, integers only."""
    quotient, rest = np.divmod(numerator, denominator)
    up = (2 * rest > denominator) | ((2 * rest == denominator) & (quotient % 2 == 1))
    return np.asarray(quotient + up, dtype=np.int64)
