"""The outbox: an action is written down before it is sent, and sent until it has happened or cannot happen any more.

    QUEUED ──▶ SENT ──▶ DONE            mined and succeeded
       │         └────▶ FAILED          mined and reverted: `error` is the contract's own
       └──────────────▶ FAILED          the contract refuses it before anything was sent

Order of writes: intent; then nonce, fees and signed bytes; then the broadcast; then the outcome. A process killed
between any two of them finds, when it starts again, what it must do next, and sends the very same bytes. Two
transactions of one intent share its nonce (one replaces the other, with higher fees), so at most one is ever mined.

A DONE or FAILED intent stays watched until it is `confirmations` blocks deep: a reorg that takes its block away makes
it SENT again. One process per key: an OS lock that the kernel releases on kill -9. What no lock on this machine can
see, the same key on another one, shows as a nonce that somebody else has used: the intent then waits until that is
`confirmations` deep, and only then takes another nonce.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ledger.actions import Action, calldata
from ledger.crash import Point, reached
from ledger.locks import KeyLock
from ledger.outbox_store import Intent, OutboxStore, Status, Stored
from ledger.ports import ChainPort, ContractRefused, Fees, Receipt, SendRefused, address_of
from ledger.signing import Key
from ledger.transactions import Transaction, transaction_hash
from proofs.errors import LocalFault

__all__ = ["FeePolicy", "Intent", "IntentChanged", "Outbox", "Status"]

GWEI: Final = 10**9


class IntentChanged(LocalFault):
    """The same key was used for two different actions. An intent, once posted, never changes."""


@dataclass(frozen=True)
class FeePolicy:
    """cap_wei: never offer more per unit of gas. bump_after_blocks: raise the fees of what waits for longer."""

    cap_wei: int = 500 * GWEI
    bump_after_blocks: int = 8


class Outbox:
    """One sender for one key. Call `post` to intend, `pump` to make progress; both are safe to repeat."""

    def __init__(
        self,
        path: Path,
        chain: ChainPort,
        key: Key,
        *,
        confirmations: int = 12,
        fees: FeePolicy | None = None,
        lock_folder: Path | None = None,
    ) -> None:
        """Raises LocalFault: another process sends with this key, or the file belongs to another chain or key."""
        self._lock = KeyLock(chain.chain_id, key.address, lock_folder)
        try:
            self._store = OutboxStore(path, chain.chain_id, chain.rounds_address, key.address)
        except BaseException:
            self._lock.release()
            raise
        self._chain = chain
        self._key = key
        self._confirmations = confirmations
        self._fees = fees or FeePolicy()
        self._broadcast_at: dict[bytes, bytes] = {}  # transaction hash → head at its last broadcast by this process
        self._watched_at = b""

    def close(self) -> None:
        self._store.close()
        self._lock.release()

    def post(self, name: str, action: Action) -> Intent:
        """Intend `action` under an idempotency key, e.g. "round-3/submit". Durable when it returns; sends nothing.

        The same again returns what has become of it. Raises IntentChanged for another action under the same name.
        """
        known = self._store.get(name)
        if known is None:
            return self._store.add(name, action)
        if known.action != action:
            raise IntentChanged(f"intent {name!r} is already {type(known.action).__name__} with other fields")
        return known

    def get(self, name: str) -> Intent | None:
        return self._store.get(name)

    def intents(self) -> list[Intent]:
        """All of them, in the order in which they were posted."""
        return self._store.all()

    def pending(self) -> list[Intent]:
        """Those neither done nor failed."""
        return [*self._store.with_status(Status.SENT), *self._store.with_status(Status.QUEUED)]

    def retry(self, name: str) -> Intent:
        """Queue again an intent that failed before anything was sent. Raises LocalFault for any other."""
        intent = self._store.get(name)
        if intent is None or intent.status is not Status.FAILED or intent.nonce is not None:
            raise LocalFault(f"intent {name!r} did not fail before it was sent: it cannot be tried again")
        return self._store.update(replace(intent, status=Status.QUEUED, error=None, error_arguments=()))

    def pump(self) -> list[Intent]:
        """Settle, send and replace once; returns the intents whose status changed.

        Raises WireFault when the chain does not answer. Nothing is lost by that: call again.
        """
        watched = self._store.unsettled()
        before = {intent.name: intent.status for intent in (*watched, *self._store.with_status(Status.QUEUED))}
        self._watch_all(watched)
        for intent in self._store.with_status(Status.SENT):
            self._broadcast(intent)
        for intent in self._store.with_status(Status.QUEUED):
            self._sign_and_send(intent)
        self._watch_all(self._store.with_status(Status.SENT))
        after = [found for name in before if (found := self._store.get(name)) is not None]
        return [intent for intent in after if before[intent.name] is not intent.status]

    # ---- settling: by receipts and nonces, never by what an error said

    def _watch_all(self, intents: list[Intent]) -> None:
        """What is settled already can only change with the head; what is sent is looked at every time."""
        head = self._chain.head()
        mined = self._chain.nonce(self._key.address) if intents else 0
        for intent in intents:
            if intent.status is Status.SENT or head.hash != self._watched_at:
                self._watch(intent, head.number, mined)
        self._watched_at = head.hash

    def _watch(self, intent: Intent, head: int, mined: int) -> None:
        receipt = self._receipt(intent)
        if receipt is not None:
            self._settle(intent, receipt, head)
        elif intent.status is not Status.SENT:
            self._store.update(replace(intent, status=Status.SENT, block_number=None, tx_hash=None, error=None))
        elif intent.nonce is not None and mined > intent.nonce:
            self._nonce_taken(intent, head)

    def _receipt(self, intent: Intent) -> Receipt | None:
        receipts = (self._chain.receipt(stored.hash) for stored in self._store.transactions(intent.name))
        return next((receipt for receipt in receipts if receipt is not None), None)

    def _settle(self, intent: Intent, receipt: Receipt, head: int) -> None:
        """DONE or FAILED, and final once deep enough."""
        final = head - receipt.block_number >= self._confirmations
        if intent.status is not Status.SENT and intent.block_hash == receipt.block_hash:
            if final:
                self._store.update(replace(intent, final=True))
            return
        settled = replace(
            intent,
            status=Status.DONE if receipt.succeeded else Status.FAILED,
            tx_hash=receipt.tx_hash,
            block_number=receipt.block_number,
            block_hash=receipt.block_hash,
            gas_used=receipt.gas_used,
            final=final,
            taken_block=None,
        )
        if not receipt.succeeded:
            refused = self._chain.revert_reason(self._key.address, intent.action, receipt.block_number)
            settled = replace(settled, error=refused.name, error_arguments=tuple(map(str, refused.arguments)))
        self._store.update(settled)
        reached(Point.OUTBOX_SETTLED)

    def _nonce_taken(self, intent: Intent, head: int) -> None:
        """Our nonce is used and none of our transactions used it. Once that is deep, they can never be mined."""
        if intent.taken_block is None:
            self._store.update(replace(intent, taken_block=head))
        elif head - intent.taken_block >= self._confirmations:
            self._store.requeue(intent)

    # ---- sending

    def _sign_and_send(self, intent: Intent) -> None:
        """One intent after the other, so that each is tried on the state that those before it lead to."""
        try:
            gas_limit = self._chain.estimate(self._key.address, intent.action)
        except ContractRefused as refused:
            arguments = tuple(map(str, refused.arguments))
            self._store.update(replace(intent, status=Status.FAILED, error=refused.name, error_arguments=arguments))
            reached(Point.OUTBOX_SETTLED)
            return
        used = self._chain.nonce(self._key.address, pending=not self._store.has_signed())
        nonce = max(used, self._store.next_nonce())
        self._store_signed(intent, nonce, gas_limit, self._capped(self._chain.fees()))
        self._broadcast(intent)

    def _capped(self, fees: Fees) -> Fees:
        most = min(fees.max_fee_wei, self._fees.cap_wei)
        return Fees(most, min(fees.priority_fee_wei, most))

    def _store_signed(self, intent: Intent, nonce: int, gas_limit: int, fees: Fees) -> None:
        transaction = Transaction(
            chain_id=self._chain.chain_id,
            nonce=nonce,
            priority_fee_wei=fees.priority_fee_wei,
            max_fee_wei=fees.max_fee_wei,
            gas_limit=gas_limit,
            to=address_of(self._chain, intent.action.target),
            value_wei=0,
            data=calldata(intent.action),
        )
        raw = self._key.sign_transaction(transaction)
        head = self._chain.head().number
        self._store.add_signed(intent, Stored(transaction_hash(raw), raw, nonce, gas_limit, fees, head))
        reached(Point.OUTBOX_SIGNED)

    def _broadcast(self, intent: Intent) -> None:
        """Hand the newest transaction to the node, once per head: a pool may forget, and reorgs do not give back."""
        head = self._chain.head()
        newest = self._store.transactions(intent.name)[-1]
        if head.number - newest.signed_block >= self._fees.bump_after_blocks:
            newest = self._bump(intent, newest, head.number)
        if self._broadcast_at.get(newest.hash) == head.hash:
            return
        note = self._send(newest)
        self._broadcast_at[newest.hash] = head.hash
        self._store.mark_broadcast(intent, newest, note)
        reached(Point.OUTBOX_BROADCAST)

    def _send(self, stored: Stored) -> str | None:
        try:
            self._chain.send_raw(stored.raw)
        except SendRefused as error:
            return str(error)
        return None

    def _bump(self, intent: Intent, old: Stored, head: int) -> Stored:
        """A replacement with the same nonce, if the fees asked for now, or 12.5 % more, stay below the cap."""
        fresh = self._chain.fees()
        raised = Fees(
            max(fresh.max_fee_wei, _more(old.fees.max_fee_wei)),
            max(fresh.priority_fee_wei, _more(old.fees.priority_fee_wei)),
        )
        if raised.max_fee_wei > self._fees.cap_wei or old.nonce < self._chain.nonce(self._key.address):
            return old
        self._store_signed(intent, old.nonce, old.gas_limit, raised)
        return self._store.transactions(intent.name)[-1]


def _more(fee_wei: int) -> int:
    """Nodes take a replacement from 10 % more on."""
    return fee_wei + fee_wei // 8 + 1
