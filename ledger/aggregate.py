"""The aggregate: what a round's accepted adapters become, recomputed by anyone to the bit; and the roots of who is in
and who is out.

What each rule computes is in AGGREGATION.md. All of it is integers over grid units: the weighted mean is
Σ wᵢ·uᵢ / Σ wᵢ per coordinate, rounded half to even, where |wᵢ·uᵢ| ≤ 2^40 and at most 256 members keep every sum within
2^48. Members go in the order of their numbers, whatever order they arrive in. Frozen tensors are equal in all
submissions (verdicts see to it), so that every rule passes them on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ledger.aggregation import PRODUCT_RULES, RobustSpec, aggregated, check_members, pairs
from ledger.bundle import CONFIG, MANIFEST, AggregateBundle, Files, included_members, read_weights
from ledger.config import Config
from ledger.products import Pair, cut, stack
from ledger.records import Reason
from ledger.robust import Units, median, multi_krum, round_half_even, shortened, trimmed_mean
from ledger.tensors import Weights
from proofs import merkle


def average(config: Config, start: Weights, submissions: Mapping[int, Weights]) -> Weights:
    """member -> weights in grid units, all tensors each; the aggregate, every tensor of `aggregated(config, …)`.

    start: the round's global weights. Raises NoAggregate.
    """
    check_members(config, submissions)
    products = _products(config, start, submissions)
    others = [tensor.name for tensor in config.adapter.tensors if tensor.name not in products]
    return products | _combined(config, start, others, {m: submissions[m] for m in sorted(submissions)})


def aggregate_bundle(
    config: Config,
    *,
    chain_id: int,
    contract: bytes,
    round: int,
    global_bundle: bytes,
    start: Weights,
    submissions: Mapping[int, tuple[bytes, Weights]],
) -> AggregateBundle:
    """The one bundle that a round's accepted submissions, member -> (bundle digest, weights), lead to.

    start: the weights of the global bundle. Raises NoAggregate.
    """
    weights = average(config, start, {member: given for member, (_, given) in submissions.items()})
    included = tuple((m, submissions[m][0], config.aggregation.weight(m)) for m in sorted(submissions))
    return AggregateBundle(aggregated(config, submissions), chain_id, contract, round, global_bundle, included, weights)


def read_aggregate(files: Files) -> tuple[Config, Weights]:
    """A published aggregate as it stands by itself: the config at the aggregate's rank, and its weights.

    For whoever runs it; a round that starts there reads it under its own config (ledger.bundle.read_weights). Raises
    Rejected, NotCanonical or FieldInvalid.
    """
    config = Config.decode(files.get(CONFIG, b""))
    members = included_members(files.get(MANIFEST, b""))
    config = aggregated(config, members)
    return config, read_weights(files, config)


def aggregate_files(
    config: Config,
    *,
    chain_id: int,
    contract: bytes,
    round: int,
    global_bundle: bytes,
    start: Weights,
    submissions: Mapping[int, tuple[bytes, Weights]],
) -> dict[str, bytes]:
    """The directory of `aggregate_bundle`."""
    bundle = aggregate_bundle(
        config,
        chain_id=chain_id,
        contract=contract,
        round=round,
        global_bundle=global_bundle,
        start=start,
        submissions=submissions,
    )
    return bundle.files()


def included_root(included: Sequence[tuple[int, bytes]]) -> bytes:
    """RFC 6962 root over member u8 ‖ bundle digest, (member, bundle) in seat order."""
    return merkle.root([bytes([member]) + bundle for member, bundle in included])


def excluded_root(excluded: Sequence[tuple[int, Reason]]) -> bytes:
    """RFC 6962 root over member u8 ‖ reason u8, in seat order."""
    return merkle.root([bytes([member, int(reason)]) for member, reason in excluded])


def _products(config: Config, start: Weights, submissions: Mapping[int, Weights]) -> Weights:
    """The pairs under stack and svd; nothing under the rules that average half by half."""
    spec, members = config.aggregation, sorted(submissions)
    found: Weights = {}
    for a, b in pairs(config) if spec.rule in PRODUCT_RULES else ():
        given = [Pair(submissions[m][a], submissions[m][b], spec.weight(m)) for m in members]
        found[a], found[b] = stack(given) if spec.rule == "stack" else cut(given, config.weight_bits, start[a])
    return found


def _combined(config: Config, start: Weights, names: Sequence[str], given: Mapping[int, Weights]) -> Weights:
    """These tensors, one by one, by the robust rule where there is one. given: in the order of members."""
    robust, weight = config.aggregation.robust, config.aggregation.weight
    if robust is not None and robust.name == "multi-krum":
        kept = multi_krum({m: [weights[name] for name in names] for m, weights in given.items()}, robust)
        given = {member: given[member] for member in kept}
    if robust is not None and robust.name == "norm-clip":
        updates = shortened({m: [weights[name] - start[name] for name in names] for m, weights in given.items()})
        given = {
            m: {n: start[n] + moved for n, moved in zip(names, parts, strict=True)} for m, parts in updates.items()
        }
    if robust is not None and robust.name in ("median", "trimmed-mean"):
        return {name: _elementwise(robust, np.stack([weights[name] for weights in given.values()])) for name in names}
    return {name: _mean(weight, {member: weights[name] for member, weights in given.items()}) for name in names}


def _elementwise(robust: RobustSpec, rows: Units) -> Units:
    return median(rows) if robust.name == "median" else trimmed_mean(rows, robust.tolerates)


def _mean(weight: Callable[[int], int], given: Mapping[int, Units]) -> Units:
    total = sum(weight(member) for member in given)
    summed = sum((weight(member) * units for member, units in given.items()), np.int64(0))
    return round_half_even(np.asarray(summed), total)
