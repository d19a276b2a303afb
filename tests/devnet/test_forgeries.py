"""Every forgery of devnet changes one thing, and is refused for that thing: the reason that its table promises."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from devnet.forgeries import FORGERIES, PICKLE, nowhere
from devnet.hostile_directories import HOSTILE_DIRECTORIES
from devnet.kinds import KINDS, KindUnknown, kind_named
from ledger.content import MemoryStore
from ledger.records import Reason
from ledger.verdict import judge, judge_stored


def test_the_honest_submission_is_accepted(case: Any) -> None:
    assert judge(case.facts, case.honest.files).reason is Reason.ACCEPTED


@pytest.mark.parametrize("kind", FORGERIES)
def test_a_forgery_is_refused_for_what_it_is(kind: str, case: Any) -> None:
    verdict = judge(case.facts, FORGERIES[kind](case.honest))
    assert verdict.reason is KINDS[kind].reason, verdict.detail


PROVEN = [name for name, kind in KINDS.items() if kind.reason is Reason.PROOF_INVALID]


@pytest.mark.parametrize("kind", PROVEN)
def test_only_the_proof_catches_it(kind: str, case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other rule is kept: where proofs are believed unread, it is accepted."""
    monkeypatch.setattr("ledger.verdict.check_proof", lambda *_: None)
    verdict = judge(case.facts, FORGERIES[kind](case.honest))
    assert verdict.reason is Reason.ACCEPTED, verdict.detail


@pytest.mark.parametrize("kind", [*PROVEN, "no-proof"])
def test_where_no_proof_is_asked_for_there_is_none_to_forge(kind: str, case: Any) -> None:
    """Without one, sizes alone can tell, and they tell only that noise is missing."""
    config = replace(case.facts.config, proof_policy="none")
    bundle = replace(case.honest.bundle, config=config, proof=b"")
    honest, facts = replace(case.honest, bundle=bundle), replace(case.facts, config=config)
    reason = judge(facts, FORGERIES[kind](honest)).reason
    assert reason is (Reason.NOISE_IMPLAUSIBLE if kind in ("no-noise", "half-noise") else Reason.ACCEPTED)


@pytest.mark.parametrize("kind", HOSTILE_DIRECTORIES)
def test_a_hostile_directory_is_refused_before_its_bytes_are_used(kind: str, case: Any) -> None:
    store = MemoryStore()
    digest = HOSTILE_DIRECTORIES[kind](case.honest, store)
    assert judge_stored(case.facts, digest, store).reason is KINDS[kind].reason


def test_a_digest_with_nothing_behind_it_is_unavailable(case: Any) -> None:
    assert judge_stored(case.facts, nowhere(case.honest), MemoryStore()).reason is Reason.UNAVAILABLE


def test_the_pickle_would_have_run_a_program() -> None:
    """Its bytes are written by hand; the disassembler, which executes nothing, says what they would do."""
    import pickletools

    shown = [opcode.name for opcode, _, _ in pickletools.genops(PICKLE)]
    assert shown == ["PROTO", "GLOBAL", "SHORT_BINUNICODE", "TUPLE1", "REDUCE", "STOP"]


@pytest.mark.parametrize("text", ["", "nonsense", "nan@", "nan@two", "@1"])
def test_an_unknown_kind_is_refused(text: str) -> None:
    with pytest.raises(KindUnknown):
        kind_named(text)


def test_a_kind_may_be_kept_for_one_round() -> None:
    assert kind_named("nan@3") == (KINDS["nan"], 3)
    assert kind_named("nan") == (KINDS["nan"], None)
