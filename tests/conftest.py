"""What every test gets: no hub, one torch thread (results depend on it), and the long profile only when asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any

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


@pytest.fixture(scope="session")
def make_case() -> Callable[..., Any]:
    """benchmarks.cases.mechanism_case, each case made once."""
    from benchmarks.cases import mechanism_case

    return cache(mechanism_case)


@pytest.fixture(scope="session")
def small_case(make_case: Callable[..., Any]) -> Any:
    """Two steps of eight coordinates in two groups over eleven rows: proven in a fifth of a second."""
    from proofs.statement import Shape

    return make_case(Shape(2, (5, 3), 16, 16, 64, 100, 1 << 31, 6), 11)


@pytest.fixture(scope="session")
def small_proof(small_case: Any) -> bytes:
    return bytes(small_case.prove())
