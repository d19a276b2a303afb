"""Hostile content, as a coordinator or a member might publish it: a status and a cause, never a traceback."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from fractions import Fraction
from hashlib import sha256
from typing import Any

import pytest

from ledger import canonical
from ledger.audit import audit
from ledger.bundle import ADAPTER, ADAPTER_CONFIG, CONFIG, MANIFEST, TRAJECTORY
from ledger.config import AggregationSpec, Config, PrivacySpec, TensorSpec
from ledger.privacy import INFINITE_MICRO
from ledger.records import Reason
from ledger.report import Report, Status

TIMES = 10 if os.environ.get("CANDOR_LONG") == "1" else 1
TINY, HUGE = Fraction(1, 2**53 - 1), Fraction(2**53 - 1)


def told(report: Report) -> dict[str, Status]:
    return {link.name.value: link.status for link in report.links}


def privacy(**changes: Any) -> PrivacySpec:
    return replace(PrivacySpec(Fraction(1, 10_000), 64, Fraction(1), Fraction(1, 2), 128, 1 << 29, 64), **changes)


CONFIGS: dict[str, dict[str, Any]] = {
    "almost no delta": {"privacy": privacy(delta=TINY)},
    "almost all of delta": {"privacy": privacy(delta=1 - Fraction(1, 2**53 - 1))},
    "hardly any noise": {"privacy": privacy(noise_units=1, clip_units=1 << 20)},
    "as much noise as there is": {"privacy": privacy(noise_units=3500, clip_units=1)},
    "every row in every step": {"privacy": privacy(sample_threshold=1 << 32), "steps": 40},
    "hardly ever a row": {"privacy": privacy(sample_threshold=1)},
    "a clip beyond all numbers": {"privacy": privacy(clip_adapter=HUGE, clip_head=TINY)},
}


@pytest.mark.parametrize("changes", CONFIGS.values(), ids=list(CONFIGS))
def test_a_config_at_the_edge_of_what_is_allowed_is_audited(found_federation: Any, changes: dict[str, Any]) -> None:
    federation = found_federation(2, **changes)
    federation.cost = lambda member: federation.state.seat(member).cap_micro  # whatever it costs
    federation.play(verdicts=lambda honest: dict.fromkeys(honest, int(Reason.ACCEPTED)))
    report = audit(federation.chain, federation.store)
    assert report.status in (Status.PASS, Status.FAIL)
    assert {told(report)[name] for name in ("history", "config", "aggregate")} == {Status.PASS}


def test_optimizers_at_the_edge_of_what_is_allowed_are_replayed(found_federation: Any) -> None:
    honest = found_federation(2).config.optimizer
    extremes = [HUGE, TINY, Fraction(0)]
    rng = random.Random(3)
    for name in ("sgd", "adamw"):
        for _ in range(3 * TIMES):
            optimizer = replace(
                honest,
                name=name,
                learning_rate=rng.choice(extremes),
                learning_rate_head=rng.choice(extremes),
                momentum=rng.choice([Fraction(0), TINY, 1 - TINY]),
                beta2=Fraction(0) if name == "sgd" else rng.choice([Fraction(0), TINY, 1 - TINY]),
                epsilon=Fraction(0) if name == "sgd" else rng.choice([HUGE, TINY]),
                weight_decay=rng.choice(extremes),
            )
            federation = found_federation(2, optimizer=optimizer)
            federation.play()
            assert told(audit(federation.chain, federation.store))["aggregate"] is Status.PASS


def test_a_config_of_another_shape_than_its_global_bundle_fails_the_opening(found_federation: Any) -> None:
    federation = found_federation(2)
    tensors = (*federation.config.adapter.tensors[:2], TensorSpec("layer.lora_B.weight", (1 << 20, 4), "adapter"))
    federation.config = replace(federation.config, adapter=replace(federation.config.adapter, tensors=tensors))
    federation.open()
    assert told(audit(federation.chain, federation.store))["opening"] is Status.FAIL


def test_weights_of_members_that_do_not_exist_harm_nobody(found_federation: Any) -> None:
    federation = found_federation(2, aggregation=AggregationSpec("ffa", ((0, 65536), (200, 7))))
    federation.play()
    assert told(audit(federation.chain, federation.store))["aggregate"] is Status.PASS


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A byte changed, a piece removed, doubled or replaced."""
    at, size = rng.randrange(len(data)), rng.randrange(1, 40)
    piece = rng.choice([b"", data[at : at + size] * 2, rng.randbytes(size), bytes([data[at] ^ 1])])
    return data[:at] + piece + data[at + (1 if len(piece) == 1 else size) :]


def test_mutated_bundles_are_judged_and_never_crash_the_audit(found_federation: Any) -> None:
    """Let in by a lying aggregator, so that every path of the audit meets them."""
    rng = random.Random(11)
    files = (ADAPTER, ADAPTER_CONFIG, CONFIG, MANIFEST, TRAJECTORY)
    for path in files * (2 * TIMES):
        federation = found_federation(2)
        federation.open()
        federation.commit([0, 1])
        federation.advance()
        for member in (0, 1):
            bundle = federation.honest(member).files()
            if member:
                bundle[path] = mutated(bundle[path], rng)
            federation.submit(member, federation.store.put_directory(bundle), federation.cost(member))
        federation.advance()
        federation.post({0: 0, 1: 0})
        federation.propose(sha256(b"anything").digest())
        federation.advance()
        assert told(audit(federation.chain, federation.store))["verdicts"] is Status.FAIL


def test_mutated_configs_are_refused_or_read_and_never_crash_the_audit(found_federation: Any) -> None:
    rng = random.Random(13)
    honest = found_federation(2).config.encode()
    for _ in range(30 * TIMES):
        data = mutated(honest, rng)
        federation = found_federation(2)
        digest = sha256(data).digest()
        federation.store.blocks[digest] = data
        federation.store.put_raw = lambda _, digest=digest: digest
        federation.open()
        report = audit(federation.chain, federation.store)
        assert told(report)["history"] is Status.PASS
        assert report.status is (Status.PASS if _reads(data) == honest else Status.FAIL) or _reads(data)


def _reads(data: bytes) -> bytes | None:
    try:
        return Config.decode(data).encode()
    except (canonical.NotCanonical, canonical.FieldInvalid):
        return None


def test_without_noise_a_finite_declaration_is_understated(found_federation: Any) -> None:
    federation = found_federation(2, privacy=privacy(noise_units=0, insecure_no_noise=True))
    federation.play({1: "EPSILON_UNDERSTATED"}, verdicts=lambda honest: honest | {1: int(Reason.ACCEPTED)})
    report = audit(federation.chain, federation.store)
    assert told(report)["privacy"] is Status.FAIL
    assert federation.state.submissions[0].spent_micro == INFINITE_MICRO
