"""Re-running a round from chain and content: config, global weights, every verdict, the aggregate.

Members and aggregators do the same here, and so does the audit (ledger.audit): who gets something else than the others
has been lied to, or lies. Bundles are fetched within the limits that the config gives, verified, read strictly.

A WireFault means that some content could not be had now, a PeerFault that it breaks a rule, whoever carries it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from ledger.aggregate import aggregate_bundle
from ledger.aggregation import part_of, start_of
from ledger.audit_open import Contents
from ledger.bundle import AggregateBundle, Claim, bundle_limits, read_submission
from ledger.canonical import FieldInvalid, NotCanonical
from ledger.config import MAX_CONFIG_BYTES, Config
from ledger.content import ContentInvalid, ContentStore
from ledger.gradients import GradientVerifier
from ledger.history import History
from ledger.parents import read_start
from ledger.privacy import UNBOUNDED, Spend, spend_of
from ledger.records import Reason
from ledger.round_state import RoundState, known_reason
from ledger.tensors import Weights
from ledger.verdict import Shown, SubmissionFacts, Verdict, fetch_shown, fetch_submission, judge

CONFIGS_KEPT = 64
Evidence = tuple[SubmissionFacts, dict[str, bytes], Shown | None]


class Configs:
    """The configs of rounds, by digest; each is fetched once."""

    def __init__(self, store: Contents) -> None:
        self._store = store
        self._known: dict[bytes, Config] = {}

    def of(self, state: RoundState) -> Config:
        """Raises ContentMissing, or PeerFault for bytes that are no config."""
        digest = state.opened.config_digest
        if digest not in self._known:
            if len(self._known) >= CONFIGS_KEPT:
                self._known.clear()
            self._known[digest] = Config.decode(self._store.get_raw(digest, MAX_CONFIG_BYTES))
        return self._known[digest]

    def spend(self, state: RoundState) -> Spend:
        """What submitting to a round cost: without bound under bytes that are no config. Raises ContentMissing."""
        try:
            return spend_of(self.of(state))
        except (NotCanonical, FieldInvalid, ContentInvalid):
            return UNBOUNDED


@dataclass(frozen=True)
class Recount:
    """One round, as whoever holds this store can re-run it. gradients: None without a base to verify them on."""

    configs: Configs
    store: ContentStore
    history: History
    state: RoundState
    gradients: GradientVerifier | None = None

    @property
    def config(self) -> Config:
        return self.configs.of(self.state)

    def part_of(self, member: int) -> Config:
        """The config as this member has it: its rank."""
        return part_of(self.config, member)

    def start_of(self, member: int) -> Weights:
        """Where this member starts. Raises as `global_weights` does."""
        return start_of(self.part_of(member), self.global_weights())

    def global_weights(self) -> Weights:
        """Weights in grid units that the round starts from. Raises ContentMissing, ContentInvalid or Rejected."""
        return read_start(self.store, self.state.opened.global_bundle, self.config)

    def spends(self, member: int) -> tuple[Spend, ...]:
        """What the member's submissions of earlier rounds used, void rounds too."""
        earlier = (self.history.rounds[number] for number in range(1, self.state.number))
        return tuple(self.configs.spend(state) for state in earlier if member in state.submissions)

    def claim(self, member: int) -> Claim:
        """What the chain says of a submission, and its manifest must repeat."""
        committed = self.state.commitments[member]
        return self.claim_with(
            member, committed.dataset_root, committed.words_root, self.state.submissions[member].spent_micro
        )

    def claim_with(self, member: int, dataset_root: bytes, words_root: bytes, spent_micro: int) -> Claim:
        return Claim(
            chain_id=self.state.domain.chain_id,
            contract=self.state.domain.contract,
            round=self.state.number,
            member=member,
            global_bundle=self.state.opened.global_bundle,
            dataset_root=dataset_root,
            words_root=words_root,
            spent_micro=spent_micro,
        )

    def facts_digest(self, member: int) -> bytes:
        """All that a verdict depends on besides the law: if this is the same, so is the verdict."""
        claim, opened, proved = self.claim(member), self.state.opened, self.state.proofs.get(member)
        parts = [
            opened.config_digest,
            opened.global_bundle,
            self.state.submissions[member].bundle,
            claim.dataset_root,
            claim.words_root,
            claim.spent_micro.to_bytes(8),
            self.state.train_beacon or b"",
            self.state.prove_beacon or b"",
            proved.proof if proved else b"",
        ]
        return sha256(b"candor/facts/3\0" + b"".join(parts)).digest()

    def verdict(self, member: int) -> Verdict:
        """Raises WireFault or LocalFault when the store could not even say that the bundle is missing, and
        GradientsUnjudged."""
        found = self.evidence(member)
        return found if isinstance(found, Verdict) else judge(*found)

    def evidence(self, member: int) -> Verdict | Evidence:
        """All that a judge needs, fetched; or the verdict, where it stands already. Raises as `verdict` does."""
        known = known_reason(self.state, member)
        if known is not Reason.ACCEPTED:
            return Verdict(known, "the chain itself shows it")
        facts = self.facts(member)
        files = fetch_submission(facts.config, facts.bundle, self.store)
        return files if isinstance(files, Verdict) else (facts, files, self._shown(facts))

    def facts(self, member: int) -> SubmissionFacts:
        """Raises as `global_weights` does."""
        return SubmissionFacts(
            claim=self.claim(member),
            config=self.part_of(member),
            global_weights=self.start_of(member),
            history=self.spends(member),
            beacon=self.state.train_beacon or b"",
            bundle=self.state.submissions[member].bundle,
            prove_beacon=self.state.prove_beacon or b"",
        )

    def _shown(self, facts: SubmissionFacts) -> Shown | None:
        """What the member published in Prove; None where nothing is asked for, or there is nobody to verify it."""
        proved = self.state.proofs.get(facts.claim.member)
        if self.config.gradient is None or self.gradients is None or proved is None:
            return None
        return fetch_shown(facts.config, facts.global_weights, proved.proof, self.store, self.gradients)

    def aggregate(self) -> AggregateBundle:
        """The bundle that the accepted lead to. Raises ContentMissing, ContentInvalid, Rejected or NoAggregate (naming
        a rule)."""
        given: Mapping[int, tuple[bytes, Weights]] = {member: self._weights(member) for member in self.state.accepted}
        return aggregate_bundle(
            self.config,
            chain_id=self.state.domain.chain_id,
            contract=self.state.domain.contract,
            round=self.state.number,
            global_bundle=self.state.opened.global_bundle,
            start=self.global_weights(),
            submissions=given,
        )

    def _weights(self, member: int) -> tuple[bytes, Weights]:
        digest, config = self.state.submissions[member].bundle, self.part_of(member)
        files = self.store.get_directory(digest, bundle_limits(config))
        return digest, read_submission(files, config, self.claim(member)).weights


def round_key(state: RoundState) -> str:
    """Names a round in every file of a state folder: chain, contract, number."""
    return f"{state.domain.chain_id}/{state.domain.contract.hex()}/{state.number}"
