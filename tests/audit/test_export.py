"""One file for a stranger: the same verdict offline, and no way to change the file without being caught."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from ledger import canonical
from ledger.audit import audit, why
from ledger.audit_file import export_round, verify_file, why_file
from ledger.content import ContentMissing
from ledger.content.car import CarReader, encode_block, encode_header, file_chunks
from ledger.content.cid import Block, Cid
from ledger.content.dagpb import DIRECTORY_DATA, Link, Node, decode_node, encode_node
from ledger.content.unixfs import add_bytes
from ledger.export import NotExportable, pack_headers, unpack_headers
from ledger.records import Policy, Reason
from ledger.report import Name, Report, Status


def statuses(report: Report) -> list[tuple[int, str, str]]:
    """Everything but the link that only a file has."""
    links = [(0, link.name.value, link.status.value) for link in report.history if link.name is not Name.FILE]
    return links + [(r.round, link.name.value, link.status.value) for r in report.rounds for link in r.links]


def failures(report: Report) -> dict[Name, str]:
    return {link.name: link.evidence for link in report.links if link.status is Status.FAIL}


@pytest.fixture(scope="module")
def federation(found_federation: Any) -> Any:
    made = found_federation(3)
    made.play()
    made.play({2: "TRAJECTORY_MISMATCH"})
    return made


@pytest.fixture(scope="module")
def exported(federation: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "round-2.car"
    export_round(path, federation.chain, federation.store, round_number=2)
    return path


def test_the_file_gives_the_same_verdict_with_no_chain_and_no_network(
    federation: Any, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    online = audit(federation.chain, federation.store, rounds={2})

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("an offline audit opened a socket")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    offline = verify_file(exported)
    assert statuses(offline) == statuses(online)
    assert offline.status is Status.PASS
    assert [r.to_json() for r in offline.rounds[0].links] == [r.to_json() for r in online.rounds[0].links]
    assert why_file(exported, 2).finding == why(federation.chain, federation.store, round_number=2, member=2).finding


def test_the_anchor_is_the_last_header_and_the_file_says_to_compare_it(federation: Any, exported: Path) -> None:
    report = verify_file(exported)
    last = federation.chain.header(federation.state.log[-1].block_number)
    assert report.anchor is not None
    assert (report.anchor.block_number, report.anchor.block_hash) == (last.number, last.hash)
    assert report.anchor.contract == federation.chain.rounds_address
    assert "compare the anchor" in report.find(Name.FILE).evidence


def test_an_export_is_the_same_bytes_every_time(federation: Any, exported: Path, tmp_path: Path) -> None:
    export_round(tmp_path / "again.car", federation.chain, federation.store, round_number=2)
    assert (tmp_path / "again.car").read_bytes() == exported.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.car"]


def test_a_round_in_which_all_kinds_misbehave_gives_the_same_verdict_offline(
    found_federation: Any, misdeeds: list[str], tmp_path: Path
) -> None:
    """Bundles that break the format travel as the blocks on which their refusal rests."""
    made = found_federation(2 + len(misdeeds), policy=Policy(60, 60, 0, 20, 20, 3, 2, False, 2))
    made.play(dict(enumerate(misdeeds, start=2)))
    written = export_round(tmp_path / "all.car", made.chain, made.store, round_number=1)
    assert len(written.file.absent) == 1
    offline, online = verify_file(tmp_path / "all.car"), audit(made.chain, made.store)
    assert statuses(offline) == statuses(online)
    for member, kind in enumerate(misdeeds, start=2):
        assert why_file(tmp_path / "all.car", member).finding.found.reason.name == kind.split()[0]


def test_a_lie_of_the_aggregator_is_caught_from_the_file_alone(found_federation: Any, tmp_path: Path) -> None:
    made = found_federation(3)
    made.play(proposal=lambda files: files | {"candor/manifest.json": files["candor/manifest.json"] + b" "})
    export_round(tmp_path / "lie.car", made.chain, made.store, round_number=1)
    assert set(failures(verify_file(tmp_path / "lie.car"))) == {Name.AGGREGATE}


def test_quorum_and_dissent_are_checked_from_the_file_alone(found_federation: Any, tmp_path: Path) -> None:
    made = found_federation(3)
    made.play(dissents={2: {0: Reason.OFF_GRID}})
    export_round(tmp_path / "dissent.car", made.chain, made.store, round_number=1)
    link = verify_file(tmp_path / "dissent.car").find(Name.VERDICTS, 1)
    assert link.status is Status.PASS
    assert "signed by members [0, 1] of 3 verifiers, 2 needed" in link.evidence
    assert "member 2 dissents (member 0 OFF_GRID): the re-run supports what was posted" in link.evidence


def test_only_rounds_that_ended_are_exported(found_federation: Any, tmp_path: Path) -> None:
    made = found_federation(3)
    made.open()
    for number in (0, 1, 2):
        with pytest.raises(NotExportable):
            export_round(tmp_path / "x.car", made.chain, made.store, round_number=number)
    assert list(tmp_path.iterdir()) == []


def test_a_void_round_is_exported_and_audited_too(found_federation: Any, tmp_path: Path) -> None:
    made = found_federation(3)
    made.open()
    made.commit([0])
    made.advance()
    export_round(tmp_path / "void.car", made.chain, made.store, round_number=1)
    report = verify_file(tmp_path / "void.car")
    assert report.status is Status.PASS
    assert report.rounds[0].outcome == "void: COMMIT_QUORUM"


# ---- tampering


def test_no_byte_of_the_file_can_change(exported: Path, tmp_path: Path) -> None:
    data, rng = exported.read_bytes(), random.Random(7)
    for at in {*range(120), *(rng.randrange(len(data)) for _ in range(150)), len(data) - 1}:
        bad = bytearray(data)
        bad[at] ^= 1 << rng.randrange(8)
        (tmp_path / "bad.car").write_bytes(bad)
        assert failures(verify_file(tmp_path / "bad.car")).keys() == {Name.FILE}, at


@pytest.mark.parametrize("keep", [0, 1, 50, 0.3, 0.7, -1])
def test_a_truncated_file_is_refused(exported: Path, tmp_path: Path, keep: float) -> None:
    data = exported.read_bytes()
    (tmp_path / "cut.car").write_bytes(data[: int(keep * len(data)) if 0 < keep < 1 else int(keep)])
    assert set(failures(verify_file(tmp_path / "cut.car"))) == {Name.FILE}


class Forger:
    """Takes an export apart and puts it together again, with all hashes right."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            reader = CarReader(file_chunks(file), 1 << 30)
            self.blocks = {block.cid: bytes(block.data) for block in reader}
        self.entries = {link.name: link for link in decode_node(self.blocks[reader.roots[0]]).links}

    def file(self, name: str) -> bytes:
        return self.blocks[self.entries[name].cid]

    @property
    def manifest(self) -> Any:
        return canonical.decode(self.file("export.json"), max_bytes=1 << 28)

    def put(self, name: str, data: bytes) -> None:
        self.blocks.pop(self.entries[name].cid)
        link = add_bytes(data, self._keep)
        self.entries[name] = Link(link.cid, name, link.tree_bytes)

    def put_manifest(self, manifest: Any) -> None:
        self.put("export.json", canonical.encode(manifest))

    def folder(self, name: str) -> dict[str, Cid]:
        return {link.name: link.cid for link in decode_node(self.blocks[self.entries[name].cid]).links}

    def put_folder(self, name: str, entries: dict[str, Cid]) -> None:
        self.blocks.pop(self.entries[name].cid)
        self.entries[name] = self._node(name, [Link(cid, key, 1) for key, cid in sorted(entries.items())])

    def _node(self, name: str, links: list[Link]) -> Link:
        block = Block(
            Cid.of(Cid.directory(bytes(32)).codec, data := encode_node(Node(tuple(links), DIRECTORY_DATA))), data
        )
        self._keep(block)
        return Link(block.cid, name, len(data) + sum(link.tree_bytes for link in links))

    def _keep(self, block: Block) -> None:
        self.blocks[block.cid] = bytes(block.data)

    def write(self, path: Path, *, extra: bytes | None = None) -> Path:
        """Only what can be reached from the new root, unless `extra` smuggles a block in."""
        root = self._node("", [self.entries[name] for name in sorted(self.entries)]).cid
        sink = BytesIO()
        sink.write(encode_header([root]))
        for cid in self._reached(root):
            sink.write(encode_block(Block(cid, self.blocks[cid])))
        if extra is not None:
            sink.write(encode_block(Block.of(Cid.raw(bytes(32)).codec, extra)))
        path.write_bytes(sink.getvalue())
        return path

    def _reached(self, root: Cid) -> list[Cid]:
        seen: dict[Cid, None] = {}
        waiting = [root]
        while waiting:
            cid = waiting.pop()
            if cid in self.blocks and cid not in seen:
                seen[cid] = None
                waiting += [link.cid for link in decode_node(self.blocks[cid]).links] if cid.codec != 0x55 else []
        return list(seen)


