"""The end of the demo: what the rounds led to is served, its answers are audited, and a rewrite of history is refused.

    DIR/server/       settings.toml, key.json, password, content/, state/ with the log, log.txt
    DIR/auditor/      key.json (its account), reader.json (the X25519 key to which records are sealed), password
    DIR/answers/N/    request, response, receipt.json: what a user keeps of each answer

candor-serve and candor-audit are processes of their own, as everywhere in the devnet.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import requests
import tomli_w

from devnet.federation import SCRYPT_N, Federation, Site, common_settings, door, free_ports, fund, make_key
from devnet.processes import Supervisor
from ledger.audit_door import EXIT_OF
from ledger.audit_open import FirstOf
from ledger.base_program import Base
from ledger.base_settings import ArchitectureUnknown
from ledger.bundle import CONFIG, read_weights
from ledger.config import Config
from ledger.content import EmbeddedStore
from ledger.deploy import act, deploy_log
from ledger.eip712 import Domain
from ledger.evm import EvmChain
from ledger.log import statements
from ledger.log.actions import PostCheckpoint, RegisterAuditor
from ledger.log.key_file import create_key_file
from ledger.log.statements import Checkpoint
from ledger.log.store import LogStore
from ledger.ports import ContractRefused
from ledger.report import Status
from node.model import resolve
from node.serving.ask import ask
from node.serving.daemon import LOG_FOLDER
from proofs.errors import LocalFault
from proofs.gradient.numbers import ProgramRefused
from proofs.merkle import consistency_path, leaf_hash, root_of_hashes

ANSWER_BLOCKS: Final = 60
PROMISE_BLOCKS: Final = 60
ANSWERS: Final = 3
LONGEST_TEXT: Final = 60  # characters: the tiny preset reads 64 bytes
MAX_TOKENS: Final = 16
PROVE: Final = "prove"
UNPROVEN: Final = EXIT_OF[Status.NOT_PROVEN]
SAID: Final = {code: str(status) for status, code in EXIT_OF.items()}
START_S, SETTLE_S, AUDIT_S = 300.0, 120.0, 600.0
POLL_S: Final = 0.1


class NotServed(LocalFault):
    """The server did not start, or did not get what it wrote onto the chain."""


@dataclass(frozen=True)
class Served:
    """audits: command and exit code of each audit; refused: the contract's word on the rewrite, "" if it took it;
    no_program: why there can be no proof of this model's answers, see `no_program`; "" where there has to be one."""

    answers: tuple[str, ...]
    audits: dict[str, int]
    refused: str
    no_program: str

    @property
    def failed(self) -> bool:
        """Not for want of a proof that there cannot be."""
        wrong = [name for name, code in self.audits.items() if code and not self._borne(name, code)]
        return bool(wrong) or not self.refused

    def _borne(self, name: str, code: int) -> bool:
        return bool(self.no_program) and name.startswith(PROVE) and code == UNPROVEN

    def to_json(self) -> dict[str, Any]:
        return {
            "answers": list(self.answers),
            "audits": self.audits,
            "rewrite": self.refused or "TAKEN",
            "no_program": self.no_program or None,
        }


@dataclass(frozen=True)
class Counter:
    """Where answers are given: the server's place, the contract of logs, the auditor's folder."""

    federation: Federation
    site: Site
    log: bytes
    auditor: Path

    @property
    def chain(self) -> EvmChain:
        deployment, url = self.federation.deployment, self.federation.anvil.rpc_url
        return EvmChain(url, deployment.rounds, chain_id=deployment.chain_id, log=self.log)

    def audit(self, command: str, *arguments: str | Path) -> int:
        """Exit code of `candor-audit inference COMMAND`."""
        places = [*self.federation.audit_arguments(), "--audit-log", f"0x{self.log.hex()}", "--log", self.site.url]
        words = [door("candor-audit"), "inference", command, *arguments, *places]
        done = subprocess.run(
            [str(word) for word in words], capture_output=True, text=True, timeout=AUDIT_S, check=False
        )
        (self.site.folder / f"audit-{command}.txt").write_text(done.stdout + done.stderr)
        return done.returncode


