"""Logs: one line an event, no forged lines, no secrets."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from node.logs import Log, line, to_stderr


def test_an_event_and_its_fields() -> None:
    assert line("step", {"done": 1, "steps": 6}) == "step done=1 steps=6"
    assert (
        line("x", {"digest": b"\xab\xcd", "why": "two words", "none": None})
        == 'x digest=abcd why="two words" none=None'
    )


def test_a_peers_text_cannot_forge_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers, root.level
    try:
        to_stderr()
        Log("node").info("judged", why="x\n2026-01-01T00:00:00Z INFO finalised\x1b[2J")
        logging.getLogger("library").warning("one\ntwo")
    finally:
        root.handlers, root.level = before
    written = capsys.readouterr().err.splitlines()
    assert len(written) == 2
    assert "\x1b" not in "".join(written)
    assert written[1].endswith("one | two")


def test_a_long_text_is_cut() -> None:
    assert len(line("x", {"why": "y" * 10_000})) < 700


def test_a_whole_round_logs_no_seed_and_no_key(
    make_world: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither do the pages, nor any file but the two that are there for it."""
    with caplog.at_level(logging.DEBUG):
        world = make_world()
        world.until_ended(1)
    shown = caplog.text + "".join(str(daemon.service.watch.health()) for daemon in world.daemons)
    assert "accepted" in shown
    for number in range(3):
        member = world.member(number)
        rows = member.parts.memory._database.read("SELECT seed FROM seeds")
        assert len(rows) == 2
        for secret in (member.key.secret, *(row[0] for row in rows)):
            assert secret.hex() not in shown
            assert repr(secret) not in shown
            for path in member.folder.rglob("*"):
                if path.is_file() and not path.name.startswith("member.sqlite"):
                    assert secret not in path.read_bytes(), path
            assert all(secret not in block for daemon in world.daemons for block in daemon.store.blocks.values())


def test_parts_of_a_daemon_show_no_secret(make_world: Callable[..., Any]) -> None:
    world = make_world()
    parts = world.member(0).parts
    assert parts.key.secret.hex() not in repr(parts)
    assert repr(parts.key.secret) not in repr(parts)