def drop_receipt(which: int) -> Callable[[Forger], None]:
    def forge(forger: Forger) -> None:
        manifest = forger.manifest
        del manifest["receipts"][which]
        forger.put_manifest(manifest)

    return forge


def swap_receipts(forger: Forger) -> None:
    manifest = forger.manifest
    receipts = manifest["receipts"]
    receipts[3], receipts[4] = receipts[4], receipts[3]
    forger.put_manifest(manifest)


def moved(field: str, by: int) -> Callable[[Forger], None]:
    def forge(forger: Forger) -> None:
        manifest = forger.manifest
        manifest["receipts"][3][field] += by
        forger.put_manifest(manifest)

    return forge


def said(field: str, value: Any) -> Callable[[Forger], None]:
    return lambda forger: forger.put_manifest(forger.manifest | {field: value})


def header_changed(forger: Forger) -> None:
    data = bytearray(forger.file("headers.bin"))
    data[len(data) // 2] ^= 1
    forger.put("headers.bin", bytes(data))


def last_header_dropped(forger: Forger) -> None:
    data = forger.file("headers.bin")
    size = int.from_bytes(data[:2], "big")  # the first header; a hole at the front
    forger.put("headers.bin", data[2 + size :])


def cut_off(forger: Forger) -> None:
    """The last event, and the headers down to the one before it: as if the round were still open."""
    manifest, data = forger.manifest, forger.file("headers.bin")
    del manifest["receipts"][-1]
    last = manifest["receipts"][-1]["block"]
    kept = [header for header in unpack_headers(data) if header.number <= last]
    forger.put("headers.bin", pack_headers(kept))
    forger.put_manifest(manifest | {"anchor": {"number": last, "hash": kept[-1].hash.hex()}})


def hidden_log(forger: Forger) -> None:
    manifest = forger.manifest
    with_two = next(entry for entry in manifest["receipts"] if entry["logs"])
    with_two["logs"] = []
    forger.put_manifest(manifest)


def extra_entry(forger: Forger) -> None:
    forger.entries["notes.txt"] = forger.entries["export.json"]


def bundle_renamed(forger: Forger) -> None:
    entries = forger.folder("bundles")
    (first, cid), (second, _) = list(entries.items())[:2]
    forger.put_folder("bundles", entries | {second: cid, first: cid})


def config_renamed(forger: Forger) -> None:
    cid = next(iter(forger.folder("configs").values()))
    forger.put_folder("configs", {"00" * 32 + ".json": cid})


FORGERIES: dict[str, tuple[Callable[[Forger], None], Name]] = {
    "the first event dropped": (drop_receipt(0), Name.HISTORY),
    "a commitment dropped": (drop_receipt(1), Name.HISTORY),
    "the last event dropped": (drop_receipt(-1), Name.FILE),
    "the end of the round cut off": (cut_off, Name.HISTORY),
    "two events swapped": (swap_receipts, Name.FILE),
    "an event moved to another block": (moved("block", 1), Name.FILE),
    "an event moved to another transaction": (moved("transaction", 1), Name.FILE),
    "an event hidden within its receipt": (hidden_log, Name.FILE),
    "a header changed": (header_changed, Name.FILE),
    "a header dropped": (last_header_dropped, Name.FILE),
    "another chain": (said("chain_id", 1), Name.BEACONS),
    "another contract": (said("contract", "11" * 20), Name.FILE),
    "an earlier round": (said("round", 1), Name.FILE),
    "a later round": (said("round", 3), Name.HISTORY),
    "another anchor": (said("anchor", {"number": 3, "hash": "00" * 32}), Name.FILE),
    "another first block": (said("first_block", 1), Name.FILE),
    "another kind": (said("kind", "candor/export/2"), Name.FILE),
    "a field more": (said("note", "trust me"), Name.FILE),
    "a file more": (extra_entry, Name.FILE),
    "a bundle under another name": (bundle_renamed, Name.FILE),
    "a config under another name": (config_renamed, Name.FILE),
}


@pytest.mark.parametrize(("forge", "link"), FORGERIES.values(), ids=list(FORGERIES))
def test_a_forgery_with_all_hashes_right_fails_by_the_link_it_breaks(
    exported: Path, tmp_path: Path, forge: Callable[[Forger], None], link: Name
) -> None:
    forger = Forger(exported)
    forge(forger)
    report = verify_file(forger.write(tmp_path / "forged.car"))
    assert report.status is Status.FAIL
    assert link in failures(report)


def test_the_forger_itself_forges_nothing(exported: Path, tmp_path: Path) -> None:
    assert verify_file(Forger(exported).write(tmp_path / "same.car")).status is Status.PASS


def test_a_block_that_nothing_links_is_refused(exported: Path, tmp_path: Path) -> None:
    report = verify_file(Forger(exported).write(tmp_path / "more.car", extra=b"smuggled"))
    assert "nothing links" in failures(report)[Name.FILE]


def test_a_bundle_left_out_is_missing_and_never_passed_off(federation: Any, exported: Path, tmp_path: Path) -> None:
    forger = Forger(exported)
    gone = federation.state.submissions[0].bundle.hex()
    forger.put_folder("bundles", {name: cid for name, cid in forger.folder("bundles").items() if name != gone})
    report = verify_file(forger.write(tmp_path / "less.car"))
    assert report.status is Status.NOT_PROVEN
    assert {link.name for link in report.links if link.missing} == {Name.VERDICTS, Name.AGGREGATE}


def test_a_missing_file_is_our_own_fault_and_a_missing_config_the_wires(found_federation: Any, tmp_path: Path) -> None:
    from proofs.errors import LocalFault

    with pytest.raises(LocalFault):
        verify_file(tmp_path / "none.car")
    made = found_federation(3)
    made.play()
    del made.store.blocks[made.state.opened.config_digest]
    with pytest.raises(ContentMissing):
        export_round(tmp_path / "x.car", made.chain, made.store, round_number=1)
