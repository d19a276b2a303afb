"""Measurements in one run: `make bench`. A full run is also written to benchmarks/RESULTS.md.

There a section has one block of what was printed. Its prose, and sections of other commands, stay as they are.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import platform
import re
import sys
import time
from pathlib import Path

MODULES = ("training", "content", "round", "mechanism", "accounting", "log_gas", "fingerprints")
RESULTS = Path(__file__).parent / "RESULTS.md"
HEADING = re.compile("^Printed by `make bench` .*$", re.MULTILINE)


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
    began, printed = time.monotonic(), {}
    for name in names or MODULES:
        tee = Tee()
        with contextlib.redirect_stdout(tee):
            importlib.import_module(f"benchmarks.{name}").main()
            print()
        printed[name] = "".join(tee.kept).strip()
    if not names:
        text = HEADING.sub(lambda _: heading(time.monotonic() - began), RESULTS.read_text(encoding="utf-8"), count=1)
        for name, block in printed.items():
            text = with_block(text, name, block)
        RESULTS.write_text(text, encoding="utf-8")


def with_block(text: str, name: str, block: str) -> str:
    """`text` with another block in the section whose title begins with `name`; a new section comes last."""
    fenced = f"```\n{block}\n```"
    section = re.compile(rf"(^## {name}\b[^#]*?)^```\n.*?^```$", re.DOTALL | re.MULTILINE)
    found = section.search(text)
    return section.sub(lambda at: at[1] + fenced, text, count=1) if found else f"{text}\n## {name}\n\n{fenced}\n"


def heading(seconds: float) -> str:
    machine = f"Python {platform.python_version()}, {platform.system()} on {platform.machine()}, {os.cpu_count()} cores"
    said = f"Printed by `make bench` in one run of {seconds:.0f} s, but for sections that name a command. {machine}."
    return f"{said} Ratios carry over to other machines better than seconds do."


if __name__ == "__main__":
    main(sys.argv[1:])
