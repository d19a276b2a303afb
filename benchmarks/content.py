"""Publishing and reading a directory, in plain SHA-256s of the same bytes: `python -m benchmarks.content`.

Ratios within one run on one machine; medians of interleaved repetitions. Publishing includes every fsync.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from random import Random

from ledger.content import EmbeddedStore, GatewayStore, Limits, serve

REPETITIONS = 5
LIMITS = Limits(max_files=64, max_file_bytes=1 << 30, max_total_bytes=1 << 30, max_depth=4)


def main() -> None:
    """Prints one line for each size of bundle and each operation."""
    print("embedded content store, as a multiple of plain SHA-256 of the same bytes")
    for title, sizes in (("a small bundle", [2_000, 60_000, 3_000, 900_000]), ("a large bundle", [64 << 20, 1 << 20])):
        files = {f"candor/{i}.bin": Random(i).randbytes(size) for i, size in enumerate(sizes)}
        report(f"{title}, {sum(sizes) / 1e6:.1f} MB", files)


def report(title: str, files: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        stores = iter([EmbeddedStore(Path(folder) / str(i)) for i in range(REPETITIONS)])
        kept = EmbeddedStore(Path(folder) / "kept")
        digest = kept.put_directory(files)
        with serve(kept) as serving:
            gateway = GatewayStore([serving.url])
            seconds = medians(
                {
                    "plain SHA-256": lambda: [sha256(data).digest() for data in files.values()],
                    "embedded add": lambda: next(stores).put_directory(files),
                    "verified read": lambda: kept.get_directory(digest, LIMITS),
                    "read through our gateway": lambda: gateway.get_directory(digest, LIMITS),
                }
            )
    unit = seconds.pop("plain SHA-256")
    rate = sum(map(len, files.values())) / unit / 1e6
    print(f"\n{title} (plain SHA-256 here: {rate:,.0f} MB/s)")
    for name, elapsed in seconds.items():
        print(f"  {name:<26}{elapsed / unit:8.2f} ×")


def medians(operations: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of each operation, taken in turn so that a slow moment touches all of them."""
    taken: dict[str, list[float]] = {name: [] for name in operations}
    for _ in range(REPETITIONS):
        for name, operation in operations.items():
            began = time.perf_counter()
            operation()
            taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in taken.items()}


if __name__ == "__main__":
    main()
