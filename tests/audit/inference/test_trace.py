"""From an answer back to the base model, on one page; every lie along the way fails at the link that it breaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from ledger import audit_cli
from ledger.log.receipt import issue

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def federation(found_federation: Any) -> Any:
    """Three rounds on a chain, the second with one member left out; the third is not what was served."""
    made = found_federation(3)
    made.play()
    made.play({2: "TRAJECTORY_MISMATCH"})
    made.served = made.state.finalised.aggregate_bundle
    made.play()
    return made


@pytest.fixture(scope="module")
def house(federation: Any, new_house: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = new_house(tmp_path_factory.mktemp("traced") / "log", federation, bundle=federation.served)
    made.answers(3)
    made.anchor()
    return made


@pytest.fixture
def trace(federation: Any, house: Any, run: Run, on_chain: Any, monkeypatch: pytest.MonkeyPatch) -> Run:
    on_chain(federation.chain)
    monkeypatch.setattr(audit_cli, "open_contents", lambda places: federation.store)
    return lambda kept, *options: run("trace", kept, "--log", house.folder, "--content", "x", *options)


def steps(result: Result) -> dict[str, str]:
    """The worst of each stage."""
    told: dict[str, str] = {}
    for step in json.loads(result.stdout)["steps"]:
        order = ["PASS", "NOT PROVEN", "FAIL"]
        told[step["stage"]] = max(told.get(step["stage"], "PASS"), step["status"], key=order.index)
    return told


def test_a_true_answer_leads_back_to_genesis_and_base(trace: Run, house: Any, federation: Any, tmp_path: Path) -> None:
    result = trace(house.keep(1, tmp_path / "kept"), "--json")
    assert result.exit_code == 0
    found = steps(result)
    assert list(found) == [
        "answer",
        "receipt",
        "log",
        "checkpoint",
        "model",
        "rounds",
        "round 2",
        "round 1",
        "genesis",
        "base",
    ]
    assert {found[stage] for stage in ("answer", "receipt", "log", "genesis")} == {"PASS"}
    assert found["model"] == "NOT PROVEN"  # nobody has run it again
    assert found["round 2"] == found["base"] == "NOT PROVEN"  # the config asks for no proof; no --base
    page = trace(str(tmp_path / "kept")).stdout
    assert "left out: 2 TRAJECTORY_MISMATCH" in " ".join(page.replace("│", " ").split())
    assert "mechanism NOT PROVEN" in " ".join(page.replace("│", " ").split())
    assert federation.served.hex()[:16] in page


def test_an_answer_of_a_model_that_no_round_made_final_fails_there(trace: Run, house: Any, tmp_path: Path) -> None:
    entry, sealed, record = house.draft(9, sequence=1, bundle=b"\x11" * 32)
    kept = replace(house.kept(1), receipt=issue(house.key.secret, entry, record), request=record.request)
    result = trace(house.keep(1, tmp_path / "kept", kept), "--json")
    assert (result.exit_code, steps(result)["model"]) == (1, "FAIL")
    assert "round 1" not in steps(result)
    assert sealed


def test_another_text_fails_at_the_answer(trace: Run, house: Any, tmp_path: Path) -> None:
    kept = Path(house.keep(1, tmp_path / "kept"))
    (kept / "response").write_bytes(b"another")
    result = trace(str(kept), "--json")
    assert (result.exit_code, steps(result)["answer"], steps(result)["receipt"]) == (1, "FAIL", "PASS")


def test_content_that_is_gone_is_not_proven_and_the_code_says_so(
    trace: Run, house: Any, federation: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_cli, "open_contents", lambda places: type(federation.store)())
    result = trace(house.keep(1, tmp_path / "kept"), "--json")
    assert (result.exit_code, steps(result)["round 2"]) == (3, "NOT PROVEN")


def test_the_genesis_itself_may_be_served(house: Any, federation: Any, trace: Run, tmp_path: Path) -> None:
    receipt = house.answer(3, bundle=federation.history().rounds[1].opened.global_bundle)
    house.anchor()
    assert receipt.entry.sequence == 3
    result = trace(house.keep(3, tmp_path / "kept"), "--json")
    assert (result.exit_code, steps(result)["model"]) == (0, "NOT PROVEN")
    assert "is the genesis: no round has trained it" in result.stdout


def test_the_base_in_a_folder_is_compared_with_the_rounds(house: Any, trace: Run, tmp_path: Path) -> None:
    tiny = Path(audit_cli.__file__).parent.parent / "devnet" / "tiny" / "model"
    result = trace(house.keep(1, tmp_path / "kept"), "--base", str(tiny), "--json")
    assert (result.exit_code, steps(result)["base"]) == (1, "FAIL")
    assert trace(str(tmp_path / "kept"), "--base", str(tmp_path / "nowhere")).exit_code == 2
