"""Gas for a thousand audited inferences, beside attesting each of them on EAS: `python -m benchmarks.log_gas`.

What a checkpoint costs is read from the contract's snapshot (contracts/test/LogGas.t.sol): near a million entries, and
with the longest proof of any log up to 2^20. That of EAS is as published for one `attest`, and for one `timestamp` of a
digest, which says nothing of who was asked or what was answered.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

SNAPSHOT: Final = Path(__file__).parent.parent / "contracts" / "snapshots" / "Gas.json"
NEAR_A_MILLION: Final = ("35 checkpoint, 999,000 to 999,999 entries", "36 checkpoint, 999,999 to 1,000,000 entries")
LONGEST: Final = "38 checkpoint, longest proof up to 2^20 entries"
REPORT, ANSWER = "41 reportOmission, next", "42 answerOmission, 1,000,000 entries"
EAS_ATTEST: Final = 230_000
EAS_TIMESTAMP: Final = 46_000
BATCHES: Final = (1, 10, 100, 1_000, 10_000)


def main() -> None:
    """Prints one line for each size of batch: inferences that share a checkpoint."""
    gas = {name: int(used) for name, used in json.loads(SNAPSHOT.read_text(encoding="utf-8")).items()}
    measured, most = max(gas[name] for name in NEAR_A_MILLION), gas[LONGEST]
    print("gas for 1,000 inferences, of which so many share a checkpoint; the last columns: EAS as a multiple of it")
    print(f"{'a checkpoint':>14}{'near 10^6':>14}{'at most':>14}{'EAS attest':>12}{'timestamp':>12}")
    for batch in BATCHES:
        here, bound = 1000 * measured / batch, 1000 * most / batch
        ratios = f"{1000 * EAS_ATTEST / here:>10,.1f} ×{1000 * EAS_TIMESTAMP / here:>10,.1f} ×"
        print(f"{batch:>14,}{here:>14,.0f}{bound:>14,.0f}{ratios}")
    print(f"{'EAS attest':>14}{1000 * EAS_ATTEST:>14,}")
    print(f"{'EAS timestamp':>14}{1000 * EAS_TIMESTAMP:>14,}")
    print(f"a checkpoint: {measured:,} gas near a million entries, {most:,} with the longest proof up to 2^20")
    print(f"a dispute: {gas[REPORT]:,} gas to report an omission, {gas[ANSWER]:,} to answer it")


if __name__ == "__main__":
    main()
