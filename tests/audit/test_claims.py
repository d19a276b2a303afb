"""What an audit says must be worth what a stranger takes it for: the words beside PASS, attacked."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from ledger.audit import audit
from ledger.audit_file import export_round, verify_file
from ledger.config import PrivacySpec
from ledger.report import Name, Status


def test_epsilon_is_never_told_without_the_delta_it_holds_at(found_federation: Any) -> None:
    """A coordinator that asks for δ = 9/10 gets a small ε for anything: the number alone would mislead."""
    honest = found_federation(2)
    honest.play()
    told = audit(honest.chain, honest.store).find(Name.PRIVACY)
    assert "at δ = 1/100000 " in told.evidence
    assert told.data["delta"] == "1/100000"
    generous = found_federation(
        2, privacy=PrivacySpec(Fraction(9, 10), 64, Fraction(1), Fraction(1, 2), 128, 1 << 29, 64)
    )
    generous.play()
    told = audit(generous.chain, generous.store).find(Name.PRIVACY)
    assert told.status is Status.PASS
    assert "at δ = 9/10" in told.evidence


@pytest.mark.parametrize("accounts", ["[]", "null", "false", "0", '""'])
def test_a_file_without_accounts_says_so_in_one_way(
    found_federation: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accounts: str
) -> None:
    made = found_federation(2)
    made.open()
    made.commit([0])
    made.advance()
    monkeypatch.setattr("ledger.export.accounts", lambda *_: json.loads(accounts))
    export_round(tmp_path / "odd.car", made.chain, made.store, round_number=1)
    report = verify_file(tmp_path / "odd.car")
    assert report.status is Status.FAIL
    assert "export.accounts" in report.find(Name.FILE).evidence
