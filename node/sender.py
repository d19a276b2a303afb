"""Intents with a memory: send an action once, and again only when what refused it can pass.

The outbox makes an intent durable and sends the same bytes until it has happened. What it cannot know is whether a
refusal is for good: "too early" passes with the next block, a reorg or another's transaction; "over the cap" does not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from ledger.actions import Action
from ledger.crash import Point, reached
from ledger.outbox import Intent, Outbox, Status
from node.logs import Log
from node.watch import BaseWatch

PASSING: Final = frozenset(
    {
        "NotYet",
        "TooFewVerifiers",
        "NotYourTurn",
        "WrongPhase",
        "UnknownRound",
        "NotCommitted",
        "BadHeader",
        "RoundStillOpen",
        "Unknown",
    }
)
ATTEMPTS: Final = 5


@dataclass
class Sender:
    """`ensure` intends, `pump` makes progress; both are safe to repeat."""

    outbox: Outbox
    watch: BaseWatch
    log: Log
    _given_up: set[str] = field(default_factory=set)

    def ensure(self, name: str, action: Action, point: Point, *, repeat: bool = False) -> None:
        """Durably intend `action`. An attempt that a passing circumstance refused is made again, a few times if it
        cost gas; with `repeat`, one that succeeded too (an `advance` that only moved half a step)."""
        for attempt in range(1, ATTEMPTS + 1):
            full = name if attempt == 1 else f"{name}#{attempt}"
            known = self.outbox.get(full)
            if known is None:
                self.outbox.post(full, action)
                reached(point)
                self.log.info("intended", intent=full)
                return
            if not self._again(known, action, repeat):
                return

    def pump(self) -> None:
        """Settle and send. Raises WireFault when the chain does not answer."""
        for intent in self.outbox.pump():
            self._tell(intent)

    def _again(self, known: Intent, action: Action, repeat: bool) -> bool:
        """Is a further attempt to be made under another name?"""
        if known.status is Status.DONE:
            return repeat
        if known.status is not Status.FAILED:
            return False
        if known.error not in PASSING:
            if known.name not in self._given_up:
                self._given_up.add(known.name)
                self.log.error(
                    "refused", intent=known.name, error=known.error, arguments=",".join(known.error_arguments)
                )
            return False
        if known.nonce is None:
            self.outbox.retry(self.outbox.post(known.name, action).name)
            return False
        return True

    def _tell(self, intent: Intent) -> None:
        if intent.status is Status.DONE:
            self.watch.gas(intent.gas_used or 0)
            self.log.info("mined", intent=intent.name, block=intent.block_number, gas=intent.gas_used)
        elif intent.status is Status.FAILED and intent.nonce is not None:
            self.watch.gas(intent.gas_used or 0)
            self.log.warning("reverted", intent=intent.name, error=intent.error)
        elif intent.status is Status.FAILED:
            self.log.info("not sent", intent=intent.name, error=intent.error)
