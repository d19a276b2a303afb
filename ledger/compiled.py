"""The compiled contracts: bytecode to deploy, view functions to call, custom errors by name.

Reads ledger/abi/*.json, which contracts/build.py writes and checks against the sources.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_utils.crypto import keccak

from ledger.events import address_bytes
from ledger.ports import ChainLies, ContractRefused

ContractName = Literal["Rounds", "Federation", "AuditLog"]
FOLDER = Path(__file__).parent / "abi"
UNKNOWN_ERROR = "Unknown"


@dataclass(frozen=True)
class Function:
    """A view function: selector, and the ABI types of what goes in and comes out."""

    selector: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def request(self, *arguments: Any) -> bytes:
        return self.selector + encode(self.inputs, arguments)

    def answer(self, data: bytes) -> tuple[Any, ...]:
        """Raises ChainLies if the data is not of these types."""
        try:
            return decode(self.outputs, data)
        except (DecodingError, ValueError, OverflowError) as error:
            raise ChainLies(f"a call returned {len(data)} bytes that are not {self.outputs}") from error


def bytecode(name: ContractName) -> bytes:
    return bytes.fromhex(_load(name)["bytecode"].removeprefix("0x"))


@cache
def function(name: ContractName, function_name: str) -> Function:
    found = next(e for e in _load(name)["abi"] if e["type"] == "function" and e["name"] == function_name)
    inputs, outputs = tuple(map(_type, found["inputs"])), tuple(map(_type, found["outputs"]))
    return Function(_selector(function_name, inputs), inputs, outputs)


def refusal(data: bytes) -> ContractRefused:
    """The custom error in what a reverted call returned; named "Unknown" if it is none of ours."""
    known = _errors().get(data[:4])
    if known is None:
        return ContractRefused(UNKNOWN_ERROR)
    name, types = known
    try:
        values = decode(types, data[4:])
    except (DecodingError, ValueError, OverflowError):
        return ContractRefused(name)
    return ContractRefused(
        name, tuple(address_bytes(v) if t == "address" else v for v, t in zip(values, types, strict=True))
    )


@cache
def _errors() -> dict[bytes, tuple[str, tuple[str, ...]]]:
    names: tuple[ContractName, ...] = ("Rounds", "Federation", "AuditLog")
    entries = [entry for name in names for entry in _load(name)["abi"] if entry["type"] == "error"]
    typed = [(entry["name"], tuple(map(_type, entry["inputs"]))) for entry in entries]
    return {_selector(name, types): (name, types) for name, types in typed}


@cache
def _load(name: ContractName) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_bytes())
    return loaded


def _selector(name: str, types: tuple[str, ...]) -> bytes:
    return keccak(text=f"{name}({','.join(types)})")[:4]


def _type(entry: dict[str, Any]) -> str:
    kind: str = entry["type"]
    if not kind.startswith("tuple"):
        return kind
    return f"({','.join(map(_type, entry['components']))}){kind.removeprefix('tuple')}"
