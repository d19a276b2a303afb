"""The links of one round that need content: config, opening, privacy, verdicts, aggregate. Everything is re-run here.

Bundles are fetched, judged and let go one by one; what is kept of an accepted one are its weights, for the average.
Content that nobody has makes a link NOT PROVEN, content that breaks a rule makes it FAIL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar

from ledger.aggregation import WrongHalf, check_round, part_of, start_of
from ledger.audit_aggregate import compared, not_rebuilt, rebuilt
from ledger.audit_findings import Finding, agreement, verdicts_of
from ledger.audit_gradient import GradientAudit
from ledger.audit_library import Library, Unsettled
from ledger.audit_quorum import dissent_text, dissents, quorum_data, quorum_text
from ledger.bundle import (
    Claim,
    Rejected,
    SubmissionBundle,
    bundle_limits,
    read_submission,
)
from ledger.canonical import format_fraction
from ledger.config import Config
from ledger.content.errors import ContentInvalid, ContentMissing
from ledger.gradients import GradientVerifier
from ledger.history import History
from ledger.mechanism import coverage
from ledger.opening import RuleBroken
from ledger.parents import read_start, starts_at_zero
from ledger.privacy import EPSILON_TOLERANCE_MICRO, Spend, epsilon_micro, spend_of
from ledger.quorum import check_signed
from ledger.records import Reason
from ledger.report import (
    MECHANISM_NOT_PROVEN,
    Link,
    Name,
    failed,
    missing,
    not_proven,
    passed,
    show_epsilon,
)
from ledger.round_state import RoundState, known_reason
from ledger.tensors import Weights
from ledger.verdict import (
    SubmissionFacts,
    Verdict,
    accepted,
    check_proof,
    judge_but_gradients,
)
from proofs.errors import PeerFault
from proofs.parameters import parameters

T = TypeVar("T")


class RoundAudit:
    """One round under audit."""

    def __init__(
        self, library: Library, history: History, state: RoundState, gradients: GradientVerifier | None = None
    ) -> None:
        self.library, self.history, self.state = library, history, state
        self._gradients = GradientAudit(state, library.contents, gradients)
        self._weights: dict[int, Weights | Unsettled] = {}
        self._findings: dict[int, Finding] = {}
        self._unproven: dict[int, str] = {}  # of the accepted: why the proof does not hold, "" where it does

    @property
    def config(self) -> Config:
        """Raises Unsettled."""
        return _settled(self._config)

    @property
    def global_weights(self) -> Weights:
        """Raises Unsettled."""
        return _settled(self._global_weights)

    @cached_property
    def _config(self) -> Config | Unsettled:
        try:
            return self.library.config(self.state.opened.config_digest)
        except Unsettled as unsettled:
            return unsettled

    @cached_property
    def _global_weights(self) -> Weights | Unsettled:
        digest = self.state.opened.global_bundle
        try:
            return read_start(self.library.contents, digest, self.config)
        except Unsettled as unsettled:
            return unsettled
        except ContentMissing as error:
            return Unsettled(f"the global bundle: {error}", peer=False)
        except PeerFault as error:
            return Unsettled(f"the global bundle {digest.hex()}: {error}", peer=True)

    # ---- config and opening

    def config_link(self) -> Link:
        digest, policy = self.state.opened.config_digest.hex(), self.state.policy
        try:
            config = self.config
        except Unsettled as unsettled:
            return unsettled.link(Name.CONFIG)
        if config.policy != policy:
            return failed(
                Name.CONFIG, f"the config's policy is {config.policy}, on chain it is {policy}", digest=digest
            )
        try:
            check_round(config, self.state.number)
        except WrongHalf as error:
            return failed(Name.CONFIG, str(error), digest=digest)
        shape = f"{config.steps} steps over {config.adapter.parameters} trained weights, rule {config.aggregation}"
        return passed(Name.CONFIG, f"config {digest} decodes, its policy is the one on chain: {shape}", digest=digest)

    def opening_link(self) -> Link:
        """That the law allows this global bundle, the replay has checked; here: what it is, and that it can be read."""
        opened = self.state.opened
        data = {"global_bundle": opened.global_bundle.hex()}
        try:
            base = self.config.base_digest
            first = self.library.facts(self.history.rounds[1].opened.config_digest).base_digest
            self.global_weights  # noqa: B018 - raises when it cannot be read
        except Unsettled as unsettled:
            return unsettled.link(Name.OPENING)
        if base != first:
            return failed(Name.OPENING, f"the base model was {first.hex()} in round 1, now it is {base.hex()}", **data)
        source = self._lineage()
        text = f"starts from {source}, on the same frozen base {base.hex()} as round 1"
        return passed(Name.OPENING, text, source=source, base_digest=base.hex(), **data)

    def _lineage(self) -> str:
        zero = "gates of zero over " if starts_at_zero(self.config, self.state.opened.global_bundle) else ""
        for number in range(self.state.number - 1, 0, -1):
            if self.history.rounds[number].finalised is not None:
                return f"{zero}the final aggregate of round {number}"
        return "the genesis of the first opening"

    # ---- privacy

    def spends(self, member: int) -> tuple[Spend, ...]:
        """What the member's submissions of earlier rounds used, void ones too. Raises Unsettled."""
        earlier = (self.history.rounds[number] for number in range(1, self.state.number))
        return tuple(self.library.spend(state.opened.config_digest) for state in earlier if member in state.submissions)

    def privacy_link(self) -> Link:
        """ε of every member that submitted, from the configs alone. Those left out are named, not held against it."""
        try:
            rows = [self._epsilon_row(member) for member in sorted(self.state.submissions)]
        except Unsettled as unsettled:
            return unsettled.link(Name.PRIVACY)
        short = [row["member"] for row in rows if row["short"]]
        accepted = [member for member in short if member in self.state.accepted]
        if accepted:
            row = next(row for row in rows if row["member"] == accepted[0])
            text = (
                f"member {row['member']} declared ε {row['declared']} and was accepted; its history costs {row['cost']}"
            )
            return failed(Name.PRIVACY, text, members=rows)
        told = ", ".join(f"member {row['member']} {row['declared']} of {row['cap']}" for row in rows)
        if not rows:
            return passed(Name.PRIVACY, "nobody submitted", members=rows)
        delta = format_fraction(self.config.privacy.delta)
        text = f"ε declared covers the history of configs at δ = {delta} and is within the cap: {told}"
        if short:
            text += f"; members {short} declared too little, and were not accepted"
        return passed(Name.PRIVACY, text, members=rows, delta=delta)

    def _epsilon_row(self, member: int) -> dict[str, Any]:
        declared = self.state.submissions[member].spent_micro
        seat = self.state.seat(member)
        cap = seat.cap_micro if seat else 0
        cost = epsilon_micro([*self.spends(member), spend_of(self.config)], self.config.privacy.delta)
        return {
            "member": member,
            "declared": show_epsilon(declared),
            "cost": show_epsilon(cost),
            "cap": show_epsilon(cap),
            "declared_micro": declared,
            "cost_micro": cost,
            "cap_micro": cap,
            "short": declared + EPSILON_TOLERANCE_MICRO < cost,
        }

    # ---- the mechanism

    def mechanism_link(self) -> Link:
        """Is every accepted member's proof valid, whatever else may be wrong with the member?"""
        try:
            if not self.config.proven:
                return not_proven(Name.MECHANISM, MECHANISM_NOT_PROVEN)
            findings = [self.finding(member) for member in self.state.accepted]
        except Unsettled as unsettled:
            return unsettled.link(Name.MECHANISM)
        sizes = parameters(self.config.shape)
        data = {"members": list(self.state.accepted), "steps": self.config.steps, "bits": round(sizes.bits, 2)}
        if not findings:
            return passed(Name.MECHANISM, "nobody was accepted, so nothing had to be proven", **data)
        absent = [f.member for f in findings if f.found.reason is Reason.UNAVAILABLE]
        gone = [member for member in absent if member not in self._unproven]
        heard = [f.member for f in findings if f.member not in gone]
        wrong = [(member, why) for member in heard if (why := self._unproven.get(member, "it was never judged"))]
        if wrong:
            text = f"member {wrong[0][0]} was accepted, and its proof does not hold: {wrong[0][1]}"
            return failed(Name.MECHANISM, text, **data)
        if gone:
            return missing(Name.MECHANISM, f"the proof of member {gone[0]} is not to be had", **data)
        told = f"members {list(self.state.accepted)}: {coverage(self.config)}"
        own = [(member, part_of(self.config, member).adapter.parameters) for member in self.state.accepted]
        fewer = ", ".join(f"member {m} has {n}" for m, n in own if n != self.config.adapter.parameters)
        return passed(Name.MECHANISM, f"{told}; {fewer}" if fewer else told, **data)

    def gradient_link(self) -> Link:
        try:
            for member in self.state.accepted if self.config.gradient else ():
                self.finding(member)
            return self._gradients.link(self.config, self.state.accepted)
        except Unsettled as unsettled:
            return unsettled.link(Name.GRADIENT)

    # ---- verdicts

    def finding(self, member: int) -> Finding:
        """Re-run one member's verdict, once. Raises Unsettled when config, global bundle or history cannot be read."""
        if member not in self._findings:
            self._findings[member] = self._find(member)
        return self._findings[member]

    def _find(self, member: int) -> Finding:
        posted = self.state.reasons.get(member)
        known = known_reason(self.state, member)
        if known is not Reason.ACCEPTED:
            return Finding(member, posted, Verdict(known, "the chain itself shows it"), agreement(posted, known))
        found = self._judge(member)
        unjudged = self._gradients.unjudged(member) if found.accepted else ""
        return Finding(member, posted, found, agreement(posted, found.reason, unjudged), unjudged)

    def _judge(self, member: int) -> Verdict:
        state, spends = self.state, self.spends(member)
        config = part_of(self.config, member)
        facts = SubmissionFacts(
            claim=self._claim(member),
            config=config,
            global_weights=start_of(config, self.global_weights),
            history=spends,
            beacon=state.train_beacon or b"",
            bundle=state.submissions[member].bundle,
            prove_beacon=state.prove_beacon or b"",
        )
        try:
            files = self.library.contents.get_directory(facts.bundle, bundle_limits(config))
        except ContentMissing as error:
            self._weights[member] = Unsettled(f"member {member}: {error}", peer=False)
            self._gradients.reject(member, Rejected(Reason.UNAVAILABLE, str(error)))
            return Verdict(Reason.UNAVAILABLE, str(error))
        except ContentInvalid as error:
            detail = f"{type(error).__name__}: {error}"
            self._weights[member] = Unsettled(f"member {member} is in the average with no bundle: {detail}", peer=True)
            self._unproven[member] = detail
            self._gradients.reject(member, Rejected(Reason.BUNDLE_MALFORMED, detail))
            return Verdict(Reason.BUNDLE_MALFORMED, detail)
        found = judge_but_gradients(facts, files)
        if member in self.state.accepted:
            self._keep(facts, files, found)
        if isinstance(found, Verdict):
            return found
        gradients = self._gradients.outcome(facts, found)
        if isinstance(gradients, Rejected):
            return Verdict(gradients.reason, gradients.detail)
        return accepted(found, gradients if isinstance(gradients, str) else f"NOT PROVEN: {gradients.cause}")

    def _keep(self, facts: SubmissionFacts, files: Mapping[str, bytes], found: SubmissionBundle | Verdict) -> None:
        """An accepted member's weights, and whether its proofs hold: a verdict that ends sooner has not looked."""
        member = facts.claim.member
        try:
            submission = read_submission(files, facts.config, facts.claim)
        except Rejected as error:
            self._weights[member] = Unsettled(f"member {member} is in the average with no weights: {error}", peer=True)
            self._unproven[member] = str(error)
            self._gradients.reject(member, error)
            return
        self._weights[member], self._unproven[member] = submission.weights, ""
        try:
            if isinstance(found, Verdict):
                check_proof(submission, facts.beacon)
                self._gradients.outcome(facts, submission)
        except Rejected as error:
            self._unproven[member] = error.detail
            self._gradients.reject(member, error)

    def _claim(self, member: int) -> Claim:
        state, commitment = self.state, self.state.commitments[member]
        return Claim(
            chain_id=state.domain.chain_id,
            contract=state.domain.contract,
            round=state.number,
            member=member,
            global_bundle=state.opened.global_bundle,
            dataset_root=commitment.dataset_root,
            words_root=commitment.words_root,
            spent_micro=state.submissions[member].spent_micro,
        )

    def verdicts_link(self) -> Link:
        if self.state.verdicts is None:
            return passed(Name.VERDICTS, "no verdicts were posted")
        data: dict[str, Any] = {"aggregator": "0x" + self.state.verdicts.aggregator.hex()} | quorum_data(self.state)
        try:
            check_signed(self.state)
            findings = [self.finding(seat.member) for seat in self.state.seats]
        except RuleBroken as error:
            return failed(Name.VERDICTS, str(error), **data)
        except Unsettled as unsettled:
            return missing(Name.VERDICTS, f"cannot be re-run: {unsettled.cause}", **data)
        told = dissents(self.state, {finding.member: finding.found for finding in findings})
        data |= {"members": [finding.to_json() for finding in findings], "dissents": told}
        link = verdicts_of(findings, data)
        evidence = [link.evidence, quorum_text(self.state), *map(dissent_text, told)]
        return replace(link, evidence="; ".join(evidence))

    # ---- aggregate

    def aggregate_link(self) -> Link:
        """Call after `verdicts_link`, which reads the bundles."""
        proposal = self.state.proposal
        if proposal is None:
            return passed(Name.AGGREGATE, "nothing was proposed, so there is no average")
        try:
            given = self._given()
            bundle = rebuilt(self.config, self.state, self.global_weights, given)
        except Unsettled as unsettled:
            return not_rebuilt(proposal, unsettled)
        return compared(proposal, self.config.aggregation, self.state.accepted, bundle, self.library.contents)

    def _given(self) -> dict[int, tuple[bytes, Weights]]:
        """Bundle and weights of everybody accepted. Raises Unsettled."""
        unread = Unsettled("its verdicts could not be re-run", peer=False)
        submissions = self.state.submissions
        return {
            member: (submissions[member].bundle, _settled(self._weights.get(member, unread)))
            for member in self.state.accepted
        }


def _settled(value: T | Unsettled) -> T:
    """What was read once is not asked for again, nor is what could not be read."""
    if isinstance(value, Unsettled):
        raise value
    return value
