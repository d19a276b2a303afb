"""A mixture through a federation's life: two rounds make adapters FINAL, a third trains gates over both, a stranger
walks the family tree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from devnet import notes
from devnet.presets import TINY, make_config, with_method
from ledger.audit import audit
from ledger.audit_file import export_round, verify_file
from ledger.audit_library import Library
from ledger.audit_open import FirstOf
from ledger.audit_parents import parents_links
from ledger.audit_round import RoundAudit
from ledger.audit_trace import origin_link
from ledger.bundle import GenesisBundle
from ledger.config import Config, QuantisedSpec
from ledger.content.cid import Cid
from ledger.content.errors import Attempt, ContentMissing
from ledger.parents import ParentRefused, read_final, read_parents
from ledger.records import Phase, Policy
from ledger.report import Name, RoundReport, Status, failed, passed
from node import doctor
from node.engine import LATEST, load
from node.mixture import mixed_adapter
from node.model import load_base
from node.settings import DataSettings, NodeSettings, PrivacySettings
from node.trainer import ModelTrainer

MakeWorld = Callable[..., Any]
TENTH = Fraction(1, 10)
POLICY = Policy(6, 8, 0, 8, 6, 6, 2, False, 2)
SMALL = replace(TINY, steps=2, rows=24, capacity=32, mean_batch=8, gradient=None, rule="fedavg")


class Without:
    """A content store that lacks one bundle."""

    def __init__(self, store: Any, lacks: bytes) -> None:
        self.store, self.lacks = store, lacks
        self.get_raw = store.get_raw

    def get_directory(self, digest: bytes, limits: Any) -> Any:
        if digest == self.lacks:
            raise ContentMissing(Cid.directory(digest), [Attempt("here", "gone")])
        return self.store.get_directory(digest, limits)


def a_federation(make_world: MakeWorld, folder: Path, method: str) -> Any:
    """Two members with notes and the tiny Llama, and two rounds of LoRA or QLoRA to do."""
    config, weights = make_config(with_method(SMALL, method), epsilon=8.0, rounds=4, policy=POLICY)
    config = replace(config, proof_policy="none")

    def with_models(world: Any) -> None:
        daemon = world.aggregator()
        genesis = daemon.store.put_directory(GenesisBundle(config, weights).files())
        daemon.coordinator = replace(daemon.coordinator, genesis=genesis)
        for number, rows in enumerate(notes.members(2, SMALL.rows, 7)):
            path = folder / f"notes-{number}.jsonl"
            notes.write(path, rows)
            data = DataSettings(path, "jsonl", "text", "label")
            world.member(number).trainer = ModelTrainer(SMALL.base_path, data, "cpu")

    changes = {field.name: getattr(config, field.name) for field in fields(config)}
    return make_world(2, rounds=2, prepare=with_models, **changes)


def doctor_on(world: Any, folder: Path, config: Config) -> dict[str, doctor.Check]:
    """What member 0's doctor forecasts of a round of this config; it has seen no parents before."""
    daemon = world.member(0)
    data, privacy = DataSettings(folder / "notes-0.jsonl", "jsonl", "text", "label"), PrivacySettings(8.0, TENTH, False)
    settings = NodeSettings(
        **vars(daemon.service.settings), model=SMALL.base_path, data=data, privacy=privacy, device="cpu"
    )
    found = doctor._Found(settings, None, ModelTrainer(SMALL.base_path, data, "cpu"), chain=world.chain, config=config)
    return {check.name: check for check in doctor._forecasts(found, config)}


def next_round(world: Any, config: Config) -> None:
    """The coordinator goes on with another config."""
    daemon = world.aggregator()
    daemon.coordinator = replace(daemon.coordinator, config=config, rounds=world.latest + 1)
    daemon.restart()


