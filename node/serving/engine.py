"""What serving asks of an engine: one FINAL bundle on its base, which classifies or generates.

Nothing here knows a model. node.engine has the real one; tests put smaller ones in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ledger.log.receipt import Decoding

Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class Job:
    """One request for generation."""

    tokens: tuple[int, ...]
    decoding: Decoding


@dataclass(frozen=True)
class Step:
    """One more token of job number `job` of the batch; `text` is what became certain with it."""

    job: int
    token: int
    text: str
    finish: Literal["", "stop", "length"]


@dataclass(frozen=True)
class Outcome:
    """What a job came to. `fingerprint`: of the activations, for a replay on another machine."""

    tokens: tuple[int, ...]
    text: str
    finish: Finish
    fingerprint: bytes


@dataclass(frozen=True)
class Classified:
    """One score a label, in the order of the labels, and the number of the largest."""

    scores: tuple[float, ...]
    label: int
    fingerprint: bytes


class Engine(Protocol):
    """Used by one thread at a time, but for `encode` and `chat`, which another thread calls meanwhile."""

    @property
    def task(self) -> Literal["classification", "next-token"]: ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def max_tokens(self) -> int:
        """Of a prompt and its answer together."""
        ...

    @property
    def bundle(self) -> bytes:
        """By which the chain names it."""
        ...

    @property
    def parents(self) -> tuple[bytes, ...]:
        """Of a mixture, the bundles that it is made of: an answer may leave some of them out."""
        ...

    def encode(self, text: str) -> list[int]: ...

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt of a conversation."""
        ...

    def generate(
        self, jobs: Sequence[Job], on_step: Callable[[Step], None], stopped: Callable[[int], bool]
    ) -> list[Outcome]:
        """One outcome a job. A job for which `stopped` says so is left where it is."""
        ...

    def classify(self, batch: Sequence[Sequence[int]], leave_out: Collection[bytes] = ()) -> list[Classified]:
        """leave_out: parents that do not count, for all of the batch."""
        ...
