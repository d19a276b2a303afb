"""Verifying a server's proof that the model of a receipt gives its answer (statement F, ledger.inference_proof).

The proof is of tokens. That these are the tokens of the receipt's texts takes the base's tokenizer, which `ledger` does
not have: it is found among the entry points as a replay is (ledger.log.replaying). Without it a server may have proven
its answer to another text, and so the whole stays NOT PROVEN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ledger.aggregation import aggregated
from ledger.audit_blocks import WALK, Walk
from ledger.audit_library import Library, Unsettled
from ledger.audit_open import Contents
from ledger.audit_trace import Origin, TraceSource, audit_origin
from ledger.base_program import Base
from ledger.bundle import bundle_limits, read_weights
from ledger.canonical import FieldInvalid, Fields, parse, unique
from ledger.history import History
from ledger.inference_proof import AnswerMalformed, Proven, verify_inference
from ledger.log.follower import settled_log
from ledger.log.inclusion import LogReport, receipt_link, texts_link
from ledger.log.kept import Kept
from ledger.report import Link, Name, Status, failed, missing, not_proven, passed
from proofs.errors import PeerFault, WireFault

Fit = Callable[[History, tuple[int, ...], int | None], str]
"""The audited rounds, tokens, and how many were given: nothing, or what is wrong."""
MAX_DEPTH = 8
NOT_LOOKED_AT = "not verified: receipt, texts or model do not hold"
DRAWN = "its tokens were drawn by chance, as the receipt says: greedy answers alone are proven"
OTHER_TEXT = (
    "whether these are the tokens of the receipt's texts takes the base's tokenizer, and is not compared here: "
)


def check_proof(
    source: TraceSource,
    contents: Contents,
    kept: Kept,
    data: bytes,
    base: Path,
    *,
    first_block: int = 0,
    fit: Fit | None = None,
    walk: Walk = WALK,
) -> LogReport:
    """Links receipt, texts, model and proof, and those of both contracts. fit: compares tokens with texts.

    Raises WireFault for a chain that cannot be read, and LocalFault for a base that is none or for which nothing can be
    proven.
    """
    found, chain = settled_log(source, first_block, walk=walk)
    entry = kept.receipt.entry
    origin = audit_origin(source, contents, entry.bundle, found.anchor, first_block=first_block, walk=walk)
    model, *rounds = origin.links
    held = (receipt_link(found, found.history.servers.get(entry.server), kept.receipt), texts_link(kept))
    told = {"server": "0x" + entry.server.hex(), "sequence": entry.sequence}
    proven = _proven(contents, kept, origin, held, data, base, fit)
    return LogReport("prove", found.anchor, (*held, model, *proven, *chain, *rounds), told)


def _proven(
    contents: Contents, kept: Kept, origin: Origin, held: Sequence[Link], data: bytes, base: Path, fit: Fit | None
) -> tuple[Link, ...]:
    """Nothing is verified for a receipt of which something else does not hold. Raises LocalFault."""
    if origin.number is None or any(link.status is not Status.PASS for link in held):
        return (not_proven(Name.PROOF, NOT_LOOKED_AT),)
    if kept.receipt.decoding.temperature:
        return (not_proven(Name.PROOF, DRAWN),)
    try:
        return _verified(contents, kept, origin, data, base, fit)
    except Unsettled as unsettled:
        return (unsettled.link(Name.PROOF),)
    except WireFault as error:
        return (missing(Name.PROOF, str(error)),)
    except PeerFault as error:
        return (failed(Name.PROOF, f"{type(error).__name__}: {error}"),)


def _verified(
    contents: Contents, kept: Kept, origin: Origin, data: bytes, base: Path, fit: Fit | None
) -> tuple[Link, ...]:
    """Raises PeerFault, WireFault, LocalFault."""
    entry, state = kept.receipt.entry, origin.history.rounds[max(origin.number or 0, 1)]
    config = Library(contents).config(state.opened.config_digest)
    config = aggregated(config, state.accepted) if origin.number else config
    weights = read_weights(contents.get_directory(entry.bundle, bundle_limits(config)), config)
    scores = scores_of(kept.response or b"", config.task.labels) if config.task.labels else None
    found = verify_inference(Base.open(base), config, weights, entry.leaf, scores, data)
    text = f"in zero knowledge: to {len(found.tokens)} tokens the model gives this answer, within τ = {found.tolerance}"
    if scores is not None and not found.decided:
        text += "; another label is as close as that"
    return passed(Name.PROOF, text), _fitting(origin.history, found, fit)


def _fitting(history: History, found: Proven, fit: Fit | None) -> Link:
    shown = {"tokens": list(found.tokens), "prompt": found.prompt}
    if fit is None:
        return missing(Name.PROOF, f"{OTHER_TEXT}{list(found.tokens)[:64]}", **shown)
    wrong = fit(history, found.tokens, found.prompt)
    if wrong:
        return failed(Name.PROOF, f"it is of other texts than the receipt's: {wrong}", **shown)
    return passed(Name.PROOF, f"these {len(found.tokens)} tokens are those of the receipt's texts", **shown)


def scores_of(response: bytes, labels: tuple[str, ...]) -> list[float]:
    """Of a classifier's answer, in the config's order; its label is the first of the largest. Raises
    AnswerMalformed."""
    try:
        told = parse(response, MAX_DEPTH, unique)
        (one,) = told["data"]
        reader = Fields(one["scores"], "scores")
        scores, label = [float(reader.take(label)) for label in labels], one["label"]
        reader.done()
    except (ValueError, KeyError, TypeError, OverflowError, FieldInvalid) as error:
        raise AnswerMalformed(f"the response has no scores of these labels ({type(error).__name__})") from error
    if label != labels[scores.index(max(scores))]:
        raise AnswerMalformed("the response names a label that does not have the largest of its scores")
    return scores
