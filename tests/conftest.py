"""What every test gets: no hub, one torch thread (results depend on it), and the long profile only when asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")
for proxy in ("http_proxy", "https_proxy", "all_proxy"):
    os.environ.pop(proxy, None)
    os.environ.pop(proxy.upper(), None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked `long` run with CANDOR_LONG=1; otherwise they are deselected, and counted as such."""
    if os.environ.get("CANDOR_LONG") == "1":
        return
    long = [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if not item.get_closest_marker("long")]


@dataclass(frozen=True, eq=False)
class MechanismCase:
    """One member's round: the public statement, and what it hides. `prove` makes the proof of it."""

    statement: Any
    words: Any
    rows: int
    contributions: tuple[np.ndarray[Any, Any], ...]

    def prove(self) -> bytes:
        from proofs.prover import prove

        return prove(self.statement, self.words, self.rows, self.contributions)

    def stating(self, **changed: Any) -> Any:
        return replace(self.statement, **changed)


def mechanism_case(shape: Any, rows: int, *, seed: int = 1, member: int = 0, round: int = 1) -> MechanismCase:
    """An honest round: random contributions, many of them at the clip, over coordinates whose groups lie mixed."""
    from proofs import mechanism
    from proofs.gaussian import noise_table
    from proofs.prover import words_root
    from proofs.statement import Statement
    from proofs.words import Binding, SecretWords, combine, public_draws, public_noise

    rng = np.random.default_rng(seed)
    binding, beacon = Binding(31337, b"\2" * 20, round, member), b"\3" * 32
    words = SecretWords(bytes([seed]) * 32, binding, shape.steps, shape.parameters, shape.capacity)
    group_of = rng.permutation(np.repeat(np.arange(len(shape.groups)), shape.groups)).astype(np.uint8)
    contributions, released = [], []
    for step in range(shape.steps):
        draws = combine(words.draws(step), public_draws(beacon, binding, step, shape.capacity))
        drawn = mechanism.selected_rows(draws, shape.sample_threshold, rows)
        part = np.zeros((len(drawn), shape.parameters), dtype=np.int32)
        for group, size in enumerate(shape.groups):
            gradients = rng.normal(size=(len(drawn), size)) * rng.choice([0.1, 1.0, 9.0], size=(len(drawn), 1))
            part[:, group_of == group] = mechanism.to_grid(gradients, 1 / shape.clip_units, shape.clip_units)
        noise_words = combine(words.noise(step), public_noise(beacon, binding, step, shape.parameters))
        contributions.append(part)
        released.append(mechanism.release(part, noise_table(shape.sigma_units).lookup(noise_words)))
    root = words_root(words, shape, rows)
    statement = Statement(binding, b"\4" * 32, root, beacon, shape, group_of, np.array(released))
    return MechanismCase(statement, words, rows, tuple(contributions))


@pytest.fixture(scope="session")
def small_case() -> MechanismCase:
    """Two steps of eight coordinates in two groups over eleven rows: proven in a fifth of a second."""
    from proofs.statement import Shape

    return mechanism_case(Shape(2, (5, 3), 16, 16, 64, 100, 1 << 31), 11)


@pytest.fixture(scope="session")
def small_proof(small_case: MechanismCase) -> bytes:
    return small_case.prove()


@pytest.fixture(scope="session")
def make_case() -> Callable[..., MechanismCase]:
    return cache(mechanism_case)
