"""What a true proof of statement F must not be made to vouch for, and a node that invents the model's round."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from ledger.inference_proof import AnswerMalformed
from ledger.log import proof_check
from ledger.log.kept import Kept
from ledger.log.proof_check import check_proof, scores_of
from ledger.log.receipt import issue
from ledger.records import Finalised
from ledger.report import Name, Status, passed

LABELS = ("repay", "watch", "default")
SCORES = {"repay": 0.7, "watch": 0.2, "default": 0.1}


def response(label: str, scores: dict[str, Any]) -> bytes:
    return json.dumps({"object": "classification", "data": [{"label": label, "scores": scores}]}).encode()


def test_a_label_beside_the_scores_of_another_is_refused() -> None:
    """The proof is of scores: the label that the user reads must be the one that they give."""
    assert scores_of(response("repay", SCORES), LABELS) == [0.7, 0.2, 0.1]
    for label in ("default", "watch", "", 7):
        with pytest.raises(AnswerMalformed, match="largest"):
            scores_of(response(label, SCORES), LABELS)  # type: ignore[arg-type]
    assert scores_of(response("repay", {"repay": 0.5, "watch": 0.5, "default": 0.0}), LABELS)[0] == 0.5
    for scores in ({}, {"repay": 1}, SCORES | {"more": 0.0}, SCORES | {"watch": "0.2"} | {"repay": 10**400}):
        with pytest.raises(AnswerMalformed):
            scores_of(response("repay", scores), LABELS)


@pytest.fixture(scope="module")
def federation(found_federation: Any) -> Any:
    made = found_federation(3)
    made.play()
    return made


@pytest.fixture(scope="module")
def house(federation: Any, new_house: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = new_house(
        tmp_path_factory.mktemp("log") / "log", federation, bundle=federation.state.finalised.aggregate_bundle
    )
    made.answers(1)
    made.anchor()
    return made


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof itself holds: what is in question here is all around it."""
    link = passed(Name.PROOF, "it holds")
    monkeypatch.setattr(proof_check, "_verified", lambda *_: (link,))


def statuses(chain: Any, federation: Any, kept: Kept) -> dict[Name, set[Status]]:
    found: dict[Name, set[Status]] = {}
    for link in check_proof(chain, federation.store, kept, b"", Path(".")).links:
        found.setdefault(link.name, set()).add(link.status)
    return found


def test_the_round_of_the_model_is_audited_and_not_believed(federation: Any, house: Any, verified: None) -> None:
    """A node that shows another bundle as the one that a round ended with."""
    false = b"\x0b" * 32
    assert statuses(federation.chain, federation, house.kept(0))[Name.HEADERS] == {Status.PASS}
    entry, _, record = house.draft(1, bundle=false)
    forged = Kept(issue(house.key.secret, entry, record), record.request, record.response)

    class Inventive:
        def __getattr__(self, name: str) -> Any:
            return getattr(federation.chain, name)

        def events(self, first: int, last: int) -> Any:
            told = federation.chain.events(first, last)
            return [
                replace(at, event=replace(at.event, aggregate_bundle=false)) if isinstance(at.event, Finalised) else at
                for at in told
            ]

    found = statuses(Inventive(), federation, forged)
    assert Status.FAIL in found[Name.MODEL] | found[Name.HISTORY] | found[Name.HEADERS]
    honest = statuses(federation.chain, federation, forged)
    assert (honest[Name.MODEL], honest[Name.PROOF]) == ({Status.FAIL}, {Status.NOT_PROVEN})


def test_an_answer_that_was_drawn_by_chance_is_not_proven_by_greedy_tokens(
    federation: Any, house: Any, verified: None
) -> None:
    entry, _, record = house.draft(1)
    warm = replace(record, decoding=replace(record.decoding, temperature=Fraction(1, 2)))
    entry = replace(entry, terms=warm.digests()["terms"])
    kept = Kept(issue(house.key.secret, entry, warm), warm.request, warm.response)
    found = statuses(federation.chain, federation, kept)
    assert (found[Name.TEXTS], found[Name.PROOF]) == ({Status.PASS}, {Status.NOT_PROVEN})
    assert statuses(federation.chain, federation, house.kept(0))[Name.PROOF] == {Status.PASS}
