"""Dishonest daemons: the real ones, told to do one thing wrong (devnet.kinds).

python -m devnet.misbehave node --kind KIND[@ROUND] --config FILE
python -m devnet.misbehave aggregator --kind KIND[@ROUND] --config FILE
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import typer

from devnet.conducts import Chosen, DishonestAggregator, DishonestMember
from devnet.kinds import Role, kind_named
from ledger.content import EmbeddedStore
from ledger.evm import EvmChain
from ledger.round_state import RoundState
from ledger.signing import open_keystore, read_password
from node import aggregator, daemon, logs
from node.cli import faults
from node.memory import MemberMemory
from node.recompute import round_key
from node.service import MEMBER, state_file, until_asked
from node.settings import NodeSettings, load_aggregator, load_node
from proofs.errors import LocalFault

app = typer.Typer(help=__doc__, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
Kinds = Annotated[list[str], typer.Option("--kind", help="KIND or KIND@ROUND; see `candor-devnet kinds`.")]
Config = Annotated[Path, typer.Option("--config", help="The daemon's TOML file.")]


@app.command()
def node(kind: Kinds, config: Config) -> None:
    """A member's daemon that misbehaves."""
    logs.to_stderr()
    stop = threading.Event()
    until_asked(stop)
    with faults():
        settings = load_node(config)
        daemon.run(settings, dishonest_member(settings, chosen(kind, "node")), stop=stop)


@app.command(name="aggregator")
def aggregator_command(kind: Kinds, config: Config) -> None:
    """An aggregator that misbehaves."""
    logs.to_stderr()
    stop = threading.Event()
    until_asked(stop)
    with faults():
        aggregator.run(load_aggregator(config), DishonestAggregator(chosen(kind, "aggregator")), stop=stop)


def chosen(kinds: list[str], role: Role) -> Chosen:
    """Raises KindUnknown, or LocalFault for a kind of the other role."""
    found = tuple(kind_named(text) for text in kinds)
    for kind, _ in found:
        if kind.role != role:
            raise LocalFault(f"{kind.name} is a misbehaviour of a {kind.role}")
    return found


def dishonest_member(settings: NodeSettings, kinds: Chosen) -> DishonestMember:
    key = open_keystore(settings.key.keystore, read_password(settings.key.password_file))

    def seed_of(state: RoundState) -> bytes:
        """The daemon's own seed, read from its memory."""
        memory = MemberMemory(state_file(settings, MEMBER))
        try:
            return memory.seed(f"words/{round_key(state)}")
        finally:
            memory.close()

    chain = EvmChain(settings.chain.rpc_url, settings.chain.rounds)
    return DishonestMember(kinds, key.address, chain, EmbeddedStore(settings.content.path), seed_of)


if __name__ == "__main__":
    app()
