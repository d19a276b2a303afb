"""The same on a real chain, through the real RPC: the contract's code counts, and events are tied to its headers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from devnet.anvil import Anvil
from ledger.deploy import deploy, deploy_log, transfer
from ledger.evm import EvmChain
from ledger.signing import Key

pytestmark = pytest.mark.anvil
FUNDED = Key.of(bytes.fromhex("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"))  # anvil's own


@pytest.fixture(scope="module")
def real(
    tmp_path_factory: pytest.TempPathFactory, new_house: Callable[..., Any], named_key: Callable[[str], Key]
) -> Iterator[Any]:
    """A server with five answers on an anvil, and the options that lead a command there."""
    folder = tmp_path_factory.mktemp("real")
    with Anvil() as anvil:
        for number in range(3):
            transfer(anvil.rpc_url, FUNDED, named_key(f"owner {number}").address, 10**19)
        rounds = deploy(anvil.rpc_url, FUNDED, FUNDED.address).rounds
        log = deploy_log(anvil.rpc_url, FUNDED, 5)

        class OnAnvil:
            chain = EvmChain(anvil.rpc_url, rounds, log=log)
            mine = staticmethod(anvil.mine)

        house = new_house(folder / "log", OnAnvil)
        house.answers(5)
        house.anchor()
        settings = folder / "serve.toml"
        settings.write_text(
            f'[chain]\nrpc_url = "{anvil.rpc_url}"\nrounds = "0x{rounds.hex()}"\n[log]\ncontract = "0x{log.hex()}"\n'
        )
        house.options, house.anvil = ["--config", str(settings), "--log", str(house.folder), "--json"], anvil
        yield house


def links(result: Result) -> dict[str, str]:
    return {link["link"]: link["status"] for link in json.loads(result.stdout)["links"]}


def test_a_receipt_and_a_log_pass_with_the_code_of_the_contract(real: Any, run: Any, tmp_path: Path) -> None:
    result = run("inference", "verify", real.keep(3, tmp_path / "kept"), *real.options)
    assert (result.exit_code, json.loads(result.stdout)["standing"]) == (0, "INCLUDED")
    assert [links(result)[name] for name in ("log", "headers", "contract")] == ["PASS"] * 3
    result = run("inference", "fsck", *real.options)
    assert (result.exit_code, set(links(result).values())) == (0, {"PASS"})
    watched = run("inference", "watch", "--once", "--state", tmp_path / "seen.db", *real.options)
    assert (watched.exit_code, json.loads(watched.stdout)["alarms"]) == (0, [])


def test_one_byte_of_other_code_fails_everything_that_rests_on_it(real: Any, run: Any, tmp_path: Path) -> None:
    address = "0x" + real.chain.log_address.hex()
    good = real.chain.code(real.chain.log_address)
    code = bytearray(good)
    code[len(code) // 2] ^= 1
    kept = real.keep(3, tmp_path / "kept")
    real.anvil.rpc("anvil_setCode", address, "0x" + code.hex())
    try:
        result = run("inference", "verify", kept, *real.options)
        assert (result.exit_code, links(result)["contract"]) == (1, "FAIL")
    finally:
        real.anvil.rpc("anvil_setCode", address, "0x" + good.hex())


def test_no_contract_at_the_address_is_wrong_usage(real: Any, run: Any) -> None:
    assert run("inference", "list", *real.options[:2], "--audit-log", "0x" + "11" * 20).exit_code == 2
    assert run("inference", "list", *real.options[:2], "--audit-log", "0x11").exit_code == 2
