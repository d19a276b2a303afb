"""Is what the aggregator proposed what the rules lead to? A member re-runs every verdict and the average itself.

What cannot be held against anybody: a bundle called UNAVAILABLE that can be had now (time can change that), or one
that was refused and cannot be had now. What can: a verdict that another one contradicts, an aggregate that is another,
and an accepted bundle that nobody lets us have, for then nobody can recompute the average.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ledger.aggregation import NoAggregate
from ledger.bundle import AggregateBundle, bundle_limits, read_weights
from ledger.content import ContentMissing
from ledger.content.unixfs import directory_blocks
from ledger.records import Reason
from ledger.round_state import RoundState
from ledger.verdict import Verdict
from node.memory import Checked
from node.recompute import Recount
from proofs.errors import PeerFault

VERDICTS_WRONG = bytes(32)


def challenge_is_half_over(state: RoundState, head: int) -> bool:
    """From here on an accepted bundle that cannot be had is an objection."""
    return head + 1 > state.deadline_block - state.policy.challenge_blocks // 2


def check_proposal(
    recount: Recount, *, patient: bool, verdict: Callable[[Recount, int], Verdict] = Recount.verdict
) -> Checked | None:
    """What to object with, if anything; None: ask again later (only while `patient`). `verdict` re-runs one.

    Raises WireFault or LocalFault when config, global bundle or store cannot be read.
    """
    state = recount.state
    findings = [(seat.member, state.reasons[seat.member], verdict(recount, seat.member)) for seat in state.seats]
    for member, posted, found in findings:
        if posted != found.reason and Reason.UNAVAILABLE not in (posted, found.reason):
            why = f"member {member}: posted {_name(posted)}, the rules say {found.reason.name} ({found.detail})"
            return Checked(VERDICTS_WRONG, why)
    gone = [m for m, posted, found in findings if posted == 0 and found.reason is Reason.UNAVAILABLE]
    if gone:
        return None if patient else Checked(VERDICTS_WRONG, f"accepted bundles of members {gone} cannot be had")
    return _check_average(recount)


def _check_average(recount: Recount) -> Checked:
    proposal = recount.state.proposal
    proposed = proposal.aggregate_bundle if proposal else b""
    try:
        bundle = recount.aggregate()
    except NoAggregate as error:
        return Checked(VERDICTS_WRONG, f"there is no aggregate of these members: {error}")
    expected = digest_of(bundle)
    if expected == proposed:
        recount.store.put_directory(bundle.files())
        return Checked(None, "every verdict and the aggregate, recomputed to the byte")
    return Checked(expected, f"proposed {proposed.hex()}, expected {expected.hex()}: {_difference(recount, bundle)}")


def digest_of(bundle: AggregateBundle) -> bytes:
    """The name that the bundle has in any content store."""
    root, _ = directory_blocks(bundle.files())
    return root.cid.digest


def _difference(recount: Recount, expected: AggregateBundle) -> str:
    """In words, the first weight that differs."""
    proposal = recount.state.proposal
    try:
        digest = proposal.aggregate_bundle if proposal else b""
        files = recount.store.get_directory(digest, bundle_limits(expected.config))
        found = read_weights(files, expected.config)
    except ContentMissing:
        return "what was proposed is not to be had"
    except PeerFault as error:
        return f"what was proposed breaks a rule: {error}"
    for name in sorted(expected.weights):
        wrong: Sequence[int] = np.flatnonzero(expected.weights[name] != found[name]).tolist()
        if wrong:
            values = int(expected.weights[name].flat[wrong[0]]), int(found[name].flat[wrong[0]])
            return f"{name}[{wrong[0]}] should be {values[0]} units and is {values[1]} ({len(wrong)} differ)"
    return "the weights agree, the files around them do not"


def _name(code: int) -> str:
    return Reason(code).name if code in Reason.__members__.values() else str(code)
