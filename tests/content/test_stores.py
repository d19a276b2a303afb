"""What every store that holds blocks promises: the same story on the disk and on its twin in memory."""

from __future__ import annotations

import io
from hashlib import sha256

import pytest

from ledger.content import (
    CarInvalid,
    Cid,
    ContentMissing,
    EmbeddedStore,
    LimitExceeded,
    Limits,
    MemoryStore,
    NotCanonicalBlock,
    NotPublishable,
    StoreDamaged,
    errors,
)
from ledger.content.unixfs import directory_blocks

Store = MemoryStore | EmbeddedStore


def test_a_directory_comes_back_as_it_was_put(store: Store, bundle: dict[str, bytes], limits: Limits) -> None:
    digest = store.put_directory(bundle)
    assert store.get_directory(digest, limits) == bundle


def test_the_name_depends_on_the_contents_alone(store: Store, bundle: dict[str, bytes]) -> None:
    other_order = dict(reversed(bundle.items()))
    assert store.put_directory(bundle) == store.put_directory(other_order) == directory_blocks(bundle)[0].cid.digest
    assert store.put_directory({**bundle, "empty": b"!"}) != store.put_directory(bundle)


def test_a_config_is_one_raw_block_named_by_its_sha256(store: Store) -> None:
    data = b'{"kind":"candor/config/1"}'
    digest = store.put_raw(data)
    assert digest == sha256(data).digest()
    assert store.get_raw(digest, len(data)) == data


def test_a_raw_block_over_the_callers_limit_is_refused(store: Store) -> None:
    digest = store.put_raw(b"four")
    with pytest.raises(LimitExceeded, match="4 bytes where at most 3"):
        store.get_raw(digest, 3)


def test_a_raw_block_over_one_chunk_is_not_publishable(store: Store) -> None:
    with pytest.raises(NotPublishable, match="do not fit one raw block"):
        store.put_raw(bytes((1 << 20) + 1))


def test_what_was_never_put_is_missing_and_says_who_was_asked(store: Store, limits: Limits) -> None:
    with pytest.raises(ContentMissing, match="not stored") as caught:
        store.get_directory(bytes(32), limits)
    assert [attempt.lied for attempt in caught.value.attempts] == [False]


def test_a_directory_with_a_block_missing_is_missing(store: Store, bundle: dict[str, bytes], limits: Limits) -> None:
    root, others = directory_blocks(bundle)
    store.put_blocks(others[1:], [root])
    with pytest.raises(ContentMissing, match=str(others[0].cid)):
        store.get_directory(root.cid.digest, limits)


def test_the_digest_of_a_file_is_not_a_directory(store: Store, limits: Limits) -> None:
    digest = store.put_raw(b"only a file")
    with pytest.raises(NotCanonicalBlock):
        store.get_directory(digest, limits)


@pytest.mark.parametrize(
    "path",
    ["", "/", "/absolute", "a//b", "a/", ".", "..", "a/../b", "./a", "a\\b", "a\nb", "a\x00b", "\x7f", "a\u202eb",
     "\u200b", "\ud800", "n" * 256, "\x1b[2J", "/".join("d" * 33)],
)  # fmt: skip
def test_paths_that_no_bundle_may_have_are_not_publishable(store: Store, path: str) -> None:
    with pytest.raises(NotPublishable):
        store.put_directory({path: b"x"})


def test_one_name_is_not_both_a_file_and_a_folder(store: Store) -> None:
    with pytest.raises(NotPublishable, match="inside a file"):
        store.put_directory({"a": b"", "a/b": b""})
    with pytest.raises(NotPublishable, match="both a file and a folder"):
        store.put_directory({"a/b": b"", "a": b""})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_files": 4}, "more than 4 files"),
        ({"max_file_bytes": 2_499_999}, "2500000 bytes where at most 2499999"),
        ({"max_total_bytes": 3_548_603}, "more than 3548603 bytes in all"),
        ({"max_depth": 1}, "candor: more than 1 levels"),
    ],
)
def test_each_limit_is_exact(store: Store, bundle: dict[str, bytes], change: dict[str, int], message: str) -> None:
    total = sum(map(len, bundle.values()))
    exact = {"max_files": 5, "max_file_bytes": 2_500_000, "max_total_bytes": total, "max_depth": 2}
    digest = store.put_directory(bundle)
    assert store.get_directory(digest, Limits(**exact)) == bundle
    with pytest.raises(LimitExceeded, match=message):
        store.get_directory(digest, Limits(**{**exact, **change}))


def test_a_car_carries_content_from_store_to_store(store: Store, bundle: dict[str, bytes], limits: Limits) -> None:
    sink = io.BytesIO()
    bundle_digest, config_digest = store.put_directory(bundle), store.put_raw(b"config")
    store.export_car([bundle_digest, Cid.raw(config_digest), bundle_digest], sink)
    other = MemoryStore()
    roots = other.import_car(io.BytesIO(sink.getvalue()), limits)
    assert roots == [Cid.directory(bundle_digest), Cid.raw(config_digest)]
    assert other.get_directory(bundle_digest, limits) == bundle
    assert other.get_raw(config_digest, 6) == b"config"
    again = io.BytesIO()
    other.export_car(roots, again)
    assert again.getvalue() == sink.getvalue()


def test_a_bad_car_stores_nothing(store: Store, bundle: dict[str, bytes], limits: Limits) -> None:
    source = MemoryStore()
    digest = source.put_directory(bundle)
    sink = io.BytesIO()
    source.export_car([digest], sink)
    with pytest.raises(CarInvalid, match="truncated"):
        store.import_car(io.BytesIO(sink.getvalue()[:-1]), limits)
    with pytest.raises(LimitExceeded):
        store.import_car(io.BytesIO(sink.getvalue()), Limits(4, 1 << 30, 1 << 30, 4))
    for block in directory_blocks(bundle)[1]:
        with pytest.raises(ContentMissing):
            store.get_block(block.cid)


def test_exporting_what_is_missing_is_an_error(store: Store) -> None:
    with pytest.raises(ContentMissing):
        store.export_car([bytes(32)], io.BytesIO())


def test_wrong_bytes_behind_a_name_are_never_handed_out(store: Store, bundle: dict[str, bytes], limits: Limits) -> None:
    digest = store.put_directory(bundle)
    leaf = directory_blocks(bundle)[1][0].cid
    if isinstance(store, MemoryStore):
        store.blocks[leaf.digest] = b"forged"
    else:
        store.block_path(leaf).write_bytes(b"forged")
    with pytest.raises(StoreDamaged, match=str(leaf)):
        store.get_directory(digest, limits)
    with pytest.raises(StoreDamaged, match=str(leaf)):
        store.get_block(leaf)
    with pytest.raises(StoreDamaged, match=str(leaf)):
        store.export_car([digest], io.BytesIO())


def test_the_drawn_tree_of_errors_is_the_real_one() -> None:
    drawn = [line.split() for line in (errors.__doc__ or "").splitlines()]
    parents: list[str] = []
    for words in drawn:
        name = next((word for word in words if word[0].isupper() and word.isalpha() and hasattr(errors, word)), None)
        if name is None:
            continue
        depth = sum(word[0] in "│├└" for word in words)
        parents[depth:] = [name]
        if depth:
            assert issubclass(getattr(errors, name), getattr(errors, parents[depth - 1])), name
    named = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert all(name in (errors.__doc__ or "") for name in named)
