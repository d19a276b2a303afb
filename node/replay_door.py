"""What `candor-audit inference replay` finds as the entry point candor.audit/replay: node.replay in the audit's nouns.

The model is loaded as candor-serve loads it (node.engine): a bundle counts only if a round of the chain ended with it.
"""

from __future__ import annotations

from typing import Final, cast

from ledger.content import ContentStore
from ledger.log.replaying import Asked, Replayed
from ledger.report import Status
from node.engine import Engine, NotFinal, load
from node.replay import Verdict
from node.replay import replay as run_again
from proofs.errors import LocalFault

STATUS: Final = {
    Verdict.MATCH: Status.PASS,
    Verdict.MISMATCH: Status.FAIL,
    Verdict.UNDECIDED: Status.NOT_PROVEN,
}


def replay(asked: Asked) -> Replayed:
    """Implements ledger.log.replaying.Replayer."""
    try:
        engine = _engine(asked)
    except NotFinal as error:
        return Replayed(Status.FAIL, f"the entry names a model that the chain has not: {error}")
    found = run_again(asked.record, engine)
    data = {
        "why": found.why.name,
        "differs_at": found.differs_at,
        "close": found.close,
        "distance": str(found.distance),
    }
    return Replayed(STATUS[found.verdict], f"{found.verdict}: {found.why}; {found.detail}", data)


def _engine(asked: Asked) -> Engine:
    if asked.base is None:
        raise LocalFault("--base is needed: the folder of the base model, or package:NAME")
    chain = asked.chain
    store = cast(ContentStore, asked.contents)  # an engine only reads
    return load(chain, store, chain.rounds_address, asked.entry.bundle, str(asked.base), start_block=asked.first_block)
