"""The whole story on a real chain: two rounds, one forger, the audit, a copy elsewhere, and the exported file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from devnet.anvil import Anvil
from ledger.audit import audit
from ledger.audit_cli import app
from ledger.audit_file import export_round, verify_file
from ledger.content import EmbeddedStore
from ledger.deploy import deploy, transfer
from ledger.evidence import ReceiptInvalid, check_receipt, prove_receipts
from ledger.evm import EvmChain
from ledger.report import Name, Report, Status
from ledger.signing import Key

pytestmark = pytest.mark.anvil
FUNDED = Key.of(bytes.fromhex("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"))  # anvil's own
PEOPLE = ["coordinator", "aggregator 0", "signer 0", "signer 1", "signer 2"]


class World:
    """A chain and a content store with a finished history on them."""

    def __init__(self, folder: Path, federation_on: Callable[..., Any], named_key: Callable[[str], Key]) -> None:
        self.state, self.content = folder / "state.json", folder / "content"
        with Anvil(state_file=self.state) as anvil:
            for name in PEOPLE:
                transfer(anvil.rpc_url, FUNDED, named_key(name).address, 10**20)
            coordinator = named_key("coordinator")
            self.deployed = deploy(anvil.rpc_url, coordinator, coordinator.address)
            chain = EvmChain(anvil.rpc_url, self.deployed.rounds)
            federation = federation_on(chain, anvil.mine, 3, EmbeddedStore(self.content))
            federation.play()
            federation.play({2: "TRAJECTORY_MISMATCH"})
            federation.play(
                proposal=lambda files: files | {"candor/manifest.json": files["candor/manifest.json"] + b" "},
                objectors=[0, 1],
            )
            self.told = audit(chain, federation.store)
            self.file = folder / "live.car"
            export_round(self.file, chain, federation.store, round_number=2)
            anvil.save()
            self.forged = self._with_other_code(anvil, chain, federation)

    def _with_other_code(self, anvil: Anvil, chain: EvmChain, federation: Any) -> Report:
        """What the audit says when one byte of the contract's code is another."""
        code = bytearray(chain.code(self.deployed.rounds))
        code[len(code) // 2] ^= 1
        anvil.rpc("anvil_setCode", self.rounds, "0x" + code.hex())
        return audit(chain, federation.store, rounds={1})

    @property
    def rounds(self) -> str:
        return "0x" + self.deployed.rounds.hex()


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, federation_on: Callable[..., Any], named_key: Callable[[str], Key]
) -> World:
    return World(tmp_path_factory.mktemp("world"), federation_on, named_key)


@pytest.fixture
def elsewhere(world: World, tmp_path: Path) -> Iterator[tuple[Anvil, Path]]:
    """Copies of chain and content in another directory, served by another process."""
    shutil.copy(world.state, tmp_path / "state.json")
    shutil.copytree(world.content, tmp_path / "content")
    with Anvil(state_file=tmp_path / "state.json") as anvil:
        yield anvil, tmp_path / "content"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def failures(report: Report) -> set[tuple[int, Name]]:
    return {(r.round, link.name) for r in report.rounds for link in r.links if link.status is Status.FAIL}


def test_the_audit_on_a_real_chain_names_the_forged_aggregate_and_nothing_else(world: World) -> None:
    assert failures(world.told) == {(3, Name.AGGREGATE)}
    assert [r.outcome for r in world.told.rounds] == ["final", "final", "void: DISPUTED"]
    assert all(link.status is Status.PASS for link in world.told.history)


def test_a_copy_of_chain_and_content_elsewhere_gives_the_same_report(
    world: World, elsewhere: tuple[Anvil, Path]
) -> None:
    anvil, content = elsewhere
    options = ["--rpc", anvil.rpc_url, "--rounds", world.rounds, "--content", str(content)]
    result = run("verify", "--all", "--json", *options)
    assert result.exit_code == 1
    assert json.loads(result.stdout) == world.told.to_json()
    assert run("verify", "--round", "2", *options).exit_code == 0
    assert "they agree" in run("why", "--member", "2", "--round", "2", *options).stdout


def test_the_exported_file_gives_the_same_verdict_with_the_chain_gone(
    world: World, elsewhere: tuple[Anvil, Path], tmp_path: Path
) -> None:
    anvil, content = elsewhere
    options = ["--rpc", anvil.rpc_url, "--rounds", world.rounds, "--content", str(content)]
    for number in (1, 2, 3):
        assert run("export", "--round", str(number), str(tmp_path / f"{number}.car"), *options).exit_code == 0
    anvil.stop()
    shutil.rmtree(content)
    for number in (1, 2, 3):
        report = verify_file(tmp_path / f"{number}.car")
        assert report.rounds[0].to_json() == world.told.rounds[number - 1].to_json()
    assert [run("verify", str(tmp_path / f"{n}.car")).exit_code for n in (1, 2, 3)] == [0, 0, 1]


def test_the_contracts_code_is_compared_with_the_compiled_one_on_line_and_in_the_file(world: World) -> None:
    assert world.told.find(Name.CONTRACT).status is Status.PASS
    offline = verify_file(world.file)
    assert offline.find(Name.CONTRACT).to_json() == world.told.find(Name.CONTRACT).to_json()
    assert world.forged.find(Name.CONTRACT).status is Status.FAIL
    assert "is not what the sources compile to" in world.forged.find(Name.CONTRACT).evidence


def test_anvils_receipts_prove_themselves_against_its_headers(world: World, elsewhere: tuple[Anvil, Path]) -> None:
    chain = EvmChain(elsewhere[0].rpc_url, world.deployed.rounds)
    block = chain.events(0, chain.head().number)[0].block_number
    header, receipts = chain.header(block), chain.receipts(block)
    (proof,) = prove_receipts(header, receipts, [0])
    assert any(log.address == chain.rounds_address for log in check_receipt(header, proof).logs)
    with pytest.raises(ReceiptInvalid):
        check_receipt(chain.header(block - 1), proof)


def test_many_transactions_of_several_types_in_one_block_are_each_proven(named_key: Callable[[str], Key]) -> None:
    with Anvil() as anvil:
        deployed = deploy(anvil.rpc_url, FUNDED, FUNDED.address)
        chain = EvmChain(anvil.rpc_url, deployed.rounds)
        anvil.rpc("evm_setAutomine", False)
        sender = "0x" + FUNDED.address.hex()
        init_code = "0x7f" + "ab" * 32 + "60206000a100"  # a constructor that logs one topic and stops
        for index in range(20):
            kind = {"gasPrice": hex(10**10)} if index % 2 else {"maxFeePerGas": hex(10**10)}
            anvil.rpc("eth_sendTransaction", {"from": sender, "data": init_code, "gas": hex(100_000), **kind})
        anvil.mine()
        header = chain.head()
        receipts = chain.receipts(header.number)
        shown = [check_receipt(header, proof) for proof in prove_receipts(header, receipts, range(20))]
        assert {receipt.kind for receipt in shown} == {0, 2}
        assert all(receipt.logs[0].topics == (b"\xab" * 32,) for receipt in shown)
