"""A federation on this machine: its keys, data, settings, contracts and the folders of its daemons.

    DIR/federation.json       where everything is, for whoever comes later (candor-audit needs no more than this)
    DIR/chain.json            anvil's state, saved at the end
    DIR/held-out.jsonl        notes that no member has
    DIR/node-0/…              settings.toml, key.json, password, notes.jsonl, content/, state/, log.txt
    DIR/aggregator-0/…        the same without notes, and config.json for the coordinator

Every daemon is a process with its own folder, key, content store and HTTP port; nothing is shared but the chain. The
first aggregator is the coordinator. Keys are made here and are good for nothing else.
"""

from __future__ import annotations

import json
import secrets
import socket
import sys
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from math import ceil
from pathlib import Path
from typing import Any, Final

import tomli_w

from devnet import notes
from devnet.anvil import Anvil, AnvilOptions
from devnet.kinds import kind_named
from devnet.presets import PARENTS, Preset, last_config, make_config
from devnet.processes import Child, Supervisor
from ledger.actions import AddMember, SetAggregators
from ledger.aggregation import aggregated
from ledger.bundle import GenesisBundle, bundle_limits
from ledger.config import Config
from ledger.content import EmbeddedStore
from ledger.content.reader import Limits
from ledger.deploy import Deployment, act, deploy
from ledger.evm import EvmChain
from ledger.privacy import INFINITE_MICRO
from ledger.records import Policy
from ledger.signing import Key, create_keystore
from node.judging import SHARE, cores
from node.privacy_ledger import PrivacyLedger
from node.service import PRIVACY
from node.showing import TURNS
from node.verifying import registration
from proofs.errors import LocalFault

CHAIN_ID: Final = 31337
FUNDS_WEI: Final = 1000 * 10**18
SCRYPT_N: Final = 1 << 12  # these keys guard nothing
MICRO: Final = 1_000_000
POLL_S: Final = 0.25
VOIDS: Final = 2  # in a row, after which the coordinator opens no more rounds


class PlanInvalid(LocalFault):
    """The federation that was asked for cannot be."""


@dataclass(frozen=True)
class Plan:
    """What to build. epsilon: for all rounds together; None switches the noise off (for comparison only).

    spare_rounds: how many void rounds the budget must last for besides, since they spend too.
    misbehave: daemon name ("node-1", "aggregator-0") to kinds of devnet.kinds, each "KIND" or "KIND@ROUND".
    """

    preset: Preset
    directory: Path
    policy: Policy
    nodes: int = 3
    aggregators: int = 1
    rounds: int = 3
    spare_rounds: int = 0
    epsilon: float | None = 8.0
    misbehave: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seed: int = 7
    block_time_s: float = 1.0
    confirmations: int = 0

    def check(self) -> None:
        """Raises PlanInvalid."""
        if not 1 <= self.nodes <= 64 or not 1 <= self.aggregators <= 8 or self.rounds < 1:
            raise PlanInvalid("a devnet has 1 to 64 nodes, 1 to 8 aggregators and at least one round")
        if self.preset.mixture is not None and self.rounds <= PARENTS:
            raise PlanInvalid(f"{PARENTS} rounds make a mixture's parents: it needs one more at least")
        quorum = max(self.policy.quorum, self.policy.verifier_quorum)
        if quorum > self.nodes:
            raise PlanInvalid(f"a quorum of {quorum} cannot be met by {self.nodes} nodes")
        if self.epsilon is not None and self.policy.proof_required != (self.preset.gradient is not None):
            raise PlanInvalid("a policy has a Prove phase exactly where the preset asks for proofs of gradients")
        self._check_kinds()
        unknown = sorted(set(self.misbehave) - {*self.node_names, *self.aggregator_names})
        if unknown:
            raise PlanInvalid(
                f"there is no daemon {unknown[0]!r}: {', '.join(self.node_names + self.aggregator_names)}"
            )

    def _check_kinds(self) -> None:
        """Who misbehaves in Prove needs one."""
        for text in (text for kinds in self.misbehave.values() for text in kinds):
            kind, _ = kind_named(text)
            if kind.in_prove and not self.policy.proof_required:
                raise PlanInvalid(
                    f"{kind.name} is a misbehaviour in Prove; this preset asks for no proofs of gradients"
                )

    @property
    def founding_rounds(self) -> int:
        """Those under the first config: all, or those that make a mixture's parents."""
        return self.rounds if self.preset.mixture is None else PARENTS

    @property
    def node_names(self) -> tuple[str, ...]:
        return tuple(f"node-{number}" for number in range(self.nodes))

    @property
    def aggregator_names(self) -> tuple[str, ...]:
        return tuple(f"aggregator-{number}" for number in range(self.aggregators))

    @property
    def cap_micro(self) -> int:
        return INFINITE_MICRO if self.epsilon is None else ceil(self.epsilon * MICRO)


@dataclass(frozen=True)
class Site:
    """One daemon's place: folder, key, HTTP port."""

    name: str
    folder: Path
    key: Key
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> Path:
        return self.folder / "settings.toml"

    @property
    def content(self) -> Path:
        return self.folder / "content"

    @property
    def is_node(self) -> bool:
        return self.name.startswith("node-")


