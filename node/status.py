"""What a daemon has done, read from its state folder and the chain, while it runs or not. Changes nothing."""

from __future__ import annotations

from typing import Any

from ledger.actions import calldata
from ledger.evm import EvmChain
from ledger.outbox_store import Intent, OutboxStore
from ledger.ports import ChainPort
from ledger.privacy import INFINITE_MICRO
from ledger.records import Phase
from ledger.signing import Key, open_keystore, read_password
from node.privacy_ledger import PrivacyLedger
from node.service import OUTBOX, PRIVACY, state_file
from node.settings import AggregatorSettings, BaseSettings, NodeSettings
from node.verifying import registration, registration_of
from proofs.errors import LocalFault


def node_status(settings: NodeSettings) -> dict[str, Any]:
    """Raises LocalFault for an unreadable state folder, WireFault when the chain does not answer."""
    chain, key, status = _common(settings)
    address = key.address
    member = next((m for m in chain.members() if address in (m.signer, m.next_signer)), None)
    entries = PrivacyLedger(state_file(settings, PRIVACY)).entries()
    return status | {
        "member": member.number if member else None,
        "member_status": member.status.name if member else None,
        "verifier": registration_of(member, key.verifier) if member else None,
        "epsilon_cap": _epsilon(member.cap_micro) if member else None,
        "epsilon_declared": _epsilon(member.spent_micro) if member else None,
        "epsilon_booked": _epsilon(entries[-1].spent_micro if entries else 0),
        "rounds_booked": len(entries),
    }


def node_registration(settings: NodeSettings) -> dict[str, Any]:
    """What an owner sends to register, or replace, the key with which this member verifies; public, as hex."""
    chain, key, _ = _common(settings)
    member = next((m for m in chain.members() if key.address in (m.signer, m.next_signer)), None)
    if member is None:
        raise LocalFault(f"0x{key.address.hex()} signs for no member: ask the coordinator to add it")
    action = registration(key.verifier, chain, member.number)
    return {
        "contract": "0x" + chain.federation_address.hex(),
        "member": member.number,
        "registered": registration_of(member, key.verifier),
        "key": "0x" + action.key.hex(),
        "proof": "0x" + action.proof.hex(),
        "calldata": "0x" + calldata(action).hex(),
    }


def aggregator_status(settings: AggregatorSettings) -> dict[str, Any]:
    """As `node_status`."""
    chain, key, status = _common(settings)
    order = chain.aggregators()
    return status | {"rank": order.index(key.address) if key.address in order else None, "aggregators": len(order)}


def _common(settings: BaseSettings) -> tuple[ChainPort, Key, dict[str, Any]]:
    key = open_keystore(settings.key.keystore, read_password(settings.key.password_file))
    chain = EvmChain(settings.chain.rpc_url, settings.chain.rounds)
    latest = chain.latest_round()
    view = chain.round_view(latest) if latest else None
    return (
        chain,
        key,
        {
            "address": "0x" + key.address.hex(),
            "chain_id": chain.chain_id,
            "head": chain.head().number,
            "balance_wei": chain.balance(key.address),
            "round": latest,
            "phase": (view.phase if view else Phase.NONE).name,
            "deadline_block": view.deadline_block if view else 0,
            "intents": intents_of(settings, chain, key.address),
        },
    )


def intents_of(settings: BaseSettings, chain: ChainPort, address: bytes) -> list[dict[str, Any]]:
    """What it meant to send, and what became of it."""
    return [_intent(intent) for intent in _intents(settings, chain, address)]


def _intents(settings: BaseSettings, chain: ChainPort, address: bytes) -> list[Intent]:
    path = state_file(settings, OUTBOX)
    if not path.exists():
        return []
    store = OutboxStore(path, chain.chain_id, chain.rounds_address, address)
    try:
        return store.all()
    finally:
        store.close()


def _intent(intent: Intent) -> dict[str, Any]:
    return {
        "intent": intent.name,
        "status": intent.status.value,
        "block": intent.block_number,
        "gas": intent.gas_used,
        "error": intent.error,
    }


def _epsilon(micro: int) -> float | str:
    return "infinite" if micro == INFINITE_MICRO else micro / 1e6
