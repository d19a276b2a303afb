"""candor-node doctor: everything that can go wrong, tried before any money or privacy is spent.

Each check stands alone; what a failed one makes meaningless is left out, never reported as fine. Nothing is sent to the
chain, nothing is booked, no noise is drawn; one small test directory is written to the content store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from ledger.audit_code import code_link
from ledger.base_gradients import BaseGradients
from ledger.bundle import bundle_limits
from ledger.config import MAX_CONFIG_BYTES, Config
from ledger.content import ContentMissing, ContentStore, EmbeddedStore, GatewayStore, Limits
from ledger.eip712 import Domain
from ledger.evm import EvmChain
from ledger.follower import read_history
from ledger.parents import read_parents
from ledger.ports import ChainPort
from ledger.privacy import INFINITE_MICRO, epsilon_micro, spend_of
from ledger.records import Member
from ledger.report import Status
from ledger.signing import Key, open_keystore, read_password
from node.acceptance import Limits as PrivacyLimits
from node.privacy_ledger import PrivacyLedger
from node.proving import load_prover
from node.service import PRIVACY, open_store, state_file
from node.settings import NodeSettings
from node.trainer import ModelTrainer
from node.verifying import ANOTHER_KEY, NOT_YET, registration_of
from proofs.errors import CandorError, LocalFault, PeerFault, WireFault
from proofs.parameters import parameters

GAS_OF_A_ROUND = 500_000  # commit, submit, dissent, object and one advance, rounded up; see contracts/README.md
PROBE = {"probe": b"candor doctor\n"}
PROBE_LIMITS = Limits(max_files=1, max_file_bytes=64, max_total_bytes=64, max_depth=1)
NOBODY_HAS_THIS = bytes(31) + b"\1"


@dataclass(frozen=True)
class Check:
    name: str
    ok: bool
    detail: str


@dataclass
class _Found:
    """What earlier checks found, for later ones."""

    settings: NodeSettings
    round_config: Path | None
    trainer: ModelTrainer
    key: Key | None = None
    chain: ChainPort | None = None
    member: Member | None = None
    config: Config | None = None


def diagnose(settings: NodeSettings, round_config: Path | None = None) -> list[Check]:
    """All checks, in order. `round_config`: a config to forecast; without it, the one of the latest round if any."""
    return list(examine(settings, round_config))


def examine(settings: NodeSettings, round_config: Path | None = None) -> Iterator[Check]:
    """`diagnose`, one check after the other."""
    trainer = ModelTrainer(settings.model, settings.data, settings.device, checkpointing=settings.checkpointing)
    found = _Found(settings, round_config, trainer)
    for name, check in _FIRST:
        done = _try(found, name, check)
        yield done
        if not done.ok:
            return
    for name, check in _FACTS:
        yield _try(found, name, check)
    for url in settings.content.peers:
        yield _try(found, f"peer {url}", partial(_peer, url))
    if found.config is not None:
        yield from _forecasts(found, found.config)


def _forecasts(found: _Found, config: Config) -> Iterator[Check]:
    """Of a mixture, gradients are tried only with the parents that a daemon would take."""
    left_out = ""
    if config.adapter.parents:
        parents = _try(found, "parents", _parents)
        yield parents
        left_out = "" if parents.ok else "gradients"
    for name, check in _FORECASTS:
        if name != left_out:
            yield _try(found, name, check)


def _try(found: _Found, name: str, check: Callable[[_Found], str]) -> Check:
    try:
        return Check(name, True, check(found))
    except CandorError as error:
        return Check(name, False, str(error))


def _key(found: _Found) -> str:
    settings = found.settings.key
    found.key = open_keystore(settings.keystore, read_password(settings.password_file))
    return f"0x{found.key.address.hex()}"


def _chain(found: _Found) -> str:
    settings = found.settings.chain
    try:
        found.chain = chain = EvmChain(settings.rpc_url, settings.rounds)
    except WireFault as error:
        raise WireFault(f"chain.rpc_url does not answer: {error}") from error
    return f"chain {chain.chain_id}, block {chain.head().number}"


def _contracts(found: _Found) -> str:
    chain = _given(found.chain)
    link = code_link(chain, Domain(chain.chain_id, chain.rounds_address))
    if link.status is not Status.PASS:
        raise PeerFault(link.evidence)
    return link.evidence


def _balance(found: _Found) -> str:
    chain, key = _given(found.chain), _given(found.key)
    wei, needed = chain.balance(key.address), GAS_OF_A_ROUND * chain.fees().max_fee_wei
    if wei < needed:
        raise LocalFault(f"{wei} wei; one round may take {needed}: send this address some")
    return f"{wei} wei, enough for about {wei // needed} rounds at present fees"


def _membership(found: _Found) -> str:
    chain, address = _given(found.chain), _given(found.key).address
    found.member = next((m for m in chain.members() if address in (m.signer, m.next_signer)), None)
    if found.member is None:
        raise LocalFault(f"0x{address.hex()} signs for no member: ask the coordinator to add it")
    cap = "infinite" if found.member.cap_micro == INFINITE_MICRO else f"{found.member.cap_micro / 1e6:g}"
    return f"member {found.member.number}, {found.member.status.name}, ε cap {cap}"


def _verifier(found: _Found) -> str:
    if found.member is None:
        raise LocalFault("an earlier check failed")
    told = registration_of(found.member, _given(found.key).verifier)
    if told == ANOTHER_KEY:
        raise LocalFault(f"{told}: `candor-node verifier` prints what the owner has to send")
    return f"{told}: `run` registers it" if told == NOT_YET else told


def _ledger(found: _Found) -> str:
    entries = PrivacyLedger(state_file(found.settings, PRIVACY)).entries()
    known = entries[-1].spent_micro if entries else 0
    if found.member is not None and found.member.spent_micro > known:
        raise LocalFault("the chain knows of more spending than this ledger: bring back the newest state folder")
    return f"{len(entries)} rounds booked, ε {known / 1e6:g}"


def _content(found: _Found) -> str:
    store = EmbeddedStore(found.settings.content.path)
    digest = store.put_directory(PROBE)
    if store.get_directory(digest, PROBE_LIMITS) != PROBE:
        raise LocalFault("what was written is not what was read back")
    return f"{found.settings.content.path}: written, read back, verified"


def _peer(url: str, found: _Found) -> str:
    """A gateway that answers truthfully says that it does not have a block that nobody has."""
    try:
        GatewayStore([url], found.settings.content.timeout_s).get_raw(NOBODY_HAS_THIS, 1)
    except ContentMissing as missing:
        if any("404" in attempt.what for attempt in missing.attempts):
            return "answers"
        raise
    return "answers"


def _model(found: _Found) -> str:
    return f"{found.settings.model}: {found.trainer.base().digest.hex()}"


def _config(found: _Found) -> str:
    """Which config the forecasts below are for."""
    if found.round_config is not None:
        try:
            data = found.round_config.read_bytes()[: MAX_CONFIG_BYTES + 1]
        except OSError as error:
            raise LocalFault(f"{found.round_config}: {error.strerror}") from error
        found.config = Config.decode(data.strip())
        return f"{found.config.digest.hex()} from {found.round_config}"
    chain = _given(found.chain)
    latest = chain.latest_round()
    if latest == 0:
        return "no round yet and no --round-config: data, gradients and ε are not forecast"
    found.config = Config.decode(_store(found).get_raw(chain.round_view(latest).config_digest, MAX_CONFIG_BYTES))
    return f"{found.config.digest.hex()} of round {latest}"


def _parents(found: _Found) -> str:
    """Those of a mixture, as the daemon reads them: aggregates of FINAL rounds, from the content store."""
    config, chain, settings = _given(found.config), _given(found.chain), found.settings.chain
    history = read_history(chain, settings.start_block, settings.confirmations)
    parents = read_parents(_store(found), history, config)
    found.trainer.adopt(parents)
    return f"{len(parents)} aggregates of FINAL rounds: {', '.join(parent.bundle.hex() for parent in parents)}"


def _store(found: _Found) -> ContentStore:
    return open_store(found.settings.content, EmbeddedStore(found.settings.content.path))


def _data(found: _Found) -> str:
    config = _given(found.config)
    dataset = found.trainer.dataset(config)
    dataset.check_capacity(config.privacy.capacity)
    found.trainer.check_lengths(config)
    task = "next-token" if config.task.kind == "next-token" else f"labels {list(config.task.labels)}"
    return f"{len(dataset)} rows of at most {config.privacy.capacity}, {task}"


def _gradients(found: _Found) -> str:
    """Per-example gradients of this very model are what single examples give: else clipping bounds the wrong thing."""
    from node.selftest import check_gradients

    config = _given(found.config)
    worst = check_gradients(found.trainer, config)
    return (
        f"{config.adapter.method}: per-example gradients agree with single passes, whatever the other examples are "
        f"(largest relative difference {worst:.1e})"
    )


def _proof(found: _Found) -> str:
    """Nothing is proven here. That rounds of this config can be, its decoding has checked; that we can, this does."""
    config = _given(found.config)
    if not config.proven:
        return "the round asks for none: clip, noise and sampling stay NOT PROVEN"
    from node.model import genesis

    load_prover()
    sizes = parameters(config.shape)
    told = f"the prover loads; a round's proof has at most {sizes.largest_bytes} bytes and {int(sizes.bits)} bits"
    if config.gradient is None:
        return told
    start = genesis(config.adapter.tensors, config.weight_bits, "candor doctor")
    largest = BaseGradients(found.trainer.base().path).largest(config, start)
    return f"{told}; and for each of {config.gradient.slots} picked slots one of at most {largest} bytes"


def _epsilon(found: _Found) -> str:
    config, limits = _given(found.config), PrivacyLimits.of(found.settings.privacy)
    history = PrivacyLedger(state_file(found.settings, PRIVACY)).history()
    costs = list(_costs(config, history))
    chain_cap = found.member.cap_micro if found.member else INFINITE_MICRO
    own = INFINITE_MICRO if limits.insecure_no_noise and config.privacy.insecure_no_noise else limits.max_micro
    cap = min(own, chain_cap)
    rounds = sum(cost <= cap for cost in costs)
    shown = ", ".join("infinite" if cost == INFINITE_MICRO else f"{cost / 1e6:.3f}" for cost in costs)
    told = f"ε after the next rounds: {shown}; the cap is {'infinite' if cap == INFINITE_MICRO else cap / 1e6}"
    if rounds == 0:
        raise LocalFault(f"{told}: not one more round is possible")
    return told


def _costs(config: Config, history: list[Any]) -> Iterator[int]:
    for _ in range(3):
        history = [*history, spend_of(config)]
        yield epsilon_micro(history, config.privacy.delta)


def _bytes(found: _Found) -> str:
    config = _given(found.config)
    trajectory = 4 * config.steps * config.adapter.parameters
    adapter = 4 * sum(tensor.size for tensor in config.adapter.tensors)
    most = bundle_limits(config).max_total_bytes
    proof = parameters(config.shape).largest_bytes if config.proven else 0
    return f"a submission has about {adapter + trajectory + proof} bytes, and each of the others' at most {most}"


def _given(value: Any) -> Any:
    """What an earlier check was to find."""
    if value is None:
        raise LocalFault("an earlier check failed")
    return value


_Checks = tuple[tuple[str, Callable[[_Found], str]], ...]
_FIRST: Final[_Checks] = (("key", _key), ("chain", _chain))
_FACTS: Final[_Checks] = (
    ("contracts", _contracts),
    ("balance", _balance),
    ("membership", _membership),
    ("verifier", _verifier),
    ("privacy ledger", _ledger),
    ("content store", _content),
    ("model", _model),
    ("config", _config),
)
_FORECASTS: Final[_Checks] = (
    ("data", _data),
    ("gradients", _gradients),
    ("proof", _proof),
    ("ε forecast", _epsilon),
    ("bytes", _bytes),
)
