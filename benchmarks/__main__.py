"""All measurements in one run: `make bench`. A full run is also written to benchmarks/RESULTS.md."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import platform
import sys
import time
from pathlib import Path

MODULES = ("training", "content", "round", "mechanism", "accounting", "log_gas", "fingerprints")
RESULTS = Path(__file__).parent / "RESULTS.md"


class Tee(io.TextIOBase):
    """Writes to the screen and keeps a copy."""

    def __init__(self) -> None:
        self.kept: list[str] = []

    def write(self, text: str) -> int:
        self.kept.append(text)
        return sys.__stdout__.write(text) if sys.__stdout__ else len(text)

    def flush(self) -> None:
        if sys.__stdout__:
            sys.__stdout__.flush()


def main(names: list[str]) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    began, sections = time.monotonic(), []
    for name in names or MODULES:
        tee = Tee()
        with contextlib.redirect_stdout(tee):
            importlib.import_module(f"benchmarks.{name}").main()
            print()
        sections.append(f"## {name}\n\n```\n{''.join(tee.kept).strip()}\n```\n")
    if not names:
        RESULTS.write_text(f"{heading(time.monotonic() - began)}\n" + "\n".join(sections), encoding="utf-8")


def heading(seconds: float) -> str:
    machine = f"Python {platform.python_version()}, {platform.system()} on {platform.machine()}, {os.cpu_count()} cores"
    said = f"Printed by `make bench` in one run of {seconds:.0f} s. {machine}."
    return f"# Results\n\n{said} Ratios carry over to other machines better than seconds do.\n"


if __name__ == "__main__":
    main(sys.argv[1:])
