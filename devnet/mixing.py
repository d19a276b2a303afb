"""What a coordinator's operator does for a mixture: once its parents are FINAL, write the mixture's config, and start
the coordinator again with it. Nobody else is told; members read the parents by the digests that the config names.
"""

from __future__ import annotations

import tomllib
from dataclasses import replace

import tomli_w

from devnet.federation import Federation
from devnet.presets import PARENTS, mix_config
from devnet.processes import Supervisor
from ledger.aggregation import in_round
from ledger.audit_open import open_contents
from ledger.config import Config
from ledger.history import History
from ledger.parents import read_parents
from ledger.privacy import spend_of
from node.model import load_base


def is_due(federation: Federation, history: History) -> bool:
    """Are all parents FINAL, and no round of the mixture was prepared?"""
    final = [state for state in history.rounds.values() if state.finalised is not None]
    return federation.plan.preset.mixture is not None and federation.mixture is None and len(final) == PARENTS


def mix(federation: Federation, history: History, supervisor: Supervisor) -> Federation:
    """The federation whose coordinator opens the mixture's rounds from now on.

    Raises BaseUnusable, ParentRefused, NoNoiseSuffices, and the faults of the content stores.
    """
    mixed = replace(federation, mixture=mixture_config(federation, history))
    coordinator = federation.aggregators[0]
    supervisor.stop(coordinator.name)
    _write_settings(mixed)
    federation.start_one(supervisor, coordinator)
    return mixed


def mixture_config(federation: Federation, history: History) -> Config:
    """Of the aggregates so far; σ is what the budget leaves after all rounds so far, void ones too."""
    plan, config = federation.plan, federation.config
    bundles = tuple(state.finalised.aggregate_bundle for state in history.rounds.values() if state.finalised)
    contents = open_contents(tuple(str(site.content) for site in federation.sites))
    wanted = replace(config, adapter=replace(config.adapter, parents=bundles))
    return mix_config(
        plan.preset,
        config,
        load_base(plan.preset.base_path),
        read_parents(contents, history, wanted),
        epsilon=plan.epsilon,
        rounds=max(plan.rounds + plan.spare_rounds - history.latest, plan.rounds - PARENTS),
        history=[spend_of(in_round(config, number)) for number in history.rounds],
    )


def _write_settings(federation: Federation) -> None:
    """Of the coordinator: the mixture's config, and all rounds."""
    site = federation.aggregators[0]
    path = site.folder / "mixture.json"
    path.write_bytes((federation.mixture or federation.config).encode())
    settings = tomllib.loads(site.settings.read_text())
    settings["coordinator"] |= {"config": str(path), "rounds": federation.plan.rounds}
    settings["coordinator"].pop("last", None)
    site.settings.write_text(tomli_w.dumps(settings))
