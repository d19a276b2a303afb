"""Gas for a thousand audited inferences, beside attesting each of them on EAS: `python -m benchmarks.log_gas`.

What a checkpoint costs is read from the contract's snapshot (contracts/test/LogGas.t.sol), which every test run
compares: in logs of 1 to a million entries, and with the longest proof of any log up to 2^20. That of EAS was measured
by benchmarks.against_eas (`make bench-eas`) on the contracts of eas-contracts 1.9.0: one `attest` of a digest, one of a
hundred in a `multiAttest`, and one `timestamp`, which says nothing of who was asked or what was answered.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

SNAPSHOT: Final = Path(__file__).parent.parent / "contracts" / "snapshots" / "Gas.json"
NEAR_A_MILLION: Final = ("35 checkpoint, 999,000 to 999,999 entries", "36 checkpoint, 999,999 to 1,000,000 entries")
LONGEST: Final = "38 checkpoint, longest proof up to 2^20 entries"
REPORT, ANSWER = "41 reportOmission, next", "42 answerOmission, 1,000,000 entries"
EAS: Final = {"attest": 180_134, "multiAttest": 145_785, "timestamp": 45_869}
BATCHES: Final = (1, 10, 100, 1_000, 10_000)


def main() -> None:
    """Prints one line for each size of batch: inferences that share a checkpoint."""
    gas = {name: int(used) for name, used in json.loads(SNAPSHOT.read_text(encoding="utf-8")).items()}
    measured, most = max(gas[name] for name in NEAR_A_MILLION), gas[LONGEST]
    print("gas for 1,000 inferences, of which so many share a checkpoint; the last columns: EAS as a multiple of it")
    print(f"{'a checkpoint':>14}{'near 10^6':>14}{'at most':>14}" + "".join(f"{name:>14}" for name in EAS))
    for batch in BATCHES:
        here, bound = 1000 * measured / batch, 1000 * most / batch
        ratios = "".join(f"{1000 * gas_of_one / here:>12,.1f} ×" for gas_of_one in EAS.values())
        print(f"{batch:>14,}{here:>14,.0f}{bound:>14,.0f}{ratios}")
    for name, gas_of_one in EAS.items():
        print(f"EAS {name:<14}{1000 * gas_of_one:>24,}")
    print("gas of one checkpoint")
    for name in (name for name in gas if name.partition(" ")[2].startswith("checkpoint, ")):
        print(f"  {name.partition(', ')[2]:<42}{gas[name]:>8,}")
    print(f"a checkpoint: {measured:,} gas near a million entries, {most:,} with the longest proof up to 2^20")
    print(f"a dispute: {gas[REPORT]:,} gas to report an omission, {gas[ANSWER]:,} to answer it")


if __name__ == "__main__":
    main()
