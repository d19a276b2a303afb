"""What candor-audit finds among the entry points candor.audit, `replay` and `texts`: node.replay in the audit's nouns.

The model is loaded as candor-serve loads it (node.engine), by the rounds that the auditor audited: a bundle counts only
if one of them ended with it. A genesis is no such bundle, and candor-serve answers with none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ledger.log.replaying import Asked, Replayed
from ledger.report import Status
from node.engine import Engine, NotFinal, load_of
from node.replay import Misread, Verdict, read
from node.replay import replay as run_again
from node.serving.reading import Labelled
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
        return Replayed(Status.NOT_PROVEN, f"no round ended with the model that the entry names: {error}")
    found = run_again(asked.record, engine)
    data = {
        "why": found.why.name,
        "differs_at": found.differs_at,
        "close": found.close,
        "distance": str(found.distance),
    }
    return Replayed(STATUS[found.verdict], f"{found.verdict}: {found.why}; {found.detail}", data)


def texts(asked: Asked, tokens: Sequence[int], prompt: int | None) -> str:
    """Implements ledger.log.replaying.TextsFit."""
    try:
        request, said, answer = read(asked.record, _engine(asked))
    except (NotFinal, Misread) as error:
        return str(error)
    expected = (*request.tokens, *answer)
    given = None if isinstance(said, Labelled) else len(request.tokens)
    if (tuple(tokens), prompt) == (expected, given):
        return ""
    return f"the texts have {len(expected)} tokens, {given} of them given; proven is something of {len(tokens)} others"


def _engine(asked: Asked) -> Engine:
    if asked.base is None:
        raise LocalFault("--base is needed: the folder of the base model, or package:NAME")
    return load_of(asked.history, asked.contents, asked.entry.bundle, str(asked.base))
