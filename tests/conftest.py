"""What every test gets: no hub, one torch thread (results depend on it), and the long profile only when asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from typing import Any

import pytest

from ledger.gradients import GradientsUnjudged
from proofs.proof import ProofInvalid

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


@dataclass
class FakeGradients:
    """Stands for statement G, in tests alone: a proof is a digest of all that it is about, and no proof of anything.

    told: what the prover was given. missing: why nothing can be verified.
    """

    missing: str = ""
    told: list[tuple[Any, ...]] = field(default_factory=list)
    size: int = 64

    def largest(self, config: Any, weights: Any) -> int:
        if self.missing:
            raise GradientsUnjudged(self.missing)
        return self.size

    def answer(self, iterate: Any, challenge: Any) -> bytes:
        parts = [challenge.mechanism.digest(), challenge.slots_root, challenge.beacon, str(challenge.pick).encode()]
        parts += [bytes([challenge.tolerance]), *(iterate[name].tobytes() for name in sorted(iterate))]
        return sha256(b"fake gradient" + b"".join(sha256(part).digest() for part in parts)).digest()

    def outcomes(self, config: Any, jobs: Any) -> Iterator[ProofInvalid | None]:
        for job in jobs:
            right = job.proof == self.answer(job.iterate, job.challenge)
            yield None if right else ProofInvalid("the digest is another")

    def prove(
        self, config: Any, iterate: Any, challenge: Any, words: Any, texts: Any, contributions: Any, tell: Any
    ) -> bytes:
        tell("digest")
        self.told.append((challenge, texts, contributions))
        return self.answer(iterate, challenge)


@pytest.fixture(scope="session")
def fake_gradients() -> type[FakeGradients]:
    return FakeGradients


@pytest.fixture(scope="session")
def verified_once() -> Callable[[Any, bytes], None]:
    """proofs.verifier.verify for tests of other rules: the same proof of the same statement is verified once."""
    from proofs.verifier import verify

    outcomes: dict[tuple[bytes, bytes], ProofInvalid | None] = {}

    def once(statement: Any, proof: bytes) -> None:
        key = statement.digest(), sha256(proof).digest()
        if key not in outcomes:
            outcomes[key] = None
            try:
                verify(statement, proof)
            except ProofInvalid as invalid:
                outcomes[key] = invalid
        found = outcomes[key]
        if found is not None:
            raise found

    return once


@pytest.fixture(scope="module")
def judged_once(verified_once: Callable[[Any, bytes], None]) -> Iterator[None]:
    """Whoever judges in this file verifies each proof of the mechanism once, as in `verified_once`."""
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr("ledger.verdict.verify_here", verified_once)
        yield


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
