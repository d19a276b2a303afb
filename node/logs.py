"""Logs: one line an event, `time level event key=value …`, to standard error. No value is ever a secret.

Values with spaces or quotes are written as JSON strings, bytes as hex, so that a line splits the same way for a person
and for a program. Control characters cannot get through: a peer's text cannot forge a line.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from typing import Any

_PLAIN = re.compile(r"[\w.:/+∞-]+")
MAX_VALUE_CHARS = 600


class Log:
    """`Log("node").info("committed", round=3, member=0)`."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"candor.{name}")

    def info(self, event: str, **fields: Any) -> None:
        self._logger.info("%s", line(event, fields))

    def warning(self, event: str, **fields: Any) -> None:
        self._logger.warning("%s", line(event, fields))

    def error(self, event: str, **fields: Any) -> None:
        self._logger.error("%s", line(event, fields))


def line(event: str, fields: dict[str, Any]) -> str:
    """The event and its fields on one line."""
    return " ".join([event, *(f"{key}={_shown(value)}" for key, value in fields.items())])


def to_stderr(level: int = logging.INFO) -> None:
    """Configure the process's logging, once, at the start of a daemon."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter("%(asctime)sZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(_OneLine(formatter))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("candor").setLevel(level)


class _OneLine(logging.Formatter):
    """Whatever a library logs, a traceback too, stays on one line."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        text = self._inner.format(record)
        joined = text.replace("\n", " | ")
        return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in joined)


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()
    text = str(value)
    if len(text) > MAX_VALUE_CHARS:
        text = text[: MAX_VALUE_CHARS - 3] + "..."
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=not text.isprintable())
