"""Events, calls and headers: what is written here is what the contracts were compiled to, and nothing else is read."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import rlp
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from ledger import compiled, records
from ledger.actions import (
    CALLS,
    CalldataInvalid,
    Dissent,
    Open,
    PostVerdicts,
    RegisterVerifier,
    SetAggregators,
    Submit,
    calldata,
    decode_calldata,
)
from ledger.events import EVENTS, EventInvalid, decode_log, encode_log, transcript_next
from ledger.evidence import decode_receipt, receipts_root
from ledger.headers import Header, HeaderInvalid
from ledger.log.actions import AnswerOmission, NameAuditors, PostCheckpoint, ReportFork, ReportOmission, ReportRewrite
from ledger.log.events import LOG_EVENTS, decode_log_event, encode_log_event
from ledger.log.records import Checkpointed, Outcome
from ledger.records import Phase, Policy, RoundOpened, Seat, Signed, Submitted, VerdictsPosted, Voided, VoidReason
from proofs.errors import LocalFault, PeerFault

ABI = Path(compiled.__file__).parent / "abi"
DIGESTS = st.binary(min_size=32, max_size=32)
ADDRESSES = st.binary(min_size=20, max_size=20)
ROUNDS = st.integers(0, 2**64 - 1)
SEATS = st.builds(Seat, st.integers(0, 255), ADDRESSES, ADDRESSES, ROUNDS, ROUNDS, DIGESTS)
POLICIES = st.builds(Policy, *[st.integers(0, 2**32 - 1)] * 6, st.integers(0, 255), st.booleans(), st.integers(0, 255))
BYTES = st.binary(max_size=200)
SIGNED = st.builds(Signed, st.integers(0, 2**256 - 1), BYTES, BYTES)


def strategy_of(record: Any) -> Any:
    """Any value that the fields of an event can have."""
    by_type = {
        "int": ROUNDS,
        "bytes": DIGESTS,
        "Policy": POLICIES,
        "Signed": SIGNED,
        "tuple[Seat, ...]": st.lists(SEATS, max_size=4).map(tuple),
        "Phase": st.sampled_from(Phase),
        "VoidReason": st.sampled_from(VoidReason),
    }
    by_name = {"member": st.integers(0, 255), "signature": BYTES, "reasons": BYTES, "aggregator": ADDRESSES}
    return st.builds(record, *[by_name.get(f.name, by_type[str(f.type)]) for f in fields(record)])


def log_strategy_of(record: Any, types: tuple[str, ...]) -> Any:
    """Any value that the fields of an event of AuditLog can have."""
    by_kind = {
        "address": ADDRESSES,
        "address[]": st.lists(ADDRESSES, max_size=4).map(tuple),
        "uint32": st.integers(0, 2**32 - 1),
        "uint64": ROUNDS,
        "bytes32": DIGESTS,
        "bytes32[]": st.lists(DIGESTS, max_size=4).map(tuple),
        "bytes": BYTES,
        "bool": st.booleans(),
    }
    return st.builds(record, *[by_kind[kind] for kind in types])


EVERY_LOG_EVENT = st.one_of([log_strategy_of(abi.record, abi.types) for abi in LOG_EVENTS])
EVERY_EVENT = st.one_of([strategy_of(abi.record) for abi in EVENTS])


def compiled_abi(name: str, kind: str) -> dict[str, dict[str, Any]]:
    loaded = json.loads((ABI / f"{name}.json").read_text())["abi"]
    return {entry["name"]: entry for entry in loaded if entry["type"] == kind}


def type_of(entry: dict[str, Any]) -> str:
    if not entry["type"].startswith("tuple"):
        return str(entry["type"])
    return f"({','.join(map(type_of, entry['components']))}){entry['type'][5:]}"


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def test_the_events_are_those_of_the_compiled_contract() -> None:
    found = compiled_abi("Rounds", "event")
    ours = {abi.record.__name__: abi for abi in EVENTS}
    assert ours.keys() == found.keys() - {"EIP712DomainChanged"}
    for name, abi in ours.items():
        inputs = found[name]["inputs"]
        assert abi.types == tuple(map(type_of, inputs)), name
        assert [entry["indexed"] for entry in inputs] == [i < abi.indexed for i in range(len(inputs))], name
        assert [camel(field.name) for field in fields(abi.record)] == [entry["name"] for entry in inputs], name


def test_the_events_of_the_log_are_those_of_the_compiled_contract() -> None:
    found = compiled_abi("AuditLog", "event")
    ours = {abi.record.__name__: abi for abi in LOG_EVENTS}
    assert ours.keys() == found.keys() - {"EIP712DomainChanged"}
    for name, abi in ours.items():
        inputs = found[name]["inputs"]
        assert abi.types == tuple(map(type_of, inputs)), name
        assert [entry["indexed"] for entry in inputs] == [True] + [False] * (len(inputs) - 1), name
        assert [camel(field.name) for field in fields(abi.record)] == [entry["name"] for entry in inputs], name


def test_the_calls_are_those_of_the_compiled_contracts() -> None:
    for call in CALLS:
        contract = {"rounds": "Rounds", "federation": "Federation", "log": "AuditLog"}[call.action.target]
        inputs = compiled_abi(contract, "function")[call.name]["inputs"]
        assert call.types == tuple(map(type_of, inputs)), call.name
        assert len(fields(call.action)) == len(inputs)


def test_the_enumerations_are_those_of_the_interface() -> None:
    interface = (Path(compiled.__file__).parent.parent / "contracts/src/interfaces/IRounds.sol").read_text()
    of_log = (Path(compiled.__file__).parent.parent / "contracts/src/interfaces/IAuditLog.sol").read_text()
    enums = [("enum Phase", records.Phase), ("enum VoidReason", records.VoidReason), ("enum Outcome", Outcome)]
    for enum, members in enums:
        interface = of_log if members is Outcome else interface
        body = interface.split(enum + " {")[1].split("}")[0]
        names = [line.split("//")[0].strip().rstrip(",") for line in body.splitlines()]
        assert [name.replace("_", "").lower() for name in members.__members__] == [n.lower() for n in names if n]


@given(EVERY_EVENT)
def test_what_is_written_is_read_back(event: Any) -> None:
    assert decode_log(*encode_log(event)) == event


@given(EVERY_LOG_EVENT)
def test_what_is_written_of_a_log_is_read_back(event: Any) -> None:
    assert decode_log_event(*encode_log_event(event)) == event


@given(EVERY_LOG_EVENT, st.data())
def test_a_changed_event_of_a_log_is_another_event_or_none(event: Any, data: Any) -> None:
    topics, body = encode_log_event(event)
    changed = bytearray(b"".join(topics) + body)
    position = data.draw(st.integers(0, len(changed) - 1))
    changed[position] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = decode_log_event([bytes(changed[:32]), bytes(changed[32:64])], bytes(changed[64:]))
    except EventInvalid:
        return
    assert found != event


def test_an_event_of_a_log_is_refused_when_it_is_not_canonical() -> None:
    topics, data = encode_log_event(Checkpointed(bytes(20), 2, bytes(32), b"signature"))
    refused = [
        ([], data),
        (topics[:1], data),
        ((*topics, topics[0]), data),
        ((keccak(text="Other()"), topics[1]), data),
        (topics, data + bytes(32)),
        (topics, data[:-1]),
        (topics, data[:-1] + b"\x01"),
        (topics, bytes(1 << 18)),
        ((topics[0], b"\x01" + topics[1][1:]), data),  # an address of more than 20 bytes
    ]
    for bad_topics, bad_data in refused:
        with pytest.raises(EventInvalid):
            decode_log_event(bad_topics, bad_data)
    with pytest.raises(LocalFault):
        encode_log_event(Checkpointed(b"short", 2, bytes(32), b""))


@given(EVERY_EVENT, st.data())
def test_a_changed_log_is_another_event_or_none(event: Any, data: Any) -> None:
    """No two logs are read as the same event."""
    topics, body = encode_log(event)
    changed = bytearray(b"".join(topics) + body)
    position = data.draw(st.integers(0, len(changed) - 1))
    changed[position] ^= 1 << data.draw(st.integers(0, 7))
    cut = 32 * len(topics)
    try:
        found = decode_log([bytes(changed[i : i + 32]) for i in range(0, cut, 32)], bytes(changed[cut:]))
    except EventInvalid:
        return
    assert found != event


def test_a_log_is_refused_when_it_is_not_canonical() -> None:
    event = Submitted(1, 2, keccak(text="b"), 3, b"signature", keccak(text="t"))
    topics, data = encode_log(event)
    refused = [
        ([], data),
        (topics[:-1], data),
        ((*topics, topics[0]), data),
        ((keccak(text="Other()"), *topics[1:]), data),
        (topics, data + bytes(32)),
        (topics, data[:-1]),
        (topics, data[:-1] + b"\x01"),  # the padding behind the signature
        (topics, bytes(1 << 18)),
        ((topics[0], b"\x01" + topics[1][1:], topics[2]), data),  # a round of more than 64 bits
        (topics, data.replace((128).to_bytes(32), (160).to_bytes(32)) + bytes(32)),
    ]
    for bad_topics, bad_data in refused:
        with pytest.raises(EventInvalid):
            decode_log(bad_topics, bad_data)
    assert issubclass(EventInvalid, PeerFault)


def test_an_unknown_phase_is_no_event() -> None:
    topics, data = encode_log(Voided(1, Phase.COMMIT, VoidReason.COMMIT_QUORUM, bytes(32)))
    with pytest.raises(EventInvalid):
        decode_log(topics, (99).to_bytes(32) + data[32:])


def test_short_digests_are_our_own_fault() -> None:
    """The ABI encoder would pad them in silence."""
    with pytest.raises(LocalFault):
        encode_log(VerdictsPosted(1, b"short", 0, b"", Signed(0, b"", b""), bytes(32)))
    with pytest.raises(LocalFault):
        calldata(Open(b"short", bytes(32), Policy(1, 1, 0, 1, 1, 0, 1, False, 1)))
    with pytest.raises(LocalFault):
        calldata(Submit(1, 256, bytes(32), 0, b""))


@given(EVERY_EVENT)
def test_the_transcript_binds_every_field_but_itself(event: Any) -> None:
    before = keccak(text="before")
    assert transcript_next(before, event) == transcript_next(before, replace(event, transcript=keccak(b"")))
    assert transcript_next(before, event) != transcript_next(keccak(b""), event)
    assert transcript_next(before, event) != transcript_next(before, replace(event, round=event.round ^ 1))


def test_calldata_is_read_back_and_nothing_else() -> None:
    actions = [
        Open(bytes(32), bytes(32), Policy(1, 2, 3, 4, 5, 6, 7, True, 7)),
        SetAggregators((bytes(20), b"\x01" * 20)),
        Submit(1, 2, bytes(32), 4, b"five"),
        PostVerdicts(1, b"two", Signed(3, b"four", b"five")),
        Dissent(1, b"two"),
        RegisterVerifier(1, b"two", b"three"),
        NameAuditors((bytes(20), b"\x01" * 20)),
        PostCheckpoint(bytes(20), 2, bytes(32), (bytes(32), b"\x01" * 32), b"five"),
        ReportOmission(bytes(20), 2, 3, bytes(32), b"five"),
        AnswerOmission(bytes(20), 2, 3, bytes(32), ()),
        ReportFork(bytes(20), 2, bytes(32), b"four", bytes(32), b"six"),
        ReportRewrite(bytes(20), 2, bytes(32), b"four", bytes(32), (bytes(32),)),
    ]
    for action in actions:
        data = calldata(action)
        assert decode_calldata(action.target, data) == action
        for bad in (data + bytes(32), data[:-1], b"\x00" * 4 + data[4:], data[:3]):
            with pytest.raises(CalldataInvalid):
                decode_calldata(action.target, bad)
    with pytest.raises(CalldataInvalid):
        decode_calldata("federation", calldata(actions[0]))


def test_every_custom_error_is_known_by_name() -> None:
    for contract in ("Rounds", "Federation", "AuditLog"):
        for name, entry in compiled_abi(contract, "error").items():
            types = [type_of(field) for field in entry["inputs"]]
            selector = keccak(text=f"{name}({','.join(types)})")[:4]
            assert compiled.refusal(selector + bytes(32 * len(types))).name == name
    assert compiled.refusal(b"").name == "Unknown"
    assert compiled.refusal(b"\x00\x01\x02\x03").name == "Unknown"


def test_headers_hash_as_on_the_chain(lab: Any) -> None:
    for number in range(lab.chain.head().number + 1):
        header = lab.chain.header(number)
        assert Header.parse(header.rlp) == header
        assert header.hash == keccak(header.rlp)
        if number:
            assert header.parent_hash == lab.chain.header(number - 1).hash


def test_a_header_is_refused_when_it_is_not_one(twin_lab: Any) -> None:
    good = twin_lab.chain.head().rlp
    parts = rlp.decode(good)
    refused = [
        b"",
        good[:-1],
        good + b"\x00",
        bytes(4096),
        rlp.encode(parts[:14]),
        rlp.encode([*parts, *[b""] * 20]),
        rlp.encode([b"short", *parts[1:]]),
        rlp.encode([*parts[:8], [b"list"], *parts[9:]]),
        rlp.encode([*parts[:8], b"\x00\x01", *parts[9:]]),
        rlp.encode(b"no list"),
    ]
    for bad in refused:
        with pytest.raises(HeaderInvalid):
            Header.parse(bad)


@pytest.mark.anvil
def test_a_node_cannot_misreport_a_header(anvil_lab: Any) -> None:
    block = anvil_lab.anvil.rpc("eth_getBlockByNumber", "latest", False)
    header = Header.from_rpc(block)
    assert header.hash == anvil_lab.chain.head().hash
    for name in ("parentHash", "mixHash", "receiptsRoot", "timestamp", "number", "requestsHash"):
        value = block[name]
        lie = {**block, name: value[:-1] + ("0" if value[-1] != "0" else "1")}
        with pytest.raises(HeaderInvalid):
            Header.from_rpc(lie)
    for name in ("parentHash", "withdrawalsRoot", "hash"):
        with pytest.raises(HeaderInvalid):
            Header.from_rpc({key: value for key, value in block.items() if key != name})
    for value in (7, None, "0x", "0xzz", "0x" + "0" * 4000):
        with pytest.raises(HeaderInvalid):
            Header.from_rpc({**block, "mixHash": value})


def test_receipts_hash_to_the_header(lab: Any) -> None:
    lab.to_verify()
    for number in range(lab.chain.head().number + 1):
        receipts = lab.chain.receipts(number)
        assert receipts_root(receipts) == lab.chain.header(number).receipts_root
        assert all(decode_receipt(raw).status == 1 for raw in receipts)


def test_a_seat_survives_the_log() -> None:
    seats = tuple(Seat(i, bytes([i]) * 20, bytes([255 - i]) * 20, i, 0, bytes([i]) * 32) for i in range(200))
    event = RoundOpened(1, bytes(32), bytes(32), Policy(1, 1, 0, 1, 1, 0, 1, False, 1), seats, bytes(32))
    assert decode_log(*encode_log(event)) == event
