"""A local store with friends and mirrors."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from ledger.content import (
    Cid,
    ContentMissing,
    EmbeddedStore,
    GatewayStore,
    Limits,
    MemoryStore,
    PeeredStore,
    StoreDamaged,
    serve,
)

SMALL = {"a": b"first", "d/b": b"second"}


def test_what_a_friend_had_is_kept(
    tmp_path: Path, memory: MemoryStore, gateway: str, bundle: dict[str, bytes], limits: Limits
) -> None:
    digest, config = memory.put_directory(bundle), memory.put_raw(b"config")
    local = EmbeddedStore(tmp_path)
    peered = PeeredStore(local, [GatewayStore(["http://127.0.0.1:9"], timeout_s=5), GatewayStore([gateway])])
    assert peered.get_directory(digest, limits) == bundle
    assert peered.get_raw(config, 6) == b"config"
    memory.blocks.clear()
    assert local.get_directory(digest, limits) == bundle
    assert local.get_raw(config, 6) == b"config"
    assert peered.get_directory(digest, limits) == bundle


def test_nobody_having_it_names_everybody(tmp_path: Path, gateway: str, limits: Limits) -> None:
    local = EmbeddedStore(tmp_path)
    with pytest.raises(ContentMissing) as caught:
        PeeredStore(local, [MemoryStore(), GatewayStore([gateway])]).get_directory(bytes(32), limits)
    assert [attempt.where for attempt in caught.value.attempts] == [str(tmp_path), "memory", gateway]


def test_damage_at_home_is_reported_and_not_papered_over(tmp_path: Path, memory: MemoryStore, limits: Limits) -> None:
    local = EmbeddedStore(tmp_path)
    digest = local.put_directory(SMALL)
    memory.put_directory(SMALL)
    local.block_path(Cid.directory(digest)).write_bytes(b"")
    peered = PeeredStore(local, [memory])
    with pytest.raises(StoreDamaged):
        peered.get_directory(digest, limits)
    local.block_path(Cid.directory(digest)).unlink()
    assert peered.get_directory(digest, limits) == SMALL


def test_mirrors_have_everything_before_a_put_is_acknowledged(memory: MemoryStore, limits: Limits) -> None:
    mirror = MemoryStore()
    peered = PeeredStore(memory, [], [mirror])
    digest, config = peered.put_directory(SMALL), peered.put_raw(b"config")
    assert mirror.get_directory(digest, limits) == SMALL
    assert mirror.get_raw(config, 6) == b"config"


def test_an_export_fetches_first_and_an_import_is_local(memory: MemoryStore, limits: Limits) -> None:
    digest, config = memory.put_directory(SMALL), memory.put_raw(b"config")
    local, sink = MemoryStore(), io.BytesIO()
    PeeredStore(local, [memory]).export_car([digest, Cid.raw(config)], sink)
    assert local.get_directory(digest, limits) == SMALL
    other = PeeredStore(MemoryStore(), [])
    assert other.import_car(io.BytesIO(sink.getvalue()), limits) == [Cid.directory(digest), Cid.raw(config)]


def test_gateways_that_come_back_are_read_again(memory: MemoryStore, limits: Limits) -> None:
    digest = memory.put_directory(SMALL)
    serving = serve(memory)
    client = GatewayStore([serving.url], timeout_s=5)
    port = int(serving.url.rpartition(":")[2])
    serving.close()
    with pytest.raises(ContentMissing):
        client.get_directory(digest, limits)
    with serve(memory, port=port):
        assert client.get_directory(digest, limits) == SMALL
