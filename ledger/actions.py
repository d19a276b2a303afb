"""What can be asked of the contracts: one frozen dataclass per function, and its calldata.

`target` says which contract the call goes to. Fields are in the order of the Solidity parameters; digests are 32 raw
bytes, addresses 20, ε is in millionths.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Final, Literal

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError, EncodingError
from eth_utils.crypto import keccak

from ledger.events import POLICY_ABI, SIGNED_ABI, address_bytes, fixed_bytes, policy_values, signed_values
from ledger.log.actions import LOG_CALLS, LogAction
from ledger.records import Policy, Signed
from proofs.errors import LocalFault, PeerFault

Target = Literal["rounds", "federation", "log"]
MAX_CALLDATA_BYTES = 1 << 17


class CalldataInvalid(PeerFault):
    """Calldata that is no call of Candor's contracts."""


@dataclass(frozen=True)
class Open:
    """Coordinator: open the next round."""

    config_digest: bytes
    global_bundle: bytes
    policy: Policy
    target: ClassVar[Target] = "rounds"


@dataclass(frozen=True)
class Commit:
    """A member's signer: bind dataset and secret words before the beacon."""

    round: int
    dataset_root: bytes
    words_root: bytes
    target: ClassVar[Target] = "rounds"


@dataclass(frozen=True)
class Submit:
    """Anyone may relay; `signature` is the member's, see ledger.signing."""

    round: int
    member: int
    bundle: bytes
    spent_micro: int
    signature: bytes
    target: ClassVar[Target] = "rounds"


@dataclass(frozen=True)
class Prove:
    round: int
    proof: bytes
    target: ClassVar[Target] = "rounds"


@dataclass(frozen=True)
class PostVerdicts:
    """Aggregator: one reason byte per seat, in seat order, and who signed them (ledger.quorum)."""

    round: int
    reasons: bytes
    signed: Signed
    target: ClassVar[Target] = "rounds"


@dataclass(frozen=True)
class Dissent:
    """A seat's signer: the verdicts should have been these."""

    round: int
    reasons: bytes
    target: ClassVar[Target] = "rounds"


@dataclass(frozen=True)
class Propose:
    round: int
    aggregate_bundle: bytes
    included_root: bytes
    excluded_root: bytes
    target: ClassVar[Target] = "rounds"


@dataclass(frozen=True)
class Object:
    """A committed member's signer: the right aggregate is `expected_bundle`, or zero: the verdicts are wrong."""

    round: int
    expected_bundle: bytes
    target: ClassVar[Target] = "rounds"


@dataclass(frozen=True)
class Advance:
    """Anyone. `header` is the beacon block's header RLP where a beacon is drawn, else empty."""

    round: int
    header: bytes
    target: ClassVar[Target] = "rounds"


@dataclass(frozen=True)
class AddMember:
    owner: bytes
    signer: bytes
    cap_micro: int
    target: ClassVar[Target] = "federation"


@dataclass(frozen=True)
class RemoveMember:
    member: int
    target: ClassVar[Target] = "federation"


@dataclass(frozen=True)
class RotateSigner:
    member: int
    signer: bytes
    target: ClassVar[Target] = "federation"


@dataclass(frozen=True)
class RegisterVerifier:
    """The owner; the signer too, as long as the member has none. See ledger.quorum for both."""

    member: int
    key: bytes
    proof: bytes
    target: ClassVar[Target] = "federation"


@dataclass(frozen=True)
class SetCap:
    member: int
    cap_micro: int
    target: ClassVar[Target] = "federation"


@dataclass(frozen=True)
class SetAggregators:
    """In the order of failover."""

    aggregators: tuple[bytes, ...]
    target: ClassVar[Target] = "federation"


@dataclass(frozen=True)
class SetRounds:
    rounds: bytes
    target: ClassVar[Target] = "federation"


RoundsAction = Open | Commit | Submit | Prove | PostVerdicts | Dissent | Propose | Object | Advance
FederationAction = AddMember | RemoveMember | RotateSigner | RegisterVerifier | SetCap | SetAggregators | SetRounds
Action = RoundsAction | FederationAction | LogAction  # the last are in ledger.log.actions


