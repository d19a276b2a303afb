"""Records mirror the contract: the same numbers, the same fields in the same order, said twice and compared."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from ledger import records
from ledger.canonical import FieldInvalid
from ledger.records import Phase, Policy, Reason, VoidReason

SOURCES = Path(__file__).parents[2] / "contracts" / "src"
IROUNDS = (SOURCES / "interfaces" / "IRounds.sol").read_text()
EVENTS = [
    records.RoundOpened,
    records.Committed,
    records.Sealed,
    records.Submitted,
    records.Equivocation,
    records.Proved,
    records.VerdictsPosted,
    records.Dissented,
    records.AggregateProposed,
    records.Objected,
    records.Finalised,
    records.Voided,
]
POLICY = Policy(1, 2, 3, 4, 5, 6, quorum=2, proof_required=True, verifier_quorum=2)


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def solidity_enum(name: str) -> list[str]:
    body = re.search(rf"enum {name} \{{(.*?)\}}", IROUNDS, re.S)
    assert body
    without_comments = re.sub(r"//.*", "", body[1])
    return [snake(item.strip()).upper() for item in without_comments.split(",") if item.strip()]


def declared(kind: str, name: str, text: str = IROUNDS) -> list[str]:
    body = re.search(rf"{kind} {name}\s*[({{](.*?)[)}}]", text, re.S)
    assert body, name
    return [snake(item.split()[-1]) for item in re.split(r"[,;]", body[1]) if item.strip()]


@pytest.mark.parametrize(("ours", "theirs"), [(Phase, "Phase"), (VoidReason, "VoidReason")])
def test_phases_and_reasons_for_void_are_numbered_as_in_the_contract(ours: type, theirs: str) -> None:
    assert [item.name for item in ours] == solidity_enum(theirs)
    assert [int(item) for item in ours] == list(range(len(ours)))


@pytest.mark.parametrize("event", EVENTS)
def test_an_events_fields_are_those_of_the_contract_in_order(event: type) -> None:
    assert [field.name for field in fields(event)] == declared("event", event.__name__)


def test_every_event_of_the_contract_has_its_record() -> None:
    assert {event.__name__ for event in EVENTS} == set(re.findall(r"^    event (\w+)", IROUNDS, re.M))


def test_policy_and_seat_are_those_of_the_contract() -> None:
    federation = (SOURCES / "interfaces" / "IFederation.sol").read_text()
    assert [field.name for field in fields(Policy)] == declared("struct", "Policy")
    assert [field.name for field in fields(records.Signed)] == declared("struct", "Signed")
    assert [field.name for field in fields(records.Seat)] == declared("struct", "Seat", federation)


def test_the_chains_own_reasons_are_below_sixteen() -> None:
    library = (SOURCES / "libraries" / "Reasons.sol").read_text()
    constants = {name: int(value) for name, value in re.findall(r"constant (\w+) = (\d+);", library)}
    first = constants.pop("FIRST_OFF_CHAIN")
    for name, value in constants.items():
        assert Reason[name] == value
    assert {r for r in Reason if r.on_chain} == {r for r in Reason if 0 < r < first}


def test_reasons_keep_their_numbers_for_ever() -> None:
    assert [int(reason) for reason in Reason] == [*range(5), *range(16, 30)]


def test_a_policy_comes_back_from_its_json() -> None:
    assert Policy.from_json(POLICY.to_json()) == POLICY


@pytest.mark.parametrize("field", [field.name for field in fields(Policy)])
def test_a_policy_needs_each_of_its_fields(field: str) -> None:
    value = POLICY.to_json()
    del value[field]
    with pytest.raises(FieldInvalid, match=field):
        Policy.from_json(value)


@pytest.mark.parametrize(
    "change",
    [
        {"commit_blocks": 0},
        {"train_blocks": 0},
        {"verify_blocks": 0},
        {"propose_blocks": 0},
        {"prove_blocks": 0},
        {"quorum": 0},
        {"quorum": 256},
        {"verifier_quorum": 0},
        {"verifier_quorum": 256},
        {"train_blocks": 1 << 32},
        {"proof_required": 1},
        {"commit_blocks": True},
    ],
)
def test_a_policy_that_the_contract_would_refuse_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(FieldInvalid):
        Policy.from_json({**POLICY.to_json(), **change})


def test_no_prove_phase_is_needed_without_proofs_and_no_challenge_at_all() -> None:
    relaxed = replace(POLICY, proof_required=False, prove_blocks=0, challenge_blocks=0)
    assert Policy.from_json(relaxed.to_json()) == relaxed
