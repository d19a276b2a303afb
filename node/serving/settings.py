"""Settings of candor-serve: the tables that all daemons have (node.settings), and

    [model]   path, bundle, name, device
    [log]     contract, promise_blocks, auditors, checkpoint_s, publish_s
    [limits]  keys, body_bytes, prompt_tokens, max_tokens, queue, batch, gather_ms, request_s, connections,
              proofs

Raises SettingsInvalid.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from ledger.log.sealing import MAX_RECORD_BYTES
from node.settings import BaseSettings, Device, SettingsFile, SettingsTable, base_settings, model_path

LATEST: Final = "latest"


@dataclass(frozen=True)
class LogSettings:
    """promise_blocks: within so many blocks a checkpoint covers an answer; fixed on the chain at registration.
    auditors: addresses to whom records are sealed."""

    contract: bytes
    promise_blocks: int
    auditors: tuple[bytes, ...]
    checkpoint_s: float
    publish_s: float


@dataclass(frozen=True)
class LimitSettings:
    """keys: the file of API keys; None: no key is asked for, and the server listens on loopback alone.

    proofs: of the forward pass are made for whoever has a receipt; they take gigabytes.
    """

    keys: Path | None
    body_bytes: int
    prompt_tokens: int
    max_tokens: int
    queue: int
    batch: int
    gather_ms: int
    request_s: float
    connections: int
    proofs: bool = False


@dataclass(frozen=True)
class ServeSettings(BaseSettings):
    """model: a folder, or "package:NAME", of the base. bundle: a digest, or None for the newest FINAL aggregate."""

    model: str
    bundle: bytes | None
    name: str
    device: Device
    audit_log: LogSettings
    limits: LimitSettings


def load_serve(path: Path) -> ServeSettings:
    """Raises SettingsInvalid."""
    file = SettingsFile(path)
    base, model = base_settings(file), model_path(file)
    table = file.table("model")
    bundle = table.text("bundle", LATEST)
    settings = ServeSettings(
        **base,
        poll_s=file.table("node", required=False).number("poll_s", 1.0, least=0.01),
        model=model,
        bundle=None if bundle == LATEST else table.digits("bundle", 32),
        name=table.text("name", ""),
        device=cast(Device, table.choice("device", ("auto", "cpu", "cuda"), "auto")),
        audit_log=_log(file.table("log")),
        limits=_limits(file.table("limits", required=False)),
    )
    file.done()
    return settings


def _log(table: SettingsTable) -> LogSettings:
    auditors = []
    for text in table.texts("auditors"):
        address = bytes.fromhex(text[2:]) if _is_address(text) else None
        if address is None:
            raise table.fault("auditors", "expected addresses, like 0x and 40 hex digits")
        auditors.append(address)
    return LogSettings(
        contract=table.digits("contract", 20),
        promise_blocks=table.integer("promise_blocks", 300, least=1),
        auditors=tuple(auditors),
        checkpoint_s=table.number("checkpoint_s", 60.0, least=0.0),
        publish_s=table.number("publish_s", 300.0, least=0.0),
    )


def _is_address(text: str) -> bool:
    return len(text) == 42 and text[:2] == "0x" and all(char in "0123456789abcdefABCDEF" for char in text[2:])


def _limits(table: SettingsTable) -> LimitSettings:
    return LimitSettings(
        keys=table.path("keys") if table.has("keys") else None,
        body_bytes=table.integer("body_bytes", 1 << 18, least=1, most=MAX_RECORD_BYTES // 2),
        prompt_tokens=table.integer("prompt_tokens", 4096, least=1),
        max_tokens=table.integer("max_tokens", 512, least=1),
        queue=table.integer("queue", 128, least=1),
        batch=table.integer("batch", 16, least=1),
        gather_ms=table.integer("gather_ms", 5),
        request_s=table.number("request_s", 120.0, least=0.1),
        connections=table.integer("connections", 512, least=1),
        proofs=table.flag("proofs", False),
    )
