"""Printing for the two commands: a table for people, JSON for programs. Decides nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from node.doctor import Check


def show(value: dict[str, Any], as_json: bool) -> None:
    """Names and values, one a line."""
    if as_json:
        typer.echo(json.dumps(value, indent=2))
        return
    for name, each in value.items():
        typer.echo(f"{name:18} {each}")


def print_status(status: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show(status, True)
        return
    intents = status.pop("intents")
    show(status, False)
    table = Table("intent", "status", "block", "gas", "error")
    for intent in intents:
        table.add_row(*(Text("" if value is None else str(value)) for value in intent.values()))
    Console().print(table)


def print_doctor(checks: Sequence[Check], as_json: bool) -> None:
    if as_json:
        body = [{"check": check.name, "ok": check.ok, "detail": check.detail} for check in checks]
        typer.echo(json.dumps({"ok": all(check.ok for check in checks), "checks": body}, indent=2))
        return
    table = Table("", "check", "found")
    for check in checks:
        mark = Text("ok", style="green") if check.ok else Text("FAILED", style="bold red")
        table.add_row(mark, check.name, Text(check.detail))
    Console().print(table)
