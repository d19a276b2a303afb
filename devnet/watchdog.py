"""The watchdog: ends what the devnet started, when the devnet itself is gone and could not.

`python -m devnet.watchdog` reads lines "+<pid>" and "-<pid>" on its standard input: leaders of process groups that the
devnet started, and those that it ended. When the other end of the pipe closes, in whatever way the devnet died, kill -9
included, it kills the groups that are left, and itself ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterable


def watch(lines: Iterable[str]) -> set[int]:
    """Leaders still running when the lines end."""
    left: set[int] = set()
    for line in lines:
        sign, pid = line[:1], line[1:].strip()
        if pid.isdecimal() and sign in "+-":
            (left.add if sign == "+" else left.discard)(int(pid))
    return left


def main() -> None:
    for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_number, signal.SIG_IGN)
    for leader in watch(sys.stdin):
        with contextlib.suppress(OSError):
            os.killpg(leader, signal.SIGKILL)


if __name__ == "__main__":
    main()
