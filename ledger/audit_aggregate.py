"""The average of one round under audit: rebuilt from what was accepted, and compared with what was proposed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ledger.aggregate import aggregate_bundle
from ledger.aggregation import AggregationSpec, NoAggregate
from ledger.audit_library import Unsettled
from ledger.audit_open import Contents
from ledger.bundle import AggregateBundle, bundle_limits, read_weights
from ledger.config import Config
from ledger.content.errors import ContentMissing
from ledger.content.unixfs import directory_blocks
from ledger.records import AggregateProposed
from ledger.report import Link, Name, failed, missing, passed
from ledger.round_state import RoundState
from ledger.tensors import Weights
from proofs.errors import PeerFault


def rebuilt(
    config: Config, state: RoundState, start: Weights, given: Mapping[int, tuple[bytes, Weights]]
) -> AggregateBundle:
    """The bundle that the rules make of `given`: bundle digest and weights of each member. Raises Unsettled."""
    try:
        return aggregate_bundle(
            config,
            chain_id=state.domain.chain_id,
            contract=state.domain.contract,
            round=state.number,
            global_bundle=state.opened.global_bundle,
            start=start,
            submissions=given,
        )
    except NoAggregate as error:
        raise Unsettled(f"what was proposed cannot be: {error}", peer=True) from error


def not_rebuilt(proposal: AggregateProposed, unsettled: Unsettled) -> Link:
    text, data = f"cannot be recomputed: {unsettled.cause}", _data(proposal)
    return failed(Name.AGGREGATE, text, **data) if unsettled.peer else missing(Name.AGGREGATE, text, **data)


def compared(
    proposal: AggregateProposed,
    rule: AggregationSpec,
    members: Sequence[int],
    bundle: AggregateBundle,
    contents: Contents,
) -> Link:
    """Is what was proposed `bundle`, which `rule` made of `members`? If not, the link says where it differs."""
    root, _ = directory_blocks(bundle.files())
    expected, data = root.cid.digest, _data(proposal)
    if expected == proposal.aggregate_bundle:
        text = f"{rule.told} of members {list(members)}, rebuilt to the byte"
        return passed(Name.AGGREGATE, text, expected=expected.hex(), **data)
    difference = _difference(proposal.aggregate_bundle, bundle, contents)
    text = f"expected {expected.hex()}, proposed was {proposal.aggregate_bundle.hex()}: {difference}"
    return failed(Name.AGGREGATE, text, expected=expected.hex(), **data)


def _data(proposal: AggregateProposed) -> dict[str, Any]:
    return {"aggregate_bundle": proposal.aggregate_bundle.hex(), "aggregator": "0x" + proposal.aggregator.hex()}


def _difference(proposed: bytes, expected: AggregateBundle, contents: Contents) -> str:
    """In words: the first weight that differs, or what else is wrong with the bundle that was proposed."""
    try:
        files = contents.get_directory(proposed, bundle_limits(expected.config))
        found = read_weights(files, expected.config)
    except ContentMissing:
        return "what was proposed is not to be had"
    except PeerFault as error:
        return f"what was proposed breaks a rule: {error}"
    return _first_difference(expected.weights, found) or _other_file(expected.files(), files)


def _first_difference(expected: Weights, found: Weights) -> str:
    for name in sorted(expected):
        wrong = np.flatnonzero(expected[name].reshape(-1) != found[name].reshape(-1))
        if wrong.size:
            at = int(wrong[0])
            units = f"{expected[name].reshape(-1)[at]} grid units, found {found[name].reshape(-1)[at]}"
            return f"{name}[{at}]: expected {units}; {wrong.size} weights of this tensor differ"
    return ""


def _other_file(expected: Mapping[str, bytes], found: Mapping[str, bytes]) -> str:
    differ = sorted(path for path in expected if found.get(path) != expected[path])
    return f"the weights agree; {', '.join(differ) or 'no file'} differs"