@dataclass(frozen=True)
class Federation:
    """A founded federation: contracts deployed, members joined, settings written, no daemon started yet.

    mixture: the config of the rounds that mix what those before made, once it is there.
    """

    plan: Plan
    anvil: Anvil
    deployment: Deployment
    config: Config
    genesis: bytes
    nodes: tuple[Site, ...]
    aggregators: tuple[Site, ...]
    last: Config | None = None
    mixture: Config | None = None

    @property
    def sites(self) -> tuple[Site, ...]:
        return self.nodes + self.aggregators

    @property
    def limits(self) -> Limits:
        """Of any bundle: the largest is an aggregate of all nodes."""
        configs = [config for config in (self.last or self.config, self.mixture) if config is not None]
        largest = [astuple(bundle_limits(aggregated(config, range(self.plan.nodes)))) for config in configs]
        return Limits(*map(max, zip(*largest, strict=True)))

    def chain(self) -> EvmChain:
        return EvmChain(self.anvil.rpc_url, self.deployment.rounds, chain_id=self.deployment.chain_id)

    def start(self, supervisor: Supervisor, *, environment: Mapping[str, Mapping[str, str]] | None = None) -> None:
        """Start every daemon, each with its share of the cores; `environment` adds variables by daemon name."""
        for site in (*self.aggregators, *self.nodes):
            self.start_one(supervisor, site, (environment or {}).get(site.name))

    def start_one(self, supervisor: Supervisor, site: Site, environment: Mapping[str, str] | None = None) -> Child:
        kinds = self.plan.misbehave.get(site.name, ())
        share = {SHARE: str(max(1, cores() // len(self.sites)))}
        share[TURNS] = str(self.plan.directory / "proving.lock")  # this machine is all members' own
        return supervisor.start(
            site.name, command(site, kinds), site.folder / "log.txt", share | dict(environment or {})
        )

    def audit_arguments(self, content: tuple[Path, ...] | None = None) -> list[str]:
        """What candor-audit needs to know: the chain, the contract, and where content may be found."""
        places = content if content is not None else tuple(site.content for site in self.sites)
        arguments = ["--rpc", self.anvil.rpc_url, "--rounds", f"0x{self.deployment.rounds.hex()}"]
        return arguments + [part for place in places for part in ("--content", str(place))]


def command(site: Site, kinds: tuple[str, ...]) -> list[str | Path]:
    """The real daemon, or its dishonest double."""
    role = "node" if site.is_node else "aggregator"
    if not kinds:
        return [door(f"candor-{role}"), "run", "--config", site.settings]
    chosen = [part for kind in kinds for part in ("--kind", kind)]
    return [sys.executable, "-m", "devnet.misbehave", role, *chosen, "--config", site.settings]


def door(name: str) -> Path:
    """An installed command of this environment."""
    return Path(sys.executable).parent / name


def found(plan: Plan, anvil: Anvil) -> Federation:
    """Write and deploy everything that `plan` asks for. Raises PlanInvalid and the faults of what it calls."""
    plan.check()
    lasts = plan.rounds + plan.spare_rounds
    config, weights = make_config(plan.preset, epsilon=plan.epsilon, rounds=lasts, policy=plan.policy)
    sites = _sites(plan)
    nodes, aggregators = sites[: plan.nodes], sites[plan.nodes :]
    deployment = _deploy(plan, anvil, nodes, aggregators)
    store = EmbeddedStore(aggregators[0].content)
    genesis = store.put_directory(GenesisBundle(config, weights).files())
    store.put_raw(config.encode())
    last = last_config(plan.preset, config)
    federation = Federation(plan, anvil, deployment, config, genesis, nodes, aggregators, last)
    _write_data(plan, nodes)
    _write_settings(federation)
    (plan.directory / "federation.json").write_text(json.dumps(describe(federation), indent=1) + "\n")
    return federation


def describe(federation: Federation) -> dict[str, Any]:
    """Public facts only: no key, no password."""
    return {
        "kind": "candor/devnet/1",
        "preset": federation.plan.preset.name,
        "rpc_url": federation.anvil.rpc_url,
        "chain_id": federation.deployment.chain_id,
        "rounds": f"0x{federation.deployment.rounds.hex()}",
        "federation": f"0x{federation.deployment.federation.hex()}",
        "start_block": federation.deployment.block_number,
        "config": federation.config.digest.hex(),
        "genesis": federation.genesis.hex(),
        "daemons": [
            {
                "name": site.name,
                "address": f"0x{site.key.address.hex()}",
                "url": site.url,
                "content": f"{site.name}/content",
            }
            for site in federation.sites
        ],
    }


@dataclass(frozen=True)
class KeptFacts:
    """What federation.json says of a federation whose processes are gone. content: folders below its own."""

    port: int
    chain_id: int
    rounds: str
    content: tuple[str, ...]


def kept_facts(directory: Path) -> KeptFacts:
    """Raises PlanInvalid for a folder that `found` did not write."""
    try:
        facts = json.loads((directory / "federation.json").read_text(encoding="utf-8"))
        content = tuple(str(daemon["content"]) for daemon in facts["daemons"])
        port = int(facts["rpc_url"].rpartition(":")[2])
        return KeptFacts(port, int(facts["chain_id"]), str(facts["rounds"]), content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PlanInvalid(f"{directory} is not the folder of a devnet ({type(error).__name__})") from error


def start_anvil(plan: Plan) -> Anvil:
    options = AnvilOptions(block_time_s=plan.block_time_s, chain_id=CHAIN_ID)
    return Anvil(options, state_file=plan.directory / "chain.json")


def fund(anvil: Anvil, address: bytes) -> None:
    anvil.rpc("anvil_setBalance", f"0x{address.hex()}", hex(FUNDS_WEI))


def _sites(plan: Plan) -> tuple[Site, ...]:
    names = plan.node_names + plan.aggregator_names
    sites = []
    for name, port in zip(names, free_ports(len(names)), strict=True):
        folder = plan.directory / name
        folder.mkdir(parents=True)
        sites.append(Site(name, folder, make_key(folder), port))
    return tuple(sites)


def make_key(folder: Path) -> Key:
    password = folder / "password"
    password.touch(mode=0o600)
    password.write_text(secrets.token_hex(16) + "\n")
    return create_keystore(folder / "key.json", password.read_text().strip(), scrypt_n=SCRYPT_N)


def free_ports(count: int) -> list[int]:
    """All held at once, so that they differ; free again when this returns."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _deploy(plan: Plan, anvil: Anvil, nodes: tuple[Site, ...], aggregators: tuple[Site, ...]) -> Deployment:
    coordinator = aggregators[0].key
    for site in (*nodes, *aggregators):
        fund(anvil, site.key.address)
    deployment = deploy(anvil.rpc_url, coordinator, coordinator.address)
    chain = EvmChain(anvil.rpc_url, deployment.rounds, chain_id=deployment.chain_id)
    act(chain, coordinator, SetAggregators(tuple(site.key.address for site in aggregators)))
    for member, site in enumerate(nodes):
        act(chain, coordinator, AddMember(Key.create().address, site.key.address, plan.cap_micro))
        act(chain, site.key, registration(site.key.verifier, chain, member))
    return deployment


def _write_data(plan: Plan, nodes: tuple[Site, ...]) -> None:
    preset = plan.preset
    for site, rows in zip(nodes, notes.members(plan.nodes, preset.rows, plan.seed), strict=True):
        notes.write(site.folder / "notes.jsonl", rows)
        PrivacyLedger.create(site.folder / "state" / PRIVACY)
    notes.write(plan.directory / "held-out.jsonl", notes.held_out(plan.nodes, preset.held_out, plan.seed))


def _write_settings(federation: Federation) -> None:
    coordinator = federation.aggregators[0]
    (coordinator.folder / "config.json").write_bytes(federation.config.encode())
    if federation.last is not None:
        (coordinator.folder / "last.json").write_bytes(federation.last.encode())
    for site in federation.sites:
        peers = [other.url for other in federation.sites if other is not site]
        settings = common_settings(federation, site, peers)
        if site.is_node:
            settings |= _node_settings(federation.plan, site)
            PrivacyLedger.create(site.folder / "state" / PRIVACY)
        elif site is coordinator:
            settings["coordinator"] = {
                "config": str(site.folder / "config.json"),
                "rounds": federation.plan.founding_rounds,
                "voids": VOIDS,
                "global": federation.genesis.hex(),
            } | ({"last": str(site.folder / "last.json")} if federation.last is not None else {})
        if federation.config.gradient is not None:
            settings["model"] = {"path": federation.plan.preset.base_path}
        site.settings.write_text(tomli_w.dumps(settings))


def common_settings(federation: Federation, site: Site, peers: list[str]) -> dict[str, Any]:
    """What every daemon's settings say."""
    return {
        "chain": {
            "rpc_url": federation.anvil.rpc_url,
            "rounds": f"0x{federation.deployment.rounds.hex()}",
            "confirmations": federation.plan.confirmations,
            "start_block": federation.deployment.block_number,
        },
        "key": {"keystore": str(site.folder / "key.json"), "password_file": str(site.folder / "password")},
        "content": {"path": str(site.content), "peers": peers},
        "http": {"listen": f"127.0.0.1:{site.port}"},
        "state": {"path": str(site.folder / "state")},
        "node": {"poll_s": POLL_S},
    }


def _node_settings(plan: Plan, site: Site) -> dict[str, Any]:
    return {
        "model": {"path": plan.preset.base_path},
        "data": {"path": str(site.folder / "notes.jsonl"), "format": "jsonl", "text_column": "text"}
        | ({"label_column": "label"} if plan.preset.labels else {}),
        "privacy": {"max_epsilon": float(plan.epsilon or 0), "insecure_no_noise": plan.epsilon is None},
        "node": {"poll_s": POLL_S, "device": "cpu"},
    }