def serve_and_audit(federation: Federation, supervisor: Supervisor, tell: Callable[[str], None]) -> Served:
    """Raises NotServed and the faults of what it calls."""
    counter = _set_up(federation)
    supervisor.start(
        "server", [door("candor-serve"), "run", "--config", counter.site.settings], counter.site.folder / "log.txt"
    )
    facts = _until(counter, supervisor, lambda found: bool(found.get("ok")), START_S)
    bundle, address = str(facts["bundle"]), str(facts["address"])
    tell(f"candor-serve answers with the bundle {bundle[:10]}… under the key {address[:12]}…")
    answers = _ask(federation, counter, tell)
    facts = _until(counter, supervisor, lambda found: 0 < found["entries"] == found["anchored"], SETTLE_S)
    tell(f"{facts['anchored']} entries are anchored, in block {counter.chain.head().number} or before")
    audits = _audit(federation, counter, bundle, len(answers), tell)
    unknown = no_program(federation, bytes.fromhex(bundle))
    if unknown:
        tell(f"no proof of an answer can be made of this model: {unknown}")
    supervisor.stop("server")
    refused = rewrite(counter)
    tell(f"a checkpoint over another history, signed with the server's own key: {refused or 'TAKEN'}")
    return Served(tuple(answers), audits, refused, unknown)


def _set_up(federation: Federation) -> Counter:
    """Contract, keys, and the server's settings."""
    plan, anvil = federation.plan, federation.anvil
    folder, auditor = plan.directory / "server", plan.directory / "auditor"
    for each in (folder, auditor):
        each.mkdir()
    key, reads = make_key(folder), make_key(auditor)
    for address in (key.address, reads.address):
        fund(anvil, address)
    log = deploy_log(anvil.rpc_url, federation.aggregators[0].key, ANSWER_BLOCKS)
    counter = Counter(federation, Site("server", folder, key, free_ports(1)[0]), log, auditor)
    password = (auditor / "password").read_text().strip()
    public = create_key_file(auditor / "reader.json", password, scrypt_n=SCRYPT_N).public
    act(counter.chain, reads, RegisterAuditor(public))
    counter.site.settings.write_text(tomli_w.dumps(_settings(counter, reads.address)))
    return counter


def _settings(counter: Counter, auditor: bytes) -> dict[str, Any]:
    federation, site = counter.federation, counter.site
    return {
        **common_settings(federation, site, [other.url for other in federation.sites]),
        "model": {"path": federation.plan.preset.base_path, "device": "cpu"},
        "log": {
            "contract": f"0x{counter.log.hex()}",
            "promise_blocks": PROMISE_BLOCKS,
            "auditors": [f"0x{auditor.hex()}"],
            "checkpoint_s": 1.0,
            "publish_s": 1.0,
        },
        "limits": {"proofs": True},
    }