@dataclass(frozen=True)
class CallAbi:
    action: type[Action]
    name: str
    types: tuple[str, ...]

    @property
    def selector(self) -> bytes:
        return keccak(text=f"{self.name}({','.join(self.types)})")[:4]


CALLS: Final[tuple[CallAbi, ...]] = (
    CallAbi(Open, "open", ("bytes32", "bytes32", POLICY_ABI)),
    CallAbi(Commit, "commit", ("uint64", "bytes32", "bytes32")),
    CallAbi(Submit, "submit", ("uint64", "uint8", "bytes32", "uint64", "bytes")),
    CallAbi(Prove, "prove", ("uint64", "bytes32")),
    CallAbi(PostVerdicts, "postVerdicts", ("uint64", "bytes", SIGNED_ABI)),
    CallAbi(Dissent, "dissent", ("uint64", "bytes")),
    CallAbi(Propose, "propose", ("uint64", "bytes32", "bytes32", "bytes32")),
    CallAbi(Object, "object", ("uint64", "bytes32")),
    CallAbi(Advance, "advance", ("uint64", "bytes")),
    CallAbi(AddMember, "addMember", ("address", "address", "uint64")),
    CallAbi(RemoveMember, "removeMember", ("uint8",)),
    CallAbi(RotateSigner, "rotateSigner", ("uint8", "address")),
    CallAbi(RegisterVerifier, "registerVerifier", ("uint8", "bytes", "bytes")),
    CallAbi(SetCap, "setCap", ("uint8", "uint64")),
    CallAbi(SetAggregators, "setAggregators", ("address[]",)),
    CallAbi(SetRounds, "setRounds", ("address",)),
    *(CallAbi(*call) for call in LOG_CALLS),
)
_BY_ACTION: Final = {call.action: call for call in CALLS}
_BY_SELECTOR: Final = {(call.action.target, call.selector): call for call in CALLS}


def calldata(action: Action) -> bytes:
    """Selector and ABI-encoded arguments. Raises LocalFault for a field of the wrong size or out of range."""
    call = _BY_ACTION[type(action)]
    names = [field.name for field in fields(action)]
    values = [_to_abi(getattr(action, name), kind, name) for name, kind in zip(names, call.types, strict=True)]
    try:
        return call.selector + encode(call.types, values)
    except EncodingError as error:
        raise LocalFault(f"{call.name}: an argument is out of range: {error}") from error


def decode_calldata(target: Target, data: bytes) -> Action:
    """Inverse of `calldata`, strict. Raises CalldataInvalid for anything that `calldata` would not have produced."""
    call = _BY_SELECTOR.get((target, data[:4]))
    if call is None or len(data) > MAX_CALLDATA_BYTES:
        raise CalldataInvalid(f"no function of {target} has the selector {data[:4].hex()}")
    try:
        values = decode(call.types, data[4:])
        action = call.action(*map(_from_abi, values, call.types))
        again = calldata(action)
    except (DecodingError, LocalFault, ValueError, OverflowError) as error:
        raise CalldataInvalid(f"{call.name}: the arguments cannot be decoded") from error
    if again != data:
        raise CalldataInvalid(f"{call.name}: the arguments are not in canonical form")
    return action


def _to_abi(value: Any, kind: str, name: str) -> Any:
    if kind == "bytes32":
        return fixed_bytes(value, 32, name)
    if kind == "address":
        return fixed_bytes(value, 20, name)
    if kind == "address[]":
        return [fixed_bytes(item, 20, name) for item in value]
    if kind == "bytes32[]":
        return [fixed_bytes(item, 32, name) for item in value]
    if kind == SIGNED_ABI:
        return signed_values(value)
    return policy_values(value) if kind == POLICY_ABI else value


def _from_abi(value: Any, kind: str) -> Any:
    if kind == "address":
        return address_bytes(value)
    if kind == "address[]":
        return tuple(map(address_bytes, value))
    if kind == "bytes32[]":
        return tuple(value)
    if kind == SIGNED_ABI:
        return Signed(*value)
    return Policy(*value) if kind == POLICY_ABI else value
