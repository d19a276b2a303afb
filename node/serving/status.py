"""What a server has done, from its state folder, the chain, and itself if it runs. Changes nothing."""

from __future__ import annotations

import json
from typing import Any

import requests

from ledger.eip712 import Domain
from ledger.evm import EvmChain
from ledger.log.guard import CheckpointGuard
from ledger.ports import ContractRefused
from ledger.signing import open_keystore, read_password
from node.service import state_file
from node.serving.daemon import CHECKPOINTS, PUBLISHED
from node.serving.publishing import read_published
from node.serving.settings import ServeSettings
from node.status import intents_of
from proofs.errors import WireFault


def serve_status(settings: ServeSettings) -> dict[str, Any]:
    """With a chain that is away, what the folder and the server itself know: `running` says what waits, and for how
    long. Raises LocalFault for an unreadable state folder."""
    key = open_keystore(settings.key.keystore, read_password(settings.key.password_file))
    published = read_published(state_file(settings, PUBLISHED))
    try:
        told = _by_the_chain(settings, key.address)
    except WireFault as error:
        told = {"chain": str(error), "intents": []}
    intents = told.pop("intents")
    return {
        "address": f"0x{key.address.hex()}",
        **told,
        "published": published.size if published else 0,
        "published_cid": published.cid if published else None,
        "running": running(settings),
        "intents": intents,
    }


def _by_the_chain(settings: ServeSettings, address: bytes) -> dict[str, Any]:
    """Raises WireFault."""
    chain = EvmChain(settings.chain.rpc_url, settings.chain.rounds, log=settings.audit_log.contract)
    try:
        server = chain.log_server(address)
        anchored: dict[str, Any] = {
            "anchored": server.size,
            "promise_blocks": server.promise_blocks,
            "omissions_reported": server.reports,
            "omissions_answered": server.answers,
            "forked": bool(server.fork_block),
        }
    except ContractRefused:
        anchored = {"anchored": None}
    return {
        "chain_id": chain.chain_id,
        "head": chain.head().number,
        "balance_wei": chain.balance(address),
        **anchored,
        "signed": _signed(settings, Domain(chain.chain_id, chain.log_address), address),
        "intents": intents_of(settings, chain, address),
    }


def running(settings: ServeSettings) -> dict[str, Any] | None:
    """What the server itself says at /health; None if it does not answer, or listens on a port of its own choice."""
    host, port = settings.http.host, settings.http.port
    if not port:
        return None
    try:
        with requests.Session() as session:
            session.trust_env = False
            found: dict[str, Any] = session.get(f"http://{host}:{port}/health", timeout=5).json()
            return found
    except (requests.RequestException, json.JSONDecodeError):
        return None


def _signed(settings: ServeSettings, domain: Domain, server: bytes) -> int:
    path = state_file(settings, CHECKPOINTS)
    if not path.exists():
        return 0
    guard = CheckpointGuard(path)
    try:
        last = guard.last(domain, server)
        return last.size if last else 0
    finally:
        guard.close()