def _ask(federation: Federation, counter: Counter, tell: Callable[[str], None]) -> list[str]:
    rows = (federation.plan.directory / "held-out.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(row)["text"][:LONGEST_TEXT] for row in rows[:ANSWERS]]
    asked: list[tuple[str, list[str]]] = [(text, []) for text in texts]
    if federation.mixture is not None:  # and once more without one of its parents
        asked.append((texts[0], [federation.mixture.adapter.parents[0].hex()]))
    answers = []
    for number, (text, without) in enumerate(asked):
        kept = ask(counter.site.url, text, max_tokens=MAX_TOKENS, temperature=0.0, leave_out=without or None)
        kept.write(counter.federation.plan.directory / "answers" / str(number))
        answers.append(_said(json.loads(kept.response)))
        left_out = "".join(f" without {bundle[:10]}…" for bundle in without)
        tell(f"answer {number}: {text!r}{left_out}: {answers[-1]}")
    return answers


def _said(answer: dict[str, Any]) -> str:
    """A label, or the text."""
    return str(answer["data"][0]["label"]) if "data" in answer else repr(answer["choices"][0]["text"])


def _audit(
    federation: Federation, counter: Counter, bundle: str, number: int, tell: Callable[[str], None]
) -> dict[str, int]:
    """All receipts; one answer given again by an auditor with its key, and proven by the server; the whole log. Of a
    mixture, the last answer too is given again."""
    answers = federation.plan.directory / "answers"
    asked: list[str | Path] = ["--bundle", bundle]
    key: list[str | Path] = ["--key", counter.auditor / "reader.json", "--password-file", counter.auditor / "password"]
    base: list[str | Path] = ["--base", resolve(federation.plan.preset.base_path)]
    audits = {f"verify {each}": [answers / str(each), *asked] for each in range(number)}
    again = (0,) if federation.mixture is None else (0, number - 1)
    audits |= {f"replay {each}": [answers / str(each), *key, *base] for each in again}
    audits |= {f"{PROVE} 0": [answers / "0", *base], "fsck": []}
    found = {}
    for name, words in audits.items():
        found[name] = counter.audit(name.partition(" ")[0], *words)
        tell(f"candor-audit inference {name}: {SAID.get(found[name], f'exit code {found[name]}')}")
    return found


def no_program(federation: Federation, bundle: bytes) -> str:
    """Why H (proofs/gradient) has no program for the model of a bundle; "" if it has one. Looked up here: a server that
    should prove, and only says that it cannot, fails the demo."""
    stores = [(site.name, EmbeddedStore(site.content, writable=False)) for site in federation.sites]
    files = FirstOf(stores).get_directory(bundle, federation.limits)
    config = Config.decode(files[CONFIG])
    try:
        Base.open(resolve(federation.plan.preset.base_path)).program(config, read_weights(files, config))
    except (ArchitectureUnknown, ProgramRefused) as error:
        return str(error)
    return ""


def rewrite(counter: Counter) -> str:
    """What the server's owner tries with its own key: the same log with another first answer, and one more entry.
    Returns why the contract refuses it."""
    chain, key = counter.chain, counter.site.key
    anchored = chain.log_server(key.address).size
    log = LogStore(counter.site.folder / "state" / LOG_FOLDER)
    try:
        tree = log.tree(anchored)
        leaves = [leaf_hash(b"another answer"), *(tree.leaf(at) for at in range(1, anchored)), leaf_hash(b"one more")]
    finally:
        log.close()
    forged = Checkpoint(len(leaves), root_of_hashes(leaves))

    def node(level: int, index: int) -> bytes:
        return root_of_hashes(leaves[index << level : (index + 1) << level])

    proof = tuple(consistency_path(node, anchored, len(leaves)))
    signature = statements.sign(key.secret, Domain(chain.chain_id, chain.log_address), forged)
    try:
        act(chain, key, PostCheckpoint(key.address, forged.size, forged.root, proof, signature))
    except ContractRefused as refused:
        return refused.name
    return ""


def _until(
    counter: Counter, supervisor: Supervisor, so: Callable[[dict[str, Any]], bool], timeout_s: float
) -> dict[str, Any]:
    """The server's health, once it is so. Raises NotServed."""
    ends = time.monotonic() + timeout_s
    with requests.Session() as session:
        session.trust_env = False
        while time.monotonic() < ends:
            supervisor.check()
            try:
                found: dict[str, Any] = session.get(f"{counter.site.url}/health", timeout=5).json()
                if so(found):
                    return found
            except (requests.RequestException, ValueError):
                pass
            time.sleep(POLL_S)
    raise NotServed(f"the server is not ready after {timeout_s:.0f} s:\n{supervisor['server'].log_tail()}")
