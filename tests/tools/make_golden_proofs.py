"""Writes the golden proofs of protocol version 2: `python tests/tools/make_golden_proofs.py`.

A proof that was good stays good: tests/proofs/test_golden.py verifies these for ever. A new version of the protocol
gets a folder and a generator of its own; files that are there are overwritten with `--unreleased` alone, which is for a
version that nobody has used yet.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "vectors" / "mechanism-2"

sys.path.insert(0, str(ROOT))

from benchmarks.cases import MechanismCase, mechanism_case  # noqa: E402
from proofs.statement import Shape  # noqa: E402

CASES = {
    "one-group": (Shape(1, (6,), 12, 12, 64, 100, 3 << 30, 5), 10),
    "two-groups-three-steps": (Shape(3, (5, 3), 16, 14, 1024, 1400, 1 << 31, 7), 11),
    "room-for-two-more": (Shape(2, (3, 4), 10, 10, 64, 100, 1 << 31, 6, 2), 9),
}


def described(case: MechanismCase) -> dict[str, object]:
    statement, shape = case.statement, case.statement.shape
    binding = statement.binding
    return {
        "binding": [binding.chain_id, binding.contract.hex(), binding.round, binding.member],
        "context": statement.context.hex(),
        "words_root": statement.words_root.hex(),
        "data_root": statement.data_root.hex(),
        "beacon": statement.beacon.hex(),
        "shape": [
            shape.steps,
            list(shape.groups),
            shape.capacity,
            shape.slots,
            shape.clip_units,
            shape.sigma_units,
            shape.sample_threshold,
            shape.tokens,
            shape.openings,
        ],
        "group_of": statement.group_of.tolist(),
        "released": statement.released.tolist(),
    }


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, (shape, rows) in CASES.items():
        case = mechanism_case(shape, rows, seed=7)
        for path, content in (
            (FOLDER / f"{name}.json", (json.dumps(described(case), indent=1) + "\n").encode()),
            (FOLDER / f"{name}.proof", case.prove()),
        ):
            if path.exists() and "--unreleased" not in sys.argv[1:]:
                print(f"{path.name} is there already and stays as it is")
            else:
                path.write_bytes(content)
                print(f"{path.name}: {len(content):,} bytes")


if __name__ == "__main__":
    main()
