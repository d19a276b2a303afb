"""candor-devnet: what it refuses before it starts anything, and what it tells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from devnet.cli import app, parse_misbehave
from devnet.federation import PlanInvalid, kept_facts
from devnet.kinds import KINDS, KindUnknown
from devnet.scenarios import fresh_folder
from proofs.errors import LocalFault

RUN = CliRunner()


def test_kinds_are_told_for_people_and_for_programs() -> None:
    told = RUN.invoke(app, ["kinds"], env={"COLUMNS": "250"}).output
    listed = json.loads(RUN.invoke(app, ["kinds", "--json"]).output)
    assert [item["kind"] for item in listed] == list(KINDS)
    assert [name for name in KINDS if name not in told] == []


def test_daemons_are_named_by_number_or_in_full() -> None:
    chosen = parse_misbehave(["1=nan", "node-2=late@2", "node-2=vanish@3", "aggregator=sleeps"])
    assert chosen == {"node-1": ("nan",), "node-2": ("late@2", "vanish@3"), "aggregator-0": ("sleeps",)}


@pytest.mark.parametrize(
    ("option", "error"),
    [("1", PlanInvalid), ("1=no-such-kind", KindUnknown), ("aggregator=nan", PlanInvalid), ("1=sleeps", PlanInvalid)],
)
def test_a_misbehaviour_that_cannot_be_is_refused(option: str, error: type[LocalFault]) -> None:
    with pytest.raises(error):
        parse_misbehave([option])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--preset", "huge"], "no preset 'huge'"),
        (["--preset", "tiny", "--misbehave", "9=nan"], "there is no daemon 'node-9'"),
        (["--preset", "tiny", "--misbehave", "1=rude"], "no misbehaviour 'rude'"),
    ],
)
def test_a_plan_that_cannot_be_ends_with_exit_code_2(options: list[str], says: str, tmp_path: Path) -> None:
    ended = RUN.invoke(app, ["run", "--dir", str(tmp_path), *options])
    assert ended.exit_code == 2
    assert says in ended.output
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_anything_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(LocalFault, match="is not empty"):
        fresh_folder(tmp_path)


@pytest.mark.parametrize("text", [None, "", "{}", '{"daemons": [], "rpc_url": "http://127.0.0.1:x"}', "[]"])
def test_a_folder_that_is_no_federation_is_refused(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "federation.json").write_text(text)
    with pytest.raises(PlanInvalid):
        kept_facts(tmp_path)
