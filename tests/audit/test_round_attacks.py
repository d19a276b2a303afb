"""A coordinator in bad faith, and the one member that goes along: what they cannot do to everybody else's rounds."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest

from ledger.actions import Open
from ledger.audit import audit, why
from ledger.config import MAX_CONFIG_BYTES
from ledger.records import Policy, Reason
from ledger.report import Name, Status
from node.recompute import Configs, Recount

ALONE = Policy(40, 40, 0, 20, 20, 3, 1, False, 1)


def round_under_no_config(made: Any, config: bytes) -> None:
    """Nobody can say what a round under such a config means; one member takes part all the same."""
    digest = made.store.put_raw(config)
    made.send(made.coordinator, Open(digest, made.genesis, made.config.policy))
    made.configs[1] = made.config
    made.commit([0])
    made.advance()
    made.submit(0, sha256(b"nothing there").digest(), 1)
    made.advance()
    made.post({0: Reason.UNAVAILABLE, 1: Reason.NOT_COMMITTED, 2: Reason.NOT_COMMITTED})
    assert made.state.ended


@pytest.mark.parametrize(
    "config", [b"{}", b"\x00", b"[" * MAX_CONFIG_BYTES], ids=["no fields", "no JSON", "nested beyond the stack"]
)
def test_a_round_under_no_config_costs_its_member_everything_and_the_others_nothing(
    found_federation: Any, config: bytes
) -> None:
    """Later rounds need the ε of earlier ones; what nobody can compute is without bound, for that member alone."""
    made = found_federation(3, policy=ALONE)
    round_under_no_config(made, config)
    made.play(verdicts=lambda honest: honest | {0: Reason.EPSILON_UNDERSTATED})
    report = audit(made.chain, made.store, rounds={2})
    assert report.find(Name.VERDICTS, 2).status is Status.PASS
    assert report.find(Name.AGGREGATE, 2).status is Status.PASS
    found = why(made.chain, made.store, round_number=2, member=0).finding
    assert (found.found.reason, found.agrees) == (Reason.EPSILON_UNDERSTATED, True)
    recount = Recount(Configs(made.store), made.store, made.history(), made.state)
    assert [recount.verdict(member).reason for member in range(3)] == [
        Reason.EPSILON_UNDERSTATED,
        Reason.ACCEPTED,
        Reason.ACCEPTED,
    ]