@pytest.mark.parametrize(("method", "of_parents"), [("mole", "lora"), ("x-lora", "qlora")])
def test_a_mixture_goes_from_the_config_to_the_audit(
    make_world: MakeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Any, of_parents: str
) -> None:
    world = a_federation(make_world, tmp_path, of_parents)
    made = [world.until_ended(number).finalised.aggregate_bundle for number in (1, 2)]
    store, base = world.aggregator().service.store, load_base(SMALL.base_path)
    wanted = replace(world.config, adapter=replace(world.config.adapter, parents=tuple(made)))
    parents = read_parents(store, world.history, wanted)
    adapter = mixed_adapter(base, method, parents, len(world.config.task.labels))
    mixture = replace(world.config, adapter=adapter)

    monkeypatch.setattr(doctor, "open_store", lambda content, local: store)
    forecast = doctor_on(world, tmp_path, mixture)
    assert forecast["parents"].ok
    assert all(bundle.hex() in forecast["parents"].detail for bundle in made)
    assert forecast["gradients"].ok, forecast["gradients"].detail
    submitted = world.history.rounds[2].submissions[0].bundle
    forecast = doctor_on(world, tmp_path, replace(mixture, adapter=replace(adapter, parents=(made[0], submitted))))
    assert not forecast["parents"].ok
    assert "config.adapter.parents: no round of" in forecast["parents"].detail
    assert "gradients" not in forecast, "nothing is tried with parents that no daemon takes"

    next_round(world, Config.decode(mixture.encode()))

    state = world.until_ended(3)
    assert (state.phase, state.accepted) == (Phase.FINAL, (0, 1))
    _, reached = read_final(store, state.final_bundle, state, mixture)
    assert all(units.any() for units in reached.values()), "gates start at zero, and were trained"

    report = audit(world.chain, store)
    assert [link for link in report.links if link.status is Status.FAIL] == []
    tree = report.find(Name.PARENTS, 3)
    assert (tree.status, tree.missing) == (Status.NOT_PROVEN, False), "the worst link of rounds that proved nothing"
    assert all(f"the aggregate of round {number}, whose mechanism is" in tree.evidence for number in (1, 2))
    assert "gates of zero over the final aggregate of round 2" in report.find(Name.OPENING, 3).evidence

    gone = Without(store, world.history.rounds[1].submissions[0].bundle)
    tree = audit(world.chain, gone, rounds={3}).find(Name.PARENTS, 3)
    assert tree.missing
    assert "round 1, whose verdicts is NOT PROVEN" in tree.evidence

    written, whole = tmp_path / "round-3", FirstOf([(daemon.name, daemon.store) for daemon in world.daemons])
    export_round(written, world.chain, whole, round_number=3)
    alone = verify_file(written)
    assert [link for link in alone.links if link.status is Status.FAIL] == []
    assert alone.find(Name.PARENTS, 3).missing, "its file holds the mixture's round, not those of its parents"

    lying = RoundReport(1, "final", (passed(Name.ROOTS, "right"), failed(Name.AGGREGATE, "another average")))
    (tree,) = parents_links(RoundAudit(Library(store), world.history, state), lambda number: lying)
    assert tree.status is Status.FAIL
    assert "aggregate is FAIL: another average" in tree.evidence

    engine = load(world.chain, store, world.chain.rounds_address, LATEST, SMALL.base_path, "cpu")
    assert origin_link(world.history, engine.bundle, 3, ()).status is Status.PASS
    assert len(engine.classify([engine.encode("they paid"), engine.encode("never")])) == 2

    # what is refused: the line is named, and nobody takes part
    for changed, why in (
        ({"base_digest": bytes(32)}, "its base is"),
        ({"quantised": QuantisedSpec(bytes(32))}, "its base is .*, the mixture's in 4 bits"),
        ({"adapter": replace(adapter, parents=(made[0], state.submissions[0].bundle))}, "no round of .* final"),
        ({"adapter": replace(adapter, parents=(made[0], state.finalised.aggregate_bundle))}, f"it is {method}"),
        ({"adapter": replace(adapter, head=("other",))}, "its head is"),
        ({"task": replace(mixture.task, labels=("one", "two"))}, "other labels"),
    ):
        with pytest.raises(ParentRefused, match=f"config.adapter.parents: .*{why}"):
            read_parents(store, world.history, replace(mixture, **changed))  # type: ignore[arg-type]
    unknown = replace(mixture, adapter=replace(adapter, parents=(bytes(32), made[1])))
    next_round(world, unknown)
    world.until(lambda world: world.latest == 4 and world.member(0).service.watch.health()["refused"])
    assert "config.adapter.parents: no round of" in world.member(0).service.watch.health()["refused"]
    world.until_ended(4)
    assert world.history.rounds[4].commitments == {}
    tree = audit(world.chain, store, rounds={4}).find(Name.PARENTS, 4)
    assert tree.missing
    assert "made final by no round of this contract" in tree.evidence
