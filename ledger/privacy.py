"""The accountant: what a member's whole history of rounds costs, in ε at the config's δ.

Each step is a Poisson-subsampled Gaussian. Both groups get the same σ and each is clipped to clip_units, so the L2
sensitivity over all coordinates is √groups·clip_units, neighbours differing by one row added or removed: if every
contribution depended on its own row alone. In floating point, which rows share a microbatch moves a gradient by about
1e-7 relative, and so, rarely, a rounded coordinate by one unit. The sensitivity is therefore taken to be larger by
NEIGHBOUR_SLACK (at 1024 units and two groups that pays for 128 moved coordinates a step, where
tests/training/test_neighbours.py finds a few at most):

    noise multiplier = noise_units / (clip_units·√groups·(1 + NEIGHBOUR_SLACK))

The released integers are the continuous Gaussian mechanism, rounded (rounding commutes with adding integers), so
rounding costs nothing. What it does cost that the noise comes out of a table of 64 bits is paid for in δ: with τ =
total variation of the table × coordinates × steps, and 2^-64 for the chance that a round draws more rows than a proof
has slots for (the member then leaves the round, which its data would show), summed over the history,

    δ = δ_gauss(ε) + (1 + e^ε)·τ

so nothing above about ln(δ/τ) can be vouched for (10 for 75,000 coordinates, 90 steps and δ = 10^-5): it is infinite.

The privacy-loss distribution (Google's dp-accounting, pessimistic, connect-the-dots) gives δ_gauss. Any ε it returns
is an upper bound up to float64 arithmetic, hence the last digits may differ between machines: verdicts allow
EPSILON_TOLERANCE_MICRO.

Not covered, and said here because no test can: configs chosen later in the light of earlier outputs (the composition
theorem takes the history's parameters as fixed beforehand), secret words that are not secret, and rows that appear more
than once (ε is per row).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil, exp, inf, isinf, sqrt
from typing import Any

from dp_accounting import dp_event
from dp_accounting.pld import privacy_loss_distribution
from dp_accounting.rdp import rdp_privacy_accountant

from ledger.config import Config
from proofs.errors import LocalFault
from proofs.gaussian import MAX_SIGMA_UNITS, noise_table
from proofs.mechanism import RARE_BITS

INFINITE_MICRO = 2**64 - 1
EPSILON_TOLERANCE_MICRO = 1000
MAX_EPSILON = 100.0  # beyond what any table could vouch for, and the distributions would fill the memory: infinite
MIN_MULTIPLIER = 0.2
NEIGHBOUR_SLACK = 2.0**-7
INTERVAL = 1e-3  # discretisation of the privacy loss; a tenth of it moves ε by less than 1e-4
SEARCH_INTERVAL = 1e-2


class NoNoiseSuffices(LocalFault):
    """No σ that fits the noise table reaches this ε."""


@dataclass(frozen=True)
class Spend:
    """One round's use of a member's data. noise_units 0 means no noise: infinite. coordinates: P."""

    noise_units: int
    clip_units: int
    groups: int
    sample_threshold: int
    steps: int
    coordinates: int

    @property
    def multiplier(self) -> float:
        """σ over the L2 sensitivity, its slack included."""
        return self.noise_units / (self.clip_units * sqrt(self.groups) * (1 + NEIGHBOUR_SLACK))

    @property
    def sampling(self) -> float:
        return self.sample_threshold / 2.0**32


UNBOUNDED = Spend(0, 1, 1, 1 << 32, 1, 1)  # a round under a config that is none: nobody can say what it cost


def spend_of(config: Config) -> Spend:
    """What taking part in one round under this config costs: a member of smaller rank pays as much as the others."""
    config = config.whole or config
    privacy = config.privacy
    groups = len({tensor.role for tensor in config.adapter.trained})
    return Spend(
        privacy.noise_units,
        privacy.clip_units,
        groups,
        privacy.sample_threshold,
        config.steps,
        config.adapter.parameters,
    )


def epsilon(history: Sequence[Spend], delta: Fraction) -> float:
    """ε of the whole history at δ; 0 for an empty one, infinity where there is no noise or next to none."""
    return _epsilon(tuple(sorted(history, key=repr)), delta, INTERVAL)


def epsilon_micro(history: Sequence[Spend], delta: Fraction) -> int:
    """ε in millionths, rounded up: what a submission declares. INFINITE_MICRO for infinity."""
    value = epsilon(history, delta)
    return INFINITE_MICRO if isinf(value) else ceil(Fraction(value) * 1_000_000)


def solve_noise_units(
    target: float,
    delta: Fraction,
    *,
    clip_units: int,
    groups: int,
    sample_threshold: int,
    steps: int,
    coordinates: int,
    rounds: int = 1,
    history: Sequence[Spend] = (),
) -> int:
    """The least σ in units with which `rounds` rounds of `steps` steps, after `history`, cost at most `target`.

    Less the verdicts' tolerance, so that a cap of `target` holds by another machine's arithmetic too. Raises
    NoNoiseSuffices. Bisects on a coarse discretisation, then walks on the fine one.
    """

    def cost(noise_units: int, interval: float) -> float:
        planned = [Spend(noise_units, clip_units, groups, sample_threshold, steps, coordinates)] * rounds
        return _epsilon(tuple(sorted([*history, *planned], key=repr)), delta, interval)

    allowed = target - EPSILON_TOLERANCE_MICRO / 1e6
    low, high = 0, MAX_SIGMA_UNITS + 1  # cost(low) > target; high is not known to suffice yet
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if cost(middle, SEARCH_INTERVAL) <= allowed else (middle, high)
    while high > 1 and cost(high - 1, INTERVAL) <= allowed:
        high -= 1
    while high <= MAX_SIGMA_UNITS and cost(high, INTERVAL) > allowed:
        high += 1
    if high > MAX_SIGMA_UNITS:
        raise NoNoiseSuffices(f"no σ up to {MAX_SIGMA_UNITS} units reaches ε = {target}; lower clip_units or the steps")
    return high


def table_variation(history: Sequence[Spend]) -> float:
    """τ: total variation between what is released and rounded Gaussians, over the whole history."""
    tables = sum(noise_table(s.noise_units).total_variation * s.coordinates * s.steps for s in history)
    return (tables + len(history) * 2.0**-RARE_BITS) * (1 + 1e-12)


@lru_cache(maxsize=256)
def _epsilon(history: tuple[Spend, ...], delta: Fraction, interval: float) -> float:
    if not history:
        return 0.0
    if any(spend.multiplier < MIN_MULTIPLIER for spend in history):
        return inf
    steps = _steps_by_mechanism(history)
    if _rough(steps, float(delta)) > 4 * MAX_EPSILON:
        return inf
    return _with_table(_composed(steps, interval), float(delta), table_variation(history))


def _with_table(pld: Any, delta: float, variation: float) -> float:
    """Least ε with δ_gauss(ε) + (1 + e^ε)·τ ≤ δ, from below: each pass pays for the table at the ε found before."""
    found = 0.0
    for _ in range(100):
        left = delta - (1.0 + exp(found + 1e-9)) * variation
        if left <= 0:
            return inf
        better = float(pld.get_epsilon_for_delta(left))
        if not better <= MAX_EPSILON:
            return inf
        if better <= found + 1e-9:
            return found + 1e-9
        found = better
    return inf


def _steps_by_mechanism(history: tuple[Spend, ...]) -> tuple[tuple[float, float, int], ...]:
    """(multiplier, sampling rate, steps), alike ones added up, in one order: the order of rounds changes no bit."""
    counted: Counter[tuple[float, float]] = Counter()
    for spend in history:
        counted[spend.multiplier, spend.sampling] += spend.steps
    return tuple((multiplier, sampling, counted[multiplier, sampling]) for multiplier, sampling in sorted(counted))


def _rough(steps: tuple[tuple[float, float, int], ...], delta: float) -> float:
    """A quick upper bound by Rényi divergences, to keep hopeless histories from filling the memory."""
    accountant = rdp_privacy_accountant.RdpAccountant([*range(2, 33), 64, 128])
    for multiplier, sampling, count in steps:
        accountant.compose(dp_event.PoissonSampledDpEvent(sampling, dp_event.GaussianDpEvent(multiplier)), count)
    return float(accountant.get_epsilon(delta))


@lru_cache(maxsize=32)
def _composed(steps: tuple[tuple[float, float, int], ...], interval: float) -> Any:
    total = None
    for multiplier, sampling, count in steps:
        part = _one_step(multiplier, sampling, interval).self_compose(count)
        total = part if total is None else total.compose(part)
    return total


@lru_cache(maxsize=32)
def _one_step(multiplier: float, sampling: float, interval: float) -> Any:
    return privacy_loss_distribution.from_gaussian_mechanism(
        multiplier, sampling_prob=sampling, value_discretization_interval=interval
    )
