"""What a stranger can read of a member: whoever fetches bundles reaches /health too, and learns nothing of the data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger.content import MemoryStore
from ledger.records import Phase
from node.data import DatasetInvalid, DatasetTooLarge, load_dataset
from node.http import Pages

MakeWorld = Callable[..., Any]


def data_of(folder: Path) -> Path:
    path = folder / "patients.jsonl"
    path.write_text("".join(f'{{"text": "text {n}", "label": "{"rare" if n == 7 else "good"}"}}\n' for n in range(37)))
    return path


def refusals(path: Path) -> list[Exception]:
    """What a coordinator's configs can make of a member's data: too small a capacity, a label too few."""
    found: list[Exception] = []
    with pytest.raises(DatasetTooLarge) as large:
        load_dataset(path, "jsonl", "text", "label", ("good", "rare")).check_capacity(36)
    with pytest.raises(DatasetInvalid) as label:
        load_dataset(path, "jsonl", "text", "label", ("good", "bad"))
    found += [large.value, label.value]
    return found


@pytest.mark.parametrize("which", [0, 1], ids=["capacity", "labels"])
def test_the_page_does_not_say_what_in_the_data_refused_a_round(
    make_world: MakeWorld, tmp_path: Path, which: int
) -> None:
    refusal = refusals(data_of(tmp_path))[which]
    world = make_world(prepare=lambda world: setattr(world.member(0).trainer, "refusal", refusal))
    world.until_phase(Phase.TRAIN)
    watch = world.member(0).service.watch
    assert str(refusal) in watch.health()["refused"], "the operator's own status and log say it"
    pages = Pages(watch, MemoryStore())
    shown = b"".join(b"".join(pages.handle(page, "", "", "GET").body) for page in ("/health", "/metrics"))
    assert b"see this daemon's log" in shown
    for secret in (b"37 rows", b"patients", b"line 8", b"label", str(tmp_path).encode()):
        assert secret not in shown
