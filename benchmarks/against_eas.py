"""Gas of attesting on the Ethereum Attestation Service, on its own contracts: `make bench-eas`.

The argument is the folder of the npm package @ethereum-attestation-service/eas-contracts, whose compiled contracts are
deployed as they are on a chain of this machine. One attestation for an inference is one `attest` of a digest of 32
bytes, not revocable, by a schema `bytes32 leaf` without a resolver; in batches, `multiAttest`. `timestamp` of a digest
says when, and of whom and what nothing. The calls alone are measured on the second one, when what is paid once is paid.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from eth_utils.crypto import keccak
from web3 import HTTPProvider, Web3

from devnet.anvil import Anvil, AnvilOptions

SCHEMA: Final = "bytes32 leaf"
NOBODY: Final = "0x" + "00" * 20
BATCHES: Final = (10, 100)


def main(package: Path) -> None:
    version = json.loads((package / "package.json").read_text(encoding="utf-8"))["version"]
    print(f"gas of one call on eas-contracts {version}, all of a transaction included")
    with Anvil(AnvilOptions()) as anvil:
        w3 = Web3(HTTPProvider(anvil.rpc_url))
        eas, schema = deployed(w3, package)
        calls = {
            "attest": lambda at: eas.functions.attest((schema, data_of(at))),
            "timestamp": lambda at: eas.functions.timestamp(keccak(text=f"digest {at}")),
        }
        for name, call in calls.items():
            print(f"  {name:<22}{[paid(w3, call(at)) for at in range(2)][-1]:>10,}")
        for size in BATCHES:
            used = paid(w3, eas.functions.multiAttest([(schema, [data_of(1000 * size + at) for at in range(size)])]))
            print(f"  {f'multiAttest, {size}':<22}{used:>10,}  {used / size:>9,.0f} each")


def deployed(w3: Web3, package: Path) -> tuple[Any, bytes]:
    """EAS with its registry, and the schema's name in it."""
    registry = created(w3, package, "SchemaRegistry")
    eas = created(w3, package, "EAS", registry.address)
    paid(w3, registry.functions.register(SCHEMA, NOBODY, False))
    return eas, keccak(SCHEMA.encode() + bytes(20) + b"\0")


def created(w3: Web3, package: Path, name: str, *arguments: Any) -> Any:
    artifact = json.loads((package / "artifacts" / "contracts" / f"{name}.sol" / f"{name}.json").read_text("utf-8"))
    contract = w3.eth.contract(abi=artifact["abi"], bytecode=artifact["bytecode"])
    sent = contract.constructor(*arguments).transact({"from": w3.eth.accounts[0]})
    return w3.eth.contract(address=w3.eth.wait_for_transaction_receipt(sent)["contractAddress"], abi=artifact["abi"])


def data_of(number: int) -> tuple[Any, ...]:
    """recipient, expiry, revocable, reference, data, value: an attestation about one leaf."""
    return NOBODY, 0, False, bytes(32), keccak(text=f"leaf {number}"), 0


def paid(w3: Web3, call: Any) -> int:
    receipt = w3.eth.wait_for_transaction_receipt(call.transact({"from": w3.eth.accounts[0]}))
    if receipt["status"] != 1:
        raise RuntimeError(f"reverted: {call}")
    return int(receipt["gasUsed"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
