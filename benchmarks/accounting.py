"""What the accountant adds to the ideal Gaussian: `python -m benchmarks.accounting`.

For each preset's demo of three rounds, ε at its δ by the same library (dp-accounting's privacy-loss distributions):

    ideal       the continuous Gaussian of the config's σ, sensitivity √G·C
    + slack     the sensitivity larger by 2^-7, for what floating point lets one row do to another's gradient
    + tables    and the tables' distance from the rounded Gaussian, for every coordinate and step, paid for in δ
"""

from __future__ import annotations

from fractions import Fraction
from math import sqrt

from devnet.presets import MINILM, TINY, make_config
from ledger import privacy
from ledger.records import Policy


def main() -> None:
    print(
        f"{'':8} {'σ units':>8} {'ideal':>10} {'+ slack':>10} {'+ tables':>10} {'difference':>11} {'of the tables':>14}"
    )
    for preset in (TINY, MINILM):
        config, _ = make_config(
            preset, epsilon=preset.epsilon, rounds=preset.rounds, policy=Policy(1, 1, 1, 1, 1, 1, 1, False, 1)
        )
        spend, delta = privacy.spend_of(config), float(config.privacy.delta)
        multiplier = spend.noise_units / (spend.clip_units * sqrt(spend.groups))
        steps = spend.steps * preset.rounds
        ideal, slack = (
            privacy._composed(((value, spend.sampling, steps),), privacy.INTERVAL).get_epsilon_for_delta(delta)
            for value in (multiplier, spend.multiplier)
        )
        ours = privacy.epsilon([spend] * preset.rounds, Fraction(config.privacy.delta))
        numbers = f"{ideal:10.6f} {slack:10.6f} {ours:10.6f} {ours - ideal:11.6f} {ours - slack:14.1e}"
        print(f"{preset.name:8} {spend.noise_units:8} {numbers}")


if __name__ == "__main__":
    main()
