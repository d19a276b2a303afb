"""Configs as an audit reads them: each once, and of those not in use only the few numbers that later rounds need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ledger.audit_open import Contents
from ledger.config import MAX_CONFIG_BYTES, Config
from ledger.content.errors import ContentMissing
from ledger.privacy import UNBOUNDED, Spend, spend_of
from ledger.report import Link, Name, failed, missing
from proofs.errors import CandorError, PeerFault

MAX_CONFIGS_KEPT: Final = 4096


class Unsettled(CandorError):
    """A link cannot be settled; carries what to report. Never leaves the audit."""

    def __init__(self, cause: str, *, peer: bool) -> None:
        self.cause, self.peer = cause, peer
        super().__init__(cause)

    def link(self, name: Name) -> Link:
        return failed(name, self.cause) if self.peer else missing(name, self.cause)


@dataclass(frozen=True)
class ConfigFacts:
    """What later rounds need of a config."""

    base_digest: bytes
    spend: Spend


class Library:
    """Configs by digest, each read once; of those not in use only a few numbers are kept."""

    def __init__(self, contents: Contents) -> None:
        self.contents = contents
        self._facts: dict[bytes, ConfigFacts] = {}

    def config(self, digest: bytes) -> Config:
        """Raises Unsettled."""
        try:
            config = Config.decode(self.contents.get_raw(digest, MAX_CONFIG_BYTES))
        except ContentMissing as error:
            raise Unsettled(str(error), peer=False) from error
        except PeerFault as error:
            raise Unsettled(f"config {digest.hex()}: {error}", peer=True) from error
        if len(self._facts) < MAX_CONFIGS_KEPT:
            self._facts[digest] = ConfigFacts(config.base_digest, spend_of(config))
        return config

    def facts(self, digest: bytes) -> ConfigFacts:
        """Raises Unsettled."""
        if digest not in self._facts:
            config = self.config(digest)
            return ConfigFacts(config.base_digest, spend_of(config))
        return self._facts[digest]

    def spend(self, digest: bytes) -> Spend:
        """What submitting to a round cost: without bound under bytes that are no config. Raises Unsettled."""
        try:
            return self.facts(digest).spend
        except Unsettled as unsettled:
            if unsettled.peer:
                return UNBOUNDED
            raise
