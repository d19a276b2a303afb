"""Persistence points: the instants right after something durable was written, where tests pull the plug.

`reached(point)` does nothing unless the environment says CANDOR_CRASH_AT=<point>, and then the process kills itself
with SIGKILL, as a power cut would. The enumeration is the list that the crash tests walk; a point that no test reaches,
or a durable write without a point, is a defect.
"""

from __future__ import annotations

import os
import signal
from enum import StrEnum


class Point(StrEnum):
    """Each value names what has just become durable."""

    NODE_WORDS_SEED = "node-words-seed"  # the secret seed of a round's words
    NODE_COMMIT_INTENT = "node-commit-intent"
    NODE_BUDGET = "node-budget"  # ε reserved, no noise drawn yet
    NODE_BUNDLE = "node-bundle"  # bundle in the content store, not yet signed
    NODE_SIGNED = "node-signed"  # the signing guard has recorded the submission's digest
    NODE_SUBMIT_INTENT = "node-submit-intent"
    NODE_SHOWN = "node-shown"  # proofs of gradients in the content store, not yet named on chain
    NODE_PROVE_INTENT = "node-prove-intent"
    NODE_VERDICTS = "node-verdicts"  # the signing guard has recorded the verdicts that this verifier signed
    NODE_DISSENT_INTENT = "node-dissent-intent"
    NODE_VERIFIER_INTENT = "node-verifier-intent"  # a first verifier key is to be registered
    NODE_OBJECT_INTENT = "node-object-intent"
    AGGREGATOR_OPEN_INTENT = "aggregator-open-intent"
    AGGREGATOR_VERDICTS = "aggregator-verdicts"  # reasons decided and stored, not yet sent
    AGGREGATOR_VERDICTS_INTENT = "aggregator-verdicts-intent"
    AGGREGATOR_AGGREGATE = "aggregator-aggregate"  # aggregate bundle in the content store
    AGGREGATOR_PROPOSE_INTENT = "aggregator-propose-intent"
    OUTBOX_SIGNED = "outbox-signed"  # nonce and raw transaction stored, not yet broadcast
    OUTBOX_BROADCAST = "outbox-broadcast"  # broadcast, outcome unknown to the outbox
    OUTBOX_SETTLED = "outbox-settled"  # outcome stored
    FOLLOWER_APPLIED = "follower-applied"  # events and cursor stored
    ADVANCE_INTENT = "advance-intent"
    LOG_APPENDED = "log-appended"  # entries and sealed records in the journal of an inference log, no answer sent yet
    LOG_TILE = "log-tile"  # a full tile of hashes, its bundle not yet
    LOG_BUNDLE = "log-bundle"  # a full bundle, whose entries the journal still has
    LOG_RECORDS = "log-records"  # files of sealed records that the journal still has
    LOG_TRIMMED = "log-trimmed"  # the journal without them
    LOG_SIGNED = "log-signed"  # the guard of a log has recorded the checkpoint that it signed
    LOG_PUBLISHED = "log-published"  # the partial tiles of the present size
    SERVE_REGISTER_INTENT = "serve-register-intent"
    SERVE_AUDITORS_INTENT = "serve-auditors-intent"
    SERVE_CHECKPOINT = "serve-checkpoint"  # the file `checkpoint` beside the tiles
    SERVE_CONTENT = "serve-content"  # the log's directory in the content store, not yet remembered
    SERVE_PUBLISHED = "serve-published"  # remembered as the last one that was published
    SERVE_CHECKPOINT_INTENT = "serve-checkpoint-intent"


def reached(point: Point) -> None:
    """Die here if a crash test asked for it."""
    if os.environ.get("CANDOR_CRASH_AT") == point.value:
        os.kill(os.getpid(), signal.SIGKILL)
