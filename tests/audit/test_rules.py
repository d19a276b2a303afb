"""Rules of aggregation under audit: a half out of turn, an average by another rule, a robust one of too few."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.submissions import small_adapter
from ledger.actions import Open
from ledger.aggregate import average
from ledger.aggregation import AggregationSpec, RobustSpec, in_round
from ledger.audit import audit
from ledger.bundle import AggregateBundle, bundle_limits, read_submission
from ledger.report import Name, Report, Status


def failures(report: Report) -> dict[Name, str]:
    links = (link for of_round in report.rounds for link in of_round.links)
    return {link.name: link.evidence for link in links if link.status is Status.FAIL}


def test_a_half_out_of_turn_fails_though_all_agree_on_it(found_federation: Any) -> None:
    federation = found_federation(3, adapter=small_adapter("rolora"), aggregation=AggregationSpec("rolora"))
    federation.play()
    federation.play()
    assert failures(audit(federation.chain, federation.store)) == {
        Name.CONFIG: "config.adapter.tensors: under rolora every B is frozen in round 2"
    }
    alternating = found_federation(3, adapter=small_adapter("rolora"), aggregation=AggregationSpec("rolora"))
    alternating.play()
    alternating.config = in_round(alternating.config, 2)
    alternating.play()
    assert failures(audit(alternating.chain, alternating.store)) == {}


@pytest.mark.parametrize("claimed", ["svd", "fedavg"])
def test_an_average_by_another_rule_is_found(found_federation: Any, claimed: Any) -> None:
    """The coordinator announces one rule, and the aggregator averages by the other one."""
    used: Any = {"svd": "fedavg", "fedavg": "svd"}[claimed]
    federation = found_federation(3, adapter=small_adapter(claimed), aggregation=AggregationSpec(claimed))
    honest = federation.average

    def by_another(accepted: Any) -> Any:
        announced = federation.config
        bundle = honest(accepted)
        federation.config = replace(announced, aggregation=AggregationSpec(used))
        try:
            weights = average_of(federation, accepted, announced)
        finally:
            federation.config = announced
        return replace(bundle, weights=weights)

    federation.average = by_another
    federation.play()
    evidence = failures(audit(federation.chain, federation.store))
    assert set(evidence) == {Name.AGGREGATE}
    assert "weights of this tensor differ" in evidence[Name.AGGREGATE]


def average_of(federation: Any, accepted: Any, announced: Any) -> Any:
    given = {}
    for member in accepted:
        sent = federation.state.submissions[member]
        files = federation.store.get_directory(sent.bundle, bundle_limits(announced))
        given[member] = read_submission(files, announced, federation.claim(member, sent.spent_micro)).weights
    return average(federation.config, federation.global_weights(), given)


def test_a_robust_average_of_too_few_fails_where_the_chain_was_told_of_a_smaller_quorum(found_federation: Any) -> None:
    """All of them collude: the config asks for three, the contract for two, and two are averaged."""
    robust = AggregationSpec("ffa", robust=RobustSpec("median"))
    policy = replace(found_federation(3).config.policy, quorum=3)
    federation = found_federation(3, aggregation=robust, policy=policy)
    asked, lax = federation.config, replace(policy, quorum=2)

    def lenient() -> int:
        digest = federation.store.put_raw(asked.encode())
        federation.send(federation.coordinator, Open(digest, federation.genesis, lax))
        federation.configs[1] = asked
        return 1

    def plain(accepted: Any) -> Any:
        federation.config = replace(asked, aggregation=AggregationSpec("ffa"))
        try:
            weights = average_of(federation, accepted, asked)
        finally:
            federation.config = asked
        included = tuple((m, federation.state.submissions[m].bundle, 1) for m in accepted)
        return AggregateBundle(asked, 31337, bytes(20), 1, federation.genesis, included, weights)

    federation.open, federation.average = lenient, plain
    federation.play({2: "NOT_SUBMITTED"})
    evidence = failures(audit(federation.chain, federation.store))
    assert set(evidence) == {Name.CONFIG, Name.AGGREGATE}
    assert "3 members are needed, 2 were accepted" in evidence[Name.AGGREGATE]
