"""What a federation costs on chain: gas by action and round, counted from the blocks themselves."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from devnet.anvil import Anvil
from ledger.actions import CalldataInvalid, Open, decode_calldata


@dataclass
class GasMeter:
    """Reads blocks from `next_block` on. `by_round` counts gas, `by_action` (gas, transactions) of Rounds calls."""

    anvil: Anvil
    rounds: bytes
    next_block: int
    by_round: Counter[int] = field(default_factory=Counter)
    by_action: dict[str, list[int]] = field(default_factory=dict)
    _opened: int = 0

    @property
    def total(self) -> int:
        return sum(self.by_round.values())

    def read_to(self, last_block: int) -> None:
        """Count everything up to and including `last_block`. Raises AnvilFault."""
        while self.next_block <= last_block:
            for receipt in self.anvil.rpc("eth_getBlockReceipts", hex(self.next_block)) or ():
                if (receipt["to"] or "").lower() == f"0x{self.rounds.hex()}":
                    self._count(receipt)
            self.next_block += 1

    def _count(self, receipt: dict[str, Any]) -> None:
        sent = self.anvil.rpc("eth_getTransactionByHash", receipt["transactionHash"])
        try:
            action = decode_calldata("rounds", bytes.fromhex(sent["input"].removeprefix("0x")))
        except CalldataInvalid:
            return
        succeeded = int(receipt["status"], 16) == 1
        if isinstance(action, Open):
            self._opened += succeeded
            number = self._opened
        else:
            number = int(getattr(action, "round", 0))
        used = int(receipt["gasUsed"], 16)
        self.by_round[number] += used
        self.by_action.setdefault(type(action).__name__ if succeeded else "refused", []).append(used)
